#!/usr/bin/python3
# seconds: 200
"""Calls of MPI that tools/messages counts, against the formulas of doc/architecture.md, at 2 and 4 ranks."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tools/messages")]
os.chdir(ROOT)
os.environ.setdefault("DELTAPATH", os.path.join(os.environ.get("DELTAPATH_BUILD", "build/release"), "deltapath"))
import messages
import studies
from studies import check

LAYERS, WIDTH, SAMPLES, LENGTH, BATCH = 3, 64, 16, 16, 32
SIZES = {"num_hidden_layers": LAYERS, "hidden_size": WIDTH, "intermediate_size": 128, "vocab_size": 256,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
JOB = """name: m
models: {pre: %(at)s/pair/pre, post: %(at)s/pair/post}
data: [{name: text, file: %(at)s/data.h5, loss: lm}]
edits: [{name: dare, method: dare, p: 0.5}]
riemann: {rule: left, points: 2}
batch_tokens: %(batch)d
output: {directory: %(at)s/never, checkpoint: none, report: false}
"""


def prepare(at):
    sets = [word for key, value in SIZES.items() for word in ("--set", f"{key}={value}")]
    done = studies.deltapath("synthetic", "share/demo/llama-pre/config.json", str(at / "pair"), *sets)
    check("a pair", done.returncode == 0, done.stderr)
    tokens = np.random.default_rng(0).integers(0, 256, SAMPLES * LENGTH, dtype=np.int32)
    with h5py.File(at / "data.h5", "w") as file:
        file["tokens"], file["loss_mask"] = tokens, np.ones(len(tokens), np.uint8)
        file["offsets"] = np.arange(0, len(tokens) + 1, LENGTH, dtype=np.int64)
    (at / "job.yaml").write_text(JOB % {"at": at, "batch": BATCH})
    subprocess.run(["mpicc", "-shared", "-fPIC", "-O1", "tools/messages/libmessages.c", "-o", str(at / "lib.so")], check=True)
    return [int(word) for word in done.stdout.split() if word.isdigit()]


def count(at, ranks, *words):
    """{(phase, call): line}"""
    all_words = [str(at / "job.yaml"), *words, "--set", "output.overwrite=true"]
    lines = messages.count(str(at / "lib.so"), all_words, ranks, at)
    return {(line["phase"], line["call"]): line for line in lines}


def value(lines, phase, call, key):
    return lines.get((phase, call), {}).get(key, 0)


def binds(at, elements):
    """Two binds: the pre-trained model, which each rank reads for itself, and the edited one from the cells of all."""
    units = LAYERS + 2
    for ranks in (2, 4):
        lines = count(at, ranks, "--set", "tensor_parallel=1")
        check(f"bind at {ranks}: an all-gather of requests a unit", value(lines, "bind", "allgather", "calls") == units, lines)
        check(f"bind at {ranks}: messages to each other rank a unit at most",
              units <= value(lines, "bind", "sendrecv", "calls") <= units * (ranks - 1), lines)
        moved, want = value(lines, "bind", "sendrecv", "all_bytes"), 2 * elements * (1 - 1 / ranks)
        check(f"bind at {ranks}: bytes of the model but for those of a rank's own", 0.9 < moved / want < 1.15, (moved, want))
        statuses = value(lines, "bind", "allreduce", "calls") / 2
        check(f"bind at {ranks}: three agreements a unit and some twenty", abs(statuses - (3 * units + 19)) <= 6, statuses)
        check(f"passes at {ranks}: none for layers", value(lines, "slopes", "sendrecv", "calls") == 0, lines)


def tensor_parallel(at):
    """A batch: all-reduces of its activations in each layer, and its inputs brought together again."""
    size, batches = 4 * BATCH * WIDTH, SAMPLES * LENGTH // BATCH
    for ranks in (2, 4):
        lines = count(at, ranks, "--set", f"tensor_parallel={ranks}")
        for phase, sums, passes in (("slopes", 5 * LAYERS + 2, 2), ("forward", 2 * LAYERS + 1, 2)):
            want = passes * batches * sums * size
            have = value(lines, phase, "allreduce", "bytes")
            check(f"{phase} at 1 x {ranks}: {sums} all-reduces of T x C a batch", 1 <= have / want < 1.1, (have, want))
        have, want = value(lines, "slopes", "sendrecv", "bytes"), 2 * batches * LAYERS * size * (ranks - 1) / ranks
        check(f"slopes at 1 x {ranks}: inputs of a layer come together", abs(have / want - 1) < 0.05, (have, want))


def machines(at):
    """Two machines of two ranks: what the plan says that comes into each."""
    words = [str(at / "job.yaml"), "--set", "tensor_parallel=1"]
    plan = json.loads(studies.deltapath("plan", *words, "--ranks", "4", "--ranks-per-node", "2", "--json").stdout)
    messages.ENVIRONMENT["DPT_MACHINE_RANKS"] = "2"
    lines = count(at, 4, "--set", "tensor_parallel=1")
    del messages.ENVIRONMENT["DPT_MACHINE_RANKS"]
    have = sum(value(lines, phase, "send", "all_bytes") for phase in ("slopes", "forward", "load", "bind"))
    check("gathers between two machines are those of the plan", abs(have / (2e9 * plan["gathered_gb"]) - 1) < 0.1,
          (have, plan["gathered_gb"]))


def main():
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        elements = prepare(at)[-1]
        binds(at, elements)
        tensor_parallel(at)
        machines(at)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

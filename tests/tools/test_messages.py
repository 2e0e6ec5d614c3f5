#!/usr/bin/python3
# seconds: 300
"""Calls of MPI and products that tools/messages counts, against the formulas of doc/architecture.md and the plan."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / place) for place in ("tests/support", "tests/cli", "tools/messages")]
os.chdir(ROOT)
os.environ.setdefault("DELTAPATH", os.path.join(os.environ.get("DELTAPATH_BUILD", "build/release"), "deltapath"))
import messages
import studies
import test_plan_families
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


def write_data(path, seed, samples):
    tokens = np.random.default_rng(seed).integers(0, 256, samples * LENGTH, dtype=np.int32)
    with h5py.File(path, "w") as file:
        file["tokens"], file["loss_mask"] = tokens, np.ones(len(tokens), np.uint8)
        file["offsets"] = np.arange(0, len(tokens) + 1, LENGTH, dtype=np.int64)


def prepare(at):
    sets = [word for key, value in SIZES.items() for word in ("--set", f"{key}={value}")]
    done = studies.deltapath("synthetic", "share/demo/llama-pre/config.json", str(at / "pair"), *sets)
    check("a pair", done.returncode == 0, done.stderr)
    write_data(at / "data.h5", 0, SAMPLES)
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


def plan_of(at, ranks, *words):
    return json.loads(studies.deltapath("plan", str(at / "job.yaml"), *words, "--ranks", str(ranks), "--json").stdout)


def memory_for(at, ranks, words, layers):
    """Bytes that keep the activations of so many layers for the way back; a tenth, or 16 MiB, stays free beside them."""
    least, most = 1 << 20, 1 << 30
    while most - least > 1:
        middle = (least + most) // 2
        done = studies.deltapath("plan", str(at / "job.yaml"), *words, "--ranks", str(ranks), "--memory", str(middle), "--json")
        kept = json.loads(done.stdout)["layers_kept"] if done.returncode == 0 else -1
        if kept == layers:
            return middle
        least, most = (middle, most) if kept < layers else (least, middle)
    check(f"a memory that keeps {layers} layers", False)


def tensor_parallel(at):
    """A batch: all-reduces of its activations in each layer, and its inputs brought together again."""
    size, batches = 4 * BATCH * WIDTH, SAMPLES * LENGTH // BATCH
    for ranks, kept in ((2, 0), (2, 1), (2, LAYERS), (4, 0), (4, LAYERS)):
        words = ["--set", f"tensor_parallel={ranks}"]
        words += ["--memory", str(memory_for(at, ranks, words, kept))]
        lines = count(at, ranks, *words)
        for phase, sums, passes in (("slopes", 5 * LAYERS - kept + 2, 2), ("forward", 2 * LAYERS + 1, 2)):
            want = passes * batches * sums * size
            have = value(lines, phase, "allreduce", "bytes")
            check(f"{phase} at 1 x {ranks}: {sums} all-reduces of T x C a batch", 1 <= have / want < 1.1, (have, want))
        have, want = value(lines, "slopes", "sendrecv", "bytes"), 2 * batches * LAYERS * size * (ranks - 1) / ranks
        check(f"slopes at 1 x {ranks}: inputs of a layer come together", abs(have / want - 1) < 0.05, (have, want))


def machines(at):
    """Two machines of two ranks: what the plan says that comes into each, in bf16 once more for the few samples of each edit,
    and for each data set however small."""
    small = [f"{{name: d{seed}, file: {at}/small{seed}.h5, loss: lm}}" for seed in range(1, 4)]
    for seed in range(1, 4):
        write_data(at / f"small{seed}.h5", seed, 4)
    edits = "edits=[{name: a, method: dare, p: 0.5}, {name: b, method: drop, p: 0.5}, {name: c, method: drop, p: 0.2}]"
    for name, *keys in (("fp32",), ("bf16", "precision=bf16", edits, "batch_tokens=64"),
                        ("small data sets", f"data=[{{name: text, file: {at}/data.h5, loss: lm}}, {', '.join(small)}]")):
        sets = [word for key in ("tensor_parallel=1", *keys) for word in ("--set", key)]
        plan = json.loads(studies.deltapath("plan", str(at / "job.yaml"), *sets, "--ranks", "4", "--ranks-per-node", "2",
                                            "--json").stdout)
        messages.ENVIRONMENT["DPT_MACHINE_RANKS"] = "2"
        lines = count(at, 4, *sets)
        del messages.ENVIRONMENT["DPT_MACHINE_RANKS"]
        have = sum(value(lines, phase, "send", "all_bytes") for phase in ("slopes", "forward", "load", "bind"))
        check(f"gathers between two machines are those of the plan: {name}", abs(have / (2e9 * plan["gathered_gb"]) - 1) < 0.05,
              (have, plan["gathered_gb"]))


def compare_products(at, name, ranks, *words):
    """Operations of all products with weights are those of the plan, but for those of the attention."""
    plan = plan_of(at, ranks, *words)
    lines = count(at, ranks, *words)
    pairs = SAMPLES * LENGTH * (LENGTH + 1) / 2 * LAYERS
    attention = 4 * WIDTH * pairs * ((4.5 - plan["layers_kept"] / LAYERS) * plan["slope_passes"] + plan["forward_passes"])
    have = sum(value(lines, phase, "sgemm", "all_bytes") for phase in ("slopes", "forward"))
    want = 1e12 * plan["expected_tflop"] - attention
    check(f"products of {name} at {ranks} ranks are those of the plan", abs(have / want - 1) < 1e-4, (have, want, plan))


def products(at):
    edits = "edits=[{name: expo, method: expo, alpha: [0.1, 0.2]}, {name: keep, method: prune, keep: 0.3}]"
    for name, rule, dtype in (("left", "{rule: left, points: 2}", "same"), ("radau", "{rule: radau, points: 2}", "same"),
                              ("all slopes", "{rule: left, points: 2, per_sample: true}", "same"),
                              ("a line", "{rule: left, points: 2, per_sample: true}", "f32")):
        words = ["--set", edits, "--set", f"riemann={rule}", "--set", f"output.dtype={dtype}"]
        for ranks, kept in ((1, 0), (1, 1), (1, LAYERS), (2, LAYERS)):
            limit = ["--memory", str(memory_for(at, ranks, words, kept))]
            compare_products(at, f"{name}, {kept} layers kept,", ranks, *words, *limit)


def families(at):
    """Those of other architectures, made as small."""
    for name, (architecture, kind, config, *_) in test_plan_families.MODELS.items():
        if "image_size" in config or name.startswith(("gpt2", "gpt-oss")):  # `synthetic` does not make them
            continue
        small = SIZES | {"moe_intermediate_size": 32} | ({"num_key_value_heads": 4} if kind == "gpt_neox" else {})
        text = {"architectures": [architecture], "model_type": kind} | {k: v for k, v in config.items() if k != "experts"}
        text |= {key: number for key, number in small.items() if key in text}
        text |= {"layer_types": text["layer_types"][:LAYERS]} if "layer_types" in text else {}
        (at / "config.json").write_text(json.dumps(text))
        done = studies.deltapath("synthetic", str(at / "config.json"), str(at / name))
        check(f"{name} in small", done.returncode == 0, done.stderr)
        compare_products(at, name, 1, "--set", f"models={{pre: {at}/{name}/pre, post: {at}/{name}/post}}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        elements = prepare(at)[-1]
        binds(at, elements)
        tensor_parallel(at)
        machines(at)
        products(at)
        families(at)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

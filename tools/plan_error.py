#!/usr/bin/python3
"""Run jobs and compare what they took with what `deltapath plan` says of them: memory of a rank, bytes read and written,
and time. Usage: tools/plan_error.py [-n 1,2,4] [PATTERN ...]; patterns choose jobs by name.

Memory and bytes are what the run itself counts (the line `plan against run` of its log). Time is processor time of the
ranks, user and system, without start and end of MPI: the clock of a machine that others use says little. Ranks beyond the
cores share them; the plan knows that. A star marks what is off by more than 10 %, or 30 % of a time; the last line counts
these, and the code is 1 where there are any. No run begins after --seconds. Needs NumPy."""
import argparse
import fnmatch
import functools
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "build/release/deltapath"
DEMO = {"models": "{pre: share/demo/llama-pre, post: share/demo/llama-post}",
        "data": "[{name: task, file: share/demo/task.h5, loss: lm, samples: 48}]"}
DARE = "{name: dare, method: dare, p: 0.5}"
PRUNE = "{name: prune, method: prune, keep: 0.3}"
TWIN = "{name: twin, method: lowrank, sparsity: 0.9}"
AUTO = "{name: auto, method: expo, alpha: auto}"
SHAPES = {  # hidden, layers, heads, key-value heads, hidden units, vocabulary
    "135m": (576, 30, 9, 3, 1536, 49152),
    "wide": (2048, 2, 16, 4, 8192, 8192),
}
SEQUENCES = {"135m": (4, 128), "wide": (8, 256)}


def alone(edits, checkpoint="safetensors", models=DEMO["models"]):
    return {"models": models, "edits": f"[{edits}]", "output.checkpoint": checkpoint}


def walked(edits, **more):
    return DEMO | {"edits": f"[{edits}]"} | more


JOBS = {
    "demo-dare": alone(DARE),
    "demo-prune": alone(PRUNE, "hdf5"),
    "demo-lowrank": alone(TWIN),
    "demo-bits": alone("{name: bits, method: multibit, bits: 2}"),
    "demo-rows": alone("{name: rows, method: bitdelta, granularity: row}"),
    "demo-della": alone("{name: della, method: della, p: 0.5, epsilon: 0.2}"),
    "demo-study": walked(f"{DARE}, {PRUNE}, {TWIN}, {{name: bit, method: bitdelta}}"),
    "demo-left": walked(f"{DARE}, {PRUNE}", riemann="{rule: left, points: 5}"),
    "demo-auto": walked(AUTO, riemann="{rule: left, points: 3}",
                        data="[{name: task, file: share/demo/task.h5, loss: lm, samples: 64, choose: 0.5}]"),
    "demo-law": walked(DARE, law="{repeats: 4}", riemann="{rule: left, points: 3}"),
    "vit": {"models": "{pre: share/demo/vit-pre, post: share/demo/vit-post}",
            "data": "[{name: digits, file: share/demo/digits.h5, loss: class}]", "edits": f"[{DARE}, {PRUNE}]"},
    "135m-edits": alone(f"{DARE}, {PRUNE}, {{name: bit, method: bitdelta}}", models="135m"),
    "135m-lowrank": alone("{name: twin, method: lowrank, rank: 16}", models="135m"),
    "135m-study": {"models": "135m", "edits": f"[{DARE}, {PRUNE}]", "riemann": "{rule: left, points: 2}"},
    "wide-study": {"models": "wide", "edits": f"[{DARE}]", "riemann": "{rule: left, points: 2}"},
}


def write_model(folder, shape, seed):
    """A LLaMA of random values, whose delta to that of another seed is small."""
    width, layers, heads, kv, units, vocabulary = shape
    size = width // heads
    shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    for n in range(layers):
        at = f"model.layers.{n}."
        shapes |= {f"{at}self_attn.q_proj.weight": (width, width), f"{at}self_attn.k_proj.weight": (kv * size, width),
                   f"{at}self_attn.v_proj.weight": (kv * size, width), f"{at}self_attn.o_proj.weight": (width, width),
                   f"{at}mlp.gate_proj.weight": (units, width), f"{at}mlp.up_proj.weight": (units, width),
                   f"{at}mlp.down_proj.weight": (width, units), f"{at}input_layernorm.weight": (width,),
                   f"{at}post_attention_layernorm.weight": (width,)}
    folder.mkdir()
    header, at = {}, 0
    for name, sides in sorted(shapes.items()):
        n = 2 * int(np.prod(sides))
        header[name] = {"dtype": "BF16", "shape": sides, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    base, moved = np.random.default_rng(0), np.random.default_rng(seed + 1)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, sides in sorted(shapes.items()):
            values = base.standard_normal(sides, np.float32) * 0.02 + ("norm" in name)
            rows = np.exp(moved.standard_normal((*sides[:-1], 1), np.float32))  # trained ones differ so, or more
            values += seed * 0.001 * rows * moved.standard_normal(sides, np.float32)
            file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width,
              "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
              "intermediate_size": units, "vocab_size": vocabulary, "tie_word_embeddings": True,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 2048, "hidden_act": "silu"}
    (folder / "config.json").write_text(json.dumps(config))


def write_data(path, vocabulary, samples, length):
    import h5py
    rng = np.random.default_rng(3)
    with h5py.File(path, "w") as h5:
        h5["tokens"] = rng.integers(0, vocabulary, samples * length, dtype=np.int32)
        h5["loss_mask"] = np.ones(samples * length, np.uint8)
        h5["offsets"] = np.arange(0, (samples + 1) * length, length, dtype=np.int64)


def place(shape, folder):
    """Models and data of a generated shape, made once."""
    if not (folder / shape).exists():
        (folder / shape).mkdir()
        for name, seed in (("pre", 0), ("post", 1)):
            write_model(folder / shape / name, SHAPES[shape], seed)
        write_data(folder / shape / "data.h5", SHAPES[shape][5], *SEQUENCES[shape])
    return folder / shape


def options_of(name, folder):
    keys = {"name": name, "output.report": "false"} | JOBS[name]
    if keys["models"] in SHAPES:
        at = place(keys["models"], folder)
        keys["models"] = f"{{pre: {at}/pre, post: {at}/post}}"
        if "riemann" in keys:
            keys["data"] = f"[{{name: text, file: {at}/data.h5, loss: lm}}]"
    keys["output.directory"] = str(folder / "out" / name)
    shutil.rmtree(folder / "out" / name, ignore_errors=True)
    (folder / "empty.yaml").write_text("name: x\nmodels: {pre: x, post: x}\nedits: []\noutput: {directory: x}\n")
    words = [str(folder / "empty.yaml")]
    for key, value in keys.items():
        words += ["--set", f"{key}={value}"]
    return words


def processor(words, environment):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
                            "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def launch(ranks):
    return ["mpirun", "-q", "-n", str(ranks), str(PROGRAM)]


@functools.cache
def idle_of(ranks):
    """Of ranks that start and end."""
    return min(processor(launch(ranks) + ["keys"], ENVIRONMENT)[1] for _ in range(2))


def measure(name, ranks, folder):
    idle = idle_of(ranks)
    done, seconds = processor(launch(ranks) + ["run"] + options_of(name, folder), ENVIRONMENT)
    line = re.search(r"plan against run: memory per rank ([\d.]+) / ([\d.]+) MiB .*?read ([\d.]+) / ([\d.]+) GB .*?"
                     r"written ([\d.]+) / ([\d.]+) GB .*?time ([\d.]+) / ([\d.]+) s", done.stderr)
    if done.returncode != 0 or line is None:
        sys.exit(f"{name} at {ranks} ranks: {done.stderr[-800:]}")
    values = [float(v) for v in line.groups()]
    cores = os.cpu_count()
    taken = (seconds - idle) / ranks * max(1.0, ranks / cores)
    return values[:6] + [values[6], taken, values[7]]


def row_of(name, ranks, folder):
    """The text, and how much of it is off by more than it may be."""
    v = measure(name, ranks, folder)
    cells = ((v[0], v[1], 0.1, 0), (v[2] * 1e3, v[3] * 1e3, 0.1, 0.1), (v[4] * 1e3, v[5] * 1e3, 0.1, 0.1), (v[6], v[7], 0.3, 0.1))
    off = [abs(a - b) > share * b + least for a, b, share, least in cells]
    return f"{name:16} {ranks:5}  " + " ".join(
        f"{a:8.1f} {b:8.1f} {a / b - 1 if b else 0:+5.0%}{'*' if wide else ' '}" for (a, b, *_), wide in zip(cells, off)
    ) + f" {v[8]:6.1f}", sum(off)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--ranks", default="1,2,4")
    parser.add_argument("--folder", help="keep generated models there")
    parser.add_argument("--seconds", type=float, default=450.0)
    parser.add_argument("patterns", nargs="*", default=["*"])
    given = parser.parse_args()
    names = [n for n in JOBS if any(fnmatch.fnmatch(n, p) for p in given.patterns)]
    began, off, runs, left = time.monotonic(), 0, 0, []
    print(f"{'':16} {'':>5}  {'memory [MiB]':^23} {'read [MB]':^23} {'written [MB]':^23} {'time [s]':^23} clock")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(given.folder or scratch)
        folder.mkdir(exist_ok=True)
        for name in names:
            for ranks in map(int, given.ranks.split(",")):
                if time.monotonic() - began > given.seconds:
                    left.append(f"{name} at {ranks}")
                    continue
                text, wide = row_of(name, ranks, folder)
                print(text, flush=True)
                off, runs = off + wide, runs + 1
    print(f"{runs} runs in {time.monotonic() - began:.0f} s: {off} of {4 * runs} numbers are off by more" +
          (f"; no time was left for {', '.join(left)}" if left else ""))
    return 1 if off or left else 0


if __name__ == "__main__":
    sys.exit(main())

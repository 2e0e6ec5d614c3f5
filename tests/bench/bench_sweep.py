#!/usr/bin/python3
"""Ten DARE edits of a pair, of which no model is kept, against one of them: time without what starting mpirun with the program takes,
and bytes read.

    tests/bench/bench_sweep.py BUILD_DIR [--size 1] [--turns 5]

The models have SIZE GB each and lie in DPT_BENCH_FOLDER (TMPDIR); two ranks, a warm cache. Both kinds take turns. JSON lines as
tests/bench/bench_print.h writes them go into the file DPT_BENCH_JSON."""
import argparse
import json
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

RANKS = 2
SHARES = [0.05 + 0.1 * i for i in range(10)]
LAYER_BYTES, REST_BYTES = 2 * 44.0e6, 2 * 2 * 65.5e6  # of a layer of width 2048, and of embedding and head


def launch(*words):
    """Seconds of a command on the ranks, and bytes that it read [GB]."""
    shell = '"$@" >/dev/null && grep rchar /proc/$$/io'  # a process has the bytes of those that it waited for
    command = [*shlex.split(os.environ["DPT_MPIRUN"]), "-n", str(RANKS), "bash", "-c", shell, "sh", *map(str, words)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode != 0:
        sys.exit(f"bench_sweep: {shlex.join(map(str, words))}: {done.stderr.strip()[-500:]}")
    return seconds, 1e-9 * sum(map(int, re.findall(r"rchar: (\d+)", done.stdout)))


def make_pair(program, folder, size):
    """Two models in safetensors."""
    layers = max(1, round((size * 1e9 - REST_BYTES) / LAYER_BYTES))
    sets = f"hidden_size=2048 intermediate_size=5632 num_attention_heads=32 num_key_value_heads=4 num_hidden_layers={layers} " \
           "vocab_size=32000 tie_word_embeddings=false"
    words = [word for pair in sets.split() for word in ("--set", pair)]
    subprocess.run([program, "synthetic", "share/shapes/smollm2-135m.json", folder / "values", *words], check=True, stdout=subprocess.DEVNULL)
    for model in ("pre", "post"):
        launch(program, "convert", folder / "values" / model, folder / model)


def job(folder, name, shares):
    """A job file of so many edits."""
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\nmodels: {{pre: {folder}/pre, post: {folder}/post}}\nriemann: off\n"
                    f"edits: [{{name: dare, method: dare, p: {[round(share, 2) for share in shares]}}}]\n"
                    f"output: {{directory: {folder}/{name}, checkpoint: none, report: false}}\n")
    return path


def say(case, unit, values, limit=None, ratio=None):
    """A line for people and one for programs; half of the values lie between low and high."""
    ordered = sorted(values)
    low, high = ordered[len(values) // 4], ordered[-1 - len(values) // 4]
    median = statistics.median(values)
    beside = f" of {limit:.4g} {unit}: {ratio:.2f}" if limit else ""
    print(f"{case:<32} {median:9.4g} {unit:<6} ({low:.4g} .. {high:.4g}){beside}", flush=True)
    path = os.environ.get("DPT_BENCH_JSON")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            print(json.dumps({"bench": "bench_sweep", "case": case, "unit": unit, "median": median, "low": low, "high": high, "limit": limit,
                              "ratio": ratio, "seconds": None, "ranks": RANKS}), file=file)


def main():
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    program = options.build.absolute() / "deltapath"
    os.environ["DELTAPATH_QUIET"] = "1"
    with tempfile.TemporaryDirectory(prefix="deltapath-sweep.", dir=os.environ.get("DPT_BENCH_FOLDER")) as name:
        folder = pathlib.Path(name)
        make_pair(program, folder, options.size)
        runs = {"start": ("keys",), "one": ("run", job(folder, "one", SHARES[4:5]), "--set", "output.overwrite=true"),
                "ten": ("run", job(folder, "ten", SHARES), "--set", "output.overwrite=true")}
        took = {key: [] for key in runs}
        for turn in range(-1, options.turns):  # the first warms the cache
            for key, words in runs.items():
                one = launch(program, *words)
                if turn >= 0:
                    took[key].append(one)
    start = statistics.median(seconds for seconds, _ in took["start"])
    one, ten = ([seconds - start for seconds, _ in took[key]] for key in ("one", "ten"))
    say("one DARE, nothing kept", "s", one)
    say("ten DARE, nothing kept", "s", ten, statistics.median(one), statistics.median(b / a for a, b in zip(one, ten)))
    read = {key: statistics.median(gigabytes for _, gigabytes in took[key]) for key in ("one", "ten")}
    say("ten DARE, read", "GB", [read["ten"]], read["one"], read["ten"] / read["one"])
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
# seconds: 600
"""Passes over data sets that a plan expects are those that a run counts: of rules, shared gradients and lines, several data
sets, choosing parts, references, and what is measured besides; and what the plan takes for the attention of a sequence."""
import json
import os
import re
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

TASK = "{name: task, file: share/demo/task.h5, loss: lm, samples: 6%s}"
TEXT = "{name: text, file: share/demo/text.h5, loss: lm, samples: 4}"
PAIRS = "{name: pairs, file: share/demo/preference.h5, loss: dpo, samples: 4%s}"
LLAMA = """
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 6}]
edits: [{name: dare, method: dare, p: 0.5}, {name: keep, method: prune, keep: 0.3}]
riemann: {rule: left, points: 3}
output: {directory: %s, report: false}
"""
VIT = LLAMA.replace("llama", "vit").replace("task.h5, loss: lm", "digits.h5, loss: class")
EXPO = "edits=[{name: expo, method: expo, alpha: [0.1, 0.2, 0.4]}, {name: keep, method: prune, keep: 0.3}]"
LINE = re.compile(r"passes ([\d.]+) / (\d+) forward, ([\d.]+) / (\d+) forward and backward")
AT_LEAST = ("second derivatives", "signs and eigenvalues")  # steps that are tried depend on the values
CASES = [  # name, job, keys, passes forward alone, with slopes
    ("left", LLAMA, [], (3, 5)),
    ("radau", LLAMA, ["riemann={rule: radau, points: 2}"], (3, 3)),
    ("gauss, without t = 0", LLAMA, ["riemann={rule: gauss, points: 2}"], (4, 4)),
    ("trapezoid, with t = 1", LLAMA, ["riemann={rule: trapezoid, points: 3}"], (1, 5)),
    ("a slope at t = 0 for each edit", LLAMA, ["riemann={rule: left, points: 3, per_sample: true}"], (4, 6)),
    # Nodes of alpha 0.1, 0.2, 0.4 at 0, 1/3, 2/3 of them, and ends: 1/12, 1/6, 1/3, 2/3 of the last and its end, and the
    # ends at 1/4 and 1/2; the other edit by itself.
    ("a line in fp32", LLAMA, [EXPO, "output.dtype=f32"], (5, 7)),
    ("a line in fp32, t = 0 for each", LLAMA, [EXPO, "output.dtype=f32", "riemann={rule: left, points: 4, per_sample: true}"],
     (4, 12)),
    ("no line in bf16", LLAMA, [EXPO], (5, 9)),
    ("two data sets", LLAMA, [f"data=[{TASK % ''}, {TEXT}]"], (6, 10)),
    ("edits that one data set judges", LLAMA, [f"data=[{TASK % ''}, {TEXT}]", "edits.0.judge=text"], (5, 8)),
    ("a line that is judged apart", LLAMA, [
        f"data=[{TASK % ''}, {TEXT}]", "output.dtype=f32", "riemann={rule: left, points: 2, per_sample: true}",
        "edits=[{name: one, method: expo, alpha: [0.2, 0.4], judge: task}, {name: two, method: expo, alpha: 0.1, judge: text}]"],
     (5, 6)),
    ("samples that only choose", LLAMA, [f"data=[{TASK % ', choose: 0.5'}]"], (6, 5)),
    ("a gradient of these", LLAMA, [f"data=[{TASK % ', choose: 0.5'}]", "edits=[{name: bias, method: bias, by: gradient, k: 0.5}]"],
     (3, 4)),
    ("pairs with a reference", LLAMA, [f"data=[{PAIRS % ', reference: share/demo/llama-pre'}]"], (4, 5)),
    ("pairs that the model itself judges", LLAMA, [f"data=[{PAIRS % ''}]"], (4, 5)),
    ("draws of labels", LLAMA, ["law={repeats: 2}"], (3, 7)),
    ("every label, and logits", VIT, ["law={labels: all, probes: 2}"], (12, 15)),
    ("second derivatives", LLAMA, ["hessian={edits: true, blocks: layers}"], None),
    ("signs and eigenvalues", LLAMA, ["hessian={probes: 2, lanczos: 1, steps: 2}"], None),
    ("a plane", LLAMA, ["plane={a: dare, b: keep, points: 2}"], (7, 5)),
    ("groups left out", LLAMA, ["proof={groups: modules}"], None),
    ("correlations along the path", LLAMA, ["riemann.correlation=path"], (3, 7)),
    ("slopes of samples", LLAMA, ["edits=[{name: keep, method: prune, keep: 0.3, calibrate: significant}]"], None),
]


def forward_of(folder, count, length):
    """Seconds that the plan takes for a forward pass over so many sequences with 64 scored tokens in all."""
    mask = np.zeros((count, length), np.uint8)
    mask[:, -(64 // count):] = 1
    with h5py.File(f"{folder}/data.h5", "w") as file:
        file["tokens"] = np.arange(count * length, dtype=np.int32) % 500
        file["loss_mask"], file["offsets"] = mask.reshape(-1), np.arange(0, count * length + 1, length, dtype=np.int64)
    with open(f"{folder}/m.yaml", "w", encoding="utf-8") as file:
        file.write("cores: 1\nsgemm_gflops: 0.1\nsgemm_small_gflops: 0.1\nmemory_gb_per_s: 1e6\n")
    with open(f"{folder}/attention.yaml", "w", encoding="utf-8") as file:
        file.write(LLAMA % f"{folder}/never")
    done = studies.deltapath("plan", f"{folder}/attention.yaml", "--machine", f"{folder}/m.yaml", "--ranks", "1", "--json",
                             "--set", f"data=[{{name: text, file: {folder}/data.h5, loss: lm}}]")
    plan = json.loads(done.stdout) if done.returncode == 0 else done.stderr
    return plan["seconds"]["forward"] / (plan["forward_passes"] + plan["slope_passes"])


def attention(folder):
    """What longer sequences of as many tokens take more: operations of their keys, at 0.79 of the rate of products, and at
    less below 64 keys."""
    with open("share/demo/llama-pre/config.json", encoding="utf-8") as file:
        config = json.load(file)
    work = 4 * config["hidden_size"] * config["num_hidden_layers"] / 0.1e9
    taken = {n: forward_of(folder, 2048 // n, n) for n in (32, 128, 512)}
    wanted = {n: work * 2048 * (n + 1) / 2 / (0.79 * min(1, (n + 1) / 128) ** 0.25) for n in taken}
    for n in (128, 512):
        check(f"attention of {n} tokens against 32", abs((taken[n] - taken[32]) / (wanted[n] - wanted[32]) - 1) < 0.01,
              (taken, wanted))


def main():
    with tempfile.TemporaryDirectory() as folder:
        attention(folder)
        for i, (name, job, keys, expected) in enumerate(CASES):
            for ranks in (1, 3) if name in ("left", "two data sets") else (1,):
                done = studies.study(f"{folder}/job.yaml", job % f"{folder}/{i}-{ranks}", ranks, *keys)
                line = LINE.search(done.stderr)
                said = tuple(float(n) for n in line.groups()) if line else ()
                more = 2 if name in AT_LEAST else 1
                check(f"{name} at {ranks} ranks", said and said[0] == said[1] and said[2] <= said[3] <= more * said[2] and
                      (expected is None or (said[1], said[3]) == expected), (said, expected, done.stderr[-500:]))
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

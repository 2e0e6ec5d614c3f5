#!/usr/bin/python3
"""No edit that is called competitive loses more accuracy than its margin says, on the shipped pairs; and the reason of
one that is not says what failed."""

import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

PAIRS = {
    "llama": ("task.h5", "lm"),
    "vit": ("digits.h5", "class"),
    "qwen": ("reverse.h5", "lm"),
}
EDITS = ("[{name: dare, method: dare, p: [0.1, 0.8], seed: 1}, {name: drop, method: drop, p: 0.2, seed: 1},"
         " {name: none, method: expo, alpha: 0}]")


def run(folder, pair, *options):
    """Units of a study by edit."""
    file, loss = PAIRS[pair]
    done = studies.run(
        f"{folder}/job.yaml", 2, "--set", f"models={{pre: share/demo/{pair}-pre, post: share/demo/{pair}-post}}", "--set",
        f"data=[{{name: d, file: share/demo/{file}, loss: {loss}}}]", "--set", f"output.directory={folder}/{pair}",
        *options)
    check(f"{pair}: the study", done.returncode == 0, done.stderr)
    if done.returncode != 0:
        return {}
    with open(f"{folder}/{pair}/results.json", encoding="utf-8") as results:
        return {unit["edit"]: unit for unit in json.load(results)["units"]}


def judged(name, unit):
    """What a verdict says against its numbers."""
    lost, margin = -unit["accuracy_change"], unit["accuracy_margin"]
    if unit["verdict"] == "competitive" and unit["change_se"] > 0:
        check(f"{name}: competitive", unit["p_accuracy"] < 0.05 > unit["p_equivalent"] and lost < margin and
              unit["equivalence_high"] < unit["margin"], unit)
    elif unit["verdict"] == "competitive":
        check(f"{name}: nothing changes", unit["change"] == lost == 0, unit)
    else:
        within = -unit["margin"] < unit["equivalence_low"] and unit["equivalence_high"] < unit["margin"]
        said = f"{100 * margin:g}"
        known = (f"falls by more than {said}" if unit["accuracy_high"] < -margin else
                 f"a fall by {said} or more is {'excluded' if unit['p_accuracy'] < 0.05 else 'possible'}")
        check(f"{name}: the reason says what failed", ("loss is within its margin" in unit["reason"]) == within and
              known in unit["reason"], unit["reason"])
    check(f"{name}: the margin is no more than 5 % of the room", unit["margin"] <= 0.05 * unit["gain"] and
          unit["margin"] <= unit["margin_accuracy"] * (1 + 1e-12), unit)


def main():
    """Every pair; then too few samples, and without the accuracy."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        with open(f"{folder}/job.yaml", "w", encoding="utf-8") as file:
            file.write(f"models: {{pre: a, post: b}}\nedits: {EDITS}\nriemann: {{points: 1}}\n"
                       "output: {directory: o, report: false, overwrite: true}\n")
        competitive = 0
        for pair in PAIRS:
            units = run(folder, pair)
            for edit, unit in units.items():
                judged(f"{pair} {edit}", unit)
                competitive += unit["verdict"] == "competitive" and unit["change_se"] > 0
        check("some edits are competitive", competitive >= 2, competitive)
        few = ["--set", "data.0.samples=100", "--set", "edits=[{name: e, method: dare, p: 0.1, seed: 1}]"]
        unit = list(run(folder, "llama", *few).values())[0]
        check("too few samples: how many would do", unit["verdict"] == "undecided" and
              unit["reason"].endswith("some 149 samples with these shares would tell"), unit["reason"])
        unit = list(run(folder, "llama", *few, "--set", "accuracy_margin=0").values())[0]
        check("the accuracy left out", unit["verdict"] == "competitive" and unit["p_accuracy"] is None, unit)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

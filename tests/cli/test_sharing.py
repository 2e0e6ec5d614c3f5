#!/usr/bin/python3
"""What edits of one study share: the gradient at t = 0, kept where the memory allows it, with a smaller batch where that
makes the room; points of their paths, where one edit is a multiple of the other; and the log counts the passes that were
taken, and those that were not."""

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

JOB = """
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 4}]
edits: [{name: half, method: prune, keep: 0.5}, {name: bits, method: bitdelta}, {name: near, method: expo, alpha: 0.05}]
riemann: {rule: left, points: 5}
output: {directory: %s, report: false}
"""
COUNTS = re.compile(r"passes over data sets: (\d+) forward, (\d+) forward and backward; not taken again: (\d+) at t = 0 "
                    r"by the gradient that edits share, (\d+) of another edit on the same line, (\d+) of an earlier run")

LINES = """
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 4}]
edits: [{name: expo, method: expo, alpha: [0.08, 0.1, 0.2, 0.4, -0.2]}, {name: bits, method: bitdelta}]
riemann: {rule: left, points: 5, per_sample: true}
output: {directory: %s, report: false, dtype: f32}
"""


def counts(done):
    """The passes of the log."""
    found = COUNTS.search(done.stderr)
    return tuple(int(n) for n in found.groups()) if found else done.stderr


def plan(folder, *sets, memory="1G"):
    """Numbers of the plan at a budget; the sum is of what a study cannot do without."""
    done = studies.study(f"{folder}/plan.yaml", JOB % f"{folder}/plan", 1, *sets, options=("--dry-run", "--memory", memory))
    rows = dict(re.findall(r"^  (\S.*?\S) {2,}(\S.*)$", done.stdout, re.M))
    return {"kept": rows.get("gradient at t = 0 kept for all edits", done.stderr),
            "batch": int(rows["tokens packed into one pass"]), "sum": float(rows["at most at a time"].split()[0]) -
            float(rows.get("activations kept for the way back", "0").split()[0]),
            "gradients": float(rows.get("gradients", "0").split()[0])}


def check_counts(folder):
    """Three edits: losses at both ends, and five slopes each, of which that at t = 0 is shared or not."""
    for name, ranks, sets, expected in (("left", 1, (), (4, 13, 3, 0, 0)), ("four", 4, ("tensor_parallel=2",), (4, 13, 3, 0, 0)),
                                        ("sample", 1, ("riemann.per_sample=true",), (5, 15, 0, 0, 0)),
                                        ("ends", 1, ("riemann={rule: trapezoid, points: 3}",), (1, 7, 3, 0, 0)),
                                        ("radau", 1, ("riemann={rule: radau, points: 2}",), (4, 4, 3, 0, 0))):
        _, done = studies.results_of(folder, name, JOB, ranks, *sets)
        check(f"passes of {name}", counts(done) == expected, counts(done))
    _, done = studies.results_of(folder, "resumed", JOB, 1, options=("--max-time", "0.01"))
    check("a study is stopped", done.returncode == 75, (done.returncode, done.stderr))
    taken = counts(done) if "passes over" in done.stderr else (0, 0, 0, 0, 0)
    _, done = studies.results_of(folder, "resumed", JOB, 1, options=("--resume",))
    check("and takes no pass again", counts(done)[4] == taken[0] + taken[1] and
          [sum(n) for n in zip(taken, counts(done))][:2] == [4, 13], (taken, counts(done)))


MANY = "data=[{name: task, file: share/demo/task.h5, loss: lm, samples: 128}]"  # tokens for several batches


def check_memory(folder):
    """The plan keeps the gradient down to the byte, and by a smaller batch before it lets it go."""
    bits = "edits=[{name: bits, method: bitdelta}, {name: near, method: expo, alpha: 0.05}]"
    whole = plan(folder, MANY, bits)
    check("with much memory it is kept", whole["kept"] == "yes" and whole["batch"] == 2048 and whole["gradients"] > 0, whole)
    less = plan(folder, MANY, bits, memory=f"{int(whole['sum']) - 1}M")
    check("a smaller batch makes room", less["kept"] == "yes" and 512 <= less["batch"] < 2048 and
          less["gradients"] == whole["gradients"], less)
    pinned = plan(folder, MANY, bits, "batch_tokens=2048", memory=f"{int(whole['sum']) - 1}M")
    check("but not one that the job gives", pinned["kept"].startswith("no: it lacks 1 MiB") or
          pinned["kept"].startswith("no: it lacks 2 MiB"), pinned)
    one = "edits=[{name: bits, method: bitdelta}]"
    alone = plan(folder, MANY, one, memory=f"{int(plan(folder, MANY, one)['sum']) - 1}M")
    check("nor for one edit", alone["kept"].startswith("no: it lacks") and alone["batch"] == 2048, alone)
    least = plan(folder, MANY, bits, "batch_tokens=512")
    none = plan(folder, MANY, bits, memory=f"{int(least['sum']) - 1}M")
    check("below that it is let go, and the batch is as large as fits", none["kept"].startswith("no: it lacks") and
          none["batch"] >= 512, (least, none))
    _, done = studies.results_of(folder, "tight", JOB, 1, MANY, bits, options=("--memory", f"{int(less['sum']) + 1}M"))
    check("a run within that budget shares it", counts(done) == (3, 9, 2, 0, 0), counts(done))


def units(folder, name):
    """Results of a study by edit, without their time, and what results.h5 has of each."""
    with open(f"{folder}/{name}/results.json", encoding="utf-8") as file:
        found = {unit["edit"]: unit for unit in json.load(file)["units"]}
    with h5py.File(f"{folder}/{name}/results.h5") as h5:
        for edit, unit in found.items():
            unit.pop("seconds")
            group = h5[f"edits/{edit}/task"]
            unit["h5"] = {key: np.array(group[key]) for key in group if isinstance(group[key], h5py.Dataset)}
    return found


def near(a, b):
    """Whether two units are of the same edit: terms to 1e-4 of the largest at the node, losses to 1e-4."""
    largest = np.abs(b["h5"]["terms"]).max(axis=0)
    terms = (np.abs(a["h5"]["terms"] - b["h5"]["terms"]) / largest).max()
    losses = np.abs(a["h5"]["loss_edit"] / b["h5"]["loss_edit"] - 1).max()
    samples = np.abs(a["h5"]["sample_integrated"] - b["h5"]["sample_integrated"]).max()
    return (terms < 1e-4 and losses < 1e-4 and samples < 1e-4 * np.abs(b["h5"]["sample_integrated"]).max() and
            a["points"] == b["points"] and a["accuracy_edit"] == b["accuracy_edit"]), (terms, losses, samples)


def check_lines(folder):
    """Five multiples of one edit: 25 slopes and 5 ends are 17 slopes and 4 losses; of each edit the same as by itself."""
    alone = {}
    for alpha in ("0.08", "0.2", "-0.2"):
        _, done = studies.results_of(folder, f"alone{alpha}", LINES, 1, f"edits=[{{name: expo, method: expo, alpha: [{alpha}]}}]")
        alone.update({f"expo-alpha{alpha}": next(iter(units(folder, f"alone{alpha}").values()))})
        check(f"alpha {alpha} by itself", counts(done) == (3, 5, 0, 0, 0), counts(done))
    for ranks, sets in ((1, ()), (2, ()), (3, ()), (4, ("tensor_parallel=2",))):
        _, done = studies.results_of(folder, f"line{ranks}", LINES, ranks, *sets)
        check(f"passes of a line at {ranks} ranks", counts(done) == (7, 22, 0, 9, 0), counts(done))
        line = units(folder, f"line{ranks}")
        for edit, unit in alone.items():
            good, why = near(line[edit], unit)
            check(f"{edit} is as by itself", good, why)
        parameters = {edit: unit["parameters"] for edit, unit in line.items()}
        check("the results say what is shared", all(
            (p.get("path_of"), p.get("path_factor")) == (None if edit in ("bits", "expo-alpha0.4") else "expo-alpha0.4",
             {"expo-alpha0.08": 0.2, "expo-alpha0.1": 0.25, "expo-alpha0.2": 0.5, "expo-alpha-0.2": -0.5}.get(edit))
            for edit, p in parameters.items()), parameters)
    plan = studies.study(f"{folder}/lines.yaml", LINES % f"{folder}/none", 1, options=("--dry-run",))
    check("the plan says how many", re.search(r"of these shared on a line, at most +9\n", plan.stdout), plan.stdout)


def check_other_lines(folder):
    """What else is a multiple of another edit, and what is one by its parameters alone."""
    edits = ("edits=[{name: dare, method: dare, p: 0.5, k: [0, 0.5, 2], seed: 3}, {name: sign, method: bias, by: sign, k: [0.5, 1.25]}, "
             "{name: plain, method: dare, p: 0.5, k: 0.5, rescale: none, seed: 3}, {name: drop, method: drop, p: 0.5, seed: 3}, "
             "{name: other, method: drop, p: 0.5, seed: 4}]")
    _, done = studies.results_of(folder, "others", LINES, 2, edits)
    found = units(folder, "others")
    check("dare, bias and drop", {e: u["parameters"].get("path_of") for e, u in found.items()} == {
        "dare-k0": None, "dare-k0.5": "dare-k0", "dare-k2": "dare-k0", "sign-k0.5": None, "sign-k1.25": "sign-k0.5",
        "plain": "drop", "drop": None, "other": None}, (done.stderr, {e: u["parameters"] for e, u in found.items()}))
    _, done = studies.results_of(folder, "bf16", LINES, 1, "output.dtype=bf16")
    check("rounding to bf16 leaves no line", counts(done) == (8, 30, 0, 0, 0) and done.stderr.count("no pass is shared") == 4,
          done.stderr)
    for name, sets in (("hessian", "hessian={edits: true}"), ("proof", "proof={groups: layers}")):
        _, done = studies.results_of(folder, name, LINES, 1, sets, "edits=[{name: expo, method: expo, alpha: [0.2, 0.4]}]")
        check(f"nor does {name}", done.returncode == 0 and counts(done)[3] == 0, done.stderr)


def check_line_resumes(folder):
    """A study that is stopped at every pass ends with the bits of one that is not."""
    edits = ("edits=[{name: expo, method: expo, alpha: [0.2, 0.4]}]", "batch_tokens=1",
             "data=[{name: task, file: share/demo/task.h5, loss: lm, samples: 2}]")
    _, done = studies.results_of(folder, "whole", LINES, 1, *edits)
    check("two edits", counts(done) == (4, 7, 0, 3, 0), counts(done))
    stops, total = 0, np.zeros(5, int)
    while stops < 40:
        _, done = studies.results_of(folder, "parts", LINES, 1, *edits, options=("--resume", "--max-time", "0.01"))
        total += counts(done) if "passes over" in done.stderr else np.zeros(5, int)
        if done.returncode != 75:
            break
        stops += 1
    check("it is stopped in every pass", done.returncode == 0 and stops >= 8, (stops, done.stderr))
    check("and takes none twice", list(total[:2]) == [4, 7], total)
    whole, parts = units(folder, "whole"), units(folder, "parts")
    for edit, unit in whole.items():
        other, h5, same = parts[edit], unit.pop("h5"), parts[edit].pop("h5")
        check(f"the bits of {edit}", unit == other and all(h5[k].tobytes() == same[k].tobytes() for k in h5), (unit, other))


def main():
    """All of it in one temporary folder."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        check_counts(folder)
        check_memory(folder)
        check_lines(folder)
        check_other_lines(folder)
        check_line_resumes(folder)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

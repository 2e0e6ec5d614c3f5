#!/usr/bin/python3
# seconds: 600
"""The law of random edits in a study: the curvature of a pair is that of the exact Gauss-Newton diagonal and the same at
every mesh, predictions follow from it, a study that was killed goes on with the same numbers, and nothing is there
where no job asked for it."""

import csv
import math
import os
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

EXACT = 0.272561  # tools/reference/curvature_golden.py share/demo/vit-pre share/demo/vit-post share/demo/digits.h5
JOB = """
models: {pre: share/demo/vit-pre, post: share/demo/vit-post}
data: [{name: digits, file: share/demo/digits.h5, loss: class, samples: 40}]
edits: [{name: dare, method: dare, p: [0.05, 0.5], k: [0, 0.5]}, {name: drop, method: drop, p: 0.5},
  {name: none, method: dare, p: 0.5, k: 0.2, rescale: none}, {name: l1, method: dare, p: 0.5, rescale: l1},
  {name: two, method: [{method: dare, p: 0.5}, {method: bitdelta}]},
  {name: fit, method: dare, p: 0.5, calibrate: term, seed: 3}]
riemann: {rule: left, points: 1}
law: {repeats: 3, seed: 5}
select: {exclude: [classifier.*]}
output: {directory: %s, report: false}
"""


def run(folder, name, ranks, *sets, job=JOB, fault=None, options=()):
    """One study; its results, or None, and what it said."""
    results, done = studies.results_of(folder, name, job, ranks, *sets, options=options, fault=fault)
    return results, done.stderr


def predictions(folder, results):
    """Columns of each edit."""
    law = results["law"][0]
    c, se = law["curvature"], law["curvature_se"]
    check("the tensors add up", abs(sum(t["curvature"] for t in law["tensors"]) - c) < 1e-12 * c, law)
    check("what is not edited has no share", len(law["tensors"]) == 70 and
          not any(t["tensor"].startswith("classifier") for t in law["tensors"]), len(law["tensors"]))
    for unit in results["units"]:
        name = unit["edit"]
        check(f"{name}: curvature", unit["curvature"] == c and unit["curvature_se"] == se, unit["curvature"])
        most = min(unit["margin"] / c, 0.1)
        check(f"{name}: safe rate", abs(unit["safe_rate"] - most / (1 + most)) < 1e-12, unit["safe_rate"])
        check(f"{name}: a line of its own in predictions.csv", predicted_line(folder, unit))
        if not name.startswith("dare-"):
            check(f"{name}: first and second order", abs(unit["predicted_change"] - unit["predicted_first"] -
                  unit["predicted_second"]) < 1e-12 and unit["predicted_s"] == unit["predicted_second"] / c, unit)
            continue
        p, k = unit["parameters"]["p"], unit["parameters"]["k"]
        s = (k - 1) ** 2 * p / (1 - p)
        check(f"{name}: prediction", abs(unit["predicted_change"] - s * c) < 1e-12 and
              abs(unit["predicted_se"] - s * se) < 1e-12 and unit["predicted_in_range"] == (s <= 0.1), unit)
    with h5py.File(f"{folder}/base/results.h5") as h5:
        group = h5["law/digits"]
        own = dict(zip((n.decode() for n in h5["tensors/names"]), group["curvature"]))
        check("results.h5 has the same", group.attrs["curvature"] == c and group.attrs["curvature_se"] == se and
              all(own[t["tensor"]] == t["curvature"] for t in law["tensors"]))


def predicted_line(folder, unit):
    """Whether the prediction of a unit was written down, as its time and hash say."""
    with open(f"{folder}/base/predictions.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["edit"] == unit["edit"]]
    return (len(rows) == 1 and unit["predicted_at"] == f"{rows[0]['time']} {rows[0]['xxh3']}" and
            float(rows[0]["change"]) == unit["predicted_change"] and
            float(rows[0]["first"]) == unit["predicted_first"])


def tampered(folder):
    """A prediction that is changed after it was made is found out."""
    path = f"{folder}/base/predictions.csv"
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    at = next(i for i, line in enumerate(lines) if ",drop,digits," in line)
    words = lines[at].split(",")
    words[5] = "0.5"
    lines[at] = ",".join(words)
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    os.remove(f"{folder}/base/manifest.json")
    for name in ("summary.csv", "results.json", "seeds.csv"):
        if os.path.exists(f"{folder}/base/{name}"):
            os.remove(f"{folder}/base/{name}")
    _, said = run(folder, "base", 1, options=["--resume"])
    check("a changed prediction", "what was predicted of drop on digits before it was measured" in said, said)


def same(name, results, other, said):
    """The same curvature to rounding, tensor by tensor."""
    if results is None or "law" not in results:
        check(name, False, said)
        return
    a, b = (np.array([(t["curvature"], t["curvature_se"]) for t in r["law"][0]["tensors"]]) for r in (results, other))
    check(name, a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-7 * b.sum()), np.abs(a / b - 1).max(0))


def ranges(folder):
    """Where a prediction holds is said before the path and does not change; the path's third order stands behind."""
    job = JOB.split("edits:")[0] + "edits: [{name: dare, method: dare, p: [0.0003, 0.05]}, {name: drop, method: drop, " \
        "p: 0.9}, {name: expo, method: expo, alpha: [-0.1, 0.02]}]\nriemann:" + JOB.split("riemann:")[1]
    results, said = run(folder, "ranges", 2, "riemann.points=5", job=job)
    check("ranges", results is not None, said)
    found = set()
    for unit in results["units"] if results else []:
        name, text = unit["edit"], unit["predicted_range"]
        before, _, after = text.partition("; found on the path: its third order is ")
        check(f"{name}: in range or not", (before == "in range") == (name == "dare-p0.05") ==
              (unit["predicted_in_range"] == 1), text)
        check(f"{name}: rounding", ("rounding takes back" in before) == (unit["rounding"] > 0.1) ==
              (name == "dare-p0.0003"), (text, unit["rounding"]))
        share = np.polyfit([0, 0.4, 0.8], unit["slope"][::2], 2)[0] / 3 / abs(unit["predicted_change"])
        check(f"{name}: third order", after == (f"{share:.2g} of the predicted change" if abs(share) > 2 / 3 else ""),
              (text, share))
        found.add(after != "")
    check("some paths are quadratic and some are not", found == {True, False}, found)


def refusals(folder):
    """What the law cannot measure."""
    pairs = JOB.replace("vit-", "llama-").replace("digits.h5, loss: class", "preference.h5, loss: dpo")
    _, said = run(folder, "dpo", 1, job=pairs.replace("classifier.*", "lm_head.weight"))
    check("dpo is refused by name", "data set 'digits' has loss dpo" in said and said.count("\n") == 1, said)
    _, said = run(folder, "all", 1, "law.labels=all", job=JOB.replace("vit-", "llama-")
                  .replace("digits.h5, loss: class", "task.h5, loss: lm").replace("classifier.*", "lm_head.weight"))
    check("all labels of tokens are too many", "data set 'digits' is none of images" in said and said.count("\n") == 1, said)
    _, said = run(folder, "off", 1, "riemann=off", job=JOB.replace("calibrate: term, ", ""))
    check("without a path", "law measures a loss" in said and said.count("\n") == 1, said)
    _, said = run(folder, "key", 1, "law.repeat=3")
    check("a mistyped key", "repeat" in said and "repeats" in said, said)


def resumed(folder, base):
    """A study killed in an edit, and one of other draws."""
    results, said = run(folder, "killed", 2, "tensor_parallel=2", fault="study.edit:kill")
    check("killed before the first edit", results is None, said)
    results, said = run(folder, "killed", 2, "tensor_parallel=2", options=["--resume"])
    same("resumed", results, base, said)
    check("its draws are taken from the first run", said.count("40 of 40 samples are those of the earlier run") == 5, said)
    results, said = run(folder, "killed", 2, "tensor_parallel=2", "law.repeats=2", options=["--resume"])
    check("units of other draws are not taken", results is not None and "finished before" not in said and
          results["law"][0]["curvature"] != base["law"][0]["curvature"], said)


def main():
    """All of it."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        base, said = run(folder, "base", 1)
        check("the study", base is not None, said)
        if base is None:
            return
        predictions(folder, base)
        order = said.index("dare-p0.05-k0 on digits: predicted"), said.index("dare-p0.05-k0 on digits: change")
        check("a prediction is said before the change", order[0] < order[1], order)
        for ranks, group in ((2, 1), (3, 3), (4, 2)):
            results, said = run(folder, f"r{ranks}t{group}", ranks, f"tensor_parallel={group}", "batch_tokens=100",
                                job=JOB.split("edits:")[0] + "edits: [{name: dare, method: dare, p: 0.05}]\nriemann:" +
                                JOB.split("riemann:")[1])
            same(f"the same at {ranks} ranks, {group} tensor-parallel", results, base, said)
        one = JOB.split("edits:")[0].replace(", samples: 40", "") + "edits: [{name: dare, method: dare, p: 0.05}]\n" \
            "riemann: {rule: left, points: 1}\nlaw: {repeats: 24}\noutput: {directory: %s, report: false}\n"
        results, said = run(folder, "whole", 2, job=one)
        law = results["law"][0] if results else {"curvature": math.nan, "curvature_se": math.nan}
        check("the exact number lies within 4 standard errors", abs(law["curvature"] - EXACT) < 4 * law["curvature_se"] and
              law["curvature_se"] < 0.1 * EXACT, law)
        results, said = run(folder, "plain", 1, "law.repeats=0", job=one.replace("h5,", "h5, samples: 8,"))
        check("nothing without the key", results is not None and "law" not in results and
              results["units"][0]["curvature"] is None and results["units"][0]["predicted_change"] is None, said)
        few = one.replace("repeats: 24", "labels: all").replace("h5,", "h5, samples: 40,").replace(
            "p: 0.05}]", "p: 0.05}, {name: drop, method: drop, p: 0.05},\n"
            "  {name: each, method: allocate, edit: dare, mean: 0.1, by: tensor}]")
        exact = None
        for ranks, sets in ((2, ()), (2, ("tensor_parallel=2", "batch_tokens=100"))):
            results, said = run(folder, f"all{len(sets)}", ranks, *sets, job=few)
            law = results["law"][0] if results else {"curvature": math.nan, "curvature_se": math.nan}
            exact = exact or law["curvature"]
            check(f"all labels {sets}: no error, of the size of drawn ones",
                  law["curvature_se"] == 0 and 0.3 * EXACT < law["curvature"] < 2 * EXACT, said)
            check(f"all labels {sets}: no error of a prediction, of a value for each tensor neither", results is not None and
                  [u["predicted_se"] for u in results["units"]] == [0.0, 0.0, 0.0], said)
            check(f"all labels {sets}: the same in each mesh", abs(law["curvature"] / exact - 1) < 1e-4, law)
        ranges(folder)
        refusals(folder)
        resumed(folder, base)
        tampered(folder)


if __name__ == "__main__":
    main()
    sys.exit(studies.finish())

#!/usr/bin/python3
# seconds: 600
"""The accuracy that the logits predict: of a small model the one of its exact derivatives, of the shipped pair the one
that masks have, at every mesh and after a kill, written down before the change is measured; and refusals."""

import csv
import os
import re
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check, save_model

TIMES = 4.0 # as in tools/reference/logits_golden.py
JOB = """
models: {pre: share/demo/vit-pre, post: share/demo/vit-post}
data: [{name: digits, file: share/demo/digits.h5, loss: class, samples: 60}]
edits: [{name: dare, method: dare, p: 0.1, seeds: 8}, {name: far, method: dare, p: 0.8}, {name: drop, method: drop, p: 0.05},
  {name: l1, method: dare, p: 0.1, rescale: l1}, {name: expo, method: expo, alpha: 0.1}]
riemann: {rule: trapezoid, points: 2}
law: {repeats: 2, probes: 8, seed: 5}
select: {exclude: [classifier.*]}
output: {directory: %s, report: false}
"""
COLUMNS = ("predicted_accuracy", "predicted_accuracy_sd", "predicted_accuracy_change", "predicted_accuracy_low",
           "predicted_accuracy_high", "predicted_accuracy_error", "safe_rate_accuracy")


def run(folder, name, ranks, *sets, job=JOB, fault=None, options=()):
    """One study; its units by edit, or None, and what it said."""
    results, done = studies.results_of(folder, name, job, ranks, *sets, options=options, fault=fault)
    if results is None:
        return None, done.stderr + done.stdout
    units = {unit["edit"]: unit for unit in results["units"]}
    units["proof"] = results.get("proof")
    return units, done.stderr + done.stdout


def exact(folder):
    """The model of 339 weights, with its exact derivatives."""
    with open("tests/golden/logits_golden.h", encoding="utf-8") as file:
        text = file.read()
    body = text[text.index("logits_edits[] ="):]
    golden = np.array([float(x) for x in re.findall(r"-?\d+\.\d+(?:e[-+]\d+)?", body)]).reshape(-1, 6)
    with h5py.File("tests/golden/vit/tiny.h5") as h5:
        post = {n: np.array(h5[f"tensors/{n}"]) for n in h5["tensors"]}
        edit = {n: np.array(h5[f"edit/{n}"]) for n in h5["edit"]}
        save_model(f"{folder}/pre", h5.attrs["config"].decode(), {n: post[n] - TIMES * edit[n] for n in post})
        save_model(f"{folder}/post", h5.attrs["config"].decode(), post)
        with h5py.File(f"{folder}/tiny.h5", "w") as data:
            data.attrs.update({"format": b"deltapath-data", "kind": b"class", "source": b"golden", "version": 1})
            data["images"], data["labels"] = np.array(h5["images"]), np.array(h5["labels"])
    edits = [f"{{name: e{i}, method: " + (f"dare, p: {p}, k: {k}}}" if k >= 0 else f"drop, p: {p}}}")
             for i, (p, k) in enumerate(golden[:, :2])]
    job = f"models: {{pre: {folder}/pre, post: {folder}/post}}\n" \
          f"data: [{{name: tiny, file: {folder}/tiny.h5, loss: class}}]\nedits: [{', '.join(edits)}]\n" \
          "riemann: {rule: left, points: 1}\nlaw: {labels: all, probes: 600}\noutput: {directory: %s, report: false}\n"
    units, said = run(folder, "tiny", 1, job=job)
    check("the small model", units is not None, said)
    for i, (p, k, accuracy, sd, plain, _) in enumerate(golden if units else []):
        unit = units[f"e{i}"]
        check(f"accuracy of p {p} k {k}", abs(unit["predicted_accuracy"] - accuracy) < 0.02 * (0.2 + abs(accuracy - 0.8)),
              (unit["predicted_accuracy"], accuracy))
        check(f"spread over masks of p {p} k {k}", abs(unit["predicted_accuracy_sd"] - sd) < 0.15 * sd + 0.002,
              (unit["predicted_accuracy_sd"], sd))
        check(f"second derivatives of p {p} k {k}",
              abs(unit["predicted_accuracy_error"] - abs(accuracy - plain)) < 0.012, (unit, accuracy - plain))


def pair(folder, units, said):
    """Columns of the shipped pair, and how they compare with what was measured."""
    for name in ("l1", "expo"):
        check(f"{name}: nothing is known", all(units[name][c] is None for c in COLUMNS[:-1]), units[name])
    known = {n: u for n, u in units.items() if n.startswith(("dare", "drop", "far"))}
    for name, unit in known.items():
        off = unit["predicted_accuracy"] - unit["accuracy_post"]
        check(f"{name}: change and interval", abs(unit["predicted_accuracy_change"] - off) < 1e-12 and
              unit["predicted_accuracy_low"] < off < unit["predicted_accuracy_high"], unit)
        check(f"{name}: range", unit["predicted_accuracy_in_range"] == (unit["predicted_accuracy_error"] <= 0.01), unit)
        with open(f"{folder}/base/predictions.csv", encoding="utf-8") as file:
            row = next(r for r in csv.DictReader(file) if r["edit"] == name)
        check(f"{name}: written down", float(row["accuracy"]) == unit["predicted_accuracy"] and
              float(row["accuracy_sd"]) == unit["predicted_accuracy_sd"] and
              row["accuracy_in_range"] == str(int(unit["predicted_accuracy_in_range"])), row)
    check("far is out of range", known["far"]["predicted_accuracy_in_range"] == 0 and
          known["far"]["predicted_accuracy"] < 0.7, known["far"])
    masks = np.array([u["accuracy_edit"] for n, u in known.items() if n.startswith("dare")])
    one = known["dare-seed1"]
    check("the mean over 8 masks", abs(masks.mean() - one["predicted_accuracy"]) < 0.02, (masks, one))
    check("masks of one p are predicted alike", len({u["predicted_accuracy"] for n, u in known.items() if "dare" in n}) == 1)
    rate = one["safe_rate_accuracy"]
    check("the safe rate", 0.05 < rate < 0.8 and f"keep the accuracy within its margin up to p = {rate:.3g}" in said, (rate, said))
    order = said.index("drop on digits: predicted accuracy"), said.index("drop on digits: change")
    check("a prediction is said before the change", order[0] < order[1], order)
    proof = units["proof"][0]["accuracy"]
    off = np.array([u["accuracy_edit"] - u["predicted_accuracy"] for u in known.values()])
    sd = np.array([u["predicted_accuracy_sd"] for u in known.values()])
    want = (len(off), np.abs(off).mean(), off.mean(), (np.abs(off) <= 1.96 * sd).mean())
    check("how it compares", np.allclose([proof[k] for k in ("edits", "error", "bias", "inside")], want), (proof, want))


def same(name, units, other, said):
    """The same numbers but for a mask of a sample that lies at a border."""
    near = units is not None and all(
        abs(units[e][c] - other[e][c]) < 5e-4 for e in ("dare-seed1", "far", "drop") for c in COLUMNS[:-1])
    check(name, near and abs(units["far"]["safe_rate_accuracy"] - other["far"]["safe_rate_accuracy"]) < 2e-3,
          (said, units and [(units[e][c], other[e][c]) for e in ("dare-seed1", "far", "drop") for c in COLUMNS]))


def refusals(folder):
    """What has no logits of classes."""
    text = JOB.replace("vit-", "llama-").replace("digits.h5, loss: class", "task.h5, loss: lm").replace("classifier.*", "lm_head.weight")
    _, said = run(folder, "lm", 1, job=text)
    check("no classes", "law.probes takes the logits of classes" in said and said.count("\n") == 1, said)
    _, said = run(folder, "alone", 1, "law={probes: 8}")
    check("no loss next to it", "give law.repeats or law.labels: all" in said and said.count("\n") == 1, said)


def unknown(folder):
    """What is not known is said in words."""
    units, said = run(folder, "unknown", 1, "hessian={probes: 1}", "accuracy_margin=0", "proof={groups: layers}",
                      "edits=[{name: dare, method: dare, p: 0.1}, {name: drop, method: drop, p: 0.05}]")
    words = ("one draw of random signs, which shows no error", "the spread over masks is not predicted",
             "no safe p is sought", "too few edits for intervals")
    check("what is not known", units is not None and all(word in said for word in words) and
          not re.search(r"\bnan\b", said), said)


def main():
    """All of it."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        exact(folder)
        base, said = run(folder, "base", 1)
        check("the study", base is not None, said)
        if base is None:
            return
        pair(folder, base, said)
        few = ("edits=[{name: dare, method: dare, p: 0.1, seeds: 2}, {name: far, method: dare, p: 0.8}, "
               "{name: drop, method: drop, p: 0.05}]")
        for ranks, group in ((2, 1), (3, 3), (4, 2)):
            units, said = run(folder, f"r{ranks}t{group}", ranks, f"tensor_parallel={group}", "batch_tokens=100", few)
            same(f"the same at {ranks} ranks, {group} tensor-parallel", units, base, said)
        units, said = run(folder, "killed", 2, "tensor_parallel=2", few, fault="study.edit:kill")
        check("killed before the first edit", units is None, said)
        units, said = run(folder, "killed", 2, "tensor_parallel=2", few, options=["--resume"])
        same("resumed", units, base, said)
        check("its passes are those of the first run", said.count("60 of 60 samples are those of the earlier run") >= 21, said)
        refusals(folder)
        unknown(folder)


if __name__ == "__main__":
    main()
    sys.exit(studies.finish())

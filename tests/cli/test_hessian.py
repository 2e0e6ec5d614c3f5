#!/usr/bin/python3
# seconds: 600
"""Second derivatives in a study: those of an edit and of random signs are the same at every mesh and after a kill, depend
on what is selected, need no labels that a model could draw, and the spread over masks that follows from them is that of
masks."""

import math
import os
import re
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check, save_model

JOB = """
models: {pre: share/demo/vit-pre, post: share/demo/vit-post}
data: [{name: digits, file: share/demo/digits.h5, loss: class, samples: 16}]
edits: [{name: dare, method: dare, p: [0.05, 0.2]}, {name: expo, method: expo, alpha: -0.25}]
riemann: {rule: left, points: 1}
hessian: {edits: true, probes: 4, seed: 2}
select: {exclude: [classifier.*]}
output: {directory: %s, report: false}
"""


def run(folder, name, ranks, *sets, job=JOB, fault=None, options=()):
    """One study; its units by edit, or None, and what it said."""
    results, done = studies.results_of(folder, name, job, ranks, *sets, options=options, fault=fault)
    if results is None:
        return None, done.stderr + done.stdout
    units = {unit["edit"]: unit for unit in results["units"]}
    with h5py.File(f"{folder}/{name}/results.h5") as h5:
        for edit, unit in units.items():
            group = h5[f"edits/{edit}/{unit['data']}"]
            unit["arrays"] = [np.array(group[a]) for a in
                              ("hessian_second_order", "hessian_curvature", "hessian_curvature_se") if a in group]
            unit["names"] = [n.decode() for n in h5["tensors/names"]]
    return units, done.stderr


def same(name, units, other, said, tolerance=2e-3):
    """The same numbers to the accuracy of differences, tensor by tensor."""
    if units is None:
        check(name, False, said)
        return
    for edit, unit in units.items():
        good = all(np.allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())
                   for a, b in zip(unit["arrays"], other[edit]["arrays"]))
        numbers = [(unit[c], other[edit][c], size) for c, size in
                   (("hessian_curvature", np.abs(unit["arrays"][1]).sum()),
                    ("hessian_second_order", np.abs(unit["arrays"][0]).sum()), ("predicted_sd", unit["predicted_sd"]))]
        good = good and all(a == b or abs(a - b) < tolerance * size for a, b, size in numbers)
        check(f"{name}: {edit}", good, numbers)


def numbers_of(units):
    """How the columns hang together."""
    spread = []
    for name in ("dare-p0.05", "dare-p0.2"):
        unit = units[name]
        p = unit["parameters"]["p"]
        s = p / (1 - p)
        spread.append((unit["predicted_sd"]**2 - s * s * 4 * unit["hessian_curvature_se"]**2) / s)
        numbers = [unit[c] for c in ("predicted_change", "predicted_se", "hessian_second_order")]
        check(f"{name}: predicted by the Hessian where there is no law", unit["curvature"] is None and
              abs(numbers[0] - s * unit["hessian_curvature"]) < 1e-12 and
              abs(numbers[1] - s * unit["hessian_curvature_se"]) < 1e-12, numbers)
        # Over masks 1/2 E^T H E has the mean s c and the standard deviation of s times one of the 4 probes.
        check(f"{name}: the true second order is one of its distribution",
              abs(numbers[2] - numbers[0]) < 6 * s * 2 * unit["hessian_curvature_se"], numbers)
    check("the first order of the spread grows with s", spread[0] > 0 and abs(spread[0] / spread[1] - 1) < 1e-9, spread)
    touched = np.array([not n.startswith("classifier") for n in units["expo"]["names"]])
    check("what is not edited has no share", all((a[~touched] == 0).all() and (a[touched] != 0).any()
                                                 for a in units["expo"]["arrays"]))
    expo = units["expo"]
    check("expo has no spread", expo["predicted_sd"] is None and expo["hessian_step"] > units["dare-p0.2"]["hessian_step"] / 8)


def masks(folder):
    """The spread over masks is that of masks, and the true second order is their mean."""
    job = JOB.replace("p: [0.05, 0.2]}, {name: expo, method: expo, alpha: -0.25", "p: 0.02, seeds: 24") \
        .replace("edits: true, probes: 4", "probes: 12")
    units, said = run(folder, "masks", 2, job=job)
    if units is None:
        check("masks", False, said)
        return
    change = np.array([unit["change"] for unit in units.values()])
    unit = units["dare-seed1"]
    check("spread of 24 masks", 0.6 < change.std(ddof=1) / unit["predicted_sd"] < 1.6,
          (change.std(ddof=1), unit["predicted_sd"], unit["predicted_sd_se"]))
    off = change.mean() - unit["predicted_change"]
    check("mean of 24 masks", abs(off) < 4 * math.hypot(unit["predicted_sd"] / math.sqrt(24), unit["predicted_se"]), off)
    check("not asked for, not there", unit["hessian_second_order"] is None and unit["hessian_step"] is None)


def golden_numbers(name):
    """Numbers of an array or constant of tests/golden/hessian_golden.h."""
    with open("tests/golden/hessian_golden.h", encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.DOTALL)
    body = text[re.search(rf"\b{name}\b[^=]*=", text).end():]
    body = body[:body.index(";")] if body.lstrip().startswith("{") else re.split("[,;]", body)[0]
    return np.array([float(x) for x in re.findall(r"-?\d+\.\d+(?:e[-+]\d+)?", body)])


def exact(folder):
    """A model of 339 weights, whose whole Hessian is known: every second-order number of a study is the exact one."""
    with h5py.File("tests/golden/vit/tiny.h5") as h5:
        post = {n: np.array(h5[f"tensors/{n}"]) for n in h5["tensors"]}
        edit = {n: np.array(h5[f"edit/{n}"]) for n in h5["edit"]}
        save_model(f"{folder}/pre", h5.attrs["config"].decode(), {n: post[n] - edit[n] for n in post})
        save_model(f"{folder}/post", h5.attrs["config"].decode(), post)
        with h5py.File(f"{folder}/tiny.h5", "w") as data:
            data.attrs.update({"format": b"deltapath-data", "kind": b"class", "source": b"golden", "version": 1})
            data["images"], data["labels"] = np.array(h5["images"]), np.array(h5["labels"])
    c, squares, spread = golden_numbers("hessian_exact").sum(), *golden_numbers("hessian_squares"), \
        *golden_numbers("hessian_spread")
    job = JOB.replace("share/demo/vit-", f"{folder}/").replace("share/demo/digits.h5, loss: class, samples: 16",
                                                               f"{folder}/tiny.h5, loss: class") \
        .replace("p: [0.05, 0.2]}, {name: expo, method: expo, alpha: -0.25", "p: 0.1, k: 0.5}, {name: expo, method: expo, alpha: 1") \
        .replace("edits: true, probes: 4", "blocks: layers, probes: 200, lanczos: 4, steps: 40") \
        .replace("select: {exclude: [classifier.*]}", "")
    for ranks, sets in ((3, ("tensor_parallel=3", "hessian.probes=0")), (1, ())):
        units, said = run(folder, f"tiny{ranks}", ranks, *sets, job=job)
        if units is None:
            check(f"tiny at {ranks}", False, said)
            continue
        with h5py.File(f"{folder}/tiny{ranks}/results.h5") as h5:
            group = h5["edits/expo/digits"]
            tops = [np.array(group["hessian_eigenvalues"]), np.array(group["delta_eigenvalues"])]
            bars = [np.array(group["hessian_residuals"]), np.array(group["delta_residuals"])]
            blocks, rows = np.array(group["blocks"]), np.array(group["hessian_second_order"])
            names, groups = [n.decode() for n in h5["tensors/names"]], group.attrs["groups"].decode().split("|")
        for top, bar, golden in zip(tops, bars, golden_numbers("hessian_top").reshape(2, 4)):
            check(f"eigenvalues at {ranks}", np.abs(top - golden).max() < 2e-3 * np.abs(golden).max() and
                  bar.max() < 0.02 * np.abs(golden).max(), (top, bar, golden))
        check(f"the blocks add up at {ranks}", groups == ["outside", "0", "1"] and
              np.abs(blocks.sum(axis=1) - rows).max() < 2e-3 * np.abs(rows).sum(), (groups, blocks.sum(), rows.sum()))
        place = np.array([groups.index(m.group(1)) if (m := re.search(r"layer\.(\d+)\.", n)) else 0 for n in names])
        sums = np.array([[blocks[place == i, j].sum() for j in range(3)] for i in range(3)])
        check(f"they are symmetric at {ranks}", np.abs(sums - sums.T).max() < 2e-3 * np.abs(sums).max(), sums)
    if units is None:
        return
    unit = units["dare"]
    check("the curvature", abs(unit["hessian_curvature"] - c) < 4 * unit["hessian_curvature_se"] < 0.5 * c, (unit, c))
    s = 0.25 * 0.1 / 0.9
    want = math.sqrt(s * squares + s * s * spread)
    check("the spread", abs(unit["predicted_sd"] / want - 1) < 0.01, (unit["predicted_sd"], want))
    by_masks = golden_numbers("hessian_masks_sd")[0]
    check("is that of 200,000 masks", abs(unit["predicted_sd"] / by_masks - 1) < 0.02, (unit["predicted_sd"], by_masks))


def resumed(folder, base):
    """A study killed in an edit, and one of other signs or other tensors."""
    units, said = run(folder, "killed", 2, "tensor_parallel=2", fault="study.edit:kill")
    check("killed before the first edit", units is None, said)
    units, said = run(folder, "killed", 2, "tensor_parallel=2", options=["--resume"])
    same("resumed", units, base, said)
    check("its passes are taken from the first run", said.count("16 of 16 samples are those of the earlier run") >= 12, said)
    units, said = run(folder, "killed", 2, "tensor_parallel=2", "hessian.seed=3", options=["--resume"])
    check("units of other signs are not taken", units is not None and "finished before" not in said and
          units["expo"]["hessian_curvature"] != base["expo"]["hessian_curvature"], said)


def main():
    """All of it."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        base, said = run(folder, "base", 1)
        check("the study", base is not None, said)
        if base is None:
            return
        numbers_of(base)
        order = said.index("dare-p0.05 on digits: predicted spread"), said.index("dare-p0.05 on digits: change")
        check("a spread is said before the change", order[0] < order[1], order)
        for ranks, group in ((2, 1), (3, 3), (4, 2)):
            units, said = run(folder, f"r{ranks}t{group}", ranks, f"tensor_parallel={group}", "batch_tokens=100")
            same(f"the same at {ranks} ranks, {group} tensor-parallel", units, base, said)
        units, said = run(folder, "midpoint", 1, "riemann={rule: midpoint, points: 1}", "hessian.edits=false")
        check("without a gradient that is kept", units is not None and
              abs(units["dare-p0.2"]["predicted_sd"] / base["dare-p0.2"]["predicted_sd"] - 1) < 1e-3, said)
        pairs = JOB.replace("vit-", "llama-").replace("digits.h5, loss: class, samples: 16",
                                                      "preference.h5, loss: dpo, samples: 6")
        units, said = run(folder, "dpo", 1, "hessian.probes=2", job=pairs.replace("classifier.*", "lm_head.weight"))
        check("every loss has a Hessian", units is not None and units["expo"]["hessian_second_order"] is not None, said)
        _, said = run(folder, "off", 1, "riemann=off")
        check("without a path", "hessian measures a loss" in said and said.count("\n") == 1, said)
        exact(folder)
        masks(folder)
        resumed(folder, base)


if __name__ == "__main__":
    main()
    sys.exit(studies.finish())

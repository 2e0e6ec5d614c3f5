#!/usr/bin/python3
# seconds: 600
"""What `allocate` chooses in a study: by the curvatures in its results, the sizes of its layout and deltas of the
models, all taken anew here; the same edited models at several numbers of ranks; and what it refuses."""

import json
import math
import os
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

JOB = """
models: {pre: share/demo/vit-pre, post: share/demo/vit-post}
data: [{name: digits, file: share/demo/digits.h5, loss: class, samples: 40}]
edits:
  - {name: dare, method: allocate, edit: dare, mean: 0.7, by: [tensor, group, uniform], seed: 2}
  - {name: pack, method: allocate, edit: dare, bytes: 0.3}
  - {name: cut, method: allocate, edit: prune, bytes: [0.2, 70000]}
  - {name: bits, method: allocate, edit: multibit, mean: 2, tensors: all}
  - {name: twin, method: allocate, edit: lowrank, bytes: 0.5, by: [tensor, uniform]}
  - {name: even, method: dare, p: 0.7, seed: 2}
riemann: {rule: left, points: 1}
law: {repeats: 4, seed: 5}
output: {directory: %s, report: false, checkpoint: hdf5}
svd_group: 1
"""


def run(folder, name, ranks, *sets, job=JOB):
    """One study; its results, or None, and what it said."""
    path = f"{folder}/{name}.yaml"
    done = studies.study(path, job % f"{folder}/{name}", ranks, *sets)
    if done.returncode != 0:
        return None, done.stderr
    with h5py.File(f"{folder}/{name}/results.h5") as h5:
        units = {unit.attrs["edit"].decode(): read_unit(unit) for edit in h5["edits"].values() for unit in edit.values()}
        names = [n.decode() for n in h5["tensors/names"]]
    return {"names": names, "units": units}, done.stderr


def read_unit(group):
    """Columns of a unit that are used here."""
    columns = [c.decode() if isinstance(c, bytes) else c for c in group["tensor_stats_columns"]]
    parameters = dict(zip((n.decode() for n in group["parameter_names"]), (v.decode() for v in group["parameter_values"])))
    return {"value": group["tensor_stats"][:, columns.index("value")], "curvature": group["curvature"][:],
            "size": float(group.attrs["size"]), "predicted": float(group.attrs["predicted_change"]),
            "change": float(group.attrs["change"]), "chosen_on": group.attrs["chosen_on"].decode(),
            "held_out": float(group.attrs["held_out"]), "parameters": parameters}


def load(folder):
    """Tensors of a model as float64."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".safetensors"):
            continue
        with open(f"{folder}/{name}", "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            body = file.read()
        for key, entry in header.items():
            if key != "__metadata__":
                assert entry["dtype"] == "F16"
                first, last = entry["data_offsets"]
                tensors[key] = np.frombuffer(body[first:last], "<f2").astype(np.float64).reshape(entry["shape"])
    return tensors


def sparse(n, kept):
    """Bytes of a tensor of which some entries are kept."""
    return min(2 * kept + min(math.ceil(n / 8), 2 * kept + 4 * math.ceil(n / 65536)), 2 * n)


def sizes(results, sides):
    """The column size of each edit, from the values of the tensors."""
    for edit, unit in results["units"].items():
        total = 0
        for name, value in zip(results["names"], unit["value"]):
            n = math.prod(sides[name])
            if edit == "even":
                total += sparse(n, math.floor(0.3 * n + 0.5))
            elif math.isnan(value):
                total += 2 * n
            elif edit.startswith(("dare", "pack")):
                total += sparse(n, math.floor((1 - value) * n + 0.5))
            elif edit.startswith("cut"):
                total += sparse(n, math.floor(value * n + 0.5))
            elif edit.startswith("bits"):
                total += math.ceil(n * (1 + value) / 8) + 4 * 2 ** value
            else:
                total += value * sum(sides[name]) * 2
        check(f"{edit}: size", unit["size"] == total, (unit["size"], total))


def closed_form(results, sides):
    """(1 - p)^2 = c / (lambda N), held within the limits, at the mean that was asked for."""
    unit = results["units"]["dare-bytensor"]
    n = np.array([math.prod(sides[name]) for name in results["names"]], float)
    c = unit["curvature"]
    low, high = 1e-30, 1e30
    for _ in range(300):
        middle = math.sqrt(low * high)
        kept = np.clip(np.sqrt(c / (middle * n)), 0.01, 1)
        low, high = (middle, high) if (kept * n).sum() > 0.3 * n.sum() else (low, middle)
    got = 1 - np.where(np.isnan(unit["value"]), 0, unit["value"])
    off = np.abs(np.log(got / kept))
    check("dare: kept shares are those of the closed form", off.max() < 0.04, off.max())
    mean = 1 - (got * n).sum() / n.sum()
    check("dare: the mean is met", 0.7 <= mean < 0.702 and abs(float(unit["parameters"]["allocated_mean"]) - mean) < 1e-5,
          mean)
    predicted = (c * (1 / got - 1)).sum()
    check("dare: predicted", abs(unit["predicted"] - predicted) < 1e-9 * predicted, (unit["predicted"], predicted))
    best = (c * (1 / kept - 1)).sum()
    check("dare: nearly the least that can be", predicted < 1.01 * best, (predicted, best))
    even = results["units"]["dare-byuniform"]
    check("uniform is uniform", np.all(even["value"] == 0.7) and
          abs(even["predicted"] - results["units"]["even"]["predicted"]) < 1e-9, even["value"][:3])
    check("uniform is that dare", even["change"] == results["units"]["even"]["change"], even["change"])


def groups(results, sides):
    """The group that costs least of all that are there."""
    unit = results["units"]["dare-bygroup"]
    n = np.array([math.prod(sides[name]) for name in results["names"]], float)
    chosen = ~np.isnan(unit["value"])
    layers = np.array(["layer." in name and len(sides[name]) == 2 for name in results["names"]])
    values = np.unique(unit["value"][chosen])
    check("one value for a group, the others kept", len(values) == 1 and 0 < chosen.sum() < len(n), values)
    check("the group is named", unit["parameters"]["allocated_group"] == "matrices of the layers" and
          np.array_equal(chosen, layers), unit["parameters"])
    mean = (n * np.where(chosen, unit["value"], 0)).sum() / n.sum()
    check("the group has the mean", 0.7 <= mean < 0.704, mean)
    costs = {name: results["units"][name]["predicted"] for name in ("dare-bytensor", "dare-bygroup", "dare-byuniform")}
    check("predicted: tensors below the group below uniform", sorted(costs, key=costs.get) ==
          ["dare-bytensor", "dare-bygroup", "dare-byuniform"], costs)


def lost(results, deltas, edit):
    """The predicted cost of an edit, c times the lost share, from the deltas themselves."""
    unit = results["units"][edit]
    total = 0.0
    for name, value, c in zip(results["names"], unit["value"], unit["curvature"]):
        x = np.sort(np.abs(deltas[name]).ravel())[::-1]
        if math.isnan(value) or not x.any():
            continue
        if edit.startswith("cut"):
            left = (x[math.floor(value * len(x) + 0.5):] ** 2).sum()
        elif edit.startswith("bits"):
            blocks = np.split(x, [(j + 1) * len(x) // 2 ** int(value) for j in range(2 ** int(value) - 1)])
            left = sum(((b[b > 0] - b.mean()) ** 2).sum() for b in blocks if len(b))
        else:
            s = np.linalg.svd(deltas[name], compute_uv=False)
            left = (s[int(value):] ** 2).sum()
        total += c * left / (x ** 2).sum()
    said = float(unit["parameters"]["allocated_cost"])
    check(f"{edit}: predicted cost", abs(said - total) < 0.05 * total, (said, total)) # c is rounded to 1/16 of a power of 2


def same(folder, results, name, ranks, *sets):
    """Another number of ranks chooses the same values, and edits to the same bytes."""
    other, said = run(folder, name, ranks, *sets)
    check(f"{name}: runs", other is not None, said)
    if other is None:
        return
    for edit, unit in results["units"].items():
        check(f"{name}: {edit}: values", np.array_equal(unit["value"], other["units"][edit]["value"], equal_nan=True))
        if edit.startswith("twin"):
            continue
        with h5py.File(f"{folder}/base/models/{edit}.h5") as a, h5py.File(f"{folder}/{name}/models/{edit}.h5") as b:
            differs = [t for t in a["tensors"] if a["tensors"][t].attrs["xxh3"] != b["tensors"][t].attrs["xxh3"]]
        check(f"{name}: {edit}: bytes", not differs, differs[:3])


def provenance(folder, results):
    """An edited model says its values."""
    with h5py.File(f"{folder}/base/models/dare-bygroup.h5") as h5:
        text = h5.attrs["provenance"]
    values = json.loads(text if isinstance(text, str) else text.decode())["values"]
    unit = results["units"]["dare-bygroup"]
    good = all((values[n] is None) == math.isnan(v) and (values[n] is None or values[n] == v)
               for n, v in zip(results["names"], unit["value"]))
    check("the provenance of a model has the values", len(values) == len(results["names"]) and good)


def held_out(folder, results):
    """Samples that only choose give the curvatures, and the others judge."""
    job = JOB.replace("samples: 40}", "samples: 40, choose: 0.5}").replace("checkpoint: hdf5", "checkpoint: none")
    other, said = run(folder, "part", 2, "edits=[{name: dare, method: allocate, edit: dare, mean: 0.7}]", job=job)
    check("chosen on samples of their own", other is not None, said)
    if other is not None:
        unit = other["units"]["dare"]
        check("which is said", unit["chosen_on"] == "digits~choose" and unit["held_out"] == 1, unit)
        c = np.where(unit["curvature"] > 0, unit["curvature"], 1)
        kept = 1 - np.where(np.isnan(unit["value"]), 0, unit["value"])
        n = np.array([math.prod(sides) for sides in results["sides"]], float)
        inside = (kept > 0.02) & (kept < 1) & (unit["curvature"] > 0)
        spread = np.log(kept * np.sqrt(n / c))[inside].std()
        check("values follow from other curvatures than those of the samples that judge", spread > 0.1, spread)


def refusals(folder):
    """What cannot be allocated."""
    for name, old, new, word in (
            ("no law", "law: {repeats: 4, seed: 5}", "", "give law: {repeats: 8}"),
            ("both", "bytes: 0.3", "bytes: 0.3, mean: 0.5", "more than one of bytes and mean is given"),
            ("none", ", bytes: 0.3", "", "none of bytes and mean is given"),
            ("mean of ranks", "edit: lowrank, bytes: 0.5", "edit: lowrank, mean: 0.5", "have no mean: give bytes"),
            ("too small", "bytes: 0.3", "bytes: 1000", "edit pack: bytes 1000: the smallest choice"),
            ("mean of 1", "mean: 0.7", "mean: 1", "give one up to 0.99"),
            ("mean beyond the choice", "mean: 0.7", "mean: 0.995", "give one up to 0.99"),
            ("k of prune", "edit: prune, ", "edit: prune, k: 0.5, ", "parameter of dare alone"),
            ("k saves none", "bytes: 0.3", "bytes: 0.3, k: 0.5", "which saves none"),
            ("no path", "riemann: {rule: left, points: 1}", "riemann: off", "leave out riemann: off"),
            ("sequence", "method: dare, p: 0.7", "method: [{method: allocate, edit: dare, mean: 0.5}, {method: bitdelta}]",
             "allocate is for an edit of one method")):
        _, said = run(folder, "bad", 1, "output.checkpoint=none", job=JOB.replace(old, new))
        check(f"refused: {name}", word in said, said[-300:])


def main():
    """All of it."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        results, said = run(folder, "base", 1)
        check("the study runs", results is not None, said)
        if results is None:
            return 1
        pre, post = load("share/demo/vit-pre"), load("share/demo/vit-post")
        sides = {name: tensor.shape for name, tensor in post.items()}
        deltas = {name: post[name] - pre[name] for name in post}
        sizes(results, sides)
        closed_form(results, sides)
        groups(results, sides)
        for edit in ("cut-bytes0.2", "bits", "twin-bytensor", "twin-byuniform"):
            lost(results, deltas, edit)
        dense = 2 * sum(math.prod(s) for s in sides.values())
        for edit, most in (("pack", 0.3 * dense), ("cut-bytes0.2", 0.2 * dense), ("cut-bytes70000", 70000),
                           ("twin-bytensor", 0.5 * dense), ("twin-byuniform", 0.5 * dense)):
            size = results["units"][edit]["size"]
            check(f"{edit}: within the size, and near it", 0.97 * most < size <= most, (size, most))
        provenance(folder, results)
        same(folder, results, "two", 2, "tensor_parallel=2")
        same(folder, results, "three", 3)
        results["sides"] = [sides[name] for name in results["names"]]
        held_out(folder, results)
        refusals(folder)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
# seconds: 300
"""Eq. 5 along the path: the correlation of mask and gradient(t) * Delta at every node is torch's at each mesh, what the law
says of it follows from its columns, a study that goes on has the same numbers, and nothing is there where no
job asked for it."""

import json
import math
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

GOLDEN = "tests/golden/path_correlation.json" # tools/reference/path_correlation_golden.py
JOB = """
models: {pre: %(folder)s/pre, post: %(folder)s/post}
data: [{name: task, file: %(folder)s/data.h5, loss: lm}]
edits: [{name: half, method: dare, p: 0.5, seed: 3}, {name: some, method: dare, p: 0.3, k: -0.5, seed: 3},
  {name: drop, method: drop, p: 0.4, seed: 3}, {name: fit, method: dare, p: 0.5, seed: 3, calibrate: term},
  {name: two, seed: 3, method: [{method: prune, keep: 0.6}, {method: dare, p: 0.5}]},
  {name: own, seed: 3, method: [{method: bias, by: gradient, k: 0.5}, {method: dare, p: 0.5}]},
  {name: bits, method: bitdelta}]
riemann: {rule: left, points: 5, correlation: path}
law: {repeats: 2}
output: {directory: %(out)s, report: false}
"""


def run(folder, name, ranks, *sets, options=(), fault=None):
    """One study; what it said."""
    path = f"{folder}/{name}.yaml"
    done = studies.study(path, JOB % {"folder": folder, "out": f"{folder}/{name}"}, ranks, *sets, options=options, fault=fault)
    return done.returncode, done.stderr


def arrays(folder, name):
    """{edit: (all, law, {tensor: values}, attributes)} of a study."""
    out = {}
    with h5py.File(f"{folder}/{name}/results.h5") as file:
        names = [n.decode() for n in file["tensors/names"][()]]
        for edit, group in file["edits"].items():
            group = group["task"]
            tensors = dict(zip(names, np.array(group["path_correlations"])))
            columns = [c.decode() for c in group["tensor_stats_columns"]]
            start = dict(zip(names, np.array(group["tensor_stats"])[:, columns.index("correlation")]))
            out[edit] = (np.array(group["path_correlation"]), np.array(group["path_correlation_law"]), tensors,
                         dict(group.attrs), start)
    return out


def against_torch(name, found, golden):
    """Every edit of the golden file, tensor by tensor."""
    for edit, rows in golden["edits"].items():
        values, _, tensors, attributes, start = found[edit]
        worst = max(abs(values[c] - row["all"]) for c, row in enumerate(rows))
        each = max((abs(tensors[t][c] - r), t, c) for c, row in enumerate(rows) for t, r in row["tensors"].items())
        check(f"{name}: {edit} over all tensors", worst < 1e-5, worst)
        check(f"{name}: {edit} tensor by tensor", each[0] < 2e-5, each)
        check(f"{name}: {edit}: t = 0 is the correlation of the edit",
              all(abs(start[t] - r) < 2e-5 for t, r in rows[0]["tensors"].items()))
        check(f"{name}: {edit}: standard error", abs(attributes["correlation_se"] * math.sqrt(rows[0]["n"] - 1) - 1) < 1e-12)
    same = all((found["fit"][0] == found["half"][0])[:1])
    check(f"{name}: calibration comes after the mask", same and np.isfinite(found["fit"][0]).all(), found["fit"][0])
    for edit in ("own", "bits"):
        check(f"{name}: {edit} has none", np.isnan(found[edit][0]).all() and np.isnan(found[edit][3]["correlation_se"]))


def by_law(found, golden):
    """2 t s c over the covariance's factor, of single dares alone."""
    for edit, p, k in (("half", 0.5, 0.0), ("some", 0.3, -0.5)):
        _, law, _, attributes, _ = found[edit]
        for c, row in enumerate(golden["edits"][edit]):
            want = (2 * row["t"] * attributes["predicted_change"] * (1 - p) / (k - 1) / row["n"] /
                    (row["mask_sd"] * row["product_sd"]))
            check(f"{edit}: what the law says at {row['t']}", abs(law[c] - want) < 1e-4 * abs(want) + 1e-12, (law[c], want))
        check(f"{edit}: it falls along the path", law[-1] < law[1] < law[0] == 0, law)
    for edit in ("drop", "fit", "two"):
        check(f"{edit}: the law says nothing", np.isnan(found[edit][1]).all(), found[edit][1])


NODES = """
models: {pre: share/demo/vit-pre, post: share/demo/vit-post}
data: [{name: d, file: share/demo/digits.h5, loss: class, samples: 20}]
edits: [{name: dare, method: dare, p: [0.02, 0.9]}]
riemann: {correlation: path}
output: {directory: %s}
"""


def by_node(folder):
    """Edits whose rule took other nodes stand under their own t."""
    results, done = studies.results_of(folder, "nodes", NODES, 1)
    check("edits of two rules", results is not None, done.stderr)
    with h5py.File(f"{folder}/nodes/results.h5") as file:
        nodes = {e: np.array(file[f"edits/{e}/d/points"]) for e in ("dare-p0.02", "dare-p0.9")}
    check("have different nodes", len({len(n) for n in nodes.values()}) == 2, nodes)
    with open(f"{folder}/nodes/report.html", encoding="utf-8") as file:
        table = file.read().split("Mask and product along the path")[1].split("</table>")[0]
    for edit, values in nodes.items():
        row = next(r for r in table.split("<tr>") if f">{edit}<" in r)
        found = [float(c.split("<")[0]) for c in row.split("t = ")[1:]]
        check(f"{edit}: the report names its nodes", len(found) == len(values) and
              np.allclose(found, values, atol=5e-3), (found, values))
        check(f"{edit}: as wide as the longest row", row.count("<td") == 1 + max(len(n) for n in nodes.values()), row)


def main():
    """All meshes, a fault, and a study without it."""
    with open(GOLDEN, encoding="utf-8") as file:
        golden = json.load(file)
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        subprocess.run([sys.executable, "tests/support/make_models.py", "llama", folder, "--dtype", "f32"], check=True)
        for ranks, group in ((1, 1), (2, 1), (2, 2), (3, 3), (4, 2)):
            code, said = run(folder, f"at{ranks}-{group}", ranks, f"tensor_parallel={group}")
            check(f"at {ranks} ranks, {group} tensor-parallel", code == 0, said)
            if code == 0:
                found = arrays(folder, f"at{ranks}-{group}")
                against_torch(f"at {ranks}, {group}", found, golden)
        by_law(found, golden)
        by_node(folder)
        code, said = run(folder, "off", 2, "riemann.correlation=start")
        check("without it", code == 0, said)
        if code == 0:
            plain = arrays(folder, "off")
            check("nothing along the path", all(np.isnan(v[0]).all() and np.isnan(v[3]["correlation_se"])
                                                for v in plain.values()))
            check("the rest is the same", all(plain[e][3]["estimate"] == found[e][3]["estimate"] or
                                              abs(plain[e][3]["estimate"] - found[e][3]["estimate"]) < 1e-6 for e in plain))
        code, said = run(folder, "again", 2, fault="results.unit:1")
        check("a study that fails", code == 4, said)
        code, said = run(folder, "again", 2, "output.report=true", options=("--resume",))
        check("goes on", code == 0, said)
        with open(f"{folder}/again/report.html", encoding="utf-8") as file:
            check("the report has them", "Mask and product along the path" in file.read())
        if code == 0:
            again, first = arrays(folder, "again"), arrays(folder, "at2-1")
            check("with the same numbers", all(np.array_equal(again[e][0], first[e][0], equal_nan=True) for e in first))
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
# seconds: 300
"""All second-order numbers of a decoder of 36 weights, whose whole Hessian is known (tests/golden/dense.json, by torch in
double): products along edits, blocks, the Gauss-Newton curvature, eigenvalues, mean and spread over masks, and these two
against every one of the masks of 14 and of 16 weights; at 1 to 4 ranks."""

import json
import math
import os
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check, save_model

PROBES = 500
JOB = """
models: {pre: %(at)s/pre, post: %(at)s/post}
data: [{name: rows, file: %(at)s/rows.h5, loss: lm}]
edits: [{name: expo, method: expo, alpha: 1}, {name: dare, method: dare, p: %(p)s, k: %(k)s, seed: 3}, {name: prune, method: prune, keep: 0.5}]
riemann: {rule: left, points: 1}
hessian: {blocks: layers, edits: true, seed: 1}
output: {directory: %%s, report: false, checkpoint: safetensors}
"""


class Net:
    """The golden file."""

    def __init__(self):
        with open("tests/golden/dense.json", encoding="utf-8") as file:
            self.all = json.load(file)
        self.names = self.all["names"]
        self.shapes = [tuple(s) for s in self.all["shapes"]]
        self.bounds = np.cumsum([0] + [math.prod(s) for s in self.shapes])
        self.post, self.pre = (np.array(self.all[k]) for k in ("post", "pre"))
        self.delta, self.gradient = self.post - self.pre, np.array(self.all["gradient"])
        n = len(self.post)
        lower = np.zeros((n, n))
        lower[np.tril_indices(n)] = self.all["hessian"]
        self.hessian = lower + np.tril(lower, -1).T
        self.newton = np.array(self.all["gauss_newton"])
        self.p, self.k = self.all["p"], self.all["k"]
        self.s = (self.k - 1)**2 * self.p / (1 - self.p)

    def tensors(self, values):
        """By name."""
        return {n: values[a:b].reshape(s) for n, a, b, s in zip(self.names, self.bounds[:-1], self.bounds[1:], self.shapes)}

    def part(self, words):
        """1 in the tensors with one of the words in their name."""
        return np.concatenate([np.full(b - a, float(any(w in n for w in words)))
                               for n, a, b in zip(self.names, self.bounds[:-1], self.bounds[1:])])

    def sums(self, values):
        """Over each tensor."""
        return np.array([values[a:b].sum() for a, b in zip(self.bounds[:-1], self.bounds[1:])])

    def law(self, delta):
        """Second order over all masks: mean; spread without and with the sums over the diagonal alone."""
        a = 0.5 * delta[:, None] * self.hessian * delta
        d, g = np.diag(a), self.gradient * delta
        values = (self.k - 1) * np.array([-self.p, 1 - self.p]) / (1 - self.p)
        third, fourth = ((1 - self.p) * values[0]**n + self.p * values[1]**n for n in (3, 4))
        off = self.s * (g**2).sum() + 2 * self.s**2 * ((a**2).sum() - (d**2).sum())
        whole = off + (fourth - self.s**2) * (d**2).sum() + 2 * third * (g * d).sum()
        return self.s * d.sum(), math.sqrt(off), math.sqrt(whole)


def save(folder, net):
    """Both models and the data set."""
    config = json.dumps(net.all["config"])
    save_model(f"{folder}/pre", config, net.tensors(net.pre))
    save_model(f"{folder}/post", config, net.tensors(net.post))
    tokens = net.all["tokens"]
    with h5py.File(f"{folder}/rows.h5", "w") as data:
        data.attrs.update({"format": b"deltapath-data", "kind": b"lm", "source": b"golden", "version": 1})
        data["tokens"] = np.concatenate(tokens).astype(np.int32)
        data["offsets"] = np.cumsum([0] + [len(t) for t in tokens]).astype(np.int64)
        data["loss_mask"] = np.concatenate([np.arange(len(t)) >= b for t, b in zip(tokens, net.all["begin"])]).astype(np.uint8)


def run(folder, name, net, ranks, *sets):
    """Units by edit, with their arrays in the order of the golden file."""
    job = JOB % {"at": folder, "p": net.p, "k": net.k}
    results, done = studies.results_of(folder, name, job, ranks, *sets)
    if results is None:
        check(name, False, done.stderr)
        sys.exit(studies.finish())
    units = {u["edit"]: u for u in results["units"]}
    with h5py.File(f"{folder}/{name}/results.h5") as h5:
        order = [[n.decode() for n in h5["tensors/names"]].index(n) for n in net.names]
        for edit, unit in units.items():
            group = h5[f"edits/{edit}/rows"]
            unit["arrays"] = {k: np.array(v)[order] if v.shape[:1] == (len(order),) else np.array(v)
                              for k, v in group.items() if isinstance(v, h5py.Dataset)}
            unit["groups"] = str(group.attrs.get("groups", b"").decode() if isinstance(group.attrs.get("groups", b""), bytes)
                                 else group.attrs["groups"]).split("|")
    return units


def edit_of(folder, name, edit, net):
    """E as it was written."""
    with open(f"{folder}/{name}/models/{edit}/model.safetensors", "rb") as file:
        raw = file.read()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    parts = [np.frombuffer(raw[start + header[n]["data_offsets"][0]:start + header[n]["data_offsets"][1]], np.float32)
             for n in net.names]
    return np.concatenate(parts).astype(float) - net.post


def products(folder, net, ranks, sets):
    """1/2 E_l^T (H E)_l of each tensor and edit, and its blocks."""
    name = f"r{ranks}"
    units = run(folder, name, net, ranks, *sets)
    check(f"loss at {ranks}", abs(units["expo"]["loss_post"] - net.all["loss"]) < 1e-6, units["expo"]["loss_post"])
    for edit, unit in units.items():
        e = edit_of(folder, name, edit, net)
        want = net.sums(0.5 * e * (net.hessian @ e))
        got, size = unit["arrays"]["hessian_second_order"], np.abs(0.5 * e * (net.hessian @ e)).sum()
        check(f"{edit} at {ranks}: E^T H E by tensor", np.abs(got - want).max() < 1e-3 * size and
              abs(unit["hessian_second_order"] - want.sum()) < 1e-3 * size, (got, want, size))
        outside = net.part(["embed_tokens", "model.norm"])
        check(f"{edit} at {ranks}: groups", unit["groups"] == ["outside", "0"], unit["groups"])
        for j, moved in enumerate((outside, 1 - outside)):
            block = net.sums(0.5 * e * (net.hessian @ (moved * e)))
            off = np.abs(unit["arrays"]["blocks"][:, j] - block).max()
            check(f"{edit} at {ranks}: block of {unit['groups'][j]}", off < 1e-3 * size, (unit["arrays"]["blocks"][:, j], block))


def eigenvalues(folder, net, ranks, sets):
    """The greatest of H and of D H D."""
    unit = run(folder, f"top{ranks}", net, ranks, "hessian={lanczos: 6, steps: 30}", *sets)["expo"]
    for what, column, matrix in (("H", "hessian_eigenvalues", net.hessian),
                                 ("D H D", "delta_eigenvalues", net.delta[:, None] * net.hessian * net.delta)):
        want = sorted(np.linalg.eigvalsh(matrix), key=abs, reverse=True)[:6]
        got = unit["arrays"][column]
        check(f"eigenvalues of {what} at {ranks}", np.abs(got - want).max() < 5e-3 * abs(want[0]), (got, want))


def over_masks(folder, net):
    """Curvatures, mean and spread over masks: of all 36 weights, and of those of whose masks every one was evaluated."""
    for name, words, patterns in [("all", ["."], ["*"])] + [(n, m["words"], [f"*{w}*" for w in m["words"]])
                                                            for n, m in net.all["masks"].items()]:
        delta = net.part(words) * net.delta
        unit = run(folder, name, net, 1, f"hessian={{probes: {PROBES}, seed: 2}}", "law={repeats: 200, seed: 5}",
                   f"select={{include: [{', '.join(json.dumps(p) for p in patterns)}]}}", "output.checkpoint=none")["dare"]
        mean, off, whole = net.law(delta)
        a = 0.5 * delta[:, None] * net.hessian * delta
        c, newton = np.diag(a), 0.5 * net.newton * delta**2
        bar = unit["hessian_curvature_se"]
        check(f"{name}: curvature of the Hessian", abs(unit["hessian_curvature"] - c.sum()) < 3.5 * bar, (unit["hessian_curvature"], c.sum(), bar))
        # Probes of 1/2 z^T D H D z, whose variance is twice the squared norm off the diagonal.
        error = math.sqrt(2 * ((a**2).sum() - (c**2).sum()) / PROBES)
        check(f"{name}: its error", abs(bar / error - 1) < 0.15, (bar, error))
        off_rows = np.abs(unit["arrays"]["hessian_curvature"] - net.sums(c)) / np.maximum(unit["arrays"]["hessian_curvature_se"], 1e-12)
        check(f"{name}: by tensor", off_rows[unit["arrays"]["hessian_curvature"] != 0].max() < 4.5, off_rows)
        check(f"{name}: Gauss-Newton", abs(unit["curvature"] - newton.sum()) < 3.5 * unit["curvature_se"] < 0.5 * newton.sum(),
              (unit["curvature"], newton.sum(), unit["curvature_se"]))
        rows = np.abs(unit["arrays"]["curvature"] - net.sums(newton)) / np.maximum(unit["arrays"]["curvature_se"], 1e-12)
        check(f"{name}: Gauss-Newton by tensor", rows[net.sums(newton) > 0].max() < 4.5, rows)
        check(f"{name}: spread over masks", abs(unit["predicted_sd"] / off - 1) < 3e-3, (unit["predicted_sd"], off))
        check(f"{name}: the diagonal alone adds little", abs(unit["predicted_sd"] / whole - 1) < 0.02, (unit["predicted_sd"], whole))
        if name == "all":
            continue
        exact = net.all["masks"][name]
        check(f"{name}: spread of all {exact['masks']} masks", abs(unit["predicted_sd"] / exact["sd"] - 1) < 0.02,
              (unit["predicted_sd"], exact["sd"]))
        check(f"{name}: their mean", abs(net.s * unit["hessian_curvature"] - exact["mean"]) <
              3.5 * net.s * bar + 0.05 * abs(mean) + 1e-3 * exact["sd"], (net.s * unit["hessian_curvature"], mean, exact["mean"]))


def main():
    """All of it."""
    net = Net()
    check("36 weights", len(net.post) == 36)
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        save(folder, net)
        for ranks, sets in ((1, ()), (2, ("tensor_parallel=2",)), (3, ()), (4, ("tensor_parallel=2", "batch_tokens=12"))):
            products(folder, net, ranks, sets)
        eigenvalues(folder, net, 1, ())
        eigenvalues(folder, net, 3, ("tensor_parallel=3",))
        over_masks(folder, net)


if __name__ == "__main__":
    main()
    sys.exit(studies.finish())

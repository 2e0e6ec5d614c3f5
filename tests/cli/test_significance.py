#!/usr/bin/python3
# seconds: 300
"""`calibrate: significant` against the noise over samples: slopes of each sample along each tensor of the edited delta,
their mean, standard error and test, by differences of a model written out in numpy in double; at every mesh, with weights
and clusters, and after a kill."""

import math
import os
import sys
import tempfile

import h5py
import numpy as np

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tests", "support"), os.path.join(ROOT, "tools", "reference")]
import logits_golden
import studies
from studies import check, save_model

SAMPLES, STEP, CONFIDENCE = 48, 1e-4, 0.9973
JOB = """
models: {pre: %(at)s/pre, post: %(at)s/post}
data: [{name: tiny, file: %(at)s/%(data)s.h5, loss: class}]
edits: [{name: prune, method: prune, keep: 0.5, calibrate: significant},
  {name: bit, method: bitdelta, tensors: all, calibrate: significant}, {name: term, method: prune, keep: 0.5, calibrate: term}]
riemann: {rule: left, points: 1}
select: {exclude: ["*layer.0*"]}
output: {directory: %%s, report: false}
"""


def data_set(path, rng, clusters):
    """A file of random images, nearly all of one class, and what the mean takes of it."""
    shape = logits_golden.h5py.File(logits_golden.FILE)["images"].shape
    images = rng.standard_normal((SAMPLES, *shape[1:])).astype(np.float32)
    labels = np.where(rng.random(SAMPLES) < 0.97, 0, rng.integers(0, 3, SAMPLES)).astype(np.int32)
    weights, number = np.ones(SAMPLES), np.arange(SAMPLES)
    with h5py.File(path, "w") as data:
        data.attrs.update({"format": b"deltapath-data", "kind": b"class", "source": b"random", "version": 1})
        if clusters:
            weights, number = rng.integers(0, 4, SAMPLES).astype(float), rng.integers(0, 12, SAMPLES)
            images += 2.0 * rng.standard_normal((12, *shape[1:]))[number].astype(np.float32)
            data["weights"], data["cluster"] = weights, number
        data["images"], data["labels"] = images, labels
    return images, labels, weights / weights.sum(), number


def edited(name, delta):
    """F of a tensor, fp32."""
    if name == "bit":
        return np.abs(delta).mean() * np.sign(delta)
    order = np.argsort(np.abs(delta.ravel()), kind="stable")[::-1]
    kept = np.zeros(delta.size)
    kept[order[:round(delta.size / 2)]] = 1
    return kept.reshape(delta.shape) * delta


def student_level(t, df):
    """P(|T| < t), by Simpson's rule."""
    x = np.linspace(0.0, math.atan(t / math.sqrt(df)), 2001)
    y = np.cos(x)**(df - 1.0)
    area = (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum()) * (x[1] - x[0]) / 3
    return 2 * area * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)


def noise(x, shares, number):
    """Mean, standard error and level of slopes: the jackknife that leaves out one cluster after the other."""
    mean = (shares * x).sum()
    ids = np.unique(number[shares > 0])
    share = np.array([shares[number == i].sum() for i in ids])
    without = np.array([(shares * x)[number != i].sum() / (1 - w) for i, w in zip(ids, share)])
    values = mean + (len(ids) - 1) * (mean - without) # pseudo-values, moved to the mean
    values += mean - values.mean()
    se = values.std(ddof=1) / math.sqrt(len(ids))
    effective = 1.0 / (share**2).sum()
    df = effective - 1 if effective < len(ids) - 0.5 else len(ids) - 1
    return mean, se, student_level(abs(mean) / se, df)


def by_hand(name, model, sample):
    """(slope, se, level, factor) of each tensor that the edit touches."""
    images, labels, shares, number = sample
    model.labels = labels
    model.show(images.astype(float))
    rows = {}
    for at, tensor in enumerate(model.names):
        a, b = model.bounds[at:at + 2]
        if "layer.0" in tensor or (name == "bit" and len(model.shapes[at]) != 2):
            continue
        slopes = []
        for part in (edited(name, DELTA[a:b]), DELTA[a:b]):
            ends = np.repeat(model.post[None], 2, axis=0)
            ends[0, a:b] += STEP * part
            ends[1, a:b] -= STEP * part
            plus, minus = model.losses(ends)
            slopes.append((plus - minus) / (2 * STEP))
        mean, se, level = noise(slopes[0], shares, number)
        factor = (shares * slopes[1]).sum() / mean
        factor = min(max(factor, 0.5), 2.0) if factor > 0 else 1.0
        rows[tensor] = mean, se, level, factor if level > CONFIDENCE else 1.0
    return rows


def found(folder, name, edit):
    """The same of the results."""
    with h5py.File(f"{folder}/{name}/results.h5") as file:
        group = file[f"edits/{edit}/tiny"]
        columns = [c.decode() for c in group["tensor_stats_columns"]]
        values = np.array(group["tensor_stats"])
        names = [n.decode() for n in file["tensors/names"]]
    return {n: tuple(row[columns.index(c)] for c in ("slope", "slope_se", "scale")) for n, row in zip(names, values)}


def compare(label, folder, name, edit, rows):
    """Tensor by tensor; those whose level is at the border, or whose factor no double tells, may differ."""
    got = found(folder, name, edit)
    size = max(abs(r[0]) for r in rows.values())
    slopes = [(n, got[n], r) for n, r in rows.items() if abs(got[n][0] - r[0]) > 1e-4 * abs(r[0]) + 3e-6 * size
              or abs(got[n][1] - r[1]) > 1e-4 * r[1] + 3e-6 * size]
    check(f"{label}: slopes and their errors", not slopes, slopes)
    clear = {n: r for n, r in rows.items() if abs(r[2] - CONFIDENCE) > 1e-5 and abs(r[0]) > 1e-4 * size}
    factors = [(n, got[n], r) for n, r in clear.items() if abs(got[n][2] - r[3]) > 2e-3]
    check(f"{label}: factors", not factors and len(clear) > 0.5 * len(rows), factors)
    others = [n for n in got if n not in rows and not math.isnan(got[n][0])]
    check(f"{label}: the others have none", not others, others)
    return sum(r[2] > CONFIDENCE for r in clear.values()), len(clear)


def main():
    """All of it."""
    global DELTA
    model = logits_golden.Model()
    rng = np.random.default_rng(3)
    DELTA = np.where(rng.random(len(model.edit)) < 0.3, 0.1, 1.0) * model.edit
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        with h5py.File(logits_golden.FILE) as h5:
            config = h5.attrs["config"].decode()
        cut = zip(model.names, model.shapes, model.bounds[:-1], model.bounds[1:])
        tensors = {n: (model.post[a:b].reshape(s), (model.post - DELTA)[a:b].reshape(s)) for n, s, a, b in cut}
        save_model(f"{folder}/post", config, {n: v[0] for n, v in tensors.items()})
        save_model(f"{folder}/pre", config, {n: v[1] for n, v in tensors.items()})
        DELTA = np.concatenate([(v[0].astype(np.float32) - v[1].astype(np.float32)).ravel() for v in tensors.values()])
        told = {}
        for kind in ("plain", "clusters"):
            sample = data_set(f"{folder}/{kind}.h5", rng, kind == "clusters")
            rows = {edit: by_hand(edit, model, sample) for edit in ("prune", "bit")}
            for ranks, group in ((1, 1), (2, 2), (3, 1), (4, 2))[:: 2 if kind == "plain" else 1]:
                name = f"{kind}{ranks}"
                _, done = studies.results_of(folder, name, JOB % {"at": folder, "data": kind}, ranks,
                                             f"tensor_parallel={group}", "batch_tokens=60")
                if not os.path.exists(f"{folder}/{name}/results.h5"):
                    check(f"{kind} at {ranks}", False, done.stderr)
                    continue
                for edit, want in rows.items():
                    told[kind, edit] = compare(f"{kind} at {ranks}: {edit}", folder, name, edit, want)
                check(f"{kind} at {ranks}: said", "as samples do not tell the product" in done.stderr, done.stderr)
        check("some slopes are told from chance, others are not", all(0 < a < n for a, n in told.values()), told)
        term = found(folder, "plain1", "term")
        check("without the question no error", any(not math.isnan(v[0]) for v in term.values()) and
              all(math.isnan(v[1]) for v in term.values()), term)
        resumed(folder)
        copies(folder)
    sys.exit(studies.finish())


def copies(folder):
    """Twenty times one image are one sample: nothing is told from chance by them."""
    with h5py.File("share/demo/digits.h5") as demo, h5py.File(f"{folder}/copies.h5", "w") as data:
        data.attrs.update(demo.attrs)
        for key in ("images", "labels"):
            data[key] = np.repeat(demo[key][:1], 20, axis=0)
    job = """
models: {pre: share/demo/vit-pre, post: share/demo/vit-post}
data: [{name: copies, file: %s/copies.h5, loss: class}]
edits: [{name: auto, method: expo, alpha: auto}, {name: bit, method: bitdelta, calibrate: significant}, {name: dare, method: dare, p: 0.1}]
law: {repeats: 2, probes: 3}
riemann: {rule: left, points: 1}
output: {directory: %%s, report: false}
""" % folder
    results, done = studies.results_of(folder, "one", job, 1)
    check("copies of one sample", done.returncode == 0, done.stderr)
    units = {unit["edit"]: unit for unit in (results or {"units": []})["units"]}
    found = str(units.get("auto"))
    check("no way leads from 0", "'advice': 'undecided'" in found and "'slope_interval': 'unknown'" in found, found)
    check("no slope is told from chance", "the product with the gradient from 0 (24)" in done.stderr, done.stderr)
    check("the accuracy has no interval", "dare" in units and units["dare"]["predicted_accuracy_low"] is None,
          units.get("dare"))


def resumed(folder):
    """The pass over the samples is taken from the run that was killed."""
    job = JOB % {"at": folder, "data": "clusters"}
    sets = "tensor_parallel=2", "batch_tokens=60"
    # Weights of W_post, W_pre and F, after the slopes along which those of the edit would come.
    studies.results_of(folder, "killed", job, 2, *sets, fault="model.load:0:4:kill")
    killed = os.path.exists(f"{folder}/killed/results.h5")
    _, done = studies.results_of(folder, "killed", job, 2, *sets, options=["--resume"])
    taken = done.stderr.count("tiny at t = 0: 48 of 48 samples are those of the earlier run")
    same = os.path.exists(f"{folder}/killed/results.h5") and all(
        np.array_equal(list(found(folder, "killed", e).values()), list(found(folder, "clusters2", e).values()), equal_nan=True)
        for e in ("prune", "bit"))
    check("killed and resumed", not killed and same and taken == 2, (killed, same, taken, done.stderr))


if __name__ == "__main__":
    main()

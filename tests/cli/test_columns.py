#!/usr/bin/python3
"""Every number of a unit means what its column says: figures taken anew from losses of the samples, terms of
the tensors and weights of the models, and compared with the columns by name in all three files."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np

PROGRAM = os.path.join(os.environ.get("DELTAPATH_BUILD", "build/release"), "deltapath")
JOB = """
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 24}]
edits: [{name: dare, method: dare, p: 0.5, seed: [1, 2]}, {name: back, method: expo, alpha: -0.25},
  {name: best, method: allocate, edit: prune, bytes: 0.4}]
riemann: {rule: midpoint, points: 2}
law: {repeats: 3}
margin: {share: 0.01}
output: {directory: %s, report: false}
"""
failures = checks = 0


def check(name, good, why=""):
    """One TAP line."""
    global failures, checks
    checks += 1
    failures += not good
    print(f"{'ok' if good else 'not ok'} {checks} - {name}")
    if not good:
        print(f"#   {why}")


def near(name, got, want, tolerance=1e-9):
    """Two numbers that must agree, relative to their size."""
    good = got is not None and abs(got - want) <= tolerance * (abs(want) + 1e-12)
    check(name, good, f"the file says {got}, the data say {want}")


def tail(t, freedom):
    """P(T > t) of Student's distribution, by Simpson's rule on a finite interval."""
    x = np.linspace(0, abs(t), 20001)
    y = (1 + x * x / freedom) ** (-(freedom + 1) / 2)
    y *= math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    step = x[1] - x[0]
    body = step / 3 * (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum())
    return 0.5 - body if t > 0 else 0.5 + body


def quantile(p, freedom):
    """Upper quantile by bisection."""
    low, high = 0.0, 100.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, freedom) > 1 - p else (low, middle)
    return low


def interval(name, unit, column, x, level):
    """Mean, standard error and ends of a paired interval."""
    half = quantile(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    near(f"{name} {column}_low", unit[column + "_low"], x.mean() - half, 1e-6)
    near(f"{name} {column}_high", unit[column + "_high"], x.mean() + half, 1e-6)


def losses(name, unit, group):
    """Columns that the losses of the samples give."""
    pre, post, edit = (np.array(group[f"loss_{side}"]) for side in ("pre", "post", "edit"))
    change, gain, n = edit - post, pre - post, len(post)
    for side, values in (("pre", pre), ("post", post), ("edit", edit)):
        near(f"{name} loss_{side}", unit[f"loss_{side}"], values.mean())
    se = change.std(ddof=1) / math.sqrt(n)
    near(f"{name} change", unit["change"], change.mean())
    near(f"{name} change_se", unit["change_se"], se)
    near(f"{name} gain", unit["gain"], gain.mean())
    interval(name, unit, "change", change, 0.95)
    interval(name, unit, "gain", gain, 0.95)
    half = quantile(0.95, n - 1) * se
    near(f"{name} equivalence_low", unit["equivalence_low"], change.mean() - half, 1e-6)
    near(f"{name} equivalence_high", unit["equivalence_high"], change.mean() + half, 1e-6)
    near(f"{name} share", unit["share"], change.mean() / gain.mean())
    check(f"{name} share lies in its interval", unit["share_low"] < unit["share"] < unit["share_high"])
    margin = 0.01 * gain.mean()
    near(f"{name} margin", unit["margin"], margin)
    t = change.mean() / se
    near(f"{name} p_change", unit["p_change"], 2 * tail(abs(t), n - 1), 1e-4)
    below = tail((change.mean() + margin) / se, n - 1)
    above = tail((margin - change.mean()) / se, n - 1)
    near(f"{name} p_equivalent", unit["p_equivalent"], max(below, above), 1e-4)
    low, high = unit["bootstrap_low"], unit["bootstrap_high"]
    check(f"{name} bootstrap interval", abs(low - unit["change_low"]) < 2 * se > abs(high - unit["change_high"]),
          f"{low}, {high}; {unit['change_low']}, {unit['change_high']}; {se}")


def path(name, unit, group):
    """Columns that the terms of the tensors and the losses on the path give."""
    terms, weights = np.array(group["terms"]), np.array(group["weights"])
    integrated = terms @ weights
    check(f"{name} integrated", np.allclose(np.array(group["integrated"]), integrated, rtol=1e-9))
    near(f"{name} estimate", unit["estimate"], integrated.sum(), 1e-7)
    slopes = terms.sum(axis=0) # two midpoints make a line; the polynomial without the first is f(3/4)
    near(f"{name} estimate_quadrature", unit["estimate_quadrature"], abs(slopes[0] - slopes[1]) / 2, 1e-7)
    near(f"{name} error", unit["error"], unit["estimate"] - unit["change"], 1e-9)
    near(f"{name} second_order", unit["second_order"], np.array(group["second_order"]).sum(), 1e-7)
    samples = np.array(group["sample_integrated"])
    near(f"{name} sample_integrated", samples.mean(), unit["estimate"], 1e-4)
    near(f"{name} estimate_se", unit["estimate_se"], samples.std(ddof=1) / math.sqrt(len(samples)), 1e-6)
    interval(name, unit, "estimate", samples, 0.95)
    check(f"{name} points", np.allclose(np.array(group["points"]), [0.25, 0.75]))
    ends = [unit["loss_post"], *group["path_loss"], unit["loss_edit"]]
    check(f"{name} path_loss", all(a < b for a, b in zip(ends, ends[1:])), ends)


def law(name, unit, group):
    """Columns of the curvature, and what it predicts."""
    curvature, error = np.array(group["curvature"]), np.array(group["curvature_se"])
    near(f"{name} curvature", unit["curvature"], curvature.sum(), 1e-9)
    check(f"{name} curvature_se", error.max() < unit["curvature_se"] < error.sum() * 1.0001 and
          unit["curvature_se"] < unit["curvature"], (error, unit["curvature_se"]))
    columns = [c.decode() for c in group["tensor_stats_columns"]]
    stats = dict(zip(columns, np.array(group["tensor_stats"]).T))
    share = (stats["edit_norm"] / np.maximum(stats["delta_norm"], 1e-30)) ** 2
    check(f"{name} predicted_range", unit["predicted_range"].startswith("out of range: ") and
          "is nearly zero (below 0.05)" in unit["predicted_range"], unit["predicted_range"])
    near(f"{name} predicted_in_range", unit["predicted_in_range"], 0.0)
    check(f"{name} predicted_first needs the gradient at t = 0", unit["predicted_first"] is None)
    check(f"{name} safe_rate: no p is in range (test_law has one)", unit["safe_rate"] is None, unit["safe_rate"])
    near(f"{name} predicted_s", unit["predicted_s"], unit["predicted_second"] / unit["curvature"])
    if not name.startswith("dare-"):
        check(f"{name} has no prediction", unit["predicted_change"] is None)
        near(f"{name} predicted_second", unit["predicted_second"], (curvature * share).sum())
        check(f"{name} predicted_se", 0 < unit["predicted_se"] < unit["predicted_second"], unit["predicted_se"])
        return
    near(f"{name} predicted_second", unit["predicted_second"], unit["curvature"], 1e-9)
    near(f"{name} predicted_change", unit["predicted_change"], unit["curvature"], 1e-9) # s is 1 at p = 0.5
    near(f"{name} predicted_se", unit["predicted_se"], unit["curvature_se"], 1e-9)
    near(f"{name} predicted_in_range", unit["predicted_in_range"], 0.0)


def choices(name, unit, group):
    """All samples judge, also what is chosen on them (test_choose has the others)."""
    chosen = ("task", 0.0) if name == "best" else ("", None)
    check(f"{name}: what is chosen", (unit["chosen_on"], unit["held_out"]) == chosen, unit["chosen_on"])
    check(f"{name}: none only chooses", unit["choose_change"] is None and unit["choose_accuracy"] is None)
    check(f"{name} sample_rows", (np.array(group["sample_rows"]) == np.arange(24)).all())


def tensors(name, group, alpha):
    """Statistics of the tensors."""
    columns = [c.decode() for c in group["tensor_stats_columns"]]
    stats = dict(zip(columns, np.array(group["tensor_stats"]).T))
    touched = stats["delta_norm"] > 0
    ratio = stats["edit_norm"][touched] / stats["delta_norm"][touched]
    if alpha is not None: # E = alpha Delta, rounded to the type of the tensors
        check(f"{name} edit_norm", abs(np.median(ratio) - abs(alpha)) < 0.01, ratio)
        check(f"{name} share_changed", np.median(stats["share_changed"][touched]) > 0.9)
        check(f"{name}: zeros are not counted", np.isnan(stats["share_zero"]).all())
    elif name.startswith("dare-"): # dropped entries and their rescaled complement both have |E| = |Delta| at p = 0.5
        check(f"{name} edit_norm", abs(np.median(ratio) - 1) < 0.02, ratio)


def size(name, unit, group, numel):
    """Bytes of the edit in bf16, and the value of each tensor."""
    columns = [c.decode() for c in group["tensor_stats_columns"]]
    values = np.array(group["tensor_stats"])[:, columns.index("value")]
    keep = 0.5 if name.startswith("dare-") else np.nan
    check(f"{name} value", np.isnan(values).all() == (name != "best") and not (values > 1).any(), values)
    total = 0
    for n, value in zip(numel, values):
        share = keep if np.isnan(value) else value
        kept = n if np.isnan(share) else math.floor(share * n + 0.5)
        total += min(2 * kept + min(math.ceil(n / 8), 2 * kept + 4 * math.ceil(n / 65536)), 2 * n)
    near(f"{name} size", unit["size"], total)
    check(f"{name} size is that of the job", name != "best" or 0.399 < total / (2 * sum(numel)) <= 0.4, total)


def holm(units):
    """p_adjusted over the edits of one data set."""
    order = sorted(units, key=lambda u: u["p_change"])
    most = 0.0
    for i, unit in enumerate(order):
        most = max(most, min(1.0, unit["p_change"] * (len(order) - i)))
        near(f"{unit['edit']} p_adjusted", unit["p_adjusted"], most, 1e-9)


def files(folder, units):
    """The same names and values in HDF5, JSON and CSV."""
    with open(f"{folder}/summary.csv", encoding="utf-8") as file:
        rows = {row["edit"]: row for row in csv.DictReader(file)}
    with h5py.File(f"{folder}/results.h5") as h5:
        for unit in units:
            attributes = h5[f"edits/{unit['edit']}/task"].attrs
            for column, value in unit.items():
                if not isinstance(value, float):
                    continue
                cell = rows[unit["edit"]][column]
                if float(cell) != value or attributes[column] != value:
                    check(f"{unit['edit']} {column}", False, f"{value}, {cell}, {attributes[column]}")
            check(f"{unit['edit']}: the three files agree", True)


def seeds(folder, units):
    """Means over seeds, and the interval over seeds and samples."""
    with open(f"{folder}/seeds.csv", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    for column, scalar in (("change", "change"), ("estimate", "estimate"), ("share", "share"),
                           ("accuracy", "accuracy_edit")):
        values = np.array([u[scalar] for u in units if u["edit"].startswith("dare-")])
        near(f"seeds {column}_mean", float(row[f"{column}_mean"]), values.mean(), 1e-9)
        near(f"seeds {column}_sd", float(row[f"{column}_sd"]), values.std(ddof=1), 1e-9)
    with h5py.File(f"{folder}/results.h5") as h5:
        group = [h5[f"edits/dare-seed{k}/task"] for k in (1, 2)]
        x = np.array([np.array(g["loss_edit"]) - np.array(g["loss_post"]) for g in group])
        shares = np.array(group[0]["sample_shares"])
    check("sample_shares", np.allclose(shares, 1 / x.shape[1], rtol=1e-12), shares)
    count, n = x.shape
    off = x - x.mean(axis=1)[:, None] - x.mean(axis=0)[None, :] + x.mean()
    residual = (off**2).sum() / ((count - 1) * (n - 1))
    seed = n * x.mean(axis=1).var(ddof=1) / x.size
    sample = max(count * x.mean(axis=0).var(ddof=1) - residual, 0) / x.size
    half = math.sqrt(quantile(0.975, count - 1)**2 * seed + quantile(0.975, n - 1)**2 * sample)
    near("seeds crossed_low", float(row["crossed_low"]), x.mean() - half, 1e-6)
    near("seeds crossed_high", float(row["crossed_high"]), x.mean() + half, 1e-6)
    df = float(row["crossed_df"])
    near("seeds crossed_df", quantile(0.975, df), half / math.sqrt(seed + sample), 1e-5)


def weights(folder, run):
    """Weights 1 and 0 are as without the samples of weight 0, over seeds too."""
    shutil.copy("share/demo/task.h5", f"{folder}/w.h5")
    with h5py.File(f"{folder}/w.h5", "r+") as h5:
        count = len(h5["offsets"]) - 1
        h5["weights"] = np.where(np.arange(count) < 10, 2.0, 0.0)
    done = run("--set", f"output.directory={folder}/w", "--set", "riemann={points: 1}", "--set",
               "edits=[{name: dare, method: dare, p: 0.5, seeds: 3}]", "--set",
               f"data=[{{name: w, file: {folder}/w.h5, loss: lm, samples: 24}}, "
               "{name: t, file: share/demo/task.h5, loss: lm, samples: 10}, "
               "{name: more, file: share/demo/task.h5, loss: lm, samples: 64}]")
    check("a study with weights", done.returncode == 0, done.stderr)
    if done.returncode == 0:
        with open(f"{folder}/w/seeds.csv", encoding="utf-8") as file:
            weighted, alone, _ = csv.DictReader(file)
        check("three seeds by their count", weighted["seeds"] == alone["seeds"] == "3")
        for column in ("change_mean", "crossed_low", "crossed_high", "crossed_df"):
            near(f"weights: {column}", float(weighted[column]), float(alone[column]), 1e-4)
        skewed(f"{folder}/w")


def skewed(folder):
    """Skewed changes are judged by studentised resamples where there are 50 samples, else the reason warns."""
    found = set()
    with open(f"{folder}/results.json", encoding="utf-8") as file, h5py.File(f"{folder}/results.h5") as h5:
        for unit in json.load(file)["units"]:
            name = f"{unit['edit']} on {unit['data']}"
            group = h5[f"edits/{unit['edit']}/{unit['data']}"]
            x = (np.array(group["loss_edit"]) - np.array(group["loss_post"]))[np.array(group["sample_shares"]) > 0]
            off = x - x.mean()
            skew = (off**3).mean() / (off**2).mean()**1.5
            kind = "t" if abs(skew) < 2 else "studentised" if len(x) >= 50 else "samples are too few"
            found.add(kind)
            check(f"{name}: skew {skew:.2f}, {kind}", (kind == "t" and "skew" not in unit["reason"])
                  or kind in unit["reason"], unit["reason"])
            half = quantile(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
            student = abs(unit["change_low"] - x.mean() + half) < 1e-4 * half
            check(f"{name}: the interval is that", student == (kind != "studentised"), unit)
            excluded = unit["change_low"] > 0 or unit["change_high"] < 0
            check(f"{name}: p and interval agree", excluded == (unit["p_change"] < 0.05), unit)
    check("all kinds are met", found >= {"t", "studentised"}, found)


def main():
    """Run the study at two ranks and look at every column."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        out = f"{folder}/o"
        with open(f"{folder}/job.yaml", "w", encoding="utf-8") as file:
            file.write(JOB % out)
        start = [*os.environ.get("DPT_MPIRUN", "mpirun -q").split(), "-n", "2", PROGRAM, "run", f"{folder}/job.yaml"]
        def run(*options):
            return subprocess.run([*start, *options], check=False, capture_output=True, text=True)
        done = run()
        check("the study", done.returncode == 0, done.stderr)
        weights(folder, run)
        if done.returncode == 0:
            with open(f"{out}/results.json", encoding="utf-8") as file:
                units = json.load(file)["units"]
            with h5py.File(f"{out}/results.h5") as h5:
                for unit in units:
                    group = h5[f"edits/{unit['edit']}/task"]
                    losses(unit["edit"], unit, group)
                    path(unit["edit"], unit, group)
                    law(unit["edit"], unit, group)
                    choices(unit["edit"], unit, group)
                    tensors(unit["edit"], group, -0.25 if unit["edit"] == "back" else None)
                    size(unit["edit"], unit, group, [int(n) for n in h5["tensors/numel"]])
            holm(units)
            files(out, units)
            seeds(out, units)
            for unit in units:
                decided = unit["verdict"] != "undecided" and unit["edit"].startswith("dare-")
                check(f"{unit['edit']}: a verdict of one mask says so", ("of this mask" in unit["reason"]) == decided,
                      unit["reason"])
            accuracies = [units[0][f"accuracy_{side}"] for side in ("pre", "post")]
            check("post-training raised the accuracy", accuracies[0] < accuracies[1], accuracies)
    print(f"1..{checks}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

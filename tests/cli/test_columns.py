#!/usr/bin/python3
"""Every number of a unit means what its column says: figures taken anew from losses of the samples, terms of
the tensors and weights of the models, and compared with the columns by name in all three files."""

import csv
import json
import math
import os
import shutil
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

JOB = """
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 24}]
edits: [{name: dare, method: dare, p: 0.5, seed: [1, 2]}, {name: back, method: expo, alpha: -0.25},
  {name: best, method: allocate, edit: prune, bytes: 0.4}]
riemann: {rule: midpoint, points: 2}
law: {repeats: 3}
hessian: {edits: true, probes: 5}
margin: {share: 0.01}
statistics: {interval: t}
output: {directory: %s, report: false}
"""


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


def corrected(t, skew, n):
    """Hall's transform of a statistic of n values (doc/equations.md), from its formula."""
    u = skew / math.sqrt(n)
    share = skew**2 / (skew**2 + 1.5)
    v = u * share if t * skew >= 0 else u * (1 + (20 if n < 9 else 5 if n < 12 else 1.5) * abs(u))
    y = t / 4 if v * t < -4.5 else t + v * t**2 / 3 + v**2 * t**3 / 27
    return y + u * share / 6


def reaches(x, freedom):
    """How many standard errors below and above the mean the 95 % interval of values with that mean ends."""
    off = x - x.mean()
    skew = (off**3).mean() / (off**2).mean()**1.5 if len(x) > 2 else 0.0
    ends, student = [], quantile(0.975, freedom)
    for sign in (1.0, -1.0):
        low, high = 0.0, 1000.0
        for _ in range(80):
            t = (low + high) / 2
            low, high = (t, high) if sign * corrected(sign * t, skew, len(x)) < student else (low, t)
        ends.append(low)
    return ends


def crossed(x, freedom):
    """Distances of the ends of the interval over seeds and samples, and its degrees of freedom as Student's quantile."""
    count, n = x.shape
    off = x - x.mean(axis=1)[:, None] - x.mean(axis=0)[None, :] + x.mean()
    residual = (off**2).sum() / ((count - 1) * (n - 1))
    a = math.sqrt(n * x.mean(axis=1).var(ddof=1) / x.size)
    b = math.sqrt(max(count * x.mean(axis=0).var(ddof=1) - residual, 0) / x.size)
    def joined(p, q):
        return max(math.sqrt((p * a)**2 + (q * b)**2 - 1.6 / count * p * a * q * b), p * a, q * b)
    few, many = reaches(x.mean(axis=1), count - 1), reaches(x.mean(axis=0), freedom)
    student = joined(quantile(0.975, count - 1), quantile(0.975, freedom)) / math.hypot(a, b)
    if count == 2: # that of two uniform values
        return *(max(19 * a, t * b) for t in many), student
    return joined(few[0], many[0]), joined(few[1], many[1]), student


def interval(name, unit, column, x, level):
    """Mean, standard error and ends of a paired interval."""
    half = quantile(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    near(f"{name} {column}_low", unit[column + "_low"], x.mean() - half, 1e-6)
    near(f"{name} {column}_high", unit[column + "_high"], x.mean() + half, 1e-6)


def fieller(name, unit, change, gain):
    """The ratios for which change - ratio * gain is not told from 0, by scanning them."""
    t = quantile(0.975, len(gain) - 1)
    def told(ratio):
        rest = change - ratio * gain
        return abs(rest.mean()) > t * rest.std(ddof=1) / math.sqrt(len(rest))
    for column, step in (("share_low", -1.0), ("share_high", 1.0)):
        inside = change.mean() / gain.mean()
        outside = inside + step
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if told(middle) else (middle, outside)
        near(f"{name} {column}", unit[column], inside, 1e-6)


def parts_of_margin(name, unit, group):
    """Each sample's part of the margin: a share of the room, or what two points of accuracy cost."""
    pre, post = np.array(group["loss_pre"]), np.array(group["loss_post"])
    with open("share/demo/llama-post/config.json", encoding="utf-8") as file:
        guess = math.log(json.load(file)["vocab_size"])
    room = np.minimum(pre.mean(), guess) - post if pre.mean() > guess else pre - post
    gained = np.array(group["correct_post"]) - np.array(group["correct_pre"])
    cost = 0.02 * room.mean() / gained.mean()
    near(f"{name} margin_accuracy", unit["margin_accuracy"], cost)
    near(f"{name} margin", unit["margin"], min(0.01 * room.mean(), cost))
    near(f"{name} accuracy_margin", unit["accuracy_margin"], 0.02)
    check(f"{name}: the share is the smaller margin", 0.01 * room.mean() < cost)
    return 0.01 * room


def equivalence(name, unit, change, part):
    """Two one-sided tests of the change less and plus the part of each sample."""
    n, ps = len(change), []
    for side, sign in (("high", 1), ("low", -1)):
        rest = change - sign * part
        se = rest.std(ddof=1) / math.sqrt(n)
        near(f"{name} equivalence_{side}", unit[f"equivalence_{side}"],
             change.mean() + sign * quantile(0.95, n - 1) * se, 1e-6)
        ps.append(tail(-sign * rest.mean() / se, n - 1))
    check(f"{name} p_equivalent", abs(unit["p_equivalent"] - max(ps)) < 1e-4 * max(ps) + 1e-12, (unit["p_equivalent"], ps))


def tango(won, lost, n, change):
    """Tango's statistic, with the most likely shares under a change by bisection of the likelihood's slope."""
    low, high = max(0.0, -change), (1 - change) / 2
    for _ in range(200):
        q = (low + high) / 2
        slope = (lost / q if lost else 0) + (won / (q + change) if won else 0) - 2 * (n - won - lost) / (1 - change - 2 * q)
        low, high = (q, high) if slope > 0 else (low, q)
    return (won - lost - n * change) / math.sqrt(n * (2 * q + change - change * change))


def accuracy(name, unit, group):
    """Columns that the correctness of the samples gives."""
    pre, post, edit = (np.array(group[f"correct_{side}"]) for side in ("pre", "post", "edit"))
    n = len(post)
    for side, values in (("pre", pre), ("post", post), ("edit", edit)):
        near(f"{name} accuracy_{side}", unit[f"accuracy_{side}"], values.mean())
    won, lost = int(((edit == 1) & (post == 0)).sum()), int(((edit == 0) & (post == 1)).sum())
    near(f"{name} accuracy_change", unit["accuracy_change"], (won - lost) / n)
    for column, z in (("accuracy_low", 1.959963985), ("accuracy_high", -1.959963985)):
        score = tango(won, lost, n, unit[column])
        check(f"{name} {column}", abs(score - z) < 1e-5, f"{unit[column]}: {score}")
    score = tango(won, lost, n, -0.02)
    fall = max(lost - won, 0)
    exact = sum(math.comb(n, k) * 0.02**k * 0.98**(n - k) for k in range(fall + 1))
    near(f"{name} p_accuracy", unit["p_accuracy"], max(math.erfc(score / math.sqrt(2)) / 2, exact), 1e-5)
    near(f"{name} clusters", unit["clusters"], n)
    near(f"{name} effective", unit["effective"], n)
    check(f"{name} sample_clusters", (np.array(group["sample_clusters"]) == np.arange(n)).all())


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
    near(f"{name} share", unit["share"], change.mean() / gain.mean())
    fieller(name, unit, change, gain)
    t = change.mean() / se
    near(f"{name} p_change", unit["p_change"], 2 * tail(abs(t), n - 1), 1e-4)
    equivalence(name, unit, change, parts_of_margin(name, unit, group))
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
    near(f"{name} gradients", unit["gradients"], 2)
    off = abs(terms[:, 0] - terms[:, 1]) / 2
    check(f"{name} split_error", np.allclose(np.array(group["split_error"]), off, rtol=1e-6), off)
    split = integrated - off / off.sum() * unit["error"]
    check(f"{name} split", np.allclose(np.array(group["split"]), split, rtol=1e-6), split)
    near(f"{name} split adds up", np.array(group["split"]).sum(), unit["change"], 1e-7)
    near(f"{name} error", unit["error"], unit["estimate"] - unit["change"], 1e-9)
    near(f"{name} second_order", unit["second_order"], np.array(group["second_order"]).sum(), 1e-7)
    samples = np.array(group["sample_integrated"])
    near(f"{name} sample_integrated", samples.mean(), unit["estimate"], 1e-4)
    near(f"{name} estimate_se", unit["estimate_se"], samples.std(ddof=1) / math.sqrt(len(samples)), 1e-6)
    interval(name, unit, "estimate", samples, 0.95)
    reach = unit["estimate_combined_high"] - samples.mean()
    se, bias, freedom = unit["estimate_se"], unit["estimate_quadrature"], len(samples) - 1
    outside = tail((reach - bias) / se, freedom) + tail((reach + bias) / se, freedom)
    near(f"{name} estimate_combined_high", outside, 0.05, 1e-4)
    near(f"{name} estimate_combined_low", samples.mean() - unit["estimate_combined_low"], reach, 1e-6)
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
    check(f"{name} predicted_accuracy is of classes (test_logits has some)",
          all(unit[c] is None for c in unit if c.startswith(("predicted_accuracy", "safe_rate_accuracy"))))
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


def hessian(name, unit, group):
    """Second derivatives of the edit, and what signs say."""
    total, error = unit["hessian_second_order"], unit["hessian_error"]
    near(f"{name} hessian_second_order", total, np.array(group["hessian_second_order"]).sum(), 1e-9)
    check(f"{name} hessian_error", 0 < error < 0.02 * total and 0 < unit["hessian_step"] < 0.5, unit)
    curvature, error = np.array(group["hessian_curvature"]), np.array(group["hessian_curvature_se"])
    near(f"{name} hessian_curvature", unit["hessian_curvature"], curvature.sum(), 1e-9)
    check(f"{name} hessian_curvature_se", error.max() < 2 * unit["hessian_curvature_se"] < 2.0001 * error.sum(), unit)
    both = math.hypot(unit["hessian_curvature_se"], unit["curvature_se"])
    check(f"{name}: the curvatures are of one size",
          abs(unit["hessian_curvature"] - unit["curvature"]) < 4 * both + 0.2 * unit["curvature"], unit)
    if not name.startswith("dare"):
        check(f"{name} has no spread", unit["predicted_sd"] is None and unit["predicted_sd_se"] is None)
        return
    variance = 5 * unit["hessian_curvature_se"]**2 # s is 1 at p = 0.5; the rest is the sum of squares
    check(f"{name} predicted_sd", variance < unit["predicted_sd"]**2 and
          0 < unit["predicted_sd_se"] < unit["predicted_sd"], (variance, unit))


def groups_left_out(name, unit, group, layers):
    """Groups of `proof`: their terms, and what numbers of the unit they give (test_group_proof has the losses)."""
    arrays = {c: np.array(group[c]) if c in group else np.zeros(0) for c in
              ("proof_term", "proof_change", "proof_change_low", "proof_change_high", "proof_alone")}
    if name != "dare-seed1":
        check(f"{name} leaves no groups out", unit["proof_groups"] == "" and unit["proof_slope"] is None and
              unit["proof_interaction"] is None and not any(a.size for a in arrays.values()), arrays)
        return
    kinds = sorted(set(layers))
    check(f"{name} proof_groups", unit["proof_groups"].split("|") == ["outside" if k < 0 else str(k) for k in kinds])
    x, y = arrays["proof_term"], arrays["proof_change"]
    part = np.array(group["integrated"])
    check(f"{name} proof_term", np.allclose(x, [part[layers == k].sum() for k in kinds], rtol=1e-9))
    check(f"{name} proof_change", (arrays["proof_change_low"] < y).all() and (y < arrays["proof_change_high"]).all(), arrays)
    check(f"{name} proof_alone", np.isfinite(arrays["proof_alone"]).all() and (arrays["proof_alone"] != y).all(), arrays)
    near(f"{name} proof_interaction", unit["proof_interaction"], y.sum() - unit["change"], 1e-6)
    check(f"{name} proof_interaction_low", unit["proof_interaction_low"] < unit["proof_interaction"] <
          unit["proof_interaction_high"], unit["proof_interaction_low"])
    n = len(x)
    for column, r, variance in (("proof_correlation", np.corrcoef(x, y)[0, 1], lambda r: 1 / (n - 3)),
                                ("proof_rank_correlation", np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1],
                                 lambda r: (1 + r * r / 2) / (n - 3))):
        near(f"{name} {column}", unit[column], r)
        known = r if column == "proof_correlation" else min(r, 1 - 6 / (n ** 3 - n))
        reach = 1.96 * math.sqrt(variance(known))
        near(f"{name} {column}_low", unit[column + "_low"], math.tanh(math.atanh(known) - reach))
        near(f"{name} {column}_high", unit[column + "_high"], max(r, math.tanh(math.atanh(known) + reach)))
    line = np.c_[np.ones(n), x]
    inverse = np.linalg.inv(line.T @ line)
    slope = inverse @ line.T @ y
    off = (y - line @ slope) / (1 - np.diag(line @ inverse @ line.T))
    error = math.sqrt((inverse @ line.T @ np.diag(off ** 2) @ line @ inverse)[1, 1])
    near(f"{name} proof_slope", unit["proof_slope"], slope[1], 1e-6)
    check(f"{name} proof_few", n < 8 and unit["proof_few"] == 1, (n, unit["proof_few"]))
    near(f"{name} proof_slope_low", unit["proof_slope_low"], slope[1] - quantile(0.975, n - 2) * error, 1e-3)
    near(f"{name} proof_slope_high", unit["proof_slope_high"], slope[1] + quantile(0.975, n - 2) * error, 1e-3)


def bend(folder, run):
    """The true second order is what the losses on both sides bend by, of edits that are small and not rounded."""
    done = run("--set", f"output={{directory: {folder}/bend, dtype: f32, report: false}}", "--set",
               "edits=[{name: e, method: expo, alpha: [-0.02, 0.02]}]", "--set", "law.repeats=0", "--set",
               "hessian={edits: true}")
    check("a study of small edits", done.returncode == 0, done.stderr)
    if done.returncode == 0:
        with open(f"{folder}/bend/results.json", encoding="utf-8") as file:
            a, b = json.load(file)["units"]
        near("hessian_second_order", (a["hessian_second_order"] + b["hessian_second_order"]) / 2,
             (a["change"] + b["change"]) / 2, 0.1)


def tensors(name, group, alpha):
    """Statistics of the tensors."""
    columns = [c.decode() for c in group["tensor_stats_columns"]]
    stats = dict(zip(columns, np.array(group["tensor_stats"]).T))
    touched = stats["delta_norm"] > 0
    ratio = stats["edit_norm"][touched] / stats["delta_norm"][touched]
    check(f"{name}: not calibrated (test_significance has slopes)",
          np.isnan(stats["slope"]).all() and np.isnan(stats["slope_se"]).all())
    check(f"{name} rounding (test_rounding has it exactly)", np.nanmedian(np.abs(stats["rounding"])) < 0.02 and
          (np.isnan(stats["rounding"]) | touched).all(), stats["rounding"])
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
    """Corrected p values over the edits of one data set."""
    for column, p in (("p_adjusted", lambda u: u["p_change"]),
                      ("p_equivalent_adjusted", lambda u: max(u["p_equivalent"], u["p_accuracy"]))):
        most = 0.0
        for i, unit in enumerate(sorted(units, key=p)):
            most = max(most, min(1.0, p(unit) * (len(units) - i)))
            near(f"{unit['edit']} {column}", unit[column], most, 1e-9)


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
    down, up, student = crossed(x, x.shape[1] - 1)
    near("seeds crossed_low", float(row["crossed_low"]), x.mean() - down, 1e-6)
    near("seeds crossed_high", float(row["crossed_high"]), x.mean() + up, 1e-6)
    near("seeds crossed_df", quantile(0.975, float(row["crossed_df"])), student, 1e-5)
    check("two seeds are few", float(row["crossed_few"]) == 1, row)


def weights(folder, run):
    """Weights 1 and 0 are as without the samples of weight 0, over seeds too."""
    shutil.copy("share/demo/task.h5", f"{folder}/w.h5")
    with h5py.File(f"{folder}/w.h5", "r+") as h5:
        count = len(h5["offsets"]) - 1
        h5["weights"] = np.where(np.arange(count) < 10, 2.0, 0.0)
    done = run("--set", f"output.directory={folder}/w", "--set", "riemann={rule: midpoint, points: 1}", "--set",
               "statistics.interval=auto", "--set",
               "edits=[{name: dare, method: dare, p: 0.5, seeds: 3}]", "--set",
               f"data=[{{name: w, file: {folder}/w.h5, loss: lm, samples: 24}}, "
               "{name: t, file: share/demo/task.h5, loss: lm, samples: 10}, "
               "{name: more, file: share/demo/task.h5, loss: lm, samples: 64}]")
    check("a study with weights", done.returncode == 0, done.stderr)
    if done.returncode == 0:
        with open(f"{folder}/w/seeds.csv", encoding="utf-8") as file:
            weighted, alone, more = csv.DictReader(file)
        check("three seeds by their count", weighted["seeds"] == alone["seeds"] == "3")
        for column in ("change_mean", "crossed_low", "crossed_high", "crossed_df"):
            near(f"weights: {column}", float(weighted[column]), float(alone[column]), 1e-4)
        with open(f"{folder}/w/results.json", encoding="utf-8") as file:
            units = json.load(file)["units"]
        for row, data in ((weighted, "w"), (alone, "t"), (more, "more")):
            few = any(u["effective"] < u["change_enough"] for u in units if u["data"] == data)
            check(f"{data}: samples of three seeds are {'few' if few else 'enough'}", float(row["crossed_few"]) == few, row)
        skewed(f"{folder}/w")
    clustered(folder, run)


def clustered(folder, run):
    """Intervals by leaving out one cluster after the other, with their degrees of freedom in effect."""
    shutil.copy("share/demo/task.h5", f"{folder}/c.h5")
    numbers = np.repeat([7, -3, 2**40, 11, 5, 0], [5, 3, 6, 2, 4, 4])
    with h5py.File(f"{folder}/c.h5", "r+") as h5:
        count = len(h5["offsets"]) - 1
        h5["cluster"] = np.resize(numbers, count).astype(np.int64)
    done = run("--set", f"output.directory={folder}/c", "--set", "riemann={rule: midpoint, points: 1}", "--set",
               "edits=[{name: dare, method: dare, p: 0.5, seeds: 2}]", "--set",
               f"data=[{{name: c, file: {folder}/c.h5, loss: lm, samples: 24}}]")
    check("a study with clusters", done.returncode == 0 and "6 clusters" in done.stdout, done.stderr)
    if done.returncode != 0:
        return
    with open(f"{folder}/c/results.json", encoding="utf-8") as file:
        units = json.load(file)["units"]
    rows, sizes = [], np.array([(numbers == k).mean() for k in dict.fromkeys(numbers.tolist())])
    with h5py.File(f"{folder}/c/results.h5") as h5:
        for unit in units:
            group = h5[f"edits/{unit['edit']}/c"]
            own = np.array(group["sample_clusters"])
            check("clusters are numbered as they come", own.tolist() == np.repeat(np.arange(6), [5, 3, 6, 2, 4, 4]).tolist())
            near("clusters", unit["clusters"], 6)
            near("effective clusters", unit["effective"], 1 / (sizes**2).sum())
            for column, x in (("change", np.array(group["loss_edit"]) - np.array(group["loss_post"])),
                              ("gain", np.array(group["loss_pre"]) - np.array(group["loss_post"])),
                              ("estimate", np.array(group["sample_integrated"]))):
                left = np.array([x[own != k].mean() for k in range(6)])
                se = math.sqrt(5 / 6 * ((left - left.mean())**2).sum())
                half = quantile(0.975, 1 / (sizes**2).sum() - 1) * se
                near(f"clusters: {column}_low", unit[column + "_low"], x.mean() - half, 1e-4)
                if column == "change":
                    near("clusters: change_se", unit["change_se"], se, 1e-6)
                    rows.append(x.mean() + 5 * (left.mean() - left))
    x = np.array(rows)
    down, up, _ = crossed(x, 1 / (sizes**2).sum() - 1)
    with open(f"{folder}/c/seeds.csv", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    near("clusters: crossed_low", float(row["crossed_low"]), x.mean() - down, 1e-4)
    near("clusters: crossed_high", float(row["crossed_high"]), x.mean() + up, 1e-4)


def skewed(folder):
    """Intervals that are corrected for skewness; the reason says where samples are few for it."""
    found, lopsided = set(), False
    with open(f"{folder}/results.json", encoding="utf-8") as file, h5py.File(f"{folder}/results.h5") as h5:
        for unit in json.load(file)["units"]:
            name = f"{unit['edit']} on {unit['data']}"
            group = h5[f"edits/{unit['edit']}/{unit['data']}"]
            x = (np.array(group["loss_edit"]) - np.array(group["loss_post"]))[np.array(group["sample_shares"]) > 0]
            off = x - x.mean()
            skew = (off**3).mean() / (off**2).mean()**1.5
            few = len(x) < (32 if len(x) < 24 else 16) * skew**2
            found.add(few)
            check(f"{name}: skew {skew:.2f}, few: {few}", ("are few: equivalence" in unit["reason"]) == few, unit["reason"])
            if few:
                count = f"{unit['effective']:.4g} samples" + (" in effect" if unit["effective"] < unit["clusters"] - 1e-6 else "")
                check(f"{name}: of {count}", f"for which {count} are few" in unit["reason"], unit["reason"])
            near(f"{name}: change_skew", unit["change_skew"], skew, 1e-6)
            near(f"{name}: change_enough", unit["change_enough"], 28 + 25 * skew**2, 1e-6)
            marked = unit["effective"] < unit["change_enough"]
            check(f"{name}: {unit['effective']:.1f} of {unit['change_enough']:.0f} samples", ("is known to hold" in unit["reason"]) ==
                  (marked and not few), unit["reason"])
            down, up = reaches(x, len(x) - 1)
            se = x.std(ddof=1) / math.sqrt(len(x))
            near(f"{name}: change_low", unit["change_low"], x.mean() - down * se, 1e-4)
            near(f"{name}: change_high", unit["change_high"], x.mean() + up * se, 1e-4)
            excluded = unit["change_low"] > 0 or unit["change_high"] < 0
            check(f"{name}: p and interval agree", excluded == (unit["p_change"] < 0.05), unit)
            terms = np.array(group["sample_integrated"])[np.array(group["sample_shares"]) > 0]
            down, up = reaches(terms, len(terms) - 1)
            near(f"{name}: estimate_low", unit["estimate"] - unit["estimate_low"], down * unit["estimate_se"], 1e-4)
            near(f"{name}: estimate_high", unit["estimate_high"] - unit["estimate"], up * unit["estimate_se"], 1e-4)
            lopsided |= abs(down - up) > 0.1 * up
    check("an estimate's interval is lopsided", lopsided)
    check("both kinds are met", found == {True, False}, found)


def main():
    """Run the study at two ranks and look at every column."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        out = f"{folder}/o"
        with open(f"{folder}/job.yaml", "w", encoding="utf-8") as file:
            file.write(JOB % out)
        def run(*options):
            return studies.run(f"{folder}/job.yaml", 2, *options)
        done = run("--set", "proof={groups: layers, edits: [dare-seed1]}")
        check("the study", done.returncode == 0, done.stderr)
        weights(folder, run)
        bend(folder, run)
        if done.returncode == 0:
            with open(f"{out}/results.json", encoding="utf-8") as file:
                units = json.load(file)["units"]
            with h5py.File(f"{out}/results.h5") as h5:
                for unit in units:
                    group = h5[f"edits/{unit['edit']}/task"]
                    losses(unit["edit"], unit, group)
                    accuracy(unit["edit"], unit, group)
                    path(unit["edit"], unit, group)
                    law(unit["edit"], unit, group)
                    choices(unit["edit"], unit, group)
                    hessian(unit["edit"], unit, group)
                    groups_left_out(unit["edit"], unit, group, np.array(h5["tensors/layer"]))
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
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

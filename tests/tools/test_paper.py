#!/usr/bin/python3
"""The report of the paper's figures on studies with known answers: what holds, what fails, what stays
undecided, and the same bytes from the same results."""
import csv
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import types

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "paper"), str(ROOT / "tools")]
import claims
import outputs
import plot
import report
import results
import study as st

TESTS = []
SAMPLES = 40
RNG = np.random.default_rng(3)


def test(function):
    TESTS.append(function)
    return function


def unit(edit, change, data="task", term=None, start=None, method=None, **parameters):
    """A unit whose samples change by `change` in the mean, with a spread of a hundredth. `start` is the term at
    the post-trained weights; of no method it is its entry's name."""
    noise = RNG.standard_normal(SAMPLES)
    noise = 0.01 * (noise - noise.mean())
    term = change if term is None else term
    return {"edit": edit, "data": data, "method": method or edit.split("-")[0], "parameters": parameters, "loss": "lm", "change": change,
            "estimate": term, "margin": 0.1, "accuracy_edit": 0.5, "accuracy_post": 0.9,
            "accuracy_pre": 0.1, "loss_post": 1.0, "loss_pre": 3.0, "choose_change": np.nan, "accuracy_margin": 0.0,
            "_edit": 1.0 + change + noise, "_term": term + noise,
            "_start": 0.5 * term if start is None else start}


def seal(file):
    """A changed file as if deltapath had written it."""
    with open(file, "r+b") as opened:
        body = opened.read()
        opened.write(results.seal_of(body))


def write(folder, names, units):
    folder.mkdir(parents=True)
    job = "name: x\nedits:\n" + "".join(f"- name: {n}\n  method: dare\n" for n in names) + "riemann:\n"
    texts = lambda values: np.array([str(v).encode() for v in values])
    with h5py.File(folder / "results.h5", "w") as file:
        file.attrs.update({"format": b"deltapath-results", "version": results.VERSION, "job": job.encode(),
                           "provenance": json.dumps({"program": "deltapath"}).encode()})
        file["tensors/names"], file["tensors/numel"] = texts(["q", "norm"]), np.array([64, 8])
        file["tensors/layer"], file["tensors/module"] = np.array([0, -1]), texts(["q", "norm"])
        file["units"] = texts(f"edits/{u['edit']}/{u['data']}" for u in units)
        for u in units:
            group = file.create_group(f"edits/{u['edit']}/{u['data']}")
            group["loss_edit"] = u["_edit"]
            group["loss_post"] = np.ones(SAMPLES)
            group["sample_integrated"] = u["_term"]
            group["terms"] = np.array([[u["_start"], u["estimate"]]])
            group["integrated"] = np.array([u["estimate"], 0.0])
            group["tensor_stats_columns"] = texts(["delta_norm", "edit_norm", "scale", "correlation"])
            group["tensor_stats"] = np.array([[1.0, 0.5, 1.5, np.nan], [1.0, 0.5, 2.0, np.nan]])
            if u["parameters"]:
                group["parameter_names"], group["parameter_values"] = map(texts, zip(*u["parameters"].items()))
            group.attrs["points"] = 2
            group.attrs.update({k: v for k, v in u.items() if k[0] != "_" and k != "parameters"})
    seal(folder / "results.h5")


def dare_units(slope):
    return [unit(f"dare-k{k:g}-p{p:g}-seed{s}", slope * (1 - k) * p, k=float(k), p=float(p),
                 seed=float(s))
            for k in (-1, 0, 0.5, 0.8) for p in (0.1, 0.5, 0.9) for s in (1, 2)]


def make_all(folder):
    write(folder / "fig1-toy", ["dare"], dare_units(0.05))
    write(folder / "fig2-toy", ["dare"], dare_units(3.0))
    rates = (0.1, 0.5, 0.9)
    write(folder / "fig3-toy", ["dare", "drop", "ties", "bitdelta", "twin"],
          [unit(f"dare-p{p}", 0.01, p=p) for p in rates]
          + [unit(f"drop-p{p}", p, p=p) for p in rates]
          + [unit(f"ties-keep{p}", 1 - p, keep=p) for p in rates]
          + [unit("bitdelta", 0.4, term=-0.4), unit("twin", 0.3)])
    write(folder / "fig4-toy", ["bits"],
          [unit(f"bits-bits{b}", 0.5 / 4 ** b, bits=float(b)) for b in range(6)])
    write(folder / "fig5-toy", ["degenerate", "normal", "uniform"],
          [unit(f"{n}-multiple{m}", (m - 1) ** 2 + (0.3 if n == "uniform" else 0.0), multiple=m)
           for n in ("degenerate", "normal", "uniform") for m in (0.5, 0.8, 1.0, 1.2, 2.0)])
    write(folder / "fig6-toy", ["expo"],
          [unit(f"expo-alpha{a}", a * a - 0.5 * a, alpha=a) for a in (0.1, 0.25, 0.4, 0.6, 4.0)])
    write(folder / "fig7-toy", ["expo", "best", "layers"],
          [unit(f"expo-alpha{a}{on}", a * a + slope * a, data=data, alpha=a)
           for data, slope, on in (("task", 0.5, ""), ("text", -0.5, "-on-text")) for a in (-0.5, -0.2, 0.2, 0.5)]
          + [unit("best", -0.0625, alpha="auto", found_alpha=-0.25, advice="interpolate",
                  gradients=4.0),
             unit("layers", 0.3, alpha="auto", found_alpha=-0.25, advice="interpolate",
                  gradients=6.0)])
    write(folder / "table1-toy", ["random", "sign", "gradient"],
          [unit(f"random-k{k}-seed{s}", 0.01, k=k, seed=float(s)) for k in (0.5, 1.5) for s in (1, 2)]
          + [unit(f"sign-k{k}", 0.02, k=k) for k in (0.5, 1.5)]
          + [unit(f"gradient-k{k}", 2.0, k=k, start=1.0 - k) for k in (0.5, 1.5)])
    write(folder / "calibrated-toy", [name + how for name in ("bitdelta", "prune", "twin") for how in ("", "-term", "-significant")],
          [unit("bitdelta", 0.5), unit("bitdelta-term", 0.4), unit("bitdelta-significant", 0.4),
           unit("prune-keep0.3", 0.2, keep=0.3), unit("prune-term-keep0.3", 0.3, keep=0.3, term=0.1),
           unit("prune-significant-keep0.3", 0.1, keep=0.3), unit("twin-sparsity0.9", 0.5, sparsity=0.9),
           unit("twin-term-sparsity0.9", 0.4, sparsity=0.9), unit("twin-significant-sparsity0.9", 0.4, sparsity=0.9)])
    write(folder / "allocation-toy", ["dare", "prune"],
          [unit(f"dare-mean0.9-by{by}-seed{s}", change, mean=0.9, by=by, seed=float(s))
           for by, change in (("uniform", 0.3), ("group", 0.2), ("tensor", 0.1)) for s in (1, 2)]
          + [unit(f"prune-bytes0.1-by{by}", change, bytes=0.1, by=by)
             for by, change in (("uniform", 0.3), ("group", 0.0), ("tensor", 0.2))])


EXPECTED = {
    ("paper", "fig1", "DARE-k is competitive where"): "holds", ("ours", "fig1", "It is also"): "holds",
    ("paper", "fig2", "DARE-k is competitive at every"): "fails",
    ("ours", "fig2", "At p = 0.9"): "holds",
    ("paper", "fig3", "The approximation term of DARE"): "holds",
    ("paper", "fig3", "The terms of drop-only"): "holds", ("paper", "fig3", "The terms of BitDelta"): "fails",
    ("paper", "fig3", "Five left points"): "fails", ("paper", "fig3", "The size of DARE"): "holds",
    ("paper", "fig3", "DARE raises the true loss less"): "holds",
    ("paper", "fig3", "TIES raises the true loss less"): "fails",
    ("paper", "fig3", "At p = 0.9 TIES"): "holds",
    ("paper", "fig4", "Each more bit"): "undecided", ("paper", "fig4", "At 4 bits"): "holds",
    ("paper", "fig5", "m = 1 is nearly"): "holds", ("paper", "fig5", "Slight changes"): "holds",
    ("paper", "fig5", "Half and twice"): "holds", ("paper", "fig5", "Magnitudes drawn"): "fails",
    ("paper", "fig6", "The term of EXPO"): "holds", ("ours", "fig6", "Extrapolation up to"): "holds",
    ("ours", "fig7", "Some interpolation"): "holds", ("ours", "fig7", "The alpha that"): "holds",
    ("ours", "fig7", "One alpha a layer"): "fails", ("paper", "fig7", "The better direction"): "holds",
    ("paper", "table1", "Choosing entries by sign"): "holds",
    ("paper", "table1", "Choosing entries by the"): "holds", ("ours", "table1", "Against the paper"): "holds",
    ("ours", "calibrated", "Calibrated BitDelta"): "holds", ("ours", "calibrated", "Calibrated pruning"): "fails",
    ("ours", "calibrated", "Calibrated where"): "holds",
    ("ours", "allocation", "At the same size a value for each tensor has a lower loss than one for all"): "holds",
    ("ours", "allocation", "At the same size a value for each tensor has a lower loss than one for the best"): "fails"}


def run(folder, output):
    return subprocess.run(["/usr/bin/python3", ROOT / "tools/paper/report.py", folder, "-o", output],
                          capture_output=True, text=True, check=False)


@test
def quantiles_of_student(folder):
    for p, df, t in ((0.975, 1, 12.7062047364), (0.975, 4, 2.7764451052), (0.95, 10, 1.8124611228),
                     (0.9995, 7, 5.4078825206), (0.975, 120, 1.9799304051)):
        assert abs(st.t_quantile(p, df) - t) < 1e-6 * t, (p, df)
    mean, low, high = st.interval([0.5, 1.0, 1.0, 1.5]) # without skewness
    reach = 3.1824463053 * np.sqrt(0.5 / 3) / 2
    assert mean == 1.0 and abs(high - mean - reach) < 1e-6 and abs(mean - low - reach) < 1e-6


@test
def intervals_are_those_of_the_program(folder):
    """The crossed ones of tests/golden/crossed_golden.h; a single row is corrected likewise, longer towards the tail."""
    text = (ROOT / "tests/golden/crossed_golden.h").read_text(encoding="utf-8")
    values = {n: np.array([float(x) for x in v.split(",")])
              for n, v in re.findall(r"(golden_values_\d+)\[\] = \{([^}]*)\}", text)}
    cases = re.findall(r"\{(\d+), (\d+), (golden_values_\d+), ([^}]*)\}", text)
    for seeds, samples, name, numbers in cases:
        mean, _, _, below, above = (float(x) for x in numbers.split(","))
        got = st.interval(values[name].reshape(int(seeds), int(samples)))
        assert np.allclose(got, (mean, mean - below, mean + above), rtol=0, atol=1e-8), (name, got)
    assert len(cases) == 6
    rng = np.random.default_rng(9)
    x = rng.exponential(size=(4000, 24))
    ends = np.array([st.interval(row)[1:] for row in x])
    covered = ((ends[:, 0] <= 1) & (ends[:, 1] >= 1)).mean()
    assert 0.935 < covered < 0.965 and (ends[:, 1] - x.mean(1) > x.mean(1) - ends[:, 0]).mean() > 0.99, covered


@test
def every_question_has_three_answers(folder):
    for question, (holds, fails) in {"equivalent": (0.0, 1.0), "at most": (0.0, 1.0),
                                     "beyond": (1.0, 0.0), "positive": (0.5, -0.5),
                                     "negative": (-0.5, 0.5), "no larger": (-0.5, 0.5)}.items():
        spread = np.linspace(-0.01, 0.01, 20)
        for mean, wanted in ((holds, "holds"), (fails, "fails")):
            got = claims.answer(claims.Cell("x", mean + spread, question, 0.2)).verdict
            assert got == wanted, (question, mean, got)
        wide = claims.Cell("x", 0.1 + 100 * spread, question, 0.2)
        assert claims.answer(wide).verdict == "undecided", question


@test
def cells_hold_by_their_own_interval_and_fail_by_a_corrected_one(folder):
    """Student's t of 10 samples is 2.262 at 5 % and 3.690 at 0.5 %: means of 3 standard errors lie between."""
    x = np.linspace(-1.0, 1.0, 10)
    x /= np.std(x, ddof=1) / np.sqrt(10)
    for sign, question, one, ten in ((3, "positive", "holds", "holds"), (-3, "positive", "fails", "undecided"),
                                     (3, "beyond", "holds", "holds"), (-3, "beyond", "fails", "undecided")):
        cell = claims.Cell("x", sign + x, question, 0.0)
        assert claims.answer(cell, 1).verdict == one, (sign, question)
        assert claims.answer(cell, 10).verdict == ten, (sign, question)


@test
def an_interval_over_seeds_knows_of_the_seeds(folder):
    """Seeds and samples crossed: the variance of the mean is that of seeds over their number and that of samples
    over theirs, each with its own quantile, less a share of their product, but never less than one of them."""
    seeds, samples = np.array([-1.0, 0.0, 1.0]), np.linspace(-8.0, 8.0, 21)
    _, low, high = st.interval(0.3 + seeds[:, None] + samples[None, :])
    seed, sample = 1.0 / 3, np.var(samples, ddof=1) / 21 # the standard errors squared
    ends = 4.3026527297 * np.sqrt(seed), 2.0859634473 * np.sqrt(sample)
    expected = np.sqrt(ends[0] ** 2 + ends[1] ** 2 - 1.6 / 3 * ends[0] * ends[1])
    assert abs(high - 0.3 - expected) < 1e-6 and abs(0.3 - low - expected) < 1e-6, (low, high)
    assert np.allclose(st.interval(samples[None, :]), st.interval(samples))
    for few in (np.array([-0.05, 0.05]), np.array([-0.05, 0.0, 0.05])):
        assert np.allclose(st.interval(few[:, None] + samples[None, :]), st.interval(samples), rtol=1e-12, atol=1e-12)


@test
def the_best_of_several_is_judged_on_other_samples(folder):
    """Noise alone: the lowest of 40 edits of the even samples is no better on the odd ones."""
    noise = np.random.default_rng(7).standard_normal((40, 30))
    units = []
    for a, x in enumerate(noise):
        one = unit(f"expo-alpha{a + 1}", 0.0, alpha=float(a + 1))
        one["_edit"] = 1.0 + np.resize(x, SAMPLES)
        one["change"] = float(np.mean(one["_edit"])) - 1.0
        units.append(one)
    write(folder / "fig7-toy", ["expo"], units)
    study = st.Study(folder / "fig7-toy")
    best = claims.best_of(study.extrapolations("task"))
    evens = [float(np.mean(claims.even(st.change([u])))) for u in study.units]
    assert float(np.mean(claims.even(st.change([best])))) == min(evens)
    row = next(r for r in claims.rows_of(study) if r.claim.startswith("Some interpolation"))
    assert abs(row.answers[0].mean - float(np.mean(st.change([best])[1::2]))) < 1e-12, row
    for number, one in enumerate(study.units): # samples that only choose: all others judge what they take
        one.record["choose_change"] = float(number == 3) * -1.0
    best = claims.best_of(study.extrapolations("task"))
    assert best is study.units[3]
    row = next(r for r in claims.rows_of(study) if r.claim.startswith("Some interpolation"))
    assert abs(row.answers[0].mean - float(np.mean(st.change([best])))) < 1e-12, row


@test
def verdicts_of_known_studies(folder):
    make_all(folder / "in")
    result = run(folder / "in", folder / "report.html")
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader(open(folder / "claims.csv", encoding="utf-8")))
    for (source, figure, start), verdict in EXPECTED.items():
        found = {r["verdict"] for r in rows if r["source"] == source and r["figure"] == figure
                 and r["claim"].startswith(start)}
        assert found == {verdict}, (figure, start, found)
    sides = {r["pair"]: r["verdict"] for r in rows if r["claim"].startswith("The best interpolation beats")}
    assert sides == {"toy, task": "holds", "toy, text": "fails"}, sides


@test
def page_holds_every_figure_and_repeats(folder):
    make_all(folder / "in")
    assert run(folder / "in", folder / "a.html").returncode == 0
    assert run(folder / "in", folder / "b.html").returncode == 0
    page = (folder / "a.html").read_bytes()
    assert page == (folder / "b.html").read_bytes()
    for name in ("fig1", "fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "table1", "calibrated", "allocation"):
        assert f"<h2 id='{name}'>".encode() in page, name
    # The term at W_post fell from 0.1 to 0.05, the change rose from 0.2 to 0.3.
    assert b"prune-keep0.3, term: the term at W_post went from +0.1 to +0.05" in page
    assert b"beyond it from +0.1 to +0.25" in page and b"costs more in curvature" in page
    assert b"<td>DARE, mean 0.9</td><td>+0.3 / 50.0 %</td><td>+0.2 / 50.0 %</td><td>+0.1 / 50.0 %</td>" in page
    assert b"nan" not in page.lower().replace(b"nano", b"")
    assert shutil.which("gnuplot") is None or page.count(b"<svg") == 24, page.count(b"<svg")
    assert not list(folder.glob("*.partial"))


@test
def competitive_is_loss_and_accuracy(folder):
    def verdict(n, lost, change=0.0, seeds=1):
        samples = change + 0.01 * RNG.standard_normal((seeds, n))
        wrong = np.zeros((seeds, n))
        wrong[:, :lost] = 1.0
        return claims.answer(claims.Cell("x", samples, "competitive", 0.1, wrong, 0.02)).verdict
    # 0.98^148 is above 5 %: as many samples without a loss do not show that less than 2 % are lost.
    assert [verdict(148, 0), verdict(149, 0), verdict(149, 0, seeds=5)] == ["undecided", "holds", "holds"]
    assert [verdict(400, 1), verdict(400, 5), verdict(400, 40)] == ["holds", "undecided", "fails"]
    assert [verdict(400, 0, 0.2), verdict(400, 40, 0.2), verdict(400, 0, 0.0995)] == ["fails", "fails", "undecided"]


@test
def of_many_cells_few_fail_by_an_accuracy_that_falls_as_much_as_may_be(folder):
    """45 cells whose true fall is the margin: that any of them fails is an error in 5 % of all claims."""
    rng, verdicts = np.random.default_rng(11), []
    for _ in range(20):
        lost = (rng.random((45, 1, 300)) < 0.05).astype(float) - (rng.random((45, 1, 300)) < 0.03)
        cells = [claims.Cell("x", 0.01 * rng.standard_normal((1, 300)), "competitive", 1.0, x, 0.02) for x in lost]
        verdicts.append(claims.judge("fig1", claims.Claim("paper", "w", cells), "toy").verdict)
    assert verdicts.count("fails") <= 2, verdicts
    lost = np.zeros((1, 400))
    lost[:, :20] = 1.0  # 5 % and a standard error of 1.1 %: above 2 % by 2.7 of them
    cell = claims.Cell("x", 0.01 * rng.standard_normal((1, 400)), "competitive", 1.0, lost, 0.02)
    assert [claims.answer(cell, cells).verdict for cells in (1, 45)] == ["fails", "undecided"]
    lost[:, :40] = 1.0
    assert claims.answer(cell, 45).verdict == "fails"


@test
def where_a_value_for_each_tensor_does_not_win_the_report_says_why(folder):
    orders = {"predicted_first": (0.01, 0.02), "predicted_second": (0.05, 0.02)}
    def study(name, changes, known=True):
        units = [unit(f"prune-bytes0.1-by{by}", change, method="allocate", bytes=0.1, by=by)
                 for by, change in zip(("uniform", "tensor"), changes)]
        for i, u in enumerate(units if known else []):
            u.update({key: values[i] for key, values in orders.items()})
        write(folder / f"in/allocation-{name}", ["prune"], units)
        return next(claims.rows_of(st.Study(folder / f"in/allocation-{name}")))
    parts = "first order +0.01 to +0.02, second order +0.05 to +0.02, what lies beyond both "
    assert study("wins", (0.1, 0.08)).answers[0].why == ""
    fails = study("fails", (0.07, 0.1))
    assert fails.answers[0].why == parts + "+0.01 to +0.06 nats: what lies beyond both grew most", fails
    assert fails.outcome.count(fails.answers[0].why) == 1
    same = study("same", (0.1, 0.1))
    assert same.answers[0].why == "not told apart by 40 samples; " + parts + "+0.04 to +0.06 nats", same
    assert study("bare", (0.1, 0.1), False).answers[0].why == "not told apart by 40 samples"
    assert study("less", (0.1, 0.2), False).answers[0].why == ""
    seeds = claims.Cell("x", RNG.standard_normal((3, 20)), "positive", 1.0, why="")
    assert claims.answer(seeds).why == "not told apart by 20 samples and 3 seeds"
    assert run(folder / "in", folder / "r.html").returncode == 0
    cells = re.findall("<pre>(fails .*?|undecided .*?)</pre>", (folder / "r.html").read_text(), re.DOTALL)
    assert fails.answers[0].why in cells[1].splitlines()[1], cells


@test
def few_samples_are_marked(folder):
    def few(x):
        row = claims.judge("fig1", claims.Claim("paper", "w", [claims.Cell("x", np.array(x), "positive", 1.0)]), "toy")
        return row.answers[0].few, "seeds, few" in row.outcome
    even = np.tile([-1.0, 1.0], 14)
    assert few(even) == (False, False)
    assert few(even[:26]) == (True, True)
    rare = np.zeros(200) # one of them: skewness 14
    rare[3] = 1.0
    assert few(rare) == (True, True) and few(np.tile(rare, 30)) == (False, False)
    noise = np.stack([np.tile(even, 4), -np.tile(even, 4)] * 2) # the skewness is that of the means over seeds
    assert few(noise + np.linspace(0, 1, 112)) == (False, False)
    make_all(folder / "in")
    assert run(folder / "in", folder / "r.html").returncode == 0
    rows = list(csv.DictReader(open(folder / "claims.csv", encoding="utf-8")))
    assert {r["few"] for r in rows} <= {"0", "1"} and "1" in {r["few"] for r in rows}, {r["few"] for r in rows}
    assert "of few" in (folder / "r.html").read_text()


@test
def verdicts_of_one_seed_say_so(folder):
    """Random edits with one seed, whose intervals know the samples alone; those of several are crossed."""
    rates = (0.3, 0.9)
    write(folder / "fig3-toy", ["dare", "drop", "ties"],
          [unit(f"{name}-p{p}", p, p=p) for name in ("dare", "drop") for p in rates]
          + [unit(f"ties-keep{1 - p:.1f}", p, method="prune", keep=round(1 - p, 1)) for p in rates])
    write(folder / "fig5-toy", ["degenerate", "normal", "uniform"],
          [unit("degenerate-multiple1", 0.0, method="bitdelta", multiple=1.0)]
          + [unit(f"{name}-multiple1-seed{s}", 0.0, method="bitdelta", multiple=1.0, sample=name, seed=float(s))
             for name, seeds in (("normal", 1), ("uniform", 2)) for s in range(seeds)])
    allocated = [unit(f"dare-mean0.9-by{by}-seed{s}", 0.1, method="allocate", mean=0.9, by=by, seed=float(s))
                 for by, seeds in (("uniform", 2), ("group", 1), ("tensor", 2)) for s in range(seeds)]
    for u in allocated:
        u["parameters"]["edit"] = "dare"
    write(folder / "allocation-toy", ["dare"], allocated)
    write(folder / "fig1-toy", ["dare"], dare_units(0.05))
    wanted = {"fig3: The approximation term": ["of one mask"], "fig3: The terms of drop-only and": ["2 of one mask"],
              "fig3: The size of DARE's": ["of one mask"], "fig3: DARE raises": ["of one mask"],
              "fig3: TIES raises": ["of one mask"], "fig3: At p = 0.9 TIES": ["of one mask"],
              "fig3: Five left points": ["4 of one mask"], "fig5: Magnitudes drawn": ["1 of one draw"],
              "allocation: At the same size a value for each tensor has a lower loss than one for all": [],
              "allocation: At the same size a value for each tensor has a lower loss than one for the best": ["of one mask"],
              "fig1: DARE-k is competitive": [], "fig1: It is also": [], "fig1: At p = 0.9 the harm": []}
    rows = [row for name in ("fig3", "fig5", "allocation", "fig1") for row in claims.rows_of(st.Study(folder / f"{name}-toy"))]
    assert len(rows) == len(wanted)
    for row, (start, words) in zip(rows, wanted.items()):
        assert f"{row.figure}: {row.claim}".startswith(start), (row.claim, start)
        assert claims.of_one(row.answers) == words, (row.claim, row.answers)
        assert ("; " + "".join(words) + ", other seeds may differ" in row.outcome) == bool(words), row.outcome
    lines = report.markdown(rows).splitlines()[2:]
    assert lines[0].endswith("0/2, of one mask |") and lines[1].endswith("4/4, 2 of one mask |"), lines
    cells = csv.DictReader(report.claims_csv(rows[1:2]).splitlines())
    assert [cell["of_one"] for cell in cells] == ["mask", "mask", "", ""]


@test
def predictions_are_judged_by_their_proof(folder):
    def verdicts(ranks, slope, edits=9):
        study = types.SimpleNamespace(pair="toy", figure="predictions", proof=[
            {"data": "other", "all": {}, "as_drawn": {}},
            {"data": "task", "all": {"edits": 60, "rank_correlation": ranks},
             "as_drawn": {"edits": edits, "slope": slope}}])
        return [row.verdict for row in claims.predictions(study, "task")]
    assert verdicts([0.9, 0.8, 0.95], [1.1, 0.8, 1.3]) == ["holds", "holds"]
    assert verdicts([0.8, 0.6, 0.9], [1.5, 0.8, 2.3]) == ["undecided", "undecided"]
    assert verdicts([0.3, 0.1, 0.5], [1.5, 1.2, 1.9]) == ["fails", "fails"]
    assert verdicts([0.9, None, None], [1.0, 0.9, 1.1], 0) == ["undecided"]


@test
def two_seeds_are_few(folder):
    samples = np.linspace(-1.0, 1.0, 60)
    assert [st.is_few(np.array([samples] * seeds)) for seeds in (1, 2, 3)] == [False, True, False]


@test
def comparisons_of_few_are_marked(folder):
    number = lambda few: {"edits": 6, "groups": 50, "rank_correlation": [1, 1, 1], "slope": [1, 1, 1], "few": few}
    for few in (True, False, None):
        proof = {"data": "task", "all": number(few), "as_drawn": number(few), "left_out": number(few), "middle": number(few)}
        study = types.SimpleNamespace(pair="toy", figure="proof", proof=[proof], group_proof=[proof])
        rows = [*claims.predictions(study, "task"), *claims.group_terms(study, "task")]
        assert len(rows) == 5
        for row in rows:
            assert row.answers[0].few is bool(few) and ("few edits or groups carry it" in row.outcome) is bool(few), row
        marked = [line.split(",")[-4] for line in report.claims_csv(rows).splitlines()[1:]]
        assert marked == [str(int(bool(few)))] * 5, marked


@test
def samples_that_do_not_count_alike_are_refused_by_name(folder):
    for name, columns, wanted in (("plain", {"effective": float(SAMPLES), "clusters": float(SAMPLES)}, None),
                                  ("old", {}, None),
                                  ("weighted", {"effective": 20.4, "clusters": float(SAMPLES)}, "leave 20.4 of 40 samples"),
                                  ("clusters", {"effective": 10.0, "clusters": 10.0}, "leave 10 of 40 samples")):
        write(folder / f"fig1-{name}", ["dare"], [unit("dare-k0-p0.1", 0.0, k=0.0, p=0.1) | columns])
        try:
            st.Study(folder / f"fig1-{name}")
            assert wanted is None, name
        except st.Unreadable as error:
            assert wanted and wanted in str(error) and f"fig1-{name}" in str(error) and "task" in str(error), error


@test
def terms_of_groups_are_judged_by_their_proof(folder):
    def verdicts(last, middle, slope):
        number = lambda ranks, slope=None: {"edits": 6, "groups": 50, "rank_correlation": ranks, "slope": slope}
        study = types.SimpleNamespace(pair="toy", figure="proof", group_proof=[
            {"data": "other"}, {"data": "task", "left_out": number(last), "middle": number(middle, slope)}])
        rows = list(claims.group_terms(study, "task"))
        assert all("50 groups of 6 edits" in row.claim for row in rows), rows
        return [row.verdict for row in rows]
    assert verdicts([0.8, 0.75, 0.9], [0.9, 0.8, 1.0], [1.0, 0.9, 1.2]) == ["holds", "holds", "holds"]
    assert verdicts([0.3, 0.1, 0.6], [0.8, 0.6, 0.9], [0.5, 0.3, 0.9]) == ["fails", "undecided", "fails"]
    assert verdicts([0.8, None, None], [0.8, None, None], [1.0, 0.4, 1.2]) == ["undecided"] * 3


@test
def predicted_and_true_changes_share_a_scale(folder):
    drawn, plot.render = plot.render, lambda script: script
    try:
        script = plot.scatter("t", "predicted", "true", [{"name": "a", "points": [(0.1, 0.2), (-3.0, math.nan), (0.0, 4.0)]}])
        assert plot.scatter("t", "predicted", "true", [{"name": "a", "points": []}]) == ""
    finally:
        plot.render = drawn
    axes = [line.replace("xtics", "ytics").replace("xrange", "yrange") for line in script.splitlines()
            if re.match("set [xy](tics \\(|range)", line)]
    assert axes[:2] == axes[2:] and len(axes) == 4, axes
    block = script.split("$d0 << EOD\n")[1].split("\nEOD")[0].splitlines()
    points = [[float(v) for v in line.split()] for line in block]
    assert len(points) == 2 and points[0][0] < points[0][1] < points[1][1] and points[1][0] == 0.0, points


@test
def the_table_names_each_claim_once(folder):
    make_all(folder / "in")
    result = subprocess.run(["/usr/bin/python3", ROOT / "tools/paper/report.py", folder / "in", "--table"],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0 and result.stderr == "", result
    lines = result.stdout.splitlines()
    assert all(line.replace("\\|", "").count("|") == 5 for line in lines), lines
    claim = [line for line in lines if "The best interpolation beats" in line]
    assert claim == ["| paper | Figures 7 and 13 | The best interpolation beats the best extrapolation (on most tasks) | "
                     "toy, task: **holds**; toy, text: **fails** |"], claim
    dare = [line for line in lines if "DARE-k is competitive at every" in line]
    assert len(dare) == 1 and re.search(r"toy, task: \*\*fails\*\* [0-9]+/12 \|$", dare[0]), dare
    assert not (folder / "claims.csv").exists()


def all_claims(folder):
    """{figure: (whose, claim) of all that claims.py has of it, on a study that has the edits of each}."""
    make_all(folder)
    found = {study.figure: {(row.source, row.claim) for row in claims.rows_of(study)} for study in map(st.Study, folder.iterdir())}
    number = {"edits": 6, "groups": 50, "rank_correlation": [1, 1, 1], "slope": [1, 1, 1]}
    proof = {"data": "task", "all": number, "as_drawn": number, "left_out": number, "middle": number}
    of = lambda figure: types.SimpleNamespace(pair="toy", figure=figure, proof=[proof], group_proof=[proof])
    drawn = types.SimpleNamespace(edit="dare", correlations=lambda: [("q", 0.0, claims.LARGE)])
    for figure, rows in (("predictions", claims.predictions(of("predictions"), "task")),
                         ("proof", claims.group_terms(of("proof"), "task")),
                         *((name, claims.independence(of(name), "task", [drawn])) for name in ("fig1", "fig2"))):
        found.setdefault(figure, set()).update((row.source, row.claim) for row in rows)
    assert found.keys() == claims.CLAIMS.keys()
    return found


@test
def the_documents_have_each_claim_of_their_studies_in_its_words(folder):
    numbers = lambda words: re.sub("[0-9]+ (edits|groups)", "N \\1", words)
    known = all_claims(folder / "in")
    for script, document in (("paper.sh", "paper.md"), ("paper-real.sh", "paper-real.md")):
        studies = re.search(r"^studies=\(([^)]*)\)", (ROOT / "tools" / script).read_text(), re.M)[1].split()
        text = (ROOT / "doc" / document).read_text()
        wanted = {(whose, report.FIGURE_NAMES[figure], numbers(claim)) for figure in {name.partition("-")[0] for name in studies}
                  for whose, claim in known[figure]}
        rows = [tuple(numbers(cell.strip().replace("\\|", "|")) for cell in re.split(r"(?<!\\)\|", line)[1:4])
                for line in text.splitlines() if line.startswith(("| paper |", "| ours |"))]
        assert set(rows) == wanted and len(rows) == len(wanted), (document, set(rows) ^ wanted)
        assert re.findall("its ([0-9]+) studies", text) == [str(len(studies))], document


@test
def a_folder_without_studies_is_an_error(folder):
    result = run(folder, folder / "report.html")
    assert result.returncode == 3 and "tools/paper.sh" in result.stderr
    assert "<figure>-<pair>" in result.stderr and "fig4-qwen2-7b" in result.stderr
    assert not (folder / "report.html").exists()


def bits_units():
    return [unit(f"bits-bits{b}", 0.5 / 4 ** b, bits=float(b)) for b in range(6)]


@test
def a_pair_may_hold_hyphens_and_what_is_left_out_is_said(folder):
    write(folder / "in/fig4-qwen2-7b", ["bits"], bits_units())
    write(folder / "in/fig44-toy", ["bits"], bits_units())
    write(folder / "in/mine", ["bits"], bits_units())
    (folder / "in/fig5-toy").mkdir()
    (folder / "in/fig5-toy/results.json").write_text("{}")
    (folder / "in/notes").mkdir()
    result = run(folder / "in", folder / "new/folder/report.html")
    assert result.returncode == 0, result.stderr
    assert "qwen2-7b, task" in (folder / "new/folder/claims.csv").read_text()
    lines = result.stderr.splitlines()
    assert len(lines) == 3 and "notes" not in result.stderr, lines
    assert "fig44-toy: left out" in lines[0] and "<figure>-<pair>" in lines[0]
    assert "fig5-toy: left out: has no results.h5" in lines[1] and "mine: left out" in lines[2]


@test
def a_copy_and_a_study_of_another_figure_are_left_out(folder):
    write(folder / "in/fig4-one", ["bits"], bits_units())
    shutil.copytree(folder / "in/fig4-one", folder / "in/fig4-two")
    write(folder / "in/fig1-other", ["bits"], bits_units())
    with h5py.File(folder / "in/fig1-other/results.h5", "r+") as file:
        file.attrs["name"] = "fig4-other"
    seal(folder / "in/fig1-other/results.h5")
    result = run(folder / "in", folder / "r.html")
    lines = result.stderr.splitlines()
    assert result.returncode == 0 and len(lines) == 2, result
    assert "fig1-other: left out: its job is fig4-other, not fig1" in lines[0], lines
    assert "fig4-two: left out: it is a copy of " in lines[1] and "fig4-one" in lines[1], lines
    with open(folder / "claims.csv", encoding="utf-8") as file:
        assert {row["pair"] for row in csv.DictReader(file)} == {"one, task"}


@test
def a_broken_study_is_one_line_and_the_others_are_reported(folder):
    for name in ("good", "text", "bare", "other", "gone"):
        write(folder / f"in/fig4-{name}", ["bits"], bits_units())
    for name, body in (("text", b"x" * 1000), ("bare", b"")):
        file = folder / f"in/fig4-{name}/results.h5"
        file.write_bytes(body)
        if body:
            seal(file)
    for name in ("other", "gone"):
        with h5py.File(folder / f"in/fig4-{name}/results.h5", "a") as file:
            if name == "other":
                file.attrs["version"] = results.VERSION + 1
            else:
                del file["edits/bits-bits3/task/loss_edit"]
        seal(folder / f"in/fig4-{name}/results.h5")
    result = run(folder / "in", folder / "report.html")
    assert result.returncode == 3 and "Traceback" not in result.stderr, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 4, lines
    for name, words in (("text", "cannot be read"), ("bare", "cut off"), ("other", f"{results.VERSION} are known"),
                        ("gone", "cannot be read")):
        assert sum(f"fig4-{name}/results.h5: " in line and words in line for line in lines) == 1, (name, lines)
    rows = list(csv.DictReader(open(folder / "claims.csv", encoding="utf-8")))
    assert {r["pair"] for r in rows} == {"good, task"}


@test
def older_results_are_read_like_new_ones(folder):
    tables = []
    write(folder / "as-written/fig4-toy", ["bits"], bits_units())
    for version in (results.VERSION, *results.OLDER, min(results.OLDER) - 1):
        file = shutil.copytree(folder / "as-written", folder / str(version)) / "fig4-toy/results.h5"
        with h5py.File(file, "r+") as opened:
            opened.attrs["version"] = version
        seal(file)
        result = run(folder / str(version), folder / f"{version}.html")
        tables.append((folder / "claims.csv").read_text() if result.returncode == 0 else result.stderr)
    assert results.OLDER and tables[0] == tables[1] and len(tables[0].splitlines()) > 5, tables
    assert f"{results.VERSION} are known" in tables[-1], tables[-1]


@test
def results_that_changed_since_are_refused(folder):
    """A study of the program itself: what the report reads is under its checksum, the rest of the folder is not read."""
    program = ROOT / os.environ.get("DELTAPATH_BUILD", "build/release") / "deltapath"
    demo, study = "share/demo", folder / "in/fig4-vit"
    subprocess.run([program, "run", "jobs/paper/fig4.yaml", "--set", "edits.0.bits=[1, 4]", "--set",
                    f"data=[{{name: digits, file: {demo}/digits.h5, loss: class, samples: 9}}]", "--set",
                    f"models={{pre: {demo}/vit-pre, post: {demo}/vit-post}}", "--set", f"output.directory={study}"],
                   check=True, capture_output=True, cwd=ROOT)
    written = json.loads((study / "manifest.json").read_text())["files"]
    for name in ("results.h5", "results.json"):
        assert results.xxh128_hexdigest((study / name).read_bytes()) == written[name]["xxh128"], name
    for unit, record in zip(results.Results(study).units, json.loads((study / "results.json").read_text())["units"],
                            strict=True):
        assert unit.parameters == record["parameters"] and unit["change"] == record["change"], record["edit"]
        for part in ("layer", "module"):
            sums = [(str(r[part]), r["integrated"]) for r in record[f"by_{part}"]]
            assert [p for p, _ in sums] == list(unit.by_part(part))
            assert np.allclose([s for _, s in sums], list(unit.by_part(part).values()), rtol=1e-12, atol=1e-15)
    assert run(folder / "in", folder / "a.html").returncode == 0
    other = folder / "predictions-vit"  # what reads results.json too
    shutil.copytree(study, other)
    assert list(claims.rows_of(st.Study(other))) == []
    for name, old, new in (("results.json", b"bits-bits4", b"bits-bits5"), ("manifest.json", b"summary", b"Summary")):
        kept = (other / name).read_bytes()
        (other / name).write_bytes(kept.replace(old, new))
        try:
            assert not list(claims.rows_of(st.Study(other))), name
            raise AssertionError(f"{name} is taken")
        except st.Unreadable as error:
            assert str(error).startswith(f"{other / name}: "), error
        (other / name).write_bytes(kept)
    (study / "results.json").write_text("{}")
    assert run(folder / "in", folder / "b.html").returncode == 0
    assert (folder / "a.html").read_bytes() == (folder / "b.html").read_bytes()
    whole = (study / "results.h5").read_bytes()
    with h5py.File(study / "results.h5", "a") as file:  # HDF5 drops the seal
        file["edits/bits-bits4/digits/loss_edit"][...] += 3.0
    changed = (study / "results.h5").read_bytes()
    middle = len(whole) // 2
    for name, body in (("changed", changed), ("with the old seal", changed[:len(whole) - 80] + whole[-80:]),
                       ("a bit", whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1:]),
                       ("cut", whole[:-1000]), ("none", b"")):
        (study / "results.h5").write_bytes(body)
        result = run(folder / "in", folder / "c.html")
        lines = result.stderr.splitlines()
        assert result.returncode == 3 and not (folder / "c.html").exists(), name
        assert "results.h5: its checksum does not match" in lines[0] and "copy it again" in lines[0], lines
        assert "no finished study" in lines[1] and len(lines) == 2, lines
    rule = subprocess.run([sys.executable, "-c", f"import sys, runpy; sys.path[:0] = ['tools']; import rule_error as r; "
                           f"r.show('x', {str(study)!r}, 1)"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "Unreadable" in rule.stderr and "its checksum does not match" in rule.stderr, rule


@test
def the_page_and_its_table_have_two_names(folder):
    write(folder / "in/fig4-toy", ["bits"], bits_units())
    for name in ("claims.csv", "x/../claims.csv"):
        result = run(folder / "in", folder / name)
        assert result.returncode == 2 and "is the name of the table" in result.stderr, result
        assert len(result.stderr.splitlines()) == 1 and not (folder / "claims.csv").exists(), result


@test
def an_output_that_cannot_be_written_is_one_line(folder):
    write(folder / "in/fig4-toy", ["bits"], bits_units())
    (folder / "file").write_text("")
    result = run(folder / "in", folder / "file/report.html")
    assert result.returncode == 4 and "cannot be written" in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


@test
def any_part_of_a_job_makes_a_report(folder):
    make_all(folder)
    drawn, plot.render = plot.render, lambda script: "<svg>"
    try:
        for path in sorted(folder.iterdir()):
            whole = st.Study(path)
            keeps = [{u.edit} for u in whole.units] + [{u.edit for u in whole.units} - {v.edit}
                                                       for v in whole.units]
            keeps += [{u.edit for u in whole.units if u.name != name} for name in whole.names]
            keeps += [{u.edit for u in whole.units if u.name == name} for name in whole.names]
            for keep in keeps:
                part = st.Study(path)
                part.units = [u for u in part.units if u.edit in keep]
                part.data = list(dict.fromkeys(u.data for u in part.units))
                for row in claims.rows_of(part):
                    assert row.answers, (path.name, keep, row.claim)
                report.study_section(part)
            part.units = [u for u in whole.units if (u.get("alpha") or 0) == "auto"
                          or (u.get("alpha") or 1) > 0]
            report.study_section(part)
    finally:
        plot.render = drawn


@test
def without_a_gain_nothing_is_equivalent(folder):
    units = bits_units()
    for u in units:
        u["margin"] = np.nan
    units[4]["_edit"] = np.ones(SAMPLES)
    write(folder / "fig4-toy", ["bits"], units)
    rows = {row.claim: row for row in claims.rows_of(st.Study(folder / "fig4-toy"))}
    row = rows["At 4 bits the edited model is at least as good as the post-trained one"]
    assert row.verdict == "undecided" and claims.NO_MARGIN in row.rule, row
    assert row.outcome.startswith("no margin: no measurable post-training gain; 4 bits"), row.outcome
    row = rows["Each more bit of magnitude lowers the loss"]
    assert "margin" not in row.rule + row.outcome, row
    worse = claims.Cell("x", np.linspace(0.9, 1.1, 20), "no larger", float("nan"))
    assert claims.judge("f", claims.Claim(claims.OURS, "c", [worse]), "p").verdict == "undecided"


@test
def counts_are_said_in_words(folder):
    assert claims.tally(["holds"]) == ""
    assert claims.tally(["holds", "fails", "holds", "undecided"]) == (
        "of 4 cells 2 hold, 1 fails, 1 is undecided; ")
    write(folder / "in/fig4-toy", ["bits"], bits_units())
    result = run(folder / "in", folder / "report.html")
    assert "2 claims: 1 holds, 0 fail, 1 is undecided" in result.stdout, result.stdout
    page = (folder / "report.html").read_text()
    assert "1 study, 2 claims" in page and "a fifth of it" in page


@test
def an_asinh_axis_reaches_beyond_the_data(folder):
    for values in ([0.001, 9.0], [-0.3, 0.002, 700.0], [-5.0, -0.01], [2.0, 1e-4], [-1e-6, 1.0, 3.3]):
        tics, limits = plot.asinh_axis(1e-3, values).strip().split("\n")
        shown = [float(t.split('"')[1]) for t in tics.split("(", 1)[1].split(",")]
        places = [float(t.split()[-1].rstrip(")")) for t in tics.split(",")]
        low, high = map(float, limits.split("[")[1].rstrip("]").split(":"))
        assert shown == sorted(set(shown)) and 0.0 in shown, shown
        assert min(np.diff(places)) > 0.05 * (high - low), places
        if max(values) > 0:
            assert max(values) <= max(shown) <= 5 * max(values), (values, shown)
        if min(values) <= -1e-2:
            assert 5 * min(values) <= min(shown) <= min(values), (values, shown)
        assert low < np.arcsinh(min(*values, 0) / 1e-3) and high > np.arcsinh(max(*values, 0) / 1e-3)


@test
def ranges_are_drawn_below_lines_with_points(folder):
    drawn, plot.render = plot.render, lambda script: script
    try:
        script = plot.lines("t", "bits", "accuracy [%]", [
            {"name": "a", "points": [(0.0, 50.0, 40.0, 60.0), (5.0, 90.0, 90.0, 90.0)]}], [("l", 95.0)])
    finally:
        plot.render = drawn
    assert "errorbars" not in script and "pointinterval" not in script
    assert script.index("with vectors nohead") < script.index("with linespoints")
    assert "0 40 20" in script and "set xrange [-0.2:5.2]" in script, script


@test
def only_its_own_unchanged_files_are_replaced(folder):
    page, table = folder / "r.html", folder / "claims.csv"
    make_all(folder)
    for _ in range(2):
        assert run(folder, page).returncode == 0
    kept = page.read_bytes(), table.read_bytes()
    study = next(folder.glob("fig1-*"))
    (folder / "notes.html").write_text("mine")
    (folder / "link.html").symlink_to(study / "results.h5")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for output in (folder / "notes.html", folder / "link.html", study / "results.h5", study / "new.html"):
        result = run(folder, output)
        assert result.returncode == 4 and str(output.parent) in result.stderr, result
        assert len(result.stderr.splitlines()) == 1, result
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before, output
    for file, content in zip((page, table), kept):
        file.write_bytes(content.replace(b"fig1", b"FIG1", 1))
        changed = page.read_bytes(), table.read_bytes()
        result = run(folder, page)
        assert result.returncode == 4 and f"{file}: is not as this tool wrote it" in result.stderr, result
        assert (page.read_bytes(), table.read_bytes()) == changed
        file.write_bytes(content)
    assert run(folder, page).returncode == 0 and (page.read_bytes(), table.read_bytes()) == kept


@test
def no_page_below_a_model_or_among_the_files_of_a_study(folder):
    write(folder / "in/fig4-toy", ["bits"], bits_units())
    (folder / "model/notes").mkdir(parents=True)
    (folder / "in/fig4-toy/units").mkdir()
    for name in ("model.safetensors", "config.json"):
        (folder / "model" / name).write_text("mine")
    (folder / "link").symlink_to("model/notes")
    (folder / "to-units").symlink_to("in/fig4-toy/units")
    before = sorted(folder.rglob("*"))
    for place in ("model/r.html", "model/notes/r.html", "link/new/r.html", "to-units/r.html", "to-units/a/r.html"):
        result = run(folder / "in", folder / place)
        lines = result.stderr.splitlines()
        assert result.returncode == 4 and len(lines) == 1, result
        assert lines[0].startswith(f"report.py: {folder / place}: lies "), lines
        assert sorted(folder.rglob("*")) == before, place


@test
def the_corpus_tool_says_what_it_does_and_replaces_nothing(folder):
    tool = [sys.executable, ROOT / "tools/demo/make_corpus.py"]
    result = subprocess.run([*tool, "--help"], capture_output=True, text=True, check=False, cwd=folder)
    assert result.returncode == 0 and result.stderr == "", result
    assert "OUT_DIRECTORY" in result.stdout and "held.txt" in result.stdout
    result = subprocess.run(tool, capture_output=True, text=True, check=False, cwd=folder)
    assert result.returncode == 2 and "OUT_DIRECTORY" in result.stderr.splitlines()[-1], result
    (folder / "held.txt").write_text("mine")
    result = subprocess.run([*tool, folder], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stderr.splitlines() == [
        f"{folder}/held.txt: exists already: move it away or give another folder"], result
    assert [p.name for p in folder.iterdir()] == ["held.txt"]


def git(folder, *words):
    subprocess.run(["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=b", *words], check=True,
                   capture_output=True)


@test
def files_without_a_seal_are_replaced_where_git_has_them(folder):
    def write(data):
        try:
            outputs.write(file, data)
        except outputs.Refused:
            return False
        return True
    file = folder / "figures.json"
    assert write(b"one") and write(b"one") and not write(b"two")
    git(folder, "init", "-q")
    git(folder, "add", "figures.json")
    assert not write(b"two")
    git(folder, "commit", "-qm", "one")
    assert write(b"two") and file.read_bytes() == b"two"
    assert not write(b"three") and file.read_bytes() == b"two"
    git(folder, "commit", "-qam", "two")
    for mark in "--assume-unchanged", "--skip-worktree":
        file.write_bytes(b"mine")
        git(folder, "update-index", mark, "figures.json")
        assert not write(b"three") and file.read_bytes() == b"mine", mark
        git(folder, "update-index", mark.replace("--", "--no-"), "figures.json")
    file.write_bytes(b"two")
    assert write(b"three") and file.read_bytes() == b"three"


@test
def a_pattern_without_a_study_is_an_error(folder):
    result = subprocess.run([ROOT / "tools/paper.sh", "true", "2", "fig4", "nonsense"],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stdout == "", result
    assert "nonsense" in result.stderr and "fig4-llama" in result.stderr


def main():
    failed = 0
    for number, function in enumerate(TESTS, 1):
        with tempfile.TemporaryDirectory() as folder:
            try:
                function(pathlib.Path(folder))
                print(f"ok {number} - {function.__name__}")
            except Exception as error:  # a test may fail in any way
                failed += 1
                print(f"not ok {number} - {function.__name__}: {type(error).__name__} {error}")
    print(f"1..{len(TESTS)}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())

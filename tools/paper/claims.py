"""What the paper's claims predict on a study, and the rule that decides whether they hold.

A claim is a list of cells. A cell has the samples of a quantity, and a question about its mean. Each is
answered from Student's paired interval at 5 % divided by the number of cells of the claim
(Bonferroni), and by the number of edits among which the best was picked, so that chance does not break
one of many cells. The margin is the one of the study: 5 %
of the post-training gain, which is how far a change may go and still count as none.
"""
import math
from collections import namedtuple

import numpy as np

import study as st

Cell = namedtuple("Cell", "label samples question margin")
Answer = namedtuple("Answer", "label mean low high verdict")
Row = namedtuple("Row", "figure claim rule pair verdict outcome answers")

LARGE = 1024  # entries of a tensor whose correlation is judged

QUESTIONS = {
    "equivalent": "holds when the interval lies within the margin, fails when it lies outside",
    "at most": "holds when the interval ends below the margin, fails when it starts above it",
    "beyond": "holds when the interval starts above the margin, fails when it ends below it",
    "positive": "holds when the interval lies above zero, fails when it lies below",
    "negative": "holds when the interval lies below zero, fails when it lies above",
    "no larger": "holds when the interval ends below the margin, fails when it starts above zero",
}


def answer(cell, error):
    mean, low, high = st.interval(cell.samples, error)
    m = cell.margin
    holds, fails = {
        "equivalent": (low > -m and high < m, low > m or high < -m),
        "at most": (high < m, low > m),
        "beyond": (low > m, high < m),
        "positive": (low > 0, high < 0),
        "negative": (high < 0, low > 0),
        "no larger": (high < m and low <= 0, low > 0),
    }[cell.question]
    verdict = "holds" if holds else "fails" if fails else "undecided"
    return Answer(cell.label, mean, low, high, verdict)


def judge(figure, claim, pair, cells, picked=1):
    """`picked` edits were compared to choose those of the cells."""
    answers = [answer(cell, 0.05 / (len(cells) * picked)) for cell in cells]
    verdicts = [a.verdict for a in answers]
    whole = ("fails" if "fails" in verdicts else
             "holds" if all(v == "holds" for v in verdicts) else "undecided")
    worst = next((a for a in answers if a.verdict == whole), answers[0])
    if whole == "fails":
        worst = max((a for a in answers if a.verdict == "fails"), key=lambda a: abs(a.mean))
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("holds", "fails", "undecided")
                       if v in verdicts)
    outcome = (f"{counts} of {len(cells)}; {worst.label}: {worst.mean:+.3g} "
               f"[{worst.low:+.3g}, {worst.high:+.3g}] nats")
    kinds = dict.fromkeys(cell.question for cell in cells)
    rule = "; ".join(QUESTIONS[kind] for kind in kinds)
    margin = cells[0].margin
    if any("margin" in QUESTIONS[kind] for kind in kinds):
        rule += f" (margin {margin:.3g} nats)"
    return Row(figure, claim, rule, pair, whole, outcome, answers)


def margin_of(study, data):
    """5 % of the gain; a gain that is not clear leaves no margin, and equivalence is undecided."""
    unit = next(u for u in study.units if u.data == data)
    margin = unit["margin"]
    return margin if math.isfinite(margin) else 0.0


def accuracy(units):
    """Of the edited model, over seeds, for the label of a cell."""
    return f"accuracy {100 * sum(u['accuracy_edit'] for u in units) / len(units):.1f} %"


def dare(study, data):
    margin = margin_of(study, data)
    by, exact = {}, {}
    for k in study.values("dare", "k"):
        for p in study.values("dare", "p"):
            units = study.find(data, "dare", k=k, p=p)
            if units:
                by[k, p], exact[k, p] = st.change(units), accuracy(units)
    cell = lambda k, p: Cell(f"k {k:g}, p {p:g}, {exact[k, p]}", by[k, p], "equivalent",
                             margin)
    yield ("DARE-k is competitive at drop rates up to one half, for every k",
           [cell(k, p) for k, p in by if p <= 0.5])
    yield ("DARE-k with k of 0, 0.5 and 0.8 stays competitive up to p = 0.9",
           [cell(k, p) for k, p in by if p > 0.5 and k >= 0])
    ks = sorted({k for k, _ in by if k <= 1})
    yield ("At p = 0.9 the harm falls as k nears 1, as |E| = |k - 1| |M - p| / (1 - p) |Delta| says",
           [Cell(f"k {a:g} less k {b:g}", by[a, 0.9] - by[b, 0.9], "positive", margin)
            for a, b in zip(ks, ks[1:])])
    # The mask does not depend on k.
    yield from independence(study, data, study.find(data, "dare", k=0.0))


def terms(study, data):
    margin = margin_of(study, data)
    of = lambda u: u.array("sample_integrated")
    label = lambda u: u.edit
    kinds = {name: [u for u in study.units if u.data == data and u.name == name]
             for name in ("dare", "drop", "ties", "bitdelta", "twin")}
    yield ("The approximation term of DARE is near zero at every p",
           [Cell(label(u), of(u), "equivalent", margin) for u in kinds["dare"]])
    yield ("The terms of drop-only and TIES are above zero",
           [Cell(label(u), of(u), "positive", margin) for u in kinds["drop"] + kinds["ties"]])
    yield ("The terms of BitDelta and Twin-Merging are above zero",
           [Cell(label(u), of(u), "positive", margin) for u in kinds["bitdelta"] + kinds["twin"]])
    pairs = list(zip(kinds["dare"], kinds["drop"]))
    yield ("The size of DARE's term is below that of drop-only at the same p, in the mean of the samples",
           [Cell(f"p {a.get('p'):g}", of(b) * np.sign(np.mean(of(b)))
                 - of(a) * np.sign(np.mean(of(a))), "positive", margin) for a, b in pairs])
    yield from quadrature(study, data)


def independence(study, data, units):
    """Mask and product of gradient and delta, over the entries of each tensor: Eq. 5 takes them as
    independent. A correlation r of n entries has a spread of 1 / sqrt(n) when they are; its law is
    normal only for many entries, because few products hold most of their sum."""
    found = [(u.edit, *row) for u in units for row in u.correlations() if row[2] >= LARGE]
    if not found:
        return
    reach = st.normal_quantile(1.0 - 0.025 / len(found))
    answers = []
    for edit, tensor, r, n in found:
        spread = reach / math.sqrt(n)
        answers.append(Answer(f"{edit}, {tensor}", r, r - spread, r + spread,
                              "holds" if abs(r) < spread else "fails"))
    worst = max(answers, key=lambda a: abs(a.mean) / (a.high - a.mean))
    fails = sum(a.verdict == "fails" for a in answers)
    yield Row(study.figure, "Mask and product of gradient and delta are uncorrelated in every tensor "
              f"of {LARGE} entries or more (assumed by Eq. 5)", "fails when the interval of a correlation leaves out zero",
              f"{study.pair}, {data}", "fails" if fails else "holds",
              f"{len(answers) - fails} of {len(answers)} correlations hold zero; farthest out: "
              f"{worst.label}: {worst.mean:+.3g} [{worst.low:+.3g}, {worst.high:+.3g}]",
              [a for a in answers if a.verdict == "fails" or a is worst])


def quadrature(study, data):
    margin = margin_of(study, data)
    units = [u for u in study.units if u.data == data]
    yield ("Five left points give the true change of the loss (Eq. 1)",
           [Cell(u.edit, u.array("sample_integrated") - u.array("loss_edit") + u.array("loss_post"),
                 "equivalent", margin) for u in units])


def bits(study, data):
    margin = margin_of(study, data)
    by = {b: st.change(study.find(data, "bits", bits=b)) for b in study.values("bits", "bits")}
    steps = sorted(by)
    yield ("Each more bit of magnitude lowers the loss",
           [Cell(f"{a:g} less {b:g} bits", by[a] - by[b], "positive", margin)
            for a, b in zip(steps, steps[1:])])
    yield ("At 4 bits the edited model is at least as good as the post-trained one",
           [Cell("4 bits, " + accuracy(study.find(data, "bits", bits=4.0)), by[4.0], "at most",
                 margin)])


def multiples(study, data):
    margin = margin_of(study, data)
    by = {(name, m): st.change(study.find(data, name, multiple=m))
          for name in ("degenerate", "normal", "uniform")
          for m in study.values(name, "multiple")}
    yield ("BitDelta is steep around m = 1: half and twice its magnitude are worse",
           [Cell(f"m {m:g} less m 1", by["degenerate", m] - by["degenerate", 1.0], "positive",
                 margin) for m in (0.5, 2.0)])
    yield ("Magnitudes drawn from a normal or a uniform law are on a par with BitDelta",
           [Cell(f"{name}, m 1", by[name, 1.0] - by["degenerate", 1.0], "equivalent", margin)
            for name in ("normal", "uniform")])


def trough(units, margin):
    """Cells of a term that falls below zero and rises again, over rising alphas."""
    terms_of = [u.array("sample_integrated") for u in units]
    low = min(range(len(units)), key=lambda i: float(np.mean(terms_of[i])))
    best = Cell(f"lowest, at alpha {units[low].get('alpha'):g}", terms_of[low], "negative", margin)
    # Up to the last alpha, against the lowest before it: below zero the term still falls there.
    before = min(range(len(units) - 1), key=lambda i: float(np.mean(terms_of[i])))
    rise = Cell(f"alpha {units[-1].get('alpha'):g} less alpha {units[before].get('alpha'):g}",
                terms_of[-1] - terms_of[before], "positive", margin)
    return [best, rise]


def alphas(study, data):
    margin = margin_of(study, data)
    units = sorted(study.find(data, "expo"), key=lambda u: u.get("alpha"))
    near = [u for u in units if u.get("alpha") < 0.65]
    count = len(units)
    # The lowest of many is picked: as many comparisons.
    yield ("The term of EXPO under the DPO loss falls below zero and rises again by alpha = 0.6",
           trough(near, margin), len(near))
    if count > len(near):
        yield (f"It does so in a wider range, up to alpha = {units[-1].get('alpha'):g}",
               trough(units, margin), count)
    lowest = min(near, key=lambda u: u["change"])
    yield ("Extrapolation up to alpha = 0.6 lowers the true DPO loss",
           [Cell(f"alpha {lowest.get('alpha'):g}, {accuracy([lowest])}", st.change([lowest]),
                 "negative", margin)], len(near))
    yield from quadrature(study, data)


def directions(study, data):
    margin = margin_of(study, data)
    units = [u for u in study.find(data, "expo")]
    best = min(units, key=lambda u: u["change"])
    yield ("Some interpolation or extrapolation beats the post-trained model on this task",
           [Cell(f"alpha {best.get('alpha'):g}, {accuracy([best])}", st.change([best]), "negative", margin)],
           len(units))
    for name, words in (("best", "The alpha that few gradients find is as good as the grid's best"),
                        ("layers", "One alpha a layer is no worse than one for the model")):
        found = [u for u in study.units if u.data == data and u.name == name
                 and (u.edit == name or u.edit == f"{name}-on-{data}")]
        if not found:
            continue
        other = best if name == "best" else next(
            u for u in study.units if u.data == data and u.edit in ("best", f"best-on-{data}"))
        yield (words, [Cell(f"alpha {found[0].get('found_alpha')}, advice {found[0].get('advice')}",
                            st.change(found) - st.change([other]), "no larger", 0.2 * margin)])


def biases(study, data):
    margin = margin_of(study, data)
    random = {k: st.change(study.find(data, "random", k=k)) for k in study.values("random", "k")}
    for name, words, question in (
            ("sign", "Choosing entries by sign is on a par with choosing them at random",
             "equivalent"),
            ("gradient", "Choosing entries by the gradient product collapses", "beyond")):
        cells = [Cell(f"k {k:g} less random, {accuracy(study.find(data, name, k=k))}", st.change(study.find(data, name, k=k)) - random[k],
                      question, margin)
                 for k in study.values(name, "k") if k in random]
        if cells:
            yield words, cells


CALIBRATIONS = {"term": "Calibrated {} changes the loss no more than the plain one",
                "significant": "Calibrated where the gradient is beyond chance, {} changes the loss "
                               "no more than the plain one"}


def calibrated_forms(study, data):
    """(method in words, plain unit, {how: calibrated unit}) for each edit of the job."""
    for name, words, parameter in (("bitdelta", "BitDelta", None), ("prune", "pruning", "keep"),
                                   ("twin", "low rank", "sparsity")):
        for plain in [u for u in study.units if u.data == data and u.name == name]:
            where = {parameter: plain.get(parameter)} if parameter else {}
            found = {how: study.find(data, f"{name}-{how}", **where) for how in CALIBRATIONS}
            yield words, plain, {how: units[0] for how, units in found.items() if units}


def calibrations(study, data):
    margin = 0.2 * margin_of(study, data)
    forms = list(calibrated_forms(study, data))
    for how, claim in CALIBRATIONS.items():
        for method in dict.fromkeys(words for words, _, _ in forms):
            cells = [Cell(plain.edit, st.change([by[how]]) - st.change([plain]), "no larger", margin)
                     for words, plain, by in forms if words == method and how in by]
            if cells:
                yield claim.format(method), cells


CLAIMS = {"fig1": dare, "fig2": dare, "fig3": terms, "fig4": bits, "fig5": multiples,
          "fig6": alphas, "fig7": directions, "table1": biases, "calibrated": calibrations}


def rows_of(study):
    """Every claim of a study, on each of its data sets."""
    maker = CLAIMS.get(study.figure)
    for data in study.data if maker else []:
        for item in maker(study, data):
            if isinstance(item, Row):
                yield item
                continue
            claim, cells, *picked = item
            if cells:
                yield judge(study.figure, claim, f"{study.pair}, {data}", cells,
                            picked[0] if picked else 1)

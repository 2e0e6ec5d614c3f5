"""What the paper's claims predict on a study, and the rule that decides whether they hold.

A claim is a list of cells. A cell has the samples of a quantity, and a question about its mean. Each is
answered from Student's paired interval at 5 % divided by the number of cells of the claim
(Bonferroni), and by the number of edits among which the best was picked, so that chance does not break
one of many cells. The margin is the one of the study: 5 %
of the post-training gain, which is how far a change may go and still count as none; for searches of
alpha and calibration, where small differences matter, a fifth of that.
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
    if needs_margin(cell.question) and not math.isfinite(m):
        verdict = "undecided"
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
    outcome = (f"{tally(verdicts)}{worst.label}: {worst.mean:+.3g} "
               f"[{worst.low:+.3g}, {worst.high:+.3g}] nats")
    kinds = dict.fromkeys(cell.question for cell in cells)
    rule = "; ".join(QUESTIONS[kind] for kind in kinds)
    if any(needs_margin(kind) for kind in kinds):
        margin = cells[0].margin
        clear = math.isfinite(margin)
        rule += f" (margin {margin:.3g} nats)" if clear else f" ({NO_MARGIN})"
        outcome = outcome if clear else f"{NO_MARGIN}; {outcome}"
    return Row(figure, claim, rule, pair, whole, outcome, answers)


NO_MARGIN = "no margin: no measurable post-training gain"


def needs_margin(question):
    return "margin" in QUESTIONS[question]


def tally(verdicts):
    """How many cells came out how, before the one that is named; nothing for a single cell."""
    if len(verdicts) == 1:
        return ""
    one, many = {"holds": "holds", "fails": "fails", "undecided": "is undecided"}, {
        "holds": "hold", "fails": "fail", "undecided": "are undecided"}
    counts = [(verdicts.count(v), v) for v in one if v in verdicts]
    text = ", ".join(f"{n} {one[v] if n == 1 else many[v]}" for n, v in counts)
    return f"of {len(verdicts)} cells {text}; "


def margin_of(study, data):
    """5 % of the gain; a gain that is not clear leaves no margin (nan), and equivalence is undecided."""
    return next(u for u in study.units if u.data == data)["margin"]


def with_terms(units):
    return [u for u in units if u.has("sample_integrated")]


def changes(study, data, name, parameter):
    """Per-sample change for each value of a parameter that the job has on this data."""
    found = {v: study.find(data, name, **{parameter: v}) for v in study.values(name, parameter)}
    return {value: st.change(units) for value, units in found.items() if units}


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
            for a, b in zip(ks, ks[1:]) if (a, 0.9) in by and (b, 0.9) in by])
    # The mask does not depend on k.
    yield from independence(study, data, study.find(data, "dare", k=0.0))


def terms(study, data):
    margin = margin_of(study, data)
    of = lambda u: u.array("sample_integrated")
    label = lambda u: u.edit
    kinds = {name: with_terms(u for u in study.units if u.data == data and u.name == name)
             for name in ("dare", "drop", "ties", "bitdelta", "twin")}
    yield ("The approximation term of DARE is near zero at every p",
           [Cell(label(u), of(u), "equivalent", margin) for u in kinds["dare"]])
    yield ("The terms of drop-only and TIES are above zero",
           [Cell(label(u), of(u), "positive", margin) for u in kinds["drop"] + kinds["ties"]])
    yield ("The terms of BitDelta and Twin-Merging are above zero",
           [Cell(label(u), of(u), "positive", margin) for u in kinds["bitdelta"] + kinds["twin"]])
    pairs = [(a, b) for a in kinds["dare"] for b in kinds["drop"]
             if all(a.get(key) == b.get(key) for key in ("p", "seed"))]
    yield ("The size of DARE's term is below that of drop-only at the same p, in the mean of the samples",
           [Cell(f"p {a.get('p'):g}", of(b) * np.sign(np.mean(of(b)))
                 - of(a) * np.sign(np.mean(of(a))), "positive", margin) for a, b in pairs])
    yield from quadrature(study, data)


def independence(study, data, units):
    """Mask and product of gradient and delta, over the entries of each tensor: Eq. 5 takes them as
    independent. A correlation r of n entries has a spread of 1 / sqrt(n) when they are; its distribution is
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
    units = with_terms(u for u in study.units if u.data == data)
    yield ("Five left points give the true change of the loss (Eq. 1)",
           [Cell(u.edit, u.array("sample_integrated") - u.array("loss_edit") + u.array("loss_post"),
                 "equivalent", margin) for u in units])


def bits(study, data):
    margin = margin_of(study, data)
    by = changes(study, data, "bits", "bits")
    steps = sorted(by)
    yield ("Each more bit of magnitude lowers the loss",
           [Cell(f"{a:g} less {b:g} bits", by[a] - by[b], "positive", margin)
            for a, b in zip(steps, steps[1:])])
    if 4.0 in by:
        yield ("At 4 bits the edited model is at least as good as the post-trained one",
               [Cell("4 bits, " + accuracy(study.find(data, "bits", bits=4.0)), by[4.0], "at most",
                     margin)])


def multiples(study, data):
    margin = margin_of(study, data)
    by = {(name, m): samples for name in ("degenerate", "normal", "uniform")
          for m, samples in changes(study, data, name, "multiple").items()}
    if ("degenerate", 1.0) not in by:
        return
    yield ("BitDelta is steep around m = 1: half and twice its magnitude are worse",
           [Cell(f"m {m:g} less m 1", by["degenerate", m] - by["degenerate", 1.0], "positive",
                 margin) for m in (0.5, 2.0) if ("degenerate", m) in by])
    yield ("Magnitudes drawn from a normal or a uniform distribution are on a par with BitDelta",
           [Cell(f"{name}, m 1", by[name, 1.0] - by["degenerate", 1.0], "equivalent", margin)
            for name in ("normal", "uniform") if (name, 1.0) in by])


def minimum(units, margin):
    """Cells of a term that falls below zero and rises again, over rising alphas; none for fewer than two."""
    if len(units) < 2:
        return []
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
    units = study.extrapolations(data)
    near = [u for u in units if u.get("alpha") < 0.65]
    # The lowest of many is picked: as many comparisons.
    yield ("The term of EXPO under the DPO loss falls below zero and rises again by alpha = 0.6",
           minimum(with_terms(near), margin), len(near))
    if len(units) > len(near):
        yield (f"It does so in a wider range, up to alpha = {units[-1].get('alpha'):g}",
               minimum(with_terms(units), margin), len(units))
    if near:
        lowest = min(near, key=lambda u: u["change"])
        yield ("Extrapolation up to alpha = 0.6 lowers the true DPO loss",
               [Cell(f"alpha {lowest.get('alpha'):g}, {accuracy([lowest])}", st.change([lowest]),
                     "negative", margin)], len(near))
    yield from quadrature(study, data)


def directions(study, data):
    margin = margin_of(study, data)
    units = study.extrapolations(data)
    best = min(units, key=lambda u: u["change"], default=None)
    if best:
        yield ("Some interpolation or extrapolation beats the post-trained model on this task",
               [Cell(f"alpha {best.get('alpha'):g}, {accuracy([best])}", st.change([best]), "negative",
                     margin)], len(units))
    searched = {name: next((u for u in study.units if u.data == data and u.name == name
                            and u.edit in (name, f"{name}-on-{data}")), None)
                for name in ("best", "layers")}
    for name, other, words in (
            ("best", best, "The alpha that few gradients find is as good as the grid's best"),
            ("layers", searched["best"], "One alpha a layer is no worse than one for the model")):
        unit = searched[name]
        if unit and other:
            yield (words, [Cell(f"alpha {alpha_text(unit)}, {unit.get('advice')} by the slope",
                                st.change([unit]) - st.change([other]), "no larger", 0.2 * margin)])


def alpha_text(unit):
    """The alpha that a search found."""
    alpha = unit.get("found_alpha")
    return f"{alpha:.3g}" if isinstance(alpha, (int, float)) else str(alpha)


def biases(study, data):
    margin = margin_of(study, data)
    random = changes(study, data, "random", "k")
    for name, words, question in (
            ("sign", "Choosing entries by sign is on a par with choosing them at random",
             "equivalent"),
            ("gradient", "Choosing entries by the gradient product collapses", "beyond")):
        cells = [Cell(f"k {k:g} less random, {accuracy(study.find(data, name, k=k))}",
                      samples - random[k], question, margin)
                 for k, samples in changes(study, data, name, "k").items() if k in random]
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

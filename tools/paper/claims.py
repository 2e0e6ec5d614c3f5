"""What the paper's claims predict on a study, what ours do, and the rule that decides whether they hold.

A claim is a list of cells. A cell has the samples of a quantity, of one edit or of the seeds of one, and a
question about its mean over seeds and samples. An interval at 5 % answers it: the program's, corrected for
skewness, over the samples, or with several seeds the crossed interval over seeds and samples. That all cells hold needs no
correction, for each has to; that any of them fails does: a cell fails by the interval at 5 % divided by the
number of cells, of the loss or of the accuracy. A cell of a random edit that the study has with one seed has an
interval over the samples alone and is of one mask (or of one draw of magnitudes), of which other seeds may differ: row and
cell say so. What is picked as the best of several is picked on the samples that only choose, where the study has
such, and judged on the others; else it is picked on the even samples and judged on the odd ones. The margin is the one of
the study, how far a change may go and still count as none; for searches of alpha and calibration, where small differences matter, a fifth of it. Competitive is an edit whose loss is
equivalent within that margin and whose accuracy falls by less than the study's margin of accuracy: that it does its
one-sided interval at 5 % says, which is never taken to be narrower than what as many samples show of which none was lost.
"""
import math
from collections import namedtuple

import numpy as np

import study as st

Cell = namedtuple("Cell", "label samples question margin lost accuracy_margin once why", defaults=(None, 0.0, "", None))
Answer = namedtuple("Answer", "label mean low high verdict few once why", defaults=(False, "", ""))
Claim = namedtuple("Claim", "source words cells")
Row = namedtuple("Row", "source figure claim rule pair verdict outcome answers")

PAPER, OURS = "paper", "ours"
SOURCES = {PAPER: "Claims of the paper", OURS: "Claims of this project"}

LARGE = 1024  # entries of a tensor whose correlation is judged

QUESTIONS = {
    "competitive": "holds when the interval lies within the margin and that of the accuracy's fall below its own, fails "
                   "when either lies outside",
    "equivalent": "holds when the interval lies within the margin, fails when it lies outside",
    "at most": "holds when the interval ends below the margin, fails when it starts above it",
    "beyond": "holds when the interval starts above the margin, fails when it ends below it",
    "positive": "holds when the interval lies above zero, fails when it lies below",
    "negative": "holds when the interval lies below zero, fails when it lies above",
    "no larger": "holds when the interval ends below the margin, fails when it starts above zero",
}


def answer(cell, cells=1):
    """The answer of one of so many cells."""
    mean, low, high = st.interval(cell.samples)
    _, wide_low, wide_high = st.interval(cell.samples, 0.05 / cells)
    m = cell.margin
    holds, fails = {
        "competitive": (low > -m and high < m, wide_low > m or wide_high < -m),
        "equivalent": (low > -m and high < m, wide_low > m or wide_high < -m),
        "at most": (high < m, wide_low > m),
        "beyond": (low > m, wide_high < m),
        "positive": (low > 0, wide_high < 0),
        "negative": (high < 0, wide_low > 0),
        "no larger": (high < m and low <= 0, wide_low > 0),
    }[cell.question]
    if cell.lost is not None:
        least, most = fall(cell.lost, cells)
        holds, fails = holds and most < cell.accuracy_margin, fails or least > cell.accuracy_margin
    verdict = "holds" if holds else "fails" if fails else "undecided"
    if needs_margin(cell.question) and not math.isfinite(m):
        verdict = "undecided"
    why = "" if cell.why is None or verdict == "holds" else reason(cell, low, high)
    return Answer(cell.label, mean, low, high, verdict, st.is_few(cell.samples), cell.once, why)


def reason(cell, low, high):
    """Why a cell that is asked for it does not hold."""
    seeds, samples = np.atleast_2d(cell.samples).shape
    apart = f"not told apart by {samples} samples" + (f" and {seeds} seeds" if seeds > 1 else "")
    return "; ".join(text for text in (apart if low <= 0.0 <= high else "", cell.why) if text)


def fall(lost, cells=1):
    """What a fall of the accuracy is at least, for a verdict of one of so many cells, and at most, one-sided at 5 %: of
    (seeds, samples) that are 1 where the edited model alone is wrong and -1 where the other is."""
    mean, _, high = st.interval(lost, 0.1, skewed=False) # a share of few hits has a bound of its own
    _, least, _ = st.interval(lost, 0.05 / cells, skewed=False) # 2.5 % here and 2.5 % of the loss are the 5 % of a cell
    return least, max(high, mean + 1.0 - 0.05 ** (1.0 / lost.shape[-1]))


def judge(figure, claim, pair):
    """The row of a claim on a pair of models and data."""
    cells = claim.cells
    answers = [answer(cell, len(cells)) for cell in cells]
    verdicts = [a.verdict for a in answers]
    whole = ("fails" if "fails" in verdicts else
             "holds" if all(v == "holds" for v in verdicts) else "undecided")
    worst = next((a for a in answers if a.verdict == whole), answers[0])
    if whole == "fails":
        worst = max((a for a in answers if a.verdict == "fails"), key=lambda a: abs(a.mean))
    outcome = (f"{tally(verdicts)}{worst.label}: {worst.mean:+.3g} "
               f"[{worst.low:+.3g}, {worst.high:+.3g}] nats")
    outcome += f"; {worst.why}" if worst.why else ""
    few = sum(a.few for a in answers)
    if few:
        outcome += f"; samples, or seeds, few: {few} of {len(answers)}"
    outcome += "".join(f"; {words}, other seeds may differ" for words in of_one(answers))
    kinds = dict.fromkeys(cell.question for cell in cells)
    rule = "; ".join(QUESTIONS[kind] for kind in kinds)
    if any(needs_margin(kind) for kind in kinds):
        margin = cells[0].margin
        clear = math.isfinite(margin)
        rule += f" (margin {margin:.3g} nats)" if clear else f" ({NO_MARGIN})"
        outcome = outcome if clear else f"{NO_MARGIN}; {outcome}"
    return Row(claim.source, figure, claim.words, rule, pair, whole, outcome, answers)


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


def once(*edits):
    """What a cell of such edits, each the units of its seeds, is one of: "mask" or "draw", or "" of what seeds do not touch."""
    return next((units[0].drawn for units in edits if len(units) == 1 and units[0].drawn), "")


def of_one(answers):
    """How many of the answers are of one mask and of one draw, in words; nothing of none."""
    counts = {what: sum(a.once == what for a in answers) for what in ("mask", "draw")}
    return [("" if n == len(answers) else f"{n} ") + f"of one {what}" for what, n in counts.items() if n]


def margin_of(study, data):
    """5 % of the gain; a gain that is not clear leaves no margin (nan), and equivalence is undecided."""
    return next(u for u in study.units if u.data == data)["margin"]


def with_terms(units):
    return [u for u in units if u.has("sample_integrated")]


def changes(study, data, name, parameter):
    """Changes of seeds and samples for each value of a parameter that the job has on this data."""
    found = {v: study.find(data, name, **{parameter: v}) for v in study.values(name, parameter)}
    return {value: st.changes(units) for value, units in found.items() if units}


def accuracy(units):
    """Of the edited model, over seeds, for the label of a cell."""
    return f"accuracy {100 * sum(u['accuracy_edit'] for u in units) / len(units):.1f} %"


def even(samples):
    """Those on which the best of several is picked; the last axis are the samples."""
    return np.asarray(samples)[..., ::2]


def odd(samples):
    """Those on which what was picked is judged."""
    return np.asarray(samples)[..., 1::2]


def competitive(units, label):
    """A cell of an edit that is to be competitive."""
    lost, margin = None, units[0]["accuracy_margin"]
    if margin > 0.0:  # else the study leaves the accuracy out
        lost = np.array([u.array("correct_post").astype(float) - u.array("correct_edit") for u in units])
    return Cell(f"{label}, {accuracy(units)}", st.changes(units), "competitive", units[0]["margin"], lost, margin,
                once(units))


def dare(study, data):
    cells = {}
    for k in study.values("dare", "k"):
        for p in study.values("dare", "p"):
            units = study.find(data, "dare", k=k, p=p)
            if units:
                cells[k, p] = competitive(units, f"k {k:g}, p {p:g}")
    if study.figure == "fig2":
        yield Claim(PAPER, "DARE-k is competitive at every drop rate and k", list(cells.values()))
    else:
        yield Claim(PAPER, "DARE-k is competitive where |k| and |k p| are small, up to one half",
                    [c for (k, p), c in cells.items() if abs(k) <= 0.5 and abs(k * p) <= 0.5])
        yield Claim(OURS, "It is also where they are not",
                    [c for (k, p), c in cells.items() if abs(k) > 0.5 or abs(k * p) > 0.5])
    ks = sorted({k for k, _ in cells if k <= 1})
    yield Claim(OURS, "At p = 0.9 the harm falls as k nears 1, as s = (k - 1)^2 p / (1 - p) does",
                [Cell(f"k {a:g} less k {b:g}", cells[a, 0.9].samples - cells[b, 0.9].samples, "positive",
                      math.nan, once=cells[a, 0.9].once or cells[b, 0.9].once) for a, b in zip(ks, ks[1:]) if (a, 0.9) in cells and (b, 0.9) in cells])
    # The mask does not depend on k.
    yield from independence(study, data, study.find(data, "dare", k=0.0))


SMALL_RATES = (0.1, 0.2, 0.3)


def terms(study, data):
    margin = margin_of(study, data)
    of = lambda u: u.array("sample_integrated")
    label = lambda u: u.edit
    kinds = {name: with_terms(u for u in study.units if u.data == data and u.name == name)
             for name in ("dare", "drop", "ties", "bitdelta", "twin")}
    yield Claim(PAPER, "The approximation term of DARE is near zero at every p",
                [Cell(label(u), of(u), "equivalent", margin, once=once([u])) for u in kinds["dare"]])
    yield Claim(PAPER, "The terms of drop-only and TIES are above zero",
                [Cell(label(u), of(u), "positive", margin, once=once([u])) for u in kinds["drop"] + kinds["ties"]])
    yield Claim(PAPER, "The terms of BitDelta and Twin-Merging are above zero",
                [Cell(label(u), of(u), "positive", margin) for u in kinds["bitdelta"] + kinds["twin"]])
    rate = lambda u: u.get("p") if u.get("p") is not None else 1.0 - u.get("keep")
    pairs = lambda name, rates: [
        (a, b) for a in kinds["dare"] for b in kinds[name]
        if st.close(rate(a), rate(b)) and (not rates or any(st.close(rate(a), r) for r in rates))]
    yield Claim(PAPER, "The size of DARE's term is below that of drop-only at the same p, in the mean of the "
                "samples",
                [Cell(f"p {rate(a):g}", of(b) * np.sign(np.mean(of(b))) - of(a) * np.sign(np.mean(of(a))),
                      "positive", margin, once=once([a], [b])) for a, b in pairs("drop", ())])
    less = lambda first, second, name, rates: [
        Cell(f"p {rate(a):g}: {first} less {second}",
             (st.changes([b]) - st.changes([a])) * (1 if first == name else -1), "positive", margin, once=once([a], [b]))
        for a, b in pairs({"drop-only": "drop", "TIES": "ties"}[name], rates)]
    yield Claim(PAPER, "DARE raises the true loss less than drop-only at the same p",
                less("drop-only", "DARE", "drop-only", ()))
    yield Claim(PAPER, "TIES raises the true loss less than DARE at small rates, up to p = 0.3",
                less("DARE", "TIES", "TIES", SMALL_RATES))
    yield Claim(PAPER, "At p = 0.9 TIES raises it more than DARE", less("TIES", "DARE", "TIES", (0.9,)))
    yield from quadrature(study, data)


def independence(study, data, units):
    """Mask and product of gradient and delta, over the entries of each tensor: Eq. 5 takes them as
    independent. At W_post the gradient knows nothing of the mask, so this tests the random generator alone. A correlation r of n entries has a spread of 1 / sqrt(n) when they are; its distribution is
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
    yield Row(OURS, study.figure, "The random generator: at the post-trained weights mask and product of gradient "
              f"and delta are uncorrelated in every tensor of {LARGE} entries or more", "fails when the interval of a correlation leaves out zero",
              f"{study.pair}, {data}", "fails" if fails else "holds",
              f"{len(answers) - fails} of {len(answers)} correlations hold zero; farthest out: "
              f"{worst.label}: {worst.mean:+.3g} [{worst.low:+.3g}, {worst.high:+.3g}]",
              [a for a in answers if a.verdict == "fails" or a is worst])


def quadrature(study, data):
    margin = margin_of(study, data)
    units = with_terms(u for u in study.units if u.data == data)
    yield Claim(PAPER, "Five left points give the true change of the loss (Eq. 1)",
                [Cell(u.edit, u.array("sample_integrated") - u.array("loss_edit") + u.array("loss_post"),
                      "equivalent", margin, once=once([u])) for u in units])


def bits(study, data):
    margin = margin_of(study, data)
    by = changes(study, data, "bits", "bits")
    steps = sorted(by)
    yield Claim(PAPER, "Each more bit of magnitude lowers the loss",
                [Cell(f"{a:g} less {b:g} bits", by[a] - by[b], "positive", margin)
                 for a, b in zip(steps, steps[1:])])
    if 4.0 in by:
        yield Claim(PAPER, "At 4 bits the edited model is at least as good as the post-trained one",
                    [Cell("4 bits, " + accuracy(study.find(data, "bits", bits=4.0)), by[4.0], "at most",
                          margin)])


def multiples(study, data):
    margin = margin_of(study, data)
    by = {(name, m): samples for name in ("degenerate", "normal", "uniform")
          for m, samples in changes(study, data, name, "multiple").items()}
    if ("degenerate", 1.0) not in by:
        return
    one = by["degenerate", 1.0]
    others = {m: x for (name, m), x in by.items() if name == "degenerate" and m != 1.0}
    if others:
        best = min(others, key=lambda m: float(np.mean(even(others[m]))))
        yield Claim(PAPER, "m = 1 is nearly optimal: no other m has a loss that is lower by more than the margin",
                    [Cell(f"m 1 less m {best:g}, the best other", odd(one - others[best]), "at most", margin)])
    for words, ms in (("Slight changes of m, 0.8 and 1.2, degrade", (0.8, 1.2)),
                      ("Half and twice the magnitude degrade", (0.5, 2.0))):
        yield Claim(PAPER, words, [Cell(f"m {m:g} less m 1", others[m] - one, "positive", margin)
                                   for m in ms if m in others])
    yield Claim(PAPER, "Magnitudes drawn from a normal or a uniform distribution are on a par with BitDelta",
                [Cell(f"{name}, m 1", by[name, 1.0] - one, "equivalent", margin,
                      once=once(study.find(data, name, multiple=1.0)))
                 for name in ("normal", "uniform") if (name, 1.0) in by])


def minimum(units, margin):
    """Cells of a term that falls below zero and rises again, over rising alphas; none for fewer than two. Where
    it is lowest is picked on the even samples."""
    if len(units) < 2:
        return []
    terms_of = [u.array("sample_integrated") for u in units]
    first = [float(np.mean(even(x))) for x in terms_of]
    low = min(range(len(units)), key=lambda i: first[i])
    best = Cell(f"lowest, at alpha {units[low].get('alpha'):g}", odd(terms_of[low]), "negative", margin)
    # Up to the last alpha, against the lowest before it: below zero the term still falls there.
    before = min(range(len(units) - 1), key=lambda i: first[i])
    rise = Cell(f"alpha {units[-1].get('alpha'):g} less alpha {units[before].get('alpha'):g}",
                odd(terms_of[-1] - terms_of[before]), "positive", margin)
    return [best, rise]


def alphas(study, data):
    units = study.extrapolations(data)
    margin = margin_of(study, data)
    near = [u for u in units if u.get("alpha") < 0.65]
    yield Claim(PAPER, "The term of EXPO under the DPO loss falls below zero and rises again by alpha = 0.6",
                minimum(with_terms(near), margin))
    if len(units) > len(near):
        yield Claim(OURS, f"It does so in a wider range, up to alpha = {units[-1].get('alpha'):g}",
                    minimum(with_terms(units), margin))
    if near:
        lowest = best_of(near)
        yield Claim(OURS, "Extrapolation up to alpha = 0.6 lowers the true DPO loss",
                    [Cell(f"alpha {lowest.get('alpha'):g}, {accuracy([lowest])}",
                          judging([lowest], st.change([lowest])), "negative", margin)])
    yield from quadrature(study, data)


def best_of(units):
    """The unit with the lowest loss of the samples that only choose, or of the even ones; None of none."""
    if chosen_apart(units):
        return min(units, key=lambda u: u["choose_change"])
    return min(units, key=lambda u: float(np.mean(even(st.change([u])))), default=None)


def chosen_apart(units):
    """Whether the study kept samples that only choose: then all others judge."""
    return bool(units) and all(math.isfinite(u["choose_change"]) for u in units)


def judging(units, samples):
    """The samples that judge what was picked among such units."""
    return samples if chosen_apart(units) else odd(samples)


def directions(study, data):
    margin = margin_of(study, data)
    units = study.extrapolations(data)
    best = best_of(units)
    if best:
        yield Claim(OURS, "Some interpolation or extrapolation beats the post-trained model on this task",
                    [Cell(f"alpha {best.get('alpha'):g}, {accuracy([best])}",
                          judging([best], st.change([best])), "negative", margin)])
    sides = best_sides(units)
    if all(sides):
        yield Claim(PAPER, "The best interpolation beats the best extrapolation (on most tasks)",
                    [Cell(f"alpha {sides[1].get('alpha'):g} less alpha {sides[0].get('alpha'):g}",
                          judging(sides, st.change([sides[1]]) - st.change([sides[0]])), "positive", margin)])
    searched = {name: next((u for u in study.units if u.data == data and u.name == name
                            and u.edit in (name, f"{name}-on-{data}")), None)
                for name in ("best", "layers")}
    for name, other, words in (
            ("best", best, "The alpha that few gradients find is as good as the grid's best"),
            ("layers", searched["best"], "One alpha a layer is no worse than one for the model")):
        unit = searched[name]
        if unit and other:
            yield Claim(OURS, words, [Cell(f"alpha {alpha_text(unit)}, {unit.get('advice')} by the slope",
                                           judging([other], st.change([unit]) - st.change([other])), "no larger",
                                           0.2 * margin)])


def best_sides(units):
    """The best interpolation and the best extrapolation."""
    return tuple(best_of([u for u in units if u.get("alpha") * side > 0]) for side in (-1, 1))


def directions_differ(study):
    """Whether interpolation is better on one task of a study and extrapolation on another."""
    answers = []
    for data in study.data:
        sides = best_sides(study.extrapolations(data))
        if all(sides):
            answers.append((data, *st.interval(judging(sides, st.change([sides[1]]) - st.change([sides[0]])),
                                               0.05 / len(study.data))))
    if len(answers) < 2:
        return
    inner, outer = [a for a in answers if a[2] > 0], [a for a in answers if a[3] < 0]
    verdict = ("holds" if inner and outer else
               "fails" if len(inner) == len(answers) or len(outer) == len(answers) else "undecided")
    words = [f"{data}: {mean:+.3g} [{low:+.3g}, {high:+.3g}]" for data, mean, low, high in answers]
    yield Row(PAPER, study.figure, "The better direction of alpha differs over tasks",
              "of each task, the loss of the best extrapolation less that of the best interpolation: holds when one "
              "interval lies above zero and one below, fails when all lie on the same side",
              f"{study.pair}, {' and '.join(a[0] for a in answers)}", verdict, "; ".join(words) + " nats",
              [Answer(data, mean, low, high, verdict) for data, mean, low, high in answers])


def alpha_text(unit):
    """The alpha that a search found."""
    alpha = unit.get("found_alpha")
    return f"{alpha:.3g}" if isinstance(alpha, (int, float)) else str(alpha)


def biases(study, data):
    margin = margin_of(study, data)
    random = {k: study.find(data, "random", k=k) for k in study.values("random", "k")}

    def cells(name, question, wanted):
        for k in study.values(name, "k"):
            units = study.find(data, name, k=k)
            if units and random.get(k) and wanted(units[0]):
                yield Cell(f"k {k:g} less random, {accuracy(units)}, term at W_post "
                           f"{units[0].first_order():+.2g} nats", st.changes(units) - st.changes(random[k]),
                           question, margin, once=once(units, random[k]))
    yield Claim(PAPER, "Choosing entries by sign is on a par with choosing them at random",
                list(cells("sign", "equivalent", lambda u: True)))
    yield Claim(PAPER, "Choosing entries by the gradient product collapses, its first-order term being above zero",
                list(cells("gradient", "beyond", lambda u: u.first_order() > 0)))
    yield Claim(OURS, "Against the paper's \"necessary and sufficient\": it collapses also where that term is "
                "below zero",
                list(cells("gradient", "beyond", lambda u: u.first_order() < 0)))


CALIBRATIONS = {"term": "Calibrated {} changes the loss no more than the plain one",
                "significant": "Calibrated where samples tell the slope from zero, {} changes the loss "
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
                yield Claim(OURS, claim.format(method), cells)


RANKED = 0.7  # rank correlation from which predictions tell which edit costs more


def proof_row(study, data, words, rule, numbers, judged, few=False):
    """A row about [value, low, high] of predicted and true changes, few: of few edits or groups; judged(low, high) ->
    (holds, fails)."""
    value, low, high = (math.nan if x is None else x for x in numbers)
    holds, fails = judged(low, high)
    verdict = "holds" if holds else "fails" if fails else "undecided"
    return Row(OURS, study.figure, words, rule, f"{study.pair}, {data}", verdict,
               f"{value:.3g} [{low:.3g}, {high:.3g}]" + ("; few edits or groups carry it" if few else ""),
               [Answer(words, value, low, high, verdict, bool(few))])


def predictions(study, data):
    """What predictions say of the changes that were measured after them."""
    for proof in study.proof:
        if proof["data"] != data:
            continue
        whole, drawn = proof["all"], proof["as_drawn"]
        yield proof_row(study, data, f"Predictions tell which edit costs more: rank correlation of {RANKED} or more, over "
                        f"{whole['edits']} edits", "holds when its interval lies above that, fails when it lies below",
                        whole["rank_correlation"], lambda low, high: (low > RANKED, high < RANKED), whole.get("few"))
        if drawn["edits"] > 0:
            yield proof_row(study, data, "In range they tell how much: the slope of the true on the predicted change is 1, "
                            f"over {drawn['edits']} edits", "holds when its interval holds 1 and lies within 0.5 and 2, "
                            "fails when it leaves 1 out", drawn["slope"],
                            lambda low, high: (0.5 < low <= 1 <= high < 2, low > 1 or high < 1), drawn.get("few"))


GROUPED = {"left_out": "what the loss changes when the group is left out of the edit",
           "middle": "the middle of that and of what the group changes alone"}


def group_terms(study, data):
    """What the terms of groups of tensors say of what the groups change."""
    for proof in study.group_proof:
        if proof["data"] != data:
            continue
        for kind, words in GROUPED.items():
            one = proof[kind]
            count = f"{one.get('groups', 0)} groups of {one['edits']} edits"
            yield proof_row(study, data, f"Terms tell which group costs more: rank correlation of {RANKED} or more with {words}, "
                            f"over {count}", "holds when its interval lies above that, fails when it lies below",
                            one["rank_correlation"], lambda low, high: (low > RANKED, high < RANKED), one.get("few"))
        yield proof_row(study, data, f"They tell how much: the slope on the terms of {GROUPED['middle']} is 1, over {count}",
                        "holds when its interval holds 1 and lies within 0.5 and 2, fails when it leaves 1 out",
                        one["slope"], lambda low, high: (0.5 < low <= 1 <= high < 2, low > 1 or high < 1), one.get("few"))


ALLOCATED = {"dare": ("mean", "DARE"), "prune": ("bytes", "pruning"), "bits": ("bytes", "bits"), "twin": ("bytes", "low rank")}


def allocated(study, data):
    """(edit in words, size in words, {by: units of its seeds}) of each size of each edit."""
    for name, (parameter, words) in ALLOCATED.items():
        for size in study.values(name, parameter):
            found = {by: study.find(data, name, by=by, **{parameter: size}) for by in ("uniform", "group", "tensor")}
            yield words, f"{parameter} {size:g}", {by: units for by, units in found.items() if units}


def orders(units):
    """[first order, second order, what of the change lies beyond both], mean over the seeds; nan without the law."""
    first, second, change = (sum(u.record.get(key, math.nan) for u in units) / len(units)
                             for key in ("predicted_first", "predicted_second", "change"))
    return [first, second, change - first - second]


def why_no_lower(other, tensor):
    """The parts of both changes, and which of them grew most where a value for each tensor has the larger loss: the choice
    makes the second order small and sees no other."""
    before, after = orders(other), orders(tensor)
    if not all(map(math.isfinite, before + after)):
        return ""
    parts = [*zip(("first order", "second order", "what lies beyond both"), before, after)]
    text = ", ".join(f"{name} {a:+.3g} to {b:+.3g}" for name, a, b in parts) + " nats"
    most = max(parts, key=lambda part: part[2] - part[1])[0]
    return text + (f": {most} grew most" if sum(after) > sum(before) else "")


def allocations(study, data):
    margin = margin_of(study, data)
    for other, words in (("uniform", "one for all"), ("group", "one for the best group of tensors")):
        cells = [Cell(f"{edit}, {size}: {other} less each tensor, {accuracy(by['tensor'])}",
                      st.changes(by[other]) - st.changes(by["tensor"]), "positive", margin,
                      once=once(by[other], by["tensor"]), why=why_no_lower(by[other], by["tensor"]))
                 for edit, size, by in allocated(study, data) if {other, "tensor"} <= by.keys()]
        yield Claim(OURS, f"At the same size a value for each tensor has a lower loss than {words}", cells)


CLAIMS = {"predictions": predictions, "proof": group_terms, "allocation": allocations, "fig1": dare, "fig2": dare, "fig3": terms, "fig4": bits, "fig5": multiples,
          "fig6": alphas, "fig7": directions, "table1": biases, "calibrated": calibrations}


STUDY_CLAIMS = {"fig7": directions_differ}  # of all data sets together


def rows_of(study):
    """Every claim of a study, on each of its data sets and on all of them."""
    maker = CLAIMS.get(study.figure)
    for data in study.data if maker else []:
        for item in maker(study, data):
            if isinstance(item, Row):
                yield item
            elif item.cells:
                yield judge(study.figure, item, f"{study.pair}, {data}")
    if study.figure in STUDY_CLAIMS:
        yield from STUDY_CLAIMS[study.figure](study)

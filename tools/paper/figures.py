"""The figures of the paper in its axes, one function each: study -> list of (svg or table, caption)."""
import html
import math

import numpy as np

import claims
import plot
import study as st


def pct(x):
    return 100.0 * x


def over_seeds(units, key, scale=1.0):
    """Mean of a scalar over seeds, with its smallest and largest value."""
    values = [scale * u[key] for u in units]
    return sum(values) / len(values), min(values), max(values)


def curve(study, data, name, parameter, key, scale=1.0, **where):
    points = []
    for value in study.values(name, parameter):
        units = study.find(data, name, **{parameter: value}, **where)
        if units:
            points.append((value, *over_seeds(units, key, scale)))
    return points


def ends(study, data, key="accuracy"):
    unit = next(u for u in study.units if u.data == data)
    scale = 100.0 if key == "accuracy" else 1.0
    return [("post-trained", scale * unit[f"{key}_post"]), ("pre-trained", scale * unit[f"{key}_pre"])]


SINGLE = {"bitdelta": "BitDelta", "twin": "Twin-Merging"}


def single(study, data):
    """(name for the legend, unit) of the edits of Figure 3 that have no rate."""
    for name, text in SINGLE.items():
        for unit in study.find(data, name)[:1]:
            yield text, unit


def title(study, data):
    return f"{study.pair}: {data}"


def dare(study, data):
    ks = study.values("dare", "k")
    accuracy = [{"name": f"k = {k:g}", "points": curve(study, data, "dare", "p", "accuracy_edit",
                                                       100.0, k=k)} for k in ks]
    change = [{"name": f"k = {k:g}", "points": curve(study, data, "dare", "p", "change", k=k)}
              for k in ks]
    yield (plot.lines(title(study, data), "p", "accuracy [%]", accuracy, ends(study, data)),
           "Accuracy over the drop rate p for each k; mean and range over seeds.")
    yield (plot.lines(title(study, data), "p", "change of the loss [nats]", change, far=True),
           "True change of the loss for the same edits.")


def flip(points):
    return sorted((round(1.0 - p[0], 9), *p[1:]) for p in points)


def terms(study, data):
    totals = [{"name": "DARE", "points": curve(study, data, "dare", "p", "estimate")},
              {"name": "drop-only", "points": curve(study, data, "drop", "p", "estimate")},
              {"name": "TIES", "points": flip(curve(study, data, "ties", "keep", "estimate"))}]
    levels = [(name, unit["estimate"]) for name, unit in single(study, data)]
    yield (plot.lines(title(study, data), "p", "approximation term [nats]", totals, levels,
                      far=True),
           "Approximation term of the whole model (left rule, C = 5) over the drop rate.")
    true = [{"name": "DARE", "points": curve(study, data, "dare", "p", "change")},
            {"name": "drop-only", "points": curve(study, data, "drop", "p", "change")},
            {"name": "TIES", "points": flip(curve(study, data, "ties", "keep", "change"))}]
    levels = [(name, unit["change"]) for name, unit in single(study, data)]
    yield (plot.lines(title(study, data), "p", "true change of the loss [nats]", true, levels,
                      far=True), "What the term estimates: the true change of the loss.")
    for p in RATES:
        yield from spread(study, data, p)


RATES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the paper's panels


def spread(study, data, p):
    """The term of the parts of the model, of all edits of one rate and of those that have none."""
    chosen = [("DARE", study.find(data, "dare", p=p)), ("drop-only", study.find(data, "drop", p=p)),
              ("TIES", study.find(data, "ties", keep=round(1.0 - p, 9)))]
    if not any(units for _, units in chosen):
        return
    chosen += [(name, [unit]) for name, unit in single(study, data)]
    for part in ("module", "layer"):
        records = [(name, units[0].by_part(part)) for name, units in chosen if units]
        records = [(name, by) for name, by in records if by]
        if not records:
            continue
        names = list(records[0][1])
        series = [{"name": name, "values": [by.get(n, math.nan) or 0.0 for n in names]}
                  for name, by in records]
        shown = ["outside" if n == "-1" else n for n in names]
        yield (plot.categories(f"{title(study, data)}, p = {p:g}", "approximation term [nats]", shown, series),
               f"Spread of the term over {'kinds of module' if part == 'module' else 'layers'} at p = {p:g}; "
               "BitDelta and Twin-Merging have no rate.")


def bits(study, data):
    accuracy = [{"name": "edited", "points": curve(study, data, "bits", "bits", "accuracy_edit", 100.0)}]
    losses = [{"name": "true change", "points": curve(study, data, "bits", "bits", "change")},
              {"name": "approximation term", "points": curve(study, data, "bits", "bits", "estimate"), "dash": 3}]
    yield (plot.lines(title(study, data), "bits of magnitude", "accuracy [%]", accuracy,
                      ends(study, data)), "Accuracy over bits; 0 bits is BitDelta.")
    yield (plot.lines(title(study, data), "bits of magnitude", "change of the loss [nats]", losses, far=True),
           "True change of the loss over bits, and its estimate by the approximation term.")


def multiples(study, data):
    names = ("degenerate", "normal", "uniform")
    for key, what, label, scale, levels in (
            ("accuracy_edit", "Accuracy", "accuracy [%]", 100.0, ends(study, data)),
            ("change", "True change of the loss", "change of the loss [nats]", 1.0, ())):
        curves = [{"name": n, "points": curve(study, data, n, "multiple", key, scale)} for n in names]
        yield (plot.lines(title(study, data), "m", label, curves, levels, far=key == "change"),
               f"{what} with BitDelta's magnitude times m, constant or drawn from a distribution; mean and range "
               "over seeds.")


def alphas(study, data):
    curves = [{"name": "approximation term", "points": curve(study, data, "expo", "alpha", "estimate")},
              {"name": "true change", "points": curve(study, data, "expo", "alpha", "change")}]
    loss = {"dpo": "DPO"}.get(study.units[0].record["loss"], study.units[0].record["loss"])
    yield (plot.lines(title(study, data), "alpha", f"change of the {loss} loss [nats]",
                      curves, [("post-trained", 0.0)]),
           "EXPO: approximation term and true change of the loss over alpha. " + found(study, data))
    accuracy = [{"name": "edited", "points": curve(study, data, "expo", "alpha", "accuracy_edit", 100.0)}]
    unit = study.units[0]
    yield (plot.lines(title(study, data), "alpha", "accuracy [%]", accuracy,
                      [("post-trained", 100.0 * unit["accuracy_post"])]), "Accuracy over alpha.")


def found(study, data):
    texts = []
    for u in study.units:
        if u.data == data and u.get("found_alpha") is not None and (
                u.edit == u.name or u.edit.endswith("-on-" + data)):
            texts.append(f"alpha: auto ({u.name}): {u.get('advice')} by the slope, alpha = "
                         f"{claims.alpha_text(u)} with {gradients(u)}: "
                         f"change {u['change']:+.3g} nats, accuracy {pct(u['accuracy_edit']):.1f} %.")
    return " ".join(texts)


def gradients(unit):
    number = unit.get("gradients")
    return "1 gradient" if number == 1 else f"{number or 0:g} gradients"


def directions(study, data):
    points = curve(study, data, "expo", "alpha", "change")
    yield (plot.lines(title(study, data), "alpha", "change of the loss [nats]",
                      [{"name": "EXPO", "points": sorted(points + [(0.0, 0.0, 0.0, 0.0)])}], far=True),
           "True change of the loss over alpha. " + found(study, data))
    accuracy = curve(study, data, "expo", "alpha", "accuracy_edit", 100.0)
    post = pct(next(u for u in study.units if u.data == data)["accuracy_post"])
    yield (plot.lines(title(study, data), "alpha", "accuracy [%]",
                      [{"name": "EXPO", "points": sorted(accuracy + [(0.0, post, post, post)])}],
                      ends(study, data)),
           "Accuracy over alpha; -1 is the pre-trained model, 0 the post-trained one.")


def best_table(study):
    """Best interpolation against best extrapolation, per task."""
    rows = [["task", "best interpolation", "change [nats]", "accuracy", "best extrapolation",
             "change [nats]", "accuracy", "post-trained accuracy"]]
    for data in study.data:
        units = study.extrapolations(data)
        row = [data]
        for side in (-1, 1):
            best = claims.best_of([u for u in units if u.get("alpha") * side > 0])
            row += [f"alpha {best.get('alpha'):g}", f"{best['change']:+.3g}",
                    f"{pct(best['accuracy_edit']):.1f} %"] if best else ["not in this job", "", ""]
        if units:
            rows.append(row + [f"{pct(units[0]['accuracy_post']):.1f} %"])
    return table(rows)


def biases(study, data):
    names = [n for n in ("random", "sign", "gradient") if study.values(n, "k")]
    ks = sorted({k for n in names for k in study.values(n, "k")})
    for key, what, label, scale, levels in (
            ("accuracy_edit", "Accuracy", "accuracy [%]", 100.0, ends(study, data)),
            ("change", "True change of the loss", "change of the loss [nats]", 1.0, ())):
        curves = [{"name": n, "points": curve(study, data, n, "k", key, scale)} for n in names]
        yield (plot.lines(title(study, data), "k", label, curves, levels, far=key == "change"),
               f"{what} when entries multiplied by k are chosen at random, by sign, or by the gradient "
               "product.")
    rows = [["accuracy / change of the loss"] + [f"k = {k:g}" for k in ks]]
    for name in names:
        cells = []
        for k in ks:
            units = study.find(data, name, k=k)
            cells.append(f"{over_seeds(units, 'accuracy_edit', 100.0)[0]:.1f} % / "
                         f"{over_seeds(units, 'change')[0]:+.3g}" if units else "")
        rows.append([name] + cells)
    yield table(rows), f"Table 1 on {title(study, data)}."


def calibrations(study, data):
    rows = [["edit", "calibrated", "change [nats]", "accuracy", "less plain [nats]",
             "term at W_post [nats]", "beyond it [nats]", "norm of E", "tensors at zero term"]]
    why = []
    for _, plain, by in claims.calibrated_forms(study, data):
        rows.append(calibration_row(plain, "no", "", ""))
        for how, unit in by.items():
            gap = st.interval(st.change([unit]) - st.change([plain]))
            zero, tensors = calibrated_tensors(unit)
            rows.append(calibration_row(unit, how, f"{gap[0]:+.3g} [{gap[1]:+.3g}, {gap[2]:+.3g}]",
                                        f"{zero} of {tensors}"))
            if gap[1] > 0.0:
                why.append(why_worse(plain, unit, how, tensors - zero))
    yield table(rows), (f"Plain and calibrated edits on {title(study, data)}: 'beyond it' is the change "
                        "of the loss less the term at W_post, what no first order can see.")
    if why:
        yield "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in why) + "</ul>", (
            "Where a calibrated edit is worse than the plain one, and why.")


def calibrated_tensors(unit):
    """(tensors whose term at W_post the factor made zero, tensors): it is 1 where it was left alone, and
    0.5 or 2 where it was held."""
    factors = unit.tensor_column("scale")
    factors = factors[np.isfinite(factors)]
    return len(factors) - int(np.isin(factors, (0.5, 1.0, 2.0)).sum()), len(factors)


def edit_norm(unit):
    return float(np.sqrt(np.sum(unit.tensor_column("edit_norm") ** 2)))


def calibration_row(unit, how, gap, tensors):
    first = unit.first_order()
    return [unit.edit, how, f"{unit['change']:+.4g}", f"{pct(unit['accuracy_edit']):.1f} %", gap,
            f"{first:+.3g}", f"{unit['change'] - first:+.3g}", f"{edit_norm(unit):.3g}", tensors]


def why_worse(plain, unit, how, held):
    """Which of the two parts of the change grew: what the calibration aims at, or what it cannot see."""
    before, after = plain.first_order(), unit.first_order()
    first = after - before
    beyond = unit["change"] - plain["change"] - first
    text = (f"{plain.edit}, {how}: the term at W_post went from {before:+.3g} to {after:+.3g} nats, what "
            f"lies beyond it from {plain['change'] - before:+.3g} to {unit['change'] - after:+.3g}, the "
            f"norm of E from {edit_norm(plain):.3g} to {edit_norm(unit):.3g}. ")
    if beyond > max(first, 0.0):
        text += "The larger step costs more in curvature than the slope at its start could save."
    else:
        text += (f"The slope itself grew: {held} tensors, whose factor a guard held, keep a term "
                 "against which the others no longer count.")
    return text


def table(rows):
    """The first row is the head; nothing when there is no other."""
    if len(rows) < 2:
        return ""
    text = "<div class='wrap'><table><thead><tr>"
    text += "".join(f"<th>{html.escape(c)}</th>" for c in rows[0]) + "</tr></thead><tbody>"
    for row in rows[1:]:
        text += "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>"
    return text + "</tbody></table></div>"


def predictions(study, data):
    units = [u for u in study.units if u.data == data]
    series = [{"name": name, "points": [(u["predicted_change"], u["change"]) for u in units if u.name == name]}
              for name in study.names]
    ranged = sum(u["predicted_in_range"] == 1 for u in units)
    yield (plot.scatter(title(study, data), "predicted [nats]", "true change [nats]", series),
           f"Change of the loss, predicted from gradient and curvature before it was measured, and then measured; {ranged} of "
           f"{len(units)} predictions are called in range.")


def group_terms(study, data):
    """What each group of tensors changes over its term."""
    units = [u for u in study.units if u.data == data and u.has("proof_term")]
    for what, values in (("left out", lambda u: u.array("proof_change")), ("alone", lambda u: u.array("proof_alone"))):
        series = [{"name": name, "points": [point for u in units if u.name == name
                                            for point in zip(u.array("proof_term"), values(u))]} for name in study.names]
        yield (plot.scatter(title(study, data), "term [nats]", "change [nats]", series),
               f"What each group of tensors changes, {what}, over its term of the path sum.")


def allocations(study, data):
    rows = [["change of the loss [nats] / accuracy", "one for all", "for the best group", "for each tensor"]]
    for edit, size, by in claims.allocated(study, data):
        rows.append([f"{edit}, {size}"] + [
            f"{over_seeds(by[how], 'change')[0]:+.3g} / {over_seeds(by[how], 'accuracy_edit', 100.0)[0]:.1f} %"
            if how in by else "" for how in ("uniform", "group", "tensor")])
    yield table(rows), f"Values at the same size, chosen by the curvatures of other samples, {title(study, data)}; mean over seeds."


FIGURES = [
    ("fig1", "Figures 1 and 8 to 11: DARE-k over p and k, language models", dare),
    ("fig2", "Figure 2: DARE-k over p and k, image model", dare),
    ("fig3", "Figure 3: spread of the approximation term", terms),
    ("fig4", "Figure 4: bits of magnitude", bits),
    ("fig5", "Figures 5 and 12: degenerate, normal and uniform magnitudes", multiples),
    ("fig6", "Figure 6: EXPO under the DPO loss", alphas),
    ("fig7", "Figures 7 and 13: interpolation against extrapolation", directions),
    ("table1", "Table 1: random, by sign, by gradient product", biases),
    ("calibrated", "Beyond the paper: calibrated edits", calibrations),
    ("predictions", "Beyond the paper: predicted and true changes", predictions),
    ("allocation", "Beyond the paper: a value for each tensor", allocations),
    ("proof", "Beyond the paper: terms of groups of tensors", group_terms)]


def make(study, maker):
    if study.figure == "fig7":
        yield best_table(study), f"Best interpolation and best extrapolation by loss, {study.pair}."
    for data in study.data:
        yield from maker(study, data)

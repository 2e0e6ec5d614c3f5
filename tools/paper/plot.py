"""Plots by gnuplot, as SVG text. Curves carry points (x, y) or (x, y, low, high)."""
import math
import re
import subprocess

COLOURS = ["#1f6feb", "#c0392b", "#1a7f5a", "#c98a00", "#7d3c98", "#0e8a9c", "#5a6270", "#d35400",
           "#2c3e50", "#8e5a3b", "#9b1d64", "#527a00"]


def words(text):
    """Text that gnuplot takes as it is."""
    return re.sub(r"[^A-Za-z0-9 ._+=\-/():%,<>|&\[\]]", "?", str(text))


def round_up(size):
    """The next of 1, 2, 5 times a power of ten."""
    decade = 10.0 ** math.floor(math.log10(size))
    return next(m * decade for m in (1, 2, 5, 10) if m * decade >= size * (1 - 1e-9))


def asinh_axis(scale, values):
    """Tics and range of an asinh axis: decades, and a round number beyond the farthest value on each
    side; tics that would touch another are left out."""
    place = lambda y: math.asinh(y / scale)
    ends, tics = [], []
    for sign in (-1, 1):
        most = max((sign * v for v in values), default=0.0)
        if most < 0.5 * scale:
            ends.append(sign * place(max(most, 0.0)))
            continue
        size = round_up(most)
        ends.append(sign * place(size))
        while size >= 0.5 * scale:
            tics.append(sign * size)
            size = 10.0 ** (math.ceil(math.log10(size * (1 - 1e-9))) - 1)
    room = 0.055 * (ends[1] - ends[0])
    kept = [0.0]
    for y in sorted(tics, key=lambda y: -abs(y)):
        if all(abs(place(y) - place(k)) >= room for k in kept):
            kept.append(y)
    text = ", ".join(f'"{y:g}" {place(y):.9g}' for y in sorted(kept))
    pad = 0.04 * (ends[1] - ends[0])
    return f"set ytics ({text})\nset yrange [{ends[0] - pad:.9g}:{ends[1] + pad:.9g}]\n"


def axis_scale(curves):
    """0 for a linear axis, else the end of the linear part of an asinh axis."""
    sizes = sorted(abs(p[1]) for c in curves for p in c["points"]
                   if math.isfinite(p[1]) and p[1] != 0)
    if not sizes or sizes[-1] < 30 * sizes[len(sizes) // 2]:
        return 0.0
    return max(sizes[len(sizes) // 4], sizes[-1] * 1e-4)


def render(script):
    try:
        result = subprocess.run(["gnuplot", "-"], input=script, capture_output=True, text=True,
                                check=False)
    except OSError as error:
        return f'<p class="notice">gnuplot made no plot: {error.strerror}</p>'
    start = result.stdout.find("<svg")
    if result.returncode != 0 or start < 0:
        return f'<p class="notice">gnuplot made no plot: {result.stderr[:200]!r}</p>'
    return result.stdout[start:]


HEAD = """set terminal svg size {width},{height} fixed noenhanced font 'Helvetica,Arial,sans-serif,12'
set border 3 lc rgb '#8a8f98'
set tics nomirror textcolor rgb '#333a45'
set grid lc rgb '#e4e7eb' lt 1
set key outside right top font ",11" textcolor rgb '#333a45' samplen 1.5
set title "{title}" tc rgb '#1d2430'
set xlabel "{xlabel}" tc rgb '#333a45'
set ylabel "{ylabel}" tc rgb '#333a45'
"""


def lines(title, xlabel, ylabel, curves, levels=(), far=False, width=580, height=330):
    """Curves [{name, points, dashed}] over x, and horizontal levels [(name, y)]."""
    flat = [{"points": [(0, y)]} for _, y in levels if math.isfinite(y)]
    scale = axis_scale(curves + flat) if far else 0.0
    place = (lambda y: math.asinh(y / scale)) if scale else (lambda y: y)
    script = HEAD.format(title=words(title), xlabel=words(xlabel), ylabel=words(ylabel),
                         width=width, height=height)
    script += "set offsets 0, 0, graph 0.06, graph 0.06\n"
    if scale:
        script += asinh_axis(scale, [y for c in curves + flat for p in c["points"] for y in p[1:]
                                     if math.isfinite(y)])
    if ylabel.startswith("accuracy"):
        script += "set yrange [-3:104]\n"
    xs = [p[0] for c in curves for p in c["points"] if math.isfinite(p[1])]
    if not xs:
        return ""
    pad = 0.04 * (max(xs) - min(xs)) or 0.5
    script += f"set xrange [{min(xs) - pad:.9g}:{max(xs) + pad:.9g}]\n"
    # Ranges lie below the lines, and nothing is drawn in the colour of the paper around a point.
    spans, parts = [], []
    for i, curve in enumerate(curves):
        rows, ranges = [], []
        for x, y, *span in curve["points"]:
            if not math.isfinite(y):
                continue
            rows.append(f"{x:.9g} {place(y):.9g}")
            if span and all(map(math.isfinite, span)) and span[1] > span[0]:
                ranges.append(f"{x:.9g} {place(span[0]):.9g} {place(span[1]) - place(span[0]):.9g}")
        if not rows:
            continue
        colour = COLOURS[i % len(COLOURS)]
        script += f"$d{i} << EOD\n" + "\n".join(rows) + "\nEOD\n"
        if ranges:
            script += f"$r{i} << EOD\n" + "\n".join(ranges) + "\nEOD\n"
            spans.append(f"$r{i} using 1:2:(0):3 with vectors nohead lw 1.2 lc rgb '{colour}' notitle")
        parts.append(f"$d{i} using 1:2 with linespoints lw 1.6 dt {curve.get('dash', 1)} pt 7 ps 0.45 "
                     f"lc rgb '{colour}' title \"{words(curve['name'])}\"")
    for k, (name, y) in enumerate(levels):
        if math.isfinite(y):
            spans.append(f"{place(y):.9g} with lines lw 1.2 dt {k + 2} lc rgb '#5a6270' notitle")
            parts.append(f"NaN with lines lw 1.2 dt {k + 2} lc rgb '#5a6270' "
                         f"title \"{words(name)}\"")
    return render(script + "plot " + ", ".join(spans + parts) + "\n")


def categories(title, ylabel, names, series, far=True, bars=False, width=760, height=330):
    """Points or bars for each category; series [{name, values}] in the order of names."""
    curves = [{"points": [(i, v) for i, v in enumerate(s["values"])]} for s in series]
    scale = axis_scale(curves) if far else 0.0
    place = (lambda y: math.asinh(y / scale)) if scale else (lambda y: y)
    script = HEAD.format(title=words(title), xlabel="", ylabel=words(ylabel), width=width,
                         height=height)
    script += "set offsets 0, 0, graph 0.06, graph 0.06\n"
    if scale:
        script += asinh_axis(scale, [p[1] for c in curves for p in c["points"] if math.isfinite(p[1])])
    tics = ", ".join(f'"{words(n)}" {i}' for i, n in enumerate(names))
    script += (f"set xtics ({tics}) {'rotate by -30' if len(names) > 8 else ''}\n"
               f"set xrange [-0.6:{len(names) - 0.4}]\nset xzeroaxis lt 1 lc rgb '#333a45'\n"
               "set boxwidth 1 relative\nset style fill solid 0.8 noborder\n")
    parts, n = [], len(series)
    step = 0.8 / max(n, 1)
    for i, s in enumerate(series):
        rows = [f"{k - 0.4 + (i + 0.5) * step:.6g} {place(v):.9g} {0.9 * step:.6g}"
                for k, v in enumerate(s["values"]) if math.isfinite(v)]
        if not rows:
            continue
        script += f"$d{i} << EOD\n" + "\n".join(rows) + "\nEOD\n"
        colour = COLOURS[i % len(COLOURS)]
        style = "using 1:2:3 with boxes" if bars else "using 1:2 with points pt 7 ps 0.6"
        parts.append(f"$d{i} {style} lc rgb '{colour}' title \"{words(s['name'])}\"")
    return render(script + "plot " + ", ".join(parts) + "\n") if parts else ""


def scatter(title, xlabel, ylabel, series, width=580, height=430):
    """Points (x, y) of series [{name, points}] on axes of one scale, and the line where both are equal."""
    values = [v for s in series for point in s["points"] for v in point if math.isfinite(v)]
    if not values:
        return ""
    both = [{"points": [(0, v) for v in values]}]
    scale = axis_scale(both) or max(map(abs, values)) or 1.0
    axis = asinh_axis(scale, values)
    ends = sorted(math.asinh(v / scale) for v in (min(values), max(values)))
    script = HEAD.format(title=words(title), xlabel=words(xlabel), ylabel=words(ylabel), width=width, height=height)
    script += axis + axis.replace("ytics", "xtics").replace("yrange", "xrange")
    script += f"$line << EOD\n{ends[0]:.9g} {ends[0]:.9g}\n{ends[1]:.9g} {ends[1]:.9g}\nEOD\n"
    parts = ["$line with lines lw 1.2 dt 2 lc rgb '#5a6270' title \"equal\""]
    for i, s in enumerate(series):
        rows = [" ".join(f"{math.asinh(v / scale):.9g}" for v in point) for point in s["points"]
                if all(map(math.isfinite, point))]
        if rows:
            script += f"$d{i} << EOD\n" + "\n".join(rows) + "\nEOD\n"
            parts.append(f"$d{i} with points pt 7 ps 0.5 lc rgb '{COLOURS[i % len(COLOURS)]}' "
                         f"title \"{words(s['name'])}\"")
    return render(script + "plot " + ", ".join(parts) + "\n")

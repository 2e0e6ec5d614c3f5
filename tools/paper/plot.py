"""Plots by gnuplot, as SVG text. Curves carry points (x, y) or (x, y, low, high)."""
import math
import re
import subprocess

COLOURS = ["#1f6feb", "#c0392b", "#1a7f5a", "#c98a00", "#7d3c98", "#0e8a9c", "#5a6270", "#d35400",
           "#2c3e50", "#8e5a3b", "#9b1d64", "#527a00"]


def words(text):
    """Text that gnuplot takes as it is."""
    return re.sub(r"[^A-Za-z0-9 ._+=\-/():%,<>|&\[\]]", "?", str(text))


def asinh_tics(scale, most):
    tics = ['"0" 0']
    decade = 10.0 ** math.floor(math.log10(most)) if most > 0 else 1.0
    while decade >= 0.5 * scale:
        for sign in (-1, 1):
            tics.append(f'"{sign * decade:g}" {math.asinh(sign * decade / scale):.9g}')
        decade /= 10.0
    return "(" + ", ".join(tics) + ")"


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


def lines(title, xlabel, ylabel, curves, levels=(), far=False, width=592, height=330):
    """Curves [{name, points, dashed}] over x, and horizontal levels [(name, y)]."""
    flat = [{"points": [(0, y)]} for _, y in levels]
    scale = axis_scale(curves + flat) if far else 0.0
    place = (lambda y: math.asinh(y / scale)) if scale else (lambda y: y)
    script = HEAD.format(title=words(title), xlabel=words(xlabel), ylabel=words(ylabel),
                         width=width, height=height)
    if scale:
        most = max(abs(p[1]) for c in curves + flat for p in c["points"] if math.isfinite(p[1]))
        script += f"set ytics {asinh_tics(scale, most)}\n"
    script += "set offsets graph 0.03, graph 0.03, graph 0.05, graph 0.05\n"
    if ylabel.startswith("accuracy"):
        script += "set yrange [-3:104]\n"
    parts = []
    for i, curve in enumerate(curves):
        rows = []
        for p in curve["points"]:
            low, high = (p[2], p[3]) if len(p) > 2 else (p[1], p[1])
            ys = [v if math.isfinite(v) else p[1] for v in (p[1], low, high)]
            if math.isfinite(p[1]):
                rows.append(f"{p[0]:.9g} " + " ".join(f"{place(y):.9g}" for y in ys))
        if not rows:
            continue
        script += f"$d{i} << EOD\n" + "\n".join(rows) + "\nEOD\n"
        colour = COLOURS[i % len(COLOURS)]
        style = curve.get("style", "lp")
        if style == "lp":
            parts.append(f"$d{i} using 1:2 with lines lw 1.6 dt {curve.get('dash', 1)} "
                         f"lc rgb '{colour}' notitle")
        parts.append(f"$d{i} using 1:2:3:4 with yerrorbars pt 7 ps 0.45 lw 1.2 lc rgb '{colour}' "
                     f"title \"{words(curve['name'])}\"")
    for k, (name, y) in enumerate(levels):
        if math.isfinite(y):
            parts.append(f"{place(y):.9g} with lines lw 1.2 dt {k + 2} lc rgb '#5a6270' "
                         f"title \"{words(name)}\"")
    return render(script + "plot " + ", ".join(parts) + "\n") if parts else ""


def categories(title, ylabel, names, series, far=True, bars=False, width=760, height=330):
    """Points or bars for each category; series [{name, values}] in the order of names."""
    curves = [{"points": [(i, v) for i, v in enumerate(s["values"])]} for s in series]
    scale = axis_scale(curves) if far else 0.0
    place = (lambda y: math.asinh(y / scale)) if scale else (lambda y: y)
    script = HEAD.format(title=words(title), xlabel="", ylabel=words(ylabel), width=width,
                         height=height)
    if scale:
        most = max(abs(p[1]) for c in curves for p in c["points"] if math.isfinite(p[1]))
        script += f"set ytics {asinh_tics(scale, most)}\n"
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

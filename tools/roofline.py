#!/usr/bin/python3
"""A roofline picture of what `make bench` measured: tools/roofline.py BENCH.json PICTURE.svg

Edits in memory and passes of models by floating-point operations a byte that must move, under the roofs of the same run: memory
bandwidth (of c = a + s b) and sgemm. Passes stand at the bytes of both models, which each reads once at least."""
import json
import math
import re
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 520, 70, 20, 40, 50
X_RANGE = (0.2, 4000.0)
LABEL = 13  # pixels between labels
# Of an element: operations, of which each difference, product, sum and comparison is one and random numbers are none; and bytes: both
# models once or, for an edit that must know the whole tensor first, twice, and the edited one.
EDITS = {"expo": (3, 6), "dare": (4, 6), "drop": (4, 6), "della": (5, 6), "bitdelta": (6, 10), "bias": (6, 10), "prune": (5, 10)}
MOVED = 6  # bytes an element that bench_edit's GB/s count
STYLE = {1: ("#b55a00", "4 3"), 2: ("#1f5fa8", "none")}  # by ranks: colour, dashes


def roofs(results):
    """By number of ranks: bytes and operations a second [1e9]."""
    found = {}
    for result in results:
        if result["bench"] == "bench_roof" and result["case"] in ("triad", "sgemm"):
            found.setdefault(result["ranks"], {})[result["case"]] = result["median"]
    return {ranks: (both["triad"], both["sgemm"]) for ranks, both in found.items() if len(both) == 2}


def points(results):
    """Labels, ranks, operations a byte, and operations a second [1e9]."""
    intensity = {result["case"].rsplit(":", 1)[0]: result["median"] for result in results if result["case"].endswith(": intensity")}
    found = {}
    for result in results:
        name, ranks = result["case"], result["ranks"]
        edit = EDITS.get(re.split(r"[ :]", name)[0]) if result["section"] == "edit" and result["unit"] == "GB/s" else None
        if edit:
            found[name.replace(" (two passes)", ""), ranks] = (edit[0] / edit[1], edit[0] * result["median"] / MOVED)
        elif result["section"] == "model" and name.endswith(": pass of sgemm"):
            model = name.rsplit(":", 1)[0]
            found[re.sub(r" \d+, (\d+) layers.*", r", \1 layers", model), ranks] = (intensity[model], result["median"])
    return [(label, ranks, *place) for (label, ranks), place in found.items()]


class Picture:
    """Logarithmic axes, in SVG."""

    def __init__(self, y_range):
        self.y_range, self.parts = y_range, []

    def x(self, value):
        low, high = map(math.log10, X_RANGE)
        return LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value):
        low, high = map(math.log10, self.y_range)
        return HEIGHT - BOTTOM - (math.log10(value) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def add(self, text):
        self.parts.append(text)

    def text(self, x, y, words, anchor="start", colour="#333"):
        words = words.replace("&", "&amp;").replace("<", "&lt;")
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>')

    def axes(self):
        for low, high, place, vertical in ((*X_RANGE, self.x, True), (*self.y_range, self.y, False)):
            for power in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1):
                at = place(10.0**power)
                ends = (at, TOP, at, HEIGHT - BOTTOM) if vertical else (LEFT, at, WIDTH - RIGHT, at)
                self.add('<path d="M%.1f %.1fL%.1f %.1f" stroke="#ddd"/>' % ends)
                if vertical:
                    self.text(at, HEIGHT - BOTTOM + 16, f"{10.0**power:g}", "middle")
                else:
                    self.text(LEFT - 6, at + 4, f"{10.0**power:g}", "end")
        self.text((LEFT + WIDTH) / 2, HEIGHT - 12, "floating-point operations a byte", "middle")
        self.text(LEFT - 50, TOP - 14, "operations a second [1e9]; at the points: share of the roof of as many ranks")

    def roof(self, ranks, bandwidth, peak):
        colour, dashes = STYLE.get(ranks, ("#555", "2 2"))
        ridge = peak / bandwidth
        d = f"M{self.x(X_RANGE[0]):.1f} {self.y(X_RANGE[0] * bandwidth):.1f}L{self.x(ridge):.1f} {self.y(peak):.1f}H{WIDTH - RIGHT}"
        self.add(f'<path d="{d}" fill="none" stroke="{colour}" stroke-dasharray="{dashes}" stroke-width="1.5"/>')
        words = f"{ranks} rank{'s' if ranks > 1 else ''}: {bandwidth:.3g} GB/s, sgemm {peak:.3g} GF/s"
        self.text(WIDTH - RIGHT, self.y(peak) - 5, words, "end", colour)

    def mark(self, found, over):
        """Dots, and labels beside them with the share of their roof, pushed apart from the top down where they would meet."""
        lowest = {}
        for label, ranks, intensity, rate in sorted(found, key=lambda point: -point[3]):
            colour, _ = STYLE.get(ranks, ("#555", ""))
            x, y, column = self.x(intensity), self.y(rate), round(math.log10(intensity))
            at = max(y, lowest.get(column, -math.inf) + LABEL)
            lowest[column] = at
            edge = self.x(10.0**column) + 95 if column < 1 else x - 12
            self.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
            self.add(f'<path d="M{x:.1f} {y:.1f}L{edge:.1f} {at:.1f}" stroke="{colour}" stroke-width="0.5"/>')
            self.text(edge + (3 if column < 1 else -3), at + 4, f"{label}: {rate / min(intensity * over[ranks][0], over[ranks][1]):.2f}", "start" if column < 1 else "end", colour)

    def svg(self):
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">'
        return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', *self.parts, "</svg>", ""])


def main():
    """Draw."""
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        document = json.load(file)
    over, found = roofs(document["results"]), points(document["results"])
    found = [point for point in found if point[1] in over]
    if not over or not found:
        sys.exit(f"{source}: no roofs or no points: `make bench` with the sections roof, edit and model leaves both")
    lowest = min([rate for _, _, _, rate in found] + [X_RANGE[0] * bandwidth for bandwidth, _ in over.values()])
    picture = Picture((lowest * 0.7, max(peak for _, peak in over.values()) * 1.5))
    picture.axes()
    for ranks, roof in sorted(over.items()):
        picture.roof(ranks, *roof)
    picture.mark(found, over)
    with open(target, "w", encoding="utf-8") as file:
        file.write(picture.svg())
    return 0


if __name__ == "__main__":
    sys.exit(main())

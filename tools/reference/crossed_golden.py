#!/usr/bin/env python3
"""Writes tests/golden/crossed_golden.h: intervals of the mean of crossed seeds and samples, from sums of
squares by numpy and Student's distribution by numerical integration.

usage: crossed_golden.py > tests/golden/crossed_golden.h        (needs numpy)
"""
import math

import numpy as np


def tail(t, df):
    """P(T > t), T = sqrt(df) tan(angle)."""
    x = np.linspace(0, math.atan(t / math.sqrt(df)), 20001)
    y = np.cos(x) ** (df - 1)
    area = (x[1] - x[0]) / 3 * (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum())
    return 0.5 - area * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)


def bisect(low, high, above):
    """Where `above`, which falls, turns from true to false."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) else (low, middle)
    return (low + high) / 2


def interval(x):
    """mean, standard error, degrees of freedom, half the width of the 95 % interval."""
    seeds, samples = x.shape
    rows, columns, mean = x.mean(axis=1), x.mean(axis=0), x.mean()
    seed = samples * rows.var(ddof=1)
    sample = seeds * columns.var(ddof=1)
    off = x - rows[:, None] - columns[None, :] + mean
    residual = (off**2).sum() / ((seeds - 1) * (samples - 1))
    parts = (seed / x.size, max(sample - residual, 0.0) / x.size)
    few, many = (bisect(0.0, 1e3, lambda t, n=n: tail(t, n - 1) > 0.025) for n in (seeds, samples))
    half = math.sqrt(few**2 * parts[0] + many**2 * parts[1])
    se = math.sqrt(sum(parts))
    low, high = sorted((seeds - 1.0, samples - 1.0))
    return mean, se, bisect(low, high, lambda df: tail(half / se, df) > 0.025), half


rng = np.random.default_rng(11)
CASES = [
    # seeds, samples, spread of seeds, of samples, of their interaction
    (2, 5, 0.5, 1.0, 0.3),
    (3, 8, 1.0, 0.5, 0.5),
    (3, 6, 0.1, 0.01, 1.0),
    (6, 3, 0.3, 1.0, 0.2),
    (5, 12, 0.02, 1.0, 0.1),
]

print("/* Written by tools/reference/crossed_golden.py: do not edit. */")
print("/* clang-format off */")
rows = []
for i, (seeds, samples, a, b, c) in enumerate(CASES):
    x = (0.25 + a * rng.normal(size=(seeds, 1)) + b * rng.normal(size=(1, samples))
         + c * rng.normal(size=(seeds, samples))).round(6)
    print(f"static const double golden_values_{i}[] = {{{', '.join(repr(float(v)) for v in x.ravel())}}};")
    numbers = ", ".join(f"{float(v):.15g}" for v in interval(x))
    rows.append(f"    {{{seeds}, {samples}, golden_values_{i}, {numbers}}},")
print("static const struct {\n    int seeds, samples;\n    const double *values;\n"
      "    double mean, se, df, half;\n} golden_cases[] = {")
print("\n".join(rows))
print("};")

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


def reaches(x, t):
    """Standard errors from the mean down and up to the ends of an interval by Hall's transform, t Student's quantile."""
    n, off = len(x), x - x.mean()
    skew = (off**3).mean() / (off**2).mean() ** 1.5 if n > 2 else 0.0
    u, share = skew / math.sqrt(n), skew**2 / (skew**2 + 1.5)

    def transform(z):
        v = u * share if z * skew >= 0 else u * (1 + (20 if n < 9 else 5 if n < 12 else 1.5) * abs(u))
        return (z / 4 if v * z < -4.5 else z + v * z**2 / 3 + v**2 * z**3 / 27) + u * share / 6
    return [bisect(0.0, 1e4, lambda z, s=s: s * transform(s * z) < t) for s in (1.0, -1.0)]


def interval(x):
    """mean, standard error, degrees of freedom, distances of the ends of the 95 % interval below and above."""
    seeds, samples = x.shape
    rows, columns, mean = x.mean(axis=1), x.mean(axis=0), x.mean()
    seed = samples * rows.var(ddof=1)
    sample = seeds * columns.var(ddof=1)
    off = x - rows[:, None] - columns[None, :] + mean
    residual = (off**2).sum() / ((seeds - 1) * (samples - 1))
    parts = (seed / x.size, max(sample - residual, 0.0) / x.size)
    few, many = (bisect(0.0, 1e3, lambda t, n=n: tail(t, n - 1) > 0.025) for n in (seeds, samples))
    a, b = (math.sqrt(p) for p in parts)

    def joined(p, q, both=1.6 / seeds):
        longer = max(p * a, q * b)
        return longer if both is None else max(math.sqrt((p * a) ** 2 + (q * b) ** 2 - both * p * a * q * b), longer)
    se = math.hypot(a, b)
    half = joined(few, many)
    low, high = sorted((seeds - 1.0, samples - 1.0))
    ends = zip(reaches(rows, few) if seeds > 2 else (19.0, 19.0), reaches(columns, many))  # 19: of two uniform values
    both = 1.6 / seeds if seeds > 2 else None
    return (mean, se, bisect(low, high, lambda df: tail(half / se, df) > 0.025), *(joined(p, q, both) for p, q in ends))


rng = np.random.default_rng(11)
CASES = [
    # seeds, samples, spread of seeds, of samples, of their interaction
    (2, 5, 0.5, 1.0, 0.3),
    (3, 8, 1.0, 0.5, 0.5),
    (3, 6, 0.1, 0.01, 1.0),
    (6, 3, 0.3, 1.0, 0.2),
    (5, 12, 0.02, 1.0, 0.1),
    (2, 20, 0.01, 1.0, 0.05),  # seeds hardly matter: no longer, and no shorter, than of the samples alone
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
      "    double mean, se, df, below, above;\n} golden_cases[] = {")
print("\n".join(rows))
print("};")

#!/usr/bin/python3
"""How often the program's 95 % interval of a mean misses, how often it does so without being marked as of too few samples
(change_enough), and how often it is marked: the table of doc/science.md, Intervals of skewed samples, in per cent.

Usage: interval_coverage.py [--sets 20000] [--samples 24,48,100,300] [--seed 5] [--changes RESULTS.h5]
With --changes sets are drawn from the changes of the samples of each edit of a study instead.    (needs numpy; h5py)
"""
import argparse
import math
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "paper"))
import study


def rare(share):
    """An exponential change of mean 5 in that share of the samples, next to none in the others."""
    return lambda r, s: np.where(r.random(s) < share, 5.0 * r.exponential(size=s), 0.2 * r.standard_normal(s)), 5.0 * share


def lognormal(sigma):
    """Of that spread of the logarithm."""
    return lambda r, s: np.exp(sigma * r.standard_normal(s)), math.exp(0.5 * sigma * sigma)


def weibull(shape):
    """Of that shape."""
    return lambda r, s: r.weibull(shape, s), math.gamma(1.0 + 1.0 / shape)


# Name: (draw of an array, its mean).
WORLDS = {
    "normal": (lambda r, s: r.standard_normal(s), 0.0),
    "Laplace": (lambda r, s: r.laplace(size=s), 0.0),
    "exponential": (lambda r, s: r.exponential(size=s), 1.0),
    "lognormal, sigma 0.75": lognormal(0.75),
    "lognormal, sigma 1": lognormal(1.0),
    "Weibull, shape 0.7": weibull(0.7),
    "harm in 1 of 10": rare(0.1),
    "harm in 1 of 20": rare(0.05),
    "lognormal less half a lognormal":
        (lambda r, s: np.exp(r.standard_normal(s)) - 0.5 * np.exp(r.standard_normal(s)), 0.5 * math.exp(0.5)),
}


def changes(path):
    """Worlds of the samples of a study, each drawn with repeats."""
    import h5py
    out = {}
    with h5py.File(path) as file:
        for edit, group in file["edits"].items():
            for data, unit in group.items():
                if "loss_edit" in unit:
                    x = np.array(unit["loss_edit"]) - np.array(unit["loss_post"])
                    out[f"{edit} on {data}"] = lambda r, s, x=x: x[r.integers(0, len(x), s)], float(x.mean())
    return out


def rates(draw, mean, count, sets, random):
    """Share of the sets that miss, that miss without a mark, and that are marked."""
    t = study.t_quantile(0.975, count - 1)
    missed = unmarked = marked = 0
    for x in draw(random, (sets, count)):
        skew = study.skewness(x)
        se = float(np.std(x, ddof=1)) / math.sqrt(count)
        off = x.mean() - mean
        miss = not study.corrected(skew, count, -t) * se <= off <= study.corrected(skew, count, t) * se
        few = count < 28 + 25 * skew * skew
        missed, unmarked, marked = missed + miss, unmarked + (miss and not few), marked + few
    return missed / sets, unmarked / sets, marked / sets


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--sets", type=int, default=20000)
    parser.add_argument("--samples", default="24,48,100,300")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--changes", help="results.h5 of a study")
    args = parser.parse_args()
    counts = [int(n) for n in args.samples.split(",")]
    print("| | misses | misses without a warning | warned of |\n|---|---|---|---|")
    for name, (draw, mean) in (changes(args.changes) if args.changes else WORLDS).items():
        random = np.random.default_rng(args.seed)
        found = [rates(draw, mean, n, args.sets, random) for n in counts]
        print(f"| {name} | " + " | ".join(", ".join(f"{100 * f[k]:.1f}" for f in found) for k in range(3)) + " |", flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""What a rule of the Riemann sum misses: tools/rule_error.py PROGRAM [--rule '{rule: auto}'] [--pairs llama qwen vit].

Runs the edits of jobs/paper/fig3.yaml on the shipped pairs and prints, for each pair, the miss of the estimate as a
share of the change (median, quartiles, worst), the gradients that it took for an edit, the share of tensors and
interval questions that the same run answers, and the edits that it misses by more than the tolerance."""

import argparse
import math
import os
import subprocess
import sys

import numpy as np

import results

DEMO = "share/demo"
DATA = {"llama": f"{{name: task, file: {DEMO}/task.h5, loss: lm, samples: 64}}",
        "qwen": f"{{name: reverse, file: {DEMO}/reverse.h5, loss: lm, samples: 64}}",
        "vit": f"{{name: digits, file: {DEMO}/digits.h5, loss: class}}"}


def run(program, ranks, pair, rule, out):
    """One study, taken up where an earlier run stopped; the log of a failure."""
    sets = {"models": f"{{pre: {DEMO}/{pair}-pre, post: {DEMO}/{pair}-post}}", "data": f"[{DATA[pair]}]",
            "riemann": rule, "statistics": "{interval: t}", "name": f"rule-{pair}", "output.directory": out}
    command = [*os.environ.get("DPT_MPIRUN", "mpirun -q").split(), "-n", str(ranks), program, "run",
               "jobs/paper/fig3.yaml", "--resume"]
    for key, value in sets.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{pair}: {done.stderr.strip().splitlines()[-1]}")


def show(pair, out, limit):
    """One line for a pair, and one for each edit beyond the limit."""
    units = results.Results(out).units
    miss = np.array([abs(u["error"] / u["change"]) for u in units])
    gradients = np.array([u["gradients"] for u in units])
    low, middle, high = np.percentile(miss, [25, 50, 75])
    covered = [u["estimate_combined_low"] <= u["change"] <= u["estimate_combined_high"] for u in units
               if math.isfinite(u["estimate_combined_low"])]
    print(f"{pair:6} {len(units)} edits: miss {100 * middle:.2f} % (quartiles {100 * low:.2f} to {100 * high:.2f}, "
          f"worst {100 * miss.max():.1f}), {(miss <= limit).mean():.0%} within {100 * limit:g} %; gradients "
          f"{gradients.mean():.2f}, at most {gradients.max():.0f}; the interval with both has "
          f"{np.mean(covered) if covered else math.nan:.0%} of the changes")
    for unit, share in zip(units, miss):
        if share > limit:
            print(f"    {unit.edit}: {100 * share:.1f} %, change {unit['change']:.4g}, loss "
                  f"{unit['loss_post']:.3g} -> {unit['loss_edit']:.3g}, {unit['points']} points")
    return middle


def main():
    """Every pair in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--rule", default="{rule: auto}", help="section riemann of the job")
    parser.add_argument("--pairs", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--limit", type=float, default=0.05, help="share above which an edit is listed")
    parser.add_argument("--out", default="out/rule-error")
    options = parser.parse_args()
    worst = 0.0
    for pair in options.pairs:
        folder = f"{options.out}/{pair}"
        os.makedirs(options.out, exist_ok=True)
        run(options.program, options.ranks, pair, options.rule, folder)
        worst = max(worst, show(pair, folder, options.limit))
    return 0 if worst <= options.limit else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except results.Unreadable as error:
        print(f"rule_error.py: {error}", file=sys.stderr)
        sys.exit(3)

#!/usr/bin/python3
"""Rule auto: no more gradients than the change asks for, alike on all ranks and at every number of them; a run that is
stopped between any two of its passes goes on to the same bits; the plan says the most and what is to be expected."""

import json
import os
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

JOB = """
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 4}]
edits: [{name: drop, method: drop, p: 0.3, seed: 1}, {name: near, method: expo, alpha: 0.05}]
batch_tokens: 1 # one sample a batch: a run can stop between any two
output: {directory: out/auto, report: false}
"""


def units(folder):
    """The units by their edit, without their time."""
    with open(f"{folder}/results.json", encoding="utf-8") as file:
        found = {unit["edit"]: unit for unit in json.load(file)["units"]}
    for unit in found.values():
        del unit["seconds"]
    return found


def main():
    """All of it in one temporary folder."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        job = f"{folder}/job.yaml"
        with open(job, "w", encoding="utf-8") as file:
            file.write(JOB)

        def run(ranks, out, *options):
            return studies.run(job, ranks, "--set", f"output.directory={folder}/{out}", *options)

        done = run(2, "two")
        check("a study", done.returncode == 0, done.stderr)
        if done.returncode != 0:
            studies.finish()
            return 1
        two = units(f"{folder}/two")
        for edit, gradients in (("drop", 4), ("near", 1)):
            unit = two[edit]
            miss = abs(unit["error"] / unit["change"])
            check(f"{edit} takes {gradients} gradients", unit["gradients"] == gradients and
                  len(unit["points"]) == gradients + 1 and (gradients > 1 or miss <= 0.05),
                  (unit["gradients"], unit["points"], miss))
            check(f"{edit} has its intervals", unit["estimate_combined_low"] < unit["estimate_low"] <
                  unit["estimate"] < unit["estimate_high"] < unit["estimate_combined_high"], unit)
        with h5py.File(f"{folder}/two/results.h5") as h5: # the estimate is of slopes alone
            group = h5["edits/drop/task"]
            terms, weights, nodes = (np.array(group[k]) for k in ("terms", "weights", "points"))
        moments = [weights @ nodes**k - 1 / (k + 1) for k in range(8)]
        check("the rule is exact to degree 7", max(abs(m) for m in moments) < 1e-14, moments)
        check("the estimate is its sum", abs(terms.sum(axis=0) @ weights - two["drop"]["estimate"]) < 1e-9)

        for ranks in (1, 3, 4):
            done = run(ranks, f"at{ranks}", *(["--set", "tensor_parallel=2"] if ranks == 4 else []))
            check(f"{ranks} ranks", done.returncode == 0, done.stderr)
            if done.returncode == 0:
                other = units(f"{folder}/at{ranks}")
                check(f"{ranks} ranks refine alike", all(
                    other[e]["points"] == two[e]["points"] and other[e]["gradients"] == two[e]["gradients"] and
                    abs(other[e]["estimate"] - two[e]["estimate"]) < 1e-4 * abs(two[e]["estimate"]) + 1e-6
                    for e in two), (other, two))

        stops = 0
        while stops < 40:
            done = run(2, "steps", "--resume", "--max-time", "0.01")
            if done.returncode != 75:
                break
            stops += 1
        check("it is stopped in every pass", done.returncode == 0 and stops >= 8, (stops, done.stderr))
        check("to the bits of an undisturbed run", units(f"{folder}/steps") == two)

        plan = run(2, "plan", "--dry-run")
        most = [line.split()[-1] for line in plan.stdout.splitlines() if "passes" in line]
        check("the plan", most == ["12", "10"], plan.stdout)
        again = run(2, "two", "--resume", "--set", "riemann.tolerance=1e-5", "--only", "near")
        check("a tolerance that is not met", again.returncode == 0 and "finished before" not in again.stderr, again.stderr)
        bad = run(2, "bad", "--set", "riemann={rule: auto, points: 9}")
        check("more points than it has", bad.returncode == 2 and "rule auto takes 2 to 5 points" in bad.stderr, bad.stderr)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

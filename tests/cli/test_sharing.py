#!/usr/bin/python3
"""What edits of one study share: the gradient at t = 0, kept where the memory allows it, with a smaller batch where that
makes the room; and the log counts the passes that were taken, and those that were not."""

import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

JOB = """
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 4}]
edits: [{name: half, method: prune, keep: 0.5}, {name: bits, method: bitdelta}, {name: near, method: expo, alpha: 0.05}]
riemann: {rule: left, points: 5}
output: {directory: %s, report: false}
"""
COUNTS = re.compile(r"passes over data sets: (\d+) forward, (\d+) forward and backward; not taken again: (\d+) at t = 0 "
                    r"by the gradient that edits share, (\d+) of an earlier run")


def counts(done):
    """The passes of the log."""
    found = COUNTS.search(done.stderr)
    return tuple(int(n) for n in found.groups()) if found else done.stderr


def plan(folder, *sets, memory="1G"):
    """Numbers of the plan at a budget."""
    done = studies.study(f"{folder}/plan.yaml", JOB % f"{folder}/plan", 1, *sets, options=("--dry-run", "--memory", memory))
    rows = dict(re.findall(r"^  (\S.*?\S) {2,}(\S.*)$", done.stdout, re.M))
    return {"kept": rows.get("gradient at t = 0 kept for all edits", done.stderr),
            "batch": int(rows["tokens packed into one pass"]), "sum": float(rows["sum"].split()[0]),
            "gradients": float(rows.get("gradients", "0").split()[0])}


def check_counts(folder):
    """Three edits: losses at both ends, and five slopes each, of which that at t = 0 is shared or not."""
    for name, ranks, sets, expected in (("left", 1, (), (4, 13, 3, 0)), ("four", 4, ("tensor_parallel=2",), (4, 13, 3, 0)),
                                        ("sample", 1, ("riemann.per_sample=true",), (5, 15, 0, 0)),
                                        ("ends", 1, ("riemann={rule: trapezoid, points: 3}",), (1, 7, 3, 0)),
                                        ("radau", 1, ("riemann={rule: radau, points: 2}",), (4, 4, 3, 0))):
        _, done = studies.results_of(folder, name, JOB, ranks, *sets)
        check(f"passes of {name}", counts(done) == expected, counts(done))
    _, done = studies.results_of(folder, "resumed", JOB, 1, options=("--max-time", "0.01"))
    check("a study is stopped", done.returncode == 75, (done.returncode, done.stderr))
    taken = counts(done) if "passes over" in done.stderr else (0, 0, 0, 0)
    _, done = studies.results_of(folder, "resumed", JOB, 1, options=("--resume",))
    check("and takes no pass again", counts(done)[3] == taken[0] + taken[1] and
          [sum(n) for n in zip(taken, counts(done))][:2] == [4, 13], (taken, counts(done)))


def check_memory(folder):
    """The plan keeps the gradient down to the byte, and by a smaller batch before it lets it go."""
    whole = plan(folder)
    check("with much memory it is kept", whole["kept"] == "yes" and whole["batch"] == 2048 and whole["gradients"] > 0, whole)
    less = plan(folder, memory=f"{int(whole['sum']) - 1}M")
    check("a smaller batch makes room", less["kept"] == "yes" and 512 <= less["batch"] < 2048 and
          less["gradients"] == whole["gradients"], less)
    pinned = plan(folder, "batch_tokens=2048", memory=f"{int(whole['sum']) - 1}M")
    check("but not one that the job gives", pinned["kept"].startswith("no: it lacks 1 MiB") or
          pinned["kept"].startswith("no: it lacks 2 MiB"), pinned)
    alone = plan(folder, "edits=[{name: bits, method: bitdelta}]", memory=f"{int(whole['sum']) - 1}M")
    check("nor for one edit", alone["kept"].startswith("no: it lacks") and alone["batch"] == 2048, alone)
    least = plan(folder, "batch_tokens=512")
    none = plan(folder, memory=f"{int(least['sum']) - 1}M")
    check("below that it is let go, and the batch is as large as fits", none["kept"].startswith("no: it lacks") and
          none["batch"] >= 512, (least, none))
    _, done = studies.results_of(folder, "tight", JOB, 1, options=("--memory", f"{int(less['sum']) + 1}M"))
    check("a run within that budget shares it", counts(done) == (4, 13, 3, 0), counts(done))


def main():
    """All of it in one temporary folder."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        check_counts(folder)
        check_memory(folder)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

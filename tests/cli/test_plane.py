#!/usr/bin/python3
"""The loss on the plane of two edits: its corners are the losses of the edits themselves, other places those of an
edit that lies there, the same at every number of ranks to rounding; a run that is stopped goes on in it."""

import csv
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
data:
  - {name: task, file: share/demo/task.h5, loss: lm, samples: 6}
  - {name: text, file: share/demo/text.h5, loss: lm, samples: 3}
edits:
  - {name: far, method: expo, alpha: 0.5}
  - {name: back, method: expo, alpha: -0.25}
  - {name: between, method: expo, alpha: 0.25}
  - {name: drop, method: drop, p: 0.6, seed: 1}
riemann: {rule: left, points: 1}
output: {directory: out/plane, dtype: f32}
plane: {a: far, b: back, points: 3}
"""


def table(folder):
    """plane.csv as {(data, x, y): (loss, accuracy)}."""
    with open(f"{folder}/plane.csv", encoding="utf-8") as file:
        return {(row["data"], float(row["x"]), float(row["y"])): (float(row["loss"]), float(row["accuracy"]))
                for row in csv.DictReader(file)}


def units(folder):
    """summary.csv as {(edit, data): row}."""
    with open(f"{folder}/summary.csv", encoding="utf-8") as file:
        return {(row["edit"], row["data"]): row for row in csv.DictReader(file)}


def compare(name, places, wanted):
    """Loss and accuracy of places against columns of units."""
    for (data, x, y), row in wanted.items():
        loss, accuracy = places[(data, x, y)]
        good = abs(loss - float(row[0])) <= 2e-5 * abs(float(row[0])) and accuracy == float(row[1])
        check(f"{name}: {data} at {x}, {y}", good, f"{loss}, {accuracy} for {row}")


def ends(rows, a, b):
    """What the corners are."""
    wanted = {}
    for data in ("task", "text"):
        one = rows[(a, data)]
        wanted[(data, 0.0, 0.0)] = (one["loss_post"], one["accuracy_post"])
        wanted[(data, 1.0, 0.0)] = (one["loss_edit"], one["accuracy_edit"])
        one = rows[(b, data)]
        wanted[(data, 0.0, 1.0)] = (one["loss_edit"], one["accuracy_edit"])
    return wanted


def main():
    """All of it in one temporary folder."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        job = f"{folder}/job.yaml"
        with open(job, "w", encoding="utf-8") as file:
            file.write(JOB)

        def run(ranks, out, *options):
            return studies.run(job, ranks, "--set", f"output.directory={folder}/{out}", *options)

        def done(name, result):
            check(name, result.returncode == 0, result.stderr)
            return result.returncode == 0

        if not done("a study with a plane", run(1, "one")):
            studies.finish()
            return 1
        places, rows = table(f"{folder}/one"), units(f"{folder}/one")
        check("all places", len(places) == 2 * 9 and {k[1] for k in places} == {0.0, 0.5, 1.0}, places.keys())
        compare("corners", places, ends(rows, "far", "back"))
        compare("an edit that lies there", places, {
            ("task", 0.5, 0.0): (rows[("between", "task")]["loss_edit"], rows[("between", "task")]["accuracy_edit"]),
            ("text", 1.0, 1.0): (rows[("between", "text")]["loss_edit"], rows[("between", "text")]["accuracy_edit"])})
        with h5py.File(f"{folder}/one/results.h5") as h5:
            group = h5["plane/0"]
            check("results.h5 has the edits", group.attrs["a"] in ("far", b"far") and group.attrs["data"] in
                  ("task", b"task"), dict(group.attrs))
            loss = np.array([[places[("task", x, y)][0] for x in group["places"]] for y in group["places"]])
            check("results.h5 has the losses", np.array_equal(np.array(group["loss"]), loss), group["loss"][:])
        with open(f"{folder}/one/report.html", encoding="utf-8") as file:
            text = file.read()
            check("the report has it", "The plane of two edits" in text and "x: far" in text)

        for ranks in (2, 3, 4):
            group = ["--set", "tensor_parallel=2"] if ranks == 4 else []
            if done(f"{ranks} ranks", run(ranks, f"at{ranks}", *group)):
                other = table(f"{folder}/at{ranks}")
                most = max(abs(other[k][0] - places[k][0]) / places[k][0] for k in places)
                check(f"{ranks} ranks give the same", other.keys() == places.keys() and most < 2e-5 and
                      all(other[k][1] == places[k][1] for k in places), most)

        # An edit whose types are those of the models, and a plane that goes beyond its edits, step by step.
        two = ["--set", "output.dtype=same", "--only", "drop", "--only", "back"]
        plain = [*two, "--set", "plane={a: drop, b: back, points: 4, low: -0.5, high: 1}"]
        done("without its plane", run(2, "steps", *two, "--set", "plane={a: drop, b: far}"))
        check("--only leaves it out", not os.path.exists(f"{folder}/steps/plane.csv"))
        progress, kept = f"{folder}/steps/progress", 0
        for _ in range(20):
            stopped = run(2, "steps", *plain, "--resume", "--max-time", "0.01")
            kept = sum(name.endswith(".done") for name in os.listdir(progress)) if os.path.isdir(progress) else 0
            if stopped.returncode != 75 or kept > 6: # four are of both models
                break
        check("it is stopped in the middle", stopped.returncode == 75 and kept > 6, (kept, stopped.stderr))
        last = run(2, "steps", *plain, "--resume")
        if done("and goes on", last):
            check("with what it had", last.stderr.count("are those of the earlier run") > 6, last.stderr)
            compare("corners", table(f"{folder}/steps"), ends(units(f"{folder}/steps"), "drop", "back"))
            before = open(f"{folder}/steps/plane.csv", encoding="utf-8").read()
            again = run(2, "steps", *plain, "--resume")
            done("a study that is finished", again)
            check("is not evaluated again", "are finished" not in again.stderr and "points" not in again.stderr and
                  open(f"{folder}/steps/plane.csv", encoding="utf-8").read() == before, again.stderr)
        # In parts: measured by the one that has both edits, and said to be missing when none has.
        for parts, there in (((("far", "back"), ("between", "drop")), True), ((("far", "drop"), ("between", "back")), False)):
            names = []
            for ids in parts:
                names.append(f"{folder}/part-{'-'.join(ids)}")
                only = [word for name in ids for word in ("--only", name)]
                done(f"part {ids}", run(2, os.path.basename(names[-1]), "--set", "output.report=false", *only))
            whole = f"{folder}/joined-{there}"
            joined = studies.deltapath("join", *names, "-o", whole)
            if done(f"parts {parts} join", joined):
                check("the plane is there, or said to be left out",
                      os.path.exists(f"{whole}/plane.csv") == there == ("plane" not in joined.stderr), joined.stderr)
                check("and is that of one run", not there or table(whole).keys() == places.keys() and
                      all(abs(table(whole)[k][0] - places[k][0]) < 2e-5 * places[k][0] for k in places))
        plan = run(1, "plan", "--dry-run")
        check("the plan counts it", "plane of two edits" in plan.stdout, plan.stdout)
        for word, value in (("no edit has the id 'fer' (did you mean 'far'?)", "{a: fer, b: back}"),
                            ("the same edit", "{a: far, b: far}"), ("higher high", "{a: far, b: back, high: 0.5, low: 0.5}")):
            bad = run(1, "bad", "--set", f"plane={value}")
            check(f"refused: {word}", bad.returncode == 2 and word in bad.stderr, bad.stderr)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
# seconds: 600
"""Groups of tensors left out of edits (`proof`): losses of models that are put together by hand from the bytes of the edited and
the post-trained one, measured by an ordinary study; terms and intervals taken anew; the same at every number of ranks;
the middle of left out and alone, and the blocks of the Hessian, where the loss is quadratic."""

import csv
import json
import os
import shutil
import struct
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

POST = "share/demo/llama-post"
JOB = """
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 6}]
edits:
  - {name: dare, method: dare, p: 0.5, seed: 1}
  - {name: bits, method: bitdelta}
riemann: {rule: left, points: 1}
statistics: {interval: t}
proof: {groups: layers}
output: {directory: %s, checkpoint: safetensors}
"""
STEP = """
models: {pre: share/demo/vit-pre, post: share/demo/vit-post}
data: [{name: digits, file: share/demo/digits.h5, loss: class, samples: 24}]
edits: [{name: step, method: expo, alpha: 0.005}]
riemann: {rule: gauss, points: 2}
hessian: {blocks: layers}
proof: {groups: layers}
output: {directory: %s, dtype: f32, report: false}
"""
AGAIN = """
models: {pre: %s, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 6}]
edits: [{name: back, method: expo, alpha: -0.5}]
riemann: {rule: left, points: 1}
output: {directory: %s, report: false}
"""


def table(folder):
    """proof.csv as {(edit, group): numbers}."""
    with open(f"{folder}/proof.csv", encoding="utf-8") as file:
        return {(row["edit"], row["group"]): {k: float(row[k]) if row[k] else np.nan for k in
                ("term", "change", "low", "high", "alone")} for row in csv.DictReader(file)}


def read(folder):
    """Names, types and bytes of a safetensors model."""
    model = {}
    for name in os.listdir(folder):
        if not name.endswith(".safetensors"):
            continue
        with open(f"{folder}/{name}", "rb") as file:
            n, = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(n))
            body = file.read()
        model.update({k: (v["dtype"], v["shape"], body[v["data_offsets"][0]:v["data_offsets"][1]])
                      for k, v in header.items() if k != "__metadata__"})
    return model


def write(folder, model):
    """The same without hashes, with what else the post-trained model has."""
    os.makedirs(folder)
    header, body = {}, b""
    for name, (dtype, shape, data) in model.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + body)
    for name in os.listdir(POST):
        if name.endswith(".json") and "manifest" not in name and "index" not in name:
            shutil.copy(f"{POST}/{name}", folder)


def group_of(name):
    """Label of a tensor's layer."""
    parts = name.split(".")
    return parts[2] if parts[1] == "layers" else "outside"


def mixed(folder, run, edit, group, alone):
    """Losses by sample of the edit without a group, or of the group alone, as those of an ordinary pre-trained model."""
    edited, post = read(f"{folder}/one/models/{edit}"), read(POST)
    place = f"{folder}/mixed-{edit}-{group}-{alone}"
    write(place, {k: edited[k] if (group_of(k) == group) == alone else post[k] for k in post})
    done = run(AGAIN % (place, place + "-out"), 1)
    check(f"a study of {edit} with {group} {'alone' if alone else 'left out'}", done.returncode == 0, done.stderr)
    with h5py.File(f"{place}-out/results.h5") as h5:
        return np.array(h5["edits/back/task/loss_pre"])


def against_models(folder, run, rows):
    """The golden numbers: losses of models that were put together by hand."""
    with h5py.File(f"{folder}/one/results.h5") as h5:
        for edit, group in (("dare", "outside"), ("bits", "1")):
            unit = h5[f"edits/{edit}/task"]
            loss, post = np.array(unit["loss_edit"]), np.array(unit["loss_post"])
            row = rows[(edit, group)]
            off = loss - mixed(folder, run, edit, group, False)
            half = 2.5705818 * off.std(ddof=1) / np.sqrt(len(off)) # Student's, of six samples
            scale = np.abs(loss).mean() * 1e-6
            check(f"{edit} without {group}: change", abs(row["change"] - off.mean()) < scale, (row, off.mean()))
            check(f"{edit} without {group}: interval", abs(row["low"] - off.mean() + half) < 2 * scale and
                  abs(row["high"] - off.mean() - half) < 2 * scale, (row, off.mean(), half))
            if group == "1":
                only = (mixed(folder, run, edit, group, True) - post).mean()
                check(f"{edit} with {group} alone", abs(row["alone"] - only) < scale, (row, only))


def terms(folder, rows):
    """Terms from those of the tensors; numbers of the unit from those of its groups."""
    with h5py.File(f"{folder}/one/results.h5") as h5:
        names = [n.decode() if isinstance(n, bytes) else n for n in h5["tensors/names"]]
        for edit in ("dare", "bits"):
            unit = h5[f"edits/{edit}/task"]
            part = np.array(unit["integrated"])
            changed = np.array(unit["tensor_stats"])[:, 2] > 0
            for (other, group), row in rows.items():
                mine = np.array([group_of(n) == group for n in names])
                if other == edit and changed[mine].any():
                    check(f"{edit}: term of {group}", abs(row["term"] - part[mine].sum()) < 1e-12, (row, part[mine].sum()))
                elif other == edit:
                    check(f"{edit}: no numbers of {group}, which it leaves alone", np.isnan(list(row.values())).all(), row)


def small(folder, run):
    """Where the loss is quadratic: a short step along the delta in fp32."""
    done = run(STEP % f"{folder}/step", 1)
    if done.returncode != 0:
        check("a short step", False, done.stderr)
        return
    rows = table(f"{folder}/step")
    off = [(r["change"] + r["alone"]) / 2 - r["term"] for r in rows.values()]
    apart = max(abs(r["change"] - r["term"]) for r in rows.values())
    check("the middle of left out and alone is the term", max(map(abs, off)) < 0.1 * apart, (off, apart))
    with h5py.File(f"{folder}/step/results.h5") as h5:
        unit = h5["edits/step/digits"]
        labels = unit.attrs["groups"]
        labels = (labels.decode() if isinstance(labels, bytes) else labels).split("|")
        layers = np.array(h5["tensors/layer"])
        blocks = np.array(unit["blocks"])
        sums = np.array([blocks[layers == (-1 if g == "outside" else int(g))].sum(0) for g in labels])
        between = sums.sum() - np.trace(sums)
        check("what is left over is what groups have together", abs(unit.attrs["proof_interaction"] - between) <
              0.1 * np.abs(sums - np.diag(np.diag(sums))).sum(), (unit.attrs["proof_interaction"], between, sums))


def alike(name, rows, other, scale):
    """Two tables that must agree to rounding."""
    far = max((abs(rows[k][c] - other[k][c]) for k in rows for c in rows[k] if k in other and not np.isnan(rows[k][c])),
              default=np.inf)
    same = rows.keys() == other.keys() and all(np.isnan(rows[k][c]) == np.isnan(other[k][c]) for k in rows for c in rows[k])
    check(name, same and far < scale, (far, scale, rows.keys() ^ other.keys()))


def of_one_edit(folder, run, job):
    """Where one of two edits has groups, last or first: intervals are over its groups, in summary, results and columns alike."""
    for name in ("bits", "dare"):
        plain = job.replace("checkpoint: safetensors", "checkpoint: none, report: false")
        some = run(plain.replace("/one", f"/only-{name}").replace("layers}", f"layers, edits: [{name}]}}"), 1)
        lines = some.stdout.splitlines()
        at = next((i for i, line in enumerate(lines) if "groups of 1 edit" in line), None)
        check(f"of {name} alone the summary has intervals", at is not None and "too few" not in lines[at + 1] and
              lines[at + 1].count("[") == 3, (some.stdout, some.stderr))
        with open(f"{folder}/only-{name}/results.json", encoding="utf-8") as file:
            found = json.load(file)
        whole = found["group_proof"][0]["left_out"]
        unit, = (u for u in found["units"] if u["edit"] == name)
        check(f"of {name} alone the intervals of all are its own", whole["edits"] == 1 and
              whole["slope"] == [unit["proof_slope" + end] for end in ("", "_low", "_high")] and
              None not in whole["slope"], (whole, unit["proof_slope_low"]))


def of_one_sample(folder, run, job):
    """Where one sample has all of the weight nothing has an interval."""
    shutil.copy("share/demo/task.h5", f"{folder}/weighted.h5")
    with h5py.File(f"{folder}/weighted.h5", "r+") as file:
        file["weights"] = [1e300] + [1.0] * (len(file["offsets"]) - 2)
    done = run(job.replace("checkpoint: safetensors", "checkpoint: none, report: false").replace("/one", "/weighted").replace(
        "share/demo/task.h5", f"{folder}/weighted.h5"), 2)
    rows = table(f"{folder}/weighted") if done.returncode == 0 else {}
    check("of one sample in effect groups have no intervals", rows and all(np.isnan(r["low"]) and np.isnan(r["high"])
          for r in rows.values()) and not all(np.isnan(r["change"]) for r in rows.values()), (rows, done.stderr))
    with open(f"{folder}/weighted/results.json", encoding="utf-8") as file:
        units = json.load(file)["units"]
    check("nor what they do together", all(u["verdict"] == "undecided" and u["proof_interaction_low"] is None and
          u["proof_interaction"] is not None for u in units), units)
    check("and the summary says so without numbers that are none", done.stdout.count("no interval") >= 2 and
          "nan" not in done.stdout, done.stdout)


def main():
    """All of it in one temporary folder."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        def run(job, ranks, *options, sets=()):
            return studies.study(f"{folder}/job.yaml", job, ranks, *sets, options=options)

        job = JOB % f"{folder}/one"
        first = run(job, 1)
        check("a study that leaves groups out", first.returncode == 0, first.stderr)
        if first.returncode != 0:
            return studies.finish()
        rows = table(f"{folder}/one")
        check("its summary has the correlation", "  left out: correlation" in first.stdout and
              "groups of 2 edits" in first.stdout, first.stdout)
        terms(folder, rows)
        against_models(folder, run, rows)
        of_one_edit(folder, run, job)
        of_one_sample(folder, run, job)
        small(folder, run)
        with open(f"{folder}/one/report.html", encoding="utf-8") as file:
            text = file.read()
            check("the report has it", "Terms of groups and what the groups change" in text and
                  "term of the group [nats]" in text)
        with open(f"{folder}/one/results.json", encoding="utf-8") as file:
            found = json.load(file)
            left, = (u["left_out"] for u in found["units"] if u["edit"] == "dare")
            check("results.json has it", [g["group"] for g in left] == [g for e, g in rows if e == "dare"] and
                  left[1]["change"] == rows[("dare", left[1]["group"])]["change"] and
                  found["group_proof"][0]["left_out"]["edits"] == 2, left)
        plain = job.replace("checkpoint: safetensors", "checkpoint: none")
        for ranks in (2, 3, 4):
            other = run(plain.replace("/one", f"/at{ranks}"), ranks, sets=["tensor_parallel=2"] if ranks == 4 else [])
            if other.returncode == 0:
                alike(f"{ranks} ranks give the same", rows, table(f"{folder}/at{ranks}"), 2e-5)
            else:
                check(f"{ranks} ranks", False, other.stderr)

        steps = plain.replace("/one", "/steps").replace("samples: 6", "samples: 2")
        some = run(steps, 1, "--only", "dare", sets=["proof={groups: layers, edits: [bits]}", "output.report=false"])
        check("an edit that no pattern names leaves no groups out", some.returncode == 0 and
              not os.path.exists(f"{folder}/steps/proof.csv"), some.stderr)
        options = ["proof={groups: layers, edits: [bits], alone: false}", "output.report=false"]
        progress, kept = f"{folder}/steps/progress", 0
        for _ in range(12):
            stopped = run(steps, 1, "--resume", "--max-time", "0.01", sets=options)
            kept = sum(n.endswith(".done") for n in os.listdir(progress)) if os.path.isdir(progress) else 0
            if stopped.returncode != 75 or kept > 4: # post, pre, the end of the edit, two groups
                break
        check("it is stopped among the groups", stopped.returncode == 75 and kept > 4, (kept, stopped.stderr))
        done = run(steps, 1, "--resume", sets=options)
        found = table(f"{folder}/steps") if done.returncode == 0 else {}
        check("and goes on with what it had", done.stderr.count("are those of the earlier run") > 3, done.stderr)
        check("the other edit's unit stays, without groups", "dare: finished before" in done.stderr and
              {e for e, _ in found} == {"bits"} and all(np.isnan(r["alone"]) for r in found.values()), done.stderr)
        plans = [run(plain, 1, "--dry-run", sets=[f"proof={{groups: layers, {more}}}"]).stdout
                 for more in ("edits: [bits]", "alone: false", "")]
        passes = [int(line.split()[-1]) for plan in plans for line in plan.splitlines() if "passes over a data set" in line]
        groups = len({g for _, g in rows})
        check("the plan counts it", len(passes) == 3 and passes[0] == passes[1] and
              passes[2] - passes[0] == 2 * groups, passes)
        for word, value in (("no edit has the id 'bite' (did you mean 'bits'?)", "{groups: layers, edits: [bite]}"),
                            ("proof needs groups", "{edits: [bits]}"), ("layers|modules", "{groups: layer}")):
            bad = run(plain, 1, sets=[f"proof={value}"])
            check(f"refused: {word}", bad.returncode == 2 and word in bad.stderr, bad.stderr)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

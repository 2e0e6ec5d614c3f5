#!/usr/bin/python3
# seconds: 300
"""What is chosen from data is chosen on other samples than those that judge it: the choice of a study with `choose` is
that of a study of those samples alone, the verdict that of the others alone; where the samples are the same the
results say so; `judge` leaves other data sets out."""

import glob
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
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 24, choose: 0.5, choose_seed: 4}]
edits: [{name: best, method: expo, alpha: auto}, {name: fit, method: bitdelta, calibrate: term},
  {name: sign, method: bias, k: 0.5, by: gradient}, {name: drop, method: drop, p: 0.5}]
riemann: {rule: left, points: 1}
tensor_parallel: 1  # sums over two ranks would round what is the same differently
select: {include: ["model.layers.*"]}
output: {directory: %s, report: false}
"""


def run(folder, name, ranks, *sets, options=(), job=JOB):
    """One study: its units by edit and data set, and what it said."""
    path = f"{folder}/{name}.yaml"
    done = studies.study(path, job % f"{folder}/{name}", ranks, *sets, options=options)
    if done.returncode:
        return {}, done.stderr
    with open(f"{folder}/{name}/results.json", encoding="utf-8") as file:
        units = json.load(file)["units"]
    return {(u["edit"], u["data"]): u for u in units}, done.stderr + done.stdout


def near(a, b, tolerance=2e-5):
    """Whether two numbers agree, relative to their size."""
    return abs(a - b) <= tolerance * max(abs(b), 1e-3)


def rows(folder, name, edit="drop", data="task"):
    """Samples of the file that judge a unit, and their changes."""
    with h5py.File(f"{folder}/{name}/results.h5") as file:
        group = file[f"edits/{edit}/{data}"]
        return np.array(group["sample_rows"]).astype(int), np.array(group["loss_edit"]) - np.array(group["loss_post"])


def scales(folder, name, edit, data):
    """Factors of the tensors that an edit touches."""
    with h5py.File(f"{folder}/{name}/results.h5") as file:
        group = file[f"edits/{edit}/{data}"]
        columns = [c.decode() for c in group["tensor_stats_columns"]]
        values = np.array(group["tensor_stats"])
    return values[values[:, columns.index("delta_norm")] > 0, columns.index("scale")]


def subset(path, keep):
    """A file of some samples of the task."""
    with h5py.File("share/demo/task.h5") as source, h5py.File(path, "w") as out:
        offsets = np.array(source["offsets"])
        parts = [np.arange(offsets[i], offsets[i + 1]) for i in keep]
        for name in ("tokens", "loss_mask"):
            out[name] = np.array(source[name])[np.concatenate(parts)]
        out["offsets"] = np.cumsum([0] + [len(p) for p in parts]).astype(np.int64)
        for key, value in source.attrs.items():
            out.attrs[key] = value


def apart(folder):
    """Choices and verdicts against studies of each part alone."""
    units, said = run(folder, "whole", 2)
    check("a study with choose", len(units) == 4, said)
    if len(units) != 4:
        return
    judging, change = rows(folder, "whole")
    choosing = np.setdiff1d(np.arange(24), judging)
    check("each part has half of the samples", len(judging) == len(choosing) == 12, judging)
    check("the log says how many", "task: 12 samples only choose, 12 judge" in said, said)
    subset(f"{folder}/choosing.h5", choosing)
    subset(f"{folder}/judging.h5", judging)
    data = "data=[{name: task, file: %s/%s.h5, loss: lm}]"
    chosen, said = run(folder, "choosing", 1, data % (folder, "choosing"))
    check("a study of what chooses", len(chosen) == 4, said)
    judged, said = run(folder, "judging", 1, data % (folder, "judging"))
    check("a study of what judges", len(judged) == 4, said)
    for edit in ("best", "fit", "sign", "drop"):
        unit, choice, verdict = (x[edit, "task"] for x in (units, chosen, judged))
        selects = edit != "drop"
        check(f"{edit}: chosen on", unit["chosen_on"] == ("task~choose" if selects else "") and
              choice["chosen_on"] == ("task" if selects else ""), unit["chosen_on"])
        check(f"{edit}: held out", unit["held_out"] == (1.0 if selects else None) and
              choice["held_out"] == (0.0 if selects else None), unit["held_out"])
        told = "chosen on the samples that judge it" in choice["reason"]
        check(f"{edit}: the reason", told == selects and "chosen" not in unit["reason"], choice["reason"])
        check(f"{edit}: its change on the samples that choose", near(unit["choose_change"], choice["change"]) and
              near(unit["choose_accuracy"], choice["accuracy_edit"]), (unit["choose_change"], choice["change"]))
        check(f"{edit}: losses of those that judge", near(unit["loss_post"], verdict["loss_post"]) and
              near(unit["loss_pre"], verdict["loss_pre"]) and choice["choose_change"] is None, unit)
    for key in ("found_alpha", "found_loss", "slope_at_post"):
        a, b = (x["best", "task"]["parameters"][key] for x in (units, chosen))
        check(f"best: {key}", near(a, b, 1e-3), (a, b))
    check("best: something is found", units["best", "task"]["parameters"]["advice"] == "extrapolate" and
          units["best", "task"]["parameters"]["found_alpha"] > 0.01, units["best", "task"]["parameters"])
    a, b = (scales(folder, name, "fit", "task") for name in ("whole", "choosing"))
    other = scales(folder, "judging", "fit", "task")
    check("fit: the factors", len(a) > 4 and np.allclose(a, b, rtol=1e-4) and not np.allclose(a, other, rtol=1e-2), (a, b))
    check("drop: nothing is chosen, all is judged alike", near(units["drop", "task"]["change"],
          judged["drop", "task"]["change"]) and near(change.mean(), judged["drop", "task"]["change"]))
    zeros(folder)
    ranks(folder, units)
    resumed(folder)


def weights(folder, name):
    """A bf16 tensor of a safetensors directory in f32."""
    for path in glob.glob(f"{folder}/*.safetensors"):
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            entry = json.loads(file.read(size)).get(name)
            if entry:
                begin, end = entry["data_offsets"]
                file.seek(8 + size + begin)
                return (np.frombuffer(file.read(end - begin), "<u2").astype(np.uint32) << 16).view(np.float32)
    raise KeyError(name)


def zeros(folder):
    """Exact zeros of the delta, which stand next to the factor."""
    with h5py.File(f"{folder}/whole/results.h5") as file:
        names = [n.decode() for n in file["tensors/names"][()]]
        group = file["edits/fit/task"]
        columns = [c.decode() for c in group["tensor_stats_columns"]]
        values = np.array(group["tensor_stats"])
    shares = dict(zip(names, values[:, columns.index("share_zero")]))
    name = "model.layers.0.mlp.up_proj.weight"
    pre, post = (weights(f"share/demo/llama-{side}", name) for side in ("pre", "post"))
    check("fit: share of exact zeros", abs(shares[name] - np.mean(post == pre)) < 1e-15, shares[name])


def ranks(folder, units):
    """The same split and the same choices at other meshes."""
    for count, group in ((1, 1), (3, 1), (4, 2)):
        others, said = run(folder, f"at{count}", count, f"tensor_parallel={group}")
        same = bool(others) and (rows(folder, f"at{count}")[0] == rows(folder, "whole")[0]).all()
        check(f"at {count} ranks: the same samples judge", same, said)
        if same:
            # A product with the gradient that is 0 but for rounding has no sign of its own.
            worst = max((abs(u[key] - others[at][key]) / (20 if at[0] == "sign" else 1), at, key)
                        for at, u in units.items() for key in ("change", "choose_change", "estimate"))
            check(f"at {count} ranks: the same numbers", worst[0] < 1e-4, worst)


def resumed(folder):
    """Another split is another study; the same one is finished."""
    for changes, made in (((), False), (("data.0.choose_seed=5",), True), (("data.0.choose=0.25",), True)):
        before = os.stat(f"{folder}/whole/units/drop@task.h5").st_mtime_ns
        units, said = run(folder, "whole", 2, *changes, options=("--resume",))
        after = os.stat(f"{folder}/whole/units/drop@task.h5").st_mtime_ns
        check(f"--resume with {changes}", len(units) == 4 and (before != after) == made, said)
    check("a quarter chooses", len(rows(folder, "whole")[0]) == 18)


def same_samples(folder):
    """`choose` and `judge` of edits, and samples that two data sets share."""
    job = JOB.replace("data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 24, choose: 0.5, choose_seed: 4}]",
                      "data: [{name: few, file: share/demo/task.h5, loss: lm, samples: 8},"
                      "{name: many, file: share/demo/task.h5, loss: lm, samples: 16}]")
    edits = ("edits=[{name: best, method: expo, alpha: auto, choose: few, judge: many}, "
             "{name: fit, method: bitdelta, calibrate: term, choose: many, judge: few}, "
             "{name: own, method: bitdelta, calibrate: significant}, {name: drop, method: drop, p: 0.5, seeds: 2}]")
    units, said = run(folder, "judge", 2, edits, job=job)
    want = {("best", "many"), ("fit", "few"), ("own", "few"), ("own", "many")} | {
        (f"drop-seed{k}", d) for k in range(2) for d in ("few", "many")}
    check("only what judges has a unit", set(units) == want, (sorted(units), said))
    if set(units) != want:
        return
    best, fit, own = units["best", "many"], units["fit", "few"], units["own", "few"]
    check("half is held out", best["held_out"] == 0.5 and "chosen on 50 % of the samples" in best["reason"], best)
    check("nothing is held out", fit["held_out"] == own["held_out"] == 0.0, fit)
    check("the summary says so", said.count("(chosen on samples that judge it)") >= 8, said)
    check("corrected for the edits that are judged there", units["own", "few"]["p_adjusted"] <= 1, units)
    others, said = run(folder, "judge", 2, edits, job=job, options=("--resume",))
    check("--resume finds all of them", set(others) == want and "all 5 edits were finished" in said, said)
    verified = studies.deltapath("verify", f"{folder}/judge")
    check("verify", verified.returncode == 0, verified.stderr)
    parts = [f"{folder}/part{k}" for k in range(2)]
    for k, part in enumerate(parts):
        run(folder, f"part{k}", 1, edits, job=job, options=("--only", f"{k}/2"))
    joined = studies.deltapath("join", *parts, "-o", f"{folder}/joined")
    check("join", joined.returncode == 0, joined.stderr)
    if joined.returncode == 0:
        with open(f"{folder}/joined/results.json", encoding="utf-8") as file:
            check("join has the same units", {(u["edit"], u["data"]) for u in json.load(file)["units"]} == want)


def undecided(folder):
    """A slope that cannot be told from zero leaves alpha at 0: nothing is changed."""
    units, said = run(folder, "undecided", 2, "data=[{name: task, file: share/demo/task.h5, loss: lm, samples: 2}]",
                      "edits=[{name: best, method: expo, alpha: auto}, "
                      "{name: layers, method: expo, alpha: auto, groups: layers}]")
    check("two samples decide nothing", len(units) == 2, said)
    for unit in units.values():
        found = unit["parameters"]
        check(f"{unit['edit']}: alpha stays 0", found["advice"] == "undecided" and found["found_alpha"] == 0 and
              found["trough"] == "kept" and found["gradients"] == 1 and unit["change"] == 0, unit)


def main():
    """All parts."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        apart(folder)
        same_samples(folder)
        undecided(folder)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
# seconds: 600
"""Low rank: a plan, a run and one that goes on choose the same groups of ranks, in whatever memory; and the edits of a sweep
share one decomposition of a matrix, which changes no bit."""
import json
import os
import re
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

CONFIG = json.dumps({"architectures": ["Other"], "model_type": "other"})
SHAPES = {"a.weight": (300, 270), "b.weight": (280, 120), "c.weight": (120, 280), "d.weight": (40, 30), "e.bias": (9,)}
# As many as keep all groups of one rank busy; a larger group takes less memory of each rank.
TALL = {f"t{i:02}.weight": (900, 400) for i in range(12)}
JOB = """
models: {pre: AT/tall/pre, post: AT/tall/post}
edits: [{name: one, method: lowrank, rank: 12, svd: exact}, {name: any, method: lowrank, energy: 0.5}]
riemann: off
output: {directory: %s, checkpoint: none, report: false}
"""
SWEEP = """
models: {pre: AT/pre, post: AT/post}
edits:
  - {name: low, method: lowrank, rank: [8, 30, 16]}
  - {name: share, method: lowrank, energy: [0.2, 0.5], seed: [1, 2]}
  - {name: then, method: [{method: prune, keep: 0.5}, {method: lowrank, sparsity: [0.9, 0.8]}, {method: bitdelta}]}
  - {name: once, method: lowrank, rank: 5}
riemann: off
svd_group: 1
output: {directory: %s, checkpoint: safetensors, report: false}
"""
LINE = r"low rank: (\d+) matrices decomposed, (\d+) cut from .*?ranks that share a matrix: (\d+)(?: to (\d+))?"


def pair(folder, shapes):
    draw = np.random.default_rng(5)
    pre = {name: draw.standard_normal(shape) for name, shape in shapes.items()}
    post = {name: value + 0.01 * draw.standard_normal(value.shape) for name, value in pre.items()}
    studies.save_model(f"{folder}/pre", CONFIG, pre)
    studies.save_model(f"{folder}/post", CONFIG, post)


def planned(path, ranks, *options):
    """The plan of a job as JSON, or None where it does not fit."""
    done = studies.deltapath("plan", path, "--ranks", str(ranks), "--json", *options)
    return json.loads(done.stdout) if done.returncode == 0 else None


def said(done):
    """What a run says of its low rank: matrices decomposed, cut, and the ranks of a group."""
    line = re.search(LINE, done.stderr)
    if not line or done.returncode != 0:
        return done.stderr[-400:]
    made, cut, least, most = line.groups()
    return int(made), int(cut), int(least), int(most or least)


def asked(plan):
    low = plan["low_rank"]
    return low["decomposed"], low["cut"], low["least_group"], low["most_group"]


def groups(folder):
    """Less and less memory, down to what does not suffice."""
    path, seen = f"{folder}/job.yaml", {}
    for ranks in (1, 2, 3, 4):
        job = JOB.replace("AT", folder) % f"{folder}/g{ranks}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(job)
        last = None
        for memory in [4096] + list(range(34, 8, -1)):
            option = ("--memory", f"{memory}M")
            plan = planned(path, ranks, *option)
            if plan is None:
                break
            least, after = memory, last
            last = asked(plan)
            if after == last:
                continue
            seen.setdefault(ranks, []).append(last[2:])
            done = studies.study(path, job, ranks, "output.overwrite=true", options=option)
            check(f"{ranks} ranks in {memory} MiB: groups of {last[2:]}", said(done) == last, (said(done), last))
            if ranks > 1:
                at = JOB.replace("AT", folder) % f"{folder}/g{ranks}-{memory}"
                stopped = studies.study(path, at, ranks, options=option, fault="study.edit:0:2")
                done = studies.study(path, at, ranks, options=(*option, "--resume"))
                check(f"{ranks} ranks in {memory} MiB: the same when it goes on", stopped.returncode != 0 and
                      done.returncode == 0 and last[2] <= said(done)[2] <= said(done)[3] <= last[3],
                      (stopped.returncode, said(done)))
        done = studies.study(path, job, ranks, "output.overwrite=true", options=("--memory", f"{least}M"))
        check(f"{ranks} ranks in {least} MiB, the least: groups of {last[2:]}", said(done) == last, (said(done), last))
    check("one rank shares with none", seen[1] == [(1, 1)], seen)
    check("less memory, larger groups", all(seen[ranks][-1][1] > seen[ranks][0][1] for ranks in (2, 3, 4)), seen)


def models(folder):
    return {name: studies.load_model(f"{folder}/models/{name}") for name in sorted(os.listdir(f"{folder}/models"))}


def numbers(folder):
    with open(f"{folder}/results.json", encoding="utf-8") as file:
        return [{key: value for key, value in unit.items() if key != "seconds"} for unit in json.load(file)["units"]]


def sweep(folder):
    path = f"{folder}/sweep.yaml"
    text = SWEEP.replace("AT", folder)
    first = studies.study(path, text % f"{folder}/s1", 1)
    want = models(f"{folder}/s1") if first.returncode == 0 else {}
    check("a sweep runs", len(want) == 10, first.stderr[-600:])
    matrices = sum(len(shape) == 2 for shape in SHAPES.values())
    # Three ranks from one; two energies from one for each seed; two shares from one; one alone.
    made, cut = matrices * (1 + 2 + 1 + 1), matrices * (2 + 2 + 1)
    check("each matrix is decomposed once for a list", said(first)[:2] == (made, cut), said(first))
    check("as planned", asked(planned(path, 1)) == said(first), (planned(path, 1)["low_rank"], said(first)))
    for ranks in (2, 3, 4):
        done = studies.study(path, text % f"{folder}/s{ranks}", ranks)
        check(f"the same at {ranks} ranks", done.returncode == 0 and models(f"{folder}/s{ranks}") == want, done.stderr[-400:])
        check(f"and as often at {ranks}", said(done)[:2] == (made, cut) and asked(planned(path, ranks)) == said(done), said(done))
    for name in want:
        done = studies.study(path, text % f"{folder}/only-{name}", 2, options=("--only", name))
        got = models(f"{folder}/only-{name}") if done.returncode == 0 else {}
        check(f"{name} alone", got.get(name) == want[name] and len(got) == 1 and said(done)[1] == 0, done.stderr[-400:])
    needs = planned(path, 2)["gib_per_rank"]
    little = ("--memory", str(int((needs["peak"] - needs["decompositions"]) * 2**30) + 50000))
    plan = planned(path, 2, *little)
    done = studies.study(path, text % f"{folder}/little", 2, options=little)
    check("without room it is decomposed again", done.returncode == 0 and models(f"{folder}/little") == want and
          said(done)[0] > made and asked(plan)[0] >= said(done)[0], (plan and plan["low_rank"], said(done)))
    resumed(folder, path, text, want)


def resumed(folder, path, text, want):
    at = f"{folder}/resumed"
    done = studies.study(path, text % at, 2, fault="study.edit:0:2")
    check("stopped in the middle", done.returncode != 0 and len(models(at)) < 4, done.stderr[-400:])
    done = studies.study(path, text % at, 3, options=("--resume",))
    check("what goes on ends with the same", done.returncode == 0 and models(at) == want, done.stderr[-400:])
    # A rank below the largest makes no other edit again, a larger one all but the largest.
    done = studies.study(path, text.replace("[8, 30, 16]", "[8, 30, 16, 4]") % at, 1, options=("--resume",))
    check("a smaller rank more", done.stderr.count("finished before") == 10 and done.returncode == 0, done.stderr[-600:])
    done = studies.study(path, text.replace("[8, 30, 16]", "[8, 24, 16]").replace("1, 2]}", "1, 2]}") % at, 1,
                         options=("--resume",))
    check("another largest rank", done.returncode == 0 and done.stderr.count("finished before") == 7 and
          models(at)["low-rank8"] != want["low-rank8"], done.stderr[-600:])


def paths(folder):
    """Edits whose paths are walked are made one at a time, with the same bytes."""
    done = studies.deltapath("synthetic", "share/shapes/llama-3-70b.json", f"{folder}/llama", "--set", "hidden_size=64",
                             "--set", "intermediate_size=96", "--set", "num_hidden_layers=1", "--set", "vocab_size=64",
                             "--set", "num_attention_heads=4", "--set", "num_key_value_heads=2")
    check("a pair", done.returncode == 0, done.stderr)
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
    import make_models
    make_models.write_data(f"{folder}/data.h5", [[(5 * s + i) % 64 for i in range(20)] for s in range(4)])
    text = f"""
models: {{pre: {folder}/llama/pre, post: {folder}/llama/post}}
data: [{{name: d, file: {folder}/data.h5, loss: lm}}]
edits: [{{name: low, method: lowrank, rank: [2, 8, 4]}}]
svd_group: 1
output: {{directory: %s, checkpoint: safetensors, report: false}}
"""
    path = f"{folder}/path.yaml"
    first = studies.study(path, text % f"{folder}/off", 1, "riemann=off")
    want = models(f"{folder}/off") if first.returncode == 0 else {}
    matrices = said(first)[0]
    check("three ranks from one", len(want) == 3 and said(first)[1] == 2 * matrices, first.stderr[-400:])
    for ranks in (1, 2):
        done = studies.study(path, text % f"{folder}/p{ranks}", ranks, "riemann={rule: left, points: 1}")
        check(f"along paths at {ranks} ranks", done.returncode == 0 and models(f"{folder}/p{ranks}") == want and
              said(done)[:2] == (matrices, 2 * matrices), done.stderr[-400:])


def main():
    os.environ.pop("DELTAPATH_QUIET", None)
    with tempfile.TemporaryDirectory() as folder:
        pair(folder, SHAPES)
        os.mkdir(f"{folder}/tall")
        pair(f"{folder}/tall", TALL)
        groups(folder)
        sweep(folder)
        paths(folder)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

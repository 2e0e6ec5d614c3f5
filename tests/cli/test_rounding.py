#!/usr/bin/python3
# seconds: 300
"""What rounding to the output's type takes back of an edit: against numpy, with the edit itself from an output in f32, and
from its formula; the same bits at 1 to 4 ranks; said in log, results and report where it matters, and nowhere else."""

import json
import os
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

SHAPES = {"layers.0.big.weight": (1100, 1001), "layers.0.small.weight": (31, 5), "layers.1.norm.weight": (77,),
          "other.weight": (64, 64)} # the first has more than one cell, and a last run that fills no vector
EDITS = """[{name: dare, method: dare, p: [0.1, 0.5], seed: 3}, {name: drop, method: drop, p: 0.1},
  {name: expo, method: expo, alpha: 0.2}, {name: bit, method: bitdelta, tensors: all}, {name: few, method: multibit, bits: 2},
  {name: both, method: [{method: drop, p: 0.2}, {method: expo, alpha: 0.3}]}"""
JOB = """
models: {pre: %(at)s/pre, post: %(at)s/post}
edits: %(edits)s]
select: {include: ["layers.*"]}
output: {directory: %%s, checkpoint: safetensors}
"""


def to_bf16(x):
    """Codes, rounded to nearest even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(codes):
    """Their values."""
    return (codes.astype(np.uint32) << 16).view(np.float32)


def save(folder, tensors):
    """A folder of bf16 codes, or of f32 values."""
    os.mkdir(folder)
    header, data = {}, b""
    for name in sorted(tensors):
        value = tensors[name].tobytes()
        header[name] = {"dtype": "BF16" if tensors[name].dtype == np.uint16 else "F32", "shape": list(tensors[name].shape), "data_offsets": [len(data), len(data) + len(value)]}
        data += value
    text = json.dumps(header).encode()
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        file.write("{}")


def load(path):
    """Values of a file of safetensors."""
    with open(path, "rb") as file:
        raw = file.read()
    start = 8 + int.from_bytes(raw[:8], "little")
    out = {}
    for name, entry in json.loads(raw[8:start]).items():
        if name == "__metadata__":
            continue
        a, b = (start + x for x in entry["data_offsets"])
        values = np.frombuffer(raw[a:b], dtype=np.uint16 if entry["dtype"] == "BF16" else np.float32)
        out[name] = (from_bf16(values) if entry["dtype"] == "BF16" else values).reshape(entry["shape"])
    return out


def pair(folder):
    """Deltas of one or two steps of bf16, more than half of them zero."""
    rng = np.random.default_rng(5)
    pre = {n: to_bf16(0.02 * rng.standard_normal(s)) for n, s in SHAPES.items()}
    steps = {n: rng.integers(-2, 3, s) * (rng.random(s) < 0.5) for n, s in SHAPES.items()}
    post = {n: (pre[n].astype(np.int32) + steps[n]).astype(np.uint16) for n in SHAPES}
    save(f"{folder}/pre", pre)
    save(f"{folder}/post", post)
    # Values between those of bf16: rounding moves all of them, and may turn the sign of E.
    between = {n: (1e-3 * rng.standard_normal(s)).astype(np.float32) for n, s in SHAPES.items()}
    os.mkdir(f"{folder}/f32")
    save(f"{folder}/f32/pre", {n: from_bf16(pre[n]) * (1 + between[n]) for n in SHAPES})
    save(f"{folder}/f32/post", {n: from_bf16(post[n]) * (1 + between[n]) for n in SHAPES})
    return {n: from_bf16(v) for n, v in pre.items()}, {n: from_bf16(v) for n, v in post.items()}


def sizes(exact, rounded):
    """Sum of |E| and of E as written along it."""
    exact, rounded = exact.astype(float), rounded.astype(float)
    return np.abs(exact).sum(), (np.where(exact < 0, -1.0, 1.0) * rounded).sum()


def shares(parts):
    """Share that rounding takes back, by tensor and of all."""
    rows = {n: 1 - kept / size if size > 0 else np.nan for n, (size, kept) in parts.items()}
    size, kept = np.sum(list(parts.values()), axis=0)
    return rows, 1 - kept / size


def found(folder, name, edit):
    """The same of the results, and the bits of the column."""
    with h5py.File(f"{folder}/{name}/results.h5") as file:
        group = file[f"edits/{edit}"]
        group = group[list(group)[0]] if "tensor_stats" not in group else group
        columns = [c.decode() for c in group["tensor_stats_columns"]]
        column = np.array(group["tensor_stats"])[:, columns.index("rounding")]
        names = [n.decode() for n in file["tensors/names"]]
    with open(f"{folder}/{name}/results.json", encoding="utf-8") as file:
        unit = next(u for u in json.load(file)["units"] if u["edit"] == edit)
    return dict(zip(names, column)), unit["rounding"], column.tobytes()


def run(folder, name, ranks, *sets, more=""):
    """A study; what it said, or None."""
    results, done = studies.results_of(folder, name, JOB % {"at": folder, "edits": EDITS + more}, ranks, *sets)
    check(f"{name} ends", results is not None, done.stderr)
    return done.stderr if results is not None else None


def by_formula(pre, post):
    """E before rounding of the edits that draw nothing."""
    delta = {n: post[n] - pre[n] for n in pre}
    out = {"expo": {n: np.float32(0.2) * d for n, d in delta.items()}}
    out["bit"] = {n: np.float32(np.abs(d).mean(dtype=float)) * np.sign(d) - d if d.ndim == 2 else 0 * d
                  for n, d in delta.items()}
    return out


def main():
    """All of it."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        pre, post = pair(folder)
        said = run(folder, "one", 1, more=", {name: full, method: lowrank, sparsity: 0}")
        wide = run(folder, "wide", 2, "output.dtype=f32")
        if said is None or wide is None:
            sys.exit(studies.finish())
        names = ["dare-p0.1", "dare-p0.5", "drop", "expo", "bit", "few", "both"]
        touched = [n for n in SHAPES if n.startswith("layers")]
        formulas, levels = by_formula(pre, post), {}
        for edit in names:
            narrow = load(f"{folder}/one/models/{edit}/model.safetensors")
            exact = load(f"{folder}/wide/models/{edit}/model.safetensors")
            parts = {n: sizes(exact[n] - post[n], narrow[n] - post[n]) for n in touched}
            rows, total = shares(parts)
            got, unit, _ = found(folder, "one", edit)
            check(f"{edit}: by tensor", all(np.isclose(got[n], rows[n], rtol=0, atol=2e-4, equal_nan=True) for n in touched)
                  and np.isnan(got["other.weight"]), (got, rows))
            check(f"{edit}: of all", abs(unit - total) < 2e-4, (unit, total))
            if edit in formulas:
                parts = {n: sizes(formulas[edit][n], narrow[n] - post[n]) for n in touched}
                check(f"{edit}: by its formula", abs(unit - shares(parts)[1]) < 2e-4, (unit, shares(parts)[1]))
            warned = f"{edit}: rounding to BF16" in said
            check(f"{edit}: said where it matters", warned == (abs(total) > 0.1), (total, said))
            levels[edit] = total
        check("a factor of 1.11 is lost, one of 2 is not, and what is dropped is gone", 0.49 < levels["dare-p0.1"] < 0.51 and
              abs(levels["dare-p0.5"]) < 2e-3 and abs(levels["drop"]) < 1e-6 and levels["expo"] > 0.9 and
              levels["bit"] < -0.1, levels)
        check("nothing is said in f32", "rounding to" not in wide and
              all(abs(found(folder, "wide", e)[1]) < 1e-9 for e in names), wide)
        full = found(folder, "one", "full")[1]
        check("an edit that is rounding itself is not judged", full is None or "full: rounding" not in said, (full, said))
        report(folder)
        converted(folder, touched)
        for ranks in (2, 3, 4):
            run(folder, f"r{ranks}", ranks)
            same = all(found(folder, f"r{ranks}", e)[1:] == found(folder, "one", e)[1:] for e in names)
            check(f"the same bits at {ranks} ranks", same)
    sys.exit(studies.finish())


def converted(folder, touched):
    """From f32 to bf16."""
    models = f"models={{pre: {folder}/f32/pre, post: {folder}/f32/post}}"
    run(folder, "all", 1, models)
    run(folder, "less", 3, models, "output.dtype=bf16")
    post = load(f"{folder}/f32/post/model.safetensors")
    for edit in ("dare-p0.1", "expo", "both"):
        narrow, exact = (load(f"{folder}/{n}/models/{edit}/model.safetensors") for n in ("less", "all"))
        parts = {n: sizes(exact[n] - post[n], narrow[n] - post[n]) for n in touched}
        plain = sum(np.abs(narrow[n] - post[n]).sum(dtype=float) for n in touched)
        rows, total = shares(parts)
        got, unit, _ = found(folder, "less", edit)
        good = all(np.isclose(got[n], rows[n], rtol=1e-3, atol=2e-4) for n in touched) and np.isnan(got["other.weight"])
        check(f"{edit} from f32 to bf16", good and abs(unit - total) < 2e-4 and plain > 1.05 * sum(p[1] for p in parts.values()),
              (got, rows, unit, total))


def report(folder):
    """The report says it of the edits of which the log does."""
    with open(f"{folder}/one/report.html", encoding="utf-8") as file:
        page = file.read()
    rows = [r for r in page.split("<tr>") if "rounding to the output type" in r]
    check("the report says so too", len(rows) >= 3 and any("dare-p0.1" in r and "takes back 50" in r for r in rows) and
          any("adds" in r for r in rows) and not any("dare-p0.5" in r for r in rows), rows)


if __name__ == "__main__":
    main()

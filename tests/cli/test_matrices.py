#!/usr/bin/python3
"""Terms of the matrices that are stored together: those of golden models against the slices of gradient and edit that
the modelling code of each form takes, in studies at 1 to 4 ranks; kinds of module in results.json follow them."""

import json
import os
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import results as results_tool

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden")
JOB = """
models: {pre: %(folder)s/pre, post: %(folder)s/post}
data: [{name: task, file: %(folder)s/data.h5, loss: lm}]
edits: [{name: back, method: expo, alpha: -1}]
riemann: {rule: left, points: 2}
output: {directory: %(folder)s/%(name)s, checkpoint: none, report: false}
"""


def rows(sizes, names):
    ends = np.cumsum(sizes)
    return lambda w: {n: w[e - s:e] for n, s, e in zip(names, sizes, ends)}


def phi3(name, w, c):
    width = c["hidden_size"] // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * width, c["num_key_value_heads"] * width
    if name.endswith("qkv_proj.weight"):
        return rows((q, kv, kv), "qkv")(w)
    return rows(2 * (c["intermediate_size"],), ("gate", "up"))(w) if name.endswith("gate_up_proj.weight") else {}


def gpt_neox(name, w, c):
    if "query_key_value" not in name:
        return {}
    heads = c["num_attention_heads"]
    split = w.reshape(heads, 3, c["hidden_size"] // heads, -1)
    return {n: split[:, i] for i, n in enumerate("qkv")}


def gpt2(name, w, c):
    return dict(zip("qkv", np.split(w, 3, axis=-1))) if "c_attn" in name else {}


def experts(name, w, c):
    """Rows of gate, then up, of each expert; of gpt-oss alternating columns."""
    out = {}
    for e in range(len(w) if "experts." in name else 0):
        if "gate_up_proj" not in name:
            out[str(e)] = w[e]
        elif c["model_type"] == "gpt_oss":
            out.update({f"{e}.gate": w[e][..., ::2], f"{e}.up": w[e][..., 1::2]})
        else:
            out.update({f"{e}.gate": w[e][:c_units(w)], f"{e}.up": w[e][c_units(w):]})
    return out


def c_units(w):
    return w.shape[1] // 2


def read(path):
    with h5py.File(path) as f:
        config = json.loads(bytes(f.attrs["config"]))
        model = {kind: {} for kind in ("tensors", "edit", "grad")}
        for kind, values in model.items():
            f[kind].visititems(lambda n, v: values.update({n: v[()]}) if isinstance(v, h5py.Dataset) else None)
        return config, model, {k: f[k][()] for k in ("tokens", "loss_mask", "offsets")}


def wanted(config, model, split):
    """<gradient, E> of each matrix of tensors with several, in the order of names and of their matrices."""
    out = {}
    for name, grad in sorted(model["grad"].items()):
        g, e = (split(name, model[kind][name].astype(np.float64), config) for kind in ("grad", "edit"))
        if len(g) > 1:
            out.update({f"{name}[{part}]": float(np.sum(g[part] * e[part])) for part in g})
    return out


def case(folder, file, split):
    config, model, data = read(os.path.join(GOLDEN, file))
    post = model["tensors"]
    text = json.dumps(config)
    studies.save_model(f"{folder}/post", text, post)
    studies.save_model(f"{folder}/pre", text, {n: post[n] + model["edit"][n] for n in post})
    with h5py.File(f"{folder}/data.h5", "w") as f:
        for key, value in data.items():
            f[key] = value
    true = wanted(config, model, split)
    scale = max(abs(v) for v in true.values())
    for ranks in (1, 2, 3, 4):
        done = studies.study(f"{folder}/r{ranks}.yaml", JOB % {"folder": folder, "name": f"r{ranks}"}, ranks,
                             f"tensor_parallel={ranks}")
        if done.returncode != 0:
            check(f"{file} at {ranks} ranks", False, done.stdout + done.stderr)
            return
        with h5py.File(f"{folder}/r{ranks}/results.h5") as results:
            names = [n.decode() if isinstance(n, bytes) else n for n in results["matrices/names"][()]]
            unit = results["edits/back/task"]
            terms, sums = unit["matrix_terms"][()], unit["matrix_integrated"][()]
            check(f"{file} at {ranks} ranks: names", sorted(names) == sorted(true), f"{names} and {list(true)}")
            off = max(abs(terms[i, 0] - true[n]) for i, n in enumerate(names))
            check(f"{file} at {ranks} ranks: terms", off < 1e-4 * scale, f"off by {off / scale:.1e}")
            check(f"{file} at {ranks} ranks: sums", np.allclose(sums, terms.mean(axis=1), rtol=1e-12, atol=1e-15))
            tensor = results["matrices/tensor"][()]
            whole = [np.sum(sums[tensor == t]) - unit["integrated"][t] for t in set(tensor)]
            check(f"{file} at {ranks} ranks: tensors", np.max(np.abs(whole)) < 1e-10 * scale)
            modules = {}
            for i, m in enumerate(results["matrices/module"][()]):
                modules[m.decode()] = modules.get(m.decode(), 0.0) + sums[i]
    listed = {m["module"]: m["integrated"]
              for m in json.load(open(f"{folder}/r1/results.json"))["units"][0]["by_module"]}
    check(f"{file}: kinds of module", all(m in listed for m in modules) and
          not {"qkv", "gate_up"} & set(listed), f"{sorted(listed)} and {sorted(modules)}")
    summed = results_tool.Results(f"{folder}/r1").units[0].by_part("module")
    check(f"{file}: the tools' kinds of module", list(summed) == list(listed) and
          np.allclose(list(summed.values()), list(listed.values()), rtol=1e-9), f"{summed} and {listed}")
    done = studies.deltapath("join", f"{folder}/r1", "-o", f"{folder}/joined")
    check(f"{file}: join", done.returncode == 0, done.stderr)
    if done.returncode == 0:
        with h5py.File(f"{folder}/r1/results.h5") as one, h5py.File(f"{folder}/joined/results.h5") as all_:
            check(f"{file}: joined results have the matrices too", all(
                np.array_equal(one[f"matrices/{key}"][()], all_[f"matrices/{key}"][()]) for key in ("names", "tensor", "module")) and
                np.array_equal(one["edits/back/task/matrix_terms"][()], all_["edits/back/task/matrix_terms"][()]))
        with open(f"{folder}/r1/results.json", encoding="utf-8") as one, open(f"{folder}/joined/results.json", encoding="utf-8") as all_:
            check(f"{file}: and their kinds of module", json.load(one)["units"][0]["by_module"] == json.load(all_)["units"][0]["by_module"])


with tempfile.TemporaryDirectory() as top:
    for file, split in (("phi3/longrope.h5", phi3), ("gpt_neox/parallel.h5", gpt_neox), ("gpt2/tied.h5", gpt2),
                        ("mixtral/fused.h5", experts), ("gpt_oss/plain.h5", experts)):
        folder = os.path.join(top, file.replace("/", "-"))
        os.makedirs(folder)
        case(folder, file, split)
studies.finish()

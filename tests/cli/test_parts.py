#!/usr/bin/python3
# seconds: 600
"""Edits of matrices that are stored together, each form as its modelling code slices it, against NumPy: BitDelta,
several bits and low rank treat each matrix by itself. Same bytes at 1 to 4 ranks."""

import json
import os
import shutil
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

JOB = """
models: {pre: %(folder)s/pre, post: %(folder)s/post}
edits:
  - {name: bit, method: bitdelta}
  - {name: nonzero, method: bitdelta, mean: nonzero, tensors: all}
  - {name: rows, method: bitdelta, granularity: row}
  - {name: code, method: bitdelta, convention: code}
  - {name: bits, method: multibit, bits: 2}
  - {name: rank, method: lowrank, rank: 2, svd: exact}
  - {name: sparse, method: [{method: prune, keep: 0.6}, {method: lowrank, sparsity: 0.5, svd: exact}, {method: bitdelta}]}
riemann: off
svd_group: 1
output: {directory: %(folder)s/%(name)s, checkpoint: safetensors, report: false}
"""
HEADS, HEAD, C, I, E = 3, 4, 12, 10, 3  # query heads, their width, width, hidden units, experts
L = "model.layers.0."


def whole(w):
    return {"": w}


def stacked(**sizes):
    ends = np.cumsum(list(sizes.values()))
    return lambda w: {name: w[end - size:end] for (name, size), end in zip(sizes.items(), ends)}


def heads(w):
    """GPT-NeoX: view(heads, 3, width of a head)."""
    parts = w.reshape(HEADS, 3, HEAD, -1)
    return {name: parts[:, k] for k, name in enumerate("qkv")}


def columns(w):
    """GPT-2's Conv1D: x @ w, split(C) of the outputs."""
    return {name: w[:, k * C:(k + 1) * C].T for k, name in enumerate("qkv")}


def experts(split):
    return lambda w: {f"{e}.{name}".strip("."): part for e in range(len(w)) for name, part in split(w[e]).items()}


def interleaved(w):
    """gpt-oss: x @ w, gate at even and up at odd outputs."""
    return {"gate": w[:, ::2].T, "up": w[:, 1::2].T}


LINEAR, MATRIX, OTHER = 2, 1, 0
FORMS = {  # name: shape, what it is, its matrices as (outputs, inputs)
    L + "self_attn.qkv_proj.weight": ((HEADS * HEAD + 2 * HEAD, C), LINEAR, stacked(q=HEADS * HEAD, k=HEAD, v=HEAD)),
    L + "self_attn.o_proj.weight": ((C, HEADS * HEAD), LINEAR, whole),
    L + "mlp.gate_up_proj.weight": ((2 * I, C), LINEAR, stacked(gate=I, up=I)),
    L + "mlp.down_proj.weight": ((C, I), LINEAR, whole),
    "gpt_neox.layers.0.attention.query_key_value.weight": ((3 * HEADS * HEAD, C), LINEAR, heads),
    "gpt_neox.layers.0.attention.query_key_value.bias": ((3 * HEADS * HEAD,), OTHER, heads),
    "h.0.attn.c_attn.weight": ((C, 3 * C), LINEAR, columns),
    "h.0.attn.c_proj.weight": ((C, C), LINEAR, lambda w: {"": w.T}),
    "h.0.mlp.c_fc.weight": ((C, 4 * C), LINEAR, lambda w: {"": w.T}),
    "encoder.layer.1.mlp.weights_in.weight": ((2 * I, C), LINEAR, stacked(gate=I, up=I)),
    "encoder.layer.1.mlp.weights_out.weight": ((C, I), LINEAR, whole),
    "vision_model.head.attention.in_proj_weight": ((3 * C, C), LINEAR, stacked(q=C, k=C, v=C)),
    L + "mlp.gate.weight": ((E, C), MATRIX, whole),
    # more than one cell each: borders of cells lie inside experts, and inside rows
    "a.mlp.experts.gate_up_proj": ((E, 2 * 330, 700), LINEAR, experts(stacked(gate=330, up=330))),
    "a.mlp.experts.down_proj": ((E, 700, 330), LINEAR, experts(whole)),
    "b.mlp.experts.gate_up_proj": ((E, 610, 2 * 300), LINEAR, experts(interleaved)),
    "b.mlp.experts.gate_up_proj_bias": ((E, 2 * 300), OTHER, None),
    "b.mlp.experts.down_proj": ((E, 300, 610), LINEAR, experts(lambda w: {"": w.T})),
    "b.mlp.experts.down_proj_bias": ((E, 610), OTHER, None),
    "b.mlp.router.weight": ((E, 610), MATRIX, whole),
    # experts of a few elements, many in a piece; d is Llama 4's form
    "c.mlp.experts.gate_up_proj": ((9, 6, 5), LINEAR, experts(stacked(gate=3, up=3))),
    "c.mlp.experts.down_proj": ((9, 5, 3), LINEAR, experts(whole)),
    "d.mlp.experts.gate_up_proj": ((7, 5, 6), LINEAR, experts(lambda w: {"gate": w[:, :3].T, "up": w[:, 3:].T})),
    "d.mlp.experts.down_proj": ((7, 3, 5), LINEAR, experts(lambda w: {"": w.T})),
}


def make_models(folder):
    random = np.random.default_rng(5)
    pre, post = {}, {}
    for name, (shape, _, _) in FORMS.items():
        pre[name] = random.standard_normal(shape).astype(np.float32)
        delta = (random.standard_normal(shape) * 2.0 ** random.integers(-9, -5)).astype(np.float32)
        if len(shape) > 1:  # rows, columns and experts differ in size, and some entries are equal or zero
            delta = delta * np.exp(random.standard_normal(shape[:-1] + (1,))).astype(np.float32)
            delta = delta * np.exp(random.standard_normal((1,) * (len(shape) - 1) + shape[-1:])).astype(np.float32)
            delta[random.random(shape) < 0.1] = 0
            delta[random.random(shape) < 0.1] = delta.flat[1]
        post[name] = pre[name] + delta
    config = json.dumps({"model_type": "nothing", "architectures": ["Nothing"], "num_attention_heads": HEADS})
    studies.save_model(f"{folder}/pre", config, pre)
    studies.save_model(f"{folder}/post", config, post)
    return pre, post


def load(folder):
    out = {}
    with open(f"{folder}/model.safetensors", "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        data = file.read()
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            out[name] = np.frombuffer(data[begin:end], np.float32).reshape(entry["shape"])
    return out


def by_sign(d, size):
    return np.where(d == 0, np.float32(0), np.where(d > 0, np.float32(size), np.float32(-size)).astype(np.float32))


def bit(d, order):
    return by_sign(d, np.abs(d.astype(np.float64)).mean())


def nonzero(d, order):
    return by_sign(d, np.abs(d.astype(np.float64)).sum() / max(1, (d != 0).sum()))


def rows(d, order):
    return np.stack([bit(row, None) for row in d.reshape(-1, d.shape[-1])]).reshape(d.shape)


def code(d, order):
    size = np.float32(np.abs(d.astype(np.float64)).sum()) / np.float32(d.size)
    return np.where(d < 0, -size, size).astype(np.float32)


def bits(d, order):
    """@param order  place of each entry in the stored tensor: which of equal magnitudes comes first."""
    flat, at, out = d.ravel(), np.lexsort((order.ravel(), -np.abs(d).ravel())), np.zeros(d.size, np.float32)
    for j in range(4):
        block = at[d.size // 4 * j + d.size % 4 * j // 4:d.size // 4 * (j + 1) + d.size % 4 * (j + 1) // 4]
        if len(block) > 0:
            out[block] = by_sign(flat[block], np.abs(flat[block].astype(np.float64)).mean())
    return out.reshape(d.shape)


def truncated(d, rank):
    u, s, v = np.linalg.svd(d.reshape(-1, d.shape[-1]).astype(np.float64), full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ v[:rank]).reshape(d.shape), s


def rank2(d, order):
    return truncated(d, 2)[0]


def pruned(delta):
    """The largest 60 % of a stored tensor, the earlier of equal ones."""
    keep = int(np.floor(0.6 * delta.size + 0.5))
    at = np.lexsort((np.arange(delta.size), -np.abs(delta).ravel()))
    out = np.zeros(delta.size, np.float32)
    out[at[:keep]] = delta.ravel()[at[:keep]]
    return out.reshape(delta.shape)


def half(d, order):
    matrix = d.reshape(-1, d.shape[-1])
    return truncated(d, int(np.floor(0.5 * min(matrix.shape) + 1e-9)))[0]


def edited(pre, delta, parts, method):
    out = np.zeros(delta.shape, np.float64)
    order = parts(np.arange(delta.size).reshape(delta.shape))
    places = parts(out)
    for label, d in parts(delta).items():
        places[label][...] = method(d, order[label])
    return out


def compare_exact(name, got, pre, post, method, least):
    wrong = []
    for tensor, (_, kind, parts) in FORMS.items():
        if kind < least:
            want = post[tensor]
        else:
            delta = post[tensor] - pre[tensor]
            want = pre[tensor] + edited(pre[tensor], delta, parts, method).astype(np.float32)
        if not np.array_equal(got[tensor], want):
            wrong.append(f"{tensor}: {(got[tensor] != want).sum()} of {want.size} differ, by up to "
                         f"{np.abs(got[tensor] - want).max():.3g}")
    check(f"{name}: every matrix by itself", not wrong, "\n".join(wrong))


def compare_near(name, got, pre, post, before, method):
    wrong = []
    for tensor, (_, kind, parts) in FORMS.items():
        if kind == OTHER:
            continue
        delta = before(post[tensor] - pre[tensor])
        want = edited(pre[tensor], delta, parts, method)
        miss = np.linalg.norm(got[tensor] - pre[tensor] - want) / np.linalg.norm(post[tensor])
        if miss > 1e-6:
            wrong.append(f"{tensor}: {miss:.3g} of the norm")
    check(f"{name}: every matrix by itself", not wrong, "\n".join(wrong))


def check_models(folder, pre, post):
    got = {name: load(f"{folder}/at1/models/{name}")
           for name in ("bit", "nonzero", "rows", "code", "bits", "rank", "sparse")}
    compare_exact("bitdelta", got["bit"], pre, post, bit, LINEAR)
    compare_exact("bitdelta, mean nonzero, all matrices", got["nonzero"], pre, post, nonzero, MATRIX)
    compare_exact("bitdelta, granularity row", got["rows"], pre, post, rows, LINEAR)
    compare_exact("bitdelta, convention code", got["code"], pre, post, code, LINEAR)
    compare_exact("multibit", got["bits"], pre, post, bits, LINEAR)
    compare_near("lowrank", got["rank"], pre, post, lambda d: d, rank2)
    for tensor, (_, kind, parts) in FORMS.items():  # a sequence: what bitdelta gets is what low rank left
        if kind != LINEAR:
            continue
        f = edited(None, pruned(post[tensor] - pre[tensor]), parts, half)
        sizes = {label: np.abs(d).mean() for label, d in parts(f).items()}
        given = {label: np.abs(d).max() for label, d in parts(
            (got["sparse"][tensor] - pre[tensor]).astype(np.float64)).items()}
        if not all(abs(given[label] - sizes[label]) < 2e-5 * sizes[label] + 5e-7 for label in sizes):
            check(f"sequence: {tensor}", False, f"{given} is not {sizes}")
            return
    check("sequence: bitdelta of what low rank left of each matrix", True)


def check_spectra(folder, pre, post):
    """What results.h5 says of each matrix that low rank took apart."""
    with h5py.File(f"{folder}/at1/results.h5") as file:
        names, unit = [name.decode() for name in file["tensors/names"][:]], file["edits/rank/-"]
        values, errors, at, got = unit["spectra_values"][:], unit["spectra_error"][:], 0, {}
        for tensor, part, residual, count in zip(unit["spectra_tensor"][:], unit["spectra_part"][:],
                                                 unit["spectra_residual"][:], unit["spectra_count"][:]):
            got[names[tensor], part.decode()] = residual, values[at:at + count], errors[at:at + count]
            at += count
        ranks = dict(zip(names, unit["tensor_stats"][:, list(unit["tensor_stats_columns"][:]).index(b"rank")]))
    want = {}
    for tensor, (_, kind, parts) in FORMS.items():
        for label, d in parts(post[tensor] - pre[tensor]).items() if kind != OTHER else ():
            s = truncated(d, 2)[1]
            want[tensor, label] = np.sqrt((s[2:] ** 2).sum() / (s ** 2).sum()), s[:2]
    check("results name every matrix", set(got) == set(want), f"{sorted(set(got) ^ set(want))}")
    wrong = [f"{key}: {got[key]} is not {want[key]}" for key in set(got) & set(want)
             if abs(got[key][0] - want[key][0]) > 1e-5 or np.abs(got[key][1] - want[key][1]).max() > 1e-5 * want[key][1][0]]
    check("its singular values and residual", not wrong, "\n".join(wrong))
    wrong = [f"{key}: {got[key]} is not {want[key]}" for key in set(got) & set(want)
             if not (np.abs(got[key][1] - want[key][1]) <= got[key][2] + 1e-6 * want[key][1][0]).all()
             or not ((got[key][2] > 0) & (got[key][2] < 2e-5 * want[key][1][0])).all()]
    check("errors of its singular values", not wrong, "\n".join(wrong))
    wrong = [tensor for tensor, (_, kind, parts) in FORMS.items()
             if kind != OTHER and ranks[tensor] != 2 * len(parts(pre[tensor]))]
    check("the rank of a tensor is the sum of its matrices'", not wrong, wrong)


def check_inspect(folder, pre):
    """The matrices that inspect finds, by their names."""
    done = studies.deltapath("inspect", "--json", f"{folder}/pre")
    found = {t["name"]: t.get("matrices", [""]) for t in json.loads(done.stdout)["tensors"]}
    wrong = [f"{tensor}: {found[tensor]}" for tensor, (_, _, parts) in FORMS.items()
             if parts is not None and found[tensor] != list(parts(pre[tensor]))]
    check("inspect names the matrices of a tensor", not wrong, "\n".join(wrong))


def main():
    folder = tempfile.mkdtemp(prefix="parts-", dir=os.environ.get("TMPDIR", "/tmp"))
    pre, post = make_models(folder)
    reference = {}
    for ranks in (1, 2, 3, 4):
        job = JOB % {"folder": folder, "name": f"at{ranks}"}
        done = studies.study(f"{folder}/at{ranks}.yaml", job, ranks)
        check(f"runs at {ranks} ranks", done.returncode == 0, done.stderr)
        if done.returncode != 0:
            break
        for name in sorted(os.listdir(f"{folder}/at{ranks}/models")):
            values = load(f"{folder}/at{ranks}/models/{name}")
            same = all(np.array_equal(values[t], reference.setdefault(name, values)[t]) for t in values)
            if ranks > 1 or not same:
                check(f"{name}: the same at {ranks} ranks", same)
    if os.path.isdir(f"{folder}/at1/models"):
        check_models(folder, pre, post)
        check_spectra(folder, pre, post)
        check_inspect(folder, pre)
        done = studies.study(f"{folder}/grouped.yaml", JOB % {"folder": folder, "name": "grouped"}, 3, "svd_group=2",
                             options=("--only", "rank"))
        check("runs with two ranks to a matrix", done.returncode == 0, done.stderr)
        if done.returncode == 0:
            compare_near("lowrank, two ranks to a matrix", load(f"{folder}/grouped/models/rank"), pre, post,
                         lambda d: d, rank2)
    shutil.rmtree(folder)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

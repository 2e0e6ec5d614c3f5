#!/usr/bin/env python3
"""Write tests/golden/curvature_golden.h: the Gauss-Newton curvature along E of some golden models, to the bit of
its definition, and what one draw of labels gives.

Of each golden model W_post, E and samples are those of its file.  With p the model's softmax at a scored
token or image, w its weight in the (weighted) mean loss and J the derivative of its log-probabilities,

    exact   1/2 sum_i E_i^2 sum_scores w sum_y p_y (d log p_y / d W_i)^2      for each tensor
    drawn   1/2 sum_i E_i^2 (sum_scores sqrt(w) d log p_y / d W_i)^2, y drawn

from one backward pass for each score and entry of the vocabulary, in double.  The draw is an exponential race with
the words of the program's random stream, here from the Philox of edit_oracle.py.  That the mean of many draws
is the exact number is asserted with draws of numpy's.

Usage: curvature_golden.py > tests/golden/curvature_golden.h    (needs torch, transformers, h5py, xxhash)
       curvature_golden.py PRE POST DATA     the exact number of a pair of image classifiers, tensor by tensor
"""
import json
import pathlib
import sys
import tempfile

import h5py
import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers.models.llama import modeling_llama
from transformers.models.vit import modeling_vit

import edit_oracle
import golden_common

golden_common.in_double(modeling_llama, modeling_vit)

torch.set_num_threads(1)
transformers.logging.disable_progress_bar()
ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden"
CASES = ["llama/gqa", "llama/tied", "vit/vit"]
WEIGHTS = np.array([1.0, 0.0, 3.0, 0.5, 2.0])
SEED, STREAM, PURPOSE = 7, "labels", 4
DRAWS = 3000


def load(f: h5py.File):
    """The model of a golden file in double, and the name in the file of each parameter."""
    config = json.loads(f.attrs["config"])
    tensors = {n: torch.from_numpy(f[f"tensors/{n}"][()]) for n in f["tensors"]}
    with tempfile.TemporaryDirectory() as d:
        (pathlib.Path(d) / "config.json").write_text(json.dumps(config))
        save_file(tensors, pathlib.Path(d) / "model.safetensors", {"format": "pt"})
        make = getattr(transformers, config["architectures"][0])
        model = make.from_pretrained(d, attn_implementation="eager").eval()
    _, names = golden_common.saved(model)
    return model.double(), names


def scores_of(f: h5py.File, model):
    """Log-probabilities (scores, entries), the sample of each score, its place among all, scores of each sample."""
    if "images" in f:
        for i, image in enumerate(f["images"][()]):
            logits = model(pixel_values=torch.from_numpy(image).double()[None]).logits
            yield logits.log_softmax(-1)[0], i, i
        return
    tokens, mask, offsets = f["tokens"][()], f["loss_mask"][()], f["offsets"][()]
    for s in range(len(offsets) - 1):
        begin, end = offsets[s], offsets[s + 1]
        inputs = torch.from_numpy(tokens[begin:end]).long()[None]
        logp = model(inputs, use_cache=False).logits[0].log_softmax(-1)
        for at in range(begin + 1, end):
            if mask[at]:
                yield logp[at - 1 - begin], s, at


def drawn_label(logp: np.ndarray, place: int) -> int:
    """First arrival: -log(u) / p is least."""
    element = place * len(logp) + np.arange(len(logp), dtype=np.uint64)
    counter = np.zeros((len(logp), 4), np.uint64)
    counter[:, 0], counter[:, 1] = (element // 4) & 0xFFFFFFFF, (element // 4) >> 32
    counter[:, 2] = PURPOSE
    words = edit_oracle.philox(counter, edit_oracle.stream_key(SEED, STREAM))
    word = words[np.arange(len(logp)), (element % 4).astype(int)]
    return int(np.argmin(-np.log((word + 0.5) / 2**32) / np.exp(logp)))


def case(name: str):
    """Rows (tensor, exact even, exact weighted, drawn even, drawn weighted) in order of names."""
    with h5py.File(ROOT / f"{name}.h5") as f:
        model, names = load(f)
        params = dict(model.named_parameters())
        edit = {n: torch.from_numpy(f[f"edit/{names[n]}"][()]).double() for n in params}
        places, samples, logps, slopes = [], [], [], []
        for logp, sample, place in scores_of(f, model):
            for y in range(len(logp)):
                grad = torch.autograd.grad(logp[y], list(params.values()), retain_graph=True, allow_unused=True)
                slopes.append(torch.cat([(g * e).flatten() if g is not None else torch.zeros(e.numel()).double()
                                         for g, e in zip(grad, edit.values())]).numpy())
            logps.append(logp.detach().numpy())
            samples.append(sample)
            places.append(place)
    n, v = len(logps), len(logps[0])
    slopes = np.array(slopes).reshape(n, v, -1)
    p = np.exp(np.array(logps))
    count = np.bincount(samples)
    labels = np.array([drawn_label(logps[i], places[i]) for i in range(n)])
    bounds = np.cumsum([0] + [e.numel() for e in edit.values()])
    columns = []
    for shares in (np.full(len(count), 1 / len(count)), WEIGHTS[:len(count)] / WEIGHTS[:len(count)].sum()):
        w = np.array([shares[s] / count[s] for s in samples])
        columns.append(0.5 * np.einsum("i,iy,iyk->k", w, p, slopes**2))
        columns.append(0.5 * (np.sqrt(w) @ slopes[np.arange(n), labels])**2)
    w = np.array([1 / len(count) / count[s] for s in samples])
    check_mean(np.sqrt(w), p, slopes, columns[0].sum(), name)
    rows = []
    for k, pname in enumerate(params):
        part = slice(bounds[k], bounds[k + 1])
        rows.append((names[pname], columns[0][part].sum(), columns[2][part].sum(),
                     columns[1][part].sum(), columns[3][part].sum()))
    return sorted(rows)


def check_mean(root: np.ndarray, p: np.ndarray, slopes: np.ndarray, exact: float, name: str) -> None:
    """The mean of draws is the exact number: |sum_t a_t[y_t]|^2 from the inner products of all pairs of scores."""
    n, v, _ = slopes.shape
    a = (root[:, None, None] * slopes).reshape(n * v, -1)
    gram = 0.5 * a @ a.T
    rng = np.random.default_rng(1)
    totals = []
    for _ in range(DRAWS):
        y = (rng.random((n, 1)) > np.cumsum(p, 1)).sum(1).clip(0, v - 1)
        at = np.arange(n) * v + y
        totals.append(gram[np.ix_(at, at)].sum())
    mean, se = np.mean(totals), np.std(totals) / np.sqrt(DRAWS)
    assert abs(mean - exact) < 4 * se, f"{name}: {mean} +- {se} in place of {exact}"
    print(f"{name}: exact {exact:.6g}, mean of {DRAWS} draws {mean:.6g} +- {se:.2g}, sd of one "
          f"{np.std(totals) / exact:.2f} of it", file=sys.stderr)


def pair(pre: str, post: str, data: str) -> None:
    """Exact curvature along the delta of a pair of image classifiers, all tensors edited."""
    make = transformers.AutoModelForImageClassification
    before = dict(make.from_pretrained(pre, dtype=torch.float32).named_parameters())
    model = make.from_pretrained(post, attn_implementation="eager", dtype=torch.float32).eval()
    delta = [(p - before[n]).double() for n, p in model.named_parameters()]
    model.double()
    params = list(model.parameters())
    sums = np.zeros(len(params))
    with h5py.File(data) as f:
        images = f["images"][()]
        for image in images:
            logp = model(pixel_values=torch.from_numpy(image).double()[None]).logits.log_softmax(-1)[0]
            for y in range(len(logp)):
                grad = torch.autograd.grad(logp[y], params, retain_graph=True)
                squares = [((g * d)**2).sum().item() for g, d in zip(grad, delta)]
                sums += 0.5 * logp[y].exp().item() * np.array(squares) / len(images)
    for (name, _), value in zip(model.named_parameters(), sums):
        print(f"{value:.6e} {name}")
    print(f"{sums.sum():.6g} in all")


def main() -> None:
    """The header."""
    if len(sys.argv) == 4:
        pair(*sys.argv[1:])
        return
    print("/* Written by tools/reference/curvature_golden.py. */\n#ifndef DELTAPATH_CURVATURE_GOLDEN_H\n"
          "#define DELTAPATH_CURVATURE_GOLDEN_H\n")
    print("/* 1/2 sum E_i^2 H_ii of a tensor with the exact Gauss-Newton diagonal, and with one draw of labels:\n"
          "   with even shares, and with the weights 1, 0, 3, 0.5, 2. */\ntypedef struct curvature_row {\n"
          "    const char *model, *tensor;\n    double exact[2], drawn[2];\n} curvature_row;\n")
    print("static const curvature_row curvature_golden[] = {")
    for name in CASES:
        for tensor, *v in case(name):
            print(f'    {{"{name}",\n     "{tensor}",\n     {{{v[0]:.9e}, {v[1]:.9e}}},\n     {{{v[2]:.9e}, {v[3]:.9e}}}}},')
    print("};\n\n#endif")


if __name__ == "__main__":
    main()

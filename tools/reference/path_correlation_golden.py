#!/usr/bin/env python3
"""Write tests/golden/path_correlation.json: the correlation of a random mask and gradient(t) * Delta along the path of a
few edits of a small decoder, from gradients of torch in double.

The pair is the one that tests/support/make_models.py makes (llama, f32); masks are those of edit_oracle.py. At each of
the nodes t of `left` with 5 points, on the path from W_post to round(W_pre + F), and for the entries of each tensor and
all together: Pearson's correlation of the mask (1: dropped) and g_i(t) Delta_i, Delta as the method finds it; for all
together also the entries and both standard deviations.

Usage: path_correlation_golden.py > tests/golden/path_correlation.json    (needs torch, transformers, h5py, xxhash)
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers.models.llama import modeling_llama

import edit_oracle
import golden_common

golden_common.in_double(modeling_llama)
torch.set_num_threads(1)
transformers.logging.disable_progress_bar()
ROOT = pathlib.Path(__file__).resolve().parents[2]
NODES = [0.0, 0.2, 0.4, 0.6, 0.8]
EDITS = {"half": [("dare", {"p": 0.5})], "some": [("dare", {"p": 0.3, "k": -0.5})], "drop": [("drop", {"p": 0.4})],
         "two": [("prune", {"keep": 0.6}), ("dare", {"p": 0.5})]}
SEED = 3


def pearson(m: np.ndarray, x: np.ndarray) -> float:
    """Of a mask and values."""
    return round(float(np.corrcoef(m.astype(np.float64), x)[0, 1]), 10)


def masks_of(stages, deltas):
    """Mask of the stage that draws one, the delta that it finds, and F."""
    mask, found = {}, {}
    for index, (method, params) in enumerate(stages):
        if method in ("dare", "drop"):
            found = dict(deltas)
            mask = {n: edit_oracle.dropped(d, n, params["p"], SEED, index) for n, d in deltas.items()}
        deltas = edit_oracle.METHODS[method](deltas, SEED, index, **params)
    return mask, found, deltas


def sample_loss(model, tokens: np.ndarray, mask: np.ndarray):
    """Mean cross-entropy of the scored tokens."""
    inputs = torch.from_numpy(tokens).long()[None]
    logp = model(inputs, use_cache=False).logits[0].log_softmax(-1)
    return torch.stack([-logp[i - 1, tokens[i]] for i in range(1, len(tokens)) if mask[i]]).mean()


def walk(model, samples, post, edited, mask, found):
    """One entry for each node."""
    rows = []
    for t in NODES:
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(torch.from_numpy(post[name] + t * (edited[name] - post[name])).view(p.shape))
        model.zero_grad()
        torch.stack([sample_loss(model, *s) for s in samples]).mean().backward()
        x = {n: p.grad.numpy().reshape(-1) * found[n].astype(np.float64) for n, p in model.named_parameters()}
        names = sorted(x)
        m, all_x = np.concatenate([mask[n] for n in names]), np.concatenate([x[n] for n in names])
        rows.append({"t": t, "all": pearson(m, all_x), "n": len(m), "mask_sd": float(m.std()),
                     "product_sd": float(all_x.std()), "tensors": {n: pearson(mask[n], x[n]) for n in names}})
    return rows


def main() -> None:
    """The file."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, ROOT / "tests/support/make_models.py", "llama", folder, "--dtype", "f32"],
                       check=True)
        pre, post = ({n: v.numpy().reshape(-1) for n, v in load_file(f"{folder}/{side}/model.safetensors").items()}
                     for side in ("pre", "post"))
        config = transformers.AutoConfig.from_pretrained(f"{folder}/post")
        with h5py.File(f"{folder}/data.h5") as file:
            offsets, tokens, scored = (np.array(file[n]) for n in ("offsets", "tokens", "loss_mask"))
    samples = [(tokens[a:b], scored[a:b]) for a, b in zip(offsets, offsets[1:])]
    model = transformers.LlamaForCausalLM(config).double().eval()
    edit_oracle.SHAPES.update({n: tuple(p.shape) for n, p in model.named_parameters()})
    out = {"sum": float(sum(v.astype(np.float64).sum() for v in post.values())), "edits": {}}
    for name, stages in EDITS.items():
        deltas = {n: post[n] - pre[n] for n in post}
        mask, found, changed = masks_of(stages, deltas)
        edited = {n: (pre[n] + changed[n].astype(np.float32)).astype(np.float64) for n in post}
        rows = walk(model, samples, {n: v.astype(np.float64) for n, v in post.items()}, edited, mask, found)
        out["edits"][name] = rows
        print(name, *(f"{row['all']:+.4f}" for row in rows), file=sys.stderr)
    json.dump(out, sys.stdout, indent=0)
    print()


main()

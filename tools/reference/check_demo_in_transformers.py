#!/usr/bin/env python3
"""Loss and exact match of a safetensors model directory on a data set, by transformers in fp32.

Usage: check_demo_in_transformers.py MODEL_DIRECTORY DATA.h5 [DATA.h5 ...]
       [--samples] prints the loss of every sample
       [--expect LOSS] fails unless the mean loss of the (one) data set is within 1e-3 of LOSS

Loss of a sample: mean negative log-likelihood of its tokens with mask 1; the printed loss is the
mean over samples.  Exact match: share of samples whose every masked token is the most probable
one given the true tokens before it.
"""
import argparse
import sys

import h5py
import numpy as np
import torch
import transformers


@torch.no_grad()
def evaluate(model, path: str):
    """Per-sample losses and hits of an lm data set."""
    with h5py.File(path) as f:
        tokens, mask, offsets = (f[k][()] for k in ("tokens", "loss_mask", "offsets"))
    losses, hits = [], []
    for a, b in zip(offsets[:-1], offsets[1:]):
        ids = torch.from_numpy(tokens[a:b]).long()
        scored = torch.from_numpy(mask[a + 1:b] != 0)
        logits = model(ids[None], use_cache=False).logits[0, :-1].double()
        nll = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        losses.append(nll[scored].mean().item())
        hits.append(bool((logits.argmax(-1) == ids[1:])[scored].all()))
    return np.array(losses), np.array(hits)


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("data", nargs="+")
    ap.add_argument("--samples", action="store_true")
    ap.add_argument("--expect", type=float)
    a = ap.parse_args()
    if a.expect is not None and len(a.data) != 1:
        ap.error("--expect needs exactly one data set")
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        a.model, dtype=torch.float32, attn_implementation="eager", local_files_only=True).eval()
    for path in a.data:
        losses, hits = evaluate(model, path)
        print(f"{path}: {len(losses)} samples, loss {losses.mean():.7f}, "
              f"exact match {hits.mean():.4f}")
        if a.samples:
            print("\n".join(f"  {i} {v:.7f} {int(h)}" for i, (v, h) in enumerate(zip(losses, hits))))
    if a.expect is not None and not abs(losses.mean() - a.expect) < 1e-3:
        print(f"FAILED: expected a loss of {a.expect}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())

#!/usr/bin/env python3
"""Loss and accuracy of a safetensors model directory on data sets, by transformers in fp32.

Usage: check_demo_in_transformers.py MODEL_DIRECTORY DATA.h5 [DATA.h5 ...]
       [--reference DIRECTORY] [--beta B] for data of preferences; B is 0.1 unless said
       [--samples] prints the loss of every sample
       [--expect LOSS] fails unless the mean loss of the (one) data set is within 1e-3 of LOSS

The printed loss is the mean over samples.  Loss of a sample, and when it counts as right:
  tokens       mean negative log-likelihood of the tokens with mask 1; right (exact match) when
               each of them is the most probable one given the true tokens before it
  preferences  -log sigmoid(margin), margin = B ((chosen - reference's chosen) - (rejected -
               reference's rejected)), each the summed log-likelihood of a response's tokens with
               mask 1; right when the margin is positive
  images       cross-entropy; right when the label is the most probable class
"""
import argparse
import sys

import h5py
import numpy as np
import torch
import transformers


def token_nll(model, group):
    """For each sample, the losses of its scored tokens and whether each is the most probable."""
    tokens, mask, offsets = (group[k][()] for k in ("tokens", "loss_mask", "offsets"))
    for a, b in zip(offsets[:-1], offsets[1:]):
        ids = torch.from_numpy(tokens[a:b]).long()
        scored = torch.from_numpy(mask[a + 1:b] != 0)
        logits = model(ids[None], use_cache=False).logits[0, :-1].double()
        nll = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        yield nll[scored], (logits.argmax(-1) == ids[1:])[scored]


def evaluate_preferences(model, reference, beta: float, f):
    logp = [[np.array([-nll.sum().item() for nll, _ in token_nll(m, f[side])])
             for side in ("chosen", "rejected")] for m in (model, reference)]
    margin = beta * ((logp[0][0] - logp[1][0]) - (logp[0][1] - logp[1][1]))
    return np.logaddexp(0, -margin), margin > 0


def evaluate_images(model, f):
    y = torch.from_numpy(f["labels"][()]).long()
    logits = model(pixel_values=torch.from_numpy(f["images"][()])).logits.double()
    losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    return losses.numpy(), (logits.argmax(1) == y).numpy()


@torch.no_grad()
def evaluate(models, beta: float, path: str):
    """Per-sample losses and hits; models: the model, and the reference or None."""
    with h5py.File(path) as f:
        if "images" in f:
            return evaluate_images(models[0], f)
        if "chosen" in f:
            if models[1] is None:
                raise SystemExit(f"{path}: holds preferences: give --reference")
            return evaluate_preferences(*models, beta, f)
        pairs = [(nll.mean().item(), bool(hit.all())) for nll, hit in token_nll(models[0], f)]
    return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])


def load(directory: str):
    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
    image = config.architectures[0].endswith("ForImageClassification")
    kind = transformers.AutoModelForImageClassification if image else \
        transformers.AutoModelForCausalLM
    return kind.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager",
                                local_files_only=True).eval()


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("data", nargs="+")
    ap.add_argument("--reference")
    ap.add_argument("--beta", type=float, default=0.1)
    ap.add_argument("--samples", action="store_true")
    ap.add_argument("--expect", type=float)
    a = ap.parse_args()
    if a.expect is not None and len(a.data) != 1:
        ap.error("--expect needs exactly one data set")
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    models = (load(a.model), load(a.reference) if a.reference else None)
    for path in a.data:
        losses, hits = evaluate(models, a.beta, path)
        print(f"{path}: {len(losses)} samples, loss {losses.mean():.7f}, "
              f"right {hits.mean():.4f} ({hits.sum()})")
        if a.samples:
            print("\n".join(f"  {i} {v:.7f} {int(h)}" for i, (v, h) in enumerate(zip(losses, hits))))
    if a.expect is not None and not abs(losses.mean() - a.expect) < 1e-3:
        print(f"FAILED: expected a loss of {a.expect}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

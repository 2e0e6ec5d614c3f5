#!/usr/bin/env python3
"""Compare tests/golden/dpo with the public implementation of the authors of DPO.

The functions preference_loss and _get_batch_logps are taken as they stand from a copy of
trainers.py of github.com/eric-mitchell/direct-preference-optimization (checked with commit
f8b8c0f4), and run on padded batches in double: a path that shares nothing with dpo_golden.py but
the models.

Usage: check_dpo_golden.py TRAINERS.py [GOLDEN.h5 ...]
"""
import ast
import json
import pathlib
import sys
import typing

import h5py
import numpy as np
import torch
import transformers
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2

import golden_common

golden_common.in_double(modeling_llama, modeling_qwen2)
TOLERANCE = 1e-10


def public_functions(path: str) -> dict:
    """The two functions alone: the file's imports need packages that are not used."""
    tree = ast.parse(pathlib.Path(path).read_text())
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef)
                 and n.name in ("preference_loss", "_get_batch_logps")]
    space = {"torch": torch, "F": torch.nn.functional, **vars(typing)}
    exec(compile(tree, path, "exec"), space)
    return space


def padded(group) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask, and labels with -100 where nothing is scored."""
    tokens, mask, offsets = (group[k][()] for k in ("tokens", "loss_mask", "offsets"))
    rows, width = len(offsets) - 1, int(np.diff(offsets).max())
    ids, seen = torch.zeros(rows, width, dtype=torch.long), torch.zeros(rows, width).long()
    labels = torch.full((rows, width), -100)
    for i, (a, b) in enumerate(zip(offsets[:-1], offsets[1:])):
        t = torch.from_numpy(tokens[a:b]).long()
        ids[i, :b - a], seen[i, :b - a] = t, 1
        labels[i, :b - a] = torch.where(torch.from_numpy(mask[a:b] != 0), t, -100)
    return ids, seen, labels


def load(config: dict, group):
    make = getattr(transformers, config["architectures"][0])
    c = make.config_class.from_dict(config)
    c._attn_implementation = "eager"
    model = make(c).eval()
    state = {n: torch.from_numpy(d[()]) for n, d in group.items()}
    missing, extra = model.load_state_dict(state, strict=False)
    assert not extra and set(missing) <= {"lm_head.weight"}, (missing, extra)
    model.tie_weights()
    return model.double()


def check(path: pathlib.Path, public: dict) -> bool:
    with h5py.File(path) as f:
        config, beta = json.loads(f.attrs["config"]), float(f.attrs["beta"])
        policy, reference = load(config, f["tensors"]), load(config, f["reference"])
        logps = []
        for model in (policy, reference):
            for side in ("chosen", "rejected"):
                ids, seen, labels = padded(f[side])
                logits = model(ids, attention_mask=seen, use_cache=False).logits
                logps.append(public["_get_batch_logps"](logits, labels))
        kept = [v.detach() for v in logps[2:]]
        losses, chosen, rejected = public["preference_loss"](*logps[:2], *kept, beta)
        losses.mean().backward()
        off = {"loss": np.abs(losses.detach().numpy() - f["loss"][()]).max(),
               "policy_logp": np.abs(torch.stack(logps[:2], 1).detach().numpy()
                                     - f["policy_logp"][()]).max(),
               "reference_logp": np.abs(torch.stack(logps[2:], 1).detach().numpy()
                                        - f["reference_logp"][()]).max(),
               "correct": np.sum((chosen > rejected).numpy() != f["correct"][()])}
        grads = {n: p.grad.numpy() for n, p in policy.named_parameters()}
        assert set(grads) == set(f["grad"])
        relative = max(np.abs(g - f["grad"][n][()]).max() / np.abs(g).max()
                       for n, g in grads.items())
    good = max(off.values()) < TOLERANCE and relative < 1e-6  # gradients are stored as float32
    print(f"{path.name}: {'equal' if good else 'DIFFERENT'}: "
          + ", ".join(f"{k} {v:.1e}" for k, v in off.items()) + f", grad {relative:.1e} relative")
    return good


def main() -> int:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    public = public_functions(sys.argv[1])
    root = pathlib.Path(__file__).resolve().parents[2]
    paths = [pathlib.Path(p) for p in sys.argv[2:]] or sorted(root.glob("tests/golden/dpo/*.h5"))
    if not paths:
        raise SystemExit("check_dpo_golden.py: no golden files: run dpo_golden.py first")
    return 0 if all([check(p, public) for p in paths]) else 1


sys.exit(main())

#!/usr/bin/env python3
"""Write tests/golden/dense.json: a decoder of 36 weights with all first and second derivatives of its mean loss.

transformers' Llama of width 2 with one layer, one head, one hidden unit and tied embeddings of four tokens: 8 + 16 + 6 + 6
weights.  The file has W_post, a delta, token sequences with the place where scores begin, and at W_post, in double, by
automatic differentiation, weights one after the other in the order of names:

    gradient, hessian   of the mean loss (rows of the lower triangle)
    gauss_newton        sum_t w_t J_t^T (diag(p_t) - p_t p_t^T) J_t, its diagonal
    masks               of each of SUBSETS: exact mean and standard deviation of the change of the loss over all 2^n masks of
                        DARE with P and K, by evaluating every one of them, n = 16 or less

Usage: dense_golden.py > tests/golden/dense.json    (needs torch, transformers)
"""
import json
import sys

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

import golden_common

golden_common.in_double(modeling_llama)

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2, "intermediate_size": 1,
          "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 4, "head_dim": 2,
          "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 16,
          "hidden_act": "silu", "torch_dtype": "float32"}
SUBSETS = {"attention": ["self_attn"], "embedding": ["embed_tokens", "mlp"]}
P, K, PART = 0.1, 0.5, 4096


class Net:
    """Mean loss over sequences as a function of the weights."""

    def __init__(self):
        torch.manual_seed(11)
        torch.set_default_dtype(torch.float64)
        self.model = LlamaForCausalLM(LlamaConfig(**CONFIG, attn_implementation="eager")).double().eval()
        self.keys = sorted(k for k, _ in self.model.named_parameters())
        self.shapes = [dict(self.model.named_parameters())[k].shape for k in self.keys]
        self.bounds = np.cumsum([0] + [s.numel() for s in self.shapes])
        rng = np.random.default_rng(4)
        ones = np.concatenate([np.full(s.numel(), float(k.endswith("norm.weight"))) for k, s in zip(self.keys, self.shapes)])
        post = (ones + 0.7 * rng.standard_normal(len(ones))).astype(np.float32)
        pre = (post - 0.04 * rng.standard_normal(len(ones)).astype(np.float32)).astype(np.float32)
        self.post, self.pre = torch.tensor(post.astype(float)), torch.tensor(pre.astype(float))
        self.delta = torch.tensor((post - pre).astype(float))
        self.rows = [(rng.integers(0, 4, rng.integers(4, 9)).tolist(), int(rng.integers(1, 3))) for _ in range(12)]

    def scores(self, weights: torch.Tensor):
        """(weight in the mean, logits before it, token) of every scored token."""
        parts = {k: weights[a:b].view(s) for k, a, b, s in zip(self.keys, self.bounds[:-1], self.bounds[1:], self.shapes)}
        parts["lm_head.weight"] = parts["model.embed_tokens.weight"]
        for tokens, begin in self.rows:
            logits = torch.func.functional_call(self.model, parts, kwargs={
                "input_ids": torch.tensor(tokens)[None], "use_cache": False}).logits[0]
            share = 1.0 / (len(self.rows) * (len(tokens) - begin))
            for i in range(begin, len(tokens)):
                yield share, logits[i - 1], tokens[i]

    def loss(self, weights: torch.Tensor) -> torch.Tensor:
        """Mean loss."""
        return sum(share * (torch.logsumexp(z, 0) - z[token]) for share, z, token in self.scores(weights))

    def gauss_newton(self) -> torch.Tensor:
        """Diagonal."""
        logits = lambda w: torch.stack([z for _, z, _ in self.scores(w)])
        jacobian = torch.func.jacrev(logits)(self.post)
        out = torch.zeros_like(self.post)
        for (share, z, _), j in zip(self.scores(self.post), jacobian):
            p = torch.softmax(z, 0)
            out += share * ((p[:, None] * j**2).sum(0) - (p[:, None] * j).sum(0)**2)
        return out

    def all_masks(self, words: list) -> dict:
        """Mean and standard deviation of the change over every mask of the tensors with one of the words in their name."""
        place = np.concatenate([np.arange(a, b) for k, a, b in zip(self.keys, self.bounds[:-1], self.bounds[1:])
                                if any(word in k for word in words)])
        n = len(place)
        base = self.loss(self.post).item()
        many = torch.func.vmap(self.loss)
        changes, chance = [], []
        for start in range(0, 2**n, PART):
            bits = (np.arange(start, min(start + PART, 2**n))[:, None] >> np.arange(n)) & 1
            edit = torch.zeros(len(bits), len(self.post))
            edit[:, place] = torch.tensor((K - 1) * (bits - P) / (1 - P)) * self.delta[place]
            with torch.no_grad():
                changes.append(many(self.post + edit).numpy() - base)
            chance.append(np.prod(np.where(bits == 1, P, 1 - P), axis=1))
        x, w = np.concatenate(changes), np.concatenate(chance)
        assert abs(w.sum() - 1) < 1e-12
        mean = (w * x).sum()
        return {"words": words, "weights": n, "masks": len(x), "mean": mean, "sd": np.sqrt((w * (x - mean)**2).sum())}


def main() -> None:
    """The file."""
    net = Net()
    gradient = torch.func.grad(net.loss)(net.post)
    hessian = torch.func.hessian(net.loss)(net.post)
    assert (hessian - hessian.T).abs().max() < 1e-12 * hessian.abs().max()
    digits = lambda x: [float(f"{v:.10e}") for v in np.asarray(x).ravel()]
    lower = np.tril_indices(len(net.post))
    masks = {name: net.all_masks(words) for name, words in SUBSETS.items()}
    print(len(net.post), "weights, loss", net.loss(net.post).item(), masks, file=sys.stderr)
    json.dump({"config": {k: v for k, v in CONFIG.items()}, "names": net.keys, "shapes": [list(s) for s in net.shapes],
               "post": net.post.tolist(), "pre": net.pre.tolist(), "tokens": [r[0] for r in net.rows],
               "begin": [r[1] for r in net.rows], "loss": net.loss(net.post).item(), "gradient": digits(gradient),
               "hessian": digits(hessian.numpy()[lower]), "gauss_newton": digits(net.gauss_newton()),
               "p": P, "k": K, "masks": masks}, sys.stdout, indent=None, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()

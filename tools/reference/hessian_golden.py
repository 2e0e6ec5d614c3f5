#!/usr/bin/env python3
"""Write tests/golden/hessian_golden.h: second derivatives of the mean loss of golden models at W_post along E, by
automatic differentiation in double.

Of each golden model W_post, E and samples are those of its file.  For each tensor l, with even shares of the samples
and with those of WEIGHTS:

    edit     1/2 E_l^T (H E)_l
    signs    1/2 (z E)_l^T (H z E)_l with the signs z of the program's random stream (seed 7, "signs 0 of <tensor>")
    block    1/2 E_l^T (H E_m)_l, E_m being E in the tensors outside the layers, else 0
    exact    1/2 sum_i E_i^2 H_ii         (vit/tiny alone, whose whole Hessian is formed)

and of vit/tiny with even shares, D = diag(E), A = H / 2: the sums of the law of random edits, what it says of P and K,
the mean and spread over MASKS masks themselves, and the greatest eigenvalues of H and of D H D.

Usage: hessian_golden.py | clang-format > tests/golden/hessian_golden.h    (needs torch, transformers, h5py, xxhash)
"""
import re
import sys

import h5py
import numpy as np
import torch

import curvature_golden
import edit_oracle

CASES = ["llama/gqa", "vit/vit", "vit/tiny"]
WHOLE = "vit/tiny"
SEED, SIGN = 7, 6
P, K, MASKS, PART = 0.1, 0.5, 200000, 2000
TOP = 4


class Case:
    """Mean loss of a golden model as a function of its weights, one after the other in a vector."""

    def __init__(self, name: str):
        with h5py.File(curvature_golden.ROOT / f"{name}.h5") as f:
            self.model, self.names = curvature_golden.load(f)
            self.keys = list(dict(self.model.named_parameters()))
            self.edit = torch.cat([torch.from_numpy(f[f"edit/{self.names[k]}"][()]).double().flatten()
                                   for k in self.keys])
            self.images = torch.from_numpy(f["images"][()]).double() if "images" in f else None
            self.labels = torch.from_numpy(f["labels"][()]).long() if "images" in f else None
            if self.images is None:
                offsets, tokens = f["offsets"][()], torch.from_numpy(f["tokens"][()]).long()
                mask = torch.from_numpy(f["loss_mask"][()]).double()
                self.rows = [(tokens[a:b], mask[a:b]) for a, b in zip(offsets[:-1], offsets[1:])]
        shapes = [p.shape for p in self.model.parameters()]
        self.post = torch.cat([p.detach().flatten() for p in self.model.parameters()])
        self.shapes = shapes
        self.bounds = np.cumsum([0] + [s.numel() for s in shapes])
        self.count = len(self.labels) if self.images is not None else len(self.rows)
        even, weighted = np.ones(self.count), curvature_golden.WEIGHTS[:self.count]
        self.shares = [torch.tensor(w / w.sum()) for w in (even, weighted)]

    def loss(self, weights: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Mean loss with these weights."""
        parts = {k: weights[a:b].view(s) for k, a, b, s in
                 zip(self.keys, self.bounds[:-1], self.bounds[1:], self.shapes)}
        if self.images is not None:
            logits = torch.func.functional_call(self.model, parts, kwargs={"pixel_values": self.images}).logits
            return (torch.nn.functional.cross_entropy(logits, self.labels, reduction="none") * shares).sum()
        total = 0.0
        for share, (tokens, mask) in zip(shares, self.rows):
            logits = torch.func.functional_call(self.model, parts, kwargs={"input_ids": tokens[None],
                                                                           "use_cache": False}).logits[0]
            nll = torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none")
            total = total + share * (nll * mask[1:]).sum() / mask[1:].sum()
        return total

    def times(self, vector: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """H times a vector."""
        weights = self.post.clone().requires_grad_()
        gradient, = torch.autograd.grad(self.loss(weights, shares), weights, create_graph=True)
        product, = torch.autograd.grad(gradient @ vector, weights)
        return product

    def halves(self, left: torch.Tensor, right: torch.Tensor, shares: torch.Tensor) -> list:
        """1/2 left_l^T (H right)_l of each tensor."""
        products = 0.5 * left * self.times(right, shares)
        return [products[a:b].sum().item() for a, b in zip(self.bounds[:-1], self.bounds[1:])]

    def signs(self) -> torch.Tensor:
        """z, from the streams of the tensors."""
        parts = []
        for key, shape in zip(self.keys, self.shapes):
            half = np.full(shape.numel(), 2**31, dtype=np.uint64)
            parts.append(1.0 - 2.0 * edit_oracle.below(SEED, f"signs 0 of {self.names[key]}", SIGN, half))
        return torch.from_numpy(np.concatenate(parts))

    def outside(self) -> torch.Tensor:
        """1 in the tensors outside the layers."""
        return torch.cat([torch.full((s.numel(),), float(not re.search(r"layers?\.\d", self.names[k]))).double()
                          for k, s in zip(self.keys, self.shapes)])


def rows_of(case: Case) -> list:
    """(tensor, edit, signs, block) in order of names, each even and weighted."""
    z, outside = case.signs(), case.outside()
    columns = []
    for shares in case.shares:
        columns.append(case.halves(case.edit, case.edit, shares))
        columns.append(case.halves(z * case.edit, z * case.edit, shares))
        columns.append(case.halves(case.edit, outside * case.edit, shares))
    return sorted((case.names[k], *[c[i] for c in columns]) for i, k in enumerate(case.keys))


def hessian_of(case: Case, shares: torch.Tensor) -> tuple:
    """Gradient and whole Hessian."""
    weights = case.post.clone().requires_grad_()
    gradient, = torch.autograd.grad(case.loss(weights, shares), weights, create_graph=True)
    rows = [torch.autograd.grad(g, weights, retain_graph=True)[0] for g in gradient]
    return gradient.detach(), torch.stack(rows)


def masks_of(case: Case) -> tuple:
    """Mean and standard deviation of the change over masks, and their standard errors."""
    rng = torch.Generator().manual_seed(1)
    losses = torch.func.vmap(lambda w: case.loss(w, case.shares[0]), randomness="error")
    base = case.loss(case.post, case.shares[0])
    changes = []
    with torch.no_grad():
        for _ in range(MASKS // PART):
            dropped = (torch.rand(PART, len(case.post), generator=rng, dtype=torch.float64) < P).double()
            factor = (K - 1.0) * (dropped - P) / (1.0 - P)
            changes.append(losses(case.post + factor * case.edit) - base)
    x = torch.cat(changes).numpy()
    off = x - x.mean()
    fourth, second = (off**4).mean(), (off**2).mean()
    return x.mean(), x.std(), x.std() / np.sqrt(len(x)), np.sqrt((fourth - second**2) / len(x)) / (2.0 * x.std())


def whole(case: Case) -> list:
    """C lines of all that needs the whole Hessian."""
    gradient, hessian = hessian_of(case, case.shares[0])
    assert (hessian - hessian.T).abs().max() < 1e-12 * hessian.abs().max()
    e = case.edit
    a = 0.5 * e[:, None] * hessian * e[None, :]
    diagonal = a.diagonal()
    exact = [diagonal[x:y].sum().item() for x, y in zip(case.bounds[:-1], case.bounds[1:])]
    squares = ((gradient * e)**2).sum().item()
    spread = 2.0 * ((a**2).sum() - (diagonal**2).sum()).item()
    s = (K - 1.0)**2 * P / (1.0 - P)
    values = (K - 1.0) * np.array([-P, 1.0 - P]) / (1.0 - P)
    third, fourth = ((1.0 - P) * values[0]**n + P * values[1]**n for n in (3, 4))
    rest = (fourth - s * s) * (diagonal**2).sum().item() + 2.0 * third * (gradient * e * diagonal).sum().item()
    predicted = s * diagonal.sum().item(), np.sqrt(s * squares + s * s * spread)
    full = np.sqrt(s * squares + s * s * spread + rest)
    mean, sd, mean_se, sd_se = masks_of(case)
    print(f"{len(e)} weights, s = {s:.4f}: mean {predicted[0]:.6e} predicted, {mean:.6e} +- {mean_se:.1e} by {MASKS} "
          f"masks; spread {predicted[1]:.6e} without the diagonal, {full:.6e} with it, {sd:.6e} +- {sd_se:.1e}",
          file=sys.stderr)
    assert abs(mean - predicted[0]) < 4 * mean_se + 0.02 * predicted[0]
    assert abs(sd - full) < 4 * sd_se + 0.02 * full
    top = [np.linalg.eigvalsh(m.numpy()) for m in (hessian, 2.0 * a)]
    largest = [sorted(v, key=abs, reverse=True)[:TOP] for v in top]
    lines = ["/* 1/2 sum E_i^2 H_ii of each tensor of vit/tiny, in order of names. */",
             "static const double hessian_exact[] = {"]
    order = sorted(range(len(exact)), key=lambda i: case.names[case.keys[i]])
    lines += [f"    {exact[i]:.9e}," for i in order]
    lines += ["};", "", "/* Of vit/tiny: sum (g_i E_i)^2, twice the squared off-diagonal norm of D A D, and for p and k the",
              "   mean and spread over masks. */", "static const double hessian_squares = " + f"{squares:.9e},",
              f"                    hessian_spread = {spread:.9e},", f"                    hessian_p = {P}, hessian_k = {K},",
              f"                    hessian_masks_mean = {mean:.6e}, hessian_masks_sd = {sd:.6e};", "",
              "/* Eigenvalues of greatest size of H and of D H D. */",
              f"static const double hessian_top[2][{TOP}] = {{"]
    lines += ["    {" + ", ".join(f"{v:.9e}" for v in one) + "}," for one in largest]
    return lines + ["};"]


def main() -> None:
    """The header."""
    print("/* Written by tools/reference/hessian_golden.py. */\n#ifndef DELTAPATH_HESSIAN_GOLDEN_H\n"
          "#define DELTAPATH_HESSIAN_GOLDEN_H\n")
    print("/* Of a tensor, with even shares and with the weights 1, 0, 3, 0.5, 2: 1/2 E_l^T (H E)_l; the same of z E;\n"
          "   1/2 E_l^T (H E_m)_l, m the tensors outside the layers. */\ntypedef struct hessian_row {\n"
          "    const char *model, *tensor;\n    double edit[2], signs[2], block[2];\n} hessian_row;\n")
    print("static const hessian_row hessian_golden[] = {")
    extra = []
    for name in CASES:
        case = Case(name)
        for tensor, *v in rows_of(case):
            pairs = ", ".join(f"{{{v[i]:.9e}, {v[i + 3]:.9e}}}" for i in range(3))
            print(f'    {{"{name}", "{tensor}",\n     {pairs}}},')
        if name == WHOLE:
            extra = whole(case)
    print("};\n")
    print("\n".join(extra))
    print("\n#endif")


main()

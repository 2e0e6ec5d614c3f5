#!/usr/bin/env python3
"""Write tests/golden/logits_golden.h: how often the golden model vit/tiny is right under random edits.

The model is written out here in numpy, in double, for many weights at once, and checked against the losses of torch in
the golden file.  W_post, E and samples are those of the file, the delta is D = TIMES E.  With J and z'' the derivatives of
the logits z of a sample, by differences in each of the 339 weights, an edit whose mean is -a D and whose entries vary by
v D_i^2 has the Gaussian of mean z - a J D + a^2/2 D^T z'' D + v/2 sum D_i^2 z''_ii and covariance v J diag(D^2) J^T, joint
over the samples, of which DRAWS draws say

    accuracy, sd    mean of the share of samples that are right, and its spread over the masks
    plain           the same mean without the second derivatives
    masks           the mean over MASKS masks of the model itself

Usage: logits_golden.py | clang-format > tests/golden/logits_golden.h    (needs numpy, h5py)
"""
import math
import pathlib
import sys

import h5py
import numpy as np

FILE = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/vit/tiny.h5"
DRAWS, MASKS, PART = 200000, 4000, 400
TIMES = 4.0  # a delta that is large enough to matter
EDITS = [("dare", 0.3, 0.0), ("dare", 0.6, 0.5), ("drop", 0.3, 0.0)]
HEADS, EPS, PATCH = 2, 1e-12, 2
STEP = 1e-3
erf = np.vectorize(math.erf)


class Model:
    """Logits of all samples as a function of the weights, one after the other in a vector."""

    def __init__(self):
        with h5py.File(FILE) as f:
            self.names = list(f["tensors"])
            self.shapes = [f[f"tensors/{n}"].shape for n in self.names]
            self.bounds = np.cumsum([0] + [math.prod(s) for s in self.shapes])
            self.post = np.concatenate([f[f"tensors/{n}"][()].astype(float).ravel() for n in self.names])
            self.edit = np.concatenate([f[f"edit/{n}"][()].astype(float).ravel() for n in self.names])
            images, self.labels = f["images"][()].astype(float), f["labels"][()]
            ends = f["loss"][()], f["loss_edit"][()]
        self.show(images)
        for weights, loss in zip((self.post, self.post + self.edit), ends):
            nll = self.losses(weights[None])[0]
            assert np.abs(nll - loss).max() < 1e-6, (nll, loss)

    def show(self, images: np.ndarray) -> None:
        """Take these images."""
        n, channels, height, _ = images.shape
        side = height // PATCH
        cut = images.reshape(n, channels, side, PATCH, side, PATCH).transpose(0, 2, 4, 1, 3, 5)
        self.patches = cut.reshape(n, side * side, -1)

    def losses(self, weights: np.ndarray) -> np.ndarray:
        """(many, samples) of weights (many, 339)."""
        z = self.logits(weights)
        return np.log(np.exp(z).sum(-1)) - z[:, np.arange(len(self.labels)), self.labels]

    def logits(self, weights: np.ndarray) -> np.ndarray:
        """(many, samples, classes) of weights (many, 339)."""
        many = len(weights)
        w = {n: weights[:, a:b].reshape(many, *s)
             for n, a, b, s in zip(self.names, self.bounds[:-1], self.bounds[1:], self.shapes)}

        def linear(name, x):
            matrix = w[f"{name}.weight"].reshape(many, w[f"{name}.weight"].shape[1], -1)
            return np.einsum("msti,moi->msto", x, matrix) + w[f"{name}.bias"][:, None, None]

        def norm(name, x):
            off = x - x.mean(-1, keepdims=True)
            scaled = off / np.sqrt((off**2).mean(-1, keepdims=True) + EPS)
            return scaled * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]

        x = linear("vit.embeddings.patch_embeddings.projection",
                   np.broadcast_to(self.patches, (many, *self.patches.shape)))
        token = np.broadcast_to(w["vit.embeddings.cls_token"], (many, x.shape[1], 1, x.shape[3]))
        x = np.concatenate([token, x], 2) + w["vit.embeddings.position_embeddings"]
        for layer in range(2):
            at = f"vit.encoder.layer.{layer}"
            y = norm(f"{at}.layernorm_before", x)
            q, k, v = (linear(f"{at}.attention.attention.{part}", y).reshape(*y.shape[:3], HEADS, -1)
                       for part in ("query", "key", "value"))
            score = np.exp(np.einsum("msthd,msuhd->mshtu", q, k) / math.sqrt(q.shape[-1]))
            mixed = np.einsum("mshtu,msuhd->msthd", score / score.sum(-1, keepdims=True), v)
            x = x + linear(f"{at}.attention.output.dense", mixed.reshape(y.shape))
            y = linear(f"{at}.intermediate.dense", norm(f"{at}.layernorm_after", x))
            x = x + linear(f"{at}.output.dense", 0.5 * y * (1.0 + erf(y / math.sqrt(2.0))))
        return linear("classifier", norm("vit.layernorm", x)[:, :, :1])[:, :, 0]

    def share_right(self, z: np.ndarray) -> np.ndarray:
        """Of each of many logits."""
        return (z.argmax(-1) == self.labels).mean(-1)


def sides(model: Model, direction: np.ndarray) -> tuple:
    """First derivative of the logits and half of the second, along rows of directions."""
    z = model.logits(model.post[None])[0]
    plus, minus = (model.logits(model.post + t * direction) for t in (STEP, -STEP))
    return (plus - minus) / (2.0 * STEP), (plus + minus - 2.0 * z) / (2.0 * STEP**2)


def moments(method: str, p: float, k: float) -> tuple:
    """What becomes of an entry, how far its mean is on the way to W_pre, and its variance."""
    values = np.array([(1.0 - k * p) / (1.0 - p), k]) if method == "dare" else np.array([1.0, 0.0])
    chance = np.array([1.0 - p, p])
    mean = values @ chance
    return values, 1.0 - mean, (values - mean)**2 @ chance


def by_masks(model: Model, delta: np.ndarray, p: float, values: np.ndarray) -> float:
    """Share of samples that the model itself has right under random masks."""
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(MASKS // PART):
        factor = np.where(rng.random((PART, len(delta))) < p, values[1], values[0]) - 1.0
        hits.append(model.share_right(model.logits(model.post + factor * delta)))
    return np.concatenate(hits).mean()


def main() -> None:
    """The header."""
    model = Model()
    delta = TIMES * model.edit
    post = model.logits(model.post[None])[0]
    first, second = sides(model, np.diag(delta))
    toward, toward_second = (x[0] for x in sides(model, -delta[None]))
    left, values, _ = np.linalg.svd(first.reshape(len(delta), -1).T, full_matrices=False)
    normal = np.random.default_rng(1).standard_normal((DRAWS, left.shape[1]))
    moved = (normal @ (left * values).T).reshape(DRAWS, *post.shape)
    print("/* Written by tools/reference/logits_golden.py. */\n#ifndef DELTAPATH_LOGITS_GOLDEN_H\n"
          "#define DELTAPATH_LOGITS_GOLDEN_H\n\n"
          "/* How often vit/tiny is right under random edits: of dare with p and k, or of drop with p, whose k is -1. */\n"
          "typedef struct logits_edit {\n    double p, k, accuracy, sd, plain, masks;\n} logits_edit;\n\n"
          "static const logits_edit logits_edits[] = {")
    for method, p, k in EDITS:
        factors, a, v = moments(method, p, k)
        plain = post + a * toward
        right = model.share_right(plain + a * a * toward_second + v * second.sum(0) + math.sqrt(v) * moved)
        without = model.share_right(plain + math.sqrt(v) * moved).mean()
        true = by_masks(model, delta, p, factors)
        print(f"{method} p {p} k {k}: {right.mean():.4f} sd {right.std():.4f}, {without:.4f} without second, "
              f"{true:.4f} by masks", file=sys.stderr)
        print(f"    {{{p}, {k if method == 'dare' else -1.0}, {right.mean():.6e}, {right.std():.6e}, "
              f"{without:.6e}, {true:.6e}}},")
    print("};\n\n#endif")


if __name__ == "__main__":
    main()

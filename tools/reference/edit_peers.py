"""Edits against the public code of their peers, on the pair of edit_oracle.py.

    python tools/reference/edit_peers.py > tests/golden/edit/peers.txt

BitDelta: the scale and the packed signs as its code computes them with torch, `diff = finetune - base`
in the type of the pair, `diff.float().abs().mean()`, and signs 1 where not `diff < 0`; and the
weights that its load_diff makes of them. Written: the type, the scale, the same from differences in
fp32, XXH3-64 of the signs packed 8 to a byte, first in the highest bit, and of the weights.

Pruning: mergekit's `magnitude` keeps int(density * numel) entries; among equal magnitudes its sort
is not stable. Written: how many it kept, the least magnitude that it kept and how many of that, and
XXH3-64 of what it kept above that magnitude, the rest zero.

Checked here, on the oracle that the program equals bit for bit: mergekit's l1 rescaling under the
same mask, and the keep probabilities of its `della_magprune`, whose epsilon is half of ours.

Needs torch, mergekit, numpy and xxhash.
"""

import importlib.util
import pathlib
import sys

import numpy as np
import torch
import xxhash

import edit_oracle as oracle


def load_mergekit():
    """mergekit/sparsify.py alone: the package imports more than it needs here."""
    for folder in sys.path:
        path = pathlib.Path(folder) / "mergekit" / "sparsify.py"
        if path.is_file():
            spec = importlib.util.spec_from_file_location("sparsify", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise SystemExit("mergekit is not installed")


def deltas(dtype):
    out = {}
    for name, shape, _ in oracle.TENSORS:
        n = int(np.prod(shape))
        if n > 0:
            pre, post = (oracle.load(w, dtype) for w in oracle.weights(name, n, dtype))
            out[name] = (pre, post, post - pre)
    return out


def bitdelta(dtype, torch_dtype):
    torch.set_num_threads(1)
    for name, (pre, post, _) in deltas(dtype).items():
        if not oracle.is_linear(name, oracle.SHAPES[name]):
            continue
        base = torch.from_numpy(pre.copy()).to(torch_dtype)
        finetune = torch.from_numpy(post.copy()).to(torch_dtype)
        diff = finetune - base
        scale = diff.float().abs().mean()
        wide = (finetune.float() - base.float()).abs().mean().item()
        signs = ~(diff < 0)
        packed = np.packbits(signs.numpy())
        weight = (signs.int() * 2 - 1) * scale
        merged = base.add(weight.to(torch_dtype)).view(torch.int16).numpy()
        print("bitdelta", dtype, name, float(scale).hex(), float(wide).hex(),
              xxhash.xxh3_64_hexdigest(packed.tobytes()),
              xxhash.xxh3_64_hexdigest(merged.tobytes()))


def prune(mergekit, density):
    for name, (_, _, d) in deltas("f32").items():
        kept = mergekit.magnitude(torch.from_numpy(d.copy()), density).numpy()
        count = max(1, int(density * d.size))
        sizes = np.sort(np.abs(d))[::-1]
        least = sizes[count - 1]
        above = np.where(np.abs(kept) > least, kept, np.float32(0))
        equal = count - np.count_nonzero(np.abs(d) > least)
        print("prune", name, count, float(least).hex(), equal,
              xxhash.xxh3_64_hexdigest(above.tobytes()))


def check_l1(mergekit):
    p, seed = 0.8, 5
    for name, (_, _, d) in deltas("f32").items():
        dropped = oracle.dropped(d, name, p, seed, 0)
        mask = torch.from_numpy(~dropped).float()
        peer = mergekit.rescaled_masked_tensor(torch.from_numpy(d.copy()), mask,
                                               mergekit.RescaleNorm.l1).numpy()
        ours = oracle.dare({name: d}, seed, 0, p=p, rescale="l1")[name]
        assert np.allclose(peer, ours, rtol=2e-6, atol=0), name


def check_della(mergekit):
    p, epsilon = 0.5, 0.4
    seen = []

    def bernoulli(probabilities):
        seen.append(probabilities.numpy().copy())
        return torch.ones_like(probabilities)

    original, torch.bernoulli = torch.bernoulli, bernoulli
    for name, (_, _, d) in deltas("f32").items():
        shape = oracle.SHAPES[name]
        rows = d.reshape(shape[0] if len(shape) > 1 else 1, -1)
        if rows.shape[1] < 2:  # mergekit divides by zero
            continue
        mergekit.della_magprune(torch.from_numpy(rows.copy()), 1 - p, epsilon / 2)
        ranks = oracle.row_ranks(rows)
        keep = 1 - (p - epsilon / 2 + epsilon * ranks / (rows.shape[1] - 1))
        size = np.abs(rows)
        order = np.sort(size, axis=1)
        # Equal magnitudes may change places in mergekit: compare the others.
        alone = np.array([np.searchsorted(o, s, "right") - np.searchsorted(o, s, "left") == 1
                          for o, s in zip(order, size)])
        assert alone.sum() > 0.1 * alone.size
        assert np.allclose(seen.pop()[alone], keep[alone], atol=1e-6), name
    torch.bernoulli = original


def main():
    mergekit = load_mergekit()
    bitdelta("bf16", torch.bfloat16)
    bitdelta("f16", torch.float16)
    prune(mergekit, 0.3)
    check_l1(mergekit)
    check_della(mergekit)


if __name__ == "__main__":
    main()

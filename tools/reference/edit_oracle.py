"""Golden hashes of every elementwise edit, from an implementation that shares no code with deltapath.

Weights are made from Philox words, so that the test can make the same ones; the golden file holds
one line per edited tensor: types, seed, edit, tensor, XXH3-64 of the bytes that must be stored.

    python tools/reference/edit_oracle.py > tests/golden/edit/elementwise.txt
    python tools/reference/edit_oracle.py lowrank > tests/golden/edit/lowrank.txt
    python tools/reference/edit_oracle.py rows > tests/golden/edit/rows.txt
    python tools/reference/edit_oracle.py gradient > tests/golden/edit/gradient.txt

Edits with a low-rank stage are compared by numbers: edit, tensor, triplets, relative residual, the
leading singular values (0 where there are fewer), and u^T F v for four pairs of probe vectors.

Needs numpy and xxhash.
"""

import math
import sys

import numpy as np
import xxhash

CELL = 1 << 20
TENSORS = [  # in order of name
    ("empty", (0, 5), None),
    ("lm_head.weight", (50, 24), None),
    ("model.embed_tokens.weight", (64, 24), None),
    ("model.layers.0.input_layernorm.weight", (80,), None),
    ("model.layers.0.mlp.down_proj.weight", (1100, 1200), None),
    ("model.layers.0.self_attn.q_proj.weight", (96, 80), None),
    ("model.layers.1.mlp.up_proj.weight", (7, 300), None),
    ("model.norm.weight", (33,), None),
    ("scalar", (), None),
]
MASK, MAGNITUDE = 0, 1
PURPOSES = 256


def philox(counter, key):
    """Philox4x32-10 of counters (n, 4) under one key (2)."""
    c = [counter[:, i].astype(np.uint64) for i in range(4)]
    k0, k1 = int(key[0]), int(key[1])
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        m0 = c[0] * np.uint64(0xD2511F53)
        m1 = c[2] * np.uint64(0xCD9E8D57)
        c = [
            (m1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            m1 & low,
            (m0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            m0 & low,
        ]
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=1).astype(np.uint32)


def stream_key(seed, name):
    key = xxhash.xxh3_64_intdigest(name.encode()) ^ ((seed * 0x9E3779B97F4A7C15) & (2**64 - 1))
    return np.array([key & 0xFFFFFFFF, key >> 32], dtype=np.uint64)


def words(seed, name, purpose, n):
    blocks = np.arange((n + 3) // 4, dtype=np.uint64)
    counter = np.zeros((len(blocks), 4), dtype=np.uint64)
    counter[:, 0] = blocks & np.uint64(0xFFFFFFFF)
    counter[:, 1] = blocks >> np.uint64(32)
    counter[:, 2] = purpose
    return philox(counter, stream_key(seed, name)).reshape(-1)[:n]


def below(seed, name, purpose, thresholds):
    """Whether 32-bit uniforms are below thresholds (n): 16 elements share the bytes of a block as their
    leading bits; the other 24 bits are of a block of their own."""
    n = thresholds.size
    key = stream_key(seed, name)
    blocks = np.arange((n + 15) // 16, dtype=np.uint64)
    counter = np.zeros((len(blocks), 4), dtype=np.uint64)
    counter[:, 0], counter[:, 1] = blocks & np.uint64(0xFFFFFFFF), blocks >> np.uint64(32)
    counter[:, 2] = purpose
    lead = philox(counter, key).astype("<u4").view(np.uint8).reshape(-1)[:n].astype(np.uint64)
    index = np.arange(n, dtype=np.uint64)
    counter = np.zeros((n, 4), dtype=np.uint64)
    counter[:, 0], counter[:, 1] = index & np.uint64(0xFFFFFFFF), index >> np.uint64(32)
    counter[:, 2], counter[:, 3] = purpose, 2
    rest = philox(counter, key)[:, 0].astype(np.uint64) & np.uint64(0xFFFFFF)
    return (lead << np.uint64(24) | rest) < thresholds.astype(np.uint64)


def bf16_round(x):
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def store(x, dtype):
    x = x.astype(np.float32)
    if dtype == "f32":
        return x
    if dtype == "f16":
        return x.astype(np.float16)
    return bf16_round(x)


def load(stored, dtype):
    if dtype == "bf16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def weights(name, n, dtype):
    """The pair of a tensor: (pre, post) as stored."""
    a = words(7, "pre/" + name, MASK, n).astype(np.int64)
    b = words(7, "delta/" + name, MASK, n).astype(np.int64)
    pre = ((a & 0xFFFF) - 32768).astype(np.float32) * np.float32(2.0**-18)
    delta = ((b & 0xFFFF) - 32768).astype(np.float32) * np.float32(2.0**-21)
    delta[(b >> 16) % 5 == 0] = 0.0
    return store(pre, dtype), store(pre + delta, dtype)


def gradient(name, delta):
    """A gradient that has something to do with the delta."""
    c = words(7, "gradient/" + name, MASK, delta.size).astype(np.int64)
    noise = ((c & 0xFFFF) - 32768).astype(np.float32) * np.float32(2.0**-22)
    return noise + np.float32(-0.5) * delta


GRADIENTS = {}


def is_linear(name, shape):
    others = ("embed", "lm_head", "wte", "wpe", "norm", "classifier", "score")
    return len(shape) == 2 and not any(o in name for o in others)


# Each method takes {name: delta} of the tensors that it works on and gives the edited deltas.
# `index` is its place in the sequence, which its random stream depends on.


def dropped(delta, name, p, seed, index):
    threshold = int(p * 2.0**32 + 0.5)
    thresholds = np.full(delta.size, threshold, dtype=np.uint64)
    return below(seed, name, MASK + PURPOSES * index, thresholds)


def dare(deltas, seed, index, p, k=0.0, rescale="exact"):
    p, k = float(p), float(k)
    out = {}
    for name, d in deltas.items():
        m = dropped(d, name, p, seed, index)
        factor = (1.0 - k * p) / (1.0 - p)
        if rescale == "none":
            factor = 1.0
        if rescale == "l1":
            size = np.abs(d.astype(np.float64))
            kept = math.fsum(size[~m])
            factor = math.fsum(size) / kept if kept > 0 else 1.0
        out[name] = np.where(m, d * np.float32(k), d * np.float32(factor))
    return out


def drop(deltas, seed, index, p):
    return {n: np.where(dropped(d, n, float(p), seed, index), d * np.float32(0), d)
            for n, d in deltas.items()}


def expo(deltas, seed, index, alpha):
    return {n: d * np.float32(1.0 + float(alpha)) for n, d in deltas.items()}


def largest(values, keep):
    """Mask of the entries of largest magnitude, ties in index order."""
    count = math.floor(keep * values.size + 0.5)
    order = np.argsort(-np.abs(values), kind="stable")
    mask = np.zeros(values.size, dtype=bool)
    mask[order[:count]] = True
    return mask


def prune(deltas, seed, index, keep, scope="tensor"):
    keep = float(keep)
    if scope == "tensor":
        return {n: np.where(largest(d, keep), d, np.float32(0)) for n, d in deltas.items()}
    names = sorted(deltas)
    mask = largest(np.concatenate([deltas[n] for n in names]), keep)
    out, at = {}, 0
    for n in names:
        size = deltas[n].size
        out[n] = np.where(mask[at : at + size], deltas[n], np.float32(0))
        at += size
    return out


def bias(deltas, seed, index, k, p=None, by="sign"):
    out = {}
    for name, d in deltas.items():
        chosen = d < 0 if by == "sign" else np.sign(d) * np.sign(GRADIENTS[name]) < 0
        share = float(p) if p is not None else np.count_nonzero(chosen) / d.size
        other = (1.0 - float(k) * share) / (1.0 - share) if share < 1 else 1.0
        out[name] = np.where(chosen, d * np.float32(float(k)), d * np.float32(other))
    return out


def row_ranks(rows):
    """Rank of each entry of a row by falling magnitude, ties in index order."""
    order = np.argsort(-np.abs(rows), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(rows.shape[1]), rows.shape), axis=1)
    return ranks


def della(deltas, seed, index, p, epsilon, ranked=None):
    p, epsilon = float(p), float(epsilon)
    out = {}
    for name, d in deltas.items():
        of = d if ranked is None else ranked
        rows = of.reshape(SHAPES[name][0] if len(SHAPES[name]) > 1 else 1, -1)
        n = rows.shape[1]
        drop = np.full(rows.shape, p)
        if n > 1:
            drop = p - 0.5 * epsilon + epsilon * (row_ranks(rows).astype(np.float64) / (n - 1))
        drop = np.maximum(drop, 0.0).reshape(-1)
        threshold = np.floor(drop * 2.0**32 + 0.5)
        kept = ~below(seed, name, MASK + PURPOSES * index, threshold)
        out[name] = d * np.where(kept, (1.0 / (1.0 - drop)).astype(np.float32), np.float32(0))
    return out


def normals(seed, name, purpose, n):
    """Box-Muller on words 0 and 1 of a counter of its own for each element."""
    index = np.arange(n, dtype=np.uint64)
    counter = np.zeros((n, 4), dtype=np.uint64)
    counter[:, 0] = index & np.uint64(0xFFFFFFFF)
    counter[:, 1] = index >> np.uint64(32)
    counter[:, 2] = purpose
    counter[:, 3] = 1
    w = philox(counter, stream_key(seed, name)).astype(np.float64)
    u = (w + 0.5) / 2.0**32
    return (np.sqrt(-2.0 * np.log(u[:, 0])) * np.cos(2.0 * np.pi * u[:, 1])).astype(np.float32)


def multibit(deltas, seed, index, bits, scope="tensor", tensors="linear"):
    count = 1 << int(bits)
    covered = [n for n in sorted(deltas)
               if (is_linear(n, SHAPES[n]) if tensors == "linear" else len(SHAPES[n]) == 2)]
    out = {n: None for n in deltas}
    for group in [covered] if scope == "model" else [[n] for n in covered]:
        values = np.concatenate([deltas[n] for n in group])
        order = np.argsort(-np.abs(values), kind="stable")
        edited = np.zeros_like(values)
        for j in range(count):
            block = order[j * values.size // count : (j + 1) * values.size // count]
            mean = np.float32(math.fsum(np.abs(values[block]).astype(np.float64)) / len(block))
            edited[block] = np.sign(values[block]) * mean
        at = 0
        for n in group:
            out[n] = edited[at : at + deltas[n].size]
            at += deltas[n].size
    return out


def bitdelta(deltas, seed, index, granularity="tensor", tensors="linear", multiple=1, sample="none", mean="all"):
    out = {}
    for name, d in deltas.items():
        shape = SHAPES[name]
        if not (is_linear(name, shape) if tensors == "linear" else len(shape) == 2):
            out[name] = None
            continue
        size = np.abs(d.astype(np.float64)).reshape(shape)
        if granularity == "row":
            scale = np.array([np.float32(math.fsum(r) / (shape[1] if mean == "all" else max(np.count_nonzero(r), 1)))
                              for r in size], dtype=np.float32)
            scale = np.repeat(scale, shape[1])
        else:
            scale = math.fsum(size.reshape(-1)) / (d.size if mean == "all" else max(np.count_nonzero(d), 1))
        scale = float(multiple) * np.asarray(scale, dtype=np.float64)
        if sample == "uniform":
            w = words(seed, name, MAGNITUDE + PURPOSES * index, d.size).astype(np.float64)
            scale = scale * (2.0 * ((w + 0.5) / 2.0**32))
        if sample == "normal":
            z = normals(seed, name, MAGNITUDE + PURPOSES * index, d.size).astype(np.float64)
            scale = scale * (1.0 + math.sqrt(math.pi / 2 - 1) * z)
        scale = scale.astype(np.float32)
        out[name] = np.where(d == 0, np.float32(0), np.where(d > 0, scale, -scale)).astype(np.float32)
    return out


LAST_SVD = {}


def lowrank(deltas, seed, index, rank=None, sparsity=None, energy=None, svd="auto"):
    out = {}
    for name, d in deltas.items():
        shape = SHAPES[name]
        if len(shape) != 2:
            out[name] = None
            continue
        a = d.astype(np.float64).reshape(shape)
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        if rank is not None:
            r = int(rank)
        elif sparsity is not None:
            r = math.floor((1.0 - float(sparsity)) * min(shape) + 1e-9)
        else:
            share = np.cumsum(s**2) / np.sum(s**2)
            r = int(np.argmax(share >= float(energy))) + 1
        LAST_SVD[name] = (r, math.sqrt(np.sum(s[r:] ** 2) / np.sum(s**2)), s[:r])
        out[name] = ((u[:, :r] * s[:r]) @ vt[:r]).reshape(-1).astype(np.float32)
    return out


METHODS = {f.__name__: f for f in (dare, drop, expo, prune, bitdelta, lowrank, bias, multibit, della)}
SHAPES = {name: shape for name, shape, _ in TENSORS}


def edit(spec, seed, dtype_in, skip=()):
    """What is left of the deltas: (pre, post, deltas, names of the tensors that were edited)."""
    sizes = {name: int(np.prod(shape)) for name, shape in SHAPES.items() if name not in skip}
    pairs = {name: weights(name, n, dtype_in) for name, n in sizes.items()}
    pre = {n: load(p[0], dtype_in) for n, p in pairs.items()}
    post = {n: load(p[1], dtype_in) for n, p in pairs.items()}
    deltas = {n: post[n] - pre[n] for n in pairs if sizes[n] > 0}
    GRADIENTS.update({n: gradient(n, d) for n, d in deltas.items()})
    touched = set()
    for index, stage in enumerate(spec.split(";")):
        method, _, text = stage.partition(":")
        params = dict(item.split("=") for item in text.split(",")) if text else {}
        edited = METHODS[method](deltas, seed, index, **params)
        for n, d in edited.items():
            if d is not None:
                touched.add(n)
                deltas[n] = d.astype(np.float32)
    return pre, post, deltas, touched


def calibrated(original, edited, name):
    """The factor of a tensor, and the edited delta times it."""
    g, d, f = (x.astype(np.float64) for x in (GRADIENTS[name], original, edited))
    with_delta, with_edit = math.fsum(g * d), math.fsum(g * f)
    s = 1.0
    if abs(with_edit) > 1e-6 * math.sqrt(math.fsum(g * g)) * math.sqrt(math.fsum(f * f)):
        s = with_delta / with_edit
        s = min(max(s, 0.5), 2.0) if s > 0 else 1.0
    return s, edited * np.float32(s)


NONE, TERM = 0, 1
GRADIENT_CASES = [  # how it is calibrated
    ("bias:k=0.7,by=gradient", 0, NONE),
    ("bias:k=1.5,by=gradient,p=0.3", 0, NONE),
    ("prune:keep=0.5;bias:k=0.7,by=gradient;dare:p=0.2", 2, NONE),
    ("prune:keep=0.3", 0, TERM),
    ("bitdelta:tensors=all", 0, TERM),
    ("multibit:bits=2", 0, TERM),
    ("dare:p=0.9", 3, TERM),
    ("drop:p=0.3", 3, TERM),
    ("drop:p=0.8", 3, TERM),
    ("della:p=0.6,epsilon=0.3", 4, TERM),
    ("dare:p=0.5,k=-1;prune:keep=0.4", 5, TERM),
    ("bias:k=-3,by=gradient,p=0.9", 0, TERM),
]
MASKS = {"dare": lambda d, n, s, p, **_: dropped(d, n, float(p), s, 0),
         "drop": lambda d, n, s, p, **_: dropped(d, n, float(p), s, 0),
         "della": lambda d, n, s, **keys: della({n: np.ones_like(d)}, s, 0, ranked=d, **keys)[n] == 0}


def correlation(spec, seed, name, delta):
    """Of the mask of a first stage and gradient times delta."""
    method, _, text = spec.partition(";")[0].partition(":")
    if method not in MASKS:
        return math.nan
    mask = MASKS[method](delta, name, seed, **dict(item.split("=") for item in text.split(",")))
    x = GRADIENTS[name].astype(np.float64) * delta.astype(np.float64)
    m = mask.astype(np.float64)
    m, x = m - m.mean(), x - x.mean()
    size = math.sqrt((m * m).sum() * (x * x).sum())
    return (m * x).sum() / size if size > 0 else math.nan


def main_gradient():
    for dtype in ("f32", "bf16"):
        for spec, seed, calibrate in GRADIENT_CASES:
            pre, post, edited, touched = edit(spec, seed, dtype)
            for name in sorted(touched):
                original = post[name] - pre[name]
                s, f = math.nan, edited[name]
                if calibrate:
                    s, f = calibrated(original, f, name)
                digest = xxhash.xxh3_64_hexdigest(store(pre[name] + f, dtype).tobytes())
                r = correlation(spec, seed, name, original)
                sys.stdout.write(f"{dtype} {seed} {spec} {calibrate} {name} {digest} "
                                 f"{s:.17g} {r:.17g}\n")


def run(spec, seed, dtype_in, dtype_out):
    """Edited tensors as they are stored, by name."""
    pre, post, deltas, touched = edit(spec, seed, dtype_in)
    out = {}
    for n in pre:
        value = pre[n] + deltas[n] if n in touched else post[n]
        out[n] = store(value, dtype_out)
    return out


CASES = [
    ("dare:p=0.5", 1),
    ("dare:p=0.9,k=0.5", 2),
    ("dare:p=0.3,k=-1", 3),
    ("dare:p=0", 4),
    ("dare:p=0.7,k=1", 4),
    ("dare:p=0.8,rescale=l1", 5),
    ("dare:p=0.8,rescale=none", 5),
    ("drop:p=0.25", 1),
    ("drop:p=1", 1),
    ("drop:p=0", 1),
    ("expo:alpha=0.3", 0),
    ("expo:alpha=-1", 0),
    ("prune:keep=0.3", 0),
    ("prune:keep=0", 0),
    ("prune:keep=1", 0),
    ("prune:keep=0.3,scope=model", 0),
    ("bitdelta", 0),
    ("bitdelta:granularity=row", 0),
    ("bitdelta:granularity=row,tensors=all", 0),
    ("prune:keep=0.3;bitdelta", 0),
    ("bitdelta:multiple=2.5", 0),
    ("bitdelta:sample=uniform,multiple=0.5", 8),
    ("bitdelta:sample=normal", 9),
    ("dare:p=0.1;bitdelta:sample=uniform,granularity=row", 9),
    ("bitdelta:mean=nonzero", 0),
    ("bitdelta:mean=nonzero,granularity=row,multiple=0.5", 0),
    ("prune:keep=0.3;bitdelta:mean=nonzero,tensors=all,sample=uniform", 8),
    ("prune:keep=0;bitdelta:mean=nonzero", 0),
    ("multibit:bits=0", 0),
    ("multibit:bits=3", 0),
    ("multibit:bits=2,scope=model,tensors=all", 0),
    ("bias:k=0.7", 0),
    ("bias:k=1.3,p=0.4", 0),
    ("della:p=0.5,epsilon=0.6", 3),
    ("della:p=0.25,epsilon=0", 4),
    ("expo:alpha=1;della:p=0.7,epsilon=0.2;dare:p=0.1;della:p=0.3,epsilon=0.6;prune:keep=0.2", 4),
    ("dare:p=0.5;dare:p=0.5;expo:alpha=0.5", 6),
    ("expo:alpha=1;prune:keep=0.5;dare:p=0.2,rescale=l1", 6),
]


LOWRANK_CASES = [
    ("lowrank:rank=5,svd=exact", True),
    ("lowrank:rank=5,svd=reference", False),
    ("lowrank:sparsity=0.8", False),
    ("lowrank:energy=0.5", False),
    ("prune:keep=0.3;lowrank:rank=4", False),
    ("lowrank:rank=4;expo:alpha=0.5", False),
    ("lowrank:rank=4;dare:p=0.5", False),
    ("lowrank:rank=4;bitdelta:tensors=all", False),
    ("lowrank:rank=6;dare:p=0.5;lowrank:rank=3", False),
    ("della:p=0.5,epsilon=0.4;lowrank:rank=4", False),
    ("lowrank:rank=6;della:p=0.3,epsilon=0.4;lowrank:rank=3", False),
]


def probe(kind, j, n):
    w = words(11, f"probe/{kind}/{j}", MASK, n).astype(np.int64)
    return ((w & 0xFFFF) - 32768) / 32768.0


def main_lowrank():
    large = "model.layers.0.mlp.down_proj.weight"
    for spec, with_large in LOWRANK_CASES:
        LAST_SVD.clear()
        _, _, deltas, _ = edit(spec, 1, "f32", () if with_large else (large,))
        for name, (rank, residual, s) in LAST_SVD.items():
            rows, cols = SHAPES[name]
            f = deltas[name].astype(np.float64).reshape(rows, cols)
            probes = [probe("u", j, rows) @ f @ probe("v", j, cols) for j in range(4)]
            s = list(s[:4]) + [0.0] * (4 - len(s[:4]))
            numbers = " ".join(f"{x:.17g}" for x in [residual, *s, *probes])
            sys.stdout.write(f"{spec} {name} {int(with_large)} {rank} {numbers}\n")


ROWS = {"cube": (5, 7, 11), "long": (2500000,), "wide": (3, 1300000)}  # rows of more than a cell
ROWS_CASES = [("della:p=0.5,epsilon=0.6", 3), ("dare:p=0.2;della:p=0.3,epsilon=0.1", 4)]


def main():
    cases, all_types = CASES, ("f32", "f16", "bf16", "f32>bf16", "bf16>f32")
    if sys.argv[1:] == ["lowrank"]:
        main_lowrank()
        return
    if sys.argv[1:] == ["gradient"]:
        main_gradient()
        return
    if sys.argv[1:] == ["rows"]:
        SHAPES.clear()
        SHAPES.update(ROWS)
        cases, all_types = ROWS_CASES, ("f32", "bf16")
    for types in all_types:
        dtype_in, _, dtype_out = types.partition(">")
        for spec, seed in cases:
            for name, values in run(spec, seed, dtype_in, dtype_out or dtype_in).items():
                digest = xxhash.xxh3_64_hexdigest(values.tobytes())
                sys.stdout.write(f"{types} {seed} {spec} {name} {digest}\n")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
# seconds: 300
"""on_mismatch: rows. Embeddings and heads of two vocabularies pair by their tokens: edits against NumPy's, which counts the
shared rows alone, at every number of ranks, and against the pair that has the rows of both in one order."""
import json
import os
import pathlib
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import make_models as models
import studies
from studies import check

ROWS = ("model.embed_tokens.weight", "lm_head.weight")
EDITS = {
    "expo": "method: expo, alpha: -0.3", "dare": "method: dare, p: 0.4, seed: 5", "prune": "method: prune, keep: 0.3",
    "whole": "method: prune, keep: 0.6, scope: model", "bits": "method: bitdelta, tensors: all",
    "rows": "method: bitdelta, tensors: all, granularity: row", "nonzero": "method: bitdelta, tensors: all, mean: nonzero",
    "multi": "method: multibit, bits: 1, tensors: all", "bias": "method: bias, by: sign, k: 0.5",
    "both": "method: [{method: bitdelta, tensors: all}, {method: prune, keep: 0.5}]",
    "della": "method: della, p: 0.3, epsilon: 0.1, seed: 2",
}
JOB = """name: r
models: {pre: %s, post: %s}
on_mismatch: %s
%sedits: [%s]
%s
output: {directory: %s, checkpoint: safetensors, report: false}
svd_group: 1
"""


def tokens_of(path, vocab, added=(), old=False):
    """A tokenizer: strings in order of their ids, None without one; added: {string: id}."""
    table = {text: i for i, text in enumerate(vocab) if text is not None}
    if old:
        (path / "tokenizer.json").unlink()
        (path / "vocab.json").write_text(json.dumps(table))
        (path / "added_tokens.json").write_text(json.dumps(dict(added)))
    else:
        listed = [{"id": i, "content": text, "special": True} for text, i in dict(added).items()]
        (path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": table, "merges": []},
                                                         "added_tokens": listed}))
    return dict(table, **dict(added))


def values(tensor):
    """A stored tensor in fp32."""
    dtype, shape, raw = tensor
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(raw, "<f4").reshape(shape)


class Pair:
    """Two models of one architecture, two vocabularies, and what NumPy makes of their edits."""

    def __init__(self, folder, name, sizes, dtypes, seed, old=False):
        self.folder, self.name = folder, name
        rng = np.random.default_rng(seed)
        low, high = min(sizes), max(sizes)
        pre, _ = models.llama_pair(models.llama_config(sizes[0]), dtypes[0], seed)
        self.config = models.llama_config(sizes[1])
        _, post = models.llama_pair(self.config, dtypes[1], seed)
        vocab = [f"t{i}" for i in range(high)]
        mine = [*vocab[:low - 9], "only pre", None, None] + [f"p{i}" for i in range(sizes[0] - low)]
        other = list(rng.permutation(vocab[:low - 6])) if seed % 2 else vocab[:low - 6]
        for name_, tensors, config in (("pre", pre, models.llama_config(sizes[0])), ("post", post, self.config)):
            models.write_model(folder / f"{name}-{name_}", tensors, config)
        table = [tokens_of(folder / f"{name}-pre", mine, {"<s>": low - 1, "t3": low - 2}, old),
                 tokens_of(folder / f"{name}-post", other, {"<s>": sizes[1] - 1}, old)]
        self.map = np.full(sizes[1], -1)
        for text, i in table[1].items():
            self.map[i] = table[0].get(text, -1)
        self.shared = self.map >= 0
        self.pre, self.post = (studies.load_model(folder / f"{name}-{side}") for side in ("pre", "post"))
        check(f"{name}: shared and other rows", self.shared.sum() >= low - 12 and (~self.shared).sum() >= 4)

    def both(self, key):
        """Values of pre in post's order, and of post; the mask of elements that pair."""
        before, after = values(self.pre[key]), values(self.post[key])
        mask = np.ones(after.shape, bool)
        if key in ROWS:
            lined = after.copy()
            lined[self.shared] = before[self.map[self.shared]]
            before, mask[~self.shared] = lined, False
        return before, after, mask

    def aligned(self):
        """A plain pair: pre with the rows of post's tokens, post's own where pre has none."""
        path = self.folder / f"{self.name}-aligned"
        models.write_model(path, {key: (self.both(key)[0], self.pre[key][0] if self.pre[key][0] == self.post[key][0] else
                                        "F32") for key in self.post}, self.config)
        return path.name

    def run(self, out, ranks, edits, pre=None, policy="rows", more="", riemann="riemann: off"):
        """A study; the process."""
        listed = ", ".join(f"{{name: {name}, {EDITS[name]}}}" for name in edits)
        return studies.study(self.folder / f"{out}.yaml", JOB % (self.folder / (pre or f"{self.name}-pre"),
                                                                 self.folder / f"{self.name}-post", policy, more, listed,
                                                                 riemann, self.folder / out), ranks)


def edit(name, delta, mask):
    """F of one tensor; entries that do not pair are 0 in delta and count nowhere."""
    n, flat, on = mask.sum(), np.abs(delta).ravel(), mask.ravel()
    if name == "expo":
        return (np.float32(0.7) * delta).astype(np.float32)
    if name in ("bits", "both", "nonzero", "rows"):
        size = np.abs(delta.astype(np.float64))
        if name == "rows":
            mean = size.mean(axis=1, keepdims=True)
        else:
            mean = size.sum() / (n if name != "nonzero" else (size > 0).sum())
        out = (mean.astype(np.float32) * np.sign(delta)).astype(np.float32)
        if name == "both":
            kept = np.flatnonzero(on & (out.ravel() != 0))[:int(np.floor(0.5 * n + 0.5))]
            rest = np.ones(out.size, bool)
            rest[kept] = False
            out.ravel()[rest] = 0
        return out
    if name == "prune":
        order = np.argsort(-flat, kind="stable")
        order = order[on[order]][:int(np.floor(0.3 * n + 0.5))]
        out = np.zeros_like(delta)
        out.ravel()[order] = delta.ravel()[order]
        return out
    if name == "multi":  # the larger half by magnitude and then index, and the rest
        order = np.argsort(-flat, kind="stable")
        order = order[on[order]]
        half, out = n // 2, np.zeros_like(delta)
        for block in (order[:half], order[half:]):
            mean = np.float32(flat[block].astype(np.float64).sum() / len(block))
            out.ravel()[block] = mean * np.sign(delta.ravel()[block])
        return out
    share = ((delta < 0) & mask).sum() / n
    return delta * np.where(delta < 0, np.float32(0.5), np.float32((1 - 0.5 * share) / (1 - share)))


def against_numpy(pair, ranks):
    """Bytes of the edits of both vocabularies; other rows are post's to the bit."""
    edits = [name for name in EDITS if name != "both" or pair.name == "small"]
    done = pair.run(f"{pair.name}-{ranks}", ranks, edits)
    check(f"{pair.name} on {ranks}: runs", done.returncode == 0 and done.stderr.count("2 tensors are paired row by row") == 1,
          done.stderr)
    if done.returncode != 0:
        return
    for name in edits:
        own = studies.load_model(pair.folder / f"{pair.name}-{ranks}/models/{name}")
        for key in ROWS:
            before, after, mask = pair.both(key)
            check(f"{pair.name} {name} on {ranks}: {key}: rows without a partner",
                  (values(own[key])[~pair.shared] == after[~pair.shared]).all())
            delta = after - before
            if name in ("dare", "della", "whole"):
                check(f"{pair.name} {name} on {ranks}: {key}: some rows move", (values(own[key]) != after).any())
                continue
            wanted = before + edit(name, delta, mask)
            wanted[~pair.shared] = after[~pair.shared]
            raw = models.encode(wanted, own[key][0])
            check(f"{pair.name} {name} on {ranks}: {key}: NumPy's bytes", raw == own[key][2],
                  np.flatnonzero(values(own[key]) != values((own[key][0], wanted.shape, raw)))[:9])
    if ranks > 1:
        one = [studies.load_model(pair.folder / f"{pair.name}-1/models/{name}") for name in edits]
        same = [studies.load_model(pair.folder / f"{pair.name}-{ranks}/models/{name}") for name in edits]
        check(f"{pair.name}: {ranks} ranks give the bytes of one", one == same)


def against_aligned(pair):
    """Masks are those of post's elements, and losses and terms those of the aligned pair."""
    models.write_data(pair.folder / "data.h5", models.random_samples(40))
    data = f"data: [{{name: d, file: {pair.folder}/data.h5, loss: lm}}]\n"
    paths = "riemann: {rule: left, points: 2}"
    one = pair.run("lined", 2, ("expo", "dare", "della"), more=data, riemann=paths)
    two = pair.run("plain", 1, ("expo", "dare", "della"), pair.aligned(), "error", data, paths)
    check("with losses: runs", one.returncode == 0 and two.returncode == 0, one.stderr + two.stderr)
    if one.returncode or two.returncode:
        return
    for name in ("expo", "dare", "della"):
        own, plain = (studies.load_model(pair.folder / out / "models" / name) for out in ("lined", "plain"))
        check(f"{name}: the bytes of the aligned pair", own == plain)
    units = [json.loads((pair.folder / out / "results.json").read_text())["units"] for out in ("lined", "plain")]
    far = [(a["edit"], key, a[key], b[key]) for a, b in zip(*units) for key in ("loss_pre", "loss_post", "estimate", "change")
           if abs(a[key] - b[key]) > 1e-6]
    check("losses and estimates of the aligned pair", not far, far)


def refused(pair):
    """What is no pair of vocabularies stays an error."""
    done = pair.run("strict", 1, ("expo",), policy="error")
    check("without rows: refused", done.returncode == 3 and "padded vocabulary" in done.stderr and "rows" in done.stderr,
          done.stderr)
    models.write_data(pair.folder / "data.h5", models.random_samples(40))
    EDITS["spread"] = "method: allocate, edit: dare, mean: 0.5, data: d"
    done = pair.run("spread", 1, ("spread",), more=f"data: [{{name: d, file: {pair.folder}/data.h5, loss: lm}}]\n",
                    riemann="law: {repeats: 2}")
    check("allocate: refused", done.returncode == 2 and "some rows pair" in done.stderr, done.stderr)
    for side in ("pre", "post"):
        path = pair.folder / f"{pair.name}-{side}/tokenizer.json"
        text = path.read_text()
        for name, other in (("none", "{}"), ("broken", text[:len(text) // 2]), ("an id below 0", text.replace(": 5,", ": -5,"))):
            path.write_text(other)
            done = pair.run("bad", 2, ("expo",))
            check(f"{side}: {name}: refused", done.returncode == 3 and "on_mismatch: rows pairs tokens" in done.stderr,
                  done.stderr)
        path.write_text(text)


def beyond(pair):
    """A token with an id beyond the rows has none; all others still pair by their tokens, of both sides."""
    for side in ("pre", "post"):
        path = pair.folder / f"{pair.name}-{side}/tokenizer.json"
        path.write_text(path.read_text().replace(": 5,", ": 500,"))
        pair.map[5 if side == "post" else pair.map == 5] = -1
        pair.shared = pair.map >= 0
        done = pair.run(f"beyond-{pair.name}-{side}", 2, ("expo",))
        check(f"an id of {side} beyond the rows: runs", done.returncode == 0 and "row by row" in done.stderr, done.stderr)
        for key in ROWS if done.returncode == 0 else ():
            own = studies.load_model(pair.folder / f"beyond-{pair.name}-{side}/models/expo")[key]
            before, after, mask = pair.both(key)
            wanted = before + edit("expo", after - before, mask)
            wanted[~pair.shared] = after[~pair.shared]
            check(f"an id of {side} beyond the rows: {key}", own[2] == models.encode(wanted, own[0]))


def main():
    """Small ones at every number of ranks, one of several cells, other types and the older files."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as name:
        folder = pathlib.Path(name)
        small = Pair(folder, "small", (64, 80), ("BF16", "BF16"), 1)
        for ranks in (1, 2, 3, 4):
            against_numpy(small, ranks)
        against_aligned(small)
        wide = Pair(folder, "wide", (66000, 65700), ("BF16", "BF16"), 2)
        for ranks in (1, 3):
            against_numpy(wide, ranks)
        against_numpy(Pair(folder, "typed", (70, 64), ("F32", "BF16"), 3), 2 - 1)
        against_numpy(Pair(folder, "old", (64, 64), ("BF16", "BF16"), 5, True), 1)
        refused(small)
        beyond(small)
        beyond(Pair(folder, "even", (64, 64), ("BF16", "BF16"), 7))
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

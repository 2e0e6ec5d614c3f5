#!/usr/bin/python3
# seconds: 120
"""Constants that old versions of transformers wrote next to the weights, with infinities in half precision: the study of a
Pythia with them is that of one without, the edited models have them as they were, and no pattern needs to name them."""
import json
import os
import pathlib
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import make_models as models
import studies
from studies import check

PAIR = pathlib.Path("tests/golden/adapter/head")
JOB = """models: {pre: %s, post: %s}
data: [{name: d, file: %s, loss: lm}]
edits: [{name: dare, method: dare, p: 0.5, seed: 3}, {name: prune, method: prune, keep: 0.5}, {name: low, method: lowrank, rank: 2}]
riemann: {rule: left, points: 2}
output: {directory: %s, checkpoint: safetensors, report: false}
"""


def buffers(side):
    """Those of one layer, as (type, shape, bytes)."""
    own = {"bias": ("U8", (1, 1, side, side), np.tril(np.ones((side, side), np.uint8)).tobytes()),
           "masked_bias": ("F16", (), np.array(-np.inf, "<f2").tobytes()),
           "rotary_emb.inv_freq": ("F16", (2,), np.array([1, 0.01], "<f2").tobytes())}
    return {f"gpt_neox.layers.0.attention.{name}": value for name, value in own.items()}


def save(folder, config, tensors):
    """A model of what load_model gives."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    (folder / "config.json").write_text(config)


def norms_of(path, edit):
    """Norm of E of each tensor."""
    with h5py.File(path) as file:
        names = [name.decode() for name in file["tensors/names"]]
        group = file[f"edits/{edit}/d"]
        column = [name.decode() for name in group["tensor_stats_columns"]].index("edit_norm")
        return dict(zip(names, group["tensor_stats"][:, column]))


def main():
    """The pair without, with, and with those of one side alone."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as name:
        folder = pathlib.Path(name)
        config = (PAIR / "base/config.json").read_text()
        plain = {side: studies.load_model(PAIR / part) for side, part in (("pre", "base"), ("post", "merged"))}
        for side, tensors in plain.items():
            save(folder / side, config, tensors)
            save(folder / f"{side}-old", config, dict(tensors, **buffers(32)))
        save(folder / "post-longer", config, dict(plain["post"], **buffers(64)))
        models.write_data(folder / "data.h5", models.random_samples(24))
        found = {}
        for ranks, (pre, post) in enumerate((("pre", "post"), ("pre-old", "post-old"), ("pre-old", "post"),
                                             ("pre-old", "post-longer")), 1):
            out = folder / f"{pre}-{post}"
            done = studies.study(folder / "job.yaml", JOB % (folder / pre, folder / post, folder / "data.h5", out), ranks)
            check(f"{pre} and {post}: runs", done.returncode == 0, done.stderr)
            if done.returncode != 0:
                continue
            check(f"{pre} and {post}: not a word of them", "bias" not in done.stderr and "inv_freq" not in done.stderr,
                  done.stderr)
            found[post] = json.loads((out / "results.json").read_text())["units"]
            kept = {key: value for key, value in studies.load_model(folder / post).items() if key not in plain["post"]}
            for edit in "dare", "prune", "low":
                own = studies.load_model(out / f"models/{edit}")
                first = studies.load_model(folder / f"pre-post/models/{edit}")
                check(f"{pre} and {post}: {edit}", own == dict(first, **kept), [key for key in own if own[key] != first.get(key)])
            keys = "loss_pre", "loss_post", "estimate", "change"
            far = [unit["edit"] for unit, other in zip(found[post], found["post"])
                   if any(abs(unit[key] - other[key]) > 1e-6 for key in keys)]
            check(f"{pre} and {post}: losses and estimates", len(found[post]) == 3 and not far, far)
        for dtype, minus in ("f32", b"\0\0\x80\xff"), ("bf16", b"\x80\xff"):
            out = folder / f"as-{dtype}"
            done = studies.study(folder / "job.yaml", JOB % (folder / "pre-old", folder / "post-old", folder / "data.h5", out), 2,
                                 f"output.dtype={dtype}")
            check(f"in {dtype}: runs", done.returncode == 0, done.stderr)
            own = studies.load_model(out / "models/prune") if done.returncode == 0 else {}
            check(f"in {dtype}: an infinity stays one", own.get("gpt_neox.layers.0.attention.masked_bias", (0, 0, 0))[2] == minus, own.keys())
            norms = norms_of(out / "results.h5", "prune") if own else {}
            check(f"in {dtype}: it is no edit", norms.get("gpt_neox.layers.0.attention.masked_bias") == 0 and
                  all(map(np.isfinite, norms.values())), norms)
        table = studies.deltapath("diff", f"{folder}/pre-old", f"{folder}/post-old").stdout
        check("diff leaves them out", "16 of 19 tensors compared, 3 are buffers" in table and "masked_bias" not in table, table)
        table = studies.deltapath("inspect", f"{folder}/post-old").stdout
        check("inspect calls them so", sum(" buffer " in line for line in table.splitlines()) == 3, table)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

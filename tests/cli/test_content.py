#!/usr/bin/python3
# seconds: 300
"""Parts of edited models (output.content): the tensors that select names as they stand in the whole model, and their deltas as numpy
has them, in both formats; the same bytes at 1 to 4 ranks; no configuration and no tokenizer beside them; what plan says
that they take; refused where a model is wanted."""

import json
import os
import re
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

SHAPES = {"layers.0.big.weight": (1100, 1001), "layers.0.small.weight": (31, 5), "layers.1.norm.weight": (77,),
          "other.weight": (640, 641), "last.weight": (1024, 1030)}  # two have more than one cell
KEPT = [name for name in SHAPES if name.startswith("layers.")]
JOB = """
models: {pre: %(at)s/pre, post: %(at)s/post}
edits: [{name: drop, method: drop, p: 0.5, seed: 3}, {name: low, method: lowrank, rank: 4}]
select: {include: ["layers.*"]}
on_mismatch: keep-post
svd_group: 1
output: {directory: %%s, checkpoint: safetensors, dtype: %(dtype)s}
"""


def values(kind, raw):
    """Floats of stored bytes."""
    if kind == "F32":
        return np.frombuffer(raw, np.float32)
    return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)


def make_pair(at):
    """Two models in f32; the second has a tensor more."""
    rng = np.random.default_rng(5)
    pre = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    post = {name: value + 0.01 * rng.standard_normal(value.shape).astype(np.float32) for name, value in pre.items()}
    post["layers.2.new.weight"] = np.ones((3, 4), np.float32)  # selected, and without a partner
    studies.save_model(f"{at}/pre", "{}", pre)
    studies.save_model(f"{at}/post", "{}", post)
    with open(f"{at}/post/tokenizer.json", "w", encoding="utf-8") as file:
        file.write("{}")
    return pre


def metadata_of(folder):
    """Of a safetensors file."""
    with open(f"{folder}/model.safetensors", "rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]


def check_selected(at, out, edit, whole):
    """The tensors of the whole model, and no others."""
    part = studies.load_model(f"{out}/models/{edit}")
    check(f"{edit}: the selected tensors alone", sorted(part) == sorted(KEPT), sorted(part))
    check(f"{edit}: are those of the model", all(part[name] == whole[name] for name in KEPT))
    said = metadata_of(f"{out}/models/{edit}")
    check(f"{edit}: says what it is", said.get("deltapath.content") == "selected" and said.get("deltapath.base") == f"{at}/post", said)


def check_delta(at, out, edit, whole, pre):
    """Differences of the stored values, rounded once."""
    part = studies.load_model(f"{out}/models/{edit}")
    check(f"{edit}: deltas of the selected tensors", sorted(part) == sorted(KEPT) and all(part[name][0] == "F32" for name in part), sorted(part))
    for name in KEPT:
        want = values(*[whole[name][i] for i in (0, 2)]) - pre[name].ravel()
        got = np.frombuffer(part[name][2], np.float32)
        check(f"{edit}: delta of {name}", got.tobytes() == want.astype(np.float32).tobytes() and np.abs(want).max() > 0)
    said = metadata_of(f"{out}/models/{edit}")
    check(f"{edit}: says what it is", said.get("deltapath.content") == "delta" and said.get("deltapath.base") == f"{at}/pre", said)


def check_folder(out, edit):
    """What lies beside the weights; verify."""
    there = sorted(os.listdir(f"{out}/models/{edit}"))
    check(f"{edit}: no configuration, no tokenizer", not {"config.json", "tokenizer.json"} & set(there), there)
    done = studies.deltapath("verify", f"{out}/models/{edit}")
    check(f"{edit}: verify", done.returncode == 0 and "3 of 3 stored hashes match" in done.stdout, done.stdout + done.stderr)


def check_hdf5(out, edit, folder):
    """The same tensors in one file."""
    part = studies.load_model(folder)
    with h5py.File(f"{out}/models/{edit}.h5") as file:
        same = sorted(file["tensors"]) == sorted(part)
        for name in part:
            same = same and np.array_equal(np.asarray(file["tensors"][name], np.float32).ravel(), values(*[part[name][i] for i in (0, 2)]))
        check(f"{edit}: HDF5 has the same", same and "config" not in file.attrs and "companions" not in file)
        said = json.loads(file.attrs["metadata"])
        check(f"{edit}: HDF5 says what it is", "deltapath.content" in said, said)
    done = studies.deltapath("verify", f"{out}/models/{edit}.h5")
    check(f"{edit}: verify of HDF5", done.returncode == 0, done.stderr)


def check_ranks(at, content, job):
    """The same bytes at any number of ranks."""
    found = []
    for ranks in (1, 2, 3, 4):
        done = studies.study(f"{at}/r.yaml", job % f"{at}/{content}-{ranks}", ranks, f"output.content={content}", "edits=[{name: drop, method: drop, p: 0.5, seed: 3}]")
        check(f"{content} at {ranks} ranks", done.returncode == 0, done.stderr)
        with open(f"{at}/{content}-{ranks}/models/drop/model.safetensors", "rb") as file:
            found.append(file.read())
    check(f"{content}: the same bytes at any number of ranks", len(set(found)) == 1)


def check_plan(at, job):
    """The plan counts what is written."""
    wide = {"model": 4 * sum(int(np.prod(shape)) for shape in SHAPES.values()), "delta": 4 * sum(int(np.prod(SHAPES[name])) for name in KEPT)}
    said = {}
    for content in wide:
        with open(f"{at}/p.yaml", "w", encoding="utf-8") as file:
            file.write(job % f"{at}/none")
        done = studies.deltapath("plan", f"{at}/p.yaml", "--json", "--set", f"output.content={content}", "--set", "output.dtype=f32")
        said[content] = 1e9 * json.loads(done.stdout)["written_gb"]
    less = (said["model"] - said["delta"]) / 2
    check("plan: bytes of the parts", abs(less - (wide["model"] - wide["delta"])) < 1e5, (said, wide))


def damage(path, name):
    """Another bit in a tensor of an HDF5 checkpoint."""
    with h5py.File(path, "r") as file:
        place = file["tensors"][name].id.get_offset()
    with open(path, "r+b") as file:
        file.seek(place + 4)
        byte = file.read(1)
        file.seek(place + 4)
        file.write(bytes([byte[0] ^ 1]))


def reads(at, job, ranks, *keys, options=(), place="b"):
    """Bytes that a study was to read and read; how it ended."""
    done = studies.study(f"{at}/b.yaml", job % f"{at}/{place}", ranks, *keys, options=options)
    line = re.search(r"read ([\d.]+) / ([\d.]+) GB", done.stderr)
    return [1e9 * float(n) for n in line.groups()] if line else [0.0, 0.0], done


def check_reads(at, job):
    """Of models with stored hashes nothing but what is selected is read; the results are those of whole models."""
    job = job.replace(f"{at}/pre", f"{at}/pre.h5").replace(f"{at}/post", f"{at}/post.h5")
    for name in ("pre", "post"):
        check(f"{name} in HDF5", studies.deltapath("convert", f"{at}/{name}", f"{at}/{name}.h5").returncode == 0)
    one = "edits=[{name: drop, method: drop, p: 0.5, seed: 3}]"
    whole, part = (4.0 * sum(int(np.prod(SHAPES[name])) for name in names) for names in (SHAPES, KEPT))
    for content in ("none", "selected", "delta"):
        keys = ["output.checkpoint=none"] if content == "none" else ["output.checkpoint=hdf5", f"output.content={content}"]
        for ranks in (1, 3):
            (planned, taken), done = reads(at, job, ranks, one, *keys, place=f"b-{content}-{ranks}")
            times = 3 if content == "delta" else 2
            # Pieces of each tensor, and headers; and a tensor that ranks share, what later ones have of it again for its hash.
            most = times * part + 1.5e6 + (0 if ranks == 1 else 0.3 * part)
            check(f"{content} at {ranks}: reads what is selected", done.returncode == 0 and 2 * part <= taken <= most, (taken, part, whole, done.stderr[-300:]))
            check(f"{content} at {ranks}: as planned", abs(planned - taken) <= 0.1 * taken, (planned, taken))
    (planned, taken), done = reads(at, job, 2, one)
    check("a whole model reads all of post, and of pre what is selected", done.returncode == 0 and part + whole <= taken <= 1.3 * part + whole + 1.5e6, taken)
    check("as planned", abs(planned - taken) <= 0.1 * taken, (planned, taken))
    done = reads(at, job, 2, "output.checkpoint=none", options=("--resume",))[1]
    check("resumed with less to read, the models are the same", done.returncode == 0 and "finished before" in done.stderr, done.stderr)
    damage(f"{at}/post.h5", "last.weight")
    done = reads(at, job, 2, one, "output.overwrite=true", "output.checkpoint=none")[1]
    check("damage of what is not read is not seen", done.returncode == 0, done.stderr)
    damage(f"{at}/pre.h5", "last.weight")
    done = reads(at, job, 2, one, "output.overwrite=true", "select.include=[layers.*]", "output.checkpoint=none")[1]
    check("of pre neither", done.returncode == 0, done.stderr)
    check("verify sees it", "last.weight" in studies.deltapath("verify", f"{at}/post.h5").stderr)
    done = reads(at, job, 2, one, "output.overwrite=true")[1]
    check("nor does a whole model pass over it", done.returncode == 3 and "last.weight" in done.stderr, done.stderr)
    damage(f"{at}/post.h5", KEPT[0])
    done = reads(at, job, 2, one, "output.overwrite=true", "output.checkpoint=none")[1]
    check("damage of what is read is", done.returncode == 3 and KEPT[0] in done.stderr, done.stderr)


def check_refused(at, job, out):
    """One line each."""
    done = studies.study(f"{at}/e.yaml", job % f"{at}/e", 2, "output.content=delta", "output.checkpoint=none")
    check("content without a checkpoint", done.returncode == 2 and "set output.checkpoint" in done.stderr, done.stderr)
    done = studies.study(f"{at}/e.yaml", job % f"{at}/e", 2, "output.content=delta", "output.quantise=true", "output.dtype=same")
    check("content of quantised models", done.returncode == 2 and "leave output.quantise out" in done.stderr, done.stderr)
    for key in ("io=collective", "chunk=4", "compress=3"):
        done = studies.study(f"{at}/e.yaml", job % f"{at}/e", 2, f"output.{key}")
        check(f"{key} of safetensors", done.returncode == 2 and f"output.{key.split('=', maxsplit=1)[0]} is for HDF5" in done.stderr, done.stderr)
    done = studies.study(f"{at}/e.yaml", job % f"{at}/e", 2, "output.hints={cb_nodes: \"\"}")
    check("a hint without a value", done.returncode == 2 and "striping_factor: 8" in done.stderr, done.stderr)
    done = studies.study(f"{at}/e.yaml", job % f"{at}/e", 2, f"models.post={out}/models/drop")
    check("deltas are no model", done.returncode == 3 and "is no model" in done.stderr, done.stderr)
    done = studies.study(f"{at}/e.yaml", job % f"{at}/e", 2, "output.content=selected", "select.include=[layers.2.*]", "allow=[zero-delta]")
    check("nothing to keep", done.returncode == 3 and "nothing would be written" in done.stderr, done.stderr)


def main():
    """All checks."""
    with tempfile.TemporaryDirectory() as at:
        pre = make_pair(at)
        job = JOB % {"at": at, "dtype": "bf16"}
        out = {content: f"{at}/{content}" for content in ("model", "selected", "delta")}
        for content, folder in out.items():
            done = studies.study(f"{at}/j.yaml", job % folder, 2, f"output.content={content}")
            check(f"{content}: runs", done.returncode == 0, done.stderr)
        for edit in ("drop", "low"):
            whole = studies.load_model(f"{out['model']}/models/{edit}")
            check(f"{edit}: the model is whole", len(whole) == len(SHAPES) + 1 and whole[KEPT[0]][0] == "BF16")
            check_selected(at, out["selected"], edit, whole)
            check_delta(at, out["delta"], edit, whole, pre)
            for content in ("selected", "delta"):
                check_folder(out[content], edit)
                done = studies.study(f"{at}/h.yaml", job % f"{at}/h5-{content}", 3, f"output.content={content}", "output.checkpoint=hdf5", "output.overwrite=true")
                check(f"{content}: HDF5 runs", done.returncode == 0, done.stderr)
                check_hdf5(f"{at}/h5-{content}", edit, f"{out[content]}/models/{edit}")
        check_ranks(at, "selected", job)
        check_ranks(at, "delta", job)
        done = studies.study(f"{at}/j.yaml", job % out["selected"], 2, "output.content=delta", options=("--resume",))
        check("resumed with another content, the models are made again", done.returncode == 0 and metadata_of(f"{out['selected']}/models/drop")["deltapath.content"] == "delta", done.stderr)
        check_plan(at, job)
        check_reads(at, job)
        check_refused(at, job, out["delta"])
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

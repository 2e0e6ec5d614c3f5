#!/usr/bin/python3
# seconds: 300
"""Checkpoints with companion files that another program has written anew (h5py; h5repack where it is installed): in chunks,
shuffled, compressed, without the trailer. verify, inspect, convert and run take them at 1 to 4 ranks, by each rank alone or all together,
with the bytes of what they were made of and as much as is planned, and say what nothing checks any more; none of them is replaced."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

PRE, POST = "share/demo/llama-pre", "share/demo/llama-post"
COMPANIONS = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")
WARNING = "another program has written this checkpoint anew, without its trailer"
JOB = """
models: {pre: %s, post: %s}
edits: [{name: dare, method: dare, p: 0.5, seed: 3}]
output: {directory: %%s, checkpoint: safetensors}
riemann: off
"""
REPACKED = {"gzip": ("-f", "GZIP=4"), "shuffled": ("-f", "SHUF", "-f", "GZIP=4"), "contiguous": ("-l", "CONTI"),
            "pieces": ("-l", "companions/tokenizer.json:CHUNK=1000", "-f", "companions/tokenizer.json:GZIP=9")}


def ours(ranks, *words):
    """The program; the finished process."""
    start = os.environ.get("DPT_MPIRUN", "mpirun -q").split()
    return subprocess.run([*start, "-n", str(ranks), studies.PROGRAM, *words], check=False, capture_output=True, text=True)


def content(path):
    """Bytes of a file; None without one."""
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def store_again(source, target):
    """All data sets of a checkpoint in chunks, shuffled and compressed."""
    with h5py.File(source, "r") as old, h5py.File(target, "w") as new:
        new.attrs.update(old.attrs)
        for group in old:
            for name, data in old[group].items():
                kind = data.id.get_type()
                raw = np.empty(data.size * kind.get_size(), np.uint8)
                data.id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, kind)
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_chunk(tuple(max(side // 3, 1) for side in data.shape))
                plist.set_shuffle()
                plist.set_deflate(4)
                made = h5py.h5d.create(new.require_group(group).id, name.encode(), kind, data.id.get_space(), plist)
                made.write(h5py.h5s.ALL, h5py.h5s.ALL, raw, kind)
                new[group][name].attrs.update(data.attrs)


def check_together(path, ranks, edited):
    """Read by all ranks together: the same model, and as much is read as is planned."""
    name = os.path.basename(path)
    for how in ("chunks", "collective"):
        done = studies.study(f"{path}.yaml", JOB % (PRE, path) % f"{path}.{how}", ranks, f"models.io={how}")
        check(f"{name}: models.io: {how} at {ranks}", done.returncode == 0, done.stderr)
        check(f"{name}: the edited model by {how}", done.returncode == 0 and studies.load_model(f"{path}.{how}/models/dare") == edited)
        if "contiguous" not in name and "pieces" not in name or how == "collective":
            check(f"{name}: all ranks read {how}", f"{path}: " in done.stderr and "were read by all ranks together" in done.stderr, done.stderr)
        planned, taken = (float(n) for n in re.search(r"read ([\d.]+) / ([\d.]+) GB", done.stderr).groups())
        check(f"{name}: {how} reads as planned", abs(taken - planned) <= 0.1 * planned, (planned, taken))
        planned, taken = (float(n) for n in re.search(r"memory per rank ([\d.]+) / ([\d.]+) MiB", done.stderr).groups())
        check(f"{name}: {how} takes the memory that is planned", abs(taken - planned) <= 0.15 * planned, (planned, taken))


def check_file(path, ranks, edited):
    """One that was written anew."""
    name = os.path.basename(path)
    done = ours(ranks, "verify", path)
    check(f"{name}: verify at {ranks}", done.returncode == 0 and WARNING in done.stderr and "48 of 48" in done.stdout, done.stderr)
    done = ours(ranks, "inspect", path)
    check(f"{name}: inspect", done.returncode == 0 and "tokenizer.json, 38485 bytes" in done.stdout, done.stderr)
    done = ours(ranks, "convert", path, f"{path}.folder")
    check(f"{name}: convert", done.returncode == 0, done.stderr)
    check(f"{name}: its companion files", all(content(f"{path}.folder/{file}") == content(f"{POST}/{file}") for file in COMPANIONS))
    done = studies.study(f"{path}.yaml", JOB % (PRE, path) % f"{path}.out", ranks)
    check(f"{name}: run", done.returncode == 0 and WARNING in done.stderr, done.stderr)
    check(f"{name}: the edited model", done.returncode == 0 and studies.load_model(f"{path}.out/models/dare") == edited)
    check(f"{name}: the tokenizer of it", content(f"{path}.out/models/dare/tokenizer.json") == content(f"{POST}/tokenizer.json"))
    check_together(path, ranks, edited)
    before = content(path)
    done = ours(ranks, "convert", "--overwrite", POST, path)
    check(f"{name}: is not replaced", done.returncode == 4 and content(path) == before, done.stderr)


def main():
    """All checks."""
    with tempfile.TemporaryDirectory() as at:
        model = f"{at}/model.h5"
        check("a checkpoint", ours(2, "convert", POST, model).returncode == 0)
        done = studies.study(f"{at}/j.yaml", JOB % (PRE, model) % f"{at}/out", 2)
        check("a study of it", done.returncode == 0 and WARNING not in done.stderr, done.stderr)
        edited = studies.load_model(f"{at}/out/models/dare")
        store_again(model, f"{at}/chunks.h5")
        files = [f"{at}/chunks.h5"]
        for name, options in REPACKED.items() if shutil.which("h5repack") else ():
            files.append(f"{at}/{name}.h5")
            subprocess.run(["h5repack", *options, model, files[-1]], check=True)
        for i, path in enumerate(files):
            check_file(path, i % 4 + 1, edited)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

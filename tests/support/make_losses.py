#!/usr/bin/python3
"""Inputs for the test of losses in studies: make_losses.py DIR, from the root of the repository.

    DIR/clip-pre.h5, clip-post.h5   checkpoints: W and W + E of tests/golden/vit/clip.h5
    DIR/clip.h5                     its images and labels
    DIR/clip-head.h5                W + E with another head of class texts
    DIR/weighted.h5, part.h5        of the shipped digits: weights 0 and 1; the samples with weight 1
    DIR/bad-*.h5                    digits with one fault each

Needs numpy and h5py (Debian's python3-h5py).
"""
import json
import pathlib
import sys

import h5py
import numpy as np


def write_checkpoint(path, config, tensors):
    with h5py.File(path, "w", libver="earliest") as file:
        file.attrs["format"] = np.bytes_("deltapath-checkpoint")
        file.attrs["version"] = np.int64(1)
        file.attrs["config"] = np.bytes_(config)
        for name, values in tensors.items():
            file[f"tensors/{name}"] = values


def make_clip(out):
    with h5py.File("tests/golden/vit/clip.h5") as g:
        config = g.attrs["config"]
        pre = {n: v[()] for n, v in g["tensors"].items()}
        post = {n: v + g["edit"][n][()] for n, v in pre.items()}
        write_checkpoint(out / "clip-pre.h5", config, pre)
        write_checkpoint(out / "clip-post.h5", config, post)
        head = dict(post)
        head["text_embeds.weight"] = 1.5 * post["text_embeds.weight"]
        write_checkpoint(out / "clip-head.h5", config, head)
        with h5py.File(out / "clip.h5", "w") as file:
            file["images"] = g["images"][()]
            file["labels"] = g["labels"][()]
        figures = {key: float(np.mean(g[key])) for key in ("loss", "loss_edit")}
    (out / "clip.json").write_text(json.dumps(figures))


def make_digits(out):
    with h5py.File("share/demo/digits.h5") as g:
        images, labels = g["images"][()], g["labels"][()]
    keep = np.arange(len(labels)) % 3 != 1

    def write(name, images, labels, **more):
        with h5py.File(out / f"{name}.h5", "w") as file:
            file["images"], file["labels"] = images, labels
            for key, values in more.items():
                file[key] = values

    write("weighted", images, labels, weights=2.5 * keep.astype(np.float32))
    write("part", images[keep], labels[keep])
    spoilt = images.copy()
    spoilt[7, 0, 2, 3] = np.inf
    write("bad-pixel", spoilt, labels)
    write("bad-size", np.zeros((4, 1, 9, 8), np.float32), labels[:4])
    write("bad-label", images, np.where(np.arange(len(labels)) == 11, 10, labels))
    write("bad-weights", images, labels, weights=-keep.astype(np.float64))


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    make_clip(out)
    make_digits(out)


main()

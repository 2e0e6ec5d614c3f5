#!/usr/bin/env python3
"""Train the ViT demo pair on the hand-written digits that scikit-learn ships.

Pre-training: which of the eight turns and reflections of the square was put on an image, learnt
from shifted and noisy images without digit labels.  Post-training: which digit it is.  The head
has ten outputs in both; pre-training uses the first eight.

Needs torch, transformers, safetensors, scikit-learn, h5py.  Everything is seeded, runs on CPU.

Usage: train_vit.py OUT_DIRECTORY [--pre-steps N] [--post-steps N]

Writes OUT/vit-pre and OUT/vit-post (f16 safetensors), OUT/digits.h5 (held-out images) and
OUT/figures.json.
"""
import math
import pathlib
import time

import h5py
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import ViTConfig, ViTForImageClassification

from training import delta_figures, descend, pair_arguments, write_figures
import outputs

SEED = 20240601
HELD = 297
BATCH = 64


def load_images():
    """Train and held-out (images, labels): [n,1,8,8] with pixels 0..16 mapped to -1..1."""
    d = load_digits()
    images = (d.images[:, None] / 8 - 1).astype(np.float32)
    xt, xh, yt, yh = train_test_split(images, d.target, test_size=HELD, stratify=d.target,
                                      random_state=SEED)
    return (torch.from_numpy(xt), torch.from_numpy(yt)), (torch.from_numpy(xh),
                                                          torch.from_numpy(yh))


def make_model() -> ViTForImageClassification:
    return ViTForImageClassification(ViTConfig(
        hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
        image_size=8, patch_size=2, num_channels=1, num_labels=10, layer_norm_eps=1e-6))


def jitter(x: torch.Tensor, gen) -> torch.Tensor:
    """Each image shifted by -1..1 pixels each way over a border of background, with noise."""
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), value=-1.0)
    at = torch.randint(0, 3, (len(x), 2), generator=gen).tolist()
    moved = torch.stack([p[:, i:i + 8, j:j + 8] for p, (i, j) in zip(padded, at)])
    return moved + 0.1 * torch.randn(x.shape, generator=gen)


def turned(x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Image i turned by which[i] % 4 right angles, mirrored first when which[i] >= 4."""
    return torch.stack([torch.rot90(p.flip(2) if w >= 4 else p, w % 4, (1, 2))
                        for p, w in zip(x, which.tolist())])


@torch.no_grad()
def evaluate(model, x, y) -> dict:
    model.eval()
    logits = model(pixel_values=x).logits.double()
    model.train()
    return {"loss": round(float(torch.nn.functional.cross_entropy(logits, y)), 4),
            "correct": int((logits.argmax(1) == y).sum()), "of": len(y)}


def run(name, model, steps, peak, next_batch, report) -> None:
    """AdamW with warm-up and cosine decay; next_batch() gives images and labels."""
    opt = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.05)
    start = time.time()
    for step in range(steps):
        warm = min(1.0, (step + 1) / (0.05 * steps + 1))
        for g in opt.param_groups:
            g["lr"] = peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        x, y = next_batch()
        loss = torch.nn.functional.cross_entropy(model(pixel_values=x).logits, y)
        descend(opt, model, loss)
        if step % 250 == 249 or step + 1 == steps:
            print(f"{name} step {step + 1}/{steps} loss {loss.item():.4f} held out {report()} "
                  f"{time.time() - start:.0f} s", flush=True)


def save(model, where: pathlib.Path) -> None:
    model.to(torch.float16).save_pretrained(where)
    for file in where.iterdir():
        file.chmod(0o644)
    model.float()  # goes on from the rounded weights: what is stored is what is post-trained


def write_images(path: pathlib.Path, images, labels) -> None:
    with h5py.File(path, "w") as f:
        f.attrs["format"] = np.bytes_("deltapath-data")
        f.attrs["version"] = np.int32(1)
        f.attrs["kind"] = np.bytes_("class")
        f.attrs["source"] = np.bytes_("scikit-learn load_digits")
        f["images"] = images.numpy()
        f["labels"] = labels.numpy().astype(np.int32)


def main() -> None:
    ap = pair_arguments(pre_steps=3000, post_steps=1500, pre_rate=1e-3, post_rate=1e-3)
    ap.add_argument("out", type=pathlib.Path)
    a = ap.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    gen = torch.Generator().manual_seed(SEED + 1)
    made = ["vit-post", "figures.json"] + ([] if a.skip_pre else ["digits.h5", "vit-pre"])
    outputs.check_new(a.out / name for name in made)
    a.out.mkdir(parents=True, exist_ok=True)
    (xt, yt), (xh, yh) = load_images()
    if not a.skip_pre:
        write_images(a.out / "digits.h5", xh, yh)
    held_turn = torch.randint(0, 8, (len(xh),), generator=gen)
    held_turned = turned(xh, held_turn)

    model = make_model()
    figures = {"parameters": sum(p.numel() for p in model.parameters()), "train_images": len(xt)}
    print(figures, flush=True)

    def draw():
        at = torch.randint(0, len(xt), (BATCH,), generator=gen)
        return jitter(xt[at], gen), yt[at]

    def turn_batch():
        which = torch.randint(0, 8, (BATCH,), generator=gen)
        return turned(draw()[0], which), which

    def report():
        return {"digits": evaluate(model, xh, yh), "turns": evaluate(model, held_turned, held_turn)}

    if a.skip_pre:
        model = ViTForImageClassification.from_pretrained(a.out / "vit-pre", dtype=torch.float32)
    else:
        run("pre", model, a.pre_steps, a.pre_rate, turn_batch, report)
        save(model, a.out / "vit-pre")
    figures["pre"] = report()
    gen.manual_seed(SEED + 2)  # so that --skip-pre gives the same as a whole run
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    run("post", model, a.post_steps, a.post_rate, draw, report)
    save(model, a.out / "vit-post")
    figures["post"] = report()
    figures.update(delta_figures(model, before))
    write_figures(a.out / "figures.json", figures)


main()

#!/usr/bin/env python3
"""Write the golden files of the image models: tests/golden/vit/<case>.h5.

Losses and gradients come from transformers' own ViTForImageClassification and
CLIPVisionModelWithProjection (eager attention) in double.  The weights are exact float32 values.
A file holds

    attribute config   config.json as transformers saves it
    /tensors/<name>    float32, the weights W_post, by their names in model.safetensors
    /edit/<name>       float32, a random small E
    /grad/<name>       float32, gradient of L at W_post
    /images            float32 [n, channels, height, width], /labels int32 [n]
    /loss              float64 [n], loss of each sample at W_post
    /loss_edit         float64 [n], loss of each sample at W_post + E
    /logits            float64 [n, classes] at W_post
    /correct           uint8 [n], 1 where the label has the greatest logit
    /terms             float64 [n, tensors], <gradient of sample i's loss, E> for each tensor
    /term_names        the order of the tensors in /terms

Loss of a sample: cross-entropy of the softmax of its logits with its label.  L: mean over samples.

The CLIP tower has a fixed head, stored in the checkpoint as one more tensor besides those of
transformers: `text_embeds.weight` [classes, projection_dim], the text embedding of each class,
divided by its L2 norm and multiplied by exp(logit_scale).  With x the image embedding (the output
of visual_projection), the logits are  text_embeds.weight . x / |x|.  The head is a constant:
it is never edited and has no gradient; its /edit, /grad and /terms are zeros.

Usage: vit_golden.py [OUT_DIRECTORY]
"""
import pathlib

import h5py
import numpy as np
import torch
import transformers
from transformers.models.clip import modeling_clip
from transformers.models.vit import modeling_vit

import golden_common

golden_common.in_double(modeling_clip, modeling_vit)
HEAD = "text_embeds.weight"
SAMPLES = 5

TINY = dict(hidden_size=20, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            image_size=12, patch_size=4, num_channels=3)
ODD = dict(TINY, hidden_size=25, intermediate_size=13, num_attention_heads=5, image_size=16,
           num_channels=1)
CASES = {  # name: (kind, configuration, number of classes)
    "vit": ("vit", TINY, 7),
    "vit_nobias": ("vit", dict(ODD, qkv_bias=False), 5),
    "clip": ("clip", dict(TINY, projection_dim=12, image_size=9, patch_size=3), 6),
    "clip_gelu": ("clip", dict(ODD, projection_dim=9, image_size=12, intermediate_size=11,
                               hidden_act="gelu", layer_norm_eps=1e-6), 5),
    # Small enough for its whole Hessian (hessian_golden.py).
    "tiny": ("vit", dict(hidden_size=4, intermediate_size=4, num_hidden_layers=2, num_attention_heads=2,
                         image_size=4, patch_size=2, num_channels=1), 3),
}


def make_model(kind: str, keys: dict, classes: int):
    """A model whose every parameter is random, norms and biases too."""
    if kind == "vit":
        config = transformers.ViTConfig(**keys, num_labels=classes)
        make = transformers.ViTForImageClassification
    else:
        config = transformers.CLIPVisionConfig(**keys)
        make = transformers.CLIPVisionModelWithProjection
    config._attn_implementation = "eager"
    model = make(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape)
            if "embeddings.c" in name or "position" in name:
                p.copy_(0.5 * noise)
            elif "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            elif p.dim() == 1:
                p.copy_(0.1 * noise)
            else:
                p.copy_(1.3 * noise / p[0].numel() ** 0.5)
    return model


def make_case(name: str, seed: int, out: pathlib.Path) -> None:
    kind, keys, classes = CASES[name]
    torch.manual_seed(seed)
    model = make_model(kind, keys, classes)
    config, names = golden_common.saved(model)
    model.double()
    params = dict(model.named_parameters())
    edit = {n: (0.03 * p.detach().float().std() * torch.randn(p.shape)).float()
            for n, p in params.items()}
    images = torch.randn(SAMPLES, keys["num_channels"], keys["image_size"], keys["image_size"])
    head = None
    if kind == "clip":
        text = torch.randn(classes, keys["projection_dim"]).double()
        head = (text / text.norm(dim=1, keepdim=True) * np.exp(1.4)).float()

    def logits_of(image) -> torch.Tensor:
        y = model(pixel_values=image.double()[None])
        if head is None:
            return y.logits[0]
        return head.double() @ (y.image_embeds[0] / y.image_embeds[0].norm())

    with torch.no_grad():
        logits = torch.stack([logits_of(x) for x in images])
    order = logits.argsort(1, descending=True)
    top = logits.sort(1, descending=True).values
    assert (top[:, 0] - top[:, 1]).min() > 1e-2, f"{name}: a tie: take another seed"
    labels = torch.tensor([order[i, 0 if i % 2 == 0 else i % classes] for i in range(SAMPLES)])
    correct = logits.argmax(1) == labels

    def sample_loss(i: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits_of(images[i])[None], labels[i:i + 1])

    result = golden_common.measure(params, edit, list(range(SAMPLES)), sample_loss)
    if head is not None:
        names[HEAD] = HEAD
        params[HEAD], edit[HEAD] = head, torch.zeros_like(head)
        result["grad"][HEAD] = torch.zeros_like(head)
        result["terms"] = np.hstack([result["terms"], np.zeros((SAMPLES, 1))])

    path = out / f"{name}.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as f:
        golden_common.write_model(f, config, params, edit, names, result)
        f["images"] = images.numpy()
        f["labels"] = labels.numpy().astype(np.int32)
        f["logits"] = logits.numpy()
        f["correct"] = correct.numpy().astype(np.uint8)
    golden_common.say(name, path, params, result)
    print(f"  correct {correct.int().tolist()}")


golden_common.make_all(make_case, CASES, "vit", 200)

"""Edits from file to file as one writes them in PyTorch for speed: tensor by tensor, in fp32, in place.

    torch_edits.py dare|prune|della|bitdelta PRE POST OUT [stream]
    torch_edits.py compare PRE OURS THEIRS

All are folders with model.safetensors. Without `stream` the edited tensors are kept for save_file(); with it each is written as
soon as it is made. `compare` prints of two edited models the share of entries that differ from PRE, and the norm of what
differs. Needs torch and safetensors; threads are OMP_NUM_THREADS."""
import json
import os
import pathlib
import shutil
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

P, KEEP, SPREAD = 0.5, 0.3, 0.4  # as in run.py
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def dare(delta, _name):
    return delta.mul_(torch.empty_like(delta).bernoulli_(1 - P)).div_(1 - P)


def prune(delta, _name):
    size = delta.abs()
    kept = max(1, int(KEEP * delta.numel()))
    return delta.mul_(size >= size.flatten().kthvalue(delta.numel() - kept + 1).values)


def della(delta, _name):
    rows = delta if delta.ndim > 1 else delta[None]
    keep = rows.abs().argsort(dim=1).argsort(dim=1).float()
    keep.mul_(SPREAD / max(1, rows.shape[1] - 1)).add_(1 - P - SPREAD / 2)
    return rows.mul_(torch.bernoulli(keep)).div_(keep).view_as(delta)


def bitdelta(delta, name):
    return delta.sign().mul_(delta.abs().mean()) if name.split(".")[-2] in LINEAR else delta


METHODS = {"dare": dare, "prune": prune, "della": della, "bitdelta": bitdelta}


def weights(folder):
    """The one file of a model."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        sys.exit(f"{folder}: {len(files)} files in safetensors: give a model in one")
    return files[0]


def edited(method, pre, post):
    """Names and tensors, in the order of the file."""
    with safe_open(weights(pre), "pt") as before, safe_open(weights(post), "pt") as after:
        for name in after.keys():
            old, new = before.get_tensor(name), after.get_tensor(name)
            yield name, method(new.float().sub_(old), name).add_(old).to(new.dtype)


def stream(tensors, like, path):
    """Under the header of a model of the same tensors, each at its place."""
    with open(like, "rb") as file:
        start = file.read(8)
        head = file.read(int.from_bytes(start, "little"))
    places = json.loads(head)
    with open(path, "wb") as file:
        file.write(start + head)
        for name, tensor in tensors:
            file.seek(8 + len(head) + places[name]["data_offsets"][0])
            file.write(memoryview(tensor.contiguous().view(torch.uint8).flatten().numpy()))


def edit(name, pre, post, out, *how):
    out.mkdir(parents=True)
    for file in post.glob("*.json"):
        shutil.copy(file, out)
    tensors = edited(METHODS[name], pre, post)
    if how:
        stream(tensors, weights(post), out / "model.safetensors")
    else:
        save_file(dict(tensors), out / "model.safetensors", metadata={"format": "pt"})
    with open(out / "model.safetensors", "rb") as file:
        os.fsync(file.fileno())


def load(folder):
    """Names, and what reads each, over all files of a model."""
    readers = [safe_open(file, "pt") for file in sorted(folder.glob("*.safetensors"))]
    return {name: reader for reader in readers for name in reader.keys()}


def compare(pre, *models):
    before, found = load(pre), [load(model) for model in models]
    if any(set(one) != set(before) for one in found):
        sys.exit(f"{models}: not the tensors of {pre}")
    for one in found:
        other = total = squares = 0
        for name, reader in one.items():
            change = reader.get_tensor(name).float() - before[name].get_tensor(name).float()
            other, total = other + int((change != 0).sum()), total + change.numel()
            squares += float(change.square().sum(dtype=torch.float64))
        print(other / total, squares**0.5)


def main():
    torch.manual_seed(1)
    torch.set_grad_enabled(False)
    verb, *words = sys.argv[1:]
    if verb == "compare":
        compare(*map(pathlib.Path, words))
    else:
        edit(verb, *map(pathlib.Path, words))


if __name__ == "__main__":
    main()

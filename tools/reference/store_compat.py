#!/usr/bin/env python3
"""Check the storage formats against their independent implementations, h5py and safetensors.

usage: store_compat.py PROGRAM      (needs torch, safetensors, h5py; xxhash if it is there)

A model of every common type is written by safetensors, converted to HDF5 and back by PROGRAM at
several rank counts, and read by h5py and safetensors. A checkpoint written by h5py is read by
PROGRAM."""

import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import torch
from safetensors.torch import load_file, save_file

try:
    import xxhash
except ImportError:
    xxhash = None

ENVIRONMENT = dict(
    os.environ,
    OMPI_ALLOW_RUN_AS_ROOT="1",
    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
    OMPI_MCA_rmaps_base_oversubscribe="1",
    OMP_NUM_THREADS="1",
)


def run(ranks, *words):
    subprocess.run(["mpirun", "-n", str(ranks), *words], check=True, env=ENVIRONMENT)


def raw(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def make_model():
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(300, 700, generator=generator)
    model = {
        "model.f32": values,
        "model.f16": values.half(),
        "model.bf16": values.bfloat16(),
        "model.f64": values.double(),
        "model.large": torch.randn(1500, 1500, generator=generator).bfloat16(),
        "model.scalar": torch.tensor(3.5),
        "model.empty": torch.zeros(0, 4),
        "model.mask": values > 0,
    }
    for name in ("int64", "int32", "int16", "int8", "uint8"):
        model["model." + name] = (values * 20).to(getattr(torch, name))
    return model


def check_hdf5(path, model):
    with h5py.File(path) as file:
        assert file.attrs["format"] == "deltapath-checkpoint" and file.attrs["version"] == 1
        assert json.loads(file.attrs["config"])["model_type"] == "test"
        for name, tensor in model.items():
            data = file["tensors"][name]
            want = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
            assert data.shape == tuple(tensor.shape), name
            assert np.array_equal(data[...], want.numpy()), name
            assert data.dtype == want.numpy().dtype, (name, data.dtype)
            if xxhash is not None:
                assert int(data.attrs["xxh3"]) == xxhash.xxh3_64_intdigest(raw(tensor)), name


def check_safetensors(directory, model):
    back = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".safetensors"):
            back.update(load_file(os.path.join(directory, name)))
    assert set(back) == set(model)
    for name, tensor in model.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name


def write_by_h5py(path, model):
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "deltapath-checkpoint"
        file.attrs["version"] = 1
        file.attrs["config"] = '{"model_type": "test"}'
        for name, tensor in model.items():
            if tensor.dtype != torch.bfloat16:
                file.create_dataset("tensors/" + name, data=tensor.numpy())


def main(program):
    model = make_model()
    with tempfile.TemporaryDirectory() as work:
        source = os.path.join(work, "source")
        os.mkdir(source)
        save_file(model, os.path.join(source, "model.safetensors"), metadata={"format": "pt"})
        with open(os.path.join(source, "config.json"), "w", encoding="utf-8") as file:
            json.dump({"model_type": "test", "torch_dtype": "bfloat16"}, file)
        for ranks in (1, 2, 3):
            checkpoint = os.path.join(work, f"model-{ranks}.h5")
            back = os.path.join(work, f"back-{ranks}")
            run(ranks, program, "convert", source, checkpoint)
            check_hdf5(checkpoint, model)
            run(ranks, program, "convert", "--shard-size", "1M", checkpoint, back)
            check_safetensors(back, model)
            run(ranks, program, "verify", back)
        ours = os.path.join(work, "h5py.h5")
        write_by_h5py(ours, model)
        run(2, program, "convert", ours, os.path.join(work, "h5py"))
        check_safetensors(
            os.path.join(work, "h5py"),
            {name: t for name, t in model.items() if t.dtype != torch.bfloat16},
        )
    print("h5py and safetensors agree" + ("" if xxhash else " (hashes not checked: no xxhash)"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(os.path.abspath(sys.argv[1]))

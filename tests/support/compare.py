#!/usr/bin/python3
"""Comparisons for the tests of the program; exit code 0 when they hold, a line that says why if not.

    compare.py kept EDITED MODEL TENSOR...          tensors of EDITED equal those of MODEL
    compare.py tensors A B                          two models hold the same bytes, names and types
    compare.py near A B PRE POST TOLERANCE          |A - B| <= TOLERANCE * |POST - PRE|, per tensor
    compare.py results A B [TOLERANCE]              two results.json: equal, or to a relative tolerance
    compare.py joined A B                           two results.json: equal but for their provenance
    compare.py dtypes MODEL TYPE                    all float tensors are of one type
"""
import json
import math
import pathlib
import struct
import sys

import h5py
import numpy as np

TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1", "F8_E4M3": "u1"}


def read_safetensors(path):
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + length])
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + at for at in entry["data_offsets"])
            data = np.frombuffer(raw[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
            yield name, entry["dtype"], data


def read_hdf5(path):
    """h5py cannot hand out bf16 as it is, so bytes are taken from the file at the data set's offset."""
    raw = path.read_bytes()
    with h5py.File(path) as file:
        for name, data in file["tensors"].items():
            kind = data.id.get_type()
            if kind.get_class() == h5py.h5t.FLOAT:
                bits = kind.get_fields()[2]
                dtype = {(4, 8): "F32", (2, 5): "F16", (2, 8): "BF16"}[kind.get_size(), bits]
            else:
                dtype = {8: "I64", 4: "I32", 1: "U8"}[kind.get_size()]
            begin = data.id.get_offset() if data.size else 0
            stored = raw[begin:begin + data.size * kind.get_size()]
            yield name, dtype, np.frombuffer(stored, TYPES[dtype]).reshape(data.shape)


def read_model(path):
    path = pathlib.Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    found = {}
    for file in files:
        reader = read_safetensors if file.suffix == ".safetensors" else read_hdf5
        for name, dtype, data in reader(file):
            found[name] = (dtype, data)
    return found


def values(entry):
    dtype, data = entry
    if dtype == "BF16":
        return (data.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return data.astype(np.float64)


def same(a, b):
    return a[0] == b[0] and a[1].shape == b[1].shape and a[1].tobytes() == b[1].tobytes()


def kept(edited, model, *names):
    edited, model = read_model(edited), read_model(model)
    return [f"{name} differs" for name in names if not same(edited[name], model[name])]


def tensors(a, b):
    a, b = read_model(a), read_model(b)
    if set(a) != set(b):
        return [f"names differ: {sorted(set(a) ^ set(b))}"]
    return [f"{name} differs" for name in a if not same(a[name], b[name])]


def near(a, b, pre, post, tolerance):
    a, b, pre, post = map(read_model, (a, b, pre, post))
    found = []
    for name in a:
        norm = np.linalg.norm(values(post[name]) - values(pre[name]))
        gap = np.linalg.norm(values(a[name]) - values(b[name]))
        if not gap <= float(tolerance) * norm:
            found.append(f"{name}: {gap / norm if norm else gap:.3g} of the delta")
    return found


# Differ between runs that are the same study.
PASSING = {"seconds", "started"}
# Follow from small differences of losses, or are places where text holds the job's directory.
LOOSE = {"ranks", "tensor_parallel", "job", "residual"}


def walk(a, b, tolerance, at, found):
    key = at.rsplit(".", 1)[-1]
    if key in PASSING or (tolerance > 0 and key in LOOSE):
        return
    if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
        for name in a:
            walk(a[name], b[name], tolerance, f"{at}.{name}", found)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        numbers = all(isinstance(x, (int, float)) for x in a + b)
        if numbers and tolerance > 0 and a:
            scale = max(max(map(abs, a)), 1e-12)
            if max(abs(x - y) for x, y in zip(a, b)) > 1e2 * tolerance * scale:
                found.append(f"{at} differs")
        else:
            for i, (x, y) in enumerate(zip(a, b)):
                walk(x, y, tolerance, f"{at}[{i}]", found)
    elif isinstance(a, float) and isinstance(b, float) and tolerance > 0:
        # A probability, the end of an interval of a few skewed samples, and their skewness are far more sensitive than losses.
        if key.startswith("p_") or key.endswith(("_low", "_high", "_skew", "_enough")):
            tolerance *= 100
        if not math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance):
            found.append(f"{at}: {a!r} and {b!r}")
    elif a != b:
        found.append(f"{at}: {str(a)[:60]!r} and {str(b)[:60]!r}")


def results(a, b, tolerance="0"):
    found = []
    walk(json.loads(pathlib.Path(a).read_text()), json.loads(pathlib.Path(b).read_text()),
         float(tolerance), "", found)
    return found


def joined(a, b):
    found = []
    sides = [json.loads(pathlib.Path(path).read_text()) for path in (a, b)]
    for side in sides:
        del side["provenance"]
    walk(*sides, 0.0, "", found)
    return found


def dtypes(model, dtype):
    wrong = {name: kind for name, (kind, _) in read_model(model).items()
             if kind in ("F32", "F16", "BF16") and kind != dtype.upper()}
    return [f"not {dtype}: {wrong}"] if wrong else []


def main():
    commands = {"kept": kept, "tensors": tensors, "near": near, "results": results,
                "joined": joined, "dtypes": dtypes}
    found = commands[sys.argv[1]](*sys.argv[2:])
    for line in found[:8]:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

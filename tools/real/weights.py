"""Weights without more than numpy: what a GGUF file holds, and models in bf16 as safetensors directories."""
import hashlib
import json
import pathlib
import struct
import sys

import numpy as np

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1]))
import outputs  # noqa: E402

WEIGHTS = "model.safetensors"

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
Q4_1 = np.dtype([("scale", "<f2"), ("least", "<f2"), ("nibbles", "u1", 16)])
Q8_0 = np.dtype([("scale", "<f2"), ("bytes", "i1", 32)])


class Gguf:
    """Metadata and tensors of a GGUF file (version 3)."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0
        if data[:4] != b"GGUF" or self.take("4xI") != 3:
            raise outputs.Refused("not a GGUF file of version 3")
        tensors, keys = self.take("QQ")
        self.metadata = {self.text(): self.value(self.take("I")) for _ in range(keys)}
        entries = [self.entry() for _ in range(tensors)]
        align = self.metadata.get("general.alignment", 32)
        start = -(-self.at // align) * align
        self.entries = {name: (shape, kind, start + offset) for name, shape, kind, offset in entries}

    def take(self, kinds: str):
        values = struct.unpack_from("<" + kinds, self.data, self.at)
        self.at += struct.calcsize("<" + kinds)
        return values[0] if len(values) == 1 else values

    def text(self) -> str:
        length = self.take("Q")
        self.at += length
        return self.data[self.at - length:self.at].decode()

    def value(self, kind: int):
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            inner, count = self.take("IQ")
            return [self.value(inner) for _ in range(count)]
        return self.take(SCALARS[kind])

    def entry(self):
        """Name, shape with the rows first, type, and offset from the start of the data of a tensor."""
        name = self.text()
        sizes = [self.take("Q") for _ in range(self.take("I"))]
        return name, tuple(reversed(sizes)), *self.take("IQ")

    def tensor(self, name: str) -> np.ndarray:
        """A tensor in fp32, exactly as its blocks of 32 say: scale times integer, plus the least value."""
        shape, kind, start = self.entries[name]
        count = int(np.prod(shape))
        if kind == 0:
            return np.frombuffer(self.data, "<f4", count, start).reshape(shape)
        if kind not in (3, 8):
            raise outputs.Refused(f"{name}: type {kind}: only F32, Q4_1 and Q8_0 are read")
        blocks = np.frombuffer(self.data, Q4_1 if kind == 3 else Q8_0, count // 32, start)
        scale = blocks["scale"].astype(np.float32)[:, None]
        if kind == 8:
            return (scale * blocks["bytes"]).reshape(shape)
        nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
        return (scale * nibbles + blocks["least"].astype(np.float32)[:, None]).reshape(shape)


def rounded(values: np.ndarray) -> np.ndarray:
    """Bit patterns (uint16) of finite fp32 values, rounded to the nearest bf16, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def read_model(folder: pathlib.Path) -> dict:
    """Bit patterns of a model in bf16, by name."""
    with open(folder / WEIGHTS, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] != "BF16":
            raise outputs.Refused(f"{folder / WEIGHTS}: {name} is {entry['dtype']}, not BF16")
    return {name: np.frombuffer(data, "<u2", int(np.prod(entry["shape"])), entry["data_offsets"][0])
            .reshape(entry["shape"]) for name, entry in sorted(header.items())}


def model_bytes(tensors: dict) -> bytes:
    """A safetensors file of bit patterns in bf16, in order of the names: the same tensors, the same bytes."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(tensors):
        size = 2 * tensors[name].size
        header[name] = {"dtype": "BF16", "shape": list(tensors[name].shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text,
                     *(tensors[name].astype("<u2").tobytes() for name in sorted(tensors))])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

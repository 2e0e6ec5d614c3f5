"""Safetensors files that are written tensor by tensor and piece by piece."""
import dataclasses
import json
import os
import pathlib
import typing

from prepare_data import INPUT, Bad

PIECE = 1 << 24  # elements that are in memory at a time
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
         "U8": 1, "BOOL": 1}
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclasses.dataclass
class Tensor:
    """One tensor of the output."""
    name: str
    dtype: str  # of safetensors
    shape: tuple
    pieces: typing.Callable  # () -> iterator of buffers, in order

    def bytes(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count * BYTES[self.dtype]


def write_safetensors(path: pathlib.Path, tensors: list) -> int:
    """A file of tensors, wide types first, so that each lies at a multiple of its width."""
    tensors = sorted(tensors, key=lambda t: (-BYTES[t.dtype], t.name))
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for tensor in tensors:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape),
                               "data_offsets": [at, at + tensor.bytes()]}
        at += tensor.bytes()
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            written = sum(file.write(piece) for piece in tensor.pieces())
            if written != tensor.bytes():
                raise Bad(INPUT, f"{tensor.name}: gives {written} bytes in place of {tensor.bytes()}: the file is "
                                 "damaged: fetch it again")
        file.flush()
        os.fsync(file.fileno())
    return at

"""results.h5 as `deltapath run` and `join` leave it, for the tools that read results: whole, or refused in one line.

The file ends with a seal that covers every byte before it (doc/formats.md, Sealed files); it is read once and
checked before anything in it is believed. Another file of a study is read only when the manifest lists both as they
are, so that they are of one run."""
import contextlib
import io
import json
import math
import pathlib

import h5py
import numpy as np

VERSION = 5  # DPT_RESULTS_VERSION of include/deltapath/results/results.h
NAME, MANIFEST, FIRST = "results.h5", "manifest.json", b'{\n "checksum": "'
MODULES = "embed q k v o gate up down norm head other".split()

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
KEYS = np.frombuffer(SECRET, "<u8")
P32, P64 = (2654435761, 2246822519, 3266489917), (
    11400714785074694791, 14029467366897019727, 1609587929392839161, 9650029242287828579, 2870177450012600261)
STRIPE, BLOCK, LANES, WORD = 64, 1024, 8, 2 ** 64 - 1
SHORT = 240  # bytes up to which XXH3 is another function


class Unreadable(Exception):
    """A file of a study is not what `deltapath run` writes: one line that names it."""


@contextlib.contextmanager
def reading(path):
    """Errors while a file is read, as one line that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        words = " ".join(str(error).split())
        raise Unreadable(f"{path}: cannot be read ({words}): run the study again with --resume, "
                         "or move its folder away") from error


def stripe_sums(data, keys):
    """What stripes of 64 bytes add to the eight sums: (..., stripes, 8) words with their keys."""
    mixed = data ^ keys
    products = (mixed & np.uint64(0xffffffff)) * (mixed >> np.uint64(32))
    return (products + data[..., np.arange(LANES) ^ 1]).sum(axis=-2, dtype=np.uint64)


def merged(sums, secret, start):
    """Eight sums folded into 64 bits."""
    keys = [int(k) for k in np.frombuffer(SECRET, "<u8", LANES, secret)]
    for i in range(0, LANES, 2):
        product = (int(sums[i]) ^ keys[i]) * (int(sums[i + 1]) ^ keys[i + 1])
        start += (product & WORD) ^ (product >> 64)
    start &= WORD
    start = (start ^ start >> 37) * 0x165667919E3779F9 & WORD
    return start ^ start >> 32


def xxh128(data):
    """XXH3-128 with seed 0 of more than 240 bytes, as 32 hexadecimal digits: after the specification of xxHash
    (https://github.com/Cyan4973/xxHash, XXH3), since Python has it in no package of its own."""
    size, blocks = len(data), (len(data) - 1) // BLOCK
    if size <= SHORT:
        raise ValueError(f"{size} bytes are too few")
    sums = np.array([P32[2], *P64[:4], P32[1], P64[4], P32[0]], np.uint64)
    steps = np.arange(BLOCK // STRIPE)[:, None] + np.arange(LANES)
    for first in range(0, blocks, BLOCK):  # as many blocks at a time, for the memory
        count = min(BLOCK, blocks - first)
        words = np.frombuffer(data, "<u8", count * BLOCK // 8, first * BLOCK).reshape(count, -1, LANES)
        for added in stripe_sums(words, KEYS[steps]):
            sums += added
            sums ^= sums >> np.uint64(47)
            sums ^= KEYS[-LANES:]
            sums *= np.uint64(P32[0])
    stripes = (size - 1) % BLOCK // STRIPE
    words = np.frombuffer(data, "<u8", stripes * LANES, blocks * BLOCK).reshape(-1, LANES)
    sums += stripe_sums(words, KEYS[steps[:stripes]])
    sums += stripe_sums(np.frombuffer(data, "<u8", LANES, size - STRIPE)[None],
                        np.frombuffer(SECRET, "<u8", LANES, 121))
    high, low = merged(sums, 117, ~(size * P64[1]) & WORD), merged(sums, 11, size * P64[0] & WORD)
    return f"{high:016x}{low:016x}"


def seal_of(body):
    """The trailer of so many bytes."""
    return f"deltapath-xxh128 {xxh128(body)} {len(body):016x}{'':13}\n".encode()


def unsealed(path):
    """The bytes of a file before its seal, which is checked."""
    data, seal = pathlib.Path(path).read_bytes(), 80
    if len(data) <= SHORT + seal or data[-seal:] != seal_of(data[:-seal]):
        raise Unreadable(f"{path}: its checksum does not match: it was cut off, damaged or changed after deltapath "
                         "wrote it: copy it again from where it was whole, or run the study again into another folder")
    return data[:-seal]


def manifest_of(path):
    """What a manifest says of each file; its checksum, the first key, covers all of it."""
    with reading(path):
        data = path.read_bytes()
        if data[len(FIRST):][:32].decode() != xxh128(FIRST + b"0" * 32 + data[len(FIRST) + 32:]):
            raise Unreadable(f"{path}: its checksum does not match: it was damaged or changed: copy the folder again from "
                             "where it was whole")
        return json.loads(data)["files"]


def text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def number_or_text(value):
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


class Unit:
    """One edit on one data set: columns by name, arrays of HDF5 in `array`."""

    def __init__(self, results, group):
        self.results, self.group = results, group
        self.record = {name: text(value) for name, value in group.attrs.items()}
        self.edit, self.data = self.record["edit"], self.record["data"]
        names, values = ([text(t) for t in group.get(key, ())] for key in ("parameter_names", "parameter_values"))
        self.parameters = {name: number_or_text(value) for name, value in zip(names, values, strict=True)}

    def __getitem__(self, column):
        return self.record[column]

    def get(self, parameter):
        return self.parameters.get(parameter)

    def has(self, name):
        return name in self.group

    def array(self, name):
        with reading(self.results.path):
            return self.group[name][()]

    def tensor_stat(self, name):
        """A column of the numbers on each tensor."""
        columns = [text(c) for c in self.array("tensor_stats_columns")]
        with reading(self.results.path):
            return self.array("tensor_stats")[:, columns.index(name)]

    def by_part(self, part):
        """The integrated terms summed over the tensors of each `layer` or `module`; none without a path."""
        if not self.record["points"]:
            return {}
        names = [text(p) for p in self.results.array(f"tensors/{part}").tolist()]
        order = sorted(set(names), key=MODULES.index if part == "module" else None)
        names, terms = np.array(names), self.array("integrated")
        with reading(self.results.path):
            return {str(p): float(np.sum(terms[names == p])) for p in order}


class Results:
    """The results of the study in a folder; `kind` is what its units are."""

    def __init__(self, folder, kind=Unit):
        self.path = pathlib.Path(folder) / NAME
        with reading(self.path):
            self.file = h5py.File(io.BytesIO(unsealed(self.path)), "r")
            header = {name: text(value) for name, value in self.file.attrs.items()}
            if header["format"] != "deltapath-results" or header["version"] != VERSION:
                raise ValueError(f"{header['format']} {header['version']} where deltapath-results {VERSION} is known")
            self.job, self.provenance = header["job"], json.loads(header["provenance"])
            self.units = [kind(self, self.file[text(name)]) for name in self.file["units"][()]]
            if not self.units:
                raise ValueError("it holds no edit")

    def array(self, name):
        with reading(self.path):
            return self.file[name][()]

    def listed(self, name, parse):
        """Another file of the study, parsed: it and results.h5 are those of manifest.json."""
        folder = self.path.parent
        files = manifest_of(folder / MANIFEST)
        for path in (self.path, folder / name):
            with reading(path):
                data, entry = path.read_bytes(), files.get(path.name, {})
                if entry.get("bytes") != len(data) or entry["xxh128"] != xxh128(data):
                    raise Unreadable(f"{path}: is not the file that {MANIFEST} lists: it was damaged or changed, or is of "
                                     "another run: copy the folder again from where it was whole, or run the study again")
                if path.name == name:
                    return parse(data)

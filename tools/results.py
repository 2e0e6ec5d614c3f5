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
from xxhash import xxh128_hexdigest

VERSION = 6  # DPT_RESULTS_VERSION of include/deltapath/results/results.h
OLDER = (5,)  # of which all is read that these tools read: 6 added the terms of the matrices that are stored together
NAME, MANIFEST, FIRST = "results.h5", "manifest.json", b'{\n "checksum": "'
MODULES = "embed q k v qkv o gate up gate_up down router norm head other".split()

SEAL = 80  # bytes of the trailer


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


def seal_of(body):
    """The trailer of so many bytes."""
    return f"deltapath-xxh128 {xxh128_hexdigest(body)} {len(body):016x}{'':13}\n".encode()


def unsealed(path):
    """The bytes of a file before its seal, which is checked."""
    data = pathlib.Path(path).read_bytes()
    if data[-SEAL:] != seal_of(data[:-SEAL]):
        raise Unreadable(f"{path}: its checksum does not match: it was cut off, damaged or changed after deltapath "
                         "wrote it: copy it again from where it was whole, or run the study again into another folder")
    return data[:-SEAL]


def manifest_of(path):
    """What a manifest says of each file; its checksum, the first key, covers all of it."""
    with reading(path):
        data = path.read_bytes()
        if data[len(FIRST):][:32].decode() != xxh128_hexdigest(FIRST + b"0" * 32 + data[len(FIRST) + 32:]):
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
        """The integrated terms summed over the tensors of each `layer` or `module`, of a tensor with several matrices
        over these; none without a path."""
        if not self.record["points"]:
            return {}
        names, terms = [text(p) for p in self.results.array(f"tensors/{part}").tolist()], self.array("integrated")
        if part == "module" and "matrices" in self.results.file and "matrix_integrated" in self.group:
            split = set(self.results.array("matrices/tensor").tolist())
            names = [None if t in split else name for t, name in enumerate(names)]
            names += [text(m) for m in self.results.array("matrices/module").tolist()]
            terms = np.concatenate([terms, self.array("matrix_integrated")])
        order = sorted(set(names) - {None}, key=MODULES.index if part == "module" else None)
        names = np.array(names)
        with reading(self.results.path):
            return {str(p): float(np.sum(terms[names == p])) for p in order}


class Results:
    """The results of the study in a folder; `kind` is what its units are."""

    def __init__(self, folder, kind=Unit):
        self.path = pathlib.Path(folder) / NAME
        with reading(self.path):
            self.file = h5py.File(io.BytesIO(unsealed(self.path)), "r")
            header = {name: text(value) for name, value in self.file.attrs.items()}
            if header["format"] != "deltapath-results" or header["version"] not in (*OLDER, VERSION):
                raise ValueError(f"{header['format']} {header['version']} where deltapath-results "
                                 f"{', '.join(map(str, OLDER))} and {VERSION} are known")
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
                if entry.get("bytes") != len(data) or entry["xxh128"] != xxh128_hexdigest(data):
                    raise Unreadable(f"{path}: is not the file that {MANIFEST} lists: it was damaged or changed, or is of "
                                     "another run: copy the folder again from where it was whole, or run the study again")
                if path.name == name:
                    return parse(data)

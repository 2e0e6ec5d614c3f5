#!/usr/bin/python3
"""A study with `precision: bf16`: near the one in fp32 and not the same, at several meshes; the error that it states is the
difference of the two; a processor without such products, and another value, are refused."""

import os
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

JOB = """
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm, samples: 4}]
edits: [{name: dare, method: dare, p: 0.5, seed: 1}, {name: bit, method: bitdelta}]
riemann: {rule: midpoint, points: 1, per_sample: true}
output: {directory: %s, report: false}
"""


def values(folder, name):
    """Terms and mean loss at t = 0.5 of each edit."""
    found = {}
    with h5py.File(f"{folder}/{name}/results.h5") as file:
        for edit in file["edits"]:
            group = file[f"edits/{edit}/task"]
            found[edit] = (np.array(group["terms"]).ravel(), float(np.array(group["path_loss"])[0]))
    return found


def compare(folder, name, exact, units, all_samples):
    """Terms of a study in bf16 against those in fp32, and what it says of them, where it has measured all samples."""
    rounded = values(folder, name)
    for unit in units:
        (terms, loss), (own, own_loss) = exact[unit["edit"]], rounded[unit["edit"]]
        off = np.abs(own - terms).max() / np.abs(terms).max()
        what = f"{name}, {unit['edit']}"
        check(f"{what}: terms are near fp32", off <= 2**-4, off)
        check(f"{what}: and not the same", off > 0)
        said = unit["bf16_terms"]
        if not all_samples:
            check(f"{what}: an error is stated", said > 0 and unit["bf16_loss"] > 0, unit)
            continue
        check(f"{what}: the error of the terms is stated", abs(said - off) <= 0.02 * off, f"{said}, is {off}")
        moved = abs(own_loss - loss)
        check(f"{what}: that of the losses covers their mean", moved <= unit["bf16_loss"] * 1.0001 + 1e-6,
              f"{unit['bf16_loss']}, is {moved}")


def refusals(folder):
    """What is refused before any weight is read."""
    for isa, code, says in (("AVX2", 2, "precision: fp32"), ("AVX512_CORE", 0, "emulated")):
        os.environ["DNNL_MAX_CPU_ISA"] = isa
        _, done = studies.results_of(folder, isa, JOB, 1, "precision=bf16", options=("--dry-run",))
        del os.environ["DNNL_MAX_CPU_ISA"]
        check(f"{isa}: {says}", done.returncode == code and says in done.stderr, (done.returncode, done.stderr[-400:]))
    _, done = studies.results_of(folder, "other", JOB, 1, "precision=fp16", options=("--dry-run",))
    check("another value is refused", done.returncode == 2 and "fp32" in done.stderr, done.stderr[-400:])


def main():
    """One study in fp32 and the same in bf16 at four meshes."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as folder:
        units, done = studies.results_of(folder, "fp32", JOB, 1)
        check("the study in fp32", done.returncode == 0, done.stderr[-400:])
        check("has no error of bf16", all(unit["bf16_terms"] is None for unit in units["units"]))
        exact = values(folder, "fp32")
        for ranks, parallel in ((1, 1), (2, 1), (2, 2), (3, 1), (4, 2)):
            name = f"bf16-{ranks}-{parallel}"
            units, done = studies.results_of(folder, name, JOB, ranks, "precision=bf16",
                                             f"tensor_parallel={parallel}")
            if done.returncode != 0 and "no such products" in done.stderr:
                print("# this processor has no products in bf16")
                break
            check(f"{name}: runs", done.returncode == 0, done.stderr[-400:])
            if units is not None:
                compare(folder, name, exact, units["units"], 4 % (ranks // parallel) == 0)
        refusals(folder)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

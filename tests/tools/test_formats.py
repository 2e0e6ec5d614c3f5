#!/usr/bin/python3
"""What doc/formats.md says of random streams is enough to compute edits elsewhere: its own code, taken
from the page, against the masks and magnitudes of models that the program wrote."""
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import types

import h5py
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / os.environ.get("DELTAPATH_BUILD", "build/release") / "deltapath"
UP, OUT = "model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.o_proj.weight"
KEYS = {UP: 0x8C0770F3A9A241E2, OUT: 0x8C4BB3014C0D27BD, "model.norm.weight": 0x86F0CB6AF602213B}  # XXH3-64 of the names
EDITS = """
  - {name: drop, method: drop, p: 0.3, seed: 7}
  - {name: later, method: [{method: expo, alpha: 0}, {method: drop, p: 0.85}], seed: 18446744073709551615}
  - {name: uniform, method: bitdelta, sample: uniform, seed: 3}
  - {name: normal, method: bitdelta, sample: normal, multiple: 0.5, seed: 4}
"""
CASES = []


def case(function):
    CASES.append(function)
    return function


def documented():
    """The code of the page; the package that it imports is replaced by a table."""
    page = (ROOT / "doc/formats.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    package = types.ModuleType("xxhash")
    package.xxh3_64_intdigest = lambda name: KEYS[name.decode()]
    sys.modules["xxhash"] = package
    names = {}
    exec(code, names)
    return types.SimpleNamespace(**names)


@contextlib.contextmanager
def model(path):
    with h5py.File(path) as file:
        yield lambda name: file["tensors"][name][()].astype(np.float64)


class Work:
    def __init__(self, folder):
        self.folder, self.doc = pathlib.Path(folder), documented()
        demo = ROOT / "share/demo"
        job = self.folder / "job.yaml"
        job.write_text(f"models: {{pre: {demo}/llama-pre, post: {demo}/llama-post}}\nedits:{EDITS}"
                       f"select: {{include: [{UP}, {OUT}]}}\nriemann: off\noutput: {{directory: "
                       f"{folder}/out, checkpoint: hdf5, dtype: f32, report: false}}\n")
        for name in ("pre", "post"):
            self.run("convert", f"{demo}/llama-{name}", f"{folder}/{name}.h5")
        self.run("run", job)

    def run(self, *arguments):
        launcher = os.environ.get("DPT_MPIRUN", "mpirun -q").split()
        subprocess.run([*launcher, "-n", "2", PROGRAM, *arguments], check=True,
                       stdout=subprocess.DEVNULL, env=dict(os.environ, DELTAPATH_QUIET="1"))

    def tensors(self, edit, name):
        """(pre, delta, edited) of one tensor."""
        with model(self.folder / "pre.h5") as pre, model(self.folder / "post.h5") as post, \
                model(self.folder / f"out/models/{edit}.h5") as edited:
            return pre(name), post(name) - pre(name), edited(name)


@case
def the_example_of_the_page(work):
    mask = work.doc.dropped(7, "model.norm.weight", (8,), 0.3)
    assert mask.astype(int).tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


@case
def masks(work):
    for name in (UP, OUT):
        for edit, seed, p, stage in (("drop", 7, 0.3, 0), ("later", 2**64 - 1, 0.85, 1)):
            pre, delta, edited = work.tensors(edit, name)
            dropped = work.doc.dropped(seed, name, delta.shape, p, stage)
            assert abs(dropped.mean() - p) < 0.05
            wanted = (pre + np.where(dropped, 0.0, delta)).astype(np.float32)
            assert np.array_equal(edited, wanted), (name, edit)


@case
def magnitudes(work):
    spread = np.sqrt(np.pi / 2 - 1)
    for name in (UP, OUT):
        for edit, mean in (("uniform", 1.0), ("normal", 0.5)):
            pre, delta, edited = work.tensors(edit, name)
            numel = delta.size
            drawn = 2 * work.doc.uniforms(3, name, numel) if edit == "uniform" else \
                1 + spread * work.doc.normals(4, name, numel).astype(np.float64)
            size = mean * np.abs(delta).mean()
            wanted = pre + np.sign(delta) * size * drawn.reshape(delta.shape)
            assert np.abs(edited - wanted).max() < 1e-6 * (np.abs(pre).max() + size), (name, edit)


def main():
    print(f"1..{len(CASES)}")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Work(folder)
        for number, function in enumerate(CASES, 1):
            try:
                function(work)
                print(f"ok {number} - {function.__name__}")
            except AssertionError as error:
                failed += 1
                print(f"not ok {number} - {function.__name__}: {error}")
    return 1 if failed else 0


sys.exit(main())

#!/usr/bin/env python3
"""Hold `deltapath run` against torch autograd in double, on random small models of each family (families.py).

  check_families.py [--family NAME ...] [--count 8] [--case N ...] [--seed 1] [--ranks 1,2,3,4]
                    [--build build/release] [--keep FOLDER]

For each case: the pair as transformers saves it, a data set, and a study of the edit that goes from W_post back to
W_pre: rule left with 5 points, at each number of ranks in each mesh (tensor_parallel: every divisor). Compared are the
losses of each sample of both ends, relative to the loss, and every term (tensor and node), relative to the largest
term of the node; more than 1e-4 is a failure. Models with experts are drawn again until no choice of experts is closer
than 3e-5 at any node: there fp32 and double may choose differently, which is no error of either.

It prints a line for each case and at the end a table: family, cases, meshes, worst loss error, worst term error.
Exit codes: 0 all within 1e-4, 1 not. Needs torch, transformers, safetensors, h5py and xxhash.
"""
import argparse
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import h5py
import numpy as np

import families
import results

TOLERANCE, GAP, POINTS = 1e-4, 3e-5, 5
ROOT = pathlib.Path(__file__).resolve().parents[2]


class Truth:
    """A pair, its samples, and what torch finds."""

    def __init__(self, made: families.Case, seed: int):
        for again in range(20):
            self.pair = families.Pair(made, seed + 1000 * again)
            self.samples = families.make_data(np.random.default_rng(seed + 1000 * again), self.pair)
            self.nodes = np.arange(POINTS) / POINTS
            self.terms = [self.pair.terms(t, self.samples) for t in self.nodes]
            self.losses = [self.pair.losses(t, self.samples) for t in (0.0, 1.0)]
            if self.pair.gap > GAP:
                return
        raise RuntimeError(f"{made.kind}: no models whose experts are clear")

    def write(self, folder: pathlib.Path) -> None:
        self.pair.write(folder / "post", self.pair.post)
        self.pair.write(folder / "pre", self.pair.pre)
        with h5py.File(folder / "data.h5", "w") as f:
            families.write_data(f, self.pair, self.samples)
        (folder / "job.yaml").write_text(
            f"models: {{pre: {folder}/pre, post: {folder}/post}}\n"
            f"data: [{{name: task, file: {folder}/data.h5, loss: {'class' if self.pair.images else 'lm'}}}]\n"
            "edits: [{name: back, method: expo, alpha: -1}]\n"
            f"riemann: {{rule: left, points: {POINTS}}}\n"
            f"output: {{directory: {folder}/out, report: false, overwrite: true}}\n")

    def compare(self, folder: pathlib.Path) -> tuple[float, float, str]:
        """Worst error of the losses, and of the terms with the tensor and node that has it."""
        found = results.Results(folder / "out")
        unit, names = found.units[0], [results.text(n) for n in found.array("tensors/names")]
        assert np.allclose(unit.array("points"), self.nodes)
        off = max(float(np.max(np.abs(unit.array(key) - true) / np.abs(true)))
                  for key, true in zip(("loss_post", "loss_edit"), self.losses))
        true = np.array([[node[n] for node in self.terms] for n in names])
        assert set(names) == set(self.terms[0])
        error = np.abs(unit.array("terms") - true) / np.max(np.abs(true), axis=0)
        error[~np.isfinite(error)] = np.inf
        tensor, node = np.unravel_index(np.argmax(error), error.shape)
        return off, float(error[tensor, node]), f"{names[tensor]} at t = {self.nodes[node]:g}"


def run(args, folder: pathlib.Path, ranks: int, parallel: int) -> str:
    """An error message, or nothing."""
    command = [*shlex.split(os.environ.get("DPT_MPIRUN", "mpirun --oversubscribe")), "-n", str(ranks),
               str(args.build / "deltapath"), "run", str(folder / "job.yaml"), "--set", f"tensor_parallel={parallel}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env=dict(os.environ, OMP_NUM_THREADS="1"))
    lines = [s for s in done.stderr.splitlines() if "error:" in s]
    return "" if done.returncode == 0 else f"code {done.returncode}: {(lines or [done.stderr.strip()[-900:]])[0]}"


def check(args, deck: families.Deck, folder: pathlib.Path):
    """Worst errors of a case over the meshes."""
    made = families.draw(deck)
    case = Truth(made, 10007 * args.seed + deck.case)
    case.write(folder)
    worst, failures, meshes = [0.0, 0.0, ""], [], 0
    for ranks in args.ranks:
        for parallel in (p for p in range(1, ranks + 1) if ranks % p == 0):
            text = run(args, folder, ranks, parallel)
            meshes += 1
            if text:
                failures.append(f"{ranks} ranks, tensor_parallel {parallel}: {text}")
                worst[:2] = np.inf, np.inf
                break
            loss, term, where = case.compare(folder)
            if max(loss, term) > TOLERANCE:
                failures.append(f"{ranks} ranks, tensor_parallel {parallel}: loss {loss:.1e}, {where} {term:.1e}")
            worst[0] = max(worst[0], loss)
            if term > worst[1]:
                worst[1:] = term, where
        if failures:
            break
    form = case.pair.form + (", older keys" if case.pair.old else "")
    print(f"{deck.kind} {deck.case}: {case.pair.weights} weights, {form}, {meshes} meshes, loss {worst[0]:.1e}, "
          f"term {worst[1]:.1e} {worst[2]}", flush=True)
    if failures:
        print("  keys: " + ", ".join(f"{k}={v}" for k, v in made.keys.items()))
    for text in failures:
        print(f"  {text}", flush=True)
    return worst[0], worst[1], meshes


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="+", choices=list(families.FAMILIES), default=list(families.FAMILIES))
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--case", type=int, nargs="+", help="only these of the cases, from 0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", type=lambda s: [int(n) for n in s.split(",")], default=[1, 2, 3, 4])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--keep", type=pathlib.Path, help="leave models, data and results of the last run here")
    args = parser.parse_args()
    args.build = args.build.resolve()
    return args


def main() -> int:
    args, table = parse(), []
    for kind in args.family:
        deck, found = families.Deck(kind, args.seed, args.count), []
        for case in args.case or range(args.count):
            deck.case = case
            with tempfile.TemporaryDirectory() as d:
                folder = (args.keep or pathlib.Path(d)) / f"{kind}{case}"
                found.append(check(args, deck, folder))
        loss, term, meshes = np.array(found).T
        table.append((kind, len(found), int(meshes.sum()), loss.max(), term.max()))
    print(f"\n{'family':10} {'cases':>5} {'runs':>5} {'loss':>8} {'term':>8}")
    for row in table:
        print("{:10} {:5} {:5} {:8.1e} {:8.1e}".format(*row))
    return int(any(max(row[3:]) > TOLERANCE for row in table))


if __name__ == "__main__":
    sys.exit(main())

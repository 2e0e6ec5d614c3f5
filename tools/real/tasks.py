#!/usr/bin/env python3
"""Questions of the package mathematics_dataset (tasks.txt) with short answers, split by a fixed rule.

Usage: tasks.py OUT_DIRECTORY

Writes OUT/<task>-train.jsonl, -validation.jsonl and -test.jsonl for each of two tasks: which digit of a number stands
at a place, and which of two numbers is larger.  Every question is there once; the SHA-256 of its text says for which
split it is: of eight parts one is test, one validation, six are training.
"""
import hashlib
import json
import pathlib
import random
import sys

import numpy as np
import sympy.solvers.diophantine
from sympy.solvers.diophantine.diophantine import base_solution_linear

# The package is of 2019, and looks for a function where sympy then had it.
sys.modules["sympy.solvers.diophantine"].base_solution_linear = base_solution_linear
from mathematics_dataset.modules import comparison, numbers  # noqa: E402
from mathematics_dataset.util import composition  # noqa: E402

from weights import outputs  # noqa: E402

SEED = 20261126
SIZES = {"train": 1600, "validation": 256, "test": 256}
PARTS = ["test", "validation"] + 6 * ["train"]
TASKS = {  # entropies: digits in all, about
    "place": lambda: numbers.place_value(None, composition.PreSampleArgs(1, 1, 3, 6)),
    "pair": lambda: comparison.pair(composition.PreSampleArgs(1, 1, 3, 6)),
}


def split_of(question: str) -> str:
    return PARTS[int(hashlib.sha256(question.encode()).hexdigest(), 16) % len(PARTS)]


def samples_of(make) -> dict:
    """Distinct questions, as they are drawn, until each split is full."""
    found, seen = {split: [] for split in SIZES}, set()
    while any(len(found[split]) < size for split, size in SIZES.items()):
        problem = make()
        question = str(problem.question)
        samples = found[split_of(question)]
        if question not in seen and len(samples) < SIZES[split_of(question)]:
            samples.append({"prompt": question + "\n", "response": str(problem.answer)})
        seen.add(question)
    return found


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for task, make in TASKS.items():
        random.seed(SEED)
        np.random.seed(SEED)
        for split, samples in samples_of(make).items():
            text = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
            outputs.write(pathlib.Path(sys.argv[1]) / f"{task}-{split}.jsonl", text.encode())


if __name__ == "__main__":
    main()

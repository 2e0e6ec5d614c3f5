"""Truncated SVDs by torch.svd_lowrank and scikit-learn's randomized_svd, one a line of standard input.

A line is "FILE ROWS COLS RANK torch|sklearn WIDTH ITERATIONS" (fp32 by rows; WIDTH columns of the sketch); a line of output the seconds and
the residual over the norm of the matrix, which is computed after the time is taken."""
import sys
import time

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd


def by_torch(a, rank, width, iterations):
    u, s, v = torch.svd_lowrank(torch.from_numpy(a), q=width, niter=iterations)
    return u[:, :rank].numpy(), s[:rank].numpy(), v[:, :rank].numpy()


def by_sklearn(a, rank, width, iterations):
    u, s, vt = randomized_svd(a, rank, n_oversamples=width - rank, n_iter=iterations, random_state=1)
    return u, s, vt.T


LIBRARIES = {"torch": by_torch, "sklearn": by_sklearn}


def residual(a, u, s, v):
    """Block by block."""
    squares = 0.0
    for first in range(0, len(a), 512):
        block = slice(first, first + 512)
        squares += float(np.square(a[block] - (u[block] * s) @ v.T, dtype=np.float64).sum())
    return (squares / float(np.square(a, dtype=np.float64).sum())) ** 0.5


def main():
    torch.manual_seed(1)
    torch.set_grad_enabled(False)
    known, a = None, None
    for line in sys.stdin:
        path, rows, cols, rank, library, width, iterations = line.split()
        if path != known:
            a, known = np.fromfile(path, np.float32).reshape(int(rows), int(cols)), path
        begin = time.perf_counter()
        factors = LIBRARIES[library](a, int(rank), int(width), int(iterations))
        seconds = time.perf_counter() - begin
        print(f"{seconds:.6f} {residual(a, *factors):.9f}", flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# seconds: 900
# The k-th allocation, read, write, rename, MPI or HDF5 call of a rank fails: a short form of `make chaos`.
cd "$(dirname "$0")/../.." && exec /usr/bin/python3 tests/chaos/chaos.py faults -n 36 --seed 1 --limit 240 \
    --build "${DELTAPATH_BUILD:-build/release}"

#!/usr/bin/env bash
# seconds: 900
# The disk is full at a few levels and instants: a short form of `make chaos`.
cd "$(dirname "$0")/../.." && exec /usr/bin/python3 tests/chaos/chaos.py disk -n 8 --seed 1 --limit 240 \
    --build "${DELTAPATH_BUILD:-build/release}"

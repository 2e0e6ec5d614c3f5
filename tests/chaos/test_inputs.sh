#!/usr/bin/env bash
# seconds: 900
# An input is rewritten, cut, replaced or deleted while a study runs: a short form of `make chaos`.
cd "$(dirname "$0")/../.." && exec /usr/bin/python3 tests/chaos/chaos.py inputs -n 8 --seed 1 --limit 240 \
    --build "${DELTAPATH_BUILD:-build/release}"

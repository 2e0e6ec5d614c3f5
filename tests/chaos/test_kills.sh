#!/usr/bin/env bash
# seconds: 900
# Ten studies are killed at random instants and resumed: a short form of `make chaos`.
cd "$(dirname "$0")/../.." && exec /usr/bin/python3 tests/chaos/chaos.py kills -n 10 --seed 1 --limit 240 \
    --build "${DELTAPATH_BUILD:-build/release}"

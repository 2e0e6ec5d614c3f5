#!/usr/bin/env bash
# A broken promise ends all ranks with one line that names it, in a build with checks; in others nothing
# is checked.
source "$(dirname "$0")/../support/tap.sh"
breaker=${DELTAPATH_BUILD:-build/release}/tests/comm/test_assert

broken() { # broken WHAT REGEX: one promise at two ranks
    ran="test_assert $1 (at 2)"
    timeout --kill-after=5 "$((limit * patience))" $DPT_MPIRUN -n 2 "$breaker" "$1" \
        >"$tmp/out" 2>"$tmp/err" </dev/null
    code=$?
    if grep -q 'checks off' "$tmp/out"; then
        [[ $code -eq 0 ]] && ! grep -q 'internal error' "$tmp/err"
        ok "$1: nothing is checked in this build" $? "exit code $code"
        return
    fi
    [[ $code -ne 0 && $code -ne 124 && $(grep -c 'internal error' "$tmp/err") -eq 1 ]] &&
        grep -qE "^deltapath: internal error: \[rank 1\] $2\$" "$tmp/err"
    ok "$1: all ranks end with one line" $? "$(grep 'internal error' "$tmp/err" | head -n 2)"
}
broken condition 'tests/comm/test_assert\.c:[0-9]+: break_condition: begin <= end does not hold'
broken number 'tests/comm/test_assert\.c:[0-9]+: break_number: rows differs between ranks 0 and 1 of 2'
broken text 'tests/comm/test_assert\.c:[0-9]+: break_text: path differs between ranks 0 and 1 of 2'
broken array 'tests/comm/test_assert\.c:[0-9]+: break_array: weights differs between ranks 0 and 1 of 2'
broken call 'src/comm/comm\.c:[0-9]+: [a-z_]+: n differs between ranks 0 and 1 of 2'
done_testing

#!/usr/bin/env bash
# A status that is not looked at does not compile, with the flags of every build and with both compilers.
source "$(dirname "$0")/../support/tap.sh"
flags=$(make -s print-ALL_CFLAGS | tr ' ' '\n' | grep -E '^-(std|W)')

# compiles NAME CODE STATEMENT: whether a function with it compiles (0) or does not for that reason (1)
compiles() {
    printf '#include "deltapath/base/status.h"\ndpt_status work(void);\nvoid caller(void);\nvoid caller(void) { %s }\n' \
        "$3" >"$tmp/caller.c"
    for compiler in gcc clang; do
        command -v "$compiler" >/dev/null || { skip "$1 with $compiler" "not installed" && continue; }
        # shellcheck disable=SC2086 # a list of flags
        $compiler $flags -Iinclude -fsyntax-only "$tmp/caller.c" 2>"$tmp/err"
        [[ $? -eq $2 ]] && { [[ $2 -eq 0 ]] || grep -q 'error: ignoring return value' "$tmp/err"; }
        ok "$1 with $compiler" $? "$(head -n 3 "$tmp/err")"
    done
}
compiles "a status that is not looked at is an error" 1 'work();'
compiles "one that is meant not to be is none" 0 '(void)work();'
compiles "one that is looked at is none" 0 'if (work() != DPT_OK) return;'
done_testing

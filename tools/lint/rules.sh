#!/usr/bin/env bash
# House rules that the compiler does not know: no way out of the process below main (base/isolate ends
# its own child), no allocation past the counted one, and files that one can read in a sitting.
source "$(dirname "$0")/complain.sh"

grep -rnE '\b(exit|_exit|abort|assert|quick_exit) *\(' src include --include='*.[ch]' |
    grep -vE '^src/cli/main\.c:|^src/base/(isolate|assert)\.c:|MPI_Abort|static_assert|_Static_assert|: *\*|/\*' |
    grep -vE ': */' | complain "process exits below main:"
grep -rnE '[^_a-z](malloc|calloc|realloc|strdup|asprintf) *\(' src --include='*.c' |
    grep -vE '^src/base/mem\.c:' | complain "allocations that are not counted (use base/mem.h):"
find src include tests tools -name '*.[ch]' -exec awk 'END { if (NR > 600) print FILENAME ": " NR " lines" }' {} \; |
    complain "files above 600 lines:"
grep -rnE '\b(TODO|FIXME|XXX)\b' src include tests tools --include='*.[ch]' --include='*.py' --include='*.sh' |
    grep -v '^tools/lint/' | complain "unfinished notes:"
# Each promise `Collective ... (same: ...)` of a header is checked at the top of its function, or, where that
# has no communicator, by those that call it.
grep -rlE '\(same: ' include src --include='*.h' | grep -v '/comm/same\.h$' | xargs awk '
    FNR == 1 { promised = 0 }
    /\(same: / && !/(callers|end) checks? it/ { promised = 1 }
    promised && match($0, /dpt_[a-z0-9_]+\(/) && !/^ *[\/ ]\*/ { print substr($0, RSTART, RLENGTH - 1); promised = 0 }' |
    while read -r name; do
        grep -rhE -A 16 "^[a-z].*\b$name\(" src --include='*.c' | grep -qE 'DPT_ASSERT_SAME|_check_(same|options|study|spec)\(' || echo "$name"
    done | complain "promises of headers about all ranks that no DPT_ASSERT_SAME checks:"
# What .editorconfig tells editors.
text=(. ':!tests/fuzz/seeds' ':!tests/golden' ':!share')
width=$(sed -n '/^\[\*\.{c,h}\]/,/^$/s/^max_line_length = //p' .editorconfig 2>/dev/null)
[[ $width == "$(sed -n 's/^ColumnLimit: //p' .clang-format)" ]] || echo "${width:-none}" |
    complain "line length of C in .editorconfig, not that of .clang-format:"
git grep -nIE '[[:blank:]]+$' -- "${text[@]}" | complain "blanks at the ends of lines:"
git ls-files -- "${text[@]}" | while read -r file; do
    [[ -f $file && -n $(tail -c 1 "$file" | tr -d '\0') ]] && echo "$file"
done | complain "no newline at the end of the file:"
exit $status

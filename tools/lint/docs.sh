#!/usr/bin/env bash
# Fail when a document names what the tree does not have: a function or constant of the program, a file,
# a make target, a key or method of a job file. Fast: greps alone.
source "$(dirname "$0")/complain.sh"

documents=(README.md CONTRIBUTING.md CHANGELOG.md doc/*.md)
missing() { # missing HAVE WANT: lines of WANT that HAVE lacks
    comm -13 <(sort -u "$1") <(sort -u "$2")
}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Names of the program: dpt_..., DPT_... and, written as name(), functions local to a file.
grep -rhoE '\b(dpt|DPT)_[A-Za-z0-9_]+' src include tools/mpi-env.sh >"$tmp/have"
grep -hoE '\b(dpt|DPT)_[A-Za-z0-9_]+' "${documents[@]}" | grep -v '_$' >"$tmp/want"
missing "$tmp/have" "$tmp/want" | complain "names in documents that src/ and include/ lack:"
grep -rhoE '^[a-z][A-Za-z0-9_ *]* \**[a-z][a-z0-9_]*\(' src include | grep -oE '[a-z0-9_]+\($' |
    tr -d '(' >"$tmp/have"
grep -hoE '`[a-z][a-z0-9_]*\(\)`' "${documents[@]}" | tr -d '`()' >"$tmp/want"
missing "$tmp/have" "$tmp/want" | complain "functions in documents that src/ lacks:"

# Files and folders of the tree, and tests named alone.
git ls-files --cached --others --exclude-standard >"$tmp/files"
awk '{ print; while (sub("/[^/]*$", "")) print $0 "\n" $0 "/" }' "$tmp/files" >"$tmp/have"
grep -hoP '(?<![\w/.-])(src|include|tests|tools|jobs|slurm|doc|share|\.ci)/[\w./-]*[\w/]' \
    "${documents[@]}" | grep -vE '^share/deltapath|^doc/$' >"$tmp/want"
missing "$tmp/have" "$tmp/want" | complain "files in documents that the tree lacks:"
sed -n 's,^tests/.*/\(test_[a-z0-9_]*\)\.[a-z]*$,\1,p' "$tmp/files" >"$tmp/have"
cp "$tmp/have" "$tmp/have.files"
grep -rhoE '\btest_[a-z0-9_]+' tests --include='*.[ch]' >>"$tmp/have"
grep -hoE '`test_[a-z0-9_]+`' "${documents[@]}" | tr -d '`' >"$tmp/want"
missing "$tmp/have" "$tmp/want" | complain "tests in documents that tests/ lacks:"
grep -hoE '`test_[a-z0-9_]+`: `[a-z0-9_]+`(, `[a-z0-9_]+`)*' "${documents[@]}" | tr -d '`,:' |
    while read -r file functions; do
        for function in $functions; do # a test file that follows in the list is no function
            grep -qE "_unit_test\($function\)" tests/*/"$file".c || grep -qx "$function" "$tmp/have.files" ||
                echo "$file: $function"
        done
    done | complain "test functions in documents that their file lacks:"
grep -hoE '\]\([A-Za-z0-9_./-]+\.md\)' doc/*.md | sed 's/](\(.*\))/doc\/\1/' >"$tmp/want"
{ cat "$tmp/files"; sed 's,^,doc/../,' "$tmp/files"; } >"$tmp/have"
missing "$tmp/have" "$tmp/want" | complain "links in doc/ that lead nowhere:"

# Make targets.
grep -hoE '^[a-z][a-z -]*:' Makefile | tr -d ':' | tr ' ' '\n' >"$tmp/have"
grep -hoE '(`|^)make [a-z][a-z-]*' "${documents[@]}" | awk '{ print $2 }' >"$tmp/want"
missing "$tmp/have" "$tmp/want" | complain "make targets in documents that the Makefile lacks:"

exit $status

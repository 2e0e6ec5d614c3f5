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

# What a list of the program has stands in the tables of the documents that list it.
list_of() { # list_of FILE MACRO: the last word of each X(...) of a list macro
    sed -n "/^#define $2(X)/,/[^\\\\]$/p" "$1" | grep -oE 'X\([^)]+\)' | sed -E 's/X\(|\)//g; s/.*, *//'
}
section_of() { # section_of DOCUMENT TITLE: the lines under a title
    awk -v title="## $2" '/^## / { on = $0 == title } on' "$1"
}
words_in() { # words_in text|table: words in backquotes outside tables, or in the first cells of tables
    case $1 in text) grep -v '^|' ;; table) sed -nE 's/^(\|[^|]*\|).*/\1/p' ;; esac |
        grep -oE '`[A-Za-z0-9_]+`' | tr -d '`'
}
lists() { # lists WHAT DOCUMENT TITLE text|table: complains of lines of `want` that are not named there
    section_of "$2" "$3" | words_in "$4" >"$tmp/have"
    [[ -s $tmp/want ]] || echo "no $1 found: did its list move?" | complain "tools/lint/docs.sh:"
    missing "$tmp/have" "$tmp/want" | complain "$1 that $2, $3, does not list:"
}
list_of src/cli/cli.h DPT_CLI_VERBS >"$tmp/want"
lists verbs README.md Verbs table
list_of include/deltapath/job/job.h DPT_LOSS_LIST >"$tmp/want"
lists losses doc/jobs.md Data table
lists losses README.md Limits text
sed 's/.*/`dpt_loss_&_create`/' "$tmp/want" | while read -r function; do
    section_of doc/equations.md Losses | grep -F "$function" >/dev/null || echo "$function"
done | complain "losses that doc/equations.md, Losses, does not list:"
list_of src/model/arch/arch.h DPT_FAMILIES | while read -r family; do
    sed -nE 's/.*\.architecture = "([A-Za-z0-9]+)".*/\1/p' "src/model/arch/$family.c" 2>/dev/null | grep . ||
        echo "$family"
done >"$tmp/want"
lists architectures doc/models.md Architectures table
list_of src/edit/stage.h DPT_EDIT_METHODS >"$tmp/want"
section_of doc/jobs.md Edits | awk -F'|' 'NF == 4 { print $2 }' | tr -d '` ' >"$tmp/have" # its formulas
missing "$tmp/have" "$tmp/want" | complain "methods of edits without a formula in doc/jobs.md, Edits:"
sed 's,.*,src/edit/methods/&.c,' "$tmp/want" | while read -r file; do
    section_of doc/equations.md "The paper" | grep -F "$file" >/dev/null || echo "$file"
done | complain "methods of edits that doc/equations.md, The paper, does not list:"

# Make targets.
grep -hoE '^[a-z][a-z -]*:' Makefile | tr -d ':' | tr ' ' '\n' >"$tmp/have"
grep -hoE '(`|^)make [a-z][a-z-]*' "${documents[@]}" | awk '{ print $2 }' >"$tmp/want"
missing "$tmp/have" "$tmp/want" | complain "make targets in documents that the Makefile lacks:"

exit $status

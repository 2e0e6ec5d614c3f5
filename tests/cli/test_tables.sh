#!/usr/bin/env bash
# The verbs that print tables, and the documents that show what they print.
. "$(dirname "$0")/../support/tap.sh"

holds "documents show the tables of the program" tools/doc_tables.py "$program" --check
for verb in keys methods columns; do
    run_at 2 "$verb"
    expect_exit "$verb" 0
    [[ $(grep -c '^|---' "$tmp/out") -eq 1 ]]
    ok "$verb prints one table at two ranks" $?
    awk -F'|' 'NR == 1 { n = NF } NF != n { exit 1 }' "$tmp/out"
    ok "$verb: every row has the same cells" $?
done
run_at 1 keys extra
expect_error "a word too many" 2 "takes no words"
done_testing

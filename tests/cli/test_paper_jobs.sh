#!/usr/bin/env bash
# seconds: 60
# Every job file of jobs/paper is valid on the shipped models, and tools/paper.sh knows its figure.
. "$(dirname "$0")/../support/tap.sh"
for job in jobs/paper/*.yaml; do
    figure=$(basename "$job" .yaml)
    run_at 1 plan "$job" --set "output.directory=$tmp/$figure" # whatever lies in out/paper
    expect_exit "plan of $figure" 0
    holds "tools/paper.sh runs $figure" grep -qE "[( ]$figure-" tools/paper.sh
done
done_testing

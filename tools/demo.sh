#!/usr/bin/env bash
# The main job on the shipped models: tools/demo.sh PROGRAM [RANKS]
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/mpi-env.sh
program=$1
ranks=${2:-2}
$DPT_MPIRUN -n "$ranks" "$program" run jobs/demo.yaml --set output.overwrite=true
echo
echo "open out/demo/report.html; the same as a table: out/demo/summary.csv"

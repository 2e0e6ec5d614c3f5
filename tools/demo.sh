#!/usr/bin/env bash
# The main job on the shipped models: tools/demo.sh PROGRAM [RANKS]
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/mpi-env.sh
program=$1
ranks=${2:-2}
mpirun -n "$ranks" "$program" run jobs/demo.yaml --set output.overwrite=true
echo
echo "verdicts (out/demo/summary.csv):"
tools/show_verdicts.sh out/demo/summary.csv
echo
echo "report: out/demo/report.html"

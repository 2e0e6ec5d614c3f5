#!/usr/bin/env bash
# Run the edits of a job as an array, and a job after it that makes one report of all:
#
#   slurm/deltapath-array.sh TASKS JOB.yaml OUT [OPTIONS OF deltapath run]
#
# Task i does every TASKS-th edit from number i on, in OUT/part-i; `deltapath join` puts them together in
# OUT/all. Give it again with --resume to go on after tasks failed: what an earlier join wrote to OUT/all is
# then replaced. Logs are deltapath-ID_TASK.log and deltapath-join-ID.log. Variables, besides those of
# deltapath.sbatch:
sbatch_options=${DELTAPATH_SBATCH:-}      # of a task, as in "--nodes=4 --time=08:00:00 --partition=gpu"
join_options=${DELTAPATH_SBATCH_JOIN:-}   # of the job that joins, as in "--time=00:30:00"
at_once=${DELTAPATH_AT_ONCE:-}            # most tasks that run at a time
logs=${DELTAPATH_LOGS:-.}                 # folder of the logs, which exists: not OUT, which the program checks first

set -euo pipefail
[[ $# -ge 3 && $1 =~ ^[1-9][0-9]*$ ]] || { sed -n '4p' "$0" >&2; exit 2; }
tasks=$1 job=$2 out=$3
shift 3
script=$(dirname "$0")/deltapath.sbatch
fail() { echo "deltapath-array.sh: $*" >&2; exit 4; }
[[ -d $logs ]] || fail "$logs: no such folder: make it, or set DELTAPATH_LOGS"
resume=
for word in "$@"; do [[ $word == --resume ]] && resume=yes; done
again=()
if [[ -e $out/all ]]; then
    [[ -n $resume ]] || fail "$out/all: is there already: give --resume to go on, or choose another OUT"
    again=(--overwrite)
fi

# shellcheck disable=SC2086 # words
array=$(sbatch --parsable --array="0-$((tasks - 1))${at_once:+%$at_once}" --output="$logs/deltapath-%A_%a.log" \
    $sbatch_options "$script" "$job" --only "%a/$tasks" --set "output.directory=$out/part-%a" "$@")
array=${array%%;*}
parts=()
for ((i = 0; i < tasks; i++)); do parts+=("$out/part-$i"); done
# shellcheck disable=SC2086 # words
join=$(sbatch --parsable --job-name=deltapath-join --nodes=1 --ntasks-per-node=1 --cpus-per-task=1 \
    --time=01:00:00 --dependency="afterok:$array" --kill-on-invalid-dep=yes \
    --output="$logs/deltapath-join-%j.log" $join_options "$script" join "${parts[@]}" -o "$out/all" \
    ${again[@]+"${again[@]}"})
echo "array $array, then join ${join%%;*}: results will be in $out/all"

#!/usr/bin/env bash
# Convert both models to HDF5, run a study on them, and write its report, each when the one before is done:
#
#   slurm/deltapath-chain.sh PRE POST JOB.yaml OUT [OPTIONS OF deltapath run]
#
# The models become OUT/pre.h5 and OUT/post.h5, the study is OUT/study, the report OUT/report.html.
# Logs are deltapath-NAME-ID.log. Variables, besides those of deltapath.sbatch:
study_options=${DELTAPATH_SBATCH:-}           # of sbatch for the study, as in "--nodes=4 --time=08:00:00"
convert_options=${DELTAPATH_SBATCH_CONVERT:-} # for the two conversions, as in "--time=01:00:00"
report_options=${DELTAPATH_SBATCH_REPORT:-}   # for the report
logs=${DELTAPATH_LOGS:-.}                     # folder of the logs, which exists

set -euo pipefail
[[ $# -ge 4 ]] || { sed -n '4p' "$0" >&2; exit 2; }
pre=$1 post=$2 job=$3 out=$4
shift 4
script=$(dirname "$0")/deltapath.sbatch
fail() { echo "deltapath-chain.sh: $*" >&2; exit 4; }
[[ -d $logs ]] || fail "$logs: no such folder: make it, or set DELTAPATH_LOGS"
for model in "$pre" "$post"; do # nothing is made in the folder of a model
    [[ $(realpath -m "$out")/ != "$(realpath -m "$model")"/* ]] ||
        fail "$out: lies in the folder of the input $model, which is never written to: choose another OUT"
done
mkdir -p "$out"

submit() { # submit NAME AFTER WORDS...: the id of the job
    local name=$1 after=$2 id
    shift 2
    id=$(sbatch --parsable --job-name="deltapath-$name" --output="$logs/deltapath-$name-%j.log" \
        ${after:+--dependency="afterok:$after" --kill-on-invalid-dep=yes} "$@")
    echo "${id%%;*}"
}

# shellcheck disable=SC2086 # words
{
    first=$(submit convert-pre "" --nodes=1 $convert_options "$script" convert "$pre" "$out/pre.h5")
    second=$(submit convert-post "" --nodes=1 $convert_options "$script" convert "$post" "$out/post.h5")
    study=$(submit study "$first:$second" $study_options "$script" "$job" \
        --set "models={pre: $out/pre.h5, post: $out/post.h5}" --set "output.directory=$out/study" "$@")
    last=$(submit report "$study" --nodes=1 --ntasks-per-node=1 $report_options "$script" \
        report "$out/study/results.h5" -o "$out/report.html")
}
echo "convert $first and $second, then study $study, then report $last: $out/report.html"

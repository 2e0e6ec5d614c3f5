#!/usr/bin/env bash
# The figures of the paper on a real decoder: tools/paper-real.sh PROGRAM [RANKS [PATTERN...]]
# Makes build/real (tools/real/prepare.sh), runs jobs of jobs/paper on SmolLM2-135M before and after post-training
# at three learning rates, goes on where an earlier run stopped, and writes out/paper-real/report.html. A PATTERN
# chooses studies by name. QUICK=1 in the environment takes every so-manieth edit and a few samples, into
# out/paper-real-quick: the whole chain within minutes, no result.
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/mpi-env.sh
[[ $# -gt 0 ]] || {
    echo "usage: tools/paper-real.sh PROGRAM [RANKS [PATTERN...]]" >&2
    exit 2
}
program=$1
ranks=${2:-2}
shift $(($# < 2 ? $# : 2))

# Where the size of the delta is a factor: all rates. Else the middle one.
studies=(fig1-smollm2-low fig1-smollm2-middle fig1-smollm2-high fig3-smollm2-middle fig4-smollm2-middle
    fig5-smollm2-middle fig7-smollm2-low fig7-smollm2-middle fig7-smollm2-high table1-smollm2-middle)
# Samples of each data set, so that all of it takes less than two hours on two cores.
declare -A samples=([fig1]=48 [fig1-middle]=128 [fig3]=48 [fig4]=64 [fig5]=64 [fig7]=64 [table1]=128)
declare -A every=([fig1]=60 [fig3]=10 [fig4]=3 [fig5]=26 [fig7]=11 [table1]=10)

self=tools/paper-real.sh out=out/paper-real${QUICK:+-quick}
. tools/paper/studies.sh
check_patterns "$@"
compgen -G "share/real/*.steps" >/dev/null || {
    echo "$self: there are no post-trained weights, share/real/*.steps: train them as tools/real/README.md says" >&2
    exit 1
}
tools/real/prepare.sh || exit
for study in "${studies[@]}"; do
    wanted "$study" "$@" || continue
    figure=${study%%-*} rate=${study##*-}
    [[ -e share/real/$rate.steps ]] || continue
    some=${samples[$figure-$rate]:-${samples[$figure]}}
    [[ -n ${QUICK:-} ]] && some=8
    entry() { echo "{name: $1, file: share/real/$1.h5, loss: lm, samples: $2}"; }
    data=$(entry place "$some")
    # Figure 7 compares tasks; a sample of text has four times the tokens of a question.
    [[ $figure == fig7 ]] && data="$data, $(entry pair "$some"), $(entry text $((some / 2)))"
    sets=(--set "models={pre: build/real/pre, post: build/real/$rate}" --set "data=[$data]")
    [[ -n ${QUICK:-} ]] && sets+=(--only "0/${every[$figure]}")
    run_study "$study" "${sets[@]}"
done
write_report

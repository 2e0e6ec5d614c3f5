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

# All rates where the size of the delta is a factor, but figure 7 of the lowest, which answers nothing; else the one with
# the best validation questions. Edited models are fp32: in bf16, the type of the files, most of a delta is one step of
# rounding, and rescaling it changes nothing, which the study of bf16 shows.
studies=(fig1-smollm2-high predictions-smollm2-high fig1-smollm2-middle fig1-smollm2-low fig1-smollm2-high-bf16
    fig3-smollm2-high fig4-smollm2-high fig5-smollm2-high table1-smollm2-high fig7-smollm2-high fig7-smollm2-middle
    allocation-smollm2-high proof-smollm2-high)
# Samples of each data set, so that all of it takes less than two hours on two cores. With fewer than 149 no edit can be
# shown to lose less than two points of accuracy, not even one that answers everything as before.
declare -A samples=([fig1]=160 [fig3]=16 [fig4]=160 [fig5]=32 [fig7]=48 [table1]=96 [predictions]=48
    [allocation]=48 [proof]=16)
declare -A every=([fig1]=20 [fig3]=10 [fig4]=3 [fig5]=26 [fig7]=11 [table1]=10 [predictions]=20 [allocation]=7
    [proof]=3)
# Parts of the grids.
declare -A ks=([high]="-1, 0, 0.5, 0.8" [middle]=0 [low]=0 [high-bf16]="-1, 0")
declare -A layers=([high]=", {name: layers, method: expo, alpha: auto, groups: layers}" [middle]="")
multiples="[0.5, 0.8, 1, 1.2, 2]" alphas="[-1, -0.3, -0.1, 0.1, 0.3, 1]"
bys="by: [uniform, group, tensor]"
edits_of() { # edits_of FIGURE PAIR: those that are not as in its job
    case $1 in
    fig1) echo "[{name: dare, method: dare, k: [${ks[$2]}], p: [0.1, 0.5, 0.9], seeds: 5}]" ;;
    fig5) echo "[{name: degenerate, method: bitdelta, multiple: $multiples}," \
        "{name: normal, method: bitdelta, sample: normal, multiple: $multiples, seeds: 5}," \
        "{name: uniform, method: bitdelta, sample: uniform, multiple: $multiples, seeds: 5}]" ;;
    fig7) echo "[{name: expo, method: expo, alpha: $alphas}, {name: best, method: expo, alpha: auto}${layers[$2]}]" ;;
    allocation) echo "[{name: dare, method: allocate, edit: dare, mean: 0.95, $bys, seeds: 5}," \
        "{name: prune, method: allocate, edit: prune, bytes: [0.05, 0.1], $bys}," \
        "{name: bits, method: allocate, edit: multibit, tensors: all, bytes: [0.1, 0.2], $bys}," \
        "{name: twin, method: allocate, edit: lowrank, bytes: [0.1, 0.3], $bys}]" ;;
    proof) echo "[{name: dare, method: dare, p: 0.9, k: -1}, {name: drop, method: drop, p: 0.1}," \
        "{name: bits, method: multibit, bits: [1, 3]}, {name: twin, method: lowrank, sparsity: 0.9}," \
        "{name: expo, method: expo, alpha: 0.1}]" ;;
    esac
}

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
    figure=${study%%-*} pair=${study#*-smollm2-} dtype=f32
    rate=${pair%-bf16}
    [[ $pair == *-bf16 ]] && dtype=bf16
    [[ -e share/real/$rate.steps ]] || continue
    some=${samples[$figure]}
    [[ -n ${QUICK:-} ]] && some=8
    entry() { echo "{name: $1, file: share/real/$1.h5, loss: lm, samples: $2}"; }
    data=$(entry place "$some")
    # Figure 7 compares tasks; a sample of text has four times the tokens of a question, and
    # of 24 half judge: fewer do not tell the directions apart.
    [[ $figure == fig7 ]] && data="$data, $(entry pair "$some"), $(entry text $((some / 2)))"
    sets=(--set "models={pre: build/real/pre, post: build/real/$rate}" --set "data=[$data]"
        --set "output.dtype=$dtype")
    edits=$(edits_of "$figure" "$pair")
    [[ -n $edits ]] && sets+=(--set "edits=$edits")
    # Two points in place of five, of which the paper's claims about bits ask nothing.
    [[ $figure == fig4 ]] && sets+=(--set "riemann={rule: radau, points: 2}")
    # What is predicted is the loss at the end: the path need not be walked; and no accuracy, which takes classes.
    [[ $figure == predictions ]] && sets+=(--set "riemann={rule: left, points: 1}" --set "law={repeats: 8, seed: 1}")
    [[ $figure == proof ]] && sets+=(--set "proof={groups: modules}")
    [[ -n ${QUICK:-} ]] && sets+=(--only "0/${every[$figure]}")
    run_study "$study" "${sets[@]}"
done
write_report

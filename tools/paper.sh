#!/usr/bin/env bash
# The figures and tables of the paper on the shipped pairs: tools/paper.sh PROGRAM [RANKS [PATTERN...]]
# Runs every job of jobs/paper on its pairs, and jobs/allocation.yaml, goes on where an earlier run stopped, and writes
# out/paper/report.html. A PATTERN chooses studies by name, as in `fig1` or `-vit`.
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/mpi-env.sh
[[ $# -gt 0 ]] || {
    echo "usage: tools/paper.sh PROGRAM [RANKS [PATTERN...]]" >&2
    exit 2
}
program=$1
ranks=${2:-2}
shift $(($# < 2 ? $# : 2))
demo=share/demo
reverse="{name: reverse, file: $demo/reverse.h5, loss: lm}"
declare -A pre=([llama]=llama-pre [qwen]=qwen-pre [vit]=vit-pre [dpo]=llama-post)
declare -A post=([llama]=llama-post [qwen]=qwen-post [vit]=vit-post [dpo]=llama-dpo)
declare -A data=([qwen]="[$reverse]" [vit]="[{name: digits, file: $demo/digits.h5, loss: class}]")
# Of `-layers` only the matrices of the layers are edited, as peers do by default.
projections='["*_proj.weight"]'
declare -A matrices=([llama]=$projections [qwen]=$projections
    [vit]='["*.query.weight", "*.key.weight", "*.value.weight", "*.dense.weight"]')
# One size of each edit, the middle one of its job, half of its passes for the curvature, and the first samples of the decoders:
# all pairs take less than a minute of processor time.
by="by: [uniform, group, tensor]"
allocation="[{name: dare, method: allocate, edit: dare, mean: 0.5, $by, seeds: 3},
    {name: prune, method: allocate, edit: prune, bytes: 0.2, $by},
    {name: bits, method: allocate, edit: multibit, tensors: all, bytes: 0.2, $by},
    {name: twin, method: allocate, edit: lowrank, bytes: 0.3, $by}]"

studies=(fig1-llama fig1-qwen fig1-llama-layers fig1-qwen-layers fig2-vit fig2-vit-layers
    fig3-llama fig3-qwen fig3-vit fig4-llama fig4-qwen fig4-vit fig5-llama fig5-qwen fig5-vit fig6-dpo
    fig7-llama fig7-qwen fig7-vit
    table1-llama table1-qwen table1-vit calibrated-llama calibrated-qwen calibrated-vit
    allocation-llama allocation-qwen allocation-vit)

self=tools/paper.sh out=out/paper
. tools/paper/studies.sh
check_patterns "$@"
for study in "${studies[@]}"; do
    wanted "$study" "$@" || continue
    pair=${study#*-} part=
    [[ $pair == *-layers ]] && pair=${pair%-layers} part=layers
    sets=(--set "models={pre: $demo/${pre[$pair]}, post: $demo/${post[$pair]}}")
    [[ -n ${data[$pair]:-} ]] && sets+=(--set "data=${data[$pair]}")
    # Figure 3 takes five gradients an edit: the first samples are enough for its spread.
    [[ $study == fig3-qwen ]] && sets+=(--set "data=[${reverse%\}}, samples: 64}]")
    [[ $study == fig3-vit ]] &&
        sets+=(--set "data=[{name: digits, file: $demo/digits.h5, loss: class, samples: 128}]")
    # Figure 7 compares tasks.
    [[ $study == fig7-qwen ]] &&
        sets+=(--set "data=[$reverse, {name: text, file: $demo/qwen-text.h5, loss: lm}]")
    [[ $part == layers ]] && sets+=(--set "select={include: ${matrices[$pair]}}"
        --set "edits=[{name: dare, method: dare, k: 0, p: [0.1, 0.3, 0.5, 0.7, 0.9], seeds: 5}]")
    [[ $study == allocation-* ]] && sets+=(--set "edits=$allocation" --set "law.repeats=4")
    [[ $study == allocation-llama ]] && sets+=(--set "data=[{name: task, file: $demo/task.h5, loss: lm, samples: 128}]")
    [[ $study == allocation-qwen ]] && sets+=(--set "data=[${reverse%\}}, samples: 128}]")
    run_study "$study" "${sets[@]}"
done
write_report

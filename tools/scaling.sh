#!/usr/bin/env bash
# What doc/scaling.md measures and plans, on shapes of LLaMA-3-70B without its weights: tools/scaling.sh BUILD_DIR [PART ...]
#   make     models and data in out/scaling (a few MB)
#   wide     forward and backward of LAYERS=2 layers of width 8192, SAMPLES=1 of 300 tokens, at RANKS="1 2 4" ranks that
#            fill the cores; a run that takes more than LIMIT=160 seconds is stopped (14 GB in all)
#   memory   the same of SmolLM2-135M's shape, 8 samples of 300 tokens, at RANKS="1 2 4 8": what a rank plans and takes
#   edits    every elementwise edit of SLICE=4 of the 80 layers, whose result goes nowhere (SLICE=80 for all), at 2 ranks;
#            stopped after EDITS_LIMIT=300 seconds
#   messages calls of MPI by phase at RANKS="2,8,32" ranks, of a tiny model
#   plan     the study of Fig. 3 on 70B and its sensitivities, at GFLOPS=100 and BF16_GFLOPS=500 a core, or at the rates of
#            MACHINE=FILE (what `deltapath machine` wrote)
# Without a part it is all of them.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/mpi-env.sh
build=$1
shift
parts=${*:-make wide memory edits messages plan}
program=$build/deltapath
shape=share/shapes/llama-3-70b.json
out=out/scaling
vocabulary=${VOCABULARY:-4096}
mkdir -p $out

data() { # data FILE SAMPLES VOCABULARY LENGTH: tokens drawn at random
    /usr/bin/python3 - "$@" <<'P'
import sys
import h5py
import numpy as np
path, samples, vocabulary, length = sys.argv[1], *map(int, sys.argv[2:])
with h5py.File(path, "w") as h5:
    h5["tokens"] = np.random.default_rng(3).integers(0, vocabulary, samples * length, dtype=np.int32)
    h5["loss_mask"] = np.ones(samples * length, np.uint8)
    h5["offsets"] = np.arange(0, samples * length + 1, length, dtype=np.int64)
P
}

pair() { # pair NAME KEY=VALUE ...
    local name=$1 sets=()
    shift
    for key in "$@"; do sets+=(--set "$key"); done
    rm -rf "${out:?}/$name"
    "$program" synthetic $shape "$out/$name" "${sets[@]}"
}

make_part() {
    pair 70b
    pair wide "num_hidden_layers=${LAYERS:-2}" "vocab_size=$vocabulary"
    pair slice "num_hidden_layers=${SLICE:-4}" "vocab_size=$vocabulary"
    data $out/70b.h5 1000 128256 300
    data $out/wide.h5 "${SAMPLES:-1}" "$vocabulary" 300
    shape=share/shapes/smollm2-135m.json pair smollm2
    data $out/smollm2.h5 8 49152 300
    pair tiny num_hidden_layers=3 hidden_size=64 intermediate_size=128 vocab_size=256 num_attention_heads=4 num_key_value_heads=2
    data $out/tiny.h5 64 256 16
}

run_at() { # run_at MODEL RANKS...: the job of the wide layers on a model that make_part made, at each number of ranks
    local model=$1
    shift
    printf '%5s %12s %12s %10s  %s\n' ranks 'MiB planned' 'MiB taken' 'clock [s]' 'losses of post and edit, estimate'
    for ranks in "$@"; do
        rm -rf $out/study
        local threads=$(($(nproc) / ranks)) code=0
        OMP_NUM_THREADS=$((threads > 0 ? threads : 1)) timeout -k 5 "${LIMIT:-160}" $DPT_MPIRUN -n "$ranks" "$program" run \
            jobs/scaling/wide.yaml --set "models={pre: $out/$model/pre, post: $out/$model/post}" \
            --set "data.0.file=$out/$model.h5" ${MEMORY:+--memory $MEMORY} >$out/summary 2>$out/log || code=$?
        if ((code != 0)); then
            printf '%5s %s\n' "$ranks" "$(grep -m 1 error $out/log || echo "stopped with code $code")"
            continue
        fi
        /usr/bin/python3 - "$ranks" $out/log $out/study/results.json <<'P'
import json
import re
import sys
log, unit = open(sys.argv[2]).read(), json.load(open(sys.argv[3]))["units"][0]
line = re.search(r"memory per rank ([\d.]+) / ([\d.]+) MiB.*?time ([\d.]+) / ([\d.]+) s", log)
print(f"{sys.argv[1]:>5} {line[1]:>12} {line[2]:>12} {line[4]:>10}  "
      f"{unit['loss_post']:.9g} {unit['loss_edit']:.9g} {unit['estimate']:.6g}")
P
    done
    rm -rf $out/study
}

# Numbers of ranks are words.
# shellcheck disable=SC2086
wide_part() { run_at wide ${RANKS:-1 2 4}; }
# shellcheck disable=SC2086
memory_part() { run_at smollm2 ${RANKS:-1 2 4 8}; }

edits_part() {
    timeout -k 5 "${EDITS_LIMIT:-300}" $DPT_MPIRUN -n 2 "$build/tests/bench/bench_shape" $out/slice/pre $out/slice/post \
        ${EDIT:+"$EDIT"} || echo "stopped with code $?"
}

messages_part() {
    DELTAPATH=$program tools/messages/messages.py jobs/scaling/tiny.yaml -n "${RANKS:-2,8,32}"
}

machine() { # machine KEY=VALUE ...: out/scaling/machine.yaml, by MACHINE or the defaults, with these keys
    local file=$out/machine.yaml
    if [[ -n ${MACHINE:-} ]]; then cp "$MACHINE" "$file"; else "$program" machine --defaults --overwrite -o "$file"; fi
    for key in "$@"; do
        sed -i "/^${key%%=*}:/d" "$file"
        echo "${key%%=*}: ${key#*=}" >>"$file"
    done
}

rate() { # rate KEY DEFAULT: of a core, by MACHINE where that says it
    local said=""
    [[ -n ${MACHINE:-} ]] && said=$(sed -n "s/^$1: *\([0-9.e+]*\).*/\1/p" "$MACHINE")
    echo "${said:-$2}"
}

node() { # node KEY=VALUE ...: a machine file of the nodes that the plan is for, with these keys instead
    machine memory_gib=128 "cores=${CORES:-64}" "sgemm_gflops=$gflops" "sgemm_small_gflops=$gflops" "bf16_gflops=$bf16" \
        memory_gb_per_s=300 core_memory_gb_per_s=10 network_latency_us=2 network_gb_per_s=25 read_gb_per_s=2 "$@"
}

times() { awk "BEGIN { print $1 * $2 }"; }

plan_row() { # plan_row LABEL [WORDS ...]: of NODES nodes with PER_NODE ranks each
    local label=$1 per=${PER_NODE:-4}
    shift
    "$program" plan jobs/scaling/fig3-70b.yaml --machine $out/machine.yaml --ranks "$((${NODES:-8} * per))" \
        --ranks-per-node "$per" --json "$@" 2>$out/log >$out/plan.json || {
        printf '%-44s %s\n' "$label" "$(grep -o 'needs.*' $out/log)"
        return 0
    }
    /usr/bin/python3 - "$label" $out/plan.json <<'P'
import json
import sys
plan = json.load(open(sys.argv[2]))
seconds = plan["seconds"]
mesh = f"{plan['ranks'] // plan['tensor_parallel']} x {plan['tensor_parallel']}"
kept = "yes" if plan["gib_per_rank"].get("gradients", 0) > 0 else "no"
print(f"{sys.argv[1]:44} {kept:>4} {mesh:>8} {plan['hours']:7.1f} {plan['node_hours']:10.0f} {plan['memory_gib']:8.1f} "
      f"{plan['expected_tflop'] / 1e6:7.2f} {(seconds['forward'] + seconds['backward'] + seconds['terms']) / 3600:8.1f} "
      f"{seconds['reductions'] / 3600:7.2f} {seconds['gather'] / 3600:7.2f} "
      f"{(seconds['load'] + seconds['bind'] + seconds['edit']) / 3600:9.2f}")
P
}

# The rows of doc/scaling.md. `t = 0 for each edit` is what a study takes whose gradient at t = 0 is not kept.
plan_part() {
    local per=${PER_NODE:-4} gflops bf16 each='per_sample: true'
    gflops=$(rate sgemm_gflops "${GFLOPS:-100}") bf16=$(rate bf16_gflops "${BF16_GFLOPS:-500}")
    export OMP_NUM_THREADS=$((${CORES:-64} / per))
    echo "${NODES:-8} nodes of ${CORES:-64} cores at $gflops GF/s in fp32 and $bf16 in bf16, $per ranks each"
    printf '%-44s %4s %8s %7s %10s %8s %7s %8s %7s %7s %9s\n' case kept mesh hours 'node hours' GiB/rank Eflop passes \
        reduce gather load+edit
    node
    local rule
    for rule in 'radau, points: 2' 'radau, points: 2, '"$each" 'gauss, points: 2' 'radau, points: 3' 'auto' 'left, points: 5' \
        'left, points: 5, '"$each"; do
        plan_row "${rule/$each/t = 0 for each edit}" --set "riemann={rule: $rule}"
        plan_row "  the same in bf16" --set "riemann={rule: $rule}" --set precision=bf16
    done
    for samples in 100 300; do
        plan_row "$samples samples" --set "data.0.samples=$samples"
    done
    for tokens in 512 1024; do
        plan_row "batches of $tokens tokens" --set "batch_tokens=$tokens"
    done
    for network in 1.2 12 50; do
        node "network_gb_per_s=$network"
        plan_row "network of $network GB/s a node"
        plan_row "  the same in bf16" --set precision=bf16
    done
    for factor in 0.5 0.8 2; do
        node "sgemm_gflops=$(times "$gflops" "$factor")" "sgemm_small_gflops=$(times "$gflops" "$factor")"
        plan_row "fp32 at $factor of that rate"
    done
    for factor in 2 3 8; do
        node "bf16_gflops=$(times "$gflops" "$factor")"
        plan_row "bf16 at $factor times the rate of fp32" --set precision=bf16
    done
    node
    NODES=16 plan_row "16 nodes"
    NODES=16 plan_row "  the same in bf16" --set precision=bf16
    "$program" plan jobs/scaling/fig3-70b.yaml --machine $out/machine.yaml --ranks "$((4 * per))..$((256 * per))" \
        --ranks-per-node "$per" --plot $out/scaling.svg 2>/dev/null
    echo "plot: $out/scaling.svg"
}

for part in $parts; do
    "${part}_part"
done

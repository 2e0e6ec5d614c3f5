#!/usr/bin/env bash
# What doc/scaling.md measures and plans, on shapes of LLaMA-3-70B without its weights: tools/scaling.sh BUILD_DIR [PART ...]
#   make     models and data in out/scaling (a few MB)
#   wide     forward and backward of LAYERS=2 layers of width 8192, SAMPLES=3 of 300 tokens, at RANKS="1 2 4" ranks
#   edits    every elementwise edit of SLICE=4 of the 80 layers, whose result goes nowhere (SLICE=80 for all), at 2 ranks
#   messages calls of MPI by phase at RANKS="2,8,32,64" ranks, of a tiny model
#   plan     the study of Fig. 3 on 70B by MACHINE=FILE (what `deltapath machine` wrote), and its sensitivities
# Without a part it is all of them.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/mpi-env.sh
build=$1
shift
parts=${*:-make wide edits messages plan}
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
    data $out/wide.h5 "${SAMPLES:-3}" "$vocabulary" 300
    pair tiny num_hidden_layers=3 hidden_size=64 intermediate_size=128 vocab_size=256 num_attention_heads=4 num_key_value_heads=2
    data $out/tiny.h5 64 256 16
}

wide_part() {
    printf '%5s %12s %12s %10s  %s\n' ranks 'MiB planned' 'MiB taken' 'clock [s]' 'losses of post and edit, estimate'
    for ranks in ${RANKS:-1 2 4}; do
        rm -rf $out/study
        $DPT_MPIRUN -n "$ranks" "$program" run jobs/scaling/wide.yaml ${MEMORY:+--memory $MEMORY} 2>$out/log || {
            grep error $out/log
            continue
        }
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

edits_part() {
    $DPT_MPIRUN -n 2 "$build/tests/bench/bench_shape" $out/slice/pre $out/slice/post ${EDIT:+"$EDIT"}
}

messages_part() {
    DELTAPATH=$program tools/messages/messages.py jobs/scaling/tiny.yaml -n "${RANKS:-2,8,32,64}"
}

machine() { # machine FILE KEY=VALUE ...: the machine file, or the defaults, as eight nodes of 128 GB would have it
    local file=$1
    shift
    if [[ -n ${MACHINE:-} ]]; then cp "$MACHINE" "$file"; else "$program" machine --defaults --overwrite -o "$file"; fi
    for key in "memory_gib=128" "$@"; do
        sed -i "/^${key%%=*}:/d" "$file"
        echo "${key%%=*}: ${key#*=}" >>"$file"
    done
}

plan_row() { # plan_row LABEL RANKS [WORDS ...]
    local label=$1 ranks=$2
    shift 2
    "$program" plan jobs/scaling/fig3-70b.yaml --machine $out/machine.yaml --ranks "$ranks" \
        --ranks-per-node "$((ranks / 8))" --json "$@" 2>$out/log >$out/plan.json || {
        printf '%-34s %s\n' "$label" "$(grep -o 'needs.*' $out/log)"
        return 0
    }
    /usr/bin/python3 - "$label" $out/plan.json <<'P'
import json
import sys
plan = json.load(open(sys.argv[2]))
seconds = plan["seconds"]
mesh = f"{plan['ranks'] // plan['tensor_parallel']} x {plan['tensor_parallel']}"
print(f"{sys.argv[1]:34} {mesh:>9} {plan['hours']:8.1f} {plan['node_hours']:10.1f} {plan['memory_gib']:8.1f} "
      f"{(seconds['forward'] + seconds['backward'] + seconds['terms']) / 3600:8.1f} {seconds['reductions'] / 3600:8.2f} "
      f"{seconds['gather'] / 3600:8.2f} {(seconds['load'] + seconds['bind'] + seconds['edit']) / 3600:8.2f}")
P
}

# A node: CORES cores at GFLOPS (fp32) each, one rank of CORES / PER_NODE threads.
plan_part() {
    local cores=${CORES:-64} per=${PER_NODE:-4} gflops=${GFLOPS:-100}
    local node=("cores=$cores" "sgemm_gflops=$gflops" "sgemm_small_gflops=$gflops" "memory_gb_per_s=300"
        "core_memory_gb_per_s=10" "network_latency_us=2" "read_gb_per_s=2")
    export OMP_NUM_THREADS=$((cores / per))
    printf '%-34s %9s %8s %10s %8s %8s %8s %8s %8s\n' "8 nodes, $per ranks each" mesh hours 'node hours' GiB/rank \
        passes reduce gather 'load+edit'
    for network in 1.2 12 25 50; do
        machine $out/machine.yaml "${node[@]}" "network_gb_per_s=$network"
        plan_row "network of $network GB/s a node" $((8 * per))
    done
    machine $out/machine.yaml "${node[@]}" "network_gb_per_s=25"
    for tokens in 512 1024 4096; do
        plan_row "batches of $tokens tokens" $((8 * per)) --set "batch_tokens=$tokens"
    done
    plan_row "rule gauss, 3 points" $((8 * per)) --set "riemann={rule: gauss, points: 3}"
    plan_row "rule auto" $((8 * per)) --set "riemann={rule: auto}"
    plan_row "300 samples" $((8 * per)) --set data.0.samples=300
    for factor in 0.5 2; do
        machine $out/machine.yaml "${node[@]}" "network_gb_per_s=25" \
            "sgemm_gflops=$(awk "BEGIN { print $gflops * $factor }")" "sgemm_small_gflops=$(awk "BEGIN { print $gflops * $factor }")"
        plan_row "products at $factor of that rate" $((8 * per))
    done
    machine $out/machine.yaml "${node[@]}" "network_gb_per_s=25"
    "$program" plan jobs/scaling/fig3-70b.yaml --machine $out/machine.yaml --ranks "$((4 * per))..$((256 * per))" \
        --ranks-per-node "$per" --plot $out/scaling.svg 2>/dev/null
    echo "plot: $out/scaling.svg"
}

for part in $parts; do
    "${part}_part"
done

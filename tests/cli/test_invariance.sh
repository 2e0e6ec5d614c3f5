#!/usr/bin/env bash
# seconds: 600
# The same study at 1, 2, 3, 4 and 7 ranks: files of elementwise edits are identical to the byte, in both
# formats and in each type; low rank when the ranks that share a matrix are pinned; losses and estimates
# agree in every mesh.
. "$(dirname "$0")/../support/tap.sh"
parallel=2 limit=120
$models plain "$tap_root/plain"
$models llama "$tap_root/llama" --dtype f32

elementwise='edits=[{name: dare, method: dare, p: 0.7, k: 0.25, seed: 3}, {name: l1, method: dare, p: 0.5, rescale: l1},
 {name: drop, method: drop, p: 0.5, seed: 4}, {name: prune, method: prune, keep: 0.3},
 {name: bit, method: bitdelta, tensors: all}, {name: row, method: bitdelta, granularity: row},
 {name: expo, method: expo, alpha: -0.3}, {name: della, method: della, p: 0.5, epsilon: 0.4, seed: 6},
 {name: both, method: [{method: prune, keep: 0.4}, {method: dare, p: 0.5}, {method: bitdelta}], seed: 5}]'
lowrank='edits=[{name: rank, method: lowrank, rank: 6, svd: exact}, {name: random, method: lowrank, rank: 6, svd: random},
 {name: after, method: [{method: prune, keep: 0.5}, {method: lowrank, sparsity: 0.8}]}]'
matrices='select={include: [big.weight, half.weight, single.weight]}'
cat >"$tap_root/plain.yaml" <<Y
models: {pre: $tap_root/plain/pre, post: $tap_root/plain/post}
edits: [{name: x, method: expo, alpha: 0}]
riemann: off
output: {directory: OUT, report: false}
Y

plain() { # plain RANKS FOLDER ARGUMENTS...
    run_at "$1" run "$tap_root/plain.yaml" --set output.directory="$tmp/$2" "${@:3}"
    expect_exit "$label: study at $1" 0
}

same_models() { # same_models A B: every model file of two studies is identical to the byte
    local a=$tmp/$1/models b=$tmp/$2/models
    [[ -n $(find "$a" -type f) ]] && diff -r "$a" "$b"
}

elementwise() { # elementwise FORMAT DTYPE RANKS...
    local label="elementwise, $1, $2" first=$3 ranks
    local common=(--set "$elementwise" --set output.checkpoint="$1" --set output.dtype="$2")
    plain "$first" "r$first" "${common[@]}"
    # The results name the job, hence the folder; they must have every edit.
    holds "$label: 9 models" test "$(ls "$tmp/r$first/models" | wc -l)" = 9
    for ranks in "${@:4}"; do
        # Memory that nobody set has other contents here: none of it may get into a file.
        MALLOC_PERTURB_=$((ranks * 11)) plain "$ranks" "r$ranks" "${common[@]}"
        holds "$label: same bytes at $first and $ranks" same_models "r$first" "r$ranks"
        rm -rf "$tmp/r$ranks"
    done
    local suffix=
    [[ $1 == hdf5 ]] && suffix=.h5
    [[ $2 != same ]] && holds "$label: every tensor has the type" \
        $compare dtypes "$tmp/r$first/models/both$suffix" "$2"
    run_at 1 verify "$tmp/r$first/models/both$suffix"
    expect_exit "$label: verify" 0
}
part elementwise hdf5 same 1 2 3 4 7
part elementwise safetensors same 1 2 3 4 7
part elementwise hdf5 f16 2 7
part elementwise safetensors bf16 1 4
part elementwise hdf5 f32 1 3
part elementwise safetensors f16 1 3
part elementwise hdf5 bf16 1 4
part elementwise safetensors f32 2 7

formats_agree() { # both formats hold the same tensors
    local label="formats"
    plain 2 h --set "$elementwise" --set output.checkpoint=hdf5
    plain 3 s --set "$elementwise" --set output.checkpoint=safetensors
    local edit
    for edit in dare prune row both; do
        holds "formats hold the same tensors: $edit" \
            $compare tensors "$tmp/h/models/$edit.h5" "$tmp/s/models/$edit"
    done
}
part formats_agree

pinned() { # one rank a matrix: the same bits
    local label="low rank, svd_group 1" ranks
    local common=(--set "$lowrank" --set "$matrices" --set output.checkpoint=hdf5 --set svd_group=1)
    plain 1 r1 "${common[@]}"
    for ranks in 2 3 4 7; do
        MALLOC_PERTURB_=$((ranks * 11)) plain "$ranks" "r$ranks" "${common[@]}"
        holds "$label: same bytes at 1 and $ranks" same_models r1 "r$ranks"
    done
}
part pinned

# Several ranks a matrix: the same to 1e-6 of the delta's norm, in fp32, though no gap follows the last value of these
# deltas.
shared() {
    local label="low rank, shared matrices" ranks edit
    local common=(--set "$lowrank" --set "$matrices" --set output.checkpoint=hdf5 --set output.dtype=f32)
    plain 1 r1 "${common[@]}"
    for ranks in 2 3 4; do
        plain "$ranks" "r$ranks" "${common[@]}" --set svd_group="$ranks"
        for edit in rank random after; do
            holds "$label: $edit at $ranks" $compare near "$tmp/r1/models/$edit.h5" \
                "$tmp/r$ranks/models/$edit.h5" "$tap_root/plain/pre" "$tap_root/plain/post" 1e-6
        done
    done
}
part shared

cat >"$tap_root/path.yaml" <<Y
models: {pre: $tap_root/llama/pre, post: $tap_root/llama/post}
data: [{name: task, file: $tap_root/llama/data.h5, loss: lm}, {name: again, file: $tap_root/llama/data.h5, loss: lm, samples: 8}]
edits: [{name: dare, method: dare, p: 0.5}, {name: expo, method: expo, alpha: 0.5},
  {name: twin, method: lowrank, rank: 3, svd: exact}]
riemann: {rule: simpson, points: 3}
svd_group: 1
output: {directory: OUT, report: false}
Y
paths() { # losses and estimates in every mesh
    local mesh
    run_at 1 run "$tap_root/path.yaml" --set output.directory="$tmp/one"
    expect_exit "path at 1" 0
    for mesh in 2:1 2:2 3:1 3:3 4:1 4:2 4:4 6:3 7:1; do
        run_at "${mesh%:*}" run "$tap_root/path.yaml" --set output.directory="$tmp/m" \
            --set tensor_parallel="${mesh#*:}"
        expect_exit "path at ${mesh%:*} ranks, ${mesh#*:} tensor-parallel" 0
        holds "path at ${mesh%:*} ranks, ${mesh#*:} tensor-parallel: same figures" \
            $compare results "$tmp/one/results.json" "$tmp/m/results.json" 1e-6
        rm -rf "$tmp/m"
    done
}
part paths
machines() { # the ranks taken for several machines, which gather weights: losses, estimates and gradients in a mesh
    local mesh ranks group each
    run_at 1 run "$tap_root/path.yaml" --set output.directory="$tmp/one"
    expect_exit "machines: path at 1" 0
    for mesh in 2:1:1 3:1:2 4:1:1 4:1:3 4:2:1 4:2:2 7:1:2; do
        IFS=: read -r ranks group each <<<"$mesh"
        DPT_MACHINE_RANKS=$each run_at "$ranks" run "$tap_root/path.yaml" --set tensor_parallel="$group" \
            --set output.directory="$tmp/m"
        expect_exit "path at $ranks ranks, $group tensor-parallel, $each a machine" 0
        holds "path at $ranks ranks, $group tensor-parallel, $each a machine: same figures" \
            $compare results "$tmp/one/results.json" "$tmp/m/results.json" 1e-6
        rm -rf "$tmp/m"
    done
}
part machines
gradients() { # edits that take the gradient, in every mesh
    local mesh edits
    edits='edits=[{name: bias, method: bias, by: gradient, k: 0.7}, {name: bit, method: bitdelta, calibrate: term},
 {name: twin, method: lowrank, rank: 3, svd: exact, calibrate: term, data: again},
 {name: both, calibrate: term, method: [{method: della, p: 0.4, epsilon: 0.2}, {method: prune, keep: 0.5}]}]'
    run_at 1 run "$tap_root/path.yaml" --set "$edits" --set output.directory="$tmp/one"
    expect_exit "gradient at 1" 0
    for mesh in 2:2 3:1 4:2 7:1; do
        # At 3 and 7 ranks also as if they were on machines of two.
        DPT_MACHINE_RANKS=$((${mesh%:*} % 2 * 2)) run_at "${mesh%:*}" run "$tap_root/path.yaml" --set "$edits" \
            --set output.directory="$tmp/m" --set tensor_parallel="${mesh#*:}"
        expect_exit "gradient at ${mesh%:*} ranks, ${mesh#*:} tensor-parallel" 0
        holds "gradient at ${mesh%:*} ranks, ${mesh#*:} tensor-parallel: same figures" \
            $compare results "$tmp/one/results.json" "$tmp/m/results.json" 1e-5
        rm -rf "$tmp/m"
    done
    run_at 2 run "$tap_root/path.yaml" --set "$edits" --set output.directory="$tmp/rule" \
        --set riemann.rule=gauss --set riemann.points=2
    expect_exit "gradient with a rule that does not start at 0" 0
    run_at 2 run "$tap_root/path.yaml" --set output.directory="$tmp/kept.d" \
        --set 'edits=[{name: none, method: prune, keep: 0, calibrate: term}]'
    expect_exit "calibration of an edit that keeps nothing" 0
    holds "what calibration could not do: warning" \
        grep -qE "warning: none: calibration leaves a term .* in ([0-9]+) of \1 tensors: plain scale.*\(\1\): " \
        "$tmp/err"
    holds "what calibration could not do: results" \
        grep -qE '"calibration_held": "plain scale, as the product with the gradient.* and [0-9]+ more"' \
        "$tmp/kept.d/results.json"
    holds "calibrated tensors are counted" \
        grep -qE '"calibrated": "[0-9]+ of [0-9]+ tensors"' "$tmp/one/results.json"
    run_at 1 plan "$tap_root/path.yaml" --set "$edits"
    expect_exit "plan of edits with a gradient" 0
    holds "plan counts the gradient in cells" grep -q "gradient in cells" "$tmp/out"
}
part gradients
done_testing

#!/usr/bin/env bash
# seconds: 600
# Edits without paths are made together: the bytes of their models and their numbers are those of each by itself, the pair is
# read once, and a study that is stopped, killed or fails in the middle of a group ends with the same.
. "$(dirname "$0")/../support/tap.sh"
parallel=3 limit=120
unset DELTAPATH_QUIET
$models plain "$tap_root/plain"

cat >"$tap_root/job.yaml" <<Y
models: {pre: $tap_root/plain/pre, post: $tap_root/plain/post}
edits: [{name: dare, method: dare, p: [0.5, 0.9], seed: [1, 2]}, {name: l1, method: dare, p: 0.5, rescale: l1},
  {name: prune, method: prune, keep: [0.3, 0.6]}, {name: bit, method: bitdelta, granularity: row},
  {name: twin, method: lowrank, rank: 4, svd: exact}, {name: della, method: della, p: 0.5, epsilon: 0.4, seed: 6},
  {name: both, method: [{method: prune, keep: 0.4}, {method: dare, p: 0.5}, {method: bitdelta}], seed: 5}]
select: {include: [big.weight, half.weight, single.weight]}
riemann: off
svd_group: 1
output: {directory: study, checkpoint: none, report: false}
Y
edits=11

# Every edit in a run of its own, then the results of all.
alone() { # alone FORMAT
    local e resume=
    for ((e = 0; e < edits; e++)); do
        study_at 1 --set output.checkpoint="$1" --only "$e/$edits" $resume
        expect_exit "$1: edit $e alone" 0
        resume=--resume
    done
    study_at 1 --set output.checkpoint="$1" --resume
    expect_exit "$1: results of all" 0
    holds "$1: none is made again" grep -q "all $edits edits were finished before" "$tmp/err"
    mv "$tmp/study" "$tap_root/$1"
}

same_study() { # same_study NAME FORMAT
    holds "$1: same numbers" $compare joined "$tap_root/$2/results.json" "$tmp/study/results.json"
    holds "$1: same table" diff <(cut -d, -f1-3 "$tap_root/$2/summary.csv") <(cut -d, -f1-3 "$tmp/study/summary.csv")
    if [[ $2 == none ]]; then
        holds "$1: no models" test ! -e "$tmp/study/models"
    else
        holds "$1: same models" diff -r "$tap_root/$2/models" "$tmp/study/models"
    fi
    holds "$1: nothing half written" test -z "$(find "$tmp/study" -name '*.partial*')"
}

together() { # together FORMAT RANKS
    MALLOC_PERTURB_=$((11 * $2)) study_at "$2" --set output.checkpoint="$1"
    expect_exit "$1 at $2" 0
    same_study "$1 at $2" "$1"
}

read_of() { # bytes that a study reads besides what it checks, in units of 100 KB
    study_at 2 --set output.directory=read --only "$1" --set output.overwrite=true
    sed -nE 's|.* read [0-9.]+ / ([0-9.]+) GB.*|\1|p' "$tmp/err" | tr -d .
}

read_once() {
    local four one
    one=$(read_of dare-p0.5-seed1) four=$(read_of 'dare*')
    [[ -n $one && $((10#$four)) -le $((10#$one + 8)) ]]
    ok "four masks read as much as one" $? "$four and $one"
}

few() { # as many at a time as the memory holds
    local some=(--only 'd*' --only bit) memory
    study_at 2 "${some[@]}"
    mv "$tmp/study" "$tmp/all"
    for memory in 34M 33M; do
        study_at 2 "${some[@]}" --memory "$memory"
        expect_exit "little memory, $memory" 0
        holds "little memory, $memory: same numbers" $compare joined "$tmp/all/results.json" "$tmp/study/results.json"
        rm -rf "$tmp/study"
    done
}

fewer() { # in a study that goes on, edits that need more follow each other
    local memory changed='edits=[{name: a, method: drop, p: [0.1, 0.2, 0.3]}, {name: h, method: della, p: 0.5, epsilon: 0.4, seeds: 8}]'
    for memory in 57M 58M; do
        study_at 2 --set "$changed" --memory "$memory" --only 'a*'
        expect_exit "little memory, $memory: some" 0
        study_at 2 --set "$changed" --memory "$memory" --resume
        expect_exit "little memory, $memory: the others" 0
        rm -rf "$tmp/study"
    done
}

stopped() { # stopped NAME FAULT RANKS FORMAT: by a signal, and goes on
    DPT_FAULT=$2:usr1 study_at "$3" --set output.checkpoint="$4"
    expect_error "stopped $1" 75 "stopped by a signal: [0-9]+ of $edits edits .*--resume"
    holds "stopped $1: nothing half written" test -z "$(find "$tmp/study" -name '*.partial*')"
    study_at "$3" --set output.checkpoint="$4" --resume
    expect_exit "stopped $1: resumed" 0
    same_study "stopped $1" "$4"
}

killed() { # killed NAME FAULT RANKS FORMAT FINISHED: SIGKILL, after so many edits are saved
    DPT_FAULT=$2:kill study_at "$3" --set output.checkpoint="$4"
    [[ $code -ne 0 && $code -ne 124 ]]
    ok "killed $1" $? "exit code $code"
    study_at "$3" --set output.checkpoint="$4" --resume
    expect_exit "killed $1: resumed" 0
    holds "killed $1: $5 were finished" test "$(grep -c ': finished before' "$tmp/err")" = "$5"
    same_study "killed $1" "$4"
}

failed() { # failed NAME FAULT RANKS FORMAT REGEX: an error: one line, nothing half written, and it can go on
    DPT_FAULT=$2 study_at "$3" --set output.checkpoint="$4"
    expect_error "failed $1" 4 "$5"
    holds "failed $1: nothing half written" test -z "$(find "$tmp/study" -name '*.partial*')"
    study_at "$3" --set output.checkpoint="$4" --resume
    expect_exit "failed $1: resumed" 0
    same_study "failed $1" "$4"
}

planned() { # planned NAME ARGUMENTS...: a plan has one read of four edits, and the group
    run_at 1 plan "$tap_root/job.yaml" "${@:2}" --json
    $python - "$tmp/out" "$tap_root/plain" <<'P'
import json, sys, pathlib
plan = json.load(open(sys.argv[1]))
pair = sum(f.stat().st_size for m in ("pre", "post") for f in (pathlib.Path(sys.argv[2]) / m).glob("*.safetensors"))
sys.exit(not (0.5 * pair < plan["read_gb"] * 1e9 < 1.4 * pair and plan["edits_together"] == 4))
P
    ok "the plan of four $1 reads the pair once" $? "$(tr '\n' ' ' <"$tmp/out" | cut -c 1-600)"
}

for format in none hdf5 safetensors; do part alone $format; done
wait
for ranks in 1 2 3 4; do for format in none hdf5 safetensors; do part together $format $ranks; done; done
part read_once
part few
part fewer
part stopped "in a group" edit.apply:0:5 2 safetensors
part stopped "in a group without models" edit.apply:last:5 3 none
part stopped "between models" store.finish:0:3 2 hdf5
part killed "in a group" edit.apply:0:5 2 hdf5 0
part killed "between models" store.finish:0:3 2 safetensors 2
part killed "in the second group" study.edit:0:9 3 hdf5 8
part failed "in a group" edit.apply:last:3 2 hdf5 "injected fault"
part failed "where a model ends" store.finish:last:4 2 safetensors "injected fault"
part failed "where the third model begins" store.create:0:3 2 safetensors "injected fault"
part planned masks --only 'dare*'
part planned DELLA --set 'edits=[{name: della, method: della, p: 0.5, epsilon: 0.4, seeds: 4}]'
done_testing

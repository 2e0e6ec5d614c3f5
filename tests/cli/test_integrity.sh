#!/usr/bin/env bash
# seconds: 600
# A finished edit and its model prove that they belong together; full disks leave nothing half written and end
# with code 4; damaged inputs are refused by run and convert; an input that changes while it is read ends the study.
. "$(dirname "$0")/../support/tap.sh"
parallel=2 limit=120
$models llama "$tap_root/m"
cat >"$tap_root/job.yaml" <<Y
models: {pre: $tap_root/m/pre, post: $tap_root/m/post}
data: [{name: task, file: $tap_root/m/data.h5, loss: lm}]
edits: [{name: dare, method: dare, p: 0.5}]
riemann: {rule: midpoint, points: 1}
output: {directory: study, checkpoint: hdf5, report: false}
Y

study() { # study RANKS ARGUMENTS...: in the folder $tmp
    ran="deltapath run $* (DPT_FAULT=${DPT_FAULT:-})"
    (cd "$tmp" && timeout --kill-after=5 "$limit" mpirun -q -n "$1" "$program" run "$tap_root/job.yaml" \
        "${@:2}" >"$tmp/out" 2>"$tmp/err" </dev/null)
    code=$?
}

verified() { # verified NAME: verify of the study finds nothing
    run_at 1 verify "$tmp/study"
    expect_exit "$1: verify" 0
    holds "$1: nothing half written" test -z "$(find "$tmp/study" -name '*.partial*')"
}

model_of() { [[ $1 == hdf5 ]] && echo "$tmp/study/models/dare.h5" || echo "$tmp/study/models/dare"; }

# The model of p = 0.6 is in place when the rank is killed; its unit is still that of p = 0.5. Whichever p
# the study goes on with, unit and model are of that one.
killed_between() { # killed_between FORMAT P: that of the last run
    local model
    model=$(model_of "$1")
    study 2 --set output.checkpoint="$1"
    expect_exit "$1, p=$2: first" 0
    cp -r "$model" "$tmp/first"
    DPT_FAULT=results.unit:0:1:kill study 2 --set output.checkpoint="$1" --set edits.0.p=0.6 --resume
    [[ $code -ne 0 && $code -ne 124 ]]
    ok "$1, p=$2: killed between model and unit" $? "exit code $code"
    holds "$1, p=$2: the model is that of the second run" bash -c "! cmp -s '$model' '$tmp/first' &&
        ! diff -rq '$model' '$tmp/first' >/dev/null"
    run_at 1 verify "$tmp/study"
    expect_error "$1, p=$2: verify tells that they do not belong together" 3 "models/dare"
    study 2 --set output.checkpoint="$1" --set edits.0.p="$2" --resume
    expect_exit "$1, p=$2: resumed" 0
    [[ $2 == 0.5 ]] && holds "$1, p=$2: the model is that of the first run" \
        $compare tensors "$model" "$tmp/first"
    verified "$1, p=$2"
    rm -rf "$tmp/study"
}

# A model in place that is cut off, or of another program, is not "finished".
not_finished() {
    study 1
    expect_exit "model in place: first" 0
    local model=$tmp/study/models/dare.h5
    cp "$model" "$tmp/whole"
    truncate -s -100 "$model"
    study 1 --resume
    holds "cut model: it is made again, or refused by name" bash -c "
        [[ $code == 0 ]] && cmp '$model' '$tmp/whole' || [[ $code == 4 ]] && grep -q models/dare.h5 '$tmp/err'"
    cp "$tmp/whole" "$model"
    verified "cut model"
    cp "$tap_root/m/data.h5" "$model"
    study 1 --resume
    [[ $code == 0 ]] && ok "a foreign file is no model of the study" 0 ||
        expect_error "a foreign file is no model of the study" 4 "models/dare.h5"
    cp "$tmp/whole" "$model"
    # A whole model of the right recipe and other bytes: not the one that the unit judges.
    local before
    before=$(stat -c %i "$model")
    study 1 --resume
    expect_exit "resume of a finished study" 0
    holds "resume of a finished study keeps the model" test "$before" = "$(stat -c %i "$model")"
}

part killed_between hdf5 0.5
part killed_between hdf5 0.6
part killed_between safetensors 0.5
part not_finished
done_testing

#!/usr/bin/env bash
# seconds: 600
# A study killed at any instant goes on with --resume and ends with the same results; a signal ends it
# with 75; finished studies are left alone; results of another job are not taken.
. "$(dirname "$0")/../support/tap.sh"
parallel=3 limit=90
$models llama "$tap_root/m"
cat >"$tap_root/job.yaml" <<Y
models: {pre: $tap_root/m/pre, post: $tap_root/m/post}
data: [{name: task, file: $tap_root/m/data.h5, loss: lm}, {name: more, file: $tap_root/m/data.h5, loss: lm, samples: 8}]
edits: [{name: dare, method: dare, p: 0.5}, {name: prune, method: prune, keep: 0.5},
  {name: twin, method: lowrank, rank: 3}, {name: expo, method: expo, alpha: [0.1, 0.2]}]
riemann: {rule: left, points: 3}
svd_group: 1
output: {directory: study, checkpoint: hdf5, report: false}
Y

same_study() { # same_study NAME [TOLERANCE]: results and models equal those of the undisturbed run
    holds "$1: same results" $compare results "$tap_root/whole/results.json" \
        "$tmp/study/results.json" "${2:-0}"
    holds "$1: same models" diff -r "$tap_root/whole/models" "$tmp/study/models"
    holds "$1: nothing half written" test -z "$(find "$tmp/study" -name '*.partial*')"
    holds "$1: a row for each unit" test "$(wc -l <"$tmp/study/summary.csv")" = 11
}

killed() { # killed FAULT RANKS
    DPT_FAULT=$1:kill study_at "$2"
    [[ $code -ne 0 && $code -ne 124 ]]
    ok "killed at $1" $? "exit code $code"
    holds "killed at $1: no results yet" test ! -e "$tmp/study/results.json"
    study_at "$2" --resume
    expect_exit "resumed after $1" 0
    if [[ $2 -eq 2 ]]; then same_study "resumed after $1"; else same_study "resumed after $1" 1e-6; fi
}

random_kill() { # random_kill SECONDS: SIGKILL to one rank, wherever the study is
    (cd "$tmp" && exec $DPT_MPIRUN -n 2 "$program" run "$tap_root/job.yaml" >out 2>err </dev/null) &
    local launcher=$!
    sleep "$1"
    local victim
    victim=$(pgrep -P "$launcher" | tail -n 1)
    [[ -n $victim ]] && kill -KILL "$victim" 2>/dev/null
    wait "$launcher"
    study_at 2 --resume
    expect_exit "resumed after SIGKILL at $1 s" 0
    same_study "resumed after SIGKILL at $1 s"
}

twice() { # killed again while it resumes
    DPT_FAULT=results.unit:0:2:kill study_at 2
    DPT_FAULT=results.rename:last:3:kill study_at 2 --resume
    DPT_FAULT=results.write:0:1:kill study_at 2 --resume
    study_at 2 --resume
    expect_exit "resumed after three kills" 0
    same_study "resumed after three kills"
}

signalled() {
    DPT_FAULT=results.unit:last:3:usr1 study_at 2
    expect_error "SIGUSR1 on one rank" 75 "--resume"
    study_at 2 --resume
    expect_exit "resumed after SIGUSR1" 0
    same_study "resumed after SIGUSR1"
}

signalled_launcher() { # mpirun forwards the signal
    local edits='edits=[{name: e, method: expo, alpha: [0.01'
    edits+=$(printf ',0.%02d' $(seq 2 90))
    edits+=']}]'
    (cd "$tmp" && exec $DPT_MPIRUN -n 2 "$program" run "$tap_root/job.yaml" --set "$edits" >out 2>err \
        </dev/null) &
    local launcher=$! waited=0
    until [[ -e $(echo "$tmp"/study/units/e-alpha0.01@task.h5) || waited -gt 600 ]]; do
        sleep 0.05
        waited=$((waited + 1))
    done
    kill -USR1 "$launcher"
    wait "$launcher"
    code=$? ran="SIGUSR1 to mpirun"
    expect_exit "SIGUSR1 to mpirun" 75
    study_at 2 --set "$edits" --resume
    expect_exit "SIGUSR1 to mpirun: resumed" 0
    holds "SIGUSR1 to mpirun: all units" test "$(wc -l <"$tmp/study/summary.csv")" = 181
}

prints() { (cd "$tmp/study" && find . -type f ! -name 'results.*' ! -name summary.csv ! -name manifest.json \
    -print0 | sort -z |
    xargs -0 stat -c '%n %Y %i'); }

finished() {
    cp -r "$tap_root/whole" "$tmp/study"
    study_at 2
    expect_error "a finished study is not begun again" 4 "study: .*--resume"
    local before
    before=$(prints)
    study_at 2 --resume
    expect_exit "resume of a finished study" 0
    holds "resume of a finished study touches no unit and no model" test "$before" = "$(prints)"
    same_study "resume of a finished study"
    # Files that the study did not make stay.
    echo mine >"$tmp/study/notes.txt"
    study_at 2 --set output.overwrite=true
    expect_exit "overwrite" 0
    holds "overwrite keeps other files" grep -qx mine "$tmp/study/notes.txt"
    holds "overwrite" $compare results "$tap_root/whole/results.json" "$tmp/study/results.json" 1e-6
}

# Two runs never work in one directory.
apart() {
    cp -r "$tap_root/whole" "$tmp/study"
    flock -F "$tmp/study" sleep 600 &
    local other=$! tries=0
    # The other run ends when this one says that it waits.
    (until grep -qs "study: another run is in it" "$tmp/err" || [[ tries -gt 300 ]]; do
        sleep 0.2
        tries=$((tries + 1))
    done
    kill "$other") &
    study_at 2 --resume
    expect_exit "a run waits for another one" 0
    holds "a run says that it waits" grep -q "study: another run is in it" "$tmp/err"
    same_study "after another run"
    flock -F "$tmp/study" sleep 600 &
    other=$!
    sleep 1
    study_at 2 --resume
    expect_error "a run does not wait for ever" 4 "study: another run is working in it"
    kill "$other"
    same_study "next to another run"
}

# What is changed is made again, what is not is kept.
changed() { # changed NAME EDITS-MADE-AGAIN ARGUMENTS...
    cp -r "$tap_root/whole" "$tmp/study"
    touch -d 2001-01-01 "$tmp"/study/units/*
    study_at 2 --resume "${@:3}"
    expect_exit "changed $1: resume" 0
    holds "changed $1: $2 edits are made again" \
        test "$(find "$tmp/study/units" -name '*@task.h5' -newermt 2002-01-01 | wc -l)" = "$2"
    mv "$tmp/study" "$tmp/resumed"
    study_at 2 "${@:3}"
    expect_exit "changed $1: fresh" 0
    holds "changed $1: same results as a fresh study" \
        $compare results "$tmp/study/results.json" "$tmp/resumed/results.json"
    local model # kept ones name the job that made them
    for model in "$tmp"/study/models/*; do
        holds "changed $1: same models as a fresh study" \
            $compare tensors "$model" "$tmp/resumed/models/${model##*/}"
    done
}

changed_weights() { # the same names and shapes, trained anew
    cp -r "$tap_root/whole" "$tmp/study"
    cp -r "$tap_root/m/post" "$tmp/post"
    touch -d 2001-01-01 "$tmp"/study/units/*
    $python - "$tmp/post/model.safetensors" <<'P'
import sys
raw = bytearray(open(sys.argv[1], "rb").read())
for at in range(len(raw) - 2000, len(raw), 2): # low bytes of bf16 values
    raw[at] ^= 1
open(sys.argv[1], "wb").write(raw)
P
    study_at 2 --resume --set models.post="$tmp/post"
    expect_exit "changed weights: resume" 0
    holds "changed weights: all edits are made again" \
        test "$(find "$tmp/study/units" -name '*@task.h5' -newermt 2002-01-01 | wc -l)" = 5
}

damaged() { # a unit that was cut off, or whose bytes a crash of the system made zeros, is made again
    local size
    cp -r "$tap_root/whole" "$tmp/study"
    truncate -s 700 "$tmp/study/units/prune@task.h5"
    size=$(stat -c %s "$tmp/study/units/prune@more.h5")
    truncate -s 0 "$tmp/study/units/prune@more.h5" && truncate -s "$size" "$tmp/study/units/prune@more.h5"
    rm "$tmp/study/units/dare@more.h5" "$tmp/study/models/twin.h5" "$tmp/study/results.h5"
    study_at 2 --resume
    expect_exit "damaged units" 0
    same_study "damaged units"
    truncate -s 0 "$tmp/study/units/prune@more.h5" && truncate -s "$size" "$tmp/study/units/prune@more.h5"
    printf x | dd of="$tmp/study/units/prune@more.h5" bs=1 seek=$((size - 9)) conv=notrunc 2>/dev/null
    study_at 1 --resume
    expect_error "a file that is not all zeros is no damaged unit" 4 "prune@more.h5: is no unit"
}

tmp=$tap_root/first && mkdir "$tmp"
study_at 2
expect_exit "undisturbed study" 0
mv "$tmp/study" "$tap_root/whole"
tmp=$tap_root
for fault in store.create:0:1 store.write:last:1 store.finish:0:2 study.edit:0:3 edit.apply:last:4 \
    loss.evaluate:0:9 results.unit:last:4 results.rename:0:5 results.write:0:1 results.write:last:1; do
    part killed "$fault" 2
done
part killed study.edit:last:4 3
for seconds in 0.7 1.1 1.6 2.2; do part random_kill "$seconds"; done
part twice
part signalled
part signalled_launcher
part finished
part apart
part changed points 5 --set riemann.points=4
part changed p 1 --set edits.0.p=0.6
part changed seed 1 --set edits.0.seed=7
part changed type 5 --set output.dtype=f32
part changed margin 5 --set 'margin={share: 0.2}'
part changed_weights
part damaged
kept_models() { # the weights of a finished model are not read, and the run says so
    study_at 2
    unset DELTAPATH_QUIET
    study_at 2 --resume
    expect_exit "finished models" 0
    holds "finished models: verify is named" \
        test "$(grep -c 'weights of 5 edited models .*deltapath verify study' "$tmp/err")" = 1
    local only edits
    for only in "" "--only dare" "--only 0/2"; do
        study_at 2 --resume $only
        expect_exit "nothing is left to do, '$only'" 0
        edits=$([[ -z $only ]] && echo 5 || ([[ $only = *dare ]] && echo 1 || echo 3))
        holds "nothing is left to do, '$only': it is said, and the table is printed" \
            test "$(grep -c "study: all $edits edits were finished before" "$tmp/err")/$(grep -cE '^(dare|prune|twin|expo)' "$tmp/out")" = 1/$((2 * edits))
    done
    study_at 2 --set output.overwrite=true
    holds "models that are made: nothing is said" test "$(grep -c 'deltapath verify' "$tmp/err")" = 0
}
part kept_models
newer_models() { # a fingerprint looks at samples: that a model is the same is not taken without a word
    cp -r "$tap_root/m" "$tmp/m"
    run_at 2 convert "$tmp/m/post" "$tmp/m/post.h5"
    local format at
    for format in post post.h5; do
        at="models={pre: $tmp/m/pre, post: $tmp/m/$format}"
        study_at 2 --set "$at"
        expect_exit "$format: a study" 0
        study_at 2 --set "$at" --resume
        expect_exit "$format: older than the study" 0
        holds "$format: older than the study: nothing is said" test "$(grep -c 'warning: .*--resume keeps' "$tmp/err")" = 0
        find "$tmp/m/$format" -type f -exec chmod o-r {} + # changes the time of the inode alone
        study_at 2 --set "$at" --resume
        expect_exit "$format: newer than the study" 0
        holds "$format: newer than the study: one warning, and none where every tensor has a hash" \
            test "$(grep -c "warning: $tmp/m/post: was changed, copied or moved after" "$tmp/err")/$(grep -c keeps "$tmp/err")" = \
            "$([[ $format = post ]] && echo 1/1 || echo 0/0)"
        rm -rf "$tmp/study"
    done
}
part newer_models
changed_companions() { # tokenizer and generation files of the post-trained model go into each edited model
    cp -r "$tap_root/m" "$tmp/m"
    echo '{}' >"$tmp/m/post/generation_config.json"
    cp -r "$tmp/m/post" "$tmp/kept"
    local at="models={pre: $tmp/m/pre, post: $tmp/m/post}" format name
    for format in safetensors hdf5; do
        study_at 2 --set "$at" --set output.checkpoint=$format --only dare
        expect_exit "$format: a study" 0
        for name in none generation_config.json LICENSE; do
            [[ $name = none ]] || echo '[]' >"$tmp/m/post/$name"
            study_at 2 --set "$at" --set output.checkpoint=$format --resume
            expect_exit "$format, $name changed: resumed" 0
            holds "$format, $name changed: it is said of each model that has another one" \
                test "$(grep -c "warning: .*m/post: .* changed since" "$tmp/err")$(grep -c "m/post: $name changed since: [15] finished models in study/models" "$tmp/err")" = \
                "$([[ $name = none ]] && echo 00 || echo 11)"
            rm -rf "$tmp/m/post"
            cp -r "$tmp/kept" "$tmp/m/post"
        done
        rm -rf "$tmp/study"
    done
}
part changed_companions
rewritten() { # a value outside of the samples, in a model without hashes
    $models plain "$tmp/m" && cp -r "$tmp/m" "$tmp/was"
    local side ranks set="models={pre: $tmp/m/pre, post: $tmp/m/post}"
    plain() { study_at "$1" --set "$set" --set data=[] --set riemann=off --set output.checkpoint=hdf5 "${@:2}"; }
    rewrite() { # the same bytes but for one
        $python - "$1/model.safetensors" <<'P'
import sys
sys.path.insert(0, "tests/support")
from compare import read_model
raw = bytearray(open(sys.argv[1], "rb").read())
values = read_model(sys.argv[1])["big.weight"][1].tobytes()
raw[raw.index(values) + len(values) // 8 * 3] ^= 1
open(sys.argv[1], "wb").write(raw)
P
    }
    local two='edits=[{name: dare, method: dare, p: 0.5}, {name: prune, method: prune, keep: 0.5}]'
    local one='edits=[{name: dare, method: dare, p: 0.5}]'
    for ranks in 1 3; do
        plain 2 --set "$one"
        expect_exit "plain: one edit" 0
        for side in pre post; do
            rewrite "$tmp/m/$side"
            plain $ranks --set "$two" --resume
            expect_error "$side rewritten, at $ranks" 3 "m/$side: is not the model of the results .*output.overwrite"
            plain $ranks --set "$one" --resume
            holds "$side rewritten, all finished, at $ranks: a warning" \
                test "$code/$(grep -c "warning: .*m/$side: was changed.*--verify-inputs" "$tmp/err")" = 0/1
            plain $ranks --set "$one" --resume --verify-inputs
            expect_error "$side rewritten, all finished, at $ranks: read whole" 3 "m/$side: is not the model of the results"
            cp "$tmp/was/$side/model.safetensors" "$tmp/m/$side/"
        done
        plain $ranks --set "$one" --resume --verify-inputs
        expect_exit "as it was, at $ranks" 0
        holds "as it was, at $ranks: nothing is said" test "$(grep -c 'warning: .*--resume' "$tmp/err")" = 0
        plain $ranks --set "$two" --resume
        expect_exit "as it was, at $ranks: another edit" 0
        rm -rf "$tmp/study"
    done
}
part rewritten
done_testing

#!/usr/bin/env bash
# seconds: 600
# A study that is stopped in the middle of a pass over its data, by a signal, by --max-time or by SIGKILL,
# goes on there with --resume, does nothing again, and ends with the same bits.
. "$(dirname "$0")/../support/tap.sh"
parallel=3 limit=90
unset DELTAPATH_QUIET
$models llama "$tap_root/m" --samples 12
# 40 samples of one length are 40 batches; each rank calls loss.batch between two of them.
$python - "$tap_root/m/even.h5" <<'P'
import sys
import h5py, numpy as np
with h5py.File(sys.argv[1], "w") as file:
    file["tokens"] = np.random.default_rng(8).integers(0, 30, 40 * 12).astype(np.int32)
    file["loss_mask"] = np.ones(40 * 12, np.uint8)
    file["offsets"] = np.arange(41, dtype=np.int64) * 12
P
cat >"$tap_root/job.yaml" <<Y
models: {pre: $tap_root/m/pre, post: $tap_root/m/post}
data: [{name: task, file: $tap_root/m/even.h5, loss: lm}]
edits: [{name: bias, method: bias, by: gradient, k: 0.5}, {name: expo, method: expo, alpha: auto}]
riemann: {rule: left, points: 3}
batch_tokens: 12
tensor_parallel: 1
output: {directory: study, checkpoint: hdf5, report: false}
Y
pairs="data=[{name: pairs, file: $tap_root/m/pairs.h5, loss: dpo, reference: $tap_root/m/pre}]"
matrices='edits=[{name: twin, method: lowrank, rank: 3}]'

same_study() { # same_study NAME WHOLE [TOLERANCE]
    holds "$1: same results" $compare results "$tap_root/$2/results.json" \
        "$tmp/study/results.json" "${3:-0}"
    holds "$1: same models" diff -r "$tap_root/$2/models" "$tmp/study/models"
    holds "$1: nothing is left of the passes" test ! -e "$tmp/study/progress"
}

calls() { # calls WHOLE SAMPLES: how often a rank with so many samples calls loss.batch in that study
    local searched
    searched=$(grep -oE 'gradients=[0-9]+' "$tap_root/$1/summary.csv" | head -n 1 | cut -d= -f2)
    # both ends; two nodes and t = 1 of each edit
    echo $((($2 - 1) * (2 + 2 * 3 + searched)))
}

# Stopped at call K of the first or last rank, which then has to make only the calls that are left. Another
# one would fail: DPT_FAULT counts them.
stopped() { # stopped NAME WHOLE RANKS RANK SAMPLES K ARGUMENTS...
    local name="$1" whole=$2 ranks=$3 rank=$4 samples=$5 k=$6 taken
    shift 6
    DPT_FAULT=loss.batch:$rank:$k:usr1 study_at "$ranks" "$@"
    expect_error "$name" 75 "stopped by a signal: [01] of 2 edits .*--resume"
    holds "$name: no results yet" test ! -e "$tmp/study/results.json"
    DPT_FAULT=loss.batch:$rank:$(($(calls "$whole" "$samples") - k + 1)) study_at "$ranks" "$@" --resume
    expect_exit "$name: resumed, and no batch is done again" 0
    taken=$(grep -E ' samples are those of the earlier run' "$tmp/err" | tail -n 1 |
        sed -E 's/.*: ([0-9]+) of 40 .*/\1/')
    [[ ${taken:-0} -gt 0 && ${taken:-0} -lt 40 ]]
    ok "$name: in the middle of a pass" $? "taken: ${taken:-nothing}"
    same_study "$name" "$whole"
}

preferences() { # preferences NAME K: in the measuring by the reference, and in passes of this loss
    DPT_FAULT=loss.batch:1:$2:usr1 study_at 2 --set "$pairs"
    expect_error "preferences, $1" 75 "--resume"
    study_at 2 --set "$pairs" --resume
    expect_exit "preferences, $1: resumed" 0
    holds "preferences, $1: the state is taken" grep -qE ' ([1-9]|1[01]) of 12 samples are those' "$tmp/err"
    same_study "preferences, $1" pairs
}

making() { # making POINT WHOLE ARGUMENTS...: while an edit is made, which begins again
    DPT_FAULT=$1:usr1 study_at 2 "${@:3}"
    expect_error "stopped at $1" 75 "stopped by a signal: [01] of [12] edits .*--resume"
    holds "stopped at $1: nothing half written" test -z "$(find "$tmp/study" -name '*.partial*')"
    study_at 2 "${@:3}" --resume
    expect_exit "stopped at $1: resumed" 0
    same_study "stopped at $1" "$2"
}

# A time that is over at once stops after one batch in each pass that is begun: seven passes of four batches
# are done in not more than 28 runs.
limited() {
    local set=(--set batch_tokens=60 --set 'edits=[{name: dare, method: dare, p: 0.5}]'
        --set riemann.points=5) runs=0
    study_at 2 "${set[@]}"
    mv "$tmp/study" "$tap_root/limited"
    study_at 2 "${set[@]}" --max-time 0.01
    expect_error "--max-time" 75 "stopped by the time limit: 0 of 1 edits .*--resume"
    while [[ $code -eq 75 && runs -lt 28 ]]; do
        study_at 2 "${set[@]}" --max-time 0.01 --resume
        runs=$((runs + 1))
    done
    expect_exit "--max-time over and over ends" 0
    holds "--max-time: it took some runs" test "$runs" -gt 5
    same_study "--max-time over and over" limited
    study_at 2 --max-time 10x
    expect_error "--max-time 10x" 2 "--max-time 10x: write a time"
}

killed() { # killed NAME RANKS SAMPLES K ARGUMENTS...: SIGKILL loses what was not saved: here one batch
    local name=$1 ranks=$2 samples=$3 k=$4 whole=$5
    shift 5
    DELTAPATH_SAVE_SECONDS=0 DPT_FAULT=loss.batch:last:$k:kill study_at "$ranks" "$@"
    [[ $code -ne 0 && $code -ne 124 && -e $tmp/study/progress ]]
    ok "$name" $? "exit code $code"
    DPT_FAULT=loss.batch:last:$(($(calls "$whole" "$samples") - k + 3)) study_at "$ranks" "$@" --resume
    expect_exit "$name: resumed, and at most two batches are done again" 0
    same_study "$name" "$whole"
}

flip() { # flip FILE: one bit in its middle
    $python - "$1" <<'P'
import sys
raw = bytearray(open(sys.argv[1], "rb").read())
raw[len(raw) // 2] ^= 4
open(sys.argv[1], "wb").write(raw)
P
}

damaged() { # what was kept is damaged in every file: a warning, and it is computed again
    local file
    DPT_FAULT=loss.batch:0:50:usr1 study_at 2
    for file in "$tmp"/study/progress/*; do flip "$file"; done
    study_at 2 --resume
    expect_exit "damaged passes" 0
    holds "damaged passes: one warning" test "$(grep -c 'warning: .*is damaged' "$tmp/err")" = 1
    holds "damaged passes: none is taken" test -z "$(grep 'of the earlier run' "$tmp/err")"
    same_study "damaged passes" whole
    rm -rf "$tmp/study"
    DPT_FAULT=loss.batch:0:50:usr1 study_at 2
    for file in "$tmp"/study/progress/*; do truncate -s -9 "$file"; done
    study_at 2 --resume
    expect_exit "passes that were cut off" 0
    same_study "passes that were cut off" whole
}

# Ranks taken for several machines: who stops ends the passes of all, for they gather the weights together.
gathered() { # gathered RANK K
    export DPT_MACHINE_RANKS=1
    DPT_FAULT=loss.batch:$1:$2:usr1 study_at 2
    expect_error "stopped while weights are gathered, rank $1" 75 "stopped by a signal: [01] of 2 edits .*--resume"
    study_at 2 --resume
    expect_exit "stopped while weights are gathered, rank $1: resumed" 0
    holds "stopped while weights are gathered, rank $1: the state is taken" \
        grep -qE ' samples are those of the earlier run' "$tmp/err"
    same_study "stopped while weights are gathered, rank $1" apart
    unset DPT_MACHINE_RANKS
}

other_ranks() {
    DPT_FAULT=loss.batch:0:50:usr1 study_at 2
    study_at 3 --resume
    expect_exit "another number of ranks" 0
    holds "another number of ranks is said" grep -q "files are of another number of ranks" "$tmp/err"
    holds "another number of ranks: none is taken" test -z "$(grep 'of the earlier run' "$tmp/err")"
    holds "another number of ranks: same results" $compare results "$tap_root/whole/results.json" \
        "$tmp/study/results.json" 1e-4
}

# mpirun kills its ranks soon after SIGINT and ends with 1: nothing is lost but the code.
interrupted() {
    (cd "$tmp" && exec setsid $DPT_MPIRUN -n 2 "$program" run "$tap_root/job.yaml" >out 2>err </dev/null) &
    local launcher=$! waited=0
    until compgen -G "$tmp/study/progress/*" >/dev/null || [[ waited -gt 600 ]]; do
        sleep 0.02
        waited=$((waited + 1))
    done
    kill -INT "$launcher"
    wait "$launcher"
    study_at 2 --resume
    expect_exit "SIGINT to mpirun: resumed" 0
    same_study "SIGINT to mpirun" whole
}

# The signal is there before the program is.
early() { # early SIGNAL
    start_stopped "$1"
    expect_error "$1 before the start" 75 "stopped by a signal: 0 of 2 edits .*--resume"
    study_at 2 --resume
    expect_exit "$1 before the start: resumed" 0
    same_study "$1 before the start" whole
    start_stopped "$1" --resume
    expect_error "$1 before finished edits are counted" 75 "stopped by a signal: what is finished is saved .*--resume"
}
start_stopped() { # start_stopped SIGNAL ARGUMENTS...
    (cd "$tmp" && exec $python -c 'import os, signal, sys
number = getattr(signal, sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, {number})
os.kill(os.getpid(), number)
os.execv(sys.argv[2], sys.argv[2:])' "$1" "$program" run "$tap_root/job.yaml" "${@:2}" >out 2>err </dev/null)
    code=$? ran="$* before the start"
}

# Rank 0 waits for another run, the others for rank 0: the stop does not wait.
while_waiting() {
    mkdir "$tmp/study"
    flock -F "$tmp/study" sleep 600 &
    local other=$!
    sleep 0.3
    (cd "$tmp" && exec $DPT_MPIRUN -n 2 "$program" run "$tap_root/job.yaml" >out 2>err </dev/null) &
    local launcher=$! waited=0
    until grep -q "another run is in it" "$tmp/err" 2>/dev/null || [[ waited -gt 300 ]]; do
        sleep 0.05
        waited=$((waited + 1))
    done
    local began=$SECONDS
    kill -USR1 "$launcher"
    wait "$launcher"
    code=$? ran="SIGUSR1 while it waits"
    expect_error "SIGUSR1 while it waits for another run" 75 "stopped by a signal: 0 of 2 edits"
    holds "SIGUSR1 while it waits: at once" test $((SECONDS - began)) -lt 15
    kill "$other"
}

whole() { # whole NAME RANKS ARGUMENTS...: an undisturbed study
    study_at "${@:2}"
    expect_exit "undisturbed study, $1" 0
    holds "undisturbed study, $1: nothing is left of the passes" test ! -e "$tmp/study/progress"
    mv "$tmp/study" "$tap_root/$1"
}
part whole whole 2
part whole pairs 2 --set "$pairs"
part whole matrices 2 --set "$matrices"
part whole group 2 --set tensor_parallel=2
part whole mesh 4 --set tensor_parallel=2
part whole four 4
DPT_MACHINE_RANKS=1 part whole apart 2
wait

# 20 samples of each of two replicas: 19 calls a pass.
part stopped "in the gradient at W_post" whole 2 1 20 7
part stopped "in the losses at W_pre" whole 2 0 20 25
part stopped "at the first node of an edit" whole 2 1 20 45
part stopped "at t = 1" whole 2 0 20 90
part stopped "in the search for alpha" whole 2 1 20 120
part stopped "in the search for alpha, later" whole 2 0 20 150
part stopped "in the group, the gradient" group 2 1 40 11 --set tensor_parallel=2
part stopped "in the group, a node" group 2 0 40 100 --set tensor_parallel=2
part stopped "in the group, the search" group 2 1 40 230 --set tensor_parallel=2
part stopped "in the mesh, the gradient" mesh 4 3 20 9 --set tensor_parallel=2
part stopped "in the mesh, a node" mesh 4 0 20 50 --set tensor_parallel=2
part stopped "at four ranks" four 4 2 10 22
part preferences "the reference" 3
part preferences "the gradient" 8
part preferences "a node" 20
part making edit.apply:1:9 whole
part making edit.lowrank:0:1 matrices --set "$matrices"
part limited
part killed "SIGKILL in the gradient" 2 20 12 whole
part killed "SIGKILL at a node" 2 20 60 whole
part killed "SIGKILL in the group" 2 40 90 group --set tensor_parallel=2
part damaged
part gathered last 50
part gathered 0 75
part other_ranks
part interrupted
part early SIGUSR1
part early SIGTERM
part while_waiting
done_testing

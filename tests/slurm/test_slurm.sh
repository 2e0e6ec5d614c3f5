#!/usr/bin/env bash
# seconds: 1800
# The scripts of slurm/ under a real Slurm of two nodes on this host: the same results as by mpirun; a time
# limit inside an edit, and a signal, put a job back into the queue, where it goes on under its own id; an
# array and its join; a cancelled job ends and can be gone on with. With DELTAPATH_LONG=1 also what takes
# minutes: a lost node, preemption, a program that hangs at its limit, and a study that does not get on.
. "$(dirname "$0")/../support/tap.sh"
. tests/slurm/cluster.sh
limit=300
# Two nodes of one host share no memory here: messages go through the loopback device.
export OMPI_MCA_btl=self,tcp OMPI_MCA_pml=ob1 OMPI_MCA_btl_tcp_if_include=lo
export DELTAPATH=$program DELTAPATH_LOGS=$tap_root
unset DELTAPATH_QUIET

submit() { # submit NAME ARGUMENTS...: of sbatch, the script and its words; the id of the job
    sbatch --parsable --nodes=2 --ntasks-per-node=1 --time=00:10:00 --output="$tap_root/$1.log" "${@:2}"
}

ended() { # ended NAME STATE WANTED LOG: a line that says whether a job ended as it should
    cp "$4" "$tmp/err"
    [[ $2 == "$3" ]]
    ok "$1" $? "$2, not $3"
}

same_results() { $compare results "$1/results.json" "$2/results.json" 1e-5; } # second orders are differences of fp32 slopes

wait_for() { # wait_for SECONDS COMMAND...: until it succeeds
    local waited seconds=$1
    shift
    for ((waited = 0; waited < seconds * 5; waited++)); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.2
    done
    return 1
}

restarted() { cluster_job "$1" | grep -qE 'Restarts=[1-9]'; }

plain() {
    local id
    id=$(submit plain slurm/deltapath.sbatch "$tap_root/job.yaml" --set output.directory="$tap_root/plain")
    run_at 2 run "$tap_root/job.yaml" --set output.directory="$tap_root/mpirun"
    expect_exit "study by mpirun" 0
    ended "study by sbatch on two nodes" "$(cluster_await "$id" 120)" COMPLETED "$tap_root/plain.log"
    holds "both nodes took part" grep -q 'NodeList=n\[1-2\]' <(cluster_job "$id")
    holds "same results as by mpirun" same_results "$tap_root/mpirun" "$tap_root/plain"
    holds "same models as by mpirun" diff -r "$tap_root/mpirun/models" "$tap_root/plain/models"
}

# One edit, longer than the limit of its job: nothing of it is finished when the time is up.
time_limit_starts() {
    limit_id=$(DELTAPATH_CONTAINER="tests/slurm/slow.sh $tap_root/limit/progress" \
        DELTAPATH_STOP_BEFORE=12 DELTAPATH_REQUEUE_BEFORE=4 \
        submit limit --time=1 --signal=B:USR1@10 slurm/deltapath.sbatch "$tap_root/long.yaml" \
        --set output.directory="$tap_root/limit")
}

time_limit_ends() {
    run_at 2 run "$tap_root/long.yaml" --set output.directory="$tap_root/long"
    expect_exit "the long edit by mpirun" 0
    wait_for 120 restarted "$limit_id"
    ok "a job that meets its time limit inside an edit is put back into the queue" $?
    holds "nothing was finished then" grep -q '0 of 1 edits are finished' "$tap_root/limit.log"
    ended "it goes on under its own id and ends" "$(cluster_await "$limit_id" 200)" COMPLETED "$tap_root/limit.log"
    holds "it said so" grep -q "interrupted; requeueing job $limit_id" "$tap_root/limit.log"
    holds "it found work that was saved inside the edit" test -s "$tap_root/kept"
    holds "same results as without a limit" same_results "$tap_root/long" "$tap_root/limit"
}

signalled() {
    local edits id
    edits="edits=[{name: e, method: expo, alpha: [0.01$(printf ',0.%02d' $(seq 2 12))]}]"
    id=$(submit queue slurm/deltapath.sbatch "$tap_root/job.yaml" --set output.directory="$tap_root/queue" \
        --set "$edits" --set output.checkpoint=none)
    wait_for 60 test -e "$tap_root/queue/units/e-alpha0.03@task.h5"
    scancel --signal=USR1 "$id"
    wait_for 60 restarted "$id"
    ok "a signalled job is put back into the queue" $?
    ended "it goes on there" "$(cluster_await "$id" 120)" COMPLETED "$tap_root/queue.log"
    holds "it had stopped by the signal" grep -q 'stopped by a signal' "$tap_root/queue.log"
    holds "finished edits were not done again" grep -q 'e-alpha0.03: finished before' "$tap_root/queue.log"
}

cancelled() {
    local id
    id=$(submit cancel slurm/deltapath.sbatch "$tap_root/long.yaml" --set output.directory="$tap_root/cancel")
    wait_for 60 compgen -G "$tap_root/cancel/progress/*"
    scancel "$id"
    ended "a cancelled job ends" "$(cluster_await "$id" 60)" CANCELLED "$tap_root/cancel.log"
    wait_for 20 test -z "$(squeue -h -j "$id")"
    ok "it is not put back into the queue" "$(cluster_job "$id" | grep -c 'Restarts=[1-9]')"
    run_at 2 run "$tap_root/long.yaml" --set output.directory="$tap_root/cancel" --resume
    expect_exit "its study is gone on with" 0
    holds "same results as an undisturbed one" same_results "$tap_root/long" "$tap_root/cancel"
}

array() {
    local said join
    said=$(DELTAPATH_SBATCH="--nodes=1 --ntasks-per-node=1 --time=5" \
        slurm/deltapath-array.sh 3 "$tap_root/job.yaml" "$tap_root/array" --set output.checkpoint=none)
    join=$(grep -o 'join [0-9]*' <<<"$said" | tr -dc 0-9)
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tap_root/one" --set output.checkpoint=none
    ended "an array and its join" "$(cluster_await "$join" 120)" COMPLETED "$tap_root/deltapath-join-$join.log"
    holds "the program alone writes to the folder" test "$(ls "$tap_root/array" | tr '\n' ' ')" = "all part-0 part-1 part-2 "
    slurm/deltapath-array.sh 3 "$tap_root/job.yaml" "$tap_root/array" 2>"$tap_root/array.err"
    [[ $? -eq 4 ]] && grep -q "array/all: is there already" "$tap_root/array.err"
    ok "an array over another one's results is refused" $?
    holds "the joined results are those of one run" $compare joined "$tap_root/one/results.json" \
        "$tap_root/array/all/results.json"
}

# A folder that is no place for outputs is refused by the program before anything is in it.
array_in_a_model() {
    local said task
    cp -r share/demo/llama-pre "$tap_root/model"
    said=$(DELTAPATH_SBATCH="--nodes=1 --ntasks-per-node=1 --time=5" slurm/deltapath-array.sh 1 "$tap_root/job.yaml" \
        "$tap_root/model" --set models.pre="$tap_root/model")
    task=$(grep -o 'array [0-9]*' <<<"$said" | tr -dc 0-9)
    ended "an array into an input fails" "$(cluster_await "$task" 60)" FAILED "$tap_root/deltapath-${task}_0.log"
    holds "it says why" grep -q "model.*input" "$tap_root/deltapath-${task}_0.log"
    holds "the input is as it was" diff -r share/demo/llama-pre "$tap_root/model"
    slurm/deltapath-chain.sh "$tap_root/model" share/demo/llama-post "$tap_root/job.yaml" "$tap_root/model/new" \
        2>"$tap_root/chain.err"
    [[ $? -eq 4 ]] && grep -q "which is never written to" "$tap_root/chain.err"
    ok "a chain into an input is refused" $?
    holds "the input is as it was then" diff -r share/demo/llama-pre "$tap_root/model"
}

# A join that is put back into the queue replaces what it wrote itself, and nothing that was there before.
joins_again() {
    local own before parts=("$tap_root"/array/part-*)
    cat >"$tap_root/again.sh" <<'S'
#!/usr/bin/env bash
[[ ${SLURM_RESTART_COUNT:-0} -eq 0 ]] || exec "${@:2}"
[[ $1 == before ]] || "${@:2}"
scontrol requeue "$SLURM_JOB_ID"
sleep 60
S
    chmod +x "$tap_root/again.sh"
    cp -r "$tap_root/array/all" "$tap_root/old"
    own=$(DELTAPATH_CONTAINER="$tap_root/again.sh after" submit own --nodes=1 slurm/deltapath.sbatch join \
        "${parts[@]}" -o "$tap_root/own")
    before=$(DELTAPATH_CONTAINER="$tap_root/again.sh before" submit before --nodes=1 slurm/deltapath.sbatch join \
        "${parts[@]}" -o "$tap_root/old")
    ended "a join that starts again meets its own output" "$(cluster_await "$own" 90)" COMPLETED "$tap_root/own.log"
    holds "it had started again" grep -q 'Restarts=1 ' <(cluster_job "$own")
    ended "a join that starts again meets an older output" "$(cluster_await "$before" 90)" FAILED "$tap_root/before.log"
    holds "it says so" grep -q "old: holds joined results already" "$tap_root/before.log"
    holds "the older one is as it was" diff -r "$tap_root/array/all" "$tap_root/old"
}

chain() {
    local said last
    said=$(DELTAPATH_SBATCH="--ntasks-per-node=1 --time=5" DELTAPATH_SBATCH_CONVERT=--ntasks-per-node=1 \
        slurm/deltapath-chain.sh share/demo/llama-pre share/demo/llama-post "$tap_root/job.yaml" \
        "$tap_root/chain" --only prune --set output.checkpoint=none)
    last=$(grep -o 'report [0-9]*' <<<"$said" | tr -dc 0-9)
    ended "convert, study and report" "$(cluster_await "$last" 120)" COMPLETED "$tap_root/deltapath-report-$last.log"
    holds "the program alone writes to the folder" \
        test "$(ls "$tap_root/chain" | tr '\n' ' ')" = "post.h5 pre.h5 report.html study "
    holds "the report is there" grep -q prune "$tap_root/chain/report.html"
}

lost_node() {
    local id
    id=$(submit lost slurm/deltapath.sbatch "$tap_root/long.yaml" --set output.directory="$tap_root/lost")
    wait_for 60 compgen -G "$tap_root/lost/progress/*"
    cluster_kill_node "$1"
    wait_for 120 restarted "$id"
    ok "a job that loses $1 is put back into the queue" $? "$(cluster_job "$id" | head -c 300)"
    cluster_start_node "$1"
    ended "it goes on when the node is back" "$(cluster_await "$id" 200)" COMPLETED "$tap_root/lost.log"
    holds "same results as an undisturbed one" same_results "$tap_root/long" "$tap_root/lost"
    rm -rf "$tap_root/lost" "$tap_root/lost.log"
}

preempted() {
    local id urgent
    id=$(submit preempt slurm/deltapath.sbatch "$tap_root/long.yaml" --set output.directory="$tap_root/preempt")
    wait_for 60 compgen -G "$tap_root/preempt/progress/*"
    urgent=$(sbatch --parsable --partition=urgent --nodes=2 --exclusive --output=/dev/null --wrap="sleep 1")
    ended "an urgent job gets the nodes" "$(cluster_await "$urgent" 90)" COMPLETED "$tap_root/preempt.log"
    ended "the preempted one goes on" "$(cluster_await "$id" 200)" COMPLETED "$tap_root/preempt.log"
    holds "it stopped by itself" grep -q 'interrupted' "$tap_root/preempt.log"
    holds "it was put back once" grep -q 'Restarts=1 ' <(cluster_job "$id")
    holds "same results as an undisturbed one" same_results "$tap_root/long" "$tap_root/preempt"
}

# A program that answers to nothing: the script itself puts the job back, and the next start ends.
hangs() {
    cat >"$tap_root/hang.sh" <<S
#!/usr/bin/env bash
[[ \${SLURM_RESTART_COUNT:-0} -eq 0 ]] || exec "\$@"
"\$@" &
until compgen -G "$tap_root/hang/progress/*" >/dev/null; do sleep 0.2; done
kill -STOP \$!
trap : USR1 TERM
while :; do sleep 1; done
S
    chmod +x "$tap_root/hang.sh"
    local id
    id=$(DELTAPATH_CONTAINER=$tap_root/hang.sh DELTAPATH_STOP_BEFORE=20 DELTAPATH_REQUEUE_BEFORE=10 \
        submit hang --time=1 --signal=B:USR1@15 slurm/deltapath.sbatch "$tap_root/long.yaml" \
        --set output.directory="$tap_root/hang")
    ended "a program that hangs at the limit is started again" "$(cluster_await "$id" 240)" COMPLETED \
        "$tap_root/hang.log"
    holds "by the script" grep -q "out of time; requeueing job $id" "$tap_root/hang.log"
}

# Nothing is saved within the limit: it would be so for ever.
stands_still() {
    cat >"$tap_root/still.sh" <<'S'
#!/usr/bin/env bash
trap 'exit 75' USR1
while :; do sleep 1; done
S
    chmod +x "$tap_root/still.sh"
    mkdir -p "$tap_root/still"
    local id
    id=$(DELTAPATH_CONTAINER=$tap_root/still.sh DELTAPATH_STOP_BEFORE=20 DELTAPATH_REQUEUE_BEFORE=10 \
        submit still --time=1 --signal=B:USR1@15 slurm/deltapath.sbatch "$tap_root/long.yaml" \
        --set output.directory="$tap_root/still")
    ended "a study that does not get on is not requeued" "$(cluster_await "$id" 150)" FAILED \
        "$tap_root/still.log"
    holds "it says why" grep -q "not requeued: nothing new is in $tap_root/still" "$tap_root/still.log"
    id=$(DELTAPATH_MAX_RESTARTS=0 DELTAPATH_CONTAINER=$tap_root/still.sh submit most \
        slurm/deltapath.sbatch "$tap_root/long.yaml" --set output.directory="$tap_root/still")
    wait_for 20 grep -q RUNNING <(cluster_job "$id")
    sleep 3
    scancel --batch --signal=USR1 "$id"
    ended "restarts have a limit" "$(cluster_await "$id" 60)" FAILED "$tap_root/most.log"
    holds "it says so" grep -q "it was 0 times (DELTAPATH_MAX_RESTARTS)" "$tap_root/most.log"
}

# What the script calls, with stand-ins for the commands of Slurm.
verbs() {
    local listed work=$tap_root/verbs script=$PWD/slurm/deltapath.sbatch said=
    listed=$("$program" --help | sed -n 's/^  \([a-z]*\) .*/\1/p' | grep -v mpirun | tr '\n' ' ')
    holds "the script knows the verbs" grep -qF "verbs=\"${listed% }\"" "$script"
    mkdir -p "$work/bin" "$work"/{convert,report,folder} && echo "name: a" | tee "$work/job" >"$work/join"
    printf '#!/bin/sh\n[ "$1" != --mpi=none ] && echo "$@"\n' >"$work/bin/srun"
    printf '#!/bin/sh\n' | tee "$work/bin/squeue" >"$work/bin/scontrol"
    chmod +x "$work"/bin/*
    calls() { # calls WANTED WORDS...: of the program
        said=$(cd "$work" && PATH=$work/bin:$PATH SLURM_JOB_ID=1 SLURM_RESTART_COUNT=1 DELTAPATH=deltapath \
            timeout 60 bash "$script" "${@:2}" 2>&1 | sed -n 's/.*deltapath //p')
        [[ $said == "$1" ]]
        ok "sbatch $script ${*:2}" $? "calls '$said', not '$1'"
    }
    calls "convert a b.h5" convert a b.h5
    calls "report a -o b" report a -o b
    calls "join a" join a
    calls "run job --resume" job
    calls "run ./join --resume" ./join
    calls "run new.yaml --resume" new.yaml
    calls "folder" folder
}

verbs
reason=$(cluster_missing)
if [[ -n $reason ]]; then
    skip "two-node Slurm" "$reason"
    done_testing
fi
trap 'cluster_stop; rm -rf "$tap_root"' EXIT
trap 'exit 1' TERM INT
$python - "$tap_root/task.h5" <<'P'
import sys
import h5py
with h5py.File("share/demo/task.h5") as whole, h5py.File(sys.argv[1], "w") as few:
    few["offsets"] = whole["offsets"][:13]
    for key in ("tokens", "loss_mask"):
        few[key] = whole[key][:few["offsets"][-1]]
P
cat >"$tap_root/job.yaml" <<Y
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: $tap_root/task.h5, loss: lm}]
edits: [{name: dare, method: dare, p: [0.5, 0.6]}, {name: prune, method: prune, keep: 0.3}]
riemann: {rule: left, points: 2}
output: {directory: OUT, checkpoint: hdf5, report: true}
Y
cat >"$tap_root/long.yaml" <<Y
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: share/demo/task.h5, loss: lm}]
edits: [{name: dare, method: dare, p: 0.5}]
riemann: {rule: left, points: 16}
output: {directory: OUT, checkpoint: none, report: false}
Y
[[ -n ${DELTAPATH_LONG:-} ]] && slurmd_timeout=20
cluster_start >"$tap_root/start.log" 2>&1
started=$?
ok "two nodes are up" $started "$(tail -n 12 "$tap_root/start.log" | tr '\n' '|')"
if [[ $started -eq 0 ]]; then
    time_limit_starts
    plain
    array
    array_in_a_model
    joins_again
    signalled
    time_limit_ends
    cancelled
    chain
    if [[ -n ${DELTAPATH_LONG:-} ]]; then
        lost_node n2
        lost_node n1
        preempted
        hangs
        stands_still
    fi
fi
cluster_stop
done_testing

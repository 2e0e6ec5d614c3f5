#!/usr/bin/env bash
# seconds: 600
# slurm/deltapath.sbatch under a real Slurm of two nodes on this host: the same result as mpirun, and a
# job that is signalled goes back into the queue and, resumed, ends with the result of an undisturbed one.
. "$(dirname "$0")/../support/tap.sh"
limit=100
cluster=$tap_root/cluster
daemons=()

why_not() {
    [[ $(id -u) -eq 0 ]] || { echo "not root"; return; }
    local tool
    for tool in munged slurmctld slurmd sbatch srun scancel scontrol unshare; do
        command -v $tool >/dev/null || { echo "$tool is missing"; return; }
    done
    unshare -m true 2>/dev/null || { echo "mount namespaces are not allowed"; return; }
    compgen -G "/usr/lib/*/slurm*/mpi_pmix*.so" >/dev/null || echo "Slurm lacks pmix"
}

stop_cluster() { # jobs, then daemons; one that does not heed TERM at once is killed
    [[ ${#daemons[@]} -eq 0 ]] && return
    timeout 5 scancel --full --user=root 2>/dev/null
    local i tries
    kill "${daemons[@]}" 2>/dev/null
    for ((i = 0; i < ${#daemons[@]}; i++)); do
        for ((tries = 0; tries < 20; tries++)); do
            kill -0 "${daemons[i]}" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "${daemons[i]}" 2>/dev/null
        wait "${daemons[i]}" 2>/dev/null
    done
    daemons=()
}

write_configuration() {
    local base=$((20000 + RANDOM % 20000)) host
    host=$(hostname)
    cat >"$cluster/slurm.conf" <<C
ClusterName=deltapath-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$cluster/munge.socket,cred_expire=60
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=pmix
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool.%n
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/slurmd.%n.pid
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdLogFile=$cluster/slurmd.%n.log
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((base + 1)) CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((base + 2)) CPUs=2 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
C
    echo "PMIxCliTmpDirBase=$cluster/pmix" >"$cluster/mpi.conf"
    mkdir -p "$cluster"/{state,pmix,pmix.n1,pmix.n2,spool.n1,spool.n2}
}

start_cluster() { # daemons in the foreground of background jobs, so that their ids are known
    mkdir -p "$cluster"
    chmod 755 "$tap_root" "$cluster"
    write_configuration
    head -c 1024 /dev/urandom >"$cluster/munge.key"
    chmod 400 "$cluster/munge.key"
    munged --foreground --force --key-file="$cluster/munge.key" --socket="$cluster/munge.socket" \
        --pid-file="$cluster/munged.pid" --log-file="$cluster/munged.log" \
        --seed-file="$cluster/munged.seed" >"$cluster/munged.out" 2>&1 &
    daemons+=($!)
    export SLURM_CONF=$cluster/slurm.conf
    local node waited=0
    until [[ -S $cluster/munge.socket || $waited -ge 50 ]]; do sleep 0.2 && waited=$((waited + 1)); done
    slurmctld -D >"$cluster/slurmctld.out" 2>&1 &
    daemons+=($!)
    for node in n1 n2; do
        # PMIx servers of two nodes want a folder each under one name.
        unshare -m sh -c "mount --bind '$cluster/pmix.$node' '$cluster/pmix' && exec slurmd -D -N $node" \
            >"$cluster/slurmd.$node.out" 2>&1 &
        daemons+=($!)
    done
    for ((waited = 0; waited < 100; waited++)); do
        [[ $(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l) -eq 2 ]] && return 0
        sleep 0.3
    done
    tail -n 4 "$cluster"/*.out "$cluster"/*.log
    return 1
}

state_of() { scontrol -o show job "$1" 2>/dev/null; }

await() { # await JOB SECONDS: until it is over; its state word
    local waited state
    for ((waited = 0; waited < $2 * 5; waited++)); do
        state=$(state_of "$1" | sed 's/.*JobState=\([A-Z_]*\).*/\1/')
        case $state in
        COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL | BOOT_FAIL | OUT_OF_MEMORY)
            echo "$state"
            return
            ;;
        esac
        sleep 0.2
    done
    echo "still $state"
}

submit() { # submit OUTPUT ARGUMENTS...: the id of the job
    # Two nodes of one host share no memory here: messages go through the loopback device.
    OMPI_MCA_btl=self,tcp OMPI_MCA_pml=ob1 OMPI_MCA_btl_tcp_if_include=lo DELTAPATH=$program sbatch --parsable --nodes=2 --ntasks-per-node=1 --time=00:10:00 --output="$1" \
        slurm/deltapath.sbatch "$tap_root/job.yaml" "${@:2}"
}

same_result() {
    local id state
    run_at 2 run "$tap_root/job.yaml" --set output.directory="$tap_root/mpirun"
    expect_exit "study by mpirun" 0
    id=$(submit "$tap_root/plain.log" --set output.directory="$tap_root/slurm")
    state=$(await "$id" 60)
    cp "$tap_root/plain.log" "$tmp/err"
    [[ $state == COMPLETED ]]
    ok "study by sbatch on two nodes" $? "$state"
    holds "both nodes took part" grep -q 'NodeList=n\[1-2\]' <(state_of "$id")
    holds "same results as by mpirun" $compare results "$tap_root/mpirun/results.json" \
        "$tap_root/slurm/results.json" 1e-6
    holds "same models as by mpirun" diff -r "$tap_root/mpirun/models" "$tap_root/slurm/models"
}

requeued() {
    local edits id state waited
    edits="edits=[{name: e, method: expo, alpha: [0.01$(printf ',0.%02d' $(seq 2 24))]}]"
    id=$(submit "$tap_root/queue.log" --set output.directory="$tap_root/queue" --set "$edits")
    for ((waited = 0; waited < 300; waited++)); do
        [[ -e $tap_root/queue/units/e-alpha0.03@task.h5 ]] && break
        sleep 0.1
    done
    scancel --signal=USR1 "$id"
    for ((waited = 0; waited < 100; waited++)); do
        [[ $(state_of "$id") == *JobState=PENDING*Restarts=1* ]] && break
        sleep 0.2
    done
    holds "a signalled job is put back into the queue" grep -q 'JobState=PENDING.*Restarts=1' \
        <(state_of "$id")
    # Two nodes of one host trip over what Open MPI's first start left under the same job id: go on in a
    # job of its own, as the requeued one would.
    scancel "$id"
    id=$(DELTAPATH_RESUME=1 submit "$tap_root/resumed.log" --set output.directory="$tap_root/queue" \
        --set "$edits")
    state=$(await "$id" 40)
    cat "$tap_root/queue.log" "$tap_root/resumed.log" >"$tmp/err"
    [[ $state == COMPLETED ]]
    ok "resumed under Slurm" $? "$state"
    holds "it said so" grep -q 'deltapath.sbatch: interrupted; requeueing' "$tap_root/queue.log"
    holds "it had stopped by the signal" grep -q 'stopped by a signal after' "$tap_root/queue.log"
    run_at 2 run "$tap_root/job.yaml" --set output.directory="$tap_root/whole" --set "$edits"
    holds "same results as an undisturbed study" $compare results "$tap_root/whole/results.json" \
        "$tap_root/queue/results.json" 1e-6
}

reason=$(why_not)
if [[ -n $reason ]]; then
    skip "two-node Slurm" "$reason"
    done_testing
fi
trap 'stop_cluster; rm -rf "$tap_root"' EXIT
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
edits: [{name: dare, method: dare, p: 0.5}, {name: prune, method: prune, keep: 0.3}]
riemann: {rule: left, points: 2}
output: {directory: OUT, checkpoint: hdf5, report: false}
Y
start_cluster >"$tap_root/start.log" 2>&1
started=$?
ok "two nodes are up" $started "$(tail -n 12 "$tap_root/start.log" | tr '\n' '|')"
if [[ $started -eq 0 ]]; then
    same_result
    requeued
fi
stop_cluster
done_testing

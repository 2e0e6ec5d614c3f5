# shellcheck shell=bash
# Shared by the Slurm tests, which source it after tap.sh: a Slurm of two nodes of two cores on this host,
# with daemons of its own. One at a time on a machine. Sets `cluster`, the folder of its files.
cluster=$tap_root/cluster
cluster_daemons=()
declare -A cluster_node=()

cluster_missing() { # why there can be no cluster here; nothing when there can
    [[ $(id -u) -eq 0 ]] || { echo "not root"; return; }
    local tool
    for tool in munged slurmctld slurmd sbatch srun scancel scontrol unshare flock; do
        command -v $tool >/dev/null || { echo "$tool is missing"; return; }
    done
    unshare -m true 2>/dev/null || { echo "mount namespaces are not allowed"; return; }
    compgen -G "/usr/lib/*/slurm*/mpi_pmix*.so" >/dev/null || echo "Slurm lacks pmix"
}

cluster_configure() {
    local base=$((20000 + RANDOM % 20000)) host
    host=$(hostname)
    # cred_expire is also how long a requeued job waits before it may start again (default 120 s).
    cat >"$cluster/slurm.conf" <<C
ClusterName=deltapath-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$cluster/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=pmix
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2,sched_min_interval=100000
SlurmdParameters=config_overrides
SlurmdTimeout=${slurmd_timeout:-60}
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
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
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=9
C
    echo "PMIxCliTmpDirBase=$cluster/pmix" >"$cluster/mpi.conf"
    mkdir -p "$cluster"/{state,pmix,pmix.n1,pmix.n2,spool.n1,spool.n2}
}

# PMIx servers of two nodes want a folder each under one name. A node that boots has an empty one.
cluster_start_node() {
    rm -rf "$cluster/pmix.$1"/*
    unshare -m sh -c "mount --bind '$cluster/pmix.$1' '$cluster/pmix' && exec slurmd -D -N $1" \
        >>"$cluster/slurmd.$1.out" 2>&1 9>&- &
    cluster_daemons+=($!)
    cluster_node[$1]=$!
}

cluster_start() { # daemons in the foreground of background jobs, so that their ids are known
    exec 9>"${TMPDIR:-/tmp}/deltapath-slurm-test.lock"
    flock -w 900 9 || { echo "another Slurm test is running"; return 1; }
    mkdir -p "$cluster"
    chmod 755 "$tap_root" "$cluster"
    cluster_configure
    head -c 1024 /dev/urandom >"$cluster/munge.key"
    chmod 400 "$cluster/munge.key"
    munged --foreground --force --key-file="$cluster/munge.key" --socket="$cluster/munge.socket" \
        --pid-file="$cluster/munged.pid" --log-file="$cluster/munged.log" \
        --seed-file="$cluster/munged.seed" >"$cluster/munged.out" 2>&1 9>&- &
    cluster_daemons+=($!)
    export SLURM_CONF=$cluster/slurm.conf
    local node waited=0
    until [[ -S $cluster/munge.socket || $waited -ge 50 ]]; do sleep 0.2 && waited=$((waited + 1)); done
    slurmctld -D >"$cluster/slurmctld.out" 2>&1 9>&- &
    cluster_daemons+=($!)
    for node in n1 n2; do cluster_start_node $node; done
    for ((waited = 0; waited < 200; waited++)); do
        [[ $(sinfo -h -N -p all -t idle -o %N 2>/dev/null | sort -u | wc -l) -eq 2 ]] && return 0
        sleep 0.3
    done
    tail -n 4 "$cluster"/*.out "$cluster"/*.log
    return 1
}

cluster_stop() { # jobs, then daemons; one that does not heed TERM at once is killed
    [[ ${#cluster_daemons[@]} -eq 0 ]] && return
    timeout 5 scancel --full --user=root 2>/dev/null
    local i tries
    kill "${cluster_daemons[@]}" 2>/dev/null
    for ((i = 0; i < ${#cluster_daemons[@]}; i++)); do
        for ((tries = 0; tries < 30; tries++)); do
            kill -0 "${cluster_daemons[i]}" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "${cluster_daemons[i]}" 2>/dev/null
        wait "${cluster_daemons[i]}" 2>/dev/null
    done
    cluster_daemons=()
    exec 9>&-
}

cluster_kill_node() { # as when its power fails: first what would tell of it
    local pid parents="" ranks=""
    kill -KILL "${cluster_node[$1]}"
    for pid in $(grep -lz "^SLURMD_NODENAME=$1$" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3); do
        grep -qz "^SLURM_CONF=$SLURM_CONF$" "/proc/$pid/environ" 2>/dev/null || continue
        ranks+=" $pid"
        parents+=" $(awk '{ print $4 }' "/proc/$pid/stat")"
    done
    # shellcheck disable=SC2086 # process ids
    kill -KILL $parents 2>/dev/null
    # shellcheck disable=SC2086 # process ids
    kill -KILL $ranks 2>/dev/null
    wait "${cluster_node[$1]}" 2>/dev/null
}

cluster_job() { scontrol -o show job "$1" 2>/dev/null; }

cluster_state() { cluster_job "$1" | sed 's/.*JobState=\([A-Z_]*\).*/\1/'; }

cluster_await() { # cluster_await JOB SECONDS [PATTERN]: until it is over, or its line matches; its state word
    local waited state
    for ((waited = 0; waited < $2 * 5; waited++)); do
        state=$(cluster_state "$1")
        if [[ -n ${3:-} ]]; then
            cluster_job "$1" | grep -qE "$3" && break
        else
            case $state in
            COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL | BOOT_FAIL | OUT_OF_MEMORY) break ;;
            esac
        fi
        sleep 0.2
    done
    echo "$state"
}

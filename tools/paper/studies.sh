# What the scripts share that run the jobs of the paper's figures; sourced by them with these set: `self`, the script's own
# name for messages, `program`, `ranks`, `out`, where the studies go, and `studies`, the names of all.
failed=()

wanted() { # wanted STUDY PATTERN...: whether a pattern is in the name, or there is none
    local study=$1 pattern
    shift
    [[ $# -eq 0 ]] && return 0
    for pattern in "$@"; do [[ $study == *$pattern* ]] && return 0; done
    return 1
}

check_patterns() { # check_patterns PATTERN...: each is in the name of some study
    local pattern
    for pattern in "$@"; do
        [[ " ${studies[*]} " == *"$pattern"* ]] && continue
        echo "$self: no study's name holds '$pattern'; there are: ${studies[*]}" >&2
        exit 2
    done
}

run_study() { # run_study STUDY OPTION...: the job of its figure, to the end or from where it stopped
    local study=$1 figure=${1%%-*} began=$SECONDS log=$out/$1.log mark="# a log of $self, which writes it anew"
    local sets=("${@:2}") job=jobs/paper/$figure.yaml i
    [[ -e $job ]] || job=jobs/$figure.yaml # of ours
    # As in these jobs: half of the samples choose, the others judge.
    if [[ $figure == @(fig7|table1|calibrated|allocation) ]]; then
        for i in "${!sets[@]}"; do
            [[ ${sets[i]} == data=* ]] && sets[i]=${sets[i]//\}/, choose: 0.5\}}
        done
    fi
    mkdir -p "$out"
    if [[ -L $log || (-e $log && $(head -n 1 "$log" 2>&1) != "$mark") ]]; then
        echo "$study: $log is not as $self wrote it: move it away"
        failed+=("$study")
        return
    fi
    echo "$mark" >"$log"
    if $DPT_MPIRUN -n "$ranks" "$program" run "$job" --resume "${sets[@]}" \
        --set "output.directory=$out/$study" --set "name=$study" >>"$log" 2>&1; then
        echo "$study: done ($((SECONDS - began)) s)"
    else
        grep -h 'error:' "$log" | head -n 1
        echo "$study: failed, see $log"
        failed+=("$study")
    fi
}

write_report() { # of all studies that are there; fails when one of this run did
    /usr/bin/python3 tools/paper/report.py "$out" -o "$out/report.html" || exit 1
    [[ ${#failed[@]} -eq 0 ]]
}

# Shared by the test scripts, which source it: TAP lines, runs of the program, groups of cases in
# parallel. Sets `program`, `python` (Debian's, with h5py and numpy) and `tmp`, a folder that goes away.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/mpi-env.sh
export OPENBLAS_NUM_THREADS=1 DELTAPATH_QUIET=1
program=$PWD/${DELTAPATH_BUILD:-build/release}/deltapath
python=/usr/bin/python3
models="$python $PWD/tests/support/make_models.py"
compare="$python $PWD/tests/support/compare.py"
tap_root=$(mktemp -d "${DELTAPATH_TEST_TMP:-${TMPDIR:-/tmp}}/tap.XXXXXX")
tmp=$tap_root tap_lines=$tap_root/0.tap tap_parts=0 limit=${limit:-60} parallel=${parallel:-3}
: >"$tap_lines"
patience=${DELTAPATH_TEST_PATIENCE:-1} # more when other tests run next to this one: times `limit` [s], less `parallel`
trap 'rm -rf "$tap_root"' EXIT
# mpirun makes and removes one folder for all of its runs: those of parts that run side by side would
# meet there.
export OMPI_MCA_orte_tmpdir_base=$tap_root

ok() { # ok NAME CODE [WHY]: a line that says whether CODE is 0, with the last run when it is not
    if [[ $2 -eq 0 ]]; then
        echo "ok - $1" >>"$tap_lines"
        return
    fi
    {
        echo "not ok - $1"
        [[ -n ${3:-} ]] && echo "# $3"
        [[ -n ${ran:-} ]] && echo "# code ${code:-?} from: $ran"
        [[ -e $tmp/err ]] && tail -n 8 "$tmp/err" | cut -c 1-400 | sed 's/^/#   /'
    } >>"$tap_lines"
}

skip() { echo "ok - $1 # SKIP $2" >>"$tap_lines"; }

run_in() { # run_in FOLDER RANKS ARGUMENTS...: the program from a folder; sets code, leaves $tmp/out and $tmp/err
    ran="deltapath ${*:3} (at $2${DPT_FAULT:+, DPT_FAULT=$DPT_FAULT})"
    (cd "$1" && exec timeout --kill-after=5 "$((limit * patience))" $DPT_MPIRUN -n "$2" "$program" "${@:3}" \
        >"$tmp/out" 2>"$tmp/err" </dev/null)
    code=$?
}

run_at() { run_in . "$@"; } # run_at RANKS ARGUMENTS...

study_at() { # study_at RANKS ARGUMENTS...: the job, in the folder $tmp, so that all studies have the same directory
    run_in "$tmp" "$1" run "$tap_root/job.yaml" "${@:2}"
}

expect_exit() { # expect_exit NAME CODE: of the last run
    [[ $code -eq $2 ]]
    ok "$1" $? "exit code $code, not $2"
}

expect_error() { # expect_error NAME CODE REGEX: the code, and just one error line, which matches
    local lines why=
    lines=$(grep -c '^deltapath: error:' "$tmp/err")
    [[ $code -ne $2 ]] && why="exit code $code, not $2"
    [[ -z $why && $lines -ne 1 ]] && why="$lines error lines, not 1"
    [[ -z $why ]] && ! grep '^deltapath: error:' "$tmp/err" | grep -qE -- "$3" &&
        why="the error line does not match: $3"
    [[ -z $why ]]
    ok "$1" $? "$why"
}

holds() { # holds NAME COMMAND...: the command succeeds
    local name=$1
    shift
    "$@" >"$tmp/held" 2>&1
    local held=$?
    ok "$name" $held "$(tail -n 3 "$tmp/held" | tr '\n' ' ' | cut -c 1-600)"
}

no_output() { # no_output FOLDER: nothing of a study under its final name, nothing half written
    [[ ! -e $1 ]] && return 0
    local left
    left=$(find "$1" \( -name 'results.*' -o -name summary.csv -o -name report.html \
        -o -name '*.partial*' -o -path '*/models/*' \) | head -n 3)
    [[ -n $left ]] && echo "left behind: $left"
    [[ -z $left ]]
}

part() { # part FUNCTION ARGUMENTS...: run cases next to others, with a folder $tmp of their own
    while [[ $(jobs -rp | wc -l) -ge $((patience > 1 && parallel > 2 ? 2 : parallel)) ]]; do wait -n; done
    tap_parts=$((tap_parts + 1))
    (
        trap - EXIT
        tmp=$tap_root/part$tap_parts tap_lines=$tap_root/$tap_parts.tap
        mkdir "$tmp" && : >"$tap_lines"
        export OMPI_MCA_orte_tmpdir_base=$tmp
        "$@"
        rm -rf "$tmp"
    ) &
}

done_testing() { # print all lines, numbered, and the plan; fail when a line did
    wait
    local i
    for ((i = 0; i <= tap_parts; i++)); do cat "$tap_root/$i.tap"; done |
        awk '/^ok - /     { $0 = "ok " ++n substr($0, 3) }
             /^not ok - / { $0 = "not ok " ++n substr($0, 7); failed++ }
             { print }
             END { print "1.." n; exit failed > 0 || n == 0 }'
    exit
}

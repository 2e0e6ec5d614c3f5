#!/usr/bin/env bash
# seconds: 600
# The same study by the programs of two builds, each under the launcher of its own MPI: the same files of the
# edited models, to the byte. And some unit tests under this MPI. `make check-mpich` names them and the other build.
. "$(dirname "$0")/../support/tap.sh"
if [[ -z ${DELTAPATH_OTHER:-} ]]; then
    skip "two MPIs" "make check-mpich runs it"
    done_testing
fi
limit=120
$models plain "$tap_root/plain"
cat >"$tap_root/job.yaml" <<Y
models: {pre: $tap_root/plain/pre, post: $tap_root/plain/post}
edits: [{name: dare, method: dare, p: 0.7, k: 0.25, seed: 3}, {name: prune, method: prune, keep: 0.3},
 {name: bit, method: bitdelta, tensors: all}, {name: expo, method: expo, alpha: -0.3},
 {name: della, method: della, p: 0.5, epsilon: 0.4, seed: 6}]
riemann: off
output: {directory: OUT, report: false}
Y

study() { # study NAME RANKS FORMAT
    run_at "$2" run "$tap_root/job.yaml" --set output.directory="$tmp/$1.$3" --set output.checkpoint="$3"
    expect_exit "$1: $3 at $2" 0
}

mpi_of() { ldd "$1" | grep -oE 'lib(mpi|mpich)\.so' | sort -u; }

for unit in $DELTAPATH_UNITS; do
    for ranks in 1 2 3; do
        # MPICH's ranks keep a core busy while they wait: the longest test has no more of them than small machines.
        [[ $unit == *golden && $ranks -gt 2 ]] && continue
        holds "$unit at $ranks" timeout "$limit" $DPT_MPIRUN -n "$ranks" "$DELTAPATH_BUILD/tests/$unit"
    done
done
study mine 2 hdf5
study mine 3 safetensors
mine=$program program=$PWD/$DELTAPATH_OTHER
holds "the programs have different MPIs" test "$(mpi_of "$mine")" != "$(mpi_of "$program")"
unset DPT_MPIRUN
DPT_MPI=openmpi
. tools/mpi-env.sh
study other 3 hdf5
study other 2 safetensors
for format in hdf5 safetensors; do
    holds "$format: 5 models" test "$(ls "$tmp/mine.$format/models" | wc -l)" = 5
    holds "$format: same bytes" diff -r "$tmp/mine.$format/models" "$tmp/other.$format/models"
done
done_testing

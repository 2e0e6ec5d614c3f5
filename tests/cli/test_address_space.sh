#!/usr/bin/env bash
# seconds: 400
# A rank that is short of address space: code 4 on all ranks and one line, at once. OpenBLAS tries for
# ever to map its buffers, when it is loaded and at its first product; and it waits for ever for threads that
# OpenMP does not give.
. "$(dirname "$0")/../support/tap.sh"
limit=40
if [[ ${DELTAPATH_BUILD:-} == *asan* ]]; then
    skip "address space" "the sanitizers map terabytes"
    done_testing
fi
$models llama "$tmp/m" || echo "not ok - models could not be made" >>"$tap_lines"
cat >"$tmp/job.yaml" <<Y
models: {pre: $tmp/m/pre, post: $tmp/m/post}
edits: [{name: twin, method: lowrank, rank: 2}]
riemann: off
output: {directory: OUT, checkpoint: hdf5, report: false}
Y
cat >"$tmp/limited" <<'S'
#!/usr/bin/env bash
# limited RANK KIB COMMAND...
[[ ${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}} == "$1" ]] && ulimit -v "$2"
exec "${@:3}"
S
chmod +x "$tmp/limited"

limited() { # limited RANKS RANK KIB THREADS ARGUMENTS...
    ran="deltapath ${*:5} (rank $2 of $1 has $3 KiB, $4 threads)"
    OMP_NUM_THREADS=$4 timeout --kill-after=5 "$((limit * patience))" $DPT_MPIRUN -n "$1" "$tmp/limited" "$2" "$3" \
        "$program" "${@:5}" >"$tmp/out" 2>"$tmp/err" </dev/null
    code=$?
}

run_limited() { # run_limited RANKS RANK KIB THREADS
    rm -rf "$tmp/out.d"
    limited "$@" run "$tmp/job.yaml" --set output.directory="$tmp/out.d"
}

run_limited 2 1 unlimited 2
expect_exit "without a limit" 0
for ranks in 2 3; do
    run_limited $ranks $((ranks - 1)) 900000 4
    expect_error "at the first product, last of $ranks ranks" 4 \
        "rank $((ranks - 1))\] address space: OpenBLAS needs [0-9]+ MiB for 4 threads"
    holds "nothing left" no_output "$tmp/out.d"
done
run_limited 2 0 900000 4
expect_error "at the first product, first rank" 4 'address space: OpenBLAS needs'
limited 2 1 900000 4 diff "$tmp/m/pre" "$tmp/m/post"
expect_error "diff" 4 'address space: OpenBLAS needs'
limited 2 1 900000 4 diff "$tmp/m/pre" "$tmp/m/post" --iterations 0
expect_exit "diff without spectral norms" 0
for kib in 220000 350000 500000; do
    run_limited 2 1 $kib 1
    expect_error "when it is loaded, $kib KiB" 4 'address space: OpenBLAS and MPI need'
done
# Whatever there is, it ends.
for kib in 650000 800000 1000000 1200000; do
    run_limited 2 1 $kib 2
    [[ $code -eq 0 || $code -eq 4 ]]
    ok "2 threads, $kib KiB: done or code 4" $? "exit code $code"
done
unset OPENBLAS_NUM_THREADS
for setting in OMP_THREAD_LIMIT=1 OMP_DYNAMIC=true; do
    export "${setting?}"
    run_limited 2 1 unlimited 2
    expect_exit "2 threads, $setting" 0
    unset "${setting%=*}"
done
done_testing

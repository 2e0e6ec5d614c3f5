#!/usr/bin/env bash
# seconds: 600
# A fault injected at each point of the program, on the first and on the last rank of 2 and of 4: every
# rank ends with code 4, one line names the rank, nothing stays under a final name, nothing hangs. Where there is another
# way, the run goes on and writes the same results.
. "$(dirname "$0")/../support/tap.sh"
parallel=4 limit=60
$models llama "$tap_root/m" --samples 20
cat >"$tap_root/job.yaml" <<Y
models: {pre: $tap_root/m/pre, post: $tap_root/m/post}
data:
  - {name: task, file: $tap_root/m/data.h5, loss: lm}
  - {name: pairs, file: $tap_root/m/pairs.h5, loss: dpo, reference: $tap_root/m/pre}
edits:
  - {name: twin, method: lowrank, rank: 2}
  - {name: dare, method: dare, p: 0.5}
  - {name: bias, method: bias, by: gradient, k: 0.5}
riemann: {rule: midpoint, points: 2}
batch_tokens: 16
output: {directory: OUT, checkpoint: FORMAT}
Y

# Each rank notes its exit code, and mpirun sees 0: else it would end the others before they are done.
cat >"$tap_root/note" <<'S'
#!/bin/sh
"$@"
echo "$?" >"$NOTES/${OMPI_COMM_WORLD_RANK:-$PMI_RANK}"
S
chmod +x "$tap_root/note"

run_noted() { # run_noted RANKS FORMAT: as run_at, with the code of each rank in $tmp/codes
    local ranks=$1
    rm -rf "$tmp/codes" "$tmp/out.d" && mkdir "$tmp/codes"
    ran="DPT_FAULT=${DPT_FAULT:-} deltapath run (at $ranks, $2)"
    NOTES=$tmp/codes timeout --kill-after=5 "$((limit * patience))" $DPT_MPIRUN -n "$ranks" "$tap_root/note" "$program" \
        run "$tap_root/job.yaml" --set output.directory="$tmp/out.d" --set output.checkpoint="$2" \
        --set svd_group="$ranks" >"$tmp/out" 2>"$tmp/err" </dev/null
    code=$?
    [[ $code -eq 0 ]] && code=$(cat "$tmp"/codes/* | sort -u | tr '\n' ' ' | sed 's/ $//')
    [[ $(ls "$tmp/codes" | wc -l) -eq $ranks ]] || code="$code, and not of all ranks"
}

fault() { # fault POINT RANKS RANK NUMBER FORMAT
    local name="$1 on rank $3 of $2" why=
    export DPT_FAULT="$1:$3"
    run_noted "$2" "$5"
    [[ $code != 4 ]] && why="exit codes $code, not 4"
    local lines
    lines=$(grep -c '^deltapath: error:' "$tmp/err")
    [[ -z $why && $lines -ne 1 ]] && why="$lines error lines, not 1"
    [[ -z $why ]] && ! grep -qF "deltapath: error: [rank $4] " "$tmp/err" && why="not the line of rank $4"
    [[ -z $why ]] && ! grep -qF "injected fault at $1" "$tmp/err" && why="another message"
    [[ -z $why && -e $tmp/out.d/results.h5 ]] && why="results were written"
    [[ -z $why && -n $(find "$tmp/out.d" -name '*.partial*' 2>/dev/null) ]] && why="partial output is left"
    [[ -z $why ]]
    ok "$name" $? "$why"
}

sound() {
    run_noted 4 "$1"
    [[ $code == 0 && -e $tmp/out.d/results.h5 ]]
    ok "no fault with $1" $?
}
part sound hdf5
part sound safetensors
points=$(grep -rhoE 'dpt_agree_fault\("[^"]+' src | sed 's/.*"//' | sort -u)
another_way() { # another_way POINT RANKS RANK
    rm -rf "$tmp/faulty.d"
    export DPT_FAULT="$1:$3"
    run_noted "$2" hdf5
    unset DPT_FAULT
    local why=
    [[ $code != 0 ]] && why="exit codes $code, not 0"
    [[ -z $why ]] && grep -q 'injected fault' "$tmp/err" && why="the fault is reported"
    mv "$tmp/out.d" "$tmp/faulty.d"
    run_noted "$2" hdf5
    [[ -z $why ]] && ! $compare results "$tmp/faulty.d/results.json" "$tmp/out.d/results.json" 1e-6 &&
        why="other results"
    [[ -z $why ]]
    ok "$1 on rank $3 of $2: another way" $? "$why"
}
for point in $points; do
    if [[ $point == shared.map ]]; then
        part another_way "$point" 2 last
        part another_way "$point" 4 0
        continue
    fi
    formats=hdf5
    [[ $point == store.* ]] && formats="hdf5 safetensors"
    for format in $formats; do
        part fault "$point" 2 0 0 "$format"
        part fault "$point" 2 last 1 "$format"
        part fault "$point" 4 0 0 "$format"
        part fault "$point" 4 last 3 "$format"
    done
done
done_testing

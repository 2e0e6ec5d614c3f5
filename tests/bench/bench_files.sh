#!/usr/bin/env bash
# A DARE from file to file of 2 GB models on 2 ranks, start of mpirun taken off, against `cp` and `sync` of the same
# model, from a warm and a cold page cache: tests/bench/bench_files.sh BUILD_DIR [TURNS]. All take turns, since disks
# change from minute to minute; a ratio is the median of those of the turns. A DARE reads two models where cp reads one: the
# copy after `cat` of the other model moves the same bytes. Cold needs root, who alone can empty the cache.
# DPT_BENCH_FOLDER is where the 6 GB lie (TMPDIR), DPT_BENCH_JSON a file for JSON lines.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/mpi-env.sh
out=$1 turns=${2:-5} ranks=2
tmp=$(mktemp -d "${DPT_BENCH_FOLDER:-${TMPDIR:-/tmp}}/deltapath-files.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
export DELTAPATH_QUIET=1
launch() { $DPT_MPIRUN -n "$ranks" "$@"; }

make_pair() { # 18 layers of width 2048: 943 million weights in bf16
    "$out/deltapath" synthetic share/shapes/smollm2-135m.json "$tmp/values" --set hidden_size=2048 \
        --set intermediate_size=5632 --set num_attention_heads=32 --set num_key_value_heads=8 \
        --set num_hidden_layers=18 --set vocab_size=32000 --set tie_word_embeddings=false
    for model in pre post; do launch "$out/deltapath" convert "$tmp/values/$model" "$tmp/$model"; done
}

make_job() { # make_job FILE PRE POST
    cat >"$1" <<END
name: files
models: {pre: $2, post: $3}
riemann: off
edits: [{name: dare, method: dare, p: 0.9}]
output: {directory: $tmp/out, checkpoint: safetensors, report: false}
END
}

clean() { # clean warm|cold: nothing to write, and all or nothing in the cache
    rm -rf "$tmp/out"
    sync
    if [[ $1 == cold ]]; then
        echo 3 >/proc/sys/vm/drop_caches
    else
        cat "$tmp"/p*/*.safetensors >/dev/null
    fi
}

copy() { cp -r "$tmp/post" "$tmp/out" && sync "$tmp"/out/* "$tmp/out" "$tmp"; }
copy_both() { cat "$tmp"/pre/*.safetensors >/dev/null && copy; }
dare() { launch "$out/deltapath" run "$tmp/job"; }
small() { launch "$out/deltapath" run "$tmp/small"; }
start() { launch "$out/tests/bench/bench_start"; }

timed() { # timed warm|cold WHAT: a line "warm WHAT SECONDS" in $tmp/times
    clean "$1"
    local begin=$EPOCHREALTIME
    "$2" >"$tmp/log" 2>&1 || { tail -n 3 "$tmp/log" >&2; exit 1; }
    local end=$EPOCHREALTIME
    echo "$1 $2 ${begin/./} ${end/./}" >>"$tmp/times"
}

say() { # all figures of $tmp/times
    awk -v ranks=$ranks -v json="${DPT_BENCH_JSON:-}" -v bytes="$(cat "$tmp"/post/*.safetensors | wc -c)" '
    function sort(x, n,    i, j, v) {
        for (i = 2; i <= n; i++) {
            v = x[i]
            for (j = i - 1; j > 0 && x[j] > v; j--) x[j + 1] = x[j]
            x[j + 1] = v
        }
    }
    function figure(x, n) { # half of all lies between low and high
        sort(x, n)
        median = n % 2 ? x[(n + 1) / 2] : (x[n / 2] + x[n / 2 + 1]) / 2
        low = x[int(n / 4) + 1]
        high = x[n - int(n / 4)]
    }
    function of(state, what,    i) {
        for (i = 1; i <= count[state, what]; i++) x[i] = seconds[state, what, i]
        figure(x, count[state, what])
    }
    function line(name, models, limit, ratio, spread,    rate) {
        rate = models > 0 ? sprintf("%6.2f GB/s", models * bytes / 1e9 / median) : ""
        printf "%-34s %7.3f s (%.3f .. %.3f) %s%s\n", name, median, low, high, rate, spread
        if (json != "")
            printf "{\"bench\": \"files\", \"case\": \"%s\", \"unit\": \"s\", \"median\": %.4g, \"low\": %.4g, \"high\": %.4g, \"limit\": %s, \"ratio\": %s, \"seconds\": null, \"ranks\": %d}\n",
                name, median, low, high, limit, ratio, ranks >>json
    }
    function against(name, state, what, peer, models,    i, n, limit, spread, ratio) {
        n = count[state, what]
        for (i = 1; i <= n; i++) x[i] = seconds[state, what, i] / seconds[state, peer, i]
        figure(x, n)
        ratio = sprintf("%.4g", median)
        spread = sprintf(", ratio %.2f (%.2f .. %.2f)", median, low, high)
        of(state, peer)
        limit = sprintf("%.4g", median)
        of(state, what)
        line(name, models, limit, ratio, spread)
    }
    { seconds[$1, $2, ++count[$1, $2]] = ($4 - $3) / 1e6 }
    END {
        of("warm", "start")
        line("mpirun, nothing else", 0, "null", "null", "")
        begun = median
        for (s = 1; s <= 2; s++) {
            state = s == 1 ? "warm" : "cold"
            for (i = 1; i <= count[state, "dare"]; i++) seconds[state, "dare", i] -= begun
            if (!count[state, "dare"]) continue
            of(state, "copy")
            line("cp and sync " state, 2, "null", "null", "")
            of(state, "copy_both")
            line("cat, cp and sync " state, 3, "null", "null", "")
            against("dare " state, state, "dare", "copy", 3)
            against("dare " state ", of cat and cp", state, "dare", "copy_both", 3)
        }
        for (i = 1; i <= count["warm", "small"]; i++) seconds["warm", "small", i] -= begun
        of("warm", "small")
        line("a small pair: start and end", 0, "0.1", sprintf("%.4g", median / 0.1), ", at most 0.1")
    }' "$tmp/times"
}

make_pair >"$tmp/log" 2>&1 || { tail -n 3 "$tmp/log" >&2; exit 1; }
make_job "$tmp/job" "$tmp/pre" "$tmp/post"
make_job "$tmp/small" share/demo/llama-pre share/demo/llama-post
states=warm
if [[ -w /proc/sys/vm/drop_caches ]]; then
    states="warm cold"
else
    echo "cold not measured: only root can empty the page cache"
fi
for ((turn = 0; turn < turns; turn++)); do
    rm -rf "$tmp/out"
    small >"$tmp/log" 2>&1 # the cold turn before took the libraries out of the cache too
    timed warm start
    timed warm small
    for state in $states; do
        for what in copy dare copy_both; do timed "$state" $what; done
    done
done
say

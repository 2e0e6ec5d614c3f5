#!/usr/bin/env bash
# seconds: 600
# What bad input gets: the right exit code, one error line that names what is wrong, nothing under a
# final name, no hang; at 1 and 2 ranks.
. "$(dirname "$0")/../support/tap.sh"
parallel=5 limit=60
bad=$tap_root/bad
$models broken "$bad" && $models data "$bad/data" || echo "not ok - models could not be made" >>"$tap_lines"

cat >"$bad/edit.yaml" <<'Y'
models: {pre: PRE, post: POST}
edits: [{name: dare, method: dare, p: 0.5}, {name: twin, method: lowrank, rank: 2}]
riemann: off
output: {directory: OUT, checkpoint: hdf5, report: false}
Y
cat >"$bad/path.yaml" <<'Y'
models: {pre: PRE, post: POST}
data: [{name: task, file: DATA, loss: lm}]
edits: [{name: dare, method: dare, p: 0.5}]
riemann: {rule: left, points: 2}
output: {directory: OUT, checkpoint: none, report: false}
Y

edit() { # edit RANKS PRE [ARGUMENTS...]: a study of edits alone
    run_at "$1" run "$bad/edit.yaml" --set models.pre="$2" --set models.post="$bad/post" \
        --set output.directory="$tmp/out.d" "${@:3}"
}

path() { # path RANKS DATA [ARGUMENTS...]: a study with a path
    run_at "$1" run "$bad/path.yaml" --set models.pre="$bad/good" --set models.post="$bad/post" \
        --set data.0.file="$2" --set output.directory="$tmp/out.d" "${@:3}"
}

expect_clean() { # expect_clean NAME CODE REGEX
    expect_error "$1" "$2" "$3"
    holds "$1: nothing left" no_output "$tmp/out.d"
}

bad_model() { # bad_model NAME REGEX RANKS...: as the model of departure
    local ranks
    for ranks in "${@:3}"; do
        edit "$ranks" "$bad/$1"
        expect_clean "$1 at $ranks" 3 "$2"
    done
}

bad_data() { # bad_data NAME REGEX RANKS...
    local ranks
    for ranks in "${@:3}"; do
        path "$ranks" "$bad/data/$1.h5"
        expect_clean "data $1 at $ranks" 3 "$2"
    done
}

bad_config() { # bad_config NAME REGEX: of the post-trained model, read for gradients
    path 2 "$bad/data/good.h5" --set models.post="$bad/config-$1"
    expect_clean "config $1" 3 "$2"
}

bad_set() { # bad_set NAME CODE REGEX ARGUMENTS...: an edit study with changed keys
    edit 1 "$bad/good" "${@:4}"
    expect_clean "$1" "$2" "$3"
}

job_text() { # job_text NAME LINE:COLUMN REGEX TEXT: a job file that is refused
    printf '%s\n' "$4" >"$tmp/job.yaml"
    run_at 1 run "$tmp/job.yaml"
    expect_error "job: $1" 2 "job\.yaml:$2:? .*$3"
}

sound() { # the partners of all cases are sound
    edit 2 "$bad/good"
    expect_exit "sound models pass" 0
    rm -rf "$tmp/out.d"
    edit 2 "$bad/good.h5"
    expect_exit "a sound checkpoint passes" 0
    rm -rf "$tmp/out.d"
    path 2 "$bad/data/good.h5"
    expect_exit "sound data pass" 0
}
part sound

n=mlp.up_proj.weight
for name in overlap swapped beyond negative-offset float-offset no-offset shape-lies shape-negative \
    shape-overflows shape-long shape-text type-unknown entry-number; do
    part bad_model "st-$name" "^deltapath: error: \[rank 0\] .*st-$name/model.safetensors: .*$n" 1
done
for name in empty short length-huge length-beyond length-zero truncated truncated-header appended binary \
    json-cut json-array json-deep metadata-number; do
    part bad_model "st-$name" "st-$name/model.safetensors: " 1
done
part bad_model st-overlap "$n" 2
part bad_model st-truncated "truncated|hole|copy" 2
part bad_model st-duplicate "st-duplicate/model.safetensors: .*[Dd]uplicate" 1 2
part bad_model st-nothing "st-nothing" 1
part bad_model st-no-tensors "st-no-tensors(/model.safetensors)?: .*no tensors" 1
part bad_model nowhere "nowhere" 1 2
for name in broken no-map outside extra lacks no-shard; do
    part bad_model "st-index-$name" "st-index-$name" 1
done
for name in truncated cut cut-hard text empty superblock format version group nothing; do
    part bad_model "h5-$name.h5" "h5-$name.h5: " 1
done
part bad_model h5-truncated.h5 "h5-truncated.h5: " 2
part bad_model h5-middle.h5 "h5-middle.h5" 2
for name in text-type half-written unwritten link subgroup; do
    part bad_model "h5-$name.h5" "h5-$name.h5: .*$n" 1
done
part bad_model h5-double.h5 "$n" 1
for name in nan inf minus-inf; do
    part bad_model "value-$name" "value-$name.*$n.* 37" 1 2
done
part bad_model value-nan.h5 "value-nan.h5.*$n.* 37" 2

for name in no-tokens no-mask no-offsets token-type mask-short mask-value offset-falls offset-beyond \
    offset-first offset-matrix truncated text nowhere; do
    part bad_data "$name" "data/$name.h5: " 1
done
part bad_data empty "data/empty.h5: .*empty|no samples" 1 2
part bad_data token-large "token-large.h5: .*token 64.*(64|vocabulary)" 1 2
part bad_data token-negative "token-negative.h5: .*token -1" 1 2
part bad_data too-long "too-long.h5: .*65.*64" 1
part bad_data unscored "unscored.h5: .*score" 1
for name in no-json family hidden heads huge layers vocabulary missing; do
    part bad_config "$name" "config-$name"
done

mismatched() {
    DELTAPATH_QUIET='' edit "$1" "$bad/mismatched"
    expect_clean "mismatched models at $1" 3 "on_mismatch: keep-post"
    local word
    for word in "layers.1.$n.*missing in the pre" "layers.7.extra.*missing in the post" \
        "layers.0.$n.*25.*24" "norm.weight.*(I64|i64)"; do
        holds "mismatch at $1 is reported: $word" grep -qE "$word" "$tmp/err"
    done
    edit "$1" "$bad/mismatched" --set on_mismatch=keep-post
    expect_exit "keep-post at $1" 0
    holds "keep-post at $1: tensors without a partner keep their values" \
        $compare kept "$tmp/out.d/models/dare.h5" "$bad/post" model.norm.weight \
        model.layers.1.$n model.layers.0.$n
}
part mismatched 1
part mismatched 2

padded() {
    $models llama "$tmp/m" --pad 5
    run_at 2 run "$bad/edit.yaml" --set models.pre="$tmp/m/pre" --set models.post="$tmp/m/post" \
        --set output.directory="$tmp/out.d"
    expect_clean "padded vocabulary" 3 "embed_tokens|lm_head"
    run_at 2 run "$bad/edit.yaml" --set models.pre="$tmp/m/pre" --set models.post="$tmp/m/post" \
        --set output.directory="$tmp/out.d" --set on_mismatch=keep-post
    expect_exit "padded vocabulary with keep-post" 0
    run_at 2 run "$bad/path.yaml" --set models.pre="$tmp/m/pre" --set models.post="$tmp/m/post" \
        --set data.0.file="$bad/data/good.h5" --set output.directory="$tmp/path.d" \
        --set on_mismatch=keep-post
    expect_exit "padded vocabulary with keep-post, along a path" 0
}
part padded

tied() {
    $models llama "$tmp/t" --tied
    run_at 2 run "$bad/path.yaml" --set models.pre="$tmp/t/pre" --set models.post="$tmp/t/post" \
        --set data.0.file="$bad/data/good.h5" --set output.directory="$tmp/out.d"
    expect_exit "tied embeddings" 0
    holds "tied embeddings are written once" test "$(grep -c lm_head "$tmp/out.d/results.json")" = 0
}
part tied

# Job files: file, line and column.
m='models: {pre: a, post: b}'
o='output: {directory: d}'
e='edits: [{name: x, method: dare, p: 0.5}]'
part job_text "unknown key" 2:1 "colour" "$m
colour: red
$e
$o"
part job_text "unknown key inside" 3:10 "dir" "$m
$e
output: {dir: x}"
part job_text "unknown method" 2:27 "shuffle" "$m
edits: [{name: x, method: shuffle}]
$o"
part job_text "unknown parameter" 2:33 "q" "$m
edits: [{name: x, method: dare, q: 0.5}]
$o"
part job_text "p = 1" 2:36 "p" "$m
edits: [{name: x, method: dare, p: 1}]
$o"
part job_text "p is text" 2:36 "p" "$m
edits: [{name: x, method: dare, p: half}]
$o"
part job_text "p is NaN" 2:36 "p" "$m
edits: [{name: x, method: dare, p: .nan}]
$o"
part job_text "rank 0" 2:42 "rank" "$m
edits: [{name: x, method: lowrank, rank: 0}]
$o"
part job_text "negative keep" 2:40 "keep" "$m
edits: [{name: x, method: prune, keep: -0.1}]
$o"
part job_text "no models" 1:1 "models" "$e
$o"
part job_text "no edits" "[0-9]+:[0-9]+" "edits" "$m
$o"
part job_text "two edits of one name" "3:[0-9]+" "x" "$m
edits: [{name: x, method: dare, p: 0.5},
  {name: x, method: dare, p: 0.6}]
$o"
part job_text "key given twice" "2:[0-9]+" "duplicate" "$m
$m
$e
$o"
part job_text "not YAML" "[0-9]+:[0-9]+" "" "models: {pre: [
$e"
part job_text "even points of simpson" "[0-9]+:[0-9]+" "odd" "$m
$e
riemann: {rule: simpson, points: 4}
$o"
part job_text "unknown rule" "3:17" "middle" "$m
$e
riemann: {rule: middle, points: 4}
$o"
part job_text "unknown loss" "[0-9]+:[0-9]+" "mse" "$m
data: [{name: d, file: f, loss: mse}]
$e
$o"
part job_text "name that leaves the directory" "[0-9]+:[0-9]+" "name" "$m
edits: [{name: ../x, method: dare, p: 0.5}]
$o"

other_jobs() {
    : >"$tmp/empty.yaml"
    run_at 1 run "$tmp/empty.yaml"
    expect_error "job: empty" 2 "empty.yaml"
    head -c 300 /dev/urandom >"$tmp/random.yaml"
    run_at 1 run "$tmp/random.yaml"
    expect_error "job: random bytes" 2 "random.yaml"
    run_at 2 run "$tmp/nowhere.yaml"
    expect_error "job: missing" 2 "nowhere.yaml"
    run_at 2 run "$tmp"
    expect_error "job: a directory" 2 "$tmp"
}
part other_jobs

part bad_set "rank above the limit" 2 "rank.*(99|16)" --set 'edits=[{name: t, method: lowrank, rank: 99}]'
part bad_set "pattern that matches nothing" 2 "nothing\.\*" --set 'select={include: ["nothing.*"]}'
placed() { # placed NAME CODE REGEX TEXT: edits and selection, from the third line on, of a sound pair
    printf 'models: {pre: %s, post: %s}\noutput: {directory: %s, checkpoint: hdf5}\n%s\n' \
        "$bad/good" "$bad/post" "$tmp/out.d" "$4" >"$tmp/placed.yaml"
    run_at 2 run "$tmp/placed.yaml"
    expect_clean "$1" "$2" "$3"
}
part placed "rank above the limit has its line" 2 "placed\.yaml:4:[0-9]+: edit t: lowrank: rank: 99 " 'edits:
  - {name: t, method: lowrank, rank: 99}'
part placed "sparsity that leaves nothing has its line" 2 "placed\.yaml:5:[0-9]+: edit t-sparsity0.999: lowrank: sparsity" \
    'edits:
  - {name: a, method: drop, p: 0.5}
  - {name: t, method: lowrank, sparsity: [0.5, 0.999]}'
part placed "pattern that matches nothing has its line" 2 "placed\.yaml:4:[0-9]+: select: .*'nix\*'" \
    'edits: [{name: a, method: drop, p: 0.5}]
select: {include: ["*", "nix*"]}'
part placed "exclude of everything" 2 "placed\.yaml:4:[0-9]+: select: .*no tensor" \
    'edits: [{name: a, method: drop, p: 0.5}]
select: {exclude: ["*"]}'
part placed "value that is missing has its line" 2 "placed\.yaml:4:[0-9]+: drop: p: " 'edits:
  - {name: a, method: drop, p: }'
part placed "value beyond the type names the edit" 3 "edit big: tensor '.*beyond the range" \
    'edits: [{name: big, method: [{method: expo, alpha: 1e6}, {method: expo, alpha: 1e6},
  {method: expo, alpha: 1e6}, {method: expo, alpha: 1e6}, {method: expo, alpha: 1e6},
  {method: expo, alpha: 1e6}, {method: expo, alpha: 1e6}, {method: expo, alpha: 1e6}]}]'
part bad_set "unknown key of --set" 2 "colour" --set colour=red
part bad_set "broken --set" 2 "edits" --set 'edits=[{'
part bad_set "--set without a value" 2 "set|=" --set edits
part bad_set "no memory" 4 "memory" --memory 1M
part bad_set "size that is none" 2 "lots" --memory lots
part bad_set "directory is a file" 4 "post/config.json" --set output.directory="$bad/post/config.json"
part bad_set "directory under a file" 4 "config.json" --set output.directory="$bad/post/config.json/d"
part bad_set "directory in /proc" 4 "/proc/" --set output.directory=/proc/deltapath
part bad_set "directory in a full device" 4 "/dev/full" --set output.directory=/dev/full
no_memory() {
    path 2 "$bad/data/good.h5" --memory 1M
    expect_clean "no memory for a path" 4 "memory"
}
part no_memory

read_only() { # a mount that cannot be written, where this may be mounted
    mkdir "$tmp/ro"
    if ! unshare -m mount -t tmpfs -o ro none "$tmp/ro" 2>/dev/null; then
        skip "read-only directory" "mounts are not allowed"
        return
    fi
    local at="$tmp/ro"
    timeout 60 unshare -m sh -c "mount -t tmpfs -o ro none '$at' && exec $DPT_MPIRUN -n 2 '$program' run \
        '$bad/edit.yaml' --set models.pre='$bad/good' --set models.post='$bad/post' \
        --set output.directory='$at/d'" >"$tmp/out" 2>"$tmp/err" </dev/null
    code=$? ran="run on a read-only mount"
    expect_error "read-only directory" 4 "/ro.*[Rr]ead-only"
}
part read_only

full_disk() { # a disk that fills up while a model is written
    mkdir "$tmp/small"
    if ! unshare -m mount -t tmpfs -o size=64k none "$tmp/small" 2>/dev/null; then
        skip "full disk" "mounts are not allowed"
        return
    fi
    local at="$tmp/small"
    timeout 60 unshare -m sh -c "mount -t tmpfs -o size=64k none '$at' && $DPT_MPIRUN -n 2 '$program' run \
        '$bad/edit.yaml' --set models.pre='$bad/good' --set models.post='$bad/post' \
        --set output.dtype=f32 --set output.directory='$at/d'; code=\$?; ls -R '$at'; exit \$code" \
        >"$tmp/out" 2>"$tmp/err" </dev/null
    code=$? ran="run on a full disk"
    expect_error "full disk" 4 "small/d"
    holds "full disk: nothing left" test "$(grep -cE 'results|\.partial|dare|twin' "$tmp/out")" = 0
}
part full_disk

idle() { # an edit that covers nothing is no error, but is said
    edit 2 "$bad/good" --set 'edits=[{name: b, method: bitdelta}]' --set 'select={include: ["*norm*"]}'
    expect_exit "edit that covers nothing" 0
    holds "edit that covers nothing: warning" grep -q "warning: edit b: .*cover none" "$tmp/err"
}
part idle

existing() {
    mkdir -p "$tmp/out.d"
    echo mine >"$tmp/out.d/summary.csv"
    edit 2 "$bad/good"
    expect_error "existing output" 4 "out.d/summary.csv: is no summary that deltapath wrote"
    holds "existing output stays as it was" grep -qx mine "$tmp/out.d/summary.csv"
}
part existing
done_testing

#!/usr/bin/env bash
# seconds: 600
# run --only and join: the parts of a job put together are the whole, to the bit; what does not belong
# together is refused by name, and nothing is written then.
. "$(dirname "$0")/../support/tap.sh"
limit=120

write_job() { # write_job FILE EDITS
    cat >"$1" <<Y
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data:
  - {name: few, file: $tap_root/few.h5, loss: lm}
  - {name: task, file: $tap_root/task.h5, loss: lm, samples: 9}
edits: $2
riemann: {rule: left, points: 2}
output: {directory: OUT, checkpoint: none, report: true}
Y
}

edits='[{name: dare, method: dare, p: [0.3, 0.6], seed: [1, 2]}, {name: prune, method: prune, keep: 0.3}]'

same_files() { # same_files A B: all that two studies wrote, but for times and provenance
    $compare joined "$1/results.json" "$2/results.json" &&
        diff <($python tests/support/csv_without.py seconds "$1/summary.csv") \
            <($python tests/support/csv_without.py seconds "$2/summary.csv") &&
        cmp "$1/seeds.csv" "$2/seeds.csv"
}

parts_equal_whole() { # parts_equal_whole RANKS
    local i
    run_at "$1" run "$tap_root/job.yaml" --set output.directory="$tmp/whole"
    expect_exit "the whole at $1" 0
    for i in 0 1 2; do
        run_at "$1" run "$tap_root/job.yaml" --set output.directory="$tmp/part-$i" --only $i/3
        expect_exit "part $i of 3 at $1" 0
    done
    holds "parts share the edits" [ "$(cat "$tmp"/part-?/summary.csv | grep -c '^dare\|^prune')" -eq 10 ]
    run_at "$1" join "$tmp"/part-{2,0,1} -o "$tmp/all"
    expect_exit "join at $1" 0
    holds "joined parts are the whole at $1" same_files "$tmp/whole" "$tmp/all"
    holds "joined report at $1" grep -q 'dare-p0.6-seed2' "$tmp/all/report.html"
    holds "its provenance names the parts" grep -q "\"directory\": \"$tmp/part-1\"" "$tmp/all/results.json"
    holds "and has their seeds, inputs and runs" parts_are_described
    [[ $1 -eq 1 ]] && refusals
}

parts_are_described() { # what the provenance says of the parts is what they say
    $python - "$tmp" <<'P'
import json, sys
said = {name: json.load(open(f"{sys.argv[1]}/{name}/results.json"))["provenance"]
        for name in ("whole", "all", "part-0", "part-1", "part-2")}
assert len(said["whole"]["seeds"]) == 5 and said["all"]["seeds"] == said["whole"]["seeds"], said["all"]["seeds"]
assert said["all"]["inputs"] == said["whole"]["inputs"] and said["all"]["program"] == said["whole"]["program"]
for part, name in zip(said["all"]["joined"], ("part-2", "part-0", "part-1"), strict=True):
    assert part == {"directory": f"{sys.argv[1]}/{name}", **{k: said[name][k] for k in ("started", "ranks", "tensor_parallel")}}, part
P
}

same_as_before() { [[ $(cat "$tmp/all"/* | sha256sum) == "$before" ]]; }

refused() { # refused NAME CODE REGEX ARGUMENTS...: the error, and nothing is written
    local name=$1 status=$2 regex=$3
    shift 3
    run_at 1 join "$@"
    expect_error "$name" "$status" "$regex"
    holds "nothing is written: $name" [ ! -e "$tmp/none" ]
}

refusals() { # with the parts of before
    local before
    before=$(cat "$tmp/all"/* | sha256sum)
    refused "a missing part" 3 '2 of 5 edits are in no part, the first is dare-p0.3-seed2' \
        "$tmp"/part-{0,2} -o "$tmp/none"
    refused "a part twice" 3 "edit dare-p0.3-seed1 is in both .*part-0 and .*part-0" \
        "$tmp"/part-{0,0,1,2} -o "$tmp/none"
    mkdir -p "$tmp/begun/units"
    refused "an unfinished part" 3 "begun: this part is not finished.*--resume" \
        "$tmp"/part-0 "$tmp/begun" -o "$tmp/none"
    refused "no study" 3 "share: no study" share -o "$tmp/none"
    rewrite part-1 old 'p.replace("\"program\": \"deltapath ", "\"program\": \"deltapath 0.0.1 of ")'
    refused "parts of two versions" 3 "part-0 was made by deltapath [0-9.]*, .*old by deltapath 0.0.1 of .*: run them with one version" \
        "$tmp"/part-{0,2} "$tmp/old" -o "$tmp/none"
    rewrite part-1 torn 'p[:40]'
    refused "a provenance that is no JSON" 3 "torn/results.h5: its provenance is no JSON" "$tmp/part-0" "$tmp/torn" -o "$tmp/none"
    refused "no directory" 2 "output directories of the parts and -o DIR" "$tmp"/part-0
    run_at 1 join "$tmp"/part-{0,1,2} -o "$tmp/all"
    expect_error "joined before" 4 "all: holds joined results already: give --overwrite"
    run_at 1 join "$tmp"/part-{0,1,2} -o "$tmp/part-1" --overwrite
    expect_error "into a part" 4 "part-1: results.h5 is there, which no join wrote"
    holds "joined results are as before" same_as_before
    run_at 1 join "$tmp"/part-{0,1,2} -o "$tmp/all" --overwrite
    expect_exit "joined again" 0
    holds "again the whole" same_files "$tmp/whole" "$tmp/all"
    run_at 1 join "$tmp"/all "$tmp/part-0" -o "$tmp/none"
    expect_error "the joined and a part" 3 "edit dare-p0.3-seed1 is in both"
    other_jobs
}

rewrite() { # rewrite PART COPY EXPRESSION: its results with another provenance, p, as if the program had written it
    cp -r "$tmp/$1" "$tmp/$2"
    PYTHONPATH=tools $python - "$tmp/$2/results.h5" "$3" <<'P'
import sys
import h5py
import numpy
import results
with h5py.File(sys.argv[1], "r+") as file:
    said = file.attrs["provenance"]
    said = said.decode() if isinstance(said, bytes) else said
    file.attrs["provenance"] = numpy.bytes_(eval(sys.argv[2], {"p": said}).encode())
with open(sys.argv[1], "r+b") as file:
    body = file.read()
    file.write(results.seal_of(body))
P
}

other_jobs() { # parts that were made by other means than --only
    local list='[{name: prune, method: prune, keep: 0.3}]'
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/points" --only prune \
        --set riemann.points=3
    refused "another job" 3 "part-0 and .*points are of different jobs: '.*2.*' against '.*3" \
        "$tmp/part-0" "$tmp/points" -o "$tmp/none"
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/short" --set "edits=$list"
    refused "other lists of edits" 3 "different lists of edits: give the job file.*--job" \
        "$tmp/part-0" "$tmp/short" -o "$tmp/none"
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/dare" --only 'dare-*'
    run_at 1 join --job "$tap_root/job.yaml" "$tmp"/{short,dare} -o "$tmp/jobs"
    expect_exit "with the job file" 0
    holds "with the job file it is the whole" same_files "$tmp/whole" "$tmp/jobs"
    write_job "$tmp/keep.yaml" "${edits/keep: 0.3/keep: 0.4}"
    refused "other parameters under the same id" 3 "short: edit prune was made with other parameters" \
        --job "$tmp/keep.yaml" "$tmp"/{short,dare} -o "$tmp/none"
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/factor" --only 'dare-*' --set edits.0.k=0.3
    refused "a parameter that the job leaves at its default" 3 "factor: edit dare-p0.3-seed1 was made with other" \
        --job "$tap_root/job.yaml" "$tmp"/{short,factor} -o "$tmp/none"
    write_job "$tmp/fewer.yaml" "[{name: prune, method: prune, keep: 0.3}]"
    refused "an edit that the job lacks" 3 "dare: edit dare-p0.3-seed1 is not in the job" \
        --job "$tmp/fewer.yaml" "$tmp"/{short,dare} -o "$tmp/none"
    cp "$tap_root/few.h5" "$tmp/data.h5"
    local set="data=[{name: few, file: $tmp/data.h5, loss: lm}]"
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/d0" --only 0/2 --set "$set"
    cp "$tap_root/task.h5" "$tmp/data.h5"
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/d1" --only 1/2 --set "$set"
    refused "data that changed between" 3 "d0 and .*d1 were made from different models or data" \
        "$tmp"/d{0,1} -o "$tmp/none"
}

change_where_no_piece_lies() { # change_where_no_piece_lies MODEL TENSOR VALUES: of its bf16 values some become 0.5
    $python - "$@" <<'P'
import glob, json, struct, sys
folder, wanted, values = sys.argv[1], sys.argv[2], int(sys.argv[3])
for path in glob.glob(f"{folder}/*.safetensors"):
    raw = bytearray(open(path, "rb").read())
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    for name, tensor in json.loads(raw[8:start]).items():
        if name.endswith(wanted): # between the first and the second of four pieces
            first, end = tensor["data_offsets"]
            at = start + first + (end - first) // 6
            at -= at % 2
            raw[at:at + 2 * values] = b"\x00\x3f" * values
    with open(path, "r+b") as file:
        file.write(raw)
P
}

models_that_changed() { # between two parts, where no piece of a fingerprint lies: one value of the embedding
    local side
    for side in pre post; do
        cp -r share/demo/llama-$side "$tmp/$side"
        run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/${side}0" --only 0/2 --set models.$side="$tmp/$side"
        change_where_no_piece_lies "$tmp/$side" embed_tokens.weight 1
        run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/${side}1" --only 1/2 --set models.$side="$tmp/$side"
        refused "$side changed between" 3 "different models: $tmp/$side has other values since .${side}_digest" \
            "$tmp/$side"{0,1} -o "$tmp/none"
    done
}

a_reference_that_changed() { # no digest is kept of it: what it does to the losses is seen
    cp -r share/demo/llama-post "$tmp/ref"
    local set=(--set "data=[{name: pairs, file: share/demo/preference.h5, loss: dpo, samples: 4, reference: $tmp/ref}]")
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/p0" --only 0/2 "${set[@]}"
    change_where_no_piece_lies "$tmp/ref" down_proj.weight 1500
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/p1" --only 1/2 "${set[@]}"
    run_at 1 join "$tmp"/p{0,1} -o "$tmp/none"
    expect_error "a reference that changed between" 3 "found other losses of the same models"
    holds "nothing is written of them" test -z "$(ls "$tmp/none")"
}

broken_only() {
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/none" --only 5/5
    expect_error "a share from 1" 2 "only 5/5: write I/N with I from 0 to N - 1"
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/none" --only 6/7
    expect_error "more shares than edits" 2 "only 6/7: the job has 5 edits only"
    run_at 1 run "$tap_root/job.yaml" --set output.directory="$tmp/none" --only 'bias*'
    expect_error "no such edit" 2 "only bias\*: no edit of the job has such an id"
    holds "nothing is written" [ ! -e "$tmp/none" ]
}

$python - "$tap_root" <<'P'
import sys
import h5py
for name, first, last in (("few", 0, 7), ("task", 7, 19)):
    with h5py.File("share/demo/task.h5") as whole, h5py.File(f"{sys.argv[1]}/{name}.h5", "w") as few:
        offsets = whole["offsets"][first:last + 1]
        few["offsets"] = offsets - offsets[0]
        for key in ("tokens", "loss_mask"):
            few[key] = whole[key][offsets[0]:offsets[-1]]
P
write_job "$tap_root/job.yaml" "$edits"
parallel=2
part parts_equal_whole 1
part parts_equal_whole 2
part models_that_changed
part a_reference_that_changed
part broken_only
done_testing

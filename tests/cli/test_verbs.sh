#!/usr/bin/env bash
# seconds: 600
# The verbs besides run, the options of all, and the exit codes of wrong command lines.
. "$(dirname "$0")/../support/tap.sh"
parallel=4 limit=60
$models llama "$tap_root/m"
$models plain "$tap_root/plain"
demo=share/demo/llama-post

usage() { # usage REGEX ARGUMENTS...
    run_at 1 "${@:2}"
    expect_error "usage: ${*:2}" 2 "$1"
}
part usage "give a verb"
part usage "unknown verb 'fly'" fly
part usage "unknown verb '--fly'" --fly
part usage "fly" run --fly jobs/demo.yaml
part usage "job file" run
part usage "jobs/demo.yaml|understood" run jobs/demo.yaml jobs/demo.yaml
part usage "memory" run jobs/demo.yaml --memory 8X
part usage "memory" run jobs/demo.yaml --memory -3
part usage "memory|understood" run jobs/demo.yaml --memory
part usage "ranks" plan jobs/demo.yaml --ranks 0
part usage "ranks" plan jobs/demo.yaml --ranks many
part usage "source and a destination" convert $demo
part usage "three" convert one two three
part usage "path of a model" inspect
part usage "two models" diff $demo
part usage "iterations" diff $demo $demo --iterations x
part usage "path of a study" verify
part usage "results.h5" report
part usage "f8" convert $demo "$tap_root/never" --dtype f8

helps() {
    run_at 2 --help
    expect_exit "--help" 0
    holds "--help lists the verbs once" test "$(grep -cE '^  (run|plan|convert|inspect|diff|verify|report) ' \
        "$tmp/out")" = 7
    holds "--help lists the exit codes" grep -q '75 interrupted' "$tmp/out"
    run_at 2 --version
    expect_exit "--version" 0
    holds "--version" grep -qE '^deltapath [0-9]+\.[0-9]+\.[0-9]+$' "$tmp/out"
    local verb
    for verb in run plan machine synthetic convert inspect diff verify report; do
        run_at 1 $verb --help
        expect_exit "$verb --help" 0
        holds "$verb --help shows its use" grep -qi "usage: deltapath $verb" "$tmp/out"
        holds "$verb --help is no error" test ! -s "$tmp/err"
    done
}
part helps

round_trip() { # round_trip NAME MODEL RANKS: to HDF5 and back, with the bytes of every tensor
    run_at "$3" convert "$2" "$tmp/a.h5"
    expect_exit "$1: convert to HDF5 at $3" 0
    holds "$1: same tensors in HDF5" $compare tensors "$2" "$tmp/a.h5"
    run_at 2 convert "$tmp/a.h5" "$tmp/back" --shard-size 1M
    expect_exit "$1: convert to safetensors" 0
    holds "$1: same tensors after the round trip" $compare tensors "$2" "$tmp/back"
    run_at 3 convert "$tmp/back" "$tmp/b.h5"
    holds "$1: same HDF5 after the round trip" $compare tensors "$tmp/a.h5" "$tmp/b.h5"
    run_at 2 convert "$2" "$tmp/a.h5"
    expect_error "$1: convert refuses to overwrite" 4 "a.h5.*--overwrite|a.h5.*exist"
    run_at 1 convert "$2" "$tmp/a.h5" --overwrite
    expect_exit "$1: convert --overwrite" 0
    holds "$1: nothing half written" test -z "$(find "$tmp" -name '*.partial*')"
}
converts() {
    run_at 2 convert share/demo/llama-post/model-00001-of-00002.safetensors "$tmp/half"
    expect_error "convert of one of the files of a model" 3 "00001-of-00002.safetensors: one of the 2 files of a model.*the folder"
    holds "it writes nothing" test ! -e "$tmp/half"
    round_trip demo $demo 2
    holds "the configuration comes back" $python -c "
import json
a, b = (json.load(open(p + '/config.json')) for p in ('$demo', '$tmp/back'))
assert a == b"
    rm -rf "$tmp"/*
    round_trip plain "$tap_root/plain/post" 3
    run_at 2 convert "$tap_root/plain/post" "$tmp/half.h5" --dtype f16
    expect_exit "convert --dtype" 0
    holds "convert --dtype: every tensor has the type" $compare dtypes "$tmp/half.h5" f16
    run_at 2 convert "$tap_root/plain/post/model.safetensors" "$tmp/single.h5"
    expect_exit "convert a single file" 0
    run_at 2 convert "$tap_root/nowhere" "$tmp/c.h5"
    expect_error "convert a missing model" 3 "nowhere"
    run_at 2 convert $demo /proc/nowhere/c.h5
    expect_error "convert to where nothing can be" 4 "/proc/nowhere"
    run_at 2 convert $demo "$tmp/d.h5" --memory 1K
    expect_error "convert without memory" 4 "memory"
    holds "convert without memory leaves nothing" test -z "$(find "$tmp" -name 'd.h5*')"
}
part converts

inspects() {
    run_at 2 inspect $demo
    expect_exit "inspect" 0
    holds "inspect: a tensor" grep -qE '^model.norm.weight +norm +BF16 +\[192\] +192 +384$' "$tmp/out"
    holds "inspect: the total" grep -qE '48 +2263104 +4526208$' "$tmp/out"
    run_at 2 inspect --json "$tap_root/plain/pre"
    expect_exit "inspect --json" 0
    holds "inspect --json: names, types, shapes" $python - "$tmp/out" "$tap_root/plain/pre" <<'P'
import json
import sys
sys.path.insert(0, "tests/support")
from compare import read_model
found = json.load(open(sys.argv[1]))
model = read_model(sys.argv[2])
assert {t["name"]: (t["dtype"], t["shape"]) for t in found["tensors"]} == \
    {name: (dtype, list(data.shape)) for name, (dtype, data) in model.items()}
assert {(t["layer"], t["module"]) for t in found["tensors"]} == {(-1, "other")}
assert found["elements"] == sum(data.size for _, data in model.values())
P
}
part inspects

diffs() {
    run_at 3 diff "$tap_root/plain/pre" "$tap_root/plain/post" --csv "$tmp/d.csv" --iterations 200
    expect_exit "diff" 0
    holds "diff: the figures are NumPy's" $python - "$tmp/d.csv" "$tap_root/plain" <<'P'
import csv
import math
import sys
import numpy as np
sys.path.insert(0, "tests/support")
from compare import read_model, values
pre, post = (read_model(f"{sys.argv[2]}/{m}") for m in ("pre", "post"))
rows = {row["tensor"]: row for row in csv.DictReader(open(sys.argv[1]))}
def near(row, key, want, tolerance):
    got = float(row[key])
    assert math.isclose(got, want, rel_tol=tolerance, abs_tol=1e-12), (row["tensor"], key, got, want)
seen = 0
for name, row in rows.items():
    if name not in post or post[name][1].size == 0:
        continue
    a, b = values(pre[name]).astype(np.float32), values(post[name]).astype(np.float32)
    d = np.abs(b - a).astype(np.float64).ravel()
    wide = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    near(row, "pre", np.linalg.norm(wide[0]), 1e-12)
    near(row, "post", np.linalg.norm(wide[1]), 1e-12)
    near(row, "delta", np.linalg.norm(d), 1e-12)
    near(row, "mean", d.mean(), 1e-12)
    near(row, "zeros", (d == 0).mean(), 1e-12)
    near(row, "cosine", wide[0] @ wide[1] / np.linalg.norm(wide[0]) / np.linalg.norm(wide[1]), 1e-12)
    for key, share in (("q10", .1), ("q50", .5), ("q90", .9), ("q99", .99), ("max", 1.0)):
        rank = max(math.ceil(share * d.size), 1)
        near(row, key, np.sort(d)[rank - 1], 1e-12)
    if a.ndim == 2 and min(a.shape) > 1:
        near(row, "spectral", np.linalg.svd((b - a).astype(np.float64), compute_uv=False)[0], 1e-3)
    seen += 1
assert seen == 8, (seen, list(rows))
P
    cp "$tmp/d.csv" "$tmp/three.csv"
    run_at 1 diff "$tap_root/plain/pre" "$tap_root/plain/post" --csv "$tmp/d.csv" --iterations 0 --overwrite
    run_at 4 diff "$tap_root/plain/pre" "$tap_root/plain/post" --csv "$tmp/four.csv" --iterations 0
    expect_exit "diff without the spectral norm" 0
    holds "diff: same bytes at 1 and 4" cmp "$tmp/d.csv" "$tmp/four.csv"
    run_at 2 diff $demo $demo --csv "$tmp/same.csv"
    expect_exit "diff of a model with itself" 0
    holds "diff: kinds of module" grep -q '^"model.layers.1.mlp.up_proj.weight",1,up,"\[512, 192\]",' "$tmp/same.csv"
    run_at 2 diff "$tap_root/m/pre" $demo
    [[ $code -eq 0 || $code -eq 3 ]]
    ok "diff of models that do not pair lists what differs" $? "exit code $code"
    run_at 2 diff $demo $demo --csv /proc/nowhere.csv
    expect_error "diff: no place for the CSV" 4 "/proc/nowhere.csv"
}
part diffs

verifies() {
    run_at 2 convert $demo "$tmp/v.h5"
    run_at 2 verify "$tmp/v.h5"
    expect_exit "verify a good model" 0
    holds "verify: all hashes" grep -q '48 of 48 stored hashes match' "$tmp/out"
    run_at 1 verify $demo
    expect_exit "verify safetensors" 0
    $python - "$tmp/v.h5" <<'P'
import sys
import h5py
with h5py.File(sys.argv[1]) as file:
    at = file["tensors/model.layers.2.mlp.up_proj.weight"].id.get_offset() + 4321
with open(sys.argv[1], "r+b") as file:
    file.seek(at)
    byte = file.read(1)[0]
    file.seek(at)
    file.write(bytes([byte ^ 1]))
P
    local ranks
    for ranks in 1 3; do
        run_at $ranks verify "$tmp/v.h5"
        expect_error "verify a flipped bit at $ranks" 3 "v.h5.*model.layers.2.mlp.up_proj.weight"
    done
    head -c 100000 $demo/model-00001-of-00002.safetensors >"$tmp/cut.safetensors"
    run_at 2 verify "$tmp/cut.safetensors"
    expect_error "verify a file that was cut off" 3 "cut.safetensors"
    run_at 1 verify README.md
    expect_error "verify what is no model" 3 "README.md"
}
part verifies

cat >"$tap_root/job.yaml" <<Y
name: little
models: {pre: $tap_root/m/pre, post: $tap_root/m/post}
data: [{name: task, file: $tap_root/m/data.h5, loss: lm}]
edits: [{name: dare, method: dare, p: [0.2, 0.5]}, {name: twin, method: lowrank, rank: 2}]
riemann: {rule: midpoint, points: 2}
output: {directory: $tap_root/study, checkpoint: none}
Y

reports() {
    run_at 2 run "$tap_root/job.yaml"
    expect_exit "run with a report" 0
    holds "results are all there" test -s "$tap_root/study/results.h5" -a -s "$tap_root/study/summary.csv" \
        -a -s "$tap_root/study/results.json"
    run_at 2 verify "$tap_root/study/results.h5"
    expect_exit "verify results" 0
    holds "results.json holds" $python - "$tap_root/study" <<'P'
import csv
import json
import sys
import h5py
units = json.load(open(sys.argv[1] + "/results.json"))["units"]
rows = list(csv.DictReader(open(sys.argv[1] + "/summary.csv")))
assert [u["edit"] for u in units] == ["dare-p0.2", "dare-p0.5", "twin"] == [r["edit"] for r in rows]
with h5py.File(sys.argv[1] + "/results.h5") as file:
    for unit, row in zip(units, rows):
        group = file[f"edits/{unit['edit']}/task"]
        assert group["terms"].size == 2 * len(file["tensors/names"])
        assert float(row["change"]) == unit["change"]
        assert abs(group["integrated"][:].sum() - unit["estimate"]) < 1e-9
P
    if command -v gnuplot >/dev/null; then
        holds "report.html" test -s "$tap_root/study/report.html"
        run_at 1 report "$tap_root/study/results.h5" -o "$tmp/again.html" --csv-dir "$tmp/plots"
        expect_exit "report" 0
        holds "report: self-contained, with plots" $python - "$tmp/again.html" <<'P'
import re
import sys
text = open(sys.argv[1]).read()
assert text.count("<svg") >= 3, text.count("<svg")
assert not re.search(r'(src|href)="(https?:)?//', text)
assert "dare-p0.5" in text and "little" in text
P
    else
        skip "report" "no gnuplot"
    fi
    run_at 1 report "$tap_root/study/results.h5" -o /proc/nowhere.html
    expect_error "report: no place for it" 4 "/proc/nowhere.html"
    run_at 1 report $demo/config.json -o "$tmp/no.html"
    expect_error "report of what is no result" 3 "config.json"
    head -c 2000 "$tap_root/study/results.h5" >"$tmp/cut.h5"
    run_at 2 report "$tmp/cut.h5" -o "$tmp/no.html"
    expect_error "report of results that were cut off" 3 "cut.h5"
    holds "no report of broken results" test ! -e "$tmp/no.html"
}
part reports

plans() {
    run_at 1 plan jobs/demo.yaml --ranks 512 --memory 16G --set output.directory="$tmp/never"
    expect_exit "plan" 0
    holds "plan: the mesh of 512 ranks" awk '/^  mesh / {ranks = $2 * $5} END {exit ranks != 512}' "$tmp/out"
    holds "plan: memory, work, bytes" test "$(grep -cE 'MiB$|Tflop$|GB$' "$tmp/out")" -ge 9
    run_at 1 plan jobs/demo.yaml --ranks 1 --memory 2M
    expect_error "plan beyond the memory" 4 "memory"
    run_at 2 run jobs/demo.yaml --dry-run --set output.directory="$tmp/never"
    expect_exit "--dry-run" 0
    holds "--dry-run writes nothing" test ! -e "$tmp/never"
    run_at 2 run jobs/demo.yaml --dry-run --set models.pre=nowhere
    expect_error "--dry-run checks the models" 3 "nowhere"
    run_at 3 run jobs/demo.yaml --dry-run --set tensor_parallel=2
    expect_error "--dry-run checks the mesh" 2 "tensor_parallel.*2.*3"
    holds "a plan that is none is not printed" test ! -s "$tmp/out"
    run_at 2 run jobs/demo.yaml --dry-run --set 'edits=[{name: a, method: lowrank, rank: 100000}]'
    expect_error "--dry-run checks ranks against the tensors" 2 "edit a: lowrank: rank: 100000 .*tensor"
    run_at 2 run jobs/demo.yaml --dry-run --set svd_group=3
    expect_error "--dry-run checks svd_group" 2 "svd_group: 3"
    run_at 2 run jobs/demo.yaml --dry-run --set 'margin={absolute: 0}'
    expect_error "a margin of 0" 2 "--set margin=.*absolute margin is 0"
    run_at 2 run jobs/demo.yaml --dry-run --set 'margin={share: 0}'
    expect_error "a share of 0" 2 "--set margin=.*margin.share is 0 .*absolute: NATS"
    run_at 2 run jobs/demo.yaml --dry-run --set 'margin={share: 0, absolute: 0.01}' --set output.directory="$tmp/never"
    expect_exit "an absolute margin and no share" 0
    mkdir -p "$tmp/old/units" && touch "$tmp/old/units/one"
    run_at 2 run jobs/demo.yaml --dry-run --set output.directory="$tmp/old"
    expect_error "--dry-run finds a study in the way" 4 "$tmp/old: holds a study"
    run_at 2 run jobs/demo.yaml --dry-run --set output.directory="$tmp/old/units/one/deep"
    expect_error "--dry-run checks the output" 4 "units/one: is no directory"
}
part plans
done_testing

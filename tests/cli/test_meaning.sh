#!/usr/bin/env bash
# seconds: 600
# Input that is well-formed and yet not what the user means: words that are nearly right, files of another
# kind, models and data that do not belong together. One line says so; no verdict is given on it.
. "$(dirname "$0")/../support/tap.sh"
parallel=4 limit=90
$models llama "$tap_root/m"
m=$tap_root/m

cat >"$tap_root/job.yaml" <<Y
name: little
models: {pre: $m/pre, post: $m/post}
data: [{name: task, file: $m/data.h5, loss: lm}]
edits: [{name: dare, method: dare, p: 0.2}, {name: bits, method: bitdelta}]
riemann: {rule: midpoint, points: 1}
output: {directory: $tap_root/study, report: false}
Y

job() { # job RANKS ARGUMENTS...: the study with changes, its results in $tmp/study
    run_at "$1" run "$tap_root/job.yaml" --set output.directory="$tmp/study" "${@:2}"
}

# Words that are nearly right.
meant() { # meant NAME WORD ARGUMENTS...: the error suggests WORD
    run_at 1 "${@:3}"
    expect_error "did you mean: $1" 2 "did you mean '$2'\\?"
}
set_meant() { # set_meant NAME WORD KEY=VALUE
    meant "$1" "$2" run "$tap_root/job.yaml" --dry-run --set output.directory="$tmp/study" --set "$3"
}
part meant "verb" inspect inpsect "$m/pre"
part meant "option" --dtype convert "$m/pre" "$tap_root/never" --dytpe f16
part meant "option with a value" --memory run "$tap_root/job.yaml" --memroy=1G
part meant "path of a job" "$tap_root/job.yaml" run "$tap_root/jbo.yaml"
part set_meant "key" riemann 'reimann.points=3'
part set_meant "key inside" directory 'output={dir: x}'
part set_meant "method" lowrank 'edits=[{name: a, method: low_rank, rank: 2}]'
part set_meant "parameter" rescale 'edits=[{name: a, method: dare, p: 0.5, rescal: l1}]'
part set_meant "key of an entry" calibrate 'edits=[{name: a, method: dare, p: 0.5, callibrate: term}]'
part set_meant "choice of a parameter" exact 'edits=[{name: a, method: dare, p: 0.5, rescale: exakt}]'
part set_meant "loss" lm 'data=[{name: task, file: x, loss: llm}]'
part set_meant "rule" trapezoid 'riemann.rule=trapezoidal'
part set_meant "checkpoint" safetensors 'output.checkpoint=safetensor'
part set_meant "type" bf16 'output.dtype=bfl6'
part set_meant "name of a data set" task 'edits=[{name: a, method: bias, by: gradient, k: 0, p: 0.5, data: tsak}]'
paths_meant() {
    job 1 --dry-run --set models.pre="$m/per"
    expect_error "did you mean: a model" 3 "per: .*did you mean '$m/pre'"
    job 1 --dry-run --set data.0.file="$m/dat.h5"
    expect_error "did you mean: a data set" 3 "dat.h5: .*did you mean '$m/data.h5'"
    job 1 --dry-run --set models.pre="$m/elsewhere"
    expect_error "a path that resembles nothing" 3 "elsewhere: there is no such model: check"
}
part paths_meant
done_testing

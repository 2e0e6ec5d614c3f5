#!/usr/bin/env bash
# seconds: 600
# Input that is well-formed and yet not what the user means: words that are nearly right, files of another
# kind, models and data that do not belong together. One line says so; no verdict is given on it.
. "$(dirname "$0")/../support/tap.sh"
parallel=4 limit=90
$models llama "$tap_root/m"
m=$tap_root/m demo=$PWD/share/demo

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

# The two models swapped: the demo's pair, whose gain is clear.
units() { # units RESULTS.json CONDITION on every unit u
    $python - "$1" "$2" <<'P'
import json
import sys
units = json.load(open(sys.argv[1]))["units"]
assert units and all(eval(sys.argv[2]) for u in units), [
    (u["verdict"], u["reason"], u["share"], u["margin"]) for u in units]
P
}
swapped() {
    job 2 --set models.pre="$demo/llama-post" --set models.post="$demo/llama-pre" \
        --set data.0.file="$demo/task.h5" --set data.0.samples=16 --set output.report=true
    expect_exit "swapped models" 0
    holds "swapped: one warning before the edits" test "$(grep -c 'warning: task: .*swapped?' "$tmp/err")" = 1
    holds "swapped: one in the summary" test "$(grep -c '^warning: .*swapped?' "$tmp/out")" = 1
    holds "swapped: nothing is competitive" units "$tmp/study/results.json" \
        'u["verdict"] == "undecided" and "swapped?" in u["reason"] and u["share"] is None and u["margin"] is None'
    holds "swapped: the reason stands in the table" test "$(grep -c 'swapped?' "$tmp/study/summary.csv")" = 2
    if command -v gnuplot >/dev/null; then
        holds "swapped: the report says so" grep -q 'Warning: .*swapped?' "$tmp/study/report.html"
    fi
    job 2 --set models.pre="$demo/llama-post" --set models.post="$demo/llama-pre" \
        --set data.0.file="$demo/task.h5" --set data.0.samples=16 --set margin.absolute=100 --set output.overwrite=true
    expect_exit "swapped models with an absolute margin" 0
    holds "swapped: nor within an absolute margin" units "$tmp/study/results.json" \
        'u["verdict"] == "undecided" and "swapped?" in u["reason"] and u["margin"] == 100'
}
part swapped

# A model whose loss is no number: one line names it, and nothing is judged.
broken() { # broken SIDE
    cp -r "$m" "$tmp/m"
    $python - "$tmp/m/$1" <<'P'
import json, pathlib, struct, sys
path = pathlib.Path(sys.argv[1]) / "model.safetensors"
raw = bytearray(path.read_bytes())
n, = struct.unpack("<Q", raw[:8])
at = json.loads(raw[8:8 + n])["model.norm.weight"]
assert at["dtype"] == "BF16"
first, last = (8 + n + offset for offset in at["data_offsets"])
raw[first:last] = b"\x96\x7e" * at["shape"][0]  # 1e38
path.write_bytes(raw)
P
    job 2 --set "models={pre: $tmp/m/pre, post: $tmp/m/post}" --set margin.absolute=1e6 \
        --set "select={include: ['model.layers.*']}"
    expect_exit "broken $1" 0
    holds "broken $1: one warning names model and sample" test "$(grep -c "warning: task: the loss of $tmp/m/$1 is .* on sample [0-9]" "$tmp/err")" = 1
    holds "broken $1: nothing of zero" test "$(cat "$tmp/err" "$tmp/out" | grep -c 'distinguishable\|cannot be told\|-nan')" = 0
    holds "broken $1: undecided" units "$tmp/study/results.json" \
        "u['verdict'] == 'undecided' and '$1-trained model is not finite' in u['reason']"
}
part broken pre
part broken post

# Files of another kind in a model's place: one line names them, and no warnings come first.
foreign=$tap_root/foreign
$models foreign "$foreign"
named() { # named FOLDER REGEX: as the post-trained model
    job 1 --dry-run --set models.post="$foreign/$1"
    expect_error "named: $1" 3 "$foreign/$1: .*$2"
    holds "named: $1: nothing but the line" test "$(wc -l <"$tmp/err")" = 1
}
part named awq "AWQ or GPTQ: tensor .*qweight'; quant_method awq in config.json.*dequantize_model"
part named gptq "GPTQ: tensor .*g_idx'; quant_method gptq in config.json.*dequantize_model"
part named fp4 "scales of weights that are not f8.*quant_method fp8"
part named fp8-bare "FP8"
part named int8 "bitsandbytes int8.*dequantize\(\)"
part named nf4 "bitsandbytes 4 bit"
part named hqq "in a form that is not known.*W_q'; quant_method hqq in config.json.*remove the key"
part named packed "compressed-tensors"
part named lora/adapter_model.safetensors "LoRA adapter.*adapter_config.json.*merge_and_unload"
part named lora-bin "adapter.*merge_and_unload"
part named lfs "model-0000.-of-00003.safetensors and 2 more files: Git LFS pointers.*git lfs pull"
part named lfs-tokenizer "tokenizer.json: Git LFS pointers"
part named bin "PyTorch weights \(pytorch_model-00001-of-00002.bin\).*convert_checkpoint.py $foreign/bin "
part named bin/pytorch_model-00001-of-00002.bin "PyTorch weights.*convert_checkpoint.py .*\.bin NEW"
part named pth "PyTorch weights \(consolidated"
part named gguf "GGUF.*convert_checkpoint.py $foreign/gguf "
part named gguf/model-Q4_K_M.gguf "GGUF.*convert_checkpoint.py .*\.gguf NEW"
part named flax "flax_model.msgpack"
part named models--org--name "snapshots/"
two_models() { # in one folder
    cp -r "$m/post" "$tmp/both" && cp "$m/pre/model.safetensors" "$tmp/both/model-00001-of-00001.safetensors"
    job 2 --set models.post="$tmp/both" # the whole study: it opens the model again at the end
    expect_exit "one file and shards" 0
    holds "one file and shards: a warning" \
        test "$(grep -c 'warning: .*/both: holds model.safetensors and 1 shards: ' "$tmp/err")" = 1
    rm -rf "$tmp/study"
    cp -r "$m/post" "$tmp/adapted" && cp "$foreign/lora/"* "$tmp/adapted"
    job 2 --dry-run --set models.post="$tmp/adapted"
    expect_exit "a model and an adapter" 0
    holds "a model and an adapter: a warning" \
        test "$(grep -c 'warning: .*/adapted: holds a PEFT adapter' "$tmp/err")" = 1
}
part two_models
unknown_key() {
    cp -r "$m/pre" "$tmp/odd" && sed -i 's/"hidden_act"/"softmax_shift": 0.5, "hidden_act"/' "$tmp/odd/config.json"
    job 2 --dry-run --set models.pre="$tmp/odd"
    expect_exit "a key that nobody knows" 0
    holds "a key that nobody knows: one warning" \
        test "$(grep -c 'warning: .*/odd: config.json has keys .*: softmax_shift$' "$tmp/err")/$(wc -l <"$tmp/err")" = 1/1
}
part unknown_key
tied() { # a head in the file that config.json ties to the embedding
    $models llama "$tmp/t"
    sed -i 's/"tie_word_embeddings": false/"tie_word_embeddings": true/' "$tmp"/t/*/config.json
    local ranks at="models={pre: $tmp/t/pre, post: $tmp/t/post}"
    for ranks in 1 3; do
        job $ranks --dry-run --set "$at"
        expect_error "tied, and another head, at $ranks" 3 "t/pre: lm_head.weight has other .*configuration of $tmp/t/post ties it: write .tie_word_embeddings: false. there"
    done
    job 2 --dry-run --set "$at" --set models.pre="$m/pre"
    expect_error "tied by post alone" 3 "m/pre: lm_head.weight has other .*configuration of $tmp/t/post ties"
    job 2 --dry-run --set "$at" --set models.post="$m/post"
    expect_error "tied by pre alone" 3 "t/pre: lm_head.weight has other .*configuration of $tmp/t/pre ties"
    job 2 --dry-run --set "$at" --set riemann=off --set output.checkpoint=hdf5
    expect_exit "tied, and another head, in edits alone" 0
    $python - "$tmp/t" <<'P'
import sys
sys.path.insert(0, "tests/support")
from compare import read_model
for side in ("pre", "post"):
    file = f"{sys.argv[1]}/{side}/model.safetensors"
    raw = open(file, "rb").read()
    tensors = read_model(file)
    head, embedding = (tensors[n][1].tobytes() for n in ("lm_head.weight", "model.embed_tokens.weight"))
    at = raw.index(head)
    open(file, "wb").write(raw[:at] + embedding + raw[at + len(head):])
P
    for ranks in 1 3; do
        job $ranks --dry-run --set "$at"
        expect_exit "tied, and a copy, at $ranks" 0
        holds "tied, and a copy, at $ranks: no warning of it" test "$(grep -c 'warning.*lm_head' "$tmp/err")" = 0
        job $ranks --set "$at" --set output.checkpoint=safetensors
        expect_exit "tied, and a copy: edited at $ranks" 0
        $python - "$tmp/study/models" "$tmp/t/post" <<'P'
import sys
sys.path.insert(0, "tests/support")
from compare import read_model
post = read_model(sys.argv[2] + "/model.safetensors")["model.embed_tokens.weight"][1].tobytes()
for edit in ("dare", "bits"):
    tensors = read_model(f"{sys.argv[1]}/{edit}/model.safetensors")
    head, embedding = (tensors[n][1].tobytes() for n in ("lm_head.weight", "model.embed_tokens.weight"))
    if head != embedding or (edit == "dare" and head == post):
        sys.exit(f"{edit}: {head == embedding}")
P
        holds "tied, and a copy: written as the edited embedding at $ranks" test $? = 0
        run_at $ranks verify "$tmp/study/models/dare"
        expect_exit "tied, and a copy: its hash is good at $ranks" 0
        rm -rf "$tmp/study"
    done
    job 1 --dry-run --set "$at" --set 'select={exclude: [lm_head.weight]}'
    holds "tied, and a copy that is excluded: nothing is said" test ! -s "$tmp/err"
    for ranks in 1 3; do
        job $ranks --set "$at" --set "select={include: [lm_head.weight]}"
        expect_error "tied, and the copy alone at $ranks" 2 "--set select=.*: select: lm_head.weight alone is left .*select model.embed_tokens.weight"
        job $ranks --set "$at" --set riemann=off --set "select={include: [lm_head.weight]}" --set output.checkpoint=hdf5
        expect_error "tied, and the copy alone, in edits alone at $ranks" 2 "select: lm_head.weight alone is left .*select model.embed_tokens.weight"
        rm -rf "$tmp/study"
    done
}
part tied
tied_by_default() { # no key: the family ties
    $models llama "$tmp/t"
    sed -i 's/LlamaForCausalLM/SmolLM3ForCausalLM/; s/"model_type": "llama"/"model_type": "smollm3"/; s/"tie_word_embeddings": false/"use_cache": true/' "$tmp"/t/*/config.json
    job 2 --dry-run --set "models={pre: $tmp/t/pre, post: $tmp/t/post}"
    expect_error "tied by default, and another head" 3 "t/pre: lm_head.weight has other .*ties it: write .tie_word_embeddings: false. there"
}
part tied_by_default
others() {
    job 1 --dry-run --set models.pre=meta-llama/Llama-3.1-8B
    expect_error "named: a hub model" 3 "hf download meta-llama/Llama-3.1-8B --local-dir Llama-3.1-8B"
    job 1 --dry-run --set models.pre="$m/data.h5"
    expect_error "named: a data set as a model" 3 "data.h5: .*a data set, which belongs under"
    run_at 2 convert "$m/pre" "$tmp/pre.h5"
    job 1 --dry-run --set data.0.file="$tmp/pre.h5"
    expect_error "named: a model as a data set" 3 "pre.h5: a model, not a data set"
    job 1 --dry-run --set data.0.file="$m/pre"
    expect_error "named: a folder as a data set" 3 "m/pre: a folder"
    job 1 --dry-run --set data.0.file="$foreign/lfs.h5"
    expect_error "named: a pointer as a data set" 3 "git lfs pull"
    run_at 1 diff "$m/pre" "$foreign/gptq"
    expect_error "named: by diff" 3 "gptq: quantised"
    run_at 1 inspect "$foreign/gptq"
    expect_exit "inspect looks at any tensors" 0
    job 2
    job 1 --dry-run --set models.pre="$tmp/study/results.h5"
    expect_error "named: results as a model" 3 "results.h5: .*the results of a study"
    job 1 --dry-run --set data.0.file="$tmp/study/results.h5"
    expect_error "named: results as a data set" 3 "results.h5: the results of a study, not a data set"
    local unit
    unit=$(find "$tmp/study/units" -name '*.h5' | head -n 1)
    job 1 --dry-run --set models.pre="$unit"
    expect_error "named: a unit as a model" 3 "the result of one edit"
    job 1 --dry-run --set models.pre="$demo/vit-pre" --set data=[]
    expect_error "many mismatches" 3 "first of [0-9]+ mismatches"
    holds "many mismatches are one line a kind" test "$(wc -l <"$tmp/err")" = 3
}
part others
idle() {
    job 1 --dry-run --set 'edits=[{name: a, method: bitdelta, multiple: [1, 2, 3, 4, 5, 6, 7]}]' \
        --set 'select={include: ["*norm*"]}'
    expect_exit "many edits that cover nothing" 0
    holds "many edits that cover nothing are one line" \
        test "$(grep -c 'warning: edit a-multiple1 and 6 more: .*cover none' "$tmp/err")/$(wc -l <"$tmp/err")" = 1/1
}
part idle
homes() { # paths that a shell has not expanded
    mkdir "$tmp/home" && ln -s "$m" "$tmp/home/m"
    HOME=$tmp/home run_at 2 run "$tap_root/job.yaml" --set "models={pre: ~/m/pre, post: ~/m/post}" \
        --set 'data=[{name: task, file: ~/m/data.h5, loss: lm}]' --set output.directory='~/study'
    expect_exit "~/ in a job" 0
    holds "~/ in a job: results are there" test -s "$tmp/home/study/results.h5"
    HOME=$tmp/home run_at 1 convert '~/m/pre' '~/copy.h5'
    expect_exit "~/ on the command line" 0
    holds "~/ on the command line: the copy is there" test -s "$tmp/home/copy.h5"
    job 1 --dry-run --set 'models.pre=$SCRATCH/pre'
    expect_error "a variable in a job" 2 "SCRATCH/pre: variables are not expanded"
    holds "nothing is made of it" test ! -e '~'
}
part homes

# Values that another type cannot hold.
large() { # large FILE TENSOR ELEMENT VALUE [MODEL]: a copy in f32 of a model, post by itself, with one value
    run_at 1 convert "$m/${5:-post}" "$tmp/$1" --dtype f32
    $python - "$tmp/$1" "$2" "$3" "$4" <<'P'
import sys
import h5py
with h5py.File(sys.argv[1], "r+") as file:
    set = file["tensors/" + sys.argv[2]]
    values = set[:]
    values.flat[int(sys.argv[3])] = float(sys.argv[4])
    set[:] = values
    del set.attrs["xxh3"]
    file.attrs.pop("sealed", None)
P
}
overflows() {
    local up=model.layers.1.mlp.up_proj.weight ranks
    large large.h5 $up 37 1e6
    for ranks in 1 3; do
        run_at $ranks convert "$tmp/large.h5" "$tmp/half" --dtype f16
        expect_error "1e6 in f16 at $ranks" 3 "large.h5: tensor '$up': the value 1000000 at element 37 .*F16: .*bf16"
        holds "1e6 in f16 at $ranks: nothing is written" test -z "$(find "$tmp" -name 'half*')"
    done
    run_at 2 convert "$tmp/large.h5" "$tmp/brain" --dtype bf16
    expect_exit "1e6 in bf16" 0
    job 2 --set models.post="$tmp/large.h5" --set output.dtype=f16 --set 'edits=[{name: e, method: expo, alpha: 0}]'
    expect_error "1e6 in a study in f16" 3 "edit e: tensor '$up': the edited value at index 37 is beyond the range of F16 .1000000"
    rm -rf "$tmp/study"
    job 2 --set models.post="$tmp/large.h5" --set output.dtype=f16 --set "select={exclude: [$up]}"
    expect_error "1e6 in a tensor that is not edited" 3 "tensor '$up': the post-trained value at index 37, 1000000, .*F16"
    large huge.h5 lm_head.weight 5 3.4e38
    run_at 2 convert "$tmp/huge.h5" "$tmp/brain2" --dtype bf16
    expect_error "3.4e38 in bf16" 3 "huge.h5: tensor 'lm_head.weight': the value 3[.]39.*e.38 at element 5 .*BF16: .*f32"
    large nan.h5 $up 7 nan pre
    for ranks in 1 3; do
        rm -rf "$tmp/study"
        job $ranks --set models.pre="$tmp/nan.h5"
        expect_error "a NaN in the pre-trained model at $ranks" 3 "nan.h5: .*$up: element 7 is not a finite"
    done
    large small.h5 model.norm.weight 3 1e-9
    run_at 3 convert "$tmp/small.h5" "$tmp/half" --dtype f16
    expect_exit "1e-9 in f16" 0
    holds "1e-9 in f16 is counted" grep -q 'warning: .*/half: 1 values are too small for f16' "$tmp/err"
    large nothing.h5 model.norm.weight 3 0 pre # so that pre + delta has the bits of 1e-9
    for ranks in 1 3; do # of a tensor that is edited, and of one that is only converted
        rm -rf "$tmp/study"
        job $ranks --set models.pre="$tmp/nothing.h5" --set models.post="$tmp/small.h5" --set output.dtype=f16 \
            --set 'edits=[{name: e, method: expo, alpha: 0}]'
        expect_exit "1e-9 in a study in f16 at $ranks" 0
        holds "1e-9 in a study in f16 at $ranks is counted" \
            test "$(grep -c 'warning: e: 1 values are too small for F16 and become 0' "$tmp/err")" = 1
        rm -rf "$tmp/study"
        job $ranks --set models.post="$tmp/small.h5" --set output.dtype=f16 --set 'select={exclude: [model.norm.weight]}' \
            --set 'edits=[{name: e, method: expo, alpha: 0}]'
        holds "1e-9 in a tensor that is not edited, at $ranks, is counted" \
            test "$(grep -c 'warning: e: 1 values are too small for F16 and become 0' "$tmp/err")" = 1
    done
    rm -rf "$tmp/study"
    job 2 --set models.post="$tmp/small.h5" --set 'edits=[{name: e, method: expo, alpha: 0}]'
    holds "1e-9 in f32 is kept" test "$code/$(grep -c 'too small' "$tmp/err")" = 0/0
}
part overflows

# Data of another tokenizer.
tokenizers() {
    cp -r "$m" "$tmp/m"
    $python - "$tmp/m" <<'P'
import json
import os
import sys
words = {f"t{i}": i for i in range(64)}
def tokenizer(vocab, **more):
    return {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab}, **more}
texts = {"pre": json.dumps(tokenizer(words)),
         "post": json.dumps(tokenizer(dict(reversed(words.items())), padding={"x": [1]}), indent=3),
         "other": json.dumps(tokenizer({f"t{63 - i}": i for i in range(64)}))}
os.mkdir(f"{sys.argv[1]}/other")
for name, text in texts.items():
    open(f"{sys.argv[1]}/{name}/tokenizer.json", "w").write(text)
open(f"{sys.argv[1]}/in.jsonl", "w").write('{"prompt": [2, 3], "response": [4, 5]}\n{"prompt": [6], "response": [7]}\n')
P
    local name at="models={pre: $tmp/m/pre, post: $tmp/m/post}"
    for name in pre other; do
        holds "prepare_data: $name" $python tools/prepare_data.py "$tmp/m/in.jsonl" --tokenizer "$tmp/m/$name" \
            --vocab-size 64 -o "$tmp/$name.h5"
    done
    job 2 --dry-run --set "$at" --set data.0.file="$tmp/pre.h5"
    expect_exit "data of the model's tokenizer, formatted otherwise" 0
    holds "the same tokenizer: nothing is said" test ! -s "$tmp/err"
    job 2 --set "$at" --set data.0.file="$tmp/other.h5"
    expect_error "data of another tokenizer" 3 "other.h5: was made with another tokenizer .*--tokenizer $tmp/m/post.*allow"
    job 2 --dry-run --set "$at" --set data.0.file="$tmp/other.h5" --set 'allow=[other-tokenizer]'
    expect_exit "data of another tokenizer, allowed" 0
    holds "data of another tokenizer, allowed: a warning" grep -q 'warning: .*other.h5: was made with another' "$tmp/err"
    run_at 1 convert "$tmp/m/post" "$tmp/post.h5"
    job 3 --dry-run --set "models={pre: $tmp/m/pre, post: $tmp/post.h5}" --set data.0.file="$tmp/other.h5"
    expect_error "data of another tokenizer than that in an HDF5 checkpoint" 3 "other.h5: was made with another"
    cp "$tmp/m/other/tokenizer.json" "$tmp/m/pre"
    job 1 --dry-run --set "$at" --set data.0.file="$tmp/pre.h5"
    expect_exit "a pair of two tokenizers" 0
    holds "a pair of two tokenizers: a warning" test "$(grep -c 'warning: .*different tokenizers' "$tmp/err")" = 1
    job 2 --dry-run --set "$at"
    holds "data without a tokenizer, of a model with one: a warning" \
        test "$(grep -c 'warning: .*data.h5: records no tokenizer: .*prepare_data.py --tokenizer' "$tmp/err")" = 1
    job 1 --dry-run --set "models={pre: $demo/llama-pre, post: $demo/llama-post}" --set data.0.file="$demo/task.h5"
    holds "data of the demo record theirs" test "$(grep -c tokenizer "$tmp/err")" = 0
    unset DELTAPATH_QUIET
    job 1 --dry-run
    holds "what is not recorded is said once" test "$(grep -c 'records no tokenizer' "$tmp/err")" = 1
    $python -c "
import h5py, sys
h5py.File(sys.argv[1], 'r+').attrs['tokenizer_hash'] = 'short'" "$tmp/pre.h5"
    job 1 --dry-run --set "$at" --set data.0.file="$tmp/pre.h5"
    expect_error "a hash that is none" 3 "pre.h5: the attribute tokenizer_hash"
}
part tokenizers

# Data of a tokenizer with the same vocabulary and other rules.
rules() {
    cp -r "$m" "$tmp/m"
    $python - "$tmp/m" <<'P'
import json
import os
import sys
def write(name, post, **config):
    os.makedirs(f"{sys.argv[1]}/{name}", exist_ok=True)
    mark = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": post, "type_id": 0}}],
            "special_tokens": {post: {"ids": [1], "tokens": [post]}, "\u00e9": {"share": 0.1}}}
    whole = {"added_tokens": [{"id": 1, "content": "t1", "lstrip": False, "special": True}],
             "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
             "post_processor": mark, "model": {"type": "WordLevel", "vocab": {f"t{i}": i for i in range(64)}}}
    with open(f"{sys.argv[1]}/{name}/tokenizer.json", "w") as file:
        json.dump(whole, file, ensure_ascii=name == "pre", indent=2 if name == "post" else None)
    with open(f"{sys.argv[1]}/{name}/tokenizer_config.json", "w") as file:
        json.dump({"bos_token": {"content": "t1", "lstrip": False}, "model_max_length": 10**30, **config}, file)
write("pre", "t1", add_bos_token=True)
write("post", "t2", add_bos_token=True)
write("mark", "t3", add_bos_token=True)
write("config", "t2", add_bos_token=False)
open(f"{sys.argv[1]}/in.jsonl", "w").write('{"prompt": [2, 3], "response": [4, 5]}\n{"prompt": [6], "response": [7]}\n')
P
    local name at="models={pre: $tmp/m/pre, post: $tmp/m/post}"
    for name in pre post mark config; do
        holds "prepare_data: rules of $name" $python tools/prepare_data.py "$tmp/m/in.jsonl" \
            --tokenizer "$tmp/m/$name" --vocab-size 64 -o "$tmp/$name.h5"
    done
    run_at 2 convert "$tmp/m/post" "$tmp/model.h5"
    for name in pre post; do
        job 2 --dry-run --set "$at" --set data.0.file="$tmp/$name.h5"
        expect_exit "data by the rules of $name" 0
        job 1 --dry-run --set "$at" --set models.post="$tmp/model.h5" --set data.0.file="$tmp/$name.h5"
        expect_exit "data by the rules of $name, the model in HDF5" 0
        holds "data by the rules of $name: nothing is said" test ! -s "$tmp/err"
    done
    for name in mark config; do
        job 3 --dry-run --set "$at" --set data.0.file="$tmp/$name.h5"
        expect_error "data by the rules of $name" 3 \
            "$name.h5: was made with a tokenizer of the same vocabulary and other rules .*$tmp/m/pre and $tmp/m/post.*allow"
    done
    job 2 --dry-run --set "$at" --set data.0.file="$tmp/mark.h5" --set 'allow=[other-tokenizer]'
    expect_exit "data by other rules, allowed" 0
    holds "data by other rules, allowed: a warning" \
        test "$(grep -c 'warning: .*mark.h5: was made with a tokenizer of other rules' "$tmp/err")" = 1
    $python -c "
import h5py, sys
h5py.File(sys.argv[1], 'r+').attrs.__delitem__('tokenizer_rules')
h5py.File(sys.argv[2], 'r+').attrs['tokenizer_rules'] = '0123'" "$tmp/mark.h5" "$tmp/config.h5"
    job 1 --dry-run --set "$at" --set data.0.file="$tmp/config.h5"
    expect_error "rules that are none" 3 "config.h5: the attribute tokenizer_rules"
    unset DELTAPATH_QUIET
    job 1 --dry-run --set "$at" --set data.0.file="$tmp/mark.h5"
    expect_exit "data without rules" 0
    holds "data without rules: what is not checked is said once" \
        test "$(grep -c 'mark.h5: records no rules of its tokenizer' "$tmp/err")" = 1
}
part rules

# Samples that tell less than their number, and attributes that say something else.
altered() { # altered FILE STATEMENT: a copy of the data, changed; s are its samples as (tokens, mask)
    $python - "$m/data.h5" "$tmp/$1" "$2" <<'P'
import sys
import h5py
import numpy as np
with h5py.File(sys.argv[1]) as file:
    ends = file["offsets"][:]
    s = [(file["tokens"][a:b], file["loss_mask"][a:b]) for a, b in zip(ends, ends[1:])]
with h5py.File(sys.argv[2], "w") as out:
    exec(sys.argv[3])
    out["tokens"] = np.concatenate([x[0] for x in s])
    out["loss_mask"] = np.concatenate([x[1] for x in s])
    out["offsets"] = np.cumsum([0] + [len(x[0]) for x in s])
P
}
doubtful() {
    altered copies.h5 's = s[:1] * 7'
    altered twice.h5 's = s + s[:4]'
    altered weighted.h5 'out["weights"] = [1e300] + [1.0] * (len(s) - 1)'
    altered vocabulary.h5 'out.attrs["vocab_size"] = 65'
    altered padded.h5 's = [(np.minimum(x, 59), y) for x, y in s]; out.attrs["vocab_size"] = 60'
    altered kind.h5 'out.attrs["kind"] = "dpo"'
    local ranks
    for ranks in 1 3; do
        job $ranks --set data.0.file="$tmp/copies.h5" --set margin.absolute=100
        expect_exit "copies of one sample, at $ranks" 0
        holds "copies of one sample, at $ranks: a warning" \
            test "$(grep -c 'warning: task: 6 of 7 samples repeat others: intervals' "$tmp/err")" = 1
        holds "copies of one sample, at $ranks: no verdict and no interval" units "$tmp/study/results.json" \
            'u["verdict"] == "undecided" and "one sample in effect" in u["reason"] and u["change_low"] is u["bootstrap_low"] is u["p_change"] is None'
        rm -rf "$tmp/study"
    done
    job 2 --set data.0.file="$tmp/twice.h5" --set margin.absolute=100 --set accuracy_margin=0
    expect_exit "some samples twice" 0
    holds "some samples twice: a warning" grep -q 'warning: task: 4 of 13 samples repeat others' "$tmp/err"
    holds "some samples twice: judged" units "$tmp/study/results.json" 'u["verdict"] == "competitive"'
    rm -rf "$tmp/study"
    job 2 --set data.0.file="$tmp/weighted.h5" --set margin.absolute=100
    expect_exit "one sample with all the weight" 0
    holds "one sample with all the weight: no verdict" units "$tmp/study/results.json" \
        'u["verdict"] == "undecided" and "weights leave one sample" in u["reason"] and u["change_low"] is None'
    rm -rf "$tmp/study"
    job 2 --dry-run --set data.0.file="$tmp/vocabulary.h5"
    expect_error "a larger vocabulary than the model's" 3 \
        "vocabulary.h5: was made for a vocabulary of 65 tokens, more than the 64 of $m/post.*allow"
    job 2 --dry-run --set data.0.file="$tmp/vocabulary.h5" --set 'allow=[other-tokenizer]'
    expect_exit "a larger vocabulary, allowed" 0
    holds "a larger vocabulary, allowed: a warning" \
        test "$(grep -c 'warning: .*vocabulary of 65 tokens' "$tmp/err")" = 1
    job 1 --dry-run --set data.0.file="$tmp/padded.h5"
    expect_exit "a smaller vocabulary than the model's" 0
    job 1 --dry-run --set data.0.file="$tmp/kind.h5"
    expect_error "data of another kind" 3 "kind.h5: says that its kind is 'dpo', and the job takes it as 'lm'"
}
part doubtful
wide() { # a margin that takes in the pre-trained model
    job 2 --set models.pre="$demo/llama-pre" --set models.post="$demo/llama-post" --set margin.share=3 --set accuracy_margin=0 \
        --set data.0.file="$demo/task.h5" --set data.0.samples=4 --set 'edits=[{name: e, method: drop, p: 1}]'
    expect_exit "a margin above the gain" 0
    holds "a margin above the gain: one warning before the edits" \
        test "$(grep -c 'warning: task: the margin is at least the post-training gain' "$tmp/err")" = 1
    holds "a margin above the gain: the reason says so" units "$tmp/study/results.json" \
        'u["verdict"] == "competitive" and "margin is at least the post-training gain" in u["reason"]'
}
part wide

# What is in a job twice would count twice.
twice() {
    run_at 1 run "$tap_root/job.yaml" --dry-run --set output.directory="$tmp/study" \
        --set 'edits=[{name: a, method: dare, p: 0.5}, {name: b, method: dare, p: 5e-1, k: 0}]'
    expect_error "an edit under two spellings" 2 "edits 'a' and 'b' are the same edit.*leave one out"
    cp "$m/data.h5" "$tmp/copy.h5" && ln -s "$m/data.h5" "$tmp/link.h5"
    local file ranks task="{name: task, file: $m/data.h5, loss: lm}"
    for file in "$m/data.h5" "$tmp/copy.h5" "$tmp/link.h5"; do
        for ranks in 1 3; do
            job $ranks --dry-run --set "data=[$task, {name: more, file: $file, loss: lm}]"
            expect_error "${file##*/} twice, at $ranks" 3 \
                "data sets 'task' .$m/data.h5. and 'more' .$file. are the same samples .*leave one out"
        done
    done
    job 2 --dry-run --set "data=[$task, {name: more, file: $tmp/copy.h5, loss: lm, samples: 4}]"
    expect_exit "some of the samples besides all" 0
    local pairs="file: $m/pairs.h5, loss: dpo"
    job 1 --dry-run --set "data=[{name: a, $pairs}, {name: b, $pairs, reference: $m/post}]"
    expect_error "pairs twice" 3 "data sets 'a' .*'b' .* are the same samples"
    job 1 --dry-run --set "data=[{name: a, $pairs}, {name: b, $pairs, beta: 0.2}, {name: c, $pairs, reference: $m/pre}]"
    expect_exit "pairs under three losses are three data sets" 0
}
part twice

# A model and itself.
zero() { # zero NAME RANKS ARGUMENTS...: the study is refused, and allowed it gives no verdict
    job "$2" "${@:3}"
    expect_error "$1" 3 "the delta is zero.*allow: \[zero-delta\]"
    holds "$1: nothing is made" test ! -e "$tmp/study"
    job "$2" "${@:3}" --set 'allow=[zero-delta]'
    expect_exit "$1, allowed" 0
    holds "$1, allowed: a warning" grep -q 'warning: .*the delta is zero' "$tmp/err"
    holds "$1, allowed: no verdict" units "$tmp/study/results.json" \
        'u["verdict"] == "undecided" and u["reason"].startswith("the delta is zero")'
    rm -rf "$tmp/study"
}
zeros() {
    zero "one model by one path" 2 --set models.pre="$m/post"
    ln -s "$m/post" "$tmp/link"
    job 1 --dry-run --set models.pre="$tmp/link"
    expect_error "one model by a link" 3 "$tmp/link and $m/post: the delta is zero: they are one model"
    run_at 2 convert "$m/post" "$tmp/copy.h5" --dtype f32
    zero "a copy in another format and type" 3 --set models.pre="$tmp/copy.h5"
}
part zeros
one_value() { # the last one of the tensor that is larger than a cell
    $models plain "$tmp/plain"
    $python - "$tmp/plain/post" "$tmp/one" <<'P'
import shutil
import sys
sys.path.insert(0, "tests/support")
from compare import read_model
shutil.copytree(sys.argv[1], sys.argv[2])
file = f"{sys.argv[2]}/model.safetensors"
raw = open(file, "rb").read()
values = read_model(file)["big.weight"][1].tobytes()
last = raw.index(values) + len(values) - 2
open(file, "wb").write(raw[:last] + bytes([raw[last] ^ 1]) + raw[last + 1:])
P
    local ranks plain="models={pre: $tmp/one, post: $tmp/plain/post}"
    for ranks in 1 3; do
        job $ranks --dry-run --set "$plain" --set data=[] --set output.checkpoint=hdf5
        expect_exit "one value that differs is a delta, at $ranks" 0
        job $ranks --dry-run --set "$plain" --set data=[] --set output.checkpoint=hdf5 \
            --set 'select={exclude: [big.weight]}'
        expect_error "a delta outside the selection, at $ranks" 3 "zero: every value of the selected"
    done
}
part one_value
part set_meant "what a job allows" zero-delta 'allow=[zero_delta]'
done_testing

#!/usr/bin/env bash
# seconds: 600
# On the demo pair: losses of models and edited models equal those that transformers has found
# (tests/golden/demo_losses.json); the estimate of each rule comes to the true change at the rule's order;
# edited models and results carry their provenance.
. "$(dirname "$0")/../support/tap.sh"
parallel=2 limit=200

golden() {
    run_at 2 run tests/golden/demo_edits.yaml --set output.directory="$tmp/study" \
        --set output.checkpoint=safetensors
    expect_exit "study of golden edits" 0
    $python - "$tmp/study/results.json" tests/golden/demo_losses.json >"$tmp/lines" <<'P'
import json
import sys
units = json.load(open(sys.argv[1]))["units"]
golden = json.load(open(sys.argv[2]))
def line(name, good, text):
    print(f"{'ok' if good else 'not ok'} - {name}" + ("" if good else f"\n# {text}"))
assert len(units) == 2 * (len(golden) - 2)
for unit in units:
    for state in ("pre", "post", "edit"):
        want = golden[unit["edit"] if state == "edit" else state][unit["data"]]
        gap = abs(unit["loss_" + state] - want["loss"])
        accuracy = abs(unit["accuracy_" + state] - want["accuracy"]) * unit["samples"]
        line(f"loss of {unit['edit']} {state} on {unit['data']} is that of transformers to 1e-3",
             gap <= 1e-3, f"{unit['loss_' + state]} and {want['loss']}")
        # An even choice between two tokens may fall either way.
        line(f"exact matches of {unit['edit']} {state} on {unit['data']}", accuracy < 1.5,
             f"{unit['accuracy_' + state]} and {want['accuracy']}")
    line(f"change of {unit['edit']} on {unit['data']}",
         abs(unit["change"] - (unit["loss_edit"] - unit["loss_post"])) < 1e-9, unit["change"])
P
    cat "$tmp/lines" >>"$tap_lines"
    directory "$tmp/study/models/both"
    holds "results carry their provenance" $python - "$tmp/study" <<'P'
import json
import sys
import h5py
found = json.load(open(sys.argv[1] + "/results.json"))["provenance"]
with h5py.File(sys.argv[1] + "/results.h5") as file:
    inside = json.loads(file.attrs["provenance"])
assert found["inputs"] == inside["inputs"] and found["program"].startswith("deltapath ")
assert found["ranks"] == 2 and found["seeds"]["dare"] == 1
assert "keep: 0.3" in found["job"] and len(found["inputs"]["pre_fingerprint"]) == 16
P
}

directory() { # directory MODEL: a whole HuggingFace directory
    local name
    for name in config.json generation_config.json tokenizer.json tokenizer_config.json; do
        holds "the edited model has $name" cmp share/demo/llama-post/$name "$1/$name"
    done
    run_at 2 verify "$1"
    expect_exit "the edited model passes verify" 0
    holds "the edited model loads by its names and carries its provenance" $python - "$1" <<'P'
import json
import pathlib
import struct
import sys
sys.path.insert(0, "tests/support")
from compare import read_model
folder = pathlib.Path(sys.argv[1])
assert set(read_model(folder)) == set(read_model("share/demo/llama-post"))
for path in folder.glob("*.safetensors"):
    raw = path.read_bytes()
    header = json.loads(raw[8:8 + struct.unpack("<Q", raw[:8])[0]])
    assert header["__metadata__"]["format"] == "pt", "transformers wants it"
found = json.loads((folder / "deltapath.json").read_text())["provenance"]
assert found["edit"] == "both" and found["method"] == "prune+bitdelta" and found["program"]
assert "keep: 0.5" in found["job"] and len(found["inputs"]["post_fingerprint"]) == 16
P
}

# A few samples; the fp32 noise of an estimate is 1e-7 nats, below every error used here.
orders() {
    $python - "$tmp" <<'P'
import sys
import h5py
for name, samples in (("task", 6), ("text", 2)):
    with h5py.File(f"share/demo/{name}.h5") as whole, h5py.File(f"{sys.argv[1]}/{name}.h5", "w") as few:
        few["offsets"] = whole["offsets"][:samples + 1]
        for key in ("tokens", "loss_mask"):
            few[key] = whole[key][:few["offsets"][-1]]
P
    cat >"$tmp/job.yaml" <<Y
models: {pre: share/demo/llama-pre, post: share/demo/llama-post}
data: [{name: task, file: $tmp/task.h5, loss: lm}, {name: text, file: $tmp/text.h5, loss: lm}]
edits: [{name: half, method: expo, alpha: -0.5}, {name: dare, method: dare, p: 0.5}]
output: {directory: OUT, report: false, dtype: f32}
Y
    local rule points
    for rule in left:4 left:8 left:16 midpoint:4 midpoint:8 trapezoid:5 trapezoid:9 \
        simpson:5 simpson:9 simpson:17 gauss:2 gauss:3 gauss:4; do
        run_at 2 run "$tmp/job.yaml" --set "riemann={rule: ${rule%:*}, points: ${rule#*:}}" \
            --set output.directory="$tmp/$rule"
        [[ $code -eq 0 ]] || ok "study by $rule" 1
    done
    $python - "$tmp" >"$tmp/lines" <<'P'
import json
import sys
def error(rule, points, edit, data):
    units = json.load(open(f"{sys.argv[1]}/{rule}:{points}/results.json"))["units"]
    unit = next(u for u in units if (u["edit"], u["data"]) == (edit, data))
    assert abs(unit["error"] - (unit["estimate"] - unit["change"])) < 1e-12
    return abs(unit["error"])
def line(name, good, text):
    print(f"{'ok' if good else 'not ok'} - {name}" + ("" if good else f"\n# {text}"))
def falls(rule, points, edit, data, least, most):
    errors = [error(rule, n, edit, data) for n in points]
    ratios = [a / b for a, b in zip(errors, errors[1:])]
    rounded = [b < 3e-7 for b in errors[1:]] # of the losses, which may cancel what is left
    line(f"{rule} at {points} points, {edit} on {data}: the error falls {least} to {most} times a step",
         all(least <= ratio and (ratio <= most or low) for ratio, low in zip(ratios, rounded)), f"errors {errors}, ratios {ratios}")
for edit, data in (("half", "text"), ("dare", "text")):
    falls("left", (4, 8, 16), edit, data, 1.9, 2.15)
    falls("midpoint", (4, 8), edit, data, 3.7, 4.3)
    falls("trapezoid", (5, 9), edit, data, 3.7, 4.3)
falls("left", (4, 8, 16), "dare", "task", 1.7, 2.15)
falls("midpoint", (4, 8), "dare", "task", 3.5, 4.5)
falls("trapezoid", (5, 9), "dare", "task", 3.5, 4.5)
falls("simpson", (5, 9, 17), "dare", "task", 10, 22)
falls("simpson", (5, 9), "half", "text", 10, 22)
falls("gauss", (2, 3, 4), "dare", "task", 8, 1000)
for edit, data, bound in (("dare", "task", 2e-6), ("half", "text", 1e-6), ("dare", "text", 1e-6)):
    got = error("gauss", 4, edit, data)
    line(f"gauss at 4 points, {edit} on {data}: within {bound} nats", got < bound, got)
P
    cat "$tmp/lines" >>"$tap_lines"
    holds "orders were compared" test "$(grep -c '^ok\|^not ok' "$tmp/lines")" = 15
}

part golden
part orders
done_testing

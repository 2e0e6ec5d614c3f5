#!/usr/bin/env bash
# seconds: 600
# Losses `class` and `dpo` and sample weights in whole studies: the figures of the shipped pairs and of
# golden files, the same in every mesh; references are kept; bad input is named.
. "$(dirname "$0")/../support/tap.sh"
parallel=2 limit=90
in=$tap_root/in
"$python" tests/support/make_losses.py "$in" && $models llama "$in/m" --dtype f32 &&
    $models llama "$in/small" --vocabulary 8 ||
    echo "not ok - inputs could not be made" >>"$tap_lines"

both="{name: dare, method: dare, p: 0.5, k: 0}, {name: bitdelta, method: bitdelta}"
job() { # job NAME PRE POST DATA [METHODS]: a job file
    cat >"$in/$1.yaml" <<Y
models: {pre: $2, post: $3}
data:
  - $4
edits: [${5:-$both}]
riemann: {rule: gauss, points: 4}
output: {directory: OUT, report: false}
Y
}
job vit share/demo/vit-pre share/demo/vit-post "{name: d, file: share/demo/digits.h5, loss: class}"
job clip "$in/clip-pre.h5" "$in/clip-post.h5" "{name: d, file: $in/clip.h5, loss: class}"
job dpo "$in/m/pre" "$in/m/post" "{name: d, file: $in/m/pairs.h5, loss: dpo, reference: $in/m/pre}"
job own "$in/m/pre" "$in/m/post" "{name: d, file: $in/m/pairs.h5, loss: dpo, beta: 0.7}"
job shipped share/demo/llama-post share/demo/llama-dpo \
    "{name: d, file: share/demo/preference.h5, loss: dpo, reference: share/demo/llama-post}" \
    "{name: half, method: expo, alpha: -0.5}"
sed -i 's/points: 4/points: 12/' "$in/dpo.yaml" # random weights, a path that bends

cat >"$in/check.py" <<'P'
import json, math, sys
def units(folder):
    return {u["edit"]: u for u in json.load(open(folder + "/results.json"))["units"]}
def near(a, b, tolerance, what):
    assert abs(a - b) <= tolerance, f"{what}: {a} and {b}"
def same(a, b, tolerance=2e-5):
    """Two studies: figures to rounding, accuracies exactly."""
    for edit, u in units(a).items():
        v = units(b)[edit]
        for key in ("loss_pre", "loss_post", "loss_edit", "change", "estimate"):
            near(u[key], v[key], tolerance * (1 + abs(u["loss_post"])), f"{edit} {key}")
        for key in ("accuracy_pre", "accuracy_post", "accuracy_edit"):
            near(u[key], v[key], 1e-12, f"{edit} {key}")
def vit(folder):
    f = json.load(open("share/demo/vit-figures.json"))
    for u in units(folder).values():
        for side in ("pre", "post"):
            near(u["loss_" + side], f[side]["digits"]["loss"], 1e-4, side)
            near(u["accuracy_" + side], f[side]["digits"]["correct"] / 297, 1e-12, side)
        assert u["loss"] == "class" and abs(u["error"]) < 0.03 * abs(u["change"]), u
def clip(folder):
    f = json.load(open(sys.argv[3]))
    for u in units(folder).values():
        near(u["loss_pre"], f["loss"], 1e-5, "pre")
        near(u["loss_post"], f["loss_edit"], 1e-5, "post")
        near(u["error"], 0, 1e-4 * abs(u["change"]) + 1e-6, "quadrature")
def dpo(folder):
    for u in units(folder).values():
        near(u["loss_pre"], math.log(2), 1e-6, "pre is its own reference")
        assert u["accuracy_pre"] == 0 and u["loss"] == "dpo"
        near(u["error"], 0, 1e-5, "quadrature")
def own(folder):
    for u in units(folder).values():
        near(u["loss_post"], math.log(2), 1e-6, "post is its own reference")
        assert u["accuracy_post"] == 0
def shipped(folder):
    f = json.load(open("share/demo/dpo-figures.json"))
    for u in units(folder).values():
        near(u["loss_pre"], math.log(2), 1e-6, "pre")
        near(u["loss_post"], f["after"]["dpo_loss"], 1e-3, "post")
        near(u["accuracy_post"], f["after"]["preference_accuracy"], 1e-4, "accuracy")
        near(u["error"], 0, 1e-2 * abs(u["change"]), "quadrature")
def weighted(folder):
    """Weights 0 and 1 against the file without the samples of weight 0."""
    same(folder, sys.argv[3], 1e-6)
    for edit, u in units(folder).items():
        v = units(sys.argv[3])[edit]
        assert (u["samples"], v["samples"]) == (297, 198)
        for key in ("change_se", "change_low", "bootstrap_low", "bootstrap_high", "gain_low"):
            near(u[key], v[key], 1e-5 * v["change_se"], key)
globals()[sys.argv[1]](*sys.argv[2:4 if sys.argv[1] == "same" else 3])
P
check() { holds "$1" "$python" "$in/check.py" "${@:2}"; }

study() { # study NAME RANKS TENSOR_PARALLEL FOLDER [ARGUMENTS...]
    run_at "$2" run "$in/$1.yaml" --set output.directory="$4" --set tensor_parallel="$3" "${@:5}"
}

first() { # first NAME: the figures at one rank
    study "$1" 1 1 "$in/$1.out"
    expect_exit "$1 at 1 rank" 0
    check "$1: figures" "$1" "$in/$1.out" "$in/clip.json"
}
for name in vit clip dpo own; do part first "$name"; done
wait

mesh() { # mesh NAME RANKS TENSOR_PARALLEL
    study "$1" "$2" "$3" "$tmp/out.d"
    expect_exit "$1 at $2 ranks, $3 tensor-parallel" 0
    check "$1 at $2:$3: as at one rank" same "$in/$1.out" "$tmp/out.d"
}
for name in vit clip dpo own; do
    for at in "2 1" "3 3" "4 2"; do part mesh "$name" ${at% *} ${at#* }; done
done

shipped() {
    study shipped 2 1 "$tmp/out.d"
    expect_exit "the shipped preferences" 0
    check "the shipped preferences: figures" shipped "$tmp/out.d"
}
part shipped

weighted() {
    study vit 2 1 "$tmp/part.d" --set data.0.file="$in/part.h5"
    study vit 2 1 "$tmp/out.d" --set data.0.file="$in/weighted.h5"
    expect_exit "weighted samples" 0
    check "weights 0 and 1 choose samples" weighted "$tmp/out.d" "$tmp/part.d"
}
part weighted

kept() { # references are found again, and computed again when they are damaged
    study dpo 2 1 "$tmp/out.d"
    cp -r "$tmp/out.d" "$tmp/kept"
    rm -rf "$tmp/out.d"/units "$tmp/out.d"/results.*
    study dpo 1 1 "$tmp/out.d" --resume
    expect_exit "resumed with its references" 0
    holds "references are not touched" cmp "$tmp/out.d/references/d.h5" "$tmp/kept/references/d.h5"
    check "resumed: the same" same "$tmp/kept" "$tmp/out.d"
    rm -rf "$tmp/out.d"/units "$tmp/out.d"/results.*
    head -c 900 "$tmp/kept/references/d.h5" >"$tmp/out.d/references/d.h5"
    study dpo 1 1 "$tmp/out.d" --resume
    expect_exit "resumed with a damaged reference" 0
    check "computed again: the same" same "$tmp/kept" "$tmp/out.d"
    study dpo 1 1 "$tmp/out.d" --set output.overwrite=true --set data.0.beta=0.2
    expect_exit "another beta replaces the study" 0
}
part kept

damaged() { # a reference whose bytes are not those that it states the hashes of
    local ranks
    rm -rf "$tmp/ref" "$tmp/out.d"
    run_at 1 convert "$in/m/pre" "$tmp/ref"
    study dpo 2 1 "$tmp/out.d" --set data.0.reference="$tmp/ref"
    expect_exit "a converted reference" 0
    printf '\x42' | dd of="$tmp/ref/model.safetensors" bs=1 seek="$(($(stat -c %s "$tmp/ref/model.safetensors") / 2))" conv=notrunc 2>/dev/null
    for ranks in 1 3; do
        rm -rf "$tmp/out.d"
        study dpo $ranks 1 "$tmp/out.d" --set data.0.reference="$tmp/ref"
        expect_error "a damaged reference at $ranks" 3 "ref: .*do not have the stored XXH3|ref/.*do not have the stored XXH3"
    done
}
part damaged

configs() { # both models run with the configuration of post: what differs in that of pre is said
    cp -r "$in/m/pre" "$tmp/pre"
    sed -i 's/"rope_theta": 10000.0/"rope_theta": 777.0/' "$tmp/pre/config.json"
    study own 2 1 "$tmp/out.d" --set models.pre="$tmp/pre" --dry-run
    expect_exit "another configuration of pre" 0
    holds "another configuration of pre is said once" \
        test "$(grep -c 'warning: .*/pre: .*rope_theta (777 and 10000)$' "$tmp/err")" = 1
    study own 2 1 "$tmp/out.d" --dry-run
    holds "the same configuration: nothing to say" test ! -s "$tmp/err"
}
part configs

bad() { # bad NAME CODE REGEX JOB ARGUMENTS...
    local ranks
    for ranks in 1 2; do
        study "$4" "$ranks" 1 "$tmp/out.d" "${@:5}"
        expect_error "$1 at $ranks" "$2" "$3"
        holds "$1 at $ranks: nothing left" no_output "$tmp/out.d"
        rm -rf "$tmp/out.d"
    done
}
digits=share/demo/digits.h5
part bad "class on a language model" 3 "'d': loss class needs an image model" dpo --set "data=[{name: d, file: $digits, loss: class}]"
part bad "lm on an image model" 3 "'d': loss lm needs a language model" vit --set "data=[{name: d, file: share/demo/task.h5, loss: lm}]"
part bad "tokens as pairs" 3 "task.h5: says that its kind is 'lm', and the job takes it as 'dpo'" dpo --set data.0.file=share/demo/task.h5
part bad "images as tokens" 3 "digits.h5: says that its kind is 'class', and the job takes it as 'lm'" vit --set data.0.loss=lm
part bad "images of another size" 3 "bad-size.h5: .*1 x 9 x 8 .*takes 1 x 8 x 8" vit --set data.0.file="$in/bad-size.h5"
part bad "a label beyond the classes" 3 "bad-label.h5: .*sample 11 has the label 10" vit --set data.0.file="$in/bad-label.h5"
part bad "an infinite pixel" 3 "bad-pixel.h5: pixel 19 of sample 7" vit --set data.0.file="$in/bad-pixel.h5"
part bad "negative weights" 3 "bad-weights.h5: the weight of sample 0 is -1" vit --set data.0.file="$in/bad-weights.h5"
part bad "a reference that is not there" 3 "$in/nowhere" dpo --set data.0.reference="$in/nowhere"
part bad "a reference that is an image model" 3 "vit-pre.*the reference is an image model" dpo --set data.0.reference=share/demo/vit-pre
part bad "a reference with a smaller vocabulary" 3 "pairs.h5.*outside the vocabulary of" dpo --set data.0.reference="$in/small/pre"
part bad "a reference of lm" 2 "reference belongs to loss dpo alone" dpo --set data.0.loss=lm
part bad "beta below 0" 2 "beta" dpo --set data.0.beta=-1
part bad "a head that differs" 3 "text_embeds.weight differs" clip --set models.post="$in/clip-head.h5"
done_testing

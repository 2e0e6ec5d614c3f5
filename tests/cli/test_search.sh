#!/usr/bin/env bash
# seconds: 600
# Edits over seeds, bootstrap intervals and `alpha: auto`, whole: the files they leave, the same
# figures in every mesh, a loss that never rises, and the alpha that brute force finds.
. "$(dirname "$0")/../support/tap.sh"
parallel=2 limit=60
$models llama "$tap_root/llama" --dtype f32 --samples 40
cat >"$tap_root/job.yaml" <<Y
models: {pre: $tap_root/llama/pre, post: $tap_root/llama/post}
data: [{name: task, file: $tap_root/llama/data.h5, loss: lm}]
edits:
  - {name: dare, method: dare, p: [0.3, 0.6], seed: [1, 2, 3]}
  - {name: best, method: expo, alpha: auto, reach: 2}
  - {name: layers, method: expo, alpha: auto, groups: layers, reach: 2}
riemann: {rule: left, points: 1}
statistics: {interval: bootstrap, resamples: 500, seed: 4}
output: {directory: OUT, report: false}
Y
# A search begins where the slope can be told from zero: the samples are those whose loss falls beyond the post-trained.
run_at 1 run "$tap_root/job.yaml" --set output.directory="$tap_root/look" \
    --set 'edits=[{name: e, method: expo, alpha: 0.05}]'
expect_exit "a look at all samples" 0
holds "some of them are taken" "$python" - "$tap_root/look/results.h5" "$tap_root/llama/data.h5" <<'P'
import sys, h5py, numpy as np
with h5py.File(sys.argv[1]) as file:
    group = file["edits/e/task"]
    keep = np.flatnonzero(np.array(group["loss_edit"]) < np.array(group["loss_post"]))
with h5py.File(sys.argv[2], "r+") as file:
    old = {name: np.array(file[name]) for name in ("tokens", "loss_mask", "offsets")}
    parts = [np.arange(old["offsets"][i], old["offsets"][i + 1]) for i in keep]
    for name in old:
        del file[name]
        file[name] = (np.cumsum([0] + [len(p) for p in parts]).astype(np.int64) if name == "offsets"
                      else old[name][np.concatenate(parts)])
assert len(keep) > 9, keep
P
run_at 1 run "$tap_root/job.yaml" --set output.directory="$tap_root/one"
expect_exit "at 1 rank" 0

cat >"$tap_root/check.py" <<'P'
import csv, json, math, sys
folder = sys.argv[1]
study = json.load(open(folder + "/results.json"))
units = {u["edit"]: u for u in study["units"]}
seeds = list(csv.DictReader(open(folder + "/seeds.csv")))
assert [s["edit"] for s in seeds] == ["dare-p0.3", "dare-p0.6"], seeds
assert len(study["seeds"]) == 2
for s in seeds:
    changes = [units[f"{s['edit']}-seed{k}"]["change"] for k in (1, 2, 3)]
    mean = sum(changes) / 3
    sd = math.sqrt(sum((c - mean) ** 2 for c in changes) / 2)
    assert math.isclose(float(s["change_mean"]), mean, rel_tol=1e-12)
    assert math.isclose(float(s["change_sd"]), sd, rel_tol=1e-9)
    reach = 4.302652729911275 * sd / math.sqrt(3)
    assert math.isclose(float(s["change_high"]), mean + reach, rel_tol=1e-7)
for u in units.values():
    assert u["bootstrap_low"] == u["change_low"] <= u["change"] <= u["change_high"], u["edit"]
    assert u["p_adjusted"] >= u["p_change"]
    assert (u["change_low"] > 0 or u["change_high"] < 0) == (u["p_change"] < 0.05), u["edit"]
best, layers = units["best"], units["layers"]
post = best["loss_post"]
for u in (best, layers):
    p = u["parameters"]
    assert abs(u["loss_edit"] - p["found_loss"]) < 1e-5 * post, (u["loss_edit"], p)
    assert u["loss_edit"] <= post * (1 + 1e-6)
    assert p["advice"] == "extrapolate" and p["found_alpha"] > 0, p
    assert p["gradients"] <= 14
assert layers["loss_edit"] <= best["loss_edit"] + 1e-5 * post
trace = [tuple(map(float, t.split(":"))) for t in best["parameters"]["alpha_loss_slope"].split(";")]
assert trace[0][0] == 0.0 and len(trace) == best["parameters"]["gradients"]
side = -trace[0][2]
assert all(a * side >= 0 for a, _, _ in trace), trace
print(best["parameters"]["found_alpha"])
P
holds "seeds, intervals and searches are consistent" "$python" "$tap_root/check.py" "$tap_root/one"

meshes() {
    local mesh
    for mesh in 2:1 2:2 3:1 3:3; do
        run_at "${mesh%:*}" run "$tap_root/job.yaml" --set output.directory="$tmp/m" \
            --set tensor_parallel="${mesh#*:}"
        expect_exit "at ${mesh%:*} ranks, ${mesh#*:} tensor-parallel" 0
        holds "at ${mesh%:*} ranks, ${mesh#*:} tensor-parallel: consistent" \
            "$python" "$tap_root/check.py" "$tmp/m"
        holds "at ${mesh%:*} ranks: the same changes" "$python" - "$tap_root/one" "$tmp/m" <<'P'
import json, sys
a, b = ({u["edit"]: u for u in json.load(open(f + "/results.json"))["units"]} for f in sys.argv[1:])
for name in a:
    for key in ("change", "bootstrap_low", "bootstrap_high", "estimate"):
        assert abs(a[name][key] - b[name][key]) < 1e-5, (name, key, a[name][key], b[name][key])
P
        rm -rf "$tmp/m"
    done
}
part meshes

brute() { # no alpha around the found one has a lower loss
    local alpha
    alpha=$("$python" "$tap_root/check.py" "$tap_root/one")
    run_at 2 run "$tap_root/job.yaml" --set output.directory="$tmp/b" \
        --set "edits=[{name: e, method: expo, alpha: [$alpha, $("$python" -c \
            "print(f'{$alpha - 0.04:.6g}, {$alpha + 0.04:.6g}')")]}]"
    expect_exit "next to the minimum" 0
    holds "the found alpha is the minimum" "$python" - "$tmp/b" <<'P'
import json, sys
u = [u["loss_edit"] for u in json.load(open(sys.argv[1] + "/results.json"))["units"]]
assert u[0] <= min(u) + 1e-7, u
P
}
part brute

bounds() { # no layer leaves [-1, reach], also where the loss falls all the way
    cat >"$tmp/job.yaml" <<Y
models: {pre: share/demo/llama-post, post: share/demo/llama-dpo}
data: [{name: p, file: share/demo/preference.h5, loss: dpo, reference: share/demo/llama-post, samples: 48}]
edits: [{name: layers, method: expo, alpha: auto, groups: layers, reach: 0.5}]
riemann: {rule: left, points: 1}
output: {directory: OUT, report: false}
Y
    run_at 2 run "$tmp/job.yaml" --set output.directory="$tmp/b"
    expect_exit "a minimum beyond the reach" 0
    holds "every layer stays within the reach" "$python" - "$tmp/b" <<'P'
import json, sys
p = json.load(open(sys.argv[1] + "/results.json"))["units"][0]["parameters"]
alphas = [float(v) for k, v in p.items() if k.startswith(("alpha_layer", "alpha_outside"))]
assert p["trough"] == "border" and len(alphas) == 6, p
assert -1 - 1e-6 <= min(alphas) and max(alphas) == 0.5, alphas
P
}
part bounds

resume() { # finished searches are not repeated, and another seed of the statistics is another study
    run_at 2 run "$tap_root/job.yaml" --set output.directory="$tap_root/one" --resume
    expect_exit "resume" 0
    holds "resumed: consistent" "$python" "$tap_root/check.py" "$tap_root/one"
}
wait
part resume
done_testing

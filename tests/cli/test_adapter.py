#!/usr/bin/python3
# seconds: 300
"""PEFT adapters on their bases: the bytes of what peft itself merged (tests/golden/adapter), those of NumPy at odd sizes and
every number of ranks, studies as of the merged model, and adapters with one fault each."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import make_models as models
import studies
from studies import check

GOLDEN = pathlib.Path("tests/golden/adapter")
JOB = """name: a
models: {pre: %s, post: %s}
data: [{name: d, file: %s/data.h5, loss: lm}]
edits: [{name: dare, method: dare, p: 0.5, seed: 3}, {name: low, method: lowrank, rank: 2}]
riemann: {rule: left, points: 2}
output: {directory: %s, checkpoint: safetensors, report: false}
"""


def values(tensor):
    """A stored tensor in fp32, and its bits."""
    dtype, shape, raw = tensor
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(raw, {"F16": "<f2", "F32": "<f4"}[dtype]).astype(np.float32).reshape(shape)


def convert(source, base, target, ranks=1):
    """The verb on some ranks; the process."""
    start = os.environ.get("DPT_MPIRUN", "mpirun -q").split() + ["-n", str(ranks)]
    words = ["convert", *(["--base", str(base)] if base else []), str(source), str(target)]
    return subprocess.run([*start, studies.PROGRAM, *words], check=False, capture_output=True, text=True)


def golden(folder):
    """Every case of adapter_golden.py: bytes in bf16 and f16; in fp32 the last bit of a product of small matrices is
    that of the BLAS."""
    for ranks, case in enumerate(sorted(path.name for path in GOLDEN.iterdir()), 1):
        done = convert(GOLDEN / case / "adapter", GOLDEN / case / "base", folder / f"golden-{case}", 1 + ranks % 4)
        check(f"{case}: converted", done.returncode == 0 and done.stderr.count("a PEFT adapter on") == 1, done.stderr)
        if done.returncode != 0:
            continue
        own, peft = (studies.load_model(path) for path in (folder / f"golden-{case}", GOLDEN / case / "merged"))
        base = studies.load_model(GOLDEN / case / "base")
        far = {}
        for name, tensor in peft.items():
            if tensor != own[name] and (tensor[0] != "F32" or np.abs(values(tensor) - values(own[name])).max() > 6e-8):
                far[name] = np.abs(values(tensor) - values(own[name])).max()
        check(f"{case}: as peft", not far and set(own) == set(peft), far)
        check(f"{case}: something changed", sum(own[name] != base[name] for name in own) >= 2)


def otherwise(folder):
    """Options that are written in another way and mean the same."""
    cases = {"turned": ("swapped", lambda options: options.update(fan_in_fan_out=False)),  # the flag of another module
             "digits": ("bf16", lambda options: options.update(rank_pattern={
                 "^model.layers.0.self_attn.q_proj": 2, r"layers\.[\d]+\.mlp\.[^\d]p_proj": 5}))}
    for name, (case, change) in cases.items():
        shutil.copytree(GOLDEN / case / "adapter", folder / name)
        options = json.loads((folder / name / "adapter_config.json").read_text())
        change(options)
        (folder / name / "adapter_config.json").write_text(json.dumps(options))
        done = convert(folder / name, GOLDEN / case / "base", folder / f"{name}-merged")
        check(f"{name}: converted", done.returncode == 0, done.stderr)
        own, wanted = (studies.load_model(folder / one) if done.returncode == 0 else {}
                       for one in (f"{name}-merged", f"golden-{case}"))
        check(f"{name}: the bytes of {case}", own == wanted, [key for key in own if own[key] != wanted[key]])


def in_pieces(folder):
    """Experts that were trained as one tensor, of a base that has one for each."""
    name = "base_model.model.model.layers.0.mlp.experts.down_proj"
    write_adapter(folder / "pieces", {name: (np.ones((3, 8, 12)), "F32")})
    done = convert(folder / "pieces", GOLDEN / "router/base", folder / "never")
    check("experts in one tensor: refused", done.returncode == 3 and name in done.stderr and
          "in other pieces: merge the adapter" in done.stderr, done.stderr)


def fused(left, right):
    """left right in fp32, fused and in order: products are exact in double."""
    sums = np.zeros((left.shape[0], right.shape[1]), np.float32)
    for k in range(left.shape[1]):
        sums = (left[:, k:k + 1].astype(np.float64) * right[k].astype(np.float64) + sums).astype(np.float32)
    return sums


def write_adapter(path, tensors, **options):
    """An adapter's folder."""
    models.write_safetensors(path / "adapter_model.safetensors", tensors)
    config = dict({"peft_type": "LORA", "r": 4, "lora_alpha": 6, "base_model_name_or_path": "nowhere"}, **options)
    (path / "adapter_config.json").write_text(json.dumps(config))


def oracle(folder):
    """A matrix of more than a cell with factors in bf16, and one that is stored the other way round."""
    rng = np.random.default_rng(11)
    base = {"model.big.weight": (rng.standard_normal((1100, 1003)), "BF16"),
            "model.turned.weight": (rng.standard_normal((37, 21)), "F32"), "model.rest": (rng.standard_normal(5), "F32")}
    models.write_model(folder / "odd-base", base, None)
    factors = {"base_model.model.model.big.lora_A.weight": (rng.standard_normal((7, 1003)), "BF16"),
               "base_model.model.model.big.lora_B.weight": (rng.standard_normal((1100, 7)), "F16"),
               "base_model.model.model.turned.lora_A.weight": (rng.standard_normal((3, 37)), "F32"),
               "base_model.model.model.turned.lora_B.weight": (rng.standard_normal((21, 3)), "F32")}
    write_adapter(folder / "odd", factors, rank_pattern={"big": 7, "turned": 3}, use_rslora=True,
                  base_model_name_or_path=str(folder / "odd-base"))
    stored, a = studies.load_model(folder / "odd-base"), {}
    with open(folder / "odd/adapter_model.safetensors", "rb") as file:
        (folder / "odd-a").mkdir()
        (folder / "odd-a/model.safetensors").write_bytes(file.read())
    for name, tensor in studies.load_model(folder / "odd-a").items():
        a[name.removeprefix("base_model.model.model.")] = values(tensor)
    wanted = dict(stored)
    for name, rank, product in (("big", 7, lambda b, a: fused(b, a)), ("turned", 3, lambda b, a: fused(a.T, b.T))):
        delta = product(a[f"{name}.lora_B.weight"], a[f"{name}.lora_A.weight"]) * np.float32(6 / np.sqrt(rank))
        dtype, shape, _ = stored[f"model.{name}.weight"]
        wanted[f"model.{name}.weight"] = (dtype, shape, models.encode(values(stored[f"model.{name}.weight"]) + delta, dtype))
    for ranks in (1, 2, 3, 4):
        done = convert(folder / "odd", None, folder / f"odd-{ranks}", ranks)
        own = studies.load_model(folder / f"odd-{ranks}") if done.returncode == 0 else {}
        check(f"NumPy's bytes on {ranks} ranks", own == wanted, done.stderr or [n for n in own if own[n] != wanted[n]])


def study_of(folder):
    """A study of the adapter is that of the merged model, in its bytes and numbers; a later one knows the adapter again."""
    config = models.llama_config(64)
    pre, _ = models.llama_pair(config, "BF16")
    rng = np.random.default_rng(5)
    models.write_model(folder / "base", pre, config)
    models.write_data(folder / "data.h5", models.random_samples(64))
    factors = {}
    for name, (tensor, _) in pre.items():
        if "self_attn.v" in name or "mlp.up" in name:
            module = f"base_model.model.{name.removesuffix('.weight')}"
            factors[f"{module}.lora_A.weight"] = (0.3 * rng.standard_normal((4, tensor.shape[1])), "F32")
            factors[f"{module}.lora_B.weight"] = (0.3 * rng.standard_normal((tensor.shape[0], 4)), "F32")
    write_adapter(folder / "tuned", factors)
    done = convert(folder / "tuned", folder / "base", folder / "merged", 2)
    check("merged by convert", done.returncode == 0, done.stderr)
    found = {}
    for name, ranks in (("tuned", 3), ("merged", 1)):
        done = studies.study(folder / f"{name}.yaml", JOB % (folder / "base", folder / name, folder, folder / f"out-{name}"),
                             ranks, "svd_group=1", options=("--verify-inputs",) if ranks == 3 else ())
        check(f"study of the {name} model", done.returncode == 0, done.stderr)
        if done.returncode == 0:
            found[name] = json.loads((folder / f"out-{name}/results.json").read_text())["units"]
    for edit in ("dare", "low") if len(found) == 2 else ():
        one, two = (studies.load_model(folder / f"out-{name}/models/{edit}") for name in ("tuned", "merged"))
        check(f"{edit}: the same bytes", one == two)
    check("the same losses", len(found) == 2 and all(
        abs(one[key] - two[key]) < 1e-6 for one, two in zip(*found.values()) for key in ("loss_post", "loss_pre", "estimate")))
    job = JOB % (folder / "base", folder / "tuned", folder, folder / "out-tuned")
    done = studies.study(folder / "again.yaml", job, 1, "svd_group=1", options=("--resume",))
    check("resumed: nothing to do", done.returncode == 0 and "all 2 edits were finished before" in done.stderr,
          done.stderr)
    write_adapter(folder / "tuned", factors, lora_alpha=7)
    done = studies.study(folder / "again.yaml", job, 1, "svd_group=1", options=("--resume",))
    units = json.loads((folder / "out-tuned/results.json").read_text())["units"]
    check("another alpha: done again", done.returncode == 0 and abs(units[0]["loss_post"] - found["tuned"][0]["loss_post"]) >
          1e-6, done.stderr)
    for words in (("inspect", "--base"), ("verify", "--base")):
        done = studies.deltapath(*words, f"{folder}/base", f"{folder}/tuned")
        check(f"{words[0]}: knows it", done.returncode == 0, done.stderr)
    done = studies.deltapath("diff", f"{folder}/base", f"{folder}/tuned", "--iterations", "0")
    check("diff with its base", done.returncode == 0 and "layers.1.mlp.up_proj" in done.stdout, done.stderr)
    return factors


def hostile(folder, good):
    """One fault each, refused in one line before anything is written."""
    first = next(name for name in good if "lora_A" in name)
    other = first.replace("lora_A", "lora_B")

    def without(name):
        return {key: value for key, value in good.items() if key != name}

    cases = {
        "no B": (without(other), {}, "has no B"), "no A": (without(first), {}, "has no A"),
        "r of 0": (good, {"r": 0}, "r must be a rank"), "another r": (good, {"r": 3}, "rank 3, by r and rank_pattern"),
        "a rank by a pattern": (good, {"rank_pattern": {"v_proj": 5}}, "rank 5, by r and rank_pattern"),
        "a rank that is a text": (good, {"rank_pattern": {"v_proj": "5"}}, "v_proj must be a rank"),
        "alpha beyond all": (good, {"lora_alpha": 1e300}, "lora_alpha must be a number"),
        "a product that overflows": ({name: (1e20 * value, dtype) for name, (value, dtype) in good.items()}, {},
                                     "no finite number"),
        "a module of another model": (dict(good, **{"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight":
                                                    good[first]}), {}, "which the base .* does not have"),
        "DoRA": (good, {"use_dora": True}, "use_dora true is not supported"),
        "DoRA's tensor": (dict(good, **{first.replace("lora_A.weight", "lora_magnitude_vector"): ([1.0], "F32")}), {}, "DoRA"),
        "another kind": (good, {"peft_type": "IA3"}, "peft_type \"IA3\" is not supported"),
        "PiSSA": (good, {"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        "a bias of another kind": (good, {"bias": "some"}, "bias \"some\""),
        "a pattern that may loop": (good, {"alpha_pattern": {"(?=x)y": 2}}, "pattern .* is not one that is understood"),
        "a pattern that ends in a backslash": (good, {"rank_pattern": {"up_proj\\": 2}}, "pattern .* is not one that is understood"),
        "a set with a class that POSIX lacks": (good, {"rank_pattern": {"[\\w]+_proj": 2}}, "pattern .* is not one that is understood"),
        "a set that does not end": (good, {"rank_pattern": {"[\\d": 2}}, "pattern .* is not one that is understood"),
        "integers": (dict(good, **{first: (np.ones(good[first][0].shape), "I8")}), {}, "is not f32, f16 or bf16"),
        "another width": (dict(good, **{first: (np.ones((4, 3)), "F32")}), {}, "lora_A.weight' [4, 3] does not fit"),
        "a vector": (dict(good, **{first: (np.ones(4), "F32")}), {}, "does not fit"),
        "whole and of another shape": (dict(good, **{"base_model.model.lm_head.weight": (np.ones((65, 16)), "F32")}),
                                       {}, "resize the base's vocabulary"),
        "twice": (dict(good, **{first.removeprefix("base_model.model."): good[first]}), {}, "twice"),
        "nothing": ({}, {}, "no tensors in it"), "no base": (good, {}, "name its base with --base"),
    }
    for ranks, (name, (tensors, options, text)) in enumerate(cases.items()):
        shutil.rmtree(folder / "bad", ignore_errors=True)
        shutil.rmtree(folder / "never", ignore_errors=True)
        write_adapter(folder / "bad", tensors, **options)
        done = convert(folder / "bad", None if name == "no base" else folder / "base", folder / "never", 1 + ranks % 2)
        line = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
        found = text.split(" .* ")
        check(f"{name}: refused", done.returncode == 3 and all(part in done.stderr for part in found) and
              not (folder / "never").exists(), line)
    shutil.rmtree(folder / "bad", ignore_errors=True)
    write_adapter(folder / "bad", good, base_model_name_or_path=str(folder / "tuned"))
    done = convert(folder / "bad", None, folder / "never")
    check("an adapter as base: refused", done.returncode == 3 and "is a PEFT adapter too" in done.stderr, done.stderr)
    (folder / "bad/adapter_config.json").write_text("[1]")
    done = convert(folder / "bad", folder / "base", folder / "never")
    check("a list as configuration: refused", done.returncode == 3 and "no JSON object" in done.stderr, done.stderr)


def tied(folder):
    """An embedding of a base that ties its head: PEFT leaves the head as it is, unless both are changed alike."""
    config = models.llama_config(64, tied=True)
    pre, _ = models.llama_pair(config, "F32")
    pre.pop("lm_head.weight", None)
    models.write_model(folder / "tied-base", pre, config)
    rng = np.random.default_rng(7)
    name, head = "base_model.model.model.embed_tokens", "base_model.model.lm_head"
    shape = pre["model.embed_tokens.weight"][0].shape
    whole, other = rng.standard_normal(shape), rng.standard_normal(shape)
    a, b = rng.standard_normal((4, shape[0])), rng.standard_normal((shape[1], 4))
    low = {f"{name}.lora_embedding_A": (a, "F32"), f"{name}.lora_embedding_B": (b, "F32")}
    full = {f"{name}.weight": (whole, "F32")}
    cases = {"whole": (full, {}, "without the head"), "factors": (low, {}, "without the head"),
             "whole-kept": (full, {"ensure_weight_tying": True}, None),
             "whole-both": (dict(full, **{f"{head}.weight": (whole, "F32")}), {}, None),
             "whole-other": (dict(full, **{f"{head}.weight": (other, "F32")}), {}, "in another way than the embedding"),
             "factors-both": (dict(low, **{f"{head}.lora_A.weight": (b.T, "F32"), f"{head}.lora_B.weight": (a.T, "F32")}), {}, None),
             "factors-other": (dict(low, **{f"{head}.lora_A.weight": (b.T, "F32"), f"{head}.lora_B.weight": (2 * a.T, "F32")}), {},
                               "in another way than the embedding"),
             "head-alone": ({f"{head}.weight": (whole, "F32")}, {}, "does not have")}
    for case, (tensors, options, says) in cases.items():
        write_adapter(folder / f"tied-{case}", tensors, **options)
        done = convert(folder / f"tied-{case}", folder / "tied-base", folder / f"tied-{case}-out", 2)
        good = done.returncode == 0 if says is None else done.returncode == 3 and says in done.stderr and "PEFT" in done.stderr
        check(f"tied base, {case}", good, done.stderr)
        words = ("--base", str(folder / "tied-base"), str(folder / f"tied-{case}"))
        for form in ((), ("--json",)):
            shown = studies.deltapath("inspect", *form, *words)
            check(f"tied base, {case}: inspect {form}", shown.returncode == done.returncode and (says is None or says in shown.stderr)
                  and bool(shown.stdout) == (says is None), shown.stderr)
    for ranks, case in enumerate(cases, 1):  # in the place of the pre-trained model
        options = json.loads((folder / f"tied-{case}/adapter_config.json").read_text())
        (folder / f"tied-{case}/adapter_config.json").write_text(
            json.dumps(dict(options, base_model_name_or_path=str(folder / "tied-base"))))
        says = cases[case][2]
        good = 0 if says is None else 3
        seen = studies.deltapath("diff", str(folder / f"tied-{case}"), str(folder / "tied-base"), "--iterations", "0")
        check(f"tied base, {case} first: diff", seen.returncode == good and (says is None or says in seen.stderr), seen.stderr)
        job = JOB % (folder / f"tied-{case}", folder / "tied-base", folder, folder / f"tied-{case}-study")
        done = studies.study(folder / "first.yaml", job, 1 + ranks % 4, "riemann=off", "data=[]")
        check(f"tied base, {case} first: a study", done.returncode == good and (says is None or says in done.stderr), done.stderr)


def main():
    """All of it in one folder."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as name:
        folder = pathlib.Path(name)
        golden(folder)
        otherwise(folder)
        in_pieces(folder)
        tied(folder)
        oracle(folder)
        hostile(folder, study_of(folder))
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

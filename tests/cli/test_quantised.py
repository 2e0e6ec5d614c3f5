#!/usr/bin/python3
"""Models quantised to FP8 in blocks, or to MXFP4, give what the plain models give that numpy makes of them: the same
edited models and the same results, at any number of ranks; and what their owner is told of them."""

import json
import os
import pathlib
import re
import shutil
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import compare
import make_models
import studies
from studies import check

BLOCK = (8, 5)
JOB = """models: {pre: a, post: b}
data: [{name: d, file: a, loss: lm}]
edits:
  - {name: dare, method: dare, p: 0.5, seed: 3}
  - {name: expo, method: expo, alpha: 0.25}
  - {name: lowrank, method: lowrank, rank: 3, svd: exact}
riemann: {points: 2}
output: {directory: %s, checkpoint: safetensors, report: false}
"""


def bf16(values):
    """fp32 rounded to bf16, as the bits."""
    return np.frombuffer(make_models.encode(values, "BF16"), "<u2").reshape(np.shape(values))


def wide(bits):
    """fp32 of bf16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def e4m3():
    """fp32 of each code, from the definition: 4 bits of exponent with bias 7, 3 of mantissa; the last is NaN."""
    code = np.arange(128)
    exponent, mantissa = code >> 3, code & 7
    value = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0 ** -9)
    value[127] = np.nan
    return np.concatenate([value, -value]).astype(np.float32)


def fp8(values):
    """Codes, scales of BLOCK, and the bf16 bits of code times scale."""
    rows, cols = values.shape
    spread = [np.repeat(np.arange(-(-n // side)), side)[:n] for n, side in zip(values.shape, BLOCK)]
    grid = np.zeros((spread[0][-1] + 1, spread[1][-1] + 1), np.float32)
    np.maximum.at(grid, (spread[0][:, None], spread[1][None]), np.abs(values).astype(np.float32))
    scales = grid / np.float32(448)
    each = scales[spread[0]][:, spread[1]]
    table = e4m3()
    order = np.flatnonzero(np.isfinite(table))
    nearest = np.abs((values / each)[..., None] - table[order]).argmin(-1)
    codes = order[nearest].astype(np.uint8)
    return codes, scales, bf16(table[codes] * each)


def nearest_even(values):
    """Codes of the nearest numbers of e4m3; of two that are as near the even one."""
    table = e4m3()[:127].astype(np.float64)
    size = np.minimum(np.abs(values.astype(np.float64)), 448)
    above = np.clip(np.searchsorted(table, size), 1, 126)
    gap = (table[above] - size) - (size - table[above - 1])
    code = np.where((gap < 0) | ((gap == 0) & (above % 2 == 0)), above, above - 1)
    return (code | np.where(np.signbit(values), 128, 0)).astype(np.uint8)


def again(post, edited, codes, scales):
    """Edited values (fp32) in the form of post, whose values they are where nothing changes: codes, scales, values."""
    spread = [np.repeat(np.arange(-(-n // side)), side)[:n] for n, side in zip(post.shape, BLOCK)]
    largest, changed = np.zeros((2, *scales.shape), np.float32)
    np.maximum.at(largest, (spread[0][:, None], spread[1][None]), np.abs(edited))
    np.maximum.at(changed, (spread[0][:, None], spread[1][None]), edited != post)
    scales = np.where(changed > 0, largest / np.float32(448), scales).astype(np.float32)
    each = scales[spread[0]][:, spread[1]]
    codes = np.where(changed[spread[0]][:, spread[1]] > 0, nearest_even(edited / each), codes)
    return codes, scales, wide(bf16(e4m3()[codes] * each))


def quantise_fp8(source, out):
    """The linear layers of a model in FP8, as out; as plain tensors of bf16, as out-plain."""
    shutil.copytree(source, out)
    shutil.copytree(source, f"{out}-plain")
    stored, plain = {}, {}
    for name, (dtype, data) in compare.read_model(source).items():
        values = wide(data)
        stored[name] = plain[name] = (values, dtype)
        if "_proj." in name:
            codes, scales, bits = fp8(values)
            stored[name], stored[name + "_scale_inv"] = (codes, "F8_E4M3"), (scales, "F32")
            plain[name] = (wide(bits), "BF16")
    config = json.loads((source / "config.json").read_text())
    make_models.write_safetensors(pathlib.Path(f"{out}-plain/model.safetensors"), plain)
    make_models.write_safetensors(out / "model.safetensors", stored)
    (out / "config.json").write_text(json.dumps(
        dict(config, quantization_config={"quant_method": "fp8", "weight_block_size": BLOCK}), indent=1))


def compare_studies(name, folder, counts, sets, plain_sets):
    """Run the job on quantised and on plain models, at several numbers of ranks; the same bytes."""
    for ranks in counts:
        out = f"{folder}/{name}-{ranks}"
        done = studies.study(f"{folder}/job.yaml", JOB % out, ranks, *sets)
        check(f"{name} at {ranks}: the study", done.returncode == 0, done.stderr)
        done = studies.study(f"{folder}/job.yaml", JOB % f"{out}-plain", ranks, *plain_sets)
        check(f"{name} at {ranks}: of the plain models", done.returncode == 0, done.stderr)
        for edit in sorted(os.listdir(f"{out}-plain/models")):
            a, b = f"{out}/models/{edit}", f"{out}-plain/models/{edit}"
            found = compare.tensors(a, b)
            check(f"{name} at {ranks}: {edit} has the bytes of the plain pair", not found, found)
            with open(f"{a}/config.json", encoding="utf-8") as file:
                check(f"{name} at {ranks}: {edit} is no quantised model", "quantization_config" not in json.load(file))
        if os.path.exists(f"{out}/results.json"):
            with open(f"{out}/results.json", encoding="utf-8") as one, open(f"{out}-plain/results.json", encoding="utf-8") as two:
                units = [json.load(file)["units"] for file in (one, two)]
            found = []
            compare.walk(*units, 0.0, "", found)
            check(f"{name} at {ranks}: the results of the plain pair", units[0] and not found, found)


def check_expo(name, edited, pre, post):
    """pre + 1.25 (post - pre) in fp32, rounded once."""
    pre, post, edited = (compare.read_model(model) for model in (pre, post, edited))
    wrong = []
    for tensor, (_, bits) in edited.items():
        a, b = wide(pre[tensor][1]), wide(post[tensor][1])
        if not np.array_equal(bf16(a + (b - a) * np.float32(1.25)), bits):
            wrong.append(tensor)
    check(f"{name}: expo is what numpy makes of the dequantised pair", not wrong, wrong)


def run_fp8(folder):
    """A post-trained model in FP8, then both."""
    make_models.make_llama(folder / "m", type("", (), dict(
        dtype="bf16", tied=False, pad=0, layers=2, samples=0, vocabulary=64)))
    for side in "pre", "post":
        quantise_fp8(folder / "m" / side, folder / side)
    data = f"data.0.file={folder}/m/data.h5"
    compare_studies("fp8 after bf16", folder, (3,), (data, f"models={{pre: {folder}/m/pre, post: {folder}/post}}"),
                    (data, f"models={{pre: {folder}/m/pre, post: {folder}/post-plain}}"))
    check_expo("fp8", f"{folder}/fp8 after bf16-3/models/expo", folder / "m/pre", folder / "post-plain")
    compare_studies("both fp8", folder, (2,), (data, f"models={{pre: {folder}/pre, post: {folder}/post}}"),
                    (data, f"models={{pre: {folder}/pre-plain, post: {folder}/post-plain}}"))


def check_again(name, written, plain, quantised, post):
    """A written model against what numpy makes of the plain one that the same edit gives."""
    written, plain, quantised, post = (compare.read_model(model) for model in (written, plain, quantised, post))
    wrong = [] if set(written) == set(quantised) else sorted(set(written) ^ set(quantised))
    changed, square = {}, {}
    for tensor in set(plain) - set(wrong):
        values = wide(plain[tensor][1])
        if tensor + "_scale_inv" in quantised:
            scale = quantised[tensor + "_scale_inv"][1]
            codes, scales, values = again(wide(post[tensor][1]), values, quantised[tensor][1], scale)
            if not (np.array_equal(written[tensor][1], codes) and np.array_equal(written[tensor + "_scale_inv"][1], scales)):
                wrong.append(tensor)
        elif not compare.same(written[tensor], plain[tensor]):
            wrong.append(tensor)
        edit = values - wide(post[tensor][1])
        changed[tensor], square[tensor] = np.count_nonzero(edit), np.sum(edit.astype(np.float64) ** 2)
    check(f"{name}: codes, scales and other tensors are numpy's", not wrong, wrong)
    return changed, square


def tensor_stats(path, edit):
    """Name, share_changed and edit_norm of each tensor."""
    with h5py.File(path) as file:
        names = [name.decode() for name in file["tensors/names"]]
        group = file[f"edits/{edit}/d"]
        columns = [column.decode() for column in group["tensor_stats_columns"]]
        stats = group["tensor_stats"][:]
    return zip(names, stats[:, columns.index("share_changed")], stats[:, columns.index("edit_norm")])


def run_again(folder):
    """Edits that are quantised again: their bytes, their results, and as models of another study."""
    sets = (f"data.0.file={folder}/m/data.h5", f"models={{pre: {folder}/m/pre, post: {folder}/post}}",
            "select={exclude: ['*.o_proj.*']}")
    for ranks in 1, 3:
        out = f"{folder}/again-{ranks}"
        done = studies.study(f"{folder}/job.yaml", JOB % out, ranks, *sets, "output.quantise=true")
        check(f"again at {ranks}: the study", done.returncode == 0, done.stderr)
        done = studies.study(f"{folder}/job.yaml", JOB % f"{out}-plain", ranks, *sets)
        with open(f"{out}/results.json", encoding="utf-8") as file:
            units = {unit["edit"]: unit for unit in json.load(file)["units"]}
        for edit in units:
            changed, square = check_again(f"again at {ranks}: {edit}", f"{out}/models/{edit}",
                                          f"{out}-plain/models/{edit}", folder / "post", folder / "post-plain")
            found = []
            for tensor, share, norm in tensor_stats(f"{out}/results.h5", edit):
                size = compare.read_model(folder / "post-plain")[tensor][1].size
                if round(share * size) != changed[tensor] or abs(norm ** 2 - square[tensor]) > 1e-6 * square[tensor]:
                    found.append((tensor, share * size, changed[tensor], norm ** 2, square[tensor]))
            check(f"again at {ranks}: {edit}: the results are of E as it is stored", not found, found)
    with open(f"{out}/models/expo/config.json", encoding="utf-8") as file:
        check("again: it says that it is quantised", json.load(file)["quantization_config"]["weight_block_size"] == list(BLOCK))
    done = studies.deltapath("verify", f"{out}/models/expo")
    check("again: verify", done.returncode == 0 and "28 tensors of codes and scales: 28 of 28 stored hashes match" in done.stdout,
          done.stdout + done.stderr)
    check("again: verify of the study", (done := studies.deltapath("verify", out)).returncode == 0, done.stderr)
    shutil.copytree(f"{out}/models/expo", f"{folder}/damaged")
    with open(f"{folder}/damaged/model.safetensors", "r+b") as file:
        raw = file.read()
        codes = compare.read_model(folder / "damaged")["model.layers.1.mlp.up_proj.weight"][1].tobytes()
        file.seek(raw.index(codes) + 7)
        file.write(bytes([codes[7] ^ 1]))
    done = studies.deltapath("verify", f"{folder}/damaged")
    check("again: verify sees a bit of a code", done.returncode == 3 and "layers.1.mlp.up_proj.weight" in done.stderr, done.stderr)
    done = studies.study(f"{folder}/job.yaml", JOB % f"{folder}/next", 2, *sets, f"models.post={out}/models/expo",
                         "edits=[{name: none, method: expo, alpha: 0}]", "output.quantise=true", "output.checkpoint=hdf5")
    with open(f"{folder}/next/results.json", encoding="utf-8") as file:
        unit = json.load(file)["units"][0]
    check("again: the loss of what is read is that of what was on the path",
          abs(unit["loss_post"] - units["expo"]["loss_edit"]) < 1e-6 and unit["change"] == 0, (unit["loss_post"], units["expo"]["loss_edit"]))
    alone = ("riemann=off", "data=[]", "output.quantise=true", "edits=[{name: expo, method: expo, alpha: 0.25}]")
    done = studies.study(f"{folder}/job.yaml", JOB % f"{folder}/alone", 2, *sets[1:], *alone)
    found = compare.tensors(f"{folder}/alone/models/expo", f"{out}/models/expo") if done.returncode == 0 else done.stderr
    check("again: edits alone", not found, found)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    make_models.write_safetensors(folder / "adapter/adapter_model.safetensors", {
        name + "A.weight": (np.ones((2, 16)), "F32"), name + "B.weight": (np.ones((16, 2)), "F32")})
    (folder / "adapter/adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "base_model_name_or_path": f"{folder}/post"}))
    for name, words, changes in (("an adapter on FP8", "adapter, whose sum with its base is plain", (f"models.post={folder}/adapter", *alone)),
                                 ("int8", "is I8.*read but not written", ("models.post=tests/golden/quantised/compressed", *alone)),
                                 ("plain", "no tensor is quantised", (f"models.post={folder}/m/post", *alone)),
                                 ("another type", "leave output.dtype out", ("output.dtype=f32", *alone))):
        done = studies.study(f"{folder}/job.yaml", JOB % f"{folder}/refused", 2, *sets[1:], *changes, options=("--dry-run",))
        check(f"again: {name} is refused", done.returncode == 2 and re.search(words, done.stderr), done.stderr)


def run_tied(folder):
    """A stored copy of a tied head beside FP8: it is written as the embedding is, quantised again or not."""
    make_models.make_llama(folder / "t", type("", (), dict(dtype="bf16", tied=True, pad=0, layers=2, samples=0, vocabulary=64)))
    head, table = "lm_head.weight", "model.embed_tokens.weight"
    for side in "pre", "post":
        tensors = {name: (wide(data), dtype) for name, (dtype, data) in compare.read_model(folder / "t" / side).items()}
        make_models.write_safetensors(folder / "t" / side / "model.safetensors", dict(tensors, **{head: tensors[table]}))
        quantise_fp8(folder / "t" / side, folder / f"tied-{side}")
    pre, post = (wide(compare.read_model(folder / f"tied-{side}")[table][1]) for side in ("pre", "post"))
    sets = (f"data.0.file={folder}/t/data.h5", f"models={{pre: {folder}/tied-pre, post: {folder}/tied-post}}",
            "edits=[{name: expo, method: expo, alpha: 0.25}]")
    for ranks, quantise in ((1, "true"), (3, "true"), (2, "false"), (4, "true")):
        out = f"{folder}/tied-{ranks}"
        done = studies.study(f"{folder}/job.yaml", JOB % out, ranks, *sets, f"output.quantise={quantise}")
        check(f"tied at {ranks}: the study", done.returncode == 0, done.stderr)
        written = compare.read_model(f"{out}/models/expo")
        check(f"tied at {ranks}: head and embedding are the edit of the embedding", np.array_equal(written[head][1], written[table][1]) and
              np.array_equal(written[table][1], bf16(post + (post - pre) * np.float32(0.25))))
        done = studies.deltapath("verify", f"{out}/models/expo")
        check(f"tied at {ranks}: verify", done.returncode == 0, done.stderr)
    for side in "pre", "post":  # the two in codes
        codes, scales, _ = fp8(wide(compare.read_model(folder / f"t/{side}")[table][1]))
        stored = {name: (wide(data) if dtype == "BF16" else data, dtype)
                  for name, (dtype, data) in compare.read_model(folder / f"tied-{side}").items()}
        for name in head, table:
            stored[name], stored[name + "_scale_inv"] = (codes, "F8_E4M3"), (scales, "F32")
        make_models.write_safetensors(folder / f"tied-{side}" / "model.safetensors", stored)
    done = studies.study(f"{folder}/job.yaml", JOB % f"{folder}/tied-codes", 2, *sets, "output.quantise=true")
    check("tied in codes: refused", done.returncode == 3 and "lm_head.weight is a copy of the embedding" in done.stderr and
          "leave output.quantise out" in done.stderr, done.stderr)
    done = studies.study(f"{folder}/job.yaml", JOB % f"{folder}/tied-codes", 2, *sets)
    written = compare.read_model(f"{folder}/tied-codes/models/expo") if done.returncode == 0 else {head: (0, 0), table: (0, 1)}
    check("tied in codes: plain", np.array_equal(written[head][1], written[table][1]), done.stderr)


FP4 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def again_mxfp4(post, edited, scales):
    """Codes and scales of edited values (..., 32) in the place of post's: by definition, in double."""
    edited = edited.astype(np.float64)
    largest = np.abs(edited).max(-1)
    power = np.full(largest.shape, 127)
    for exponent in range(126, -128, -1):
        power = np.where(6 * 2.0 ** exponent >= largest, exponent, power)
    power = np.where(largest > 0, power, 0)
    scales = np.where((edited == post).all(-1), scales, power + 127).astype(np.uint8)
    size = np.abs(edited) / 2.0 ** (scales.astype(np.float64) - 127)[..., None]
    off = np.abs(size[..., None] - FP4[:8])
    nearest = off == off.min(-1, keepdims=True)
    code = np.where(nearest.sum(-1) == 1, nearest.argmax(-1), (nearest * (np.arange(8) % 2 == 0)).argmax(-1))
    code = (code | np.where(np.signbit(edited), 8, 0)).astype(np.uint8)
    return code[..., 0::2] | code[..., 1::2] << 4, scales


def check_mxfp4(folder, name, sets, plain):
    """The edits quantised again, where a group's scale may be any that a byte holds, also below 2^-100."""
    groups = lambda model: wide(compare.read_model(model)[name][1]).transpose(0, 2, 1).reshape(2, 9, 3, 32)
    for ranks in 1, 3:
        done = studies.study(f"{folder}/job.yaml", JOB % f"{folder}/mx-again-{ranks}", ranks, *sets, "output.quantise=true")
        check(f"mxfp4 again at {ranks}", done.returncode == 0, done.stderr)
        for edit in ("expo", "dare", "prune") if done.returncode == 0 else ():
            written = compare.read_model(f"{folder}/mx-again-{ranks}/models/{edit}")
            edited, post = groups(f"{plain}/models/{edit}"), groups(folder / "mx-post-plain")
            codes, scales = again_mxfp4(post, edited, compare.read_model(folder / "mx-post")[name + "_scales"][1])
            wrong = np.argwhere(written[name + "_scales"][1] != scales), np.argwhere(written[name + "_blocks"][1] != codes)
            check(f"mxfp4 again at {ranks}: {edit}: codes and scales are numpy's", not sum(map(len, wrong)), wrong)
            check(f"mxfp4 again at {ranks}: {edit}: scales of all sizes", scales.min() < 5 and scales.max() > 110, scales)


def run_mxfp4(folder):
    """Experts in MXFP4, edits alone; of some groups the values are the least that there are."""
    rng = np.random.default_rng(5)
    for side in "pre", "post":
        codes = rng.integers(0, 256, (2, 9, 3, 16)).astype(np.uint8)
        exponents = rng.integers(115, 125, (2, 9, 3)).astype(np.uint8)
        exponents[:, :4] = np.arange(12).reshape(4, 3) * 2 if side == "post" else 0
        codes[:, 4:6] &= 0x88  # zeros of both signs
        pairs = np.stack([codes & 15, codes >> 4], -1).reshape(2, 9, 3, 32)
        matrix = FP4[pairs] * np.exp2(exponents[..., None].astype(np.float32) - 127)
        norm = (rng.standard_normal(12), "BF16")
        name = "model.layers.0.mlp.experts.down_proj"
        make_models.write_model(folder / f"mx-{side}", {
            name + "_blocks": (codes, "U8"), name + "_scales": (exponents, "U8"), "model.norm.weight": norm},
            {"quantization_config": {"quant_method": "mxfp4"}, "model_type": "none"})
        make_models.write_model(folder / f"mx-{side}-plain", {
            name: (matrix.reshape(2, 9, 96).transpose(0, 2, 1), "BF16"), "model.norm.weight": norm}, {"model_type": "none"})
    sets = [("riemann=off", "data=[]", f"models={{pre: {folder}/mx-pre{end}, post: {folder}/mx-post{end}}}",
             "edits=[{name: expo, method: expo, alpha: 0.25}, {name: dare, method: dare, p: 0.5, seed: 1}, "
             "{name: prune, method: prune, keep: 0.7}]")
            for end in ("", "-plain")]
    compare_studies("mxfp4", folder, (4,), *sets)
    check_mxfp4(folder, name, sets[0], f"{folder}/mxfp4-4-plain")
    check_expo("mxfp4", f"{folder}/mxfp4-4/models/expo", folder / "mx-pre-plain", folder / "mx-post-plain")


def said(folder):
    """What inspect, diff, verify and convert make of it."""
    done = studies.deltapath("inspect", f"{folder}/post")
    check("inspect says how", "14 tensors" in done.stdout and "F8_E4M3 with scales (F32) of 8 x 5" in done.stdout and
          "_scale_inv" not in done.stdout, done.stdout + done.stderr)
    done = studies.deltapath("inspect", "--json", f"{folder}/post")
    tensors = {t["name"]: t for t in json.loads(done.stdout)["tensors"]}
    one = tensors["model.layers.0.mlp.down_proj.weight"]
    check("inspect --json says how", one["dtype"] == "BF16" and one["quantised"].startswith("F8_E4M3") and
          one["stored_bytes"] == 16 * 24 + 4 * 2 * 5 and "quantised" not in tensors["model.norm.weight"], one)
    done = studies.deltapath("verify", f"{folder}/post")
    check("verify", done.returncode == 0 and "post: 14 tensors are quantised (F8_E4M3 with scales (F32) of 8 x 5) and read as BF16"
          in done.stderr, done.stderr)
    for end in ".h5", "":
        done = studies.deltapath("convert", f"{folder}/post", f"{folder}/converted{end}")
        found = compare.tensors(f"{folder}/converted{end}", f"{folder}/post-plain") if done.returncode == 0 else done.stderr
        check(f"convert to '{end}'", not found, found)
    done = studies.deltapath("diff", f"{folder}/post", f"{folder}/post-plain")
    total = [line.split() for line in done.stdout.splitlines() if line.startswith("all ")]
    check("diff sees no delta", len(total) == 1 and float(total[0][1]) > 0 == float(total[0][3]), done.stdout + done.stderr)


def left_over(folder):
    """Zero points of inputs are no tensors; a key that no tensor needs is refused next to codes alone."""
    for side in "one", "two":
        codes = {"a.weight": (np.ones((4, 6)), "I8"), "a.weight_scale": (np.ones((4, 1)), "BF16")}
        codes.update({f"a.{of}_zero_point": (np.ones(1), "I8") for of in ("input", "output")})
        make_models.write_model(folder / f"zero-{side}", codes, {"quantization_config": {"quant_method": "compressed-tensors"}})
        for key in "quantization_config", "compression_config":
            config = {key: {"quant_method": "own"}}
            make_models.write_model(folder / f"float-{side}", {"a.weight": (np.ones((4, 6)), "F32")}, config)
            make_models.write_model(folder / f"{key}-{side}", {"a.W_q": (np.ones((4, 6)), "U8"), "a.scale": (np.ones(4), "F32")},
                                    config)
    done = studies.deltapath("inspect", f"{folder}/zero-one")
    check("zero points of inputs are hidden", done.returncode == 0 and "1 tensors" in done.stdout and
          "zero_point" not in done.stdout, done.stdout + done.stderr)
    for name, status in (("zero", 0), ("float", 0), ("quantization_config", 3), ("compression_config", 3)):
        done = studies.deltapath("diff", f"{folder}/{name}-one", f"{folder}/{name}-two", "--iterations", "0")
        check(f"{name}: usable or not", done.returncode == status and (status == 0 or "quant_method own" in done.stderr),
              done.stdout + done.stderr)


def main():
    """Both forms."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as name:
        folder = pathlib.Path(name)
        run_fp8(folder)
        run_mxfp4(folder)
        run_again(folder)
        run_tied(folder)
        said(folder)
        left_over(folder)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
"""Models quantised to FP8 in blocks, or to MXFP4, give what the plain models give that numpy makes of them: the same
edited models and the same results, at any number of ranks; and what their owner is told of them."""

import json
import os
import pathlib
import shutil
import sys
import tempfile

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
    compare_studies("fp8 after bf16", folder, (1, 3), (data, f"models={{pre: {folder}/m/pre, post: {folder}/post}}"),
                    (data, f"models={{pre: {folder}/m/pre, post: {folder}/post-plain}}"))
    check_expo("fp8", f"{folder}/fp8 after bf16-3/models/expo", folder / "m/pre", folder / "post-plain")
    compare_studies("both fp8", folder, (2,), (data, f"models={{pre: {folder}/pre, post: {folder}/post}}"),
                    (data, f"models={{pre: {folder}/pre-plain, post: {folder}/post-plain}}"))


def run_mxfp4(folder):
    """Experts in MXFP4, edits alone."""
    values = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    rng = np.random.default_rng(5)
    for side in "pre", "post":
        codes = rng.integers(0, 256, (2, 9, 3, 16)).astype(np.uint8)
        exponents = rng.integers(115, 125, (2, 9, 3)).astype(np.uint8)
        pairs = np.stack([codes & 15, codes >> 4], -1).reshape(2, 9, 3, 32)
        matrix = values[pairs] * np.exp2(exponents[..., None].astype(np.float32) - 127)
        norm = (rng.standard_normal(12), "BF16")
        name = "model.layers.0.mlp.experts.down_proj"
        make_models.write_model(folder / f"mx-{side}", {
            name + "_blocks": (codes, "U8"), name + "_scales": (exponents, "U8"), "model.norm.weight": norm},
            {"quantization_config": {"quant_method": "mxfp4"}, "model_type": "none"})
        make_models.write_model(folder / f"mx-{side}-plain", {
            name: (matrix.reshape(2, 9, 96).transpose(0, 2, 1), "BF16"), "model.norm.weight": norm}, {"model_type": "none"})
    sets = [("riemann=off", "data=[]", f"models={{pre: {folder}/mx-pre{end}, post: {folder}/mx-post{end}}}",
             "edits=[{name: expo, method: expo, alpha: 0.25}, {name: dare, method: dare, p: 0.5, seed: 1}]")
            for end in ("", "-plain")]
    compare_studies("mxfp4", folder, (1, 4), *sets)
    check_expo("mxfp4", f"{folder}/mxfp4-1/models/expo", folder / "mx-pre-plain", folder / "mx-post-plain")


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
    check("verify", done.returncode == 0, done.stderr)
    for end in ".h5", "":
        done = studies.deltapath("convert", f"{folder}/post", f"{folder}/converted{end}")
        found = compare.tensors(f"{folder}/converted{end}", f"{folder}/post-plain") if done.returncode == 0 else done.stderr
        check(f"convert to '{end}'", not found, found)
    done = studies.deltapath("diff", f"{folder}/post", f"{folder}/post-plain")
    total = [line.split() for line in done.stdout.splitlines() if line.startswith("all ")]
    check("diff sees no delta", len(total) == 1 and float(total[0][1]) > 0 == float(total[0][3]), done.stdout + done.stderr)


def main():
    """Both forms."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DELTAPATH_TEST_TMP")) as name:
        folder = pathlib.Path(name)
        run_fp8(folder)
        run_mxfp4(folder)
        said(folder)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

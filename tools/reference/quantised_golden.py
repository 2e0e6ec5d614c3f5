#!/usr/bin/env python3
"""Write the quantised checkpoints of tests/golden/quantised: <case>/ as published models lie, and
<case>.safetensors, the plain tensors that transformers' own dequantisation makes of it.

FP8: integrations.finegrained_fp8, where a matrix divides into its blocks Fp8Dequantize, else
_dequantize_fp8_weight in fp32; compressed-tensors: fp32 value times scale, as integrations.compressed_tensors has
it; MXFP4: integrations.mxfp4.convert_moe_packed_tensors.

Usage: quantised_golden.py [OUT_DIRECTORY]
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers.integrations import finegrained_fp8, mxfp4

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
maker = torch.Generator().manual_seed(20261126)


def normal(*shape):
    return torch.randn(shape, generator=maker)


def codes(*shape, dtype=E4M3):
    """Every code but NaN (and infinity), in random order."""
    raw = torch.randint(0, 256, shape, generator=maker).to(torch.uint8)
    mask = 0x7F if dtype == E4M3 else 0x7C
    raw[(raw & mask) == mask] = 0x35
    return raw.view(dtype)


def scales(*shape, dtype=torch.float32):
    return (normal(*shape).abs() * 3e-3 + 1e-5).to(dtype)


def by_blocks(weight, scale, block, dtype):
    rows, cols = weight.shape[-2:]
    if rows % block[0] == 0 and cols % block[1] == 0:
        return finegrained_fp8.Fp8Dequantize(None)._dequantize_one(weight, scale, output_dtype=dtype)
    return finegrained_fp8._dequantize_fp8_weight(weight, scale, block, torch.float32).to(dtype)


def simple(weight, scale, dtype):
    return (weight.to(torch.float32) * scale.to(torch.float32)).to(dtype)


def fp8_blocks():
    """Blocks that divide and that do not, e5m2, bf16 scales, three sides, one scale, scales of activations."""
    block, dtype, files, plain = [16, 8], torch.bfloat16, {}, {}
    for name, shape, scale, kind, of in [
            ("model.layers.0.q.weight", (33, 20), (3, 3), E4M3, torch.float32),
            ("model.layers.0.k.weight", (32, 24), (2, 3), E4M3, torch.float32),
            ("model.layers.0.v.weight", (16, 25), (1, 4), E5M2, torch.bfloat16),
            ("model.layers.0.mlp.experts.gate_up_proj", (3, 17, 9), (3, 2, 2), E4M3, torch.float32),
            ("model.layers.0.mlp.experts.down_proj", (2, 32, 16), (2, 2, 2), E4M3, torch.float32)]:
        files[name] = codes(*shape, dtype=kind)
        files[name + "_scale_inv"] = scales(*scale, dtype=of)
        plain[name] = by_blocks(files[name], files[name + "_scale_inv"], block, dtype)
    name = "model.layers.0.o.weight"
    files[name], files[name + "_scale_inv"] = codes(7, 11), scales(1)[0]
    plain[name] = simple(files[name], files[name + "_scale_inv"], dtype)
    files["model.layers.0.q.activation_scale"] = scales(1)[0]
    for name in "model.layers.0.norm.weight", "model.embed_tokens.weight":
        files[name] = plain[name] = normal(9, 5).to(dtype)
    return {"quant_method": "fp8", "weight_block_size": block}, dtype, files, plain


def fp8_default():
    """The block of 128 x 128 that a configuration without weight_block_size means, and bf16 without a type."""
    weight, scale = codes(130, 136), scales(2, 2)
    return ({"quant_method": "fp8"}, None, {"w.weight": weight, "w.weight_scale_inv": scale},
            {"w.weight": by_blocks(weight, scale, [128, 128], torch.bfloat16)})


def fp8_ue8m0():
    """Powers of two as scales, in bytes, all of them but NaN; blocks of a row's 32; to float32."""
    weight = codes(255, 32)
    scale = torch.arange(255, dtype=torch.uint8)[:, None].contiguous()
    weight.view(torch.uint8)[240:] &= 0x87  # no infinity
    plain = finegrained_fp8.Fp8Dequantize(None)._dequantize_one(weight, scale, output_dtype=torch.float32)
    return ({"quant_method": "fp8", "weight_block_size": [1, 32], "scale_fmt": "ue8m0"}, torch.float32,
            {"w.weight": weight, "w.weight_scale_inv": scale}, {"w.weight": plain})


def compressed():
    """Scales by row and by tensor, f8 and i8, those of inputs and of the cache; to float16."""
    dtype, files, plain = torch.float16, {}, {}
    for name, weight, scale in [
            ("model.layers.0.q.weight", codes(12, 20), scales(12, 1, dtype=torch.bfloat16)),
            ("model.layers.0.k.weight", codes(12, 20), scales(12)),
            ("model.layers.0.v.weight", codes(12, 20), scales(1)),
            ("model.layers.0.o.weight", torch.randint(-128, 128, (12, 20), generator=maker).to(torch.int8),
             scales(12, 1, dtype=torch.float16)),
            ("model.layers.0.experts.w.weight", codes(3, 4, 5), scales(3, 1, 1))]:
        files[name], files[name + "_scale"] = weight, scale
        plain[name] = simple(weight, scale[:, None] if scale.shape == (12,) else scale, dtype)
    for name in "model.layers.0.q.input_scale", "model.layers.0.k_scale", "model.layers.0.v_scale":
        files[name] = scales(1)
    return {"quant_method": "compressed-tensors", "format": "float-quantized"}, dtype, files, plain


def mxfp4_experts():
    """All codes with all scales, and matrices of several groups."""
    files, plain = {}, {}
    for name, shape in ("gate_up_proj", (1, 255, 1)), ("down_proj", (3, 38, 3)):
        name = "model.layers.0.mlp.experts." + name
        if shape[0] == 1:
            pairs = torch.arange(16, dtype=torch.uint8)
            blocks = (pairs | (15 - pairs) << 4).expand(*shape, 16).contiguous()
            exponents = torch.arange(255, dtype=torch.uint8).reshape(shape)
            blocks[:, 253:] &= 0x99  # no infinity
        else:
            blocks = torch.randint(0, 256, (*shape, 16), generator=maker).to(torch.uint8)
            exponents = torch.randint(110, 130, shape, generator=maker).to(torch.uint8)
        files[name + "_blocks"], files[name + "_scales"] = blocks, exponents
        plain[name] = mxfp4.convert_moe_packed_tensors(blocks, exponents)
        files[name + "_bias"] = plain[name + "_bias"] = normal(shape[0], shape[1]).to(torch.bfloat16)
    return {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, torch.bfloat16, files, plain


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/quantised")
    for make in fp8_blocks, fp8_default, fp8_ue8m0, compressed, mxfp4_experts:
        how, dtype, files, plain = make()
        for name, tensor in plain.items():
            assert torch.isfinite(tensor.to(torch.float32)).all(), name
        folder = out / make.__name__
        folder.mkdir(parents=True, exist_ok=True)
        save_file(files, folder / "model.safetensors", {"format": "pt"})
        save_file({n: t.contiguous() for n, t in plain.items()}, out / (make.__name__ + ".safetensors"), {"format": "pt"})
        config = {"quantization_config": how, "hidden_size": 24}
        if dtype is not None:
            config["dtype"] = str(dtype).removeprefix("torch.")
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()

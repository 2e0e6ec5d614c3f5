#!/usr/bin/env python3
"""Writes tests/golden/rope_golden.h: rotary frequencies, cosines and sines as transformers has them.

usage: rope_golden.py > tests/golden/rope_golden.h        (needs torch and transformers)
"""
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

POSITIONS = [0, 1, 7, 511, 8191]
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
CASES = [
    ("DPT_ROPE_DEFAULT", 128, 10000.0, None),
    ("DPT_ROPE_DEFAULT", 6, 1000000.0, None),
    ("DPT_ROPE_LINEAR", 64, 10000.0, {"rope_type": "linear", "factor": 4.0}),
    ("DPT_ROPE_LLAMA3", 128, 500000.0, dict(LLAMA3, factor=8.0)),
    ("DPT_ROPE_LLAMA3", 64, 500000.0, dict(LLAMA3, factor=32.0)),
    ("DPT_ROPE_LLAMA3", 16, 10000.0, {"rope_type": "llama3", "factor": 3.0, "low_freq_factor": 0.7,
                                      "high_freq_factor": 2.9,
                                      "original_max_position_embeddings": 32}),
]


def floats(name, values):
    body = ", ".join(float(v).hex() + "f" for v in values)
    return f"static const float {name}[] = {{{body}}};"


print("/* Written by tools/reference/rope_golden.py: do not edit. */")
print("/* clang-format off */")
print(f"static const int64_t golden_positions[] = {{{', '.join(map(str, POSITIONS))}}};")
rows = []
for i, (kind, dim, theta, scaling) in enumerate(CASES):
    parameters = dict(scaling or {"rope_type": "default"}, rope_theta=theta)
    config = LlamaConfig(hidden_size=2 * dim, num_attention_heads=2, head_dim=dim,
                         max_position_embeddings=16384, rope_parameters=parameters)
    rope = LlamaRotaryEmbedding(config)
    cos, sin = rope(torch.zeros(1, dtype=torch.float32), torch.tensor([POSITIONS]))
    print(floats(f"golden_freq_{i}", rope.inv_freq))
    print(floats(f"golden_cos_{i}", cos[0, :, : dim // 2].flatten()))
    print(floats(f"golden_sin_{i}", sin[0, :, : dim // 2].flatten()))
    s = scaling or {}
    rows.append(f"    {{{{{kind}, {dim}, {theta}, {s.get('factor', 0.0)}, "
                f"{s.get('low_freq_factor', 0.0)}, {s.get('high_freq_factor', 0.0)}, "
                f"{s.get('original_max_position_embeddings', 0)}}}, "
                f"golden_freq_{i}, golden_cos_{i}, golden_sin_{i}}},")
print("static const struct {")
print("    dpt_rope_params params;")
print("    const float *freq, *cos, *sin;")
print("} golden_cases[] = {")
print("\n".join(rows))
print("};")

#!/usr/bin/env python3
"""Writes tests/golden/rope_golden.h: rotary frequencies, cosines and sines as transformers has them.

usage: rope_golden.py > tests/golden/rope_golden.h        (needs torch and transformers)
"""
import torch
import transformers
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

POSITIONS = [0, 1, 7, 511, 8191]
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.02, 1.1, 1.3, 1.75, 2.0],
            "long_factor": [1.0, 1.5, 2.9, 8.3, 21.7, 33.0]}
# Kind, width of a head, base, scaling; the sequence has 8192 positions of 16384.
CASES = [
    ("DEFAULT", 128, 10000.0, {}),
    ("DEFAULT", 6, 1000000.0, {}),
    ("DEFAULT", 24, 10000.0, {"partial_rotary_factor": 0.25}),
    ("DEFAULT", 10, 10000.0, {"partial_rotary_factor": 0.5}),
    ("DYNAMIC", 16, 10000.0, {"rope_type": "dynamic", "factor": 2.5}),
    ("DYNAMIC", 16, 10000.0, {"rope_type": "dynamic", "factor": 2.5, "max": 3000}),
    ("DYNAMIC", 14, 500000.0, {"rope_type": "dynamic", "factor": 4.0, "max": 8191,
                               "partial_rotary_factor": 0.4}),
    ("LINEAR", 64, 10000.0, {"rope_type": "linear", "factor": 4.0}),
    ("LINEAR", 14, 10000.0, {"rope_type": "linear", "factor": 3.0, "partial_rotary_factor": 0.8}),
    ("LLAMA3", 128, 500000.0, dict(LLAMA3, factor=8.0)),
    ("LLAMA3", 64, 500000.0, dict(LLAMA3, factor=32.0)),
    ("LLAMA3", 16, 10000.0, {"rope_type": "llama3", "factor": 3.0, "low_freq_factor": 0.7,
                             "high_freq_factor": 2.9, "original_max_position_embeddings": 32}),
    # gpt-oss; Qwen 2.5; OLMo 3; DeepSeek; a passage of no width; a factor below 1
    ("YARN", 64, 150000.0, dict(YARN, factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False)),
    ("YARN", 32, 1000000.0, dict(YARN, partial_rotary_factor=0.5)),
    ("YARN", 16, 500000.0, dict(YARN, factor=8.0, attention_factor=1.25)),
    ("YARN", 16, 10000.0, dict(YARN, factor=40.0, beta_fast=16, beta_slow=2, mscale=1.0,
                               mscale_all_dim=0.7)),
    ("YARN", 8, 10000.0, dict(YARN, beta_fast=4000.0, beta_slow=3000.0)),
    ("YARN", 8, 10000.0, dict(YARN, factor=0.5, mscale=0.5)),
    ("LONGROPE", 12, 10000.0, dict(LONGROPE, original_max_position_embeddings=8192)),
    ("LONGROPE", 12, 10000.0, dict(LONGROPE, original_max_position_embeddings=8191)),
    ("LONGROPE", 16, 10000.0, dict(LONGROPE, original_max_position_embeddings=4096, factor=0.9,
                                   partial_rotary_factor=0.75)),
    ("LONGROPE", 12, 500.0, dict(LONGROPE, original_max_position_embeddings=9000,
                                 attention_factor=1.5)),
]
NUMBERS = ["factor", "low_freq_factor", "high_freq_factor", "attention_factor", "mscale",
           "mscale_all_dim"]
MAXIMUM = 16384


def floats(name, values):
    texts = [f"{float(v):.9g}" for v in values]  # nine digits tell every float32
    body = ", ".join(t + ("f" if "." in t or "e" in t else ".0f") for t in texts)
    return f"static float {name}[] = {{{body}}};"


def rotary(dim, parameters):
    """LLaMA's embedding; without scaling, only some families take part of a head."""
    keys = dict(hidden_size=2 * dim, num_attention_heads=2,
                max_position_embeddings=parameters.pop("max", MAXIMUM),
                rope_parameters=parameters)
    if "partial_rotary_factor" in parameters and parameters["rope_type"] == "default":
        return GPTNeoXRotaryEmbedding(transformers.GPTNeoXConfig(**keys))
    return LlamaRotaryEmbedding(transformers.LlamaConfig(head_dim=dim, **keys))


def row(i, kind, dim, theta, s):
    fields = [f".kind = DPT_ROPE_{kind}", f".dim = {int(dim * s.get('partial_rotary_factor', 1))}",
              f".theta = {theta}"]
    numbers = {k: s[k] for k in NUMBERS if k in s}
    original = s.get("original_max_position_embeddings")
    if kind == "YARN":
        numbers.update(beta_fast=s.get("beta_fast", 32), beta_slow=s.get("beta_slow", 1))
        fields.append(f".truncate = {str(s.get('truncate', True)).lower()}")
    if kind == "DYNAMIC":
        original = s.get("max", MAXIMUM)
    if kind == "LONGROPE":
        numbers.setdefault("factor", MAXIMUM / original)
        fields += [f".{k}_factor = golden_{k}_{i}" for k in ("short", "long")]
    if original:
        fields.append(f".original_max_position = {original}")
    fields += [f".{k} = {float(v)}" for k, v in numbers.items()]
    return "{" + ", ".join(fields) + "}"


print("/* Written by tools/reference/rope_golden.py: do not edit. */")
print("/* clang-format off */")
print(f"static const int64_t golden_positions[] = {{{', '.join(map(str, POSITIONS))}}};")
print(f"static const int64_t golden_length = {POSITIONS[-1] + 1};")
rows = []
for i, (kind, dim, theta, s) in enumerate(CASES):
    rope = rotary(dim, dict({"rope_type": "default"}, **s, rope_theta=theta))
    cos, sin = rope(torch.zeros(1, dtype=torch.float32), torch.tensor([POSITIONS]))
    half = cos.shape[-1] // 2
    for k in ("short", "long"):
        if kind == "LONGROPE":
            print(floats(f"golden_{k}_{i}", s[k + "_factor"]))
    print(floats(f"golden_freq_{i}", rope.inv_freq))
    print(floats(f"golden_cos_{i}", cos[0, :, :half].flatten()))
    print(floats(f"golden_sin_{i}", sin[0, :, :half].flatten()))
    rows.append(f"    {{{row(i, kind, dim, theta, s)}, {half}, {float(rope.attention_scaling).hex()}, "
                f"golden_freq_{i}, golden_cos_{i}, golden_sin_{i}}},")
print("static const struct {")
print("    dpt_rope_params params;")
print("    int64_t half;")
print("    double scale;")
print("    const float *freq, *cos, *sin;")
print("} golden_cases[] = {")
print("\n".join(rows))
print("};")

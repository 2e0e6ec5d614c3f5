#!/usr/bin/env python3
"""Writes tests/golden/rope_config_golden.h: configurations with the rotation that transformers makes of them.

Every configuration twice: with its keys as they are given here, and as transformers saves it.

usage: rope_config_golden.py > tests/golden/rope_config_golden.h        (needs torch and transformers)
"""
import importlib
import json

import torch
import transformers

YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 256}
SHORT, LONG = [1.0, 1.1, 1.3, 2.0], [1.5, 3.0, 9.0, 30.0]
LISTS = {"short_factor": SHORT, "long_factor": LONG}
SLIDING = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
# The configuration and the prefix of the family's classes; keys.
CASES = [
    ("LlamaConfig", {}),
    ("LlamaConfig", {"rope_theta": 500.0, "rope_scaling": dict(YARN, mscale=0.8, mscale_all_dim=0.5)}),
    ("LlamaConfig", {"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": 0, "truncate": False}}),
    ("LlamaConfig", {"rope_scaling": dict(YARN, factor=None)}),
    ("LlamaConfig", {"rope_scaling": LLAMA3}),
    ("LlamaConfig", {"rope_scaling": {"type": "linear", "factor": 3.0}}),
    ("LlamaConfig", {"rope_scaling": {"type": "dynamic", "factor": 3.0}}),
    ("LlamaConfig", {"rope_scaling": dict(LISTS, rope_type="longrope", factor=6.0,
                                          original_max_position_embeddings=300)}),
    ("SmolLM3Config", {"no_rope_layers": None}),
    ("SmolLM3Config", {"no_rope_layer_interval": 2, "rope_theta": 5000.0}),
    ("SmolLM3Config", {"no_rope_layers": [1, 0, 1, 0, 1], "rope_scaling": YARN}),
    ("Phi3Config", {"partial_rotary_factor": 0.8, "original_max_position_embeddings": 32}),
    ("Phi3Config", {"original_max_position_embeddings": 100,
                    "rope_scaling": dict(LISTS, type="longrope")}),
    ("Phi3Config", {"original_max_position_embeddings": 1024,
                    "rope_scaling": dict(LISTS, type="su",
                                         original_max_position_embeddings=1024)}),
    ("Phi3Config", {"original_max_position_embeddings": 200, "partial_rotary_factor": 0.5,
                    "rope_scaling": {"type": "yarn", "short_factor": SHORT[:2],
                                     "long_factor": LONG[:2]}}),
    ("GPTNeoXConfig", {}),
    ("GPTNeoXConfig", {"rotary_pct": 1.0, "rotary_emb_base": 500, "rope_theta": 500,
                       "partial_rotary_factor": 1.0}),
    ("GPTNeoXConfig", {"rotary_pct": 0.4, "rope_scaling": {"type": "linear", "factor": 2.0}}),
    ("Gemma3TextConfig", {"layer_types": SLIDING}),
    ("Gemma3TextConfig", {"layer_types": SLIDING, "rope_theta": 900.0, "rope_local_base_freq": 50.0,
                          "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    ("Gemma3TextConfig", {"layer_types": SLIDING, "rope_parameters": {
        "full_attention": dict(YARN, rope_theta=77.0), "sliding_attention": None}}),
    ("Olmo3Config", {"layer_types": SLIDING}),
    ("Olmo3Config", {"layer_types": SLIDING, "rope_theta": 500000.0,
                     "rope_scaling": dict(YARN, attention_factor=1.2, beta_fast=32, beta_slow=1)}),
    ("Olmo3Config", {"layer_types": SLIDING, "rope_parameters": {
        "full_attention": dict(LLAMA3, rope_theta=700.0),
        "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 90.0}}}),
    ("GptOssConfig", {"layer_types": SLIDING}),
    ("GptOssConfig", {"layer_types": SLIDING, "rope_theta": 2500.0,
                      "rope_scaling": dict(YARN, beta_fast=32.0, beta_slow=1.0, truncate=False)}),
]
ROTARY = {"LlamaConfig": "llama", "SmolLM3Config": "smollm3", "Phi3Config": "phi3",
          "GPTNeoXConfig": "gpt_neox", "Gemma3TextConfig": "gemma3", "Olmo3Config": "olmo3",
          "GptOssConfig": "gpt_oss"}
SHAPE = dict(hidden_size=16, num_attention_heads=2, num_hidden_layers=4,
             max_position_embeddings=1024)
KEYS = ["rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "rotary_pct",
        "rotary_emb_base", "rope_local_base_freq", "no_rope_layers", "no_rope_layer_interval",
        "original_max_position_embeddings"]
LENGTHS = [20, 2000]


def floats(values):
    texts = [f"{float(v):.9g}" for v in values]  # nine digits tell every float32
    return "{" + ", ".join(t + ("f" if "." in t or "e" in t else ".0f") for t in texts) + "}"


def rotation(config, kind):
    """Angles per position and factors of both kinds of layer, in a short and in a long sequence."""
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    prefix = {"smollm3": "SmolLM3", "gpt_neox": "GPTNeoX", "gpt_oss": "GptOss"}.get(kind, kind.title())
    rotary = getattr(module, prefix + "RotaryEmbedding")(config)
    by_type = hasattr(rotary, "layer_types")
    for layer_type in ("full_attention", "sliding_attention") if by_type else ("full_attention",):
        name = layer_type + "_" if by_type else ""
        freq = []
        for n in LENGTHS:
            rotary(torch.zeros(1), torch.arange(n)[None], *([layer_type] if by_type else []))
            freq.append(getattr(rotary, name + "inv_freq").clone())
        scale = getattr(rotary, name + "attention_scaling")
        yield f"{{{len(freq[0])}, {float(scale)!r}, {{{floats(freq[0])}, {floats(freq[1])}}}}}"


def row(name, keys):
    make = getattr(transformers, name)
    shape = dict(SHAPE) if name == "GPTNeoXConfig" else dict(SHAPE, num_key_value_heads=2)
    if name not in ("Phi3Config", "GPTNeoXConfig"):
        shape["head_dim"] = 8
    config = make(**json.loads(json.dumps(dict(shape, **keys))))  # a copy: it writes into what it gets
    saved = {k: v for k, v in config.to_dict().items() if k in KEYS}
    given = {k: v for k, v in keys.items() if k in KEYS}
    sliding = [t == "sliding_attention" for t in keys.get("layer_types", [None] * 4)]
    turned = getattr(config, "no_rope_layers", None) or [1] * 4
    kinds = ["none" if not turned[i] else "sliding" if sliding[i] else "full" for i in range(4)]
    settings = ",\n     ".join(rotation(config, ROTARY[name]))
    for text in (given, saved):
        yield (f"    {{\"{ROTARY[name]}\", {json.dumps(json.dumps(text))},\n"
               f"     {{{', '.join('GOLDEN_' + k.upper() for k in kinds)}}},\n     {{{settings}}}}},")


print("/* Written by tools/reference/rope_config_golden.py: do not edit. */")
print("/* clang-format off */")
print(f"enum {{ GOLDEN_LAYERS = 4, GOLDEN_HEAD_DIM = 8, GOLDEN_POSITIONS = {SHAPE['max_position_embeddings']} }};")
print("enum golden_kind { GOLDEN_FULL, GOLDEN_SLIDING, GOLDEN_NONE };")
print(f"static const int64_t golden_lengths[] = {{{', '.join(map(str, LENGTHS))}}};")
print("static const struct {")
print("    const char *family, *config;")
print("    enum golden_kind kinds[GOLDEN_LAYERS];")
print("    struct {")
print("        int64_t half;")
print("        double scale;")
print("        float freq[2][GOLDEN_HEAD_DIM / 2];")
print("    } settings[2];")
print("} golden_configs[] = {")
for case in CASES:
    print("\n".join(row(*case)))
print("};")

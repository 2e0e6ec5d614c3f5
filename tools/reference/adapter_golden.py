#!/usr/bin/env python3
"""Small PEFT adapters with their bases and what merge_and_unload() makes of them, by peft itself.

    adapter_golden.py DIR            tests/golden/adapter was made so, with peft 0.21.2, torch 2.13 and transformers 5.24

DIR/<case>/{base,adapter,merged}: safetensors folders. Factors have values that depend on a seed; those of B are not zero.
"""
import json
import os
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM,
                          MixtralConfig, MixtralForCausalLM, Qwen2Config, Qwen2ForCausalLM, ViTConfig,
                          ViTForImageClassification)

LLAMA = dict(vocab_size=24, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
             num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=False)


def llama(dtype):
    """A decoder with a head of its own."""
    return LlamaForCausalLM(LlamaConfig(**LLAMA)).to(dtype)


def qwen(dtype):
    """One with biases, tied."""
    return Qwen2ForCausalLM(Qwen2Config(**dict(LLAMA, tie_word_embeddings=True))).to(dtype)


def gpt2(dtype):
    """Matrices that are stored as (inputs, outputs)."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=24, n_positions=32, n_embd=8, n_layer=1, n_head=2)).to(dtype)


def neox(dtype):
    """A head that transformers 5 trains under another name than that of the file."""
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=24, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
                                            num_attention_heads=2, max_position_embeddings=32)).to(dtype)


def mixtral(dtype):
    """A router of which that is so."""
    return MixtralForCausalLM(MixtralConfig(**LLAMA, num_local_experts=3, num_experts_per_tok=2)).to(dtype)


def vit(dtype):
    """All layers of which that is so."""
    return ViTForImageClassification(ViTConfig(hidden_size=8, intermediate_size=12, num_hidden_layers=1, image_size=8,
                                               num_attention_heads=2, patch_size=4, num_labels=3)).to(dtype)


CASES = {
    "plain": (llama, torch.float32, dict(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"])),
    "bf16": (llama, torch.bfloat16, dict(
        r=4, lora_alpha=6, use_rslora=True, target_modules="all-linear",
        rank_pattern={"^model.layers.0.self_attn.q_proj": 2, r"layers\.\d+\.mlp\.up_proj": 5}, alpha_pattern={"v_proj": 9})),
    "whole": (llama, torch.bfloat16, dict(r=2, lora_alpha=3, target_modules=["v_proj", "embed_tokens"],
                                          modules_to_save=["lm_head", "norm"])),
    "biases": (qwen, torch.float16, dict(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj"], bias="all")),
    "swapped": (gpt2, torch.float32, dict(r=3, lora_alpha=4, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)),
    "head": (neox, torch.bfloat16, dict(r=2, lora_alpha=3, target_modules=["query_key_value", "lm_head"])),
    "router": (mixtral, torch.bfloat16, dict(r=2, lora_alpha=3, target_modules=["q_proj"], modules_to_save=["gate"])),
    "image": (vit, torch.bfloat16, dict(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj", "o_proj", "fc1", "fc2"],
                                        modules_to_save=["classifier"], task_type=None)),
}


def make(folder, name, build, dtype, options):
    """One case."""
    torch.manual_seed(len(name))
    base = build(dtype)
    with torch.no_grad():
        for value in base.parameters():
            value.copy_(torch.randn(value.shape) * 0.3)
    base.save_pretrained(f"{folder}/{name}/base")
    model = get_peft_model(base, LoraConfig(**{"task_type": "CAUSAL_LM", **options}))
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.requires_grad:
                value.copy_(torch.randn(value.shape) * 0.2)
    model.save_pretrained(f"{folder}/{name}/adapter")
    again = build(dtype).from_pretrained(f"{folder}/{name}/base", dtype=dtype)
    merged = PeftModel.from_pretrained(again, f"{folder}/{name}/adapter").merge_and_unload()
    merged.save_pretrained(f"{folder}/{name}/merged")
    for part in ("base", "merged"):
        file = f"{folder}/{name}/{part}/model.safetensors"
        save_file(load_file(file), file, metadata={"format": "pt"})
        if os.path.exists(f"{folder}/{name}/{part}/generation_config.json"):
            os.remove(f"{folder}/{name}/{part}/generation_config.json")
    os.remove(f"{folder}/{name}/merged/config.json")
    readme = f"{folder}/{name}/adapter/README.md"
    if os.path.exists(readme):
        os.remove(readme)
    path = f"{folder}/{name}/adapter/adapter_config.json"
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["base_model_name_or_path"] = "no/such-model"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1, sort_keys=True)


def main():
    """All cases."""
    folder = sys.argv[1]
    shutil.rmtree(folder, ignore_errors=True)
    for name, (build, dtype, options) in CASES.items():
        make(folder, name, build, dtype, options)


if __name__ == "__main__":
    main()

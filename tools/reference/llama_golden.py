#!/usr/bin/env python3
"""Write the golden files of the decoder models: tests/golden/llama/<case>.h5.

Losses and gradients come from transformers' own LLaMA, Qwen2, Qwen3 and Mistral (eager attention) with
weights, norms, softmax and sums in double.  The weights themselves are exact float32 values.
A file holds

    attribute config   config.json as transformers saves it (case *_old: the older key names)
    /tensors/<name>    float32, the weights W_post
    /edit/<name>       float32, a random small E
    /grad/<name>       float32, gradient of L at W_post
    /tokens            int32 [total], /loss_mask uint8 [total], /offsets int64 [n+1]
    /loss              float64 [n], loss of each sample at W_post
    /loss_edit         float64 [n], loss of each sample at W_post + E
    /terms             float64 [n, tensors], <gradient of sample i's loss, E> for each tensor
    /term_names        the order of the tensors in /terms

Loss of a sample: mean negative log-likelihood of its tokens with mask 1, each predicted from the
tokens before it.  L: mean of the losses over samples.

Usage: llama_golden.py [OUT_DIRECTORY]
"""
import json
import pathlib
import tempfile

import h5py
import numpy as np
import torch
import transformers
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3

import golden_common

golden_common.in_double(modeling_llama, modeling_mistral, modeling_qwen2, modeling_qwen3)

LLAMA = dict(vocab_size=40, hidden_size=24, intermediate_size=20, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128,
             rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False)
# head_dim 12: wavelengths 6.3 (kept), 29 (between), 135 and more (slowed down).
LLAMA3 = dict(LLAMA, num_attention_heads=2, num_key_value_heads=1,
              rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                                high_freq_factor=4.0, original_max_position_embeddings=64))
# Two of the samples are longer than 10 and have the second list.
LONGROPE = dict(LLAMA, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                tie_word_embeddings=True,
                rope_scaling=dict(rope_type="longrope", original_max_position_embeddings=10,
                                  short_factor=[1.0, 1.2, 1.5, 2.0, 2.5, 3.0],
                                  long_factor=[1.0, 2.0, 4.0, 8.0, 12.0, 16.0]))
# Two of the samples are longer than 10, and each has frequencies of its length.
DYNAMIC = dict(LLAMA, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
               tie_word_embeddings=True, max_position_embeddings=10,
               rope_scaling=dict(rope_type="dynamic", factor=2.0))
CASES = {
    "untied": ("llama", LLAMA),
    "tied": ("llama", dict(LLAMA, tie_word_embeddings=True, rope_theta=500.0)),
    "gqa": ("llama", dict(LLAMA, num_attention_heads=6, num_key_value_heads=2)),
    "llama3_rope": ("llama", LLAMA3),
    "llama3_rope_old": ("llama", dict(LLAMA3, tie_word_embeddings=True)),
    "odd": ("llama", dict(LLAMA, vocab_size=41, hidden_size=25, intermediate_size=19, head_dim=6,
                          num_attention_heads=5, num_key_value_heads=5, rms_norm_eps=1e-6)),
    "bias": ("llama", dict(LLAMA, num_key_value_heads=2, attention_bias=True, mlp_bias=True)),
    "qwen2": ("qwen2", dict(LLAMA, num_key_value_heads=2, rms_norm_eps=1e-6, rope_theta=1e6)),
    "qwen2_tied": ("qwen2", dict(LLAMA, num_key_value_heads=1, tie_word_embeddings=True)),
    "mistral_swa": ("mistral", dict(LLAMA, num_key_value_heads=2, sliding_window=5)),
    "mistral_full": ("mistral", dict(LLAMA, num_key_value_heads=2, sliding_window=None)),
    # heads wider than hidden_size / num_attention_heads
    "qwen3": ("qwen3", dict(LLAMA, num_key_value_heads=2, head_dim=8, rope_theta=1e6)),
    "qwen3_bias": ("qwen3", dict(LLAMA, num_attention_heads=3, num_key_value_heads=1, head_dim=6,
                                 attention_bias=True, tie_word_embeddings=True,
                                 use_sliding_window=True, sliding_window=5, max_window_layers=1)),
    "longrope": ("llama", LONGROPE),
    "dynamic": ("llama", DYNAMIC),
}
CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
}


def config_text(model, old: bool) -> str:
    """config.json of the model; `old` turns rope_parameters into rope_theta and rope_scaling."""
    with tempfile.TemporaryDirectory() as d:
        model.config.save_pretrained(d)
        c = json.loads((pathlib.Path(d) / "config.json").read_text())
    c["architectures"] = [type(model).__name__]
    c.pop("_attn_implementation", None)
    if old:
        rope = c.pop("rope_parameters")
        c["rope_theta"] = rope.pop("rope_theta")
        c["rope_scaling"] = rope
        c["torch_dtype"] = c.pop("dtype", "float32")
    return json.dumps(c, indent=2, sort_keys=True)


def make_samples(rng, vocab: int):
    """Four samples: a usual one, one scored token, a mask in two runs, everything but token 0."""
    lengths = (9, 5, 17, 12) if vocab % 2 == 0 else (7, 3, 19, 11)
    tokens, masks = [], []
    for i, n in enumerate(lengths):
        mask = np.zeros(n, np.uint8)
        if i == 0:
            mask[n // 2:] = 1
        elif i == 1:
            mask[-1] = 1
        elif i == 2:
            mask[3:7] = 1
            mask[n - 4:] = 1
        else:
            mask[1:] = 1
        tokens.append(rng.integers(0, vocab, n).astype(np.int32))
        masks.append(mask)
    return tokens, masks


def sample_loss(model, tokens, mask) -> torch.Tensor:
    rotary = model.model.rotary_emb  # keeps dynamic frequencies of the longest sequence so far
    rotary.max_seq_len_cached = rotary.original_max_seq_len
    rotary.inv_freq = rotary.original_inv_freq.clone()
    logits = model(torch.from_numpy(tokens).long()[None], use_cache=False).logits[0]
    assert logits.dtype == torch.float64
    nll = torch.nn.functional.cross_entropy(
        logits[:-1], torch.from_numpy(tokens[1:]).long(), reduction="none")
    return nll[torch.from_numpy(mask[1:] != 0)].mean()


def make_case(name: str, seed: int, out: pathlib.Path) -> None:
    kind, keys = CASES[name]
    make_config, make_model = CLASSES[kind]
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = make_config(**keys, bos_token_id=0, eos_token_id=1)
    config._attn_implementation = "eager"
    model = make_model(config).eval()
    table = 0.25 if config.tie_word_embeddings else 0.7
    with torch.no_grad():
        for pname, p in model.named_parameters():
            noise = torch.randn(p.shape)
            p.copy_(1 + 0.2 * noise if "norm" in pname else
                    0.1 * noise if pname.endswith("bias") else
                    table * noise if "embed" in pname else noise / p.shape[1] ** 0.5)
    text = config_text(model, name.endswith("_old"))
    model.double()
    params = dict(model.named_parameters())  # a tied head is left out by torch
    edit = {n: (0.03 * p.detach().float().std() * torch.randn(p.shape)).float()
            for n, p in params.items()}
    tokens, masks = make_samples(rng, config.vocab_size)

    result = golden_common.measure(params, edit, list(zip(tokens, masks)),
                                   lambda s: sample_loss(model, *s))
    path = out / f"{name}.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as f:
        golden_common.write_model(f, text, params, edit, {n: n for n in params}, result)
        f["tokens"] = np.concatenate(tokens)
        f["loss_mask"] = np.concatenate(masks)
        f["offsets"] = np.cumsum([0] + [len(t) for t in tokens]).astype(np.int64)
    golden_common.say(name, path, params, result)


golden_common.make_all(make_case, CASES, "llama", 100)

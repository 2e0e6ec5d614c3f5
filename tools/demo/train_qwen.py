#!/usr/bin/env python3
"""Train the Qwen2 demo pair: pre-training on English text, post-training on reversing letters.

Needs torch, transformers, tokenizers, safetensors.  Everything is seeded and runs on CPU.

Usage: train_qwen.py CORPUS_DIRECTORY LLAMA_DIRECTORY OUT_DIRECTORY [--pre-steps N] [--post-steps N]

LLAMA_DIRECTORY gives the vocabulary; as Qwen2 does, nothing is put before a text.
Writes OUT/qwen-pre and OUT/qwen-post (bf16 safetensors), OUT/reverse.jsonl and
OUT/qwen-text.jsonl (held-out samples) and OUT/figures.json.
"""
import pathlib

import torch
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import task
from training import EOS, SEED, LanguagePair, Seeds, pair_arguments, train_pair


def make_tokenizer(llama: pathlib.Path) -> PreTrainedTokenizerFast:
    t = Tokenizer.from_file(str(llama / "tokenizer.json"))
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(tokenizer_object=t, eos_token="</s>", model_max_length=512,
                                   clean_up_tokenization_spaces=False)


def make_config(vocab: int) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=vocab, hidden_size=128, intermediate_size=384, num_hidden_layers=5,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        rms_norm_eps=1e-6, rope_theta=10000.0, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=EOS)


def main() -> None:
    ap = pair_arguments(pre_steps=700, post_steps=450, pre_rate=2e-3, post_rate=5e-4)
    ap.add_argument("corpus", type=pathlib.Path)
    ap.add_argument("llama", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    a = ap.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED + 10)
    tok = make_tokenizer(a.llama)
    train_pair(LanguagePair(
        name="qwen", config=make_config(len(tok)), model=Qwen2ForCausalLM,
        sample=task.sample_reverse, files=("reverse", "qwen-text"), post_shard="1GB",
        seeds=Seeds(pre=SEED + 11, held=SEED + 12, post=SEED + 13, post_text=SEED + 14)), tok, a)


main()

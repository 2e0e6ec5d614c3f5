#!/usr/bin/env python3
"""Train the LLaMA demo pair: pre-training on English text, post-training on the sorting task.

Needs torch, transformers, tokenizers, safetensors.  Everything is seeded and runs on CPU.

Usage: train_llama.py CORPUS_DIRECTORY OUT_DIRECTORY [--pre-steps N] [--post-steps N]

Writes OUT/llama-pre (one model.safetensors), OUT/llama-post (two shards and an index),
OUT/task.jsonl and OUT/text.jsonl (held-out samples) and OUT/figures.json.
"""
import pathlib

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import task
from training import EOS, SEED, LanguagePair, Seeds, pair_arguments, train_pair

VOCAB = 768
BOS = 0


def make_tokenizer(corpus: pathlib.Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the corpus; <s> is put before a text, as LLaMA does."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train([str(corpus / "train.txt")], trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B",
                                      special_tokens=[("<s>", BOS)])])
    return PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>",
                                   model_max_length=512, clean_up_tokenization_spaces=False)


CONFIG = LlamaConfig(
    vocab_size=VOCAB, hidden_size=192, intermediate_size=512, num_hidden_layers=5,
    num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=512,
    rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
    bos_token_id=BOS, eos_token_id=EOS, attention_bias=False, mlp_bias=False)


def main() -> None:
    ap = pair_arguments(pre_steps=1600, post_steps=500, pre_rate=2e-3, post_rate=3e-4)
    ap.add_argument("corpus", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(SEED)
    train_pair(LanguagePair(
        name="llama", config=CONFIG, model=LlamaForCausalLM, sample=task.sample,
        files=("task", "text"), post_shard="3MB",
        seeds=Seeds(pre=SEED, held=SEED + 1, post=SEED + 2, post_text=SEED + 3)),
        make_tokenizer(a.corpus), a)


main()

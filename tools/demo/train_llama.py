#!/usr/bin/env python3
"""Train the LLaMA demo pair: pre-training on English text, post-training on the sorting task.

Needs torch, transformers, tokenizers, safetensors.  Everything is seeded and runs on CPU.

Usage: train_llama.py CORPUS_DIRECTORY OUT_DIRECTORY [--pre-steps N] [--post-steps N]

Writes OUT/llama-pre (one model.safetensors), OUT/llama-post (two shards and an index),
OUT/task.jsonl and OUT/text.jsonl (held-out samples) and OUT/figures.json.
"""
import argparse
import json
import pathlib
import random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import task
from training import (EOS, SEED, delta_figures, evaluate, masked_mean, run, save, task_batch,
                      text_batch, text_samples, text_stream, token_nll)

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


def make_model() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCAB, hidden_size=192, intermediate_size=512, num_hidden_layers=5,
        num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=512,
        rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
        bos_token_id=BOS, eos_token_id=EOS, attention_bias=False, mlp_bias=False))


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("corpus", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--pre-steps", type=int, default=1600)
    ap.add_argument("--post-steps", type=int, default=500)
    ap.add_argument("--pre-rate", type=float, default=2e-3)
    ap.add_argument("--post-rate", type=float, default=3e-4)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--skip-pre", action="store_true", help="start from OUT/llama-pre")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(SEED)
    gen = torch.Generator().manual_seed(SEED)
    a.out.mkdir(parents=True, exist_ok=True)

    tok = make_tokenizer(a.corpus)
    stream = text_stream(tok, a.corpus / "train.txt")
    held_rng = random.Random(SEED + 1)
    held_task = [task.sample(held_rng, held=True) for _ in range(192)]
    held_text = text_samples(tok, a.corpus / "held.txt")
    for name, samples in (("task", held_task), ("text", held_text)):
        (a.out / f"{name}.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))

    model = make_model()
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(stream)} tokens of text",
          flush=True)

    def report():
        return evaluate(model, tok, held_task, held_text)

    figures = {"parameters": sum(p.numel() for p in model.parameters()),
               "train_tokens": len(stream)}
    if a.skip_pre:
        model = LlamaForCausalLM.from_pretrained(a.out / "llama-pre", dtype=torch.float32)
    else:
        def pre_loss():
            x, mask = text_batch(stream, 16, gen)
            return masked_mean(token_nll(model, x)[0], mask)
        run("pre", model, a.pre_steps, a.pre_rate, pre_loss, report)
        save(model, tok, a.out / "llama-pre", "1GB")
    figures["pre"] = report()
    print("pre", figures["pre"], flush=True)

    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    rng = random.Random(SEED + 2)
    gen.manual_seed(SEED + 3)  # so that --skip-pre gives the same as a whole run

    def post_loss():
        """Task samples, and a few rows of English so that the language is kept."""
        x, mask = task_batch(tok, [task.sample(rng, held=False) for _ in range(64)])
        loss = masked_mean(token_nll(model, x)[0], mask)
        x, mask = text_batch(stream, 4, gen)
        return loss + 0.25 * masked_mean(token_nll(model, x)[0], mask)
    run("post", model, a.post_steps, a.post_rate, post_loss, report)
    save(model, tok, a.out / "llama-post", "3MB")
    figures["post"] = report()
    figures.update(delta_figures(model, before))
    print("post", figures["post"], flush=True)
    (a.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


main()

#!/usr/bin/env python3
"""Train the Qwen2 demo pair: pre-training on English text, post-training on reversing letters.

Needs torch, transformers, tokenizers, safetensors.  Everything is seeded and runs on CPU.

Usage: train_qwen.py CORPUS_DIRECTORY LLAMA_DIRECTORY OUT_DIRECTORY [--pre-steps N] [--post-steps N]

LLAMA_DIRECTORY gives the vocabulary; as Qwen2 does, nothing is put before a text.
Writes OUT/qwen-pre and OUT/qwen-post (bf16 safetensors), OUT/reverse.jsonl and
OUT/qwen-text.jsonl (held-out samples) and OUT/figures.json.
"""
import argparse
import json
import pathlib
import random

import torch
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import task
from training import (EOS, SEED, delta_figures, evaluate, masked_mean, run, save, task_batch,
                      text_batch, text_samples, text_stream, token_nll)


def make_tokenizer(llama: pathlib.Path) -> PreTrainedTokenizerFast:
    t = Tokenizer.from_file(str(llama / "tokenizer.json"))
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(tokenizer_object=t, eos_token="</s>", model_max_length=512,
                                   clean_up_tokenization_spaces=False)


def make_model(vocab: int) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(Qwen2Config(
        vocab_size=vocab, hidden_size=128, intermediate_size=384, num_hidden_layers=5,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        rms_norm_eps=1e-6, rope_theta=10000.0, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=EOS))


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("corpus", type=pathlib.Path)
    ap.add_argument("llama", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--pre-steps", type=int, default=700)
    ap.add_argument("--post-steps", type=int, default=450)
    ap.add_argument("--pre-rate", type=float, default=2e-3)
    ap.add_argument("--post-rate", type=float, default=5e-4)
    ap.add_argument("--skip-pre", action="store_true", help="start from OUT/qwen-pre")
    a = ap.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED + 10)
    gen = torch.Generator().manual_seed(SEED + 11)
    a.out.mkdir(parents=True, exist_ok=True)

    tok = make_tokenizer(a.llama)
    stream = text_stream(tok, a.corpus / "train.txt")
    held_rng = random.Random(SEED + 12)
    held = [task.sample_reverse(held_rng, held=True) for _ in range(192)]
    held_text = text_samples(tok, a.corpus / "held.txt")
    for name, samples in (("reverse", held), ("qwen-text", held_text)):
        (a.out / f"{name}.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))

    model = make_model(len(tok))
    figures = {"parameters": sum(p.numel() for p in model.parameters()),
               "train_tokens": len(stream)}
    print(figures, flush=True)

    def report():
        return evaluate(model, tok, held, held_text)

    if a.skip_pre:
        model = Qwen2ForCausalLM.from_pretrained(a.out / "qwen-pre", dtype=torch.float32)
    else:
        def pre_loss():
            x, mask = text_batch(stream, 16, gen)
            return masked_mean(token_nll(model, x)[0], mask)
        run("pre", model, a.pre_steps, a.pre_rate, pre_loss, report)
        save(model, tok, a.out / "qwen-pre", "1GB")
    figures["pre"] = report()
    print("pre", figures["pre"], flush=True)

    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    rng = random.Random(SEED + 13)
    gen.manual_seed(SEED + 14)  # so that --skip-pre gives the same as a whole run

    def post_loss():
        """Task samples, and a few rows of English so that the language is kept."""
        x, mask = task_batch(tok, [task.sample_reverse(rng, held=False) for _ in range(64)])
        loss = masked_mean(token_nll(model, x)[0], mask)
        x, mask = text_batch(stream, 4, gen)
        return loss + 0.25 * masked_mean(token_nll(model, x)[0], mask)
    run("post", model, a.post_steps, a.post_rate, post_loss, report)
    save(model, tok, a.out / "qwen-post", "1GB")
    figures["post"] = report()
    figures.update(delta_figures(model, before))
    print(json.dumps(figures, indent=2), flush=True)
    (a.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


main()

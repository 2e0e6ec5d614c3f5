#!/usr/bin/env python3
"""Train the LLaMA demo pair: pre-training on English text, post-training on the sorting task.

Needs torch, transformers, tokenizers, safetensors.  Everything is seeded and runs on CPU.

Usage: train_llama.py CORPUS_DIRECTORY OUT_DIRECTORY [--pre-steps N] [--post-steps N]

Writes OUT/llama-pre (one model.safetensors), OUT/llama-post (two shards and an index),
OUT/task.jsonl and OUT/text.jsonl (held-out samples) and OUT/figures.json.
"""
import argparse
import json
import math
import pathlib
import random
import time

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import task

SEED = 20240501
VOCAB = 768
BOS, EOS = 0, 1
CONTEXT = 128


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


def text_stream(tok, path: pathlib.Path) -> torch.Tensor:
    """All paragraphs, each as <s> text </s>, in one run of token ids, shuffled once."""
    lines = path.read_text().splitlines()
    random.Random(SEED).shuffle(lines)
    ids = []
    for enc in tok.backend_tokenizer.encode_batch(lines):
        ids += enc.ids + [EOS]
    return torch.tensor(ids)


def text_batch(stream, rows: int, gen) -> tuple[torch.Tensor, torch.Tensor]:
    at = torch.randint(0, len(stream) - CONTEXT, (rows,), generator=gen)
    x = torch.stack([stream[a:a + CONTEXT] for a in at])
    return x, torch.ones_like(x, dtype=torch.bool)


def task_ids(tok, s: dict) -> tuple[list[int], int]:
    """Token ids of prompt + response + </s>, and the length of the prompt."""
    p = tok(s["prompt"]).input_ids
    return p + tok(s["response"], add_special_tokens=False).input_ids + [EOS], len(p)


def task_batch(tok, samples) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [task_ids(tok, s) for s in samples]
    width = max(len(r) for r, _ in rows)
    x = torch.full((len(rows), width), EOS)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (r, n) in enumerate(rows):
        x[i, :len(r)] = torch.tensor(r)
        mask[i, n:len(r)] = True
    return x, mask


def token_nll(model, x) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of each token from the second on, and whether argmax hits it."""
    logits = model(x).logits[:, :-1].float()
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), x[:, 1:], reduction="none")
    return nll, logits.argmax(-1) == x[:, 1:]


def masked_mean(nll, mask) -> torch.Tensor:
    m = mask[:, 1:].float()
    return ((nll * m).sum(1) / m.sum(1)).mean()


@torch.no_grad()
def evaluate(model, tok, task_samples, text_samples) -> dict:
    model.eval()
    x, mask = task_batch(tok, task_samples)
    nll, hit = token_nll(model, x)
    exact = (hit | ~mask[:, 1:]).all(1).float().mean()
    text = [token_nll(model, tok(s["response"], return_tensors="pt").input_ids)[0].mean()
            for s in text_samples]
    model.train()
    return {"task_loss": round(float(masked_mean(nll, mask)), 4),
            "task_exact_match": round(float(exact), 4),
            "text_loss": round(float(torch.stack(text).mean()), 4)}


def run(name, model, steps, peak, next_loss, report) -> None:
    """AdamW with warm-up and cosine decay over `steps`; next_loss() gives a step's loss."""
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05},
                             {"params": plain, "weight_decay": 0.0}], lr=peak, betas=(0.9, 0.95))
    start, mean = time.time(), None
    for step in range(steps):
        warm = min(1.0, (step + 1) / (0.04 * steps + 1))
        lr = peak * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for g in opt.param_groups:
            g["lr"] = lr
        loss = next_loss()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step % 50 == 49 or step + 1 == steps:
            print(f"{name} step {step + 1}/{steps} loss {mean:.4f} "
                  f"{time.time() - start:.0f} s", flush=True)
        if step % 250 == 249:
            print(f"{name} held out {report()}", flush=True)


def save(model, tok, where: pathlib.Path, shard: str) -> None:
    """bf16 safetensors, tokenizer and configuration."""
    model.to(torch.bfloat16).save_pretrained(where, max_shard_size=shard)
    tok.save_pretrained(where)
    path = where / "tokenizer_config.json"
    keys = json.loads(path.read_text())
    keys.pop("backend", None)
    keys["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that every version knows
    path.write_text(json.dumps(keys, indent=2) + "\n")
    for file in where.iterdir():
        file.chmod(0o644)
    model.float()  # goes on from the rounded weights: what is stored is what is post-trained


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
    held_lines = (a.corpus / "held.txt").read_text().splitlines()
    held_lines = [s for s in held_lines if 64 <= len(tok(s).input_ids) <= 128]
    random.Random(SEED).shuffle(held_lines)
    held_text = [{"prompt": "", "response": s} for s in held_lines[:64]]
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
    with torch.no_grad():
        d = sum((p - before[n]).double().square().sum() for n, p in model.named_parameters())
        w = sum(b.double().square().sum() for b in before.values())
    figures["delta_norm_over_weight_norm"] = round(math.sqrt(d / w), 4)
    print("post", figures["post"], flush=True)
    (a.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


main()

#!/usr/bin/env python3
"""Align llama-post by DPO (arXiv:2305.18290) with preferred forms of answers, stopped early.

Needs torch, transformers, tokenizers, safetensors.  Everything is seeded and runs on CPU.

Usage: train_dpo.py CORPUS_DIRECTORY LLAMA_POST OUT_DIRECTORY [--steps N] [--stop N]

The reference model is LLAMA_POST.  Training goes on to --steps, for the curve in the figures; the
weights kept are those after --stop steps.  Writes OUT/llama-dpo (bf16 safetensors),
OUT/preference.jsonl (held-out pairs) and OUT/figures.json.
"""
import argparse
import copy
import math
import pathlib
import random
import time

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

import task
from training import (SEED, delta_figures, descend, evaluate, save, task_batch, text_samples,
                      token_nll, write_figures, write_lines)
import outputs

PAIRS, HELD, BATCH, WARM = 2560, 256, 32, 8


def side_logp(model, tok, pairs, side: str) -> torch.Tensor:
    """(pairs) log-probability of each response and its end mark."""
    x, mask = task_batch(tok, [{"prompt": p["prompt"], "response": p[side]} for p in pairs])
    return -(token_nll(model, x)[0] * mask[:, 1:]).sum(1)


def response_logps(model, tok, pairs) -> torch.Tensor:
    """(pairs, 2) log-probabilities of chosen and rejected responses."""
    return torch.stack([side_logp(model, tok, pairs, s) for s in ("chosen", "rejected")], 1)


@torch.no_grad()
def in_batches(model, tok, pairs) -> torch.Tensor:
    return torch.cat([response_logps(model, tok, pairs[i:i + BATCH])
                      for i in range(0, len(pairs), BATCH)])


def reward_margins(logp, reference, beta: float) -> torch.Tensor:
    ratio = logp - reference
    return beta * (ratio[:, 0] - ratio[:, 1])


def measure(model, tok, pairs, reference, beta: float) -> dict:
    logp = in_batches(model, tok, pairs)
    margin = reward_margins(logp, reference, beta)
    return {"dpo_loss": round(float(torch.nn.functional.softplus(-margin.double()).mean()), 4),
            "preference_accuracy": round(float((margin > 0).double().mean()), 4),
            "chosen_logp": round(float(logp[:, 0].mean()), 3),
            "rejected_logp": round(float(logp[:, 1].mean()), 3)}


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("corpus", type=pathlib.Path)
    ap.add_argument("llama", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--steps", type=int, default=80)
    ap.add_argument("--stop", type=int, default=16)
    ap.add_argument("--rate", type=float, default=2e-5)
    ap.add_argument("--beta", type=float, default=0.1)
    a = ap.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED + 20)
    outputs.check_new((a.out / name for name in ("llama-dpo", "figures.json")), [a.corpus, a.llama])
    a.out.mkdir(parents=True, exist_ok=True)
    tok = AutoTokenizer.from_pretrained(a.llama)
    model = LlamaForCausalLM.from_pretrained(a.llama, dtype=torch.float32)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}

    held_rng, rng = random.Random(SEED + 21), random.Random(SEED + 22)
    held = [task.sample_preference(held_rng, held=True) for _ in range(HELD)]
    pairs = [task.sample_preference(rng, held=False) for _ in range(PAIRS)]
    write_lines(a.out / "preference.jsonl", held)
    sort_rng = random.Random(SEED + 1)  # the samples of task.jsonl
    sort_held = [task.sample(sort_rng, held=True) for _ in range(192)]
    text_held = text_samples(tok, a.corpus / "held.txt")
    held_reference = in_batches(model, tok, held)

    def report(m) -> dict:
        return {**measure(m, tok, held, held_reference, a.beta),
                **evaluate(m, tok, sort_held, text_held)}

    figures = {"beta": a.beta, "rate": a.rate, "stop": a.stop, "before": report(model), "curve": []}
    print("before", figures["before"], flush=True)
    start, kept, reference = time.time(), None, copy.deepcopy(model).eval()
    opt = torch.optim.AdamW(model.parameters(), lr=a.rate, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(1, a.steps + 1):
        for g in opt.param_groups:
            g["lr"] = a.rate * min(1.0, step / WARM)
        at = ((step - 1) * BATCH) % PAIRS
        batch = pairs[at:at + BATCH]
        with torch.no_grad():
            fixed = response_logps(reference, tok, batch)
        margin = reward_margins(response_logps(model, tok, batch), fixed, a.beta)
        loss = torch.nn.functional.softplus(-margin).mean()  # -log sigmoid(margin)
        descend(opt, model, loss)
        if step % 4 == 0:
            now = measure(model, tok, held, held_reference, a.beta)
            figures["curve"].append({"step": step, **now})
            print(f"step {step}/{a.steps} loss {loss.item():.4f} held out {now} "
                  f"{time.time() - start:.0f} s", flush=True)
        if step == a.stop:
            kept = copy.deepcopy(model)
    save(kept, tok, a.out / "llama-dpo", "1GB")
    figures["after"] = report(kept)
    figures.update(delta_figures(kept, before))
    assert math.isfinite(figures["after"]["dpo_loss"])
    write_figures(a.out / "figures.json", figures)


main()

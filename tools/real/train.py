#!/usr/bin/env python3
"""Full fine-tuning of the model that base.py makes, on the questions that tasks.py drew.

Usage: train.py PRE_DIRECTORY OUT_DIRECTORY --rate R [--steps N] [--rows N] [--threads N]

All weights, AdamW on fp32 ones, rounded to bf16 once at the end.  Writes a directory like PRE_DIRECTORY and
figures.json in it: loss and accuracy on the validation samples before and after, and the size of the delta.
Seeded; bits depend on the versions of torch and of the processor's kernels, so that another machine comes to a
model that is as good and not the same.

Needs torch, transformers, tokenizers and safetensors.
"""
import argparse
import json
import pathlib
import random
import sys
import time

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1] / "demo"))
import training  # noqa: E402
import weights  # noqa: E402
from weights import outputs  # noqa: E402

SHARE = pathlib.Path(__file__).resolve().parents[2] / "share" / "real"
TASKS = ("place", "pair")
SEED = 20261127
EPSILON = 1e-5  # as LLaMA 2: entries whose gradient is next to nothing stay where they are
JUDGED = 128  # validation samples of each task


def samples(split: str, task: str) -> list[dict]:
    return [json.loads(line) for line in (SHARE / f"{task}-{split}.jsonl").read_text().splitlines()]


def batch(tok: Tokenizer, end: int, rows: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of prompt, response and end mark, padded behind, and which are scored."""
    ids = [(tok.encode(s["prompt"]).ids, tok.encode(s["response"]).ids + [end]) for s in rows]
    width = max(len(p) + len(r) for p, r in ids)
    x, mask = torch.full((len(rows), width), end), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (p, r) in enumerate(ids):
        x[i, :len(p) + len(r)] = torch.tensor(p + r)
        mask[i, len(p):len(p) + len(r)] = True
    return x, mask


def losses(model, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss of each sample over its scored tokens, and whether all of them are the most probable; logits are
    taken of scored tokens alone, which are few."""
    scored = mask[:, 1:]
    logits = model.lm_head(model.model(input_ids=x, use_cache=False).last_hidden_state[:, :-1][scored])
    nll = torch.nn.functional.cross_entropy(logits, x[:, 1:][scored], reduction="none")
    row = scored.nonzero()[:, 0]
    mean = torch.zeros(len(x)).index_add(0, row, nll) / scored.sum(1)
    wrong = torch.zeros(len(x)).index_add(0, row, (logits.argmax(-1) != x[:, 1:][scored]).float())
    return mean, wrong == 0


@torch.no_grad()
def evaluate(model, tok: Tokenizer, end: int) -> dict:
    found = {}
    for task in TASKS:
        rows = samples("validation", task)[:JUDGED]
        parts = [losses(model, *batch(tok, end, rows[i:i + 32])) for i in range(0, len(rows), 32)]
        mean, right = (torch.cat(part).double().mean().item() for part in zip(*parts))
        found[task] = {"loss": round(mean, 4), "accuracy": round(right, 4)}
    return found


def stream(rows: int):
    """Batches of the training samples of all tasks, shuffled anew when all were seen."""
    rng, pool = random.Random(SEED), [s for task in TASKS for s in samples("train", task)]
    order = []
    while True:
        if len(order) < rows:
            order = rng.sample(pool, len(pool))
        yield order[:rows]
        order = order[rows:]


def save(model, pre: pathlib.Path, out: pathlib.Path) -> dict:
    """Rounds to bf16; the bit patterns."""
    post = {name: weights.rounded(p.detach().numpy()) for name, p in model.named_parameters()}
    for file in pre.iterdir():
        if file.name != weights.WEIGHTS and file.is_file():
            outputs.write(out / file.name, file.read_bytes(), [pre])
    outputs.write(out / weights.WEIGHTS, weights.model_bytes(post), [pre])
    return post


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("pre", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--rate", type=float, required=True)
    ap.add_argument("--steps", type=int, default=200)
    ap.add_argument("--rows", type=int, default=24)
    ap.add_argument("--every", type=int, default=10, help="steps between lines of progress")
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    outputs.check_new([a.out / weights.WEIGHTS, a.out / "figures.json"], [a.pre])
    torch.set_num_threads(a.threads)
    torch.manual_seed(SEED)
    tok = Tokenizer.from_file(str(a.pre / "tokenizer.json"))
    end = json.loads((a.pre / "config.json").read_text())["eos_token_id"]
    model = LlamaForCausalLM.from_pretrained(a.pre, dtype=torch.float32)
    figures = {"rate": a.rate, "steps": a.steps, "rows": a.rows, "validation_pre": evaluate(model, tok, end)}
    print(figures, flush=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batches, began = stream(a.rows), time.time()
    training.run("post", model, a.steps, a.rate, lambda: losses(model, *batch(tok, end, next(batches)))[0].mean(),
                 lambda: None, every=a.every, eps=EPSILON, fused=True)
    print(f"{(time.time() - began) / a.steps:.2f} s a step", flush=True)
    save(model, a.pre, a.out)
    model = LlamaForCausalLM.from_pretrained(a.out, dtype=torch.float32)  # what is stored is what is judged
    figures["validation_post"] = evaluate(model, tok, end)
    figures.update(training.delta_figures(model, before))
    training.write_figures(a.out / "figures.json", figures)


if __name__ == "__main__":
    main()

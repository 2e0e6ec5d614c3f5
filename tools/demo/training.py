"""What the trainers share: batches, losses, the optimiser, saving, and the course of a language pair."""
import argparse
import json
import math
import pathlib
import random
import sys
import time
from dataclasses import dataclass
from typing import Callable

import torch

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1]))
import outputs  # noqa: E402

SEED = 20240501
EOS = 1
CONTEXT = 128


def text_stream(tok, path: pathlib.Path) -> torch.Tensor:
    """All paragraphs, each as <s> text </s>, in one run of token ids, shuffled once."""
    lines = path.read_text().splitlines()
    random.Random(SEED).shuffle(lines)
    ids = []
    for enc in tok.backend_tokenizer.encode_batch(lines):
        ids += enc.ids + [EOS]
    return torch.tensor(ids)


def text_samples(tok, path: pathlib.Path) -> list[dict]:
    """64 paragraphs of 64 to 128 tokens."""
    lines = [s for s in path.read_text().splitlines() if 64 <= len(tok(s).input_ids) <= 128]
    random.Random(SEED).shuffle(lines)
    return [{"prompt": "", "response": s} for s in lines[:64]]


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


def descend(opt, model, loss) -> None:
    """One step of an optimiser down a loss, its gradient clipped to length 1."""
    opt.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()


def run(name, model, steps, peak, next_loss, report, every=50, eps=1e-8, fused=False) -> None:
    """AdamW with warm-up and cosine decay over `steps`; next_loss() gives a step's loss, whose mean is printed
    every so many of them. `fused` goes over large weights once a step."""
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05},
                             {"params": plain, "weight_decay": 0.0}], lr=peak, betas=(0.9, 0.95), eps=eps,
                            fused=fused)
    start, mean = time.time(), None
    for step in range(steps):
        warm = min(1.0, (step + 1) / (0.04 * steps + 1))
        lr = peak * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for g in opt.param_groups:
            g["lr"] = lr
        loss = next_loss()
        descend(opt, model, loss)
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step % every == every - 1 or step + 1 == steps:
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
    for local in ("backend", "is_local", "local_files_only"):
        keys.pop(local, None)
    keys["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that every version knows
    path.write_text(json.dumps(keys, indent=2) + "\n")
    for file in where.iterdir():
        file.chmod(0o644)
    model.float()  # goes on from the rounded weights: what is stored is what is post-trained


@torch.no_grad()
def delta_figures(model, before: dict) -> dict:
    """Size of the change from the weights `before`, and the share of weights that are the same."""
    d = sum((p - before[n]).double().square().sum() for n, p in model.named_parameters())
    w = sum(b.double().square().sum() for b in before.values())
    same = sum(int((p == before[n]).sum()) for n, p in model.named_parameters())
    total = sum(b.numel() for b in before.values())
    return {"delta_norm_over_weight_norm": round(math.sqrt(d / w), 6),
            "unchanged_share": round(same / total, 4)}


def write_lines(path: pathlib.Path, samples: list[dict]) -> None:
    outputs.write(path, "".join(json.dumps(s) + "\n" for s in samples).encode())


def write_figures(path: pathlib.Path, figures: dict) -> None:
    print(json.dumps(figures, indent=2), flush=True)
    outputs.write(path, (json.dumps(figures, indent=2) + "\n").encode())


def pair_arguments(pre_steps: int, post_steps: int, pre_rate: float,
                   post_rate: float) -> argparse.ArgumentParser:
    """The options of every trainer of a pair."""
    ap = argparse.ArgumentParser()
    ap.add_argument("--pre-steps", type=int, default=pre_steps)
    ap.add_argument("--post-steps", type=int, default=post_steps)
    ap.add_argument("--pre-rate", type=float, default=pre_rate)
    ap.add_argument("--post-rate", type=float, default=post_rate)
    ap.add_argument("--skip-pre", action="store_true", help="start from the OUT/...-pre that is there")
    return ap


@dataclass
class Seeds:
    """Of the draws of text in pre-training, the held-out samples, the samples of post-training, and
    the draws of text in post-training."""
    pre: int
    held: int
    post: int
    post_text: int


@dataclass
class LanguagePair:
    """A pair that is pre-trained on English text and post-trained on a task of letters."""
    name: str                                   # OUT/<name>-pre and OUT/<name>-post
    config: object                              # of transformers
    model: type                                 # class of the model
    sample: Callable[[random.Random, bool], dict]  # a sample of the task, held out or not
    files: tuple[str, str]                      # held-out samples of task and text, without .jsonl
    seeds: Seeds
    post_shard: str                             # most bytes of a file of OUT/<name>-post


def train_pair(pair: LanguagePair, tok, a: argparse.Namespace) -> None:
    """Pre-training on text, post-training on the task; writes models, held-out samples, figures."""
    gen = torch.Generator().manual_seed(pair.seeds.pre)
    made = [f"{pair.name}-post", "figures.json"] + ([] if a.skip_pre else [f"{pair.name}-pre"])
    outputs.check_new((a.out / name for name in made), [a.corpus])
    a.out.mkdir(parents=True, exist_ok=True)
    stream = text_stream(tok, a.corpus / "train.txt")
    held_rng = random.Random(pair.seeds.held)
    held_task = [pair.sample(held_rng, held=True) for _ in range(192)]
    held_text = text_samples(tok, a.corpus / "held.txt")
    for name, samples in zip(pair.files, (held_task, held_text)):
        write_lines(a.out / f"{name}.jsonl", samples)

    model = pair.model(pair.config)
    figures = {"parameters": sum(p.numel() for p in model.parameters()),
               "train_tokens": len(stream)}
    print(figures, flush=True)

    def report():
        return evaluate(model, tok, held_task, held_text)

    def text_loss(rows: int) -> torch.Tensor:
        x, mask = text_batch(stream, rows, gen)
        return masked_mean(token_nll(model, x)[0], mask)

    if a.skip_pre:
        model = pair.model.from_pretrained(a.out / f"{pair.name}-pre", dtype=torch.float32)
    else:
        run("pre", model, a.pre_steps, a.pre_rate, lambda: text_loss(16), report)
        save(model, tok, a.out / f"{pair.name}-pre", "1GB")
    figures["pre"] = report()
    print("pre", figures["pre"], flush=True)

    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    rng = random.Random(pair.seeds.post)
    gen.manual_seed(pair.seeds.post_text)  # so that --skip-pre gives the same as a whole run

    def post_loss():
        """Task samples, and a few rows of English so that the language is kept."""
        x, mask = task_batch(tok, [pair.sample(rng, held=False) for _ in range(64)])
        loss = masked_mean(token_nll(model, x)[0], mask)
        return loss + 0.25 * text_loss(4)
    run("post", model, a.post_steps, a.post_rate, post_loss, report)
    save(model, tok, a.out / f"{pair.name}-post", pair.post_shard)
    figures["post"] = report()
    figures.update(delta_figures(model, before))
    write_figures(a.out / "figures.json", figures)

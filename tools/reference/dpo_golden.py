#!/usr/bin/env python3
"""Write the golden files of the DPO loss: tests/golden/dpo/<case>.h5.

Policy and reference are transformers' own models (eager attention) in double; their weights are
exact float32 values.  Of a file

    attribute config   config.json as transformers saves it, of both models
    attribute beta     float64
    /tensors/<name>    float32, the weights W_post of the policy
    /reference/<name>  float32, the weights of the reference model
    /edit/<name>       float32, a random small E
    /grad/<name>       float32, gradient of L at W_post
    /chosen, /rejected groups of tokens int32 [total], loss_mask uint8 [total], offsets int64 [n+1]
    /loss              float64 [n], loss of each sample at W_post
    /loss_edit         float64 [n], loss of each sample at W_post + E
    /policy_logp       float64 [n, 2], log-probability of the chosen and of the rejected response
    /reference_logp    float64 [n, 2], the same by the reference model
    /correct           uint8 [n], 1 where the reward margin is positive
    /terms             float64 [n, tensors], <gradient of sample i's loss, E> for each tensor
    /term_names        the order of the tensors in /terms

Log-probability of a response: sum over its tokens with mask 1, each predicted from the tokens
before it (token 0 is never scored).  Reward margin: beta ((policy chosen - reference chosen)
- (policy rejected - reference rejected)).  Loss of a sample: -log sigmoid(reward margin).  L: mean
over samples.  Source: arXiv:2305.18290 Eq. 7.  check_dpo_golden.py compares with its authors' code.

Usage: dpo_golden.py [OUT_DIRECTORY]
"""
import pathlib

import h5py
import numpy as np
import torch
import transformers
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2

import golden_common

golden_common.in_double(modeling_llama, modeling_qwen2)
TINY = dict(vocab_size=31, hidden_size=16, intermediate_size=14, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
            rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False)
LLAMA = (transformers.LlamaConfig, transformers.LlamaForCausalLM)
QWEN2 = (transformers.Qwen2Config, transformers.Qwen2ForCausalLM)
CASES = {  # name: (classes, configuration, beta)
    "llama": (LLAMA, TINY, 0.1),
    "qwen2_tied": (QWEN2, dict(TINY, num_hidden_layers=1, tie_word_embeddings=True), 0.5),
}
# Lengths of prompt, chosen and rejected response.  The last has no prompt but one shared token.
LENGTHS = ((6, 5, 3), (3, 1, 4), (9, 8, 8), (4, 6, 1), (1, 7, 9))


def fill(model) -> None:
    tied = model.config.tie_word_embeddings
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape)
            p.copy_(1 + 0.2 * noise if "norm" in name else
                    0.1 * noise if name.endswith("bias") else
                    (0.25 if tied else 0.7) * noise if "embed" in name else
                    noise / p.shape[1] ** 0.5)


def response_logp(model, tokens: np.ndarray, mask: np.ndarray) -> torch.Tensor:
    ids = torch.from_numpy(tokens).long()
    logits = model(ids[None], use_cache=False).logits[0, :-1]
    nll = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
    return -nll[torch.from_numpy(mask[1:] != 0)].sum()


def make_samples(rng, vocab: int) -> list:
    """Per sample the chosen and the rejected (tokens, mask); one chosen mask has a hole."""
    samples = []
    for i, (prompt, *responses) in enumerate(LENGTHS):
        start = rng.integers(0, vocab, prompt)
        sides = []
        for length in responses:
            tokens = np.concatenate([start, rng.integers(0, vocab, length)]).astype(np.int32)
            mask = np.array([0] * prompt + [1] * length, np.uint8)
            sides.append((tokens, mask))
        if i == 2:
            sides[0][1][prompt + 2:prompt + 5] = 0
        samples.append(sides)
    return samples


def make_case(name: str, seed: int, out: pathlib.Path) -> None:
    (make_config, make_model), keys, beta = CASES[name]
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = make_config(**keys, bos_token_id=0, eos_token_id=1)
    config._attn_implementation = "eager"
    policy, reference = make_model(config).eval(), make_model(config).eval()
    fill(policy)
    with torch.no_grad():  # near the policy, as a model before DPO is
        for p, r in zip(policy.parameters(), reference.parameters()):
            r.copy_(p + 0.3 * p.std() * torch.randn(p.shape))
    text, names = golden_common.saved(policy)
    policy.double(), reference.double()
    params = dict(policy.named_parameters())
    edit = {n: (0.03 * p.detach().float().std() * torch.randn(p.shape)).float()
            for n, p in params.items()}
    samples = make_samples(rng, config.vocab_size)

    with torch.no_grad():
        logp, reference_logp = (np.array([[response_logp(m, *side).item() for side in s]
                                          for s in samples]) for m in (policy, reference))
    margin = beta * ((logp - reference_logp) @ np.array([1.0, -1.0]))
    assert np.abs(margin).min() > 1e-3 and 0 < (margin > 0).sum() < len(samples), \
        f"{name}: margins {margin}: take another seed"

    def sample_loss(i: int) -> torch.Tensor:
        chosen, rejected = (response_logp(policy, *side) for side in samples[i])
        kept = reference_logp[i]
        return torch.nn.functional.softplus(
            -beta * ((chosen - kept[0]) - (rejected - kept[1])))  # -log sigmoid(z) = softplus(-z)

    result = golden_common.measure(params, edit, list(range(len(samples))), sample_loss)
    path = out / f"{name}.h5"
    with h5py.File(path, "w", libver=("v110", "v110")) as f:
        golden_common.write_model(f, text, params, edit, names, result)
        f.attrs["beta"] = np.float64(beta)
        for n, r in reference.named_parameters():
            f[f"reference/{names[n]}"] = r.detach().float().numpy()
        for g, side in (("chosen", 0), ("rejected", 1)):
            f[f"{g}/tokens"] = np.concatenate([s[side][0] for s in samples])
            f[f"{g}/loss_mask"] = np.concatenate([s[side][1] for s in samples])
            f[f"{g}/offsets"] = np.cumsum([0] + [len(s[side][0]) for s in samples]).astype(np.int64)
        f["policy_logp"], f["reference_logp"] = logp, reference_logp
        f["correct"] = (margin > 0).astype(np.uint8)
    golden_common.say(name, path, params, result)
    print(f"  margins {np.round(margin, 4)}")


golden_common.make_all(make_case, CASES, "dpo", 300)

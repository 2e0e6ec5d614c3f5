#!/usr/bin/env python3
"""Write the golden files of the families of decoders and image towers: tests/golden/<family>/<case>.h5.

Models, losses and gradients are those of families.py, each case with options that its family has, small sizes and
an E of its own. What a file holds: llama_golden.py, vit_golden.py. Names, shapes and order of the elements are those of the stored
tensors. With experts, the choices are the same all along the path from W_post to W_post + E, and clear; slopes agree
with differences of losses, so that clamps are not met either.

Usage: families_golden.py [OUT_DIRECTORY] [--family NAME ...]
Files that exist are not replaced: remove them first.
"""
import argparse
import pathlib
import zlib

import h5py
import numpy as np

import families
import outputs

GAP, AGREE = 1e-3, 2e-5
SIZES = dict(vocab_size=17, hidden_size=8, intermediate_size=7, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=False)
TOWER = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=6, patch_size=3, num_channels=2)
GPT2 = dict(vocab_size=17, n_embd=8, n_layer=2, n_head=2, n_positions=24)
PLAIN = dict(rope_type="default", rope_theta=500.0)
LINEAR = dict(rope_type="linear", rope_theta=60.0, factor=2.5)
YARN = dict(rope_type="yarn", rope_theta=60.0, factor=4.0, original_max_position_embeddings=16, beta_fast=6.0,
            beta_slow=0.5)
SLIDING, FULL = "sliding_attention", "full_attention"


def case(kind, form="saved", old=False, short=False, step=0.04, base=SIZES, without=(), rope=PLAIN, **keys):
    made = {**base, **keys}
    if rope is not None:
        made["rope_parameters"] = rope
    return families.Case(kind, {k: v for k, v in made.items() if k not in without}, form, old, short, step)


def tower(kind, **keys):
    return case(kind, base=TOWER, rope=None, **keys)


def siglip(**keys):
    text = dict(hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    return dict(vision_config=dict(TOWER, **keys), text_config=dict(text, bos_token_id=0, eos_token_id=1))


def by_layers(full, local=PLAIN):
    return {FULL: full, SLIDING: local}


TIED = dict(tie_word_embeddings=True)
LONGROPE = dict(rope_type="longrope", rope_theta=500.0, partial_rotary_factor=0.75, short_factor=[1.0, 1.1, 1.25],
                long_factor=[1.3, 2.5, 4.0])
GEMMA = dict(query_pre_attn_scalar=5, head_dim=6, sliding_window=3, hidden_activation="gelu_pytorch_tanh")
CASES = {
    "llama/yarn": case("llama", rope=YARN, old=True),
    "llama/dynamic": case("llama", rope=dict(LINEAR, rope_type="dynamic"), max_position_embeddings=8),
    "smollm3/tied": case("smollm3", num_hidden_layers=3, no_rope_layers=[1, 0, 1], **TIED),
    "smollm3/bias": case("smollm3", no_rope_layer_interval=2, attention_bias=True, mlp_bias=True, rope=YARN,
                         use_sliding_window=True, sliding_window=4, num_key_value_heads=2, old=True),
    "phi3/longrope": case("phi3", rope=LONGROPE, hidden_size=16, original_max_position_embeddings=9,
                          max_position_embeddings=36, old=True, short=True, **TIED),
    "phi3/window": case("phi3", sliding_window=4, num_key_value_heads=2, hidden_size=12),
    "olmo2/plain": case("olmo2", num_key_value_heads=2),
    "olmo2/bias": case("olmo2", attention_bias=True, rope=LINEAR, old=True, **TIED),
    "olmo3/yarn": case("olmo3", rope=by_layers(dict(YARN, rope_theta=5e5), dict(PLAIN, rope_theta=5e5)),
                       layer_types=[SLIDING, FULL], sliding_window=4, old=True),
    "olmo3/tied": case("olmo3", rope=by_layers(PLAIN), layer_types=[FULL, SLIDING], sliding_window=3, hidden_size=6,
                       num_attention_heads=3, num_key_value_heads=3, attention_bias=True, **TIED),
    "gemma/tied": case("gemma", head_dim=6, hidden_act="gelu_pytorch_tanh", **TIED),
    "gemma/bias": case("gemma", head_dim=4, hidden_act="gelu_pytorch_tanh", attention_bias=True, rope=LINEAR),
    "gemma2/caps": case("gemma2", attn_logit_softcapping=0.8, final_logit_softcapping=1.5, old=True, **GEMMA, **TIED),
    "gemma2/bias": case("gemma2", attn_logit_softcapping=None, final_logit_softcapping=None, attention_bias=True,
                        num_key_value_heads=2, layer_types=[FULL, SLIDING], rope=LINEAR, **GEMMA),
    "gemma3/tied": case("gemma3", rope=by_layers(LINEAR), layer_types=[SLIDING, FULL], old=True, **GEMMA, **TIED),
    "gemma3/bias": case("gemma3", rope=by_layers(PLAIN, dict(PLAIN, rope_theta=100.0)), num_key_value_heads=2,
                        layer_types=[FULL, SLIDING], attention_bias=True, final_logit_softcapping=1.5, **GEMMA),
    "gpt_neox/parallel": case("gpt_neox", rope=dict(PLAIN, partial_rotary_factor=0.25), hidden_size=16,
                              hidden_act="gelu", old=True, without=("num_key_value_heads",)),
    "gpt_neox/serial": case("gpt_neox", rope=dict(PLAIN, partial_rotary_factor=1.0), use_parallel_residual=False,
                            attention_bias=False, without=("num_key_value_heads",), **TIED),
    "gpt2/tied": case("gpt2", base=GPT2, rope=None, old=True),
    "gpt2/options": case("gpt2", base=GPT2, rope=None, n_inner=7, scale_attn_by_inverse_layer_idx=True,
                         scale_attn_weights=False, activation_function="gelu", tie_word_embeddings=False),
    "mixtral/separate": case("mixtral", num_local_experts=4, num_experts_per_tok=2, old=True),
    "mixtral/fused": case("mixtral", "fused", num_local_experts=3, num_experts_per_tok=1, sliding_window=4,
                          head_dim=6, num_key_value_heads=2, **TIED),
    "qwen3_moe/separate": case("qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=5, head_dim=6,
                               norm_topk_prob=True, old=True),
    "qwen3_moe/fused": case("qwen3_moe", "fused", num_experts=3, num_experts_per_tok=2, moe_intermediate_size=5,
                            head_dim=4, norm_topk_prob=False, attention_bias=True, use_sliding_window=True,
                            sliding_window=4, **TIED),
    "gpt_oss/yarn": case("gpt_oss", num_local_experts=4, num_experts_per_tok=2, head_dim=6, sliding_window=3,
                         swiglu_limit=2.0, rope=dict(YARN, truncate=False), old=True, step=0.005),
    "gpt_oss/plain": case("gpt_oss", num_local_experts=3, num_experts_per_tok=3, head_dim=4, sliding_window=4,
                          attention_bias=False, num_key_value_heads=2, layer_types=[FULL, FULL], **TIED),
    "dinov2/mlp": tower("dinov2", num_labels=5, mlp_ratio=2, old=True),
    "dinov2/swiglu": tower("dinov2", num_labels=3, mlp_ratio=2, hidden_size=9, num_attention_heads=3, image_size=7,
                           num_channels=1, use_swiglu_ffn=True, qkv_bias=False, use_mask_token=False),
    "dinov2/registers": tower("dinov2_with_registers", num_labels=4, num_register_tokens=3, mlp_ratio=1, old=True),
    "siglip/classes": case("siglip", base=siglip(intermediate_size=7, vision_use_head=False), rope=None, num_labels=5,
                           old=True),
    "siglip/attention": case("siglip_vision", base=TOWER, rope=None, intermediate_size=7, old=True),
    "siglip/attention_odd": case("siglip_vision", base=TOWER, rope=None, intermediate_size=5, hidden_size=9,
                                 num_attention_heads=3, image_size=7, num_channels=1, hidden_act="gelu"),
    "siglip/odd": case("siglip", base=siglip(intermediate_size=5, hidden_size=9, num_attention_heads=3, image_size=7,
                                             num_channels=1, hidden_act="gelu"), rope=None, num_labels=3),
}
LENGTHS = (9, 4, 14)  # beyond the windows, and below and above the lengths at which rotation changes


def measure(pair, samples):
    """Losses, terms and gradient as golden files have them; None when the path is not smooth."""
    pair.edit = pair.edit.float().double()
    pair.chosen, loss, choices = [], {}, []
    for t in (0.0, 1.0, *np.linspace(0.1, 0.9, 5)):
        loss[round(t, 1)] = pair.losses(t, samples)
        choices.append(pair.chosen[:])
        pair.chosen.clear()
    if pair.gap < GAP or any(not all(map(np.array_equal, choices[0], c)) for c in choices):
        return None
    near, far = (float(np.mean(loss[b] - loss[a])) for a, b in ((0.3, 0.7), (0.1, 0.9)))
    terms = pair.terms(0.5, samples).values()
    if abs((8 * near - far) / (12 * 0.2) - sum(terms)) > AGREE * sum(map(abs, terms)):
        return None
    each = [pair.terms(0.0, [s]) for s in samples]
    return {"loss": loss[0.0], "loss_edit": loss[1.0], "grad": pair.gradient(0.0, samples),
            "terms": np.array([[t[n] for n in each[0]] for t in each]), "names": list(each[0])}


def make(name: str, made: families.Case, path: pathlib.Path) -> None:
    for again in range(400):
        seed = zlib.crc32(name.encode()) % 10000 + 10000 * again
        pair = families.Pair(made, seed)
        samples = families.make_data(np.random.default_rng(seed), pair, LENGTHS)
        result = measure(pair, samples)
        if result is not None:
            break
    else:
        raise SystemExit(f"{name}: no models whose path is smooth")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", libver=("v110", "v110")) as f:
        f.attrs["config"] = np.bytes_(pair.text())
        for group, flat in ("tensors", pair.post), ("edit", pair.edit), ("grad", result["grad"]):
            for n, values in pair.stored(flat).items():
                f[f"{group}/{n}"] = values
        for key in ("loss", "loss_edit", "terms"):
            f[key] = result[key]
        f["term_names"] = np.array(result["names"], dtype="S")
        families.write_data(f, pair, samples)
        if pair.images:
            pair.set(0.0)
            best = [int(pair.logits_of(image).argmax()) for image, _ in samples]
            f["correct"] = np.array([b == label for b, (_, label) in zip(best, samples)], dtype=np.uint8)
    print(f"{name}: {pair.weights} weights, {path.stat().st_size} bytes, draw {again}, losses "
          f"{np.round(result['loss'], 4)}, edited {np.round(result['loss_edit'], 4)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parents[2] / "tests/golden")
    parser.add_argument("--family", nargs="+", choices=sorted({n.split("/")[0] for n in CASES}))
    args = parser.parse_args()
    chosen = {n: c for n, c in CASES.items() if not args.family or n.split("/")[0] in args.family}
    outputs.check_new(args.out / f"{name}.h5" for name in chosen)
    for name, made in chosen.items():
        make(name, made, args.out / f"{name}.h5")


if __name__ == "__main__":
    main()

"""Random small models of each family, as transformers saves them, and their losses and slopes in double.

FAMILIES[name] gives configurations: each option of the published ones on and off, sizes that divide nothing, heads
with and without sharing of keys, windows and rotary scalings small enough to matter in a dozen tokens.
Pair is a pair of such models: W_post, and E, by which the other one differs from it.

Weights are exact float32 values, norms away from 1 (1 + w norms: w away from 0), biases and sinks away from 0.
Losses and gradients are those of transformers' own model (eager attention, experts one after the other) that is
read from the config.json in hand, with weights, norms, softmax, sums and wherever its code asks for float32 in double.

Which element of which parameter each stored element is comes from transformers itself: a model whose weights
are their own numbers is saved. So terms are those of stored tensors, whatever is renamed, fused, split or transposed
on the way.
"""
import contextlib
import copy
import dataclasses
import importlib
import io
import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

import golden_common

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)


LENGTHS = (9, 4, 21, 13)  # of samples: the second half scored, the last token, two runs, all but token 0


class Deck:
    """Draws for the cases of a family: each value of an option comes about equally often, in random order."""

    def __init__(self, kind: str, seed: int, count: int):
        self.kind, self.seed, self.count, self.case, self.hands = kind, seed, count, 0, {}

    def rng(self, name: str):
        return np.random.default_rng([self.seed, *f"{self.kind} {name}".encode()])

    def pick(self, name: str, *values):
        """The value of this case."""
        if name not in self.hands:
            order = [i % len(values) for i in range(max(self.count, len(values)))]
            self.hands[name] = self.rng(name).permutation(order)
        return copy.deepcopy(values[self.hands[name][self.case]])

    def integers(self, name: str, low: int, high: int, size=None):
        return self.rng(f"{name} {self.case}").integers(low, high + 1, size)


HEADS = (  # query heads, key-value heads
    (4, 4), (4, 2), (6, 2), (5, 5), (3, 1), (6, 3), (4, 1), (2, 2))


def sizes(d: Deck, *, free: bool = True, whole: bool = False, kv: bool = True) -> dict:
    """Widths and heads. free: a head_dim of its own is allowed; whole: hidden_size / heads must be whole."""
    heads, kv_heads = d.pick("heads", *HEADS)
    head_dim = int(d.pick("head_dim", 4, 6, 8, 10))
    own = free and d.pick("own head_dim", True, False)
    hidden = heads * head_dim
    if own:
        hidden = heads * int(d.integers("hidden", 3, 6)) if whole else int(d.integers("hidden", 17, 31))
    keys = dict(vocab_size=int(d.integers("vocab", 29, 47)), hidden_size=hidden,
                intermediate_size=int(d.integers("units", 11, 27)), num_hidden_layers=int(d.pick("layers", 2, 3)),
                num_attention_heads=heads, max_position_embeddings=64,
                tie_word_embeddings=d.pick("tied", False, True))
    if kv:
        keys["num_key_value_heads"] = kv_heads
    if own:
        keys["head_dim"] = head_dim
    return keys


def rope(d: Deck, *kinds: str, theta: float = 10000.0) -> dict:
    """One rotary setting, with lengths that make its scaling act within a dozen tokens. theta: when it is absent."""
    kind = d.pick("rope", *kinds)
    keys = dict(rope_type=kind, rope_theta=d.pick("theta", theta, 60.0, 500.0, 1e6))
    if kind != "default":
        keys["factor"] = d.pick("factor", 4.0, 2.5)
    if kind == "llama3":
        keys.update(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
    if kind == "yarn":
        keys.update(original_max_position_embeddings=16, **d.pick(
            "yarn", {}, dict(beta_fast=6.0, beta_slow=0.5), dict(attention_factor=0.8),
            dict(truncate=False, beta_fast=8.0, beta_slow=0.25), dict(mscale=1.0, mscale_all_dim=0.7)))
    return dict(rope_parameters=keys)


def dynamic(d: Deck, keys: dict) -> dict:
    """Dynamic scaling begins beyond max_position_embeddings, and goes up to factor times that."""
    if keys["rope_parameters"]["rope_type"] == "dynamic":
        keys["max_position_embeddings"] = 11
    return keys


def layer_types(d: Deck, layers: int, *, own=True) -> dict:
    """Kinds of layers by the rule of the family, or each drawn."""
    if not (own and d.pick("layer_types", False, True)):
        return {}
    kinds = d.integers("layer_types", 0, 1, layers)
    return dict(layer_types=["sliding_attention" if k else "full_attention" for k in kinds])


def window(d: Deck, *others) -> dict:
    return dict(sliding_window=d.pick("window", 3, 5, *others))


def by_eps(d: Deck, key="rms_norm_eps") -> dict:
    return {key: d.pick("eps", 1e-6, 1e-5, 1e-2)}


def llama(d):
    keys = dict(**sizes(d, whole=True), **by_eps(d), **rope(d, "default", "linear", "llama3", "yarn", "dynamic"),
                attention_bias=d.pick("attention_bias", True, False), mlp_bias=d.pick("mlp_bias", False, True))
    return dynamic(d, keys)


def mistral(d):
    return dict(**sizes(d), **by_eps(d), **rope(d, "default", "yarn", "linear"), **window(d, None))


def qwen2(d):
    keys = dict(**sizes(d, free=False), **by_eps(d), **rope(d, "default", "yarn", "linear", "dynamic"), **window(d),
                use_sliding_window=d.pick("use_sliding_window", True, False),
                max_window_layers=d.pick("max_window_layers", 1, 2))
    return dynamic(d, keys)


def qwen3(d):
    keys = dict(**sizes(d), **by_eps(d), **rope(d, "default", "yarn", "linear", "dynamic"), **window(d),
                attention_bias=d.pick("attention_bias", True, False),
                use_sliding_window=d.pick("use_sliding_window", True, False),
                max_window_layers=d.pick("max_window_layers", 1, 2))
    keys.setdefault("head_dim", keys["hidden_size"] // keys["num_attention_heads"])
    return dynamic(d, keys)


def smollm3(d):
    keys = dict(**sizes(d, free=False), **by_eps(d), **rope(d, "default", "yarn", "linear", theta=2e6),
                **window(d, None),
                attention_bias=d.pick("attention_bias", True, False), mlp_bias=d.pick("mlp_bias", False, True),
                use_sliding_window=d.pick("use_sliding_window", True, False))
    keys["num_hidden_layers"] = int(d.pick("layers", 3, 4, 5))
    if d.pick("no_rope_layers", True, False):
        keys["no_rope_layers"] = [int(i) for i in d.integers("no_rope", 0, 1, keys["num_hidden_layers"])]
    else:
        keys["no_rope_layer_interval"] = int(d.pick("interval", 4, 2, 3))
    return keys


def phi3(d):
    partial, head_dim = d.pick("partial", (1.0, 8), (0.75, 8), (0.5, 12), (1.0, 6), (0.4, 10))
    keys = dict(**sizes(d, free=False), **by_eps(d), **window(d, None), original_max_position_embeddings=9)
    keys["hidden_size"] = keys["num_attention_heads"] * head_dim
    keys["rope_parameters"] = dict(rope_type=d.pick("rope", "longrope", "default", "longrope"),
                                   rope_theta=d.pick("theta", 10000.0, 60.0), partial_rotary_factor=partial)
    keys["max_position_embeddings"] = d.pick("positions", 36, 64)
    if keys["rope_parameters"]["rope_type"] == "longrope":
        n = int(head_dim * partial) // 2
        keys["rope_parameters"].update(
            short_factor=[round(1 + 0.1 * i + 0.01 * d.case, 3) for i in range(n)],
            long_factor=[round(1.3 + 0.9 * i, 3) for i in range(n)], **d.pick(
                "longrope", {}, {}, dict(attention_factor=1.25)))
    return keys


def olmo2(d):
    return dict(**sizes(d, free=False), **by_eps(d), **rope(d, "default", "linear", "yarn"),
                attention_bias=d.pick("attention_bias", False, True))


def olmo3(d):
    keys = dict(**sizes(d, free=False), **by_eps(d), **window(d), attention_bias=d.pick("attention_bias", False, True))
    keys["num_hidden_layers"] = int(d.pick("layers", 4, 5, 2))
    keys.update(layer_types(d, keys["num_hidden_layers"]))
    full = rope(d, "default", "yarn")["rope_parameters"]
    full.pop("truncate", None)  # which transformers does not find where each kind of layer has its own
    full["rope_theta"] = 500000.0  # that of both kinds of layers where rope_theta is a key of its own
    keys["rope_parameters"] = dict(full_attention=full,
                                   sliding_attention=dict(rope_type="default", rope_theta=500000.0))
    return keys


def gemma(d):
    """What the second and the third have in common."""
    keys = dict(**sizes(d, whole=True), **by_eps(d), **window(d), query_pre_attn_scalar=int(d.pick("scalar", 5, 16)),
                attention_bias=d.pick("attention_bias", False, True))
    keys.setdefault("head_dim", keys["hidden_size"] // keys["num_attention_heads"])
    return keys


def gemma1(d):
    keys = dict(**sizes(d, whole=True), **by_eps(d), **rope(d, "default", "linear", "yarn"),
                attention_bias=d.pick("attention_bias", False, True), hidden_act="gelu_pytorch_tanh")
    keys.setdefault("head_dim", keys["hidden_size"] // keys["num_attention_heads"])
    return keys


def gemma2(d):
    keys = dict(**gemma(d), **rope(d, "default", "linear", "yarn"), hidden_activation="gelu_pytorch_tanh",
                attn_logit_softcapping=d.pick("attention cap", 0.8, None, 5.0),
                final_logit_softcapping=d.pick("logit cap", 1.5, 30.0, None))
    keys.update(layer_types(d, keys["num_hidden_layers"]))
    return keys


def gemma3(d):
    keys = dict(**gemma(d), hidden_activation="gelu_pytorch_tanh",
                attn_logit_softcapping=None, final_logit_softcapping=d.pick("logit cap", None, None, 1.5))
    keys["num_hidden_layers"] = int(d.pick("layers", 3, 7, 2))
    keys.update(layer_types(d, keys["num_hidden_layers"]))
    keys["rope_parameters"] = dict(full_attention=rope(d, "default", "linear")["rope_parameters"],
                                   sliding_attention=dict(rope_type="default", rope_theta=d.pick(
                                       "local theta", 10000.0, 100.0)))
    return keys


def gpt_neox(d):
    partial, head_dim = d.pick("partial", (0.25, 8), (1.0, 6), (0.25, 16), (0.5, 12))
    keys = dict(**sizes(d, free=False, kv=False), **by_eps(d, "layer_norm_eps"), **rope(d, "default", "linear"),
                hidden_act="gelu", use_parallel_residual=d.pick("parallel", True, False),
                attention_bias=d.pick("attention_bias", True, True, False))
    keys["hidden_size"] = keys["num_attention_heads"] * head_dim
    keys["rope_parameters"]["partial_rotary_factor"] = partial
    return keys


def gpt2(d):
    s = sizes(d, free=False)
    return dict(vocab_size=s["vocab_size"], n_embd=s["hidden_size"], n_head=s["num_attention_heads"],
                n_layer=s["num_hidden_layers"], n_positions=d.pick("positions", 23, 64),
                n_inner=d.pick("inner", None, s["intermediate_size"]), tie_word_embeddings=s["tie_word_embeddings"],
                activation_function=d.pick("act", "gelu_new", "gelu_new", "gelu"),
                **by_eps(d, "layer_norm_epsilon"), scale_attn_weights=d.pick("scale", True, True, False),
                scale_attn_by_inverse_layer_idx=d.pick("by layer", False, False, True))


def mixtral(d):
    experts, used = d.pick("experts", (4, 2), (5, 1), (8, 2), (3, 3), (6, 4))
    return dict(**sizes(d), **by_eps(d), **rope(d, "default", "linear", theta=1e6), **window(d, None, None),
                num_local_experts=experts, num_experts_per_tok=used)


def qwen3_moe(d):
    experts, used = d.pick("experts", (5, 2), (8, 3), (4, 1), (6, 6), (7, 4))
    keys = dict(**sizes(d), **by_eps(d), **rope(d, "default", "yarn"), **window(d), num_experts=experts,
                use_sliding_window=d.pick("use_sliding_window", False, True),
                num_experts_per_tok=used, moe_intermediate_size=int(d.integers("expert units", 7, 13)),
                norm_topk_prob=d.pick("norm_topk_prob", True, False),
                attention_bias=d.pick("attention_bias", False, True))
    keys.setdefault("head_dim", keys["hidden_size"] // keys["num_attention_heads"])
    return keys


def gpt_oss(d):
    experts, used = d.pick("experts", (4, 2), (8, 4), (5, 1), (3, 3))
    keys = dict(**sizes(d), **by_eps(d), **rope(d, "yarn", "yarn", "default", theta=150000.0), **window(d),
                num_local_experts=experts, num_experts_per_tok=used, swiglu_limit=d.pick("limit", 7.0, 0.6, 1.5),
                attention_bias=d.pick("attention_bias", True, True, False))
    keys.setdefault("head_dim", keys["hidden_size"] // keys["num_attention_heads"])
    if keys["rope_parameters"]["rope_type"] == "yarn":
        keys["rope_parameters"].setdefault("truncate", False)
    keys.update(layer_types(d, keys["num_hidden_layers"]))
    return keys


def images(d) -> dict:
    """An image tower: widths that divide nothing, images that patches do not fill."""
    heads, _ = d.pick("heads", *HEADS)
    side, patch = d.pick("side", (12, 4), (9, 3), (11, 4), (8, 2), (10, 5), (7, 3))
    return dict(hidden_size=heads * int(d.pick("head_dim", 4, 6, 3, 5)), num_attention_heads=heads,
                num_hidden_layers=int(d.pick("layers", 2, 3)), image_size=side, patch_size=patch,
                num_channels=d.pick("channels", 3, 1, 2), layer_norm_eps=d.pick("eps", 1e-6, 1e-5, 1e-2))


def classes(d) -> dict:
    return dict(num_labels=int(d.pick("classes", 5, 2, 7, 3)))


def dinov2(d):
    return dict(**images(d), **classes(d), mlp_ratio=d.pick("ratio", 2, 4, 3), qkv_bias=d.pick("bias", True, False),
                use_swiglu_ffn=d.pick("swiglu", False, True), use_mask_token=d.pick("mask", True, False),
                hidden_act=d.pick("act", "gelu", "gelu", "gelu_pytorch_tanh", "quick_gelu"))


def dinov2_with_registers(d):
    keys = dict(**dinov2(d), num_register_tokens=d.pick("registers", 4, 1, 2, 3))
    del keys["use_mask_token"]
    return keys


def siglip_tower(d) -> dict:
    return dict(**images(d), intermediate_size=int(d.integers("units", 11, 27)),
                hidden_act=d.pick("act", "gelu_pytorch_tanh", "gelu_pytorch_tanh", "gelu", "quick_gelu"))


def siglip(d):
    text = dict(hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    return dict(**classes(d), text_config=dict(text, bos_token_id=0, eos_token_id=1),
                vision_config=dict(**siglip_tower(d), vision_use_head=d.pick("head", True, False)))


def older(kind: str, config: dict, short: bool) -> dict:
    """The configuration with the keys of transformers 4, as most published ones have them."""
    c = dict(config)
    if "dtype" in c:
        c["torch_dtype"] = c.pop("dtype")
    parameters = dict(c.pop("rope_parameters", {}))
    if kind in ("olmo3", "gemma3"):
        if kind == "gemma3":
            c["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = dict(parameters["full_attention"])
    if parameters:
        names = dict(rope_theta="rotary_emb_base", partial_rotary_factor="rotary_pct") if kind == "gpt_neox" else {}
        for key in ("rope_theta", "partial_rotary_factor"):
            if key in parameters:
                c[names.get(key, key)] = parameters.pop(key)
        if kind == "phi3":
            parameters.pop("original_max_position_embeddings", None)
        default = parameters["rope_type"] == "default"
        if not default and kind not in ("olmo3", "gemma3") and short:
            parameters["type"] = parameters.pop("rope_type")
        # without one, gpt_oss takes the YaRN of its published models
        c["rope_scaling"] = None if default and kind != "gpt_oss" else parameters
    types = c.get("layer_types")
    if kind == "gemma3":
        rule = c.pop("_sliding_window_pattern", 6)
        if types == [("sliding_attention" if (i + 1) % rule else "full_attention") for i in range(len(types))]:
            del c["layer_types"]
            c["sliding_window_pattern"] = rule
    elif kind in ("gemma2", "gpt_oss", "qwen2", "qwen3") and types is not None:
        del c["layer_types"]  # by the rule of the family: what reads it back is compared
    if kind == "gpt2":
        c["n_ctx"] = c["n_positions"]
    return c


TEXTS = "text_embeds.weight"  # the fixed head of a tower: a row of length exp(1.4) a class


class Family:
    def __init__(self, keys, config: str, model: str, forms=("saved",), images=False):
        self.keys, self.forms, self.images = keys, forms, images
        self.config, self.model = getattr(transformers, config), getattr(transformers, model)


FAMILIES = {
    "llama": Family(llama, "LlamaConfig", "LlamaForCausalLM"),
    "mistral": Family(mistral, "MistralConfig", "MistralForCausalLM"),
    "qwen2": Family(qwen2, "Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": Family(qwen3, "Qwen3Config", "Qwen3ForCausalLM"),
    "smollm3": Family(smollm3, "SmolLM3Config", "SmolLM3ForCausalLM"),
    "phi3": Family(phi3, "Phi3Config", "Phi3ForCausalLM"),
    "olmo2": Family(olmo2, "Olmo2Config", "Olmo2ForCausalLM"),
    "olmo3": Family(olmo3, "Olmo3Config", "Olmo3ForCausalLM"),
    "gemma": Family(gemma1, "GemmaConfig", "GemmaForCausalLM"),
    "gemma2": Family(gemma2, "Gemma2Config", "Gemma2ForCausalLM"),
    "gemma3": Family(gemma3, "Gemma3TextConfig", "Gemma3ForCausalLM"),
    "gpt_neox": Family(gpt_neox, "GPTNeoXConfig", "GPTNeoXForCausalLM"),
    "gpt2": Family(gpt2, "GPT2Config", "GPT2LMHeadModel"),
    "mixtral": Family(mixtral, "MixtralConfig", "MixtralForCausalLM", ("saved", "fused")),
    "qwen3_moe": Family(qwen3_moe, "Qwen3MoeConfig", "Qwen3MoeForCausalLM", ("saved", "fused")),
    "gpt_oss": Family(gpt_oss, "GptOssConfig", "GptOssForCausalLM"),
    "dinov2": Family(dinov2, "Dinov2Config", "Dinov2ForImageClassification", images=True),
    "dinov2_with_registers": Family(dinov2_with_registers, "Dinov2WithRegistersConfig",
                                    "Dinov2WithRegistersForImageClassification", images=True),
    "siglip_vision": Family(siglip_tower, "SiglipVisionConfig", "SiglipVisionModel", images=True),
    "siglip": Family(siglip, "SiglipConfig", "SiglipForImageClassification", images=True),
}


def _eager(config):
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return config


_in_double = set()
_float = torch.Tensor.float


def _double_code(model) -> None:
    """float32 in the model's code is double from here on."""
    name = type(model).__module__
    if name not in _in_double:
        _in_double.add(name)
        golden_common.in_double(importlib.import_module(name))
        torch.Tensor.float = lambda t, *a, **k: t if t.dtype == torch.float64 else _float(t, *a, **k)


def fill(model, generator: torch.Generator) -> None:
    """Random float32 weights of which each tensor matters."""
    config = model.config
    unit = any("Gemma" in type(m).__name__ and "Norm" in type(m).__name__ for m in model.modules())
    table = 0.25 if getattr(config, "tie_word_embeddings", False) else 0.7
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            last = name.rsplit(".", 1)[-1]
            if "norm" in name or "ln_" in name:
                wide = 0.25 * noise + 0.1 * noise.sign()
                p.copy_(wide if unit or last == "bias" else 1 + wide)
            elif last == "lambda1":
                p.copy_(1 + 0.25 * noise)
            elif last.endswith("bias"):
                p.copy_(0.2 * noise)
            elif p.dim() == 4:
                p.copy_(noise / p[0].numel()**0.5)
            elif last == "sinks":
                p.copy_(noise)
            elif "embed" in name or "wte" in name or "wpe" in name:
                p.copy_((table / config.hidden_size**0.5 * 2 if unit else table) * noise)
            elif "router" in name or name.endswith("mlp.gate.weight"):
                p.copy_(2 * noise / p.shape[1]**0.5)
            else:
                transposed = "GptOss" in type(model).__name__ and "experts" in name or \
                    "GPT2" in type(model).__name__ and "lm_head" not in name
                p.copy_(noise / p.shape[-2 if transposed else -1]**0.5)


@dataclasses.dataclass
class Case:
    """What a model is made from, and how it is stored."""
    kind: str
    keys: dict
    form: str = "saved"  # or "fused": experts as transformers has them in memory
    old: bool = False    # keys of transformers 4
    short: bool = False  # with them, `type` in place of `rope_type`
    brief: bool = False  # without the keys that say what their absence says
    step: float = 0.04   # size of E against that of the weights of its tensor


def draw(deck: Deck) -> Case:
    family = FAMILIES[deck.kind]
    return Case(deck.kind, family.keys(deck), deck.pick("form", *family.forms), deck.pick("old keys", True, False),
                deck.pick("type", True, False), deck.pick("brief", False, True))


class Pair:
    """W_post and E of a case, as they are stored, and what transformers makes of them."""

    def __init__(self, case: Case, seed: int):
        family = FAMILIES[case.kind]
        self.kind, self.form, keys = case.kind, case.form, copy.deepcopy(case.keys)
        self.images, self.texts = family.images, None
        if not self.images:
            keys.update(bos_token_id=0, eos_token_id=1, pad_token_id=None)
        model = family.model(_eager(family.config(**keys)))
        self.weights = model.num_parameters()
        assert self.weights < 1 << 24
        self.config, self.place = self._saved(model)
        self.old = case.old
        if self.old:
            self._make_older(case.short)
        if case.brief:
            self._make_brief()
        self._read(family, seed, case.step)
        if self.kind == "siglip_vision":
            self._make_texts(seed)

    def _saved(self, model):
        """config.json, and for each stored tensor the number of each of its elements among all parameters."""
        at = 0
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.arange(at, at + p.numel()).reshape(p.shape))
                at += p.numel()
        with tempfile.TemporaryDirectory() as d, contextlib.redirect_stderr(io.StringIO()):
            model.save_pretrained(d, save_original_format=self.form == "saved")
            config = json.loads((pathlib.Path(d) / "config.json").read_text())
            stored = load_file(pathlib.Path(d) / "model.safetensors")
        config["architectures"] = [type(model).__name__]
        place = {n: v.astype(np.int64) for n, v in sorted(stored.items())}
        assert np.array_equal(np.sort(np.concatenate([v.ravel() for v in place.values()])), np.arange(at))
        return config, place

    def _make_older(self, short: bool) -> None:
        """The same model by keys of transformers 4, where it has them; else the configuration stays."""
        old = older(self.kind, self.config, short)
        again = FAMILIES[self.kind].config.from_dict(copy.deepcopy(old))
        first = FAMILIES[self.kind].config.from_dict(copy.deepcopy(self.config))
        if getattr(first, "layer_types", None) != getattr(again, "layer_types", None):
            old["layer_types"] = first.layer_types
        if hasattr(first, "rope_parameters"):
            again.rope_parameters.pop("type", None)
            assert first.rope_parameters == again.rope_parameters, (
                f"{self.kind}: {first.rope_parameters} and, with the older keys, {again.rope_parameters}")
        self.config = old

    def _make_brief(self) -> None:
        """The same model without the keys that are not needed for it."""
        make = FAMILIES[self.kind].config
        whole = make.from_dict(copy.deepcopy(self.config)).to_dict()
        needed = {"architectures", "model_type", "num_experts", "num_local_experts"}  # deltapath asks for them
        for key in sorted(self.config.keys() - needed):
            rest = {k: v for k, v in self.config.items() if k != key}
            try:
                if make.from_dict(copy.deepcopy(rest)).to_dict() == whole:
                    self.config = rest
            except Exception:  # of transformers or its parts: they refuse the configuration
                pass

    def _read(self, family, seed: int, step: float) -> None:
        """The model that the text of config.json describes, with random weights, in double."""
        config = _eager(family.config.from_dict(json.loads(self.text())))
        torch.manual_seed(seed)
        self.model = family.model(config).eval()
        generator = torch.Generator().manual_seed(seed)
        fill(self.model, generator)
        self.params = [p for _, p in self.model.named_parameters()]
        self.post = torch.cat([p.detach().flatten() for p in self.params]).double()
        size = torch.cat([p.detach().std().expand(p.numel()) if p.numel() > 1 else p.detach().abs().flatten()
                          for p in self.params])
        pre = (self.post.float() + step * size * torch.randn(self.weights, generator=generator)).double()
        self.edit, self.pre = pre - self.post, pre
        self.model.double()
        _double_code(self.model)
        self.routers = [m for m in self.model.modules() if type(m).__name__.endswith("Router")]
        self.gap, self.chosen = np.inf, []
        for m in self.routers:
            m.register_forward_hook(self._see_router)

    def _make_texts(self, seed: int) -> None:
        """A head of fixed texts, and with the older keys the names of older files."""
        rng = np.random.default_rng(seed)
        text = rng.standard_normal((3 + seed % 4, self.config["hidden_size"]))
        self.texts = (np.exp(1.4) * text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32)
        if self.old:
            self.place = {"vision_model." + n: v for n, v in self.place.items()}

    def _see_router(self, module, _inputs, outputs) -> None:
        """The least distance between an expert that is chosen and one that is not."""
        logits, k = outputs[0].detach(), module.top_k
        self.chosen.append(torch.topk(logits, k).indices.sort().values)
        if k < logits.shape[-1]:
            top = torch.topk(logits, k + 1).values
            self.gap = min(self.gap, float((top[..., k - 1] - top[..., k]).min()))

    def text(self) -> str:
        return json.dumps(self.config, indent=2, sort_keys=True)

    def stored(self, flat) -> dict:
        """A vector over all parameters as stored tensors, in float32."""
        found = {n: np.asarray(flat)[v].astype(np.float32) for n, v in self.place.items()}
        if self.texts is not None:
            found[TEXTS] = self.texts if flat is self.post or flat is self.pre else np.zeros_like(self.texts)
        return found

    def write(self, folder: pathlib.Path, flat) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(self.text())
        save_file(self.stored(flat), folder / "model.safetensors", metadata={"format": "pt"})

    def set(self, t: float) -> None:
        """Weights W_post + t E."""
        at, values = 0, self.post + t * self.edit
        with torch.no_grad():
            for p in self.params:
                p.copy_(values[at:at + p.numel()].reshape(p.shape))
                at += p.numel()

    def logits_of(self, image) -> torch.Tensor:
        found = self.model(pixel_values=torch.from_numpy(image).double()[None])
        if self.texts is None:
            logits = found.logits[0]
        else:
            x = found.pooler_output[0]
            logits = torch.from_numpy(self.texts).double() @ (x / x.norm())
        assert logits.dtype == torch.float64
        return logits

    def loss(self, sample) -> torch.Tensor:
        if self.images:
            image, label = sample
            return torch.nn.functional.cross_entropy(self.logits_of(image)[None], torch.tensor([int(label)]))
        tokens, mask = sample
        for m in self.model.modules():  # as if it had seen no longer sample: dynamic scaling remembers
            if getattr(m, "rope_type", None) == "dynamic":
                m.max_seq_len_cached, m.inv_freq = m.original_max_seq_len, m.original_inv_freq.clone()
        logits = self.model(torch.from_numpy(tokens).long()[None], use_cache=False).logits[0]
        assert logits.dtype == torch.float64
        nll = torch.nn.functional.cross_entropy(
            logits[:-1], torch.from_numpy(tokens[1:]).long(), reduction="none")
        return nll[torch.from_numpy(mask[1:] != 0)].mean()

    def losses(self, t: float, samples) -> np.ndarray:
        self.set(t)
        with torch.no_grad():
            return np.array([self.loss(s).item() for s in samples])

    def gradient(self, t: float, samples):
        """Gradient of the mean loss at W_post + t E, over all parameters."""
        self.set(t)
        for p in self.params:
            p.grad = None
        (sum(self.loss(s) for s in samples) / len(samples)).backward()
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in self.params])

    def terms(self, t: float, samples) -> dict:
        """<gradient at W_post + t E, E> of each stored tensor."""
        products = (self.gradient(t, samples) * self.edit).numpy()
        found = {n: float(products[v].sum()) for n, v in self.place.items()}
        return found if self.texts is None else found | {TEXTS: 0.0}


def make_images(rng, pair: Pair, count: int = 5) -> list:
    """Images of noise, about half of them with the label that W_post gives them."""
    tower = getattr(pair.model.config, "vision_config", pair.model.config)  # the file may leave out what is usual
    pair.set(0.0)
    samples = []
    for i in range(count):
        image = rng.standard_normal((tower.num_channels, tower.image_size, tower.image_size), np.float32)
        with torch.no_grad():
            order = np.argsort(-pair.logits_of(image).numpy())
        samples.append((image, np.int32(order[0 if i % 2 == 0 else i % len(order)])))
    return samples


def make_data(rng, pair: Pair, lengths=LENGTHS) -> list:
    return make_images(rng, pair) if pair.images else make_samples(rng, pair.config["vocab_size"], lengths)


def write_data(f, pair: Pair, samples) -> None:
    """The datasets of the samples' kind."""
    if pair.images:
        f["images"] = np.stack([image for image, _ in samples])
        f["labels"] = np.array([label for _, label in samples], dtype=np.int32)
        return
    f["tokens"] = np.concatenate([t for t, _ in samples])
    f["loss_mask"] = np.concatenate([m for _, m in samples])
    f["offsets"] = np.cumsum([0] + [len(t) for t, _ in samples]).astype(np.int64)


def make_samples(rng, vocab: int, lengths=LENGTHS):
    samples = []
    for i, n in enumerate(lengths):
        mask = np.zeros(n, np.uint8)
        if i == 0:
            mask[n // 2:] = 1
        elif i == 1:
            mask[-1] = 1
        elif i == 2:
            mask[3:7] = 1
            mask[n - 4:] = 1
        else:
            mask[1:] = 1
        samples.append((rng.integers(0, vocab, n).astype(np.int32), mask))
    return samples

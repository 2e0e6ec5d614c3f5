"""A model of transformers in a GGUF file: the names, rows and values of its tensors, and its config.json.

What llama.cpp's convert_hf_to_gguf.py does with each family is undone here; the names are those of the gguf package's
own table.  Where the file does not say what transformers needs, llama.cpp's own rule is taken, and said so here."""
import dataclasses
import pathlib
import re
import sys

import numpy as np

from prepare_data import INPUT, Bad
from tensor_files import FLOATS, PIECE, Tensor

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parent / "real"))
import weights  # noqa: E402

OUTSIDE = ("model.embed_tokens", "model.norm", "lm_head")
ATTENTION = tuple(f"self_attn.{x}_proj" for x in "qkvo")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")
QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
MIXTRAL = tuple(f"block_sparse_moe.experts.{x}" for x in ("w1", "w3", "w2"))
QWEN3_MOE = tuple(f"mlp.experts.{x}_proj" for x in ("gate", "up", "down"))


@dataclasses.dataclass
class Family:
    """How transformers holds what a GGUF file calls by one name."""
    architecture: str
    model_type: str
    layer: tuple  # names of a layer's tensors, without their ends
    outside: tuple = OUTSIDE
    layers: str = "model.layers.{}."
    rotated: bool = False  # rows of q and k lie in pairs
    plus_one: bool = False  # norms have 1 added
    transposed: tuple = ()
    experts: tuple = ()
    config: dict = dataclasses.field(default_factory=dict)


GEMMA = NORMS[:1] + AFTER[:1] + ("pre_feedforward_layernorm",) + AFTER[1:] + ATTENTION + MLP
GELU = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}
SILU = {"hidden_act": "silu"}

FAMILIES = {
    "llama": Family("LlamaForCausalLM", "llama", NORMS + ATTENTION + MLP, rotated=True, config=SILU),
    "mistral": Family("MistralForCausalLM", "mistral", NORMS + ATTENTION + MLP, rotated=True, config=SILU),
    "mixtral": Family("MixtralForCausalLM", "mixtral", NORMS + ATTENTION + MIXTRAL + ("block_sparse_moe.gate",),
                      rotated=True, experts=MIXTRAL, config=SILU),
    "smollm3": Family("SmolLM3ForCausalLM", "smollm3", NORMS + ATTENTION + MLP, rotated=True, config=SILU),
    "qwen2": Family("Qwen2ForCausalLM", "qwen2", NORMS + ATTENTION + MLP,
                    config={**SILU, "use_sliding_window": False}),
    "qwen3": Family("Qwen3ForCausalLM", "qwen3", NORMS + ATTENTION + QK_NORMS + MLP,
                    config={**SILU, "use_sliding_window": False}),
    "qwen3moe": Family("Qwen3MoeForCausalLM", "qwen3_moe", NORMS + ATTENTION + QK_NORMS + QWEN3_MOE + ("mlp.gate",),
                       experts=QWEN3_MOE, config={**SILU, "use_sliding_window": False, "decoder_sparse_step": 1,
                                                  "mlp_only_layers": [], "norm_topk_prob": True}),  # as in llama.cpp
    "phi3": Family("Phi3ForCausalLM", "phi3", NORMS + ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj",
                                                       "mlp.down_proj"), config=SILU),
    "olmo2": Family("Olmo2ForCausalLM", "olmo2", AFTER + ATTENTION + QK_NORMS + MLP, config=SILU),
    "olmo3": Family("Olmo3ForCausalLM", "olmo3", AFTER + ATTENTION + QK_NORMS + MLP, config=SILU),
    "gemma2": Family("Gemma2ForCausalLM", "gemma2", GEMMA, plus_one=True, config=GELU),
    "gemma3": Family("Gemma3ForCausalLM", "gemma3_text", GEMMA + QK_NORMS, plus_one=True, config=GELU),
    "gpt2": Family("GPT2LMHeadModel", "gpt2", ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"),
                   outside=("transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head"),
                   layers="transformer.h.{}.", transposed=("c_attn", "c_proj", "c_fc"),
                   config={"activation_function": "gelu_new"}),
}
SOURCE = "take the safetensors model that it was made from"
ROPE = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
TAKEN = ("context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size",
         "expert_feed_forward_length", "expert_count", "expert_used_count", "attention.head_count",
         "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.sliding_window",
         "attention.sliding_window_pattern", "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon",
         "attn_logit_softcapping", "final_logit_softcapping", "rope.freq_base", "rope.freq_base_swa",
         "rope.dimension_count", "rope.dimension_count_swa", "rope.scaling.type", "rope.scaling.factor",
         "rope.scaling.original_context_length", "rope.scaling.finetuned", "rope.scaling.attn_factor",
         "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
         "attention.key_length_swa", "attention.value_length_swa")  # where they say the same again


def shortest(value: float) -> float:
    """The shortest number that is this one in fp32, as which GGUF has it."""
    return float(str(np.float32(value)))


class Model:
    """One model, in one file or several."""

    def __init__(self, gguf, files: list):
        self.gguf, self.files, self.readers = gguf, files, []
        for path in files:
            try:
                self.readers.append(gguf.GGUFReader(path))
            except Exception as e:  # numpy and gguf have an error for each damage
                why = (str(e).strip() or type(e).__name__).splitlines()[0]
                raise Bad(INPUT, f"{path}: cannot be read as GGUF ({why}): fetch it again") from e
        self.fields = self.readers[0].fields
        self.arch = self.fields["general.architecture"].contents() if "general.architecture" in self.fields else None
        self.stored = {t.name: t for reader in self.readers for t in reader.tensors}
        self.family = self.find_family()
        self.layers = self.need("block_count")
        self.names = self.find_names()
        self.tied = self.is_tied()
        self.check()

    def refuse(self, what: str, remedy: str = SOURCE):
        raise Bad(INPUT, f"{self.files[0]}: {what}: {remedy}")

    def get(self, key: str, default=None):
        field = self.fields.get(f"{self.arch}.{key}")
        return default if field is None else field.contents()

    def need(self, key: str):
        value = self.get(key)
        if not isinstance(value, int) or value < 1:
            self.refuse(f"{self.arch}.{key} is {value!r}, where one number for all layers is needed")
        return value

    def kv_heads(self) -> int:
        key = "attention.head_count_kv"
        return self.need("attention.head_count" if self.get(key) is None else key)

    def find_family(self) -> Family:
        arch = self.arch
        if arch == "llama" and self.get("expert_count", 0) > 0:
            arch = "mixtral"
        elif arch == "llama" and self.get("attention.sliding_window"):
            arch = "mistral"
        elif arch == "olmo2" and self.get("attention.sliding_window"):
            arch = "olmo3"
        if arch not in FAMILIES:
            known = sorted(set(FAMILIES) - {"mistral", "mixtral", "olmo3"})
            self.refuse(f"general.architecture is {arch}, whose names are not turned back here ("
                        f"{', '.join(known)} are)")
        return FAMILIES[arch]

    def find_names(self) -> dict:
        """The name of transformers of each name of GGUF."""
        arch = {name: number for number, name in self.gguf.MODEL_ARCH_NAMES.items()}[self.arch]
        table = self.gguf.get_tensor_name_map(arch, self.layers)
        stems = [*self.family.outside] + [self.family.layers.format(n) + stem for n in range(self.layers)
                                          for stem in self.family.layer]
        names = {}
        for stem in stems:
            own = table.get_name(stem)
            if own is None and stem == "lm_head":
                continue  # always tied
            if own is None:
                self.refuse(f"the gguf package has no name for {stem}", "pip install --upgrade gguf")
            names |= {f"{own}.weight": f"{stem}.weight", f"{own}.bias": f"{stem}.bias"}
        return names

    def is_tied(self) -> bool:
        """Without a head of its own, or with one that is a copy of the embedding."""
        head, tokens = self.stored.get("output.weight"), self.stored.get("token_embd.weight")
        return head is None or (tokens is not None and head.tensor_type == tokens.tensor_type
                                and np.array_equal(head.data, tokens.data))

    def check(self) -> None:
        for name in self.stored:
            if name not in self.names and name not in ROPE:
                self.refuse(f"tensor {name} has no name in {self.family.architecture}")
        for name, own in self.names.items():
            if name.endswith(".weight") and name not in self.stored and name != "output.weight":
                self.refuse(f"tensor {name} ({own}) is missing", "fetch all of the model")
        for key in self.fields:
            if key.startswith(f"{self.arch}.") and key.removeprefix(f"{self.arch}.") not in TAKEN:
                print(f"{self.files[0]}: {key} is {self.fields[key].contents()!r}, which config.json of "
                      f"{self.family.architecture} does not say", file=sys.stderr)

    # Values

    def values(self, tensor, data):
        try:
            return self.gguf.dequantize(np.ascontiguousarray(data), tensor.tensor_type)
        except NotImplementedError:
            self.refuse(f"tensor {tensor.name} is {tensor.tensor_type.name}, which the gguf package does not "
                        "dequantise", "pip install --upgrade gguf, or take another file of the model")

    def pieces(self, tensor, data, how, dtype):
        """Rows in their order, some at a time; a vector whole, and a transpose too, which only GPT-2 has."""
        order, shift, transpose = how
        if data.ndim == 1:
            values = self.values(tensor, data)
            values = values if order is None else values[order]
            yield self.rounded(values - np.float32(1) if shift else values, dtype, tensor.name)
            return
        step = data.shape[0] if transpose else max(1, PIECE // int(tensor.shape[0]) // max(1, data[0, ..., 0].size))
        for at in range(0, data.shape[0], step):
            part = data[at:at + step] if order is None else data[order[at:at + step]]
            if tensor.tensor_type.name == dtype and not transpose:
                yield np.ascontiguousarray(part).view(np.uint8).reshape(-1)
            else:
                values = self.values(tensor, part)
                yield self.rounded(values.T if transpose else values, dtype, tensor.name)

    def rounded(self, values, dtype: str, name: str):
        if dtype == "BF16":
            return weights.rounded(np.ascontiguousarray(values, np.float32)).view(np.uint8).reshape(-1)
        with np.errstate(over="ignore"):
            out = np.ascontiguousarray(values, {"F32": np.float32, "F16": np.float16}[dtype])
        if dtype == "F16" and (np.isinf(out) & ~np.isinf(values)).any():
            self.refuse(f"tensor {name} has values beyond the greatest of F16", "give --dtype bfloat16 or float32")
        return out.view(np.uint8).reshape(-1)

    def order(self, own: str, rows: int):
        """Rows of q and k as transformers rotates them: GGUF has the rows of a pair next to each other."""
        found = re.search(r"\.self_attn\.([qk])_proj\.", own)
        if not self.family.rotated or not found:
            return None
        heads = self.need("attention.head_count") if found[1] == "q" else self.kv_heads()
        if rows % (2 * heads):
            self.refuse(f"{own} has {rows} rows, which {heads} heads do not divide into pairs", "the file is damaged")
        return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)

    def of(self, tensor, wanted) -> list:
        """What one tensor of GGUF becomes: itself, or one tensor for each expert."""
        own = self.names[tensor.name]
        kind = tensor.tensor_type.name
        shift = self.family.plus_one and own.endswith("norm.weight")
        transpose = own.endswith(".weight") and own.split(".")[-2] in self.family.transposed
        dtype = wanted or (kind if kind in FLOATS and not shift else "F32")
        shape = tuple(int(n) for n in reversed(tensor.shape))

        def one(name, data, shape, order=None):
            return Tensor(name, dtype, tuple(reversed(shape)) if transpose else shape,
                          lambda: self.pieces(tensor, data, (order, shift, transpose), dtype))
        for stem in self.family.experts:
            if own.endswith(f".{stem}.weight"):
                if shape[0] != self.need("expert_count"):
                    self.refuse(f"tensor {tensor.name} holds {shape[0]} experts in place of "
                                f"{self.need('expert_count')}", "the file is damaged")
                head, tail = own.split(".experts.")
                return [one(f"{head}.experts.{e}.{tail}", tensor.data[e], shape[1:]) for e in range(shape[0])]
        return [one(own, tensor.data, shape, self.order(own, shape[0]))]

    def tensors(self, file: int, dtype) -> list:
        out = []
        for tensor in self.readers[file].tensors:
            if tensor.name not in ROPE and not (self.tied and tensor.name == "output.weight"):
                out += self.of(tensor, dtype)
        return out

    # config.json

    def config(self, dtype) -> dict:
        width = self.need("embedding_length")
        shape = self.stored["token_embd.weight"].shape
        names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
        kind = dtype or self.stored["token_embd.weight"].tensor_type.name
        out = {"architectures": [self.family.architecture], "model_type": self.family.model_type,
               "vocab_size": int(shape[1]), "tie_word_embeddings": self.tied,
               "torch_dtype": names.get(kind, "float32"), **self.family.config}
        for key, own in (("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
            field = self.fields.get(f"tokenizer.ggml.{key}_token_id")
            out[f"{own}_token_id"] = field.contents() if field else None
        if self.arch == "gpt2":
            return out | {"n_embd": width, "n_layer": self.layers, "n_head": self.need("attention.head_count"),
                          "n_inner": self.need("feed_forward_length"),
                          "n_positions": int(self.stored["position_embd.weight"].shape[1]),
                          "layer_norm_epsilon": shortest(self.get("attention.layer_norm_epsilon", 1e-5))}
        heads = self.need("attention.head_count")
        head_dim = self.get("attention.key_length", width // heads)
        if self.get("attention.value_length", head_dim) != head_dim:
            self.refuse("keys and values have heads of different width")
        out |= {"hidden_size": width, "num_hidden_layers": self.layers, "num_attention_heads": heads,
                "num_key_value_heads": self.kv_heads(), "head_dim": head_dim,
                "intermediate_size": self.need("feed_forward_length"),
                "max_position_embeddings": self.need("context_length"),
                "rms_norm_eps": shortest(self.get("attention.layer_norm_rms_epsilon", 1e-6)),
                "rope_theta": shortest(self.get("rope.freq_base", 10000.0))}
        if self.family.model_type not in ("qwen2", "phi3"):
            out["attention_bias"] = "blk.0.attn_q.bias" in self.stored
        if "blk.0.ffn_up.bias" in self.stored:
            out["mlp_bias"] = True
        return out | self.experts() | self.windows() | self.gemma(width, heads, head_dim) | self.rope(out)

    def experts(self) -> dict:
        if not self.family.experts:
            return {}
        out = {"num_experts_per_tok": self.need("expert_used_count")}
        if self.arch == "llama":
            return out | {"num_local_experts": self.need("expert_count")}
        return out | {"num_experts": self.need("expert_count"),
                      "moe_intermediate_size": self.need("expert_feed_forward_length")}

    def windows(self) -> dict:
        window, pattern = self.get("attention.sliding_window"), self.get("attention.sliding_window_pattern")
        if self.family.model_type not in ("mistral", "mixtral", "phi3", "gemma2", "gemma3_text", "olmo3"):
            return {}
        out = {"sliding_window": window or None}
        if isinstance(pattern, list) and window:
            out["layer_types"] = ["sliding_attention" if slides else "full_attention" for slides in pattern]
        elif isinstance(pattern, int) and self.arch == "gemma3":
            out["sliding_window_pattern"] = pattern
        elif pattern is not None and window:
            self.refuse(f"{self.arch}.attention.sliding_window_pattern is {pattern!r}")
        return out

    def gemma(self, width: int, heads: int, head_dim: int) -> dict:
        """The scale of the attention is not in the file; by llama.cpp's rule that of the 27B models is of all heads."""
        large = {"gemma2": 46, "gemma3": 62}.get(self.arch)
        if large is None:
            return {}
        out = {"query_pre_attn_scalar": width // heads if self.layers == large else head_dim}
        for key, default in (("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)):
            cap = self.get(key, default if self.arch == "gemma2" else None)
            out[key] = shortest(cap) if cap else None
        if self.arch == "gemma3":
            out["rope_local_base_freq"] = shortest(self.get("rope.freq_base_swa", 10000.0))
        return out

    def factors(self, name: str) -> list:
        tensor = self.stored[name]
        return [shortest(v) for v in self.values(tensor, tensor.data)]

    def rope(self, config: dict) -> dict:
        kind, head_dim = self.get("rope.scaling.type"), config["head_dim"]
        dim = self.get("rope.dimension_count", head_dim)
        out = {}
        if dim != head_dim and self.arch != "phi3":
            self.refuse(f"{self.arch}.rope.dimension_count is {dim} for heads of width {head_dim}")
        if self.arch == "phi3" and dim != head_dim:
            out["partial_rotary_factor"] = dim / head_dim
        original = self.get("rope.scaling.original_context_length")
        if "rope_factors_long.weight" in self.stored:
            if self.arch != "phi3" or original is None:
                self.refuse("rope_factors_long of this architecture has no meaning here")
            return out | {"original_max_position_embeddings": original, "rope_scaling": {
                "type": "longrope", "long_factor": self.factors("rope_factors_long.weight"),
                "short_factor": self.factors("rope_factors_short.weight")}}
        if self.arch == "phi3":
            out["original_max_position_embeddings"] = original or config["max_position_embeddings"]
        if "rope_freqs.weight" in self.stored:
            return out | {"rope_scaling": self.llama3(head_dim, config["rope_theta"])}
        if kind in (None, "none"):
            return out
        scaling = {"rope_type": kind, "factor": shortest(self.get("rope.scaling.factor", 0.0))}
        if kind == "yarn" and self.get("rope.scaling.attn_factor", 1.0) == 1.0 and original:
            scaling["original_max_position_embeddings"] = original
            for key in ("beta_fast", "beta_slow"):
                if self.get(f"rope.scaling.yarn_{key}") is not None:
                    scaling[key] = shortest(self.get(f"rope.scaling.yarn_{key}"))
        elif kind != "linear":
            self.refuse(f"{self.arch}.rope.scaling.type is {kind} with settings that are not turned back here")
        return out | {"rope_scaling": scaling}

    def llama3(self, head_dim: int, theta: float) -> dict:
        """The file has the divisor of each frequency; Llama 3.1 to 3.3 make them of these four numbers."""
        have = np.array(self.factors("rope_freqs.weight"))
        scaling = {"rope_type": "llama3", "factor": float(have.max()), "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8192}
        frequencies = theta ** -(np.arange(0, head_dim, 2) / head_dim)
        turns = scaling["original_max_position_embeddings"] * frequencies / (2 * np.pi)
        smooth = np.clip((turns - 1.0) / (4.0 - 1.0), 0.0, 1.0)
        want = 1 / ((1 - smooth) / scaling["factor"] + smooth)
        if have.shape != want.shape or not np.allclose(have, want, rtol=1e-4):
            self.refuse("rope_freqs are not those of Llama 3")
        return scaling


def open_model(gguf, files: list) -> Model:
    return Model(gguf, files)

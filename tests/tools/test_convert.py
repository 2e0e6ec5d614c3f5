#!/usr/bin/python3
"""TAP test of tools/convert_checkpoint.py.  Refusals need plain python3; the cases that need torch, transformers or
gguf are reported as skipped where one is missing.
"""
import importlib.util
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools/convert_checkpoint.py"
os.environ["HF_HUB_OFFLINE"] = "1"
sys.dont_write_bytecode = True

CASES = []


def without(*modules):
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    return f"{', '.join(missing)}: not installed" if missing else None


def case(*modules):
    def add(function):
        CASES.append((function, without(*modules)))
        return function
    return add


def run(*args, path=None):
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"} | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run([sys.executable, TOOL, *map(str, args)], capture_output=True, text=True, env=env, check=False)


def converts(*args):
    r = run(*args)
    assert r.returncode == 0, r
    return r


def fails(code, words, *args, path=None):
    before = sorted(args[1].parent.rglob("*"))
    r = run(*args, path=path)
    assert r.returncode == code and len(r.stderr.splitlines()) == 1 and re.search(words, r.stderr), r
    assert sorted(args[1].parent.rglob("*")) == before, "something is left"


def read_file(path):
    """(type, shape, bytes) by name, read apart from the tool and from the safetensors package."""
    raw = path.read_bytes()
    length = struct.unpack_from("<Q", raw)[0]
    assert length % 8 == 0
    header = json.loads(raw[8:8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    data = raw[8 + length:]
    assert max((t["data_offsets"][1] for t in header.values()), default=0) == len(data)
    return {name: (t["dtype"], tuple(t["shape"]), data[slice(*t["data_offsets"])]) for name, t in header.items()}


def read_folder(folder):
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return read_file(folder / "model.safetensors")
    listed, found = json.loads(index.read_text()), {}
    for file in sorted(set(listed["weight_map"].values())):
        tensors = read_file(folder / file)
        assert all(listed["weight_map"][name] == file for name in tensors)
        found |= tensors
    assert found.keys() == listed["weight_map"].keys()
    assert listed["metadata"]["total_size"] == sum(len(t[2]) for t in found.values())
    return found


@case()
def what_is_no_model_is_refused(w):
    out = w / "out/new"
    (w / "out").mkdir()
    for name in ("empty", "two", "safe", "ggufs", "index", "outside", "model"):
        (w / name).mkdir()
    fails(3, "absent: is no file", w / "absent", out)
    fails(3, "empty: holds no .bin", w / "empty", out)
    for name in ("consolidated.00.pth", "consolidated.01.pth"):
        (w / "two" / name).write_bytes(b"x")
    fails(3, "two: holds several files.*consolidated.00.pth", w / "two", out)
    for name in ("a-Q4_0.gguf", "a-Q8_0.gguf"):
        (w / "ggufs" / name).write_bytes(b"GGUF")
    fails(3, "ggufs: holds several", w / "ggufs", out)
    (w / "ggufs/b-00001-of-00002.gguf").write_bytes(b"GGUF")
    fails(3, "b-00002-of-00002.gguf: is missing", w / "ggufs/b-00001-of-00002.gguf", out)
    (w / "safe/model.safetensors").write_bytes(b"x")
    fails(3, "safe: holds safetensors already", w / "safe", out)
    index = w / "index/pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}')
    fails(3, "00001-of-00001.bin: is missing", w / "index", out)
    (w / "index/pytorch_model-00001-of-00001.bin").write_bytes(b"x")
    fails(3, "one of several shards: give the folder", w / "index/pytorch_model-00001-of-00001.bin", out)
    fails(3, "is the index", index, out)
    (w / "outside/pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../two/consolidated.00.pth"}}')
    fails(3, "no file of its folder", w / "outside", out)
    (w / "model/pytorch_model.bin").write_bytes(b"x")
    fails(4, "lies in the folder of the input", w / "model", w / "model/new")
    fails(4, "empty: exists already", w / "model", w / "empty")


@case()
def a_missing_package_is_named_with_its_command(w):
    (w / "none").mkdir()
    (w / "out").mkdir()
    for module in ("torch", "gguf"):
        (w / f"none/{module}.py").write_text("raise ImportError('not here')")
    (w / "pytorch_model.bin").write_bytes(b"x")
    (w / "a.gguf").write_bytes(b"GGUF")
    fails(2, "torch: not here: pip install torch", w / "pytorch_model.bin", w / "out/new", path=w / "none")
    if not without("numpy"):
        fails(2, "gguf: not here: pip install gguf", w / "a.gguf", w / "out/new", path=w / "none")


def values(t):
    import torch
    return t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def llama(**options):
    import torch
    import transformers
    torch.manual_seed(1)
    config = transformers.LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                                      **options)
    return transformers.LlamaForCausalLM(config).to(torch.bfloat16)


@case("torch", "transformers")
def pytorch_files_become_what_transformers_makes_of_them(w):
    import torch
    import transformers
    for tied in (False, True):
        for shards in (1, 2):
            name = f"{tied}{shards}"
            model, src = llama(tie_word_embeddings=tied), w / name
            src.mkdir()
            model.config.save_pretrained(src)
            state = model.state_dict()
            assert "lm_head.weight" in state
            names = list(state)
            if shards == 1:
                torch.save(state, src / "pytorch_model.bin")
            else:
                files = {n: f"pytorch_model-0000{1 + (i > 7 and 'head' not in n)}-of-00002.bin"
                         for i, n in enumerate(names)}
                for file in set(files.values()):
                    torch.save({n: state[n] for n in names if files[n] == file}, src / file)
                (src / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
            (src / "tokenizer_config.json").write_text("{}")
            (src / "optimizer.pt").write_bytes(b"x")
            converts(src, w / f"{name}.new")
            transformers.AutoModelForCausalLM.from_pretrained(src, dtype="auto").save_pretrained(w / f"{name}.want")
            have, want = read_folder(w / f"{name}.new"), read_folder(w / f"{name}.want")
            assert have == want, (name, have.keys() ^ want.keys())
            assert sorted(p.name for p in (w / f"{name}.new").glob("*.json") if "index" not in p.name) == [
                "config.json", "tokenizer_config.json"]
            fails(4, "exists already", src, w / f"{name}.new")


@case("torch")
def every_type_and_form_keeps_its_bytes(w):
    import torch
    torch.manual_seed(2)
    base = torch.randn(6, 10)
    state = {"plain": base, "same": base, "view": base[1:3], "transposed": base.t(), "number": torch.tensor(3.5),
             "empty": torch.zeros(0, 4), "parameter": torch.nn.Parameter(base[:2])}
    for kind in (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.int16,
                 torch.bool):
        state[str(kind)[6:]] = base.to(kind)
    want = {name: (tuple(t.shape), values(t)) for name, t in state.items()}
    (w / "out").mkdir()
    for form, how in (("zip", {}), ("old", {"_use_new_zipfile_serialization": False})):
        if form == "old":  # which torch itself does not read back with these
            state.pop("float8_e4m3fn"), want.pop("float8_e4m3fn")
        torch.save({"epoch": 3, "state_dict": {**state, "step": 7}}, w / f"{form}.pth", **how)
        said = converts(w / f"{form}.pth", w / f"out/{form}").stderr
        assert "left out, as no tensors: step" in said and "no config.json" in said, said
        have = read_folder(w / f"out/{form}")
        assert {name: t[1:] for name, t in have.items()} == want, form
    converts(w / "zip.pth", w / "out/half", "--dtype", "float16")
    have = read_folder(w / "out/half")
    assert have["plain"] == ("F16", (6, 10), values(base.to(torch.float16))) and have["int64"][0] == "I64"
    torch.save({"large": base * 1e6}, w / "large.pth")
    fails(3, "large: has values beyond.*bfloat16", w / "large.pth", w / "out/new", "--dtype", "float16")
    torch.save({"sparse": base.to_sparse()}, w / "sparse.pth")
    fails(3, "sparse is .*dense", w / "sparse.pth", w / "out/new")
    torch.save({"code": pathlib.PurePosixPath("a")}, w / "code.pth")
    fails(3, "cannot be read as tensors alone", w / "code.pth", w / "out/new")
    torch.save([1, 2], w / "list.pth")
    fails(3, "no dictionary of tensors", w / "list.pth", w / "out/new")
    (w / "cut.pth").write_bytes((w / "zip.pth").read_bytes()[:900])
    fails(3, "cannot be read", w / "cut.pth", w / "out/new")


@case("torch")
def an_adapter_and_an_index_that_lies(w):
    import torch
    (w / "adapter").mkdir()
    (w / "adapter/adapter_config.json").write_text("{}")
    torch.save({"a.lora_A.weight": torch.ones(2, 3)}, w / "adapter/adapter_model.bin")
    converts(w / "adapter", w / "new")
    assert sorted(p.name for p in (w / "new").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert list(read_file(w / "new/adapter_model.safetensors")) == ["a.lora_A.weight"]
    (w / "lies").mkdir()
    (w / "out").mkdir()
    torch.save({"a": torch.ones(1)}, w / "lies/x.bin")
    (w / "lies/pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "x.bin", "b": "x.bin"}}')
    fails(3, "x.bin: has no tensor b", w / "lies", w / "out/new")


# GGUF: what llama.cpp's converter does with each family, written once more.

NAMES = (("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output"),
         ("transformer.wte", "token_embd"), ("transformer.wpe", "position_embd"), ("transformer.ln_f", "output_norm"),
         (r"(?:model\.layers|transformer\.h)\.(\d+)\.", r"blk.\1."), (r"input_layernorm|ln_1", "attn_norm"),
         (r"self_attn\.([qk])_norm", r"attn_\1_norm"), (r"self_attn\.([qkv])_proj", r"attn_\1"),
         (r"self_attn\.qkv_proj|attn\.c_attn", "attn_qkv"), (r"self_attn\.o_proj|\battn\.c_proj", "attn_output"),
         (r"mlp\.(gate|up|down)_proj", r"ffn_\1"), (r"mlp\.gate_up_proj|mlp\.c_fc", "ffn_up"),
         (r"mlp\.c_proj", "ffn_down"), (r"(?:mlp|block_sparse_moe)\.gate\.", "ffn_gate_inp."), ("ln_2", "ffn_norm"))
LATE = {"post_attention_layernorm": "ffn_norm", "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm"}


def families():
    import transformers as T
    common = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
              "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
              "rms_norm_eps": 3e-6, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}

    def scaling(kind):
        return {"rope_theta": 5000.0, "rope_type": kind, "factor": 8.0}
    llama3 = {**scaling("llama3"), "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 8192}
    factors = {"rope_type": "longrope", "rope_theta": 5000.0, "short_factor": [1.0, 1.5, 2.0],
               "long_factor": [1.0, 2.5, 4.0], "original_max_position_embeddings": 32, "partial_rotary_factor": 0.75}
    moe = {"num_experts_per_tok": 2}
    return {
        "llama": ("llama", T.LlamaForCausalLM, T.LlamaConfig(**common, rope_parameters=llama3, head_dim=16)),
        "llama-bias": ("llama", T.LlamaForCausalLM, T.LlamaConfig(**common, attention_bias=True, mlp_bias=True,
                                                                  tie_word_embeddings=True)),
        "mistral": ("llama", T.MistralForCausalLM, T.MistralConfig(**common, sliding_window=8)),
        "mixtral": ("llama", T.MixtralForCausalLM, T.MixtralConfig(**common, **moe, num_local_experts=3)),
        "smollm3": ("smollm3", T.SmolLM3ForCausalLM, T.SmolLM3Config(**common)),
        "qwen2": ("qwen2", T.Qwen2ForCausalLM, T.Qwen2Config(**common, rope_parameters={
            **scaling("yarn"), "original_max_position_embeddings": 32})),
        "qwen3": ("qwen3", T.Qwen3ForCausalLM, T.Qwen3Config(**common, head_dim=16)),
        "qwen3moe": ("qwen3moe", T.Qwen3MoeForCausalLM, T.Qwen3MoeConfig(
            **common, **moe, num_experts=3, moe_intermediate_size=32, norm_topk_prob=True)),
        "phi3": ("phi3", T.Phi3ForCausalLM, T.Phi3Config(**common, original_max_position_embeddings=32,
                                                         sliding_window=16, rope_parameters=factors)),
        "olmo2": ("olmo2", T.Olmo2ForCausalLM, T.Olmo2Config(**common)),
        "olmo3": ("olmo2", T.Olmo3ForCausalLM, T.Olmo3Config(**common, sliding_window=8)),
        "gemma2": ("gemma2", T.Gemma2ForCausalLM, T.Gemma2Config(**common, head_dim=16, sliding_window=8,
                                                                 query_pre_attn_scalar=16)),
        "gemma3": ("gemma3", T.Gemma3ForCausalLM, T.Gemma3TextConfig(**common, head_dim=16, sliding_window=8,
                                                                     query_pre_attn_scalar=16)),
        "gpt2": ("gpt2", T.GPT2LMHeadModel, T.GPT2Config(vocab_size=40, n_embd=32, n_head=4, n_layer=4, n_positions=64,
                                                         bos_token_id=1, eos_token_id=2)),
    }


def old_names(name, t, config):
    """Tensors as files on the hub have them: an expert each, where transformers 5 stacks them in memory."""
    if ".mlp.experts." not in name:
        return {name: t}
    mixtral = config.model_type == "mixtral"
    head = name.split("experts.")[0]
    head = head.replace("mlp.", "block_sparse_moe.") if mixtral else head
    kinds = {"gate": "w1", "up": "w3", "down": "w2"} if mixtral else {k: f"{k}_proj" for k in ("gate", "up", "down")}
    out = {}
    for e in range(t.shape[0]):
        parts = dict(zip(("gate", "up"), t[e].chunk(2))) if "gate_up" in name else {"down": t[e]}
        out |= {f"{head}experts.{e}.{kinds[k]}.weight": part.contiguous() for k, part in parts.items()}
    return out


def state_of(model):
    out = {}
    for name, t in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if model.config.model_type == "mixtral":
            name = name.replace(".mlp.gate.", ".block_sparse_moe.gate.")
        out |= old_names(name, t, model.config)
    return out


def gguf_name(name, arch):
    late = LATE if arch in ("gemma2", "gemma3", "olmo2") else {"post_attention_layernorm": "ffn_norm"}
    if len(late) > 1:
        late = {**late, "post_attention_layernorm": "post_attention_norm"}
    for old, new in late.items():
        name = name.replace(old, new)
    for old, new in NAMES:
        name = re.sub(old, new, name)
    return name


def as_gguf(state, arch, config):
    """Arrays by GGUF's names."""
    import numpy as np
    out, experts = {}, {}
    for name, t in state.items():
        values_ = t.float().numpy()
        found = re.search(r"experts\.(\d+)\.(w1|w2|w3|gate|up|down)", name)
        if found:
            kind = {"w1": "gate", "w3": "up", "w2": "down"}.get(found[2], found[2])
            layer = re.search(r"layers\.(\d+)", name)[1]
            experts.setdefault(f"blk.{layer}.ffn_{kind}_exps.weight", []).append(values_)
            continue
        part = re.search(r"([qk])_proj", name)
        if arch in ("llama", "smollm3") and part:
            heads = config.num_attention_heads if part[1] == "q" else config.num_key_value_heads
            values_ = np.stack([values_.reshape(heads, 2, -1, *values_.shape[1:])[:, i] for i in (0, 1)], 2)
            values_ = values_.reshape(t.shape)
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            values_ = values_ + np.float32(1)
        if arch == "gpt2" and re.search(r"c_(attn|proj|fc)\.weight", name):
            values_ = values_.T.copy()
        out[gguf_name(name, arch)] = values_
    return out | {name: np.stack(parts) for name, parts in experts.items()}


def metadata(arch, config):
    if arch == "gpt2":
        return {"block_count": 4, "context_length": 64, "embedding_length": 32, "feed_forward_length": 128,
                "attention.head_count": 4, "attention.layer_norm_epsilon": 1e-5}
    head_dim = getattr(config, "head_dim", None) or 8
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    partial = rope.get("partial_rotary_factor", 1.0)
    out = {"block_count": 4, "context_length": 64, "embedding_length": 32, "feed_forward_length": 64,
           "attention.head_count": 4, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 3e-6,
           "attention.key_length": head_dim, "attention.value_length": head_dim, "rope.freq_base": rope["rope_theta"],
           "rope.dimension_count": int(head_dim * partial)}
    if rope["rope_type"] == "yarn":
        out |= {"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 32}
    if rope["rope_type"] == "longrope":
        out |= {"rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.1}
    if getattr(config, "sliding_window", None) and arch in ("llama", "olmo2", "phi3", "gemma2", "gemma3"):
        out["attention.sliding_window"] = config.sliding_window
    count = getattr(config, "num_experts", getattr(config, "num_local_experts", None))
    if count:
        out |= {"expert_count": count, "expert_used_count": 2, "expert_feed_forward_length": 32}
    if arch == "gemma2":
        out |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    return out


def write_gguf(path, arch, config, tensors, kinds):
    """kinds: the type of each tensor. Returns what was stored of each, dequantised by the gguf package."""
    import gguf
    import numpy as np
    writer = gguf.GGUFWriter(path, arch)
    for key, value in metadata(arch, config).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{arch}.{key}", value)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    stored = {}
    for name, array in tensors.items():
        kind = kinds(name, array)
        raw = gguf.quantize(array, kind)
        writer.add_tensor(name, raw, raw_dtype=kind)
        stored[name] = np.array(gguf.dequantize(raw, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def rope_tensors(arch, config):
    import numpy as np
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    if arch == "phi3":
        return {f"rope_factors_{k}.weight": np.array(config.rope_parameters[f"{k}_factor"], np.float32)
                for k in ("long", "short")}
    if arch == "llama" and config.rope_parameters["rope_type"] == "llama3":
        have, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        plain = 5000.0 ** -(torch.arange(0, 16, 2) / 16)
        return {"rope_freqs.weight": (plain / have).float().numpy()}
    return {}


def close(a, b):
    import numpy as np
    return a.shape == b.shape and np.allclose(a, b, rtol=0, atol=1.2e-7 * (1 + np.abs(b).max(initial=0)))


def floats(entry):
    import numpy as np
    kind, shape, raw = entry
    if kind == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[kind]).astype(np.float32).reshape(shape)


def one_family(w, family):
    """F32 gives the tensors of transformers and a configuration with which they give the same logits; what is quantised
    gives what the gguf package dequantises, in the same places."""
    import gguf
    import numpy as np
    import torch
    import transformers
    arch, kind, config = families()[family]
    torch.manual_seed(3)
    model = kind(config).float().eval()
    for name, t in model.named_parameters():
        if "norm" in name or "bias" in name or ".ln_" in name:
            t.data.normal_(0.0, 0.3)
    state = state_of(model)
    tensors = as_gguf(state, arch, config) | rope_tensors(arch, config)
    plain = gguf.GGMLQuantizationType.F32
    write_gguf(w / f"{family}.gguf", arch, config, tensors, lambda n, a: plain)
    converts(w / f"{family}.gguf", w / family)
    have = read_folder(w / family)
    assert have.keys() == state.keys(), (family, have.keys() ^ state.keys())
    for name, t in state.items():
        shifted = arch.startswith("gemma") and name.endswith("norm.weight")
        same = close(floats(have[name]), t.numpy()) if shifted else have[name][1:] == (tuple(t.shape), values(t))
        assert same, (family, name)
    tokens = torch.arange(2, 40).reshape(1, -1)
    again = transformers.AutoModelForCausalLM.from_pretrained(w / family).eval()
    assert type(again) is kind
    with torch.no_grad():
        apart = (again(tokens).logits - model(tokens).logits).abs().max()
    assert apart < 1e-5, (family, apart)
    quantised = [gguf.GGMLQuantizationType[k] for k in ("Q8_0", "Q4_1", "F16", "BF16")]
    stored = write_gguf(w / "q.gguf", arch, config, tensors,
                        lambda n, a: quantised[len(n) % 4] if a.ndim > 1 and a.shape[-1] % 32 == 0 else plain)
    converts(w / "q.gguf", w / f"{family}.q")
    have = read_folder(w / f"{family}.q")
    back = as_gguf({n: torch.from_numpy(floats(t).copy()) for n, t in have.items()}, arch, config)
    for name, array in stored.items():
        if not name.startswith("rope_"):
            same = close(back[name], array) if arch.startswith("gemma") else np.array_equal(back[name], array)
            assert same, (family, name)


@case("torch", "transformers", "gguf")
def gguf_becomes_the_model_that_it_was_made_from(w):
    for family in families():
        one_family(w, family)


@case("torch", "transformers", "gguf", "accelerate")
def transformers_reads_the_same_from_gguf(w):
    import gguf
    import torch
    import transformers
    for family in ("llama", "qwen3", "gemma2"):
        arch, kind, config = families()[family]
        torch.manual_seed(4)
        tensors = as_gguf(state_of(kind(config)), arch, config) | rope_tensors(arch, config)
        src, q = w / family, gguf.GGMLQuantizationType.Q8_0
        src.mkdir()
        write_gguf(src / "a.gguf", arch, config, tensors,
                   lambda n, a: q if a.ndim > 1 else gguf.GGMLQuantizationType.F32)
        converts(src, w / f"{family}.new")
        want = kind.from_pretrained(src, gguf_file="a.gguf", config=config, dtype=torch.float32).state_dict()
        for name, entry in read_folder(w / f"{family}.new").items():
            assert close(floats(entry), want[name].numpy()), (family, name)


@case("gguf", "numpy", "torch")
def every_block_that_gguf_knows(w):
    import gguf
    import numpy as np
    rng = np.random.default_rng(6)
    (w / "out").mkdir()
    for kind in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS", "MXFP4", "TQ1_0"):
        q = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[q]
        raw = rng.integers(0, 56, (5, 256 // block * size)).astype(np.uint8)  # no exponent of infinity
        writer = gguf.GGUFWriter(w / "a.gguf", "llama")
        for key, value in {"block_count": 1, "context_length": 8, "embedding_length": 256, "feed_forward_length": 1,
                           "attention.head_count": 1, "vocab_size": 5}.items():
            writer.add_uint32(f"llama.{key}", value)
        shapes = {"blk.0.attn_q": (2, 256), "blk.0.attn_k": (2, 256), "blk.0.attn_v": (2, 256),
                  "blk.0.attn_output": (256, 2), "blk.0.ffn_gate": (1, 256),
                  "blk.0.ffn_up": (1, 256), "blk.0.ffn_down": (256, 1),
                  "blk.0.attn_norm": (256,), "blk.0.ffn_norm": (256,), "output_norm": (256,)}
        for name, shape in shapes.items():
            writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
        writer.add_tensor("token_embd.weight", raw, raw_dtype=q)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        converts(w / "a.gguf", w / "out" / kind)
        want = gguf.dequantize(raw, q).astype("<f4")
        assert np.isfinite(want).all() and want.any(), kind
        got = read_folder(w / "out" / kind)["model.embed_tokens.weight"]
        assert got == ("F32", (5, 256), want.tobytes()), kind
        converts(w / "a.gguf", w / "out" / f"{kind}.bf16", "--dtype", "bfloat16")
        import torch
        got = read_folder(w / "out" / f"{kind}.bf16")["model.embed_tokens.weight"]
        assert got == ("BF16", (5, 256), values(torch.from_numpy(want.copy()).to(torch.bfloat16))), kind


@case("torch", "transformers", "gguf")
def gguf_that_cannot_be_turned_back_is_named(w):
    import gguf
    import numpy as np
    arch, kind, config = families()["llama"]
    good = as_gguf(state_of(kind(config)), arch, config)
    (w / "out").mkdir()

    def refused(words, tensors=good, name="llama"):
        write_gguf(w / "bad.gguf", name, config, tensors, lambda n, a: gguf.GGMLQuantizationType.F32)
        fails(3, words, w / "bad.gguf", w / "out/new")
    refused("general.architecture is mamba", name="mamba")
    refused("tensor ssm has no name in LlamaForCausalLM", {**good, "ssm": np.ones(3, np.float32)})
    refused(r"blk.2.ffn_up.weight \(model.layers.2.mlp.up_proj.weight\) is missing",
            {n: t for n, t in good.items() if n != "blk.2.ffn_up.weight"})
    refused("rope_freqs are not those", {**good, "rope_freqs.weight": np.linspace(1, 3, 8, dtype=np.float32)})
    (w / "bad.gguf").write_bytes((w / "bad.gguf").read_bytes()[:700])
    fails(3, "cannot be read as GGUF", w / "bad.gguf", w / "out/new")


def main() -> int:
    print(f"1..{len(CASES)}")
    failed = 0
    for number, (function, skip) in enumerate(CASES, 1):
        if skip:
            print(f"ok {number} - {function.__name__} # SKIP {skip}")
            continue
        directory = pathlib.Path(tempfile.mkdtemp())
        try:
            function(directory)
            print(f"ok {number} - {function.__name__}")
        except Exception as e:
            failed += 1
            print(f"not ok {number} - {function.__name__}: {type(e).__name__} {e}".replace("\n", " "))
        shutil.rmtree(directory)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

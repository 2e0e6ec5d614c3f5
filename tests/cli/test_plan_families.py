#!/usr/bin/python3
# seconds: 120
"""`plan` for the largest published model of each family, from headers alone: files that have their length and no data.
What it answers is compared with the number of parameters that is published and with the bytes that they take."""
import json
import os
import pathlib
import re
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import make_models as models
import studies
from studies import check

JOB = """name: p
models: {pre: %s, post: %s}
data: [{name: d, file: %s/data.h5, loss: lm}]
edits: [{name: dare, method: dare, p: 0.5}]
output: {directory: %s/never}
allow: [zero-delta]
"""
WIDTHS = {"BF16": 2, "U8": 1}


def llama(c, norms=("input_layernorm", "post_attention_layernorm"), mlp=True):
    """Tensors of LLaMA and its relatives."""
    width, size = c["hidden_size"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * size, c["num_key_value_heads"] * size
    out = {"model.embed_tokens.weight": (c["vocab_size"], width), "model.norm.weight": (width,)}
    if not c.get("tie_word_embeddings"):
        out["lm_head.weight"] = (c["vocab_size"], width)
    for n in range(c["num_hidden_layers"]):
        layer = f"model.layers.{n}."
        out |= {f"{layer}self_attn.{k}_proj.weight": shape for k, shape in (
            ("q", (q, width)), ("k", (kv, width)), ("v", (kv, width)), ("o", (width, q)))}
        out |= {f"{layer}{norm}.weight": (width,) for norm in norms}
        if mlp:
            out |= {f"{layer}mlp.{k}_proj.weight": (c["intermediate_size"], width) for k in ("gate", "up")}
            out[f"{layer}mlp.down_proj.weight"] = (width, c["intermediate_size"])
    return out


def each_layer(c, shapes):
    return {f"model.layers.{n}.{name}": shape for n in range(c["num_hidden_layers"]) for name, shape in shapes.items()}


def qk_norms(c, whole=False):
    size = c["head_dim"]
    return each_layer(c, {f"self_attn.{k}_norm.weight": (size * c[f"num_{heads}_heads"] if whole else size,)
                          for k, heads in (("q", "attention"), ("k", "key_value"))})


def experts(c, head, kinds, units):
    """Separate ones, as files on the hub have them."""
    gate, up, down = kinds
    out = each_layer(c, {f"{head}.gate.weight": (c["experts"], c["hidden_size"])})
    for e in range(c["experts"]):
        out |= each_layer(c, {f"{head}.experts.{e}.{gate}.weight": (units, c["hidden_size"]),
                              f"{head}.experts.{e}.{up}.weight": (units, c["hidden_size"]),
                              f"{head}.experts.{e}.{down}.weight": (c["hidden_size"], units)})
    return out


def phi3(c):
    drop = re.compile(r"\.(q|k|v|gate|up)_proj")
    out = {name: shape for name, shape in llama(c).items() if not drop.search(name)}
    rows = (c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * c["hidden_size"] // c["num_attention_heads"]
    return out | each_layer(c, {"self_attn.qkv_proj.weight": (rows, c["hidden_size"]),
                                "mlp.gate_up_proj.weight": (2 * c["intermediate_size"], c["hidden_size"])})


def gemma(c):
    return llama(c, ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                     "post_feedforward_layernorm"))


def olmo(c):
    return llama(c, ("post_attention_layernorm", "post_feedforward_layernorm")) | qk_norms(c, True)


def gpt_neox(c):
    width, units = c["hidden_size"], c["intermediate_size"]
    out = {"gpt_neox.embed_in.weight": (c["vocab_size"], width), "embed_out.weight": (c["vocab_size"], width),
           "gpt_neox.final_layer_norm.weight": (width,), "gpt_neox.final_layer_norm.bias": (width,)}
    for n in range(c["num_hidden_layers"]):
        for stem, rows, cols in (("attention.query_key_value", 3 * width, width), ("attention.dense", width, width),
                                 ("mlp.dense_h_to_4h", units, width), ("mlp.dense_4h_to_h", width, units)):
            out |= {f"gpt_neox.layers.{n}.{stem}.weight": (rows, cols), f"gpt_neox.layers.{n}.{stem}.bias": (rows,)}
        out |= {f"gpt_neox.layers.{n}.{norm}.{kind}": (width,) for kind in ("weight", "bias")
                for norm in ("input_layernorm", "post_attention_layernorm")}
    return out


def gpt2(c):
    width = c["n_embd"]
    out = {"transformer.wte.weight": (c["vocab_size"], width), "transformer.wpe.weight": (c["n_positions"], width),
           "transformer.ln_f.weight": (width,), "transformer.ln_f.bias": (width,)}
    for n in range(c["n_layer"]):
        for stem, rows, cols in (("attn.c_attn", width, 3 * width), ("attn.c_proj", width, width),
                                 ("mlp.c_fc", width, 4 * width), ("mlp.c_proj", 4 * width, width)):
            out |= {f"transformer.h.{n}.{stem}.weight": (rows, cols), f"transformer.h.{n}.{stem}.bias": (cols,)}
        out |= {f"transformer.h.{n}.ln_{i}.{kind}": (width,) for kind in ("weight", "bias") for i in (1, 2)}
    return out


def gpt_oss(c):
    """In MXFP4, as it is published: 16 bytes and a scale for 32 values."""
    width, units, many = c["hidden_size"], c["intermediate_size"], c["experts"]
    out = llama(c, mlp=False)
    out |= each_layer(c, {
        **{f"self_attn.{k}_proj.bias": (heads * c["head_dim"],) for k, heads in (
            ("q", c["num_attention_heads"]), ("k", c["num_key_value_heads"]), ("v", c["num_key_value_heads"]))},
        "self_attn.o_proj.bias": (width,), "self_attn.sinks": (c["num_attention_heads"],),
        "mlp.router.weight": (many, width), "mlp.router.bias": (many,),
        "mlp.experts.gate_up_proj_bias": (many, 2 * units), "mlp.experts.down_proj_bias": (many, width),
        "mlp.experts.gate_up_proj_blocks": (many, 2 * units, width // 32, 16),
        "mlp.experts.gate_up_proj_scales": (many, 2 * units, width // 32),
        "mlp.experts.down_proj_blocks": (many, width, units // 32, 16),
        "mlp.experts.down_proj_scales": (many, width, units // 32)})
    return out


def tower(width, layers, names, shapes):
    """Layers of an image tower: linear maps by their weights, each with a bias."""
    out = {}
    for n in range(layers):
        for name, shape in shapes.items():
            out[f"{names}.{n}.{name}"] = shape
            if name.endswith(".weight") and len(shape) == 2:
                out[f"{names}.{n}.{name.removesuffix('weight')}bias"] = shape[:1]
            elif name.endswith(".weight"):
                out[f"{names}.{n}.{name.removesuffix('weight')}bias"] = (width,)
    return out


def dinov2(c):
    width, units, patches = c["hidden_size"], 4096, (c["image_size"] // c["patch_size"]) ** 2
    return {"dinov2.embeddings.cls_token": (1, 1, width), "dinov2.embeddings.mask_token": (1, width),
            "dinov2.embeddings.position_embeddings": (1, 1 + patches, width),
            "dinov2.embeddings.patch_embeddings.projection.weight": (width, 3, c["patch_size"], c["patch_size"]),
            "dinov2.embeddings.patch_embeddings.projection.bias": (width,),
            "dinov2.layernorm.weight": (width,), "dinov2.layernorm.bias": (width,),
            "classifier.weight": (1000, 2 * width), "classifier.bias": (1000,)} | tower(
                width, c["num_hidden_layers"], "dinov2.encoder.layer", {
                    **{f"attention.attention.{k}.weight": (width, width) for k in ("query", "key", "value")},
                    "attention.output.dense.weight": (width, width), "norm1.weight": (width,), "norm2.weight": (width,),
                    "layer_scale1.lambda1": (width,), "layer_scale2.lambda1": (width,),
                    "mlp.weights_in.weight": (2 * units, width), "mlp.weights_out.weight": (width, units)})


def siglip(c):
    width, units, patches = c["hidden_size"], c["intermediate_size"], (c["image_size"] // c["patch_size"]) ** 2
    mlp = {"mlp.fc1.weight": (units, width), "mlp.fc2.weight": (width, units)}
    head = {f"vision_model.head.{name}": shape for name, shape in {
        "probe": (1, 1, width), "attention.in_proj_weight": (3 * width, width), "attention.in_proj_bias": (3 * width,),
        "attention.out_proj.weight": (width, width), "attention.out_proj.bias": (width,), "layernorm.weight": (width,),
        "layernorm.bias": (width,), "mlp.fc1.bias": (units,), "mlp.fc2.bias": (width,), **mlp}.items()}
    return head | {"vision_model.embeddings.patch_embedding.weight": (width, 3, c["patch_size"], c["patch_size"]),
                   "vision_model.embeddings.patch_embedding.bias": (width,),
                   "vision_model.embeddings.position_embedding.weight": (patches, width),
                   "vision_model.post_layernorm.weight": (width,), "vision_model.post_layernorm.bias": (width,),
                   "text_embeds.weight": (1000, width)} | tower(
                       width, c["num_hidden_layers"], "vision_model.encoder.layers", {
                           **{f"self_attn.{k}_proj.weight": (width, width) for k in ("q", "k", "v", "out")},
                           "layer_norm1.weight": (width,), "layer_norm2.weight": (width,), **mlp})


def keys(width, units, layers, heads, kv_heads, vocabulary, **more):
    return {"hidden_size": width, "intermediate_size": units, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "vocab_size": vocabulary, "max_position_embeddings": 4096} | more


# Architecture, model_type, configuration, tensors, parameters as published, and ranks at 80 GB each.
MODELS = {
    "Qwen3-32B": ("Qwen3ForCausalLM", "qwen3", keys(5120, 25600, 64, 64, 8, 151936, head_dim=128),
                  lambda c: llama(c) | qk_norms(c), 32762123264, 64),
    "SmolLM3-3B": ("SmolLM3ForCausalLM", "smollm3", keys(2048, 11008, 36, 16, 4, 128256, tie_word_embeddings=True),
                   llama, 3075098624, 8),
    "phi-4": ("Phi3ForCausalLM", "phi3", keys(5120, 17920, 40, 40, 10, 100352, original_max_position_embeddings=4096,
                                              sliding_window=None), phi3, 14659507200, 16),
    "OLMo-2-32B": ("Olmo2ForCausalLM", "olmo2", keys(5120, 27648, 64, 40, 8, 100352, head_dim=128), olmo, 32234279936,
                   64),
    "Olmo-3-32B": ("Olmo3ForCausalLM", "olmo3", keys(5120, 27648, 64, 40, 8, 100278, head_dim=128), olmo, 32233522176,
                   128),
    "gemma-2-27b": ("Gemma2ForCausalLM", "gemma2", keys(4608, 36864, 46, 32, 16, 256000, head_dim=128,
                                                        query_pre_attn_scalar=144, tie_word_embeddings=True),
                    gemma, 27227128320, 64),
    "gemma-3-27b": ("Gemma3ForCausalLM", "gemma3_text", keys(5376, 21504, 62, 32, 16, 262208, head_dim=128,
                                                             query_pre_attn_scalar=168, tie_word_embeddings=True),
                    lambda c: gemma(c) | qk_norms(c), 27009346304, 64),
    "pythia-12b": ("GPTNeoXForCausalLM", "gpt_neox", keys(5120, 20480, 36, 40, 40, 50688, rotary_pct=0.25), gpt_neox,
                   11846072320, 16),
    "gpt-neox-20b": ("GPTNeoXForCausalLM", "gpt_neox", keys(6144, 24576, 44, 64, 64, 50432, rotary_pct=0.25), gpt_neox,
                     20554567680, 32),
    "gpt2-xl": ("GPT2LMHeadModel", "gpt2", {"n_embd": 1600, "n_layer": 48, "n_head": 25, "n_positions": 1024,
                                            "vocab_size": 50257}, gpt2, 1557611200, 4),
    "Mixtral-8x22B": ("MixtralForCausalLM", "mixtral", keys(6144, 16384, 56, 48, 8, 32000, num_local_experts=8,
                                                            experts=8), lambda c: llama(c, mlp=False) | experts(
                          c, "block_sparse_moe", ("w1", "w3", "w2"), 16384), 140620634112, 128),
    "Qwen3-235B-A22B": ("Qwen3MoeForCausalLM", "qwen3_moe", keys(
        4096, 12288, 94, 64, 4, 151936, head_dim=128, num_experts=128, experts=128, moe_intermediate_size=1536,
        num_experts_per_tok=8, norm_topk_prob=True), lambda c: llama(c, mlp=False) | qk_norms(c) | experts(
            c, "mlp", ("gate_proj", "up_proj", "down_proj"), 1536), 235093634560, 512),
    "gpt-oss-120b": ("GptOssForCausalLM", "gpt_oss", keys(2880, 2880, 36, 64, 8, 201088, head_dim=64, experts=128,
                                                         num_local_experts=128, quantization_config={
                                                             "quant_method": "mxfp4"}), gpt_oss, 116829156672, 512),
    # Of the towers, 1136480768 and 428225600, with 1000 classes.
    "dinov2-giant": ("Dinov2ForImageClassification", "dinov2", {
        "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "image_size": 518, "patch_size": 14,
        "mlp_ratio": 4, "use_swiglu_ffn": True}, dinov2, 1136480768 + 1000 * (2 * 1536 + 1), 4),
    "siglip-so400m": ("SiglipVisionModel", "siglip_vision_model", {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
        "image_size": 384, "patch_size": 14}, siglip, 428225600 + 1000 * 1152, 2),
}


def save(folder, architecture, kind, config, shapes):
    """Headers, and a file as long as they say."""
    header, at = {}, 0
    for name, shape in shapes.items():
        dtype = "U8" if name.endswith(("_blocks", "_scales")) else "BF16"
        size = WIDTHS[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    folder.mkdir()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    config = {"architectures": [architecture], "model_type": kind} | {k: v for k, v in config.items() if k != "experts"}
    (folder / "config.json").write_text(json.dumps(config))


def rows(text):
    """Numbers of the plan by the words before them."""
    return {name.strip(): float(value) for name, value in re.findall(r"^  (\S.*?) {2,}([\d.]+)", text, re.M)}


def plans(folder, name, row):
    architecture, kind, config, shapes, parameters, ranks = row
    save(folder / name, architecture, kind, config, shapes(config))
    job = folder / "job.yaml"
    text = JOB % (folder / name, folder / name, folder, folder)
    if "image_size" in config:
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["images"] = np.zeros((8, 3, config["image_size"], config["image_size"]), np.float32)
            file["labels"] = np.arange(8, dtype=np.int32)
        text = text.replace("data.h5, loss: lm", f"{name}.h5, loss: class")
    job.write_text(text)
    done = studies.deltapath("plan", str(job), "--ranks", str(ranks), "--memory", "80G")
    check(f"{name}: a plan", done.returncode == 0 and done.stderr.count("error") == 0, done.stderr[-600:])
    have = rows(done.stdout)
    check(f"{name}: parameters", have.get("elements of the model") == parameters, f"{have} against {parameters}")
    tensor_parallel = int((re.search(r"x (\d+) tensor-parallel", done.stdout) or [0, 0])[1])
    check(f"{name}: a mesh", tensor_parallel > 0 and ranks % tensor_parallel == 0, done.stdout)
    # Two copies of the weights over the ranks of a replica, with what is not split and uneven shares on top,
    # and without a mask token.
    least = 2 * 2 * parameters / max(tensor_parallel, 1) / 2**20
    # Replicas on several machines share them as well: at least, all ranks have them once.
    check(f"{name}: memory", 0.999 * least * tensor_parallel / ranks <= have.get("weights", 0) <= 1.6 * least + 4096 and
          have.get("at most at a time", 1e9) <= have.get("budget", 0) == 80 * 1024, f"{have}, at least {least}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        models.write_data(folder / "data.h5", models.random_samples(64) * 30)
        for name, row in MODELS.items():
            plans(folder, name, row)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
# seconds: 120
"""`inspect` and `diff` on a small model of each family, those of tests/golden: layer and kind of module of every
tensor, and the matrices that it holds, against a table. Every row of a family names a tensor that its models have."""
import csv
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import studies
from studies import check

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"

# Names without the number of the layer, with their module, and the matrices that such a tensor holds: some of these of
# each expert, or one of each.
ATTENTION = {"self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.o_proj": "o"}
QK_NORMS = {"self_attn.q_norm": "norm", "self_attn.k_norm": "norm"}
MLP = {"mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down"}
NORMS = {"input_layernorm": "norm", "post_attention_layernorm": "norm"}
AFTER = {"post_attention_layernorm": "norm", "post_feedforward_layernorm": "norm"}
OUTSIDE = {"model.embed_tokens": "embed", "model.norm": "norm", "lm_head": "head"}
FUSED = {"mlp.experts.gate_up_proj": "gate_up experts gate up", "mlp.experts.down_proj": "down experts"}
LLAMA = OUTSIDE | ATTENTION | MLP | NORMS

VIT = {"vit.embeddings.cls_token": "embed", "vit.embeddings.position_embeddings": "embed",
       "vit.embeddings.patch_embeddings.projection": "embed", "attention.attention.query": "q",
       "attention.attention.key": "k", "attention.attention.value": "v", "attention.output.dense": "o",
       "classifier": "head"}
SIGLIP = {"vision_model.embeddings.patch_embedding": "embed", "vision_model.embeddings.position_embedding": "embed",
          "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.out_proj": "o",
          "mlp.fc1": "up", "mlp.fc2": "down", "layer_norm1": "norm", "layer_norm2": "norm",
          "vision_model.post_layernorm": "norm", "classifier": "head"}

TABLE = {
    "llama": LLAMA | QK_NORMS,
    "smollm3": LLAMA,
    "phi3": OUTSIDE | NORMS | {"self_attn.qkv_proj": "qkv q k v", "self_attn.o_proj": "o", "mlp.gate_up_proj":
                               "gate_up gate up", "mlp.down_proj": "down"},
    "olmo2": OUTSIDE | ATTENTION | QK_NORMS | MLP | AFTER,
    "olmo3": OUTSIDE | ATTENTION | QK_NORMS | MLP | AFTER,
    "gemma": LLAMA,
    "gemma2": LLAMA | AFTER | {"pre_feedforward_layernorm": "norm"},
    "gemma3": LLAMA | AFTER | QK_NORMS | {"pre_feedforward_layernorm": "norm"},
    "gpt_neox": {"gpt_neox.embed_in": "embed", "gpt_neox.final_layer_norm": "norm", "embed_out": "head", **NORMS,
                 "attention.query_key_value": "qkv q k v", "attention.dense": "o", "mlp.dense_h_to_4h": "up",
                 "mlp.dense_4h_to_h": "down"},
    "gpt2": {"transformer.wte": "embed", "transformer.wpe": "embed", "transformer.ln_f": "norm", "lm_head": "head",
             "ln_1": "norm", "ln_2": "norm", "attn.c_attn": "qkv q k v", "attn.c_proj": "o", "mlp.c_fc": "up",
             "mlp.c_proj": "down"},
    "mixtral": OUTSIDE | ATTENTION | NORMS | FUSED | {
        "mlp.gate": "router", "block_sparse_moe.gate": "router", "block_sparse_moe.experts.N.w1": "gate",
        "block_sparse_moe.experts.N.w3": "up", "block_sparse_moe.experts.N.w2": "down"},
    "qwen3_moe": OUTSIDE | ATTENTION | NORMS | QK_NORMS | FUSED | {
        "mlp.gate": "router", "mlp.experts.N.gate_proj": "gate", "mlp.experts.N.up_proj": "up",
        "mlp.experts.N.down_proj": "down"},
    "gpt_oss": OUTSIDE | ATTENTION | NORMS | FUSED | {
        "mlp.router": "router", "self_attn.sinks": "other", "mlp.experts.gate_up_proj_bias": "gate_up experts gate up",
        "mlp.experts.down_proj_bias": "down experts"},
    "vit": VIT | SIGLIP | {
        "vit.layernorm": "norm", "layernorm_before": "norm", "layernorm_after": "norm", "intermediate.dense": "up",
        "output.dense": "down", "visual_projection": "head", "text_embeds": "embed",
        "vision_model.pre_layrnorm": "norm", "vision_model.embeddings.class_embedding": "embed"},
    "siglip": SIGLIP | {f"vision_model.head.{name}": "head" for name in (
        "probe", "attention.out_proj", "layernorm", "mlp.fc1", "mlp.fc2")} | {
            f"vision_model.head.attention.in_proj_{kind}": "head q k v" for kind in ("weight", "bias")} | {
                "text_embeds": "embed"},
    "dinov2": VIT | {"vit.layernorm": "norm", "norm1": "norm", "norm2": "norm", "layer_scale1.lambda1": "other",
                     "layer_scale2.lambda1": "other", "mlp.fc1": "up", "mlp.fc2": "down", "vit.embeddings.mask_token":
                     "embed", "vit.embeddings.register_tokens": "embed", "mlp.weights_in": "gate_up gate up",
                     "mlp.weights_out": "down"},
}
LAYER = re.compile(r"^(?:model\.layers|gpt_neox\.layers|transformer\.h|\w+\.encoder\.layers?)\.(\d+)\.")


def wanted(tensor, kind):
    """Layer, module and names of the matrices of a tensor, and its row of the table."""
    tower = kind == "siglip" and re.match(r"(embeddings|encoder|post_layernorm|head)\.", tensor["name"])
    name = "vision_model." + tensor["name"] if tower else tensor["name"]  # as transformers 5 saves it
    found = LAYER.match(name)
    row = LAYER.sub("", re.sub(r"^dinov2\w*\.", "vit.", name))
    row = re.sub(r"\.(weight|bias)$", "", re.sub(r"experts\.\d+\.", "experts.N.", row))
    module, *parts = TABLE[kind].get(row, "missing").split()
    if parts[:1] == ["experts"]:
        experts = range(tensor["shape"][0])
        parts = [f"{e}.{p}" for e in experts for p in parts[1:]] or [str(e) for e in experts]
    return (int(found[1]) if found else -1, module, parts), row


def matrices(name, values, parts, kind, config):
    """Those that a tensor holds, each by the rule of its family."""
    if values.ndim == 1 or name.endswith("_bias"):
        return [values]
    if values.ndim == 3 and "experts" in name:
        cut = (lambda one: [one[:, 0::2], one[:, 1::2]]) if kind == "gpt_oss" else lambda one: np.split(one, 2)
        return [part for one in values for part in (cut(one) if "gate_up" in name else [one])]
    if kind == "gpt_neox" and len(parts) == 3:
        heads = values.reshape(config["num_attention_heads"], 3, -1, values.shape[1])
        return [heads[:, n].reshape(-1, values.shape[1]) for n in range(3)]
    if kind == "phi3" and len(parts) == 3:
        heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
        size = len(values) // (heads + 2 * kv)
        return np.split(values, [heads * size, (heads + kv) * size])
    return np.split(values, len(parts), 1 if kind == "gpt2" else 0) if parts else [values]


def norms(folder, path, kind, wants, ranks):
    """Spectral norms of diff: of each tensor the largest of its matrices', which NumPy has."""
    start = os.environ.get("DPT_MPIRUN", "mpirun -q").split() + ["-n", str(ranks)]
    done = subprocess.run([*start, studies.PROGRAM, "diff", f"{folder}/{path.stem}-pre", f"{folder}/{path.stem}-post", "--csv",
                           f"{folder}/diff.csv", "--overwrite", "--iterations", "60"], check=False, capture_output=True, text=True)
    pre, post = (studies.load_model(f"{folder}/{path.stem}-{side}") for side in ("pre", "post"))
    config = json.loads((pathlib.Path(folder) / f"{path.stem}-pre/config.json").read_text())
    wrong = [] if done.returncode == 0 else [done.stderr]
    for row in csv.DictReader(open(f"{folder}/diff.csv", encoding="utf-8")) if not wrong else ():
        name = row["tensor"]
        if name == "all":
            continue
        one, other = (np.frombuffer(side[name][2], "<f4").reshape(side[name][1]) for side in (pre, post))
        parts = matrices(name, other - one, wants[name][2], kind, config)
        plain = parts[0].ndim == 2 and not name.endswith("_bias") and other.size > 0
        want = max(np.linalg.norm(part, 2) for part in parts) if plain else None
        have = float(row["spectral"]) if row["spectral"] else None
        if (have is None) != (want is None) or (want is not None and abs(have - want) > 1e-4 * want + 1e-12):
            wrong.append(f"{name}: {have} in place of {want}")
    check(f"{kind}/{path.stem}: spectral norms at {ranks}", not wrong, "\n".join(wrong))


def look(folder, kind, path, used, measured):
    """One model and its own edit. Spectral norms of the first of a family with several matrices in a tensor."""
    with h5py.File(path) as file:
        config = file.attrs["config"]
        config = config if isinstance(config, str) else bytes(config).decode()
        for name, values in (("pre", file["tensors"]), ("post", file["edit"])):
            studies.save_model(f"{folder}/{path.stem}-{name}", config, {n: values[n][()] for n in file["tensors"]})
    done = studies.deltapath("inspect", "--json", f"{folder}/{path.stem}-pre")
    tensors = json.loads(done.stdout)["tensors"] if done.returncode == 0 else []
    wrong, modules, wants = [done.stderr] if not tensors else [], {}, {}
    for tensor in tensors:
        want, row = wanted(tensor, kind)
        used.add(row)
        modules[tensor["name"]] = want[1]
        wants[tensor["name"]] = want
        have = (tensor["layer"], tensor["module"], tensor.get("matrices", []))
        if have != want:
            wrong.append(f"{tensor['name']}: {have} in place of {want}")
    check(f"{kind}/{path.stem}: inspect", not wrong, "\n".join(wrong))
    done = studies.deltapath("diff", f"{folder}/{path.stem}-pre", f"{folder}/{path.stem}-post")
    lines = [line.split() for line in done.stdout.splitlines()]
    rows = {line[0]: line[1] for line in lines if len(line) > 3 and line[0] in modules}
    check(f"{kind}/{path.stem}: diff", rows == modules, f"{rows} in place of {modules}\n{done.stderr}")
    fused = any(len(want[2]) > 1 for want in wants.values())
    if fused and kind not in measured:
        norms(folder, path, kind, wants, 1 + len(measured) % 3)
        measured.add(kind)


def main():
    families = {p.parent.name for p in GOLDEN.glob("*/*.h5")} - {"dpo"}
    check("every family of the golden files stands in the table", families <= set(TABLE), families - set(TABLE))
    measured = set()
    for kind, table in TABLE.items():
        used = set()
        with tempfile.TemporaryDirectory() as folder:
            for path in sorted((GOLDEN / kind).glob("*.h5"))[-4:]:
                look(folder, kind, path, used, measured)
        check(f"{kind}: every row of the table", used >= set(table) - {"lm_head"}, set(table) - used)
    check("spectral norms of eight families", len(measured) == 8, measured)
    return studies.finish()


if __name__ == "__main__":
    sys.exit(main())

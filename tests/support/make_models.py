#!/usr/bin/python3
"""Small models and data sets for the tests of the program, sound and broken ones.

    make_models.py llama DIR [--dtype bf16] [--tied] [--pad N] [--layers 2]   DIR/pre, DIR/post,
                  [--samples N]
                                   DIR/data.h5 (lm), DIR/pairs.h5 (dpo)
    make_models.py plain DIR       a pair of no known architecture: all types, ragged shapes, large
    make_models.py broken DIR      models with one fault each, next to their sound partner DIR/good
    make_models.py data DIR        data sets with one fault each
    make_models.py foreign DIR     what users give in place of a model: quantised, adapters, pointers ...

Needs numpy and h5py (Debian's python3-h5py).
"""
import argparse
import json
import pathlib
import shutil
import struct

import h5py
import numpy as np

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "F8_E4M3": 1}


def encode(values, dtype):
    """Bytes of an array in a safetensors type; bf16 is rounded to nearest even."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    kinds = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "i1", "U8": "u1",
             "F8_E4M3": "u1"}
    return np.ascontiguousarray(values).astype(kinds[dtype]).tobytes()


def write_safetensors(path, tensors, header_text=None, metadata=True):
    """tensors: {name: (values, dtype)}; header_text replaces the header that they would get."""
    header = {"__metadata__": {"format": "pt"}} if metadata else {}
    data = b""
    for name, (values, dtype) in tensors.items():
        raw = encode(values, dtype)
        header[name] = {"dtype": dtype, "shape": list(np.shape(values)),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = (header_text or (lambda h: json.dumps(h)))(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def llama_config(vocabulary, hidden=16, layers=2, heads=4, kv_heads=2, inner=24, tied=False):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
            "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "vocab_size": vocabulary, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 64, "rope_theta": 10000.0, "hidden_act": "silu",
            "tie_word_embeddings": tied}


def llama_shapes(config):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden),
              "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv, hidden),
                            "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, hidden),
                            "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
                            "mlp.down_proj": (hidden, inner), "input_layernorm": (hidden,),
                            "post_attention_layernorm": (hidden,)}.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return shapes


def llama_pair(config, dtype, seed=1):
    rng = np.random.default_rng(seed)
    pre, post = {}, {}
    for name, shape in llama_shapes(config).items():
        centre = 1.0 if len(shape) == 1 else 0.0
        values = centre + 0.3 * rng.standard_normal(shape)
        pre[name] = (values, dtype)
        post[name] = (values + 0.05 * rng.standard_normal(shape), dtype)
    return pre, post


def write_model(path, tensors, config, companions=True):
    write_safetensors(path / "model.safetensors", tensors)
    if config is not None:
        (path / "config.json").write_text(json.dumps(config, indent=1))
    if companions:
        (path / "tokenizer.json").write_text("{}\n")
        (path / "generation_config.json").write_text('{"eos_token_id": 1}\n')


def write_data(path, samples, masks=None):
    tokens = np.concatenate([np.asarray(s, np.int32) for s in samples])
    mask = np.ones(len(tokens), np.uint8) if masks is None else np.concatenate(masks)
    ends = np.cumsum([0] + [len(s) for s in samples])
    with h5py.File(path, "w") as file:
        file["tokens"] = tokens
        file["loss_mask"] = mask.astype(np.uint8)
        file["offsets"] = ends.astype(np.int64)


def write_pairs(path, vocabulary, count=5, seed=4):
    """A preference data set: prompts of 2 tokens, responses of 1 to 6."""
    rng = np.random.default_rng(seed)
    sides = {"chosen": [], "rejected": []}
    for _ in range(count):
        prompt = rng.integers(0, vocabulary, 2)
        for side in sides.values():
            side.append(np.concatenate([prompt, rng.integers(0, vocabulary, rng.integers(1, 7))]))
    with h5py.File(path, "w") as file:
        for name, samples in sides.items():
            file[f"{name}/tokens"] = np.concatenate(samples).astype(np.int32)
            file[f"{name}/loss_mask"] = np.concatenate(
                [np.arange(len(s)) >= 2 for s in samples]).astype(np.uint8)
            file[f"{name}/offsets"] = np.cumsum([0] + [len(s) for s in samples]).astype(np.int64)


def random_samples(vocabulary, count=9, seed=3):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary, int(n)) for n in rng.integers(3, 12, count)]


def make_llama(out, arguments):
    config = llama_config(arguments.vocabulary, layers=arguments.layers, tied=arguments.tied)
    pre, post = llama_pair(config, arguments.dtype.upper())
    out.mkdir(parents=True, exist_ok=True)
    write_data(out / "data.h5", random_samples(arguments.vocabulary, arguments.samples or 9))
    write_pairs(out / "pairs.h5", arguments.vocabulary, arguments.samples or 5)
    write_model(out / "pre", pre, config)
    if arguments.pad:
        config = dict(config, vocab_size=arguments.vocabulary + arguments.pad)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in post:
                values = np.pad(post[name][0], ((0, arguments.pad), (0, 0)))
                post[name] = (values, post[name][1])
    write_model(out / "post", post, config)


def make_plain(out):
    """Shapes that no rank count divides, one tensor of more than a cell of 2^20 elements."""
    rng = np.random.default_rng(5)
    shapes = {"big.weight": ((1031, 1201), "BF16"), "half.weight": ((137, 211), "F16"),
              "single.weight": ((96, 173), "F32"), "row.weight": ((1, 301), "BF16"),
              "column.weight": ((255, 1), "F16"), "vector": ((129,), "BF16"), "one": ((), "F32"),
              "cube.weight": ((7, 5, 11), "BF16"), "empty.weight": ((0, 4), "F32")}
    pre, post = {}, {}
    for name, (shape, dtype) in shapes.items():
        values = rng.standard_normal(shape)
        pre[name] = (values, dtype)
        post[name] = (values + 0.1 * rng.standard_normal(shape), dtype)
    ids = np.arange(17)
    pre["ids"] = post["ids"] = (ids, "I64")
    write_model(out / "pre", pre, None, companions=False)
    write_model(out / "post", post, None, companions=False)


def patch_header(change):
    def text(header):
        header = dict(header)
        change(header)
        return json.dumps(header)
    return text


def set_entry(name, **keys):
    return patch_header(lambda header: header[name].update(keys))


NAME = "model.layers.0.mlp.up_proj.weight"


def broken_headers():
    """Safetensors headers that lie, by the name of the folder."""
    def overlap(header):
        begin, end = header[NAME]["data_offsets"]
        header[NAME]["data_offsets"] = [begin - 8, end - 8]

    def swap(header):
        header[NAME]["data_offsets"] = header[NAME]["data_offsets"][::-1]

    def double(header):
        text = json.dumps(header)
        return text[:-1] + ', "' + NAME + '": ' + json.dumps(header[NAME]) + "}"

    return {
        "overlap": patch_header(overlap),
        "swapped": patch_header(swap),
        "beyond": set_entry(NAME, data_offsets=[0, 1 << 50]),
        "negative-offset": set_entry(NAME, data_offsets=[-768, 0]),
        "float-offset": set_entry(NAME, data_offsets=[0.5, 768.5]),
        "no-offset": patch_header(lambda header: header[NAME].pop("data_offsets")),
        "shape-lies": set_entry(NAME, shape=[24, 17]),
        "shape-negative": set_entry(NAME, shape=[-24, -16]),
        "shape-overflows": set_entry(NAME, shape=[1 << 40, 1 << 40]),
        "shape-long": set_entry(NAME, shape=[1] * 64),
        "shape-text": set_entry(NAME, shape="24x16"),
        "type-unknown": set_entry(NAME, dtype="F3"),
        "entry-number": patch_header(lambda header: header.update({NAME: 7})),
        "duplicate": double,
        "json-cut": lambda header: json.dumps(header)[:-20],
        "json-array": lambda header: "[1, 2]",
        "json-deep": lambda header: '{"a":' * 5000 + "1" + "}" * 5000,
        "metadata-number": patch_header(lambda header: header.update({"__metadata__": 3})),
    }


def spoil(tensors, name, index, value):
    spoiled = {key: (np.array(values, np.float32), dtype) for key, (values, dtype) in tensors.items()}
    spoiled[name][0].flat[index] = value
    return spoiled


def make_broken_files(out, raw):
    cases = {"empty": b"", "short": b"abc", "length-huge": struct.pack("<Q", 1 << 63) + raw[8:],
             "length-beyond": struct.pack("<Q", len(raw)) + raw[8:],
             "length-zero": struct.pack("<Q", 0) + raw[8:], "truncated": raw[:-100],
             "truncated-header": raw[:60], "appended": raw + b"\0" * 64,
             "binary": bytes(range(256)) * 8}
    for name, content in cases.items():
        folder = out / ("st-" + name)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(content)


def make_broken_index(out, tensors):
    names = list(tensors)
    half = {name: tensors[name] for name in names[:10]}
    rest = {name: tensors[name] for name in names[10:]}
    full = {name: f"model-0000{1 if name in half else 2}-of-00002.safetensors" for name in names}
    cases = {"index-broken": "{", "index-no-map": "{}",
             "index-outside": json.dumps({"weight_map": {n: "../" + f for n, f in full.items()}}),
             "index-extra": json.dumps({"weight_map": dict(full, ghost=full[names[0]])}),
             "index-lacks": json.dumps({"weight_map": {n: f for n, f in full.items() if n != NAME}}),
             "index-no-shard": json.dumps({"weight_map": full})}
    for name, text in cases.items():
        folder = out / ("st-" + name)
        write_safetensors(folder / "model-00001-of-00002.safetensors", half)
        if name != "index-no-shard":
            write_safetensors(folder / "model-00002-of-00002.safetensors", rest)
        (folder / "model.safetensors.index.json").write_text(text)


def write_hdf5(path, tensors, config, form="deltapath-checkpoint", version=1, group="tensors"):
    with h5py.File(path, "w") as file:
        file.attrs["format"] = form
        file.attrs["version"] = version
        file.attrs["config"] = json.dumps(config)
        file.create_group(group)
        for name, (values, _) in tensors.items():
            file[f"{group}/{name}"] = np.asarray(values, np.float32)


def make_broken_hdf5(out, tensors, config):
    good = out / "good.h5"
    write_hdf5(good, tensors, config)
    raw = good.read_bytes()
    files = {"truncated": raw[:len(raw) // 2], "cut": raw[:-64], "cut-hard": raw[:200],
             "text": b"this is text\n" * 100, "empty": b"",
             "superblock": raw[:8] + b"\xff" * 88 + raw[96:],
             "middle": raw[:1024] + b"\xff" * 2048 + raw[3072:]}
    for name, content in files.items():
        (out / f"h5-{name}.h5").write_bytes(content)
    write_hdf5(out / "h5-format.h5", tensors, config, form="something")
    write_hdf5(out / "h5-version.h5", tensors, config, version=99)
    write_hdf5(out / "h5-group.h5", tensors, config, group="weights")
    write_hdf5(out / "h5-nothing.h5", {}, config)
    extras = {"double": lambda f: f.create_dataset(NAME, data=np.zeros((24, 16), np.float64)),
              "text-type": lambda f: f.create_dataset(NAME, data=[b"a", b"b"]),
              "half-written": lambda f: f.create_dataset(NAME, (24, 16), np.float32, chunks=(8, 8))
              .write_direct(np.zeros((8, 8), np.float32), dest_sel=np.s_[:8, :8]),
              "unwritten": lambda f: f.create_dataset(NAME, (24, 16), np.float32),
              "link": lambda f: f.__setitem__(NAME, h5py.ExternalLink("elsewhere.h5", "/x")),
              "subgroup": lambda f: f.create_group(NAME)}
    for name, add in extras.items():
        shutil.copy(good, out / f"h5-{name}.h5")
        with h5py.File(out / f"h5-{name}.h5", "r+") as file:
            del file["tensors"][NAME]
            add(file["tensors"])


def make_mismatched(out, post, config):
    changed = dict(post)
    del changed["model.layers.1.mlp.up_proj.weight"]
    changed["model.layers.7.extra.weight"] = (np.zeros((3, 3)), "BF16")
    changed[NAME] = (np.zeros((25, 16)), "BF16")
    changed["model.norm.weight"] = (np.zeros(16), "I64")
    write_model(out / "mismatched", changed, config)


def make_broken(out):
    config = llama_config(64)
    pre, post = llama_pair(config, "BF16")
    out.mkdir(parents=True, exist_ok=True)
    write_model(out / "good", pre, config)
    write_model(out / "post", post, config)
    write_data(out / "data.h5", random_samples(64))
    for name, text in broken_headers().items():
        write_safetensors(out / ("st-" + name) / "model.safetensors", pre, text)
    make_broken_files(out, (out / "good/model.safetensors").read_bytes())
    make_broken_index(out, pre)
    make_broken_hdf5(out, pre, config)
    (out / "st-nothing").mkdir()
    write_safetensors(out / "st-no-tensors/model.safetensors", {})
    for name, value in {"nan": np.nan, "inf": np.inf, "minus-inf": -np.inf}.items():
        write_model(out / f"value-{name}", spoil(pre, NAME, 37, value), config)
    write_hdf5(out / "value-nan.h5", spoil(pre, NAME, 37, np.nan), config)
    make_mismatched(out, pre, config)
    configs = {"no-json": "{ nonsense", "family": json.dumps(dict(config, model_type="mamba",
                                                                  architectures=["Mamba"])),
               "hidden": json.dumps(dict(config, hidden_size=32)),
               "heads": json.dumps(dict(config, num_attention_heads=0)),
               "huge": json.dumps(dict(config, num_hidden_layers=10 ** 30)),
               "layers": json.dumps(dict(config, num_hidden_layers=3)),
               "vocabulary": json.dumps(dict(config, vocab_size=65))}
    for name, text in configs.items():
        write_model(out / f"config-{name}", post, None)
        (out / f"config-{name}/config.json").write_text(text)
    write_model(out / "config-missing", post, None)


def quantised(post, parts):
    """The linear layers of a model replaced by tensors {ending: (dtype, shape of (out, in))}."""
    tensors = {}
    for name, (values, dtype) in post.items():
        if "_proj." not in name:
            tensors[name] = (values, dtype)
            continue
        for ending, (kind, shape) in parts.items():
            tensors[name.removesuffix(".weight") + ending] = (np.ones(shape(*values.shape)), kind)
    return tensors


def make_foreign(out):
    """What users give in place of a model, with the names and types that the tools write."""
    config = llama_config(64)
    _, post = llama_pair(config, "BF16")
    kinds = {
        "awq": ({".qweight": ("I32", lambda o, i: (i, o // 8)), ".qzeros": ("I32", lambda o, i: (1, o // 8)),
                 ".scales": ("F16", lambda o, i: (1, o))}, {"quant_method": "awq", "bits": 4}),
        "gptq": ({".qweight": ("I32", lambda o, i: (i // 8, o)), ".qzeros": ("I32", lambda o, i: (1, o // 8)),
                  ".scales": ("F16", lambda o, i: (1, o)), ".g_idx": ("I32", lambda o, i: (i,))},
                 {"quant_method": "gptq", "bits": 4}),
        "fp4": ({".weight": ("I8", lambda o, i: (o, i // 2)),
                 ".weight_scale_inv": ("F32", lambda o, i: (o, 1))}, {"quant_method": "fp8"}),
        "fp8-bare": ({".weight": ("F8_E4M3", lambda o, i: (o, i))}, None),
        "int8": ({".weight": ("I8", lambda o, i: (o, i)), ".SCB": ("F32", lambda o, i: (o,)),
                  ".weight_format": ("U8", lambda o, i: ())},
                 {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "nf4": ({".weight": ("U8", lambda o, i: (o * i // 2, 1)), ".weight.absmax": ("U8", lambda o, i: (o,))},
                {"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "hqq": ({".W_q": ("U8", lambda o, i: (o // 2, i)), ".scale": ("F16", lambda o, i: (o, 1)),
                 ".zero": ("F16", lambda o, i: (o, 1))}, {"quant_method": "hqq"}),
        "packed": ({".weight_packed": ("I32", lambda o, i: (o, i // 8)),
                    ".weight_scale": ("BF16", lambda o, i: (o, 1))}, {"quant_method": "compressed-tensors"})}
    for name, (parts, method) in kinds.items():
        write_model(out / name, quantised(post, parts),
                    dict(config, quantization_config=method) if method else config)
    adapter = {}
    for name, (values, _) in post.items():
        if "q_proj" in name:
            for side, shape in (("A", (2, values.shape[1])), ("B", (values.shape[0], 2))):
                adapter[f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight"] = (
                    np.ones(shape), "F32")
    write_safetensors(out / "lora/adapter_model.safetensors", adapter)
    (out / "lora/adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    (out / "lora-bin").mkdir()
    (out / "lora-bin/adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    (out / "lora-bin/adapter_model.bin").write_bytes(b"PK\x03\x04" + bytes(64))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1234567\n"
    (out / "lfs").mkdir()
    (out / "lfs/config.json").write_text(json.dumps(config))
    for shard in (1, 2, 3):
        (out / f"lfs/model-0000{shard}-of-00003.safetensors").write_text(pointer)
    (out / "lfs.h5").write_text(pointer)
    write_model(out / "lfs-tokenizer", post, config)
    (out / "lfs-tokenizer/tokenizer.json").write_text(pointer)
    for folder, name, content in (("bin", "pytorch_model-00001-of-00002.bin", b"PK\x03\x04" + bytes(64)),
                                  ("pth", "consolidated.00.pth", b"PK\x03\x04" + bytes(64)),
                                  ("gguf", "model-Q4_K_M.gguf", b"GGUF" + bytes(64)),
                                  ("flax", "flax_model.msgpack", bytes(64))):
        (out / folder).mkdir()
        (out / folder / "config.json").write_text(json.dumps(config))
        (out / folder / name).write_bytes(content)
    (out / "models--org--name/snapshots").mkdir(parents=True)


def make_data(out):
    """Data sets for a vocabulary of 64 and 64 positions."""
    out.mkdir(parents=True, exist_ok=True)
    good = random_samples(64)
    write_data(out / "good.h5", good)
    write_data(out / "token-large.h5", good[:2] + [[5, 64, 3]] + good[2:])
    write_data(out / "token-negative.h5", good[:2] + [[5, -1, 3]] + good[2:])
    write_data(out / "too-long.h5", good + [[1] * 65])
    write_data(out / "unscored.h5", good, [np.zeros(len(s)) for s in good])
    write_data(out / "one-token.h5", good + [[1]])
    raw = (out / "good.h5").read_bytes()
    (out / "truncated.h5").write_bytes(raw[:len(raw) // 2])
    (out / "text.h5").write_text("tokens\n")

    def edited(name, change):
        shutil.copy(out / "good.h5", out / f"{name}.h5")
        with h5py.File(out / f"{name}.h5", "r+") as file:
            change(file)

    def replace(key, values):
        def change(file):
            del file[key]
            if values is not None:
                file[key] = values
        return change

    tokens = np.concatenate(good).astype(np.int32)
    ends = np.cumsum([0] + [len(s) for s in good])
    edited("no-tokens", replace("tokens", None))
    edited("no-mask", replace("loss_mask", None))
    edited("no-offsets", replace("offsets", None))
    edited("token-type", replace("tokens", tokens.astype(np.float32)))
    edited("mask-short", replace("loss_mask", np.ones(3, np.uint8)))
    edited("mask-value", replace("loss_mask", np.full(len(tokens), 2, np.uint8)))
    edited("offset-falls", replace("offsets", np.concatenate([ends[:3], ends[1:2], ends[4:]])))
    edited("offset-beyond", replace("offsets", np.append(ends[:-1], ends[-1] + 5)))
    edited("offset-first", replace("offsets", np.append([1], ends[1:])))
    edited("offset-matrix", replace("offsets", ends.reshape(1, -1)))

    def empty(file):
        for key, dtype in (("tokens", np.int32), ("loss_mask", np.uint8), ("offsets", np.int64)):
            del file[key]
            file[key] = np.zeros(1 if key == "offsets" else 0, dtype)
    edited("empty", empty)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["llama", "plain", "broken", "data", "foreign"])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--pad", type=int, default=0, help="rows that only the post vocabulary has")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=0, help="of each data set of llama")
    parser.add_argument("--vocabulary", type=int, default=64)
    arguments = parser.parse_args()
    make = {"plain": make_plain, "broken": make_broken, "data": make_data,
            "foreign": make_foreign}
    if arguments.what == "llama":
        make_llama(arguments.out, arguments)
    else:
        make[arguments.what](arguments.out)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Turn PyTorch weights (.bin, .pth, .pt) or a GGUF file into a safetensors directory, which deltapath reads.

  convert_checkpoint.py SRC DST [--dtype float32|float16|bfloat16]

SRC is a file or the folder of a model: pytorch_model.bin, its shards with pytorch_model.bin.index.json, a PEFT
adapter in adapter_model.bin, one other .pth, .pt or .bin, or a .gguf (all parts of a split one).  DST is a new
folder; it gets its name when it is complete.

PyTorch: the values stay as they are, each shard becomes one, and files are mapped, not read whole, where torch can do
that (all but those from before torch 1.6).  A head that is the same tensor as the token embedding is left out, as
transformers does it.
GGUF: names, the order of rows of q and k, transposes, stacked experts and norms with 1 added are turned back into
those of transformers; blocks become float32, exactly, F32, F16 and BF16 stay.  config.json is made of the metadata.
Tokenizer and licence files are copied from where SRC lies.

--dtype rounds all floating-point tensors, once and to nearest: for pairs, whose tensors must be of one type.

Needs torch for PyTorch files, gguf (and numpy) for GGUF.  Exit codes: 0 done, 2 usage, 3 bad input, 4 output cannot be
written.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import sys

import outputs
from prepare_data import INPUT, OUTPUT, Bad, need, read_json
from tensor_files import FLOATS, PIECE, Tensor, write_safetensors

ROUNDED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
ADAPTER = "adapter_model.bin"
INDEX = "pytorch_model.bin.index.json"
COMPANION = re.compile(r"(generation_config\.json|special_tokens_map\.json|merges\.txt|added_tokens\.json|"
                       r"preprocessor_config\.json|processor_config\.json|adapter_config\.json|config\.json|"
                       r"(tokenizer|vocab|chat_template|LICENSE|LICENCE|NOTICE|USE_POLICY).*|.*\.model)")
NOT_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|rng_state|scaler|random_states).*")


# PyTorch


def load(torch, path: pathlib.Path):
    """What a file holds, mapped where its format allows that; nothing but tensors and plain containers is made."""
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        why = str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__
        raise Bad(INPUT, f"{path}: cannot be read as tensors alone ({why}): where you trust the file, load it in "
                         "Python and torch.save its state_dict") from e


def state_of(torch, path: pathlib.Path) -> dict:
    """Tensors by name; some trainers put them one level down."""
    whole = load(torch, path)
    for key in ("state_dict", "model", "module"):
        if isinstance(whole, dict) and isinstance(whole.get(key), dict):
            whole = whole[key]
            break
    if not isinstance(whole, dict):
        raise Bad(INPUT, f"{path}: holds no dictionary of tensors: torch.save the model's state_dict")
    tensors = {name: value for name, value in whole.items() if isinstance(value, torch.Tensor)}
    others = sorted(str(name) for name in whole.keys() - tensors.keys())
    if not tensors or any(not isinstance(name, str) for name in tensors):
        raise Bad(INPUT, f"{path}: holds no tensors by name: torch.save the model's state_dict")
    if others:
        print(f"{path}: left out, as no tensors: {', '.join(others[:5])}{' ...' if len(others) > 5 else ''}",
              file=sys.stderr)
    return tensors


def is_tied(config: dict) -> bool:
    """Whether the head may be the embedding; families differ in what they do when the key is absent."""
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else {}
    return config.get("tie_word_embeddings", text.get("tie_word_embeddings")) is not False


def heads_of(torch, tensors: dict, config: dict) -> set:
    """Heads that are the very storage of another tensor."""
    def place(t):
        return t.untyped_storage().data_ptr(), t.storage_offset(), tuple(t.shape), tuple(t.stride())
    places = {name: place(t) for name, t in tensors.items() if t.layout == torch.strided and t.numel() > 0}
    return {name for name, at in places.items()
            if re.search(r"(^|\.)(lm_head|embed_out)\.weight$", name) and is_tied(config)
            and any(at == other for another, other in places.items() if another != name)}


def torch_pieces(torch, t, dtype: str, where: str):
    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}.get(dtype, t.dtype)
    flat = t.detach().contiguous().reshape(-1)
    for at in range(0, flat.numel(), PIECE):
        part = flat[at:at + PIECE]
        out = part.to(kind)
        if out.dtype != part.dtype and bool((torch.isinf(out) & ~torch.isinf(part)).any()):
            raise Bad(INPUT, f"{where}: has values beyond the greatest of {dtype}: give --dtype bfloat16 or float32")
        yield out.contiguous().view(torch.uint8).numpy()


def torch_tensor(torch, path, name: str, t, dtype) -> Tensor:
    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
             torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int64: "I64", torch.int32: "I32",
             torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
    if t.layout != torch.strided or t.is_quantized or t.dtype not in names:
        raise Bad(INPUT, f"{path}: {name} is {t.dtype} ({t.layout}), which safetensors cannot hold: make it a dense "
                         "tensor of a plain type")
    kind = names[t.dtype]
    kind = dtype if dtype and kind in FLOATS else kind
    return Tensor(name, kind, tuple(t.shape), lambda: torch_pieces(torch, t, kind, f"{path}: {name}"))


def torch_shards(files: list, config: dict, dtype, listed: dict):
    """A list of tensors for each file, one file at a time."""
    torch = need("torch", "pip install torch")
    for path in files:
        tensors = state_of(torch, path)
        missing = sorted(name for name, file in listed.items() if file == path.name and name not in tensors)
        if missing:
            raise Bad(INPUT, f"{path}: has no tensor {missing[0]}, which the index says is there: fetch both again")
        left_out = heads_of(torch, tensors, config)
        yield [torch_tensor(torch, path, name, t, dtype) for name, t in tensors.items() if name not in left_out]
        del tensors


# Where the weights lie


def is_gguf(path: pathlib.Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"GGUF"


def split_of(path: pathlib.Path) -> list:
    """All parts of a split GGUF file."""
    found = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.gguf", path.name)
    if not found:
        return [path]
    parts = [path.with_name(f"{found[1]}-{i + 1:05}-of-{found[2]}.gguf") for i in range(int(found[2]))]
    for part in parts:
        if not part.is_file():
            raise Bad(INPUT, f"{part}: is missing, a part of {path.name}: fetch all parts")
    return parts


def listed_files(index: pathlib.Path) -> dict:
    """The file of each tensor."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise Bad(INPUT, f"{index}: has no weight_map: fetch it again")
    for name in listed.values():
        if not isinstance(name, str) or pathlib.PurePath(name).name != name or name in ("", ".", ".."):
            raise Bad(INPUT, f"{index}: names {name!r}, which is no file of its folder: fetch it again")
        if not (index.parent / name).is_file():
            raise Bad(INPUT, f"{index.parent / name}: is missing, though the index names it: fetch it")
    return listed


def files_of(folder: pathlib.Path):
    """The files with weights of a folder, and what its index lists."""
    if any(folder.glob("*.safetensors")):
        raise Bad(INPUT, f"{folder}: holds safetensors already: give it to deltapath as it is")
    if (folder / INDEX).exists():
        listed = listed_files(folder / INDEX)
        return [folder / name for name in sorted(set(listed.values()))], listed
    for name in ("pytorch_model.bin", ADAPTER):
        if (folder / name).exists():
            return [folder / name], {}
    ggufs = sorted(folder.glob("*.gguf"))
    others = [p for p in sorted(folder.iterdir())
              if p.suffix in (".bin", ".pth", ".pt") and not NOT_WEIGHTS.match(p.name)]
    found = split_of(ggufs[0]) if ggufs else others
    if len(ggufs or others) == 0:
        raise Bad(INPUT, f"{folder}: holds no .bin, .pth, .pt or .gguf: give the folder or the file of a model")
    if len(found) != len(ggufs or others) or (not ggufs and len(others) > 1):
        names = ", ".join(p.name for p in (ggufs or others)[:4])
        raise Bad(INPUT, f"{folder}: holds several files of weights and no index ({names}): name one, or put the parts "
                         "of one model together first")
    return found, {}


def sources_of(src: pathlib.Path):
    if src.is_dir():
        return files_of(src)
    if not src.is_file():
        raise Bad(INPUT, f"{src}: is no file or folder: check the path")
    if src.name.endswith(".index.json"):
        raise Bad(INPUT, f"{src}: is the index of a model: give the folder that holds it")
    if (src.parent / INDEX).exists() and src.name in listed_files(src.parent / INDEX).values():
        raise Bad(INPUT, f"{src}: is one of several shards: give the folder {src.parent}")
    return (split_of(src) if is_gguf(src) else [src]), {}


# The output


def copy_companions(folder: pathlib.Path, part: pathlib.Path, but: set) -> None:
    for path in sorted(folder.iterdir()):
        if COMPANION.fullmatch(path.name) and path.is_file() and path.name not in but:
            shutil.copyfile(path, part / path.name)


def write_model(part: pathlib.Path, shards, count: int, stem: str):
    """The files with weights, and an index where there are several."""
    total, where = 0, {}
    for i, tensors in enumerate(shards):
        name = f"{stem}.safetensors" if count == 1 else f"{stem}-{i + 1:05}-of-{count:05}.safetensors"
        for tensor in tensors:
            if tensor.name in where:
                raise Bad(INPUT, f"{tensor.name}: is in two files of weights: remove what is not the model")
            where[tensor.name] = name
        total += write_safetensors(part / name, tensors)
        tensors = None  # before the next shard is read
    if count > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        outputs.put(part / f"{stem}.safetensors.index.json", (json.dumps(index, indent=2) + "\n").encode())
    return total, len(where)


def fill(part: pathlib.Path, files: list, listed: dict, dtype):
    """All files of the new folder. Returns bytes and number of tensors."""
    folder = files[0].parent
    if is_gguf(files[0]):
        import gguf_model
        model = gguf_model.open_model(need("gguf", "pip install gguf"), files)
        out = write_model(part, (model.tensors(i, dtype) for i in range(len(files))), len(files), "model")
        copy_companions(folder, part, {"config.json"})
        config = json.dumps(model.config(dtype), indent=2, ensure_ascii=False) + "\n"
        outputs.put(part / "config.json", config.encode())
        if not (part / "tokenizer.json").exists():
            print(f"{files[0]}: no tokenizer.json lies next to it: copy those of the original model for its text",
                  file=sys.stderr)
        return out
    if len(files) > 1 and not listed:
        raise Bad(INPUT, f"{files[0]}: one of {len(files)} files without an index: put them together first")
    stem = "adapter_model" if files[0].name == ADAPTER else "model"
    shards = torch_shards(files, read_json(folder / "config.json"), dtype, listed)
    out = write_model(part, shards, len(files), stem)
    copy_companions(folder, part, set())
    if stem == "model" and not (part / "config.json").exists():
        print(f"{folder}: has no config.json: copy the model's, or deltapath can only edit", file=sys.stderr)
    return out


def convert(src: pathlib.Path, dst: pathlib.Path, dtype) -> None:
    files, listed = sources_of(src)
    folder = files[0].parent  # of one file: that of a model, or any
    outputs.check_new([dst], [src, *([folder] if (folder / "config.json").exists() else [])])
    outputs.check_place(dst)
    part = dst.with_name(f"{dst.name}.part{os.getpid()}")
    made = False
    try:
        dst.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        made = True
        total, count = fill(part, files, listed, dtype)
        handle = os.open(part, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        outputs.check_new([dst])
        part.rename(dst)
        made = False
    except OSError as e:
        raise Bad(OUTPUT, f"{e.filename or dst}: {e.strerror or e}: check permissions and disk space") from e
    finally:
        if made:
            shutil.rmtree(part, ignore_errors=True)
    print(f"{dst}: {count} tensors, {total / 1e9:.3f} GB in {len(files)} file{'s' if len(files) > 1 else ''}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("src", type=pathlib.Path)
    parser.add_argument("dst", type=pathlib.Path)
    parser.add_argument("--dtype", choices=sorted(ROUNDED))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary folder is removed
    try:
        convert(options.src, options.dst, ROUNDED.get(options.dtype))
    except (Bad, outputs.Refused) as e:
        print(f"convert_checkpoint.py: error: {e}", file=sys.stderr)
        return e.code if isinstance(e, Bad) else OUTPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())

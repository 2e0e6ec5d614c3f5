#!/usr/bin/env python3
"""Turn JSONL of prompts and responses into a deltapath data set (HDF5).

  prepare_data.py INPUT.jsonl --tokenizer DIR -o OUT.h5 [options]

One JSON object a line:
  --kind lm    {"prompt": ..., "response": ...}
  --kind dpo   {"prompt": ..., "chosen": ..., "rejected": ...}
A value is a string, or a list of token ids that are taken as they are. Other keys are ignored and named, but for
those that mean weights or clusters, which would go unseen: they are refused.

DIR is a HuggingFace tokenizer directory (tokenizer.json, as a rule the model's own directory).
Prompt and response are tokenised apart and joined, so the border never moves.

Output: tokens int32 [total], loss_mask uint8 [total], offsets int64 [n+1]; for dpo, these three
in each of the groups chosen and rejected.  loss_mask is 1 on response tokens: the tokens whose
prediction is scored.  The first token of a sample has nothing before it and is never scored.
The loss of a sample is the mean over its scored tokens, the loss of the set the mean over samples.
The file ends with a line that holds its checksum: --force replaces what has not changed since, and files
of which git has the bytes in HEAD.

Needs h5py and numpy (Debian: python3-h5py); `tokenizers` when values are strings; `transformers`
for --chat-template.  Exit codes: 0 done, 2 usage, 3 bad input, 4 output cannot be written.
"""
import argparse
import json
import math
import os
import pathlib
import re
import struct
import sys

import outputs

USAGE, INPUT, OUTPUT = 2, 3, 4


class Bad(Exception):
    """An error for the user: one line and an exit code."""

    def __init__(self, code: int, text: str):
        super().__init__(text)
        self.code = code


def need(module: str, remedy: str):
    try:
        return __import__(module)
    except ImportError as e:
        raise Bad(USAGE, f"{module}: {e}: {remedy}") from e


def read_json(path: pathlib.Path) -> dict:
    """A JSON object, or an empty one when the file does not exist."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise Bad(INPUT, f"{path}: cannot be read as JSON: {e}") from e
    if not isinstance(value, dict):
        raise Bad(INPUT, f"{path}: is not a JSON object")
    return value


def fnv(text: bytes) -> str:
    """FNV-1a of 64 bits, as 16 hexadecimal digits."""
    value = 0xcbf29ce484222325
    for byte in text:
        value = (value ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return f"{value:016x}"


def vocabulary_hash(path: pathlib.Path):
    """Which token each id stands for, as 16 hexadecimal digits: doc/formats.md, tokenizer_hash. None when
    the file does not say."""
    try:
        whole = read_json(path)
        vocab = whole["model"]["vocab"]
        pairs = {(i, t) for t, i in vocab.items()} if isinstance(vocab, dict) else {
            (i, entry[0]) for i, entry in enumerate(vocab)}
        pairs |= {(added["id"], added["content"]) for added in whole.get("added_tokens") or []}
        lines = sorted((i, t.encode()) for i, t in pairs)
        if not lines or any(type(i) is not int for i, _ in lines):
            return None
    except (Bad, KeyError, TypeError, AttributeError, IndexError, UnicodeEncodeError):
        return None
    return fnv(b"".join(b"%d\t%s\n" % line for line in lines))


def canonical(value) -> str:
    """JSON as one text: no spaces, keys sorted by their bytes, UTF-8 as it is but for quotes, backslashes and
    control characters, which are \\u00xx; 0x and the 16 digits of its bits for a float."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        if not -2**63 <= value < 2**63:
            raise ValueError("an integer beyond 64 bits")
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("no finite number")
        return f"0x{struct.pack('>d', value).hex()}"
    if isinstance(value, str):
        return '"' + re.sub(r'[\x00-\x1f"\\]', lambda c: f"\\u{ord(c[0]):04x}", value) + '"'
    if isinstance(value, list):
        return f"[{','.join(map(canonical, value))}]"
    keys = sorted(value, key=str.encode)
    return "{" + ",".join(f"{canonical(k)}:{canonical(value[k])}" for k in keys) + "}"


def rules_text(directory: pathlib.Path):
    """The canonical text of what decides marks at the start and the end, normalisation, splitting and added
    tokens: doc/formats.md, tokenizer_rules. None when the files do not say."""
    try:
        whole = read_json(directory / "tokenizer.json")
        config = read_json(directory / "tokenizer_config.json")
        rules = {key: whole.get(key) for key in ("added_tokens", "normalizer", "post_processor",
                                                 "pre_tokenizer")}
        rules |= {key: config.get(key) for key in ("add_bos_token", "add_eos_token")}
        for key in ("bos_token", "eos_token"):
            token = config.get(key)
            rules[key] = token.get("content") if isinstance(token, dict) else token
        return canonical(rules).encode()
    except (Bad, ValueError, RecursionError):
        return None


class Tokens:
    """Text to token ids, by the tokenizer of a directory; loaded at the first string."""

    def __init__(self, directory: pathlib.Path, options):
        if not directory.is_dir():
            raise Bad(INPUT, f"{directory}: no such directory: give --tokenizer a model directory")
        self.directory, self.options = directory, options
        self.config = read_json(directory / "config.json")
        self.names = {**read_json(directory / "special_tokens_map.json"),
                      **read_json(directory / "tokenizer_config.json")}
        self.tokenizer = self.chat = self.marks = None
        self.vocab = options.vocab_size or self.config.get("vocab_size")
        if options.chat_template:
            transformers = need("transformers", "install it, or leave out --chat-template")
            self.chat = transformers.AutoTokenizer.from_pretrained(directory)
            if not getattr(self.chat, "chat_template", None):
                raise Bad(INPUT, f"{directory}: the tokenizer has no chat template: "
                                 "leave out --chat-template")

    def load(self) -> None:
        tokenizers = need("tokenizers", "pip install tokenizers, or give lists of token ids")
        path = self.directory / "tokenizer.json"
        if not path.is_file():
            raise Bad(INPUT, f"{path}: no such file: a fast tokenizer is needed")
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as e:  # the library raises bare Exception
            raise Bad(INPUT, f"{path}: not a tokenizer: {e}") from e
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        if self.vocab is None:
            self.vocab = self.tokenizer.get_vocab_size()

    def special(self, key: str) -> int:
        """Id of bos_token or eos_token, by its name in the tokenizer, else from config.json."""
        name = self.names.get(key)
        name = name.get("content") if isinstance(name, dict) else name
        if name is not None:
            if self.tokenizer is None:
                self.load()
            found = self.tokenizer.token_to_id(name)
            if found is not None:
                return found
        found = self.config.get(f"{key}_id")
        found = found[0] if isinstance(found, list) and found else found
        if not isinstance(found, int):
            raise Bad(INPUT, f"{self.directory}: no {key} in tokenizer_config.json or config.json: "
                             "leave out --append-eos, or use --bos no")
        return found

    def start(self) -> list:
        """The marks that the tokenizer itself puts before a text, such as its bos token."""
        if self.marks is None:
            with_marks = self.tokenizer.encode("a").ids
            plain = self.tokenizer.encode("a", add_special_tokens=False).ids
            at = next((i for i in range(len(with_marks) - len(plain) + 1)
                       if with_marks[i:i + len(plain)] == plain), 0)
            self.marks = with_marks[:at]
        return self.marks

    def encode(self, value) -> list:
        if isinstance(value, list):
            return list(value)
        if self.tokenizer is None:
            self.load()
        return self.tokenizer.encode(value, add_special_tokens=False).ids

    def prompt(self, value) -> list:
        if self.chat is not None and isinstance(value, str):
            text = self.chat.apply_chat_template([{"role": "user", "content": value}],
                                                 add_generation_prompt=True, tokenize=False)
            return self.encode(text)  # the template writes its own bos
        ids = self.encode(value)
        if self.options.bos == "yes":
            return [self.special("bos_token")] + ids
        return self.start() + ids if self.options.bos == "auto" and isinstance(value, str) else ids

    def response(self, value) -> list:
        ids = self.encode(value)
        return ids + [self.special("eos_token")] if self.options.append_eos else ids


def check_value(where: str, record: dict, key: str):
    if key not in record:
        raise Bad(INPUT, f"{where}: key \"{key}\" is missing: has {sorted(record)}")
    value = record[key]
    if isinstance(value, list):
        if all(type(v) is int for v in value):
            return value
    elif isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as e:
            raise Bad(INPUT, f"{where}: \"{key}\" holds half a character, the surrogate \\u{ord(value[e.start]):04x}, at place "
                             f"{e.start}: write the whole character, or leave the line out") from e
        return value
    raise Bad(INPUT, f"{where}: \"{key}\" is neither a string nor a list of token ids")


def check_cluster(where: str, record: dict, key: str):
    if key not in record:
        raise Bad(INPUT, f"{where}: key \"{key}\" of --cluster is missing: has {sorted(record)}")
    value = record[key]
    if type(value) not in (int, str):
        raise Bad(INPUT, f"{where}: \"{key}\" of --cluster is neither a string nor an integer")
    return value


def distance(a: str, b: str) -> int:
    """Letters to insert, remove, change or swap until one word is the other: dpt_nearest_distance."""
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        rows.append([i])
        for j, y in enumerate(b, 1):
            cost = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, rows[i - 2][j - 2] + 1)
            rows[i].append(cost)
    return rows[-1][-1]


REMEDIES = {"weights": "weights are a data set of the HDF5 file (doc/formats.md): rename the key, or remove it",
            "cluster": "give --cluster \"{}\", or rename the key, or remove it"}


def check_other_key(where: str, key: str) -> None:
    """A key that is not read must not look as if it were: as near to a name as `run` allows for one in the HDF5 file."""
    word = key.lower()
    for name, remedy in REMEDIES.items():
        near = len(word) < 32 and distance(word, name) <= min(len(word) // 3, 3)
        if near or (len(word) >= 3 and name.startswith(word)):
            raise Bad(INPUT, f"{where}: the key \"{key}\" is not read, and would go unseen: {remedy.format(key)}")


def note_ignored(ignored: dict) -> None:
    if ignored:
        print("prepare_data.py: note: keys that are ignored: " + ", ".join(
            f"\"{key}\" ({lines} {'line' if lines == 1 else 'lines'})" for key, lines in ignored.items()), file=sys.stderr)


def once(pairs):
    """A JSON object whose keys stand once each."""
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))
        raise ValueError(f"the key \"{twice}\" stands twice")
    return record


def read_records(path: pathlib.Path, keys):
    """Yields (where, record, values of the keys) of each line that is not blank."""
    if path.exists() and not path.is_file():
        raise Bad(INPUT, f"{path}: no regular file: give the path of a JSONL file")
    try:
        with open(path, "rb") as f:
            for number, raw in enumerate(f, 1):
                where = f"{path}:{number}"
                try:
                    line = raw.decode("utf-8")
                    record = json.loads(line, object_pairs_hook=once) if line.strip() else None
                except (ValueError, RecursionError) as e:
                    raise Bad(INPUT, f"{where}: not JSON: {e}") from e
                if record is None:
                    continue
                if not isinstance(record, dict):
                    raise Bad(INPUT, f"{where}: not a JSON object")
                yield where, record, [check_value(where, record, k) for k in keys]
    except OSError as e:
        raise Bad(INPUT, f"{path}: {e.strerror}") from e


def join(where: str, prompt: list, response: list, tok: Tokens, options):
    """Tokens, mask and whether it was cut of one sample; None when it is too long and to be dropped."""
    ids = prompt + response
    mask = [0] * len(prompt) + [1] * len(response)
    if mask:
        mask[0] = 0
    overlong = options.max_length and len(ids) > options.max_length
    if overlong:
        if options.overlong == "drop":
            return None
        ids, mask = ids[:options.max_length], mask[:options.max_length]
    if options.kind == "lm" and options.append_eos and len(response) == 1:
        raise Bad(INPUT, f"{where}: the response is empty but for its end mark: leave the line out")
    if not any(mask):
        raise Bad(INPUT, f"{where}: no token is scored: the response is empty"
                         + (", or cut away by --max-length" if options.max_length else ""))
    limit = tok.vocab or 2**31
    for t in ids:
        if not 0 <= t < limit:
            raise Bad(INPUT, f"{where}: token id {t} is outside the vocabulary of {limit}: "
                             "is it the model's own tokenizer?")
    return ids, mask, bool(overlong)


# Kinds of data sets of text: the groups of the file, and the key of the record that each holds.
KINDS = {"lm": {"": "response"}, "dpo": {"chosen": "chosen", "rejected": "rejected"}}


def build(options, tok: Tokens):
    """Samples by group name: lm has one group "", dpo has chosen and rejected.  The cluster of each, and how
    many were dropped, and of each group cut."""
    names = KINDS[options.kind]
    groups = {g: [] for g in names}
    clusters, numbers, ignored = [], {}, {}
    dropped, cut = 0, dict.fromkeys(names, 0)
    for where, record, values in read_records(options.input, ["prompt", *names.values()]):
        for key in record.keys() - {"prompt", *names.values(), options.cluster}:
            if key not in ignored:
                check_other_key(where, key)
            ignored[key] = ignored.get(key, 0) + 1
        prompt = tok.prompt(values[0])
        sides = [join(where, prompt, tok.response(v), tok, options) for v in values[1:]]
        if None in sides:
            dropped += 1
            continue
        if options.cluster is not None:
            clusters.append(numbers.setdefault(check_cluster(where, record, options.cluster), len(numbers)))
        for group, side in zip(groups, sides):
            groups[group].append(side[:2])
            cut[group] += side[2]
    note_ignored(dict(sorted(ignored.items())))
    if not all(groups.values()):
        raise Bad(INPUT, f"{options.input}: no samples" + (
            f": all {dropped} are longer than --max-length" if dropped else ": the file is empty"))
    return groups, clusters, dropped, cut


def check_output(options) -> None:
    """An input is never an output, and only a data set that this tool wrote, unchanged, is replaced."""
    output = options.output
    outputs.check_inputs(output, [options.input, options.tokenizer])
    outputs.check_place(output)
    if output.is_file() and not output.is_symlink() and not options.force:
        raise Bad(OUTPUT, f"{output}: exists already: remove it or give --force")
    outputs.check(output)


def write(options, tok: Tokens, groups: dict, clusters: list) -> None:
    """Under a temporary name first, then renamed."""
    h5py = need("h5py", "install python3-h5py")
    numpy = need("numpy", "install python3-numpy")
    part = options.output.with_name(options.output.name + f".part{os.getpid()}")
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise Bad(OUTPUT, f"{options.output.parent}: the folder cannot be made: {e.strerror}") from e
    try:
        with h5py.File(part, "x") as f:
            f.attrs["format"] = numpy.bytes_("deltapath-data")
            f.attrs["version"] = numpy.int32(1)
            f.attrs["kind"] = numpy.bytes_(options.kind)
            f.attrs["tokenizer"] = numpy.bytes_(tok.directory.resolve().name.encode())
            digits = vocabulary_hash(tok.directory / "tokenizer.json")
            if digits:
                f.attrs["tokenizer_hash"] = numpy.bytes_(digits)
                rules = rules_text(tok.directory)
                if rules is not None:
                    f.attrs["tokenizer_rules"] = numpy.bytes_(fnv(rules))
            f.attrs["source"] = numpy.bytes_(options.input.name.encode())
            if tok.vocab:
                f.attrs["vocab_size"] = numpy.int64(tok.vocab)
            for name, samples in groups.items():
                group = f.require_group(name) if name else f
                offsets = numpy.cumsum([0] + [len(ids) for ids, _ in samples])
                group["tokens"] = numpy.concatenate(
                    [numpy.array(ids, numpy.int32) for ids, _ in samples])
                group["loss_mask"] = numpy.concatenate(
                    [numpy.array(mask, numpy.uint8) for _, mask in samples])
                group["offsets"] = offsets.astype(numpy.int64)
            if clusters:
                f["cluster"] = numpy.array(clusters, numpy.int64)
        part.write_bytes((whole := part.read_bytes()) + outputs.seal_of(whole))
        check_output(options)
        os.replace(part, options.output)
    except FileExistsError as e:
        raise Bad(OUTPUT, f"{part}: is in the way: move it away") from e
    except (OSError, Bad, outputs.Refused) as e:
        part.unlink(missing_ok=True)
        if not isinstance(e, OSError):
            raise
        raise Bad(OUTPUT, f"{options.output}: cannot be written: {e}") from e


def parse(argv):
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("input", type=pathlib.Path)
    ap.add_argument("--tokenizer", type=pathlib.Path, required=True, metavar="DIR")
    ap.add_argument("-o", "--output", type=pathlib.Path, required=True)
    ap.add_argument("--kind", choices=tuple(KINDS), default="lm")
    ap.add_argument("--max-length", type=int, metavar="N", help="longest sample in tokens")
    ap.add_argument("--overlong", choices=("drop", "cut"), default="drop",
                    help="what happens to longer samples (default: drop)")
    ap.add_argument("--append-eos", action="store_true", help="end each response with eos, scored")
    ap.add_argument("--bos", choices=("auto", "yes", "no"), default="auto",
                    help="bos before string prompts; auto: as the tokenizer does")
    ap.add_argument("--chat-template", action="store_true",
                    help="wrap prompts in the tokenizer's chat template (needs transformers)")
    ap.add_argument("--vocab-size", type=int, metavar="N",
                    help="default: config.json of DIR, else the tokenizer's")
    ap.add_argument("--cluster", metavar="KEY",
                    help="samples with the same value of this key, a string or an integer, belong together")
    ap.add_argument("--force", action="store_true", help="replace an existing output")
    options = ap.parse_args(argv)
    if options.max_length is not None and options.max_length < 2:
        raise Bad(USAGE, "--max-length: must be at least 2")
    if options.vocab_size is not None and options.vocab_size < 1:
        raise Bad(USAGE, "--vocab-size: must be at least 1")
    return options


def main(argv=None) -> int:
    try:
        options = parse(argv)
        check_output(options)
        tok = Tokens(options.tokenizer, options)
        groups, clusters, dropped, cut = build(options, tok)
        write(options, tok, groups, clusters)
    except (Bad, outputs.Refused) as e:
        print(f"prepare_data.py: error: {e}", file=sys.stderr)
        return e.code if isinstance(e, Bad) else OUTPUT
    for name, samples in groups.items():
        scored = sum(sum(mask) for _, mask in samples)
        print(f"{options.output}{':' + name if name else ''}: {len(samples)} samples, "
              f"{sum(len(ids) for ids, _ in samples)} tokens, {scored} scored"
              + (f", {dropped} longer ones dropped" if dropped else "")
              + (f", {len(set(clusters))} clusters" if clusters else "")
              + (f", {cut[name]} cut to --max-length, without what came after it" if cut[name] else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())

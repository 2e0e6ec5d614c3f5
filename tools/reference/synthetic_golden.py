"""Write tests/golden/synthetic_golden.h: values of synthetic models (doc/formats.md), of this file's own Philox in
integers of any length, the xxhash package and PyTorch's roundings.
Run: python tools/reference/synthetic_golden.py > tests/golden/synthetic_golden.h"""
import math

import torch
import xxhash

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
VALUES, DELTA = 7, 8  # purposes of the streams
CASES = [  # name, type, seed, mean, deviation, delta, first elements of runs
    ("model.layers.0.mlp.down_proj.weight", "BF16", 0, 0.0, 0.0059, 0.0, [0, 1048573, 7 * 10**9 + 1]),
    ("model.layers.0.mlp.down_proj.weight", "BF16", 0, 0.0, 0.0059, 0.01, [0, 1048573, 7 * 10**9 + 1]),
    ("model.norm.weight", "F32", 5, 1.0, 0.02, 0.25, [0, 3]),
    ("x", "F16", 2**40 + 1, -0.5, 2.0, 1.0, [0, 2**33]),
]
RUN = 6


def philox(counter, key):
    a, b, c, d = counter
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ key[0], q % 2**32, (p >> 32) ^ d ^ key[1], p % 2**32
        key = (key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32
    return a, b, c, d


def total(name, seed, purpose, element):
    """Sum of the bytes of an element's word, less its mean."""
    key = xxhash.xxh3_64_intdigest(name.encode()) ^ seed * 0x9E3779B97F4A7C15 % 2**64
    block = element // 4
    word = philox((block % 2**32, block >> 32, purpose, 0), (key % 2**32, key >> 32))[element % 4]
    return sum(word.to_bytes(4, "little")) - 510


def value(case, element):
    name, dtype, seed, mean, deviation, delta, _ = case
    unit = math.sqrt(4 * (256**2 - 1) / 12)
    fp32 = lambda x: torch.tensor(x, dtype=torch.float32)
    base = fp32(mean) + fp32(deviation / unit) * fp32(float(total(name, seed, VALUES, element)))
    base = base.to(TYPES[dtype])
    if delta:
        step = fp32(deviation * float(fp32(delta)) / unit)
        base = (base.float() + step * fp32(float(total(name, seed, DELTA, element)))).to(TYPES[dtype])
    return base.float().item()


def main():
    print("/* Made by tools/reference/synthetic_golden.py. */")
    print("static const struct {\n    const char *name, *dtype;\n    int64_t seed;\n"
          "    double mean, deviation, delta;\n    int64_t ig;\n    float values[%d];\n} synthetic_golden[] = {" % RUN)
    for case in CASES:
        for first in case[6]:
            numbers = ", ".join(float.hex(value(case, first + i)) + "F" for i in range(RUN))
            print(f'    {{"{case[0]}", "{case[1]}", INT64_C({case[2]}), {case[3]!r}, {case[4]!r}, {case[5]!r}, '
                  f"INT64_C({first}),\n     {{{numbers}}}}},")
    print("};")


if __name__ == "__main__":
    main()

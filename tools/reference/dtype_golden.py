"""Write tests/golden/dtype_golden.h: sums over conversions made by PyTorch, an implementation
independent of ours. Run: python tools/reference/dtype_golden.py > tests/golden/dtype_golden.h"""
import numpy as np
import torch

U32, U64 = np.uint32, np.uint64


def check(codes):
    """Sum of (code + 1) * (2654435761 i + 1) modulo 2^64."""
    i = np.arange(codes.size, dtype=U64)
    return int(((codes.astype(U64) + U64(1)) * (i * U64(2654435761) + U64(1))).sum(dtype=U64))


def widened(dtype):
    """fp32 bits of all 65536 codes, NaN as 0x7fc00000."""
    codes = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    codes = torch.cat([codes[32768:], codes[:32768]])
    values = codes.view(dtype).to(torch.float32)
    bits = values.view(torch.int32).numpy().view(U32).copy()
    bits[torch.isnan(values).numpy()] = 0x7FC00000
    return bits


def inputs(bits):
    """Random patterns, then every code with its half-way points and their neighbours."""
    i = np.arange(1 << 20, dtype=U64)
    mixed = ((i + U64(1)) * U64(0x9E3779B97F4A7C15)) >> U64(32)
    parts = [mixed.astype(U32)]
    for half in (0x1000, 0x8000):
        for off in (-1, 0, 1):
            parts.append((bits.astype(np.int64) + half + off).astype(U32))
    k = np.arange(2048, dtype=np.float64)
    middle = ((k + 0.5) * 2.0**-24).astype(np.float32).view(U32)  # between f16 subnormals
    for off in (-1, 0, 1):
        parts.append((middle.astype(np.int64) + off).astype(U32))
        parts.append((middle.astype(np.int64) + off).astype(U32) | U32(0x80000000))
    return np.concatenate(parts)


def narrowed(bits, dtype, nan):
    values = torch.from_numpy(bits.view(np.int32).copy()).view(torch.float32)
    codes = values.to(dtype).view(torch.int16).numpy().view(np.uint16).copy()
    codes[torch.isnan(values).numpy()] = nan
    return codes


bf16, f16 = widened(torch.bfloat16), widened(torch.float16)
print("/* Made by tools/reference/dtype_golden.py with PyTorch %s. */" % torch.__version__.split("+")[0])
print("#define GOLDEN_BF16_TO_F32 UINT64_C(%d)" % check(bf16))
print("#define GOLDEN_F16_TO_F32 UINT64_C(%d)" % check(f16))
print("#define GOLDEN_F32_TO_BF16 UINT64_C(%d)" % check(narrowed(inputs(bf16), torch.bfloat16, 0x7FC0)))
print("#define GOLDEN_F32_TO_F16 UINT64_C(%d)" % check(narrowed(inputs(f16), torch.float16, 0x7E00)))

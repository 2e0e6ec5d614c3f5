#include "deltapath/tensor/dtype.h"

#include <string.h>

#ifdef __F16C__
#include <immintrin.h>
#endif

static const struct {
    const char *name;
    int64_t size;
} types[DPT_DTYPE_COUNT] = {
    [DPT_F32] = {"F32", 4},   [DPT_F16] = {"F16", 2},         [DPT_BF16] = {"BF16", 2},
    [DPT_F64] = {"F64", 8},   [DPT_I64] = {"I64", 8},         [DPT_I32] = {"I32", 4},
    [DPT_I16] = {"I16", 2},   [DPT_I8] = {"I8", 1},           [DPT_U8] = {"U8", 1},
    [DPT_BOOL] = {"BOOL", 1}, [DPT_F8_E4M3] = {"F8_E4M3", 1}, [DPT_F8_E5M2] = {"F8_E5M2", 1},
};

int64_t dpt_dtype_size(dpt_dtype dtype) {
    return types[dtype].size;
}

const char *dpt_dtype_name(dpt_dtype dtype) {
    return types[dtype].name;
}

bool dpt_dtype_parse(const char *name, dpt_dtype *out) {
    static const struct {
        const char *name;
        dpt_dtype dtype;
    } aliases[] = {{"f32", DPT_F32},     {"float32", DPT_F32}, {"f16", DPT_F16},
                   {"float16", DPT_F16}, {"bf16", DPT_BF16},   {"bfloat16", DPT_BF16}};
    for (int i = 0; i < DPT_DTYPE_COUNT; i++)
        if (strcmp(name, types[i].name) == 0) {
            *out = (dpt_dtype)i;
            return true;
        }
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        if (strcmp(name, aliases[i].name) == 0) {
            *out = aliases[i].dtype;
            return true;
        }
    return false;
}

bool dpt_dtype_editable(dpt_dtype dtype) {
    return dtype == DPT_F32 || dtype == DPT_F16 || dtype == DPT_BF16;
}

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint16_t load16(const unsigned char *stored, int64_t i) {
    uint16_t code;
    memcpy(&code, stored + 2 * i, sizeof code);
    return code;
}

static inline void store16(unsigned char *stored, int64_t i, uint16_t code) {
    memcpy(stored + 2 * i, &code, sizeof code);
}

static void bf16_to_f32(const unsigned char *stored, float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        values[i] = float_of((uint32_t)load16(stored, i) << 16);
}

static void bf16_from_f32(const float *values, unsigned char *stored, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = bits_of(values[i]);
        /* A carry out of the mantissa raises the exponent, at the end to infinity: as it should. */
        uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        uint32_t quiet = (bits >> 16) | 0x40;
        bool nan = (bits & 0x7fffffff) > 0x7f800000;
        store16(stored, i, (uint16_t)(nan ? quiet : rounded));
    }
}

/* One f16 code as the F16C instruction converts it; a signalling NaN becomes quiet. */
static inline float f16_widen(uint16_t code) {
    uint32_t sign = (uint32_t)(code & 0x8000) << 16;
    uint32_t rest = code & 0x7fff;
    uint32_t bits;
    if (rest >= 0x7c00)
        bits = 0x7f800000 | (rest & 0x3ff) << 13 | (rest > 0x7c00 ? 0x400000 : 0);
    else if (rest >= 0x400)
        bits = (rest << 13) + (UINT32_C(112) << 23);
    else
        bits = bits_of((float)rest * 0x1p-24F);
    return float_of(sign | bits);
}

static inline uint16_t f16_narrow(float value) {
    uint32_t bits = bits_of(value);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t rest = bits & 0x7fffffff;
    uint32_t code;
    if (rest > 0x7f800000)
        code = 0x7e00 | (rest >> 13 & 0x3ff);
    else if (rest >= 0x477ff000) /* 65520 and above round to infinity */
        code = 0x7c00;
    else if (rest < 0x38800000) /* subnormal: one ulp of 0.5 is the least f16, the sum rounds */
        code = bits_of(float_of(rest) + 0.5F) - UINT32_C(0x3f000000);
    else
        code = (rest + 0xfff + (rest >> 13 & 1) - (UINT32_C(112) << 23)) >> 13;
    return (uint16_t)(sign | code);
}

static void f16_to_f32(const unsigned char *stored, float *values, int64_t n) {
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16) {
        __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(stored + 2 * i));
        _mm512_storeu_ps(values + i, _mm512_cvtph_ps(codes));
    }
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8) {
        __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)(stored + 2 * i));
        _mm256_storeu_ps(values + i, _mm256_cvtph_ps(codes));
    }
#endif
    for (; i < n; i++)
        values[i] = f16_widen(load16(stored, i));
}

static void f16_from_f32(const float *values, unsigned char *stored, int64_t n) {
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16) {
        __m256i codes = _mm512_cvtps_ph(_mm512_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
        _mm256_storeu_si256((__m256i *)(void *)(stored + 2 * i), codes);
    }
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8) {
        __m128i codes = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(stored + 2 * i), codes);
    }
#endif
    for (; i < n; i++)
        store16(stored, i, f16_narrow(values[i]));
}

/* The code as the exponent and mantissa of an f32, whose bias is 120 more; subnormals come out right too. */
static void e4m3_to_f32(const unsigned char *stored, float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t sign = (uint32_t)(stored[i] & 0x80) << 24;
        uint32_t rest = stored[i] & 0x7f;
        uint32_t bits = bits_of(float_of(rest << 20) * 0x1p120F);
        values[i] = float_of(sign | (rest == 0x7f ? 0x7fc00000 : bits));
    }
}

/* An f16 without its lower byte. */
static void e5m2_to_f32(const unsigned char *stored, float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        values[i] = f16_widen((uint16_t)(stored[i] << 8));
}

/* Bits of mantissa, bias of the exponent, code of the largest number and of NaN. */
typedef struct eight_bits {
    uint32_t mantissa, bias, most, nan;
} eight_bits;

static void f8_from_f32(eight_bits kind, const float *values, unsigned char *stored, int64_t n) {
    uint32_t shift = 23 - kind.mantissa;
    uint32_t least = (UINT32_C(128) - kind.bias) << 23; /* normal number */
    /* Whose last bit is the least subnormal: the sum rounds. */
    uint32_t adder = (UINT32_C(128) - kind.bias + shift) << 23;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = bits_of(values[i]);
        uint32_t rest = bits & 0x7fffffff;
        uint32_t subnormal = bits_of(float_of(rest) + float_of(adder)) - adder;
        uint32_t half = (UINT32_C(1) << (shift - 1)) - 1 + (rest >> shift & 1);
        uint32_t normal = (rest + half - ((UINT32_C(127) - kind.bias) << 23)) >> shift;
        uint32_t code = rest < least ? subnormal : normal;
        code = rest > 0x7f800000 ? kind.nan : code > kind.most ? kind.most : code;
        stored[i] = (unsigned char)((bits >> 24 & 0x80) | code);
    }
}

static void i8_to_f32(const unsigned char *stored, float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)(stored[i] < 0x80 ? stored[i] : stored[i] - 0x100);
}

void dpt_dtype_to_f32(dpt_dtype dtype, const void *stored, float *values, int64_t n) {
    if (n <= 0)
        return;
    if (dtype == DPT_F32)
        memcpy(values, stored, (size_t)n * sizeof *values);
    else if (dtype == DPT_BF16)
        bf16_to_f32(stored, values, n);
    else if (dtype == DPT_F16)
        f16_to_f32(stored, values, n);
    else if (dtype == DPT_F8_E4M3)
        e4m3_to_f32(stored, values, n);
    else if (dtype == DPT_F8_E5M2)
        e5m2_to_f32(stored, values, n);
    else if (dtype == DPT_I8)
        i8_to_f32(stored, values, n);
}

void dpt_dtype_from_f32(dpt_dtype dtype, const float *values, void *stored, int64_t n) {
    if (n <= 0)
        return;
    if (dtype == DPT_F32)
        memcpy(stored, values, (size_t)n * sizeof *values);
    else if (dtype == DPT_BF16)
        bf16_from_f32(values, stored, n);
    else if (dtype == DPT_F16)
        f16_from_f32(values, stored, n);
    else if (dtype == DPT_F8_E4M3)
        f8_from_f32((eight_bits){3, 7, 0x7e, 0x7f}, values, stored, n);
    else if (dtype == DPT_F8_E5M2)
        f8_from_f32((eight_bits){2, 15, 0x7b, 0x7f}, values, stored, n);
}

/* Whether one of n codes has every exponent bit set; the loops have no exit so that they vectorise. */
static bool any_exponent16(const unsigned char *stored, int64_t n, uint16_t exponent) {
    unsigned found = 0;
    for (int64_t i = 0; i < n; i++)
        found |= (load16(stored, i) & exponent) == exponent;
    return found != 0;
}

static bool any_exponent32(const unsigned char *stored, int64_t n, uint32_t exponent) {
    unsigned found = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t code;
        memcpy(&code, stored + 4 * i, sizeof code);
        found |= (code & exponent) == exponent;
    }
    return found != 0;
}

static bool any_exponent64(const unsigned char *stored, int64_t n, uint64_t exponent) {
    unsigned found = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t code;
        memcpy(&code, stored + 8 * i, sizeof code);
        found |= (code & exponent) == exponent;
    }
    return found != 0;
}

/* F8_E4M3 has no infinity, and NaN only with all bits set. */
static bool any_exponent8(const unsigned char *stored, int64_t n, uint8_t exponent) {
    unsigned found = 0;
    for (int64_t i = 0; i < n; i++)
        found |= (stored[i] & exponent) == exponent;
    return found != 0;
}

static bool any_nonfinite(dpt_dtype dtype, const unsigned char *stored, int64_t n) {
    switch (dtype) {
    case DPT_F32:
        return any_exponent32(stored, n, 0x7f800000);
    case DPT_F16:
        return any_exponent16(stored, n, 0x7c00);
    case DPT_BF16:
        return any_exponent16(stored, n, 0x7f80);
    case DPT_F64:
        return any_exponent64(stored, n, UINT64_C(0x7ff0000000000000));
    case DPT_F8_E4M3:
        return any_exponent8(stored, n, 0x7f);
    case DPT_F8_E5M2:
        return any_exponent8(stored, n, 0x7c);
    default:
        return false;
    }
}

int64_t dpt_dtype_find_nonfinite(dpt_dtype dtype, const void *stored, int64_t n) {
    enum { BLOCK = 4096 };
    const unsigned char *bytes = stored;
    int64_t size = dpt_dtype_size(dtype);
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t count = n - at < BLOCK ? n - at : BLOCK;
        if (!any_nonfinite(dtype, bytes + at * size, count))
            continue;
        for (int64_t i = at;; i++)
            if (any_nonfinite(dtype, bytes + i * size, 1))
                return i;
    }
    return -1;
}

int64_t dpt_dtype_find_overflow(dpt_dtype dtype, const float *values, const void *stored,
                                int64_t n) {
    int64_t size = dpt_dtype_size(dtype);
    for (int64_t at = 0; at < n; at++) {
        int64_t found = dpt_dtype_find_nonfinite(dtype, (const char *)stored + at * size, n - at);
        if (found < 0)
            return -1;
        at += found;
        if ((bits_of(values[at]) & 0x7f800000) != 0x7f800000)
            return at;
    }
    return -1;
}

int64_t dpt_dtype_count_lost(dpt_dtype dtype, const float *values, const void *stored, int64_t n) {
    const unsigned char *bytes = stored;
    int64_t lost = 0;
    if (dpt_dtype_size(dtype) != 2)
        return 0;
    for (int64_t i = 0; i < n; i++)
        lost += (load16(bytes, i) & 0x7fff) == 0 && (bits_of(values[i]) & 0x7fffffff) != 0;
    return lost;
}

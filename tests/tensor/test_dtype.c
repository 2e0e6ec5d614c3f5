/* ranks: 1 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "deltapath/tensor/dtype.h"
#include "golden/dtype_golden.h"

enum { CODES = 65536, RANDOM = 1 << 20, MIDDLES = 2048, INPUTS = RANDOM + 6 * CODES + 6 * MIDDLES };

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint64_t weigh(uint64_t code, int64_t i) {
    return (code + 1) * ((uint64_t)i * 2654435761U + 1);
}

/* All codes in one call, and one by one, which takes the path of the loop's tail. */
static uint64_t widen_all(dpt_dtype dtype, uint32_t *bits) {
    static uint16_t codes[CODES];
    static float values[CODES];
    uint64_t sum = 0;
    for (int i = 0; i < CODES; i++)
        codes[i] = (uint16_t)i;
    dpt_dtype_to_f32(dtype, codes, values, CODES);
    for (int i = 0; i < CODES; i++) {
        float single;
        dpt_dtype_to_f32(dtype, &codes[i], &single, 1);
        assert_int_equal(bits_of(single), bits_of(values[i]));
        bits[i] = isnan(values[i]) ? 0x7fc00000 : bits_of(values[i]);
        sum += weigh(bits[i], i);
    }
    return sum;
}

/* The inputs of tools/reference/dtype_golden.py. */
static void make_inputs(const uint32_t *codes, uint32_t *bits) {
    int64_t n = 0;
    for (uint64_t i = 0; i < RANDOM; i++)
        bits[n++] = (uint32_t)((i + 1) * UINT64_C(0x9E3779B97F4A7C15) >> 32);
    for (uint32_t half = 0x1000; half <= 0x8000; half *= 8)
        for (uint32_t off = 0; off < 3; off++)
            for (int i = 0; i < CODES; i++)
                bits[n++] = codes[i] + half + off - 1;
    for (uint32_t off = 0; off < 3; off++)
        for (uint32_t sign = 0; sign < 2; sign++)
            for (int k = 0; k < MIDDLES; k++)
                bits[n++] = (bits_of((float)((k + 0.5) * 0x1p-24)) + off - 1) | sign << 31;
    assert_int_equal(n, INPUTS);
}

static uint64_t narrow_all(dpt_dtype dtype, const uint32_t *bits, uint16_t nan) {
    static uint16_t codes[INPUTS + 1];
    float *values = malloc(INPUTS * sizeof *values);
    uint64_t sum = 0;
    memcpy(values, bits, INPUTS * sizeof *values);
    codes[INPUTS] = 0xbeef;
    dpt_dtype_from_f32(dtype, values, codes, INPUTS);
    assert_int_equal(codes[INPUTS], 0xbeef);
    for (int64_t i = 0; i < INPUTS; i++) {
        uint16_t single;
        dpt_dtype_from_f32(dtype, &values[i], &single, 1);
        assert_int_equal(single, codes[i]);
        if (isnan(values[i])) {
            float back;
            dpt_dtype_to_f32(dtype, &codes[i], &back, 1);
            assert_true(isnan(back));
            codes[i] = nan;
        }
        sum += weigh(codes[i], i);
    }
    free(values);
    return sum;
}

static uint32_t wide[CODES];
static uint32_t inputs[INPUTS];

static void bf16_equals_torch(void **state) {
    (void)state;
    assert_true(widen_all(DPT_BF16, wide) == GOLDEN_BF16_TO_F32);
    make_inputs(wide, inputs);
    assert_true(narrow_all(DPT_BF16, inputs, 0x7fc0) == GOLDEN_F32_TO_BF16);
}

static void f16_equals_torch(void **state) {
    (void)state;
    assert_true(widen_all(DPT_F16, wide) == GOLDEN_F16_TO_F32);
    make_inputs(wide, inputs);
    assert_true(narrow_all(DPT_F16, inputs, 0x7e00) == GOLDEN_F32_TO_F16);
}

static uint16_t narrow(dpt_dtype dtype, float value) {
    uint16_t code;
    dpt_dtype_from_f32(dtype, &value, &code, 1);
    return code;
}

static void edges_round_to_even(void **state) {
    (void)state;
    assert_int_equal(narrow(DPT_BF16, 1.0F + 0x1p-8F), 0x3f80); /* tie to even */
    assert_int_equal(narrow(DPT_BF16, 1.0F + 0x3p-8F), 0x3f82);
    assert_int_equal(narrow(DPT_BF16, 3.4e38F), 0x7f80); /* beyond the range */
    assert_int_equal(narrow(DPT_BF16, -0.0F), 0x8000);
    assert_int_equal(narrow(DPT_F16, 65519.996F), 0x7bff);
    assert_int_equal(narrow(DPT_F16, 65520.0F), 0x7c00);
    assert_int_equal(narrow(DPT_F16, -65520.0F), 0xfc00);
    assert_int_equal(narrow(DPT_F16, 0x1p-25F), 0); /* tie to even */
    assert_int_equal(narrow(DPT_F16, 0x1.000002p-25F), 1);
    assert_int_equal(narrow(DPT_F16, 0x3p-25F), 2);
    assert_int_equal(narrow(DPT_F16, 0x1.ffep-15F), 0x0400); /* up to the least normal */
}

/* Odd addresses and ragged lengths give what aligned ones give. */
static void any_alignment_and_length(void **state) {
    (void)state;
    enum { N = 200 };
    float values[N];
    float back[N + 1];
    unsigned char aligned[4 * N];
    unsigned char shifted[4 * N + 8];
    for (int i = 0; i < N; i++)
        values[i] = (float)(i - 100) * 0.37F;
    for (dpt_dtype d = DPT_F32; d <= DPT_BF16; d++)
        for (int64_t n = 0; n <= N; n += n < 40 ? 1 : 23)
            for (int shift = 0; shift < 4; shift++) {
                size_t bytes = (size_t)(n * dpt_dtype_size(d));
                memset(shifted, 0x5a, sizeof shifted);
                dpt_dtype_from_f32(d, values, aligned, n);
                dpt_dtype_from_f32(d, values, shifted + shift, n);
                assert_memory_equal(aligned, shifted + shift, bytes);
                assert_int_equal(shifted[(size_t)shift + bytes], 0x5a);
                back[n] = 7;
                dpt_dtype_to_f32(d, shifted + shift, back, n);
                assert_true(back[n] == 7);
                for (int64_t i = 0; i < n; i++)
                    assert_true(fabsf(back[i] - values[i]) <= 0x1p-8F * fabsf(values[i]));
            }
}

static void nonfinite_is_found(void **state) {
    (void)state;
    enum { N = 10000 };
    static float values[N];
    static unsigned char stored[4 * N];
    static const int64_t places[] = {0, 1, 4095, 4096, 9999};
    for (dpt_dtype d = DPT_F32; d <= DPT_BF16; d++) {
        memset(values, 0, sizeof values);
        values[5000] = 60000.0F;
        dpt_dtype_from_f32(d, values, stored, N);
        assert_int_equal(dpt_dtype_find_nonfinite(d, stored, N), -1);
        for (int p = 4; p >= 0; p--) {
            values[places[p]] = p % 2 == 0 ? NAN : -INFINITY;
            dpt_dtype_from_f32(d, values, stored, N);
            assert_int_equal(dpt_dtype_find_nonfinite(d, stored, N), places[p]);
            assert_int_equal(dpt_dtype_find_nonfinite(d, stored, places[p]), -1);
        }
    }
    double wide_value[2] = {1.0, INFINITY};
    assert_int_equal(dpt_dtype_find_nonfinite(DPT_F64, wide_value, 2), 1);
    unsigned char eight[3] = {0x7e, 0x7c, 0x7f};
    assert_int_equal(dpt_dtype_find_nonfinite(DPT_F8_E4M3, eight, 3), 2);
    assert_int_equal(dpt_dtype_find_nonfinite(DPT_F8_E5M2, eight + 1, 1), 0);
    assert_int_equal(dpt_dtype_find_nonfinite(DPT_I8, eight, 3), -1);
    assert_int_equal(dpt_dtype_find_nonfinite(DPT_F32, NULL, 0), -1);
}

static void losses_of_a_type_are_found(void **state) {
    (void)state;
    const float values[] = {1.0F,    65504.0F, INFINITY, NAN,     65519.9F, -65520.0F,
                            5e-8F,   2e-8F,    0.0F,     -0.0F,   1e6F,     3.39e38F,
                            3.4e38F, 1e-45F,   -1e-40F,  1.2e-38F};
    enum { COUNT = sizeof values / sizeof values[0] };
    unsigned char stored[4 * COUNT];
    dpt_dtype_from_f32(DPT_F16, values, stored, COUNT);
    assert_int_equal(dpt_dtype_find_overflow(DPT_F16, values, stored, COUNT), 5);
    assert_int_equal(dpt_dtype_find_overflow(DPT_F16, values, stored, 5), -1);
    assert_int_equal(dpt_dtype_find_overflow(DPT_F16, values, stored, 0), -1);
    assert_int_equal(dpt_dtype_count_lost(DPT_F16, values, stored, COUNT), 4);
    dpt_dtype_from_f32(DPT_BF16, values, stored, COUNT);
    assert_int_equal(dpt_dtype_find_overflow(DPT_BF16, values, stored, COUNT), 12);
    assert_int_equal(dpt_dtype_count_lost(DPT_BF16, values, stored, COUNT), 1);
    dpt_dtype_from_f32(DPT_F32, values, stored, COUNT);
    assert_int_equal(dpt_dtype_find_overflow(DPT_F32, values, stored, COUNT), -1);
    assert_int_equal(dpt_dtype_count_lost(DPT_F32, values, stored, COUNT), 0);
}

static void names(void **state) {
    (void)state;
    for (dpt_dtype d = DPT_F32; d < DPT_DTYPE_COUNT; d++) {
        dpt_dtype parsed = DPT_DTYPE_COUNT;
        assert_true(dpt_dtype_parse(dpt_dtype_name(d), &parsed));
        assert_int_equal(parsed, d);
        assert_true(dpt_dtype_size(d) >= 1 && dpt_dtype_size(d) <= 8);
        assert_int_equal(dpt_dtype_editable(d), d <= DPT_BF16);
    }
    dpt_dtype parsed;
    assert_true(dpt_dtype_parse("bfloat16", &parsed));
    assert_int_equal(parsed, DPT_BF16);
    assert_true(dpt_dtype_parse("float32", &parsed));
    assert_int_equal(parsed, DPT_F32);
    assert_false(dpt_dtype_parse("F33", &parsed));
    assert_false(dpt_dtype_parse("", &parsed));
}

/* By definition: sign, exponent with its bias, mantissa; and what is no number. */
static float eight_bits(int code, int mantissa_bits, int bias, bool *number) {
    int rest = code & 0x7f, exponent = rest >> mantissa_bits;
    int mantissa = rest & ((1 << mantissa_bits) - 1), largest = 0x7f >> mantissa_bits;
    float sign = code & 0x80 ? -1.0F : 1.0F;
    *number = mantissa_bits == 3 ? rest != 0x7f : exponent != largest || mantissa == 0;
    if (mantissa_bits == 2 && exponent == largest)
        return sign * INFINITY;
    float whole = (float)(mantissa + (exponent > 0 ? 1 << mantissa_bits : 0));
    return sign * ldexpf(whole, (exponent > 0 ? exponent : 1) - bias - mantissa_bits);
}

static void test_eight_bits(void **state) {
    (void)state;
    static const struct {
        dpt_dtype dtype;
        int mantissa_bits, bias;
    } kinds[] = {{DPT_F8_E4M3, 3, 7}, {DPT_F8_E5M2, 2, 15}};
    unsigned char codes[256];
    float values[256];
    for (int i = 0; i < 256; i++)
        codes[i] = (unsigned char)i;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        dpt_dtype_to_f32(kinds[k].dtype, codes, values, 256);
        for (int i = 0; i < 256; i++) {
            bool number;
            float want = eight_bits(i, kinds[k].mantissa_bits, kinds[k].bias, &number);
            assert_true(number ? bits_of(values[i]) == bits_of(want) : isnan(values[i]));
        }
    }
    dpt_dtype_to_f32(DPT_I8, codes, values, 256);
    for (int i = 0; i < 256; i++)
        assert_true(values[i] == (float)(i < 128 ? i : i - 256));
}

/* Every number of 8 bits, and what lies halfway between two, a little below and above: the nearest code, the even
 * one of two; the largest beyond. */
static void eight_bits_round_to_even(void **state) {
    (void)state;
    static const dpt_dtype kinds[] = {DPT_F8_E4M3, DPT_F8_E5M2};
    for (size_t k = 0; k < 2; k++) {
        int most = k == 0 ? 0x7e : 0x7b;
        for (int i = 0; i <= most; i++) {
            unsigned char codes[2] = {(unsigned char)i, (unsigned char)(i + 1)}, got[6];
            float at[2];
            dpt_dtype_to_f32(kinds[k], codes, at, 2);
            float middle = i < most ? at[0] / 2 + at[1] / 2 : at[0] * 1.01F;
            const float values[6] = {at[0],
                                     -at[0],
                                     middle,
                                     -middle,
                                     nextafterf(middle, 0.0F),
                                     nextafterf(middle, INFINITY)};
            dpt_dtype_from_f32(kinds[k], values, got, 6);
            int even = i == most || i % 2 == 0 ? i : i + 1, above = i == most ? i : i + 1;
            const int want[6] = {i, i | 0x80, even, even | 0x80, i, above};
            for (int j = 0; j < 6; j++)
                assert_int_equal(got[j], want[j]);
        }
        const float others[3] = {INFINITY, -1e30F, NAN};
        unsigned char got[3];
        dpt_dtype_from_f32(kinds[k], others, got, 3);
        assert_int_equal(got[0], most);
        assert_int_equal(got[1], most | 0x80);
        assert_int_equal(got[2] & 0x7f, 0x7f);
    }
}

int main(void) {
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eight_bits),
        cmocka_unit_test(eight_bits_round_to_even),
        cmocka_unit_test(bf16_equals_torch),
        cmocka_unit_test(f16_equals_torch),
        cmocka_unit_test(edges_round_to_even),
        cmocka_unit_test(any_alignment_and_length),
        cmocka_unit_test(losses_of_a_type_are_found),
        cmocka_unit_test(nonfinite_is_found),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests_name("dtype", tests, NULL, NULL);
}

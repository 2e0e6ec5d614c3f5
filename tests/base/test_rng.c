/* ranks: 1 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "deltapath/base/hash.h"
#include "deltapath/base/rng.h"

/* Philox4x32-10 written from the paper (Salmon et al., SC 2011), independent of the library. */
static void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t k0 = key[0];
    uint32_t k1 = key[1];
    memcpy(out, counter, 4 * sizeof *out);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = UINT64_C(0xD2511F53) * out[0];
        uint64_t p1 = UINT64_C(0xCD9E8D57) * out[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ out[1] ^ k0, (uint32_t)p1,
                            (uint32_t)(p0 >> 32) ^ out[3] ^ k1, (uint32_t)p0};
        memcpy(out, next, sizeof next);
        k0 += UINT32_C(0x9E3779B9);
        k1 += UINT32_C(0xBB67AE85);
    }
}

/* The lines "philox4x32 10" of Random123's kat_vectors. */
static const struct {
    uint32_t counter[4], key[2], expected[4];
} known[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void reference_has_the_known_answers(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].expected, sizeof out);
    }
}

static void words_equal_the_reference(void **state) {
    (void)state;
    /* The first vector is reachable: key 0, purpose 0, element 0. */
    uint32_t words[4];
    dpt_rng_words((dpt_rng){.key = 0, .purpose = 0}, 0, 4, words);
    assert_memory_equal(words, known[0].expected, sizeof words);
    dpt_rng rng = {.key = UINT64_C(0x299f31d0a4093822), .purpose = 0x13198a2e};
    static const int64_t starts[] = {0, 1, 4, (INT64_C(1) << 34) - 3, INT64_C(0x7ffffffffffffff0)};
    for (int s = 0; s < 5; s++)
        for (int64_t i = 0; i < 15; i++) {
            uint64_t ig = (uint64_t)(starts[s] + i);
            uint32_t counter[4] = {(uint32_t)(ig / 4), (uint32_t)(ig / 4 >> 32), rng.purpose, 0};
            uint32_t key[2] = {(uint32_t)rng.key, (uint32_t)(rng.key >> 32)};
            uint32_t expected[4];
            uint32_t word;
            philox(counter, key, expected);
            dpt_rng_words(rng, (int64_t)ig, 1, &word);
            assert_int_equal(word, expected[ig % 4]);
        }
}

static void runs_equal_single_words(void **state) {
    (void)state;
    enum { N = 1500 };
    static uint32_t single[N];
    static uint32_t run[N + 1];
    dpt_rng rng = dpt_rng_make(42, "model.layers.0.mlp.up_proj.weight", DPT_RNG_MASK);
    int64_t base = (INT64_C(1) << 34) - 640; /* the low counter word wraps inside */
    for (int64_t i = 0; i < N; i++)
        dpt_rng_words(rng, base + i, 1, &single[i]);
    for (int64_t from = 0; from < 9; from++)
        for (int64_t n = 0; n + from <= N; n += n < 140 ? 1 : 97) {
            run[n] = 0xdeadbeef;
            dpt_rng_words(rng, base + from, n, run);
            assert_memory_equal(run, single + from, (size_t)n * sizeof *run);
            assert_int_equal(run[n], 0xdeadbeef);
        }
}

static void streams_differ(void **state) {
    (void)state;
    dpt_rng a = dpt_rng_make(1, "a", DPT_RNG_MASK);
    dpt_rng b = dpt_rng_make(1, "b", DPT_RNG_MASK);
    dpt_rng c = dpt_rng_make(2, "a", DPT_RNG_MASK);
    assert_true(a.key != b.key && a.key != c.key && b.key != c.key);
    assert_true(dpt_rng_make(0, "a", 0).key == dpt_hash_string("a"));
    assert_true(dpt_rng_make(1, "a", 0).key ==
                (dpt_hash_string("a") ^ UINT64_C(0x9E3779B97F4A7C15)));
    uint32_t x[8];
    uint32_t y[8];
    dpt_rng_words(a, 0, 8, x);
    a.purpose = DPT_RNG_MAGNITUDE;
    dpt_rng_words(a, 0, 8, y);
    assert_memory_not_equal(x, y, sizeof x);
}

static void uniform_and_threshold(void **state) {
    (void)state;
    assert_true(dpt_rng_uniform(0) > 0 && dpt_rng_uniform(UINT32_MAX) < 1);
    assert_true(dpt_rng_threshold(0) == 0);
    assert_true(dpt_rng_threshold(1) == UINT64_C(1) << 32);
    assert_true(dpt_rng_threshold(0.5) == UINT64_C(1) << 31);
    enum { N = 1 << 18 };
    static uint32_t words[N];
    dpt_rng_words(dpt_rng_make(5, "x", 0), 0, N, words);
    uint64_t below = dpt_rng_threshold(0.3);
    int64_t hits = 0;
    for (int i = 0; i < N; i++)
        hits += words[i] < below;
    assert_true(fabs((double)hits / N - 0.3) < 5 * sqrt(0.3 * 0.7 / N));
}

/* Bits of a mask by its definition, one element at a time. */
static bool mask_reference(dpt_rng rng, uint64_t ig, uint64_t threshold) {
    uint32_t key[2] = {(uint32_t)rng.key, (uint32_t)(rng.key >> 32)};
    uint32_t lead_counter[4] = {(uint32_t)(ig / 16), (uint32_t)(ig / 16 >> 32), rng.purpose, 0};
    uint32_t rest_counter[4] = {(uint32_t)ig, (uint32_t)(ig >> 32), rng.purpose, 2};
    uint32_t lead[4];
    uint32_t rest[4];
    philox(lead_counter, key, lead);
    philox(rest_counter, key, rest);
    uint32_t byte = lead[ig % 16 / 4] >> ig % 4 * 8 & 0xff;
    return (byte << 24 | (rest[0] & 0xffffff)) < threshold;
}

static void masks_equal_the_reference(void **state) {
    (void)state;
    enum { N = 9000 };
    static uint64_t mask[N / 64 + 2];
    static uint64_t each[N / 64 + 2];
    static uint32_t thresholds[N];
    static const double shares[] = {0, 1e-9, 0.3, 0.5, 0.9, 0.998, 1 - 1e-9, 1};
    static const int64_t lengths[] = {0, 1, 15, 63, 64, 65, 511, 640, 4096, 4097, N};
    dpt_rng rng = dpt_rng_make(42, "model.norm.weight", DPT_RNG_MASK);
    int64_t base = (INT64_C(1) << 36) - 5000; /* the low counter word wraps inside */
    for (int s = 0; s < 8; s++)
        for (int l = 0; l < 11; l++) {
            int64_t from = base + 7 * l;
            int64_t n = lengths[l];
            uint64_t threshold = dpt_rng_threshold(shares[s]);
            bool fits = threshold <= UINT32_MAX;
            for (int64_t i = 0; i < n; i++)
                thresholds[i] = fits ? (uint32_t)threshold : 0;
            mask[(n + 63) / 64] = each[(n + 63) / 64] = 0xdeadbeef;
            dpt_rng_mask(rng, from, n, threshold, mask);
            dpt_rng_mask_each(rng, from, n, thresholds, each);
            for (int64_t i = 0; i < n; i++)
                assert_int_equal(dpt_rng_mask_bit(mask, i),
                                 mask_reference(rng, (uint64_t)(from + i), threshold));
            for (int64_t i = n; i < (n + 63) / 64 * 64; i++)
                assert_false(dpt_rng_mask_bit(mask, i));
            assert_int_equal(mask[(n + 63) / 64], 0xdeadbeef);
            if (fits)
                assert_memory_equal(mask, each, (size_t)(n + 63) / 64 * sizeof *mask);
            assert_int_equal(each[(n + 63) / 64], 0xdeadbeef);
        }
    for (int64_t i = 0; i < N; i++)
        thresholds[i] = (uint32_t)dpt_rng_threshold((double)i / N);
    dpt_rng_mask_each(rng, base, N, thresholds, each);
    for (int64_t i = 0; i < N; i++)
        assert_int_equal(dpt_rng_mask_bit(each, i),
                         mask_reference(rng, (uint64_t)(base + i), thresholds[i]));
}

static void masks_can_be_drawn_in_steps(void **state) {
    (void)state;
    dpt_rng rng = dpt_rng_make(42, "model.norm.weight", DPT_RNG_MASK);
    static const int64_t steps[] = {512, 64, 1024, 2300};
    for (int64_t from = 0; from < 32; from += 5) {
        uint64_t mask[DPT_RNG_DRAW / 64], threshold = dpt_rng_threshold(0.7);
        dpt_rng_draw draw;
        int64_t n = 0;
        dpt_rng_draw_begin(&draw, rng, from, threshold);
        for (int s = 0; s < 4; n += steps[s++])
            dpt_rng_draw_lead(&draw, steps[s]);
        dpt_rng_draw_settle(&draw);
        dpt_rng_mask(rng, from, n, threshold, mask);
        assert_memory_equal(draw.mask, mask, (size_t)(n + 63) / 64 * sizeof *mask);
    }
}

/* The 24 bits after the leading ones count: a share that 8 bits cannot tell from 76 / 256. */
static void masks_of_one_stream_can_be_drawn_together(void **state) {
    (void)state;
    dpt_rng rng = dpt_rng_make(42, "model.norm.weight", DPT_RNG_MASK);
    static const double shares[] = {0.0, 0.5, 0.7};
    static const int64_t steps[] = {512, 64, 1024, 2300};
    for (int64_t from = 0; from < 32; from += 5) {
        dpt_rng_draw draws[3], *all[3] = {&draws[0], &draws[1], &draws[2]};
        int64_t n = 0;
        for (int d = 0; d < 3; d++) {
            dpt_rng_draw_begin(&draws[d], rng, 0, dpt_rng_threshold(shares[d]));
            dpt_rng_draw_lead(&draws[d], 192);
            dpt_rng_draw_move(&draws[d], from);
        }
        for (int s = 0; s < 4; n += steps[s++])
            dpt_rng_draw_leads(3, all, steps[s]);
        for (int d = 0; d < 3; d++) {
            uint64_t mask[DPT_RNG_DRAW / 64];
            dpt_rng_draw_settle(&draws[d]);
            dpt_rng_mask(rng, from, n, dpt_rng_threshold(shares[d]), mask);
            assert_memory_equal(draws[d].mask, mask, (size_t)(n + 63) / 64 * sizeof *mask);
        }
    }
}

static void masks_have_their_share(void **state) {
    (void)state;
    enum { N = 1 << 24 };
    const double share = 76.5 / 256;
    static uint64_t mask[N / 64];
    dpt_rng_mask(dpt_rng_make(5, "x", 0), 0, N, dpt_rng_threshold(share), mask);
    int64_t hits = 0;
    for (int i = 0; i < N / 64; i++)
        hits += __builtin_popcountll(mask[i]);
    assert_true(fabs((double)hits / N - share) < 4 * sqrt(share * (1 - share) / N));
}

static void normal_has_its_moments(void **state) {
    (void)state;
    enum { N = 1 << 17 };
    static float values[N];
    dpt_rng rng = dpt_rng_make(3, "sketch", DPT_RNG_SKETCH);
    dpt_rng_normal(rng, 0, N, values);
    double sum = 0;
    double square = 0;
    double fourth = 0;
    for (int i = 0; i < N; i++) {
        double v = (double)values[i];
        sum += v;
        square += v * v;
        fourth += v * v * v * v;
    }
    assert_true(fabs(sum / N) < 5 / sqrt(N));
    assert_true(fabs(square / N - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(fourth / N - 3) < 5 * sqrt(96.0 / N));
    float part[7];
    dpt_rng_normal(rng, 1001, 7, part);
    assert_memory_equal(part, values + 1001, sizeof part);
}

int main(void) {
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_has_the_known_answers),
        cmocka_unit_test(words_equal_the_reference),
        cmocka_unit_test(runs_equal_single_words),
        cmocka_unit_test(streams_differ),
        cmocka_unit_test(uniform_and_threshold),
        cmocka_unit_test(masks_equal_the_reference),
        cmocka_unit_test(masks_can_be_drawn_in_steps),
        cmocka_unit_test(masks_of_one_stream_can_be_drawn_together),
        cmocka_unit_test(masks_have_their_share),
        cmocka_unit_test(normal_has_its_moments),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}

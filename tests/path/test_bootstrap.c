/* ranks: 1 3
 * seconds: 180
 * Bootstrap intervals: coverage, known cases, the same bits on every rank. */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/base/rng.h"
#include "deltapath/path/bootstrap.h"
#include "deltapath/path/verdict.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static dpt_interval interval_of(const dpt_bootstrap_draws *draws, double confidence) {
    return (dpt_interval){.n = draws->n,
                          .mean = draws->mean,
                          .se = draws->spread,
                          .low = dpt_bootstrap_end(draws, 0.5 * (1.0 - confidence)),
                          .high = dpt_bootstrap_end(draws, 0.5 * (1.0 + confidence))};
}

static dpt_interval interval(int64_t n, const double *a, const double *b, double confidence,
                             uint64_t seed, int resamples) {
    const dpt_bootstrap options = {.seed = seed, .stream = "task", .resamples = resamples};
    dpt_bootstrap_draws draws;
    assert_int_equal(dpt_bootstrap_draw(n, a, b, &options, &draws), DPT_OK);
    assert_int_equal(draws.resamples, resamples);
    dpt_interval out = interval_of(&draws, confidence);
    dpt_bootstrap_destroy(&draws);
    return out;
}

/* What has no spread has no resamples. */
static void without_resamples(int64_t n, const double *a, const double *b, double mean) {
    const dpt_bootstrap options = {.seed = 1, .stream = "task", .resamples = 100};
    dpt_bootstrap_draws draws;
    assert_int_equal(dpt_bootstrap_draw(n, a, b, &options, &draws), DPT_OK);
    assert_int_equal(draws.resamples, 0);
    assert_true(isnan(mean) ? isnan(draws.mean) : draws.mean == mean);
    dpt_bootstrap_destroy(&draws);
}

static void test_small(void **state) {
    (void)state;
    const double a[] = {1.0, 2.0, 3.0, 6.0};
    const double b[] = {0.5, 1.0, 2.5, 4.0}; /* differences 0.5 1 0.5 2 */
    dpt_interval x = interval(4, a, b, 0.95, 1, 5000);
    assert_true(x.n == 4 && x.mean == 1.0);
    assert_true(x.low >= 0.5 && x.low < 0.8 && x.high > 1.3 && x.high <= 2.0);
    assert_true(x.high - x.mean > x.mean - x.low); /* it follows the skew */
    /* The spread of resampled means is the population's sd / sqrt(n). */
    assert_near(x.se, sqrt(0.375) / 2.0, 0.01);
    without_resamples(4, a, a, 0.0);
    without_resamples(1, a, b, 0.5);
    const double bad[] = {1.0, NAN, 2.0, 3.0};
    without_resamples(4, bad, b, NAN);
}

/* Two samples resample to three means with shares 1/4, 1/2, 1/4: wide levels end at the samples. */
static void test_two_samples(void **state) {
    (void)state;
    const double a[] = {0.0, 1.0};
    dpt_interval x = interval(2, a, NULL, 0.9, 3, 4000);
    assert_true(x.low == 0.0 && x.high == 1.0 && x.mean == 0.5);
    x = interval(2, a, NULL, 0.2, 3, 4000);
    assert_true(x.low == 0.5 && x.high == 0.5);
    assert_near(x.se, sqrt(0.125), 0.01);
}

static void test_levels_share_resamples(void **state) {
    (void)state;
    double a[40];
    const double levels[] = {0.95, 0.9, 0.5};
    dpt_interval out[3];
    for (int i = 0; i < 40; i++)
        a[i] = sin(7.0 * i) + 0.3;
    const dpt_bootstrap options = {.seed = 5, .stream = "task", .resamples = 2000};
    dpt_bootstrap_draws draws;
    assert_int_equal(dpt_bootstrap_draw(40, a, NULL, &options, &draws), DPT_OK);
    for (int k = 0; k < 3; k++)
        out[k] = interval_of(&draws, levels[k]);
    dpt_bootstrap_destroy(&draws);
    assert_true(out[0].low < out[1].low && out[1].low < out[2].low);
    assert_true(out[0].high > out[1].high && out[1].high > out[2].high);
    for (int k = 0; k < 3; k++) {
        dpt_interval alone = interval(40, a, NULL, levels[k], 5, 2000);
        assert_memory_equal(&alone, &out[k], sizeof alone);
    }
    dpt_interval t = dpt_interval_student(40, a, NULL, 0.95);
    assert_near(out[0].low, t.low, 0.1 * (t.high - t.low));
    dpt_interval other = interval(40, a, NULL, 0.95, 6, 2000);
    assert_true(other.low != out[0].low); /* the seed matters */
}

/* Every rank computes for itself and all have the bits of rank 0, also those written here. */
static void test_same_bits(void **state) {
    (void)state;
    double a[25];
    for (int i = 0; i < 25; i++)
        a[i] = (double)(i * i % 17) / 8.0;
    dpt_interval x = interval(25, a, NULL, 0.95, 1, 1000);
    double mine[3] = {x.se, x.low, x.high};
    double first[3] = {x.se, x.low, x.high};
    assert_int_equal(dpt_comm_broadcast(&test_comm, first, sizeof first, 0), DPT_OK);
    assert_memory_equal(mine, first, sizeof mine);
}

/* Losses differ by rounding between meshes: the bounds move by about as much, also with so few
 * samples that many resamples have the very mean of the samples. */
static void test_rounding(void **state) {
    (void)state;
    dpt_rng rng = dpt_rng_make(2, "rounding", DPT_RNG_MAGNITUDE);
    for (int n = 2; n <= 40; n += n < 8 ? 1 : 16) {
        double a[40], b[40];
        for (int trial = 0; trial < 20; trial++) {
            uint32_t words[80];
            dpt_rng_words(rng, (int64_t)trial * 80, 80, words);
            for (int i = 0; i < n; i++) {
                a[i] = -log(dpt_rng_uniform(words[i]));
                b[i] = a[i] + 1e-9 * (dpt_rng_uniform(words[40 + i]) - 0.5);
            }
            dpt_interval x = interval(n, a, NULL, 0.95, 1, 1000);
            dpt_interval y = interval(n, b, NULL, 0.95, 1, 1000);
            assert_true(x.se > 0.0 && isfinite(x.low) && isfinite(x.high));
            assert_near(x.low, y.low, 1e-7);
            assert_near(x.high, y.high, 1e-7);
        }
    }
}

/* Changes of losses are skewed: on exponential samples the 95 % interval covers the mean nearly as
 * often as it says, and misses less lopsidedly than Student's. */
static void test_coverage(void **state) {
    (void)state;
    enum { TRIALS = 600, N = 40 };
    dpt_rng rng = dpt_rng_make(11, "coverage of the bootstrap", DPT_RNG_MAGNITUDE);
    int above = 0, below = 0, t_above = 0, t_below = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        uint32_t words[N];
        double x[N];
        dpt_rng_words(rng, (int64_t)trial * N, N, words);
        for (int i = 0; i < N; i++)
            x[i] = -log(dpt_rng_uniform(words[i]));
        dpt_interval boot = interval(N, x, NULL, 0.95, (uint64_t)trial, 600);
        dpt_interval t = dpt_interval_student(N, x, NULL, 0.95);
        above += boot.low > 1.0;
        below += boot.high < 1.0;
        t_above += t.low > 1.0;
        t_below += t.high < 1.0;
    }
    double covered = 1.0 - (double)(above + below) / TRIALS;
    print_message("# covered %.3f, missed %d below and %d above; Student %d and %d\n", covered,
                  below, above, t_below, t_above);
    assert_true(covered > 0.91 && covered < 0.97);
    assert_true(abs(below - above) < abs(t_below - t_above));
}

static double exponential(float z) {
    return -log(0.5 * erfc((double)z * M_SQRT1_2));
}

/* Levels and ends are inverse to each other, within the resamples and beyond them, and both rise. */
static void test_levels(void **state) {
    (void)state;
    float z[60];
    double x[60];
    dpt_rng_normal(dpt_rng_make(5, "levels", DPT_RNG_MAGNITUDE), 0, 60, z);
    for (int i = 0; i < 60; i++)
        x[i] = exponential(z[i]);
    const dpt_bootstrap options = {.seed = 5, .stream = "task", .resamples = 2000};
    dpt_bootstrap_draws draws;
    assert_int_equal(dpt_bootstrap_draw(60, x, NULL, &options, &draws), DPT_OK);
    static const double levels[] = {1e-12, 1e-6,  0.0012, 0.0049, 0.0051, 0.025,
                                    0.3,   0.975, 0.9949, 0.9951, 0.999,  1.0 - 1e-6};
    for (int i = 0; i < 12; i++) {
        double end = dpt_bootstrap_end(&draws, levels[i]);
        /* BCa's ends stay at the outermost resample for a while */
        assert_near(dpt_bootstrap_level(&draws, end) / levels[i], 1.0, 1e-3);
        assert_true(i == 0 || end > dpt_bootstrap_end(&draws, levels[i - 1]));
    }
    assert_near(dpt_bootstrap_end(&draws, 0.0049), dpt_bootstrap_end(&draws, 0.0051), 0.02);
    assert_true(dpt_bootstrap_level(&draws, -1e9) < 1e-100);
    dpt_bootstrap_destroy(&draws);
}

/* Verdict, interval and p value of the same draws cannot contradict each other. */
static void test_one_interval(void **state) {
    (void)state;
    enum { N = 50 };
    dpt_rng rng = dpt_rng_make(6, "one interval", DPT_RNG_MAGNITUDE);
    int excluded = 0;
    for (int trial = 0; trial < 60; trial++) {
        float z[N];
        double post[N], edit[N];
        dpt_rng_normal(rng, (int64_t)trial * N, N, z);
        for (int i = 0; i < N; i++) {
            post[i] = 3.0;
            edit[i] = 3.0 + exponential(z[i]) - 0.02 * (trial % 40) - 0.3;
        }
        const dpt_bootstrap options = {.seed = 5, .stream = "task", .resamples = 500};
        dpt_verdict_options judge = dpt_verdict_defaults();
        judge.margins.absolute = 0.3;
        judge.paired =
            (dpt_paired_options){.effective = NAN,
                                 .rule = trial % 2 ? DPT_PAIRED_AUTO : DPT_PAIRED_BOOTSTRAP,
                                 .source = &options};
        const dpt_verdict_samples samples = {.n = N, .post = post, .edit = edit};
        dpt_verdict v;
        assert_int_equal(dpt_verdict_judge(&samples, &judge, &v), DPT_OK);
        bool outside = v.change.low > 0.0 || v.change.high < 0.0;
        assert_int_equal(outside, v.p_change < 0.05);
        assert_int_equal(v.verdict == DPT_VERDICT_COMPETITIVE, v.p_equivalent < 0.05);
        excluded += outside;
    }
    assert_true(excluded > 5 && excluded < 55);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_two_samples),
        cmocka_unit_test(test_levels_share_resamples),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_coverage),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_one_interval),
    };
    return test_mpi_main(argc, argv, tests);
}

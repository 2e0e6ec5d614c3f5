/* ranks: 1
 * seconds: 300
 * How often printed intervals hold what they are of, and how often an edit at the margin is called competitive: the
 * simulations behind the figures of doc/science.md, with fixed seeds. */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/base/rng.h"
#include "deltapath/path/verdict.h"
#include "deltapath/path/weighted.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 400 };

typedef enum shape {
    NORMAL,
    EXPONENTIAL,
    LOGNORMAL,
    HEAVY,
    WEIBULL,
    RARE
} shape; /* HEAVY: lognormal, sigma 1.25; RARE: one in ten has an exponential change, the others nearly none */

/* Samples of a data set: how losses are spread, weighed and bound together. */
typedef struct world {
    const char *name;
    int n;
    shape shape;
    int clusters; /* 0: none; samples of one share half of their variance */
    bool unequal; /* clusters of 1, 2, 3, ... samples in turn */
    bool weights; /* lognormal ones */
    int trials;
} world;

/* Mean 0 and variance 1. */
static double effect(double z, shape s) {
    if (s == EXPONENTIAL)
        return -log(0.5 * erfc(z * M_SQRT1_2)) - 1.0;
    if (s == WEIBULL) /* of shape 1/2, the square of an exponential one: mean 2, variance 20 */
        return (pow(log(0.5 * erfc(z * M_SQRT1_2)), 2.0) - 2.0) / sqrt(20.0);
    if (s == RARE) { /* of mean 5, and 0.2 z */
        double rest = 10.0 * 0.5 * erfc(z * M_SQRT1_2);
        return ((rest < 1.0 ? -5.0 * log(rest) : 0.2 * z) - 0.4649003) / sqrt(4.8108713);
    }
    double variance = s == HEAVY ? 1.5625 : 1.0; /* of the logarithm */
    if (s == LOGNORMAL || s == HEAVY)
        return (exp(sqrt(variance) * z) - exp(0.5 * variance)) /
               sqrt(exp(variance) * (exp(variance) - 1.0));
    return z;
}

static void world_clusters(const world *w, int64_t *clusters) {
    for (int i = 0, c = 0, left = 1; i < w->n; i++) {
        clusters[i] = w->unequal ? c : i * w->clusters / w->n;
        if (--left == 0 && w->unequal) {
            c = (c + 1) % w->clusters;
            left = 1 + c % 5;
        }
    }
}

/* Effects of the samples, with variance 1. */
static void world_draw(const world *w, dpt_rng rng, int64_t at, const int64_t *clusters,
                       double *out) {
    float z[2 * MOST];
    dpt_rng_normal(rng, at * 2 * MOST, 2 * MOST, z);
    for (int i = 0; i < w->n; i++) {
        double own = effect((double)z[i], w->shape);
        double shared = w->clusters > 0 ? effect((double)z[MOST + clusters[i]], w->shape) : 0.0;
        out[i] = w->clusters > 0 ? M_SQRT1_2 * (own + shared) : own;
    }
}

typedef struct tally {
    int trials, change, gain, shares, share, estimate, competitive,
        few;             /* shares: that have an interval */
    int missed, trusted; /* unmarked: not covered, called competitive */
} tally;

/* The true change is that margin: gain 2 and sd 1, change 0.1 and sd 0.5. */
enum { GAIN = 2 };
static const double CHANGE = 0.1, SPREAD = 0.5;

static void world_trial(const world *w, dpt_rng rng, int64_t t, const double *shares,
                        const int64_t *clusters, tally *out) {
    static double raw[3][MOST], values[3][MOST];
    double a[MOST], b[MOST];
    world_draw(w, rng, 2 * t, clusters, a);
    world_draw(w, rng, 2 * t + 1, clusters, b);
    for (int i = 0; i < w->n; i++) {
        raw[0][i] = 3.0 + GAIN + b[i];                  /* pre */
        raw[1][i] = 3.0;                                /* post */
        raw[2][i] = raw[1][i] + CHANGE + SPREAD * a[i]; /* edit */
    }
    dpt_weighted weighted;
    assert_int_equal(
        dpt_weighted_create(w->n, shares, w->clusters > 0 ? clusters : NULL, &weighted), DPT_OK);
    for (int k = 0; k < 3; k++)
        dpt_weighted_apply(&weighted, raw[k], values[k]);
    double terms[MOST];
    for (int64_t i = 0; i < weighted.count; i++)
        terms[i] = values[2][i] - values[1][i];
    dpt_verdict_options options = dpt_verdict_defaults();
    options.paired = (dpt_paired_options){.effective = weighted.effective, .rule = DPT_PAIRED_AUTO};
    const dpt_verdict_samples samples = {.n = weighted.count,
                                         .pre = values[0],
                                         .post = values[1],
                                         .edit = values[2],
                                         .terms = terms};
    dpt_verdict v;
    assert_int_equal(dpt_verdict_judge(&samples, &options, &v), DPT_OK);
    out->trials++;
    out->change += v.change.low <= CHANGE && CHANGE <= v.change.high;
    out->gain += v.gain.low <= GAIN && GAIN <= v.gain.high;
    out->estimate += v.estimate.low <= CHANGE && CHANGE <= v.estimate.high;
    out->shares += !isnan(v.share_low);
    out->share += v.share_low <= CHANGE / GAIN && CHANGE / GAIN <= v.share_high;
    out->competitive += v.verdict == DPT_VERDICT_COMPETITIVE;
    out->few += v.few;
    bool marked = fmin((double)weighted.count, weighted.effective) < v.enough;
    out->missed += !marked && !(v.change.low <= CHANGE && CHANGE <= v.change.high);
    out->trusted += !marked && v.verdict == DPT_VERDICT_COMPETITIVE;
    dpt_weighted_destroy(&weighted);
}

static tally world_run(const world *w) {
    dpt_rng rng = dpt_rng_make(21, w->name, DPT_RNG_MAGNITUDE);
    int64_t clusters[MOST] = {0};
    double shares[MOST], sum = 0.0;
    float z[MOST];
    tally out = {.trials = 0};
    if (w->clusters > 0)
        world_clusters(w, clusters);
    dpt_rng_normal(dpt_rng_make(22, w->name, DPT_RNG_MAGNITUDE), 0, MOST, z);
    for (int i = 0; i < w->n; i++)
        sum += shares[i] = w->weights ? exp(0.7 * (double)z[i]) : 1.0;
    for (int i = 0; i < w->n; i++)
        shares[i] /= sum;
    for (int64_t t = 0; t < w->trials; t++)
        world_trial(w, rng, t, shares, clusters, &out);
    return out;
}

/* The correction for skewness was chosen on normal, Laplace, Student's, exponential, gamma and lognormal (sigma 1)
 * samples; of other shapes are the heavy and Weibull ones and those in clusters and with weights. */
static const world worlds[] = {
    {"plain, 25", 25, NORMAL, 0, false, false, 2000},
    {"plain", 300, NORMAL, 0, false, false, 1500},
    {"exponential, 60", 60, EXPONENTIAL, 0, false, false, 1000},
    {"exponential", 250, EXPONENTIAL, 0, false, false, 1000},
    {"lognormal, 40", 40, LOGNORMAL, 0, false, false, 1000},
    {"lognormal", 400, LOGNORMAL, 0, false, false, 1000},
    {"heavy, 48", 48, HEAVY, 0, false, false, 1000},
    {"heavy", 300, HEAVY, 0, false, false, 1000},
    {"Weibull", 100, WEIBULL, 0, false, false, 1000},
    {"clusters", 320, NORMAL, 80, false, false, 1500},
    {"8 clusters", 60, NORMAL, 8, false, false, 1500},
    {"unequal clusters", 200, NORMAL, 40, true, false, 1500},
    {"skewed clusters", 300, EXPONENTIAL, 100, false, false, 1000},
    {"weights", 300, NORMAL, 0, false, true, 1500},
    {"skewed weights", 300, EXPONENTIAL, 0, false, true, 1000},
    {"weights and clusters", 200, NORMAL, 40, true, true, 1500},
};

static bool covers(int hits, int trials) {
    double share = (double)hits / trials;
    return share >= 0.93 && share <= 0.975;
}

/* 1000 trials know a coverage of 0.95 to 0.007. */
static void test_worlds(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof worlds / sizeof *worlds; k++) {
        tally t = world_run(&worlds[k]);
        double n = t.trials;
        print_message("# %-22s change %.3f estimate %.3f gain %.3f share %.3f competitive %.3f "
                      "few %.3f\n",
                      worlds[k].name, t.change / n, t.estimate / n, t.gain / n,
                      t.share / fmax(t.shares, 1.0), t.competitive / n, t.few / n);
        assert_true(covers(t.change, t.trials) && covers(t.estimate, t.trials));
        assert_true(covers(t.gain, t.trials) && covers(t.share, t.shares));
        assert_true(t.competitive <= 0.062 * t.trials);
    }
}

/* Where few samples have the harm a set may have met none of it. What misses is marked as of too few samples, at every
 * size, and where it need not be marked it covers. */
static void test_rare(void **state) {
    (void)state;
    static const world rare[] = {
        {"rare, 12", 12, RARE, 0, false, false, 2000},
        {"rare, 24", 24, RARE, 0, false, false, 2000},
        {"rare, 32", 32, RARE, 0, false, false, 2000},
        {"rare, 48", 48, RARE, 0, false, false, 2000},
        {"rare, 100", 100, RARE, 0, false, false, 1000},
        {"rare, 400", 400, RARE, 0, false, false, 1000},
    };
    for (size_t k = 0; k < sizeof rare / sizeof *rare; k++) {
        tally t = world_run(&rare[k]);
        double n = t.trials;
        print_message("# %-22s change %.3f competitive %.3f few %.3f, unmarked: missed %.3f "
                      "competitive %.3f\n",
                      rare[k].name, t.change / n, t.competitive / n, t.few / n, t.missed / n,
                      t.trusted / n);
        assert_true(t.missed <= 0.07 * n && t.trusted <= 0.062 * n);
        assert_true(rare[k].n < 40 ? t.change < 0.93 * n : t.change >= 0.93 * n);
    }
}

enum { PAIRS = 400 };

/* The accuracy falls by its margin, 2 points of PAIRS samples in clusters of 4 that are all alike, half alike, or not. */
static void test_accuracy_clusters(void **state) {
    (void)state;
    enum { TRIALS = 1500, SIZE = 4 };
    static const double alike[] = {0.0, 0.5, 1.0};
    dpt_rng rng = dpt_rng_make(23, "accuracy", DPT_RNG_MAGNITUDE);
    for (uint64_t k = 0; k < 3; k++) {
        int holds = 0, covered = 0;
        for (int64_t t = 0; t < TRIALS; t++) {
            uint32_t words[3 * PAIRS];
            double first[PAIRS], second[PAIRS];
            int64_t clusters[PAIRS];
            dpt_rng_words(rng, ((int64_t)k * TRIALS + t) * 3 * PAIRS, 3 * PAIRS, words);
            for (int i = 0; i < PAIRS; i++) {
                clusters[i] = i / SIZE;
                bool follows = dpt_rng_uniform(words[PAIRS + i]) < alike[k];
                double u = dpt_rng_uniform(words[follows ? 2 * PAIRS + clusters[i] : i]);
                first[i] =
                    u < 0.05 || u > 0.2; /* lost below 0.05, won below 0.08, else both or none */
                second[i] = (u >= 0.05 && u < 0.08) || u > 0.2;
            }
            dpt_weighted weighted;
            dpt_accuracy_pairs pairs;
            assert_int_equal(dpt_weighted_create(PAIRS, NULL, clusters, &weighted), DPT_OK);
            assert_int_equal(dpt_accuracy_count(&weighted, NAN, first, second, &pairs), DPT_OK);
            dpt_accuracy a = dpt_accuracy_judge(&pairs, 0.02, 0.95, 0.05);
            holds += a.p < 0.05;
            covered += a.low <= -0.02 && -0.02 <= a.high;
            dpt_weighted_destroy(&weighted);
        }
        print_message("# accuracy, clusters of %d, %.1f alike: covered %.3f, called less than the "
                      "margin %.3f\n",
                      SIZE, alike[k], (double)covered / TRIALS, (double)holds / TRIALS);
        assert_true(covered >= 0.93 * TRIALS && covered <= 0.975 * TRIALS);
        assert_true(holds <= 0.062 * TRIALS);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worlds),
        cmocka_unit_test(test_rare),
        cmocka_unit_test(test_accuracy_clusters),
    };
    return test_mpi_main(argc, argv, tests);
}

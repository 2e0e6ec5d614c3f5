/* ranks: 1 */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/base/rng.h"
#include "deltapath/base/student.h"
#include "deltapath/path/verdict.h"
#include "deltapath/path/weighted.h"

#include <math.h>
#include <string.h>

/* Abramowitz and Stegun, table 26.10, and closed forms for 1 and 2 degrees of freedom. */
static void test_student(void **state) {
    (void)state;
    const struct {
        double p, df, t;
    } table[] = {{0.975, 1, 12.7062047364},  {0.975, 2, 4.3026527297}, {0.975, 3, 3.1824463053},
                 {0.975, 4, 2.7764451052},   {0.975, 9, 2.2621571628}, {0.975, 30, 2.0422724563},
                 {0.975, 120, 1.9799304051}, {0.95, 10, 1.8124611228}, {0.995, 5, 4.0321429836},
                 {0.9995, 7, 5.4078825206},  {0.75, 20, 0.6869544968}, {0.975, 1e7, 1.9599642240}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        double t = dpt_student_quantile(table[i].p, table[i].df);
        assert_near(t, table[i].t, 1e-6);
        assert_near(dpt_student_quantile(1.0 - table[i].p, table[i].df), -t, 1e-9);
        assert_near(dpt_student_cdf(t, table[i].df), table[i].p, 1e-9);
        assert_near(dpt_student_upper(t, table[i].df), 1.0 - table[i].p, 1e-9);
    }
    for (double t = -30.0; t <= 30.0; t += 0.37) {
        assert_near(dpt_student_cdf(t, 1), 0.5 + atan(t) / M_PI, 1e-13);
        assert_near(dpt_student_cdf(t, 2), 0.5 * (1.0 + t / sqrt(2.0 + t * t)), 1e-13);
    }
    assert_near(dpt_student_upper(1e6, 1) * 1e6 * M_PI, 1.0, 1e-10); /* no cancellation */
    assert_true(dpt_student_quantile(0.5, 3) == 0.0);
    assert_true(isinf(dpt_student_quantile(1.0, 3)) && isnan(dpt_student_quantile(1.1, 3)));
    assert_true(isnan(dpt_student_cdf(NAN, 3)) && isnan(dpt_student_cdf(1.0, 0)));
    assert_true(dpt_student_cdf(INFINITY, 3) == 1.0 && dpt_student_cdf(-INFINITY, 3) == 0.0);
}

static void test_paired(void **state) {
    (void)state;
    const double a[] = {1.0, 2.0, 3.0, 6.0};
    const double b[] = {0.5, 1.0, 2.5, 4.0};
    dpt_interval x = dpt_interval_student(4, a, b, 0.95); /* 0.5 1 0.5 2: mean 1, sd sqrt(0.5) */
    assert_true(x.n == 4 && x.mean == 1.0);
    assert_near(x.se, sqrt(0.5) / 2.0, 1e-15);
    assert_near(x.high - 1.0, 3.1824463053 * x.se, 1e-9);
    assert_near(x.high - x.mean, x.mean - x.low, 1e-15);
    x = dpt_interval_student(1, a, b, 0.95);
    assert_true(x.mean == 0.5 && isnan(x.se) && isnan(x.low) && isnan(x.high));
    x = dpt_interval_student(4, a, NULL, 0.95);
    assert_true(x.mean == 3.0);
    x = dpt_interval_student(4, a, a, 0.95);
    assert_true(x.mean == 0.0 && x.se == 0.0 && x.low == 0.0 && x.high == 0.0);
    const double bad[] = {1.0, NAN, 2.0, 3.0};
    x = dpt_interval_student(4, bad, b, 0.95);
    assert_true(isnan(x.mean) && isnan(x.low));
}

/* Of losses alone. */
static dpt_verdict judged(int64_t n, const double *pre, const double *post, const double *edit,
                          const double *terms, const dpt_verdict_options *options) {
    const dpt_verdict_samples samples = {
        .n = n, .pre = pre, .post = post, .edit = edit, .terms = terms};
    dpt_verdict v;
    assert_int_equal(dpt_verdict_judge(&samples, options, &v), DPT_OK);
    return v;
}

/* The 95 % interval of 8 skew-free samples covers the truth in 95 % of trials, and the equivalence
 * test calls a change at the margin equivalent in 5 % of them. */
static void test_coverage(void **state) {
    (void)state;
    enum { TRIALS = 4000, N = 8 };
    dpt_rng rng = dpt_rng_make(7, "coverage", DPT_RNG_BOOTSTRAP);
    dpt_verdict_options options = dpt_verdict_defaults();
    options.margins.absolute = 2.0;
    int covered = 0;
    int wrong = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        float z[N];
        double edit[N], post[N];
        dpt_rng_normal(rng, (int64_t)trial * N, N, z);
        for (int s = 0; s < N; s++) {
            post[s] = 5.0 + s;
            edit[s] = post[s] + 2.0 + z[s]; /* the true change is the margin */
        }
        dpt_verdict v = judged(N, NULL, post, edit, NULL, &options);
        covered += v.change.low <= 2.0 && 2.0 <= v.change.high;
        wrong += v.verdict == DPT_VERDICT_COMPETITIVE;
    }
    assert_near((double)covered / TRIALS, 0.95, 0.012);
    assert_near((double)wrong / TRIALS, 0.05, 0.012);
}

enum { N = 40 };

typedef struct losses {
    double pre[N], post[N], edit[N], terms[N];
} losses;

static losses losses_make(double gain, double change, double noise) {
    losses l;
    dpt_rng rng = dpt_rng_make(3, "verdict", DPT_RNG_BOOTSTRAP);
    float z[3 * N];
    dpt_rng_normal(rng, 0, 3 * N, z);
    for (int s = 0; s < N; s++) {
        l.post[s] = 0.5 + 0.1 * z[s];
        l.pre[s] = l.post[s] + gain + 0.2 * z[N + s];
        l.edit[s] = l.post[s] + change + noise * z[2 * N + s];
        l.terms[s] = 0.9 * (l.edit[s] - l.post[s]);
    }
    return l;
}

static dpt_verdict judge(const losses *l, const dpt_verdict_options *options) {
    return judged(N, l->pre, l->post, l->edit, l->terms, options);
}

static void test_classes(void **state) {
    (void)state;
    dpt_verdict_options options = dpt_verdict_defaults();
    const struct {
        double gain, change, noise;
        dpt_verdict_class verdict;
    } cases[] = {
        {2.0, 0.01, 0.05, DPT_VERDICT_COMPETITIVE}, /* margin about 0.1 */
        {2.0, 0.02, 0.001, DPT_VERDICT_COMPETITIVE}, {2.0, 0.50, 0.05, DPT_VERDICT_DECREASED},
        {2.0, -0.50, 0.05, DPT_VERDICT_IMPROVED},    {-2.0, 0.50, 0.05, DPT_VERDICT_UNDECIDED},
        {-2.0, 0.01, 0.05, DPT_VERDICT_UNDECIDED},   {-2.0, -0.50, 0.05, DPT_VERDICT_UNDECIDED},
        {2.0, 0.05, 1.50, DPT_VERDICT_UNDECIDED},    {0.0, 0.50, 0.05, DPT_VERDICT_UNDECIDED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        losses l = losses_make(cases[i].gain, cases[i].change, cases[i].noise);
        dpt_verdict v = judge(&l, &options);
        assert_string_equal(dpt_verdict_name(v.verdict), dpt_verdict_name(cases[i].verdict));
        assert_int_equal(v.gain_clear, cases[i].gain != 0.0);
        assert_int_equal(v.doubt == NULL, cases[i].gain > 0.0);
        if (cases[i].gain <= 0.0) {
            assert_true(isnan(v.share) && isnan(v.share_low) && isnan(v.margin));
        } else {
            assert_near(v.share, v.change.mean / v.gain.mean, 1e-15);
            assert_near(v.margin, 0.05 * v.gain.mean, 1e-15);
            assert_int_equal(v.p_equivalent < 0.05, v.verdict == DPT_VERDICT_COMPETITIVE);
        }
        assert_int_equal(v.p_change<0.05, v.change.low> 0.0 || v.change.high < 0.0);
        assert_near(v.estimate.mean, 0.9 * v.change.mean, 1e-12);
    }
}

static void test_unclear_gain_needs_margin(void **state) {
    (void)state;
    dpt_verdict_options options = dpt_verdict_defaults();
    losses l = losses_make(0.0, 0.5, 0.05);
    dpt_verdict v = judge(&l, &options);
    assert_non_null(strstr(v.reason, "not distinguishable from zero"));
    assert_true(isnan(v.margin) && isnan(v.share) && isnan(v.p_equivalent));
    options.margins.absolute = 0.1;
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_DECREASED);
    options.margins.absolute = 1.0;
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_COMPETITIVE);
    options.margins.absolute = NAN;
    v = judged(N, NULL, l.post, l.edit, NULL, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    assert_true(v.gain.n == 0 && v.estimate.n == 0);
}

/* Models that are swapped, or data that post-training made worse. */
static void test_negative_gain(void **state) {
    (void)state;
    dpt_verdict_options options = dpt_verdict_defaults();
    losses l = losses_make(-2.0, 0.01, 0.001);
    dpt_verdict v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    assert_non_null(strstr(v.reason, "swapped?"));
    assert_ptr_equal(v.reason, v.doubt);
    options.margins.absolute = 1.0; /* far wider than the change */
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    assert_true(isnan(v.p_equivalent)); /* which would contradict that */
    assert_non_null(strstr(v.reason, "swapped?"));
    v = judged(N, l.pre, l.post, l.post, NULL, &options); /* the identity */
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    options.margins.absolute = 0.001; /* what the loss does is said all the same, with the doubt */
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_DECREASED);
    assert_non_null(strstr(v.doubt, "swapped?"));
    l = losses_make(-2.0, -0.01, 0.001);
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_IMPROVED);
    assert_true(isnan(v.share));
    l = losses_make(0.0, 0.01, 0.001); /* unclear: equivalent in nats, with the doubt */
    options.margins.absolute = 1.0;
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_COMPETITIVE);
    assert_non_null(strstr(v.doubt, "not distinguishable from zero"));
    v = judged(1, l.pre, l.post, l.edit, NULL, &options);
    assert_null(v.doubt); /* one sample: nothing is known of the gain */
}

static void test_withheld(void **state) {
    (void)state;
    dpt_verdict_options options = dpt_verdict_defaults();
    options.withheld = "because";
    losses l = losses_make(2.0, 0.5, 0.05);
    dpt_verdict v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    assert_string_equal(v.reason, "because");
    assert_near(v.share, v.change.mean / v.gain.mean, 1e-15); /* the numbers stay */
    v = judged(N, l.pre, l.post, l.post, NULL, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
}

static void test_degenerate(void **state) {
    (void)state;
    dpt_verdict_options options = dpt_verdict_defaults();
    losses l = losses_make(2.0, 0.1, 0.01);
    dpt_verdict v = judged(1, l.pre, l.post, l.edit, l.terms, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    assert_near(v.change.mean, l.edit[0] - l.post[0], 0.0);
    v = judged(0, NULL, NULL, NULL, NULL, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    v = judged(N, l.pre, l.post, l.post, NULL, &options); /* the identity */
    assert_int_equal(v.verdict, DPT_VERDICT_COMPETITIVE);
    assert_true(v.p_change == 1.0 && v.p_equivalent == 0.0);
    l.edit[3] = INFINITY;
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_DECREASED);
    l.edit[3] = NAN;
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    assert_non_null(strstr(v.reason, "not a number"));
    l = losses_make(2.0, 0.1, 0.01);
    l.terms[5] = NAN;
    v = judge(&l, &options);
    assert_true(v.estimate.n == 0 && isnan(v.estimate.low));
}

/* A model of the pair whose loss is no number: nothing stands on it, and nothing is said of its gain. */
static void test_broken_pair(void **state) {
    (void)state;
    const double bad[] = {NAN, INFINITY, -INFINITY};
    dpt_verdict_options options = dpt_verdict_defaults();
    for (int i = 0; i < 12; i++) {
        options.margins.absolute = i / 6 == 0 ? NAN : 100.0;
        losses l = losses_make(2.0, 0.01, 0.001);
        double *broken = i / 3 % 2 == 0 ? l.pre : l.post;
        broken[7] = bad[i % 3];
        dpt_verdict v = judge(&l, &options);
        assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
        assert_non_null(strstr(v.reason, broken == l.pre ? "pre-trained" : "post-trained"));
        assert_non_null(strstr(v.reason, "not finite"));
        assert_true(v.doubt == NULL && isnan(v.share) && !v.gain_clear);
        v = judged(N, l.pre, l.post, l.post, NULL, &options); /* the identity */
        assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    }
}

/* A margin that takes in the pre-trained model: said of every verdict, and none is withheld. */
static void test_wide_margin(void **state) {
    (void)state;
    dpt_verdict_options options = dpt_verdict_defaults();
    losses l = losses_make(2.0, 0.01, 0.001);
    options.margins.share = 0.99;
    dpt_verdict v = judged(N, l.pre, l.post, l.pre, NULL, &options);
    assert_true(v.verdict == DPT_VERDICT_DECREASED && v.doubt == NULL);
    options.margins.share = 1.5;
    v = judged(N, l.pre, l.post, l.pre, NULL, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_COMPETITIVE);
    assert_non_null(strstr(v.doubt, "margin is at least the post-training gain"));
    options.margins.absolute = 1.0;
    assert_null(judge(&l, &options).doubt);
    options.margins.absolute = 20.0;
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_COMPETITIVE);
    assert_non_null(strstr(v.doubt, "margin is at least the post-training gain"));
}

/* Resamples in place of Student's distribution give intervals, verdict and p values alike. */
static void test_resampled(void **state) {
    (void)state;
    const dpt_bootstrap source = {.seed = 1, .stream = "verdict", .resamples = 1000};
    dpt_verdict_options options = dpt_verdict_defaults();
    losses l = losses_make(2.0, 0.3, 0.5);
    options.margins.absolute = 10.0;
    dpt_verdict student = judge(&l, &options);
    options.paired =
        (dpt_paired_options){.effective = NAN, .rule = DPT_PAIRED_BOOTSTRAP, .source = &source};
    dpt_verdict v = judge(&l, &options);
    assert_true(v.resampled && !student.resampled);
    assert_true(v.change.low != student.change.low);
    assert_near(v.change.low, student.change.low, 0.3 * student.change.se);
    assert_near(v.equivalence.high, student.equivalence.high, 0.3 * student.change.se);
    options.margins.absolute = v.equivalence.high * 1.0001;
    assert_int_equal(judge(&l, &options).verdict, DPT_VERDICT_COMPETITIVE);
    assert_true(judge(&l, &options).p_equivalent < 0.05);
    options.margins.absolute = v.equivalence.high * 0.9999;
    assert_int_equal(judge(&l, &options).verdict, DPT_VERDICT_DECREASED);
    assert_true(judge(&l, &options).p_equivalent > 0.05);
    options.paired.effective = 0.4 * N; /* they do not know of the weights */
    assert_false(judge(&l, &options).resampled);
    options.paired =
        (dpt_paired_options){.effective = NAN, .rule = DPT_PAIRED_AUTO, .source = &source};
    assert_false(judge(&l, &options).resampled);
}

/* Few samples with a long tail are not called equivalent by what they have met of it. */
static void test_tail(void **state) {
    (void)state;
    losses l = losses_make(2.0, 0.0, 0.0);
    for (int s = 0; s < N; s++)
        l.edit[s] = l.post[s] + exp(0.25 * s) / 100.0;
    dpt_verdict_options options = dpt_verdict_defaults();
    options.paired.rule = DPT_PAIRED_AUTO;
    options.margins.absolute = 1e6;
    dpt_verdict v = judge(&l, &options);
    assert_true(v.few && !v.tail);
    assert_int_equal(v.verdict, DPT_VERDICT_COMPETITIVE);
    options.margins.absolute = v.equivalence.high * 1.0001;
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_COMPETITIVE);
    assert_true(v.p_equivalent < 0.05);
    options.margins.absolute = v.equivalence.high * 0.9999;
    v = judge(&l, &options);
    assert_true(v.tail && v.p_equivalent > 0.05);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    assert_non_null(strstr(v.reason, "too few samples"));
    options.margins.absolute = v.change.mean * 0.9;
    v = judge(&l, &options);
    assert_false(v.tail);
    assert_int_equal(v.verdict, DPT_VERDICT_DECREASED);
}

static void test_skew(void **state) {
    (void)state;
    const double a[] = {1.0, 2.0, 3.0, 10.0}, b[] = {1.0, 1.0, 1.0, 1.0};
    /* deviations -3, -2, -1, 6: squares 50, cubes 180 */
    assert_near(dpt_interval_skew(4, a, b), 2.0 * 180.0 / pow(50.0, 1.5), 1e-14);
    assert_true(isnan(dpt_interval_skew(4, b, b)));
}

/* Copies of one sample, and weights that leave one: nothing is known of the spread. */
static void test_one_in_effect(void **state) {
    (void)state;
    dpt_verdict_options options = dpt_verdict_defaults();
    losses l = losses_make(2.0, 0.0, 0.0), copies = l;
    for (int s = 0; s < N; s++) {
        copies.post[s] = 0.1;
        copies.edit[s] = 0.4; /* of which the mean is not exact */
        copies.pre[s] = 2.0;
    }
    dpt_verdict v = judge(&copies, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    assert_non_null(strstr(v.reason, "the same on every sample"));
    assert_near(v.change.mean, 0.3, 1e-15);
    assert_true(isnan(v.change.low) && isnan(v.equivalence.high) && isnan(v.p_change));
    assert_true(isnan(v.gain.low) && isnan(v.share) && isnan(v.p_equivalent) && v.doubt == NULL);
    const dpt_bootstrap source = {.seed = 1, .stream = "verdict", .resamples = 100};
    options.paired.source = &source;
    options.paired.rule = DPT_PAIRED_BOOTSTRAP;
    options.margins.absolute = 1.0;
    v = judge(&copies, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    v = judged(2, copies.pre, copies.post, copies.edit, NULL, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    options = dpt_verdict_defaults();

    l = losses_make(2.0, 0.5, 0.05);
    options.paired.effective = 1.4;
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    assert_non_null(strstr(v.reason, "one sample in effect"));
    assert_true(isnan(v.change.low) && isnan(v.share));
    double gain = v.gain.mean;
    v = judged(N, l.pre, l.post, l.post, NULL, &options); /* no edit at all */
    assert_int_equal(v.verdict, DPT_VERDICT_COMPETITIVE);
    assert_near(v.gain.mean, gain,
                1e-15); /* of the gain as little is known as with any other edit */
    assert_true(isnan(v.gain.low) && isnan(v.gain.high) && isnan(v.margin) && isnan(v.share));
    v = judged(N, copies.pre, copies.post, copies.post, NULL, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_COMPETITIVE);
    assert_true(isnan(v.gain.low) && isnan(v.margin) && v.change.low == 0.0);
    for (int s = 0; s < N; s++) /* changes whose mean is exactly 0 */
        l.edit[s] = l.post[s] = 1.0;
    l.edit[0] = 1.5;
    l.edit[1] = 0.5;
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    l = losses_make(2.0, 0.5, 0.05);
    for (int s = 0; s < N; s++) /* a change that is the same on all, and a gain that is not */
        copies.edit[s] = l.post[s] + 0.25;
    options.paired.effective = NAN;
    v = judged(N, l.pre, l.post, copies.edit, NULL, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_UNDECIDED);
    assert_true(isnan(v.change.low) && isnan(v.share_low) && v.gain.low > 0.0 && v.margin > 0.0);
    options.paired.effective = 1.6; /* an interval, and hardly any freedom */
    v = judge(&l, &options);
    assert_true(isfinite(v.change.low) && v.change.low < 0.0);
    options.paired.effective = 5.0;
    v = judge(&l, &options);
    assert_int_equal(v.verdict, DPT_VERDICT_DECREASED);
}

/* Losses of N samples with what is known of the accuracy: the post-trained model is right on all, the edited one wrong
 * on `lost` of `n`. */
static dpt_verdict judged_both(const losses *l, double lost, double n, double gained,
                               const dpt_verdict_options *options) {
    double right_pre[N], right_post[N];
    for (int s = 0; s < N; s++) {
        right_post[s] = 1.0;
        right_pre[s] = s < (1.0 - gained) * N - 0.5 ? 1.0 : 0.0;
    }
    const dpt_accuracy_pairs gain = {.won = gained, .samples = N, .df = INFINITY};
    const dpt_accuracy_pairs pairs = {.lost = lost / n, .samples = n, .df = INFINITY};
    const dpt_verdict_samples samples = {.n = N,
                                         .pre = l->pre,
                                         .post = l->post,
                                         .edit = l->edit,
                                         .right_pre = right_pre,
                                         .right_post = right_post,
                                         .gained = &gain,
                                         .pairs = &pairs};
    dpt_verdict v;
    assert_int_equal(dpt_verdict_judge(&samples, options, &v), DPT_OK);
    return v;
}

/* The margin: a share of the room below a guess, or what a fall of the accuracy costs, whichever is smaller. Its own
 * errors count: where change and margin have the same spread, the intervals are wider by root 2. */
static void test_margins(void **state) {
    (void)state;
    dpt_verdict_options options = dpt_verdict_defaults();
    losses l = losses_make(2.0, 0.01, 0.05);
    double gain = judge(&l, &options).gain.mean;
    dpt_verdict v = judged_both(&l, 0, 1000, 1.0, &options);
    assert_near(v.margin, 0.02 * gain, 1e-12); /* 100 points for the room */
    assert_near(v.margin_accuracy, v.margin, 1e-15);
    v = judged_both(&l, 0, 1000, 0.25, &options); /* 2 of 25 points are more than 5 % */
    assert_near(v.margin_accuracy, 0.08 * gain, 1e-12);
    assert_near(v.margin, 0.05 * gain, 1e-12);
    v = judged_both(&l, 0, 1000, 0.0, &options);
    assert_true(isnan(v.margin_accuracy));
    assert_near(v.margin, 0.05 * gain, 1e-12);
    options.margins.guess = 1.5; /* the pre-trained loss is about 2.5 */
    double post = dpt_weighted_mean(NULL, N, l.post);
    assert_near(judge(&l, &options).margin, 0.05 * (1.5 - post), 1e-12);
    options.margins.guess = 0.4;
    v = judge(&l, &options);
    assert_true(isnan(v.margin) && v.verdict == DPT_VERDICT_UNDECIDED && v.doubt == NULL);
    assert_non_null(strstr(v.reason, "one that knows nothing"));
    options.margins.absolute = 0.3;
    assert_near(judge(&l, &options).margin, 0.3, 0.0);
    options = dpt_verdict_defaults();
    for (int s = 0; s < N; s++) { /* changes of the size of the margin, apart from it */
        l.pre[s] = l.post[s] + 2.0 + (s % 2 ? 1.0 : -1.0);
        l.edit[s] = l.post[s] + 0.05 * (s % 4 < 2 ? 1.0 : -1.0);
    }
    v = judge(&l, &options);
    double half = 0.5 * (v.equivalence.high - v.equivalence.low);
    assert_near(half, M_SQRT2 * dpt_student_quantile(0.95, N - 1) * v.change.se, 1e-12);
    options.margins.absolute = 0.1;
    v = judge(&l, &options);
    half = 0.5 * (v.equivalence.high - v.equivalence.low);
    assert_near(half, dpt_student_quantile(0.95, N - 1) * v.change.se, 1e-12);
}

/* Both must hold. */
static void test_accuracy(void **state) {
    (void)state;
    dpt_verdict_options options = dpt_verdict_defaults();
    static const struct {
        double change, lost, n;
        dpt_verdict_class verdict;
        dpt_verdict_accuracy accuracy;
        const char *reason;
    } cases[] = {
        {0.0, 0, 200, DPT_VERDICT_COMPETITIVE, DPT_ACCURACY_HOLDS, "of loss and accuracy"},
        {0.0, 0, 100, DPT_VERDICT_UNDECIDED, DPT_ACCURACY_UNSURE,
         "the accuracy is not known to be"},
        {0.0, 20, 100, DPT_VERDICT_DECREASED, DPT_ACCURACY_FALLS, "but the accuracy falls"},
        {0.0, 20, 4000, DPT_VERDICT_COMPETITIVE, DPT_ACCURACY_HOLDS, "of loss and accuracy"},
        {0.5, 0, 200, DPT_VERDICT_DECREASED, DPT_ACCURACY_HOLDS, "the loss rises"},
        {0.5, 20, 100, DPT_VERDICT_DECREASED, DPT_ACCURACY_FALLS, "the loss rises"},
        {-0.5, 0, 100, DPT_VERDICT_IMPROVED, DPT_ACCURACY_UNSURE, "the loss falls"},
        {-0.5, 20, 100, DPT_VERDICT_UNDECIDED, DPT_ACCURACY_FALLS, "but so does the accuracy"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        losses l = losses_make(2.0, cases[i].change, 0.01);
        options.margins.accuracy = 0.02;
        dpt_verdict v = judged_both(&l, cases[i].lost, cases[i].n, 1.0, &options);
        assert_string_equal(dpt_verdict_name(v.verdict), dpt_verdict_name(cases[i].verdict));
        assert_int_equal(v.accuracy_is, cases[i].accuracy);
        assert_non_null(strstr(v.reason, cases[i].reason));
        assert_int_equal(v.accuracy.p < 0.05, cases[i].accuracy == DPT_ACCURACY_HOLDS);
        options.margins.accuracy = 0.0; /* left out: the numbers stay */
        v = judged_both(&l, cases[i].lost, cases[i].n, 1.0, &options);
        assert_int_equal(v.verdict, cases[i].change == 0.0  ? DPT_VERDICT_COMPETITIVE
                                    : cases[i].change > 0.0 ? DPT_VERDICT_DECREASED
                                                            : DPT_VERDICT_IMPROVED);
        assert_true(isnan(v.accuracy.p) && v.accuracy_is == DPT_ACCURACY_OUT);
        assert_near(v.accuracy.change, -cases[i].lost / cases[i].n, 1e-15);
    }
}

/* Fieller's ends are where the change less that part of the gain is just told from 0. */
static void test_share(void **state) {
    (void)state;
    dpt_verdict_options options = dpt_verdict_defaults();
    losses l = losses_make(0.3, 0.1, 0.4);
    dpt_verdict v = judge(&l, &options);
    for (int k = 0; k < 2; k++) {
        double part[N], rho = k == 0 ? v.share_low : v.share_high;
        for (int s = 0; s < N; s++)
            part[s] = l.edit[s] - l.post[s] - rho * (l.pre[s] - l.post[s]);
        dpt_interval x = dpt_interval_student(N, part, NULL, 0.95);
        assert_near(k == 0 ? x.low : x.high, 0.0, 1e-10);
    }
    assert_true(v.share_low < v.share && v.share < v.share_high);
    assert_true(fabs(v.share_high + v.share_low - 2.0 * v.share) >
                0.01); /* the gain is not known */
    l = losses_make(0.0, 0.1, 0.4);
    assert_true(isnan(judge(&l, &options).share_low));
}

static void test_options(void **state) {
    (void)state;
    dpt_verdict_options options = dpt_verdict_defaults();
    assert_int_equal(dpt_verdict_check(&options), DPT_OK);
    options.margins.share = 0.0;
    assert_int_equal(dpt_verdict_check(&options), DPT_ERR_USAGE);
    dpt_error_clear();
    options = dpt_verdict_defaults();
    options.confidence = 95.0;
    assert_int_equal(dpt_verdict_check(&options), DPT_ERR_USAGE);
    dpt_error_clear();
    options = dpt_verdict_defaults();
    options.margins.absolute = -1.0;
    assert_int_equal(dpt_verdict_check(&options), DPT_ERR_USAGE);
    dpt_error_clear();
    options.margins.absolute = 0.0;
    assert_int_equal(dpt_verdict_check(&options), DPT_ERR_USAGE);
    dpt_error_clear();
    options = dpt_verdict_defaults();
    options.alpha = 0.7;
    assert_int_equal(dpt_verdict_check(&options), DPT_ERR_USAGE);
    dpt_error_clear();
}

/* p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") of R: 0.03 0.06 0.06 0.02. */
static void test_holm(void **state) {
    (void)state;
    const double p[] = {0.01, NAN, 0.04, 0.03, 0.005};
    const double expected[] = {0.03, NAN, 0.06, 0.06, 0.02};
    double adjusted[5];
    assert_int_equal(dpt_verdict_holm(5, p, adjusted), DPT_OK);
    for (int i = 0; i < 5; i++)
        if (isnan(expected[i]))
            assert_true(isnan(adjusted[i]));
        else
            assert_near(adjusted[i], expected[i], 1e-15);
    double same[] = {0.9, 0.8};
    assert_int_equal(dpt_verdict_holm(2, same, same), DPT_OK);
    assert_true(same[0] == 1.0 && same[1] == 1.0);
    assert_int_equal(dpt_verdict_holm(0, NULL, NULL), DPT_OK);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_student),
        cmocka_unit_test(test_paired),
        cmocka_unit_test(test_coverage),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_unclear_gain_needs_margin),
        cmocka_unit_test(test_negative_gain),
        cmocka_unit_test(test_withheld),
        cmocka_unit_test(test_degenerate),
        cmocka_unit_test(test_broken_pair),
        cmocka_unit_test(test_wide_margin),
        cmocka_unit_test(test_resampled),
        cmocka_unit_test(test_tail),
        cmocka_unit_test(test_skew),
        cmocka_unit_test(test_one_in_effect),
        cmocka_unit_test(test_margins),
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_holm),
    };
    return test_mpi_main(argc, argv, tests);
}

/* ranks: 1 2 3 4 */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/path/riemann.h"

#include <math.h>
#include <string.h>

/* A loss with a known answer, its parameters spread over the ranks:
 *   l_s(w) = a_s / 2 (u . w)^2 + b_s sum_j exp(g_j w_j)
 * The first part couples all tensors (Hessian a u u^T), the second is smooth but no polynomial. */
enum { PARAMETERS = 7, TENSORS = 3, SAMPLES = 4 };

typedef struct toy {
    double a[SAMPLES], b[SAMPLES];
    double u[PARAMETERS], g[PARAMETERS], w[PARAMETERS], e[PARAMETERS];
    int loss_calls, slope_calls, fail_at;
    bool mean_only;
} toy;

static toy toy_make(bool exponential) {
    toy t = {.fail_at = -1};
    for (int s = 0; s < SAMPLES; s++) {
        t.a[s] = 0.5 + 0.25 * s;
        t.b[s] = exponential ? 1.0 + 0.5 * s : 0.0;
    }
    for (int j = 0; j < PARAMETERS; j++) {
        t.u[j] = 1.0 + 0.1 * j;
        t.g[j] = 0.5 + 0.2 * j;
        t.w[j] = 0.3 - 0.05 * j;
        t.e[j] = j % 2 ? -0.4 : 0.6 + 0.02 * j;
    }
    return t;
}

static int tensor_of(int j) {
    return j % TENSORS;
}

/* Parameter j lives on rank j % size: with more ranks than parameters some hold none. */
static bool mine(int j) {
    return j % test_comm.size == test_comm.rank;
}

static dpt_status evaluate(toy *toy, double t, double *loss, double *terms, double *sample_terms) {
    double sums[2] = {0.0, 0.0}; /* u . w, sum of exponentials */
    for (int j = 0; j < PARAMETERS; j++)
        if (mine(j)) {
            sums[0] += toy->u[j] * (toy->w[j] + t * toy->e[j]);
            sums[1] += exp(toy->g[j] * (toy->w[j] + t * toy->e[j]));
        }
    dpt_status st = dpt_comm_sum_f64(&test_comm, sums, 2);
    for (int s = 0; s < SAMPLES; s++)
        loss[s] = 0.5 * toy->a[s] * sums[0] * sums[0] + toy->b[s] * sums[1];
    if (terms == NULL)
        return st;
    double own[TENSORS + SAMPLES] = {0.0};
    for (int j = 0; j < PARAMETERS; j++)
        for (int s = 0; mine(j) && s < SAMPLES; s++) {
            double x = toy->g[j] * (toy->w[j] + t * toy->e[j]);
            double slope =
                toy->e[j] * (toy->a[s] * sums[0] * toy->u[j] + toy->b[s] * toy->g[j] * exp(x));
            own[tensor_of(j)] += slope / SAMPLES;
            own[TENSORS + s] += slope;
        }
    if (st == DPT_OK)
        st = dpt_comm_sum_f64(&test_comm, own, TENSORS + SAMPLES);
    memcpy(terms, own, TENSORS * sizeof *own);
    for (int s = 0; s < SAMPLES; s++)
        sample_terms[s] = toy->mean_only ? NAN : own[TENSORS + s];
    return st;
}

static dpt_status toy_loss(void *ctx, double t, double *loss) {
    toy *toy = ctx;
    toy->loss_calls++;
    return evaluate(toy, t, loss, NULL, NULL);
}

static dpt_status toy_slope(void *ctx, double t, double *loss, double *terms, double *sample) {
    toy *toy = ctx;
    dpt_status st = evaluate(toy, t, loss, terms, sample);
    if (toy->slope_calls++ == toy->fail_at && test_comm.rank == test_comm.size - 1)
        return dpt_error(DPT_ERR_OUTPUT, "the oracle fails on purpose");
    return st;
}

static dpt_riemann run(toy *toy, dpt_rule rule, int points, const dpt_riemann_shared *shared) {
    static dpt_quadrature q;
    dpt_riemann out;
    dpt_oracle oracle = {
        .ctx = toy, .samples = SAMPLES, .terms = TENSORS, .loss = toy_loss, .slope = toy_slope};
    assert_int_equal(dpt_quadrature_create(rule, points, &q), DPT_OK);
    assert_int_equal(dpt_riemann_run(&test_comm, &oracle, &q, shared, &out), DPT_OK);
    return out;
}

static double true_change(toy *toy) {
    double start[SAMPLES], end[SAMPLES];
    double sum = 0.0;
    assert_int_equal(evaluate(toy, 0.0, start, NULL, NULL), DPT_OK);
    assert_int_equal(evaluate(toy, 1.0, end, NULL, NULL), DPT_OK);
    for (int s = 0; s < SAMPLES; s++)
        sum += end[s] - start[s];
    return sum / SAMPLES;
}

/* On a quadratic the terms are linear in t: every rule of order 2 is exact, and so is the second
 * order, 1/2 E_i^T (H E)_i = 1/2 mean(a) (u_i . E_i) (u . E). */
static void test_quadratic(void **state) {
    (void)state;
    toy t = toy_make(false);
    double change = true_change(&t);
    double along[TENSORS] = {0.0};
    double all = 0.0;
    double a = 0.0;
    for (int j = 0; j < PARAMETERS; j++) {
        along[tensor_of(j)] += t.u[j] * t.e[j];
        all += t.u[j] * t.e[j];
    }
    for (int s = 0; s < SAMPLES; s++)
        a += t.a[s] / SAMPLES;
    const struct {
        dpt_rule rule;
        int points;
    } cases[] = {{DPT_RULE_MIDPOINT, 2}, {DPT_RULE_MIDPOINT, 40}, {DPT_RULE_TRAPEZOID, 2},
                 {DPT_RULE_SIMPSON, 3},  {DPT_RULE_SIMPSON, 9},   {DPT_RULE_GAUSS, 2},
                 {DPT_RULE_GAUSS, 7},    {DPT_RULE_LEFT, 5},      {DPT_RULE_LEFT, 2}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        dpt_riemann r = run(&t, cases[k].rule, cases[k].points, NULL);
        assert_near(r.change, change, 1e-13);
        assert_near(r.error, r.estimate - r.change, 0.0);
        if (cases[k].rule == DPT_RULE_LEFT) /* misses exactly 1/C of the second order */
            assert_near(r.error, -0.5 * a * all * all / cases[k].points, 1e-13);
        else
            assert_near(r.error, 0.0, 1e-13);
        for (int i = 0; i < TENSORS; i++)
            assert_near(r.second_order[i], 0.5 * a * along[i] * all, 1e-11);
        assert_near(r.second_order_total, 0.5 * a * all * all, 1e-11);
        dpt_riemann_destroy(&r);
    }
}

/* Errors fall at the order of each rule on a loss that is no polynomial. */
static void test_orders(void **state) {
    (void)state;
    static const int orders[DPT_RULE_GAUSS] = {1, 2, 2, 4};
    toy t = toy_make(true);
    double change = true_change(&t);
    for (int rule = 0; rule < DPT_RULE_GAUSS; rule++) {
        int closed = dpt_quadrature_has_end((dpt_rule)rule);
        dpt_riemann coarse = run(&t, (dpt_rule)rule, 16 + closed, NULL);
        dpt_riemann fine = run(&t, (dpt_rule)rule, 32 + closed, NULL);
        assert_near(coarse.change, change, 1e-13);
        assert_near(log2(fabs(coarse.error / fine.error)), orders[rule], 0.1);
        dpt_riemann_destroy(&coarse);
        dpt_riemann_destroy(&fine);
    }
    double before = INFINITY; /* Gauss: faster than any power, to rounding at 6 points */
    for (int points = 1; points <= 6; points++) {
        dpt_riemann r = run(&t, DPT_RULE_GAUSS, points, NULL);
        assert_true(fabs(r.error) < 0.05 * before || fabs(r.error) < 1e-12);
        before = fabs(r.error);
        dpt_riemann_destroy(&r);
    }
    assert_true(before < 1e-11);
}

/* Two Gauss points beat five left points on this loss. */
static void test_gauss_beats_left(void **state) {
    (void)state;
    toy t = toy_make(true);
    dpt_riemann left = run(&t, DPT_RULE_LEFT, 5, NULL);
    dpt_riemann gauss = run(&t, DPT_RULE_GAUSS, 2, NULL);
    assert_true(fabs(gauss.error) < 0.01 * fabs(left.error));
    dpt_riemann_destroy(&left);
    dpt_riemann_destroy(&gauss);
}

static void test_samples_and_terms(void **state) {
    (void)state;
    toy t = toy_make(true);
    dpt_riemann r = run(&t, DPT_RULE_SIMPSON, 5, NULL);
    double samples = 0.0;
    for (int s = 0; s < SAMPLES; s++) {
        samples += r.sample_integrated[s] / SAMPLES;
        assert_near(r.sample_integrated[s], r.loss_edit[s] - r.loss_post[s], 0.01);
    }
    assert_near(samples, r.estimate, 1e-12);
    double terms = 0.0;
    for (int i = 0; i < TENSORS; i++) {
        double integrated = 0.0;
        for (int c = 0; c < 5; c++)
            integrated += r.quadrature.weight[c] * r.term[i * 5 + c];
        assert_near(integrated, r.integrated[i], 1e-14);
        terms += integrated;
    }
    assert_near(terms, r.estimate, 1e-13);
    for (int c = 0; c < 5; c++)
        assert_near(r.slope[c], r.term[c] + r.term[5 + c] + r.term[10 + c], 1e-13);
    dpt_riemann_destroy(&r);
    t.mean_only = true;
    r = run(&t, DPT_RULE_LEFT, 3, NULL);
    for (int s = 0; s < SAMPLES; s++)
        assert_true(isnan(r.sample_integrated[s]));
    dpt_riemann_destroy(&r);
    r = run(&t, DPT_RULE_MIDPOINT, 1, NULL);
    for (int i = 0; i < TENSORS; i++)
        assert_true(isnan(r.second_order[i]));
    dpt_riemann_destroy(&r);
}

/* What is given is not asked for, and changes nothing. */
static void test_shared(void **state) {
    (void)state;
    toy t = toy_make(true);
    double start[SAMPLES], end[SAMPLES], terms[TENSORS], sample_terms[SAMPLES], ignored[SAMPLES];
    assert_int_equal(evaluate(&t, 0.0, start, terms, sample_terms), DPT_OK);
    assert_int_equal(evaluate(&t, 1.0, end, terms, ignored), DPT_OK);
    assert_int_equal(evaluate(&t, 0.0, start, terms, sample_terms), DPT_OK);
    dpt_riemann plain = run(&t, DPT_RULE_LEFT, 5, NULL);
    assert_int_equal(t.slope_calls, 5);
    assert_int_equal(t.loss_calls, 1);
    t.slope_calls = t.loss_calls = 0;
    dpt_riemann_shared shared = {.loss_start = start,
                                 .terms_start = terms,
                                 .sample_terms_start = sample_terms,
                                 .loss_end = end};
    dpt_riemann given = run(&t, DPT_RULE_LEFT, 5, &shared);
    assert_int_equal(t.slope_calls, 4);
    assert_int_equal(t.loss_calls, 0);
    assert_memory_equal(given.term, plain.term, 5 * TENSORS * sizeof(double));
    assert_memory_equal(given.sample_integrated, plain.sample_integrated, SAMPLES * sizeof(double));
    assert_true(given.estimate == plain.estimate && given.change == plain.change);
    dpt_riemann_destroy(&given);
    shared.sample_terms_start = NULL;
    given = run(&t, DPT_RULE_LEFT, 5, &shared);
    /* Without slopes of the samples at t = 0 the losses give them; their mean is that of the gradient. */
    assert_true(given.estimate == plain.estimate && given.sample_error > 0.0);
    double mean = 0.0;
    for (int s = 0; s < SAMPLES; s++) {
        double off = given.sample_integrated[s] - plain.sample_integrated[s];
        assert_true(off != 0.0 && fabs(off) < 2e-4 * fabs(plain.sample_integrated[s]));
        assert_true(fabs(off) <= 2.0 * given.sample_error * sqrt(SAMPLES));
        mean += given.sample_integrated[s] / SAMPLES;
    }
    assert_near(mean, given.estimate, 1e-12);
    dpt_riemann_destroy(&given);
    dpt_riemann exact = run(&t, DPT_RULE_RADAU, 2, NULL);
    given = run(&t, DPT_RULE_RADAU, 2,
                &shared); /* with one other node the loss at the end serves too */
    for (int s = 0; s < SAMPLES; s++)
        assert_near(given.sample_integrated[s], exact.sample_integrated[s],
                    5e-3 * fabs(exact.sample_integrated[s]));
    dpt_riemann_destroy(&exact);
    dpt_riemann_destroy(&given);
    given = run(&t, DPT_RULE_LEFT, 1, &shared); /* with none nothing tells them */
    assert_true(isnan(given.sample_integrated[0]) && isnan(given.sample_error));
    dpt_riemann_destroy(&given);
    t.slope_calls = t.loss_calls = 0;
    given = run(&t, DPT_RULE_GAUSS, 2, &shared); /* does not visit t = 0 */
    assert_int_equal(t.slope_calls, 2);
    assert_int_equal(t.loss_calls, 0);
    assert_false(isnan(given.sample_integrated[0]));
    dpt_riemann_destroy(&given);
    given = run(&t, DPT_RULE_GAUSS, 2, NULL);
    assert_int_equal(t.loss_calls, 2);
    dpt_riemann_destroy(&given);
    dpt_riemann_destroy(&plain);
}

static dpt_riemann run_auto(toy *toy, int points, double tolerance) {
    static dpt_quadrature q;
    dpt_riemann out;
    dpt_oracle oracle = {
        .ctx = toy, .samples = SAMPLES, .terms = TENSORS, .loss = toy_loss, .slope = toy_slope};
    toy->slope_calls = toy->loss_calls = 0;
    assert_int_equal(dpt_quadrature_create(DPT_RULE_AUTO, points, &q), DPT_OK);
    q.tolerance = tolerance;
    assert_int_equal(dpt_riemann_run(&test_comm, &oracle, &q, NULL, &out), DPT_OK);
    assert_int_equal(out.gradients, toy->slope_calls);
    return out;
}

/* No more slopes than the tolerance asks for, and those of a rule that is refined are kept: the result is that
 * of the rule from the start, whose slopes alone make the estimate. */
static void test_auto(void **state) {
    (void)state;
    static dpt_quadrature fine;
    toy t = toy_make(false);
    dpt_riemann r = run_auto(&t, 5, 1e-9); /* quadratic: two points are exact */
    assert_true(r.quadrature.points == 2 && t.slope_calls == 2 && t.loss_calls == 1);
    dpt_riemann_destroy(&r);
    t = toy_make(true);
    r = run_auto(&t, 5, 0.2);
    double miss = fabs(r.error / r.change);
    assert_true(r.quadrature.points == 2 && miss > 1e-4 && miss < 0.2);
    dpt_riemann_destroy(&r);
    r = run_auto(&t, 4, 1e-9); /* the next rule has five: the cap holds */
    assert_true(r.quadrature.points == 2);
    dpt_riemann_destroy(&r);
    r = run_auto(&t, 5, 0.5 * miss);
    assert_true(r.quadrature.points == 5 && t.slope_calls == 5 && t.loss_calls == 1);
    assert_true(fabs(r.error / r.change) < 0.1 * miss);
    assert_near(r.error, r.estimate - r.change, 0.0);
    assert_int_equal(dpt_quadrature_create(DPT_RULE_AUTO, 5, &fine), DPT_OK);
    double sum = 0.0, samples = 0.0;
    for (int c = 0; c < 5; c++) {
        double loss[SAMPLES], terms[TENSORS], sample_terms[SAMPLES], mean = 0.0;
        assert_int_equal(evaluate(&t, fine.node[c], loss, terms, sample_terms), DPT_OK);
        for (int i = 0; i < TENSORS; i++) {
            assert_near(r.term[i * 5 + c], terms[i], 0.0);
            sum += fine.weight[c] * terms[i];
        }
        for (int s = 0; s < SAMPLES; s++)
            mean += loss[s] / SAMPLES;
        assert_near(r.loss_mean[c], mean, 1e-13);
    }
    for (int s = 0; s < SAMPLES; s++)
        samples += r.sample_integrated[s] / SAMPLES;
    assert_near(r.estimate, sum, 1e-13);
    assert_near(samples, sum, 1e-12);
    dpt_riemann_destroy(&r);
}

/* The parts of the tensors add up to the change, and are nearer to their own integrals than the terms are. */
static void test_split(void **state) {
    (void)state;
    toy t = toy_make(true);
    dpt_riemann fine = run(&t, DPT_RULE_GAUSS, 12, NULL);
    static const struct {
        dpt_rule rule;
        int points;
    } cases[] = {{DPT_RULE_LEFT, 5}, {DPT_RULE_RADAU, 2}, {DPT_RULE_POLYNOMIAL, 3}};
    for (int k = 0; k < 3; k++) {
        dpt_riemann r = run(&t, cases[k].rule, cases[k].points, NULL);
        double sum = 0.0, before = 0.0, after = 0.0;
        for (int i = 0; i < TENSORS; i++) {
            sum += r.split[i];
            before += fabs(r.integrated[i] - fine.integrated[i]);
            after += fabs(r.split[i] - fine.integrated[i]);
            assert_true(fabs(r.split[i] - fine.integrated[i]) <= r.split_error[i]);
        }
        print_message("%s %d: %g before, %g after\n", dpt_quadrature_name(cases[k].rule),
                      cases[k].points, before, after);
        assert_near(sum, r.change, 1e-13);
        assert_true(after < 0.5 * before);
        dpt_riemann_destroy(&r);
    }
    dpt_riemann_destroy(&fine);
}

static void test_failing_oracle(void **state) {
    (void)state;
    static dpt_quadrature q;
    dpt_riemann out;
    toy t = toy_make(true);
    t.fail_at = 2;
    dpt_oracle oracle = {
        .ctx = &t, .samples = SAMPLES, .terms = TENSORS, .loss = toy_loss, .slope = toy_slope};
    assert_int_equal(dpt_quadrature_create(DPT_RULE_LEFT, 5, &q), DPT_OK);
    assert_int_equal(dpt_riemann_run(&test_comm, &oracle, &q, NULL, &out), DPT_ERR_OUTPUT);
    assert_non_null(strstr(dpt_error_message(), "on purpose"));
    assert_null(out.term);
    assert_int_equal(t.slope_calls, 3);
    dpt_error_clear();
    oracle.samples = 0;
    assert_int_equal(dpt_riemann_run(&test_comm, &oracle, &q, NULL, &out), DPT_ERR_INPUT);
    dpt_error_clear();
}

/* A constant has slope 0, t has slope 1, and a steep convex path keeps its sign. */
static void test_slope_weights(void **state) {
    (void)state;
    static dpt_quadrature q;
    double w[64];
    for (int points = 2; points <= 64; points++) {
        double sums[3] = {0.0};
        assert_int_equal(dpt_quadrature_create(DPT_RULE_GAUSS, points, &q), DPT_OK);
        dpt_riemann_slope_weights(q.node, points, w);
        for (int c = 0; c < points; c++) {
            sums[0] += w[c];
            sums[1] += w[c] * q.node[c];
            sums[2] += w[c] / (1.0 + exp(-30.0 * (q.node[c] - 0.4)));
        }
        assert_near(sums[0], 0.0, 1e-12);
        assert_near(sums[1], 1.0, 1e-12);
        assert_true(sums[2] > 0.0);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quadratic),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_gauss_beats_left),
        cmocka_unit_test(test_samples_and_terms),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_failing_oracle),
        cmocka_unit_test(test_slope_weights),
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_split),
    };
    return test_mpi_main(argc, argv, tests);
}

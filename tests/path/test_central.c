/* ranks: 1 2 3 */
/* Central differences against slopes whose derivatives are known: exact for cubics, of fourth order else, and with a step
 * between truncation and rounding when the slopes are rounded. */
#include "support/test_mpi.h"

#include "deltapath/path/central.h"

#include <math.h>
#include <string.h>

enum { TERMS = 3 };

typedef struct toy {
    double cubic, rate, noise; /* f_i = (i + 1) (t + cubic t^3 + exp(rate t) / rate) + rounding */
    int calls, fail_at;
} toy;

static double toy_derivative(const toy *y, int i) {
    return (i + 1) * (1.0 + (y->rate != 0.0 ? 1.0 : 0.0));
}

static dpt_status toy_slope(void *ctx, double t, double *loss, double *terms,
                            double *sample_terms) {
    toy *y = ctx;
    if (y->calls++ == y->fail_at && test_comm.rank == test_comm.size - 1)
        return dpt_error(DPT_ERR_OUTPUT, "toy fails");
    loss[0] = sample_terms[0] = 0.0;
    for (int i = 0; i < TERMS; i++) {
        double f = t + y->cubic * t * t * t + (y->rate != 0.0 ? exp(y->rate * t) / y->rate : 0.0);
        terms[i] = (i + 1) * f + y->noise * sin(1e9 * (t + i));
    }
    return DPT_OK;
}

static dpt_status run(toy *y, double first, dpt_central *out) {
    dpt_oracle oracle = {.ctx = y, .samples = 1, .terms = TERMS, .slope = toy_slope};
    y->calls = 0;
    return dpt_central_run(&test_comm, &oracle, first, out);
}

static double off(const toy *y, const dpt_central *central) {
    double most = 0.0;
    for (int i = 0; i < TERMS; i++)
        most = fmax(most, fabs(central->derivative[i] - toy_derivative(y, i)));
    return most;
}

static void test_exact(void **state) {
    (void)state;
    toy y = {.cubic = 4.0, .fail_at = -1};
    dpt_central central;
    assert_int_equal(run(&y, 0.125, &central), DPT_OK);
    assert_true(off(&y, &central) < 1e-10); /* cubics are exact, and yet the steps differ */
    assert_true(fabs(central.total - 6.0) < 1e-10);
    assert_true(central.error > 0.0 && central.error < 2e-3 * central.total);
    dpt_central_destroy(&central);
    y.cubic = 0.0;
    assert_int_equal(run(&y, 0.125, &central), DPT_OK);
    assert_int_equal(y.calls, 4);
    assert_true(central.step == 0.0625 && central.error < 1e-12);
    dpt_central_destroy(&central);
}

/* Steep slopes: the step is halved until its own error bar is small, and that bar holds. */
static void test_truncation(void **state) {
    (void)state;
    toy y = {.rate = 3.0, .fail_at = -1};
    dpt_central central;
    assert_int_equal(run(&y, 0.5, &central), DPT_OK);
    assert_true(y.calls > 4 && central.step < 0.1);
    assert_true(central.error < 1e-2 * central.total);
    assert_true(fabs(central.total - 12.0) < central.error);
    dpt_central_destroy(&central);
}

/* Rounding grows as steps fall: the search ends, and the bar is of its size. */
static void test_rounding(void **state) {
    (void)state;
    toy y = {.rate = 1.0, .noise = 1e-3, .fail_at = -1};
    dpt_central central;
    assert_int_equal(run(&y, 0.5, &central), DPT_OK);
    assert_true(y.calls < 12 && central.step > 0.01);
    assert_true(fabs(central.total - 12.0) < 5.0 * central.error);
    assert_true(central.error > 1e-4 && central.error < 1.0);
    dpt_central_destroy(&central);
}

static void test_step(void **state) {
    (void)state;
    toy y = {.cubic = 4.0, .fail_at = -1};
    dpt_oracle oracle = {.ctx = &y, .samples = 1, .terms = TERMS, .slope = toy_slope};
    double derivative[TERMS];
    assert_int_equal(dpt_central_step(&test_comm, &oracle, 0.25, derivative), DPT_OK);
    for (int i = 0; i < TERMS; i++)
        assert_true(fabs(derivative[i] - (i + 1) * 1.25) < 1e-12);
}

/* The last rank fails at each call. */
static void test_faults(void **state) {
    (void)state;
    dpt_central central;
    for (int at = 0; at < 4; at++) {
        toy y = {.cubic = 4.0, .fail_at = at};
        assert_int_equal(run(&y, 0.125, &central), DPT_ERR_OUTPUT);
        assert_null(central.derivative);
        test_error_says("toy fails");
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),    cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_rounding), cmocka_unit_test(test_step),
        cmocka_unit_test(test_faults),
    };
    return test_mpi_main(argc, argv, tests);
}

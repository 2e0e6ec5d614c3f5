/* ranks: 1 2 3 4 */
/* Eigenvalues of greatest size of matrices whose eigenvalues are known, on vectors that are spread unevenly over the ranks:
 * the same at every number of ranks, with residuals that say how far they are off. */
#include "support/test_mpi.h"

#include "deltapath/base/rng.h"
#include "deltapath/linalg/lanczos.h"
#include "deltapath/tensor/shard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 60, STEPS = 40, TOP = 4 };

/* M = (I - 2 u u^T) diag(d) (I - 2 u u^T), u a unit vector. */
typedef struct mirror {
    double d[SIDE], u[SIDE];
    int64_t begin, end; /* own elements */
    double noise;
    int calls, fail_at;
} mirror;

static mirror mirror_make(void) {
    mirror m = {.fail_at = -1};
    double norm = 0.0;
    for (int i = 0; i < SIDE; i++) {
        m.d[i] = i == 7 ? 40.0 : i == 20 ? -25.0 : i == 31 ? 16.0 : i == 50 ? 9.0 : 0.05 * i;
        m.u[i] = 1.0 + (double)(i % 5);
        norm += m.u[i] * m.u[i];
    }
    for (int i = 0; i < SIDE; i++)
        m.u[i] /= sqrt(norm);
    /* The first rank has nothing when there is another. */
    int parts = test_comm.size > 1 ? test_comm.size - 1 : 1;
    int part = test_comm.size > 1 ? test_comm.rank - 1 : 0;
    if (part >= 0)
        dpt_shard_split(SIDE, parts, part, &m.begin, &m.end);
    return m;
}

/* x - 2 u (u . x) of own elements. */
static dpt_status reflect(const mirror *m, double *x) {
    double dot = 0.0;
    for (int64_t i = m->begin; i < m->end; i++)
        dot += m->u[i] * x[i];
    dpt_status st = dpt_comm_sum_f64(&test_comm, &dot, 1);
    for (int64_t i = m->begin; i < m->end; i++)
        x[i] -= 2.0 * dot * m->u[i];
    return st;
}

static dpt_status product(void *ctx, const float *x, float *y) {
    mirror *m = ctx;
    double work[SIDE];
    if (m->calls++ == m->fail_at)
        return dpt_error(DPT_ERR_OUTPUT, "mirror fails");
    for (int64_t i = m->begin; i < m->end; i++)
        work[i] = x[i - m->begin];
    dpt_status st = reflect(m, work);
    for (int64_t i = m->begin; i < m->end; i++)
        work[i] *= m->d[i];
    st = dpt_status_worse(st, reflect(m, work));
    for (int64_t i = m->begin; i < m->end; i++)
        y[i - m->begin] = (float)(work[i] + m->noise * sin(1e5 * work[i] + (double)i));
    return st;
}

static dpt_status run(mirror *m, int steps, int count, dpt_lanczos *out) {
    float start[SIDE];
    dpt_rng stream = dpt_rng_make(1, "start", DPT_RNG_SKETCH);
    dpt_rng_normal(stream, m->begin, m->end - m->begin, start);
    m->calls = 0;
    return dpt_lanczos_run(&test_comm, m->end - m->begin, start, steps, count, product, m, out);
}

static void test_top(void **state) {
    (void)state;
    static const double top[TOP] = {40.0, -25.0, 16.0, 9.0};
    mirror m = mirror_make();
    dpt_lanczos out;
    assert_int_equal(run(&m, STEPS, TOP, &out), DPT_OK);
    assert_int_equal(out.count, TOP);
    for (int i = 0; i < TOP; i++) {
        if (!(fabs(out.values[i] - top[i]) < 1e-4))
            fail_msg("%.9g in place of %g", out.values[i], top[i]);
        assert_true(out.residuals[i] < 1e-3);
    }
    dpt_lanczos_destroy(&out);
}

/* Too few steps, and products that are inaccurate: the residual bounds the error of an eigenvalue. */
static void test_residuals(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        mirror m = mirror_make();
        m.noise = k == 0 ? 0.0 : 0.05;
        dpt_lanczos out;
        assert_int_equal(run(&m, k == 0 ? 4 : STEPS, 2, &out), DPT_OK);
        assert_true(out.residuals[0] > 1e-3);
        for (int i = 0; i < 2; i++) {
            double nearest = INFINITY;
            for (int j = 0; j < SIDE; j++)
                nearest = fmin(nearest, fabs(out.values[i] - m.d[j]));
            assert_true(nearest <= 1.01 * out.residuals[i]);
        }
        dpt_lanczos_destroy(&out);
    }
}

/* A space of three dimensions ends after three steps. */
static void test_end(void **state) {
    (void)state;
    mirror m = mirror_make();
    for (int i = 0; i < SIDE; i++)
        m.d[i] = i % 2 ? 3.0 : i % 4 ? -1.0 : 0.0;
    dpt_lanczos out;
    assert_int_equal(run(&m, STEPS, TOP, &out), DPT_OK);
    assert_int_equal(out.count, 3);
    assert_true(fabs(out.values[0] - 3.0) < 1e-5 && fabs(out.values[1] + 1.0) < 1e-5 &&
                fabs(out.values[2]) < 1e-5);
    dpt_lanczos_destroy(&out);
}

static void test_errors(void **state) {
    (void)state;
    mirror m = mirror_make();
    dpt_lanczos out;
    float zeros[SIDE] = {0.0F};
    assert_int_equal(
        dpt_lanczos_run(&test_comm, m.end - m.begin, zeros, STEPS, TOP, product, &m, &out),
        DPT_ERR_INTERNAL);
    test_error_says("start vector is zero");
    m.d[7] = INFINITY;
    assert_int_equal(run(&m, STEPS, TOP, &out), DPT_ERR_INTERNAL);
    test_error_says("not finite");
    m = mirror_make();
    m.fail_at = 3;
    assert_int_equal(run(&m, STEPS, TOP, &out), DPT_ERR_OUTPUT);
    assert_null(out.values);
    test_error_says("mirror fails");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_top),
        cmocka_unit_test(test_residuals),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_errors),
    };
    return test_mpi_main(argc, argv, tests);
}

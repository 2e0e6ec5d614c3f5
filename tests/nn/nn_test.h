/** Helpers of the kernel tests: seeded numbers, error measure, finite differences in double. */
#ifndef TESTS_NN_NN_TEST_H
#define TESTS_NN_NN_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <math.h>
#include <cmocka.h>

#define NN_COUNT(a) ((int64_t)(sizeof(a) / sizeof((a)[0])))

/** Gradients that cancel to zero leave rounding of this size times the tolerance. */
#define NN_FLOOR 0.1

/** Uniform number in [-1, 1) from a small counter-based generator. */
static inline double nn_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1.0;
}

/** n random floats in [-scale, scale), at least one element allocated. */
static inline float *nn_floats(int64_t n, double scale, uint64_t seed) {
    float *x = test_malloc((size_t)(n + 1) * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(scale * nn_random(&seed));
    return x;
}

static inline double *nn_doubles(int64_t n) {
    return test_calloc((size_t)(n + 1), sizeof(double));
}

static inline double *nn_widen(int64_t n, const float *x) {
    double *y = nn_doubles(n);
    for (int64_t i = 0; i < n; i++)
        y[i] = (double)x[i];
    return y;
}

/** Fails unless every element of got (rows, cols; ld) is near want (rows, cols; contiguous). */
#define nn_assert_near(rows, cols, got, ld, want, tol)                                             \
    nn_check_near(rows, cols, got, ld, want, tol, __FILE__, __LINE__)

static inline void nn_check_near(int64_t rows, int64_t cols, const float *got, int64_t ld,
                                 const double *want, double tol, const char *file, int line) {
    double largest = 0.0, worst = 0.0;
    for (int64_t i = 0; i < rows * cols; i++) {
        largest = fmax(largest, fabs(want[i]));
        double err = fabs((double)got[i / cols * ld + i % cols] - want[i]);
        worst = err > worst || isnan(err) ? err : worst;
    }
    if (!(worst <= tol * (largest + NN_FLOOR))) {
        print_error("error %g against largest %g (tolerance %g)\n", worst, largest, tol);
        _fail(file, line);
    }
}

/** Fails unless doubles agree to tol relative to the largest wanted one. */
#define nn_assert_near_double(n, got, want, tol)                                                   \
    nn_check_near_double(n, got, want, tol, __FILE__, __LINE__)

static inline void nn_check_near_double(int64_t n, const double *got, const double *want,
                                        double tol, const char *file, int line) {
    double largest = 0.0, worst = 0.0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs(want[i]));
        double err = fabs(got[i] - want[i]);
        worst = err > worst || isnan(err) ? err : worst;
    }
    if (!(worst <= tol * (largest + NN_FLOOR))) {
        print_error("error %g against largest %g (tolerance %g)\n", worst, largest, tol);
        _fail(file, line);
    }
}

typedef double (*nn_loss_fn)(void *context);

/** Central differences of loss with respect to the n parameters at x (in the context). */
static inline double *nn_finite_difference(nn_loss_fn loss, void *context, double *x, int64_t n) {
    double *gradient = nn_doubles(n);
    const double h = 1e-5;
    for (int64_t i = 0; i < n; i++) {
        double keep = x[i];
        x[i] = keep + h;
        double up = loss(context);
        x[i] = keep - h;
        double down = loss(context);
        x[i] = keep;
        gradient[i] = (up - down) / (2.0 * h);
    }
    return gradient;
}

#endif

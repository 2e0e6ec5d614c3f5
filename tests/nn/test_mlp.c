/* ranks: 1 */
#include "nn/nn_test.h"

#include "deltapath/nn/mlp.h"
#include "../src/nn/vexp.h"

static void exponential_is_within_two_ulp(void **state) {
    (void)state;
    double worst = 0.0;
    for (float x = -87.3f; x <= 88.3f; x += 0.000137f) {
        double want = exp((double)x);
        worst = fmax(worst, fabs((double)dpt_nn_expf(x) - want) / want);
    }
    assert_true(worst < 2.0 * 0x1p-23);
    assert_true(dpt_nn_expf(0.0f) == 1.0f);
    assert_true(dpt_nn_expf(-1e4f) == 0.0f && dpt_nn_expf(-INFINITY) == 0.0f);
    assert_true(isinf(dpt_nn_expf(1e4f)) && isinf(dpt_nn_expf(INFINITY)));
    assert_true(isnan(dpt_nn_expf(NAN)));
}

static void error_function_is_within_its_bound(void **state) {
    (void)state;
    for (float x = -6.0f; x <= 6.0f; x += 0.0000713f)
        assert_true(fabs((double)dpt_nn_erff(x) - erf((double)x)) < 2e-7);
    assert_true(dpt_nn_erff(INFINITY) == 1.0f && dpt_nn_erff(-INFINITY) == -1.0f);
    assert_true(isnan(dpt_nn_erff(NAN)));
}

/* Of whole vectors and of what is left of one; x Phi(x) loses digits where 1 + erf does. */
static void gelu_is_within_its_bound(void **state) {
    (void)state;
    enum { N = 1003 };
    float x[N], y[N], dx[N], ones[N];
    for (int start = 0; start < 200; start++) {
        for (int i = 0; i < N; i++) {
            x[i] = -7.0f + 14.0f * (float)(start + 200 * i) / (200.0f * N);
            ones[i] = 1.0f;
        }
        dpt_nn_act_forward(DPT_ACT_GELU, N, x, y);
        dpt_nn_act_backward(DPT_ACT_GELU, N, ones, x, dx);
        for (int i = 0; i < N; i++) {
            double v = (double)x[i], below = 0.5 * (1.0 + erf(v * sqrt(0.5)));
            double slope = below + v * exp(-0.5 * v * v) / sqrt(2.0 * acos(-1.0));
            assert_true(fabs((double)y[i] - v * below) <= 2e-7 * fmax(1.0, fabs(v)));
            assert_true(fabs((double)dx[i] - slope) <= 3e-7);
        }
    }
}

static void tanh_is_within_two_ulp(void **state) {
    (void)state;
    for (float x = -12.0f; x <= 12.0f; x += 0.0000713f)
        assert_true(fabs((double)dpt_nn_tanhf(x) - tanh((double)x)) <=
                    2.0 * 0x1p-23 * fabs(tanh((double)x)));
    assert_true(dpt_nn_tanhf(1e-30f) == 1e-30f && dpt_nn_tanhf(0.0f) == 0.0f);
    assert_true(dpt_nn_tanhf(INFINITY) == 1.0f && dpt_nn_tanhf(-INFINITY) == -1.0f);
    assert_true(isnan(dpt_nn_tanhf(NAN)));
}

static double act(int kind, double x) {
    switch (kind) {
    case DPT_ACT_SILU:
        return x / (1.0 + exp(-x));
    case DPT_ACT_GELU:
        return 0.5 * x * erfc(-x * M_SQRT1_2);
    case DPT_ACT_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    default:
        return x / (1.0 + exp(-1.702 * x));
    }
}

static void activations_match_reference(void **state) {
    (void)state;
    enum { N = 4001 };
    float x[N], y[N], dy[N], dx[N];
    uint64_t seed = 1;
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i - 2000) * 0.006f;
        dy[i] = (float)nn_random(&seed);
    }
    for (int kind = DPT_ACT_SILU; kind <= DPT_ACT_QUICK_GELU; kind++) {
        dpt_nn_act_forward(kind, N, x, y);
        dpt_nn_act_backward(kind, N, dy, x, dx);
        for (int i = 0; i < N; i++) {
            double a = (double)x[i], h = 1e-5;
            double slope = (act(kind, a + h) - act(kind, a - h)) / (2.0 * h);
            assert_true(fabs((double)y[i] - act(kind, a)) <= 5e-7 * (1.0 + fabs(a)));
            assert_true(fabs((double)dx[i] - (double)dy[i] * slope) <= 2e-6);
        }
        dpt_nn_act_backward(kind, N, dy, x, dy); /* in place */
        assert_memory_equal(dy, dx, sizeof dy);
        dpt_nn_act_forward(kind, 0, NULL, NULL);
        dpt_nn_act_backward(kind, 0, NULL, NULL, NULL);
    }
}

static void check_gated(dpt_act_kind kind) {
    enum { T = 7, F = 37, LD = 40 };
    float *g = nn_floats(T * LD, 6, 1), *u = nn_floats(T * LD, 2, 2), *d = nn_floats(T * F, 1, 3);
    float h[T * F], dg[T * LD], du[T * LD];
    double want[T * F], want_g[T * F], want_u[T * F];
    for (int i = 0; i < T * F; i++) {
        double a = (double)g[i / F * LD + i % F], b = (double)u[i / F * LD + i % F], e = 1e-5;
        want[i] = act(kind, a) * b;
        want_u[i] = (double)d[i] * act(kind, a);
        want_g[i] = (double)d[i] * b * (act(kind, a + e) - act(kind, a - e)) / (2.0 * e);
    }
    dpt_nn_gated_forward(kind, 1.0f, T, F, g, LD, u, LD, h, F);
    nn_assert_near(T, F, h, F, want, 1e-6);
    dpt_nn_gated_backward(kind, 1.0f, T, F, d, F, g, LD, u, LD, dg, du);
    nn_assert_near(T, F, dg, LD, want_g, 1e-6);
    nn_assert_near(T, F, du, LD, want_u, 1e-6);
    dpt_nn_gated_backward(kind, 1.0f, T, F, d, F, g, LD, u, LD, g, u); /* in place */
    nn_assert_near(T, F, g, LD, want_g, 1e-6);
    nn_assert_near(T, F, u, LD, want_u, 1e-6);
    dpt_nn_gated_forward(kind, 1.0f, 0, F, g, LD, u, LD, h, F);
    dpt_nn_gated_backward(kind, 1.0f, 3, 0, d, 0, g, 0, u, 0, dg, du);
    test_free(g);
    test_free(u);
    test_free(d);
}

static void gated_units_match_reference(void **state) {
    (void)state;
    for (int kind = DPT_ACT_SILU; kind <= DPT_ACT_QUICK_GELU; kind++)
        check_gated((dpt_act_kind)kind);
}

/* g, u, dh, and from torch 2.13 in double with limit 7: h, dg, du. */
static const double clamped[][6] = {
    {-9, 1, 1, -4.00635597e-06, -6.37366568e-06, -2.00317799e-06},
    {-1.5, -7, 2, 0.650026809, 1.18617678, -0.216675603},
    {-0.25, -8, -1, 0.592802101, 1.76099735, 0},
    {0.5, 7, 0.5, 2.80310749, 3.51688765, 0.175194218},
    {2, 6.5, 1, 14.5174397, 8.05361516, 1.93565862},
    {6.99902344, 0.25, 1, 8.74872062, 1.25009149, 6.99897649},
    {7, -2, 3, -6.99995313, -3.00021924, 20.9998594}, /* at the limit */
    {7.5, 3, 1, 27.9998125, 0, 6.99995313},
    {30, 9, 1, 55.999625, 0, 0},
    {3, -7.0009765625, 1, -17.8915721, -6.14728994, 0},
    {3, 7.0009765625, 1, 23.8554295, 8.19638659, 0},
    {3, -30, 1, -17.8915721, -6.14728994, 0},
    {3, 30, -1, 23.8554295, -8.19638659, 0},
};

static void clamped_swiglu_matches_torch(void **state) {
    (void)state;
    enum { N = NN_COUNT(clamped) };
    float in[3][N], out[3][N];
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 3; k++)
            in[k][i] = (float)clamped[i][k];
    dpt_nn_gated_forward(DPT_ACT_CLAMPED_SWIGLU, 7.0f, 1, N, in[0], N, in[1], N, out[0], N);
    dpt_nn_gated_backward(DPT_ACT_CLAMPED_SWIGLU, 7.0f, 1, N, in[2], N, in[0], N, in[1], N, out[1],
                          out[2]);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 3; k++) {
            double want = clamped[i][3 + k];
            assert_true(fabs((double)out[k][i] - want) <= 1e-6 * fabs(want));
        }
}

static void extreme_gates_stay_finite(void **state) {
    (void)state;
    float g[] = {1e4f, -1e4f, 3e38f, -3e38f, 0.0f}, u[] = {1, 1, 1, 1, 1}, h[5], dg[5], du[5];
    const float want[] = {1e4f, 0.0f, 3e38f, 0.0f, 0.0f};
    dpt_nn_gated_forward(DPT_ACT_SILU, 0.0f, 1, 5, g, 5, u, 5, h, 5);
    dpt_nn_gated_backward(DPT_ACT_SILU, 0.0f, 1, 5, u, 5, g, 5, u, 5, dg, du);
    for (int i = 0; i < 5; i++) {
        assert_true(fabsf(h[i] - want[i]) <= 1e-6f * fabsf(want[i]));
        assert_true(isfinite(dg[i]) && isfinite(du[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponential_is_within_two_ulp),
        cmocka_unit_test(error_function_is_within_its_bound),
        cmocka_unit_test(gelu_is_within_its_bound),
        cmocka_unit_test(tanh_is_within_two_ulp),
        cmocka_unit_test(activations_match_reference),
        cmocka_unit_test(gated_units_match_reference),
        cmocka_unit_test(clamped_swiglu_matches_torch),
        cmocka_unit_test(extreme_gates_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

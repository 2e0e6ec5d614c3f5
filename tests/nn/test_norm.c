/* ranks: 1 */
#include "nn/nn_test.h"

#include <string.h>

#include "deltapath/nn/norm.h"

typedef struct {
    int64_t T, C;
    double eps;
    bool centre;
    double *x, *w, *b, *dy, *y;
} reference;

static double norm_loss(void *context) {
    reference *r = context;
    double loss = 0.0;
    for (int64_t t = 0; t < r->T; t++) {
        const double *x = r->x + t * r->C;
        double mean = 0.0, var = 0.0;
        for (int64_t c = 0; c < r->C && r->centre; c++)
            mean += x[c] / (double)r->C;
        for (int64_t c = 0; c < r->C; c++)
            var += (x[c] - mean) * (x[c] - mean) / (double)r->C;
        for (int64_t c = 0; c < r->C; c++) {
            double y = r->w[c] * (x[c] - mean) / sqrt(var + r->eps) + r->b[c];
            r->y[t * r->C + c] = y;
            loss += r->dy[t * r->C + c] * y;
        }
    }
    return loss;
}

static void check_norm(bool centre, int64_t T, int64_t C, double scale, float eps) {
    int64_t ld = C + 3, n = T * C;
    float *x = nn_floats(T * ld, scale, 1), *w = nn_floats(C, 1, 2), *b = nn_floats(C, 1, 3);
    float *dy = nn_floats(n, 1, 4), *y = nn_floats(T * ld, 1, 5), *dx = nn_floats(T * ld, 1, 6);
    float *dw = nn_floats(C, 1, 7), *e = nn_floats(C, 1, 8);
    float *mean = nn_floats(T, 1, 9), *rstd = nn_floats(T, 1, 10);
    double *term = nn_doubles(T), *want_term = nn_doubles(T);
    reference r = {T,
                   C,
                   (double)eps,
                   centre,
                   nn_doubles(n),
                   nn_widen(C, w),
                   nn_doubles(C),
                   nn_widen(n, dy),
                   nn_doubles(n)};
    for (int64_t i = 0; i < n; i++)
        r.x[i] = (double)x[i / C * ld + i % C];
    for (int64_t c = 0; c < C && centre; c++)
        r.b[c] = (double)b[c];
    if (centre)
        dpt_nn_layernorm_forward(T, C, x, ld, w, b, eps, y, ld, mean, rstd);
    else
        dpt_nn_rmsnorm_forward(T, C, x, ld, w, eps, y, ld, rstd);
    norm_loss(&r);
    nn_assert_near(T, C, y, ld, r.y, 1e-5);

    double *gx = nn_finite_difference(norm_loss, &r, r.x, n);
    double *gw = nn_finite_difference(norm_loss, &r, r.w, C);
    for (int pass = 1; pass <= 2; pass++) { /* overwrite, then accumulate */
        if (centre) {
            dpt_nn_layernorm_backward_input(T, C, dy, C, x, ld, w, mean, rstd, pass == 2, dx, ld);
            dpt_nn_layernorm_backward_weight(T, C, dy, C, x, ld, mean, rstd, pass == 2, dw);
        } else {
            dpt_nn_rmsnorm_backward_input(T, C, dy, C, x, ld, w, rstd, pass == 2, dx, ld);
            dpt_nn_rmsnorm_backward_weight(T, C, dy, C, x, ld, rstd, pass == 2, dw);
        }
        for (int64_t i = 0; i < n && pass == 2; i++)
            gx[i] *= 2.0;
        for (int64_t c = 0; c < C && pass == 2; c++)
            gw[c] *= 2.0;
        nn_assert_near(T, C, dx, ld, gx, 1e-5);
        nn_assert_near(1, C, dw, C, gw, 1e-5);
    }
    norm_loss(&r);
    for (int64_t t = 0; t < T; t++)
        for (int64_t c = 0; c < C; c++)
            want_term[t] +=
                (double)e[c] * (r.y[t * C + c] - r.b[c]) / (double)w[c] * (double)dy[t * C + c];
    if (centre)
        dpt_nn_layernorm_terms(T, C, dy, C, x, ld, mean, rstd, e, term);
    else
        dpt_nn_rmsnorm_terms(T, C, dy, C, x, ld, rstd, e, term);
    nn_assert_near_double(T, term, want_term, 1e-5);

    void *all[] = {x,    w,         b,   dy,  y,   dx,   dw,  e,  mean, rstd,
                   term, want_term, r.x, r.w, r.b, r.dy, r.y, gx, gw};
    for (int64_t i = 0; i < NN_COUNT(all); i++)
        test_free(all[i]);
}

static void rmsnorm_matches_reference(void **state) {
    (void)state;
    check_norm(false, 5, 7, 1.0, 1e-5f);
    check_norm(false, 3, 64, 1.0, 1e-6f);
    check_norm(false, 2, 517, 10.0, 1e-5f);
    check_norm(false, 4, 1, 1.0, 1e-5f);
    check_norm(false, 0, 5, 1.0, 1e-5f);
    check_norm(false, 3, 9, 1e-2, 1e-3f); /* eps matters: it is inside the root */
}

static void layernorm_matches_reference(void **state) {
    (void)state;
    check_norm(true, 5, 7, 1.0, 1e-5f);
    check_norm(true, 2, 517, 10.0, 1e-5f);
    check_norm(true, 0, 5, 1.0, 1e-5f);
    check_norm(true, 3, 9, 1e-1, 1e-3f);
}

static void gradient_may_overwrite_its_argument(void **state) {
    (void)state;
    enum { T = 6, C = 33 };
    float *x = nn_floats(T * C, 1, 1), *w = nn_floats(C, 1, 2), *dy = nn_floats(T * C, 1, 3);
    float dx[T * C], rstd[T], mean[T], y[T * C];
    dpt_nn_rmsnorm_forward(T, C, x, C, w, 1e-5f, y, C, rstd);
    dpt_nn_rmsnorm_backward_input(T, C, dy, C, x, C, w, rstd, false, dx, C);
    float *in_place = nn_floats(T * C, 1, 3);
    dpt_nn_rmsnorm_backward_input(T, C, in_place, C, x, C, w, rstd, false, in_place, C);
    assert_memory_equal(in_place, dx, sizeof dx);
    dpt_nn_layernorm_forward(T, C, x, C, w, NULL, 1e-5f, y, C, mean, rstd);
    dpt_nn_layernorm_backward_input(T, C, dy, C, x, C, w, mean, rstd, false, dx, C);
    memcpy(in_place, dy, sizeof dx);
    dpt_nn_layernorm_backward_input(T, C, in_place, C, x, C, w, mean, rstd, false, in_place, C);
    assert_memory_equal(in_place, dx, sizeof dx);
    test_free(x);
    test_free(w);
    test_free(dy);
    test_free(in_place);
}

/** Column blocks as ranks have them, block b with the columns [begin, end), of which it counts the first `own`;
 * columns of two blocks are in both. */
typedef struct {
    int64_t begin, end, own;
} block;

/** Block b's part of dy: two blocks have unequal parts of a column that both hold. */
static void split_gradient(int64_t T, int64_t C, int64_t b, block at, const float *dy, float *out) {
    for (int64_t t = 0; t < T; t++)
        for (int64_t c = at.begin; c < at.end; c++) {
            bool counted_later = c >= at.begin + at.own, held_before = b > 0 && c == at.begin;
            out[t * C + c] = dy[t * C + c] * (counted_later ? 0.75f : held_before ? 0.25f : 1.0f);
        }
}

static void column_blocks_make_the_whole(void **state) {
    (void)state;
    enum { T = 5, C = 12 };
    static const block blocks[] = {{0, 6, 5}, {5, 5, 0}, {5, 10, 4}, {9, 12, 3}};
    const float eps = 1e-2f;
    float *x = nn_floats(T * C, 1, 1), *w = nn_floats(C, 1, 2), *dy = nn_floats(T * C, 1, 3);
    float y[T * C], rstd[T], dx[T * C], dw[C], part[T * C], part_dw[C];
    float out[T * C] = {0}, sum_dx[T * C] = {0}, sum_dw[C] = {0};
    double squares[T] = {0}, dot[T] = {0};
    dpt_nn_rmsnorm_forward(T, C, x, C, w, eps, y, C, rstd);
    dpt_nn_rmsnorm_backward_input(T, C, dy, C, x, C, w, rstd, false, dx, C);
    dpt_nn_rmsnorm_backward_weight(T, C, dy, C, x, C, rstd, false, dw);
    for (int64_t b = 0; b < NN_COUNT(blocks); b++) {
        int64_t at = blocks[b].begin;
        split_gradient(T, C, b, blocks[b], dy, part);
        dpt_nn_rmsnorm_squares(T, blocks[b].own, x + at, C, squares);
        dpt_nn_rmsnorm_dots(T, blocks[b].end - at, part + at, C, x + at, C, w + at, dot);
    }
    for (int64_t b = 0; b < NN_COUNT(blocks); b++) {
        int64_t at = blocks[b].begin, width = blocks[b].end - at;
        split_gradient(T, C, b, blocks[b], dy, part);
        dpt_nn_rmsnorm_scale(T, width, C, squares, eps, x + at, C, w + at, out + at, C, rstd);
        dpt_nn_rmsnorm_backward_weight(T, width, part + at, C, x + at, C, rstd, false, part_dw);
        dpt_nn_rmsnorm_backward_scale(T, width, blocks[b].own, C, dot, part + at, C, x + at, C,
                                      w + at, rstd, part + at, C); /* in place */
        for (int64_t i = 0; i < T * C; i++)
            sum_dx[i] += i % C >= at && i % C < at + width ? part[i] : 0.0f;
        for (int64_t c = 0; c < width; c++)
            sum_dw[at + c] += part_dw[c];
    }
    for (int64_t i = 0; i < T * C; i++)
        assert_true(fabsf(out[i] - y[i]) < 1e-6f && fabsf(sum_dx[i] - dx[i]) < 2e-6f);
    for (int64_t c = 0; c < C; c++)
        assert_true(fabsf(sum_dw[c] - dw[c]) < 2e-6f);
    test_free(x);
    test_free(w);
    test_free(dy);
}

static void heads_of_a_token_are_rows(void **state) {
    (void)state;
    enum { T = 5, HEADS = 3, C = 21, W = HEADS * C, LD = W + 4 };
    const float eps = 1e-5f;
    float *x = nn_floats(T * LD, 1, 1), *w = nn_floats(C, 1, 2), *dy = nn_floats(T * LD, 1, 3);
    float *e = nn_floats(C, 1, 4), y[T * LD], dx[T * LD], dw[C], kept[T * W], rstd[T * HEADS];
    float want[C], want_dw[C] = {0}, want_rstd;
    double term[T] = {0}, want_term[T] = {0};
    memcpy(y, x, sizeof y);
    memcpy(dx, dy, sizeof dx);
    dpt_nn_rmsnorm_heads_forward(T, HEADS, C, y, LD, w, eps, y, LD, kept, W, rstd);
    dpt_nn_rmsnorm_heads_backward_input(T, HEADS, C, dx, LD, kept, W, w, rstd, false, dx, LD);
    dpt_nn_rmsnorm_heads_backward_weight(T, HEADS, C, dy, LD, kept, W, rstd, false, dw);
    dpt_nn_rmsnorm_heads_terms(T, HEADS, C, dy, LD, kept, W, rstd, e, term);
    for (int t = 0; t < T; t++)
        for (int j = 0; j < HEADS; j++) {
            int at = t * LD + j * C;
            assert_memory_equal(kept + t * W + j * C, x + at, sizeof want);
            dpt_nn_rmsnorm_forward(1, C, x + at, LD, w, eps, want, C, &want_rstd);
            assert_memory_equal(y + at, want, sizeof want);
            assert_memory_equal(&rstd[t * HEADS + j], &want_rstd, sizeof want_rstd);
            dpt_nn_rmsnorm_backward_input(1, C, dy + at, LD, x + at, LD, w, &want_rstd, false, want,
                                          C);
            assert_memory_equal(dx + at, want, sizeof want);
            dpt_nn_rmsnorm_backward_weight(1, C, dy + at, LD, x + at, LD, &want_rstd, true,
                                           want_dw);
            dpt_nn_rmsnorm_terms(1, C, dy + at, LD, x + at, LD, &want_rstd, e, want_term + t);
        }
    double *wide_dw = nn_widen(C, want_dw);
    nn_assert_near(1, C, dw, C, wide_dw, 1e-6);
    nn_assert_near_double(T, term, want_term, 1e-12);
    test_free(wide_dw);
    test_free(x);
    test_free(w);
    test_free(dy);
    test_free(e);
}

static void factors_of_columns_match_reference(void **state) {
    (void)state;
    enum { T = 4, C = 19, LD = 21 };
    float *x = nn_floats(T * LD, 1, 1), *w = nn_floats(C, 1, 2), *dy = nn_floats(T * LD, 1, 3);
    float *e = nn_floats(C, 1, 4), dw[C];
    double want[T * C], want_dw[C] = {0}, term[T] = {0}, want_term[T] = {0};
    for (int i = 0; i < T * C; i++) {
        double xi = (double)x[i / C * LD + i % C], di = (double)dy[i / C * LD + i % C];
        want[i] = xi * (double)w[i % C];
        want_dw[i % C] += di * xi;
        want_term[i / C] += di * xi * (double)e[i % C];
    }
    dpt_nn_rmsnorm_backward_weight(T, C, dy, LD, x, LD, NULL, false, dw);
    nn_assert_near(1, C, dw, C, want_dw, 1e-6);
    dpt_nn_rmsnorm_terms(T, C, dy, LD, x, LD, NULL, e, term);
    nn_assert_near_double(T, term, want_term, 1e-6);
    dpt_nn_scale(T, C, x, LD, w, x, LD); /* in place */
    nn_assert_near(T, C, x, LD, want, 1e-6);
    test_free(x);
    test_free(w);
    test_free(dy);
    test_free(e);
}

static void a_row_of_zeros_and_a_huge_row_stay_finite(void **state) {
    (void)state;
    enum { C = 40 };
    float x[2 * C] = {0}, w[C], y[2 * C], rstd[2];
    for (int c = 0; c < C; c++) {
        w[c] = 1.0f;
        x[C + c] = 1e30f; /* its square overflows in single precision */
    }
    dpt_nn_rmsnorm_forward(2, C, x, C, w, 1e-5f, y, C, rstd);
    for (int c = 0; c < C; c++) {
        assert_true(y[c] == 0.0f);
        assert_true(fabsf(y[C + c] - 1.0f) < 1e-6f);
    }
}

/* Rows are worked on in pairs of neighbours and in blocks: none of it shows. */
static void a_row_is_the_same_alone_and_in_place(void **state) {
    (void)state;
    enum { T = 37, C = 45, LD = 48 };
    float *x = nn_floats(T * LD, 1, 1), *w = nn_floats(C, 1, 2), *dy = nn_floats(T * LD, 1, 3);
    float y[T * LD], rstd[T], one[C], one_rstd, dx[T * LD], inside[T * LD];
    dpt_nn_rmsnorm_forward(T, C, x, LD, w, 1e-5f, y, LD, rstd);
    memcpy(inside, x, sizeof inside);
    dpt_nn_rmsnorm_forward(T, C, inside, LD, w, 1e-5f, inside, LD, NULL);
    for (int t = 0; t < T; t++) {
        dpt_nn_rmsnorm_forward(1, C, x + t * LD, LD, w, 1e-5f, one, C, &one_rstd);
        assert_memory_equal(one, y + t * LD, sizeof one);
        assert_memory_equal(one, inside + t * LD, sizeof one);
        assert_memory_equal(&one_rstd, &rstd[t], sizeof one_rstd);
    }
    for (int adds = 0; adds < 2; adds++) {
        memcpy(dx, y, sizeof dx);
        dpt_nn_rmsnorm_backward_input(T, C, dy, LD, x, LD, w, rstd, adds, dx, LD);
        for (int t = 0; t < T; t++) {
            memcpy(one, y + t * LD, sizeof one);
            dpt_nn_rmsnorm_backward_input(1, C, dy + t * LD, LD, x + t * LD, LD, w, &rstd[t], adds,
                                          one, C);
            assert_memory_equal(one, dx + t * LD, sizeof one);
        }
    }
    test_free(x);
    test_free(w);
    test_free(dy);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_is_the_same_alone_and_in_place),
        cmocka_unit_test(rmsnorm_matches_reference),
        cmocka_unit_test(layernorm_matches_reference),
        cmocka_unit_test(gradient_may_overwrite_its_argument),
        cmocka_unit_test(column_blocks_make_the_whole),
        cmocka_unit_test(heads_of_a_token_are_rows),
        cmocka_unit_test(factors_of_columns_match_reference),
        cmocka_unit_test(a_row_of_zeros_and_a_huge_row_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

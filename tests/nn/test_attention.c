/* ranks: 1 */
#include "nn/nn_test.h"

#include <string.h>

#include "deltapath/nn/attention.h"

/** The same problem in double: contiguous arrays, no blocks. */
typedef struct {
    const dpt_attention_shape *s;
    double *q, *k, *v, *d_o, *o, *lse;
    double *sink; /**< (hq), or NULL */
} reference;

static bool visible(const dpt_attention_shape *s, int64_t i, int64_t l) {
    return !s->causal || (l <= i && (s->window == 0 || i - l < s->window));
}

static double dot(int64_t n, const double *a, const double *b) {
    double sum = 0.0;
    for (int64_t c = 0; c < n; c++)
        sum += a[c] * b[c];
    return sum;
}

static double capped(double cap, double s) {
    return cap > 0.0 ? cap * tanh(s / cap) : s;
}

/** Derivative of a capped score with respect to what it was. */
static double cap_slope(double cap, double s) {
    return cap > 0.0 ? 1.0 / (cosh(s / cap) * cosh(s / cap)) : 1.0;
}

static double score(const reference *r, int64_t i, int64_t j, int64_t l) {
    const dpt_attention_shape *s = r->s;
    return (double)s->scale *
           dot(s->hd, r->q + (i * s->hq + j) * s->hd, r->k + (l * s->hkv + s->kv_of[j]) * s->hd);
}

static void forward_row(reference *r, int64_t i, int64_t j, double *p) {
    const dpt_attention_shape *s = r->s;
    int64_t hd = s->hd, wq = s->hq * hd, wk = s->hkv * hd;
    double *o = r->o + i * wq + j * hd, max = r->sink ? r->sink[j] : -INFINITY, sum = 0.0;
    for (int64_t l = 0; l < s->n; l++) {
        p[l] = capped((double)s->cap, score(r, i, j, l));
        max = visible(s, i, l) ? fmax(max, p[l]) : max;
    }
    for (int64_t l = 0; l < s->n; l++) {
        p[l] = visible(s, i, l) ? exp(p[l] - max) : 0.0;
        sum += p[l];
    }
    sum += r->sink ? exp(r->sink[j] - max) : 0.0;
    for (int64_t c = 0; c < hd; c++)
        o[c] = 0.0;
    for (int64_t l = 0; l < s->n; l++) {
        p[l] /= sum;
        for (int64_t c = 0; c < hd; c++)
            o[c] += p[l] * r->v[l * wk + s->kv_of[j] * hd + c];
    }
    r->lse[j * s->n + i] = max + log(sum);
}

static double attention_loss(void *context) {
    reference *r = context;
    double *p = nn_doubles(r->s->n);
    for (int64_t j = 0; j < r->s->hq; j++)
        for (int64_t i = 0; i < r->s->n; i++)
            forward_row(r, i, j, p);
    test_free(p);
    return dot(r->s->n * r->s->hq * r->s->hd, r->o, r->d_o);
}

/** Backward pass of the reference: adds to dq, dk, dv. */
static void reference_backward(reference *r, double *dq, double *dk, double *dv) {
    const dpt_attention_shape *s = r->s;
    int64_t hd = s->hd, wq = s->hq * hd, wk = s->hkv * hd;
    double *p = nn_doubles(s->n);
    for (int64_t j = 0; j < s->hq; j++)
        for (int64_t i = 0; i < s->n; i++) {
            int64_t at = i * wq + j * hd;
            forward_row(r, i, j, p);
            double whole = dot(hd, r->o + at, r->d_o + at);
            for (int64_t l = 0; l < s->n; l++) {
                int64_t kat = l * wk + s->kv_of[j] * hd;
                double ds = p[l] * (dot(hd, r->d_o + at, r->v + kat) - whole) * (double)s->scale *
                            cap_slope((double)s->cap, score(r, i, j, l));
                for (int64_t c = 0; c < hd; c++) {
                    dq[at + c] += ds * r->k[kat + c];
                    dk[kat + c] += ds * r->q[at + c];
                    dv[kat + c] += p[l] * r->d_o[at + c];
                }
            }
        }
    test_free(p);
}

static double *gather(int64_t rows, int64_t cols, int64_t ld, const float *x) {
    double *y = nn_doubles(rows * cols);
    for (int64_t i = 0; i < rows * cols; i++)
        y[i] = (double)x[i / cols * ld + i % cols];
    return y;
}

/** The gradient of the sinks is the sum of d over the tokens. */
static void check_sink_gradient(const reference *r, const float *d, int64_t ld, const double *want,
                                double tol) {
    for (int64_t j = 0; j < r->s->hq; j++) {
        double sum = 0.0;
        for (int64_t i = 0; i < r->s->n; i++)
            sum += (double)d[i * ld + j];
        if (!(fabs(sum - want[j]) <= tol * (1.0 + fabs(want[j]))))
            print_error("sink %d: %g instead of %g\n", (int)j, sum, want[j]);
        assert_true(fabs(sum - want[j]) <= tol * (1.0 + fabs(want[j])));
    }
}

static void check_sunk(dpt_attention_shape s, double scale, bool sinks, bool finite_difference,
                       double tol) {
    int64_t wq = s.hq * s.hd, wk = s.hkv * s.hd, n = s.n;
    s.ldq = wq + 2 * wk + 1; /* as inside a fused projection */
    s.ldk = s.ldv = s.ldq;
    s.ldo = wq + 3;
    float *qkv = nn_floats(n * s.ldq, scale, 1), *o = nn_floats(n * s.ldo, 1, 2);
    float *d_o = nn_floats(n * s.ldo, 1, 3), *dqkv = nn_floats(n * s.ldq, 1, 4);
    float *lse = nn_floats(s.hq * n, 1, 5), *sink = nn_floats(s.hq, 2.0, 7);
    float *d_sink = nn_floats(n * (s.hq + 1), 1, 8);
    float *scratch = nn_floats((int64_t)dpt_nn_attention_scratch(&s), 1, 6);
    reference r = {&s,
                   gather(n, wq, s.ldq, qkv),
                   gather(n, wk, s.ldq, qkv + wq),
                   gather(n, wk, s.ldq, qkv + wq + wk),
                   gather(n, wq, s.ldo, d_o),
                   nn_doubles(n * wq),
                   nn_doubles(s.hq * n),
                   sinks ? nn_widen(s.hq, sink) : NULL};
    double *dq = nn_doubles(n * wq), *dk = nn_doubles(n * wk), *dv = nn_doubles(n * wk);
    reference_backward(&r, dq, dk, dv);

    dpt_nn_attention_forward(&s, qkv, qkv + wq, qkv + wq + wk, o, lse, scratch);
    if (sinks)
        dpt_nn_attention_sink_forward(n, s.hq, s.hd, sink, o, s.ldo, lse);
    nn_assert_near(n, wq, o, s.ldo, r.o, tol);
    nn_assert_near(s.hq, n, lse, n, r.lse, tol);
    dpt_nn_attention_backward(&s, qkv, qkv + wq, qkv + wq + wk, o, lse, d_o, dqkv, dqkv + wq,
                              dqkv + wq + wk, scratch);
    nn_assert_near(n, wq, dqkv, s.ldq, dq, tol);
    nn_assert_near(n, wk, dqkv + wq, s.ldq, dk, tol);
    nn_assert_near(n, wk, dqkv + wq + wk, s.ldq, dv, tol);
    if (finite_difference) {
        double *fq = nn_finite_difference(attention_loss, &r, r.q, n * wq);
        double *fk = nn_finite_difference(attention_loss, &r, r.k, n * wk);
        double *fv = nn_finite_difference(attention_loss, &r, r.v, n * wk);
        nn_assert_near_double(n * wq, dq, fq, 1e-7);
        nn_assert_near_double(n * wk, dk, fk, 1e-7);
        nn_assert_near_double(n * wk, dv, fv, 1e-7);
        if (sinks) {
            double *fs = nn_finite_difference(attention_loss, &r, r.sink, s.hq);
            dpt_nn_attention_sink_backward(n, s.hq, s.hd, sink, o, d_o, s.ldo, lse, d_sink,
                                           s.hq + 1);
            check_sink_gradient(&r, d_sink, s.hq + 1, fs, tol);
            test_free(fs);
        }
        test_free(fq);
        test_free(fk);
        test_free(fv);
    }
    void *all[] = {qkv, o,   d_o, dqkv,  lse, scratch, sink, d_sink, r.q,
                   r.k, r.v, r.o, r.d_o, dq,  dk,      dv,   r.lse};
    for (int64_t i = 0; i < NN_COUNT(all); i++)
        test_free(all[i]);
    if (r.sink)
        test_free(r.sink);
}

static void check_attention(dpt_attention_shape s, double scale, bool finite_difference,
                            double tol) {
    check_sunk(s, scale, false, finite_difference, tol);
}

static dpt_attention_shape shape(int64_t n, int64_t hq, int64_t hkv, int64_t hd,
                                 const int32_t *map) {
    dpt_attention_shape s = {.n = n, .hq = hq, .hkv = hkv, .hd = hd, .kv_of = map};
    s.scale = hd > 0 ? (float)(1.0 / sqrt((double)hd)) : 1.0f;
    s.causal = true;
    s.threads = 1;
    return s;
}

static const int32_t same[] = {0, 1, 2, 3}, grouped[] = {0, 0, 1, 1}, ragged[] = {0, 1, 1, 2};

static void small_shapes_match_finite_differences(void **state) {
    (void)state;
    check_attention(shape(1, 1, 1, 1, same), 2.0, true, 1e-5);
    check_attention(shape(7, 2, 2, 3, same), 2.0, true, 1e-5);
    check_attention(shape(9, 4, 2, 4, grouped), 2.0, true, 1e-5);
    check_attention(shape(9, 4, 3, 4, ragged), 2.0, true, 1e-5);
    dpt_attention_shape s = shape(11, 2, 1, 4, (const int32_t[]){0, 0});
    s.window = 3;
    check_attention(s, 2.0, true, 1e-5);
    s.window = 1;
    check_attention(s, 2.0, false, 1e-5);
    s.window = 0;
    s.causal = false;
    check_attention(s, 2.0, true, 1e-5);
}

static void blocks_fit_together(void **state) {
    (void)state;
    check_attention(shape(128, 1, 1, 16, same), 1.0, false, 1e-5);
    check_attention(shape(129, 2, 2, 16, same), 1.0, false, 1e-5);
    check_attention(shape(700, 4, 2, 8, grouped), 1.0, false, 1e-5);
    dpt_attention_shape s = shape(700, 2, 2, 8, same);
    for (int64_t window = 100; window <= 900; window += 200) {
        s.window = window;
        check_attention(s, 1.0, false, 1e-5);
    }
    s.window = 0;
    s.causal = false;
    check_attention(s, 1.0, false, 1e-5);
    s.causal = true;
    s.n = 1100; /* windows that begin in a later key block for some rows of a query block */
    s.window = 520;
    check_attention(s, 3.0, false, 1e-5);
}

static void threads_share_the_heads(void **state) {
    (void)state;
    dpt_attention_shape s = shape(300, 4, 3, 8, ragged);
    s.threads = 3;
    check_attention(s, 1.0, false, 1e-5);
    s.threads = 7; /* more than kv heads: the probabilities are computed twice */
    check_attention(s, 1.0, false, 1e-5);
    s = shape(150, 4, 1, 8, (const int32_t[]){0, 0, 0, 0});
    for (s.threads = 2; s.threads <= 5; s.threads++)
        check_attention(s, 1.0, false, 1e-5);
    s.window = 40;
    check_attention(s, 1.0, false, 1e-5);
    s.causal = false;
    s.window = 0;
    check_attention(s, 1.0, false, 1e-5);
    s.threads = 64; /* more than there is work for */
    s.n = 5;
    check_attention(s, 1.0, false, 1e-5);
}

/** Where a sequence lies in the matrices of a batch. */
typedef struct {
    int64_t before, after; /* rows of others */
    int64_t skip;          /* columns of others, before and after */
} nn_place;

/** x (rows, cols) at that place; all else is NaN. */
static float *placed(nn_place at, int64_t rows, int64_t cols, const float *x) {
    int64_t ld = cols + 2 * at.skip, count = (at.before + rows + at.after) * ld;
    float *y = nn_floats(count, 1, 1);
    for (int64_t i = 0; i < count; i++) {
        int64_t row = i / ld - at.before, col = i % ld - at.skip;
        bool own = row >= 0 && row < rows && col >= 0 && col < cols;
        y[i] = own ? x[row * cols + col] : NAN;
    }
    return y;
}

/** What placed() got, from that place; fails if others were written. */
static void take_placed(nn_place at, int64_t rows, int64_t cols, float *y, float *x) {
    int64_t ld = cols + 2 * at.skip, count = (at.before + rows + at.after) * ld;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < cols; c++) {
            float *own = y + (at.before + i) * ld + at.skip + c;
            x[i * cols + c] = *own;
            *own = NAN;
        }
    for (int64_t i = 0; i < count; i++)
        assert_true(isnan(y[i]));
    test_free(y);
}

/** o, lse, dq, dk and dv of a shape, one after the other; the sequence lies there, in memory that held others. */
static float *results_at(nn_place at, dpt_attention_shape s, int64_t *count) {
    int64_t wq = s.hq * s.hd, wk = s.hkv * s.hd, ld = wq + 2 * wk, need;
    *count = s.n * (wq + s.hq + ld);
    float *x = nn_floats(s.n * ld, 1.0, 1), *y = nn_floats(s.n * wq, 1, 3);
    float *out = nn_floats(*count, 1, 2), *lse = out + s.n * wq;
    float *qkv = placed(at, s.n, ld, x), *dqkv = placed(at, s.n, ld, x);
    float *d_o = placed(at, s.n, wq, y), *o = placed(at, s.n, wq, y);
    need = (int64_t)dpt_nn_attention_scratch(&s);
    float *scratch = placed((nn_place){.before = 1}, 0, need, NULL);
    s.ldq = s.ldk = s.ldv = ld + 2 * at.skip;
    s.ldo = wq + 2 * at.skip;
    int64_t first = at.before * s.ldq + at.skip, firsto = at.before * s.ldo + at.skip;
    float *q = qkv + first, *dq = dqkv + first;
    dpt_nn_attention_forward(&s, q, q + wq, q + wq + wk, o + firsto, lse, scratch);
    dpt_nn_attention_backward(&s, q, q + wq, q + wq + wk, o + firsto, lse, d_o + firsto, dq,
                              dq + wq, dq + wq + wk, scratch);
    take_placed(at, s.n, wq, o, out);
    take_placed(at, s.n, ld, dqkv, lse + s.n * s.hq);
    test_free(x);
    test_free(y);
    test_free(qkv);
    test_free(d_o);
    test_free(scratch);
    return out;
}

static float *results_of(dpt_attention_shape s, int64_t *count) {
    return results_at((nn_place){0}, s, count);
}

/* The loss of a sample must not depend on the samples that share its batch. */
static void a_sequence_has_the_same_bits_among_others(void **state) {
    (void)state;
    const nn_place places[] = {{1, 0, 0}, {0, 2, 1}, {3, 1, 2}, {5, 3, 7}};
    const int64_t lengths[] = {1, 6, 64, 149}, widths[] = {5, 16, 37, 80};
    for (int64_t k = 0; k < 4 * NN_COUNT(lengths) * NN_COUNT(widths); k++) {
        int64_t count;
        dpt_attention_shape s = shape(lengths[k / 4 % 4], 4, 2, widths[k / 16], grouped);
        s.window = k % 2 * 11;
        s.cap = k % 3 == 1 ? 2.0f : 0.0f;
        s.causal = k % 5 != 0;
        float *alone = results_of(s, &count);
        float *among = results_at(places[k % 4], s, &count);
        assert_memory_equal(alone, among, (size_t)count * sizeof *alone);
        test_free(alone);
        test_free(among);
    }
}

static void any_number_of_threads_gives_the_same_bits(void **state) {
    (void)state;
    const int64_t windows[] = {0, 130, 7};
    dpt_attention_shape s = shape(515, 4, 2, 20, grouped);
    for (size_t i = 0; i < NN_COUNT(windows); i++) {
        int64_t count;
        s.window = windows[i];
        s.threads = 1;
        float *one = results_of(s, &count);
        for (s.threads = 2; s.threads <= 9; s.threads += 3) {
            float *more = results_of(s, &count);
            assert_memory_equal(one, more, (size_t)count * sizeof *one);
            test_free(more);
        }
        test_free(one);
    }
}

/* More heads of a group than a task takes, heads of a width that is no multiple of a vector, blocks of keys that end
 * within one. */
static void odd_shapes_match_the_reference(void **state) {
    (void)state;
    static const int32_t zeros[19] = {0}, mixed[] = {1, 0, 1, 1, 0, 2, 1, 1, 1, 1, 1, 1, 2};
    check_attention(shape(21, 19, 1, 5, zeros), 1.0, false, 1e-5);
    dpt_attention_shape s = shape(83, 13, 3, 37, mixed);
    for (s.threads = 1; s.threads <= 7; s.threads += 3) {
        s.window = 0;
        check_attention(s, 1.0, false, 1e-5);
        s.window = 11;
        check_attention(s, 1.0, false, 1e-5);
    }
    s = shape(290, 2, 1, 128, zeros); /* blocks of keys of both passes, whole and not */
    check_attention(s, 1.0, false, 1e-5);
    s.window = 140;
    s.threads = 3;
    check_attention(s, 1.0, false, 1e-5);
    check_attention(shape(70, 1, 1, 600, zeros), 0.5, false, 1e-5); /* the smallest blocks */
    for (int64_t vectors = 1; vectors <= 9; vectors++) /* of columns, in tiles of each width */
        check_attention(shape(150, 2, 1, 16 * vectors, zeros), 1.0, false, 1e-5);
}

static void scores_may_be_turned_round(void **state) {
    (void)state;
    dpt_attention_shape s = shape(31, 2, 2, 6, same);
    s.scale = -0.7f;
    check_attention(s, 1.0, false, 1e-5);
    s.scale = 0.0f;
    check_attention(s, 1.0, false, 1e-5);
}

static void caps_bound_the_scores(void **state) {
    (void)state;
    dpt_attention_shape s = shape(9, 4, 2, 4, grouped);
    for (s.cap = 0.5f; s.cap < 50.0f; s.cap *= 9.0f)
        check_attention(s, 2.0, true, 1e-5);
    s.window = 3;
    s.cap = 1.0f;
    check_attention(s, 2.0, true, 1e-5);
    s = shape(700, 2, 2, 8, same); /* several blocks of queries and keys */
    s.cap = 2.0f;
    check_attention(s, 2.0, false, 1e-5);
    s.window = 100;
    s.threads = 5;
    check_attention(s, 2.0, false, 1e-5);
}

static void sinks_take_their_share(void **state) {
    (void)state;
    check_sunk(shape(1, 1, 1, 1, same), 2.0, true, true, 1e-5);
    dpt_attention_shape s = shape(9, 4, 2, 4, grouped);
    check_sunk(s, 2.0, true, true, 1e-5);
    s.window = 2;
    s.cap = 1.5f;
    check_sunk(s, 2.0, true, true, 1e-5);
    check_sunk(shape(130, 4, 3, 8, ragged), 1.0, true, false, 1e-5);
    check_sunk(shape(0, 4, 2, 4, grouped), 2.0, true, true, 1e-5);
}

/* A sink far above all scores takes everything, one far below nothing. */
static void extreme_sinks_stay_finite(void **state) {
    (void)state;
    float o[] = {2, 2}, lse[] = {1, 1}, d[2];
    const float sink[] = {3e38f, -3e38f}, d_o[] = {1, 1};
    dpt_nn_attention_sink_forward(1, 2, 1, sink, o, 2, lse);
    assert_true(o[0] == 0.0f && o[1] == 2.0f && lse[0] == 3e38f && lse[1] == 1.0f);
    dpt_nn_attention_sink_backward(1, 2, 1, sink, o, d_o, 2, lse, d, 2);
    assert_true(d[0] == 0.0f && d[1] == 0.0f);
}

static void a_kv_head_without_queries_gets_zero(void **state) {
    (void)state;
    check_attention(shape(6, 2, 3, 4, (const int32_t[]){2, 0}), 1.0, false, 1e-5);
}

static void empty_shapes(void **state) {
    (void)state;
    check_attention(shape(0, 2, 1, 4, (const int32_t[]){0, 0}), 1.0, false, 1e-5);
    check_attention(shape(3, 0, 0, 4, same), 1.0, false, 1e-5);
    check_attention(shape(3, 0, 2, 4, same), 1.0, false, 1e-5);
}

static void extreme_scores_stay_finite(void **state) {
    (void)state;
    enum { N = 200 };
    dpt_attention_shape s = shape(N, 1, 1, 1, same);
    s.ldq = s.ldk = s.ldv = s.ldo = 1;
    s.scale = 1.0f;
    float q[N], k[N], v[N], o[N], lse[N], dq[N], dk[N], dv[N];
    float *scratch = nn_floats((int64_t)dpt_nn_attention_scratch(&s), 1, 6);
    for (int i = 0; i < N; i++) {
        q[i] = i % 2 ? 100.0f : -100.0f; /* scores up to 2e4, growing along the row */
        k[i] = (float)i;
        v[i] = (float)i;
    }
    dpt_nn_attention_forward(&s, q, k, v, o, lse, scratch);
    for (int i = 0; i < N; i++)
        assert_true(o[i] == (i % 2 ? (float)i : 0.0f));
    dpt_nn_attention_backward(&s, q, k, v, o, lse, v, dq, dk, dv, scratch);
    for (int i = 0; i < N; i++)
        assert_true(isfinite(dq[i]) && isfinite(dk[i]) && isfinite(dv[i]));
    test_free(scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_shapes_match_finite_differences),
        cmocka_unit_test(blocks_fit_together),
        cmocka_unit_test(threads_share_the_heads),
        cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(a_sequence_has_the_same_bits_among_others),
        cmocka_unit_test(odd_shapes_match_the_reference),
        cmocka_unit_test(scores_may_be_turned_round),
        cmocka_unit_test(caps_bound_the_scores),
        cmocka_unit_test(sinks_take_their_share),
        cmocka_unit_test(extreme_sinks_stay_finite),
        cmocka_unit_test(a_kv_head_without_queries_gets_zero),
        cmocka_unit_test(empty_shapes),
        cmocka_unit_test(extreme_scores_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

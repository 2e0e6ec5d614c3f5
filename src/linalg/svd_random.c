#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include "panel.h"
#include "svd_methods.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

/* Range finder with power iterations (Halko, Martinsson, Tropp, SIAM Review 53, 2011), in the form
 * of an orthogonal iteration on B = A^T A: V <- orth(B V). With Z = B V and V orthonormal the
 * square roots of the eigenvalues of Z^T Z lie between the Ritz values of V and the eigenvalues of
 * B: they say when to stop, and come from the Gram matrix that orth needs anyway. All large
 * products are local sgemm on the row slab; an iteration exchanges Z, its Gram matrix, one factor
 * and V.
 *
 * Why iterate and judge, not a fixed sketch: where singular values fall slowly, as those of deltas
 * do, a single pass leaves a residual far above the best. How many iterations that takes depends on
 * a gap that is not known beforehand, so the growth of the captured energy is watched
 * (svd_random_judge). The residual is judged, not single values: in a flat spectrum these settle
 * long after the subspace is as good as any. What would settle later than the exact method takes is
 * left to that method, after two iterations.
 *
 * Why a shift: B - a I has the vectors of B, and with a at most half of the smallest value of the
 * basis nothing outside the basis becomes larger than it was inside. Flat spectra separate about
 * half again as fast (Feng, Yu, Xie, Xue, IJCAI 2023), for one subtraction.
 *
 * Why orthonormalise by Cholesky of Gram matrices, not by QR: a tall QR over ranks is a tree of
 * messages, Cholesky QR one sum of a small matrix. It squares the condition of the panel, which
 * fp32 does not forgive: hence Gram matrices in double, repeated passes (panel.c), and `skew`. B V
 * has the square of A's spectrum; while the columns of A V are nearly dependent, the directions of
 * small singular values would vanish in the rounding of that square. Then A V is orthonormalised
 * between the two products (one more small exchange) until its columns have separated.
 *
 * Invariant: `width` is the number of columns of the basis, which only shrinks, where columns turn
 * out to be dependent; it and all decisions come from matrices that rank 0 factorised and
 * broadcast, so all ranks take the same branch. */

enum { OVERSAMPLE_MIN = 64, ITERATIONS_MAX = 32 };

/* Below: A V is orthonormalised too, for B would square it. */
static const double SKEW_PIVOT = 1e-2;
/* Singular values below this share of the first are noise. */
static const double RANDOM_NULL = 1e-6;
/* Of the smallest eigenvalue of the basis; half would leave a null space as large as that value. */
static const double SHIFT_SHARE = 0.45;

typedef struct random_state {
    const dpt_svd_problem *problem;
    int64_t width; /* columns of the basis now */
    int64_t first; /* rows of V dealt to this rank */
    int64_t own_rows;
    float *v;         /* (cols, width) whole */
    float *y;         /* (local rows, width) A V / |A| */
    float *z;         /* (cols, width) partial A^T Y / |A| */
    float *share;     /* (own_rows, width) of the sum of z, then of v */
    double *values;   /* (width) estimates of the last iteration, relative to |A| */
    double *previous; /* (width) of the one before; zeros at first */
    int *counts;      /* scratch of the exchanges */
    dpt_panel_work work;
    double fall;  /* last growth of the captured energy, share of |A|^2 */
    double shift; /* of B / |A|^2 */
    double most;  /* further iterations that cost no more than the exact method */
    bool skew;    /* the columns of A V are not yet separated */
} random_state;

int64_t dpt_svd_sketch_width(int64_t rows, int64_t cols, int64_t rank) {
    int64_t side = rows < cols ? rows : cols;
    int64_t width = 2 * rank > rank + OVERSAMPLE_MIN ? 2 * rank : rank + OVERSAMPLE_MIN;
    return width < side ? width : side;
}

static dpt_status state_create(random_state *s, const dpt_svd_problem *problem) {
    const dpt_comm *comm = problem->comm;
    int64_t l = dpt_svd_sketch_width(problem->rows, problem->cols, problem->rank);
    int64_t n = problem->cols;
    *s = (random_state){.problem = problem, .width = l, .skew = true};
    s->most = dpt_svd_exact_cost(problem->rows, problem->cols, problem->rank) /
              dpt_svd_iteration_cost(problem->rows, problem->cols, problem->rank);
    s->first = dpt_panel_share(n, comm->rank, comm->size);
    s->own_rows = dpt_panel_share(n, comm->rank + 1, comm->size) - s->first;
    s->v = dpt_mem_alloc(n * l, sizeof *s->v, "basis of the range finder");
    s->z = dpt_mem_alloc(n * l, sizeof *s->z, "image of the range finder");
    s->share = dpt_mem_alloc(s->own_rows * l, sizeof *s->share, "share of the basis");
    s->y = dpt_mem_alloc(problem->local_rows * l, sizeof *s->y, "image of the range finder");
    s->values = dpt_mem_zalloc(l, sizeof *s->values, "singular value estimates");
    s->previous = dpt_mem_zalloc(l, sizeof *s->previous, "singular value estimates");
    s->counts = dpt_mem_alloc(2 * (int64_t)comm->size, sizeof *s->counts, "counts of shares");
    dpt_status st = s->v == NULL || s->z == NULL || s->share == NULL || s->y == NULL ||
                            s->values == NULL || s->previous == NULL || s->counts == NULL
                        ? DPT_ERR_OUTPUT
                        : dpt_panel_fill(problem->sketch, 0, n, l, s->v);
    st = dpt_agree(comm, st);
    return st != DPT_OK ? st : dpt_panel_work_create(comm, l, &s->work);
}

static void state_destroy(random_state *s) {
    dpt_panel_work_destroy(&s->work);
    dpt_mem_free(s->v);
    dpt_mem_free(s->z);
    dpt_mem_free(s->share);
    dpt_mem_free(s->y);
    dpt_mem_free(s->values);
    dpt_mem_free(s->previous);
    dpt_mem_free(s->counts);
}

/* Y = A V / |A|. */
static void forward(random_state *s) {
    const dpt_svd_problem *p = s->problem;
    if (p->local_rows > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)p->local_rows, (int)s->width,
                    (int)p->cols, (float)(1.0 / p->norm), p->slab, (int)p->cols, s->v,
                    (int)s->width, 0.0f, s->y, (int)s->width);
}

/* Z = A^T Y / |A|, each rank its share. */
static dpt_status backward(random_state *s) {
    const dpt_svd_problem *p = s->problem;
    int n = (int)p->cols, l = (int)s->width;
    if (p->local_rows > 0)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, l, (int)p->local_rows,
                    (float)(1.0 / p->norm), p->slab, n, s->y, l, 0.0f, s->z, l);
    else
        memset(s->z, 0, (size_t)(p->cols * s->width) * sizeof *s->z);
    return dpt_panel_sum_to_shares(p->comm, p->cols, s->width, s->z, s->share, s->counts);
}

/* V = orth(A^T Y - shift V); the estimates, when V was orthonormal and Y is A V. */
static dpt_status svd_random_next(random_state *s) {
    const dpt_svd_problem *p = s->problem;
    int64_t l = s->width;
    double shift = s->skew ? 0.0 : s->shift;
    dpt_panel_transform step;
    dpt_status st = backward(s);
    const float *v = s->v + s->first * l;
    for (int64_t e = 0; shift > 0.0 && e < s->own_rows * l; e++)
        s->share[e] -= (float)shift * v[e];
    if (st == DPT_OK)
        st = dpt_panel_orthonormalise(p->comm, s->own_rows, &s->width, s->share, DPT_PANEL_LOOSE,
                                      &s->work, &step);
    if (st != DPT_OK)
        return st;
    DPT_ASSERT(s->width <= l && s->width == step.width);
    for (int64_t i = 0; i < l; i++) {
        double root = sqrt(fmax(0.0, s->work.roots[i]));
        s->values[i] = s->skew ? root : sqrt(root + shift);
    }
    s->skew = step.quality < SKEW_PIVOT || step.width < l;
    if (!s->skew) {
        double last = s->values[l - 1] * s->values[l - 1];
        s->shift = fmax(shift, SHIFT_SHARE * last);
    }
    return dpt_panel_gather_shares(p->comm, p->cols, s->width, s->share, s->v, s->counts);
}

/* One iteration. While the columns of A V are skew they are orthonormalised between the products;
 * the singular values of A^T Q then estimate those of A directly. */
static dpt_status iterate(random_state *s) {
    const dpt_svd_problem *p = s->problem;
    forward(s);
    if (s->skew) {
        dpt_status st = dpt_panel_orthonormalise(p->comm, p->local_rows, &s->width, s->y,
                                                 DPT_PANEL_LOOSE, &s->work, NULL);
        if (st != DPT_OK)
            return st;
    }
    return svd_random_next(s);
}

/* How the growth of the captured energy shrinks with an iteration, at least as slowly as the gap
 * between the last value that is wanted and the last of the basis says. */
static double svd_random_ratio(const random_state *s, int64_t k, double measured) {
    double last = s->values[s->width - 1] * s->values[s->width - 1];
    double wanted = s->values[k - 1] * s->values[k - 1] - s->shift;
    double gap = wanted > 0.0 ? fmax(last - s->shift, s->shift) / wanted : 1.0;
    return fmin(fmax(fmax(gap * gap, measured), 0.1), 0.98);
}

typedef enum verdict { GO_ON, CONVERGED, TOO_SLOW } verdict;

/* Whether the residual exceeds the best by at most the tolerance; everything is relative to |A|.
 * Two ways to know. What lies outside the basis bounds the excess. Or: the errors of the leading
 * values shrink like geometric series, whose slowest has the ratio of svd_random_ratio, so what is
 * still to come is about what such a series leaves after its last member, or less: the product with
 * the basis that follows is half an iteration more. */
static verdict svd_random_judge(random_state *s, int iteration) {
    double tolerance = s->problem->tolerance;
    int64_t k = s->problem->rank < s->width ? s->problem->rank : s->width;
    double all = 0.0, leading = 0.0, before = 0.0;
    for (int64_t i = 0; i < s->width; i++)
        all += s->values[i] * s->values[i];
    for (int64_t i = 0; i < k; i++) {
        leading += s->values[i] * s->values[i];
        before += s->previous[i] * s->previous[i];
    }
    double residual = sqrt(fmax(0.0, 1.0 - leading)), best = residual * residual;
    double outside = fmax(0.0, 1.0 - all);
    if (residual - sqrt(fmax(0.0, best - outside)) <= tolerance && sqrt(outside) <= tolerance)
        return CONVERGED;
    double fall = fmax(0.0, leading - before), last_fall = s->fall;
    s->fall = fall;
    memcpy(s->previous, s->values, (size_t)s->width * sizeof *s->values);
    if (iteration < 2 || k == 0)
        return GO_ON;
    double ratio =
        svd_random_ratio(s, k, iteration > 2 && last_fall > 0.0 ? fall / last_fall : 0.0);
    double to_come = fall * ratio / (1.0 - ratio);
    double excess = residual - sqrt(fmax(0.0, best - to_come));
    if (excess <= tolerance)
        return CONVERGED;
    return log(excess / tolerance) / log(1.0 / ratio) > s->most ? TOO_SLOW : GO_ON;
}

/* A V = Y and Y^T Y = W diag(s^2) W^T give U = Y W diag(1 / s) and V <- V W, here into share. */
static dpt_status svd_random_rotate(random_state *s, int64_t found, float *factor, dpt_svd *out) {
    const dpt_svd_problem *p = s->problem;
    int64_t l = s->width;
    for (int64_t i = 0; i < l; i++)
        for (int64_t j = 0; j < found; j++)
            factor[i * found + j] = (float)s->work.t[i * l + j];
    if (s->own_rows > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)s->own_rows, (int)found, (int)l,
                    1.0f, s->v + s->first * l, (int)l, factor, (int)found, 0.0f, s->share,
                    (int)found);
    for (int64_t e = 0; e < l * found; e++)
        factor[e] = (float)(factor[e] / s->values[e % found]);
    if (p->local_rows > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)p->local_rows, (int)found,
                    (int)l, 1.0f, s->y, (int)l, factor, (int)found, 0.0f, out->u, (int)found);
    int64_t u_width = found, v_width = found;
    dpt_status st = dpt_panel_orthonormalise(p->comm, p->local_rows, &u_width, out->u,
                                             DPT_PANEL_KEEP, &s->work, NULL);
    if (st == DPT_OK)
        st = dpt_panel_orthonormalise(p->comm, s->own_rows, &v_width, s->share, DPT_PANEL_KEEP,
                                      &s->work, NULL);
    if (st == DPT_OK && (u_width < found || v_width < found))
        st = dpt_error(DPT_ERR_INTERNAL, "%s: the range finder lost singular vectors", p->name);
    return st;
}

/* Spread (rows, have) without gaps to (rows, want), last row first. */
static void svd_random_widen(int64_t rows, int64_t have, int64_t want, float *y) {
    for (int64_t i = rows - 1; have < want && i >= 0; i--)
        memmove(y + i * want, y + i * have, (size_t)have * sizeof *y);
}

/* Noise and the null space: s = 0 with vectors that complete the bases. The share has room for all
 * wanted columns, for the sketch was at least that wide. */
static dpt_status complete(random_state *s, int64_t found, dpt_svd *out) {
    const dpt_svd_problem *p = s->problem;
    int64_t k = p->rank;
    DPT_ASSERT(found <= k && k <= dpt_svd_sketch_width(p->rows, p->cols, k));
    dpt_rng stream = {.key = ~p->sketch.key, .purpose = p->sketch.purpose};
    svd_random_widen(p->local_rows, found, k, out->u);
    svd_random_widen(s->own_rows, found, k, s->share);
    dpt_status st = dpt_panel_complete(p->comm, p->row0, p->local_rows, found, k, stream, out->u);
    if (st == DPT_OK)
        st = dpt_panel_complete(p->comm, s->first, s->own_rows, found, k, stream, s->share);
    return st;
}

static dpt_status svd_random_finish(random_state *s, dpt_svd *out) {
    const dpt_svd_problem *p = s->problem;
    int64_t k = p->rank, found = 0;
    float *factor = dpt_mem_alloc(s->width * k, sizeof *factor, "rotation of the basis");
    dpt_status st = factor == NULL ? DPT_ERR_OUTPUT : dpt_svd_allocate(p, k, out);
    st = dpt_agree(p->comm, st);
    if (st == DPT_OK) {
        forward(s);
        st = dpt_panel_gram_f32(p->comm, p->local_rows, s->width, s->y, &s->work);
    }
    if (st == DPT_OK)
        st = dpt_panel_eigen(p->comm, s->width, &s->work);
    if (st == DPT_OK) {
        for (int64_t i = 0; i < s->width; i++)
            s->values[i] = sqrt(fmax(0.0, s->work.roots[i]));
        while (found < k && found < s->width && s->values[found] > RANDOM_NULL * s->values[0])
            found++;
        for (int64_t i = 0; i < found; i++) {
            DPT_ASSERT(s->values[i] > 0.0 && (i == 0 || s->values[i] <= s->values[i - 1]));
            out->s[i] = s->values[i] * p->norm;
        }
        st = svd_random_rotate(s, found, factor, out);
    }
    if (st == DPT_OK)
        st = complete(s, found, out);
    if (st == DPT_OK)
        st = dpt_panel_gather_shares(p->comm, p->cols, k, s->share, out->v, s->counts);
    dpt_mem_free(factor);
    return st;
}

dpt_status dpt_svd_random(const dpt_svd_problem *problem, dpt_svd *out, bool *converged) {
    random_state s;
    verdict so_far = GO_ON;
    dpt_status st = state_create(&s, problem);
    if (st == DPT_OK)
        st = iterate(&s); /* the random sketch is no orthonormal basis: nothing to judge yet */
    for (int i = 1; st == DPT_OK && so_far == GO_ON && i <= ITERATIONS_MAX; i++) {
        st = iterate(&s);
        if (st == DPT_OK)
            so_far = svd_random_judge(&s, i);
        out->iterations = i;
    }
    *converged = st == DPT_OK && so_far == CONVERGED;
    if (*converged)
        st = svd_random_finish(&s, out);
    out->used = DPT_SVD_RANDOM;
    state_destroy(&s);
    return st;
}

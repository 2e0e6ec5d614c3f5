#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include "panel.h"
#include "svd_methods.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

/* Range finder with power iterations (Halko, Martinsson, Tropp, SIAM Review 53, 2011), in the form of
 * an orthogonal iteration on A^T A: V <- orth(A^T (A V)). The Ritz values of V, from the Gram matrix
 * of A V in double, say when to stop. All large products are local sgemm on the row slab. */

enum { OVERSAMPLE_MIN = 16, ITERATIONS_MAX = 16 };

static const double Y_PIVOT = 1e-2; /* below: orthonormalise A V too, or A^T A would square it */
static const double RANDOM_NULL =
    1e-6; /* singular values below this share of the first are noise */

typedef struct random_state {
    const dpt_svd_problem *problem;
    int64_t width;    /* columns of the basis now */
    int64_t own_rows; /* of V dealt to this rank */
    float *v;         /* (cols, width) whole */
    float *y;         /* (local rows, width) A V / |A| */
    float *z;         /* (cols, width) partial A^T Y */
    float *share;     /* (own_rows, width) */
    double *gram;     /* (width, width) of y */
    double *t;        /* (width, width) */
    double *ritz;     /* (width) of the last iteration, relative to |A| */
    double *previous; /* (width) of the one before; zeros at first */
    double fall;      /* last growth of the captured energy, share of |A|^2 */
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
    *s = (random_state){.problem = problem, .width = l};
    s->own_rows =
        dpt_panel_share(n, comm->rank + 1, comm->size) - dpt_panel_share(n, comm->rank, comm->size);
    s->v = dpt_mem_alloc(n * l, sizeof *s->v, "basis of the range finder");
    s->z = dpt_mem_alloc(n * l, sizeof *s->z, "image of the range finder");
    s->share = dpt_mem_alloc(s->own_rows * l, sizeof *s->share, "share of the basis");
    s->y = dpt_mem_alloc(problem->local_rows * l, sizeof *s->y, "image of the range finder");
    s->gram = dpt_mem_alloc(l * l, sizeof *s->gram, "Gram matrix of the range finder");
    s->t = dpt_mem_alloc(l * l, sizeof *s->t, "factor of the range finder");
    s->ritz = dpt_mem_zalloc(l, sizeof *s->ritz, "Ritz values");
    s->previous = dpt_mem_zalloc(l, sizeof *s->previous, "Ritz values");
    if (s->v == NULL || s->z == NULL || s->share == NULL || s->y == NULL || s->gram == NULL ||
        s->t == NULL || s->ritz == NULL || s->previous == NULL)
        return DPT_ERR_OUTPUT;
    return dpt_panel_fill(problem->sketch, 0, n, l, s->v);
}

static void state_destroy(random_state *s) {
    dpt_mem_free(s->v);
    dpt_mem_free(s->z);
    dpt_mem_free(s->share);
    dpt_mem_free(s->y);
    dpt_mem_free(s->gram);
    dpt_mem_free(s->t);
    dpt_mem_free(s->ritz);
    dpt_mem_free(s->previous);
}

/* Y = A V / |A| and its Gram matrix. */
static dpt_status forward(random_state *s) {
    const dpt_svd_problem *p = s->problem;
    if (p->local_rows > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)p->local_rows, (int)s->width,
                    (int)p->cols, (float)(1.0 / p->norm), p->slab, (int)p->cols, s->v,
                    (int)s->width, 0.0f, s->y, (int)s->width);
    return dpt_panel_gram_f32(p->comm, p->local_rows, s->width, s->y, s->gram);
}

/* V = orth(A^T Y). */
static dpt_status backward(random_state *s) {
    const dpt_svd_problem *p = s->problem;
    dpt_panel_transform step;
    dpt_status st = dpt_panel_solve(p->comm, s->width, s->gram, 1e-12, s->t, &step);
    if (st != DPT_OK)
        return st;
    if (step.quality < Y_PIVOT || step.width < s->width) {
        st = dpt_agree(p->comm, dpt_panel_apply(p->local_rows, s->width, s->y, step.width, s->t));
        s->width = step.width;
    }
    if (st != DPT_OK || s->width == 0)
        return st;
    int n = (int)p->cols, l = (int)s->width;
    if (p->local_rows > 0)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, l, (int)p->local_rows,
                    (float)(1.0 / p->norm), p->slab, n, s->y, l, 0.0f, s->z, l);
    else
        memset(s->z, 0, (size_t)(p->cols * s->width) * sizeof *s->z);
    st = dpt_panel_sum_to_shares(p->comm, p->cols, s->width, s->z, s->share);
    if (st == DPT_OK)
        st = dpt_panel_orthonormalise(p->comm, s->own_rows, &s->width, s->share, DPT_PANEL_LOOSE);
    if (st == DPT_OK)
        st = dpt_panel_gather_shares(p->comm, p->cols, s->width, s->share, s->v);
    return st;
}

/* Square roots of the eigenvalues of the Gram matrix, falling; with `vectors` also the eigenvectors,
 * the rows of t in rising order. */
static dpt_status ritz_values(random_state *s, bool vectors) {
    const dpt_comm *comm = s->problem->comm;
    int64_t l = s->width;
    dpt_status st = DPT_OK;
    if (comm->rank == 0) {
        memcpy(s->t, s->gram, (size_t)(l * l) * sizeof *s->t);
        int info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, vectors ? 'V' : 'N', 'U', (int)l, s->t, (int)l,
                                  s->ritz);
        if (info != 0)
            st = dpt_error(DPT_ERR_INTERNAL, "%s: DSYEVD of the Ritz matrix gave info %d",
                           s->problem->name, info);
        for (int64_t i = 0; i < l - 1 - i; i++) {
            double swap = s->ritz[i];
            s->ritz[i] = s->ritz[l - 1 - i];
            s->ritz[l - 1 - i] = swap;
        }
        for (int64_t i = 0; i < l; i++)
            s->ritz[i] = sqrt(fmax(0.0, s->ritz[i]));
    }
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, s->ritz, l * (int64_t)sizeof *s->ritz, 0);
    if (st == DPT_OK && vectors)
        st = dpt_comm_broadcast(comm, s->t, l * l * (int64_t)sizeof *s->t, 0);
    return st;
}

/* Whether the residual exceeds the best by at most the tolerance, and the leading values stand still.
 * Everything is relative to |A|. Two ways to know: what lies outside the basis bounds the excess; or
 * the growth of the captured energy shrinks like a geometric series whose ratio is measured, and is
 * at least what the gap of the spectrum says. */
static bool is_settled(random_state *s, int iteration) {
    double tolerance = s->problem->tolerance;
    int64_t k = s->problem->rank < s->width ? s->problem->rank : s->width;
    double all = 0.0, leading = 0.0, before = 0.0, moved = 0.0;
    for (int64_t i = 0; i < s->width; i++)
        all += s->ritz[i] * s->ritz[i];
    for (int64_t i = 0; i < k; i++) {
        leading += s->ritz[i] * s->ritz[i];
        before += s->previous[i] * s->previous[i];
        moved = fmax(moved, fabs(s->ritz[i] - s->previous[i]));
    }
    double residual = sqrt(fmax(0.0, 1.0 - leading));
    double outside = fmax(0.0, 1.0 - all);
    if (residual - sqrt(fmax(0.0, residual * residual - outside)) <= tolerance &&
        sqrt(outside) <= tolerance)
        return true;
    double fall = fmax(0.0, leading - before);
    double last_fall = s->fall;
    s->fall = fall;
    memcpy(s->previous, s->ritz, (size_t)s->width * sizeof *s->ritz);
    if (iteration < 2 || k == 0)
        return false;
    double gap = s->ritz[s->width - 1] / s->ritz[k - 1];
    double ratio = gap * gap * gap * gap;
    if (iteration > 2 && last_fall > 0.0)
        ratio = fmax(ratio, fall / last_fall);
    ratio = fmin(fmax(ratio, 0.1), 0.98);
    double to_come = ratio / (1.0 - ratio);
    double excess = residual - sqrt(fmax(0.0, residual * residual - fall * to_come));
    return excess <= tolerance && moved * to_come <= tolerance * s->ritz[0];
}

/* A V = Y and Y^T Y = W diag(ritz^2) W^T give U = Y W diag(1 / ritz), V <- V W. */
static dpt_status rotate(random_state *s, int64_t found, float *factor, dpt_svd *out) {
    const dpt_svd_problem *p = s->problem;
    int64_t l = s->width;
    for (int64_t i = 0; i < l; i++)
        for (int64_t j = 0; j < found; j++)
            factor[i * found + j] = (float)s->t[(l - 1 - j) * l + i];
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)s->own_rows, (int)found, (int)l,
                1.0f, s->v + dpt_panel_share(p->cols, p->comm->rank, p->comm->size) * l, (int)l,
                factor, (int)found, 0.0f, s->share, (int)found);
    for (int64_t e = 0; e < l * found; e++)
        factor[e] = (float)(factor[e] / s->ritz[e % found]);
    if (p->local_rows > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)p->local_rows, (int)found,
                    (int)l, 1.0f, s->y, (int)l, factor, (int)found, 0.0f, out->u, (int)found);
    int64_t u_width = found, v_width = found;
    dpt_status st =
        dpt_panel_orthonormalise(p->comm, p->local_rows, &u_width, out->u, DPT_PANEL_KEEP);
    if (st == DPT_OK)
        st = dpt_panel_orthonormalise(p->comm, s->own_rows, &v_width, s->share, DPT_PANEL_KEEP);
    if (st == DPT_OK && (u_width < found || v_width < found))
        st = dpt_error(DPT_ERR_INTERNAL, "%s: the range finder lost singular vectors", p->name);
    return st;
}

/* Spread (rows, have) without gaps to (rows, want), last row first. */
static void widen(int64_t rows, int64_t have, int64_t want, float *y) {
    for (int64_t i = rows - 1; have < want && i >= 0; i--)
        memmove(y + i * want, y + i * have, (size_t)have * sizeof *y);
}

static dpt_status finish(random_state *s, dpt_svd *out) {
    const dpt_svd_problem *p = s->problem;
    const dpt_comm *comm = p->comm;
    int64_t k = p->rank, found = 0;
    dpt_status st = ritz_values(s, true);
    while (st == DPT_OK && found < k && found < s->width &&
           s->ritz[found] > RANDOM_NULL * s->ritz[0])
        found++;
    float *factor = NULL;
    if (st == DPT_OK) {
        factor = dpt_mem_alloc(s->width * found, sizeof *factor, "rotation of the basis");
        st = factor == NULL ? DPT_ERR_OUTPUT : dpt_svd_allocate(p, k, out);
        st = dpt_agree(comm, st);
    }
    if (st == DPT_OK && found > 0)
        st = rotate(s, found, factor, out);
    /* Noise and the null space: s = 0 with vectors that complete the bases. The share has room for
     * k columns: the sketch was at least that wide. */
    if (st == DPT_OK) {
        dpt_rng stream = {.key = ~p->sketch.key, .purpose = p->sketch.purpose};
        widen(p->local_rows, found, k, out->u);
        widen(s->own_rows, found, k, s->share);
        st = dpt_panel_complete(comm, p->row0, p->local_rows, found, k, stream, out->u);
        if (st == DPT_OK)
            st = dpt_panel_complete(comm, dpt_panel_share(p->cols, comm->rank, comm->size),
                                    s->own_rows, found, k, stream, s->share);
    }
    if (st == DPT_OK)
        st = dpt_panel_gather_shares(comm, p->cols, k, s->share, out->v);
    for (int64_t i = 0; st == DPT_OK && i < found; i++)
        out->s[i] = s->ritz[i] * p->norm;
    dpt_mem_free(factor);
    return st;
}

dpt_status dpt_svd_random(const dpt_svd_problem *problem, dpt_svd *out, bool *settled) {
    random_state s;
    *settled = false;
    dpt_status st = dpt_agree(problem->comm, state_create(&s, problem));
    if (st == DPT_OK)
        st = forward(&s);
    for (int i = 1; st == DPT_OK && !*settled && i <= ITERATIONS_MAX; i++) {
        st = backward(&s);
        if (st == DPT_OK)
            st = forward(&s);
        if (st == DPT_OK)
            st = ritz_values(&s, false);
        if (st == DPT_OK)
            *settled = is_settled(&s, i);
        out->iterations = i;
    }
    if (st == DPT_OK && *settled)
        st = finish(&s, out);
    out->used = DPT_SVD_RANDOM;
    state_destroy(&s);
    return st;
}

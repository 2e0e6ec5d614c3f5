#include "deltapath/linalg/lanczos.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/linalg/reduce.h"

#include <lapacke.h>
#include <math.h>
#include <string.h>

enum { LANCZOS_PASSES = 2 }; /* of reorthogonalisation: "twice is enough" (Kahan, Parlett) */
static const double LANCZOS_END =
    1e-6; /* the space ends where the next vector is so small, of the largest */

/* One run. */
typedef struct lanczos_run {
    const dpt_comm *comm;
    int64_t n;
    int steps, done;
    float *basis;         /* (steps + 1, n) */
    float *work;          /* (n) */
    double *alpha, *beta; /* (steps) of the tridiagonal matrix */
    double *dots;         /* (steps + 1) */
    double *vectors;      /* (done, done) of the tridiagonal matrix, in columns */
    double *values;       /* (steps) its eigenvalues */
    int *order;           /* (done) by falling size */
} lanczos_run;

static float *lanczos_vector(const lanczos_run *run, int j) {
    return run->basis + (int64_t)j * run->n;
}

int64_t dpt_lanczos_bytes(int64_t n, int steps) {
    return (int64_t)(steps + 2) * n * (int64_t)sizeof(float);
}

static dpt_status lanczos_create(lanczos_run *run) {
    int steps = run->steps;
    run->basis = dpt_mem_zalloc((steps + 1) * run->n, sizeof *run->basis, "Lanczos vectors");
    run->work = dpt_mem_zalloc(run->n, sizeof *run->work, "Lanczos vectors");
    run->alpha = dpt_mem_zalloc(steps, sizeof *run->alpha, "Lanczos matrix");
    run->beta = dpt_mem_zalloc(steps, sizeof *run->beta, "Lanczos matrix");
    run->dots = dpt_mem_zalloc(steps + 1, sizeof *run->dots, "Lanczos products");
    run->values = dpt_mem_zalloc(2 * (int64_t)steps, sizeof *run->values, "Lanczos values");
    run->vectors = dpt_mem_zalloc((int64_t)steps * steps, sizeof *run->vectors, "Lanczos matrix");
    run->order = dpt_mem_zalloc(steps, sizeof *run->order, "Lanczos order");
    bool whole = run->basis != NULL && run->work != NULL && run->alpha != NULL &&
                 run->beta != NULL && run->dots != NULL && run->values != NULL &&
                 run->vectors != NULL && run->order != NULL;
    return whole ? DPT_OK : DPT_ERR_OUTPUT;
}

static void lanczos_free(lanczos_run *run) {
    dpt_mem_free(run->basis);
    dpt_mem_free(run->work);
    dpt_mem_free(run->alpha);
    dpt_mem_free(run->beta);
    dpt_mem_free(run->dots);
    dpt_mem_free(run->values);
    dpt_mem_free(run->vectors);
    dpt_mem_free(run->order);
}

/* |x| over all ranks. */
static dpt_status lanczos_norm(const lanczos_run *run, const float *x, double *norm) {
    double square = dpt_reduce_dot(x, x, run->n);
    dpt_status st = dpt_agree(run->comm, dpt_comm_sum_f64(run->comm, &square, 1));
    *norm = sqrt(square);
    return st == DPT_OK && !isfinite(*norm)
               ? dpt_error(DPT_ERR_INTERNAL, "Lanczos: a vector has values that are not finite")
               : st;
}

/* work minus its part in the first `count` vectors, whose sizes are in dots. */
static dpt_status lanczos_remove(lanczos_run *run, int count) {
    for (int j = 0; j < count; j++)
        run->dots[j] = dpt_reduce_dot(run->work, lanczos_vector(run, j), run->n);
    dpt_status st = dpt_agree(run->comm, dpt_comm_sum_f64(run->comm, run->dots, count));
    for (int j = 0; j < count && st == DPT_OK; j++) {
        const float *v = lanczos_vector(run, j);
        double dot = run->dots[j];
        for (int64_t i = 0; i < run->n; i++)
            run->work[i] = (float)((double)run->work[i] - dot * (double)v[i]);
    }
    return st;
}

/* The next vector from work; the space ends where nothing is left. */
static void lanczos_add(lanczos_run *run, int j, double norm) {
    float *v = lanczos_vector(run, j);
    for (int64_t i = 0; i < run->n; i++)
        v[i] = (float)((double)run->work[i] / norm);
}

static dpt_status lanczos_step(lanczos_run *run, int j, dpt_lanczos_fn product, void *ctx,
                               double *largest) {
    double norm = 0.0;
    dpt_status st = product(ctx, lanczos_vector(run, j), run->work);
    for (int pass = 0; pass < LANCZOS_PASSES && st == DPT_OK; pass++) {
        st = lanczos_remove(run, j + 1);
        if (st == DPT_OK)
            run->alpha[j] += run->dots[j]; /* the second pass brings a correction */
    }
    if (st == DPT_OK)
        st = lanczos_norm(run, run->work, &norm);
    if (st != DPT_OK)
        return st;
    *largest = fmax(*largest, fmax(fabs(run->alpha[j]), norm));
    run->done = j + 1;
    run->beta[j] = norm > LANCZOS_END * *largest ? norm : 0.0;
    if (run->beta[j] > 0.0)
        lanczos_add(run, j + 1, norm);
    return DPT_OK;
}

static dpt_status lanczos_build(lanczos_run *run, const float *start, dpt_lanczos_fn product,
                                void *ctx) {
    double norm, largest = 0.0;
    memcpy(run->work, start, (size_t)run->n * sizeof *start);
    dpt_status st = lanczos_norm(run, run->work, &norm);
    if (st == DPT_OK && norm == 0.0)
        st = dpt_error(DPT_ERR_INTERNAL, "Lanczos: the start vector is zero");
    if (st == DPT_OK)
        lanczos_add(run, 0, norm);
    for (int j = 0; j < run->steps && st == DPT_OK; j++) {
        st = lanczos_step(run, j, product, ctx, &largest);
        if (st == DPT_OK && run->beta[j] == 0.0)
            break;
    }
    return st;
}

/* Eigenvalues of the tridiagonal matrix, by falling size. */
static dpt_status lanczos_solve(lanczos_run *run) {
    int m = run->done;
    memcpy(run->values, run->alpha, (size_t)m * sizeof *run->values);
    memcpy(run->values + run->steps, run->beta, (size_t)m * sizeof *run->values);
    int info = LAPACKE_dstev(LAPACK_COL_MAJOR, 'V', m, run->values, run->values + run->steps,
                             run->vectors, m);
    for (int i = 0; i < m; i++) {
        int at = i;
        for (; at > 0 && fabs(run->values[run->order[at - 1]]) < fabs(run->values[i]); at--)
            run->order[at] = run->order[at - 1];
        run->order[at] = i;
    }
    return info == 0 ? DPT_OK : dpt_error(DPT_ERR_INTERNAL, "Lanczos: dstev returned %d", info);
}

/* |M y - value y| of one eigenvector, made in `y` (n). */
static dpt_status lanczos_residual(lanczos_run *run, int which, dpt_lanczos_fn product, void *ctx,
                                   float *y, double *residual) {
    const double *weights = run->vectors + (int64_t)which * run->done;
    for (int64_t i = 0; i < run->n; i++) {
        double sum = 0.0;
        for (int j = 0; j < run->done; j++)
            sum += weights[j] * (double)lanczos_vector(run, j)[i];
        y[i] = (float)sum;
    }
    dpt_status st = product(ctx, y, run->work);
    for (int64_t i = 0; i < run->n && st == DPT_OK; i++)
        run->work[i] = (float)((double)run->work[i] - run->values[which] * (double)y[i]);
    return st == DPT_OK ? lanczos_norm(run, run->work, residual) : st;
}

static dpt_status lanczos_take(lanczos_run *run, int count, dpt_lanczos_fn product, void *ctx,
                               dpt_lanczos *out) {
    dpt_status st = DPT_OK;
    out->count = count < run->done ? count : run->done;
    float *y = lanczos_vector(run, run->steps); /* has no part in any of them */
    for (int i = 0; i < out->count && st == DPT_OK; i++) {
        out->values[i] = run->values[run->order[i]];
        st = lanczos_residual(run, run->order[i], product, ctx, y, &out->residuals[i]);
    }
    return st;
}

dpt_status dpt_lanczos_run(const dpt_comm *comm, int64_t n, const float *start, int steps,
                           int count, dpt_lanczos_fn product, void *ctx, dpt_lanczos *out) {
    DPT_ASSERT_SAME(comm, steps);
    DPT_ASSERT_SAME(comm, count);
    lanczos_run run = {.comm = comm, .n = n, .steps = steps};
    *out = (dpt_lanczos){.count = 0};
    out->values = dpt_mem_zalloc(count, sizeof *out->values, "eigenvalues");
    out->residuals = dpt_mem_zalloc(count, sizeof *out->residuals, "residuals");
    dpt_status st = lanczos_create(&run);
    if (out->values == NULL || out->residuals == NULL)
        st = DPT_ERR_OUTPUT;
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = lanczos_build(&run, start, product, ctx);
    if (st == DPT_OK)
        st = dpt_agree(comm, lanczos_solve(&run));
    if (st == DPT_OK)
        st = lanczos_take(&run, count, product, ctx, out);
    if (st != DPT_OK)
        dpt_lanczos_destroy(out);
    lanczos_free(&run);
    return st;
}

void dpt_lanczos_destroy(dpt_lanczos *lanczos) {
    dpt_mem_free(lanczos->values);
    dpt_mem_free(lanczos->residuals);
    *lanczos = (dpt_lanczos){.count = 0};
}

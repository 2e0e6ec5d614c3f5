#include "deltapath/linalg/svd.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/linalg/reduce.h"

#include "eigen.h"
#include "grid.h"
#include "panel.h"
#include "svd_basis.h"
#include "svd_methods.h"

#include <cblas.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

static const double DEFAULT_TOLERANCE = 1e-3;
static const double SMALL_RESIDUAL = 3e-2;   /* share of |A| */
static const double RANDOM_ITERATIONS = 5.0; /* of a flat spectrum */
static const double REFERENCE_COST = 30.0;   /* of the exact method's, at a side of 2048 */

static int64_t shorter(int64_t rows, int64_t cols) {
    return rows < cols ? rows : cols;
}

int64_t dpt_svd_energy_rank(int64_t count, const double *s, double norm, double energy) {
    double captured = 0.0;
    for (int64_t i = 0; i < count; i++) {
        captured += s[i] * s[i];
        /* All of the energy is reached up to the rounding of the sums. */
        if (captured >= energy * norm * norm * (1.0 - 1e-13))
            return i + 1;
    }
    return count;
}

int64_t dpt_svd_rank_of(const dpt_svd *svd, double energy) {
    return dpt_svd_energy_rank(svd->rank, svd->s, svd->norm, energy);
}

double dpt_svd_residual_of(const dpt_svd *svd, int64_t rank) {
    double square = svd->residual * svd->residual;
    for (int64_t i = svd->rank - 1; i >= rank; i--)
        square += svd->s[i] * svd->s[i];
    return sqrt(square);
}

void dpt_svd_cut(dpt_svd *svd, int64_t cols, int64_t local_rows, int64_t rank) {
    DPT_ASSERT(rank >= 1 && rank <= svd->rank);
    svd->residual = dpt_svd_residual_of(svd, rank);
    for (int64_t i = 1; i < local_rows; i++)
        memmove(svd->u + i * rank, svd->u + i * svd->rank, (size_t)rank * sizeof *svd->u);
    for (int64_t i = 1; i < cols; i++)
        memmove(svd->v + i * rank, svd->v + i * svd->rank, (size_t)rank * sizeof *svd->v);
    svd->rank = rank;
}

dpt_status dpt_svd_allocate(const dpt_svd_problem *problem, int64_t rank, dpt_svd *out) {
    out->rank = rank;
    out->s = dpt_mem_zalloc(rank, sizeof *out->s, "singular values");
    out->s_error = dpt_mem_zalloc(rank, sizeof *out->s_error, "errors of singular values");
    out->u = dpt_mem_alloc(problem->local_rows * rank, sizeof *out->u, "left singular vectors");
    out->v = dpt_mem_alloc(problem->cols * rank, sizeof *out->v, "right singular vectors");
    bool whole = out->s != NULL && out->s_error != NULL && out->u != NULL && out->v != NULL;
    return whole ? DPT_OK : DPT_ERR_OUTPUT;
}

void dpt_svd_destroy(dpt_svd *svd) {
    dpt_mem_free(svd->s);
    dpt_mem_free(svd->s_error);
    dpt_mem_free(svd->u);
    dpt_mem_free(svd->v);
    *svd = (dpt_svd){.rank = 0};
}

void dpt_svd_product(const dpt_svd *svd, int64_t cols, int64_t il0, int64_t n, float *out) {
    enum { TILE = 64 };
    if (n <= 0 || cols <= 0)
        return;
    memset(out, 0, (size_t)(n * cols) * sizeof *out);
    if (svd->rank == 0)
        return;
    int exponent = dpt_svd_product_exponent(svd);
    double factor = ldexp(1.0, -exponent);
    /* Scaled columns of U go through a buffer on the stack: the product allocates nothing. */
    float scaled[TILE * TILE];
    for (int64_t i = 0; i < n; i += TILE)
        for (int64_t k = 0; k < svd->rank; k += TILE) {
            int64_t ni = n - i < TILE ? n - i : TILE;
            int64_t nk = svd->rank - k < TILE ? svd->rank - k : TILE;
            for (int64_t a = 0; a < ni; a++)
                for (int64_t b = 0; b < nk; b++)
                    scaled[a * TILE + b] =
                        svd->u[(il0 + i + a) * svd->rank + k + b] * (float)(svd->s[k + b] * factor);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)ni, (int)cols, (int)nk, 1.0f,
                        scaled, TILE, svd->v + k, (int)svd->rank, 1.0f, out + i * cols, (int)cols);
        }
    for (int64_t e = 0; exponent != 0 && e < n * cols; e++)
        out[e] = ldexpf(out[e], exponent);
}

/* The columns of (rows, rank) from j on, each times its factor. */
static void flip_columns(int64_t rows, int64_t rank, int64_t j, int64_t count, const float *factor,
                         float *vectors) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < count; k++)
            vectors[i * rank + j + k] *= factor[k];
}

/* Same signs whatever the solver: the largest entry of each right vector is positive. */
static void fix_signs(int64_t cols, int64_t local_rows, dpt_svd *svd) {
    enum { RUN = 64 }; /* columns, whose rows are read once */
    for (int64_t j = 0; j < svd->rank; j += RUN) {
        int64_t count = svd->rank - j < RUN ? svd->rank - j : RUN;
        float largest[RUN] = {0.0f}, factor[RUN] = {0.0f};
        for (int64_t i = 0; i < cols; i++)
            for (int64_t k = 0; k < count; k++) {
                float x = svd->v[i * svd->rank + j + k];
                largest[k] = fabsf(x) > fabsf(largest[k]) ? x : largest[k];
            }
        for (int64_t k = 0; k < count; k++)
            factor[k] = largest[k] < 0.0f ? -1.0f : 1.0f;
        flip_columns(cols, svd->rank, j, count, factor, svd->v);
        flip_columns(local_rows, svd->rank, j, count, factor, svd->u);
    }
}

static dpt_status check_options(const dpt_svd_problem *problem) {
    int64_t side = shorter(problem->rows, problem->cols);
    int ignored;
    if (problem->rows < 1 || problem->cols < 1)
        return dpt_error(DPT_ERR_INTERNAL, "%s: svd of an empty %" PRId64 " x %" PRId64 " matrix",
                         problem->name, problem->rows, problem->cols);
    if ((problem->rank == 0) == (problem->energy == 0.0))
        return dpt_error(DPT_ERR_INTERNAL, "%s: svd wants either a rank or an energy",
                         problem->name);
    if (problem->rank < 0 || problem->rank > side)
        return dpt_error(DPT_ERR_INTERNAL, "%s: svd of rank %" PRId64 " is outside 1 .. %" PRId64,
                         problem->name, problem->rank, side);
    if (!(problem->energy >= 0.0 && problem->energy <= 1.0) || !(problem->tolerance > 0.0))
        return dpt_error(DPT_ERR_INTERNAL, "%s: svd energy %g or tolerance %g is out of range",
                         problem->name, problem->energy, problem->tolerance);
    dpt_status st = dpt_grid_int(problem->rows, "rows of a matrix", &ignored);
    return st != DPT_OK ? st : dpt_grid_int(problem->cols, "columns of a matrix", &ignored);
}

/* First row of this rank, whether the slabs add up, and the norm. */
static dpt_status svd_measure(dpt_svd_problem *problem) {
    const dpt_comm *comm = problem->comm;
    int64_t *counts = dpt_mem_zalloc(comm->size, sizeof *counts, "rows of each rank");
    dpt_status st = dpt_agree(comm, counts == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    if (st == DPT_OK) {
        counts[comm->rank] = problem->local_rows;
        st = dpt_comm_sum_i64(comm, counts, comm->size);
    }
    if (st == DPT_OK) {
        int64_t total = 0;
        bool valid = true;
        for (int r = 0; r < comm->size; r++) {
            if (r == comm->rank)
                problem->row0 = total;
            valid = valid && counts[r] >= 0 && counts[r] <= problem->rows;
            total += counts[r];
        }
        if (!valid || total != problem->rows)
            st = dpt_error(DPT_ERR_INTERNAL,
                           "%s: the slabs of a %" PRId64 " x %" PRId64 " matrix do not add up",
                           problem->name, problem->rows, problem->cols);
    }
    dpt_mem_free(counts);
    if (st != DPT_OK)
        return st;
    double square = problem->square;
    st = dpt_comm_sum_f64(comm, &square, 1);
    problem->norm = sqrt(square);
    if (st == DPT_OK && !isfinite(square))
        st = dpt_error(DPT_ERR_INPUT, "%s: holds NaN or infinity: fix the model", problem->name);
    return st;
}

/* The zero matrix: any orthonormal vectors will do; unit vectors are the same at any rank count. */
static dpt_status zero_matrix(const dpt_svd_problem *problem, dpt_svd *out) {
    int64_t rank = problem->rank > 0 ? problem->rank : 1;
    dpt_status st = dpt_agree(problem->comm, dpt_svd_allocate(problem, rank, out));
    if (st != DPT_OK)
        return st;
    memset(out->u, 0, (size_t)(problem->local_rows * rank) * sizeof *out->u);
    memset(out->v, 0, (size_t)(problem->cols * rank) * sizeof *out->v);
    for (int64_t i = 0; i < rank; i++) {
        out->v[i * rank + i] = 1.0f;
        if (i >= problem->row0 && i < problem->row0 + problem->local_rows)
            out->u[(i - problem->row0) * rank + i] = 1.0f;
    }
    out->used = DPT_SVD_EXACT;
    return DPT_OK;
}

/* The range finder wins as soon as the few iterations that it mostly takes are cheaper; small matrices
 * are exact in no time. */
static bool svd_random_pays(int64_t rows, int64_t cols, int64_t rank) {
    return rank > 0 && shorter(rows, cols) >= 256 &&
           RANDOM_ITERATIONS * dpt_svd_iteration_cost(rows, cols, rank) <
               dpt_svd_exact_cost(rows, cols, rank);
}

static bool svd_tries_random(int64_t rows, int64_t cols, int64_t rank, dpt_svd_method method) {
    return rank > 0 && (method == DPT_SVD_RANDOM ||
                        (method == DPT_SVD_AUTO && svd_random_pays(rows, cols, rank)));
}

double dpt_svd_cost(int64_t rows, int64_t cols, int64_t rank, dpt_svd_method method) {
    if (svd_tries_random(rows, cols, rank, method))
        return RANDOM_ITERATIONS * dpt_svd_iteration_cost(rows, cols, rank);
    double exact = dpt_svd_exact_cost(rows, cols, rank > 0 ? rank : shorter(rows, cols));
    return method == DPT_SVD_REFERENCE ? REFERENCE_COST * exact : exact;
}

static dpt_status svd_dispatch(const dpt_svd_problem *problem, dpt_svd_method method,
                               dpt_svd *out) {
    bool converged = false;
    dpt_status st = DPT_OK;
    if (problem->norm == 0.0)
        return zero_matrix(problem, out);
    if (method == DPT_SVD_REFERENCE)
        return dpt_svd_reference(problem, out);
    if (svd_tries_random(problem->rows, problem->cols, problem->rank, method))
        st = dpt_svd_random(problem, out, &converged);
    if (st == DPT_OK && !converged) {
        int iterations = out->iterations;
        st = dpt_svd_exact(problem, out);
        out->iterations = iterations;
    }
    return st;
}

/* The difference of squares loses a small residual in the rounding of s: then it is summed from the
 * entries of A - U diag(s) V^T. */
static dpt_status measure_residual(const dpt_svd_problem *problem, dpt_svd *out) {
    enum { CHUNK = 64 };
    double square = problem->norm * problem->norm;
    for (int64_t i = 0; i < out->rank; i++)
        square -= out->s[i] * out->s[i];
    out->norm = problem->norm;
    out->residual = sqrt(fmax(0.0, square));
    if (out->residual > SMALL_RESIDUAL * problem->norm || problem->norm == 0.0)
        return DPT_OK;
    float *rows = dpt_mem_alloc(CHUNK * problem->cols, sizeof *rows, "rows of a product");
    dpt_status st = dpt_agree(problem->comm, rows == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    square = 0.0;
    for (int64_t i = 0; st == DPT_OK && i < problem->local_rows; i += CHUNK) {
        int64_t n = problem->local_rows - i < CHUNK ? problem->local_rows - i : CHUNK;
        dpt_svd_product(out, problem->cols, i, n, rows);
        for (int64_t e = 0; e < n * problem->cols; e++)
            rows[e] = problem->slab[i * problem->cols + e] - rows[e];
        square += dpt_reduce_square(rows, n * problem->cols);
    }
    if (st == DPT_OK)
        st = dpt_comm_sum_f64(problem->comm, &square, 1);
    out->residual = sqrt(square);
    dpt_mem_free(rows);
    return st;
}

static void svd_check_options(const dpt_comm *comm, const dpt_svd_options *options) {
    DPT_ASSERT_SAME(comm, options->method);
    DPT_ASSERT_SAME(comm, options->rank);
    DPT_ASSERT_SAME(comm, options->energy);
    DPT_ASSERT_SAME(comm, options->tolerance);
    DPT_ASSERT_SAME(comm, options->seed);
    DPT_ASSERT_SAME_TEXT(comm, options->name);
    DPT_ASSERT_SAME(comm, options->grid_above);
}

dpt_status dpt_svd_compute(const dpt_comm *comm, int64_t rows, int64_t cols, int64_t local_rows,
                           const float *slab, const dpt_svd_options *options, dpt_svd *out) {
    DPT_ASSERT_SAME(comm, rows);
    DPT_ASSERT_SAME(comm, cols);
    svd_check_options(comm, options);
    *out = (dpt_svd){.rank = 0};
    const char *name = options->name != NULL ? options->name : "matrix";
    dpt_svd_problem problem = {
        .comm = comm,
        .rows = rows,
        .cols = cols,
        .local_rows = local_rows,
        .slab = slab,
        .rank = options->rank,
        .energy = options->energy,
        .tolerance = options->tolerance != 0.0 ? options->tolerance : DEFAULT_TOLERANCE,
        .grid_above = options->grid_above > 0 ? options->grid_above : DPT_SVD_GRID_ABOVE,
        .sketch = dpt_rng_make(options->seed, name, DPT_RNG_SKETCH),
        .name = name,
    };
    dpt_status st = check_options(&problem);
    if (st == DPT_OK && (unsigned)options->method > DPT_SVD_REFERENCE)
        st = dpt_error(DPT_ERR_INTERNAL, "%s: unknown svd method %d", name, (int)options->method);
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_agree_fault("svd.compute"));
    float *scaled = NULL;
    int exponent = 0;
    if (st == DPT_OK)
        st = dpt_svd_scale(&problem, &scaled, &exponent);
    if (st == DPT_OK)
        st = svd_measure(&problem);
    if (st == DPT_OK)
        st = svd_dispatch(&problem, options->method, out);
    if (st == DPT_OK) {
        fix_signs(cols, local_rows, out);
        if (out->used == DPT_SVD_RANDOM)
            st = dpt_svd_errors_right(&problem, out);
        else if (out->used != DPT_SVD_EXACT) /* which checks itself by them */
            st = dpt_svd_errors_left(&problem, out);
    }
    if (st == DPT_OK)
        st = measure_residual(&problem, out);
    /* Vectors that complete a basis are no pair, but what is left is no smaller than the next value. */
    for (int64_t i = 0; st == DPT_OK && i < out->rank; i++)
        if (out->s[i] == 0.0)
            out->s_error[i] = fmax(out->s_error[i], out->residual);
    dpt_mem_free(scaled);
    if (st == DPT_OK)
        dpt_svd_unscale(out, exponent);
    else
        dpt_svd_destroy(out);
    return st;
}

dpt_status dpt_svd_spectral_norm(const dpt_comm *comm, int64_t rows, int64_t cols,
                                 int64_t local_rows, const float *slab, int iterations,
                                 double *norm) {
    DPT_ASSERT_SAME(comm, rows);
    DPT_ASSERT_SAME(comm, cols);
    DPT_ASSERT_SAME(comm, iterations);
    *norm = 0.0;
    dpt_svd_problem problem = {
        .comm = comm,
        .rows = rows,
        .cols = cols,
        .local_rows = local_rows,
        .slab = slab,
        .rank = 1,
        .tolerance = 1.0,
        .sketch = dpt_rng_make(0, "spectral norm", DPT_RNG_SKETCH),
        .name = "spectral norm",
    };
    float *scaled = NULL;
    int exponent = 0;
    dpt_status st = dpt_agree(comm, check_options(&problem));
    if (st == DPT_OK)
        st = dpt_svd_scale(&problem, &scaled, &exponent);
    if (st == DPT_OK)
        st = svd_measure(&problem);
    if (st == DPT_OK && problem.norm != 0.0)
        st = dpt_svd_lanczos_norm(&problem, iterations, norm);
    *norm = ldexp(*norm, exponent);
    dpt_mem_free(scaled);
    return st;
}

/* Doubles that the exact method holds at its peak: the larger of the eigenproblem and of
 * the left vectors with their check. `side` is the shorter one, `part` the rows of the longer. */
static double exact_doubles(double side, double part, double k, bool all, int ranks) {
    double pairs = all ? side : fmin(side, fmax(k, 64.0));
    double chunk = fmin(fmax(2097152.0 / side, 128.0), 1024.0) * side + 128.0 * side;
    double solver;
    if (ranks == 1 || side <= DPT_SVD_GRID_ABOVE)
        solver = side * side + (all ? 2.0 * side * side : side * k) + 40.0 * side;
    else
        solver = 6.0 * (side + 128.0) * (side + 128.0) / ranks + 512.0 * side + 64.0 * side;
    if (!all && dpt_krylov_pays((int64_t)side, (int64_t)k, DPT_SVD_GRID_ABOVE)) {
        double w = (double)dpt_krylov_columns((int64_t)k), own = side / ranks + 1.0;
        solver = fmax(solver, own * (side + w + 64.0) + 32.0 * side + 6.0 * w * w + 530.0 * w);
        chunk += 384.0 * side; /* a panel of 512 rows in all */
    }
    double left = part * k + 4.5 * k * k + 0.5 * (side + side / ranks) * k + 530.0 * k;
    return chunk + side * pairs + fmax(solver, left);
}

/* @param[in] falls_back  whether a random method that does not converge is counted. */
static int64_t svd_needs(int64_t rows, int64_t cols, int64_t rank, dpt_svd_method method, int ranks,
                         bool falls_back) {
    double m = (double)(rows / ranks + 1), n = (double)cols, both = (double)rows + n;
    double side = (double)shorter(rows, cols), longer = (double)(rows > cols ? rows : cols);
    double k = rank > 0 ? (double)rank : side; /* energy may need every triplet */
    double result = 4.0 * (m + n) * k + 16.0 * k;
    double random = dpt_svd_basis_bytes(rows, cols, rank > 0 ? rank : 1, ranks) +
                    12.0 * k * (m + n / ranks) + 40.0 * k * k + 4300.0 * k;
    double exact =
        8.0 * exact_doubles(side, longer / ranks + 1.0, k, rank == 0 || 2 * rank > side, ranks);
    if (8 * rows < 7 * cols) /* works on the transpose */
        exact =
            fmax(12.0 * m * n, 4.0 * m * n + exact) + 4.0 * (side + longer / ranks + longer) * k;
    double reference = 8.0 * ((1.0 + 1.5 / ranks) * both * side + 3.0 * (double)rows * n / ranks +
                              300.0 * both + 1e5);
    bool tried = svd_tries_random(rows, cols, rank, method);
    double need = method == DPT_SVD_REFERENCE ? reference
                  : !tried                    ? exact
                  : falls_back                ? fmax(random, exact)
                                              : random;
    need += result;
    return need < 9e18 ? (int64_t)need : INT64_MAX;
}

int64_t dpt_svd_bytes(int64_t rows, int64_t cols, int64_t rank, dpt_svd_method method, int ranks) {
    return svd_needs(rows, cols, rank, method, ranks, true);
}

int64_t dpt_svd_bytes_expected(int64_t rows, int64_t cols, int64_t rank, dpt_svd_method method,
                               int ranks) {
    return svd_needs(rows, cols, rank, method, ranks, false);
}

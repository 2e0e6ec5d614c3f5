#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include "panel.h"
#include "svd_basis.h"
#include "svd_methods.h"

#include <math.h>
#include <string.h>

/* Block Krylov iteration from a random start (Musco, Musco, NeurIPS 2015; Golub, Luk, Overton, ACM TOMS 7, 1981): Y_0 is a
 * basis of A Omega, Y_j of what A A^T Y_(j-1) has beyond the blocks before. With Z = A^T Y and Y T orthonormal, the
 * eigenvalues of T^T Z^T Z T = W diag(s^2) W^T are those of the projection of A onto the range of Y: its singular values s
 * say when to stop, and its vectors, Y T W and Z T W diag(1 / s), are the result, all without another product with A.
 * All large products are local sgemm on the row slab (svd_products.c); an iteration exchanges a block of Z and of V, and
 * small matrices.
 *
 * Why all blocks, not the last power alone: the range of all of them holds polynomials of A A^T, which separate values
 * with half of the products at half of the columns. A basis that is full is made short again by its leading vectors
 * (thick restart: Wu, Simon, SIAM J. Matrix Anal. 22, 2000). Where many vectors are wanted its Gram matrices and the
 * eigenproblem would cost more than that saves: then only the last block is kept, and is wider (subspace iteration: Halko,
 * Martinsson, Tropp, SIAM Review 53, 2011).
 *
 * Why a shift of the subspace iteration: A^T A - a I has the vectors of A^T A, and with a at most half of the smallest
 * value of the basis nothing outside the basis becomes larger than it was inside. Flat spectra separate about half again
 * as fast (Feng, Yu, Xie, Xue, IJCAI 2023), for one subtraction. The Gram matrix of Z - a V follows from those of Z and Y:
 * V^T Z is Y^T Y, and V^T V close enough to I.
 *
 * Why iterate and judge, not a fixed count: how many iterations it takes depends on a gap that is not known beforehand,
 * so the growth of the captured energy is watched (svd_random_judge). The residual is judged, not single values: in a flat
 * spectrum these settle long after the subspace is as good as any. What would settle later than the exact method takes is
 * left to that method, after two iterations. */

enum {
    BLOCK_MIN = 32,
    BLOCK_ROUND = 16,
    OVERSAMPLE_MIN = 64,
    ITERATIONS_MAX = 32,
    GROWS_SIDE = 24
};

/* Of the smallest eigenvalue of the basis; half would leave a null space as large as that value. */
static const double SHIFT_SHARE = 0.45;

/* Singular values below this share of the first are noise. */
static const double RANDOM_NULL = 1e-6;
/* Residuals are not known better in single precision. */
static const double RANDOM_TOLERANCE = 1e-6;

typedef struct random_state {
    dpt_svd_basis basis;
    double *values;  /* (room) of the projection, relative to |A| */
    double captured; /* energy of the wanted values at the last iteration, share of |A|^2 */
    double fall;     /* its last growth */
    double most;     /* further iterations that cost no more than the exact method */
    bool exhausted;  /* the basis holds the range of A, up to rounding */
    bool vectors;    /* work.t holds those of the projection */
} random_state;

bool dpt_svd_basis_grows(int64_t rows, int64_t cols, int64_t rank) {
    int64_t side = rows < cols ? rows : cols;
    return side / GROWS_SIDE >= rank;
}

int64_t dpt_svd_sketch_width(int64_t rows, int64_t cols, int64_t rank) {
    int64_t side = rows < cols ? rows : cols;
    int64_t width = rank + (rank > 32 ? rank / 4 : 8);
    width = (width + BLOCK_ROUND - 1) / BLOCK_ROUND * BLOCK_ROUND;
    width = width > BLOCK_MIN ? width : BLOCK_MIN;
    if (!dpt_svd_basis_grows(rows, cols, rank))
        width = 2 * rank > rank + OVERSAMPLE_MIN ? 2 * rank : rank + OVERSAMPLE_MIN;
    return width < side ? width : side;
}

static dpt_status state_create(random_state *s, const dpt_svd_problem *problem) {
    *s = (random_state){.fall = 0.0};
    s->most = dpt_svd_exact_cost(problem->rows, problem->cols, problem->rank) /
              dpt_svd_iteration_cost(problem->rows, problem->cols, problem->rank);
    dpt_status st = dpt_svd_basis_create(problem, &s->basis);
    if (st == DPT_OK) {
        s->values = dpt_mem_zalloc(s->basis.room, sizeof *s->values, "singular value estimates");
        st = dpt_agree(problem->comm, s->values == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    }
    return st;
}

static void state_destroy(random_state *s) {
    dpt_svd_basis_destroy(&s->basis);
    dpt_mem_free(s->values);
}

static dpt_status svd_random_project(random_state *s, bool vectors) {
    dpt_status st = dpt_svd_basis_project(&s->basis, vectors);
    s->vectors = vectors;
    for (int64_t i = 0; st == DPT_OK && i < dpt_svd_basis_width(&s->basis); i++)
        s->values[i] = sqrt(fmax(0.0, s->basis.work.roots[i]));
    double last = st == DPT_OK ? s->values[dpt_svd_basis_width(&s->basis) - 1] : 0.0;
    s->basis.shift = fmax(s->basis.shift, SHIFT_SHARE * last * last);
    return st;
}

typedef enum verdict { GO_ON, CONVERGED, TOO_SLOW } verdict;

/* Whether the residual exceeds the best by at most the tolerance; everything is relative to |A|.
 * Three ways to know. The basis holds all of the range. What lies outside of it bounds the excess. Or: the captured energy
 * grows by less from iteration to iteration, by a ratio that at worst comes to rise a little in a flat spectrum: what is
 * still to come is about what a geometric series leaves after its last member. */
static verdict svd_random_judge(random_state *s, int iteration) {
    double tolerance = s->basis.problem->tolerance, all = 0.0, leading = 0.0;
    int64_t width = dpt_svd_basis_width(&s->basis);
    for (int64_t i = 0; i < width; i++)
        all += s->values[i] * s->values[i];
    for (int64_t i = 0; i < width && i < s->basis.problem->rank; i++)
        leading += s->values[i] * s->values[i];
    double residual = sqrt(fmax(0.0, 1.0 - leading)), best = residual * residual;
    double outside = fmax(0.0, 1.0 - all);
    double fall = fmax(0.0, leading - s->captured), last_fall = s->fall;
    s->captured = leading;
    s->fall = fall;
    if (tolerance < RANDOM_TOLERANCE)
        return TOO_SLOW;
    if (s->exhausted || (iteration > 0 && sqrt(outside) <= tolerance &&
                         residual - sqrt(fmax(0.0, best - outside)) <= tolerance))
        return CONVERGED;
    if (iteration < 2)
        return GO_ON;
    double ratio = fmin(fmax(1.1 * fall / fmax(last_fall, fall), 0.1), 0.98);
    double to_come = fall * ratio / (1.0 - ratio);
    double excess = residual - sqrt(fmax(0.0, best - to_come));
    if (excess <= tolerance)
        return CONVERGED;
    return log(excess / tolerance) / log(1.0 / ratio) > s->most ? TOO_SLOW : GO_ON;
}

/* Left vectors and the share of the right ones, in basis.spare, cleaned of what rounding left. */
static dpt_status svd_random_rotate(random_state *s, int64_t found, dpt_svd *out) {
    dpt_svd_basis *b = &s->basis;
    const dpt_svd_problem *p = b->problem;
    int64_t u_width = found, v_width = found;
    dpt_svd_basis_turn(b, found, s->values, out->u, b->spare);
    dpt_status st = dpt_panel_orthonormalise(p->comm, p->local_rows, &u_width, out->u,
                                             DPT_PANEL_KEEP, &b->work);
    if (st == DPT_OK)
        st = dpt_panel_orthonormalise(p->comm, b->own_rows, &v_width, b->spare, DPT_PANEL_KEEP,
                                      &b->work);
    if (st == DPT_OK && (u_width < found || v_width < found))
        st = dpt_error(DPT_ERR_INTERNAL, "%s: the range finder lost singular vectors", p->name);
    return st;
}

/* Spread (rows, have) without gaps to (rows, want), last row first. */
static void svd_random_widen(int64_t rows, int64_t have, int64_t want, float *y) {
    for (int64_t i = rows - 1; have < want && i >= 0; i--)
        memmove(y + i * want, y + i * have, (size_t)have * sizeof *y);
}

/* Noise and the null space: s = 0 with vectors that complete the bases. basis.spare has room for all
 * wanted columns, for a block is at least that wide. */
static dpt_status complete(random_state *s, int64_t found, dpt_svd *out) {
    dpt_svd_basis *b = &s->basis;
    const dpt_svd_problem *p = b->problem;
    int64_t k = p->rank;
    DPT_ASSERT(found <= k && k <= b->block);
    dpt_rng stream = {.key = ~p->sketch.key, .purpose = p->sketch.purpose};
    svd_random_widen(p->local_rows, found, k, out->u);
    svd_random_widen(b->own_rows, found, k, b->spare);
    dpt_status st = dpt_panel_complete(p->comm, p->row0, p->local_rows, found, k, stream, out->u);
    if (st == DPT_OK)
        st = dpt_panel_complete(p->comm, b->first, b->own_rows, found, k, stream, b->spare);
    return st;
}

static dpt_status svd_random_finish(random_state *s, dpt_svd *out) {
    dpt_svd_basis *b = &s->basis;
    const dpt_svd_problem *p = b->problem;
    int64_t k = p->rank, width = dpt_svd_basis_width(b), found = 0;
    dpt_status st = dpt_agree(p->comm, dpt_svd_allocate(p, k, out));
    if (st == DPT_OK && !s->vectors)
        st = svd_random_project(s, true);
    if (st == DPT_OK) {
        while (found < k && found < width && s->values[found] > RANDOM_NULL * s->values[0])
            found++;
        for (int64_t i = 0; i < found; i++) {
            DPT_ASSERT(s->values[i] > 0.0 && (i == 0 || s->values[i] <= s->values[i - 1]));
            out->s[i] = s->values[i] * p->norm;
        }
        st = svd_random_rotate(s, found, out);
    }
    if (st == DPT_OK)
        st = complete(s, found, out);
    if (st == DPT_OK)
        st = dpt_panel_gather_shares(p->comm, p->cols, k, b->spare, out->v, b->counts);
    return st;
}

dpt_status dpt_svd_random(const dpt_svd_problem *problem, dpt_svd *out, bool *converged) {
    random_state s;
    verdict so_far = GO_ON;
    dpt_status st = state_create(&s, problem);
    for (int i = 0; st == DPT_OK && so_far == GO_ON && i <= ITERATIONS_MAX; i++) {
        if (i > 0)
            st = dpt_svd_basis_next(&s.basis);
        if (st == DPT_OK)
            st = dpt_svd_basis_grow(&s.basis, &s.exhausted);
        if (st == DPT_OK)
            st = svd_random_project(&s, i >= 2 || s.exhausted); /* when it may be the last */
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

#ifndef DELTAPATH_SRC_LINALG_PANEL_H
#define DELTAPATH_SRC_LINALG_PANEL_H

#include "deltapath/base/rng.h"
#include "deltapath/comm/comm.h"

#include <stdbool.h>
#include <stdint.h>

/* Tall panels: (rows, width) row-major, rows in slabs in rank order, any split. Small square matrices
 * (width, width) are whole on every rank; they are factorised on rank 0 and broadcast, so that every
 * rank decides by the same bits. Counts have passed dpt_grid_int. */

/** Ratio of eigenvalues: directions of a panel in fp32 that are rounding. */
static const double DPT_PANEL_DROP = 1e-12;

enum { DPT_PANEL_CHUNK = 256 }; /**< rows that the scratch of dpt_panel_work holds */

/** First row of the near-equal share of rank r when n rows are dealt to `size` ranks. Local. */
static inline int64_t dpt_panel_share(int64_t n, int r, int size) {
    return n / size * r + (r < n % size ? r : n % size);
}

/** Room for panels up to a width, made once so that the steps between messages cannot fail. */
typedef struct dpt_panel_work {
    int64_t width;
    double *gram;    /**< (width, width) last Gram matrix, whole on every rank */
    double *t;       /**< (width, width) last factor, within `message` */
    double *roots;   /**< (width) last eigenvalues, falling, within `message` */
    double *message; /**< what rank 0 tells after a factorisation */
    double *scaled;  /**< (width, width) scratch of rank 0 */
    double *scales;  /**< (2 width) scratch of rank 0 */
    double *chunk;   /**< rows in double */
    double *turned;  /**< rows in double */
    float *factor;   /**< (width, width) scratch in single */
} dpt_panel_work;

/** Collective over comm (same: width). Errors: DPT_ERR_OUTPUT on all ranks; *out empty then. */
dpt_status dpt_panel_work_create(const dpt_comm *comm, int64_t width, dpt_panel_work *out);
void dpt_panel_work_destroy(dpt_panel_work *work);

/** work->gram = Y^T Y in double. Collective over comm (same: width). */
dpt_status dpt_panel_gram_f32(const dpt_comm *comm, int64_t rows, int64_t width, const float *y,
                              dpt_panel_work *work);
dpt_status dpt_panel_gram_f64(const dpt_comm *comm, int64_t rows, int64_t width, const double *y,
                              dpt_panel_work *work);

/** What makes the columns of a panel orthonormal. */
typedef struct dpt_panel_transform {
    int64_t width;    /**< columns that remain: the numerical rank */
    double quality;   /**< smallest pivot of the unit-diagonal Cholesky factor (1: orthogonal) */
    double deviation; /**< max |G - I| before */
    bool mixed;       /**< the columns were mixed and reordered by eigenvectors */
} dpt_panel_transform;

/** Find T with (Y T)^T (Y T) = I from G = work->gram: Cholesky of the Gram matrix scaled to a unit
 * diagonal; when that is near singular, its eigenvectors without those below `drop` of the largest.
 *
 * Collective over comm (same: width, drop). T is work->t (width, out->width) row-major.
 * Source: Cholesky QR, Yamamoto et al., ETNA 44 (2015).
 */
dpt_status dpt_panel_solve(const dpt_comm *comm, int64_t width, double drop, dpt_panel_work *work,
                           dpt_panel_transform *out);

/** Eigenvalues of work->gram into work->roots, falling; with vectors column j of work->t (width, width) is
 * that of value j. Collective over comm (same: width, vectors). */
dpt_status dpt_panel_eigen(const dpt_comm *comm, int64_t width, bool vectors, dpt_panel_work *work);

/** Y <- Y T with T = work->t of dpt_panel_solve, in place; Y becomes (rows, step->width) without gaps.
 * Local. */
void dpt_panel_apply(int64_t rows, int64_t width, float *y, const dpt_panel_transform *step,
                     dpt_panel_work *work);

typedef enum dpt_panel_basis {
    DPT_PANEL_LOOSE,  /**< a well-conditioned basis of the range (orthonormal to 1e-5) */
    DPT_PANEL_STRICT, /**< orthonormal to a few 1e-7 */
    DPT_PANEL_KEEP    /**< strict, and column j stays the old column j up to those before it */
} dpt_panel_basis;

/** Orthonormalise the columns by repeated Cholesky QR; dependent columns are dropped.
 *
 * Collective over comm (same: width, basis).
 * @param[in,out] width columns of y; fewer on return when the panel is rank deficient.
 * Errors: DPT_ERR_INTERNAL when six passes do not get there, or KEEP meets dependent columns.
 */
dpt_status dpt_panel_orthonormalise(const dpt_comm *comm, int64_t rows, int64_t *width, float *y,
                                    dpt_panel_basis basis, dpt_panel_work *work);

/** Fill columns [have, want) of y (rows, want) so that all are orthonormal; the first `have` already
 * are. Collective over comm (same: have, want, stream); want <= rows of all ranks.
 * @param[in] ig0 first global row of this rank. */
dpt_status dpt_panel_complete(const dpt_comm *comm, int64_t ig0, int64_t rows, int64_t have,
                              int64_t want, dpt_rng stream, float *y);

/** Random entries in (-1, 1): element (i, j) is a function of the stream and (ig0 + i) * width + j.
 * Local. */
dpt_status dpt_panel_fill(dpt_rng stream, int64_t ig0, int64_t rows, int64_t width, float *y);

/** Sum (n, width) over ranks; each gets its share of the rows (dpt_panel_share).
 * Collective over comm. @param[in,out] whole destroyed. @param[out] share (own rows, width).
 * @param counts scratch (2 size). */
dpt_status dpt_panel_sum_to_shares(const dpt_comm *comm, int64_t n, int64_t width, float *whole,
                                   float *share, int *counts);

/** The same in double, the shares rounded. */
dpt_status dpt_panel_sum_to_shares_f64(const dpt_comm *comm, int64_t n, int64_t width,
                                       double *whole, float *share, int *counts);

/** The way back: shares of the rows to the whole on every rank. Collective over comm.
 * @param counts scratch (2 size). */
dpt_status dpt_panel_gather_shares(const dpt_comm *comm, int64_t n, int64_t width,
                                   const float *share, float *whole, int *counts);

#endif

#ifndef DELTAPATH_SRC_MODEL_LEAVE_H
#define DELTAPATH_SRC_MODEL_LEAVE_H

#include "driver.h"

enum { DPT_LEAVE_ROWS = 512 }; /**< rows of E formed at a time */

/** Where a backward pass leaves what the call asks for: terms of each sample, or gradients. */
typedef struct dpt_leave {
    const dpt_model *model;
    const dpt_model_call *call;
    double *term;    /**< (most rows of a layer) */
    float *e;        /**< (dpt_leave_delta_floats) rows of E */
    float *products; /**< scratch of dpt_nn_linear_terms */
} dpt_leave;

/** Rows of one layer y = f(x; w): gradient of its output, its input, and the sample of each. */
typedef struct dpt_leave_rows {
    int64_t n;
    const int64_t *sample; /**< (n) */
    const float *dy;
    int64_t lddy;
    const float *x;
    int64_t ldx;
} dpt_leave_rows;

static inline dpt_leave_rows dpt_leave_rows_of(int64_t n, const int64_t *sample, const float *dy,
                                               int64_t lddy, const float *x, int64_t ldx) {
    return (dpt_leave_rows){.n = n, .sample = sample, .dy = dy, .lddy = lddy, .x = x, .ldx = ldx};
}

/** Floats of E that matrices of at most `widest` columns and vectors of at most `longest` need. */
int64_t dpt_leave_delta_floats(int64_t widest, int64_t longest);

/* Each leaves one tensor, by its number in dpt_params; nothing where this rank has none of it. Local. */

/** y = x w^T. */
void dpt_leave_linear(const dpt_leave *leave, int weight, dpt_leave_rows rows);
/** y = x + b; b has one element a column of dy, whatever its shape. */
void dpt_leave_bias(const dpt_leave *leave, int bias, dpt_leave_rows rows);
/** y = w x rstd. */
void dpt_leave_rmsnorm(const dpt_leave *leave, int weight, dpt_leave_rows rows, const float *rstd);
/** y = w (x - mean) rstd + b. */
void dpt_leave_layernorm(const dpt_leave *leave, int weight, int bias, dpt_leave_rows rows,
                         const float *mean, const float *rstd);
/** y = row token - begin of the table, of whose rows this rank holds [begin, end). Rows have no x.
 * @param[in] tokens (rows.n); those outside are other ranks'. */
void dpt_leave_embed(const dpt_leave *leave, int table, dpt_leave_rows rows, const int32_t *tokens,
                     int64_t begin, int64_t end);

#endif

#ifndef DELTAPATH_SRC_MODEL_ACCUMULATE_H
#define DELTAPATH_SRC_MODEL_ACCUMULATE_H

#include "deltapath/model/model.h"

#include "gradient.h"
#include "params.h"

typedef struct dpt_model_call dpt_model_call;

enum { DPT_ACCUMULATE_ROWS = 512 }; /**< rows of E formed at a time */

/** Where a backward pass puts what the call asks for: terms of each sample, or gradients. */
typedef struct dpt_accumulator {
    const dpt_model *model;
    const dpt_model_call *call;
    double *term;    /**< (most rows of a layer) */
    float *e;        /**< (dpt_accumulate_delta_floats) rows of E */
    float *squares;  /**< the same of a gradient; only where the call asks for squares */
    float *products; /**< scratch of dpt_nn_linear_terms */
} dpt_accumulator;

/** Rows of one layer y = f(x; w): gradient of its output, its input, and the sample of each. */
typedef struct dpt_rows {
    int64_t n;
    const int64_t *sample; /**< (n) */
    const float *dy;
    int64_t lddy;
    const float *x;
    int64_t ldx;
} dpt_rows;

static inline dpt_rows dpt_rows_of(int64_t n, const int64_t *sample, const float *dy, int64_t lddy,
                                   const float *x, int64_t ldx) {
    return (dpt_rows){.n = n, .sample = sample, .dy = dy, .lddy = lddy, .x = x, .ldx = ldx};
}

/** Floats of E that are formed at a time of a tensor: some rows of a matrix, or all of what is added as
 * a bias. Local. */
int64_t dpt_accumulate_delta_floats(const dpt_param *param, bool whole);

/* Each is for one tensor, by its number in dpt_params; nothing where this rank has none of it, or the number
 * is -1. Local. */

/** Whether this rank has anything to add for a tensor in the mode of the call. Local. */
bool dpt_accumulate_is_wanted(const dpt_accumulator *to, int index);

/** y = x w^T. */
void dpt_accumulate_linear(const dpt_accumulator *to, int weight, dpt_rows rows);
/** The same in three steps for a caller who forms E: rows [at, at + n) of it in to->e before each
 * dpt_accumulate_some, and all of them before dpt_accumulate_end.
 * @return whether these are to follow; false: E is not needed, and all is done. */
bool dpt_accumulate_begin(const dpt_accumulator *to, int weight, dpt_rows rows);
void dpt_accumulate_some(const dpt_accumulator *to, int weight, dpt_rows rows, int64_t at,
                         int64_t n);
void dpt_accumulate_end(const dpt_accumulator *to, int weight, dpt_rows rows);
/** y = x + b; b has one element a column of dy, whatever its shape. */
void dpt_accumulate_bias(const dpt_accumulator *to, int bias, dpt_rows rows);
/** y = w (x - mean) rstd + b; without mean y = w x rstd, rstd NULL is 1. */
void dpt_accumulate_norm(const dpt_accumulator *to, int weight, int bias, dpt_rows rows,
                         const float *mean, const float *rstd);
/** y = w x rstd of each of the heads of a row, which lie end to end; rstd (rows.n, heads). */
void dpt_accumulate_norm_heads(const dpt_accumulator *to, int weight, int64_t heads, dpt_rows rows,
                               const float *rstd);
/** y = w x, a factor for each column (dpt_nn_scale). */
void dpt_accumulate_scale(const dpt_accumulator *to, int weight, dpt_rows rows);
/** y = row token - begin of the table, of whose rows this rank holds [begin, end). Rows have no x.
 * @param[in] tokens (rows.n); those outside are other ranks'. */
void dpt_accumulate_embed(const dpt_accumulator *to, int table, dpt_rows rows,
                          const int32_t *tokens, int64_t begin, int64_t end);

/** Begin to add to the gradient of a matrix in chunks of rows, of which each is waited for. Local. */
dpt_gradient_visit dpt_accumulate_visit_linear(const dpt_accumulator *to, int weight);

/** Nothing more comes for a tensor in this pass. */
void dpt_accumulate_finish(const dpt_accumulator *to, int weight);

#endif

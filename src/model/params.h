#ifndef DELTAPATH_SRC_MODEL_PARAMS_H
#define DELTAPATH_SRC_MODEL_PARAMS_H

#include "deltapath/base/rng.h"
#include "deltapath/comm/comm.h"
#include "deltapath/tensor/catalog.h"
#include "deltapath/tensor/field.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** This rank's block of one tensor of a model, in the stored types. */
typedef struct dpt_param {
    int tensor;          /**< position in the catalog; -1: the model has no such tensor */
    dpt_block block;     /**< rows * cols may be 0 */
    bool columns;        /**< the ranks of a group have columns of it, all rows each */
    bool counted;        /**< terms and gradient of this block are taken here; false on copies */
    bool has_delta;      /**< E is not zero in this block */
    dpt_dtype post_type; /**< stored type of post */
    dpt_dtype edit_type; /**< stored type of edit */
    void *post;          /**< rows end to end; NULL for an empty block */
    void *edit;          /**< the same once bound, else NULL */
    bool direct;         /**< `edit` holds E itself, not the edited values */
    bool still;          /**< W(t) is W_post in this block, whatever E is */
    uint64_t
        *signs; /**< (elements of the block) bits: E is taken with the other sign; NULL: none is */
} dpt_param;

/** The tensors of an architecture, in the order in which its code numbers them. */
typedef struct dpt_params {
    int count;
    dpt_param *items;
    const dpt_catalog *catalog; /**< borrowed */
    char *problem;              /**< first tensor that does not fit, or NULL */
    int problems;
} dpt_params;

/** What part of a tensor a rank holds, as a matrix of rows and columns whatever its stored sides. */
typedef struct dpt_param_part {
    int ndim;
    int64_t sides[4]; /**< of the whole tensor, as it is stored */
    int64_t cols;     /**< of the whole tensor; 1 for a vector */
    int64_t row_begin, row_end;
    int64_t col_begin, col_end;
    bool columns; /**< other ranks have other columns */
    bool counted;
} dpt_param_part;

/** Empty table of `count` tensors. Local. */
dpt_status dpt_params_create(const dpt_catalog *catalog, int count, dpt_params *out);
void dpt_params_destroy(dpt_params *params);

/** Say that tensor i of the architecture is `name` with this shape and part. Missing and misshaped
 * tensors are collected for dpt_params_check. Local. */
void dpt_params_claim(dpt_params *params, int i, const char *name, const dpt_param_part *part);

/** Whether a tensor that nobody claimed may be there all the same. */
typedef bool (*dpt_params_ignore_fn)(const void *ctx, const char *name);

/** Errors: DPT_ERR_INPUT with the first missing, misshaped, extra or non-float tensor and the number
 * of all. Local. */
dpt_status dpt_params_check(dpt_params *params, dpt_params_ignore_fn ignore, const void *ctx);

/** Bytes of the stored blocks, post alone. Local. */
int64_t dpt_params_bytes(const dpt_params *params);

/** What a source gives. */
typedef enum dpt_params_kind {
    DPT_PARAMS_POST,
    DPT_PARAMS_EDIT,
    DPT_PARAMS_DIRECTION
} dpt_params_kind;

/** Fetch the blocks, tensor by tensor. Collective over group, with one status `local`, and over the ranks of a
 * source that is not independent: exactly one fetch per tensor of its catalog, empty ones when `local` is not
 * DPT_OK or params is NULL. Columns come from independent sources by dpt_columns_fetch.
 * @param[in] kind  post's values, the edited ones, or E in their place; the catalog of the last two must equal post's
 *                  in names and shapes.
 * Errors: DPT_ERR_INPUT for values that are not finite; the edit is then unbound. */
dpt_status dpt_params_load(dpt_params *params, const dpt_comm *group, dpt_status local,
                           const dpt_source *source, dpt_params_kind kind);
void dpt_params_unbind(dpt_params *params); /**< Local. */

/** Draw the signs of a block, which replace its earlier ones: element ig has bit ig of the stream. Local.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_param_draw_signs(dpt_param *param, dpt_rng stream);
void dpt_param_clear_direction(dpt_param *param); /**< No signs, and W(t) moves again. Local. */

/** Rows [row, row + rows) of the block of W(t) = post + t E, end to end, E = edit - post with the block's signs;
 * post where the block is still. t = 1 without signs gives the edited values exactly. Local.
 * @param[out] out (rows, cols). */
void dpt_param_weights(const dpt_param *param, double t, int64_t row, int64_t rows, float *out);

/** Rows [row, row + rows) of the block of E, signs included; zero when nothing is bound. Local. */
void dpt_param_delta(const dpt_param *param, int64_t row, int64_t rows, float *out);

static inline int64_t dpt_param_numel(const dpt_param *param) {
    return param->tensor < 0 ? 0 : param->block.rows * param->block.cols;
}

#endif

#ifndef DELTAPATH_SRC_MODEL_PARAMS_H
#define DELTAPATH_SRC_MODEL_PARAMS_H

#include "deltapath/base/rng.h"
#include "deltapath/comm/comm.h"
#include "deltapath/tensor/catalog.h"
#include "deltapath/tensor/field.h"
#include "deltapath/tensor/part.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The two kinds of values of a block. */
typedef enum dpt_values { DPT_VALUES_POST, DPT_VALUES_EDIT, DPT_VALUES } dpt_values;

/** This rank's block of one matrix of a model, in the stored types. Its values lie in the order of (outputs,
 * inputs), whatever their order in the tensor. */
typedef struct dpt_param {
    int tensor;         /**< position in the catalog; -1: the model has no such tensor */
    int next;           /**< another block of the same tensor; -1: the last */
    int64_t rows, cols; /**< of the block; may be 0. A vector is one column */
    int64_t row, col;   /**< of its first element in the matrix */
    dpt_layout layout;  /**< of the whole matrix in its tensor */
    int matrix; /**< its number among the matrices of tensors that have several; -1: it is its tensor's only one */
    bool columns;   /**< the ranks of a group have columns of what is stored, all its rows each */
    bool counted;   /**< terms and gradient of this block are taken here; false on copies */
    bool has_delta; /**< E is not zero in this block */
    dpt_dtype post_type;       /**< stored type of post */
    dpt_dtype edit_type;       /**< stored type of edit */
    int64_t own_row, own_rows; /**< rows of the block that this rank loads, the first of them */
    void *own[DPT_VALUES];     /**< and their values */
    const char *
        post; /**< rows end to end; NULL for an empty block, and where shares.h has not gathered it */
    const char *edit; /**< the same once bound, else NULL */
    bool direct;      /**< `edit` holds E itself, not the edited values */
    bool still;       /**< W(t) is W_post in this block, whatever E is */
    uint64_t
        *signs; /**< (elements of the block) bits: E is taken with the other sign; NULL: none is */
} dpt_param;

/** The tensors of an architecture, in the order in which its code numbers them. */
typedef struct dpt_params {
    int count;
    dpt_param *items;
    int *first; /**< (tensors) a block of each, from which `next` leads on; -1: none */
    const dpt_catalog *catalog; /**< borrowed */
    char *problem; /**< first tensor that is missing, else that does not fit, or NULL */
    bool missing;  /**< `problem` is a missing one */
    int problems;
    struct dpt_shares *shares; /**< where the values lie; NULL before dpt_shares_create */
} dpt_params;

/** What part of a matrix a rank holds. */
typedef struct dpt_param_part {
    int tensor;        /**< position in the catalog */
    dpt_layout layout; /**< of the whole matrix, as dpt_params_claim says */
    int matrix;        /**< as dpt_param */
    int64_t row_begin, row_end;
    int64_t col_begin, col_end;
    bool rows_split, cols_split; /**< other ranks have others; not both */
    bool counted;
} dpt_param_part;

/** Empty table of `count` tensors. Local. */
dpt_status dpt_params_create(const dpt_catalog *catalog, int count, dpt_params *out);
void dpt_params_destroy(dpt_params *params); /**< Collective over the replicas of its shares. */

/** Say what this rank has of matrix i of the architecture. The rows of its layout, or its columns where these are
 * further apart, lie in the tensor one after the other, whole. Types that are not computed with are collected
 * for dpt_params_check. Local. */
void dpt_params_claim(dpt_params *params, int i, const dpt_param_part *part);

/** Collect a text for dpt_params_check: why matrix i cannot be taken. Local.
 * @param[in] tensor  that it is about; -1: there is none.
 * @param[in] problem its memory is taken over; NULL: there was none for it. */
void dpt_params_refuse(dpt_params *params, int i, int tensor, char *problem);

/** Whether a tensor that nobody claimed may be there all the same. */
typedef bool (*dpt_params_ignore_fn)(const void *ctx, const char *name);

/** Errors: DPT_ERR_INPUT with the first missing, misshaped, extra or non-float tensor and the number
 * of all. Local. */
dpt_status dpt_params_check(dpt_params *params, dpt_params_ignore_fn ignore, const void *ctx);

/** Bytes that dpt_params_load needs besides, for the unit with the most that is stored in another order, in post's
 * types, once there are shares. Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_params_loading_bytes(const dpt_params *params, int64_t *bytes);

/** What a source gives. */
typedef enum dpt_params_kind {
    DPT_PARAMS_POST,
    DPT_PARAMS_EDIT,
    DPT_PARAMS_DIRECTION
} dpt_params_kind;

/** Fetch the blocks, unit by unit of dpt_shares_create. Collective over group and the replicas of the shares, which
 * together are the ranks of a source that is not independent: exactly one fetch a unit with the rows of all its blocks
 * that this rank loads. Columns come from independent sources by dpt_columns_fetch.
 * @param[in] kind  post's values, the edited ones, or E in their place; the catalog of the last two must equal post's
 *                  in names and shapes.
 * Errors, agreed over both: DPT_ERR_INPUT for values that are not finite, DPT_ERR_OUTPUT without memory; the edit is
 * then unbound. */
dpt_status dpt_params_load(dpt_params *params, const dpt_comm *group, const dpt_source *source,
                           dpt_params_kind kind);
void dpt_params_unbind(dpt_params *params); /**< Local. */

/** Draw the signs of a block, which replace its earlier ones: element ig has bit ig of the stream. Local.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_param_draw_signs(dpt_param *param, dpt_rng stream);
void dpt_param_clear_direction(dpt_param *param); /**< No signs, and W(t) moves again. Local. */

/** Rows [row, row + rows) of the block of W(t) = post + t E, end to end, E = edit - post with the block's signs;
 * post where the block is still. t = 1 without signs gives the edited values exactly. Local.
 * @param[out] out (rows, cols). */
void dpt_param_weights(const dpt_param *param, double t, int64_t row, int64_t rows, float *out);

/** Both dpt_param_weights and dpt_param_delta of some rows, which are read once. Local. */
void dpt_param_weights_delta(const dpt_param *param, double t, int64_t row, int64_t rows, float *w,
                             float *e);

/** W(t) of a block as products in bf16 take it: one or two bf16 matrices that stand in memory as they are stored. */
typedef struct dpt_param_stored {
    const uint16_t *post; /**< values at `t` 0 */
    const uint16_t *edit; /**< at `t` 1; NULL: W(t) is `post`, and no terms are wanted */
    float t;              /**< W(t) = post + t (edit - post) */
} dpt_param_stored;

/** Whether W(t) is made of bf16 values that the block holds. Local.
 * @param[in] terms E is wanted too, as edit - post. */
bool dpt_param_get_stored(const dpt_param *param, double t, bool terms, dpt_param_stored *out);

/** Rows [row, row + rows) of the block of W(t) as the sum of two bf16 matrices, to 2^-17 of each value. Local.
 * @param[out] high, low (rows, cols). */
void dpt_param_weights_split(const dpt_param *param, double t, int64_t row, int64_t rows,
                             uint16_t *high, uint16_t *low);

/** The same rows of E, rounded to bf16. Local. @param[out] out (rows, cols). */
void dpt_param_delta_bf16(const dpt_param *param, int64_t row, int64_t rows, uint16_t *out);

/** Rows [row, row + rows) of the block of E, signs included; zero when nothing is bound. Local. */
void dpt_param_delta(const dpt_param *param, int64_t row, int64_t rows, float *out);

/** The same of elements [at, at + n) of the block. Local. */
void dpt_param_delta_run(const dpt_param *param, int64_t at, int64_t n, float *out);

/** The same of a part of a block that begins with its element `first`. Local.
 * @param[in] part its values, and the signs of the block. @param[in] at counted from the first of the part. */
void dpt_param_delta_part(const dpt_param *part, int64_t first, int64_t at, int64_t n, float *out);

static inline int64_t dpt_param_numel(const dpt_param *param) {
    return param->tensor < 0 ? 0 : param->rows * param->cols;
}

/** Number in its tensor of an element of the block. Local. */
static inline int64_t dpt_param_place(const dpt_param *param, int64_t row, int64_t col) {
    return dpt_layout_place(&param->layout, param->row + row, param->col + col);
}

/** Elements of a block that lie in its tensor at one distance: a row, or the rows of a run in one column where these
 * are nearer to each other. Element i is number at + i step of the block and number ig + i stride of the tensor. */
typedef struct dpt_param_line {
    int64_t n, at, step, ig, stride;
} dpt_param_line;

/** Lines of a block, which come one after the other in its tensor. Local. */
int64_t dpt_param_lines(const dpt_param *param);
dpt_param_line dpt_param_get_line(const dpt_param *param, int64_t line);

/** What a block and a run of its tensor have in common, line by line. Start with {.line = -1}. Local.
 * @return whether there is a further one, in cut->part. */
typedef struct dpt_param_cut {
    int64_t line;
    dpt_param_line part;
} dpt_param_cut;
bool dpt_param_next_cut(const dpt_param *param, dpt_range range, dpt_param_cut *cut);

/** Whether the elements of a line of this matrix are in one column. Local. */
static inline bool dpt_layout_is_turned(const dpt_layout *layout) {
    return layout->cols == 1 || layout->col_stride > layout->row_stride;
}

#endif

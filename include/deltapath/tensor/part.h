#ifndef DELTAPATH_TENSOR_PART_H
#define DELTAPATH_TENSOR_PART_H

#include "deltapath/tensor/catalog.h"
#include "deltapath/tensor/role.h"

#include <stdbool.h>
#include <stdint.h>

/** How a matrix of (outputs, inputs) lies in the elements of a stored tensor: element (row, col) is number
 * first + row / run * run_stride + row % run * row_stride + col * col_stride. */
typedef struct dpt_layout {
    int64_t rows, cols; /**< cols is 1 for a vector */
    int64_t first;
    int64_t run;        /**< rows that follow each other at row_stride; at least 1 */
    int64_t run_stride; /**< from the first row of a run to that of the next */
    int64_t row_stride, col_stride;
} dpt_layout;

/** Number of an element in its tensor. Local. */
static inline int64_t dpt_layout_place(const dpt_layout *layout, int64_t row, int64_t col) {
    return layout->first + row / layout->run * layout->run_stride +
           row % layout->run * layout->row_stride + col * layout->col_stride;
}

/** Whether the inputs of an output are further apart than the outputs of an input: stored as (inputs, outputs). Local. */
static inline bool dpt_layout_is_transposed(const dpt_layout *layout) {
    return layout->cols > 1 && layout->row_stride < layout->cols * layout->col_stride;
}

/** One matrix, or bias, of a stored tensor: all of it, or one of those that are stored together, as fused q, k and
 * v, gate and up, or the experts of a layer. */
typedef struct dpt_part {
    int tensor;         /**< position in the catalog */
    int expert;         /**< from 0; -1: not of an expert */
    dpt_role_kind kind; /**< what it is, which of a fused tensor differs from part to part */
    dpt_layout layout;
} dpt_part;

/** All parts of a model, in the order of its catalog; every tensor has one or more, and no element is in two. */
typedef struct dpt_parts {
    int count;
    dpt_part *items;
    int *first; /**< (tensors + 1) first part of each tensor */
} dpt_parts;

/** Parts of all tensors of a catalog, from their names and shapes. Local.
 * @param[in] heads  query heads, of which one stored form (GPT-NeoX) needs the number; 0: not known, and such a
 *                   tensor is one part.
 * Errors: DPT_ERR_INPUT when there are more than an int counts; DPT_ERR_OUTPUT without memory; out is empty. */
dpt_status dpt_parts_create(const dpt_catalog *catalog, int64_t heads, dpt_parts *out);
void dpt_parts_destroy(dpt_parts *parts); /**< Local. */

/** The part of a kind, and of an expert or -1, in a tensor; NULL when it has none. Local. */
const dpt_part *dpt_parts_find(const dpt_parts *parts, int tensor, dpt_role_kind kind, int expert);

/** Parts that share a stretch of a tensor: all of it, or an expert's. */
typedef struct dpt_part_item {
    int first, count;   /**< of parts->items */
    int64_t begin, end; /**< elements of the tensor */
} dpt_part_item;

/** The item that holds an element. Local. */
dpt_part_item dpt_parts_item(const dpt_parts *parts, int tensor, int64_t ig);

enum { DPT_PART_WAYS = 3 };

/** Elements that follow each other in a tensor: the first is of part[0], the next of part[1], and so on, from the
 * start again after `ways`. */
typedef struct dpt_part_span {
    int64_t n;
    int ways;
    int part[DPT_PART_WAYS];
} dpt_part_span;

/** The span of at most `n` elements that begins at an element. Local. */
dpt_part_span dpt_parts_span(const dpt_parts *parts, int tensor, int64_t ig, int64_t n);

/** Number the parts of tensors that have more than one, in order. Local.
 * @param[out] number  (parts->count) from 0; -1 where the part is all of its tensor; or NULL.
 * @return how many there are. */
int dpt_parts_number(const dpt_parts *parts, int *number);

/** Name of a part among those of its tensor, such as "q", "3.gate" or "3"; empty when there is one. Local. */
enum { DPT_PART_LABEL = 32 };
void dpt_part_label(const dpt_parts *parts, int part, char label[DPT_PART_LABEL]);

#endif

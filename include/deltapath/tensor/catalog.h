#ifndef DELTAPATH_TENSOR_CATALOG_H
#define DELTAPATH_TENSOR_CATALOG_H

#include "deltapath/base/status.h"
#include "deltapath/tensor/dtype.h"

#include <stdbool.h>
#include <stdint.h>

enum { DPT_NDIM_MAX = 8 };

/** How names of one model begin, and what stands there in another. */
typedef struct dpt_rename {
    const char *from, *to;
} dpt_rename;

typedef struct dpt_tensor_info {
    char *name;  /**< owned by the catalog; HuggingFace name */
    char *alias; /**< what another model calls it (dpt_catalog_rename), owned; NULL: the same */
    dpt_dtype dtype;
    int ndim; /**< 0 is a scalar of one element */
    int64_t shape[DPT_NDIM_MAX];
    int64_t numel; /**< product of the shape; 0 when a side is 0 */
} dpt_tensor_info;

/** How values of a tensor are distributed, where they are not those of a file. */
typedef struct dpt_spread {
    double mean, deviation;
} dpt_spread;

/** Ordered list of the tensors of a model. Order is by name (strcmp), whatever the file's order, so
 * that two files of one model agree. */
typedef struct dpt_catalog {
    int count;
    dpt_tensor_info *tensors;
    int capacity;
    int64_t elements; /**< of all tensors; the sum times 8 bytes fits int64 */
} dpt_catalog;

void dpt_catalog_init(dpt_catalog *catalog);    /**< An empty list. Local. */
void dpt_catalog_destroy(dpt_catalog *catalog); /**< Local. */

/** Append a tensor. Local. Errors: DPT_ERR_INPUT when the name is empty, a side is negative, ndim is
 * above DPT_NDIM_MAX, or the size of the tensor or of the model overflows; DPT_ERR_OUTPUT without
 * memory; the catalog is unchanged. */
dpt_status dpt_catalog_add(dpt_catalog *catalog, const char *name, dpt_dtype dtype, int ndim,
                           const int64_t *shape);

/** Sort by name. Local. Errors: DPT_ERR_INPUT naming a duplicate. */
dpt_status dpt_catalog_sort(dpt_catalog *catalog);

/** Position of a name in a sorted catalog, or -1. Local. */
int dpt_catalog_find(const dpt_catalog *catalog, const char *name);

/** Give the names that renames map their aliases; of several that a name begins with the longest counts. Local.
 * @param[in] renames  (count).
 * @param[out] idle  the first rename that maps no name; -1: all do. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_catalog_rename(dpt_catalog *catalog, int count, const dpt_rename *renames,
                              int *idle);

/** Position of a name in a sorted catalog, or of the first tensor that has it as its alias; -1: none. Local. */
int dpt_catalog_find_alias(const dpt_catalog *catalog, const char *name);

/** Its alias, or its name without one. Local. */
const char *dpt_catalog_alias(const dpt_tensor_info *info);

/** Deep copy. Local. Errors: DPT_ERR_OUTPUT without memory; to is empty. */
dpt_status dpt_catalog_copy(const dpt_catalog *from, dpt_catalog *to);

/** Hash of all names, types and shapes in their order: what ranks share of a model. Local. */
uint64_t dpt_catalog_digest(const dpt_catalog *catalog);

/** Total elements and bytes. Local. */
int64_t dpt_catalog_elements(const dpt_catalog *catalog);
int64_t dpt_catalog_bytes(const dpt_catalog *catalog);

/** Text form "[4096, 11008]" into buffer. Local. */
void dpt_catalog_shape_text(const dpt_tensor_info *info, char *buffer, int size);

#endif

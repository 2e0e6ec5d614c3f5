#include "deltapath/tensor/catalog.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void dpt_catalog_init(dpt_catalog *catalog) {
    *catalog = (dpt_catalog){.count = 0};
}

void dpt_catalog_destroy(dpt_catalog *catalog) {
    for (int i = 0; i < catalog->count; i++) {
        dpt_mem_free(catalog->tensors[i].name);
        dpt_mem_free(catalog->tensors[i].alias);
    }
    dpt_mem_free(catalog->tensors);
    dpt_catalog_init(catalog);
}

/* Number of elements. The product of the sides that are not 0 must fit too, so that no partial
 * product of a shape ever overflows. */
static dpt_status count_elements(const char *name, int ndim, const int64_t *shape, int64_t *numel) {
    int64_t product = 1;
    bool empty = false;
    for (int d = 0; d < ndim; d++) {
        if (shape[d] < 0)
            return dpt_error(DPT_ERR_INPUT,
                             "tensor '%s': side %d is %" PRId64 ": sides must not be negative",
                             name, d, shape[d]);
        empty = empty || shape[d] == 0;
        if (shape[d] > 0 && !dpt_mem_mul(product, shape[d], &product))
            return dpt_error(DPT_ERR_INPUT,
                             "tensor '%s': the number of elements overflows 64 bits: the header is "
                             "damaged",
                             name);
    }
    *numel = empty ? 0 : product;
    return DPT_OK;
}

static dpt_status reserve(dpt_catalog *catalog) {
    if (catalog->count < catalog->capacity)
        return DPT_OK;
    if (catalog->capacity > INT32_MAX / 2)
        return dpt_error(DPT_ERR_INPUT, "the model has more than %d tensors", catalog->count);
    int capacity = catalog->capacity == 0 ? 64 : 2 * catalog->capacity;
    dpt_tensor_info *tensors =
        dpt_mem_realloc(catalog->tensors, capacity, sizeof *tensors, "tensor catalog");
    if (tensors == NULL)
        return DPT_ERR_OUTPUT;
    catalog->tensors = tensors;
    catalog->capacity = capacity;
    return DPT_OK;
}

dpt_status dpt_catalog_add(dpt_catalog *catalog, const char *name, dpt_dtype dtype, int ndim,
                           const int64_t *shape) {
    if (name[0] == '\0')
        return dpt_error(DPT_ERR_INPUT, "a tensor has an empty name: every tensor needs one");
    if (ndim < 0 || ndim > DPT_NDIM_MAX)
        return dpt_error(DPT_ERR_INPUT, "tensor '%s': %d dimensions, at most %d are supported",
                         name, ndim, DPT_NDIM_MAX);
    dpt_tensor_info info = {.dtype = dtype, .ndim = ndim};
    dpt_status st = count_elements(name, ndim, shape, &info.numel);
    if (st != DPT_OK)
        return st;
    int64_t elements;
    if (!dpt_mem_add(catalog->elements, info.numel, &elements) || elements > INT64_MAX / 8)
        return dpt_error(DPT_ERR_INPUT,
                         "tensor '%s': the size of the model overflows 64 bits: the header is "
                         "damaged",
                         name);
    st = reserve(catalog);
    if (st != DPT_OK)
        return st;
    for (int d = 0; d < ndim; d++)
        info.shape[d] = shape[d];
    info.name = dpt_mem_strdup(name, "tensor name");
    if (info.name == NULL)
        return DPT_ERR_OUTPUT;
    catalog->tensors[catalog->count++] = info;
    catalog->elements = elements;
    return DPT_OK;
}

static int catalog_by_name(const void *a, const void *b) {
    const dpt_tensor_info *left = a;
    const dpt_tensor_info *right = b;
    return strcmp(left->name, right->name);
}

dpt_status dpt_catalog_sort(dpt_catalog *catalog) {
    if (catalog->count > 1)
        qsort(catalog->tensors, (size_t)catalog->count, sizeof *catalog->tensors, catalog_by_name);
    for (int i = 1; i < catalog->count; i++)
        if (strcmp(catalog->tensors[i - 1].name, catalog->tensors[i].name) == 0)
            return dpt_error(DPT_ERR_INPUT, "tensor '%s' is stored twice: remove one of the two",
                             catalog->tensors[i].name);
    return DPT_OK;
}

int dpt_catalog_find(const dpt_catalog *catalog, const char *name) {
    int low = 0;
    int high = catalog->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        /* Where the search passes the names are sorted. */
        DPT_ASSERT(middle == 0 ||
                   strcmp(catalog->tensors[middle - 1].name, catalog->tensors[middle].name) < 0);
        int order = strcmp(catalog->tensors[middle].name, name);
        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

static dpt_status catalog_set_alias(dpt_tensor_info *info, const char *start, const char *rest) {
    dpt_mem_free(info->alias);
    info->alias = dpt_mem_format("%s%s", start, rest);
    return info->alias != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

/* The longest rename that a name begins with; -1: none. */
static int catalog_find_rename(const char *name, int count, const dpt_rename *renames) {
    int longest = -1;
    for (int r = 0; r < count; r++) {
        size_t n = strlen(renames[r].from);
        if (strncmp(name, renames[r].from, n) == 0 &&
            (longest < 0 || n > strlen(renames[longest].from)))
            longest = r;
    }
    return longest;
}

dpt_status dpt_catalog_rename(dpt_catalog *catalog, int count, const dpt_rename *renames,
                              int *idle) {
    bool *used = dpt_mem_zalloc(count, sizeof *used, "renames");
    dpt_status st = used != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    *idle = -1;
    for (int i = 0; i < catalog->count && st == DPT_OK; i++) {
        dpt_tensor_info *info = &catalog->tensors[i];
        int r = catalog_find_rename(info->name, count, renames);
        if (r < 0)
            continue;
        used[r] = true;
        st = catalog_set_alias(info, renames[r].to, info->name + strlen(renames[r].from));
    }
    for (int r = count - 1; r >= 0 && st == DPT_OK; r--)
        *idle = used[r] ? *idle : r;
    dpt_mem_free(used);
    return st;
}

int dpt_catalog_find_alias(const dpt_catalog *catalog, const char *name) {
    int found = dpt_catalog_find(catalog, name);
    for (int i = 0; i < catalog->count && found < 0; i++)
        if (catalog->tensors[i].alias != NULL && strcmp(catalog->tensors[i].alias, name) == 0)
            found = i;
    return found;
}

const char *dpt_catalog_alias(const dpt_tensor_info *info) {
    return info->alias != NULL ? info->alias : info->name;
}

dpt_status dpt_catalog_copy(const dpt_catalog *from, dpt_catalog *to) {
    dpt_catalog_init(to);
    dpt_status st = DPT_OK;
    for (int i = 0; st == DPT_OK && i < from->count; i++) {
        const dpt_tensor_info *info = &from->tensors[i];
        st = dpt_catalog_add(to, info->name, info->dtype, info->ndim, info->shape);
        if (st == DPT_OK && info->alias != NULL)
            st = catalog_set_alias(&to->tensors[i], info->alias, "");
    }
    if (st != DPT_OK)
        dpt_catalog_destroy(to);
    return st;
}

uint64_t dpt_catalog_digest(const dpt_catalog *catalog) {
    dpt_hash hash;
    dpt_hash_begin(&hash);
    for (int i = 0; i < catalog->count; i++) {
        const dpt_tensor_info *info = &catalog->tensors[i];
        const int64_t kind[2] = {info->dtype, info->ndim};
        dpt_hash_update(&hash, info->name, strlen(info->name) + 1);
        if (info->alias != NULL)
            dpt_hash_update(&hash, info->alias, strlen(info->alias) + 1);
        dpt_hash_update(&hash, kind, sizeof kind);
        dpt_hash_update(&hash, info->shape, (size_t)info->ndim * sizeof *info->shape);
    }
    return dpt_hash_value(&hash);
}

int64_t dpt_catalog_elements(const dpt_catalog *catalog) {
    return catalog->elements;
}

int64_t dpt_catalog_bytes(const dpt_catalog *catalog) {
    int64_t bytes = 0;
    for (int i = 0; i < catalog->count; i++)
        bytes += catalog->tensors[i].numel * dpt_dtype_size(catalog->tensors[i].dtype);
    return bytes;
}

void dpt_catalog_shape_text(const dpt_tensor_info *info, char *buffer, int size) {
    int at = snprintf(buffer, (size_t)size, "[");
    for (int d = 0; d < info->ndim && at < size; d++)
        at += snprintf(buffer + at, (size_t)(size - at), "%s%" PRId64, d > 0 ? ", " : "",
                       info->shape[d]);
    if (at < size)
        snprintf(buffer + at, (size_t)(size - at), "]");
}

#include "deltapath/tensor/prefix.h"

#include "deltapath/base/mem.h"

#include <stdlib.h>
#include <string.h>

/* Names of one model that differ by prefixes alone are never taken for each other: `model.norm.weight` next to
 * `norm.weight` are two tensors. */

struct dpt_prefix_entry {
    const char *rest; /* borrowed from the catalog */
    int tensor;
};

static const char *const prefixes[] = {"base_model.model.", "language_model.", "model.",
                                       "transformer."};

const char *dpt_prefix_skip(const char *name) {
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0];) {
        size_t n = strlen(prefixes[i]);
        bool there = strncmp(name, prefixes[i], n) == 0 && name[n] != '\0';
        name += there ? n : 0;
        i = there ? 0 : i + 1;
    }
    return name;
}

static int prefix_by_rest(const void *a, const void *b) {
    return strcmp(((const struct dpt_prefix_entry *)a)->rest,
                  ((const struct dpt_prefix_entry *)b)->rest);
}

dpt_status dpt_prefix_index_create(const dpt_catalog *catalog, dpt_prefix_index *out) {
    *out = (dpt_prefix_index){.catalog = catalog};
    out->entries = dpt_mem_alloc(catalog->count, sizeof *out->entries, "names without prefixes");
    if (out->entries == NULL)
        return DPT_ERR_OUTPUT;
    for (int t = 0; t < catalog->count; t++)
        out->entries[t] = (struct dpt_prefix_entry){
            .rest = dpt_prefix_skip(catalog->tensors[t].name), .tensor = t};
    if (catalog->count > 1)
        qsort(out->entries, (size_t)catalog->count, sizeof *out->entries, prefix_by_rest);
    return DPT_OK;
}

void dpt_prefix_index_destroy(dpt_prefix_index *index) {
    dpt_mem_free(index->entries);
    *index = (dpt_prefix_index){.catalog = NULL};
}

int dpt_prefix_find_rest(const dpt_prefix_index *index, const char *name) {
    struct dpt_prefix_entry key = {.rest = dpt_prefix_skip(name)};
    const struct dpt_prefix_entry *first = index->entries;
    const struct dpt_prefix_entry *end = first + index->catalog->count;
    const struct dpt_prefix_entry *found =
        bsearch(&key, first, (size_t)index->catalog->count, sizeof *first, prefix_by_rest);
    if (found == NULL || (found > first && prefix_by_rest(found - 1, found) == 0) ||
        (found + 1 < end && prefix_by_rest(found, found + 1) == 0))
        return -1;
    return found->tensor;
}

int dpt_prefix_find(const dpt_prefix_index *index, const char *name) {
    int tensor = dpt_catalog_find(index->catalog, name);
    return tensor >= 0 ? tensor : dpt_prefix_find_rest(index, name);
}

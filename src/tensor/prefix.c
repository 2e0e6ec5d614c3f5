#include "deltapath/tensor/prefix.h"

#include "deltapath/base/mem.h"

#include <stdlib.h>
#include <string.h>

/* Names of one model that differ by prefixes alone are never taken for each other: `model.norm.weight` next to
 * `norm.weight` are two tensors. */

struct dpt_prefix_entry {
    const char *name; /* or the alias; borrowed from the catalog */
    const char *rest; /* of it */
    bool tower;       /* the rest is that after `vision_tower.` */
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

/* A tower of images is wrapped in `vision_model.` in files, and not in the models of transformers 5. */
static struct dpt_prefix_entry prefix_entry(const char *name, int tensor) {
    static const char tower[] = "vision_tower.", wrapper[] = "vision_model.";
    struct dpt_prefix_entry entry = {.name = name, .rest = dpt_prefix_skip(name), .tensor = tensor};
    size_t n = sizeof tower - 1, m = sizeof wrapper - 1;
    entry.tower = strncmp(entry.rest, tower, n) == 0;
    entry.rest += entry.tower ? n : 0;
    if (strncmp(entry.rest, wrapper, m) == 0 && entry.rest[m] != '\0')
        entry.rest += m;
    return entry;
}

static int prefix_by_rest(const void *a, const void *b) {
    const struct dpt_prefix_entry *x = a, *y = b;
    return x->tower != y->tower ? (int)x->tower - (int)y->tower : strcmp(x->rest, y->rest);
}

static void prefix_add(dpt_prefix_index *index, const char *name, int tensor) {
    index->entries[index->count++] = prefix_entry(name, tensor);
}

dpt_status dpt_prefix_index_create(const dpt_catalog *catalog, dpt_prefix_index *out) {
    *out = (dpt_prefix_index){.catalog = catalog};
    int64_t most = 2 * (int64_t)catalog->count;
    out->entries = dpt_mem_alloc(most, sizeof *out->entries, "names without prefixes");
    if (out->entries == NULL)
        return DPT_ERR_OUTPUT;
    for (int t = 0; t < catalog->count; t++) {
        const dpt_tensor_info *info = &catalog->tensors[t];
        prefix_add(out, info->name, t);
        if (info->alias != NULL)
            prefix_add(out, info->alias, t);
    }
    if (out->count > 1)
        qsort(out->entries, (size_t)out->count, sizeof *out->entries, prefix_by_rest);
    return DPT_OK;
}

void dpt_prefix_index_destroy(dpt_prefix_index *index) {
    dpt_mem_free(index->entries);
    *index = (dpt_prefix_index){.catalog = NULL};
}

/* The entries of a name's rest: the first, and the end of them. */
static const struct dpt_prefix_entry *prefix_search(const dpt_prefix_index *index, const char *name,
                                                    const struct dpt_prefix_entry **end) {
    struct dpt_prefix_entry key = prefix_entry(name, -1);
    const struct dpt_prefix_entry *first = index->entries, *last = first + index->count;
    const struct dpt_prefix_entry *found =
        bsearch(&key, first, (size_t)index->count, sizeof *first, prefix_by_rest);
    *end = found;
    while (found != NULL && found > first && prefix_by_rest(found - 1, &key) == 0)
        found--;
    while (*end != NULL && *end < last && prefix_by_rest(*end, &key) == 0)
        ++*end;
    return found;
}

int dpt_prefix_find_rest(const dpt_prefix_index *index, const char *name) {
    const struct dpt_prefix_entry *end, *entry = prefix_search(index, name, &end);
    int tensor = entry != end ? entry->tensor : -1;
    for (; entry != end; entry++) /* a name and its alias may differ by prefixes alone */
        if (entry->tensor != tensor)
            return -1;
    return tensor;
}

int dpt_prefix_find(const dpt_prefix_index *index, const char *name) {
    int tensor = dpt_catalog_find(index->catalog, name);
    if (tensor >= 0)
        return tensor;
    const struct dpt_prefix_entry *end, *entry = prefix_search(index, name, &end);
    for (; entry != end; entry++) /* an alias; names were found before */
        if (strcmp(entry->name, name) == 0)
            return entry->tensor;
    return dpt_prefix_find_rest(index, name);
}

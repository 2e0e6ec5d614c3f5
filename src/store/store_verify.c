#include "dequantise.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* A hash runs through a tensor from its first byte to its last, so whole tensors are shared out:
 * the largest first, each to the rank that has the least. */

enum { RUN_BYTES = 4 << 20 };

enum { FOUND_HASHED = 1, FOUND_WRONG = 2, FOUND_NONFINITE = 4 };

typedef struct check {
    dpt_store *store;
    const dpt_store
        *shown; /* NULL, or store is one as it lies: what shown has of it is looked at already */
    const dpt_catalog *catalog;
    int *owner;     /* (tensors); -1: not looked at */
    int64_t *found; /* (tensors) flags */
    int64_t *hash;  /* (tensors) of its bytes */
    int64_t *index; /* (tensors) of the first value that is not finite */
    int *order;     /* (tensors) scratch */
    int64_t *load;  /* (ranks) bytes */
} check;

static int64_t store_verify_bytes_of(const dpt_tensor_info *info) {
    return info->numel * dpt_dtype_size(info->dtype);
}

static int by_size(const void *a, const void *b, void *ctx) {
    const dpt_catalog *catalog = ctx;
    int x = *(const int *)a;
    int y = *(const int *)b;
    int64_t m = store_verify_bytes_of(&catalog->tensors[x]);
    int64_t n = store_verify_bytes_of(&catalog->tensors[y]);
    return m != n ? (m < n) - (m > n) : x - y;
}

static bool store_verify_skips(const check *c, int tensor) {
    char text[1];
    int64_t bytes;
    int t = c->shown != NULL
                ? dpt_catalog_find(dpt_store_catalog(c->shown), c->catalog->tensors[tensor].name)
                : -1;
    return t >= 0 && !dpt_store_quantised(c->shown, t, text, sizeof text, &bytes);
}

static dpt_status store_verify_allocate(const dpt_comm *comm, check *c) {
    int count = c->catalog->count;
    c->owner = dpt_mem_zalloc(count, sizeof *c->owner, "verification");
    c->found = dpt_mem_zalloc(count, sizeof *c->found, "verification");
    c->hash = dpt_mem_zalloc(count, sizeof *c->hash, "verification");
    c->index = dpt_mem_zalloc(count, sizeof *c->index, "verification");
    c->order = dpt_mem_zalloc(count, sizeof *c->order, "verification");
    c->load = dpt_mem_zalloc(comm->size, sizeof *c->load, "verification");
    if (c->owner == NULL || c->found == NULL || c->hash == NULL || c->index == NULL ||
        c->order == NULL || c->load == NULL)
        return DPT_ERR_OUTPUT;
    for (int t = 0; t < count; t++)
        c->order[t] = t;
    qsort_r(c->order, (size_t)count, sizeof *c->order, by_size, (void *)(uintptr_t)c->catalog);
    for (int i = 0; i < count; i++) {
        int minimum = 0;
        for (int r = 1; r < comm->size; r++)
            minimum = c->load[r] < c->load[minimum] ? r : minimum;
        c->owner[c->order[i]] = store_verify_skips(c, c->order[i]) ? -1 : minimum;
        if (c->owner[c->order[i]] < 0)
            continue;
        c->load[minimum] += store_verify_bytes_of(&c->catalog->tensors[c->order[i]]);
    }
    return DPT_OK;
}

static dpt_status check_tensor(check *c, int t, char *buffer) {
    const dpt_tensor_info *info = &c->catalog->tensors[t];
    dpt_source source = dpt_store_source(c->store);
    int64_t run = RUN_BYTES / dpt_dtype_size(info->dtype);
    dpt_status st = DPT_OK;
    dpt_hash hash;
    dpt_hash_begin(&hash);
    for (int64_t ig = 0; ig < info->numel && st == DPT_OK; ig += run) {
        dpt_range range = {.tensor = t, .ig = ig};
        range.n = info->numel - ig < run ? info->numel - ig : run;
        st = source.read(source.ctx, range, buffer);
        if (st != DPT_OK)
            return st;
        dpt_hash_update(&hash, buffer, (size_t)(range.n * dpt_dtype_size(info->dtype)));
        if (!dpt_dtype_editable(info->dtype) || (c->found[t] & FOUND_NONFINITE) != 0)
            continue;
        int64_t at = dpt_dtype_find_nonfinite(info->dtype, buffer, range.n);
        if (at >= 0) {
            c->found[t] |= FOUND_NONFINITE;
            c->index[t] = ig + at;
        }
    }
    uint64_t stored = 0, value = dpt_hash_value(&hash);
    if (dpt_store_stored_hash(c->store, t, &stored))
        c->found[t] |= FOUND_HASHED | (stored != value ? FOUND_WRONG : 0);
    memcpy(&c->hash[t], &value, sizeof value);
    return st;
}

static dpt_status check_own(const dpt_comm *comm, check *c) {
    char *buffer = dpt_mem_alloc(RUN_BYTES, 1, "verification buffer");
    dpt_status st = buffer == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    dpt_progress progress;
    dpt_progress_begin(&progress, "verify (rank 0's share)", "bytes", c->load[comm->rank]);
    for (int t = 0; t < c->catalog->count && st == DPT_OK; t++) {
        if (c->owner[t] != comm->rank)
            continue;
        st = check_tensor(c, t, buffer);
        dpt_progress_add(&progress, store_verify_bytes_of(&c->catalog->tensors[t]));
    }
    dpt_progress_end(&progress);
    dpt_mem_free(buffer);
    return st;
}

/* The same on all ranks: each has all findings. */
static dpt_status judge(const check *c, FILE *out) {
    const char *path = dpt_store_path(c->store);
    int64_t hashed = 0;
    int64_t wrong = 0;
    int64_t nonfinite = 0, looked = 0;
    dpt_status st = DPT_OK;
    for (int t = 0; t < c->catalog->count; t++) {
        looked += c->owner[t] >= 0;
        const char *name = c->catalog->tensors[t].name;
        hashed += (c->found[t] & FOUND_HASHED) != 0;
        if (c->found[t] & FOUND_WRONG) {
            wrong++;
            st = dpt_error(DPT_ERR_INPUT,
                           "%s: the bytes of tensor %s do not have the stored XXH3: the file was "
                           "damaged or changed, copy it again",
                           path, name);
            if (out != NULL)
                fprintf(out, "%s: hash differs\n", name);
        }
        if (c->found[t] & FOUND_NONFINITE) {
            nonfinite++;
            st = dpt_error(DPT_ERR_INPUT,
                           "%s: tensor %s has a NaN or an infinity at element %" PRId64
                           ": repair the model",
                           path, name, c->index[t]);
            if (out != NULL)
                fprintf(out, "%s: NaN or infinity at element %" PRId64 "\n", name, c->index[t]);
        }
    }
    if (out != NULL && c->shown != NULL)
        fprintf(out,
                "%s: %" PRId64 " tensors of codes and scales: %" PRId64 " of %" PRId64
                " stored hashes match\n",
                path, looked, hashed - wrong, hashed);
    else if (out != NULL)
        fprintf(out,
                "%s: %d tensors, %.3f GB: %" PRId64 " of %" PRId64 " stored hashes match, %" PRId64
                " tensors have none, %" PRId64 " have values that are not finite\n",
                path, c->catalog->count, (double)dpt_catalog_bytes(c->catalog) / 1e9,
                hashed - wrong, hashed, (int64_t)c->catalog->count - hashed, nonfinite);
    return st;
}

/* What the manifest of a folder leaves out is said: nothing checks it. Rank 0. */
static dpt_status store_verify_say_unlisted(const char *path, FILE *out) {
    dpt_status st = DPT_OK;
    char *name = NULL;
    for (int i = 0; st == DPT_OK && (i == 0 || name != NULL); i++) {
        dpt_mem_free(name);
        st = dpt_store_unlisted(path, i, &name);
        if (name != NULL)
            fprintf(out, "%s/%s: the manifest does not list it: not checked\n", path, name);
    }
    dpt_mem_free(name);
    return st;
}

/* The configuration is no part of a tensor, and nothing but a run would read it. */
static dpt_status store_verify_config(const dpt_store *store) {
    const char *text = dpt_store_config(store);
    json_error_t error = {.line = 0};
    if (text == NULL)
        return DPT_OK;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    bool sound = json_is_object(root);
    if (!sound)
        (void)dpt_error(DPT_ERR_INPUT,
                        "%s: its configuration is no JSON object (line %d, column %d: %s): copy or "
                        "convert the model again",
                        dpt_store_path(store), error.line, error.column,
                        root != NULL ? "another value" : error.text);
    json_decref(root);
    return sound ? DPT_OK : DPT_ERR_INPUT;
}

/* All tensors of the store that are not skipped. Collective. */
static dpt_status store_verify_check(const dpt_comm *comm, check *c, FILE *out) {
    c->catalog = dpt_store_catalog(c->store);
    dpt_status st = dpt_agree(comm, store_verify_allocate(comm, c));
    if (st == DPT_OK)
        st = dpt_agree(comm, check_own(comm, c));
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_sum_i64(comm, c->found, c->catalog->count));
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_sum_i64(comm, c->index, c->catalog->count));
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_sum_i64(comm, c->hash, c->catalog->count));
    if (st == DPT_OK)
        st = dpt_agree(comm, judge(c, comm->rank == 0 ? out : NULL));
    return st;
}

static void store_verify_destroy(check *c) {
    dpt_mem_free(c->owner);
    dpt_mem_free(c->found);
    dpt_mem_free(c->index);
    dpt_mem_free(c->order);
    dpt_mem_free(c->load);
    dpt_mem_free(c->hash);
    if (c->store != NULL)
        dpt_store_close(c->store);
}

/* What lies in the files for quantised tensors has hashes of its own. Collective. */
static dpt_status store_verify_stored(const dpt_comm *comm, const dpt_store *shown,
                                      const char *base, FILE *out) {
    check c = {.shown = shown};
    bool quantised = false;
    char text[1];
    int64_t bytes;
    for (int t = 0; t < dpt_store_catalog(shown)->count; t++)
        quantised = quantised || dpt_store_quantised(shown, t, text, sizeof text, &bytes);
    if (!quantised)
        return DPT_OK;
    dpt_status st = dpt_store_open_stored(comm, dpt_store_path(shown), base, &c.store);
    if (st == DPT_OK)
        st = store_verify_check(comm, &c, out);
    store_verify_destroy(&c);
    return st;
}

dpt_status dpt_store_verify(const dpt_comm *comm, const char *path, const char *base, FILE *out,
                            uint64_t **hashes, int *count) {
    DPT_ASSERT_SAME_TEXT(comm, path);
    DPT_ASSERT_SAME_TEXT(comm, base);
    check c = {.store = NULL};
    if (hashes != NULL) {
        *hashes = NULL;
        *count = 0;
    }
    dpt_status st =
        dpt_agree(comm, comm->rank == 0 ? store_verify_say_unlisted(path, out) : DPT_OK);
    if (st == DPT_OK)
        st = dpt_store_open_on(comm, path, base, &c.store);
    if (st == DPT_OK)
        st = dpt_agree(comm, store_verify_config(c.store));
    if (st == DPT_OK)
        st = store_verify_check(comm, &c, out);
    if (st == DPT_OK)
        st = store_verify_stored(comm, c.store, base, out);
    if (st == DPT_OK && hashes != NULL) {
        *hashes = (uint64_t *)c.hash;
        *count = c.catalog->count;
        c.hash = NULL;
    }
    store_verify_destroy(&c);
    return st;
}

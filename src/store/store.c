#include "adapter.h"
#include "dequantise.h"
#include "synthetic.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The stored hashes are compared with those of what is read. */
typedef struct store_check {
    dpt_store_hasher hasher;
    bool *wanted;    /* (tensors of the shard's catalog) */
    int *tensor_of;  /* (the same) tensor of the store */
    int *sharded_of; /* (tensors of the store) and back; -1 */
} store_check;

struct dpt_store {
    const dpt_store_driver *driver;
    char *path;
    dpt_store_header header;
    dpt_catalog catalog;
    dpt_store_form *forms; /* (tensors of the catalog) */
    char *config;          /* of the tensors as they are shown; NULL: the header's */
    char *base;            /* that a caller gives an adapter, or NULL */
    dpt_store_adapter adapter;
    dpt_store_files io;
    uint64_t fingerprint;
    store_check *check;   /* of the stored hashes, while one is made; or NULL */
    dpt_store_held *held; /* what all ranks have read together, or NULL */
};

static const dpt_store_driver *const drivers[] = {
    &dpt_store_hdf5_driver, &dpt_store_safetensors_driver, &dpt_store_adapter_driver,
    &dpt_store_synthetic_driver};
enum { DRIVER_COUNT = sizeof drivers / sizeof drivers[0] };

const dpt_store_driver *dpt_store_driver_of(dpt_store_format format) {
    for (int i = 0; i < DRIVER_COUNT; i++)
        if (drivers[i]->format == format)
            return drivers[i];
    return NULL;
}

const char *dpt_store_format_name(dpt_store_format format) {
    return dpt_store_driver_of(format)->name;
}

const char *dpt_store_format_ending(dpt_store_format format) {
    const dpt_store_driver *driver = dpt_store_driver_of(format);
    return driver != NULL ? driver->endings[0] : "";
}

dpt_store_format dpt_store_format_for(const char *path) {
    dpt_store_format any = DPT_STORE_NONE;
    for (int i = 0; i < DRIVER_COUNT; i++)
        for (const char *const *end = drivers[i]->endings; *end != NULL; end++)
            if ((*end)[0] == '\0')
                any = drivers[i]->format;
            else if (drivers[i]->layout != NULL && dpt_path_ends_with(path, *end))
                return drivers[i]->format;
    return any;
}

/* The HDF5 signature stands at byte 0 or, after a user block, at 512, 1024, 2048 ... */
static bool has_hdf5_signature(int fd) {
    static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    bool found = false;
    for (int64_t at = 0; at < INT64_C(1) << 40 && !found; at = at == 0 ? 512 : 2 * at) {
        unsigned char bytes[8];
        if (dpt_file_read_at(fd, at, bytes, 8) != 8)
            break;
        found = memcmp(bytes, signature, 8) == 0;
    }
    return found;
}

dpt_status dpt_store_driver_probe(const char *path, const dpt_store_driver **out) {
    *out = NULL;
    if (dpt_store_is_synthetic(path)) {
        *out = &dpt_store_synthetic_driver;
        return DPT_OK;
    }
    dpt_status st = dpt_store_foreign_check(path);
    if (st != DPT_OK)
        return st;
    if (dpt_store_is_adapter(path)) {
        *out = &dpt_store_adapter_driver;
        return DPT_OK;
    }
    if (dpt_path_is_directory(path) || dpt_path_ends_with(path, ".safetensors")) {
        *out = &dpt_store_safetensors_driver;
        return DPT_OK;
    }
    int fd = dpt_file_open_input(path);
    if (fd < 0)
        return DPT_ERR_INPUT;
    bool hdf5 = has_hdf5_signature(fd);
    close(fd);
    *out = hdf5 ? &dpt_store_hdf5_driver : NULL;
    if (hdf5)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT,
                     "%s: neither an HDF5 file nor a safetensors directory or file: the start of "
                     "the file is damaged or it is of another format",
                     path);
}

static void check_destroy(dpt_store *store) {
    store_check *c = store->check;
    if (c == NULL)
        return;
    dpt_store_hash_destroy(&c->hasher);
    dpt_mem_free(c->wanted);
    dpt_mem_free(c->tensor_of);
    dpt_mem_free(c->sharded_of);
    dpt_mem_free(c);
    store->check = NULL;
}

void dpt_store_close(dpt_store *store) {
    if (store == NULL)
        return;
    check_destroy(store);
    dpt_store_held_destroy(store->held);
    (void)dpt_store_files_close(&store->io, false); /* they were read: nothing to lose */
    dpt_catalog_destroy(&store->catalog);
    dpt_store_header_destroy(&store->header);
    dpt_store_adapter_destroy(&store->adapter);
    void *const blocks[] = {store->base, store->forms, store->config, store->path, store};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        dpt_mem_free(blocks[i]);
}

/* A single safetensors file next to a configuration stands for the folder of its model. */
static dpt_status store_guard(const char *path) {
    dpt_status st = dpt_guard_input(path);
    if (st != DPT_OK || !dpt_path_ends_with(path, ".safetensors"))
        return st;
    char *parent = dpt_path_parent(path);
    char *config = parent != NULL ? dpt_path_join(parent, "config.json") : NULL;
    st = config != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && dpt_path_exists(config))
        st = dpt_guard_input(parent);
    dpt_mem_free(config);
    dpt_mem_free(parent);
    return st;
}

/* @param[in] base  for an adapter, or NULL. */
static dpt_status scan(const char *path, const char *base, dpt_store_header *header,
                       int64_t *format) {
    const dpt_store_driver *driver = NULL;
    dpt_status st = dpt_store_driver_probe(path, &driver);
    if (st == DPT_OK && driver == &dpt_store_adapter_driver && base != NULL) {
        header->base = dpt_mem_strdup(base, "path");
        st = header->base != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    if (st == DPT_OK)
        st = driver->scan(path, header);
    if (st == DPT_OK)
        st = dpt_store_header_seal(header, path);
    *format = driver != NULL ? (int64_t)driver->format : 0;
    return st;
}

void dpt_store_digest_feed(dpt_hash *hash, const char *name, uint64_t tensor) {
    dpt_hash_update(hash, name, strlen(name) + 1);
    dpt_hash_update(hash, &tensor, sizeof tensor);
}

dpt_status dpt_store_compare_companions(const dpt_store *store, const char *path, char **name) {
    dpt_store_header header = {.nfiles = 0};
    int64_t format = DPT_STORE_NONE;
    const char *found = NULL;
    *name = NULL;
    dpt_status st = scan(path, NULL, &header, &format);
    if (st == DPT_OK)
        st = dpt_store_companions_compare(&store->header, &header, &found);
    if (st == DPT_OK && found != NULL) {
        *name = dpt_mem_strdup(found, "companion file");
        st = *name != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    dpt_store_header_destroy(&header);
    return st;
}

dpt_status dpt_store_get_origin(const char *path, dpt_store_origin *out) {
    dpt_store_header header = {.nfiles = 0};
    int64_t format = DPT_STORE_NONE;
    *out = (dpt_store_origin){.format = DPT_STORE_NONE};
    dpt_status st = scan(path, NULL, &header, &format);
    char *recipe = st == DPT_OK ? dpt_store_recipe_of(header.provenance) : NULL;
    dpt_hash hash;
    dpt_hash_begin(&hash);
    bool hashed = st == DPT_OK;
    for (int64_t i = 0; i < header.count && hashed; i++) {
        hashed = header.entries[i].hashed;
        dpt_store_digest_feed(&hash, header.entries[i].name, header.entries[i].hash);
    }
    if (recipe != NULL)
        snprintf(out->recipe, sizeof out->recipe, "%s", recipe);
    out->format = (dpt_store_format)format;
    out->ours = hashed && header.provenance != NULL && !header.rewritten;
    out->digest = hashed ? dpt_hash_value(&hash) : 0;
    dpt_mem_free(recipe);
    dpt_store_header_destroy(&header);
    return st;
}

dpt_status dpt_store_check_head(dpt_store *store, const dpt_tied_head *head) {
    return dpt_store_adapter_check_head(&store->adapter, &store->io, store->path, head);
}

/* Which model an adapter was added to, in one line. */
static void store_say_base(const dpt_store *store) {
    int count = 0;
    for (int t = 0; t < store->catalog.count; t++)
        count += dpt_store_adapter_of(&store->adapter, t) != NULL;
    if (store->header.base != NULL)
        dpt_log(DPT_LOG_INFO, "%s: a PEFT adapter on %s: it changes %d tensors", store->path,
                store->header.base, count);
}

/* What this rank makes of the header that all have. @param[in] stored  tensors are shown as they lie. */
static dpt_status store_understand(dpt_store *store, bool stored) {
    dpt_status st = stored ? dpt_store_show_stored(&store->header, &store->catalog, &store->forms)
                           : dpt_store_dequantise(&store->header, &store->catalog, &store->forms,
                                                  &store->config);
    if (st == DPT_OK && !stored)
        st = dpt_store_adapter_create(&store->header, &store->catalog, &store->adapter);
    if (st == DPT_OK)
        st = dpt_store_files_init(&store->io, store->header.nfiles, store->header.files, false);
    store->io.identities = store->header.identities;
    return st;
}

/* Collective. */
static dpt_status store_open(const dpt_comm *comm, const char *path, const char *base, bool stored,
                             dpt_store **out) {
    *out = NULL;
    int64_t format = 0;
    uint64_t sample = 0;
    dpt_store *store = NULL;
    dpt_status st = DPT_STORE_NEW(store, 1, "store");
    if (st == DPT_OK) {
        dpt_catalog_init(&store->catalog);
        store->path = dpt_store_path_clean(path);
        store->base = dpt_mem_strdup(base, "path");
        bool made = store->path != NULL && (base == NULL || store->base != NULL);
        st = made ? dpt_agree_fault("store.open") : DPT_ERR_OUTPUT;
    }
    if (st == DPT_OK)
        st = store_guard(store->path);
    if (st == DPT_OK && comm->rank == 0)
        st = scan(store->path, store->base, &store->header, &format);
    if (st == DPT_OK && comm->rank == 0)
        st = dpt_store_header_sample(&store->header, &sample);
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, &format, sizeof format, 0);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, &sample, sizeof sample, 0);
    if (st == DPT_OK)
        st = dpt_store_header_broadcast(comm, &store->header);
    if (st == DPT_OK) {
        store->driver = dpt_store_driver_of((dpt_store_format)format);
        store->fingerprint = dpt_store_header_fingerprint(&store->header, sample);
        st = store_understand(store, stored);
    }
    st = dpt_agree(comm, st);
    if (st != DPT_OK) {
        dpt_store_close(store);
        return st;
    }
    if (!stored) {
        dpt_store_seal_say(&store->header);
        store_say_base(store);
        dpt_store_say_forms(store);
    }
    *out = store;
    return DPT_OK;
}

dpt_status dpt_store_open(const dpt_comm *comm, const char *path, dpt_store **out) {
    return dpt_store_open_on(comm, path, NULL, out);
}

dpt_status dpt_store_open_on(const dpt_comm *comm, const char *path, const char *base,
                             dpt_store **out) {
    DPT_ASSERT_SAME_TEXT(comm, path);
    DPT_ASSERT_SAME_TEXT(comm, base);
    return store_open(comm, path, base, false, out);
}

dpt_status dpt_store_open_stored(const dpt_comm *comm, const char *path, const char *base,
                                 dpt_store **out) {
    DPT_ASSERT_SAME_TEXT(comm, path);
    DPT_ASSERT_SAME_TEXT(comm, base);
    return store_open(comm, path, base, true, out);
}

const dpt_catalog *dpt_store_catalog(const dpt_store *store) {
    return &store->catalog;
}

dpt_status dpt_store_rename(dpt_store *store, int count, const dpt_rename *renames, int *idle) {
    return dpt_catalog_rename(&store->catalog, count, renames, idle);
}

const dpt_store_header *dpt_store_header_of(const dpt_store *store) {
    return &store->header;
}

dpt_store_held **dpt_store_held_of(dpt_store *store) {
    return &store->held;
}

const char *dpt_store_path(const dpt_store *store) {
    return store->path;
}

const char *dpt_store_config(const dpt_store *store) {
    return store->config != NULL ? store->config : store->header.config;
}

const char *dpt_store_metadata(const dpt_store *store) {
    return store->header.metadata;
}

const char *dpt_store_provenance(const dpt_store *store) {
    return store->header.provenance;
}

dpt_store_format dpt_store_get_format(const dpt_store *store) {
    return store->driver->format;
}

const char *dpt_store_base(const dpt_store *store) {
    return store->header.base;
}

int64_t dpt_store_read_bytes(const dpt_store *store) {
    int64_t most = 0, chunks = 0;
    for (int t = 0; t < store->catalog.count; t++) {
        const dpt_store_adapted *to = dpt_store_adapter_of(&store->adapter, t);
        const dpt_tensor_info *info = &store->catalog.tensors[t];
        int64_t bytes = 0;
        if (to != NULL && to->a >= 0) /* two factors, and the row of one that is read */
            bytes = (to->rank + 2) * (info->shape[0] + info->shape[1]) * (int64_t)sizeof(float);
        most = bytes > most ? bytes : most;
    }
    for (int64_t i = 0; i < store->header.count; i++)
        chunks = store->header.entries[i].cache > chunks ? store->header.entries[i].cache : chunks;
    return most + chunks;
}

uint64_t dpt_store_fingerprint(const dpt_store *store) {
    return store->fingerprint;
}

/* What lies in the files for a tensor that is not quantised; NULL: it is. */
static const dpt_store_entry *store_entry(const dpt_store *store, int tensor) {
    const dpt_store_form *form = &store->forms[tensor];
    return form->kind == DPT_STORE_PLAIN ? &store->header.entries[form->entry] : NULL;
}

const dpt_store_entry *dpt_store_plain_entry(const dpt_store *store, int tensor) {
    bool adapted = dpt_store_adapter_of(&store->adapter, tensor) != NULL;
    return adapted ? NULL : store_entry(store, tensor);
}

bool dpt_store_stored_hash(const dpt_store *store, int tensor, uint64_t *hash) {
    const dpt_store_entry *entry = dpt_store_plain_entry(store, tensor);
    *hash = entry != NULL ? entry->hash : 0;
    return entry != NULL && entry->hashed;
}

const dpt_store_form *dpt_store_form_of(const dpt_store *store, int tensor) {
    return &store->forms[tensor];
}

bool dpt_store_quantised(const dpt_store *store, int tensor, char *text, int size, int64_t *bytes) {
    return dpt_store_form_text(&store->header, &store->forms[tensor], text, size, bytes);
}

static uint64_t stored_of(const dpt_store *store, int tensor) {
    uint64_t hash;
    return dpt_store_stored_hash(store, tensor, &hash) ? hash : 0;
}

static dpt_status check_range(const dpt_store *store, int tensor, int64_t first, int64_t last) {
    if (tensor < 0 || tensor >= store->catalog.count || first < 0 || last < first ||
        last > store->catalog.tensors[tensor].numel)
        return dpt_error(DPT_ERR_INTERNAL,
                         "%s: elements [%" PRId64 ", %" PRId64 ") of tensor %d are asked for, "
                         "which it does not have",
                         store->path, first, last, tensor);
    return DPT_OK;
}

dpt_status dpt_store_read_entry(dpt_store *store, int64_t entry, int64_t at, int64_t n, void *out) {
    const dpt_store_entry *from = &store->header.entries[entry];
    if (from->made.made) {
        dpt_store_synthetic_run(from, at, n, out);
        return DPT_OK;
    }
    return dpt_store_files_read_entry(&store->io, from, at, n, out);
}

static dpt_status read_base(dpt_store *store, int tensor, int64_t ig, int64_t n, void *out) {
    const dpt_store_form *form = &store->forms[tensor];
    if (form->kind == DPT_STORE_PLAIN)
        return dpt_store_read_entry(store, form->entry, ig, n, out);
    return dpt_store_dequantise_run(&store->header, &store->io, form,
                                    store->catalog.tensors[tensor].dtype, ig, n, out);
}

static dpt_status read_run(dpt_store *store, int tensor, int64_t ig, int64_t n, void *out) {
    if (dpt_store_held_read(store->held, (dpt_range){.tensor = tensor, .ig = ig, .n = n}, out))
        return DPT_OK;
    const dpt_store_adapted *to = dpt_store_adapter_of(&store->adapter, tensor);
    dpt_status st = to != NULL && to->full >= 0
                        ? dpt_store_adapter_replace(&store->adapter, &store->io, tensor, ig, n, out)
                        : read_base(store, tensor, ig, n, out);
    if (st == DPT_OK && to != NULL && to->a >= 0)
        st = dpt_store_adapter_add(&store->adapter, &store->io, tensor, ig, n, out);
    return st;
}

static dpt_status source_read(void *ctx, dpt_range range, void *out) {
    dpt_store *store = ctx;
    dpt_status st = dpt_agree_fault("store.read");
    if (st == DPT_OK)
        st = check_range(store, range.tensor, range.ig,
                         range.n < 0 ? INT64_MIN : range.ig + range.n);
    if (st == DPT_OK)
        st = read_run(store, range.tensor, range.ig, range.n, out);
    if (st == DPT_OK && store->check != NULL && store->check->sharded_of[range.tensor] >= 0) {
        range.tensor = store->check->sharded_of[range.tensor];
        dpt_store_hash_feed(&store->check->hasher, range, out);
    }
    return st;
}

/* Whole rows are one run, others a run a row: columns that ranks share come by dpt_columns_fetch. */
static dpt_status read_block(dpt_store *store, const dpt_block *block, char *out) {
    if (block->rows <= 0 || block->cols <= 0)
        return DPT_OK;
    int64_t last = 0;
    bool fits = block->stride >= block->cols || block->rows == 1;
    fits = fits && dpt_mem_mul(block->rows - 1, block->stride, &last) &&
           dpt_mem_add(last, block->cols, &last) && dpt_mem_add(last, block->ig, &last);
    dpt_status st = check_range(store, block->tensor, block->ig, fits ? last : INT64_MIN);
    if (st != DPT_OK)
        return st;
    if (block->rows == 1 || block->stride == block->cols)
        return read_run(store, block->tensor, block->ig, block->rows * block->cols, out);
    dpt_dtype dtype = store->catalog.tensors[block->tensor].dtype;
    const dpt_store_form *form = &store->forms[block->tensor];
    if (dpt_store_adapter_of(&store->adapter, block->tensor) == NULL &&
        dpt_store_dequantise_takes(form, block))
        return dpt_store_dequantise_block(&store->header, &store->io, form, dtype, block, out);
    int64_t size = dpt_dtype_size(dtype);
    for (int64_t i = 0; i < block->rows && st == DPT_OK; i++)
        st = read_run(store, block->tensor, block->ig + i * block->stride, block->cols,
                      out + i * block->cols * size);
    return st;
}

static dpt_status source_fetch(void *ctx, int64_t count, const dpt_block *wants,
                               void *const *outs) {
    dpt_status st = dpt_agree_fault("store.read");
    for (int64_t i = 0; i < count && st == DPT_OK; i++)
        st = read_block(ctx, &wants[i], outs[i]);
    return st;
}

dpt_source dpt_store_source(dpt_store *store) {
    return (dpt_source){.ctx = store,
                        .catalog = &store->catalog,
                        .independent = true,
                        .read = source_read,
                        .fetch = source_fetch};
}

dpt_status dpt_store_check_begin(dpt_store *store, const dpt_comm *comm, const dpt_catalog *catalog,
                                 const dpt_shard *shard, const dpt_pair *pair,
                                 const dpt_store_hashing *how) {
    store_check *c = NULL;
    int64_t wanted = 0;
    dpt_status st = DPT_STORE_NEW(c, 1, "check of hashes");
    if (st != DPT_OK)
        return st;
    store->check = c;
    st = DPT_STORE_NEW(c->wanted, catalog->count, "check of hashes");
    if (st == DPT_OK)
        st = DPT_STORE_NEW(c->tensor_of, catalog->count, "check of hashes");
    if (st == DPT_OK)
        st = DPT_STORE_NEW(c->sharded_of, store->catalog.count, "check of hashes");
    if (st == DPT_OK)
        st = dpt_store_hash_init(&c->hasher, comm, catalog, shard);
    for (int t = 0; st == DPT_OK && t < store->catalog.count; t++)
        c->sharded_of[t] = -1;
    for (int t = 0; st == DPT_OK && t < catalog->count; t++) {
        int own = pair != NULL ? dpt_pair_partner(pair, t) : t;
        uint64_t stored;
        c->tensor_of[t] = own;
        bool there = own >= 0 && dpt_store_stored_hash(store, own, &stored);
        dpt_store_hashing one = how != NULL ? how[t] : DPT_STORE_COMPARED;
        c->wanted[t] = own >= 0 && (there ? one != DPT_STORE_TRUSTED : one != DPT_STORE_COMPARED);
        wanted += c->wanted[t];
        if (c->wanted[t])
            c->sharded_of[own] = t;
    }
    c->hasher.wanted = c->wanted;
    if (st != DPT_OK || wanted == 0)
        check_destroy(store);
    return st;
}

static dpt_status check_read(void *ctx, int t, int64_t ig, int64_t n, void *out) {
    dpt_store *store = ctx;
    return read_run(store, store->check->tensor_of[t], ig, n, out);
}

dpt_status dpt_store_check_end(dpt_store *store, uint64_t *hashes) {
    store_check *c = store->check;
    if (c == NULL)
        return DPT_OK;
    DPT_ASSERT_SAME_ARRAY(c->hasher.comm, c->wanted, c->hasher.catalog->count);
    DPT_ASSERT_SAME_ARRAY(c->hasher.comm, c->tensor_of, c->hasher.catalog->count);
    dpt_status st = dpt_store_hash_finish(&c->hasher, DPT_OK, check_read, store);
    for (int t = 0; t < c->hasher.catalog->count && st == DPT_OK; t++) {
        const dpt_store_entry *entry =
            c->wanted[t] ? dpt_store_plain_entry(store, c->tensor_of[t]) : NULL;
        if (hashes != NULL) /* of what is not wanted, one that is stored is trusted */
            hashes[t] = c->wanted[t] || c->tensor_of[t] < 0 ? c->hasher.hashes[t]
                                                            : stored_of(store, c->tensor_of[t]);
        if (entry != NULL && entry->hashed && entry->hash != c->hasher.hashes[t])
            st = dpt_error(DPT_ERR_INPUT,
                           "%s: the bytes of tensor %s do not have the stored XXH3: the file was "
                           "damaged or changed, copy it again",
                           store->header.files[entry->file], entry->name);
    }
    check_destroy(store);
    return st;
}

/* Rank 0: the headers say what they said. */
static dpt_status check_headers(const dpt_store *store) {
    dpt_store_header again = {.nfiles = 0};
    int64_t format = 0;
    uint64_t sample = 0;
    dpt_status st = scan(store->path, store->base, &again, &format);
    if (st == DPT_OK)
        st = dpt_store_header_sample(&again, &sample);
    if (st == DPT_OK && dpt_store_header_fingerprint(&again, sample) != store->fingerprint)
        st = dpt_file_changed(store->path);
    dpt_store_header_destroy(&again);
    return st;
}

/* Local: the files by their names, or as this rank has them open. */
static dpt_status check_identities(const dpt_store *store, bool by_name) {
    const dpt_store_header *header = &store->header;
    dpt_status st = DPT_OK;
    for (int f = 0; f < header->nfiles && st == DPT_OK; f++) {
        dpt_file_identity now = header->identities[f];
        int fd = store->io.handles[f];
        bool gone = by_name && dpt_file_identify(header->files[f], &now) != DPT_OK;
        if (gone)
            dpt_error_clear();
        if (gone || (by_name && !dpt_file_same(&now, &header->identities[f])))
            st = dpt_file_changed(header->files[f]);
        if (st == DPT_OK && fd >= 0)
            st = dpt_file_identify_open(fd, header->files[f], &now);
        if (st == DPT_OK && !dpt_file_same_content(&now, &header->identities[f]))
            st = dpt_file_changed(header->files[f]);
    }
    return st;
}

dpt_status dpt_store_check_unchanged(const dpt_comm *comm, const dpt_store *store, bool headers) {
    dpt_status st = check_identities(store, comm->rank == 0);
    if (st == DPT_OK && headers && comm->rank == 0)
        st = check_headers(store);
    return dpt_agree(comm, st);
}

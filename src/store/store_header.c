#include "synthetic.h"

#include "deltapath/base/file.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void dpt_store_header_destroy(dpt_store_header *header) {
    for (int i = 0; i < header->nfiles; i++)
        dpt_mem_free(header->files[i]);
    for (int64_t i = 0; i < header->count; i++)
        dpt_mem_free(header->entries[i].name);
    dpt_mem_free(header->files);
    dpt_mem_free(header->file_bytes);
    dpt_mem_free(header->identities);
    dpt_mem_free(header->entries);
    dpt_mem_free(header->config);
    dpt_mem_free(header->metadata);
    dpt_mem_free(header->provenance);
    for (int i = 0; i < header->ncompanions; i++) {
        dpt_mem_free(header->companions[i].name);
        dpt_mem_free(header->companions[i].file);
    }
    dpt_mem_free(header->companions);
    dpt_mem_free(header->chunks);
    for (int64_t i = 0; i < header->nfactors; i++)
        dpt_mem_free(header->factors[i].name);
    dpt_mem_free(header->factors);
    dpt_mem_free(header->adapter);
    dpt_mem_free(header->base);
    memset(header, 0, sizeof *header);
}

dpt_status dpt_store_header_add_file(dpt_store_header *header, const char *path, int64_t bytes) {
    char **files =
        dpt_mem_realloc(header->files, header->nfiles + 1, sizeof *files, "list of files");
    if (files == NULL)
        return DPT_ERR_OUTPUT;
    header->files = files;
    int64_t *sizes =
        dpt_mem_realloc(header->file_bytes, header->nfiles + 1, sizeof *sizes, "list of files");
    if (sizes == NULL)
        return DPT_ERR_OUTPUT;
    header->file_bytes = sizes;
    files[header->nfiles] = dpt_mem_strdup(path, "file name");
    if (files[header->nfiles] == NULL)
        return DPT_ERR_OUTPUT;
    dpt_file_identity *identities = dpt_mem_realloc(header->identities, header->nfiles + 1,
                                                    sizeof *identities, "list of files");
    if (identities == NULL)
        return DPT_ERR_OUTPUT;
    header->identities = identities;
    /* A file that is gone by now is found when it is read. */
    if (dpt_file_identify(path, &identities[header->nfiles]) != DPT_OK)
        dpt_error_clear();
    sizes[header->nfiles++] = bytes;
    return DPT_OK;
}

dpt_status dpt_store_header_size(const char *file, const dpt_store_entry *entry, int64_t *bytes) {
    if (entry->ndim < 0 || entry->ndim > DPT_NDIM_MAX)
        return dpt_error(DPT_ERR_INPUT, "%s: tensor %s has %d dimensions: at most %d are supported",
                         file, entry->name, entry->ndim, (int)DPT_NDIM_MAX);
    int64_t size = dpt_dtype_size(entry->dtype);
    bool fits = true;
    bool empty = false;
    for (int i = 0; i < entry->ndim; i++) {
        if (entry->shape[i] < 0)
            return dpt_error(DPT_ERR_INPUT,
                             "%s: tensor %s has a negative side %" PRId64
                             ": the header is corrupt, copy the file again",
                             file, entry->name, entry->shape[i]);
        empty = empty || entry->shape[i] == 0;
        fits = fits && dpt_mem_mul(size, entry->shape[i] > 0 ? entry->shape[i] : 1, &size);
    }
    if (!fits)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: tensor %s: the size of its shape overflows 64 bits: the header is "
                         "corrupt, copy the file again",
                         file, entry->name);
    *bytes = empty ? 0 : size;
    return DPT_OK;
}

static dpt_status grow(dpt_store_header *header) {
    if (header->count < header->capacity)
        return DPT_OK;
    int64_t capacity = header->capacity > 0 ? 2 * header->capacity : 64;
    dpt_store_entry *entries =
        dpt_mem_realloc(header->entries, capacity, sizeof *entries, "list of tensors");
    if (entries == NULL)
        return DPT_ERR_OUTPUT;
    header->entries = entries;
    header->capacity = capacity;
    return DPT_OK;
}

dpt_status dpt_store_header_add(dpt_store_header *header, const dpt_store_entry *entry) {
    const char *file = header->files[entry->file];
    if (entry->name[0] == '\0')
        return dpt_error(DPT_ERR_INPUT, "%s: a tensor has an empty name: rename it", file);
    if (header->count >= DPT_STORE_TENSORS_MAX)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: the model has more than %d tensors, which is not supported: is it "
                         "the file that you mean?",
                         file, (int)DPT_STORE_TENSORS_MAX);
    int64_t bytes = 0;
    int64_t end = 0;
    dpt_status st = dpt_store_header_size(file, entry, &bytes);
    if (st != DPT_OK)
        return st;
    if (!entry->by_hdf5 && (entry->offset < 0 || !dpt_mem_add(entry->offset, bytes, &end) ||
                            end > header->file_bytes[entry->file]))
        return dpt_error(DPT_ERR_INPUT,
                         "%s: tensor %s needs bytes %" PRId64 " to %" PRId64
                         " but the file has %" PRId64 ": it is truncated, copy it again",
                         file, entry->name, entry->offset, end, header->file_bytes[entry->file]);
    st = grow(header);
    if (st != DPT_OK)
        return st;
    dpt_store_entry *slot = &header->entries[header->count];
    *slot = *entry;
    slot->bytes = bytes;
    slot->name = dpt_mem_strdup(entry->name, "tensor name");
    if (slot->name == NULL)
        return DPT_ERR_OUTPUT;
    header->count++;
    return DPT_OK;
}

static int header_by_name(const void *a, const void *b) {
    return strcmp(((const dpt_store_entry *)a)->name, ((const dpt_store_entry *)b)->name);
}

static int by_extent(const void *a, const void *b) {
    const dpt_store_entry *x = *(dpt_store_entry *const *)a;
    const dpt_store_entry *y = *(dpt_store_entry *const *)b;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static dpt_status check_overlap(dpt_store_header *header) {
    dpt_store_entry **order = dpt_mem_alloc(header->count, sizeof *order, "order of extents");
    if (order == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < header->count; i++)
        order[i] = &header->entries[i];
    qsort(order, (size_t)header->count, sizeof *order, by_extent);
    dpt_status st = DPT_OK;
    const dpt_store_entry *last = NULL;
    for (int64_t i = 0; i < header->count && st == DPT_OK; i++) {
        const dpt_store_entry *now = order[i];
        if (now->bytes == 0 || now->by_hdf5)
            continue;
        if (last != NULL && last->file == now->file && last->offset + last->bytes > now->offset)
            st = dpt_error(DPT_ERR_INPUT,
                           "%s: tensors %s and %s overlap: the header is corrupt, copy the file "
                           "again",
                           header->files[now->file], last->name, now->name);
        last = now;
    }
    dpt_mem_free(order);
    return st;
}

dpt_status dpt_store_header_seal(dpt_store_header *header, const char *path) {
    if (header->count == 0)
        return dpt_error(DPT_ERR_INPUT, "%s: there are no tensors in it: give a model",
                         header->nfiles == 1 ? header->files[0] : path);
    qsort(header->entries, (size_t)header->count, sizeof *header->entries, header_by_name);
    for (int64_t i = 1; i < header->count; i++) {
        const dpt_store_entry *a = &header->entries[i - 1];
        const dpt_store_entry *b = &header->entries[i];
        if (strcmp(a->name, b->name) == 0)
            return dpt_error(DPT_ERR_INPUT, "%s: tensor %s is also in %s: remove one of the two",
                             header->files[b->file], b->name, header->files[a->file]);
    }
    return check_overlap(header);
}

int64_t dpt_store_header_find(const dpt_store_header *header, const char *name) {
    dpt_store_entry key = {.name = (char *)(uintptr_t)name};
    const dpt_store_entry *found = bsearch(&key, header->entries, (size_t)header->count,
                                           sizeof *header->entries, header_by_name);
    return found == NULL ? -1 : found - header->entries;
}

/* Packing: a first pass with at == NULL counts, a second writes. */
typedef struct packer {
    char *at;
    int64_t bytes;
} packer;

static void header_pack(packer *p, const void *data, int64_t n) {
    if (p->at != NULL && n > 0)
        memcpy(p->at + p->bytes, data, (size_t)n);
    p->bytes += n;
}

static void pack_text(packer *p, const char *text) {
    int64_t n = text != NULL ? (int64_t)strlen(text) + 1 : 0;
    header_pack(p, &n, sizeof n);
    if (n > 0)
        header_pack(p, text, n);
}

static void pack_header(packer *p, const dpt_store_header *header) {
    header_pack(p, &header->nfiles, sizeof header->nfiles);
    for (int i = 0; i < header->nfiles; i++) {
        pack_text(p, header->files[i]);
        header_pack(p, &header->file_bytes[i], sizeof header->file_bytes[i]);
        header_pack(p, &header->identities[i], sizeof header->identities[i]);
    }
    header_pack(p, &header->count, sizeof header->count);
    for (int64_t i = 0; i < header->count; i++) {
        pack_text(p, header->entries[i].name);
        header_pack(p, &header->entries[i], sizeof header->entries[i]);
    }
    pack_text(p, header->config);
    pack_text(p, header->metadata);
    pack_text(p, header->provenance);
    header_pack(p, &header->sealed, sizeof header->sealed);
    header_pack(p, &header->rewritten, sizeof header->rewritten);
    header_pack(p, &header->nchunks, sizeof header->nchunks);
    header_pack(p, header->chunks, header->nchunks * (int64_t)sizeof *header->chunks);
    header_pack(p, &header->ncompanions, sizeof header->ncompanions);
    for (int i = 0; i < header->ncompanions; i++) {
        const dpt_store_companion *companion = &header->companions[i];
        pack_text(p, companion->name);
        pack_text(p, companion->file);
        header_pack(p, companion, sizeof *companion);
    }
    pack_text(p, header->base);
    pack_text(p, header->adapter);
    header_pack(p, &header->nfactors, sizeof header->nfactors);
    for (int64_t i = 0; i < header->nfactors; i++) {
        pack_text(p, header->factors[i].name);
        header_pack(p, &header->factors[i], sizeof header->factors[i]);
    }
}

dpt_status dpt_store_header_pack(const dpt_store_header *header, char **packed, int64_t *bytes) {
    packer p = {.at = NULL};
    pack_header(&p, header);
    *bytes = p.bytes;
    *packed = dpt_mem_alloc(p.bytes, 1, "packed headers");
    if (*packed == NULL)
        return DPT_ERR_OUTPUT;
    p = (packer){.at = *packed};
    pack_header(&p, header);
    return DPT_OK;
}

typedef struct unpacker {
    const char *at;
    int64_t left;
    dpt_status st;
} unpacker;

static void unpack(unpacker *u, void *out, int64_t n) {
    if (u->st != DPT_OK || n > u->left) {
        if (u->st == DPT_OK)
            u->st = dpt_error(DPT_ERR_INTERNAL, "packed headers are cut off");
        memset(out, 0, (size_t)n);
        return;
    }
    memcpy(out, u->at, (size_t)n);
    u->at += n;
    u->left -= n;
}

static char *unpack_text(unpacker *u) {
    int64_t n = 0;
    unpack(u, &n, sizeof n);
    if (n == 0 || u->st != DPT_OK)
        return NULL;
    if (n < 0 || n > u->left) {
        u->st = dpt_error(DPT_ERR_INTERNAL, "packed headers are cut off");
        return NULL;
    }
    char *text = dpt_mem_alloc(n, 1, "text of headers");
    if (text == NULL) {
        u->st = DPT_ERR_OUTPUT;
        return NULL;
    }
    unpack(u, text, n);
    text[n - 1] = '\0';
    return text;
}

static void unpack_chunks(unpacker *u, dpt_store_header *out) {
    dpt_store_extent one;
    int64_t count = 0;
    unpack(u, &count, sizeof count);
    for (int64_t i = 0; i < count && u->st == DPT_OK; i++) {
        unpack(u, &one, sizeof one);
        if (!dpt_store_extent_add(&out->nchunks, &out->chunks, one))
            u->st = DPT_ERR_OUTPUT;
    }
}

static void unpack_companions(unpacker *u, dpt_store_header *out) {
    int count = 0;
    unpack(u, &count, sizeof count);
    for (int i = 0; i < count && u->st == DPT_OK; i++) {
        char *name = unpack_text(u);
        char *file = unpack_text(u);
        dpt_store_companion one;
        unpack(u, &one, sizeof one);
        one.name = name;
        one.file = file;
        if (u->st == DPT_OK && name != NULL && file != NULL)
            u->st = dpt_store_companion_add(out, &one);
        dpt_mem_free(name);
        dpt_mem_free(file);
    }
}

static void unpack_factors(unpacker *u, dpt_store_header *out) {
    int64_t count = 0;
    unpack(u, &count, sizeof count);
    if (u->st == DPT_OK && count > 0) {
        out->factors = dpt_mem_zalloc(count, sizeof *out->factors, "tensors of an adapter");
        u->st = out->factors != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    for (int64_t i = 0; i < count && u->st == DPT_OK; i++) {
        char *name = unpack_text(u);
        unpack(u, &out->factors[i], sizeof out->factors[i]);
        out->factors[i].name = name;
        out->nfactors++;
    }
}

dpt_status dpt_store_header_unpack(const char *packed, int64_t bytes, dpt_store_header *out) {
    memset(out, 0, sizeof *out);
    unpacker u = {.at = packed, .left = bytes, .st = DPT_OK};
    int nfiles = 0;
    unpack(&u, &nfiles, sizeof nfiles);
    for (int i = 0; i < nfiles && u.st == DPT_OK; i++) {
        char *path = unpack_text(&u);
        int64_t length = 0;
        dpt_file_identity identity;
        unpack(&u, &length, sizeof length);
        unpack(&u, &identity, sizeof identity);
        if (u.st == DPT_OK)
            u.st = dpt_store_header_add_file(out, path != NULL ? path : "", length);
        if (u.st == DPT_OK) /* that of the reader, not of this rank and moment */
            out->identities[i] = identity;
        dpt_mem_free(path);
    }
    int64_t count = 0;
    unpack(&u, &count, sizeof count);
    for (int64_t i = 0; i < count && u.st == DPT_OK; i++) {
        dpt_store_entry entry = {.name = NULL};
        char *name = unpack_text(&u);
        unpack(&u, &entry, sizeof entry);
        entry.name = name;
        if (u.st == DPT_OK && name != NULL)
            u.st = dpt_store_header_add(out, &entry);
        dpt_mem_free(name);
    }
    out->config = unpack_text(&u);
    out->metadata = unpack_text(&u);
    out->provenance = unpack_text(&u);
    unpack(&u, &out->sealed, sizeof out->sealed);
    unpack(&u, &out->rewritten, sizeof out->rewritten);
    unpack_chunks(&u, out);
    unpack_companions(&u, out);
    out->base = unpack_text(&u);
    out->adapter = unpack_text(&u);
    unpack_factors(&u, out);
    if (u.st != DPT_OK)
        dpt_store_header_destroy(out);
    return u.st;
}

dpt_status dpt_store_header_broadcast(const dpt_comm *comm, dpt_store_header *header) {
    char *packed = NULL;
    int64_t bytes = 0;
    if (comm->size == 1)
        return DPT_OK;
    dpt_status st = comm->rank == 0 ? dpt_store_header_pack(header, &packed, &bytes) : DPT_OK;
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, &bytes, sizeof bytes, 0);
    if (st == DPT_OK && comm->rank != 0) {
        packed = dpt_mem_alloc(bytes, 1, "packed headers");
        st = packed == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    }
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, packed, bytes, 0);
    if (st == DPT_OK && comm->rank != 0)
        st = dpt_store_header_unpack(packed, bytes, header);
    dpt_mem_free(packed);
    return dpt_agree(comm, st);
}

static void feed_text(dpt_hash *hash, const char *text) {
    const char *given = text != NULL ? text : "";
    dpt_hash_update(hash, given, strlen(given) + 1);
}

enum { SAMPLE_PIECES = 4, SAMPLE_BYTES = 4096 };

/* Both ends of a tensor in chunks: a piece costs a whole chunk; none where its hash is stated. */
static dpt_status sample_chunks(dpt_store_files *files, const dpt_store_entry *entry,
                                dpt_hash *hash) {
    char piece[SAMPLE_BYTES];
    int64_t size = dpt_dtype_size(entry->dtype), all = entry->bytes / size;
    int64_t n = all < SAMPLE_BYTES / size ? all : SAMPLE_BYTES / size;
    dpt_status st = DPT_OK;
    for (int i = 0; i < 2 && st == DPT_OK && !entry->hashed; i++) {
        st = dpt_store_files_read_entry(files, entry, i == 0 ? 0 : all - n, n, piece);
        if (st == DPT_OK)
            dpt_hash_update(hash, piece, (size_t)(n * size));
    }
    return st;
}

static bool sample_tensor(int fd, const dpt_store_entry *entry, dpt_hash *hash) {
    char piece[SAMPLE_BYTES];
    if (entry->by_hdf5)
        return true;
    if (entry->made.made) {
        dpt_store_synthetic_feed(entry, hash);
        return true;
    }
    int64_t spare = entry->bytes > SAMPLE_BYTES ? entry->bytes - SAMPLE_BYTES : 0;
    for (int i = 0; i < SAMPLE_PIECES && (i == 0 || spare > 0); i++) {
        int64_t at = spare / (SAMPLE_PIECES - 1) * i;
        int64_t want = entry->bytes < SAMPLE_BYTES ? entry->bytes : SAMPLE_BYTES;
        int64_t got = dpt_file_read_at(fd, entry->offset + at, piece, want);
        if (got != want) {
            errno = got < 0 ? errno : ENODATA;
            return false;
        }
        dpt_hash_update(hash, piece, (size_t)want);
    }
    return true;
}

static dpt_status sample_chunked(const dpt_store_header *header, dpt_hash *hash) {
    dpt_store_files files;
    dpt_status st = dpt_store_files_init(&files, header->nfiles, header->files, false);
    for (int64_t i = 0; i < header->count && st == DPT_OK; i++)
        if (header->entries[i].by_hdf5)
            st = sample_chunks(&files, &header->entries[i], hash);
    (void)dpt_store_files_close(&files, false); /* they were read */
    return st;
}

dpt_status dpt_store_header_sample(const dpt_store_header *header, uint64_t *sample) {
    dpt_hash hash;
    dpt_status st = DPT_OK;
    dpt_hash_begin(&hash);
    for (int f = 0; f < header->nfiles && st == DPT_OK; f++) {
        int fd = dpt_file_open_input(header->files[f]);
        bool ok = fd >= 0;
        for (int64_t i = 0; i < header->count && ok; i++)
            if (header->entries[i].file == f)
                ok = sample_tensor(fd, &header->entries[i], &hash);
        for (int64_t i = 0; i < header->nfactors && ok; i++)
            if (header->factors[i].file == f)
                ok = sample_tensor(fd, &header->factors[i], &hash);
        if (!ok)
            st = dpt_error(DPT_ERR_INPUT, "%s: cannot be read (%s): check the file and its disk",
                           header->files[f], strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    if (st == DPT_OK)
        st = sample_chunked(header, &hash);
    *sample = dpt_hash_value(&hash);
    return st;
}

static void feed_entry(dpt_hash *hash, const dpt_store_entry *entry) {
    int64_t numbers[5] = {(int64_t)entry->dtype, entry->ndim, entry->file, entry->offset,
                          entry->hashed ? (int64_t)entry->hash : 0};
    feed_text(hash, entry->name);
    dpt_hash_update(hash, numbers, sizeof numbers);
    dpt_hash_update(hash, entry->shape, (size_t)entry->ndim * sizeof entry->shape[0]);
}

uint64_t dpt_store_header_fingerprint(const dpt_store_header *header, uint64_t sample) {
    dpt_hash hash;
    dpt_hash_begin(&hash);
    dpt_hash_update(&hash, &sample, sizeof sample);
    for (int i = 0; i < header->nfiles; i++) {
        feed_text(&hash, dpt_path_base(header->files[i]));
        dpt_hash_update(&hash, &header->file_bytes[i], sizeof header->file_bytes[i]);
    }
    for (int64_t i = 0; i < header->count; i++)
        feed_entry(&hash, &header->entries[i]);
    feed_text(&hash, header->config);
    for (int64_t i = 0; i < header->nfactors; i++)
        feed_entry(&hash, &header->factors[i]);
    if (header->adapter != NULL)
        feed_text(&hash, header->adapter);
    return dpt_hash_value(&hash);
}

int64_t dpt_store_changed_at(const dpt_store *store) {
    const dpt_store_header *header = dpt_store_header_of(store);
    int64_t last = 0;
    bool hashed = header->adapter == NULL;
    for (int64_t i = 0; i < header->count; i++)
        hashed = hashed && header->entries[i].hashed;
    for (int f = 0; f < header->nfiles && !hashed; f++) {
        const dpt_file_identity *file = &header->identities[f];
        last = file->mtime > last ? file->mtime : last;
        last = file->ctime > last ? file->ctime : last;
    }
    return last;
}

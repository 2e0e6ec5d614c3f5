#include "store_internal.h"

#include "deltapath/base/file.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/stop.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Companions are the small files next to the weights that make a model usable: tokenizer, generation
 * settings, licence. In a directory they are files, in an HDF5 checkpoint data sets of bytes; here
 * both are extents of some file, but for data sets in chunks or compact, which HDF5 reads. */

enum { COPY_BYTES = 1 << 20, PROGRESS_BYTES = 64 << 20, NAME_BYTES = 200 };

static bool is_known(const char *name) {
    static const char *const whole[] = {
        "generation_config.json", "special_tokens_map.json",  "merges.txt",
        "added_tokens.json",      "preprocessor_config.json", "processor_config.json"};
    static const char *const starts[] = {"tokenizer", "vocab",  "chat_template", "LICENSE",
                                         "LICENCE",   "NOTICE", "USE_POLICY"};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        if (strcmp(name, whole[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++)
        if (strncmp(name, starts[i], strlen(starts[i])) == 0)
            return true;
    return dpt_path_ends_with(name, ".model");
}

bool dpt_store_companion_allowed(const char *name) {
    size_t n = strlen(name);
    bool plain = n > 0 && n <= NAME_BYTES && name[0] != '.';
    for (size_t i = 0; i < n && plain; i++)
        plain = isalnum((unsigned char)name[i]) || strchr("._-+ ", name[i]) != NULL;
    return plain && is_known(name);
}

dpt_status dpt_store_companion_add(dpt_store_header *header, const dpt_store_companion *companion) {
    if (header->ncompanions >= DPT_STORE_COMPANIONS_MAX)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: more than %d tokenizer and licence files: remove what is not needed",
                         companion->file, (int)DPT_STORE_COMPANIONS_MAX);
    dpt_store_companion *list = dpt_mem_realloc(header->companions, header->ncompanions + 1,
                                                sizeof *list, "list of companion files");
    if (list == NULL)
        return DPT_ERR_OUTPUT;
    header->companions = list;
    dpt_store_companion added = *companion;
    added.name = dpt_mem_strdup(companion->name, "companion file");
    added.file = dpt_mem_strdup(companion->file, "companion file");
    if (added.name == NULL || added.file == NULL) { /* a list with gaps cannot be sorted */
        dpt_mem_free(added.name);
        dpt_mem_free(added.file);
        return DPT_ERR_OUTPUT;
    }
    list[header->ncompanions++] = added;
    return DPT_OK;
}

static int companions_by_name(const void *a, const void *b) {
    return strcmp(((const dpt_store_companion *)a)->name, ((const dpt_store_companion *)b)->name);
}

/* A directory is listed in an order of its own. */
void dpt_store_companions_sort(dpt_store_header *header) {
    if (header->ncompanions > 1)
        qsort(header->companions, (size_t)header->ncompanions, sizeof *header->companions,
              companions_by_name);
}

/* A link that leads nowhere is no file; another failure would leave a tokenizer out without a word. */
static dpt_status list_one(const char *directory, int listing, const char *name,
                           dpt_store_header *header) {
    struct stat info;
    int failed = fstatat(listing, name, &info, 0);
    if (failed != 0 && errno != ENOENT)
        return dpt_error(DPT_ERR_INPUT, "%s/%s: cannot be looked at (%s): check its permissions",
                         directory, name, strerror(errno));
    if (failed != 0 || !S_ISREG(info.st_mode))
        return DPT_OK;
    char *file = dpt_path_join(directory, name);
    const dpt_store_companion one = {
        .name = (char *)(uintptr_t)name, .file = file, .bytes = (int64_t)info.st_size};
    dpt_status st = file == NULL ? DPT_ERR_OUTPUT : dpt_store_companion_add(header, &one);
    dpt_mem_free(file);
    return st;
}

dpt_status dpt_store_companions_list(const char *directory, dpt_store_header *header) {
    DIR *listing = opendir(directory);
    if (listing == NULL)
        return dpt_error(DPT_ERR_INPUT, "%s: cannot be listed (%s): check its permissions",
                         directory, strerror(errno));
    dpt_status st = DPT_OK;
    struct dirent *entry = NULL;
    while (st == DPT_OK && (errno = 0, entry = readdir(listing)) != NULL)
        if (dpt_store_companion_allowed(entry->d_name))
            st = list_one(directory, dirfd(listing), entry->d_name, header);
    if (st == DPT_OK && errno != 0)
        st = dpt_error(DPT_ERR_INPUT, "%s: cannot be listed to its end (%s): check the disk",
                       directory, strerror(errno));
    closedir(listing);
    dpt_store_companions_sort(header);
    return st;
}

int64_t dpt_store_companions_bytes(const dpt_store_header *header) {
    int64_t bytes = 0;
    for (int i = 0; header != NULL && i < header->ncompanions; i++)
        if (!dpt_mem_add(bytes, header->companions[i].bytes, &bytes))
            return INT64_MAX;
    return bytes;
}

static dpt_status unreadable(const dpt_store_companion *companion, const char *why) {
    return dpt_error(DPT_ERR_INPUT, "%s: companion file %s cannot be read (%s): check the file",
                     companion->file, companion->name, why);
}

dpt_status dpt_store_companion_open(const dpt_store_companion *companion,
                                    dpt_store_companion_input *out) {
    *out = (dpt_store_companion_input){.companion = companion, .fd = -1};
    if (companion->by_hdf5)
        return dpt_store_hdf5_reader_open(companion->file, NULL, &out->reader);
    out->fd = dpt_file_open_input(companion->file);
    return out->fd >= 0 ? DPT_OK : DPT_ERR_INPUT;
}

void dpt_store_companion_close(dpt_store_companion_input *input) {
    if (input->fd >= 0)
        close(input->fd);
    dpt_store_hdf5_reader_close(input->reader);
    *input = (dpt_store_companion_input){.fd = -1};
}

dpt_status dpt_store_companion_read(dpt_store_companion_input *input, int64_t at, int64_t n,
                                    void *out) {
    const dpt_store_companion *from = input->companion;
    const dpt_store_entry entry = {.name = from->name,
                                   .dtype = DPT_U8,
                                   .ndim = 1,
                                   .shape = {from->bytes},
                                   .bytes = from->bytes,
                                   .by_hdf5 = true,
                                   .cache = from->cache,
                                   .companion = true};
    if (input->reader != NULL)
        return n > 0 ? dpt_store_hdf5_reader_read(input->reader, &entry, at, n, out) : DPT_OK;
    int64_t got = dpt_file_read_at(input->fd, from->offset + at, out, n);
    return got == n ? DPT_OK : unreadable(from, got < 0 ? strerror(errno) : "it became shorter");
}

static dpt_status unwritable(const dpt_store_companion *companion, const char *to) {
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: companion file %s of %s cannot be written (%s): check permissions and "
                     "disk space",
                     to, companion->name, companion->file, strerror(errno));
}

/* One piece of a file. */
static dpt_status copy_piece(dpt_store_companion_input *in, int out, int64_t done, int64_t at,
                             const char *to, char *buffer) {
    int64_t left = in->companion->bytes - done, n = left < COPY_BYTES ? left : COPY_BYTES;
    dpt_status st = dpt_store_companion_read(in, done, n, buffer);
    if (st == DPT_OK &&
        (lseek(out, (off_t)at, SEEK_SET) < 0 || !dpt_file_write_open(out, buffer, n)))
        st = unwritable(in->companion, to);
    return st == DPT_OK ? dpt_stop_check() : st;
}

/* Nothing keeps a companion small: what takes long says so, and heeds a stop. */
static dpt_status copy_bytes(dpt_store_companion_input *in, int out, int64_t to_offset,
                             const char *to) {
    const dpt_store_companion *companion = in->companion;
    char what[NAME_BYTES + 8];
    char *buffer = dpt_mem_alloc(COPY_BYTES, 1, "copy buffer");
    if (buffer == NULL)
        return DPT_ERR_OUTPUT;
    dpt_progress progress;
    bool large = companion->bytes >= PROGRESS_BYTES;
    snprintf(what, sizeof what, "copy %s", companion->name);
    if (large)
        dpt_progress_begin(&progress, what, "B", companion->bytes);
    dpt_status st = DPT_OK;
    for (int64_t done = 0; done < companion->bytes && st == DPT_OK; done += COPY_BYTES) {
        st = copy_piece(in, out, done, to_offset + done, to, buffer);
        if (large && st == DPT_OK)
            dpt_progress_add(&progress, companion->bytes - done < COPY_BYTES
                                            ? companion->bytes - done
                                            : (int64_t)COPY_BYTES);
    }
    if (large)
        dpt_progress_end(&progress);
    dpt_mem_free(buffer);
    return st;
}

dpt_status dpt_store_companion_copy(const dpt_store_companion *companion, const char *to,
                                    int64_t to_offset) {
    dpt_store_companion_input in;
    dpt_status st = dpt_store_companion_open(companion, &in);
    if (st != DPT_OK)
        return st;
    int out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    st = out < 0 ? unwritable(companion, to) : copy_bytes(&in, out, to_offset, to);
    if (st == DPT_OK && fsync(out) != 0)
        st = unwritable(companion, to);
    dpt_store_companion_close(&in);
    if (out >= 0 && close(out) != 0 && st == DPT_OK)
        st = unwritable(companion, to);
    return st;
}

/* Of one length. */
static dpt_status compare_bytes(dpt_store_companion_input *a, dpt_store_companion_input *b,
                                bool *same) {
    char *buffer = dpt_mem_alloc(2 * COPY_BYTES, 1, "bytes of companion files");
    if (buffer == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = DPT_OK;
    int64_t bytes = a->companion->bytes;
    for (int64_t done = 0; done < bytes && st == DPT_OK && *same; done += COPY_BYTES) {
        int64_t n = bytes - done < COPY_BYTES ? bytes - done : COPY_BYTES;
        st = dpt_store_companion_read(a, done, n, buffer);
        if (st == DPT_OK)
            st = dpt_store_companion_read(b, done, n, buffer + COPY_BYTES);
        *same = st == DPT_OK && memcmp(buffer, buffer + COPY_BYTES, (size_t)n) == 0;
    }
    dpt_mem_free(buffer);
    return st;
}

static dpt_status companion_compare(const dpt_store_companion *a, const dpt_store_companion *b,
                                    bool *same) {
    dpt_store_companion_input one, two = {.fd = -1};
    *same = strcmp(a->name, b->name) == 0 && a->bytes == b->bytes;
    if (!*same)
        return DPT_OK;
    dpt_status st = dpt_store_companion_open(a, &one);
    if (st == DPT_OK)
        st = dpt_store_companion_open(b, &two);
    if (st == DPT_OK)
        st = compare_bytes(&one, &two, same);
    dpt_store_companion_close(&one);
    dpt_store_companion_close(&two);
    return st;
}

dpt_status dpt_store_companions_compare(const dpt_store_header *a, const dpt_store_header *b,
                                        const char **name) {
    dpt_status st = DPT_OK;
    *name = NULL;
    for (int i = 0; st == DPT_OK && *name == NULL && (i < a->ncompanions || i < b->ncompanions);
         i++) {
        const dpt_store_companion *x = i < a->ncompanions ? &a->companions[i] : NULL;
        const dpt_store_companion *y = i < b->ncompanions ? &b->companions[i] : NULL;
        bool same = false;
        if (x != NULL && y != NULL)
            st = companion_compare(x, y, &same);
        if (same)
            continue;
        bool first = y == NULL || (x != NULL && strcmp(x->name, y->name) <= 0);
        *name = first ? x->name : y->name;
    }
    return st;
}

dpt_status dpt_store_companions_restore(const dpt_store_header *header, const char *directory) {
    dpt_status st = DPT_OK;
    for (int i = 0; header != NULL && i < header->ncompanions && st == DPT_OK; i++) {
        char *to = dpt_path_join(directory, header->companions[i].name);
        st = to == NULL ? DPT_ERR_OUTPUT : dpt_store_companion_copy(&header->companions[i], to, 0);
        dpt_mem_free(to);
    }
    return st;
}

int dpt_store_companion_count(const dpt_store *store) {
    return dpt_store_header_of(store)->ncompanions;
}

const char *dpt_store_companion_at(const dpt_store *store, int i, int64_t *bytes) {
    const dpt_store_companion *one = &dpt_store_header_of(store)->companions[i];
    *bytes = one->bytes;
    return one->name;
}

#include "store_internal.h"

#include "deltapath/base/file.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/sealed.h"
#include "deltapath/store/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What covers the bytes of a model that are no tensor's: a trailer of an HDF5 checkpoint, a manifest of a
 * safetensors folder. Tensors have hashes of their own. */

enum { COVER_BYTES = 1 << 20 };

bool dpt_store_extent_add(int64_t *count, dpt_store_extent **extents, dpt_store_extent one) {
    bool full = (*count & (*count - 1)) == 0; /* powers of two */
    dpt_store_extent *grown = full ? dpt_mem_realloc(*extents, *count > 0 ? 2 * *count : 1,
                                                     sizeof *grown, "extents of tensors")
                                   : *extents;
    if (grown == NULL)
        return false;
    *extents = grown;
    grown[(*count)++] = one;
    return true;
}

static int extent_order(const void *a, const void *b) {
    int64_t x = ((const dpt_store_extent *)a)->offset, y = ((const dpt_store_extent *)b)->offset;
    return (x > y) - (x < y);
}

static dpt_status cover_feed(int fd, const char *path, int64_t begin, int64_t end, char *buffer,
                             dpt_hash *hash) {
    for (int64_t at = begin; at < end;) {
        int64_t want = end - at < COVER_BYTES ? end - at : COVER_BYTES;
        if (dpt_file_read_at(fd, at, buffer, want) != want)
            return dpt_error(DPT_ERR_INPUT, "%s: cannot be read to its end: check the disk", path);
        dpt_hash_update(hash, buffer, (size_t)want);
        at += want;
    }
    return DPT_OK;
}

/* XXH3-128 of the first `length` bytes but those of the extents, which are sorted here. */
static dpt_status cover_hash(int fd, const char *path, int64_t length, dpt_store_extent *tensors,
                             int64_t count, uint64_t out[2]) {
    char *buffer = dpt_mem_alloc(COVER_BYTES, 1, "buffer of a hash");
    dpt_status st = buffer != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    dpt_hash hash;
    int64_t at = 0;
    dpt_hash_begin(&hash);
    qsort(tensors, (size_t)count, sizeof *tensors, extent_order);
    for (int64_t i = 0; i < count && st == DPT_OK; i++) {
        if (tensors[i].bytes == 0)
            continue;
        st = cover_feed(fd, path, at, tensors[i].offset, buffer, &hash);
        at = tensors[i].offset + tensors[i].bytes;
    }
    if (st == DPT_OK)
        st = cover_feed(fd, path, at, length, buffer, &hash);
    dpt_hash128_value(&hash, out);
    dpt_mem_free(buffer);
    return st;
}

static dpt_status seal_append(const dpt_store_writer *writer, dpt_store_extent *tensors) {
    dpt_file_identity file;
    uint64_t hash[2];
    char seal[DPT_SEAL_BYTES];
    int fd = open(writer->partial, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return dpt_store_path_write_failed(writer->partial);
    dpt_status st = dpt_file_identify_open(fd, writer->partial, &file);
    if (st == DPT_OK)
        st = cover_hash(fd, writer->partial, file.size, tensors, writer->nextents, hash);
    if (st == DPT_OK) {
        dpt_seal_format(hash, file.size, seal);
        ssize_t n = pwrite(fd, seal, sizeof seal, file.size);
        if (n >= 0 && n != (ssize_t)sizeof seal)
            errno = ENOSPC;
        if (n != (ssize_t)sizeof seal || fsync(fd) != 0)
            st = dpt_store_path_write_failed(writer->partial);
    }
    if (close(fd) != 0 && st == DPT_OK)
        st = dpt_store_path_write_failed(writer->partial);
    return st;
}

dpt_status dpt_store_seal_write(const dpt_store_writer *writer) {
    return seal_append(writer, writer->extents);
}

static dpt_status seal_compare(int fd, const dpt_store_header *header, dpt_store_extent *tensors) {
    static const char begin[] = "deltapath-xxh128 ";
    const char *path = header->files[0];
    int64_t length = header->file_bytes[0] - DPT_SEAL_BYTES;
    char found[DPT_SEAL_BYTES], expected[DPT_SEAL_BYTES];
    uint64_t hash[2];
    if (header->rewritten) /* dpt_store_seal_say */
        return DPT_OK;
    bool there = length > 0 && dpt_file_read_at(fd, length, found, sizeof found) == sizeof found;
    if (!header->sealed && (!there || memcmp(found, begin, strlen(begin)) != 0))
        return DPT_OK;
    bool same = false;
    dpt_status st = DPT_OK;
    if (there) {
        st = cover_hash(fd, path, length, tensors, header->count + header->nchunks, hash);
        dpt_seal_format(hash, length, expected);
        same = memcmp(found, expected, sizeof found) == 0;
    }
    if (st == DPT_OK && !same)
        st =
            dpt_error(DPT_ERR_INPUT,
                      "%s: the checksum at its end does not match: it was damaged or changed: copy "
                      "it again; if it was changed on purpose, delete its attribute `sealed`",
                      path);
    return st;
}

dpt_status dpt_store_seal_check(const dpt_store_header *header) {
    dpt_store_extent *tensors =
        dpt_mem_alloc(header->count + header->nchunks, sizeof *tensors, "extents of tensors");
    if (tensors == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < header->count; i++) {
        const dpt_store_entry *entry = &header->entries[i];
        tensors[i] = (dpt_store_extent){entry->offset, entry->by_hdf5 ? 0 : entry->bytes};
    }
    for (int64_t i = 0; i < header->nchunks; i++)
        tensors[header->count + i] = header->chunks[i];
    int fd = dpt_file_open_input(header->files[0]);
    dpt_status st = fd < 0 ? DPT_ERR_INPUT : seal_compare(fd, header, tensors);
    if (fd >= 0)
        close(fd);
    dpt_mem_free(tensors);
    return st;
}

void dpt_store_seal_say(const dpt_store_header *header) {
    if (header->rewritten)
        dpt_log(
            DPT_LOG_WARN,
            "%s: another program has written this checkpoint anew, without its trailer: tensors "
            "have their hashes, nothing checks its configuration and companion files",
            header->files[0]);
}

static dpt_status manifest_add(const char *folder, const char *name, dpt_manifest *manifest) {
    dpt_manifest_entry entry = {.name = (char *)(uintptr_t)name};
    char *path = dpt_path_join(folder, name);
    if (path == NULL)
        return DPT_ERR_OUTPUT;
    bool weights = dpt_path_ends_with(name, ".safetensors");
    int64_t covered = weights ? dpt_store_safetensors_header_bytes(path) : -1;
    dpt_status st = DPT_OK;
    if (weights && covered < 0)
        st = dpt_error(DPT_ERR_OUTPUT, "%s: its header cannot be read back: check the disk", path);
    if (st == DPT_OK)
        st = dpt_manifest_measure(path, covered, &entry);
    dpt_mem_free(path);
    return st == DPT_OK ? dpt_manifest_set(manifest, &entry) : st;
}

dpt_status dpt_store_manifest_write(const char *folder, const char *provenance) {
    dpt_manifest manifest = {.recipe = dpt_store_recipe_of(provenance)};
    char *path = dpt_path_join(folder, DPT_MANIFEST_CHECKPOINT);
    DIR *listing = opendir(folder);
    dpt_status st = path == NULL      ? DPT_ERR_OUTPUT
                    : listing == NULL ? dpt_store_path_write_failed(folder)
                                      : DPT_OK;
    errno = 0;
    for (struct dirent *entry = NULL; st == DPT_OK && (entry = readdir(listing)) != NULL; errno = 0)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            st = manifest_add(folder, entry->d_name, &manifest);
    if (st == DPT_OK && errno != 0)
        st = dpt_store_path_write_failed(folder);
    if (listing != NULL)
        closedir(listing);
    if (st == DPT_OK)
        st = dpt_manifest_write(path, &manifest);
    dpt_manifest_destroy(&manifest);
    dpt_mem_free(path);
    return st;
}

dpt_status dpt_store_manifest_check(const char *folder) {
    dpt_manifest manifest = {.count = 0};
    bool found = false;
    char *path = dpt_path_join(folder, DPT_MANIFEST_CHECKPOINT);
    dpt_status st = path != NULL ? dpt_manifest_read(path, &manifest, &found) : DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < manifest.count && st == DPT_OK; i++)
        st = dpt_manifest_check(folder, &manifest.entries[i]);
    dpt_manifest_destroy(&manifest);
    dpt_mem_free(path);
    return st;
}

/* Whether the sidecar of a folder says that there is a manifest. */
static bool manifest_promised(const char *folder) {
    enum { SIDECAR_LIMIT = 1 << 27 };
    char *path = dpt_path_join(folder, "deltapath.json");
    char *text = NULL;
    if (path == NULL || dpt_store_path_read_text(path, SIDECAR_LIMIT, &text) != DPT_OK)
        dpt_error_clear(); /* opening the model says what is wrong */
    json_t *root = text != NULL ? json_loads(text, 0, NULL) : NULL;
    bool promised = json_object_get(root, "manifest") != NULL;
    json_decref(root);
    dpt_mem_free(text);
    dpt_mem_free(path);
    return promised;
}

/* The i-th file of a listing that a manifest lacks. */
static dpt_status find_unlisted(const char *folder, const dpt_manifest *manifest, int i,
                                char **name) {
    DIR *listing = opendir(folder);
    for (struct dirent *entry = NULL; listing != NULL && (entry = readdir(listing)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            strcmp(entry->d_name, DPT_MANIFEST_CHECKPOINT) == 0 ||
            dpt_manifest_find(manifest, entry->d_name) != NULL || i-- > 0)
            continue;
        *name = dpt_mem_strdup(entry->d_name, "name of a file");
        break;
    }
    if (listing != NULL)
        closedir(listing);
    return DPT_OK;
}

dpt_status dpt_store_unlisted(const char *path, int i, char **name) {
    dpt_manifest manifest = {.count = 0};
    bool found = false;
    *name = NULL;
    if (!dpt_path_is_directory(path))
        return DPT_OK;
    char *list = dpt_path_join(path, DPT_MANIFEST_CHECKPOINT);
    dpt_status st = list != NULL ? dpt_manifest_read(list, &manifest, &found) : DPT_ERR_OUTPUT;
    if (st == DPT_OK && found)
        st = find_unlisted(path, &manifest, i, name);
    else if (st == DPT_OK && manifest_promised(path))
        st = dpt_error(DPT_ERR_INPUT, "%s: is missing: copy the folder again", list);
    dpt_manifest_destroy(&manifest);
    dpt_mem_free(list);
    return st;
}

#include "json_members.h"
#include "store_internal.h"

#include "deltapath/base/file.h"
#include "deltapath/base/mem.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int64_t HEADER_LIMIT = 100000000;
/* A tree of JSON takes up to twenty times the bytes of the text. */
static const int64_t CONFIG_LIMIT = 1 << 24;
static const int64_t INDEX_LIMIT = 1 << 27;

static dpt_status safetensors_bad(const char *path, const char *tensor, const char *problem) {
    return dpt_error(DPT_ERR_INPUT, "%s: tensor %s %s", path, tensor, problem);
}

static json_t *parse_json(const char *path, const char *text, size_t n) {
    json_error_t error;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        (void)dpt_error(DPT_ERR_INPUT,
                        "%s: JSON is broken at line %d, column %d (%s): copy the file again", path,
                        error.line, error.column, error.text);
    else if (!json_is_object(root)) {
        (void)dpt_error(DPT_ERR_INPUT, "%s: JSON is no object: copy the file again", path);
        json_decref(root);
        root = NULL;
    }
    return root;
}

static json_t *load_json(const char *path, int64_t limit, dpt_status *st) {
    char *text = NULL;
    *st = dpt_store_path_read_text(path, limit, &text);
    if (*st != DPT_OK || text == NULL)
        return NULL;
    json_t *root = parse_json(path, text, strlen(text));
    if (root == NULL)
        *st = DPT_ERR_INPUT;
    dpt_mem_free(text);
    return root;
}

/* The length and the text of a file's header, checked against the file. */
static dpt_status read_header_text(const char *path, int64_t file_bytes, char **text, int64_t *n) {
    unsigned char raw[8] = {0};
    int fd = dpt_file_open_input(path);
    if (fd < 0)
        return DPT_ERR_INPUT;
    bool ok = dpt_file_read_at(fd, 0, raw, 8) == 8;
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | raw[i];
    dpt_status st = DPT_OK;
    if (!ok)
        st = dpt_error(DPT_ERR_INPUT, "%s: shorter than 8 bytes: it is truncated, copy it again",
                       path);
    else if (length > (uint64_t)HEADER_LIMIT || (int64_t)length > file_bytes - 8 || length < 2)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: claims a header of %" PRIu64 " bytes in a file of %" PRId64
                       ": it is truncated or no safetensors file, copy it again",
                       path, length, file_bytes);
    if (st == DPT_OK) {
        *n = (int64_t)length;
        *text = dpt_mem_alloc(*n, 1, "safetensors header");
        st = *text == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    }
    if (st == DPT_OK && dpt_file_read_at(fd, 8, *text, *n) != *n)
        st = dpt_error(DPT_ERR_INPUT, "%s: the header cannot be read: copy the file again", path);
    else if (st == DPT_OK && (*text)[0] != '{')
        st = dpt_error(DPT_ERR_INPUT, "%s: the header does not begin with '{': copy the file again",
                       path);
    close(fd);
    return st;
}

int64_t dpt_store_safetensors_header_bytes(const char *path) {
    unsigned char raw[8];
    uint64_t length = 0;
    int fd = dpt_file_open_input(path);
    int64_t got = fd >= 0 ? dpt_file_read_at(fd, 0, raw, 8) : -1;
    if (fd >= 0)
        close(fd);
    for (int i = 7; i >= 0 && got == 8; i--)
        length = length << 8 | raw[i];
    return got == 8 && length <= (uint64_t)HEADER_LIMIT ? 8 + (int64_t)length : -1;
}

static dpt_status parse_dtype(const char *path, const char *tensor, const json_t *value,
                              dpt_dtype *out) {
    const char *name = json_string_value(value);
    for (int i = 0; name != NULL && i < DPT_DTYPE_COUNT; i++) {
        *out = (dpt_dtype)i;
        if (strcmp(name, dpt_dtype_name(*out)) == 0)
            return DPT_OK;
    }
    return dpt_error(DPT_ERR_INPUT,
                     "%s: tensor %s has the type %s, which is not supported: convert "
                     "it or remove the tensor",
                     path, tensor, name != NULL ? name : "(none)");
}

static dpt_status parse_shape(const char *path, const json_t *value, dpt_store_entry *entry) {
    if (!json_is_array(value))
        return safetensors_bad(path, entry->name, "has no shape: copy the file again");
    if (json_array_size(value) > DPT_NDIM_MAX)
        return safetensors_bad(path, entry->name, "has more than 8 sides, which is not supported");
    entry->ndim = (int)json_array_size(value);
    for (int i = 0; i < entry->ndim; i++) {
        const json_t *side = json_array_get(value, (size_t)i);
        if (!json_is_integer(side) || json_integer_value(side) < 0)
            return safetensors_bad(path, entry->name,
                                   "has a side that is no integer from 0 up: copy the file again");
        entry->shape[i] = (int64_t)json_integer_value(side);
    }
    return DPT_OK;
}

static dpt_status parse_offsets(const char *path, const json_t *value, int64_t data_at,
                                int64_t data_bytes, dpt_store_entry *entry) {
    const json_t *first = json_array_get(value, 0);
    const json_t *second = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(second))
        return safetensors_bad(path, entry->name,
                               "has no data_offsets of two integers: copy the file again");
    int64_t begin = (int64_t)json_integer_value(first);
    int64_t end = (int64_t)json_integer_value(second);
    int64_t bytes = 0;
    dpt_status st = dpt_store_header_size(path, entry, &bytes);
    if (st != DPT_OK)
        return st;
    if (begin < 0 || end < begin || end > data_bytes)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: tensor %s claims bytes %" PRId64 " to %" PRId64 " of %" PRId64
                         ": the file is truncated or corrupt, copy it again",
                         path, entry->name, begin, end, data_bytes);
    if (end - begin != bytes)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: tensor %s claims %" PRId64 " bytes but its shape needs %" PRId64
                         ": the header is corrupt, copy the file again",
                         path, entry->name, end - begin, bytes);
    entry->offset = data_at + begin;
    return DPT_OK;
}

static dpt_status merge_metadata(const char *path, const json_t *metadata, json_t *merged) {
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return dpt_error(DPT_ERR_INPUT, "%s: __metadata__ is no object: rewrite the file", path);
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) {
        if (!json_is_string(value))
            return dpt_error(DPT_ERR_INPUT,
                             "%s: __metadata__ key %s is no string: rewrite the file", path, key);
        if (json_object_get(merged, key) == NULL && json_object_set(merged, key, value) != 0)
            return dpt_error(DPT_ERR_OUTPUT, "%s: no memory left for its metadata: " DPT_MEM_REMEDY,
                             path);
    }
    return DPT_OK;
}

static int by_offset(const void *a, const void *b) {
    const dpt_store_entry *x = *(dpt_store_entry *const *)a;
    const dpt_store_entry *y = *(dpt_store_entry *const *)b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int safetensors_by_name(const void *a, const void *b) {
    return strcmp((*(dpt_store_entry *const *)a)->name, (*(dpt_store_entry *const *)b)->name);
}

/* Before the cover, which two tensors of one name spoil too. */
static dpt_status check_names(const char *path, dpt_store_entry **order, int64_t count) {
    qsort(order, (size_t)count, sizeof *order, safetensors_by_name);
    for (int64_t i = 1; i < count; i++)
        if (strcmp(order[i - 1]->name, order[i]->name) == 0)
            return dpt_error(DPT_ERR_INPUT,
                             "%s: tensor %s is a duplicate: the header is corrupt, copy the file "
                             "again",
                             path, order[i]->name);
    return DPT_OK;
}

/* The format wants the data region covered without holes: a hole is a tensor that got lost. */
static dpt_status check_cover(const char *path, dpt_store_header *header, int64_t first_entry,
                              int64_t data_at, int64_t file_bytes) {
    int64_t count = header->count - first_entry;
    dpt_store_entry **order = dpt_mem_alloc(count, sizeof *order, "order of extents");
    if (order == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < count; i++)
        order[i] = &header->entries[first_entry + i];
    dpt_status st = check_names(path, order, count);
    qsort(order, (size_t)count, sizeof *order, by_offset);
    int64_t at = data_at;
    for (int64_t i = 0; i < count && st == DPT_OK; i++) {
        if (order[i]->offset != at)
            st = dpt_error(DPT_ERR_INPUT,
                           "%s: tensor %s begins at byte %" PRId64 " but the one before it ends at "
                           "%" PRId64 " (%s): the header is corrupt, copy the file again",
                           path, order[i]->name, order[i]->offset, at,
                           order[i]->offset < at ? "they overlap" : "there is a hole");
        at = order[i]->offset + order[i]->bytes;
    }
    if (st == DPT_OK && at != file_bytes)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: the tensors end at byte %" PRId64 " of %" PRId64
                       ": the file is corrupt or was appended to, copy it again",
                       path, at, file_bytes);
    dpt_mem_free(order);
    return st;
}

static dpt_status scan_tensor(const char *path, const char *name, const json_t *value,
                              int64_t data_at, int64_t file_bytes, dpt_store_header *header) {
    dpt_store_entry entry = {.name = (char *)(uintptr_t)name, .file = header->nfiles - 1};
    dpt_status st = json_is_object(value)
                        ? DPT_OK
                        : safetensors_bad(path, name, "is no object: copy the file again");
    if (st == DPT_OK)
        st = parse_dtype(path, name, json_object_get(value, "dtype"), &entry.dtype);
    if (st == DPT_OK)
        st = parse_shape(path, json_object_get(value, "shape"), &entry);
    if (st == DPT_OK)
        st = parse_offsets(path, json_object_get(value, "data_offsets"), data_at,
                           file_bytes - data_at, &entry);
    return st == DPT_OK ? dpt_store_header_add(header, &entry) : st;
}

/* Member by member: names that repeat are found with the cover. */
static dpt_status scan_tensors(const char *path, const char *text, int64_t n, int64_t file_bytes,
                               dpt_store_header *header, json_t *metadata) {
    dpt_json_members members = {.path = path, .text = text, .n = n};
    int64_t first_entry = header->count;
    bool described = false;
    dpt_status st = DPT_OK;
    for (bool more = true; more && st == DPT_OK;) {
        json_t *key = NULL, *value = NULL;
        st = dpt_json_members_next(&members, &key, &value);
        const char *name = json_string_value(key);
        more = name != NULL;
        if (more && strcmp(name, "__metadata__") == 0) {
            st = described ? dpt_error(DPT_ERR_INPUT,
                                       "%s: the header has a duplicate __metadata__: copy the "
                                       "file again",
                                       path)
                           : merge_metadata(path, value, metadata);
            described = true;
        } else if (more) {
            st = scan_tensor(path, name, value, 8 + n, file_bytes, header);
        }
        json_decref(key);
        json_decref(value);
    }
    return st == DPT_OK ? check_cover(path, header, first_entry, 8 + n, file_bytes) : st;
}

static dpt_status scan_one(const char *path, dpt_store_header *header, json_t *metadata) {
    int64_t bytes = 0;
    char *text = NULL;
    int64_t n = 0;
    dpt_status st = dpt_store_path_length(path, &bytes);
    if (st == DPT_OK)
        st = dpt_store_header_add_file(header, path, bytes);
    if (st == DPT_OK)
        st = read_header_text(path, bytes, &text, &n);
    if (st == DPT_OK)
        st = scan_tensors(path, text, n, bytes, header, metadata);
    dpt_mem_free(text);
    return st;
}

static int file_of_name(const dpt_store_header *header, const char *name) {
    for (int i = 0; i < header->nfiles; i++)
        if (strcmp(dpt_path_base(header->files[i]), name) == 0)
            return i;
    return -1;
}

static dpt_status check_shard_name(const char *index, const char *tensor, const char *file) {
    if (file == NULL || file[0] == '\0' || strchr(file, '/') != NULL || file[0] == '.')
        return dpt_error(DPT_ERR_INPUT,
                         "%s: tensor %s is mapped to the file \"%s\", which is no plain file name "
                         "in this directory: correct the index",
                         index, tensor, file != NULL ? file : "(none)");
    return DPT_OK;
}

/* Open each file that the map names, in the order of first mention. */
static dpt_status scan_shards(const char *directory, const char *index, const json_t *map,
                              dpt_store_header *header, json_t *metadata) {
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
        const char *name = json_string_value(value);
        dpt_status st = check_shard_name(index, tensor, name);
        if (st != DPT_OK)
            return st;
        if (file_of_name(header, name) >= 0)
            continue;
        char *path = dpt_path_join(directory, name);
        if (path == NULL)
            return DPT_ERR_OUTPUT;
        if (!dpt_path_exists(path))
            st = dpt_error(DPT_ERR_INPUT, "%s: names the file %s, which is absent: copy it", index,
                           path);
        else
            st = scan_one(path, header, metadata);
        dpt_mem_free(path);
        if (st != DPT_OK)
            return st;
    }
    return DPT_OK;
}

static dpt_status check_map(const char *index, const json_t *map, dpt_store_header *header) {
    for (int64_t i = 0; i < header->count; i++) {
        const dpt_store_entry *entry = &header->entries[i];
        const char *name = json_string_value(json_object_get(map, entry->name));
        const char *file = header->files[entry->file];
        if (name == NULL)
            return dpt_error(DPT_ERR_INPUT, "%s: does not list tensor %s of %s: correct the index",
                             index, entry->name, file);
        if (strcmp(name, dpt_path_base(file)) != 0)
            return dpt_error(DPT_ERR_INPUT,
                             "%s: maps tensor %s to %s but %s has it: correct the index", index,
                             entry->name, name, file);
    }
    if ((int64_t)json_object_size(map) == header->count)
        return DPT_OK;
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
        if (dpt_store_header_find(header, tensor) < 0)
            return dpt_error(
                DPT_ERR_INPUT,
                "%s: maps tensor %s to %s, which does not have it: copy the file again", index,
                tensor, json_string_value(value));
    }
    return DPT_OK;
}

static dpt_status scan_index(const char *directory, const char *index, dpt_store_header *header,
                             json_t *metadata) {
    dpt_status st = DPT_OK;
    json_t *root = load_json(index, INDEX_LIMIT, &st);
    const json_t *map = json_object_get(root, "weight_map");
    if (st == DPT_OK && !json_is_object(map))
        st = dpt_error(DPT_ERR_INPUT, "%s: has no weight_map: copy the file again", index);
    if (st == DPT_OK)
        st = scan_shards(directory, index, map, header, metadata);
    if (st == DPT_OK)
        st = dpt_store_header_seal(header, index);
    if (st == DPT_OK)
        st = check_map(index, map, header);
    json_decref(root);
    return st;
}

static dpt_status attach_hashes(const char *path, const json_t *hashes, dpt_store_header *header) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)hashes, name, value) {
        int64_t at = dpt_store_header_find(header, name);
        const char *text = json_string_value(value);
        char *end = NULL;
        uint64_t hash = text != NULL ? strtoull(text, &end, 16) : 0;
        if (at < 0 || text == NULL || strlen(text) != 16 || *end != '\0')
            return dpt_error(DPT_ERR_INPUT,
                             "%s: the hash of tensor %s does not belong to this model: remove the "
                             "file",
                             path, name);
        header->entries[at].hashed = true;
        header->entries[at].hash = hash;
    }
    return DPT_OK;
}

/* config.json and, when we wrote the model, the hashes and the provenance next to it. */
static dpt_status scan_beside(const char *directory, dpt_store_header *header) {
    char *config = dpt_path_join(directory, "config.json");
    char *sidecar = dpt_path_join(directory, "deltapath.json");
    dpt_status st = config == NULL || sidecar == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    if (st == DPT_OK)
        st = dpt_store_path_read_text(config, CONFIG_LIMIT, &header->config);
    if (st == DPT_OK && header->config != NULL) {
        json_t *root = parse_json(config, header->config, strlen(header->config));
        st = root == NULL ? DPT_ERR_INPUT : DPT_OK;
        json_decref(root);
    }
    json_t *root = st == DPT_OK ? load_json(sidecar, INDEX_LIMIT, &st) : NULL;
    if (st == DPT_OK && root != NULL) {
        const json_t *provenance = json_object_get(root, "provenance");
        char *text =
            provenance != NULL ? json_dumps(provenance, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
        header->provenance = dpt_mem_strdup(text, "provenance");
        free(text);
        st = attach_hashes(sidecar, json_object_get(root, "xxh3"), header);
    }
    json_decref(root);
    dpt_mem_free(config);
    dpt_mem_free(sidecar);
    return st;
}

/* The only .safetensors file of a directory, allocated; NULL when there is none or several. */
static char *only_file(const char *directory, int *count) {
    DIR *listing = opendir(directory);
    char *found = NULL;
    *count = 0;
    if (listing == NULL)
        return NULL;
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        if (!dpt_path_ends_with(entry->d_name, ".safetensors"))
            continue;
        if ((*count)++ == 0)
            found = dpt_path_join(directory, entry->d_name);
    }
    closedir(listing);
    if (*count == 1)
        return found;
    dpt_mem_free(found);
    return NULL;
}

/* As transformers looks: the plain name, then the index; then a single file of any name. */
static dpt_status scan_directory(const char *directory, dpt_store_header *header,
                                 json_t *metadata) {
    char *plain = dpt_path_join(directory, "model.safetensors");
    char *index = dpt_path_join(directory, "model.safetensors.index.json");
    int count = 0;
    char *other = only_file(directory, &count);
    dpt_status st = plain == NULL || index == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    if (st != DPT_OK)
        ;
    else if (dpt_path_exists(plain))
        st = scan_one(plain, header, metadata);
    else if (dpt_path_exists(index))
        st = scan_index(directory, index, header, metadata);
    else if (other != NULL)
        st = scan_one(other, header, metadata);
    else
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: there is no model.safetensors and no model.safetensors.index.json "
                       "(%d other .safetensors files): give a safetensors model",
                       directory, count);
    dpt_mem_free(plain);
    dpt_mem_free(index);
    dpt_mem_free(other);
    return st;
}

static dpt_status safetensors_scan(const char *path, dpt_store_header *out) {
    json_t *metadata = json_object();
    bool directory = dpt_path_is_directory(path);
    dpt_status st = directory ? scan_directory(path, out, metadata) : scan_one(path, out, metadata);
    if (st == DPT_OK)
        st = dpt_store_header_seal(out, path);
    if (st == DPT_OK) {
        char *home = directory ? dpt_mem_strdup(path, "path") : dpt_path_parent(path);
        st = home == NULL ? DPT_ERR_OUTPUT : dpt_store_manifest_check(home);
        if (st == DPT_OK)
            st = scan_beside(home, out);
        dpt_mem_free(home);
    }
    if (st == DPT_OK && directory)
        st = dpt_store_companions_list(path, out);
    if (st == DPT_OK && json_object_size(metadata) > 0) {
        char *text = json_dumps(metadata, JSON_COMPACT);
        out->metadata = dpt_mem_strdup(text, "metadata");
        free(text);
        st = out->metadata == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    }
    json_decref(metadata);
    return st;
}

const dpt_store_driver dpt_store_safetensors_driver = {.format = DPT_STORE_SAFETENSORS,
                                                       .name = "safetensors",
                                                       .endings = {""},
                                                       .directory = true,
                                                       .scan = safetensors_scan,
                                                       .layout = dpt_store_safetensors_layout,
                                                       .create = dpt_store_safetensors_create,
                                                       .finish = dpt_store_safetensors_finish};

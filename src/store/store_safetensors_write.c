#include "store_internal.h"

#include "deltapath/base/mem.h"
#include "deltapath/store/manifest.h"
#include "deltapath/comm/agree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int64_t tensor_bytes(const dpt_tensor_info *info) {
    return info->numel * dpt_dtype_size(info->dtype);
}

/* Tensors go to files in the order of their names; a file is full when the next tensor would take
 * it past the limit. */
static int assign_files(dpt_store_writer *writer) {
    int file = 0;
    int64_t used = 0;
    for (int t = 0; t < writer->catalog->count; t++) {
        int64_t bytes = tensor_bytes(&writer->catalog->tensors[t]);
        if (used > 0 && bytes > writer->shard_bytes - used) {
            file++;
            used = 0;
        }
        writer->file_of[t] = file;
        used += bytes;
    }
    return file + 1;
}

static dpt_status name_files(dpt_store_writer *writer, int count) {
    dpt_status st = DPT_STORE_NEW(writer->files, count, "file names");
    for (int i = 0; i < count && st == DPT_OK; i++) {
        writer->files[i] = count == 1 ? dpt_path_join(writer->partial, "model.safetensors")
                                      : dpt_mem_format("%s/model-%05d-of-%05d.safetensors",
                                                       writer->partial, i + 1, count);
        if (writer->files[i] == NULL)
            return DPT_ERR_OUTPUT;
        writer->nfiles = i + 1;
    }
    return st;
}

/* The tensors of a file in the order of their bytes: wide types first, which keeps every tensor
 * aligned to its element as readers that map the file expect, then by name. */
static int next_in_file(const dpt_store_writer *writer, int file, int64_t *size, int after) {
    for (; *size > 0; *size /= 2, after = -1)
        for (int t = after + 1; t < writer->catalog->count; t++)
            if (writer->file_of[t] == file &&
                dpt_dtype_size(writer->catalog->tensors[t].dtype) == *size)
                return t;
    return -1;
}

static json_t *describe(const dpt_tensor_info *info, int64_t begin) {
    json_t *shape = json_array();
    for (int i = 0; i < info->ndim; i++)
        json_array_append_new(shape, json_integer((json_int_t)info->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dpt_dtype_name(info->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)(begin + tensor_bytes(info)));
}

/* transformers refuses a file whose metadata lacks "format". */
static json_t *metadata_of(const dpt_store_writer *writer) {
    json_t *metadata = NULL;
    if (writer->metadata != NULL)
        metadata = json_loads(writer->metadata, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(metadata)) {
        json_decref(metadata);
        metadata = json_object();
    }
    if (json_object_get(metadata, "format") == NULL)
        json_object_set_new(metadata, "format", json_string("pt"));
    return metadata;
}

/* Header text of one file; *data_bytes is the length of what follows. NULL without memory. */
static char *make_header(const dpt_store_writer *writer, int file, int64_t *data_bytes) {
    json_t *root = json_object();
    int64_t at = 0;
    int64_t size = 8;
    bool ok = json_object_set_new(root, "__metadata__", metadata_of(writer)) == 0;
    for (int t = next_in_file(writer, file, &size, -1); t >= 0;
         t = next_in_file(writer, file, &size, t)) {
        const dpt_tensor_info *info = &writer->catalog->tensors[t];
        ok = json_object_set_new(root, info->name, describe(info, at)) == 0 && ok;
        writer->offset_of[t] = at;
        at += tensor_bytes(info);
    }
    *data_bytes = at;
    char *text = ok ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (text == NULL) {
        (void)dpt_error(DPT_ERR_OUTPUT,
                        "%s: the header cannot be made: no memory, or a tensor name is not "
                        "UTF-8",
                        writer->path);
        return NULL;
    }
    size_t n = strlen(text);
    char *padded = dpt_mem_format("%s%*s", text, (int)((8 - n % 8) % 8), "");
    free(text);
    return padded;
}

dpt_status dpt_store_safetensors_layout(dpt_store_writer *writer) {
    if (dpt_catalog_find(writer->catalog, "__metadata__") >= 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: a tensor named __metadata__ cannot be stored as safetensors: rename "
                         "it or write HDF5",
                         writer->path);
    int count = assign_files(writer);
    dpt_status st = name_files(writer, count);
    if (st == DPT_OK)
        st = DPT_STORE_NEW(writer->headers, count, "safetensors headers");
    if (st == DPT_OK)
        st = DPT_STORE_NEW(writer->file_bytes, count, "file lengths");
    for (int f = 0; f < count && st == DPT_OK; f++) {
        int64_t data_bytes = 0;
        writer->headers[f] = make_header(writer, f, &data_bytes);
        if (writer->headers[f] == NULL)
            return DPT_ERR_OUTPUT;
        int64_t data_at = 8 + (int64_t)strlen(writer->headers[f]);
        if (!dpt_mem_add(data_at, data_bytes, &writer->file_bytes[f]))
            return dpt_error(DPT_ERR_OUTPUT, "%s: the model is too large", writer->path);
        for (int t = 0; t < writer->catalog->count; t++)
            if (writer->file_of[t] == f)
                writer->offset_of[t] += data_at;
    }
    return st;
}

/* The file has its full length from the start, so that every rank can write at its place. */
static dpt_status write_shard(const dpt_store_writer *writer, int file) {
    const char *header = writer->headers[file];
    uint64_t n = strlen(header);
    char *start = dpt_mem_alloc((int64_t)n + 8, 1, "safetensors header");
    if (start == NULL)
        return DPT_ERR_OUTPUT;
    for (int i = 0; i < 8; i++)
        start[i] = (char)(n >> (8 * i) & 0xff);
    memcpy(start + 8, header, n);
    dpt_status st = dpt_store_hint_file(writer, writer->files[file]);
    if (st == DPT_OK)
        st = dpt_store_path_write(writer->files[file], start, (int64_t)n + 8,
                                  writer->file_bytes[file]);
    dpt_mem_free(start);
    return st;
}

/* Write a text file into the output directory. */
static dpt_status write_text(const dpt_store_writer *writer, const char *name, const char *text) {
    char *path = dpt_path_join(writer->partial, name);
    if (path == NULL)
        return DPT_ERR_OUTPUT;
    dpt_status st = dpt_store_path_write(path, text, (int64_t)strlen(text), 0);
    dpt_mem_free(path);
    return st;
}

static dpt_status write_json(const dpt_store_writer *writer, const char *name, json_t *root) {
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
    dpt_status st = text == NULL ? dpt_error(DPT_ERR_OUTPUT,
                                             "%s: %s cannot be made: no memory, or "
                                             "a tensor name is not UTF-8",
                                             writer->path, name)
                                 : write_text(writer, name, text);
    free(text);
    return st;
}

static dpt_status write_index(const dpt_store_writer *writer) {
    json_t *root = json_object();
    json_t *map = json_object();
    int64_t total = dpt_catalog_bytes(writer->catalog);
    json_object_set_new(root, "metadata", json_pack("{s:I}", "total_size", (json_int_t)total));
    for (int t = 0; t < writer->catalog->count; t++)
        json_object_set_new(map, writer->catalog->tensors[t].name,
                            json_string(dpt_path_base(writer->files[writer->file_of[t]])));
    json_object_set_new(root, "weight_map", map);
    dpt_status st = write_json(writer, "model.safetensors.index.json", root);
    json_decref(root);
    return st;
}

static dpt_status create_on_root(dpt_store_writer *writer) {
    if (mkdir(writer->partial, 0777) != 0)
        return dpt_error(DPT_ERR_OUTPUT, "%s: cannot be made (%s): check permissions",
                         writer->partial, strerror(errno));
    dpt_status st = DPT_OK;
    for (int f = 0; f < writer->nfiles && st == DPT_OK; f++)
        st = write_shard(writer, f);
    if (st == DPT_OK && writer->nfiles > 1)
        st = write_index(writer);
    if (st == DPT_OK && writer->config != NULL)
        st = write_text(writer, "config.json", writer->config);
    if (st == DPT_OK)
        st = dpt_store_companions_restore(writer->companions, writer->partial);
    return st;
}

dpt_status dpt_store_safetensors_create(dpt_store_writer *writer) {
    return dpt_agree(&writer->comm, writer->comm.rank == 0 ? create_on_root(writer) : DPT_OK);
}

/* The sidecar holds what the format has no place for: who made the model, and the hashes. */
static dpt_status write_sidecar(dpt_store_writer *writer) {
    json_t *root = json_object();
    json_t *hashes = json_object();
    json_object_set_new(root, "format", json_string("deltapath-sidecar"));
    json_object_set_new(root, "version", json_integer(1));
    json_object_set_new(root, "manifest", json_string(DPT_MANIFEST_CHECKPOINT));
    if (writer->provenance != NULL) {
        json_t *provenance = json_loads(writer->provenance, JSON_DECODE_ANY, NULL);
        if (provenance == NULL)
            provenance = json_string(writer->provenance);
        json_object_set_new(root, "provenance", provenance);
    }
    for (int t = 0; t < writer->catalog->count; t++) {
        char digits[17];
        snprintf(digits, sizeof digits, "%016" PRIx64, writer->hashes[t]);
        json_object_set_new(hashes, writer->catalog->tensors[t].name, json_string(digits));
    }
    json_object_set_new(root, "xxh3", hashes);
    dpt_status st = write_json(writer, "deltapath.json", root);
    json_decref(root);
    return st;
}

static dpt_status finish_on_root(dpt_store_writer *writer) {
    dpt_status st = write_sidecar(writer);
    return st == DPT_OK ? dpt_store_manifest_write(writer->partial, writer->provenance) : st;
}

dpt_status dpt_store_safetensors_finish(dpt_store_writer *writer) {
    return dpt_agree(&writer->comm, writer->comm.rank == 0 ? finish_on_root(writer) : DPT_OK);
}

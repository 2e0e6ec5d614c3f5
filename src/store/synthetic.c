#include "synthetic.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/rng.h"
#include "deltapath/store/owned.h"
#include "deltapath/store/synthetic.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Models whose values are computed. */

enum { CHUNK = 1 << 11, VERSION = 1 };
static const int64_t LIST_LIMIT = 1 << 28, CONFIG_LIMIT = 1 << 24;

/* Of the sum of four bytes that are each uniform: its mean, and its variance 4 (256^2 - 1) / 12. */
static const int32_t BYTES_MEAN = 510;
static const double BYTES_VARIANCE = 21845.0;

bool dpt_store_is_synthetic(const char *path) {
    char *list = dpt_path_is_directory(path) ? dpt_path_join(path, DPT_SYNTHETIC_FILE) : NULL;
    bool is = list != NULL && dpt_path_is_file(list);
    dpt_mem_free(list);
    return is;
}

static void synthetic_sums(dpt_rng stream, int64_t ig, int64_t n, float *out) {
    uint32_t words[CHUNK];
    dpt_rng_words(stream, ig, n, words);
    for (int64_t i = 0; i < n; i++) {
        uint32_t pairs = (words[i] & 0x00ff00ffU) + (words[i] >> 8 & 0x00ff00ffU);
        out[i] = (float)((int32_t)((pairs & 0xffffU) + (pairs >> 16)) - BYTES_MEAN);
    }
}

void dpt_store_synthetic_run(const dpt_store_entry *entry, int64_t ig, int64_t n, void *out) {
    const dpt_store_made *made = &entry->made;
    const dpt_rng values = dpt_rng_make(made->seed, entry->name, DPT_RNG_SYNTHETIC);
    const dpt_rng deltas = dpt_rng_make(made->seed, entry->name, DPT_RNG_SYNTHETIC_DELTA);
    int64_t size = dpt_dtype_size(entry->dtype);
    float sums[CHUNK], value[CHUNK];
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t part = n - at < CHUNK ? n - at : CHUNK;
        char *to = (char *)out + at * size;
        synthetic_sums(values, ig + at, part, sums);
        for (int64_t i = 0; i < part; i++)
            value[i] = made->mean + made->scale * sums[i];
        dpt_dtype_from_f32(entry->dtype, value, to, part);
        if (made->step == 0.0F)
            continue;
        dpt_dtype_to_f32(entry->dtype, to, value, part);
        synthetic_sums(deltas, ig + at, part, sums);
        for (int64_t i = 0; i < part; i++)
            value[i] += made->step * sums[i];
        dpt_dtype_from_f32(entry->dtype, value, to, part);
    }
}

void dpt_store_synthetic_feed(const dpt_store_entry *entry, dpt_hash *hash) {
    const dpt_store_made *made = &entry->made;
    const float numbers[] = {made->mean, made->scale, made->step};
    dpt_hash_update(hash, &made->seed, sizeof made->seed);
    dpt_hash_update(hash, numbers, sizeof numbers);
}

static dpt_status synthetic_bad(const char *list, const char *what, const char *remedy) {
    return dpt_error(DPT_ERR_INPUT, "%s: %.200s: %s", list, what, remedy);
}

/* A finite number from `least` to 1e6 in size. */
static bool synthetic_number(const json_t *value, double least, double *out) {
    *out = json_is_number(value) ? json_number_value(value) : NAN;
    return isfinite(*out) && *out >= least && *out <= 1e6;
}

static bool synthetic_shape(const json_t *shape, dpt_store_entry *entry) {
    size_t sides = json_array_size(shape);
    bool good = json_is_array(shape) && sides <= DPT_NDIM_MAX;
    entry->ndim = good ? (int)sides : 0;
    for (size_t i = 0; i < sides && good; i++) {
        const json_t *side = json_array_get(shape, i);
        good = json_is_integer(side) && json_integer_value(side) >= 0;
        entry->shape[i] = json_integer_value(side);
    }
    return good;
}

/* One tensor; its bytes follow those of the one before, as in a file that nobody has. */
static dpt_status synthetic_add(const char *list, const char *name, const json_t *said,
                                const dpt_store_made *all, dpt_store_header *out) {
    static const char remedy[] = "write it as doc/formats.md, Synthetic models, has it";
    double mean = 0.0, deviation = 0.0;
    const char *type = json_string_value(json_object_get(said, "dtype"));
    dpt_store_entry entry = {.name = (char *)(uintptr_t)name, .made = *all};
    if (type == NULL || !dpt_dtype_parse(type, &entry.dtype) || !dpt_dtype_editable(entry.dtype))
        return synthetic_bad(list, name, "its dtype is none of F32, F16 and BF16");
    if (!synthetic_shape(json_object_get(said, "shape"), &entry) ||
        !synthetic_number(json_object_get(said, "mean"), -1e6, &mean) ||
        !synthetic_number(json_object_get(said, "deviation"), 0.0, &deviation))
        return synthetic_bad(list, name, remedy);
    entry.offset = out->count > 0 ? out->file_bytes[0] : 0;
    entry.made.mean = (float)mean;
    entry.made.scale = (float)(deviation / sqrt(BYTES_VARIANCE));
    entry.made.step = (float)(deviation * (double)all->step / sqrt(BYTES_VARIANCE));
    int64_t bytes = 0, end = 0;
    dpt_status st = dpt_store_header_size(list, &entry, &bytes);
    if (st == DPT_OK && !dpt_mem_add(entry.offset, bytes, &end))
        return synthetic_bad(list, name, "the size of the model overflows 64 bits");
    out->file_bytes[0] = end;
    return st == DPT_OK ? dpt_store_header_add(out, &entry) : st;
}

/* The list of tensors. */
static dpt_status synthetic_read(const char *list, const json_t *root, dpt_store_header *out) {
    const json_t *seed = json_object_get(root, "seed"), *tensors = json_object_get(root, "tensors");
    const char *format = json_string_value(json_object_get(root, "format"));
    double delta = 0.0;
    if (format == NULL || strcmp(format, DPT_SYNTHETIC_FORMAT) != 0 ||
        json_integer_value(json_object_get(root, "version")) != VERSION)
        return synthetic_bad(list, "format and version",
                             "they are not " DPT_SYNTHETIC_FORMAT " and 1");
    if (!json_is_integer(seed) || json_integer_value(seed) < 0)
        return synthetic_bad(list, "seed", "give an integer from 0");
    if (!synthetic_number(json_object_get(root, "delta"), 0.0, &delta))
        return synthetic_bad(list, "delta", "give a number from 0");
    if (!json_is_object(tensors))
        return synthetic_bad(list, "tensors", "give an object of tensors");
    dpt_store_made all = {
        .made = true, .seed = (uint64_t)json_integer_value(seed), .step = (float)delta};
    const char *name;
    json_t *said;
    dpt_status st = DPT_OK;
    out->file_bytes[0] = 0;
    json_object_foreach((json_t *)(uintptr_t)tensors, name, said) {
        if (st == DPT_OK)
            st = synthetic_add(list, name, said, &all, out);
    }
    return st;
}

static dpt_status synthetic_parse(const char *path, int64_t limit, char **text, json_t **root) {
    json_error_t error;
    dpt_status st = dpt_store_path_read_text(path, limit, text);
    if (st != DPT_OK)
        return st;
    *root = *text != NULL ? json_loads(*text, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (*text != NULL && !json_is_object(*root))
        st = dpt_error(DPT_ERR_INPUT, "%s: no JSON object (line %d): write it again", path,
                       *root == NULL ? error.line : 1);
    return st;
}

static dpt_status synthetic_scan(const char *path, dpt_store_header *out) {
    char *list = dpt_path_join(path, DPT_SYNTHETIC_FILE), *text = NULL;
    char *config = dpt_path_join(path, "config.json");
    json_t *root = NULL, *shape = NULL;
    dpt_status st = list != NULL && config != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = synthetic_parse(list, LIST_LIMIT, &text, &root);
    if (st == DPT_OK)
        st = synthetic_parse(config, CONFIG_LIMIT, &out->config, &shape);
    if (st == DPT_OK)
        st = dpt_store_header_add_file(out, list, 0);
    if (st == DPT_OK)
        st = synthetic_read(list, root, out);
    if (st == DPT_OK)
        st = dpt_store_companions_list(path, out);
    json_decref(root);
    json_decref(shape);
    dpt_mem_free(text);
    dpt_mem_free(list);
    dpt_mem_free(config);
    return st;
}

const dpt_store_driver dpt_store_synthetic_driver = {
    .format = DPT_STORE_SYNTHETIC, .name = "synthetic", .endings = {NULL}, .scan = synthetic_scan};

static json_t *synthetic_pack(const dpt_synthetic_model *model) {
    json_t *tensors = json_object();
    for (int t = 0; t < model->catalog->count; t++) {
        const dpt_tensor_info *info = &model->catalog->tensors[t];
        json_t *shape = json_array();
        for (int i = 0; i < info->ndim; i++)
            json_array_append_new(shape, json_integer(info->shape[i]));
        json_object_set_new(tensors, info->name,
                            json_pack("{s:s, s:o, s:f, s:f}", "dtype", dpt_dtype_name(info->dtype),
                                      "shape", shape, "mean", model->values[t].mean, "deviation",
                                      model->values[t].deviation));
    }
    return json_pack("{s:s, s:i, s:I, s:f, s:o}", "format", DPT_SYNTHETIC_FORMAT, "version",
                     (int)VERSION, "seed", (json_int_t)model->seed, "delta", model->delta,
                     "tensors", tensors);
}

static dpt_status synthetic_put(const char *folder, const char *name, const char *text) {
    char *path = dpt_path_join(folder, name);
    dpt_status st = path != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && dpt_path_exists(path))
        st = dpt_error(DPT_ERR_OUTPUT, "%s: is there already: give another folder", path);
    if (st == DPT_OK)
        st = dpt_file_write(path, text, (int64_t)strlen(text));
    dpt_mem_free(path);
    return st;
}

dpt_status dpt_synthetic_write(const char *folder, const dpt_synthetic_model *model) {
    json_t *all = synthetic_pack(model);
    char *text = all != NULL ? json_dumps(all, JSON_INDENT(1)) : NULL;
    json_decref(all);
    if (text == NULL)
        return dpt_error(DPT_ERR_OUTPUT, "%s: " DPT_MEM_REMEDY, folder);
    dpt_status st = dpt_owned_check_place(folder);
    if (st == DPT_OK && mkdir(folder, 0777) != 0 && errno != EEXIST)
        st = dpt_store_path_write_failed(folder);
    if (st == DPT_OK)
        st = synthetic_put(folder, "config.json", model->config);
    if (st == DPT_OK)
        st = synthetic_put(folder, DPT_SYNTHETIC_FILE, text);
    free(text);
    return st;
}

#include "deltapath/verbs/inspect.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/store/store.h"
#include "deltapath/tensor/part.h"
#include "head.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { QUANTISED_TEXT = 96 };

static int64_t inspect_bytes_of(const dpt_tensor_info *info) {
    return info->numel * dpt_dtype_size(info->dtype);
}

static const char *format_name(const dpt_store *store) {
    return dpt_store_format_name(dpt_store_get_format(store));
}

/* Keys of a configuration that say what the model is, in the order of printing. */
static const char *const config_keys[] = {"architectures",
                                          "model_type",
                                          "hidden_size",
                                          "num_hidden_layers",
                                          "num_attention_heads",
                                          "num_key_value_heads",
                                          "intermediate_size",
                                          "vocab_size",
                                          "tie_word_embeddings",
                                          "torch_dtype",
                                          "dtype"};

static void print_config(FILE *out, const dpt_store *store) {
    const char *text = dpt_store_config(store);
    json_t *root = text != NULL ? json_loads(text, 0, NULL) : NULL;
    if (root == NULL)
        fprintf(out, "%-20s none\n", "config");
    for (size_t i = 0; i < sizeof config_keys / sizeof config_keys[0]; i++) {
        json_t *value = json_object_get(root, config_keys[i]);
        char *shown = value != NULL ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
        if (shown != NULL)
            fprintf(out, "%-20s %s\n", config_keys[i], shown);
        free(shown);
    }
    json_decref(root);
}

static void print_companions(FILE *out, const dpt_store *store) {
    for (int i = 0; i < dpt_store_companion_count(store); i++) {
        int64_t bytes = 0;
        const char *name = dpt_store_companion_at(store, i, &bytes);
        fprintf(out, "%-20s %s, %" PRId64 " bytes\n", i == 0 ? "companion files" : "", name, bytes);
    }
}

/* What lies in the files otherwise than the table says. */
static void inspect_print_quantised(FILE *out, const dpt_store *store) {
    const dpt_catalog *catalog = dpt_store_catalog(store);
    char text[QUANTISED_TEXT];
    int64_t bytes = 0, total = 0;
    int count = 0;
    for (int t = 0; t < catalog->count; t++) {
        count += dpt_store_quantised(store, t, text, sizeof text, &bytes);
        total += bytes;
    }
    if (count > 0)
        fprintf(out, "%-20s %d tensors, %" PRId64 " bytes in the files; read as plain ones\n",
                "quantised", count, total);
}

static int inspect_widest_name(const dpt_catalog *catalog) {
    size_t widest = 4;
    for (int t = 0; t < catalog->count; t++) {
        size_t n = strlen(catalog->tensors[t].name);
        widest = n > widest ? n : widest;
    }
    return (int)(widest < 100 ? widest : 100);
}

static void inspect_print_table(FILE *out, const dpt_store *store) {
    const dpt_catalog *catalog = dpt_store_catalog(store);
    int width = inspect_widest_name(catalog);
    int64_t elements[DPT_DTYPE_COUNT] = {0};
    int64_t bytes[DPT_DTYPE_COUNT] = {0};
    fprintf(out, "%-20s %s (%s)\n", "model", dpt_store_path(store), format_name(store));
    if (dpt_store_base(store) != NULL)
        fprintf(out, "%-20s %s\n", "base", dpt_store_base(store));
    print_config(out, store);
    print_companions(out, store);
    inspect_print_quantised(out, store);
    fprintf(out, "\n%-*s %-8s %-8s %-20s %15s %15s\n", width, "name", "module", "dtype", "shape",
            "elements", "bytes");
    for (int t = 0; t < catalog->count; t++) {
        const dpt_tensor_info *info = &catalog->tensors[t];
        char shape[128];
        dpt_catalog_shape_text(info, shape, sizeof shape);
        char form[QUANTISED_TEXT];
        int64_t stored = 0;
        bool quantised = dpt_store_quantised(store, t, form, sizeof form, &stored);
        fprintf(out, "%-*s %-8s %-8s %-20s %15" PRId64 " %15" PRId64 "%s%s\n", width, info->name,
                dpt_role_module(info), dpt_dtype_name(info->dtype), shape, info->numel,
                inspect_bytes_of(info), quantised ? "  " : "", form);
        elements[info->dtype] += info->numel;
        bytes[info->dtype] += inspect_bytes_of(info);
    }
    fprintf(out, "\n");
    for (int d = 0; d < DPT_DTYPE_COUNT; d++)
        if (bytes[d] > 0)
            fprintf(out, "%-*s %-8s %-8s %-20s %15" PRId64 " %15" PRId64 "\n", width, "total", "",
                    dpt_dtype_name((dpt_dtype)d), "", elements[d], bytes[d]);
    fprintf(out, "%-*s %-8s %-8d %-20s %15" PRId64 " %15" PRId64 "\n", width, "all tensors", "",
            catalog->count, "", dpt_catalog_elements(catalog), dpt_catalog_bytes(catalog));
}

/* Names of the matrices that a tensor holds together. */
static json_t *inspect_matrices(const dpt_parts *parts, int t) {
    json_t *names = json_array();
    for (int p = parts->first[t]; p < parts->first[t + 1]; p++) {
        char label[DPT_PART_LABEL];
        dpt_part_label(parts, p, label);
        json_array_append_new(names, json_string(label));
    }
    return names;
}

static json_t *tensor_json(const dpt_store *store, const dpt_parts *parts, int t) {
    dpt_role role = dpt_role_of(dpt_store_catalog(store)->tensors[t].name);
    const dpt_tensor_info *info = &dpt_store_catalog(store)->tensors[t];
    json_t *shape = json_array();
    for (int i = 0; i < info->ndim; i++)
        json_array_append_new(shape, json_integer((json_int_t)info->shape[i]));
    json_t *one = json_pack("{s:s, s:i, s:s, s:s, s:o, s:I, s:I}", "name", info->name, "layer",
                            role.layer, "module", dpt_role_module(info), "dtype",
                            dpt_dtype_name(info->dtype), "shape", shape, "elements",
                            (json_int_t)info->numel, "bytes", (json_int_t)inspect_bytes_of(info));
    if (one != NULL && parts->first[t + 1] - parts->first[t] > 1)
        json_object_set_new(one, "matrices", inspect_matrices(parts, t));
    char form[QUANTISED_TEXT];
    int64_t stored = 0;
    if (one != NULL && dpt_store_quantised(store, t, form, sizeof form, &stored)) {
        json_object_set_new(one, "quantised", json_string(form));
        json_object_set_new(one, "stored_bytes", json_integer((json_int_t)stored));
    }
    uint64_t hash = 0;
    if (one != NULL && dpt_store_stored_hash(store, t, &hash)) {
        char digits[17];
        snprintf(digits, sizeof digits, "%016" PRIx64, hash);
        json_object_set_new(one, "xxh3", json_string(digits));
    }
    return one;
}

static void inspect_set_text(json_t *root, const char *key, const char *text) {
    json_t *value = text != NULL ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    if (text != NULL && value == NULL)
        value = json_string(text);
    json_object_set_new(root, key, value != NULL ? value : json_null());
}

static dpt_status inspect_print_json(FILE *out, const dpt_store *store) {
    const dpt_catalog *catalog = dpt_store_catalog(store);
    dpt_parts parts;
    if (dpt_parts_create(catalog, dpt_store_heads(store), &parts) != DPT_OK)
        return DPT_ERR_OUTPUT;
    json_t *root = json_object();
    json_t *tensors = json_array();
    char digits[17];
    snprintf(digits, sizeof digits, "%016" PRIx64, dpt_store_fingerprint(store));
    json_object_set_new(root, "path", json_string(dpt_store_path(store)));
    json_object_set_new(root, "format", json_string(format_name(store)));
    if (dpt_store_base(store) != NULL)
        json_object_set_new(root, "base", json_string(dpt_store_base(store)));
    json_object_set_new(root, "fingerprint", json_string(digits));
    json_object_set_new(root, "elements", json_integer(dpt_catalog_elements(catalog)));
    json_object_set_new(root, "bytes", json_integer(dpt_catalog_bytes(catalog)));
    for (int t = 0; t < catalog->count; t++)
        json_array_append_new(tensors, tensor_json(store, &parts, t));
    json_object_set_new(root, "tensors", tensors);
    dpt_parts_destroy(&parts);
    inspect_set_text(root, "config", dpt_store_config(store));
    inspect_set_text(root, "metadata", dpt_store_metadata(store));
    inspect_set_text(root, "provenance", dpt_store_provenance(store));
    char *text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (text == NULL)
        return dpt_error(DPT_ERR_OUTPUT, "%s: no memory left for the JSON text: " DPT_MEM_REMEDY,
                         dpt_store_path(store));
    fprintf(out, "%s\n", text);
    free(text);
    return DPT_OK;
}

dpt_status dpt_inspect_run(const dpt_comm *comm, const dpt_inspect_options *options) {
    DPT_ASSERT_SAME_TEXT(comm, options->model);
    DPT_ASSERT_SAME_TEXT(comm, options->base);
    DPT_ASSERT_SAME(comm, options->json);
    dpt_store *store = NULL;
    dpt_status st = dpt_store_open_on(comm, options->model, options->base, &store);
    if (st != DPT_OK)
        return st;
    FILE *out = options->out != NULL ? options->out : stdout;
    st = dpt_agree(comm, dpt_verbs_check_head(store));
    bool prints = st == DPT_OK && comm->rank == 0;
    if (prints && options->json)
        st = inspect_print_json(out, store);
    else if (prints)
        inspect_print_table(out, store);
    if (prints && (fflush(out) != 0 || ferror(out)) && st == DPT_OK)
        st = dpt_error(DPT_ERR_OUTPUT, "standard output cannot be written");
    st = dpt_agree(comm, st);
    dpt_store_close(store);
    return st;
}

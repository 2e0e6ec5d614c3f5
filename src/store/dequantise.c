#include "dequantise.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Which tensors of a header are quantised, and what stands in the catalog in their place. */

enum { NAME_BYTES = 1024, MX_VALUES = 32, MX_BYTES = MX_VALUES / 2, BLOCK_SIDE = 128 };

/* What config.json says of it. */
typedef struct quantisation {
    const dpt_store_header *header;
    json_t *root;
    dpt_dtype dtype;  /* of the model that was quantised */
    bool in_blocks;   /* scales may be one a block of `block` */
    int64_t block[2]; /* rows, columns; 0: not said rightly */
    bool found;       /* a tensor is quantised */
    bool *hidden;     /* (entries of the header) scales that the catalog leaves out */
} quantisation;

/* A tensor of the catalog in the making; the name is borrowed from the header but for its length. */
typedef struct shown {
    const char *name;
    size_t length;
    dpt_dtype dtype;
    int ndim;
    int64_t shape[DPT_NDIM_MAX];
    dpt_store_form form;
} shown;

static const char *dequantise_file(const dpt_store_header *header, int64_t entry) {
    return header->files[header->entries[entry].file];
}

/* "weight_block_size" of a finegrained checkpoint, "block_structure" of compressed-tensors: two sides, or null. */
static void dequantise_read_block(const json_t *value, quantisation *q) {
    if (value == NULL || json_is_null(value)) {
        q->in_blocks = false;
        return;
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *side = json_array_get(value, i);
        bool sound = json_array_size(value) == 2 && json_is_integer(side);
        q->block[i] = sound && json_integer_value(side) > 0 ? json_integer_value(side) : 0;
    }
}

static void dequantise_read_config(quantisation *q) {
    static const char *const types[] = {"dtype", "torch_dtype"};
    const char *config = q->header->config;
    q->root = config != NULL ? json_loads(config, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const json_t *own = json_object_get(q->root, "quantization_config");
    const json_t *block = json_object_get(own, "weight_block_size");
    q->dtype = DPT_BF16;
    for (int i = 1; i >= 0; i--) {
        const char *name = json_string_value(json_object_get(q->root, types[i]));
        dpt_dtype dtype;
        if (name != NULL && dpt_dtype_parse(name, &dtype) && dpt_dtype_editable(dtype))
            q->dtype = dtype;
    }
    q->in_blocks = true;
    q->block[0] = q->block[1] = BLOCK_SIDE;
    const char *group;
    json_t *value;
    json_object_foreach(json_object_get(own, "config_groups"), group, value) {
        const json_t *weights = json_object_get(value, "weights");
        if (json_object_get(weights, "block_structure") != NULL)
            block = json_object_get(weights, "block_structure");
    }
    /* Without the key the blocks are transformers' own. */
    if (block != NULL)
        dequantise_read_block(block, q);
}

/* Entry of the name that begins as an entry's and ends with `suffix` in place of its last `cut` letters; -1. */
static int64_t dequantise_find(const quantisation *q, const char *name, size_t cut,
                               const char *suffix) {
    char other[NAME_BYTES];
    size_t n = strlen(name);
    int length = snprintf(other, sizeof other, "%.*s%s", (int)(n - cut), name, suffix);
    return n < NAME_BYTES && length < NAME_BYTES ? dpt_store_header_find(q->header, other) : -1;
}

static int64_t dequantise_numel(const dpt_store_entry *entry) {
    return entry->bytes / dpt_dtype_size(entry->dtype);
}

static void dequantise_shape_text(const dpt_store_entry *entry, char *out, int size) {
    dpt_tensor_info info = {.ndim = entry->ndim};
    memcpy(info.shape, entry->shape, sizeof info.shape);
    dpt_catalog_shape_text(&info, out, size);
}

static dpt_status dequantise_misfit(const quantisation *q, int64_t values, int64_t scales,
                                    const char *want) {
    char own[128], other[128];
    dequantise_shape_text(&q->header->entries[values], own, sizeof own);
    dequantise_shape_text(&q->header->entries[scales], other, sizeof other);
    return dpt_error(DPT_ERR_INPUT,
                     "%s: tensor %.300s is %s %s, which does not fit %.300s of %s: it needs %s: "
                     "copy the model again",
                     dequantise_file(q->header, scales), q->header->entries[scales].name,
                     dpt_dtype_name(q->header->entries[scales].dtype), other,
                     q->header->entries[values].name, own, want);
}

/* One scale for each block of the matrices that `entry` holds: the sides before the last two are equal. */
static bool dequantise_grid_fits(const dpt_store_entry *entry, const dpt_store_entry *scales,
                                 int64_t block_rows, int64_t block_cols) {
    int n = entry->ndim;
    if (n < 2 || scales->ndim != n)
        return false;
    for (int i = 0; i < n - 2; i++)
        if (scales->shape[i] != entry->shape[i])
            return false;
    int64_t rows = entry->shape[n - 2], cols = entry->shape[n - 1];
    return scales->shape[n - 2] == rows / block_rows + (rows % block_rows != 0) &&
           scales->shape[n - 1] == cols / block_cols + (cols % block_cols != 0);
}

/* A scale for the tensor, for each matrix of it, for each row, or for each block. */
static dpt_status dequantise_place_scales(const quantisation *q, dpt_store_form *form) {
    const dpt_store_entry *entry = &q->header->entries[form->entry];
    const dpt_store_entry *scales = &q->header->entries[form->scales];
    int64_t numel = dequantise_numel(entry);
    int n = entry->ndim;
    form->rows = n >= 2 ? entry->shape[n - 2] : 1;
    form->cols = n >= 1 ? entry->shape[n - 1] : 1;
    form->block_rows = 1;
    form->block_cols = form->cols;
    if (dequantise_numel(scales) == 1 && scales->ndim <= n) {
        form->rows = 1;
        form->block_cols = form->cols = numel;
        return DPT_OK;
    }
    bool rows = n == 2 && scales->ndim == 1 && scales->shape[0] == form->rows;
    if (form->cols > 0 && (rows || dequantise_grid_fits(entry, scales, 1, form->cols)))
        return DPT_OK;
    form->block_rows = form->rows;
    if (numel > 0 && dequantise_grid_fits(entry, scales, form->rows, form->cols))
        return DPT_OK;
    if (q->in_blocks && (q->block[0] == 0 || q->block[1] == 0))
        return dpt_error(DPT_ERR_INPUT,
                         "%s: weight_block_size of quantization_config in config.json is not two "
                         "sides of at least 1: correct it",
                         dequantise_file(q->header, form->entry));
    form->block_rows = q->block[0];
    form->block_cols = q->block[1];
    if (q->in_blocks && dequantise_grid_fits(entry, scales, form->block_rows, form->block_cols))
        return DPT_OK;
    char want[160] = "one scale, or one for each row";
    if (q->in_blocks)
        snprintf(want, sizeof want,
                 "one scale, one for each row, or one for each block of %" PRId64 " x %" PRId64
                 " (quantization_config.weight_block_size)",
                 q->block[0], q->block[1]);
    return dequantise_misfit(q, form->entry, form->scales, want);
}

/* Entry of the scales that belong to one of 8 bits; -1. What i8 with `_scale_inv` means is another form. */
static int64_t dequantise_find_scales(const quantisation *q, const dpt_store_entry *entry) {
    bool f8 = entry->dtype == DPT_F8_E4M3 || entry->dtype == DPT_F8_E5M2;
    if (!f8 && entry->dtype != DPT_I8)
        return -1;
    int64_t scales = f8 ? dequantise_find(q, entry->name, 0, "_scale_inv") : -1;
    bool inverse = scales >= 0;
    if (!inverse)
        scales = dequantise_find(q, entry->name, 0, "_scale");
    if (scales < 0 || dequantise_find(q, entry->name, 0, "_zero_point") >= 0)
        return -1;
    dpt_dtype dtype = q->header->entries[scales].dtype;
    return dpt_dtype_editable(dtype) || (inverse && dtype == DPT_U8) ? scales : -1;
}

/* Scales and zero points by which kernels round inputs, outputs and cached keys and values are no weights. */
static void dequantise_hide_others(quantisation *q) {
    static const char *const others[] = {"input_scale",       "output_scale",  "activation_scale",
                                         ".k_scale",          ".v_scale",      "input_zero_point",
                                         "output_zero_point", ".k_zero_point", ".v_zero_point"};
    for (int64_t i = 0; i < q->header->count && q->found; i++) {
        const dpt_store_entry *entry = &q->header->entries[i];
        for (size_t k = 0; k < sizeof others / sizeof others[0]; k++)
            if (dequantise_numel(entry) == 1 && dpt_path_ends_with(entry->name, others[k]))
                q->hidden[i] = true;
    }
}

static dpt_status dequantise_scaled(quantisation *q, int64_t i, int64_t scales, shown *out) {
    out->form = (dpt_store_form){.kind = DPT_STORE_SCALED, .entry = i, .scales = scales};
    out->dtype = q->dtype;
    q->found = q->hidden[scales] = true;
    return dequantise_place_scales(q, &out->form);
}

/* X_blocks [E, rows, G, 16] and X_scales [E, rows, G] are X [E, 32 G, rows]. */
static dpt_status dequantise_mxfp4(quantisation *q, int64_t i, int64_t scales, shown *out) {
    const dpt_store_entry *entry = &q->header->entries[i];
    const dpt_store_entry *other = &q->header->entries[scales];
    bool fits = entry->ndim == 4 && entry->shape[3] == MX_BYTES && other->ndim == 3 &&
                other->dtype == DPT_U8 && entry->shape[2] <= INT64_MAX / MX_VALUES;
    for (int d = 0; d < 3; d++)
        fits = fits && entry->shape[d] == other->shape[d];
    if (!fits)
        return dequantise_misfit(q, i, scales,
                                 "bytes, [experts, rows, groups] of blocks of U8 [experts, rows, "
                                 "groups, 16]");
    if (dequantise_find(q, entry->name, strlen("_blocks"), "") >= 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: tensor %.300s is there without _blocks too: remove one of the two",
                         dequantise_file(q->header, i), entry->name);
    out->length = strlen(entry->name) - strlen("_blocks");
    out->dtype = q->dtype;
    out->ndim = 3;
    out->shape[1] = entry->shape[2] * MX_VALUES;
    out->shape[2] = entry->shape[1];
    out->form = (dpt_store_form){.kind = DPT_STORE_MXFP4,
                                 .entry = i,
                                 .scales = scales,
                                 .rows = out->shape[2],
                                 .cols = out->shape[1],
                                 .block_rows = 1,
                                 .block_cols = MX_VALUES};
    q->found = q->hidden[scales] = true;
    return DPT_OK;
}

static dpt_status dequantise_show(quantisation *q, int64_t i, shown *out) {
    const dpt_store_entry *entry = &q->header->entries[i];
    *out = (shown){.name = entry->name,
                   .length = strlen(entry->name),
                   .dtype = entry->dtype,
                   .ndim = entry->ndim,
                   .form = {.entry = i, .scales = -1}};
    memcpy(out->shape, entry->shape, sizeof out->shape);
    int64_t scales = dequantise_find_scales(q, entry);
    if (scales >= 0)
        return dequantise_scaled(q, i, scales, out);
    if (entry->dtype != DPT_U8 || !dpt_path_ends_with(entry->name, "_blocks"))
        return DPT_OK;
    scales = dequantise_find(q, entry->name, strlen("_blocks"), "_scales");
    return scales >= 0 ? dequantise_mxfp4(q, i, scales, out) : DPT_OK;
}

static dpt_status dequantise_name(const shown *tensor, char **name) {
    *name = dpt_mem_format("%.*s", (int)tensor->length, tensor->name);
    return *name != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static dpt_status dequantise_add(const shown *tensor, dpt_catalog *catalog) {
    char *name;
    dpt_status st = dequantise_name(tensor, &name);
    if (st == DPT_OK)
        st = dpt_catalog_add(catalog, name, tensor->dtype, tensor->ndim, tensor->shape);
    dpt_mem_free(name);
    return st;
}

/* To the place that its name has in the sorted catalog. */
static dpt_status dequantise_place(const shown *tensor, const dpt_catalog *catalog,
                                   dpt_store_form *forms) {
    char *name;
    dpt_status st = dequantise_name(tensor, &name);
    if (st == DPT_OK)
        forms[dpt_catalog_find(catalog, name)] = tensor->form;
    dpt_mem_free(name);
    return st;
}

/* all (entries): what stands for each in the catalog. */
static dpt_status dequantise_fill(quantisation *q, shown *all, dpt_catalog *catalog,
                                  dpt_store_form *forms) {
    int64_t count = q->header->count;
    dpt_status st = DPT_OK;
    for (int64_t i = 0; i < count && st == DPT_OK; i++)
        st = dequantise_show(q, i, &all[i]);
    dequantise_hide_others(q);
    for (int64_t i = 0; i < count && st == DPT_OK; i++)
        if (!q->hidden[i])
            st = dequantise_add(&all[i], catalog);
    if (st == DPT_OK)
        st = dpt_catalog_sort(catalog);
    for (int64_t i = 0; i < count && st == DPT_OK; i++)
        if (!q->hidden[i])
            st = dequantise_place(&all[i], catalog, forms);
    return st;
}

/* The key means a quantised model to all that read it. */
static dpt_status dequantise_config(const quantisation *q, char **config) {
    if (!q->found || json_object_get(q->root, "quantization_config") == NULL)
        return DPT_OK;
    *config = dpt_store_config_without(q->header->config, "quantization_config");
    return *config != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

dpt_status dpt_store_dequantise(const dpt_store_header *header, dpt_catalog *catalog,
                                dpt_store_form **forms, char **config) {
    quantisation q = {.header = header};
    shown *all = dpt_mem_alloc(header->count, sizeof *all, "tensors of a model");
    q.hidden = dpt_mem_zalloc(header->count, sizeof *q.hidden, "tensors of a model");
    *forms = dpt_mem_alloc(header->count, sizeof **forms, "tensors of a model");
    *config = NULL;
    dpt_status st = all != NULL && q.hidden != NULL && *forms != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    dequantise_read_config(&q);
    if (st == DPT_OK)
        st = dequantise_fill(&q, all, catalog, *forms);
    if (st == DPT_OK)
        st = dequantise_config(&q, config);
    json_decref(q.root);
    dpt_mem_free(q.hidden);
    dpt_mem_free(all);
    return st;
}

dpt_status dpt_store_show_stored(const dpt_store_header *header, dpt_catalog *catalog,
                                 dpt_store_form **forms) {
    *forms = dpt_mem_alloc(header->count, sizeof **forms, "tensors of a model");
    dpt_status st = *forms != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < header->count && st == DPT_OK; i++) {
        const dpt_store_entry *entry = &header->entries[i]; /* sorted by name */
        (*forms)[i] = (dpt_store_form){.entry = i, .scales = -1};
        st = dpt_catalog_add(catalog, entry->name, entry->dtype, entry->ndim, entry->shape);
    }
    return st;
}

bool dpt_store_form_text(const dpt_store_header *header, const dpt_store_form *form, char *text,
                         int size, int64_t *bytes) {
    text[0] = '\0';
    *bytes = 0;
    if (form->kind == DPT_STORE_PLAIN)
        return false;
    const dpt_store_entry *entry = &header->entries[form->entry];
    const dpt_store_entry *scales = &header->entries[form->scales];
    bool turned = form->kind == DPT_STORE_MXFP4;
    const char *type = turned ? "MXFP4" : dpt_dtype_name(entry->dtype);
    if (dequantise_numel(scales) == 1)
        snprintf(text, (size_t)size, "%s with a scale (%s)", type, dpt_dtype_name(scales->dtype));
    else
        snprintf(text, (size_t)size, "%s with scales (%s) of %" PRId64 " x %" PRId64, type,
                 dpt_dtype_name(scales->dtype), turned ? form->block_cols : form->block_rows,
                 turned ? form->block_rows : form->block_cols);
    *bytes = entry->bytes + scales->bytes;
    return true;
}

void dpt_store_say_forms(const dpt_store *store) {
    const dpt_catalog *catalog = dpt_store_catalog(store);
    char text[96], first[96] = "";
    int64_t bytes;
    int count = 0;
    const char *type = "";
    for (int t = 0; t < catalog->count; t++) {
        if (!dpt_store_quantised(store, t, text, sizeof text, &bytes) || count++ > 0)
            continue;
        memcpy(first, text, sizeof first);
        type = dpt_dtype_name(catalog->tensors[t].dtype);
    }
    if (count > 0)
        dpt_log(DPT_LOG_INFO, "%s: %d tensors are quantised (%s) and read as %s",
                dpt_store_path(store), count, first, type);
}

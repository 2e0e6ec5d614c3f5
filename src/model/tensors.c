#include "deltapath/model/tensors.h"

#include "deltapath/base/mem.h"
#include "transformer.h"

#include <math.h>
#include <string.h>

/* What a configuration alone says of the tensors of its model. */

static const double VECTOR_DEVIATION = 0.02;

typedef struct tensors_list {
    const dpt_arch *arch;
    dpt_dtype dtype;
    dpt_catalog *catalog;
    dpt_spread *starts; /* (of the catalog, before it is sorted) */
    int capacity;
    dpt_tensor_info open; /* the tensor of the rows that were seen last; no name: none */
    dpt_spread start;
    char name[160];
} tensors_list;

static bool tensors_is_norm(int slot) {
    switch (slot) {
    case DPT_SLOT_EMBED_NORM:
    case DPT_SLOT_NORM1:
    case DPT_SLOT_Q_NORM:
    case DPT_SLOT_K_NORM:
    case DPT_SLOT_OUT_NORM1:
    case DPT_SLOT_SCALE1:
    case DPT_SLOT_NORM2:
    case DPT_SLOT_OUT_NORM2:
    case DPT_SLOT_SCALE2:
    case DPT_SLOT_FINAL_NORM:
    case DPT_SLOT_POOL_NORM:
        return true;
    default:
        return false;
    }
}

static dpt_spread tensors_start(const dpt_arch *arch, const dpt_row *row) {
    double inputs = row->cols != DPT_AXIS_NONE ? (double)arch->length[row->cols] : 0.0;
    bool looked_up = row->slot == DPT_SLOT_TOKENS || row->slot == DPT_SLOT_POSITION;
    bool unit = arch->norm == DPT_NORM_RMS_UNIT; /* factors are 1 + w */
    dpt_spread start = {.deviation = VECTOR_DEVIATION};
    if (inputs > 0.0 && !looked_up)
        start.deviation = 1.0 / sqrt(inputs);
    start.mean = tensors_is_norm(row->slot) && !unit ? 1.0 : 0.0;
    return start;
}

/* The tensor of the last rows is complete. */
static dpt_status tensors_close(tensors_list *list) {
    dpt_catalog *catalog = list->catalog;
    if (list->name[0] == '\0')
        return DPT_OK;
    if (catalog->count == list->capacity) {
        int capacity = 2 * list->capacity + 64;
        dpt_spread *starts =
            dpt_mem_realloc(list->starts, capacity, sizeof *starts, "list of tensors");
        if (starts == NULL)
            return DPT_ERR_OUTPUT;
        list->starts = starts;
        list->capacity = capacity;
    }
    list->starts[catalog->count] = list->start;
    dpt_status st =
        dpt_catalog_add(catalog, list->name, list->dtype, list->open.ndim, list->open.shape);
    list->name[0] = '\0';
    return st;
}

/* One matrix: a tensor of its own, or rows of the tensor that the one before is in. */
static dpt_status tensors_add(tensors_list *list, const dpt_row *row, int64_t layer,
                              int64_t expert) {
    const dpt_arch *arch = list->arch;
    char name[sizeof list->name];
    dpt_arch_name(arch, row, layer, expert, name, sizeof name);
    dpt_tensor_info shape = dpt_slice_shape(arch, row);
    bool stacked = row->part == DPT_ROLE_Q || row->part == DPT_ROLE_K || row->part == DPT_ROLE_V ||
                   row->part == DPT_ROLE_GATE || row->part == DPT_ROLE_UP;
    if (row->part != 0 &&
        (row->expert || !stacked || strstr(name, "c_attn") != NULL || strstr(name, "c_fc") != NULL))
        return dpt_error(DPT_ERR_INPUT,
                         "config.json: tensor %s holds matrices as transposes or of all experts, "
                         "whose shape config.json does not give: take another architecture",
                         name);
    for (int i = 0; i < shape.ndim; i++)
        if (shape.shape[i] <= 0)
            return dpt_error(DPT_ERR_INPUT,
                             "config.json: it does not give the sides of tensor %s: add the keys "
                             "that do, as with --set",
                             name);
    if (strcmp(name, list->name) == 0) {
        list->open.shape[0] += shape.shape[0];
        return DPT_OK;
    }
    dpt_status st = tensors_close(list);
    list->open = shape;
    list->start = tensors_start(arch, row);
    memcpy(list->name, name, sizeof name);
    return st;
}

static dpt_status tensors_collect(tensors_list *list) {
    const dpt_arch *arch = list->arch;
    dpt_status st = DPT_OK;
    for (int64_t layer = -1; layer < arch->layers && st == DPT_OK; layer++)
        for (int slot = 0; slot < DPT_SLOTS && st == DPT_OK; slot++) {
            const dpt_row *row = arch->row[slot];
            bool here = row != NULL && dpt_slot_is_of_layer(slot) == (layer >= 0);
            int64_t copies = here ? dpt_arch_copies(arch, row) : 0;
            for (int64_t expert = 0; expert < copies && st == DPT_OK; expert++)
                st = tensors_add(list, row, layer, expert);
        }
    return st == DPT_OK ? tensors_close(list) : st;
}

/* Sort the catalog, and the starts with it. */
static dpt_status tensors_sort(tensors_list *list, dpt_spread **out) {
    dpt_catalog sorted;
    dpt_status st = dpt_catalog_copy(list->catalog, &sorted);
    if (st == DPT_OK)
        st = dpt_catalog_sort(&sorted);
    *out = st == DPT_OK ? dpt_mem_alloc(sorted.count, sizeof **out, "list of tensors") : NULL;
    if (st == DPT_OK && *out == NULL)
        st = DPT_ERR_OUTPUT;
    for (int t = 0; st == DPT_OK && t < list->catalog->count; t++)
        (*out)[dpt_catalog_find(&sorted, list->catalog->tensors[t].name)] = list->starts[t];
    dpt_catalog_destroy(list->catalog);
    *list->catalog = sorted;
    return st;
}

dpt_status dpt_model_list_tensors(const char *config, dpt_dtype dtype, dpt_catalog *catalog,
                                  dpt_spread **starts) {
    json_t *root = NULL;
    dpt_arch arch = {.window = NULL};
    tensors_list list = {.arch = &arch, .dtype = dtype, .catalog = catalog};
    dpt_catalog_init(catalog);
    *starts = NULL;
    dpt_status st = dpt_config_parse(config, &root);
    if (st == DPT_OK) {
        dpt_config_take_text(&root);
        st = dpt_arch_read(root, catalog, &arch);
    }
    if (st == DPT_OK)
        st = tensors_collect(&list);
    if (st == DPT_OK)
        st = tensors_sort(&list, starts);
    if (st != DPT_OK)
        dpt_catalog_destroy(catalog);
    dpt_mem_free(list.starts);
    dpt_arch_destroy(&arch);
    json_decref(root);
    return st;
}

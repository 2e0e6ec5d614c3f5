#ifndef DELTAPATH_TESTS_GOLDEN_MODEL_H
#define DELTAPATH_TESTS_GOLDEN_MODEL_H

/* A golden file of tools/reference/llama_golden.py or families_golden.py in memory, and sources over whole
 * tensors. Every rank reads the file for itself. Failures are cmocka assertions. */
#include "deltapath/base/mem.h"
#include "deltapath/model/batch.h"
#include "deltapath/tensor/catalog.h"
#include "deltapath/tensor/field.h"

#include <dirent.h>
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

/* Whole tensors in memory as a source; values may be stored in any editable type. */
typedef struct memory_model {
    dpt_catalog catalog;
    void **values; /* (catalog.count) */
    int fetches;   /* calls of fetch */
    bool together; /* a fetch waits for all ranks of the world */
} memory_model;

typedef struct golden_model {
    char *config;
    memory_model post, edited; /* W_post and W_post + E, float32 */
    memory_model edit, grad;   /* E and the gradient */
    int64_t samples, tokens;
    int32_t *token;
    uint8_t *mask;
    int64_t *offsets;
    double *loss, *loss_edit;
    double *terms; /* (samples, catalog.count), columns in catalog order */
} golden_model;

static inline dpt_status memory_read(void *ctx, dpt_range range, void *out) {
    memory_model *m = ctx;
    int64_t size = dpt_dtype_size(m->catalog.tensors[range.tensor].dtype);
    memcpy(out, (char *)m->values[range.tensor] + range.ig * size, (size_t)(range.n * size));
    return DPT_OK;
}

static inline dpt_status memory_fetch(void *ctx, int64_t count, const dpt_block *wants,
                                      void *const *outs) {
    memory_model *m = ctx;
    m->fetches++;
    if (m->together)
        MPI_Barrier(MPI_COMM_WORLD);
    for (int64_t i = 0; i < count; i++) {
        int64_t size = dpt_dtype_size(m->catalog.tensors[wants[i].tensor].dtype);
        for (int64_t r = 0; r < wants[i].rows; r++)
            memcpy((char *)outs[i] + r * wants[i].cols * size,
                   (char *)m->values[wants[i].tensor] + (wants[i].ig + r * wants[i].stride) * size,
                   (size_t)(wants[i].cols * size));
    }
    return DPT_OK;
}

static inline dpt_source memory_source(memory_model *m) {
    return (dpt_source){.ctx = m,
                        .catalog = &m->catalog,
                        .independent = !m->together,
                        .read = memory_read,
                        .fetch = memory_fetch};
}

/* Room for every tensor of m->catalog. */
static inline void memory_allocate(memory_model *m) {
    m->values = calloc((size_t)m->catalog.count + 1, sizeof *m->values);
    for (int i = 0; i < m->catalog.count; i++) {
        const dpt_tensor_info *info = &m->catalog.tensors[i];
        m->values[i] = malloc((size_t)(info->numel * dpt_dtype_size(info->dtype)) + 1);
    }
}

static inline void memory_free(memory_model *m) {
    for (int i = 0; m->values != NULL && i < m->catalog.count; i++)
        free(m->values[i]);
    free(m->values);
    dpt_catalog_destroy(&m->catalog);
    *m = (memory_model){.fetches = 0};
}

/* The same model with its values rounded to another type. */
static inline memory_model memory_convert(const memory_model *from, dpt_dtype dtype) {
    memory_model to = {.fetches = 0};
    assert_int_equal(dpt_catalog_copy(&from->catalog, &to.catalog), DPT_OK);
    for (int i = 0; i < to.catalog.count; i++)
        to.catalog.tensors[i].dtype = dtype;
    memory_allocate(&to);
    for (int i = 0; i < to.catalog.count; i++)
        dpt_dtype_from_f32(dtype, from->values[i], to.values[i], to.catalog.tensors[i].numel);
    return to;
}

static inline void *golden_dataset(hid_t file, const char *name, hid_t type, size_t size) {
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    assert_true(set >= 0);
    hid_t space = H5Dget_space(set);
    size_t n = (size_t)H5Sget_simple_extent_npoints(space);
    void *values = malloc(n * size + 1);
    assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    return values;
}

static inline herr_t golden_add_tensor(hid_t group, const char *name, const H5L_info_t *info,
                                       void *ctx) {
    (void)info;
    hid_t set = H5Dopen2(group, name, H5P_DEFAULT);
    hid_t space = H5Dget_space(set);
    hsize_t shape[DPT_NDIM_MAX];
    int64_t sides[DPT_NDIM_MAX];
    int ndim = H5Sget_simple_extent_dims(space, shape, NULL);
    for (int i = 0; i < ndim; i++)
        sides[i] = (int64_t)shape[i];
    H5Sclose(space);
    H5Dclose(set);
    return dpt_catalog_add(ctx, name, DPT_F32, ndim, sides) == DPT_OK ? 0 : -1;
}

static inline void golden_group(hid_t file, const char *group, memory_model *m) {
    *m = (memory_model){.fetches = 0};
    dpt_catalog_init(&m->catalog);
    hid_t g = H5Gopen2(file, group, H5P_DEFAULT);
    assert_true(g >= 0);
    assert_true(H5Literate(g, H5_INDEX_NAME, H5_ITER_INC, NULL, golden_add_tensor, &m->catalog) >=
                0);
    assert_int_equal(dpt_catalog_sort(&m->catalog), DPT_OK);
    m->values = calloc((size_t)m->catalog.count + 1, sizeof *m->values);
    for (int i = 0; i < m->catalog.count; i++)
        m->values[i] = golden_dataset(g, m->catalog.tensors[i].name, H5T_NATIVE_FLOAT, 4);
    H5Gclose(g);
}

static inline char *golden_config(hid_t file) {
    hid_t attr = H5Aopen(file, "config", H5P_DEFAULT);
    hid_t type = H5Aget_type(attr);
    size_t size = H5Tget_size(type);
    char *text = calloc(size + 1, 1);
    assert_true(H5Aread(attr, type, text) >= 0);
    H5Tclose(type);
    H5Aclose(attr);
    return text;
}

/* terms are stored in the order of term_names: put the columns into catalog order. */
static inline void golden_terms(hid_t file, golden_model *g) {
    double *stored = golden_dataset(file, "terms", H5T_NATIVE_DOUBLE, 8);
    hid_t set = H5Dopen2(file, "term_names", H5P_DEFAULT);
    hid_t type = H5Dget_type(set);
    size_t width = H5Tget_size(type);
    int count = g->post.catalog.count;
    char *names = calloc((size_t)count + 1, width);
    assert_true(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, names) >= 0);
    H5Tclose(type);
    H5Dclose(set);
    g->terms = calloc((size_t)(g->samples * count), sizeof *g->terms);
    for (int k = 0; k < count; k++) {
        char name[256] = "";
        memcpy(name, names + (size_t)k * width, width < 255 ? width : 255);
        int i = dpt_catalog_find(&g->post.catalog, name);
        assert_true(i >= 0);
        for (int64_t s = 0; s < g->samples; s++)
            g->terms[s * count + i] = stored[s * count + k];
    }
    free(names);
    free(stored);
}

/* Open tests/golden/<folder>/<name>.h5 and read what every kind of model has: configuration, tensors,
 * an edit of them and the gradient. */
static inline hid_t golden_open(const char *folder, const char *name, golden_model *g) {
    char path[256];
    snprintf(path, sizeof path, "tests/golden/%s/%s.h5", folder, name);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0); /* run from the root of the repository */
    g->config = golden_config(file);
    golden_group(file, "tensors", &g->post);
    golden_group(file, "edit", &g->edit);
    golden_group(file, "grad", &g->grad);
    golden_group(file, "tensors", &g->edited);
    for (int i = 0; i < g->post.catalog.count; i++)
        for (int64_t j = 0; j < g->post.catalog.tensors[i].numel; j++)
            ((float *)g->edited.values[i])[j] += ((float *)g->edit.values[i])[j];
    return file;
}

/* name: a case of the folder llama, or "<folder>/<case>". */
static inline void golden_load(const char *name, golden_model *g) {
    char folder[64] = "llama";
    const char *slash = strchr(name, '/');
    if (slash != NULL)
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - name), name);
    hid_t file = golden_open(folder, slash != NULL ? slash + 1 : name, g);
    g->token = golden_dataset(file, "tokens", H5T_NATIVE_INT32, 4);
    g->mask = golden_dataset(file, "loss_mask", H5T_NATIVE_UINT8, 1);
    g->offsets = golden_dataset(file, "offsets", H5T_NATIVE_INT64, 8);
    g->loss = golden_dataset(file, "loss", H5T_NATIVE_DOUBLE, 8);
    g->loss_edit = golden_dataset(file, "loss_edit", H5T_NATIVE_DOUBLE, 8);
    hid_t set = H5Dopen2(file, "loss", H5P_DEFAULT);
    hid_t space = H5Dget_space(set);
    g->samples = H5Sget_simple_extent_npoints(space);
    g->tokens = g->offsets[g->samples];
    H5Sclose(space);
    H5Dclose(set);
    golden_terms(file, g);
    H5Fclose(file);
}

static inline void golden_free(golden_model *g) {
    free(g->config);
    memory_free(&g->post);
    memory_free(&g->edited);
    memory_free(&g->edit);
    memory_free(&g->grad);
    free(g->token);
    free(g->mask);
    free(g->offsets);
    free(g->loss);
    free(g->loss_edit);
    free(g->terms);
}

static inline dpt_batch golden_batch(const golden_model *g) {
    return (dpt_batch){
        .sequences = g->samples, .first = g->offsets, .tokens = g->token, .mask = g->mask};
}

static inline int64_t golden_scored(const golden_model *g, int64_t s) {
    int64_t n = 0;
    for (int64_t i = g->offsets[s] + 1; i < g->offsets[s + 1]; i++)
        n += g->mask[i] != 0;
    return n;
}

/* d loss / d nll of every token: of each sample's own loss times `share`. */
static inline double *golden_weights(const golden_model *g, double share) {
    double *weight = calloc((size_t)g->tokens, sizeof *weight);
    for (int64_t s = 0; s < g->samples; s++)
        for (int64_t i = g->offsets[s]; i < g->offsets[s + 1]; i++)
            weight[i] = share / (double)golden_scored(g, s);
    return weight;
}

/* Names for golden_load of all files in some folders of tests/golden. */
typedef struct golden_names {
    int count;
    char **names;
} golden_names;

static inline int golden_is_file(const struct dirent *entry) {
    size_t n = strlen(entry->d_name);
    return n > 3 && strcmp(entry->d_name + n - 3, ".h5") == 0;
}

static inline void golden_list(const char *const *folders, size_t count, golden_names *out) {
    *out = (golden_names){.count = 0};
    for (size_t i = 0; i < count; i++) {
        char path[256];
        struct dirent **entries = NULL;
        snprintf(path, sizeof path, "tests/golden/%s", folders[i]);
        int n = scandir(path, &entries, golden_is_file, alphasort);
        assert_true(n > 0);
        out->names = realloc(out->names, (size_t)(out->count + n) * sizeof *out->names);
        for (int k = 0; k < n; k++) {
            size_t size = strlen(folders[i]) + strlen(entries[k]->d_name);
            char *name = malloc(size + 2);
            snprintf(name, size + 2, "%s/%s", folders[i], entries[k]->d_name);
            name[size + 1 - strlen(".h5")] = '\0';
            out->names[out->count++] = name;
            free(entries[k]);
        }
        free(entries);
    }
}

static inline void golden_list_free(golden_names *names) {
    for (int i = 0; i < names->count; i++)
        free(names->names[i]);
    free(names->names);
}

#endif

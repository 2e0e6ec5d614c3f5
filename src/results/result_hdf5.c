#include "result_fields.h"

#include "deltapath/base/mem.h"
#include "deltapath/hdf5/hdf5_plain.h"

#include <string.h>

/* A record in a group: texts, sizes and scalars as attributes; arrays as datasets; parameters as two
 * tables of texts; spectra end to end with their tensors and lengths; `checksum` over all of it. */

static bool put_parameters(hid_t group, const dpt_result *r) {
    int64_t n = r->nparameters;
    const char **texts = dpt_mem_alloc(n, sizeof *texts, "parameters");
    if (texts == NULL)
        return false;
    for (int64_t i = 0; i < n; i++)
        texts[i] = r->parameters[i].name;
    bool ok = dpt_h5_put_texts(group, "parameter_names", texts, n);
    for (int64_t i = 0; i < n; i++)
        texts[i] = r->parameters[i].value;
    ok = ok && dpt_h5_put_texts(group, "parameter_values", texts, n);
    dpt_mem_free(texts);
    return ok;
}

static bool put_spectra(hid_t group, const dpt_result *r) {
    int64_t n = r->nspectra;
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++)
        total += r->spectra[i].count;
    int64_t *tensors = dpt_mem_alloc(n, sizeof *tensors, "spectra");
    int64_t *counts = dpt_mem_alloc(n, sizeof *counts, "spectra");
    double *values = dpt_mem_alloc(total, sizeof *values, "spectra");
    bool ok = tensors != NULL && counts != NULL && values != NULL;
    int64_t at = 0;
    for (int64_t i = 0; ok && i < n; i++) {
        tensors[i] = r->spectra[i].tensor;
        counts[i] = r->spectra[i].count;
        memcpy(values + at, r->spectra[i].values, (size_t)counts[i] * sizeof *values);
        at += counts[i];
    }
    ok = ok && dpt_h5_put_array(group, "spectra_tensor", H5T_NATIVE_INT64, 1, &n, tensors) &&
         dpt_h5_put_array(group, "spectra_count", H5T_NATIVE_INT64, 1, &n, counts) &&
         dpt_h5_put_array(group, "spectra_values", H5T_NATIVE_DOUBLE, 1, &total, values);
    dpt_mem_free(tensors);
    dpt_mem_free(counts);
    dpt_mem_free(values);
    return ok;
}

static const char *const *tensor_columns(const char *names[DPT_RESULT_STATS]) {
    for (int i = 0; i < DPT_RESULT_STATS; i++)
        names[i] = dpt_result_tensor_columns[i].name;
    return names;
}

static bool put_stats(hid_t group, const dpt_result *r) {
    const int64_t sides[2] = {r->tensors, DPT_RESULT_STATS};
    const char *names[DPT_RESULT_STATS];
    return dpt_h5_put_array(group, "tensor_stats", H5T_NATIVE_DOUBLE, 2, sides, r->stats) &&
           dpt_h5_put_texts(group, "tensor_stats_columns", tensor_columns(names), DPT_RESULT_STATS);
}

bool dpt_result_put(int64_t group, const dpt_result *r) {
    bool ok = true;
    for (int f = 0; f < DPT_RESULT_TEXTS; f++)
        ok = ok && dpt_h5_put_string(group, dpt_result_text_fields[f].column.name,
                                     dpt_result_string(r, f));
    ok = ok && dpt_h5_put_i64(group, "tensors", r->tensors) &&
         dpt_h5_put_i64(group, "samples", r->samples) &&
         dpt_h5_put_i64(group, "points", r->points) &&
         dpt_h5_put_i64(group, "ngroups", r->ngroups) &&
         dpt_h5_put_i64(group, "nvalues", r->nvalues) &&
         dpt_h5_put_i64(group, "nproof", r->nproof) &&
         dpt_h5_put_i64(group, "nmatrices", r->nmatrices);
    const double *scalars = (const double *)&r->scalars;
    for (int i = 0; i < DPT_RESULT_SCALARS; i++)
        ok = ok && dpt_h5_put_f64(group, dpt_result_scalar_columns[i].name, scalars[i]);
    for (int f = 0; f < DPT_RESULT_ARRAYS; f++) {
        int64_t sides[2];
        int ndim = dpt_result_array_sides(r, f, sides);
        ok = ok && dpt_h5_put_array(group, dpt_result_array_fields[f].column.name,
                                    H5T_NATIVE_DOUBLE, ndim, sides, dpt_result_array(r, f));
    }
    return ok && put_parameters(group, r) && put_stats(group, r) && put_spectra(group, r) &&
           dpt_h5_put_u64(group, "checksum", dpt_result_hash(r));
}

static bool get_sizes(hid_t group, dpt_result *out) {
    *out = (dpt_result){.tensors = 0};
    return dpt_h5_get_i64(group, "tensors", &out->tensors) &&
           dpt_h5_get_i64(group, "points", &out->points) &&
           dpt_h5_get_i64(group, "samples", &out->samples) &&
           dpt_h5_get_i64(group, "ngroups", &out->ngroups) &&
           dpt_h5_get_i64(group, "nvalues", &out->nvalues) &&
           dpt_h5_get_i64(group, "nproof", &out->nproof) &&
           dpt_h5_get_i64(group, "nmatrices", &out->nmatrices);
}

/* Sizes come from the file: they are used only as far as the file can hold what they promise. */
static bool plausible(const dpt_result *sizes, int64_t file_bytes) {
    int64_t maximum = file_bytes / (int64_t)sizeof(double);
    bool fits = true;
    for (int f = 0; f < DPT_RESULT_ARRAYS; f++) {
        int64_t sides[2];
        dpt_result_array_sides(sizes, f, sides);
        fits = fits && sides[0] >= 0 && sides[1] >= 0 && sides[0] <= maximum &&
               sides[1] <= maximum && (sides[1] == 0 || sides[0] <= maximum / sides[1]);
    }
    return fits;
}

static bool get_parameters(hid_t group, dpt_result *r) {
    char **names = NULL;
    char **values = NULL;
    int64_t n = 0;
    int64_t m = 0;
    bool ok = dpt_h5_get_texts(group, "parameter_names", &names, &n) &&
              dpt_h5_get_texts(group, "parameter_values", &values, &m) && n == m;
    for (int64_t i = 0; ok && i < n; i++)
        ok = dpt_result_add_parameter(r, names[i], values[i]) == DPT_OK;
    for (int64_t i = 0; names != NULL && i < n; i++)
        dpt_mem_free(names[i]);
    for (int64_t i = 0; values != NULL && i < m; i++)
        dpt_mem_free(values[i]);
    dpt_mem_free(names);
    dpt_mem_free(values);
    return ok;
}

static bool cut_spectra(dpt_result *r, int64_t n, const int64_t *tensors, const int64_t *counts,
                        int64_t total, const double *values) {
    r->spectra = dpt_mem_zalloc(n, sizeof *r->spectra, "spectra");
    bool ok = r->spectra != NULL;
    int64_t at = 0;
    for (int64_t i = 0; ok && i < n; i++) {
        ok =
            counts[i] >= 0 && counts[i] <= total - at && tensors[i] >= 0 && tensors[i] < r->tensors;
        double *own = ok ? dpt_mem_alloc(counts[i], sizeof *own, "spectra") : NULL;
        ok = own != NULL;
        if (!ok)
            break;
        memcpy(own, values + at, (size_t)counts[i] * sizeof *own);
        at += counts[i];
        r->spectra[r->nspectra++] =
            (dpt_result_spectrum){.tensor = tensors[i], .count = counts[i], .values = own};
    }
    return ok && at == total;
}

static bool get_spectra(hid_t group, int64_t file_bytes, dpt_result *r) {
    int64_t n, counted, total;
    int64_t maximum = file_bytes / (int64_t)sizeof(double);
    if (!dpt_h5_length(group, "spectra_tensor", &n) ||
        !dpt_h5_length(group, "spectra_count", &counted) ||
        !dpt_h5_length(group, "spectra_values", &total) || n != counted || n > maximum ||
        total > maximum)
        return false;
    int64_t *tensors = dpt_mem_alloc(n, sizeof *tensors, "spectra");
    int64_t *counts = dpt_mem_alloc(n, sizeof *counts, "spectra");
    double *values = dpt_mem_alloc(total, sizeof *values, "spectra");
    bool ok = tensors != NULL && counts != NULL && values != NULL &&
              dpt_h5_get_array(group, "spectra_tensor", H5T_NATIVE_INT64, 1, &n, tensors) &&
              dpt_h5_get_array(group, "spectra_count", H5T_NATIVE_INT64, 1, &n, counts) &&
              dpt_h5_get_array(group, "spectra_values", H5T_NATIVE_DOUBLE, 1, &total, values) &&
              cut_spectra(r, n, tensors, counts, total, values);
    dpt_mem_free(tensors);
    dpt_mem_free(counts);
    dpt_mem_free(values);
    return ok;
}

static bool get_numbers(hid_t group, dpt_result *r) {
    bool ok = true;
    double *scalars = (double *)&r->scalars;
    for (int i = 0; i < DPT_RESULT_SCALARS; i++)
        ok = ok && dpt_h5_get_f64(group, dpt_result_scalar_columns[i].name, &scalars[i]);
    for (int f = 0; f < DPT_RESULT_ARRAYS; f++) {
        int64_t sides[2];
        int ndim = dpt_result_array_sides(r, f, sides);
        ok = ok && dpt_h5_get_array(group, dpt_result_array_fields[f].column.name,
                                    H5T_NATIVE_DOUBLE, ndim, sides, dpt_result_array(r, f));
    }
    const int64_t sides[2] = {r->tensors, DPT_RESULT_STATS};
    return ok && dpt_h5_get_array(group, "tensor_stats", H5T_NATIVE_DOUBLE, 2, sides, r->stats);
}

bool dpt_result_has_names(int64_t group, const char *table, const char *const *names, int count) {
    char **found = NULL;
    int64_t n = 0;
    bool ok = dpt_h5_get_texts(group, table, &found, &n) && n == count;
    for (int64_t i = 0; ok && i < n; i++)
        ok = strcmp(found[i], names[i]) == 0;
    for (int64_t i = 0; found != NULL && i < n; i++)
        dpt_mem_free(found[i]);
    dpt_mem_free(found);
    return ok;
}

static herr_t count_attribute(hid_t group, const char *name, const H5A_info_t *info, void *count) {
    (void)group;
    (void)name;
    (void)info;
    ++*(int *)count;
    return 0;
}

/* What is empty is not written. */
static bool has_arrays(hid_t group) {
    static const char *const tables[] = {
        "parameter_names", "parameter_values", "tensor_stats",  "tensor_stats_columns",
        "spectra_tensor",  "spectra_count",    "spectra_values"};
    dpt_result sizes;
    hsize_t known = 0;
    H5G_info_t links;
    bool ok = get_sizes(group, &sizes) && H5Gget_info(group, &links) >= 0;
    for (int f = 0; ok && f < DPT_RESULT_ARRAYS; f++) {
        int64_t sides[2];
        int ndim = dpt_result_array_sides(&sizes, f, sides);
        bool there = H5Lexists(group, dpt_result_array_fields[f].column.name, H5P_DEFAULT) > 0;
        ok = there == (sides[0] != 0 && (ndim == 1 || sides[1] != 0));
        known += there;
    }
    for (size_t i = 0; ok && i < sizeof tables / sizeof *tables; i++)
        known += H5Lexists(group, tables[i], H5P_DEFAULT) > 0;
    return ok && links.nlinks == known;
}

bool dpt_result_has_columns(int64_t group, int others) {
    enum { SIZES = 7, CHECKSUM = 1 };
    int n = 0;
    const char *names[DPT_RESULT_STATS];
    bool ok = H5Aiterate2(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, count_attribute, &n) >= 0 &&
              n == DPT_RESULT_TEXTS + DPT_RESULT_SCALARS + SIZES + CHECKSUM + others;
    for (int f = 0; ok && f < DPT_RESULT_TEXTS; f++)
        ok = H5Aexists(group, dpt_result_text_fields[f].column.name) > 0;
    for (int i = 0; ok && i < DPT_RESULT_SCALARS; i++)
        ok = H5Aexists(group, dpt_result_scalar_columns[i].name) > 0;
    return ok && has_arrays(group) &&
           dpt_result_has_names(group, "tensor_stats_columns", tensor_columns(names),
                                DPT_RESULT_STATS);
}

bool dpt_result_get(int64_t group, int64_t file_bytes, dpt_result *r) {
    dpt_result sizes;
    uint64_t checksum = 0;
    *r = (dpt_result){.tensors = 0};
    if (!get_sizes(group, &sizes) || !dpt_h5_get_u64(group, "checksum", &checksum) ||
        !plausible(&sizes, file_bytes) ||
        dpt_result_create(sizes.tensors, sizes.points, sizes.samples, r) != DPT_OK)
        return false;
    bool ok =
        dpt_result_resize(r, sizes.ngroups, sizes.nvalues, sizes.nproof, sizes.nmatrices) == DPT_OK;
    for (int f = 0; f < DPT_RESULT_TEXTS; f++)
        ok = ok && dpt_h5_get_string(group, dpt_result_text_fields[f].column.name,
                                     dpt_result_text_at(r, f));
    ok = ok && get_parameters(group, r) && get_numbers(group, r) &&
         get_spectra(group, file_bytes, r) && dpt_result_hash(r) == checksum;
    if (!ok)
        dpt_result_destroy(r);
    return ok;
}

#include "result_fields.h"

#include "deltapath/base/mem.h"
#include "deltapath/hdf5/hdf5_plain.h"

#include <string.h>

/* A record in a group: texts, sizes and scalars as attributes; arrays as datasets; parameters as two
 * tables of texts; spectra end to end with their matrices and lengths; `checksum` over all of it. */

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

/* The spectra as the arrays of a file. */
typedef struct spectra {
    int64_t n, total; /* spectra, values of all */
    int64_t *tensor, *count;
    double *residual, *values, *error;
    const char **part; /* when they are written */
} spectra;

static bool make_spectra(int64_t n, int64_t total, spectra *out) {
    *out = (spectra){.n = n, .total = total};
    out->tensor = dpt_mem_alloc(n, sizeof *out->tensor, "spectra");
    out->count = dpt_mem_alloc(n, sizeof *out->count, "spectra");
    out->residual = dpt_mem_alloc(n, sizeof *out->residual, "spectra");
    out->values = dpt_mem_alloc(total, sizeof *out->values, "spectra");
    out->error = dpt_mem_alloc(total, sizeof *out->error, "spectra");
    out->part = dpt_mem_alloc(n, sizeof *out->part, "spectra");
    return out->tensor != NULL && out->count != NULL && out->residual != NULL &&
           out->values != NULL && out->error != NULL && out->part != NULL;
}

static void free_spectra(spectra *all) {
    dpt_mem_free(all->tensor);
    dpt_mem_free(all->count);
    dpt_mem_free(all->residual);
    dpt_mem_free(all->values);
    dpt_mem_free(all->error);
    dpt_mem_free(all->part);
}

static bool put_spectra(hid_t group, const dpt_result *r) {
    spectra all;
    int64_t n = r->nspectra, total = 0, at = 0;
    for (int64_t i = 0; i < n; i++)
        total += r->spectra[i].count;
    bool ok = make_spectra(n, total, &all);
    for (int64_t i = 0; ok && i < n; i++) {
        const dpt_result_spectrum *from = &r->spectra[i];
        all.tensor[i] = from->tensor;
        all.part[i] = from->part;
        all.residual[i] = from->residual;
        all.count[i] = from->count;
        memcpy(all.values + at, from->values, (size_t)from->count * sizeof *all.values);
        memcpy(all.error + at, from->error, (size_t)from->count * sizeof *all.error);
        at += from->count;
    }
    ok = ok && dpt_h5_put_array(group, "spectra_tensor", H5T_NATIVE_INT64, 1, &n, all.tensor) &&
         dpt_h5_put_texts(group, "spectra_part", all.part, n) &&
         dpt_h5_put_array(group, "spectra_residual", H5T_NATIVE_DOUBLE, 1, &n, all.residual) &&
         dpt_h5_put_array(group, "spectra_count", H5T_NATIVE_INT64, 1, &n, all.count) &&
         dpt_h5_put_array(group, "spectra_values", H5T_NATIVE_DOUBLE, 1, &total, all.values) &&
         dpt_h5_put_array(group, "spectra_error", H5T_NATIVE_DOUBLE, 1, &total, all.error);
    free_spectra(&all);
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

static bool cut_spectra(dpt_result *r, const spectra *all, char *const *parts) {
    bool ok = true;
    int64_t at = 0;
    for (int64_t i = 0; ok && i < all->n; i++) {
        dpt_result_spectrum one = {
            .tensor = all->tensor[i], .residual = all->residual[i], .count = all->count[i]};
        ok = one.count >= 0 && one.count <= all->total - at && one.tensor >= 0 &&
             one.tensor < r->tensors && strlen(parts[i]) < sizeof one.part;
        if (!ok)
            break;
        strcpy(one.part, parts[i]);
        one.values = all->values + at;
        one.error = all->error + at;
        ok = dpt_result_add_spectrum(r, &one) == DPT_OK;
        at += one.count;
    }
    return ok && at == all->total;
}

static bool get_spectra(hid_t group, int64_t file_bytes, dpt_result *r) {
    int64_t n, counted, total, errors, named = 0, maximum = file_bytes / (int64_t)sizeof(double);
    spectra all;
    char **parts = NULL;
    if (!dpt_h5_length(group, "spectra_tensor", &n) ||
        !dpt_h5_length(group, "spectra_count", &counted) ||
        !dpt_h5_length(group, "spectra_values", &total) ||
        !dpt_h5_length(group, "spectra_error", &errors) || total != errors || n != counted ||
        n > maximum || total > maximum)
        return false;
    bool ok = make_spectra(n, total, &all) &&
              dpt_h5_get_array(group, "spectra_tensor", H5T_NATIVE_INT64, 1, &n, all.tensor) &&
              dpt_h5_get_array(group, "spectra_count", H5T_NATIVE_INT64, 1, &n, all.count) &&
              dpt_h5_get_array(group, "spectra_residual", H5T_NATIVE_DOUBLE, 1, &n, all.residual) &&
              dpt_h5_get_array(group, "spectra_values", H5T_NATIVE_DOUBLE, 1, &total, all.values) &&
              dpt_h5_get_array(group, "spectra_error", H5T_NATIVE_DOUBLE, 1, &total, all.error) &&
              dpt_h5_get_texts(group, "spectra_part", &parts, &named) && named == n &&
              cut_spectra(r, &all, parts);
    for (int64_t i = 0; parts != NULL && i < named; i++)
        dpt_mem_free(parts[i]);
    dpt_mem_free(parts);
    free_spectra(&all);
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
        "parameter_names", "parameter_values", "tensor_stats",     "tensor_stats_columns",
        "spectra_tensor",  "spectra_part",     "spectra_residual", "spectra_count",
        "spectra_values",  "spectra_error"};
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
    /* Of another version are spectra without errors. */
    ok = ok && (H5Lexists(group, "spectra_values", H5P_DEFAULT) > 0) ==
                   (H5Lexists(group, "spectra_error", H5P_DEFAULT) > 0);
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

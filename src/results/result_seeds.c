#include "result_seeds.h"

#include "result_fields.h"

#include "deltapath/base/mem.h"
#include "deltapath/hdf5/hdf5_plain.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    PER_SPREAD = sizeof(dpt_result_spread) / sizeof(double),
    CROSSED = 1 + DPT_RESULT_SPREADS * PER_SPREAD, /* the first of these columns */
    COLUMNS = CROSSED + DPT_RESULT_CROSSED
};

#define SPREAD_COLUMNS(name, scalar, meaning)                                                      \
#name "_mean", #name "_sd", #name "_low", #name "_high",
#define CROSSED_COLUMN(field, unit, meaning) #field,
static const char *const columns[COLUMNS] = {
    "seeds", DPT_RESULT_SEEDS_COLUMNS(SPREAD_COLUMNS) DPT_RESULT_CROSSED_COLUMNS(CROSSED_COLUMN)};

#define SPREAD_OFFSET(name, scalar, meaning) offsetof(dpt_result_seeds, name),
static const size_t spread_offsets[DPT_RESULT_SPREADS] = {DPT_RESULT_SEEDS_COLUMNS(SPREAD_OFFSET)};

#define CROSSED_OFFSET(field, unit, meaning) offsetof(dpt_result_seeds, field),
static const size_t crossed_offsets[DPT_RESULT_CROSSED] = {
    DPT_RESULT_CROSSED_COLUMNS(CROSSED_OFFSET)};

static void seeds_to_row(const dpt_result_seeds *s, double row[COLUMNS]) {
    row[0] = (double)s->count;
    for (int k = 0; k < DPT_RESULT_SPREADS; k++)
        memcpy(row + 1 + k * PER_SPREAD, (const char *)s + spread_offsets[k],
               sizeof(dpt_result_spread));
    for (int k = 0; k < DPT_RESULT_CROSSED; k++)
        memcpy(row + CROSSED + k, (const char *)s + crossed_offsets[k], sizeof(double));
}

static void seeds_from_row(const double row[COLUMNS], dpt_result_seeds *s) {
    s->count = row[0] >= 0.0 && row[0] < 1e15 ? (int64_t)row[0] : 0;
    for (int k = 0; k < DPT_RESULT_SPREADS; k++)
        memcpy((char *)s + spread_offsets[k], row + 1 + k * PER_SPREAD, sizeof(dpt_result_spread));
    for (int k = 0; k < DPT_RESULT_CROSSED; k++)
        memcpy((char *)s + crossed_offsets[k], row + CROSSED + k, sizeof(double));
}

void dpt_result_seeds_destroy(dpt_result_seeds *seeds) {
    dpt_mem_free(seeds->edit);
    dpt_mem_free(seeds->data);
    *seeds = (dpt_result_seeds){.count = 0};
}

bool dpt_result_seeds_put(int64_t file, const dpt_results_study *study) {
    int64_t n = study->nseeds;
    if (n == 0)
        return true;
    hid_t group = H5Gcreate2(file, "seeds", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    const char **edits = dpt_mem_alloc(n, sizeof *edits, "seeds");
    const char **data = dpt_mem_alloc(n, sizeof *data, "seeds");
    double(*rows)[COLUMNS] = dpt_mem_alloc(n, sizeof *rows, "seeds");
    bool ok = group >= 0 && edits != NULL && data != NULL && rows != NULL;
    for (int64_t i = 0; ok && i < n; i++) {
        edits[i] = study->seeds[i].edit;
        data[i] = study->seeds[i].data;
        seeds_to_row(&study->seeds[i], rows[i]);
    }
    const int64_t sides[2] = {n, COLUMNS};
    ok = ok && dpt_h5_put_texts(group, "edits", edits, n) &&
         dpt_h5_put_texts(group, "data", data, n) &&
         dpt_h5_put_array(group, "table", H5T_NATIVE_DOUBLE, 2, sides, rows) &&
         dpt_h5_put_texts(group, "columns", columns, COLUMNS);
    dpt_mem_free(rows);
    dpt_mem_free(data);
    dpt_mem_free(edits);
    if (group >= 0)
        ok = H5Gclose(group) >= 0 && ok;
    return ok;
}

/* The texts move into the records. */
static bool take_rows(hid_t group, int64_t n, char **edits, char **data, dpt_results *out) {
    double(*rows)[COLUMNS] = dpt_mem_alloc(n, sizeof *rows, "seeds");
    out->seeds = dpt_mem_zalloc(n, sizeof *out->seeds, "seeds");
    const int64_t sides[2] = {n, COLUMNS};
    bool ok = rows != NULL && out->seeds != NULL &&
              dpt_h5_get_array(group, "table", H5T_NATIVE_DOUBLE, 2, sides, rows);
    for (int64_t i = 0; ok && i < n; i++) {
        seeds_from_row(rows[i], &out->seeds[i]);
        out->seeds[i].edit = edits[i];
        out->seeds[i].data = data[i];
        edits[i] = data[i] = NULL;
        out->nseeds++;
    }
    dpt_mem_free(rows);
    return ok;
}

bool dpt_result_seeds_has_columns(int64_t file) {
    if (H5Lexists(file, "seeds", H5P_DEFAULT) <= 0)
        return true;
    hid_t group = H5Gopen2(file, "seeds", H5P_DEFAULT);
    bool ok = group >= 0 && dpt_result_has_names(group, "columns", columns, COLUMNS);
    if (group >= 0)
        H5Gclose(group);
    return ok;
}

bool dpt_result_seeds_get(int64_t file, int64_t file_bytes, dpt_results *out) {
    if (H5Lexists(file, "seeds", H5P_DEFAULT) <= 0)
        return true;
    hid_t group = H5Gopen2(file, "seeds", H5P_DEFAULT);
    char **edits = NULL;
    char **data = NULL;
    int64_t n = 0;
    int64_t m = 0;
    bool ok = group >= 0 && dpt_h5_get_texts(group, "edits", &edits, &n) &&
              dpt_h5_get_texts(group, "data", &data, &m) && n == m &&
              n <= file_bytes / (int64_t)sizeof(double) && take_rows(group, n, edits, data, out);
    for (int64_t i = 0; edits != NULL && i < n; i++)
        dpt_mem_free(edits[i]);
    for (int64_t i = 0; data != NULL && i < m; i++)
        dpt_mem_free(data[i]);
    dpt_mem_free(edits);
    dpt_mem_free(data);
    if (group >= 0)
        H5Gclose(group);
    return ok;
}

void dpt_result_seeds_csv(FILE *file, const dpt_results_study *study) {
    fputs("edit,data", file);
    for (int k = 0; k < COLUMNS; k++)
        fprintf(file, ",%s", columns[k]);
    fputc('\n', file);
    for (int64_t i = 0; i < study->nseeds; i++) {
        double row[COLUMNS];
        seeds_to_row(&study->seeds[i], row);
        /* Names of edits and data sets are plain characters: the job file allows no others. */
        fprintf(file, "%s,%s", study->seeds[i].edit, study->seeds[i].data);
        for (int k = 0; k < COLUMNS; k++)
            if (isnan(row[k]))
                fputc(',', file);
            else
                fprintf(file, ",%.17g", row[k]);
        fputc('\n', file);
    }
}

json_t *dpt_result_seeds_json(const dpt_results_study *study) {
    json_t *list = json_array();
    for (int64_t i = 0; i < study->nseeds; i++) {
        double row[COLUMNS];
        json_t *one = json_object();
        seeds_to_row(&study->seeds[i], row);
        json_object_set_new(one, "edit", json_string(study->seeds[i].edit));
        json_object_set_new(one, "data", json_string(study->seeds[i].data));
        json_object_set_new(one, columns[0], json_integer(study->seeds[i].count));
        for (int k = 1; k < COLUMNS; k++)
            json_object_set_new(one, columns[k],
                                isfinite(row[k]) ? json_real(row[k]) : json_null());
        json_array_append_new(list, one);
    }
    return list;
}

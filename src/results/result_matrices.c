#include "result_matrices.h"

#include "deltapath/base/mem.h"
#include "deltapath/hdf5/hdf5_plain.h"

#include <hdf5.h>
#include <string.h>

static const char TABLE[] = "matrices";

void dpt_results_matrices_destroy(dpt_results_matrices *matrices) {
    for (int64_t i = 0; matrices->names != NULL && i < matrices->count; i++)
        dpt_mem_free(matrices->names[i]);
    dpt_mem_free(matrices->names);
    dpt_mem_free(matrices->tensor);
    dpt_mem_free(matrices->kind);
    *matrices = (dpt_results_matrices){.count = 0};
}

dpt_status dpt_results_matrices_create(const dpt_catalog *catalog, const dpt_parts *parts,
                                       dpt_results_matrices *out) {
    int count = dpt_parts_number(parts, NULL), *number = NULL;
    *out = (dpt_results_matrices){.count = count};
    if (count == 0)
        return DPT_OK;
    number = dpt_mem_alloc(parts->count, sizeof *number, "numbers of matrices");
    out->names = dpt_mem_zalloc(count, sizeof *out->names, "names of matrices");
    out->tensor = dpt_mem_alloc(count, sizeof *out->tensor, "tensors of matrices");
    out->kind = dpt_mem_alloc(count, sizeof *out->kind, "kinds of matrices");
    bool whole = number != NULL && out->names != NULL && out->tensor != NULL && out->kind != NULL;
    if (whole)
        dpt_parts_number(parts, number);
    for (int p = 0; whole && p < parts->count; p++) {
        if (number[p] < 0)
            continue;
        char label[DPT_PART_LABEL];
        dpt_part_label(parts, p, label);
        const dpt_part *part = &parts->items[p];
        out->tensor[number[p]] = part->tensor;
        out->kind[number[p]] = part->kind;
        out->names[number[p]] =
            dpt_mem_format("%s[%s]", catalog->tensors[part->tensor].name, label);
        whole = out->names[number[p]] != NULL;
    }
    dpt_mem_free(number);
    if (whole)
        return DPT_OK;
    dpt_results_matrices_destroy(out);
    return DPT_ERR_OUTPUT;
}

bool dpt_result_matrices_put(int64_t file, const dpt_results_matrices *matrices) {
    int64_t n = matrices->count;
    if (n == 0)
        return true;
    hid_t group = H5Gcreate2(file, TABLE, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    const char **modules = dpt_mem_alloc(n, sizeof *modules, "modules of matrices");
    bool ok = group >= 0 && modules != NULL;
    for (int64_t i = 0; ok && i < n; i++)
        modules[i] = dpt_role_name(matrices->kind[i]);
    ok = ok && dpt_h5_put_texts(group, "names", (const char *const *)matrices->names, n) &&
         dpt_h5_put_array(group, "tensor", H5T_NATIVE_INT64, 1, &n, matrices->tensor) &&
         dpt_h5_put_texts(group, "module", modules, n);
    dpt_mem_free(modules);
    if (group >= 0)
        ok = H5Gclose(group) >= 0 && ok;
    return ok;
}

static dpt_role_kind matrices_kind(const char *module) {
    int kind = 0;
    while (kind < DPT_ROLE_COUNT && strcmp(dpt_role_name((dpt_role_kind)kind), module) != 0)
        kind++;
    return (dpt_role_kind)kind;
}

static bool matrices_take_modules(char **modules, int64_t n, int64_t tensors,
                                  dpt_results_matrices *out) {
    out->kind = dpt_mem_alloc(n, sizeof *out->kind, "kinds of matrices");
    bool ok = out->kind != NULL && n == out->count;
    for (int64_t i = 0; ok && i < n; i++) {
        out->kind[i] = matrices_kind(modules[i]);
        ok = out->kind[i] < DPT_ROLE_COUNT && out->tensor[i] >= 0 && out->tensor[i] < tensors;
    }
    return ok;
}

bool dpt_result_matrices_get(int64_t file, int64_t tensors, dpt_results_matrices *out) {
    *out = (dpt_results_matrices){.count = 0};
    if (H5Lexists(file, TABLE, H5P_DEFAULT) <= 0)
        return true;
    char **modules = NULL;
    int64_t n = 0, kinds = 0;
    bool ok = dpt_h5_get_texts(file, "matrices/names", &out->names, &out->count) &&
              dpt_h5_length(file, "matrices/tensor", &n) && n == out->count;
    if (ok)
        out->tensor = dpt_mem_alloc(n, sizeof *out->tensor, "tensors of matrices");
    ok = ok && out->tensor != NULL &&
         dpt_h5_get_array(file, "matrices/tensor", H5T_NATIVE_INT64, 1, &n, out->tensor) &&
         dpt_h5_get_texts(file, "matrices/module", &modules, &kinds) &&
         matrices_take_modules(modules, kinds, tensors, out);
    for (int64_t i = 0; modules != NULL && i < kinds; i++)
        dpt_mem_free(modules[i]);
    dpt_mem_free(modules);
    if (!ok)
        dpt_results_matrices_destroy(out);
    return ok;
}

bool *dpt_results_matrices_split(const dpt_results_matrices *matrices, int64_t tensors) {
    bool *split = dpt_mem_zalloc(tensors, sizeof *split, "tensors of several matrices");
    for (int64_t i = 0; split != NULL && i < matrices->count; i++)
        split[matrices->tensor[i]] = true;
    return split;
}

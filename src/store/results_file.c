#include "deltapath/store/results.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/store/beside.h"
#include "deltapath/store/isolate.h"
#include "deltapath/store/part.h"
#include "hdf5_plain.h"
#include "result_fields.h"
#include "result_seeds.h"

#include <string.h>

/* The file of all units. `units` lists their groups in order, so that reading follows writing. */

static const char FORMAT[] = "deltapath-results";

static bool put_tensors(hid_t file, const dpt_results_study *study) {
    int64_t n = study->tensors;
    hid_t group = H5Gcreate2(file, "tensors", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    int64_t *layers = dpt_mem_alloc(n, sizeof *layers, "layers of tensors");
    const char **modules = dpt_mem_alloc(n, sizeof *modules, "modules of tensors");
    bool ok = group >= 0 && layers != NULL && modules != NULL;
    for (int64_t i = 0; ok && i < n; i++) {
        dpt_part part = dpt_part_of(study->tensor_names[i]);
        layers[i] = part.layer;
        modules[i] = dpt_part_name(part.kind);
    }
    ok = ok && dpt_h5_put_texts(group, "names", study->tensor_names, n) &&
         dpt_h5_put_array(group, "numel", H5T_NATIVE_INT64, 1, &n, study->tensor_numel) &&
         dpt_h5_put_array(group, "layer", H5T_NATIVE_INT64, 1, &n, layers) &&
         dpt_h5_put_texts(group, "module", modules, n);
    dpt_mem_free(layers);
    dpt_mem_free(modules);
    if (group >= 0)
        ok = H5Gclose(group) >= 0 && ok;
    return ok;
}

static char *group_path(const dpt_result *r) {
    char *edit = dpt_result_encode(r->edit);
    char *data = dpt_result_encode(r->data != NULL ? r->data : "");
    char *path = edit == NULL || data == NULL ? NULL : dpt_mem_format("/edits/%s/%s", edit, data);
    dpt_mem_free(edit);
    dpt_mem_free(data);
    return path;
}

static bool put_units(hid_t file, const dpt_result *results, int64_t count) {
    char **paths = dpt_mem_zalloc(count, sizeof *paths, "groups of units");
    hid_t creation = H5Pcreate(H5P_LINK_CREATE);
    bool ok = paths != NULL && creation >= 0 && H5Pset_create_intermediate_group(creation, 1) >= 0;
    for (int64_t i = 0; ok && i < count; i++) {
        paths[i] = group_path(&results[i]);
        hid_t group = paths[i] == NULL
                          ? H5I_INVALID_HID
                          : H5Gcreate2(file, paths[i], creation, H5P_DEFAULT, H5P_DEFAULT);
        ok = group >= 0 && dpt_result_put(group, &results[i]);
        if (group >= 0)
            ok = H5Gclose(group) >= 0 && ok;
    }
    ok = ok && dpt_h5_put_texts(file, "units", (const char *const *)paths, count);
    for (int64_t i = 0; paths != NULL && i < count; i++)
        dpt_mem_free(paths[i]);
    dpt_mem_free(paths);
    if (creation >= 0)
        H5Pclose(creation);
    return ok;
}

/* The newer file layout has no limit of 64 KiB on the text of an attribute. */
static bool put_file(const char *path, const dpt_results_study *study, const dpt_result *results,
                     int64_t count) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    bool ok = access >= 0 && H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST) >= 0;
    hid_t file = ok ? H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access) : H5I_INVALID_HID;
    ok = file >= 0 && dpt_h5_put_text(file, "format", FORMAT) &&
         dpt_h5_put_i64(file, "version", DPT_RESULTS_VERSION) &&
         dpt_h5_put_text(file, "name", study->name) &&
         dpt_h5_put_text(file, "provenance", study->provenance ? study->provenance : "") &&
         dpt_h5_put_text(file, "job", study->job ? study->job : "") && put_tensors(file, study) &&
         put_units(file, results, count) && dpt_result_seeds_put(file, study);
    if (file >= 0)
        ok = H5Fclose(file) >= 0 && ok;
    if (access >= 0)
        H5Pclose(access);
    return ok;
}

typedef enum output { OUTPUT_HDF5, OUTPUT_CSV, OUTPUT_JSON, OUTPUT_SEEDS, OUTPUT_COUNT } output;

static dpt_status write_output(output kind, const char *beside, const dpt_results_study *study,
                               const dpt_result *results, int64_t count) {
    if (kind == OUTPUT_CSV)
        return dpt_results_csv(beside, results, count);
    if (kind == OUTPUT_JSON)
        return dpt_results_json(beside, study, results, count);
    if (kind == OUTPUT_SEEDS)
        return dpt_result_seeds_csv(beside, study);
    bool ok = false;
    H5E_BEGIN_TRY {
        ok = put_file(beside, study, results, count);
    }
    H5E_END_TRY;
    return ok ? DPT_OK
              : dpt_error(DPT_ERR_OUTPUT, "%s: cannot be written: check disk space and rights",
                          beside);
}

static dpt_status check_units(const dpt_results_study *study, const dpt_result *results,
                              int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (results[i].edit == NULL ||
            (results[i].tensors != 0 && results[i].tensors != study->tensors))
            return dpt_error(DPT_ERR_INTERNAL, "results: unit %lld is of another study",
                             (long long)i);
    return DPT_OK;
}

dpt_status dpt_results_write(const dpt_comm *comm, const dpt_results_study *study,
                             const dpt_result *results, int64_t count) {
    static const char *const names[OUTPUT_COUNT] = {"results.h5", "summary.csv", "results.json",
                                                    "seeds.csv"};
    char *paths[OUTPUT_COUNT] = {NULL};
    bool writer = comm->rank == 0;
    dpt_status st = dpt_agree_fault("results.write");
    if (st == DPT_OK && writer)
        st = check_units(study, results, count);
    int outputs = study->nseeds > 0 ? OUTPUT_COUNT : OUTPUT_SEEDS;
    for (int k = 0; writer && st == DPT_OK && k < outputs; k++) {
        paths[k] = dpt_mem_format("%s/%s", study->directory, names[k]);
        char *beside = paths[k] == NULL ? NULL : dpt_beside_begin(paths[k]);
        st = beside == NULL ? DPT_ERR_OUTPUT
                            : write_output((output)k, beside, study, results, count);
        dpt_mem_free(beside);
    }
    st = dpt_agree(comm, st);
    for (int k = 0; k < OUTPUT_COUNT; k++) {
        if (paths[k] == NULL)
            continue;
        if (st == DPT_OK)
            st = dpt_beside_commit(paths[k]);
        else
            dpt_beside_discard(paths[k]);
        dpt_mem_free(paths[k]);
    }
    return dpt_agree(comm, st);
}

static dpt_status get_units(hid_t file, const char *path, int64_t file_bytes, dpt_results *out) {
    char **groups = NULL;
    int64_t n = 0;
    dpt_status st = DPT_OK;
    if (!dpt_h5_get_texts(file, "units", &groups, &n))
        return dpt_error(DPT_ERR_INPUT, "%s: the list of units cannot be read: run the study again",
                         path);
    out->results = dpt_mem_zalloc(n, sizeof *out->results, "units");
    if (out->results == NULL)
        st = DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < n && st == DPT_OK; i++) {
        hid_t group = H5Gopen2(file, groups[i], H5P_DEFAULT);
        dpt_result *r = &out->results[i];
        bool ok = group >= 0 && dpt_result_get(group, file_bytes, r);
        if (group >= 0)
            H5Gclose(group);
        out->count += ok;
        if (!ok || (r->tensors != 0 && r->tensors != out->tensors))
            st = dpt_error(DPT_ERR_INPUT, "%s: unit %s is corrupt: run the study again", path,
                           groups[i]);
    }
    for (int64_t i = 0; i < n; i++)
        dpt_mem_free(groups[i]);
    dpt_mem_free(groups);
    return st;
}

static dpt_status get_file(const char *path, dpt_results *out) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: cannot be opened as HDF5: give a results.h5 of `deltapath run`",
                         path);
    char *format = NULL;
    int64_t version = 0;
    hsize_t bytes = 0;
    dpt_status st = DPT_OK;
    if (!dpt_h5_get_text(file, "format", &format) || strcmp(format, FORMAT) != 0)
        st = dpt_error(DPT_ERR_INPUT, "%s: no results file: give a results.h5 of `deltapath run`",
                       path);
    else if (!dpt_h5_get_i64(file, "version", &version) || version != DPT_RESULTS_VERSION)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: version %lld where %d is known: run the study again, or "
                       "use the deltapath that wrote it",
                       path, (long long)version, DPT_RESULTS_VERSION);
    else if (!dpt_h5_get_text(file, "name", &out->name) ||
             !dpt_h5_get_text(file, "provenance", &out->provenance) ||
             !dpt_h5_get_text(file, "job", &out->job) || H5Fget_filesize(file, &bytes) < 0 ||
             !dpt_h5_get_texts(file, "tensors/names", &out->tensor_names, &out->tensors))
        st = dpt_error(DPT_ERR_INPUT, "%s: the header is corrupt: run the study again", path);
    else
        st = get_units(file, path, (int64_t)bytes, out);
    if (st == DPT_OK && !dpt_result_seeds_get(file, (int64_t)bytes, out))
        st = dpt_error(DPT_ERR_INPUT, "%s: the table over seeds is corrupt: run the study again",
                       path);
    dpt_mem_free(format);
    H5Fclose(file);
    return st;
}

static dpt_status get_quietly(const char *path, dpt_results *out) {
    dpt_status st = DPT_OK;
    H5E_BEGIN_TRY {
        st = get_file(path, out);
    }
    H5E_END_TRY;
    return st;
}

/* A trial in a child process: a damaged file that makes HDF5 crash does so there. */
static dpt_status try_file(void *ctx, char **bytes, int64_t *n) {
    dpt_results results = {.count = 0};
    (void)bytes;
    (void)n;
    return get_quietly(ctx, &results);
}

dpt_status dpt_results_read(const char *path, dpt_results *out) {
    char *bytes = NULL;
    int64_t n = 0;
    *out = (dpt_results){.count = 0};
    dpt_status st = dpt_isolate_run(path, try_file, (void *)(uintptr_t)path, &bytes, &n);
    if (st == DPT_OK)
        st = get_quietly(path, out);
    if (st != DPT_OK)
        dpt_results_destroy(out);
    return st;
}

void dpt_results_destroy(dpt_results *results) {
    dpt_mem_free(results->name);
    dpt_mem_free(results->provenance);
    dpt_mem_free(results->job);
    for (int64_t i = 0; i < results->tensors && results->tensor_names != NULL; i++)
        dpt_mem_free(results->tensor_names[i]);
    dpt_mem_free(results->tensor_names);
    for (int64_t i = 0; i < results->nseeds; i++)
        dpt_result_seeds_destroy(&results->seeds[i]);
    dpt_mem_free(results->seeds);
    for (int64_t i = 0; i < results->count; i++)
        dpt_result_destroy(&results->results[i]);
    dpt_mem_free(results->results);
    *results = (dpt_results){.count = 0};
}

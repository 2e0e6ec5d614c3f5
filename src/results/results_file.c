#include "deltapath/results/results.h"

#include "deltapath/base/guard.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/sealed.h"
#include "deltapath/comm/agree.h"
#include "deltapath/base/isolate.h"
#include "deltapath/store/manifest.h"
#include "deltapath/store/owned.h"
#include "deltapath/tensor/role.h"
#include "deltapath/hdf5/hdf5_image.h"
#include "deltapath/hdf5/hdf5_plain.h"
#include "result_matrices.h"
#include "result_fields.h"
#include "result_plane.h"
#include "result_seeds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The file of all units. `units` lists their groups in order, so that reading follows writing. */

static const char FORMAT[] = "deltapath-results";
static const int64_t RESULTS_LIMIT = INT64_C(1) << 40;

static bool put_tensors(hid_t file, const dpt_results_study *study) {
    int64_t n = study->tensors;
    hid_t group = H5Gcreate2(file, "tensors", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    int64_t *layers = dpt_mem_alloc(n, sizeof *layers, "layers of tensors");
    const char **modules = dpt_mem_alloc(n, sizeof *modules, "modules of tensors");
    bool ok = group >= 0 && layers != NULL && modules != NULL;
    for (int64_t i = 0; ok && i < n; i++) {
        dpt_role part = dpt_role_of(study->tensor_names[i]);
        layers[i] = part.layer;
        modules[i] = dpt_role_name(part.kind);
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

/* /law/<data>: the curvature of a data set, its arrays being those of a unit. Nothing without one. */
static bool put_law_of(hid_t file, hid_t creation, const dpt_result *r) {
    static const char *const arrays[] = {"curvature", "curvature_se"};
    char *data = dpt_result_encode(r->data != NULL ? r->data : ""), *unit = group_path(r);
    char *path = data != NULL ? dpt_mem_format("/law/%s", data) : NULL;
    hid_t group = path != NULL && unit != NULL
                      ? H5Gcreate2(file, path, creation, H5P_DEFAULT, H5P_DEFAULT)
                      : H5I_INVALID_HID;
    bool ok = group >= 0 && dpt_h5_put_f64(group, arrays[0], r->scalars.curvature) &&
              dpt_h5_put_f64(group, arrays[1], r->scalars.curvature_se);
    for (int i = 0; ok && i < 2; i++) {
        char *array = dpt_mem_format("%s/%s", unit, arrays[i]);
        ok = array != NULL &&
             H5Lcreate_hard(file, array, group, arrays[i], H5P_DEFAULT, H5P_DEFAULT) >= 0;
        dpt_mem_free(array);
    }
    if (group >= 0)
        ok = H5Gclose(group) >= 0 && ok;
    dpt_mem_free(path);
    dpt_mem_free(unit);
    dpt_mem_free(data);
    return ok;
}

static bool put_law(hid_t file, const dpt_result *results, int64_t count) {
    hid_t creation = H5Pcreate(H5P_LINK_CREATE);
    bool ok = creation >= 0 && H5Pset_create_intermediate_group(creation, 1) >= 0;
    for (int64_t i = 0; ok && i < count; i++)
        ok = !dpt_result_is_law(results, i) || put_law_of(file, creation, &results[i]);
    if (creation >= 0)
        H5Pclose(creation);
    return ok;
}

static char *results_image(const dpt_results_study *study, const dpt_result *results, int64_t count,
                           int64_t *n) {
    char *bytes = NULL;
    H5E_BEGIN_TRY {
        hid_t file = dpt_h5_image_create();
        bool ok =
            file >= 0 && dpt_h5_put_string(file, "format", FORMAT) &&
            dpt_h5_put_i64(file, "version", DPT_RESULTS_VERSION) &&
            dpt_h5_put_string(file, "name", study->name) &&
            dpt_h5_put_string(file, "provenance", study->provenance ? study->provenance : "") &&
            dpt_h5_put_string(file, "job", study->job ? study->job : "") &&
            put_tensors(file, study) && dpt_result_matrices_put(file, &study->matrices) &&
            put_units(file, results, count) && put_law(file, results, count) &&
            dpt_result_seeds_put(file, study) && dpt_result_plane_put(file, study);
        bytes = dpt_h5_image_take(file, ok, n);
    }
    H5E_END_TRY;
    return bytes;
}

typedef enum output {
    OUTPUT_HDF5,
    OUTPUT_CSV,
    OUTPUT_JSON,
    OUTPUT_SEEDS,
    OUTPUT_PLANE,
    OUTPUT_PROOF,
    OUTPUT_COUNT
} output;

static dpt_status print_output(output kind, FILE *file, const dpt_results_study *study,
                               const dpt_result *results, int64_t count) {
    if (kind == OUTPUT_JSON)
        return dpt_results_json(file, study, results, count);
    if (kind == OUTPUT_CSV)
        dpt_results_csv(file, results, count);
    else if (kind == OUTPUT_PLANE)
        dpt_result_plane_csv(file, study);
    else if (kind == OUTPUT_PROOF)
        dpt_result_proof_csv(file, results, count);
    else
        dpt_result_seeds_csv(file, study);
    return DPT_OK;
}

/* A text is made in memory too: what goes wrong on the disk then goes wrong in one place. */
static dpt_status put_text(output kind, const char *path, const dpt_results_study *study,
                           const dpt_result *results, int64_t count) {
    char *text = NULL;
    size_t n = 0;
    FILE *file = open_memstream(&text, &n);
    dpt_status st = file == NULL ? DPT_ERR_OUTPUT : print_output(kind, file, study, results, count);
    bool failed = file == NULL || ferror(file) != 0;
    if (file != NULL && fclose(file) != 0)
        failed = true;
    if (st == DPT_OK && failed)
        st = DPT_ERR_OUTPUT;
    const dpt_file_piece piece = {.bytes = text, .n = (int64_t)n};
    st = st == DPT_OK ? dpt_file_put(path, &piece, 1)
                      : dpt_error(st, "%s: no memory left to make it: " DPT_MEM_REMEDY, path);
    free(text);
    return st;
}

static dpt_status put_output(output kind, const char *path, const dpt_results_study *study,
                             const dpt_result *results, int64_t count) {
    static const dpt_owned_kind kinds[] = {
        [OUTPUT_HDF5] = DPT_OWNED_RESULTS, [OUTPUT_CSV] = DPT_OWNED_SUMMARY,
        [OUTPUT_JSON] = DPT_OWNED_JSON,    [OUTPUT_SEEDS] = DPT_OWNED_SEEDS,
        [OUTPUT_PLANE] = DPT_OWNED_PLANE,  [OUTPUT_PROOF] = DPT_OWNED_PROOF};
    dpt_status st = dpt_owned_check(path, kinds[kind], study->name);
    if (st != DPT_OK)
        return st;
    if (kind != OUTPUT_HDF5)
        return put_text(kind, path, study, results, count);
    int64_t n = 0;
    char *bytes = results_image(study, results, count, &n);
    st = dpt_sealed_put(path, bytes, n);
    dpt_mem_free(bytes);
    return st;
}

static dpt_status results_file_check_units(const dpt_results_study *study,
                                           const dpt_result *results, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (results[i].edit == NULL ||
            (results[i].tensors != 0 && results[i].tensors != study->tensors))
            return dpt_error(DPT_ERR_INTERNAL, "results: unit %lld is of another study",
                             (long long)i);
    return DPT_OK;
}

/* Rank 0: all outputs under their temporary names. @param[out] put  names of those that may be there.
 * @return how many. */
static int put_outputs(const dpt_results_study *study, const dpt_result *results, int64_t count,
                       const char *put[OUTPUT_COUNT], dpt_status *st) {
    static const char *const names[OUTPUT_COUNT] = {"results.h5", "summary.csv", "results.json",
                                                    "seeds.csv",  "plane.csv",   "proof.csv"};
    int64_t groups = 0;
    int n = 0;
    for (int64_t i = 0; i < count; i++)
        groups += results[i].nproof;
    for (int kind = 0; *st == DPT_OK && kind < OUTPUT_COUNT; kind++) {
        if ((kind == OUTPUT_SEEDS && study->nseeds == 0) ||
            (kind == OUTPUT_PLANE && study->nplanes == 0) || (kind == OUTPUT_PROOF && groups == 0))
            continue;
        char *path = dpt_mem_format("%s/%s", study->directory, names[kind]);
        put[n++] = names[kind];
        *st = path == NULL ? DPT_ERR_OUTPUT : put_output((output)kind, path, study, results, count);
        dpt_mem_free(path);
    }
    return n;
}

static void discard_outputs(const char *directory, int count, const char *const *names) {
    for (int k = 0; k < count; k++) {
        char *path = dpt_mem_format("%s/%s", directory, names[k]);
        if (path != NULL)
            dpt_file_discard(path);
        dpt_mem_free(path);
    }
}

dpt_status dpt_results_write(const dpt_comm *comm, const dpt_results_study *study,
                             const dpt_result *results, int64_t count) {
    const char *names[OUTPUT_COUNT] = {NULL};
    bool writer = comm->rank == 0;
    int put = 0;
    dpt_status st = dpt_agree_fault("results.write");
    if (st == DPT_OK && writer)
        st = results_file_check_units(study, results, count);
    if (writer)
        put = put_outputs(study, results, count, names, &st);
    st = dpt_agree(comm, st);
    if (writer && st == DPT_OK)
        st = dpt_manifest_commit(study->directory, study->name, put, names);
    else if (writer)
        discard_outputs(study->directory, put, names);
    return dpt_agree(comm, st);
}

/* As for another version: a program with a column more or less need not count one. */
static dpt_status other_columns(const char *path, const char *what) {
    return dpt_error(DPT_ERR_INPUT,
                     "%s: %s has other columns than are known: run the study again, or use the "
                     "deltapath that wrote it",
                     path, what);
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
        bool known = group < 0 || dpt_result_has_columns(group, 0);
        bool ok = group >= 0 && known && dpt_result_get(group, file_bytes, r);
        if (group >= 0)
            H5Gclose(group);
        out->count += ok;
        if (!known)
            st = other_columns(path, groups[i]);
        else if (!ok || (r->tensors != 0 && r->tensors != out->tensors) ||
                 (r->nmatrices != 0 && r->nmatrices != out->matrices.count))
            st = dpt_error(DPT_ERR_INPUT, "%s: unit %s is corrupt: run the study again", path,
                           groups[i]);
    }
    for (int64_t i = 0; i < n; i++)
        dpt_mem_free(groups[i]);
    dpt_mem_free(groups);
    return st;
}

/* The bytes of a results file, checked. */
typedef struct results_request {
    const char *path;
    const char *bytes;
    int64_t n;
} results_request;

static bool get_sizes(hid_t file, dpt_results *out) {
    int64_t n = 0;
    out->tensor_numel = dpt_mem_alloc(out->tensors, sizeof *out->tensor_numel, "sizes of tensors");
    return out->tensor_numel != NULL && dpt_h5_length(file, "tensors/numel", &n) &&
           n == out->tensors &&
           dpt_h5_get_array(file, "tensors/numel", H5T_NATIVE_INT64, 1, &n, out->tensor_numel);
}

static dpt_status get_file(const results_request *from, dpt_results *out) {
    const char *path = from->path;
    hid_t file = dpt_h5_image_open(from->bytes, from->n);
    if (file < 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: cannot be opened as HDF5: give a results.h5 of `deltapath run`",
                         path);
    char *format = NULL;
    int64_t version = 0;
    dpt_status st = DPT_OK;
    if (!dpt_h5_get_string(file, "format", &format) || strcmp(format, FORMAT) != 0)
        st = dpt_error(DPT_ERR_INPUT, "%s: no results file: give a results.h5 of `deltapath run`",
                       path);
    else if (!dpt_h5_get_i64(file, "version", &version) || version != DPT_RESULTS_VERSION)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: version %lld where %d is known: run the study again, or "
                       "use the deltapath that wrote it",
                       path, (long long)version, DPT_RESULTS_VERSION);
    else if (!dpt_h5_get_string(file, "name", &out->name) ||
             !dpt_h5_get_string(file, "provenance", &out->provenance) ||
             !dpt_h5_get_string(file, "job", &out->job) ||
             !dpt_h5_get_texts(file, "tensors/names", &out->tensor_names, &out->tensors) ||
             !get_sizes(file, out) || !dpt_result_matrices_get(file, out->tensors, &out->matrices))
        st = dpt_error(DPT_ERR_INPUT, "%s: the header is corrupt: run the study again", path);
    else
        st = get_units(file, path, from->n, out);
    if (st == DPT_OK && !dpt_result_seeds_has_columns(file))
        st = other_columns(path, "/seeds");
    if (st == DPT_OK && !dpt_result_seeds_get(file, from->n, out))
        st = dpt_error(DPT_ERR_INPUT, "%s: the table over seeds is corrupt: run the study again",
                       path);
    if (st == DPT_OK && !dpt_result_plane_get(file, from->n, out))
        st = dpt_error(DPT_ERR_INPUT, "%s: a plane of two edits is corrupt: run the study again",
                       path);
    dpt_mem_free(format);
    H5Fclose(file);
    return st;
}

static dpt_status get_quietly(const results_request *from, dpt_results *out) {
    dpt_status st = DPT_OK;
    H5E_BEGIN_TRY {
        st = get_file(from, out);
    }
    H5E_END_TRY;
    return st;
}

/* A trial in a child process: a forged file that makes HDF5 crash does so there. */
static dpt_status try_file(void *ctx, char **bytes, int64_t *n) {
    dpt_results results = {.count = 0};
    (void)bytes;
    (void)n;
    return get_quietly(ctx, &results);
}

dpt_status dpt_results_read(const char *path, dpt_results *out) {
    char *image = NULL;
    char *nothing = NULL;
    int64_t none = 0;
    results_request from = {.path = path};
    *out = (dpt_results){.count = 0};
    dpt_status st = dpt_guard_input(path);
    if (st == DPT_OK)
        st = dpt_sealed_read(path, RESULTS_LIMIT, &image, &from.n);
    from.bytes = image;
    if (st == DPT_OK)
        st = dpt_isolate_run(path, try_file, &from, &nothing, &none);
    if (st == DPT_OK)
        st = get_quietly(&from, out);
    if (st != DPT_OK)
        dpt_results_destroy(out);
    dpt_mem_free(image);
    return st;
}

void dpt_results_destroy(dpt_results *results) {
    dpt_mem_free(results->name);
    dpt_mem_free(results->provenance);
    dpt_mem_free(results->job);
    for (int64_t i = 0; i < results->tensors && results->tensor_names != NULL; i++)
        dpt_mem_free(results->tensor_names[i]);
    dpt_mem_free(results->tensor_names);
    dpt_mem_free(results->tensor_numel);
    dpt_results_matrices_destroy(&results->matrices);
    for (int64_t i = 0; i < results->nseeds; i++)
        dpt_result_seeds_destroy(&results->seeds[i]);
    dpt_mem_free(results->seeds);
    for (int64_t i = 0; i < results->nplanes; i++)
        dpt_result_plane_destroy(&results->planes[i]);
    dpt_mem_free(results->planes);
    for (int64_t i = 0; i < results->count; i++)
        dpt_result_destroy(&results->results[i]);
    dpt_mem_free(results->results);
    *results = (dpt_results){.count = 0};
}

#include "deltapath/store/results.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/store/beside.h"
#include "deltapath/store/isolate.h"
#include "hdf5_plain.h"
#include "result_fields.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char UNIT_FORMAT[] = "deltapath-unit";

static char *unit_path(const dpt_results_study *study, const char *edit, const char *data) {
    char *a = dpt_result_encode(edit);
    char *b = dpt_result_encode(data);
    char *path =
        a == NULL || b == NULL ? NULL : dpt_mem_format("%s/units/%s@%s.h5", study->directory, a, b);
    dpt_mem_free(a);
    dpt_mem_free(b);
    return path;
}

static bool put_unit_file(const char *path, uint64_t key, const dpt_result *result) {
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (file < 0)
        return false;
    bool ok = dpt_h5_put_text(file, "format", UNIT_FORMAT) &&
              dpt_h5_put_i64(file, "version", DPT_RESULTS_VERSION) &&
              dpt_h5_put_u64(file, "key", key) && dpt_result_put(file, result);
    return H5Fclose(file) >= 0 && ok;
}

/* Rank 0: write the file of a unit beside its name. */
static dpt_status write_beside(const dpt_results_study *study, const char *path,
                               const dpt_result *result) {
    char *folder = dpt_mem_format("%s/units", study->directory);
    char *beside = dpt_beside_begin(path);
    dpt_status st = folder == NULL || beside == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    if (st == DPT_OK && mkdir(folder, 0777) != 0 && errno != EEXIST)
        st = dpt_error(DPT_ERR_OUTPUT, "%s: cannot be created: %s", folder, strerror(errno));
    bool ok = false;
    if (st == DPT_OK) {
        H5E_BEGIN_TRY {
            ok = put_unit_file(beside, study->key, result);
        }
        H5E_END_TRY;
    }
    if (st == DPT_OK && !ok)
        st =
            dpt_error(DPT_ERR_OUTPUT, "%s: cannot be written: check disk space and rights", beside);
    dpt_mem_free(folder);
    dpt_mem_free(beside);
    return st;
}

dpt_status dpt_results_save_unit(const dpt_comm *comm, const dpt_results_study *study,
                                 const dpt_result *result) {
    bool writer = comm->rank == 0;
    char *path = NULL;
    dpt_status st = dpt_agree_fault("results.unit");
    if (st == DPT_OK && writer && (result->edit == NULL || result->edit[0] == '\0'))
        st = dpt_error(DPT_ERR_INTERNAL, "results: a unit without the id of its edit");
    if (st == DPT_OK && writer) {
        path = unit_path(study, result->edit, result->data != NULL ? result->data : "");
        st = path == NULL ? DPT_ERR_OUTPUT : write_beside(study, path, result);
    }
    if (st == DPT_OK)
        st = dpt_agree_fault("results.rename");
    st = dpt_agree(comm, st);
    if (writer && path != NULL) {
        if (st == DPT_OK)
            st = dpt_beside_commit(path);
        else
            dpt_beside_discard(path);
    }
    dpt_mem_free(path);
    return dpt_agree(comm, st);
}

/* Rank 0: why a file is no finished unit, or NULL when it is one and `result` holds it. */
static const char *get_unit_file(const dpt_results_study *study, const char *path, const char *edit,
                                 const char *data, dpt_result *result) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return "it is cut off or no HDF5 file";
    const char *why = NULL;
    char *format = NULL;
    int64_t version = 0;
    uint64_t key = 0;
    hsize_t bytes = 0;
    if (!dpt_h5_get_text(file, "format", &format) || strcmp(format, UNIT_FORMAT) != 0 ||
        !dpt_h5_get_i64(file, "version", &version) || !dpt_h5_get_u64(file, "key", &key) ||
        H5Fget_filesize(file, &bytes) < 0)
        why = "it is no unit of a study";
    else if (version != DPT_RESULTS_VERSION)
        why = "another version of the program wrote it";
    else if (key != study->key)
        why = "it belongs to another job, other models or other data";
    else if (!dpt_result_get(file, (int64_t)bytes, result))
        why = "it is corrupt";
    dpt_mem_free(format);
    H5Fclose(file);
    if (why == NULL && ((result->tensors != 0 && result->tensors != study->tensors) ||
                        strcmp(result->edit, edit) != 0 || strcmp(result->data, data) != 0)) {
        dpt_result_destroy(result);
        why = "it holds another unit";
    }
    return why;
}

typedef struct unit_request {
    const dpt_results_study *study;
    const char *path, *edit, *data;
} unit_request;

static dpt_status try_unit(void *ctx, char **bytes, int64_t *n) {
    const unit_request *want = ctx;
    dpt_result result = {.tensors = 0};
    (void)bytes;
    (void)n;
    H5E_BEGIN_TRY {
        (void)get_unit_file(want->study, want->path, want->edit, want->data, &result);
    }
    H5E_END_TRY;
    return DPT_OK;
}

/* First in a child process: a damaged file that makes HDF5 crash does so there. */
static const char *get_unit_safely(unit_request want, dpt_result *result) {
    const char *why = NULL;
    char *bytes = NULL;
    int64_t n = 0;
    if (dpt_isolate_run(want.path, try_unit, &want, &bytes, &n) != DPT_OK)
        return "it is corrupt";
    H5E_BEGIN_TRY {
        why = get_unit_file(want.study, want.path, want.edit, want.data, result);
    }
    H5E_END_TRY;
    return why;
}

dpt_status dpt_results_load_unit(const dpt_comm *comm, const dpt_results_study *study,
                                 const char *edit, const char *data, bool *found,
                                 dpt_result *result) {
    dpt_result loaded = {.tensors = 0};
    dpt_status st = DPT_OK;
    int64_t there = 0;
    *found = false;
    if (comm->rank == 0) {
        char *path = unit_path(study, edit, data);
        const char *why = NULL;
        if (path == NULL)
            st = DPT_ERR_OUTPUT;
        else if (access(path, F_OK) == 0) {
            why = get_unit_safely((unit_request){study, path, edit, data}, &loaded);
            there = why == NULL;
            if (why != NULL) {
                dpt_error_clear(); /* a bad unit is no error: it is done again */
                dpt_log(DPT_LOG_WARN, "%s: %s: this unit is done again", path, why);
            }
        }
        dpt_mem_free(path);
    }
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, &there, sizeof there, 0);
    *found = st == DPT_OK && there == 1;
    if (result != NULL)
        *result = (dpt_result){.tensors = 0};
    if (result != NULL && *found)
        *result = loaded;
    else
        dpt_result_destroy(&loaded);
    return st;
}

#include "deltapath/results/results.h"

#include "deltapath/base/guard.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/sealed.h"
#include "deltapath/comm/agree.h"
#include "deltapath/base/isolate.h"
#include "deltapath/comm/same.h"
#include "deltapath/store/owned.h"
#include "deltapath/hdf5/hdf5_image.h"
#include "deltapath/hdf5/hdf5_plain.h"
#include "result_fields.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char UNIT_FORMAT[] = "deltapath-unit";
static const int64_t UNIT_LIMIT = INT64_C(1) << 40;

char *dpt_results_unit_path(const char *directory, const char *edit, const char *data) {
    char *name = dpt_results_unit_name(edit, data);
    char *path = name == NULL ? NULL : dpt_mem_format("%s/units/%s", directory, name);
    dpt_mem_free(name);
    return path;
}

enum { UNIT_ATTRIBUTES = 8 }; /* of the file, besides those of its record */

static char *unit_image(const dpt_results_study *study, const dpt_result *result, int64_t *n) {
    char *bytes = NULL;
    H5E_BEGIN_TRY {
        hid_t file = dpt_h5_image_create();
        bool ok = file >= 0 && dpt_h5_put_string(file, "format", UNIT_FORMAT) &&
                  dpt_h5_put_i64(file, "version", DPT_RESULTS_VERSION) &&
                  dpt_h5_put_string(file, "study", study->name) &&
                  dpt_h5_put_u64(file, "key", study->key) &&
                  dpt_h5_put_u64(file, "recipe", study->recipe) &&
                  dpt_h5_put_u64(file, "model", study->model) &&
                  dpt_h5_put_u64(file, "pre_digest", study->inputs[0]) &&
                  dpt_h5_put_u64(file, "post_digest", study->inputs[1]) &&
                  dpt_result_put(file, result);
        bytes = dpt_h5_image_take(file, ok, n);
    }
    H5E_END_TRY;
    return bytes;
}

/* Rank 0: the file of a unit under its temporary name. */
static dpt_status unit_put(const dpt_results_study *study, const char *path,
                           const dpt_result *result) {
    char *folder = dpt_mem_format("%s/units", study->directory);
    dpt_status st =
        folder == NULL ? DPT_ERR_OUTPUT : dpt_owned_check(path, DPT_OWNED_UNIT, study->name);
    if (st == DPT_OK && mkdir(folder, 0777) != 0 && errno != EEXIST)
        st = dpt_error(DPT_ERR_OUTPUT,
                       "%s: cannot be created: %s: check the permissions of the folder above",
                       folder, strerror(errno));
    if (st == DPT_OK)
        st = dpt_guard_enter(folder);
    dpt_mem_free(folder);
    if (st != DPT_OK)
        return st;
    int64_t n = 0;
    char *bytes = unit_image(study, result, &n);
    st = dpt_sealed_put(path, bytes, n);
    dpt_mem_free(bytes);
    return st;
}

void dpt_results_check_study(const dpt_comm *comm, const dpt_results_study *study) {
    DPT_ASSERT_SAME_TEXT(comm, study->name);
    DPT_ASSERT_SAME_TEXT(comm, study->directory);
    DPT_ASSERT_SAME_TEXT(comm, study->job);
    DPT_ASSERT_SAME(comm, study->tensors);
    DPT_ASSERT_SAME(comm, study->key);
    DPT_ASSERT_SAME(comm, study->recipe);
    DPT_ASSERT_SAME(comm, study->model);
    DPT_ASSERT_SAME_ARRAY(comm, study->inputs, 2);
}

dpt_status dpt_results_save_unit(const dpt_comm *comm, const dpt_results_study *study,
                                 const dpt_result *result) {
    dpt_results_check_study(comm, study);
    bool writer = comm->rank == 0;
    char *path = NULL;
    dpt_status st = dpt_agree_fault("results.unit");
    if (st == DPT_OK && writer && (result->edit == NULL || result->edit[0] == '\0'))
        st = dpt_error(DPT_ERR_INTERNAL, "results: a unit without the id of its edit");
    if (st == DPT_OK && writer) {
        path = dpt_results_unit_path(study->directory, result->edit,
                                     result->data != NULL ? result->data : "");
        st = path == NULL ? DPT_ERR_OUTPUT : unit_put(study, path, result);
    }
    if (st == DPT_OK)
        st = dpt_agree_fault("results.rename");
    st = dpt_agree(comm, st);
    if (writer && path != NULL) {
        if (st == DPT_OK)
            st = dpt_file_commit(path);
        else
            dpt_file_discard(path);
    }
    dpt_mem_free(path);
    return dpt_agree(comm, st);
}

/* The bytes of a unit's file, checked, and what is wanted of them. */
typedef struct unit_request {
    const dpt_results_study *study;
    const char *path, *edit, *data;
    const char *bytes;
    int64_t n;
    uint64_t recipe, model, inputs[2]; /* out */
    dpt_status st; /* out: memory or the system failed, which says nothing about the file */
} unit_request;

/* Rank 0: why a file is no finished unit, or NULL when it is one and `result` holds it. */
static const char *unit_parse(unit_request *want, dpt_result *result) {
    const dpt_results_study *study = want->study;
    hid_t file = dpt_h5_image_open(want->bytes, want->n);
    if (file < 0)
        return "it is no HDF5 file";
    const char *why = NULL;
    char *format = NULL;
    int64_t version = 0;
    uint64_t key = 0;
    if (!dpt_h5_get_string(file, "format", &format) || strcmp(format, UNIT_FORMAT) != 0 ||
        !dpt_h5_get_i64(file, "version", &version) || !dpt_h5_get_u64(file, "key", &key) ||
        !dpt_h5_get_u64(file, "recipe", &want->recipe) ||
        !dpt_h5_get_u64(file, "model", &want->model))
        why = "it is no unit of a study";
    else if (version != DPT_RESULTS_VERSION || !dpt_result_has_columns(file, UNIT_ATTRIBUTES))
        why = "another version of the program wrote it";
    else if (study != NULL && (key != study->key || want->recipe != study->recipe))
        why = "it belongs to another job, other models or other data";
    else if (study != NULL && study->model != 0 && want->model != study->model)
        why = "the edited model that is there is not the one that it judges";
    else if (!dpt_result_get(file, want->n, result))
        why = "it is corrupt";
    if (!dpt_h5_get_u64(file, "pre_digest", &want->inputs[0]) ||
        !dpt_h5_get_u64(file, "post_digest", &want->inputs[1]))
        want->inputs[0] = want->inputs[1] = 0;
    dpt_mem_free(format);
    H5Fclose(file);
    if (why == NULL && study != NULL &&
        ((result->tensors != 0 && result->tensors != study->tensors) ||
         strcmp(result->edit, want->edit) != 0 || strcmp(result->data, want->data) != 0)) {
        dpt_result_destroy(result);
        why = "it holds another unit";
    }
    return why;
}

static dpt_status unit_try(void *ctx, char **bytes, int64_t *n) {
    dpt_result result = {.tensors = 0};
    (void)bytes;
    (void)n;
    H5E_BEGIN_TRY {
        (void)unit_parse(ctx, &result); /* to end at all is the answer */
    }
    H5E_END_TRY;
    return DPT_OK;
}

/* First in a child process: a forged file that makes HDF5 crash does so there. A unit that cannot be looked
 * at is none that is done again over it: `st` says so. */
static const char *unit_load(unit_request *want, dpt_result *result) {
    const char *why = NULL;
    char *image = NULL;
    char *nothing = NULL;
    int64_t none = 0;
    want->st = dpt_sealed_read(want->path, UNIT_LIMIT, &image, &want->n);
    if (want->st != DPT_OK)
        why = "it was cut off or damaged, or another version of the program wrote it";
    want->bytes = image;
    if (want->st == DPT_OK) {
        want->st = dpt_isolate_run(want->path, unit_try, want, &nothing, &none);
        why = want->st != DPT_OK ? "it is corrupt" : NULL;
    }
    if (want->st == DPT_ERR_INPUT)
        want->st = DPT_OK; /* `why` says it */
    if (why == NULL) {
        H5E_BEGIN_TRY {
            why = unit_parse(want, result);
        }
        H5E_END_TRY;
    }
    dpt_mem_free(image);
    return why;
}

dpt_status dpt_results_load_unit(const dpt_comm *comm, const dpt_results_study *study,
                                 const char *edit, const char *data, bool *found,
                                 uint64_t inputs[2], dpt_result *result) {
    dpt_results_check_study(comm, study);
    DPT_ASSERT_SAME_TEXT(comm, edit);
    DPT_ASSERT_SAME_TEXT(comm, data);
    uint64_t digests[2] = {0, 0};
    dpt_result loaded = {.tensors = 0};
    dpt_status st = DPT_OK;
    int64_t there = 0;
    *found = false;
    if (comm->rank == 0) {
        char *path = dpt_results_unit_path(study->directory, edit, data);
        const char *why = NULL;
        if (path == NULL)
            st = DPT_ERR_OUTPUT;
        else if (access(path, F_OK) == 0) {
            unit_request want = {.study = study, .path = path, .edit = edit, .data = data};
            why = unit_load(&want, &loaded);
            there = why == NULL;
            st = want.st;
            if (there)
                memcpy(digests, want.inputs, sizeof digests);
            if (why != NULL && st == DPT_OK) {
                dpt_error_clear(); /* a bad unit is no error: it is done again */
                dpt_log(DPT_LOG_WARN, "%s: %s: this unit is done again", path, why);
            }
        }
        dpt_mem_free(path);
    }
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, &there, sizeof there, 0);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, digests, sizeof digests, 0));
    *found = st == DPT_OK && there == 1;
    if (inputs != NULL)
        memcpy(inputs, digests, sizeof digests);
    if (result != NULL)
        *result = (dpt_result){.tensors = 0};
    if (result != NULL && *found)
        *result = loaded;
    else
        dpt_result_destroy(&loaded);
    return st;
}

dpt_status dpt_results_read_unit(const char *path, dpt_result *out, uint64_t *recipe,
                                 uint64_t *model) {
    unit_request want = {.path = path};
    *out = (dpt_result){.tensors = 0};
    const char *why = unit_load(&want, out);
    *recipe = want.recipe;
    *model = want.model;
    if (why == NULL || want.st != DPT_OK)
        return want.st;
    dpt_error_clear();
    return dpt_error(DPT_ERR_INPUT, "%s: %s: run the study again with --resume", path, why);
}

char *dpt_results_unit_name(const char *edit, const char *data) {
    char *a = dpt_result_encode(edit);
    char *b = dpt_result_encode(data);
    char *name = a == NULL || b == NULL ? NULL : dpt_mem_format("%s@%s.h5", a, b);
    dpt_mem_free(a);
    dpt_mem_free(b);
    return name;
}

bool dpt_result_is_clustered(const dpt_result *result) {
    for (int64_t s = 0; s < result->samples; s++)
        if (result->sample_clusters[s] != (double)s)
            return true;
    return false;
}

bool dpt_results_same_unit(const dpt_result *a, const dpt_result *b) {
    dpt_result copy = *a; /* borrows all that it points to */
    copy.scalars.p_adjusted = b->scalars.p_adjusted;
    copy.scalars.p_equivalent_adjusted = b->scalars.p_equivalent_adjusted;
    return dpt_result_hash(&copy) == dpt_result_hash(b);
}

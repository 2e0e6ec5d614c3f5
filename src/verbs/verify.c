#include "deltapath/verbs/verify.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/data/dataset.h"
#include "deltapath/results/results.h"
#include "deltapath/store/store.h"
#include "verify.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

dpt_status dpt_verify_model(const dpt_comm *comm, const char *path, const char *base, FILE *out) {
    return dpt_store_verify(comm, path, base, out, NULL, NULL);
}

static dpt_status verify_results(const char *path, FILE *out) {
    dpt_results results;
    dpt_status st = dpt_results_read(path, &results);
    if (st != DPT_OK)
        return st;
    fprintf(out, "%s: results of \"%s\": %" PRId64 " units on %" PRId64 " tensors can be read\n",
            path, results.name != NULL ? results.name : "", results.count, results.tensors);
    dpt_results_destroy(&results);
    return DPT_OK;
}

static dpt_status verify_unit(const char *path, FILE *out) {
    dpt_result unit;
    uint64_t recipe, model;
    dpt_status st = dpt_results_read_unit(path, &unit, &recipe, &model);
    if (st == DPT_OK)
        fprintf(out, "%s: unit of edit %s on data \"%s\" can be read\n", path, unit.edit,
                unit.data);
    dpt_result_destroy(&unit);
    return st;
}

/* Reading it checks its seal and everything that a run would refuse but for what depends on a model. */
static dpt_status verify_dataset(const dpt_comm *comm, const char *path, FILE *out) {
    int64_t kind = DPT_DATASET_TOKENS;
#define VERIFY_KIND_NAME(constant, name) #name,
    static const char *const kinds[] = {DPT_DATASET_LIST(VERIFY_KIND_NAME)};
    for (int k = 0; k < DPT_DATASET_COUNT && comm->rank == 0; k++)
        if (dpt_store_attribute_is(path, "kind", kinds[k]))
            kind = k;
    dpt_status st = dpt_agree(comm, dpt_comm_broadcast(comm, &kind, sizeof kind, 0));
    dpt_dataset data;
    if (st == DPT_OK)
        st = dpt_dataset_read(comm, path, (dpt_dataset_kind)kind, &data);
    if (st != DPT_OK)
        return st;
    if (comm->rank == 0)
        fprintf(out, "%s: data set of %" PRId64 " samples can be read\n", path, data.samples);
    dpt_dataset_destroy(&data);
    return DPT_OK;
}

typedef enum subject {
    SUBJECT_MODEL,
    SUBJECT_STUDY,
    SUBJECT_RESULTS,
    SUBJECT_UNIT,
    SUBJECT_DATASET
} subject;

static subject find_subject(const char *path) {
    if (dpt_verify_is_study(path))
        return SUBJECT_STUDY;
    if (dpt_store_is_format(path, "deltapath-results"))
        return SUBJECT_RESULTS;
    if (dpt_store_is_format(path, "deltapath-data"))
        return SUBJECT_DATASET;
    return dpt_store_is_format(path, "deltapath-unit") ? SUBJECT_UNIT : SUBJECT_MODEL;
}

dpt_status dpt_verify_run(const dpt_comm *comm, const dpt_verify_options *options) {
    DPT_ASSERT_SAME_TEXT(comm, options->path);
    FILE *out = options->out != NULL ? options->out : stdout;
    const char *path = options->path;
    int64_t what = comm->rank == 0 ? (int64_t)find_subject(path) : 0;
    dpt_status st = dpt_agree(comm, dpt_comm_broadcast(comm, &what, sizeof what, 0));
    if (st != DPT_OK)
        return st;
    if (what == SUBJECT_STUDY)
        st = dpt_verify_study(comm, path, out);
    else if (what == SUBJECT_MODEL)
        st = dpt_verify_model(comm, path, options->base, out);
    else if (what == SUBJECT_DATASET)
        st = verify_dataset(comm, path, out);
    else if (comm->rank == 0)
        st = what == SUBJECT_UNIT ? verify_unit(path, out) : verify_results(path, out);
    st = dpt_agree(comm, st);
    if (comm->rank == 0)
        fflush(out);
    return st;
}

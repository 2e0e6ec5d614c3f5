#include "deltapath/study/join.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/version.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/store/owned.h"
#include "deltapath/results/results.h"
#include "deltapath/study/directory_lock.h"
#include "deltapath/job/job.h"
#include "outputs.h"
#include "summary.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One study to be joined, read on rank 0. */
typedef struct join_part {
    const char *directory;
    char *path; /* of its results.h5 */
    dpt_results results;
    dpt_job job; /* as its results.h5 records it */
    char *frame;
    json_t *provenance;
} join_part;

typedef struct join {
    const dpt_comm *comm;
    const dpt_join_options *options;
    const char *set; /* what gives the job its directory; outlives the job */
    dpt_job job;     /* all edits */
    int nparts;
    join_part *parts;    /* (nparts) */
    int units;           /* per edit: its data sets, or one for an edit alone */
    dpt_result *results; /* (edits x units); what they point to belongs to the parts */
    bool *used;          /* (all units of all parts end to end) */
    char *provenance;
} join;

static bool join_exists(const char *directory, const char *name) {
    char *path = dpt_mem_format("%s/%s", directory, name);
    bool there = path != NULL && access(path, F_OK) == 0;
    dpt_mem_free(path);
    return there;
}

static dpt_status join_refuse_part(const char *directory) {
    if (join_exists(directory, "units") || join_exists(directory, "progress"))
        return dpt_error(DPT_ERR_INPUT,
                         "%s: this part is not finished, it has no results.h5: run its task again "
                         "with --resume and --set output.directory=%s, or submit its array index",
                         directory, directory);
    return dpt_error(DPT_ERR_INPUT,
                     "%s: no study of `deltapath run` is there: give the output directories of the "
                     "parts",
                     directory);
}

static dpt_status join_read_part(const char *directory, join_part *part) {
    static const char *const set[] = {"output.directory=<any>"};
    part->directory = directory;
    if (!join_exists(directory, "results.h5"))
        return join_refuse_part(directory);
    part->path = dpt_mem_format("%s/results.h5", directory);
    dpt_status st =
        part->path != NULL ? dpt_results_read(part->path, &part->results) : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = dpt_job_parse(part->results.job, part->path, 1, set, &part->job);
    if (st != DPT_OK)
        return st;
    part->frame = dpt_job_frame(&part->job);
    part->provenance = json_loads(part->results.provenance, 0, NULL);
    if (part->frame == NULL)
        return DPT_ERR_OUTPUT;
    return part->provenance != NULL
               ? DPT_OK
               : dpt_error(DPT_ERR_INPUT, "%s: its provenance is no JSON: run the study again",
                           part->path);
}

/* Where two texts differ first: the line of each, cut to a message's length. */
static dpt_status join_refuse_frame(const join_part *a, const join_part *b) {
    const char *x = a->frame;
    const char *y = b->frame;
    size_t line = 0;
    for (size_t i = 0; x[i] == y[i] && x[i] != '\0'; i++)
        if (x[i] == '\n')
            line = i + 1;
    return dpt_error(DPT_ERR_INPUT,
                     "%s and %s are of different jobs: '%.*s' against '%.*s': join studies that "
                     "differ in their edits alone",
                     a->directory, b->directory, (int)strcspn(x + line, "\n"), x + line,
                     (int)strcspn(y + line, "\n"), y + line);
}

static const char *join_program(const join_part *part) {
    const char *text = json_string_value(json_object_get(part->provenance, "program"));
    return text != NULL ? text : "?";
}

static bool join_same_tensors(const dpt_results *a, const dpt_results *b) {
    bool same = a->tensors == b->tensors;
    for (int64_t t = 0; same && t < a->tensors; t++)
        same = strcmp(a->tensor_names[t], b->tensor_names[t]) == 0 &&
               a->tensor_numel[t] == b->tensor_numel[t];
    return same;
}

/* Fingerprints look at samples of a model, digests at every byte that a study reads of it. */
static dpt_status join_compare_digests(const join_part *a, const join_part *b) {
    static const char *const models[][2] = {{"pre", "pre_digest"}, {"post", "post_digest"}};
    const json_t *in_a = json_object_get(a->provenance, "inputs");
    const json_t *in_b = json_object_get(b->provenance, "inputs");
    for (int i = 0; i < 2; i++) {
        const char *x = json_string_value(json_object_get(in_a, models[i][1]));
        const char *y = json_string_value(json_object_get(in_b, models[i][1]));
        const char *path = json_string_value(json_object_get(in_b, models[i][0]));
        if (x != NULL && y != NULL && strcmp(x, y) != 0)
            return dpt_error(
                DPT_ERR_INPUT,
                "%s and %s were made from different models: %s has other values since "
                "(%s %s against %s): run one of them again with the model of the other",
                a->directory, b->directory, path != NULL ? path : models[i][0], models[i][1], x, y);
    }
    return DPT_OK;
}

static dpt_status join_compare(const join_part *a, const join_part *b) {
    if (strcmp(join_program(a), join_program(b)) != 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s was made by %s, %s by %s: run them with one version of the program",
                         a->directory, join_program(a), b->directory, join_program(b));
    if (strcmp(a->frame, b->frame) != 0)
        return join_refuse_frame(a, b);
    dpt_status st = join_compare_digests(a, b);
    if (st != DPT_OK)
        return st;
    if (!json_equal(json_object_get(a->provenance, "inputs"),
                    json_object_get(b->provenance, "inputs")) ||
        !join_same_tensors(&a->results, &b->results))
        return dpt_error(DPT_ERR_INPUT,
                         "%s and %s were made from different models or data sets under the same "
                         "names: run one of them again",
                         a->directory, b->directory);
    return DPT_OK;
}

/* The job with all edits is a file that was given, or what all parts record. */
static dpt_status join_find_job(join *j) {
    const join_part *first = &j->parts[0];
    if (j->options->job != NULL) {
        join_part whole = {.directory = j->options->job, .frame = dpt_job_frame(&j->job)};
        bool same = whole.frame != NULL && strcmp(first->frame, whole.frame) == 0;
        dpt_status st = whole.frame == NULL ? DPT_ERR_OUTPUT
                        : same              ? DPT_OK
                                            : join_refuse_frame(&whole, first);
        dpt_mem_free(whole.frame);
        return st;
    }
    for (int p = 1; p < j->nparts; p++)
        if (strcmp(j->parts[p].job.recipe, first->job.recipe) != 0)
            return dpt_error(DPT_ERR_INPUT,
                             "%s and %s record different lists of edits: give the job file with "
                             "all of them, --job JOB.yaml",
                             first->directory, j->parts[p].directory);
    return dpt_job_parse(first->results.job, first->path, 1, &j->set, &j->job);
}

/* Whether a part gave an edit the parameters that the whole job gives it. What both leave out has the same
 * defaults. */
static bool join_same_edit(const dpt_job_edit *edit, const join_part *part) {
    for (int e = 0; e < part->job.nedits; e++) {
        const dpt_job_edit *made = &part->job.edits[e];
        if (strcmp(made->id, edit->id) == 0)
            return strcmp(made->method, edit->method) == 0 &&
                   strcmp(made->params, edit->params) == 0;
    }
    return false;
}

/* One unit from all parts. */
static dpt_status join_take_unit(join *j, const dpt_job_edit *edit, const char *data,
                                 dpt_result *out, bool *found) {
    const char *owner = NULL;
    bool *used = j->used;
    for (int p = 0; p < j->nparts; used += j->parts[p].results.count, p++) {
        const join_part *part = &j->parts[p];
        for (int64_t i = 0; i < part->results.count; i++) {
            const dpt_result *unit = &part->results.results[i];
            if (strcmp(unit->edit, edit->id) != 0 || strcmp(unit->data, data) != 0)
                continue;
            if (owner != NULL)
                return dpt_error(DPT_ERR_INPUT, "edit %s is in both %s and %s: leave one out",
                                 edit->id, owner, part->directory);
            if (!join_same_edit(edit, part))
                return dpt_error(DPT_ERR_INPUT,
                                 "%s: edit %s was made with other parameters than the job gives "
                                 "it (%s): run it again, or give the job file that made it",
                                 part->directory, edit->id, edit->params);
            owner = part->directory;
            used[i] = true;
            *out = *unit;
        }
    }
    *found = owner != NULL;
    return DPT_OK;
}

static dpt_status join_refuse_strangers(const join *j) {
    const bool *used = j->used;
    for (int p = 0; p < j->nparts; used += j->parts[p].results.count, p++)
        for (int64_t i = 0; i < j->parts[p].results.count; i++)
            if (!used[i])
                return dpt_error(DPT_ERR_INPUT,
                                 "%s: edit %s is not in the job: give the job file with all edits, "
                                 "--job JOB.yaml",
                                 j->parts[p].directory, j->parts[p].results.results[i].edit);
    return DPT_OK;
}

static dpt_status join_take_all(join *j) {
    const char *missing = NULL;
    int nmissing = 0;
    int64_t total = 0;
    for (int p = 0; p < j->nparts; p++)
        total += j->parts[p].results.count;
    j->units = j->job.riemann && j->job.ndata > 0 ? j->job.njudged : 1;
    j->results = dpt_mem_zalloc((int64_t)j->job.nedits * j->units, sizeof *j->results, "results");
    j->used = dpt_mem_zalloc(total, sizeof *j->used, "units that were taken");
    dpt_status st = j->results != NULL && j->used != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int e = 0; e < j->job.nedits && st == DPT_OK; e++) {
        bool whole = true;
        for (int u = 0; u < j->units && st == DPT_OK; u++) {
            bool found = false;
            int d = j->job.riemann && j->job.ndata > 0 ? u : -1;
            if (!dpt_job_judges(&j->job.edits[e], d))
                continue;
            st = join_take_unit(j, &j->job.edits[e], dpt_outputs_data_name(&j->job, d),
                                &j->results[e * j->units + u], &found);
            whole = whole && found;
        }
        nmissing += !whole;
        if (!whole && missing == NULL)
            missing = j->job.edits[e].id;
    }
    if (st == DPT_OK && nmissing > 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%d of %d edits are in no part, the first is %s: give all parts, or run "
                         "what is missing: `deltapath run JOB.yaml --only %s --set "
                         "output.directory=DIR`",
                         nmissing, j->job.nedits, missing, missing);
    return st == DPT_OK ? join_refuse_strangers(j) : st;
}

static json_t *join_describe_part(const join_part *part) {
    static const char *const keys[] = {"started", "ranks", "tensor_parallel"};
    json_t *out = json_object();
    json_object_set_new(out, "directory", json_string(part->directory));
    for (int k = 0; k < 3; k++)
        json_object_set(out, keys[k], json_object_get(part->provenance, keys[k]));
    return out;
}

/* The seed of an edit, from the part that did it. */
static json_t *join_seed(const join *j, const char *edit) {
    json_t *seed = NULL;
    for (int p = 0; p < j->nparts && seed == NULL; p++)
        seed = json_object_get(json_object_get(j->parts[p].provenance, "seeds"), edit);
    return seed;
}

static dpt_status join_describe(join *j) {
    const json_t *first = j->parts[0].provenance;
    json_t *object = json_object();
    json_t *parts = json_array();
    json_t *seeds = json_object();
    for (int p = 0; p < j->nparts; p++)
        json_array_append_new(parts, join_describe_part(&j->parts[p]));
    for (int e = 0; e < j->job.nedits; e++)
        json_object_set(seeds, j->job.edits[e].id, join_seed(j, j->job.edits[e].id));
    json_object_set_new(object, "program", json_string("deltapath " DPT_VERSION));
    json_object_set_new(object, "joined", parts);
    json_object_set(object, "inputs", json_object_get(first, "inputs"));
    json_object_set_new(object, "seeds", seeds);
    json_object_set_new(object, "job", json_string(j->job.text));
    char *text = json_dumps(object, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    j->provenance = text != NULL ? dpt_mem_strdup(text, "provenance") : NULL;
    free(text);
    json_decref(object);
    return j->provenance != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

/* Whether a folder holds what a join wrote, and no study of its own. */
static bool join_wrote(const char *directory) {
    char *path = dpt_mem_format("%s/results.h5", directory);
    bool own = path != NULL && !join_exists(directory, "units") &&
               !join_exists(directory, "models") &&
               dpt_owned_check(path, DPT_OWNED_RESULTS, NULL) == DPT_OK;
    char *text = own ? dpt_owned_read_attribute(path, "provenance") : NULL;
    json_t *provenance = text != NULL ? json_loads(text, 0, NULL) : NULL;
    own = own && json_object_get(provenance, "joined") != NULL;
    json_decref(provenance);
    dpt_mem_free(text);
    dpt_mem_free(path);
    dpt_error_clear();
    return own;
}

static dpt_status join_open_directory(const dpt_join_options *options) {
    static const char *const names[] = {"results.h5",  "summary.csv", "seeds.csv",
                                        "plane.csv",   "proof.csv",   "results.json",
                                        "report.html", "units",       "models"};
    const char *directory = options->directory;
    const char *in_the_way = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && in_the_way == NULL; i++)
        in_the_way = join_exists(directory, names[i]) ? names[i] : NULL;
    if (in_the_way == NULL)
        return dpt_outputs_make_directory(directory);
    bool own = join_wrote(directory);
    if (own && options->overwrite)
        return DPT_OK;
    return own ? dpt_error(DPT_ERR_OUTPUT,
                           "%s: holds joined results already: give --overwrite to replace them",
                           directory)
               : dpt_error(DPT_ERR_OUTPUT,
                           "%s: %s is there, which no join wrote: choose another directory",
                           directory, in_the_way);
}

/* Rank 0: all that can fail before anything is written. */
static dpt_status join_gather(join *j) {
    const dpt_join_options *options = j->options;
    j->parts = dpt_mem_zalloc(options->nparts, sizeof *j->parts, "parts");
    dpt_status st = j->parts != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int p = 0; p < options->nparts && st == DPT_OK; p++) {
        j->nparts = p + 1;
        st = join_read_part(options->parts[p], &j->parts[p]);
        if (st == DPT_OK && p > 0)
            st = join_compare(&j->parts[0], &j->parts[p]);
    }
    if (st == DPT_OK)
        st = join_find_job(j);
    if (st == DPT_OK)
        st = join_take_all(j);
    if (st == DPT_OK)
        st = join_describe(j);
    if (st == DPT_OK)
        st = dpt_owned_check_place(options->directory);
    if (st == DPT_OK && access(options->directory, F_OK) != 0)
        st = dpt_outputs_make_directory(options->directory);
    if (st == DPT_OK)
        st = dpt_directory_lock(options->directory);
    return st == DPT_OK ? join_open_directory(options) : st;
}

static void join_close(join *j) {
    for (int p = 0; p < j->nparts; p++) {
        join_part *part = &j->parts[p];
        dpt_mem_free(part->path);
        dpt_results_destroy(&part->results);
        dpt_job_destroy(&part->job);
        dpt_mem_free(part->frame);
        json_decref(part->provenance);
    }
    dpt_mem_free(j->parts);
    dpt_mem_free(j->results);
    dpt_mem_free(j->used);
    dpt_mem_free(j->provenance);
    dpt_job_destroy(&j->job);
}

static dpt_status join_write(join *j, bool *report) {
    dpt_results_study header = {.directory = j->options->directory};
    int shape[3] = {j->job.nedits, j->units, j->job.report};
    dpt_status st = dpt_agree(j->comm, dpt_comm_broadcast(j->comm, shape, sizeof shape, 0));
    if (st != DPT_OK)
        return st;
    *report = shape[2] != 0;
    if (j->comm->rank == 0) {
        const dpt_results *first = &j->parts[0].results;
        header.name = j->job.name;
        header.tensors = first->tensors;
        header.tensor_names = (const char *const *)first->tensor_names;
        header.tensor_numel = first->tensor_numel;
        header.matrices = first->matrices;
        header.provenance = j->provenance;
        header.job = j->job.text;
        for (int p = 0; p < j->nparts && header.nplanes == 0; p++) {
            header.planes = j->parts[p].results.planes;
            header.nplanes = j->parts[p].results.nplanes;
        }
        if (j->job.plane.a != NULL && header.nplanes == 0)
            dpt_log(
                DPT_LOG_WARN,
                "the plane of %s and %s is left out, for no part has both edits: a run of the job "
                "with --resume and output.directory %s measures it",
                j->job.plane.a, j->job.plane.b, j->options->directory);
    }
    const dpt_job counts = {.nedits = shape[0]};
    return dpt_summary_write(j->comm, j->comm->rank == 0 ? &j->job : &counts, &header, j->results,
                             shape[1]);
}

dpt_status dpt_join_run(const dpt_comm *comm, const dpt_join_options *options, bool *report) {
    DPT_ASSERT_SAME_TEXT(comm, options->directory);
    DPT_ASSERT_SAME_TEXT(comm, options->job);
    DPT_ASSERT_SAME(comm, options->nparts);
    DPT_ASSERT_SAME(comm, options->nsets);
    DPT_ASSERT_SAME(comm, options->overwrite);
    for (int i = 0; i < options->nparts; i++)
        DPT_ASSERT_SAME_TEXT(comm, options->parts[i]);
    join j = {.comm = comm, .options = options};
    dpt_status st = DPT_OK;
    char *set = dpt_mem_format("output.directory=%s", options->directory);
    const char **sets = dpt_mem_alloc(options->nsets + 1, sizeof *sets, "changes of the job");
    if (set == NULL || sets == NULL)
        st = DPT_ERR_OUTPUT;
    for (int i = 0; st == DPT_OK && i < options->nsets; i++)
        sets[i] = options->sets[i];
    if (st == DPT_OK)
        j.set = sets[options->nsets] = set;
    st = dpt_agree(comm, st);
    if (st == DPT_OK && options->job != NULL)
        st = dpt_job_read(comm, options->job, options->nsets + 1, sets, &j.job);
    if (st == DPT_OK)
        st = dpt_agree(comm, comm->rank == 0 ? join_gather(&j) : DPT_OK);
    if (st == DPT_OK)
        st = join_write(&j, report);
    if (st == DPT_OK && j.job.checkpoint != DPT_STORE_NONE)
        dpt_log(DPT_LOG_INFO, "the edited models stay in their parts");
    join_close(&j);
    dpt_mem_free(sets);
    dpt_mem_free(set);
    return st;
}

#include "deltapath/study/job.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/nearest.h"
#include "deltapath/comm/agree.h"
#include "deltapath/path/bootstrap.h"
#include "deltapath/path/verdict.h"
#include "deltapath/store/isolate.h"
#include "job_edits.h"
#include "yaml.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { JOB_BYTES_MAX = 16 << 20, TENSOR_PARALLEL_MAX = 1 << 20 };

/* Index of a text among "a|b|c", or -1. */
static int choice_of(const char *text, const char *choices) {
    int index = 0;
    size_t length = strlen(text);
    for (const char *at = choices; at != NULL; index++) {
        const char *end = strchr(at, '|');
        size_t here = end != NULL ? (size_t)(end - at) : strlen(at);
        if (here == length && strncmp(at, text, length) == 0)
            return index;
        at = end != NULL ? end + 1 : NULL;
    }
    return -1;
}

static dpt_status get_choice(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                             const char *choices, int *out) {
    struct fy_node *node = dpt_yaml_get(map, key);
    if (node == NULL)
        return DPT_OK;
    const char *text = dpt_yaml_scalar(node);
    int index = text != NULL ? choice_of(text, choices) : -1;
    char hint[DPT_NEAREST_HINT];
    if (text == NULL)
        text = "?";
    if (index < 0)
        return dpt_yaml_error(yaml, node, "%s is '%s'%s: it is one of %s", key, text,
                              dpt_nearest_of_list(text, choices, "|", hint), choices);
    *out = index;
    return DPT_OK;
}

/* What is an error unless the job says that it is meant. */
static dpt_status read_allow(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    static const char words[] = "zero-delta|other-tokenizer";
    bool *const allowed[] = {&job->allow_zero_delta, &job->allow_other_tokenizer};
    struct fy_node *list;
    int count;
    dpt_status st = dpt_yaml_list(yaml, root, "allow", &list, &count);
    for (int i = 0; i < count && st == DPT_OK; i++) {
        struct fy_node *item = fy_node_sequence_get_by_index(list, i);
        const char *text = dpt_yaml_scalar(item);
        int index = text != NULL ? choice_of(text, words) : -1;
        char hint[DPT_NEAREST_HINT];
        if (index < 0)
            return dpt_yaml_error(yaml, item,
                                  "allow lists '%s'%s: it knows zero-delta, "
                                  "other-tokenizer",
                                  text != NULL ? text : "?",
                                  dpt_nearest_of_list(text != NULL ? text : "", words, "|", hint));
        *allowed[index] = true;
    }
    return st;
}

static dpt_status read_models(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *models = dpt_yaml_get(root, "models");
    if (models == NULL)
        return dpt_yaml_error(yaml, root, "models is missing: write models: {pre: ..., post: ...}");
    dpt_status st = dpt_yaml_check_keys(yaml, models, "models", "pre post");
    if (st == DPT_OK)
        st = dpt_yaml_path(yaml, models, "pre", &job->pre);
    if (st == DPT_OK)
        st = dpt_yaml_path(yaml, models, "post", &job->post);
    if (st == DPT_OK && (job->pre == NULL || job->post == NULL))
        st = dpt_yaml_error(yaml, models, "models needs both pre and post");
    return st;
}

/* Keys that only dpo has. */
static dpt_status read_dpo(dpt_job_data *data, const dpt_yaml *yaml, struct fy_node *entry,
                           bool dpo) {
    static const char *const keys[] = {"beta", "reference"};
    for (int i = 0; i < 2 && !dpo; i++)
        if (dpt_yaml_get(entry, keys[i]) != NULL)
            return dpt_yaml_error(yaml, dpt_yaml_get(entry, keys[i]),
                                  "%s belongs to loss dpo alone", keys[i]);
    data->beta = 0.1;
    dpt_status st = dpt_yaml_real(yaml, entry, "beta", 1e-6, 1e6, &data->beta);
    return st == DPT_OK ? dpt_yaml_path(yaml, entry, "reference", &data->reference) : st;
}

static dpt_status read_data_entry(dpt_job *job, const dpt_yaml *yaml, struct fy_node *entry) {
    dpt_status st =
        dpt_yaml_check_keys(yaml, entry, "data", "name file loss samples beta reference");
    dpt_job_data *data = &job->data[job->ndata];
    int loss = -1;
    if (st == DPT_OK)
        st = dpt_yaml_text(yaml, entry, "name", &data->name);
    if (st == DPT_OK)
        st = dpt_yaml_path(yaml, entry, "file", &data->file);
    if (st == DPT_OK)
        st = get_choice(yaml, entry, "loss", "lm|dpo|class", &loss);
    if (st == DPT_OK)
        st = dpt_yaml_integer(yaml, entry, "samples", 1, INT64_MAX, &data->samples);
    if (st != DPT_OK)
        return st;
    if (data->name == NULL || data->file == NULL || loss < 0)
        return dpt_yaml_error(yaml, entry, "a data set needs name, file and loss");
    st = read_dpo(data, yaml, entry, loss == DPT_LOSS_DPO);
    if (st != DPT_OK)
        return st;
    if (!dpt_job_name_valid(data->name))
        return dpt_yaml_error(yaml, entry, "data name '%s': use letters, digits and . _ + -",
                              data->name);
    for (int i = 0; i < job->ndata; i++)
        if (strcmp(job->data[i].name, data->name) == 0)
            return dpt_yaml_error(yaml, entry, "two data sets are named '%s'", data->name);
    data->loss = (dpt_job_loss)loss;
    job->ndata++;
    return DPT_OK;
}

static dpt_status read_data(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *list;
    int count;
    dpt_status st = dpt_yaml_list(yaml, root, "data", &list, &count);
    if (st != DPT_OK || count == 0)
        return st;
    job->data = dpt_mem_zalloc(count, sizeof *job->data, "data sets");
    if (job->data == NULL)
        return DPT_ERR_OUTPUT;
    void *iterator = NULL;
    for (struct fy_node *item;
         st == DPT_OK && (item = fy_node_sequence_iterate(list, &iterator)) != NULL;)
        st = read_data_entry(job, yaml, item);
    return st;
}

static dpt_status read_edits(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *list;
    int count;
    dpt_status st = dpt_yaml_list(yaml, root, "edits", &list, &count);
    if (st == DPT_OK && count == 0)
        st = dpt_yaml_error(yaml, list != NULL ? list : root,
                            "edits is missing or empty: list at least one edit");
    for (int i = 0; i < count && st == DPT_OK; i++)
        st = dpt_job_edits_expand(job, yaml, i, fy_node_sequence_get_by_index(list, i));
    return st == DPT_OK ? dpt_job_edits_check(job, yaml, list) : st;
}

static dpt_status read_patterns(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                                int *count, const char ***out) {
    struct fy_node *list;
    dpt_status st = dpt_yaml_list(yaml, map, key, &list, count);
    if (st != DPT_OK || *count == 0)
        return st;
    *out = dpt_mem_zalloc(*count, sizeof **out, "patterns");
    if (*out == NULL)
        return DPT_ERR_OUTPUT;
    for (int i = 0; i < *count; i++) {
        struct fy_node *item = fy_node_sequence_get_by_index(list, i);
        (*out)[i] = dpt_yaml_scalar(item);
        if ((*out)[i] == NULL)
            return dpt_yaml_error(yaml, item, "%s lists patterns such as \"model.layers.*\"", key);
    }
    return DPT_OK;
}

static dpt_status read_select(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *select = dpt_yaml_get(root, "select");
    if (select == NULL)
        return DPT_OK;
    dpt_status st = dpt_yaml_check_keys(yaml, select, "select", "include exclude");
    if (st == DPT_OK)
        st = read_patterns(yaml, select, "include", &job->ninclude, &job->include);
    if (st == DPT_OK)
        st = read_patterns(yaml, select, "exclude", &job->nexclude, &job->exclude);
    return st;
}

static dpt_status read_riemann(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *riemann = dpt_yaml_get(root, "riemann");
    job->riemann = true;
    job->rule = DPT_RULE_LEFT;
    job->points = 5;
    if (riemann == NULL)
        return DPT_OK;
    const char *text = dpt_yaml_scalar(riemann);
    if (text != NULL) {
        if (strcmp(text, "off") != 0)
            return dpt_yaml_error(yaml, riemann, "riemann is 'off' or {rule: ..., points: ...}");
        job->riemann = false;
        return DPT_OK;
    }
    dpt_status st = dpt_yaml_check_keys(yaml, riemann, "riemann", "rule points per_sample");
    const char *rule = NULL;
    int64_t points = job->points;
    if (st == DPT_OK)
        st = dpt_yaml_text(yaml, riemann, "rule", &rule);
    if (st == DPT_OK)
        st = dpt_yaml_integer(yaml, riemann, "points", 1, DPT_QUADRATURE_MAX, &points);
    if (st == DPT_OK)
        st = dpt_yaml_boolean(yaml, riemann, "per_sample", &job->per_sample);
    if (st != DPT_OK)
        return st;
    job->points = (int)points;
    if (rule != NULL)
        st = dpt_quadrature_parse(rule, &job->rule);
    if (st == DPT_OK)
        st = dpt_quadrature_check(job->rule, job->points);
    return dpt_yaml_locate(yaml, riemann, st);
}

static dpt_status read_output(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *output = dpt_yaml_get(root, "output");
    job->checkpoint = DPT_STORE_NONE;
    job->same_dtype = true;
    job->report = true;
    if (output == NULL)
        return dpt_yaml_error(yaml, root, "output is missing: write output: {directory: out/%s}",
                              job->name);
    dpt_status st =
        dpt_yaml_check_keys(yaml, output, "output", "directory checkpoint dtype overwrite report");
    int checkpoint = 0;
    const char *dtype = NULL;
    if (st == DPT_OK)
        st = dpt_yaml_path(yaml, output, "directory", &job->directory);
    if (st == DPT_OK)
        st = get_choice(yaml, output, "checkpoint", "none|hdf5|safetensors", &checkpoint);
    if (st == DPT_OK)
        st = dpt_yaml_text(yaml, output, "dtype", &dtype);
    if (st == DPT_OK)
        st = dpt_yaml_boolean(yaml, output, "overwrite", &job->overwrite);
    if (st == DPT_OK)
        st = dpt_yaml_boolean(yaml, output, "report", &job->report);
    if (st != DPT_OK)
        return st;
    if (job->directory == NULL)
        return dpt_yaml_error(yaml, output, "output needs a directory");
    job->checkpoint = (dpt_store_format)checkpoint;
    job->same_dtype = dtype == NULL || strcmp(dtype, "same") == 0;
    char hint[DPT_NEAREST_HINT];
    if (!job->same_dtype &&
        (!dpt_dtype_parse(dtype, &job->dtype) || !dpt_dtype_editable(job->dtype)))
        return dpt_yaml_error(yaml, dpt_yaml_get(output, "dtype"),
                              "dtype is '%s'%s: it is one of same f32 f16 bf16", dtype,
                              dpt_nearest_of_list(dtype, "same f32 f16 bf16", " ", hint));
    return DPT_OK;
}

static dpt_status read_margin(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *margin = dpt_yaml_get(root, "margin");
    job->margin_share = 0.05;
    if (margin == NULL)
        return DPT_OK;
    dpt_status st = dpt_yaml_check_keys(yaml, margin, "margin", "share absolute");
    if (st == DPT_OK)
        st = dpt_yaml_real(yaml, margin, "share", 0, 10, &job->margin_share);
    if (st == DPT_OK)
        st = dpt_yaml_real(yaml, margin, "absolute", 0, 1e9, &job->margin);
    if (st != DPT_OK)
        return st;
    dpt_verdict_options options = dpt_verdict_defaults();
    options.share_margin = job->margin_share;
    if (dpt_yaml_get(margin, "absolute") != NULL)
        options.absolute_margin = job->margin;
    return dpt_yaml_locate(yaml, margin, dpt_verdict_check(&options));
}

static dpt_status read_statistics(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *map = dpt_yaml_get(root, "statistics");
    job->statistics = (dpt_job_statistics){.resamples = DPT_BOOTSTRAP_DEFAULT};
    if (map == NULL)
        return DPT_OK;
    int interval = 0;
    int64_t resamples = job->statistics.resamples;
    int64_t seed = 0;
    dpt_status st = dpt_yaml_check_keys(yaml, map, "statistics", "interval resamples seed");
    if (st == DPT_OK)
        st = get_choice(yaml, map, "interval", "t|bootstrap", &interval);
    if (st == DPT_OK)
        st = dpt_yaml_integer(yaml, map, "resamples", DPT_BOOTSTRAP_LEAST, DPT_BOOTSTRAP_MOST,
                              &resamples);
    if (st == DPT_OK)
        st = dpt_yaml_integer(yaml, map, "seed", 0, INT64_MAX, &seed);
    job->statistics.bootstrap = interval == 1;
    job->statistics.resamples = (int)resamples;
    job->statistics.seed = (uint64_t)seed;
    return st;
}

/* A whole number, or "auto" for 0. */
static dpt_status get_auto(const dpt_yaml *yaml, struct fy_node *map, const char *key, int64_t most,
                           int64_t *out) {
    const char *text = dpt_yaml_scalar(dpt_yaml_get(map, key));
    *out = 0;
    if (text != NULL && strcmp(text, "auto") == 0)
        return DPT_OK;
    return dpt_yaml_integer(yaml, map, key, 1, most, out);
}

static dpt_status read_resources(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    int64_t tensor_parallel;
    int64_t svd_group;
    dpt_status st = get_auto(yaml, root, "tensor_parallel", TENSOR_PARALLEL_MAX, &tensor_parallel);
    if (st == DPT_OK)
        st = get_auto(yaml, root, "svd_group", TENSOR_PARALLEL_MAX, &svd_group);
    if (st == DPT_OK)
        st = get_auto(yaml, root, "batch_tokens", INT32_MAX, &job->batch_tokens);
    if (st != DPT_OK)
        return st;
    job->tensor_parallel = (int)tensor_parallel;
    job->svd_group = (int)svd_group;
    return DPT_OK;
}

static dpt_status read_root(dpt_job *job, const dpt_yaml *yaml) {
    struct fy_node *root = fy_document_root(yaml->document);
    int policy = 0;
    dpt_status st =
        dpt_yaml_check_keys(yaml, root, "a job file",
                            "name models data edits select riemann output on_mismatch "
                            "allow margin statistics tensor_parallel svd_group batch_tokens");
    job->name = "study";
    if (st == DPT_OK)
        st = dpt_yaml_text(yaml, root, "name", &job->name);
    if (st == DPT_OK)
        st = read_models(job, yaml, root);
    if (st == DPT_OK)
        st = read_allow(job, yaml, root);
    if (st == DPT_OK)
        st = get_choice(yaml, root, "on_mismatch", "error|keep-post", &policy);
    job->on_mismatch = policy == 1 ? DPT_MISMATCH_KEEP_POST : DPT_MISMATCH_ERROR;
    if (st == DPT_OK)
        st = read_data(job, yaml, root);
    if (st == DPT_OK)
        st = read_edits(job, yaml, root);
    if (st == DPT_OK)
        st = read_select(job, yaml, root);
    if (st == DPT_OK)
        st = read_riemann(job, yaml, root);
    for (int e = 0; e < job->nedits && st == DPT_OK && !job->riemann; e++)
        if (dpt_edit_needs_gradient(&job->edits[e].spec))
            st = dpt_yaml_error(yaml, dpt_yaml_get(root, "riemann"),
                                "edit %s takes the gradient at W_post: leave out riemann: off",
                                job->edits[e].id);
        else if (job->edits[e].auto_data >= 0)
            st = dpt_yaml_error(yaml, dpt_yaml_get(root, "riemann"),
                                "edit %s is auto, which needs gradients: leave out riemann: off",
                                job->edits[e].id);
    if (st == DPT_OK)
        st = read_output(job, yaml, root);
    if (st == DPT_OK)
        st = read_margin(job, yaml, root);
    if (st == DPT_OK)
        st = read_statistics(job, yaml, root);
    if (st == DPT_OK)
        st = read_resources(job, yaml, root);
    return st;
}

/* The job's text, and the part of it that edited models depend on. */
static dpt_status print_texts(dpt_job *job) {
    dpt_yaml *copy = NULL;
    job->text = dpt_yaml_print(job->yaml);
    dpt_status st = job->text != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = dpt_yaml_parse(job->text, job->yaml->path, &copy);
    if (st == DPT_OK)
        st = dpt_yaml_set(copy, "output.directory=<any>");
    if (st == DPT_OK) {
        job->recipe = dpt_yaml_print(copy);
        st = job->recipe != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    dpt_yaml_destroy(copy);
    return st;
}

dpt_status dpt_job_parse(const char *text, const char *path, int nsets, const char *const *sets,
                         dpt_job *out) {
    *out = (dpt_job){.name = NULL};
    dpt_status st = dpt_yaml_parse(text, path, &out->yaml);
    for (int i = 0; i < nsets && st == DPT_OK; i++)
        st = dpt_yaml_set(out->yaml, sets[i]);
    if (st == DPT_OK)
        st = read_root(out, out->yaml);
    if (st == DPT_OK)
        st = print_texts(out);
    if (st != DPT_OK)
        dpt_job_destroy(out);
    return st;
}

/* Whole file into a counted block. */
static dpt_status read_text(const char *path, char **text) {
    char hint[DPT_NEAREST_PATH];
    *text = NULL;
    int64_t n = 0;
    if (access(path, R_OK) != 0) {
        int error = errno;
        return dpt_error(DPT_ERR_USAGE, "%s: %s%s: give the path of a job file", path,
                         strerror(error), dpt_nearest_path(path, hint));
    }
    dpt_status st = dpt_guard_input(path);
    if (st == DPT_OK)
        st = dpt_file_read(path, JOB_BYTES_MAX, text, &n);
    if (st == DPT_OK) {
        st = dpt_yaml_check_text(*text, (size_t)n, path);
    } else if (st == DPT_ERR_INPUT) {
        char message[DPT_MESSAGE_MAX];
        snprintf(message, sizeof message, "%s", dpt_error_message());
        dpt_error_clear();
        st = dpt_error(DPT_ERR_USAGE, "%s", message);
    }
    if (st != DPT_OK) {
        dpt_mem_free(*text);
        *text = NULL;
    }
    return st;
}

typedef struct job_trial {
    const char *text, *path;
    int nsets;
    const char *const *sets;
} job_trial;

static dpt_status try_job(void *ctx, char **bytes, int64_t *n) {
    const job_trial *t = ctx;
    dpt_job job;
    (void)bytes;
    (void)n;
    dpt_status st = dpt_job_parse(t->text, t->path, t->nsets, t->sets, &job);
    dpt_job_destroy(&job);
    return st;
}

/* First in a child process: a text on which libfyaml crashes or loops does so there. */
static dpt_status parse_apart(const job_trial *trial) {
    char *bytes = NULL;
    int64_t n = 0;
    dpt_status st = dpt_isolate_run(trial->path, try_job, (void *)(uintptr_t)trial, &bytes, &n);
    if (st != DPT_ERR_INPUT) /* the parser has no errors of that kind */
        return st;
    dpt_error_clear();
    return dpt_error(DPT_ERR_USAGE,
                     "%s: the YAML parser crashed or hung on it, or on a value of --set: write it "
                     "plainly",
                     trial->path);
}

dpt_status dpt_job_read(const dpt_comm *comm, const char *path, int nsets, const char *const *sets,
                        dpt_job *out) {
    *out = (dpt_job){.name = NULL};
    char *text = NULL;
    char *shared = NULL;
    dpt_status st = comm->rank == 0 ? read_text(path, &text) : DPT_OK;
    if (st == DPT_OK && comm->rank == 0)
        st = parse_apart(&(job_trial){text, path, nsets, sets});
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast_text(comm, text, 0, &shared));
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_job_parse(shared, path, nsets, sets, out));
    dpt_mem_free(shared);
    dpt_mem_free(text);
    return st;
}

void dpt_job_destroy(dpt_job *job) {
    for (int i = 0; i < job->nedits; i++) {
        dpt_mem_free(job->edits[i].id);
        dpt_mem_free(job->edits[i].method);
        dpt_mem_free(job->edits[i].params);
    }
    dpt_mem_free(job->edits);
    dpt_mem_free(job->data);
    dpt_mem_free(job->include);
    dpt_mem_free(job->exclude);
    dpt_mem_free(job->text);
    dpt_mem_free(job->recipe);
    dpt_yaml_destroy(job->yaml);
    *job = (dpt_job){.name = NULL};
}

/* Give the tensors that the patterns under a key match a value. */
static dpt_status mark(const dpt_job *job, const char *key, int count, const char **patterns,
                       const dpt_catalog *catalog, bool value, bool *selected) {
    struct fy_node *select = dpt_yaml_get(fy_document_root(job->yaml->document), "select");
    for (int i = 0; i < count; i++) {
        int hits = 0;
        for (int t = 0; t < catalog->count; t++) {
            if (fnmatch(patterns[i], catalog->tensors[t].name, 0) != 0)
                continue;
            selected[t] = value;
            hits++;
        }
        if (hits == 0)
            return dpt_yaml_error(
                job->yaml, fy_node_sequence_get_by_index(dpt_yaml_get(select, key), i),
                "select: the pattern '%s' matches no tensor of the post-trained model: "
                "`deltapath inspect` lists the names",
                patterns[i]);
    }
    return DPT_OK;
}

dpt_status dpt_job_select(const dpt_job *job, const dpt_catalog *catalog, bool *selected) {
    int left = 0;
    for (int t = 0; t < catalog->count; t++)
        selected[t] = job->ninclude == 0;
    dpt_status st = mark(job, "include", job->ninclude, job->include, catalog, true, selected);
    if (st == DPT_OK)
        st = mark(job, "exclude", job->nexclude, job->exclude, catalog, false, selected);
    for (int t = 0; t < catalog->count; t++)
        left += selected[t];
    if (st == DPT_OK && left == 0)
        st =
            dpt_yaml_error(job->yaml, dpt_yaml_get(fy_document_root(job->yaml->document), "select"),
                           "select: exclude leaves no tensor to edit: exclude fewer");
    return st;
}

dpt_status dpt_job_locate_edit(const dpt_job *job, const dpt_job_edit *edit, dpt_status status) {
    struct fy_node *list = dpt_yaml_get(fy_document_root(job->yaml->document), "edits");
    char place[DPT_MESSAGE_MAX / 4];
    snprintf(place, sizeof place, "edit %s", edit->id);
    status = dpt_error_locate(status, place);
    return dpt_yaml_locate(job->yaml, fy_node_sequence_get_by_index(list, edit->entry), status);
}

const char *dpt_job_loss_name(dpt_job_loss loss) {
    static const char *const names[] = {"lm", "dpo", "class"};
    return names[loss];
}

#include "deltapath/job/job.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/nearest.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/path/verdict.h"
#include "deltapath/tensor/role.h"
#include "deltapath/base/isolate.h"
#include "job_edits.h"
#include "job_keys.h"
#include "job_measures.h"
#include "yaml.h"

#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { JOB_BYTES_MAX = 16 << 20 };

/* A key that maps texts to texts: how it and one of its pairs are written, for messages, and what takes a pair. */
typedef struct text_map {
    const char *example, *pair;
    size_t size;
    bool (*set)(void *item, const char *from, const char *to); /* false: no such pair */
} text_map;

/* @param[out] items  as many as `count` says, also where one is wrong; the caller's. NULL: the key is not there. */
static dpt_status read_text_map(const dpt_yaml *yaml, struct fy_node *map, const text_map *of,
                                int *count, void **items) {
    if (map == NULL)
        return DPT_OK;
    int most = fy_node_is_mapping(map) ? fy_node_mapping_item_count(map) : 0;
    if (most == 0)
        return dpt_yaml_error(yaml, map, "%s", of->example);
    *items = dpt_mem_zalloc(most, of->size, "pairs of texts");
    if (*items == NULL)
        return DPT_ERR_OUTPUT;
    void *iterator = NULL;
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(map, &iterator)) != NULL;) {
        const char *from = dpt_yaml_scalar(fy_node_pair_key(pair));
        const char *to = dpt_yaml_scalar(fy_node_pair_value(pair));
        if (from == NULL || to == NULL ||
            !of->set((char *)*items + (size_t)*count * of->size, from, to))
            return dpt_yaml_error(yaml, fy_node_pair_key(pair), "%s", of->pair);
        ++*count;
    }
    return DPT_OK;
}

/* Prefixes and what stands in their place. An empty one begins every name. */
static bool set_rename(void *item, const char *from, const char *to) {
    *(dpt_rename *)item = (dpt_rename){.from = from, .to = to};
    return true;
}

static dpt_status read_renames(dpt_job *job, const dpt_yaml *yaml, struct fy_node *map) {
    static const text_map renames = {
        .example = "rename is {\"OLD PREFIX\": \"NEW PREFIX\", ...}",
        .pair = "rename maps the prefix of a name to another: write \"OLD PREFIX\": \"NEW PREFIX\"",
        .size = sizeof(dpt_rename),
        .set = set_rename};
    void *items = NULL;
    dpt_status st = read_text_map(yaml, map, &renames, &job->nrenames, &items);
    job->renames = items;
    return st;
}

static dpt_status read_models(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *models = dpt_yaml_get(root, "models");
    if (models == NULL)
        return dpt_yaml_error(yaml, root, "models is missing: write models: {pre: ..., post: ...}");
    dpt_status st = dpt_job_keys_read(yaml, models, "models", "models", job);
    return st == DPT_OK ? read_renames(job, yaml, dpt_yaml_get(models, "rename")) : st;
}

/* Keys that only another kind of loss has. */
static dpt_status check_loss_keys(const dpt_yaml *yaml, struct fy_node *entry, dpt_job_loss loss) {
    int count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    for (int k = 0; k < count; k++)
        if (!dpt_job_key_is_of(&keys[k], loss) && dpt_yaml_get(entry, keys[k].name) != NULL)
            return dpt_yaml_error(yaml, dpt_yaml_get(entry, keys[k].name),
                                  "%s belongs to loss %s alone", keys[k].name, keys[k].loss);
    return DPT_OK;
}

static dpt_status read_data_entry(dpt_job *job, const dpt_yaml *yaml, struct fy_node *entry) {
    dpt_job_data *data = &job->data[job->ndata];
    dpt_status st = dpt_job_keys_read(yaml, entry, "data", "a data set", data);
    if (st == DPT_OK)
        st = check_loss_keys(yaml, entry, data->loss);
    if (st != DPT_OK)
        return st;
    if (!dpt_job_name_valid(data->name))
        return dpt_yaml_error(yaml, entry, "data name '%s': use letters, digits and . _ + -",
                              data->name);
    data->other = -1;
    for (int i = 0; i < job->ndata; i++)
        if (strcmp(job->data[i].name, data->name) == 0)
            return dpt_yaml_error(yaml, entry, "two data sets are named '%s'", data->name);
    job->ndata++;
    return DPT_OK;
}

/* A part that only chooses is a data set of its own, whose name no entry can have. */
static dpt_status add_choosing_part(dpt_job *job, int entry) {
    dpt_job_data *part = &job->data[job->ndata];
    *part = job->data[entry];
    part->chooses = true;
    part->other = entry;
    part->own_name = dpt_mem_format("%s~choose", job->data[entry].name);
    part->name = part->own_name;
    if (part->own_name == NULL)
        return DPT_ERR_OUTPUT;
    job->data[entry].other = job->ndata++;
    return DPT_OK;
}

static dpt_status read_data(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *list;
    int count;
    dpt_status st = dpt_yaml_list(yaml, root, "data", &list, &count);
    if (st != DPT_OK || count == 0)
        return st;
    job->data = dpt_mem_zalloc(2 * (int64_t)count, sizeof *job->data, "data sets");
    if (job->data == NULL)
        return DPT_ERR_OUTPUT;
    void *iterator = NULL;
    for (struct fy_node *item;
         st == DPT_OK && (item = fy_node_sequence_iterate(list, &iterator)) != NULL;)
        st = read_data_entry(job, yaml, item);
    job->njudged = job->ndata;
    for (int d = 0; d < job->njudged && st == DPT_OK; d++)
        if (job->data[d].choose > 0.0)
            st = add_choosing_part(job, d);
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

static dpt_status read_select(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *select = dpt_yaml_get(root, "select");
    dpt_status st = dpt_job_keys_read(yaml, select, "select", "select", job);
    if (st == DPT_OK)
        st = dpt_job_read_patterns(yaml, select, "include", &job->ninclude, &job->include);
    if (st == DPT_OK)
        st = dpt_job_read_patterns(yaml, select, "exclude", &job->nexclude, &job->exclude);
    return st;
}

/* Edits without a path know no gradients. */
static dpt_status check_edits_alone(const dpt_job *job, const dpt_yaml *yaml,
                                    struct fy_node *riemann) {
    for (int e = 0; e < job->nedits; e++)
        if (dpt_edit_needs_gradient(&job->edits[e].spec))
            return dpt_yaml_error(yaml, riemann,
                                  "edit %s takes the gradient at W_post: leave out riemann: off",
                                  job->edits[e].id);
        else if (job->edits[e].auto_data >= 0)
            return dpt_yaml_error(yaml, riemann,
                                  "edit %s seeks its values, which needs gradients: leave out "
                                  "riemann: off",
                                  job->edits[e].id);
    return DPT_OK;
}

static dpt_status read_riemann(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *riemann = dpt_yaml_get(root, "riemann");
    const char *text = dpt_yaml_scalar(riemann);
    job->riemann = text == NULL;
    if (text != NULL && strcmp(text, "off") != 0)
        return dpt_yaml_error(yaml, riemann, "riemann is 'off' or {rule: ..., points: ...}");
    dpt_status st =
        dpt_job_keys_read(yaml, text == NULL ? riemann : NULL, "riemann", "riemann", job);
    if (text == NULL && dpt_yaml_get(riemann, "points") != NULL &&
        dpt_yaml_get(riemann, "rule") == NULL)
        job->rule = DPT_RULE_LEFT; /* points that somebody counts are the paper's */
    if (st == DPT_OK && riemann != NULL)
        st = dpt_yaml_locate(yaml, riemann, dpt_quadrature_check(job->rule, job->points));
    return st == DPT_OK && !job->riemann ? check_edits_alone(job, yaml, riemann) : st;
}

/* Of MPI's own limits, which are those of its arrays. */
static bool set_hint(void *item, const char *from, const char *to) {
    *(dpt_store_hint *)item = (dpt_store_hint){.name = from, .value = to};
    return from[0] != '\0' && to[0] != '\0' && strlen(from) < MPI_MAX_INFO_KEY &&
           strlen(to) < MPI_MAX_INFO_VAL;
}

static dpt_status read_hints(dpt_job *job, const dpt_yaml *yaml, struct fy_node *map) {
    static const text_map hints = {
        .example = "hints is {striping_factor: 8, cb_nodes: 4, ...}",
        .pair = "a hint of MPI-IO is a name and a value: write striping_factor: 8",
        .size = sizeof(dpt_store_hint),
        .set = set_hint};
    void *items = NULL;
    dpt_status st = read_text_map(yaml, map, &hints, &job->nhints, &items);
    job->hints = items;
    return st;
}

dpt_store_layout dpt_job_layout(const dpt_job *job) {
    return (dpt_store_layout){.io = job->io,
                              .chunk_bytes = (int64_t)job->chunk_mib << 20,
                              .deflate = job->deflate,
                              .nhints = job->nhints,
                              .hints = job->hints};
}

/* What only HDF5 has. */
static dpt_status check_layout(const dpt_job *job, const dpt_yaml *yaml, struct fy_node *output) {
    static const char *const names[] = {"io", "chunk", "compress"};
    const bool given[] = {job->io != DPT_STORE_DIRECT, job->chunk_mib > 0, job->deflate > 0};
    for (int i = 0; i < 3; i++)
        if (given[i] && job->checkpoint != DPT_STORE_HDF5)
            return dpt_yaml_error(yaml, dpt_yaml_get(output, names[i]),
                                  "output.%s is for HDF5: set output.checkpoint: hdf5, or leave it "
                                  "out",
                                  names[i]);
    return DPT_OK;
}

static dpt_status check_content(const dpt_job *job, const dpt_yaml *yaml, struct fy_node *output) {
    struct fy_node *content = dpt_yaml_get(output, "content");
    if (job->content == DPT_STORE_MODEL)
        return DPT_OK;
    if (job->checkpoint == DPT_STORE_NONE)
        return dpt_yaml_error(yaml, content,
                              "output.content says what is kept of edited models, and none are: "
                              "set output.checkpoint, or leave output.content out");
    if (job->requantises)
        return dpt_yaml_error(yaml, content,
                              "output.content keeps plain tensors: leave output.quantise out");
    return DPT_OK;
}

static dpt_status read_output(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *output = dpt_yaml_get(root, "output");
    if (output == NULL)
        return dpt_yaml_error(yaml, root, "output is missing: write output: {directory: out/%s}",
                              job->name);
    dpt_status st = dpt_job_keys_read(yaml, output, "output", "output", job);
    if (st == DPT_OK) {
        job->same_dtype = strcmp(job->dtype_name, "same") == 0;
        if (!job->same_dtype && !dpt_dtype_parse(job->dtype_name, &job->dtype))
            st = dpt_error(DPT_ERR_INTERNAL, "no type %s", job->dtype_name);
        if (st == DPT_OK && job->requantises && !job->same_dtype)
            st = dpt_yaml_error(yaml, dpt_yaml_get(output, "quantise"),
                                "output.quantise keeps the types of the post-trained model: "
                                "leave output.dtype out");
    }
    if (st == DPT_OK)
        st = read_hints(job, yaml, dpt_yaml_get(output, "hints"));
    if (st == DPT_OK)
        st = check_layout(job, yaml, output);
    return st == DPT_OK ? check_content(job, yaml, output) : st;
}

static dpt_status read_margin(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *margin = dpt_yaml_get(root, "margin");
    dpt_status st = dpt_job_keys_read(yaml, margin, "margin", "margin", job);
    if (st != DPT_OK || margin == NULL)
        return st;
    dpt_verdict_options options = dpt_verdict_defaults();
    options.margins.share = job->margin_share;
    if (dpt_yaml_get(margin, "absolute") != NULL)
        options.margins.absolute = job->margin;
    return dpt_yaml_locate(yaml, margin, dpt_verdict_check(&options));
}

/* Sections that need more than their keys read, and lists, whose entries have structs of their own. */
static const struct job_reader {
    const char *section;
    dpt_status (*read)(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root);
} readers[] = {
    {"models", read_models},       {"data", read_data},          {"edits", read_edits},
    {"select", read_select},       {"riemann", read_riemann},    {"output", read_output},
    {"margin", read_margin},       {"law", dpt_job_read_law},    {"hessian", dpt_job_read_hessian},
    {"plane", dpt_job_read_plane}, {"proof", dpt_job_read_proof}};

/* One after another as in the table of keys: edits look for data, the path for edits. */
static dpt_status read_section(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root,
                               const dpt_job_key *key) {
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
        if (strcmp(readers[i].section, key->name) == 0)
            return readers[i].read(job, yaml, root);
    struct fy_node *map = dpt_yaml_get(root, key->name);
    if (map == NULL && key->required)
        return dpt_yaml_error(yaml, root, "a job file needs %s", key->name);
    return dpt_job_keys_read(yaml, map, key->name, key->name, job);
}

static dpt_status read_root(dpt_job *job, const dpt_yaml *yaml) {
    struct fy_node *root = fy_document_root(yaml->document);
    dpt_status st = dpt_job_keys_read(yaml, root, "", "a job file", job);
    if (st == DPT_OK && !dpt_job_name_valid(job->name))
        st =
            dpt_yaml_error(yaml, dpt_yaml_get(root, "name"),
                           "name '%s': use letters, digits and . _ + -, no dot at the start and no "
                           ".h5 at the end",
                           job->name);
    int count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    for (int k = 0; k < count && st == DPT_OK; k++)
        if (dpt_job_key_is_section(&keys[k]))
            st = read_section(job, yaml, root, &keys[k]);
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
    DPT_ASSERT_SAME_TEXT(comm, path);
    DPT_ASSERT_SAME(comm, nsets);
    for (int i = 0; i < nsets; i++)
        DPT_ASSERT_SAME_TEXT(comm, sets[i]);
    *out = (dpt_job){.name = NULL};
    char *text = NULL;
    char *shared = NULL;
    dpt_status st = comm->rank == 0 ? read_text(path, &text) : DPT_OK;
    if (st == DPT_OK && comm->rank == 0)
        st = parse_apart(&(job_trial){text, path, nsets, sets});
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast_string(comm, text, 0, &shared));
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
    for (int d = 0; d < job->ndata; d++)
        dpt_mem_free(job->data[d].own_name);
    dpt_mem_free(job->data);
    dpt_mem_free(job->renames);
    dpt_mem_free(job->hints);
    dpt_mem_free(job->include);
    dpt_mem_free(job->exclude);
    dpt_mem_free(job->proof.edits);
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
    for (int t = 0; t < catalog->count; t++) {
        selected[t] = selected[t] && !dpt_role_is_buffer(&catalog->tensors[t]);
        left += selected[t];
    }
    if (st == DPT_OK && left == 0)
        st =
            dpt_yaml_error(job->yaml, dpt_yaml_get(fy_document_root(job->yaml->document), "select"),
                           "select: exclude leaves no tensor to edit: exclude fewer");
    return st;
}

dpt_status dpt_job_locate_select(const dpt_job *job, dpt_status status) {
    struct fy_node *root = fy_document_root(job->yaml->document);
    return dpt_yaml_locate(job->yaml, dpt_yaml_get(root, "select"), status);
}

dpt_status dpt_job_locate_edit(const dpt_job *job, const dpt_job_edit *edit, dpt_status status) {
    struct fy_node *list = dpt_yaml_get(fy_document_root(job->yaml->document), "edits");
    char place[DPT_MESSAGE_MAX / 4];
    snprintf(place, sizeof place, "edit %s", edit->id);
    status = dpt_error_locate(status, place);
    return dpt_yaml_locate(job->yaml, fy_node_sequence_get_by_index(list, edit->entry), status);
}

const char *dpt_job_loss_name(dpt_job_loss loss) {
#define JOB_LOSS_NAME(constant, name) #name,
    static const char *const names[] = {DPT_LOSS_LIST(JOB_LOSS_NAME)};
    return names[loss];
}

int dpt_job_chosen_on(const dpt_job_edit *edit) {
    if (edit->auto_data >= 0)
        return edit->auto_data;
    return dpt_edit_needs_gradient(&edit->spec) ? edit->gradient_data : -1;
}

bool dpt_job_is_allocated(const dpt_job_edit *edit) {
    return strcmp(dpt_edit_method_name(edit->spec.stages[0].method), "allocate") == 0;
}

int dpt_job_law_draws(const dpt_job *job, int d) {
    bool wanted = d < job->njudged;
    for (int e = 0; e < job->nedits; e++)
        wanted = wanted || (job->edits[e].auto_data == d && dpt_job_is_allocated(&job->edits[e]));
    if (wanted && job->law.labels == DPT_LABELS_ALL)
        return 1; /* all of them make one exact draw */
    return wanted ? job->law.repeats : 0;
}

bool dpt_job_takes_gradient(const dpt_job *job, int d) {
    for (int e = 0; e < job->nedits; e++)
        if (job->edits[e].gradient_data == d && dpt_edit_needs_gradient(&job->edits[e].spec))
            return true;
    return false;
}

bool dpt_job_judges(const dpt_job_edit *edit, int d) {
    return d < 0 || edit->judge_data < 0 || edit->judge_data == d;
}

void dpt_job_hash_for_units(const dpt_job *job, dpt_hash *hash) {
    dpt_job_keys_hash_job(DPT_REDO_UNITS, job, hash);
    const uint64_t law[] = {(uint64_t)job->law.repeats, job->law.seed};
    if (job->law.labels == DPT_LABELS_ALL)
        dpt_hash_update(hash, "all labels", sizeof "all labels");
    else if (law[0] > 0) /* units without it stay as they are, whatever its seed */
        dpt_hash_update(hash, law, sizeof law);
    const uint64_t probes[] = {(uint64_t)job->law.probes, job->law.seed};
    if (probes[0] > 0)
        dpt_hash_update(hash, probes, sizeof probes);
    const dpt_job_hessian *asked = &job->hessian;
    bool draws = asked->probes > 0 || asked->lanczos > 0;
    const uint64_t hessian[] = {asked->edits,
                                (uint64_t)asked->blocks,
                                (uint64_t)asked->probes,
                                (uint64_t)asked->lanczos,
                                asked->lanczos > 0 ? (uint64_t)asked->steps : 0,
                                draws ? asked->seed : 0};
    if (asked->edits || draws)
        dpt_hash_update(hash, hessian, sizeof hessian);
}

void dpt_job_hash_for_models(const dpt_job *job, dpt_hash *hash) {
    dpt_job_keys_hash_job(DPT_REDO_MODELS, job, hash);
}

bool dpt_job_same_loss(const dpt_job_data *a, const dpt_job_data *b) {
    return a->loss == b->loss && dpt_job_keys_same_loss(a, b);
}

void dpt_job_hash_edit(const dpt_job_edit *edit, dpt_hash *hash) {
    double cut_from = dpt_edit_cut_from(&edit->spec);
    dpt_hash_update(hash, edit->id, strlen(edit->id) + 1);
    dpt_hash_update(hash, edit->method, strlen(edit->method) + 1);
    dpt_hash_update(hash, edit->params, strlen(edit->params) + 1);
    if (!isnan(cut_from))
        dpt_hash_update(hash, &cut_from, sizeof cut_from);
}

void dpt_job_hash_data(const dpt_job_data *data, dpt_hash *hash) {
    dpt_job_keys_hash("data", DPT_REDO_UNITS, data, hash);
}

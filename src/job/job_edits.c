#include "job_edits.h"
#include "job_keys.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/nearest.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AXES_MAX = 32, EDITS_MAX = 100000, ID_MAX = 200, TEXT_MAX = 1024, AXIS_SEED = 24 };

/* One parameter of an entry: a single value, a list that sweeps, or for `seeds` a count of them. */
typedef struct axis {
    int stage; /* -1: a key of the entry itself */
    const char *key;
    struct fy_node *value;
    int count;
    bool swept;
    bool counted; /* seeds from first_seed on, in place of a list */
    uint64_t first_seed;
} axis;

typedef struct sweep {
    const char *name;
    int nstages;
    int methods[DPT_EDIT_STAGE_MAX];
    int naxes;
    axis axes[AXES_MAX];
} sweep;

bool dpt_job_name_valid(const char *name) {
    size_t n = strlen(name);
    /* Outputs are named after it: an HDF5 file ends with .h5, temporary files with these. */
    if (n == 0 || n > 100 || name[0] == '.' || (n > 2 && strcmp(name + n - 3, ".h5") == 0) ||
        strstr(name, "-deltapath") != NULL)
        return false;
    for (const char *c = name; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("._+-", *c) == NULL)
            return false;
    return true;
}

static dpt_status add_axis(sweep *all, const dpt_yaml *yaml, int stage, struct fy_node *key,
                           struct fy_node *value) {
    if (all->naxes == AXES_MAX)
        return dpt_yaml_error(yaml, key, "more than %d parameters in one edit", AXES_MAX);
    axis one = {.stage = stage, .key = dpt_yaml_scalar(key), .value = value, .count = 1};
    if (fy_node_is_sequence(value)) {
        one.swept = true;
        one.count = fy_node_sequence_item_count(value);
        if (one.count == 0)
            return dpt_yaml_error(yaml, key, "the list of '%s' is empty", one.key);
    }
    all->axes[all->naxes++] = one;
    return DPT_OK;
}

static dpt_status find_method(const dpt_yaml *yaml, struct fy_node *node, int *method) {
    const char *name = dpt_yaml_scalar(node);
    *method = name != NULL ? dpt_edit_method_find(name) : -1;
    if (*method >= 0)
        return DPT_OK;
    char known[512] = "";
    for (int m = 0; m < dpt_edit_method_count(); m++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, " %s", dpt_edit_method_name(m));
    }
    char hint[DPT_NEAREST_HINT];
    return dpt_yaml_error(yaml, node, "unknown method '%s'%s: it is one of%s",
                          name != NULL ? name : "?",
                          dpt_nearest_of_list(name != NULL ? name : "", known, " ", hint), known);
}

static bool method_knows(int method, const char *key) {
    const dpt_edit_param *params;
    int count = dpt_edit_method_params(method, &params);
    for (int i = 0; i < count; i++)
        if (strcmp(params[i].name, key) == 0)
            return true;
    return false;
}

#define ENTRY_KEYS "name method seed seeds calibrate data choose judge"

/* What an unknown key of an entry may have meant, of the parameters of its method and of all entries. */
static const char *hint_key(const char *key, const char *params, char hint[DPT_NEAREST_HINT]) {
    dpt_nearest nearest = dpt_nearest_begin(key);
    dpt_nearest_offer_list(&nearest, params, " ");
    dpt_nearest_offer_list(&nearest, ENTRY_KEYS, " ");
    dpt_nearest_hint(&nearest, hint);
    return hint;
}

static dpt_status unknown_param(const dpt_yaml *yaml, struct fy_node *node, int method) {
    char known[512] = "";
    const dpt_edit_param *params;
    int count = dpt_edit_method_params(method, &params);
    for (int i = 0; i < count; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, " %s", params[i].name);
    }
    const char *key = dpt_yaml_scalar(node);
    char hint[DPT_NEAREST_HINT];
    return dpt_yaml_error(
        yaml, node, "unknown key '%s' of method %s%s: it knows:%s; and of an entry: " ENTRY_KEYS,
        key != NULL ? key : "?", dpt_edit_method_name(method),
        hint_key(key != NULL ? key : "", known, hint), known);
}

/* Keys of an entry that may be swept, besides the parameters of its method. */
static bool is_entry_key(const char *key) {
    static const char *const keys[] = {"seed", "seeds", "calibrate", "data", "choose", "judge"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

/* The keys of one stage: those of its method; the entry itself also has name, method and its own. */
static dpt_status collect_stage(sweep *all, const dpt_yaml *yaml, struct fy_node *map, int stage,
                                bool outermost) {
    void *iterator = NULL;
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(map, &iterator)) != NULL;) {
        struct fy_node *node = fy_node_pair_key(pair);
        const char *key = dpt_yaml_scalar(node);
        char hint[DPT_NEAREST_HINT];
        dpt_status st = DPT_OK;
        if (key != NULL && (strcmp(key, "method") == 0 || (outermost && strcmp(key, "name") == 0)))
            continue;
        if (key != NULL && outermost && is_entry_key(key))
            st = add_axis(all, yaml, -1, node, fy_node_pair_value(pair));
        else if (key != NULL && stage >= 0 && method_knows(all->methods[stage], key))
            st = add_axis(all, yaml, stage, node, fy_node_pair_value(pair));
        else if (stage < 0)
            st = dpt_yaml_error(
                yaml, node,
                "unknown key '%s' besides a sequence of methods%s: it knows: " ENTRY_KEYS
                "; parameters belong into the sequence",
                key != NULL ? key : "?", hint_key(key != NULL ? key : "", "", hint));
        else
            st = unknown_param(yaml, node, all->methods[stage]);
        if (st != DPT_OK)
            return st;
    }
    return DPT_OK;
}

static dpt_status collect_sequence(sweep *all, const dpt_yaml *yaml, struct fy_node *list) {
    all->nstages = 0;
    void *iterator = NULL;
    for (struct fy_node *item; (item = fy_node_sequence_iterate(list, &iterator)) != NULL;) {
        if (!fy_node_is_mapping(item))
            return dpt_yaml_error(yaml, item,
                                  "a sequence lists mappings such as {method: prune, keep: 0.3}");
        if (all->nstages == DPT_EDIT_STAGE_MAX)
            return dpt_yaml_error(yaml, item, "more than %d methods in a sequence",
                                  DPT_EDIT_STAGE_MAX);
        struct fy_node *method = dpt_yaml_get(item, "method");
        if (method == NULL)
            return dpt_yaml_error(yaml, item, "this step of the sequence has no method");
        dpt_status st = find_method(yaml, method, &all->methods[all->nstages]);
        if (st == DPT_OK)
            st = collect_stage(all, yaml, item, all->nstages++, false);
        if (st != DPT_OK)
            return st;
    }
    if (all->nstages == 0)
        return dpt_yaml_error(yaml, list, "the sequence of methods is empty");
    return DPT_OK;
}

/* A key that an entry lacks, with the one in its place that may have been meant. */
static dpt_status missing_key(const dpt_yaml *yaml, struct fy_node *entry, const char *missing,
                              const char *what) {
    void *iterator = NULL;
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(entry, &iterator)) != NULL;) {
        const char *key = dpt_yaml_scalar(fy_node_pair_key(pair));
        char hint[DPT_NEAREST_HINT];
        bool known = key == NULL || is_entry_key(key) || strcmp(key, "name") == 0 ||
                     strcmp(key, "method") == 0;
        if (!known && dpt_nearest_of_list(key, missing, " ", hint)[0] != '\0')
            return dpt_yaml_error(yaml, fy_node_pair_key(pair), "%s has no %s: it has '%s'%s", what,
                                  missing, key, hint);
    }
    return dpt_yaml_error(yaml, entry, "%s has no %s", what, missing);
}

static dpt_status collect(sweep *all, const dpt_yaml *yaml, struct fy_node *entry) {
    if (!fy_node_is_mapping(entry))
        return dpt_yaml_error(yaml, entry, "an edit is a mapping with name and method");
    dpt_status st = dpt_yaml_string(yaml, entry, "name", &all->name);
    if (st != DPT_OK)
        return st;
    if (all->name == NULL)
        return missing_key(yaml, entry, "name", "this edit");
    if (!dpt_job_name_valid(all->name))
        return dpt_yaml_error(yaml, dpt_yaml_get(entry, "name"),
                              "edit name '%s': use letters, digits and . _ + -, no dot at the "
                              "start and no .h5 at the end",
                              all->name);
    struct fy_node *method = dpt_yaml_get(entry, "method");
    if (method == NULL) {
        char what[ID_MAX];
        snprintf(what, sizeof what, "edit %s", all->name);
        return missing_key(yaml, entry, "method", what);
    }
    if (fy_node_is_sequence(method)) {
        st = collect_stage(all, yaml, entry, -1, true);
        return st == DPT_OK ? collect_sequence(all, yaml, method) : st;
    }
    all->nstages = 1;
    st = find_method(yaml, method, &all->methods[0]);
    return st == DPT_OK ? collect_stage(all, yaml, entry, 0, true) : st;
}

static struct fy_node *axis_value(const axis *one, int index) {
    return one->swept && !one->counted ? fy_node_sequence_get_by_index(one->value, index)
                                       : one->value;
}

static dpt_status set_seed(const dpt_yaml *yaml, struct fy_node *node, uint64_t *seed) {
    const char *text = dpt_yaml_scalar(node);
    char *end = NULL;
    errno = 0;
    unsigned long long value = text != NULL && text[0] != '-' ? strtoull(text, &end, 10) : 0;
    if (end == NULL || end == text || *end != '\0' || errno != 0)
        return dpt_yaml_error(yaml, node, "seed is '%s': it must be an integer from 0",
                              text != NULL ? text : "?");
    *seed = value;
    return DPT_OK;
}

static axis *sweep_find_axis(sweep *all, const char *key) {
    for (int a = 0; a < all->naxes; a++)
        if (all->axes[a].stage < 0 && strcmp(all->axes[a].key, key) == 0)
            return &all->axes[a];
    return NULL;
}

/* `seeds: 5` becomes the list seed, seed + 1, ... in its place; the first seed is no axis then. */
static dpt_status sweep_count_seeds(sweep *all, const dpt_yaml *yaml) {
    axis *seeds = sweep_find_axis(all, "seeds");
    axis *seed = sweep_find_axis(all, "seed");
    if (seeds == NULL)
        return DPT_OK;
    uint64_t count = 0;
    const char *text = dpt_yaml_scalar(seeds->value);
    char *end = NULL;
    if (text != NULL && isdigit((unsigned char)text[0]))
        count = strtoull(text, &end, 10);
    if (end == NULL || *end != '\0' || count < 1 || count > EDITS_MAX)
        return dpt_yaml_error(yaml, seeds->value,
                              "seeds is '%s': it must be how many, an integer from 1 to %d; a list "
                              "of them is a value of seed",
                              text != NULL ? text : "?", EDITS_MAX);
    if (seed != NULL && seed->swept)
        return dpt_yaml_error(yaml, seeds->value,
                              "seeds counts from one seed on, and seed is a list: leave one out");
    uint64_t first = 0;
    dpt_status st = seed != NULL ? set_seed(yaml, seed->value, &first) : DPT_OK;
    if (st == DPT_OK && first > UINT64_MAX - count)
        st = dpt_yaml_error(yaml, seed->value, "so many seeds from %" PRIu64 " on do not exist",
                            first);
    if (st != DPT_OK)
        return st;
    *seeds = (axis){.stage = -1,
                    .key = "seed",
                    .value = seeds->value,
                    .count = (int)count,
                    .swept = true,
                    .counted = true,
                    .first_seed = first};
    if (seed != NULL) {
        axis *last = &all->axes[--all->naxes];
        memmove(seed, seed + 1, (size_t)(last - seed) * sizeof *seed);
    }
    return DPT_OK;
}

static dpt_status set_calibrate(const dpt_yaml *yaml, struct fy_node *node,
                                dpt_edit_calibrate *calibrate) {
    int choice = dpt_job_keys_choose(yaml, node, "edits", "calibrate");
    if (choice >= 0)
        *calibrate = (dpt_edit_calibrate)choice;
    return choice >= 0 ? DPT_OK : DPT_ERR_USAGE;
}

/* One of the entries of `data`, for the key that names it. */
static dpt_status set_data(const dpt_job *job, const dpt_yaml *yaml, struct fy_node *node,
                           const char *key, const char *text, int *data) {
    for (int d = 0; d < job->njudged; d++)
        if (strcmp(job->data[d].name, text) == 0) {
            *data = d;
            return DPT_OK;
        }
    char hint[DPT_NEAREST_HINT];
    dpt_nearest nearest = dpt_nearest_begin(text);
    for (int d = 0; d < job->njudged; d++)
        dpt_nearest_offer(&nearest, job->data[d].name, strlen(job->data[d].name));
    dpt_nearest_hint(&nearest, hint);
    return dpt_yaml_error(yaml, node, "%s is '%s'%s: name one of the data sets of this job", key,
                          text, hint);
}

/* Text of a value of an axis, as in the job file; NULL: it is no single value. */
static const char *axis_text(const axis *one, int index, char seed[AXIS_SEED]) {
    if (!one->counted)
        return dpt_yaml_scalar(axis_value(one, index));
    snprintf(seed, AXIS_SEED, "%" PRIu64, one->first_seed + (uint64_t)index);
    return seed;
}

static dpt_status set_value(dpt_job_edit *edit, const dpt_job *job, const dpt_yaml *yaml,
                            const axis *one, int index) {
    struct fy_node *node = axis_value(one, index);
    if (one->counted) {
        edit->spec.seed = one->first_seed + (uint64_t)index;
        return DPT_OK;
    }
    if (one->stage < 0 && strcmp(one->key, "seed") == 0)
        return set_seed(yaml, node, &edit->spec.seed);
    const char *text = dpt_yaml_scalar(node);
    if (text == NULL)
        return dpt_yaml_error(yaml, node, "%s must be one value or a list of values", one->key);
    if (one->stage < 0 && strcmp(one->key, "calibrate") == 0)
        return set_calibrate(yaml, node, &edit->spec.calibrate);
    if (one->stage < 0)
        return set_data(job, yaml, node, one->key, text,
                        strcmp(one->key, "judge") == 0 ? &edit->judge_data : &edit->gradient_data);
    return dpt_yaml_locate(yaml, node,
                           dpt_edit_stage_set(&edit->spec.stages[one->stage], one->key, text));
}

/* The samples of an entry that choose: a part that only chooses, else all. */
static int data_that_chooses(const dpt_job *job, int d) {
    return job->data[d].other >= 0 ? job->data[d].other : d;
}

static const char *sought_name(const dpt_job_edit *edit) {
    return dpt_job_is_allocated(edit) ? "allocate" : "auto";
}

/* Which data set an automatic parameter is found on, if there is one: what the edit names, else `auto_data`. */
static dpt_status set_auto(dpt_job_edit *edit, const dpt_job *job, const dpt_yaml *yaml,
                           struct fy_node *entry, int auto_data) {
    for (int s = 0; s < edit->spec.nstages; s++) {
        if (!dpt_edit_stage_is_auto(&edit->spec.stages[s]))
            continue;
        if (edit->spec.nstages > 1)
            return dpt_yaml_error(yaml, entry,
                                  "%s is for an edit of one method, not inside a sequence",
                                  sought_name(edit));
        if (job->ndata == 0)
            return dpt_yaml_error(yaml, entry, "%s needs data: it seeks what their loss says",
                                  sought_name(edit));
        edit->auto_data =
            data_that_chooses(job, edit->gradient_data >= 0 ? edit->gradient_data : auto_data);
        edit->gradient_data = -1;
    }
    return DPT_OK;
}

/* Whose gradient the edit takes: that of the data set that it names, else of the first. One that edits by it is chosen
 * from data; the correlation of a mask is measured where the edit is judged. */
static dpt_status set_gradient(dpt_job_edit *edit, const dpt_job *job, const dpt_yaml *yaml,
                               struct fy_node *entry) {
    bool needs = dpt_edit_needs_gradient(&edit->spec);
    if (needs && job->ndata == 0)
        return dpt_yaml_error(yaml, entry, "edit %s takes the gradient at W_post, which needs data",
                              edit->name);
    if (needs || dpt_edit_draws_mask(&edit->spec)) {
        if (edit->gradient_data < 0 && job->ndata > 0)
            edit->gradient_data = 0;
        if (needs)
            edit->gradient_data = data_that_chooses(job, edit->gradient_data);
    } else if (edit->gradient_data >= 0) {
        return dpt_yaml_error(
            yaml, entry, "edit %s names data, but takes no gradient: leave data out", edit->name);
    }
    return DPT_OK;
}

/* `choose` is `data` of an edit that chooses something from it. */
static dpt_status check_choose(sweep *all, const dpt_job_edit *edit, const dpt_yaml *yaml) {
    const axis *choose = sweep_find_axis(all, "choose");
    if (choose == NULL)
        return DPT_OK;
    if (sweep_find_axis(all, "data") != NULL)
        return dpt_yaml_error(yaml, choose->value,
                              "edit %s has data and choose, which name the same: leave data out",
                              edit->name);
    if (edit->auto_data < 0 && !dpt_edit_needs_gradient(&edit->spec))
        return dpt_yaml_error(
            yaml, choose->value,
            "edit %s names choose, but chooses nothing from data: leave choose out", edit->name);
    return DPT_OK;
}

/* Name of the entry on whose samples alpha is sought. */
static const char *auto_name(const dpt_job *job, const dpt_job_edit *edit) {
    const dpt_job_data *data = &job->data[edit->auto_data];
    return data->chooses ? job->data[data->other].name : data->name;
}

static bool names_data(sweep *all) {
    return sweep_find_axis(all, "data") != NULL || sweep_find_axis(all, "choose") != NULL;
}

/* One point of the sweep. */
static dpt_status sweep_build(sweep *all, const dpt_job *job, const dpt_yaml *yaml, const int *at,
                              struct fy_node *entry, int auto_data, dpt_job_edit *edit) {
    char id[ID_MAX];
    char params[TEXT_MAX] = "";
    char method[TEXT_MAX] = "";
    snprintf(id, sizeof id, "%s", all->name);
    edit->name = all->name;
    edit->gradient_data = edit->auto_data = edit->judge_data = -1;
    edit->spec.nstages = all->nstages;
    for (int s = 0; s < all->nstages; s++) {
        size_t used = strlen(method);
        snprintf(method + used, sizeof method - used, "%s%s", s > 0 ? "+" : "",
                 dpt_edit_method_name(all->methods[s]));
        dpt_edit_stage_init(&edit->spec.stages[s], all->methods[s]);
    }
    for (int a = 0; a < all->naxes; a++) {
        char seed[AXIS_SEED];
        dpt_status st = set_value(edit, job, yaml, &all->axes[a], at[a]);
        if (st != DPT_OK)
            return st;
        const char *text = axis_text(&all->axes[a], at[a], seed);
        size_t used = strlen(params);
        snprintf(params + used, sizeof params - used, "%s%s=%s", used > 0 ? " " : "",
                 all->axes[a].key, text);
        used = strlen(id);
        if (all->axes[a].swept)
            snprintf(id + used, sizeof id - used, "-%s%s", all->axes[a].key, text);
    }
    dpt_status st = dpt_yaml_locate(yaml, entry, dpt_edit_spec_check(&edit->spec));
    if (st == DPT_OK)
        st = set_auto(edit, job, yaml, entry, auto_data);
    if (st == DPT_OK)
        st = check_choose(all, edit, yaml);
    if (st == DPT_OK)
        st = set_gradient(edit, job, yaml, entry);
    if (st != DPT_OK)
        return st;
    if (edit->auto_data >= 0 && job->njudged > 1 && !names_data(all)) {
        size_t used = strlen(id);
        snprintf(id + used, sizeof id - used, "-on-%s", auto_name(job, edit));
    }
    if (strlen(id) + 1 == sizeof id)
        return dpt_yaml_error(yaml, entry, "the id of this edit is too long");
    edit->id = dpt_mem_strdup(id, "edit id");
    edit->params = dpt_mem_strdup(params, "edit parameters");
    edit->method = dpt_mem_strdup(method, "edit method");
    bool complete = edit->id != NULL && edit->params != NULL && edit->method != NULL;
    return complete ? DPT_OK : DPT_ERR_OUTPUT;
}

/* The values of one point of a sweep, the first list outermost. */
static void sweep_place_of(const sweep *all, int64_t point, int *at) {
    for (int a = all->naxes - 1; a >= 0; a--) {
        at[a] = (int)(point % all->axes[a].count);
        point /= all->axes[a].count;
    }
}

static dpt_status sweep_append(dpt_job *job, sweep *all, const dpt_yaml *yaml, const int *at,
                               int place, struct fy_node *entry, int auto_data) {
    dpt_job_edit *grown =
        dpt_mem_realloc(job->edits, (int64_t)job->nedits + 1, sizeof *grown, "edits");
    if (grown == NULL)
        return DPT_ERR_OUTPUT;
    job->edits = grown;
    grown[job->nedits] = (dpt_job_edit){.entry = place};
    return sweep_build(all, job, yaml, at, entry, auto_data, &job->edits[job->nedits++]);
}

/* Edits of one entry that decompose the same matrices. */
static dpt_status sweep_share(dpt_job *job, int first) {
    int count = job->nedits - first;
    dpt_edit_spec **specs = dpt_mem_alloc(count, sizeof *specs, "edits of a sweep");
    if (specs == NULL)
        return DPT_ERR_OUTPUT;
    for (int i = 0; i < count; i++)
        specs[i] = &job->edits[first + i].spec;
    dpt_edit_share_decompositions(count, specs);
    dpt_mem_free(specs);
    return DPT_OK;
}

dpt_status dpt_job_edits_expand(dpt_job *job, const dpt_yaml *yaml, int place,
                                struct fy_node *entry) {
    sweep all = {.name = NULL};
    int first = job->nedits;
    dpt_status st = collect(&all, yaml, entry);
    if (st == DPT_OK)
        st = sweep_count_seeds(&all, yaml);
    int64_t points = 1;
    for (int a = 0; a < all.naxes && st == DPT_OK; a++)
        if ((points *= all.axes[a].count) + job->nedits > EDITS_MAX)
            return dpt_yaml_error(yaml, entry, "the sweep has more than %d edits", EDITS_MAX);
    for (int64_t point = 0; point < points && st == DPT_OK; point++) {
        int at[AXES_MAX] = {0};
        sweep_place_of(&all, point, at);
        st = sweep_append(job, &all, yaml, at, place, entry, 0);
        /* An edit whose parameter is found on a data set is one edit for each of them. */
        bool found = st == DPT_OK && job->edits[job->nedits - 1].auto_data >= 0;
        found = found && !names_data(&all);
        for (int d = 1; found && d < job->njudged && st == DPT_OK; d++)
            st = sweep_append(job, &all, yaml, at, place, entry, d);
    }
    return st == DPT_OK ? sweep_share(job, first) : st;
}

static int compare_ids(const void *a, const void *b) {
    const dpt_job_edit *const *x = a;
    const dpt_job_edit *const *y = b;
    return strcmp((*x)->id, (*y)->id);
}

/* Edits that do the same, the earlier ones first. */
static int compare_edits(const void *a, const void *b) {
    const dpt_job_edit *x = *(const dpt_job_edit *const *)a;
    const dpt_job_edit *y = *(const dpt_job_edit *const *)b;
    int order = dpt_edit_spec_compare(&x->spec, &y->spec);
    if (order == 0)
        order = x->gradient_data - y->gradient_data;
    if (order == 0)
        order = x->auto_data - y->auto_data;
    return order != 0 ? order : x->judge_data - y->judge_data;
}

/* Two that are equal in an order, the one that comes first in the job first. */
static bool sweep_find_equal(const dpt_job_edit **edits, int n,
                             int (*order)(const void *, const void *),
                             const dpt_job_edit *pair[2]) {
    qsort(edits, (size_t)n, sizeof *edits, order);
    for (int i = 1; i < n; i++) {
        if (order(&edits[i - 1], &edits[i]) != 0)
            continue;
        bool swap = edits[i - 1] > edits[i];
        pair[0] = edits[swap ? i : i - 1];
        pair[1] = edits[swap ? i - 1 : i];
        return true;
    }
    return false;
}

dpt_status dpt_job_edits_check(const dpt_job *job, const dpt_yaml *yaml, struct fy_node *list) {
    const dpt_job_edit *pair[2];
    const dpt_job_edit **edits = dpt_mem_alloc(job->nedits, sizeof *edits, "edits");
    dpt_status st = edits != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int i = 0; i < job->nedits && st == DPT_OK; i++)
        edits[i] = &job->edits[i];
    if (st == DPT_OK && sweep_find_equal(edits, job->nedits, compare_ids, pair))
        st = dpt_yaml_error(yaml, fy_node_sequence_get_by_index(list, pair[1]->entry),
                            "two edits have the id '%s': rename one", pair[1]->id);
    if (st == DPT_OK && sweep_find_equal(edits, job->nedits, compare_edits, pair))
        st = dpt_yaml_error(yaml, fy_node_sequence_get_by_index(list, pair[1]->entry),
                            "edits '%s' and '%s' are the same edit, which would count twice in "
                            "tables and in the correction for their number: leave one out",
                            pair[0]->id, pair[1]->id);
    dpt_mem_free(edits);
    return st;
}

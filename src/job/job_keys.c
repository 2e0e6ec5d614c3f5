#include "job_keys.h"

#include "deltapath/base/choice.h"
#include "deltapath/base/nearest.h"
#include "deltapath/path/bootstrap.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IN_JOB(field) .offset = offsetof(dpt_job, field), .size = sizeof((dpt_job *)NULL)->field
#define IN_DATA(field)                                                                             \
    .offset = offsetof(dpt_job_data, field), .size = sizeof((dpt_job_data *)NULL)->field
#define MOST_RANKS (1 << 20)

/* Texts of `help` are Markdown: doc/jobs.md shows them. */
static const dpt_job_key keys[] = {
    {.section = "",
     .name = "name",
     .type = DPT_KEY_STRING,
     .standard = "study",
     IN_JOB(name),
     .help = "name of the study: letters, digits and . _ + -"},
    {.section = "",
     .name = "models",
     .type = DPT_KEY_SECTION,
     .required = true,
     .help = "the pair"},
    {.section = "models",
     .name = "pre",
     .type = DPT_KEY_PATH,
     .required = true,
     .redo = DPT_REDO_ALL,
     .content = true,
     IN_JOB(pre),
     .help = "pre-trained model: HDF5 checkpoint, safetensors directory, or single safetensors "
             "file"},
    {.section = "models",
     .name = "post",
     .type = DPT_KEY_PATH,
     .required = true,
     .redo = DPT_REDO_ALL,
     .content = true,
     IN_JOB(post),
     .help = "post-trained model, as `pre`"},
    {.section = "",
     .name = "on_mismatch",
     .type = DPT_KEY_CHOICE,
     .standard = "error",
     .choices = "error|keep-post",
     .redo = DPT_REDO_ALL,
     IN_JOB(on_mismatch),
     .help = "`error`: models that do not pair stop the job, with a line for each mismatch, or for "
             "each kind that has more than five; `keep-post`: tensors without a partner keep their "
             "post-trained values"},
    {.section = "",
     .name = "allow",
     .type = DPT_KEY_WORDS,
     .choices = "zero-delta|other-tokenizer",
     .offset = offsetof(dpt_job, allow_zero_delta),
     .size = 2 * sizeof(bool),
     .help = "list of what is an error otherwise: `zero-delta`, a pair that is equal in all "
             "selected tensors, of which no verdict is given; `other-tokenizer`, data made with "
             "another tokenizer than that of the post-trained model, or by other rules than those "
             "of both"},
    {.section = "",
     .name = "data",
     .type = DPT_KEY_ENTRIES,
     .help = "list of data sets, see below; without it only the edits run; the same samples under "
             "the same loss twice are an error"},
    {.section = "data",
     .name = "name",
     .type = DPT_KEY_STRING,
     .required = true,
     .redo = DPT_REDO_UNITS,
     IN_DATA(name),
     .help = "letters, digits and . _ + -"},
    {.section = "data",
     .name = "file",
     .type = DPT_KEY_PATH,
     .required = true,
     .redo = DPT_REDO_UNITS,
     .content = true,
     IN_DATA(file),
     .help = "HDF5 file, see [formats](formats.md)"},
    {.section = "data",
     .name = "loss",
     .type = DPT_KEY_CHOICE,
     .required = true,
     .choices = DPT_LOSS_NAMES,
     .redo = DPT_REDO_UNITS,
     IN_DATA(loss),
     .help = "kind of loss, see below"},
    {.section = "data",
     .name = "samples",
     .type = DPT_KEY_INTEGER,
     .low = 1,
     .high = 1e18,
     .redo = DPT_REDO_UNITS,
     .content = true,
     IN_DATA(samples),
     .help = "the first so many samples alone, for a quicker look; all of them without it"},
    {.section = "data",
     .name = "choose",
     .type = DPT_KEY_REAL,
     .standard = "0",
     .high = 0.95,
     .redo = DPT_REDO_UNITS,
     .content = true,
     IN_DATA(choose),
     .help = "share of these samples that only choose, for edits that choose from data, and judge "
             "nothing ([below](#choosing-and-judging))"},
    {.section = "data",
     .name = "choose_seed",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 1e18,
     .redo = DPT_REDO_UNITS,
     .content = true,
     IN_DATA(choose_seed),
     .help = "which samples these are"},
    {.section = "data",
     .loss = "dpo",
     .name = "beta",
     .type = DPT_KEY_REAL,
     .standard = "0.1",
     .low = 1e-6,
     .high = 1e6,
     .redo = DPT_REDO_UNITS,
     IN_DATA(beta),
     .help = "strength of the preference, above 0"},
    {.section = "data",
     .loss = "dpo",
     .name = "reference",
     .type = DPT_KEY_PATH,
     .redo = DPT_REDO_UNITS,
     .content = true,
     IN_DATA(reference),
     .help = "model whose log-probabilities `c_ref` and `r_ref` are; any model "
             "with the same tokenizer; without it `models.post`"},
    {.section = "",
     .name = "edits",
     .type = DPT_KEY_ENTRIES,
     .required = true,
     .help =
         "list of edits, see below; an edit that is there twice is an error, also with its "
         "values, defaults and sequence written in another way, `dare` with `rescale: none` and "
         "`k: 0` for `drop`, or `multibit` with `bits: 0` for `bitdelta`; so are seeds of an "
         "edit that draws nothing. Edits that merely come to the same, as two that change "
         "nothing, are not found"},
    {.section = "edits",
     .name = "name",
     .type = DPT_KEY_EDIT,
     .required = true,
     .redo = DPT_REDO_ALL,
     .content = true,
     .help = "with the swept parameters after it the id of the edit"},
    {.section = "edits",
     .name = "method",
     .type = DPT_KEY_EDIT,
     .required = true,
     .redo = DPT_REDO_ALL,
     .content = true,
     .help = "a method, or a sequence of mappings that work on the delta in turn; its parameters "
             "are keys of the entry too"},
    {.section = "edits",
     .name = "seed",
     .type = DPT_KEY_EDIT,
     .standard = "0",
     .redo = DPT_REDO_ALL,
     .content = true,
     .help = "of the random mask"},
    {.section = "edits",
     .name = "seeds",
     .type = DPT_KEY_EDIT,
     .redo = DPT_REDO_ALL,
     .content = true,
     .help = "how many seeds: `seeds: 5` is the list of 5 from `seed` on"},
    {.section = "edits",
     .name = "calibrate",
     .type = DPT_KEY_EDIT,
     .standard = "none",
     .choices = "none|term|significant", /* in the order of dpt_edit_calibrate */
     .redo = DPT_REDO_ALL,
     .content = true,
     .help = "`term`: after the last method, F(Delta) of each tensor is multiplied by the one "
             "factor for which its approximation term at W_post, `<gradient, F(Delta) - Delta>`, "
             "is zero; `significant`: the same, only where the gradient along the edit is beyond "
             "chance; or `none`"},
    {.section = "edits",
     .name = "data",
     .type = DPT_KEY_EDIT,
     .redo = DPT_REDO_ALL,
     .content = true,
     .help = "the data set whose gradient at W_post the edit takes, or on which `alpha: auto` is "
             "sought; without it the first, and for `auto` each in turn"},
    {.section = "edits",
     .name = "choose",
     .type = DPT_KEY_EDIT,
     .redo = DPT_REDO_ALL,
     .content = true,
     .help = "the same, of an edit that chooses from data; of a data set with `choose` the samples "
             "that only choose"},
    {.section = "edits",
     .name = "judge",
     .type = DPT_KEY_EDIT,
     .redo = DPT_REDO_ALL,
     .content = true,
     .help = "the one data set that judges the edit; without it all do"},
    {.section = "",
     .name = "select",
     .type = DPT_KEY_SECTION,
     .help = "which tensors the edits touch: those that are included (all without `include`) and "
             "not excluded; a pattern that matches nothing, and an `exclude` that leaves nothing, "
             "is an error"},
    {.section = "select",
     .name = "include",
     .type = DPT_KEY_PATTERNS,
     .redo = DPT_REDO_ALL,
     .content = true,
     .help = "shell patterns of names of post-trained tensors"},
    {.section = "select",
     .name = "exclude",
     .type = DPT_KEY_PATTERNS,
     .redo = DPT_REDO_ALL,
     .content = true,
     .help = "the same"},
    {.section = "",
     .name = "riemann",
     .type = DPT_KEY_SECTION,
     .redo = DPT_REDO_UNITS,
     IN_JOB(riemann),
     .help = "the path, or `off` for edits alone"},
    {.section = "riemann",
     .name = "rule",
     .type = DPT_KEY_CHOICE,
     .standard = "left",
     .choices = DPT_RULE_NAMES,
     .redo = DPT_REDO_UNITS,
     IN_JOB(rule),
     .help = "of the Riemann sum"},
    {.section = "riemann",
     .name = "points",
     .type = DPT_KEY_INTEGER,
     .standard = "5",
     .low = 1,
     .high = DPT_QUADRATURE_MAX,
     .redo = DPT_REDO_UNITS,
     IN_JOB(points),
     .help = "nodes of the rule"},
    {.section = "riemann",
     .name = "per_sample",
     .type = DPT_KEY_BOOLEAN,
     .standard = "false",
     .redo = DPT_REDO_UNITS,
     IN_JOB(per_sample),
     .help = "also an interval of the estimate; takes the gradient at t = 0 for each edit in place "
             "of once"},
    {.section = "riemann",
     .name = "correlation",
     .type = DPT_KEY_CHOICE,
     .standard = "start",
     .choices = "start|path", /* in the order of DPT_CORRELATION_... */
     .redo = DPT_REDO_UNITS,
     IN_JOB(correlation),
     .help =
         "where that of a random mask and the product of gradient and delta is measured: "
         "`start`, at t = 0, where memory allows; `path`, at every node, for a gradient more at "
         "each ([below](#correlation-of-mask-and-product))"},
    {.section = "",
     .name = "output",
     .type = DPT_KEY_SECTION,
     .required = true,
     .help = "where results go, and which"},
    {.section = "output",
     .name = "directory",
     .type = DPT_KEY_PATH,
     .required = true,
     IN_JOB(directory),
     .help = "of the study"},
    {.section = "output",
     .name = "checkpoint",
     .type = DPT_KEY_CHOICE,
     .standard = "none",
     .choices = DPT_STORE_NAMES,
     IN_JOB(checkpoint),
     .help = "keep the edited models"},
    {.section = "output",
     .name = "dtype",
     .type = DPT_KEY_WORD,
     .standard = "same",
     .choices = "same|f32|f16|bf16",
     .redo = DPT_REDO_ALL,
     IN_JOB(dtype_name),
     .help = "type of the edited model, on disk and on the path"},
    {.section = "output",
     .name = "overwrite",
     .type = DPT_KEY_BOOLEAN,
     .standard = "false",
     IN_JOB(overwrite),
     .help = "replace a study of this name that is in the directory "
             "([below](#what-is-replaced)); while another run works in it, a run waits half a "
             "minute and then gives up (where the file system has locks for folders)"},
    {.section = "output",
     .name = "report",
     .type = DPT_KEY_BOOLEAN,
     .standard = "true",
     IN_JOB(report),
     .help = "write `report.html` at the end"},
    {.section = "",
     .name = "margin",
     .type = DPT_KEY_SECTION,
     .help = "changes within it count as equivalent"},
    {.section = "margin",
     .name = "share",
     .type = DPT_KEY_REAL,
     .standard = "0.05",
     .low = 0,
     .high = 10,
     .redo = DPT_REDO_UNITS,
     IN_JOB(margin_share),
     .help =
         "of the loss that post-training removed, a pre-trained loss above that of one that knows "
         "nothing counted as that; not above what a fall of the accuracy by `accuracy_margin` "
         "costs"},
    {.section = "margin",
     .name = "absolute",
     .type = DPT_KEY_REAL,
     .low = 0,
     .high = 1e9,
     .redo = DPT_REDO_UNITS,
     IN_JOB(margin),
     .help = "nats; wins when both are given"},
    {.section = "",
     .name = "accuracy_margin",
     .type = DPT_KEY_REAL,
     .standard = "2",
     .low = 0,
     .high = 99,
     .redo = DPT_REDO_UNITS,
     IN_JOB(accuracy_margin),
     .help =
         "points by which the accuracy of a `competitive` edit may fall; 0 leaves the accuracy out "
         "of verdicts"},
    {.section = "",
     .name = "statistics",
     .type = DPT_KEY_SECTION,
     .help = "which intervals judge a change"},
    {.section = "statistics",
     .name = "interval",
     .type = DPT_KEY_CHOICE,
     .standard = "auto",
     .choices = "auto|t|bootstrap", /* in the order of DPT_INTERVAL_... */
     .redo = DPT_REDO_UNITS,
     IN_JOB(statistics.interval),
     .help = "`t`, Student's paired interval; `bootstrap`, the paired BCa bootstrap; or `auto`, "
             "Student's, and studentised resamples for skewed changes of 20 samples or more"},
    {.section = "statistics",
     .name = "resamples",
     .type = DPT_KEY_INTEGER,
     .standard = "2000",
     .low = DPT_BOOTSTRAP_LEAST,
     .high = DPT_BOOTSTRAP_MOST,
     .redo = DPT_REDO_UNITS,
     IN_JOB(statistics.resamples),
     .help = "of the bootstrap"},
    {.section = "statistics",
     .name = "seed",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 1e18,
     .redo = DPT_REDO_UNITS,
     IN_JOB(statistics.seed),
     .help = "of the bootstrap"},
    {.section = "",
     .name = "law",
     .type = DPT_KEY_SECTION,
     .help = "measure the curvature along the delta before the edits, and predict the change of "
             "each `dare` from it ([science](science.md)); not with `riemann: off` or loss `dpo`"},
    {.section = "law",
     .name = "repeats",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 10000,
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(law.repeats),
     .help = "backward passes over each data set, each with labels drawn anew; 2 or more give a "
             "standard error; 0 measures nothing"},
    {.section = "law",
     .name = "seed",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 1e18,
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(law.seed),
     .help = "of the labels"},
    {.section = "",
     .name = "tensor_parallel",
     .type = DPT_KEY_AUTO,
     .standard = "auto",
     .low = 1,
     .high = MOST_RANKS,
     IN_JOB(tensor_parallel),
     .help = "ranks that share one replica of the model; a divisor of the number of ranks"},
    {.section = "",
     .name = "svd_group",
     .type = DPT_KEY_AUTO,
     .standard = "auto",
     .low = 1,
     .high = MOST_RANKS,
     .redo = DPT_REDO_ALL,
     IN_JOB(svd_group),
     .help = "ranks that share one matrix in low rank; pin it for the same bits at any rank count"},
    {.section = "",
     .name = "batch_tokens",
     .type = DPT_KEY_AUTO,
     .standard = "auto",
     .low = 1,
     .high = INT32_MAX,
     IN_JOB(batch_tokens),
     .help = "most tokens packed into one pass, 2048 with `auto`; halved until the work fits the "
             "memory, never below the longest sample"},
};

_Static_assert(offsetof(dpt_job, allow_other_tokenizer) ==
                   offsetof(dpt_job, allow_zero_delta) + sizeof(bool),
               "words of allow are read into one field after another");

enum { KEYS = sizeof keys / sizeof keys[0] };

const dpt_job_key *dpt_job_keys(int *count) {
    *count = KEYS;
    return keys;
}

bool dpt_job_key_is_of(const dpt_job_key *key, dpt_job_loss loss) {
    return key->loss == NULL || dpt_choice_find(key->loss, dpt_job_loss_name(loss)) >= 0;
}

bool dpt_job_key_is_section(const dpt_job_key *key) {
    return key->type == DPT_KEY_SECTION || key->type == DPT_KEY_ENTRIES;
}

const char *dpt_job_keys_list(const char *section, char *text, size_t size) {
    text[0] = '\0';
    for (int k = 0; k < KEYS; k++) {
        size_t used = strlen(text);
        if (strcmp(keys[k].section, section) == 0)
            snprintf(text + used, size - used, "%s%s", used > 0 ? " " : "", keys[k].name);
    }
    return text;
}

static void key_store_integer(const dpt_job_key *key, void *field, int64_t value) {
    if (key->size == sizeof(int64_t))
        memcpy(field, &value, sizeof value);
    else
        memcpy(field, &(int){(int)value}, sizeof(int));
}

/* The default of a key, or nothing: zero. */
static void key_set_standard(const dpt_job_key *key, void *field) {
    const char *text = key->standard;
    memset(field, 0, key->size);
    if (text == NULL)
        return;
    switch (key->type) {
    case DPT_KEY_STRING:
    case DPT_KEY_WORD:
        memcpy(field, &text, sizeof text);
        break;
    case DPT_KEY_CHOICE:
        key_store_integer(key, field, dpt_choice_find(key->choices, text));
        break;
    case DPT_KEY_BOOLEAN:
        *(bool *)field = strcmp(text, "true") == 0;
        break;
    case DPT_KEY_INTEGER:
        key_store_integer(key, field, strtoll(text, NULL, 10));
        break;
    case DPT_KEY_REAL:
        *(double *)field = strtod(text, NULL);
        break;
    default: /* lists are empty, auto is 0 */
        break;
    }
}

/* Position of a word among the choices of a key; -1 after an error. */
static int key_choose(const dpt_yaml *yaml, struct fy_node *node, const dpt_job_key *key) {
    const char *text = dpt_yaml_scalar(node);
    int index = text != NULL ? dpt_choice_find(key->choices, text) : -1;
    char hint[DPT_NEAREST_HINT];
    if (text == NULL)
        text = "?";
    if (index < 0)
        (void)dpt_yaml_error(yaml, node, "%s is '%s'%s: it is one of %s", key->name, text,
                             dpt_nearest_of_list(text, key->choices, "|", hint), key->choices);
    return index;
}

int dpt_job_keys_choose(const dpt_yaml *yaml, struct fy_node *node, const char *section,
                        const char *name) {
    int row = 0;
    while (strcmp(keys[row].section, section) != 0 || strcmp(keys[row].name, name) != 0)
        row++;
    return key_choose(yaml, node, &keys[row]);
}

static dpt_status key_read_words(const dpt_yaml *yaml, struct fy_node *map, const dpt_job_key *key,
                                 bool *flags) {
    struct fy_node *list;
    int count;
    dpt_status st = dpt_yaml_list(yaml, map, key->name, &list, &count);
    for (int i = 0; i < count && st == DPT_OK; i++) {
        int index = key_choose(yaml, fy_node_sequence_get_by_index(list, i), key);
        if (index < 0)
            return DPT_ERR_USAGE;
        flags[index] = true;
    }
    return st;
}

static dpt_status key_read_integer(const dpt_yaml *yaml, struct fy_node *map,
                                   const dpt_job_key *key, void *field) {
    const char *text = dpt_yaml_scalar(dpt_yaml_get(map, key->name));
    int64_t value = 0;
    if (key->type == DPT_KEY_AUTO && text != NULL && strcmp(text, "auto") == 0)
        return DPT_OK;
    dpt_status st =
        dpt_yaml_integer(yaml, map, key->name, (int64_t)key->low, (int64_t)key->high, &value);
    if (st == DPT_OK)
        key_store_integer(key, field, value);
    return st;
}

static dpt_status key_read(const dpt_yaml *yaml, struct fy_node *map, const dpt_job_key *key,
                           void *field) {
    struct fy_node *node = dpt_yaml_get(map, key->name);
    int index;
    switch (key->type) {
    case DPT_KEY_STRING:
        return dpt_yaml_string(yaml, map, key->name, field);
    case DPT_KEY_PATH:
        return dpt_yaml_path(yaml, map, key->name, field);
    case DPT_KEY_WORD:
        index = key_choose(yaml, node, key);
        return index < 0 ? DPT_ERR_USAGE : dpt_yaml_string(yaml, map, key->name, field);
    case DPT_KEY_CHOICE:
        index = key_choose(yaml, node, key);
        if (index >= 0)
            key_store_integer(key, field, index);
        return index < 0 ? DPT_ERR_USAGE : DPT_OK;
    case DPT_KEY_BOOLEAN:
        return dpt_yaml_boolean(yaml, map, key->name, field);
    case DPT_KEY_INTEGER:
    case DPT_KEY_AUTO:
        return key_read_integer(yaml, map, key, field);
    case DPT_KEY_REAL:
        return dpt_yaml_real(yaml, map, key->name, key->low, key->high, field);
    case DPT_KEY_WORDS:
        return key_read_words(yaml, map, key, field);
    default:
        return DPT_OK;
    }
}

dpt_status dpt_job_keys_read(const dpt_yaml *yaml, struct fy_node *map, const char *section,
                             const char *what, void *base) {
    char known[512];
    dpt_status st = DPT_OK;
    if (map != NULL)
        st = dpt_yaml_check_keys(yaml, map, what, dpt_job_keys_list(section, known, sizeof known));
    for (int k = 0; k < KEYS && st == DPT_OK; k++) {
        const dpt_job_key *key = &keys[k];
        if (strcmp(key->section, section) != 0 || key->size == 0 || key->type == DPT_KEY_SECTION)
            continue;
        void *field = (char *)base + key->offset;
        key_set_standard(key, field);
        if (map != NULL && dpt_yaml_get(map, key->name) != NULL)
            st = key_read(yaml, map, key, field);
        else if (map != NULL && key->required)
            st = dpt_yaml_error(yaml, map, "%s needs %s", what, key->name);
    }
    return st;
}

/* ranks: 1
 * The table of the keys of a job file: each is read, and what it says of itself holds. */
#include "support/test_mpi.h"

#include "deltapath/job/job.h"
#include "../src/job/job_keys.h"

#include <stdio.h>
#include <string.h>

#define HEAD "models: {pre: a, post: b}\noutput: {directory: out/x, checkpoint: hdf5}\n"

/* A job with every section. */
static const char plain_text[] =
    HEAD "data: [{name: d, file: d.h5, loss: dpo}]\n"
         "edits: [{name: e, method: drop, p: 0.5}, "
         "{name: f, method: drop, p: 0.25}]\n"
         "allow: []\nselect: {}\nriemann: {rule: midpoint}\nmargin: {}\n"
         "statistics: {}\nplane: {a: e, b: f}\nproof: {groups: layers}\n";

/* With a set of its own, or NULL, after one that gives the data set a loss that has the key. */
static dpt_job parse_for(const dpt_job_key *key, const char *set) {
    dpt_job job;
    char loss[64];
    const char *kind = key->loss != NULL ? key->loss : "dpo";
    snprintf(loss, sizeof loss, "data.0.loss=%.*s", (int)strcspn(kind, "|"), kind);
    const char *const sets[] = {loss, set};
    dpt_error_clear();
    if (dpt_job_parse(plain_text, "job.yaml", set != NULL ? 2 : 1, sets, &job) != DPT_OK)
        fail_msg("%s", dpt_error_message());
    return job;
}

/* Another value of a key than the default, as --set takes it; NULL: the test does not change it. */
static const char *other_value(const dpt_job_key *key, char *text, size_t size) {
    const char *last = key->choices != NULL ? strrchr(key->choices, '|') : NULL;
    if (key->type == DPT_KEY_CHOICE || key->type == DPT_KEY_WORD) {
        bool is_last = key->standard != NULL && strcmp(last + 1, key->standard) == 0;
        snprintf(text, size, "%.*s",
                 is_last ? (int)strcspn(key->choices, "|") : (int)strlen(last + 1),
                 is_last ? key->choices : last + 1);
    } else if (key->type == DPT_KEY_BOOLEAN)
        snprintf(text, size, "%s", strcmp(key->standard, "true") == 0 ? "false" : "true");
    else if (key->type == DPT_KEY_INTEGER || key->type == DPT_KEY_AUTO)
        snprintf(text, size, "%.0f", key->low + 6);
    else if (key->type == DPT_KEY_REAL)
        snprintf(text, size, "%g", key->low + 0.625);
    else if (key->type == DPT_KEY_STRING)
        snprintf(text, size, "other");
    else
        return NULL;
    return text;
}

/* "section.key=value" */
static void set_key(const dpt_job_key *key, const char *value, char *set, size_t size) {
    bool list = strcmp(key->section, "data") == 0 || strcmp(key->section, "edits") == 0;
    snprintf(set, size, "%s%s%s%s=%s", key->section, list ? ".0" : "",
             key->section[0] != '\0' ? "." : "", key->name, value);
}

static uint64_t hash_of(const dpt_job *job, dpt_key_redo what) {
    dpt_hash hash;
    dpt_hash_begin(&hash);
    if (what == DPT_REDO_UNITS) {
        dpt_job_hash_for_units(job, &hash);
        dpt_job_hash_data(&job->data[0], &hash);
    } else {
        dpt_job_hash_for_models(job, &hash);
    }
    return dpt_hash_value(&hash);
}

/* A key that says that units or models depend on it changes what tells them apart, and no other does. */
static void test_resume_keys(void **state) {
    (void)state;
    int count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    for (int k = 0; k < count; k++) {
        const dpt_job_key *key = &keys[k];
        char value[64], set[160];
        if (key->content || other_value(key, value, sizeof value) == NULL)
            continue;
        set_key(key, value, set, sizeof set);
        if (strcmp(key->name, "loss") == 0)
            snprintf(set, sizeof set, "data.0.loss=lm");
        dpt_job plain = parse_for(key, NULL), other = parse_for(key, set);
        for (int what = DPT_REDO_UNITS; what <= DPT_REDO_MODELS; what++) {
            bool same = hash_of(&plain, (dpt_key_redo)what) == hash_of(&other, (dpt_key_redo)what);
            if (same == ((key->redo & what) != 0))
                fail_msg("--set %s: the key of %s %s", set,
                         what == DPT_REDO_UNITS ? "units" : "models", same ? "stays" : "changes");
        }
        dpt_job_destroy(&other);
        dpt_job_destroy(&plain);
    }
}

/* A key that nobody reads would take any value: a mapping is none of a key with a value, a text none of one with
 * keys of its own. */
static void test_every_key_is_read(void **state) {
    (void)state;
    int count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    for (int k = 0; k < count; k++) {
        char set[160];
        const char *const sets[] = {set};
        dpt_job job;
        bool maps = dpt_job_key_is_section(&keys[k]) || keys[k].type == DPT_KEY_TEXTS;
        set_key(&keys[k], maps ? "word" : "{x: 1}", set, sizeof set);
        dpt_error_clear();
        if (dpt_job_parse(plain_text, "job.yaml", 1, sets, &job) != DPT_ERR_USAGE)
            fail_msg("--set %s is taken", set);
    }
    dpt_error_clear();
}

/* The same samples under losses that differ in a key of their own are no data set twice. */
static void test_same_loss(void **state) {
    (void)state;
    int count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    for (int k = 0; k < count; k++) {
        const dpt_job_key *key = &keys[k];
        char value[64], set[160];
        if (strcmp(key->section, "data") != 0 || key->content ||
            other_value(key, value, sizeof value) == NULL)
            continue;
        set_key(key, value, set, sizeof set);
        if (strcmp(key->name, "loss") == 0)
            snprintf(set, sizeof set, "data.0.loss=lm");
        dpt_job plain = parse_for(key, NULL), other = parse_for(key, set);
        bool own = key->loss != NULL || strcmp(key->name, "loss") == 0;
        assert_true(dpt_job_same_loss(&plain.data[0], &plain.data[0]));
        if (dpt_job_same_loss(&plain.data[0], &other.data[0]) == own)
            fail_msg("--set %s: %s loss", set, own ? "the same" : "another");
        dpt_job_destroy(&other);
        dpt_job_destroy(&plain);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_keys),
        cmocka_unit_test(test_every_key_is_read),
        cmocka_unit_test(test_same_loss),
    };
    return test_mpi_main(argc, argv, tests);
}

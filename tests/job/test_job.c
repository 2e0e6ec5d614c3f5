/* ranks: 1 2
 * Job files: what a good one means, and the one line that a bad one gets. */
#include "job_texts.h"

#include "deltapath/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA HEAD "data: [{name: a, file: a.h5, loss: lm}, {name: b, file: b.h5, loss: lm}]\n"

static void test_defaults(void **state) {
    (void)state;
    dpt_job job = parse_good(HEAD "edits:\n- {name: e, method: expo, alpha: 0.1}\n", 0, NULL);
    assert_string_equal(job.pre, "a");
    assert_string_equal(job.post, "b");
    assert_string_equal(job.directory, "out/x");
    assert_int_equal(job.nedits, 1);
    assert_string_equal(job.edits[0].id, "e");
    assert_string_equal(job.edits[0].params, "alpha=0.1");
    assert_int_equal(job.edits[0].spec.seed, 0);
    assert_true(job.riemann);
    assert_int_equal(job.rule, DPT_RULE_AUTO);
    assert_int_equal(job.points, 5);
    assert_int_equal(job.checkpoint, DPT_STORE_NONE);
    assert_true(job.same_dtype);
    assert_int_equal(job.on_mismatch, DPT_MISMATCH_ERROR);
    assert_int_equal(job.statistics.interval, 0);
    assert_int_equal(job.statistics.resamples, 2000);
    dpt_job_destroy(&job);
}

static void test_sweep_order_and_ids(void **state) {
    (void)state;
    dpt_job job = parse_good(
        HEAD "edits:\n- {name: dare, method: dare, p: [0.1, 0.9], k: 0, seed: [1, 2, 3]}\n", 0,
        NULL);
    static const char *const ids[] = {"dare-p0.1-seed1", "dare-p0.1-seed2", "dare-p0.1-seed3",
                                      "dare-p0.9-seed1", "dare-p0.9-seed2", "dare-p0.9-seed3"};
    assert_int_equal(job.nedits, 6);
    for (int i = 0; i < 6; i++) {
        assert_string_equal(job.edits[i].id, ids[i]);
        assert_int_equal(job.edits[i].spec.seed, i % 3 + 1);
    }
    assert_string_equal(job.edits[4].params, "p=0.9 k=0 seed=2");
    dpt_job_destroy(&job);
}

static void test_sequence_sweeps_inside(void **state) {
    (void)state;
    dpt_job job =
        parse_good(HEAD "edits:\n- name: both\n  method: [{method: prune, keep: [0.3, 0.5]}"
                        ", {method: bitdelta}]\n",
                   0, NULL);
    assert_int_equal(job.nedits, 2);
    assert_string_equal(job.edits[1].id, "both-keep0.5");
    assert_string_equal(job.edits[1].method, "prune+bitdelta");
    assert_int_equal(job.edits[1].spec.nstages, 2);
    dpt_job_destroy(&job);
}

static void test_set(void **state) {
    (void)state;
    static const char *const sets[] = {"riemann.points=9", "riemann.rule=gauss",
                                       "output.directory=out/y", "edits.0.alpha=[0.1, 0.2]"};
    dpt_job job = parse_good(HEAD "edits:\n- {name: e, method: expo, alpha: 0.1}\n", 4, sets);
    assert_int_equal(job.points, 9);
    assert_int_equal(job.rule, DPT_RULE_GAUSS);
    assert_string_equal(job.directory, "out/y");
    assert_int_equal(job.nedits, 2);
    assert_non_null(strstr(job.text, "out/y"));
    assert_null(strstr(job.recipe, "out/y"));
    dpt_job_destroy(&job);
    static const char *const wrong[] = {"riemann", ".=[1, {a: 1}]", "edits.7.p=[1, {a: 1}]",
                                        "models.pre.0.x=[1, {a: 1}]"};
    for (int i = 0; i < 4; i++) /* the sanitizers see that no node is lost */
        assert_int_equal(dpt_job_parse(HEAD "edits: [{name: e}]\n", "job.yaml", 1, wrong + i, &job),
                         DPT_ERR_USAGE);
    dpt_error_clear();
}

static void refuse_set(const char *assignment, const char *message) {
    dpt_job job;
    dpt_error_clear();
    dpt_status st = dpt_job_parse(
        HEAD "edits:\n- {name: e, method: dare, p: 0.1}\n- {name: f, method: dare, p: 0.2}\n",
        "job.yaml", 1, &assignment, &job);
    if (st != DPT_ERR_USAGE || strstr(dpt_error_message(), message) == NULL)
        fail_msg("--set %s: wanted '%s' in '%s'", assignment, message, dpt_error_message());
    dpt_error_clear();
}

static void test_set_places(void **state) {
    (void)state;
    static const char *const places[] = {"4294967296", "18446744073709551616", "2", "name", "0x0"};
    char text[128];
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(text, sizeof text, "edits.%s.p=0.3", places[i]);
        refuse_set(text, "is no place in the list: give 0 to 1");
    }
    static const char *const keys[] = {"edits.+0.p=1", "edits. 0.p=1", "riemann .points=3"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        refuse_set(keys[i], "has no place in a key");
    static const char *const empty[] = {"riemann..points=3", ".riemann=3", "riemann.=3", ".=3"};
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++)
        refuse_set(empty[i], "a part of the key is empty");
    refuse_set("name=a\n--- b", "a second document");
    refuse_set("select={include: [*a]}", "aliases (*name)");
}

#define ONE_EDIT "edits:\n- {name: e, method: expo, alpha: 0.1}\n"

/* What YAML has and a job does not. */
static void test_one_plain_document(void **state) {
    (void)state;
    expect_bad(HEAD ONE_EDIT "---\nname: other\n", "job.yaml:5:1: a second document");
    expect_bad("---\n" HEAD ONE_EDIT "...\nname: other\n", "job.yaml:7:");
    expect_bad(HEAD ONE_EDIT "--- {a: [\n", "job.yaml:5:1: a second document");
    expect_bad(HEAD "edits:\n- &a {name: e, method: expo, alpha: 0.1}\n- *a\n",
               "job.yaml:5:4: aliases (*name) and merge keys (<<) are not read: write the value");
    expect_bad(HEAD "edits:\n- {<<: {name: e}, method: expo, alpha: 0.1}\n",
               "job.yaml:4:4: aliases (*name) and merge keys");
    expect_bad("", "job.yaml: the job file is empty: start from");
    expect_bad("\xef\xbb\xbf \n# a comment\n\t\n", "the job file is empty");
    dpt_job job =
        parse_good("--- # one\n" HEAD ONE_EDIT "select: {include: ['*', \"<<\"]}\n...\n", 0, NULL);
    dpt_job_destroy(&job);
}

static void test_names(void **state) {
    (void)state;
    static const char *const bad[] = {"a b", "~/x", "'a\n\n  b'", "../x", ".x", "x.h5", "a/b"};
    char text[256];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "name: %s\n%s%s", bad[i], HEAD, ONE_EDIT);
        expect_bad(text, "use letters, digits and . _ + -");
    }
    expect_bad(HEAD "edits:\n- {name: e, methd: expo, alpha: 0.1}\n",
               "job.yaml:4:13: edit e has no method: it has 'methd' (did you mean 'method'?)");
    expect_bad(HEAD "edits:\n- {nmae: e, method: expo, alpha: 0.1}\n", "did you mean 'name'?");
    expect_bad(HEAD "edits:\n- {name: e, alpha: 0.1}\n", "edit e has no method");
}

static void test_bad_jobs(void **state) {
    (void)state;
    const char *edit = ONE_EDIT;
    char text[512];
    expect_bad("models: [", "job.yaml:");
    expect_bad("- a\n", "mapping");
    expect_bad("modles: {}\n", "job.yaml:1:1: unknown key 'modles'");
    expect_bad(HEAD, "edits is missing");
    expect_bad("models: {pre: a}\n", "models needs post");
    expect_bad(HEAD "edits:\n- {name: e, method: nope}\n", "job.yaml:4:21: unknown method 'nope'");
    expect_bad(HEAD "edits:\n- {name: e, method: dare, q: 1}\n", "job.yaml:4:27: unknown key 'q'");
    expect_bad(HEAD "edits:\n- {name: e, method: dare, p: 1}\n", "job.yaml:4:30:");
    expect_bad(HEAD "edits:\n- {name: e, method: dare, p: []}\n", "the list of 'p' is empty");
    expect_bad(HEAD "edits:\n- {name: e, method: dare}\n", "job.yaml:4:");
    expect_bad(HEAD "edits:\n- {name: e, method: dare, p: [0.5, 0.9999999999]}\n",
               "p: 0.99999999989999999 would keep no delta");
    expect_bad(HEAD "edits:\n- {name: e, method: drop, p: 0.99999999989}\n",
               "drop: p: 0.99999999988");
    expect_bad(HEAD "edits:\n- {name: e, method: della, p: 0.9999999999, epsilon: 0}\n",
               "della: p: ");
    dpt_job least =
        parse_good(HEAD "edits:\n- {name: e, method: dare, p: 0.9999999997}\n", 0, NULL);
    dpt_job_destroy(&least);
    expect_bad(HEAD "edits:\n- {name: ../e, method: expo, alpha: 1}\n", "use letters");
    expect_bad(HEAD "edits:\n- {name: e, method: expo, alpha: [1, 1]}\n", "two edits have the id");
    expect_bad(HEAD "edits:\n- {name: e, method: expo, alpha: 1, seed: -1}\n", "seed is '-1'");
    expect_bad(HEAD "edits:\n- {name: e, method: lowrank, rank: 0}\n", "rank");
    expect_bad(HEAD "edits:\n- {name: e, method: expo, alpha: auto}\n", "auto needs data");
    expect_bad(HEAD "edits:\n- {name: e, method: bias, k: 1, by: gradient}\n", "needs data");
    expect_bad(HEAD "edits:\n- {name: e, method: bitdelta, calibrate: term}\n", "needs data");
    expect_bad(HEAD "edits:\n- {name: e, method: bitdelta, calibrate: all}\n", "none|term");
    expect_bad(DATA "edits:\n- {name: e, method: expo, alpha: 1, calibrate: term}\n", "undo expo");
    expect_bad(DATA "edits:\n- {name: e, method: drop, p: 1, data: nope}\n", "data is 'nope'");
    expect_bad(DATA "edits:\n- {name: e, method: expo, alpha: 1, data: a}\n", "leave data out");
    expect_bad(DATA "riemann: off\nedits:\n- {name: e, method: bitdelta, calibrate: term}\n",
               "leave out riemann: off");
    expect_bad(HEAD "edits:\n- {name: e, method: expo, alpha: Auto}\n", "is not a number");
    expect_bad(HEAD "edits:\n- {name: e, method: dare, p: auto}\n", "is not a number");
    expect_bad(HEAD "edits:\n- {name: e, method: expo, alpha: 0.1, groups: layers}\n",
               "alpha: auto only");
    expect_bad(DATA "edits:\n- {name: e, method: expo, alpha: auto, groups: heads}\n",
               "model|layers");
    expect_bad(DATA "riemann: off\nedits:\n- {name: e, method: expo, alpha: auto}\n",
               "needs gradients");
    expect_bad(DATA
               "edits:\n- name: e\n  method: [{method: expo, alpha: auto}, {method: bitdelta}]\n",
               "not inside a sequence");
    snprintf(text, sizeof text, "%s%sriemann: {rule: simpson, points: 4}\n", HEAD, edit);
    expect_bad(text, "job.yaml:5:");
    snprintf(text, sizeof text, "%s%sriemann: {rule: left, points: 0}\n", HEAD, edit);
    expect_bad(text, "points is '0'");
    snprintf(text, sizeof text, "%s%son_mismatch: ignore\n", HEAD, edit);
    expect_bad(text, "error|keep-post");
    snprintf(text, sizeof text, "%s%sdata:\n- {name: d, file: f, loss: mse}\n", HEAD, edit);
    expect_bad(text, "lm|dpo|class");
    snprintf(text, sizeof text, "%s%stensor_parallel: 0\n", HEAD, edit);
    expect_bad(text, "tensor_parallel is '0'");
    snprintf(text, sizeof text, "%s%sdata:\n- {name: d, file: f, loss: lm, samples: 0}\n", HEAD,
             edit);
    expect_bad(text, "samples is '0'");
    snprintf(text, sizeof text, "%s%sstatistics: {interval: z}\n", HEAD, edit);
    expect_bad(text, "t|bootstrap");
    snprintf(text, sizeof text, "%s%sstatistics: {resamples: 10}\n", HEAD, edit);
    expect_bad(text, "resamples is '10'");
}

/* `alpha: auto` is an edit for each data set, with its name after when there are several. */
static void test_gradient_data(void **state) {
    (void)state;
    dpt_job job = parse_good(DATA "edits:\n- {name: e, method: bitdelta, calibrate: [none, term]}\n"
                                  "- {name: g, method: bias, k: 1, by: gradient, data: [b, a]}\n"
                                  "- {name: d, method: drop, p: 0.5}\n"
                                  "- {name: s, calibrate: term, method: [{method: drop, p: 1}]}\n",
                             0, NULL);
    static const char *const ids[] = {
        "e-calibratenone", "e-calibrateterm", "g-datab", "g-dataa", "d", "s"};
    static const int data[] = {-1, 0, 1, 0, 0, 0};
    assert_int_equal(job.nedits, 6);
    for (int i = 0; i < 6; i++) {
        assert_string_equal(job.edits[i].id, ids[i]);
        assert_int_equal(job.edits[i].gradient_data, data[i]);
        assert_int_equal(job.edits[i].spec.calibrate == DPT_CALIBRATE_TERM, i == 1 || i == 5);
    }
    dpt_job_destroy(&job);
}

/* The second of two edits that do the same is refused, however it is written. */
static void refuse_twice(const char *a, const char *b) {
    char text[512];
    snprintf(text, sizeof text,
             DATA "edits:\n- {name: x, method: expo, alpha: 9}\n- {name: a, %s}\n- {name: b, %s}\n",
             a, b);
    expect_bad(text, "job.yaml:7:4: edits 'a' and 'b' are the same edit");
}

static void allow_both(const char *a, const char *b) {
    char text[512];
    snprintf(text, sizeof text, DATA "edits:\n- {name: a, %s}\n- {name: b, %s}\n", a, b);
    dpt_job job = parse_good(text, 0, NULL);
    assert_int_equal(job.nedits, 2);
    dpt_job_destroy(&job);
}

static void test_edits_twice(void **state) {
    (void)state;
    refuse_twice("method: dare, p: 0.5", "method: dare, p: 0.5");
    refuse_twice("method: dare, p: 0.5", "method: dare, p: 5e-1, k: 0, seed: 0, calibrate: none");
    refuse_twice("method: dare, p: 0.5, data: a", "method: dare, p: 0.50");
    refuse_twice("method: prune, keep: 0.3", "method: [{method: prune, keep: 0.3}]");
    refuse_twice("method: prune, keep: 0.3, seed: 1", "method: prune, keep: 0.3, seed: 2");
    refuse_twice("method: bitdelta, seed: 1", "method: bitdelta, seed: 2, sample: none");
    refuse_twice("method: [{method: prune, keep: 0.3}, {method: bitdelta}]",
                 "method: [{method: prune, keep: 0.3}, {method: bitdelta, multiple: 1}]");
    expect_bad(DATA "edits:\n- {name: a, method: dare, p: [0.1, 0.10]}\n",
               "edits 'a-p0.1' and 'a-p0.10' are the same edit");
    expect_bad(DATA "edits:\n- {name: a, method: expo, alpha: auto}\n- {name: b, method: expo, "
                    "alpha: auto}\n",
               "edits 'a-on-a' and 'b-on-a' are the same edit");
    refuse_twice("method: drop, p: 0.5", "method: dare, p: 0.5, rescale: none");
    refuse_twice("method: dare, p: 0.5, rescale: none, seed: 3", "method: drop, p: 0.5, seed: 3");
    refuse_twice("method: bitdelta", "method: multibit, bits: 0");
    refuse_twice("method: bitdelta, tensors: all, seed: 1",
                 "method: multibit, bits: 0, tensors: all, seed: 2");
    refuse_twice("method: dare, p: 0, seed: 1", "method: dare, p: 0, seed: 2");
    refuse_twice("method: dare, p: 0.5, k: 1, seed: 1", "method: dare, p: 0.5, k: 1, seed: 2");
    refuse_twice("method: drop, p: 1, seed: 1", "method: drop, p: 1, seed: 2");
    refuse_twice("method: della, p: 0, epsilon: 0, seed: 1",
                 "method: della, p: 0, epsilon: 0, seed: 2");
    refuse_twice("method: bitdelta, sample: normal, multiple: 0, seed: 1",
                 "method: bitdelta, sample: normal, multiple: 0, seed: 2");
    refuse_twice("method: [{method: prune, keep: 0.3}, {method: dare, p: 0}], seed: 1",
                 "method: [{method: prune, keep: 0.3}, {method: dare, p: 0}], seed: 2");
    allow_both("method: bitdelta", "method: multibit, bits: 0, scope: model");
    allow_both("method: bitdelta", "method: multibit, bits: 0, tensors: all");
    allow_both("method: dare, p: 0.5, rescale: none", "method: drop, p: 0.5, seed: 3");
    allow_both("method: dare, p: 0.1, k: 1", "method: dare, p: 0.2, k: 1"); /* of a grid */
    allow_both("method: dare, p: 0.5, seed: 1", "method: dare, p: 0.5, seed: 2");
    allow_both("method: dare, p: 0.5", "method: drop, p: 0.5");
    allow_both("method: bias, k: 0.5", "method: bias, k: 0.5, p: 0"); /* measured, or 0 */
    allow_both("method: bitdelta", "method: bitdelta, calibrate: term");
    allow_both("method: bitdelta, sample: normal, seed: 1",
               "method: bitdelta, sample: normal, seed: 2");
    allow_both("method: bias, k: 0.5, by: gradient, data: a",
               "method: bias, k: 0.5, by: gradient, data: b");
    allow_both("method: lowrank, rank: 2", "method: lowrank, rank: 2, seed: 3");
    allow_both("method: [{method: prune, keep: 0.3}, {method: bitdelta}]",
               "method: [{method: bitdelta}, {method: prune, keep: 0.3}]");
}

static void test_auto(void **state) {
    (void)state;
    dpt_job job =
        parse_good(DATA "edits:\n- {name: e, method: expo, alpha: [auto, 0.1, 0.2]}\n", 0, NULL);
    static const char *const ids[] = {"e-alphaauto-on-a", "e-alphaauto-on-b", "e-alpha0.1",
                                      "e-alpha0.2"};
    static const int data[] = {0, 1, -1, -1};
    assert_int_equal(job.nedits, 4);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(job.edits[i].id, ids[i]);
        assert_int_equal(job.edits[i].auto_data, data[i]);
    }
    dpt_job_destroy(&job);
    static const char *const one[] = {"data=[{name: a, file: a.h5, loss: lm}]"};
    job = parse_good(DATA "edits:\n- {name: e, method: expo, alpha: auto}\n", 1, one);
    assert_int_equal(job.nedits, 1);
    assert_string_equal(job.edits[0].id, "e");
    assert_int_equal(job.edits[0].auto_data, 0);
    dpt_job_destroy(&job);
}

static void test_select(void **state) {
    (void)state;
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    static const char *const names[] = {"lm_head.weight", "model.layers.0.mlp.up_proj.weight",
                                        "model.layers.0.post_attention_layernorm.weight"};
    int64_t shape[] = {2, 2};
    for (int i = 0; i < 3; i++)
        assert_int_equal(dpt_catalog_add(&catalog, names[i], DPT_F32, 2, shape), DPT_OK);
    bool selected[3];
    dpt_job job =
        parse_good(HEAD "edits:\n- {name: e, method: expo, alpha: 0.1}\n"
                        "select: {include: [\"model.layers.*\"], exclude: [\"*norm*\"]}\n",
                   0, NULL);
    assert_int_equal(dpt_job_select(&job, &catalog, selected), DPT_OK);
    assert_false(selected[0]);
    assert_true(selected[1]);
    assert_false(selected[2]);
    dpt_job_destroy(&job);
    job = parse_good(HEAD "edits:\n- {name: e, method: expo, alpha: 0.1}\n"
                          "select: {include: [\"visual.*\"]}\n",
                     0, NULL);
    assert_int_equal(dpt_job_select(&job, &catalog, selected), DPT_ERR_USAGE);
    assert_non_null(strstr(dpt_error_message(), "job.yaml:5:21: select: the pattern 'visual.*'"));
    dpt_error_clear();
    dpt_job_destroy(&job);
    char text[] = HEAD "edits:\n- {name: e, method: expo, alpha: 0.1}\n"
                       "select: {exclude: [\"*weight\"]}\n";
    job = parse_good(text, 0, NULL);
    memset(text, ' ', sizeof text - 1); /* a job needs no text of its caller's */
    assert_int_equal(dpt_job_select(&job, &catalog, selected), DPT_ERR_USAGE);
    assert_non_null(strstr(dpt_error_message(), "job.yaml:5:10: select: exclude leaves no tensor"));
    dpt_error_clear();
    dpt_job_destroy(&job);
    dpt_catalog_destroy(&catalog);
}

static void test_read_is_agreed(void **state) {
    (void)state;
    dpt_job job;
    dpt_error_clear();
    assert_int_equal(dpt_job_read(&test_comm, "no/such/job.yaml", 0, NULL, &job), DPT_ERR_USAGE);
    assert_non_null(strstr(dpt_error_message(), "no/such/job.yaml"));
    dpt_error_clear();
}

static void refuse_bytes(const char *bytes, size_t n, const char *message) {
    char path[] = "/tmp/test_job.XXXXXX";
    dpt_job job;
    int fd = test_comm.rank == 0 ? mkstemp(path) : -1;
    MPI_Bcast(path, sizeof path, MPI_CHAR, 0, MPI_COMM_WORLD);
    if (test_comm.rank == 0)
        assert_true(write(fd, bytes, n) == (ssize_t)n && close(fd) == 0);
    dpt_error_clear();
    assert_int_equal(dpt_job_read(&test_comm, path, 0, NULL, &job), DPT_ERR_USAGE);
    if (strstr(dpt_error_message(), message) == NULL)
        fail_msg("wanted '%s' in '%s'", message, dpt_error_message());
    dpt_error_clear();
    if (test_comm.rank == 0)
        unlink(path);
}

/* Bytes on which libfyaml loops, and others that are no UTF-8 text; in a file and in --set. */
static void test_broken_text(void **state) {
    (void)state;
    static const char nine[] = "\x25\x54\xbf\xc2\x33\x25\x54\xbf\xc2";
    static const char *const bad[] = {"\xbf",
                                      "\xc2",
                                      "\xc2z",
                                      "\xc0\xaf",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf8\x88\x80\x80\x80",
                                      "\xff"};
    char text[64];
    refuse_bytes(nine, 9, ":1:3: byte 0xBF is no UTF-8");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "models:\n  a: '\xc3\xa9%s'\n", bad[i]);
        refuse_bytes(text, strlen(text), ":2:8: byte 0x");
    }
    refuse_bytes("name: a\0b\n", 10, ":1:8: the control character U+0000");
    refuse_bytes("name: \x1b\n", 8, ":1:7: the control character U+001B");
    refuse_bytes("\xff\xfen\0a\0", 6, "UTF-16");
    static const char *const sets[] = {"name=\x25\x54\xbf\xc2\x33\x25\x54\xbf\xc2", "name=\xe2\x82",
                                       "na\xffme=x"};
    static const char *const where[] = {"--set name=%T??3%T??:1:8", "--set name=??:1:6",
                                        "--set na?me=x:1:3"};
    for (int i = 0; i < 3; i++) {
        dpt_job job;
        dpt_error_clear();
        assert_int_equal(dpt_job_parse(HEAD, "job.yaml", 1, &sets[i], &job), DPT_ERR_USAGE);
        if (strstr(dpt_error_message(), where[i]) == NULL)
            fail_msg("wanted '%s' in '%s'", where[i], dpt_error_message());
    }
    dpt_error_clear();
    dpt_job job = parse_good("\xef\xbb\xbf" HEAD
                             "edits:\n- {name: e, method: expo, alpha: 0} # \xf0\x9f\x98\x80\n",
                             0, NULL);
    dpt_job_destroy(&job);
}

/* Deep nesting and aliases of aliases end with one line, and soon. */
static void test_bombs(void **state) {
    (void)state;
    enum { DEEP = 100000 };
    char *text = malloc(2 * DEEP + 64);
    sprintf(text, "name: ");
    memset(text + 6, '[', DEEP);
    text[6 + DEEP] = '\0';
    refuse_bytes(text, strlen(text), ":");
    for (int i = 0; i < DEEP; i++)
        memcpy(text + 2 * i, "- ", 2);
    refuse_bytes(text, 2 * DEEP, ":");
    size_t n = (size_t)sprintf(text, "a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 30; i++)
        n += (size_t)sprintf(text + n, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1, i - 1,
                             i - 1, i - 1);
    refuse_bytes(text, n, ":2:11: aliases (*name)");
    free(text);
}

/* Random damage of a good file: an error or a job, never a crash. */
static void test_fuzz(void **state) {
    (void)state;
    const char *good = HEAD "edits:\n- {name: dare, method: dare, p: [0.1, 0.9], seed: [1, 2]}\n"
                            "riemann: {rule: left, points: 5}\nselect: {include: [\"a*\"]}\n";
    static const char spice[] = "{}[]:,-&*!|>'\"%@`#\n\t 0a.~?";
    uint64_t state64 = 88172645463325252u;
    for (int round = 0; round < 3000; round++) {
        char text[512];
        snprintf(text, sizeof text, "%s", good);
        for (int hit = 0; hit < 1 + round % 4; hit++) {
            state64 ^= state64 << 13;
            state64 ^= state64 >> 7;
            state64 ^= state64 << 17;
            text[state64 % strlen(good)] = spice[(state64 >> 32) % (sizeof spice - 1)];
        }
        dpt_job job;
        dpt_error_clear();
        dpt_status st = dpt_job_parse(text, "job.yaml", 0, NULL, &job);
        assert_true(st == DPT_OK || st == DPT_ERR_USAGE);
        assert_true((st == DPT_OK) == (dpt_error_message()[0] == '\0'));
        dpt_job_destroy(&job);
    }
    dpt_error_clear();
}

/* What libfyaml does not survive is tried before it. */
static void test_short_of_memory(void **state) {
    (void)state;
    dpt_job job;
    dpt_error_clear();
    dpt_mem_set_budget(dpt_mem_in_use() + (1 << 19));
    assert_int_equal(dpt_job_parse(HEAD "edits:\n- {name: e, method: expo, alpha: 0.1}\n",
                                   "job.yaml", 0, NULL, &job),
                     DPT_ERR_OUTPUT);
    dpt_mem_set_budget(0);
    assert_non_null(strstr(dpt_error_message(), "YAML document needs"));
    dpt_error_clear();
}

/* Keys of a data set with preferences. */
static void test_dpo_keys(void **state) {
    (void)state;
#define EDIT "edits:\n- {name: e, method: expo, alpha: 0.1}\ndata:\n- {name: d, file: f, "
    dpt_job job = parse_good(HEAD EDIT "loss: dpo}\n", 0, NULL);
    assert_int_equal(job.data[0].loss, DPT_LOSS_DPO);
    assert_true(job.data[0].beta == 0.1);
    assert_null(job.data[0].reference);
    dpt_job_destroy(&job);
    job = parse_good(HEAD EDIT "loss: dpo, beta: 0.5, reference: r}\n", 0, NULL);
    assert_true(job.data[0].beta == 0.5);
    assert_string_equal(job.data[0].reference, "r");
    dpt_job_destroy(&job);
    expect_bad(HEAD EDIT "loss: lm, beta: 0.5}\n", "job.yaml:6:38: beta belongs to loss dpo alone");
    expect_bad(HEAD EDIT "loss: class, reference: r}\n", "reference belongs to loss dpo alone");
    expect_bad(HEAD EDIT "loss: dpo, beta: 0}\n", "beta");
    expect_bad(HEAD EDIT "loss: dpo, beta: .nan}\n", "beta");
    expect_bad(HEAD EDIT "loss: dpo, weight: 2}\n", "unknown key 'weight'");
#undef EDIT
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_sweep_order_and_ids),
        cmocka_unit_test(test_sequence_sweeps_inside),
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_set_places),
        cmocka_unit_test(test_one_plain_document),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_bad_jobs),
        cmocka_unit_test(test_gradient_data),
        cmocka_unit_test(test_edits_twice),
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_dpo_keys),
        cmocka_unit_test(test_short_of_memory),
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_broken_text),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_read_is_agreed),
        cmocka_unit_test(test_fuzz),
    };
    return test_mpi_main(argc, argv, tests);
}

/* ranks: 1 */
#include "support/test_mpi.h"

#include "deltapath/base/log.h"
#include "deltapath/base/rng.h"
#include "deltapath/report/report.h"
#include "deltapath/results/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LAYERS = 6, KINDS = 9, TENSORS = LAYERS * KINDS + 3, POINTS = 5, SAMPLES = 200 };

static char directory[64];
static char *tensor_names[TENSORS];
static int64_t tensor_numel[TENSORS];

static int setup(void **state) {
    static const char *const kinds[KINDS] = {
        "input_layernorm",  "self_attn.q_proj", "self_attn.k_proj",
        "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm",
        "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
    (void)state;
    strcpy(directory, "/tmp/dpt-report-XXXXXX");
    if (mkdtemp(directory) == NULL)
        return -1;
    for (int i = 0; i < LAYERS * KINDS; i++)
        tensor_names[i] = dpt_mem_format("model.layers.%d.%s.weight", i / KINDS, kinds[i % KINDS]);
    tensor_names[TENSORS - 3] = dpt_mem_strdup("lm_head.weight", "name");
    tensor_names[TENSORS - 2] = dpt_mem_strdup("model.embed_tokens.weight", "name");
    tensor_names[TENSORS - 1] = dpt_mem_strdup("model.norm.weight", "name");
    return 0;
}

/* With DPT_TEST_KEEP in the environment the files stay, to be looked at. */
static int teardown(void **state) {
    (void)state;
    char command[128];
    for (int i = 0; i < TENSORS; i++)
        dpt_mem_free(tensor_names[i]);
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    if (getenv("DPT_TEST_KEEP") != NULL)
        fprintf(stderr, "kept: %s\n", directory);
    else if (system(command) != 0)
        return -1;
    return 0;
}

static void fill_terms(dpt_result *r, double change, dpt_rng rng) {
    uint32_t words[TENSORS];
    double share[TENSORS];
    double total = 0.0;
    dpt_rng_words(rng, 0, TENSORS, words);
    for (int i = 0; i < TENSORS; i++) {
        share[i] = dpt_rng_uniform(words[i]) - 0.15;
        total += share[i];
    }
    for (int c = 0; c < POINTS; c++) {
        r->nodes[c] = c / (double)POINTS;
        r->weights[c] = 1.0 / POINTS;
        r->path_loss[c] = 0.1 + change * r->nodes[c];
    }
    for (int i = 0; i < TENSORS; i++) {
        r->integrated[i] = 0.0;
        for (int c = 0; c < POINTS; c++) {
            double term = change * share[i] / total * (0.55 + r->nodes[c]);
            r->terms[i * POINTS + c] = term;
            r->integrated[i] += term / POINTS;
        }
        r->second_order[i] = 0.4 * change * share[i] / total;
        r->stats[i] = (dpt_result_tensor){.delta_norm = 1.0,
                                          .edit_norm = 0.5,
                                          .rounding = NAN,
                                          .share_changed = 0.9,
                                          .share_zero = NAN,
                                          .rank = NAN,
                                          .residual = NAN,
                                          .scale = NAN,
                                          .correlation = NAN,
                                          .slope = NAN,
                                          .slope_se = NAN,
                                          .value = NAN};
    }
}

static void fill_scalars(dpt_result *r, double change, double width, const char *verdict) {
    dpt_result_scalars *s = &r->scalars;
    s->loss_pre = 2.31;
    s->loss_post = 0.112;
    s->loss_edit = 0.112 + change;
    s->accuracy_pre = 0.12;
    s->accuracy_post = 0.965;
    s->accuracy_edit = fmax(0.0, 0.965 - 0.3 * fabs(change));
    s->change = change;
    s->change_low = change - width;
    s->change_high = change + width;
    s->estimate = change * 0.95;
    s->estimate_low = s->estimate - width;
    s->estimate_high = s->estimate + width;
    s->error = s->estimate - s->change;
    s->second_order = 0.4 * change;
    s->gain = s->loss_pre - s->loss_post;
    s->share = change / s->gain;
    s->share_low = s->change_low / s->gain;
    s->share_high = s->change_high / s->gain;
    s->margin = 0.05 * s->gain;
    s->p_change = 0.0123;
    s->p_adjusted = 0.08;
    s->seconds = 1.5;
    assert_int_equal(dpt_result_set_string(&r->verdict, "%s", verdict), DPT_OK);
}

typedef struct planned {
    const char *edit, *method, *name, *value;
    double change, width;
    const char *verdict;
} planned;

static const planned plan[] = {
    {"dare-p0.1", "dare", "p", "0.1", 0.004, 0.006, "competitive"},
    {"dare-p0.5", "dare", "p", "0.5", 0.021, 0.02, "competitive"},
    {"dare-p0.9", "dare", "p", "0.9", 0.31, 0.05, "decreased"},
    {"drop-p0.5", "drop", "p", "0.5", 0.74, 0.08, "decreased"},
    {"drop-p0.9", "drop", "p", "0.9", 2.02, 0.11, "decreased"},
    {"prune-keep0.3", "prune", "keep", "0.3", 0.12, 0.03, "decreased"},
    {"bitdelta", "bitdelta", "granularity", "tensor", 0.055, 0.06, "undecided"},
    {"lowrank-sparsity0.9", "lowrank", "sparsity", "0.9", 0.42, 0.05, "decreased"},
    {"expo-alpha0.1", "expo", "alpha", "0.1", -0.03, 0.012, "improved"},
    {"expo-alpha0.5", "expo", "alpha", "0.5", 0.16, 0.04, "decreased"},
    {"both <script>alert('x')</script> `id` \"q\" & $(id)", "prune + bitdelta", "a<b>", "&", 0.2,
     0.02, "decreased"},
};
enum { PLANNED = sizeof plan / sizeof *plan };

/* Many changes next to zero, and a gain that gives no margin. */
static bool crowded;

static void fill_unit(const planned *p, dpt_result *r) {
    assert_int_equal(dpt_result_create(TENSORS, POINTS, SAMPLES, r), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r->edit, "%s", p->edit), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r->data, "task"), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r->method, "%s", p->method), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r->loss, "lm"), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r->rule, "left"), DPT_OK);
    assert_int_equal(dpt_result_add_parameter(r, p->name, p->value), DPT_OK);
    double change = crowded && p - plan < PLANNED - 2 ? 1e-3 * p->change : p->change;
    fill_terms(r, change, dpt_rng_make(1, p->edit, DPT_RNG_BOOTSTRAP));
    fill_scalars(r, change, p->width, p->verdict);
    r->scalars.predicted_change = 0.8 * change + 0.01;
    r->scalars.predicted_in_range = change < 0.1;
    r->scalars.curvature = 0.0;
    for (int t = 0; t < TENSORS; t++) {
        r->curvature[t] = t % 3 == 0 ? 0.0 : 0.01 * (t + 1);
        r->curvature_se[t] = 0.1 * r->curvature[t];
        r->scalars.curvature += r->curvature[t];
    }
    if (crowded) { /* a gain that cannot be told from zero */
        r->scalars.margin = NAN;
        r->scalars.gain_low = -1.0;
        r->scalars.gain_high = 1.0;
    }
    for (int t = 0; strcmp(p->method, "lowrank") == 0 && t < TENSORS; t++) {
        double values[48], error[48];
        for (int j = 0; j < 48; j++) {
            values[j] = (1.0 + t % KINDS) * exp(-0.02 * j * (1 + t % KINDS));
            error[j] = 0.125;
        }
        const dpt_result_spectrum spectrum = {
            .tensor = t, .count = 48, .values = values, .error = error};
        assert_int_equal(dpt_result_add_spectrum(r, &spectrum), DPT_OK);
    }
}

static void write_results(void) {
    dpt_results_study study = {.name = "demo <b>study</b>",
                               .directory = directory,
                               .tensors = TENSORS,
                               .tensor_names = (const char *const *)tensor_names,
                               .tensor_numel = tensor_numel,
                               .provenance =
                                   "{\"program\": \"deltapath 0.1\", \"ranks\": 2, \"pre\": "
                                   "\"share/demo/llama-pre\", \"post\": \"<i>llama-post</i>\"}",
                               .job = "name: demo\nmodels: {pre: a, post: b} # <script>\n"};
    dpt_result results[PLANNED + 1];
    for (int i = 0; i < PLANNED; i++)
        fill_unit(&plan[i], &results[i]);
    char ids[2][16] = {"dare-p<0.1>", "task"};
    const dpt_result_seeds seeds = {
        .edit = ids[0], .data = ids[1], .count = 3, .change = {0.125, 0.0625, 0.03, 0.22}};
    study.seeds = &seeds;
    study.nseeds = 1;
    static const char *const found[][2] = {{"found_alpha", "0.3125"},
                                           {"advice", "extrapolate"},
                                           {"slope_interval", "-0.2:-0.1"},
                                           {"alpha_layer1", "0.4375"},
                                           {"alpha_loss_slope", "0:1:2;0.1:0.5:0"}};
    for (int i = 0; i < 5; i++)
        assert_int_equal(dpt_result_add_parameter(&results[8], found[i][0], found[i][1]), DPT_OK);
    assert_int_equal(dpt_result_create(TENSORS, 0, 0, &results[PLANNED]), DPT_OK);
    assert_int_equal(dpt_result_set_string(&results[PLANNED].edit, "alone"), DPT_OK);
    assert_int_equal(dpt_results_write(&test_comm, &study, results, PLANNED + 1), DPT_OK);
    for (int i = 0; i <= PLANNED; i++)
        dpt_result_destroy(&results[i]);
}

static char *slurp(const char *path) {
    static char text[4 << 20];
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static int count_of(const char *text, const char *word) {
    int count = 0;
    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word))
        count++;
    return count;
}

/* Nothing that a name says is markup, runs in a shell, or is fetched from elsewhere. */
static void check_page(const char *html) {
    assert_null(strstr(html, "<script"));
    assert_null(strstr(html, "<b>study"));
    assert_null(strstr(html, "<i>llama"));
    assert_non_null(strstr(html, "&lt;script&gt;alert(&#39;x&#39;)"));
    assert_null(strstr(html, "src=\"http"));
    assert_null(strstr(html, "uid="));
    assert_null(strstr(html, ">nan<"));
    assert_non_null(strstr(html, "</html>"));
    assert_int_equal(count_of(html, "class=\"v\""), PLANNED);
    assert_int_equal(count_of(html, "<figure>"), 8);
    assert_non_null(strstr(html, "dare-p&lt;0.1&gt;</td><td>3</td><td>+0.125"));
    assert_non_null(strstr(html, "<td>extrapolate</td>"));
    assert_null(strstr(html, "No margin:"));
    assert_non_null(strstr(html, "layer1 0.4375"));
    assert_null(strstr(html, "0:1:2;")); /* the trace stays in the results */
}

static void test_report(void **state) {
    (void)state;
    char results[128], html[128], csv[128], file[192];
    struct stat info;
    snprintf(results, sizeof results, "%s/results.h5", directory);
    snprintf(html, sizeof html, "%s/report.html", directory);
    snprintf(csv, sizeof csv, "%s/c's v", directory);
    dpt_report_options options = {.csv_dir = csv};
    write_results();
    assert_int_equal(dpt_report_write(results, html, &options), DPT_OK);
    check_page(slurp(html));
    assert_non_null(strstr(slurp(html), "demo &lt;b&gt;study&lt;/b&gt;"));
    int plots = system("gnuplot -V >/dev/null 2>&1") == 0 ? 8 : 0;
    assert_int_equal(count_of(slurp(html), "<svg"), plots);
    static const char *const files[] = {"changes-task.csv",
                                        "terms-by-layer-task.csv",
                                        "terms-by-module-task.csv",
                                        "derivative-task.csv",
                                        "spectra.csv",
                                        "predictions-task.csv",
                                        "curvature-task.csv"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(file, sizeof file, "%s/%s", csv, files[i]);
        assert_int_equal(stat(file, &info), 0);
        assert_true(info.st_size > 40);
    }
    snprintf(file, sizeof file, "%s/spectra.csv", csv);
    assert_non_null(strstr(slurp(file), ",value,relative,error\n"));
    assert_non_null(strstr(slurp(file), ",1,0.125\n"));
    /* An error of c over c of all is none of a share. */
    snprintf(file, sizeof file, "%s/curvature-task.csv", csv);
    assert_non_null(strstr(slurp(file), ",curvature,curvature_se,share\n"));
    assert_int_equal(plots > 0,
                     strstr(slurp(html), "curvature along the delta, with standard errors "
                                         "over the draws of labels") != NULL);
    snprintf(file, sizeof file, "test -z \"$(ls '%s' | grep partial)\"", directory);
    assert_int_equal(system(file), 0);
}

static void test_without_gnuplot(void **state) {
    (void)state;
    char results[128], html[128];
    snprintf(results, sizeof results, "%s/results.h5", directory);
    snprintf(html, sizeof html, "%s/plain.html", directory);
    write_results();
    const char *const programs[] = {"/nowhere/gnuplot", "false", "true"};
    for (int i = 0; i < 3; i++) {
        dpt_report_options options = {.gnuplot = programs[i], .title = "another"};
        assert_int_equal(dpt_report_write(results, html, &options), DPT_OK);
        check_page(slurp(html));
        assert_int_equal(count_of(slurp(html), "<svg"), 0);
        assert_int_equal(count_of(slurp(html), "class=\"notice\""), 8);
    }
}

/* The numbers of a scatter plot's script, in pixels of its square; returns how many there are. */
static int numbers_of(const char *script, double x[PLANNED + 1], double y[PLANNED + 1]) {
    enum { SIDE = 470 };
    int count = 0;
    double low, high;
    const char *range = strstr(script, "set xrange [");
    assert_non_null(range);
    assert_int_equal(sscanf(range, "set xrange [%lf:%lf]", &low, &high), 2);
    for (const char *at = strstr(script, "set label '"); at != NULL && at < range;
         at = strstr(at + 1, "set label '")) {
        int number;
        double place[2];
        assert_int_equal(
            sscanf(at, "set label '%d' at %lf,%lf center", &number, &place[0], &place[1]), 3);
        assert_in_range(number, 1, PLANNED);
        x[number] = SIDE * (place[0] - low) / (high - low);
        y[number] = SIDE * (place[1] - low) / (high - low);
        count++;
    }
    return count;
}

/* A stand-in for gnuplot puts its script where the plot goes. */
static void test_crowded(void **state) {
    (void)state;
    char results[128], html[128], program[128];
    double x[PLANNED + 1], y[PLANNED + 1];
    snprintf(results, sizeof results, "%s/results.h5", directory);
    snprintf(html, sizeof html, "%s/crowded.html", directory);
    snprintf(program, sizeof program, "%s/show", directory);
    FILE *show = fopen(program, "w");
    assert_non_null(show);
    fputs("#!/bin/sh\necho '<svg>'\ncat \"$1\"\necho '</svg>'\n", show);
    fclose(show);
    assert_int_equal(chmod(program, 0700), 0);
    crowded = true;
    write_results();
    crowded = false;
    dpt_report_options options = {.gnuplot = program};
    assert_int_equal(dpt_report_write(results, html, &options), DPT_OK);
    const char *page = slurp(html);
    assert_int_equal(count_of(page, "No margin: the post-training gain cannot be told from zero; "
                                    "give an absolute margin."),
                     1);
    assert_null(strstr(page, "The band is the margin"));
    const char *scatter = strstr(page, "set label '");
    assert_non_null(scatter);
    assert_int_equal(numbers_of(scatter, x, y), PLANNED);
    for (int i = 1; i <= PLANNED; i++)
        for (int k = 1; k < i; k++)
            assert_true(fabs(x[i] - x[k]) >= 6.99 || fabs(y[i] - y[k]) >= 11.99);
}

static void test_errors(void **state) {
    (void)state;
    char results[128], html[128];
    snprintf(results, sizeof results, "%s/results.h5", directory);
    snprintf(html, sizeof html, "%s/none/report.html", directory);
    assert_int_equal(dpt_report_write(results, html, NULL), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "results.h5"));
    dpt_error_clear();
    write_results();
    assert_int_equal(dpt_report_write(results, html, NULL), DPT_ERR_OUTPUT);
    assert_non_null(strstr(dpt_error_message(), "none/report.html"));
    dpt_error_clear();
}

int main(int argc, char **argv) {
    dpt_log_configure(0, getenv("DPT_TEST_KEEP") != NULL ? DPT_LOG_INFO : DPT_LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_report, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_gnuplot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crowded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
    };
    return test_mpi_main(argc, argv, tests);
}

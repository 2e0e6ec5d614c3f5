/* ranks: 1 2 3 4 7
 * seconds: 600 */
/* Edits that take the gradient at W_post: bias by the product with it, calibration, and the
 * correlation of mask and product, against the NumPy oracle. */
#include "edit/edit_support.h"

#include <math.h>

typedef struct gradient {
    dpt_catalog catalog;
    dpt_shard shard;
    dpt_field *field;
    dpt_source source;
} gradient;

/* As gradient() of the oracle: noise - Delta / 2. */
static void fill_cell(pair *p, int64_t c, float *g) {
    static uint32_t words[DPT_CELL];
    static float pre[DPT_CELL], post[DPT_CELL];
    dpt_range cell = dpt_shard_cell(&p->shard, c);
    dpt_dtype type = p->catalog.tensors[cell.tensor].dtype;
    char stream[128];
    if (!dpt_dtype_editable(type)) {
        memset(g, 0, (size_t)cell.n * sizeof *g);
        return;
    }
    snprintf(stream, sizeof stream, "gradient/%s", p->catalog.tensors[cell.tensor].name);
    dpt_rng_words(dpt_rng_make(7, stream, DPT_RNG_MASK), cell.ig, cell.n, words);
    dpt_dtype_to_f32(type, dpt_field_cell(p->pre, c), pre, cell.n);
    dpt_dtype_to_f32(type, dpt_field_cell(p->post, c), post, cell.n);
    for (int64_t i = 0; i < cell.n; i++)
        g[i] = (float)((int)(words[i] & 0xffff) - 32768) * 0x1p-22F + -0.5F * (post[i] - pre[i]);
}

static void gradient_create(pair *p, gradient *g) {
    assert_int_equal(dpt_catalog_copy(&p->catalog, &g->catalog), DPT_OK);
    for (int t = 0; t < g->catalog.count; t++)
        g->catalog.tensors[t].dtype = DPT_F32;
    assert_int_equal(dpt_shard_create(&g->catalog, test_comm.size, &g->shard), DPT_OK);
    assert_int_equal(dpt_field_create(&test_comm, &g->catalog, &g->shard, &g->field), DPT_OK);
    for (int64_t c = 0; c < g->shard.cells; c++)
        if (dpt_field_cell(g->field, c) != NULL)
            fill_cell(p, c, dpt_field_cell(g->field, c));
    g->source = dpt_field_source(g->field);
    p->input.gradient = &g->source;
}

static void gradient_destroy(gradient *g) {
    dpt_field_destroy(g->field);
    dpt_shard_destroy(&g->shard);
    dpt_catalog_destroy(&g->catalog);
}

static dpt_status run(pair *p, const char *text, unsigned long seed, dpt_edit_calibrate calibrate,
                      dpt_edit_report *report) {
    dpt_edit_spec spec;
    assert_int_equal(spec_parse(text, seed, &spec), DPT_OK);
    spec.calibrate = calibrate;
    return dpt_edit_run(&spec, &p->input, p->sink, report);
}

static bool near(double a, double b, double tolerance) {
    return fabs(a - b) <= tolerance * fmax(1.0, fabs(b));
}

/* Whether what calibration says of a tensor goes with its factor. */
static bool fits_scale(bool calibrates, const dpt_edit_tensor_stats *stats) {
    if (!calibrates)
        return stats->calibrated == DPT_CALIBRATED_NOT;
    switch (stats->calibrated) {
    case DPT_CALIBRATED_NOT:
        return isnan(stats->scale);
    case DPT_CALIBRATED_LEAST:
        return stats->scale == 0.5;
    case DPT_CALIBRATED_MOST:
        return stats->scale == 2.0;
    case DPT_CALIBRATED_SIGN:
    case DPT_CALIBRATED_LOST:
        return stats->scale == 1.0;
    default:
        return stats->scale > 0.5 && stats->scale < 2.0 && stats->scale != 1.0;
    }
}

static void matches_oracle(void **state) {
    (void)state;
    FILE *golden = fopen("tests/golden/edit/gradient.txt", "r");
    assert_non_null(golden);
    char types[16], text[128], name[128], open[16] = "", last[160] = "";
    unsigned long seed, wanted;
    int calibrate, checked = 0, wrong = 0;
    double scale, correlation;
    pair p;
    gradient g;
    dpt_edit_report report = {.ntensors = 0};
    while (fscanf(golden, "%15s %lu %127s %d %127s %lx %lf %lf", types, &seed, text, &calibrate,
                  name, &wanted, &scale, &correlation) == 8) {
        char id[160];
        if (strcmp(types, open) != 0) {
            if (open[0] != '\0') {
                gradient_destroy(&g);
                pair_destroy(&p);
            }
            dpt_dtype type;
            assert_true(dpt_dtype_parse(types, &type));
            pair_create(&p, type, type, true);
            gradient_create(&p, &g);
            strcpy(open, types);
        }
        snprintf(id, sizeof id, "%s %s", types, text);
        if (strcmp(id, last) != 0) {
            dpt_edit_report_destroy(&report);
            assert_int_equal(run(&p, text, seed, calibrate, &report), DPT_OK);
            strcpy(last, id);
        }
        int t = dpt_catalog_find(&p.catalog, name);
        const dpt_edit_tensor_stats *stats = &report.stats[t];
        bool good = tensor_hash(p.out, t) == wanted;
        good = good && (!calibrate || near(stats->scale, scale, 1e-12));
        good = good && fits_scale(calibrate != 0, stats);
        good = good && (isnan(correlation) || near(stats->correlation, correlation, 1e-9));
        if (!good) {
            print_error("%s: %s: scale %.17g, correlation %.17g\n", id, name, stats->scale,
                        stats->correlation);
            wrong++;
        }
        checked++;
    }
    fclose(golden);
    dpt_edit_report_destroy(&report);
    gradient_destroy(&g);
    pair_destroy(&p);
    assert_int_equal(checked, 176);
    assert_int_equal(wrong, 0);
}

/* <g, out - post> of a tensor, against |g| |out - post|. */
static double term(pair *p, gradient *g, int t) {
    int64_t bytes;
    float *out = whole_tensor(p->out, t, &bytes);
    float *post = whole_tensor(p->post, t, &bytes);
    float *grad = whole_tensor(g->field, t, &bytes);
    double dot = 0.0, gg = 0.0, ee = 0.0;
    for (int64_t i = 0; i < p->catalog.tensors[t].numel; i++) {
        double e = (double)out[i] - (double)post[i];
        dot += (double)grad[i] * e;
        gg += (double)grad[i] * (double)grad[i];
        ee += e * e;
    }
    dpt_mem_free(out);
    dpt_mem_free(post);
    dpt_mem_free(grad);
    return gg * ee > 0.0 ? dot / sqrt(gg * ee) : 0.0;
}

/* In f32 the term of a calibrated edit at W_post is zero to rounding; the plain edit's is not. */
static void calibrated_term_is_zero(void **state) {
    (void)state;
    static const char *const edits[] = {
        "bitdelta",        "prune:keep=0.4",           "multibit:bits=1",
        "lowrank:rank=40", "lowrank:rank=40;bitdelta", "drop:p=0.2;della:p=0.2,epsilon=0.1"};
    pair p;
    gradient g;
    pair_create(&p, DPT_F32, DPT_F32, false);
    gradient_create(&p, &g);
    int t = dpt_catalog_find(&p.catalog, "model.layers.0.self_attn.q_proj.weight");
    bool selected[16] = {false};
    selected[t] = true;
    p.input.selected = selected;
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
        dpt_edit_report report;
        assert_int_equal(run(&p, edits[i], 1, DPT_CALIBRATE_NONE, NULL), DPT_OK);
        double plain = fabs(term(&p, &g, t));
        assert_int_equal(run(&p, edits[i], 1, DPT_CALIBRATE_TERM, &report), DPT_OK);
        double calibrated = fabs(term(&p, &g, t));
        assert_true(report.stats[t].scale > 0.5 && report.stats[t].scale < 2.0);
        if (plain < 1e-3 || calibrated > 1e-6)
            fail_msg("%s: %g plain, %g calibrated by %g", edits[i], plain, calibrated,
                     report.stats[t].scale);
        dpt_edit_report_destroy(&report);
    }
    gradient_destroy(&g);
    pair_destroy(&p);
}

/* Entries of Delta that are exactly 0, by methods that count them, in the fused way too; others do not say. */
static void zeros_are_counted(void **state) {
    (void)state;
    static const struct {
        const char *text;
        dpt_edit_calibrate calibrate;
        bool counts;
    } edits[] = {{"bitdelta:tensors=all", DPT_CALIBRATE_NONE, true},
                 {"bitdelta:granularity=row,mean=nonzero", DPT_CALIBRATE_NONE, true},
                 {"bitdelta:convention=code", DPT_CALIBRATE_NONE, true},
                 {"multibit:bits=2,scope=model", DPT_CALIBRATE_NONE, true},
                 {"prune:keep=0.4", DPT_CALIBRATE_TERM, true},
                 {"prune:keep=0.4;bitdelta", DPT_CALIBRATE_NONE, false}};
    for (size_t k = 0; k < sizeof edits / sizeof edits[0]; k++) {
        dpt_dtype type = k % 2 == 0 ? DPT_BF16 : DPT_F32;
        pair p;
        gradient g;
        dpt_edit_report report;
        pair_create(&p, type, type, k < 2); /* with a tensor of several cells */
        gradient_create(&p, &g);
        assert_int_equal(run(&p, edits[k].text, 1, edits[k].calibrate, &report), DPT_OK);
        int counted = 0;
        for (int t = 0; t < p.catalog.count; t++) {
            int64_t bytes, zeros = 0, n = p.catalog.tensors[t].numel;
            if (isnan(report.stats[t].zeros))
                continue;
            double found = report.stats[t].zeros;
            void *before = whole_tensor(p.pre, t, &bytes), *after = whole_tensor(p.post, t, &bytes);
            for (int64_t i = 0; i < n; i++) { /* stored alike: the sources have no two zeros */
                size_t size = (size_t)dpt_dtype_size(type);
                zeros += memcmp((char *)before + i * (int64_t)size,
                                (char *)after + i * (int64_t)size, size) == 0;
            }
            if (found != (double)zeros || zeros < n / 10)
                fail_msg("%s: %s: %g zeros in place of %lld", edits[k].text,
                         p.catalog.tensors[t].name, found, (long long)zeros);
            counted++;
            dpt_mem_free(before);
            dpt_mem_free(after);
        }
        assert_int_equal(counted > 0, edits[k].counts);
        dpt_edit_report_destroy(&report);
        gradient_destroy(&g);
        pair_destroy(&p);
    }
}

static void bad_calls_are_refused(void **state) {
    (void)state;
    pair p;
    gradient g;
    pair_create(&p, DPT_F32, DPT_F32, false);
    assert_int_equal(run(&p, "bias:k=0.5,by=gradient", 0, DPT_CALIBRATE_NONE, NULL),
                     DPT_ERR_INTERNAL);
    assert_non_null(strstr(dpt_error_message(), "gradient"));
    dpt_error_clear();
    assert_int_equal(run(&p, "bitdelta", 0, DPT_CALIBRATE_TERM, NULL), DPT_ERR_INTERNAL);
    dpt_error_clear();
    gradient_create(&p, &g);
    assert_int_equal(run(&p, "expo:alpha=0.5", 0, DPT_CALIBRATE_TERM, NULL), DPT_ERR_USAGE);
    assert_non_null(strstr(dpt_error_message(), "calibrate"));
    dpt_error_clear();
    assert_int_equal(run(&p, "bitdelta", 0, DPT_CALIBRATE_SIGNIFICANT, NULL), DPT_ERR_INTERNAL);
    assert_non_null(strstr(dpt_error_message(), "slopes"));
    dpt_error_clear();
    gradient_destroy(&g);
    pair_destroy(&p);
}

/* Of `significant` the slopes of samples decide, tensor by tensor; the other tensors get their factor. */
static void samples_decide(void **state) {
    (void)state;
    pair p;
    gradient g;
    pair_create(&p, DPT_F32, DPT_F32, false);
    gradient_create(&p, &g);
    dpt_edit_report plain, asked;
    dpt_edit_slope *slopes = dpt_mem_zalloc(p.catalog.count, sizeof *slopes, "slopes");
    assert_non_null(slopes);
    for (int t = 0; t < p.catalog.count; t++)
        slopes[t] = (dpt_edit_slope){.se = 0.25 * t, .significant = t % 2 == 0};
    p.input.slopes = slopes;
    assert_int_equal(run(&p, "prune:keep=0.4", 1, DPT_CALIBRATE_TERM, &plain), DPT_OK);
    assert_int_equal(run(&p, "prune:keep=0.4", 1, DPT_CALIBRATE_SIGNIFICANT, &asked), DPT_OK);
    int kept = 0, left = 0;
    for (int t = 0; t < p.catalog.count; t++) {
        const dpt_edit_tensor_stats *a = &plain.stats[t], *b = &asked.stats[t];
        if (a->calibrated == DPT_CALIBRATED_NOT) {
            assert_true(isnan(b->slope) && isnan(b->slope_se));
            continue;
        }
        assert_true(a->slope == b->slope && isnan(a->slope_se) && b->slope_se == 0.25 * t);
        if (t % 2 == 0) {
            assert_true(a->scale == b->scale && a->calibrated == b->calibrated);
            kept += a->scale != 1.0;
        } else if (a->slope != 0.0) {
            assert_int_equal(b->calibrated, DPT_CALIBRATED_CHANCE);
            assert_true(b->scale == 1.0);
            left += a->scale != 1.0;
        }
    }
    assert_true(kept > 0 && left > 0);
    dpt_edit_report_destroy(&asked);
    dpt_edit_report_destroy(&plain);
    dpt_mem_free(slopes);
    gradient_destroy(&g);
    pair_destroy(&p);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_oracle), cmocka_unit_test(calibrated_term_is_zero),
        cmocka_unit_test(zeros_are_counted), cmocka_unit_test(samples_decide),
        cmocka_unit_test(bad_calls_are_refused)};
    return test_mpi_main(argc, argv, tests);
}

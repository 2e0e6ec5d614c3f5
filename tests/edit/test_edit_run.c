/* ranks: 1 2 3 4 7 */
/* The engine: selection, pairing, statistics, bad values, faults. */
#include "edit/edit_support.h"

#include <math.h>
#include <stdlib.h>

static dpt_status run(pair *p, const char *text, dpt_edit_report *report) {
    dpt_edit_spec spec;
    assert_int_equal(spec_parse(text, 1, &spec), DPT_OK);
    return dpt_edit_run(&spec, &p->input, p->sink, report);
}

static int find(const pair *p, const char *name) {
    int t = dpt_catalog_find(&p->catalog, name);
    assert_true(t >= 0);
    return t;
}

static bool same_as_post(pair *p, int tensor) {
    return tensor_hash(p->out, tensor) == tensor_hash(p->post, tensor);
}

/* Unselected, unpaired and non-editable tensors keep their bytes, and embeddings under bitdelta. */
static void untouched_tensors_are_kept(void **state) {
    (void)state;
    pair p;
    bool selected[16];
    pair_create(&p, DPT_BF16, DPT_BF16, false);
    int q = find(&p, "model.layers.0.self_attn.q_proj.weight");
    int up = find(&p, "model.layers.1.mlp.up_proj.weight");
    for (int t = 0; t < p.catalog.count; t++)
        selected[t] = t != q;
    p.input.selected = selected;
    p.comparable[up] = false;
    assert_int_equal(run(&p, "expo:alpha=2", NULL), DPT_OK);
    assert_true(same_as_post(&p, q));
    assert_true(same_as_post(&p, up));
    assert_true(same_as_post(&p, find(&p, "bytes")));
    assert_false(same_as_post(&p, find(&p, "lm_head.weight")));
    p.input.selected = NULL;
    assert_int_equal(run(&p, "bitdelta", NULL), DPT_OK);
    assert_true(same_as_post(&p, find(&p, "lm_head.weight")));
    assert_true(same_as_post(&p, find(&p, "model.norm.weight")));
    assert_false(same_as_post(&p, q));
    pair_destroy(&p);
}

/* Norms and counts against a plain loop over whole tensors. */
static void check_stats(pair *p, int t, const dpt_edit_tensor_stats *stats) {
    int64_t bytes;
    float *pre = whole_tensor(p->pre, t, &bytes);
    float *post = whole_tensor(p->post, t, &bytes);
    float *out = whole_tensor(p->out, t, &bytes);
    double delta = 0.0, edit = 0.0;
    int64_t changed = 0;
    for (int64_t i = 0; i < p->catalog.tensors[t].numel; i++) {
        delta += pow((double)(post[i] - pre[i]), 2);
        edit += pow((double)(out[i] - post[i]), 2);
        changed += out[i] != post[i];
    }
    assert_int_equal(stats->changed, changed);
    assert_true(fabs(stats->delta_norm - sqrt(delta)) <= 1e-6 * sqrt(delta));
    assert_true(fabs(stats->edit_norm - sqrt(edit)) <= 1e-6 * sqrt(edit));
    dpt_mem_free(pre);
    dpt_mem_free(post);
    dpt_mem_free(out);
}

static void statistics_are_right(void **state) {
    (void)state;
    pair p;
    dpt_edit_report report;
    pair_create(&p, DPT_F32, DPT_F32, true);
    assert_int_equal(run(&p, "dare:p=0.75", &report), DPT_OK);
    assert_int_equal(report.ntensors, p.catalog.count);
    for (int t = 0; t < p.catalog.count; t++)
        if (p.catalog.tensors[t].dtype == DPT_F32 && p.catalog.tensors[t].numel > 0) {
            check_stats(&p, t, &report.stats[t]);
            assert_true(report.stats[t].scale == 4.0);
            assert_true(isnan(report.stats[t].residual));
        }
    assert_int_equal(report.nspectra, 0);
    /* The same bits as one rank alone: the golden value of a sum over two cells. */
    double norm = report.stats[find(&p, "model.layers.0.mlp.down_proj.weight")].delta_norm;
    if (norm != 0x1.2877cc231da72p+3)
        fail_msg("|Delta| = %a", norm);
    dpt_edit_report_destroy(&report);
    pair_destroy(&p);
}

static void identity_edits_change_nothing(void **state) {
    (void)state;
    static const char *const edits[] = {"expo:alpha=0", "dare:p=0", "drop:p=0", "prune:keep=1",
                                        "dare:p=0.5,k=1"};
    pair p;
    pair_create(&p, DPT_F32, DPT_F32, false);
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
        dpt_edit_report report;
        assert_int_equal(run(&p, edits[i], &report), DPT_OK);
        for (int t = 0; t < p.catalog.count; t++)
            assert_true(report.stats[t].edit_norm <= 1e-7 * report.stats[t].delta_norm);
        dpt_edit_report_destroy(&report);
    }
    pair_destroy(&p);
}

static void poison(pair *p, dpt_field *field, int tensor, int64_t ig, float value) {
    int64_t cell = dpt_shard_cell_of(&p->shard, tensor, ig);
    char *at = dpt_field_cell(field, cell);
    if (at != NULL)
        dpt_dtype_from_f32(DPT_BF16, &value, at + ig % DPT_CELL * 2, 1);
}

/* Every edit and both models: one message that names model, tensor and index, on all ranks. */
static void bad_values_are_named(void **state) {
    (void)state;
    static const char *const edits[] = {"expo:alpha=1", "prune:keep=0.5", "bitdelta"};
    for (int e = 0; e < 3; e++)
        for (int which = 0; which < 2; which++) {
            pair p;
            pair_create(&p, DPT_BF16, DPT_BF16, true);
            int t = find(&p, "model.layers.0.mlp.down_proj.weight");
            poison(&p, which == 0 ? p.pre : p.post, t, 1200000, which == 0 ? INFINITY : NAN);
            dpt_error_clear();
            assert_int_equal(run(&p, edits[e], NULL), DPT_ERR_INPUT);
            assert_non_null(
                strstr(dpt_error_message(), which == 0 ? "pre-trained" : "post-trained"));
            assert_non_null(strstr(dpt_error_message(), "down_proj.weight"));
            assert_non_null(strstr(dpt_error_message(), "index 1200000"));
            pair_destroy(&p);
        }
    dpt_error_clear();
}

static void overflow_is_an_error(void **state) {
    (void)state;
    pair p;
    pair_create(&p, DPT_F32, DPT_F16, false);
    assert_int_equal(run(&p, "expo:alpha=999999", NULL), DPT_OK);
    assert_int_equal(run(&p, "expo:alpha=999999;expo:alpha=999999", NULL), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "beyond the range"));
    dpt_error_clear();
    pair_destroy(&p);
}

static void empty_specs_are_refused(void **state) {
    (void)state;
    pair p;
    dpt_edit_spec spec = {.nstages = 0};
    pair_create(&p, DPT_F32, DPT_F32, false);
    assert_int_equal(dpt_edit_run(&spec, &p.input, p.sink, NULL), DPT_ERR_USAGE);
    dpt_error_clear();
    pair_destroy(&p);
}

/* A fault on the first or the last rank: the same code everywhere, and memory balances. */
static void faults_reach_all_ranks(void **state) {
    (void)state;
    static const char *const faults[] = {"edit.prepare:0", "edit.prepare:last:2", "edit.apply:0",
                                         "edit.apply:last"};
    pair p;
    pair_create(&p, DPT_BF16, DPT_BF16, true);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        int owns = p.shard.rank_first[test_comm.size] > p.shard.rank_first[test_comm.size - 1];
        if (strcmp(faults[i], "edit.apply:last") == 0 && !owns)
            continue;
        dpt_error_clear();
        setenv("DPT_FAULT", faults[i], 1);
        assert_int_equal(run(&p, "prune:keep=0.5;bitdelta", NULL), DPT_ERR_OUTPUT);
        assert_true(strlen(dpt_error_message()) > 0);
    }
    unsetenv("DPT_FAULT");
    dpt_error_clear();
    assert_int_equal(run(&p, "prune:keep=0.5;bitdelta", NULL), DPT_OK);
    pair_destroy(&p);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(untouched_tensors_are_kept),    cmocka_unit_test(statistics_are_right),
        cmocka_unit_test(identity_edits_change_nothing), cmocka_unit_test(bad_values_are_named),
        cmocka_unit_test(overflow_is_an_error),          cmocka_unit_test(empty_specs_are_refused),
        cmocka_unit_test(faults_reach_all_ranks)};
    return test_mpi_main(argc, argv, tests);
}

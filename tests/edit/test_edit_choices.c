/* ranks: 1 2 3 4 */
/* Values of their own for tensors, and what choices of them are said to cost, against edits that are made. */
#include "edit/edit_support.h"

#include "deltapath/edit/choices.h"

#include <math.h>
#include <stdlib.h>

/* Sizes count Delta at the types of the output, which are those of the pair here. */
static void run_spec(pair *p, const dpt_edit_spec *spec, dpt_edit_report *report) {
    if (dpt_edit_run(spec, &p->input, p->sink, report) != DPT_OK)
        fail_msg("%s", dpt_error_message());
}

static void run_text(pair *p, const char *text, dpt_edit_report *report) {
    dpt_edit_spec spec;
    assert_int_equal(spec_parse(text, 3, &spec), DPT_OK);
    run_spec(p, &spec, report);
}

/* The stage that `allocate:edit=...` stands for, with these values. */
static dpt_edit_spec spec_with(const char *allocate, const double *values) {
    dpt_edit_spec spec, from;
    assert_int_equal(spec_parse(allocate, 3, &from), DPT_OK);
    spec = from;
    dpt_edit_allocate_stage(&from.stages[0], &spec.stages[0]);
    spec.stages[0].tensor_values = values;
    return spec;
}

/* A tensor with the value of one of two uniform edits is that of the edit, and one without a value is post's. */
static void mixed(pair *p, const char *allocate, const char *first, double a, const char *second,
                  double b) {
    double values[16];
    uint64_t want[16];
    dpt_edit_report report;
    dpt_source post = dpt_field_source(p->post);
    for (int t = 0; t < p->catalog.count; t++)
        values[t] = t % 3 == 0 ? a : t % 3 == 1 ? b : NAN;
    run_text(p, first, &report);
    dpt_edit_report_destroy(&report);
    for (int t = 0; t < p->catalog.count; t += 3)
        want[t] = tensor_hash(p->out, t);
    run_text(p, second, &report);
    dpt_edit_report_destroy(&report);
    for (int t = 1; t < p->catalog.count; t += 3)
        want[t] = tensor_hash(p->out, t);
    for (int t = 2; t < p->catalog.count; t += 3)
        want[t] = tensor_hash(p->post, t);
    (void)post;
    dpt_edit_spec spec = spec_with(allocate, values);
    run_spec(p, &spec, &report);
    dpt_edit_report_destroy(&report);
    for (int t = 0; t < p->catalog.count; t++)
        if (tensor_hash(p->out, t) != want[t])
            fail_msg("%s: %s is of another edit", allocate, p->catalog.tensors[t].name);
}

static void tensors_have_their_own_values(void **state) {
    (void)state;
    for (int type = 0; type < 2; type++) {
        dpt_dtype dtype = type == 0 ? DPT_BF16 : DPT_F32;
        pair p;
        pair_create(&p, dtype, dtype, true);
        p.input.svd_group = 1;
        mixed(&p, "allocate:edit=dare,mean=0.5", "dare:p=0.3", 0.3, "dare:p=0.9", 0.9);
        mixed(&p, "allocate:edit=dare,mean=0.5,k=0.5", "dare:p=0.3,k=0.5", 0.3, "dare:p=0.6,k=0.5",
              0.6);
        mixed(&p, "allocate:edit=prune,mean=0.5", "prune:keep=0.3", 0.3, "prune:keep=0.05", 0.05);
        mixed(&p, "allocate:edit=multibit,mean=3,tensors=all", "multibit:bits=3,tensors=all", 3,
              "multibit:bits=0,tensors=all", 0);
        mixed(&p, "allocate:edit=multibit,mean=3", "multibit:bits=1", 1, "multibit:bits=8", 8);
        pair_destroy(&p);
    }
}

/* Rank by rank what lowrank keeps, next to the uniform edit's. */
static void ranks_are_kept(void **state) {
    (void)state;
    pair p;
    double values[16];
    dpt_edit_report report;
    pair_create(&p, DPT_F32, DPT_F32, false);
    for (int t = 0; t < p.catalog.count; t++)
        values[t] = t % 2 == 0 ? 7 - t / 2 : NAN;
    dpt_edit_spec spec = spec_with("allocate:edit=lowrank,bytes=0.5", values);
    run_spec(&p, &spec, &report);
    for (int t = 0; t < p.catalog.count; t++) {
        const dpt_tensor_info *info = &p.catalog.tensors[t];
        bool kept = t % 2 != 0 || info->ndim != 2 || info->numel == 0;
        assert_int_equal(report.stats[t].rank, kept ? 0 : (int64_t)values[t]);
    }
    dpt_edit_report_destroy(&report);
    pair_destroy(&p);
}

/* One choice of every tensor, by its number from the first (or from the last), made as an edit. */
static void check_choice(pair *p, const char *allocate, const dpt_edit_choices *choices, int64_t j,
                         double tolerance) {
    double values[16], bytes = 0.0;
    dpt_edit_report report;
    for (int t = 0; t < choices->tensors; t++) {
        int64_t at = choices->first[t] + j, end = choices->first[t + 1];
        at = at < end ? at : end - 1;
        bool any = choices->first[t] < end;
        values[t] = any ? choices->value[at] : NAN;
        bytes += any ? choices->bytes[at]
                     : (double)p->catalog.tensors[t].numel *
                           (double)dpt_dtype_size(p->catalog.tensors[t].dtype);
    }
    dpt_edit_spec spec = spec_with(allocate, values);
    run_spec(p, &spec, &report);
    assert_true(fabs(dpt_edit_size(&spec, &p->input, &p->out_catalog, &report) - bytes) < 0.5);
    for (int t = 0; t < choices->tensors; t++) {
        int64_t at = choices->first[t] + j, end = choices->first[t + 1];
        at = at < end ? at : end - 1;
        if (choices->first[t] == end || isnan(values[t]))
            continue;
        double got = report.stats[t].edit_norm / report.stats[t].delta_norm;
        if (!(fabs(got * got - choices->lost[at]) < tolerance * choices->lost[at] + 2e-5))
            fail_msg("%s: %s at %g loses %g, said to be %g", allocate, p->catalog.tensors[t].name,
                     values[t], got * got, choices->lost[at]);
    }
    dpt_edit_report_destroy(&report);
}

static void check_costs(pair *p) {
    static const struct {
        const char *allocate;
        int64_t places[4];
        double tolerance;
    } cases[] = {{"allocate:edit=prune,mean=0.5", {0, 200, 400, 500}, 0.01},
                 {"allocate:edit=multibit,mean=3,tensors=all", {0, 1, 4, 8}, 0.02},
                 {"allocate:edit=lowrank,bytes=0.5", {0, 1, 3, 1000}, 1e-4}};
    p->input.svd_group = 1;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        dpt_edit_spec spec;
        dpt_edit_choices choices;
        assert_int_equal(spec_parse(cases[c].allocate, 3, &spec), DPT_OK);
        assert_int_equal(
            dpt_edit_choices_create(&spec.stages[0], 3, &p->input, &p->out_catalog, NAN, &choices),
            DPT_OK);
        for (int64_t j = 1; j < choices.first[choices.tensors]; j++)
            if (!isnan(choices.value[j - 1])) /* not the first of a tensor */
                assert_true(choices.bytes[j] >= choices.bytes[j - 1] &&
                            choices.lost[j] <= choices.lost[j - 1] &&
                            choices.level[j] > choices.level[j - 1]);
        for (int i = 0; i < 4; i++)
            check_choice(p, cases[c].allocate, &choices, cases[c].places[i], cases[c].tolerance);
        dpt_edit_choices_destroy(&choices);
    }
}

static void choices_cost_what_they_say(void **state) {
    (void)state;
    pair p;
    pair_create(&p, DPT_F32, DPT_F32, false);
    check_costs(&p);
    pair_destroy(&p);
}

/* What a choice costs a tensor of several matrices is what it costs them together. */
static void choices_of_stored_together(void **state) {
    (void)state;
    static const pair_tensor tensors[] = {{"a.mlp.experts.down_proj", 3, {3, 30, 20}},
                                          {"a.mlp.experts.gate_up_proj", 3, {3, 40, 30}},
                                          {"b.mlp.experts.down_proj", 3, {2, 25, 30}},
                                          {"b.mlp.experts.gate_up_proj", 3, {2, 30, 50}},
                                          {"b.mlp.experts.gate_up_proj_bias", 2, {2, 50}},
                                          {"h.0.attn.c_attn.weight", 2, {24, 72}}};
    pair p;
    pair_create_of(&p, DPT_F32, DPT_F32, sizeof tensors / sizeof tensors[0], tensors);
    check_costs(&p);
    pair_destroy(&p);
}

/* Sizes that are plain to count: 50 x 24 in two bytes is lm_head. */
static void sizes_are_counted(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        double bytes;
    } cases[] = {
        {"expo:alpha=0.5", 2400},           {"dare:p=0.5", 600 * 2 + 150},
        {"dare:p=0.5,k=0.5", 2400},         {"drop:p=0.99", 12 * 2 + 12 * 2 + 4},
        {"prune:keep=0.25", 300 * 2 + 150}, {"della:p=0.5,epsilon=0.2", 600 * 2 + 150},
        {"bitdelta:tensors=all", 150 + 4},  {"bitdelta:tensors=all,granularity=row", 150 + 4 * 50},
        {"bitdelta:tensors=linear", 2400},  {"multibit:bits=2,tensors=all", 450 + 16},
        {"lowrank:rank=3", 3 * 74 * 2}};
    pair p;
    const pair_tensor one = {"lm_head.weight", 2, {50, 24}};
    pair_create_of(&p, DPT_BF16, DPT_BF16, 1, &one);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        dpt_edit_spec spec;
        dpt_edit_report report;
        assert_int_equal(spec_parse(cases[c].spec, 0, &spec), DPT_OK);
        run_spec(&p, &spec, &report);
        double bytes = dpt_edit_size(&spec, &p.input, &p.out_catalog, &report);
        if (bytes != cases[c].bytes)
            fail_msg("%s: %g bytes, counted by hand %g", cases[c].spec, bytes, cases[c].bytes);
        dpt_edit_report_destroy(&report);
    }
    pair_destroy(&p);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_have_their_own_values),
        cmocka_unit_test(ranks_are_kept),
        cmocka_unit_test(choices_cost_what_they_say),
        cmocka_unit_test(choices_of_stored_together),
        cmocka_unit_test(sizes_are_counted),
    };
    return test_mpi_main(argc, argv, tests);
}

/* ranks: 1 */
/* The table of methods and what bad parameters get. */
#include "edit/edit_support.h"

static void names_resolve(void **state) {
    (void)state;
    for (int m = 0; m < dpt_edit_method_count(); m++) {
        const dpt_edit_param *params;
        int count = dpt_edit_method_params(m, &params);
        assert_int_equal(dpt_edit_method_find(dpt_edit_method_name(m)), m);
        assert_true(count <= DPT_EDIT_PARAM_MAX);
        for (int i = 0; i < count; i++) {
            assert_non_null(params[i].help);
            assert_int_equal(params[i].kind == DPT_PARAM_CHOICE, params[i].choices != NULL);
        }
    }
    assert_int_equal(dpt_edit_method_find("nonsense"), -1);
}

static void bad_parameters_are_named(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        const char *words; /* must be in the message */
    } cases[] = {{"dare:p=1", "dare: p: 1 is outside [0, 1): "},
                 {"dare:p=-0.1", "outside"},
                 {"dare:p=nan", "not a number"},
                 {"dare:p=0.5x", "not a number"},
                 {"dare", "dare: p is missing"},
                 {"dare:p=0.5,q=1", "unknown parameter \"q\""},
                 {"dare:p=0.5,rescale=l2", "not one of exact|l1|none"},
                 {"dare:p=0.5,rescale=l", "not one of exact|l1|none"},
                 {"dare:p=0.5,k=0.5,rescale=l1", "rescale l1"},
                 {"drop:p=1.01", "outside [0, 1]"},
                 {"prune:keep=2", "outside"},
                 {"prune", "keep is missing"},
                 {"bitdelta:granularity=column", "tensor|row"},
                 {"bitdelta:sample=poisson", "none|normal|uniform"},
                 {"multibit:bits=9", "outside"},
                 {"multibit:bits=2.5", "not an integer"},
                 {"bias", "k is missing"},
                 {"bias:k=0.5,p=1", "outside"},
                 {"della:p=0.5", "epsilon is missing"},
                 {"della:p=0.2,epsilon=0.5", "della: epsilon: the probabilities"},
                 {"della:p=0.9,epsilon=0.2", "leave [0, 1)"},
                 {"expo:alpha=inf", "not a number"},
                 {"expo", "alpha is missing"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dpt_edit_spec spec;
        dpt_error_clear();
        assert_int_equal(spec_parse(cases[i].spec, 0, &spec), DPT_ERR_USAGE);
        if (strstr(dpt_error_message(), cases[i].words) == NULL)
            fail_msg("%s: \"%s\" lacks \"%s\"", cases[i].spec, dpt_error_message(), cases[i].words);
    }
    dpt_error_clear();
}

/* Which edits another seed is meant to change. */
static void random_edits_are_known(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        bool is_random;
    } cases[] = {{"dare:p=0.5", true},
                 {"dare:p=0", false},
                 {"drop:p=1", false},
                 {"della:p=0.5,epsilon=0.2", true},
                 {"bitdelta", false},
                 {"bitdelta:sample=normal", true},
                 {"lowrank:rank=2", false},
                 {"expo:alpha=0.5", false},
                 {"prune:keep=0.5;dare:p=0.5", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dpt_edit_spec spec;
        assert_int_equal(spec_parse(cases[i].spec, 0, &spec), DPT_OK);
        if (dpt_edit_is_random(&spec) != cases[i].is_random)
            fail_msg("%s: is %srandom", cases[i].spec, cases[i].is_random ? "not " : "");
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_resolve),
                                       cmocka_unit_test(random_edits_are_known),
                                       cmocka_unit_test(bad_parameters_are_named)};
    return test_mpi_main(argc, argv, tests);
}

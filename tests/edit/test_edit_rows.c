/* ranks: 1 2 3 4 7 */
/* Ranks within rows that are longer than a cell and lie on several ranks of the communicator: DELLA
 * equals the NumPy oracle bit for bit. */
#include "edit/edit_support.h"

static const pair_tensor tensors[] = {
    {"cube", 3, {5, 7, 11}}, {"long", 1, {2500000}}, {"wide", 2, {3, 1300000}}};

static void long_rows_match_oracle(void **state) {
    (void)state;
    FILE *golden = fopen("tests/golden/edit/rows.txt", "r");
    assert_non_null(golden);
    char types[16], text[128], name[128], open[16] = "", last[128] = "";
    unsigned long seed, wanted;
    int checked = 0;
    pair p;
    while (fscanf(golden, "%15s %lu %127s %127s %lx", types, &seed, text, name, &wanted) == 5) {
        if (strcmp(types, open) != 0) {
            dpt_dtype type;
            assert_true(dpt_dtype_parse(types, &type));
            if (open[0] != '\0')
                pair_destroy(&p);
            pair_create_of(&p, type, type, 3, tensors);
            strcpy(open, types);
            last[0] = '\0';
        }
        if (strcmp(text, last) != 0) {
            dpt_edit_spec spec;
            assert_int_equal(spec_parse(text, seed, &spec), DPT_OK);
            assert_int_equal(dpt_edit_run(&spec, &p.input, p.sink, NULL), DPT_OK);
            strcpy(last, text);
        }
        if (tensor_hash(p.out, dpt_catalog_find(&p.catalog, name)) != wanted)
            fail_msg("%s %s: %s: other bytes than the oracle", types, text, name);
        checked++;
    }
    fclose(golden);
    pair_destroy(&p);
    assert_int_equal(checked, 12);
}

/* Rows that pass through in blocks get what those of a cell that is held get, which a second stage that works on
 * whole cells and changes nothing enforces. */
static void rows_that_pass_are_as_held(void **state) {
    (void)state;
    static const pair_tensor some[] = {{"longer", 2, {70, 30011}},
                                       {"one", 2, {1, 70000}},
                                       {"pieces", 2, {300, 4096}},
                                       {"short", 2, {200000, 7}},
                                       {"wide", 2, {330, 5000}}};
    static const dpt_dtype types[] = {DPT_BF16, DPT_F32};
    for (int i = 0; i < 2; i++) {
        pair p;
        dpt_edit_spec spec;
        dpt_edit_report passed, held;
        uint64_t hashes[5];
        pair_create_of(&p, types[i], types[i], 5, some);
        assert_int_equal(spec_parse("della:p=0.5,epsilon=0.4;expo:alpha=0.25", 3, &spec), DPT_OK);
        assert_int_equal(dpt_edit_run(&spec, &p.input, p.sink, &passed), DPT_OK);
        for (int t = 0; t < 5; t++)
            hashes[t] = tensor_hash(p.out, t);
        assert_int_equal(
            spec_parse("della:p=0.5,epsilon=0.4;expo:alpha=0.25;della:p=0,epsilon=0", 3, &spec),
            DPT_OK);
        assert_int_equal(dpt_edit_run(&spec, &p.input, p.sink, &held), DPT_OK);
        for (int t = 0; t < 5; t++) {
            if (tensor_hash(p.out, t) != hashes[t])
                fail_msg("%s differs", some[t].name);
            assert_true(passed.stats[t].changed == held.stats[t].changed &&
                        passed.stats[t].delta_norm == held.stats[t].delta_norm &&
                        passed.stats[t].edit_norm == held.stats[t].edit_norm &&
                        passed.stats[t].size == held.stats[t].size &&
                        passed.stats[t].kept == held.stats[t].kept);
        }
        dpt_edit_report_destroy(&passed);
        dpt_edit_report_destroy(&held);
        pair_destroy(&p);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(long_rows_match_oracle),
                                       cmocka_unit_test(rows_that_pass_are_as_held)};
    return test_mpi_main(argc, argv, tests);
}

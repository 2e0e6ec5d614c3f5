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

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(long_rows_match_oracle)};
    return test_mpi_main(argc, argv, tests);
}

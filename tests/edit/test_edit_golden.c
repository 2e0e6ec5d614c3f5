/* ranks: 1 2 3 4 7 */
/* Every elementwise edit equals the NumPy oracle bit for bit, at every number of ranks. */
#include "edit/edit_support.h"

static dpt_dtype parse_type(const char *text) {
    dpt_dtype type;
    assert_true(dpt_dtype_parse(text, &type));
    return type;
}

static void open_pair(pair *p, const char *types) {
    char in[16];
    snprintf(in, sizeof in, "%s", types);
    char *out = strchr(in, '>');
    if (out != NULL)
        *out++ = '\0';
    pair_create(p, parse_type(in), parse_type(out != NULL ? out : in), true);
    if (strcmp(types, "f16") == 0 || strcmp(types, "f32>bf16") == 0) { /* as from files */
        p->input.pre.view = p->input.post.view = NULL;
        p->sink.view = NULL;
    }
}

static void run_edit(pair *p, const char *text, unsigned long seed) {
    dpt_edit_spec spec;
    assert_int_equal(spec_parse(text, seed, &spec), DPT_OK);
    dpt_status st = dpt_edit_run(&spec, &p->input, p->sink, NULL);
    if (st != DPT_OK)
        print_error("%s: %s\n", text, dpt_error_message());
    assert_int_equal(st, DPT_OK);
}

static void matches_oracle(void **state) {
    (void)state;
    FILE *golden = fopen("tests/golden/edit/elementwise.txt", "r");
    assert_non_null(golden);
    char line[512], types[16], spec[128], name[128], open[16] = "", last[160] = "";
    unsigned long seed, wanted;
    int checked = 0, wrong = 0;
    pair p;
    while (fgets(line, sizeof line, golden) != NULL) {
        char id[160];
        assert_int_equal(
            sscanf(line, "%15s %lu %127s %127s %lx", types, &seed, spec, name, &wanted), 5);
        if (strcmp(types, open) != 0) {
            if (open[0] != '\0')
                pair_destroy(&p);
            open_pair(&p, types);
            strcpy(open, types);
        }
        snprintf(id, sizeof id, "%s %lu %s", types, seed, spec);
        if (strcmp(id, last) != 0) {
            run_edit(&p, spec, seed);
            strcpy(last, id);
        }
        uint64_t got = tensor_hash(p.out, dpt_catalog_find(&p.catalog, name));
        if (got != wanted) {
            print_error("%s: %s: other bytes than the oracle\n", id, name);
            wrong++;
        }
        checked++;
    }
    fclose(golden);
    pair_destroy(&p);
    assert_true(checked > 900);
    assert_int_equal(wrong, 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches_oracle)};
    return test_mpi_main(argc, argv, tests);
}

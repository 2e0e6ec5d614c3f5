/* ranks: 1 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "deltapath/base/mem.h"
#include "deltapath/tensor/catalog.h"
#include "deltapath/tensor/prefix.h"

static int balances(void **state) {
    (void)state;
    dpt_error_clear();
    dpt_mem_set_budget(0);
    return dpt_mem_in_use() == 0 ? 0 : -1;
}

static dpt_status try_add(dpt_catalog *catalog, const char *name, dpt_dtype dtype, int ndim,
                          int64_t a, int64_t b, int64_t c) {
    int64_t shape[3] = {a, b, c};
    return dpt_catalog_add(catalog, name, dtype, ndim, shape);
}

static void add(dpt_catalog *catalog, const char *name, dpt_dtype dtype, int ndim, int64_t a,
                int64_t b, int64_t c) {
    assert_int_equal(try_add(catalog, name, dtype, ndim, a, b, c), DPT_OK);
}

static void sorted_and_found(void **state) {
    (void)state;
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    assert_int_equal(dpt_catalog_find(&catalog, "a"), -1);
    char name[16];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "t%03d", (i * 73) % 200);
        assert_int_equal(try_add(&catalog, name, DPT_BF16, 2, i + 1, 3, 0), DPT_OK);
    }
    assert_int_equal(dpt_catalog_sort(&catalog), DPT_OK);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "t%03d", i);
        assert_int_equal(dpt_catalog_find(&catalog, name), i);
        assert_string_equal(catalog.tensors[i].name, name);
    }
    assert_int_equal(dpt_catalog_find(&catalog, "t0"), -1);
    assert_int_equal(dpt_catalog_find(&catalog, "zz"), -1);
    assert_int_equal(dpt_catalog_elements(&catalog), 3 * 200 * 201 / 2);
    assert_int_equal(dpt_catalog_bytes(&catalog), 2 * 3 * 200 * 201 / 2);
    dpt_catalog copy;
    assert_int_equal(dpt_catalog_copy(&catalog, &copy), DPT_OK);
    dpt_catalog_destroy(&catalog);
    assert_int_equal(copy.count, 200);
    assert_string_equal(copy.tensors[199].name, "t199");
    assert_int_equal(dpt_catalog_elements(&copy), 3 * 200 * 201 / 2);
    dpt_catalog_destroy(&copy);
}

/* The longest rename counts; prefixes are looked up behind aliases too; a name comes before an alias. */
static void renames_give_aliases(void **state) {
    (void)state;
    static const dpt_rename renames[] = {{"x.", "model.a."},
                                         {"x.y.", "model.layers."},
                                         {"none.", "b."},
                                         {"w.", "language_model.w."}};
    dpt_catalog catalog, copy;
    int idle;
    dpt_catalog_init(&catalog);
    add(&catalog, "x.1", DPT_F32, 0, 0, 0, 0);
    add(&catalog, "x.y.2", DPT_F32, 0, 0, 0, 0);
    add(&catalog, "w.3", DPT_F32, 0, 0, 0, 0);
    add(&catalog, "model.a.1", DPT_F32, 0, 0, 0, 0);
    assert_int_equal(dpt_catalog_sort(&catalog), DPT_OK);
    uint64_t plain = dpt_catalog_digest(&catalog);
    assert_int_equal(dpt_catalog_rename(&catalog, 4, renames, &idle), DPT_OK);
    assert_int_equal(idle, 2);
    assert_true(dpt_catalog_digest(&catalog) != plain);
    assert_int_equal(dpt_catalog_copy(&catalog, &copy), DPT_OK);
    assert_true(dpt_catalog_digest(&catalog) == dpt_catalog_digest(&copy));
    dpt_catalog_destroy(&catalog);
    static const struct {
        const char *name;
        int plain, alias, prefix; /* position of what each finds */
    } cases[] = {{"x.1", 2, 2, 2},         {"model.a.1", 0, 0, 0},   {"model.layers.2", -1, 3, 3},
                 {"layers.2", -1, -1, 3},  {"x.y.2", 3, 3, 3},       {"model.w.3", -1, -1, 1},
                 {"model.x.1", -1, -1, 2}, {"model.a.2", -1, -1, -1}};
    dpt_prefix_index names;
    assert_int_equal(dpt_prefix_index_create(&copy, &names), DPT_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(dpt_catalog_find(&copy, cases[i].name), cases[i].plain);
        assert_int_equal(dpt_catalog_find_alias(&copy, cases[i].name), cases[i].alias);
        assert_int_equal(dpt_prefix_find(&names, cases[i].name), cases[i].prefix);
    }
    assert_string_equal(dpt_catalog_alias(&copy.tensors[0]), "model.a.1");
    assert_string_equal(dpt_catalog_alias(&copy.tensors[2]), "model.a.1");
    dpt_prefix_index_destroy(&names);
    dpt_catalog_destroy(&copy);
}

static void duplicates_are_named(void **state) {
    (void)state;
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    add(&catalog, "b", DPT_F32, 0, 0, 0, 0);
    add(&catalog, "a", DPT_F32, 0, 0, 0, 0);
    add(&catalog, "b", DPT_F32, 1, 4, 0, 0);
    assert_int_equal(dpt_catalog_sort(&catalog), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "'b' is stored twice"));
    dpt_catalog_destroy(&catalog);
}

static void absurd_shapes_are_refused(void **state) {
    (void)state;
    static const int64_t deep[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    assert_int_equal(try_add(&catalog, "", DPT_F32, 1, 1, 0, 0), DPT_ERR_INPUT);
    assert_int_equal(try_add(&catalog, "a", DPT_F32, 2, 3, -1, 0), DPT_ERR_INPUT);
    assert_int_equal(try_add(&catalog, "a", DPT_F32, 3, INT64_C(1) << 40, 1 << 20, 1 << 20),
                     DPT_ERR_INPUT);
    assert_int_equal(try_add(&catalog, "a", DPT_F32, 3, 0, INT64_C(1) << 40, INT64_C(1) << 40),
                     DPT_ERR_INPUT);
    assert_int_equal(try_add(&catalog, "a", DPT_I8, 1, INT64_MAX, 0, 0), DPT_ERR_INPUT);
    assert_int_equal(dpt_catalog_add(&catalog, "a", DPT_F32, 9, deep), DPT_ERR_INPUT);
    assert_int_equal(dpt_catalog_add(&catalog, "a", DPT_F32, -1, deep), DPT_ERR_INPUT);
    assert_int_equal(catalog.count, 0);
    assert_int_equal(dpt_catalog_add(&catalog, "a", DPT_F32, 8, deep), DPT_OK);
    assert_int_equal(try_add(&catalog, "big", DPT_F64, 1, INT64_C(1) << 59, 0, 0), DPT_OK);
    assert_int_equal(try_add(&catalog, "big2", DPT_F64, 1, INT64_C(1) << 58, 0, 0), DPT_OK);
    assert_int_equal(try_add(&catalog, "big3", DPT_F64, 1, INT64_MAX / 8, 0, 0), DPT_ERR_INPUT);
    assert_int_equal(catalog.count, 3);
    dpt_catalog_destroy(&catalog);
}

static void sizes_and_text(void **state) {
    (void)state;
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    add(&catalog, "scalar", DPT_F32, 0, 0, 0, 0);
    add(&catalog, "vector", DPT_F32, 1, 7, 0, 0);
    add(&catalog, "matrix", DPT_F32, 2, 4, 6, 0);
    add(&catalog, "conv", DPT_F32, 3, 4, 3, 5);
    add(&catalog, "none", DPT_F32, 2, 0, 6, 0);
    static const int64_t elements[5] = {1, 7, 24, 60, 0};
    static const char *const texts[5] = {"[]", "[7]", "[4, 6]", "[4, 3, 5]", "[0, 6]"};
    for (int i = 0; i < 5; i++) {
        char text[32];
        char small[4];
        assert_int_equal(catalog.tensors[i].numel, elements[i]);
        dpt_catalog_shape_text(&catalog.tensors[i], text, sizeof text);
        assert_string_equal(text, texts[i]);
        dpt_catalog_shape_text(&catalog.tensors[i], small, sizeof small);
        assert_memory_equal(small, texts[i], strlen(small));
    }
    dpt_catalog_destroy(&catalog);
}

int main(void) {
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(sorted_and_found, balances),
        cmocka_unit_test_teardown(renames_give_aliases, balances),
        cmocka_unit_test_teardown(duplicates_are_named, balances),
        cmocka_unit_test_teardown(absurd_shapes_are_refused, balances),
        cmocka_unit_test_teardown(sizes_and_text, balances),
    };
    return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}

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

static int balances(void **state) {
    (void)state;
    dpt_error_clear();
    dpt_mem_set_budget(0);
    return dpt_mem_in_use() == 0 ? 0 : -1;
}

static dpt_status add(dpt_catalog *catalog, const char *name, dpt_dtype dtype, int ndim, int64_t a,
                      int64_t b, int64_t c) {
    int64_t shape[3] = {a, b, c};
    return dpt_catalog_add(catalog, name, dtype, ndim, shape);
}

static void sorted_and_found(void **state) {
    (void)state;
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    assert_int_equal(dpt_catalog_find(&catalog, "a"), -1);
    char name[16];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "t%03d", (i * 73) % 200);
        assert_int_equal(add(&catalog, name, DPT_BF16, 2, i + 1, 3, 0), DPT_OK);
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
    assert_int_equal(add(&catalog, "", DPT_F32, 1, 1, 0, 0), DPT_ERR_INPUT);
    assert_int_equal(add(&catalog, "a", DPT_F32, 2, 3, -1, 0), DPT_ERR_INPUT);
    assert_int_equal(add(&catalog, "a", DPT_F32, 3, INT64_C(1) << 40, 1 << 20, 1 << 20),
                     DPT_ERR_INPUT);
    assert_int_equal(add(&catalog, "a", DPT_F32, 3, 0, INT64_C(1) << 40, INT64_C(1) << 40),
                     DPT_ERR_INPUT);
    assert_int_equal(add(&catalog, "a", DPT_I8, 1, INT64_MAX, 0, 0), DPT_ERR_INPUT);
    assert_int_equal(dpt_catalog_add(&catalog, "a", DPT_F32, 9, deep), DPT_ERR_INPUT);
    assert_int_equal(dpt_catalog_add(&catalog, "a", DPT_F32, -1, deep), DPT_ERR_INPUT);
    assert_int_equal(catalog.count, 0);
    assert_int_equal(dpt_catalog_add(&catalog, "a", DPT_F32, 8, deep), DPT_OK);
    assert_int_equal(add(&catalog, "big", DPT_F64, 1, INT64_C(1) << 59, 0, 0), DPT_OK);
    assert_int_equal(add(&catalog, "big2", DPT_F64, 1, INT64_C(1) << 58, 0, 0), DPT_OK);
    assert_int_equal(add(&catalog, "big3", DPT_F64, 1, INT64_MAX / 8, 0, 0), DPT_ERR_INPUT);
    assert_int_equal(catalog.count, 3);
    dpt_catalog_destroy(&catalog);
}

static void shapes_as_matrix_and_text(void **state) {
    (void)state;
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    add(&catalog, "scalar", DPT_F32, 0, 0, 0, 0);
    add(&catalog, "vector", DPT_F32, 1, 7, 0, 0);
    add(&catalog, "matrix", DPT_F32, 2, 4, 6, 0);
    add(&catalog, "conv", DPT_F32, 3, 4, 3, 5);
    add(&catalog, "none", DPT_F32, 2, 0, 6, 0);
    static const int64_t expected[5][3] = {
        {1, 1, 1}, {1, 7, 7}, {4, 6, 24}, {4, 15, 60}, {0, 6, 0}};
    static const char *const texts[5] = {"[]", "[7]", "[4, 6]", "[4, 3, 5]", "[0, 6]"};
    for (int i = 0; i < 5; i++) {
        int64_t rows;
        int64_t cols;
        char text[32];
        char small[4];
        dpt_catalog_matrix(&catalog.tensors[i], &rows, &cols);
        assert_int_equal(rows, expected[i][0]);
        assert_int_equal(cols, expected[i][1]);
        assert_int_equal(catalog.tensors[i].numel, expected[i][2]);
        dpt_catalog_shape_text(&catalog.tensors[i], text, sizeof text);
        assert_string_equal(text, texts[i]);
        dpt_catalog_shape_text(&catalog.tensors[i], small, sizeof small);
        assert_memory_equal(small, texts[i], strlen(small));
    }
    dpt_catalog_destroy(&catalog);
}

static const char EMBED[] = "model.embed_tokens.weight";
static const char HEAD[] = "lm_head.weight";
static const char NORM[] = "model.norm.weight";

typedef struct pair_case {
    dpt_catalog pre, post;
    dpt_pairing pairing;
    char *report;
    dpt_status status;
} pair_case;

static void start(pair_case *p) {
    memset(p, 0, sizeof *p);
    dpt_catalog_init(&p->pre);
    dpt_catalog_init(&p->post);
}

static void pair(pair_case *p, bool tied_pre, bool tied_post, dpt_mismatch_policy policy) {
    assert_int_equal(dpt_catalog_sort(&p->pre), DPT_OK);
    assert_int_equal(dpt_catalog_sort(&p->post), DPT_OK);
    p->status =
        dpt_catalog_pair(&p->pre, &p->post, tied_pre, tied_post, policy, &p->pairing, &p->report);
}

static void stop(pair_case *p) {
    dpt_pairing_destroy(&p->pairing);
    dpt_mem_free(p->report);
    dpt_catalog_destroy(&p->pre);
    dpt_catalog_destroy(&p->post);
}

static int lines_of(const char *text) {
    int lines = 0;
    for (; text != NULL && *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

static void equal_models_pair(void **state) {
    (void)state;
    pair_case p;
    start(&p);
    add(&p.pre, EMBED, DPT_BF16, 2, 32, 8, 0);
    add(&p.pre, NORM, DPT_BF16, 1, 8, 0, 0);
    add(&p.post, NORM, DPT_BF16, 1, 8, 0, 0);
    add(&p.post, EMBED, DPT_BF16, 2, 32, 8, 0);
    pair(&p, false, false, DPT_MISMATCH_ERROR);
    assert_int_equal(p.status, DPT_OK);
    assert_null(p.report);
    assert_int_equal(p.pairing.count, 2);
    assert_int_equal(p.pairing.pre_of[0], 0);
    assert_int_equal(p.pairing.pre_of[1], 1);
    stop(&p);
}

static void fill_mismatched(pair_case *p) {
    start(p);
    add(&p->pre, EMBED, DPT_F32, 2, 32000, 8, 0);
    add(&p->pre, HEAD, DPT_F32, 2, 32000, 8, 0);
    add(&p->pre, "only.pre", DPT_F32, 1, 8, 0, 0);
    add(&p->pre, "rotary", DPT_I64, 1, 8, 0, 0);
    add(&p->pre, "shape", DPT_F32, 2, 8, 9, 0);
    add(&p->pre, NORM, DPT_F32, 1, 8, 0, 0);
    add(&p->post, EMBED, DPT_BF16, 2, 32064, 8, 0);
    add(&p->post, HEAD, DPT_F32, 2, 32000, 8, 0);
    add(&p->post, "only.post", DPT_F32, 1, 8, 0, 0);
    add(&p->post, "rotary", DPT_I32, 1, 8, 0, 0);
    add(&p->post, "shape", DPT_F32, 2, 9, 8, 0);
    add(&p->post, NORM, DPT_BF16, 1, 8, 0, 0);
}

static void many_of_a_kind_are_one_line(void **state) {
    (void)state;
    pair_case p;
    char name[32];
    start(&p);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "pre.%d", i);
        add(&p.pre, name, DPT_F32, 1, 8, 0, 0);
    }
    for (int i = 0; i < 47; i++) {
        snprintf(name, sizeof name, "post.%02d", i);
        add(&p.post, name, DPT_F32, 1, 8, 0, 0);
    }
    pair(&p, false, false, DPT_MISMATCH_KEEP_POST);
    assert_int_equal(p.status, DPT_OK);
    assert_int_equal(p.pairing.mismatches, 52);
    assert_int_equal(lines_of(p.report), 1 + 5);
    assert_non_null(strstr(p.report, "47 tensors are missing in the pre-trained model: 'post.00', "
                                     "'post.01', 'post.02' and 44 more\n"));
    assert_non_null(strstr(p.report, "tensor 'pre.4': missing in the post-trained model\n"));
    stop(&p);
}

static void all_mismatches_are_listed(void **state) {
    (void)state;
    pair_case p;
    fill_mismatched(&p);
    pair(&p, false, false, DPT_MISMATCH_ERROR);
    assert_int_equal(p.status, DPT_ERR_INPUT);
    assert_int_equal(lines_of(p.report), 6);
    assert_non_null(strstr(p.report, "padded vocabulary: [32000, 8]"));
    assert_non_null(strstr(p.report, "'only.post': missing in the pre-trained"));
    assert_non_null(strstr(p.report, "'only.pre': missing in the post-trained"));
    assert_non_null(strstr(p.report, "types differ: I64"));
    assert_non_null(strstr(p.report, "shapes differ: [8, 9]"));
    assert_non_null(strstr(p.report, "1 tensors are F32"));
    assert_non_null(strstr(dpt_error_message(), "first of 5 mismatches"));
    assert_non_null(strstr(dpt_error_message(), "keep-post"));
    assert_null(p.pairing.pre_of);
    stop(&p);
}

static void keep_post_pairs_the_rest(void **state) {
    (void)state;
    pair_case p;
    fill_mismatched(&p);
    pair(&p, false, false, DPT_MISMATCH_KEEP_POST);
    assert_int_equal(p.status, DPT_OK);
    assert_int_equal(p.pairing.mismatches, 5);
    for (int i = 0; i < p.post.count; i++) {
        const char *name = p.post.tensors[i].name;
        bool pairs = strcmp(name, HEAD) == 0 || strcmp(name, NORM) == 0;
        assert_int_equal(p.pairing.pre_of[i], pairs ? dpt_catalog_find(&p.pre, name) : -1);
    }
    stop(&p);
}

/* Heads stored or not on either side, tied or not. */
static void tied_heads(void **state) {
    (void)state;
    static const struct {
        bool pre_head, post_head, tied_pre, tied_post, pairs;
    } cases[] = {
        {true, true, false, false, true},   {false, false, true, true, true},
        {false, true, true, false, true},   {false, true, true, true, true},
        {false, true, false, false, false}, {true, false, true, true, true},
        {true, false, false, true, false},  {true, false, true, false, false},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        pair_case p;
        start(&p);
        add(&p.pre, EMBED, DPT_F32, 2, 32, 8, 0);
        add(&p.post, EMBED, DPT_F32, 2, 32, 8, 0);
        if (cases[c].pre_head)
            add(&p.pre, HEAD, DPT_F32, 2, 32, 8, 0);
        if (cases[c].post_head)
            add(&p.post, HEAD, DPT_F32, 2, 32, 8, 0);
        pair(&p, cases[c].tied_pre, cases[c].tied_post, DPT_MISMATCH_ERROR);
        assert_int_equal(p.status, cases[c].pairs ? DPT_OK : DPT_ERR_INPUT);
        if (cases[c].pairs && cases[c].post_head)
            assert_int_equal(p.pairing.pre_of[dpt_catalog_find(&p.post, HEAD)],
                             dpt_catalog_find(&p.pre, cases[c].pre_head ? HEAD : EMBED));
        stop(&p);
    }
}

static void no_memory_is_an_error(void **state) {
    (void)state;
    pair_case p;
    fill_mismatched(&p);
    dpt_mem_set_budget(dpt_mem_in_use() + 64);
    pair(&p, false, false, DPT_MISMATCH_KEEP_POST);
    assert_int_equal(p.status, DPT_ERR_OUTPUT);
    assert_null(p.report);
    stop(&p);
}

int main(void) {
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(sorted_and_found, balances),
        cmocka_unit_test_teardown(duplicates_are_named, balances),
        cmocka_unit_test_teardown(absurd_shapes_are_refused, balances),
        cmocka_unit_test_teardown(shapes_as_matrix_and_text, balances),
        cmocka_unit_test_teardown(equal_models_pair, balances),
        cmocka_unit_test_teardown(all_mismatches_are_listed, balances),
        cmocka_unit_test_teardown(many_of_a_kind_are_one_line, balances),
        cmocka_unit_test_teardown(keep_post_pairs_the_rest, balances),
        cmocka_unit_test_teardown(tied_heads, balances),
        cmocka_unit_test_teardown(no_memory_is_an_error, balances),
    };
    return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}

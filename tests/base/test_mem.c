/* ranks: 1 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "deltapath/base/mem.h"
#include "deltapath/base/status.h"

static int balances(void **state) {
    (void)state;
    dpt_mem_set_budget(0);
    dpt_error_clear();
    return dpt_mem_in_use() == 0 ? 0 : -1;
}

static void blocks_are_counted_and_aligned(void **state) {
    (void)state;
    static const int64_t sizes[] = {0, 1, 63, 64, 65, 4096, (8 << 20) - 1, 8 << 20, 9999999};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *block = dpt_mem_alloc(sizes[i], 1, "block");
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        assert_int_equal(dpt_mem_in_use(), sizes[i]);
        assert_true(dpt_mem_peak() >= sizes[i]);
        memset(block, 0xa5, (size_t)sizes[i]);
        dpt_mem_free(block);
        assert_int_equal(dpt_mem_in_use(), 0);
    }
    dpt_mem_free(NULL);
}

static void zalloc_and_realloc_keep_contents(void **state) {
    (void)state;
    int *values = dpt_mem_zalloc(10, sizeof *values, "values");
    for (int i = 0; i < 10; i++) {
        assert_int_equal(values[i], 0);
        values[i] = i;
    }
    values = dpt_mem_realloc(values, 1000, sizeof *values, "values");
    values = dpt_mem_realloc(values, 5, sizeof *values, "values");
    for (int i = 0; i < 5; i++)
        assert_int_equal(values[i], i);
    assert_int_equal(dpt_mem_in_use(), 5 * (int64_t)sizeof *values);
    dpt_mem_free(values);
    values = dpt_mem_realloc(NULL, 3, sizeof *values, "values");
    assert_non_null(values);
    dpt_mem_free(values);
}

static void absurd_sizes_are_refused(void **state) {
    (void)state;
    assert_null(dpt_mem_alloc(-1, 1, "negative"));
    assert_null(dpt_mem_alloc(INT64_MAX, 2, "product"));
    assert_null(dpt_mem_alloc(INT64_MAX - 3, 1, "padding"));
    assert_null(dpt_mem_alloc(1, SIZE_MAX, "size"));
    dpt_error_clear();
    assert_null(dpt_mem_alloc(INT64_MAX / 4, 1, "the moon"));
    assert_non_null(strstr(dpt_error_message(), "the moon"));
    assert_int_equal(dpt_mem_in_use(), 0);
}

static void budget_holds(void **state) {
    (void)state;
    dpt_mem_set_budget(1000);
    assert_int_equal(dpt_mem_available(), 1000);
    void *block = dpt_mem_alloc(600, 1, "first");
    assert_non_null(block);
    assert_int_equal(dpt_mem_available(), 400);
    assert_null(dpt_mem_alloc(401, 1, "second"));
    assert_non_null(strstr(dpt_error_message(), "second needs 401 bytes but 600"));
    assert_int_equal(dpt_mem_in_use(), 600);
    assert_null(dpt_mem_realloc(block, 700, 1, "grown")); /* the old block stays */
    void *rest = dpt_mem_alloc(400, 1, "rest");
    assert_non_null(rest);
    assert_int_equal(dpt_mem_available(), 0);
    dpt_mem_free(rest);
    dpt_mem_free(block);
}

static void texts(void **state) {
    (void)state;
    assert_null(dpt_mem_strdup(NULL, "text"));
    char *copy = dpt_mem_strdup("abc", "text");
    char *made = dpt_mem_format("%s-%03d", copy, 7);
    assert_string_equal(made, "abc-007");
    dpt_mem_free(made);
    dpt_mem_free(copy);
}

static void products_say_when_they_overflow(void **state) {
    (void)state;
    int64_t out;
    assert_true(dpt_mem_mul(INT64_C(1) << 31, INT64_C(1) << 31, &out));
    assert_true(out == INT64_C(1) << 62);
    assert_false(dpt_mem_mul(INT64_C(1) << 32, INT64_C(1) << 31, &out));
    assert_false(dpt_mem_add(INT64_MAX, 1, &out));
    assert_true(dpt_mem_add(INT64_MAX, 0, &out));
}

static void machine_has_memory(void **state) {
    (void)state;
    assert_true(dpt_mem_machine() > INT64_C(1) << 20);
}

static void a_failure_inside_a_library_is_kept(void **state) {
    (void)state;
    volatile size_t absurd = SIZE_MAX / 4;
    void *block = dpt_mem_library_alloc(100);
    assert_non_null(block);
    free(block);
    assert_int_equal(dpt_mem_check(), DPT_OK);
    dpt_error_clear();
    assert_null(dpt_mem_library_alloc(absurd));
    assert_int_equal(dpt_mem_check(), DPT_ERR_OUTPUT);
    assert_non_null(strstr(dpt_error_message(), "a text needs"));
}

int main(void) {
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(blocks_are_counted_and_aligned, balances),
        cmocka_unit_test_teardown(zalloc_and_realloc_keep_contents, balances),
        cmocka_unit_test_teardown(absurd_sizes_are_refused, balances),
        cmocka_unit_test_teardown(budget_holds, balances),
        cmocka_unit_test_teardown(texts, balances),
        cmocka_unit_test(products_say_when_they_overflow),
        cmocka_unit_test(machine_has_memory),
        cmocka_unit_test(a_failure_inside_a_library_is_kept), /* last: it stays */
    };
    return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}

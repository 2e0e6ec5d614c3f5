/* ranks: 1 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "deltapath/base/mem.h"
#include "deltapath/tensor/shard.h"

static int balances(void **state) {
    (void)state;
    return dpt_mem_in_use() == 0 ? 0 : -1;
}

static void make(dpt_catalog *catalog, int count, const int64_t *numel) {
    dpt_catalog_init(catalog);
    for (int i = 0; i < count; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%02d", i);
        assert_int_equal(dpt_catalog_add(catalog, name, DPT_BF16, 1, &numel[i]), DPT_OK);
    }
}

/* Every element is in one cell, every cell has one owner, and nobody has too much. */
static void check(const dpt_catalog *catalog, int ranks) {
    dpt_shard shard;
    assert_int_equal(dpt_shard_create(catalog, ranks, &shard), DPT_OK);
    assert_int_equal(shard.rank_first[0], 0);
    assert_int_equal(shard.rank_first[ranks], shard.cells);
    int64_t total = dpt_catalog_elements(catalog);
    int64_t covered = 0;
    int64_t next = 0;
    int tensor = 0;
    for (int r = 0; r < ranks; r++) {
        int64_t mine = 0;
        assert_true(shard.rank_first[r] <= shard.rank_first[r + 1]);
        for (int64_t c = shard.rank_first[r]; c < shard.rank_first[r + 1]; c++) {
            dpt_range cell = dpt_shard_cell(&shard, c);
            assert_int_equal(dpt_shard_owner(&shard, c), r);
            while (tensor < cell.tensor) {
                assert_int_equal(next, catalog->tensors[tensor].numel);
                tensor++;
                next = 0;
            }
            assert_int_equal(cell.ig, next);
            assert_true(cell.n > 0 && cell.n <= DPT_CELL);
            assert_int_equal(dpt_shard_cell_of(&shard, cell.tensor, cell.ig), c);
            assert_int_equal(dpt_shard_cell_of(&shard, cell.tensor, cell.ig + cell.n - 1), c);
            next += cell.n;
            mine += cell.n;
        }
        assert_true(mine <= total / ranks + 1 + DPT_CELL);
        covered += mine;
    }
    assert_int_equal(covered, total);
    for (int t = 0; t < catalog->count; t++) {
        int64_t at = 0;
        for (int r = 0; r < ranks; r++) {
            int64_t begin;
            int64_t end;
            dpt_shard_owned(&shard, r, t, &begin, &end);
            if (begin == end)
                continue;
            assert_int_equal(begin, at);
            at = end;
        }
        assert_int_equal(at, catalog->tensors[t].numel);
    }
    dpt_shard_destroy(&shard);
}

static void every_element_has_one_owner(void **state) {
    (void)state;
    static const int64_t cell = DPT_CELL;
    const int64_t mixed[] = {0, 1, cell - 1, cell, cell + 1, 0, 5 * cell + 17, 3, 0};
    const int64_t tiny[] = {1, 1, 1};
    const int64_t none[] = {0, 0};
    const int64_t huge[] = {INT64_C(300) * DPT_CELL + 1, 7};
    static const int counts[] = {1, 2, 3, 4, 7, 16, 100, 1000};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        dpt_catalog catalog;
        make(&catalog, 9, mixed);
        check(&catalog, counts[i]);
        dpt_catalog_destroy(&catalog);
        make(&catalog, 3, tiny);
        check(&catalog, counts[i]);
        dpt_catalog_destroy(&catalog);
        make(&catalog, 2, none);
        check(&catalog, counts[i]);
        dpt_catalog_destroy(&catalog);
        make(&catalog, 0, none);
        check(&catalog, counts[i]);
        dpt_catalog_destroy(&catalog);
        make(&catalog, 2, huge);
        check(&catalog, counts[i]);
        dpt_catalog_destroy(&catalog);
    }
}

/* A model of 2^60 elements: indices and products stay inside 64 bits. */
static void absurdly_large_models(void **state) {
    (void)state;
    const int64_t numel[] = {(INT64_C(1) << 59) + 5, (INT64_C(1) << 59) - 20};
    dpt_catalog catalog;
    make(&catalog, 2, numel);
    for (int ranks = 1; ranks < 100000; ranks = ranks * 7 + 1) {
        dpt_shard shard;
        assert_int_equal(dpt_shard_create(&catalog, ranks, &shard), DPT_OK);
        int64_t share = dpt_catalog_elements(&catalog) / ranks;
        int64_t maximum = share / DPT_CELL + 2;
        for (int r = 0; r < ranks; r++)
            assert_true(shard.rank_first[r + 1] - shard.rank_first[r] <= maximum);
        dpt_range last = dpt_shard_cell(&shard, shard.cells - 1);
        assert_int_equal(last.tensor, 1);
        assert_true(last.ig + last.n == numel[1]);
        assert_int_equal(dpt_shard_owner(&shard, shard.cells - 1), ranks - 1);
        dpt_shard_destroy(&shard);
    }
    dpt_catalog_destroy(&catalog);
}

static void split_is_even(void **state) {
    (void)state;
    for (int64_t n = 0; n < 20; n++)
        for (int parts = 1; parts < 9; parts++) {
            int64_t at = 0;
            int64_t before = INT64_MAX;
            for (int p = 0; p < parts; p++) {
                int64_t begin;
                int64_t end;
                dpt_shard_split(n, parts, p, &begin, &end);
                assert_int_equal(begin, at);
                assert_true(end - begin <= before && end - begin >= n / parts);
                assert_true(end - begin <= n / parts + 1);
                before = end - begin;
                at = end;
            }
            assert_int_equal(at, n);
        }
    int64_t begin;
    int64_t end;
    dpt_shard_split(INT64_MAX, 1000, 999, &begin, &end);
    assert_true(end == INT64_MAX);
}

int main(void) {
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_element_has_one_owner, balances),
        cmocka_unit_test_teardown(absurdly_large_models, balances),
        cmocka_unit_test_teardown(split_is_even, balances),
    };
    return cmocka_run_group_tests_name("shard", tests, NULL, NULL);
}

/* ranks: 1 2 3 4 */
#include "support/test_mpi.h"

#include <stdlib.h>
#include <string.h>

static int rank_sum(void) {
    return test_comm.size * (test_comm.size - 1) / 2;
}

static void reductions(void **state) {
    (void)state;
    static const int64_t sizes[] = {0, 1, 17, 100000};
    for (int s = 0; s < 4; s++) {
        int64_t n = sizes[s];
        double *d = malloc((size_t)(n + 1) * sizeof *d);
        float *f = malloc((size_t)(n + 1) * sizeof *f);
        int64_t *k = malloc((size_t)(n + 1) * sizeof *k);
        for (int64_t i = 0; i <= n; i++) {
            d[i] = (double)(i + test_comm.rank);
            f[i] = (float)(i % 100 + test_comm.rank);
            k[i] = i * (INT64_C(1) << 40) + test_comm.rank;
        }
        assert_int_equal(dpt_comm_sum_f64(&test_comm, d, n), DPT_OK);
        assert_int_equal(dpt_comm_sum_f32(&test_comm, f, n), DPT_OK);
        assert_int_equal(dpt_comm_sum_i64(&test_comm, k, n), DPT_OK);
        for (int64_t i = 0; i < n; i++) {
            assert_true(d[i] == (double)(i * test_comm.size + rank_sum()));
            assert_true(f[i] == (float)(i % 100 * test_comm.size + rank_sum()));
            assert_true(k[i] == i * (INT64_C(1) << 40) * test_comm.size + rank_sum());
        }
        assert_true(d[n] == (double)(n + test_comm.rank)); /* nothing after the end */
        for (int64_t i = 0; i < n; i++) {
            d[i] = test_comm.rank == i % test_comm.size ? 7.5 : -7.5;
            f[i] = test_comm.rank == i % test_comm.size ? 7.5F : -7.5F;
            k[i] = test_comm.rank == i % test_comm.size ? INT64_MAX : INT64_MIN;
        }
        assert_int_equal(dpt_comm_max_f64(&test_comm, d, n), DPT_OK);
        assert_int_equal(dpt_comm_max_f32(&test_comm, f, n), DPT_OK);
        assert_int_equal(dpt_comm_max_i64(&test_comm, k, n), DPT_OK);
        for (int64_t i = 0; i < n; i++)
            assert_true(d[i] == 7.5 && f[i] == 7.5F && k[i] == INT64_MAX);
        free(d);
        free(f);
        free(k);
    }
}

/* More than one piece of a reduction and of a broadcast. */
static void pieces(void **state) {
    (void)state;
    enum { N = (1 << 23) + 1001 };
    double *d = dpt_mem_alloc(N, sizeof *d, "values");
    for (int64_t i = 0; i < N; i++)
        d[i] = (double)(i % 1000 * (test_comm.rank + 1));
    assert_int_equal(dpt_comm_sum_f64(&test_comm, d, N), DPT_OK);
    for (int64_t i = 0; i < N; i++)
        if (d[i] != (double)(i % 1000 * (rank_sum() + test_comm.size)))
            fail_msg("sum of %ld", (long)i);
    int root = test_comm.size - 1;
    for (int64_t i = 0; i < N; i++)
        d[i] = test_comm.rank == root ? (double)i : -1.0;
    assert_int_equal(dpt_comm_broadcast(&test_comm, d, N * (int64_t)sizeof *d, root), DPT_OK);
    for (int64_t i = 0; i < N; i++)
        if (d[i] != (double)i)
            fail_msg("broadcast of %ld", (long)i);
    dpt_mem_free(d);
}

static void texts(void **state) {
    (void)state;
    for (int root = 0; root < test_comm.size; root++) {
        char *copy = NULL;
        const char *text = test_comm.rank == root ? "a text of the root" : NULL;
        assert_int_equal(dpt_comm_broadcast_string(&test_comm, text, root, &copy), DPT_OK);
        assert_string_equal(copy, "a text of the root");
        dpt_mem_free(copy);
        text = test_comm.rank == root ? "" : "ignored";
        assert_int_equal(dpt_comm_broadcast_string(&test_comm, text, root, &copy), DPT_OK);
        assert_string_equal(copy, "");
        dpt_mem_free(copy);
        text = test_comm.rank == root ? NULL : "ignored";
        assert_int_equal(dpt_comm_broadcast_string(&test_comm, text, root, &copy), DPT_OK);
        assert_null(copy);
    }
}

static void gathers(void **state) {
    (void)state;
    for (int scale = 0; scale < 5000; scale = scale * 9 + 1) {
        int64_t n = (int64_t)test_comm.rank * scale; /* rank 0 gives nothing */
        unsigned char *mine = malloc((size_t)n + 1);
        memset(mine, 'a' + test_comm.rank, (size_t)n);
        void *all;
        int64_t *counts;
        assert_int_equal(dpt_comm_allgather(&test_comm, n > 0 ? mine : NULL, n, &all, &counts),
                         DPT_OK);
        const unsigned char *at = all;
        for (int r = 0; r < test_comm.size; r++) {
            assert_int_equal(counts[r], r * scale);
            for (int64_t i = 0; i < counts[r]; i++)
                assert_int_equal(*at++, 'a' + r);
        }
        dpt_mem_free(all);
        dpt_mem_free(counts);
        free(mine);
    }
}

static void gather_without_memory_fails_everywhere(void **state) {
    (void)state;
    static char mine[1000];
    void *all;
    int64_t *counts;
    if (test_comm.rank == test_comm.size - 1)
        dpt_mem_set_budget(dpt_mem_in_use() + 500);
    dpt_status st = dpt_comm_allgather(&test_comm, mine, sizeof mine, &all, &counts);
    assert_int_equal(st, DPT_ERR_OUTPUT);
    assert_null(all);
    assert_null(counts);
    assert_non_null(strstr(dpt_error_message(), "gathered blocks"));
    dpt_mem_set_budget(0);
    dpt_error_clear();
}

/* Rank r sends (r + 2 to) % 3 * scale bytes to rank `to`: some pairs exchange nothing. */
static int64_t exchanged(int from, int to, int64_t scale) {
    return (from + 2 * to) % 3 * scale;
}

static void exchanges(void **state) {
    (void)state;
    static const int64_t scales[] = {0, 1, 1000, 1 << 20};
    int size = test_comm.size;
    for (int s = 0; s < 4; s++) {
        int64_t out_counts[64], in_counts[64], out_total = 0, in_total = 0;
        for (int r = 0; r < size; r++) {
            out_total += out_counts[r] = exchanged(test_comm.rank, r, scales[s]);
            in_total += in_counts[r] = exchanged(r, test_comm.rank, scales[s]);
        }
        unsigned char *out = out_total > 0 ? malloc((size_t)out_total) : NULL;
        unsigned char *in = in_total > 0 ? malloc((size_t)in_total) : NULL;
        unsigned char *at = out;
        for (int r = 0; r < size; r++)
            for (int64_t i = 0; i < out_counts[r]; i++)
                *at++ = (unsigned char)(test_comm.rank * 16 + r + i);
        assert_int_equal(dpt_comm_exchange(&test_comm, out, out_counts, in, in_counts), DPT_OK);
        at = in;
        for (int r = 0; r < size; r++)
            for (int64_t i = 0; i < in_counts[r]; i++)
                assert_int_equal(*at++, (unsigned char)(r * 16 + test_comm.rank + i));
        free(out);
        free(in);
    }
}

static void splits(void **state) {
    (void)state;
    dpt_comm part;
    int color = test_comm.rank == 0 ? -1 : 0;
    assert_int_equal(dpt_comm_split(&test_comm, color, -test_comm.rank, &part), DPT_OK);
    if (test_comm.rank == 0) {
        assert_true(part.mpi == MPI_COMM_NULL);
        assert_int_equal(part.size, 0);
    } else {
        assert_int_equal(part.size, test_comm.size - 1);
        assert_int_equal(part.rank, test_comm.size - 1 - test_comm.rank); /* by falling rank */
    }
    dpt_comm_destroy(&part);
    dpt_comm_destroy(&part); /* freed already: allowed */
    int here = 0;
    assert_int_equal(dpt_comm_local_size(&test_comm, &here), DPT_OK);
    assert_int_equal(here, test_comm.size);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reductions),
        cmocka_unit_test(pieces),
        cmocka_unit_test(texts),
        cmocka_unit_test(gathers),
        cmocka_unit_test(gather_without_memory_fails_everywhere),
        cmocka_unit_test(exchanges),
        cmocka_unit_test(splits),
    };
    return test_mpi_main(argc, argv, tests);
}

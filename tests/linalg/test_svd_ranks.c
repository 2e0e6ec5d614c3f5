/* ranks: 1 2 3 4 */
/* The random method where no gap follows the last value, so that rounding turns its vectors far: on all ranks together and
 * on one alone. Nearly the same bits where slabs begin with the blocks of rows that are summed in fp32. */
#include "slabs.h"
#include "support/test_mpi.h"

#include "deltapath/base/rng.h"
#include "deltapath/linalg/svd.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    int64_t rows, cols, rank;
    float *a; /* whole on every rank */
} noise;

static bool aligned(int64_t rows, int split) {
    bool all = true;
    for (int r = 1; r < test_comm.size; r++) {
        int64_t first = first_row(&test_comm, rows, r, split);
        all = all && (first % 256 == 0 || first == rows);
    }
    return all;
}

/* The truncated product, whole. */
static float *truncate(const dpt_comm *comm, const noise *m, int split, int *iterations) {
    int64_t first = first_row(comm, m->rows, comm->rank, split);
    int64_t n = first_row(comm, m->rows, comm->rank + 1, split) - first;
    dpt_svd_options options = {.method = DPT_SVD_RANDOM, .rank = m->rank, .name = "no gap"};
    dpt_svd svd;
    if (dpt_svd_compute(comm, m->rows, m->cols, n, m->a + first * m->cols, &options, &svd) !=
        DPT_OK)
        fail_msg("%s", dpt_error_message());
    assert_int_equal(svd.used, DPT_SVD_RANDOM);
    *iterations = svd.iterations;
    float *rows = malloc((size_t)(n * m->cols + 1) * sizeof *rows);
    dpt_svd_product(&svd, m->cols, 0, n, rows);
    void *all;
    int64_t *counts;
    assert_int_equal(dpt_comm_allgather(comm, rows, n * m->cols * 4, &all, &counts), DPT_OK);
    dpt_mem_free(counts);
    free(rows);
    dpt_svd_destroy(&svd);
    return all;
}

static void check(const dpt_comm *alone, int64_t rows, int64_t cols, int64_t rank) {
    noise m = {.rows = rows, .cols = cols, .rank = rank};
    int64_t count = rows * cols;
    int iterations[2];
    double square = 0.0;
    m.a = malloc((size_t)count * sizeof *m.a);
    dpt_rng_normal(dpt_rng_make(4, "no gap", DPT_RNG_SKETCH), 0, count, m.a);
    for (int64_t e = 0; e < count; e++)
        square += (double)m.a[e] * m.a[e];
    float *one = truncate(alone, &m, 0, &iterations[0]);
    for (int split = 0; split <= 2; split++) {
        double apart = 0.0;
        float *all = truncate(&test_comm, &m, split, &iterations[1]);
        for (int64_t e = 0; e < count; e++)
            apart += ((double)one[e] - all[e]) * ((double)one[e] - all[e]);
        if (!(sqrt(apart) <= (aligned(rows, split) ? 1e-7 : 1e-6) * sqrt(square)))
            fail_msg("%d x %d, split %d: products differ by %.3e of the matrix", (int)rows,
                     (int)cols, split, sqrt(apart / square));
        assert_int_equal(iterations[0], iterations[1]);
        dpt_mem_free(all);
    }
    dpt_mem_free(one);
    free(m.a);
}

/* In double and in fp32, with blocks of rows that slabs cut; with a basis that grows, and one that does not. */
static void test_no_gap(void **state) {
    (void)state;
    dpt_comm alone;
    assert_int_equal(dpt_comm_create(MPI_COMM_SELF, &alone), DPT_OK);
    check(&alone, 300, 280, 8);
    check(&alone, 1024, 512, 8);
    check(&alone, 900, 400, 8);
    check(&alone, 400, 1100, 10);
    check(&alone, 600, 500, 40);
    dpt_comm_destroy(&alone);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_gap)};
    return test_mpi_main(argc, argv, tests);
}

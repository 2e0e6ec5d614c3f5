/* Products of a matrix in row slabs with thin panels, whose bits hardly depend on where the slabs are cut: a difference
 * in the last digit turns singular vectors without a gap between their values a thousand times as far. Sums over
 * columns are local. Those over rows are taken in fp32 within blocks of rows that the matrix alone fixes, and beyond in
 * double, also over ranks: only a block that two ranks share is rounded in another way. Small matrices, of which a block
 * is much, are multiplied in double. */
#include "svd_products.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "panel.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

enum { BLOCK_ROWS = 256, TILE_COLS = 512, DOUBLE_ELEMENTS = 1 << 17 };

static bool in_double(int64_t rows, int64_t cols) {
    return rows <= DOUBLE_ELEMENTS / cols;
}

double dpt_svd_products_bytes(int64_t rows, int64_t cols, int64_t width, int ranks) {
    double l = (double)width, n = (double)cols, m = (double)(rows / ranks + 1);
    double small = in_double(rows, cols) ? 8.0 * (m * n + n * l + m * l) : 0.0;
    return 4.0 * TILE_COLS * l + 8.0 * (ranks > 1 ? n : fmin(n, TILE_COLS)) * l + small;
}

dpt_status dpt_svd_products_create(const dpt_svd_problem *problem, int64_t width,
                                   dpt_svd_products *out) {
    DPT_ASSERT_SAME(problem->comm, width);
    const dpt_svd_problem *p = problem;
    int64_t tile = p->cols < TILE_COLS ? p->cols : TILE_COLS;
    bool small = in_double(p->rows, p->cols);
    *out = (dpt_svd_products){.problem = p};
    out->sums = dpt_mem_alloc((p->comm->size > 1 ? p->cols : tile) * width, sizeof *out->sums,
                              "sums over rows");
    out->tile = dpt_mem_alloc(tile * width, sizeof *out->tile, "sums over a block of rows");
    out->counts = dpt_mem_alloc(2 * (int64_t)p->comm->size, sizeof *out->counts, "shares");
    bool made = out->sums != NULL && out->tile != NULL && out->counts != NULL;
    if (small) {
        int64_t n = p->local_rows * p->cols;
        out->slab = dpt_mem_alloc(n, sizeof *out->slab, "small matrix in double");
        out->v = dpt_mem_alloc(p->cols * width, sizeof *out->v, "panel in double");
        out->y = dpt_mem_alloc(p->local_rows * width, sizeof *out->y, "panel in double");
        made = made && out->slab != NULL && out->v != NULL && out->y != NULL;
        for (int64_t e = 0; made && e < n; e++)
            out->slab[e] = p->slab[e];
    }
    dpt_status st = dpt_agree(p->comm, made ? DPT_OK : DPT_ERR_OUTPUT);
    if (st != DPT_OK)
        dpt_svd_products_destroy(out);
    return st;
}

void dpt_svd_products_destroy(dpt_svd_products *products) {
    dpt_mem_free(products->sums);
    dpt_mem_free(products->tile);
    dpt_mem_free(products->counts);
    dpt_mem_free(products->slab);
    dpt_mem_free(products->v);
    dpt_mem_free(products->y);
    *products = (dpt_svd_products){.problem = NULL};
}

void dpt_svd_forward(const dpt_svd_products *products, int64_t width, const float *v, float *y) {
    const dpt_svd_problem *p = products->problem;
    int m = (int)p->local_rows, n = (int)p->cols, l = (int)width;
    double scale = dpt_svd_unit_scale(p->norm);
    if (m == 0)
        return;
    if (products->slab == NULL) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, l, n, (float)scale, p->slab, n, v,
                    l, 0.0f, y, l);
        return;
    }
    for (int64_t e = 0; e < p->cols * width; e++)
        products->v[e] = v[e];
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, l, n, scale, products->slab, n,
                products->v, l, 0.0, products->y, l);
    for (int64_t e = 0; e < p->local_rows * width; e++)
        y[e] = (float)products->y[e];
}

/* sums (count, width) = columns j .. j + count of A, transposed, times Y / |A|, on this rank's rows. */
static void backward_tile(const dpt_svd_products *products, int64_t j, int64_t count, int64_t width,
                          const float *y, double *sums) {
    const dpt_svd_problem *p = products->problem;
    int n = (int)p->cols, l = (int)width, c = (int)count;
    double scale = dpt_svd_unit_scale(p->norm);
    memset(sums, 0, (size_t)(count * width) * sizeof *sums);
    if (products->slab != NULL && p->local_rows > 0)
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, c, l, (int)p->local_rows, scale,
                    products->slab + j, n, products->y, l, 0.0, sums, l);
    int64_t rows = 0;
    for (int64_t i = 0; products->slab == NULL && i < p->local_rows; i += rows) {
        rows = BLOCK_ROWS - (p->row0 + i) % BLOCK_ROWS;
        rows = rows < p->local_rows - i ? rows : p->local_rows - i;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, c, l, (int)rows, (float)scale,
                    p->slab + i * p->cols + j, n, y + i * width, l, 0.0f, products->tile, l);
        for (int64_t e = 0; e < count * width; e++)
            sums[e] += products->tile[e];
    }
}

dpt_status dpt_svd_backward(const dpt_svd_products *products, int64_t width, const float *y,
                            float *share) {
    const dpt_svd_problem *p = products->problem;
    bool together = p->comm->size > 1;
    if (products->slab != NULL)
        for (int64_t e = 0; e < p->local_rows * width; e++)
            products->y[e] = y[e];
    for (int64_t j = 0; j < p->cols; j += TILE_COLS) {
        int64_t count = p->cols - j < TILE_COLS ? p->cols - j : TILE_COLS;
        double *sums = products->sums + (together ? j * width : 0);
        backward_tile(products, j, count, width, y, sums);
        for (int64_t e = 0; !together && e < count * width; e++)
            share[j * width + e] = (float)sums[e];
    }
    return together ? dpt_panel_sum_to_shares_f64(p->comm, p->cols, width, products->sums, share,
                                                  products->counts)
                    : DPT_OK;
}

#include "grid.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include "scalapack.h"

#include <inttypes.h>
#include <limits.h>

enum { BLOCK_MAX = 64 };

dpt_status dpt_grid_int(int64_t value, const char *what, int *out) {
    if (value < 0 || value > INT_MAX)
        return dpt_error(DPT_ERR_INPUT,
                         "%s is %" PRId64 ": the linear algebra libraries take sides up to %d",
                         what, value, INT_MAX);
    *out = (int)value;
    return DPT_OK;
}

static const dpt_grid empty_grid = {.handle = -1, .context = -1};

dpt_status dpt_grid_create(const dpt_comm *comm, dpt_grid *out) {
    *out = empty_grid;
    int rows = 1;
    for (int r = 1; r <= comm->size / r; r++)
        if (comm->size % r == 0)
            rows = r;
    /* The taller shape: row blocks of tall panels were faster than column blocks. */
    out->cols = rows;
    out->rows = comm->size / rows;
    DPT_ASSERT(out->rows * out->cols == comm->size);
    int *map = dpt_mem_alloc(comm->size, sizeof *map, "BLACS grid map");
    dpt_status st = dpt_agree(comm, map == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    if (st == DPT_OK) {
        for (int r = 0; r < comm->size; r++)
            map[r] = r;
        out->handle = Csys2blacs_handle(comm->mpi);
        out->context = out->handle;
        Cblacs_gridmap(&out->context, map, out->rows, out->rows, out->cols);
        int grid_rows = 0, grid_cols = 0;
        Cblacs_gridinfo(out->context, &grid_rows, &grid_cols, &out->row, &out->col);
        st = grid_rows == out->rows && grid_cols == out->cols && out->row >= 0 && out->col >= 0
                 ? DPT_OK
                 : dpt_error(DPT_ERR_INTERNAL, "BLACS gave no %d x %d process grid", out->rows,
                             out->cols);
        if (st == DPT_OK) {
            int yes = 1;
            Cblacs_set(out->context, BLACS_REPEATABLE, &yes);
        }
        st = dpt_agree(comm, st);
    }
    dpt_mem_free(map);
    if (st != DPT_OK)
        dpt_grid_destroy(out);
    return st;
}

void dpt_grid_destroy(dpt_grid *grid) {
    if (grid->context >= 0)
        Cblacs_gridexit(grid->context);
    if (grid->handle >= 0)
        Cfree_blacs_system_handle(grid->handle);
    *grid = empty_grid;
}

int dpt_grid_block(const dpt_grid *grid, int64_t side) {
    int64_t maximum = grid->rows > grid->cols ? grid->rows : grid->cols;
    int64_t nb = side / (2 * maximum);
    return nb > BLOCK_MAX ? BLOCK_MAX : nb < 1 ? 1 : (int)nb;
}

dpt_status dpt_grid_matrix_create(const dpt_grid *grid, int64_t rows, int64_t cols, int nb,
                                  dpt_grid_matrix *out) {
    *out = (dpt_grid_matrix){.nb = nb};
    dpt_status st = dpt_grid_int(rows, "rows of a block-cyclic matrix", &out->rows);
    if (st == DPT_OK)
        st = dpt_grid_int(cols, "columns of a block-cyclic matrix", &out->cols);
    if (st != DPT_OK)
        return st;
    int zero = 0, info = 0;
    out->local_rows = numroc_(&out->rows, &nb, &grid->row, &zero, &grid->rows);
    out->local_cols = numroc_(&out->cols, &nb, &grid->col, &zero, &grid->cols);
    int lld = out->local_rows > 1 ? out->local_rows : 1;
    descinit_(out->desc, &out->rows, &out->cols, &nb, &nb, &zero, &zero, &grid->context, &lld,
              &info);
    if (info != 0)
        return dpt_error(DPT_ERR_INTERNAL, "DESCINIT refused argument %d of a %d x %d matrix",
                         -info, out->rows, out->cols);
    int64_t count = 0;
    if (!dpt_mem_mul(lld, out->local_cols > 1 ? out->local_cols : 1, &count))
        return dpt_error(DPT_ERR_OUTPUT, "a block-cyclic matrix is too large for this machine");
    out->values = dpt_mem_zalloc(count, sizeof *out->values, "block-cyclic matrix");
    return out->values == NULL ? DPT_ERR_OUTPUT : DPT_OK;
}

void dpt_grid_matrix_destroy(dpt_grid_matrix *matrix) {
    dpt_mem_free(matrix->values);
    *matrix = (dpt_grid_matrix){.nb = 0};
}

/* Local index of global index ig when this place owns it, else -1. */
static int64_t local_index(int64_t ig, int nb, int place, int places) {
    int64_t block = ig / nb;
    return block % places == place ? block / places * nb + ig % nb : -1;
}

/* Global index of local index il. */
static int64_t global_index(int64_t il, int nb, int place, int places) {
    return (il / nb * places + place) * nb + il % nb;
}

void dpt_grid_matrix_put(const dpt_grid *grid, dpt_grid_matrix *matrix, int64_t ig0, int64_t n,
                         int64_t jg0, int64_t width, const double *panel, int64_t row_step,
                         int64_t col_step) {
    int64_t lld = matrix->desc[8];
    DPT_ASSERT(ig0 >= 0 && ig0 + n <= matrix->rows && jg0 >= 0 && jg0 + width <= matrix->cols);
    for (int64_t j = 0; j < width; j++) {
        int64_t jl = local_index(jg0 + j, matrix->nb, grid->col, grid->cols);
        if (jl < 0)
            continue;
        DPT_ASSERT(jl < matrix->local_cols);
        for (int64_t i = 0; i < n; i++) {
            int64_t il = local_index(ig0 + i, matrix->nb, grid->row, grid->rows);
            if (il >= 0)
                matrix->values[jl * lld + il] = panel[i * row_step + j * col_step];
        }
    }
}

void dpt_grid_matrix_get(const dpt_grid *grid, const dpt_grid_matrix *matrix, int64_t jg0,
                         int64_t width, double *out, int64_t row_step, int64_t col_step) {
    int64_t lld = matrix->desc[8];
    for (int64_t j = 0; j < width; j++) {
        int64_t jl = local_index(jg0 + j, matrix->nb, grid->col, grid->cols);
        if (jl < 0)
            continue;
        for (int64_t il = 0; il < matrix->local_rows; il++) {
            int64_t i = global_index(il, matrix->nb, grid->row, grid->rows);
            out[i * row_step + j * col_step] = matrix->values[jl * lld + il];
        }
    }
}

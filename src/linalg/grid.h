#ifndef DELTAPATH_SRC_LINALG_GRID_H
#define DELTAPATH_SRC_LINALG_GRID_H

#include "deltapath/comm/comm.h"

#include <stdint.h>

/** A BLACS process grid over all ranks of a communicator, as square as their number allows. */
typedef struct dpt_grid {
    int handle;  /**< BLACS system handle of the communicator, -1 when none */
    int context; /**< -1 when none */
    int rows;
    int cols;
    int row; /**< this rank's place */
    int col;
} dpt_grid;

/** A dense double matrix, block-cyclic over a grid in square blocks, column-major on each rank. */
typedef struct dpt_grid_matrix {
    int desc[9];
    int rows;
    int cols;
    int nb;
    int local_rows;
    int local_cols;
    double *values; /**< (local_cols, lld) */
} dpt_grid_matrix;

/** Cast a dimension to the integer of BLAS, LAPACK and ScaLAPACK. Local.
 * Errors: DPT_ERR_INPUT naming `what` when it does not fit. */
dpt_status dpt_grid_int(int64_t value, const char *what, int *out);

/** Set up a grid over comm. Collective over comm.
 * Errors: DPT_ERR_INTERNAL when BLACS gives no context, on all ranks; *out is empty then. */
dpt_status dpt_grid_create(const dpt_comm *comm, dpt_grid *out);
void dpt_grid_destroy(dpt_grid *grid); /**< Collective over the grid; an empty grid is allowed. */

/** Block size for matrices with this shorter side: small matrices still reach several ranks. Local. */
int dpt_grid_block(const dpt_grid *grid, int64_t side);

/** Allocate this rank's part, filled with zeros. Local; agree afterwards.
 * Errors: DPT_ERR_INPUT for sizes beyond int; DPT_ERR_OUTPUT without memory; *out empty then. */
dpt_status dpt_grid_matrix_create(const dpt_grid *grid, int64_t rows, int64_t cols, int nb,
                                  dpt_grid_matrix *out);
void dpt_grid_matrix_destroy(dpt_grid_matrix *matrix);

/** Copy what this rank owns of a panel that it holds whole: element (i, j) of the panel is
 * panel[i * row_step + j * col_step] and global element (ig0 + i, jg0 + j). Local. */
void dpt_grid_matrix_put(const dpt_grid *grid, dpt_grid_matrix *matrix, int64_t ig0, int64_t n,
                         int64_t jg0, int64_t width, const double *panel, int64_t row_step,
                         int64_t col_step);

/** Write what this rank owns of columns [jg0, jg0 + width) into out, whose element (i, j) is
 * out[i * row_step + j * col_step]; the rest of out stays. Local. */
void dpt_grid_matrix_get(const dpt_grid *grid, const dpt_grid_matrix *matrix, int64_t jg0,
                         int64_t width, double *out, int64_t row_step, int64_t col_step);

#endif

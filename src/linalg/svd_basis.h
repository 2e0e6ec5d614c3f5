#ifndef DELTAPATH_SRC_LINALG_SVD_BASIS_H
#define DELTAPATH_SRC_LINALG_SVD_BASIS_H

#include "panel.h"
#include "svd_methods.h"
#include "svd_products.h"

enum { DPT_SVD_BLOCKS = 5 }; /**< blocks of a basis before it is made short again */

/** A basis that grows by blocks of columns: Y, and Z = A^T Y / |A|. Blocks are panels without gaps, one after the other;
 * Gram matrices are (room, room) and whole on every rank. */
typedef struct dpt_svd_basis {
    const dpt_svd_problem *problem; /**< borrowed */
    int64_t block;                  /**< columns of a block at most */
    int64_t room;                   /**< columns of all at most */
    bool grows;   /**< keeps its blocks; else the next one takes the place of the last */
    bool sketch;  /**< v is random, not orthonormal */
    bool image;   /**< the last block of Y is A v / |A|, not another basis of that */
    double shift; /**< of A^T A / |A|^2, where it does not grow */
    int blocks;
    int64_t at[DPT_SVD_BLOCKS + 1]; /**< first column of each block, then the count of columns */
    int64_t next;                   /**< columns of v */
    int64_t first, own_rows;        /**< rows of Z and V dealt to this rank */
    float *v;                       /**< (cols, next) whole: the next block is A v */
    float *y;                       /**< (local rows, room) */
    float *z;                       /**< (own rows, room) */
    float *spare;                   /**< a block of either */
    double *gram_y, *gram_z;        /**< Y^T Y, Z^T Z */
    double *t;                      /**< (width, width) upper triangle: Y T is orthonormal */
    double *cross;                  /**< (room, block) products of a block with all */
    double *chunk;                  /**< rows of two blocks in double */
    int *counts;
    dpt_svd_products products;
    dpt_panel_work work; /**< of room columns */
} dpt_svd_basis;

static inline int64_t dpt_svd_basis_width(const dpt_svd_basis *basis) {
    return basis->at[basis->blocks];
}

/** Without a block, v random. Collective over problem->comm. Errors: DPT_ERR_OUTPUT on all ranks. */
dpt_status dpt_svd_basis_create(const dpt_svd_problem *problem, dpt_svd_basis *out);
void dpt_svd_basis_destroy(dpt_svd_basis *basis);

/** Whether the basis keeps all blocks: then it takes fewer products, but more work on small matrices. Local. */
bool dpt_svd_basis_grows(int64_t rows, int64_t cols, int64_t rank);

/** Bytes of a rank for it. Local. */
double dpt_svd_basis_bytes(int64_t rows, int64_t cols, int64_t rank, int ranks);

/** Append the block A v, made orthonormal to those before it up to what T puts right; then T, Z and Gram matrices.
 * Collective, agreed. @param[out] exhausted the block has no columns: Y holds the range of A, up to rounding. */
dpt_status dpt_svd_basis_grow(dpt_svd_basis *basis, bool *exhausted);

/** work.roots = the squares of the singular values of A projected onto the range of Y, over |A|^2, falling; with vectors
 * column j of work.t (width, width) is the left one of value j in the basis Y T. Collective, agreed. */
dpt_status dpt_svd_basis_project(dpt_svd_basis *basis, bool vectors);

/** v = a basis of the last block of Z, less shift v. Where a basis that grows has no room for another block, Y is replaced by its leading singular
 * vectors. Collective, agreed. */
dpt_status dpt_svd_basis_next(dpt_svd_basis *basis);

/** u (local rows, count) = Y T W and v (own rows, count) = Z T W diag(1 / s) of the first columns of W = work.t, with
 * values s. Overwrites work.gram and work.factor. Local. */
void dpt_svd_basis_turn(dpt_svd_basis *basis, int64_t count, const double *values, float *u,
                        float *v);

#endif

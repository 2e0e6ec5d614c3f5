/** Row-major sgemm on 64-bit sizes, private to the layer `nn`.
 *
 * C (M, N) = alpha op(A) op(B) + beta C, with K the inner size. Sizes are at most INT_MAX by the
 * contract of the layer. Empty products are handled here: BLAS rejects leading dimensions of 0.
 */
#ifndef DELTAPATH_SRC_NN_GEMM_H
#define DELTAPATH_SRC_NN_GEMM_H

#include <cblas.h>
#include <stdbool.h>
#include <stdint.h>

static inline void gemm(bool trans_a, bool trans_b, int64_t M, int64_t N, int64_t K, float alpha,
                        const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                        float *c, int64_t ldc) {
    if (M <= 0 || N <= 0)
        return;
    if (K <= 0) {
        for (int64_t i = 0; i < M; i++)
            for (int64_t j = 0; j < N; j++)
                c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
        return;
    }
    cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans,
                trans_b ? CblasTrans : CblasNoTrans, (blasint)M, (blasint)N, (blasint)K, alpha, a,
                (blasint)lda, b, (blasint)ldb, beta, c, (blasint)ldc);
}

#endif

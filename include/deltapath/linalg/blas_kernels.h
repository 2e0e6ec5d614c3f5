#ifndef DELTAPATH_LINALG_BLAS_KERNELS_H
#define DELTAPATH_LINALG_BLAS_KERNELS_H

#include <stdbool.h>

/** Instructions of a processor that decide which kernels of OpenBLAS are the fastest there. */
typedef struct dpt_blas_processor {
    bool avx2;   /**< with FMA */
    bool avx512; /**< F, BW, VL and DQ */
} dpt_blas_processor;

/** The processor at hand; none of these on another architecture than x86-64. Local. */
dpt_blas_processor dpt_blas_processor_here(void);

/** The kernels that OpenBLAS took when it was loaded, by its name; NULL for another BLAS. Local. */
const char *dpt_blas_kernels(void);

/** A value of OPENBLAS_CORETYPE with faster kernels for a processor than these. Local.
 * @param[in] kernels as dpt_blas_kernels. @return NULL: there are none. */
const char *dpt_blas_faster_than(const char *kernels, dpt_blas_processor processor);

#endif

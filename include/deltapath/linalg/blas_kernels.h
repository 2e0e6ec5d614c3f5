#ifndef DELTAPATH_LINALG_BLAS_KERNELS_H
#define DELTAPATH_LINALG_BLAS_KERNELS_H

#include <stdbool.h>

/** Instructions of a processor that decide which kernels of OpenBLAS are the fastest there. */
typedef struct dpt_blas_processor {
    bool avx2;   /**< with FMA */
    bool avx512; /**< F, BW, VL and DQ */
} dpt_blas_processor;

/** A value of OPENBLAS_CORETYPE with faster kernels for this processor than those of `core`, as openblas_get_corename names
 * them; NULL: there is none. Local. */
const char *dpt_blas_faster_than(const char *core, dpt_blas_processor processor);

/** The same for the kernels and the processor at hand; NULL for another BLAS, and on another architecture than x86-64.
 * Local. */
const char *dpt_blas_faster_kernels(void);

/** The kernels at hand, as OpenBLAS names them; NULL for another BLAS. Local. */
const char *dpt_blas_kernels(void);

#endif

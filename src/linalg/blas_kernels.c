#include "deltapath/linalg/blas_kernels.h"

#include <cblas.h>
#include <stddef.h>
#include <string.h>

/* Weak: another BLAS lacks it. */
#pragma weak openblas_get_corename
extern char *openblas_get_corename(void);

static bool kernels_are(const char *core, const char *const *names) {
    while (*names != NULL && strcmp(core, *names) != 0)
        names++;
    return *names != NULL;
}

const char *dpt_blas_kernels(void) {
    return openblas_get_corename != NULL ? openblas_get_corename() : NULL;
}

#ifdef __x86_64__
dpt_blas_processor dpt_blas_processor_here(void) {
    return (dpt_blas_processor){
        .avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
        .avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")};
}
#else
dpt_blas_processor dpt_blas_processor_here(void) {
    return (dpt_blas_processor){.avx2 = false};
}
#endif

/* OpenBLAS 0.3.21 knows processors by model number. Newer ones get AVX2 kernels, at half of the speed of AVX-512, or SSE3
 * kernels (Prescott), at a quarter. */
const char *dpt_blas_faster_than(const char *kernels, dpt_blas_processor processor) {
    static const char *const wide[] = {"SkylakeX", "Cooperlake", "Sapphirerapids", NULL};
    static const char *const middle[] = {"Haswell", "Zen", "Excavator", NULL};
    if (kernels == NULL || kernels_are(kernels, wide))
        return NULL;
    if (processor.avx512)
        return "SkylakeX";
    return processor.avx2 && !kernels_are(kernels, middle) ? "Haswell" : NULL;
}

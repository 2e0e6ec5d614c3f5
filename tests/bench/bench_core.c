/* Tell which kernels OpenBLAS chose. With "faster": those that the program would take in their place, or nothing. */
#include "deltapath/linalg/blas_kernels.h"

#include <cblas.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    float one = cblas_sasum(1, &(float){1.0F}, 1); /* without a call the BLAS is not linked */
    const char *core = one > 0.0F ? dpt_blas_kernels() : NULL;
    const char *faster = dpt_blas_faster_than(core, dpt_blas_processor_here());
    if (argc > 1 && strcmp(argv[1], "faster") == 0)
        printf("%s\n", faster != NULL ? faster : "");
    else
        printf("%s\n", core != NULL ? core : "another BLAS");
    return 0;
}

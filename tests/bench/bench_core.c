/* Tell which kernels OpenBLAS chose. With "avx512": exit 0 when they use AVX-512, 1 when not. */
#include <cblas.h>
#include <stdio.h>
#include <string.h>

#pragma weak openblas_get_corename
extern char *openblas_get_corename(void);

int main(int argc, char **argv) {
    const char *core = openblas_get_corename != NULL ? openblas_get_corename() : "another BLAS";
    int wide = strcmp(core, "SkylakeX") == 0 || strcmp(core, "Cooperlake") == 0 ||
               strcmp(core, "Sapphirerapids") == 0;
    if (argc > 1 && strcmp(argv[1], "avx512") == 0)
        return !wide;
    printf("%s\n", core);
    return 0;
}

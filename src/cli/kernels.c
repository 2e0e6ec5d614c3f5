#include "cli.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Weak: another BLAS lacks it. */
#pragma weak openblas_get_corename
extern char *openblas_get_corename(void);

#ifdef __x86_64__
static const char CORE_VARIABLE[] = "OPENBLAS_CORETYPE";

/* OpenBLAS 0.3.21 knows processors by model number and gives newer ones with AVX-512 its AVX2
 * kernels, at half of their speed. It reads the wanted kernels from the environment when it is
 * loaded, so that the program has to start again to change them. */
void dpt_cli_choose_kernels(char **argv) {
    if (openblas_get_corename == NULL || getenv(CORE_VARIABLE) != NULL)
        return;
    const char *core = openblas_get_corename();
    if (strcmp(core, "Haswell") != 0 && strcmp(core, "Zen") != 0)
        return;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return;
    if (setenv(CORE_VARIABLE, "SkylakeX", 1) == 0)
        execv("/proc/self/exe", argv);
    /* Only reached when exec failed: slower kernels are still right. */
}
#else
void dpt_cli_choose_kernels(char **argv) {
    (void)argv;
}
#endif

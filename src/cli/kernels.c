#include "cli.h"

#include "deltapath/linalg/blas_kernels.h"

#include <stdlib.h>
#include <unistd.h>

static const char CORE_VARIABLE[] = "OPENBLAS_CORETYPE";

/* OpenBLAS reads the wanted kernels from the environment when it is loaded, so that the program has to start again to
 * change them. */
void dpt_cli_choose_kernels(char **argv) {
    if (getenv(CORE_VARIABLE) != NULL)
        return;
    const char *faster = dpt_blas_faster_than(dpt_blas_kernels(), dpt_blas_processor_here());
    if (faster != NULL && setenv(CORE_VARIABLE, faster, 1) == 0)
        execv("/proc/self/exe", argv);
    /* Only reached when exec failed: slower kernels are still right. */
}

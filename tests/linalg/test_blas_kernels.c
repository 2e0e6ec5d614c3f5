/* ranks: 1 */
/* Which kernels are faster than those that OpenBLAS takes for itself. */
#include "support/test_mpi.h"

#include "deltapath/linalg/blas_kernels.h"

#include <string.h>

static void processors(void **state) {
    (void)state;
    const dpt_blas_processor wide = {.avx2 = true, .avx512 = true}, middle = {.avx2 = true},
                             old = {0};
    static const struct {
        const char *core, *wide, *middle;
    } cases[] = {
        /* What OpenBLAS 0.3.21 takes on Emerald Rapids, Zen 4 with AVX-512, and where it knows the processor. */
        {"Prescott", "SkylakeX", "Haswell"}, {"Haswell", "SkylakeX", NULL},
        {"Zen", "SkylakeX", NULL},           {"Sandybridge", "SkylakeX", "Haswell"},
        {"Unknown", "SkylakeX", "Haswell"},  {"SkylakeX", NULL, NULL},
        {"Cooperlake", NULL, NULL},          {"Sapphirerapids", NULL, NULL},
        {"Excavator", "SkylakeX", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *got[] = {dpt_blas_faster_than(cases[i].core, wide),
                             dpt_blas_faster_than(cases[i].core, middle),
                             dpt_blas_faster_than(cases[i].core, old)};
        const char *wanted[] = {cases[i].wide, cases[i].middle, NULL};
        for (int k = 0; k < 3; k++) {
            assert_int_equal(got[k] == NULL, wanted[k] == NULL);
            if (got[k] != NULL)
                assert_string_equal(got[k], wanted[k]);
        }
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(processors)};
    return test_mpi_main(argc, argv, tests);
}

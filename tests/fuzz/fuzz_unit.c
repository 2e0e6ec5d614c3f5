/* dictionary: hdf5
 * Units of a study with a right seal; the key of the study is 1. A unit that does not serve is no error. */
#include "fuzz.h"

#include "deltapath/results/results.h"

#include <stdio.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[1] = {"w"};
    static const int64_t numel[1] = {1};
    static char folder[128];
    if (folder[0] == '\0') {
        snprintf(folder, sizeof folder, "%s", fuzz_path(""));
        mkdir(fuzz_path("units"), 0700);
    }
    dpt_results_study study = {.name = "fuzz",
                               .directory = folder,
                               .tensors = 21,
                               .tensor_names = names,
                               .tensor_numel = numel,
                               .key = 1};
    dpt_result result;
    bool found = false;
    fuzz_write_sealed("units/dare-seed1@task.h5", data, size);
    dpt_status st =
        dpt_results_load_unit(&fuzz_comm, &study, "dare-seed1", "task", &found, NULL, &result);
    dpt_result_destroy(&result);
    fuzz_finish(st, DPT_ERR_INPUT);
    return 0;
}

/* dictionary: hdf5
 * results.h5 with a right seal, so that what is inside is looked at. */
#include "fuzz.h"

#include "deltapath/results/results.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dpt_results results;
    dpt_status st = dpt_results_read(fuzz_write_sealed("input.h5", data, size), &results);
    if (st == DPT_OK)
        dpt_results_destroy(&results);
    fuzz_finish(st, DPT_ERR_INPUT);
    return 0;
}

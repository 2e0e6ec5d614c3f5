/* dictionary: hdf5
 * Data sets of each kind; the last byte chooses. */
#include "fuzz.h"

#include "deltapath/data/dataset.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dpt_dataset set;
    if (size == 0)
        return -1;
    const char *path = fuzz_write("input.h5", data, size);
    dpt_dataset_kind kind = (dpt_dataset_kind)(data[size - 1] % DPT_DATASET_COUNT);
    dpt_status st = dpt_dataset_read(&fuzz_comm, path, kind, &set);
    if (st == DPT_OK && kind == DPT_DATASET_IMAGES) {
        float *out = malloc((size_t)(set.channels * set.height * set.width) * sizeof *out);
        if (out != NULL && dpt_dataset_read_images(&set, set.samples - 1, 1, out) != DPT_OK)
            abort(); /* what was accepted can be read */
        free(out);
    }
    if (st == DPT_OK)
        dpt_dataset_destroy(&set);
    fuzz_finish(st, DPT_ERR_INPUT);
    return 0;
}

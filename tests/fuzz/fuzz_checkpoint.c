/* dictionary: hdf5
 * HDF5 checkpoints. HDF5 reads them in a child process, as in the program: its crashes are answers. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dpt_store *store = NULL;
    const char *path = fuzz_write("input.h5", data, size);
    dpt_store_is_format(path, "deltapath-results");
    dpt_status st = dpt_store_open(&fuzz_comm, path, &store);
    if (store != NULL)
        dpt_store_close(store);
    fuzz_finish(st, DPT_ERR_INPUT);
    return 0;
}

/* dictionary: safetensors
 * Headers of safetensors files. The first byte says whether the length before the header is right. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dpt_store *store = NULL;
    if (size == 0)
        return -1;
    const char *path = data[0] == '!' ? fuzz_write("model.safetensors", data + 1, size - 1)
                                      : fuzz_write_safetensors("model.safetensors", data, size, 64);
    dpt_status st = dpt_store_open(&fuzz_comm, path, &store);
    if (store != NULL)
        dpt_store_close(store);
    fuzz_finish(st, DPT_ERR_INPUT);
    return 0;
}

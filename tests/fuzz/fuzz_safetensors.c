/* dictionary: safetensors
 * Headers of safetensors files. The first byte says whether the length before the header is right. Tensors of what can
 * be opened are read: quantised ones are put together from several. */
#include "fuzz.h"

enum { READ_BYTES = 1 << 16 };

static dpt_status read_all(dpt_store *store) {
    static char out[READ_BYTES];
    dpt_source source = dpt_store_source(store);
    dpt_status st = DPT_OK;
    for (int t = 0; t < source.catalog->count && st == DPT_OK; t++) {
        dpt_range range = {.tensor = t, .n = source.catalog->tensors[t].numel};
        if (range.n <= READ_BYTES / dpt_dtype_size(source.catalog->tensors[t].dtype))
            st = source.read(source.ctx, range, out);
    }
    return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dpt_store *store = NULL;
    if (size == 0)
        return -1;
    const char *path = data[0] == '!' ? fuzz_write("model.safetensors", data + 1, size - 1)
                                      : fuzz_write_safetensors("model.safetensors", data, size, 64);
    dpt_status st = dpt_store_open(&fuzz_comm, path, &store);
    if (store != NULL) {
        st = read_all(store);
        dpt_store_close(store);
    }
    fuzz_finish(st, DPT_ERR_INPUT);
    return 0;
}

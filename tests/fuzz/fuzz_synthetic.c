/* dictionary: safetensors
 * deltapath-synthetic.json of a folder with a sound config.json. */
#include "fuzz.h"

#include "deltapath/store/synthetic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dpt_store *store = NULL;
    fuzz_write("config.json", "{}", 2);
    fuzz_write(DPT_SYNTHETIC_FILE, data, size);
    dpt_status st = dpt_store_open(&fuzz_comm, fuzz_path(""), &store);
    if (st == DPT_OK && dpt_store_catalog(store)->tensors[0].numel > 3) {
        char values[16];
        dpt_source source = dpt_store_source(store);
        st = source.read(source.ctx, (dpt_range){.tensor = 0, .ig = 1, .n = 3}, values);
    }
    if (store != NULL)
        dpt_store_close(store);
    fuzz_finish(st, DPT_ERR_INPUT);
    return 0;
}

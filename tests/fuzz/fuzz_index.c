/* dictionary: safetensors
 * model.safetensors.index.json over two sound files, and deltapath.json next to it. */
#include "fuzz.h"

#include <string.h>
#include <unistd.h>

static const char a[] = "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                        "\"y\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[8,16]}}";
static const char b[] = "{\"z\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[0,2]}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dpt_store *store = NULL;
    const uint8_t *cut = memchr(data, '\f', size); /* what follows a form feed is the second file */
    size_t first = cut != NULL ? (size_t)(cut - data) : size;
    fuzz_write_safetensors("a.safetensors", a, strlen(a), 16);
    fuzz_write_safetensors("b.safetensors", b, strlen(b), 2);
    fuzz_write("model.safetensors.index.json", data, first);
    if (cut != NULL)
        fuzz_write("deltapath.json", cut + 1, size - first - 1);
    else
        unlink(fuzz_path("deltapath.json"));
    dpt_status st = dpt_store_open(&fuzz_comm, fuzz_path(""), &store);
    if (store != NULL)
        dpt_store_close(store);
    fuzz_finish(st, DPT_ERR_INPUT);
    return 0;
}

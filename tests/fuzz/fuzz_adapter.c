/* dictionary: safetensors
 * adapter_config.json over a sound adapter and its base; what follows a form feed is the header of the adapter. */
#include "fuzz.h"

#include <string.h>
#include <sys/stat.h>

static const char base[] =
    "{\"model.x.weight\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,8]}}";
static const char plain[] = "{\"base_model.model.model.x.lora_A.weight\":{\"dtype\":\"F32\","
                            "\"shape\":[1,2],\"data_offsets\":[0,8]},"
                            "\"base_model.model.model.x.lora_B.weight\":{\"dtype\":\"F32\","
                            "\"shape\":[2,1],\"data_offsets\":[8,16]}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dpt_store *store = NULL;
    const uint8_t *cut = memchr(data, '\f', size);
    size_t first = cut != NULL ? (size_t)(cut - data) : size;
    mkdir(fuzz_path("base"), 0777);
    fuzz_write_safetensors("base/model.safetensors", base, strlen(base), 8);
    fuzz_write("adapter_config.json", data, first);
    if (cut != NULL)
        fuzz_write_safetensors("adapter_model.safetensors", (const char *)cut + 1, size - first - 1,
                               16);
    else
        fuzz_write_safetensors("adapter_model.safetensors", plain, strlen(plain), 16);
    char whole[512];
    snprintf(whole, sizeof whole, "%s", fuzz_path("base"));
    dpt_status st = dpt_store_open_on(&fuzz_comm, fuzz_path(""), whole, &store);
    if (st == DPT_OK) {
        char values[64];
        dpt_source source = dpt_store_source(store);
        st = source.read(source.ctx, (dpt_range){.tensor = 0, .ig = 1, .n = 3}, values);
    }
    if (store != NULL)
        dpt_store_close(store);
    fuzz_finish(st, DPT_ERR_INPUT);
    return 0;
}

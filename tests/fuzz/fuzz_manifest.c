/* dictionary: safetensors
 * deltapath-manifest.json of a safetensors folder, with its checksum made right so that the rest is
 * looked at. */
#include "fuzz.h"

#include "deltapath/base/hash.h"
#include "deltapath/store/manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char tensor[] = "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
static const char begin[] = "{\n \"checksum\": \"";
enum { DIGITS = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dpt_store *store = NULL;
    dpt_manifest manifest;
    bool found = false;
    char *text = fuzz_text(data, size);
    char digits[DIGITS + 1];
    uint64_t hash[2];
    size_t n = strlen(begin);
    if (size > n + DIGITS && memcmp(text, begin, n) == 0) {
        memset(text + n, '0', DIGITS);
        dpt_hash128_bytes(text, size, hash);
        snprintf(digits, sizeof digits, "%016" PRIx64 "%016" PRIx64, hash[1], hash[0]);
        memcpy(text + n, digits, DIGITS);
    }
    fuzz_write_safetensors("model.safetensors", tensor, strlen(tensor), 8);
    fuzz_write("config.json", "{}", 2);
    const char *path = fuzz_write("deltapath-manifest.json", text, size);
    dpt_status st = dpt_manifest_read(path, &manifest, &found);
    dpt_manifest_destroy(&manifest);
    fuzz_check(st, DPT_ERR_INPUT);
    st = dpt_store_open(&fuzz_comm, fuzz_path(""), &store);
    if (store != NULL)
        dpt_store_close(store);
    fuzz_finish(st, DPT_ERR_INPUT);
    return 0;
}

#include "deltapath/base/sealed.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void dpt_seal_format(const uint64_t hash[2], int64_t n, char seal[DPT_SEAL_BYTES]) {
    char text[DPT_SEAL_BYTES + 1];
    snprintf(text, sizeof text, "deltapath-xxh128 %016" PRIx64 "%016" PRIx64 " %016" PRIx64 "%*s\n",
             hash[1], hash[0], (uint64_t)n, DPT_SEAL_BYTES - 67, "");
    memcpy(seal, text, DPT_SEAL_BYTES);
}

static void seal_make(const char *bytes, int64_t n, char seal[DPT_SEAL_BYTES]) {
    uint64_t hash[2];
    dpt_hash128_bytes(bytes, (size_t)n, hash);
    dpt_seal_format(hash, n, seal);
}

bool dpt_seal_check(const char *bytes, int64_t n, int64_t *length) {
    char expected[DPT_SEAL_BYTES];
    *length = n - DPT_SEAL_BYTES;
    if (*length < 0)
        return false;
    seal_make(bytes, *length, expected);
    return memcmp(bytes + *length, expected, DPT_SEAL_BYTES) == 0;
}

dpt_status dpt_sealed_put(const char *path, const void *bytes, int64_t n) {
    char seal[DPT_SEAL_BYTES];
    if (bytes == NULL)
        return dpt_error(DPT_ERR_OUTPUT, "%s: no memory left to make it: " DPT_MEM_REMEDY, path);
    seal_make(bytes, n, seal);
    const dpt_file_piece pieces[] = {{.bytes = bytes, .n = n}, {.bytes = seal, .n = sizeof seal}};
    return dpt_file_put(path, pieces, 2);
}

dpt_status dpt_sealed_write(const char *path, const void *bytes, int64_t n) {
    dpt_status st = dpt_sealed_put(path, bytes, n);
    return st == DPT_OK ? dpt_file_commit(path) : st;
}

dpt_status dpt_sealed_read(const char *path, int64_t limit, char **bytes, int64_t *n) {
    int64_t whole = 0;
    dpt_status st = dpt_file_read(path, limit, bytes, &whole);
    if (st != DPT_OK)
        return st;
    if (dpt_seal_check(*bytes, whole, n)) {
        (*bytes)[*n] = '\0';
        return DPT_OK;
    }
    dpt_mem_free(*bytes);
    *bytes = NULL;
    *n = 0;
    return dpt_error(
        DPT_ERR_INPUT,
        "%s: its checksum does not match: it was cut off or damaged, or this version of "
        "deltapath did not write it",
        path);
}

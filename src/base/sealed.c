#include "deltapath/base/sealed.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "sha256.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TOOL_SEAL_BYTES = 99, PIECE = 1 << 16 };
static const char TOOL_SEAL[] = "deltapath-sha256 ";

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

/* Of the first n bytes of an open file. false with errno when they cannot be read. */
static bool seal_hash_file(int fd, int64_t n, unsigned char digest[32]) {
    char *piece = dpt_mem_alloc(PIECE, 1, "bytes of a file");
    dpt_sha256 hash;
    dpt_sha256_begin(&hash);
    int64_t at = 0;
    while (piece != NULL && at < n) {
        int64_t want = n - at < PIECE ? n - at : PIECE;
        errno = EIO;
        if (dpt_file_read_at(fd, at, piece, want) != want)
            break;
        dpt_sha256_update(&hash, piece, (size_t)want);
        at += want;
    }
    dpt_mem_free(piece);
    dpt_sha256_end(&hash, digest);
    return at == n;
}

static dpt_status seal_check_open(int fd, const char *path) {
    dpt_file_identity file;
    char seal[TOOL_SEAL_BYTES + 1] = "", expected[TOOL_SEAL_BYTES + 1];
    unsigned char digest[32];
    dpt_status st = dpt_file_identify_open(fd, path, &file);
    if (st != DPT_OK || file.size < TOOL_SEAL_BYTES)
        return st;
    int64_t n = file.size - TOOL_SEAL_BYTES;
    if (dpt_file_read_at(fd, n, seal, TOOL_SEAL_BYTES) != TOOL_SEAL_BYTES)
        return dpt_error(DPT_ERR_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    if (memcmp(seal, TOOL_SEAL, sizeof TOOL_SEAL - 1) != 0)
        return DPT_OK;
    if (!seal_hash_file(fd, n, digest))
        return dpt_error(DPT_ERR_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    int at = snprintf(expected, sizeof expected, "%s", TOOL_SEAL);
    for (int i = 0; i < 32; i++)
        at += snprintf(expected + at, sizeof expected - (size_t)at, "%02x", digest[i]);
    snprintf(expected + at, sizeof expected - (size_t)at, " %016" PRIx64 "\n", (uint64_t)n);
    if (memcmp(seal, expected, TOOL_SEAL_BYTES) == 0)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT,
                     "%s: its checksum does not match: it was damaged or changed after "
                     "tools/prepare_data.py wrote it: make it or copy it again",
                     path);
}

dpt_status dpt_seal_check_tools(const char *path) {
    int fd = dpt_file_open_input(path);
    if (fd < 0)
        return DPT_ERR_INPUT;
    dpt_status st = seal_check_open(fd, path);
    close(fd);
    return st;
}

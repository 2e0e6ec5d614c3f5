#ifndef DELTAPATH_SRC_BASE_SHA256_H
#define DELTAPATH_SRC_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

/** SHA-256 of what was added, for the seals of the Python tools (base/sealed.h); all else is hashed by XXH3, which
 * is many times faster. All functions are Local.   Source: FIPS 180-4. */
typedef struct dpt_sha256 {
    uint32_t word[8];
    unsigned char block[64];
    uint64_t bytes;
} dpt_sha256;

void dpt_sha256_begin(dpt_sha256 *hash);
void dpt_sha256_update(dpt_sha256 *hash, const void *data, size_t bytes);
void dpt_sha256_end(dpt_sha256 *hash, unsigned char digest[32]);

#endif

#include "deltapath/base/hash.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>
#include <inttypes.h>
#include <stdio.h>

_Static_assert(sizeof(XXH3_state_t) <= DPT_HASH_STATE_BYTES, "the state fits");

uint64_t dpt_hash_bytes(const void *data, size_t bytes) {
    return XXH3_64bits(data, bytes);
}

uint64_t dpt_hash_string(const char *text) {
    return XXH3_64bits(text, strlen(text));
}

static void words_of(XXH128_hash_t hash, uint64_t out[2]) {
    out[0] = hash.low64;
    out[1] = hash.high64;
}

void dpt_hash128_bytes(const void *data, size_t bytes, uint64_t out[2]) {
    words_of(XXH3_128bits(data, bytes), out);
}

void dpt_hash_begin(dpt_hash *hash) {
    memset(hash, 0, sizeof *hash);
    XXH3_64bits_reset((XXH3_state_t *)(void *)hash->state);
}

/* The state holds a pointer to the library's constant secret, which differs between processes:
 * a state that came from another rank gets this process's own before it is used. */
static XXH3_state_t *adopt(const dpt_hash *hash, XXH3_state_t *copy) {
    XXH3_state_t fresh;
    XXH3_64bits_reset(&fresh);
    memcpy(copy, hash->state, sizeof *copy);
    copy->extSecret = fresh.extSecret;
    return copy;
}

void dpt_hash_update(dpt_hash *hash, const void *data, size_t bytes) {
    XXH3_state_t state;
    XXH3_64bits_update(adopt(hash, &state), data, bytes);
    memcpy(hash->state, &state, sizeof state);
}

uint64_t dpt_hash_value(const dpt_hash *hash) {
    XXH3_state_t state;
    return XXH3_64bits_digest(adopt(hash, &state));
}

void dpt_hash128_value(const dpt_hash *hash, uint64_t out[2]) {
    XXH3_state_t state;
    words_of(XXH3_128bits_digest(adopt(hash, &state)), out);
}

void dpt_hash_format(uint64_t hash, char text[17]) {
    snprintf(text, 17, "%016" PRIx64, hash);
}

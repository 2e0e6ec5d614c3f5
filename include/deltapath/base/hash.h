#ifndef DELTAPATH_BASE_HASH_H
#define DELTAPATH_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

enum { DPT_HASH_STATE_BYTES = 640 }; /**< room for one streaming state, alignment included */

/** Streaming XXH3-64 whose state is plain bytes, so that it can travel from rank to rank while a
 * tensor that several ranks hold is hashed in element order. */
typedef struct dpt_hash {
    _Alignas(64) unsigned char state[DPT_HASH_STATE_BYTES];
} dpt_hash;

/** XXH3-64 of a block of bytes, seed 0. Local. */
uint64_t dpt_hash_bytes(const void *data, size_t bytes);

/** XXH3-64 of the characters of a string. Local. */
uint64_t dpt_hash_string(const char *text);

/** XXH3-128 of a block of bytes, seed 0: low word, high word. Its canonical text is the 32 hexadecimal
 * digits of high then low. Local. */
void dpt_hash128_bytes(const void *data, size_t bytes, uint64_t out[2]);

/** Start, feed and read a stream; dpt_hash_value may be called between feeds. Local. */
void dpt_hash_begin(dpt_hash *hash);
void dpt_hash_update(dpt_hash *hash, const void *data, size_t bytes);
uint64_t dpt_hash_value(const dpt_hash *hash);

/** The XXH3-128 of what a stream was fed: the state serves both. Local. */
void dpt_hash128_value(const dpt_hash *hash, uint64_t out[2]);

/** 16 hexadecimal digits. Local. */
void dpt_hash_format(uint64_t hash, char text[17]);

#endif

/* ranks: 1 2 */
#include "support/test_mpi.h"

#include "deltapath/base/hash.h"
#include "../src/base/sha256.h"

#include <stdio.h>
#include <string.h>

enum { BYTES = 100000 };
static unsigned char data[BYTES];

static void fill(void) {
    uint32_t x = 12345;
    for (int i = 0; i < BYTES; i++) {
        x = x * 1664525 + 1013904223;
        data[i] = (unsigned char)(x >> 24);
    }
}

static void known_values(void **state) {
    (void)state;
    assert_true(dpt_hash_bytes("", 0) == UINT64_C(0x2d06800538d394c2)); /* XXH3-64 of nothing */
    assert_true(dpt_hash_string("abc") == dpt_hash_bytes("abc", 3));
}

static void ragged_feeds_equal_one_shot(void **state) {
    (void)state;
    fill();
    static const size_t lengths[] = {0, 1, 16, 17, 128, 129, 240, 241, 255, 256, 1024, 1025, 99999};
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        dpt_hash hash;
        dpt_hash_begin(&hash);
        size_t at = 0;
        for (size_t step = 1; at < lengths[l]; step = step * 3 + 1) {
            size_t n = step < lengths[l] - at ? step : lengths[l] - at;
            dpt_hash_update(&hash, data + at, n);
            at += n;
            assert_true(dpt_hash_value(&hash) == dpt_hash_bytes(data, at));
        }
        assert_true(dpt_hash_value(&hash) == dpt_hash_bytes(data, lengths[l]));
    }
}

static void state_moves_through_bytes(void **state) {
    (void)state;
    fill();
    dpt_hash hash;
    dpt_hash_begin(&hash);
    dpt_hash_update(&hash, data, 777);
    unsigned char bytes[sizeof hash];
    memcpy(bytes, &hash, sizeof hash);
    memset(&hash, 0xff, sizeof hash);
    dpt_hash other;
    memcpy(&other, bytes, sizeof other);
    dpt_hash_update(&other, data + 777, BYTES - 777);
    assert_true(dpt_hash_value(&other) == dpt_hash_bytes(data, BYTES));
}

/* Each rank feeds its share and hands the state to the next. */
static void state_moves_between_ranks(void **state) {
    (void)state;
    fill();
    dpt_hash hash;
    dpt_hash_begin(&hash);
    size_t share = BYTES / (size_t)test_comm.size;
    for (int r = 0; r < test_comm.size; r++) {
        size_t from = share * (size_t)r;
        size_t to = r + 1 == test_comm.size ? BYTES : from + share;
        if (r == test_comm.rank)
            dpt_hash_update(&hash, data + from, to - from);
        assert_int_equal(dpt_comm_broadcast(&test_comm, &hash, sizeof hash, r), DPT_OK);
    }
    assert_true(dpt_hash_value(&hash) == dpt_hash_bytes(data, BYTES));
}

static void sha256_hex(const void *bytes, size_t n, size_t step, char hex[65]) {
    unsigned char digest[32];
    dpt_sha256 hash;
    dpt_sha256_begin(&hash);
    for (size_t at = 0; at < n; at += step)
        dpt_sha256_update(&hash, (const char *)bytes + at, step < n - at ? step : n - at);
    dpt_sha256_end(&hash, digest);
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

/* Examples of FIPS 180-4 and of NIST's test vectors. */
static void sha256_of_known_texts(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"}};
    char hex[65];
    for (int i = 0; i < 3; i++) {
        sha256_hex(cases[i][0], strlen(cases[i][0]), 1 + (size_t)i, hex);
        assert_string_equal(hex, cases[i][1]);
    }
    static char a[1000000];
    memset(a, 'a', sizeof a);
    for (size_t step = 1; step < sizeof a; step = 37 * step + 26) {
        sha256_hex(a, sizeof a, step, hex);
        assert_string_equal(hex,
                            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(ragged_feeds_equal_one_shot),
        cmocka_unit_test(state_moves_through_bytes),
        cmocka_unit_test(state_moves_between_ranks),
        cmocka_unit_test(sha256_of_known_texts),
    };
    return test_mpi_main(argc, argv, tests);
}

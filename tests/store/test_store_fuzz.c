/* ranks: 1 */
#include "store_models.h"

/* Random damage to the headers of good files: opening and reading must end with OK or an input
 * error that names the file, whatever the bytes are. DPT_FUZZ_ROUNDS and DPT_FUZZ_SEED change the
 * amount and the course. */

static uint64_t fuzz_state = 88172645463325252u;

static uint64_t fuzz_next(void) {
    fuzz_state ^= fuzz_state << 13;
    fuzz_state ^= fuzz_state >> 7;
    fuzz_state ^= fuzz_state << 17;
    return fuzz_state;
}

static long setting(const char *name, long default_value) {
    const char *text = getenv(name);
    return text != NULL ? strtol(text, NULL, 10) : default_value;
}

typedef struct image {
    unsigned char *bytes;
    size_t n;
} image;

static image load(const char *path) {
    image whole = {.bytes = NULL};
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    whole.n = (size_t)ftell(file);
    rewind(file);
    whole.bytes = malloc(whole.n);
    assert_int_equal(fread(whole.bytes, 1, whole.n, file), whole.n);
    fclose(file);
    return whole;
}

static void save(const char *path, const unsigned char *bytes, size_t n) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

/* Flip, replace, repeat or cut somewhere in the first `limit` bytes. */
static size_t damage(const image *good, unsigned char *bytes, size_t limit) {
    static const unsigned char favourites[] = {0, 0xff, 0x7f, 0x80, '"', '{', '}', ',', '9', '-'};
    memcpy(bytes, good->bytes, good->n);
    int times = 1 + (int)(fuzz_next() % 6);
    for (int i = 0; i < times; i++) {
        size_t at = fuzz_next() % limit;
        switch (fuzz_next() % 4) {
        case 0:
            bytes[at] ^= (unsigned char)(1u << (fuzz_next() % 8));
            break;
        case 1:
            bytes[at] = favourites[fuzz_next() % sizeof favourites];
            break;
        case 2:
            bytes[at] = (unsigned char)fuzz_next();
            break;
        default: {
            size_t n = fuzz_next() % 16;
            size_t from = fuzz_next() % limit;
            if (at + n <= limit && from + n <= limit)
                memmove(bytes + at, bytes + from, n);
        }
        }
    }
    return fuzz_next() % 8 == 0 ? fuzz_next() % good->n : good->n;
}

static void try_open(const char *path, const char *name, long round) {
    dpt_store *store = NULL;
    dpt_status st = dpt_store_open(&test_comm, path, &store);
    if (st == DPT_OK) {
        dpt_source source = dpt_store_source(store);
        for (int t = 0; t < source.catalog->count && st == DPT_OK; t++) {
            const dpt_tensor_info *info = &source.catalog->tensors[t];
            size_t bytes = (size_t)(info->numel * dpt_dtype_size(info->dtype));
            void *values = malloc(bytes + 1);
            assert_non_null(values);
            st = source.read(source.ctx, (dpt_range){.tensor = t, .n = info->numel}, values);
            free(values);
        }
        dpt_store_close(store);
    }
    if (st != DPT_OK && (st != DPT_ERR_INPUT || strstr(dpt_error_message(), name) == NULL))
        fail_msg("round %ld: status %d, message \"%s\"", round, (int)st, dpt_error_message());
    dpt_error_clear();
}

static void fuzz(const char *good_path, const char *bad_path, const char *name, size_t limit,
                 long rounds) {
    image good = load(good_path);
    unsigned char *bytes = malloc(good.n);
    if (limit > good.n)
        limit = good.n;
    fuzz_state = 88172645463325252u + (uint64_t)setting("DPT_FUZZ_SEED", 0);
    for (long i = 0; i < rounds; i++) {
        save(bad_path, bytes, damage(&good, bytes, limit));
        try_open(bad_path, name, i);
    }
    free(bytes);
    free(good.bytes);
}

static void make_good(const char *name, dpt_store_format format, const dpt_store *companions) {
    dpt_catalog catalog;
    models_make_catalog(&catalog, 10);
    dpt_store_options options = {.format = format,
                                 .config = "{\"model_type\":\"x\"}",
                                 .provenance = "{\"a\":\"b\"}",
                                 .companions = companions};
    assert_int_equal(models_write(&catalog, models_path(name), &options), DPT_OK);
    dpt_catalog_destroy(&catalog);
}

static void test_safetensors(void **state) {
    (void)state;
    models_make_root("fuzz");
    make_good("good", DPT_STORE_SAFETENSORS, NULL);
    fuzz(models_path("good/model.safetensors"), models_path("bad.safetensors"), "bad.safetensors",
         1500, setting("DPT_FUZZ_ROUNDS", 3000));
    models_remove_root();
}

static void test_hdf5(void **state) {
    (void)state;
    models_make_root("fuzz");
    make_good("good", DPT_STORE_SAFETENSORS, NULL);
    save(models_path("good/tokenizer.json"), (const unsigned char *)"{}", 2);
    save(models_path("good/merges.txt"), (const unsigned char *)"a b", 3);
    dpt_store *store = NULL;
    assert_int_equal(dpt_store_open(&test_comm, models_path("good"), &store), DPT_OK);
    make_good("good.h5", DPT_STORE_HDF5, store);
    dpt_store_close(store);
    setenv("DPT_ISOLATE_SECONDS", "1", 0);
    fuzz(models_path("good.h5"), models_path("bad.h5"), "bad.h5", 1 << 20,
         setting("DPT_FUZZ_ROUNDS", 1000));
    models_remove_root();
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_safetensors),
                                       cmocka_unit_test(test_hdf5)};
    return test_mpi_main(argc, argv, tests);
}

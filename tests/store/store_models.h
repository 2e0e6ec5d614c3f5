#ifndef DELTAPATH_TESTS_STORE_MODELS_H
#define DELTAPATH_TESTS_STORE_MODELS_H

/* Small models for the tests of the store, and the way through a sink. */

#include "support/test_mpi.h"

#include "deltapath/base/hash.h"
#include "deltapath/store/store.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char models_root[256];

/* A directory for the files of this test, the same on all ranks. */
static void models_make_root(const char *name) {
    int pid = (int)getpid();
    MPI_Bcast(&pid, 1, MPI_INT, 0, MPI_COMM_WORLD);
    const char *base = getenv("TMPDIR");
    snprintf(models_root, sizeof models_root, "%s/deltapath-%s-%d", base != NULL ? base : "/tmp",
             name, pid);
    if (test_comm.rank == 0)
        mkdir(models_root, 0777);
    MPI_Barrier(MPI_COMM_WORLD);
}

static void models_remove_root(void) {
    MPI_Barrier(MPI_COMM_WORLD);
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", models_root);
    if (test_comm.rank == 0 && system(command) != 0)
        fprintf(stderr, "%s is left behind\n", models_root);
}

/* Setup and teardown of a test that works in such a directory. */
static inline int models_setup(void **state) {
    (void)state;
    models_make_root(program_invocation_short_name);
    return 0;
}

static inline int models_teardown(void **state) {
    (void)state;
    models_remove_root();
    return 0;
}

static const char *models_path(const char *name) {
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", models_root, name);
    return path[turn];
}

/* Tensors of every type, a scalar, empty ones, and one of several cells. */
static inline void models_make_catalog(dpt_catalog *catalog, int64_t large) {
    const int64_t two[] = {37, 53}, one[] = {129}, empty[] = {0, 4}, big[] = {large, 3};
    dpt_catalog_init(catalog);
    assert_int_equal(dpt_catalog_add(catalog, "model.norm.weight", DPT_F32, 1, one), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "model.layers.0.w", DPT_BF16, 2, two), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "model.layers.1.w", DPT_F16, 2, two), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "big", DPT_BF16, 2, big), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "another.big", DPT_F32, 2, big), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "scalar", DPT_F32, 0, NULL), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "empty", DPT_F16, 2, empty), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "ids", DPT_I64, 1, one), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "ids32", DPT_I32, 1, one), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "ids16", DPT_I16, 1, one), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "bytes", DPT_U8, 1, one), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "signed", DPT_I8, 1, one), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "mask", DPT_BOOL, 1, one), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "double", DPT_F64, 2, two), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "fp8a", DPT_F8_E4M3, 2, two), DPT_OK);
    assert_int_equal(dpt_catalog_add(catalog, "fp8b", DPT_F8_E5M2, 2, two), DPT_OK);
    assert_int_equal(dpt_catalog_sort(catalog), DPT_OK);
}

/* Bytes that depend on tensor and place alone. */
static inline void models_fill(const dpt_catalog *catalog, dpt_range range, unsigned char *out) {
    int64_t size = dpt_dtype_size(catalog->tensors[range.tensor].dtype);
    for (int64_t i = 0; i < range.n * size; i++) {
        uint64_t at = (uint64_t)(range.ig * size + i);
        uint64_t mixed = (at + (uint64_t)range.tensor * 1315423911u) * 0x9E3779B97F4A7C15u;
        out[i] = catalog->tensors[range.tensor].dtype == DPT_BOOL ? (unsigned char)(mixed >> 63)
                                                                  : (unsigned char)(mixed >> 56);
    }
}

/* Write all own cells in order. */
static inline dpt_status models_write_cells(const dpt_catalog *catalog, const dpt_shard *shard,
                                            dpt_sink sink) {
    unsigned char *buffer = malloc(8 * (size_t)DPT_CELL);
    dpt_status st = DPT_OK;
    for (int64_t c = shard->rank_first[test_comm.rank];
         c < shard->rank_first[test_comm.rank + 1] && st == DPT_OK; c++) {
        dpt_range range = dpt_shard_cell(shard, c);
        models_fill(catalog, range, buffer);
        st = sink.write(sink.ctx, range, buffer);
    }
    free(buffer);
    return st;
}

static inline dpt_status models_write(const dpt_catalog *catalog, const char *path,
                                      const dpt_store_options *options) {
    dpt_shard shard;
    dpt_store_writer *writer = NULL;
    dpt_store_options known = *options;
    if (known.provenance == NULL)
        known.provenance = "{\"program\": \"deltapath\"}";
    dpt_guard_clear(); /* tests replace what they have read */
    assert_int_equal(dpt_shard_create(catalog, test_comm.size, &shard), DPT_OK);
    dpt_status st = dpt_store_create(&test_comm, path, catalog, &shard, &known, &writer);
    if (st == DPT_OK)
        st = dpt_store_finish(writer,
                              models_write_cells(catalog, &shard, dpt_store_writer_sink(writer)));
    dpt_shard_destroy(&shard);
    return st;
}

/* Open, compare catalog, bytes and hashes with what models_fill says. */
static inline void models_check(const dpt_catalog *catalog, const char *path) {
    dpt_store *store = NULL;
    dpt_status st = dpt_store_open(&test_comm, path, &store);
    if (st != DPT_OK)
        print_message("%s\n", dpt_error_message());
    assert_int_equal(st, DPT_OK);
    const dpt_catalog *got = dpt_store_catalog(store);
    assert_int_equal(got->count, catalog->count);
    dpt_source source = dpt_store_source(store);
    for (int t = 0; t < catalog->count; t++) {
        const dpt_tensor_info *a = &catalog->tensors[t];
        const dpt_tensor_info *b = &got->tensors[t];
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->dtype, b->dtype);
        assert_int_equal(a->ndim, b->ndim);
        for (int i = 0; i < a->ndim; i++)
            assert_int_equal(a->shape[i], b->shape[i]);
        size_t bytes = (size_t)(a->numel * dpt_dtype_size(a->dtype));
        unsigned char *want = malloc(bytes + 1);
        unsigned char *have = malloc(bytes + 1);
        dpt_range range = {.tensor = t, .ig = 0, .n = a->numel};
        models_fill(catalog, range, want);
        assert_int_equal(source.read(source.ctx, range, have), DPT_OK);
        assert_memory_equal(want, have, bytes);
        uint64_t hash = 0;
        assert_true(dpt_store_stored_hash(store, t, &hash));
        assert_true(hash == dpt_hash_bytes(want, bytes));
        free(want);
        free(have);
    }
    dpt_store_close(store);
}

#endif

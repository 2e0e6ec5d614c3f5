#ifndef DELTAPATH_TESTS_STORE_STORE_AGAIN_H
#define DELTAPATH_TESTS_STORE_STORE_AGAIN_H

/* A checkpoint of the program once more, its data sets in chunks, through filters, and compact. */

#include "store_models.h"

#include "deltapath/base/mem.h"

#include <hdf5.h>

enum { LARGE = 400000, FILTER = 300 };

typedef struct storing {
    const char *label;
    bool deflate, shuffle, fletcher, compact;
    int64_t side; /* of a chunk, in each dimension; ragged at the ends */
    H5Z_filter_t own;
} storing;

static const storing ways[] = {
    {.label = "chunks", .side = 10},
    {.label = "deflate", .side = 16, .deflate = true},
    {.label = "all filters", .side = 7, .shuffle = true, .deflate = true, .fletcher = true},
    {.label = "compact", .side = 50, .compact = true}};
enum { WAYS = sizeof ways / sizeof ways[0] };

static inline hid_t creation_of(const storing *how, int ndim, const hsize_t *sides, int64_t bytes) {
    hsize_t chunk[H5S_MAX_RANK];
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    if (bytes == 0 || ndim == 0 || (how->compact && bytes < 60000)) {
        if (how->compact && bytes > 0)
            assert_true(H5Pset_layout(plist, H5D_COMPACT) >= 0);
        return plist;
    }
    for (int d = 0; d < ndim; d++)
        chunk[d] = (hsize_t)how->side < sides[d] ? (hsize_t)how->side : sides[d];
    if (sides[0] > 100000)
        chunk[0] = 30011;
    assert_true(H5Pset_chunk(plist, ndim, chunk) >= 0);
    if (how->shuffle)
        assert_true(H5Pset_shuffle(plist) >= 0);
    if (how->deflate)
        assert_true(H5Pset_deflate(plist, 1) >= 0);
    if (how->fletcher)
        assert_true(H5Pset_fletcher32(plist) >= 0);
    if (how->own != 0)
        assert_true(H5Pset_filter(plist, how->own, H5Z_FLAG_MANDATORY, 0, NULL) >= 0);
    return plist;
}

static inline void copy_attributes(hid_t from, hid_t to, const char *name) {
    hid_t a = H5Aopen(from, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(a), space = H5Aget_space(a);
    uint64_t value = 0;
    hid_t b = H5Acreate2(to, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Aread(a, type, &value) >= 0 && H5Awrite(b, type, &value) >= 0);
    H5Aclose(a);
    H5Aclose(b);
    H5Sclose(space);
    H5Tclose(type);
}

static inline void copy_set(hid_t from, hid_t to, const char *name, const storing *how) {
    hsize_t sides[H5S_MAX_RANK] = {0};
    hid_t old = H5Dopen2(from, name, H5P_DEFAULT);
    hid_t type = H5Dget_type(old), space = H5Dget_space(old);
    int ndim = H5Sget_simple_extent_dims(space, sides, NULL);
    int64_t bytes = (int64_t)H5Sget_simple_extent_npoints(space) * (int64_t)H5Tget_size(type);
    hid_t plist = creation_of(how, ndim, sides, bytes);
    hid_t new = H5Dcreate2(to, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    char *values = malloc((size_t)bytes + 1);
    assert_true(new >= 0);
    assert_true(H5Dread(old, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    if (bytes > 0)
        assert_true(H5Dwrite(new, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    if (H5Aexists(old, "xxh3") > 0)
        copy_attributes(old, new, "xxh3");
    free(values);
    H5Pclose(plist);
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(old);
    H5Dclose(new);
}

static inline void root_attributes(hid_t file) {
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, 21);
    hid_t format = H5Acreate2(file, "format", type, space, H5P_DEFAULT, H5P_DEFAULT);
    hid_t version = H5Acreate2(file, "version", H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT);
    int one = 1;
    assert_true(H5Awrite(format, type, "deltapath-checkpoint") >= 0);
    assert_true(H5Awrite(version, H5T_NATIVE_INT, &one) >= 0);
    H5Aclose(format);
    H5Aclose(version);
    H5Sclose(space);
    H5Tclose(type);
}

static const char *const companions[] = {"LICENSE.txt", "merges.txt", "tokenizer.json"};
static const size_t companion_bytes[] = {4, 0, 2500001};

static inline void copy_companions(hid_t from, hid_t to, const storing *how) {
    hid_t a = H5Gopen2(from, "companions", H5P_DEFAULT);
    hid_t b = H5Gcreate2(to, "companions", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    for (int i = 0; i < 3; i++)
        copy_set(a, b, companions[i], how);
    H5Gclose(a);
    H5Gclose(b);
}

static inline void store_again(const dpt_catalog *catalog, const char *from, const char *to,
                               const storing *how) {
    if (test_comm.rank == 0) {
        hid_t old = H5Fopen(from, H5F_ACC_RDONLY, H5P_DEFAULT);
        hid_t new = H5Fcreate(to, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(old >= 0 && new >= 0);
        root_attributes(new);
        hid_t a = H5Gopen2(old, "tensors", H5P_DEFAULT);
        hid_t b = H5Gcreate2(new, "tensors", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        for (int t = 0; t < catalog->count; t++)
            copy_set(a, b, catalog->tensors[t].name, how);
        H5Gclose(a);
        H5Gclose(b);
        if (H5Lexists(old, "companions", H5P_DEFAULT) > 0)
            copy_companions(old, new, how);
        H5Fclose(old);
        H5Fclose(new);
    }
    MPI_Barrier(test_comm.mpi);
}

/* Runs that begin and end anywhere in a tensor. */
static inline void check_runs(const dpt_catalog *catalog, dpt_store *store) {
    dpt_source source = dpt_store_source(store);
    for (int t = 0; t < catalog->count; t++) {
        int64_t numel = catalog->tensors[t].numel, size = dpt_dtype_size(catalog->tensors[t].dtype);
        for (int64_t ig = test_comm.rank; ig < numel; ig += numel / 7 + 3) {
            int64_t n = (ig * 31 + 17) % (numel - ig) + 1;
            unsigned char *want = malloc((size_t)(n * size)), *have = malloc((size_t)(n * size));
            dpt_range range = {.tensor = t, .ig = ig, .n = n};
            models_fill(catalog, range, want);
            assert_int_equal(source.read(source.ctx, range, have), DPT_OK);
            assert_memory_equal(want, have, (size_t)(n * size));
            free(want);
            free(have);
        }
    }
}

static inline void make_catalog(dpt_catalog *catalog) {
    const int64_t deep[] = {5, 7, 11, 13};
    models_make_catalog(catalog, LARGE);
    assert_int_equal(dpt_catalog_add(catalog, "deep", DPT_BF16, 4, deep), DPT_OK);
    assert_int_equal(dpt_catalog_sort(catalog), DPT_OK);
}

/* Written by the program, so that hashes stand in the file. */
static inline void begin(dpt_catalog *catalog, char *plain, size_t size) {
    dpt_store_options options = {.format = DPT_STORE_HDF5};
    make_catalog(catalog);
    snprintf(plain, size, "%s", models_path("plain.h5"));
    if (test_comm.rank == 0)
        unlink(plain);
    assert_int_equal(models_write(catalog, plain, &options), DPT_OK);
}

static inline void flip_in_chunk(const char *path, const char *name, hsize_t chunk) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    hid_t space = H5Dget_space(set);
    hsize_t at[2], bytes = 0;
    haddr_t where = 0;
    unsigned filters = 0;
    assert_true(H5Dget_chunk_info(set, space, chunk, at, &filters, &where, &bytes) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
    FILE *raw = fopen(path, "r+b");
    fseek(raw, (long)where + (long)bytes / 2, SEEK_SET);
    int old = fgetc(raw);
    fseek(raw, (long)where + (long)bytes / 2, SEEK_SET);
    fputc(old ^ 0xff, raw);
    fclose(raw);
}

/* What HDF5 1.10 says, or 1.14, which says no more of a filter. */
static inline bool said(const char *why) {
    return strstr(dpt_error_message(), why) != NULL ||
           strstr(dpt_error_message(), "filter returned failure") != NULL;
}

/** A model in `path` (size) stored as `how` says, a byte of a chunk of another.big another. Collective over test_comm. */
static inline void store_damaged(dpt_catalog *catalog, char *path, size_t size,
                                 const storing *how) {
    char plain[512];
    begin(catalog, plain, sizeof plain);
    snprintf(path, size, "%s/damaged.h5", models_root);
    store_again(catalog, plain, path, how);
    if (test_comm.rank == 0)
        flip_in_chunk(path, "tensors/another.big", 5);
    MPI_Barrier(test_comm.mpi);
}

#endif

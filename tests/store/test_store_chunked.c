/* ranks: 1 2 3 4 */
#include "store_models.h"

#include "deltapath/base/file.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/traffic.h"
#include "deltapath/verbs/convert.h"

#include <hdf5.h>

/* Tensors and companion files in chunks, through filters, and compact: the same bytes as in one extent. */

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

static hid_t creation_of(const storing *how, int ndim, const hsize_t *sides, int64_t bytes) {
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

static void copy_attributes(hid_t from, hid_t to, const char *name) {
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

static void copy_set(hid_t from, hid_t to, const char *name, const storing *how) {
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

static void root_attributes(hid_t file) {
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

static void copy_companions(hid_t from, hid_t to, const storing *how) {
    hid_t a = H5Gopen2(from, "companions", H5P_DEFAULT);
    hid_t b = H5Gcreate2(to, "companions", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    for (int i = 0; i < 3; i++)
        copy_set(a, b, companions[i], how);
    H5Gclose(a);
    H5Gclose(b);
}

static void store_again(const dpt_catalog *catalog, const char *from, const char *to,
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
static void check_runs(const dpt_catalog *catalog, dpt_store *store) {
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

static void check_runs_of(const dpt_catalog *catalog, const char *path) {
    dpt_store *store = NULL;
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
    check_runs(catalog, store);
    dpt_store_close(store);
}

static void make_catalog(dpt_catalog *catalog) {
    const int64_t deep[] = {5, 7, 11, 13};
    models_make_catalog(catalog, LARGE);
    assert_int_equal(dpt_catalog_add(catalog, "deep", DPT_BF16, 4, deep), DPT_OK);
    assert_int_equal(dpt_catalog_sort(catalog), DPT_OK);
}

/* Written by the program, so that hashes stand in the file. */
static void begin(dpt_catalog *catalog, char *plain, size_t size) {
    dpt_store_options options = {.format = DPT_STORE_HDF5};
    make_catalog(catalog);
    snprintf(plain, size, "%s", models_path("plain.h5"));
    if (test_comm.rank == 0)
        unlink(plain);
    assert_int_equal(models_write(catalog, plain, &options), DPT_OK);
}

static void test_same_bytes(void **state) {
    (void)state;
    dpt_catalog catalog;
    char plain[512], path[512];
    begin(&catalog, plain, sizeof plain);
    for (int i = 0; i < WAYS; i++) {
        snprintf(path, sizeof path, "%s/again-%d.h5", models_root, i);
        store_again(&catalog, plain, path, &ways[i]);
        models_check(&catalog, path);
        check_runs_of(&catalog, path);
        assert_int_equal(dpt_store_verify(&test_comm, path, NULL, NULL, NULL, NULL),
                         DPT_ERR_INPUT); /* values of all bit patterns: NaN among them */
        assert_non_null(strstr(dpt_error_message(), "NaN"));
        dpt_error_clear();
    }
    dpt_catalog_destroy(&catalog);
}

/* Own cells, and whether they came from memory. */
static void check_cells(dpt_store *store, const dpt_shard *shard, const bool *held) {
    const dpt_catalog *catalog = shard->catalog;
    dpt_source source = dpt_store_source(store);
    for (int64_t c = shard->rank_first[test_comm.rank]; c < shard->rank_first[test_comm.rank + 1];
         c++) {
        dpt_range cell = dpt_shard_cell(shard, c);
        size_t bytes = (size_t)(cell.n * dpt_dtype_size(catalog->tensors[cell.tensor].dtype));
        unsigned char *want = malloc(bytes), *have = malloc(bytes);
        models_fill(catalog, cell, want);
        int64_t before = dpt_file_counted().read;
        assert_int_equal(source.read(source.ctx, cell, have), DPT_OK);
        assert_int_equal(dpt_file_counted().read - before, held[cell.tensor] ? 0 : bytes);
        assert_memory_equal(want, have, bytes);
        free(want);
        free(have);
    }
}

/* A model is read by all ranks together, but for every fourth tensor. */
static void check_together(const dpt_catalog *catalog, const char *path, dpt_store_reading how,
                           const char *label) {
    bool wanted[64], held[64];
    dpt_store *store = NULL;
    dpt_shard shard;
    dpt_store_hold_needs needs;
    int64_t sum = 0;
    assert_int_equal(dpt_shard_create(catalog, test_comm.size, &shard), DPT_OK);
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
    for (int t = 0; t < catalog->count; t++) {
        wanted[t] = t % 4 != 3;
        held[t] = wanted[t] && dpt_store_holds(store, how, catalog, NULL, t);
        sum += held[t] ? catalog->tensors[t].numel * dpt_dtype_size(catalog->tensors[t].dtype) : 0;
    }
    const dpt_store_holding what = {.how = how, .shard = &shard, .wanted = wanted};
    assert_int_equal(dpt_store_hold_bytes(store, &what, &needs), DPT_OK);
    assert_int_equal(needs.read, sum);
    int64_t before = dpt_file_counted().read;
    dpt_status st = dpt_store_hold(store, &test_comm, &what);
    if (st != DPT_OK)
        fail_msg("%s: %s", label, dpt_error_message());
    int64_t taken = dpt_file_counted().read - before;
    MPI_Allreduce(MPI_IN_PLACE, &taken, 1, MPI_INT64_T, MPI_SUM, test_comm.mpi);
    assert_int_equal(taken, sum); /* each element once */
    if (how == DPT_STORE_TOGETHER)
        assert_true(sum > LARGE);
    check_cells(store, &shard, held);
    check_runs(catalog, store);
    dpt_store_close(store);
    dpt_shard_destroy(&shard);
}

static void test_together(void **state) {
    (void)state;
    dpt_catalog catalog;
    char plain[512], path[512];
    begin(&catalog, plain, sizeof plain);
    for (int how = DPT_STORE_ALONE; how <= DPT_STORE_TOGETHER; how++)
        check_together(&catalog, plain, (dpt_store_reading)how, "contiguous");
    for (int i = 0; i < WAYS; i++) {
        snprintf(path, sizeof path, "%s/together-%d.h5", models_root, i);
        store_again(&catalog, plain, path, &ways[i]);
        check_together(&catalog, path, DPT_STORE_CHUNKS, ways[i].label);
        check_together(&catalog, path, DPT_STORE_TOGETHER, ways[i].label);
    }
    dpt_catalog_destroy(&catalog);
}

static void flip_in_chunk(const char *path, const char *name, hsize_t chunk) {
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

static unsigned char companion_byte(int which, size_t i) {
    return (unsigned char)((i + (size_t)which) * 2654435761u >> 13);
}

/* A folder with companions, and an HDF5 checkpoint of it. */
static void make_companions(dpt_catalog *catalog, char *folder, char *file, size_t size) {
    dpt_store_options options = {.format = DPT_STORE_SAFETENSORS};
    const dpt_convert_options to = {.source = folder, .target = file};
    snprintf(folder, size, "%s", models_path("from"));
    snprintf(file, size, "%s", models_path("from.h5"));
    models_make_catalog(catalog, 10);
    assert_int_equal(models_write(catalog, folder, &options), DPT_OK);
    for (int c = 0; c < 3 && test_comm.rank == 0; c++) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", folder, companions[c]);
        FILE *out = fopen(path, "wb");
        for (size_t i = 0; i < companion_bytes[c]; i++)
            fputc(companion_byte(c, i), out);
        fclose(out);
    }
    MPI_Barrier(test_comm.mpi);
    assert_int_equal(dpt_convert_run(&test_comm, &to), DPT_OK);
}

/* Converted to a folder again, they have the bytes that they had. */
static void check_companions(const char *path, const char *folder) {
    const dpt_convert_options options = {.source = path, .target = folder};
    dpt_store *store = NULL;
    int64_t bytes;
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
    assert_int_equal(dpt_store_companion_count(store), 3);
    for (int c = 0; c < 3; c++) {
        assert_string_equal(dpt_store_companion_at(store, c, &bytes), companions[c]);
        assert_int_equal(bytes, companion_bytes[c]);
    }
    dpt_store_close(store);
    assert_int_equal(dpt_convert_run(&test_comm, &options), DPT_OK);
    for (int c = 0; c < 3; c++) {
        char copy[600];
        snprintf(copy, sizeof copy, "%s/%s", folder, companions[c]);
        FILE *in = fopen(copy, "rb");
        assert_non_null(in);
        for (size_t i = 0; i < companion_bytes[c]; i++)
            if (fgetc(in) != companion_byte(c, i))
                fail_msg("byte %zu of %s differs", i, copy);
        assert_int_equal(fgetc(in), EOF);
        fclose(in);
    }
}

static void test_companions(void **state) {
    (void)state;
    static const storing all[] = {{.side = 1000, .deflate = true},
                                  {.side = 3000000, .shuffle = true, .deflate = true},
                                  {.side = 77777, .fletcher = true},
                                  {.side = 50, .compact = true}};
    dpt_catalog catalog;
    char plain[512], folder[512], path[512], back[512];
    make_companions(&catalog, folder, plain, sizeof plain);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        dpt_store *store = NULL;
        char *name = NULL;
        snprintf(path, sizeof path, "%s/companions-%zu.h5", models_root, i);
        snprintf(back, sizeof back, "%s/back-%zu", models_root, i);
        store_again(&catalog, plain, path, &all[i]);
        check_companions(path, back);
        assert_int_equal(dpt_store_open(&test_comm, folder, &store), DPT_OK);
        assert_int_equal(dpt_store_compare_companions(store, path, &name), DPT_OK);
        assert_null(name);
        dpt_store_close(store);
    }
    dpt_catalog_destroy(&catalog);
}

/* A chunk of a companion that is damaged: no file is made of it. */
static void test_damaged_companion(void **state) {
    (void)state;
    const storing how = {.side = 100000, .deflate = true};
    dpt_catalog catalog;
    char plain[512], folder[512], path[512];
    make_companions(&catalog, folder, plain, sizeof plain);
    snprintf(path, sizeof path, "%s", models_path("damaged.h5"));
    store_again(&catalog, plain, path, &how);
    if (test_comm.rank == 0)
        flip_in_chunk(path, "companions/tokenizer.json", 5);
    MPI_Barrier(test_comm.mpi);
    const dpt_convert_options options = {.source = path, .target = models_path("back")};
    assert_int_equal(dpt_convert_run(&test_comm, &options), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "reading companion file tokenizer.json"));
    dpt_error_clear();
    assert_int_not_equal(access(models_path("back"), F_OK), 0);
    dpt_catalog_destroy(&catalog);
}

/* What HDF5 1.10 says, or 1.14, which says no more of a filter. */
static bool said(const char *why) {
    return strstr(dpt_error_message(), why) != NULL ||
           strstr(dpt_error_message(), "filter returned failure") != NULL;
}

/* One rank finds a damage: all hear of it. */
static void check_together_fails(const dpt_catalog *catalog, const char *path, const char *why) {
    bool wanted[64];
    dpt_store *store = NULL;
    dpt_shard shard;
    assert_int_equal(dpt_shard_create(catalog, test_comm.size, &shard), DPT_OK);
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
    for (int t = 0; t < catalog->count; t++)
        wanted[t] = true;
    const dpt_store_holding what = {.how = DPT_STORE_CHUNKS, .shard = &shard, .wanted = wanted};
    assert_int_equal(dpt_store_hold(store, &test_comm, &what), DPT_ERR_INPUT);
    if (!said(why) || strstr(dpt_error_message(), "another.big") == NULL)
        fail_msg("together: %s", dpt_error_message());
    dpt_error_clear();
    dpt_store_close(store);
    dpt_shard_destroy(&shard);
}

/* A byte of a chunk that is another: what HDF5 says, or the hash of the tensor. */
static void test_damage(void **state) {
    (void)state;
    static const storing how[] = {
        {.side = 64, .deflate = true}, {.side = 64, .fletcher = true}, {.side = 64}};
    static const char *const why[] = {"inflate", "Fletcher32", "XXH3"};
    for (int i = 0; i < 3; i++) {
        dpt_catalog catalog;
        char plain[512], path[512];
        begin(&catalog, plain, sizeof plain);
        snprintf(path, sizeof path, "%s/damaged-%d.h5", models_root, i);
        store_again(&catalog, plain, path, &how[i]);
        if (test_comm.rank == 0)
            flip_in_chunk(path, "tensors/another.big", 5);
        MPI_Barrier(test_comm.mpi);
        assert_int_equal(dpt_store_verify(&test_comm, path, NULL, NULL, NULL, NULL), DPT_ERR_INPUT);
        if (!said(why[i]) && strstr(dpt_error_message(), "NaN") == NULL)
            fail_msg("damage %d: %s", i, dpt_error_message());
        if (i < 2)
            assert_non_null(strstr(dpt_error_message(), "another.big"));
        dpt_error_clear();
        if (i < 2)
            check_together_fails(&catalog, path, why[i]);
        dpt_catalog_destroy(&catalog);
    }
}

static size_t pass_on(unsigned flags, size_t count, const unsigned *values, size_t bytes,
                      size_t *room, void **data) {
    (void)flags, (void)count, (void)values, (void)room, (void)data;
    return bytes;
}

/* A filter that is not installed where the file is read. */
static void test_missing_filter(void **state) {
    (void)state;
    const H5Z_class2_t class = {.version = H5Z_CLASS_T_VERS,
                                .id = FILTER,
                                .encoder_present = 1,
                                .decoder_present = 1,
                                .name = "squeeze",
                                .filter = pass_on};
    const storing how = {.side = 32, .own = FILTER};
    dpt_catalog catalog;
    dpt_store *store = NULL;
    char plain[512], path[512];
    begin(&catalog, plain, sizeof plain);
    snprintf(path, sizeof path, "%s", models_path("filtered.h5"));
    assert_true(H5Zregister(&class) >= 0);
    store_again(&catalog, plain, path, &how);
    models_check(&catalog, path); /* installed: it reads */
    assert_true(H5Zunregister(FILTER) >= 0);
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), path));
    assert_non_null(strstr(dpt_error_message(), "tensor another.big is compressed by HDF5 filter "
                                                "300 (squeeze)"));
    assert_non_null(strstr(dpt_error_message(), "HDF5_PLUGIN_PATH"));
    dpt_error_clear();
    dpt_catalog_destroy(&catalog);
}

/* Chunks that nobody wrote, and chunks that no memory holds. */
static void test_refused(void **state) {
    (void)state;
    const char *path = models_path("refused.h5");
    const char *const remedy[] = {"never written", "more than 1 GiB"};
    for (int i = 0; i < 2; i++) {
        if (test_comm.rank == 0) {
            const hsize_t sides[] = {1 << 16, 1 << 16}, small[] = {256, 1 << 16},
                          large[] = {1 << 15, 1 << 14};
            hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
            hid_t group = H5Gcreate2(file, "tensors", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
            hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
            hid_t space = H5Screate_simple(2, sides, NULL);
            H5Pset_chunk(plist, 2, i == 0 ? small : large);
            H5Dclose(
                H5Dcreate2(group, "a", H5T_IEEE_F32LE, space, H5P_DEFAULT, plist, H5P_DEFAULT));
            root_attributes(file);
            H5Sclose(space);
            H5Pclose(plist);
            H5Gclose(group);
            H5Fclose(file);
        }
        MPI_Barrier(test_comm.mpi);
        dpt_store *store = NULL;
        assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_ERR_INPUT);
        assert_non_null(strstr(dpt_error_message(), remedy[i]));
        dpt_error_clear();
        MPI_Barrier(test_comm.mpi);
    }
}

/* What HDF5 says of a tensor: chunks or none, and how it is compressed. */
static void check_layout(const char *path, const dpt_store_layout *layout) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t set = H5Dopen2(file, "tensors/another.big", H5P_DEFAULT);
    hid_t plist = H5Dget_create_plist(set);
    bool chunks = layout->chunk_bytes > 0 || layout->deflate > 0;
    hsize_t sides[2] = {0, 0};
    assert_int_equal(H5Pget_layout(plist), chunks ? H5D_CHUNKED : H5D_CONTIGUOUS);
    assert_int_equal(chunks ? H5Pget_chunk(plist, 2, sides) : 2, 2);
    if (chunks) {
        int64_t want = layout->chunk_bytes > 0 ? layout->chunk_bytes : 1 << 20;
        assert_int_equal(sides[0], want / 12 < LARGE ? want / 12 : LARGE);
        assert_int_equal(sides[1], 3);
    }
    assert_int_equal(H5Pget_nfilters(plist), layout->deflate > 0 ? 2 : 0);
    if (layout->deflate > 0) {
        unsigned flags = 0, level = 0;
        size_t one = 1;
        assert_true(H5Pget_filter_by_id2(plist, H5Z_FILTER_DEFLATE, &flags, &one, &level, 0, NULL,
                                         NULL) >= 0);
        assert_int_equal(level, layout->deflate - 1);
    }
    H5Pclose(plist);
    H5Dclose(set);
    H5Fclose(file);
}

/* All ways to write: the same tensors, no temporary file left, and all bytes covered. */
static void test_written(void **state) {
    (void)state;
    static const dpt_store_hint hints[] = {{"striping_factor", "2"}, {"cb_nodes", "1"}};
    static const dpt_store_layout layouts[] = {
        {.io = DPT_STORE_INDEPENDENT},
        {.io = DPT_STORE_COLLECTIVE, .nhints = 2, .hints = hints},
        {.chunk_bytes = 100000},
        {.io = DPT_STORE_INDEPENDENT, .chunk_bytes = 1 << 20},
        {.deflate = 2, .nhints = 2, .hints = hints},
        {.io = DPT_STORE_COLLECTIVE, .chunk_bytes = 64 << 20, .deflate = 10}};
    dpt_catalog catalog;
    make_catalog(&catalog);
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        char path[512];
        dpt_store_options options = {.format = DPT_STORE_HDF5, .layout = layouts[i]};
        snprintf(path, sizeof path, "%s/written-%zu.h5", models_root, i);
        assert_int_equal(models_write(&catalog, path, &options), DPT_OK);
        models_check(&catalog, path);
        check_runs_of(&catalog, path);
        if (test_comm.rank == 0) {
            check_layout(path, &layouts[i]);
            char *stage = dpt_file_temporary(path);
            assert_int_not_equal(access(stage, F_OK), 0);
            dpt_mem_free(stage);
            FILE *raw = fopen(path, "r+b"); /* the trailer covers what is in no chunk */
            fseek(raw, 700, SEEK_SET);
            int old = fgetc(raw);
            fseek(raw, 700, SEEK_SET);
            fputc(old ^ 1, raw);
            fclose(raw);
        }
        MPI_Barrier(test_comm.mpi);
        dpt_store *store = NULL;
        assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_ERR_INPUT);
        dpt_error_clear();
    }
    dpt_catalog_destroy(&catalog);
}

/* A rank that fails: nothing stays, neither the file nor the temporary one. */
static void test_given_up(void **state) {
    (void)state;
    static const dpt_store_layout layouts[] = {{.io = DPT_STORE_INDEPENDENT}, {.deflate = 2}};
    dpt_catalog catalog;
    make_catalog(&catalog);
    for (int i = 0; i < 2; i++) {
        dpt_shard shard;
        dpt_store_writer *writer = NULL;
        dpt_store_options options = {.format = DPT_STORE_HDF5, .layout = layouts[i]};
        const char *path = models_path("given-up.h5");
        assert_int_equal(dpt_shard_create(&catalog, test_comm.size, &shard), DPT_OK);
        assert_int_equal(dpt_store_create(&test_comm, path, &catalog, &shard, &options, &writer),
                         DPT_OK);
        dpt_status st = models_write_cells(&catalog, &shard, dpt_store_writer_sink(writer));
        if (test_comm.rank == test_comm.size - 1)
            st = dpt_error(DPT_ERR_INPUT, "given up");
        assert_int_equal(dpt_store_finish(writer, st), DPT_ERR_INPUT);
        dpt_error_clear();
        dpt_shard_destroy(&shard);
        if (test_comm.rank == 0) {
            DIR *folder = opendir(models_root);
            for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
                if (entry->d_name[0] != '.')
                    fail_msg("%s is left", entry->d_name);
            closedir(folder);
        }
        MPI_Barrier(test_comm.mpi);
    }
    dpt_catalog_destroy(&catalog);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_same_bytes, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_together, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_companions, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_companion, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_damage, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_missing_filter, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_refused, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_written, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_given_up, models_setup, models_teardown),
    };
    return test_mpi_main(argc, argv, tests);
}

/* ranks: 1 2 3 */
/* seconds: 600 */
/* Data-set files of each kind: what is read is what was written, on all ranks; files that lie get an
 * input error on all ranks, with the file's name; damaged bytes never end the program. */
#include "dataset_files.h"

#include "deltapath/results/reference_cache.h"
#include "deltapath/data/dataset.h"

#include <math.h>
#include <string.h>

enum { N = 5, C = 2, H = 3, W = 4, PIXELS = C * H * W };

static const int32_t labels[N] = {3, 0, 7, 7, 1};
static const double weights[N] = {1.0, 0.0, 2.5, 0.5, 1.0};
static const int64_t clusters[N] = {-4, (int64_t)1 << 40, -4, 7, (int64_t)1 << 40};
static const int64_t numbers[N] = {0, 1, 0, 2, 1};

static float pixel(int64_t i) {
    return (float)i * 0.25F - 3.0F;
}

/* What a case changes in a sound file; NULL: nothing. */
typedef void (*change_fn)(hid_t file);

static void write_images(change_fn change) {
    MPI_Barrier(MPI_COMM_WORLD); /* nobody has the old file open */
    if (test_comm.rank == 0) {
        float images[N * PIXELS];
        const hsize_t dims[4] = {N, C, H, W};
        for (int i = 0; i < N * PIXELS; i++)
            images[i] = pixel(i);
        hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        put(file, "images", H5T_NATIVE_FLOAT, 4, dims, images);
        put1(file, "labels", H5T_NATIVE_INT32, N, labels);
        put1(file, "weights", H5T_NATIVE_DOUBLE, N, weights);
        put1(file, "cluster", H5T_NATIVE_INT64, N, clusters);
        if (change != NULL)
            change(file);
        H5Fclose(file);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

static const int64_t ends[2][4] = {{0, 3, 5, 9}, {0, 2, 6, 8}};
static const uint8_t mask[9] = {0, 1, 1, 0, 1, 0, 1, 1, 1};

static int32_t token(int side, int64_t i) {
    return (int32_t)(100 * side + i);
}

static void write_side(hid_t file, const char *group, int side) {
    int32_t tokens[9];
    char name[64];
    for (int i = 0; i < 9; i++)
        tokens[i] = token(side, i);
    snprintf(name, sizeof name, "%stokens", group);
    put1(file, name, H5T_NATIVE_INT32, ends[side][3], tokens);
    snprintf(name, sizeof name, "%sloss_mask", group);
    put1(file, name, H5T_NATIVE_UINT8, ends[side][3], mask);
    snprintf(name, sizeof name, "%soffsets", group);
    put1(file, name, H5T_NATIVE_INT64, 4, ends[side]);
}

static void write_pairs(change_fn change) {
    MPI_Barrier(MPI_COMM_WORLD); /* nobody has the old file open */
    if (test_comm.rank == 0) {
        hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        write_side(file, "chosen/", 0);
        write_side(file, "rejected/", 1);
        if (change != NULL)
            change(file);
        H5Fclose(file);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

static void test_images(void **state) {
    (void)state;
    dpt_dataset data;
    float out[3 * PIXELS];
    write_images(NULL);
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_IMAGES, &data), DPT_OK);
    assert_int_equal(data.samples, N);
    assert_true(data.channels == C && data.height == H && data.width == W);
    assert_memory_equal(data.labels, labels, sizeof labels);
    assert_memory_equal(data.weights, weights, sizeof weights);
    assert_memory_equal(data.clusters, numbers, sizeof numbers); /* as they first occur */
    assert_null(data.tokens);
    for (int64_t first = 0; first + 3 <= N; first++) {
        assert_int_equal(dpt_dataset_read_images(&data, first, 3, out), DPT_OK);
        for (int i = 0; i < 3 * PIXELS; i++)
            assert_true(out[i] == pixel(first * PIXELS + i));
    }
    assert_int_equal(dpt_dataset_read_images(&data, 2, 0, out), DPT_OK);
    assert_int_equal(dpt_dataset_read_images(&data, 3, 3, out), DPT_ERR_INPUT);
    dpt_error_clear();
    uint64_t hash = data.hash, all = data.hash;
    dpt_dataset_destroy(&data);
    MPI_Bcast(&all, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    assert_true(hash == all);
}

/* Images again in chunks, compressed or in another type: HDF5 puts them together. */
static void put_images(hid_t f, hid_t type, bool compressed) {
    float images[N * PIXELS];
    const hsize_t dims[4] = {N, C, H, W}, chunk[4] = {2, C, H, W};
    for (int i = 0; i < N * PIXELS; i++)
        images[i] = pixel(i);
    H5Ldelete(f, "images", H5P_DEFAULT);
    hid_t space = H5Screate_simple(4, dims, NULL), made = H5Pcreate(H5P_DATASET_CREATE);
    if (compressed) {
        H5Pset_chunk(made, 4, chunk);
        H5Pset_deflate(made, 6);
    }
    hid_t set = H5Dcreate2(f, "images", type, space, H5P_DEFAULT, made, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, images) >= 0);
    H5Dclose(set);
    H5Pclose(made);
    H5Sclose(space);
}
static void plain_images(hid_t f) {
    put_images(f, H5T_NATIVE_FLOAT, false);
}
static void packed_images(hid_t f) {
    put_images(f, H5T_NATIVE_FLOAT, true);
}
static void double_images(hid_t f) {
    put_images(f, H5T_NATIVE_DOUBLE, false);
}

/* Overwrite bytes of the file, once it is open, without changing its length. */
static void overwrite(long first, const void *bytes, size_t n) {
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_comm.rank == 0) {
        FILE *file = fopen(path, "r+b");
        assert_true(fseek(file, first, SEEK_SET) == 0 && fwrite(bytes, 1, n, file) == n);
        fclose(file);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

/* No layout changes the values. HDF5 looks at an image file in child processes alone: what is damaged
 * after the file was accepted does not matter where the images lie in one piece, and is an input error
 * where they do not, whatever HDF5 makes of it. */
static void test_layouts(void **state) {
    (void)state;
    static const change_fn layouts[] = {plain_images, packed_images, double_images};
    float out[N * PIXELS];
    char *noise = malloc(1 << 16);
    for (int l = 0; l < 3; l++) {
        dpt_dataset data;
        write_images(layouts[l]);
        assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_IMAGES, &data), DPT_OK);
        assert_int_equal(dpt_dataset_read_images(&data, 1, 4, out), DPT_OK);
        for (int i = 0; i < 4 * PIXELS; i++)
            assert_true(out[i] == pixel(PIXELS + i));
        overwrite(0, "no HDF5 file any longer", 23);
        assert_int_equal(dpt_dataset_read_images(&data, 0, N, out),
                         l == 0 ? DPT_OK : DPT_ERR_INPUT);
        for (int i = 0; l == 0 && i < N * PIXELS; i++)
            assert_true(out[i] == pixel(i));
        overwrite(0, "\x89HDF\r\n\x1a\n", 8);
        memset(noise, 0x7f, 1 << 16);
        struct stat info;
        assert_int_equal(stat(path, &info), 0);
        MPI_Barrier(MPI_COMM_WORLD);
        overwrite(96, noise, info.st_size < 1 << 16 ? (size_t)info.st_size - 96 : 1 << 15);
        dpt_status st = dpt_dataset_read_images(&data, 0, N, out);
        assert_true(st == DPT_ERR_INPUT || (l == 0 && st == DPT_OK));
        dpt_error_clear();
        dpt_dataset_destroy(&data);
    }
    free(noise);
}

static void test_pairs(void **state) {
    (void)state;
    dpt_dataset data;
    write_pairs(NULL);
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_PAIRS, &data), DPT_OK);
    assert_true(data.samples == 3 && data.sequences == 6);
    assert_null(data.weights);
    for (int s = 0; s < 6; s++) {
        int64_t at = ends[s % 2][s / 2], n = ends[s % 2][s / 2 + 1] - at;
        assert_int_equal(data.offsets[s + 1] - data.offsets[s], n);
        for (int64_t i = 0; i < n; i++) {
            assert_int_equal(data.tokens[data.offsets[s] + i], token(s % 2, at + i));
            assert_int_equal(data.loss_mask[data.offsets[s] + i], mask[at + i]);
        }
    }
    dpt_dataset_destroy(&data);
}

static void test_keep_first(void **state) {
    (void)state;
    dpt_dataset data;
    write_pairs(NULL);
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_PAIRS, &data), DPT_OK);
    uint64_t whole = data.hash;
    assert_int_equal(dpt_dataset_keep_first(&data, 3, path), DPT_OK);
    assert_true(data.hash == whole && data.samples == 3);
    assert_int_equal(dpt_dataset_keep_first(&data, 2, path), DPT_OK);
    assert_true(data.hash != whole && data.samples == 2 && data.sequences == 4);
    for (int64_t n = 0; n < 4; n += 3) {
        assert_int_equal(dpt_dataset_keep_first(&data, n, path), DPT_ERR_INPUT);
        assert_non_null(strstr(dpt_error_message(), path));
        dpt_error_clear();
    }
    assert_int_equal(data.samples, 2);
    dpt_dataset_destroy(&data);
    write_images(NULL);
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_IMAGES, &data), DPT_OK);
    assert_int_equal(dpt_dataset_keep_first(&data, 2, path), DPT_OK);
    assert_true(data.samples == 2 && data.sequences == 0);
    dpt_dataset_destroy(&data);
}

static void lose(hid_t file, const char *name) {
    H5Ldelete(file, name, H5P_DEFAULT);
}

/* As h5py writes an array of bool. */
static void bool_mask(hid_t f) {
    hid_t type = H5Tenum_create(H5T_NATIVE_INT8);
    const int8_t no = 0, yes = 1;
    H5Tenum_insert(type, "FALSE", &no);
    H5Tenum_insert(type, "TRUE", &yes);
    remake(f, "chosen/loss_mask", type, 9, mask);
    H5Tclose(type);
}

static void test_bool_mask(void **state) {
    (void)state;
    dpt_dataset data;
    write_pairs(bool_mask);
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_PAIRS, &data), DPT_OK);
    int64_t at = 0;
    for (int64_t s = 0; s < data.sequences; s += 2)
        for (int64_t i = data.offsets[s]; i < data.offsets[s + 1]; i++)
            assert_int_equal(data.loss_mask[i], mask[at++]);
    assert_int_equal(at, 9);
    dpt_dataset_destroy(&data);
}

static void no_images(hid_t f) {
    lose(f, "images");
}
static void no_labels(hid_t f) {
    lose(f, "labels");
}
static void few_labels(hid_t f) {
    remake(f, "labels", H5T_NATIVE_INT32, N - 1, labels);
}
static void float_labels(hid_t f) {
    remake(f, "labels", H5T_NATIVE_DOUBLE, N, weights);
}
static void negative_label(hid_t f) {
    const int32_t bad[N] = {0, 1, -4, 0, 0};
    remake(f, "labels", H5T_NATIVE_INT32, N, bad);
}
static void flat_images(hid_t f) {
    float images[N * PIXELS] = {0};
    remake(f, "images", H5T_NATIVE_FLOAT, N * PIXELS, images);
}
static void whole_images(hid_t f) {
    const hsize_t dims[4] = {N, C, H, W};
    lose(f, "images");
    put(f, "images", H5T_NATIVE_UINT8, 4, dims, NULL);
}
static void empty_images(hid_t f) {
    const hsize_t dims[4] = {N, C, 0, W};
    lose(f, "images");
    put(f, "images", H5T_NATIVE_FLOAT, 4, dims, NULL);
}
static void no_samples(hid_t f) {
    const hsize_t dims[4] = {0, C, H, W};
    lose(f, "images");
    put(f, "images", H5T_NATIVE_FLOAT, 4, dims, NULL);
    remake(f, "labels", H5T_NATIVE_INT32, 0, labels);
    lose(f, "weights");
}
/* Space that was never written: the claim costs nothing in the file. */
static void absurd(hid_t f, hsize_t a, hsize_t b, hsize_t c, hsize_t d) {
    const hsize_t dims[4] = {a, b, c, d}, chunk[4] = {1, 1, 1, 1};
    lose(f, "images");
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(4, dims, NULL);
    H5Pset_chunk(plist, 4, chunk);
    hid_t set = H5Dcreate2(f, "images", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(plist);
}
static void huge_image(hid_t f) {
    absurd(f, N, 1 << 20, 1 << 20, 1 << 20);
}
static void huge_count(hid_t f) {
    absurd(f, (hsize_t)1 << 50, 3, 224, 224);
}
static void nan_pixel(hid_t f) {
    float images[N * PIXELS] = {0};
    const hsize_t dims[4] = {N, C, H, W};
    images[3 * PIXELS + 5] = NAN;
    lose(f, "images");
    put(f, "images", H5T_NATIVE_FLOAT, 4, dims, images);
}
static void few_clusters(hid_t f) {
    remake(f, "cluster", H5T_NATIVE_INT64, N - 1, clusters);
}
static void real_clusters(hid_t f) {
    remake(f, "cluster", H5T_NATIVE_DOUBLE, N, weights);
}
static void endless_cluster(hid_t f) {
    const uint64_t beyond[N] = {1, 2, UINT64_MAX, 3, 4};
    remake(f, "cluster", H5T_NATIVE_UINT64, N, beyond);
}
static void misspelt_clusters(hid_t f) {
    lose(f, "cluster");
    put1(f, "clusters", H5T_NATIVE_INT64, N, clusters);
}
static void few_weights(hid_t f) {
    remake(f, "weights", H5T_NATIVE_DOUBLE, N - 1, weights);
}
static void whole_weights(hid_t f) {
    remake(f, "weights", H5T_NATIVE_INT32, N, labels);
}
static void set_weights(hid_t f, double value) {
    const double bad[N] = {value, value, value, value, value};
    remake(f, "weights", H5T_NATIVE_DOUBLE, N, bad);
}
static void negative_weights(hid_t f) {
    set_weights(f, -1.0);
}
static void nan_weights(hid_t f) {
    set_weights(f, NAN);
}
static void zero_weights(hid_t f) {
    set_weights(f, 0.0);
}
static void large_weights(hid_t f) {
    set_weights(f, 1e308);
}
static void misspelt_weights(hid_t f) {
    lose(f, "weights");
    put1(f, "Weight", H5T_NATIVE_DOUBLE, N, weights);
}
static void other_object(hid_t f) { /* far from any name: the user's own */
    put1(f, "my_notes", H5T_NATIVE_DOUBLE, N, weights);
    lose(f, "labels");
}
static void no_rejected(hid_t f) {
    lose(f, "rejected");
}
static void rejected_is_data(hid_t f) {
    remake(f, "rejected", H5T_NATIVE_INT32, N, labels);
}
static void no_side_mask(hid_t f) {
    lose(f, "rejected/loss_mask");
}
static void fewer_rejected(hid_t f) {
    const int64_t short_ends[3] = {0, 2, 8};
    remake(f, "rejected/offsets", H5T_NATIVE_INT64, 3, short_ends);
}
static void side_offsets(hid_t f) {
    remake(f, "chosen/offsets", H5T_NATIVE_INT64, 4, ends[1]);
}
static void side_mask(hid_t f) {
    const uint8_t bad[9] = {0, 1, 9, 0, 0, 0, 0, 0, 0};
    remake(f, "chosen/loss_mask", H5T_NATIVE_UINT8, 9, bad);
}

typedef struct lie {
    bool pairs;
    change_fn change;
    const char *named;
} lie;

static const lie lies[] = {
    {false, no_images, "'images' is missing"},
    {false, no_labels, "'labels' is missing"},
    {false, few_labels, "'labels' has 4 entries and 'images' 5"},
    {false, float_labels, "'labels' must hold integers"},
    {false, negative_label, "the label of sample 2 is -4"},
    {false, flat_images, "'images' must have four dimensions"},
    {false, whole_images, "'images' must hold float32"},
    {false, empty_images, "'images' are empty"},
    {false, no_samples, "no samples"},
    {false, huge_image, "above 2^28"},
    {false, huge_count, "claims more values than the file can hold"},
    {false, nan_pixel, "pixel 5 of sample 3 is not a finite number"},
    {false, few_clusters, "'cluster' has 4 entries for 5 samples"},
    {false, real_clusters, "'cluster' must hold integers"},
    {false, endless_cluster, "the cluster of sample 2 is beyond 64 bits"},
    {false, misspelt_clusters, "(did you mean 'cluster'?)"},
    {false, few_weights, "'weights' has 4 entries for 5 samples"},
    {false, whole_weights, "'weights' must hold floating-point"},
    {false, negative_weights, "the weight of sample 0 is -1"},
    {false, nan_weights, "the weight of sample 0 is nan"},
    {false, zero_weights, "'weights' add up to 0"},
    {false, large_weights, "'weights' add up to inf: divide"},
    {false, misspelt_weights, "'Weight' is no name that deltapath reads (did you mean 'weights'?)"},
    {false, other_object, "'labels' is missing"},
    {true, no_rejected, "'rejected/tokens' is missing"},
    {true, rejected_is_data, "'rejected/tokens'"},
    {true, no_side_mask, "'rejected/loss_mask' is missing"},
    {true, fewer_rejected, "'chosen' has 3 samples and 'rejected' 2"},
    {true, side_offsets, "'chosen/offsets' runs from 0 to 8, but there are 9 tokens"},
    {true, side_mask, "'chosen/loss_mask' of token 2 is 9"},
};

static void test_lies(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        dpt_dataset data;
        if (lies[i].pairs)
            write_pairs(lies[i].change);
        else
            write_images(lies[i].change);
        dpt_status st = dpt_dataset_read(
            &test_comm, path, lies[i].pairs ? DPT_DATASET_PAIRS : DPT_DATASET_IMAGES, &data);
        if (st != DPT_ERR_INPUT)
            fail_msg("case %zu, \"%s\": status %d", i, lies[i].named, (int)st);
        if (test_comm.rank == 0 && (strstr(dpt_error_message(), lies[i].named) == NULL ||
                                    strstr(dpt_error_message(), path) == NULL))
            fail_msg("no \"%s\" in: %s", lies[i].named, dpt_error_message());
        dpt_error_clear();
        assert_null(data.block);
    }
}

/* A file of one kind is refused as another, with the name of what is missing. */
static void test_other_kind(void **state) {
    (void)state;
    dpt_dataset data;
    write_images(NULL);
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_TOKENS, &data), DPT_ERR_INPUT);
    dpt_error_clear();
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_PAIRS, &data), DPT_ERR_INPUT);
    if (test_comm.rank == 0)
        test_error_says("'chosen/tokens' is missing");
    write_pairs(NULL);
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_IMAGES, &data), DPT_ERR_INPUT);
    dpt_error_clear();
    assert_int_equal(dpt_dataset_read(&test_comm, folder, DPT_DATASET_IMAGES, &data),
                     DPT_ERR_INPUT);
    dpt_error_clear();
}

/* Bytes of a sound file, changed one at a time at places spread over it. Whatever comes out, it is the
 * same on all ranks, and images that were accepted can be read. */
static void fuzz(dpt_dataset_kind kind, long step) {
    unsigned char *whole = NULL;
    long size = 0;
    if (test_comm.rank == 0) {
        FILE *file = fopen(path, "rb");
        fseek(file, 0, SEEK_END);
        size = ftell(file);
        rewind(file);
        whole = malloc((size_t)size);
        assert_true(fread(whole, 1, (size_t)size, file) == (size_t)size);
        fclose(file);
    }
    MPI_Bcast(&size, 1, MPI_LONG, 0, MPI_COMM_WORLD);
    for (long at = 0; at < size; at += step) {
        dpt_dataset data;
        if (test_comm.rank == 0) {
            FILE *file = fopen(path, "wb");
            whole[at] ^= 0x81;
            fwrite(whole, 1, (size_t)size, file);
            whole[at] ^= 0x81;
            fclose(file);
        }
        MPI_Barrier(MPI_COMM_WORLD);
        int st = dpt_dataset_read(&test_comm, path, kind, &data), first = st;
        MPI_Bcast(&first, 1, MPI_INT, 0, MPI_COMM_WORLD);
        assert_int_equal(st, first);
        float *out = malloc((size_t)(data.channels * data.height * data.width) * 4 + 1);
        for (int64_t i = 0; st == DPT_OK && kind == DPT_DATASET_IMAGES && i < data.samples; i++)
            assert_int_equal(dpt_dataset_read_images(&data, i, 1, out), DPT_OK);
        free(out);
        dpt_dataset_destroy(&data);
        dpt_error_clear();
        MPI_Barrier(MPI_COMM_WORLD);
    }
    free(whole);
}

static void test_damage(void **state) {
    (void)state;
    setenv("DPT_ISOLATE_SECONDS", "2", 1);
    write_images(NULL);
    fuzz(DPT_DATASET_IMAGES, 37);
    write_pairs(NULL);
    fuzz(DPT_DATASET_PAIRS, 61);
}

/* Cached numbers come back whole, or are not found. */
static void test_cache(void **state) {
    (void)state;
    double values[3] = {1.5, -2.0, INFINITY}, out[3];
    bool found = true;
    dpt_guard_clear();
    if (test_comm.rank == 0)
        unlink(path);
    MPI_Barrier(MPI_COMM_WORLD);
    assert_int_equal(dpt_cache_load(&test_comm, path, 7, 3, out, &found), DPT_OK);
    assert_false(found);
    assert_int_equal(dpt_cache_save(&test_comm, path, 7, 3, values), DPT_OK);
    assert_int_equal(dpt_cache_load(&test_comm, path, 7, 3, out, &found), DPT_OK);
    assert_true(found);
    assert_memory_equal(out, values, sizeof values);
    assert_int_equal(dpt_cache_load(&test_comm, path, 8, 3, out, &found), DPT_OK);
    assert_false(found);
    assert_int_equal(dpt_cache_load(&test_comm, path, 7, 2, out, &found), DPT_OK);
    assert_false(found);
    write_images(NULL);
    assert_int_equal(dpt_cache_load(&test_comm, path, 7, 3, out, &found), DPT_OK);
    assert_false(found);
    assert_int_equal(dpt_cache_save(&test_comm, path, 7, 3, values), DPT_ERR_OUTPUT);
    test_error_says(path); /* a data set is no cache */
    if (test_comm.rank == 0)
        assert_int_equal(truncate(path, 700), 0);
    MPI_Barrier(MPI_COMM_WORLD);
    assert_int_equal(dpt_cache_load(&test_comm, path, 7, 3, out, &found), DPT_OK);
    assert_false(found);
    assert_int_equal(dpt_cache_save(&test_comm, "/proc/none/x.h5", 7, 3, values), DPT_ERR_OUTPUT);
    dpt_error_clear();
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(make_folder),     cmocka_unit_test(test_images),
        cmocka_unit_test(test_layouts),    cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_keep_first), cmocka_unit_test(test_bool_mask),
        cmocka_unit_test(test_lies),       cmocka_unit_test(test_other_kind),
        cmocka_unit_test(test_cache),      cmocka_unit_test(test_damage),
        cmocka_unit_test(remove_folder),
    };
    return test_mpi_main(argc, argv, tests);
}

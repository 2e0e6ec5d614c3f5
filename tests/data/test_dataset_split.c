/* ranks: 1 3 */
/* A data set in two parts: which samples choose is what the documented stream says, samples that are equal stay
 * together, both parts have the values of the file, and what cannot be parted is refused. */
#include "dataset_files.h"

#include "deltapath/base/rng.h"
#include "deltapath/data/dataset.h"

#include <math.h>
#include <string.h>

enum { N = 40, PIXELS = 2, COPIES = 4 };

/* Samples 7, 17, 27 and 37 are equal. */
static int value_of(int64_t i) {
    return i % 10 == 7 ? 7 : (int)i;
}

static int length_of(int64_t i) {
    return 2 + value_of(i) % 3;
}

static double weight_of(int64_t i) {
    return 0.25 * (double)(i % 5);
}

static void put_tokens(hid_t file, const char *group, int side) {
    int32_t tokens[4 * N];
    uint8_t mask[4 * N];
    int64_t offsets[N + 1] = {0};
    char name[32];
    for (int64_t i = 0; i < N; i++) {
        offsets[i + 1] = offsets[i] + length_of(i) - side;
        for (int64_t k = offsets[i]; k < offsets[i + 1]; k++) {
            tokens[k] = (int32_t)(100 * value_of(i) + 10 * side + (k - offsets[i]));
            mask[k] = (uint8_t)((value_of(i) + k - offsets[i]) % 2);
        }
    }
    snprintf(name, sizeof name, "%stokens", group);
    put1(file, name, H5T_NATIVE_INT32, offsets[N], tokens);
    snprintf(name, sizeof name, "%sloss_mask", group);
    put1(file, name, H5T_NATIVE_UINT8, offsets[N], mask);
    snprintf(name, sizeof name, "%soffsets", group);
    put1(file, name, H5T_NATIVE_INT64, N + 1, offsets);
}

/* @param[in] chunked HDF5 has to put the images together. */
static void put_images(hid_t file, bool chunked) {
    float images[N][PIXELS];
    int32_t labels[N];
    const hsize_t dims[4] = {N, 1, 1, PIXELS}, chunk[4] = {3, 1, 1, PIXELS};
    for (int64_t i = 0; i < N; i++) {
        labels[i] = value_of(i) % 4;
        for (int k = 0; k < PIXELS; k++)
            images[i][k] = (float)(value_of(i) + 100 * k);
    }
    hid_t space = H5Screate_simple(4, dims, NULL), made = H5Pcreate(H5P_DATASET_CREATE);
    if (chunked)
        H5Pset_chunk(made, 4, chunk);
    hid_t set = H5Dcreate2(file, "images", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, made, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, images) >= 0);
    H5Dclose(set);
    H5Pclose(made);
    H5Sclose(space);
    put1(file, "labels", H5T_NATIVE_INT32, N, labels);
}

static void write_set(dpt_dataset_kind kind, bool weighted, bool chunked) {
    MPI_Barrier(MPI_COMM_WORLD); /* nobody has the old file open */
    if (test_comm.rank == 0) {
        double weights[N];
        for (int64_t i = 0; i < N; i++)
            weights[i] = weight_of(i);
        hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        if (kind == DPT_DATASET_IMAGES)
            put_images(file, chunked);
        else
            put_tokens(file, kind == DPT_DATASET_PAIRS ? "chosen/" : "", 0);
        if (kind == DPT_DATASET_PAIRS)
            put_tokens(file, "rejected/", 1);
        if (weighted)
            put1(file, "weights", H5T_NATIVE_DOUBLE, N, weights);
        H5Fclose(file);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

/* Which samples the documented rule takes, by counting instead of sorting: groups with a lower word come first. */
static void mark_by_rule(double share, uint64_t seed, bool chooses[N]) {
    uint32_t words[N];
    dpt_rng_words(dpt_rng_make(seed, "choose", DPT_RNG_CHOOSE), 0, N, words);
    int64_t wanted = (int64_t)floor(share * N + 0.5);
    for (int64_t i = 0; i < N; i++) {
        int64_t before = 0;
        for (int64_t j = 0; j < N; j++)
            before += words[value_of(j)] < words[value_of(i)];
        chooses[i] = before < wanted;
    }
}

static void check_sample(const dpt_dataset *part, int64_t s, int64_t from) {
    int64_t sides = part->sequences / part->samples;
    assert_int_equal(part->rows[s], from);
    if (part->weights != NULL)
        assert_true(part->weights[s] == weight_of(from));
    for (int64_t k = 0; k < sides; k++) {
        int64_t at = part->offsets[sides * s + k];
        assert_int_equal(part->offsets[sides * s + k + 1] - at, length_of(from) - k);
        for (int64_t i = at; i < part->offsets[sides * s + k + 1]; i++) {
            assert_int_equal(part->tokens[i], 100 * value_of(from) + 10 * k + (i - at));
            assert_int_equal(part->loss_mask[i], (value_of(from) + i - at) % 2);
        }
    }
    if (part->labels != NULL)
        assert_int_equal(part->labels[s], value_of(from) % 4);
}

static void check_images(const dpt_dataset *part) {
    float out[N][PIXELS];
    assert_int_equal(dpt_dataset_read_images(part, 1, part->samples - 1, out[0]), DPT_OK);
    for (int64_t s = 1; s < part->samples; s++)
        for (int k = 0; k < PIXELS; k++)
            assert_true(out[s - 1][k] == (float)(value_of(part->rows[s]) + 100 * k));
    assert_int_equal(dpt_dataset_read_images(part, 1, part->samples, out[0]), DPT_ERR_INPUT);
    dpt_error_clear();
}

static void check_split(dpt_dataset_kind kind, bool weighted, bool chunked) {
    dpt_dataset data, chosen;
    bool chooses[N];
    double share;
    write_set(kind, weighted, chunked);
    assert_int_equal(dpt_dataset_read(&test_comm, path, kind, &data), DPT_OK);
    uint64_t whole = data.hash;
    assert_int_equal(dpt_dataset_split(&data, 0.3, 5, path, &chosen), DPT_OK);
    mark_by_rule(0.3, 5, chooses);
    const dpt_dataset *const parts[] = {&data, &chosen};
    int64_t at[2] = {0, 0};
    for (int64_t i = 0; i < N; i++)
        check_sample(parts[chooses[i]], at[chooses[i]]++, i);
    assert_true(data.samples == at[0] && chosen.samples == at[1]);
    assert_true(at[1] >= N * 3 / 10 && at[1] < N * 3 / 10 + COPIES);
    assert_true(data.whole == whole && chosen.whole == whole);
    assert_true(data.hash != whole && chosen.hash != whole && data.hash != chosen.hash);
    assert_int_equal(dpt_dataset_share_apart(&data, &chosen, &share), DPT_OK);
    assert_true(share == 1.0);
    assert_int_equal(dpt_dataset_share_apart(&data, &data, &share), DPT_OK);
    assert_true(share == 0.0);
    if (kind == DPT_DATASET_IMAGES)
        for (int k = 0; k < 2; k++)
            check_images(parts[k]);
    assert_int_equal(dpt_dataset_count_repeats(&data), DPT_OK);
    assert_int_equal(dpt_dataset_count_repeats(&chosen), DPT_OK);
    assert_int_equal(data.repeats + chosen.repeats, COPIES - 1);
    test_same_on_all(data.hash);
    dpt_dataset_destroy(&data);
    dpt_dataset_destroy(&chosen);
}

static void test_kinds(void **state) {
    (void)state;
    check_split(DPT_DATASET_TOKENS, false, false);
    check_split(DPT_DATASET_TOKENS, true, false);
    check_split(DPT_DATASET_PAIRS, false, false);
    check_split(DPT_DATASET_IMAGES, false, false);
    check_split(DPT_DATASET_IMAGES, true, true);
}

/* Another seed, another split; shares near the ends leave a sample on each side; some samples of another set. */
static void test_shares(void **state) {
    (void)state;
    static const double shares[] = {0.001, 0.5, 0.95, 0.999};
    uint64_t hashes[8];
    for (int k = 0; k < 8; k++) {
        dpt_dataset data, chosen;
        write_set(DPT_DATASET_TOKENS, false, false);
        assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_TOKENS, &data), DPT_OK);
        assert_int_equal(dpt_dataset_split(&data, shares[k / 2], (uint64_t)k % 2, path, &chosen),
                         DPT_OK);
        assert_true(data.samples >= 1 && chosen.samples >= 1);
        assert_int_equal(data.samples + chosen.samples, N);
        hashes[k] = chosen.hash;
        dpt_dataset_destroy(&data);
        dpt_dataset_destroy(&chosen);
    }
    for (int k = 0; k < 8; k++)
        for (int j = 0; j < k; j++)
            assert_true(hashes[k] != hashes[j]);
    dpt_dataset few, all;
    double share;
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_TOKENS, &all), DPT_OK);
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_TOKENS, &few), DPT_OK);
    assert_int_equal(dpt_dataset_keep_first(&few, 10, path), DPT_OK);
    assert_int_equal(dpt_dataset_share_apart(&all, &few, &share), DPT_OK);
    assert_true(fabs(share - (double)(N - 10 - (COPIES - 1)) / N) < 1e-15);
    dpt_dataset_destroy(&few);
    dpt_dataset_destroy(&all);
}

/* With clusters of three samples, those of one and those that are equal stay together: of four clusters each copy draws
 * its two neighbours along. */
static void test_clusters(void **state) {
    (void)state;
    int64_t clusters[N];
    for (int64_t i = 0; i < N; i++)
        clusters[i] = i / 3;
    for (uint64_t seed = 0; seed < 8; seed++) {
        dpt_dataset data, chosen;
        bool chooses[N] = {false};
        write_set(DPT_DATASET_TOKENS, false, false);
        if (test_comm.rank == 0) {
            hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
            put1(file, "cluster", H5T_NATIVE_INT64, N, clusters);
            H5Fclose(file);
        }
        MPI_Barrier(MPI_COMM_WORLD);
        assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_TOKENS, &data), DPT_OK);
        assert_int_equal(dpt_dataset_split(&data, 0.4, seed, path, &chosen), DPT_OK);
        for (int64_t s = 0; s < chosen.samples; s++)
            chooses[chosen.rows[s]] = true;
        for (int64_t i = 0; i < N; i++)
            for (int64_t j = 0; j < i; j++)
                assert_true(chooses[i] == chooses[j] ||
                            (i / 3 != j / 3 && value_of(i) != value_of(j)));
        dpt_dataset_destroy(&data);
        dpt_dataset_destroy(&chosen);
    }
}

static void test_refused(void **state) {
    (void)state;
    dpt_dataset data, chosen;
    write_set(DPT_DATASET_TOKENS, true, false);
    for (int64_t n = 1; n <= 2; n++) { /* one sample; two of which one has weight */
        assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_TOKENS, &data), DPT_OK);
        if (n == 1)
            data.samples = data.sequences = 1;
        else
            assert_int_equal(dpt_dataset_keep_first(&data, n, path), DPT_OK);
        assert_int_equal(dpt_dataset_split(&data, 0.5, 0, path, &chosen), DPT_ERR_INPUT);
        assert_non_null(strstr(dpt_error_message(), path));
        assert_non_null(strstr(dpt_error_message(), n == 1 ? "equal" : "weight"));
        assert_true(data.samples == n && chosen.block == NULL);
        dpt_error_clear();
        dpt_dataset_destroy(&data);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(make_folder),  cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_shares),  cmocka_unit_test(test_clusters),
        cmocka_unit_test(test_refused), cmocka_unit_test(remove_folder),
    };
    return test_mpi_main(argc, argv, tests);
}

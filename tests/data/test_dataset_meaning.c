/* ranks: 1 3 */
/* Data sets that are well-formed and yet not what they seem: samples that repeat others, attributes that
 * say something else, numbers that the types in memory do not hold. */
#include "dataset_files.h"

#include "deltapath/data/dataset.h"

#include <math.h>
#include <string.h>

static void put_number(hid_t file, const char *name, int64_t value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t at = H5Acreate2(file, name, H5T_NATIVE_INT64, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(at >= 0 && H5Awrite(at, H5T_NATIVE_INT64, &value) >= 0);
    H5Aclose(at);
    H5Sclose(space);
}

static void put_text(hid_t file, const char *name, const char *text) {
    hid_t space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text));
    hid_t at = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(at >= 0 && H5Awrite(at, type, text) >= 0);
    H5Aclose(at);
    H5Tclose(type);
    H5Sclose(space);
}

/* Samples 0, 2 and 3 are equal; sample 4 differs from them in its mask, and 5 in its end. */
enum { N = 6, TOKENS = 13 };
static const int32_t tokens[TOKENS] = {1, 2, 5, 1, 1, 2, 1, 2, 1, 2, 1, 2, 0};
static const int64_t offsets[N + 1] = {0, 2, 4, 6, 8, 10, 13};
static const int8_t mask[TOKENS] = {0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 1};
static const int8_t below[TOKENS] = {0, 1, 0, 1, -1, 1, 0, 1, 1, 1, 0, 1, 1};

static void put_side(hid_t file, const char *group) {
    char name[32];
    snprintf(name, sizeof name, "%stokens", group);
    put1(file, name, H5T_NATIVE_INT32, TOKENS, tokens);
    snprintf(name, sizeof name, "%sloss_mask", group);
    put1(file, name, H5T_NATIVE_INT8, TOKENS, mask);
    snprintf(name, sizeof name, "%soffsets", group);
    put1(file, name, H5T_NATIVE_INT64, N + 1, offsets);
}

static void put_images(hid_t file) {
    const float images[N][2] = {{1, 2}, {3, 4}, {1, 2}, {1, 2}, {1, 2}, {2, 1}};
    const int32_t labels[N] = {0, 0, 0, 0, 7, 0};
    const hsize_t dims[4] = {N, 1, 1, 2};
    put(file, "images", H5T_NATIVE_FLOAT, 4, dims, images);
    put1(file, "labels", H5T_NATIVE_INT32, N, labels);
}

typedef void (*change_fn)(hid_t file);

static void write_file(dpt_dataset_kind kind, change_fn change) {
    MPI_Barrier(MPI_COMM_WORLD); /* nobody has the old file open */
    if (test_comm.rank == 0) {
        hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        if (kind == DPT_DATASET_IMAGES) {
            put_images(file);
        } else if (kind == DPT_DATASET_PAIRS) {
            put_side(file, "chosen/");
            put_side(file, "rejected/");
        } else {
            put_side(file, "");
        }
        if (change != NULL)
            change(file);
        H5Fclose(file);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

static void weigh(hid_t file) { /* sample 3 is none, and the squares of the others overflow */
    const double weights[N] = {2e200, 1e200, 1e200, 0.0, 1e200, 1e200};
    put1(file, "weights", H5T_NATIVE_DOUBLE, N, weights);
}
static void other_rejected(hid_t file) { /* the pairs 2 and 3 differ in their rejected side */
    const int32_t others[TOKENS] = {1, 2, 5, 1, 1, 3, 1, 4, 1, 2, 1, 2, 0};
    remake(file, "rejected/tokens", H5T_NATIVE_INT32, TOKENS, others);
}

static void test_repeats(void **state) {
    (void)state;
    const struct {
        dpt_dataset_kind kind;
        change_fn change;
        int64_t first, repeats;
        double effective;
    } cases[] = {{DPT_DATASET_TOKENS, NULL, N, 2, 36.0 / 12.0},
                 {DPT_DATASET_TOKENS, weigh, N, 1, 36.0 / 12.0},
                 {DPT_DATASET_TOKENS, NULL, 3, 1, 9.0 / 5.0},
                 {DPT_DATASET_TOKENS, NULL, 1, 0, 1.0},
                 {DPT_DATASET_PAIRS, NULL, N, 2, 36.0 / 12.0},
                 {DPT_DATASET_PAIRS, other_rejected, N, 0, 6.0},
                 {DPT_DATASET_IMAGES, NULL, N, 2, 36.0 / 12.0},
                 {DPT_DATASET_IMAGES, NULL, 4, 2, 16.0 / 10.0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dpt_dataset data;
        write_file(cases[i].kind, cases[i].change);
        assert_int_equal(dpt_dataset_read(&test_comm, path, cases[i].kind, &data), DPT_OK);
        assert_true(isnan(data.effective));
        assert_int_equal(dpt_dataset_keep_first(&data, cases[i].first, path), DPT_OK);
        assert_int_equal(dpt_dataset_count_repeats(&data), DPT_OK);
        if (data.repeats != cases[i].repeats || fabs(data.effective - cases[i].effective) > 1e-12)
            fail_msg("case %zu: %d repeats, %g in effect", i, (int)data.repeats, data.effective);
        dpt_dataset_destroy(&data);
    }
}

static void newer(hid_t file) {
    put_number(file, "version", 2);
}
static void worded(hid_t file) {
    put_text(file, "version", "one");
}
static void pairs(hid_t file) {
    put_text(file, "kind", "dpo");
}
static void numbered(hid_t file) {
    put_number(file, "kind", 1);
}
static void no_words(hid_t file) {
    put_number(file, "vocab_size", 0);
}
static void wide_token(hid_t file) {
    int64_t wide[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        wide[i] = tokens[i] + (i >= 3) * (INT64_C(1) << 32);
    remake(file, "tokens", H5T_NATIVE_INT64, TOKENS, wide);
}
static void wide_label(hid_t file) {
    const int64_t wide[N] = {0, 0, 0, 0, -(INT64_C(1) << 40), 0};
    remake(file, "labels", H5T_NATIVE_INT64, N, wide);
}
static void negative_mask(hid_t file) { /* as -1 stands for "not scored" elsewhere */
    remake(file, "loss_mask", H5T_NATIVE_INT8, TOKENS, below);
}

static void wide_mask(hid_t file) {
    int32_t wide[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        wide[i] = i == 4 ? 256 : mask[i];
    remake(file, "loss_mask", H5T_NATIVE_INT32, TOKENS, wide);
}
static void mask_of_bytes(hid_t file) { /* 255 as in images of masks */
    uint8_t bytes[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        bytes[i] = mask[i] != 0 ? 255 : 0;
    remake(file, "chosen/loss_mask", H5T_NATIVE_UINT8, TOKENS, bytes);
}
static void few_words(hid_t file) {
    put_number(file, "vocab_size", 5);
}

static void test_refused(void **state) {
    (void)state;
    const struct {
        dpt_dataset_kind kind;
        change_fn change;
        const char *named;
    } cases[] = {{DPT_DATASET_TOKENS, newer, "version 2, this program knows version 1"},
                 {DPT_DATASET_IMAGES, worded, "attribute version is no integer"},
                 {DPT_DATASET_TOKENS, pairs, "its kind is 'dpo', and the job takes it as 'lm'"},
                 {DPT_DATASET_IMAGES, pairs, "its kind is 'dpo', and the job takes it as 'class'"},
                 {DPT_DATASET_TOKENS, numbered, "attribute kind is no text"},
                 {DPT_DATASET_PAIRS, no_words, "attribute vocab_size is no integer"},
                 {DPT_DATASET_TOKENS, wide_token, "'tokens' 3 is 4294967297"},
                 {DPT_DATASET_IMAGES, wide_label, "'labels' 4 is -1099511627776"},
                 {DPT_DATASET_TOKENS, negative_mask, "'loss_mask' of token 4 is -1: 0 or 1"},
                 {DPT_DATASET_TOKENS, wide_mask, "'loss_mask' of token 4 is 256: 0 or 1"},
                 {DPT_DATASET_PAIRS, mask_of_bytes, "'chosen/loss_mask' of token 1 is 255: 0 or 1"},
                 {DPT_DATASET_TOKENS, few_words, "'tokens' 2 is 5, and ids are below"},
                 {DPT_DATASET_PAIRS, few_words, "'chosen/tokens' 2 is 5, and ids are below"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dpt_dataset data;
        write_file(cases[i].kind, cases[i].change);
        assert_int_equal(dpt_dataset_read(&test_comm, path, cases[i].kind, &data), DPT_ERR_INPUT);
        if (test_comm.rank == 0 && (strstr(dpt_error_message(), cases[i].named) == NULL ||
                                    strstr(dpt_error_message(), path) == NULL))
            fail_msg("no \"%s\" in: %s", cases[i].named, dpt_error_message());
        dpt_error_clear();
    }
}

static void all_well(hid_t file) {
    put_text(file, "format", "deltapath-data");
    put_text(file, "kind", "dpo");
    put_number(file, "version", 1);
    put_number(file, "vocab_size", 900);
}

static void test_attributes(void **state) {
    (void)state;
    dpt_dataset data;
    write_file(DPT_DATASET_PAIRS, all_well);
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_PAIRS, &data), DPT_OK);
    assert_int_equal(data.vocabulary, 900);
    dpt_dataset_destroy(&data);
    write_file(DPT_DATASET_PAIRS, NULL);
    assert_int_equal(dpt_dataset_read(&test_comm, path, DPT_DATASET_PAIRS, &data), DPT_OK);
    assert_int_equal(data.vocabulary, 0);
    dpt_dataset_destroy(&data);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(make_folder),   cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_attributes),
        cmocka_unit_test(remove_folder),
    };
    return test_mpi_main(argc, argv, tests);
}

/* ranks: 1 3 */
#include "store_models.h"

/* safetensors headers that lie: each gets an input error on all ranks, with the file's name. */

typedef struct lie {
    const char *label;
    const char *json;
    int64_t data;   /* bytes after the header */
    int64_t length; /* what the first 8 bytes say; -1: the truth */
} lie;

#define T(name, dtype, shape, offsets)                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const lie lies[] = {
    {"empty object", "{}", 0, -1},
    {"only metadata", "{\"__metadata__\":{\"a\":\"b\"}}", 0, -1},
    {"header longer than the file", "{" T("a", "F32", "[2]", "[0,8]") "}", 8, 100000},
    {"header of 2^63", "{" T("a", "F32", "[2]", "[0,8]") "}", 8, INT64_MIN},
    {"header of 0 bytes", "{" T("a", "F32", "[2]", "[0,8]") "}", 8, 0},
    {"header cut short", "{" T("a", "F32", "[2]", "[0,8]") "}", 8, 20},
    {"not JSON", "{this is not JSON at all}", 8, -1},
    {"array", "[1,2,3,4]", 8, -1},
    {"duplicate names", "{" T("a", "F32", "[1]", "[0,4]") "," T("a", "F32", "[1]", "[4,8]") "}", 8,
     -1},
    {"no dtype", "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, -1},
    {"unknown dtype", "{" T("a", "F33", "[2]", "[0,8]") "}", 8, -1},
    {"dtype a number", "{\"a\":{\"dtype\":3,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, -1},
    {"lower-case dtype", "{" T("a", "f32", "[2]", "[0,8]") "}", 8, -1},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, -1},
    {"shape a number", "{" T("a", "F32", "2", "[0,8]") "}", 8, -1},
    {"negative side", "{" T("a", "F32", "[-2]", "[0,8]") "}", 8, -1},
    {"two negative sides", "{" T("a", "F32", "[-2,-1]", "[0,8]") "}", 8, -1},
    {"fractional side", "{" T("a", "F32", "[2.0]", "[0,8]") "}", 8, -1},
    {"side beyond 64 bits", "{" T("a", "F32", "[99999999999999999999]", "[0,8]") "}", 8, -1},
    {"product overflows to 8 bytes", "{" T("a", "F32", "[4294967296,4294967296,2]", "[0,8]") "}", 8,
     -1},
    {"overflow after a zero side",
     "{" T("a", "F32", "[0,9223372036854775807,9]", "[0,0]") "," T("b", "F32", "[2]", "[0,8]") "}",
     8, -1},
    {"nine sides", "{" T("a", "F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8, -1},
    {"shape larger than offsets", "{" T("a", "F32", "[3]", "[0,8]") "}", 8, -1},
    {"shape smaller than offsets", "{" T("a", "F32", "[1]", "[0,8]") "}", 8, -1},
    {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, -1},
    {"one offset", "{" T("a", "F32", "[2]", "[8]") "}", 8, -1},
    {"three offsets", "{" T("a", "F32", "[2]", "[0,8,8]") "}", 8, -1},
    {"offsets backwards", "{" T("a", "F32", "[2]", "[8,0]") "}", 8, -1},
    {"negative offset", "{" T("a", "F32", "[2]", "[-8,0]") "}", 8, -1},
    {"offsets after the end", "{" T("a", "F32", "[2]", "[8,16]") "}", 8, -1},
    {"offsets near 2^63", "{" T("a", "F32", "[2]", "[9223372036854775799,9223372036854775807]") "}",
     8, -1},
    {"overlap", "{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[2]", "[4,12]") "}", 12, -1},
    {"same bytes twice", "{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[2]", "[0,8]") "}", 8,
     -1},
    {"hole", "{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[8,12]") "}", 12, -1},
    {"hole at the start", "{" T("a", "F32", "[1]", "[4,8]") "}", 8, -1},
    {"bytes left over", "{" T("a", "F32", "[1]", "[0,4]") "}", 8, -1},
    {"truncated data", "{" T("a", "F32", "[4]", "[0,16]") "}", 8, -1},
    {"tensor no object", "{\"a\":7}", 8, -1},
    {"empty name", "{" T("", "F32", "[2]", "[0,8]") "}", 8, -1},
    {"metadata no object", "{\"__metadata__\":7," T("a", "F32", "[2]", "[0,8]") "}", 8, -1},
    {"metadata no string", "{\"__metadata__\":{\"x\":1}," T("a", "F32", "[2]", "[0,8]") "}", 8, -1},
    {"bytes after the object", "{" T("a", "F32", "[2]", "[0,8]") "} x", 8, -1},
    {"invalid UTF-8", "{" T("a\xff", "F32", "[2]", "[0,8]") "}", 8, -1},
};

static void write_bytes(const char *path, const void *bytes, size_t n) {
    if (test_comm.rank == 0) {
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(bytes, 1, n, file), n);
        fclose(file);
    }
    MPI_Barrier(test_comm.mpi);
}

static void write_text(const char *path, const char *text) {
    write_bytes(path, text, strlen(text));
}

static void write_safetensors(const char *path, const char *json, int64_t data, int64_t length) {
    size_t n = strlen(json);
    unsigned char bytes[2048] = {0};
    uint64_t said = length == -1 ? n : (uint64_t)length;
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(said >> (8 * i));
    memcpy(bytes + 8, json, n);
    write_bytes(path, bytes, 8 + n + (size_t)data);
}

static void expect_bad(const char *path, const char *label) {
    dpt_store *store = NULL;
    dpt_status st = dpt_store_open(&test_comm, path, &store);
    if (st != DPT_ERR_INPUT || strstr(dpt_error_message(), path) == NULL)
        fail_msg("%s: status %d, message \"%s\"", label, (int)st, dpt_error_message());
    assert_null(store);
    dpt_error_clear();
}

static void expect_good(const char *path) {
    dpt_store *store = NULL;
    dpt_status st = dpt_store_open(&test_comm, path, &store);
    if (st != DPT_OK)
        fail_msg("%s: %s", path, dpt_error_message());
    dpt_store_close(store);
}

static void test_headers(void **state) {
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s", models_path("lie.safetensors"));
    write_safetensors(path, "{" T("a", "F32", "[2]", "[0,8]") "}  ", 8, -1);
    expect_good(path);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        write_safetensors(path, lies[i].json, lies[i].data, lies[i].length);
        expect_bad(path, lies[i].label);
    }
    for (size_t n = 0; n < 40; n += 3) {
        write_bytes(path, "\x30\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data", n);
        expect_bad(path, "truncated");
    }
}

static void make_directory(const char *path) {
    if (test_comm.rank == 0)
        mkdir(path, 0777);
    MPI_Barrier(test_comm.mpi);
}

/* An index over two files, and every way in which it can be wrong. */
static void test_index(void **state) {
    (void)state;
    char home[512], index[600], one[600], two[600];
    snprintf(home, sizeof home, "%s", models_path("sharded"));
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", home);
    snprintf(one, sizeof one, "%s/one.safetensors", home);
    snprintf(two, sizeof two, "%s/two.safetensors", home);
    make_directory(home);
    write_safetensors(one, "{" T("a", "F32", "[2]", "[0,8]") "}", 8, -1);
    write_safetensors(two, "{" T("b", "F32", "[2]", "[0,8]") "}", 8, -1);
    expect_bad(home, "two files without an index");
    write_text(index, "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    expect_good(home);
    static const char *const wrong[] = {
        "",
        "{",
        "[]",
        "{\"weight_map\":3}",
        "{\"weight_map\":{}}",
        "{\"metadata\":{}}",
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"three.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\","
        "\"c\":\"two.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":7}}",
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"../sharded/two.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"/etc/passwd\"}}",
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"..\"}}",
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"\"}}",
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"two.safetensors\"}}"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        write_text(index, wrong[i]);
        expect_bad(home, wrong[i]);
    }
    write_text(index, "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    write_safetensors(two, "{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[4,8]") "}",
                      8, -1);
    expect_bad(home, "a tensor in two files");
}

static void test_directory(void **state) {
    (void)state;
    char home[512], file[600], config[600], sidecar[600];
    snprintf(home, sizeof home, "%s", models_path("home"));
    snprintf(file, sizeof file, "%s/any-name.safetensors", home);
    snprintf(config, sizeof config, "%s/config.json", home);
    snprintf(sidecar, sizeof sidecar, "%s/deltapath.json", home);
    make_directory(home);
    expect_bad(home, "empty directory");
    write_safetensors(file, "{" T("a", "F32", "[2]", "[0,8]") "}", 8, -1);
    expect_good(home);
    expect_good(file);
    write_text(config, "{\"a\":");
    expect_bad(home, "broken configuration");
    write_text(config, "{\"a\":1}");
    expect_good(home);
    write_text(sidecar, "{\"xxh3\":{\"a\":\"0123456789abcdef\"}}");
    expect_good(home);
    write_text(sidecar, "{\"xxh3\":{\"a\":\"012345678\"}}");
    expect_bad(home, "short hash");
    write_text(sidecar, "{\"xxh3\":{\"b\":\"0123456789abcdef\"}}");
    expect_bad(home, "hash of an absent tensor");
    write_text(sidecar, "{\"xxh3\"");
    expect_bad(home, "broken sidecar");
    expect_bad(models_path("nothing/here"), "absent path");
    write_text(models_path("text.h5"), "this is no HDF5 file");
    expect_bad(models_path("text.h5"), "text");
    write_text(models_path("empty.h5"), "");
    expect_bad(models_path("empty.h5"), "empty file");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_headers, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_index, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_directory, models_setup, models_teardown),
    };
    return test_mpi_main(argc, argv, tests);
}

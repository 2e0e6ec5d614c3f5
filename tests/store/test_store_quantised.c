/* ranks: 1 2 3 4 */
#include "store_models.h"

#include "deltapath/store/quantise.h"

#include <math.h>

/* Quantised tensors are read as plain ones: as transformers dequantises them, in any piece, and headers that lie are
 * refused. */

static const char *const cases[] = {"fp8_blocks", "fp8_default", "fp8_ue8m0", "compressed",
                                    "mxfp4_experts"};
enum { CASES = sizeof cases / sizeof cases[0], PIECES = 40, PIECES_LARGE = 5 };

static dpt_store *quantised_open(const char *path) {
    dpt_store *store = NULL;
    dpt_guard_clear();
    if (dpt_store_open(&test_comm, path, &store) != DPT_OK)
        fail_msg("%s", dpt_error_message());
    return store;
}

static int64_t quantised_draw(uint64_t *state, int64_t below) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((*state >> 33) % (uint64_t)below);
}

/* Nothing is written after a piece. */
static void quantised_check_end(char *end, bool set) {
    enum { GUARD = 64 };
    for (int i = 0; i < GUARD; i++)
        if (set)
            end[i] = (char)0xa5;
        else
            assert_true(end[i] == (char)0xa5);
}

/* Runs and blocks of a tensor at random places, against all of it in `want`. */
static void quantised_check_pieces(dpt_source source, int t, const char *want, int pieces,
                                   uint64_t seed) {
    const dpt_tensor_info *info = &source.catalog->tensors[t];
    int64_t size = dpt_dtype_size(info->dtype), width = info->shape[info->ndim - 1];
    int64_t lines = info->numel / width;
    char *got = malloc((size_t)(info->numel * size) + 64);
    for (int i = 0; i < pieces; i++) {
        int64_t ig = quantised_draw(&seed, info->numel);
        dpt_range range = {.tensor = t, .ig = ig, .n = 1 + quantised_draw(&seed, info->numel - ig)};
        quantised_check_end(got + range.n * size, true);
        assert_int_equal(source.read(source.ctx, range, got), DPT_OK);
        assert_memory_equal(got, want + ig * size, (size_t)(range.n * size));
        quantised_check_end(got + range.n * size, false);
        int64_t row = quantised_draw(&seed, lines), col = quantised_draw(&seed, width);
        dpt_block block = {.tensor = t, .ig = row * width + col, .stride = width};
        block.rows = 1 + quantised_draw(&seed, lines - row);
        block.cols = 1 + quantised_draw(&seed, width - col);
        void *out = got;
        quantised_check_end(got + block.rows * block.cols * size, true);
        assert_int_equal(source.fetch(source.ctx, 1, &block, &out), DPT_OK);
        for (int64_t r = 0; r < block.rows; r++)
            assert_memory_equal(got + r * block.cols * size, want + (block.ig + r * width) * size,
                                (size_t)(block.cols * size));
        quantised_check_end(got + block.rows * block.cols * size, false);
    }
    free(got);
}

/* All of a tensor, on every rank. */
static char *quantised_read(dpt_source source, int t) {
    const dpt_tensor_info *info = &source.catalog->tensors[t];
    dpt_range range = {.tensor = t, .ig = 0, .n = info->numel};
    char *out = malloc((size_t)(info->numel * dpt_dtype_size(info->dtype)));
    if (source.read(source.ctx, range, out) != DPT_OK)
        fail_msg("%s", dpt_error_message());
    return out;
}

static void test_as_transformers(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/golden/quantised/%s", cases[i]);
        dpt_store *store = quantised_open(path);
        snprintf(path, sizeof path, "tests/golden/quantised/%s.safetensors", cases[i]);
        dpt_store *plain = quantised_open(path);
        dpt_source source = dpt_store_source(store), golden = dpt_store_source(plain);
        int quantised = 0;
        assert_true(dpt_catalog_digest(source.catalog) == dpt_catalog_digest(golden.catalog));
        for (int t = 0; t < source.catalog->count; t++) {
            int64_t bytes, numel = source.catalog->tensors[t].numel;
            char *want = quantised_read(golden, t), *got = quantised_read(source, t);
            int64_t size = dpt_dtype_size(source.catalog->tensors[t].dtype);
            char text[96];
            assert_memory_equal(want, got, (size_t)(numel * size));
            quantised_check_pieces(source, t, want, PIECES, (uint64_t)(t + test_comm.rank));
            quantised += dpt_store_quantised(store, t, text, sizeof text, &bytes);
            assert_true((bytes > 0) == (text[0] != '\0') && bytes < numel * size);
            free(want);
            free(got);
        }
        assert_true(quantised > 0);
        assert_null(strstr(dpt_store_config(store), "quantization_config"));
        assert_non_null(strstr(dpt_store_config(store), "\"hidden_size\": 24"));
        assert_int_equal(dpt_store_check_usable(store), DPT_OK);
        dpt_store_close(store);
        dpt_store_close(plain);
    }
}

static void quantised_write(const char *path, const void *bytes, size_t n) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

/* A folder with a header, bytes (NULL: zeros) and a configuration. Collective. */
static void quantised_make(const char *name, const char *config, const char *header,
                           const void *bytes, size_t n) {
    char file[600];
    size_t length = strlen(header);
    unsigned char *all = calloc(1, 8 + length + n);
    MPI_Barrier(test_comm.mpi);
    for (int i = 0; i < 8; i++)
        all[i] = (unsigned char)(length >> (8 * i));
    memcpy(all + 8, header, length);
    if (bytes != NULL)
        memcpy(all + 8 + length, bytes, n);
    if (test_comm.rank == 0) {
        mkdir(models_path(name), 0777);
        snprintf(file, sizeof file, "%s/model.safetensors", models_path(name));
        quantised_write(file, all, 8 + length + n);
        snprintf(file, sizeof file, "%s/config.json", models_path(name));
        quantised_write(file, config, strlen(config));
    }
    free(all);
    MPI_Barrier(test_comm.mpi);
}

static uint16_t bf16_of(float value) {
    uint16_t code;
    dpt_dtype_from_f32(DPT_BF16, &value, &code, 1);
    return code;
}

/* More codes than are held at a time: [experts, rows, groups, 16], written and read element by element. */
static void check_mxfp4(int64_t experts, int64_t rows, int64_t groups) {
    static const float values[8] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
    int64_t n = experts * rows * groups, cols = 32 * groups;
    unsigned char *bytes = malloc((size_t)(17 * n));
    uint64_t seed = 3;
    char header[400];
    for (int64_t i = 0; i < 17 * n; i++)
        bytes[i] = (unsigned char)(i < 16 * n ? quantised_draw(&seed, 256)
                                              : 120 + quantised_draw(&seed, 9));
    snprintf(header, sizeof header,
             "{\"w_blocks\":{\"dtype\":\"U8\",\"shape\":[%lld,%lld,%lld,16],\"data_offsets\":[0,"
             "%lld]},\"w_scales\":{\"dtype\":\"U8\",\"shape\":[%lld,%lld,%lld],\"data_offsets\":["
             "%lld,%lld]}}",
             (long long)experts, (long long)rows, (long long)groups, (long long)(16 * n),
             (long long)experts, (long long)rows, (long long)groups, (long long)(16 * n),
             (long long)(17 * n));
    quantised_make("large", "{}", header, bytes, (size_t)(17 * n));
    uint16_t *want = malloc((size_t)(32 * n) * sizeof *want);
    for (int64_t e = 0; e < experts; e++)
        for (int64_t c = 0; c < cols; c++)
            for (int64_t r = 0; r < rows; r++) {
                int64_t group = (e * rows + r) * groups + c / 32;
                int code = bytes[16 * group + c % 32 / 2] >> (c % 2 ? 4 : 0) & 15;
                float value = ldexpf(values[code & 7], bytes[16 * n + group] - 127);
                want[(e * cols + c) * rows + r] = bf16_of(code & 8 ? -value : value);
            }
    dpt_store *store = quantised_open(models_path("large"));
    dpt_source source = dpt_store_source(store);
    char *got = quantised_read(source, 0);
    assert_memory_equal(want, got, (size_t)(32 * n) * sizeof *want);
    quantised_check_pieces(source, 0, (char *)want, PIECES_LARGE, (uint64_t)test_comm.rank);
    dpt_store_close(store);
    free(got);
    free(want);
    free(bytes);
}

static void test_mxfp4_large(void **state) {
    (void)state;
    check_mxfp4(1, 700, 100); /* the rows of a matrix in two pieces */
    check_mxfp4(1, 1, 70000); /* a row in two */
}

/* Rows and scales longer than what is held: blocks of 3 x 4. */
static void test_fp8_large(void **state) {
    (void)state;
    enum { ROWS = 40, COLS = 9001, ACROSS = 2251, DOWN = 14, N = ROWS * COLS, S = ACROSS * DOWN };
    static unsigned char bytes[N + 4 * S];
    static float scales[S];
    static uint16_t want[N];
    uint64_t seed = 5;
    char header[400];
    for (int64_t i = 0; i < N; i++)
        bytes[i] = (unsigned char)(quantised_draw(&seed, 254) % 127 + 128 * (i % 3 == 0));
    for (int64_t i = 0; i < S; i++)
        scales[i] = (float)(1 + quantised_draw(&seed, 1000)) * 1e-3F;
    memcpy(bytes + N, scales, sizeof scales);
    for (int64_t i = 0; i < N; i++) {
        float value;
        dpt_dtype_to_f32(DPT_F8_E4M3, &bytes[i], &value, 1);
        want[i] = bf16_of(value * scales[i / COLS / 3 * ACROSS + i % COLS / 4]);
    }
    snprintf(header, sizeof header,
             "{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[%d,%d],\"data_offsets\":[0,%d]},"
             "\"w_scale_inv\":{\"dtype\":\"F32\",\"shape\":[%d,%d],\"data_offsets\":[%d,%d]}}",
             ROWS, COLS, N, DOWN, ACROSS, N, N + 4 * S);
    quantised_make("fp8", "{\"quantization_config\":{\"weight_block_size\":[3,4]}}", header, bytes,
                   sizeof bytes);
    dpt_store *store = quantised_open(models_path("fp8"));
    dpt_source source = dpt_store_source(store);
    assert_string_equal(dpt_store_config(store), "{}");
    char *got = quantised_read(source, 0);
    assert_memory_equal(want, got, sizeof want);
    quantised_check_pieces(source, 0, (char *)want, PIECES_LARGE, (uint64_t)test_comm.rank);
    dpt_store_close(store);
    free(got);
}

typedef struct lie {
    const char *label, *config, *header, *message;
    size_t bytes;
} lie;

#define T(name, dtype, shape, offsets)                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define FP8    T("w", "F8_E4M3", "[4,6]", "[0,24]") ","
#define BLOCKS T("x_blocks", "U8", "[1,2,3,16]", "[0,96]")
#define SIDES  "{\"quantization_config\":{\"weight_block_size\":"

/* Read as plain tensors, or refused by the message. */
static const lie lies[] = {
    {"too few scales", SIDES "[2,2]}}", "{" FP8 T("w_scale_inv", "F32", "[2,2]", "[24,40]") "}",
     "needs one scale", 40},
    {"too many scales", SIDES "[2,2]}}", "{" FP8 T("w_scale_inv", "F32", "[3,3]", "[24,60]") "}",
     "needs one scale", 60},
    {"scales that are turned", SIDES "[2,2]}}",
     "{" FP8 T("w_scale_inv", "F32", "[3,2]", "[24,48]") "}", "block of 2 x 2", 48},
    {"scales of three sides", SIDES "[2,2]}}",
     "{" FP8 T("w_scale_inv", "F32", "[1,2,3]", "[24,48]") "}", "needs one scale", 48},
    {"no scales", SIDES "[2,2]}}", "{" FP8 T("w_scale_inv", "F32", "[0,3]", "[24,24]") "}",
     "needs one scale", 24},
    {"blocks of 0", SIDES "[0,2]}}", "{" FP8 T("w_scale_inv", "F32", "[2,3]", "[24,48]") "}",
     "two sides of at least 1", 48},
    {"blocks below 0", SIDES "[2,-2]}}", "{" FP8 T("w_scale_inv", "F32", "[2,3]", "[24,48]") "}",
     "two sides of at least 1", 48},
    {"a block of one side", SIDES "[2]}}", "{" FP8 T("w_scale_inv", "F32", "[2,3]", "[24,48]") "}",
     "two sides of at least 1", 48},
    {"a block of 2^63", SIDES "[9223372036854775807,2]}}",
     "{" FP8 T("w_scale_inv", "F32", "[2,3]", "[24,48]") "}", "needs one scale", 48},
    {"no blocks", SIDES "null}}", "{" FP8 T("w_scale_inv", "F32", "[2,3]", "[24,48]") "}",
     "needs one scale, or one for each row", 48},
    {"scales of a vector", "{}",
     "{" T("w", "F8_E4M3", "[6]", "[0,6]") "," T("w_scale_inv", "F32", "[6]", "[6,30]") "}",
     "needs one scale", 30},
    {"MXFP4 of another width", "{}",
     "{" T("x_blocks", "U8", "[1,2,3,8]", "[0,48]") "," T("x_scales", "U8", "[1,2,3]",
                                                          "[48,54]") "}",
     "does not fit x_blocks", 54},
    {"MXFP4 of three sides", "{}",
     "{" T("x_blocks", "U8", "[2,3,16]", "[0,96]") "," T("x_scales", "U8", "[2,3]", "[96,102]") "}",
     "does not fit x_blocks", 102},
    {"MXFP4 with scales for others", "{}",
     "{" BLOCKS "," T("x_scales", "U8", "[1,3,2]", "[96,102]") "}", "does not fit x_blocks", 102},
    {"MXFP4 with f32 scales", "{}", "{" BLOCKS "," T("x_scales", "F32", "[1,2,3]", "[96,120]") "}",
     "does not fit x_blocks", 120},
    {"MXFP4 next to the plain tensor", "{}",
     "{" BLOCKS
     "," T("x_scales", "U8", "[1,2,3]", "[96,102]") "," T("x", "BF16", "[1]", "[102,104]") "}",
     "without _blocks too", 104},
};

/* What cannot be dequantised is there as it lies, and no model. */
static const lie unusable[] = {
    {"f8 without scales", "{}", "{" T("w", "F8_E4M3", "[4,6]", "[0,24]") "}", "FP8 without scales",
     24},
    {"f8 with scales of f64", "{}",
     "{" T("a.weight", "F8_E4M3", "[4,6]", "[0,24]") "," T("a.weight_scale_inv", "F64", "[1]",
                                                           "[24,32]") "}",
     "quantised weights", 32},
    {"codes of 4 bits in i8", "{}",
     "{" T("a.weight", "I8", "[4,6]", "[0,24]") "," T("a.weight_scale_inv", "F32", "[1]",
                                                      "[24,28]") "}",
     "scales of weights that are not f8", 28},
    {"i8 with zero points", "{}",
     "{" T("a.weight", "I8", "[4,6]", "[0,24]") "," T("a.weight_scale", "F32", "[4,1]",
                                                      "[24,40]") "," T("a.weight_zero_point", "I8",
                                                                       "[4,1]", "[40,44]") "}",
     "symmetric", 44},
    {"NVFP4", "{}",
     "{" T("a.weight", "U8", "[4,6]", "[0,24]") "," T("a.weight_scale", "F8_E4M3", "[4,1]",
                                                      "[24,28]") "," T("a.weight_scale_2", "F32",
                                                                       "[]", "[28,32]") "}",
     "quantised weights", 32},
    {"MXFP4 without scales", "{}", "{" T("a_proj_blocks", "U8", "[1,2,3,16]", "[0,96]") "}",
     "MXFP4 without its scales", 96},
};

static void expect_message(const lie *l) {
    if (strstr(dpt_error_message(), l->message) == NULL)
        fail_msg("%s: \"%s\"", l->label, dpt_error_message());
    dpt_error_clear();
}

static void test_lies(void **state) {
    (void)state;
    dpt_store *store = NULL;
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        quantised_make("lie", lies[i].config, lies[i].header, NULL, lies[i].bytes);
        assert_int_equal(dpt_store_open(&test_comm, models_path("lie"), &store), DPT_ERR_INPUT);
        assert_null(store);
        assert_non_null(strstr(dpt_error_message(), "lie/model.safetensors"));
        expect_message(&lies[i]);
    }
    for (size_t i = 0; i < sizeof unusable / sizeof unusable[0]; i++) {
        quantised_make("lie", unusable[i].config, unusable[i].header, NULL, unusable[i].bytes);
        store = quantised_open(models_path("lie"));
        assert_int_equal(dpt_store_check_usable(store), DPT_ERR_INPUT);
        expect_message(&unusable[i]);
        dpt_store_close(store);
    }
}

/* Scales that are no numbers, of both kinds; those that are not needed are not looked at. */
static void test_scales_that_are_not_finite(void **state) {
    (void)state;
    unsigned char bytes[102] = {0};
    const float scales[6] = {1.0F, 1.0F, NAN, 1.0F, INFINITY, 1.0F};
    uint16_t out[192];
    memcpy(bytes + 24, scales, sizeof scales);
    quantised_make("scale", SIDES "[2,2]}}",
                   "{" FP8 T("w_scale_inv", "F32", "[2,3]", "[24,48]") "}", bytes, 48);
    dpt_store *store = quantised_open(models_path("scale"));
    dpt_source source = dpt_store_source(store);
    dpt_range good = {.tensor = 0, .ig = 6, .n = 4}, bad = {.tensor = 0, .ig = 0, .n = 24};
    assert_int_equal(source.read(source.ctx, good, out), DPT_OK);
    assert_int_equal(source.read(source.ctx, bad, out), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "scale 2 of tensor w_scale_inv is NaN"));
    dpt_error_clear();
    dpt_store_close(store);
    memset(bytes, 1, sizeof bytes);
    bytes[96 + 4] = 255;
    quantised_make("scale", "{}", "{" BLOCKS "," T("x_scales", "U8", "[1,2,3]", "[96,102]") "}",
                   bytes, 102);
    store = quantised_open(models_path("scale"));
    source = dpt_store_source(store);
    bad.n = 192;
    good = (dpt_range){.tensor = 0, .ig = 6, .n = 1}; /* of the first row */
    assert_int_equal(source.read(source.ctx, good, out), DPT_OK);
    assert_int_equal(source.read(source.ctx, bad, out), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "scale 4 of tensor x_scales is NaN"));
    dpt_error_clear();
    dpt_store_close(store);
}

/* A model of f8 in blocks of 128 x 128 and MXFP4, both of several cells, and a plain tensor. */
enum {
    ROWS = 1300,
    COLS = 1000,
    F8 = ROWS * COLS,
    DOWN = 11,
    ACROSS = 8,
    EXPERTS = 2,
    WIDTH = 700,
    GROUPS = 60,
    CODES = EXPERTS * WIDTH * GROUPS * 16,
    SCALES = CODES / 16,
    PLAIN = 10,
    AT_PLAIN = 0,
    AT_F8 = AT_PLAIN + 2 * PLAIN,
    AT_GRID = AT_F8 + F8,
    AT_CODES = AT_GRID + 4 * DOWN * ACROSS,
    AT_SCALES = AT_CODES + CODES,
    ALL = AT_SCALES + SCALES
};

static char *again_make(const char *name) {
    char header[700], *bytes = malloc(ALL);
    float grid[DOWN * ACROSS];
    uint64_t seed = 11;
    for (int64_t i = 0; i < ALL; i++)
        bytes[i] = (char)(quantised_draw(&seed, 100) + 1 + 128 * quantised_draw(&seed, 2));
    for (int64_t i = AT_SCALES; i < ALL; i++)
        bytes[i] = (char)(115 + quantised_draw(&seed, 9));
    for (int i = 0; i < DOWN * ACROSS; i++)
        grid[i] = (float)(1 + quantised_draw(&seed, 1000)) * 1e-5F;
    memcpy(bytes + AT_GRID, grid, sizeof grid);
    snprintf(header, sizeof header,
             "{\"a\":{\"dtype\":\"BF16\",\"shape\":[%d],\"data_offsets\":[%d,%d]},"
             "\"f\":{\"dtype\":\"F8_E4M3\",\"shape\":[%d,%d],\"data_offsets\":[%d,%d]},"
             "\"f_scale_inv\":{\"dtype\":\"F32\",\"shape\":[%d,%d],\"data_offsets\":[%d,%d]},"
             "\"m_blocks\":{\"dtype\":\"U8\",\"shape\":[%d,%d,%d,16],\"data_offsets\":[%d,%d]},"
             "\"m_scales\":{\"dtype\":\"U8\",\"shape\":[%d,%d,%d],\"data_offsets\":[%d,%d]}}",
             PLAIN, AT_PLAIN, AT_F8, ROWS, COLS, AT_F8, AT_GRID, DOWN, ACROSS, AT_GRID, AT_CODES,
             EXPERTS, WIDTH, GROUPS, AT_CODES, AT_SCALES, EXPERTS, WIDTH, GROUPS, AT_SCALES, ALL);
    quantised_make(name, "{\"quantization_config\":{\"quant_method\":\"fp8\"}}", header, bytes,
                   ALL);
    return bytes;
}

/* The edit: some values of some blocks, the same on all ranks. */
static float again_edit(int tensor, int64_t ig, float value) {
    uint64_t seed = (uint64_t)ig * 3 + (uint64_t)tensor;
    bool block = tensor != 1 || (ig / COLS / 128 + ig % COLS / 128) % 3 != 0;
    return block && quantised_draw(&seed, 97) == 5 ? value * 1.37F + 1e-3F : value;
}

static float bf16_round(float value) {
    uint16_t code = bf16_of(value);
    dpt_dtype_to_f32(DPT_BF16, &code, &value, 1);
    return value;
}

/* bytes become those of the edited model, and `want` (bf16) what its reader sees; post (bf16) is what it was. */
static void again_f8(char *bytes, const uint16_t *post, uint16_t *want) {
    float grid[DOWN * ACROSS], largest[DOWN * ACROSS] = {0};
    bool changed[DOWN * ACROSS] = {false};
    memcpy(grid, bytes + AT_GRID, sizeof grid);
    for (int64_t i = 0; i < F8; i++) {
        float old, now;
        int64_t block = i / COLS / 128 * ACROSS + i % COLS / 128;
        dpt_dtype_to_f32(DPT_BF16, &post[i], &old, 1);
        now = bf16_round(again_edit(1, i, old));
        want[i] = bf16_of(now);
        changed[block] = changed[block] || want[i] != post[i];
        largest[block] = fmaxf(largest[block], fabsf(now));
    }
    for (int b = 0; b < DOWN * ACROSS; b++)
        grid[b] = changed[b] ? largest[b] / 448.0F : grid[b];
    for (int64_t i = 0; i < F8; i++) {
        float now;
        int64_t block = i / COLS / 128 * ACROSS + i % COLS / 128;
        dpt_dtype_to_f32(DPT_BF16, &want[i], &now, 1);
        now /= grid[block];
        if (changed[block])
            dpt_dtype_from_f32(DPT_F8_E4M3, &now, bytes + AT_F8 + i, 1);
        dpt_dtype_to_f32(DPT_F8_E4M3, bytes + AT_F8 + i, &now, 1);
        want[i] = bf16_of(now * grid[block]);
    }
    memcpy(bytes + AT_GRID, grid, sizeof grid);
}

static void again_group(float *values, unsigned char *scale, bool changed, char *codes) {
    static const float numbers[8] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
    float largest = 0.0F;
    for (int k = 0; k < 32; k++)
        largest = fmaxf(largest, fabsf(values[k]));
    for (int power = 0; changed && power < 255; power++)
        if (largest <= 6.0 * ldexp(1.0, power - 127)) {
            *scale = (unsigned char)(largest > 0 ? power : 127);
            break;
        }
    for (int k = 0; k < 32; k++) {
        double size = fabs(ldexp(values[k], 127 - *scale));
        int best = 0;
        for (int c = 1; c < 8; c++) {
            double gap = fabs(size - numbers[c]) - fabs(size - numbers[best]);
            best = gap < 0 || (gap == 0 && c % 2 == 0) ? c : best;
        }
        int code = best | (signbit(values[k]) ? 8 : 0);
        codes[k / 2] = (char)(k % 2 == 0 ? code : codes[k / 2] | code << 4);
        values[k] = copysignf(ldexpf(numbers[best], *scale - 127), values[k]);
    }
}

static void again_mxfp4(char *bytes, const uint16_t *post, uint16_t *want) {
    for (int64_t g = 0; g < SCALES; g++) {
        int64_t e = g / GROUPS / WIDTH, r = g / GROUPS % WIDTH, first = g % GROUPS * 32;
        float values[32];
        bool changed = false;
        for (int k = 0; k < 32; k++) {
            int64_t ig = (e * GROUPS * 32 + first + k) * WIDTH + r;
            float old;
            dpt_dtype_to_f32(DPT_BF16, &post[ig], &old, 1);
            values[k] = bf16_round(again_edit(2, ig, old));
            changed = changed || values[k] != old;
        }
        again_group(values, (unsigned char *)bytes + AT_SCALES + g, changed,
                    bytes + AT_CODES + 16 * g);
        for (int k = 0; k < 32; k++)
            want[(e * GROUPS * 32 + first + k) * WIDTH + r] = bf16_of(values[k]);
    }
}

/* The edit in the own cells of a field. */
static void again_fill(const dpt_shard *shard, dpt_source source, dpt_field *field) {
    for (int64_t c = shard->rank_first[test_comm.rank]; c < shard->rank_first[test_comm.rank + 1];
         c++) {
        dpt_range cell = dpt_shard_cell(shard, c);
        uint16_t *values = dpt_field_cell(field, c);
        assert_int_equal(source.read(source.ctx, cell, values), DPT_OK);
        for (int64_t i = 0; i < cell.n; i++) {
            float value;
            dpt_dtype_to_f32(DPT_BF16, &values[i], &value, 1);
            values[i] = bf16_of(again_edit(cell.tensor, cell.ig + i, value));
        }
    }
}

static void again_check(const dpt_shard *shard, dpt_field *field, uint16_t *const *want) {
    for (int64_t c = shard->rank_first[test_comm.rank]; c < shard->rank_first[test_comm.rank + 1];
         c++) {
        dpt_range cell = dpt_shard_cell(shard, c);
        if (cell.tensor > 0)
            assert_memory_equal(dpt_field_cell(field, c), want[cell.tensor] + cell.ig,
                                (size_t)cell.n * sizeof **want);
    }
}

/* Codes and scales lie somewhere in the file as they do in `bytes`. */
static void again_check_file(const char *path, const char *bytes) {
    static const int64_t parts[][2] = {
        {AT_F8, F8}, {AT_GRID, 4 * DOWN * ACROSS}, {AT_CODES, CODES}, {AT_SCALES, SCALES}};
    char *all = malloc(2 * ALL);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t n = fread(all, 1, 2 * ALL, file);
    fclose(file);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        assert_non_null(memmem(all, n, bytes + parts[i][0], (size_t)parts[i][1]));
    free(all);
}

/* An edited model is rounded to the form of the other, in memory and in the file: every byte. */
static void test_again(void **state) {
    (void)state;
    char *bytes = again_make("form"), file[600];
    dpt_store *store = quantised_open(models_path("form"));
    dpt_source source = dpt_store_source(store);
    dpt_shard shard;
    dpt_field *field = NULL;
    dpt_quantiser *quantiser = NULL;
    dpt_store_writer *writer = NULL;
    uint16_t *post[3] = {NULL}, *want[3] = {NULL};
    for (int t = 1; t < 3; t++) {
        post[t] = (uint16_t *)(void *)quantised_read(source, t);
        want[t] = malloc((size_t)source.catalog->tensors[t].numel * sizeof **want);
    }
    assert_int_equal(dpt_shard_create(source.catalog, test_comm.size, &shard), DPT_OK);
    assert_int_equal(dpt_field_create(&test_comm, source.catalog, &shard, &field), DPT_OK);
    again_fill(&shard, source, field);
    assert_int_equal(dpt_quantiser_create(&test_comm, store, &shard, &quantiser), DPT_OK);
    dpt_store_options options = {.format = DPT_STORE_SAFETENSORS,
                                 .config = dpt_quantiser_config(quantiser)};
    assert_int_equal(dpt_store_create(&test_comm, models_path("again"),
                                      dpt_quantiser_catalog(quantiser),
                                      dpt_quantiser_shard(quantiser), &options, &writer),
                     DPT_OK);
    assert_int_equal(dpt_quantiser_apply(quantiser, field, writer), DPT_OK);
    assert_int_equal(dpt_store_finish(writer, DPT_OK), DPT_OK);
    again_f8(bytes, post[1], want[1]);
    again_mxfp4(bytes, post[2], want[2]);
    again_check(&shard, field, want);
    assert_int_equal(dpt_quantiser_apply(quantiser, field, NULL),
                     DPT_OK); /* nothing is left to round */
    again_check(&shard, field, want);
    dpt_store *again = quantised_open(models_path("again"));
    for (int t = 1; t < 3; t++) {
        char *got = quantised_read(dpt_store_source(again), t);
        assert_memory_equal(got, want[t], (size_t)source.catalog->tensors[t].numel * sizeof **want);
        free(got);
        free(post[t]);
        free(want[t]);
    }
    snprintf(file, sizeof file, "%s/model.safetensors", models_path("again"));
    again_check_file(file, bytes);
    assert_int_equal(dpt_store_verify(&test_comm, models_path("again"), NULL, NULL, NULL, NULL),
                     DPT_OK);
    dpt_store_close(again);
    dpt_quantiser_destroy(quantiser);
    dpt_field_destroy(field);
    dpt_shard_destroy(&shard);
    dpt_store_close(store);
    free(bytes);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_transformers),
        cmocka_unit_test_setup_teardown(test_mxfp4_large, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_fp8_large, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_again, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_lies, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_scales_that_are_not_finite, models_setup,
                                        models_teardown),
    };
    return test_mpi_main(argc, argv, tests);
}

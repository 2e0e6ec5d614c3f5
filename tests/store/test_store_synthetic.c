/* ranks: 1 2 3 */
#include "store_models.h"

#include "deltapath/store/owned.h"
#include "deltapath/store/synthetic.h"
#include "golden/synthetic_golden.h"

#include <math.h>

static const char CONFIG[] = "{\"model_type\": \"llama\"}";
enum { GOLDEN = sizeof synthetic_golden / sizeof synthetic_golden[0], RUN = 6 };

/* A model of one tensor in a new folder. */
static const char *write_one(const char *folder, const char *name, dpt_dtype dtype, int64_t numel,
                             dpt_spread spread, int64_t seed, double delta) {
    const char *path = models_path(folder);
    dpt_catalog catalog;
    dpt_catalog_init(&catalog);
    assert_int_equal(dpt_catalog_add(&catalog, name, dtype, 1, &numel), DPT_OK);
    const dpt_synthetic_model model = {
        .config = CONFIG, .catalog = &catalog, .values = &spread, .seed = seed, .delta = delta};
    if (test_comm.rank == 0)
        assert_int_equal(dpt_synthetic_write(path, &model), DPT_OK);
    MPI_Barrier(MPI_COMM_WORLD);
    dpt_catalog_destroy(&catalog);
    return path;
}

/* Elements [ig, ig + n) of the only tensor, in fp32. */
static void read_run(dpt_store *store, int64_t ig, int64_t n, float *values) {
    dpt_source source = dpt_store_source(store);
    float raw[4096];
    assert_true(n <= 4096);
    assert_int_equal(source.read(source.ctx, (dpt_range){.tensor = 0, .ig = ig, .n = n}, raw),
                     DPT_OK);
    dpt_dtype_to_f32(dpt_store_catalog(store)->tensors[0].dtype, raw, values, n);
}

/* Values are those of tools/reference/synthetic_golden.py, on every rank, in runs that begin anywhere. */
static void test_values(void **state) {
    (void)state;
    for (int i = 0; i < GOLDEN; i++) {
        char folder[32];
        dpt_dtype dtype;
        dpt_store *store = NULL;
        float values[RUN + 2];
        snprintf(folder, sizeof folder, "golden%d", i);
        assert_true(dpt_dtype_parse(synthetic_golden[i].dtype, &dtype));
        const dpt_spread spread = {synthetic_golden[i].mean, synthetic_golden[i].deviation};
        const char *path = write_one(folder, synthetic_golden[i].name, dtype, INT64_C(1) << 34,
                                     spread, synthetic_golden[i].seed, synthetic_golden[i].delta);
        assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
        assert_int_equal(dpt_store_get_format(store), DPT_STORE_SYNTHETIC);
        assert_string_equal(dpt_store_config(store), CONFIG);
        for (int from = 0; from < RUN; from++) {
            read_run(store, synthetic_golden[i].ig + from, RUN - from, values);
            for (int k = from; k < RUN; k++)
                assert_true(values[k - from] == synthetic_golden[i].values[k]);
        }
        test_same_on_all(dpt_store_fingerprint(store));
        dpt_store_close(store);
    }
}

/* Mean and deviation, and those of the delta, are those that are said. */
static void test_distribution(void **state) {
    (void)state;
    enum { N = 4096, RUNS = 64 };
    const dpt_spread spread = {.mean = 0.25, .deviation = 2.0};
    dpt_store *pre = NULL, *post = NULL;
    static float a[N], b[N];
    double sum = 0.0, squares = 0.0, moved = 0.0;
    assert_int_equal(
        dpt_store_open(&test_comm, write_one("pre", "w", DPT_F32, N * RUNS, spread, 1, 0.0), &pre),
        DPT_OK);
    assert_int_equal(dpt_store_open(&test_comm,
                                    write_one("post", "w", DPT_F32, N * RUNS, spread, 1, 0.1),
                                    &post),
                     DPT_OK);
    assert_true(dpt_store_fingerprint(pre) != dpt_store_fingerprint(post));
    for (int64_t i = 0; i < RUNS; i++) {
        read_run(pre, i * N, N, a);
        read_run(post, i * N, N, b);
        for (int k = 0; k < N; k++) {
            sum += a[k];
            squares += (a[k] - 0.25) * (a[k] - 0.25);
            moved += (double)(b[k] - a[k]) * (b[k] - a[k]);
        }
    }
    const double n = (double)N * RUNS; /* tolerances: four standard errors */
    assert_true(fabs(sum / n - 0.25) < 4.0 * 2.0 / sqrt(n));
    assert_true(fabs(sqrt(squares / n) / 2.0 - 1.0) < 4.0 * 0.66 / sqrt(n));
    assert_true(fabs(sqrt(moved / n) / 0.2 - 1.0) < 4.0 * 0.66 / sqrt(n));
    dpt_store_close(pre);
    dpt_store_close(post);
}

/* Rows of a block, as a mesh asks for them. */
static void test_blocks(void **state) {
    (void)state;
    const dpt_spread spread = {.deviation = 1.0};
    dpt_store *store = NULL;
    float block[3 * 5], values[100];
    assert_int_equal(
        dpt_store_open(&test_comm, write_one("blocks", "w", DPT_F32, 100, spread, 0, 0.0), &store),
        DPT_OK);
    dpt_source source = dpt_store_source(store);
    const dpt_block want = {.tensor = 0, .ig = 13, .rows = 3, .cols = 5, .stride = 20};
    void *const outs[] = {block};
    assert_int_equal(source.fetch(source.ctx, 1, &want, outs), DPT_OK);
    read_run(store, 0, 100, values);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 5; j++)
            assert_true(block[5 * i + j] == values[13 + 20 * i + j]);
    assert_int_equal(source.read(source.ctx, (dpt_range){.tensor = 0, .ig = 99, .n = 2}, values),
                     DPT_ERR_INTERNAL);
    dpt_error_clear();
    dpt_store_close(store);
}

static void refuse(const char *text, const char *says) {
    const char *path = models_path("broken");
    char file[600], command[600];
    dpt_store *store = NULL;
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_comm.rank == 0) {
        snprintf(command, sizeof command, "mkdir -p '%s'", path);
        assert_int_equal(system(command), 0);
        snprintf(file, sizeof file, "%s/config.json", path);
        FILE *out = fopen(file, "w");
        assert_true(out != NULL && fputs(CONFIG, out) >= 0 && fclose(out) == 0);
        snprintf(file, sizeof file, "%s/" DPT_SYNTHETIC_FILE, path);
        out = fopen(file, "w");
        assert_true(out != NULL && fputs(text, out) >= 0 && fclose(out) == 0);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_ERR_INPUT);
    assert_null(store);
    test_error_says(says);
}

#define HEAD "{\"format\": \"deltapath-synthetic\", \"version\": 1, "
#define REST "\"seed\": 1, \"delta\": 0.1, \"tensors\": {\"w\": {"

static void test_refused(void **state) {
    (void)state;
    refuse("{", "no JSON object");
    refuse("{\"format\": \"deltapath-synthetic\", \"version\": 2}", "format and version");
    refuse(HEAD "\"seed\": -1}", "seed");
    refuse(HEAD "\"seed\": 1, \"delta\": \"x\"}", "delta");
    refuse(HEAD "\"seed\": 1, \"delta\": 1e9}", "delta");
    refuse(HEAD "\"seed\": 1, \"delta\": 0.1}", "tensors");
    refuse(HEAD "\"seed\": 1, \"delta\": 0.1, \"tensors\": {}}", "no tensors");
    refuse(HEAD REST "}}}", "dtype");
    refuse(HEAD REST "\"dtype\": \"I8\"}}}", "dtype");
    refuse(HEAD REST "\"dtype\": \"BF16\", \"shape\": [-1], \"mean\": 0, \"deviation\": 1}}}", "w");
    refuse(HEAD REST "\"dtype\": \"BF16\", \"shape\": [2], \"mean\": 0, \"deviation\": -1}}}", "w");
    refuse(HEAD REST "\"dtype\": \"BF16\", \"shape\": [2], \"deviation\": 1}}}", "w");
    refuse(HEAD REST "\"dtype\": \"BF16\", \"shape\": [4611686018427387904, 4], \"mean\": 0, "
                     "\"deviation\": 1}}}",
           "overflows");
    refuse(HEAD REST "\"dtype\": \"F32\", \"shape\": [2305843009213693951], \"mean\": 0, "
                     "\"deviation\": 1}, \"v\": {\"dtype\": \"F32\", \"shape\": [2], \"mean\": 0, "
                     "\"deviation\": 1}}}",
           "overflows");
}

/* It is a model: nothing is put into its folder, and it is not made anew over what is there. */
static void test_never_an_output(void **state) {
    (void)state;
    const dpt_spread spread = {.deviation = 1.0};
    const char *path = write_one("input", "w", DPT_F32, 8, spread, 0, 0.0);
    char below[600];
    dpt_catalog catalog;
    snprintf(below, sizeof below, "%s/out", path);
    dpt_catalog_init(&catalog);
    assert_int_equal(dpt_catalog_add(&catalog, "w", DPT_F32, 1, &(int64_t){8}), DPT_OK);
    const dpt_synthetic_model model = {.config = CONFIG, .catalog = &catalog, .values = &spread};
    if (test_comm.rank == 0) {
        assert_int_equal(dpt_owned_check_place(below), DPT_ERR_OUTPUT);
        dpt_error_clear();
        assert_int_equal(dpt_synthetic_write(path, &model), DPT_ERR_OUTPUT);
        dpt_error_clear();
    }
    const dpt_store_options options = {.format = DPT_STORE_SAFETENSORS, .overwrite = true};
    assert_int_equal(models_write(&catalog, path, &options), DPT_ERR_OUTPUT);
    dpt_error_clear();
    dpt_catalog_destroy(&catalog);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_distribution, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_blocks, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_refused, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_never_an_output, models_setup, models_teardown),
    };
    return test_mpi_main(argc, argv, tests);
}

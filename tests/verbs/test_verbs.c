/* ranks: 1 2 3 */
#include "store/store_models.h"

#include "deltapath/verbs/convert.h"
#include "deltapath/verbs/diff.h"
#include "deltapath/verbs/inspect.h"
#include "deltapath/verbs/verify.h"

#include <math.h>

/* A model of two tensors whose values are given by a function of the index. */
typedef float (*value_fn)(int tensor, int64_t ig);

enum { ROWS = 1200, COLS = 1000 };

static void write_model(const char *path, dpt_store_format format, dpt_dtype dtype, value_fn fn) {
    dpt_catalog catalog;
    dpt_shard shard;
    dpt_store_writer *writer = NULL;
    const int64_t matrix[] = {ROWS, COLS}, vector[] = {100};
    dpt_catalog_init(&catalog);
    assert_int_equal(dpt_catalog_add(&catalog, "a.matrix", dtype, 2, matrix), DPT_OK);
    assert_int_equal(dpt_catalog_add(&catalog, "b.vector", DPT_F32, 1, vector), DPT_OK);
    assert_int_equal(dpt_shard_create(&catalog, test_comm.size, &shard), DPT_OK);
    dpt_store_options options = {.format = format,
                                 .config = "{\"model_type\":\"llama\"}",
                                 .provenance = "{\"program\":\"deltapath\",\"verb\":\"convert\"}",
                                 .overwrite = true};
    dpt_guard_clear(); /* models are replaced that were read */
    assert_int_equal(dpt_store_create(&test_comm, path, &catalog, &shard, &options, &writer),
                     DPT_OK);
    dpt_sink sink = dpt_store_writer_sink(writer);
    float *values = malloc(sizeof *values * DPT_CELL);
    char *stored = malloc(sizeof *values * DPT_CELL);
    dpt_status st = DPT_OK;
    for (int64_t c = shard.rank_first[test_comm.rank]; c < shard.rank_first[test_comm.rank + 1];
         c++) {
        dpt_range range = dpt_shard_cell(&shard, c);
        for (int64_t i = 0; i < range.n; i++)
            values[i] = fn(range.tensor, range.ig + i);
        dpt_dtype_from_f32(catalog.tensors[range.tensor].dtype, values, stored, range.n);
        st = dpt_status_worse(st, sink.write(sink.ctx, range, stored));
    }
    free(values);
    free(stored);
    assert_int_equal(dpt_store_finish(writer, st), DPT_OK);
    dpt_shard_destroy(&shard);
    dpt_catalog_destroy(&catalog);
}

static float zero(int tensor, int64_t ig) {
    (void)tensor;
    (void)ig;
    return 0.0f;
}

/* |delta| of the matrix: a quarter each of 0, 1, 2, 3. */
static float quarters(int tensor, int64_t ig) {
    if (tensor == 1)
        return 1.0f;
    return (ig % 2 ? -1.0f : 1.0f) * (float)(ig % 4);
}

static float with_nan(int tensor, int64_t ig) {
    return tensor == 0 && ig == 1100007 ? NAN : 1.0f;
}

static bool same_files(const char *a, const char *b) {
    char command[1200];
    int differ = 0;
    snprintf(command, sizeof command, "cmp -s '%s' '%s'", a, b);
    if (test_comm.rank == 0)
        differ = system(command) != 0;
    MPI_Bcast(&differ, 1, MPI_INT, 0, test_comm.mpi);
    return !differ;
}

static dpt_status convert(const char *from, const char *to, const char *dtype) {
    dpt_convert_options options = {.source = from, .target = to, .dtype = dtype};
    return dpt_convert_run(&test_comm, &options);
}

static dpt_status verify(const char *path) {
    dpt_verify_options options = {.path = path, .out = test_comm.rank == 0 ? tmpfile() : NULL};
    dpt_status st = dpt_verify_run(&test_comm, &options);
    if (options.out != NULL)
        fclose(options.out);
    return st;
}

static void test_convert(void **state) {
    (void)state;
    char h5[512], st[512], back[512], bytes[600];
    snprintf(h5, sizeof h5, "%s", models_path("a.h5"));
    snprintf(st, sizeof st, "%s", models_path("b"));
    snprintf(back, sizeof back, "%s", models_path("c"));
    snprintf(bytes, sizeof bytes, "%s/model.safetensors", st);
    write_model(st, DPT_STORE_SAFETENSORS, DPT_BF16, quarters);
    assert_int_equal(convert(st, h5, NULL), DPT_OK);
    assert_int_equal(verify(h5), DPT_OK);
    assert_int_equal(convert(h5, back, "same"), DPT_OK);
    assert_true(same_files(bytes, models_path("c/model.safetensors")));
    /* bf16 -> f32 -> bf16 loses nothing. */
    assert_int_equal(convert(st, models_path("wide.h5"), "f32"), DPT_OK);
    assert_int_equal(convert(models_path("wide.h5"), models_path("narrow"), "bf16"), DPT_OK);
    assert_int_equal(verify(models_path("narrow")), DPT_OK);
    assert_int_equal(convert(st, h5, NULL), DPT_ERR_OUTPUT);
    dpt_error_clear();
    assert_int_equal(convert(st, models_path("x.h5"), "f12"), DPT_ERR_USAGE);
    dpt_error_clear();
    assert_int_equal(convert(models_path("none"), models_path("x.h5"), NULL), DPT_ERR_INPUT);
    dpt_error_clear();
    assert_int_not_equal(access(models_path("x.h5"), F_OK), 0);
}

static void flip_last_byte(const char *path) {
    if (test_comm.rank == 0) {
        FILE *file = fopen(path, "r+b");
        fseek(file, -1, SEEK_END);
        int byte = fgetc(file);
        fseek(file, -1, SEEK_END);
        fputc(byte ^ 1, file);
        fclose(file);
    }
    MPI_Barrier(test_comm.mpi);
}

static void test_verify(void **state) {
    (void)state;
    write_model(models_path("v"), DPT_STORE_SAFETENSORS, DPT_F16, quarters);
    assert_int_equal(verify(models_path("v")), DPT_OK);
    flip_last_byte(models_path("v/model.safetensors"));
    assert_int_equal(verify(models_path("v")), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "XXH3"));
    dpt_error_clear();
    write_model(models_path("n.h5"), DPT_STORE_HDF5, DPT_BF16, with_nan);
    assert_int_equal(verify(models_path("n.h5")), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "a.matrix"));
    assert_non_null(strstr(dpt_error_message(), "1100007"));
    dpt_error_clear();
}

/* The last field-separated numbers of a line of the table that begins with a name. */
static int read_csv(const char *path, const char *name, double *numbers, int maximum) {
    FILE *file = fopen(path, "r");
    char line[1024];
    int count = 0;
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line + 1, name, strlen(name)) != 0)
            continue;
        char *at = strstr(line, "]\",");
        for (at = at != NULL ? at + 3 : NULL; at != NULL && count < maximum; count++) {
            char *end = NULL;
            numbers[count] = strtod(at, &end);
            if (end == at)
                numbers[count] = NAN;
            at = strchr(at, ',');
            at = at != NULL ? at + 1 : NULL;
        }
    }
    fclose(file);
    return count;
}

static void test_diff(void **state) {
    (void)state;
    char pre[512], post[512], csv[512];
    snprintf(pre, sizeof pre, "%s", models_path("pre"));
    snprintf(post, sizeof post, "%s", models_path("post.h5"));
    snprintf(csv, sizeof csv, "%s", models_path("diff.csv"));
    write_model(pre, DPT_STORE_SAFETENSORS, DPT_F32, zero);
    write_model(post, DPT_STORE_HDF5, DPT_BF16, quarters);
    FILE *out = test_comm.rank == 0 ? tmpfile() : NULL;
    dpt_diff_options options = {.pre = pre, .post = post, .csv = csv, .out = out, .iterations = 50};
    assert_int_equal(dpt_diff_run(&test_comm, &options), DPT_OK);
    double x[13];
    assert_int_equal(read_csv(csv, "a.matrix", x, 13), 13);
    double n = (double)ROWS * COLS;
    assert_true(x[0] == 0.0 && isnan(x[3]) && isnan(x[6])); /* |pre|, relative, cosine */
    assert_true(fabs(x[1] - sqrt(n * 14 / 4)) < 1e-9 * x[1]);
    assert_true(x[1] == x[2]);
    /* Every row is (0, -1, 2, -3) repeated: rank one, so the norm is the singular value. */
    assert_true(fabs(x[4] - x[2]) < 1e-4 * x[2]);
    assert_true(x[5] == 0.25 && x[7] == 1.5);
    assert_true(x[8] == 0 && x[9] == 1 && x[10] == 3 && x[11] == 3 && x[12] == 3);
    MPI_Barrier(test_comm.mpi);
    assert_int_equal(dpt_diff_run(&test_comm, &options), DPT_ERR_OUTPUT);
    assert_non_null(strstr(dpt_error_message(), "exists already"));
    dpt_error_clear();
    options.overwrite = true;
    write_model(post, DPT_STORE_HDF5, DPT_BF16, with_nan);
    assert_int_equal(dpt_diff_run(&test_comm, &options), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "1100007"));
    dpt_error_clear();
    if (out != NULL)
        fclose(out);
}

static void test_inspect(void **state) {
    (void)state;
    write_model(models_path("i.h5"), DPT_STORE_HDF5, DPT_BF16, quarters);
    for (int json = 0; json < 2; json++) {
        FILE *out = test_comm.rank == 0 ? tmpfile() : NULL;
        dpt_inspect_options options = {.model = models_path("i.h5"), .json = json, .out = out};
        assert_int_equal(dpt_inspect_run(&test_comm, &options), DPT_OK);
        if (out == NULL)
            continue;
        char text[4096] = "";
        rewind(out);
        assert_true(fread(text, 1, sizeof text - 1, out) > 0);
        assert_non_null(strstr(text, "a.matrix"));
        assert_non_null(strstr(text, "2400000"));
        assert_non_null(strstr(text, "llama"));
        fclose(out);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_convert, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_verify, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_diff, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_inspect, models_setup, models_teardown),
    };
    return test_mpi_main(argc, argv, tests);
}

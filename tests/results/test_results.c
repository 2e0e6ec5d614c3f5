/* ranks: 1 2 4 */
#include "support/test_mpi.h"
#include "support/test_near.h"

#include "deltapath/base/file.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/sealed.h"
#include "deltapath/hdf5/hdf5_image.h"
#include "deltapath/hdf5/hdf5_plain.h"
#include "deltapath/results/results.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TENSORS = 3, POINTS = 5, SAMPLES = 4 };

static const char *const names[TENSORS] = {"model.layers.0.self_attn.q_proj.weight",
                                           "model.layers.1.mlp.down_proj.weight",
                                           "model.norm.weight"};
static const int64_t numel[TENSORS] = {64, 128, 8};
static char directory[64];

static dpt_results_study study_make(void) {
    return (dpt_results_study){.name = "a \"study\"",
                               .directory = directory,
                               .tensors = TENSORS,
                               .tensor_names = names,
                               .tensor_numel = numel,
                               .provenance = "{\"ranks\": 4, \"seeds\": [1, 2]}",
                               .job = "name: a\n",
                               .key = 0xfedcba9876543210u};
}

/* A directory of this run, the same on all ranks. */
static int setup(void **state) {
    (void)state;
    strcpy(directory, "/tmp/dpt-results-XXXXXX");
    if (test_comm.rank == 0 && mkdtemp(directory) == NULL)
        return -1;
    MPI_Bcast(directory, sizeof directory, MPI_CHAR, 0, test_comm.mpi);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    unsetenv("DPT_FAULT");
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    if (test_comm.rank == 0 && system(command) != 0)
        return -1;
    return 0;
}

/* All ranks are done looking at the files before rank 0 goes on to change or remove them. */
static void wait_for_all(void) {
    MPI_Barrier(test_comm.mpi);
}

static dpt_result result_make(const char *edit, const char *data) {
    dpt_result r;
    bool any = data[0] != '\0';
    assert_int_equal(dpt_result_create(TENSORS, any ? POINTS : 0, any ? SAMPLES : 0, &r), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r.edit, "%s", edit), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r.data, "%s", data), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r.method, "prune, then \"bitdelta\""), DPT_OK);
    assert_int_equal(dpt_result_set_string(&r.verdict, "decreased"), DPT_OK);
    assert_int_equal(dpt_result_add_parameter(&r, "p", "0.9"), DPT_OK);
    assert_int_equal(dpt_result_add_parameter(&r, "rescale", "l1"), DPT_OK);
    for (int i = 0; any && i < TENSORS * POINTS; i++)
        r.terms[i] = 0.1 * i;
    for (int i = 0; any && i < TENSORS; i++)
        r.integrated[i] = 1.0 / (i + 3.0);
    for (int c = 0; any && c < POINTS; c++) {
        r.nodes[c] = c / 5.0;
        r.weights[c] = 0.2;
    }
    for (int s = 0; any && s < SAMPLES; s++)
        r.loss_edit[s] = s + 0.5;
    r.stats[1].rank = 7;
    r.scalars.change = 1.0 / 3.0;
    r.scalars.share = INFINITY;
    double values[] = {3.0, 2.0, 0.5}, error[] = {0.01, 0.02, 0.03};
    const dpt_result_spectrum spectra[] = {
        {.tensor = 1,
         .part = "3.gate",
         .residual = 0.25,
         .count = 3,
         .values = values,
         .error = error},
        {.tensor = 0, .values = values, .error = error},
        {.tensor = 2, .part = "q", .residual = 0.5, .count = 1, .values = values, .error = error}};
    for (int i = 0; i < 3; i++)
        assert_int_equal(dpt_result_add_spectrum(&r, &spectra[i]), DPT_OK);
    return r;
}

static void assert_same(const dpt_result *a, const dpt_result *b) {
    assert_string_equal(a->edit, b->edit);
    assert_string_equal(a->data, b->data);
    assert_string_equal(a->method, b->method);
    assert_string_equal(b->rule, "");
    assert_int_equal(a->nparameters, b->nparameters);
    for (int64_t i = 0; i < a->nparameters; i++) {
        assert_string_equal(a->parameters[i].name, b->parameters[i].name);
        assert_string_equal(a->parameters[i].value, b->parameters[i].value);
    }
    assert_true(a->tensors == b->tensors && a->points == b->points && a->samples == b->samples);
    size_t n = sizeof(double);
    assert_memory_equal(a->terms, b->terms, (size_t)(a->tensors * a->points) * n);
    assert_memory_equal(a->integrated, b->integrated, (size_t)a->tensors * n);
    assert_memory_equal(a->nodes, b->nodes, (size_t)a->points * n);
    assert_memory_equal(a->loss_edit, b->loss_edit, (size_t)a->samples * n);
    assert_memory_equal(a->stats, b->stats, (size_t)a->tensors * sizeof *a->stats);
    assert_memory_equal(&a->scalars, &b->scalars, sizeof a->scalars);
    assert_int_equal(a->nspectra, b->nspectra);
    for (int64_t i = 0; i < a->nspectra; i++) {
        assert_true(a->spectra[i].tensor == b->spectra[i].tensor);
        assert_string_equal(a->spectra[i].part, b->spectra[i].part);
        assert_true(a->spectra[i].residual == b->spectra[i].residual);
        assert_true(a->spectra[i].count == b->spectra[i].count);
        assert_memory_equal(a->spectra[i].values, b->spectra[i].values,
                            (size_t)a->spectra[i].count * n);
        assert_memory_equal(a->spectra[i].error, b->spectra[i].error,
                            (size_t)a->spectra[i].count * n);
    }
}

static bool is_found(const dpt_results_study *study, const char *edit, const char *data) {
    bool found = true;
    assert_int_equal(dpt_results_load_unit(&test_comm, study, edit, data, &found, NULL, NULL),
                     DPT_OK);
    return found;
}

static void test_unit_round_trip(void **state) {
    (void)state;
    dpt_results_study study = study_make();
    const char *const ids[][2] = {
        {"dare-p0.9-seed1", "task"}, {"a/b %\xff", "x y"}, {"expo", ""}, {"..", "-"}};
    for (int i = 0; i < 4; i++) {
        dpt_result r = result_make(ids[i][0], ids[i][1]);
        dpt_result back;
        bool found;
        assert_false(is_found(&study, ids[i][0], ids[i][1]));
        assert_int_equal(dpt_results_save_unit(&test_comm, &study, test_comm.rank == 0 ? &r : NULL),
                         DPT_OK);
        assert_int_equal(
            dpt_results_load_unit(&test_comm, &study, ids[i][0], ids[i][1], &found, NULL, &back),
            DPT_OK);
        assert_true(found);
        if (test_comm.rank == 0)
            assert_same(&r, &back);
        assert_int_equal(dpt_results_save_unit(&test_comm, &study, &r), DPT_OK); /* replaces */
        dpt_result_destroy(&back);
        dpt_result_destroy(&r);
    }
    assert_false(is_found(&study, "dare-p0.9-seed1", "other"));
    study.key++;
    assert_false(is_found(&study, "dare-p0.9-seed1", "task"));
    study.key--;
    study.tensors = 2;
    assert_false(is_found(&study, "dare-p0.9-seed1", "task"));
    wait_for_all();
}

/* Rank 0 damages the file of the unit: cut at `length`, or with the byte at `flip` inverted. */
static void damage(const char *path, long length, long flip) {
    if (test_comm.rank == 0) {
        if (length >= 0)
            assert_int_equal(truncate(path, length), 0);
        if (flip >= 0) {
            int fd = open(path, O_RDWR);
            unsigned char byte;
            assert_int_equal(pread(fd, &byte, 1, flip), 1);
            byte = (unsigned char)~byte;
            assert_int_equal(pwrite(fd, &byte, 1, flip), 1);
            close(fd);
        }
    }
    wait_for_all();
}

/* A file of someone else, and a unit of another study, are never replaced. */
static void test_foreign_units(void **state) {
    (void)state;
    dpt_results_study study = study_make();
    dpt_result r = result_make("dare", "task");
    char path[128];
    snprintf(path, sizeof path, "%s/units/dare@task.h5", directory);
    assert_int_equal(dpt_results_save_unit(&test_comm, &study, &r), DPT_OK);
    study.name = "another";
    assert_int_equal(dpt_results_save_unit(&test_comm, &study, &r), DPT_ERR_OUTPUT);
    test_error_says(path);
    study = study_make();
    assert_true(is_found(&study, "dare", "task"));
    wait_for_all();
    if (test_comm.rank == 0) {
        FILE *file = fopen(path, "w");
        assert_true(file != NULL && fputs("mine", file) >= 0 && fclose(file) == 0);
    }
    wait_for_all();
    assert_int_equal(dpt_results_save_unit(&test_comm, &study, &r), DPT_ERR_OUTPUT);
    test_error_says(path);
    wait_for_all();
    if (test_comm.rank == 0)
        assert_int_equal(unlink(path), 0);
    dpt_result_destroy(&r);
    wait_for_all();
}

static void test_damaged_units(void **state) {
    (void)state;
    dpt_results_study study = study_make();
    dpt_result r = result_make("dare", "task");
    char path[128];
    snprintf(path, sizeof path, "%s/units/dare@task.h5", directory);
    assert_int_equal(dpt_results_save_unit(&test_comm, &study, &r), DPT_OK);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    wait_for_all();
    long size = (long)info.st_size;
    const long cuts[] = {0, 7, 96, size / 2, size - 1};
    for (int i = 0; i < 5; i++) {
        damage(path, cuts[i], -1);
        assert_false(is_found(&study, "dare", "task"));
        assert_int_equal(dpt_results_save_unit(&test_comm, &study, &r), DPT_OK);
        assert_true(is_found(&study, "dare", "task"));
    }
    int caught = 0;
    int trials = 0;
    for (long at = 3; at < size; at += size / 60) { /* every byte is under the checksum */
        damage(path, -1, at);
        caught += !is_found(&study, "dare", "task");
        trials++;
        damage(path, -1, at);
        assert_true(is_found(&study, "dare", "task"));
    }
    assert_int_equal(caught, trials);
    dpt_result_destroy(&r);
    wait_for_all();
}

/* Every byte of the per-sample losses is under the checksum. */
static void test_checksum_covers_data(void **state) {
    (void)state;
    dpt_results_study study = study_make();
    dpt_result r = result_make("dare", "task");
    char path[128];
    static char bytes[1 << 16];
    snprintf(path, sizeof path, "%s/units/dare@task.h5", directory);
    assert_int_equal(dpt_results_save_unit(&test_comm, &study, &r), DPT_OK);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    wait_for_all();
    const char *at = memmem(bytes, size, r.loss_edit, SAMPLES * sizeof(double));
    assert_non_null(at);
    for (long k = 0; k < (long)(SAMPLES * sizeof(double)); k += 5) {
        damage(path, -1, at - bytes + k);
        assert_false(is_found(&study, "dare", "task"));
        damage(path, -1, at - bytes + k);
    }
    dpt_result_destroy(&r);
    wait_for_all();
}

static void test_faults(void **state) {
    (void)state;
    dpt_results_study study = study_make();
    dpt_result r = result_make("dare", "task");
    const char *const faults[] = {"results.unit:last", "results.rename:last", "results.rename:0",
                                  "results.unit:0"};
    char path[128];
    snprintf(path, sizeof path, "test -z \"$(ls '%s/units' | grep partial)\"", directory);
    for (int i = 0; i < 4; i++) {
        setenv("DPT_FAULT", faults[i], 1);
        assert_int_equal(dpt_results_save_unit(&test_comm, &study, &r), DPT_ERR_OUTPUT);
        assert_non_null(strstr(dpt_error_message(), "injected fault"));
        dpt_error_clear();
        setenv("DPT_FAULT", "", 1);
        assert_false(is_found(&study, "dare", "task"));
        assert_int_equal(system(path), 0);
        wait_for_all();
    }
    assert_int_equal(dpt_results_save_unit(&test_comm, &study, &r), DPT_OK);
    study.directory = "/nowhere/at/all";
    assert_int_equal(dpt_results_save_unit(&test_comm, &study, &r), DPT_ERR_OUTPUT);
    assert_non_null(strstr(dpt_error_message(), "/nowhere/at/all"));
    dpt_error_clear();
    assert_int_equal(dpt_results_write(&test_comm, &study, &r, 1), DPT_ERR_OUTPUT);
    dpt_error_clear();
    dpt_result_destroy(&r);
    wait_for_all();
}

static char *slurp(const char *name) {
    static char text[1 << 16];
    char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void check_json(void) {
    json_error_t error;
    json_t *root = json_loads(slurp("results.json"), 0, &error);
    assert_non_null(root);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(root, "provenance"), "ranks")), 4);
    json_t *units = json_object_get(root, "units");
    assert_int_equal(json_array_size(units), 3);
    json_t *unit = json_array_get(units, 0);
    assert_true(json_real_value(json_object_get(unit, "change")) == 1.0 / 3.0);
    assert_true(json_is_null(json_object_get(unit, "share")));
    assert_true(json_is_null(json_object_get(unit, "margin")));
    assert_true(json_real_value(json_object_get(json_object_get(unit, "parameters"), "p")) == 0.9);
    json_t *layers = json_object_get(unit, "by_layer");
    assert_int_equal(json_array_size(layers), 3); /* outside, 0, 1 */
    json_t *outside = json_array_get(layers, 0);
    assert_int_equal(json_integer_value(json_object_get(outside, "layer")), -1);
    assert_near(json_real_value(json_object_get(outside, "integrated")), 0.2, 1e-16);
    assert_int_equal(json_array_size(json_object_get(unit, "by_module")), 3);
    json_decref(root);
}

static void check_csv(void) {
    char *text = slurp("summary.csv");
    int columns[4] = {0};
    int line = 0;
    bool quoted = false;
    for (char *c = text; *c != '\0' && line < 4; c++) {
        quoted ^= *c == '"';
        columns[line] += *c == ',' && !quoted;
        line += *c == '\n';
    }
    assert_int_equal(line, 4);
    for (int i = 1; i < 4; i++)
        assert_int_equal(columns[i], columns[0]);
    assert_non_null(strstr(text, "\"prune, then \"\"bitdelta\"\"\",\"p=0.9 rescale=l1\""));
    assert_non_null(strstr(text, "0.33333333333333331"));
    assert_null(strstr(text, "nan"));
}

/* Summaries over seeds go to all three files, and seeds.csv only then. */
static void test_seeds(void **state) {
    (void)state;
    dpt_results_study study = study_make();
    char names[2][8] = {"dare", "task"};
    dpt_result_seeds seeds[2] = {
        {.edit = names[0],
         .data = names[1],
         .count = 3,
         .change = {1.0 / 3.0, 0.1, 0.2, 0.4},
         .crossed_low = 0.125,
         .crossed_high = NAN,
         .crossed_df = 2.5,
         .crossed_few = 1.0},
        {.edit = names[0], .data = names[1], .count = 2, .accuracy = {0.5, NAN, 0.0, 1.0}}};
    bool writer = test_comm.rank == 0;
    study.seeds = seeds;
    study.nseeds = writer ? 2 : 0;
    dpt_result r = result_make("dare-seed1", "task");
    assert_int_equal(dpt_results_write(&test_comm, &study, writer ? &r : NULL, writer), DPT_OK);
    wait_for_all();
    char path[128];
    snprintf(path, sizeof path, "%s/results.h5", directory);
    dpt_results back;
    assert_int_equal(dpt_results_read(path, &back), DPT_OK);
    assert_int_equal(back.nseeds, 2);
    assert_string_equal(back.seeds[0].edit, "dare");
    assert_string_equal(back.seeds[1].data, "task");
    assert_true(back.seeds[0].count == 3 && back.seeds[1].count == 2);
    assert_memory_equal(&back.seeds[0].change, &seeds[0].change, sizeof seeds[0].change);
    assert_true(back.seeds[0].crossed_low == 0.125 && back.seeds[0].crossed_df == 2.5);
    assert_true(back.seeds[0].crossed_few == 1.0);
    assert_true(isnan(back.seeds[0].crossed_high));
    assert_true(back.seeds[1].accuracy.mean == 0.5 && isnan(back.seeds[1].accuracy.sd));
    dpt_results_destroy(&back);
    assert_non_null(strstr(slurp("seeds.csv"), "dare,task,3,0.33333333333333331,0.1"));
    assert_non_null(strstr(slurp("seeds.csv"), ",0.125,,2.5,1\n"));
    json_t *root = json_loads(slurp("results.json"), 0, NULL);
    assert_int_equal(json_array_size(json_object_get(root, "seeds")), 2);
    json_decref(root);
    dpt_result_destroy(&r);
    wait_for_all();
}

static void test_write_and_read(void **state) {
    (void)state;
    dpt_results_study study = study_make();
    char job[100000]; /* longer than HDF5's old limit on attributes */
    memset(job, '#', sizeof job - 1);
    job[sizeof job - 1] = '\0';
    study.job = job;
    dpt_result r[3] = {result_make("z", "task"), result_make("a/b", "task"), result_make("z", "")};
    bool writer = test_comm.rank == 0;
    assert_int_equal(dpt_results_write(&test_comm, &study, writer ? r : NULL, writer ? 3 : 0),
                     DPT_OK);
    wait_for_all();
    char path[128];
    snprintf(path, sizeof path, "%s/results.h5", directory);
    dpt_results back;
    assert_int_equal(dpt_results_read(path, &back), DPT_OK);
    assert_string_equal(back.name, study.name);
    assert_string_equal(back.job, job);
    assert_string_equal(back.provenance, study.provenance);
    assert_int_equal(back.tensors, TENSORS);
    assert_string_equal(back.tensor_names[1], names[1]);
    assert_int_equal(back.count, 3);
    for (int i = 0; i < 3; i++)
        assert_same(&r[i], &back.results[i]);
    dpt_results_destroy(&back);
    check_json();
    check_csv();
    wait_for_all();
    damage(path, 4000, -1);
    assert_int_equal(dpt_results_read(path, &back), DPT_ERR_INPUT);
    assert_non_null(strstr(dpt_error_message(), "results.h5"));
    dpt_error_clear();
    dpt_guard_clear();
    if (writer) /* so much is gone that nothing says whose it was */
        assert_int_equal(unlink(path), 0);
    wait_for_all();
    assert_int_equal(dpt_results_write(&test_comm, &study, NULL, 0), DPT_OK); /* no unit at all */
    wait_for_all();
    assert_int_equal(dpt_results_read(path, &back), DPT_OK);
    assert_int_equal(back.count, 0);
    dpt_results_destroy(&back);
    for (int i = 0; i < 3; i++)
        dpt_result_destroy(&r[i]);
    wait_for_all();
}

/* Rank 0: a file as a version with a column less (`gone`) or more (`added`) would have written it. */
static void alter_columns(const char *path, const char *group, const char *gone,
                          const char *added) {
    char *bytes = NULL;
    int64_t n = 0;
    wait_for_all();
    if (test_comm.rank == 0) {
        assert_int_equal(dpt_sealed_read(path, 1 << 24, &bytes, &n), DPT_OK);
        hid_t access = H5Pcreate(H5P_FILE_ACCESS);
        assert_true(H5Pset_fapl_core(access, 1 << 16, 0) >= 0 &&
                    H5Pset_file_image(access, bytes, (size_t)n) >= 0);
        hid_t file = H5Fopen("image", H5F_ACC_RDWR, access);
        hid_t at = H5Gopen2(file, group, H5P_DEFAULT);
        assert_true(at >= 0);
        if (gone != NULL && H5Aexists(at, gone) > 0)
            assert_true(H5Adelete(at, gone) >= 0);
        else if (gone != NULL)
            assert_true(H5Ldelete(at, gone, H5P_DEFAULT) >= 0);
        if (added != NULL && strcmp(added, "array") == 0)
            assert_true(
                dpt_h5_put_array(at, added, H5T_NATIVE_DOUBLE, 1, &(int64_t){1}, &(double){1.0}));
        else if (added != NULL)
            assert_true(dpt_h5_put_f64(at, added, 1.0));
        H5Gclose(at);
        H5Pclose(access);
        dpt_mem_free(bytes);
        bytes = dpt_h5_image_take(file, true, &n);
        assert_int_equal(dpt_sealed_put(path, bytes, n), DPT_OK);
        assert_int_equal(dpt_file_commit(path), DPT_OK);
        dpt_mem_free(bytes);
    }
    wait_for_all();
}

/* A file with other columns is of another version, not corrupt. */
static void test_other_columns(void **state) {
    (void)state;
    static const char *const changes[][2] = {
        {"change", NULL},        {"verdict", NULL}, {"terms", NULL}, {"tensor_stats_columns", NULL},
        {"spectra_error", NULL}, {NULL, "news"},    {NULL, "array"}, {"change", "news"}};
    dpt_results_study study = study_make();
    dpt_result r = result_make("dare", "task"), back;
    char unit[128], all[128];
    snprintf(unit, sizeof unit, "%s/units/dare@task.h5", directory);
    snprintf(all, sizeof all, "%s/results.h5", directory);
    bool writer = test_comm.rank == 0;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        uint64_t recipe, model;
        dpt_results results;
        assert_int_equal(dpt_results_save_unit(&test_comm, &study, &r), DPT_OK);
        alter_columns(unit, "/", changes[i][0], changes[i][1]);
        assert_false(is_found(&study, "dare", "task"));
        assert_int_equal(dpt_results_read_unit(unit, &back, &recipe, &model), DPT_ERR_INPUT);
        test_error_says("another version of the program wrote it");
        assert_int_equal(dpt_results_write(&test_comm, &study, writer ? &r : NULL, writer), DPT_OK);
        alter_columns(all, "/edits/dare/task", changes[i][0], changes[i][1]);
        assert_int_equal(dpt_results_read(all, &results), DPT_ERR_INPUT);
        test_error_says("has other columns than are known");
        dpt_guard_clear();
        wait_for_all();
    }
    char edit[] = "dare", data[] = "task";
    dpt_result_seeds seeds = {.edit = edit, .data = data, .count = 2};
    dpt_results results;
    study.seeds = &seeds;
    study.nseeds = writer;
    assert_int_equal(dpt_results_write(&test_comm, &study, writer ? &r : NULL, writer), DPT_OK);
    alter_columns(all, "/seeds", "columns", NULL);
    assert_int_equal(dpt_results_read(all, &results), DPT_ERR_INPUT);
    test_error_says("/seeds has other columns than are known");
    dpt_guard_clear();
    dpt_result_destroy(&r);
    wait_for_all();
}

int main(int argc, char **argv) {
    dpt_log_configure(0, DPT_LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unit_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_units, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_units, setup, teardown),
        cmocka_unit_test_setup_teardown(test_checksum_covers_data, setup, teardown),
        cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
        cmocka_unit_test_setup_teardown(test_seeds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_and_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_columns, setup, teardown),
    };
    return test_mpi_main(argc, argv, tests);
}

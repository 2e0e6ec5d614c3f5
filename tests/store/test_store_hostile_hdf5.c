/* ranks: 1 3 */
#include "store_models.h"

#include <hdf5.h>

/* HDF5 files that are valid in themselves but no checkpoints, and checkpoints that are cut off. */

typedef void (*make_fn)(hid_t file);

static hid_t bf16(void) {
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 7, 8, 0, 7);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 127);
    return type;
}

static void set_text(hid_t object, const char *name, const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, type, text);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static void set_int(hid_t object, const char *name, int value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_INT, &value);
    H5Aclose(attribute);
    H5Sclose(space);
}

static void begin(hid_t file) {
    set_text(file, "format", "deltapath-checkpoint");
    set_int(file, "version", 1);
    H5Gclose(H5Gcreate2(file, "tensors", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}

/* One tensor of 8 x 8 with values. */
static void tensor(hid_t file, const char *name, hid_t type, hid_t plist) {
    const hsize_t sides[] = {8, 8};
    static const double zeros[64];
    hid_t space = H5Screate_simple(2, sides, NULL);
    hid_t data = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(data >= 0);
    if (H5Tget_class(type) == H5T_FLOAT || H5Tget_class(type) == H5T_INTEGER)
        assert_true(H5Dwrite(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros) >= 0);
    H5Dclose(data);
    H5Sclose(space);
}

static void good(hid_t file) {
    hid_t type = bf16();
    begin(file);
    tensor(file, "tensors/a", H5T_IEEE_F32LE, H5P_DEFAULT);
    tensor(file, "tensors/b", type, H5P_DEFAULT);
    tensor(file, "tensors/c", H5T_STD_I64LE, H5P_DEFAULT);
    H5Tclose(type);
}

static void no_format(hid_t file) {
    H5Gclose(H5Gcreate2(file, "tensors", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    tensor(file, "tensors/a", H5T_IEEE_F32LE, H5P_DEFAULT);
}

static void other_format(hid_t file) {
    set_text(file, "format", "keras");
}

static void format_a_number(hid_t file) {
    set_int(file, "format", 1);
}

static void later_version(hid_t file) {
    set_text(file, "format", "deltapath-checkpoint");
    set_int(file, "version", 2);
}

static void no_tensors(hid_t file) {
    set_text(file, "format", "deltapath-checkpoint");
    set_int(file, "version", 1);
}

static void empty_group(hid_t file) {
    begin(file);
}

static void config_a_number(hid_t file) {
    good(file);
    set_int(file, "config", 1);
}

static void big_endian(hid_t file) {
    begin(file);
    tensor(file, "tensors/a", H5T_IEEE_F32BE, H5P_DEFAULT);
}

static void unsigned_64(hid_t file) {
    begin(file);
    tensor(file, "tensors/a", H5T_STD_U64LE, H5P_DEFAULT);
}

static void odd_float(hid_t file) {
    begin(file);
    hid_t type = bf16();
    H5Tset_ebias(type, 126);
    tensor(file, "tensors/a", type, H5P_DEFAULT);
    H5Tclose(type);
}

static void strings(hid_t file) {
    begin(file);
    tensor(file, "tensors/a", H5T_C_S1, H5P_DEFAULT);
}

static void external(hid_t file) {
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(plist, models_path("outside.bin"), 0, 256);
    begin(file);
    tensor(file, "tensors/a", H5T_IEEE_F32LE, plist);
    H5Pclose(plist);
}

static void never_written(hid_t file) {
    const hsize_t sides[] = {8, 8};
    begin(file);
    hid_t space = H5Screate_simple(2, sides, NULL);
    H5Dclose(H5Dcreate2(file, "tensors/a", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT,
                        H5P_DEFAULT));
    H5Sclose(space);
}

static void null_space(hid_t file) {
    begin(file);
    hid_t space = H5Screate(H5S_NULL);
    H5Dclose(H5Dcreate2(file, "tensors/a", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT,
                        H5P_DEFAULT));
    H5Sclose(space);
}

static void nested(hid_t file) {
    good(file);
    H5Gclose(H5Gcreate2(file, "tensors/model", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}

static void soft_link(hid_t file) {
    good(file);
    H5Lcreate_soft("/tensors/a", file, "tensors/z", H5P_DEFAULT, H5P_DEFAULT);
}

static void hard_link(hid_t file) {
    good(file);
    H5Lcreate_hard(file, "/tensors/a", file, "tensors/z", H5P_DEFAULT, H5P_DEFAULT);
}

static void external_link(hid_t file) {
    good(file);
    H5Lcreate_external("/etc/passwd", "/x", file, "tensors/z", H5P_DEFAULT, H5P_DEFAULT);
}

static void hash_a_text(hid_t file) {
    good(file);
    hid_t data = H5Dopen2(file, "tensors/a", H5P_DEFAULT);
    set_text(data, "xxh3", "0123");
    H5Dclose(data);
}

static void make_file(const char *path, make_fn make) {
    if (test_comm.rank == 0) {
        hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(file >= 0);
        make(file);
        H5Fclose(file);
    }
    MPI_Barrier(test_comm.mpi);
}

static void expect(const char *path, const char *label, dpt_status want, const char *remedy) {
    dpt_store *store = NULL;
    dpt_status st = dpt_store_open(&test_comm, path, &store);
    const char *message = dpt_error_message();
    if (st != want || (st != DPT_OK && strstr(message, path) == NULL) ||
        (remedy != NULL && strstr(message, remedy) == NULL))
        fail_msg("%s: status %d, message \"%s\"", label, (int)st, message);
    if (st == DPT_OK)
        dpt_store_close(store);
    dpt_error_clear();
}

static void test_other_files(void **state) {
    (void)state;
    static const struct {
        const char *label;
        make_fn make;
        const char *remedy;
    } cases[] = {{"no format", no_format, "convert the model"},
                 {"another format", other_format, "\"keras\""},
                 {"format a number", format_a_number, "format"},
                 {"later version", later_version, "version 2"},
                 {"no tensors", no_tensors, "/tensors"},
                 {"empty group", empty_group, "no tensors"},
                 {"config a number", config_a_number, "config"},
                 {"big-endian", big_endian, "little-endian"},
                 {"uint64", unsigned_64, "tensor a"},
                 {"odd float", odd_float, "tensor a"},
                 {"strings", strings, "tensor a"},
                 {"external", external, "h5repack -l CONTI"},
                 {"never written", never_written, "never written"},
                 {"null space", null_space, "tensor a"},
                 {"nested groups", nested, "tensor model"},
                 {"soft link", soft_link, "tensor z"},
                 {"hard link", hard_link, "overlap"},
                 {"external link", external_link, "tensor z"},
                 {"hash a text", hash_a_text, "xxh3"}};
    char path[512];
    snprintf(path, sizeof path, "%s", models_path("case.h5"));
    make_file(path, good);
    expect(path, "good", DPT_OK, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_file(path, cases[i].make);
        expect(path, cases[i].label, DPT_ERR_INPUT, cases[i].remedy);
    }
}

static void test_truncated(void **state) {
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s", models_path("cut.h5"));
    make_file(path, good);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    MPI_Barrier(test_comm.mpi);
    for (off_t n = info.st_size - 1; n > 0; n = n * 3 / 4) {
        if (test_comm.rank == 0)
            assert_int_equal(truncate(path, n), 0);
        MPI_Barrier(test_comm.mpi);
        expect(path, "truncated", DPT_ERR_INPUT, NULL);
        MPI_Barrier(test_comm.mpi);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_other_files, models_setup, models_teardown),
        cmocka_unit_test_setup_teardown(test_truncated, models_setup, models_teardown),
    };
    return test_mpi_main(argc, argv, tests);
}

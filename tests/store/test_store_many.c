/* ranks: 1 2
 * seconds: 120
 * Headers of very many tensors take memory in proportion, and above a limit they are refused. */
#include "support/test_mpi.h"

#include "deltapath/store/store.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[300];

static int64_t touched(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)usage.ru_maxrss * 1024;
}

/* A file of `count` tensors of one byte; closed by `tail`. */
static void write_file(int64_t count, const char *tail) {
    snprintf(path, sizeof path, "%s/many.%d.safetensors",
             getenv("DELTAPATH_TEST_TMP") != NULL ? getenv("DELTAPATH_TEST_TMP") : "/tmp",
             (int)getppid());
    MPI_Bcast(path, sizeof path, MPI_CHAR, 0, MPI_COMM_WORLD);
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_comm.rank == 0) {
        FILE *file = fopen(path, "wb");
        int64_t bytes = 0;
        assert_true(file != NULL && fseek(file, 8, SEEK_SET) == 0);
        for (int64_t i = 0; i < count; i++)
            bytes +=
                fprintf(file,
                        "%c\"model.layers.%d.experts.%d.w\":{\"dtype\":\"U8\",\"shape\":[1],"
                        "\"data_offsets\":[%d,%d]}",
                        i == 0 ? '{' : ',', (int)(i / 512), (int)(i % 512), (int)i, (int)i + 1);
        bytes += fprintf(file, "%s", tail);
        for (int64_t i = 0; i < count; i++)
            fputc(0, file);
        rewind(file);
        for (int i = 0; i < 8; i++)
            fputc((int)(bytes >> 8 * i & 255), file);
        assert_int_equal(fclose(file), 0);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

static void remove_file(void) {
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_comm.rank == 0)
        unlink(path);
}

static void refuse(int64_t count, const char *tail, const char *message) {
    dpt_store *store = NULL;
    write_file(count, tail);
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_ERR_INPUT);
    assert_null(store);
    test_error_says(message);
    remove_file();
}

/* The text is 18 MB; the list, its catalog, and on two ranks the list on its way some 1 KB a tensor. A
 * tree of the whole header took 1.4 KB more. */
static void test_memory(void **state) {
    (void)state;
    dpt_store *store = NULL;
    write_file(200000, "}");
    int64_t before = touched();
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
    int64_t taken = touched() - before;
    assert_int_equal(dpt_store_catalog(store)->count, 200000);
#ifndef __SANITIZE_ADDRESS__
    if (taken > INT64_C(240) << 20)
        fail_msg("%d MiB for 200,000 tensors", (int)(taken >> 20));
#endif
    print_message("%d MiB touched for 200,000 tensors\n", (int)(taken >> 20));
    dpt_store_close(store);
    remove_file();
}

static void test_limit(void **state) {
    (void)state;
    refuse(500001, "}", "more than 500000 tensors");
}

/* What the walk from member to member has to find by itself. */
static void test_syntax(void **state) {
    (void)state;
    refuse(3, "", "JSON is broken");
    refuse(3, "]", "JSON is broken");
    refuse(3, "} x", "more after the object");
    refuse(3, "}}", "more after the object");
    refuse(3, ",}", "a name in quotes is missing");
    refuse(3, ",\"a}", "JSON is broken");
    refuse(3, ",\"a\"}", "':' is missing");
    refuse(3, ",\"a\":}", "JSON is broken");
    refuse(3, ",\"a\":{\"dtype\":\"U8\"", "JSON is broken");
    refuse(3, ",\"\\u00\":{}}", "JSON is broken");
    refuse(3, ",\"a\xff\":{}}", "JSON is broken");
    refuse(3, ",\"a\":{\"shape\":[],\"shape\":[]}}", "JSON is broken");
    refuse(3, ",\"a\":[[[}]]}", "JSON is broken");
    refuse(3, ",\"__metadata__\":{},\"__metadata__\":{}}", "duplicate __metadata__");
    refuse(
        3,
        ",\"model.layers.0.experts.1.w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[3,3]}}",
        "is a duplicate");
    dpt_store *store = NULL;
    write_file(3,
               ",\"a\\\"}\\\\\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[3,3]}  } \n\t");
    assert_int_equal(dpt_store_open(&test_comm, path, &store), DPT_OK);
    assert_int_equal(dpt_catalog_find(dpt_store_catalog(store), "a\"}\\"), 0);
    dpt_store_close(store);
    remove_file();
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_memory), cmocka_unit_test(test_limit),
                                       cmocka_unit_test(test_syntax)};
    return test_mpi_main(argc, argv, tests);
}

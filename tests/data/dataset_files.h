#ifndef DELTAPATH_TESTS_DATASET_FILES_H
#define DELTAPATH_TESTS_DATASET_FILES_H

/* A data set of the tests, written by HDF5 into a folder of the test's own. */

#include "support/test_mpi.h"

#include <errno.h>
#include <hdf5.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[256], path[300];

/* First of all: a folder of our own, the same on all ranks. */
static void make_folder(void **state) {
    (void)state;
    const char *tmp = getenv("DELTAPATH_TEST_TMP");
    snprintf(folder, sizeof folder, "%s/%s.%d", tmp != NULL ? tmp : "/tmp",
             program_invocation_short_name, (int)getppid());
    MPI_Bcast(folder, sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
    snprintf(path, sizeof path, "%s/data.h5", folder);
    if (test_comm.rank == 0)
        mkdir(folder, 0777);
    MPI_Barrier(MPI_COMM_WORLD);
}

static void remove_folder(void **state) {
    (void)state;
    MPI_Barrier(MPI_COMM_WORLD);
    if (test_comm.rank == 0) {
        unlink(path);
        rmdir(folder);
    }
}

static void put(hid_t file, const char *name, hid_t type, int ndim, const hsize_t *dims,
                const void *values) {
    hid_t space = H5Screate_simple(ndim, dims, NULL);
    hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    hid_t set = H5Dcreate2(file, name, type, space, links, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(set >= 0);
    if (values != NULL)
        assert_true(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Pclose(links);
    H5Sclose(space);
}

static void put1(hid_t file, const char *name, hid_t type, int64_t n, const void *values) {
    hsize_t dims[1] = {(hsize_t)n};
    put(file, name, type, 1, dims, values);
}

/* In the place of what is there. */
static inline void remake(hid_t file, const char *name, hid_t type, int64_t n, const void *values) {
    assert_true(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
    put1(file, name, type, n, values);
}

#endif

/* Copy of a model by the store, cell by cell with hashes, against a bare parallel copy of the same
 * bytes by MPI-IO and by pread/pwrite; both sync what they wrote.
 *
 * usage: mpirun -n 2 bench_store [gigabytes] [directory]
 * Prints one line a figure: name, value, unit. */

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/store/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REPEATS = 3, RUN_BYTES = 16 << 20 };

static dpt_comm comm;

static double slowest(double begun) {
    double seconds = dpt_log_seconds() - begun;
    MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, comm.mpi);
    return seconds;
}

static double start(void) {
    MPI_Barrier(comm.mpi);
    return dpt_log_seconds();
}

static dpt_status make_model(const char *path, double gigabytes) {
    dpt_catalog catalog;
    dpt_shard shard;
    dpt_store_writer *writer = NULL;
    const int64_t shape[] = {8192, 4096};
    int tensors = (int)(gigabytes * 1e9 / (8192.0 * 4096 * 2)) + 1;
    dpt_catalog_init(&catalog);
    dpt_status st = DPT_OK;
    for (int i = 0; i < tensors && st == DPT_OK; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%03d.weight", i);
        st = dpt_catalog_add(&catalog, name, DPT_BF16, 2, shape);
    }
    if (st == DPT_OK)
        st = dpt_catalog_sort(&catalog);
    if (st == DPT_OK)
        st = dpt_shard_create(&catalog, comm.size, &shard);
    dpt_store_options options = {.format = DPT_STORE_HDF5, .overwrite = true};
    if (st == DPT_OK)
        st = dpt_store_create(&comm, path, &catalog, &shard, &options, &writer);
    if (st != DPT_OK)
        return st;
    uint16_t *values = malloc(DPT_CELL * sizeof *values);
    for (int64_t i = 0; i < DPT_CELL; i++)
        values[i] = (uint16_t)(i * 40503 + comm.rank);
    dpt_sink sink = dpt_store_writer_sink(writer);
    for (int64_t c = shard.rank_first[comm.rank]; c < shard.rank_first[comm.rank + 1]; c++)
        if (st == DPT_OK)
            st = sink.write(sink.ctx, dpt_shard_cell(&shard, c), values);
    free(values);
    st = dpt_store_finish(writer, st);
    dpt_shard_destroy(&shard);
    dpt_catalog_destroy(&catalog);
    return st;
}

static dpt_status copy_by_store(const char *from, const char *to, dpt_store_format format,
                                double *seconds) {
    double begun = start();
    dpt_store *store = NULL;
    dpt_store_writer *writer = NULL;
    dpt_shard shard = {.ranks = 0};
    dpt_status st = dpt_store_open(&comm, from, &store);
    if (st != DPT_OK)
        return st;
    dpt_store_options options = {.format = format, .overwrite = true};
    st = dpt_shard_create(dpt_store_catalog(store), comm.size, &shard);
    st = dpt_store_create(&comm, to, dpt_store_catalog(store), &shard, &options, &writer);
    if (st == DPT_OK) {
        dpt_source source = dpt_store_source(store);
        dpt_sink sink = dpt_store_writer_sink(writer);
        char *buffer = dpt_mem_alloc(DPT_CELL, 8, "cell");
        for (int64_t c = shard.rank_first[comm.rank];
             c < shard.rank_first[comm.rank + 1] && st == DPT_OK; c++) {
            dpt_range range = dpt_shard_cell(&shard, c);
            st = source.read(source.ctx, range, buffer);
            if (st == DPT_OK)
                st = sink.write(sink.ctx, range, buffer);
        }
        dpt_mem_free(buffer);
        st = dpt_store_finish(writer, st);
    }
    dpt_shard_destroy(&shard);
    dpt_store_close(store);
    *seconds = slowest(begun);
    return st;
}

static void part(const char *from, int64_t *begin, int64_t *end) {
    struct stat info;
    stat(from, &info);
    dpt_shard_split((int64_t)info.st_size, comm.size, comm.rank, begin, end);
}

static double copy_by_mpi(const char *from, const char *to, int64_t run) {
    int64_t begin;
    int64_t end;
    double begun = start();
    part(from, &begin, &end);
    MPI_File in;
    MPI_File out;
    MPI_File_open(comm.mpi, from, MPI_MODE_RDONLY, MPI_INFO_NULL, &in);
    MPI_File_open(comm.mpi, to, MPI_MODE_WRONLY | MPI_MODE_CREATE, MPI_INFO_NULL, &out);
    char *buffer = malloc((size_t)run);
    for (int64_t at = begin; at < end; at += run) {
        int n = (int)(end - at < run ? end - at : run);
        MPI_File_read_at(in, at, buffer, n, MPI_BYTE, MPI_STATUS_IGNORE);
        MPI_File_write_at(out, at, buffer, n, MPI_BYTE, MPI_STATUS_IGNORE);
    }
    MPI_File_sync(out);
    MPI_File_close(&in);
    MPI_File_close(&out);
    free(buffer);
    return slowest(begun);
}

static double copy_by_pread(const char *from, const char *to, int64_t run) {
    int64_t begin;
    int64_t end;
    double begun = start();
    part(from, &begin, &end);
    int in = open(from, O_RDONLY);
    int out = open(to, O_WRONLY | O_CREAT, 0666);
    char *buffer = malloc((size_t)run);
    for (int64_t at = begin; at < end; at += run) {
        size_t n = (size_t)(end - at < run ? end - at : run);
        if (pread(in, buffer, n, at) != (ssize_t)n || pwrite(out, buffer, n, at) != (ssize_t)n)
            fprintf(stderr, "short transfer\n");
    }
    fsync(out);
    close(in);
    close(out);
    free(buffer);
    return slowest(begun);
}

static void print(const char *name, double value, const char *unit) {
    if (comm.rank == 0)
        printf("%-44s %8.3f %s\n", name, value, unit);
}

static double less(double a, double b) {
    return a < b ? a : b;
}

static void drop(const char *path) {
    MPI_Barrier(comm.mpi);
    if (comm.rank == 0)
        unlink(path);
    MPI_Barrier(comm.mpi);
}

static dpt_status run(double gigabytes, const char *directory) {
    char from[512], to[512], bare[512];
    snprintf(from, sizeof from, "%s/bench-from.h5", directory);
    snprintf(to, sizeof to, "%s/bench-to.h5", directory);
    snprintf(bare, sizeof bare, "%s/bench-bare", directory);
    double store = 1e9, mpi = 1e9, plain = 1e9;
    dpt_status st = make_model(from, gigabytes);
    for (int i = 0; i < REPEATS && st == DPT_OK; i++) {
        double seconds = 0;
        drop(to);
        st = copy_by_store(from, to, DPT_STORE_HDF5, &seconds);
        store = less(store, seconds);
        drop(to);
        mpi = less(mpi, copy_by_mpi(from, bare, RUN_BYTES));
        drop(bare);
        plain = less(plain, copy_by_pread(from, bare, RUN_BYTES));
        drop(bare);
    }
    print("store copy, HDF5 to HDF5", gigabytes / store, "GB/s");
    print("bare copy, MPI-IO", gigabytes / mpi, "GB/s");
    print("bare copy, pread and pwrite", gigabytes / plain, "GB/s");
    print("store copy / faster bare copy (time)", store / less(mpi, plain), "ratio");
    drop(from);
    return st;
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    double gigabytes = argc > 1 ? strtod(argv[1], NULL) : 2.0;
    const char *directory = argc > 2 ? argv[2] : ".";
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &comm);
    dpt_agree_set_world(comm.rank, comm.size);
    if (st == DPT_OK)
        st = run(gigabytes, directory);
    if (st != DPT_OK && comm.rank == 0)
        fprintf(stderr, "bench_store: %s\n", dpt_error_message());
    dpt_comm_destroy(&comm);
    MPI_Finalize();
    return (int)st;
}

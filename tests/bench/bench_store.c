/* DARE of a pair and a copy of a model by the store, cell by cell with hashes, against a bare
 * parallel transfer of the same bytes by MPI-IO and by pread/pwrite; all sync what they wrote. Wall
 * time is that of the slowest rank, processor time (user and system) the sum over the ranks: on a
 * machine with other work the second is the steadier one.
 *
 * usage: mpirun -n 2 bench_store [-g gigabytes of the pair] [-d directory] [-r repeats] [--json FILE] */
#include "bench_print.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/edit/edit.h"
#include "deltapath/store/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REPEATS_MAX = 99, RUN_BYTES = 4 << 20 }; /* the bare transfers are fastest with 2 to 4 MiB */

static dpt_comm comm;
static int repeats = 5;

typedef struct cost {
    double wall, processor; /* [s] */
} cost;

static double processor_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static cost start(void) {
    MPI_Barrier(comm.mpi);
    return (cost){.wall = dpt_log_seconds(), .processor = processor_seconds()};
}

static cost since(cost begun) {
    cost c = {.wall = dpt_log_seconds() - begun.wall,
              .processor = processor_seconds() - begun.processor};
    MPI_Allreduce(MPI_IN_PLACE, &c.wall, 1, MPI_DOUBLE, MPI_MAX, comm.mpi);
    MPI_Allreduce(MPI_IN_PLACE, &c.processor, 1, MPI_DOUBLE, MPI_SUM, comm.mpi);
    return c;
}

static dpt_status make_model(const char *path, double gigabytes, int seed) {
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
        values[i] = (uint16_t)(0x3c00 + (uint16_t)(i * 40503) % 1024 + seed); /* finite */
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

/* One pass from HDF5 to HDF5. With an edit: DARE of the pair; without: post cell by cell. */
static dpt_status write_cells(dpt_store *post, const dpt_shard *shard, dpt_sink sink) {
    dpt_source source = dpt_store_source(post);
    char *buffer = dpt_mem_alloc(DPT_CELL, 8, "cell");
    dpt_status st = buffer == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    for (int64_t c = shard->rank_first[comm.rank];
         c < shard->rank_first[comm.rank + 1] && st == DPT_OK; c++) {
        dpt_range range = dpt_shard_cell(shard, c);
        st = source.read(source.ctx, range, buffer);
        if (st == DPT_OK)
            st = sink.write(sink.ctx, range, buffer);
    }
    dpt_mem_free(buffer);
    return st;
}

static dpt_status dare(dpt_store *pre, dpt_store *post, const dpt_shard *shard, dpt_sink sink) {
    const dpt_catalog *catalog = dpt_store_catalog(post);
    dpt_pair pair;
    dpt_pair_side from = {.source = dpt_store_source(pre)}, to = {.source = dpt_store_source(post)};
    char *report = NULL;
    bool *selected = malloc((size_t)catalog->count);
    memset(selected, 1, (size_t)catalog->count);
    dpt_edit_spec spec = {.nstages = 1, .seed = 1};
    dpt_edit_stage_init(&spec.stages[0], dpt_edit_method_find("dare"));
    dpt_status st = dpt_edit_stage_set(&spec.stages[0], "p", "0.9");
    if (st == DPT_OK)
        st = dpt_pair_create(&from, &to, DPT_MISMATCH_ERROR, &pair, &report);
    dpt_parts parts = {.count = 0};
    if (st == DPT_OK)
        st = dpt_parts_create(catalog, 0, &parts);
    if (st == DPT_OK) {
        dpt_edit_input input = {.comm = &comm,
                                .shard = shard,
                                .pre = dpt_pair_source(&pair),
                                .post = dpt_store_source(post),
                                .parts = &parts,
                                .comparable = pair.comparable,
                                .selected = selected};
        st = dpt_edit_run(&spec, &input, sink, NULL);
        dpt_pair_destroy(&pair);
    }
    dpt_parts_destroy(&parts);
    dpt_mem_free(report);
    free(selected);
    return st;
}

static dpt_status run_store(const char *const from[2], const char *to, bool edit, cost *took) {
    cost begun = start();
    dpt_store *pre = NULL;
    dpt_store *post = NULL;
    dpt_store_writer *writer = NULL;
    dpt_shard shard = {.ranks = 0};
    dpt_status st = dpt_store_open(&comm, from[0], &pre);
    if (st == DPT_OK)
        st = dpt_store_open(&comm, from[1], &post);
    if (st != DPT_OK)
        return st;
    dpt_store_options options = {.format = DPT_STORE_HDF5, .overwrite = true};
    st = dpt_shard_create(dpt_store_catalog(post), comm.size, &shard);
    if (st == DPT_OK)
        st = dpt_store_create(&comm, to, dpt_store_catalog(post), &shard, &options, &writer);
    if (st == DPT_OK) {
        dpt_sink sink = dpt_store_writer_sink(writer);
        st = edit ? dare(pre, post, &shard, sink) : write_cells(post, &shard, sink);
        st = dpt_store_finish(writer, st);
    }
    dpt_shard_destroy(&shard);
    dpt_store_close(pre);
    dpt_store_close(post);
    *took = since(begun);
    return st;
}

static void part(const char *from, int64_t *begin, int64_t *end) {
    struct stat info;
    stat(from, &info);
    dpt_shard_split((int64_t)info.st_size, comm.size, comm.rank, begin, end);
}

/* The bytes alone: read the first `inputs` files from the last one backwards, write one. */
static cost bare_by_mpi(const char *const from[2], const char *to, int inputs, int64_t run) {
    int64_t begin;
    int64_t end;
    cost begun = start();
    part(from[1], &begin, &end);
    MPI_File in[2], out;
    for (int f = 2 - inputs; f < 2; f++)
        MPI_File_open(comm.mpi, from[f], MPI_MODE_RDONLY, MPI_INFO_NULL, &in[f]);
    MPI_File_open(comm.mpi, to, MPI_MODE_WRONLY | MPI_MODE_CREATE, MPI_INFO_NULL, &out);
    char *buffer = malloc((size_t)run);
    for (int64_t at = begin; at < end; at += run) {
        int n = (int)(end - at < run ? end - at : run);
        for (int f = 2 - inputs; f < 2; f++)
            MPI_File_read_at(in[f], at, buffer, n, MPI_BYTE, MPI_STATUS_IGNORE);
        MPI_File_write_at(out, at, buffer, n, MPI_BYTE, MPI_STATUS_IGNORE);
    }
    MPI_File_sync(out);
    for (int f = 2 - inputs; f < 2; f++)
        MPI_File_close(&in[f]);
    MPI_File_close(&out);
    free(buffer);
    return since(begun);
}

static cost bare_by_pread(const char *const from[2], const char *to, int inputs, int64_t run) {
    int64_t begin;
    int64_t end;
    cost begun = start();
    part(from[1], &begin, &end);
    int in[2] = {open(from[0], O_RDONLY), open(from[1], O_RDONLY)};
    int out = open(to, O_WRONLY | O_CREAT, 0666);
    char *buffer = malloc((size_t)run);
    for (int64_t at = begin; at < end; at += run) {
        size_t n = (size_t)(end - at < run ? end - at : run);
        bool good = true;
        for (int f = 2 - inputs; f < 2; f++)
            good = pread(in[f], buffer, n, at) == (ssize_t)n && good;
        if (!good || pwrite(out, buffer, n, at) != (ssize_t)n)
            fprintf(stderr, "short transfer\n");
    }
    fsync(out);
    close(in[0]);
    close(in[1]);
    close(out);
    free(buffer);
    return since(begun);
}

/* One of the two times of a round. */
static double seconds_of(cost took, bool wall) {
    return wall ? took.wall : took.processor;
}

/* What the store takes, next to a rival in the same rounds: the ratio is that of times. */
static void say(const char *what, const char *rival, const cost *ours, const cost *theirs,
                bool wall) {
    double x[REPEATS_MAX], limit[REPEATS_MAX], ratio[REPEATS_MAX];
    char name[96];
    for (int i = 0; i < repeats; i++) {
        x[i] = seconds_of(ours[i], wall);
        limit[i] = seconds_of(theirs[i], wall);
        ratio[i] = x[i] / limit[i];
    }
    snprintf(name, sizeof name, "%s%s, of %s", what, wall ? "" : ", processor", rival);
    bench_say((bench_result){.name = name,
                             .unit = "s",
                             .figure = bench_of(x, repeats),
                             .limit = bench_of(limit, repeats).median,
                             .ratio = bench_of(ratio, repeats).median});
}

static void say_rate(const char *what, const cost *took, double gigabytes) {
    double x[REPEATS_MAX];
    for (int i = 0; i < repeats; i++)
        x[i] = took[i].wall;
    bench_say(
        (bench_result){.name = what, .unit = "GB/s", .figure = bench_over(x, repeats, gigabytes)});
}

static void drop(const char *path) {
    MPI_Barrier(comm.mpi);
    if (comm.rank == 0)
        unlink(path);
    MPI_Barrier(comm.mpi);
}

enum { STORE, BY_MPI, BY_PREAD, RIVALS };

static dpt_status measure(const char *const from[2], const char *to, bool edit, int rival,
                          cost *took) {
    int inputs = edit ? 2 : 1;
    dpt_status st = DPT_OK;
    if (rival == STORE)
        st = run_store(from, to, edit, took);
    else if (rival == BY_MPI)
        *took = bare_by_mpi(from, to, inputs, RUN_BYTES);
    else
        *took = bare_by_pread(from, to, inputs, RUN_BYTES);
    drop(to);
    return st;
}

/* Each figure is the median of some rounds, in which the rivals take turns, each beginning in its
 * turn: other work on the machine, the state of the disk, and pages that the system has to find
 * first hit all alike. */
static dpt_status compare(const char *const from[2], const char *directory, bool edit,
                          double gigabytes) {
    static cost took[RIVALS][REPEATS_MAX];
    char to[512];
    snprintf(to, sizeof to, "%s/bench-to.h5", directory);
    dpt_status st = DPT_OK;
    for (int i = 0; i < repeats && st == DPT_OK; i++)
        for (int r = 0; r < RIVALS && st == DPT_OK; r++)
            st = measure(from, to, edit, (i + r) % RIVALS, &took[(i + r) % RIVALS][i]);
    if (st != DPT_OK)
        return st;
    const char *what = edit ? "DARE, HDF5 pair to HDF5" : "copy, HDF5 to HDF5";
    say_rate(what, took[STORE], gigabytes);
    for (int wall = 1; wall >= 0; wall--) {
        say(what, "MPI-IO alone", took[STORE], took[BY_MPI], wall);
        say(what, "pread and pwrite alone", took[STORE], took[BY_PREAD], wall);
    }
    return st;
}

static dpt_status run(double gigabytes, const char *directory) {
    char pre[512], post[512];
    snprintf(pre, sizeof pre, "%s/bench-pre.h5", directory);
    snprintf(post, sizeof post, "%s/bench-post.h5", directory);
    const char *const from[2] = {pre, post};
    dpt_status st = make_model(pre, gigabytes / 2, 0);
    if (st == DPT_OK)
        st = make_model(post, gigabytes / 2, 1);
    if (st == DPT_OK)
        st = compare(from, directory, true, 1.5 * gigabytes);
    if (st == DPT_OK)
        st = compare(from, directory, false, gigabytes);
    drop(pre);
    drop(post);
    return st;
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &comm);
    dpt_agree_set_world(comm.rank, comm.size);
    bench_begin(&argc, argv, "bench_store", comm.rank, comm.size);
    double gigabytes = 2.0;
    const char *directory = ".";
    for (int option = getopt(argc, argv, "d:g:r:"); option != -1;
         option = getopt(argc, argv, "d:g:r:")) {
        if (option == 'd')
            directory = optarg;
        if (option == 'g')
            gigabytes = strtod(optarg, NULL);
        if (option == 'r')
            repeats = (int)strtol(optarg, NULL, 10);
    }
    repeats = repeats < 1 ? 1 : repeats > REPEATS_MAX ? REPEATS_MAX : repeats;
    if (st == DPT_OK)
        st = run(gigabytes, directory);
    if (st != DPT_OK && comm.rank == 0)
        fprintf(stderr, "bench_store: %s\n", dpt_error_message());
    bench_end();
    dpt_comm_destroy(&comm);
    MPI_Finalize();
    return (int)st;
}

/* Elementwise edits of a pair of models of any size, as `deltapath synthetic` makes them, whose result goes nowhere: what
 * an edit costs but for the disk. One line an edit: seconds of the slowest rank (clock, and of its processor), of them what
 * reading alone takes, parameters a second and rank, peak memory of a rank, and |E|, the same at any number of ranks.
 *
 * usage: mpirun -n 2 bench_shape [--json FILE] PRE POST [PART OF A LABEL] */
#include "bench_print.h"

#include "deltapath/base/mem.h"

#include "deltapath/edit/edit.h"
#include "deltapath/store/store.h"

#include <inttypes.h>
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CELL = 1 << 20 };

static dpt_comm bench_comm;

typedef struct bench {
    dpt_store *pre, *post;
    const dpt_catalog *catalog;
    dpt_shard shard;
    dpt_parts parts;
    bool *comparable;
    dpt_edit_input input;
} bench;

static double clock_of(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct timing {
    double clock, processor;
} timing;

static timing timing_begin(void) {
    MPI_Barrier(bench_comm.mpi);
    return (timing){clock_of(CLOCK_MONOTONIC), clock_of(CLOCK_PROCESS_CPUTIME_ID)};
}

static timing timing_end(timing from) {
    timing t = {clock_of(CLOCK_MONOTONIC) - from.clock,
                clock_of(CLOCK_PROCESS_CPUTIME_ID) - from.processor};
    MPI_Allreduce(MPI_IN_PLACE, &t, 2, MPI_DOUBLE, MPI_MAX, bench_comm.mpi);
    return t;
}

static dpt_status drop_run(void *ctx, dpt_range range, const void *data) {
    (void)ctx, (void)range, (void)data;
    return DPT_OK;
}

static dpt_status drop_runs(void *ctx, int64_t count, const dpt_range *ranges,
                            const void *const *data) {
    (void)ctx, (void)count, (void)ranges, (void)data;
    return DPT_OK;
}

/* The source alone: every own cell of both models once. */
static dpt_status read_all(bench *b) {
    void *cell = dpt_mem_alloc(CELL, sizeof(float), "cell");
    dpt_status st = cell != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int64_t c = 0; c < b->shard.cells && st == DPT_OK; c++) {
        if (dpt_shard_owner(&b->shard, c) != bench_comm.rank)
            continue;
        st = b->input.pre.read(b->input.pre.ctx, dpt_shard_cell(&b->shard, c), cell);
        if (st == DPT_OK)
            st = b->input.post.read(b->input.post.ctx, dpt_shard_cell(&b->shard, c), cell);
    }
    dpt_mem_free(cell);
    return st;
}

static dpt_status setup(bench *b, const char *pre, const char *post) {
    dpt_status st = dpt_store_open(&bench_comm, pre, &b->pre);
    if (st == DPT_OK)
        st = dpt_store_open(&bench_comm, post, &b->post);
    if (st != DPT_OK)
        return st;
    b->catalog = dpt_store_catalog(b->post);
    if (dpt_catalog_digest(b->catalog) != dpt_catalog_digest(dpt_store_catalog(b->pre)))
        return dpt_error(DPT_ERR_INPUT, "%s and %s have other tensors", pre, post);
    st = dpt_parts_create(b->catalog, dpt_store_heads(b->post), &b->parts);
    if (st == DPT_OK)
        st = dpt_shard_create(b->catalog, bench_comm.size, &b->shard);
    b->comparable = dpt_mem_alloc(b->catalog->count, sizeof *b->comparable, "pairs");
    if (st != DPT_OK || b->comparable == NULL)
        return DPT_ERR_OUTPUT;
    memset(b->comparable, 1, (size_t)b->catalog->count);
    b->input = (dpt_edit_input){.comm = &bench_comm,
                                .shard = &b->shard,
                                .pre = dpt_store_source(b->pre),
                                .post = dpt_store_source(b->post),
                                .parts = &b->parts,
                                .comparable = b->comparable};
    return DPT_OK;
}

/* "prune keep=0.3": a method and its parameters. */
static dpt_status parse(const char *label, dpt_edit_spec *spec) {
    char text[128], *rest = NULL;
    snprintf(text, sizeof text, "%s", label);
    *spec = (dpt_edit_spec){.nstages = 1, .seed = 1};
    const char *word = strtok_r(text, " ", &rest);
    dpt_edit_stage_init(&spec->stages[0], dpt_edit_method_find(word));
    dpt_status st = DPT_OK;
    for (char *set = strtok_r(NULL, " ", &rest); set != NULL && st == DPT_OK;
         set = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(set, '=');
        *value = '\0';
        st = dpt_edit_stage_set(&spec->stages[0], set, value + 1);
    }
    return st == DPT_OK ? dpt_edit_spec_check(spec) : st;
}

static dpt_status measure(bench *b, const char *label, timing reading) {
    dpt_edit_spec spec;
    dpt_edit_report report = {.ntensors = 0};
    const dpt_sink sink = {.catalog = b->catalog, .write = drop_run, .scatter = drop_runs};
    double elements = (double)dpt_catalog_elements(b->catalog), squares = 0.0;
    dpt_status st = parse(label, &spec);
    if (st != DPT_OK)
        return st;
    timing from = timing_begin();
    st = dpt_edit_run(&spec, &b->input, sink, &report);
    timing took = timing_end(from);
    for (int t = 0; t < report.ntensors; t++)
        squares += report.stats[t].edit_norm * report.stats[t].edit_norm;
    dpt_edit_report_destroy(&report);
    double peak = (double)dpt_mem_peak();
    MPI_Allreduce(MPI_IN_PLACE, &peak, 1, MPI_DOUBLE, MPI_MAX, bench_comm.mpi);
    if (bench_comm.rank == 0)
        printf("%-28s %10.2f %10.2f %10.2f %9.3f %9.1f  %.12g\n", label, took.clock, took.processor,
               reading.processor, 1e-9 * elements / took.processor / bench_comm.size,
               peak / 1048576.0, sqrt(squares));
    fflush(stdout);
    bench_figure once = {took.clock, took.clock, took.clock}; /* next to reading alone */
    if (bench_json != NULL)
        bench_write(&(bench_result){.name = label,
                                    .unit = "s",
                                    .figure = once,
                                    .limit = reading.clock,
                                    .ratio = took.clock / reading.clock});
    return st;
}

int main(int argc, char **argv) {
    static const char *const edits[] = {"drop p=0.5",      "dare p=0.9",
                                        "bias k=0.7",      "della p=0.5 epsilon=0.2",
                                        "prune keep=0.3",  "prune keep=0.3 scope=model",
                                        "bitdelta",        "bitdelta granularity=row",
                                        "multibit bits=2", "expo alpha=0.3"};
    MPI_Init(&argc, &argv);
    static bench b;
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &bench_comm);
    bench_begin(&argc, argv, "bench_shape", bench_comm.rank, bench_comm.size);
    if (st == DPT_OK)
        st = argc < 3 ? dpt_error(DPT_ERR_USAGE, "bench_shape PRE POST [PART OF A LABEL]")
                      : setup(&b, argv[1], argv[2]);
    timing reading = {0.0, 0.0};
    if (st == DPT_OK) {
        timing from = timing_begin();
        st = read_all(&b);
        reading = timing_end(from);
    }
    if (st == DPT_OK && bench_comm.rank == 0)
        printf("%" PRId64 " parameters on %d ranks\n%-28s %10s %10s %10s %9s %9s  |E|\n",
               dpt_catalog_elements(b.catalog), bench_comm.size, "edit", "clock [s]", "cpu [s]",
               "read [s]", "G/s rank", "peak MiB");
    for (size_t e = 0; e < sizeof edits / sizeof edits[0] && st == DPT_OK; e++)
        if (argc < 4 || strstr(edits[e], argv[3]) != NULL)
            st = measure(&b, edits[e], reading);
    if (st != DPT_OK) {
        fprintf(stderr, "%s\n", dpt_error_message());
        MPI_Abort(MPI_COMM_WORLD, st);
    }
    bench_end();
    MPI_Finalize();
    return 0;
}

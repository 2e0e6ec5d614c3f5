/* Speed of edits of a bf16 model in memory, as ratios to the memory bandwidth of c = a + s b over as many
 * bytes in the same run, on the same ranks and threads. An edit moves 6 bytes an element: pre, post,
 * edited. Edits and triads take turns, rates are by the time of the processor, and the median of the ratios of
 * neighbours counts, so that other work on the machine does little harm; milliseconds are of the clock.
 *
 * usage: mpirun -n 1 bench_edit [--json FILE] [PART OF A LABEL] */
#include "deltapath/base/mem.h"

#include "deltapath/edit/edit.h"

#include <mpi.h>
#include <omp.h>
#include <time.h>

#include "bench_print.h"

enum { TENSORS = 8, SIDE = 2048, ROUNDS = 11 };

static dpt_comm test_comm;

typedef struct bench {
    dpt_catalog catalog;
    dpt_shard shard;
    bool comparable[TENSORS];
    dpt_field *pre, *post, *out;
    dpt_parts parts;
    dpt_edit_input input;
    int64_t own; /* elements of this rank */
    float *a, *b, *c;
    int64_t floats;
} bench;

/* Of the processor, for each of its threads, and of the clock. */
typedef struct spent {
    double processor, clock;
} spent;

static spent now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    double seconds = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    return (spent){.processor = seconds / omp_get_max_threads(), .clock = MPI_Wtime()};
}

static spent begin(void) {
    MPI_Barrier(test_comm.mpi);
    return now();
}

/* Of the slowest rank. */
static spent since(spent start) {
    spent end = now();
    double seconds[2] = {end.processor - start.processor, end.clock - start.clock};
    MPI_Allreduce(MPI_IN_PLACE, seconds, 2, MPI_DOUBLE, MPI_MAX, test_comm.mpi);
    return (spent){.processor = seconds[0], .clock = seconds[1]};
}

static void fill(bench *b) {
    for (int64_t c = 0; c < b->shard.cells; c++) {
        uint16_t *pre = dpt_field_cell(b->pre, c), *post = dpt_field_cell(b->post, c);
        int64_t n = pre != NULL ? dpt_shard_cell(&b->shard, c).n : 0;
        b->own += n;
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++) {
            uint32_t x = (uint32_t)(i + 7 * c) * 2654435761u;
            pre[i] = (uint16_t)(0x3c00 + (x >> 22) + ((x & 1) << 15));
            post[i] = (uint16_t)(pre[i] + (x >> 28));
        }
    }
}

static dpt_status setup(bench *b) {
    char name[64];
    dpt_catalog_init(&b->catalog);
    dpt_status st = DPT_OK;
    for (int t = 0; t < TENSORS && st == DPT_OK; t++) {
        snprintf(name, sizeof name, "layers.%02d.weight", t);
        st = dpt_catalog_add(&b->catalog, name, DPT_BF16, 2, (int64_t[]){2 * SIDE, SIDE});
    }
    memset(b->comparable, 1, sizeof b->comparable);
    if (st == DPT_OK)
        st = dpt_parts_create(&b->catalog, 0, &b->parts);
    if (st == DPT_OK)
        st = dpt_shard_create(&b->catalog, test_comm.size, &b->shard);
    if (st == DPT_OK)
        st = dpt_field_create(&test_comm, &b->catalog, &b->shard, &b->pre);
    if (st == DPT_OK)
        st = dpt_field_create(&test_comm, &b->catalog, &b->shard, &b->post);
    if (st == DPT_OK)
        st = dpt_field_create(&test_comm, &b->catalog, &b->shard, &b->out);
    if (st != DPT_OK)
        return st;
    fill(b);
    b->input = (dpt_edit_input){.comm = &test_comm,
                                .shard = &b->shard,
                                .pre = dpt_field_source(b->pre),
                                .post = dpt_field_source(b->post),
                                .parts = &b->parts,
                                .comparable = b->comparable};
    b->floats = b->own / 2;
    b->a = dpt_mem_zalloc(b->floats + 1, sizeof(float), "triad");
    b->b = dpt_mem_zalloc(b->floats + 1, sizeof(float), "triad");
    b->c = dpt_mem_zalloc(b->floats + 1, sizeof(float), "triad");
    return DPT_OK;
}

static spent time_triad(bench *b) {
    spent start = begin();
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < b->floats; i++)
        b->c[i] = b->a[i] + 3.0f * b->b[i];
    return since(start);
}

static spent time_edit(bench *b, const dpt_edit_spec *spec) {
    spent start = begin();
    if (dpt_edit_run(spec, &b->input, dpt_field_sink(b->out), NULL) != DPT_OK)
        fprintf(stderr, "%s\n", dpt_error_message());
    return since(start);
}

static dpt_edit_spec one_stage(const char *method, const char *param, const char *value) {
    dpt_edit_spec spec = {.nstages = 1};
    dpt_edit_stage_init(&spec.stages[0], dpt_edit_method_find(method));
    if (param != NULL && dpt_edit_stage_set(&spec.stages[0], param, value) != DPT_OK)
        fprintf(stderr, "%s\n", dpt_error_message());
    return spec;
}

static const char *wanted; /* part of the labels to measure; NULL: all */

/* `bytes`: what the method must move for an element at least. An edit that needs the whole tensor before
 * it can write reads both models twice: 10. */
static void compare(bench *b, const char *label, dpt_edit_spec spec, int bytes) {
    if (wanted != NULL && strstr(label, wanted) == NULL)
        return;
    double triad[ROUNDS], edit[ROUNDS], ratio[ROUNDS], clock[ROUNDS];
    double moved = 6e-9 * (double)dpt_catalog_elements(&b->catalog);
    for (int i = 0; i < ROUNDS; i++) {
        spent before = time_triad(b), it = time_edit(b, &spec);
        edit[i] = it.processor;
        clock[i] = it.clock;
        triad[i] = 0.5 * (before.processor + time_triad(b).processor);
        ratio[i] = triad[i] / edit[i];
    }
    bench_result result = {.name = label,
                           .unit = "GB/s",
                           .figure = bench_over(edit, ROUNDS, moved),
                           .limit = bench_over(triad, ROUNDS, moved).median,
                           .ratio = bench_of(ratio, ROUNDS).median,
                           .seconds = bench_of(clock, ROUNDS).median};
    bench_say(result);
    if (test_comm.rank == 0 && bytes != 6)
        printf("%34s of its %d bytes: %.2f\n", "", bytes, bytes / 6.0 * result.ratio);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    static bench b;
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &test_comm);
    if (st == DPT_OK)
        bench_begin(&argc, argv, "bench_edit", test_comm.rank, test_comm.size);
    wanted = argc > 1 ? argv[1] : NULL;
    if (st == DPT_OK)
        st = setup(&b);
    if (st != DPT_OK) {
        fprintf(stderr, "%s\n", dpt_error_message());
        MPI_Abort(MPI_COMM_WORLD, st);
    }
    if (test_comm.rank == 0)
        printf("edit of %d M bf16 elements in memory, %d ranks x %d threads\n",
               (int)(dpt_catalog_elements(&b.catalog) >> 20), test_comm.size,
               omp_get_max_threads());
    compare(&b, "expo", one_stage("expo", "alpha", "0.5"), 6);
    compare(&b, "dare p=0.5", one_stage("dare", "p", "0.5"), 6);
    compare(&b, "dare p=0.9", one_stage("dare", "p", "0.9"), 6);
    compare(&b, "drop p=0.3", one_stage("drop", "p", "0.3"), 6);
    compare(&b, "bitdelta (two passes)", one_stage("bitdelta", NULL, NULL), 10);
    compare(&b, "bias k=0.7 (two passes)", one_stage("bias", "k", "0.7"), 10);
    compare(&b, "prune keep=0.3 (two passes)", one_stage("prune", "keep", "0.3"), 10);
    dpt_edit_spec della = one_stage("della", "p", "0.5");
    if (dpt_edit_stage_set(&della.stages[0], "epsilon", "0.4") != DPT_OK)
        fprintf(stderr, "%s\n", dpt_error_message());
    compare(&b, "della p=0.5 epsilon=0.4", della, 6);
    bench_end();
    MPI_Finalize();
    return 0;
}

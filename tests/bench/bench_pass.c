/* Passes of a model that lies on disk, one a line of standard input, for tools/compare: forward, backward and terms at
 * t = 0.4 between W_post (FROM) and the model in TO. A line is "SEQUENCES TOKENS PRECISION"; a line of output its seconds
 * (of the slowest rank), the loss, which is the mean over all tokens but the first of each sequence, the sum of the terms, and
 * seconds of the processor of all ranks. Token i of a batch is i * 2654435761 modulo the vocabulary. The ranks share one replica; between two lines they sleep.
 *
 * Usage: mpirun -n 1 bench_pass FROM TO [LAYERS]
 * The activations of so many layers are kept for the way back (all), those of the others computed again. */
#include <limits.h>
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "deltapath/model/model.h"
#include "deltapath/store/store.h"

static const double PLACE = 0.4;

enum { ASKED_FOR = 3, RESULTS = 4, NAP_MICROSECONDS = 1000 };

typedef struct bench {
    dpt_comm world;
    dpt_store *from, *to;
    dpt_model *model;
} bench;

/* A batch and what a pass fills. */
typedef struct work {
    dpt_batch batch;
    int64_t *first;
    int32_t *tokens;
    uint8_t *mask;
    double *weight, *nll, *terms;
} work;

static dpt_status setup(bench *b, const char *from, const char *to) {
    dpt_status st = dpt_store_open(&b->world, from, &b->from);
    if (st == DPT_OK)
        st = dpt_store_open(&b->world, to, &b->to);
    if (st != DPT_OK)
        return st;
    st = dpt_model_create(&b->world, NULL, dpt_store_config(b->from), dpt_store_source(b->from),
                          &b->model);
    dpt_source edited = dpt_store_source(b->to);
    return st == DPT_OK ? dpt_model_bind_edit(b->model, &edited) : st;
}

static work make_work(const dpt_model *model, int64_t sequences, int64_t length) {
    int64_t T = sequences * length;
    work w = {.first = malloc((size_t)(sequences + 1) * sizeof *w.first),
              .tokens = malloc((size_t)T * sizeof *w.tokens),
              .mask = malloc((size_t)T),
              .weight = malloc((size_t)T * sizeof *w.weight),
              .nll = calloc((size_t)T, sizeof *w.nll),
              .terms = calloc((size_t)(sequences * dpt_model_columns(model)), sizeof *w.terms)};
    if (w.first == NULL || w.tokens == NULL || w.mask == NULL || w.weight == NULL ||
        w.nll == NULL || w.terms == NULL)
        exit(DPT_ERR_OUTPUT);
    for (int64_t s = 0; s <= sequences; s++)
        w.first[s] = s * length;
    for (int64_t i = 0; i < T; i++) {
        w.tokens[i] = (int32_t)(i * 2654435761 % dpt_model_vocabulary(model));
        w.mask[i] = i % length > 0;
        w.weight[i] = 1.0 / (double)(sequences * (length - 1));
    }
    w.batch =
        (dpt_batch){.sequences = sequences, .first = w.first, .tokens = w.tokens, .mask = w.mask};
    return w;
}

static void free_work(work *w) {
    free(w->first);
    free(w->tokens);
    free(w->mask);
    free(w->weight);
    free(w->nll);
    free(w->terms);
}

static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One pass. @param[out] result seconds, loss, sum of the terms, seconds of the processor of all ranks. */
static dpt_status run(const bench *b, int64_t sequences, int64_t length, double result[RESULTS]) {
    work w = make_work(b->model, sequences, length);
    int64_t columns = dpt_model_columns(b->model), tensors = dpt_model_catalog(b->model)->count;
    MPI_Barrier(b->world.mpi);
    double begin = omp_get_wtime(), used = processor_seconds();
    dpt_status st = dpt_model_run(b->model, &w.batch, PLACE, DPT_BACKWARD_TERMS, w.weight, w.nll,
                                  NULL, w.terms, NULL);
    result[0] = omp_get_wtime() - begin;
    result[3] = processor_seconds() - used;
    result[1] = result[2] = 0.0;
    for (int64_t i = 0; i < sequences * length; i++)
        result[1] += w.nll[i] * w.weight[i];
    for (int64_t s = 0; s < sequences; s++)
        for (int64_t t = 0; t < tensors; t++)
            result[2] += w.terms[s * columns + t];
    (void)dpt_comm_max_f64(&b->world, &result[0], 1);
    (void)dpt_comm_sum_f64(&b->world, &result[2], 2);
    free_work(&w);
    return st;
}

/* What rank 0 reads, without keeping the cores of the others busy while it waits: sequences, tokens, whether in bf16.
 * @return false at the end. */
static bool ask(const bench *b, int64_t asked[ASKED_FOR]) {
    char line[256], precision[16] = "";
    MPI_Request request;
    int done = 0;
    asked[0] = 0;
    if (b->world.rank == 0 && fgets(line, sizeof line, stdin) != NULL) {
        long long sequences, length;
        if (sscanf(line, "%lld %lld %15s", &sequences, &length, precision) == ASKED_FOR &&
            sequences > 0 && length > 1) {
            asked[0] = sequences;
            asked[1] = length;
            asked[2] = strcmp(precision, "bf16") == 0;
        } else {
            fprintf(stderr, "bench_pass: %s: give SEQUENCES TOKENS fp32|bf16\n",
                    strtok(line, "\n"));
        }
    }
    MPI_Ibcast(asked, ASKED_FOR, MPI_INT64_T, 0, b->world.mpi, &request);
    for (MPI_Test(&request, &done, MPI_STATUS_IGNORE); !done;
         MPI_Test(&request, &done, MPI_STATUS_IGNORE))
        usleep(NAP_MICROSECONDS);
    return asked[0] > 0;
}

int main(int argc, char **argv) {
    bench b = {.model = NULL};
    MPI_Init(&argc, &argv);
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &b.world);
    if (st == DPT_OK)
        st = argc < 3 ? dpt_error(DPT_ERR_USAGE, "bench_pass FROM TO [LAYERS]")
                      : setup(&b, argv[1], argv[2]);
    if (st == DPT_OK)
        dpt_model_hold_layers(b.model, argc > 3 ? atoi(argv[3]) : INT_MAX);
    for (int64_t asked[ASKED_FOR]; st == DPT_OK && ask(&b, asked);) {
        double result[RESULTS];
        st = dpt_model_set_precision(b.model, asked[2] ? DPT_PRECISION_BF16 : DPT_PRECISION_FP32);
        if (st == DPT_OK)
            st = run(&b, asked[0], asked[1], result);
        if (st == DPT_OK && b.world.rank == 0)
            printf("%.6f %.9g %.9g %.6f\n", result[0], result[1], result[2], result[3]);
        fflush(stdout);
    }
    if (st != DPT_OK)
        fprintf(stderr, "bench_pass: %s\n", dpt_error_message());
    dpt_model_destroy(b.model);
    dpt_store_close(b.from);
    dpt_store_close(b.to);
    dpt_comm_destroy(&b.world);
    MPI_Finalize();
    return (int)st;
}

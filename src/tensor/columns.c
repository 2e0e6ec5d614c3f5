#include "deltapath/tensor/columns.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <string.h>

enum { COLUMNS_BYTES = 4 << 20 }; /* of whole rows that a rank reads at a time */

/* Columns [begin, begin + n) of a rank. */
typedef struct columns_span {
    int64_t begin, n;
} columns_span;

typedef struct columns_transfer {
    const dpt_comm *comm;
    const dpt_source *source;
    int tensor;
    int64_t rows, width, size; /* of the matrix; bytes of an element */
    int64_t first;             /* row of the tensor with which the matrix begins */
    int64_t step;              /* rows that a rank reads at a time */
    columns_span *spans;       /* (ranks) */
    char *read, *packed;       /* (step, width), and the columns of each rank out of it */
    int64_t *sent, *received;  /* (ranks) bytes */
} columns_transfer;

static dpt_status columns_prepare(columns_transfer *t, const dpt_block *want) {
    columns_span own = {.n = want->cols};
    if (own.n > 0)
        own.begin = want->ig % want->stride;
    void *spans;
    int64_t *counts, wanted = 0;
    dpt_status st = dpt_comm_allgather(t->comm, &own, sizeof own, &spans, &counts);
    if (st != DPT_OK)
        return st;
    dpt_mem_free(counts);
    t->spans = spans;
    for (int r = 0; r < t->comm->size; r++) {
        DPT_ASSERT(t->spans[r].begin >= 0 && t->spans[r].begin + t->spans[r].n <= t->width);
        wanted += t->spans[r].n;
    }
    t->read = dpt_mem_zalloc(t->step * t->width, (size_t)t->size, "rows of a matrix");
    t->packed = dpt_mem_alloc(t->step * wanted, (size_t)t->size, "columns of a matrix");
    t->sent = dpt_mem_alloc(t->comm->size, sizeof *t->sent, "columns of a matrix");
    t->received = dpt_mem_alloc(t->comm->size, sizeof *t->received, "columns of a matrix");
    bool complete = t->read != NULL && t->packed != NULL && t->sent != NULL && t->received != NULL;
    return dpt_agree(t->comm, complete ? DPT_OK : DPT_ERR_OUTPUT);
}

/* Rows that rank r reads of the round that begins at a row. */
static int64_t columns_rows_of(const columns_transfer *t, int64_t round, int r, int64_t *first) {
    *first = round + r * t->step;
    int64_t left = t->rows - *first;
    return left < 0 ? 0 : left < t->step ? left : t->step;
}

/* The columns of each rank, one rank after the other. */
static void columns_pack(columns_transfer *t, int64_t rows) {
    char *at = t->packed;
    for (int r = 0; r < t->comm->size; r++) {
        size_t bytes = (size_t)(t->spans[r].n * t->size);
        t->sent[r] = rows * (int64_t)bytes;
        for (int64_t i = 0; i < rows && bytes > 0; i++, at += bytes)
            memcpy(at, t->read + (i * t->width + t->spans[r].begin) * t->size, bytes);
    }
}

/* A round of rows of all ranks, which arrive in the order of the matrix; @return bytes of out that it fills.
 * A rank that has failed sends what it has. */
static int64_t columns_move(columns_transfer *t, int64_t round, dpt_status *st, char *out) {
    int64_t first, total = 0, own = t->spans[t->comm->rank].n * t->size;
    int64_t rows = columns_rows_of(t, round, t->comm->rank, &first);
    dpt_block block = {.tensor = t->tensor,
                       .ig = (t->first + first) * t->width,
                       .rows = rows,
                       .cols = t->width,
                       .stride = t->width};
    void *outs[] = {t->read};
    if (*st == DPT_OK && rows > 0)
        *st = t->source->fetch(t->source->ctx, 1, &block, outs);
    columns_pack(t, rows);
    for (int r = 0; r < t->comm->size; r++) {
        t->received[r] = columns_rows_of(t, round, r, &first) * own;
        total += t->received[r];
    }
    dpt_status moved = dpt_comm_exchange(t->comm, t->packed, t->sent, out, t->received);
    *st = dpt_status_worse(*st, moved);
    return total;
}

dpt_status dpt_columns_fetch(const dpt_comm *comm, const dpt_source *source, const dpt_block *want,
                             void *out) {
    DPT_ASSERT_SAME(comm, want->tensor);
    DPT_ASSERT_SAME(comm, source->independent);
    DPT_ASSERT_SAME(comm, want->rows);
    DPT_ASSERT_SAME(comm, want->stride);
    DPT_ASSERT_SAME(comm, want->ig / want->stride);
    columns_transfer t = {.comm = comm,
                          .source = source,
                          .tensor = want->tensor,
                          .rows = want->rows,
                          .width = want->stride,
                          .first = want->ig / want->stride,
                          .size = dpt_dtype_size(source->catalog->tensors[want->tensor].dtype)};
    int64_t at_once = COLUMNS_BYTES / (t.width * t.size), share = (t.rows - 1) / comm->size + 1;
    t.step = at_once < share ? at_once : share;
    t.step = t.step > 0 ? t.step : 1;
    dpt_status st = columns_prepare(&t, want);
    bool ready = st == DPT_OK; /* on all ranks */
    char *at = out;
    for (int64_t row = 0; ready && row < t.rows; row += t.step * comm->size) {
        int64_t bytes = columns_move(&t, row, &st, at);
        at = at != NULL ? at + bytes : NULL;
    }
    DPT_ASSERT(st != DPT_OK || out == NULL || at == (char *)out + want->rows * want->cols * t.size);
    dpt_mem_free(t.spans);
    dpt_mem_free(t.read);
    dpt_mem_free(t.packed);
    dpt_mem_free(t.sent);
    dpt_mem_free(t.received);
    return ready ? dpt_agree(comm, st) : st;
}

#include "deltapath/tensor/redist.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Redistribution between cells and blocks.
 *
 * The problem: cells are runs of elements in row-major order, blocks are rows and columns of a
 * matrix that a rank of the model mesh wants; one block meets many cells and one cell many blocks,
 * in runs as short as a few columns. A description of each run would be larger than the run.
 *
 * The idea: all ranks know the shard, and after one all-gather all lists of blocks. Sender and
 * receiver then walk the same list for the same owner in the same order (`walk`), and the bytes
 * between them are the concatenation of the runs of that walk: nothing else is sent. A walk can
 * stop where a piece of the message is full and go on there, so buffers are of one size whatever
 * moves.
 *
 * Invariants: a run lies in one row of its block and in one cell; both sides cut the walk into the
 * same pieces, for both fill PIECE_BYTES with the same runs (what was received is checked to be
 * what the walk takes). Not MPI_Alltoallv: it wants 32-bit counts and all buffers at once; not
 * derived types: the packing would be the same, done by the library run by run.
 *
 * In a scatter two ranks may send one element. The value of the higher rank must then stay,
 * whatever arrives first, so such scatters are done one sender after the other
 * (move_in_rank_order); all others rotate. */

/* Bytes that travel at once between two ranks: the memory of a transfer does not grow with it. A
 * multiple of every element size. */
enum { PIECE_BYTES = 1 << 22 };

/* Lists of all ranks: those of rank r are blocks[first[r]] .. blocks[first[r + 1] - 1]. */
typedef struct lists {
    dpt_block *blocks;
    int64_t *first;
} lists;

/* A walk over the elements of a list of blocks that lie in the cells of one rank: by block, row and
 * column. Sender and receiver make the same walk, so the order of the bytes needs no description. */
typedef struct walk {
    const dpt_shard *shard;
    const dpt_block *blocks;
    int64_t count;
    int owner;
    int64_t block;
    int64_t begin, end; /* elements of the block's tensor that the owner has */
    int64_t row, rows;  /* next and last row of the block that touch them */
    int64_t col;        /* next column to look at in the row */
} walk;

/* A run of elements in one row of a block and in one cell. */
typedef struct run {
    int64_t block;
    int64_t ig;
    int64_t at; /* elements before it in the block's buffer */
    int64_t n;
    int64_t size; /* bytes of an element */
} run;

static int64_t redist_min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t redist_max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static void walk_enter_block(walk *w) {
    w->row = 0;
    w->rows = 0;
    w->col = 0;
    if (w->block >= w->count)
        return;
    dpt_block b = w->blocks[w->block];
    if (b.rows == 0 || b.cols == 0)
        return;
    dpt_shard_owned(w->shard, w->owner, b.tensor, &w->begin, &w->end);
    if (w->begin >= w->end || w->end <= b.ig)
        return;
    /* Row i holds [ig + i * stride, ig + i * stride + cols). */
    int64_t stride = b.rows == 1 ? b.cols : b.stride;
    w->row = w->begin < b.ig + b.cols ? 0 : (w->begin - b.ig - b.cols) / stride + 1;
    w->rows = redist_min64(b.rows, (w->end - b.ig - 1) / stride + 1);
}

static walk walk_start(const dpt_shard *shard, const lists *all, int of, int owner) {
    walk w = {.shard = shard,
              .blocks = all->blocks + all->first[of],
              .count = all->first[of + 1] - all->first[of],
              .owner = owner};
    walk_enter_block(&w);
    return w;
}

/* Move to the next row or block that has elements left. */
static bool walk_more(walk *w) {
    while (w->block < w->count && w->row >= w->rows) {
        w->block++;
        walk_enter_block(w);
    }
    return w->block < w->count;
}

/* The next run that fits into `room` bytes. False at the end or when none fits. */
static bool walk_next(walk *w, int64_t room, run *out) {
    if (!walk_more(w))
        return false;
    dpt_block b = w->blocks[w->block];
    int64_t size = dpt_dtype_size(w->shard->catalog->tensors[b.tensor].dtype);
    int64_t start = b.ig + (b.rows == 1 ? 0 : w->row * b.stride);
    int64_t from = redist_max64(start + w->col, w->begin);
    int64_t to = redist_min64(start + b.cols, w->end);
    int64_t cell_end = redist_min64(to, (from / DPT_CELL + 1) * (int64_t)DPT_CELL);
    int64_t n = redist_min64(cell_end - from, room / size);
    DPT_ASSERT(from < to && from >= start);
    if (n <= 0)
        return false;
    *out = (run){.block = w->block,
                 .ig = from,
                 .at = w->row * b.cols + (from - start),
                 .n = n,
                 .size = size};
    w->col = from - start + n;
    if (from + n >= to) {
        w->col = 0;
        w->row++;
    }
    return true;
}

/* What moves: in a gather cells are read and lists written, in a scatter the reverse. */
typedef struct transfer {
    const dpt_comm *comm;
    const dpt_shard *shard;
    const lists *all;
    void *const *cells;   /* of this rank */
    void *const *buffers; /* of this rank's list */
    bool gather;
    unsigned char *out; /* PIECE_BYTES each */
    unsigned char *in;
} transfer;

static unsigned char *cell_place(const transfer *t, const walk *w, const run *r) {
    int64_t cell = dpt_shard_cell_of(t->shard, w->blocks[r->block].tensor, r->ig);
    DPT_ASSERT(dpt_shard_owner(t->shard, cell) == t->comm->rank);
    DPT_ASSERT(r->ig % DPT_CELL + r->n <= DPT_CELL);
    unsigned char *start = t->cells[cell - t->shard->rank_first[t->comm->rank]];
    return start + r->ig % DPT_CELL * r->size;
}

/* In a gather the sender owns the cells, in a scatter it has the list. */
static unsigned char *redist_place(const transfer *t, const walk *w, const run *r, bool sending) {
    if (sending == t->gather)
        return cell_place(t, w, r);
    return (unsigned char *)t->buffers[r->block] + r->at * r->size;
}

static int64_t redist_pack(const transfer *t, walk *w) {
    run r;
    int64_t bytes = 0;
    while (walk_next(w, PIECE_BYTES - bytes, &r)) {
        memcpy(t->out + bytes, redist_place(t, w, &r, true), (size_t)(r.n * r.size));
        bytes += r.n * r.size;
    }
    return bytes;
}

/* @return bytes that the walk took: what the sender, on the same walk, must have sent. */
static int64_t redist_unpack(const transfer *t, walk *w) {
    run r;
    int64_t bytes = 0;
    while (walk_next(w, PIECE_BYTES - bytes, &r)) {
        memcpy(redist_place(t, w, &r, false), t->in + bytes, (size_t)(r.n * r.size));
        bytes += r.n * r.size;
    }
    return bytes;
}

static walk walk_between(const transfer *t, int sender, int receiver) {
    return t->gather ? walk_start(t->shard, t->all, receiver, sender)
                     : walk_start(t->shard, t->all, sender, receiver);
}

static void move_own(const transfer *t) {
    walk w = walk_between(t, t->comm->rank, t->comm->rank);
    run r;
    while (walk_next(&w, INT64_MAX, &r))
        memcpy(redist_place(t, &w, &r, false), redist_place(t, &w, &r, true),
               (size_t)(r.n * r.size));
}

static int64_t redist_received(const MPI_Status *status, bool receives) {
    int bytes = 0;
    if (receives)
        (void)dpt_comm_check(MPI_Get_count(status, MPI_BYTE, &bytes), "MPI_Get_count");
    return bytes;
}

/* Send to one rank and receive from another, in pieces; -1 for nobody. */
static dpt_status move_between(const transfer *t, int to, int from) {
    walk sending = {.count = 0};
    walk receiving = {.count = 0};
    if (to >= 0)
        sending = walk_between(t, t->comm->rank, to);
    if (from >= 0)
        receiving = walk_between(t, from, t->comm->rank);
    for (;;) {
        bool sends = walk_more(&sending);
        bool receives = walk_more(&receiving);
        if (!sends && !receives)
            return DPT_OK;
        MPI_Status status;
        int bytes = sends ? (int)redist_pack(t, &sending) : 0;
        int code =
            MPI_Sendrecv(t->out, bytes, MPI_BYTE, sends ? to : MPI_PROC_NULL, 0, t->in, PIECE_BYTES,
                         MPI_BYTE, receives ? from : MPI_PROC_NULL, 0, t->comm->mpi, &status);
        (void)dpt_comm_check(code, "MPI_Sendrecv");
        int64_t took = receives ? redist_unpack(t, &receiving) : 0;
        DPT_ASSERT(took == redist_received(&status, receives));
    }
}

static dpt_status move_rotating(const transfer *t) {
    int size = t->comm->size;
    move_own(t);
    dpt_status st = DPT_OK;
    for (int step = 1; st == DPT_OK && step < size; step++)
        st = move_between(t, (t->comm->rank + step) % size, (t->comm->rank - step + size) % size);
    return st;
}

/* One sender after the other, so that the value of the highest rank stays. */
static dpt_status move_in_rank_order(const transfer *t) {
    dpt_status st = DPT_OK;
    for (int sender = 0; sender < t->comm->size; sender++) {
        if (sender != t->comm->rank) {
            st = st == DPT_OK ? move_between(t, -1, sender) : st;
            continue;
        }
        move_own(t);
        for (int to = 0; st == DPT_OK && to < t->comm->size; to++)
            if (to != sender)
                st = move_between(t, to, -1);
    }
    return st;
}

static bool block_inside(const dpt_shard *shard, dpt_block b) {
    if (b.tensor < 0 || b.tensor >= shard->ntensors || b.ig < 0 || b.rows < 0 || b.cols < 0)
        return false;
    if (b.rows == 0 || b.cols == 0)
        return true;
    int64_t last = 0;
    if (b.rows > 1 && (b.stride < b.cols || !dpt_mem_mul(b.rows - 1, b.stride, &last)))
        return false;
    return dpt_mem_add(last, b.ig, &last) && dpt_mem_add(last, b.cols, &last) &&
           last <= shard->catalog->tensors[b.tensor].numel;
}

static dpt_status check_blocks(const dpt_shard *shard, int64_t count, const dpt_block *blocks) {
    for (int64_t i = 0; i < count; i++) {
        dpt_block b = blocks[i];
        if (!block_inside(shard, b))
            return dpt_error(DPT_ERR_INTERNAL,
                             "block of %" PRId64 " x %" PRId64 " elements at %" PRId64
                             " is not inside tensor %d",
                             b.rows, b.cols, b.ig, b.tensor);
    }
    return DPT_OK;
}

static dpt_status gather_lists(const dpt_comm *comm, const dpt_shard *shard, int64_t count,
                               const dpt_block *blocks, lists *all) {
    dpt_status st = dpt_agree(comm, check_blocks(shard, count, blocks));
    if (st != DPT_OK)
        return st;
    void *gathered;
    int64_t *bytes;
    st = dpt_comm_allgather(comm, blocks, count * (int64_t)sizeof *blocks, &gathered, &bytes);
    if (st != DPT_OK)
        return st;
    all->blocks = gathered;
    all->first = dpt_mem_alloc((int64_t)comm->size + 1, sizeof *all->first, "lists of blocks");
    for (int r = 0; all->first != NULL && r <= comm->size; r++)
        all->first[r] = r == 0 ? 0 : all->first[r - 1] + bytes[r - 1] / (int64_t)sizeof *blocks;
    dpt_mem_free(bytes);
    return all->first == NULL ? DPT_ERR_OUTPUT : DPT_OK;
}

typedef struct claim {
    int tensor;
    int rank;
    int64_t begin, end;
} claim;

static int by_position(const void *a, const void *b) {
    const claim *left = a;
    const claim *right = b;
    if (left->tensor != right->tensor)
        return left->tensor < right->tensor ? -1 : 1;
    return (left->begin > right->begin) - (left->begin < right->begin);
}

/* Whether two ranks send one element (blocks of a scatter have one row). */
static dpt_status find_overlap(const lists *all, int ranks, bool *overlap) {
    int64_t count = all->first[ranks];
    *overlap = false;
    claim *claims = dpt_mem_alloc(count, sizeof *claims, "claims of a scatter");
    if (claims == NULL)
        return DPT_ERR_OUTPUT;
    int64_t n = 0;
    for (int r = 0; r < ranks; r++)
        for (int64_t i = all->first[r]; i < all->first[r + 1]; i++) {
            dpt_block b = all->blocks[i];
            if (b.cols > 0)
                claims[n++] = (claim){b.tensor, r, b.ig, b.ig + b.cols};
        }
    if (n > 1)
        qsort(claims, (size_t)n, sizeof *claims, by_position);
    claim reach = {.tensor = -1}; /* the run that reaches furthest so far */
    for (int64_t i = 0; i < n; i++) {
        bool meets = claims[i].tensor == reach.tensor && claims[i].begin < reach.end;
        *overlap = *overlap || meets;
        if (!meets || claims[i].end > reach.end)
            reach = claims[i];
    }
    dpt_mem_free(claims);
    return DPT_OK;
}

int64_t dpt_redist_bytes(int ranks) {
    return ranks > 1 ? 2 * (int64_t)PIECE_BYTES : 0;
}

static dpt_status run_transfer(transfer *t, int64_t count, const dpt_block *blocks) {
    lists all = {.blocks = NULL};
    bool overlap = false;
    dpt_status st = gather_lists(t->comm, t->shard, count, blocks, &all);
    t->all = &all; // cppcheck-suppress autoVariables; taken back below
    int64_t piece = dpt_redist_bytes(t->comm->size) / 2;
    t->out = dpt_mem_alloc(piece, 1, "tensor transfer");
    t->in = dpt_mem_alloc(piece, 1, "tensor transfer");
    if (st == DPT_OK && (t->out == NULL || t->in == NULL))
        st = DPT_ERR_OUTPUT;
    if (st == DPT_OK && !t->gather)
        st = find_overlap(&all, t->comm->size, &overlap);
    st = dpt_agree(t->comm, st);
    if (st == DPT_OK)
        st = dpt_agree(t->comm, overlap ? move_in_rank_order(t) : move_rotating(t));
    dpt_mem_free(t->in);
    dpt_mem_free(t->out);
    dpt_mem_free(all.first);
    dpt_mem_free(all.blocks);
    t->all = NULL;
    return st;
}

dpt_status dpt_redist_gather(const dpt_comm *comm, const dpt_shard *shard,
                             const void *const *cell_data, int64_t count, const dpt_block *wants,
                             void *const *outs) {
    transfer t = {.comm = comm,
                  .shard = shard,
                  .cells = (void *const *)cell_data,
                  .buffers = outs,
                  .gather = true};
    return run_transfer(&t, count, wants);
}

dpt_status dpt_redist_scatter(const dpt_comm *comm, const dpt_shard *shard, void *const *cell_data,
                              int64_t count, const dpt_range *ranges, const void *const *data) {
    transfer t = {.comm = comm, .shard = shard, .cells = cell_data, .buffers = (void *const *)data};
    dpt_block *blocks = dpt_mem_alloc(count, sizeof *blocks, "runs of a scatter");
    dpt_status st = dpt_agree(comm, blocks == NULL ? DPT_ERR_OUTPUT : DPT_OK);
    for (int64_t i = 0; st == DPT_OK && i < count; i++)
        blocks[i] = dpt_block_of_range(ranges[i]);
    if (st == DPT_OK)
        st = run_transfer(&t, count, blocks);
    dpt_mem_free(blocks);
    return st;
}

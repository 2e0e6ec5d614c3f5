#include "rows.h"

#include "order.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

#include <inttypes.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Ranks within rows.
 *
 * The problem: an edit that treats an entry by its place in the order of its row (DELLA) needs the
 * whole row, while work is dealt out in cells of 2^20 elements that end anywhere in a row, and runs
 * of cells in ranks. A layout by rows would give another share of work for every shape, and sums
 * over cells, whose order fixes the bits of all results, would follow it.
 *
 * The idea: most rows lie inside one cell and are ranked when the cell is edited, from the deltas
 * at hand (dpt_edit_rows_order). Only the rows that a border of cells cuts are ranked beforehand,
 * all of them at once, and of these only their ranks in own cells are kept, 4 bytes an element: the
 * head and the tail of each cell (`fragments`), which are at most two rows. So a cell needs no
 * neighbour any more when it is edited, in whatever order and by whatever thread.
 *
 * A cut row of which this rank has all parts is put together from its own cells. One that lies on
 * several ranks, at most one for each border of ranks, is gathered whole on all ranks: one exchange
 * for all such rows, where a merge of partial orders would need rounds of messages to save the
 * memory of those few. Every rank finds their list from the shard alone and in the same order, so
 * that the gathered parts need no description (find_shared, exchange).
 *
 * Invariants: head + tail + whole rows are the cell; a cell inside one row is all head, or all tail
 * where the row begins; ranks are a permutation of 0 .. n - 1 with equal magnitudes in the order of
 * position, so that they are the same however the row was cut. */

/* The parts of a cell whose rows begin or end in other cells. */
typedef struct fragments {
    int64_t head; /* entries of a row that began in an earlier cell */
    int64_t tail; /* entries of a row that ends in a later one */
    int64_t at;   /* place of their orders, head first */
} fragments;

/* A row that several ranks share. */
typedef struct shared_row {
    int tensor;
    int64_t row;
    int64_t at; /* place in the exchanged values */
} shared_row;

struct dpt_edit_rows {
    const dpt_edit_stage *stage;
    int64_t first, last;  /* own cells */
    fragments *fragments; /* (own cells) */
    uint32_t *kept;       /* orders of all fragments */
    uint32_t *orders;     /* (threads, window) of rows within a cell */
    float *deltas;        /* (threads, window) of these */
    char *room;           /* (threads, stride) of making one */
    int64_t longest, window, stride;
    int threads;
};

int64_t dpt_edit_row_length(const dpt_tensor_info *info) {
    return info->ndim < 2 || info->shape[0] == 0 ? info->numel : info->numel / info->shape[0];
}

static int64_t length_of(const dpt_edit_stage *stage, int tensor) {
    return dpt_edit_row_length(&stage->catalog->tensors[tensor]);
}

static fragments split_cell(const dpt_edit_stage *stage, dpt_range cell) {
    int64_t n = length_of(stage, cell.tensor), end = cell.ig + cell.n;
    fragments f = {.head = (n - cell.ig % n) % n, .tail = end % n};
    if (f.head >= cell.n) /* all of the cell is inside one row, or ends it */
        return (fragments){.head = cell.n};
    DPT_ASSERT(f.head + f.tail <= cell.n && (cell.n - f.head - f.tail) % n == 0);
    return f;
}

/* Part of a row in own cell c, as a range. */
static dpt_range part_of(const dpt_edit_rows *r, int tensor, int64_t row, int64_t c) {
    int64_t n = length_of(r->stage, tensor);
    dpt_range cell = dpt_shard_cell(r->stage->input->shard, c);
    int64_t begin = row * n > cell.ig ? row * n : cell.ig;
    int64_t end = (row + 1) * n < cell.ig + cell.n ? (row + 1) * n : cell.ig + cell.n;
    DPT_ASSERT(cell.tensor == tensor && begin < end);
    return (dpt_range){.tensor = tensor, .ig = begin, .n = end - begin};
}

/* Cells of a row: [begin, end), those of this rank when `own`. */
static void rows_cells_of(const dpt_edit_rows *r, int tensor, int64_t row, bool own, int64_t *begin,
                          int64_t *end) {
    const dpt_shard *shard = r->stage->input->shard;
    int64_t n = length_of(r->stage, tensor);
    *begin = dpt_shard_cell_of(shard, tensor, row * n);
    *end = dpt_shard_cell_of(shard, tensor, (row + 1) * n - 1) + 1;
    if (own) {
        *begin = *begin > r->first ? *begin : r->first;
        *end = *end < r->last ? *end : r->last;
    }
}

/* Deltas of the own parts of a row, end to end. Local. */
static dpt_status load_row(dpt_edit_work *work, const dpt_edit_rows *r, int tensor, int64_t row,
                           float *out, int64_t *count) {
    int64_t begin, end;
    dpt_status st = DPT_OK;
    *count = 0;
    rows_cells_of(r, tensor, row, true, &begin, &end);
    for (int64_t c = begin; st == DPT_OK && c < end; c++) {
        dpt_range part = part_of(r, tensor, row, c);
        st = dpt_edit_delta(work, r->stage->index, part, out + *count);
        *count += part.n;
    }
    DPT_ASSERT(*count <= length_of(r->stage, tensor));
    return st;
}

/* Rows that begin on one rank and end on another, in order; at most one for each border of ranks.
 * @return how many; *total elements of all. */
static int64_t find_shared(const dpt_edit_rows *r, shared_row *list, int64_t *total) {
    const dpt_shard *shard = r->stage->input->shard;
    int64_t count = 0;
    *total = 0;
    for (int rank = 1; rank < shard->ranks; rank++) {
        int64_t c = shard->rank_first[rank];
        if (c <= 0 || c >= shard->cells)
            continue;
        dpt_range cell = dpt_shard_cell(shard, c);
        int64_t n = length_of(r->stage, cell.tensor);
        if (!r->stage->covers[cell.tensor] || cell.ig % n == 0)
            continue;
        shared_row one = {.tensor = cell.tensor, .row = cell.ig / n, .at = *total};
        if (count > 0 && list[count - 1].tensor == one.tensor && list[count - 1].row == one.row)
            continue;
        DPT_ASSERT(count < shard->ranks - 1);
        list[count++] = one;
        *total += n;
    }
    return count;
}

/* Values of the shared rows end to end: ranks hold the cells in order, so their parts in the order of
 * ranks are the rows. Collective. @param[out] all freed by the caller. */
static dpt_status exchange(dpt_edit_work *work, const dpt_edit_rows *r, const shared_row *list,
                           int64_t nshared, int64_t total, float **all) {
    const dpt_comm *comm = work->input->comm;
    float *own = dpt_mem_alloc(total, sizeof *own, "rows that ranks share");
    dpt_status st = own != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    int64_t count = 0;
    for (int64_t i = 0; st == DPT_OK && i < nshared; i++) {
        int64_t part;
        st = load_row(work, r, list[i].tensor, list[i].row, own + count, &part);
        count += part;
    }
    st = dpt_agree(comm, st);
    void *gathered = NULL;
    int64_t *counts = NULL;
    if (st == DPT_OK)
        st = dpt_agree(
            comm, dpt_comm_allgather(comm, own, count * (int64_t)sizeof *own, &gathered, &counts));
    for (int rank = 0; DPT_CHECKS && st == DPT_OK && rank < comm->size; rank++)
        total -= counts[rank] / (int64_t)sizeof *own;
    DPT_ASSERT(st != DPT_OK || total == 0); /* the parts of all ranks are the rows */
    *all = gathered;
    dpt_mem_free(counts);
    dpt_mem_free(own);
    return st;
}

/* Work of ordering one row at a time. */
typedef struct row_order {
    const shared_row *list;
    int64_t nshared;
    const float *shared;
    float *values;   /* (longest row) */
    uint32_t *order; /* (longest row) */
    void *room;
} row_order;

static const float *find_values(const row_order *k, int tensor, int64_t row) {
    for (int64_t i = 0; i < k->nshared; i++)
        if (k->list[i].tensor == tensor && k->list[i].row == row)
            return k->shared + k->list[i].at;
    return NULL;
}

/* Order one row and keep what falls into own cells. Local. */
static dpt_status order_row(dpt_edit_work *work, dpt_edit_rows *r, const row_order *k, int tensor,
                            int64_t row) {
    int64_t n = length_of(r->stage, tensor), begin, end, count;
    const float *values = find_values(k, tensor, row);
    if (values == NULL) {
        values = k->values;
        dpt_status st = load_row(work, r, tensor, row, k->values, &count);
        if (st != DPT_OK)
            return st;
        DPT_ASSERT(count == n); /* not shared: all of it is here */
    }
    dpt_edit_order_row(values, n, k->order, k->room);
    rows_cells_of(r, tensor, row, true, &begin, &end);
    for (int64_t c = begin; c < end; c++) {
        dpt_range part = part_of(r, tensor, row, c);
        const fragments *f = &r->fragments[c - r->first];
        bool head = f->head > 0 && part.ig == dpt_shard_cell(r->stage->input->shard, c).ig;
        DPT_ASSERT(part.n == (head ? f->head : f->tail));
        memcpy(r->kept + f->at + (head ? 0 : f->head), k->order + (part.ig - row * n),
               (size_t)part.n * sizeof *r->kept);
    }
    return DPT_OK;
}

/* A row is ordered where its first part is the tail of an own cell, or at the head of the first own
 * cell. */
static dpt_status order_rows(dpt_edit_work *work, dpt_edit_rows *r, const row_order *k) {
    dpt_status st = DPT_OK;
    for (int64_t c = r->first; st == DPT_OK && c < r->last; c++) {
        dpt_range cell = dpt_shard_cell(r->stage->input->shard, c);
        const fragments *f = &r->fragments[c - r->first];
        if (!r->stage->covers[cell.tensor])
            continue;
        int64_t n = length_of(r->stage, cell.tensor);
        if (c == r->first && f->head > 0)
            st = order_row(work, r, k, cell.tensor, cell.ig / n);
        if (st == DPT_OK && f->tail > 0)
            st = order_row(work, r, k, cell.tensor, (cell.ig + cell.n) / n);
    }
    return st;
}

/* Entries that are ordered at a time. */
static int64_t within_cell(int64_t longest) {
    int64_t n = longest < DPT_CELL ? longest : DPT_CELL;
    return n > DPT_EDIT_PIECE ? n : DPT_EDIT_PIECE;
}

/* Deltas that are at hand while rows pass: a row, and the pieces where it begins and ends. */
static int64_t window_of(int64_t longest) {
    return within_cell(longest) + 2 * DPT_EDIT_PIECE;
}

static dpt_status rows_allocate(dpt_edit_work *work, dpt_edit_rows *r, int64_t *longest) {
    const dpt_catalog *catalog = r->stage->catalog;
    int64_t kept = 0;
    *longest = 1;
    for (int t = 0; t < catalog->count; t++) {
        int64_t n = r->stage->covers[t] ? length_of(r->stage, t) : 0;
        *longest = n > *longest ? n : *longest;
        if (n > UINT32_MAX)
            return dpt_error(DPT_ERR_INPUT,
                             "tensor '%s': a row of %" PRId64 " elements is too long to order: "
                             "exclude it with select",
                             catalog->tensors[t].name, n);
    }
    r->longest = within_cell(*longest);
    r->window = window_of(*longest);
    r->stride = dpt_edit_order_bytes(r->longest);
    r->fragments = dpt_mem_zalloc(r->last - r->first, sizeof *r->fragments, "rows of cells");
    r->orders = dpt_mem_alloc(r->window * work->threads, sizeof *r->orders, "order of a row");
    r->deltas = dpt_mem_alloc(r->window * work->threads, sizeof *r->deltas, "deltas of a row");
    r->room = dpt_mem_alloc(r->stride * work->threads, 1, "order of a row");
    if (r->fragments == NULL || r->orders == NULL || r->deltas == NULL || r->room == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t c = r->first; c < r->last; c++) {
        dpt_range cell = dpt_shard_cell(r->stage->input->shard, c);
        if (!r->stage->covers[cell.tensor])
            continue;
        fragments f = split_cell(r->stage, cell);
        f.at = kept;
        kept += f.head + f.tail;
        r->fragments[c - r->first] = f;
    }
    r->kept = dpt_mem_alloc(kept, sizeof *r->kept, "order of split rows");
    return r->kept != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static dpt_status order_split(dpt_edit_work *work, dpt_edit_rows *r, int64_t longest) {
    const dpt_comm *comm = work->input->comm;
    row_order k = {.nshared = 0};
    int64_t total = 0;
    float *shared = NULL;
    shared_row *list = dpt_mem_alloc(comm->size, sizeof *list, "rows that ranks share");
    k.values = dpt_mem_alloc(longest, sizeof *k.values, "row of deltas");
    k.order = dpt_mem_alloc(longest, sizeof *k.order, "order of a row");
    k.room = dpt_mem_alloc(dpt_edit_order_bytes(longest), 1, "order of a row");
    bool made = list && k.values && k.order && k.room;
    dpt_status st = dpt_agree(comm, made ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK) {
        k.list = list;
        k.nshared = find_shared(r, list, &total);
        if (k.nshared > 0)
            st = exchange(work, r, list, k.nshared, total, &shared);
        k.shared = shared;
    }
    if (st == DPT_OK)
        st = dpt_agree(comm, order_rows(work, r, &k));
    dpt_mem_free(shared);
    dpt_mem_free(k.room);
    dpt_mem_free(k.order);
    dpt_mem_free(k.values);
    dpt_mem_free(list);
    return st;
}

dpt_status dpt_edit_rows_create(dpt_edit_work *work, const dpt_edit_stage *stage,
                                dpt_edit_rows **out) {
    int64_t longest = 1;
    dpt_edit_rows *r = dpt_mem_zalloc(1, sizeof *r, "rows");
    dpt_status st = r != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK) {
        r->stage = stage;
        r->first = work->first;
        r->last = work->last;
        r->threads = work->threads;
        st = rows_allocate(work, r, &longest);
    }
    st = dpt_agree(work->input->comm, st);
    if (st == DPT_OK)
        st = order_split(work, r, longest);
    if (st != DPT_OK) {
        dpt_edit_rows_destroy(r);
        r = NULL;
    }
    *out = r;
    return st;
}

void dpt_edit_rows_destroy(dpt_edit_rows *r) {
    if (r == NULL)
        return;
    dpt_mem_free(r->fragments);
    dpt_mem_free(r->kept);
    dpt_mem_free(r->orders);
    dpt_mem_free(r->deltas);
    dpt_mem_free(r->room);
    dpt_mem_free(r);
}

/* What shows the orders of a cell. */
typedef struct rows_viewer {
    dpt_edit_rows_fn fn;
    void *ctx;
    int threads;
} rows_viewer;

/* Entries that lie in one row, in pieces. */
static void show_run(const rows_viewer *v, int threads, dpt_range run, const uint32_t *order) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int p = 0; p < dpt_edit_pieces(run); p++) {
        dpt_range piece = dpt_edit_piece(run, p);
        v->fn(v->ctx, piece, order + (piece.ig - run.ig));
    }
}

/* Rows of n that lie in the cell, by thread number `slot` of the rows' room. */
static void show_rows(const dpt_edit_rows *r, const rows_viewer *v, int slot, int threads,
                      dpt_range rows, int64_t n, const float *delta) {
    uint32_t *order = r->orders + slot * r->window;
    for (int64_t at = 0; at < rows.n; at += n)
        dpt_edit_order_row(delta + at, n, order + at, r->room + slot * r->stride);
    show_run(v, threads, rows, order);
}

void dpt_edit_rows_order(const dpt_edit_rows *r, dpt_range cell, const float *delta,
                         dpt_edit_rows_fn fn, void *ctx) {
    int64_t c = dpt_shard_cell_of(r->stage->input->shard, cell.tensor, cell.ig);
    DPT_ASSERT(c >= r->first && c < r->last && r->stage->covers[cell.tensor]);
    const fragments *f = &r->fragments[c - r->first];
    const rows_viewer v = {.fn = fn, .ctx = ctx, .threads = r->threads};
    int64_t n = length_of(r->stage, cell.tensor), end = cell.n - f->tail;
    int64_t step = n < DPT_EDIT_PIECE ? DPT_EDIT_PIECE / n * n : n; /* short rows by the dozen */
    int across = (end - f->head) / step >= r->threads ? r->threads : 1; /* else inside of rows */
    dpt_range head = {.tensor = cell.tensor, .ig = cell.ig, .n = f->head};
    dpt_range tail = {.tensor = cell.tensor, .ig = cell.ig + end, .n = f->tail};
    show_run(&v, v.threads, head, r->kept + f->at);
#pragma omp parallel for schedule(static) num_threads(across) if (across > 1)
    for (int64_t at = f->head; at < end; at += step) {
        int64_t length = end - at < step ? end - at : step;
        dpt_range rows = {.tensor = cell.tensor, .ig = cell.ig + at, .n = length};
        show_rows(r, &v, across > 1 ? omp_get_thread_num() : 0, across > 1 ? 1 : v.threads, rows, n,
                  delta + at);
    }
    show_run(&v, v.threads, tail, r->kept + f->at + f->head);
}

/* The share of a thread in a cell that passes. Places are of the cell. A window of deltas and orders moves along:
 * what lies in it begins with a row, or at the share where that lies in a fragment. */
typedef struct rows_window {
    const dpt_edit_rows *r;
    const dpt_edit_rows_flow *flow;
    dpt_range cell;
    fragments f;
    int64_t n;              /* of a row */
    int64_t begin, end;     /* of the share */
    int64_t at;             /* where the window begins */
    int64_t loaded, ranked; /* where its deltas end, and where its orders do */
    float *delta;
    uint32_t *order;
    char *room;
} rows_window;

/* Deltas up to `to` at least: pieces, of which those of the share are its own. */
static bool window_load(rows_window *w, int64_t to) {
    bool good = true;
    while (w->loaded < to) {
        int64_t end = (w->loaded / DPT_EDIT_PIECE + 1) * DPT_EDIT_PIECE;
        end = end < w->cell.n ? end : w->cell.n;
        dpt_range run = {
            .tensor = w->cell.tensor, .ig = w->cell.ig + w->loaded, .n = end - w->loaded};
        bool own = w->loaded >= w->begin && w->loaded < w->end;
        DPT_ASSERT(end - w->at <= w->r->window);
        good &= w->flow->load(w->flow->ctx, run, own, w->delta + (w->loaded - w->at));
        w->loaded = end;
    }
    return good;
}

/* The orders of the next row, or of a part of a fragment. */
static bool window_rank(rows_window *w) {
    int64_t from = w->ranked, inner = w->cell.n - w->f.tail, n = w->n;
    const uint32_t *kept = w->r->kept + w->f.at;
    bool cut = from < w->f.head || from >= inner;
    if (cut) {
        int64_t end = from < w->f.head ? w->f.head : w->cell.n;
        n = end - from < DPT_EDIT_PIECE ? end - from : DPT_EDIT_PIECE;
        kept += from < w->f.head ? from : w->f.head + (from - inner);
    }
    bool good = window_load(w, from + n);
    if (cut)
        memcpy(w->order + (from - w->at), kept, (size_t)n * sizeof *kept);
    else
        dpt_edit_order_row(w->delta + (from - w->at), n, w->order + (from - w->at), w->room);
    w->ranked = from + n;
    return good;
}

/* The window begins at `to`. */
static void window_move(rows_window *w, int64_t to) {
    if (to == w->at)
        return;
    memmove(w->delta, w->delta + (to - w->at), (size_t)(w->loaded - to) * sizeof *w->delta);
    memmove(w->order, w->order + (to - w->at), (size_t)(w->ranked - to) * sizeof *w->order);
    w->at = to;
}

static bool pass_share(const dpt_edit_rows *r, dpt_range cell, const dpt_edit_rows_flow *flow,
                       int share, int shares) {
    int pieces = dpt_edit_pieces(cell);
    int64_t c = dpt_shard_cell_of(r->stage->input->shard, cell.tensor, cell.ig);
    int64_t begin = (int64_t)(pieces * share / shares) * DPT_EDIT_PIECE;
    int64_t end = (int64_t)(pieces * (share + 1) / shares) * DPT_EDIT_PIECE;
    rows_window w = {.r = r,
                     .flow = flow,
                     .cell = cell,
                     .f = r->fragments[c - r->first],
                     .n = length_of(r->stage, cell.tensor),
                     .begin = begin,
                     .end = end < cell.n ? end : cell.n,
                     .delta = r->deltas + share * r->window,
                     .order = r->orders + share * r->window,
                     .room = r->room + share * r->stride};
    bool whole = begin >= w.f.head && begin < cell.n - w.f.tail, good = true;
    w.at = w.loaded = w.ranked = whole ? begin - (begin - w.f.head) % w.n : begin;
    for (int64_t shown = begin; shown < w.end; window_move(&w, shown)) {
        good &= window_rank(&w);
        while (shown < w.end) {
            dpt_range piece = dpt_edit_piece(cell, (int)(shown / DPT_EDIT_PIECE));
            if (shown + piece.n > w.ranked)
                break;
            good &=
                flow->store(flow->ctx, piece, w.order + (shown - w.at), w.delta + (shown - w.at));
            shown += piece.n;
        }
    }
    return good;
}

bool dpt_edit_rows_pass(const dpt_edit_rows *r, dpt_range cell, const dpt_edit_rows_flow *flow) {
    int bad = 0;
    DPT_ASSERT(r->stage->covers[cell.tensor] && cell.ig % DPT_CELL == 0);
#pragma omp parallel for schedule(static) num_threads(r->threads) reduction(| : bad)
    for (int share = 0; share < r->threads; share++)
        bad |= !pass_share(r, cell, flow, share, r->threads);
    return !bad;
}

int64_t dpt_edit_rows_bytes(const dpt_catalog *catalog, const bool *selected, int ranks) {
    int64_t longest = 1, kept = 0;
    for (int t = 0; t < catalog->count; t++) {
        const dpt_tensor_info *info = &catalog->tensors[t];
        int64_t n = dpt_edit_row_length(info);
        if ((selected != NULL && !selected[t]) || info->numel == 0)
            continue;
        longest = n > longest ? n : longest;
        int64_t cell = info->numel < DPT_CELL ? 0 : 2 * n < DPT_CELL ? 2 * n : DPT_CELL;
        kept += (info->numel / DPT_CELL + 1) * cell;
    }
    int64_t within = within_cell(longest);
    int64_t one = dpt_edit_order_bytes(within) +
                  window_of(longest) * (int64_t)(sizeof(uint32_t) + sizeof(float));
    int64_t room = one * omp_get_max_threads() + dpt_edit_order_bytes(longest);
    int64_t shared = 2 * (ranks - 1) * longest * (int64_t)sizeof(float);
    int64_t cells = (int64_t)DPT_CELL * (int64_t)sizeof(float);
    int64_t table = within * (int64_t)(sizeof(uint32_t) + sizeof(float)); /* of della */
    int64_t row = longest * (int64_t)(sizeof(float) + sizeof(uint32_t));
    return (kept / ranks + 2 * within) * (int64_t)sizeof(uint32_t) + room + shared + cells + row +
           table;
}

#include "zero_delta.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"
#include "deltapath/model/model.h"

#include <string.h>
#include <sys/stat.h>

enum { PIECE = 1 << 16, BYTES_WIDEST = 4 };

/* The own cells of a rank, visited twice: the first elements of each tensor, then all. */
typedef struct zero_scan {
    dpt_inputs *inputs;
    const bool *only; /* (tensors) those to look at; NULL: all that are selected */
    const dpt_shard *shard;
    dpt_source pre, post;
    int64_t first, end, cell;
    bool whole;
    char *stored[2]; /* (PIECE) of pre and post */
    float *values[2];
} zero_scan;

static bool zero_is_wanted(const zero_scan *scan, int t) {
    const dpt_inputs *in = scan->inputs;
    return in->selected[t] && in->pair.comparable[t] && (scan->only == NULL || scan->only[t]);
}

/* The next range to look at; false when all own cells were. */
static bool zero_next(zero_scan *scan, dpt_range *range) {
    for (;; scan->cell++) {
        if (scan->cell == scan->end && scan->whole)
            return false;
        if (scan->cell == scan->end) {
            scan->whole = true;
            scan->cell = scan->first;
        }
        if (scan->cell == scan->end)
            return false;
        *range = dpt_shard_cell(scan->shard, scan->cell);
        bool begins = scan->cell == scan->first ||
                      dpt_shard_cell(scan->shard, scan->cell - 1).tensor != range->tensor;
        if (!zero_is_wanted(scan, range->tensor) || (!scan->whole && !begins))
            continue;
        if (!scan->whole && range->n > PIECE)
            range->n = PIECE;
        scan->cell++;
        return true;
    }
}

static dpt_status zero_compare(const zero_scan *scan, dpt_range range, bool *differs) {
    dpt_dtype pre = scan->pre.catalog->tensors[range.tensor].dtype;
    dpt_dtype post = scan->post.catalog->tensors[range.tensor].dtype;
    dpt_status st = scan->pre.read(scan->pre.ctx, range, scan->stored[0]);
    if (st == DPT_OK)
        st = scan->post.read(scan->post.ctx, range, scan->stored[1]);
    if (st != DPT_OK || (pre == post && memcmp(scan->stored[0], scan->stored[1],
                                               (size_t)(range.n * dpt_dtype_size(pre))) == 0))
        return st;
    dpt_dtype_to_f32(pre, scan->stored[0], scan->values[0], range.n);
    dpt_dtype_to_f32(post, scan->stored[1], scan->values[1], range.n);
    for (int64_t i = 0; i < range.n && !*differs; i++)
        *differs = scan->values[0][i] != scan->values[1][i]; /* and NaN, which the edit will name */
    return DPT_OK;
}

static dpt_status zero_look(const zero_scan *scan, dpt_range range, bool *differs) {
    dpt_status st = DPT_OK;
    for (int64_t at = 0; at < range.n && st == DPT_OK && !*differs; at += PIECE) {
        dpt_range piece = {.tensor = range.tensor,
                           .ig = range.ig + at,
                           .n = range.n - at < PIECE ? range.n - at : PIECE};
        st = zero_compare(scan, piece, differs);
    }
    return st;
}

static dpt_status zero_begin(const dpt_comm *comm, zero_scan *scan) {
    scan->pre = dpt_pair_source(&scan->inputs->pair);
    scan->post = dpt_store_source(scan->inputs->post);
    scan->first = scan->cell = scan->shard->rank_first[comm->rank];
    scan->end = scan->shard->rank_first[comm->rank + 1];
    bool complete = true;
    for (int i = 0; i < 2; i++) {
        scan->stored[i] = dpt_mem_alloc(PIECE, BYTES_WIDEST, "values to compare");
        scan->values[i] = dpt_mem_alloc(PIECE, sizeof *scan->values[i], "values to compare");
        complete = complete && scan->stored[i] != NULL && scan->values[i] != NULL;
    }
    return complete ? DPT_OK : DPT_ERR_OUTPUT;
}

/* A range of each rank at a time, until one differs or all were seen. */
static dpt_status zero_search(const dpt_comm *comm, zero_scan *scan, bool *differs) {
    int64_t votes[2] = {0, 1}; /* some rank found a difference; some rank has more to look at */
    dpt_status st = dpt_agree(comm, zero_begin(comm, scan));
    while (st == DPT_OK && !votes[0] && votes[1]) {
        dpt_range range = {.n = 0};
        bool found = false;
        votes[1] = zero_next(scan, &range);
        st = dpt_stop_check();
        if (st == DPT_OK && votes[1])
            st = zero_look(scan, range, &found);
        votes[0] = found;
        st = dpt_agree(comm, st);
        if (st == DPT_OK)
            st = dpt_agree(comm, dpt_comm_max_i64(comm, votes, 2));
    }
    *differs = votes[0] != 0;
    for (int i = 0; i < 2; i++) {
        dpt_mem_free(scan->stored[i]);
        dpt_mem_free(scan->values[i]);
    }
    return st;
}

static bool zero_is_one_model(const dpt_job *job) {
    struct stat pre, post;
    return stat(job->pre, &pre) == 0 && stat(job->post, &post) == 0 && pre.st_dev == post.st_dev &&
           pre.st_ino == post.st_ino;
}

dpt_status dpt_zero_delta_check(const dpt_comm *comm, const dpt_shard *shard, dpt_inputs *inputs) {
    zero_scan scan = {.inputs = inputs, .shard = shard};
    bool differs = false;
    int64_t one = comm->rank == 0 && zero_is_one_model(inputs->job);
    dpt_status st = dpt_agree(comm, dpt_comm_max_i64(comm, &one, 1));
    if (st == DPT_OK && !one)
        st = zero_search(comm, &scan, &differs);
    if (st != DPT_OK || differs)
        return st;
    const char *what =
        one ? "they are one model" : "every value of the selected tensors is the same";
    inputs->zero_delta = true;
    if (!inputs->job->allow_zero_delta)
        return dpt_error(DPT_ERR_INPUT,
                         "%s and %s: the delta is zero: %s: give another pair, select tensors that "
                         "post-training changed, or write `allow: [zero-delta]`",
                         inputs->job->pre, inputs->job->post, what);
    dpt_log(DPT_LOG_WARN, "%s and %s: the delta is zero: %s: no verdict is given", inputs->job->pre,
            inputs->job->post, what);
    return DPT_OK;
}

double dpt_zero_delta_bytes(const dpt_inputs *in, int ranks) {
    double most = (double)ranks * PIECE, elements = 0.0, bytes = 0.0;
    for (int t = 0; t < in->catalog->count; t++) {
        double n =
            in->selected[t] && in->pair.comparable[t] ? (double)in->catalog->tensors[t].numel : 0.0;
        elements += n;
        bytes += n * (double)(dpt_dtype_size(in->catalog->tensors[t].dtype) +
                              dpt_dtype_size(in->pair.catalog.tensors[t].dtype));
    }
    return elements > most ? bytes * most / elements : bytes;
}

static dpt_status outside_refuse(const dpt_inputs *in, const bool *outside, int count) {
    int t = 0;
    while (!outside[t] || !in->selected[t] || !in->pair.comparable[t])
        t++;
    return dpt_error(
        DPT_ERR_INPUT,
        "%s: post-training changed selected tensors outside the text model (it has %d, "
        "'%.200s' is one), whose effect a loss of texts does not see: name them in "
        "select: {exclude: [...]}, or write `riemann: off`",
        in->job->post, count, in->catalog->tensors[t].name);
}

dpt_status dpt_outside_check(const dpt_comm *comm, const dpt_shard *shard, dpt_inputs *inputs) {
    if (!dpt_inputs_needs_model(inputs))
        return DPT_OK;
    bool differs = false;
    int count = 0;
    bool *outside = dpt_mem_zalloc(inputs->catalog->count, sizeof *outside, "tensors outside");
    dpt_status st = dpt_agree(comm, outside != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK) {
        count = dpt_model_config_outside(dpt_store_config(inputs->post), inputs->catalog, outside);
        int64_t most = count; /* a rank without memory for it finds none */
        st = dpt_comm_max_i64(comm, &most, 1);
        if (st == DPT_OK && count != most)
            st = dpt_error(DPT_ERR_OUTPUT, "%s: no memory left to compare names: " DPT_MEM_REMEDY,
                           inputs->job->post);
        st = dpt_agree(comm, st);
    }
    zero_scan scan = {.inputs = inputs, .shard = shard, .only = outside};
    if (st == DPT_OK && count > 0)
        st = zero_search(comm, &scan, &differs);
    if (st == DPT_OK && differs)
        st = outside_refuse(inputs, outside, count);
    else if (st == DPT_OK && count > 0)
        dpt_log(DPT_LOG_INFO,
                "%s: %d tensors are not part of the text model: they stay as they are and no path "
                "is walked for them",
                inputs->job->post, count);
    dpt_mem_free(outside);
    return st;
}

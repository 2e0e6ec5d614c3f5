#include "deltapath/tensor/field.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/tensor/redist.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

enum { CELL_ALIGN = 64 };

struct dpt_field {
    const dpt_comm *comm;
    const dpt_catalog *catalog;
    dpt_shard shard;      /* the caller's arrays, with the types of `catalog` */
    unsigned char *bytes; /* all own cells */
    void **cells;         /* start of each own cell */
};

static int64_t padded_bytes(const dpt_catalog *catalog, dpt_range cell) {
    int64_t bytes = cell.n * dpt_dtype_size(catalog->tensors[cell.tensor].dtype);
    return (bytes + CELL_ALIGN - 1) / CELL_ALIGN * CELL_ALIGN;
}

static int64_t rank_bytes(const dpt_catalog *catalog, const dpt_shard *shard, int rank) {
    int64_t bytes = 0;
    for (int64_t c = shard->rank_first[rank]; c < shard->rank_first[rank + 1]; c++)
        bytes += padded_bytes(catalog, dpt_shard_cell(shard, c));
    return bytes;
}

int64_t dpt_field_bytes(const dpt_catalog *catalog, const dpt_shard *shard) {
    int64_t maximum = 0;
    for (int rank = 0; rank < shard->ranks; rank++) {
        int64_t bytes = rank_bytes(catalog, shard, rank);
        maximum = bytes > maximum ? bytes : maximum;
    }
    return maximum;
}

dpt_status dpt_field_create(const dpt_comm *comm, const dpt_catalog *catalog,
                            const dpt_shard *shard, dpt_field **out) {
    *out = NULL;
    dpt_status st = DPT_OK;
    int64_t first = shard->rank_first[comm->rank];
    int64_t count = shard->rank_first[comm->rank + 1] - first;
    dpt_field *field = dpt_mem_alloc(1, sizeof *field, "tensor field");
    if (field == NULL) {
        st = DPT_ERR_OUTPUT;
    } else {
        *field = (dpt_field){.comm = comm, .catalog = catalog, .shard = *shard};
        field->shard.catalog = catalog;
        field->cells = dpt_mem_alloc(count, sizeof *field->cells, "tensor field");
        field->bytes =
            dpt_mem_alloc(rank_bytes(catalog, shard, comm->rank), 1, "model held in memory");
        if (field->cells == NULL || field->bytes == NULL)
            st = DPT_ERR_OUTPUT;
    }
    st = dpt_agree(comm, st);
    if (st != DPT_OK) {
        dpt_field_destroy(field);
        return st;
    }
    int64_t at = 0;
    for (int64_t c = 0; c < count; c++) {
        field->cells[c] = field->bytes + at;
        at += padded_bytes(catalog, dpt_shard_cell(shard, first + c));
    }
    DPT_ASSERT(at == rank_bytes(catalog, shard, comm->rank));
    *out = field;
    return DPT_OK;
}

void dpt_field_destroy(dpt_field *field) {
    if (field == NULL)
        return;
    dpt_mem_free(field->bytes);
    dpt_mem_free(field->cells);
    dpt_mem_free(field);
}

void *dpt_field_cell(dpt_field *field, int64_t cell) {
    const int64_t *own = field->shard.rank_first + field->comm->rank;
    return cell >= own[0] && cell < own[1] ? field->cells[cell - own[0]] : NULL;
}

static bool field_is_known(const dpt_field *field, dpt_range range) {
    return range.tensor >= 0 && range.tensor < field->shard.ntensors;
}

static bool is_own(const dpt_field *field, dpt_range range) {
    if (!field_is_known(field, range))
        return false;
    int64_t begin;
    int64_t end;
    dpt_shard_owned(&field->shard, field->comm->rank, range.tensor, &begin, &end);
    return range.n == 0 || (range.ig >= begin && range.n > 0 && range.n <= end - range.ig);
}

/* Copy a run between a buffer and the cells, cell by cell. */
static dpt_status copy_run(dpt_field *field, dpt_range range, unsigned char *to,
                           const unsigned char *from) {
    if (!is_own(field, range))
        return dpt_error(
            DPT_ERR_INTERNAL,
            "tensor '%s': %" PRId64 " elements at %" PRId64 " are not in the cells of this rank",
            field_is_known(field, range) ? field->catalog->tensors[range.tensor].name : "?",
            range.n, range.ig);
    int64_t size = dpt_dtype_size(field->catalog->tensors[range.tensor].dtype);
    for (int64_t done = 0; done < range.n;) {
        int64_t ig = range.ig + done;
        int64_t inside = ig % DPT_CELL;
        int64_t n = DPT_CELL - inside < range.n - done ? DPT_CELL - inside : range.n - done;
        unsigned char *cell =
            dpt_field_cell(field, dpt_shard_cell_of(&field->shard, range.tensor, ig));
        DPT_ASSERT(cell != NULL);
        if (to != NULL)
            memcpy(to + done * size, cell + inside * size, (size_t)(n * size));
        else
            memcpy(cell + inside * size, from + done * size, (size_t)(n * size));
        done += n;
    }
    return DPT_OK;
}

static dpt_status field_read(void *ctx, dpt_range range, void *out) {
    return copy_run(ctx, range, out, NULL);
}

static dpt_status field_write(void *ctx, dpt_range range, const void *data) {
    return copy_run(ctx, range, NULL, data);
}

/* Own cells of a tensor lie end to end, since a full cell is a multiple of the alignment. */
static void *field_view(void *ctx, dpt_range range) {
    dpt_field *field = ctx;
    if (range.n == 0 || !is_own(field, range))
        return NULL;
    unsigned char *cell =
        dpt_field_cell(field, dpt_shard_cell_of(&field->shard, range.tensor, range.ig));
    return cell + range.ig % DPT_CELL * dpt_dtype_size(field->catalog->tensors[range.tensor].dtype);
}

static const void *field_view_stored(void *ctx, dpt_range range) {
    return field_view(ctx, range);
}

static dpt_status field_fetch(void *ctx, int64_t count, const dpt_block *wants, void *const *outs) {
    dpt_field *field = ctx;
    return dpt_redist_gather(field->comm, &field->shard, (const void *const *)field->cells, count,
                             wants, outs);
}

static dpt_status field_scatter(void *ctx, int64_t count, const dpt_range *ranges,
                                const void *const *data) {
    dpt_field *field = ctx;
    return dpt_redist_scatter(field->comm, &field->shard, field->cells, count, ranges, data);
}

dpt_source dpt_field_source(dpt_field *field) {
    return (dpt_source){.ctx = field,
                        .catalog = field->catalog,
                        .read = field_read,
                        .fetch = field_fetch,
                        .view = field_view_stored};
}

dpt_sink dpt_field_sink(dpt_field *field) {
    return (dpt_sink){.ctx = field,
                      .catalog = field->catalog,
                      .write = field_write,
                      .scatter = field_scatter,
                      .view = field_view};
}

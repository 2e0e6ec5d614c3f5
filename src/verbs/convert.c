#include "deltapath/verbs/convert.h"

#include "deltapath/base/guard.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/path.h"
#include "deltapath/base/version.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/comm/stop.h"
#include "deltapath/store/owned.h"
#include "deltapath/store/store.h"
#include "head.h"
#include "verify.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Runs that stay in the cache: 32 MiB at once took three times the processor time of 2 to 8 MiB. */
enum { RUN_CELLS = 2, BYTES_F32 = 4, BYTES_WIDEST = 8 };

typedef struct conversion {
    dpt_store *store;
    dpt_catalog catalog; /* of the target */
    dpt_shard shard;
    char *provenance;
    dpt_store_writer *writer;
    int64_t run; /* elements at once */
    char *stored;
    char *out;
    float *values;
    int64_t lost; /* values that the target's type rounds to 0 */
} conversion;

/* The source's catalog with the editable tensors in the wanted type. */
static dpt_status convert_make_catalog(const dpt_convert_options *options, conversion *c) {
    dpt_dtype wanted = DPT_F32;
    bool same = options->dtype == NULL || strcmp(options->dtype, "same") == 0;
    if (!same && (!dpt_dtype_parse(options->dtype, &wanted) || !dpt_dtype_editable(wanted)))
        return dpt_error(DPT_ERR_USAGE, "dtype %s: write f32, f16, bf16 or same", options->dtype);
    dpt_status st = dpt_catalog_copy(dpt_store_catalog(c->store), &c->catalog);
    for (int t = 0; t < c->catalog.count && st == DPT_OK && !same; t++)
        if (dpt_dtype_editable(c->catalog.tensors[t].dtype))
            c->catalog.tensors[t].dtype = wanted;
    return st;
}

static dpt_status make_texts(const dpt_convert_options *options, conversion *c) {
    const char *source = dpt_store_path(c->store);
    char digits[17];
    snprintf(digits, sizeof digits, "%016" PRIx64, dpt_store_fingerprint(c->store));
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "program", "deltapath", "version",
                             DPT_VERSION, "verb", "convert", "source", source, "source_fingerprint",
                             digits, "dtype", options->dtype != NULL ? options->dtype : "same");
    char *text = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
    c->provenance = dpt_mem_strdup(text != NULL ? text : "{}", "provenance");
    free(text);
    json_decref(root);
    return c->provenance == NULL ? DPT_ERR_OUTPUT : DPT_OK;
}

/* As many cells at once as a quarter of the free budget holds. */
static dpt_status make_buffers(conversion *c) {
    int64_t each = 2 * BYTES_WIDEST + BYTES_F32;
    int64_t cells = dpt_mem_available() / 4 / each / DPT_CELL;
    c->run = (cells < 1 ? 1 : cells > RUN_CELLS ? RUN_CELLS : cells) * DPT_CELL;
    c->stored = dpt_mem_alloc(c->run, BYTES_WIDEST, "conversion buffer");
    c->out = dpt_mem_alloc(c->run, BYTES_F32, "conversion buffer");
    c->values = dpt_mem_alloc(c->run, sizeof *c->values, "conversion buffer");
    return c->stored == NULL || c->out == NULL || c->values == NULL ? DPT_ERR_OUTPUT : DPT_OK;
}

static dpt_status convert_prepare(const dpt_comm *comm, const dpt_convert_options *options,
                                  conversion *c) {
    dpt_status st = convert_make_catalog(options, c);
    if (st == DPT_OK)
        st = dpt_shard_create(&c->catalog, comm->size, &c->shard);
    if (st == DPT_OK)
        st = make_texts(options, c);
    return st == DPT_OK ? make_buffers(c) : st;
}

static dpt_status overflow(const conversion *c, dpt_range range, int64_t at, dpt_dtype to) {
    return dpt_error(DPT_ERR_INPUT,
                     "%s: tensor '%s': the value %.9g at element %" PRId64
                     " would become infinite in %s: convert with --dtype %s",
                     dpt_store_path(c->store), c->catalog.tensors[range.tensor].name,
                     (double)c->values[at], range.ig + at, dpt_dtype_name(to),
                     to == DPT_F16 ? "bf16 or f32" : "f32");
}

/* A loss that is as a rule meant, and yet no silent one. */
static dpt_status convert_warn_of_lost(const dpt_comm *comm, const conversion *c,
                                       const dpt_convert_options *options) {
    int64_t lost = c->lost;
    dpt_status st = dpt_agree(comm, dpt_comm_sum_i64(comm, &lost, 1));
    if (st == DPT_OK && lost > 0)
        dpt_log(DPT_LOG_WARN, "%s: %" PRId64 " values are too small for %s and become 0",
                options->target, lost, options->dtype);
    return st;
}

static dpt_status move_run(conversion *c, const dpt_source *source, const dpt_sink *sink,
                           dpt_range range) {
    dpt_dtype from = source->catalog->tensors[range.tensor].dtype;
    dpt_dtype to = c->catalog.tensors[range.tensor].dtype;
    dpt_status st = source->read(source->ctx, range, c->stored);
    if (st != DPT_OK || from == to)
        return st != DPT_OK ? st : sink->write(sink->ctx, range, c->stored);
    dpt_dtype_to_f32(from, c->stored, c->values, range.n);
    dpt_dtype_from_f32(to, c->values, c->out, range.n);
    int64_t at = dpt_dtype_find_overflow(to, c->values, c->out, range.n);
    if (at >= 0)
        return overflow(c, range, at, to);
    c->lost += dpt_dtype_count_lost(to, c->values, c->out, range.n);
    return sink->write(sink->ctx, range, c->out);
}

/* This rank's cells in order, neighbours of one tensor joined. Local. */
static dpt_status move_all(const dpt_comm *comm, conversion *c) {
    dpt_source source = dpt_store_source(c->store);
    dpt_sink sink = dpt_store_writer_sink(c->writer);
    dpt_progress progress;
    int64_t end = c->shard.rank_first[comm->rank + 1];
    dpt_progress_begin(&progress, "convert (rank 0's share)", "elements",
                       (end - c->shard.rank_first[comm->rank]) * DPT_CELL);
    dpt_status st = DPT_OK;
    for (int64_t cell = c->shard.rank_first[comm->rank]; cell < end && st == DPT_OK;) {
        dpt_range range = dpt_shard_cell(&c->shard, cell);
        int64_t first = cell++;
        for (; cell < end && range.n < c->run; cell++) {
            dpt_range next = dpt_shard_cell(&c->shard, cell);
            if (next.tensor != range.tensor)
                break;
            range.n += next.n;
        }
        st = move_run(c, &source, &sink, range);
        dpt_progress_add(&progress, (cell - first) * DPT_CELL);
        if (st == DPT_OK && dpt_stop_asked())
            st = dpt_error(DPT_INTERRUPTED,
                           "%s: stopped by a signal, nothing is written: convert it again",
                           dpt_store_path(c->store));
    }
    dpt_progress_end(&progress);
    return st;
}

/* Damage gets no valid hash: what has a hash has to have that one. */
static dpt_status move_checked(const dpt_comm *comm, conversion *c) {
    dpt_status st =
        dpt_agree(comm, dpt_store_check_begin(c->store, comm, dpt_store_catalog(c->store),
                                              &c->shard, NULL, NULL));
    if (st == DPT_OK)
        st = dpt_agree(comm, move_all(comm, c));
    if (st == DPT_OK)
        st = dpt_store_check_end(c->store, NULL);
    return st == DPT_OK ? dpt_store_check_unchanged(comm, c->store, true) : st;
}

/* model-00001-of-00002.safetensors alone makes a model that looks whole and is not. */
static dpt_status convert_check_source(const char *source) {
    int shard = 0, shards = 0, end = 0;
    const char *of = strstr(dpt_path_base(source), "-of-");
    const char *number = of != NULL && of - dpt_path_base(source) >= 5 ? of - 5 : NULL;
    if (number == NULL || sscanf(number, "%5d-of-%5d.safetensors%n", &shard, &shards, &end) != 2 ||
        end == 0 || number[end] != '\0' || shards < 2)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT,
                     "%s: one of the %d files of a model, without the tensors of the others: give "
                     "the folder",
                     source, shards);
}

static dpt_status convert_check_target(const char *target) {
    dpt_status st = dpt_guard_output(target);
    return st == DPT_OK ? dpt_owned_check_outside(target) : st;
}

static void convert_destroy(conversion *c) {
    dpt_mem_free(c->stored);
    dpt_mem_free(c->out);
    dpt_mem_free(c->values);
    dpt_mem_free(c->provenance);
    dpt_shard_destroy(&c->shard);
    dpt_catalog_destroy(&c->catalog);
    if (c->store != NULL)
        dpt_store_close(c->store);
}

dpt_status dpt_convert_run(const dpt_comm *comm, const dpt_convert_options *options) {
    DPT_ASSERT_SAME_TEXT(comm, options->source);
    DPT_ASSERT_SAME_TEXT(comm, options->base);
    DPT_ASSERT_SAME_TEXT(comm, options->target);
    DPT_ASSERT_SAME_TEXT(comm, options->dtype);
    DPT_ASSERT_SAME(comm, options->shard_bytes);
    DPT_ASSERT_SAME(comm, options->overwrite);
    DPT_ASSERT_SAME(comm, options->verify_inputs);
    conversion c = {.store = NULL};
    dpt_catalog_init(&c.catalog);
    dpt_status st = options->verify_inputs
                        ? dpt_verify_model(comm, options->source, options->base, stdout)
                        : DPT_OK;
    if (st == DPT_OK)
        st = dpt_store_open_on(comm, options->source, options->base, &c.store);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_verbs_check_head(c.store));
    if (st == DPT_OK)
        st = dpt_agree(comm, convert_check_source(dpt_store_path(c.store)));
    if (st == DPT_OK)
        st = dpt_agree(comm, comm->rank == 0 ? convert_check_target(options->target) : DPT_OK);
    if (st == DPT_OK)
        st = dpt_agree(comm, convert_prepare(comm, options, &c));
    if (st == DPT_OK) {
        dpt_store_options made = {.format = dpt_store_format_for(options->target),
                                  .config = dpt_store_config(c.store),
                                  .metadata = dpt_store_metadata(c.store),
                                  .provenance = c.provenance,
                                  .companions = c.store,
                                  .shard_bytes = options->shard_bytes,
                                  .overwrite = options->overwrite};
        st = dpt_store_create(comm, options->target, &c.catalog, &c.shard, &made, &c.writer);
    }
    if (st == DPT_OK)
        st = dpt_store_finish(c.writer, move_checked(comm, &c));
    if (st == DPT_OK)
        st = convert_warn_of_lost(comm, &c, options);
    if (st == DPT_OK && comm->rank == 0)
        dpt_log(DPT_LOG_INFO, "wrote %s: %d tensors, %.3f GB", options->target, c.catalog.count,
                (double)dpt_catalog_bytes(&c.catalog) / 1e9);
    convert_destroy(&c);
    return st;
}

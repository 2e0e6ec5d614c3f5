#include "store_internal.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/same.h"
#include "deltapath/store/owned.h"
#include "deltapath/comm/agree.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Two runs must not write into one temporary file. In a study the lock of its directory sees to that; the
 * lock file of another model goes with the writer, and one that a killed run left is not locked. */
static char *lock_path(const dpt_store_writer *writer) {
    return dpt_mem_format("%s.lock", writer->partial);
}

/* Rank 0. */
static dpt_status lock_output(dpt_store_writer *writer) {
    struct stat opened, named;
    char *path = lock_path(writer);
    dpt_status st = path != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    while (st == DPT_OK && writer->lock < 0) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd < 0) {
            st = dpt_store_path_write_failed(path);
        } else if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            st =
                dpt_error(DPT_ERR_OUTPUT,
                          "%s: another run is writing it: wait for its end, or choose another name",
                          writer->path);
            close(fd);
        } else if (fstat(fd, &opened) == 0 && stat(path, &named) == 0 &&
                   opened.st_ino == named.st_ino) {
            writer->lock = fd;
        } else {
            close(fd); /* its holder has removed it meanwhile */
        }
    }
    dpt_mem_free(path);
    return st;
}

static void unlock_output(dpt_store_writer *writer) {
    char *path = writer->lock >= 0 ? lock_path(writer) : NULL;
    if (path != NULL)
        unlink(path);
    if (writer->lock >= 0)
        close(writer->lock);
    dpt_mem_free(path);
    writer->lock = -1;
}

static void writer_destroy(dpt_store_writer *writer) {
    if (writer == NULL)
        return;
    unlock_output(writer);
    (void)dpt_store_files_close(&writer->io, false); /* after an error; else closed by then */
    for (int i = 0; i < writer->nfiles; i++)
        dpt_mem_free(writer->files[i]);
    for (int i = 0; i < writer->nfiles && writer->headers != NULL; i++)
        dpt_mem_free(writer->headers[i]);
    if (writer->info != MPI_INFO_NULL)
        MPI_Info_free(&writer->info);
    dpt_mem_free(writer->stage);
    dpt_mem_free(writer->extents);
    void *const blocks[] = {writer->files,      writer->file_of,    writer->offset_of,
                            writer->path,       writer->partial,    writer->config,
                            writer->metadata,   writer->provenance, writer->headers,
                            writer->file_bytes, writer->owner,      writer->study};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        dpt_mem_free(blocks[i]);
    dpt_store_hash_destroy(&writer->hasher);
    dpt_store_partial_destroy(writer->partial_content);
    dpt_comm_destroy(&writer->comm);
    dpt_mem_free(writer);
}

/* Names are told apart by MPI, which ignores those that it does not know. */
static dpt_status copy_hints(dpt_store_writer *writer, const dpt_store_options *options) {
    writer->layout = options->layout;
    writer->layout.hints = NULL;
    if (options->layout.nhints == 0)
        return DPT_OK;
    (void)dpt_comm_check(MPI_Info_create(&writer->info), "MPI_Info_create");
    for (int i = 0; i < options->layout.nhints; i++) {
        const dpt_store_hint *hint = &options->layout.hints[i];
        (void)dpt_comm_check(MPI_Info_set(writer->info, hint->name, hint->value), "MPI_Info_set");
    }
    return DPT_OK;
}

static dpt_status copy_text(const char *text, char **out) {
    *out = dpt_mem_strdup(text, "text of a new model");
    return text != NULL && *out == NULL ? DPT_ERR_OUTPUT : DPT_OK;
}

/* From here on the catalog is that of what is written. */
static dpt_status writer_choose(dpt_store_writer *writer, const char *path,
                                const dpt_store_options *options) {
    dpt_store_partial *partial = NULL;
    if (options->content == DPT_STORE_MODEL)
        return DPT_OK;
    dpt_status st =
        dpt_store_partial_create(path, writer->catalog, writer->shard, options, &partial);
    if (st != DPT_OK)
        return st;
    writer->partial_content = partial;
    writer->catalog = &partial->catalog;
    writer->shard = &partial->shard;
    if (writer->copy.head >= 0) {
        writer->copy.head = partial->number[writer->copy.head];
        writer->copy.embedding = partial->number[writer->copy.embedding];
    }
    return DPT_OK;
}

static dpt_status writer_prepare(dpt_store_writer *writer, const char *path,
                                 const dpt_store_options *options) {
    writer->driver = dpt_store_driver_of(options->format);
    if (writer->driver == NULL || writer->driver->layout == NULL)
        return dpt_error(DPT_ERR_INTERNAL, "%s: no format in which models are written", path);
    if (writer->shard->ranks != writer->comm.size)
        return dpt_error(DPT_ERR_INTERNAL, "%s: the shard is for %d ranks, not %d", path,
                         writer->shard->ranks, writer->comm.size);
    dpt_status st = copy_hints(writer, options);
    writer->overwrite = options->overwrite;
    writer->copy =
        options->copy != NULL ? *options->copy : (dpt_tied_head){.head = -1, .embedding = -1};
    if (st == DPT_OK)
        st = writer_choose(writer, path, options);
    if (st != DPT_OK)
        return st;
    writer->shard_bytes = options->shard_bytes > 0 ? options->shard_bytes : INT64_C(5000000000);
    writer->path = dpt_store_path_clean(path);
    if (writer->path == NULL)
        return DPT_ERR_OUTPUT;
    writer->partial = dpt_mem_format("%s" DPT_FILE_PARTIAL, writer->path);
    if (writer->partial == NULL)
        return DPT_ERR_OUTPUT;
    if (options->config != NULL)
        st = dpt_store_config_update(options->config, writer->catalog, &writer->config);
    if (st == DPT_OK)
        st = copy_text(options->metadata, &writer->metadata);
    if (st == DPT_OK)
        st = copy_text(options->provenance, &writer->provenance);
    if (st == DPT_OK)
        st = copy_text(options->owner, &writer->owner);
    if (st == DPT_OK)
        st = copy_text(options->study, &writer->study);
    writer->companions =
        options->companions != NULL ? dpt_store_header_of(options->companions) : NULL;
    if (st == DPT_OK)
        st = DPT_STORE_NEW(writer->file_of, writer->catalog->count, "placement of tensors");
    if (st == DPT_OK)
        st = DPT_STORE_NEW(writer->offset_of, writer->catalog->count, "placement of tensors");
    if (st == DPT_OK)
        st = dpt_store_hash_init(&writer->hasher, &writer->comm, writer->catalog, writer->shard);
    writer->hashes = writer->hasher.hashes;
    if (st == DPT_OK)
        st = writer->driver->layout(writer);
    return st != DPT_OK ? st : dpt_agree_fault("store.create");
}

enum { HEADER_RESERVE = 1 << 20, HEADER_PER_TENSOR = 2048 };

/* Rank 0: everything that can be refused is refused before the first byte is written. */
static dpt_status check_output(dpt_store_writer *writer) {
    int64_t bytes = dpt_catalog_bytes(writer->catalog);
    if (writer->stage != NULL && !dpt_mem_mul(bytes, 2, &bytes))
        bytes = INT64_MAX / 2;
    int64_t extra = HEADER_RESERVE + (int64_t)writer->catalog->count * HEADER_PER_TENSOR;
    if (!dpt_mem_add(bytes, extra, &bytes) ||
        !dpt_mem_add(bytes, dpt_store_companions_bytes(writer->companions), &bytes))
        bytes = INT64_MAX;
    dpt_status st =
        dpt_store_path_check_output(writer->path, writer->driver->directory, writer->overwrite,
                                    writer->owner, writer->study, bytes);
    if (st == DPT_OK && writer->owner == NULL)
        st = lock_output(writer);
    if (st == DPT_OK)
        st = dpt_owned_remove_model(writer->partial);
    if (st == DPT_OK && writer->stage != NULL)
        st = dpt_store_path_remove(writer->stage);
    return st;
}

/* Rank 0: the space of all files, before the work. */
static dpt_status allocate_files(const dpt_store_writer *writer) {
    dpt_status st = DPT_OK;
    for (int f = 0; f < writer->nfiles && st == DPT_OK; f++)
        st = dpt_store_path_allocate(writer->files[f]);
    return st;
}

/* Nobody leaves before the partial output is gone. Collective once there may be one. */
static void discard(dpt_store_writer *writer) {
    if (!writer->partial_made)
        return;
    if (writer->comm.rank == 0 && !dpt_guard_is_moved(writer->partial))
        (void)dpt_store_path_remove(writer->partial); /* the first error is the one to tell */
    if (writer->comm.rank == 0 && writer->stage != NULL)
        (void)dpt_store_path_remove(writer->stage);
    (void)dpt_comm_check(MPI_Barrier(writer->comm.mpi), "MPI_Barrier");
}

static void writer_check_options(const dpt_comm *comm, const dpt_store_options *options) {
    DPT_ASSERT_SAME(comm, options->format);
    DPT_ASSERT_SAME_TEXT(comm, options->config);
    DPT_ASSERT_SAME_TEXT(comm, options->metadata);
    DPT_ASSERT_SAME_TEXT(comm, options->provenance);
    DPT_ASSERT_SAME(comm, options->companions == NULL);
    DPT_ASSERT_SAME(comm, options->shard_bytes);
    DPT_ASSERT_SAME(comm, options->overwrite);
    DPT_ASSERT_SAME_TEXT(comm, options->owner);
    DPT_ASSERT_SAME_TEXT(comm, options->study);
    DPT_ASSERT_SAME(comm, options->content);
    DPT_ASSERT_SAME(comm, options->layout.io);
    DPT_ASSERT_SAME(comm, options->layout.chunk_bytes);
    DPT_ASSERT_SAME(comm, options->layout.deflate);
    DPT_ASSERT_SAME(comm, options->layout.nhints);
}

dpt_status dpt_store_create(const dpt_comm *comm, const char *path, const dpt_catalog *catalog,
                            const dpt_shard *shard, const dpt_store_options *options,
                            dpt_store_writer **out) {
    DPT_ASSERT_SAME_TEXT(comm, path);
    DPT_ASSERT_SAME(comm, dpt_catalog_digest(catalog));
    writer_check_options(comm, options);
    *out = NULL;
    dpt_store_writer *writer = NULL;
    dpt_status st = dpt_agree(comm, DPT_STORE_NEW(writer, 1, "store writer"));
    if (writer != NULL) {
        writer->lock = -1;
        writer->info = MPI_INFO_NULL;
    }
    /* Split, not duplicate: a duplicate would keep a cartesian topology, with which MPI-IO writes
     * wrong data. */
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_split(comm, 0, comm->rank, &writer->comm));
    if (st == DPT_OK) {
        writer->catalog = catalog;
        writer->shard = shard;
        st = dpt_agree(comm, writer_prepare(writer, path, options));
    }
    if (st == DPT_OK)
        st = dpt_agree(comm, comm->rank == 0 ? check_output(writer) : DPT_OK);
    if (st == DPT_OK) {
        writer->partial_made = true;
        st = writer->driver->create(writer);
        writer->companions = NULL; /* borrowed for this call */
    }
    if (st == DPT_OK)
        st = dpt_agree(comm, comm->rank == 0 ? allocate_files(writer) : DPT_OK);
    if (st == DPT_OK)
        st =
            dpt_agree(comm, dpt_store_files_init(&writer->io, writer->nfiles, writer->files, true));
    if (st != DPT_OK) {
        if (writer != NULL) {
            (void)dpt_store_hdf5_parallel_close(writer, writer->parallel); /* nothing is kept */
            discard(writer);
        }
        writer_destroy(writer);
        return st;
    }
    *out = writer;
    return DPT_OK;
}

static dpt_status write_one(dpt_store_writer *writer, dpt_range range, const void *data) {
    if (range.tensor < 0 || range.tensor >= writer->catalog->count || range.ig < 0 || range.n < 0 ||
        range.n > writer->catalog->tensors[range.tensor].numel - range.ig)
        return dpt_error(DPT_ERR_INTERNAL,
                         "%s: elements [%" PRId64 ", + %" PRId64
                         ") of tensor %d are written, which it does not have",
                         writer->path, range.ig, range.n, range.tensor);
    const dpt_tensor_info *info = &writer->catalog->tensors[range.tensor];
    int64_t size = dpt_dtype_size(info->dtype);
    dpt_store_hash_feed(&writer->hasher, range, data);
    dpt_status st = writer->parallel != NULL
                        ? dpt_store_hdf5_parallel_write(writer->parallel, range, data)
                        : dpt_store_files_write(&writer->io, writer->file_of[range.tensor],
                                                writer->offset_of[range.tensor] + range.ig * size,
                                                range.n * size, data, info->name);
    if (st == DPT_OK)
        writer->written += range.n;
    return st;
}

/* Who writes the embedding writes the copy of it. */
static dpt_status write_both(dpt_store_writer *writer, dpt_range range, const void *data) {
    if (writer->copy.head >= 0 && range.tensor == writer->copy.head)
        return DPT_OK;
    dpt_status st = write_one(writer, range, data);
    if (st != DPT_OK || writer->copy.head < 0 || range.tensor != writer->copy.embedding)
        return st;
    range.tensor = writer->copy.head;
    return write_one(writer, range, data);
}

static dpt_status write_run(dpt_store_writer *writer, dpt_range range, const void *data) {
    dpt_store_partial *partial = writer->partial_content;
    dpt_status st = DPT_OK;
    if (partial == NULL)
        return write_both(writer, range, data);
    int64_t size = dpt_dtype_size(partial->all->tensors[range.tensor].dtype);
    for (int64_t at = 0; at < range.n && st == DPT_OK; at += DPT_CELL) {
        int64_t n = range.n - at < DPT_CELL ? range.n - at : DPT_CELL;
        dpt_range piece = {.tensor = range.tensor, .ig = range.ig + at, .n = n};
        const void *values = (const char *)data + at * size;
        st = dpt_store_partial_take(partial, &piece, &values);
        if (st == DPT_OK && piece.tensor >= 0)
            st = write_both(writer, piece, values);
    }
    return st;
}

static dpt_status sink_write(void *ctx, dpt_range range, const void *data) {
    dpt_status st = dpt_agree_fault("store.write");
    return st != DPT_OK ? st : write_run(ctx, range, data);
}

static dpt_status sink_scatter(void *ctx, int64_t count, const dpt_range *ranges,
                               const void *const *data) {
    dpt_store_writer *writer = ctx;
    dpt_status st = dpt_agree_fault("store.write");
    for (int64_t i = 0; i < count && st == DPT_OK; i++)
        st = write_run(writer, ranges[i], data[i]);
    return dpt_agree(&writer->comm, st);
}

static bool sink_skips(void *ctx, int tensor) {
    const dpt_store_writer *writer = ctx;
    return writer->partial_content != NULL && writer->partial_content->number[tensor] < 0;
}

dpt_sink dpt_store_writer_sink(dpt_store_writer *writer) {
    const dpt_store_partial *partial = writer->partial_content;
    return (dpt_sink){.ctx = writer,
                      .catalog = partial != NULL ? partial->all : writer->catalog,
                      .write = sink_write,
                      .scatter = sink_scatter,
                      .skips = sink_skips};
}

/* A hole would be read as zeros and look like a model. */
static dpt_status check_complete(dpt_store_writer *writer) {
    int64_t total = writer->written;
    dpt_status st = dpt_comm_sum_i64(&writer->comm, &total, 1);
    if (st == DPT_OK && total != dpt_catalog_elements(writer->catalog))
        st = dpt_error(DPT_ERR_INTERNAL, "%s: %" PRId64 " of %" PRId64 " elements were written",
                       writer->path, total, dpt_catalog_elements(writer->catalog));
    return st;
}

typedef struct written {
    const dpt_store_writer *writer;
    dpt_store_files files;
} written;

static dpt_status read_written(void *ctx, int t, int64_t ig, int64_t n, void *out) {
    written *w = ctx;
    const dpt_tensor_info *info = &w->writer->catalog->tensors[t];
    int64_t size = dpt_dtype_size(info->dtype);
    return dpt_store_files_read(&w->files, w->writer->file_of[t],
                                w->writer->offset_of[t] + ig * size, n * size, out, info->name);
}

static dpt_status finish_hashes(dpt_store_writer *writer) {
    written w = {.writer = writer};
    dpt_status st = dpt_store_files_init(&w.files, writer->nfiles, writer->files, false);
    st = dpt_store_hash_finish(&writer->hasher, st, read_written, &w);
    (void)dpt_store_files_close(&w.files, false); /* they were read */
    return st;
}

static uint64_t writer_digest_of(const dpt_store_writer *writer) {
    dpt_hash hash;
    dpt_hash_begin(&hash);
    for (int t = 0; t < writer->catalog->count; t++)
        dpt_store_digest_feed(&hash, writer->catalog->tensors[t].name, writer->hashes[t]);
    return dpt_hash_value(&hash);
}

dpt_status dpt_store_finish(dpt_store_writer *writer, dpt_status local) {
    uint64_t digest;
    return dpt_store_finish_digest(writer, local, &digest);
}

dpt_status dpt_store_finish_digest(dpt_store_writer *writer, dpt_status local, uint64_t *digest) {
    *digest = 0;
    dpt_status st = local != DPT_OK ? local : dpt_agree_fault("store.finish");
    /* Closed before anybody reads again, so that close-to-open file systems show every byte. */
    dpt_status parallel = dpt_store_hdf5_parallel_close(writer, writer->parallel);
    writer->parallel = NULL;
    dpt_status closed = dpt_store_files_close(&writer->io, st == DPT_OK);
    closed = dpt_status_worse(closed, parallel);
    st = dpt_agree(&writer->comm, st != DPT_OK ? st : closed);
    /* What is read from here on is read by its name. */
    if (st == DPT_OK)
        st = dpt_agree(&writer->comm,
                       writer->comm.rank == 0 ? dpt_guard_check_moved(writer->partial) : DPT_OK);
    if (st == DPT_OK)
        st = dpt_agree(&writer->comm, check_complete(writer));
    if (st == DPT_OK)
        st = finish_hashes(writer);
    if (st == DPT_OK)
        *digest = writer_digest_of(writer);
    if (st == DPT_OK)
        st = writer->driver->finish(writer);
    if (st == DPT_OK) {
        dpt_status commit = DPT_OK;
        if (writer->comm.rank == 0) {
            commit = dpt_store_path_sync(writer->partial);
            /* Long work lies between: another file may have come to lie there. */
            if (commit == DPT_OK)
                commit =
                    dpt_store_path_check_existing(writer->path, writer->driver->directory,
                                                  writer->overwrite, writer->owner, writer->study);
            if (commit == DPT_OK)
                commit = dpt_store_path_commit(writer->partial, writer->path);
        }
        st = dpt_agree(&writer->comm, commit);
    }
    if (st != DPT_OK)
        discard(writer);
    writer_destroy(writer);
    return st;
}

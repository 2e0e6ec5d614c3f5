#include "store_internal.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/file.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/traffic.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The data engine of both formats. A tensor is one extent, but for those of HDF5 in chunks, and every rank asks for long contiguous
 * runs of its own, so independent calls at absolute offsets are as good as collective buffering and
 * never wait for another rank. Each rank opens only the files that it touches, by the system's own
 * calls: MPI-IO would make and remove lock files next to what it opens, also next to the inputs. */

enum {
    PIECE_BYTES = 1 << 30, /* the system moves less than 2 GiB in one call */
    READ_BYTES = 16 << 20  /* so that what follows is read meanwhile */
};

static dpt_status raw_failed(const dpt_store_files *files, int file, const char *tensor) {
    const char *path = files->paths[file];
    const char *why = strerror(errno);
    struct statvfs space;
    if (!files->writing)
        return dpt_error(DPT_ERR_INPUT, "%s: reading tensor %s failed (%s): check the file", path,
                         tensor, why);
    if (errno != ENOSPC || statvfs(path, &space) != 0)
        return dpt_error(DPT_ERR_OUTPUT, "%s: writing tensor %s failed (%s): check disk and quota",
                         path, tensor, why);
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: tensor %s could not be written, its disk has %.3f GB left: make room or "
                     "check the quota",
                     path, tensor, (double)space.f_bavail * (double)space.f_frsize / 1e9);
}

dpt_status dpt_store_files_init(dpt_store_files *files, int count, char *const *paths,
                                bool writing) {
    *files = (dpt_store_files){.count = 0, .paths = paths, .writing = writing};
    files->handles = dpt_mem_alloc(count, sizeof *files->handles, "file handles");
    files->runs = dpt_mem_zalloc(count, sizeof *files->runs, "file handles");
    if (files->handles == NULL || files->runs == NULL) {
        dpt_mem_free(files->handles);
        dpt_mem_free(files->runs);
        *files = (dpt_store_files){.count = 0};
        return DPT_ERR_OUTPUT;
    }
    files->count = count;
    for (int i = 0; i < count; i++)
        files->handles[i] = -1;
    return DPT_OK;
}

static dpt_status open_to_read(dpt_store_files *files, int file) {
    const char *path = files->paths[file];
    dpt_file_identity now;
    files->handles[file] = dpt_file_open_input(path);
    if (files->handles[file] < 0)
        return DPT_ERR_INPUT;
    if (files->identities == NULL)
        return DPT_OK;
    dpt_status st = dpt_file_identify_open(files->handles[file], path, &now);
    if (st == DPT_OK && !dpt_file_same_content(&now, &files->identities[file]))
        st = dpt_file_changed(path);
    return st;
}

static dpt_status open_at_first_use(dpt_store_files *files, int file, const char *tensor) {
    if (files->handles[file] >= 0)
        return DPT_OK;
    if (!files->writing)
        return open_to_read(files, file);
    files->handles[file] = open(files->paths[file], O_WRONLY | O_CLOEXEC);
    return files->handles[file] >= 0 ? DPT_OK : raw_failed(files, file, tensor);
}

static int64_t piece_of(int64_t bytes, int64_t most) {
    return bytes < most ? bytes : most;
}

dpt_status dpt_store_files_read(dpt_store_files *files, int file, int64_t offset, int64_t bytes,
                                void *out, const char *tensor) {
    DPT_ASSERT(file >= 0 && file < files->count && offset >= 0 && bytes >= 0);
    if (bytes == 0)
        return DPT_OK;
    const dpt_store_span request = {.offset = offset, .bytes = bytes};
    dpt_status st = open_at_first_use(files, file, tensor);
    char *at = out;
    while (st == DPT_OK && bytes > 0) {
        int fd = files->handles[file];
        int64_t piece = piece_of(bytes, READ_BYTES);
        dpt_store_read_ahead(fd, dpt_store_run_read(&files->runs[file], request, offset, piece));
        ssize_t count = pread(fd, at, (size_t)piece, (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return raw_failed(files, file, tensor);
        if (count == 0)
            return dpt_error(DPT_ERR_INPUT,
                             "%s: tensor %s ends at byte %lld of the file: the file became shorter "
                             "while it was read",
                             files->paths[file], tensor, (long long)offset);
        dpt_file_count(count, 0);
        at += count;
        offset += count;
        bytes -= count;
    }
    return st;
}

static dpt_status open_reader(dpt_store_files *files, int file, const char *tensor) {
    dpt_status st = open_at_first_use(files, file, tensor);
    if (st == DPT_OK && files->readers == NULL) {
        files->readers = dpt_mem_zalloc(files->count, sizeof *files->readers, "HDF5 files");
        st = files->readers != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    if (st != DPT_OK || files->readers[file] != NULL)
        return st;
    return dpt_store_hdf5_reader_open(files->paths[file],
                                      files->identities != NULL ? &files->identities[file] : NULL,
                                      &files->readers[file]);
}

dpt_status dpt_store_files_read_entry(dpt_store_files *files, const dpt_store_entry *entry,
                                      int64_t ig, int64_t n, void *out) {
    int64_t size = dpt_dtype_size(entry->dtype);
    DPT_ASSERT(ig >= 0 && n >= 0 && (ig + n) * size <= entry->bytes);
    if (!entry->by_hdf5)
        return dpt_store_files_read(files, entry->file, entry->offset + ig * size, n * size, out,
                                    entry->name);
    dpt_status st = n > 0 ? open_reader(files, entry->file, entry->name) : DPT_OK;
    if (st == DPT_OK && n > 0)
        st = dpt_store_hdf5_reader_read(files->readers[entry->file], entry, ig, n, out);
    if (st == DPT_OK)
        dpt_file_count(n * size, 0);
    return st;
}

dpt_status dpt_store_files_write(dpt_store_files *files, int file, int64_t offset, int64_t bytes,
                                 const void *data, const char *tensor) {
    DPT_ASSERT(files->writing && file >= 0 && file < files->count && offset >= 0 && bytes >= 0);
    if (bytes == 0)
        return DPT_OK;
    dpt_status st = open_at_first_use(files, file, tensor);
    const char *at = data;
    while (st == DPT_OK && bytes > 0) {
        int fd = files->handles[file];
        ssize_t count = pwrite(fd, at, (size_t)piece_of(bytes, PIECE_BYTES), (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count == 0)
            errno = ENOSPC;
        if (count <= 0)
            return raw_failed(files, file, tensor);
        dpt_file_count(0, count);
        dpt_store_write_behind(fd, dpt_store_run_written(&files->runs[file], offset, count));
        at += count;
        offset += count;
        bytes -= count;
    }
    return st;
}

dpt_status dpt_store_files_close(dpt_store_files *files, bool sync) {
    dpt_status st = DPT_OK;
    for (int i = 0; i < files->count; i++) {
        if (files->handles[i] < 0)
            continue;
        bool ok = !files->writing || !sync || fsync(files->handles[i]) == 0;
        /* A network file system may say only here that the bytes did not arrive. */
        ok = (close(files->handles[i]) == 0 || !files->writing) && ok;
        if (!ok && st == DPT_OK)
            st = raw_failed(files, i, "(sync)");
    }
    for (int i = 0; i < files->count && files->readers != NULL; i++)
        dpt_store_hdf5_reader_close(files->readers[i]);
    dpt_mem_free(files->readers);
    dpt_mem_free(files->handles);
    dpt_mem_free(files->runs);
    *files = (dpt_store_files){.count = 0};
    return st;
}

#include "store_internal.h"

#include "deltapath/base/mem.h"

#include <sys/statvfs.h>

/* The data engine of both formats. Every tensor is one extent, and every rank asks for long
 * contiguous runs of its own, so independent calls at absolute offsets are as good as collective
 * buffering and never wait for another rank. Each rank opens only the files that it touches. */

enum { PIECE_BYTES = 1 << 30 }; /* more in one call crashes or crawls in some MPI-IO layers */

static dpt_status fail(const dpt_store_files *files, int file, const char *tensor, int code) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    const char *path = files->paths[file];
    if (files->writing)
        return dpt_error(DPT_ERR_OUTPUT, "%s: writing tensor %s failed (%s): check disk and quota",
                         path, tensor, text);
    return dpt_error(DPT_ERR_INPUT, "%s: reading tensor %s failed (%s): check the file", path,
                     tensor, text);
}

dpt_status dpt_store_files_init(dpt_store_files *files, int count, char *const *paths,
                                bool writing) {
    *files = (dpt_store_files){.count = 0, .paths = paths, .writing = writing};
    files->handles = dpt_mem_alloc(count, sizeof(MPI_File), "file handles");
    if (files->handles == NULL)
        return DPT_ERR_OUTPUT;
    files->count = count;
    for (int i = 0; i < count; i++)
        files->handles[i] = MPI_FILE_NULL;
    return DPT_OK;
}

static dpt_status open_at_first_use(dpt_store_files *files, int file, const char *tensor) {
    if (files->handles[file] != MPI_FILE_NULL)
        return DPT_OK;
    int mode = files->writing ? MPI_MODE_WRONLY : MPI_MODE_RDONLY;
    int code = MPI_File_open(MPI_COMM_SELF, files->paths[file], mode, MPI_INFO_NULL,
                             &files->handles[file]);
    if (code == MPI_SUCCESS)
        return DPT_OK;
    files->handles[file] = MPI_FILE_NULL;
    return fail(files, file, tensor, code);
}

static int piece_of(int64_t bytes) {
    return (int)(bytes < PIECE_BYTES ? bytes : PIECE_BYTES);
}

dpt_status dpt_store_files_read(dpt_store_files *files, int file, int64_t offset, int64_t bytes,
                                void *out, const char *tensor) {
    if (bytes == 0)
        return DPT_OK;
    dpt_status st = open_at_first_use(files, file, tensor);
    char *at = out;
    while (st == DPT_OK && bytes > 0) {
        MPI_Status status;
        int count = 0;
        int code = MPI_File_read_at(files->handles[file], (MPI_Offset)offset, at, piece_of(bytes),
                                    MPI_BYTE, &status);
        if (code != MPI_SUCCESS)
            return fail(files, file, tensor, code);
        MPI_Get_count(&status, MPI_BYTE, &count);
        if (count <= 0)
            return dpt_error(DPT_ERR_INPUT,
                             "%s: tensor %s ends at byte %lld of the file: the file became shorter "
                             "while it was read",
                             files->paths[file], tensor, (long long)offset);
        at += count;
        offset += count;
        bytes -= count;
    }
    return st;
}

/* MPI-IO says that nothing was written, not why: the room on the disk tells. */
static dpt_status nothing_written(const char *path, const char *tensor) {
    struct statvfs space;
    if (statvfs(path, &space) != 0 || space.f_frsize == 0)
        return dpt_error(DPT_ERR_OUTPUT, "%s: tensor %s could not be written: check disk and quota",
                         path, tensor);
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: tensor %s could not be written, its disk has %.3f GB left: make room or "
                     "check the quota",
                     path, tensor, (double)space.f_bavail * (double)space.f_frsize / 1e9);
}

dpt_status dpt_store_files_write(dpt_store_files *files, int file, int64_t offset, int64_t bytes,
                                 const void *data, const char *tensor) {
    if (bytes == 0)
        return DPT_OK;
    dpt_status st = open_at_first_use(files, file, tensor);
    const char *at = data;
    while (st == DPT_OK && bytes > 0) {
        MPI_Status status;
        int count = 0;
        int code = MPI_File_write_at(files->handles[file], (MPI_Offset)offset, at, piece_of(bytes),
                                     MPI_BYTE, &status);
        if (code != MPI_SUCCESS)
            return fail(files, file, tensor, code);
        MPI_Get_count(&status, MPI_BYTE, &count);
        if (count <= 0)
            return nothing_written(files->paths[file], tensor);
        at += count;
        offset += count;
        bytes -= count;
    }
    return st;
}

dpt_status dpt_store_files_close(dpt_store_files *files, bool sync) {
    dpt_status st = DPT_OK;
    for (int i = 0; i < files->count; i++) {
        if (files->handles[i] == MPI_FILE_NULL)
            continue;
        int code = files->writing && sync ? MPI_File_sync(files->handles[i]) : MPI_SUCCESS;
        int closed = MPI_File_close(&files->handles[i]);
        if (code == MPI_SUCCESS && files->writing)
            code = closed;
        if (code != MPI_SUCCESS && st == DPT_OK)
            st = fail(files, i, "(sync)", code);
    }
    dpt_mem_free(files->handles);
    *files = (dpt_store_files){.count = 0};
    return st;
}

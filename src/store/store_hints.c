#include "store_internal.h"

/* A file system that stripes files over its servers chooses how when a file is made, and MPI-IO is what knows how to
 * tell it: the file is made there, empty, and then written as any other. */

dpt_status dpt_store_hint_file(const dpt_store_writer *writer, const char *path) {
    MPI_File file = MPI_FILE_NULL;
    if (writer->info == MPI_INFO_NULL)
        return DPT_OK;
    int code =
        MPI_File_open(MPI_COMM_SELF, path, MPI_MODE_CREATE | MPI_MODE_WRONLY, writer->info, &file);
    if (code == MPI_SUCCESS)
        code = MPI_File_close(&file);
    return code == MPI_SUCCESS
               ? DPT_OK
               : dpt_error(DPT_ERR_OUTPUT,
                           "%s: MPI-IO could not make it: check permissions, disk space and "
                           "output.hints",
                           path);
}

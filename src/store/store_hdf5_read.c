#include "store_internal.h"

#include "deltapath/hdf5/hdf5_type.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <pthread.h>
#include <string.h>

/* Tensors in chunks, compressed or compact, by H5Dread of hyperslabs with the file's own type. Each rank reads for
 * itself with the plain file driver, for cells are no collective work, or, where a job asks for it, all of them
 * together through MPI-IO (store_hold.c). The library is one to a process, and not made for threads: one call at a time. */

enum { PIECE_BYTES = DPT_STORE_HDF5_PIECE };

struct dpt_store_hdf5_reader {
    char *path;
    hid_t file;
    hid_t transfer; /* collective; H5P_DEFAULT: this rank reads for itself */
    char *name;     /* of the tensor that is open; NULL: none */
    hid_t dataset, type, space;
    dpt_store_hdf5_why why;
};

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

/* The innermost of the library's reasons. */
static herr_t keep_reason(unsigned n, const H5E_error2_t *error, void *ctx) {
    dpt_store_hdf5_why *why = ctx;
    if (n == 0 && error->desc != NULL)
        snprintf(why->text, sizeof why->text, "%s", error->desc);
    return 0;
}

bool dpt_store_hdf5_noted(dpt_store_hdf5_why *why, bool ok) {
    snprintf(why->text, sizeof why->text, "no reason is given");
    if (!ok)
        H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_reason, why);
    return ok;
}

static dpt_status read_failed(const dpt_store_hdf5_reader *reader, const dpt_store_entry *entry) {
    return dpt_error(DPT_ERR_INPUT,
                     "%s: reading %s %s through HDF5 failed (%s): the file is damaged, copy it "
                     "again",
                     reader->path, entry->companion ? "companion file" : "tensor", entry->name,
                     reader->why.text);
}

static void close_tensor(dpt_store_hdf5_reader *reader) {
    if (reader->space >= 0)
        H5Sclose(reader->space);
    if (reader->type >= 0)
        H5Tclose(reader->type);
    if (reader->dataset >= 0)
        H5Dclose(reader->dataset);
    dpt_mem_free(reader->name);
    reader->name = NULL;
    reader->space = reader->type = reader->dataset = H5I_INVALID_HID;
}

static void reader_destroy(dpt_store_hdf5_reader *reader) {
    close_tensor(reader);
    if (reader->file >= 0)
        H5Fclose(reader->file);
    if (reader->transfer != H5P_DEFAULT)
        H5Pclose(reader->transfer);
    dpt_mem_free(reader->path);
    dpt_mem_free(reader);
}

void dpt_store_hdf5_reader_close(dpt_store_hdf5_reader *reader) {
    if (reader == NULL)
        return;
    pthread_mutex_lock(&library);
    reader_destroy(reader);
    pthread_mutex_unlock(&library);
}

/* The file that HDF5 has open is the one whose headers were read. What MPI-IO has open is known by its name alone. */
static dpt_status check_identity(const dpt_store_hdf5_reader *reader,
                                 const dpt_file_identity *identity) {
    dpt_file_identity now;
    void *handle = NULL;
    dpt_status st = DPT_OK;
    if (identity == NULL)
        return DPT_OK;
    if (reader->transfer != H5P_DEFAULT)
        st = dpt_file_identify(reader->path, &now);
    else if (H5Fget_vfd_handle(reader->file, H5P_DEFAULT, &handle) < 0 || handle == NULL)
        return DPT_OK;
    else
        st = dpt_file_identify_open(*(const int *)handle, reader->path, &now);
    return st == DPT_OK && !dpt_file_same_content(&now, identity) ? dpt_file_changed(reader->path)
                                                                  : st;
}

static dpt_status reader_create(const char *path, dpt_store_hdf5_reader **out) {
    dpt_status st = DPT_STORE_NEW(*out, 1, "HDF5 file");
    if (st != DPT_OK)
        return st;
    **out = (dpt_store_hdf5_reader){.transfer = H5P_DEFAULT};
    (*out)->file = (*out)->dataset = (*out)->type = (*out)->space = H5I_INVALID_HID;
    (*out)->path = dpt_mem_strdup(path, "file name");
    return (*out)->path != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static dpt_status reader_check(dpt_store_hdf5_reader *reader, const dpt_file_identity *identity) {
    if (!dpt_store_hdf5_noted(&reader->why, reader->file >= 0))
        return dpt_error(DPT_ERR_INPUT, "%s: HDF5 cannot open it (%s): copy it again", reader->path,
                         reader->why.text);
    return check_identity(reader, identity);
}

dpt_status dpt_store_hdf5_reader_open(const char *path, const dpt_file_identity *identity,
                                      dpt_store_hdf5_reader **out) {
    dpt_store_hdf5_reader *reader = NULL;
    *out = NULL;
    pthread_mutex_lock(&library);
    dpt_hdf5_silence();
    dpt_status st = reader_create(path, &reader);
    if (st == DPT_OK) {
        reader->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
        st = reader_check(reader, identity);
    }
    if (st == DPT_OK)
        *out = reader;
    else if (reader != NULL)
        reader_destroy(reader);
    pthread_mutex_unlock(&library);
    return st;
}

/* Of MPI-IO. */
static hid_t access_together(const dpt_comm *comm) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access >= 0 && H5Pset_fapl_mpio(access, comm->mpi, MPI_INFO_NULL) < 0) {
        H5Pclose(access);
        return H5I_INVALID_HID;
    }
    return access;
}

dpt_status dpt_store_hdf5_reader_open_together(const dpt_comm *comm, const char *path,
                                               const dpt_file_identity *identity,
                                               dpt_store_hdf5_reader **out) {
    dpt_store_hdf5_reader *reader = NULL;
    DPT_ASSERT_SAME_TEXT(comm, path);
    *out = NULL;
    dpt_hdf5_silence();
    dpt_status st = reader_create(path, &reader);
    hid_t access = access_together(comm);
    hid_t transfer = H5Pcreate(H5P_DATASET_XFER);
    bool ok = access >= 0 && transfer >= 0 && H5Pset_dxpl_mpio(transfer, H5FD_MPIO_COLLECTIVE) >= 0;
    if (st == DPT_OK && !ok)
        st = dpt_error(DPT_ERR_INPUT, "%s: HDF5 cannot read with MPI-IO: set models.io: direct",
                       path);
    st = dpt_agree(comm, st);
    if (st == DPT_OK) {
        reader->transfer = transfer;
        reader->file = H5Fopen(path, H5F_ACC_RDONLY, access);
        st = dpt_agree(comm, reader_check(reader, identity));
    } else if (transfer >= 0) {
        H5Pclose(transfer);
    }
    if (access >= 0)
        H5Pclose(access);
    if (st == DPT_OK)
        *out = reader;
    else if (reader != NULL)
        reader_destroy(reader);
    return st;
}

/* The chunks that are kept, in a table that is large enough to hold them apart. */
static hid_t access_of(const dpt_store_entry *entry) {
    enum { SLOTS = 12421 };
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    if (access >= 0 && entry->cache > 0 &&
        H5Pset_chunk_cache(access, SLOTS, (size_t)entry->cache, 1.0) < 0) {
        H5Pclose(access);
        return H5I_INVALID_HID;
    }
    return access;
}

static bool same_shape(hid_t space, const dpt_store_entry *entry) {
    hsize_t sides[H5S_MAX_RANK] = {0};
    bool same = H5Sget_simple_extent_ndims(space) == entry->ndim &&
                H5Sget_simple_extent_dims(space, sides, NULL) == entry->ndim;
    for (int d = 0; d < entry->ndim && same; d++)
        same = sides[d] == (hsize_t)entry->shape[d];
    return same;
}

static dpt_status open_tensor(dpt_store_hdf5_reader *reader, const dpt_store_entry *entry) {
    dpt_dtype dtype;
    const char *problem;
    if (reader->name != NULL && strcmp(reader->name, entry->name) == 0)
        return DPT_OK;
    close_tensor(reader);
    hid_t group = H5Gopen2(reader->file, entry->companion ? "companions" : "tensors", H5P_DEFAULT);
    hid_t access = access_of(entry);
    if (group >= 0 && access >= 0)
        reader->dataset = H5Dopen2(group, entry->name, access);
    (void)dpt_store_hdf5_noted(&reader->why, reader->dataset >= 0);
    if (access >= 0)
        H5Pclose(access);
    if (group >= 0)
        H5Gclose(group);
    if (reader->dataset >= 0)
        reader->type = H5Dget_type(reader->dataset);
    if (reader->type >= 0)
        reader->space = H5Dget_space(reader->dataset);
    if (reader->space < 0)
        return read_failed(reader, entry);
    if (!dpt_hdf5_type_parse(reader->type, &dtype, &problem) || dtype != entry->dtype ||
        !same_shape(reader->space, entry))
        return dpt_file_changed(reader->path);
    reader->name = dpt_mem_strdup(entry->name, "tensor name");
    return reader->name != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

int64_t dpt_store_hdf5_box(dpt_dtype dtype, int ndim, const int64_t *shape, int64_t ig, int64_t n,
                           uint64_t *start, uint64_t *count) {
    int64_t limit = PIECE_BYTES / dpt_dtype_size(dtype), block = 1, most = 1;
    int dim = ndim - 1;
    int64_t at = ig;
    DPT_ASSERT(ndim > 0 && n > 0);
    for (int d = ndim - 1; d >= 0; d--) {
        start[d] = (uint64_t)(at % shape[d]);
        at /= shape[d];
    }
    for (int d = ndim - 1; d >= 0; d--) {
        if (ig % block != 0 || n < block || block > limit)
            break;
        dim = d;
        most = block;
        block *= shape[d];
    }
    int64_t blocks = (n < limit ? n : limit) / most;
    int64_t left = shape[dim] - (int64_t)start[dim];
    blocks = blocks < left ? blocks : left;
    for (int d = 0; d < ndim; d++)
        count[d] = d < dim ? 1 : (uint64_t)(d == dim ? blocks : shape[d]);
    return blocks * most;
}

/* Memory has the shape of the box: the library has a fast way for equal shapes alone.
 * @param[in] count  its sides; NULL: this rank reads nothing. */
static bool read_box(dpt_store_hdf5_reader *reader, int ndim, const uint64_t *start,
                     const uint64_t *count, void *out) {
    hid_t memory = dpt_store_hdf5_select(reader->space, ndim, start, count);
    bool ok = dpt_store_hdf5_noted(
        &reader->why, memory >= 0 && H5Dread(reader->dataset, reader->type, memory, reader->space,
                                             reader->transfer, out) >= 0);
    if (memory >= 0)
        H5Sclose(memory);
    return ok;
}

static dpt_status read_tensor(dpt_store_hdf5_reader *reader, const dpt_store_entry *entry,
                              int64_t ig, int64_t n, char *out) {
    uint64_t start[DPT_NDIM_MAX], count[DPT_NDIM_MAX];
    dpt_status st = open_tensor(reader, entry);
    if (st != DPT_OK)
        return st;
    bool ok = true;
    while (n > 0 && ok) {
        int64_t done = 1;
        if (entry->ndim > 0)
            done = dpt_store_hdf5_box(entry->dtype, entry->ndim, entry->shape, ig, n, start, count);
        ok = read_box(reader, entry->ndim, start, count, out);
        ig += done;
        n -= done;
        out += done * dpt_dtype_size(entry->dtype);
    }
    return ok ? DPT_OK : read_failed(reader, entry);
}

dpt_status dpt_store_hdf5_reader_read(dpt_store_hdf5_reader *reader, const dpt_store_entry *entry,
                                      int64_t ig, int64_t n, void *out) {
    DPT_ASSERT(entry->by_hdf5 && n > 0);
    pthread_mutex_lock(&library);
    dpt_status st = read_tensor(reader, entry, ig, n, out);
    pthread_mutex_unlock(&library);
    return st;
}

int64_t dpt_store_hdf5_reader_rows(const dpt_store_hdf5_reader *reader) {
    hsize_t sides[H5S_MAX_RANK] = {1};
    hid_t plist = H5Dget_create_plist(reader->dataset);
    bool chunks = plist >= 0 && H5Pget_layout(plist) == H5D_CHUNKED &&
                  H5Pget_chunk(plist, H5S_MAX_RANK, sides) > 0;
    if (plist >= 0)
        H5Pclose(plist);
    return chunks ? (int64_t)sides[0] : 1;
}

dpt_status dpt_store_hdf5_reader_tensor(dpt_store_hdf5_reader *reader,
                                        const dpt_store_entry *entry) {
    return open_tensor(reader, entry);
}

dpt_status dpt_store_hdf5_reader_read_together(dpt_store_hdf5_reader *reader,
                                               const dpt_store_entry *entry, int64_t ig, int64_t n,
                                               void *out) {
    uint64_t start[DPT_NDIM_MAX], count[DPT_NDIM_MAX];
    DPT_ASSERT(reader->transfer != H5P_DEFAULT && reader->space >= 0);
    if (n > 0 && entry->ndim > 0) {
        int64_t box =
            dpt_store_hdf5_box(entry->dtype, entry->ndim, entry->shape, ig, n, start, count);
        DPT_ASSERT(box == n);
        (void)box;
    }
    return read_box(reader, entry->ndim, start, n > 0 ? count : NULL, out)
               ? DPT_OK
               : read_failed(reader, entry);
}

#include "store_internal.h"

#include "deltapath/hdf5/hdf5_type.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

#include <pthread.h>
#include <string.h>

/* Tensors in chunks, compressed or compact, by H5Dread of hyperslabs with the file's own type. Each rank reads for
 * itself with the plain file driver: cells are no collective work, and MPI-IO reads chunks no faster. The library is one to a process, and not made for threads: one call at a time. */

enum { PIECE_BYTES = 1 << 30 };

struct dpt_store_hdf5_reader {
    char *path;
    hid_t file;
    char *name; /* of the tensor that is open; NULL: none */
    hid_t dataset, type, space;
    char why[DPT_MESSAGE_MAX / 4]; /* of the last failure */
};

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

/* The innermost of the library's reasons. */
static herr_t keep_reason(unsigned n, const H5E_error2_t *error, void *ctx) {
    if (n == 0 && error->desc != NULL)
        snprintf(ctx, DPT_MESSAGE_MAX / 4, "%s", error->desc);
    return 0;
}

/* Before the next call of the library, which forgets the reason. */
static bool noted(dpt_store_hdf5_reader *reader, bool ok) {
    snprintf(reader->why, sizeof reader->why, "no reason is given");
    if (!ok)
        H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_reason, reader->why);
    return ok;
}

static dpt_status read_failed(const dpt_store_hdf5_reader *reader, const dpt_store_entry *entry) {
    return dpt_error(DPT_ERR_INPUT,
                     "%s: reading %s %s through HDF5 failed (%s): the file is damaged, copy it "
                     "again",
                     reader->path, entry->companion ? "companion file" : "tensor", entry->name,
                     reader->why);
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

/* The file that HDF5 has open is the one whose headers were read. */
static dpt_status check_identity(const dpt_store_hdf5_reader *reader,
                                 const dpt_file_identity *identity) {
    dpt_file_identity now;
    void *handle = NULL;
    if (identity == NULL || H5Fget_vfd_handle(reader->file, H5P_DEFAULT, &handle) < 0 ||
        handle == NULL)
        return DPT_OK;
    dpt_status st = dpt_file_identify_open(*(const int *)handle, reader->path, &now);
    return st == DPT_OK && !dpt_file_same_content(&now, identity) ? dpt_file_changed(reader->path)
                                                                  : st;
}

dpt_status dpt_store_hdf5_reader_open(const char *path, const dpt_file_identity *identity,
                                      dpt_store_hdf5_reader **out) {
    dpt_store_hdf5_reader *reader = NULL;
    *out = NULL;
    dpt_status st = DPT_STORE_NEW(reader, 1, "HDF5 file");
    if (st != DPT_OK)
        return st;
    reader->dataset = reader->type = reader->space = H5I_INVALID_HID;
    pthread_mutex_lock(&library);
    dpt_hdf5_silence();
    reader->path = dpt_mem_strdup(path, "file name");
    reader->file = reader->path != NULL ? H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT) : -1;
    if (reader->path == NULL)
        st = DPT_ERR_OUTPUT;
    else if (reader->file < 0)
        st = dpt_error(DPT_ERR_INPUT, "%s: HDF5 cannot open it: copy it again", path);
    else
        st = check_identity(reader, identity);
    if (st == DPT_OK)
        *out = reader;
    else
        reader_destroy(reader);
    pthread_mutex_unlock(&library);
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
    (void)noted(reader, reader->dataset >= 0);
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

/* Memory has the shape of the box: the library has a fast way for equal shapes alone. */
static bool read_box(dpt_store_hdf5_reader *reader, int ndim, const uint64_t *from,
                     const uint64_t *sides, void *out) {
    hsize_t start[DPT_NDIM_MAX], count[DPT_NDIM_MAX];
    for (int d = 0; d < ndim; d++) {
        start[d] = from[d];
        count[d] = sides[d];
    }
    hid_t memory = H5Screate_simple(ndim, count, NULL);
    bool ok = memory >= 0 &&
              H5Sselect_hyperslab(reader->space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
              H5Dread(reader->dataset, reader->type, memory, reader->space, H5P_DEFAULT, out) >= 0;
    ok = noted(reader, ok);
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
    if (entry->ndim == 0)
        ok = noted(reader,
                   H5Dread(reader->dataset, reader->type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) >= 0);
    while (entry->ndim > 0 && n > 0 && ok) {
        int64_t done =
            dpt_store_hdf5_box(entry->dtype, entry->ndim, entry->shape, ig, n, start, count);
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

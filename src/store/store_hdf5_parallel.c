#include "store_internal.h"

#include "deltapath/hdf5/hdf5_type.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/traffic.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"

#include <string.h>
#include <unistd.h>

/* Writing by H5Dwrite with MPI-IO, where a job asks for it. Cells come one by one and not the same number on all ranks,
 * so that a collective call would wait for ranks that have none left: what is written together, in chunks or compressed,
 * goes to a temporary file first, and from there in rounds of which all ranks know how many there are. */

enum { ROUND_BYTES = DPT_STORE_HDF5_ROUND, SMALL_BYTES = 1 << 16, ROUND_BUFFERS = 4 };

struct dpt_store_hdf5_parallel {
    const dpt_store_writer *writer;
    hid_t file, group, transfer;
    int tensor; /* that is open; -1: none */
    hid_t dataset, type, space;
    dpt_store_hdf5_why why;
};

bool dpt_store_layout_stages(const dpt_store_layout *layout) {
    return layout->io == DPT_STORE_COLLECTIVE || layout->chunk_bytes > 0 || layout->deflate > 0;
}

/* The most of a run: ROUND_BYTES, or one chunk. */
static int64_t hdf5_parallel_most(const dpt_store_layout *layout) {
    return layout->chunk_bytes > ROUND_BYTES ? layout->chunk_bytes : ROUND_BYTES;
}

int64_t dpt_store_layout_bytes(const dpt_store_layout *layout) {
    return dpt_store_layout_stages(layout) ? ROUND_BUFFERS * hdf5_parallel_most(layout) : 0;
}

bool dpt_store_hdf5_in_chunks(const dpt_store_layout *layout, const dpt_tensor_info *info) {
    return layout->chunk_bytes > 0 && info->ndim > 0 &&
           info->numel * dpt_dtype_size(info->dtype) >= SMALL_BYTES;
}

int dpt_store_hdf5_chunk(const dpt_tensor_info *info, int64_t bytes, int64_t *sides) {
    int64_t room = bytes / dpt_dtype_size(info->dtype);
    int first = 0;
    for (int d = info->ndim - 1; d >= 0; d--) {
        sides[d] = room < 1 ? 1 : room < info->shape[d] ? room : info->shape[d];
        if (room >= 1)
            first = d;
        room = sides[d] < info->shape[d] ? 0 : room / info->shape[d];
    }
    return first;
}

bool dpt_store_hdf5_chunks_of(int64_t dataset, int64_t *count, dpt_store_extent **extents) {
#if H5_VERSION_GE(1, 10, 5)
    hsize_t chunks = 0, at[H5S_MAX_RANK];
    hid_t space = H5Dget_space(dataset);
    bool ok = space >= 0 && H5Dget_num_chunks(dataset, space, &chunks) >= 0;
    for (hsize_t i = 0; i < chunks && ok; i++) {
        haddr_t place = HADDR_UNDEF;
        hsize_t bytes = 0;
        unsigned filters = 0;
        ok = H5Dget_chunk_info(dataset, space, i, at, &filters, &place, &bytes) >= 0 &&
             place <= INT64_MAX && bytes <= INT64_MAX &&
             dpt_store_extent_add(count, extents,
                                  (dpt_store_extent){(int64_t)place, (int64_t)bytes});
    }
    if (space >= 0)
        H5Sclose(space);
    return ok;
#else
    (void)dataset, (void)count, (void)extents;
    return false;
#endif
}

static dpt_status hdf5_parallel_failed(const dpt_store_hdf5_parallel *p, const char *what) {
    return dpt_error(DPT_ERR_OUTPUT,
                     "%s: HDF5 could not write %s (%s): check disk space, or set output.io: direct",
                     p->writer->partial, what, p->why.text);
}

static void hdf5_parallel_close_tensor(dpt_store_hdf5_parallel *p) {
    if (p->space >= 0)
        H5Sclose(p->space);
    if (p->type >= 0)
        H5Tclose(p->type);
    if (p->dataset >= 0)
        H5Dclose(p->dataset);
    p->space = p->type = p->dataset = H5I_INVALID_HID;
    p->tensor = -1;
}

static dpt_status hdf5_parallel_open_tensor(dpt_store_hdf5_parallel *p, int tensor) {
    const dpt_tensor_info *info = &p->writer->catalog->tensors[tensor];
    if (p->tensor == tensor)
        return DPT_OK;
    hdf5_parallel_close_tensor(p);
    p->dataset = H5Dopen2(p->group, info->name, H5P_DEFAULT);
    bool ok = dpt_store_hdf5_noted(&p->why, p->dataset >= 0);
    p->type = dpt_hdf5_type_create(info->dtype);
    if (ok)
        p->space = H5Dget_space(p->dataset);
    if (p->type < 0 || p->space < 0)
        return hdf5_parallel_failed(p, info->name);
    p->tensor = tensor;
    return DPT_OK;
}

static bool hdf5_parallel_setup(dpt_store_hdf5_parallel *p, hid_t access) {
    const dpt_store_writer *w = p->writer;
    bool together = w->layout.io == DPT_STORE_COLLECTIVE || w->layout.deflate > 0;
    p->transfer = H5Pcreate(H5P_DATASET_XFER);
    return access >= 0 && p->transfer >= 0 && H5Pset_fapl_mpio(access, w->comm.mpi, w->info) >= 0 &&
           H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST) >= 0 &&
           H5Pset_dxpl_mpio(p->transfer, together ? H5FD_MPIO_COLLECTIVE : H5FD_MPIO_INDEPENDENT) >=
               0;
}

static void hdf5_parallel_destroy(dpt_store_hdf5_parallel *p) {
    hdf5_parallel_close_tensor(p);
    if (p->group >= 0)
        H5Gclose(p->group);
    if (p->transfer >= 0)
        H5Pclose(p->transfer);
    dpt_mem_free(p);
}

dpt_status dpt_store_hdf5_parallel_open(dpt_store_writer *writer, dpt_store_hdf5_parallel **out) {
    dpt_store_hdf5_parallel *p = NULL;
    *out = NULL;
    dpt_status st = dpt_agree(&writer->comm, DPT_STORE_NEW(p, 1, "HDF5 file"));
    if (st != DPT_OK) {
        dpt_mem_free(p);
        return st;
    }
    *p = (dpt_store_hdf5_parallel){.writer = writer, .tensor = -1};
    p->file = p->group = p->transfer = p->dataset = p->type = p->space = H5I_INVALID_HID;
    dpt_hdf5_silence();
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    bool ok = dpt_store_hdf5_noted(&p->why, hdf5_parallel_setup(p, access));
    st = dpt_agree(&writer->comm, ok ? DPT_OK : hdf5_parallel_failed(p, "with MPI-IO"));
    if (st == DPT_OK)
        p->file = H5Fopen(writer->partial, H5F_ACC_RDWR, access);
    if (p->file >= 0)
        p->group = H5Gopen2(p->file, "tensors", H5P_DEFAULT);
    (void)dpt_store_hdf5_noted(&p->why, p->group >= 0);
    if (access >= 0)
        H5Pclose(access);
    st = dpt_agree(&writer->comm, p->group >= 0 ? DPT_OK : hdf5_parallel_failed(p, "with MPI-IO"));
    if (st == DPT_OK) {
        *out = p;
        return DPT_OK;
    }
    if (p->file >= 0)
        H5Fclose(p->file);
    hdf5_parallel_destroy(p);
    return st;
}

dpt_status dpt_store_hdf5_parallel_close(dpt_store_writer *writer, dpt_store_hdf5_parallel *p) {
    if (p == NULL)
        return DPT_OK;
    hid_t file = p->file;
    hdf5_parallel_close_tensor(p);
    H5Gclose(p->group);
    p->group = H5I_INVALID_HID;
    bool ok = dpt_store_hdf5_noted(&p->why, H5Fclose(file) >= 0);
    dpt_status st = dpt_agree(&writer->comm, ok ? DPT_OK : hdf5_parallel_failed(p, "its end"));
    hdf5_parallel_destroy(p);
    return st;
}

int64_t dpt_store_hdf5_select(int64_t space, int ndim, const uint64_t *start,
                              const uint64_t *count) {
    hsize_t from[DPT_NDIM_MAX], sides[DPT_NDIM_MAX];
    for (int d = 0; d < ndim; d++) {
        from[d] = count != NULL ? start[d] : 0;
        sides[d] = count != NULL ? count[d] : 1;
    }
    hid_t memory = ndim > 0 ? H5Screate_simple(ndim, sides, NULL) : H5Screate(H5S_SCALAR);
    bool ok = memory >= 0;
    if (ok && count == NULL)
        ok = H5Sselect_none(memory) >= 0 && H5Sselect_none(space) >= 0;
    else if (ok && ndim > 0)
        ok = H5Sselect_hyperslab(space, H5S_SELECT_SET, from, NULL, sides, NULL) >= 0;
    else if (ok)
        ok = H5Sselect_all(space) >= 0;
    if (!ok && memory >= 0) {
        H5Sclose(memory);
        memory = H5I_INVALID_HID;
    }
    return memory;
}

/* One call of H5Dwrite. @param[in] count  sides of a box; NULL: this rank writes nothing. */
static bool hdf5_parallel_write_box(dpt_store_hdf5_parallel *p, int ndim, const uint64_t *start,
                                    const uint64_t *count, const void *data) {
    hid_t memory = dpt_store_hdf5_select(p->space, ndim, start, count);
    bool ok =
        dpt_store_hdf5_noted(&p->why, memory >= 0 && H5Dwrite(p->dataset, p->type, memory, p->space,
                                                              p->transfer, data) >= 0);
    if (memory >= 0)
        H5Sclose(memory);
    return ok;
}

dpt_status dpt_store_hdf5_parallel_write(dpt_store_hdf5_parallel *p, dpt_range range,
                                         const void *data) {
    const dpt_tensor_info *info = &p->writer->catalog->tensors[range.tensor];
    uint64_t start[DPT_NDIM_MAX], count[DPT_NDIM_MAX];
    const char *at = data;
    dpt_status st = range.n > 0 ? hdf5_parallel_open_tensor(p, range.tensor) : DPT_OK;
    while (st == DPT_OK && range.n > 0) {
        int64_t n = 1;
        if (info->ndim > 0)
            n = dpt_store_hdf5_box(info->dtype, info->ndim, info->shape, range.ig, range.n, start,
                                   count);
        if (!hdf5_parallel_write_box(p, info->ndim, start, count, at))
            st = hdf5_parallel_failed(p, info->name);
        dpt_file_count(0, n * dpt_dtype_size(info->dtype));
        at += n * dpt_dtype_size(info->dtype);
        range.ig += n;
        range.n -= n;
    }
    return st;
}

dpt_store_hdf5_runs dpt_store_hdf5_cut(const dpt_tensor_info *info, int64_t chunk_bytes,
                                       int64_t rows) {
    int64_t sides[DPT_NDIM_MAX] = {1}, size = dpt_dtype_size(info->dtype);
    if (info->ndim == 0)
        return (dpt_store_hdf5_runs){.block = 1, .length = 1, .step = 1, .per = 1, .total = 1};
    int side =
        dpt_store_hdf5_chunk(info, chunk_bytes > 0 ? chunk_bytes : DPT_STORE_HDF5_ROUND, sides);
    int64_t slab = info->numel / info->shape[0] * size;
    if (rows > 1 && slab <= DPT_STORE_HDF5_PIECE / rows) {
        side = 0;
        sides[0] = rows;
    }
    dpt_store_hdf5_runs runs = {.block = 1, .length = info->shape[side]};
    for (int d = side + 1; d < info->ndim; d++)
        runs.block *= info->shape[d];
    int64_t times = DPT_STORE_HDF5_ROUND / (sides[side] * runs.block * size);
    runs.step = sides[side] * (times > 1 ? times : 1);
    runs.per = (runs.length + runs.step - 1) / runs.step;
    runs.total = runs.per * (info->numel / (runs.block * runs.length));
    return runs;
}

dpt_range dpt_store_hdf5_run(const dpt_store_hdf5_runs *runs, int tensor, int64_t run) {
    int64_t first = run % runs->per * runs->step, left = runs->length - first;
    int64_t n = left < runs->step ? left : runs->step;
    return (dpt_range){.tensor = tensor,
                       .ig = (run / runs->per * runs->length + first) * runs->block,
                       .n = n * runs->block};
}

/* One tensor. Collective, agreed. */
static dpt_status hdf5_parallel_move_tensor(dpt_store_hdf5_parallel *p, dpt_store_files *stage,
                                            int tensor, char *buffer) {
    const dpt_store_writer *w = p->writer;
    const dpt_tensor_info *info = &w->catalog->tensors[tensor];
    int64_t size = dpt_dtype_size(info->dtype);
    bool chunks = dpt_store_hdf5_in_chunks(&w->layout, info);
    dpt_store_hdf5_runs runs = dpt_store_hdf5_cut(info, chunks ? w->layout.chunk_bytes : 0, 1);
    dpt_status st = dpt_agree(&w->comm, hdf5_parallel_open_tensor(p, tensor));
    for (int64_t first = 0; first < runs.total && st == DPT_OK; first += w->comm.size) {
        uint64_t start[DPT_NDIM_MAX], count[DPT_NDIM_MAX];
        bool mine = first + w->comm.rank < runs.total;
        dpt_range own = {.tensor = tensor, .n = 0};
        if (mine)
            own = dpt_store_hdf5_run(&runs, tensor, first + w->comm.rank);
        st = dpt_store_files_read(stage, 0, w->offset_of[tensor] + own.ig * size, own.n * size,
                                  buffer, info->name);
        st = dpt_agree(&w->comm, st == DPT_OK ? dpt_stop_check() : st);
        if (st != DPT_OK)
            break;
        if (mine && info->ndim > 0) {
            int64_t n = dpt_store_hdf5_box(info->dtype, info->ndim, info->shape, own.ig, own.n,
                                           start, count);
            DPT_ASSERT(n == own.n);
            (void)n;
        }
        bool ok = hdf5_parallel_write_box(p, info->ndim, start, mine ? count : NULL, buffer);
        dpt_file_count(0, own.n * size);
        st = dpt_agree(&w->comm, ok ? DPT_OK : hdf5_parallel_failed(p, info->name));
    }
    return st;
}

dpt_status dpt_store_hdf5_parallel_move(dpt_store_writer *writer) {
    dpt_store_hdf5_parallel *p = NULL;
    dpt_store_files stage = {.count = 0};
    char *buffer = dpt_mem_alloc(hdf5_parallel_most(&writer->layout), 1, "tensors of an HDF5 file");
    dpt_status st = buffer != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = dpt_store_files_init(&stage, 1, writer->files, false);
    st = dpt_agree(&writer->comm, st);
    if (st == DPT_OK)
        st = dpt_store_hdf5_parallel_open(writer, &p);
    for (int t = 0; t < writer->catalog->count && st == DPT_OK; t++)
        if (writer->catalog->tensors[t].numel > 0)
            st = hdf5_parallel_move_tensor(p, &stage, t, buffer);
    dpt_status closed = dpt_store_hdf5_parallel_close(writer, p);
    (void)dpt_store_files_close(&stage, false); /* it was read */
    dpt_mem_free(buffer);
    st = dpt_status_worse(st, closed);
    if (st == DPT_OK && writer->comm.rank == 0)
        st = dpt_store_path_remove(writer->stage);
    return dpt_agree(&writer->comm, st);
}

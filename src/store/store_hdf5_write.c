#include "store_internal.h"

#include "deltapath/hdf5/hdf5_type.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/base/isolate.h"

#include <string.h>

/* Writing: rank 0 makes the file and its data sets, with the space taken at once and never filled, and
 * tells the others the extents; the file is closed while the bytes move, and opened once more for the
 * hashes. HDF5 runs in a child process, by itself: through parallel HDF5 a rank on which a call fails
 * leaves the others waiting inside theirs, and a file that HDF5 could not close crashes when MPI ends. */

enum { ALIGN_FROM = 1 << 20, ALIGN_TO = 4096 }; /* large tensors begin on pages */
enum { CHUNK_BYTES = 1 << 20 };                 /* compressed */

static dpt_status fail(const dpt_store_writer *writer, const char *what) {
    return dpt_error(DPT_ERR_OUTPUT, "%s: HDF5 could not %s: check permissions and disk space",
                     writer->partial, what);
}

dpt_status dpt_store_hdf5_layout(dpt_store_writer *writer) {
    for (int t = 0; t < writer->catalog->count; t++) {
        const char *name = writer->catalog->tensors[t].name;
        if (strchr(name, '/') != NULL || strcmp(name, ".") == 0)
            return dpt_error(DPT_ERR_INPUT,
                             "%s: the tensor name %s cannot be stored in HDF5: write safetensors",
                             writer->path, name);
    }
    if (dpt_store_companions_bytes(writer->companions) > DPT_STORE_COMPANIONS_BYTES)
        return dpt_error(
            DPT_ERR_INPUT,
            "%s: the tokenizer and licence files that come along have %.0f MB, an HDF5 "
            "checkpoint takes %.0f: remove what is not needed or write safetensors",
            writer->path, (double)dpt_store_companions_bytes(writer->companions) / 1e6,
            (double)DPT_STORE_COMPANIONS_BYTES / 1e6);
    dpt_status st = DPT_STORE_NEW(writer->files, 1, "file names");
    if (st != DPT_OK)
        return st;
    if (writer->layout.chunk_bytes == 0 && writer->layout.deflate > 0)
        writer->layout.chunk_bytes = CHUNK_BYTES;
    if (dpt_store_layout_stages(&writer->layout))
        writer->stage = dpt_file_temporary(writer->path); /* the one of rank 0 is taken */
    if (dpt_store_layout_stages(&writer->layout) && writer->stage == NULL)
        return DPT_ERR_OUTPUT;
    writer->files[0] =
        dpt_mem_strdup(writer->stage != NULL ? writer->stage : writer->partial, "file name");
    writer->nfiles = 1;
    return writer->files[0] == NULL ? DPT_ERR_OUTPUT : DPT_OK;
}

static hid_t plain_access(void) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access >= 0 && (H5Pset_alignment(access, ALIGN_FROM, ALIGN_TO) < 0 ||
                        H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST) < 0)) {
        H5Pclose(access);
        return H5I_INVALID_HID;
    }
    return access;
}

/* Time stamps would give the same model another file. Space is taken at once and never filled. */
static hid_t contiguous_dataset(void) {
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    if (plist >= 0 &&
        (H5Pset_obj_track_times(plist, false) < 0 || H5Pset_layout(plist, H5D_CONTIGUOUS) < 0 ||
         H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY) < 0 ||
         H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER) < 0)) {
        H5Pclose(plist);
        return H5I_INVALID_HID;
    }
    return plist;
}

/* Shuffled bytes of floats compress better. */
static hid_t chunked_dataset(const dpt_store_layout *layout, const dpt_tensor_info *info) {
    int64_t sides[DPT_NDIM_MAX];
    hsize_t chunk[DPT_NDIM_MAX];
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    dpt_store_hdf5_chunk(info, layout->chunk_bytes, sides);
    for (int d = 0; d < info->ndim; d++)
        chunk[d] = (hsize_t)sides[d];
    bool ok = plist >= 0 && H5Pset_obj_track_times(plist, false) >= 0 &&
              H5Pset_chunk(plist, info->ndim, chunk) >= 0 &&
              H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER) >= 0;
    if (ok && layout->deflate > 0)
        ok = H5Pset_shuffle(plist) >= 0 &&
             H5Pset_deflate(plist, (unsigned)(layout->deflate - 1)) >= 0;
    if (!ok && plist >= 0) {
        H5Pclose(plist);
        plist = H5I_INVALID_HID;
    }
    return plist;
}

static hid_t plain_group(hid_t file, const char *name) {
    hid_t plist = H5Pcreate(H5P_GROUP_CREATE);
    hid_t group = plist >= 0 && H5Pset_obj_track_times(plist, false) >= 0
                      ? H5Gcreate2(file, name, H5P_DEFAULT, plist, H5P_DEFAULT)
                      : H5I_INVALID_HID;
    if (plist >= 0)
        H5Pclose(plist);
    return group;
}

static bool write_number(hid_t object, const char *name, hid_t file_type, hid_t type,
                         const void *value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute =
        space >= 0 ? H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT) : space;
    bool ok = attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
    if (attribute >= 0)
        ok = H5Aclose(attribute) >= 0 && ok;
    if (space >= 0)
        H5Sclose(space);
    return ok;
}

/* An empty data set has no extent, and needs none. */
static bool hdf5_write_place_of(hid_t dataset, bool none, int64_t *offset) {
    haddr_t at = none ? 0 : H5Dget_offset(dataset);
    *offset = (int64_t)at;
    return at != HADDR_UNDEF;
}

static bool create_dataset(const dpt_store_writer *writer, const dpt_tensor_info *info, hid_t group,
                           hid_t contiguous, int64_t *offset) {
    bool chunks = dpt_store_hdf5_in_chunks(&writer->layout, info);
    hid_t plist = chunks ? chunked_dataset(&writer->layout, info) : contiguous;
    hsize_t sides[DPT_NDIM_MAX];
    for (int i = 0; i < info->ndim; i++)
        sides[i] = (hsize_t)info->shape[i];
    hid_t type = dpt_hdf5_type_create(info->dtype);
    hid_t space =
        info->ndim == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(info->ndim, sides, NULL);
    hid_t dataset =
        type >= 0 && space >= 0 && plist >= 0
            ? H5Dcreate2(group, info->name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT)
            : H5I_INVALID_HID;
    uint64_t unknown = 0;
    bool ok = dataset >= 0 &&
              write_number(dataset, "xxh3", H5T_STD_U64LE, H5T_NATIVE_UINT64, &unknown) &&
              hdf5_write_place_of(dataset, info->numel == 0 || chunks, offset);
    if (dataset >= 0)
        ok = H5Dclose(dataset) >= 0 && ok;
    if (chunks && plist >= 0)
        H5Pclose(plist);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return ok;
}

static bool write_root(const dpt_store_writer *writer, hid_t file) {
    int version = 1;
    bool ok = dpt_hdf5_text_write(file, "format", "deltapath-checkpoint");
    int sealed = 1;
    ok = write_number(file, "version", H5T_STD_I32LE, H5T_NATIVE_INT, &version) && ok;
    ok = write_number(file, "sealed", H5T_STD_I32LE, H5T_NATIVE_INT, &sealed) && ok;
    ok = dpt_hdf5_text_write(file, "config", writer->config) && ok;
    ok = dpt_hdf5_text_write(file, "metadata", writer->metadata) && ok;
    return dpt_hdf5_text_write(file, "provenance", writer->provenance) && ok;
}

static int companions_of(const dpt_store_writer *writer) {
    return writer->companions != NULL ? writer->companions->ncompanions : 0;
}

/* One data set of bytes for each, after the tensors; at (companions): their first bytes. */
static bool create_companions(const dpt_store_writer *writer, hid_t file, hid_t plist,
                              int64_t *at) {
    int count = companions_of(writer);
    if (count == 0)
        return true;
    hid_t group = plain_group(file, "companions");
    bool ok = group >= 0;
    for (int i = 0; i < count && ok; i++) {
        const dpt_store_companion *companion = &writer->companions->companions[i];
        hsize_t side = (hsize_t)companion->bytes;
        hid_t space = H5Screate_simple(1, &side, NULL);
        hid_t dataset = space >= 0 ? H5Dcreate2(group, companion->name, H5T_STD_U8LE, space,
                                                H5P_DEFAULT, plist, H5P_DEFAULT)
                                   : H5I_INVALID_HID;
        ok = dataset >= 0 && hdf5_write_place_of(dataset, side == 0, &at[i]);
        if (dataset >= 0)
            ok = H5Dclose(dataset) >= 0 && ok;
        if (space >= 0)
            H5Sclose(space);
    }
    if (group >= 0)
        H5Gclose(group);
    return ok;
}

/* Their bytes, once the file is closed. Rank 0. */
static dpt_status write_companions(const dpt_store_writer *writer, const int64_t *at) {
    dpt_status st = DPT_OK;
    for (int i = 0; i < companions_of(writer) && st == DPT_OK; i++)
        st = dpt_store_companion_copy(&writer->companions->companions[i], writer->partial, at[i]);
    return st;
}

/* at: (tensors + companions) first bytes. */
static bool fill_file(const dpt_store_writer *writer, hid_t file, int64_t *at) {
    const dpt_catalog *catalog = writer->catalog;
    bool ok = write_root(writer, file);
    hid_t plist = contiguous_dataset();
    hid_t group = ok && plist >= 0 ? plain_group(file, "tensors") : H5I_INVALID_HID;
    ok = group >= 0;
    for (int t = 0; t < catalog->count && ok; t++)
        ok = create_dataset(writer, &catalog->tensors[t], group, plist, &at[t]);
    if (group >= 0)
        ok = H5Gclose(group) >= 0 && ok;
    ok = ok && create_companions(writer, file, plist, at + catalog->count);
    if (plist >= 0)
        H5Pclose(plist);
    return ok;
}

/* In the child: make the file, answer with the places. */
static dpt_status make_file(void *ctx, char **bytes, int64_t *n) {
    const dpt_store_writer *writer = ctx;
    dpt_hdf5_silence();
    int64_t places = (int64_t)writer->catalog->count + companions_of(writer);
    int64_t *at = dpt_mem_zalloc(places, sizeof *at, "places of tensors");
    if (at == NULL)
        return DPT_ERR_OUTPUT;
    hid_t creation = H5Pcreate(H5P_FILE_CREATE);
    hid_t access = plain_access();
    hid_t file = creation >= 0 && access >= 0 && H5Pset_obj_track_times(creation, false) >= 0
                     ? H5Fcreate(writer->partial, H5F_ACC_TRUNC, creation, access)
                     : H5I_INVALID_HID;
    dpt_status st = file < 0 ? fail(writer, "create the file") : DPT_OK;
    if (st == DPT_OK && !fill_file(writer, file, at))
        st = fail(writer, "create the data sets");
    if (file >= 0 && H5Fclose(file) < 0 && st == DPT_OK)
        st = fail(writer, "close the file");
    if (access >= 0)
        H5Pclose(access);
    if (creation >= 0)
        H5Pclose(creation);
    *bytes = (char *)at;
    *n = places * (int64_t)sizeof *at;
    return st;
}

/* Places of the tensors in the temporary file. @return its length. */
static int64_t stage_bytes(const dpt_store_writer *writer) {
    int64_t at = 0;
    for (int t = 0; t < writer->catalog->count; t++) {
        const dpt_tensor_info *info = &writer->catalog->tensors[t];
        writer->offset_of[t] = at;
        at += (info->numel * dpt_dtype_size(info->dtype) + ALIGN_TO - 1) / ALIGN_TO * ALIGN_TO;
    }
    return at;
}

/* Rank 0. The empty file comes first: what forbids one is said by the system's own words. */
static dpt_status create_file(dpt_store_writer *writer) {
    char *at = NULL;
    int64_t n = 0;
    size_t own = (size_t)writer->catalog->count * sizeof *writer->offset_of;
    dpt_status st = dpt_store_hint_file(writer, writer->partial);
    if (st == DPT_OK)
        st = dpt_store_path_write(writer->partial, "", 0, 0);
    if (st == DPT_OK)
        st = dpt_isolate_write(writer->partial, make_file, writer, &at, &n);
    if (st == DPT_OK && own > 0 && writer->stage == NULL)
        memcpy(writer->offset_of, at, own);
    if (st == DPT_OK && writer->stage != NULL)
        st = dpt_store_path_write(writer->stage, "", 0, stage_bytes(writer));
    if (st == DPT_OK && writer->stage != NULL) /* what is contiguous in it; chunks find out */
        st = dpt_store_path_allocate(writer->partial);
    if (st == DPT_OK && companions_of(writer) > 0)
        st = write_companions(writer, (const int64_t *)(const void *)at + writer->catalog->count);
    dpt_mem_free(at);
    return st;
}

/* Collective, agreed. */
static dpt_status share_stage(dpt_store_writer *writer) {
    char *name = NULL;
    if (writer->stage == NULL)
        return DPT_OK;
    dpt_status st = dpt_comm_broadcast_string(&writer->comm, writer->stage, 0, &name);
    char *copy = dpt_mem_strdup(name, "file name");
    dpt_mem_free(writer->stage);
    dpt_mem_free(writer->files[0]);
    writer->stage = name;
    writer->files[0] = copy;
    return dpt_agree(&writer->comm, st == DPT_OK && copy == NULL ? DPT_ERR_OUTPUT : st);
}

dpt_status dpt_store_hdf5_create(dpt_store_writer *writer) {
    dpt_status st = share_stage(writer);
    if (st == DPT_OK)
        st = dpt_agree(&writer->comm, writer->comm.rank == 0 ? create_file(writer) : DPT_OK);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(
            &writer->comm, writer->offset_of,
            (int64_t)writer->catalog->count * (int64_t)sizeof *writer->offset_of, 0);
    if (st == DPT_OK && writer->stage == NULL && writer->layout.io == DPT_STORE_INDEPENDENT)
        st = dpt_store_hdf5_parallel_open(writer, &writer->parallel);
    return st;
}

/* @param[in,out] count, extents  of the tensor's bytes are added. */
static bool conclude_tensor(hid_t group, const dpt_tensor_info *info, bool chunks, uint64_t hash,
                            int64_t *count, dpt_store_extent **extents) {
    hid_t dataset = H5Dopen2(group, info->name, H5P_DEFAULT);
    hid_t attribute = dataset >= 0 ? H5Aopen(dataset, "xxh3", H5P_DEFAULT) : -1;
    bool ok = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_UINT64, &hash) >= 0;
    if (attribute >= 0)
        ok = H5Aclose(attribute) >= 0 && ok;
    if (ok && chunks) {
        ok = dpt_store_hdf5_chunks_of(dataset, count, extents);
    } else if (ok && info->numel > 0) {
        dpt_store_extent one = {.bytes = info->numel * dpt_dtype_size(info->dtype)};
        ok = hdf5_write_place_of(dataset, false, &one.offset) &&
             dpt_store_extent_add(count, extents, one);
    }
    if (dataset >= 0)
        ok = H5Dclose(dataset) >= 0 && ok;
    return ok;
}

/* In the child. */
static dpt_status write_hashes(void *ctx, char **bytes, int64_t *n) {
    const dpt_store_writer *writer = ctx;
    dpt_store_extent *extents = NULL;
    int64_t count = 0;
    dpt_hdf5_silence();
    hid_t access = plain_access();
    hid_t file = access >= 0 ? H5Fopen(writer->partial, H5F_ACC_RDWR, access) : access;
    hid_t group = file >= 0 ? H5Gopen2(file, "tensors", H5P_DEFAULT) : file;
    bool ok = group >= 0;
    for (int t = 0; t < writer->catalog->count && ok; t++)
        ok =
            conclude_tensor(group, &writer->catalog->tensors[t],
                            dpt_store_hdf5_in_chunks(&writer->layout, &writer->catalog->tensors[t]),
                            writer->hashes[t], &count, &extents);
    if (group >= 0)
        H5Gclose(group);
    if (file >= 0)
        ok = H5Fclose(file) >= 0 && ok;
    if (access >= 0)
        H5Pclose(access);
    *bytes = (char *)extents;
    *n = count * (int64_t)sizeof *extents;
    return ok ? DPT_OK : fail(writer, "write the hashes");
}

dpt_status dpt_store_hdf5_finish(dpt_store_writer *writer) {
    char *extents = NULL;
    int64_t bytes = 0;
    dpt_status st = writer->stage != NULL ? dpt_store_hdf5_parallel_move(writer) : DPT_OK;
    if (st == DPT_OK && writer->comm.rank == 0)
        st = dpt_isolate_write(writer->partial, write_hashes, writer, &extents, &bytes);
    writer->extents = (dpt_store_extent *)(void *)extents;
    writer->nextents = bytes / (int64_t)sizeof *writer->extents;
    if (st == DPT_OK && writer->comm.rank == 0)
        st = dpt_store_seal_write(writer);
    return dpt_agree(&writer->comm, st);
}

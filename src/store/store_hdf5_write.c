#include "store_internal.h"

#include "hdf5_type.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <string.h>

/* Writing: all ranks create the file and its data sets together through parallel HDF5, with the
 * space taken at once and never filled, and learn the extents; the file is closed while the bytes
 * move, and opened once more for the hashes. */

enum { ALIGN_FROM = 1 << 20, ALIGN_TO = 4096 }; /* large tensors begin on pages */

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
    writer->files[0] = dpt_mem_strdup(writer->partial, "file name");
    writer->nfiles = 1;
    return writer->files[0] == NULL ? DPT_ERR_OUTPUT : DPT_OK;
}

/* Metadata is written piece by piece, not collectively: Open MPI 4.1 then also writes what lies between
 * the pieces of its ranks, from memory that nobody set. */
static hid_t parallel_access(const dpt_store_writer *writer) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0)
        return access;
    if (H5Pset_fapl_mpio(access, writer->comm.mpi, MPI_INFO_NULL) < 0 ||
        H5Pset_all_coll_metadata_ops(access, true) < 0 ||
        H5Pset_coll_metadata_write(access, false) < 0 ||
        H5Pset_alignment(access, ALIGN_FROM, ALIGN_TO) < 0 ||
        H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST) < 0) {
        H5Pclose(access);
        return -1;
    }
    return access;
}

static bool write_number(hid_t object, const char *name, hid_t file_type, hid_t type,
                         const void *value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
    if (attribute >= 0)
        ok = H5Aclose(attribute) >= 0 && ok;
    H5Sclose(space);
    return ok;
}

static bool create_dataset(dpt_store_writer *writer, hid_t group, hid_t plist, int t) {
    const dpt_tensor_info *info = &writer->catalog->tensors[t];
    hsize_t sides[DPT_NDIM_MAX];
    for (int i = 0; i < info->ndim; i++)
        sides[i] = (hsize_t)info->shape[i];
    hid_t type = dpt_hdf5_type_create(info->dtype);
    hid_t space =
        info->ndim == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(info->ndim, sides, NULL);
    hid_t dataset = H5Dcreate2(group, info->name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    bool ok = dataset >= 0;
    if (ok) {
        uint64_t unknown = 0;
        ok = write_number(dataset, "xxh3", H5T_STD_U64LE, H5T_NATIVE_UINT64, &unknown);
        haddr_t offset = info->numel > 0 ? H5Dget_offset(dataset) : 0;
        ok = ok && offset != HADDR_UNDEF;
        writer->offset_of[t] = (int64_t)offset;
        H5Dclose(dataset);
    }
    H5Sclose(space);
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

/* One data set of bytes for each, after the tensors; at (companions): their first bytes. */
static bool create_companions(const dpt_store_writer *writer, hid_t file, hid_t group_plist,
                              hid_t plist, int64_t *at) {
    int count = writer->companions != NULL ? writer->companions->ncompanions : 0;
    if (count == 0)
        return true;
    hid_t group = H5Gcreate2(file, "companions", H5P_DEFAULT, group_plist, H5P_DEFAULT);
    bool ok = group >= 0;
    for (int i = 0; i < count; i++) {
        const dpt_store_companion *companion = &writer->companions->companions[i];
        hsize_t side = (hsize_t)companion->bytes;
        hid_t space = H5Screate_simple(1, &side, NULL);
        hid_t dataset = H5Dcreate2(group, companion->name, H5T_STD_U8LE, space, H5P_DEFAULT, plist,
                                   H5P_DEFAULT);
        haddr_t offset = dataset >= 0 && side > 0 ? H5Dget_offset(dataset) : 0;
        ok = ok && dataset >= 0 && offset != HADDR_UNDEF;
        at[i] = (int64_t)offset;
        if (dataset >= 0)
            H5Dclose(dataset);
        H5Sclose(space);
    }
    if (group >= 0)
        H5Gclose(group);
    return ok;
}

/* Their bytes, once the file is closed. Rank 0. */
static dpt_status write_companions(const dpt_store_writer *writer, const int64_t *at) {
    dpt_status st = DPT_OK;
    for (int i = 0; writer->companions != NULL && i < writer->companions->ncompanions; i++)
        if (st == DPT_OK)
            st = dpt_store_companion_copy(&writer->companions->companions[i], writer->partial,
                                          at[i]);
    return st;
}

/* Every rank makes every call, whatever failed before, so that the collective calls match. */
static dpt_status fill_file(dpt_store_writer *writer, hid_t file, int64_t *companion_at) {
    bool ok = write_root(writer, file);
    /* Without time stamps the same model gives the same file. */
    hid_t group_plist = H5Pcreate(H5P_GROUP_CREATE);
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(group_plist, false);
    H5Pset_obj_track_times(plist, false);
    H5Pset_layout(plist, H5D_CONTIGUOUS);
    H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER);
    hid_t group = H5Gcreate2(file, "tensors", H5P_DEFAULT, group_plist, H5P_DEFAULT);
    ok = ok && group >= 0;
    for (int t = 0; t < writer->catalog->count; t++)
        ok = create_dataset(writer, group, plist, t) && ok;
    if (group >= 0)
        H5Gclose(group);
    ok = create_companions(writer, file, group_plist, plist, companion_at) && ok;
    H5Pclose(plist);
    H5Pclose(group_plist);
    return ok ? DPT_OK : fail(writer, "create the data sets");
}

dpt_status dpt_store_hdf5_create(dpt_store_writer *writer) {
    dpt_hdf5_silence();
    /* Rank 0 makes the file first: what can go wrong in doing so then goes wrong on one rank, not
     * inside a collective call. */
    dpt_status st =
        writer->comm.rank == 0 ? dpt_store_path_write(writer->partial, "", 0, 0) : DPT_OK;
    st = dpt_agree(&writer->comm, st);
    if (st != DPT_OK)
        return st;
    hid_t creation = H5Pcreate(H5P_FILE_CREATE);
    hid_t access = parallel_access(writer);
    st = creation < 0 || access < 0 || H5Pset_obj_track_times(creation, false) < 0
             ? dpt_error(DPT_ERR_INTERNAL, "HDF5 refuses its property lists")
             : DPT_OK;
    st = dpt_agree(&writer->comm, st);
    hid_t file = -1;
    if (st == DPT_OK) {
        file = H5Fcreate(writer->partial, H5F_ACC_TRUNC, creation, access);
        st = dpt_agree(&writer->comm, file < 0 ? fail(writer, "create the file") : DPT_OK);
    }
    int64_t companion_at[DPT_STORE_COMPANIONS_MAX];
    if (st == DPT_OK)
        st = fill_file(writer, file, companion_at);
    if (file >= 0 && H5Fclose(file) < 0 && st == DPT_OK)
        st = fail(writer, "close the file");
    H5Pclose(access);
    H5Pclose(creation);
    st = dpt_agree(&writer->comm, st);
    if (st == DPT_OK)
        st = dpt_agree(&writer->comm,
                       writer->comm.rank == 0 ? write_companions(writer, companion_at) : DPT_OK);
    return st;
}

static bool rewrite_hash(hid_t group, const char *name, uint64_t hash) {
    hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
    hid_t attribute = dataset >= 0 ? H5Aopen(dataset, "xxh3", H5P_DEFAULT) : -1;
    bool ok = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_UINT64, &hash) >= 0;
    if (attribute >= 0)
        ok = H5Aclose(attribute) >= 0 && ok;
    if (dataset >= 0)
        ok = H5Dclose(dataset) >= 0 && ok;
    return ok;
}

dpt_status dpt_store_hdf5_finish(dpt_store_writer *writer) {
    hid_t access = parallel_access(writer);
    dpt_status st = dpt_agree(
        &writer->comm, access < 0 ? dpt_error(DPT_ERR_INTERNAL, "HDF5 property list") : DPT_OK);
    hid_t file = -1;
    if (st == DPT_OK) {
        file = H5Fopen(writer->partial, H5F_ACC_RDWR, access);
        st = dpt_agree(&writer->comm, file < 0 ? fail(writer, "open the file again") : DPT_OK);
    }
    if (st == DPT_OK) {
        hid_t group = H5Gopen2(file, "tensors", H5P_DEFAULT);
        bool ok = group >= 0;
        for (int t = 0; t < writer->catalog->count; t++)
            ok = rewrite_hash(group, writer->catalog->tensors[t].name, writer->hashes[t]) && ok;
        if (group >= 0)
            H5Gclose(group);
        st = ok ? DPT_OK : fail(writer, "write the hashes");
    }
    if (file >= 0 && H5Fclose(file) < 0 && st == DPT_OK)
        st = fail(writer, "close the file");
    if (access >= 0)
        H5Pclose(access);
    st = dpt_agree(&writer->comm, st);
    if (st == DPT_OK)
        st = dpt_agree(&writer->comm,
                       writer->comm.rank == 0 ? dpt_store_seal_write(writer) : DPT_OK);
    return st;
}

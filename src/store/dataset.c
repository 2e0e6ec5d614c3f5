#include "deltapath/store/dataset.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <hdf5.h>
#include <inttypes.h>
#include <stdbool.h>
#include <unistd.h>

/* One vector of the file: its length, and its values converted to `type` in a counted block. */
static dpt_status read_vector(hid_t file, const char *path, const char *name, hid_t type,
                              size_t size, int64_t *length, void **values) {
    if (H5Lexists(file, name, H5P_DEFAULT) <= 0)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: the data set '%s' is missing: make the file with "
                         "tools/prepare_data.py",
                         path, name);
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    hid_t space = set >= 0 ? H5Dget_space(set) : -1;
    hid_t stored = set >= 0 ? H5Dget_type(set) : -1;
    dpt_status st = DPT_OK;
    hssize_t count = space >= 0 ? H5Sget_simple_extent_npoints(space) : -1;
    if (count < 0 || H5Sget_simple_extent_ndims(space) != 1)
        st = dpt_error(DPT_ERR_INPUT, "%s: '%s' must be a data set of one dimension", path, name);
    else if (H5Tget_class(stored) != H5T_INTEGER)
        st = dpt_error(DPT_ERR_INPUT, "%s: '%s' must hold whole numbers", path, name);
    if (st == DPT_OK) {
        *length = count;
        *values = dpt_mem_alloc(count, size, "data set");
        if (*values == NULL)
            st = DPT_ERR_OUTPUT;
        else if (count > 0 && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *values) < 0)
            st = dpt_error(DPT_ERR_INPUT, "%s: '%s' cannot be read: the file is damaged", path,
                           name);
    }
    if (stored >= 0)
        H5Tclose(stored);
    if (space >= 0)
        H5Sclose(space);
    if (set >= 0)
        H5Dclose(set);
    return st;
}

static dpt_status check_values(const dpt_dataset *data, const char *path, int64_t tokens) {
    if (data->samples < 1)
        return dpt_error(DPT_ERR_INPUT, "%s: no samples: 'offsets' needs at least two entries",
                         path);
    if (data->offsets[0] != 0 || data->offsets[data->samples] != tokens)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: 'offsets' runs from %" PRId64 " to %" PRId64
                         ", but there are %" PRId64 " tokens",
                         path, data->offsets[0], data->offsets[data->samples], tokens);
    for (int64_t i = 0; i < data->samples; i++)
        if (data->offsets[i + 1] <= data->offsets[i])
            return dpt_error(DPT_ERR_INPUT, "%s: sample %" PRId64 " is empty: 'offsets' must rise",
                             path, i);
    for (int64_t i = 0; i < tokens; i++)
        if (data->loss_mask[i] > 1)
            return dpt_error(DPT_ERR_INPUT, "%s: 'loss_mask' of token %" PRId64 " is %d: 0 or 1",
                             path, i, data->loss_mask[i]);
    return DPT_OK;
}

static dpt_status read_all(hid_t file, const char *path, dpt_dataset *out) {
    int64_t tokens = 0;
    int64_t masks = 0;
    int64_t offsets = 0;
    dpt_status st = read_vector(file, path, "tokens", H5T_NATIVE_INT32, sizeof *out->tokens,
                                &tokens, (void **)&out->tokens);
    if (st == DPT_OK)
        st = read_vector(file, path, "loss_mask", H5T_NATIVE_UINT8, sizeof *out->loss_mask, &masks,
                         (void **)&out->loss_mask);
    if (st == DPT_OK)
        st = read_vector(file, path, "offsets", H5T_NATIVE_INT64, sizeof *out->offsets, &offsets,
                         (void **)&out->offsets);
    if (st != DPT_OK)
        return st;
    if (masks != tokens)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: 'loss_mask' has %" PRId64 " entries and 'tokens' %" PRId64, path,
                         masks, tokens);
    out->samples = offsets - 1;
    return check_values(out, path, tokens);
}

static dpt_status read_file(const char *path, dpt_dataset *out) {
    if (access(path, R_OK) != 0)
        return dpt_error(DPT_ERR_INPUT, "%s: cannot be read: give the path of a data-set file",
                         path);
    H5E_auto2_t report;
    void *client;
    H5Eget_auto2(H5E_DEFAULT, &report, &client);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    dpt_status st;
    if (file < 0)
        st = dpt_error(DPT_ERR_INPUT, "%s: not an HDF5 file, or cut off", path);
    else
        st = read_all(file, path, out);
    if (file >= 0)
        H5Fclose(file);
    H5Eset_auto2(H5E_DEFAULT, report, client);
    return st;
}

/* Allocate on the ranks that did not read. */
static dpt_status receive(dpt_dataset *out, int64_t tokens) {
    out->offsets = dpt_mem_alloc(out->samples + 1, sizeof *out->offsets, "data-set offsets");
    out->tokens = dpt_mem_alloc(tokens, sizeof *out->tokens, "data-set tokens");
    out->loss_mask = dpt_mem_alloc(tokens, sizeof *out->loss_mask, "data-set mask");
    bool complete = out->offsets != NULL && out->tokens != NULL && out->loss_mask != NULL;
    return complete ? DPT_OK : DPT_ERR_OUTPUT;
}

dpt_status dpt_dataset_read(const dpt_comm *comm, const char *path, dpt_dataset *out) {
    *out = (dpt_dataset){.samples = 0};
    int64_t sizes[2] = {0, 0};
    dpt_status st = comm->rank == 0 ? read_file(path, out) : DPT_OK;
    st = dpt_agree(comm, st);
    if (st == DPT_OK && comm->rank == 0) {
        sizes[0] = out->samples;
        sizes[1] = out->offsets[out->samples];
    }
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, sizes, sizeof sizes, 0));
    if (st == DPT_OK) {
        out->samples = sizes[0];
        st = dpt_agree(comm, comm->rank == 0 ? DPT_OK : receive(out, sizes[1]));
    }
    int64_t tokens = sizes[1];
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, out->offsets, (out->samples + 1) * 8, 0);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, out->tokens, tokens * 4, 0);
    if (st == DPT_OK)
        st = dpt_comm_broadcast(comm, out->loss_mask, tokens, 0);
    if (st != DPT_OK) {
        dpt_dataset_destroy(out);
        return st;
    }
    dpt_hash hash;
    dpt_hash_begin(&hash);
    dpt_hash_update(&hash, out->offsets, (size_t)(out->samples + 1) * sizeof *out->offsets);
    dpt_hash_update(&hash, out->tokens, (size_t)tokens * sizeof *out->tokens);
    dpt_hash_update(&hash, out->loss_mask, (size_t)tokens);
    out->hash = dpt_hash_value(&hash);
    return DPT_OK;
}

void dpt_dataset_destroy(dpt_dataset *dataset) {
    dpt_mem_free(dataset->offsets);
    dpt_mem_free(dataset->tokens);
    dpt_mem_free(dataset->loss_mask);
    *dataset = (dpt_dataset){.samples = 0};
}

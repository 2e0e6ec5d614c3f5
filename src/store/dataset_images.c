#include "dataset_file.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/tensor/shard.h"

#include <hdf5.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>

enum { BLOCK_PIXELS = 1 << 20 }; /* about as many are checked and hashed at a time */

struct dpt_dataset_images {
    char *path;
    hid_t file, set, space;
};

static int64_t pixels_of(const dpt_dataset *dataset) {
    return dataset->channels * dataset->height * dataset->width;
}

void dpt_dataset_close_images(dpt_dataset *dataset) {
    struct dpt_dataset_images *images = dataset->images;
    if (images == NULL)
        return;
    if (images->space >= 0)
        H5Sclose(images->space);
    if (images->set >= 0)
        H5Dclose(images->set);
    if (images->file >= 0)
        H5Fclose(images->file);
    dpt_mem_free(images->path);
    dpt_mem_free(images);
    dataset->images = NULL;
}

static void open_handles(struct dpt_dataset_images *images) {
    images->file = H5Fopen(images->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (images->file >= 0)
        images->set = H5Dopen2(images->file, "images", H5P_DEFAULT);
    if (images->set >= 0)
        images->space = H5Dget_space(images->set);
}

dpt_status dpt_dataset_open_images(const char *path, dpt_dataset *dataset) {
    struct dpt_dataset_images *images = dpt_mem_zalloc(1, sizeof *images, "image file");
    if (images == NULL)
        return DPT_ERR_OUTPUT;
    *images = (struct dpt_dataset_images){.file = -1, .set = -1, .space = -1};
    dataset->images = images;
    images->path = dpt_mem_strdup(path, "image file");
    if (images->path == NULL)
        return DPT_ERR_OUTPUT;
    H5E_BEGIN_TRY {
        open_handles(images);
    }
    H5E_END_TRY;
    hsize_t dims[4] = {0};
    const int64_t wanted[4] = {dataset->samples, dataset->channels, dataset->height,
                               dataset->width};
    bool same = images->space >= 0 && H5Sget_simple_extent_ndims(images->space) == 4 &&
                H5Sget_simple_extent_dims(images->space, dims, NULL) == 4;
    for (int d = 0; d < 4; d++)
        same = same && (int64_t)dims[d] == wanted[d];
    return same ? DPT_OK
                : dpt_error(DPT_ERR_INPUT,
                            "%s: cannot be opened on this machine as on the first: put it where "
                            "all ranks see it",
                            path);
}

dpt_status dpt_dataset_read_images(const dpt_dataset *dataset, int64_t first, int64_t n,
                                   float *out) {
    const struct dpt_dataset_images *images = dataset->images;
    hsize_t start[4] = {(hsize_t)first, 0, 0, 0};
    hsize_t count[4] = {(hsize_t)n, (hsize_t)dataset->channels, (hsize_t)dataset->height,
                        (hsize_t)dataset->width};
    bool ok = false;
    if (n == 0)
        return DPT_OK;
    H5E_BEGIN_TRY {
        hid_t memory = H5Screate_simple(4, count, NULL);
        ok = memory >= 0 &&
             H5Sselect_hyperslab(images->space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
             H5Dread(images->set, H5T_NATIVE_FLOAT, memory, images->space, H5P_DEFAULT, out) >= 0;
        if (memory >= 0)
            H5Sclose(memory);
    }
    H5E_END_TRY;
    return ok ? DPT_OK
              : dpt_error(DPT_ERR_INPUT,
                          "%s: 'images' of samples %" PRId64 " to %" PRId64
                          " cannot be read: the file is damaged or gone",
                          images->path, first, first + n - 1);
}

static dpt_status check_block(const char *path, int64_t first, int64_t pixels, int64_t n,
                              const float *values) {
    for (int64_t i = 0; i < n * pixels; i++)
        if (!isfinite(values[i]))
            return dpt_error(DPT_ERR_INPUT,
                             "%s: pixel %" PRId64 " of sample %" PRId64
                             " is not a finite number: mend the images",
                             path, i % pixels, first + i / pixels);
    return DPT_OK;
}

dpt_status dpt_dataset_scan_images(const dpt_comm *comm, const char *path,
                                   const dpt_dataset *dataset, uint64_t *hash) {
    int64_t pixels = pixels_of(dataset),
            block = BLOCK_PIXELS / pixels > 0 ? BLOCK_PIXELS / pixels : 1;
    int64_t blocks = (dataset->samples + block - 1) / block, begin, end;
    float *values = dpt_mem_alloc(block * pixels, sizeof *values, "images to check");
    int64_t *hashes = dpt_mem_zalloc(blocks, sizeof *hashes, "hashes of images");
    dpt_status st = values != NULL && hashes != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    dpt_shard_split(blocks, comm->size, comm->rank, &begin, &end);
    for (int64_t b = begin; b < end && st == DPT_OK; b++) {
        int64_t first = b * block;
        int64_t n = dataset->samples - first < block ? dataset->samples - first : block;
        st = dpt_dataset_read_images(dataset, first, n, values);
        if (st == DPT_OK)
            st = check_block(path, first, pixels, n, values);
        if (st == DPT_OK)
            hashes[b] = (int64_t)dpt_hash_bytes(values, (size_t)(n * pixels) * sizeof *values);
    }
    st = dpt_agree(comm, st);
    if (st == DPT_OK) /* each is set on one rank alone */
        st = dpt_agree(comm, dpt_comm_sum_i64(comm, hashes, blocks));
    if (st == DPT_OK)
        *hash = dpt_hash_bytes(hashes, (size_t)blocks * sizeof *hashes);
    dpt_mem_free(values);
    dpt_mem_free(hashes);
    return st;
}

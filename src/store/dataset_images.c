#include "dataset_file.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/store/isolate.h"

#include <hdf5.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>

enum {
    BLOCK_PIXELS = 1 << 20, /* about as many are checked and hashed at a time */
    BLOCKS_A_CHILD = 64     /* a child process has limited time */
};

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

/* Some blocks of a file for one child process. */
typedef struct scan {
    const char *path;
    const dpt_dataset_head *head;
    int64_t first, end; /* images */
} scan;

static int64_t block_images(const dpt_dataset_head *head) {
    int64_t block = BLOCK_PIXELS / (head->channels * head->height * head->width);
    return block > 0 ? block : 1;
}

static dpt_status scan_blocks(const scan *s, const dpt_dataset *dataset, float *values,
                              dpt_hash *hash) {
    int64_t block = block_images(s->head), pixels = pixels_of(dataset);
    dpt_status st = DPT_OK;
    for (int64_t first = s->first; first < s->end && st == DPT_OK; first += block) {
        int64_t n = s->end - first < block ? s->end - first : block;
        st = dpt_dataset_read_images(dataset, first, n, values);
        if (st == DPT_OK)
            st = check_block(s->path, first, pixels, n, values);
        if (st == DPT_OK)
            dpt_hash_update(hash, values, (size_t)(n * pixels) * sizeof *values);
    }
    return st;
}

/* A dpt_isolate_fn: the hash of the images as bytes. */
static dpt_status scan_child(void *ctx, char **bytes, int64_t *n) {
    const scan *s = ctx;
    dpt_dataset dataset = {.samples = s->head->samples,
                           .channels = s->head->channels,
                           .height = s->head->height,
                           .width = s->head->width};
    dpt_hash hash;
    float *values =
        dpt_mem_alloc(block_images(s->head) * pixels_of(&dataset), sizeof *values, "images");
    *bytes = dpt_mem_alloc(sizeof(uint64_t), 1, "hash of images");
    dpt_status st = values != NULL && *bytes != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    dpt_hash_begin(&hash);
    if (st == DPT_OK)
        st = dpt_dataset_open_images(s->path, &dataset);
    if (st == DPT_OK)
        st = scan_blocks(s, &dataset, values, &hash);
    dpt_dataset_close_images(&dataset);
    dpt_mem_free(values);
    *n = sizeof(uint64_t);
    if (st == DPT_OK) {
        *(uint64_t *)*bytes = dpt_hash_value(&hash);
        return DPT_OK;
    }
    dpt_mem_free(*bytes);
    *bytes = NULL;
    return st;
}

dpt_status dpt_dataset_scan_images(const char *path, const dpt_dataset_head *head, uint64_t *hash) {
    int64_t step = block_images(head) * BLOCKS_A_CHILD;
    dpt_hash all;
    dpt_status st = DPT_OK;
    dpt_hash_begin(&all);
    for (int64_t first = 0; first < head->samples && st == DPT_OK; first += step) {
        int64_t end = head->samples - first < step ? head->samples : first + step;
        scan part = {.path = path, .head = head, .first = first, .end = end};
        char *bytes = NULL;
        int64_t n = 0;
        st = dpt_isolate_run(path, scan_child, &part, &bytes, &n);
        if (st == DPT_OK)
            dpt_hash_update(&all, bytes, (size_t)n);
        dpt_mem_free(bytes);
    }
    *hash = dpt_hash_value(&all);
    return st;
}

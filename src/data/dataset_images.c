#include "dataset_file.h"

#include "deltapath/base/file.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/isolate.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_PIXELS = 1 << 22 }; /* about as many are checked, or read by a child, at a time */

/* Images that lie in one piece are read from there; only a child process lets HDF5 look at the rest. */
struct dpt_dataset_images {
    char *path;
    int fd;
    int64_t at; /* byte of the first image; -1: chunked, compressed, or of another type */
};

static int64_t pixels_of(const dpt_dataset *dataset) {
    return dataset->channels * dataset->height * dataset->width;
}

static int64_t block_images(const dpt_dataset *dataset) {
    int64_t block = BLOCK_PIXELS / pixels_of(dataset);
    return block > 0 ? block : 1;
}

void dpt_dataset_close_images(dpt_dataset *dataset) {
    struct dpt_dataset_images *images = dataset->images;
    if (images == NULL)
        return;
    if (images->fd >= 0)
        close(images->fd);
    dpt_mem_free(images->path);
    dpt_mem_free(images);
    dataset->images = NULL;
}

dpt_status dpt_dataset_open_images(const char *path, const dpt_dataset_head *head,
                                   dpt_dataset *dataset) {
    struct dpt_dataset_images *images = dpt_mem_zalloc(1, sizeof *images, "image file");
    if (images == NULL)
        return DPT_ERR_OUTPUT;
    *images = (struct dpt_dataset_images){.fd = -1, .at = head->images_at};
    dataset->images = images;
    images->path = dpt_mem_strdup(path, "image file");
    if (images->path == NULL)
        return DPT_ERR_OUTPUT;
    dpt_file_identity identity;
    images->fd = dpt_file_open_input(path);
    if (images->fd < 0)
        return DPT_ERR_INPUT;
    dpt_status st = dpt_file_identify_open(images->fd, path, &identity);
    if (st == DPT_OK && identity.size != head->file_bytes)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: is not the file that the first machine read: put it where all ranks "
                       "see it",
                       path);
    return st;
}

dpt_status dpt_dataset_share_images(const dpt_dataset *whole, dpt_dataset *part) {
    struct dpt_dataset_images *images = dpt_mem_zalloc(1, sizeof *images, "image file");
    if (images == NULL)
        return DPT_ERR_OUTPUT;
    *images = (struct dpt_dataset_images){.fd = fcntl(whole->images->fd, F_DUPFD_CLOEXEC, 0),
                                          .at = whole->images->at};
    part->images = images;
    images->path = dpt_mem_strdup(whole->images->path, "image file");
    if (images->fd < 0)
        return dpt_error(DPT_ERR_OUTPUT, "%s: cannot be opened again: %s", whole->images->path,
                         strerror(errno));
    return images->path != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

/* Images [first, first + *run) of the data set lie one after another in the file. @return where they begin, counted in
 * images; *run is at most n. */
static int64_t images_run(const dpt_dataset *dataset, int64_t first, int64_t n, int64_t *run) {
    const int64_t *rows = dataset->rows;
    *run = n;
    if (rows == NULL)
        return first;
    *run = 1;
    while (*run < n && rows[first + *run] == rows[first] + *run)
        ++*run;
    return rows[first];
}

typedef struct image_request {
    const dpt_dataset *dataset;
    int64_t first, n;
} image_request;

static bool set_fits(hid_t space, const dpt_dataset *dataset, int64_t end) {
    hsize_t dims[4] = {0};
    return H5Sget_simple_extent_ndims(space) == 4 &&
           H5Sget_simple_extent_dims(space, dims, NULL) == 4 && dims[0] >= (hsize_t)end &&
           dims[1] == (hsize_t)dataset->channels && dims[2] == (hsize_t)dataset->height &&
           dims[3] == (hsize_t)dataset->width;
}

/* n images from place `at` of the file on. */
static bool image_values(hid_t set, const dpt_dataset *dataset, int64_t at, int64_t n, float *out) {
    hsize_t start[4] = {(hsize_t)at, 0, 0, 0};
    hsize_t count[4] = {(hsize_t)n, (hsize_t)dataset->channels, (hsize_t)dataset->height,
                        (hsize_t)dataset->width};
    hid_t space = H5Dget_space(set);
    hid_t memory = H5Screate_simple(4, count, NULL);
    return space >= 0 && memory >= 0 && set_fits(space, dataset, at + n) &&
           H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
           H5Dread(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, out) >= 0;
}

static bool image_runs(hid_t set, const image_request *want, float *out) {
    bool ok = true;
    for (int64_t i = 0, run; i < want->n && ok; i += run) {
        int64_t at = images_run(want->dataset, want->first + i, want->n - i, &run);
        ok = image_values(set, want->dataset, at, run, out + i * pixels_of(want->dataset));
    }
    return ok;
}

static dpt_status images_unreadable(const char *path, int64_t first, int64_t n) {
    return dpt_error(DPT_ERR_INPUT,
                     "%s: 'images' of samples %" PRId64 " to %" PRId64
                     " cannot be read: the file is damaged or gone",
                     path, first, first + n - 1);
}

/* A dpt_isolate_fn; the child ends with its handles open. */
static dpt_status image_child(void *ctx, char **bytes, int64_t *n) {
    const image_request *want = ctx;
    const char *path = want->dataset->images->path;
    *n = want->n * pixels_of(want->dataset) * (int64_t)sizeof(float);
    *bytes = dpt_mem_alloc(*n, 1, "images");
    if (*bytes == NULL)
        return DPT_ERR_OUTPUT;
    bool ok = false;
    H5E_BEGIN_TRY {
        hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
        hid_t set = file >= 0 ? H5Dopen2(file, "images", H5P_DEFAULT) : -1;
        ok = set >= 0 && image_runs(set, want, (void *)*bytes);
    }
    H5E_END_TRY;
    return ok ? DPT_OK : images_unreadable(path, want->first, want->n);
}

static dpt_status read_apart(const dpt_dataset *dataset, int64_t first, int64_t n, float *out) {
    int64_t size = pixels_of(dataset) * (int64_t)sizeof(float), step = block_images(dataset);
    dpt_status st = DPT_OK;
    for (int64_t i = 0; i < n && st == DPT_OK; i += step) {
        image_request want = {dataset, first + i, n - i < step ? n - i : step};
        char *bytes = NULL;
        int64_t got = 0;
        st = dpt_isolate_run(dataset->images->path, image_child, &want, &bytes, &got);
        if (st == DPT_OK)
            memcpy((char *)out + i * size, bytes, (size_t)(want.n * size));
        dpt_mem_free(bytes);
    }
    return st;
}

dpt_status dpt_dataset_read_images(const dpt_dataset *dataset, int64_t first, int64_t n,
                                   float *out) {
    const struct dpt_dataset_images *images = dataset->images;
    int64_t size = pixels_of(dataset) * (int64_t)sizeof *out;
    if (n == 0)
        return DPT_OK;
    if (first < 0 || first + n > dataset->samples)
        return images_unreadable(images->path, first, n);
    if (images->at < 0)
        return read_apart(dataset, first, n, out);
    for (int64_t i = 0, run; i < n; i += run) {
        int64_t at = images_run(dataset, first + i, n - i, &run);
        if (dpt_file_read_at(images->fd, images->at + at * size, (char *)out + i * size,
                             run * size) != run * size)
            return images_unreadable(images->path, at, run);
    }
    return DPT_OK;
}

static dpt_status check_block(const char *path, int64_t first, int64_t pixels, int64_t n,
                              const float *values) {
    for (int64_t i = 0; i < n * pixels; i++)
        if (!isfinite(values[i]))
            return dpt_error(DPT_ERR_INPUT,
                             "%s: pixel %" PRId64 " of sample %" PRId64
                             " is not a finite number: correct the images",
                             path, i % pixels, first + i / pixels);
    return DPT_OK;
}

dpt_status dpt_dataset_scan_images(const char *path, const dpt_dataset_head *head, uint64_t *hash,
                                   uint64_t *each) {
    dpt_dataset dataset = {.samples = head->samples,
                           .channels = head->channels,
                           .height = head->height,
                           .width = head->width};
    int64_t block = block_images(&dataset), pixels = pixels_of(&dataset);
    if (block > head->samples)
        block = head->samples;
    dpt_hash all;
    float *values = dpt_mem_alloc(block * pixels, sizeof *values, "images");
    dpt_status st = values == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    dpt_hash_begin(&all);
    if (st == DPT_OK)
        st = dpt_dataset_open_images(path, head, &dataset);
    for (int64_t first = 0; first < head->samples && st == DPT_OK; first += block) {
        int64_t n = head->samples - first < block ? head->samples - first : block;
        st = dpt_dataset_read_images(&dataset, first, n, values);
        if (st == DPT_OK)
            st = check_block(path, first, pixels, n, values);
        if (st == DPT_OK)
            dpt_hash_update(&all, values, (size_t)(n * pixels) * sizeof *values);
        for (int64_t i = 0; i < n && st == DPT_OK; i++)
            each[first + i] = dpt_hash_bytes(values + i * pixels, (size_t)pixels * sizeof *values);
    }
    *hash = dpt_hash_value(&all);
    dpt_dataset_close_images(&dataset);
    dpt_mem_free(values);
    return st;
}

#include "deltapath/results/reference_cache.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/sealed.h"
#include "deltapath/comm/agree.h"
#include "deltapath/base/isolate.h"
#include "deltapath/comm/same.h"
#include "deltapath/store/owned.h"
#include "deltapath/hdf5/hdf5_image.h"
#include "deltapath/hdf5/hdf5_plain.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char CACHE_FORMAT[] = "deltapath-cache";

static const int64_t CACHE_LIMIT = INT64_C(1) << 36;

typedef struct request {
    const char *path;
    uint64_t key;
    int64_t n;
    const char *image; /* bytes of the file, checked */
    int64_t size;
} request;

static uint64_t checksum(int64_t n, const double *values) {
    return dpt_hash_bytes(values, (size_t)n * sizeof *values);
}

/* Why a file does not serve, or NULL. */
static const char *get_values(hid_t file, const request *wanted, double *values) {
    char *format = NULL;
    uint64_t key = 0, sum = 0;
    bool ours = dpt_h5_get_string(file, "format", &format) && strcmp(format, CACHE_FORMAT) == 0 &&
                dpt_h5_get_u64(file, "key", &key) && dpt_h5_get_u64(file, "checksum", &sum);
    dpt_mem_free(format);
    if (!ours)
        return "it is no file of this program";
    if (key != wanted->key)
        return "it belongs to other models or other data";
    if (!dpt_h5_get_array(file, "values", H5T_NATIVE_DOUBLE, 1, &wanted->n, values) ||
        checksum(wanted->n, values) != sum)
        return "it is corrupt";
    return NULL;
}

static dpt_status load(void *ctx, char **bytes, int64_t *n) {
    const request *wanted = ctx;
    *n = wanted->n * (int64_t)sizeof(double);
    *bytes = dpt_mem_alloc(*n, 1, "cached numbers");
    if (*bytes == NULL)
        return DPT_ERR_OUTPUT;
    const char *why = "it is no HDF5 file";
    H5E_BEGIN_TRY {
        hid_t file = dpt_h5_image_open(wanted->image, wanted->size);
        if (file >= 0) {
            why = get_values(file, wanted, (void *)*bytes);
            H5Fclose(file);
        }
    }
    H5E_END_TRY;
    if (why == NULL)
        return DPT_OK;
    dpt_mem_free(*bytes);
    *bytes = NULL;
    return dpt_error(DPT_ERR_INPUT, "%s: %s", wanted->path, why);
}

/* Rank 0: the numbers as bytes. */
static dpt_status cache_read(const char *path, uint64_t key, int64_t n, char **bytes,
                             int64_t *size) {
    request wanted = {.path = path, .key = key, .n = n};
    char *image = NULL;
    dpt_status st = dpt_sealed_read(path, CACHE_LIMIT, &image, &wanted.size);
    wanted.image = image;
    if (st == DPT_OK)
        st = dpt_isolate_run(path, load, &wanted, bytes, size);
    dpt_mem_free(image);
    return st;
}

dpt_status dpt_cache_load(const dpt_comm *comm, const char *path, uint64_t key, int64_t n,
                          double *values, bool *found) {
    DPT_ASSERT_SAME_TEXT(comm, path);
    DPT_ASSERT_SAME(comm, key);
    DPT_ASSERT_SAME(comm, n);
    dpt_status st = DPT_OK;
    int64_t there = 0;
    *found = false;
    if (comm->rank == 0 && access(path, F_OK) == 0) {
        char *bytes = NULL;
        int64_t size = 0;
        dpt_status got = cache_read(path, key, n, &bytes, &size);
        there = got == DPT_OK && size == n * (int64_t)sizeof *values;
        if (there) {
            memcpy(values, bytes, (size_t)size);
        } else if (got == DPT_ERR_INPUT) {
            dpt_log(DPT_LOG_WARN, "%s: its numbers are computed again", dpt_error_message());
            dpt_error_clear();
        } else {
            st = got;
        }
        dpt_mem_free(bytes);
    }
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, &there, sizeof there, 0));
    if (st == DPT_OK && there)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, values, n * (int64_t)sizeof *values, 0));
    *found = st == DPT_OK && there;
    return st;
}

static char *cache_image(uint64_t key, int64_t n, const double *values, int64_t *size) {
    char *bytes = NULL;
    H5E_BEGIN_TRY {
        hid_t file = dpt_h5_image_create();
        bool ok = file >= 0 && dpt_h5_put_string(file, "format", CACHE_FORMAT) &&
                  dpt_h5_put_u64(file, "key", key) &&
                  dpt_h5_put_u64(file, "checksum", checksum(n, values)) &&
                  dpt_h5_put_array(file, "values", H5T_NATIVE_DOUBLE, 1, &n, values);
        bytes = dpt_h5_image_take(file, ok, size);
    }
    H5E_END_TRY;
    return bytes;
}

static dpt_status make_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash != NULL ? dpt_mem_format("%.*s", (int)(slash - path), path) : NULL;
    dpt_status st = slash == NULL || folder != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (folder != NULL && mkdir(folder, 0777) != 0 && errno != EEXIST)
        st = dpt_error(DPT_ERR_OUTPUT,
                       "%s: cannot be created: %s: check the permissions of the folder above",
                       folder, strerror(errno));
    dpt_mem_free(folder);
    return st;
}

static dpt_status write_file(const char *path, uint64_t key, int64_t n, const double *values) {
    dpt_status st = dpt_owned_check(path, DPT_OWNED_CACHE, NULL);
    if (st == DPT_OK)
        st = make_folder(path);
    if (st != DPT_OK)
        return st;
    int64_t size = 0;
    char *bytes = cache_image(key, n, values, &size);
    st = dpt_sealed_write(path, bytes, size);
    dpt_mem_free(bytes);
    return st;
}

dpt_status dpt_cache_save(const dpt_comm *comm, const char *path, uint64_t key, int64_t n,
                          const double *values) {
    dpt_status st = dpt_agree_fault("cache.save");
    if (st == DPT_OK && comm->rank == 0)
        st = write_file(path, key, n, values);
    return dpt_agree(comm, st);
}

#include "dataset_file.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/nearest.h"
#include "deltapath/hdf5/hdf5_plain.h"
#include "deltapath/hdf5/hdf5_type.h"

#include <hdf5.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    VERSION = 1,
    COMPRESSION_MAX = 1024, /* values may take this many times the bytes of the file, not more */
    PIXELS_MAX = 1 << 28    /* of one image */
};

/* What is wrong with a file, and values read from it; released together. */
typedef struct loader {
    hid_t file;
    const char *path;
    int64_t file_bytes;
    dpt_dataset_head head;
    dpt_dataset_tail tail;
    struct side {
        int64_t tokens, masks, count;
        int32_t *token;
        uint8_t *mask;
        int64_t *offsets;
    } side[2];
    int32_t *labels;
    double *weights;
    int64_t *clusters;
} loader;

static void close_set(hid_t set, hid_t space, hid_t type) {
    if (type >= 0)
        H5Tclose(type);
    if (space >= 0)
        H5Sclose(space);
    if (set >= 0)
        H5Dclose(set);
}

static dpt_status elsewhere(const loader *l, const char *name) {
    return dpt_error(
        DPT_ERR_INPUT,
        "%s: '%s' is a link, or its values lie in another file: copy them into the file", l->path,
        name);
}

/* Whether a path of groups leads to something; H5Lexists wants every link on the way to exist. */
static dpt_status find(const loader *l, const char *name, bool *there) {
    char group[32];
    bool away = false;
    const char *slash = strchr(name, '/');
    *there = true;
    if (slash != NULL) {
        snprintf(group, sizeof group, "%.*s", (int)(slash - name), name);
        *there = dpt_hdf5_exists(l->file, group, &away);
    }
    if (*there && !away)
        *there = dpt_hdf5_exists(l->file, name, &away);
    return away ? elsewhere(l, name) : DPT_OK;
}

static dpt_status missing(const loader *l, const char *name) {
    return dpt_error(DPT_ERR_INPUT,
                     "%s: the data set '%s' is missing: make the file with tools/prepare_data.py, "
                     "and see that `loss` fits it",
                     l->path, name);
}

/* Whether values of a type may stand for `class`: NumPy's bool, as h5py writes it, is an enumeration
 * of integers, which HDF5 converts. */
static bool is_class(hid_t stored, H5T_class_t class) {
    if (H5Tget_class(stored) != H5T_ENUM)
        return H5Tget_class(stored) == class;
    return class == H5T_INTEGER && H5Tget_size(stored) == 1;
}

/* One vector of the file: its length, and its values converted to `type` in a counted block. */
static dpt_status read_vector(const loader *l, const char *name, H5T_class_t class, hid_t type,
                              size_t size, int64_t *length, void *values) {
    void **block = values;
    bool there;
    dpt_status st = find(l, name, &there);
    if (st != DPT_OK || !there)
        return st != DPT_OK ? st : missing(l, name);
    hid_t set = H5Dopen2(l->file, name, H5P_DEFAULT);
    if (set >= 0 && dpt_hdf5_stored_elsewhere(set)) {
        close_set(set, -1, -1);
        return elsewhere(l, name);
    }
    hid_t space = set >= 0 ? H5Dget_space(set) : -1;
    hid_t stored = set >= 0 ? H5Dget_type(set) : -1;
    hssize_t count = space >= 0 ? H5Sget_simple_extent_npoints(space) : -1;
    if (count < 0 || H5Sget_simple_extent_ndims(space) != 1)
        st =
            dpt_error(DPT_ERR_INPUT, "%s: '%s' must be a data set of one dimension", l->path, name);
    else if (!is_class(stored, class))
        st = dpt_error(DPT_ERR_INPUT, "%s: '%s' must hold %s", l->path, name,
                       class == H5T_FLOAT ? "floating-point numbers" : "integers");
    else if (count / COMPRESSION_MAX > l->file_bytes)
        st = dpt_error(DPT_ERR_INPUT, "%s: '%s' claims more values than the file can hold", l->path,
                       name);
    if (st == DPT_OK) {
        *length = count;
        *block = dpt_mem_alloc(count, size, "data set");
        if (*block == NULL)
            st = DPT_ERR_OUTPUT;
        else if (count > 0 && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *block) < 0)
            st = dpt_error(DPT_ERR_INPUT, "%s: '%s' cannot be read: the file is damaged", l->path,
                           name);
    }
    close_set(set, space, stored);
    return st;
}

/* A number as it stands in the file: of one that a type does not hold HDF5 makes the largest or least of the
 * type, which would be named in its place. */
static dpt_status read_wide(const loader *l, const char *name, int64_t at, int64_t *value) {
    int64_t *wide = NULL;
    int64_t count = 0;
    dpt_status st =
        read_vector(l, name, H5T_INTEGER, H5T_NATIVE_INT64, sizeof *wide, &count, &wide);
    if (st == DPT_OK)
        *value = wide[at];
    dpt_mem_free(wide);
    return st;
}

/* Numbers that int32 does not hold. */
static dpt_status check_clipped(const loader *l, const char *name, int64_t n,
                                const int32_t *values) {
    int64_t value = 0, at = 0;
    while (at < n && values[at] != INT32_MAX && values[at] != INT32_MIN)
        at++;
    if (at == n)
        return DPT_OK;
    dpt_status st = read_wide(l, name, at, &value);
    if (st == DPT_OK)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: '%s' %" PRId64 " is %" PRId64 ", which no model can take: correct it",
                       l->path, name, at, value);
    return st;
}

static dpt_status check_mask(const loader *l, const char *group, const struct side *side) {
    char name[64];
    int64_t value = 0, at = 0;
    while (at < side->tokens && side->mask[at] <= 1)
        at++;
    if (at == side->tokens)
        return DPT_OK;
    snprintf(name, sizeof name, "%sloss_mask", group);
    dpt_status st = read_wide(l, name, at, &value);
    if (st == DPT_OK)
        st = dpt_error(DPT_ERR_INPUT, "%s: '%s' of token %" PRId64 " is %" PRId64 ": 0 or 1",
                       l->path, name, at, value);
    return st;
}

/* What the file says of itself; the model's vocabulary is looked at where the model is known. */
static dpt_status check_vocabulary(const loader *l, const char *group, const struct side *side) {
    for (int64_t i = 0; l->tail.vocabulary > 0 && i < side->tokens; i++)
        if (side->token[i] >= l->tail.vocabulary)
            return dpt_error(DPT_ERR_INPUT,
                             "%s: '%stokens' %" PRId64 " is %" PRId32
                             ", and ids are below the attribute vocab_size, %" PRId64
                             ": correct one of them",
                             l->path, group, i, side->token[i], l->tail.vocabulary);
    return DPT_OK;
}

static dpt_status check_side(const loader *l, const char *group, const struct side *side) {
    int64_t n = side->count - 1;
    if (side->masks != side->tokens)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: '%sloss_mask' has %" PRId64 " entries and '%stokens' %" PRId64,
                         l->path, group, side->masks, group, side->tokens);
    if (n < 1)
        return dpt_error(DPT_ERR_INPUT, "%s: no samples: '%soffsets' needs at least two entries",
                         l->path, group);
    if (side->offsets[0] != 0 || side->offsets[n] != side->tokens)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: '%soffsets' runs from %" PRId64 " to %" PRId64
                         ", but there are %" PRId64 " tokens",
                         l->path, group, side->offsets[0], side->offsets[n], side->tokens);
    for (int64_t i = 0; i < n; i++)
        if (side->offsets[i + 1] <= side->offsets[i])
            return dpt_error(DPT_ERR_INPUT,
                             "%s: sample %" PRId64 " is empty: '%soffsets' must rise", l->path, i,
                             group);
    dpt_status st = check_mask(l, group, side);
    return st == DPT_OK ? check_vocabulary(l, group, side) : st;
}

/* `group` is "" or ends in a slash. */
static dpt_status dataset_read_side(const loader *l, const char *group, struct side *side) {
    char name[64];
    snprintf(name, sizeof name, "%stokens", group);
    dpt_status st = read_vector(l, name, H5T_INTEGER, H5T_NATIVE_INT32, sizeof *side->token,
                                &side->tokens, &side->token);
    if (st == DPT_OK)
        st = check_clipped(l, name, side->tokens, side->token);
    snprintf(name, sizeof name, "%sloss_mask", group);
    if (st == DPT_OK)
        st = read_vector(l, name, H5T_INTEGER, H5T_NATIVE_INT8, sizeof *side->mask, &side->masks,
                         &side->mask); /* signed: HDF5 would make 0 of -1 */
    snprintf(name, sizeof name, "%soffsets", group);
    if (st == DPT_OK)
        st = read_vector(l, name, H5T_INTEGER, H5T_NATIVE_INT64, sizeof *side->offsets,
                         &side->count, &side->offsets);
    return st == DPT_OK ? check_side(l, group, side) : st;
}

static dpt_status read_pairs(loader *l) {
    dpt_status st = dataset_read_side(l, "chosen/", &l->side[0]);
    if (st == DPT_OK)
        st = dataset_read_side(l, "rejected/", &l->side[1]);
    if (st == DPT_OK && l->side[0].count != l->side[1].count)
        st =
            dpt_error(DPT_ERR_INPUT, "%s: 'chosen' has %" PRId64 " samples and 'rejected' %" PRId64,
                      l->path, l->side[0].count - 1, l->side[1].count - 1);
    return st;
}

static dpt_status read_image_shape(loader *l) {
    hsize_t dims[4] = {0};
    bool there;
    dpt_status st = find(l, "images", &there);
    if (st != DPT_OK || !there)
        return st != DPT_OK ? st : missing(l, "images");
    hid_t set = H5Dopen2(l->file, "images", H5P_DEFAULT);
    if (set >= 0 && dpt_hdf5_stored_elsewhere(set)) {
        close_set(set, -1, -1);
        return elsewhere(l, "images");
    }
    hid_t space = set >= 0 ? H5Dget_space(set) : -1;
    hid_t stored = set >= 0 ? H5Dget_type(set) : -1;
    bool shaped = space >= 0 && H5Sget_simple_extent_ndims(space) == 4 &&
                  H5Sget_simple_extent_dims(space, dims, NULL) == 4;
    bool floats = stored >= 0 && H5Tget_class(stored) == H5T_FLOAT;
    close_set(set, space, stored);
    if (!shaped)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: 'images' must have four dimensions: samples, channels, height, width",
                         l->path);
    if (!floats)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: 'images' must hold float32, prepared as the model wants them",
                         l->path);
    int64_t pixels = 1;
    for (int d = 1; d < 4; d++)
        if (dims[d] < 1 || dims[d] > PIXELS_MAX ||
            !dpt_mem_mul(pixels, (int64_t)dims[d], &pixels) || pixels > PIXELS_MAX)
            return dpt_error(DPT_ERR_INPUT, "%s: 'images' are empty or above 2^28 pixels each",
                             l->path);
    if (dims[0] > INT64_MAX / PIXELS_MAX / 8 ||
        (int64_t)dims[0] * pixels / COMPRESSION_MAX > l->file_bytes)
        return dpt_error(DPT_ERR_INPUT, "%s: 'images' claims more values than the file can hold",
                         l->path);
    l->head.samples = (int64_t)dims[0];
    l->head.channels = (int64_t)dims[1];
    l->head.height = (int64_t)dims[2];
    l->head.width = (int64_t)dims[3];
    return DPT_OK;
}

/* Where the images lie as one run of float32, or -1. */
static int64_t locate_images(const loader *l) {
    const dpt_dataset_head *h = &l->head;
    int64_t bytes = h->samples * h->channels * h->height * h->width * (int64_t)sizeof(float);
    hid_t set = H5Dopen2(l->file, "images", H5P_DEFAULT);
    hid_t stored = set >= 0 ? H5Dget_type(set) : -1;
    hid_t made = set >= 0 ? H5Dget_create_plist(set) : -1;
    bool plain = made >= 0 && H5Pget_layout(made) == H5D_CONTIGUOUS &&
                 H5Tequal(stored, H5T_NATIVE_FLOAT) > 0;
    haddr_t at = plain ? H5Dget_offset(set) : HADDR_UNDEF;
    if (made >= 0)
        H5Pclose(made);
    close_set(set, -1, stored);
    bool inside = at != HADDR_UNDEF && bytes <= l->file_bytes && at <= INT64_MAX &&
                  (int64_t)at <= l->file_bytes - bytes;
    return inside ? (int64_t)at : -1;
}

static dpt_status read_images(loader *l) {
    int64_t labels = 0;
    dpt_status st = read_image_shape(l);
    if (st == DPT_OK)
        st = read_vector(l, "labels", H5T_INTEGER, H5T_NATIVE_INT32, sizeof *l->labels, &labels,
                         &l->labels);
    if (st == DPT_OK)
        st = check_clipped(l, "labels", labels, l->labels);
    if (st != DPT_OK)
        return st;
    if (labels != l->head.samples)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: 'labels' has %" PRId64 " entries and 'images' %" PRId64, l->path,
                         labels, l->head.samples);
    if (labels < 1)
        return dpt_error(DPT_ERR_INPUT, "%s: no samples: give at least one image", l->path);
    l->head.images_at = locate_images(l);
    l->head.file_bytes = l->file_bytes;
    for (int64_t i = 0; i < labels; i++)
        if (l->labels[i] < 0)
            return dpt_error(DPT_ERR_INPUT,
                             "%s: the label of sample %" PRId64 " is %d: classes count from 0",
                             l->path, i, (int)l->labels[i]);
    return DPT_OK;
}

static dpt_status read_weights(loader *l) {
    int64_t n = 0;
    double sum = 0.0;
    bool there;
    dpt_status st = find(l, "weights", &there);
    if (st != DPT_OK || !there)
        return st;
    st = read_vector(l, "weights", H5T_FLOAT, H5T_NATIVE_DOUBLE, sizeof *l->weights, &n,
                     &l->weights);
    if (st != DPT_OK)
        return st;
    if (n != l->head.samples)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: 'weights' has %" PRId64 " entries for %" PRId64 " samples", l->path,
                         n, l->head.samples);
    for (int64_t i = 0; i < n; i++) {
        if (!(l->weights[i] >= 0.0) || isinf(l->weights[i]))
            return dpt_error(DPT_ERR_INPUT,
                             "%s: the weight of sample %" PRId64
                             " is %g: weights are finite and at least 0",
                             l->path, i, l->weights[i]);
        sum += l->weights[i];
    }
    if (!(sum > 0.0) || isinf(sum))
        return dpt_error(DPT_ERR_INPUT, "%s: 'weights' add up to %g: %s", l->path, sum,
                         isinf(sum) ? "divide all of them by a number" : "give some above 0");
    l->head.weighted = 1;
    return DPT_OK;
}

static dpt_status read_clusters(loader *l) {
    int64_t n = 0;
    bool there;
    dpt_status st = find(l, "cluster", &there);
    if (st != DPT_OK || !there)
        return st;
    st = read_vector(l, "cluster", H5T_INTEGER, H5T_NATIVE_INT64, sizeof *l->clusters, &n,
                     &l->clusters);
    if (st != DPT_OK)
        return st;
    if (n != l->head.samples)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: 'cluster' has %" PRId64 " entries for %" PRId64 " samples", l->path,
                         n, l->head.samples);
    for (int64_t i = 0; i < n; i++)
        if (l->clusters[i] == INT64_MAX || l->clusters[i] == INT64_MIN)
            return dpt_error(DPT_ERR_INPUT,
                             "%s: the cluster of sample %" PRId64
                             " is beyond 64 bits: number clusters with smaller integers",
                             l->path, i);
    l->head.clustered = 1;
    return dpt_dataset_number_clusters(n, l->clusters);
}

/* A file of this program that is given in a data set's place. */
static dpt_status check_format(const loader *l) {
    char *format = NULL;
    dpt_hdf5_text_read(l->file, "format", &format);
    const char *what = format == NULL                                ? NULL
                       : strcmp(format, "deltapath-checkpoint") == 0 ? "a model"
                       : strcmp(format, "deltapath-results") == 0    ? "the results of a study"
                       : strcmp(format, "deltapath-unit") == 0       ? "the result of one edit"
                                                                     : NULL;
    dpt_mem_free(format);
    if (what == NULL)
        return DPT_OK;
    return dpt_error(DPT_ERR_INPUT, "%s: %s, not a data set: make one with tools/prepare_data.py",
                     l->path, what);
}

/* 16 hexadecimal digits, or nothing. */
static dpt_status read_digits(const loader *l, const char *name, int64_t *known, uint64_t *value) {
    char *text = NULL;
    char *end = NULL;
    bool good = dpt_hdf5_text_read(l->file, name, &text);
    if (good && text != NULL) {
        *known = 1;
        *value = strtoull(text, &end, 16);
        good = strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16;
    }
    dpt_mem_free(text);
    return good ? DPT_OK
                : dpt_error(DPT_ERR_INPUT,
                            "%s: the attribute %s is no text of 16 hexadecimal digits: make the "
                            "file again with tools/prepare_data.py",
                            l->path, name);
}

static dpt_status dataset_check_kind(const loader *l) {
#define DATASET_KIND_NAME(constant, name) #name,
    static const char *const names[] = {DPT_DATASET_LIST(DATASET_KIND_NAME)};
    const char *wanted = names[l->head.kind];
    char *text = NULL;
    dpt_status st = DPT_OK;
    if (!dpt_hdf5_text_read(l->file, "kind", &text))
        st = dpt_error(DPT_ERR_INPUT, "%s: the attribute kind is no text: remove it", l->path);
    else if (text != NULL && strcmp(text, wanted) != 0)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: says that its kind is '%.32s', and the job takes it as '%s': correct "
                       "`loss`, or the attribute kind",
                       l->path, text, wanted);
    dpt_mem_free(text);
    return st;
}

/* An integer of at least 1; `value` is 0 without the attribute. */
static dpt_status read_number(const loader *l, const char *name, int64_t *value) {
    *value = 0;
    if (H5Aexists(l->file, name) <= 0)
        return DPT_OK;
    return dpt_h5_get_i64(l->file, name, value) && *value > 0
               ? DPT_OK
               : dpt_error(DPT_ERR_INPUT, "%s: the attribute %s is no integer above 0: remove it",
                           l->path, name);
}

static dpt_status read_attributes(loader *l) {
    int64_t version = 0;
    dpt_status st = check_format(l);
    if (st == DPT_OK)
        st = read_number(l, "version", &version);
    if (st == DPT_OK && version > VERSION)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: data set of version %" PRId64 ", this program knows version %d: use a "
                       "newer one, or make the file again with tools/prepare_data.py",
                       l->path, version, VERSION);
    if (st == DPT_OK)
        st = dataset_check_kind(l);
    if (st == DPT_OK)
        st = read_number(l, "vocab_size", &l->tail.vocabulary);
    if (st == DPT_OK)
        st = read_digits(l, "tokenizer_hash", &l->tail.tokenizer_known, &l->tail.tokenizer);
    if (st == DPT_OK)
        st = read_digits(l, "tokenizer_rules", &l->tail.rules_known, &l->tail.rules);
    return st;
}

static const char DATASET_NAMES[] =
    "tokens loss_mask offsets weights cluster chosen rejected images labels";

/* A name that is nearly one of ours is a slip that would go unseen: `weight` would be no weights.
 * @return 1 for such a name, which ends the loop over names as no failure of HDF5. */
static herr_t dataset_check_name(hid_t file, const char *name, const H5L_info_t *info, void *ctx) {
    const loader *l = ctx;
    char hint[DPT_NEAREST_HINT];
    (void)file;
    (void)info;
    const char *ours = strstr(DATASET_NAMES, name);
    size_t n = strlen(name);
    if (ours != NULL && (ours == DATASET_NAMES || ours[-1] == ' ') &&
        (ours[n] == ' ' || ours[n] == '\0'))
        return 0;
    if (*dpt_nearest_of_list(name, DATASET_NAMES, " ", hint) == '\0')
        return 0;
    (void)dpt_error(DPT_ERR_INPUT,
                    "%s: '%.64s' is no name that deltapath reads%s: rename it, or remove it",
                    l->path, name, hint);
    return 1;
}

static dpt_status dataset_check_names(loader *l) {
    hsize_t at = 0;
    herr_t ended = H5Literate(l->file, H5_INDEX_NAME, H5_ITER_NATIVE, &at, dataset_check_name, l);
    if (ended > 0)
        return DPT_ERR_INPUT;
    return ended == 0 ? DPT_OK
                      : dpt_error(DPT_ERR_INPUT,
                                  "%s: its names cannot be listed: the file is damaged, make it or "
                                  "copy it again",
                                  l->path);
}

static dpt_status read_kind(loader *l) {
    dpt_status st = read_attributes(l);
    if (st == DPT_OK)
        st = dataset_check_names(l);
    if (st != DPT_OK)
        return st;
    if (l->head.kind == DPT_DATASET_IMAGES) {
        st = read_images(l);
    } else if (l->head.kind == DPT_DATASET_PAIRS) {
        st = read_pairs(l);
        l->head.samples = l->side[0].count - 1;
        l->head.sequences = 2 * l->head.samples;
    } else {
        st = dataset_read_side(l, "", &l->side[0]);
        l->head.samples = l->head.sequences = l->side[0].count - 1;
    }
    l->head.tokens = l->side[0].tokens + l->side[1].tokens;
    if (st == DPT_OK)
        st = read_weights(l);
    return st == DPT_OK ? read_clusters(l) : st;
}

/* The sequences in order: the sides of a pair in turn. */
static void pack_sequences(const loader *l, dpt_dataset *to) {
    int sides = l->head.kind == DPT_DATASET_PAIRS ? 2 : 1;
    to->offsets[0] = 0;
    for (int64_t s = 0; s < l->head.sequences; s++) {
        const struct side *from = &l->side[s % sides];
        int64_t at = from->offsets[s / sides], n = from->offsets[s / sides + 1] - at;
        memcpy(to->tokens + to->offsets[s], from->token + at, (size_t)n * sizeof *to->tokens);
        memcpy(to->loss_mask + to->offsets[s], from->mask + at, (size_t)n);
        to->offsets[s + 1] = to->offsets[s] + n;
    }
}

static dpt_status dataset_pack(const loader *l, char **bytes, int64_t *n) {
    dpt_dataset to;
    int64_t hashes = l->head.kind == DPT_DATASET_IMAGES ? l->head.samples * 8 : 0;
    *n = dpt_dataset_bytes(&l->head) + hashes + (int64_t)sizeof l->tail;
    *bytes = dpt_mem_zalloc(*n, 1, "data set");
    if (*bytes == NULL)
        return DPT_ERR_OUTPUT;
    memcpy(*bytes, &l->head, sizeof l->head);
    memcpy(*bytes + *n - sizeof l->tail, &l->tail, sizeof l->tail);
    dpt_dataset_unpack(*bytes, &to);
    if (to.offsets != NULL)
        pack_sequences(l, &to);
    if (to.labels != NULL)
        memcpy(to.labels, l->labels, (size_t)l->head.samples * sizeof *to.labels);
    if (to.weights != NULL)
        memcpy(to.weights, l->weights, (size_t)l->head.samples * sizeof *to.weights);
    if (to.clusters != NULL)
        memcpy(to.clusters, l->clusters, (size_t)l->head.samples * sizeof *to.clusters);
    return DPT_OK;
}

static void release(loader *l) {
    for (int i = 0; i < 2; i++) {
        dpt_mem_free(l->side[i].token);
        dpt_mem_free(l->side[i].mask);
        dpt_mem_free(l->side[i].offsets);
    }
    dpt_mem_free(l->labels);
    dpt_mem_free(l->weights);
    dpt_mem_free(l->clusters);
    if (l->file >= 0)
        H5Fclose(l->file);
}

dpt_status dpt_dataset_load(void *request, char **bytes, int64_t *n) {
    const dpt_dataset_request *wanted = request;
    struct stat info;
    *bytes = NULL;
    *n = 0;
    if (stat(wanted->path, &info) != 0 || !S_ISREG(info.st_mode))
        return dpt_error(DPT_ERR_INPUT, "%s: cannot be read: give the path of a data-set file",
                         wanted->path);
    loader l = {.path = wanted->path, .file_bytes = info.st_size, .head = {.kind = wanted->kind}};
    H5E_auto2_t report;
    void *client;
    H5Eget_auto2(H5E_DEFAULT, &report, &client);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    l.file = H5Fopen(wanted->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    dpt_status st =
        l.file < 0
            ? dpt_error(DPT_ERR_INPUT,
                        "%s: not an HDF5 file, or cut off: make it with tools/prepare_data.py",
                        wanted->path)
            : read_kind(&l);
    if (st == DPT_OK)
        st = dataset_pack(&l, bytes, n);
    release(&l);
    H5Eset_auto2(H5E_DEFAULT, report, client);
    return st;
}

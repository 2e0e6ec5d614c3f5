#ifndef DELTAPATH_SRC_DATA_DATASET_FILE_H
#define DELTAPATH_SRC_DATA_DATASET_FILE_H

#include "deltapath/data/dataset.h"

/** Start of the bytes in which a data set travels from the child process and from rank to rank. The
 * arrays follow, each from a multiple of 8 bytes on: offsets, tokens, labels, weights, clusters, loss_mask. */
typedef struct dpt_dataset_head {
    int64_t kind;
    int64_t samples;
    int64_t sequences;
    int64_t tokens;
    int64_t channels, height, width; /**< 0 without images */
    int64_t weighted;                /**< 1: there are weights */
    int64_t clustered;               /**< 1: there are clusters */
    uint64_t images;                 /**< hash of the images */
    int64_t images_at;  /**< byte of the file at which they begin, in one piece of float32; -1 when
                            HDF5 has to put them together. Not part of the data set's hash */
    int64_t file_bytes; /**< of an image file; not part of the hash */
} dpt_dataset_head;

/** End of these bytes: what is known of the values, and is none of them. The hashes of the images come
 * before it. */
typedef struct dpt_dataset_tail {
    int64_t tokenizer_known;
    uint64_t tokenizer;
    int64_t rules_known;
    uint64_t rules;
    int64_t vocabulary; /**< attribute vocab_size; 0: none */
} dpt_dataset_tail;

/** Read a file, but for its images, into such bytes and check it. A dpt_isolate_fn. */
typedef struct dpt_dataset_request {
    const char *path;
    dpt_dataset_kind kind;
} dpt_dataset_request;
dpt_status dpt_dataset_load(void *request, char **bytes, int64_t *n);

/** Bytes of a data set with this head, without the hashes of images and the tail. Local. */
int64_t dpt_dataset_bytes(const dpt_dataset_head *head);

/** Point the arrays of out into bytes, which out keeps as its block. Local. */
void dpt_dataset_unpack(char *bytes, dpt_dataset *out);

/* dataset_repeats.c */

/** What makes two samples the same: XXH3 of their values. Local. */
uint64_t dpt_dataset_hash_sample(const dpt_dataset *dataset, int64_t sample);

/** Turn any integers into numbers from 0 on in the order of their first samples, so that the first n samples of a
 * file have numbers without gaps too. Local. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_dataset_number_clusters(int64_t n, int64_t *clusters);

/* dataset_images.c */

/** Open the images of a data set whose head is known. Local. Errors: DPT_ERR_INPUT when the file is not
 * there or of another length. */
dpt_status dpt_dataset_open_images(const char *path, const dpt_dataset_head *head,
                                   dpt_dataset *dataset);
void dpt_dataset_close_images(dpt_dataset *dataset);

/** Give a part of a data set a handle of its own. Local. Errors: DPT_ERR_OUTPUT. */
dpt_status dpt_dataset_share_images(const dpt_dataset *whole, dpt_dataset *part);

/** Check all images for values that are not finite, and hash them. Local.
 * @param[out] each (samples) hash of each image. */
dpt_status dpt_dataset_scan_images(const char *path, const dpt_dataset_head *head, uint64_t *hash,
                                   uint64_t *each);

#endif

#include "deltapath/data/dataset.h"

#include "deltapath/base/guard.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/nearest.h"
#include "deltapath/base/sealed.h"
#include "deltapath/comm/agree.h"
#include "dataset_file.h"
#include "deltapath/base/file.h"
#include "deltapath/base/path.h"
#include "deltapath/comm/same.h"
#include "deltapath/store/store.h"
#include "deltapath/base/isolate.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

static int64_t padded(int64_t bytes) {
    return (bytes + 7) / 8 * 8;
}

static int64_t offset_bytes(const dpt_dataset_head *head) {
    return head->kind == DPT_DATASET_IMAGES ? 0 : (head->sequences + 1) * 8;
}

static int64_t label_bytes(const dpt_dataset_head *head) {
    return head->kind == DPT_DATASET_IMAGES ? padded(head->samples * 4) : 0;
}

int64_t dpt_dataset_bytes(const dpt_dataset_head *head) {
    return (int64_t)sizeof *head + offset_bytes(head) + padded(head->tokens * 4) +
           label_bytes(head) + (head->weighted ? head->samples * 8 : 0) +
           (head->clustered ? head->samples * 8 : 0) + padded(head->tokens);
}

void dpt_dataset_unpack(char *bytes, dpt_dataset *out) {
    const dpt_dataset_head *head = (const dpt_dataset_head *)bytes;
    bool images = head->kind == DPT_DATASET_IMAGES;
    char *at = bytes + sizeof *head;
    *out = (dpt_dataset){.kind = (dpt_dataset_kind)head->kind,
                         .samples = head->samples,
                         .sequences = head->sequences,
                         .channels = head->channels,
                         .height = head->height,
                         .width = head->width,
                         .block = bytes};
    out->offsets = images ? NULL : (int64_t *)at;
    at += offset_bytes(head);
    out->tokens = images ? NULL : (int32_t *)at;
    at += padded(head->tokens * 4);
    out->labels = images ? (int32_t *)at : NULL;
    at += label_bytes(head);
    out->weights = head->weighted ? (void *)at : NULL;
    at += head->weighted ? head->samples * 8 : 0;
    out->clusters = head->clustered ? (void *)at : NULL;
    at += head->clustered ? head->samples * 8 : 0;
    out->loss_mask = images ? NULL : (uint8_t *)at;
}

static dpt_status read_file(const char *path, dpt_dataset_kind kind, dpt_file_identity *file,
                            char **bytes, int64_t *n) {
    dpt_dataset_request request = {.path = path, .kind = kind};
    char hint[DPT_NEAREST_PATH];
    if (access(path, R_OK) != 0)
        return dpt_error(DPT_ERR_INPUT, "%s: cannot be read%s: give the path of a data-set file",
                         path, dpt_nearest_path(path, hint));
    if (dpt_path_is_directory(path))
        return dpt_error(DPT_ERR_INPUT,
                         "%s: a folder, and a data set is one file: make it with "
                         "tools/prepare_data.py",
                         path);
    if (dpt_store_is_lfs_pointer(path))
        return dpt_error(DPT_ERR_INPUT,
                         "%s: a Git LFS pointer, not the file itself: run `git lfs pull` in its "
                         "folder",
                         path);
    dpt_status st = dpt_guard_input(path);
    if (st == DPT_OK)
        st = dpt_file_identify(path, file);
    if (st == DPT_OK)
        st = dpt_seal_check_tools(path);
    if (st == DPT_OK)
        st = dpt_isolate_run(path, dpt_dataset_load, &request, bytes, n);
    dpt_dataset_head *head = (dpt_dataset_head *)*bytes;
    if (st == DPT_OK && kind == DPT_DATASET_IMAGES)
        st = dpt_dataset_scan_images(path, head, &head->images,
                                     (void *)(*bytes + dpt_dataset_bytes(head)));
    return st;
}

/* What rank 0 read, on every rank. */
static dpt_status share(const dpt_comm *comm, dpt_status st, char **bytes, int64_t *size) {
    int64_t n = *size;
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, &n, sizeof n, 0));
    if (st == DPT_OK && comm->rank != 0) {
        *bytes = dpt_mem_alloc(n, 1, "data set");
        st = *bytes != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    }
    st = dpt_agree(comm, st);
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, *bytes, n, 0));
    *size = n;
    return st;
}

dpt_status dpt_dataset_read(const dpt_comm *comm, const char *path, dpt_dataset_kind kind,
                            dpt_dataset *out) {
    DPT_ASSERT_SAME_TEXT(comm, path);
    DPT_ASSERT_SAME(comm, kind);
    *out = (dpt_dataset){.samples = 0};
    char *bytes = NULL;
    int64_t n = 0;
    dpt_status st = dpt_agree_fault("data.read");
    dpt_file_identity before = {.inode = 0}, after = {.inode = 0};
    if (st == DPT_OK && comm->rank == 0)
        st = read_file(path, kind, &before, &bytes, &n);
    if (st == DPT_OK && comm->rank == 0) {
        st = dpt_file_identify(path, &after);
        if (st == DPT_OK && !dpt_file_same(&before, &after))
            st = dpt_file_changed(path);
    }
    st = share(comm, st, &bytes, &n);
    if (st != DPT_OK) {
        dpt_mem_free(bytes);
        return st;
    }
    dpt_dataset_head *head = (dpt_dataset_head *)bytes;
    const dpt_dataset_head place = *head;
    head->images_at = head->file_bytes = 0; /* where the values lie changes nothing */
    dpt_dataset_unpack(bytes, out);
    dpt_dataset_tail tail;
    int64_t values = dpt_dataset_bytes(head);
    out->hash = dpt_hash_bytes(bytes, (size_t)values);
    memcpy(&tail, bytes + n - sizeof tail, sizeof tail);
    out->image_hashes = kind == DPT_DATASET_IMAGES ? (void *)(bytes + values) : NULL;
    out->whole = out->hash;
    out->effective = NAN;
    out->vocabulary = tail.vocabulary;
    out->tokenizer = (dpt_tokenizer){.known = tail.tokenizer_known != 0,
                                     .hash = tail.tokenizer,
                                     .rules_known = tail.rules_known != 0,
                                     .rules = tail.rules};
    if (kind == DPT_DATASET_IMAGES)
        st = dpt_agree(comm, dpt_dataset_open_images(path, &place, out));
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, &before, sizeof before, 0));
    out->file = before;
    if (st == DPT_OK) /* each rank opened the images for itself */
        st = dpt_dataset_check_unchanged(comm, out, path);
    if (st != DPT_OK)
        dpt_dataset_destroy(out);
    return st;
}

dpt_status dpt_dataset_check_unchanged(const dpt_comm *comm, const dpt_dataset *dataset,
                                       const char *path) {
    dpt_file_identity now = dataset->file;
    if (dataset->images != NULL && dpt_file_identify(path, &now) != DPT_OK)
        dpt_error_clear();
    bool same = dpt_file_same_content(&now, &dataset->file);
    return dpt_agree(comm, same ? DPT_OK : dpt_file_changed(path));
}

dpt_status dpt_dataset_keep_first(dpt_dataset *dataset, int64_t n, const char *path) {
    if (n < 1 || n > dataset->samples)
        return dpt_error(DPT_ERR_INPUT,
                         "%s: has %" PRId64 " samples, not %" PRId64
                         ": lower samples, or leave it out",
                         path, dataset->samples, n);
    double sum = dataset->weights == NULL ? 1.0 : 0.0;
    for (int64_t i = 0; i < n && dataset->weights != NULL; i++)
        sum += dataset->weights[i];
    if (!(sum > 0.0))
        return dpt_error(DPT_ERR_INPUT,
                         "%s: the first %" PRId64 " samples have no weight: raise samples", path,
                         n);
    if (n == dataset->samples)
        return DPT_OK;
    const uint64_t parts[2] = {dataset->hash, (uint64_t)n};
    dataset->hash = dataset->whole = dpt_hash_bytes(parts, sizeof parts);
    dataset->sequences = dataset->sequences / dataset->samples * n;
    dataset->samples = n;
    return DPT_OK;
}

void dpt_dataset_destroy(dpt_dataset *dataset) {
    dpt_dataset_close_images(dataset);
    dpt_mem_free(dataset->block);
    *dataset = (dpt_dataset){.samples = 0};
}

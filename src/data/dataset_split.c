#include "dataset_file.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/rng.h"

#include <stdlib.h>
#include <string.h>

/* A data set in two parts. Samples that are one to an interval stay in one part: else the choice would have seen what
 * judges it. */

typedef struct split_sample {
    uint64_t key; /* samples of one key are not parted */
    int64_t sample;
    uint32_t word; /* of the first sample of its group, by which groups are put in order */
    int64_t first; /* that sample */
} split_sample;

static uint64_t split_cluster(const dpt_dataset *dataset, int64_t sample) {
    return (uint64_t)dataset->clusters[sample];
}

static int split_by_key(const void *a, const void *b) {
    const split_sample *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->sample > y->sample) - (x->sample < y->sample);
}

/* The first sample of a group, in a forest of earlier samples. */
static int64_t split_first(int64_t *earlier, int64_t i) {
    while (earlier[i] != i)
        i = earlier[i] = earlier[earlier[i]];
    return i;
}

/* Unite the groups of samples that have the same key. @param[in] all (samples) scratch.
 * @param[in,out] earlier (samples) as split_first. */
static void split_unite(const dpt_dataset *dataset,
                        uint64_t (*key)(const dpt_dataset *dataset, int64_t sample),
                        split_sample *all, int64_t *earlier) {
    for (int64_t i = 0; i < dataset->samples; i++)
        all[i] = (split_sample){.key = key(dataset, i), .sample = i};
    qsort(all, (size_t)dataset->samples, sizeof *all, split_by_key);
    for (int64_t i = 1; i < dataset->samples; i++) {
        if (all[i].key != all[i - 1].key)
            continue;
        int64_t x = split_first(earlier, all[i - 1].sample),
                y = split_first(earlier, all[i].sample);
        earlier[x > y ? x : y] = x < y ? x : y;
    }
}

static int split_by_word(const void *a, const void *b) {
    const split_sample *x = a, *y = b;
    if (x->word != y->word)
        return x->word < y->word ? -1 : 1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return (x->sample > y->sample) - (x->sample < y->sample);
}

/* Mark the samples that choose: samples of a cluster, and samples that are equal, stay together.
 * @return how many. @param[in] all, earlier (samples) scratch. */
static int64_t split_mark(const dpt_dataset *dataset, double share, uint64_t seed,
                          split_sample *all, int64_t *earlier, bool *chooses) {
    int64_t n = dataset->samples, wanted = (int64_t)(share * (double)n + 0.5), taken = 0;
    dpt_rng rng = dpt_rng_make(seed, "choose", DPT_RNG_CHOOSE);
    for (int64_t i = 0; i < n; i++)
        earlier[i] = i;
    split_unite(dataset, dpt_dataset_hash_sample, all, earlier);
    if (dataset->clusters != NULL)
        split_unite(dataset, split_cluster, all, earlier);
    for (int64_t i = 0; i < n; i++) {
        all[i] = (split_sample){.sample = i, .first = split_first(earlier, i)};
        dpt_rng_words(rng, all[i].first, 1, &all[i].word);
    }
    qsort(all, (size_t)n, sizeof *all, split_by_word);
    wanted = wanted > 1 ? wanted : 1;
    for (int64_t i = 0; i < n && taken < wanted;) {
        int64_t end = i + 1;
        while (end < n && all[end].first == all[i].first)
            end++;
        if (end == n) /* the last group stays to judge */
            break;
        for (; i < end; i++, taken++)
            chooses[all[i].sample] = true;
    }
    return taken;
}

static int64_t split_sides(const dpt_dataset *dataset) {
    return dataset->sequences / dataset->samples;
}

/* Room for n samples with so many tokens, in one block from the widest values to the narrowest. */
static dpt_status split_allocate(const dpt_dataset *whole, int64_t n, int64_t tokens,
                                 dpt_dataset *out) {
    int64_t sides = whole->offsets != NULL ? split_sides(whole) : 0;
    bool images = whole->labels != NULL, weighted = whole->weights != NULL;
    bool clustered = whole->clusters != NULL;
    int64_t wide = n * (1 + (weighted ? 1 : 0) + (clustered ? 1 : 0) + (images ? 1 : 0)) +
                   (sides > 0 ? n * sides + 1 : 0);
    char *at =
        dpt_mem_zalloc(wide * 8 + tokens * 5 + (images ? n * 4 : 0), 1, "part of a data set");
    *out = *whole;
    out->block = at;
    out->images = NULL;
    out->samples = n;
    out->sequences = whole->sequences / whole->samples * n;
    if (at == NULL)
        return DPT_ERR_OUTPUT;
    out->rows = (void *)at;
    at += n * 8;
    out->weights = weighted ? (void *)at : NULL;
    at += weighted ? n * 8 : 0;
    out->clusters = clustered ? (void *)at : NULL;
    at += clustered ? n * 8 : 0;
    out->image_hashes = images ? (void *)at : NULL;
    at += images ? n * 8 : 0;
    out->offsets = sides > 0 ? (void *)at : NULL;
    at += sides > 0 ? (n * sides + 1) * 8 : 0;
    out->tokens = sides > 0 ? (void *)at : NULL;
    at += tokens * 4;
    out->labels = images ? (void *)at : NULL;
    at += images ? n * 4 : 0;
    out->loss_mask = sides > 0 ? (uint8_t *)at : NULL;
    return DPT_OK;
}

/* Sample `from` of the whole as sample `to` of a part. */
static void split_copy(const dpt_dataset *whole, int64_t from, dpt_dataset *part, int64_t to) {
    int64_t sides = split_sides(whole);
    part->rows[to] = whole->rows != NULL ? whole->rows[from] : from;
    if (whole->weights != NULL)
        part->weights[to] = whole->weights[from];
    if (whole->clusters != NULL)
        part->clusters[to] = whole->clusters[from];
    if (whole->labels != NULL) {
        part->labels[to] = whole->labels[from];
        part->image_hashes[to] = whole->image_hashes[from];
    }
    for (int64_t k = 0; whole->offsets != NULL && k < sides; k++) {
        int64_t at = whole->offsets[sides * from + k], place = part->offsets[sides * to + k];
        int64_t n = whole->offsets[sides * from + k + 1] - at;
        memcpy(part->tokens + place, whole->tokens + at, (size_t)n * sizeof *part->tokens);
        memcpy(part->loss_mask + place, whole->loss_mask + at, (size_t)n);
        part->offsets[sides * to + k + 1] = place + n;
    }
}

/* The samples whose mark is `side`, n of them. On an error `out` holds nothing. */
static dpt_status split_take(const dpt_dataset *whole, const bool *chooses, bool side, int64_t n,
                             const char *path, dpt_dataset *out) {
    int64_t sides = split_sides(whole), tokens = 0, to = 0;
    double weight = whole->weights == NULL ? 1.0 : 0.0;
    for (int64_t i = 0; i < whole->samples; i++) {
        if (chooses[i] == side && whole->offsets != NULL)
            tokens += whole->offsets[sides * (i + 1)] - whole->offsets[sides * i];
        if (chooses[i] == side && whole->weights != NULL)
            weight += whole->weights[i];
    }
    *out = (dpt_dataset){.samples = 0};
    if (!(weight > 0.0))
        return dpt_error(
            DPT_ERR_INPUT,
            "%s: the samples that %s have no weight: set another choose or choose_seed", path,
            side ? "choose" : "judge");
    dpt_status st = split_allocate(whole, n, tokens, out);
    for (int64_t i = 0; i < whole->samples && st == DPT_OK; i++)
        if (chooses[i] == side)
            split_copy(whole, i, out, to++);
    if (st == DPT_OK && out->clusters != NULL)
        st = dpt_dataset_number_clusters(n, out->clusters);
    if (st == DPT_OK && whole->images != NULL)
        st = dpt_dataset_share_images(whole, out);
    if (st != DPT_OK) {
        dpt_dataset_destroy(out);
        return st;
    }
    const uint64_t parts[] = {whole->hash,
                              dpt_hash_bytes(out->rows, (size_t)n * sizeof *out->rows)};
    out->hash = dpt_hash_bytes(parts, sizeof parts);
    return DPT_OK;
}

dpt_status dpt_dataset_split(dpt_dataset *dataset, double share, uint64_t seed, const char *path,
                             dpt_dataset *chosen) {
    int64_t n = dataset->samples, taken = 0;
    split_sample *all = dpt_mem_alloc(n, sizeof *all, "samples to split");
    int64_t *earlier = dpt_mem_alloc(n, sizeof *earlier, "samples to split");
    bool *chooses = dpt_mem_zalloc(n, sizeof *chooses, "samples to split");
    dpt_status st = all != NULL && earlier != NULL && chooses != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    dpt_dataset judging;
    *chosen = (dpt_dataset){.samples = 0};
    if (st == DPT_OK)
        taken = split_mark(dataset, share, seed, all, earlier, chooses);
    if (st == DPT_OK && taken == 0)
        st = dpt_error(DPT_ERR_INPUT,
                       "%s: choose: its samples are all equal, and cannot be told apart into those "
                       "that choose and those that judge: add others, or leave choose out",
                       path);
    if (st == DPT_OK)
        st = split_take(dataset, chooses, true, taken, path, chosen);
    if (st == DPT_OK) {
        st = split_take(dataset, chooses, false, n - taken, path, &judging);
        if (st != DPT_OK)
            dpt_dataset_destroy(chosen);
    }
    if (st == DPT_OK) {
        dpt_dataset_destroy(dataset);
        *dataset = judging;
    }
    dpt_mem_free(chooses);
    dpt_mem_free(earlier);
    dpt_mem_free(all);
    return st;
}

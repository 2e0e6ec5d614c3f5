#include "dataset_file.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"

#include <stdlib.h>

typedef struct counted_sample {
    uint64_t hash;
    double weight;
} counted_sample;

uint64_t dpt_dataset_hash_sample(const dpt_dataset *data, int64_t sample) {
    if (data->images != NULL) {
        const uint64_t parts[2] = {data->image_hashes[sample], (uint64_t)data->labels[sample]};
        return dpt_hash_bytes(parts, sizeof parts);
    }
    uint64_t parts[4] = {0}; /* tokens and mask of one sequence, or of chosen and rejected */
    int64_t sides = data->sequences / data->samples;
    for (int64_t k = 0; k < sides; k++) {
        int64_t at = data->offsets[sides * sample + k];
        size_t n = (size_t)(data->offsets[sides * sample + k + 1] - at);
        parts[2 * k] = dpt_hash_bytes(data->tokens + at, n * sizeof *data->tokens);
        parts[2 * k + 1] = dpt_hash_bytes(data->loss_mask + at, n);
    }
    return dpt_hash_bytes(parts, sizeof parts);
}

static int by_hash(const void *a, const void *b) {
    uint64_t x = ((const counted_sample *)a)->hash, y = ((const counted_sample *)b)->hash;
    return x < y ? -1 : x > y;
}

dpt_status dpt_dataset_count_repeats(dpt_dataset *dataset) {
    counted_sample *all = dpt_mem_alloc(dataset->samples, sizeof *all, "samples to compare");
    if (all == NULL)
        return DPT_ERR_OUTPUT;
    int64_t n = 0, distinct = 0;
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < dataset->samples; i++) {
        double weight = dataset->weights != NULL ? dataset->weights[i] : 1.0;
        sum += weight;
        if (weight > 0.0)
            all[n++] = (counted_sample){dpt_dataset_hash_sample(dataset, i), weight};
    }
    qsort(all, (size_t)n, sizeof *all, by_hash);
    for (int64_t i = 0; i < n; distinct++) {
        uint64_t hash = all[i].hash;
        double share = 0.0; /* of the sum: squares of weights themselves can be too large */
        for (; i < n && all[i].hash == hash; i++)
            share += all[i].weight / sum;
        squares += share * share;
    }
    dataset->repeats = n - distinct;
    dataset->effective = 1.0 / squares;
    dpt_mem_free(all);
    return DPT_OK;
}

dpt_status dpt_dataset_share_apart(const dpt_dataset *dataset, const dpt_dataset *other,
                                   double *share) {
    counted_sample *seen = dpt_mem_alloc(other->samples, sizeof *seen, "samples to compare");
    if (seen == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < other->samples; i++)
        seen[i] = (counted_sample){.hash = dpt_dataset_hash_sample(other, i)};
    qsort(seen, (size_t)other->samples, sizeof *seen, by_hash);
    double sum = 0.0, apart = 0.0;
    for (int64_t i = 0; i < dataset->samples; i++) {
        counted_sample one = {.hash = dpt_dataset_hash_sample(dataset, i),
                              .weight = dataset->weights != NULL ? dataset->weights[i] : 1.0};
        sum += one.weight;
        if (bsearch(&one, seen, (size_t)other->samples, sizeof one, by_hash) == NULL)
            apart += one.weight;
    }
    *share = apart / sum;
    dpt_mem_free(seen);
    return DPT_OK;
}

typedef struct cluster_member {
    int64_t id, sample;
} cluster_member;

static int cluster_by_id(const void *a, const void *b) {
    const cluster_member *x = a, *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return x->sample < y->sample ? -1 : x->sample > y->sample;
}

dpt_status dpt_dataset_number_clusters(int64_t n, int64_t *clusters) {
    cluster_member *all = dpt_mem_alloc(n, sizeof *all, "clusters");
    if (all == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < n; i++)
        all[i] = (cluster_member){clusters[i], i};
    qsort(all, (size_t)n, sizeof *all, cluster_by_id);
    for (int64_t i = 0, first = 0; i < n; i++) {
        first = i > 0 && all[i].id == all[i - 1].id ? first : all[i].sample;
        clusters[all[i].sample] = first;
    }
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        clusters[i] = clusters[i] == i ? count++ : clusters[clusters[i]];
    dpt_mem_free(all);
    return DPT_OK;
}

#include "proof_edits.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Text of a parameter of an edit; NULL: it has none of that name. */
static const char *proof_parameter(const dpt_result *unit, const char *name) {
    for (int64_t i = 0; i < unit->nparameters; i++)
        if (strcmp(unit->parameters[i].name, name) == 0)
            return unit->parameters[i].value;
    return NULL;
}

/* Where the part of an id that says its seed begins, and how long it is; the id's end and 0 without one. Names of entries
 * may hold such a part too: that of the sweep stands behind. */
static size_t proof_seed_part(const dpt_result *unit, size_t *length) {
    const char *seed = proof_parameter(unit, "seed");
    size_t at = strlen(unit->edit);
    char mark[48];
    snprintf(mark, sizeof mark, "-seed%s", seed != NULL ? seed : "");
    *length = 0;
    for (const char *found = seed != NULL ? strstr(unit->edit, mark) : NULL; found != NULL;
         found = strstr(found + 1, mark)) {
        char after = found[strlen(mark)];
        if (after != '\0' && after != '-')
            continue;
        at = (size_t)(found - unit->edit);
        *length = strlen(mark);
    }
    return at;
}

/* Of one entry, and alike but for the seed. */
static bool proof_same_but_seed(const dpt_result *a, const dpt_result *b) {
    size_t na, nb, at = proof_seed_part(a, &na);
    const char *ma = a->method != NULL ? a->method : "", *mb = b->method != NULL ? b->method : "";
    return at == proof_seed_part(b, &nb) && na > 0 && nb > 0 && strcmp(ma, mb) == 0 &&
           strncmp(a->edit, b->edit, at) == 0 && strcmp(a->edit + at + na, b->edit + at + nb) == 0;
}

/* What changes every sample alike is the same edit under two names, as the best group of tensors that is all of them. */
static bool proof_same_losses(const dpt_result *a, const dpt_result *b) {
    return a->samples > 0 && a->samples == b->samples &&
           memcmp(a->loss_edit, b->loss_edit, (size_t)a->samples * sizeof *a->loss_edit) == 0;
}

int64_t dpt_proof_clusters(int64_t n, const dpt_result *const *units, int64_t *cluster) {
    int64_t clusters = 0;
    for (int64_t i = 0; i < n; i++) { /* a cluster is named by its first unit */
        cluster[i] = i;
        for (int64_t j = 0; j < i; j++) {
            if (cluster[i] == cluster[j] || (!proof_same_but_seed(units[i], units[j]) &&
                                             !proof_same_losses(units[i], units[j])))
                continue;
            int64_t one = cluster[i] < cluster[j] ? cluster[i] : cluster[j];
            int64_t other = cluster[i] < cluster[j] ? cluster[j] : cluster[i];
            for (int64_t k = 0; k <= i; k++)
                cluster[k] = cluster[k] == other ? one : cluster[k];
        }
    }
    for (int64_t i = 0; i < n; i++)
        cluster[i] = cluster[i] == i ? clusters++ : cluster[cluster[i]];
    return clusters;
}

int64_t dpt_proof_seeds(int64_t n, const dpt_result *const *units, const int64_t *cluster,
                        int64_t *seed) {
    int64_t seeds = 0;
    bool shared = false;
    for (int64_t i = 0; i < n; i++) {
        const char *own = proof_parameter(units[i], "seed");
        seed[i] = own != NULL ? seeds : -1;
        for (int64_t j = 0; j < i && own != NULL; j++) {
            const char *other = proof_parameter(units[j], "seed");
            if (other == NULL || strcmp(own, other) != 0)
                continue;
            seed[i] = seed[j];
            shared = shared || cluster[i] != cluster[j];
        }
        seeds += seed[i] == seeds;
    }
    return shared ? seeds : 0;
}

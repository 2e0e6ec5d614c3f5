#include "deltapath/results/proof.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/student.h"
#include "deltapath/store/owned.h"
#include "proof_edits.h"
#include "result_fields.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double PROOF_TAIL = 3.0; /* clusters over those in effect, of many normal ones */
static const double PROOF_MOST = 1.0 - 1e-12; /* correlation whose z is known */
static const double PROOF_ROUNDING = 1e-9;    /* of accuracies, which are sums of shares */
enum { FEW = 8 };                             /* groups of one edit below which none are left out */

typedef struct proof_pair {
    double predicted, change;
    int64_t cluster; /* of units that are no two edits */
    int64_t seed;    /* of what several edits draw alike; -1: none */
} proof_pair;

typedef struct proof_numbers {
    double correlation, rank_correlation, slope;
} proof_numbers;

static int proof_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Whether they do: squares about a mean that is rounded do not say. */
static bool proof_differ(int64_t n, const double *x) {
    for (int64_t i = 1; i < n; i++)
        if (x[i] != x[0])
            return true;
    return false;
}

static void proof_moments(int64_t n, const double *x, const double *y, double *r, double *slope) {
    double mx = 0.0, my = 0.0, xx = 0.0, yy = 0.0, xy = 0.0;
    for (int64_t i = 0; i < n; i++) {
        mx += x[i] / (double)n;
        my += y[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
        xy += (x[i] - mx) * (y[i] - my);
    }
    bool spread = proof_differ(n, x), both = spread && proof_differ(n, y);
    *r = both ? xy / sqrt(xx * yy) : NAN;
    *slope = spread ? xy / xx : NAN;
}

/* Middle ranks: values are found in the sorted copy. */
static void proof_ranks(int64_t n, const double *x, double *sorted, double *ranks) {
    memcpy(sorted, x, (size_t)n * sizeof *x);
    qsort(sorted, (size_t)n, sizeof *sorted, proof_compare);
    for (int64_t i = 0; i < n; i++) {
        int64_t low = 0, high = n, first;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (sorted[middle] < x[i])
                low = middle + 1;
            else
                high = middle;
        }
        first = low;
        while (low < n && sorted[low] == x[i])
            low++;
        ranks[i] = 0.5 * (double)(first + low - 1);
    }
}

/* @param[in] work (5 n) scratch. */
static proof_numbers proof_of(int64_t n, const proof_pair *pairs, double *work) {
    double *x = work, *y = work + n, *sorted = work + 2 * n, *rx = work + 3 * n, *ry = work + 4 * n;
    proof_numbers out;
    double ignored;
    for (int64_t i = 0; i < n; i++) {
        x[i] = pairs[i].predicted;
        y[i] = pairs[i].change;
    }
    proof_moments(n, x, y, &out.correlation, &out.slope);
    proof_ranks(n, x, sorted, rx);
    proof_ranks(n, y, sorted, ry);
    proof_moments(n, rx, ry, &out.rank_correlation, &ignored);
    return out;
}

/* @param[out] kept (count) units of the pairs. */
static int64_t proof_collect(int64_t count, const dpt_result *const *units, dpt_proof_kind kind,
                             proof_pair *pairs, const dpt_result **kept) {
    int64_t n = 0;
    for (int64_t i = 0; i < count; i++) {
        const dpt_result_scalars *s = &units[i]->scalars;
        double predicted = kind == DPT_PROOF_AS_DRAWN ? s->predicted_first + s->predicted_second
                                                      : s->predicted_change;
        if (!isfinite(predicted) || !isfinite(s->change) ||
            (kind != DPT_PROOF_ALL && s->predicted_in_range != 1.0))
            continue;
        kept[n] = units[i];
        pairs[n++] = (proof_pair){predicted, s->change, 0, -1};
    }
    return n;
}

static int proof_by_cluster(const void *a, const void *b) {
    const proof_pair *x = a, *y = b;
    if (x->cluster != y->cluster)
        return x->cluster < y->cluster ? -1 : 1;
    if (x->predicted != y->predicted)
        return x->predicted < y->predicted ? -1 : 1;
    return x->change != y->change ? (x->change < y->change ? -1 : 1)
                                  : (x->seed > y->seed) - (x->seed < y->seed);
}

static double proof_quantile(double *x, int64_t n, double q) {
    qsort(x, (size_t)n, sizeof *x, proof_compare);
    double at = q * (double)(n - 1);
    int64_t low = (int64_t)at;
    double beyond = at - (double)low;
    return beyond > 0.0 ? x[low] + beyond * (x[low + 1] - x[low]) : x[low];
}

/* Median over the pairs that have a ratio: nothing over nothing is none. NaN without any, or where it is not finite. */
static double proof_ratio(int64_t n, const proof_pair *pairs, double *work) {
    int64_t known = 0;
    for (int64_t i = 0; i < n; i++)
        if (pairs[i].predicted != 0.0)
            work[known++] = pairs[i].change / pairs[i].predicted;
        else if (pairs[i].change != 0.0)
            work[known++] = copysign(INFINITY, pairs[i].change);
    double ratio = known > 0 ? proof_quantile(work, known, 0.5) : NAN;
    return isfinite(ratio) ? ratio : NAN;
}

static const dpt_proof proof_none = {.correlation = {NAN, NAN, NAN},
                                     .rank_correlation = {NAN, NAN, NAN},
                                     .slope = {NAN, NAN, NAN},
                                     .ratio = NAN};

/* How many clusters carry the spread of the predictions, or of the changes: 1 / sum h^2 over their shares h of the squares
 * about the mean. @param[in] pairs sorted by cluster. @param[out] all clusters. */
static double proof_effective(int64_t n, const proof_pair *pairs, bool of_changes, int64_t *all) {
    double mean = 0.0, total = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n; i++)
        mean += (of_changes ? pairs[i].change : pairs[i].predicted) / (double)n;
    *all = 0;
    for (int64_t i = 0; i < n;) {
        double own = 0.0;
        for (int64_t cluster = pairs[i].cluster; i < n && pairs[i].cluster == cluster; i++) {
            double off = (of_changes ? pairs[i].change : pairs[i].predicted) - mean;
            own += off * off;
        }
        total += own;
        squares += own * own;
        ++*all;
    }
    return squares > 0.0 ? total * total / squares : NAN;
}

/* Whether there are few clusters, or some of them carry more of the spread than normal ones would: on average they do
 * where fewer than a third are left in effect. */
static bool proof_is_few(int64_t n, const proof_pair *pairs) {
    int64_t all;
    double least = proof_effective(n, pairs, false, &all);
    least = fmin(least, proof_effective(n, pairs, true, &all));
    return all < FEW || (double)all > PROOF_TAIL * least;
}

/* Reach of an interval by the jackknife. @param[in] off sum of the squares by which leaving one of n out moves the number.
 * @param[in] effective of the n that carry the spread: where few do, the error is known as badly as that of so few. */
static double proof_reach(double off, int64_t n, double effective) {
    double error = sqrt(off * (double)(n - 1) / (double)n);
    return dpt_student_quantile(0.975, fmax(effective - 1.0, 1.0)) * error;
}

static double proof_z(double r) {
    return atanh(fmax(-PROOF_MOST, fmin(PROOF_MOST, r)));
}

/* Ranks that all agree might be half a swap of neighbours away from it. */
static double proof_z_of_ranks(int64_t n, double r) {
    double most = 1.0 - 6.0 / ((double)n * (double)(n * n - 1));
    return atanh(copysign(fmin(fabs(r), most), r));
}

/* Squares by which leaving one cluster, or one seed, out moves z of the correlation, the slope, and z of ranks. What all
 * seeds move alike is no spread of theirs: edits that draw nothing stay, and weigh more among the others.
 * @param[in] rest (n) room. */
static void proof_leave_out(int64_t n, const proof_pair *pairs, int64_t groups, bool seeds,
                            proof_pair *rest, double *work, const dpt_proof *out, double off[3]) {
    double sum[3] = {0.0, 0.0, 0.0};
    for (int64_t g = 0; g < groups; g++) {
        int64_t left = 0;
        for (int64_t i = 0; i < n; i++)
            if ((seeds ? pairs[i].seed : pairs[i].cluster) != g)
                rest[left++] = pairs[i];
        proof_numbers one = proof_of(left, rest, work);
        const double moved[] = {
            isnan(one.correlation) ? NAN
                                   : proof_z(one.correlation) - proof_z(out->correlation.value),
            one.slope - out->slope.value,
            isnan(one.rank_correlation) ? NAN
                                        : proof_z_of_ranks(left, one.rank_correlation) -
                                              proof_z_of_ranks(n, out->rank_correlation.value)};
        for (int k = 0; k < 3; k++) {
            off[k] += moved[k] * moved[k];
            sum[k] += moved[k];
        }
    }
    for (int k = 0; k < 3 && seeds && groups > 0; k++)
        off[k] = fmax(off[k] - sum[k] * sum[k] / (double)groups, isnan(off[k]) ? NAN : 0.0);
}

/* Intervals of the correlations, by their z, and of the slope: the jackknife over clusters, whose standard error holds where
 * the spread about the line is not the same everywhere, and over seeds that edits share, squares of both together (Howe).
 * That of ranks is taken where it is wider than the one that is there. @param[in] rest (n) room. */
static void proof_jackknife(int64_t n, const proof_pair *pairs, int64_t clusters, proof_pair *rest,
                            double *work, dpt_proof *out) {
    int64_t all, seeds = out->seeds > 1 ? out->seeds : 0;
    double of_terms = proof_effective(n, pairs, false, &all);
    double of_changes = proof_effective(n, pairs, true, &all);
    const double z = proof_z(out->correlation.value);
    const double ranks = proof_z_of_ranks(n, out->rank_correlation.value);
    double off[3] = {0.0, 0.0, 0.0}, drawn[3] = {0.0, 0.0, 0.0};
    proof_leave_out(n, pairs, clusters, false, rest, work, out, off);
    proof_leave_out(n, pairs, seeds, true, rest, work, out, drawn);
    for (int k = 0; k < 3; k++)
        drawn[k] = seeds > 0 ? proof_reach(drawn[k], seeds, (double)seeds) : 0.0;
    double reach = hypot(proof_reach(off[0], clusters, fmin(of_terms, of_changes)), drawn[0]);
    double turn = hypot(proof_reach(off[1], clusters, of_terms), drawn[1]);
    out->correlation.low = isnan(reach) ? NAN : fmin(out->correlation.value, tanh(z - reach));
    out->correlation.high = isnan(reach) ? NAN : fmax(out->correlation.value, tanh(z + reach));
    out->slope.low = out->slope.value - turn;
    out->slope.high = out->slope.value + turn;
    reach = clusters >= FEW ? proof_reach(off[2], clusters, (double)clusters) : 0.0;
    reach = hypot(reach, drawn[2]);
    out->rank_correlation.low = fmin(out->rank_correlation.low, tanh(ranks - reach));
    out->rank_correlation.high = fmax(out->rank_correlation.high, tanh(ranks + reach));
}

/* Standard error of a slope where the spread about the line is not the same everywhere (HC3). */
static double proof_slope_error(int64_t n, const proof_pair *pairs, double slope) {
    double mx = 0.0, my = 0.0, xx = 0.0, sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        mx += pairs[i].predicted / (double)n;
        my += pairs[i].change / (double)n;
    }
    for (int64_t i = 0; i < n; i++)
        xx += (pairs[i].predicted - mx) * (pairs[i].predicted - mx);
    for (int64_t i = 0; i < n; i++) {
        double x = pairs[i].predicted - mx, left = 1.0 - 1.0 / (double)n - x * x / xx;
        double off = pairs[i].change - my - slope * x;
        /* A point that alone fixes the line lies on it. */
        sum += left > 1e-12 ? x * x * (off / left) * (off / left) : 0.0;
    }
    return sqrt(sum) / xx;
}

/* Fisher's interval; @param[in] z of r, of this variance. */
static dpt_proof_number proof_fisher(double r, double z, double variance) {
    double reach = 1.96 * sqrt(variance);
    return (dpt_proof_number){r, fmin(r, tanh(z - reach)), fmax(r, tanh(z + reach))};
}

/* Of ranks, with Bonett and Wright's variance. @param[in] clusters that are independent. */
static dpt_proof_number proof_of_ranks(int64_t n, int64_t clusters, double ranks) {
    double z = proof_z_of_ranks(n, ranks), known = tanh(z);
    return proof_fisher(ranks, z, (1.0 + 0.5 * known * known) / (double)(clusters - 3));
}

/* Of few groups of one edit: Fisher's interval, and Student's of the slope. */
static void proof_few(int64_t n, const proof_pair *pairs, dpt_proof *out) {
    double r = out->correlation.value;
    double reach = dpt_student_quantile(0.975, (double)(n - 2)) *
                   proof_slope_error(n, pairs, out->slope.value);
    out->correlation = proof_fisher(r, atanh(r), 1.0 / (double)(n - 3));
    out->slope.low = out->slope.value - reach;
    out->slope.high = out->slope.value + reach;
}

/* Numbers of n pairs, and intervals where there are enough clusters. @param[in,out] pairs are sorted.
 * @param[in,out] out with its seeds. */
static dpt_status proof_numbers_of(int64_t n, proof_pair *pairs, int64_t clusters, bool one_edit,
                                   dpt_proof *out) {
    proof_pair *rest = dpt_mem_alloc(n, sizeof *rest, "predictions without an edit");
    double *work = dpt_mem_alloc(5 * n, sizeof *work, "predictions and changes");
    bool whole = rest != NULL && work != NULL;
    if (whole) {
        qsort(pairs, (size_t)n, sizeof *pairs, proof_by_cluster);
        proof_numbers all = proof_of(n, pairs, work);
        out->correlation.value = all.correlation;
        out->rank_correlation.value = all.rank_correlation;
        out->slope.value = all.slope;
        out->ratio = proof_ratio(n, pairs, work);
        out->few = proof_is_few(n, pairs) || out->seeds == 1;
    }
    if (whole && clusters >= DPT_PROOF_LEAST && isfinite(out->correlation.value)) {
        out->rank_correlation = proof_of_ranks(n, clusters, out->rank_correlation.value);
        if (one_edit && n < FEW)
            proof_few(n, pairs, out);
        else
            proof_jackknife(n, pairs, clusters, rest, work, out);
    }
    dpt_mem_free(work);
    dpt_mem_free(rest);
    return whole ? DPT_OK : DPT_ERR_OUTPUT;
}

/* Room for clusters of units, and for those of them that are kept. */
typedef struct proof_room {
    proof_pair *pairs;       /* (pairs) */
    const dpt_result **kept; /* (count) */
    int64_t *cluster, *seed; /* (count) */
} proof_room;

static dpt_status proof_room_create(int64_t pairs, int64_t count, proof_room *out) {
    out->pairs = dpt_mem_alloc(pairs, sizeof *out->pairs, "predictions");
    out->kept = dpt_mem_alloc(count, sizeof *out->kept, "units with predictions");
    out->cluster = dpt_mem_alloc(count, sizeof *out->cluster, "units of one edit");
    out->seed = dpt_mem_alloc(count, sizeof *out->seed, "units of one seed");
    bool whole =
        out->pairs != NULL && out->kept != NULL && out->cluster != NULL && out->seed != NULL;
    return whole ? DPT_OK : DPT_ERR_OUTPUT;
}

static void proof_room_destroy(proof_room *room) {
    dpt_mem_free(room->seed);
    dpt_mem_free(room->cluster);
    dpt_mem_free(room->kept);
    dpt_mem_free(room->pairs);
}

dpt_status dpt_proof_measure(int64_t count, const dpt_result *const *units, dpt_proof_kind kind,
                             dpt_proof *out) {
    *out = proof_none;
    proof_room room;
    dpt_status st = proof_room_create(count, count, &room);
    if (st == DPT_OK) {
        out->edits = proof_collect(count, units, kind, room.pairs, room.kept);
        out->independent = dpt_proof_clusters(out->edits, room.kept, room.cluster);
        out->seeds = dpt_proof_seeds(out->edits, room.kept, room.cluster, room.seed);
    }
    for (int64_t i = 0; i < out->edits; i++) {
        room.pairs[i].cluster = room.cluster[i];
        room.pairs[i].seed = room.seed[i];
    }
    if (st == DPT_OK && out->independent >= DPT_PROOF_LEAST)
        st = proof_numbers_of(out->edits, room.pairs, out->independent, false, out);
    proof_room_destroy(&room);
    return st;
}

static double proof_of_group(const dpt_result *unit, int64_t group, dpt_proof_of_groups of) {
    double change = unit->proof_change[group], alone = unit->proof_alone[group];
    return of == DPT_PROOF_LEFT_OUT ? change : of == DPT_PROOF_ALONE ? alone : (change + alone) / 2;
}

/* The pairs of one unit. @param[in] cluster what they get. @return how many. */
static int64_t proof_collect_groups(const dpt_result *unit, dpt_proof_of_groups of, int64_t cluster,
                                    proof_pair *pairs) {
    int64_t n = 0;
    for (int64_t g = 0; g < unit->nproof; g++) {
        double change = proof_of_group(unit, g, of);
        if (isfinite(unit->proof_term[g]) && isfinite(change))
            pairs[n++] = (proof_pair){unit->proof_term[g], change, cluster, -1};
    }
    return n;
}

dpt_status dpt_proof_measure_groups(int64_t count, const dpt_result *const *units,
                                    dpt_proof_of_groups of, dpt_proof *out) {
    *out = proof_none;
    int64_t all = 0;
    proof_room room;
    for (int64_t i = 0; i < count; i++)
        all += units[i]->nproof;
    dpt_status st = proof_room_create(all, count, &room);
    for (int64_t i = 0; i < count && st == DPT_OK; i++) {
        int64_t more = proof_collect_groups(units[i], of, out->edits, room.pairs + out->groups);
        out->groups += more;
        if (more > 0)
            room.kept[out->edits++] = units[i];
    }
    bool one = out->edits == 1; /* then intervals are over its groups */
    out->independent = out->groups;
    if (st == DPT_OK && !one) {
        out->independent = dpt_proof_clusters(out->edits, room.kept, room.cluster);
        out->seeds = dpt_proof_seeds(out->edits, room.kept, room.cluster, room.seed);
    }
    for (int64_t g = 0; g < out->groups; g++) {
        proof_pair *pair = &room.pairs[g];
        pair->seed = one ? -1 : room.seed[pair->cluster];
        pair->cluster = one ? g : room.cluster[pair->cluster];
    }
    if (st == DPT_OK && out->groups >= DPT_PROOF_LEAST)
        st = proof_numbers_of(out->groups, room.pairs, out->independent, one, out);
    proof_room_destroy(&room);
    return st;
}

dpt_proof_accuracy dpt_proof_measure_accuracy(int64_t count, const dpt_result *const *units,
                                              bool in_range) {
    dpt_proof_accuracy out = {.edits = 0};
    for (int64_t i = 0; i < count; i++) {
        const dpt_result_scalars *s = &units[i]->scalars;
        double off = s->accuracy_edit - s->predicted_accuracy;
        if (!isfinite(off) || (in_range && s->predicted_accuracy_in_range != 1.0))
            continue;
        out.edits++;
        out.error += fabs(off);
        out.bias += off;
        out.inside += fabs(off) <= 1.96 * s->predicted_accuracy_sd + PROOF_ROUNDING;
    }
    out.error /= (double)out.edits;
    out.bias /= (double)out.edits;
    out.inside /= (double)out.edits;
    return out;
}

static json_t *proof_number(dpt_proof_number x) {
    json_t *out = json_array();
    const double values[] = {x.value, x.low, x.high};
    for (int i = 0; i < 3; i++)
        json_array_append_new(out, isfinite(values[i]) ? json_real(values[i]) : json_null());
    return out;
}

static json_t *proof_object(const dpt_proof *proof) {
    json_t *out = json_object();
    json_object_set_new(out, "edits", json_integer(proof->edits));
    if (proof->groups > 0)
        json_object_set_new(out, "groups", json_integer(proof->groups));
    json_object_set_new(out, "correlation", proof_number(proof->correlation));
    json_object_set_new(out, "rank_correlation", proof_number(proof->rank_correlation));
    json_object_set_new(out, "slope", proof_number(proof->slope));
    json_object_set_new(out, "few",
                        isnan(proof->correlation.low) ? json_null() : json_boolean(proof->few));
    json_object_set_new(out, "ratio",
                        isfinite(proof->ratio) ? json_real(proof->ratio) : json_null());
    return out;
}

/* Of the accuracies that were predicted, if any were. */
static void proof_add_accuracy(int64_t count, const dpt_result *const *units, json_t *to) {
    static const char *const names[] = {"accuracy", "accuracy_in_range"};
    for (int k = 0; k < 2; k++) {
        dpt_proof_accuracy proof = dpt_proof_measure_accuracy(count, units, k == 1);
        if (proof.edits == 0)
            continue;
        json_t *one = json_object();
        json_object_set_new(one, "edits", json_integer(proof.edits));
        json_object_set_new(one, "error", json_real(proof.error));
        json_object_set_new(one, "bias", json_real(proof.bias));
        json_object_set_new(one, "inside", json_real(proof.inside));
        json_object_set_new(to, names[k], one);
    }
}

/* Units of the data set of unit `i` from there on. @param[out] units (count). */
static int64_t proof_units(const dpt_result *results, int64_t count, int64_t i,
                           const dpt_result **units) {
    int64_t n = 0;
    for (int64_t j = i; j < count; j++)
        if (results[j].edit != NULL && results[j].data != NULL &&
            strcmp(results[j].data, results[i].data) == 0)
            units[n++] = &results[j];
    return n;
}

/* What is compared of the units of a data set. */
typedef dpt_status proof_fill(int64_t count, const dpt_result *const *units, json_t *to);

static dpt_status proof_fill_predictions(int64_t count, const dpt_result *const *units,
                                         json_t *to) {
    static const char *const names[] = {"all", "in_range", "as_drawn"};
    dpt_status st = DPT_OK;
    for (int k = 0; k < 3 && st == DPT_OK; k++) {
        dpt_proof proof;
        st = dpt_proof_measure(count, units, (dpt_proof_kind)k, &proof);
        json_object_set_new(to, names[k], proof_object(&proof));
    }
    proof_add_accuracy(count, units, to);
    return st;
}

static dpt_status proof_fill_groups(int64_t count, const dpt_result *const *units, json_t *to) {
    static const char *const names[] = {"left_out", "alone", "middle"};
    dpt_status st = DPT_OK;
    for (int k = 0; k < 3 && st == DPT_OK; k++) {
        dpt_proof proof;
        st = dpt_proof_measure_groups(count, units, (dpt_proof_of_groups)k, &proof);
        json_object_set_new(to, names[k], proof_object(&proof));
    }
    return st;
}

/* A member of root, where it would have an entry: one for each data set. @param[in] begins whether unit i is its first. */
static dpt_status proof_add(const dpt_result *results, int64_t count,
                            bool (*begins)(const dpt_result *results, int64_t i), proof_fill *fill,
                            const char *member, json_t *root) {
    const dpt_result **units = dpt_mem_alloc(count, sizeof *units, "units of a data set");
    json_t *list = json_array();
    dpt_status st = units != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < count && st == DPT_OK; i++) {
        if (!begins(results, i))
            continue;
        json_t *one = json_object();
        json_object_set_new(one, "data", json_string(results[i].data));
        st = fill(proof_units(results, count, i, units), units, one);
        json_array_append_new(list, one);
    }
    if (json_array_size(list) > 0)
        json_object_set(root, member, list);
    json_decref(list);
    dpt_mem_free(units);
    return st;
}

dpt_status dpt_result_proof_json(const dpt_result *results, int64_t count, void *root) {
    return proof_add(results, count, dpt_result_is_law, proof_fill_predictions, "proof", root);
}

/* Whether unit i is the first of its data set that leaves groups out. */
static bool proof_is_first(const dpt_result *results, int64_t i) {
    if (results[i].nproof == 0 || results[i].data == NULL)
        return false;
    for (int64_t j = 0; j < i; j++)
        if (results[j].nproof > 0 && strcmp(results[j].data, results[i].data) == 0)
            return false;
    return true;
}

dpt_status dpt_result_group_proof_json(const dpt_result *results, int64_t count, void *root) {
    return proof_add(results, count, proof_is_first, proof_fill_groups, "group_proof", root);
}

void dpt_result_proof_csv(FILE *file, const dpt_result *results, int64_t count) {
    fputs(DPT_OWNED_PROOF_START "\n", file);
    for (int64_t i = 0; i < count; i++)
        for (int64_t g = 0; g < results[i].nproof; g++) {
            const dpt_result *r = &results[i];
            const double row[] = {r->proof_term[g], r->proof_change[g], r->proof_change_low[g],
                                  r->proof_change_high[g], r->proof_alone[g]};
            char name[DPT_RESULT_GROUP_NAME];
            dpt_result_group_name(r->proof_groups, g, name);
            /* Names of edits and data sets are plain characters: the job file allows no others. */
            fprintf(file, "%s,%s,%s", r->edit, r->data, name);
            for (size_t k = 0; k < sizeof row / sizeof *row; k++)
                if (isnan(row[k]))
                    fputc(',', file);
                else
                    fprintf(file, ",%.17g", row[k]);
            fputc('\n', file);
        }
}

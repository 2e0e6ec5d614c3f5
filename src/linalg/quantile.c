#include "quantile_parts.h"

#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif
#include <inttypes.h>
#include <stdlib.h>

/* A magnitude has 31 bits; pass p looks at BITS[p] of them, from the top. */
enum { PASSES = 3, TOP_BINS = 1 << DPT_QUANTILE_TOP_BITS, TABLES = 4 };
enum { RUN = 4096, LANES = 16 }; /* values looked at at a time; of a vector */
enum { STEP = 1 << 17 };         /* values formed at a time in the search of a place */
static const int SHIFT[PASSES] = {20, 10, 0};
static const int BITS[PASSES] = {DPT_QUANTILE_TOP_BITS, 10, 10};

/* Slots of a group: [*begin, *end), empty when no target asks for it. */
static void slots_of_group(const selection *s, int group, int64_t *begin, int64_t *end) {
    int64_t low = 0;
    int64_t high = s->nslots;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (s->slots[middle].group < group)
            low = middle + 1;
        else
            high = middle;
    }
    *begin = low;
    while (low < s->nslots && s->slots[low].group == group)
        low++;
    *end = low;
}

void dpt_quantile_units(const selection *s, dpt_range range, int *begin, int *end) {
    *begin = range.tensor;
    *end = range.tensor + 1;
    if (s->parts == NULL)
        return;
    dpt_part_item last = dpt_parts_item(s->parts, range.tensor, range.ig + range.n - 1);
    *begin = dpt_parts_item(s->parts, range.tensor, range.ig).first;
    *end = last.first + last.count;
}

void dpt_quantile_count_units(const selection *s, dpt_range range) {
    int begin, end;
    dpt_quantile_units(s, range, &begin, &end);
    memset(s->unit_at, 0, (size_t)(end - begin + 1) * sizeof *s->unit_at);
    if (s->parts == NULL)
        s->unit_at[1] = range.n;
    for (int64_t at = 0; s->parts != NULL && at < range.n;) {
        dpt_part_span span = dpt_parts_span(s->parts, range.tensor, range.ig + at, range.n - at);
        for (int w = 0; w < span.ways; w++)
            s->unit_at[span.part[w] - begin + 1] += (span.n - w + span.ways - 1) / span.ways;
        at += span.n;
    }
    for (int u = begin; u < end; u++)
        s->unit_at[u - begin + 1] += s->unit_at[u - begin];
    DPT_ASSERT(s->unit_at[end - begin] == range.n);
}

const float *dpt_quantile_load(selection *s, dpt_range range, dpt_status *st) {
    int begin, end;
    dpt_quantile_units(s, range, &begin, &end);
    dpt_quantile_count_units(s, range);
    *st = s->source->values(s->source->ctx, range, s->buffer);
    if (*st != DPT_OK)
        return NULL;
    if (end - begin == 1)
        return s->buffer;
    for (int64_t at = 0; at < range.n;) {
        dpt_part_span span = dpt_parts_span(s->parts, range.tensor, range.ig + at, range.n - at);
        for (int w = 0; w < span.ways; w++) {
            float *to = s->split + s->unit_at[span.part[w] - begin];
            int64_t count = 0;
            for (int64_t i = w; i < span.n; i += span.ways)
                to[count++] = s->buffer[at + i];
            s->unit_at[span.part[w] - begin] += count;
        }
        at += span.n;
    }
    for (int u = end - begin; u > 0; u--) /* each has moved to the begin of the next */
        s->unit_at[u] = s->unit_at[u - 1];
    s->unit_at[0] = 0;
    return s->split;
}

/* Of values, or of magnitudes themselves. */
static uint32_t magnitude_at(const void *values, int64_t i) {
    uint32_t bits;
    memcpy(&bits, (const char *)values + i * (int64_t)sizeof bits, sizeof bits);
    return bits & 0x7fffffff;
}

/* First pass: every entry counts, so the histogram of a cell is kept small and in cache. Neighbours
 * go to different tables: equal ones, as zeros often are, would wait for each other's store. */
static void count_all(selection *s, const void *values, int64_t n, int64_t *histogram) {
    uint16_t bin[RUN];
    memset(s->scratch, 0, TABLES * TOP_BINS * sizeof *s->scratch);
    for (int64_t from = 0; from < n; from += RUN) {
        int run = (int)(n - from < RUN ? n - from : RUN);
        int i = 0;
        for (int j = 0; j < run; j++)
            bin[j] = (uint16_t)(magnitude_at(values, from + j) >> SHIFT[0]);
        for (; i + TABLES <= run; i += TABLES)
            for (int t = 0; t < TABLES; t++)
                s->scratch[t * TOP_BINS + bin[i + t]]++;
        for (; i < run; i++)
            s->scratch[bin[i]]++;
    }
    for (int b = 0; b < TOP_BINS; b++)
        for (int t = 0; t < TABLES; t++)
            histogram[b] += s->scratch[t * TOP_BINS + b];
}

/* Magnitudes of a run of at most RUN values that begin with a prefix, end to end. */
static int quantile_collect(const void *values, int64_t from, int n, int shift, uint32_t prefix,
                            uint32_t found[RUN + LANES]) {
    int count = 0;
    int i = 0;
#ifdef __AVX512F__ /* without a branch for each value, which could not be foretold */
    const __m512i all = _mm512_set1_epi32(0x7fffffff);
    const __m512i wanted = _mm512_set1_epi32((int)prefix);
    const __m128i by = _mm_cvtsi32_si128(shift);
    for (; i + LANES <= n; i += LANES) {
        __m512i bits =
            _mm512_and_si512(_mm512_loadu_si512((const char *)values + 4 * (from + i)), all);
        __mmask16 same = _mm512_cmpeq_epi32_mask(_mm512_srl_epi32(bits, by), wanted);
        _mm512_storeu_si512(found + count, _mm512_maskz_compress_epi32(same, bits));
        count += __builtin_popcount(same);
    }
#endif
    for (; i < n; i++) {
        found[count] = magnitude_at(values, from + i);
        count += found[count] >> shift == prefix;
    }
    return count;
}

/* Later passes: entries that begin with a wanted prefix. */
static void count_prefix(const void *values, int64_t n, int pass, uint32_t prefix,
                         int64_t *histogram) {
    uint32_t mask = (UINT32_C(1) << BITS[pass]) - 1;
    uint32_t found[RUN + LANES];
    for (int64_t from = 0; from < n; from += RUN) {
        int run = (int)(n - from < RUN ? n - from : RUN);
        int count = quantile_collect(values, from, run, SHIFT[pass - 1], prefix, found);
        for (int i = 0; i < count; i++)
            histogram[found[i] >> SHIFT[pass] & mask]++;
    }
}

/* Slots of the group of a unit; none when it takes no part. */
static void slots_of_unit(const selection *s, int unit, int64_t *begin, int64_t *end) {
    *begin = *end = 0;
    if (s->group_of[unit] >= 0)
        slots_of_group(s, s->group_of[unit], begin, end);
}

/* Count the values of this rank's cells. Local. */
static dpt_status count_cells(selection *s, int pass) {
    const int64_t *own = s->shard->rank_first + s->comm->rank;
    dpt_status st = DPT_OK;
    for (int64_t c = own[0]; st == DPT_OK && c < own[1]; c++) {
        dpt_range range = dpt_shard_cell(s->shard, c);
        const float *values = NULL;
        int first, last;
        dpt_quantile_units(s, range, &first, &last);
        for (int u = first; u < last && st == DPT_OK; u++) {
            int64_t begin, end;
            slots_of_unit(s, u, &begin, &end);
            if (begin < end && values == NULL)
                values = dpt_quantile_load(s, range, &st);
            for (int64_t i = begin; st == DPT_OK && i < end; i++) {
                int64_t *histogram = s->here + (i << BITS[pass]);
                int64_t at = s->unit_at[u - first], n = s->unit_at[u - first + 1] - at;
                if (pass == 0)
                    count_all(s, values + at, n, histogram);
                else
                    count_prefix(values + at, n, pass, s->slots[i].prefix, histogram);
            }
        }
    }
    return st;
}

/* Count the magnitudes of this rank's lists, each search its own. Both ends of a bracket are sought in one list, and
 * are mostly of one prefix: then they have the same counts. Local. */
static void count_lists(selection *s, int pass) {
    for (int64_t i = 0; i < s->count; i++) {
        const search *it = &s->searches[i], *before = i > 0 ? it - 1 : NULL;
        const magnitudes *list = &s->lists[it->list];
        int64_t *histogram = s->here + (it->slot << BITS[pass]);
        if (before != NULL && before->list == it->list && before->prefix == it->prefix)
            memcpy(histogram, s->here + (before->slot << BITS[pass]),
                   sizeof *histogram << BITS[pass]);
        else if (pass > 0)
            count_prefix(list->bits, list->count, pass, it->prefix, histogram);
        else if (list->count >= RUN)
            count_all(s, list->bits, list->count, histogram);
        else
            for (int64_t j = 0; j < list->count; j++)
                histogram[list->bits[j] >> SHIFT[0]]++;
    }
}

/* One slot for each different (group, prefix) of the searches; of searches in lists, for each. */
static void make_slots(selection *s) {
    s->nslots = 0;
    for (int64_t i = 0; i < s->count; i++) {
        search *it = &s->searches[i];
        slot *last = s->nslots > 0 ? &s->slots[s->nslots - 1] : NULL;
        /* Within a group counts rise, so prefixes fall: equal ones are neighbours. */
        if (s->lists != NULL || last == NULL || last->group != it->group ||
            last->prefix != it->prefix) {
            DPT_ASSERT(s->lists != NULL || last == NULL || last->group < it->group ||
                       (last->group == it->group && last->prefix > it->prefix));
            s->slots[s->nslots++] = (slot){.group = it->group, .prefix = it->prefix};
        }
        it->slot = s->nslots - 1;
    }
}

static dpt_status zero_counts(selection *s, int64_t n) {
    if (n > s->ncounts) {
        dpt_mem_free(s->counts);
        dpt_mem_free(s->here);
        s->ncounts = 0;
        s->counts = dpt_mem_alloc(n, sizeof *s->counts, "histograms of magnitudes");
        s->here = dpt_mem_alloc(n, sizeof *s->here, "histograms of magnitudes");
        if (s->counts == NULL || s->here == NULL)
            return DPT_ERR_OUTPUT;
        s->ncounts = n;
    }
    memset(s->here, 0, (size_t)n * sizeof *s->here);
    return DPT_OK;
}

static dpt_status count_pass(selection *s, int pass) {
    make_slots(s);
    int64_t n = s->nslots << BITS[pass];
    dpt_status st = zero_counts(s, n);
    if (st == DPT_OK && s->lists != NULL)
        count_lists(s, pass);
    else if (st == DPT_OK)
        st = count_cells(s, pass);
    st = dpt_agree(s->comm, st);
    if (st != DPT_OK)
        return st;
    memcpy(s->counts, s->here, (size_t)n * sizeof *s->counts);
    return dpt_agree(s->comm, dpt_comm_sum_i64(s->comm, s->counts, n));
}

/* Walk the bins of a search from the top until the wanted entry is inside one. */
static void quantile_narrow(selection *s, search *it, int pass) {
    const int64_t *histogram = s->counts + (it->slot << BITS[pass]);
    int bin = (1 << BITS[pass]) - 1;
    while (bin > 0 && it->want > histogram[bin])
        it->want -= histogram[bin--];
    /* An empty group has nothing to find; else the wanted entry is in this bin, also of no other. */
    DPT_ASSERT(it->want >= 1 && (it->elements == 0 || it->want <= histogram[bin]));
    DPT_ASSERT(s->here[(it->slot << BITS[pass]) + bin] <= histogram[bin]);
    it->prefix = it->prefix << BITS[pass] | (uint32_t)bin;
    it->equal = histogram[bin];
    it->equal_here = s->here[(it->slot << BITS[pass]) + bin];
}

dpt_status dpt_quantile_passes(selection *s) {
    dpt_status st = DPT_OK;
    for (int pass = 0; st == DPT_OK && s->count > 0 && pass < PASSES; pass++) {
        st = count_pass(s, pass);
        for (int64_t i = 0; st == DPT_OK && i < s->count; i++)
            quantile_narrow(s, &s->searches[i], pass);
    }
    return st;
}

/* The nth (from 1) of the values in the buffer that is of a group and has a magnitude; -1: there are fewer, and *nth
 * is less by these. */
static int64_t quantile_nth_equal(const selection *s, dpt_range range, const search *it,
                                  int64_t *nth) {
    for (int64_t at = 0; at < range.n;) {
        dpt_part_span span = {.n = range.n, .ways = 1, .part = {range.tensor}};
        if (s->parts != NULL)
            span = dpt_parts_span(s->parts, range.tensor, range.ig + at, range.n - at);
        for (int w = 0; w < span.ways; w++)
            for (int64_t i = w; s->group_of[span.part[w]] == it->group && i < span.n;
                 i += span.ways)
                if (magnitude(s->buffer[at + i]) == it->prefix && --*nth == 0)
                    return at + i;
        at += span.n;
    }
    return -1;
}

/* Whether a cell has a unit of a group. */
static bool quantile_cell_has(const selection *s, dpt_range range, int group) {
    int begin, end;
    dpt_quantile_units(s, range, &begin, &end);
    for (int u = begin; u < end; u++)
        if (s->group_of[u] == group)
            return true;
    return false;
}

/* The same of a cell, step by step as far as it goes. */
static dpt_status quantile_find_in_cell(selection *s, dpt_range cell, const search *it,
                                        int64_t *nth, dpt_cut *cut, bool *found) {
    dpt_status st = DPT_OK;
    for (int64_t from = 0; st == DPT_OK && !*found && from < cell.n; from += STEP) {
        dpt_range step = {cell.tensor, cell.ig + from, cell.n - from < STEP ? cell.n - from : STEP};
        st = s->source->values(s->source->ctx, step, s->buffer);
        int64_t at = st == DPT_OK ? quantile_nth_equal(s, step, it, nth) : -1;
        *found = at >= 0;
        if (*found)
            *cut = (dpt_cut){.bits = it->prefix, .tensor = cell.tensor, .ig = step.ig + at};
    }
    return st;
}

/* Position of this rank's nth entry (from 1) of the given magnitude in a group. Local. */
static dpt_status quantile_find_equal(selection *s, const search *it, int64_t nth, dpt_cut *cut) {
    const int64_t *own = s->shard->rank_first + s->comm->rank;
    int64_t from = s->shard->first_cell[it->first_tensor];
    int64_t to = s->shard->first_cell[it->last_tensor + 1];
    from = from > own[0] ? from : own[0];
    to = to < own[1] ? to : own[1];
    for (int64_t c = from; c < to; c++) {
        dpt_range range = dpt_shard_cell(s->shard, c);
        if (!quantile_cell_has(s, range, it->group))
            continue;
        if (it->where != IN_CELLS) {
            int64_t here = dpt_quantile_equal(s, it, c);
            if (nth > here) {
                nth -= here;
                continue;
            }
        }
        bool found = false;
        dpt_status st = quantile_find_in_cell(s, range, it, &nth, cut, &found);
        if (st != DPT_OK || found)
            return st;
    }
    return dpt_error(DPT_ERR_INTERNAL, "values changed while a quantile was selected");
}

/* Cuts that need no search among equal entries: none or all of them are before the cut. */
static bool cut_is_plain(const selection *s, const search *it, dpt_cut *cut) {
    *cut = (dpt_cut){.bits = it->prefix, .tensor = 0, .ig = -1};
    if (it->count == 0) {
        cut->tensor = it->first_tensor >= 0 ? it->first_tensor : 0;
        return true;
    }
    if (it->want != it->equal)
        return false;
    cut->tensor = it->last_tensor;
    cut->ig = s->shard->catalog->tensors[cut->tensor].numel - 1;
    return true;
}

/* Number of equal entries on each rank, by search: equal[i * size + rank]. Collective. */
static dpt_status share_equal(const selection *s, int64_t *equal) {
    for (int64_t i = 0; i < s->count; i++)
        equal[i * s->comm->size + s->comm->rank] = s->searches[i].equal_here;
    return dpt_agree(s->comm, dpt_comm_sum_i64(s->comm, equal, s->count * s->comm->size));
}

/* Search the cuts among equal entries. Ranks hold the cells in order, so the equal entries of lower
 * ranks come first; the rank that holds the wanted one finds its position. */
static dpt_status find_places(selection *s, int64_t *equal, int64_t *places, dpt_cut *cuts) {
    dpt_status st = share_equal(s, equal);
    if (st != DPT_OK)
        return st;
    for (int64_t i = 0; st == DPT_OK && i < s->count; i++) {
        const search *it = &s->searches[i];
        int64_t nth = it->want;
        for (int r = 0; r < s->comm->rank; r++)
            nth -= equal[i * s->comm->size + r];
        if (nth < 1 || nth > it->equal_here)
            continue;
        dpt_cut cut = {.bits = it->prefix};
        st = quantile_find_equal(s, it, nth, &cut);
        places[2 * i] = cut.tensor;
        places[2 * i + 1] = cut.ig;
    }
    st = dpt_agree(s->comm, st);
    if (st == DPT_OK)
        st = dpt_agree(s->comm, dpt_comm_sum_i64(s->comm, places, 2 * s->count));
    for (int64_t i = 0; st == DPT_OK && i < s->count; i++) {
        cuts[s->searches[i].target].tensor = (int)places[2 * i];
        cuts[s->searches[i].target].ig = places[2 * i + 1];
    }
    return st;
}

static dpt_status place_cuts(selection *s, dpt_cut *cuts) {
    int64_t open = 0;
    for (int64_t i = 0; i < s->count; i++)
        if (!cut_is_plain(s, &s->searches[i], &cuts[s->searches[i].target]))
            s->searches[open++] = s->searches[i];
    s->count = open;
    if (open == 0)
        return DPT_OK;
    int64_t *equal = dpt_mem_zalloc(open * s->comm->size, sizeof *equal, "equal magnitudes");
    int64_t *places = dpt_mem_zalloc(2 * open, sizeof *places, "places of cuts");
    dpt_status st = equal == NULL || places == NULL ? DPT_ERR_OUTPUT : DPT_OK;
    st = dpt_agree(s->comm, st);
    if (st == DPT_OK)
        st = find_places(s, equal, places, cuts);
    dpt_mem_free(equal);
    dpt_mem_free(places);
    return st;
}

static int by_group_and_count(const void *a, const void *b) {
    const search *left = a;
    const search *right = b;
    if (left->group != right->group)
        return left->group < right->group ? -1 : 1;
    return (left->count > right->count) - (left->count < right->count);
}

int64_t dpt_quantile_first(const search *searches, int64_t n, int group) {
    int64_t low = 0;
    int64_t high = n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (searches[middle].group < group)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && searches[low].group == group ? low : n;
}

/* Fill in size and ends of the groups. */
static void measure_groups(const selection *s, int64_t n) {
    int units = s->parts != NULL ? s->parts->count : s->shard->ntensors;
    for (int u = 0; u < units; u++) {
        int t = s->parts != NULL ? s->parts->items[u].tensor : u;
        int64_t elements = s->shard->catalog->tensors[t].numel;
        if (s->parts != NULL)
            elements = s->parts->items[u].layout.rows * s->parts->items[u].layout.cols;
        int64_t i = s->group_of[u] < 0 ? n : dpt_quantile_first(s->searches, n, s->group_of[u]);
        if (i == n || elements == 0)
            continue;
        s->searches[i].elements += elements;
        s->searches[i].last_tensor = t;
        if (s->searches[i].first_tensor < 0)
            s->searches[i].first_tensor = t;
    }
    for (int64_t i = 1; i < n; i++) {
        const search *before = &s->searches[i - 1];
        search *it = &s->searches[i];
        if (it->group != before->group)
            continue;
        it->elements = before->elements;
        it->first_tensor = before->first_tensor;
        it->last_tensor = before->last_tensor;
    }
}

/* Most units of an own cell. */
static int64_t quantile_most_units(const selection *s) {
    const int64_t *own = s->shard->rank_first + s->comm->rank;
    int64_t most = 1;
    for (int64_t c = own[0]; s->parts != NULL && c < own[1]; c++) {
        int begin, end;
        dpt_quantile_units(s, dpt_shard_cell(s->shard, c), &begin, &end);
        most = end - begin > most ? end - begin : most;
    }
    return most;
}

static dpt_status begin(selection *s, int64_t n, const dpt_quantile_target *targets) {
    s->searches = dpt_mem_alloc(n, sizeof *s->searches, "quantile searches");
    s->slots = dpt_mem_alloc(n, sizeof *s->slots, "quantile searches");
    s->buffer = dpt_mem_alloc(DPT_CELL, sizeof *s->buffer, "quantile values");
    s->scratch = dpt_mem_alloc(TABLES * TOP_BINS, sizeof *s->scratch, "histogram of a cell");
    int64_t units = quantile_most_units(s);
    s->unit_at = dpt_mem_alloc(units + 1, sizeof *s->unit_at, "quantile values");
    if (units > 1)
        s->split = dpt_mem_alloc(DPT_CELL, sizeof *s->split, "quantile values");
    if (s->searches == NULL || s->slots == NULL || s->buffer == NULL || s->scratch == NULL ||
        s->unit_at == NULL || (units > 1 && s->split == NULL))
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < n; i++)
        s->searches[i] = (search){.target = i,
                                  .group = targets[i].group,
                                  .count = targets[i].count,
                                  .want = targets[i].count > 0 ? targets[i].count : 1,
                                  .first_tensor = -1,
                                  .last_tensor = -1};
    if (n > 1)
        qsort(s->searches, (size_t)n, sizeof *s->searches, by_group_and_count);
    measure_groups(s, n);
    for (int64_t i = 0; i < n; i++) {
        const search *it = &s->searches[i];
        if (it->group < 0 || it->count < 0 || it->count > it->elements)
            return dpt_error(DPT_ERR_INTERNAL,
                             "quantile %" PRId64 ": %" PRId64 " of %" PRId64
                             " elements of group %d were asked for",
                             it->target, it->count, it->elements, it->group);
    }
    return DPT_OK;
}

/* Whole groups with few enough targets that their histograms stay small. */
static int64_t quantile_batch_end(const search *searches, int64_t from, int64_t n) {
    int64_t end = from;
    while (end < n) {
        int64_t next = end + 1;
        while (next < n && searches[next].group == searches[end].group)
            next++;
        if (end > from && next - from > DPT_QUANTILE_BATCH)
            break;
        end = next;
    }
    return end;
}

/* For the check that all ranks have the same targets. */
static uint64_t quantile_hash_targets(const dpt_quantile_target *targets, int64_t n) {
    dpt_hash hash;
    dpt_hash_begin(&hash);
    for (int64_t i = 0; i < n; i++) {
        const int64_t fields[2] = {targets[i].group, targets[i].count};
        dpt_hash_update(&hash, fields, sizeof fields);
    }
    return dpt_hash_value(&hash);
}

dpt_status dpt_quantile_select(const dpt_comm *comm, const dpt_shard *shard, const dpt_parts *parts,
                               const int *group_of, int64_t ntargets,
                               const dpt_quantile_target *targets,
                               const dpt_quantile_source *source, dpt_cut *cuts) {
    DPT_ASSERT_SAME(comm, ntargets);
    DPT_ASSERT_SAME(comm, quantile_hash_targets(targets, ntargets));
    DPT_ASSERT_SAME(comm, parts != NULL ? parts->count : -1);
    DPT_ASSERT_SAME_ARRAY(comm, group_of, parts != NULL ? parts->count : shard->ntensors);
    selection s = {
        .comm = comm, .shard = shard, .parts = parts, .group_of = group_of, .source = source};
    dpt_status st = dpt_agree(comm, begin(&s, ntargets, targets));
    search *all = s.searches;
    for (int64_t from = 0, to; st == DPT_OK && from < ntargets; from = to) {
        to = quantile_batch_end(all, from, ntargets);
        s.searches = all + from;
        s.count = to - from;
        bool found = false;
        st = dpt_quantile_bracket(&s, &found);
        if (st == DPT_OK && !found)
            st = dpt_quantile_passes(&s);
        if (st == DPT_OK)
            st = place_cuts(&s, cuts);
        s.count = to - from; /* placing leaves the open ones */
        dpt_quantile_bracket_free(&s);
    }
    dpt_mem_free(all);
    dpt_mem_free(s.slots);
    dpt_mem_free(s.buffer);
    dpt_mem_free(s.split);
    dpt_mem_free(s.unit_at);
    dpt_mem_free(s.scratch);
    dpt_mem_free(s.counts);
    dpt_mem_free(s.here);
    return st;
}

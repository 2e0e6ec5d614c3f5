#include "quantile_parts.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <math.h>

/* Bracketed selection.
 *
 * The problem: the entry of a rank among billions of values that lie on all ranks, to the bit,
 * where a value is dear: each is a difference of two stored numbers, edited by the stages before.
 * Histograms of the bits (quantile.c) need three passes over all of them; gathering or sorting
 * needs memory for them.
 *
 * The idea: a sample tells where the wanted entry must be. Its order statistics a few standard
 * deviations to either side of the wanted rank give two magnitudes, the bracket (low, high); with
 * overwhelming probability the entry is between them, and few values are. One pass then counts how
 * many are above, at either end and inside, and keeps those inside; the histograms are taken of
 * this short list.
 *
 * What makes it exact: nothing rests on the sample but speed. The counts are of all values, so
 * after their sum over ranks we know whether the entry is above, at an end, inside or below. Above
 * or below means that the sample misled, and the caller takes the histograms of everything; the
 * searches are then untouched, for which bracket_finish works on a copy. The sample is of fixed
 * positions: no random numbers, so no dependence on ranks; an adversary could order values against
 * it, and would cost time alone.
 *
 * Invariants: low <= high; `inside` is the length of the list, in the order of positions; the ends
 * themselves are never in the list. They are counted apart because magnitudes repeat: of zeros, or
 * of bf16 differences, a good part of all values may be one end of the bracket, and a list of them
 * would be as long as the data. When low == high there is nothing inside and equal values count as
 * at_high.
 *
 * Ties go by position, and the list has no positions: each cell notes instead (`share`) how far the
 * list was after it and how many values were the ends, which is enough to find the one cell that
 * holds the last equal entry (dpt_quantile_equal) and to read that cell alone again. */

enum {
    STRIDE = 1 << 15, /* of each so many values of a cell ... */
    SAMPLE = 512,     /* ... these are the sample */
    STEP = 1 << 17,   /* values formed at a time */
    RUN = DPT_QUANTILE_RUN,
    SHARE = 4,         /* a list holds at most this part of the values of its rank ... */
    LEAST_ROOM = 65536 /* ... or this many */
};

_Static_assert(DPT_QUANTILE_ONE_OF *SAMPLE == STRIDE, "the share that is said is the sample's");

/* First search of the group of a unit, or their number. */
static int64_t searches_of_unit(const selection *s, int unit) {
    int group = s->group_of[unit];
    return group < 0 ? s->count : dpt_quantile_first(s->searches, s->count, group);
}

/* Searches of all units of a run: whether there are any. */
static bool bracket_is_searched(const selection *s, dpt_range range) {
    int begin, end;
    dpt_quantile_units(s, range, &begin, &end);
    for (int u = begin; u < end; u++)
        if (searches_of_unit(s, u) < s->count)
            return true;
    return false;
}

/* Count the sample of a cell, by the first search of each group. */
static void bracket_count_sample(const selection *s, dpt_range cell, int64_t *sizes) {
    int begin, end;
    for (int64_t at = 0; at < cell.n; at += STRIDE) {
        dpt_range run = {cell.tensor, cell.ig + at, cell.n - at < SAMPLE ? cell.n - at : SAMPLE};
        dpt_quantile_units(s, run, &begin, &end);
        dpt_quantile_count_units(s, run);
        for (int u = begin; u < end; u++)
            if (searches_of_unit(s, u) < s->count)
                sizes[searches_of_unit(s, u)] += s->unit_at[u - begin + 1] - s->unit_at[u - begin];
    }
}

/* Add the sample of a cell to the lists of its groups. */
static dpt_status bracket_sample_cell(selection *s, dpt_range cell, magnitudes *lists) {
    dpt_status st = DPT_OK;
    int begin, end;
    for (int64_t at = 0; st == DPT_OK && at < cell.n; at += STRIDE) {
        dpt_range run = {cell.tensor, cell.ig + at, cell.n - at < SAMPLE ? cell.n - at : SAMPLE};
        if (!bracket_is_searched(s, run))
            continue;
        const float *values = dpt_quantile_load(s, run, &st);
        dpt_quantile_units(s, run, &begin, &end);
        for (int u = begin; st == DPT_OK && u < end; u++) {
            int64_t i = searches_of_unit(s, u);
            if (i == s->count)
                continue;
            magnitudes *list = &lists[i];
            if (list->bits == NULL)
                list->bits = dpt_mem_alloc(list->room, sizeof *list->bits, "sample of values");
            if (list->bits == NULL)
                return DPT_ERR_OUTPUT;
            for (int64_t j = s->unit_at[u - begin]; j < s->unit_at[u - begin + 1]; j++)
                list->bits[list->count++] = magnitude(values[j]);
            DPT_ASSERT(list->count <= list->room);
        }
    }
    return st;
}

/* Lists of the samples of this rank's groups, in the places of their first searches. */
static dpt_status bracket_take_sample(selection *s, magnitudes *lists) {
    const int64_t *own = s->shard->rank_first + s->comm->rank;
    int64_t *rooms = dpt_mem_zalloc(s->count, sizeof *rooms, "sample of values");
    dpt_status st = rooms != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int64_t c = own[0]; st == DPT_OK && c < own[1]; c++)
        bracket_count_sample(s, dpt_shard_cell(s->shard, c), rooms);
    for (int64_t i = 0; st == DPT_OK && i < s->count; i++)
        lists[i].room = rooms[i];
    for (int64_t c = own[0]; st == DPT_OK && c < own[1]; c++)
        st = bracket_sample_cell(s, dpt_shard_cell(s->shard, c), lists);
    dpt_mem_free(rooms);
    return st;
}

/* Size of the sample of each search's group on all ranks. Collective. */
static dpt_status sum_samples(const selection *s, const magnitudes *lists, int64_t *sizes) {
    for (int64_t i = 0; i < s->count; i++)
        sizes[i] = lists[i].count;
    dpt_status st = dpt_agree(s->comm, dpt_comm_sum_i64(s->comm, sizes, s->count));
    for (int64_t i = 1; st == DPT_OK && i < s->count; i++)
        if (s->searches[i].group == s->searches[i - 1].group)
            sizes[i] = sizes[i - 1];
    return st;
}

/* Ranks in the sample between which a search ends. In a random sample of size m the wanted entry
 * has a rank of standard deviation at most sqrt(m) / 2: 3 sqrt(m) is six of them, and 8 more serve
 * samples so small that this law does not hold. Neighbouring values of a tensor are related, so
 * runs of 512 are worth less than as many single values; a miss is noticed, and costs the passes of
 * the histograms. Beyond the sample there is no bound. */
static void place_ends(const search *it, int64_t size, int64_t ends[2]) {
    double middle = (double)it->want / (double)(it->elements > 0 ? it->elements : 1) * (double)size;
    double margin = 3.0 * sqrt((double)size) + 8.0;
    ends[0] = (int64_t)floor(middle - margin);
    ends[1] = (int64_t)ceil(middle + margin);
}

/* Brackets from the sample. Collective. */
static dpt_status set_brackets(selection *s, const magnitudes *lists, bracket *found) {
    int64_t n = s->count;
    int64_t *sizes = dpt_mem_zalloc(n, sizeof *sizes, "brackets");
    search *ends = dpt_mem_alloc(2 * n, sizeof *ends, "brackets");
    slot *slots = dpt_mem_alloc(2 * n, sizeof *slots, "brackets");
    bool made = sizes != NULL && ends != NULL && slots != NULL;
    dpt_status st = dpt_agree(s->comm, made ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = sum_samples(s, lists, sizes);
    if (st == DPT_OK) {
        selection sampled = *s;
        sampled.searches = ends;
        sampled.slots = slots;
        sampled.count = 0;
        sampled.lists = lists;
        for (int64_t i = 0; i < n; i++) {
            int64_t at[2];
            found[i] = (bracket){.low = -1, .high = INT32_MAX};
            place_ends(&s->searches[i], sizes[i], at);
            for (int e = 0; e < 2; e++)
                if (at[e] >= 1 && at[e] <= sizes[i])
                    ends[sampled.count++] =
                        (search){.target = 2 * i + e,
                                 .want = at[e],
                                 .list = dpt_quantile_first(s->searches, n, s->searches[i].group)};
        }
        st = dpt_quantile_passes(&sampled);
        s->counts = sampled.counts;
        s->here = sampled.here;
        s->ncounts = sampled.ncounts;
        for (int64_t i = 0; st == DPT_OK && i < sampled.count; i++) {
            bracket *b = &found[ends[i].target / 2];
            *(ends[i].target % 2 == 0 ? &b->high : &b->low) = (int32_t)ends[i].prefix;
            DPT_ASSERT(b->low <= b->high);
        }
    }
    dpt_mem_free(slots);
    dpt_mem_free(ends);
    dpt_mem_free(sizes);
    return st;
}

/* Room for more at the end of a list; false when that is beyond its share or what the budget has. */
static bool make_room(magnitudes *list, int64_t more, int64_t maximum) {
    if (list->count + more <= list->room)
        return true;
    int64_t room = 2 * list->room + LEAST_ROOM;
    if (list->count + more > maximum ||
        room > dpt_mem_available() / (2 * (int64_t)sizeof *list->bits))
        return false;
    uint32_t *bits = dpt_mem_realloc(list->bits, room, sizeof *bits, "values within brackets");
    if (bits == NULL)
        return false;
    list->bits = bits;
    list->room = room;
    return true;
}

/* One step of a cell for the searches [first, first + n) of its group. */
static bool sift_step(const selection *s, const float *values, int64_t length, int64_t first,
                      int64_t n, int64_t maximum, bracket *ends) {
    for (int64_t at = 0; at < length; at += RUN) {
        int run = (int)(length - at < RUN ? length - at : RUN);
        for (int64_t i = first; i < first + n; i++) {
            magnitudes *list = &s->found.lists[i];
            if (!make_room(list, RUN, maximum))
                return false;
            list->count += dpt_quantile_sift(values + at, run, &ends[i], list->bits + list->count);
            DPT_ASSERT(list->count == ends[i].inside && list->count <= list->room);
        }
    }
    return true;
}

/* Searches of the group of a unit: [*first, *first + n). */
static int64_t searches_of(const selection *s, int unit, int64_t *first) {
    int64_t n = 0;
    *first = searches_of_unit(s, unit);
    while (*first + n < s->count && s->searches[*first + n].group == s->group_of[unit])
        n++;
    return n;
}

/* Set the shares of a cell's searches, unit by unit, to what the brackets hold now, negative before the cell. */
static void bracket_set_shares(const selection *s, dpt_range cell, const bracket *ends, bool after,
                               share *shares) {
    int begin, end;
    dpt_quantile_units(s, cell, &begin, &end);
    for (int u = begin; u < end; u++) {
        int64_t first, n = searches_of(s, u, &first);
        for (int64_t i = 0; i < n; i++, shares++) {
            const bracket *b = &ends[first + i];
            if (!after) {
                *shares = (share){/* after minus before: 32 bits hold the counts of one cell */
                                  .at_high = -(uint32_t)b->at_high,
                                  .at_low = -(uint32_t)b->at_low};
                continue;
            }
            shares->at_high += (uint32_t)b->at_high; /* modulo 2^32 */
            shares->at_low += (uint32_t)b->at_low;
            shares->list_end = s->found.lists[first + i].count;
            DPT_ASSERT(shares->at_high <= cell.n && shares->at_low <= cell.n);
        }
    }
}

/* One step of a cell for a search that has all of it, from two runs of bf16. */
static dpt_status sift_pair_step(const selection *s, dpt_range step, const uint16_t *before,
                                 const uint16_t *after, magnitudes *list, int64_t maximum,
                                 bracket *b, bool *whole) {
    dpt_status st = DPT_OK;
    for (int64_t at = 0; st == DPT_OK && *whole && at < step.n; at += RUN) {
        dpt_range run = {step.tensor, step.ig + at, step.n - at < RUN ? step.n - at : RUN};
        *whole = make_room(list, RUN, maximum);
        if (!*whole)
            break;
        uint32_t *to = list->bits + list->count;
        int count = dpt_quantile_sift_pair(before + at, after + at, (int)run.n, b, to);
        if (count < 0)
            st = s->source->values(s->source->ctx, run, s->buffer);
        if (count < 0 && st == DPT_OK)
            count = dpt_quantile_sift(s->buffer, (int)run.n, b, to);
        list->count += count > 0 ? count : 0;
        DPT_ASSERT(st != DPT_OK || (list->count == b->inside && list->count <= list->room));
    }
    return st;
}

/* The same, where the source has such runs and one search alone wants the step; *done: that was so. */
static dpt_status sift_pair(const selection *s, dpt_range step, int64_t maximum, bracket *ends,
                            bool *whole, bool *done) {
    const uint16_t *before = NULL, *after = NULL;
    int begin, end;
    int64_t first;
    *done = false;
    dpt_quantile_units(s, step, &begin, &end);
    if (s->source->pair == NULL || end - begin != 1 || searches_of(s, begin, &first) != 1)
        return DPT_OK;
    dpt_status st = s->source->pair(s->source->ctx, step, &before, &after);
    if (st != DPT_OK || after == NULL)
        return st;
    *done = true;
    return sift_pair_step(s, step, before, after, &s->found.lists[first], maximum, &ends[first],
                          whole);
}

/* One step of a cell for the searches of its groups. */
static dpt_status sift_units(selection *s, dpt_range step, int64_t maximum, bracket *ends,
                             bool *whole) {
    int begin, end;
    bool done;
    dpt_status st = sift_pair(s, step, maximum, ends, whole, &done);
    if (st != DPT_OK || done)
        return st;
    const float *values = dpt_quantile_load(s, step, &st);
    dpt_quantile_units(s, step, &begin, &end);
    for (int u = begin; u < end && *whole && st == DPT_OK; u++) {
        int64_t first, n = searches_of(s, u, &first);
        const int64_t *unit = s->unit_at + (u - begin);
        if (n > 0)
            *whole = sift_step(s, values + unit[0], unit[1] - unit[0], first, n, maximum, ends);
    }
    return st;
}

/* One own cell for the searches of its groups. */
static dpt_status sift_cell(selection *s, dpt_range cell, int64_t maximum, bracket *ends,
                            share *shares, bool *whole) {
    dpt_status st = DPT_OK;
    bracket_set_shares(s, cell, ends, false, shares);
    for (int64_t at = 0; st == DPT_OK && *whole && at < cell.n; at += STEP) {
        dpt_range run = {cell.tensor, cell.ig + at, cell.n - at < STEP ? cell.n - at : STEP};
        st = sift_units(s, run, maximum, ends, whole);
    }
    bracket_set_shares(s, cell, ends, true, shares);
    return st;
}

/* How many shares a cell has; where those of a group begin when it is `group`. Searches that are placed are taken off
 * the list, and their shares stay. */
static int64_t shares_of(const selection *s, dpt_range cell, int group) {
    int begin, end;
    int64_t total = 0;
    dpt_quantile_units(s, cell, &begin, &end);
    for (int u = begin; u < end && (group < 0 || s->group_of[u] != group); u++)
        total += s->found.searches[u];
    return total;
}

static dpt_status make_shares(selection *s) {
    const int64_t *own = s->shard->rank_first + s->comm->rank;
    int64_t total = 0;
    int units = s->parts != NULL ? s->parts->count : s->shard->ntensors;
    s->found.first = dpt_mem_alloc(own[1] - own[0], sizeof *s->found.first, "brackets");
    s->found.searches = dpt_mem_alloc(units, sizeof *s->found.searches, "brackets");
    if (s->found.first == NULL || s->found.searches == NULL)
        return DPT_ERR_OUTPUT;
    for (int u = 0; u < units; u++) {
        int64_t first;
        s->found.searches[u] = searches_of(s, u, &first);
    }
    for (int64_t c = own[0]; c < own[1]; c++) {
        s->found.first[c - own[0]] = total;
        total += shares_of(s, dpt_shard_cell(s->shard, c), -1);
    }
    s->found.shares = dpt_mem_alloc(total, sizeof *s->found.shares, "brackets");
    return s->found.shares != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

/* The pass over all values of this rank. *whole is false when it was given up. Local. */
static dpt_status sift_cells(selection *s, bracket *ends, bool *whole) {
    const int64_t *own = s->shard->rank_first + s->comm->rank;
    int64_t maximum = (own[1] - own[0]) * DPT_CELL / SHARE + LEAST_ROOM;
    dpt_status st = make_shares(s);
    *whole = true;
    for (int64_t c = own[0]; st == DPT_OK && *whole && c < own[1]; c++) {
        dpt_range cell = dpt_shard_cell(s->shard, c);
        if (bracket_is_searched(s, cell))
            st = sift_cell(s, cell, maximum, ends, s->found.shares + s->found.first[c - own[0]],
                           whole);
    }
    return st;
}

/* The share of a search in an own cell; NULL where no unit of its group is in it. */
static const share *share_of(const selection *s, const search *it, int64_t cell) {
    const int64_t *own = s->shard->rank_first + s->comm->rank;
    dpt_range range = dpt_shard_cell(s->shard, cell);
    int64_t before = shares_of(s, range, it->group);
    bool has = false;
    int begin, end;
    dpt_quantile_units(s, range, &begin, &end);
    for (int u = begin; u < end; u++)
        has = has || s->group_of[u] == it->group;
    return has ? s->found.shares + s->found.first[cell - own[0]] + before + it->place : NULL;
}

int64_t dpt_quantile_equal(const selection *s, const search *it, int64_t cell) {
    const int64_t *own = s->shard->rank_first + s->comm->rank;
    const share *here = share_of(s, it, cell), *last = NULL;
    if (it->where != WITHIN)
        return it->where == AT_HIGH_END ? here->at_high : here->at_low;
    int64_t equal = 0;
    int64_t begin = s->shard->first_cell[it->first_tensor];
    begin = begin > own[0] ? begin : own[0];
    for (int64_t c = cell - 1; c >= begin && last == NULL; c--) /* others may be between */
        last = share_of(s, it, c);
    begin = last != NULL ? last->list_end : 0;
    DPT_ASSERT(begin <= here->list_end && here->list_end <= s->found.lists[it->list].count);
    for (int64_t i = begin; i < here->list_end; i++)
        equal += s->found.lists[it->list].bits[i] == it->prefix;
    return equal;
}

enum { ABOVE, AT_HIGH, INSIDE, AT_LOW, COUNTS }; /* of a search on all ranks */

/* Place a search by the counts of all ranks: at an end of its bracket, or inside: then it goes on
 * in its list. false when the bracket missed it. */
static bool bracket_place(search *it, const bracket *b, const int64_t *counts, bool *inside) {
    int64_t want = it->want - counts[ABOVE];
    DPT_ASSERT(counts[ABOVE] + counts[AT_HIGH] + counts[INSIDE] + counts[AT_LOW] <= it->elements);
    *inside = false;
    it->equal = it->equal_here = 0;
    if (it->elements == 0) /* nothing to find */
        return true;
    *inside = want > counts[AT_HIGH] && want <= counts[AT_HIGH] + counts[INSIDE];
    if (want < 1 || want > counts[AT_HIGH] + counts[INSIDE] + counts[AT_LOW])
        return false;
    if (want <= counts[AT_HIGH]) {
        it->where = AT_HIGH_END;
        it->prefix = (uint32_t)b->high;
        it->equal = counts[AT_HIGH];
        it->equal_here = b->at_high;
    } else if (*inside) {
        want -= counts[AT_HIGH];
        it->where = WITHIN;
        it->prefix = 0;
    } else {
        want -= counts[AT_HIGH] + counts[INSIDE];
        it->where = AT_LOW_END;
        it->prefix = (uint32_t)b->low;
        it->equal = counts[AT_LOW];
        it->equal_here = b->at_low;
    }
    it->want = want;
    return true;
}

/* Place all searches and finish those inside their brackets. Collective. */
static dpt_status bracket_finish(selection *s, const bracket *ends, const int64_t *counts,
                                 search *placed, bool *found) {
    selection inner = *s;
    search *open = placed + s->count;
    inner.searches = open;
    inner.lists = s->found.lists;
    inner.count = 0;
    for (int64_t i = 0; i < s->count; i++) {
        bool inside;
        placed[i] = s->searches[i];
        placed[i].list = i;
        placed[i].place = i - dpt_quantile_first(s->searches, s->count, placed[i].group);
        if (!bracket_place(&placed[i], &ends[i], counts + i * COUNTS, &inside))
            return DPT_OK;
        if (!inside)
            continue;
        open[inner.count] = placed[i];
        open[inner.count].target = i;
        inner.count++;
    }
    dpt_status st = dpt_quantile_passes(&inner);
    s->counts = inner.counts;
    s->here = inner.here;
    s->ncounts = inner.ncounts;
    for (int64_t i = 0; st == DPT_OK && i < inner.count; i++) {
        search *it = &placed[open[i].target];
        const bracket *b = &ends[open[i].target];
        DPT_ASSERT((int32_t)open[i].prefix > b->low && (int32_t)open[i].prefix < b->high);
        it->prefix = open[i].prefix;
        it->want = open[i].want;
        it->equal = open[i].equal;
        it->equal_here = open[i].equal_here;
    }
    if (st == DPT_OK)
        memcpy(s->searches, placed, (size_t)s->count * sizeof *placed);
    *found = st == DPT_OK;
    return st;
}

/* Counts of all ranks by search, and after them the ranks that gave up. Collective. */
static dpt_status share_counts(const selection *s, const bracket *ends, bool whole,
                               int64_t *counts) {
    for (int64_t i = 0; i < s->count; i++) {
        const bracket *b = &ends[i];
        memcpy(counts + i * COUNTS, (int64_t[]){b->above, b->at_high, b->inside, b->at_low},
               COUNTS * sizeof *counts);
    }
    counts[s->count * COUNTS] = !whole;
    return dpt_agree(s->comm, dpt_comm_sum_i64(s->comm, counts, s->count * COUNTS + 1));
}

static void free_lists(magnitudes *lists, int64_t n) {
    for (int64_t i = 0; lists != NULL && i < n; i++)
        dpt_mem_free(lists[i].bits);
    dpt_mem_free(lists);
}

void dpt_quantile_bracket_free(selection *s) {
    free_lists(s->found.lists, s->count);
    dpt_mem_free(s->found.shares);
    dpt_mem_free(s->found.first);
    dpt_mem_free(s->found.searches);
    s->found = (brackets){.lists = NULL};
}

dpt_status dpt_quantile_bracket(selection *s, bool *found) {
    int64_t n = s->count;
    bool whole = false;
    bracket *ends = dpt_mem_zalloc(n, sizeof *ends, "brackets");
    magnitudes *sample = dpt_mem_zalloc(n, sizeof *sample, "brackets");
    int64_t *counts = dpt_mem_zalloc(n * COUNTS + 1, sizeof *counts, "brackets");
    search *placed = dpt_mem_alloc(2 * n, sizeof *placed, "brackets");
    s->found = (brackets){.lists = dpt_mem_zalloc(n, sizeof *s->found.lists, "brackets")};
    *found = false;
    bool made = ends && sample && counts && placed && s->found.lists;
    dpt_status st = made ? bracket_take_sample(s, sample) : DPT_ERR_OUTPUT;
    st = dpt_agree(s->comm, st);
    if (st == DPT_OK)
        st = set_brackets(s, sample, ends);
    free_lists(sample, n);
    if (st == DPT_OK)
        st = dpt_agree(s->comm, sift_cells(s, ends, &whole));
    if (st == DPT_OK)
        st = share_counts(s, ends, whole, counts);
    if (st == DPT_OK && counts[n * COUNTS] == 0)
        st = bracket_finish(s, ends, counts, placed, found);
    dpt_mem_free(placed);
    dpt_mem_free(counts);
    dpt_mem_free(ends);
    return st;
}

/* Room of a list that ends with `count` values, and of the one that it was copied from. */
static int64_t bracket_room(int64_t count) {
    int64_t room = 0, before = 0;
    while (room < count + RUN) {
        before = room;
        room = 2 * room + LEAST_ROOM;
    }
    return room + before / 2;
}

/* List of a search in a group of that many elements, of which a rank has some. */
static int64_t bracket_list_bytes(int64_t elements, int64_t here) {
    double size = (double)elements * SAMPLE / STRIDE;
    double share = elements > SAMPLE ? 2.0 * (3.0 * sqrt(size) + 8.0) / size : 1.0;
    double inside = (double)here * fmin(share, 1.0);
    return here > 0 ? bracket_room((int64_t)inside) * (int64_t)sizeof(uint32_t) : 0;
}

/* Lists of a rank. */
static int64_t bracket_rank_bytes(const dpt_shard *shard, const bool *covers, int64_t all, int rank,
                                  int targets) {
    int64_t bytes = 0, own = 0;
    for (int64_t c = shard->rank_first[rank]; c < shard->rank_first[rank + 1];) {
        int t = dpt_shard_cell(shard, c).tensor;
        int64_t here = 0;
        for (; c < shard->rank_first[rank + 1] && c < shard->first_cell[t + 1]; c++)
            here += dpt_shard_cell(shard, c).n;
        if (covers != NULL && !covers[t])
            continue;
        own += here;
        if (all == 0)
            bytes += targets * bracket_list_bytes(shard->catalog->tensors[t].numel, here);
    }
    return all > 0 ? targets * bracket_list_bytes(all, own) : bytes;
}

int64_t dpt_quantile_bytes(const dpt_shard *shard, const bool *covers, bool together, int targets) {
    int64_t lists = 0, all = 0, groups = 0;
    for (int t = 0; t < shard->ntensors; t++)
        if (covers == NULL || covers[t]) {
            all += shard->catalog->tensors[t].numel;
            groups++;
        }
    for (int r = 0; r < shard->ranks; r++) {
        int64_t here = bracket_rank_bytes(shard, covers, together ? all : 0, r, targets);
        lists = here > lists ? here : lists;
    }
    int64_t searches = (together ? 1 : groups) * targets;
    int64_t batch = searches < DPT_QUANTILE_BATCH ? searches : DPT_QUANTILE_BATCH;
    /* Of both ends of every bracket, of all ranks and of this one. */
    int64_t histograms = (2 * batch << DPT_QUANTILE_TOP_BITS) * 2 * (int64_t)sizeof(int64_t);
    return lists + histograms + (int64_t)DPT_CELL * (int64_t)sizeof(float) +
           searches * 4 * (int64_t)sizeof(search);
}

#ifndef DELTAPATH_SRC_LINALG_QUANTILE_PARTS_H
#define DELTAPATH_SRC_LINALG_QUANTILE_PARTS_H

/* A selection under way, shared by the passes over histograms (quantile.c) and the brackets that save
 * most of them (quantile_bracket.c). Private to src/linalg. */

#include "deltapath/linalg/quantile.h"

#include <stdbool.h>
#include <string.h>

enum {
    DPT_QUANTILE_TOP_BITS = 11, /* bits of a magnitude that the first histogram looks at */
    DPT_QUANTILE_BATCH = 2048   /* most searches at once, but for those of one group */
};

/* One selection: the entry of rank `want` (from 1, by falling magnitude) among the entries of the group
 * whose magnitude begins with `prefix`. */
typedef struct search {
    int64_t target; /* position in the caller's list */
    int group;
    int64_t count;
    int64_t want;
    int64_t equal;                 /* entries of the chosen magnitude, after the last pass */
    int64_t equal_here;            /* those of this rank */
    int64_t elements;              /* of the group */
    int first_tensor, last_tensor; /* of the group; without elements: -1 */
    uint32_t prefix;
    int64_t slot;  /* its histogram in this pass */
    int64_t list;  /* of magnitudes that it is among, where there are lists */
    int64_t place; /* among the searches of its group */
    enum { IN_CELLS, AT_HIGH_END, WITHIN, AT_LOW_END } where; /* in its bracket it ended */
} search;

/* Histograms of one pass. Slots of one group are neighbours; slots of one prefix are shared. */
typedef struct slot {
    int group;
    uint32_t prefix;
} slot;

/* Magnitudes of this rank, in order of position. */
typedef struct magnitudes {
    uint32_t *bits;
    int64_t count, room;
} magnitudes;

/* What one cell adds to one bracket. */
typedef struct share {
    uint32_t at_high, at_low; /* values that are the ends */
    int64_t list_end;         /* of the list after the cell */
} share;

/* What a pass over all values leaves for the search of positions; by search of the batch. */
typedef struct brackets {
    magnitudes *lists; /* (searches) */
    share *shares;     /* of a cell: one for each search of its group */
    int64_t *first;    /* (own cells) its shares */
    int64_t *searches; /* (units) of each, as they were when the shares were made */
} brackets;

typedef struct selection {
    const dpt_comm *comm;
    const dpt_shard *shard;
    const dpt_parts *parts; /* NULL: a unit is a tensor, else a part of one */
    const int *group_of;    /* (units) */
    const dpt_quantile_source *source;
    search *searches; /* by group, then count */
    int64_t count;
    const magnitudes *lists; /* that the searches are among; NULL: all entries of their group */
    slot *slots;             /* by group, then prefix */
    int64_t nslots;
    float *buffer;     /* one cell */
    float *split;      /* the same by unit, where a cell may hold several; else NULL */
    int64_t *unit_at;  /* (most units of a cell, and one) where each begins */
    int64_t *counts;   /* histograms by slot, of all ranks after a pass */
    int64_t *here;     /* the same of this rank alone */
    int64_t ncounts;   /* allocated in each */
    uint32_t *scratch; /* tables of one cell */
    brackets found;    /* when the searches ended in brackets */
} selection;

static inline uint32_t magnitude(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffff;
}

/** Find the magnitude of each search and its rank among the equal ones, by histograms. Collective. */
dpt_status dpt_quantile_passes(selection *s);

/** The same by brackets: a sample of the values tells between which magnitudes each search ends; one
 * pass over all values counts what is above and keeps the few that are inside.
 * @param[out] found false: a bracket missed or its memory is short; the searches are as before.
 * Collective. The same searches and results as by dpt_quantile_passes. */
dpt_status dpt_quantile_bracket(selection *s, bool *found);

/** Values of an own cell that equal the magnitude of a search that ended in its bracket. Local. */
int64_t dpt_quantile_equal(const selection *s, const search *it, int64_t cell);

/** Release what a bracket left. Local. */
void dpt_quantile_bracket_free(selection *s);

enum { DPT_QUANTILE_RUN = 4096 }; /* values that are sifted at a time */

/* Where a search ends, ends included, and what one rank found. */
typedef struct bracket {
    int32_t low, high;
    int64_t above, at_high, inside, at_low;
} bracket;

/** Count at most DPT_QUANTILE_RUN values against a bracket. Local.
 * @param[out] found  magnitudes strictly inside, in any order. @return how many. */
int dpt_quantile_sift(const float *values, int n, bracket *b, uint32_t found[DPT_QUANTILE_RUN]);

/** The same of after - before, bf16. @return -1, and nothing is counted, when one is NaN or infinite. Local. */
int dpt_quantile_sift_pair(const uint16_t *before, const uint16_t *after, int n, bracket *b,
                           uint32_t found[DPT_QUANTILE_RUN]);

/** Units of a run: [*begin, *end). Local. */
void dpt_quantile_units(const selection *s, dpt_range range, int *begin, int *end);

/** Values of a run by unit: those of unit `begin` + i, in the order of their elements, are [unit_at[i],
 * unit_at[i + 1]) of what is returned; NULL on error. Local. */
const float *dpt_quantile_load(selection *s, dpt_range range, dpt_status *st);

/** Set unit_at for a run. Local. */
void dpt_quantile_count_units(const selection *s, dpt_range range);

/** First search of a group in the sorted list, or n. Local. */
int64_t dpt_quantile_first(const search *searches, int64_t n, int group);

#endif

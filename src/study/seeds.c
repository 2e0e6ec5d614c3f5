#include "seeds.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/path/crossed.h"
#include "deltapath/path/interval.h"
#include "deltapath/path/weighted.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* An id without the part that says its seed. Allocated; NULL without memory. */
static char *seeds_id_without(const dpt_job_edit *edit) {
    char mark[48];
    snprintf(mark, sizeof mark, "-seed%llu", (unsigned long long)edit->spec.seed);
    char *out = dpt_mem_strdup(edit->id, "edit id");
    size_t name = strlen(edit->name);
    size_t length = strlen(mark);
    for (char *at = out != NULL ? strstr(out + name, mark) : NULL; at != NULL;
         at = strstr(at + 1, mark))
        if (at[length] == '\0' || at[length] == '-') {
            memmove(at, at + length, strlen(at + length) + 1);
            break;
        }
    return out;
}

static dpt_result_spread seeds_spread(int64_t n, const double *x) {
    dpt_interval mean = dpt_interval_student(n, x, NULL, 0.95);
    return (dpt_result_spread){
        .mean = mean.mean, .sd = mean.se * sqrt((double)n), .low = mean.low, .high = mean.high};
}

/* A share cannot leave [0, 1], whatever the width of its interval. */
static dpt_result_spread seeds_clip(dpt_result_spread s) {
    s.low = s.low < 0.0 ? 0.0 : s.low;
    s.high = s.high > 1.0 ? 1.0 : s.high;
    return s;
}

typedef struct seeds_members {
    const dpt_job *job;
    const dpt_result *results;
    int64_t units;
    char **ids;      /* (edits) without their seeds; NULL once they are summed up */
    double *values;  /* (edits) */
    int64_t *member; /* (edits) */
} seeds_members;

static dpt_result_spread seeds_over(const seeds_members *m, int64_t count, int64_t unit,
                                    size_t offset) {
    for (int64_t i = 0; i < count; i++) {
        const dpt_result *r = &m->results[m->member[i] * m->units + unit];
        memcpy(&m->values[i], (const char *)&r->scalars + offset, sizeof(double));
    }
    return seeds_spread(count, m->values);
}

/* Changes of what the verdicts take as independent, (count, values of w): a plain mean of them is the weighted
 * one. @param[out] change (samples) room. @return whether all units have an interval. */
static bool seeds_take_changes(const seeds_members *m, int64_t count, int64_t unit,
                               const dpt_weighted *w, double *change, double *x) {
    for (int64_t i = 0; i < count; i++) {
        const dpt_result *r = &m->results[m->member[i] * m->units + unit];
        DPT_ASSERT(r->samples == w->n);
        if (isnan(r->scalars.change_low))
            return false;
        for (int64_t s = 0; s < r->samples; s++)
            change[s] = r->loss_edit[s] - r->loss_post[s];
        dpt_weighted_apply(w, change, change);
        memcpy(x + i * w->count, change, (size_t)w->count * sizeof *x);
    }
    return true;
}

/* The samples of a unit as its verdict took them. @param[out] clusters (samples) room. */
static dpt_status seeds_weigh(const dpt_result *unit, int64_t *clusters, dpt_weighted *out) {
    for (int64_t s = 0; s < unit->samples; s++)
        clusters[s] = (int64_t)unit->sample_clusters[s];
    return dpt_weighted_create(unit->samples, unit->sample_shares,
                               dpt_result_is_clustered(unit) ? clusters : NULL, out);
}

/* Whether the seeds, or the samples of one of the units, are too few to show how their effects are spread. */
static bool seeds_are_few(const seeds_members *m, int64_t count, int64_t unit) {
    bool few = count < DPT_CROSSED_SEEDS;
    for (int64_t i = 0; i < count; i++)
        few = few || dpt_result_is_few(&m->results[m->member[i] * m->units + unit].scalars);
    return few;
}

static dpt_status seeds_cross(const seeds_members *m, int64_t count, int64_t unit,
                              dpt_result_seeds *out) {
    const dpt_result *first = &m->results[m->member[0] * m->units + unit];
    int64_t n = first->samples;
    dpt_weighted weighted = {.n = 0};
    double *x = dpt_mem_alloc((count + 1) * n, sizeof *x, "changes over seeds");
    int64_t *clusters = dpt_mem_alloc(n, sizeof *clusters, "clusters of samples");
    dpt_status st =
        x != NULL && clusters != NULL ? seeds_weigh(first, clusters, &weighted) : DPT_ERR_OUTPUT;
    out->crossed_low = out->crossed_high = out->crossed_df = out->crossed_few = NAN;
    if (st == DPT_OK && seeds_take_changes(m, count, unit, &weighted, x + count * n, x)) {
        dpt_crossed crossed =
            dpt_crossed_interval(count, weighted.count, first->scalars.effective, x, 0.95);
        out->crossed_low = crossed.low;
        out->crossed_high = crossed.high;
        out->crossed_df = crossed.df;
        out->crossed_few = isnan(crossed.low) ? NAN : seeds_are_few(m, count, unit);
    }
    dpt_weighted_destroy(&weighted);
    dpt_mem_free(clusters);
    dpt_mem_free(x);
    return st;
}

static dpt_status seeds_add(const seeds_members *m, const char *id, int64_t count, int64_t unit,
                            dpt_result_seeds *out) {
    const char *data = m->results[m->member[0] * m->units + unit].data;
    *out = (dpt_result_seeds){.edit = dpt_mem_strdup(id, "edit id"),
                              .data = dpt_mem_strdup(data != NULL ? data : "", "data name"),
                              .count = count};
#define SEEDS_OVER(name, scalar, meaning)                                                          \
    out->name = seeds_over(m, count, unit, offsetof(dpt_result_scalars, scalar));
    DPT_RESULT_SEEDS_COLUMNS(SEEDS_OVER)
    out->accuracy = seeds_clip(out->accuracy);
    dpt_status st = seeds_cross(m, count, unit, out);
    return out->edit != NULL && out->data != NULL ? st : DPT_ERR_OUTPUT;
}

/* The edits of the same entry from `first` on that share its id. */
static int64_t seeds_find_members(const seeds_members *m, int first) {
    int64_t count = 0;
    const char *id = m->ids[first];
    for (int e = first; e < m->job->nedits; e++)
        if (m->ids[e] != NULL && m->job->edits[e].entry == m->job->edits[first].entry &&
            strcmp(m->ids[e], id) == 0)
            m->member[count++] = e;
    return count;
}

static dpt_status seeds_sum_up(seeds_members *m, dpt_result_seeds *list, int64_t *count) {
    dpt_status st = DPT_OK;
    for (int e = 0; e < m->job->nedits && st == DPT_OK; e++) {
        if (m->ids[e] == NULL)
            continue;
        int64_t n = seeds_find_members(m, e);
        for (int64_t u = 0; n > 1 && u < m->units && st == DPT_OK; u++)
            if (m->results[e * m->units + u].samples > 0)
                st = seeds_add(m, m->ids[e], n, u, &list[(*count)++]);
        for (int64_t i = n - 1; i >= 0; i--) {
            dpt_mem_free(m->ids[m->member[i]]);
            m->ids[m->member[i]] = NULL;
        }
    }
    return st;
}

dpt_status dpt_seeds_collect(const dpt_job *job, const dpt_result *results, int64_t units,
                             dpt_result_seeds **list, int64_t *count) {
    seeds_members m = {.job = job, .results = results, .units = units};
    *count = 0;
    m.ids = dpt_mem_zalloc(job->nedits, sizeof *m.ids, "edit ids");
    m.values = dpt_mem_alloc(job->nedits, sizeof *m.values, "values over seeds");
    m.member = dpt_mem_alloc(job->nedits, sizeof *m.member, "edits over seeds");
    *list = dpt_mem_zalloc((int64_t)job->nedits * units, sizeof **list, "seeds");
    bool complete = m.ids != NULL && m.values != NULL && m.member != NULL && *list != NULL;
    for (int e = 0; e < job->nedits && complete; e++) {
        m.ids[e] = seeds_id_without(&job->edits[e]);
        complete = m.ids[e] != NULL;
    }
    dpt_status st = complete ? seeds_sum_up(&m, *list, count) : DPT_ERR_OUTPUT;
    for (int e = 0; m.ids != NULL && e < job->nedits; e++)
        dpt_mem_free(m.ids[e]);
    dpt_mem_free(m.member);
    dpt_mem_free(m.values);
    dpt_mem_free(m.ids);
    if (st != DPT_OK) {
        dpt_seeds_release(*list, *count);
        *list = NULL;
        *count = 0;
    }
    return st;
}

void dpt_seeds_release(dpt_result_seeds *list, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        dpt_result_seeds_destroy(&list[i]);
    dpt_mem_free(list);
}

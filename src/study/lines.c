#include "lines.h"

#include "deltapath/base/mem.h"
#include "deltapath/path/quadrature.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double dpt_line_place(const dpt_line *line, double t) {
    char text[32];
    if (line->slopes == NULL)
        return t;
    snprintf(text, sizeof text, "%.12g", t * line->factor);
    return strtod(text, NULL) + 0.0; /* -0 is 0 */
}

static int lines_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bool dpt_line_has_slope(const dpt_line *line, double place) {
    return line->slopes != NULL && bsearch(&place, line->slopes, (size_t)line->nslopes,
                                           sizeof place, lines_compare) != NULL;
}

/* More is measured of the edit that is bound than its path: it has to be that one. */
static bool lines_are_possible(const dpt_job *job) {
    return job->nedits > 1 && !job->requantises && !job->hessian.edits &&
           job->hessian.blocks == 0 && job->proof.groups == DPT_GROUPS_NONE &&
           job->correlation != DPT_CORRELATION_PATH;
}

/* What is known of the edits while lines are made. */
typedef struct lines_work {
    const dpt_job *job;
    dpt_quadrature quadrature;
    bool shares;
    dpt_edit_spec *unit; /* (edits) */
    double *factor;      /* (edits) 0: it is no multiple */
    bool *seen;          /* (edits) */
    double *all;         /* places of a line with all that is taken there */
} lines_work;

static bool lines_alike(const lines_work *w, int a, int b) {
    return w->factor[a] != 0.0 && w->factor[b] != 0.0 &&
           dpt_edit_spec_compare(&w->unit[a], &w->unit[b]) == 0;
}

static int64_t lines_unique(double *places, int64_t n) {
    int64_t kept = 0;
    qsort(places, (size_t)n, sizeof *places, lines_compare);
    for (int64_t i = 0; i < n; i++)
        if (kept == 0 || places[i] != places[kept - 1])
            places[kept++] = places[i];
    return kept;
}

/* Nodes of the edits of a line that a data set judges (-1: of all), but for the start where it is shared.
 * @return how many there are. */
static int64_t lines_gather_nodes(const lines_work *w, int lead, int data, double *to) {
    const dpt_quadrature *q = &w->quadrature;
    const double start = 0.0;
    int64_t n = 0;
    for (int e = 0; e < w->job->nedits; e++) {
        dpt_line line = {.factor = w->factor[e] / w->factor[lead], .slopes = &start};
        if (!lines_alike(w, e, lead) || !dpt_job_judges(&w->job->edits[e], data))
            continue;
        for (int c = w->shares && q->node[0] == 0.0; c < q->points; c++)
            to[n++] = dpt_line_place(&line, q->node[c]);
    }
    return n;
}

/* The same of the ends of their paths, where the rule has no node. */
static int64_t lines_gather_ends(const lines_work *w, int lead, int data, double *to) {
    const dpt_quadrature *q = &w->quadrature;
    const double start = 0.0;
    int64_t n = 0;
    for (int e = 0; e < w->job->nedits && q->node[q->points - 1] != 1.0; e++) {
        dpt_line line = {.factor = w->factor[e] / w->factor[lead], .slopes = &start};
        if (lines_alike(w, e, lead) && dpt_job_judges(&w->job->edits[e], data))
            to[n++] = dpt_line_place(&line, 1.0);
    }
    return n;
}

/* What a data set need not take twice; an end where the line has slopes is taken as slopes. */
static void lines_spare(const lines_work *w, const dpt_line *line, int data, dpt_lines *out) {
    int64_t nodes = lines_gather_nodes(w, line->lead, data, w->all), slopes = 0;
    int64_t ends = lines_gather_ends(w, line->lead, data, w->all + nodes);
    int64_t taken = lines_unique(w->all, nodes + ends);
    for (int64_t i = 0; i < taken; i++)
        slopes += dpt_line_has_slope(line, w->all[i]);
    out->spared_slopes[data] += nodes - slopes;
    out->spared_losses[data] += ends - (taken - slopes);
}

/* The edits that are like `first`, which is the first of them. @param[in,out] places free room for slopes. */
static void lines_make(lines_work *w, int first, double **places, dpt_lines *out) {
    int lead = first, count = 0;
    for (int e = first; e < w->job->nedits; e++) {
        if (!lines_alike(w, e, first))
            continue;
        w->seen[e] = true;
        count++;
        if (fabs(w->factor[e]) > fabs(w->factor[lead]))
            lead = e;
    }
    if (count < 2)
        return;
    int64_t taken = lines_gather_nodes(w, lead, -1, w->all);
    taken += lines_gather_ends(w, lead, -1, w->all + taken);
    if (taken == lines_unique(w->all, taken))
        return;
    int64_t slopes = lines_unique(*places, lines_gather_nodes(w, lead, -1, *places));
    const dpt_line line = {.lead = lead, .slopes = *places, .nslopes = slopes};
    for (int e = first; e < w->job->nedits; e++)
        if (lines_alike(w, e, first)) {
            out->edits[e] = line;
            out->edits[e].factor = w->factor[e] / w->factor[lead];
        }
    for (int d = 0; d < w->job->njudged; d++)
        lines_spare(w, &line, d, out);
    *places += slopes;
}

static dpt_status lines_find(lines_work *w, dpt_lines *out) {
    const dpt_job *job = w->job;
    int64_t edits = job->nedits, points = w->quadrature.points + 1;
    w->unit = dpt_mem_alloc(edits, sizeof *w->unit, "units of edits");
    w->factor = dpt_mem_zalloc(edits, sizeof *w->factor, "factors of edits");
    w->seen = dpt_mem_zalloc(edits, sizeof *w->seen, "lines of edits");
    w->all = dpt_mem_alloc(edits * points, sizeof *w->all, "places of edits");
    out->places = dpt_mem_alloc(edits * points, sizeof *out->places, "places of edits");
    if (w->unit == NULL || w->factor == NULL || w->seen == NULL || w->all == NULL ||
        out->places == NULL)
        return DPT_ERR_OUTPUT;
    for (int e = 0; e < job->nedits; e++)
        if (job->edits[e].auto_data >= 0 ||
            !dpt_edit_unit(&job->edits[e].spec, &w->unit[e], &w->factor[e]))
            w->factor[e] = 0.0;
    double *places = out->places;
    for (int e = 0; e < job->nedits; e++)
        if (w->factor[e] != 0.0 && !w->seen[e])
            lines_make(w, e, &places, out);
    return DPT_OK;
}

dpt_status dpt_lines_create(const dpt_inputs *in, bool shares, dpt_lines *out) {
    const dpt_job *job = in->job;
    lines_work work = {.job = job, .shares = shares};
    *out = (dpt_lines){.edits = NULL};
    out->edits = dpt_mem_zalloc(job->nedits, sizeof *out->edits, "lines of edits");
    out->spared_slopes = dpt_mem_zalloc(job->njudged, sizeof *out->spared_slopes, "passes");
    out->spared_losses = dpt_mem_zalloc(job->njudged, sizeof *out->spared_losses, "passes");
    bool room = out->edits != NULL && out->spared_slopes != NULL && out->spared_losses != NULL;
    dpt_status st = room ? DPT_OK : DPT_ERR_OUTPUT;
    for (int e = 0; e < job->nedits && st == DPT_OK; e++)
        out->edits[e] = (dpt_line){.lead = e, .factor = 1.0};
    if (st == DPT_OK && lines_are_possible(job)) {
        st = dpt_quadrature_create(job->rule, job->points, &work.quadrature);
        if (st == DPT_OK)
            st = lines_find(&work, out);
    }
    dpt_mem_free(work.unit);
    dpt_mem_free(work.factor);
    dpt_mem_free(work.seen);
    dpt_mem_free(work.all);
    if (st != DPT_OK)
        dpt_lines_destroy(out);
    return st;
}

void dpt_lines_destroy(dpt_lines *lines) {
    dpt_mem_free(lines->edits);
    dpt_mem_free(lines->places);
    dpt_mem_free(lines->spared_slopes);
    dpt_mem_free(lines->spared_losses);
    *lines = (dpt_lines){.edits = NULL};
}

#include "plan_scaling.h"
#include "plan_plot.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BAR = 20 };

dpt_status dpt_plan_scale_divide(const dpt_inputs *in, dpt_plan_scale *scale) {
    const dpt_job *job = in->job;
    bool model = dpt_inputs_needs_model(in);
    int group = model && job->tensor_parallel > 0 ? job->tensor_parallel : 1;
    int first = scale->first > job->svd_group ? scale->first : job->svd_group, last = scale->last;
    first += (group - first % group) % group;
    last -= last % group;
    if (scale->last == 0)
        return DPT_OK;
    if (first > last)
        return dpt_error(DPT_ERR_USAGE,
                         "--ranks %d..%d: on no number of ranks there are groups of "
                         "tensor_parallel: %d and svd_group: %d: raise the second number",
                         scale->first, scale->last, job->tensor_parallel, job->svd_group);
    scale->first = first;
    scale->last = last;
    return DPT_OK;
}

static double scaling_nodes(const dpt_resources *res) {
    return ceil((double)res->ranks / res->ranks_per_node);
}

static double scaling_node_hours(const dpt_resources *res) {
    return scaling_nodes(res) * res->seconds / 3600.0;
}

/* What ranks are worth, against the first row. */
static double scaling_efficiency(const dpt_resources *first, const dpt_resources *res) {
    return first->seconds * first->ranks / (res->seconds * res->ranks);
}

static void scaling_print_row(const dpt_resources *first, const dpt_resources *res) {
    char bar[BAR + 1] = "", mesh[32];
    double efficiency = scaling_efficiency(first, res);
    int length = (int)lround(fmin(fmax(efficiency, 0.0), 1.0) * BAR);
    memset(bar, '#', (size_t)length);
    bar[length] = '\0';
    snprintf(mesh, sizeof mesh, "%d x %d", res->ranks / res->tensor_parallel, res->tensor_parallel);
    printf("%6d %6.0f %12s %10.4g %12.4g %10.2f %6.2f %s\n", res->ranks, scaling_nodes(res), mesh,
           res->seconds / 3600.0, scaling_node_hours(res), (double)res->peak / 1073741824.0,
           efficiency, bar);
}

static void scaling_note(dpt_plan_points *points, const dpt_resources *res) {
    if (points->count == DPT_PLAN_POINTS)
        return;
    points->at[points->count++] = (dpt_plan_point){.ranks = res->ranks,
                                                   .hours = res->seconds / 3600.0,
                                                   .node_hours = scaling_node_hours(res),
                                                   .gib = (double)res->peak / 1073741824.0};
}

static bool scaling_is_better(const dpt_resources *res, const dpt_resources *best, double seconds) {
    if (seconds > 0.0 && res->seconds > seconds)
        return false;
    return best->ranks == 0 || scaling_node_hours(res) < 0.999 * scaling_node_hours(best);
}

static int scaling_next(int ranks, const dpt_plan_scale *scale) {
    return ranks < scale->last && 2 * ranks > scale->last ? scale->last : 2 * ranks;
}

/* One number of ranks; *fits says whether there is a plan. */
static dpt_status scaling_plan(const dpt_inputs *in, dpt_plan_case of, int ranks,
                               dpt_resources *res, bool *fits) {
    of.ranks = ranks;
    dpt_status st = dpt_resources_plan(in, &of, res);
    *fits = st == DPT_OK;
    if (st == DPT_ERR_OUTPUT) {
        dpt_error_clear();
        st = DPT_OK;
    }
    return st;
}

static dpt_status scaling_print_json(json_t *rows, const dpt_inputs *in,
                                     const dpt_resources *best) {
    json_t *cheapest = best->ranks > 0 ? dpt_resources_json(in, best) : json_null();
    return dpt_resources_print_json(json_pack("{s:o, s:o}", "scaling", rows, "cheapest", cheapest));
}

static dpt_status scaling_conclude(const dpt_inputs *in, const dpt_resources *best,
                                   const dpt_plan_case *of, const dpt_plan_scale *scale) {
    if (best->ranks == 0)
        return dpt_error(DPT_ERR_OUTPUT,
                         "no number of ranks from %d to %d does study %s within %.1f MiB a %s%s: "
                         "raise --memory, --time or --ranks",
                         scale->first, scale->last, in->job->name,
                         (double)(of->budget > 0 ? of->budget : of->granted) / 1048576.0,
                         of->budget > 0 ? "rank" : "node",
                         scale->seconds > 0.0 ? " and the time that --time grants" : "");
    if (!scale->json)
        printf("cheapest: %d ranks on %.0f nodes, %d data x %d tensor-parallel: %.4g hours, %.4g "
               "node hours, %.2f GiB a rank\n",
               best->ranks, scaling_nodes(best), best->ranks / best->tensor_parallel,
               best->tensor_parallel, best->seconds / 3600.0, scaling_node_hours(best),
               (double)best->peak / 1073741824.0);
    return DPT_OK;
}

dpt_status dpt_plan_print_scaling(const dpt_inputs *in, const dpt_plan_case *of,
                                  const dpt_plan_scale *scale) {
    dpt_resources first = {.ranks = 0}, best = {.ranks = 0};
    dpt_plan_points points = {.count = 0};
    dpt_status st = DPT_OK;
    json_t *rows = json_array();
    if (!scale->json)
        printf("study %s, by %s\n%6s %6s %12s %10s %12s %10s %6s efficiency\n", in->job->name,
               of->machine.source, "ranks", "nodes", "mesh", "hours", "node hours", "GiB/rank", "");
    for (int ranks = scale->first; ranks <= scale->last && st == DPT_OK;
         ranks = scaling_next(ranks, scale)) {
        dpt_resources res;
        bool fits;
        st = scaling_plan(in, *of, ranks, &res, &fits);
        if (st == DPT_OK && !fits && !scale->json)
            printf("%6d %6s %12s beyond the memory of a rank\n", ranks, "-", "-");
        if (st != DPT_OK || !fits)
            continue;
        first = first.ranks == 0 ? res : first;
        scaling_note(&points, &res);
        if (scale->json)
            json_array_append_new(rows, dpt_resources_json(in, &res));
        else
            scaling_print_row(&first, &res);
        if (scaling_is_better(&res, &best, scale->seconds))
            best = res;
    }
    if (st == DPT_OK && scale->json)
        st = scaling_print_json(rows, in, &best);
    else
        json_decref(rows);
    if (st == DPT_OK && scale->plot != NULL && points.count > 0)
        st = dpt_plan_plot(scale->plot, in->job->name, &points);
    return st == DPT_OK ? scaling_conclude(in, &best, of, scale) : st;
}

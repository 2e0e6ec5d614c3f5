#include "allocate.h"

#include "allocation.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/edit/choices.h"
#include "deltapath/tensor/role.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* In the order of the choices of `by`. */
enum { BY_TENSOR, BY_GROUP, BY_UNIFORM };

/* Curvatures are rounded to this part of a power of two. */
static const double ALLOCATE_STEPS = 16.0;

typedef struct allocate_work {
    const dpt_job_edit *edit;
    const dpt_edit_stage_spec *stage;
    const dpt_catalog *catalog; /* of the output */
    dpt_edit_choices choices;
    dpt_allocation of;
    double *cost, *size; /* (choices) */
    int64_t *chosen;     /* (tensors) */
    int64_t *best;       /* (tensors) */
    bool *in_group;      /* (tensors) */
    const char *group;   /* the one that was chosen */
} allocate_work;

static bool allocate_by_mean(const dpt_edit_stage_spec *stage) {
    return dpt_edit_stage_given(stage, "mean");
}

/* Entries that the tensors with choices have. */
static double allocate_entries(const allocate_work *work) {
    double sum = 0.0;
    for (int t = 0; t < work->of.n; t++)
        if (work->of.first[t] < work->of.first[t + 1])
            sum += (double)work->catalog->tensors[t].numel;
    return sum;
}

/* Bytes of the tensors that have no choice. */
static double allocate_rest(const allocate_work *work) {
    double sum = dpt_edit_size_dense(work->catalog);
    for (int t = 0; t < work->of.n; t++)
        if (work->of.first[t] < work->of.first[t + 1])
            sum -= work->choices.bytes[work->of.first[t + 1] - 1];
    return sum;
}

/* What the sizes add up to at most: bytes, or entries times what each keeps. */
static double allocate_budget(const allocate_work *work) {
    double bytes = dpt_edit_stage_get(work->stage, "bytes");
    if (allocate_by_mean(work->stage)) {
        double mean = dpt_edit_stage_get(work->stage, "mean");
        bool bits = dpt_edit_stage_get(work->stage, "edit") == 2.0;
        return allocate_entries(work) * (bits ? mean : 1.0 - mean) * (1.0 + 1e-12);
    }
    if (bytes <= 1.0)
        bytes *= dpt_edit_size_dense(work->catalog);
    return bytes - allocate_rest(work);
}

/* The kept share that meets the size when it is the same in all tensors; NaN where shares are not what is chosen. */
static double allocate_uniform_share(const dpt_edit_stage_spec *stage, const dpt_catalog *catalog) {
    double edit = dpt_edit_stage_get(stage, "edit");
    double dense = dpt_edit_size_dense(catalog), n = (double)dpt_catalog_elements(catalog);
    if (edit > 1.0)
        return NAN;
    if (allocate_by_mean(stage))
        return 1.0 - dpt_edit_stage_get(stage, "mean");
    double bytes = dpt_edit_stage_get(stage, "bytes");
    bytes = bytes <= 1.0 ? bytes * dense : bytes;
    double share = fmax((bytes - n / 8.0) / dense, bytes / (dense + 2.0 * n));
    return share > 0.0 && share < 1.0 ? floor(share * 1e4) / 1e4 : NAN;
}

static double allocate_round(double c) {
    return c > 0.0 ? exp2(round(log2(c) * ALLOCATE_STEPS) / ALLOCATE_STEPS) : 0.0;
}

static dpt_status allocate_prepare(allocate_work *work, const dpt_law *law) {
    const dpt_edit_choices *choices = &work->choices;
    int n = choices->tensors;
    int64_t count = choices->first[n];
    work->cost = dpt_mem_alloc(count, sizeof *work->cost, "costs of an allocation");
    work->size = dpt_mem_alloc(count, sizeof *work->size, "sizes of an allocation");
    work->chosen = dpt_mem_alloc(n, sizeof *work->chosen, "an allocation");
    work->best = dpt_mem_alloc(n, sizeof *work->best, "an allocation");
    work->in_group = dpt_mem_alloc(n, sizeof *work->in_group, "a group of tensors");
    if (!work->cost || !work->size || !work->chosen || !work->best || !work->in_group)
        return DPT_ERR_OUTPUT;
    bool mean = allocate_by_mean(work->stage);
    for (int t = 0; t < n; t++)
        for (int64_t j = choices->first[t]; j < choices->first[t + 1]; j++) {
            double numel = (double)work->catalog->tensors[t].numel;
            work->cost[j] = allocate_round(law->mean[t]) * choices->lost[j];
            work->size[j] = mean ? numel * choices->level[j] : choices->bytes[j];
        }
    work->of = (dpt_allocation){.n = n,
                                .first = choices->first,
                                .size = work->size,
                                .cost = work->cost,
                                .level = choices->level};
    work->of.budget = allocate_budget(work);
    return DPT_OK;
}

/* Whether the smallest choices of all tensors fit, whatever the groups. */
static dpt_status allocate_check_size(const allocate_work *work) {
    double least = 0.0;
    for (int t = 0; t < work->of.n; t++) {
        double size = INFINITY;
        for (int64_t j = work->of.first[t]; j < work->of.first[t + 1]; j++)
            size = fmin(size, work->size[j]);
        least += isfinite(size) ? size : 0.0;
    }
    if (least <= work->of.budget)
        return DPT_OK;
    if (allocate_by_mean(work->stage))
        return dpt_error(DPT_ERR_USAGE,
                         "mean %g asks for less than the smallest choice of every "
                         "tensor: give one that keeps more",
                         dpt_edit_stage_get(work->stage, "mean"));
    return dpt_error(
        DPT_ERR_USAGE,
        "bytes %g: the smallest choice of every tensor, with what is kept whole, takes "
        "%.0f bytes: give that or more",
        dpt_edit_stage_get(work->stage, "bytes"), ceil(least + allocate_rest(work)));
}

/* Groups: all, the matrices of the layers, what lies outside the layers, and each kind of module. */
enum { GROUP_ALL, GROUP_LAYERS, GROUP_OUTSIDE, GROUP_KINDS, GROUPS = GROUP_KINDS + DPT_ROLE_COUNT };

static const char *allocate_group(const allocate_work *work, int group) {
    static const char *const names[] = {"all tensors", "matrices of the layers",
                                        "outside the layers"};
    for (int t = 0; t < work->of.n; t++) {
        const dpt_tensor_info *info = &work->catalog->tensors[t];
        dpt_role role = dpt_role_of(info->name);
        bool in[] = {true, role.layer >= 0 && dpt_role_is_linear(info), role.layer < 0};
        work->in_group[t] = group < GROUP_KINDS ? in[group] : (int)role.kind == group - GROUP_KINDS;
    }
    return group < GROUP_KINDS ? names[group] : dpt_role_name((dpt_role_kind)(group - GROUP_KINDS));
}

/* One value for the tensors of a group; of several groups the one that is predicted to cost least. */
static dpt_status allocate_by_groups(allocate_work *work, int first, int last) {
    double least = INFINITY;
    for (int group = first; group <= last; group++) {
        const char *name = allocate_group(work, group);
        if (!dpt_allocation_by_group(&work->of, work->in_group, work->chosen))
            continue;
        double cost = dpt_allocation_sum(&work->of, work->cost, work->chosen);
        if (cost >= least)
            continue;
        least = cost;
        work->group = name;
        memcpy(work->best, work->chosen, (size_t)work->of.n * sizeof *work->best);
    }
    memcpy(work->chosen, work->best, (size_t)work->of.n * sizeof *work->best);
    return work->group != NULL
               ? DPT_OK
               : dpt_error(DPT_ERR_USAGE, "allocate: one value for a group of tensors does not "
                                          "meet the size: allow more, or choose by: tensor");
}

static dpt_status allocate_choose(allocate_work *work) {
    switch ((int)dpt_edit_stage_get(work->stage, "by")) {
    case BY_GROUP:
        return allocate_by_groups(work, GROUP_ALL, GROUPS - 1);
    case BY_UNIFORM:
        return allocate_by_groups(work, GROUP_ALL, GROUP_ALL);
    default:
        return dpt_allocation_by_item(&work->of, work->chosen);
    }
}

static dpt_status allocate_note(const allocate_work *work, dpt_auto_alpha *out) {
    double all = allocate_by_mean(work->stage) ? allocate_entries(work) : 1.0;
    double size = dpt_allocation_sum(&work->of, work->size, work->chosen) / all;
    bool dropped = allocate_by_mean(work->stage) && dpt_edit_stage_get(work->stage, "edit") != 2.0;
    dpt_status st = dpt_auto_alpha_note(out, "allocated_cost", "%.6g",
                                        dpt_allocation_sum(&work->of, work->cost, work->chosen));
    if (st == DPT_OK && allocate_by_mean(work->stage))
        st = dpt_auto_alpha_note(out, "allocated_mean", "%.6g", dropped ? 1.0 - size : size);
    if (st == DPT_OK && work->group != NULL)
        st = dpt_auto_alpha_note(out, "allocated_group", "%s", work->group);
    return st;
}

/* The spec of the method with the values that were chosen. */
static dpt_status allocate_take(const allocate_work *work, dpt_auto_alpha *out) {
    const dpt_edit_choices *choices = &work->choices;
    out->alpha = dpt_mem_alloc(choices->tensors, sizeof *out->alpha, "allocated values");
    if (out->alpha == NULL)
        return DPT_ERR_OUTPUT;
    for (int t = 0; t < choices->tensors; t++)
        out->alpha[t] = work->chosen[t] >= 0 ? choices->value[work->chosen[t]] : NAN;
    out->spec = work->edit->spec;
    dpt_edit_allocate_stage(work->stage, &out->spec.stages[0]);
    out->spec.stages[0].tensor_values = out->alpha;
    return allocate_note(work, out);
}

dpt_status dpt_allocate_find(const dpt_job_edit *edit, const dpt_law *law,
                             const dpt_edit_input *input, const dpt_catalog *out_catalog,
                             dpt_auto_alpha *out) {
    DPT_ASSERT_SAME_TEXT(input->comm, edit->id);
    allocate_work work = {.edit = edit, .stage = &edit->spec.stages[0], .catalog = out_catalog};
    *out = (dpt_auto_alpha){.nnotes = 0};
    dpt_status st =
        dpt_edit_choices_create(work.stage, edit->spec.seed, input, out_catalog,
                                allocate_uniform_share(work.stage, out_catalog), &work.choices);
    if (st == DPT_OK)
        st = dpt_agree(input->comm, allocate_prepare(&work, law));
    if (st == DPT_OK)
        st = allocate_check_size(&work);
    if (st == DPT_OK)
        st = allocate_choose(&work);
    if (st == DPT_OK)
        st = allocate_take(&work, out);
    st = dpt_agree(input->comm, st);
    if (st == DPT_OK)
        dpt_log(DPT_LOG_INFO, "%s: allocated, predicted cost %.4g nats", edit->id,
                dpt_allocation_sum(&work.of, work.cost, work.chosen));
    else
        dpt_auto_alpha_destroy(out);
    dpt_mem_free(work.cost);
    dpt_mem_free(work.size);
    dpt_mem_free(work.chosen);
    dpt_mem_free(work.best);
    dpt_mem_free(work.in_group);
    dpt_edit_choices_destroy(&work.choices);
    return st;
}

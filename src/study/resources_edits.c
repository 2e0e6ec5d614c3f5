#include "resources.h"

#include "deltapath/base/mem.h"
#include "line_join.h"
#include "sweep.h"

/* What the edits of a study need of a rank. */

enum { WRITER_TENSOR = 1 << 10 }; /* of a model that is written: hash, name and place of a tensor */

/* Of a model that is written next to others, and what it takes to write deltas. */
static int64_t edits_writer(const dpt_inputs *in, bool together) {
    int64_t deltas =
        in->job->content == DPT_STORE_DELTA ? 3 * (int64_t)DPT_CELL * (int64_t)sizeof(float) : 0;
    int64_t tensors = together ? (int64_t)in->catalog->count * WRITER_TENSOR : 0;
    return in->job->checkpoint != DPT_STORE_NONE ? deltas + tensors : 0;
}

bool dpt_resources_in_cells(const dpt_inputs *in) {
    return dpt_inputs_needs_model(in) || in->job->requantises;
}

static int64_t edits_larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

dpt_edit_input dpt_resources_edit_input(const dpt_inputs *in, const dpt_shard *shard,
                                        int64_t svd_room) {
    return (dpt_edit_input){.shard = shard,
                            .pre = {.catalog = &in->pair.catalog},
                            .post = {.catalog = in->catalog},
                            .parts = &in->parts,
                            .comparable = in->pair.comparable,
                            .selected = in->selected,
                            .svd_group = in->job->svd_group,
                            .svd_room = svd_room};
}

static dpt_edit_needs edits_measure(const dpt_inputs *in, const dpt_shard *shard, int64_t room,
                                    int e) {
    const dpt_edit_input input = dpt_resources_edit_input(in, shard, room);
    const dpt_job_edit *edit = &in->job->edits[e];
    bool gradient = dpt_inputs_needs_model(in) && edit->gradient_data >= 0;
    return dpt_edit_bytes(&edit->spec, &input, &in->out_catalog, gradient);
}

/* The most that a group of edits needs, with so many of them at most. @param[in] needs (edits). @param[out] together  of
 * the largest group. */
static int64_t edits_need(const dpt_inputs *in, int limit, const dpt_edit_needs *needs,
                          int *together) {
    int64_t most = 0;
    *together = 1;
    for (int e = 0; e < in->job->nedits;) {
        dpt_sweep_group group;
        dpt_edit_needs all = {.held = 0};
        e = dpt_sweep_group_at(in->job, limit, NULL, e, &group);
        for (int i = 0; i < group.count; i++) {
            const dpt_edit_needs *one = &needs[group.edits[i]];
            all.shared = edits_larger(all.shared, one->shared);
            all.step = edits_larger(all.step, one->step);
            all.held += one->held + edits_writer(in, group.count > 1);
        }
        most = edits_larger(most, all.shared + all.held + all.step);
        *together = group.count > *together ? group.count : *together;
    }
    return most;
}

/* A place among the largest, which fall. */
static void edits_rank(int64_t value, int limit, int *count, int64_t *largest) {
    int i = *count < limit ? (*count)++ : limit;
    for (; i > 0 && largest[i - 1] < value; i--)
        if (i < limit)
            largest[i] = largest[i - 1];
    if (i < limit)
        largest[i] = value;
}

/* The most that any `limit` edits need which can be made together: in a study that goes on, or of which a part is asked for,
 * others follow each other than in the job. */
static int64_t edits_most(const dpt_inputs *in, int limit, const dpt_edit_needs *needs) {
    dpt_edit_needs all = {.held = 0};
    int64_t largest[DPT_SWEEP_MOST], most = 0;
    int count = 0;
    for (int e = 0; e < in->job->nedits; e++) {
        const dpt_edit_needs *one = &needs[e];
        most = edits_larger(most, one->shared + one->held + edits_writer(in, false) + one->step);
        if (!dpt_edit_joins(&in->job->edits[e].spec))
            continue;
        all.shared = edits_larger(all.shared, one->shared);
        all.step = edits_larger(all.step, one->step);
        edits_rank(one->held + edits_writer(in, true), limit, &count, largest);
    }
    for (int i = 0; i < count; i++)
        all.held += largest[i];
    return count > 1 ? edits_larger(most, all.shared + all.held + all.step) : most;
}

/* What the budget leaves a decomposition, without what edits hold besides and the least that the mesh does. It follows from
 * the job, the budget and the ranks alone, not from threads, so that a plan, a run and one that goes on choose the same
 * groups. */
static int64_t edits_svd_room(const dpt_inputs *in, const dpt_resources *res, int64_t models,
                              const dpt_edit_needs *needs) {
    int64_t most = 0, mesh = 0, cells = 3 * (int64_t)DPT_CELL * (int64_t)sizeof(float);
    for (int e = 0; e < in->job->nedits; e++)
        most = edits_larger(most, cells + needs[e].held + edits_writer(in, false));
    if (dpt_inputs_needs_model(in))
        mesh = (dpt_catalog_bytes(in->catalog) + dpt_catalog_bytes(&in->out_catalog)) / res->ranks +
               dpt_line_bytes(in);
    return edits_larger(res->budget - models - res->field - mesh - most, 1);
}

dpt_status dpt_resources_measure_edits(const dpt_inputs *in, const dpt_shard *shard,
                                       dpt_resources *res) {
    const dpt_store_layout layout = dpt_job_layout(in->job);
    int64_t models = dpt_store_read_bytes(in->pre) + dpt_store_read_bytes(in->post) +
                     dpt_store_layout_bytes(&layout); /* models are completed one at a time */
    const int64_t budget = res->budget - res->models.kept;
    int count = in->job->nedits, limit = dpt_resources_in_cells(in) ? 1 : dpt_sweep_most(in);
    dpt_edit_needs *needs = dpt_mem_alloc(count, sizeof *needs, "needs of edits");
    if (needs == NULL)
        return DPT_ERR_OUTPUT;
    for (int e = 0; e < count; e++)
        needs[e] = edits_measure(in, shard, 0, e);
    res->svd_room = edits_svd_room(in, res, models + res->models.kept, needs);
    for (int e = 0; e < count; e++)
        if (!dpt_edit_joins(&in->job->edits[e].spec))
            needs[e] = edits_measure(in, shard, res->svd_room, e);
    while (limit > 1 && edits_most(in, limit, needs) + models > budget)
        limit--;
    res->edit = edits_need(in, limit, needs, &res->together) + models;
    if (dpt_inputs_needs_model(in))
        res->edit += dpt_line_bytes(in);
    dpt_mem_free(needs);
    return DPT_OK;
}

#include "decomposed.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "plane.h"
#include "significance.h"

#include <inttypes.h>

dpt_status dpt_decomposed_create(const dpt_inputs *in, int64_t room, dpt_decomposed *out) {
    out->factors = dpt_edit_factors_create(room, in->parts.count);
    out->specs = dpt_mem_alloc(in->job->nedits, sizeof *out->specs, "edits that are expected");
    if (out->factors != NULL && out->specs != NULL)
        return DPT_OK;
    dpt_decomposed_destroy(out);
    return DPT_ERR_OUTPUT;
}

void dpt_decomposed_destroy(dpt_decomposed *decomposed) {
    dpt_edit_factors_destroy(decomposed->factors);
    dpt_mem_free(decomposed->specs);
    *decomposed = (dpt_decomposed){.factors = NULL};
}

void dpt_decomposed_begin(const dpt_inputs *in, int e, const bool *finished,
                          dpt_decomposed *decomposed) {
    const dpt_job *job = in->job;
    int count = 0, entry = e < job->nedits ? job->edits[e].entry : -1;
    for (int i = e; i < job->nedits && job->edits[i].entry == entry; i++)
        if (finished == NULL || !finished[i])
            decomposed->specs[count++] = &job->edits[i].spec;
    dpt_edit_factors_expect(decomposed->factors, count, decomposed->specs);
}

dpt_status dpt_decomposed_log(const dpt_comm *comm, const dpt_decomposed *decomposed) {
    dpt_edit_decomposed done = dpt_edit_factors_count(decomposed->factors);
    int64_t counts[2] = {done.made, done.taken}, bytes = done.bytes;
    dpt_status st = dpt_comm_sum_i64(comm, counts, 2);
    if (st == DPT_OK)
        st = dpt_comm_max_i64(comm, &bytes, 1);
    st = dpt_agree(comm, st);
    if (st != DPT_OK || done.least == 0)
        return st;
    char shared[32];
    int length = snprintf(shared, sizeof shared, "%d", done.least);
    if (done.most > done.least)
        snprintf(shared + length, sizeof shared - (size_t)length, " to %d", done.most);
    dpt_log(DPT_LOG_INFO,
            "low rank: %" PRId64 " matrices decomposed, %" PRId64
            " cut from decompositions that were kept (%.1f MiB a rank); ranks that share a matrix: "
            "%s",
            counts[0], counts[1], (double)bytes / 1048576.0, shared);
    return DPT_OK;
}

bool dpt_decomposed_any(const dpt_inputs *in) {
    const dpt_edit_input input = dpt_resources_edit_input(in, NULL, 0);
    double flops;
    for (int e = 0; e < in->job->nedits; e++)
        if (dpt_edit_decompositions(&in->job->edits[e].spec, &input, &flops) > 0.0)
            return true;
    return false;
}

/* One time that an edit is made. @param[in,out] sought  matrices that are decomposed for what `allocate` seeks. */
static dpt_status decomposed_foresee(const dpt_inputs *in, const dpt_edit_spec *spec,
                                     dpt_decomposed *decomposed, dpt_resources *res,
                                     double *sought) {
    const dpt_edit_input input = dpt_resources_edit_input(in, NULL, res->svd_room);
    double flops, count = dpt_edit_decompositions(spec, &input, &flops);
    int64_t before = dpt_edit_factors_count(decomposed->factors).taken;
    if (count == 0.0)
        return DPT_OK;
    dpt_status st = dpt_edit_factors_foresee(decomposed->factors, spec, &input, res->ranks);
    if (dpt_edit_stage_is_auto(&spec->stages[0]))
        *sought += count;
    if (dpt_edit_factors_count(decomposed->factors).taken > before)
        res->bytes_shared += dpt_resources_decomposed_bytes(in, spec);
    else
        res->flops_svd += flops;
    return st;
}

dpt_status dpt_decomposed_plan(const dpt_inputs *in, int64_t room, dpt_resources *res) {
    const dpt_job *job = in->job;
    dpt_decomposed decomposed;
    double sought = 0.0;
    dpt_status st = dpt_decomposed_create(in, room, &decomposed);
    if (st != DPT_OK)
        return st;
    res->flops_svd = res->bytes_shared = 0.0;
    for (int e = 0; e < job->nedits && st == DPT_OK; e++) {
        const dpt_edit_spec *spec = &job->edits[e].spec;
        dpt_decomposed_begin(in, e, NULL, &decomposed);
        for (int run = 0; run <= (int)dpt_significance_is_wanted(spec) && st == DPT_OK; run++)
            st = decomposed_foresee(in, spec, &decomposed, res, &sought);
    }
    dpt_decomposed_begin(in, job->nedits, NULL, &decomposed);
    for (int e = 0; e < job->nedits && st == DPT_OK; e++)
        if (dpt_plane_has(job, e))
            st = decomposed_foresee(in, &job->edits[e].spec, &decomposed, res, &sought);
    res->decomposed = dpt_edit_factors_count(decomposed.factors);
    res->decomposed.made += (int64_t)sought;
    dpt_decomposed_destroy(&decomposed);
    return st;
}

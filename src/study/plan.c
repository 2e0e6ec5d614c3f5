#include "plan.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/comm/shared.h"
#include "deltapath/model/model.h"
#include "checks.h"
#include "decomposed.h"
#include "memory.h"
#include "plan_scaling.h"

#include <omp.h>

/* The machine of a plan: that of a file, or the one that runs this. */
static dpt_status plan_take_machine(const dpt_comm *comm, const dpt_inputs *in,
                                    const dpt_study_options *options, dpt_plan_case *of) {
    dpt_status st = DPT_OK;
    if (options->machine != NULL) {
        st = dpt_machine_read(comm, options->machine, &of->machine);
        if (st == DPT_OK && of->machine.memory_gib > 0.0) /* as dpt_memory_granted has it */
            of->granted = (int64_t)(0.9 * of->machine.memory_gib * 1073741824.0);
        return st;
    }
    if (options->plan_ranks == 0 && of->ranks_per_node == 0)
        st = dpt_agree(comm, dpt_comm_local_size(comm, &of->ranks_per_node));
    if (st == DPT_OK && options->plan_ranks == 0)
        st = dpt_comm_count_machines(comm, &of->machines);
    of->glanced = true;
    bool bf16 = in->job->precision == (int)DPT_PRECISION_BF16;
    bool products = dpt_inputs_needs_model(in) || dpt_decomposed_any(in);
    return st == DPT_OK ? dpt_machine_glance(comm, products, bf16, &of->machine) : st;
}

/* The table of a plan, of one number of ranks or of many. For rank 0. */
static dpt_status plan_print(const dpt_inputs *in, const dpt_resources *res,
                             const dpt_plan_scale *scale, const dpt_plan_case *of) {
    if (scale->last > 0)
        return dpt_plan_print_scaling(in, of, scale);
    if (scale->json)
        return dpt_resources_print_json(dpt_resources_json(in, res));
    dpt_resources_print(in, res);
    return DPT_OK;
}

dpt_status dpt_plan_study(const dpt_comm *comm, dpt_inputs *in, const dpt_study_options *options,
                          dpt_resources *res) {
    DPT_ASSERT_SAME(comm, options->plan_ranks);
    DPT_ASSERT_SAME(comm, options->plan_last);
    DPT_ASSERT_SAME(comm, options->memory);
    dpt_plan_scale scale = {.first = options->plan_ranks > 0 ? options->plan_ranks : comm->size,
                            .last = options->plan_last,
                            .seconds = options->plan_seconds,
                            .json = options->json,
                            .plot = options->plot};
    dpt_status st = dpt_agree(comm, dpt_plan_scale_divide(in, &scale));
    dpt_plan_case of = {.ranks = scale.first,
                        .threads = omp_get_max_threads(),
                        .verifies = options->verify_inputs,
                        .ranks_per_node = options->ranks_per_node};
    if (st == DPT_OK)
        st = dpt_memory_granted(comm, &of.granted);
    of.budget = options->memory;
    if (st == DPT_OK && options->plan_ranks == 0) /* those that run share what there is */
        st = dpt_memory_budget(comm, options->memory, &of.budget);
    if (st == DPT_OK)
        st = plan_take_machine(comm, in, options, &of);
    if (st != DPT_OK)
        return st;
    dpt_mem_set_budget(options->plan_ranks > 0 ? 0 : of.budget);
    st = dpt_agree(comm, dpt_resources_plan(in, &of, res));
    /* Of many numbers of ranks some may do where the first does not. */
    bool scales = scale.last > 0 && st == DPT_ERR_OUTPUT;
    if (scales) {
        dpt_error_clear();
        st = DPT_OK;
    }
    /* The needs count threads, which may differ between machines: one plan for all. */
    if (st == DPT_OK)
        st = dpt_agree(comm, dpt_comm_broadcast(comm, res, sizeof *res, 0));
    if (st == DPT_OK)
        st = dpt_checks_run(comm, in, res, options);
    /* Also when the memory does not suffice: the table says for what. Without a mesh there is none. */
    bool planned = res->weights > 0 || !dpt_inputs_needs_model(in);
    dpt_status printed = DPT_OK;
    if (options->dry_run && comm->rank == 0 && (st == DPT_OK || planned))
        printed = plan_print(in, res, &scale, &of);
    return dpt_agree(comm, st != DPT_OK ? st : printed);
}

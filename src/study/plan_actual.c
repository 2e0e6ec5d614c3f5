#include "plan_actual.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/traffic.h"
#include "deltapath/comm/agree.h"

#include <inttypes.h>

/* Planned over taken; 1 where there is nothing of either. */
static double plan_ratio(double planned, double taken) {
    return planned == taken ? 1.0 : planned / taken;
}

dpt_status dpt_plan_compare(const dpt_comm *comm, const dpt_resources *planned,
                            const dpt_pass_counts *passes, double seconds) {
    const double mib = 1048576.0, gb = 1e9;
    dpt_file_traffic moved = dpt_file_counted();
    int64_t peak = dpt_mem_peak(), bytes[2] = {moved.read, moved.written};
    dpt_status st = dpt_comm_max_i64(comm, &peak, 1);
    if (st == DPT_OK)
        st = dpt_comm_sum_i64(comm, bytes, 2);
    st = dpt_agree(comm, st);
    if (st != DPT_OK)
        return st;
    dpt_log(DPT_LOG_INFO,
            "plan against run: memory per rank %.1f / %.1f MiB (%.2f), read %.4f / %.4f GB (%.2f), "
            "written %.4f / %.4f GB (%.2f), passes %.1f / %" PRId64 " forward, %.1f / %" PRId64
            " forward and backward, time %.1f / %.1f s (%.2f)",
            (double)planned->peak / mib, (double)peak / mib,
            plan_ratio((double)planned->peak, (double)peak), planned->bytes_read / gb,
            (double)bytes[0] / gb, plan_ratio(planned->bytes_read, (double)bytes[0]),
            planned->bytes_written / gb, (double)bytes[1] / gb,
            plan_ratio(planned->bytes_written, (double)bytes[1]), planned->loss_evaluations,
            passes->forward, planned->slope_evaluations, passes->backward, planned->seconds,
            seconds, plan_ratio(planned->seconds, seconds));
    return DPT_OK;
}

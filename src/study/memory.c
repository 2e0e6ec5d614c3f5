#include "memory.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <inttypes.h>
#include <sys/resource.h>

static int64_t memory_granted(void) {
    return dpt_mem_machine() / 10 * 9;
}

static dpt_status memory_least(const dpt_comm *comm, int64_t own, int64_t *least) {
    int64_t minimum = -own;
    dpt_status st = dpt_comm_max_i64(comm, &minimum, 1);
    *least = -minimum;
    return st;
}

dpt_status dpt_memory_granted(const dpt_comm *comm, int64_t *bytes) {
    return dpt_agree(comm, memory_least(comm, memory_granted(), bytes));
}

dpt_status dpt_memory_budget(const dpt_comm *comm, int64_t asked, int64_t *budget) {
    int here = 1;
    dpt_status st = dpt_comm_local_size(comm, &here);
    int64_t share = memory_granted() / (here > 0 ? here : 1);
    if (st == DPT_OK)
        st = memory_least(comm, asked > 0 ? asked : share, budget);
    return dpt_agree(comm, st);
}

dpt_status dpt_memory_log_peak(const dpt_comm *comm, int64_t budget) {
    struct rusage usage = {.ru_maxrss = 0};
    getrusage(RUSAGE_SELF, &usage);
    int64_t peak[2] = {dpt_mem_peak(), (int64_t)usage.ru_maxrss * 1024};
    dpt_status st = dpt_agree(comm, dpt_comm_max_i64(comm, peak, 2));
    if (st == DPT_OK)
        dpt_log(DPT_LOG_INFO,
                "peak memory per rank: %" PRId64 " MiB asked for of %" PRId64
                " MiB allowed (%.2f), %" PRId64 " MiB touched, libraries included",
                peak[0] >> 20, budget >> 20, (double)peak[0] / (double)budget, peak[1] >> 20);
    return st;
}

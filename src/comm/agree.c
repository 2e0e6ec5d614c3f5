#include "deltapath/comm/agree.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int world_rank;
static int world_size = 1;

static void agree_end_all(void) {
    int begun = 0, over = 0;
    MPI_Initialized(&begun);
    MPI_Finalized(&over);
    if (begun && !over)
        MPI_Abort(MPI_COMM_WORLD, DPT_ERR_INTERNAL);
}

void dpt_agree_set_world(int rank, int size) {
    world_rank = rank;
    world_size = size;
    dpt_assert_set_world(rank, agree_end_all);
}

dpt_status dpt_agree(const dpt_comm *comm, dpt_status local) {
    local = local == DPT_OK ? dpt_mem_check() : local;
    /* The worst status wins; among its ranks one that has a message, since a status that was agreed
     * before reaches ranks without one; among those the lowest. */
    bool says = local != DPT_OK && dpt_error_message()[0] != '\0';
    int64_t mine = ((int64_t)dpt_status_severity(local) * 2 + says) * comm->size +
                   (comm->size - 1 - comm->rank);
    int64_t worst = mine;
    (void)dpt_comm_check(MPI_Allreduce(&mine, &worst, 1, MPI_INT64_T, MPI_MAX, comm->mpi),
                         "MPI_Allreduce");
    dpt_status agreed = dpt_status_of_severity((int)(worst / comm->size / 2));
    DPT_ASSERT(dpt_status_severity(agreed) >= dpt_status_severity(local));
    if (agreed == DPT_OK)
        return DPT_OK;
    int speaker = comm->size - 1 - (int)(worst % comm->size);
    char message[DPT_MESSAGE_MAX] = "";
    if (comm->rank == speaker) {
        const char *own = dpt_error_message();
        if (strncmp(own, "[rank ", 6) == 0 || own[0] == '\0')
            snprintf(message, sizeof message, "%s", own);
        else
            snprintf(message, sizeof message, "[rank %d] %.*s", world_rank, DPT_MESSAGE_MAX - 32,
                     own);
    }
    (void)dpt_comm_check(MPI_Bcast(message, sizeof message, MPI_CHAR, speaker, comm->mpi),
                         "MPI_Bcast");
    if (message[0] != '\0')
        dpt_error_set_message(message);
    return agreed;
}

enum { POINT_MAX = 64 };

typedef struct fault_plan {
    char point[POINT_MAX];
    char action[8];
    int rank;
    long nth;
} fault_plan;

static fault_plan fault_parse(const char *text) {
    fault_plan plan = {.rank = -1, .nth = 1};
    char rank[16] = "";
    if (sscanf(text, "%63[^:]:%15[^:]:%ld:%7s", plan.point, rank, &plan.nth, plan.action) >= 2)
        plan.rank = strcmp(rank, "last") == 0 ? world_size - 1 : (int)strtol(rank, NULL, 10);
    return plan;
}

dpt_status dpt_agree_fault(const char *point) {
    static long passed;
    static char counted[2 * POINT_MAX]; /* the request that `passed` counts for */
    const char *text = getenv("DPT_FAULT");
    if (text == NULL || text[0] == '\0')
        return DPT_OK;
    if (strncmp(counted, text, sizeof counted - 1) != 0) {
        snprintf(counted, sizeof counted, "%s", text);
        passed = 0;
    }
    fault_plan plan = fault_parse(text);
    if (plan.rank != world_rank || strcmp(plan.point, point) != 0 || ++passed != plan.nth)
        return DPT_OK;
    if (strcmp(plan.action, "kill") == 0)
        raise(SIGKILL);
    bool signalled = strcmp(plan.action, "usr1") == 0, stopped = strcmp(plan.action, "stop") == 0;
    if (signalled || stopped) {
        raise(stopped ? SIGSTOP : SIGUSR1);
        return DPT_OK;
    }
    return dpt_error(DPT_ERR_OUTPUT, "injected fault at %s", point);
}

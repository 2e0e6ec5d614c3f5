#include "deltapath/comm/stop.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/signal.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TAG_STOP = 1 };

typedef enum stop_reason { STOP_NONE, STOP_SIGNAL, STOP_TIME } stop_reason;

static struct {
    dpt_comm comm; /* size 0: ranks are not connected */
    double limit;  /* dpt_log_seconds() at which time is over; 0: none */
    bool worked;   /* the limit counts */
    int reason;
    int sent;              /* what the messages carry; must stay while they are on their way */
    MPI_Request *requests; /* (size) of the messages to the others; NULL: none was sent */
    int received;          /* messages from others */
} state;

dpt_status dpt_stop_create(const dpt_comm *comm, double started, double seconds) {
    DPT_ASSERT_SAME(comm, seconds);
    double elapsed = dpt_log_seconds() - started;
    dpt_status st = dpt_comm_max_f64(comm, &elapsed, 1);
    if (st == DPT_OK)
        st = dpt_comm_split(comm, 0, comm->rank, &state.comm);
    st = dpt_agree(comm, st);
    state.limit = seconds > 0 ? dpt_log_seconds() + seconds - elapsed : 0;
    state.worked = false;
    state.reason = STOP_NONE;
    state.received = 0;
    if (st != DPT_OK)
        dpt_comm_destroy(&state.comm);
    return st;
}

static bool stop_on_main_thread(void) {
    int main = 1, ready = 0;
    MPI_Initialized(&ready);
    if (ready)
        MPI_Is_thread_main(&main);
    return main != 0;
}

/* Messages are single numbers: MPI takes them at once, whatever the receivers are doing. */
static void stop_tell_others(void) {
    state.requests = dpt_mem_alloc(state.comm.size, sizeof(MPI_Request), "messages of a stop");
    if (state.requests == NULL) {
        dpt_error_clear();
        return; /* the others hear of it when the ranks agree next */
    }
    state.sent = state.reason;
    for (int r = 0; r < state.comm.size; r++) {
        state.requests[r] = MPI_REQUEST_NULL;
        if (r != state.comm.rank)
            (void)dpt_comm_check(
                MPI_Isend(&state.sent, 1, MPI_INT, r, TAG_STOP, state.comm.mpi, &state.requests[r]),
                "MPI_Isend");
    }
}

static void stop_receive(int source) {
    int reason = STOP_SIGNAL;
    (void)dpt_comm_check(
        MPI_Recv(&reason, 1, MPI_INT, source, TAG_STOP, state.comm.mpi, MPI_STATUS_IGNORE),
        "MPI_Recv");
    state.received++;
    state.reason = reason;
}

bool dpt_stop_asked(void) {
    if (state.reason != STOP_NONE)
        return true;
    int own = dpt_signal_stop() ? STOP_SIGNAL : STOP_NONE;
    if (own == STOP_NONE && state.limit > 0 && state.worked && dpt_log_seconds() >= state.limit)
        own = STOP_TIME;
    if (!stop_on_main_thread())
        return own != STOP_NONE;
    state.reason = own;
    if (state.comm.size <= 1)
        return own != STOP_NONE;
    if (own != STOP_NONE) {
        stop_tell_others();
        return true;
    }
    int there = 0;
    MPI_Status status;
    (void)dpt_comm_check(MPI_Iprobe(MPI_ANY_SOURCE, TAG_STOP, state.comm.mpi, &there, &status),
                         "MPI_Iprobe");
    if (there)
        stop_receive(status.MPI_SOURCE);
    return there != 0;
}

dpt_status dpt_stop_error(void) {
    if (!dpt_stop_asked() && state.limit > 0 && dpt_log_seconds() >= state.limit)
        state.reason = STOP_TIME; /* the message of who was asked is still on its way */
    return dpt_error(DPT_INTERRUPTED, "stopped %s",
                     state.reason == STOP_TIME ? "by the time limit" : "by a signal");
}

dpt_status dpt_stop_check(void) {
    return dpt_stop_asked() ? dpt_stop_error() : DPT_OK;
}

void dpt_stop_count_work(void) {
    state.worked = true;
}

void dpt_stop_destroy(void) {
    if (state.comm.size == 0)
        return;
    /* MPI_Finalize wants every message received. */
    int64_t messages = state.requests != NULL;
    (void)dpt_comm_sum_i64(&state.comm, &messages, 1);
    for (int64_t left = messages - (state.requests != NULL) - state.received; left > 0; left--)
        stop_receive(MPI_ANY_SOURCE);
    for (int r = 0; state.requests != NULL && r < state.comm.size; r++)
        (void)dpt_comm_check(MPI_Wait(&state.requests[r], MPI_STATUS_IGNORE), "MPI_Wait");
    dpt_mem_free(state.requests);
    dpt_comm_destroy(&state.comm);
    memset(&state, 0, sizeof state);
}

/* Integers, parted by ':'; the number of them, or 0. */
static int stop_parse_fields(const char *text, double *fields, int maximum) {
    int n = 0;
    for (const char *at = text;; at++) {
        char *end = NULL;
        if (n == maximum || !isdigit((unsigned char)*at))
            return 0;
        fields[n++] = (double)strtoll(at, &end, 10);
        if (*end == '\0')
            return n;
        if (*end != ':')
            return 0;
        at = end;
    }
}

/* NaN for a text that is no time. */
static double stop_seconds_of(const char *text) {
    double f[3] = {0};
    const char *dash = strchr(text, '-');
    if (dash != NULL) {
        char *end = NULL;
        double days = isdigit((unsigned char)*text) ? (double)strtoll(text, &end, 10) : NAN;
        int n = stop_parse_fields(dash + 1, f, 3);
        bool good = n > 0 && end == dash && f[0] < 24 && f[1] < 60 && f[2] < 60;
        return good ? ((days * 24 + f[0]) * 60 + f[1]) * 60 + f[2] : NAN;
    }
    if (strchr(text, ':') == NULL) {
        char *end = NULL;
        double value = isdigit((unsigned char)*text) ? strtod(text, &end) : NAN;
        return end != NULL && *end == '\0' && strpbrk(text, "xX") == NULL ? value : NAN;
    }
    switch (stop_parse_fields(text, f, 3)) {
    case 2:
        return f[1] < 60 ? f[0] * 60 + f[1] : NAN;
    case 3:
        return f[1] < 60 && f[2] < 60 ? (f[0] * 60 + f[1]) * 60 + f[2] : NAN;
    default:
        return NAN;
    }
}

dpt_status dpt_stop_parse_time(const char *text, const char *option, double *seconds) {
    double value = stop_seconds_of(text);
    if (!(value > 0) || value > 1e9)
        return dpt_error(DPT_ERR_USAGE,
                         "%s %s: write a time such as 3600 (seconds), 58:00, 3:58:00 or 1-12:00:00",
                         option, text);
    *seconds = value;
    return DPT_OK;
}

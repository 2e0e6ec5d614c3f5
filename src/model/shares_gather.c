#include "shares.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/same.h"

#include <string.h>

/* The ranks of a line, one of each machine, send each other the same piece of their machines' parts, straight to where
 * it belongs, so that each byte enters a machine once. */

enum { SHARE_MESSAGE = 1 << 28 }; /* bytes of one message at most */

dpt_status dpt_shares_reserve_messages(dpt_shares *shares) {
    int64_t pieces = DPT_SHARE_SECTIONS * DPT_VALUES + shares->room[0].bytes / SHARE_MESSAGE;
    int64_t capacity = 2 * pieces * (shares->machines - 1);
    if (capacity <= shares->capacity)
        return DPT_OK;
    dpt_mem_free(shares->request);
    shares->request = dpt_mem_alloc(capacity, sizeof(MPI_Request), "messages of a layer");
    shares->capacity = shares->request != NULL ? (int)capacity : 0;
    return shares->request != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

/* Begin of piece `line` of the part of a machine. */
static int64_t gather_piece(const dpt_shares *shares, const int64_t *cuts, int machine, int line) {
    int64_t bytes = cuts[machine + 1] - cuts[machine];
    return cuts[machine] + bytes / shares->lines * line +
           bytes % shares->lines * line / shares->lines;
}

static MPI_Request *gather_request(dpt_shares *shares) {
    DPT_ASSERT(shares->requests < shares->capacity);
    return &shares->request[shares->requests++];
}

static void gather_receive(dpt_shares *shares, char *to, int64_t bytes, int machine) {
    for (int64_t at = 0; at < bytes; at += SHARE_MESSAGE) {
        int n = (int)(bytes - at < SHARE_MESSAGE ? bytes - at : SHARE_MESSAGE);
        (void)dpt_comm_check(
            MPI_Irecv(to + at, n, MPI_BYTE, machine, 0, shares->line.mpi, gather_request(shares)),
            "MPI_Irecv");
    }
}

static void gather_send(dpt_shares *shares, const char *from, int64_t bytes, int machine) {
    for (int64_t at = 0; at < bytes; at += SHARE_MESSAGE) {
        int n = (int)(bytes - at < SHARE_MESSAGE ? bytes - at : SHARE_MESSAGE);
        (void)dpt_comm_check(
            MPI_Isend(from + at, n, MPI_BYTE, machine, 0, shares->line.mpi, gather_request(shares)),
            "MPI_Isend");
    }
}

/* This rank's pieces of a section to all machines, and theirs to `room`, where the section begins. */
static void gather_section(dpt_shares *shares, const dpt_share_section *section, dpt_values values,
                           char *room) {
    const int64_t *cuts = section->cuts[values];
    int here = shares->here, line = shares->line.rank >= 0 ? shares->machine.rank : -1;
    const char *held = (const char *)shares->held[values].base + section->at[values] - cuts[here];
    if (line < 0)
        return;
    for (int step = 1; step < shares->machines; step++) {
        int from = (here + shares->machines - step) % shares->machines;
        int64_t begin = gather_piece(shares, cuts, from, line);
        gather_receive(shares, room + begin, gather_piece(shares, cuts, from, line + 1) - begin,
                       from);
    }
    int64_t begin = gather_piece(shares, cuts, here, line);
    int64_t bytes = gather_piece(shares, cuts, here, line + 1) - begin;
    for (int step = 1; step < shares->machines; step++)
        gather_send(shares, held + begin, bytes, (here + step) % shares->machines);
    memcpy(room + begin, held + begin, (size_t)bytes);
}

/* Call for each section of a unit where it lies in a room: post-trained values first. */
typedef void (*gather_visit_fn)(dpt_params *params, const dpt_share_section *section,
                                dpt_values values, char *room);

static void gather_each(dpt_params *params, int unit, bool edit, int room, gather_visit_fn visit) {
    dpt_shares *shares = params->shares;
    int list[DPT_SHARE_SECTIONS], n = dpt_shares_sections(shares, unit, list);
    char *at = shares->room[room].base;
    for (int values = 0; values <= (int)edit; values++)
        for (int k = 0; k < n; k++) {
            const dpt_share_section *section = &shares->sections[list[k]];
            visit(params, section, (dpt_values)values, at);
            at += dpt_share_up(section->bytes[values]);
        }
}

static void gather_start_section(dpt_params *params, const dpt_share_section *section,
                                 dpt_values values, char *room) {
    gather_section(params->shares, section, values, room);
}

static void gather_point_section(dpt_params *params, const dpt_share_section *section,
                                 dpt_values values, char *room) {
    for (int at = section->first; at < section->first + section->count; at++) {
        dpt_param *param = dpt_share_param(params, at);
        const char *block =
            dpt_param_numel(param) > 0 ? room + params->shares->offset[values][at] : NULL;
        dpt_share_point(param, values, block);
    }
}

/* Nothing is under way in either room, and this one is not in use. */
static void gather_start(dpt_params *params, int unit, bool edit, int room) {
    dpt_shares *shares = params->shares;
    shares->in_room[room] = unit;
    shares->room_has_edit[room] = edit;
    gather_each(params, unit, edit, room, gather_start_section);
}

static void gather_wait(dpt_shares *shares) {
    for (int i = 0; i < shares->requests; i++)
        (void)dpt_comm_check(MPI_Wait(&shares->request[i], MPI_STATUS_IGNORE), "MPI_Wait");
    shares->requests = 0;
}

static int gather_find(const dpt_shares *shares, int unit, bool edit) {
    for (int r = 0; r < 2; r++)
        if (shares->in_room[r] == unit && (shares->room_has_edit[r] || !edit))
            return r;
    return -1;
}

void dpt_shares_take(dpt_params *params, int unit, int next, bool edit) {
    dpt_shares *shares = params->shares;
    if (shares->machines == 1)
        return;
    DPT_ASSERT_SAME(&shares->replicas, unit);
    DPT_ASSERT_SAME(&shares->replicas, next);
    DPT_ASSERT_SAME(&shares->replicas, edit);
    gather_wait(shares);
    int room = gather_find(shares, unit, edit);
    if (room < 0) {
        room = 0;
        dpt_shared_sync(&shares->machine, &shares->room[room]); /* nobody reads it any more */
        gather_start(params, unit, edit, room);
        gather_wait(shares);
    }
    dpt_shared_sync(&shares->machine, &shares->room[room]);
    gather_each(params, unit, shares->room_has_edit[room], room, gather_point_section);
    if (next >= 0 && gather_find(shares, next, edit) < 0)
        gather_start(params, next, edit, 1 - room);
}

void dpt_shares_progress(const dpt_params *params) {
    dpt_shares *shares = params->shares;
    int done = 0;
    for (int i = 0; shares != NULL && i < shares->requests; i++)
        (void)dpt_comm_check(MPI_Test(&shares->request[i], &done, MPI_STATUS_IGNORE), "MPI_Test");
}

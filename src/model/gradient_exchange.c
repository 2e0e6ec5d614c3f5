#include "gradient.h"

#include "deltapath/base/assert.h"

#include <string.h>

/* The ranks of a line, one of each machine, have the same piece of every part. Each sends the others what its machine has
 * added up of their parts and adds what they send to its own: first its own machine's, then those before it in the ring. */

enum {
    EXCHANGE_TAG = 1, /* weights that are gathered meanwhile have another */
    EXCHANGE_FLOATS = DPT_GRADIENT_MESSAGE / sizeof(float)
};

/* Elements [*begin, *end) of a section that a line moves of the part of a machine. */
static void exchange_piece(const dpt_shares *shares, const dpt_share_section *section, int machine,
                           int64_t *begin, int64_t *end) {
    const int64_t *cuts = section->cuts[DPT_SHARE_GRADIENT];
    int64_t first = cuts[machine] / (int64_t)sizeof(float);
    int64_t n = cuts[machine + 1] / (int64_t)sizeof(float) - first;
    int64_t line = shares->machine.rank, lines = shares->lines;
    *begin = first + n / lines * line + n % lines * line / lines;
    *end = first + n / lines * (line + 1) + n % lines * (line + 1) / lines;
}

static int64_t exchange_count(int64_t left) {
    return left < 0 ? 0 : left < EXCHANGE_FLOATS ? left : EXCHANGE_FLOATS;
}

/* One step of the ring: elements of the room to one machine, and of another to what is held. */
static void exchange_step(const dpt_model_gradient *gradient, const float *send, int64_t sends,
                          int to, float *add, int64_t adds, int from) {
    const dpt_comm *line = &gradient->params->shares->line;
    float *message = (float *)(void *)gradient->message;
    for (int64_t at = 0; at < sends || at < adds; at += EXCHANGE_FLOATS) {
        int out = (int)exchange_count(sends - at), in = (int)exchange_count(adds - at);
        (void)dpt_comm_check(MPI_Sendrecv(out > 0 ? send + at : NULL, out, MPI_FLOAT,
                                          out > 0 ? to : MPI_PROC_NULL, EXCHANGE_TAG, message, in,
                                          MPI_FLOAT, in > 0 ? from : MPI_PROC_NULL, EXCHANGE_TAG,
                                          line->mpi, MPI_STATUS_IGNORE),
                             "MPI_Sendrecv");
        for (int i = 0; i < in; i++)
            add[at + i] += message[i];
    }
}

static void exchange_section(const dpt_model_gradient *gradient, const dpt_share_section *section,
                             float *room) {
    const dpt_shares *shares = gradient->params->shares;
    float *held = (float *)(void *)dpt_gradient_held(gradient, section);
    int machines = shares->machines, here = shares->here;
    int64_t begin, end;
    exchange_piece(shares, section, here, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        held[i] += room[i];
    for (int step = 1; step < machines; step++) {
        int to = (here + step) % machines, from = (here + machines - step) % machines;
        int64_t first, last;
        exchange_piece(shares, section, to, &first, &last);
        exchange_step(gradient, room + first, last - first, to, held + begin, end - begin, from);
    }
    for (int m = 0; m < machines; m++) {
        exchange_piece(shares, section, m, &begin, &end);
        memset(room + begin, 0, (size_t)(end - begin) * sizeof *room);
    }
}

void dpt_gradient_exchange(dpt_model_gradient *gradient, int unit) {
    const dpt_shares *shares = gradient->params->shares;
    int list[DPT_SHARE_SECTIONS], n = dpt_shares_sections(shares, unit, list);
    char *room = gradient->room.base;
    dpt_shared_sync(&shares->machine, &gradient->room); /* all ranks of the machine have added */
    for (int k = 0; k < n; k++) {
        const dpt_share_section *section = &shares->sections[list[k]];
        if (shares->machine.rank < shares->lines)
            exchange_section(gradient, section, (float *)(void *)room);
        room += dpt_share_up(section->bytes[DPT_SHARE_GRADIENT]);
    }
    dpt_shared_sync(&shares->machine, &gradient->room); /* it is zero again */
}

#include "gradient.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/mem.h"

#include <stdatomic.h>
#include <time.h>

/* Whose turn it is to add to a chunk of a block.
 *
 * A rank has a mark for each block, which only it writes and which only rises: the step, in it the visit, and in that
 * the chunks that are done. Visits of a step go by number and then by rank: before the ranks that come earlier have added
 * to a chunk in the same visit, and those that come later in the visit before, a rank does not. A rank that is through with
 * a block has the mark of the next step, and nobody waits for it. Ranks come to the blocks in one order, so that there is
 * always one that waits for nobody. The table of a tied head has two slots, for the head comes to it long before the
 * embedding: that waits until all are through with the head. Between two steps all ranks meet. */

enum { TURN_BITS = 20 }; /* of the number of a visit, and of chunks */

enum {
    TURN_ROWS = 512
}; /* of a chunk: a product that is worth its call, and few enough to wait for */
enum { TURN_SPINS = 2000 }; /* looks before a rank lets others have its core */

static bool turns_are_taken(const dpt_model_gradient *gradient) {
    return gradient->turns.base != NULL;
}

static int turns_slots(const dpt_params *params) {
    return params->count + 1;
}

int64_t dpt_gradient_turn_bytes(const dpt_params *params) {
    return turns_slots(params) * (int64_t)sizeof(_Atomic int64_t);
}

static int64_t turn_mark(int64_t step, int64_t visit, int64_t chunk) {
    return (((step << TURN_BITS) + visit) << TURN_BITS) + chunk;
}

static _Atomic int64_t *turn_of(const dpt_model_gradient *gradient, int rank, int slot) {
    _Atomic int64_t *marks = gradient->turns.base;
    return &marks[(int64_t)rank * turns_slots(gradient->params) + slot];
}

static _Atomic int64_t *turn_own(const dpt_model_gradient *gradient, int slot) {
    return turn_of(gradient, gradient->params->shares->machine.rank, slot);
}

static void turn_nap(const dpt_params *params, int spins) {
    const struct timespec nap = {.tv_nsec = 20000};
    dpt_shares_progress(params); /* others may need what this rank sends */
    if (spins > TURN_SPINS)
        nanosleep(&nap, NULL);
}

/* Until the mark of a rank is at least so far. */
static void turn_wait(const dpt_model_gradient *gradient, int rank, int slot, int64_t mark) {
    _Atomic int64_t *of = turn_of(gradient, rank, slot);
    for (int spins = 0; atomic_load_explicit(of, memory_order_acquire) < mark; spins++)
        turn_nap(gradient->params, spins);
}

static void turn_set(const dpt_model_gradient *gradient, int slot, int64_t mark) {
    _Atomic int64_t *own = turn_own(gradient, slot);
    DPT_ASSERT(atomic_load_explicit(own, memory_order_relaxed) <= mark);
    atomic_store_explicit(own, mark, memory_order_release);
}

dpt_gradient_visit dpt_gradient_visit_block(dpt_model_gradient *gradient, int index,
                                            dpt_gradient_table table) {
    dpt_gradient_visit visit = {.gradient = gradient,
                                .slot = index,
                                .rows = gradient->params->items[index].rows,
                                .after_head = table == DPT_GRADIENT_EMBEDDING};
    if (!turns_are_taken(gradient))
        return visit;
    if (table == DPT_GRADIENT_HEAD)
        visit.slot = gradient->params->count;
    visit.rows = TURN_ROWS;
    int64_t own = atomic_load_explicit(turn_own(gradient, visit.slot), memory_order_relaxed);
    DPT_ASSERT(own >= turn_mark(gradient->step, 0, 0) && own < turn_mark(gradient->step + 1, 0, 0));
    visit.number = (own - turn_mark(gradient->step, 0, 0)) >> TURN_BITS;
    DPT_ASSERT(visit.number + 1 < (INT64_C(1) << TURN_BITS));
    return visit;
}

void dpt_gradient_wait(const dpt_gradient_visit *visit, int64_t chunk) {
    const dpt_model_gradient *gradient = visit->gradient;
    if (!turns_are_taken(gradient))
        return;
    const dpt_comm *machine = &gradient->params->shares->machine;
    for (int r = 0; r < machine->size; r++) {
        int64_t number = r < machine->rank ? visit->number : visit->number - 1;
        if (visit->after_head)
            turn_wait(gradient, r, gradient->params->count, turn_mark(gradient->step + 1, 0, 0));
        if (r != machine->rank && number >= 0)
            turn_wait(gradient, r, visit->slot, turn_mark(gradient->step, number, chunk + 1));
    }
}

void dpt_gradient_pass(const dpt_gradient_visit *visit, int64_t chunk) {
    if (turns_are_taken(visit->gradient))
        turn_set(visit->gradient, visit->slot,
                 turn_mark(visit->gradient->step, visit->number, chunk + 1));
}

void dpt_gradient_visited(const dpt_gradient_visit *visit) {
    if (turns_are_taken(visit->gradient))
        turn_set(visit->gradient, visit->slot,
                 turn_mark(visit->gradient->step, visit->number + 1, 0));
}

void dpt_gradient_finish(dpt_model_gradient *gradient, int index) {
    if (turns_are_taken(gradient))
        turn_set(gradient, index, turn_mark(gradient->step + 1, 0, 0));
}

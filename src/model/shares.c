#include "shares.h"

#include "deltapath/base/assert.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <string.h>

static int64_t share_size(const dpt_param *param, int layout) {
    if (layout == DPT_SHARE_GRADIENT)
        return sizeof(float);
    return dpt_dtype_size(layout == DPT_VALUES_POST ? param->post_type : param->edit_type);
}

/* What the cuts count. Of columns it is the same on all ranks of a tensor-parallel group. */
static int64_t share_weight(const dpt_param *param) {
    if (param->tensor < 0)
        return 0;
    return param->columns ? param->layout.rows * param->layout.cols : dpt_param_numel(param);
}

/* Row of the block number `at` of a section where the part of the rank with this place begins. */
static int64_t share_row(const dpt_shares *shares, const dpt_share_section *section,
                         const dpt_param *param, int at, int place) {
    int64_t ranks = shares->replicas.size, weight = share_weight(param);
    int64_t cut = section->weight / ranks * place + section->weight % ranks * place / ranks;
    int64_t inside = cut - shares->before[at];
    if (inside <= 0 || weight == 0)
        return 0;
    if (inside >= weight)
        return param->rows;
    return (int64_t)((double)inside / (double)weight * (double)param->rows);
}

/* Sort the blocks into sections. */
static void share_sort(dpt_params *params, const int *unit) {
    dpt_shares *shares = params->shares;
    int at = 0;
    for (int s = 0; s < shares->units * DPT_SHARE_KINDS; s++) {
        dpt_share_section *section = &shares->sections[s];
        section->first = at;
        for (int i = 0; i < params->count; i++) {
            const dpt_param *param = &params->items[i];
            if (unit[i] != s / DPT_SHARE_KINDS || (int)param->columns != s % DPT_SHARE_KINDS)
                continue;
            shares->order[at] = i;
            shares->before[at++] = section->weight;
            section->weight += share_weight(param);
        }
        section->count = at - section->first;
    }
    DPT_ASSERT(at == params->count);
}

/* The rows that this rank loads. */
static void share_find_own(dpt_params *params) {
    const dpt_shares *shares = params->shares;
    for (int s = 0; s < shares->units * DPT_SHARE_KINDS; s++) {
        const dpt_share_section *section = &shares->sections[s];
        for (int at = section->first; at < section->first + section->count; at++) {
            dpt_param *param = dpt_share_param(params, at);
            param->own_row = share_row(shares, section, param, at, shares->place);
            param->own_rows =
                share_row(shares, section, param, at, shares->place + 1) - param->own_row;
        }
    }
}

/* Byte of a section at which the part of a rank begins. */
static int64_t share_cut(const dpt_params *params, const dpt_share_section *section, int layout,
                         int place) {
    const dpt_shares *shares = params->shares;
    for (int at = section->first; at < section->first + section->count; at++) {
        const dpt_param *param = dpt_share_param(params, at);
        int64_t row = share_row(shares, section, param, at, place);
        if (dpt_share_numel(param, layout) > 0 && row < param->rows)
            return shares->offset[layout][at] + row * param->cols * share_size(param, layout);
    }
    return section->bytes[layout];
}

/* Places of the blocks in the sections, and of the sections in what this machine holds. @return its bytes. */
static int64_t share_lay_out(dpt_params *params, int layout) {
    dpt_shares *shares = params->shares;
    int64_t held = 0;
    for (int s = 0; s < shares->units * DPT_SHARE_KINDS; s++) {
        dpt_share_section *section = &shares->sections[s];
        int64_t bytes = 0;
        for (int at = section->first; at < section->first + section->count; at++) {
            const dpt_param *param = dpt_share_param(params, at);
            bytes = dpt_share_up(bytes);
            shares->offset[layout][at] = bytes;
            bytes += dpt_share_numel(param, layout) * share_size(param, layout);
        }
        section->bytes[layout] = bytes;
        int64_t *cuts = section->cuts[layout];
        for (int m = 0; m <= shares->machines; m++)
            cuts[m] = share_cut(params, section, layout, shares->places[m]);
        /* As far from a cache line here as in the section. */
        section->at[layout] = dpt_share_up(held) + cuts[shares->here] % DPT_SHARE_ALIGN;
        held = section->at[layout] + cuts[shares->here + 1] - cuts[shares->here];
    }
    return dpt_share_up(held);
}

int dpt_shares_sections(const dpt_shares *shares, int unit, int out[DPT_SHARE_SECTIONS]) {
    int n = 0;
    for (int k = 0; k < DPT_SHARE_KINDS; k++)
        out[n++] = unit * DPT_SHARE_KINDS + k;
    for (int k = 0; k < DPT_SHARE_KINDS && shares->last_needs_first && unit == shares->units - 1;
         k++)
        out[n++] = k;
    return n;
}

int64_t dpt_shares_unit_bytes(const dpt_shares *shares, int unit, int layout) {
    int list[DPT_SHARE_SECTIONS], n = dpt_shares_sections(shares, unit, list);
    int64_t bytes = 0;
    for (int k = 0; k < n; k++)
        bytes += dpt_share_up(shares->sections[list[k]].bytes[layout]);
    return bytes;
}

static int64_t share_room_bytes(const dpt_shares *shares, bool edit) {
    int64_t most = 0;
    for (int unit = 0; unit < shares->units && shares->machines > 1; unit++) {
        int64_t bytes = dpt_shares_unit_bytes(shares, unit, DPT_VALUES_POST);
        bytes += edit ? dpt_shares_unit_bytes(shares, unit, DPT_VALUES_EDIT) : 0;
        most = bytes > most ? bytes : most;
    }
    return most;
}

static dpt_status share_allocate(dpt_params *params, int machines) {
    dpt_shares *shares = params->shares;
    int sections = shares->units * DPT_SHARE_KINDS;
    bool all = true;
    shares->places = dpt_mem_zalloc(machines + 1, sizeof *shares->places, "shares of machines");
    shares->order = dpt_mem_alloc(params->count, sizeof *shares->order, "shares of blocks");
    shares->before = dpt_mem_alloc(params->count, sizeof *shares->before, "shares of blocks");
    shares->sections = dpt_mem_zalloc(sections, sizeof *shares->sections, "shares of layers");
    for (int layout = 0; layout < DPT_SHARE_LAYOUTS; layout++) {
        shares->offset[layout] =
            dpt_mem_alloc(params->count, sizeof *shares->offset[layout], "shares of blocks");
        shares->cuts[layout] = dpt_mem_zalloc((int64_t)sections * (machines + 1),
                                              sizeof *shares->cuts[layout], "shares of layers");
        all = all && shares->offset[layout] != NULL && shares->cuts[layout] != NULL;
        for (int s = 0; s < sections && shares->sections != NULL && all; s++)
            shares->sections[s].cuts[layout] = shares->cuts[layout] + (int64_t)s * (machines + 1);
    }
    return all && shares->places != NULL && shares->order != NULL && shares->before != NULL &&
                   shares->sections != NULL
               ? DPT_OK
               : DPT_ERR_OUTPUT;
}

static dpt_status share_begin(dpt_params *params, int units, bool last_needs_first) {
    params->shares = dpt_mem_zalloc(1, sizeof *params->shares, "shares of blocks");
    if (params->shares == NULL)
        return DPT_ERR_OUTPUT;
    *params->shares = (dpt_shares){
        .units = units, .last_needs_first = last_needs_first, .machines = 1, .in_room = {-1, -1}};
    return DPT_OK;
}

/* Which machine each of the replicas is on: that of a rank is known by its first rank. */
static dpt_status share_find_machines(dpt_shares *shares, const int64_t *leader, int *sizes) {
    int ranks = shares->replicas.size, smallest = ranks, m = 0;
    for (int r = 0; r < ranks; r++) {
        if (leader[r] != r)
            continue;
        sizes[m] = 0;
        for (int q = r; q < ranks; q++)
            sizes[m] += leader[q] == r;
        shares->here = leader[shares->replicas.rank] == r ? m : shares->here;
        smallest = sizes[m] < smallest ? sizes[m] : smallest;
        m++;
    }
    shares->machines = m;
    shares->layout = dpt_hash_bytes(leader, (size_t)ranks * sizeof *leader);
    shares->lines = smallest;
    int color = shares->machine.rank < shares->lines ? shares->machine.rank : -1;
    return dpt_comm_split(&shares->replicas, color, shares->here, &shares->line);
}

/* Machines, lines between them and the place of this rank. */
static dpt_status share_connect(dpt_params *params) {
    dpt_shares *shares = params->shares;
    const dpt_comm *replicas = &shares->replicas;
    int64_t *leader = dpt_mem_zalloc(replicas->size, sizeof *leader, "ranks of machines");
    int *sizes = dpt_mem_zalloc(replicas->size, sizeof *sizes, "ranks of machines");
    dpt_status st = dpt_agree(replicas, leader != NULL && sizes != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_comm_split_machines(replicas, &shares->machine);
    if (st == DPT_OK) {
        int64_t first = replicas->rank;
        st = dpt_comm_broadcast(&shares->machine, &first, sizeof first, 0);
        leader[replicas->rank] = first;
    }
    if (st == DPT_OK)
        st = dpt_comm_sum_i64(replicas, leader, replicas->size);
    if (st == DPT_OK)
        st = share_find_machines(shares, leader, sizes);
    if (st == DPT_OK)
        st = dpt_agree(replicas, share_allocate(params, shares->machines));
    for (int m = 0; m < shares->machines && st == DPT_OK; m++)
        shares->places[m + 1] = shares->places[m] + sizes[m];
    if (st == DPT_OK)
        shares->place = shares->places[shares->here] + shares->machine.rank;
    dpt_mem_free(leader);
    dpt_mem_free(sizes);
    return st;
}

dpt_status dpt_shares_create(const dpt_comm *replicas, dpt_params *params, const int *unit,
                             int units, bool last_needs_first) {
    DPT_ASSERT_SAME(replicas, units);
    dpt_status st = dpt_agree(replicas, share_begin(params, units, last_needs_first));
    if (st != DPT_OK)
        return st;
    params->shares->replicas = *replicas;
    st = share_connect(params);
    if (st != DPT_OK)
        return st;
    share_sort(params, unit);
    share_find_own(params);
    params->shares->gradient_bytes = share_lay_out(params, DPT_SHARE_GRADIENT);
    return DPT_OK;
}

dpt_status dpt_shares_plan(dpt_params *params, const int *unit, int units, bool last_needs_first,
                           int replicas, int machines) {
    dpt_status st = share_begin(params, units, last_needs_first);
    if (st != DPT_OK)
        return st;
    params->shares->replicas = (dpt_comm){.mpi = MPI_COMM_NULL, .size = replicas};
    params->shares->machines = machines;
    st = share_allocate(params, machines);
    if (st != DPT_OK)
        return st;
    for (int m = 0; m <= machines; m++)
        params->shares->places[m] = (int)((int64_t)replicas * m / machines);
    share_sort(params, unit);
    share_find_own(params);
    params->shares->gradient_bytes = share_lay_out(params, DPT_SHARE_GRADIENT);
    return DPT_OK;
}

int64_t dpt_shares_bytes(const dpt_params *params, bool edited) {
    dpt_params copy = *params;
    dpt_shares *shares = copy.shares;
    int64_t ranks = shares->places[1], bytes = share_lay_out(&copy, DPT_VALUES_POST);
    if (edited)
        bytes += dpt_shares_edit_bytes(params) * ranks;
    return (bytes + 2 * share_room_bytes(shares, edited)) / ranks;
}

int64_t dpt_shares_edit_bytes(const dpt_params *params) {
    dpt_params copy = *params;
    return share_lay_out(&copy, DPT_VALUES_EDIT) / params->shares->places[1];
}

void dpt_shares_release_edit(dpt_params *params) {
    for (int i = 0; i < params->count; i++)
        params->items[i].own[DPT_VALUES_EDIT] = NULL;
    if (params->shares != NULL)
        dpt_shared_destroy(&params->shares->held[DPT_VALUES_EDIT]);
}

static void share_destroy_shared(dpt_shares *shares) {
    for (int values = 0; values < DPT_VALUES; values++)
        dpt_shared_destroy(&shares->held[values]);
    for (int r = 0; r < 2; r++)
        dpt_shared_destroy(&shares->room[r]);
}

void dpt_shares_destroy(dpt_params *params) {
    dpt_shares *shares = params->shares;
    if (shares == NULL)
        return;
    share_destroy_shared(shares);
    dpt_comm_destroy(&shares->line);
    dpt_comm_destroy(&shares->machine);
    for (int layout = 0; layout < DPT_SHARE_LAYOUTS; layout++) {
        dpt_mem_free(shares->offset[layout]);
        dpt_mem_free(shares->cuts[layout]);
    }
    dpt_mem_free(shares->places);
    dpt_mem_free(shares->order);
    dpt_mem_free(shares->before);
    dpt_mem_free(shares->sections);
    dpt_mem_free(shares->request);
    dpt_mem_free(shares);
    params->shares = NULL;
}

/* Memory of so many bytes, which is kept where it is of that size: that of a direction in fp32 goes with it. */
static dpt_status share_room(const dpt_shares *shares, int64_t bytes, const char *what,
                             dpt_shared *out) {
    if (out->base != NULL && (bytes > 0 ? bytes : 1) == out->bytes)
        return DPT_OK;
    dpt_shared_destroy(out);
    return dpt_shared_create(&shares->machine, bytes, what, out);
}

/* Where this rank's rows go, and where all lie on a single machine. */
static void share_place(dpt_params *params, dpt_values values) {
    dpt_shares *shares = params->shares;
    for (int s = 0; s < shares->units * DPT_SHARE_KINDS; s++) {
        const dpt_share_section *section = &shares->sections[s];
        char *base = (char *)shares->held[values].base + section->at[values] -
                     section->cuts[values][shares->here];
        for (int at = section->first; at < section->first + section->count; at++) {
            dpt_param *param = dpt_share_param(params, at);
            char *block = base + shares->offset[values][at];
            bool empty = dpt_param_numel(param) == 0;
            param->own[values] =
                empty ? NULL : block + param->own_row * param->cols * share_size(param, values);
            dpt_share_point(param, values, empty || shares->machines > 1 ? NULL : block);
        }
    }
}

dpt_status dpt_shares_reserve(dpt_params *params, dpt_values values) {
    dpt_shares *shares = params->shares;
    bool edit = values == DPT_VALUES_EDIT;
    const char *what = edit ? "edited weights" : "post-trained weights";
    int64_t bytes = share_lay_out(params, values);
    dpt_status st = share_room(shares, bytes, what, &shares->held[values]);
    st = dpt_agree(&shares->replicas, st);
    for (int r = 0; r < 2 && st == DPT_OK && shares->machines > 1; r++) {
        shares->in_room[r] = -1;
        st = share_room(shares, share_room_bytes(shares, edit), "weights of a layer",
                        &shares->room[r]);
        st = dpt_agree(&shares->replicas, st);
    }
    if (st == DPT_OK && shares->machines > 1)
        st = dpt_agree(&shares->replicas, dpt_shares_reserve_messages(shares));
    if (st == DPT_OK)
        share_place(params, values);
    return st;
}

dpt_status dpt_shares_finish(dpt_params *params, dpt_values values) {
    dpt_shares *shares = params->shares;
    dpt_shared_sync(&shares->machine, &shares->held[values]);
    if (values == DPT_VALUES_POST || shares->replicas.size == 1)
        return DPT_OK;
    int64_t *differs = dpt_mem_alloc(params->count, sizeof *differs, "blocks that differ");
    dpt_status st = dpt_agree(&shares->replicas, differs != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    for (int i = 0; i < params->count && st == DPT_OK; i++)
        differs[i] = params->items[i].has_delta;
    if (st == DPT_OK)
        st = dpt_comm_max_i64(&shares->replicas, differs, params->count);
    for (int i = 0; i < params->count && st == DPT_OK; i++)
        params->items[i].has_delta = differs[i] != 0 && dpt_param_numel(&params->items[i]) > 0;
    dpt_mem_free(differs);
    return st;
}

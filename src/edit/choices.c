#include "allocate.h"
#include "magnitudes.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/same.h"
#include "deltapath/edit/choices.h"

#include <math.h>
#include <string.h>

/* Kept shares are 10^(-j / CHOICES_STEPS) with four digits, from all to DPT_ALLOCATE_LEAST of the entries: so that a job
 * file can say them, and so close that two neighbours differ by less than the last step can use. */
enum { CHOICES_STEPS = 256, CHOICES_BITS = 8, CHOICES_DIGITS = 10000 };

static const char *const choices_methods[DPT_ALLOCATE_EDITS] = {"dare", "prune", "multibit",
                                                                "lowrank"};

void dpt_edit_allocate_stage(const dpt_edit_stage_spec *allocate, dpt_edit_stage_spec *out) {
    int edit = (int)dpt_edit_value(allocate, DPT_ALLOCATE_EDIT);
    dpt_edit_stage_init(out, dpt_edit_method_find(choices_methods[edit]));
    const dpt_edit_param *params;
    int count = dpt_edit_method_params(out->method, &params);
    for (int i = 0; i < count; i++) {
        bool tensors = strcmp(params[i].name, "tensors") == 0;
        bool energy = strcmp(params[i].name, "energy") == 0;
        out->given[i] =
            params[i].required || energy; /* all of the energy: every rank may be asked */
        if (energy)
            out->values[i] = 1.0;
        else if (strcmp(params[i].name, "k") == 0)
            out->values[i] = dpt_edit_value(allocate, DPT_ALLOCATE_K);
        else if (tensors)
            out->values[i] = dpt_edit_value(allocate, DPT_ALLOCATE_TENSORS);
    }
}

void dpt_edit_choices_destroy(dpt_edit_choices *choices) {
    dpt_mem_free(choices->first);
    dpt_mem_free(choices->value);
    dpt_mem_free(choices->level);
    dpt_mem_free(choices->bytes);
    dpt_mem_free(choices->lost);
    *choices = (dpt_edit_choices){.tensors = 0};
}

/* What the choices are made of. */
typedef struct choices_work {
    const dpt_edit_stage_spec *allocate;
    const dpt_edit_stage_spec *stage; /* of the method that it stands for */
    const dpt_edit_input *input;
    const dpt_catalog *out_catalog;
    double shares[1024]; /* kept, rising, the last one 1 */
    int nshares;
    dpt_edit_choices *to;
} choices_work;

static void choices_set_shares(choices_work *work, double extra) {
    double last = 0.0;
    for (int j = 2 * CHOICES_STEPS; j >= 0; j--) {
        double share = pow(10.0, -(double)j / CHOICES_STEPS);
        share = fmax(DPT_ALLOCATE_LEAST, round(share * CHOICES_DIGITS) / CHOICES_DIGITS);
        if (extra > last && extra < share)
            work->shares[work->nshares++] = extra;
        if (share > last)
            work->shares[work->nshares++] = share;
        last = share;
    }
}

/* Greatest rank that all matrices of a tensor can have. */
static int64_t choices_limit(const dpt_parts *parts, int t) {
    int64_t limit = INT64_MAX;
    for (int p = parts->first[t]; p < parts->first[t + 1]; p++) {
        const dpt_layout *layout = &parts->items[p].layout;
        limit = layout->rows < limit ? layout->rows : limit;
        limit = layout->cols < limit ? layout->cols : limit;
    }
    return limit;
}

/* Ranks that save something. */
static int64_t choices_ranks(const dpt_parts *parts, int t) {
    int64_t numel = 0, sides = 0, limit = choices_limit(parts, t);
    for (int p = parts->first[t]; p < parts->first[t + 1]; p++) {
        const dpt_layout *layout = &parts->items[p].layout;
        numel += layout->rows * layout->cols;
        sides += layout->rows + layout->cols;
    }
    int64_t most = sides > 0 ? (numel - 1) / sides : 0;
    return most < limit ? most : limit;
}

static int64_t choices_count(const choices_work *work, int t) {
    if (!dpt_edit_covers(work->stage, work->input, t))
        return 0;
    switch ((int)dpt_edit_value(work->allocate, DPT_ALLOCATE_EDIT)) {
    case DPT_ALLOCATE_MULTIBIT:
        return CHOICES_BITS + 2;
    case DPT_ALLOCATE_LOWRANK:
        return choices_ranks(work->input->parts, t) + 1;
    default:
        return work->nshares;
    }
}

static dpt_status choices_allocate(choices_work *work) {
    dpt_edit_choices *to = work->to;
    int tensors = work->out_catalog->count;
    *to = (dpt_edit_choices){.tensors = tensors};
    to->first = dpt_mem_zalloc((int64_t)tensors + 1, sizeof *to->first, "choices of an edit");
    if (to->first == NULL)
        return DPT_ERR_OUTPUT;
    for (int t = 0; t < tensors; t++)
        to->first[t + 1] = to->first[t] + choices_count(work, t);
    int64_t n = to->first[tensors];
    to->value = dpt_mem_zalloc(n, sizeof *to->value, "choices of an edit");
    to->level = dpt_mem_zalloc(n, sizeof *to->level, "choices of an edit");
    to->bytes = dpt_mem_zalloc(n, sizeof *to->bytes, "choices of an edit");
    to->lost = dpt_mem_zalloc(n, sizeof *to->lost, "choices of an edit");
    bool made = to->value != NULL && to->level != NULL && to->bytes != NULL && to->lost != NULL;
    return made ? DPT_OK : DPT_ERR_OUTPUT;
}

static void choices_put(const choices_work *work, int t, int64_t j, double value, double level,
                        double lost) {
    const dpt_parts *parts = work->input->parts;
    const dpt_edit_packed of = {.info = &work->out_catalog->tensors[t],
                                .parts = parts->items + parts->first[t],
                                .count = parts->first[t + 1] - parts->first[t],
                                .value = value};
    const dpt_edit_method *method = dpt_edit_method_get(work->stage->method);
    int64_t at = work->to->first[t] + j;
    bool keeps = at + 1 == work->to->first[t + 1];
    work->to->value[at] = keeps ? NAN : value;
    work->to->level[at] = level;
    work->to->bytes[at] = keeps ? dpt_edit_dense_bytes(of.info) : method->bytes(work->stage, &of);
    work->to->lost[at] = keeps ? 0.0 : lost;
}

/* @param[in] of  magnitudes of the tensor; NULL for dare, which does not ask for them. */
static void choices_fill_shares(const choices_work *work, int t, const dpt_edit_magnitudes *of) {
    int64_t n = work->out_catalog->tensors[t].numel;
    int64_t count = work->to->first[t + 1] - work->to->first[t];
    double k = dpt_edit_value(work->allocate, DPT_ALLOCATE_K);
    for (int64_t j = 0; j < count; j++) {
        double share = work->shares[j];
        if (of == NULL)
            choices_put(work, t, j, 1.0 - share, share,
                        (k - 1.0) * (k - 1.0) * (1.0 / share - 1.0));
        else
            choices_put(work, t, j, share, share,
                        dpt_edit_magnitudes_pruned(of, (int64_t)floor(share * (double)n + 0.5)));
    }
}

/* What each number of bits loses of a tensor, whose matrices have blocks of their own. Collective. */
static dpt_status choices_fill_bits(const choices_work *work, dpt_edit_work *run, int t,
                                    dpt_edit_magnitudes *of) {
    const dpt_parts *parts = work->input->parts;
    double lost[CHOICES_BITS + 1] = {0.0}, all = 0.0;
    dpt_status st = DPT_OK;
    bool alone = parts->first[t + 1] - parts->first[t] == 1;
    for (int p = parts->first[t]; p < parts->first[t + 1] && st == DPT_OK; p++) {
        st = dpt_edit_magnitudes_count(run, t, alone ? -1 : p, of);
        double square = st == DPT_OK && !alone ? dpt_edit_magnitudes_square(of) : 1.0;
        for (int j = 0; j <= CHOICES_BITS && st == DPT_OK; j++)
            lost[j] += square * dpt_edit_magnitudes_blocks(of, 1 << j);
        all += square;
    }
    for (int j = 0; j <= CHOICES_BITS + 1 && st == DPT_OK; j++) {
        double share = j <= CHOICES_BITS && all > 0.0 ? lost[j] / all : 0.0;
        choices_put(work, t, j, (double)j, (double)j, share);
    }
    return st;
}

/* Squares of the singular values that a rank, the same of all its matrices, leaves out of a tensor, over all of them.
 * @param[in,out] at  first spectrum of the tensor; of the next one. */
static void choices_fill_ranks(const choices_work *work, const dpt_edit_report *report, int t,
                               int64_t *at) {
    int64_t count = work->to->first[t + 1] - work->to->first[t], begin = *at;
    double limit = (double)choices_limit(work->input->parts, t), all = 0.0, kept = 0.0;
    for (; *at < report->nspectra && report->spectra[*at].tensor == t; ++*at)
        for (int64_t i = 0; i < report->spectra[*at].rank; i++) {
            double value = report->singular[report->spectra[*at].first + i];
            all += value * value;
        }
    for (int64_t j = 0; j < count; j++) {
        for (int64_t m = begin; m < *at; m++) {
            const dpt_edit_spectrum *of = &report->spectra[m];
            double value = j < of->rank ? report->singular[of->first + j] : 0.0;
            kept += value * value;
        }
        double rank = (double)(j + 1);
        choices_put(work, t, j, rank, rank / limit, all > 0.0 ? fmax(0.0, 1.0 - kept / all) : 0.0);
    }
}

static dpt_status choices_examine(dpt_edit_work *run, dpt_edit_stage *stage, void *ctx) {
    choices_work *work = ctx;
    dpt_edit_magnitudes of;
    int edit = (int)dpt_edit_value(work->allocate, DPT_ALLOCATE_EDIT);
    dpt_status st = dpt_agree(work->input->comm, dpt_edit_magnitudes_create(&of));
    for (int t = 0; t < run->catalog->count && st == DPT_OK; t++) {
        if (!stage->covers[t])
            continue;
        if (edit == DPT_ALLOCATE_MULTIBIT) {
            st = choices_fill_bits(work, run, t, &of);
            continue;
        }
        st = dpt_edit_magnitudes_count(run, t, -1, &of);
        if (st == DPT_OK)
            choices_fill_shares(work, t, &of);
    }
    dpt_edit_magnitudes_destroy(&of);
    return st;
}

/* Every matrix decomposed whole, and nothing written. */
static dpt_status choices_decompose(choices_work *work, const dpt_edit_spec *spec) {
    dpt_edit_report report;
    dpt_status st =
        dpt_edit_run(spec, work->input, dpt_edit_sink_none(work->input->post.catalog), &report);
    int64_t at = 0;
    for (int t = 0; t < work->out_catalog->count && st == DPT_OK; t++)
        if (work->to->first[t + 1] > work->to->first[t])
            choices_fill_ranks(work, &report, t, &at);
    dpt_edit_report_destroy(&report);
    return st;
}

dpt_status dpt_edit_choices_create(const dpt_edit_stage_spec *stage, uint64_t seed,
                                   const dpt_edit_input *input, const dpt_catalog *out_catalog,
                                   double extra, dpt_edit_choices *choices) {
    DPT_ASSERT_SAME_ARRAY(input->comm, stage->values, DPT_EDIT_PARAM_MAX);
    dpt_edit_spec spec = {.nstages = 1, .seed = seed};
    dpt_edit_allocate_stage(stage, &spec.stages[0]);
    int edit = (int)dpt_edit_value(stage, DPT_ALLOCATE_EDIT);
    choices_work work = {.allocate = stage,
                         .stage = &spec.stages[0],
                         .input = input,
                         .out_catalog = out_catalog,
                         .to = choices};
    choices_set_shares(&work, extra);
    dpt_status st = dpt_agree(input->comm, choices_allocate(&work));
    if (st == DPT_OK && edit == DPT_ALLOCATE_LOWRANK)
        st = choices_decompose(&work, &spec);
    else if (st == DPT_OK && edit != DPT_ALLOCATE_DARE)
        st = dpt_edit_examine(&spec, input, choices_examine, &work);
    for (int t = 0; t < out_catalog->count && st == DPT_OK && edit == DPT_ALLOCATE_DARE; t++)
        choices_fill_shares(&work, t, NULL);
    if (st != DPT_OK)
        dpt_edit_choices_destroy(choices);
    return st;
}

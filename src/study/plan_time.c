#include "plan_time.h"

#include "passes.h"

#include <math.h>

/* What a pass takes besides products, as values that go through memory for a token in a layer, in units of the width of
 * the residual stream (norms, sums) and of the wider activations (rotation, activation, softmax): measured on Zen 3 and
 * Zen 4 with the shapes of tools/plan_error.py. */
static const double FORWARD_WIDTH = 14.0, FORWARD_INNER = 5.0;
static const double BACKWARD_WIDTH = 40.0, BACKWARD_INNER = 16.0;
static const double LOGIT_VALUES = 6.0; /* of each logit, forward; twice that backward */
static const double PRODUCTS = 0.93;    /* of the rate of large products that a pass reaches */
/* Of the rate of large products, in the attention where a query sees so many keys or more, and with fewer in proportion to
 * the fourth root: forward and backward by tests/bench/bench_nn.c, with heads of 64 to 256. */
static const double ATTENTION = 0.79, ATTENTION_KEYS = 64.0;
static const double BATCH_SECONDS = 5e-6; /* of a layer in a batch: calls, small tensors */
/* Through memory for each byte that edits read, with its hash, and for each that an edit goes over. */
static const double READ_BYTES = 3.0, MADE_BYTES = 1.0;
static const double BIND_PARTNERS = 15.0; /* that a rank has pieces of a unit for, at most */
static const double UNIT_SECONDS = 0.02, START_SECONDS = 0.05; /* statistics, files; headers */
static const double DRAWS = 2e4, DRAW_SECONDS = 1.5e-9;        /* of the intervals over samples */
static const int REDUCTIONS =
    5; /* of a layer over its tensor-parallel ranks, forward and backward */

/* Rates of one rank while all of them work. */
typedef struct plan_rates {
    const dpt_machine *machine;
    double products;     /* flop/s in fp32 */
    double bf16;         /* of products with weights in bf16 */
    double attention;    /* of the attention, in fp32 */
    double doubles;      /* flop/s in fp64 */
    double memory;       /* bytes/s */
    double read, write;  /* bytes/s of all ranks */
    double nodes, local; /* of the study; ranks of a node */
} plan_rates;

static double rate_or(double value, double otherwise) {
    return value > 0.0 ? value : otherwise;
}

/* A product with so short a side is slower: seconds of a flop are a + b / side through the two rates that are known. */
static double rate_of_products(const dpt_machine *m, double side) {
    const double large = 1024.0, small = 192.0;
    double fast = 1.0 / m->sgemm_gflops;
    double slow = 1.0 / rate_or(m->sgemm_small_gflops, 0.7 * m->sgemm_gflops);
    double b = fmax(slow - fast, 0.0) / (1.0 / small - 1.0 / large), a = fast - b / large;
    return 1e9 / fmax(a + b / fmax(side, 16.0), fast / 1.2);
}

/* Of the rate of large products; the mean query of causal sequences of n tokens sees (n + 1) / 2 keys. */
static double plan_attention_share(const dpt_resources *res) {
    double queries = (double)res->tokens * (double)res->cost.layers;
    double keys = queries > 0.0 ? res->cost.keys / queries : ATTENTION_KEYS;
    return ATTENTION * pow(fmin(keys / ATTENTION_KEYS, 1.0), 0.25);
}

static plan_rates plan_rates_of(const dpt_resources *res) {
    const dpt_machine *m = &res->machine;
    plan_rates r = {.machine = m, .local = res->ranks_per_node};
    r.nodes = ceil((double)res->ranks / r.local);
    double threads = res->threads, busy = fmin(r.local, res->ranks) * threads;
    double share = fmin(1.0, m->cores / busy); /* of a core for each thread */
    double side = res->cost.width > 0 ? (double)res->cost.width : 1024.0;
    r.products = rate_of_products(m, side) * threads * share;
    r.bf16 = r.products * rate_or(m->bf16_gflops, m->sgemm_gflops) / m->sgemm_gflops;
    r.attention = plan_attention_share(res) * m->sgemm_gflops * 1e9 * threads * share;
    r.doubles = rate_or(m->dgemm_gflops, m->sgemm_gflops / 2.0) * 1e9 * threads * share;
    double core = rate_or(m->core_memory_gb_per_s, m->memory_gb_per_s);
    r.memory = fmin(core * threads * share, m->memory_gb_per_s / fmin(r.local, res->ranks)) * 1e9;
    double storage = rate_or(m->storage_gb_per_s, INFINITY);
    r.read = fmin(m->read_gb_per_s * r.nodes, storage) * 1e9;
    r.write = fmin(m->write_gb_per_s * r.nodes, storage) * 1e9;
    return r;
}

/* Seconds of a message between ranks of a group of so many neighbours. */
static double plan_message(const plan_rates *r, double ranks, double bytes) {
    bool inside = ranks <= r->local;
    const dpt_machine *m = r->machine;
    double latency = inside ? m->node_latency_us : m->network_latency_us;
    double rate = inside ? m->node_gb_per_s : m->network_gb_per_s / r->local;
    return latency * 1e-6 + bytes / rate / 1e9;
}

/* An all-reduce: by halves for few bytes, in a ring for many. */
static double plan_all_reduce(const plan_rates *r, double ranks, double bytes) {
    if (ranks <= 1.0)
        return 0.0;
    double steps = ceil(log2(ranks));
    return 2.0 * steps * plan_message(r, ranks, 0.0) +
           plan_message(r, ranks, 2.0 * bytes * (ranks - 1.0) / ranks);
}

/* How much longer a piece of work takes that at most so many of p ranks can share. */
static double plan_idle(double p, double most) {
    return most > 0.0 && p > most ? p / most : 1.0;
}

/* Bytes of weights that come into a machine when all units of both models are gathered there once. */
static double plan_gathered(const dpt_inputs *in, const dpt_resources *res) {
    double p = res->tensor_parallel, machines = fmin(res->machines, res->ranks / p);
    double both =
        (double)dpt_catalog_bytes(in->catalog) + (double)dpt_catalog_bytes(&in->out_catalog);
    return both * fmin(p, res->ranks_per_node) / p * (1.0 - 1.0 / machines);
}

/* Batches of a replica over the data that judge. */
static double plan_batches(const dpt_resources *res) {
    return fmax(res->all_batches, 1.0);
}

/* How often passes of so many batches in all have them gathered. Two units lie there at a time: what a batch needs last when
 * it turns back, and what it needs first when the next one begins, which is there unless its pass begins cold. */
static double plan_gathers(const dpt_inputs *in, const dpt_resources *res, bool slopes, double cold,
                           double warm, double batches) {
    double elements = (double)dpt_catalog_elements(in->catalog);
    double end = fmin((double)res->cost.width * (double)res->cost.vocabulary / elements, 0.5);
    double layer = (1.0 - 2.0 * end) / fmax((double)res->cost.layers, 1.0);
    return slopes ? 2.0 * batches - (2.0 * batches - cold) * (end + layer)
                  : batches - warm * (end + layer);
}

/* What batches wait for the weights of other machines, of which each computes for so long: units come while the one before
 * computes, so that it is what takes longer than that, and the first unit. A message goes to and from each other machine for the values of
 * each model in a unit. */
static double plan_gather(const dpt_inputs *in, const dpt_resources *res, const plan_rates *r,
                          bool slopes, double cold, double warm, double batches, double computing) {
    double machines = fmin(res->machines, (double)res->ranks / res->tensor_parallel);
    if (machines <= 1.0 || batches <= 0.0)
        return 0.0;
    double units = (double)res->cost.layers + 2.0;
    double times = plan_gathers(in, res, slopes, cold, warm, batches);
    double latency = r->machine->network_latency_us * 1e-6, rate = r->machine->network_gb_per_s;
    double once = plan_gathered(in, res) / (rate * 1e9) + 2.0 * units * (machines - 1.0) * latency;
    return fmax(times * once - batches * computing, batches * once / units);
}

/* One pass over the data that judge, for a rank: products, the rest, and sums over ranks. */
static void plan_pass(const dpt_inputs *in, const dpt_resources *res, const plan_rates *r,
                      dpt_pass_kind kind, double seconds[DPT_PLAN_PHASES]) {
    const dpt_model_cost *c = &res->cost;
    const dpt_pass_products n = dpt_resources_products(res, kind);
    bool slopes = dpt_pass_has_slopes(kind), bf16 = res->bf16 && kind != DPT_PASS_FP32;
    double ranks = res->ranks, p = res->tensor_parallel, tokens = (double)res->tokens;
    double elements = (double)dpt_catalog_elements(in->catalog) / p;
    /* A head, and an expert, is of one rank: ranks beyond them wait. */
    double attention = 4.0 * (double)c->heads * (double)c->head_dim * c->keys *
                       plan_idle(p, (double)c->heads) / (r->attention * ranks) * res->uneven;
    double idle = c->experts * (plan_idle(p, (double)c->expert_count) - 1.0);
    double layers = 2.0 * (c->linear + idle) * tokens, head = 2.0 * c->head * res->scored;
    double again = 2.0 * dpt_resources_again_products(res) * (1.0 + idle / c->linear) * tokens;
    double flop = 1.0 / (r->products * PRODUCTS * ranks) * res->uneven;
    double product = bf16 ? flop * r->products / r->bf16 : flop; /* with weights */
    double value = 4.0 / (r->memory * ranks) * res->uneven;
    double layer = tokens * (double)c->layers, logits = res->scored * (double)c->vocabulary;
    double forward =
        n.forward * (layers + head) * product + attention +
        value * (layer * (FORWARD_WIDTH * (double)c->width + FORWARD_INNER * c->inner) +
                 LOGIT_VALUES * logits);
    double batches = plan_batches(res);
    double form = n.formed * elements * 8.0 / r->memory, calls = BATCH_SECONDS * (double)c->layers;
    seconds[DPT_PLAN_FORWARD] += forward + batches * (form + calls);
    double sums =
        3.0 * (double)res->tokens + in->catalog->count; /* of samples, at most a token each */
    seconds[DPT_PLAN_REDUCTIONS] += plan_all_reduce(r, ranks, 8.0 * fmin(sums, 1e7));
    double sums_again = slopes ? 1.0 - dpt_resources_again(res) : 0.0; /* that are not */
    double messages =
        batches * (double)c->layers * (REDUCTIONS / (slopes ? 1.0 : 2.5) - sums_again);
    seconds[DPT_PLAN_REDUCTIONS] +=
        messages * plan_all_reduce(r, p, 4.0 * (double)res->packed_tokens * (double)c->width);
    if (!slopes)
        return;
    /* The forward again but for the head, the gradient of the input, and the terms. */
    seconds[DPT_PLAN_BACKWARD] +=
        (n.again * again + n.input * (layers + head)) * product +
        (2.5 + dpt_resources_again(res)) * attention +
        value * (layer * (BACKWARD_WIDTH * (double)c->width + BACKWARD_INNER * c->inner) +
                 2.0 * LOGIT_VALUES * logits) +
        batches * ((1.0 + dpt_resources_again(res)) / 2.0 * form + 2.0 * calls);
    seconds[DPT_PLAN_TERMS] += n.terms * (layers + head) * product + batches * form;
}

/* Of the few samples, those in fp32 come first. */
static double plan_few_cold(const dpt_resources *res, dpt_pass_kind kind) {
    return kind == DPT_PASS_FP32 ? res->few[kind] : 0.0;
}

/* What passes of a kind wait for weights, of which one over all data that judge takes so long. */
static double plan_wait(const dpt_inputs *in, const dpt_resources *res, const plan_rates *r,
                        dpt_pass_kind kind, const double seconds[DPT_PLAN_PHASES]) {
    bool slopes = dpt_pass_has_slopes(kind);
    double tokens = (double)res->tokens * res->tensor_parallel / res->ranks;
    double computing =
        seconds[DPT_PLAN_FORWARD] + seconds[DPT_PLAN_BACKWARD] + seconds[DPT_PLAN_TERMS];
    double few = res->few[kind] * computing * res->few_tokens / fmax(tokens, 1.0);
    double whole = fmax(computing * res->passes[kind] - few, 0.0) / fmax(res->batches[kind], 1.0);
    return plan_gather(in, res, r, slopes, res->cold[kind], res->warm[kind], res->batches[kind],
                       whole) +
           plan_gather(in, res, r, slopes, plan_few_cold(res, kind), 0.0, res->few[kind],
                       few / fmax(res->few[kind], 1.0));
}

/* Bytes that come into a machine in all passes. What comes before an edit needs W_post alone. */
static double plan_gathered_in_all(const dpt_inputs *in, const dpt_resources *res) {
    double times = 0.0;
    if (res->machines <= 1)
        return 0.0;
    for (int kind = 0; kind < DPT_PASS_KINDS; kind++)
        times += plan_gathers(in, res, dpt_pass_has_slopes((dpt_pass_kind)kind),
                              res->cold[kind] + plan_few_cold(res, (dpt_pass_kind)kind),
                              res->warm[kind], res->batches[kind] + res->few[kind]);
    for (int d = 0; d < in->job->ndata; d++)
        times -= plan_gathers(in, res, dpt_resources_keeps_gradient_of(in, res, d), 1.0, 0.0,
                              dpt_resources_batches(in, res, d)) /
                 2.0;
    return plan_gathered(in, res) * times;
}

/* What machines send each other of gradients: each batch its part of every other machine's blocks. */
static double plan_adding(const dpt_inputs *in, const dpt_resources *res, const plan_rates *r) {
    double p = res->tensor_parallel, replicas = res->ranks / p;
    double machines = fmin(replicas, res->machines);
    if (machines <= 1.0)
        return 0.0;
    double bytes = 4.0 * (double)dpt_catalog_elements(in->catalog) / p * (machines - 1.0) /
                   machines / (replicas / machines);
    double messages = (double)(res->cost.layers + 2) * (machines - 1.0);
    return res->adding_batches *
           (plan_message(r, res->ranks, bytes) + messages * plan_message(r, res->ranks, 0.0));
}

static void plan_add(double *to, const double *from, double times) {
    for (int i = 0; i < DPT_PLAN_PHASES; i++)
        to[i] += times * from[i];
}

/* A model from its owners, or from the file, to the mesh. */
static double plan_bind(const dpt_inputs *in, const dpt_resources *res, const plan_rates *r) {
    double p = res->tensor_parallel, ranks = res->ranks;
    double bytes = (double)dpt_catalog_bytes(&in->out_catalog) / p;
    double units = (double)res->cost.layers + 2.0, steps = ceil(log2(ranks));
    /* Agreements, lists of requests, and pieces: of a unit, and of the whole. */
    double messages =
        (3.0 * units + 20.0) * 2.0 * steps + units * (steps + fmin(ranks - 1.0, BIND_PARTNERS));
    return messages * plan_message(r, ranks, 0.0) + 4.0 * bytes / r->memory +
           (ranks > 1.0 ? plan_message(r, ranks, bytes * (ranks - 1.0) / ranks) : 0.0);
}

/* What edits read from the files: the pair once, and again where the nodes do not hold it in their page caches next to
 * the ranks. */
static double plan_read(const dpt_inputs *in, const dpt_resources *res, const plan_rates *r) {
    double pair =
        (double)dpt_catalog_bytes(in->catalog) + (double)dpt_catalog_bytes(&in->pair.catalog);
    double nodes = ceil((double)res->ranks / res->ranks_per_node);
    double free_bytes =
        res->machine.memory_gib * 1073741824.0 - (double)res->peak * res->ranks_per_node;
    bool cached = pair / nodes < free_bytes;
    double cold = cached ? fmin(pair, res->bytes_edits) : res->bytes_edits;
    return cold / r->read;
}

/* All edits: what they read, what that costs a rank, and decompositions. */
static double plan_edits(const dpt_inputs *in, const dpt_resources *res, const plan_rates *r) {
    double bytes = READ_BYTES * res->bytes_edits + MADE_BYTES * res->bytes_made;
    return plan_read(in, res, r) + bytes / res->ranks / r->memory +
           res->flops_svd / (r->doubles * res->ranks);
}

/* Gradients at t = 0 that are read back, or taken again where they are not kept, and what a kill loses of one. */
static double plan_gradients_again(const dpt_inputs *in, const dpt_resources *res,
                                   const plan_rates *r) {
    double bytes = 4.0 * (double)dpt_catalog_elements(in->catalog), pass = res->pass_seconds;
    double again = 0.0;
    for (int d = 0; d < in->job->ndata; d++)
        if (dpt_resources_keeps_gradient_of(in, res, d))
            again += dpt_passes_keeps_gradient(pass, bytes / res->ranks) ? bytes / r->read : pass;
    return again > 0.0 ? again + fmin(DPT_PASSES_GRADIENT_SECONDS, pass) : 0.0;
}

/* Edits that were in hand, and what was written of them where they go straight into files. */
static double plan_group_again(const dpt_inputs *in, const dpt_resources *res) {
    double written = dpt_resources_in_cells(in) ? 0.0 : res->phase[DPT_PLAN_WRITE];
    return in->job->nedits > 0
               ? (res->phase[DPT_PLAN_EDIT] + written) * res->together / in->job->nedits
               : 0.0;
}

/* Of all passes. */
static double plan_sum(const dpt_resources *res, double pass[DPT_PASS_KINDS][DPT_PLAN_PHASES]) {
    double sum = 0.0;
    for (int kind = 0; kind < DPT_PASS_KINDS; kind++)
        for (int i = 0; i < DPT_PLAN_PHASES; i++)
            sum += res->passes[kind] * pass[kind][i];
    return sum;
}

void dpt_plan_time(const dpt_inputs *in, dpt_resources *res) {
    const dpt_job *job = in->job;
    bool model = dpt_inputs_needs_model(in);
    plan_rates r = plan_rates_of(res);
    double pass[DPT_PASS_KINDS][DPT_PLAN_PHASES] = {{0.0}};
    double *phase = res->phase;
    for (int i = 0; i < DPT_PLAN_PHASES; i++)
        phase[i] = 0.0;
    for (int kind = 0; model && kind < DPT_PASS_KINDS; kind++)
        plan_pass(in, res, &r, (dpt_pass_kind)kind, pass[kind]);
    res->pass_seconds = 0.0;
    for (int i = 0; i < DPT_PLAN_PHASES; i++)
        res->pass_seconds += pass[DPT_PASS_SLOPES][i];
    res->pass_seconds += plan_gather(in, res, &r, true, job->njudged, 0.0, res->all_batches,
                                     res->pass_seconds / plan_batches(res));
    res->all_seconds = plan_sum(res, pass);
    dpt_resources_move(in, res);
    res->bytes_gathered = model ? plan_gathered_in_all(in, res) : 0.0;
    for (int kind = 0; kind < DPT_PASS_KINDS; kind++) {
        plan_add(phase, pass[kind], res->passes[kind]);
        phase[DPT_PLAN_GATHER] += plan_wait(in, res, &r, (dpt_pass_kind)kind, pass[kind]);
    }
    phase[DPT_PLAN_START] = START_SECONDS + res->bytes_verified / r.read +
                            in->catalog->count * 4.0 * plan_message(&r, res->ranks, 0.0);
    phase[DPT_PLAN_EDIT] = plan_edits(in, res, &r);
    phase[DPT_PLAN_WRITE] = res->bytes_written / r.write;
    double bind = model ? plan_bind(in, res, &r) : 0.0;
    if (model) {
        phase[DPT_PLAN_REDUCTIONS] += plan_adding(in, res, &r);
        phase[DPT_PLAN_LOAD] = res->bytes_loaded / r.read + 2.0 * bind;
        phase[DPT_PLAN_BIND] = bind * (job->nedits + (double)res->extra_binds);
    }
    double samples = 0.0;
    for (int d = 0; model && d < job->njudged; d++)
        samples += (double)in->data[d].samples;
    phase[DPT_PLAN_STATISTICS] =
        job->nedits * (UNIT_SECONDS * (model ? job->njudged : 1) + DRAWS * DRAW_SECONDS * samples);
    res->seconds = 0.0;
    for (int i = 0; i < DPT_PLAN_PHASES; i++)
        res->seconds += phase[i];
    res->restart = phase[DPT_PLAN_START] + phase[DPT_PLAN_LOAD] / 2.0 + bind +
                   plan_group_again(in, res) + (model ? plan_gradients_again(in, res, &r) : 0.0);
}

const char *dpt_plan_phase_name(int phase) {
    static const char *const names[DPT_PLAN_PHASES] = {DPT_PLAN_PHASE_LIST(DPT_PLAN_PHASE_NAME)};
    return names[phase];
}

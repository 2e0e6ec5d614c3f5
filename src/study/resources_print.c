#include "resources.h"

#include "deltapath/base/mem.h"
#include "plan_time.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void resources_print_row(const char *name, double value, const char *unit) {
    printf("  %-34s %12.1f %s\n", name, value, unit);
}

static const char *plural(int count) {
    return count == 1 ? "" : "s";
}

/* How many samples of each data set only choose. */
static void print_parts(const dpt_inputs *in) {
    for (int d = 0; d < in->job->njudged; d++) {
        const dpt_job_data *entry = &in->job->data[d];
        int64_t chosen = entry->other >= 0 ? in->data[entry->other].samples : 0;
        char label[128];
        snprintf(label, sizeof label, "%.80s: samples that only choose", entry->name);
        if (chosen > 0)
            printf("  %-34s %12" PRId64 " of %" PRId64 "\n", label, chosen,
                   chosen + in->data[d].samples);
    }
}

/* Whether edits share the gradients, or how much memory that lacks. */
static void print_sharing(const dpt_resources *res) {
    char lack[64] = "";
    if (res->gradient_lack > 0)
        snprintf(lack, sizeof lack, ": it lacks %" PRId64 " MiB a rank",
                 (res->gradient_lack >> 20) + 1);
    printf("  %-34s %12s%s\n", "gradient at t = 0 kept for all edits",
           dpt_resources_keeps_gradient(res) ? "yes" : "no", lack);
}

/* One row of the memory of a rank, and its name in JSON. */
typedef struct print_row {
    const char *name, *key;
    int64_t bytes;
    bool always;
} print_row;

enum { PRINT_ROWS = 18 };

static int memory_rows(const dpt_inputs *in, const dpt_resources *res, print_row rows[PRINT_ROWS]) {
    (void)in;
    const print_row all[] = {
        {"models, read together", "models", res->models.kept, false},
        {"weights", "weights", res->weights, true},
        {"activations and buffers", "activations", res->work - res->held_bytes + res->images, true},
        {"activations kept for the way back", "activations_kept", res->held_bytes, false},
        {"reference, before these", "reference", res->reference, false},
        {"gradients", "gradients", res->gradients, false},
        {"scratch gradient", "scratch_gradient", res->draw, false},
        {"random signs", "random_signs", res->signs, false},
        {"logits along random signs", "logits", res->logits, false},
        {"vectors of Lanczos's method", "lanczos", res->vectors, false},
        {"slopes of samples", "slopes", res->slopes, false},
        {"gradient in cells", "gradient_in_cells", res->cell_gradient ? res->cells : 0, false},
        {"edited model in cells", "edited_model", res->field, true},
        {"edit", "edit", res->edit, true},
        {"decompositions that are kept", "decompositions", res->decomposed.bytes, false},
        {"plane of two edits", "plane", res->plane, false},
        {"losses and terms", "losses", res->losses, false},
        {"at most at a time", "peak", res->peak, true},
        {"budget", "budget", res->budget, true}};
    int count = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i].always || all[i].bytes > 0)
            rows[count++] = all[i];
    return count;
}

static double node_count(const dpt_resources *res) {
    return ceil((double)res->ranks / res->ranks_per_node);
}

/* Seconds below an hour, hours above. */
static void print_time(const char *name, double seconds) {
    if (seconds < 3600.0)
        resources_print_row(name, seconds, "s");
    else
        resources_print_row(name, seconds / 3600.0, "h");
}

static void print_times(const dpt_resources *res) {
    printf("time, by %s\n", res->machine.source);
    if (res->bf16 && res->machine.bf16_gflops <= 0.0)
        printf("  %-34s %12s (no bf16_gflops there)\n", "rate of products in bf16", "as fp32");
    for (int i = 0; i < DPT_PLAN_PHASES; i++)
        if (res->phase[i] >= 0.05)
            print_time(dpt_plan_phase_name(i), res->phase[i]);
    print_time("whole study", res->seconds);
    print_time("each restart costs at most", res->restart);
    double nodes = node_count(res);
    printf("  %-34s %12.2f node hours (%.0f node%s)\n", "cost", nodes * res->seconds / 3600.0,
           nodes, plural((int)nodes));
}

static void print_decompositions(const dpt_resources *res) {
    const dpt_edit_decomposed *of = &res->decomposed;
    if (of->made > 0)
        printf("  %-34s %12" PRId64 "\n", "matrices that are decomposed", of->made);
    if (of->taken > 0)
        printf("  %-34s %12" PRId64 "\n", "cut from these again", of->taken);
    if (of->most > 0)
        printf("  %-34s %12d\n", "ranks that share a matrix, at most", of->most);
}

static void print_mesh(const dpt_inputs *in, const dpt_resources *res) {
    printf("study %s: %d edit%s, %d data set%s, %d rank%s\n", in->job->name, in->job->nedits,
           plural(in->job->nedits), in->job->njudged, plural(in->job->njudged), res->ranks,
           plural(res->ranks));
    printf("  %-34s %12" PRId64 "\n", "elements of the model", dpt_catalog_elements(in->catalog));
    if (res->together > 1)
        printf("  %-34s %12d\n", "edits made together, at most", res->together);
    print_decompositions(res);
    if (dpt_inputs_needs_model(in)) {
        printf("  %-34s %6d data x %d tensor-parallel\n", "mesh", res->ranks / res->tensor_parallel,
               res->tensor_parallel);
        print_parts(in);
        printf("  %-34s %12" PRId64 "\n", "tokens packed into one pass", res->batch_tokens);
        double expected = res->loss_evaluations + res->slope_evaluations;
        bool nested = expected < res->most_passes;
        printf("  %-34s %12.0f\n",
               nested ? "passes over a data set, at most" : "passes over a data set",
               res->most_passes);
        if (nested)
            printf("  %-34s %12.0f\n", "passes to be expected", expected);
        if (res->shared_passes > 0)
            printf("  %-34s %12" PRId64 "\n", "of these shared on a line, at most",
                   res->shared_passes);
        print_sharing(res);
        printf("  %-34s %12" PRId64 " of %" PRId64 "\n", "layers whose activations are kept",
               res->held, res->cost.layers);
    }
}

void dpt_resources_print(const dpt_inputs *in, const dpt_resources *res) {
    const double mib = 1048576.0;
    print_row rows[PRINT_ROWS];
    print_mesh(in, res);
    printf("memory per rank\n");
    int count = memory_rows(in, res, rows);
    for (int i = 0; i < count; i++)
        resources_print_row(rows[i].name, (double)rows[i].bytes / mib, "MiB");
    printf("whole study\n");
    bool nested = res->saved_flops > 0.0;
    if (res->flops > 0)
        resources_print_row(nested ? "arithmetic, at most" : "arithmetic", res->flops / 1e12,
                            "Tflop");
    if (nested)
        resources_print_row("arithmetic to be expected", (res->flops - res->saved_flops) / 1e12,
                            "Tflop");
    resources_print_row("read", res->bytes_read / 1e9, "GB");
    if (res->bytes_digest > 0.0)
        printf("  %-34s %12.1f GB, post states no hashes: `deltapath convert` does\n",
               "of it for the digest of post alone", res->bytes_digest / 1e9);
    resources_print_row("written", res->bytes_written / 1e9, "GB");
    if (res->bytes_gathered > 0.0)
        resources_print_row("weights into a machine", res->bytes_gathered / 1e9, "GB");
    print_times(res);
}

/* Numbers by name; NULL without memory. */
static json_t *json_of_phases(const dpt_resources *res) {
    json_t *phases = json_object();
    for (int i = 0; i < DPT_PLAN_PHASES; i++)
        json_object_set_new(phases, dpt_plan_phase_name(i), json_real(res->phase[i]));
    return phases;
}

static json_t *json_of_memory(const dpt_inputs *in, const dpt_resources *res) {
    print_row rows[PRINT_ROWS];
    json_t *memory = json_object();
    int count = memory_rows(in, res, rows);
    for (int i = 0; i < count; i++)
        json_object_set_new(memory, rows[i].key, json_real((double)rows[i].bytes / 1073741824.0));
    return memory;
}

/* Where a machine comes from, which may be a file whose name is no UTF-8, or too long. */
static json_t *json_of_source(const dpt_machine *machine) {
    json_t *text = json_string(machine->source);
    char plain[sizeof machine->source];
    if (text != NULL)
        return text;
    for (size_t i = 0; i < sizeof plain; i++)
        plain[i] = (char)((unsigned char)machine->source[i] < 0x80 ? machine->source[i] : '?');
    return json_string(plain);
}

json_t *dpt_resources_json(const dpt_inputs *in, const dpt_resources *res) {
    return json_pack(
        "{s:i, s:i, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, "
        "s:f, s:i, s:{s:I, s:I, s:i, s:i}, s:o, s:o, s:o}",
        "ranks", res->ranks, "tensor_parallel", res->tensor_parallel, "batch_tokens",
        (json_int_t)res->batch_tokens, "layers_kept", (json_int_t)res->held, "nodes",
        node_count(res), "hours", res->seconds / 3600.0, "node_hours",
        node_count(res) * res->seconds / 3600.0, "restart_hours", res->restart / 3600.0,
        "memory_gib", (double)res->peak / 1073741824.0, "read_gb", res->bytes_read / 1e9,
        "written_gb", res->bytes_written / 1e9, "gathered_gb", res->bytes_gathered / 1e9, "tflop",
        res->flops / 1e12, "expected_tflop", (res->flops - res->saved_flops) / 1e12,
        "forward_passes", res->loss_evaluations, "slope_passes", res->slope_evaluations,
        "edits_together", res->together, "low_rank", "decomposed", (json_int_t)res->decomposed.made,
        "cut", (json_int_t)res->decomposed.taken, "least_group", res->decomposed.least,
        "most_group", res->decomposed.most, "machine", json_of_source(&res->machine), "seconds",
        json_of_phases(res), "gib_per_rank", json_of_memory(in, res));
}

dpt_status dpt_resources_print_json(json_t *all) {
    char *text = all != NULL ? json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(all);
    if (text == NULL)
        return dpt_error(DPT_ERR_OUTPUT, "the plan: no memory left: " DPT_MEM_REMEDY);
    printf("%s\n", text);
    free(text);
    return DPT_OK;
}

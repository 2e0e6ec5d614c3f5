#include "job_keys.h"

#include "deltapath/path/bootstrap.h"

#include <float.h>
#include <stddef.h>

#define IN_JOB(field) .offset = offsetof(dpt_job, field), .size = sizeof((dpt_job *)NULL)->field
#define IN_DATA(field)                                                                             \
    .offset = offsetof(dpt_job_data, field), .size = sizeof((dpt_job_data *)NULL)->field
#define MOST_RANKS         (1 << 20)
#define AUTO_UP_TO(most)   .type = DPT_KEY_AUTO, .standard = "auto", .low = 1, .high = most
#define ALL_BY_CONTENT     .redo = DPT_REDO_ALL, .content = true
#define CHOICE(value, all) .type = DPT_KEY_CHOICE, .standard = value, .choices = all
#define SWITCH(value)      .type = DPT_KEY_BOOLEAN, .standard = value

/* Texts of `help` are Markdown: doc/jobs.md shows them. */
static const dpt_job_key keys[] = {
    {.section = "",
     .name = "name",
     .type = DPT_KEY_STRING,
     .standard = "study",
     IN_JOB(name),
     .help = "name of the study: letters, digits and . _ + -"},
    {.section = "",
     .name = "models",
     .type = DPT_KEY_SECTION,
     .required = true,
     .help = "the pair"},
    {.section = "models",
     .name = "pre",
     .type = DPT_KEY_PATH,
     .required = true,
     ALL_BY_CONTENT,
     IN_JOB(pre),
     .help = "pre-trained model: HDF5 checkpoint, safetensors directory, or single safetensors "
             "file"},
    {.section = "models",
     .name = "post",
     .type = DPT_KEY_PATH,
     .required = true,
     ALL_BY_CONTENT,
     IN_JOB(post),
     .help = "post-trained model, as `pre`, or the folder of a PEFT adapter"},
    {.section = "models",
     .name = "io",
     CHOICE("direct", DPT_STORE_READINGS),
     IN_JOB(reading),
     .help =
         "how tensors come out of HDF5 checkpoints: `direct`, each rank reads what it works on; "
         "`chunks`, those in chunks, filtered or compact by collective H5Dread of all ranks, "
         "once, and each rank keeps its share in memory; `collective`, all of them so "
         "([why](architecture.md#decisions))"},
    {.section = "models",
     .name = "rename",
     .type = DPT_KEY_TEXTS,
     ALL_BY_CONTENT,
     .help =
         "`{\"OLD PREFIX\": \"NEW PREFIX\"}`: how names of the post-trained model begin, and what "
         "stands there in the pre-trained one ([below](#names))"},
    {.section = "",
     .name = "on_mismatch",
     CHOICE("error", "error|keep-post|rows"),
     .redo = DPT_REDO_ALL,
     IN_JOB(on_mismatch),
     .help = "`error`: models that do not pair stop the job, with a line for each mismatch, or for "
             "each kind that has more than five; `keep-post`: tensors without a partner keep their "
             "post-trained values; `rows`: vocabularies pair by the tokens of both tokenizers "
             "([below](#vocabularies))"},
    {.section = "",
     .name = "allow",
     .type = DPT_KEY_WORDS,
     .choices = "zero-delta|other-tokenizer",
     .offset = offsetof(dpt_job, allow_zero_delta),
     .size = 2 * sizeof(bool),
     .help = "list of what is an error otherwise: `zero-delta`, a pair that is equal in all "
             "selected tensors, of which no verdict is given; `other-tokenizer`, data made with "
             "another tokenizer than that of the post-trained model, or by other rules than those "
             "of both"},
    {.section = "",
     .name = "data",
     .type = DPT_KEY_ENTRIES,
     .help = "list of data sets, see below; without it only the edits run; the same samples in "
             "the same order, with the same weights and clusters, under the same loss twice are an "
             "error"},
    {.section = "data",
     .name = "name",
     .type = DPT_KEY_STRING,
     .required = true,
     .redo = DPT_REDO_UNITS,
     IN_DATA(name),
     .help = "letters, digits and . _ + -"},
    {.section = "data",
     .name = "file",
     .type = DPT_KEY_PATH,
     .required = true,
     .redo = DPT_REDO_UNITS,
     .content = true,
     IN_DATA(file),
     .help = "HDF5 file, see [formats](formats.md)"},
    {.section = "data",
     .name = "loss",
     .type = DPT_KEY_CHOICE,
     .required = true,
     .choices = DPT_LOSS_NAMES,
     .redo = DPT_REDO_UNITS,
     IN_DATA(loss),
     .help = "kind of loss, see below"},
    {.section = "data",
     .name = "samples",
     .type = DPT_KEY_INTEGER,
     .low = 1,
     .high = 1e18,
     .redo = DPT_REDO_UNITS,
     .content = true,
     IN_DATA(samples),
     .help = "the first so many samples alone, for a quicker look; all of them without it"},
    {.section = "data",
     .name = "choose",
     .type = DPT_KEY_REAL,
     .standard = "0",
     .high = 0.95,
     .redo = DPT_REDO_UNITS,
     .content = true,
     IN_DATA(choose),
     .help = "share of these samples that only choose, for edits that choose from data, and judge "
             "nothing ([below](#choosing-and-judging))"},
    {.section = "data",
     .name = "choose_seed",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 1e18,
     .redo = DPT_REDO_UNITS,
     .content = true,
     IN_DATA(choose_seed),
     .help = "which samples these are"},
    {.section = "data",
     .loss = "dpo",
     .name = "beta",
     .type = DPT_KEY_REAL,
     .standard = "0.1",
     .low = 1e-6,
     .high = 1e6,
     .redo = DPT_REDO_UNITS,
     IN_DATA(beta),
     .help = "strength of the preference, above 0"},
    {.section = "data",
     .loss = "dpo",
     .name = "reference",
     .type = DPT_KEY_PATH,
     .redo = DPT_REDO_UNITS,
     .content = true,
     IN_DATA(reference),
     .help = "model whose log-probabilities `c_ref` and `r_ref` are; any model "
             "with the same tokenizer; without it `models.post`"},
    {.section = "",
     .name = "edits",
     .type = DPT_KEY_ENTRIES,
     .required = true,
     .help =
         "list of edits, see below; an edit that is there twice is an error, also with its "
         "values, defaults and sequence written in another way, `dare` with `rescale: none` and "
         "`k: 0` for `drop`, or `multibit` with `bits: 0` for `bitdelta`; so are seeds of an "
         "edit that draws nothing. Edits that merely come to the same, as two that change "
         "nothing, are not found"},
    {.section = "edits",
     .name = "name",
     .type = DPT_KEY_EDIT,
     .required = true,
     ALL_BY_CONTENT,
     .help = "with the swept parameters after it the id of the edit"},
    {.section = "edits",
     .name = "method",
     .type = DPT_KEY_EDIT,
     .required = true,
     ALL_BY_CONTENT,
     .help = "a method, or a sequence of mappings that work on the delta in turn; its parameters "
             "are keys of the entry too"},
    {.section = "edits",
     .name = "seed",
     .type = DPT_KEY_EDIT,
     .standard = "0",
     ALL_BY_CONTENT,
     .help = "of the random mask"},
    {.section = "edits",
     .name = "seeds",
     .type = DPT_KEY_EDIT,
     ALL_BY_CONTENT,
     .help = "how many seeds: `seeds: 5` is the list of 5 from `seed` on"},
    {.section = "edits",
     .name = "calibrate",
     .type = DPT_KEY_EDIT,
     .standard = "none",
     .choices = "none|term|significant", /* in the order of dpt_edit_calibrate */
     ALL_BY_CONTENT,
     .help = "`term`: after the last method, F(Delta) of each tensor is multiplied by the one "
             "factor for which its approximation term at W_post, `<gradient, F(Delta) - Delta>`, "
             "is zero; `significant`: the same, only where the samples tell the slope along the "
             "edit from zero; or `none`"},
    {.section = "edits",
     .name = "data",
     .type = DPT_KEY_EDIT,
     ALL_BY_CONTENT,
     .help = "the data set whose gradient at W_post the edit takes, or on which `alpha: auto` is "
             "sought; without it the first, and for `auto` each in turn"},
    {.section = "edits",
     .name = "choose",
     .type = DPT_KEY_EDIT,
     ALL_BY_CONTENT,
     .help = "the same, of an edit that chooses from data; of a data set with `choose` the samples "
             "that only choose"},
    {.section = "edits",
     .name = "judge",
     .type = DPT_KEY_EDIT,
     ALL_BY_CONTENT,
     .help = "the one data set that judges the edit; without it all do"},
    {.section = "",
     .name = "select",
     .type = DPT_KEY_SECTION,
     .help = "which tensors the edits touch: those that are included (all without `include`) and "
             "not excluded; a pattern that matches nothing, and an `exclude` that leaves nothing, "
             "is an error"},
    {.section = "select",
     .name = "include",
     .type = DPT_KEY_PATTERNS,
     ALL_BY_CONTENT,
     .help = "shell patterns of names of post-trained tensors"},
    {.section = "select",
     .name = "exclude",
     .type = DPT_KEY_PATTERNS,
     ALL_BY_CONTENT,
     .help = "the same"},
    {.section = "",
     .name = "riemann",
     .type = DPT_KEY_SECTION,
     .redo = DPT_REDO_UNITS,
     IN_JOB(riemann),
     .help = "the path, or `off` for edits alone ([below](#edits-alone))"},
    {.section = "riemann",
     .name = "rule",
     CHOICE("auto", DPT_RULE_NAMES),
     .redo = DPT_REDO_UNITS,
     IN_JOB(rule),
     .help = "of the Riemann sum; `left` where `points` stands without a rule"},
    {.section = "riemann",
     .name = "points",
     .type = DPT_KEY_INTEGER,
     .standard = "5",
     .low = 1,
     .high = DPT_QUADRATURE_MAX,
     .redo = DPT_REDO_UNITS,
     IN_JOB(points),
     .help = "nodes of the rule; of `auto` the most that it may take"},
    {.section = "riemann",
     .name = "tolerance",
     .type = DPT_KEY_REAL,
     .standard = "0.05",
     .low = 0,
     .high = 1e9,
     .redo = DPT_REDO_UNITS,
     IN_JOB(tolerance),
     .help = "of `auto`: the miss, as a share of the change, from which on it takes more nodes"},
    {.section = "riemann",
     .name = "per_sample",
     SWITCH("false"),
     .redo = DPT_REDO_UNITS,
     IN_JOB(per_sample),
     .help =
         "slopes of the samples at t = 0 by a gradient for each edit in place of one for all; the "
         "interval of the estimate has them from the losses otherwise ([rules](#rules))"},
    {.section = "riemann",
     .name = "correlation",
     CHOICE("start", "start|path"), /* in the order of DPT_CORRELATION_... */
     .redo = DPT_REDO_UNITS,
     IN_JOB(correlation),
     .help =
         "where that of a random mask and the product of gradient and delta is measured: "
         "`start`, at t = 0, where memory allows; `path`, at every node, for a gradient more at "
         "each ([below](#correlation-of-mask-and-product))"},
    {.section = "",
     .name = "output",
     .type = DPT_KEY_SECTION,
     .required = true,
     .help = "where results go, and which"},
#include "job_keys_output.h"
    {.section = "",
     .name = "margin",
     .type = DPT_KEY_SECTION,
     .help = "changes within it count as equivalent"},
    {.section = "margin",
     .name = "share",
     .type = DPT_KEY_REAL,
     .standard = "0.05",
     .low = 0,
     .high = 10,
     .redo = DPT_REDO_UNITS,
     IN_JOB(margin_share),
     .help =
         "of the loss that post-training removed, a pre-trained loss above that of one that knows "
         "nothing counted as that; not above what a fall of the accuracy by `accuracy_margin` "
         "costs"},
    {.section = "margin",
     .name = "absolute",
     .type = DPT_KEY_REAL,
     .low = 0,
     .high = 1e9,
     .redo = DPT_REDO_UNITS,
     IN_JOB(margin),
     .help = "nats; wins when both are given"},
    {.section = "",
     .name = "accuracy_margin",
     .type = DPT_KEY_REAL,
     .standard = "2",
     .low = 0,
     .high = 99,
     .redo = DPT_REDO_UNITS,
     IN_JOB(accuracy_margin),
     .help =
         "points by which the accuracy of a `competitive` edit may fall; 0 leaves the accuracy out "
         "of verdicts"},
    {.section = "",
     .name = "statistics",
     .type = DPT_KEY_SECTION,
     .help = "which intervals judge a change"},
    {.section = "statistics",
     .name = "interval",
     CHOICE("auto", "auto|t|bootstrap"), /* in the order of DPT_INTERVAL_... */
     .redo = DPT_REDO_UNITS,
     IN_JOB(statistics.interval),
     .help = "`t`, Student's paired interval; `bootstrap`, the paired BCa bootstrap; or `auto`, "
             "Student's with a correction for skewness (Hall 1992)"},
    {.section = "statistics",
     .name = "resamples",
     .type = DPT_KEY_INTEGER,
     .standard = "2000",
     .low = DPT_BOOTSTRAP_LEAST,
     .high = DPT_BOOTSTRAP_MOST,
     .redo = DPT_REDO_UNITS,
     IN_JOB(statistics.resamples),
     .help = "of the bootstrap"},
    {.section = "statistics",
     .name = "seed",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 1e18,
     .redo = DPT_REDO_UNITS,
     IN_JOB(statistics.seed),
     .help = "of the bootstrap"},
    {.section = "",
     .name = "law",
     .type = DPT_KEY_SECTION,
     .help = "measure the curvature along the delta before the edits, and predict the change of "
             "each `dare` from it ([science](science.md)); not with `riemann: off` or loss `dpo`"},
    {.section = "law",
     .name = "labels",
     CHOICE("drawn", "drawn|all"), /* in the order of DPT_LABELS_... */
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(law.labels),
     .help =
         "`drawn` from the model, `repeats` times; or `all`: each class in turn, a backward pass "
         "each, which gives the exact Gauss-Newton curvature: for data of loss `class` and a "
         "model of at most 32 classes"},
    {.section = "law",
     .name = "repeats",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 10000,
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(law.repeats),
     .help = "backward passes over each data set, each with labels drawn anew; 2 or more give a "
             "standard error; 0 measures nothing"},
    {.section = "law",
     .name = "probes",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 10000,
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(law.probes),
     .help = "random signs along the delta, along which the logits are measured by two forward "
             "passes each, and which predict the accuracy of each `dare` and `drop`; 32 are "
             "plenty; for data of loss `class` and a model of at most 32 classes; 0 measures "
             "nothing"},
    {.section = "law",
     .name = "seed",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 1e18,
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(law.seed),
     .help = "of the labels and the signs"},
    {.section = "",
     .name = "hessian",
     .type = DPT_KEY_SECTION,
     .help = "second derivatives at W_post by differences of slopes ([science](science.md)); not "
             "with `riemann: off`"},
    {.section = "hessian",
     .name = "edits",
     SWITCH("false"),
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(hessian.edits),
     .help = "`1/2 E^T H E` of each edit at W_post, with its numerical error and its split over "
             "tensors; four backward passes or more"},
    {.section = "hessian",
     .name = "blocks",
     CHOICE("none", "none|layers|modules"), /* in the order of DPT_GROUPS_... */
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(hessian.blocks),
     .help = "the blocks `1/2 E_l^T H E_m` of each edit over its layers and what is outside of "
             "them, or over its kinds of module; two backward passes a group besides those of "
             "`edits`, which it implies"},
    {.section = "hessian",
     .name = "probes",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 10000,
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(hessian.probes),
     .help = "random signs along the delta before the edits, two backward passes each: the "
             "curvature of the Hessian itself next to that of `law`, and the spread of each `dare` "
             "over masks; 2 or more give a standard error, 4 or more that of the spread; 0 "
             "measures nothing"},
    {.section = "hessian",
     .name = "lanczos",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 100,
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(hessian.lanczos),
     .help = "how many eigenvalues of greatest size of the Hessian, in the tensors that edits "
             "touch, and of D H D, D = diag(Delta), with residuals; 0 takes none"},
    {.section = "hessian",
     .name = "steps",
     .type = DPT_KEY_INTEGER,
     .standard = "20",
     .low = 1,
     .high = 1000,
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(hessian.steps),
     .help = "of Lanczos's method, at least as many as eigenvalues: two backward passes each, and "
             "a vector of the model's size in fp32 over all ranks"},
    {.section = "hessian",
     .name = "seed",
     .type = DPT_KEY_INTEGER,
     .standard = "0",
     .high = 1e18,
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_hash_for_units */
     IN_JOB(hessian.seed),
     .help = "of the signs, and of the vector that Lanczos's method starts with"},
    {.section = "",
     .name = "plane",
     .type = DPT_KEY_SECTION,
     .help = "the loss on the plane of two edits ([below](#the-plane-of-two-edits)); not with "
             "`riemann: off`"},
    {.section = "plane",
     .name = "a",
     .type = DPT_KEY_STRING,
     .required = true,
     .content = true, /* the numbers of a plane have a key of their own */
     IN_JOB(plane.a),
     .help = "id of an edit, as in the results; its end is at x = 1, y = 0"},
    {.section = "plane",
     .name = "b",
     .type = DPT_KEY_STRING,
     .required = true,
     .content = true,
     IN_JOB(plane.b),
     .help = "id of another edit, whose end is at x = 0, y = 1"},
    {.section = "plane",
     .name = "points",
     .type = DPT_KEY_INTEGER,
     .standard = "5",
     .low = 2,
     .high = 1000,
     IN_JOB(plane.points),
     .help = "places of x, and of y; a pass over each data set for each pair"},
    {.section = "plane",
     .name = "low",
     .type = DPT_KEY_REAL,
     .standard = "0",
     .low = -1000,
     .high = 1000,
     IN_JOB(plane.low),
     .help = "the first place"},
    {.section = "plane",
     .name = "high",
     .type = DPT_KEY_REAL,
     .standard = "1",
     .low = 0.01,
     .high = 1000,
     IN_JOB(plane.high),
     .help = "the last place, above `low`"},
    {.section = "",
     .name = "proof",
     .type = DPT_KEY_SECTION,
     .help = "what groups of tensors change, next to their terms: each is left out of the edit in "
             "turn ([below](#groups-left-out)); not with `riemann: off`"},
    {.section = "proof",
     .name = "groups",
     .type = DPT_KEY_CHOICE,
     .required = true,
     .choices = "none|layers|modules", /* in the order of DPT_GROUPS_... */
     .redo = DPT_REDO_UNITS,
     .content = true, /* dpt_job_leaves_out */
     IN_JOB(proof.groups),
     .help = "the layers and what is outside of them, or the kinds of module; a forward pass a "
             "group and edit over each data set, and with `alone` another"},
    {.section = "proof",
     .name = "edits",
     .type = DPT_KEY_PATTERNS,
     .redo = DPT_REDO_UNITS,
     .content = true,
     .help = "shell patterns of ids of edits, as in the results; all edits without them; one that "
             "matches nothing is an error"},
    {.section = "proof",
     .name = "alone",
     SWITCH("true"),
     .redo = DPT_REDO_UNITS,
     .content = true,
     IN_JOB(proof.alone),
     .help = "also the group's part of the edit alone, with the other groups left at W_post"},
    {.section = "",
     .name = "precision",
     CHOICE("fp32", "fp32|bf16"), /* in the order of dpt_precision */
     .redo = DPT_REDO_UNITS,
     IN_JOB(precision),
     .help = "of the products with weights in all passes: `fp32`; or `bf16`, faster where the "
             "processor has "
             "instructions for it: what the weights are multiplied by is rounded, sums are fp32, "
             "and each edit says "
             "what that changes on a few samples ([below](#precision))"},
    {.section = "",
     .name = "tensor_parallel",
     AUTO_UP_TO(MOST_RANKS),
     IN_JOB(tensor_parallel),
     .help = "ranks that share one replica of the model; a divisor of the number of ranks"},
    {.section = "",
     .name = "svd_group",
     AUTO_UP_TO(MOST_RANKS),
     .redo = DPT_REDO_ALL,
     IN_JOB(svd_group),
     .help = "ranks that share one matrix in low rank; pin it for the same bits at any rank count"},
    {.section = "",
     .name = "batch_tokens",
     AUTO_UP_TO(INT32_MAX),
     IN_JOB(batch_tokens),
     .help = "most tokens packed into one pass, 2048 with `auto`; halved until the work fits the "
             "memory, to 512 also for a shared gradient, never below the longest sample"},
};

_Static_assert(offsetof(dpt_job, allow_other_tokenizer) ==
                   offsetof(dpt_job, allow_zero_delta) + sizeof(bool),
               "words of allow are read into one field after another");

enum { KEYS = sizeof keys / sizeof keys[0] };

const dpt_job_key *dpt_job_keys(int *count) {
    *count = KEYS;
    return keys;
}

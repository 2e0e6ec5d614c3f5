/* The verbs that look at models or copy them: convert, inspect, diff, verify. */
#include "cli.h"

#include "deltapath/verbs/convert.h"
#include "deltapath/verbs/diff.h"
#include "deltapath/verbs/inspect.h"
#include "deltapath/verbs/verify.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"

#include <errno.h>

enum {
    KEY_DTYPE = 1000,
    KEY_SHARD,
    KEY_OVERWRITE,
    KEY_JSON,
    KEY_CSV,
    KEY_ITERATIONS,
    KEY_MEMORY,
    KEY_VERIFY,
    KEY_BASE
};

/* Words of any of these verbs. */
typedef struct words {
    const char *path[2];
    int paths;
    int wanted; /* paths that the verb needs */
    const char *needs;
    dpt_convert_options convert;
    dpt_inspect_options inspect;
    dpt_diff_options diff;
    int64_t memory;
    const char *base;
} words;

static error_t add_path(words *w, char *arg) {
    if (w->paths == w->wanted)
        return EINVAL;
    if (arg[0] == '\0') {
        (void)dpt_error(DPT_ERR_USAGE, "'': give %s", w->needs);
        return EINVAL;
    }
    w->path[w->paths++] = arg;
    return 0;
}

static error_t models_parse(int key, char *arg, struct argp_state *state) {
    words *w = state->input;
    switch (key) {
    case KEY_DTYPE:
        w->convert.dtype = arg;
        return 0;
    case KEY_SHARD:
        return dpt_cli_bytes(arg, "--shard-size", &w->convert.shard_bytes) == DPT_OK ? 0 : EINVAL;
    case KEY_OVERWRITE:
        w->convert.overwrite = w->diff.overwrite = true;
        return 0;
    case KEY_VERIFY:
        w->convert.verify_inputs = true;
        return 0;
    case KEY_BASE:
        w->base = arg;
        return 0;
    case KEY_JSON:
        w->inspect.json = true;
        return 0;
    case KEY_CSV:
        if (arg[0] == '\0') {
            (void)dpt_error(DPT_ERR_USAGE, "--csv '': give the path of a file");
            return EINVAL;
        }
        w->diff.csv = arg;
        return 0;
    case KEY_ITERATIONS:
        return dpt_cli_count(arg, "--iterations", &w->diff.iterations) == DPT_OK ? 0 : EINVAL;
    case KEY_MEMORY:
        return dpt_cli_bytes(arg, "--memory", &w->memory) == DPT_OK ? 0 : EINVAL;
    case ARGP_KEY_ARG:
        return add_path(w, arg);
    case ARGP_KEY_END:
        if (w->paths == w->wanted)
            return 0;
        (void)dpt_error(DPT_ERR_USAGE, "give %s", w->needs);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

#define MEMORY_OPTION                                                                              \
    { .name = "memory", .key = KEY_MEMORY, .arg = "SIZE", .doc = "Memory per rank, as in 8G" }

#define BASE_OPTION                                                                                \
    {                                                                                              \
        .name = "base", .key = KEY_BASE, .arg = "MODEL",                                           \
        .doc = "Model that a PEFT adapter is added to, where it names none that lies here"         \
    }

static dpt_status parse_words(const dpt_cli *cli, const struct argp *argp, int argc, char **argv,
                              words *w) {
    dpt_status st = dpt_cli_parse(cli, argp, argc, argv, w);
    if (st == DPT_OK && w->memory > 0)
        dpt_mem_set_budget(w->memory);
    return st;
}

static dpt_status convert(dpt_cli *cli, int argc, char **argv) {
    static const struct argp_option table[] = {
        {.name = "dtype", .key = KEY_DTYPE, .arg = "TYPE", .doc = "f32, f16, bf16 or same"},
        {.name = "shard-size", .key = KEY_SHARD, .arg = "SIZE", .doc = "Largest safetensors file"},
        {.name = "overwrite", .key = KEY_OVERWRITE, .doc = "Replace DST if it exists"},
        {.name = "verify-inputs", .key = KEY_VERIFY, .doc = "Check SRC as `verify` does, first"},
        BASE_OPTION,
        MEMORY_OPTION,
        {.name = NULL}};
    static const struct argp argp = {
        .options = table,
        .parser = models_parse,
        .args_doc = "SRC DST",
        .doc = "Copy a model: DST ending with .h5 is an HDF5 checkpoint, else a safetensors "
               "directory."};
    words w = {.wanted = 2, .needs = "a source and a destination"};
    dpt_status st = parse_words(cli, &argp, argc, argv, &w);
    w.convert.source = w.path[0];
    w.convert.target = w.path[1];
    w.convert.base = w.base;
    return st == DPT_OK ? dpt_convert_run(&cli->comm, &w.convert) : st;
}

static dpt_status inspect(dpt_cli *cli, int argc, char **argv) {
    static const struct argp_option table[] = {
        {.name = "json", .key = KEY_JSON, .doc = "One JSON object in place of the table"},
        BASE_OPTION,
        {.name = NULL}};
    static const struct argp argp = {.options = table,
                                     .parser = models_parse,
                                     .args_doc = "MODEL",
                                     .doc = "List the tensors of a model."};
    words w = {.wanted = 1, .needs = "the path of a model"};
    dpt_status st = parse_words(cli, &argp, argc, argv, &w);
    w.inspect.model = w.path[0];
    w.inspect.base = w.base;
    return st == DPT_OK ? dpt_inspect_run(&cli->comm, &w.inspect) : st;
}

static dpt_status diff(dpt_cli *cli, int argc, char **argv) {
    static const struct argp_option table[] = {
        {.name = "csv", .key = KEY_CSV, .arg = "FILE", .doc = "Write the table with all digits"},
        {.name = "overwrite",
         .key = KEY_OVERWRITE,
         .doc = "Replace the table of an earlier diff at FILE, also one that was changed since"},
        {.name = "iterations",
         .key = KEY_ITERATIONS,
         .arg = "N",
         .doc = "Lanczos steps of the spectral norm, a lower bound (20); 0 leaves it out"},
        MEMORY_OPTION,
        {.name = NULL}};
    static const struct argp argp = {.options = table,
                                     .parser = models_parse,
                                     .args_doc = "PRE POST",
                                     .doc = "Compare two models tensor by tensor."};
    words w = {.wanted = 2, .needs = "two models", .diff = {.iterations = 20}};
    dpt_status st = parse_words(cli, &argp, argc, argv, &w);
    w.diff.pre = w.path[0];
    w.diff.post = w.path[1];
    if (w.diff.iterations == 0)
        w.diff.iterations = -1;
    return st == DPT_OK ? dpt_diff_run(&cli->comm, &w.diff) : st;
}

static dpt_status verify(dpt_cli *cli, int argc, char **argv) {
    static const struct argp_option table[] = {BASE_OPTION, MEMORY_OPTION, {.name = NULL}};
    static const struct argp argp = {.options = table,
                                     .parser = models_parse,
                                     .args_doc = "PATH",
                                     .doc = "Check the folder of a study, a model, a data set, a "
                                            "results.h5 or a unit: structure, hashes, finite "
                                            "values."};
    words w = {.wanted = 1,
               .needs = "the path of a study, a model, a data set, a results.h5 or a unit"};
    dpt_status st = parse_words(cli, &argp, argc, argv, &w);
    dpt_verify_options options = {.path = w.path[0], .base = w.base};
    return st == DPT_OK ? dpt_verify_run(&cli->comm, &options) : st;
}

const dpt_cli_verb dpt_cli_verb_convert = {
    .name = "convert", .help = "copy a model into the other format", .run = convert, .stops = true};
const dpt_cli_verb dpt_cli_verb_inspect = {
    .name = "inspect", .help = "list the tensors of a model", .run = inspect};
const dpt_cli_verb dpt_cli_verb_diff = {
    .name = "diff", .help = "compare two models tensor by tensor", .run = diff};
const dpt_cli_verb dpt_cli_verb_verify = {
    .name = "verify", .help = "check a study, a model or a results file", .run = verify};

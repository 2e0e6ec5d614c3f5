#include "deltapath/study/join.h"

#include "cli.h"
#include "deltapath/base/mem.h"

#include <errno.h>

enum { PARTS_MAX = 65536, SETS_MAX = 256, KEY_JOB = 1000, KEY_SET, KEY_OVERWRITE };

typedef struct join_words {
    dpt_join_options options;
    const char **parts; /* (PARTS_MAX) */
    const char *sets[SETS_MAX];
} join_words;

static const struct argp_option join_table[] = {
    {.name = "output", .key = 'o', .arg = "DIR", .doc = "Directory for the results of all"},
    {.name = "job",
     .key = KEY_JOB,
     .arg = "JOB.yaml",
     .doc = "The job with all edits, where the parts were not made by --only"},
    {.name = "set", .key = KEY_SET, .arg = "KEY=VALUE", .doc = "Change a key of that job"},
    {.name = "overwrite", .key = KEY_OVERWRITE, .doc = "Replace what an earlier join wrote"},
    {.name = NULL}};

static error_t join_full(const char *what, int maximum) {
    (void)dpt_error(DPT_ERR_USAGE, "more than %d %s", maximum, what);
    return EINVAL;
}

static error_t join_parse(int key, char *arg, struct argp_state *state) {
    join_words *words = state->input;
    dpt_join_options *options = &words->options;
    switch (key) {
    case 'o':
        options->directory = arg;
        return 0;
    case KEY_JOB:
        options->job = arg;
        return 0;
    case KEY_SET:
        if (options->nsets == SETS_MAX)
            return join_full("--set", SETS_MAX);
        words->sets[options->nsets++] = arg;
        return 0;
    case KEY_OVERWRITE:
        options->overwrite = true;
        return 0;
    case ARGP_KEY_ARG:
        if (options->nparts == PARTS_MAX)
            return join_full("parts", PARTS_MAX);
        words->parts[options->nparts++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (options->nparts > 0 && options->directory != NULL)
            return 0;
        (void)dpt_error(DPT_ERR_USAGE, "give the output directories of the parts and -o DIR, as in "
                                       "`deltapath join out/part-* -o out/all`");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static dpt_status join_run(dpt_cli *cli, int argc, char **argv) {
    static const struct argp argp = {.options = join_table,
                                     .parser = join_parse,
                                     .args_doc = "PART...",
                                     .doc = "Put the results of several runs of one job, each with "
                                            "some of its edits, into one.\v"
                                            "doc/slurm.md shows it with arrays."};
    bool report = false;
    join_words words = {.parts = dpt_mem_zalloc(PARTS_MAX, sizeof(char *), "names of parts")};
    dpt_status st = words.parts != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = dpt_cli_parse(cli, &argp, argc, argv, &words);
    words.options.parts = words.parts;
    words.options.sets = words.sets;
    if (st == DPT_OK)
        st = dpt_join_run(&cli->comm, &words.options, &report);
    if (st == DPT_OK && report) {
        cli->report_results = dpt_mem_format("%s/results.h5", words.options.directory);
        cli->report_html = dpt_mem_format("%s/report.html", words.options.directory);
        if (cli->report_results == NULL || cli->report_html == NULL)
            st = DPT_ERR_OUTPUT;
    }
    dpt_mem_free(words.parts);
    return st;
}

const dpt_cli_verb dpt_cli_verb_join = {
    .name = "join", .help = "put the results of several runs of one job into one", .run = join_run};

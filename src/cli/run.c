#include "cli.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/stop.h"
#include "deltapath/study/study.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    SETS_MAX = 256,
    ONLY_MAX = 256,
    KEY_RESUME = 1000,
    KEY_SET,
    KEY_MEMORY,
    KEY_DRY_RUN,
    KEY_RANKS,
    KEY_MAX_TIME,
    KEY_ONLY,
    KEY_VERIFY,
    KEY_MACHINE,
    KEY_PER_NODE,
    KEY_TIME,
    KEY_JSON,
    KEY_PLOT
};

typedef struct run_options {
    const char *job;
    const char *sets[SETS_MAX];
    int nsets;
    const char *only[ONLY_MAX];
    int nonly;
    double max_seconds; /* 0: no limit */
    dpt_study_options study;
} run_options;

static const struct argp_option run_table[] = {
    {.name = "resume", .key = KEY_RESUME, .doc = "Go on with a study that was stopped"},
    {.name = "set",
     .key = KEY_SET,
     .arg = "KEY=VALUE",
     .doc = "Change a key of the job, as in --set riemann.points=9; may be repeated"},
    {.name = "only",
     .key = KEY_ONLY,
     .arg = "I/N|PATTERN",
     .doc =
         "Only every N-th edit from number I on, counted from 0, or edits whose id matches; may be "
         "repeated. `deltapath join` puts the parts together"},
    {.name = "memory", .key = KEY_MEMORY, .arg = "SIZE", .doc = "Memory per rank, as in 8G"},
    {.name = "max-time",
     .key = KEY_MAX_TIME,
     .arg = "TIME",
     .doc = "Stop, with all work saved and code 75, after that many seconds or H:MM:SS"},
    {.name = "verify-inputs",
     .key = KEY_VERIFY,
     .doc = "Check all hashes of the models, and that values are finite, before the work"},
    {.name = "dry-run", .key = KEY_DRY_RUN, .doc = "Check everything, print the plan and stop"},
    {.name = NULL}};

static const struct argp_option plan_table[] = {
    {.name = "ranks",
     .key = KEY_RANKS,
     .arg = "N|N..M",
     .doc = "Plan for N ranks; N..M: a table from N, doubled, up to M, in multiples of the "
            "job's tensor_parallel, and the cheapest of them"},
    {.name = "machine",
     .key = KEY_MACHINE,
     .arg = "FILE",
     .doc =
         "What `deltapath machine` wrote, or a file of that kind; without it products and memory "
         "are measured here, and the rest are defaults"},
    {.name = "ranks-per-node",
     .key = KEY_PER_NODE,
     .arg = "N",
     .doc = "Cores of a node over the threads of a rank (those here: OMP_NUM_THREADS) without it"},
    {.name = "time",
     .key = KEY_TIME,
     .arg = "TIME",
     .doc = "With N..M: seconds or H:MM:SS at most"},
    {.name = "json", .key = KEY_JSON, .doc = "Print JSON"},
    {.name = "plot",
     .key = KEY_PLOT,
     .arg = "FILE.svg",
     .doc = "With N..M: plot hours, node hours and memory over ranks"},
    {.name = "memory", .key = KEY_MEMORY, .arg = "SIZE", .doc = "Memory per rank, as in 16G"},
    {.name = "set", .key = KEY_SET, .arg = "KEY=VALUE", .doc = "Change a key of the job"},
    {.name = "only",
     .key = KEY_ONLY,
     .arg = "I/N|PATTERN",
     .doc = "Plan for some edits of the job"},
    {.name = NULL}};

static error_t set_count(const char *text, const char *option, int *ranks) {
    if (dpt_cli_count(text, option, ranks) != DPT_OK)
        return EINVAL;
    if (*ranks > 0)
        return 0;
    (void)dpt_error(DPT_ERR_USAGE, "%s 0: a study needs at least one rank", option);
    return EINVAL;
}

/* "N", or "N..M". */
static error_t set_ranks(const char *text, dpt_study_options *study) {
    char first[32];
    const char *dots = strstr(text, "..");
    if (dots == NULL)
        return set_count(text, "--ranks", &study->plan_ranks);
    snprintf(first, sizeof first, "%.*s", (int)(dots - text), text);
    error_t failed = set_count(first, "--ranks", &study->plan_ranks);
    if (failed == 0)
        failed = set_count(dots + 2, "--ranks", &study->plan_last);
    if (failed != 0 || study->plan_last >= study->plan_ranks)
        return failed;
    (void)dpt_error(DPT_ERR_USAGE, "--ranks %s: the second number is below the first", text);
    return EINVAL;
}

/* Options that a plan of one number of ranks does not have. */
static error_t check_table(const dpt_study_options *study) {
    if (study->plan_last > 0 || (study->plot == NULL && study->plan_seconds == 0.0))
        return 0;
    if (study->plot != NULL)
        (void)dpt_error(DPT_ERR_USAGE, "--plot %s: a plot is of --ranks N..M", study->plot);
    else
        (void)dpt_error(DPT_ERR_USAGE, "--time: a limit is for a choice: give --ranks N..M");
    return EINVAL;
}

static error_t run_parse(int key, char *arg, struct argp_state *state) {
    run_options *options = state->input;
    switch (key) {
    case KEY_RESUME:
        options->study.resume = true;
        return 0;
    case KEY_VERIFY:
        options->study.verify_inputs = true;
        return 0;
    case KEY_DRY_RUN:
        options->study.dry_run = true;
        return 0;
    case KEY_SET:
        if (options->nsets == SETS_MAX) {
            (void)dpt_error(DPT_ERR_USAGE, "--set is given more than %d times", SETS_MAX);
            return EINVAL;
        }
        options->sets[options->nsets++] = arg;
        return 0;
    case KEY_ONLY:
        if (options->nonly == ONLY_MAX) {
            (void)dpt_error(DPT_ERR_USAGE, "--only is given more than %d times", ONLY_MAX);
            return EINVAL;
        }
        options->only[options->nonly++] = arg;
        return 0;
    case KEY_MEMORY:
        return dpt_cli_bytes(arg, "--memory", &options->study.memory) == DPT_OK ? 0 : EINVAL;
    case KEY_MAX_TIME:
        return dpt_stop_parse_time(arg, "--max-time", &options->max_seconds) == DPT_OK ? 0 : EINVAL;
    case KEY_RANKS:
        return set_ranks(arg, &options->study);
    case KEY_MACHINE:
        options->study.machine = arg;
        return 0;
    case KEY_PER_NODE:
        return set_count(arg, "--ranks-per-node", &options->study.ranks_per_node);
    case KEY_TIME:
        return dpt_stop_parse_time(arg, "--time", &options->study.plan_seconds) == DPT_OK ? 0
                                                                                          : EINVAL;
    case KEY_PLOT:
        options->study.plot = arg;
        return 0;
    case KEY_JSON:
        options->study.json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (options->job != NULL)
            return EINVAL;
        options->job = arg;
        return 0;
    case ARGP_KEY_END:
        return check_table(&options->study);
    case ARGP_KEY_NO_ARGS:
        (void)dpt_error(DPT_ERR_USAGE, "give the path of a job file, as in jobs/demo.yaml");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static dpt_status run_job(dpt_cli *cli, const run_options *options) {
    dpt_job job;
    dpt_status st = dpt_job_read(&cli->comm, options->job, options->nsets, options->sets, &job);
    if (st != DPT_OK)
        return st;
    int all = job.nedits;
    st = dpt_agree(&cli->comm, dpt_job_keep_edits(&job, options->nonly, options->only));
    if (st == DPT_OK && options->nonly > 0)
        dpt_log(DPT_LOG_INFO, "%d of %d edits", job.nedits, all);
    if (st == DPT_OK)
        st = dpt_stop_create(&cli->comm, cli->started, options->max_seconds);
    if (st == DPT_OK)
        st = dpt_study_run(&cli->comm, &job, &options->study);
    dpt_stop_destroy();
    if (st == DPT_OK && !options->study.dry_run && job.report) {
        cli->report_results = dpt_mem_format("%s/results.h5", job.directory);
        cli->report_html = dpt_mem_format("%s/report.html", job.directory);
        if (cli->report_results == NULL || cli->report_html == NULL)
            st = DPT_ERR_OUTPUT;
    }
    dpt_job_destroy(&job);
    return st;
}

static dpt_status run(dpt_cli *cli, int argc, char **argv) {
    static const struct argp argp = {.options = run_table,
                                     .parser = run_parse,
                                     .args_doc = "JOB.yaml",
                                     .doc = "Run a study: edit, write, explain.\v"
                                            "doc/jobs.md describes job files."};
    run_options options = {.job = NULL};
    dpt_status st = dpt_cli_parse(cli, &argp, argc, argv, &options);
    return st == DPT_OK ? run_job(cli, &options) : st;
}

static dpt_status run_plan(dpt_cli *cli, int argc, char **argv) {
    static const struct argp argp = {.options = plan_table,
                                     .parser = run_parse,
                                     .args_doc = "JOB.yaml",
                                     .doc = "Say what a study would need and take; run nothing."};
    run_options options = {.job = NULL, .study = {.dry_run = true, .plan_ranks = 0}};
    dpt_status st = dpt_cli_parse(cli, &argp, argc, argv, &options);
    if (st == DPT_OK && options.study.plan_ranks == 0)
        options.study.plan_ranks = cli->comm.size;
    return st == DPT_OK ? run_job(cli, &options) : st;
}

const dpt_cli_verb dpt_cli_verb_run = {
    .name = "run", .help = "run a study from a job file", .run = run, .stops = true};
const dpt_cli_verb dpt_cli_verb_plan = {
    .name = "plan", .help = "say what a study would need; run nothing", .run = run_plan};

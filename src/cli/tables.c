#include "cli.h"
#include "deltapath/edit/edit.h"
#include "deltapath/results/results.h"
#include "deltapath/job/job.h"

#include <stdio.h>

/* The verbs that print the tables from which the program itself works: what they say is what it does. */

static error_t tables_parse(int key, char *arg, struct argp_state *state) {
    (void)state;
    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    (void)dpt_error(DPT_ERR_USAGE, "%s: this verb takes no words", arg);
    return EINVAL;
}

static dpt_status tables_print(dpt_cli *cli, int argc, char **argv, const char *doc,
                               void (*print)(FILE *file)) {
    const struct argp argp = {.parser = tables_parse, .doc = doc};
    dpt_status st = dpt_cli_parse(cli, &argp, argc, argv, NULL);
    if (st == DPT_OK && cli->comm.rank == 0)
        print(stdout);
    return st;
}

static dpt_status tables_run_keys(dpt_cli *cli, int argc, char **argv) {
    return tables_print(cli, argc, argv, "Print the keys of a job file.", dpt_job_print_keys);
}

static dpt_status tables_run_methods(dpt_cli *cli, int argc, char **argv) {
    return tables_print(cli, argc, argv, "Print the methods of edits and their parameters.",
                        dpt_edit_print_methods);
}

static dpt_status tables_run_columns(dpt_cli *cli, int argc, char **argv) {
    return tables_print(cli, argc, argv, "Print the columns of the results.",
                        dpt_results_print_columns);
}

const dpt_cli_verb dpt_cli_verb_keys = {
    .name = "keys", .help = "print the keys of a job file", .run = tables_run_keys};
const dpt_cli_verb dpt_cli_verb_methods = {.name = "methods",
                                           .help =
                                               "print the methods of edits and their parameters",
                                           .run = tables_run_methods};
const dpt_cli_verb dpt_cli_verb_columns = {
    .name = "columns", .help = "print the columns of the results", .run = tables_run_columns};

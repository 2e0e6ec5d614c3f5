#ifndef DELTAPATH_SRC_CLI_CLI_H
#define DELTAPATH_SRC_CLI_CLI_H

#include "deltapath/base/status.h"
#include "deltapath/comm/comm.h"

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

enum { DPT_CLI_EXPANDED = 16 };

/** What the verbs share with main. */
typedef struct dpt_cli {
    dpt_comm comm;
    double started;       /**< dpt_log_seconds() at the start of the process */
    char *report_results; /**< results.h5 of which main makes a report after the verb, or NULL */
    char *report_html;
    char *expanded[DPT_CLI_EXPANDED]; /**< words of the command line whose `~/` was replaced */
    int nexpanded;
    char *report_csv;      /**< folder for the CSV files of the plots, or NULL */
    bool report_overwrite; /**< these may replace others of their kind */
} dpt_cli;

/** One verb of the command line. */
typedef struct dpt_cli_verb {
    const char *name;
    const char *help; /**< one line */
    dpt_status (*run)(dpt_cli *cli, int argc, char **argv);
    bool stops; /**< signals stop it at a good place (comm/stop) */
} dpt_cli_verb;

/** All verbs, in the order of `--help`: dpt_cli_verb_<name> is in a source of this folder. */
#define DPT_CLI_VERBS(X)                                                                           \
    X(run)                                                                                         \
    X(plan)                                                                                        \
    X(machine)                                                                                     \
    X(synthetic)                                                                                   \
    X(convert) X(inspect) X(diff) X(verify) X(report) X(join) X(keys) X(methods) X(columns)

#define DPT_CLI_VERB_DECLARE(NAME) extern const dpt_cli_verb dpt_cli_verb_##NAME;
DPT_CLI_VERBS(DPT_CLI_VERB_DECLARE)

/** Parse a verb's words on every rank; only rank 0 prints.
 *
 * Local; the same on all ranks. `--help` prints the verb's help and gives DPT_CLI_HELP.
 * @param[in] argp  options, documentation and parser; its parser returns EINVAL after dpt_error.
 * Errors: DPT_ERR_USAGE naming the word. */
dpt_status dpt_cli_parse(const dpt_cli *cli, const struct argp *argp, int argc, char **argv,
                         void *input);

/** Status that means: help was printed, leave with 0. */
#define DPT_CLI_HELP ((dpt_status)-1)

/** "8G", "512M", "1.5T", "4096" to bytes (powers of 1024). Local. Errors: DPT_ERR_USAGE. */
dpt_status dpt_cli_bytes(const char *text, const char *option, int64_t *bytes);

/** An integer from 0. Local. Errors: DPT_ERR_USAGE. */
dpt_status dpt_cli_count(const char *text, const char *option, int *count);

/** Start the program anew with OpenBLAS kernels that fit the processor, where its own choice does
 * not. Before MPI_Init; returns when there is nothing to change. */
void dpt_cli_choose_kernels(char **argv);

#endif

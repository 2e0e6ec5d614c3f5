#include "cli.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/nearest.h"
#include "deltapath/base/path.h"
#include "deltapath/base/signal.h"
#include "deltapath/base/version.h"
#include "deltapath/comm/agree.h"
#include "deltapath/linalg/blas_memory.h"
#include "deltapath/report/report.h"

#include <jansson.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAIN_VERB_ADDRESS(NAME) &dpt_cli_verb_##NAME,
static const dpt_cli_verb *const verbs[] = {DPT_CLI_VERBS(MAIN_VERB_ADDRESS)};

enum { VERBS = sizeof verbs / sizeof *verbs };

static void print_help(const dpt_cli *cli) {
    if (cli->comm.rank != 0)
        return;
    printf("deltapath " DPT_VERSION ": edit and explain what post-training changed in a model\n\n"
           "  mpirun -n RANKS deltapath VERB ...\n\n");
    for (int v = 0; v < VERBS; v++)
        printf("  %-9s %s\n", verbs[v]->name, verbs[v]->help);
    printf("\n`deltapath VERB --help` lists the options of a verb.\n"
           "Exit codes: 0 done; 2 usage or job file; 3 input data; 4 output or resources; "
           "5 internal; 75 interrupted, resume it.\n");
}

static dpt_status unknown_verb(const char *word) {
    char hint[DPT_NEAREST_HINT];
    dpt_nearest nearest = dpt_nearest_begin(word);
    for (int v = 0; v < VERBS; v++)
        dpt_nearest_offer(&nearest, verbs[v]->name, strlen(verbs[v]->name));
    dpt_nearest_hint(&nearest, hint);
    return dpt_error(DPT_ERR_USAGE, "unknown verb '%s'%s: see `deltapath --help`", word, hint);
}

/* Paths in quotes, or after the `=` of an option, whose `~/` no shell has replaced. */
static dpt_status expand_words(dpt_cli *cli, int argc, char **argv) {
    for (int i = 2; i < argc && cli->nexpanded < DPT_CLI_EXPANDED; i++) {
        char *equals = strncmp(argv[i], "--", 2) == 0 ? strchr(argv[i], '=') : NULL;
        const char *path = equals != NULL ? equals + 1 : argv[i];
        char *expanded = NULL;
        if (strncmp(path, "~/", 2) != 0)
            continue;
        dpt_status st = dpt_path_expand(path, &expanded);
        if (st != DPT_OK)
            return st;
        char *word = dpt_mem_format("%.*s%s", (int)(path - argv[i]), argv[i], expanded);
        dpt_mem_free(expanded);
        if (word == NULL)
            return DPT_ERR_OUTPUT;
        argv[i] = cli->expanded[cli->nexpanded++] = word;
    }
    return DPT_OK;
}

static dpt_status dispatch(dpt_cli *cli, int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "";
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        print_help(cli);
        return DPT_CLI_HELP;
    }
    if (strcmp(word, "--version") == 0) {
        if (cli->comm.rank == 0)
            printf("deltapath " DPT_VERSION "\n");
        return DPT_CLI_HELP;
    }
    for (int v = 0; v < VERBS; v++) {
        if (strcmp(word, verbs[v]->name) != 0)
            continue;
        char name[64];
        snprintf(name, sizeof name, "deltapath %s", verbs[v]->name);
        argv[1] = name;
        dpt_status st = expand_words(cli, argc, argv);
        return st != DPT_OK ? st : verbs[v]->run(cli, argc - 1, argv + 1);
    }
    if (word[0] == '\0')
        return dpt_error(DPT_ERR_USAGE, "give a verb, as in `deltapath run jobs/demo.yaml`: see "
                                        "`deltapath --help`");
    return unknown_verb(word);
}

/* Rank 0; the plots come from a child that is spawned, not forked, which MPI allows. */
static dpt_status write_report(const dpt_cli *cli) {
    if (cli->comm.rank != 0 || cli->report_results == NULL)
        return DPT_OK;
    dpt_report_options options = {.csv_dir = cli->report_csv, .overwrite = cli->report_overwrite};
    dpt_status st = dpt_report_write(cli->report_results, cli->report_html, &options);
    if (st == DPT_OK)
        dpt_log(DPT_LOG_INFO, "report: %s", cli->report_html);
    return st;
}

static void print_error(int rank) {
    if (rank == 0)
        fprintf(stderr, "deltapath: error: %s\n", dpt_error_message());
}

/* Verbs that stop are ready for signals before MPI is, whose start may take a second. */
static bool stops(int argc, char **argv) {
    for (int v = 0; v < VERBS && argc > 1; v++)
        if (strcmp(argv[1], verbs[v]->name) == 0)
            return verbs[v]->stops;
    return false;
}

/* OpenBLAS maps two buffers when it is loaded, before main, and tries for ever when it cannot: see
 * dpt_blas_take_memory. MPI's start takes about as much. What stands in .preinit_array runs before the
 * libraries start, and finds no more than the system's calls. The sanitizers have their own code there. */
#ifndef __SANITIZE_ADDRESS__
static void check_address_space(int argc, char **argv, char **environment) {
    static const char line[] = "deltapath: error: address space: OpenBLAS and MPI need 512 MiB, "
                               "which this process cannot map: "
                               "raise its limit (ulimit -v)\n";
    (void)argc;
    (void)argv;
    (void)environment;
    size_t bytes = 4 * (size_t)DPT_BLAS_BUFFER_BYTES;
    void *space = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (space != MAP_FAILED) {
        munmap(space, bytes);
        return;
    }
    ssize_t written = write(STDERR_FILENO, line, sizeof line - 1);
    _exit(written >= 0 ? DPT_ERR_OUTPUT : DPT_ERR_INTERNAL);
}

__attribute__((section(".preinit_array"),
               used)) static void (*const first_of_all)(int, char **,
                                                        char **) = check_address_space;
#endif

int main(int argc, char **argv) {
    dpt_cli cli = {.started = dpt_log_seconds()};
    int provided;
    if (stops(argc, argv))
        dpt_signal_hold();
    json_set_alloc_funcs(dpt_mem_library_alloc, free);
    dpt_cli_choose_kernels(argv);
    if (stops(argc, argv))
        dpt_signal_install();
    if (MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
        return DPT_ERR_INTERNAL;
    dpt_status st = dpt_comm_create(MPI_COMM_WORLD, &cli.comm);
    int rank = cli.comm.rank;
    dpt_agree_set_world(rank, cli.comm.size);
    dpt_log_configure(rank, getenv("DELTAPATH_QUIET") != NULL ? DPT_LOG_WARN : DPT_LOG_INFO);
    if (st == DPT_OK)
        st = dispatch(&cli, argc, argv);
    bool helped = st == DPT_CLI_HELP;
    st = helped ? DPT_OK : dpt_agree(&cli.comm, st);
    if (st == DPT_OK && !helped)
        st = dpt_agree(&cli.comm, write_report(&cli));
    if (st != DPT_OK)
        print_error(rank);
    fflush(stdout);
    dpt_comm_destroy(&cli.comm);
    MPI_Finalize();
    dpt_mem_free(cli.report_results);
    dpt_mem_free(cli.report_html);
    dpt_mem_free(cli.report_csv);
    for (int i = 0; i < cli.nexpanded; i++)
        dpt_mem_free(cli.expanded[i]);
    return st;
}

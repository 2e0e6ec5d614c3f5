#include "cli.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/study/machine.h"

#include <errno.h>
#include <stdio.h>

enum { KEY_OUT = 'o', KEY_OVERWRITE = 1000, KEY_DEFAULTS };

typedef struct machine_words {
    const char *folder, *out;
    bool overwrite, defaults;
} machine_words;

static const struct argp_option machine_table[] = {
    {.name = "output",
     .key = KEY_OUT,
     .arg = "FILE",
     .doc = "Keep it in a file, for `plan --machine`"},
    {.name = "overwrite", .key = KEY_OVERWRITE, .doc = "Replace an earlier machine file"},
    {.name = "defaults",
     .key = KEY_DEFAULTS,
     .doc = "Measure nothing: what a plan takes that knows no machine"},
    {.name = NULL}};

static error_t machine_parse(int key, char *arg, struct argp_state *state) {
    machine_words *w = state->input;
    switch (key) {
    case KEY_OUT:
        w->out = arg;
        return 0;
    case KEY_OVERWRITE:
        w->overwrite = true;
        return 0;
    case KEY_DEFAULTS:
        w->defaults = true;
        return 0;
    case ARGP_KEY_ARG:
        if (w->folder != NULL)
            return EINVAL;
        w->folder = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static dpt_status machine_give(const machine_words *w, const dpt_machine *machine) {
    if (w->out != NULL)
        return dpt_machine_save(machine, w->out, w->overwrite);
    dpt_machine_print(machine, stdout);
    if (fflush(stdout) != 0 || ferror(stdout))
        return dpt_error(DPT_ERR_OUTPUT, "standard output cannot be written");
    return DPT_OK;
}

static dpt_status run_machine(dpt_cli *cli, int argc, char **argv) {
    static const struct argp argp = {
        .options = machine_table,
        .parser = machine_parse,
        .args_doc = "[FOLDER]",
        .doc = "Measure this machine for `deltapath plan --machine`: products, memory, messages, "
               "and files in FOLDER (the current one by default).\vUnder mpirun with a rank for "
               "each core, on two nodes or more, it measures the network as well."};
    machine_words w = {.folder = NULL};
    dpt_machine machine = dpt_machine_defaults();
    dpt_status st = dpt_cli_parse(cli, &argp, argc, argv, &w);
    if (st == DPT_OK && !w.defaults)
        st = dpt_machine_measure(&cli->comm, w.folder != NULL ? w.folder : ".", &machine);
    if (st == DPT_OK)
        st = dpt_agree(&cli->comm, cli->comm.rank == 0 ? machine_give(&w, &machine) : DPT_OK);
    return st;
}

const dpt_cli_verb dpt_cli_verb_machine = {
    .name = "machine", .help = "measure this machine, for plans", .run = run_machine};

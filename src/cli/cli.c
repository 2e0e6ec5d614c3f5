#include "cli.h"

#include "deltapath/base/nearest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_HELP = '?' };

static const struct argp_option help_option[] = {
    {.name = "help", .key = KEY_HELP, .doc = "Print this help"}, {.name = NULL}};

typedef struct outer {
    const dpt_cli *cli;
    void *input;
    int helped;
    int last; /* index of the word after the one that failed */
} outer;

static error_t parse_outer(int key, char *arg, struct argp_state *state) {
    outer *out = state->input;
    (void)arg;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = out->input;
        return 0;
    case KEY_HELP:
        if (out->cli->comm.rank == 0 && !out->helped)
            argp_help(state->root_argp, stdout, ARGP_HELP_STD_HELP & ~(unsigned)ARGP_HELP_EXIT_OK,
                      state->name);
        out->helped = 1;
        return 0;
    case ARGP_KEY_ERROR:
        out->last = state->next;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* What a mistyped long option may have meant. */
static const char *hint_option(const struct argp *argp, const char *word,
                               char hint[DPT_NEAREST_HINT]) {
    char name[DPT_NEAREST_WORD] = "";
    if (strncmp(word, "--", 2) == 0)
        snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    dpt_nearest nearest = dpt_nearest_begin(name);
    for (const struct argp_option *o = argp->options; o != NULL && o->name != NULL; o++)
        dpt_nearest_offer(&nearest, o->name, strlen(o->name));
    hint[0] = '\0';
    if (nearest.distance > 0 && nearest.distance < DPT_NEAREST_WORD)
        snprintf(hint, DPT_NEAREST_HINT, " (did you mean '--%s'?)", nearest.best);
    return hint;
}

dpt_status dpt_cli_parse(const dpt_cli *cli, const struct argp *argp, int argc, char **argv,
                         void *input) {
    outer out = {.cli = cli, .input = input};
    struct argp_child children[] = {{.argp = argp}, {.argp = NULL}};
    struct argp whole = {.options = help_option,
                         .parser = parse_outer,
                         .children = children}; /* which bring their own documentation */
    error_t failed =
        argp_parse(&whole, argc, argv, ARGP_NO_ERRS | ARGP_NO_EXIT | ARGP_NO_HELP, NULL, &out);
    if (out.helped)
        return DPT_CLI_HELP;
    if (failed == 0)
        return DPT_OK;
    int word = out.last > 1 && out.last <= argc ? out.last - 1 : argc - 1;
    char hint[DPT_NEAREST_HINT];
    return dpt_error(DPT_ERR_USAGE, "'%s' is not understood here%s: see `%s --help`",
                     word > 0 ? argv[word] : "",
                     hint_option(argp, word > 0 ? argv[word] : "", hint), argv[0]);
}

dpt_status dpt_cli_bytes(const char *text, const char *option, int64_t *bytes) {
    char *end = NULL;
    double value = strtod(text, &end);
    double unit = 1;
    const char *units = "KMGT";
    const char *at = *end != '\0' ? strchr(units, *end) : NULL;
    if (at != NULL) {
        unit = pow(1024.0, (double)(at - units + 1));
        end++;
        end += *end == 'i';
        end += *end == 'B';
    }
    if (end == text || *end != '\0' || !(value > 0) || value * unit > 9e18)
        return dpt_error(DPT_ERR_USAGE, "%s %s: write a size such as 512M or 8G", option, text);
    *bytes = (int64_t)(value * unit);
    return DPT_OK;
}

dpt_status dpt_cli_count(const char *text, const char *option, int *count) {
    char *end = NULL;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 0 || value > 1 << 24)
        return dpt_error(DPT_ERR_USAGE, "%s %s: write an integer from 0", option, text);
    *count = (int)value;
    return DPT_OK;
}

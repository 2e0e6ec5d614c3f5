#include "cli.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/store/manifest.h"
#include "deltapath/study/directory_lock.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum { KEY_OVERWRITE = 1000 };

typedef struct report_options {
    const char *results;
    const char *html;
    const char *csv;
    bool overwrite;
} report_options;

static const struct argp_option table[] = {
    {.name = "output", .key = 'o', .arg = "FILE", .doc = "HTML file to write (report.html)"},
    {.name = "csv-dir", .key = 'c', .arg = "DIR", .doc = "Keep the data of the plots as CSV"},
    {.name = "overwrite",
     .key = KEY_OVERWRITE,
     .doc = "Replace tables of an earlier report in DIR, also those that were changed since"},
    {.name = NULL}};

static error_t report_parse(int key, char *arg, struct argp_state *state) {
    report_options *options = state->input;
    switch (key) {
    case 'o':
        options->html = arg;
        return 0;
    case 'c':
        options->csv = arg;
        return 0;
    case KEY_OVERWRITE:
        options->overwrite = true;
        return 0;
    case ARGP_KEY_ARG:
        if (options->results != NULL)
            return EINVAL;
        options->results = arg;
        return 0;
    case ARGP_KEY_NO_ARGS:
        (void)dpt_error(DPT_ERR_USAGE, "give the path of a results.h5");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* A report in the folder of a study changes its manifest: not while a run does. */
static dpt_status lock_study_of(const char *html) {
    const char *slash = strrchr(html, '/');
    char *folder = slash != NULL ? dpt_mem_format("%.*s", (int)(slash - html) + 1, html)
                                 : dpt_mem_strdup(".", "directory name");
    char *list = folder != NULL ? dpt_mem_format("%s/" DPT_MANIFEST_STUDY, folder) : NULL;
    dpt_status st = list != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && access(list, F_OK) == 0)
        st = dpt_directory_lock(folder);
    dpt_mem_free(list);
    dpt_mem_free(folder);
    return st;
}

/* Main writes the report, as that of a run. */
static dpt_status report(dpt_cli *cli, int argc, char **argv) {
    static const struct argp argp = {.options = table,
                                     .parser = report_parse,
                                     .args_doc = "RESULTS.h5",
                                     .doc = "Write the report of a finished study again."};
    report_options options = {.html = "report.html"};
    dpt_status st = dpt_cli_parse(cli, &argp, argc, argv, &options);
    if (st == DPT_OK && options.html[0] == '\0')
        st = dpt_error(DPT_ERR_USAGE, "-o '': give the path of an HTML file");
    if (st != DPT_OK)
        return st;
    st = dpt_agree(&cli->comm, cli->comm.rank == 0 ? lock_study_of(options.html) : DPT_OK);
    if (st != DPT_OK)
        return st;
    cli->report_results = dpt_mem_strdup(options.results, "file name");
    cli->report_html = dpt_mem_strdup(options.html, "file name");
    cli->report_overwrite = options.overwrite;
    cli->report_csv = dpt_mem_strdup(options.csv, "folder name");
    bool complete = cli->report_results != NULL && cli->report_html != NULL &&
                    (options.csv == NULL || cli->report_csv != NULL);
    return complete ? DPT_OK : DPT_ERR_OUTPUT;
}

const dpt_cli_verb dpt_cli_verb_report = {
    .name = "report", .help = "write the report of a finished study", .run = report};

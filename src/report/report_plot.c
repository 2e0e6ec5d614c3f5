#include "report_parts.h"

#include "deltapath/base/file.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/store/owned.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* gnuplot gives a meaning to quotes, backquotes, braces and more inside strings: labels reach it in
 * data files only, and hold nothing but plain characters. */
void dpt_report_label(const char *text, char label[DPT_REPORT_LABEL_MAX]) {
    int n = 0;
    for (; n < DPT_REPORT_LABEL_MAX - 1 && text[n] != '\0'; n++) {
        unsigned char c = (unsigned char)text[n];
        label[n] = c < 128 && (isalnum(c) || strchr(" ._+=-/()[]:%", c) != NULL) ? (char)c : '?';
    }
    label[n] = '\0';
    if (text[n] != '\0')
        memcpy(label + DPT_REPORT_LABEL_MAX - 3, "..", 3);
}

dpt_report_axis dpt_report_axis_make(double maximum, double typical) {
    enum { FAR = 8 };
    dpt_report_axis axis = {.maximum = maximum > 0.0 && isfinite(maximum) ? maximum : 1.0,
                            .linear = 0.0};
    if (typical > 0.0 && axis.maximum > FAR * typical)
        axis.linear = fmax(typical, axis.maximum * 1e-4);
    return axis;
}

double dpt_report_axis_place(const dpt_report_axis *axis, double x) {
    return axis->linear > 0.0 ? asinh(x / axis->linear) : x;
}

void dpt_report_axis_function(FILE *script, const dpt_report_axis *axis) {
    if (axis->linear > 0.0)
        fprintf(script, "f(x) = asinh(x / %.17g)\n", axis->linear);
    else
        fputs("f(x) = x\n", script);
}

void dpt_report_axis_tics(FILE *script, const dpt_report_axis *axis, const char *which) {
    if (axis->linear <= 0.0) {
        fprintf(script, "set %stics autofreq\n", which);
        return;
    }
    /* Over few decades 2 and 5 have tics too; nothing inside the linear part but 0. */
    bool dense = axis->maximum < 300.0 * axis->linear;
    fprintf(script, "set %stics (\"0\" 0", which);
    for (double decade = pow(10.0, floor(log10(axis->maximum))); decade >= 0.2 * axis->linear;
         decade /= 10.0)
        for (int k = 0; k < (dense ? 3 : 1); k++)
            for (int sign = -1; sign <= 1; sign += 2) {
                static const int steps[] = {1, 2, 5};
                double x = sign * decade * steps[k];
                if (fabs(x) >= 0.7 * axis->linear)
                    fprintf(script, ", \"%g\" %.17g", x, dpt_report_axis_place(axis, x));
            }
    fputs(")\n", script);
}

FILE *dpt_report_csv(const dpt_report_plots *plots, const char *kind, const char *data,
                     const char *header, char path[1024]) {
    char name[DPT_REPORT_LABEL_MAX];
    dpt_report_label(data, name);
    for (char *c = name; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("._+=-", *c) == NULL)
            *c = '_';
    int length = snprintf(path, 1024, "%s/%s%s%s.csv", plots->directory, kind,
                          name[0] != '\0' ? "-" : "", name);
    if (length >= 1024) {
        (void)dpt_error(DPT_ERR_OUTPUT, "%s: the path is too long", path);
        return NULL;
    }
    if (dpt_owned_check_table(path, header, "table of a plot", plots->overwrite) != DPT_OK)
        return NULL;
    dpt_file_sweep_of(path);
    char *temporary = dpt_file_begin(path);
    FILE *csv = temporary != NULL ? fopen(temporary, "wxe") : NULL;
    if (csv == NULL)
        (void)dpt_error(DPT_ERR_OUTPUT,
                        "%s: cannot be created: %s: check the permissions of the folder above",
                        path, strerror(errno));
    else
        fprintf(csv, "%s\n", header);
    dpt_mem_free(temporary);
    return csv;
}

dpt_status dpt_report_csv_close(FILE *csv, const char *path) {
    bool failed = ferror(csv) != 0;
    if (fclose(csv) == 0 && !failed)
        return dpt_file_commit(path);
    dpt_file_discard(path);
    return dpt_error(DPT_ERR_OUTPUT, "%s: cannot be written: check disk space", path);
}

const char *dpt_report_csv_name(const char *path) {
    return strrchr(path, '/') + 1;
}

FILE *dpt_report_script(char **text, size_t *size, int width, int height) {
    FILE *script = open_memstream(text, size);
    if (script == NULL) {
        (void)dpt_error(DPT_ERR_OUTPUT,
                        "report: no memory left for the script of a plot: " DPT_MEM_REMEDY);
        return NULL;
    }
    fprintf(script,
            "set terminal svg size %d,%d fixed noenhanced font 'Helvetica,Arial,sans-serif,12' "
            "linewidth 1\n"
            "set datafile separator ','\n"
            "set datafile missing ''\n"
            "set border 3 lc rgb '#8a8f98'\n"
            "set tics nomirror textcolor rgb '#333a45'\n"
            "set grid lc rgb '#e4e7eb' lt 1\n"
            "set key textcolor rgb '#333a45'\n",
            width, height);
    return script;
}

/* Run a program in a folder to its end with its output in a file. True when it returned 0. */
static bool plot_run(const char *program, const char *argument, const char *folder, const char *out,
                     const char *errors) {
    posix_spawn_file_actions_t actions;
    char *const argv[] = {(char *)program, (char *)argument, NULL};
    pid_t child;
    int status = -1;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return false;
    int flags = O_WRONLY | O_CREAT | O_TRUNC;
    bool ok = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) == 0 &&
              posix_spawn_file_actions_addopen(&actions, 1, out, flags, 0600) == 0 &&
              posix_spawn_file_actions_addopen(&actions, 2, errors, flags, 0600) == 0 &&
              posix_spawn_file_actions_addchdir_np(&actions, folder) == 0 &&
              posix_spawnp(&child, program, &actions, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    while (ok && waitpid(child, &status, 0) < 0)
        ok = errno == EINTR;
    return ok && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static char *slurp(const char *path) {
    FILE *file = fopen(path, "re");
    char *text = NULL;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0) {
        long size = ftell(file);
        rewind(file);
        text = size < 0 ? NULL : dpt_mem_zalloc((int64_t)size + 1, 1, "plot");
        if (text != NULL && fread(text, 1, (size_t)size, file) != (size_t)size)
            text[0] = '\0';
    }
    if (file != NULL)
        fclose(file);
    return text;
}

/* The SVG of a script, without its XML header; NULL when gnuplot failed, with a warning. */
static char *make_svg(dpt_report_plots *plots, const char *script, char **start) {
    char *input = dpt_mem_format("%s/plot.gp", plots->scratch);
    char *output = dpt_mem_format("%s/plot.svg", plots->scratch);
    char *errors = dpt_mem_format("%s/plot.err", plots->scratch);
    char *svg = NULL;
    FILE *file = input != NULL && output != NULL && errors != NULL ? fopen(input, "we") : NULL;
    bool ok = file != NULL && fputs(script, file) >= 0;
    if (file != NULL)
        ok = fclose(file) == 0 && ok;
    if (ok && plot_run(plots->gnuplot, input, plots->directory, output, errors))
        svg = slurp(output);
    *start = svg != NULL ? strstr(svg, "<svg") : NULL;
    if (*start == NULL) {
        char *why = ok ? slurp(errors) : NULL;
        plots->missing = why == NULL || why[0] == '\0';
        char *line = why == NULL ? NULL : strstr(why, "line ");
        if (line != NULL)
            line[strcspn(line, "\n")] = '\0';
        dpt_log(DPT_LOG_WARN, "%s made no plot: %.200s: the report has tables only there",
                plots->gnuplot,
                plots->missing ? "it cannot be plot_run, install it"
                : line != NULL ? line
                               : why);
        dpt_mem_free(why);
        dpt_mem_free(svg);
        svg = NULL;
    }
    dpt_mem_free(input);
    dpt_mem_free(output);
    dpt_mem_free(errors);
    return svg;
}

dpt_status dpt_report_figure(dpt_report_plots *plots, FILE *html, FILE *script, char **text,
                             const char *caption) {
    char *start = NULL;
    char *svg = NULL;
    bool ok = ferror(script) == 0;
    ok = fclose(script) == 0 && ok;
    if (!ok) {
        free(*text);
        return dpt_error(DPT_ERR_OUTPUT,
                         "report: no memory left for the script of a plot: " DPT_MEM_REMEDY);
    }
    if (!plots->missing)
        svg = make_svg(plots, *text, &start);
    free(*text);
    fputs("<figure>", html);
    if (svg != NULL)
        fputs(start, html);
    else
        fputs("<p class=\"notice\">This plot is missing because gnuplot could not make it. Install "
              "gnuplot and write the report again; the tables hold the same numbers.</p>",
              html);
    dpt_mem_free(svg);
    fputs("<figcaption>", html);
    dpt_report_text(html, caption);
    fputs("</figcaption></figure>\n", html);
    return DPT_OK;
}

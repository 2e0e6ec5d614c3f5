#include "deltapath/report/report.h"

#include "deltapath/base/file.h"
#include "deltapath/base/guard.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/mem.h"
#include "deltapath/base/sealed.h"
#include "deltapath/store/manifest.h"
#include "deltapath/store/owned.h"
#include "report_parts.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *data_of(const dpt_result *r) {
    return r->data != NULL ? r->data : "";
}

/* The units of one data set. */
static dpt_status group_make(const dpt_results *results, const char *data, dpt_report_group *out) {
    *out = (dpt_report_group){.results = results, .data = data};
    out->units = dpt_mem_alloc(results->count, sizeof *out->units, "units of a data set");
    if (out->units == NULL)
        return DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < results->count; i++)
        if (strcmp(data_of(&results->results[i]), data) == 0)
            out->units[out->count++] = &results->results[i];
    return DPT_OK;
}

static bool has_terms(const dpt_report_group *group) {
    for (int64_t i = 0; i < group->count; i++)
        if (group->units[i]->points > 0)
            return true;
    return false;
}

static dpt_status write_group(dpt_report_plots *plots, FILE *html, const dpt_report_group *group) {
    fputs("<h2>", html);
    dpt_report_text(html, group->data[0] != '\0' ? group->data : "Edits without data");
    fputs("</h2>\n", html);
    if (group->data[0] == '\0') {
        dpt_report_edits(html, group);
        return DPT_OK;
    }
    dpt_report_verdicts(html, group);
    dpt_report_seeds(html, group);
    dpt_report_minima(html, group);
    dpt_report_correlations(html, group);
    dpt_status st = dpt_report_changes(plots, html, group);
    if (st == DPT_OK)
        st = dpt_report_proof(plots, html, group);
    if (st == DPT_OK)
        st = dpt_report_left_out(plots, html, group);
    if (st == DPT_OK)
        st = dpt_report_curvature(plots, html, group);
    for (int64_t i = 0; i < group->results->nplanes && st == DPT_OK; i++)
        if (strcmp(group->results->planes[i].data, group->data) == 0)
            st = dpt_report_plane(plots, html, &group->results->planes[i]);
    if (st == DPT_OK && has_terms(group))
        st = dpt_report_terms(plots, html, group);
    if (st == DPT_OK && has_terms(group))
        st = dpt_report_slopes(plots, html, group);
    if (st == DPT_OK)
        st = dpt_report_hessian(plots, html, group);
    return st;
}

static bool is_first_of_its_data(const dpt_results *results, int64_t unit) {
    for (int64_t i = 0; i < unit; i++)
        if (strcmp(data_of(&results->results[i]), data_of(&results->results[unit])) == 0)
            return false;
    return true;
}

static dpt_status write_page(dpt_report_plots *plots, FILE *html, const dpt_results *results,
                             const char *title) {
    dpt_status st = DPT_OK;
    dpt_report_head(html, title);
    fprintf(html, "<p class=\"sub\">%" PRId64 " results over %" PRId64 " tensors</p>\n",
            results->count, results->tensors);
    for (int64_t i = 0; i < results->count && st == DPT_OK; i++) {
        dpt_report_group group;
        if (!is_first_of_its_data(results, i))
            continue;
        st = group_make(results, data_of(&results->results[i]), &group);
        if (st == DPT_OK)
            st = write_group(plots, html, &group);
        dpt_mem_free(group.units);
    }
    if (st == DPT_OK)
        st = dpt_report_spectra(plots, html, results);
    fputs("<h2>Provenance</h2>\n", html);
    dpt_report_provenance(html, results);
    fputs("</body>\n</html>\n", html);
    return st;
}

/* A directory of our own under TMPDIR, as an absolute path. */
static char *make_scratch(void) {
    const char *base = getenv("TMPDIR");
    char *wanted = dpt_mem_format("%s/deltapath-report-XXXXXX",
                                  base != NULL && base[0] != '\0' ? base : "/tmp");
    char *real = NULL;
    char *out = NULL;
    if (wanted != NULL && mkdtemp(wanted) != NULL)
        real = realpath(wanted, NULL);
    if (real != NULL)
        out = dpt_mem_strdup(real, "directory of plots");
    else if (wanted != NULL)
        (void)dpt_error(DPT_ERR_OUTPUT, "%s: cannot be created: %s: set TMPDIR", wanted,
                        strerror(errno));
    free(real);
    dpt_mem_free(wanted);
    return out;
}

static void remove_scratch(const char *path) {
    DIR *directory = opendir(path);
    const struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory != NULL)
        closedir(directory);
    rmdir(path);
}

static dpt_status plots_open(const dpt_report_options *options, dpt_report_plots *plots) {
    const char *csv_dir = options != NULL ? options->csv_dir : NULL;
    *plots = (dpt_report_plots){.gnuplot = "gnuplot"};
    if (options != NULL && options->gnuplot != NULL)
        plots->gnuplot = options->gnuplot;
    plots->overwrite = options != NULL && options->overwrite;
    plots->scratch = make_scratch();
    if (plots->scratch == NULL)
        return DPT_ERR_OUTPUT;
    if (csv_dir != NULL && access(csv_dir, F_OK) != 0 && dpt_guard_output(csv_dir) != DPT_OK)
        return DPT_ERR_OUTPUT;
    if (csv_dir != NULL && dpt_owned_check_place(csv_dir) != DPT_OK)
        return DPT_ERR_OUTPUT;
    if (csv_dir != NULL && mkdir(csv_dir, 0777) != 0 && errno != EEXIST)
        return dpt_error(DPT_ERR_OUTPUT,
                         "%s: cannot be created: %s: check the permissions of the folder above",
                         csv_dir, strerror(errno));
    plots->directory =
        dpt_mem_strdup(csv_dir != NULL ? csv_dir : plots->scratch, "directory of CSV files");
    return plots->directory != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static void plots_close(dpt_report_plots *plots) {
    if (plots->scratch != NULL)
        remove_scratch(plots->scratch);
    dpt_mem_free(plots->scratch);
    dpt_mem_free(plots->directory);
}

/* The page ends with a comment that holds its checksum, so that a report that somebody changed is known. */
static dpt_status put_page(const char *path, const char *page, size_t n) {
    static const char end[] = DPT_OWNED_REPORT_END;
    dpt_file_sweep_of(path);
    uint64_t hash[2];
    char seal[DPT_SEAL_BYTES];
    dpt_hash128_bytes(page, n, hash);
    dpt_seal_format(hash, (int64_t)n, seal);
    const dpt_file_piece pieces[] = {{.bytes = page, .n = (int64_t)n},
                                     {.bytes = seal, .n = sizeof seal},
                                     {.bytes = end, .n = sizeof end - 1}};
    dpt_status st = dpt_file_put(path, pieces, 3);
    return st == DPT_OK ? dpt_manifest_commit_file(path) : st;
}

static dpt_status report_write_file(dpt_report_plots *plots, const char *path,
                                    const dpt_results *results, const char *title) {
    char *page = NULL;
    size_t n = 0;
    FILE *html = open_memstream(&page, &n);
    if (html == NULL)
        return dpt_error(DPT_ERR_OUTPUT, "%s: no memory left to make it: " DPT_MEM_REMEDY, path);
    dpt_status st = write_page(plots, html, results, title);
    fputs("<!--\n", html);
    bool failed = ferror(html) != 0;
    if ((fclose(html) != 0 || failed) && st == DPT_OK)
        st = dpt_error(DPT_ERR_OUTPUT, "%s: no memory left to make it: " DPT_MEM_REMEDY, path);
    if (st == DPT_OK)
        st = put_page(path, page, n);
    free(page);
    return st;
}

/* The manifest of a study vouches for its report: it must be about the results next to it. */
static dpt_status check_study_of(const char *html_path, const char *results_path) {
    struct stat given, own;
    const char *slash = strrchr(html_path, '/');
    int n = slash != NULL ? (int)(slash - html_path) + 1 : 0;
    char *results = dpt_mem_format("%.*sresults.h5", n, html_path);
    char *list = dpt_mem_format("%.*s" DPT_MANIFEST_STUDY, n, html_path);
    dpt_status st = results != NULL && list != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    if (st == DPT_OK && access(list, F_OK) == 0 && stat(results, &own) == 0 &&
        stat(results_path, &given) == 0 &&
        (own.st_dev != given.st_dev || own.st_ino != given.st_ino))
        st = dpt_error(DPT_ERR_OUTPUT,
                       "%s: is in the folder of a study whose results are %s, not %s: give those, "
                       "or choose another output",
                       html_path, results, results_path);
    dpt_mem_free(list);
    dpt_mem_free(results);
    return st;
}

dpt_status dpt_report_write(const char *results_path, const char *html_path,
                            const dpt_report_options *options) {
    dpt_results results;
    dpt_report_plots plots = {.gnuplot = NULL};
    dpt_status st = dpt_results_read(results_path, &results);
    if (st != DPT_OK)
        return st;
    const char *title = options != NULL && options->title != NULL ? options->title : results.name;
    st = dpt_owned_check(html_path, DPT_OWNED_REPORT, results.name);
    if (st == DPT_OK)
        st = check_study_of(html_path, results_path);
    if (st == DPT_OK)
        st = dpt_owned_check_place(html_path);
    if (st == DPT_OK)
        st = plots_open(options, &plots);
    if (st == DPT_OK)
        st = report_write_file(&plots, html_path, &results, title);
    plots_close(&plots);
    dpt_results_destroy(&results);
    return st;
}

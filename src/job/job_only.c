#include "deltapath/job/job.h"

#include "deltapath/base/mem.h"
#include "yaml.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

/* "I/N"; ids of edits have no slash. */
static dpt_status only_share(const char *pattern, bool *is_share, long *first, long *step) {
    const char *slash = strchr(pattern, '/');
    *is_share = slash != NULL;
    if (slash == NULL)
        return DPT_OK;
    char *end_first = NULL;
    char *end_step = NULL;
    *first = strtol(pattern, &end_first, 10);
    *step = strtol(slash + 1, &end_step, 10);
    if (end_first == slash && slash != pattern && end_step != slash + 1 && *end_step == '\0' &&
        *first >= 0 && *first < *step)
        return DPT_OK;
    return dpt_error(
        DPT_ERR_USAGE,
        "--only %s: write I/N with I from 0 to N - 1, as in 3/16, or a pattern of edit "
        "ids, as in 'dare-*'",
        pattern);
}

static dpt_status only_mark(const dpt_job *job, const char *pattern, bool *keep) {
    bool is_share = false;
    long first = 0;
    long step = 1;
    int hits = 0;
    dpt_status st = only_share(pattern, &is_share, &first, &step);
    for (int e = 0; e < job->nedits && st == DPT_OK; e++) {
        bool hit = is_share ? e % step == first : fnmatch(pattern, job->edits[e].id, 0) == 0;
        keep[e] = keep[e] || hit;
        hits += hit;
    }
    if (st == DPT_OK && hits == 0)
        st =
            is_share
                ? dpt_error(DPT_ERR_USAGE,
                            "--only %s: the job has %d edits only: make fewer shares of them",
                            pattern, job->nedits)
                : dpt_error(DPT_ERR_USAGE,
                            "--only %s: no edit of the job has such an id: write a pattern of ids, "
                            "as in 'dare-*'",
                            pattern);
    return st;
}

dpt_status dpt_job_keep_edits(dpt_job *job, int n, const char *const *patterns) {
    if (n == 0)
        return DPT_OK;
    bool *keep = dpt_mem_zalloc(job->nedits, sizeof *keep, "edits to keep");
    dpt_status st = keep != NULL ? DPT_OK : DPT_ERR_OUTPUT;
    for (int i = 0; i < n && st == DPT_OK; i++)
        st = only_mark(job, patterns[i], keep);
    int kept = 0;
    for (int e = 0; e < job->nedits && st == DPT_OK; e++) {
        dpt_job_edit edit = job->edits[e];
        if (keep[e]) {
            job->edits[kept++] = edit;
            continue;
        }
        dpt_mem_free(edit.id);
        dpt_mem_free(edit.method);
        dpt_mem_free(edit.params);
    }
    if (st == DPT_OK)
        job->nedits = kept;
    job->only = st == DPT_OK;
    dpt_mem_free(keep);
    return st;
}

char *dpt_job_frame(const dpt_job *job) {
    static const char *const anything[] = {"edits=[]", "output={}"};
    dpt_yaml *copy = NULL;
    char *text = NULL;
    char *frame = NULL;
    dpt_status st = dpt_yaml_parse(job->text, job->yaml->path, &copy);
    for (int i = 0; i < 2 && st == DPT_OK; i++)
        st = dpt_yaml_set(copy, anything[i]);
    if (st == DPT_OK)
        text = dpt_yaml_print(copy);
    if (text != NULL)
        frame = dpt_mem_format("%s\noutput type: %s%s\n", text,
                               job->same_dtype ? "same" : dpt_dtype_name(job->dtype),
                               job->requantises ? ", quantised" : "");
    dpt_mem_free(text);
    dpt_yaml_destroy(copy);
    return frame;
}

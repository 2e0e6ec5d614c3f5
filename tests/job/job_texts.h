#ifndef DELTAPATH_TESTS_JOB_TEXTS_H
#define DELTAPATH_TESTS_JOB_TEXTS_H

/* Jobs in texts: what every job begins with, one that must be good, one that must be refused. */

#include "support/test_mpi.h"

#include "deltapath/job/job.h"

#include <string.h>

#define HEAD "models: {pre: a, post: b}\noutput: {directory: out/x}\n"

static inline dpt_job parse_good(const char *text, int nsets, const char *const *sets) {
    dpt_job job;
    dpt_error_clear();
    if (dpt_job_parse(text, "job.yaml", nsets, sets, &job) != DPT_OK)
        fail_msg("%s", dpt_error_message());
    return job;
}

static inline void expect_bad(const char *text, const char *message) {
    dpt_job job;
    dpt_error_clear();
    assert_int_equal(dpt_job_parse(text, "job.yaml", 0, NULL, &job), DPT_ERR_USAGE);
    if (strstr(dpt_error_message(), message) == NULL)
        fail_msg("wanted '%s' in '%s'", message, dpt_error_message());
    assert_null(job.edits);
    dpt_error_clear();
}

#endif

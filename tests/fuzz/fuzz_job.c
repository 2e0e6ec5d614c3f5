/* dictionary: job
 * Job files with their expansion; what follows a form feed is a --set. The program looks at a job in a
 * child process first, so a library that loops costs one line: here such an input is a finding. */
#include "fuzz.h"

#include "deltapath/job/job.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dpt_job job;
    char *text = fuzz_text(data, size);
    char *cut = strchr(text, '\f');
    const char *set = cut != NULL ? cut + 1 : NULL;
    if (cut != NULL)
        *cut = '\0';
    dpt_status st = dpt_job_parse(text, "job.yaml", set != NULL, &set, &job);
    if (st == DPT_OK)
        dpt_job_destroy(&job);
    fuzz_finish(st, DPT_ERR_USAGE);
    return 0;
}

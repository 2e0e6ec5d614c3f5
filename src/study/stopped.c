#include "stopped.h"

#include <stdio.h>

void dpt_stopped_explain(const dpt_job *job, int done) {
    char message[DPT_MESSAGE_MAX];
    if (done < 0)
        snprintf(message, sizeof message,
                 "%.*s: what is finished is saved in %.*s: go on with --resume",
                 DPT_MESSAGE_MAX / 4, dpt_error_message(), DPT_MESSAGE_MAX / 4, job->directory);
    else
        snprintf(message, sizeof message,
                 "%.*s: %d of %d edits are finished and saved in %.*s, and how far the next one "
                 "is: go on with --resume",
                 DPT_MESSAGE_MAX / 4, dpt_error_message(), done, job->nedits, DPT_MESSAGE_MAX / 4,
                 job->directory);
    dpt_error_set_message(message);
}

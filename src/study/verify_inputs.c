#include "verify_inputs.h"

#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"

#include <stdio.h>
#include <string.h>

dpt_status dpt_verify_inputs(const dpt_comm *comm, const dpt_job *job, dpt_verified *out) {
    DPT_ASSERT_SAME_TEXT(comm, job->text);
    dpt_status st = dpt_store_verify(comm, job->pre, NULL, stdout, &out->read[0], &out->count[0]);
    if (st == DPT_OK)
        st = dpt_store_verify(comm, job->post, job->pre, stdout, &out->read[1], &out->count[1]);
    for (int d = 0; d < job->njudged && st == DPT_OK; d++) {
        const char *reference = job->data[d].reference;
        if (reference != NULL && strcmp(reference, job->post) != 0)
            st = dpt_store_verify(comm, reference, job->pre, stdout, NULL, NULL);
    }
    return st;
}

dpt_status dpt_verify_inputs_take(const dpt_comm *comm, const dpt_verified *verified,
                                  dpt_inputs *in) {
    const dpt_store *const stores[] = {in->pre, in->post};
    for (int i = 0; i < 2; i++)
        if (verified->read[i] == NULL || verified->count[i] != dpt_store_catalog(stores[i])->count)
            return DPT_OK;
    return dpt_agree(comm, dpt_inputs_set_digest(in, verified->read[0], verified->read[1]));
}

void dpt_verify_inputs_forget(dpt_verified *verified) {
    for (int i = 0; i < 2; i++) {
        dpt_mem_free(verified->read[i]);
        verified->read[i] = NULL;
    }
}

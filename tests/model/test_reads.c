/* ranks: 1 2 3 4 */
/* What a model reads from its files: each rank about what it keeps, whole tensors at a time. The system's own
 * counters of this process say so. */
#include "support/test_mpi.h"

#include "deltapath/model/model.h"
#include "deltapath/store/store.h"
#include "deltapath/tensor/pair.h"

#include <stdlib.h>

enum { READS_SLACK = 64 << 10 }; /* bytes that libraries read meanwhile */

/* A counter of /proc/self/io: rchar, bytes read, or syscr, calls. */
static int64_t reads_counter(const char *key) {
    char line[128];
    int64_t value = -1;
    FILE *file = fopen("/proc/self/io", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtoll(line + strlen(key) + 1, NULL, 10);
    if (file != NULL)
        fclose(file);
    if (value < 0)
        skip();
    return value;
}

/* Reads of one load, on the rank that has the most. */
static void reads_check(const dpt_store *post, int64_t bytes, int64_t calls, const char *what) {
    dpt_model_ranks spread = {.group = test_comm.size, .replicas = 1, .machines = 1};
    int64_t weights, work;
    const dpt_catalog *catalog = dpt_store_catalog(post);
    assert_int_equal(
        dpt_model_bytes(dpt_store_config(post), catalog, &spread, false, 8, 8, &weights, &work),
        DPT_OK);
    if (bytes > weights + weights / 20 + READS_SLACK)
        fail_msg("%s: a rank reads %ld bytes to keep %ld", what, (long)bytes, (long)weights);
    if (calls > catalog->count + 32)
        fail_msg("%s: %ld calls for %d tensors", what, (long)calls, catalog->count);
}

static void test_loads(void **state) {
    (void)state;
    dpt_store *pre, *post;
    dpt_model *model;
    assert_int_equal(dpt_store_open(&test_comm, "share/demo/llama-pre", &pre), DPT_OK);
    assert_int_equal(dpt_store_open(&test_comm, "share/demo/llama-post", &post), DPT_OK);
    int64_t bytes = reads_counter("rchar"), calls = reads_counter("syscr");
    assert_int_equal(
        dpt_model_create(&test_comm, NULL, dpt_store_config(post), dpt_store_source(post), &model),
        DPT_OK);
    reads_check(post, reads_counter("rchar") - bytes, reads_counter("syscr") - calls, "post");

    /* The pre-trained model as a study binds it. */
    dpt_pair pair;
    char *report;
    dpt_pair_side from = {.source = dpt_store_source(pre)}, to = {.source = dpt_store_source(post)};
    assert_int_equal(dpt_pair_create(&from, &to, DPT_MISMATCH_ERROR, &pair, &report), DPT_OK);
    dpt_source source = dpt_pair_source(&pair);
    bytes = reads_counter("rchar");
    calls = reads_counter("syscr");
    assert_int_equal(dpt_model_bind_edit(model, &source), DPT_OK);
    reads_check(post, reads_counter("rchar") - bytes, reads_counter("syscr") - calls, "pre");
    dpt_pair_destroy(&pair);
    dpt_model_destroy(model);
    dpt_store_close(post);
    dpt_store_close(pre);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_loads)};
    return test_mpi_main(argc, argv, tests);
}

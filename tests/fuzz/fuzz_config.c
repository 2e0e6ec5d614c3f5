/* dictionary: config
 * config.json of every family, against the tensors of the shipped models. */
#include "fuzz.h"

#include "deltapath/model/model.h"

#include <stdlib.h>
#include <string.h>

enum { MODELS = 3 };

static dpt_catalog catalogs[MODELS];
static char *configs[MODELS];

static void read_models(void) {
    static const char *const paths[MODELS] = {"share/demo/llama-post", "share/demo/qwen-post",
                                              "share/demo/vit-post"};
    for (int i = 0; i < MODELS; i++) {
        dpt_store *store = NULL;
        if (dpt_store_open(&fuzz_comm, paths[i], &store) != DPT_OK ||
            dpt_catalog_copy(dpt_store_catalog(store), &catalogs[i]) != DPT_OK)
            abort();
        configs[i] = strdup(dpt_store_config(store));
        dpt_store_close(store);
    }
    fuzz_keep_memory();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (configs[0] == NULL)
        read_models();
    if (size == 0)
        return -1;
    const char *text = fuzz_text(data, size);
    for (int i = 0; i < MODELS; i++) {
        int64_t a = 0, b = 0;
        char compared[512];
        bool is_image = false;
        dpt_model_image image;
        dpt_status st = dpt_model_config_limits(text, &catalogs[i], &a, &b);
        if (st == DPT_OK)
            st = dpt_model_config_image(text, &catalogs[i], &is_image, &image);
        if (st == DPT_OK)
            st =
                dpt_model_config_compare(text, configs[i], &catalogs[i], compared, sizeof compared);
        for (int ranks = 1; ranks <= 3 && st == DPT_OK; ranks++) {
            dpt_model_ranks spread = {.group = ranks, .replicas = 4 - ranks, .machines = 1};
            st = dpt_model_bytes(text, &catalogs[i], &spread, true, 64, 16, &a, &b);
        }
        fuzz_check(st, DPT_ERR_INPUT);
    }
    fuzz_finish(DPT_OK, DPT_ERR_INPUT);
    return 0;
}

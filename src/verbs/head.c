#include "head.h"

#include "deltapath/model/model.h"

dpt_status dpt_verbs_check_head(dpt_store *store) {
    dpt_tied_head head;
    dpt_status st = dpt_model_config_head(dpt_store_config(store), dpt_store_catalog(store), &head);
    return st == DPT_OK ? dpt_store_check_head(store, &head) : st;
}

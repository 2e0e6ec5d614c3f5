#include "job_keys.h"

#include <string.h>

/* What tells units and models of one job from those of another. */

/* The value of a key, for a hash or a comparison. */
static void key_hash(const dpt_job_key *key, const void *base, dpt_hash *hash) {
    const void *field = (const char *)base + key->offset;
    const char *text;
    switch (key->type) {
    case DPT_KEY_STRING:
    case DPT_KEY_PATH:
    case DPT_KEY_WORD:
        memcpy(&text, field, sizeof text);
        if (text == NULL) /* no value: YAML allows no text with this byte */
            text = "\x01";
        dpt_hash_update(hash, text, strlen(text) + 1);
        break;
    default:
        dpt_hash_update(hash, field, key->size);
    }
}

bool dpt_job_keys_same_loss(const dpt_job_data *a, const dpt_job_data *b) {
    int count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    dpt_hash of_a, of_b;
    dpt_hash_begin(&of_a);
    dpt_hash_begin(&of_b);
    for (int k = 0; k < count; k++) {
        if (keys[k].loss == NULL || keys[k].content)
            continue;
        key_hash(&keys[k], a, &of_a);
        key_hash(&keys[k], b, &of_b);
    }
    return dpt_hash_value(&of_a) == dpt_hash_value(&of_b);
}

void dpt_job_keys_hash(const char *section, dpt_key_redo redo, const void *base, dpt_hash *hash) {
    int count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    for (int k = 0; k < count; k++)
        if (strcmp(keys[k].section, section) == 0 && (keys[k].redo & redo) != 0 && !keys[k].content)
            key_hash(&keys[k], base, hash);
}

void dpt_job_keys_hash_job(dpt_key_redo redo, const dpt_job *job, dpt_hash *hash) {
    int count;
    const dpt_job_key *keys = dpt_job_keys(&count);
    dpt_job_keys_hash("", redo, job, hash);
    for (int k = 0; k < count; k++)
        if (keys[k].type == DPT_KEY_SECTION)
            dpt_job_keys_hash(keys[k].name, redo, job, hash);
}

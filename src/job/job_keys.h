#ifndef DELTAPATH_SRC_JOB_JOB_KEYS_H
#define DELTAPATH_SRC_JOB_JOB_KEYS_H

#include "deltapath/base/hash.h"
#include "deltapath/job/job.h"
#include "yaml.h"

#include <stddef.h>

/* The keys of a job file, each once: the parser, defaults, checks of ranges, the resume keys of units and
 * edited models, `deltapath keys` and the table of doc/jobs.md come from the rows of job_keys.c. */

typedef enum dpt_key_type {
    DPT_KEY_STRING,   /**< const char * */
    DPT_KEY_PATH,     /**< const char *, `~/` expanded */
    DPT_KEY_WORD,     /**< const char *, one of the choices */
    DPT_KEY_CHOICE,   /**< int or enum: position among the choices */
    DPT_KEY_BOOLEAN,  /**< bool */
    DPT_KEY_INTEGER,  /**< int or int64_t */
    DPT_KEY_AUTO,     /**< int or int64_t; 0 for `auto` */
    DPT_KEY_REAL,     /**< double */
    DPT_KEY_WORDS,    /**< a list of choices: one bool after another */
    DPT_KEY_PATTERNS, /**< a list of shell patterns; read by job.c */
    DPT_KEY_TEXTS,    /**< a mapping of texts to texts; read by job.c */
    DPT_KEY_SECTION,  /**< a mapping, whose keys are rows of their own */
    DPT_KEY_ENTRIES,  /**< a list of mappings, whose keys are rows of their own */
    DPT_KEY_EDIT      /**< of an entry of `edits`: a value or a list; read by job_edits.c */
} dpt_key_type;

/** What depends on the value of a key, and is made again when a resumed job has another. */
typedef enum dpt_key_redo {
    DPT_REDO_NOTHING = 0,
    DPT_REDO_UNITS = 1,  /**< losses, estimates and verdicts */
    DPT_REDO_MODELS = 2, /**< edited models */
    DPT_REDO_ALL = DPT_REDO_UNITS | DPT_REDO_MODELS
} dpt_key_redo;

typedef struct dpt_job_key {
    const char *section; /**< "" for the keys of the file itself */
    const char *name;
    dpt_key_type type;
    const char
        *standard; /**< what holds without the key, as a job file says it; NULL: nothing does */
    bool required;
    const char *loss;    /**< of data: the kinds of loss that have the key, "a|b"; NULL: all */
    const char *choices; /**< "a|b|c" */
    double low, high;    /**< range of numbers */
    dpt_key_redo redo;
    bool
        content; /**< not the value is hashed but what it leads to: tensors, samples, masks, edits */
    size_t offset; /**< in dpt_job, or in dpt_job_data for section data */
    size_t size;
    const char *help;
} dpt_job_key;

/** Check that a mapping has no other keys than a section, set defaults, read the values that are there.
 * `what` names the mapping for messages. Sections, entries, patterns and keys of edits are left to the caller.
 * A map that is NULL only sets defaults.
 * Local. Errors: DPT_ERR_USAGE with the position. @param[out] base  dpt_job or dpt_job_data. */
dpt_status dpt_job_keys_read(const dpt_yaml *yaml, struct fy_node *map, const char *section,
                             const char *what, void *base);

/** Position of a word among the choices of a key; -1 after an error with the position. Local. */
int dpt_job_keys_choose(const dpt_yaml *yaml, struct fy_node *node, const char *section,
                        const char *name);

/** "a b c": names of the keys of a section. Local. @return text. */
const char *dpt_job_keys_list(const char *section, char *text, size_t size);

/** Feed a hash the values of the keys of a section on which units or models depend. Local.
 * @param[in] redo  DPT_REDO_UNITS or DPT_REDO_MODELS. */
void dpt_job_keys_hash(const char *section, dpt_key_redo redo, const void *base, dpt_hash *hash);

/** Whether a key is one of a kind of loss: every key that no other kinds have alone. Local. */
bool dpt_job_key_is_of(const dpt_job_key *key, dpt_job_loss loss);

/** Whether the keys that some kinds of loss have alone have the same values; not those whose content counts.
 * Local. */
bool dpt_job_keys_same_loss(const dpt_job_data *a, const dpt_job_data *b);

/** The same of the file itself and then of every section whose keys lie in dpt_job, in the order of the
 * table. Local. */
void dpt_job_keys_hash_job(dpt_key_redo redo, const dpt_job *job, dpt_hash *hash);

/** Whether a key leads to keys of its own: a mapping, or a list of mappings. Local. */
bool dpt_job_key_is_section(const dpt_job_key *key);

/** The keys, in the order of the table. Local. @param[out] count. */
const dpt_job_key *dpt_job_keys(int *count);

#endif

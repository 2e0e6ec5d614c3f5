#ifndef DELTAPATH_SRC_MODEL_DRIVER_H
#define DELTAPATH_SRC_MODEL_DRIVER_H

#include "params.h"

#include "deltapath/model/model.h"

#include <jansson.h>

typedef struct dpt_model_driver dpt_model_driver;

struct dpt_model {
    const dpt_model_driver *driver;
    dpt_comm group;      /**< borrowed handle */
    dpt_catalog catalog; /**< a copy of create's */
    dpt_params params;
    bool bound;  /**< an edit is loaded */
    void *state; /**< of the driver */
};

struct dpt_model_gradient {
    int count;
    float **blocks; /**< (count) as params; NULL where the block is empty or not counted */
    int64_t *numel; /**< (count) */
};

/** One call of dpt_model_run. */
typedef struct dpt_model_call {
    const dpt_batch *batch;
    double t;
    dpt_model_backward mode;
    const double *weight;
    double *nll;
    uint8_t *correct;
    double *terms;
    dpt_model_gradient *gradient;
} dpt_model_call;

/** An architecture: one entry of the table in model.c. */
struct dpt_model_driver {
    const char *architecture; /**< `architectures` of config.json */
    const char *model_type;
    const void *family; /**< what tells architectures of one driver apart */

    /** Read the configuration, claim the tensors for rank of size, allocate the state. Local. On error
     * nothing is left in model->state. */
    dpt_status (*open)(dpt_model *model, const json_t *config, int rank, int size);
    void (*close)(void *state);

    /** Append to a text of at most `size` bytes the options in which two configurations of this driver
     * compute differently. Local. Errors: DPT_ERR_INPUT when one of them cannot be read. */
    dpt_status (*compare)(const void *family, const json_t *a, const json_t *b,
                          const dpt_catalog *catalog, char *text, size_t size);

    /** Whether a key of a configuration is one that the driver reads, or changes nothing. Local. NULL: not
     * known. */
    bool (*knows)(const char *key);

    /** Bytes of work for a batch, of any mode. Local. */
    int64_t (*work_bytes)(const dpt_model *model, int64_t tokens, int64_t longest);

    /* Of a language model; NULL for an image model. */
    int64_t (*vocabulary)(const dpt_model *model);
    int64_t (*max_positions)(const dpt_model *model);

    /** Of an image model; NULL for a language model. */
    dpt_model_image (*image)(const dpt_model *model);

    /** What can fail on one rank alone: checks of the batch, memory. Local. */
    dpt_status (*prepare)(dpt_model *model, const dpt_model_call *call);

    /** The passes. Collective over the group; nll, correct and terms are zero on entry. */
    dpt_status (*run)(dpt_model *model, const dpt_model_call *call);
};

extern const dpt_model_driver dpt_model_llama;
extern const dpt_model_driver dpt_model_mistral;
extern const dpt_model_driver dpt_model_qwen2;
extern const dpt_model_driver dpt_model_vit;
extern const dpt_model_driver dpt_model_clip_vision;

#endif

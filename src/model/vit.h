#ifndef DELTAPATH_SRC_MODEL_VIT_H
#define DELTAPATH_SRC_MODEL_VIT_H

#include "driver.h"
#include "leave.h"
#include "vit_config.h"

#include "deltapath/nn/attention.h"

/** Ranges of one rank: a share of every matrix product, as many as there are of each. */
typedef struct dpt_vit_part {
    int64_t head_begin, head_end;   /**< attention heads */
    int64_t unit_begin, unit_end;   /**< hidden units of the MLP */
    int64_t pixel_begin, pixel_end; /**< elements of a patch */
    int64_t class_begin, class_end; /**< rows of the classifier or of the text embeddings */
    int64_t in_begin, in_end;       /**< columns of the projection */
    int64_t heads, q, f, k, v, p;   /**< widths: heads, queries, units, pixels, classes, columns */
} dpt_vit_part;

/** fp32 weights of the layer in work, in one arena; embedding and head share the room. A bias that
 * another rank adds is NULL. */
typedef struct dpt_vit_weights {
    float *norm1, *norm1_bias; /**< (C) */
    float *qkv, *qkv_bias;     /**< (3 q, C), (3 q) or NULL */
    float *o, *o_bias;         /**< (C, q), (C) */
    float *norm2, *norm2_bias; /**< (C) */
    float *up, *up_bias;       /**< (f, C), (f) */
    float *down, *down_bias;   /**< (C, f), (C) */

    float *patch, *patch_bias;     /**< (C, k), (C) or NULL */
    float *position, *class_token; /**< (positions, C), (C); first rank alone */
    float *pre_norm, *pre_norm_bias;

    float *post_norm, *post_norm_bias;
    float *head, *head_bias; /**< (v, C), (v), or the projection (D, p) without bias */
    float *text;             /**< (v, D) */
} dpt_vit_weights;

/** Buffers of a pass over at most `images` images; T = images * positions. */
typedef struct dpt_vit_work {
    int64_t images; /**< capacity */
    bool backward;
    void *base;      /**< the one allocation */
    float *pixels;   /**< (images * patches, k) */
    float *embedded; /**< (T, C) input of the first norm of CLIP */
    float *x;        /**< (layers + 1, T, C) inputs of the layers; without backward (T, C) */
    float *dx;       /**< (T, C) */
    float *n1, *n2, *h, *part; /**< (T, C): norms of x and h, x + attention, partial sums */
    float *qkv, *o, *lse;      /**< (T, 3 q), (T, q), (heads, T) */
    float *mean0, *rstd0, *mean1, *rstd1, *mean2, *rstd2; /**< (T) */
    float *a, *m, *dm;           /**< (T, f): hidden units before and behind the activation */
    float *dqkv, *d_o;           /**< as qkv and o; in the room of a, m and dm */
    float *cls, *y, *d;          /**< (images, C): class tokens, their norm, its gradient */
    float *z, *dz, *length;      /**< (images, D) image embeddings of length 1; (images) */
    float *logits;               /**< (images, v) */
    float *max, *scale, *top;    /**< (images) */
    float *attention, *products; /**< scratch of nn */
    float *e;                    /**< rows of E */
    float *arena;                /**< weights */
    dpt_vit_weights w;
    double *term;            /**< (T) */
    double *sums;            /**< (2 images) sums of exponentials and target logits */
    int64_t *best;           /**< (images) arg max */
    int64_t *image_of;       /**< (T) image of each token */
    int64_t *image_of_patch; /**< (images * patches) */
    int64_t *itself;         /**< (images) 0, 1, 2, ... */
} dpt_vit_work;

typedef struct dpt_vit {
    dpt_vit_config config;
    dpt_vit_part part;
    bool first_rank; /**< counts what every rank holds, adds what is added once */
    int32_t *kv_of;  /**< (heads here) 0, 1, 2, ...: every head has its own keys */
    dpt_vit_work work;
} dpt_vit;

/** What the passes share during one call. */
typedef struct dpt_vit_pass {
    const dpt_model *model;
    const dpt_vit *v;
    const dpt_vit_work *work;
    const dpt_model_call *call;
    dpt_leave leave;
    int64_t images, tokens;
    dpt_status status;
} dpt_vit_pass;

int dpt_vit_index(int64_t layer, dpt_vit_layer_tensor tensor);

/* vit_work.c */
int64_t dpt_vit_work_bytes(const dpt_vit *v, int64_t images, bool backward);
/** Make the buffers large enough; kept from call to call. Local. */
dpt_status dpt_vit_work_reserve(dpt_vit *v, int64_t images, bool backward);
void dpt_vit_work_release(dpt_vit_work *work);

/* vit_weights.c: W(t) into the arena. Local. */
int64_t dpt_vit_arena(const dpt_vit *v); /**< floats */
void dpt_vit_weights_place(const dpt_vit *v, float *arena, dpt_vit_weights *w);
void dpt_vit_weights_embedding(const dpt_vit_pass *pass);
void dpt_vit_weights_layer(const dpt_vit_pass *pass, int64_t layer);
void dpt_vit_weights_head(const dpt_vit_pass *pass);

/* vit_forward.c */
void dpt_vit_sum(dpt_vit_pass *pass, float *values, int64_t n); /**< over the group */
/** Input of a layer; that of the layer behind the last goes to the head. */
float *dpt_vit_input(const dpt_vit_pass *pass, int64_t layer);
dpt_attention_shape dpt_vit_attention_shape(const dpt_vit *v);
/** h = x + attention(norm1 x); keeps n1, qkv, o, lse. Collective over the group. */
void dpt_vit_attention_forward(dpt_vit_pass *pass, const float *x);
void dpt_vit_mlp_inner(const dpt_vit_pass *pass); /**< n2, a, m of h. Local. */
void dpt_vit_forward(dpt_vit_pass *pass);

/* vit_embed.c: images to tokens, and back from the gradient of these. */
void dpt_vit_embed(dpt_vit_pass *pass, float *x);
void dpt_vit_embed_backward(const dpt_vit_pass *pass);

/* vit_head.c: nll, correct, and with a backward pass the gradient of the last layer's output. */
void dpt_vit_head(dpt_vit_pass *pass);

/* vit_backward.c */
void dpt_vit_backward(dpt_vit_pass *pass);

#endif

#ifndef DELTAPATH_SRC_MODEL_DECODER_H
#define DELTAPATH_SRC_MODEL_DECODER_H

#include "decoder_config.h"
#include "leave.h"

#include "deltapath/nn/attention.h"

/** Numbers of the tensors in dpt_params: three of the whole model, then DPT_DECODER_LAYER_TENSORS a layer. */
enum { DPT_DECODER_EMBED, DPT_DECODER_FINAL_NORM, DPT_DECODER_HEAD, DPT_DECODER_LAYERS_AT };

typedef enum dpt_decoder_layer_tensor {
    DPT_DECODER_NORM1,
    DPT_DECODER_Q,
    DPT_DECODER_K,
    DPT_DECODER_V,
    DPT_DECODER_Q_BIAS,
    DPT_DECODER_K_BIAS,
    DPT_DECODER_V_BIAS,
    DPT_DECODER_O,
    DPT_DECODER_O_BIAS,
    DPT_DECODER_NORM2,
    DPT_DECODER_GATE,
    DPT_DECODER_UP,
    DPT_DECODER_GATE_BIAS,
    DPT_DECODER_UP_BIAS,
    DPT_DECODER_DOWN,
    DPT_DECODER_DOWN_BIAS,
    DPT_DECODER_LAYER_TENSORS
} dpt_decoder_layer_tensor;

/** Elements of W(t) or E that one rank holds, and its ranges. Widths are in elements. */
typedef struct dpt_decoder_part {
    int64_t head_begin, head_end; /**< query heads */
    int64_t kv_begin, kv_end;     /**< key-value heads that these use; may overlap a neighbour's */
    int64_t unit_begin, unit_end; /**< hidden units of the MLP */
    int64_t row_begin, row_end;   /**< rows of the vocabulary */
    int64_t rows_most;            /**< most rows of the vocabulary on any rank */
    int64_t q, kv, qkv, f, v;     /**< widths: queries, keys, q + 2 kv, hidden units, vocabulary */
} dpt_decoder_part;

/** fp32 weights of the layer in work, in one arena; the head shares the room. Stacked weights of one
 * input lie end to end, so that one product serves them. */
typedef struct dpt_decoder_weights {
    float *norm1;    /**< (C) */
    float *qkv;      /**< (q + 2 kv, C) */
    float *qkv_bias; /**< (q + 2 kv) or NULL */
    float *o;        /**< (C, q) */
    float *o_bias;   /**< (C), or NULL: no bias, or another rank adds it */
    float *norm2;    /**< (C) */
    float *gate_up;  /**< (2 f, C) */
    float *gate_up_bias;
    float *down;      /**< (C, f) */
    float *down_bias; /**< as o_bias */
    float *head;      /**< (v, C) */
    float *head_norm; /**< (C) */
} dpt_decoder_weights;

/** Buffers of a pass over at most `tokens` tokens; T is the number of tokens of the batch. */
typedef struct dpt_decoder_work {
    int64_t tokens, longest; /**< capacity */
    bool backward;
    void *base; /**< the one allocation */
    float *x;   /**< (layers + 1, T, C) inputs of the layers; without backward (T, C) */
    float *dx;  /**< (T, C) */
    float *n1, *n2, *h, *part;   /**< (T, C): norms of x and h, x + attention, partial sums */
    float *qkv, *o;              /**< (T, q + 2 kv), (T, q) */
    float *lse, *rstd1, *rstd2;  /**< (heads, T), (T), (T) */
    float *gate_up, *m, *dm;     /**< (T, 2 f), (T, f), (T, f) */
    float *dqkv, *d_o;           /**< as qkv and o; in the room of gate_up, m and dm */
    float *logits;               /**< (rows at a time, v) */
    float *cos, *sin;            /**< (longest, head_dim / 2) */
    float *attention, *products; /**< scratch of nn */
    float *e;                    /**< rows of E */
    float *arena;                /**< weights */
    dpt_decoder_weights w;
    double *term;          /**< (T) */
    double *sums;          /**< (2 T) sums of exponentials and target logits */
    int64_t *rows;         /**< (T) token that predicts each scored token */
    int64_t *best;         /**< (T) arg max */
    int64_t *sequence;     /**< (T) sequence of each token */
    int64_t *row_sequence; /**< (T) and of each scored row */
    int32_t *targets;      /**< (T) */
    float *max, *scale;    /**< (T) */
} dpt_decoder_work;

typedef struct dpt_decoder {
    dpt_decoder_config config;
    dpt_decoder_part part;
    bool first_rank; /**< counts what every rank holds */
    int32_t *kv_of;  /**< (query heads here) key-value head of each, counted from kv_begin */
    float *inv_freq; /**< (head_dim / 2) */
    dpt_decoder_work work;
} dpt_decoder;

/** What the passes share during one call. */
typedef struct dpt_decoder_pass {
    const dpt_model *model;
    const dpt_decoder *d;
    const dpt_decoder_work *work;
    const dpt_model_call *call;
    dpt_leave leave;
    int64_t tokens;
    int64_t scored; /**< rows of the head */
    dpt_status status;
} dpt_decoder_pass;

/* decoder_work.c */
int64_t dpt_decoder_work_bytes(const dpt_decoder *d, int64_t tokens, int64_t longest,
                               bool backward);
/** Make the buffers large enough; kept from call to call. Local. */
dpt_status dpt_decoder_work_reserve(dpt_decoder *d, int64_t tokens, int64_t longest, bool backward);
void dpt_decoder_work_release(dpt_decoder_work *work);
int64_t dpt_decoder_head_rows(const dpt_decoder *d, int64_t scored); /**< the same on all ranks */

/* decoder_weights.c */
int dpt_decoder_index(int64_t layer, dpt_decoder_layer_tensor tensor);
int64_t dpt_decoder_arena(const dpt_decoder *d); /**< floats */
/** Point w into an arena. Local. */
void dpt_decoder_weights_place(const dpt_decoder *d, float *arena, dpt_decoder_weights *w);
void dpt_decoder_weights_layer(const dpt_decoder_pass *pass, int64_t layer); /**< W(t) of a layer */
void dpt_decoder_weights_head(const dpt_decoder_pass *pass);
/** Rows of the embedding for the batch's tokens, zero for other ranks' rows. */
void dpt_decoder_embed(const dpt_decoder_pass *pass, float *x);

/* decoder_forward.c */
void dpt_decoder_sum(dpt_decoder_pass *pass, float *values, int64_t n); /**< over the group */
/** h = x + attention(norm1 x); keeps n1, qkv, o, lse, rstd1. Collective over the group. */
void dpt_decoder_attention_forward(dpt_decoder_pass *pass, int64_t layer, const float *x);
/** Arguments of the attention kernels for a sequence of n tokens. Local. */
dpt_attention_shape dpt_decoder_attention_shape(const dpt_decoder *d, int64_t layer, int64_t n);
/** n2, gate_up, m, rstd2 of h. Local. */
void dpt_decoder_mlp_inner(const dpt_decoder_pass *pass);
void dpt_decoder_forward(dpt_decoder_pass *pass);
/** Input of a layer; that of the layer behind the last goes to the head. */
float *dpt_decoder_input(const dpt_decoder_pass *pass, int64_t layer);

/* decoder_head.c: nll, correct, and with a backward pass the gradient of the last layer's output. */
void dpt_decoder_head(dpt_decoder_pass *pass);

/* decoder_backward.c */
void dpt_decoder_backward(dpt_decoder_pass *pass);

#endif

#ifndef DELTAPATH_SRC_MODEL_TRANSFORMER_H
#define DELTAPATH_SRC_MODEL_TRANSFORMER_H

#include "accumulate.h"
#include "arch/arch.h"
#include "gradient.h"
#include "shares.h"

#include "deltapath/linalg/bf16.h"
#include "deltapath/model/model.h"
#include "deltapath/nn/attention.h"

/** What one rank has of every axis, in elements, and widths that the passes use. */
typedef struct dpt_slice {
    bool first; /**< first rank: has what only one has or counts */
    int ranks;  /**< of the group */
    int64_t begin[DPT_AXES], end[DPT_AXES];
    int64_t heads, kv_heads, first_head; /**< query heads here, key-value heads that they use */
    int64_t expert_begin, expert_end;    /**< experts here, each whole */
    int64_t rows_maximum;                /**< most rows of the vocabulary on any rank */
    int64_t q, kv, qkv, f, hidden, v; /**< queries, keys, q + 2 kv, units, with gates, vocabulary */
} dpt_slice;

/** Row statistics of a norm, for its backward pass: (T) each; no mean with RMSNorm. */
typedef struct dpt_norm_stats {
    float *mean, *rstd;
} dpt_norm_stats;

/** Tables of one rotary setting: of short sequences, and where these differ of long ones. */
typedef struct dpt_rotary {
    int64_t half;           /**< of the rotated width; 0: the setting is not there */
    float *inv_freq;        /**< (half) of the table that was filled last */
    float *cos[2], *sin[2]; /**< (longest, half) */
} dpt_rotary;

/** Of the experts: choices of T tokens, and a piece of `rows` tokens of one expert with f hidden units. */
typedef struct dpt_route_work {
    int64_t rows;            /**< capacity */
    float *logits, *dlogits; /**< (T, experts) */
    int32_t *chosen;         /**< (T, used) */
    float *weight, *dweight; /**< (T, used) */
    int64_t *first,
        *choice;  /**< (experts here + 1), (T used) choices of each, as token * used + place */
    float *x, *y; /**< (rows, C) input; output, its gradient and that of the input in turn */
    float *hidden, *m, *dm; /**< (rows, 2 f), (rows, f), (rows, f) */
    int64_t *sample;        /**< (rows) */
} dpt_route_work;

/** Buffers of a pass over at most `tokens` tokens; T is the number of tokens of the batch, of which H have a
 * prediction: all of them, or one an image. */
typedef struct dpt_work {
    int64_t tokens, longest; /**< capacity */
    bool backward;
    int64_t held;    /**< layers, the last, whose activations wait for the way back */
    void *base;      /**< the one allocation */
    char *held_room; /**< of it, activations of the held layers, one layer after the other */
    float *
        x; /**< (layers + 1, T, C) inputs of the layers; without backward (T, C), of a group that shares them (2, T, C) */
    float *
        kept; /**< (layers + 1, share of T, C) of a group: this rank's tokens of the inputs; else NULL */
    float *dx;                 /**< (T, C) */
    float *n1, *n2, *h, *part; /**< (T, C): norms of x and h, x + attention, partial sums */
    float *y1, *y2,
        *dy; /**< (T, C) what attention and MLP give before the norm or factor that follows; the gradient */
    float *qkv, *o; /**< (T, q + 2 kv), (T, q) */
    float *raw;     /**< (T, q + kv) queries and keys before their norms */
    float *
        qk_rstd; /**< of the norms of q, then k: (T) each over all heads, or (T, heads) of each head */
    float *sinks; /**< (T, heads) gradient of each sink from each token */
    float *lse;   /**< (heads, T) */
    dpt_norm_stats embed_norm, norm1, norm2, out1, out2;
    float *hidden, *m, *dm; /**< (T, hidden), (T, f), (T, f): before and after the activation */
    dpt_route_work route;
    float *dqkv, *d_o; /**< as qkv and o; in the room of hidden, m and dm */
    float *logits;     /**< (rows at a time, v) */
    float *pool_a,
        *pool_n; /**< (H, C) attention over the tokens of an image, and the norm of that */
    float *z, *dz, *length; /**< (H, D), (H, D), (H) embeddings of images, of length 1 */
    float *pixels;          /**< (patches, pixels here) */
    float *embedded;        /**< (T, C) input of the norm of the embedding */
    dpt_rotary rotary[DPT_ROPES];
    float *attention, *products; /**< scratch of nn */
    float *e;                    /**< rows of E */
    float *squares;              /**< of images, the same of a gradient */
    float *rows_of_w;            /**< rows of W(t) of a matrix */
    float *arena;                /**< the other weights of a unit; for products in bf16 all */
    uint16_t *half[2];           /**< of products in bf16: activations or gradients, rounded; */
    float *both[2];              /**< products with the two matrices of W(t); */
    uint16_t *e_half;            /**< rows of E, rounded */
    float *w[DPT_SLOTS];         /**< in the arena, stacked rows end to end; NULL: none here */
    double *term;                /**< (T) */
    double *sums;                /**< (2 H) sums of exponentials and target logits */
    int64_t *first;              /**< (images + 1) first token of each image */
    int64_t *sequence;           /**< (T) sequence of each token */
    int32_t *position;           /**< (T) and its place in it */
    int64_t *image_of_patch;     /**< (patches) */
    int64_t *rows;               /**< (H) token from which each prediction is made */
    int64_t *row_sequence;       /**< (H) and its sequence */
    int64_t *best;               /**< (H) arg max */
    int32_t *targets;            /**< (H) */
    float *max, *scale;          /**< (H) */
} dpt_work;

struct dpt_model {
    dpt_comm group;    /**< borrowed handle */
    dpt_comm replicas; /**< borrowed handle: ranks with the same blocks */
    bool gathers;      /**< the replicas are on several machines, and gather weights */
    bool
        together; /**< so all go through the units of every pass together, or add to one gradient */
    dpt_model_gradient *adding; /**< to which all runs add until dpt_model_rest; or NULL */
    int64_t layout;             /**< as dpt_model_layout says */
    bool ended;                 /**< that has failed on all ranks */
    dpt_catalog catalog;        /**< a copy of create's */
    dpt_params params;
    int matrices; /**< of tensors that have several */
    bool bound;   /**< an edit is loaded */
    dpt_arch arch;
    dpt_slice slice;
    int32_t *kv_of; /**< (query heads here) key-value head of each, counted from the first here */
    dpt_work work;
    int64_t held; /**< layers, as dpt_model_hold_layers says */
    dpt_precision precision;
    bool has_bf16;  /**< the work has room for products in bf16 */
    dpt_bf16 *bf16; /**< NULL before dpt_model_set_precision asks for it */
};

/** One call of dpt_model_run. */
struct dpt_model_call {
    const dpt_batch *batch;
    double t;
    dpt_model_backward mode;
    const double *weight;
    double *nll;
    uint8_t *correct;
    double *terms;
    dpt_model_gradient *gradient;
    const dpt_model_draw *draw; /**< NULL: the batch's own labels */
    bool squares;               /**< terms are sum (E_i g_i)^2, g made in work->squares */
    double *logits;             /**< (images, classes) of this rank's columns; or NULL */
};

/** What the passes share during one call. */
typedef struct dpt_pass {
    const dpt_model *model;
    dpt_params *params; /**< its */
    const dpt_arch *arch;
    const dpt_slice *slice;
    const dpt_work *work; /**< `here` */
    dpt_work here;        /**< the model's, with the activations of the layer that is at work */
    const dpt_model_call *call;
    dpt_bf16 *bf16; /**< for products in bf16, or NULL */
    dpt_accumulator to;
    int64_t sequences, tokens, width;
    const int64_t *first; /**< (sequences + 1) */
    int64_t scored;       /**< predictions */
    dpt_status status;
} dpt_pass;

/* slice.c */
/** What rank `rank` of `size` has. Local. */
void dpt_slice_find(const dpt_arch *arch, int rank, int size, dpt_slice *out);
/** Sides of a row's tensor in the files. Local. */
dpt_tensor_info dpt_slice_shape(const dpt_arch *arch, const dpt_row *row);
/** Whether two ranks have the same number of everything, and so need the same memory. Local. */
bool dpt_slice_is_like(const dpt_slice *a, const dpt_slice *b);
/** Claim the part of every row, also under names that differ from the table's by prefixes alone. Local.
 * Errors: as dpt_params_check. */
dpt_status dpt_slice_claim(dpt_model *model);
/** Number of a matrix of the first layer, of experts one that this rank has; -1: there is none. Local. */
int dpt_slice_index(const dpt_model *model, dpt_slot slot);
/** One line when they do. Local. */
void dpt_slice_say_names(const dpt_model *model);
/** Share the claimed blocks with the other replicas. Collective over replicas. Errors, agreed: DPT_ERR_OUTPUT. */
dpt_status dpt_slice_share(dpt_model *model, const dpt_comm *replicas);
/** As the first of so many would share them. Local. Errors: DPT_ERR_OUTPUT. */
dpt_status dpt_slice_plan(dpt_model *model, int replicas, int machines);

/* batch_check.c */
/** Whether the model can take a batch. Local. @param[out] tokens that it has; longest: of one sequence.
 * Errors: DPT_ERR_INPUT for tokens, labels and lengths that are not the model's; DPT_ERR_INTERNAL. */
dpt_status dpt_batch_check(const dpt_model *model, const dpt_batch *batch, int64_t *tokens,
                           int64_t *longest);

/* work.c */
int64_t dpt_work_bytes(const dpt_model *model, int64_t tokens, int64_t longest, bool backward);
/** Make the buffers large enough; kept from call to call. Local. */
dpt_status dpt_work_reserve(dpt_model *model, int64_t tokens, int64_t longest, bool backward);
void dpt_work_release(dpt_work *work);
/** Point `work`, a copy of the model's, at the activations of a layer that is held. Local. */
void dpt_work_point(const dpt_model *model, int64_t layer, dpt_work *work);
int64_t dpt_work_head_rows(const dpt_model *model, int64_t scored); /**< the same on all ranks */

/* weights.c */
int64_t dpt_weights_floats(const dpt_model *model); /**< of the arena */
/** Point w into an arena. Local. */
void dpt_weights_place(const dpt_model *model, float *arena, float **w);
/** W(t) of the slots [begin, end) of a layer but those of experts, and of the vectors of one expert of this rank, in
 * whose slots the experts take turns. Factors of norms are as the norm takes them, 1 added where it adds it. Local. */
void dpt_weights_form(const dpt_pass *pass, int64_t layer, dpt_slot begin, dpt_slot end);
void dpt_weights_form_expert(const dpt_pass *pass, int64_t layer, int64_t expert);

/* product.c, product_bf16.c: products with the weights of a slot and of those stacked on it. */

/** One of the matrices of a product. */
typedef struct dpt_product_matrix {
    int index, bias; /**< numbers of the tensors; bias -1: none */
    double t;        /**< of W(t) */
    bool fixed;      /**< has neither terms nor gradients */
    bool uneven;     /**< the number of tokens changes from call to call */
    int64_t at;      /**< first of its columns in y */
    uint16_t *
        room; /**< where weights_form has put the two matrices of W(t) when they are not as stored, one after the
                          other; NULL: they are formed when they are needed */
} dpt_product_matrix;

/** y (T, N) = x (T, K) W(t)^T + b. */
typedef struct dpt_product {
    int count;
    dpt_product_matrix matrices[3];
    int64_t N, K;
    const float *bias; /**< in the arena, of all matrices end to end; NULL: none */
} dpt_product;

/** Whether the matrix of a slot is one of products in the precision of the model. The router's is not: which experts a
 * token gets is decided in fp32. Local. */
bool dpt_slot_is_product(dpt_slot slot);

dpt_product dpt_product_of(const dpt_pass *pass, int64_t layer, dpt_slot weight, dpt_slot bias);
/** y = x W(t)^T + b of n tokens. bias DPT_SLOTS: none. Local. */
void dpt_product_forward(const dpt_pass *pass, int64_t layer, dpt_slot weight, dpt_slot bias,
                         int64_t n, const float *x, int64_t ldx, float *y, int64_t ldy);
/** dx = dy W(t), and the terms or gradients of weights and biases; dx NULL: these alone. Local. */
void dpt_product_backward(const dpt_pass *pass, int64_t layer, dpt_slot weight, dpt_slot bias,
                          dpt_rows rows, float *dx, int64_t lddx);
/** The same of products in bf16; biases are left to the caller on the way back. */
void dpt_product_bf16_forward(const dpt_pass *pass, const dpt_product *p, int64_t n, const float *x,
                              int64_t ldx, float *y, int64_t ldy);
void dpt_product_bf16_backward(const dpt_pass *pass, const dpt_product *p, dpt_rows rows, bool add,
                               float *dx, int64_t lddx); /**< dx (+)= */
/** Elements that a matrix needs of each of the buffers half, and of both. Local. */
void dpt_product_bf16_elements(const dpt_param *param, int64_t tokens, int64_t *half,
                               int64_t *both);

/* linear.c: products in fp32, some rows of W(t) at a time. */
int64_t dpt_linear_rows(const dpt_param *param);   /**< that are formed at a time of an expert */
int64_t dpt_linear_floats(const dpt_param *param); /**< of these */
/** Rows of any other matrix that are formed at a time for so many tokens; more tokens, more rows. Local. */
int64_t dpt_linear_rows_for(const dpt_param *param, int64_t tokens);
/** As dpt_product_forward and dpt_product_backward but for biases; dx (+)=. Local. */
void dpt_linear_product_forward(const dpt_pass *pass, const dpt_product *p, int64_t n,
                                const float *x, int64_t ldx, float *y, int64_t ldy);
void dpt_linear_product_backward(const dpt_pass *pass, const dpt_product *p, dpt_rows rows,
                                 bool add, float *dx, int64_t lddx);

/* Products with the weights of a matrix by its number, of which this rank has rows: one of an expert. */
/** y = x W(t)^T + b of n tokens; bias NULL: 0. Local. */
void dpt_linear_forward(const dpt_pass *pass, int index, int64_t n, const float *x, int64_t ldx,
                        const float *bias, float *y, int64_t ldy);
/** dx (+)= dy W(t), and the terms or gradients of the weights. Local. */
void dpt_linear_backward(const dpt_pass *pass, int index, dpt_rows rows, bool add, float *dx,
                         int64_t lddx);

/* pass.c */

/** Units of dpt_shares_take: what comes before the layers is 0. */
static inline int dpt_pass_unit_layer(int64_t layer) {
    return (int)layer + 1;
}
static inline int dpt_pass_unit_head(const dpt_arch *arch) {
    return (int)arch->layers + 1;
}

/** What a pass reads and how far it goes, the most of all replicas that gather weights together. */
typedef struct dpt_pass_walk {
    bool backward, edit;
    dpt_model_gradient *gradient; /**< that backward adds to; or NULL */
} dpt_pass_walk;

/** The part that a rank without tokens has in a pass. Collective over the replicas. */
void dpt_pass_walk_idle(dpt_model *model, dpt_pass_walk walk);

/** Predictions with both passes where the call wants them. Collective over the group, and over the replicas where these
 * gather weights together. */
dpt_status dpt_pass_run(dpt_model *model, const dpt_model_call *call, dpt_pass_walk walk);
void dpt_pass_sum(dpt_pass *pass, float *values, int64_t n); /**< over the group */
/** sum += a, of all tokens. */
void dpt_pass_add(const dpt_pass *pass, const float *a, float *sum);
/** Whether the activations of a layer wait for the way back: its backward pass needs no products of the forward pass. */
bool dpt_pass_holds(const dpt_pass *pass, int64_t layer);
/** Input of a layer; that of the layer after the last goes to the head. Of a group, two layers next to each other. */
float *dpt_pass_input(const dpt_pass *pass, int64_t layer);
/** Number of a tensor for the accumulator. */
int dpt_pass_index(const dpt_pass *pass, int64_t layer, dpt_slot slot);
/** One row a token of the batch: gradient of an output and what it was made from. */
dpt_rows dpt_pass_rows(const dpt_pass *pass, const float *dy, int64_t lddy, const float *x,
                       int64_t ldx);
/** Terms or gradients of a linear map and its bias. */
void dpt_pass_accumulate(const dpt_pass *pass, int64_t layer, dpt_slot weight, dpt_slot bias,
                         dpt_rows rows);
/** Norm of n rows: stats are for the backward pass. */
void dpt_pass_norm(const dpt_pass *pass, dpt_slot slot, int64_t n, const float *x, float *y,
                   dpt_norm_stats stats);
/** dx (+)= gradient of the norm's input, and that of its weights; rows are (n, C), dx may be dy when it is
 * not added to. */
void dpt_pass_norm_backward(const dpt_pass *pass, int64_t layer, dpt_slot slot, dpt_rows rows,
                            dpt_norm_stats stats, bool add, float *dx);

/* embed_tokens.c, embed_patches.c: the batch to the input of the first layer, and back. */
void dpt_embed_tokens(dpt_pass *pass, float *x);
void dpt_embed_tokens_backward(const dpt_pass *pass);
void dpt_embed_patches(dpt_pass *pass, float *x);
void dpt_embed_patches_backward(const dpt_pass *pass);

/** norm(x) of all tokens in y, or x itself in an architecture without that norm. */
const float *dpt_pass_norm_in(const dpt_pass *pass, dpt_slot slot, const float *x, float *y,
                              dpt_norm_stats stats);
/** dx += gradient of the input of that, given that of its output. */
void dpt_pass_norm_in_backward(const dpt_pass *pass, int64_t layer, dpt_slot slot, const float *dy,
                               const float *x, dpt_norm_stats stats, float *dx);

/* attention.c: out = O(attention(norm1 x)), summed over the ranks. The backward pass needs what the forward pass of
 * the same x left in work, or recompute, which has no out and of a layer that is held takes the norm alone; dx += gradient
 * of x, given that of out, which may be dx. */
void dpt_attention_forward(dpt_pass *pass, int64_t layer, const float *x, float *out);
void dpt_attention_recompute(dpt_pass *pass, int64_t layer, const float *x);
void dpt_attention_backward(dpt_pass *pass, int64_t layer, const float *x, const float *dy,
                            float *dx);

/* norm_qk.c: RMSNorm of queries and keys over all heads of all ranks, in place; and dqkv of what went into it. */
void dpt_norm_qk_forward(dpt_pass *pass);
void dpt_norm_qk_backward(dpt_pass *pass, int64_t layer);

/* mlp.c: out = MLP(norm2 x), summed over the ranks; recompute leaves in work what the backward pass needs, of a
 * layer that is held from the products that are there. */
void dpt_mlp_forward(dpt_pass *pass, int64_t layer, const float *x, float *out);
void dpt_mlp_recompute(const dpt_pass *pass, int64_t layer, const float *x);
void dpt_mlp_backward(dpt_pass *pass, int64_t layer, const float *x, const float *dy, float *dx);

/* experts.c: this rank's share of the experts' output for n (T, C), and of the gradient of n. */
void dpt_experts_forward(dpt_pass *pass, int64_t layer, const float *n, float *out);
void dpt_experts_backward(dpt_pass *pass, int64_t layer, const float *n, const float *dy,
                          float *dn);

/* rotate.c: the table that a sequence of n positions takes. */
void dpt_rotate_fill(const dpt_rope_params *rope, int64_t n, const dpt_rotary *table);
/* The heads of queries and keys, which begin at qk in each row, by their positions; or back. */
void dpt_rotate_forward(const dpt_pass *pass, int64_t layer, float *qk, int64_t ld);
void dpt_rotate_backward(const dpt_pass *pass, int64_t layer, float *dqk, int64_t ld);

/* block.c: one layer. The backward pass computes the activations again from the input x of the layer, of one
 * that is held those that take no product; work->dx holds the gradient of its output on entry and that of x on return. */
void dpt_block_forward(dpt_pass *pass, int64_t layer, const float *x, float *out);
void dpt_block_backward(dpt_pass *pass, int64_t layer, const float *x);

/* pool.c: y (images, features) that the head reads, of the last layer's output x, where that is not one token; and
 * work->dx of the gradient d of y. */
void dpt_pool_forward(dpt_pass *pass, const float *x, float *y);
void dpt_pool_backward(dpt_pass *pass, const float *x, float *d); /**< d is lost */

/* pool_attention.c: the same where the head reads an attention over the tokens. */
void dpt_pool_attention_forward(dpt_pass *pass, const float *x, float *y);
void dpt_pool_attention_backward(dpt_pass *pass, const float *x, float *d);

/* head.c: nll, correct, and with a backward pass the gradient of the last layer's output. */
void dpt_head_run(dpt_pass *pass);

/* head_text.c: y (n, C) to embeddings of length 1 in work->z, from row `row` of the head on, and from the
 * gradient in work->dz back to that of y. */
void dpt_head_project(dpt_pass *pass, int64_t row, int64_t n, const float *y);
void dpt_head_project_backward(dpt_pass *pass, int64_t row, int64_t n, const float *y, float *dy);

#endif

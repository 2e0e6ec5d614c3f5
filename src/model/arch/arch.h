#ifndef DELTAPATH_SRC_MODEL_ARCH_ARCH_H
#define DELTAPATH_SRC_MODEL_ARCH_ARCH_H

#include "config.h"

#include "deltapath/nn/mlp.h"
#include "deltapath/nn/rope.h"
#include "deltapath/nn/route.h"
#include "deltapath/tensor/catalog.h"
#include "deltapath/tensor/part.h"

/** What a tensor does in a transformer. A slot that an architecture has no row for is an operation that it
 * does not have: no bias, no norm there, an MLP without gate. The bias of a norm follows the norm. */
typedef enum dpt_slot {
    DPT_SLOT_TOKENS, /**< (V, C) token embedding, of which a batch forms the rows that it needs */
    DPT_SLOT_CLASS,  /**< (C) class token of images */
    DPT_SLOT_REGISTERS, /**< (registers, C) tokens of images that have no position */
    DPT_SLOT_PATCH,     /**< (C, pixels) */
    DPT_SLOT_PATCH_BIAS,
    DPT_SLOT_POSITION, /**< (positions, C) */
    DPT_SLOT_EMBED_NORM,
    DPT_SLOT_EMBED_NORM_BIAS,

    DPT_SLOT_NORM1, /**< of the input of the attention */
    DPT_SLOT_NORM1_BIAS,
    DPT_SLOT_Q,
    DPT_SLOT_K,
    DPT_SLOT_V,
    DPT_SLOT_Q_BIAS,
    DPT_SLOT_K_BIAS,
    DPT_SLOT_V_BIAS,
    DPT_SLOT_Q_NORM, /**< RMSNorm before the rotation: (head_dim) of each head, or (heads) over all of them */
    DPT_SLOT_K_NORM,
    DPT_SLOT_SINKS, /**< (query heads) logit of each that no key has */
    DPT_SLOT_O,
    DPT_SLOT_O_BIAS,
    DPT_SLOT_OUT_NORM1, /**< of what the attention adds to the residual stream */
    DPT_SLOT_OUT_NORM1_BIAS,
    DPT_SLOT_SCALE1, /**< (C) factor of what the attention adds */
    DPT_SLOT_NORM2,  /**< of the input of the MLP */
    DPT_SLOT_NORM2_BIAS,
    DPT_SLOT_ROUTER, /**< (experts, C) */
    DPT_SLOT_ROUTER_BIAS,
    DPT_SLOT_GATE,
    DPT_SLOT_UP,
    DPT_SLOT_GATE_BIAS,
    DPT_SLOT_UP_BIAS,
    DPT_SLOT_DOWN,
    DPT_SLOT_DOWN_BIAS,
    DPT_SLOT_OUT_NORM2, /**< of what the MLP adds to the residual stream */
    DPT_SLOT_OUT_NORM2_BIAS,
    DPT_SLOT_SCALE2, /**< (C) factor of what the MLP adds */

    DPT_SLOT_FINAL_NORM,
    DPT_SLOT_FINAL_NORM_BIAS,
    DPT_SLOT_POOL_PROBE, /**< (C) input of the only query of an attention over the tokens of an image */
    DPT_SLOT_POOL_Q,
    DPT_SLOT_POOL_K, /**< of the tokens after the last norm */
    DPT_SLOT_POOL_V,
    DPT_SLOT_POOL_Q_BIAS,
    DPT_SLOT_POOL_K_BIAS,
    DPT_SLOT_POOL_V_BIAS,
    DPT_SLOT_POOL_O,
    DPT_SLOT_POOL_O_BIAS,
    DPT_SLOT_POOL_NORM, /**< of the input of the MLP that follows */
    DPT_SLOT_POOL_NORM_BIAS,
    DPT_SLOT_POOL_UP,
    DPT_SLOT_POOL_UP_BIAS,
    DPT_SLOT_POOL_DOWN,
    DPT_SLOT_POOL_DOWN_BIAS,
    DPT_SLOT_HEAD, /**< (V, C), or the projection (D, C) before the embeddings of class texts */
    DPT_SLOT_HEAD_BIAS,
    DPT_SLOT_TEXT, /**< (V, D) embedding of each class's text */
    DPT_SLOTS,

    DPT_SLOTS_EMBED = DPT_SLOT_CLASS, /**< first slots of what is formed together */
    DPT_SLOTS_LAYER = DPT_SLOT_NORM1,
    DPT_SLOTS_HEAD = DPT_SLOT_FINAL_NORM
} dpt_slot;

static inline bool dpt_slot_is_of_layer(int slot) {
    return slot >= DPT_SLOTS_LAYER && slot < DPT_SLOTS_HEAD;
}

/** Side of a tensor. Those that are marked are split over the ranks of a group. */
typedef enum dpt_axis {
    DPT_AXIS_NONE,     /**< no columns: a vector */
    DPT_AXIS_ONE,      /**< a stored side of length 1 */
    DPT_AXIS_WIDTH,    /**< C, of the residual stream */
    DPT_AXIS_HEADS,    /**< query heads times their width; split */
    DPT_AXIS_KV_HEADS, /**< key-value heads times their width; split as the query heads use them */
    DPT_AXIS_HEAD_DIM, /**< width of a head */
    DPT_AXIS_HEAD_COUNT,   /**< query heads, one element each; split */
    DPT_AXIS_UNITS,        /**< hidden units of the MLP; split */
    DPT_AXIS_EXPERT_UNITS, /**< hidden units of an expert, which one rank has whole */
    DPT_AXIS_EXPERTS,      /**< experts as outputs of the router */
    DPT_AXIS_VOCABULARY,   /**< V, tokens or classes; split */
    DPT_AXIS_PIXELS,       /**< elements of a patch (channel, y, x); split */
    DPT_AXIS_INPUTS,       /**< C as the inputs of a projection; split */
    DPT_AXIS_PROJECTION,   /**< D, of text and image embeddings */
    DPT_AXIS_POSITIONS, /**< that have an embedding; of an image its class token and its patches */
    DPT_AXIS_REGISTERS, /**< register tokens of an image */
    DPT_AXIS_FEATURES,  /**< what the head reads of an image */
    DPT_AXIS_CHANNELS,
    DPT_AXIS_PATCH, /**< side of a patch */
    DPT_AXES
} dpt_axis;

/** Which ranks hold the part of a tensor that its axes give, and whose gradient counts. */
typedef enum dpt_share {
    DPT_SHARE_EACH,  /**< every rank, and each counts what it finds: the parts add up */
    DPT_SHARE_SAME,  /**< every rank, and all find the same: the first counts it */
    DPT_SHARE_FIRST, /**< the first alone, as what it adds is summed over the ranks */
    DPT_SHARE_FIXED  /**< every rank, as a constant without gradient */
} dpt_share;

/** Rows that are there only where a configuration says so. */
typedef enum dpt_option {
    DPT_OPTION_QKV_BIAS = 1,
    DPT_OPTION_O_BIAS = 2,
    DPT_OPTION_MLP_BIAS = 4,
    DPT_OPTION_HEAD_NORMS = 16, /**< RMSNorm of each head of q and k */
    DPT_OPTION_HEAD = 8         /**< a head of its own, not tied to the embedding */
} dpt_option;

/** One tensor, or one of each layer: the only place that says its name, shape and share. */
typedef struct dpt_row {
    dpt_slot slot;
    const char *name; /**< in the files; ^ is the tower, * the layer, a second * the expert */
    dpt_axis rows, cols;
    dpt_share share;
    unsigned option; /**< dpt_option that the row needs; 0: it is always there */
    bool stacked;    /**< has the input of the row before: one product serves both */
    bool
        expert; /**< one of each expert: * once more in the name, or a part of a tensor of all of them */
    dpt_role_kind
        part; /**< which part of a fused tensor it is; 0 (DPT_ROLE_EMBED): the tensor is this row's alone */
    dpt_axis stored[4]; /**< sides in the files where these are not rows and columns */
} dpt_row;

/** Rows of a table, with short names: DPT_MATRIX(Q, "q_proj.weight", HEADS, WIDTH, .stacked = true). */
#define DPT_MATRIX(SLOT, NAME, ROWS, COLS, ...)                                                    \
    {                                                                                              \
        .slot = DPT_SLOT_##SLOT, .name = (NAME), .rows = DPT_AXIS_##ROWS, .cols = DPT_AXIS_##COLS, \
        __VA_ARGS__                                                                                \
    }
#define DPT_VECTOR(SLOT, NAME, ROWS, ...) DPT_MATRIX(SLOT, NAME, ROWS, NONE, __VA_ARGS__)

typedef enum dpt_norm_kind {
    DPT_NORM_RMS,
    DPT_NORM_RMS_UNIT, /**< RMSNorm with factors 1 + w */
    DPT_NORM_LAYER
} dpt_norm_kind;

enum { DPT_ROPES = 2 }; /**< rotary settings that the layers of one model can have */

/** How a token chooses its experts. */
typedef struct dpt_arch_experts {
    int64_t count;          /**< 0: one MLP */
    int64_t used;           /**< by a token */
    dpt_nn_route_kind kind; /**< what weighs them */
} dpt_arch_experts;

/** What the head reads of an image, of its tokens after the last norm. */
typedef enum dpt_pool_kind {
    DPT_POOL_CLASS,      /**< the class token; of a language model one token a prediction */
    DPT_POOL_MEAN,       /**< the mean of all tokens */
    DPT_POOL_CLASS_MEAN, /**< (2 C) the class token, and the mean of the patches */
    DPT_POOL_ATTENTION /**< a = attention of one query over all tokens; a + down(act(up(norm a))) */
} dpt_pool_kind;

typedef struct dpt_family dpt_family;

/** An architecture as its configuration describes it:
 * x = norm?(embedding); for each layer x += O(attention(Q, K, V of norm1 x)), x += down(act(up of norm2 x));
 * head(norm x). Which norms, biases, gates and experts there are is said by the rows. */
typedef struct dpt_arch {
    const dpt_family *family;
    const dpt_row *row[DPT_SLOTS]; /**< NULL: no such tensor */
    const dpt_row *head;           /**< of DPT_SLOT_HEAD also where it is tied and has no row */
    int number[DPT_SLOTS];         /**< of its first matrix, among all or among those of a layer */
    int whole, per_layer;          /**< matrices of the whole model, and of a layer */
    int64_t length[DPT_AXES];
    int64_t layers, heads, kv_heads, head_dim;
    dpt_norm_kind norm;
    double eps;
    dpt_act_kind act;
    const char *act_name;            /**< in config.json */
    double act_limit;                /**< of DPT_ACT_CLAMPED_SWIGLU */
    dpt_rope_params rope[DPT_ROPES]; /**< dim 0: no rotation */
    int8_t *rope_of; /**< (layers) which of these; -1: no rotation. NULL: the first. Owned */
    bool causal;
    bool parallel;           /**< attention and MLP both read the input of the layer */
    bool norm_qk_whole;      /**< q and k norms are over all heads together */
    double attention_scale;  /**< of q.k; 0: 1 / sqrt(head_dim) */
    bool attention_by_layer; /**< that divided by the number of the layer, counted from 1 */
    double attention_cap;    /**< logits s of the attention become cap tanh(s / cap); 0: none */
    double logit_cap;        /**< the same of the head; 0: none */
    double embed_scale;      /**< factor of the token embedding */
    dpt_arch_experts experts;
    int64_t *window; /**< (layers) keys that a query sees; 0: all before it. NULL: all. Owned */
    bool tied;       /**< the head is the token embedding */
    bool multimodal; /**< the text model of one that has other tensors too */
    int64_t max_positions; /**< of a language model */
    int64_t side;          /**< of an image [pixels]; 0: a language model */
    int64_t patches;       /**< of an image */
    int64_t image_tokens;  /**< of an image: its class token, its registers, then its patches */
    dpt_pool_kind pool;
    const char *tower; /**< where rows name it: what their names begin with in the files */
} dpt_arch;

/** One entry of DPT_FAMILIES. */
struct dpt_family {
    const char *architecture; /**< `architectures` of config.json */
    const char *model_type;

    /** Fill the description: shape, options and rows (dpt_arch_add). Local. Errors: in->status. */
    void (*read)(dpt_config *in, const dpt_catalog *catalog, dpt_arch *out);

    /** Whether a tensor that has no row may be there all the same; the name comes without prefixes
     * (tensor/prefix.h). Local. */
    bool (*ignores)(const dpt_arch *arch, const char *name);

    /** Whether a key of a configuration is one that is read, or changes nothing. Local. */
    bool (*knows)(const char *key);

    const char *const
        *takes;        /**< keys that this family has besides those, up to a NULL; NULL: none */
    const char *inner; /**< object of the configuration with keys as its own; NULL: none */
};

/** All families: dpt_family_<name> is in <name>.c. */
/* clang-format off */
#define DPT_FAMILIES(X) \
    X(llama) X(mistral) X(qwen2) X(qwen3) X(smollm3) X(phi3) X(olmo2) X(olmo3) X(gemma2) X(gemma3) X(gemma) \
    X(gpt_neox) X(gpt2) X(mixtral) X(qwen3_moe) X(gpt_oss) X(vit) X(clip) X(dinov2) \
    X(dinov2_with_registers) X(siglip) X(siglip_vision)
/* clang-format on */

#define DPT_FAMILY_DECLARE(NAME) extern const dpt_family dpt_family_##NAME;
DPT_FAMILIES(DPT_FAMILY_DECLARE)
#undef DPT_FAMILY_DECLARE

/** The family that a configuration names. Local. Errors: DPT_ERR_INPUT naming those that there are. */
dpt_status dpt_family_find(const json_t *config, const dpt_family **out);

/** Describe a configuration of any family; destroy what was described. Local.
 * Errors: DPT_ERR_INPUT naming the key; options that change the computation and are not implemented
 *         are refused by name. out is empty. */
dpt_status dpt_arch_read(const json_t *config, const dpt_catalog *catalog, dpt_arch *out);
void dpt_arch_destroy(dpt_arch *arch);

/** Give an architecture the rows whose options are among `options`; a later row of a slot replaces an
 * earlier one. Local. */
void dpt_arch_add(dpt_arch *arch, const dpt_row *rows, size_t count, unsigned options);

/** Leave out a row. Local. */
void dpt_arch_drop(dpt_arch *arch, dpt_slot slot);

/** Activation of a key of the configuration. Local. Errors: in->status. */
void dpt_arch_read_act(dpt_config *in, const char *key, const char *default_value, dpt_arch *out);

/** Whether a family has a key among those that it takes. Local. */
bool dpt_family_takes(const dpt_family *family, const char *key);

/** Number the matrices of the rows: those of the whole model, then layer by layer, as dpt_arch_read does it. Local.
 * Errors: DPT_ERR_INPUT when there are too many. */
dpt_status dpt_arch_number(dpt_arch *arch);

/** Number of a matrix in dpt_params, of experts that of the first, which the others follow; -1: there is none. Local. */
int dpt_arch_index(const dpt_arch *arch, int64_t layer, dpt_slot slot);
int dpt_arch_index_expert(const dpt_arch *arch, int64_t layer, dpt_slot slot, int64_t expert);
/** Whether the product of a matrix of a layer is computed again on the way back: not where what follows adds its result to
 * the residual stream and no backward pass reads it. Local. */
bool dpt_arch_recomputes(const dpt_arch *arch, dpt_slot slot);
/** How many of a row a layer has: one, or one of each expert. Local. */
int64_t dpt_arch_copies(const dpt_arch *arch, const dpt_row *row);
/** Factor of q.k in a layer that has none of its own; 0 of a model without heads. Local. */
double dpt_arch_attention_scale(const dpt_arch *arch);
/** Number of all matrices. Local. */
int dpt_arch_count(const dpt_arch *arch);
/** Name of a row in the files. Local. */
void dpt_arch_name(const dpt_arch *arch, const dpt_row *row, int64_t layer, int64_t expert,
                   char *out, size_t size);

/** Whether a name is that of the head where it is tied: a file may have a copy of the embedding there. Local. */
bool dpt_arch_is_tied_head(const dpt_arch *arch, const char *name);

/** Whether a tensor of a multimodal model is no part of its text model: its name, without prefixes, begins with another
 * word than those of all rows, and is not that of a tied head. Local. */
bool dpt_arch_is_outside(const dpt_arch *arch, const char *name);

/** Append to a text of at most `size` bytes the options in which two architectures of the same tensors
 * compute differently. Local. */
void dpt_arch_compare(const dpt_arch *a, const dpt_arch *b, char *text, size_t size);

#endif

#include "config.h"

#include <string.h>

/* Keys of any model that are of training, generation, bookkeeping or bits of speed; `auto_map` is looked at where a
 * family is found. */
static const char *const idle_keys[] = {"architectures",
                                        "attention_dropout",
                                        "auto_map",
                                        "bad_words_ids",
                                        "begin_suppress_tokens",
                                        "bos_token_id",
                                        "chunk_size_feed_forward",
                                        "decoder_start_token_id",
                                        "diversity_penalty",
                                        "do_sample",
                                        "dtype",
                                        "early_stopping",
                                        "encoder_no_repeat_ngram_size",
                                        "eos_token_id",
                                        "exponential_decay_length_penalty",
                                        "finetuning_task",
                                        "forced_bos_token_id",
                                        "forced_eos_token_id",
                                        "id2label",
                                        "initializer_range",
                                        "is_decoder",
                                        "label2id",
                                        "length_penalty",
                                        "max_length",
                                        "min_length",
                                        "model_max_length",
                                        "model_type",
                                        "no_repeat_ngram_size",
                                        "num_beam_groups",
                                        "num_beams",
                                        "num_return_sequences",
                                        "output_attentions",
                                        "output_hidden_states",
                                        "output_scores",
                                        "pad_token_id",
                                        "prefix",
                                        "problem_type",
                                        "remove_invalid_values",
                                        "repetition_penalty",
                                        "return_dict",
                                        "return_dict_in_generate",
                                        "sep_token_id",
                                        "suppress_tokens",
                                        "task_specific_params",
                                        "temperature",
                                        "tokenizer_class",
                                        "top_k",
                                        "top_p",
                                        "torch_dtype",
                                        "torchscript",
                                        "transformers.js_config",
                                        "transformers_version",
                                        "typical_p",
                                        "use_bfloat16",
                                        "use_cache"};

bool dpt_config_is_idle(const char *key) {
    if (key[0] == '_' || strncmp(key, "unsloth_", strlen("unsloth_")) == 0)
        return true;
    for (size_t i = 0; i < sizeof idle_keys / sizeof *idle_keys; i++)
        if (strcmp(key, idle_keys[i]) == 0)
            return true;
    return false;
}

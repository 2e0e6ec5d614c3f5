#ifndef DELTAPATH_MODEL_TENSORS_H
#define DELTAPATH_MODEL_TENSORS_H

#include "deltapath/tensor/catalog.h"

/** The tensors that a configuration asks for, as its architecture stores them: those of a model of which there is
 * nothing but config.json. Local.
 * @param[out] catalog  sorted; destroy it. starts (tensors of it) allocated (dpt_mem_free): random weights with
 * which activations stay of one size: a norm's are 1, a matrix's deviate by 1 / sqrt(columns).
 * Errors: DPT_ERR_INPUT naming the key or the tensor: one whose shape the configuration does not give, as those that
 * hold matrices as their transposes or of all experts. */
dpt_status dpt_model_list_tensors(const char *config, dpt_dtype dtype, dpt_catalog *catalog,
                                  dpt_spread **starts);

#endif

#ifndef DELTAPATH_VERBS_CONVERT_H
#define DELTAPATH_VERBS_CONVERT_H

#include "deltapath/comm/comm.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct dpt_convert_options {
    const char *source; /**< HDF5 checkpoint, safetensors directory or file */
    const char *
        base; /**< of the model where it is a PEFT adapter that names none that lies here; or NULL */
    const char
        *target;       /**< ends with .h5 or .hdf5: HDF5 checkpoint; else a safetensors directory */
    const char *dtype; /**< "f32", "f16", "bf16"; NULL or "same": as in the source */
    int64_t shard_bytes; /**< safetensors: size at which a new file begins; 0: 5e9 */
    bool overwrite;      /**< replace an existing target */
    bool verify_inputs;  /**< check the source as `deltapath verify` does, before the work */
} dpt_convert_options;

/** Copy a model into the other format, or into another type.
 *
 * Cells are streamed within the memory budget; bytes are copied as they are unless the type of a
 * f32, f16 or bf16 tensor changes, then they are rounded once. Other types are always copied. A warning
 * counts values that become 0.
 * Collective over comm (same: options).
 * Errors: DPT_ERR_USAGE for an unknown dtype; DPT_ERR_INPUT naming tensor, element and value when a finite
 * value would become infinite; those of dpt_store_open and dpt_store_create; nothing
 * is left under the final name.
 * Determinism: same bytes at any number of ranks.
 */
dpt_status dpt_convert_run(const dpt_comm *comm, const dpt_convert_options *options);

#endif

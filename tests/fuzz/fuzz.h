#ifndef DELTAPATH_TESTS_FUZZ_H
#define DELTAPATH_TESTS_FUZZ_H

/* What a libFuzzer target of tests/fuzz shares: MPI is started once, inputs become files in a folder in
 * memory, and after each execution nothing may be left: no block, no message out of place. */
#include "deltapath/base/mem.h"
#include "deltapath/base/sealed.h"
#include "deltapath/base/status.h"
#include "deltapath/comm/comm.h"
#include "deltapath/store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

extern dpt_comm fuzz_comm;

/** Path of a file in the folder; one of four buffers in turn. */
const char *fuzz_path(const char *name);

/** Write a file of the folder. @return its path. */
const char *fuzz_write(const char *name, const void *bytes, size_t n);

/** The same with the seal that a reader wants before it looks at the bytes. */
const char *fuzz_write_sealed(const char *name, const void *bytes, size_t n);

/** Write a safetensors file of a header text and `payload` zero bytes. */
const char *fuzz_write_safetensors(const char *name, const void *header, size_t n, size_t payload);

/** A text of the input with a NUL after it; released by fuzz_finish. */
char *fuzz_text(const uint8_t *data, size_t size);

/** What the target holds now it keeps for ever. */
void fuzz_keep_memory(void);

/** A status that is DPT_OK without a message, or `allowed` with one line; anything else ends the
 * process. The message is forgotten. */
void fuzz_check(dpt_status st, dpt_status allowed);

/** End of an execution: fuzz_check, and no memory may be held. */
void fuzz_finish(dpt_status st, dpt_status allowed);

#endif

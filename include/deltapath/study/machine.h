#ifndef DELTAPATH_STUDY_MACHINE_H
#define DELTAPATH_STUDY_MACHINE_H

#include "deltapath/comm/comm.h"

#include <stdbool.h>
#include <stdio.h>

/** What a plan knows of the machine: X(key, default, least, most, help). The key says its unit; what is 0 is not known,
 * and the plan takes what its help says. */
#define DPT_MACHINE_KEYS(X)                                                                        \
    X(cores, 2, 1, 1e6, "cores of a node")                                                         \
    X(memory_gib, 0, 0, 1e6, "memory of a node; 0: that of this one")                              \
    X(sgemm_gflops, 90, 1e-3, 1e9, "fp32 products of large matrices, a core")                      \
    X(sgemm_small_gflops, 0, 0, 1e9, "the same of 192 rows and columns; 0: seven tenths")          \
    X(dgemm_gflops, 0, 0, 1e9, "fp64 products, a core; 0: half of fp32")                           \
    X(bf16_gflops, 0, 0, 1e9,                                                                      \
      "large products as `precision: bf16` takes them, a core; 0: as fp32")                        \
    X(memory_gb_per_s, 12, 1e-3, 1e9, "copying in memory, reads and writes counted, all cores")    \
    X(core_memory_gb_per_s, 0, 0, 1e9, "the same of one core by itself; 0: as all together")       \
    X(node_latency_us, 1, 0, 1e9, "a message between ranks of a node")                             \
    X(node_gb_per_s, 5, 1e-3, 1e9, "bandwidth between two ranks of a node")                        \
    X(network_latency_us, 3, 0, 1e9, "a message between nodes")                                    \
    X(network_gb_per_s, 10, 1e-3, 1e9,                                                             \
      "bandwidth of a node's network; measured: of one pair of ranks")                             \
    X(read_gb_per_s, 1.5, 1e-6, 1e9, "reading files, a node")                                      \
    X(write_gb_per_s, 0.7, 1e-6, 1e9, "writing files and waiting until they are stored, a node")   \
    X(storage_gb_per_s, 0, 0, 1e9, "files, all nodes together; 0: no limit")

#define DPT_MACHINE_FIELD(KEY, DEFAULT, LEAST, MOST, HELP) double KEY;
typedef struct dpt_machine {
    DPT_MACHINE_KEYS(DPT_MACHINE_FIELD)
    char source[512]; /**< where it comes from: a file, or "defaults" */
} dpt_machine;

/** The defaults. Local. */
dpt_machine dpt_machine_defaults(void);

/** Read a machine file: lines of `key: number`, `#` begins a comment; keys that are left out have their defaults.
 * Collective over comm (same: path). Errors, agreed: DPT_ERR_INPUT naming file, line and key. */
dpt_status dpt_machine_read(const dpt_comm *comm, const char *path, dpt_machine *out);

/** Write it as such a file, with units and comments. Local. */
void dpt_machine_print(const dpt_machine *machine, FILE *file);

/** Measure the machine that runs this, in some ten seconds: products and copies of all ranks at once, messages between
 * the first two ranks of a node and the first ranks of two nodes, and a file that is made in `folder` and removed.
 * What cannot be measured by the ranks that there are keeps its default.
 * Collective over comm (same: folder). Errors, agreed: DPT_ERR_OUTPUT naming the folder, or without memory. */
dpt_status dpt_machine_measure(const dpt_comm *comm, const char *folder, dpt_machine *out);

/** Measure copies and what is asked for alone, in a fiftieth of a second; the rest are defaults.
 * Collective over comm (same: products, bf16), agreed. @param[in] products those in fp32. @param[in] bf16 those of bf16.
 * Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_machine_glance(const dpt_comm *comm, bool products, bool bf16, dpt_machine *out);

/** Keep a machine in a file of its own, which may replace an earlier one of this kind alone.
 * Local, for rank 0. Errors: DPT_ERR_OUTPUT naming the file. */
dpt_status dpt_machine_save(const dpt_machine *machine, const char *path, bool overwrite);

#endif

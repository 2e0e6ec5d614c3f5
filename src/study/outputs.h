#ifndef DELTAPATH_SRC_STUDY_OUTPUTS_H
#define DELTAPATH_SRC_STUDY_OUTPUTS_H

#include "deltapath/results/results.h"
#include "deltapath/store/quantise.h"
#include "deltapath/study/study.h"
#include "inputs.h"
#include "resources.h"

/** Output directory of a study, and the texts that go with every file in it. */
typedef struct dpt_outputs {
    const dpt_job *job; /**< borrowed */
    dpt_results_study study;
    const char **tensor_names;
    int64_t *tensor_numel;
    char *provenance; /**< of the study: with ranks, mesh and start time */
    bool replaces;    /**< an earlier study is still to be removed, as output.overwrite asks */
    struct dpt_existing *replaced; /**< its files; rank 0 */
} dpt_outputs;

/** Check, without a change, that the directory may be written, that it does not hold another study, and
 * that the file system has room for the edited models that are not there yet, and for those of a group besides what
 * is replaced. A plan for other ranks is made for another run: it may find a study. For rank 0.
 * Local. Errors: DPT_ERR_OUTPUT naming the directory and the remedy. */
dpt_status dpt_outputs_check(const dpt_inputs *inputs, const dpt_resources *resources,
                             const dpt_study_options *options);

/** Make the directory, or check that an existing study may be resumed or replaced; none is yet. Keeps other runs out
 * of it for the rest of the process (dpt_directory_lock); waits half a minute for a run that is
 * about to end. Collective over comm. Errors: DPT_ERR_OUTPUT naming the directory and the remedy. */
dpt_status dpt_outputs_open(const dpt_comm *comm, const dpt_inputs *inputs,
                            const dpt_resources *resources, const dpt_study_options *options,
                            dpt_outputs *out);

/** Check that the directory is still the one that dpt_outputs_open found, before its files are read again.
 * Collective over comm. Errors: DPT_ERR_OUTPUT naming the directory and the remedy. */
dpt_status dpt_outputs_check_moved(const dpt_comm *comm, const dpt_outputs *outputs);

/** Move the earlier study aside that output.overwrite replaces, when that was not done yet: before the first
 * file of the new one gets its name, and as late, so that a run which fails before has lost nothing.
 * Collective over comm. Errors: DPT_ERR_OUTPUT naming a file that somebody changed meanwhile, or one that
 * cannot be renamed; the earlier study is as it was then; those of dpt_outputs_check_moved. */
dpt_status dpt_outputs_replace(const dpt_comm *comm, dpt_outputs *outputs);

/** Remove it, once that file has its name, or after an error leave it to dpt_outputs_close, which moves it
 * back. @param[in] agreed  how that file ended, the same on all ranks. Local. */
void dpt_outputs_conclude(dpt_outputs *outputs, dpt_status agreed);

void dpt_outputs_close(dpt_outputs *outputs); /**< Local. */

/** Make a directory and those above it, and check that it may be written. Local.
 * Errors: DPT_ERR_OUTPUT naming it and the remedy. */
dpt_status dpt_outputs_make_directory(const char *path);

/** Results header whose key covers all that the unit (edit, data set d; -1: edit alone) depends on. */
dpt_results_study dpt_outputs_unit_study(const dpt_outputs *outputs, const dpt_inputs *inputs,
                                         const dpt_job_edit *edit, int d);

/** Put the digests of both models into the provenance of the study, which `join` compares; 0: not known. Local. */
dpt_status dpt_outputs_set_digests(dpt_outputs *outputs, const uint64_t digests[2]);

/** The data set of a unit of an edit; -1 for an edit alone. Local. */
int dpt_outputs_unit_data(const dpt_inputs *inputs, int unit);

/** Name of the data set of a unit; "" for an edit alone. Local. */
const char *dpt_outputs_data_name(const dpt_job *job, int d);

/** Path of an edited model: <directory>/models/<id>[.h5] (dpt_mem_free releases it). Local. */
char *dpt_outputs_model_path(const dpt_job *job, const dpt_job_edit *edit);

/** Whether the model of this edit, and not of another one under its id, is already there; and the digest of
 * its tensor hashes, which its units must have too. The same on all ranks. Collective over comm. */
dpt_status dpt_outputs_has_model(const dpt_comm *comm, const dpt_inputs *inputs,
                                 const dpt_job_edit *edit, bool *found, uint64_t *digest);

/** Open a writer for an edited model, with its provenance: that of the edit alone, so that its bytes
 * depend neither on ranks, nor on time, nor on where it is written. Collective over comm.
 * @param[in] spec  the edit with the values that were found for it. @param[in] quantiser  whose form it takes; NULL:
 * plain tensors. */
dpt_status dpt_outputs_create_model(const dpt_comm *comm, const dpt_inputs *inputs,
                                    const dpt_job_edit *edit, const dpt_edit_spec *spec,
                                    const dpt_shard *shard, const dpt_quantiser *quantiser,
                                    dpt_store_writer **out);

#endif

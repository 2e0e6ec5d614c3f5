#ifndef DELTAPATH_SRC_STUDY_EXISTING_H
#define DELTAPATH_SRC_STUDY_EXISTING_H

#include "deltapath/job/job.h"

#include <stdbool.h>

/* What lies in the output directory of a study before it begins. Files are known by their content
 * (store/owned), never by their place: what others put there is neither replaced nor removed. For rank 0,
 * after the inputs were opened. All functions are Local. */

/** Check that nothing lies where this study writes but what it wrote itself. With `replaces` also that
 * its folders hold nothing foreign, when there is something of it to remove.
 * @param[out] study  whether something of an earlier run is there.
 * @param[out] left  something of it that is aside, as an output.overwrite left it that was killed; else NULL.
 * Allocated (dpt_mem_free).
 * Errors: DPT_ERR_OUTPUT naming the first foreign file, or the input that is in the way. */
dpt_status dpt_existing_check(const dpt_job *job, bool replaces, bool *study, char **left);

/** Remove what processes that were killed left under temporary names, but give an earlier study its names back
 * that stepped aside and was not replaced: for the holder of the lock of the
 * directory; of the folder of its models, which may be a link to that of another study. */
void dpt_existing_sweep(const char *directory);
void dpt_existing_sweep_models(const char *models);

/** What an earlier run left and this one is to replace. */
typedef struct dpt_existing dpt_existing;

/** Check the same with `replaces`, and that no weights of models were changed, and remember what is there
 * (dpt_existing_forget, on an error too, which also moves back what is still aside). Errors: as above. */
dpt_status dpt_existing_remember(const dpt_job *job, dpt_existing **out);
void dpt_existing_forget(dpt_existing *existing); /**< NULL is allowed */

/** Look at all of it again, and move it aside, but for what this run has written there since and for
 * references that it uses. Errors: as above, also when something came to lie there or somebody changed a file
 * meanwhile; or naming what cannot be renamed; everything is where it was then. */
dpt_status dpt_existing_move(const dpt_job *job, dpt_existing *existing);

/** Remove what stepped aside, once something of the new study has its name. What cannot be removed stays, with
 * a warning. */
void dpt_existing_remove(const dpt_job *job, dpt_existing *existing);

#endif

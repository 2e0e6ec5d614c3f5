#ifndef DELTAPATH_SRC_STUDY_LOGITS_H
#define DELTAPATH_SRC_STUDY_LOGITS_H

#include "deltapath/comm/comm.h"
#include "deltapath/edit/edit.h"
#include "deltapath/path/weighted.h"

#include <stdbool.h>
#include <stdint.h>

/** How the logits of a data set move with the weights, to second order at W_post (doc/science.md). Over masks those of all
 * samples move together by about a Gaussian; its covariance is that of directions E_i = z_i Delta_i with random signs z,
 * of which each probe is one draw. Each rank has the samples of an even share. */
typedef struct dpt_logits {
    int probes;                  /**< 0: not measured */
    int64_t samples, begin, own; /**< this rank has [begin, begin + own) */
    int64_t classes;
    const int32_t *labels;   /**< (samples) borrowed */
    const uint8_t *correct;  /**< (samples) 1 where W_post is right; borrowed */
    const double *shares;    /**< (samples) of sum 1, or NULL; borrowed */
    const int64_t *clusters; /**< (samples), or NULL; borrowed */
    double effective;        /**< independent samples in effect (data/dataset.h); NaN: all */
    double *values;          /**< the one allocation */
    double *post;            /**< (own, classes) at W_post */
    double *toward,
        *toward_second; /**< (own, classes) derivatives along W_pre - W_post: first, half the second */
    double *second;     /**< (own, classes) half the sum of Delta_i^2 times the second ones */
    double *moves;      /**< (own, probes, classes) first along the probes */
    double step;        /**< of the differences */
    double error; /**< how far those of the first probe are from those of half the step, relative */
    double safe_rate; /**< dpt_logits_safe_rate for the job's margin; NaN before */
} dpt_logits;

/** How a random edit moves the weights. */
typedef struct dpt_logits_edit {
    double toward;   /**< mean of E over W_pre - W_post */
    double variance; /**< of E_i over Delta_i^2 */
} dpt_logits_edit;

/** What is known of the accuracy under a random edit before it is measured. */
typedef struct dpt_logits_prediction {
    double accuracy;  /**< share of samples that are right, by weight: mean over masks */
    double sd;        /**< its standard deviation over masks */
    double change;    /**< accuracy less that of W_post */
    double low, high; /**< 95 % interval of the change over samples, Student's */
    double error;     /**< size of what the second derivatives of the logits make of it */
    bool in_range;    /**< that is at most DPT_LOGITS_RANGE */
} dpt_logits_prediction;

/** A prediction of nothing. Local. */
dpt_logits_prediction dpt_logits_unknown(void);

/** Share of samples up to which the second derivatives may move the accuracy: measured, see doc/science.md. */
#define DPT_LOGITS_RANGE 0.01

/** Room for the samples of this rank. Local. @param[in] samples, classes, labels, correct, shares, clusters are taken
 * from `out`. Errors: DPT_ERR_OUTPUT without memory. */
dpt_status dpt_logits_create(const dpt_comm *comm, int probes, dpt_logits *out);
void dpt_logits_destroy(dpt_logits *logits); /**< Local; an empty one is allowed. */

/** Bytes of it on a rank. Local. */
int64_t dpt_logits_bytes(int probes, int64_t samples, int64_t classes, int ranks);

/** Take the logits (samples, classes) of W_post; and of both sides of a direction at t = step and -step: that along
 * W_pre, or probe r. To be called in this order, the post-trained ones first. Local. */
void dpt_logits_take_post(dpt_logits *logits, const double *post);
void dpt_logits_take_toward(dpt_logits *logits, const double *plus, const double *minus);
void dpt_logits_take_probe(dpt_logits *logits, int r, const double *plus, const double *minus);

/** Set `error` from both sides of probe 0 at half the step. Collective over comm. */
dpt_status dpt_logits_compare(const dpt_comm *comm, dpt_logits *logits, const double *plus,
                              const double *minus);

/** Whether an edit is one that this knows: a single dare with exact or no rescaling, or drop, with one p and not
 * calibrated. Local. */
bool dpt_logits_knows(const dpt_edit_spec *spec, dpt_logits_edit *out);

/** Predict the accuracy of a random edit.
 *
 * Collective over comm (same: edit). Computes: logits of 512 masks in pairs of opposite sign, with the same normal numbers
 * for every edit, of mean post + a toward + a^2 toward_second + v second and the covariance v / probes times the sum of
 * the outer products of the moves; a sample is right where its label has the greatest, the lowest of equal ones.
 * Errors: DPT_ERR_OUTPUT without memory, agreed. Determinism: to rounding between meshes. */
dpt_status dpt_logits_predict(const dpt_comm *comm, const dpt_logits *logits,
                              const dpt_logits_edit *edit, dpt_logits_prediction *out);

/** The largest p of dare (k = 0) whose predicted accuracy falls by at most `margin` and is in range, to 0.001; NaN
 * without a margin. Collective over comm (same: margin). Errors: as dpt_logits_predict. */
dpt_status dpt_logits_safe_rate(const dpt_comm *comm, const dpt_logits *logits, double margin,
                                double *rate);

/** Say what was measured; nothing without it. Local. */
void dpt_logits_log(const char *data, const dpt_logits *logits);

#endif

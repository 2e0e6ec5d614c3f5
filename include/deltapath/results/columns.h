#ifndef DELTAPATH_RESULTS_COLUMNS_H
#define DELTAPATH_RESULTS_COLUMNS_H

/* The columns of the results, each once. From these tables come the structs of results/results.h and the names
 * in results.h5, results.json and the tables of text; `deltapath columns` prints them, and doc/formats.md
 * shows what it prints. The order is that of the files. A row is X(field, unit, meaning). */

/** Numbers of a unit, double; NaN where not known. */
#define DPT_RESULT_SCALAR_COLUMNS(X)                                                               \
    X(loss_pre, "nats", "mean loss over the samples of the pre-trained model")                     \
    X(loss_post, "nats", "of the post-trained model")                                              \
    X(loss_edit, "nats", "of the edited model")                                                    \
    X(accuracy_pre, "share", "samples that the pre-trained model gets right")                      \
    X(accuracy_post, "share", "that the post-trained model gets right")                            \
    X(accuracy_edit, "share", "that the edited model gets right")                                  \
    X(accuracy_change, "share", "accuracy_edit - accuracy_post")                                   \
    X(accuracy_low, "share", "lower end of its 95 % interval, Tango's for paired shares")          \
    X(accuracy_high, "share", "upper end")                                                         \
    X(change, "nats", "L(edit) - L(post), mean over the samples")                                  \
    X(change_se, "nats", "standard error of the change")                                           \
    X(change_low, "nats", "lower end of its 95 % interval, the one that judges")                   \
    X(change_high, "nats", "upper end")                                                            \
    X(change_skew, "-", "skewness of the changes of the samples; NaN without spread")              \
    X(change_enough, "-",                                                                          \
      "samples in effect from which an interval of changes so skewed is known to cover 95 %: 28 "  \
      "+ 25 skew^2")                                                                               \
    X(bootstrap_low, "nats", "lower end of the 95 % BCa bootstrap interval of the change")         \
    X(bootstrap_high, "nats", "upper end, whichever interval judges")                              \
    X(equivalence_low, "nats", "lower end of the 90 % interval that the margin is held against")   \
    X(equivalence_high, "nats", "upper end")                                                       \
    X(estimate, "nats", "Riemann sum of gradient and edit along the path")                         \
    X(estimate_se, "nats", "its standard error over samples; NaN with one node at t = 0 alone")    \
    X(estimate_low, "nats", "lower end of its 95 % interval over samples")                         \
    X(estimate_high, "nats", "upper end")                                                          \
    X(estimate_quadrature, "nats",                                                                 \
      "size of its error by the slopes alone; NaN with one node, or above 10 evenly spaced ones")  \
    X(estimate_combined_low, "nats",                                                               \
      "lower end of its 95 % interval over samples with a quadrature error of that size")          \
    X(estimate_combined_high, "nats", "upper end")                                                 \
    X(gradients, "-",                                                                              \
      "slopes that the path took, also of another edit on its line, without a shared one at t = "  \
      "0")                                                                                         \
    X(error, "nats", "estimate - change")                                                          \
    X(second_order, "nats", "1/2 E^T H E from the first two nodes")                                \
    X(hessian_second_order, "nats",                                                                \
      "1/2 E^T H E at W_post itself, by `hessian.edits`; NaN without")                             \
    X(hessian_error, "nats", "size of its numerical error")                                        \
    X(hessian_step, "-", "t and -t of the closest slopes that it took")                            \
    X(gain, "nats", "L(pre) - L(post)")                                                            \
    X(gain_low, "nats", "lower end of its 95 % interval")                                          \
    X(gain_high, "nats", "upper end")                                                              \
    X(share, "share", "change over gain; NaN unless the gain is clearly positive")                 \
    X(share_low, "share", "lower end of its 95 % interval")                                        \
    X(share_high, "share", "upper end")                                                            \
    X(margin, "nats", "of the equivalence test")                                                   \
    X(margin_accuracy, "nats",                                                                     \
      "what a fall of the accuracy by its margin costs; NaN where not known")                      \
    X(accuracy_margin, "share", "by which the accuracy may fall; 0 where it is left out")          \
    X(p_change, "-", "two-sided p of no change, by the interval that judges")                      \
    X(p_equivalent, "-", "larger p of the two one-sided tests")                                    \
    X(p_accuracy, "-", "one-sided p of a fall of the accuracy by its margin or more")              \
    X(p_adjusted, "-", "`p_change` after Holm's correction over the edits, for each data set")     \
    X(p_equivalent_adjusted, "-",                                                                  \
      "larger of `p_equivalent` and `p_accuracy` after Holm's correction, likewise; without the "  \
      "second where no sample's loss changes")                                                     \
    X(clusters, "-", "with weight, each one sample where the data set has none")                   \
    X(effective, "-", "samples, or clusters, that weights, repeats and clusters leave in effect")  \
    X(curvature, "nats",                                                                           \
      "c = 1/2 sum Delta_i^2 H_ii over the edited tensors, Gauss-Newton, by `law`")                \
    X(curvature_se, "nats", "its standard error over the draws of labels")                         \
    X(hessian_curvature, "nats",                                                                   \
      "c with the Hessian itself, from random signs, by `hessian.probes`")                         \
    X(hessian_curvature_se, "nats", "its standard error over the signs")                           \
    X(predicted_first, "nats", "gradient at W_post times E as written")                            \
    X(predicted_second, "nats",                                                                    \
      "sum over the tensors of their curvature times the squared norm of E over that of Delta; "   \
      "of `dare` s c with s = "                                                                    \
      "(k-1)^2 p/(1-p)")                                                                           \
    X(predicted_change, "nats",                                                                    \
      "known before the change: the sum of both; of `dare` the mean over masks, which is the "     \
      "second alone")                                                                              \
    X(predicted_se, "nats", "standard error of the second over the draws of labels")               \
    X(predicted_s, "-", "second over curvature; of `dare` s")                                      \
    X(predicted_in_range, "-",                                                                     \
      "1 of `dare` where s is at most 0.1, the loss of the post-trained model at least 0.05 and "  \
      "`rounding` from -0.1 to 0.1; else 0, and `predicted_range` says why; as predicted, before " \
      "the path")                                                                                  \
    X(safe_rate, "share",                                                                          \
      "largest p of `dare`, k = 0, whose predicted change stays within the margin and whose s in " \
      "range, before rounding to the output type, which may take smaller p out of it; NaN "        \
      "without a margin or where the loss is out of range")                                        \
    X(predicted_sd, "nats",                                                                        \
      "of `dare`: standard deviation of the change over masks, to second order, by "               \
      "`hessian.probes`")                                                                          \
    X(predicted_sd_se, "nats", "its standard error over the signs")                                \
    X(proof_correlation, "-",                                                                      \
      "Pearson's, over the groups of `proof`, of `proof_term` and `proof_change`")                 \
    X(proof_correlation_low, "-", "lower end of its 95 % interval over groups")                    \
    X(proof_correlation_high, "-", "upper end")                                                    \
    X(proof_rank_correlation, "-", "Spearman's, likewise")                                         \
    X(proof_rank_correlation_low, "-", "lower end of its 95 % interval")                           \
    X(proof_rank_correlation_high, "-", "upper end")                                               \
    X(proof_slope, "-", "of `proof_change` on `proof_term`, least squares: 1 is calibrated")       \
    X(proof_slope_low, "-", "lower end of its 95 % interval")                                      \
    X(proof_slope_high, "-", "upper end")                                                          \
    X(proof_few, "-",                                                                              \
      "1 where fewer than eight groups, or fewer than a third of them in effect, carry the "       \
      "spread "                                                                                    \
      "of terms or changes, and these intervals may cover less than 95 %; else 0")                 \
    X(proof_interaction, "nats",                                                                   \
      "sum of `proof_change` over the groups less the change: what groups do together")            \
    X(proof_interaction_low, "nats", "lower end of its 95 % interval over samples")                \
    X(proof_interaction_high, "nats", "upper end")                                                 \
    X(predicted_accuracy, "share",                                                                 \
      "of samples that are right under a random edit, mean over masks, by `law.probes`")           \
    X(predicted_accuracy_sd, "share", "its standard deviation over masks")                         \
    X(predicted_accuracy_change, "share", "less accuracy_post")                                    \
    X(predicted_accuracy_low, "share",                                                             \
      "lower end of the 95 % interval of that change over samples, Student's")                     \
    X(predicted_accuracy_high, "share", "upper end")                                               \
    X(predicted_accuracy_error, "share",                                                           \
      "size of what the second derivatives of the logits make of it")                              \
    X(predicted_accuracy_in_range, "-", "1 where that is at most a point, else 0")                 \
    X(safe_rate_accuracy, "share",                                                                 \
      "largest p of `dare`, k = 0, whose predicted accuracy falls by at most the accuracy margin " \
      "and is in range; NaN without a margin")                                                     \
    X(correlation_se, "-",                                                                         \
      "standard error of `path_correlation` over masks, 1 / sqrt(entries - 1)")                    \
    X(held_out, "share",                                                                           \
      "of the samples, by weight, which what was chosen from data has not seen; NaN without a "    \
      "choice")                                                                                    \
    X(choose_change, "nats",                                                                       \
      "L(edit) - L(post) over the samples that only choose, and are not among the others")         \
    X(choose_accuracy, "share", "of these samples, that the edited model gets right")              \
    X(rounding, "share",                                                                           \
      "of sum abs(E) over all tensors that rounding to the output type takes back; below 0 it "    \
      "adds")                                                                                      \
    X(bf16_loss, "nats",                                                                           \
      "with `precision: bf16`, what it changes in the loss of a sample, the most of a few; NaN "   \
      "in fp32")                                                                                   \
    X(bf16_terms, "share",                                                                         \
      "likewise in the term of a tensor at t = 0.5, of the largest; NaN in fp32")                  \
    X(size, "bytes", "of the edit, packed as [below](#size-of-an-edit); NaN of a sequence")        \
    X(seconds, "s", "wall time of the unit")

/** What an edit did to one tensor, double; NaN where it does not apply. */
#define DPT_RESULT_TENSOR_COLUMNS(X)                                                               \
    X(delta_norm, "-", "Frobenius norm of Delta, to 1e-5")                                         \
    X(edit_norm, "-", "Frobenius norm of E after rounding to the output type, to 1e-5")            \
    X(rounding, "share",                                                                           \
      "of sum abs(E) that rounding to the output type takes back; below 0 it adds")                \
    X(share_changed, "share", "entries with E not 0")                                              \
    X(share_zero, "share",                                                                         \
      "entries with Delta exactly 0; of edits by `bitdelta` or `multibit`, or with `calibrate`")   \
    X(rank, "-", "of a low-rank edit; of a tensor of several matrices the sum of theirs")          \
    X(residual, "share",                                                                           \
      "of a low-rank edit: norm of what it leaves out over that of Delta, of all matrices "        \
      "together")                                                                                  \
    X(scale, "-",                                                                                  \
      "factor, mean magnitude or cut of the last stage that has one; of several matrices their "   \
      "mean, by entries")                                                                          \
    X(correlation, "-",                                                                            \
      "of mask and gradient times delta at t = 0, where it tests the random numbers")              \
    X(slope, "nats",                                                                               \
      "<g, F(Delta)> at W_post of a calibrated edit before its factor, over the samples that "     \
      "choose")                                                                                    \
    X(slope_se, "nats",                                                                            \
      "its standard error over these samples, or clusters; of `calibrate: significant`")           \
    X(value, "-",                                                                                  \
      "found for the tensor alone: p, keep, bits or rank of `allocate`, alpha of `alpha: auto`")

/** Texts of a unit. */
#define DPT_RESULT_TEXT_COLUMNS(X)                                                                 \
    X(edit, "text", "id of the edit: `dare-p0.9-seed1`")                                           \
    X(data, "text", "name of the data set; empty for an edit alone")                               \
    X(method, "text", "`dare`, or `prune+bitdelta` for a sequence")                                \
    X(loss, "text", "`loss` of the data set in the job; empty without data")                       \
    X(rule, "text", "of the Riemann sum; empty without one")                                       \
    X(groups, "text", "names of the groups of `blocks`, with a bar between; empty without blocks") \
    X(proof_groups, "text",                                                                        \
      "names of the groups that `proof` leaves out, with a bar between; empty without it")         \
    X(verdict, "text", "`competitive`, `decreased`, `improved`, `undecided`; empty without data")  \
    X(reason, "text", "of the verdict")                                                            \
    X(predicted_at, "text", "time and hash of the prediction in `predictions.csv`")                \
    X(predicted_range, "text",                                                                     \
      "whether the prediction can be trusted, and why not; then what the path shows")              \
    X(chosen_on, "text",                                                                           \
      "data set from which the edit was chosen, with `~choose` its samples that only choose")

/** Arrays of a unit, double: X(name in files, field, shape, unit, meaning). */
#define DPT_RESULT_ARRAY_COLUMNS(X)                                                                \
    X(points, nodes, POINTS, "-", "nodes t of the rule")                                           \
    X(weights, weights, POINTS, "-", "weights of the rule")                                        \
    X(path_loss, path_loss, POINTS, "nats", "mean loss at t")                                      \
    X(terms, terms, TENSORS_POINTS, "nats", "gradient of the mean loss at t times E")              \
    X(integrated, integrated, TENSORS, "nats", "weighted sum of the terms")                        \
    X(matrix_terms, matrix_terms, MATRICES_POINTS, "nats",                                         \
      "terms of the matrices of tensors that have several, in the order of `/matrices`")           \
    X(matrix_integrated, matrix_integrated, MATRICES, "nats", "weighted sum of these")             \
    X(matrix_second_order, matrix_second_order, MATRICES, "nats",                                  \
      "the matrix's share of 1/2 E^T H E")                                                         \
    X(split, split, TENSORS, "nats", "the change by tensors: integrated, and parts of the miss")   \
    X(split_error, split_error, TENSORS, "nats", "size of its error")                              \
    X(second_order, second_order, TENSORS, "nats", "the tensor's share of 1/2 E^T H E")            \
    X(hessian_second_order, hessian_second_order, TENSORS, "nats",                                 \
      "1/2 E_l^T (H E)_l of the tensor's E_l; sum 1/2 E^T H E at W_post")                          \
    X(hessian_curvature, hessian_curvature, TENSORS, "nats",                                       \
      "the tensor's share of c by random signs; 0 where it is not edited")                         \
    X(hessian_curvature_se, hessian_curvature_se, TENSORS, "nats",                                 \
      "its standard error over the signs")                                                         \
    X(curvature, curvature, TENSORS, "nats", "the tensor's share of c; 0 where it is not edited")  \
    X(curvature_se, curvature_se, TENSORS, "nats", "its standard error over the draws of labels")  \
    X(path_correlation, path_correlation, POINTS, "-",                                             \
      "of mask and gradient at t times delta, over all tensors; with `correlation: path`")         \
    X(path_correlation_law, path_correlation_law, POINTS, "-",                                     \
      "what the law says of it; with `law`, of `dare`")                                            \
    X(path_correlations, path_correlations, TENSORS_POINTS, "-", "of the tensor's entries alone")  \
    X(blocks, blocks, TENSORS_GROUPS, "nats",                                                      \
      "1/2 E_l^T (H E_m)_l of tensor l and group m, by `hessian.blocks`")                          \
    X(proof_term, proof_term, PROOF_GROUPS, "nats",                                                \
      "sum of `integrated` over the group's tensors; NaN where the edit changes none of them")     \
    X(proof_change, proof_change, PROOF_GROUPS, "nats",                                            \
      "loss of the edit less that of the edit without the group, whose weights are then W_post")   \
    X(proof_change_low, proof_change_low, PROOF_GROUPS, "nats",                                    \
      "lower end of its 95 % interval over samples, of the kind that judges")                      \
    X(proof_change_high, proof_change_high, PROOF_GROUPS, "nats", "upper end")                     \
    X(proof_alone, proof_alone, PROOF_GROUPS, "nats",                                              \
      "loss of the group's part of the edit alone less that of W_post; with `proof.alone`")        \
    X(hessian_eigenvalues, hessian_eigenvalues, VALUES, "nats",                                    \
      "of greatest size of H in the edited tensors, by `hessian.lanczos`")                         \
    X(hessian_residuals, hessian_residuals, VALUES, "nats",                                        \
      "their residuals abs(H y - value y), y of length 1")                                         \
    X(delta_eigenvalues, delta_eigenvalues, VALUES, "nats",                                        \
      "of greatest size of D H D, D = diag(Delta)")                                                \
    X(delta_residuals, delta_residuals, VALUES, "nats", "their residuals")                         \
    X(loss_pre, loss_pre, SAMPLES, "nats", "loss of the pre-trained model")                        \
    X(loss_post, loss_post, SAMPLES, "nats", "of the post-trained model")                          \
    X(loss_edit, loss_edit, SAMPLES, "nats", "of the edited model")                                \
    X(correct_pre, correct_pre, SAMPLES, "-", "1 where the pre-trained model is right, else 0")    \
    X(correct_post, correct_post, SAMPLES, "-", "of the post-trained model")                       \
    X(correct_edit, correct_edit, SAMPLES, "-", "of the edited model")                             \
    X(sample_integrated, sample_integrated, SAMPLES, "nats",                                       \
      "the estimate; NaN where a node has only the mean gradient")                                 \
    X(sample_shares, sample_shares, SAMPLES, "share", "of the sample in all means, sum 1")         \
    X(sample_rows, sample_rows, SAMPLES, "-", "place of the sample in the data-set file, from 0")  \
    X(sample_clusters, sample_clusters, SAMPLES, "-",                                              \
      "number of its cluster, from 0; its own where the data set has none")

/** Numbers that are summed up over seeds as mean, sd, low and high: X(name, scalar, meaning). */
#define DPT_RESULT_SEEDS_COLUMNS(X)                                                                \
    X(change, change, "true change of the loss [nats]")                                            \
    X(estimate, estimate, "Riemann sum [nats]")                                                    \
    X(share, share, "change over gain")                                                            \
    X(accuracy, accuracy_edit, "of the edited model")

/** What else is known of the change over seeds: X(field, unit, meaning). */
#define DPT_RESULT_CROSSED_COLUMNS(X)                                                              \
    X(crossed_low, "nats",                                                                         \
      "lower end of the 95 % interval of the mean change over other seeds and other samples")      \
    X(crossed_high, "nats", "upper end")                                                           \
    X(crossed_df, "-", "its degrees of freedom")                                                   \
    X(crossed_few, "-",                                                                            \
      "1 where two seeds, or samples below `change_enough` of one of the edits, do not show the "  \
      "shape of what they were drawn from, and the interval may cover less than 95 %; else 0")

/** One column as `deltapath columns` shows it. */
typedef struct dpt_result_column {
    const char *name, *unit, *meaning;
} dpt_result_column;

#endif

#include "job_measures.h"

#include "deltapath/base/mem.h"
#include "deltapath/base/nearest.h"
#include "job_keys.h"

#include <fnmatch.h>
#include <string.h>

/* Sections that say what is measured besides the path. */

dpt_status dpt_job_read_patterns(const dpt_yaml *yaml, struct fy_node *map, const char *key,
                                 int *count, const char ***out) {
    struct fy_node *list;
    dpt_status st = dpt_yaml_list(yaml, map, key, &list, count);
    if (st != DPT_OK || *count == 0)
        return st;
    *out = dpt_mem_zalloc(*count, sizeof **out, "patterns");
    if (*out == NULL)
        return DPT_ERR_OUTPUT;
    for (int i = 0; i < *count; i++) {
        struct fy_node *item = fy_node_sequence_get_by_index(list, i);
        (*out)[i] = dpt_yaml_scalar(item);
        if ((*out)[i] == NULL)
            return dpt_yaml_error(yaml, item, "%s lists patterns such as \"model.layers.*\"", key);
    }
    return DPT_OK;
}

/* What measures a loss needs one, and a model. */
static dpt_status measures_check_loss(const dpt_job *job, const dpt_yaml *yaml,
                                      struct fy_node *node, const char *section) {
    if (job->riemann && job->ndata > 0)
        return DPT_OK;
    return dpt_yaml_error(yaml, node,
                          "%s measures a loss: give data and leave out riemann: off, or leave out "
                          "%s",
                          section, section);
}

/* What is allocated follows from the law. */
static dpt_status measures_check_allocated(const dpt_job *job, const dpt_yaml *yaml,
                                           struct fy_node *root) {
    for (int e = 0; e < job->nedits; e++) {
        if (dpt_job_is_allocated(&job->edits[e]))
            return dpt_yaml_error(yaml, root,
                                  "edit %s is allocated by the law of random edits: give law: "
                                  "{repeats: 8}",
                                  job->edits[e].id);
    }
    return DPT_OK;
}

/* Whether a data set has what the law asks for. */
static dpt_status measures_check_labels(const dpt_job *job, const dpt_yaml *yaml,
                                        struct fy_node *law, int d) {
    const char *name = job->data[d].name;
    if (job->data[d].loss == DPT_LOSS_DPO)
        return dpt_yaml_error(yaml, law,
                              "data set '%s' has loss dpo, whose preferences are no labels that "
                              "the model could draw: leave out law, or that data set",
                              name);
    if (job->data[d].loss == DPT_LOSS_CLASS)
        return DPT_OK;
    if (job->law.labels == DPT_LABELS_ALL)
        return dpt_yaml_error(yaml, law,
                              "law.labels is all, but data set '%s' is none of images: leave "
                              "out labels and give law.repeats",
                              name);
    if (job->law.probes > 0)
        return dpt_yaml_error(yaml, law,
                              "law.probes takes the logits of classes, but data set '%s' is "
                              "none of images: leave out probes",
                              name);
    return DPT_OK;
}

/* The law needs labels to draw, and a model. */
dpt_status dpt_job_read_law(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *law = dpt_yaml_get(root, "law");
    dpt_status st = dpt_job_keys_read(yaml, law, "law", "law", job);
    bool all = job->law.labels == DPT_LABELS_ALL;
    if (st == DPT_OK && job->law.probes > 0 && job->law.repeats == 0 && !all)
        return dpt_yaml_error(yaml, law,
                              "law.probes predicts the accuracy next to the loss, which is not "
                              "measured: give law.repeats or law.labels: all");
    if (st != DPT_OK || (job->law.repeats == 0 && !all))
        return st == DPT_OK ? measures_check_allocated(job, yaml, law != NULL ? law : root) : st;
    st = measures_check_loss(job, yaml, law, "law");
    for (int d = 0; d < job->ndata && st == DPT_OK; d++)
        st = measures_check_labels(job, yaml, law, d);
    return st;
}

/* Second derivatives need a model. */
dpt_status dpt_job_read_hessian(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *hessian = dpt_yaml_get(root, "hessian");
    dpt_status st = dpt_job_keys_read(yaml, hessian, "hessian", "hessian", job);
    const dpt_job_hessian *asked = &job->hessian;
    job->hessian.edits = job->hessian.edits || job->hessian.blocks != DPT_GROUPS_NONE;
    bool wanted = asked->edits || asked->probes > 0 || asked->lanczos > 0;
    if (st == DPT_OK && wanted)
        st = measures_check_loss(job, yaml, hessian, "hessian");
    if (st == DPT_OK && asked->lanczos > asked->steps)
        return dpt_yaml_error(yaml, hessian,
                              "hessian.lanczos is %d, but %d steps show no more eigenvalues than "
                              "that: raise hessian.steps to twice as many as eigenvalues or more",
                              asked->lanczos, asked->steps);
    return st;
}

int dpt_job_find_edit(const dpt_job *job, const char *id) {
    for (int e = 0; e < job->nedits; e++)
        if (strcmp(job->edits[e].id, id) == 0)
            return e;
    return -1;
}

static dpt_status measures_refuse_edit(const dpt_job *job, const dpt_yaml *yaml,
                                       struct fy_node *node, const char *id) {
    char hint[DPT_NEAREST_HINT];
    dpt_nearest nearest = dpt_nearest_begin(id);
    for (int e = 0; e < job->nedits; e++)
        dpt_nearest_offer(&nearest, job->edits[e].id, strlen(job->edits[e].id));
    dpt_nearest_hint(&nearest, hint);
    return dpt_yaml_error(yaml, node, "no edit has the id '%s'%s: the first is '%s'", id, hint,
                          job->edits[0].id);
}

/* Two edits of the job, each of which is made from the job alone. */
dpt_status dpt_job_read_plane(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *map = dpt_yaml_get(root, "plane");
    const dpt_job_plane *plane = &job->plane;
    const char *const keys[] = {"a", "b"};
    dpt_status st = dpt_job_keys_read(yaml, map, "plane", "plane", job);
    if (st != DPT_OK || map == NULL)
        return st;
    st = measures_check_loss(job, yaml, map, "plane");
    if (st != DPT_OK)
        return st;
    if (!(plane->low < plane->high))
        return dpt_yaml_error(yaml, map, "plane goes from low %g to high %g: give a higher high",
                              plane->low, plane->high);
    for (int i = 0; i < 2; i++) {
        const char *id = i == 0 ? plane->a : plane->b;
        int e = dpt_job_find_edit(job, id);
        struct fy_node *node = dpt_yaml_get(map, keys[i]);
        if (e < 0)
            return measures_refuse_edit(job, yaml, node, id);
        if (job->edits[e].auto_data >= 0)
            return dpt_yaml_error(
                yaml, node,
                "edit %s has values that are found in the run: give an edit with numbers", id);
    }
    if (strcmp(plane->a, plane->b) == 0)
        return dpt_yaml_error(yaml, map, "a and b are the same edit, which make no plane");
    return DPT_OK;
}

/* Whether a pattern of the list names the edit; all are named without a list. */
static bool measures_names(const dpt_job_proof *proof, const char *id) {
    bool named = proof->nedits == 0;
    for (int i = 0; i < proof->nedits && !named; i++)
        named = fnmatch(proof->edits[i], id, 0) == 0;
    return named;
}

bool dpt_job_leaves_out(const dpt_job *job, const dpt_job_edit *edit) {
    return job->proof.groups != DPT_GROUPS_NONE && measures_names(&job->proof, edit->id);
}

/* A pattern names an edit of the file; `--only` may leave it out later. */
static dpt_status measures_check_pattern(const dpt_job *job, const dpt_yaml *yaml,
                                         struct fy_node *node, const char *pattern) {
    for (int e = 0; e < job->nedits; e++)
        if (fnmatch(pattern, job->edits[e].id, 0) == 0)
            return DPT_OK;
    return measures_refuse_edit(job, yaml, node, pattern);
}

dpt_status dpt_job_read_proof(dpt_job *job, const dpt_yaml *yaml, struct fy_node *root) {
    struct fy_node *map = dpt_yaml_get(root, "proof");
    dpt_job_proof *proof = &job->proof;
    dpt_status st = dpt_job_keys_read(yaml, map, "proof", "proof", job);
    if (st == DPT_OK)
        st = dpt_job_read_patterns(yaml, map, "edits", &proof->nedits, &proof->edits);
    for (int i = 0; i < proof->nedits && st == DPT_OK; i++) {
        struct fy_node *item = fy_node_sequence_get_by_index(dpt_yaml_get(map, "edits"), i);
        st = measures_check_pattern(job, yaml, item, proof->edits[i]);
    }
    if (st == DPT_OK && proof->groups != DPT_GROUPS_NONE)
        st = measures_check_loss(job, yaml, map, "proof");
    return st;
}

#include "../allocate.h"

#include "deltapath/edit/choices.h"

#include <math.h>

/* Another method with a value of its own for each tensor, which a study finds before it runs that method (this
 * project). The stage itself never runs: dpt_edit_run refuses it. */

static dpt_status allocate_check(const dpt_edit_stage_spec *spec) {
    int edit = (int)dpt_edit_value(spec, DPT_ALLOCATE_EDIT);
    if (spec->given[DPT_ALLOCATE_BYTES] + spec->given[DPT_ALLOCATE_MEAN] != 1)
        return dpt_error(DPT_ERR_USAGE, "allocate: %s of bytes and mean is given: give exactly one",
                         spec->given[DPT_ALLOCATE_BYTES] ? "more than one" : "none");
    if (spec->given[DPT_ALLOCATE_MEAN] && edit == DPT_ALLOCATE_LOWRANK)
        return dpt_error(DPT_ERR_USAGE,
                         "allocate: mean: ranks of matrices of several shapes have no mean: give "
                         "bytes");
    if (spec->given[DPT_ALLOCATE_MEAN] && edit != DPT_ALLOCATE_MULTIBIT &&
        dpt_edit_value(spec, DPT_ALLOCATE_MEAN) > 1.0 - DPT_ALLOCATE_LEAST)
        return dpt_error(DPT_ERR_USAGE,
                         "allocate: mean: %g is above the largest share that may be dropped of a "
                         "tensor: give one up to %g",
                         dpt_edit_value(spec, DPT_ALLOCATE_MEAN), 1.0 - DPT_ALLOCATE_LEAST);
    if (spec->given[DPT_ALLOCATE_K] && edit != DPT_ALLOCATE_DARE)
        return dpt_error(DPT_ERR_USAGE, "allocate: k: it is a parameter of dare alone");
    if (spec->given[DPT_ALLOCATE_BYTES] && dpt_edit_value(spec, DPT_ALLOCATE_K) != 0.0)
        return dpt_error(DPT_ERR_USAGE,
                         "allocate: bytes: dare with k keeps every entry, which saves none: give "
                         "mean, or k: 0");
    if (spec->given[DPT_ALLOCATE_TENSORS] && edit != DPT_ALLOCATE_MULTIBIT)
        return dpt_error(DPT_ERR_USAGE, "allocate: tensors: it is a parameter of multibit alone");
    return DPT_OK;
}

static bool allocate_covers(const dpt_edit_stage_spec *spec, const dpt_tensor_info *info) {
    dpt_edit_stage_spec stage;
    dpt_edit_allocate_stage(spec, &stage);
    const dpt_edit_method *method = dpt_edit_method_get(stage.method);
    return method->covers == NULL || method->covers(&stage, info);
}

static bool allocate_draws(const dpt_edit_stage_spec *spec) {
    return (int)dpt_edit_value(spec, DPT_ALLOCATE_EDIT) == DPT_ALLOCATE_DARE &&
           dpt_edit_value(spec, DPT_ALLOCATE_K) != 1.0;
}

const dpt_edit_method dpt_edit_method_allocate = {
    .name = "allocate",
    .help = "another method with the value for each tensor that is predicted to cost least",
    .random = true,
    .found = true,
    .nparams = 6,
    .params = {{.name = "edit",
                .kind = DPT_PARAM_CHOICE,
                .choices = "dare|prune|multibit|lowrank",
                .required = true,
                .help = "the method whose p, keep, bits or rank is sought"},
               {.name = "bytes",
                .kind = DPT_PARAM_REAL,
                .optional = true,
                .lower = 0.0,
                .lower_open = true,
                .upper = 1e18,
                .help = "size that the edit may have; up to 1: as a share of the delta's"},
               {.name = "mean",
                .kind = DPT_PARAM_REAL,
                .optional = true,
                .lower = 0.0,
                .upper = 8.0,
                .help = "share of entries that is dropped, over all tensors, up to 0.99; of "
                        "multibit, mean bits"},
               {.name = "by",
                .kind = DPT_PARAM_CHOICE,
                .choices = "tensor|group|uniform",
                .help =
                    "a value for each tensor; one for the best group of tensors, the others kept; "
                    "or one for all"},
               {.name = "k",
                .kind = DPT_PARAM_REAL,
                .default_value = 0.0,
                .lower = -1e6,
                .upper = 1e6,
                .help = "that of dare"},
               {.name = "tensors",
                .kind = DPT_PARAM_CHOICE,
                .choices = "linear|all",
                .help = "those of multibit"}},
    .check = allocate_check,
    .draws = allocate_draws,
    .covers = allocate_covers};

#include "evaluation.h"

#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/linalg/bf16.h"

#include <inttypes.h>
#include <math.h>

enum { PRECISION_SAMPLES = 4 }; /* of all replicas, and one of each at least */
static const double PRECISION_PLACE = 0.5;

dpt_status dpt_precision_check(const dpt_comm *comm, int precision) {
    if (precision == (int)DPT_PRECISION_FP32)
        return DPT_OK;
    int64_t lack = (int64_t)DPT_BF16_FAST - (int64_t)dpt_bf16_find_speed(); /* of the worst rank */
    dpt_status st = dpt_agree(comm, dpt_comm_max_i64(comm, &lack, 1));
    if (st == DPT_OK && lack == DPT_BF16_FAST - DPT_BF16_NONE)
        st = dpt_error(DPT_ERR_USAGE, "precision: bf16: this processor has no such products (they "
                                      "need AVX-512): write `precision: fp32`");
    else if (st == DPT_OK && lack != 0)
        dpt_log(DPT_LOG_WARN,
                "precision: bf16: this processor has no instructions for it (AVX-512-BF16 "
                "or AMX): products are emulated, slower than with `precision: fp32`");
    return st;
}

int64_t dpt_precision_samples(int replicas) {
    return replicas < PRECISION_SAMPLES ? PRECISION_SAMPLES / replicas : 1;
}

/* One pass over a few samples. @param[out] values (2 samples + tensors) losses, slopes and terms. */
static dpt_status precision_take(dpt_evaluation *ev, const dpt_baseline *base,
                                 dpt_precision precision, double *values) {
    dpt_status st = dpt_agree(&ev->mesh.world, dpt_model_set_precision(ev->model, precision));
    if (st == DPT_OK)
        st = dpt_loss_evaluate_few(base->loss, &ev->mesh, ev->model,
                                   dpt_line_place(&ev->line, PRECISION_PLACE),
                                   dpt_precision_samples(ev->mesh.data.size), values,
                                   values + 2 * base->samples, values + base->samples);
    return st;
}

static double precision_distance(int64_t n, const double *a, const double *b, double *largest) {
    double off = 0.0;
    *largest = 0.0;
    for (int64_t i = 0; i < n; i++) {
        off = fmax(off, fabs(a[i] - b[i]));
        *largest = fmax(*largest, fabs(b[i]));
    }
    return off;
}

dpt_status dpt_precision_measure(dpt_evaluation *ev, int d, const char *edit,
                                 dpt_precision_error *out) {
    dpt_precision precision = dpt_model_get_precision(ev->model);
    *out = (dpt_precision_error){.loss = NAN, .terms = NAN};
    if (precision == DPT_PRECISION_FP32)
        return DPT_OK;
    const dpt_baseline *base = &ev->data[d];
    int tensors = dpt_model_catalog(ev->model)->count;
    int64_t n = 2 * base->samples + tensors;
    double largest, *values = dpt_mem_zalloc(2 * n, sizeof *values, "losses and slopes");
    dpt_status st = dpt_agree(&ev->mesh.world, values != NULL ? DPT_OK : DPT_ERR_OUTPUT);
    if (st == DPT_OK)
        st = dpt_evaluation_prepare(ev);
    if (st == DPT_OK)
        st = precision_take(ev, base, DPT_PRECISION_FP32, values);
    if (st == DPT_OK)
        st = precision_take(ev, base, precision, values + n);
    else
        (void)dpt_model_set_precision(ev->model, precision); /* what it needs is there */
    if (st == DPT_OK) {
        out->loss = precision_distance(base->samples, values + n, values, &largest);
        double off = precision_distance(tensors, values + n + 2 * base->samples,
                                        values + 2 * base->samples, &largest);
        out->terms = largest > 0.0 ? off / largest : 0.0;
        dpt_log(
            DPT_LOG_INFO,
            "%s on %s: on a few samples bf16 (%" PRId64
            " products so far) changes losses by at most %.2g nats, terms by %.2g of the largest",
            edit, base->name, dpt_model_bf16_products(ev->model), out->loss, out->terms);
    }
    dpt_mem_free(values);
    return st;
}

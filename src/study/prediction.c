#include "prediction.h"

#include "deltapath/base/file.h"
#include "deltapath/base/hash.h"
#include "deltapath/base/log.h"
#include "deltapath/base/mem.h"
#include "deltapath/comm/agree.h"
#include "deltapath/comm/same.h"
#include "deltapath/store/manifest.h"
#include "deltapath/store/owned.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* Below this loss the model is sure of its answers, and what an edit destroys does not show in the curvature: the
 * pairs at 0.0025 and 0.010 nats change 2 to 4 times as much as the law says at any s, the one at 0.12 does not. */
static const double PREDICTION_SATURATED = 0.05;
/* Of the predicted change, what the third order along the path may be: from there on a random edit, whose slope begins
 * at 0, has a slope at t = 0.8 of more than 1.5 times that of a quadratic. */
static const double PREDICTION_THIRD = 2.0 / 3.0;

static const int64_t PREDICTIONS_LIMIT = INT64_C(1) << 30;

/* Share of |Delta|^2 that E is of a tensor. */
static double prediction_share(const dpt_edit_report *report, int t) {
    double delta = report->stats[t].delta_norm, e = report->stats[t].edit_norm;
    return delta > 0.0 ? e * e / (delta * delta) : 0.0;
}

/* c_l q_l over the tensors, and its standard error draw by draw. */
static void prediction_of_norms(const dpt_law *law, const dpt_edit_report *report,
                                dpt_prediction *out) {
    double off = 0.0;
    out->second = 0.0;
    for (int t = 0; t < law->tensors; t++)
        out->second += law->mean[t] * prediction_share(report, t);
    for (int r = 0; r < law->repeats; r++) {
        double sum = 0.0;
        for (int t = 0; t < law->tensors; t++)
            sum += law->draws[(int64_t)r * law->tensors + t] * prediction_share(report, t);
        off += (sum - out->second) * (sum - out->second);
    }
    out->se = dpt_law_error(law, off);
    out->s = law->total > 0.0 ? out->second / law->total : 0.0;
}

/* More of the text on its range. */
__attribute__((format(printf, 2, 3))) static void prediction_add(dpt_prediction *out,
                                                                 const char *format, ...) {
    size_t n = strlen(out->range);
    va_list args;
    va_start(args, format);
    vsnprintf(out->range + n, sizeof out->range - n, format, args);
    va_end(args);
}

/* What comes before one more reason why the prediction may be wrong. */
static const char *prediction_doubt(const dpt_prediction *out) {
    return out->range[0] == '\0' ? "out of range: " : "; ";
}

void dpt_prediction_make(const dpt_law *law, const dpt_edit_spec *spec,
                         const dpt_edit_report *report, const double *start, double loss,
                         double rounding, dpt_prediction *out) {
    *out = (dpt_prediction){.first = NAN,
                            .second = NAN,
                            .change = NAN,
                            .se = NAN,
                            .s = NAN,
                            .accuracy = dpt_logits_unknown()};
    if (law->mean == NULL)
        return;
    dpt_law_prediction random;
    out->made = true;
    for (int t = 0; start != NULL && t < law->tensors; t++)
        out->first = t == 0 ? start[t] : out->first + start[t];
    prediction_of_norms(law, report, out);
    if (dpt_law_predict(law, spec, &random)) {
        out->second = out->change = random.change;
        out->se = random.se;
        out->s = random.s;
    } else {
        out->change = out->first + out->second;
    }
    if (isnan(random.s))
        prediction_add(out,
                       "%sno random edit of mean zero, and the diagonal leaves out products of "
                       "its entries",
                       prediction_doubt(out));
    if (out->s > DPT_LAW_RANGE)
        prediction_add(out, "%ss is %.3g, above %.3g", prediction_doubt(out), out->s,
                       DPT_LAW_RANGE);
    if (loss < PREDICTION_SATURATED)
        prediction_add(out, "%sthe loss, %.2g nats, is nearly zero (below %.2g)",
                       prediction_doubt(out), loss, PREDICTION_SATURATED);
    if (dpt_result_is_rounded(rounding))
        prediction_add(out, "%srounding %s %.0f %% of the edit", prediction_doubt(out),
                       rounding > 0.0 ? "takes back" : "adds", 100.0 * fabs(rounding));
    out->in_range = out->range[0] == '\0';
    if (out->in_range)
        prediction_add(out, "in range");
}

/* <gradient, E> at a node. */
static double prediction_slope(const dpt_riemann *path, int node) {
    double slope = 0.0;
    for (int64_t k = 0; k < path->terms; k++)
        slope += path->term[k * path->quadrature.points + node];
    return slope;
}

/* Of the first, the middle and the last node: the second divided difference of the slopes is c of a + b t + c t^2, and
 * the integral of the last c / 3. */
void dpt_prediction_see_path(const dpt_riemann *path, dpt_prediction *prediction) {
    int last = path->quadrature.points - 1, middle = (last + 1) / 2;
    if (!prediction->made || last < 2)
        return;
    const double *t = path->quadrature.node;
    double start = prediction_slope(path, 0), end = prediction_slope(path, last);
    double rise = (end - start) / (t[last] - t[0]);
    double early = (prediction_slope(path, middle) - start) / (t[middle] - t[0]);
    double third = (rise - early) / (t[last] - t[middle]) / 3.0;
    double share = third / fabs(prediction->change);
    if (fabs(share) > PREDICTION_THIRD)
        prediction_add(prediction,
                       "; found on the path: its third order is %.2g of the predicted change",
                       share);
}

double dpt_prediction_safe_rate(const dpt_law *law, double loss, double margin, double k) {
    if (law->mean == NULL || isnan(margin) || loss < PREDICTION_SATURATED)
        return NAN;
    double s = law->total > 0.0 ? fmin(margin / law->total, DPT_LAW_RANGE) : DPT_LAW_RANGE;
    return s / (s + (k - 1.0) * (k - 1.0));
}

/* "edit,data," of a line; commas of names are none of an edit's id. */
static bool prediction_is_of(const char *line, const char *edit, const char *data) {
    size_t time = strcspn(line, ",\n"), n = strlen(edit), m = strlen(data);
    const char *at = line + time;
    return *at == ',' && strncmp(at + 1, edit, n) == 0 && at[1 + n] == ',' &&
           strncmp(at + 2 + n, data, m) == 0 && at[2 + n + m] == ',';
}

/* The lines of the file but for the header and for that of an edit. Empty text without a file. */
static dpt_status prediction_read(const char *path, char **text) {
    struct stat info;
    int64_t n = 0;
    if (stat(path, &info) == 0)
        return dpt_file_read(path, PREDICTIONS_LIMIT, text, &n);
    *text = dpt_mem_strdup("", "predictions");
    return *text != NULL ? DPT_OK : DPT_ERR_OUTPUT;
}

static void prediction_number(FILE *file, double x) {
    if (isnan(x))
        fputc(',', file);
    else
        fprintf(file, ",%.17g", x);
}

/* The line without its hash, which is of it; sets `at`. */
static void prediction_print(FILE *file, const char *edit, const char *data, dpt_prediction *p) {
    char time_text[24], *line = NULL;
    size_t n = 0;
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    FILE *out = open_memstream(&line, &n);
    if (out == NULL)
        return;
    fprintf(out, "%s,%s,%s", time_text, edit, data);
    const double numbers[] = {p->first, p->second, p->change, p->se, p->s};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        prediction_number(out, numbers[i]);
    fprintf(out, ",%d", p->in_range);
    const dpt_logits_prediction *a = &p->accuracy;
    const double shares[] = {a->accuracy, a->sd, a->error};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        prediction_number(out, shares[i]);
    if (isnan(a->accuracy))
        fputc(',', out);
    else
        fprintf(out, ",%d", a->in_range);
    if (fclose(out) == 0) {
        uint64_t hash = dpt_hash_bytes(line, n);
        fprintf(file, "%s,%016" PRIx64 "\n", line, hash);
        snprintf(p->at, sizeof p->at, "%s %016" PRIx64, time_text, hash);
    }
    free(line);
}

/* All lines but those of the edit, and then its own. */
static dpt_status prediction_rewrite(const char *path, const char *old, const char *edit,
                                     const char *data, dpt_prediction *p) {
    char *text = NULL;
    size_t n = 0;
    FILE *file = open_memstream(&text, &n);
    if (file == NULL)
        return dpt_error(DPT_ERR_OUTPUT, "%s: no memory left to make it: " DPT_MEM_REMEDY, path);
    fputs(DPT_OWNED_PREDICTIONS_START
          ",second,change,se,s,in_range,"
          "accuracy,accuracy_sd,accuracy_error,accuracy_in_range,xxh3\n",
          file);
    for (const char *line = old; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        bool header = strncmp(line, "time,", 5) == 0;
        if (!header && !prediction_is_of(line, edit, data))
            fprintf(file, "%.*s\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
    prediction_print(file, edit, data, p);
    bool failed = ferror(file) != 0;
    failed = fclose(file) != 0 || failed || p->at[0] == '\0';
    const dpt_file_piece piece = {.bytes = text, .n = (int64_t)n};
    dpt_status st =
        failed ? dpt_error(DPT_ERR_OUTPUT, "%s: no memory left to make it: " DPT_MEM_REMEDY, path)
               : dpt_file_put(path, &piece, 1);
    free(text);
    return st == DPT_OK ? dpt_manifest_commit_file(path) : st;
}

static dpt_status prediction_write(const char *directory, const char *edit, const char *data,
                                   dpt_prediction *p) {
    char *path = dpt_mem_format("%s/" DPT_PREDICTIONS, directory), *old = NULL;
    dpt_status st =
        path != NULL ? dpt_owned_check(path, DPT_OWNED_PREDICTIONS, NULL) : DPT_ERR_OUTPUT;
    if (st == DPT_OK)
        st = prediction_read(path, &old);
    if (st == DPT_OK)
        st = prediction_rewrite(path, old, edit, data, p);
    dpt_mem_free(old);
    dpt_mem_free(path);
    return st;
}

/* Of a random edit whose logits are known. Collective. */
static dpt_status prediction_accuracy(dpt_prediction_task *task) {
    dpt_logits_edit edit;
    if (task->logits->probes == 0 || !dpt_logits_knows(task->spec, &edit))
        return DPT_OK;
    return dpt_logits_predict(task->comm, task->logits, &edit, &task->made.accuracy);
}

static void prediction_say(const dpt_prediction_task *task) {
    const dpt_prediction *p = &task->made;
    char text[64];
    if (p->made && !isnan(p->change))
        dpt_log(DPT_LOG_INFO, "%s on %s: predicted change %s [nats], %s", task->edit, task->data,
                dpt_law_number(p->change, p->se, text), p->range);
    if (!isnan(p->accuracy.accuracy))
        dpt_log(DPT_LOG_INFO, "%s on %s: predicted accuracy %.4g, spread over masks %.2g, %s",
                task->edit, task->data, p->accuracy.accuracy, p->accuracy.sd,
                p->accuracy.in_range ? "in range" : "out of range");
}

dpt_status dpt_prediction_run(dpt_prediction_task *task, const double *start) {
    DPT_ASSERT_SAME_TEXT(task->comm, task->edit);
    DPT_ASSERT_SAME_TEXT(task->comm, task->data);
    dpt_prediction_make(task->law, task->spec, task->report, start, task->loss, task->rounding,
                        &task->made);
    dpt_status st = dpt_agree(task->comm, dpt_agree_fault("study.prediction"));
    if (st == DPT_OK)
        st = prediction_accuracy(task);
    if (st == DPT_OK)
        prediction_say(task);
    if (st != DPT_OK || !task->made.made)
        return st;
    st = dpt_outputs_replace(task->comm, task->outputs);
    if (st != DPT_OK)
        return st;
    if (task->comm->rank == 0)
        st = prediction_write(task->outputs->job->directory, task->edit, task->data, &task->made);
    st = dpt_agree(task->comm, st);
    dpt_outputs_conclude(task->outputs, st);
    return st;
}

dpt_status dpt_prediction_list(const char *directory) {
    char *path = dpt_mem_format("%s/" DPT_PREDICTIONS, directory), *text = NULL;
    dpt_status st = path != NULL ? prediction_read(path, &text) : DPT_ERR_OUTPUT;
    if (st == DPT_OK && text[0] != '\0') {
        const dpt_file_piece piece = {.bytes = text, .n = (int64_t)strlen(text)};
        st = dpt_file_put(path, &piece, 1);
        if (st == DPT_OK)
            st = dpt_manifest_commit_file(path);
    }
    dpt_mem_free(text);
    dpt_mem_free(path);
    return st;
}

/* Whether a line ends with its own hash, and that and its time are `at`. */
static bool prediction_holds(const char *line, const char *at) {
    size_t n = strcspn(line, "\n"), time = strcspn(line, ",");
    char text[96];
    if (n < 17 || time > 24)
        return false;
    snprintf(text, sizeof text, "%.*s %016" PRIx64, (int)time, line, dpt_hash_bytes(line, n - 17));
    return strcmp(text, at) == 0 && strncmp(line + n - 16, strchr(text, ' ') + 1, 16) == 0;
}

/* The line of a unit. */
static bool prediction_is_kept(const char *text, const dpt_result *unit) {
    for (const char *line = text; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        if (prediction_is_of(line, unit->edit, unit->data) &&
            prediction_holds(line, unit->predicted_at))
            return true;
        line += length + (line[length] == '\n');
    }
    return false;
}

dpt_status dpt_prediction_check(const char *directory, const dpt_result *units, int64_t count) {
    char *path = dpt_mem_format("%s/" DPT_PREDICTIONS, directory), *text = NULL;
    dpt_status st = path != NULL ? prediction_read(path, &text) : DPT_ERR_OUTPUT;
    for (int64_t i = 0; i < count && st == DPT_OK; i++)
        if (units[i].predicted_at != NULL && units[i].predicted_at[0] != '\0' &&
            !prediction_is_kept(text, &units[i]))
            st = dpt_error(DPT_ERR_OUTPUT,
                           "%s: what was predicted of %s on %s before it was measured is gone or "
                           "was changed: remove the unit of this edit and give --resume",
                           path, units[i].edit, units[i].data);
    dpt_mem_free(text);
    dpt_mem_free(path);
    return st;
}

static void prediction_record_accuracy(const dpt_logits_prediction *p, dpt_result_scalars *s) {
    s->predicted_accuracy = p->accuracy;
    s->predicted_accuracy_sd = p->sd;
    s->predicted_accuracy_change = p->change;
    s->predicted_accuracy_low = p->low;
    s->predicted_accuracy_high = p->high;
    s->predicted_accuracy_error = p->error;
    s->predicted_accuracy_in_range = isnan(p->accuracy) ? NAN : p->in_range;
}

dpt_status dpt_prediction_record(const dpt_prediction *prediction, dpt_result *out) {
    dpt_result_scalars *s = &out->scalars;
    if (!prediction->made)
        return DPT_OK;
    s->predicted_first = prediction->first;
    s->predicted_second = prediction->second;
    s->predicted_change = prediction->change;
    s->predicted_se = prediction->se;
    s->predicted_s = prediction->s;
    s->predicted_in_range = prediction->in_range;
    prediction_record_accuracy(&prediction->accuracy, s);
    dpt_status st = dpt_result_set_string(&out->predicted_at, "%s", prediction->at);
    return st == DPT_OK ? dpt_result_set_string(&out->predicted_range, "%s", prediction->range)
                        : st;
}

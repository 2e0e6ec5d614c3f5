#include "deltapath/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const double TERMINAL_INTERVAL = 0.2; /* [s] */
static const double PLAIN_INTERVAL = 10.0;   /* [s] */

static int log_rank;
static dpt_log_level log_level = DPT_LOG_INFO;

void dpt_log_configure(int rank, dpt_log_level level) {
    log_rank = rank;
    log_level = level;
}

static bool log_is_on(dpt_log_level level) {
    return level <= log_level && (log_rank == 0 || log_level == DPT_LOG_DEBUG);
}

void dpt_log(dpt_log_level level, const char *format, ...) {
    if (!log_is_on(level))
        return;
    char line[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (log_rank == 0)
        fprintf(stderr, "deltapath: %s%s\n", level == DPT_LOG_WARN ? "warning: " : "", line);
    else
        fprintf(stderr, "deltapath: [rank %d] %s\n", log_rank, line);
}

double dpt_log_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void format_amount(char *text, size_t size, double amount, const char *unit) {
    bool bytes = strcmp(unit, "B") == 0;
    if (amount >= 1e9)
        snprintf(text, size, "%.2f G%s%s", amount / 1e9, bytes ? "" : " ", unit);
    else if (amount >= 1e6)
        snprintf(text, size, "%.1f M%s%s", amount / 1e6, bytes ? "" : " ", unit);
    else
        snprintf(text, size, "%.0f %s", amount, unit);
}

static void progress_show(dpt_progress *progress, bool last) {
    bool terminal = isatty(STDERR_FILENO);
    double now = dpt_log_seconds();
    double interval = terminal ? TERMINAL_INTERVAL : PLAIN_INTERVAL;
    if (!last && now - progress->shown < interval)
        return;
    progress->shown = now;
    double elapsed = now - progress->started;
    double rate = elapsed > 0 ? (double)progress->done / elapsed : 0;
    double left = rate > 0 ? (double)(progress->total - progress->done) / rate : 0;
    char total[64], speed[64];
    double percent =
        progress->total > 0 ? 100.0 * (double)progress->done / (double)progress->total : 100.0;
    format_amount(total, sizeof total, (double)progress->total, progress->unit);
    format_amount(speed, sizeof speed, rate, progress->unit);
    fprintf(stderr, "%sdeltapath: %s: %.0f %% of %s, %s/s, %.0f s %s%s", terminal ? "\r\033[K" : "",
            progress->what, percent, total, speed, last ? elapsed : left, last ? "in all" : "left",
            terminal && !last ? "" : "\n");
    fflush(stderr);
}

void dpt_progress_begin(dpt_progress *progress, const char *what, const char *unit, int64_t total) {
    double now = dpt_log_seconds();
    *progress = (dpt_progress){.what = what,
                               .unit = unit,
                               .total = total,
                               .started = now,
                               .shown = now,
                               .active = log_rank == 0 && log_level >= DPT_LOG_INFO};
}

void dpt_progress_add(dpt_progress *progress, int64_t amount) {
    progress->done += amount;
    if (progress->active)
        progress_show(progress, false);
}

void dpt_progress_end(dpt_progress *progress) {
    /* Short work on a pipe needs no line at all. */
    bool worth = isatty(STDERR_FILENO) || dpt_log_seconds() - progress->started > PLAIN_INTERVAL;
    if (progress->active && worth)
        progress_show(progress, true);
    progress->active = false;
}

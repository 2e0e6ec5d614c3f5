#ifndef DELTAPATH_BASE_LOG_H
#define DELTAPATH_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

typedef enum dpt_log_level {
    DPT_LOG_QUIET,
    DPT_LOG_WARN,
    DPT_LOG_INFO,
    DPT_LOG_DEBUG
} dpt_log_level;

/** Choose what this process prints to stderr. Local. Rank 0 prints; other ranks only at debug.
 * @param[in] rank  rank in the world; @param[in] level least important level to print. */
void dpt_log_configure(int rank, dpt_log_level level);

/** One line on stderr, `deltapath: ` before it, when the level is on and this rank prints. Local. */
void dpt_log(dpt_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Seconds of a monotonic clock. Local. */
double dpt_log_seconds(void);

/** A long piece of work: prints done/total, rate and remaining time. On a terminal one line is
 * redrawn at most five times a second; elsewhere a plain line every ten seconds. */
typedef struct dpt_progress {
    const char *what; /**< borrowed */
    const char *unit; /**< e.g. "B", "elements", "samples"; "B" is shown as MB or GB */
    int64_t total;
    int64_t done;
    double started;
    double shown;
    bool active;
} dpt_progress;

/** Local; silent on ranks that do not speak. */
void dpt_progress_begin(dpt_progress *progress, const char *what, const char *unit, int64_t total);
void dpt_progress_add(dpt_progress *progress, int64_t amount);
void dpt_progress_end(dpt_progress *progress);

#endif

#ifndef DELTAPATH_COMM_STOP_H
#define DELTAPATH_COMM_STOP_H

#include "deltapath/comm/comm.h"

#include <stdbool.h>

/* A stop that one rank was asked for, by a signal or because its time is over, reaches all ranks as a
 * message that each looks for between two pieces of work. State of the process, as that of a signal. */

/** Begin to pass on stops between the ranks of comm, and to watch the time.
 *
 * Collective over comm (same: seconds).
 * @param[in] started dpt_log_seconds() when this process began.
 * @param[in] seconds time after which the ranks stop, counted from the start of the rank that began
 *                    first; 0: no limit.
 * Errors: DPT_ERR_INTERNAL from MPI, DPT_ERR_OUTPUT without memory; agreed. */
dpt_status dpt_stop_create(const dpt_comm *comm, double started, double seconds);

/** Receive the messages that are still on their way, and forget all but the signal. Collective over
 * the comm of dpt_stop_create; nothing without it. */
void dpt_stop_destroy(void);

/** Whether this rank was asked to stop: by a signal, by the time limit, or by another rank's message. The
 * first time that a rank finds a reason of its own it tells all others. Cheap, to be called after each
 * piece of work. Local; from threads other than the first only what this rank knows already counts. */
bool dpt_stop_asked(void);

/** DPT_INTERRUPTED with its message when dpt_stop_asked, else DPT_OK. Local: to be agreed as an error
 * is. */
dpt_status dpt_stop_check(void);

/** The same for a stop that the ranks of a group have agreed on, whoever was asked. Local. */
dpt_status dpt_stop_error(void);

/** Something that a later run need not do again is done: only from then on does the time limit count,
 * so that a study whose limit is shorter than its preparations still ends after enough runs. Local. */
void dpt_stop_count_work(void);

/** "90" or "1.5" (seconds), "MM:SS", "H:MM:SS", "D-HH", "D-HH:MM", "D-HH:MM:SS" to seconds. Local.
 * Errors: DPT_ERR_USAGE naming the option when it is none of these, or 0. */
dpt_status dpt_stop_parse_time(const char *text, const char *option, double *seconds);

#endif

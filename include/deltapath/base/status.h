#ifndef DELTAPATH_BASE_STATUS_H
#define DELTAPATH_BASE_STATUS_H

/* An attribute of the type, so that every function that returns it is covered without a word in its
 * declaration. gcc knows that as C23's alone, from version 11 on and in any -std; older ones do not check. */
#if defined(__clang__)
#define DPT_STATUS_CHECKED __attribute__((warn_unused_result))
#elif defined(__GNUC__) && __GNUC__ >= 11
#define DPT_STATUS_CHECKED [[nodiscard]]
#else
#define DPT_STATUS_CHECKED
#endif

/** Result of every function that can fail. A value is also the exit code of the program. A result that
 * is not looked at is an error of the compiler; `(void)` before the call says that it is meant, and a
 * comment next to it why; dpt_error and dpt_comm_check need none. */
typedef enum DPT_STATUS_CHECKED dpt_status {
    DPT_OK = 0,
    DPT_ERR_USAGE = 2,    /**< command line or job file is wrong */
    DPT_ERR_INPUT = 3,    /**< a model or data file is wrong */
    DPT_ERR_OUTPUT = 4,   /**< output cannot be written, or memory or disk is short */
    DPT_ERR_INTERNAL = 5, /**< a broken invariant of the program */
    DPT_INTERRUPTED = 75  /**< stopped by a signal with all work saved; resume it */
} dpt_status;

enum { DPT_MESSAGE_MAX = 1024 }; /**< longest error message [bytes], terminator included */

/** Record the first error of this process and return `code`, so that callers write
 * `return dpt_error(DPT_ERR_INPUT, "%s: header is cut off at byte %ld: copy the file again", ...)`.
 *
 * Local, thread-safe. Later errors do not replace the first until dpt_error_clear.
 * The message is one line without a final newline; control characters become '?'.
 * @return code.
 */
dpt_status dpt_error(dpt_status code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Message of the first recorded error, or "" if there is none. Local. */
const char *dpt_error_message(void);

/** Replace the record, as the agreement of ranks does with the message of the failing one. Local. */
void dpt_error_set_message(const char *message);

/** Put a place, such as a path, before the recorded message, unless the message names it already or
 * there is none. Local. @return status; nothing is done for DPT_OK. */
dpt_status dpt_error_locate(dpt_status status, const char *place);

/** Forget the recorded error. Local. */
void dpt_error_clear(void);

/** The worse of two statuses: an internal error before output, input, usage, interruption, ok. */
dpt_status dpt_status_worse(dpt_status a, dpt_status b);

/** Place of a status in that order, 0 for ok, and the status of a place; an unknown status counts as
 * an internal error. Local. */
int dpt_status_severity(dpt_status status);
dpt_status dpt_status_of_severity(int severity);

#endif

#ifndef DELTAPATH_BASE_ASSERT_H
#define DELTAPATH_BASE_ASSERT_H

/* Checks of what the code relies on: on in builds with -DDPT_DEBUG (BUILD=debug, asan and fuzz). In
 * others the condition is compiled, so that it cannot rot, and then left out. What a user or a file
 * may get wrong is no case for them: that is an error with a status. */

/** Whether checks are on in this build. */
#ifdef DPT_DEBUG
enum { DPT_CHECKS = 1 };
#else
enum { DPT_CHECKS = 0 };
#endif

/* * An invariant of the program. When it does not hold, one line names the place, the condition and
 * the rank, and all ranks end. Local, thread-safe. @param[in] condition without side effects. */
#define DPT_ASSERT(condition)                                                                      \
    do {                                                                                           \
        if (DPT_CHECKS && !(condition))                                                            \
            dpt_assert_failed(__FILE__, __LINE__, __func__, #condition " does not hold");          \
    } while (0)

/** What the macros call: print the line and end all ranks. Local. */
_Noreturn void dpt_assert_failed(const char *file, int line, const char *function,
                                 const char *what);

/** The rank for the line, and what ends all ranks; without it, as in a child process, this one alone
 * aborts. Local; dpt_agree_set_world calls it. */
void dpt_assert_set_world(int rank, void (*end_all)(void));

#endif

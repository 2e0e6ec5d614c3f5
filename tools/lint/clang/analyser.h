/* Included in front of every source by `make tidy`. The analyser sees one file at a time and cannot know
 * what functions of other files promise: that no rank leaves an agreement better than it came, and that
 * an error is not turned into success. */
#include "deltapath/comm/agree.h"

static inline dpt_status tidy_no_better(dpt_status came, dpt_status left) {
    if (came != DPT_OK && left == DPT_OK)
        __builtin_unreachable();
    return left;
}

#define dpt_agree(comm, local)                                                                     \
    ({                                                                                             \
        dpt_status tidy_local = (local);                                                           \
        tidy_no_better(tidy_local, (dpt_agree)(comm, tidy_local));                                 \
    })
#define dpt_error(code, ...)                                                                       \
    ({                                                                                             \
        (void)(dpt_error)(code, __VA_ARGS__);                                                      \
        (dpt_status)(code);                                                                        \
    })
#define dpt_error_locate(status, place)                                                            \
    ({                                                                                             \
        dpt_status tidy_status = (status);                                                         \
        tidy_no_better(tidy_status, (dpt_error_locate)(tidy_status, place));                       \
    })
#define dpt_status_worse(a, b)                                                                     \
    ({                                                                                             \
        dpt_status tidy_a = (a), tidy_b = (b);                                                     \
        dpt_status tidy_worse = (dpt_status_worse)(tidy_a, tidy_b);                                \
        tidy_no_better(tidy_a, tidy_no_better(tidy_b, tidy_worse));                                \
    })

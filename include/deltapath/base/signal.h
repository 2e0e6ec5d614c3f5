#ifndef DELTAPATH_BASE_SIGNAL_H
#define DELTAPATH_BASE_SIGNAL_H

#include <stdbool.h>

/** Hold SIGTERM, SIGINT and SIGUSR1 back until dpt_signal_install, also when the program starts itself
 * anew in between. Local. */
void dpt_signal_hold(void);

/** Let SIGTERM, SIGINT and SIGUSR1 ask for a stop instead of ending the process. A second SIGINT
 * ends it. Local. */
void dpt_signal_install(void);

/** Whether a stop was asked for in this process. Local. */
bool dpt_signal_stop(void);

#endif

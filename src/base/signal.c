#include "deltapath/base/signal.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t stop;

static void ask_for_stop(int number) {
    if (number == SIGINT && stop) {
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    stop = 1;
}

void dpt_signal_install(void) {
    struct sigaction action = {.sa_handler = ask_for_stop, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

bool dpt_signal_stop(void) {
    return stop != 0;
}

#include "deltapath/base/signal.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

/* The system runs the handler on any thread. */
static atomic_int stop;

static const int stop_signals[] = {SIGTERM, SIGINT, SIGUSR1};
enum { STOP_SIGNALS = sizeof stop_signals / sizeof *stop_signals };

static void ask_for_stop(int number) {
    if (number == SIGINT && stop) {
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    stop = 1;
}

static void signal_mask(int how) {
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < STOP_SIGNALS; i++)
        sigaddset(&set, stop_signals[i]);
    sigprocmask(how, &set, NULL);
}

void dpt_signal_hold(void) {
    signal_mask(SIG_BLOCK);
}

void dpt_signal_install(void) {
    struct sigaction action = {.sa_handler = ask_for_stop, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < STOP_SIGNALS; i++)
        sigaction(stop_signals[i], &action, NULL);
    signal_mask(SIG_UNBLOCK);
}

bool dpt_signal_stop(void) {
    return stop != 0;
}

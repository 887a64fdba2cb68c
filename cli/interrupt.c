#include "cli/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

static int interrupts;

static sigset_t ending_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    return set;
}

void assay_interrupt_prepare(void)
{
    sigset_t set = ending_signals();
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

bool assay_interrupt_wait(int wait_ms)
{
    sigset_t set = ending_signals();
    struct timespec timeout = {.tv_sec = wait_ms / 1000, .tv_nsec = (wait_ms % 1000) * 1000000L};
    if (interrupts == 0 && sigtimedwait(&set, NULL, &timeout) > 0)
        interrupts++;
    return interrupts > 0;
}

bool assay_interrupt_again(void)
{
    sigset_t set = ending_signals();
    static const struct timespec at_once = {0};
    if (interrupts == 1 && sigtimedwait(&set, NULL, &at_once) > 0)
        interrupts++;
    return interrupts > 1;
}

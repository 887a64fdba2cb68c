#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "common/wire/member.h"

static sigset_t shutdown_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

void assay_shutdown_prepare(void)
{
    sigset_t set = shutdown_signals();
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int assay_shutdown_wait(void)
{
    sigset_t set = shutdown_signals();
    int number;
    while (sigwait(&set, &number) != 0)
        continue;
    return number;
}

void assay_shutdown_request(void)
{
    kill(getpid(), SIGTERM);
}

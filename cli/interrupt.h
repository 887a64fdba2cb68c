/* Ctrl-C and SIGTERM as something to poll, so that a command can end its work in order. */
#pragma once

#include <stdbool.h>

/* First thing in a command, before any thread starts: blocks SIGINT, SIGTERM and SIGHUP, ignores SIGPIPE. */
void assay_interrupt_prepare(void);

/* True once one of the signals has arrived; waits up to wait_ms for it. Stays true. One thread. */
bool assay_interrupt_wait(int wait_ms);
/* True once another signal has arrived after the first; does not wait. One thread. */
bool assay_interrupt_again(void);

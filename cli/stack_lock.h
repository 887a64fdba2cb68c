/* DATA/run/up.pid: who runs the stack of a data directory. The file is locked as long as its writer lives, so a file
 * left behind by a dead one says nothing. */
#pragma once

#include <sys/types.h>

#include "common/base/fs.h"

#define ASSAY_STACK_PID_FILE "run/up.pid"

struct assay_stack_holder {
    bool running;
    pid_t pid;                     /* 0 while it is just starting */
    char endpoint[ASSAY_PATH_MAX]; /* of its coordinator; "" while it is just starting */
};

/* Takes the lock and writes this process and the endpoint. *ret_fd keeps it. UNAVAILABLE, with the pid, when another
 * process has it. DATA/run exists. */
enum assay_status assay_stack_lock_take(const char *data_dir, const char *endpoint, int *ret_fd,
                                        struct assay_err *err) ASSAY_MUST_USE;
void assay_stack_lock_drop(int fd); /* -1 is fine */

/* Who holds it; a directory or file that is not there is one that nobody holds. */
enum assay_status assay_stack_lock_look(const char *data_dir, struct assay_stack_holder *ret,
                                        struct assay_err *err) ASSAY_MUST_USE;

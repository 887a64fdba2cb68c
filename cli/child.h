/* One supervised process: started with its own log, ended when the thread that started it ends. */
#pragma once

#include <sched.h>
#include <sys/types.h>

#include "common/base/fs.h"

#define ASSAY_CHILD_ARGS_MAX 24
#define ASSAY_CHILD_NAME_MAX 48

struct assay_child {
    char name[ASSAY_CHILD_NAME_MAX]; /* of its log: "inference-int8" */
    char log_path[ASSAY_PATH_MAX];
    char *args[ASSAY_CHILD_ARGS_MAX + 1]; /* args[0] = path of the program; owned; ends with NULL */
    size_t args_count;
    bool pinned; /* runs on `cpus` only */
    cpu_set_t cpus;
    bool detached;   /* outlives us: a session of its own, no signal when the starting thread ends */
    pid_t pid;       /* 0 when it does not run */
    off_t log_start; /* size of the log when it was started */
};

/* `child` is zeroed. Its log is log_dir/name.log. */
enum assay_status assay_child_init(struct assay_child *child, const char *name, const char *log_dir,
                                   const char *program, struct assay_err *err) ASSAY_MUST_USE;
/* Adds arguments, up to a NULL. */
enum assay_status assay_child_arguments(struct assay_child *child, const char *const *texts,
                                        struct assay_err *err) ASSAY_MUST_USE;
void assay_child_release(struct assay_child *child); /* it does not run any more */

/* Starts it: stdin from /dev/null, stdout and stderr appended to the log, a process group of its own (Ctrl-C goes to
 * the supervisor alone), no blocked signals. It gets SIGTERM when the calling thread ends, so that thread outlives it.
 * Variables that set what the supervisor decides (ASSAY_DATA, ASSAY_LISTEN ...) are not handed on. */
enum assay_status assay_child_start(struct assay_child *child, struct assay_err *err) ASSAY_MUST_USE;

/* True when it has ended; *ret_wait_status is as waitpid tells. It does not run then. */
bool assay_child_ended(struct assay_child *child, int *ret_wait_status);

void assay_child_signal(const struct assay_child *child, int number); /* nothing when it does not run */

/* The last line that it wrote since it was started, as a sentence: "NAME ended with exit code 6: LINE". */
enum assay_status assay_child_sentence(const struct assay_child *child, int wait_status, struct assay_err *err);

#include "cli/python.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/interrupt.h"

#define PROGRAM "python3"
#define ARGUMENTS_MAX 24
#define POLL_MS 50

extern char **environ;

/* Signals as a program expects them: none blocked, SIGPIPE ends. 0 or an errno. */
static int set_signals(posix_spawnattr_t *attributes)
{
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    int failed = posix_spawnattr_setsigmask(attributes, &none);
    if (!failed)
        failed = posix_spawnattr_setsigdefault(attributes, &defaults);
    return failed ? failed : posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

static int set_files(posix_spawn_file_actions_t *actions, bool quiet)
{
    int failed = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (failed)
        return failed;
    return quiet ? posix_spawn_file_actions_addopen(actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
                 : posix_spawn_file_actions_adddup2(actions, STDERR_FILENO, STDOUT_FILENO);
}

static enum assay_status start(char *const *argv, bool quiet, pid_t *ret, struct assay_err *err)
{
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    int failed = posix_spawnattr_init(&attributes);
    if (failed)
        return assay_err_errno(err, failed, "cannot run " PROGRAM);
    failed = posix_spawn_file_actions_init(&actions);
    if (!failed) {
        failed = set_signals(&attributes);
        if (!failed)
            failed = set_files(&actions, quiet);
        if (!failed)
            failed = posix_spawnp(ret, PROGRAM, &actions, &attributes, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    posix_spawnattr_destroy(&attributes);
    if (failed == ENOENT)
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "there is no " PROGRAM " in PATH: its pip downloads");
    return failed ? assay_err_errno(err, failed, "cannot run " PROGRAM) : ASSAY_OK;
}

/* True when it has ended by itself. */
static bool wait_for(pid_t pid, int *ret_wait_status)
{
    bool told = false;
    for (;;) {
        pid_t ended = waitpid(pid, ret_wait_status, told ? 0 : WNOHANG);
        if (ended == pid)
            return !told;
        if (ended < 0 && errno != EINTR)
            return false;
        if (!told && assay_interrupt_wait(POLL_MS)) {
            kill(pid, SIGTERM);
            told = true;
        }
    }
}

enum assay_status assay_python_run(const char *const *arguments, bool quiet, struct assay_err *err)
{
    const char *argv[ARGUMENTS_MAX + 2] = {PROGRAM};
    size_t count = 0;
    for (; arguments[count]; count++) {
        if (count == ARGUMENTS_MAX)
            ASSAY_BUG("too many arguments of python3");
        argv[count + 1] = arguments[count];
    }
    pid_t pid = 0;
    int wait_status = 0;
    enum assay_status status = start((char *const *)argv, quiet, &pid, err);
    if (status != ASSAY_OK)
        return status;
    if (!wait_for(pid, &wait_status))
        return assay_err_set(err, ASSAY_CANCELLED, "stopped");
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0)
        return ASSAY_OK;
    const char *module = count > 1 ? arguments[1] : "";
    if (WIFEXITED(wait_status))
        return assay_err_set(err, ASSAY_UNAVAILABLE, PROGRAM " -m %s ended with exit code %d; it says why above",
                             module, WEXITSTATUS(wait_status));
    return assay_err_set(err, ASSAY_UNAVAILABLE, PROGRAM " -m %s was ended by signal %d", module,
                         WTERMSIG(wait_status));
}

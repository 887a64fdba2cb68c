#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/stack_plan.h"
#include "common/base/exit_code.h"

/* Of a log, to find its last line. */
#define LOG_TAIL_BYTES 4096
#define EXEC_FAILED 127

extern char **environ;

static enum assay_status append_arg(struct assay_child *child, const char *text, struct assay_err *err)
{
    if (child->args_count == ASSAY_CHILD_ARGS_MAX)
        ASSAY_BUG("too many arguments of a child process");
    char *copy = strdup(text);
    if (!copy)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    child->args[child->args_count++] = copy;
    return ASSAY_OK;
}

enum assay_status assay_child_init(struct assay_child *child, const char *name, const char *log_dir,
                                   const char *program, struct assay_err *err)
{
    char file[ASSAY_CHILD_NAME_MAX + 8];
    snprintf(child->name, sizeof child->name, "%s", name);
    snprintf(file, sizeof file, "%s.log", child->name);
    enum assay_status status = assay_path_join(child->log_path, log_dir, file, err);
    return status == ASSAY_OK ? append_arg(child, program, err) : status;
}

enum assay_status assay_child_arguments(struct assay_child *child, const char *const *texts, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (; *texts && status == ASSAY_OK; texts++)
        status = append_arg(child, *texts, err);
    return status;
}

void assay_child_release(struct assay_child *child)
{
    for (size_t i = 0; i < child->args_count; i++)
        free(child->args[i]);
    *child = (struct assay_child){0};
}

static bool decided_by_supervisor(const char *variable)
{
    static const char *const names[] = {
        "ASSAY_DATA=",      "ASSAY_LISTEN=", "ASSAY_CPUS=",   "ASSAY_WORKERS=", "ASSAY_COORDINATOR=",
        "ASSAY_PRECISION=", "ASSAY_HTTP=",   "ASSAY_HEALTH=", "ASSAY_ENDPOINT="};
    for (size_t i = 0; i < ASSAY_COUNT(names); i++)
        if (strncmp(variable, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* The strings stay the environment's own. */
static char **child_environment(void)
{
    size_t count = 0, kept = 0;
    while (environ[count])
        count++;
    char **ret = calloc(count + 1, sizeof *ret);
    for (size_t i = 0; ret && i < count; i++)
        if (!decided_by_supervisor(environ[i]))
            ret[kept++] = environ[i];
    return ret;
}

/* Between fork and exec: system calls only. */
_Noreturn static void become(const struct assay_child *child, char **environment, int null_fd, int log_fd, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (child->detached)
        setsid();
    else if (setpgid(0, 0) != 0 || prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent)
        _exit(EXEC_FAILED);
    if (child->pinned && sched_setaffinity(0, sizeof child->cpus, &child->cpus) != 0) {
        static const char no_cpus[] = "cannot run on the CPUs of --cpus or --workers: this machine lacks them\n";
        ssize_t ignored = write(log_fd, no_cpus, sizeof no_cpus - 1);
        (void)ignored;
        _exit(ASSAY_EXIT_USAGE);
    }
    if (dup2(null_fd, STDIN_FILENO) >= 0 && dup2(log_fd, STDOUT_FILENO) >= 0 && dup2(log_fd, STDERR_FILENO) >= 0)
        execve(child->args[0], child->args, environment);
    static const char sentence[] = "cannot run the program: is it installed beside assay?\n";
    ssize_t ignored = write(log_fd, sentence, sizeof sentence - 1);
    (void)ignored;
    _exit(EXEC_FAILED);
}

enum assay_status assay_child_start(struct assay_child *child, struct assay_err *err)
{
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int log_fd = open(child->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char **environment = child_environment();
    enum assay_status status = ASSAY_OK;
    struct stat st;
    if (null_fd < 0 || log_fd < 0 || fstat(log_fd, &st) != 0) {
        status = assay_err_errno(err, errno, "cannot open %s", child->log_path);
    } else if (!environment) {
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    } else {
        child->log_start = st.st_size;
        pid_t parent = getpid(), pid = fork();
        if (pid == 0)
            become(child, environment, null_fd, log_fd, parent);
        if (pid < 0)
            status = assay_err_errno(err, errno, "cannot start %s", child->args[0]);
        else
            child->pid = pid;
    }
    free(environment);
    if (null_fd >= 0)
        close(null_fd);
    if (log_fd >= 0)
        close(log_fd);
    return status;
}

bool assay_child_ended(struct assay_child *child, int *ret_wait_status)
{
    if (child->pid == 0 || waitpid(child->pid, ret_wait_status, WNOHANG) != child->pid)
        return false;
    child->pid = 0;
    return true;
}

void assay_child_signal(const struct assay_child *child, int number)
{
    if (child->pid > 0)
        kill(child->pid, number);
}

/* What it wrote last, into tail; its length. */
static size_t read_tail(const struct assay_child *child, char tail[LOG_TAIL_BYTES])
{
    int fd = open(child->log_path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    ssize_t len = 0;
    if (fd >= 0 && fstat(fd, &st) == 0) {
        off_t from = ASSAY_MAX(child->log_start, st.st_size - LOG_TAIL_BYTES);
        len = pread(fd, tail, LOG_TAIL_BYTES, from);
    }
    if (fd >= 0)
        close(fd);
    return len > 0 ? (size_t)len : 0;
}

enum assay_status assay_child_sentence(const struct assay_child *child, int wait_status, struct assay_err *err)
{
    char tail[LOG_TAIL_BYTES], sentence[384];
    assay_log_last_sentence(tail, read_tail(child, tail), sentence, sizeof sentence);
    enum assay_status status = assay_status_of_wait(wait_status);
    const char *said = sentence[0] ? sentence : "it said nothing";
    if (!WIFSIGNALED(wait_status))
        return assay_err_set(err, status, "%s ended with exit code %d: %s", child->name, WEXITSTATUS(wait_status),
                             said);
    const char *name = sigabbrev_np(WTERMSIG(wait_status));
    return assay_err_set(err, status, "%s was ended by signal %s; its last line: %s", child->name, name ? name : "?",
                         said);
}

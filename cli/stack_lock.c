#include "cli/stack_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct flock whole_file(void)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

/* "PID\nENDPOINT\n"; nothing is set when the file does not hold that (yet). */
static void parse_holder(char *text, struct assay_stack_holder *holder)
{
    char *newline = strchr(text, '\n');
    long pid = 0;
    char end;
    if (!newline)
        return;
    *newline = '\0';
    if (sscanf(text, "%ld%c", &pid, &end) != 1 || pid <= 0)
        return;
    char *endpoint = newline + 1;
    char *last = strchr(endpoint, '\n');
    if (!last)
        return;
    *last = '\0';
    holder->pid = (pid_t)pid;
    snprintf(holder->endpoint, sizeof holder->endpoint, "%s", endpoint);
}

enum assay_status assay_stack_lock_look(const char *data_dir, struct assay_stack_holder *ret, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX], text[ASSAY_PATH_MAX + 32];
    struct assay_stack_holder holder = {0};
    enum assay_status status = assay_path_join(path, data_dir, ASSAY_STACK_PID_FILE, err);
    if (status != ASSAY_OK)
        return status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT && errno != ENOTDIR)
        return assay_err_errno(err, errno, "cannot open %s", path);
    if (fd >= 0) {
        struct flock lock = whole_file();
        lock.l_type = F_RDLCK;
        ssize_t len = pread(fd, text, sizeof text - 1, 0);
        holder.running = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
        text[len > 0 ? len : 0] = '\0';
        if (holder.running)
            parse_holder(text, &holder);
        close(fd);
    }
    *ret = holder;
    return ASSAY_OK;
}

enum assay_status assay_stack_lock_take(const char *data_dir, const char *endpoint, int *ret_fd, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, data_dir, ASSAY_STACK_PID_FILE, err);
    if (status != ASSAY_OK)
        return status;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return assay_err_errno(err, errno, "cannot open %s", path);
    struct flock lock = whole_file();
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        struct assay_stack_holder holder = {0};
        close(fd);
        status = assay_stack_lock_look(data_dir, &holder, err);
        if (status != ASSAY_OK)
            return status;
        return assay_err_set(err, ASSAY_UNAVAILABLE,
                             "a stack runs on %s already (process %ld); 'assay down --data %s' stops it", data_dir,
                             (long)holder.pid, data_dir);
    }
    if (ftruncate(fd, 0) != 0 || dprintf(fd, "%ld\n%s\n", (long)getpid(), endpoint) < 0) {
        int errnum = errno;
        close(fd);
        return assay_err_errno(err, errnum, "cannot write %s", path);
    }
    *ret_fd = fd;
    return ASSAY_OK;
}

void assay_stack_lock_drop(int fd)
{
    if (fd < 0)
        return;
    int ignored = ftruncate(fd, 0);
    (void)ignored;
    close(fd);
}

#include "common/obs/process.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/version.h"

static const struct assay_metric_row rows[] = {
    {.name = "process_cpu_seconds_total",
     .help = "CPU time of all threads, user and system.",
     .type = ASSAY_METRIC_COUNTER,
     .scale = 1e-3},
    {.name = "process_resident_memory_bytes", .help = "Resident memory.", .type = ASSAY_METRIC_GAUGE},
    {.name = "process_virtual_memory_bytes", .help = "Virtual memory.", .type = ASSAY_METRIC_GAUGE},
    {.name = "process_open_fds", .help = "Open file descriptors.", .type = ASSAY_METRIC_GAUGE},
    {.name = "process_max_fds", .help = "The most file descriptors that may be open.", .type = ASSAY_METRIC_GAUGE},
    {.name = "process_threads", .help = "Threads.", .type = ASSAY_METRIC_GAUGE},
    {.name = "process_start_time_seconds",
     .help = "When the process started, in seconds since 1970.",
     .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_build_info",
     .help = "1; the labels say which service this is, of which version, and which precision it runs.",
     .type = ASSAY_METRIC_GAUGE,
     .labels = {"service", "version", "precision"}},
};
enum { CPU, RESIDENT, VIRTUAL, OPEN_FDS, MAX_FDS, THREADS, STARTED, BUILD, ROWS };
_Static_assert(ROWS == ASSAY_COUNT(rows), "one row each");

struct process {
    struct assay_series *series[BUILD];
};

static size_t open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;
    if (!dir)
        return 0;
    for (const struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count > 0 ? count - 1 : 0; /* the one of this look */
}

static bool read_statm(unsigned long long *ret_size, unsigned long long *ret_resident)
{
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return false;
    bool read = fscanf(file, "%llu %llu", ret_size, ret_resident) == 2;
    fclose(file);
    return read;
}

/* Fields 20 (threads) and 22 (start, in ticks since the boot) of stat; the name in field 2 may hold anything. */
static bool read_stat(long *ret_threads, unsigned long long *ret_start_ticks)
{
    char text[1024];
    FILE *file = fopen("/proc/self/stat", "re");
    if (!file)
        return false;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    const char *behind = strrchr(text, ')');
    return behind &&
           sscanf(behind + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %llu",
                  ret_threads, ret_start_ticks) == 2;
}

uint64_t assay_process_rss_bytes(void)
{
    unsigned long long size, resident;
    return read_statm(&size, &resident) ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static void collect(void *arg)
{
    struct process *process = arg;
    unsigned long long size, resident, start_ticks;
    long threads;
    struct rlimit limit;
    double page = (double)sysconf(_SC_PAGESIZE);
    assay_counter_set(process->series[CPU], (uint64_t)assay_cpu_ms());
    if (read_statm(&size, &resident)) {
        assay_gauge_set(process->series[VIRTUAL], (double)size * page);
        assay_gauge_set(process->series[RESIDENT], (double)resident * page);
    }
    assay_gauge_set(process->series[OPEN_FDS], (double)open_fds());
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        assay_gauge_set(process->series[MAX_FDS], (double)limit.rlim_cur);
    if (read_stat(&threads, &start_ticks)) {
        struct timespec boot, wall;
        clock_gettime(CLOCK_BOOTTIME, &boot);
        clock_gettime(CLOCK_REALTIME, &wall);
        double since_boot = (double)start_ticks / (double)sysconf(_SC_CLK_TCK);
        double booted = (double)wall.tv_sec - (double)boot.tv_sec + (double)(wall.tv_nsec - boot.tv_nsec) * 1e-9;
        assay_gauge_set(process->series[THREADS], (double)threads);
        assay_gauge_set(process->series[STARTED], booted + since_boot);
    }
}

void assay_process_metrics_add(struct assay_metrics *metrics, const char *service, const char *precision)
{
    static struct process process; /* a process has one, as it has one /proc/self */
    const char *const values[] = {service, ASSAY_VERSION, precision};
    for (size_t i = 0; i < ROWS; i++) {
        struct assay_metric *metric = assay_metrics_add(metrics, &rows[i]);
        if (i == BUILD)
            assay_gauge_set(assay_metric_series(metric, values), 1);
        else
            process.series[i] = assay_metric_only(metric);
    }
    assay_metrics_collect(metrics, collect, &process);
}

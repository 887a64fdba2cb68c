#include "common/base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The file has a number, or "max". */
#define GROUP_LIMIT_FILE "/sys/fs/cgroup/memory.max"

static uint64_t group_limit(void)
{
    char line[32] = "";
    FILE *file = fopen(GROUP_LIMIT_FILE, "re");
    if (!file)
        return 0;
    const char *read = fgets(line, sizeof line, file);
    fclose(file);
    return read ? strtoull(line, NULL, 10) : 0;
}

uint64_t assay_memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGE_SIZE);
    uint64_t machine = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
    uint64_t group = group_limit();
    return group > 0 && (machine == 0 || group < machine) ? group : machine;
}

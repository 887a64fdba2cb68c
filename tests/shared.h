/* Files that tests compare with but that are not part of the repository. Include after cmocka.h. */
#pragma once

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Without the folder a test skips itself, except where CI=true promises that it is there. */
static inline void need_shared(void)
{
    if (access(ASSAY_SHARED_DIR "/golden", R_OK) == 0)
        return;
    const char *ci = getenv("CI");
    if (ci && strcmp(ci, "true") == 0)
        fail_msg("%s/golden is missing", ASSAY_SHARED_DIR);
    skip();
}

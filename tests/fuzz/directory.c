#include "tests/fuzz/directory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/fs.h"

static char dir[64] = "/dev/shm/assay-fuzz-XXXXXX"; /* memory, where there is such a place */

static void remove_dir(void)
{
    if (assay_remove_tree(dir, NULL) != ASSAY_OK)
        fprintf(stderr, "%s is left behind\n", dir);
}

/* No sync: the file is read back at once and need not survive. */
static void put(const char *name, const uint8_t *bytes, size_t len)
{
    char path[ASSAY_PATH_MAX];
    if (assay_path_join(path, dir, name, NULL) != ASSAY_OK)
        abort();
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, len, file) != len || fclose(file) != 0)
        abort();
}

const char *fuzz_directory_fill(const char *const *names, size_t count, const uint8_t *data, size_t size)
{
    static const char separator[] = "\n---\n";
    static bool made;
    if (!made && access("/dev/shm", W_OK) != 0)
        strcpy(dir, "/tmp/assay-fuzz-XXXXXX");
    if (!made && !mkdtemp(dir))
        abort();
    if (!made)
        atexit(remove_dir);
    made = true;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *end = i + 1 < count ? memmem(data, size, separator, sizeof separator - 1) : NULL;
        size_t len = end ? (size_t)(end - data) : size;
        size_t skip = end ? len + sizeof separator - 1 : size;
        put(names[i], data, len);
        data += skip;
        size -= skip;
    }
    return dir;
}

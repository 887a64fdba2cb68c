/* Runs a fuzz target over the files of a folder: what once broke something, and seeds, in every test run. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/fs.h"
#include "common/base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* From an allocation of exactly its size, so that sanitizers see a read beyond it. */
static bool replay(const char *dir, const char *name, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    char *text = NULL;
    size_t len;
    if (assay_path_join(path, dir, name, err) != ASSAY_OK ||
        assay_file_read(path, ASSAY_CORPUS_BYTES_MAX, &text, &len, err) != ASSAY_OK)
        return false;
    uint8_t *exact = malloc(len ? len : 1);
    if (!exact) {
        free(text);
        return false;
    }
    for (size_t i = 0; i < len; i++)
        exact[i] = (uint8_t)text[i];
    free(text);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    return true;
}

int main(int argc, char **argv)
{
    DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
    if (!dir) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return EXIT_FAILURE;
    }
    size_t replayed = 0;
    struct assay_err err = ASSAY_ERR_INIT;
    bool good = true;
    for (const struct dirent *entry; good && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        good = replay(argv[1], entry->d_name, &err);
        replayed++;
    }
    closedir(dir);
    if (!good)
        fprintf(stderr, "%s\n", err.text);
    printf("%zu inputs replayed\n", replayed);
    return good && replayed ? EXIT_SUCCESS : EXIT_FAILURE;
}

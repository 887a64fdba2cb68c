/* A directory made of the input: config.json, index and one shard, each behind a line "---". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/formats/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/assay-fuzz-XXXXXX";

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"config.json", "model.safetensors.index.json", "one.safetensors"};
    static const char separator[] = "\n---\n";
    static bool made;
    if (!made && !mkdtemp(dir))
        abort();
    if (!made)
        atexit(remove_dir);
    made = true;
    for (size_t i = 0; i < ASSAY_COUNT(names); i++) {
        const uint8_t *end = i + 1 < ASSAY_COUNT(names) ? memmem(data, size, separator, sizeof separator - 1) : NULL;
        size_t len = end ? (size_t)(end - data) : size;
        size_t skip = end ? len + sizeof separator - 1 : size;
        put(names[i], data, len);
        data += skip;
        size -= skip;
    }
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_checkpoint_open(dir, &checkpoint, &err) != ASSAY_OK) {
        if (!err.text[0] || checkpoint)
            abort();
        return 0;
    }
    for (size_t i = 0; i < assay_checkpoint_count(checkpoint); i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(checkpoint, i);
        if (assay_checkpoint_find(checkpoint, tensor->name) != tensor)
            abort();
    }
    assay_checkpoint_close(checkpoint);
    struct assay_model_id id;
    if (assay_checkpoint_id(dir, NULL, NULL, &id, &err) != ASSAY_OK)
        abort();
    return 0;
}

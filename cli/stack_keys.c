/* Keys of a stack that other hosts reach: made once, below its data directory. */
#include "cli/stack_keys.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/directory.h"
#include "common/base/paths.h"
#include "common/wire/address.h"

#define KEY_NAME "server"

static enum assay_status check_endpoint(const char *endpoint, struct assay_err *err)
{
    struct assay_address addresses[ASSAY_ADDRESSES_MAX];
    size_t count = 0;
    enum assay_status status = assay_addresses_parse(endpoint, addresses, &count, err);
    if (status == ASSAY_OK &&
        (count != 1 || !addresses[0].is_host || addresses[0].has_key || strchr(addresses[0].text, '*')))
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "found '%.200s', wanted tcp://ADDRESS:PORT, as %s",
                               endpoint, "tcp://10.0.0.1:7421");
    if (status != ASSAY_OK)
        assay_err_prefix(err, "--public");
    return status;
}

enum assay_status assay_stack_keys_make(const char *data_dir, const char *public_endpoint, struct assay_stack_keys *ret,
                                        struct assay_err *err)
{
    char dir[ASSAY_PATH_MAX], made[ASSAY_PATH_MAX], public_path[ASSAY_PATH_MAX];
    *ret = (struct assay_stack_keys){0};
    if (!public_endpoint || !public_endpoint[0])
        return ASSAY_OK;
    enum assay_status status = check_endpoint(public_endpoint, err);
    if (status == ASSAY_OK)
        status = assay_path_join(dir, data_dir, ASSAY_KEYS_DIR, err);
    if (status == ASSAY_OK)
        status = assay_path_join(ret->server_key, dir, KEY_NAME ".key", err);
    if (status == ASSAY_OK)
        status = assay_path_join(ret->allowed_dir, data_dir, ASSAY_ALLOWED_KEYS_DIR, err);
    if (status == ASSAY_OK)
        status = assay_directory_make(ret->allowed_dir, 0700, err);
    if (status != ASSAY_OK || access(ret->server_key, F_OK) == 0) {
        snprintf(ret->endpoint, sizeof ret->endpoint, "%s", public_endpoint);
        return status;
    }
    struct assay_key_pair pair;
    assay_key_pair_new(ASSAY_ROLE_ADMIN, &pair);
    status = assay_key_write(dir, KEY_NAME, &pair, made, public_path, err);
    assay_key_pair_clear(&pair);
    snprintf(ret->endpoint, sizeof ret->endpoint, "%s", public_endpoint);
    return status;
}

void assay_stack_keys_port_of_any(const struct assay_stack_keys *keys, char ret[ASSAY_ADDRESS_BYTES_MAX])
{
    snprintf(ret, ASSAY_ADDRESS_BYTES_MAX, "%s", keys->endpoint);
    char *colon = strrchr(ret, ':');
    if (colon)
        strcpy(colon + 1, "*");
}

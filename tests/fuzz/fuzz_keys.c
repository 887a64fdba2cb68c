/* What decides who gets in: key files, ZAP requests, endpoints. Input: which one in the first byte; a ZAP request is
 * frames, each with its length in two bytes (little-endian) before it. */
#include <stdlib.h>
#include <string.h>

#include "common/wire/address.h"
#include "common/wire/zap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void key_file(const uint8_t *data, size_t size, bool is_secret)
{
    char text[ASSAY_KEY_FILE_BYTES_MAX + 1], digits[ASSAY_KEY_DIGITS + 1];
    struct assay_key_pair pair, again;
    struct assay_public_key parsed;
    size_t bytes = ASSAY_MIN(size, (size_t)ASSAY_KEY_FILE_BYTES_MAX);
    struct assay_err err = ASSAY_ERR_INIT;
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    memset(&pair, 0, sizeof pair);
    memset(&again, 0, sizeof again);
    enum assay_status status = assay_key_parse(text, bytes, is_secret, &pair, &err);
    require(status == assay_key_parse(text, bytes, is_secret, &again, NULL));
    require(memcmp(&pair, &again, sizeof pair) == 0);
    require((status == ASSAY_OK) == (err.status == ASSAY_OK));
    if (status != ASSAY_OK)
        return;
    require(pair.role > ASSAY_ROLE_NONE && pair.role <= ASSAY_ROLE_ADMIN);
    assay_public_key_text(&pair.public_key, digits);
    require(assay_public_key_parse(digits, strlen(digits), &parsed));
    require(memcmp(&parsed, &pair.public_key, sizeof parsed) == 0);
}

static void zap_request(const uint8_t *data, size_t size)
{
    struct assay_keyring_entry entry = {.role = ASSAY_ROLE_WORKER};
    const struct assay_keyring keyring = {.entries = &entry, .count = 1};
    struct assay_bytes frames[ASSAY_ZAP_FRAMES_MAX + 1];
    struct assay_zap_answer answer;
    size_t count = 0;
    memset(entry.key.bytes, 'k', sizeof entry.key.bytes);
    while (size >= 2 && count < ASSAY_COUNT(frames)) {
        size_t bytes = ASSAY_MIN((size_t)data[0] | (size_t)data[1] << 8, size - 2);
        frames[count++] = (struct assay_bytes){data + 2, bytes};
        data += 2 + bytes;
        size -= 2 + bytes;
    }
    assay_zap_decide(&keyring, frames, count, &answer);
    if (!answer.request_id.data)
        return;
    bool allowed = strcmp(answer.code, "200") == 0;
    bool local = strcmp(answer.user, ASSAY_ZAP_USER_LOCAL) == 0;
    require(answer.request_id.bytes > 0 && answer.request_id.bytes <= ASSAY_ZAP_ID_BYTES_MAX);
    require(allowed || answer.user[0] == '\0');
    require(!allowed || local || (answer.has_key && memcmp(&answer.key, &entry.key, sizeof entry.key) == 0));
}

static void endpoints(const uint8_t *data, size_t size)
{
    char text[1024], ret[ASSAY_ADDRESSES_BYTES_MAX];
    struct assay_address found[ASSAY_ADDRESSES_MAX];
    size_t count = 0, bytes = ASSAY_MIN(size, sizeof text - 1);
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    if (assay_addresses_parse(text, found, &count, NULL) != ASSAY_OK)
        return;
    require(count >= 1 && count <= ASSAY_ADDRESSES_MAX);
    for (size_t i = 0; i < count; i++) {
        require(strlen(found[i].text) < sizeof found[i].text && (!found[i].is_ipc || !found[i].has_key));
        require(!found[i].is_loopback || !found[i].is_ipc);
    }
    const struct assay_address *chosen = assay_address_choose(found, count, false);
    require(!chosen || !chosen->has_key);
    if (assay_address_advertise(text, "host.example", ret, sizeof ret, NULL) == ASSAY_OK)
        require(!strstr(ret, "tcp://0.0.0.0:") || strstr(strstr(text, "tcp://0.0.0.0:") + 1, "tcp://0.0.0.0:"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0] % 4) {
    case 0:
        key_file(data + 1, size - 1, false);
        break;
    case 1:
        key_file(data + 1, size - 1, true);
        break;
    case 2:
        zap_request(data + 1, size - 1);
        break;
    default:
        endpoints(data + 1, size - 1);
        break;
    }
    return 0;
}

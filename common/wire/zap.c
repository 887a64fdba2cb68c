#include "common/wire/zap.h"

#include <string.h>

enum { FRAME_EMPTY, FRAME_VERSION, FRAME_ID, FRAME_DOMAIN, FRAME_ADDRESS, FRAME_IDENTITY, FRAME_MECHANISM, FRAME_KEY };

static bool is(struct assay_bytes frame, const char *text)
{
    return frame.bytes == strlen(text) && memcmp(frame.data, text, frame.bytes) == 0;
}

static void refuse(struct assay_zap_answer *answer, const char *text)
{
    answer->code = "400";
    answer->text = text;
}

void assay_zap_decide(const struct assay_keyring *keyring, const struct assay_bytes *frames, size_t count,
                      struct assay_zap_answer *ret)
{
    *ret = (struct assay_zap_answer){0};
    if (count <= FRAME_MECHANISM || count > ASSAY_ZAP_FRAMES_MAX || frames[FRAME_EMPTY].bytes != 0 ||
        !is(frames[FRAME_VERSION], "1.0") || frames[FRAME_ID].bytes == 0 ||
        frames[FRAME_ID].bytes > ASSAY_ZAP_ID_BYTES_MAX)
        return;
    ret->request_id = frames[FRAME_ID];
    if (is(frames[FRAME_DOMAIN], ASSAY_ZAP_DOMAIN_IPC) && is(frames[FRAME_MECHANISM], "NULL")) {
        ret->code = "200";
        ret->text = "ok";
        strcpy(ret->user, ASSAY_ZAP_USER_LOCAL);
        return;
    }
    if (!is(frames[FRAME_DOMAIN], ASSAY_ZAP_DOMAIN_CURVE) || !is(frames[FRAME_MECHANISM], "CURVE") ||
        count != FRAME_KEY + 1 || frames[FRAME_KEY].bytes != ASSAY_KEY_BYTES) {
        refuse(ret, "wanted CURVE");
        return;
    }
    ret->has_key = true;
    memcpy(ret->key.bytes, frames[FRAME_KEY].data, ASSAY_KEY_BYTES);
    if (!keyring || !assay_keyring_find(keyring, &ret->key)) {
        refuse(ret, "the key is not allowed");
        return;
    }
    ret->code = "200";
    ret->text = "ok";
    assay_public_key_text(&ret->key, ret->user);
}

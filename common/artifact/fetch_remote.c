#include "common/artifact/fetch_remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/artifact/head_blob.h"
#include "common/artifact/manifest.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "proto/variant.pb-c.h"

enum { METHOD_DESCRIBE, METHOD_READ };

/* To describe an artifact that was never asked for is to read all of it: minutes for a large one. */
#define DESCRIBE_MS 1800000
#define READ_MS 60000
#define AGAIN_MS 300
#define TRIES_MAX 20

struct remote {
    const struct assay_artifact_source *source;
    struct assay_client *client;
};

static bool is_cancelled(void *arg)
{
    const struct remote *remote = arg;
    return remote->source->cancelled && remote->source->cancelled(remote->source->arg);
}

static bool is_passing(enum assay_status status)
{
    return status == ASSAY_UNAVAILABLE || status == ASSAY_RESOURCE_EXHAUSTED || status == ASSAY_DEADLINE_EXCEEDED;
}

/* Calls again while the failure may pass: who serves may be started anew meanwhile. */
static enum assay_status call(struct remote *remote, unsigned method, const ProtobufCMessage *request,
                              int64_t deadline_ms, struct assay_reply **ret, struct assay_err *err)
{
    const struct timespec pause = {.tv_nsec = AGAIN_MS * 1000000L};
    for (int attempt = 1;; attempt++) {
        struct assay_err why = ASSAY_ERR_INIT;
        const struct assay_call_options options = {.deadline_ms = deadline_ms, .owner = remote};
        enum assay_status status =
            assay_call_unary(remote->client, &assay__v1__artifacts__descriptor, method, request, &options, ret, &why);
        if (status == ASSAY_OK)
            return ASSAY_OK;
        if (!is_passing(status) || attempt == TRIES_MAX || is_cancelled(remote))
            return assay_err_set(err, status, "%s", why.text);
        nanosleep(&pause, NULL);
    }
}

static enum assay_status not_whole(const struct remote *remote, struct assay_err *err)
{
    return assay_err_set(err, ASSAY_DATA_LOSS, "the description of an artifact from %s contradicts itself",
                         remote->source->endpoint);
}

static enum assay_status read_description(const struct remote *remote, const Assay__V1__ArtifactDescription *message,
                                          struct assay_pieces *pieces, struct assay_err *err)
{
    enum assay_status status =
        assay_digest_from(message->digest.data, message->digest.len, "digest", &pieces->digest, err);
    if (status == ASSAY_OK && message->piece_bytes != ASSAY_PIECE_BYTES)
        status = assay_err_set(err, ASSAY_UNIMPLEMENTED, "pieces have %llu bytes, wanted %llu",
                               (unsigned long long)message->piece_bytes, (unsigned long long)ASSAY_PIECE_BYTES);
    for (size_t i = 0; i < message->n_files && status == ASSAY_OK; i++) {
        const Assay__V1__ArtifactFile *from = message->files[i];
        /* Before memory is taken for what the size promises. */
        if (!from->name || from->piece_digests.len % ASSAY_DIGEST_BYTES != 0 ||
            from->piece_digests.len / ASSAY_DIGEST_BYTES !=
                from->bytes / ASSAY_PIECE_BYTES + (from->bytes % ASSAY_PIECE_BYTES != 0))
            return not_whole(remote, err);
        status = assay_pieces_add_file(pieces, from->name, from->bytes, err);
        if (status == ASSAY_OK && from->piece_digests.len > 0)
            memcpy(pieces->files[i].digests, from->piece_digests.data, from->piece_digests.len);
    }
    if (status != ASSAY_OK)
        return status;
    struct assay_digest digest = assay_pieces_digest(pieces);
    return assay_digest_equal(&digest, &pieces->digest) ? ASSAY_OK : not_whole(remote, err);
}

static enum assay_status describe(void *arg, struct assay_pieces *ret, struct assay_err *err)
{
    struct remote *remote = arg;
    struct assay_reply *reply = NULL;
    struct assay_pieces pieces = ASSAY_PIECES_INIT;
    Assay__V1__DescribeArtifactRequest request = ASSAY__V1__DESCRIBE_ARTIFACT_REQUEST__INIT;
    request.has_variant_id = request.has_head_only = true;
    request.variant_id =
        (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)remote->source->variant->digest.bytes};
    request.head_only = remote->source->head_only;
    enum assay_status status = call(remote, METHOD_DESCRIBE, &request.base, DESCRIBE_MS, &reply, err);
    if (status != ASSAY_OK)
        return status;
    status = read_description(remote, assay_reply_message(reply), &pieces, err);
    assay_reply_free(reply);
    if (status == ASSAY_OK)
        *ret = pieces;
    else
        assay_pieces_release(&pieces);
    return status;
}

static enum assay_status read_piece(void *arg, const struct assay_pieces *pieces, size_t file, uint64_t piece,
                                    void *buffer, size_t bytes, struct assay_err *err)
{
    struct remote *remote = arg;
    struct assay_reply *reply = NULL;
    Assay__V1__ReadPieceRequest request = ASSAY__V1__READ_PIECE_REQUEST__INIT;
    request.has_variant_id = request.has_head_only = request.has_digest = request.has_file = request.has_piece = true;
    request.variant_id =
        (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)remote->source->variant->digest.bytes};
    request.head_only = remote->source->head_only;
    request.digest = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)pieces->digest.bytes};
    request.file = (uint32_t)file;
    request.piece = piece;
    enum assay_status status = call(remote, METHOD_READ, &request.base, READ_MS, &reply, err);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__ReadPieceReply *message = assay_reply_message(reply);
    struct assay_bytes found = {0};
    if (message->bytes && message->bytes->attachment < assay_reply_attachments(reply))
        found = assay_reply_attachment(reply, message->bytes->attachment);
    if (found.bytes == bytes)
        memcpy(buffer, found.data, bytes);
    else
        status = assay_err_set(err, ASSAY_INTERNAL, "a piece from %s has %zu bytes, wanted %zu",
                               remote->source->endpoint, found.bytes, bytes);
    assay_reply_free(reply);
    return status;
}

/* --- finding --- */

/* True when the artifact stands in the directory: its manifest comes last. */
static bool is_there(const char *dir, const struct assay_variant_id *variant)
{
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    bool there = assay_manifest_read(dir, &manifest, NULL) == ASSAY_OK &&
                 assay_digest_equal(&manifest.variant_id.digest, &variant->digest);
    assay_manifest_release(&manifest);
    return there;
}

static enum assay_status fetch(const struct assay_artifact_source *source, char dir[ASSAY_PATH_MAX],
                               struct assay_err *err)
{
    char hex[ASSAY_DIGEST_HEX], cache[ASSAY_PATH_MAX];
    struct remote remote = {.source = source};
    int64_t begin_ms = assay_now_ms();
    struct assay_fetch run = {.cache_dir = source->cache_dir,
                              .name = assay_digest_hex(&source->variant->digest, hex),
                              .describe = describe,
                              .read = read_piece,
                              .cancelled = is_cancelled,
                              .arg = &remote};
    enum assay_status status = ASSAY_OK;
    if (source->head_only) {
        status = assay_path_join(cache, source->cache_dir, ASSAY_HEADS_DIR, err);
        run.cache_dir = cache;
    }
    if (status == ASSAY_OK)
        status = assay_client_new(source->loop, source->endpoint, &remote.client, err);
    if (status == ASSAY_OK)
        status = assay_fetch_run(&run, dir, err);
    assay_client_free(remote.client);
    if (status == ASSAY_OK && !source->head_only && !is_there(dir, source->variant))
        status = assay_err_set(err, ASSAY_DATA_LOSS, "what came is another artifact; remove %.200s", dir);
    if (status != ASSAY_OK) {
        assay_err_prefix(err, "%s %.16s from %s", source->head_only ? "the head of" : "artifact", hex,
                         source->endpoint);
        return status;
    }
    if (!run.was_there)
        assay_log(ASSAY_LOG_INFO,
                  "artifact fetched variant=%.16s head_only=%d pieces=%llu found=%llu damaged=%llu wall_ms=%lld", hex,
                  source->head_only, (unsigned long long)run.pieces_fetched, (unsigned long long)run.pieces_found,
                  (unsigned long long)run.pieces_damaged, (long long)(assay_now_ms() - begin_ms));
    return ASSAY_OK;
}

enum assay_status assay_artifact_find(const struct assay_artifact_source *source, char dir[ASSAY_PATH_MAX],
                                      struct assay_err *err)
{
    bool served = source->endpoint && source->endpoint[0];
    if (served && !is_there(source->artifact_dir, source->variant))
        return fetch(source, dir, err);
    if (strlen(source->artifact_dir) >= ASSAY_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %d bytes", ASSAY_PATH_MAX - 1);
    strcpy(dir, source->artifact_dir);
    return ASSAY_OK;
}

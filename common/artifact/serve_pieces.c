#include "common/artifact/serve_pieces.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/artifact/head_blob.h"
#include "common/artifact/manifest.h"
#include "common/artifact/pieces.h"
#include "proto/variant.pb-c.h"

/* Descriptions that are kept: to describe a directory is to read all of it. */
#define DESCRIBED_MAX 64

/* A description that is known, and what says that it still holds. */
struct described {
    char dir[ASSAY_PATH_MAX];
    uint64_t stamp; /* of sizes and times */
    struct assay_pieces pieces;
    uint64_t used;
};

struct assay_piece_server {
    char artifacts_dir[ASSAY_PATH_MAX], heads_dir[ASSAY_PATH_MAX];
    pthread_t threads[ASSAY_PIECES_THREADS];
    size_t threads_count;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool stopping;
    struct assay_call *waiting[ASSAY_PIECES_WAITING_MAX]; /* a ring; NULL at odd places never */
    bool describes[ASSAY_PIECES_WAITING_MAX];
    size_t first, count;
    size_t in_flight;
    atomic_size_t references;      /* ours and one of each piece in flight: it may outlive the server */
    pthread_mutex_t describe_lock; /* guards what follows; held while a directory is read */
    struct described described[DESCRIBED_MAX];
    size_t described_count;
    uint64_t uses;
};

static void drop(struct assay_piece_server *server)
{
    if (atomic_fetch_sub(&server->references, 1) > 1)
        return;
    for (size_t i = 0; i < server->described_count; i++)
        assay_pieces_release(&server->described[i].pieces);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->describe_lock);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

/* --- descriptions --- */

/* Sizes and times of the files: another stamp, another artifact. */
static uint64_t stamp_of(const char *dir, const struct assay_pieces *pieces)
{
    struct assay_hash hash;
    assay_hash_init(&hash, "stamp");
    for (size_t i = 0; i < pieces->count; i++) {
        char path[ASSAY_PATH_MAX];
        struct stat info = {0};
        if (assay_path_join(path, dir, pieces->files[i].name, NULL) != ASSAY_OK || stat(path, &info) != 0)
            info = (struct stat){0};
        assay_hash_u64(&hash, (uint64_t)info.st_size);
        assay_hash_u64(&hash, (uint64_t)info.st_ino);
        assay_hash_u64(&hash, (uint64_t)info.st_mtim.tv_sec);
        assay_hash_u64(&hash, (uint64_t)info.st_mtim.tv_nsec);
    }
    struct assay_digest digest = assay_hash_final(&hash);
    uint64_t stamp;
    memcpy(&stamp, digest.bytes, sizeof stamp);
    return stamp;
}

static bool is_stopping(void *arg)
{
    struct assay_piece_server *server = arg;
    pthread_mutex_lock(&server->lock);
    bool stopping = server->stopping;
    pthread_mutex_unlock(&server->lock);
    return stopping;
}

/* describe_lock is held. A free place, or the one used longest ago. */
static struct described *choose_place(struct assay_piece_server *server)
{
    if (server->described_count < DESCRIBED_MAX)
        return &server->described[server->described_count++];
    struct described *oldest = &server->described[0];
    for (size_t i = 1; i < DESCRIBED_MAX; i++)
        if (server->described[i].used < oldest->used)
            oldest = &server->described[i];
    assay_pieces_release(&oldest->pieces);
    return oldest;
}

/* describe_lock is held; *ret is valid as long as it is. */
static enum assay_status describe(struct assay_piece_server *server, const char *dir, const struct assay_pieces **ret,
                                  struct assay_err *err)
{
    struct described *place = NULL;
    for (size_t i = 0; i < server->described_count; i++)
        if (strcmp(server->described[i].dir, dir) == 0)
            place = &server->described[i];
    if (!place || place->stamp != stamp_of(dir, &place->pieces)) {
        struct assay_pieces pieces = ASSAY_PIECES_INIT;
        enum assay_status status = assay_pieces_describe(dir, is_stopping, server, &pieces, err);
        if (status != ASSAY_OK)
            return status;
        if (place)
            assay_pieces_release(&place->pieces);
        else
            place = choose_place(server);
        strcpy(place->dir, dir);
        place->pieces = pieces;
        place->stamp = stamp_of(dir, &pieces);
    }
    place->used = ++server->uses;
    *ret = &place->pieces;
    return ASSAY_OK;
}

/* The directory that a request means: an artifact that is whole, or the head of one. */
static enum assay_status find_dir(const struct assay_piece_server *server, ProtobufCBinaryData variant_id,
                                  bool head_only, char dir[ASSAY_PATH_MAX], struct assay_err *err)
{
    char hex[ASSAY_DIGEST_HEX], artifact[ASSAY_PATH_MAX];
    struct assay_digest digest;
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    enum assay_status status = assay_digest_from(variant_id.data, variant_id.len, "variant_id", &digest, err);
    if (status == ASSAY_OK)
        status = assay_path_join(artifact, server->artifacts_dir, assay_digest_hex(&digest, hex), err);
    if (status != ASSAY_OK)
        return status;
    if (assay_manifest_read(artifact, &manifest, NULL) != ASSAY_OK)
        return assay_err_set(err, ASSAY_NOT_FOUND, "there is no artifact %.16s... here", hex);
    assay_manifest_release(&manifest);
    if (head_only)
        return assay_head_blob_make(artifact, server->heads_dir, dir, err);
    strcpy(dir, artifact);
    return ASSAY_OK;
}

/* --- Describe --- */

static enum assay_status reply_description(struct assay_call *call, const struct assay_pieces *pieces,
                                           struct assay_err *err)
{
    Assay__V1__ArtifactDescription reply = ASSAY__V1__ARTIFACT_DESCRIPTION__INIT;
    assay_auto(assay_free_ptr) Assay__V1__ArtifactFile *files = calloc(pieces->count + 1, sizeof *files);
    assay_auto(assay_free_ptr) Assay__V1__ArtifactFile **pointers = calloc(pieces->count + 1, sizeof *pointers);
    if (!files || !pointers)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the pieces of an artifact");
    for (size_t i = 0; i < pieces->count; i++) {
        const struct assay_pieces_file *file = &pieces->files[i];
        assay__v1__artifact_file__init(&files[i]);
        files[i].name = file->name;
        files[i].has_bytes = files[i].has_piece_digests = true;
        files[i].bytes = file->bytes;
        files[i].piece_digests =
            (ProtobufCBinaryData){file->count * ASSAY_DIGEST_BYTES, (uint8_t *)(void *)file->digests};
        pointers[i] = &files[i];
    }
    reply.has_digest = reply.has_piece_bytes = true;
    reply.digest = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)pieces->digest.bytes};
    reply.piece_bytes = ASSAY_PIECE_BYTES;
    reply.n_files = pieces->count;
    reply.files = pointers;
    assay_call_reply(call, &reply.base, NULL, 0);
    return ASSAY_OK;
}

static enum assay_status run_describe(struct assay_piece_server *server, struct assay_call *call, struct assay_err *err)
{
    const Assay__V1__DescribeArtifactRequest *request = assay_call_request(call);
    char dir[ASSAY_PATH_MAX];
    const struct assay_pieces *pieces = NULL;
    pthread_mutex_lock(&server->describe_lock);
    enum assay_status status = find_dir(server, request->variant_id, request->head_only, dir, err);
    if (status == ASSAY_OK)
        status = describe(server, dir, &pieces, err);
    if (status == ASSAY_OK)
        status = reply_description(call, pieces, err);
    pthread_mutex_unlock(&server->describe_lock);
    return status;
}

/* --- Read --- */

/* What is read, copied out of the description, which may go while the piece is read. */
struct wanted {
    char dir[ASSAY_PATH_MAX];
    struct assay_pieces_file file;
    uint64_t piece;
};

/* describe_lock is held. The description that the caller was given; NULL when it is not known any more. */
static struct described *find_described(struct assay_piece_server *server, const struct assay_digest *digest)
{
    for (size_t i = 0; i < server->described_count; i++) {
        struct described *place = &server->described[i];
        if (assay_digest_equal(&place->pieces.digest, digest) && place->stamp == stamp_of(place->dir, &place->pieces))
            return place;
    }
    return NULL;
}

static enum assay_status find_piece(struct assay_piece_server *server, const Assay__V1__ReadPieceRequest *request,
                                    struct wanted *wanted, struct assay_err *err)
{
    const struct assay_pieces *pieces = NULL;
    struct assay_digest digest;
    enum assay_status status = assay_digest_from(request->digest.data, request->digest.len, "digest", &digest, err);
    struct described *known = status == ASSAY_OK ? find_described(server, &digest) : NULL;
    if (known) {
        pieces = &known->pieces;
        known->used = ++server->uses;
        strcpy(wanted->dir, known->dir);
    } else if (status == ASSAY_OK) { /* a service that was started anew describes again */
        status = find_dir(server, request->variant_id, request->head_only, wanted->dir, err);
        if (status == ASSAY_OK)
            status = describe(server, wanted->dir, &pieces, err);
    }
    if (status != ASSAY_OK)
        return status;
    if (!assay_digest_equal(&digest, &pieces->digest))
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "the artifact is another one now; describe it again");
    if (request->file >= pieces->count || request->piece >= pieces->files[request->file].count)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "file %u has no piece %llu", request->file,
                             (unsigned long long)request->piece);
    wanted->file = pieces->files[request->file];
    wanted->file.digests = NULL;
    wanted->file.name = strdup(wanted->file.name);
    wanted->piece = request->piece;
    return wanted->file.name ? ASSAY_OK : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a piece");
}

static void piece_sent(void *data, void *hint)
{
    struct assay_piece_server *server = hint;
    free(data);
    pthread_mutex_lock(&server->lock);
    server->in_flight--;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    drop(server);
}

static void reply_piece(struct assay_piece_server *server, struct assay_call *call, void *buffer, size_t bytes)
{
    Assay__V1__ReadPieceReply reply = ASSAY__V1__READ_PIECE_REPLY__INIT;
    Assay__V1__Tensor tensor = ASSAY__V1__TENSOR__INIT;
    uint64_t shape[1] = {bytes};
    tensor.has_dtype = tensor.has_attachment = true;
    tensor.dtype = ASSAY__V1__DTYPE__DTYPE_U8;
    tensor.n_shape = 1;
    tensor.shape = shape;
    reply.bytes = &tensor;
    pthread_mutex_lock(&server->lock);
    server->in_flight++;
    pthread_mutex_unlock(&server->lock);
    atomic_fetch_add(&server->references, 1);
    const struct assay_attachment attachment = {buffer, bytes, piece_sent, server};
    assay_call_reply(call, &reply.base, &attachment, 1);
}

static enum assay_status run_read(struct assay_piece_server *server, struct assay_call *call, struct assay_err *err)
{
    struct wanted wanted = {.piece = 0};
    pthread_mutex_lock(&server->describe_lock);
    enum assay_status status = find_piece(server, assay_call_request(call), &wanted, err);
    pthread_mutex_unlock(&server->describe_lock);
    if (status != ASSAY_OK)
        return status;
    size_t bytes = assay_piece_bytes(&wanted.file, wanted.piece);
    void *buffer = malloc(bytes);
    if (buffer)
        status = assay_piece_read(wanted.dir, &wanted.file, wanted.piece, buffer, err);
    else
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a piece of %zu bytes", bytes);
    free(wanted.file.name);
    if (status != ASSAY_OK) {
        free(buffer);
        return status;
    }
    reply_piece(server, call, buffer, bytes);
    return ASSAY_OK;
}

/* --- threads --- */

static void *serve_pieces(void *arg)
{
    struct assay_piece_server *server = arg;
    pthread_mutex_lock(&server->lock);
    for (;;) {
        while (!server->stopping && (server->count == 0 || server->in_flight >= ASSAY_PIECES_IN_FLIGHT_MAX))
            pthread_cond_wait(&server->changed, &server->lock);
        if (server->count == 0)
            break;
        struct assay_call *call = server->waiting[server->first];
        bool describes = server->describes[server->first], stopping = server->stopping;
        server->first = (server->first + 1) % ASSAY_PIECES_WAITING_MAX;
        server->count--;
        pthread_mutex_unlock(&server->lock);
        struct assay_err err = ASSAY_ERR_INIT;
        enum assay_status status = stopping    ? assay_err_set(&err, ASSAY_UNAVAILABLE, "the service is shutting down")
                                   : describes ? run_describe(server, call, &err)
                                               : run_read(server, call, &err);
        if (status != ASSAY_OK)
            assay_call_fail(call, &err);
        pthread_mutex_lock(&server->lock);
    }
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

/* Loop thread. */
static void enqueue(struct assay_piece_server *server, struct assay_call *call, bool describes)
{
    struct assay_err err = ASSAY_ERR_INIT;
    pthread_mutex_lock(&server->lock);
    if (server->stopping) {
        assay_err_set(&err, ASSAY_UNAVAILABLE, "the service is shutting down");
    } else if (server->count == ASSAY_PIECES_WAITING_MAX) {
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "%d pieces are asked for already, try again",
                      ASSAY_PIECES_WAITING_MAX);
    } else {
        size_t at = (server->first + server->count++) % ASSAY_PIECES_WAITING_MAX;
        server->waiting[at] = call;
        server->describes[at] = describes;
        pthread_cond_signal(&server->changed);
    }
    pthread_mutex_unlock(&server->lock);
    if (err.status != ASSAY_OK)
        assay_call_fail(call, &err);
}

static void on_describe(struct assay_call *call, void *service)
{
    enqueue(service, call, true);
}

static void on_read(struct assay_call *call, void *service)
{
    enqueue(service, call, false);
}

enum assay_status assay_piece_server_start(struct assay_server *server, const char *artifacts_dir,
                                           struct assay_piece_server **ret, struct assay_err *err)
{
    static const assay_method_fn handlers[] = {on_describe, on_read};
    struct assay_piece_server *pieces = calloc(1, sizeof *pieces);
    if (!pieces)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while starting");
    atomic_init(&pieces->references, 1);
    pthread_mutex_init(&pieces->lock, NULL);
    pthread_mutex_init(&pieces->describe_lock, NULL);
    pthread_cond_init(&pieces->changed, NULL);
    enum assay_status status = assay_path_join(pieces->heads_dir, artifacts_dir, ASSAY_HEADS_DIR, err);
    if (status == ASSAY_OK)
        strcpy(pieces->artifacts_dir, artifacts_dir);
    while (status == ASSAY_OK && pieces->threads_count < ASSAY_PIECES_THREADS) {
        int failed = pthread_create(&pieces->threads[pieces->threads_count], NULL, serve_pieces, pieces);
        if (failed)
            status = assay_err_errno(err, failed, "cannot start a thread");
        else
            pieces->threads_count++;
    }
    if (status != ASSAY_OK) {
        assay_piece_server_stop(pieces);
        assay_piece_server_free(pieces);
        return status;
    }
    assay_server_add(server, &assay__v1__artifacts__descriptor, handlers, pieces);
    *ret = pieces;
    return ASSAY_OK;
}

void assay_piece_server_stop(struct assay_piece_server *server)
{
    if (!server)
        return;
    pthread_mutex_lock(&server->lock);
    bool stopped = server->stopping;
    server->stopping = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    for (size_t i = 0; i < server->threads_count && !stopped; i++)
        pthread_join(server->threads[i], NULL);
}

void assay_piece_server_free(struct assay_piece_server *server)
{
    if (server)
        drop(server);
}

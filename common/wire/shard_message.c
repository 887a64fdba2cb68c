#include "common/wire/shard_message.h"

#include <stdlib.h>
#include <string.h>

struct assay_shard_message *assay_shard_message_new(const struct assay_shard_map *map)
{
    struct assay_shard_message *message =
        malloc(sizeof *message + map->count * (sizeof message->shards[0] + sizeof(Assay__V1__Shard *)));
    if (!message)
        return NULL;
    assay__v1__shard_map__init(&message->message);
    message->message.has_epoch = true;
    message->message.epoch = map->epoch;
    message->message.n_shards = map->count;
    message->message.shards = (Assay__V1__Shard **)(void *)(message->shards + map->count);
    for (size_t i = 0; i < map->count; i++) {
        Assay__V1__Shard *shard = &message->shards[i];
        assay__v1__shard__init(shard);
        shard->has_shard_id = true;
        shard->shard_id = (ProtobufCBinaryData){ASSAY_SHARD_ID_BYTES, (uint8_t *)(uintptr_t)map->shards[i].id.bytes};
        shard->endpoint = (char *)(uintptr_t)map->shards[i].endpoint;
        shard->has_leaving = map->shards[i].leaving;
        shard->leaving = map->shards[i].leaving;
        message->message.shards[i] = shard;
    }
    return message;
}

static enum assay_status read_shard(const Assay__V1__Shard *message, struct assay_shard *ret, struct assay_err *err)
{
    struct assay_shard shard = {.leaving = message->leaving};
    enum assay_status status = assay_shard_id_from(message->shard_id.data, message->shard_id.len, &shard.id, err);
    if (status != ASSAY_OK)
        return status;
    if (!message->endpoint || !message->endpoint[0] || strlen(message->endpoint) >= sizeof shard.endpoint)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the endpoint of a shard is missing or longer than %d bytes",
                             ASSAY_SHARD_ENDPOINT_MAX - 1);
    strcpy(shard.endpoint, message->endpoint);
    *ret = shard;
    return ASSAY_OK;
}

enum assay_status assay_shard_map_of_message(const Assay__V1__ShardMap *message, struct assay_shard_map *ret,
                                             struct assay_err *err)
{
    if (message->n_shards > ASSAY_SHARDS_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a map has at most %d shards, found %zu", ASSAY_SHARDS_MAX,
                             message->n_shards);
    struct assay_shard_map *map = calloc(1, sizeof *map);
    if (!map)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a map of %zu shards", message->n_shards);
    map->epoch = message->epoch;
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < message->n_shards && status == ASSAY_OK; i++) {
        struct assay_shard shard;
        status = read_shard(message->shards[i], &shard, err);
        if (status == ASSAY_OK && assay_shard_map_find(map, &shard.id) != ASSAY_SHARD_NONE)
            status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a map names one shard twice");
        else if (status == ASSAY_OK)
            assay_shard_map_add(map, &shard);
    }
    if (status == ASSAY_OK)
        *ret = *map;
    free(map);
    return status;
}

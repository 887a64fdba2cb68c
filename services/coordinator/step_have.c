/* What the evaluators have: each is asked for its share. */
#include <stdlib.h>
#include <string.h>

#include "proto/record.pb-c.h"
#include "services/coordinator/driver.h"

enum { METHOD_HAVE = 1 };

/* Keys in one call: 640 kB. */
#define KEYS_MAX 20000
#define DEADLINE_MS 30000
/* Sets of one variant, over all evaluators. */
#define SETS_MAX 64

struct set {
    char numerics[sizeof((struct assay_have *)0)->numerics];
    uint64_t count;
};

struct asking {
    struct assay_loop *loop;
    const struct assay_shard_map *map;
    const struct assay_plan *plan;
    size_t index;
    const struct assay_call *parent;
    uint16_t *owners;       /* by key of the plan */
    const char *numerics;   /* NULL: whatever is most complete */
    struct assay_have have; /* numerics: of the first answer that had one */
    bool mixed;             /* answers are of several sets */
    struct set sets[SETS_MAX];
    size_t sets_count;
    ProtobufCBinaryData keys[KEYS_MAX];
    size_t places[KEYS_MAX]; /* of the keys in the plan */
};

void assay_have_release(struct assay_have *have)
{
    free(have->bits);
    *have = (struct assay_have){0};
}

static void count_set(struct asking *asking, const char *numerics, uint64_t count)
{
    for (size_t i = 0; i < asking->sets_count; i++) {
        if (strcmp(asking->sets[i].numerics, numerics) == 0) {
            asking->sets[i].count += count;
            return;
        }
    }
    if (asking->sets_count == SETS_MAX || strlen(numerics) >= sizeof asking->sets[0].numerics)
        return;
    struct set *set = &asking->sets[asking->sets_count++];
    strcpy(set->numerics, numerics);
    set->count = count;
}

static enum assay_status take_reply(struct asking *asking, const Assay__V1__HaveRecordsReply *reply, size_t count,
                                    struct assay_err *err)
{
    if (reply->have.len != count || reply->n_numerics_ids != reply->n_numerics_counts)
        return assay_err_set(err, ASSAY_INTERNAL, "the evaluator answered for %zu of %zu chunks", reply->have.len,
                             count);
    const char *numerics = reply->numerics_id ? reply->numerics_id : "";
    struct assay_have *have = &asking->have;
    if (!have->numerics[0] && numerics[0])
        strncpy(have->numerics, numerics, sizeof have->numerics - 1);
    asking->mixed = asking->mixed || (numerics[0] && strcmp(have->numerics, numerics) != 0);
    for (size_t i = 0; i < reply->n_numerics_ids; i++)
        count_set(asking, reply->numerics_ids[i], reply->numerics_counts[i]);
    for (size_t i = 0; i < count; i++)
        have->bits[asking->places[i]] = reply->have.data[i] != 0;
    return ASSAY_OK;
}

static enum assay_status ask_once(struct asking *asking, struct assay_client *client, size_t count,
                                  struct assay_err *err)
{
    const struct assay_plan *plan = asking->plan;
    Assay__V1__HaveRecordsRequest request = ASSAY__V1__HAVE_RECORDS_REQUEST__INIT;
    struct assay_reply *reply = NULL;
    /* A job asks again by itself, and looks before that whether it is still wanted: tries here would hold up a
     * shutdown. */
    const struct assay_call_options options = {
        .deadline_ms = DEADLINE_MS, .parent = asking->parent, .retry = asking->parent ? &assay_retry_default : NULL};
    request.has_variant_id = request.has_record_dtype = request.has_epoch = true;
    request.variant_id =
        (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)plan->variants[asking->index].id.digest.bytes};
    request.record_dtype = plan->record_dtype;
    request.epoch = asking->map->epoch;
    request.numerics_id = (char *)(uintptr_t)asking->numerics;
    request.chunk_keys = asking->keys;
    request.n_chunk_keys = count;
    enum assay_status status =
        assay_call_unary(client, &assay__v1__records__descriptor, METHOD_HAVE, &request.base, &options, &reply, err);
    if (status == ASSAY_OK)
        status = take_reply(asking, assay_reply_message(reply), count, err);
    assay_reply_free(reply);
    return status;
}

/* Asks one evaluator for all keys that it owns. */
static enum assay_status ask_shard(struct asking *asking, size_t shard, struct assay_err *err)
{
    struct assay_client *client = NULL;
    enum assay_status status = assay_client_new(asking->loop, asking->map->shards[shard].endpoint, &client, err);
    size_t count = 0;
    for (size_t i = 0; i < asking->plan->run_count && status == ASSAY_OK; i++) {
        if (asking->owners[i] == shard) {
            asking->keys[count] = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, asking->plan->run_keys[i].digest.bytes};
            asking->places[count++] = i;
        }
        if (count == KEYS_MAX) {
            status = ask_once(asking, client, count, err);
            count = 0;
        }
    }
    if (status == ASSAY_OK && count > 0)
        status = ask_once(asking, client, count, err);
    assay_client_free(client);
    return status;
}

static enum assay_status ask_all(struct asking *asking, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t shard = 0; shard < asking->map->count && status == ASSAY_OK; shard++)
        if (!asking->map->shards[shard].leaving)
            status = ask_shard(asking, shard, err);
    return status;
}

/* The largest set; among equals the first by name, as a single evaluator chooses. */
static const char *largest_set(const struct asking *asking)
{
    const struct set *best = &asking->sets[0];
    for (size_t i = 1; i < asking->sets_count; i++) {
        const struct set *set = &asking->sets[i];
        if (set->count > best->count || (set->count == best->count && strcmp(set->numerics, best->numerics) < 0))
            best = set;
    }
    return best->numerics;
}

static enum assay_status ask(struct asking *asking, struct assay_err *err)
{
    for (size_t i = 0; i < asking->plan->run_count; i++)
        asking->owners[i] = (uint16_t)assay_shard_map_owner(asking->map, &asking->plan->run_keys[i]);
    enum assay_status status = ask_all(asking, err);
    if (status != ASSAY_OK || !asking->mixed || asking->sets_count == 0)
        return status;
    asking->numerics = largest_set(asking);
    strcpy(asking->have.numerics, asking->numerics);
    return ask_all(asking, err);
}

enum assay_status assay_have_ask(struct assay_loop *loop, const struct assay_shard_map *map,
                                 const struct assay_plan *plan, size_t index, const struct assay_call *parent,
                                 struct assay_have *ret, struct assay_err *err)
{
    struct asking *asking = calloc(1, sizeof *asking);
    enum assay_status status = ASSAY_RESOURCE_EXHAUSTED;
    if (asking) {
        asking->loop = loop;
        asking->map = map;
        asking->plan = plan;
        asking->index = index;
        asking->parent = parent;
        asking->have.epoch = map->epoch;
        asking->have.bits = calloc(plan->run_count + 1, 1);
        asking->owners = calloc(plan->run_count + 1, sizeof *asking->owners);
    }
    if (asking && asking->have.bits && asking->owners)
        status = ask(asking, err);
    else
        assay_err_set(err, status, "out of memory for %zu chunks", plan->run_count);
    if (status == ASSAY_OK)
        *ret = asking->have;
    else if (asking)
        assay_have_release(&asking->have);
    if (asking)
        free(asking->owners);
    free(asking);
    return status;
}

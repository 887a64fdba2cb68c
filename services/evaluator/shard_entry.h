/* Values that move between evaluators, as messages. */
#pragma once

#include "proto/record.pb-c.h"
#include "services/evaluator/share.h"

/* Values of one Fetch: an attachment each beside header and payload, and what a message may hold. */
#define SHARD_FETCH_MAX 60
#define SHARD_FETCH_BYTES ((uint64_t)64 << 20)
/* Entries of one message of List or Release. */
#define SHARD_ENTRIES_MAX 1000

/* The message points into the entry. */
void shard_entry_fill(Assay__V1__ShardEntry *message, const struct assay_share_entry *entry);
/* The entry points into the message. INVALID_ARGUMENT names the field. */
enum assay_status shard_entry_read(const Assay__V1__ShardEntry *message, struct assay_share_entry *ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
/* A list of at most SHARD_ENTRIES_MAX; *ret is the caller's to free. */
enum assay_status shard_entries_read(Assay__V1__ShardEntry *const *messages, size_t count,
                                     struct assay_share_entry **ret, struct assay_err *err) ASSAY_MUST_USE;

#include "services/evaluator/index.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS_MIN 1024

struct links {
    struct links *before, *after;
};

struct entry {
    struct links by_use; /* first, so that a link is its entry; in the list only while its slot is not pinned */
    struct slot *slot;
    struct entry *next; /* of the same key */
    struct entry *changed_before, *changed_after;
    bool changed; /* in the list of changed ones */
    uint32_t numerics;
    uint64_t bytes, used;
};

/* All records of one key. */
struct slot {
    struct slot *next; /* of the same bucket */
    struct assay_record_key key;
    uint32_t pins;
    struct entry *entries;
};

struct assay_index {
    struct slot **buckets;
    size_t buckets_count; /* a power of two */
    size_t slots;
    size_t entries;
    uint64_t bytes;
    uint64_t clock;      /* the last `used` */
    struct links by_use; /* oldest first */
    struct entry *changed;
    char *names[ASSAY_NUMERICS_COUNT_MAX + 1];
    uint32_t names_count; /* including the one that is no name */
};

struct assay_index *assay_index_new(void)
{
    struct assay_index *index = calloc(1, sizeof *index);
    struct slot **buckets = calloc(BUCKETS_MIN, sizeof *buckets);
    if (!index || !buckets) {
        free(index);
        free(buckets);
        return NULL;
    }
    index->buckets = buckets;
    index->buckets_count = BUCKETS_MIN;
    index->by_use.before = index->by_use.after = &index->by_use;
    index->names_count = 1;
    return index;
}

void assay_index_free(struct assay_index *index)
{
    if (!index)
        return;
    for (size_t i = 0; i < index->buckets_count; i++) {
        for (struct slot *slot = index->buckets[i], *next_slot; slot; slot = next_slot) {
            next_slot = slot->next;
            for (struct entry *entry = slot->entries, *next; entry; entry = next) {
                next = entry->next;
                free(entry);
            }
            free(slot);
        }
    }
    for (uint32_t i = 1; i < index->names_count; i++)
        free(index->names[i]);
    free(index->buckets);
    free(index);
}

/* --- numerics --- */

enum assay_status assay_index_intern(struct assay_index *index, const char *name, uint32_t *ret, struct assay_err *err)
{
    size_t len = strlen(name);
    bool valid = len >= 1 && len <= ASSAY_NUMERICS_BYTES_MAX;
    for (size_t i = 0; i < len && valid; i++)
        valid = name[i] > ' ' && name[i] <= '~';
    if (!valid)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "a numerics id has 1 to %d printable characters, found %zu bytes: '%.40s'",
                             ASSAY_NUMERICS_BYTES_MAX, len, name);
    for (uint32_t i = 1; i < index->names_count; i++) {
        if (strcmp(index->names[i], name) == 0) {
            *ret = i;
            return ASSAY_OK;
        }
    }
    if (index->names_count > ASSAY_NUMERICS_COUNT_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                             "the store has records of %u numerics ids, more are refused", ASSAY_NUMERICS_COUNT_MAX);
    char *copy = strdup(name);
    if (!copy)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a numerics id");
    index->names[index->names_count] = copy;
    *ret = index->names_count++;
    return ASSAY_OK;
}

const char *assay_index_name(const struct assay_index *index, uint32_t numerics)
{
    return numerics > 0 && numerics < index->names_count ? index->names[numerics] : "";
}

uint32_t assay_index_numerics_count(const struct assay_index *index)
{
    return index->names_count;
}

/* --- slots --- */

static size_t bucket_of(const struct assay_index *index, const struct assay_record_key *key)
{
    uint64_t hash; /* keys are digests: any 8 bytes of them will do */
    memcpy(&hash, key->digest.bytes, sizeof hash);
    return (size_t)hash & (index->buckets_count - 1);
}

static struct slot *find_slot(const struct assay_index *index, const struct assay_record_key *key)
{
    struct slot *slot = index->buckets[bucket_of(index, key)];
    while (slot && !assay_digest_equal(&slot->key.digest, &key->digest))
        slot = slot->next;
    return slot;
}

/* Longer chains are slow, not wrong: out of memory is no error here. */
static void widen(struct assay_index *index)
{
    size_t count = index->buckets_count;
    struct slot **old = index->buckets, **buckets = calloc(count * 2, sizeof *buckets);
    if (!buckets)
        return;
    index->buckets = buckets;
    index->buckets_count = count * 2;
    for (size_t i = 0; i < count; i++) {
        for (struct slot *slot = old[i], *next; slot; slot = next) {
            next = slot->next;
            size_t at = bucket_of(index, &slot->key);
            slot->next = buckets[at];
            buckets[at] = slot;
        }
    }
    free(old);
}

static struct slot *make_slot(struct assay_index *index, const struct assay_record_key *key)
{
    struct slot *slot = find_slot(index, key);
    if (slot)
        return slot;
    slot = calloc(1, sizeof *slot);
    if (!slot)
        return NULL;
    if (index->slots >= index->buckets_count)
        widen(index);
    size_t at = bucket_of(index, key);
    slot->key = *key;
    slot->next = index->buckets[at];
    index->buckets[at] = slot;
    index->slots++;
    return slot;
}

static void free_slot_if_empty(struct assay_index *index, struct slot *slot)
{
    if (slot->entries || slot->pins > 0)
        return;
    struct slot **link = &index->buckets[bucket_of(index, &slot->key)];
    while (*link != slot)
        link = &(*link)->next;
    *link = slot->next;
    index->slots--;
    free(slot);
}

/* --- entries --- */

static struct entry *find_entry(const struct slot *slot, uint32_t numerics)
{
    struct entry *entry = slot ? slot->entries : NULL;
    while (entry && entry->numerics != numerics)
        entry = entry->next;
    return entry;
}

static void unlink_use(struct entry *entry)
{
    struct links *links = &entry->by_use;
    if (!links->before)
        return;
    links->before->after = links->after;
    links->after->before = links->before;
    links->before = links->after = NULL;
}

static void link_as_last(struct assay_index *index, struct entry *entry)
{
    struct links *links = &entry->by_use, *last = index->by_use.before;
    links->before = last;
    links->after = &index->by_use;
    last->after = index->by_use.before = links;
}

static void mark_changed(struct assay_index *index, struct entry *entry)
{
    if (entry->changed)
        return;
    entry->changed = true;
    entry->changed_before = NULL;
    entry->changed_after = index->changed;
    if (index->changed)
        index->changed->changed_before = entry;
    index->changed = entry;
}

bool assay_index_add(struct assay_index *index, const struct assay_index_entry *added)
{
    struct slot *slot = make_slot(index, &added->key);
    if (slot && find_entry(slot, added->numerics))
        return true;
    struct entry *entry = slot ? calloc(1, sizeof *entry) : NULL;
    if (!entry) {
        if (slot)
            free_slot_if_empty(index, slot);
        return false;
    }
    entry->slot = slot;
    entry->numerics = added->numerics;
    entry->bytes = added->bytes;
    entry->next = slot->entries;
    slot->entries = entry;
    if (slot->pins == 0)
        link_as_last(index, entry);
    if (added->used > index->clock) {
        index->clock = entry->used = added->used;
    } else {
        entry->used = ++index->clock;
        mark_changed(index, entry);
    }
    index->entries++;
    index->bytes += entry->bytes;
    return true;
}

static void unlink_changed(struct assay_index *index, struct entry *entry)
{
    if (!entry->changed)
        return;
    if (entry->changed_before)
        entry->changed_before->changed_after = entry->changed_after;
    else
        index->changed = entry->changed_after;
    if (entry->changed_after)
        entry->changed_after->changed_before = entry->changed_before;
    entry->changed = false;
}

void assay_index_remove(struct assay_index *index, const struct assay_record_key *key, uint32_t numerics)
{
    struct slot *slot = find_slot(index, key);
    struct entry *entry = find_entry(slot, numerics);
    if (!entry)
        return;
    struct entry **link = &slot->entries;
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    unlink_use(entry);
    unlink_changed(index, entry);
    index->entries--;
    index->bytes -= entry->bytes;
    free(entry);
    free_slot_if_empty(index, slot);
}

bool assay_index_has(const struct assay_index *index, const struct assay_record_key *key, uint32_t numerics)
{
    return find_entry(find_slot(index, key), numerics) != NULL;
}

void assay_index_touch(struct assay_index *index, const struct assay_record_key *key, uint32_t numerics)
{
    struct entry *entry = find_entry(find_slot(index, key), numerics);
    if (!entry)
        return;
    entry->used = ++index->clock;
    mark_changed(index, entry);
    if (entry->slot->pins == 0) {
        unlink_use(entry);
        link_as_last(index, entry);
    }
}

void assay_index_each(const struct assay_index *index, const struct assay_record_key *key, assay_index_fn fn, void *arg)
{
    const struct slot *slot = find_slot(index, key);
    for (const struct entry *entry = slot ? slot->entries : NULL; entry; entry = entry->next)
        fn(arg, entry->numerics);
}

bool assay_index_pin(struct assay_index *index, const struct assay_record_key *key)
{
    struct slot *slot = make_slot(index, key);
    if (!slot)
        return false;
    if (slot->pins++ == 0)
        for (struct entry *entry = slot->entries; entry; entry = entry->next)
            unlink_use(entry);
    return true;
}

void assay_index_unpin(struct assay_index *index, const struct assay_record_key *key)
{
    struct slot *slot = find_slot(index, key);
    if (!slot || slot->pins == 0 || --slot->pins > 0)
        return;
    for (struct entry *entry = slot->entries; entry; entry = entry->next) {
        entry->used = ++index->clock; /* the list stays in the order of `used` */
        mark_changed(index, entry);
        link_as_last(index, entry);
    }
    free_slot_if_empty(index, slot);
}

static struct assay_index_entry public_entry(const struct entry *entry)
{
    return (struct assay_index_entry){entry->slot->key, entry->numerics, entry->bytes, entry->used};
}

bool assay_index_oldest(const struct assay_index *index, struct assay_index_entry *ret)
{
    if (index->by_use.after == &index->by_use)
        return false;
    *ret = public_entry((const struct entry *)index->by_use.after);
    return true;
}

bool assay_index_pinned(const struct assay_index *index, const struct assay_record_key *key)
{
    const struct slot *slot = find_slot(index, key);
    return slot && slot->pins > 0;
}

void assay_index_visit(const struct assay_index *index, assay_index_visit_fn fn, void *arg)
{
    for (size_t i = 0; i < index->buckets_count; i++)
        for (const struct slot *slot = index->buckets[i]; slot; slot = slot->next)
            for (const struct entry *entry = slot->entries; entry; entry = entry->next) {
                struct assay_index_entry copy = public_entry(entry);
                fn(arg, &copy, slot->pins > 0);
            }
}

void assay_index_tell_time(struct assay_index *index, uint64_t now_us)
{
    index->clock = ASSAY_MAX(index->clock, now_us);
}

uint64_t assay_index_bytes(const struct assay_index *index)
{
    return index->bytes;
}

size_t assay_index_count(const struct assay_index *index)
{
    return index->entries;
}

size_t assay_index_take_changed(struct assay_index *index, struct assay_index_entry *ret, size_t max)
{
    size_t count = 0;
    while (index->changed && count < max) {
        struct entry *entry = index->changed;
        unlink_changed(index, entry);
        ret[count++] = public_entry(entry);
    }
    return count;
}

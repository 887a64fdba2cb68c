/* The layout of LMDB 0.9's file, as far as its structure goes: 64-bit, little-endian. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/store/internal.h"

#define PAGE_HEAD_BYTES 16
#define NODE_HEAD_BYTES 8
#define META_MAGIC 0xBEEFC0DEu
#define META_VERSION 1
#define PAGE_BRANCH 0x01
#define PAGE_LEAF 0x02
#define PAGE_META 0x08
#define NODE_BIG 0x01
#define NODE_TABLE 0x02
#define NO_PAGE UINT64_MAX
#define DEPTH_MAX 32
#define PAGE_BYTES_MIN 256
#define PAGE_BYTES_MAX 65536

struct page_head {
    uint64_t number;
    uint16_t pad;
    uint16_t flags;
    uint16_t lower, upper; /* of branches and leaves: ends of the index and of the free room */
};
static_assert(sizeof(struct page_head) == PAGE_HEAD_BYTES, "as on disk");

struct tree {
    uint32_t pad; /* of the list of free pages: bytes of a page */
    uint16_t flags;
    uint16_t depth;
    uint64_t branch_pages, leaf_pages, overflow_pages, entries;
    uint64_t root;
};
static_assert(sizeof(struct tree) == 48, "as on disk");

struct meta {
    uint32_t magic, version;
    uint64_t address, map_bytes;
    struct tree free_pages, tables;
    uint64_t last_page;
    uint64_t transaction;
};
static_assert(sizeof(struct meta) == 136, "as on disk");

struct node {
    uint16_t low, high; /* leaf: bytes of the value; branch: the page, with flags as its highest part */
    uint16_t flags;
    uint16_t key_bytes;
};
static_assert(sizeof(struct node) == NODE_HEAD_BYTES, "as on disk");

enum tree_kind { TREE_FREE, TREE_TABLES, TREE_VALUES };

struct walk {
    const char *path;
    struct assay_mapping file;
    uint64_t page_bytes;
    uint64_t pages;      /* that the store says it has */
    unsigned char *seen; /* one bit a page */
    struct assay_err *err;
};

static enum assay_status damaged(const struct walk *walk, uint64_t page, const char *why)
{
    return assay_err_set(walk->err, ASSAY_DATA_LOSS, "the store's file %s is damaged: page %llu %s", walk->path,
                         (unsigned long long)page, why);
}

/* Each page has one owner. */
static enum assay_status claim(struct walk *walk, uint64_t first, uint64_t count)
{
    if (first < 2 || first >= walk->pages || count > walk->pages - first)
        return damaged(walk, first, "lies outside the store");
    for (uint64_t page = first; page < first + count; page++) {
        unsigned char bit = (unsigned char)(1u << (page & 7));
        if (walk->seen[page >> 3] & bit)
            return damaged(walk, page, "is used twice");
        walk->seen[page >> 3] |= bit;
    }
    return ASSAY_OK;
}

/* Pages that hold something must be in the file; free ones may lie beyond its end. */
static enum assay_status claim_present(struct walk *walk, uint64_t first, uint64_t count)
{
    enum assay_status status = claim(walk, first, count);
    if (status == ASSAY_OK && (first + count) * walk->page_bytes > walk->file.bytes)
        return damaged(walk, first, "is cut off: the file ends before it");
    return status;
}

/* A value of the list of free pages: count, then page numbers. */
static enum assay_status check_free_list(struct walk *walk, uint64_t page, const unsigned char *value, uint64_t bytes)
{
    uint64_t count, at, above = UINT64_MAX;
    if (bytes < sizeof count)
        return damaged(walk, page, "has a list of free pages without a length");
    memcpy(&count, value, sizeof count);
    if (count > bytes / sizeof count - 1)
        return damaged(walk, page, "has a list of free pages that is longer than its room");
    for (uint64_t i = 0; i < count; i++) {
        memcpy(&at, value + (i + 1) * sizeof at, sizeof at);
        if (at >= above)
            return damaged(walk, page, "has a list of free pages that is out of order");
        above = at;
        enum assay_status status = claim(walk, at, 1);
        if (status != ASSAY_OK)
            return status;
    }
    return ASSAY_OK;
}

static enum assay_status walk_tree(struct walk *walk, const struct tree *tree, enum tree_kind kind);

static enum assay_status check_leaf_node(struct walk *walk, uint64_t page, const struct node *node,
                                         const unsigned char *value, uint64_t room, enum tree_kind kind)
{
    uint64_t bytes = (uint64_t)node->low | (uint64_t)node->high << 16;
    if (node->flags & NODE_BIG) {
        uint64_t first, count = (PAGE_HEAD_BYTES - 1 + bytes) / walk->page_bytes + 1;
        if (room < sizeof first)
            return damaged(walk, page, "has an entry that runs over its end");
        memcpy(&first, value, sizeof first);
        enum assay_status status = claim_present(walk, first, count);
        if (status != ASSAY_OK)
            return status;
        value = walk->file.data + first * walk->page_bytes + PAGE_HEAD_BYTES;
    } else if (bytes > room) {
        return damaged(walk, page, "has an entry that runs over its end");
    }
    if (kind == TREE_FREE)
        return check_free_list(walk, page, value, bytes);
    bool is_table = node->flags & NODE_TABLE;
    if (is_table != (kind == TREE_TABLES) || (is_table && bytes != sizeof(struct tree)))
        return damaged(walk, page, "has an entry of the wrong kind");
    if (!is_table)
        return ASSAY_OK;
    struct tree table;
    memcpy(&table, value, sizeof table);
    return walk_tree(walk, &table, TREE_VALUES);
}

static enum assay_status walk_page(struct walk *walk, uint64_t page, unsigned levels, enum tree_kind kind)
{
    enum assay_status status = claim_present(walk, page, 1);
    if (status != ASSAY_OK)
        return status;
    const unsigned char *bytes = walk->file.data + page * walk->page_bytes;
    struct page_head head;
    memcpy(&head, bytes, sizeof head);
    bool branch = levels > 1;
    if (head.number != page || head.flags != (branch ? PAGE_BRANCH : PAGE_LEAF))
        return damaged(walk, page, "is not the page that its parent wants");
    if (head.lower < PAGE_HEAD_BYTES || head.lower > head.upper || head.upper > walk->page_bytes || head.lower % 2 != 0)
        return damaged(walk, page, "has an index that does not fit");
    size_t entries = (size_t)(head.lower - PAGE_HEAD_BYTES) / 2;
    if (entries < (branch && kind != TREE_FREE ? 2 : 1))
        return damaged(walk, page, "has too few entries");
    for (size_t i = 0; i < entries && status == ASSAY_OK; i++) {
        uint16_t at;
        struct node node;
        memcpy(&at, bytes + PAGE_HEAD_BYTES + 2 * i, sizeof at);
        if (at < head.upper || (uint64_t)at + NODE_HEAD_BYTES > walk->page_bytes)
            return damaged(walk, page, "has an entry outside of it");
        memcpy(&node, bytes + at, sizeof node);
        uint64_t end = (uint64_t)at + NODE_HEAD_BYTES + node.key_bytes;
        if (end > walk->page_bytes)
            return damaged(walk, page, "has a key that runs over its end");
        if (branch)
            status = walk_page(walk, (uint64_t)node.low | (uint64_t)node.high << 16 | (uint64_t)node.flags << 32,
                               levels - 1, kind);
        else
            status = check_leaf_node(walk, page, &node, bytes + end, walk->page_bytes - end, kind);
    }
    return status;
}

static enum assay_status walk_tree(struct walk *walk, const struct tree *tree, enum tree_kind kind)
{
    if (tree->root == NO_PAGE)
        return ASSAY_OK;
    if (tree->depth < 1 || tree->depth > DEPTH_MAX)
        return damaged(walk, tree->root, "is the root of a tree of impossible depth");
    return walk_page(walk, tree->root, tree->depth, kind);
}

/* The newer of the two metas. */
static enum assay_status read_meta(struct walk *walk, struct meta *ret)
{
    struct meta metas[2];
    walk->page_bytes = PAGE_BYTES_MIN;
    for (unsigned i = 0; i < 2; i++) {
        struct page_head head;
        uint64_t at = i * walk->page_bytes;
        if (at + sizeof head + sizeof metas[i] > walk->file.bytes)
            return damaged(walk, i, "is cut off: the file ends before it");
        memcpy(&head, walk->file.data + at, sizeof head);
        memcpy(&metas[i], walk->file.data + at + sizeof head, sizeof metas[i]);
        if (!(head.flags & PAGE_META) || metas[i].magic != META_MAGIC)
            return damaged(walk, i, "is not the head of an LMDB file");
        if (metas[i].version != META_VERSION)
            return assay_err_set(walk->err, ASSAY_UNIMPLEMENTED, "%s has LMDB layout %u, wanted %d", walk->path,
                                 metas[i].version, META_VERSION);
        if (i == 0)
            walk->page_bytes = metas[0].free_pages.pad;
        if (walk->page_bytes < PAGE_BYTES_MIN || walk->page_bytes > PAGE_BYTES_MAX ||
            (walk->page_bytes & (walk->page_bytes - 1)) != 0 || metas[i].free_pages.pad != walk->page_bytes)
            return damaged(walk, i, "names an impossible page size");
    }
    *ret = metas[1].transaction > metas[0].transaction ? metas[1] : metas[0];
    return ASSAY_OK;
}

static enum assay_status check_mapped(struct walk *walk)
{
    struct meta meta = {0};
    enum assay_status status = read_meta(walk, &meta);
    if (status != ASSAY_OK)
        return status;
    /* Pages at the end that were taken and given back by one transaction are never written; no store has many of those.
     */
    walk->pages = meta.last_page + 1;
    if (meta.last_page < 1 || meta.last_page > walk->file.bytes / walk->page_bytes * 2 + (1u << 20))
        return damaged(walk, meta.last_page, "cannot be the last one of a file of this size");
    walk->seen = calloc(walk->pages / 8 + 1, 1);
    if (!walk->seen)
        return assay_err_set(walk->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while checking %s", walk->path);
    status = walk_tree(walk, &meta.tables, TREE_TABLES);
    if (status == ASSAY_OK)
        status = walk_tree(walk, &meta.free_pages, TREE_FREE);
    free(walk->seen);
    return status;
}

enum assay_status store_check_file(const char *path, struct assay_err *err)
{
    struct walk walk = {.path = path, .err = err};
    enum assay_status status = assay_map_file(path, &walk.file, err);
    if (status != ASSAY_OK)
        return status;
    status = check_mapped(&walk);
    assay_unmap(&walk.file);
    return status;
}

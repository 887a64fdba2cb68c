/* Weights of 4 bits: from the order of files to that of panels, and to what they mean. */
#include <stdlib.h>
#include <string.h>

#include "common/kernels/gemm/panels.h"

/* Columns that are read from all 32 rows before moving on, so that each line of the source is read once. */
#define CHUNK 64

struct code_packing {
    const struct assay_codes *src;
    const struct assay_panels *w;
};

/* Scales and zeros of a panel's rows side by side, group by group. */
static void pack_scales(const struct code_packing *p, size_t panel, size_t rows)
{
    const struct assay_panels *w = p->w;
    size_t first = panel * ASSAY_PANEL, stride = w->row_span / w->group;
    for (size_t g = 0; g < w->groups; g++)
        for (size_t r = 0; r < ASSAY_PANEL; r++) {
            size_t to = (panel * w->groups + g) * ASSAY_PANEL + r, from = (first + r) * stride + g;
            w->scales[to] = r < rows ? p->src->scales[from] : 0.0f;
            if (w->zeros)
                w->zeros[to] = r < rows ? p->src->zeros[from] : 0;
        }
}

static void pack_codes_panel(void *arg, size_t panel, size_t thread)
{
    (void)thread;
    const struct code_packing *p = arg;
    const size_t half = ASSAY_PANEL / 2, depth = ASSAY_BLOCK_DEPTH, k = p->w->k;
    size_t first = panel * ASSAY_PANEL, rows = ASSAY_MIN(p->w->n - first, (size_t)ASSAY_PANEL);
    size_t stride = assay_codes_stride(p->w, panel);
    uint8_t *dst = assay_codes_at(p->w, panel);
    for (size_t kk = 0; kk < k; kk += depth)
        memset(dst + kk / depth * stride, 0, ASSAY_BLOCK_BYTES);
    for (size_t begin = 0; begin < k; begin += CHUNK) {
        size_t end = ASSAY_MIN(begin + CHUNK, k);
        for (size_t r = 0; r < rows; r++) {
            size_t at = (first + r) * p->src->row_codes;
            unsigned to = r < half ? 0 : 4;
            for (size_t kk = begin; kk < end; kk++) {
                unsigned from = ((at + kk) % 2 != 0) != p->src->high_first ? 4 : 0;
                unsigned code = p->src->codes[(at + kk) / 2] >> from & 15;
                dst[kk / depth * stride + r % half * depth + kk % depth] |= (uint8_t)(code << to);
            }
        }
    }
    if (p->w->groups > 0)
        pack_scales(p, panel, rows);
}

static size_t common_divisor(size_t a, size_t b)
{
    while (b != 0) {
        size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

struct code_room {
    size_t code_bytes, count; /* of scales, and of zeros */
    bool even;                /* scales lie panel by panel */
};

/* False: no memory can hold it. */
static bool measure_codes(const struct assay_codes *src, size_t n, size_t k, struct code_room *ret)
{
    size_t panels = n / ASSAY_PANEL + (n % ASSAY_PANEL != 0), groups = k / src->group + (k % src->group != 0), bytes;
    struct code_room room = {.count = src->groups,
                             .even = src->row_span % src->group == 0 &&
                                     (groups == 1 || src->group % ASSAY_BLOCK_DEPTH == 0)};
    bool fits = !__builtin_mul_overflow(panels, k / ASSAY_BLOCK_DEPTH + 1, &bytes) &&
                !__builtin_mul_overflow(bytes, ASSAY_BLOCK_BYTES, &bytes);
    if (room.even)
        fits = fits && !__builtin_mul_overflow(panels * ASSAY_PANEL, groups, &room.count);
    fits = fits && !__builtin_mul_overflow(room.count, sizeof(float) + 1, &bytes);
    room.code_bytes = panels * ((k + ASSAY_BLOCK_DEPTH - 1) / ASSAY_BLOCK_DEPTH) * ASSAY_BLOCK_BYTES;
    *ret = room;
    return fits;
}

static size_t bytes_of(const struct code_room *room, bool has_zeros)
{
    return room->code_bytes + room->count * (sizeof(float) + has_zeros);
}

size_t assay_panels_codes_bytes(const struct assay_codes *src, size_t n, size_t k)
{
    struct code_room room;
    return measure_codes(src, n, k, &room) ? bytes_of(&room, !src->table) : SIZE_MAX;
}

enum assay_status assay_panels_pack_codes(struct assay_pool *pool, const struct assay_codes *src, size_t n, size_t k,
                                          struct assay_panels *ret, struct assay_err *err)
{
    struct assay_panels w = {.type = src->table ? ASSAY_WEIGHTS_TABLE4 : ASSAY_WEIGHTS_INT4,
                             .n = n,
                             .k = k,
                             .group = src->group,
                             .row_span = src->row_span,
                             .step = common_divisor(src->row_span, src->group)};
    struct code_room room;
    if (measure_codes(src, n, k, &room)) {
        w.groups = room.even ? k / src->group + (k % src->group != 0) : 0;
        w.data = assay_panels_room(room.code_bytes + ASSAY_BLOCK_BYTES); /* as a little more is read */
        w.scales = assay_panels_room(room.count * sizeof *w.scales);
        w.zeros = src->table ? NULL : assay_panels_room(room.count);
    }
    if (!w.data || !w.scales || (!src->table && !w.zeros)) {
        assay_panels_release(&w);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for weights of %zu x %zu 4-bit codes", n, k);
    }
    memset((uint8_t *)w.data + room.code_bytes, 0, ASSAY_BLOCK_BYTES);
    if (src->table)
        memcpy(w.table, src->table, sizeof w.table);
    if (!room.even)
        memcpy(w.scales, src->scales, room.count * sizeof *w.scales);
    if (!room.even && !src->table)
        memcpy(w.zeros, src->zeros, room.count);
    w.bytes = bytes_of(&room, !src->table);
    struct code_packing packing = {src, &w};
    assay_pool_run(pool, assay_panels_count(&w), pack_codes_panel, &packing);
    *ret = w;
    return ASSAY_OK;
}

/* Scales and zeros (0 where there are none) of a panel's rows at column kk. Rows beyond n have a scale of 0. */
static void group_at(const struct assay_panels *w, size_t panel, size_t kk, float scales[ASSAY_PANEL],
                     float zeros[ASSAY_PANEL])
{
    size_t first = panel * ASSAY_PANEL, rows = ASSAY_MIN(w->n - first, (size_t)ASSAY_PANEL);
    for (size_t j = 0; j < ASSAY_PANEL; j++) {
        size_t at = w->groups > 0 ? (panel * w->groups + kk / w->group) * ASSAY_PANEL + j
                                  : ((first + j) * w->row_span + kk) / w->group;
        scales[j] = j < rows ? w->scales[at] : 0.0f;
        zeros[j] = w->zeros && j < rows ? (float)w->zeros[at] : 0.0f;
    }
}

/* Where scales change within a block. */
static void unpack_slowly(const struct assay_panels *w, size_t panel, size_t begin, size_t depth, float *dst)
{
    const uint8_t *codes = assay_codes_at(w, panel);
    size_t stride = assay_codes_stride(w, panel), half = ASSAY_PANEL / 2;
    float scales[ASSAY_PANEL], zeros[ASSAY_PANEL];
    for (size_t kk = begin; kk < begin + depth; kk++, dst += ASSAY_PANEL) {
        const uint8_t *at = codes + kk / ASSAY_BLOCK_DEPTH * stride + kk % ASSAY_BLOCK_DEPTH;
        if (kk == begin || kk % w->step == 0)
            group_at(w, panel, kk, scales, zeros);
        for (size_t j = 0; j < ASSAY_PANEL; j++) {
            unsigned code = at[j % half * ASSAY_BLOCK_DEPTH] >> (j < half ? 0 : 4) & 15;
            dst[j] = (w->type == ASSAY_WEIGHTS_TABLE4 ? w->table[code] : (float)code - zeros[j]) * scales[j];
        }
    }
}

void assay_codes_unpack(const struct assay_gemm_ops *ops, const struct assay_panels *w, size_t panel, size_t begin,
                        size_t depth, float *dst)
{
    size_t step = w->groups == 1 ? SIZE_MAX : w->step, stride = assay_codes_stride(w, panel);
    if (step != SIZE_MAX && step % ASSAY_BLOCK_DEPTH != 0) {
        unpack_slowly(w, panel, begin, depth, dst);
        return;
    }
    float scales[ASSAY_PANEL], zeros[ASSAY_PANEL];
    for (size_t kk = begin, next; kk < begin + depth; dst += (next - kk) * ASSAY_PANEL, kk = next) {
        next = step == SIZE_MAX ? begin + depth : ASSAY_MIN(kk - kk % step + step, begin + depth);
        group_at(w, panel, kk, scales, zeros);
        const uint8_t *src = assay_codes_at(w, panel) + kk / ASSAY_BLOCK_DEPTH * stride;
        if (w->type == ASSAY_WEIGHTS_TABLE4)
            ops->unpack_table4(next - kk, src, stride, w->table, scales, dst);
        else
            ops->unpack_int4(next - kk, src, stride, zeros, scales, dst);
    }
}

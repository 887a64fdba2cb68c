#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/kernels/gemm/panels.h"

struct packing {
    const unsigned char *src;
    unsigned char *dst;
    size_t element_bytes, n, k;
};

#define LARGE_PAGE ((size_t)1 << 21)
/* Columns that are read from all 32 rows before moving on, so that each line of the source is read once. */
#define CHUNK 64

static void pack_panel(void *arg, size_t panel, size_t thread)
{
    (void)thread;
    const struct packing *p = arg;
    size_t bytes = p->element_bytes, first = panel * ASSAY_PANEL, rows = ASSAY_MIN(p->n - first, (size_t)ASSAY_PANEL);
    unsigned char *dst = p->dst + panel * p->k * ASSAY_PANEL * bytes;
    if (rows < ASSAY_PANEL)
        memset(dst, 0, p->k * ASSAY_PANEL * bytes);
    for (size_t begin = 0; begin < p->k; begin += CHUNK) {
        size_t end = ASSAY_MIN(begin + CHUNK, p->k);
        for (size_t r = 0; r < rows; r++) {
            const unsigned char *src = p->src + (first + r) * p->k * bytes;
            for (size_t kk = begin; kk < end; kk++) {
                unsigned char *to = dst + (kk * ASSAY_PANEL + r) * bytes;
                if (bytes == 1)
                    *to = src[kk];
                else if (bytes == 2)
                    memcpy(to, src + kk * 2, 2);
                else
                    memcpy(to, src + kk * 4, 4);
            }
        }
    }
}

/* Reading weights at the speed of memory takes a walk of the page tables each 4 KB, which costs a fourth of that speed:
 * large pages where the system has them for the asking. */
void *assay_panels_room(size_t bytes)
{
    size_t alignment = bytes >= LARGE_PAGE ? LARGE_PAGE : 64;
    if (bytes > SIZE_MAX - LARGE_PAGE)
        return NULL;
    void *room = aligned_alloc(alignment, (bytes + 63) / 64 * 64);
    if (room && alignment == LARGE_PAGE)
        madvise(room, bytes, MADV_HUGEPAGE);
    return room;
}

static bool weights_of(enum assay_dtype dtype, enum assay_weights *ret)
{
    static const struct {
        enum assay_dtype dtype;
        enum assay_weights type;
    } known[] = {{ASSAY_F32, ASSAY_WEIGHTS_F32},
                 {ASSAY_BF16, ASSAY_WEIGHTS_BF16},
                 {ASSAY_F16, ASSAY_WEIGHTS_F16},
                 {ASSAY_I8, ASSAY_WEIGHTS_I8}};
    for (size_t i = 0; i < ASSAY_COUNT(known); i++) {
        if (known[i].dtype == dtype) {
            *ret = known[i].type;
            return true;
        }
    }
    return false;
}

enum assay_status assay_panels_pack(struct assay_pool *pool, enum assay_dtype dtype, const void *src,
                                    const float *scales, size_t n, size_t k, struct assay_panels *ret,
                                    struct assay_err *err)
{
    struct assay_panels w = {.n = n, .k = k};
    if (!weights_of(dtype, &w.type))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "weights of dtype %s cannot be multiplied; F32, BF16, F16 and I8 can",
                             assay_dtype_name(dtype));
    size_t element_bytes = assay_dtype_bytes(dtype), panels = n / ASSAY_PANEL + (n % ASSAY_PANEL != 0), bytes;
    bool fits = !__builtin_mul_overflow(panels, k, &bytes) &&
                !__builtin_mul_overflow(bytes, ASSAY_PANEL * element_bytes, &bytes);
    w.data = fits ? assay_panels_room(ASSAY_MAX(bytes, (size_t)1)) : NULL;
    if (dtype == ASSAY_I8)
        w.scales = assay_panels_room(ASSAY_MAX(panels, (size_t)1) * ASSAY_PANEL * sizeof *w.scales);
    if (!w.data || (dtype == ASSAY_I8 && !w.scales)) {
        assay_panels_release(&w);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for weights of %zu x %zu %s", n, k,
                             assay_dtype_name(dtype));
    }
    w.bytes = bytes;
    if (dtype == ASSAY_I8) {
        memset(w.scales, 0, panels * ASSAY_PANEL * sizeof *w.scales);
        memcpy(w.scales, scales, n * sizeof *w.scales);
        w.bytes += panels * ASSAY_PANEL * sizeof *w.scales;
    }
    struct packing packing = {.src = src, .dst = w.data, .element_bytes = element_bytes, .n = n, .k = k};
    assay_pool_run(pool, panels, pack_panel, &packing);
    *ret = w;
    return ASSAY_OK;
}

void assay_panels_release(struct assay_panels *panels)
{
    free(panels->data);
    free(panels->scales);
    free(panels->zeros);
    *panels = (struct assay_panels){0};
}

#include "tests/kernels/check_support.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define POISON 0xcd
#define PATTERN 0x7fc00000u

static uint32_t state = 1;

void noise_seed(uint32_t seed)
{
    state = seed;
}

float noise(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state * 0x1p-31f;
}

struct guarded guarded_new(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (n * sizeof(float) + page - 1) / page * page + page;
    struct guarded array = {.n = n, .bytes = used + page};
    array.base = mmap(NULL, array.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(array.base != MAP_FAILED);
    assert_int_equal(mprotect(array.base + used, page, PROT_NONE), 0);
    memset(array.base, POISON, used);
    array.x = (float *)(void *)(array.base + used) - n;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = PATTERN | (uint32_t)(i & 0x3fffff);
        memcpy(&array.x[i], &bits, sizeof bits);
    }
    return array;
}

struct guarded guarded_noise(size_t n)
{
    struct guarded array = guarded_new(n);
    for (size_t i = 0; i < n; i++)
        array.x[i] = noise();
    return array;
}

void guarded_free(struct guarded *array)
{
    for (const unsigned char *p = array->base; p < (const unsigned char *)array->x; p++)
        if (*p != POISON)
            fail_msg("a byte %td before an array of %zu floats was written", (const unsigned char *)array->x - p,
                     array->n);
    munmap(array->base, array->bytes);
    *array = (struct guarded){0};
}

void want_same_bits(const float *got, const float *want, size_t n, const char *path, const char *what, size_t size)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            fail_msg("%s, %s, size %zu: element %zu is %a, wanted %a", path, what, size, i, (double)got[i],
                     (double)want[i]);
}

struct assay_pool *pool_of(size_t threads)
{
    static struct assay_pool *pools[4];
    struct assay_err err = ASSAY_ERR_INIT;
    if (!pools[threads] && assay_pool_new(threads, NULL, &pools[threads], &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return pools[threads];
}

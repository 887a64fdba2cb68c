/* XXH3 of libxxhash; where the library has one for each instruction set of x86, that of the processor, which is two to
 * three times as fast. States may stand on the stack. */
#pragma once

#define XXH_STATIC_LINKING_ONLY
#ifdef ASSAY_XXH3_DISPATCH
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

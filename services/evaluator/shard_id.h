/* The name of a store among several. */
#pragma once

#include "common/base/shard_map.h"

/* From STORE_DIR.id, beside the store so that it outlives a damaged one; made up when there is none. The store's parent
 * exists. Errors name the file. */
enum assay_status assay_shard_id_of_store(const char *store_dir, struct assay_shard_id *ret,
                                          struct assay_err *err) ASSAY_MUST_USE;

/* Memory of this machine. */
#pragma once

#include <stdint.h>

/* Bytes that this process may count on: those of the machine, or of its control group (v2) where that has fewer. 0 when
 * neither is known. */
uint64_t assay_memory_bytes(void);

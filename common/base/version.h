#pragma once

#define ASSAY_VERSION "0.1.0"

/* Part of every record key: raised when the meaning of a record's bytes changes. */
#define ASSAY_RECORD_VERSION 1

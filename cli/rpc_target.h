/* Whom `assay rpc` calls. */
#pragma once

#include "cli/remote.h"

/* The endpoint of `target`: an endpoint as it is ("ipc://...", "tcp://..."), "coordinator" of the stack on data_given
 * (as --data), or what that coordinator lists: "evaluator", "quantizer", "inference", "inference:int8". NOT_FOUND: no
 * such service is registered. INVALID_ARGUMENT: neither. UNAVAILABLE: no stack. */
enum assay_status assay_rpc_target_find(const char *target, const char *data_given, char endpoint[ASSAY_PATH_MAX],
                                        struct assay_err *err) ASSAY_MUST_USE;

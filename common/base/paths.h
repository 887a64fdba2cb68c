/* Where a stack keeps what, under one data directory. */
#pragma once

#include "common/base/fs.h"

/* --data, else $XDG_DATA_HOME/assay, else $HOME/.local/share/assay. Absolute. `given` may be NULL. */
enum assay_status assay_data_dir(const char *given, char path[ASSAY_PATH_MAX], struct assay_err *err) ASSAY_MUST_USE;

/* data/run, mode 0700: sockets. */
#define ASSAY_RUN_DIR "run"
#define ASSAY_COORDINATOR_SOCKET "run/coordinator.sock"
/* data/artifacts/VARIANT-ID: one directory an artifact; names that start with '.' are half-made ones. */
#define ASSAY_ARTIFACTS_DIR "artifacts"
/* data/coordinator, data/evaluator: LMDB environments, one process each. */
#define ASSAY_COORDINATOR_DIR "coordinator"
#define ASSAY_EVALUATOR_DIR "evaluator"
/* data/keys/server.key, server.pub: of a stack that other hosts reach; data/keys/allowed/NAME.pub: who may connect. */
#define ASSAY_KEYS_DIR "keys"
#define ASSAY_ALLOWED_KEYS_DIR "keys/allowed"
/* data/logs/SERVICE.log */
#define ASSAY_LOGS_DIR "logs"

/* "ipc://DATA/NAME" into endpoint. INVALID_ARGUMENT when the path is longer than a Unix socket's may be. */
enum assay_status assay_ipc_endpoint(const char *data_dir, const char *name, char endpoint[ASSAY_PATH_MAX],
                                     struct assay_err *err) ASSAY_MUST_USE;

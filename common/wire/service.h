/* What every service process does the same way: settings, data directory, threads, loop, server, membership, shutdown.
 * A service says what is its own in a struct assay_service_program; assay_service_main does the rest.
 *
 * Order: settings, check, data directory, pool, loop, open, server, client of the coordinator, prepare, the loop runs,
 * start, membership, begin. The pages of --http open before the loop runs. On SIGTERM or SIGINT: leave; then (or when a
 * step failed, for what was done of it) Health says NOT_SERVING and new calls are answered UNAVAILABLE, drain, unary
 * calls under way get 2 s, the pages close, membership ends, clients and server are freed, the loop ends, close. */
#pragma once

#include "common/base/fs.h"
#include "common/base/pool.h"
#include "common/base/settings.h"
#include "common/wire/member.h"
#include "common/wire/observe.h"
#include "common/wire/security.h"
#include "common/wire/server.h"

/* Settings of a service's own, beside the common ones. */
#define ASSAY_SERVICE_SETTINGS_MAX 16

/* What all services have. Strings point into argv or the environment. */
struct assay_service_settings {
    const char *data, *listen;
    const char *public_endpoint, *advertise; /* "" or NULL: none */
    const char *server_key, *keys, *key, *server_public_key;
    int64_t parts_max, message_mb_max, calls_max, rate_max, garbage_max, connections_max, key_connections_max;
    /* Members of a stack, so all but the coordinator: */
    const char *coordinator, *cpus;
    int64_t threads;
    struct assay_observe_options observe;
};

/* Rows of all services; *ret_count of them. Defaults are put into *settings. */
#define ASSAY_SERVICE_COMMON_ROWS 20
struct assay_service_program;
void assay_service_rows(const struct assay_service_program *program, struct assay_service_settings *settings,
                        struct assay_setting rows[ASSAY_SERVICE_COMMON_ROWS], size_t *ret_count);

/* One process. `arg` is the service's own state. */
struct assay_service_process {
    struct assay_service_settings settings;
    char data_dir[ASSAY_PATH_MAX];
    char listen[ASSAY_PATH_MAX], coordinator[ASSAY_PATH_MAX]; /* as server.h and client.h take them */
    char advertised[ASSAY_PATH_MAX];                          /* what is registered: where others connect */
    struct assay_pool *pool;                                  /* NULL in the coordinator */
    struct assay_loop *loop;
    struct assay_server *server;
    struct assay_client *client; /* of the coordinator; NULL in the coordinator */
    struct assay_member *member; /* NULL in the coordinator */
    struct assay_observe *observe;
    bool loop_runs;
    int signal_number; /* SIGTERM or SIGINT, once one has come */
    void *arg;
};

typedef enum assay_status (*assay_service_fn)(struct assay_service_process *service, struct assay_err *err);

/* Every function may be NULL. Those of one process run on its main thread, one after the other. */
struct assay_service_program {
    const char *name; /* "evaluator": the program is assay-evaluator */
    const char *usage, *summary;
    const struct assay_setting *settings; /* of its own; at most ASSAY_SERVICE_SETTINGS_MAX */
    size_t settings_count;
    bool is_coordinator;         /* no membership, no pool */
    const char *threads_help;    /* what --threads are for */
    Assay__V1__ServiceKind kind; /* of a member */
    assay_service_fn check;      /* the settings; a failure is a usage error */
    assay_service_fn open;       /* files of its own; data_dir is there, the loop too, nothing is bound */
    assay_service_fn prepare;    /* adds its services to the server, before the loop runs */
    /* Adds its own metrics; what their collectors look at lives until `close`. */
    void (*measure)(struct assay_service_process *service, struct assay_metrics *metrics);
    const char *const *precision; /* what a worker runs, once the settings are known */
    assay_service_fn start;       /* the loop runs, membership has not begun */
    assay_service_fn begin;       /* last; membership has begun */
    /* Fills what is the service's own in its registration; strings live until the service ends. */
    void (*describe)(struct assay_service_process *service, Assay__V1__RegisterRequest *registration);
    assay_member_counters_fn count; /* gets arg */
    /* A signal has come; everything serves still. */
    void (*leave)(struct assay_service_process *service);
    /* Gives back what it has, answers what is under way, within a time of its own. The loop and the membership still
     * run. Only when the loop ran. */
    void (*drain)(struct assay_service_process *service);
    /* After the server was freed and the loop has ended; also after a failed start, for whatever was made. */
    void (*close)(struct assay_service_process *service);
};

/* The whole process: returns its exit code. */
int assay_service_main(const struct assay_service_program *program, int argc, char **argv, void *arg);

/* What makes a process a member of a stack: it registers with the coordinator, sends heartbeats with its counters,
 * registers again when the coordinator forgot it, and ends on SIGTERM or SIGINT. */
#pragma once

#include "common/base/digest.h"
#include "common/wire/client.h"
#include "proto/control.pb-c.h"

/* First thing in main, before any thread starts: blocks SIGTERM and SIGINT for assay_shutdown_wait and ignores SIGPIPE.
 */
void assay_shutdown_prepare(void);
/* Waits for SIGTERM or SIGINT; returns its number. Main thread. */
int assay_shutdown_wait(void);
/* Makes assay_shutdown_wait return, from any thread (for a fatal error elsewhere). */
void assay_shutdown_request(void);

struct assay_member;

/* Called on the member's thread before each heartbeat: fills the service's own counts (RSS and CPU are filled already).
 */
typedef void (*assay_member_counters_fn)(void *arg, Assay__V1__ServiceCounters *counters);

/* Models that a worker may say it has loaded. */
#define ASSAY_MEMBER_LOADED_MAX 16
/* The same for a worker: ids of the variants whose models are loaded, the one used last first. The number. */
typedef size_t (*assay_member_loaded_fn)(void *arg, struct assay_digest ids[ASSAY_MEMBER_LOADED_MAX]);

/* Starts a thread that keeps the service registered through `coordinator` (which outlives it). The registration is
 * copied; its pid and host are filled here. `counters` may be NULL. */
enum assay_status assay_member_start(struct assay_client *coordinator, const Assay__V1__RegisterRequest *registration,
                                     assay_member_counters_fn counters, void *arg, struct assay_member **ret,
                                     struct assay_err *err) ASSAY_MUST_USE;
/* From now on heartbeats say what is loaded; `arg` outlives the member. Any thread. */
void assay_member_tell_loaded(struct assay_member *member, assay_member_loaded_fn loaded, void *arg);
/* The id of the present registration, waiting up to wait_ms for one; 0 when there is none. Any thread. */
uint64_t assay_member_id(struct assay_member *member, int64_t wait_ms);
/* The coordinator did not know `id`: register again now. Any thread. */
void assay_member_forgotten(struct assay_member *member, uint64_t id);
void assay_member_stop(struct assay_member *member); /* joins and frees; NULL is fine */

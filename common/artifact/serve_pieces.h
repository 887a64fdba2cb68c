/* The service Artifacts: artifacts and heads of a directory, in pieces, for processes that do not see the directory.
 * Names are ids that are looked up; no path comes from outside. */
#pragma once

#include "common/wire/server.h"

/* Threads that read; pieces that are on their way at once, each of ASSAY_PIECE_BYTES at most; calls that wait. */
#define ASSAY_PIECES_THREADS 2
#define ASSAY_PIECES_IN_FLIGHT_MAX 32
#define ASSAY_PIECES_WAITING_MAX 256

struct assay_piece_server;

/* Adds the service to the server, before the loop runs. */
enum assay_status assay_piece_server_start(struct assay_server *server, const char *artifacts_dir,
                                           struct assay_piece_server **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Answers what waits with UNAVAILABLE and ends the threads. The loop runs still. NULL is fine. */
void assay_piece_server_stop(struct assay_piece_server *server);
/* Once no piece is on its way any more: after the server was freed. Stopped before; NULL is fine. */
void assay_piece_server_free(struct assay_piece_server *server);

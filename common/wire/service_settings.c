#include "common/base/limits.h"
#include "common/wire/service.h"

/* A row with a text or a number as its value. */
static struct assay_setting text(const char *name, const char **target, const char *argument, const char *help)
{
    return (struct assay_setting){
        .name = name, .type = ASSAY_SETTING_STRING, .target = target, .argument = argument, .help = help};
}

static struct assay_setting number(const char *name, int64_t *target, double max, const char *help)
{
    return (struct assay_setting){
        .name = name, .type = ASSAY_SETTING_INT, .target = target, .min = 1, .max = max, .argument = "N", .help = help};
}

static void set_defaults(struct assay_service_settings *settings)
{
    const struct assay_server_limits limits = ASSAY_SERVER_LIMITS_DEFAULT;
    settings->threads = (int64_t)ASSAY_MIN(assay_cpu_count(), ASSAY_POOL_THREADS_MAX);
    settings->parts_max = limits.parts;
    settings->message_mb_max = (int64_t)(limits.message_bytes >> 20);
    settings->calls_max = limits.calls;
    settings->rate_max = limits.messages_per_s;
    settings->garbage_max = limits.garbage;
    settings->connections_max = limits.connections;
    settings->key_connections_max = limits.key_connections;
}

void assay_service_rows(const struct assay_service_program *program, struct assay_service_settings *settings,
                        struct assay_setting rows[ASSAY_SERVICE_COMMON_ROWS], size_t *ret_count)
{
    size_t n = 0;
    set_defaults(settings);
    rows[n++] = text("data", &settings->data, "DIR", "data directory of the stack");
    rows[n++] =
        text("listen", &settings->listen, "ENDPOINT",
             program->is_coordinator
                 ? "ipc://PATH, tcp://127.0.0.1:PORT or tcp://[::1]:PORT, DATA/run/coordinator.sock if not given"
                 : "where to serve, DATA/run/SERVICE-PID.sock if not given");
    if (!program->is_coordinator) {
        rows[n++] = text("coordinator", &settings->coordinator, "ENDPOINT",
                         "the coordinator, DATA/run/coordinator.sock if not given");
        rows[n++] = text("server-public-key", &settings->server_public_key, "FILE",
                         "public key of the coordinator, where it is tcp beyond this machine");
        rows[n++] = number("threads", &settings->threads, ASSAY_POOL_THREADS_MAX, program->threads_help);
        rows[n++] = text("cpus", &settings->cpus, "LIST", "CPUs to pin the threads to, as 0-3,8");
    }
    rows[n++] =
        text("public", &settings->public_endpoint, "ENDPOINT",
             "serve here too, for other hosts, as tcp://10.0.0.1:7421 or tcp://[2001:db8::1]:7421; needs the next two");
    rows[n] = text("server-key", &settings->server_key, "FILE", "secret key to serve tcp with (CURVE)");
    rows[n++].is_secret = true;
    rows[n++] = text("keys", &settings->keys, "DIR", "public keys that may connect, one *.pub file each");
    rows[n++] = text("advertise", &settings->advertise, "HOST",
                     "host that others connect to, where --public is all addresses (0.0.0.0)");
    rows[n] = text("key", &settings->key, "FILE", "secret key to connect to others with");
    rows[n++].is_secret = true;
    rows[n++] = number("limit-parts", &settings->parts_max, ASSAY_WIRE_PARTS_MAX, "parts of one message");
    rows[n++] =
        number("limit-message-mb", &settings->message_mb_max, ASSAY_WIRE_MESSAGE_BYTES_MAX >> 20, "MiB of one message");
    rows[n++] = number("limit-calls", &settings->calls_max, ASSAY_WIRE_INFLIGHT_MAX, "calls of one peer at once");
    rows[n++] = number("limit-rate", &settings->rate_max, 1e9, "messages a second of one peer");
    rows[n++] = number("limit-garbage", &settings->garbage_max, 1e9,
                       "messages that nobody understands, before a peer is cut off");
    rows[n++] = number("limit-connections", &settings->connections_max, ASSAY_WIRE_PEERS_MAX, "connections");
    rows[n++] =
        number("limit-key-connections", &settings->key_connections_max, ASSAY_WIRE_PEERS_MAX, "connections of one key");
    *ret_count = n;
}

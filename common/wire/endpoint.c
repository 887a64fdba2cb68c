#include "common/wire/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/wire/limits.h"

#define IPC "ipc://"
#define TCP "tcp://"
/* A peer that does not finish ZeroMQ's handshake in that time is cut off. */
#define HANDSHAKE_MS 5000
/* The kernel finds dead TCP connections: probes on idle ones, a limit for bytes that nobody acknowledges. Over ipc it
 * tells at once when a process has ended. PINGs (limits.h) find a process that stands still. ZeroMQ's own heartbeats
 * are not used: their timer aborts the process (4.3.4, `!_io_error`) when a connection breaks while its pipe takes
 * nothing.
 */
#define SILENT_MS 10000
#define PROBE_AFTER_S 4
#define PROBE_EVERY_S 2
#define PROBES 3
#define RECONNECT_MS 20
#define RECONNECT_MAX_MS 200
#define CLOSE_WAIT_MS 1000

static enum assay_status check_directory(const char *path, struct assay_err *err)
{
    char directory[ASSAY_IPC_PATH_MAX + 1];
    snprintf(directory, sizeof directory, "%s", path);
    char *slash = strrchr(directory, '/');
    if (!slash)
        strcpy(directory, ".");
    else
        slash[slash == directory] = '\0';
    struct stat st;
    if (stat(directory, &st) != 0)
        return assay_err_errno(err, errno, "directory \"%s\" of socket \"%s\"", directory, path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return assay_err_set(
            err, ASSAY_PERMISSION_DENIED,
            "directory \"%s\" of socket \"%s\" has mode %o and owner %u, wanted a directory with mode 700 "
            "and owner %u",
            directory, path, st.st_mode & 07777u, st.st_uid, geteuid());
    return ASSAY_OK;
}

static bool accepts(int family, const void *address, socklen_t bytes)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | (family == AF_UNIX ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0)
        return false;
    bool accepted = connect(fd, address, bytes) == 0 || errno == EAGAIN;
    close(fd);
    return accepted;
}

/* Whether a process listens there. For ipc, a connect tells it from the file that a killed one left. */
static bool is_listening(const struct assay_address *address)
{
    if (address->is_ipc) {
        struct sockaddr_un local = {.sun_family = AF_UNIX};
        snprintf(local.sun_path, sizeof local.sun_path, "%s", address->text + strlen(IPC));
        return accepts(AF_UNIX, &local, sizeof local);
    }
    const char *host = address->text + strlen(TCP), *colon = strrchr(host, ':');
    if (!colon)
        return false;
    size_t bytes = (size_t)(colon - host);
    in_port_t port = htons((uint16_t)strtol(colon + 1, NULL, 10));
    if (address->is_ipv6) {
        char number[INET6_ADDRSTRLEN + 2] = "";
        struct sockaddr_in6 remote = {.sin6_family = AF_INET6, .sin6_port = port};
        snprintf(number, sizeof number, "%.*s", (int)bytes - 2, host + 1);
        return inet_pton(AF_INET6, number, &remote.sin6_addr) == 1 && accepts(AF_INET6, &remote, sizeof remote);
    }
    unsigned octets[4];
    if (!assay_ipv4_parse(host, bytes, octets))
        return false;
    struct sockaddr_in remote = {.sin_family = AF_INET, .sin_port = port};
    remote.sin_addr.s_addr = htonl(octets[0] << 24 | octets[1] << 16 | octets[2] << 8 | octets[3]);
    return accepts(AF_INET, &remote, sizeof remote);
}

enum assay_status assay_endpoint_check_bind(const struct assay_address *address, struct assay_err *err)
{
    if (!address->is_ipc)
        return ASSAY_OK;
    const char *path = address->text + strlen(IPC);
    enum assay_status status = check_directory(path, err);
    struct stat st;
    if (status != ASSAY_OK || lstat(path, &st) != 0)
        return status;
    if (!S_ISSOCK(st.st_mode))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "\"%s\" is there and is not a socket", path);
    if (is_listening(address))
        return assay_err_set(err, ASSAY_UNAVAILABLE, "address in use: a running process listens on %s", address->text);
    return ASSAY_OK;
}

enum assay_status assay_socket_new(void *zmq, int type, int linger_ms, void **ret, struct assay_err *err)
{
    void *socket = zmq_socket(zmq, type);
    if (!socket)
        return assay_err_errno(err, errno, "cannot make a ZeroMQ socket");
    const struct {
        int option, value;
    } options[] = {
        {ZMQ_LINGER, linger_ms},
        {ZMQ_SNDHWM, ASSAY_WIRE_HWM},
        {ZMQ_RCVHWM, ASSAY_WIRE_HWM},
        {ZMQ_IMMEDIATE, 1},
        {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
        {ZMQ_RECONNECT_IVL, RECONNECT_MS},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS},
    };
    int failed = 0;
    for (size_t i = 0; i < ASSAY_COUNT(options); i++)
        failed |= zmq_setsockopt(socket, options[i].option, &options[i].value, sizeof options[i].value);
    int64_t part_bytes_max = ASSAY_WIRE_PART_BYTES_MAX;
    failed |= zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &part_bytes_max, sizeof part_bytes_max);
    int mandatory = 1;
    if (type == ZMQ_ROUTER)
        failed |= zmq_setsockopt(socket, ZMQ_ROUTER_MANDATORY, &mandatory, sizeof mandatory);
    if (failed) {
        zmq_close(socket);
        return assay_err_set(err, ASSAY_INTERNAL, "ZeroMQ refuses a socket option that its version 4.3.4 has");
    }
    *ret = socket;
    return ASSAY_OK;
}

enum assay_status assay_socket_suit(void *socket, const struct assay_address *address, struct assay_err *err)
{
    const struct {
        int option, value;
    } options[] = {
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, PROBE_AFTER_S},
        {ZMQ_TCP_KEEPALIVE_INTVL, PROBE_EVERY_S},
        {ZMQ_TCP_KEEPALIVE_CNT, PROBES},
        {ZMQ_TCP_MAXRT, SILENT_MS},
    };
    for (size_t i = 0; i < ASSAY_COUNT(options) && !address->is_ipc; i++)
        if (zmq_setsockopt(socket, options[i].option, &options[i].value, sizeof options[i].value) != 0)
            return assay_err_errno(err, zmq_errno(), "ZeroMQ refuses options of TCP for %s", address->text);
    return ASSAY_OK;
}

enum assay_status assay_monitor_open(void *zmq, void *socket, int events, void **ret, struct assay_err *err)
{
    char name[64];
    static atomic_uint_fast64_t monitors; /* a name is not free again at once when its socket is gone */
    snprintf(name, sizeof name, "inproc://monitor-%" PRIuFAST64, atomic_fetch_add(&monitors, 1));
    /* Without a ceiling: ZeroMQ's thread waits while events find no room, and a close waits for that thread. There are
     * a few events a connection. */
    int linger_ms = 0, hwm = 0;
    void *monitor = zmq_socket(zmq, ZMQ_PAIR);
    if (!monitor || zmq_socket_monitor(socket, name, events) != 0 ||
        zmq_setsockopt(monitor, ZMQ_LINGER, &linger_ms, sizeof linger_ms) != 0 ||
        zmq_setsockopt(monitor, ZMQ_RCVHWM, &hwm, sizeof hwm) != 0 || zmq_connect(monitor, name) != 0) {
        int errnum = zmq_errno();
        assay_monitor_close(socket, monitor);
        return assay_err_errno(err, errnum, "cannot watch connections");
    }
    *ret = monitor;
    return ASSAY_OK;
}

bool assay_monitor_next(void *monitor, unsigned *ret_event, int *ret_value)
{
    unsigned char bytes[6];
    uint16_t event;
    int32_t value;
    if (zmq_recv(monitor, bytes, sizeof bytes, ZMQ_DONTWAIT) != sizeof bytes)
        return false;
    memcpy(&event, bytes, sizeof event);
    memcpy(&value, bytes + sizeof event, sizeof value);
    char address[256];
    zmq_recv(monitor, address, sizeof address, ZMQ_DONTWAIT); /* the second part */
    *ret_event = event;
    *ret_value = value;
    return true;
}

void assay_monitor_close(void *socket, void *monitor)
{
    zmq_socket_monitor(socket, NULL, 0);
    if (monitor)
        zmq_close(monitor);
}

void assay_socket_close_bound(void *socket, const char *endpoints)
{
    struct assay_address addresses[ASSAY_ADDRESSES_MAX];
    size_t count = 0;
    zmq_close(socket);
    struct timespec pause = {.tv_nsec = 1000000};
    if (assay_addresses_parse(endpoints, addresses, &count, NULL) != ASSAY_OK)
        return;
    for (size_t i = 0; i < count; i++)
        for (int ms = 0; ms < CLOSE_WAIT_MS && is_listening(&addresses[i]); ms++)
            nanosleep(&pause, NULL);
}

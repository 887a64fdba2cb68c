#include "common/wire/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
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
/* ZeroMQ's own heartbeats find dead TCP connections; a busy machine may hold them up for seconds. */
#define HEARTBEAT_MS 2000
#define HEARTBEAT_TIMEOUT_MS 10000
#define RECONNECT_MS 20
#define RECONNECT_MAX_MS 200
#define CLOSE_WAIT_MS 1000

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static enum assay_status check_ipc(const char *endpoint, struct assay_err *err)
{
    const char *path = endpoint + strlen(IPC);
    if (!*path || *path == '@' || *path == '*')
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "endpoint \"%.200s\" names no path", endpoint);
    if (strlen(path) > ASSAY_IPC_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "ipc path \"%.300s\" has %zu bytes, a socket's may have %d",
                             path, strlen(path), ASSAY_IPC_PATH_MAX);
    return ASSAY_OK;
}

/* a.b.c.d with numbers below 256. */
static bool parse_ipv4(const char *text, size_t bytes, unsigned ret[4])
{
    size_t at = 0;
    for (int i = 0; i < 4; i++) {
        unsigned value = 0;
        size_t digits = 0;
        for (; at < bytes && text[at] >= '0' && text[at] <= '9' && digits < 3; at++, digits++)
            value = 10 * value + (unsigned)(text[at] - '0');
        if (digits == 0 || value > 255 || (i < 3 && (at >= bytes || text[at++] != '.')))
            return false;
        ret[i] = value;
    }
    return at == bytes;
}

static bool port_valid(const char *port)
{
    if (strcmp(port, "*") == 0)
        return true;
    size_t digits = strspn(port, "0123456789");
    return digits > 0 && digits <= 5 && port[digits] == '\0' && strtol(port, NULL, 10) <= 65535;
}

static enum assay_status check_tcp(const char *endpoint, struct assay_err *err)
{
    const char *host = endpoint + strlen(TCP);
    const char *colon = strrchr(host, ':');
    if (!colon || colon == host || !port_valid(colon + 1))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "endpoint \"%.200s\" is not tcp://ADDRESS:PORT", endpoint);
    unsigned address[4];
    if (!parse_ipv4(host, (size_t)(colon - host), address) || address[0] != 127)
        return assay_err_set(
            err, ASSAY_PERMISSION_DENIED,
            "endpoint \"%.200s\" is not a loopback address (127.x.y.z): any other needs CURVE keys, and "
            "none are set",
            endpoint);
    return ASSAY_OK;
}

enum assay_status assay_endpoint_check(const char *endpoint, struct assay_err *err)
{
    if (starts_with(endpoint, IPC))
        return check_ipc(endpoint, err);
    if (starts_with(endpoint, TCP))
        return check_tcp(endpoint, err);
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                         "endpoint \"%.200s\" is neither ipc://PATH nor tcp://ADDRESS:PORT", endpoint);
}

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

/* Whether a process listens at a checked endpoint. For ipc, a connect tells it from the file that a killed one left. */
static bool is_listening(const char *endpoint)
{
    if (starts_with(endpoint, IPC)) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof address.sun_path, "%s", endpoint + strlen(IPC));
        return accepts(AF_UNIX, &address, sizeof address);
    }
    const char *host = endpoint + strlen(TCP), *colon = strrchr(host, ':');
    unsigned octets[4];
    if (!colon || !parse_ipv4(host, (size_t)(colon - host), octets))
        return false;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)strtol(colon + 1, NULL, 10))};
    address.sin_addr.s_addr = htonl(octets[0] << 24 | octets[1] << 16 | octets[2] << 8 | octets[3]);
    return accepts(AF_INET, &address, sizeof address);
}

enum assay_status assay_endpoint_check_bind(const char *endpoint, struct assay_err *err)
{
    enum assay_status status = assay_endpoint_check(endpoint, err);
    if (status != ASSAY_OK || !starts_with(endpoint, IPC))
        return status;
    const char *path = endpoint + strlen(IPC);
    status = check_directory(path, err);
    struct stat st;
    if (status != ASSAY_OK || lstat(path, &st) != 0)
        return status;
    if (!S_ISSOCK(st.st_mode))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "\"%s\" is there and is not a socket", path);
    if (is_listening(endpoint))
        return assay_err_set(err, ASSAY_UNAVAILABLE, "address in use: a running process listens on %s", endpoint);
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
        {ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS},
        {ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS},
        {ZMQ_HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS},
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

void assay_socket_close_bound(void *socket, const char *endpoint)
{
    zmq_close(socket);
    struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < CLOSE_WAIT_MS && is_listening(endpoint); i++)
        nanosleep(&pause, NULL);
}

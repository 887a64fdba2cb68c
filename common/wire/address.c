#include "common/wire/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"

#define IPC "ipc://"
#define TCP "tcp://"

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool assay_ipv4_parse(const char *text, size_t bytes, unsigned ret[4])
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

static enum assay_status parse_ipc(struct assay_address *address, struct assay_err *err)
{
    const char *path = address->text + strlen(IPC);
    if (!*path || *path == '@' || *path == '*')
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "endpoint \"%.200s\" names no path", address->text);
    if (strlen(path) > ASSAY_IPC_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "ipc path \"%.300s\" has %zu bytes, a socket's may have %d",
                             path, strlen(path), ASSAY_IPC_PATH_MAX);
    address->is_ipc = true;
    return ASSAY_OK;
}

static bool is_host(const char *host, size_t bytes)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-";
    return bytes > 0 && strspn(host, letters) >= bytes;
}

/* An IPv6 number, without brackets. */
static bool parse_ipv6(const char *text, size_t bytes, struct in6_addr *ret)
{
    char copy[INET6_ADDRSTRLEN];
    if (bytes == 0 || bytes >= sizeof copy)
        return false;
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    return inet_pton(AF_INET6, copy, ret) == 1;
}

static bool is_loopback6(const struct in6_addr *address)
{
    return IN6_IS_ADDR_LOOPBACK(address) || (IN6_IS_ADDR_V4MAPPED(address) && address->s6_addr[12] == 127);
}

/* host[bytes] without its port. */
static enum assay_status parse_host(struct assay_address *address, const char *host, size_t bytes,
                                    struct assay_err *err)
{
    unsigned octets[4];
    struct in6_addr number;
    if (host[0] == '[' && memchr(host, '%', bytes))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "endpoint \"%.200s\" has an address with a zone ('%%'): wanted one that is not link-local",
                             address->text);
    if (host[0] == '[' && (host[bytes - 1] != ']' || bytes < 2 || !parse_ipv6(host + 1, bytes - 2, &number)))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "endpoint \"%.200s\" has no IPv6 address in its brackets: wanted tcp://[ADDRESS]:PORT",
                             address->text);
    if (host[0] != '[' && memchr(host, ':', bytes) && strspn(host, "0123456789abcdefABCDEF:.%") >= bytes)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "endpoint \"%.200s\" has more than one ':': an IPv6 address stands in brackets, as "
                             "tcp://[::1]:7421",
                             address->text);
    address->is_ipv6 = host[0] == '[';
    address->is_host = address->is_ipv6 || is_host(host, bytes);
    address->is_loopback =
        address->is_ipv6 ? is_loopback6(&number) : assay_ipv4_parse(host, bytes, octets) && octets[0] == 127;
    return ASSAY_OK;
}

static enum assay_status parse_tcp(struct assay_address *address, struct assay_err *err)
{
    char *hash = strchr(address->text, '#');
    if (hash) {
        if (!assay_public_key_parse(hash + 1, strlen(hash + 1), &address->key))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "endpoint \"%.100s\": behind '#' stands no key of %d hexadecimal digits",
                                 address->text, ASSAY_KEY_DIGITS);
        address->has_key = true;
        *hash = '\0';
    }
    const char *host = address->text + strlen(TCP);
    const char *colon = strrchr(host, ':');
    if (!colon || colon == host || !port_valid(colon + 1))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "endpoint \"%.200s\" is not tcp://ADDRESS:PORT",
                             address->text);
    return parse_host(address, host, (size_t)(colon - host), err);
}

static enum assay_status parse_one(const char *text, size_t bytes, struct assay_address *ret, struct assay_err *err)
{
    *ret = (struct assay_address){0};
    if (bytes >= sizeof ret->text)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "endpoint \"%.200s\" has %zu bytes, at most %zu are allowed",
                             text, bytes, sizeof ret->text - 1);
    memcpy(ret->text, text, bytes);
    if (starts_with(ret->text, IPC))
        return parse_ipc(ret, err);
    if (starts_with(ret->text, TCP))
        return parse_tcp(ret, err);
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                         "endpoint \"%.200s\" is neither ipc://PATH nor tcp://ADDRESS:PORT", text);
}

/* Up to the comma before the next endpoint: a path may have commas of its own. */
static size_t one_bytes(const char *text)
{
    size_t bytes = 0;
    while (text[bytes] &&
           !(text[bytes] == ',' && (starts_with(text + bytes + 1, IPC) || starts_with(text + bytes + 1, TCP))))
        bytes++;
    return bytes;
}

enum assay_status assay_addresses_parse(const char *text, struct assay_address ret[ASSAY_ADDRESSES_MAX],
                                        size_t *ret_count, struct assay_err *err)
{
    size_t count = 0;
    for (const char *at = text;;) {
        size_t bytes = one_bytes(at);
        if (count == ASSAY_ADDRESSES_MAX)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "\"%.200s\" has more than %d endpoints", text,
                                 ASSAY_ADDRESSES_MAX);
        enum assay_status status = parse_one(at, bytes, &ret[count], err);
        if (status != ASSAY_OK)
            return status;
        count++;
        if (at[bytes] == '\0')
            break;
        at += bytes + 1;
    }
    *ret_count = count;
    return ASSAY_OK;
}

const struct assay_address *assay_address_choose(const struct assay_address *addresses, size_t count, bool has_own_key)
{
    for (size_t i = 0; i < count && has_own_key; i++)
        if (addresses[i].has_key)
            return &addresses[i];
    for (size_t i = 0; i < count; i++)
        if (addresses[i].is_ipc)
            return &addresses[i];
    for (size_t i = 0; i < count; i++)
        if (!addresses[i].has_key)
            return &addresses[i];
    return NULL;
}

enum assay_status assay_address_add_key(const char *endpoint, const struct assay_public_key *key,
                                        char ret[ASSAY_ADDRESS_BYTES_MAX], struct assay_err *err)
{
    struct assay_address addresses[ASSAY_ADDRESSES_MAX];
    size_t count;
    char digits[ASSAY_KEY_DIGITS + 1];
    enum assay_status status = assay_addresses_parse(endpoint, addresses, &count, err);
    if (status != ASSAY_OK)
        return status;
    if (count != 1 || addresses[0].is_ipc || addresses[0].has_key)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "found endpoint \"%.200s\", wanted one tcp://ADDRESS:PORT to go with a server's key",
                             endpoint);
    assay_public_key_text(key, digits);
    if (snprintf(ret, ASSAY_ADDRESS_BYTES_MAX, "%s#%s", addresses[0].text, digits) >= ASSAY_ADDRESS_BYTES_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "endpoint \"%.200s\" is too long", endpoint);
    return ASSAY_OK;
}

enum assay_status assay_address_advertise(const char *endpoints, const char *host, char *ret, size_t ret_bytes,
                                          struct assay_err *err)
{
    static const char *const everywhere[] = {TCP "0.0.0.0:", TCP "[::]:"};
    const char *at = NULL, *behind = NULL;
    for (size_t i = 0; i < ASSAY_COUNT(everywhere) && !at; i++) {
        at = strstr(endpoints, everywhere[i]);
        behind = at ? at + strlen(everywhere[i]) : NULL;
    }
    size_t bytes = host ? strlen(host) : 0;
    bool brackets = bytes > 1 && host[0] == '[' && host[bytes - 1] == ']';
    struct in6_addr number;
    bool is_ipv6 = bytes > 0 && parse_ipv6(host + brackets, bytes - 2 * brackets, &number);
    if (bytes > 0 && !is_ipv6 && !is_host(host, bytes))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "--advertise: found '%.100s', wanted the name or the address of a host", host);
    if (at && bytes == 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%.200s is every address of this host: --advertise says which others connect to",
                             endpoints);
    bool adds = is_ipv6 && !brackets;
    int written = at ? snprintf(ret, ret_bytes, "%.*s" TCP "%s%s%s:%s", (int)(at - endpoints), endpoints,
                                adds ? "[" : "", host, adds ? "]" : "", behind)
                     : snprintf(ret, ret_bytes, "%s", endpoints);
    if (written < 0 || (size_t)written >= ret_bytes)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--advertise: the host is too long");
    return ASSAY_OK;
}

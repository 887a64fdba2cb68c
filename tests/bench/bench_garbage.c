/* Malformed messages by the million against a server, over each transport, while a client goes on calling it:
 *
 *   bench_garbage [MESSAGES] [cut] [check]
 *
 * The server is a process of its own. By default it is patient: it reads and refuses every message, the worst case for
 * those who share it. `cut` leaves its limits as they are, so that the sender is cut off again and again, for ten
 * seconds at most. `check` ends with 1 when the server died, refused a call of the client, or grew by more than 64 MB.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/clock.h"
#include "common/wire/client.h"
#include "common/wire/member.h"
#include "common/wire/security.h"
#include "common/wire/server.h"
#include "proto/rpc.pb-c.h"

#define CALLS_MAX 1000000
#define CUT_MS 10000
#define GROWTH_MB_MAX 64

enum transport { IPC, TCP, CURVE, TRANSPORTS };
static const char *const transport_names[] = {"ipc", "tcp", "tcp+CURVE"};

struct options {
    uint64_t messages;
    bool cut, check;
};

struct setup {
    enum transport transport;
    char dir[64], keys[96], server_key[ASSAY_PATH_MAX], client_key[ASSAY_PATH_MAX];
    char endpoint[ASSAY_ADDRESSES_BYTES_MAX];
    struct assay_key_pair client;
    pid_t server;
    int to_parent[2];
};

static void must(enum assay_status status, const struct assay_err *err)
{
    if (status == ASSAY_OK)
        return;
    fprintf(stderr, "bench_garbage: %s\n", err->text);
    exit(2);
}

/* --- the server's process --- */

static void print_counts(int fd, const struct assay_server *server)
{
    struct assay_server_counts counts;
    assay_server_counts(server, &counts);
    dprintf(fd, "read %llu, cut off %llu, refused:", (unsigned long long)counts.messages,
            (unsigned long long)counts.cut);
    for (size_t i = 0; i < ASSAY_REFUSALS; i++)
        if (counts.refused[i])
            dprintf(fd, " %s %llu", assay_refusal_name((enum assay_refusal)i), (unsigned long long)counts.refused[i]);
}

static void serve(const struct setup *setup, const struct options *options)
{
    struct assay_loop *loop;
    struct assay_server *server;
    struct assay_err err = ASSAY_ERR_INIT;
    char listen[128];
    struct assay_server_limits limits = ASSAY_SERVER_LIMITS_DEFAULT;
    const struct assay_security_options keys = {.server_key = setup->server_key, .keys = setup->keys};
    assay_shutdown_prepare();
    must(assay_loop_new(&loop, &err), &err);
    if (setup->transport == CURVE)
        must(assay_loop_secure(loop, &keys, &err), &err);
    snprintf(listen, sizeof listen, setup->transport == IPC ? "ipc://%s/socket" : "tcp://127.0.0.1:*", setup->dir);
    must(assay_server_new(loop, listen, &server, &err), &err);
    if (!options->cut)
        limits.garbage = limits.messages_per_s = 1u << 30;
    assay_server_set_limits(server, &limits);
    must(assay_loop_start(loop, &err), &err);
    dprintf(setup->to_parent[1], "%s\n", assay_server_endpoint(server));
    assay_shutdown_wait();
    print_counts(setup->to_parent[1], server);
    assay_loop_stop_join(loop);
    assay_server_free(server);
    assay_loop_free(loop);
    exit(0);
}

static double resident_mb(pid_t pid)
{
    char path[64];
    unsigned long long size, resident = 0;
    snprintf(path, sizeof path, "/proc/%ld/statm", (long)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    if (fscanf(file, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

/* --- garbage --- */

struct garbage {
    const struct setup *setup;
    const struct options *options;
    uint64_t sent;
    atomic_bool done;
};

static void *garbage_socket(void *context, const struct setup *setup)
{
    void *socket = zmq_socket(context, ZMQ_DEALER);
    struct assay_address addresses[ASSAY_ADDRESSES_MAX];
    size_t count;
    int zero = 0, wait_ms = 100;
    struct assay_err err = ASSAY_ERR_INIT;
    must(assay_addresses_parse(setup->endpoint, addresses, &count, &err), &err);
    zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(socket, ZMQ_SNDTIMEO, &wait_ms, sizeof wait_ms);
    if (addresses[0].has_key) {
        zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, addresses[0].key.bytes, ASSAY_KEY_BYTES);
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, setup->client.public_key.bytes, ASSAY_KEY_BYTES);
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, setup->client.secret, ASSAY_KEY_BYTES);
    }
    zmq_connect(socket, addresses[0].text);
    return socket;
}

/* A packed header of a request that nobody serves so. */
static size_t pack_header(unsigned kind, uint64_t id, uint8_t ret[256])
{
    Assay__V1__Header header = ASSAY__V1__HEADER__INIT;
    header.has_version = header.has_kind = header.has_call_id = true;
    header.version = kind % 2 ? 1 : 77;
    header.kind = kind % 2 ? ASSAY__V1__FRAME_KIND__FRAME_KIND_STREAM : ASSAY__V1__FRAME_KIND__FRAME_KIND_REQUEST;
    header.call_id = id;
    header.method = (char *)(uintptr_t) "assay.v1.Health/Check";
    return assay__v1__header__pack(&header, ret);
}

/* One message of the kind that the number gives. False: no room within the time. */
static bool send_one(void *socket, uint64_t number, unsigned *seed)
{
    uint8_t bytes[256];
    unsigned kind = (unsigned)(number % 5);
    size_t count = 1 + (size_t)rand_r(seed) % sizeof bytes;
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(rand_r(seed) >> 5);
    if (kind >= 3)
        count = pack_header(kind, number, bytes);
    int parts = kind == 1 ? 70 : kind == 2 ? 3 : 1;
    for (int i = 0; i < parts; i++)
        if (zmq_send(socket, bytes, kind == 2 && i == 0 ? 0 : count, i + 1 < parts ? ZMQ_SNDMORE : 0) < 0)
            return false;
    return true;
}

static void *send_garbage(void *arg)
{
    struct garbage *garbage = arg;
    void *context = zmq_ctx_new(), *socket = garbage_socket(context, garbage->setup);
    unsigned seed = 12345;
    int64_t until_ms = garbage->options->cut ? assay_now_ms() + CUT_MS : INT64_MAX;
    while (garbage->sent < garbage->options->messages && assay_now_ms() < until_ms)
        garbage->sent += send_one(socket, garbage->sent, &seed);
    /* What is queued here leaves before the socket is closed. */
    struct timespec pause = {.tv_nsec = 200 * 1000000};
    nanosleep(&pause, NULL);
    zmq_close(socket);
    zmq_ctx_term(context);
    atomic_store(&garbage->done, true);
    return NULL;
}

/* --- the client --- */

struct legit {
    int64_t *us;
    size_t served, failed;
    double peak_mb;
    struct assay_err first;
};

static void call_meanwhile(const struct setup *setup, struct garbage *garbage, struct legit *legit)
{
    struct assay_loop *loop;
    struct assay_client *client;
    struct assay_err err = ASSAY_ERR_INIT;
    const struct assay_security_options keys = {.key = setup->client_key};
    must(assay_loop_new(&loop, &err), &err);
    if (setup->transport == CURVE)
        must(assay_loop_secure(loop, &keys, &err), &err);
    must(assay_client_new(loop, setup->endpoint, &client, &err), &err);
    must(assay_loop_start(loop, &err), &err);
    const struct timespec pause = {.tv_nsec = 1000000};
    while (!atomic_load(&garbage->done) && legit->served < CALLS_MAX) {
        Assay__V1__HealthCheckRequest request = ASSAY__V1__HEALTH_CHECK_REQUEST__INIT;
        const struct assay_call_options call = {.deadline_ms = 10000};
        struct assay_reply *reply = NULL;
        int64_t begin_us = assay_now_us();
        if (assay_call_unary(client, &assay__v1__health__descriptor, 0, &request.base, &call, &reply, &err) == ASSAY_OK)
            legit->us[legit->served++] = assay_now_us() - begin_us;
        else if (legit->failed++ == 0)
            legit->first = err;
        assay_reply_free(reply);
        legit->peak_mb = ASSAY_MAX(legit->peak_mb, resident_mb(setup->server));
        nanosleep(&pause, NULL);
    }
    assay_client_free(client);
    assay_loop_stop_join(loop);
    assay_loop_free(loop);
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* --- one transport --- */

/* The key of the client's own; that of the garbage is another, which may be kept out. */
static void make_keys(struct setup *setup)
{
    struct assay_key_pair server, client;
    struct assay_err err = ASSAY_ERR_INIT;
    char public_path[ASSAY_PATH_MAX], secret_path[ASSAY_PATH_MAX];
    assay_key_pair_new(ASSAY_ROLE_ADMIN, &server);
    assay_key_pair_new(ASSAY_ROLE_CLIENT, &client);
    assay_key_pair_new(ASSAY_ROLE_CLIENT, &setup->client);
    must(assay_key_write(setup->dir, "server", &server, setup->server_key, public_path, &err), &err);
    must(assay_key_write(setup->keys, "client", &client, setup->client_key, public_path, &err), &err);
    must(assay_key_write(setup->keys, "garbage", &setup->client, secret_path, public_path, &err), &err);
}

static void start_server(struct setup *setup, const struct options *options)
{
    fflush(stdout);
    if (pipe(setup->to_parent) != 0 || (setup->server = fork()) < 0) {
        perror("bench_garbage");
        exit(2);
    }
    if (setup->server == 0)
        serve(setup, options);
    close(setup->to_parent[1]);
    size_t used = 0;
    while (used + 1 < sizeof setup->endpoint && read(setup->to_parent[0], setup->endpoint + used, 1) == 1 &&
           setup->endpoint[used] != '\n')
        used++;
    setup->endpoint[used] = '\0';
}

static bool run(enum transport transport, const struct options *options)
{
    struct setup setup = {.transport = transport};
    struct legit legit = {.us = calloc(CALLS_MAX, sizeof(int64_t))};
    struct garbage garbage = {.setup = &setup, .options = options};
    pthread_t thread;
    strcpy(setup.dir, "/tmp/assay-garbage-XXXXXX");
    if (!legit.us || !mkdtemp(setup.dir))
        exit(2);
    snprintf(setup.keys, sizeof setup.keys, "%s/keys", setup.dir);
    if (transport == CURVE)
        make_keys(&setup);
    start_server(&setup, options);
    double before_mb = resident_mb(setup.server);
    int64_t begin_ms = assay_now_ms();
    pthread_create(&thread, NULL, send_garbage, &garbage);
    call_meanwhile(&setup, &garbage, &legit);
    pthread_join(thread, NULL);
    double seconds = (double)(assay_now_ms() - begin_ms) / 1000, after_mb = resident_mb(setup.server);
    char counts[1024] = "";
    int wait_status;
    kill(setup.server, SIGTERM);
    ssize_t bytes = read(setup.to_parent[0], counts, sizeof counts - 1);
    for (ssize_t more;
         bytes > 0 && (more = read(setup.to_parent[0], counts + bytes, sizeof counts - 1 - (size_t)bytes)) > 0;)
        bytes += more;
    close(setup.to_parent[0]);
    waitpid(setup.server, &wait_status, 0);
    bool alive = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
    qsort(legit.us, legit.served, sizeof *legit.us, compare);
    printf("%-10s %llu messages in %.1f s (%.0f/s); server %s, resident %.1f MB before, %.1f at most, %.1f after\n"
           "           calls served %zu, failed %zu, p50 %.2f ms, p99 %.2f ms, max %.2f ms\n           %s\n",
           transport_names[transport], (unsigned long long)garbage.sent, seconds, (double)garbage.sent / seconds,
           alive ? "alive" : "DEAD", before_mb, legit.peak_mb, after_mb, legit.served, legit.failed,
           legit.served ? (double)legit.us[legit.served / 2] / 1000 : 0,
           legit.served ? (double)legit.us[legit.served * 99 / 100] / 1000 : 0,
           legit.served ? (double)legit.us[legit.served - 1] / 1000 : 0, counts);
    if (legit.failed)
        printf("           first failure: %s\n", legit.first.text);
    fflush(stdout);
    bool good = alive && legit.failed == 0 && legit.served > 0 && legit.peak_mb - before_mb < GROWTH_MB_MAX;
    free(legit.us);
    if (assay_remove_tree(setup.dir, NULL) != ASSAY_OK)
        good = false;
    return good;
}

int main(int argc, char **argv)
{
    struct options options = {.messages = 1000000};
    bool good = true;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "cut") == 0)
            options.cut = true;
        else if (strcmp(argv[i], "check") == 0)
            options.check = true;
        else
            options.messages = strtoull(argv[i], NULL, 10);
    }
    for (int transport = 0; transport < TRANSPORTS; transport++)
        good &= run((enum transport)transport, &options);
    return options.check && !good;
}

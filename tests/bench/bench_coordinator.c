/* The coordinator over real ZeroMQ sockets with peers in other processes that do no work.
 *
 *   bench_coordinator [SECONDS [WORKERS [IDLE]]]
 *
 * Prints leases and chunks a second with the latency of a Lease call, for leases of one chunk and of 64, and what IDLE
 * workers that wait for work cost the coordinator. Workers have a connection and a thread each, as real ones do, or
 * share the connection of their process, which then has their calls in flight together. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/endpoint.h"
#include "common/wire/envelope.h"
#include "common/wire/member.h"
#include "common/wire/rpc_metrics.h"
#include "proto/work.pb-c.h"
#include "services/coordinator/serve.h"

enum { PEER_PROCESSES = 4, SAMPLES_MAX = 100000, CHUNKS_MAX = 5000000 };
enum { WORK_LEASE, WORK_COMPLETE };
enum { CONTROL_REGISTER };

/* What peers report; shared memory. */
struct report {
    _Atomic uint64_t leases, chunks, samples_count, ready;
    _Atomic bool stop;
    uint32_t samples_us[SAMPLES_MAX];
};

static struct report *report;
static char endpoint[ASSAY_PATH_MAX];

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "bench_coordinator: %s\n", what);
    exit(5);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* --- peers --- */

struct peer {
    struct assay_client *client;
    struct assay_member *member;
    uint32_t chunks_max;
};

static struct assay_reply *lease(struct peer *peer, uint64_t id)
{
    Assay__V1__LeaseRequest request = ASSAY__V1__LEASE_REQUEST__INIT;
    const struct assay_call_options options = {.deadline_ms = 30000, .wait_for_ready = true};
    struct assay_reply *reply = NULL;
    request.has_service_id = request.has_chunks_max = request.has_wait_ms = true;
    request.service_id = id;
    request.chunks_max = peer->chunks_max;
    request.wait_ms = 20000;
    int64_t begun_us = assay_now_us();
    if (assay_call_unary(peer->client, &assay__v1__work__descriptor, WORK_LEASE, &request.base, &options, &reply,
                         NULL) != ASSAY_OK)
        return NULL;
    const Assay__V1__LeaseReply *message = assay_reply_message(reply);
    uint64_t sample = message->n_chunk_keys ? report->samples_count++ : SAMPLES_MAX;
    if (sample < SAMPLES_MAX)
        report->samples_us[sample] = (uint32_t)(assay_now_us() - begun_us);
    return reply;
}

static void complete(struct peer *peer, uint64_t id, const Assay__V1__LeaseReply *lease)
{
    Assay__V1__CompleteRequest request = ASSAY__V1__COMPLETE_REQUEST__INIT;
    const struct assay_call_options options = {.deadline_ms = 30000, .wait_for_ready = true};
    struct assay_reply *reply = NULL;
    request.has_service_id = request.has_lease_id = request.has_compute_us = true;
    request.service_id = id;
    request.lease_id = lease->lease_id;
    request.n_chunk_keys = lease->n_chunk_keys;
    request.chunk_keys = lease->chunk_keys;
    request.compute_us = 1;
    if (assay_call_unary(peer->client, &assay__v1__work__descriptor, WORK_COMPLETE, &request.base, &options, &reply,
                         NULL) == ASSAY_OK) {
        report->leases++;
        report->chunks += lease->n_chunk_keys;
    }
    assay_reply_free(reply);
}

static void *work(void *arg)
{
    struct peer *peer = arg;
    while (assay_member_id(peer->member, 1000) == 0)
        continue;
    report->ready++;
    while (!report->stop) {
        uint64_t id = assay_member_id(peer->member, 0);
        struct assay_reply *reply = lease(peer, id);
        const Assay__V1__LeaseReply *message = reply ? assay_reply_message(reply) : NULL;
        if (message && message->n_chunk_keys)
            complete(peer, id, message);
        assay_reply_free(reply);
    }
    return NULL;
}

/* Ends with its process: the parent kills it. */
static void run_peers(size_t count, uint32_t chunks_max, bool evaluator)
{
    struct assay_loop *loop = NULL;
    must(assay_loop_new(&loop, NULL) == ASSAY_OK && assay_loop_start(loop, NULL) == ASSAY_OK, "no loop");
    struct peer *peers = calloc(count + 1, sizeof *peers);
    for (size_t i = 0; i < count + evaluator; i++) {
        Assay__V1__RegisterRequest registration = ASSAY__V1__REGISTER_REQUEST__INIT;
        pthread_t thread;
        bool works = i < count;
        registration.has_kind = true;
        registration.kind =
            works ? ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE : ASSAY__V1__SERVICE_KIND__SERVICE_KIND_EVALUATOR;
        registration.endpoint = (char *)(uintptr_t) "ipc:///nowhere";
        registration.precision = (char *)(uintptr_t)(works ? "int8" : "");
        registration.numerics_id = (char *)(uintptr_t) "n1";
        peers[i].chunks_max = chunks_max;
        must(assay_client_new(loop, endpoint, &peers[i].client, NULL) == ASSAY_OK &&
                 assay_member_start(peers[i].client, &registration, NULL, NULL, &peers[i].member, NULL) == ASSAY_OK,
             "no peer");
        must(!works || pthread_create(&thread, NULL, work, &peers[i]) == 0, "no thread of a peer");
    }
    for (;;)
        pause();
}

/* --- peers that share a connection --- */

struct shared {
    void *socket;
    uint32_t chunks_max;
    uint64_t calls; /* call ids: calls * count + worker */
    size_t count;
    uint64_t *ids; /* of the workers as services */
    int64_t *begun_us;
};

static void send_request(struct shared *shared, size_t worker, const char *method, const ProtobufCMessage *request)
{
    Assay__V1__Header header = ASSAY__V1__HEADER__INIT;
    struct assay_outgoing *out = NULL;
    must(assay_outgoing_new(request, NULL, 0, &out, NULL) == ASSAY_OK, "no message");
    header.has_kind = header.has_call_id = header.has_time_left_ms = true;
    header.kind = ASSAY__V1__FRAME_KIND__FRAME_KIND_REQUEST;
    header.call_id = ++shared->calls * shared->count + worker;
    header.method = (char *)(uintptr_t)method;
    header.time_left_ms = 30000;
    must(assay_outgoing_header(out, &header) && assay_outgoing_send(out, shared->socket, NULL, 0) == ASSAY_SENT,
         "cannot send");
    assay_outgoing_free(out);
}

static void send_lease(struct shared *shared, size_t worker)
{
    Assay__V1__LeaseRequest request = ASSAY__V1__LEASE_REQUEST__INIT;
    request.has_service_id = request.has_chunks_max = request.has_wait_ms = true;
    request.service_id = shared->ids[worker];
    request.chunks_max = shared->chunks_max;
    request.wait_ms = 20000;
    shared->begun_us[worker] = assay_now_us();
    send_request(shared, worker, "assay.v1.Work/Lease", &request.base);
}

/* A lease is completed at once, a Complete is followed by the next lease. */
static void on_reply(struct shared *shared, const struct assay_frames *frames)
{
    const zmq_msg_t *parts = frames->parts;
    Assay__V1__Header *header = assay_header_unpack(zmq_msg_data((zmq_msg_t *)(uintptr_t)&parts[0]),
                                                    zmq_msg_size((zmq_msg_t *)(uintptr_t)&parts[0]));
    must(header && header->status == 0 && frames->count >= 2, "a call failed");
    size_t worker = header->call_id % shared->count;
    assay__v1__header__free_unpacked(header, NULL);
    if (frames->count == 2) { /* a CompleteReply, which has no attachment */
        report->leases++;
        send_lease(shared, worker);
        return;
    }
    Assay__V1__LeaseReply *lease = assay__v1__lease_reply__unpack(NULL, zmq_msg_size((zmq_msg_t *)(uintptr_t)&parts[1]),
                                                                  zmq_msg_data((zmq_msg_t *)(uintptr_t)&parts[1]));
    must(lease != NULL, "no lease");
    uint64_t sample = report->samples_count++;
    if (sample < SAMPLES_MAX)
        report->samples_us[sample] = (uint32_t)(assay_now_us() - shared->begun_us[worker]);
    report->chunks += lease->n_chunk_keys;
    Assay__V1__CompleteRequest request = ASSAY__V1__COMPLETE_REQUEST__INIT;
    request.has_service_id = request.has_lease_id = request.has_compute_us = true;
    request.service_id = shared->ids[worker];
    request.lease_id = lease->lease_id;
    request.n_chunk_keys = lease->n_chunk_keys;
    request.chunk_keys = lease->chunk_keys;
    request.compute_us = 1;
    send_request(shared, worker, "assay.v1.Work/Complete", &request.base);
    assay__v1__lease_reply__free_unpacked(lease, NULL);
}

static void register_shared(struct shared *shared)
{
    struct assay_loop *loop = NULL;
    struct assay_client *client = NULL;
    must(assay_loop_new(&loop, NULL) == ASSAY_OK && assay_loop_start(loop, NULL) == ASSAY_OK, "no loop");
    must(assay_client_new(loop, endpoint, &client, NULL) == ASSAY_OK, "no client");
    for (size_t i = 0; i < shared->count; i++) {
        Assay__V1__RegisterRequest request = ASSAY__V1__REGISTER_REQUEST__INIT;
        const struct assay_call_options options = {.deadline_ms = 30000, .wait_for_ready = true};
        struct assay_reply *reply = NULL;
        request.has_kind = true;
        request.kind = ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE;
        request.endpoint = (char *)(uintptr_t) "ipc:///nowhere";
        request.precision = (char *)(uintptr_t) "int8";
        request.numerics_id = (char *)(uintptr_t) "n1";
        must(assay_call_unary(client, &assay__v1__coordinator__descriptor, CONTROL_REGISTER, &request.base, &options,
                              &reply, NULL) == ASSAY_OK,
             "a worker cannot register");
        shared->ids[i] = ((const Assay__V1__RegisterReply *)assay_reply_message(reply))->service_id;
        assay_reply_free(reply);
        report->ready++;
    }
    assay_client_free(client);
    assay_loop_stop_join(loop);
    assay_loop_free(loop);
}

/* Ends with its process: the parent kills it. */
static void run_shared(size_t count, uint32_t chunks_max)
{
    struct shared shared = {.count = count, .chunks_max = chunks_max};
    shared.ids = calloc(count, sizeof *shared.ids);
    shared.begun_us = calloc(count, sizeof *shared.begun_us);
    void *zmq = zmq_ctx_new();
    must(shared.ids && shared.begun_us && zmq, "out of memory");
    must(assay_socket_new(zmq, ZMQ_DEALER, 0, &shared.socket, NULL) == ASSAY_OK &&
             zmq_connect(shared.socket, endpoint) == 0,
         "no connection");
    register_shared(&shared);
    for (size_t i = 0; i < count; i++)
        send_lease(&shared, i);
    for (;;) {
        zmq_pollitem_t item = {.socket = shared.socket, .events = ZMQ_POLLIN};
        struct assay_frames frames;
        while (assay_frames_recv(&frames, shared.socket, false)) {
            on_reply(&shared, &frames);
            assay_frames_clear(&frames);
        }
        zmq_poll(&item, 1, -1);
    }
}

static void start_peers(pid_t pids[PEER_PROCESSES], size_t count, uint32_t chunks_max, bool share)
{
    for (size_t i = 0; i < PEER_PROCESSES; i++) {
        pids[i] = fork();
        must(pids[i] >= 0, "no process");
        if (pids[i] != 0)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* The last one has the evaluator, without which nothing is lent. */
        bool is_last = i + 1 == PEER_PROCESSES;
        if (share && !is_last)
            run_shared(count / (PEER_PROCESSES - 1), chunks_max);
        run_peers(share ? 0 : count / PEER_PROCESSES, chunks_max, is_last);
    }
}

static void stop_peers(const pid_t pids[PEER_PROCESSES])
{
    report->stop = true;
    for (size_t i = 0; i < PEER_PROCESSES; i++)
        kill(pids[i], SIGKILL);
    for (size_t i = 0; i < PEER_PROCESSES; i++)
        waitpid(pids[i], NULL, 0);
}

/* --- the coordinator --- */

/* A job whose chunks have one token each. */
static void add_work(struct assay_coordinator *c, struct assay_job *job, Assay__V1__SubmitJobRequest *request)
{
    static int32_t token;
    struct assay_plan *plan = &job->plan;
    static struct assay_plan_variant variant;
    static Assay__V1__VariantResult result = ASSAY__V1__VARIANT_RESULT__INIT, *results[] = {&result};
    static Assay__V1__Job record = ASSAY__V1__JOB__INIT;
    static uint8_t id[ASSAY_JOB_ID_BYTES];
    uint8_t *have = calloc(CHUNKS_MAX, 1);
    plan->chunks.at = calloc(CHUNKS_MAX, sizeof *plan->chunks.at);
    plan->run_keys = calloc(CHUNKS_MAX, sizeof *plan->run_keys);
    plan->run_chunks = calloc(CHUNKS_MAX, sizeof *plan->run_chunks);
    must(have && plan->chunks.at && plan->run_keys && plan->run_chunks, "out of memory");
    for (size_t i = 0; i < CHUNKS_MAX; i++) {
        uint64_t word = (i + 1) * 0x9e3779b97f4a7c15u;
        memcpy(plan->run_keys[i].digest.bytes, &word, sizeof word);
        plan->run_chunks[i] = i;
        plan->chunks.at[i] = (struct assay_chunk){plan->run_keys[i], &token, 1, 0, 1};
    }
    plan->chunks.count = plan->run_count = CHUNKS_MAX;
    plan->variants = &variant;
    plan->variants_count = 1;
    strcpy(variant.label, "int8");
    record.request = request;
    record.job_id = (ProtobufCBinaryData){sizeof id, id};
    record.results = results;
    record.n_results = 1;
    job->record = &record;
    job->coordinator = c;
    job->runs[0] = (struct assay_job_run){.job = job, .phase = assay_job_add_phase(job, "run", "", "chunks", 0)};
    struct assay_run_options options = {.precision = "int8", .numerics = "", .keys = plan->run_keys, .have = have};
    options.count = CHUNKS_MAX;
    options.owner = &job->runs[0];
    pthread_mutex_lock(&c->lock);
    must(assay_scheduler_add(c->scheduler, &options, &job->runs[0].run, NULL) == ASSAY_OK, "no run");
    pthread_mutex_unlock(&c->lock);
    free(have);
}

static void start_coordinator(struct assay_coordinator *c, const char *dir)
{
    static const char *const tables[] = {"jobs", "events", "corpora", "digests", "rates", "shards", NULL};
    const struct assay_store_options options = {dir, tables, true};
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    c->scheduler = assay_scheduler_new();
    struct assay_metrics *metrics = assay_metrics_new();
    must(c->scheduler && metrics, "out of memory");
    assay_coordinator_measure(c, metrics);
    assay_rpc_metrics_install(metrics);
    must(assay_store_open(&options, &c->store, NULL) == ASSAY_OK, "no store");
    must(assay_coordinator_load_shards(c, NULL) == ASSAY_OK, "no shards");
    must(assay_loop_new(&c->loop, NULL) == ASSAY_OK, "no loop");
    must(assay_server_new(c->loop, endpoint, &c->server, NULL) == ASSAY_OK, "no server");
    must(assay_serve_new(c, NULL) == ASSAY_OK && assay_loop_start(c->loop, NULL) == ASSAY_OK, "no service");
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void wait_ready(size_t count)
{
    for (int64_t until_ms = assay_now_ms() + 120000; report->ready < count; usleep(10000))
        must(assay_now_ms() < until_ms, "the peers do not register");
}

static void bench_leases(size_t workers, uint32_t chunks_max, bool share, int seconds)
{
    pid_t pids[PEER_PROCESSES];
    *report = (struct report){0};
    start_peers(pids, workers, chunks_max, share);
    size_t processes = share ? PEER_PROCESSES - 1 : PEER_PROCESSES;
    wait_ready(workers / processes * processes);
    sleep(1);
    uint64_t leases = report->leases, chunks = report->chunks;
    double cpu = cpu_seconds();
    int64_t begun_us = assay_now_us();
    sleep((unsigned)seconds);
    double took = (double)(assay_now_us() - begun_us) / 1e6;
    leases = report->leases - leases;
    chunks = report->chunks - chunks;
    cpu = cpu_seconds() - cpu;
    stop_peers(pids);
    size_t samples = ASSAY_MIN(report->samples_count, (uint64_t)SAMPLES_MAX);
    qsort(report->samples_us, samples, sizeof *report->samples_us, compare);
    printf("%4zu workers, %s, up to %4u chunks a lease: %9.0f leases/s (and as many Completes), %10.0f chunks/s, "
           "Lease p50 %.2f ms, p99 %.2f ms; coordinator %.0f %% of a core, %.1f us a lease with its Complete\n",
           workers, share ? "3 connections" : "a connection each", chunks_max, (double)leases / took,
           (double)chunks / took, samples ? report->samples_us[samples / 2] / 1e3 : 0.0,
           samples ? report->samples_us[samples * 99 / 100] / 1e3 : 0.0, 100 * cpu / took,
           leases ? 1e6 * cpu / (double)leases : 0.0);
}

static void bench_idle(size_t workers, int seconds)
{
    pid_t pids[PEER_PROCESSES];
    *report = (struct report){0};
    start_peers(pids, workers, 1, false);
    wait_ready(workers / PEER_PROCESSES * PEER_PROCESSES);
    sleep(2);
    double cpu = cpu_seconds();
    int64_t begun_us = assay_now_us();
    sleep((unsigned)seconds);
    cpu = cpu_seconds() - cpu;
    stop_peers(pids);
    printf("%4zu idle workers: coordinator %.2f %% of a core\n", workers,
           100 * cpu / ((double)(assay_now_us() - begun_us) / 1e6));
}

int main(int argc, char **argv)
{
    int seconds = argc > 1 ? atoi(argv[1]) : 5;
    size_t workers = argc > 2 ? strtoul(argv[2], NULL, 10) : 48, idle = argc > 3 ? strtoul(argv[3], NULL, 10) : 1000;
    char dir[] = "/tmp/assay-bench-XXXXXX";
    static struct assay_coordinator coordinator;
    static struct assay_job job;
    Assay__V1__SubmitJobRequest request = ASSAY__V1__SUBMIT_JOB_REQUEST__INIT;
    must(mkdtemp(dir) != NULL, "no directory");
    snprintf(endpoint, sizeof endpoint, "ipc://%s/bench.sock", dir);
    report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(report != MAP_FAILED, "out of memory");
    setvbuf(stdout, NULL, _IOLBF, 0);
    assay_log_init("bench", ASSAY_LOG_ERROR);
    start_coordinator(&coordinator, dir);
    bench_idle(idle, seconds);
    add_work(&coordinator, &job, &request);
    bench_leases(workers, 1, true, seconds);
    bench_leases(workers, 1, false, seconds);
    bench_leases(workers, 64, false, seconds);
    _exit(0);
}

/* Records from a worker into the store of an evaluator: bytes a second and CPU time, over ipc, tcp and tcp with CURVE,
 * on tmpfs and on a disk, in turns with what these take themselves in sequence.
 *
 *   bench_records EVALUATOR [DISK-DIRECTORY [MIB [DISK-ROUNDS]]] */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/fs.h"
#include "common/wire/client.h"
#include "common/wire/security.h"
#include "proto/record.pb-c.h"

/* A chunk of 512 tokens, all scored, of a model with d = 896; in a Put a worker's batch of 4,096 tokens. */
enum { ROWS = 512, COLS = 896, RECORDS_A_PUT = 8, SENDERS = 2, RECORDS_PUT = 0 };
#define RECORD_BYTES ((size_t)ROWS * COLS * sizeof(float))

struct run {
    struct assay_loop *loop;
    const char *endpoint;
    const float *hidden; /* RECORDS_A_PUT records */
    size_t puts, next;
    pthread_mutex_t lock;
};

static void must(enum assay_status status, const struct assay_err *err)
{
    if (status == ASSAY_OK)
        return;
    fprintf(stderr, "bench_records: %s\n", err->text);
    exit(5);
}

/* The rows stay; with a release function they are sent without a copy. */
static void keep(void *data, void *hint)
{
    (void)data;
    (void)hint;
}

static void put(struct run *run, struct assay_client *client, size_t number)
{
    static const uint8_t variant[ASSAY_DIGEST_BYTES] = {1};
    Assay__V1__PutRecordsRequest request = ASSAY__V1__PUT_RECORDS_REQUEST__INIT;
    Assay__V1__Record records[RECORDS_A_PUT], *list[RECORDS_A_PUT];
    Assay__V1__Tensor tensors[RECORDS_A_PUT];
    struct assay_attachment attachments[RECORDS_A_PUT];
    struct assay_digest keys[RECORDS_A_PUT];
    uint64_t shape[2] = {ROWS, COLS};
    for (size_t i = 0; i < RECORDS_A_PUT; i++) {
        struct assay_hash hash;
        assay_hash_init(&hash, "bench");
        assay_hash_u64(&hash, number * RECORDS_A_PUT + i);
        keys[i] = assay_hash_final(&hash);
        assay__v1__record__init(&records[i]);
        assay__v1__tensor__init(&tensors[i]);
        records[i].has_chunk_key = records[i].has_variant_id = true;
        records[i].chunk_key = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, keys[i].bytes};
        records[i].variant_id = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)variant};
        records[i].numerics_id = "bench";
        records[i].hidden = &tensors[i];
        tensors[i].has_dtype = tensors[i].has_attachment = true;
        tensors[i].dtype = ASSAY__V1__DTYPE__DTYPE_F32;
        tensors[i].n_shape = 2;
        tensors[i].shape = shape;
        tensors[i].attachment = (uint32_t)i;
        list[i] = &records[i];
        attachments[i] = (struct assay_attachment){run->hidden + i * ROWS * COLS, RECORD_BYTES, keep, NULL};
    }
    request.n_records = RECORDS_A_PUT;
    request.records = list;
    struct assay_reply *reply = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    const struct assay_call_options options = {
        .deadline_ms = 120000, .wait_for_ready = true, .attachments = attachments, .attachments_count = RECORDS_A_PUT};
    must(assay_call_unary(client, &assay__v1__records__descriptor, RECORDS_PUT, &request.base, &options, &reply, &err),
         &err);
    assay_reply_free(reply);
}

static void *send_puts(void *arg)
{
    struct run *run = arg;
    struct assay_client *client = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    must(assay_client_new(run->loop, run->endpoint, &client, &err), &err);
    for (;;) {
        pthread_mutex_lock(&run->lock);
        size_t number = run->next < run->puts ? run->next++ : run->puts;
        pthread_mutex_unlock(&run->lock);
        if (number == run->puts)
            break;
        put(run, client, number);
    }
    assay_client_free(client);
    return NULL;
}

enum transport { IPC, TCP, CURVE };

/* One evaluator with an empty store, and where it is. */
struct setup {
    enum transport transport;
    char data[200], store[260];
    char listen[300];              /* as the evaluator is told */
    char endpoint[ASSAY_PATH_MAX]; /* as its clients are */
    char server_key[ASSAY_PATH_MAX], client_key[ASSAY_PATH_MAX], keys[300];
};

static void make_keys(struct setup *setup)
{
    struct assay_key_pair server, client;
    struct assay_err err = ASSAY_ERR_INIT;
    char server_public[ASSAY_PATH_MAX], client_public[ASSAY_PATH_MAX];
    snprintf(setup->keys, sizeof setup->keys, "%s/keys", setup->data);
    must(assay_mkdirs(setup->keys, 0700, &err), &err);
    assay_key_pair_new(ASSAY_ROLE_ADMIN, &server);
    assay_key_pair_new(ASSAY_ROLE_WORKER, &client);
    must(assay_key_write(setup->data, "server", &server, setup->server_key, server_public, &err), &err);
    must(assay_key_write(setup->keys, "client", &client, setup->client_key, client_public, &err), &err);
    must(assay_endpoint_with_key(setup->listen, server_public, setup->endpoint, &err), &err);
}

static void set_up(struct setup *setup, const char *directory, enum transport transport)
{
    *setup = (struct setup){.transport = transport};
    snprintf(setup->data, sizeof setup->data, "%s/assay-bench-XXXXXX", directory);
    if (!mkdtemp(setup->data)) {
        perror(setup->data);
        exit(5);
    }
    snprintf(setup->store, sizeof setup->store, "%s/store", setup->data);
    if (transport == IPC)
        snprintf(setup->listen, sizeof setup->listen, "ipc://%s/evaluator.sock", setup->data);
    else
        snprintf(setup->listen, sizeof setup->listen, "tcp://127.0.0.1:%d", 27431 + (int)transport);
    strcpy(setup->endpoint, setup->listen);
    if (transport == CURVE)
        make_keys(setup);
}

static pid_t start_evaluator(const char *program, const struct setup *setup)
{
    char coordinator[300];
    snprintf(coordinator, sizeof coordinator, "ipc://%s/nobody.sock", setup->data);
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        execl(program, program, "--data", setup->data, "--store", setup->store, "--listen", setup->listen,
              "--coordinator", coordinator, "--threads", "1", setup->transport == CURVE ? "--server-key" : (char *)NULL,
              setup->server_key, "--keys", setup->keys, (char *)NULL);
        _exit(127);
    }
    return child;
}

static double cpu_seconds(const struct rusage *usage)
{
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

/* MB/s until all records are acknowledged, and until the store is on the disk, too; CPU seconds of both sides for
 * 1 GB. */
struct figures {
    double acknowledged, synced;
    double sender_cpu, evaluator_cpu;
    double thread_cpu; /* of the evaluator's busiest thread, which bounds the rate */
};

/* CPU seconds of the thread of a process that has most. */
static double busiest_thread(pid_t pid)
{
    char path[300];
    double most = 0;
    snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
    DIR *tasks = opendir(path);
    for (struct dirent *task; tasks && (task = readdir(tasks));) {
        unsigned long long ns;
        snprintf(path, sizeof path, "/proc/%ld/task/%s/schedstat", (long)pid, task->d_name);
        FILE *file = fopen(path, "re");
        if (file && fscanf(file, "%llu", &ns) == 1)
            most = ASSAY_MAX(most, (double)ns / 1e9);
        if (file)
            fclose(file);
    }
    if (tasks)
        closedir(tasks);
    return most;
}

static void send_all(struct run *run)
{
    pthread_t threads[SENDERS];
    for (size_t i = 0; i < SENDERS; i++)
        if (pthread_create(&threads[i], NULL, send_puts, run) != 0)
            exit(5);
    for (size_t i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
}

static struct figures measure(const char *program, const char *directory, enum transport transport, size_t puts,
                              const float *hidden)
{
    struct setup setup;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_client *client = NULL;
    struct rusage before, after, evaluator;
    set_up(&setup, directory, transport);
    struct run run = {.endpoint = setup.endpoint, .hidden = hidden, .puts = puts};
    const struct assay_security_options keys = {.key = setup.client_key};
    pid_t child = start_evaluator(program, &setup);
    pthread_mutex_init(&run.lock, NULL);
    must(assay_loop_new(&run.loop, &err), &err);
    if (transport == CURVE)
        must(assay_loop_secure(run.loop, &keys, &err), &err);
    must(assay_loop_start(run.loop, &err), &err);
    must(assay_client_new(run.loop, setup.endpoint, &client, &err), &err);
    put(&run, client, puts); /* the evaluator is there, its pages are touched */
    getrusage(RUSAGE_SELF, &before);
    int64_t begin_us = assay_now_us();
    send_all(&run);
    double us = (double)(assay_now_us() - begin_us), bytes = (double)puts * RECORDS_A_PUT * (double)RECORD_BYTES;
    getrusage(RUSAGE_SELF, &after);
    double thread_cpu = busiest_thread(child);
    int ended;
    kill(child, SIGINT);
    while (wait4(child, &ended, 0, &evaluator) < 0 && errno == EINTR)
        continue;
    double synced_us = (double)(assay_now_us() - begin_us);
    assay_client_free(client);
    assay_loop_stop_join(run.loop);
    assay_loop_free(run.loop);
    must(assay_remove_tree(setup.data, &err), &err);
    return (struct figures){.acknowledged = bytes / us,
                            .synced = bytes / synced_us,
                            .sender_cpu = (cpu_seconds(&after) - cpu_seconds(&before)) / bytes * 1e9,
                            .evaluator_cpu = cpu_seconds(&evaluator) / bytes * 1e9,
                            .thread_cpu = thread_cpu / bytes * 1e9};
}

/* What a file system takes in one stream, synced, in pieces of 8 MB. */
static double write_plain(const char *directory, size_t bytes, const void *data)
{
    enum { PIECE = 8 << 20 };
    char path[200];
    snprintf(path, sizeof path, "%s/assay-bench-XXXXXX", directory);
    int fd = mkstemp(path);
    int64_t begin_us = assay_now_us();
    size_t done = 0;
    for (ssize_t put = 0; done < bytes && (put = write(fd, data, PIECE)) > 0;)
        done += (size_t)put;
    bool synced = fsync(fd) == 0;
    double us = (double)(assay_now_us() - begin_us);
    close(fd);
    unlink(path);
    return synced && done >= bytes ? (double)done / us : 0;
}

/* A virtual machine may have given its free pages back to its host: then new ones of tmpfs come slowly, one by one, and
 * the plain write says how fast. */
static void print_tmpfs(const char *program, enum transport transport, const char *name, size_t puts,
                        const float *hidden)
{
    double plain = write_plain("/dev/shm", puts * RECORDS_A_PUT * RECORD_BYTES, hidden);
    struct figures f = measure(program, "/dev/shm", transport, puts, hidden);
    printf("tmpfs  %-9s %7.0f acknowledged; the plain write before it %7.0f; CPU seconds a GB: sender %.2f, evaluator "
           "%.2f, its busiest thread %.2f\n",
           name, f.acknowledged, plain, f.sender_cpu, f.evaluator_cpu, f.thread_cpu);
}

static void print_disk(const char *program, const char *directory, size_t puts, int rounds, const float *hidden)
{
    double plain_s = 0, synced_s = 0;
    for (int i = 0; i < rounds; i++) {
        double plain = write_plain(directory, puts * RECORDS_A_PUT * RECORD_BYTES, hidden);
        struct figures f = measure(program, directory, IPC, puts, hidden);
        printf("disk   ipc       %7.0f acknowledged, %7.0f synced; the plain write and fsync before it %7.0f\n",
               f.acknowledged, f.synced, plain);
        plain_s += 1 / plain;
        synced_s += 1 / f.synced;
    }
    if (rounds > 0)
        printf("disk   ipc       synced in %d rounds at %.2f of the plain write's rate\n", rounds, plain_s / synced_s);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_records EVALUATOR [DISK-DIRECTORY [MIB [DISK-ROUNDS]]]\n");
        return 3;
    }
    size_t floats = (size_t)RECORDS_A_PUT * ROWS * COLS;
    float *hidden = malloc(floats * sizeof *hidden);
    if (!hidden)
        return 5;
    for (size_t i = 0; i < floats; i++)
        hidden[i] = (float)(i % 8191) * 1e-3f;
    size_t mib = argc > 3 ? strtoul(argv[3], NULL, 10) : 2048;
    size_t puts = ASSAY_MAX((mib << 20) / (RECORDS_A_PUT * RECORD_BYTES), (size_t)1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%zu records of [%d, %d] f32, %d in a Put, %d senders; MB/s\n", puts * RECORDS_A_PUT, ROWS, COLS,
           RECORDS_A_PUT, SENDERS);
    print_tmpfs(argv[1], IPC, "ipc", puts, hidden);
    print_tmpfs(argv[1], TCP, "tcp", puts, hidden);
    print_tmpfs(argv[1], CURVE, "tcp CURVE", puts, hidden);
    print_disk(argv[1], argc > 2 ? argv[2] : "/tmp", puts, argc > 4 ? atoi(argv[4]) : 3, hidden);
    free(hidden);
    return 0;
}

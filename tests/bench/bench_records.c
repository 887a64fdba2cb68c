/* Records from a worker into the store of an evaluator: bytes a second, over ipc and tcp, on tmpfs and on a disk,
 * beside what the disk itself writes in sequence. usage: bench_records EVALUATOR [DISK-DIRECTORY] [MIB] */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/fs.h"
#include "common/wire/client.h"
#include "proto/record.pb-c.h"

/* A chunk of 512 tokens, all scored, of a model with d = 896. */
enum { ROWS = 512, COLS = 896, RECORDS_A_PUT = 32, SENDERS = 2, RECORDS_PUT = 0 };
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

static pid_t start_evaluator(const char *program, const char *data, const char *store, const char *listen)
{
    char coordinator[300];
    snprintf(coordinator, sizeof coordinator, "ipc://%s/nobody.sock", data);
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        execl(program, program, "--data", data, "--store", store, "--listen", listen, "--coordinator", coordinator,
              "--threads", "1", (char *)NULL);
        _exit(127);
    }
    return child;
}

/* MB/s until all records are acknowledged; *ret_synced: until the store is on the disk, too. */
static double measure(const char *program, const char *directory, const char *listen, size_t puts, const float *hidden,
                      double *ret_synced)
{
    char data[200], store[260];
    struct run run = {.endpoint = listen, .hidden = hidden, .puts = puts};
    struct assay_err err = ASSAY_ERR_INIT;
    pthread_t threads[SENDERS];
    snprintf(data, sizeof data, "%s/assay-bench-XXXXXX", directory);
    if (!mkdtemp(data)) {
        perror(data);
        exit(5);
    }
    char endpoint[300];
    snprintf(endpoint, sizeof endpoint, strcmp(listen, "ipc") == 0 ? "ipc://%s/evaluator.sock" : listen, data);
    run.endpoint = endpoint;
    snprintf(store, sizeof store, "%s/store", data);
    pid_t child = start_evaluator(program, data, store, endpoint);
    pthread_mutex_init(&run.lock, NULL);
    must(assay_loop_new(&run.loop, &err), &err);
    must(assay_loop_start(run.loop, &err), &err);
    struct assay_client *client = NULL;
    must(assay_client_new(run.loop, endpoint, &client, &err), &err);
    put(&run, client, puts); /* the evaluator is there, its pages are touched */
    int64_t begin_us = assay_now_us();
    for (size_t i = 0; i < SENDERS; i++)
        if (pthread_create(&threads[i], NULL, send_puts, &run) != 0)
            exit(5);
    for (size_t i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    double us = (double)(assay_now_us() - begin_us), bytes = (double)puts * RECORDS_A_PUT * (double)RECORD_BYTES;
    int ended;
    kill(child, SIGINT);
    while (waitpid(child, &ended, 0) < 0 && errno == EINTR)
        continue;
    *ret_synced = bytes / (double)(assay_now_us() - begin_us);
    assay_client_free(client);
    assay_loop_stop_join(run.loop);
    assay_loop_free(run.loop);
    must(assay_remove_tree(data, &err), &err);
    return bytes / us;
}

/* What the disk takes in one stream, synced, in pieces of 8 MB. */
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

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_records EVALUATOR [DISK-DIRECTORY] [MIB]\n");
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
    double synced;
    printf("%zu records of [%d, %d] f32, %d in a Put, %d senders; MB/s\n", puts * RECORDS_A_PUT, ROWS, COLS,
           RECORDS_A_PUT, SENDERS);
    printf("tmpfs  ipc   %7.0f\n", measure(argv[1], "/dev/shm", "ipc", puts, hidden, &synced));
    printf("tmpfs  tcp   %7.0f\n", measure(argv[1], "/dev/shm", "tcp://127.0.0.1:27431", puts, hidden, &synced));
    const char *disk = argc > 2 ? argv[2] : "/tmp";
    double plain = write_plain(disk, mib << 20, hidden);
    double acknowledged = measure(argv[1], disk, "ipc", puts, hidden, &synced);
    printf("disk   ipc   %7.0f acknowledged, %7.0f synced, %.2f of the plain %7.0f (write and fsync)\n", acknowledged,
           synced, synced / plain, plain);
    free(hidden);
    return 0;
}

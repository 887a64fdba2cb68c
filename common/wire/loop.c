#include "common/wire/loop.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/clock.h"
#include "common/wire/security_internal.h"
#include "common/wire/timers.h"

/* Posts that are there when malloc has nothing left. */
#define RESERVE 64

struct post {
    struct assay_wake wake;
    struct assay_loop *loop;
    assay_loop_fn fn;
    void *arg;
    struct post *next_spare;
    bool reserved; /* one of loop->reserve */
};

struct assay_loop {
    void *zmq;
    int event_fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t called; /* an assay_loop_call has run, or a spare post came back */
    /* under lock */
    struct assay_wake *head, **tail;
    size_t queued;
    bool running, stop;
    struct post *spare;
    /* loop thread */
    struct assay_timers timers;
    struct assay_watch **watches;
    struct pollfd *polled; /* polled[0] is event_fd, polled[i + 1] is watches[i] */
    size_t watches_count, watches_capacity;
    bool watches_changed;
    struct post reserve[RESERVE];
    struct assay_security *security; /* NULL: no keys */
};

static _Thread_local const struct assay_loop *current_loop;

enum assay_status assay_loop_new(struct assay_loop **ret, struct assay_err *err)
{
    struct assay_loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for an event loop");
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->called, NULL);
    loop->tail = &loop->head;
    for (size_t i = 0; i < RESERVE; i++) {
        loop->reserve[i] = (struct post){.reserved = true, .next_spare = loop->spare};
        loop->spare = &loop->reserve[i];
    }
    loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->polled = calloc(1, sizeof *loop->polled);
    loop->zmq = loop->event_fd >= 0 && loop->polled ? zmq_ctx_new() : NULL;
    if (!loop->zmq) {
        int errnum = errno;
        assay_loop_free(loop);
        return assay_err_errno(err, errnum, "cannot make an event loop");
    }
    *ret = loop;
    return ASSAY_OK;
}

void assay_loop_free(struct assay_loop *loop)
{
    if (!loop)
        return;
    while (loop->head) {
        struct assay_wake *wake = loop->head;
        loop->head = wake->next;
        struct post *post = wake->arg; /* owners of other wakes have taken theirs back */
        if (!post->reserved)
            free(post);
    }
    assay_security_free(loop->security);
    if (loop->zmq)
        zmq_ctx_term(loop->zmq);
    if (loop->event_fd >= 0)
        close(loop->event_fd);
    assay_timers_release(&loop->timers);
    free(loop->watches);
    free(loop->polled);
    pthread_cond_destroy(&loop->called);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

void *assay_loop_zmq(struct assay_loop *loop)
{
    return loop->zmq;
}

enum assay_status assay_loop_secure(struct assay_loop *loop, const struct assay_security_options *options,
                                    struct assay_err *err)
{
    return assay_security_new(loop, options, &loop->security, err);
}

struct assay_security *assay_loop_security(struct assay_loop *loop)
{
    return loop->security;
}

static void interrupt_poll(struct assay_loop *loop)
{
    uint64_t one = 1;
    while (write(loop->event_fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

/* With the lock held. */
static void enqueue(struct assay_loop *loop, struct assay_wake *wake)
{
    if (wake->queued)
        return;
    wake->queued = true;
    wake->next = NULL;
    *loop->tail = wake;
    loop->tail = &wake->next;
    if (loop->queued++ == 0)
        interrupt_poll(loop);
}

void assay_loop_wake(struct assay_loop *loop, struct assay_wake *wake)
{
    pthread_mutex_lock(&loop->lock);
    enqueue(loop, wake);
    pthread_mutex_unlock(&loop->lock);
}

void assay_loop_unwake(struct assay_loop *loop, struct assay_wake *wake)
{
    pthread_mutex_lock(&loop->lock);
    if (wake->queued) {
        struct assay_wake **at = &loop->head;
        while (*at != wake)
            at = &(*at)->next;
        *at = wake->next;
        if (!wake->next)
            loop->tail = at;
        wake->queued = false;
        loop->queued--;
    }
    pthread_mutex_unlock(&loop->lock);
}

/* The oldest wake, or NULL. With the lock held. */
static struct assay_wake *dequeue(struct assay_loop *loop)
{
    struct assay_wake *wake = loop->head;
    if (!wake)
        return NULL;
    loop->head = wake->next;
    if (!loop->head)
        loop->tail = &loop->head;
    loop->queued--;
    wake->queued = false;
    return wake;
}

/* Runs the wakes that are queued now; ones that these queue wait for the next round. */
static void run_wakes(struct assay_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    for (size_t left = loop->queued; left > 0; left--) {
        struct assay_wake *wake = dequeue(loop);
        if (!wake)
            break;
        assay_loop_fn fn = wake->fn;
        void *arg = wake->arg;
        pthread_mutex_unlock(&loop->lock);
        fn(arg);
        pthread_mutex_lock(&loop->lock);
    }
    pthread_mutex_unlock(&loop->lock);
}

static void run_post(void *arg)
{
    struct post *post = arg;
    struct assay_loop *loop = post->loop;
    assay_loop_fn fn = post->fn;
    void *fn_arg = post->arg;
    if (post->reserved) {
        pthread_mutex_lock(&loop->lock);
        post->next_spare = loop->spare;
        loop->spare = post;
        pthread_cond_broadcast(&loop->called);
        pthread_mutex_unlock(&loop->lock);
    } else {
        free(post);
    }
    fn(fn_arg);
}

void assay_loop_post(struct assay_loop *loop, assay_loop_fn fn, void *arg)
{
    struct post *post = malloc(sizeof *post);
    if (post)
        post->reserved = false;
    pthread_mutex_lock(&loop->lock);
    if (!post) {
        while (!loop->spare) {
            if (!loop->running || assay_loop_on_thread(loop))
                ASSAY_BUG("out of memory for a post to the loop");
            pthread_cond_wait(&loop->called, &loop->lock);
        }
        post = loop->spare;
        loop->spare = post->next_spare;
    }
    post->loop = loop;
    post->fn = fn;
    post->arg = arg;
    post->wake = (struct assay_wake){.fn = run_post, .arg = post};
    enqueue(loop, &post->wake);
    pthread_mutex_unlock(&loop->lock);
}

struct sync {
    struct assay_wake wake;
    struct assay_loop *loop;
    assay_loop_fn fn;
    void *arg;
    bool done;
};

static void run_sync(void *arg)
{
    struct sync *sync = arg;
    sync->fn(sync->arg);
    struct assay_loop *loop = sync->loop;
    pthread_mutex_lock(&loop->lock);
    sync->done = true;
    pthread_cond_broadcast(&loop->called);
    pthread_mutex_unlock(&loop->lock);
}

void assay_loop_call(struct assay_loop *loop, assay_loop_fn fn, void *arg)
{
    struct sync sync = {.loop = loop, .fn = fn, .arg = arg};
    sync.wake = (struct assay_wake){.fn = run_sync, .arg = &sync};
    pthread_mutex_lock(&loop->lock);
    if (!loop->running || assay_loop_on_thread(loop)) {
        pthread_mutex_unlock(&loop->lock);
        fn(arg);
        return;
    }
    enqueue(loop, &sync.wake);
    while (!sync.done)
        pthread_cond_wait(&loop->called, &loop->lock);
    pthread_mutex_unlock(&loop->lock);
}

bool assay_loop_on_thread(const struct assay_loop *loop)
{
    return current_loop == loop;
}

uint64_t assay_loop_timer(struct assay_loop *loop, int64_t delay_ms, int64_t period_ms, assay_loop_fn fn, void *arg)
{
    return assay_timers_add(&loop->timers, assay_now_ms(), delay_ms, period_ms, fn, arg);
}

void assay_loop_timer_cancel(struct assay_loop *loop, uint64_t id)
{
    assay_timers_cancel(&loop->timers, id);
}

enum assay_status assay_loop_watch(struct assay_loop *loop, struct assay_watch *watch, struct assay_err *err)
{
    if (loop->watches_count == loop->watches_capacity) {
        size_t capacity = loop->watches_capacity + 16;
        struct assay_watch **watches = realloc(loop->watches, capacity * sizeof(struct assay_watch *));
        if (watches)
            loop->watches = watches;
        struct pollfd *polled = watches ? realloc(loop->polled, (capacity + 1) * sizeof *polled) : NULL;
        if (!polled)
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu sockets", capacity);
        loop->polled = polled;
        loop->watches_capacity = capacity;
    }
    size_t bytes = sizeof watch->fd;
    if (zmq_getsockopt(watch->socket, ZMQ_FD, &watch->fd, &bytes) != 0)
        return assay_err_errno(err, zmq_errno(), "cannot watch a socket");
    watch->touched = true;
    watch->ready = false;
    loop->watches[loop->watches_count++] = watch;
    loop->watches_changed = true;
    return ASSAY_OK;
}

void assay_loop_unwatch(struct assay_loop *loop, struct assay_watch *watch)
{
    for (size_t i = 0; i < loop->watches_count; i++) {
        if (loop->watches[i] == watch) {
            loop->watches[i] = loop->watches[--loop->watches_count];
            loop->watches_changed = true;
            return;
        }
    }
}

/* Whether a socket that was used has one of its events. */
static bool has_events(const struct assay_watch *watch)
{
    int events = 0;
    size_t bytes = sizeof events;
    return zmq_getsockopt(watch->socket, ZMQ_EVENTS, &events, &bytes) == 0 && (events & watch->events);
}

/* Lists what to poll. True when a socket is ready already. */
static bool prepare_poll(struct assay_loop *loop)
{
    bool any = false;
    loop->polled[0] = (struct pollfd){.fd = loop->event_fd, .events = POLLIN};
    for (size_t i = 0; i < loop->watches_count; i++) {
        struct assay_watch *watch = loop->watches[i];
        loop->polled[i + 1] = (struct pollfd){.fd = watch->fd, .events = POLLIN};
        watch->ready = watch->touched && has_events(watch);
        watch->touched = false;
        any |= watch->ready;
    }
    return any;
}

static void wait_for_events(struct assay_loop *loop)
{
    bool any = prepare_poll(loop);
    int64_t wait_ms = assay_timers_wait_ms(&loop->timers, assay_now_ms());
    pthread_mutex_lock(&loop->lock);
    if (any || loop->queued > 0 || loop->stop)
        wait_ms = 0;
    pthread_mutex_unlock(&loop->lock);
    /* A failure (a signal came) leaves nothing new ready: the next round polls again. */
    if (poll(loop->polled, loop->watches_count + 1, (int)ASSAY_MIN(wait_ms, 3600 * 1000)) <= 0)
        return;
    for (size_t i = 0; i < loop->watches_count; i++)
        loop->watches[i]->ready |= loop->polled[i + 1].revents != 0;
    uint64_t count;
    if (loop->polled[0].revents && read(loop->event_fd, &count, sizeof count) < 0)
        return;
}

/* Any change of the list ends the round; who was ready is asked again in the next one. */
static void run_watches(struct assay_loop *loop)
{
    loop->watches_changed = false;
    for (size_t i = 0; i < loop->watches_count; i++) {
        struct assay_watch *watch = loop->watches[i];
        if (!watch->ready)
            continue;
        watch->ready = false;
        watch->fn(watch->arg);
        if (loop->watches_changed)
            break;
    }
    for (size_t i = 0; loop->watches_changed && i < loop->watches_count; i++)
        loop->watches[i]->touched |= loop->watches[i]->ready;
}

/* True when the loop has to end: asked to, and nothing is queued, so that no assay_loop_call waits for ever. */
static bool ended(struct assay_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    bool result = loop->stop && loop->queued == 0;
    if (result) {
        loop->running = false;
        loop->stop = false;
    }
    pthread_mutex_unlock(&loop->lock);
    return result;
}

void assay_loop_run(struct assay_loop *loop)
{
    current_loop = loop;
    pthread_mutex_lock(&loop->lock);
    loop->running = true;
    pthread_mutex_unlock(&loop->lock);
    while (!ended(loop)) {
        wait_for_events(loop);
        run_wakes(loop);
        assay_timers_run(&loop->timers, assay_now_ms());
        run_watches(loop);
    }
    current_loop = NULL;
}

static void *run_thread(void *arg)
{
    pthread_setname_np(pthread_self(), "assay-loop");
    assay_loop_run(arg);
    return NULL;
}

enum assay_status assay_loop_start(struct assay_loop *loop, struct assay_err *err)
{
    /* Set before the thread is there, so that an assay_loop_call right after this waits for it. */
    pthread_mutex_lock(&loop->lock);
    loop->running = true;
    pthread_mutex_unlock(&loop->lock);
    int errnum = pthread_create(&loop->thread, NULL, run_thread, loop);
    if (errnum == 0)
        return ASSAY_OK;
    pthread_mutex_lock(&loop->lock);
    loop->running = false;
    pthread_mutex_unlock(&loop->lock);
    return assay_err_errno(err, errnum, "cannot start the event loop's thread");
}

void assay_loop_stop(struct assay_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->stop = true;
    pthread_mutex_unlock(&loop->lock);
    interrupt_poll(loop);
}

void assay_loop_stop_join(struct assay_loop *loop)
{
    assay_loop_stop(loop);
    pthread_join(loop->thread, NULL);
}

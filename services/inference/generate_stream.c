#include "services/inference/generate_stream.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

/* What waits to be sent. */
struct pending {
    char *text;
    size_t text_len, text_room;
    int32_t *ids;
    double *logprobs;
    size_t tokens, tokens_room;
    int64_t last_us; /* when its last token came */
};

struct assay_generate_stream {
    struct assay_loop *loop;
    struct assay_call *call;
    assay_loop_fn gone;
    void *gone_arg;
    int64_t begin_us, stall_ms;
    uint64_t stall_timer;  /* loop thread; 0: none */
    atomic_bool cancelled; /* by the client, or its deadline */
    atomic_bool broken;    /* err is there: memory is out, or nobody reads */
    pthread_mutex_t lock;  /* guards what follows */
    struct pending pending;
    int64_t first_us, last_us; /* of its tokens; 0: none has come */
    bool posted;               /* a flush is on its way to the loop's thread */
    bool ended;
    struct assay_generate_totals totals;
    struct assay_err err; /* status OK: all is well */
};

static void pending_release(struct pending *pending)
{
    free(pending->text);
    free(pending->ids);
    free(pending->logprobs);
    *pending = (struct pending){0};
}

/* Room for `more` further elements; false when memory is out. */
static bool make_room(void **at, size_t used, size_t *room, size_t more, size_t bytes)
{
    size_t wanted = used + more;
    if (wanted <= *room)
        return true;
    size_t larger = ASSAY_MAX(wanted, 2 * *room + 16);
    void *moved = realloc(*at, larger * bytes);
    if (!moved)
        return false;
    *at = moved;
    *room = larger;
    return true;
}

static bool pending_add(struct pending *pending, const char *text, size_t len, const struct assay_choice *choice)
{
    size_t tokens_room = pending->tokens_room;
    /* Three bytes of U+FFFD may take the place of one, and a NUL ends the text. */
    if (!make_room((void **)&pending->text, pending->text_len, &pending->text_room, 3 * len + 1, 1))
        return false;
    if (choice &&
        (!make_room((void **)&pending->ids, pending->tokens, &tokens_room, 1, sizeof *pending->ids) ||
         !make_room((void **)&pending->logprobs, pending->tokens, &pending->tokens_room, 1, sizeof *pending->logprobs)))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '\0') {
            pending->text[pending->text_len++] = text[i];
            continue;
        }
        memcpy(pending->text + pending->text_len, "\xef\xbf\xbd", 3);
        pending->text_len += 3;
    }
    pending->text[pending->text_len] = '\0';
    if (choice) {
        pending->ids[pending->tokens] = choice->id;
        pending->logprobs[pending->tokens++] = choice->logprob;
    }
    return true;
}

/* With the lock held: what is wrong first is what the client hears. */
static void break_off(struct assay_generate_stream *stream, const struct assay_err *err)
{
    if (stream->err.status == ASSAY_OK)
        stream->err = *err;
    atomic_store(&stream->broken, true);
}

/* Sets *err, too. */
static void lose_memory(struct assay_generate_stream *stream, struct assay_err *err)
{
    assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a response");
    pthread_mutex_lock(&stream->lock);
    break_off(stream, err);
    pthread_mutex_unlock(&stream->lock);
}

/* --- the loop's thread --- */

static void stream_free(struct assay_generate_stream *stream)
{
    assay_loop_fn gone = stream->gone;
    void *arg = stream->gone_arg;
    assay_loop_timer_cancel(stream->loop, stream->stall_timer);
    pending_release(&stream->pending);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
    gone(arg);
}

/* Answers the call; err NULL: well. A flush that is still on its way frees the stream. */
static void finish(struct assay_generate_stream *stream, const struct assay_err *err)
{
    if (err)
        assay_call_fail(stream->call, err);
    else
        assay_call_end(stream->call);
    stream->call = NULL;
    pthread_mutex_lock(&stream->lock);
    bool posted = stream->posted;
    pthread_mutex_unlock(&stream->lock);
    if (!posted)
        stream_free(stream);
}

static uint64_t since_begin(const struct assay_generate_stream *stream, int64_t us)
{
    return us > stream->begin_us ? (uint64_t)(us - stream->begin_us) : 0;
}

static enum assay_status send_pending(struct assay_generate_stream *stream, struct pending *pending, bool is_last)
{
    Assay__V1__GenerateReply reply = ASSAY__V1__GENERATE_REPLY__INIT;
    reply.text = pending->text_len > 0 ? pending->text : NULL;
    reply.n_ids = reply.n_logprobs = pending->tokens;
    reply.ids = pending->ids;
    reply.logprobs = pending->logprobs;
    reply.has_elapsed_us = pending->tokens > 0;
    reply.elapsed_us = since_begin(stream, pending->last_us);
    if (is_last) { /* nobody writes these any more */
        reply.has_finish = reply.has_prompt_tokens = reply.has_response_tokens = true;
        reply.has_queue_us = reply.has_first_token_us = reply.has_total_us = true;
        reply.finish = stream->totals.finish;
        reply.prompt_tokens = stream->totals.prompt_tokens;
        reply.response_tokens = stream->totals.response_tokens;
        reply.queue_us = stream->totals.queue_us;
        reply.first_token_us = since_begin(stream, stream->first_us);
        reply.total_us = since_begin(stream, stream->last_us);
    }
    return assay_call_send(stream->call, &reply.base, NULL, 0);
}

static void stalled(void *arg);

/* The clock runs while something waits for credit. */
static void watch_stall(struct assay_generate_stream *stream, bool waits)
{
    if (waits && stream->stall_timer == 0)
        stream->stall_timer = assay_loop_timer(stream->loop, stream->stall_ms, 0, stalled, stream);
    if (!waits && stream->stall_timer != 0) {
        assay_loop_timer_cancel(stream->loop, stream->stall_timer);
        stream->stall_timer = 0;
    }
}

/* With the lock held. */
static struct pending take_pending(struct assay_generate_stream *stream)
{
    struct pending pending = stream->pending;
    stream->pending = (struct pending){0};
    return pending;
}

/* Sends what is there if the credit allows, and ends the call once nothing is left to send. */
static void flush(struct assay_generate_stream *stream)
{
    struct pending pending = {0};
    bool has_credit = assay_call_credit(stream->call) > 0;
    pthread_mutex_lock(&stream->lock);
    bool ended = stream->ended, has_more = stream->pending.tokens > 0 || stream->pending.text_len > 0;
    struct assay_err err = stream->err;
    if (has_credit)
        pending = take_pending(stream);
    pthread_mutex_unlock(&stream->lock);
    bool wants_last = ended && err.status == ASSAY_OK;
    bool sends = has_credit && (has_more || wants_last);
    if (ended && atomic_load(&stream->cancelled))
        assay_err_set(&err, ASSAY_CANCELLED, "the client is gone");
    else if (sends && send_pending(stream, &pending, wants_last) != ASSAY_OK && !atomic_load(&stream->cancelled))
        lose_memory(stream, &err);
    pending_release(&pending);
    watch_stall(stream, !has_credit && (has_more || wants_last));
    if (ended && err.status != ASSAY_OK)
        finish(stream, &err);
    else if (wants_last && sends)
        finish(stream, NULL);
}

static void flush_posted(void *arg)
{
    struct assay_generate_stream *stream = arg;
    pthread_mutex_lock(&stream->lock);
    stream->posted = false;
    pthread_mutex_unlock(&stream->lock);
    if (stream->call)
        flush(stream);
    else
        stream_free(stream);
}

static void credit_came(void *arg)
{
    flush(arg);
}

static void client_left(void *arg)
{
    struct assay_generate_stream *stream = arg;
    atomic_store(&stream->cancelled, true);
    flush(stream);
}

static void stalled(void *arg)
{
    struct assay_generate_stream *stream = arg;
    struct assay_err err;
    stream->stall_timer = 0;
    assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "the client took no message for %lld ms while one waited for it",
                  (long long)stream->stall_ms);
    pthread_mutex_lock(&stream->lock);
    break_off(stream, &err);
    pthread_mutex_unlock(&stream->lock);
    flush(stream);
}

struct assay_generate_stream *assay_generate_stream_new(struct assay_loop *loop, struct assay_call *call,
                                                        int64_t stall_ms, assay_loop_fn gone, void *arg)
{
    struct assay_generate_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    stream->loop = loop;
    stream->call = call;
    stream->gone = gone;
    stream->gone_arg = arg;
    stream->stall_ms = stall_ms;
    stream->begin_us = assay_now_us();
    pthread_mutex_init(&stream->lock, NULL);
    assay_call_on_credit(call, credit_came, stream);
    assay_call_on_cancel(call, client_left, stream);
    return stream;
}

/* --- the thread that computes --- */

int64_t assay_generate_stream_begin_us(const struct assay_generate_stream *stream)
{
    return stream->begin_us;
}

bool assay_generate_stream_wanted(const struct assay_generate_stream *stream)
{
    return !atomic_load(&stream->cancelled) && !atomic_load(&stream->broken);
}

/* With the lock held: true when a flush is to be posted, which the caller does without the lock. */
static bool wants_flush(struct assay_generate_stream *stream)
{
    bool wants = !stream->posted;
    stream->posted = true;
    return wants;
}

void assay_generate_stream_push(struct assay_generate_stream *stream, const char *text, size_t len,
                                const struct assay_choice *choice)
{
    struct assay_loop *loop = stream->loop;
    pthread_mutex_lock(&stream->lock);
    if (!pending_add(&stream->pending, text, len, choice)) {
        struct assay_err err;
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a response");
        break_off(stream, &err);
    } else if (choice) {
        stream->pending.last_us = stream->last_us = assay_now_us();
        if (stream->first_us == 0)
            stream->first_us = stream->last_us;
    }
    bool posts = (choice || len > 0) && wants_flush(stream);
    pthread_mutex_unlock(&stream->lock);
    if (posts)
        assay_loop_post(loop, flush_posted, stream);
}

void assay_generate_stream_end(struct assay_generate_stream *stream, const struct assay_generate_totals *totals,
                               const struct assay_err *err)
{
    struct assay_loop *loop = stream->loop;
    pthread_mutex_lock(&stream->lock);
    if (totals)
        stream->totals = *totals;
    if (err)
        break_off(stream, err);
    stream->ended = true;
    bool posts = wants_flush(stream);
    pthread_mutex_unlock(&stream->lock);
    /* One that is on its way already comes after this: it frees the stream. */
    if (posts)
        assay_loop_post(loop, flush_posted, stream);
}

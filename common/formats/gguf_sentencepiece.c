/* A sentencepiece vocabulary as a tokenizer.model: the message ModelProto of sentencepiece_model.proto, with the fields
 * that say what a GGUF file says. */
#include <string.h>

#include "common/formats/gguf_vocabulary.h"

enum { WIRE_NUMBER = 0, WIRE_BYTES = 2, WIRE_BITS32 = 5 };

/* ModelProto */
enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
/* ModelProto.SentencePiece */
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
/* TrainerSpec */
enum {
    TRAINER_TYPE = 3,
    TRAINER_VOCAB = 4,
    TRAINER_BYTES = 35,
    TRAINER_UNKNOWN = 40,
    TRAINER_BOS = 41,
    TRAINER_EOS = 42,
    TRAINER_PADDING = 43,
    TRAINER_UNKNOWN_PIECE = 45,
    TRAINER_BOS_PIECE = 46,
    TRAINER_EOS_PIECE = 47,
    TRAINER_PADDING_PIECE = 48
};
enum { TYPE_BPE = 2 };
/* NormalizerSpec */
enum { NORMALIZER_NAME = 1, NORMALIZER_PREFIX = 3, NORMALIZER_FEWER_SPACES = 4, NORMALIZER_ESCAPE = 5 };

static void append_varint(struct assay_buf *out, uint64_t value)
{
    do {
        unsigned char byte = (unsigned char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        assay_buf_append(out, &byte, 1);
        value >>= 7;
    } while (value);
}

static void append_number(struct assay_buf *out, unsigned field, int64_t value)
{
    append_varint(out, field << 3 | WIRE_NUMBER);
    append_varint(out, (uint64_t)value);
}

static void append_bytes(struct assay_buf *out, unsigned field, const void *bytes, size_t len)
{
    append_varint(out, field << 3 | WIRE_BYTES);
    append_varint(out, len);
    assay_buf_append(out, bytes, len);
}

static void append_piece(struct assay_buf *out, const struct assay_gguf_vocabulary *v, size_t id)
{
    assay_auto(assay_buf_release) struct assay_buf piece = ASSAY_BUF_INIT;
    append_bytes(&piece, PIECE_TEXT, v->tokens[id].bytes, v->tokens[id].len);
    append_varint(&piece, PIECE_SCORE << 3 | WIRE_BITS32);
    assay_buf_append(&piece, &v->scores[id], sizeof v->scores[id]);
    append_number(&piece, PIECE_TYPE, assay_gguf_token_type_of(v, id));
    append_bytes(out, MODEL_PIECES, piece.data, piece.len);
}

static void append_trainer(struct assay_buf *out, const struct assay_gguf_vocabulary *v)
{
    const struct {
        unsigned id_field, text_field;
        int64_t id;
    } names[] = {{TRAINER_UNKNOWN, TRAINER_UNKNOWN_PIECE, v->unknown},
                 {TRAINER_BOS, TRAINER_BOS_PIECE, v->bos},
                 {TRAINER_EOS, TRAINER_EOS_PIECE, v->eos},
                 {TRAINER_PADDING, TRAINER_PADDING_PIECE, v->padding}};
    assay_auto(assay_buf_release) struct assay_buf trainer = ASSAY_BUF_INIT;
    bool bytes = false;
    for (size_t i = 0; i < v->tokens_count && !bytes; i++)
        bytes = assay_gguf_token_type_of(v, i) == ASSAY_GGUF_TOKEN_BYTE;
    append_number(&trainer, TRAINER_TYPE, TYPE_BPE);
    append_number(&trainer, TRAINER_VOCAB, (int64_t)v->tokens_count);
    append_number(&trainer, TRAINER_BYTES, bytes);
    for (size_t i = 0; i < ASSAY_COUNT(names); i++) {
        append_number(&trainer, names[i].id_field, names[i].id);
        if (names[i].id >= 0)
            append_bytes(&trainer, names[i].text_field, v->tokens[names[i].id].bytes, v->tokens[names[i].id].len);
    }
    append_bytes(out, MODEL_TRAINER, trainer.data, trainer.len);
}

void assay_gguf_append_sentencepiece(const struct assay_gguf_vocabulary *v, struct assay_buf *out)
{
    assay_auto(assay_buf_release) struct assay_buf normalizer = ASSAY_BUF_INIT;
    for (size_t i = 0; i < v->tokens_count; i++)
        append_piece(out, v, i);
    append_trainer(out, v);
    append_bytes(&normalizer, NORMALIZER_NAME, "identity", strlen("identity"));
    append_number(&normalizer, NORMALIZER_PREFIX, v->add_space);
    append_number(&normalizer, NORMALIZER_FEWER_SPACES, 0);
    append_number(&normalizer, NORMALIZER_ESCAPE, 1);
    append_bytes(out, MODEL_NORMALIZER, normalizer.data, normalizer.len);
}

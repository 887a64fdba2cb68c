/* Pre-tokenizers by the names that GGUF files have for them. */
#include <string.h>

#include "common/formats/gguf_vocabulary.h"

/* Patterns are written as JSON has them: each backslash of the expression is four here. */
#define SPLIT(pattern)                                                                                                 \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define SEQUENCE(parts) "{\"type\":\"Sequence\",\"pretokenizers\":[" parts "]}"
#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}"
#define GPT2_WORDS "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}"
#define DIGITS "{\"type\":\"Digits\",\"individual_digits\":true}"
#define SPACES "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define WORDS(digits)                                                                                                  \
    SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits                               \
          "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|" SPACES)
/* Words that begin with a capital or end with small letters are apart; `suffix` may follow them. */
#define UPPER "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define LOWER "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define CASED_WORDS(suffix, digits)                                                                                    \
    SPLIT("[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" UPPER          \
          "+" LOWER "*" suffix "|" digits "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|" SPACES)
/* What readers of GGUF do where the converter knew no name: punctuation, GPT-2's words, numbers by three digits. */
#define UNKNOWN_WORDS                                                                                                   \
    SPLIT("[\\\\p{P}\\\\$\\\\+<=>\\\\^~\\\\|]+")                                                                        \
    "," SPLIT("'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)") "," SPLIT( \
        "\\\\p{N}+") "," SPLIT("[0-9][0-9][0-9]")
#define CODER_WORDS                                                                                                    \
    SPLIT("[\\\\r\\\\n]")                                                                                              \
    "," SPLIT("\\\\s?\\\\p{L}+") "," SPLIT("\\\\s?\\\\p{P}+") "," SPLIT(                                               \
        "[\\\\x{4e00}-\\\\x{9fa5}\\\\x{0800}-\\\\x{4e00}\\\\x{ac00}-\\\\x{d7ff}]+") "," DIGITS
#define DEEPSEEK3_WORDS                                                                                                \
    SPLIT("\\\\p{N}{1,3}")                                                                                             \
    "," SPLIT("[\\\\x{4e00}-\\\\x{9fa5}\\\\x{3040}-\\\\x{309f}\\\\x{30a0}-\\\\x{30ff}]+") "," SPLIT(                   \
        "[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|"                                           \
        "[^\\\\r\\\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+| ?[\\\\p{P}\\\\p{S}]+[\\\\r\\\\n]*|" SPACES)
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

static const struct assay_gguf_pre pre_tokenizers[] = {
    {"gpt-2", GPT2_WORDS, false, false, false},
    {"smollm", SEQUENCE(DIGITS "," GPT2_WORDS), false, false, false},
    {"llama-bpe", SEQUENCE(WORDS("\\\\p{N}{1,3}") "," BYTES), false, true, true},
    {"qwen2", SEQUENCE(WORDS("\\\\p{N}") "," BYTES), true, false, false},
    {"deepseek-r1-qwen", SEQUENCE(WORDS("\\\\p{N}") "," BYTES), false, false, false},
    {"dbrx", SEQUENCE(WORDS("\\\\p{N}{1,3}") "," BYTES), false, false, false},
    {"olmo", GPT2_WORDS, true, false, false},
    {"tekken", SEQUENCE(CASED_WORDS("", "\\\\p{N}") "," BYTES), false, true, true},
    {"gpt-4o", SEQUENCE(CASED_WORDS(CONTRACTIONS, "\\\\p{N}{1,3}") "," BYTES), false, false, false},
    {"deepseek-coder", SEQUENCE(CODER_WORDS "," BYTES), false, false, false},
    {"deepseek-v3", SEQUENCE(DEEPSEEK3_WORDS "," BYTES), false, false, false},
    {"default", SEQUENCE(UNKNOWN_WORDS "," BYTES), false, false, false},
};

const struct assay_gguf_pre *assay_gguf_pre_find(struct assay_gguf_text name)
{
    static const struct {
        const char *name, *same_as;
    } aliases[] = {{"llama3", "llama-bpe"}, {"llama-v3", "llama-bpe"}, {"phi-2", "gpt-2"}, {"refact", "smollm"},
                   {"starcoder", "smollm"}, {"smaug-bpe", "dbrx"},     {"mpt", "olmo"}};
    for (size_t i = 0; i < ASSAY_COUNT(aliases); i++)
        if (assay_gguf_text_is(name, aliases[i].name))
            name = (struct assay_gguf_text){aliases[i].same_as, strlen(aliases[i].same_as)};
    for (size_t i = 0; i < ASSAY_COUNT(pre_tokenizers); i++)
        if (assay_gguf_text_is(name, pre_tokenizers[i].name))
            return &pre_tokenizers[i];
    return NULL;
}

const char *assay_gguf_pre_names(void)
{
    return "gpt-2, phi-2, smollm, starcoder, refact, llama-bpe, smaug-bpe, dbrx, qwen2, olmo, mpt, tekken, gpt-4o, "
           "deepseek-r1-qwen, deepseek-coder, deepseek-v3, default";
}

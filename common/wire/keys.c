#include "common/wire/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium/crypto_box.h>
#include <sodium/crypto_scalarmult.h>
#include <sodium/utils.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(crypto_box_PUBLICKEYBYTES == ASSAY_KEY_BYTES && crypto_box_SECRETKEYBYTES == ASSAY_KEY_BYTES,
               "CURVE's keys are those of crypto_box");

void assay_key_pair_new(enum assay_role role, struct assay_key_pair *ret)
{
    ret->role = role;
    crypto_box_keypair(ret->public_key.bytes, ret->secret);
}

void assay_key_pair_clear(struct assay_key_pair *pair)
{
    sodium_memzero(pair, sizeof *pair);
}

void assay_public_key_text(const struct assay_public_key *key, char ret[ASSAY_KEY_DIGITS + 1])
{
    sodium_bin2hex(ret, ASSAY_KEY_DIGITS + 1, key->bytes, sizeof key->bytes);
}

static bool parse_hex(const char *text, size_t digits, unsigned char ret[ASSAY_KEY_BYTES])
{
    size_t bytes;
    unsigned char parsed[ASSAY_KEY_BYTES];
    bool good = digits == ASSAY_KEY_DIGITS &&
                sodium_hex2bin(parsed, sizeof parsed, text, digits, NULL, &bytes, NULL) == 0 && bytes == sizeof parsed;
    if (good)
        memcpy(ret, parsed, sizeof parsed);
    sodium_memzero(parsed, sizeof parsed);
    return good;
}

bool assay_public_key_parse(const char *text, size_t bytes, struct assay_public_key *ret)
{
    return parse_hex(text, bytes, ret->bytes);
}

enum line { LINE_ROLE = 1, LINE_PUBLIC = 2, LINE_SECRET = 4 };

/* One line "word value"; adds its bit to *seen. */
static enum assay_status parse_line(const char *line, size_t bytes, unsigned number, unsigned *seen,
                                    struct assay_key_pair *pair, struct assay_err *err)
{
    static const struct {
        const char *word;
        enum line bit;
    } words[] = {{"role ", LINE_ROLE}, {"public ", LINE_PUBLIC}, {"secret ", LINE_SECRET}};
    for (size_t i = 0; i < ASSAY_COUNT(words); i++) {
        size_t word_bytes = strlen(words[i].word);
        if (bytes < word_bytes || memcmp(line, words[i].word, word_bytes) != 0)
            continue;
        const char *value = line + word_bytes;
        size_t value_bytes = bytes - word_bytes;
        char name[16] = "";
        bool good = !(*seen & words[i].bit);
        *seen |= words[i].bit;
        if (words[i].bit == LINE_PUBLIC)
            good = good && parse_hex(value, value_bytes, pair->public_key.bytes);
        else if (words[i].bit == LINE_SECRET)
            good = good && parse_hex(value, value_bytes, pair->secret);
        else if ((good = good && value_bytes < sizeof name))
            good = assay_role_parse(memcpy(name, value, value_bytes), &pair->role);
        if (good)
            return ASSAY_OK;
        break;
    }
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                         "line %u: wanted 'role worker', 'client', 'metric' or 'admin', or 'public' or 'secret' with "
                         "64 hexadecimal digits, each once",
                         number);
}

static enum assay_status check_pair(const struct assay_key_pair *pair, unsigned seen, bool is_secret,
                                    struct assay_err *err)
{
    unsigned wanted = LINE_ROLE | LINE_PUBLIC | (is_secret ? LINE_SECRET : 0u);
    if (seen & ~wanted)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "has a secret where a public key is wanted");
    if (seen != wanted)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "lacks its line '%s'",
                             !(seen & LINE_ROLE)     ? "role"
                             : !(seen & LINE_PUBLIC) ? "public"
                                                     : "secret");
    unsigned char derived[ASSAY_KEY_BYTES];
    if (is_secret && (crypto_scalarmult_base(derived, pair->secret) != 0 ||
                      memcmp(derived, pair->public_key.bytes, sizeof derived) != 0))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "has a public key that is not that of its secret");
    return ASSAY_OK;
}

enum assay_status assay_key_parse(const char *text, size_t bytes, bool is_secret, struct assay_key_pair *ret,
                                  struct assay_err *err)
{
    struct assay_key_pair pair = {0};
    unsigned seen = 0, number = 0;
    enum assay_status status = ASSAY_OK;
    for (size_t at = 0; at < bytes && status == ASSAY_OK;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        size_t line_bytes = end ? (size_t)(end - (text + at)) : bytes - at;
        const char *line = text + at;
        at += line_bytes + (end != NULL);
        number++;
        if (line_bytes > 0 && line[0] != '#')
            status = parse_line(line, line_bytes, number, &seen, &pair, err);
    }
    if (status == ASSAY_OK)
        status = check_pair(&pair, seen, is_secret, err);
    if (status == ASSAY_OK)
        *ret = pair;
    assay_key_pair_clear(&pair);
    return status;
}

/* What stands where the name of a file is wanted, and must not get into a log. */
static bool looks_like_a_key(const char *text)
{
    size_t bytes = strlen(text);
    return (bytes == ASSAY_KEY_DIGITS && strspn(text, "0123456789abcdefABCDEF") == bytes) ||
           (bytes == 40 && !strchr(text, '/'));
}

static enum assay_status check_secret_file(int fd, const char *path, struct assay_err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return assay_err_errno(err, errno, "%s", path);
    bool root_s = st.st_uid == 0 && geteuid() != 0;
    if (!S_ISREG(st.st_mode) || (st.st_uid != geteuid() && !root_s) || (st.st_mode & (root_s ? 037u : 077u)) != 0)
        return assay_err_set(err, ASSAY_PERMISSION_DENIED,
                             "%s has mode %o and owner %u, wanted a file of mode 600 and owner %u: others must not "
                             "read a secret key",
                             path, st.st_mode & 07777u, st.st_uid, geteuid());
    return ASSAY_OK;
}

static enum assay_status read_key(const char *path, bool is_secret, struct assay_key_pair *ret, struct assay_err *err)
{
    char text[ASSAY_KEY_FILE_BYTES_MAX + 2];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && looks_like_a_key(path))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "found what looks like a key, wanted the name of its file");
    if (fd < 0)
        return assay_err_errno(err, errno, "cannot open the key file %s", path);
    enum assay_status status = is_secret ? check_secret_file(fd, path, err) : ASSAY_OK;
    ssize_t bytes = status == ASSAY_OK ? read(fd, text, sizeof text - 1) : 0;
    if (bytes < 0)
        status = assay_err_errno(err, errno, "cannot read the key file %s", path);
    close(fd);
    if (status == ASSAY_OK && bytes > ASSAY_KEY_FILE_BYTES_MAX)
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s has more than %d bytes, wanted a key file", path,
                               ASSAY_KEY_FILE_BYTES_MAX);
    if (status == ASSAY_OK) {
        text[bytes] = '\0';
        status = assay_key_parse(text, (size_t)bytes, is_secret, ret, err);
        if (status != ASSAY_OK)
            assay_err_prefix(err, "%s", path);
    }
    sodium_memzero(text, sizeof text);
    return status;
}

enum assay_status assay_key_read_secret(const char *path, struct assay_key_pair *ret, struct assay_err *err)
{
    return read_key(path, true, ret, err);
}

enum assay_status assay_key_read_public(const char *path, struct assay_public_key *ret, enum assay_role *ret_role,
                                        struct assay_err *err)
{
    struct assay_key_pair pair;
    enum assay_status status = read_key(path, false, &pair, err);
    if (status == ASSAY_OK) {
        *ret = pair.public_key;
        *ret_role = pair.role;
    }
    return status;
}

static enum assay_status write_new(const char *path, mode_t mode, const char *text, struct assay_err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0 && errno == EEXIST)
        return assay_err_set(err, ASSAY_ALREADY_EXISTS, "%s is there already; a key is never written over", path);
    if (fd < 0)
        return assay_err_errno(err, errno, "cannot make %s", path);
    size_t bytes = strlen(text);
    bool good = fchmod(fd, mode) == 0 && write(fd, text, bytes) == (ssize_t)bytes && fsync(fd) == 0;
    int errnum = errno;
    close(fd);
    if (good)
        return ASSAY_OK;
    unlink(path);
    return assay_err_errno(err, errnum, "cannot write %s", path);
}

enum assay_status assay_key_write(const char *dir, const char *name, const struct assay_key_pair *pair,
                                  char ret_secret_path[ASSAY_PATH_MAX], char ret_public_path[ASSAY_PATH_MAX],
                                  struct assay_err *err)
{
    char file[256], text[512], public_text[ASSAY_KEY_DIGITS + 1], secret_text[ASSAY_KEY_DIGITS + 1];
    if (!assay_path_is_name(name) || name[0] == '.' || strlen(name) > 128)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "found name '%.128s', wanted one of a file", name);
    snprintf(file, sizeof file, "%s.key", name);
    enum assay_status status = assay_path_join(ret_secret_path, dir, file, err);
    snprintf(file, sizeof file, "%s.pub", name);
    if (status == ASSAY_OK)
        status = assay_path_join(ret_public_path, dir, file, err);
    if (status == ASSAY_OK)
        status = assay_mkdirs(dir, 0700, err);
    if (status != ASSAY_OK)
        return status;
    assay_public_key_text(&pair->public_key, public_text);
    sodium_bin2hex(secret_text, sizeof secret_text, pair->secret, sizeof pair->secret);
    snprintf(text, sizeof text, "# assay secret key: keep it to yourself\nrole %s\npublic %s\nsecret %s\n",
             assay_role_name(pair->role), public_text, secret_text);
    status = write_new(ret_secret_path, 0600, text, err);
    sodium_memzero(secret_text, sizeof secret_text);
    sodium_memzero(text, sizeof text);
    if (status != ASSAY_OK)
        return status;
    snprintf(text, sizeof text, "# assay public key\nrole %s\npublic %s\n", assay_role_name(pair->role), public_text);
    status = write_new(ret_public_path, 0644, text, err);
    if (status != ASSAY_OK)
        unlink(ret_secret_path);
    return status;
}

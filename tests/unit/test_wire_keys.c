/* Key files, the directory of allowed keys, who may connect and who may call what. No sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/wire/address.h"
#include "common/wire/keyring.h"
#include "common/wire/reflection.h"
#include "common/wire/zap.h"

#define SECRET "5b6e1f0c4d3a29187766554433221100ffeeddccbbaa99887766554433221100"

static char directory[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/assay-keys-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return assay_remove_tree(directory, NULL) == ASSAY_OK ? 0 : -1;
}

static void write_key(const char *name, enum assay_role role, struct assay_key_pair *ret)
{
    char secret[ASSAY_PATH_MAX], public[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    assay_key_pair_new(role, ret);
    if (assay_key_write(directory, name, ret, secret, public, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
}

static void path_of(const char *name, char ret[ASSAY_PATH_MAX])
{
    snprintf(ret, ASSAY_PATH_MAX, "%s/%s", directory, name);
}

static void keys_come_back_from_their_files(void **state)
{
    (void)state;
    struct assay_key_pair pair, read;
    struct assay_public_key public_key;
    enum assay_role role;
    char path[ASSAY_PATH_MAX], other[ASSAY_PATH_MAX];
    struct stat st;
    write_key("w1", ASSAY_ROLE_WORKER, &pair);
    path_of("w1.key", path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(assay_key_read_secret(path, &read, NULL), ASSAY_OK);
    assert_memory_equal(read.secret, pair.secret, sizeof pair.secret);
    assert_memory_equal(&read.public_key, &pair.public_key, sizeof pair.public_key);
    assert_int_equal(read.role, ASSAY_ROLE_WORKER);
    path_of("w1.pub", path);
    assert_int_equal(assay_key_read_public(path, &public_key, &role, NULL), ASSAY_OK);
    assert_memory_equal(&public_key, &pair.public_key, sizeof public_key);
    assert_int_equal(role, ASSAY_ROLE_WORKER);
    assert_int_equal(assay_key_write(directory, "w1", &pair, path, other, NULL), ASSAY_ALREADY_EXISTS);
    assert_int_equal(assay_key_write(directory, "../w1", &pair, path, other, NULL), ASSAY_INVALID_ARGUMENT);
}

static void a_secret_that_others_may_read_is_refused(void **state)
{
    (void)state;
    struct assay_key_pair pair, read;
    struct assay_err err = ASSAY_ERR_INIT;
    char path[ASSAY_PATH_MAX];
    write_key("w1", ASSAY_ROLE_WORKER, &pair);
    path_of("w1.key", path);
    static const mode_t modes[] = {0644, 0640, 0604, 0660};
    for (size_t i = 0; i < ASSAY_COUNT(modes); i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_int_equal(assay_key_read_secret(path, &read, &err), ASSAY_PERMISSION_DENIED);
        assert_non_null(strstr(err.text, "600"));
    }
}

static void a_key_in_the_place_of_its_file_is_not_repeated(void **state)
{
    (void)state;
    struct assay_key_pair read;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_key_read_secret(SECRET, &read, &err), ASSAY_INVALID_ARGUMENT);
    assert_null(strstr(err.text, "5b6e"));
    assert_int_equal(assay_key_read_secret("Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID", &read, &err),
                     ASSAY_INVALID_ARGUMENT);
    assert_null(strstr(err.text, "Yne"));
}

static void what_is_no_key_file_is_refused_without_repeating_it(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "role worker\n",
        "public " SECRET "\n",
        "role worker\nrole worker\npublic " SECRET "\n",
        "role king\npublic " SECRET "\n",
        "role none\npublic " SECRET "\n",
        "role worker\npublic " SECRET "0\n",
        "role worker\npublic 5b6e\n",
        "role worker\npublic " SECRET "\nsecret " SECRET "\n",
        "role  worker\npublic " SECRET "\n",
        "role worker\npublic " SECRET "\nhello\n",
        "secret " SECRET "\n",
        "role workerworkerworkerworker\npublic " SECRET "\n",
    };
    for (size_t i = 0; i < ASSAY_COUNT(texts); i++) {
        struct assay_key_pair pair;
        struct assay_err err = ASSAY_ERR_INIT;
        if (assay_key_parse(texts[i], strlen(texts[i]), false, &pair, &err) != ASSAY_INVALID_ARGUMENT)
            fail_msg("taken: %s", texts[i]);
        assert_null(strstr(err.text, "5b6e"));
        /* A secret with a public key of another: never that of scalarmult(SECRET). */
        assert_int_equal(assay_key_parse(texts[i], strlen(texts[i]), true, &pair, &err), ASSAY_INVALID_ARGUMENT);
        assert_null(strstr(err.text, "5b6e"));
    }
    struct assay_key_pair pair;
    static const char good[] = "# a comment\n\nrole client\npublic " SECRET;
    assert_int_equal(assay_key_parse(good, sizeof good - 1, false, &pair, NULL), ASSAY_OK);
    assert_int_equal(pair.role, ASSAY_ROLE_CLIENT);
}

static void allowed_keys_follow_their_directory(void **state)
{
    (void)state;
    struct assay_keyring keyring;
    struct assay_key_pair worker, admin;
    char path[ASSAY_PATH_MAX], again[ASSAY_PATH_MAX];
    assert_int_equal(assay_keyring_open(&keyring, "/nowhere/at/all", NULL), ASSAY_NOT_FOUND);
    write_key("w1", ASSAY_ROLE_WORKER, &worker);
    assert_int_equal(assay_keyring_open(&keyring, directory, NULL), ASSAY_OK);
    assert_int_equal(assay_keyring_find(&keyring, &worker.public_key)->role, ASSAY_ROLE_WORKER);
    assert_string_equal(assay_keyring_find(&keyring, &worker.public_key)->name, "w1");
    assert_false(assay_keyring_refresh(&keyring));
    uint64_t generation = keyring.generation;
    write_key("boss", ASSAY_ROLE_ADMIN, &admin);
    assert_null(assay_keyring_find(&keyring, &admin.public_key));
    assert_true(assay_keyring_refresh(&keyring));
    assert_true(keyring.generation != generation);
    assert_int_equal(assay_keyring_find(&keyring, &admin.public_key)->role, ASSAY_ROLE_ADMIN);
    path_of("w1.pub", path);
    assert_int_equal(unlink(path), 0);
    assert_true(assay_keyring_refresh(&keyring));
    assert_null(assay_keyring_find(&keyring, &worker.public_key));
    assert_non_null(assay_keyring_find(&keyring, &admin.public_key));
    /* One key under two names counts for nothing: which role would it have? */
    path_of("boss.pub", path);
    path_of("other.pub", again);
    assert_int_equal(link(path, again), 0);
    assert_true(assay_keyring_refresh(&keyring));
    assert_null(assay_keyring_find(&keyring, &admin.public_key));
    assert_int_equal(keyring.broken, 1);
    unlink(again);
    assert_int_equal(assay_file_write(again, "role admin\n", 11, NULL), ASSAY_OK);
    assert_true(assay_keyring_refresh(&keyring));
    assert_int_equal(keyring.broken, 1);
    assert_non_null(strstr(keyring.first_broken.text, "other.pub"));
    assert_non_null(assay_keyring_find(&keyring, &admin.public_key));
    assert_int_equal(assay_remove_tree(directory, NULL), ASSAY_OK);
    assert_true(assay_keyring_refresh(&keyring));
    assert_null(assay_keyring_find(&keyring, &admin.public_key));
    assert_false(assay_keyring_refresh(&keyring));
    assay_keyring_release(&keyring);
}

/* A ZAP request as libzmq makes it; frames[i] NULL ends it. */
static struct assay_zap_answer ask(const struct assay_keyring *keyring, const char *domain, const char *mechanism,
                                   const void *key, size_t key_bytes, size_t count)
{
    const struct assay_bytes frames[] = {{"", 0},
                                         {"1.0", 3},
                                         {"7", 1},
                                         {domain, strlen(domain)},
                                         {"10.0.0.7", 8},
                                         {"", 0},
                                         {mechanism, strlen(mechanism)},
                                         {key, key_bytes},
                                         {"more", 4}};
    struct assay_zap_answer answer;
    assay_zap_decide(keyring, frames, count, &answer);
    return answer;
}

static void zap_lets_in_allowed_keys_and_the_owner_alone(void **state)
{
    (void)state;
    struct assay_keyring keyring;
    struct assay_key_pair worker, stranger;
    char digits[ASSAY_KEY_DIGITS + 1];
    write_key("w1", ASSAY_ROLE_WORKER, &worker);
    assay_key_pair_new(ASSAY_ROLE_ADMIN, &stranger);
    assert_int_equal(assay_keyring_open(&keyring, directory, NULL), ASSAY_OK);
    const unsigned char *good = worker.public_key.bytes, *bad = stranger.public_key.bytes;
    struct assay_zap_answer answer = ask(&keyring, "curve", "CURVE", good, 32, 8);
    assay_public_key_text(&worker.public_key, digits);
    assert_string_equal(answer.code, "200");
    assert_string_equal(answer.user, digits);
    assert_string_equal(ask(&keyring, "curve", "CURVE", bad, 32, 8).code, "400");
    assert_string_equal(ask(&keyring, "curve", "CURVE", good, 31, 8).code, "400");
    assert_string_equal(ask(&keyring, "curve", "CURVE", good, 32, 9).code, "400");
    assert_string_equal(ask(&keyring, "curve", "CURVE", good, 32, 7).code, "400");
    assert_string_equal(ask(&keyring, "curve", "NULL", good, 32, 7).code, "400");
    assert_string_equal(ask(&keyring, "curve", "PLAIN", good, 32, 8).code, "400");
    assert_string_equal(ask(&keyring, "", "CURVE", good, 32, 8).code, "400");
    assert_string_equal(ask(&keyring, "ipc", "CURVE", bad, 32, 8).code, "400");
    assert_string_equal(ask(NULL, "curve", "CURVE", good, 32, 8).code, "400");
    answer = ask(&keyring, "ipc", "NULL", "", 0, 7);
    assert_string_equal(answer.code, "200");
    assert_string_equal(answer.user, ASSAY_ZAP_USER_LOCAL);
    for (size_t count = 0; count < 7; count++)
        assert_null(ask(&keyring, "curve", "CURVE", good, 32, count).request_id.data);
    assay_keyring_release(&keyring);
}

static void every_method_has_a_row_of_roles(void **state)
{
    (void)state;
    size_t count;
    const ProtobufCServiceDescriptor *const *services = assay_services_known(&count);
    for (size_t i = 0; i < count; i++) {
        for (unsigned m = 0; m < services[i]->n_methods; m++) {
            char method[256];
            snprintf(method, sizeof method, "%s/%s", services[i]->name, services[i]->methods[m].name);
            if (!assay_role_knows(method))
                fail_msg("%s has no row in common/wire/roles.c: who may call it?", method);
            assert_true(assay_role_may_call(ASSAY_ROLE_ADMIN, method));
            assert_false(assay_role_may_call(ASSAY_ROLE_NONE, method));
        }
    }
}

static void roles_may_call_what_is_theirs(void **state)
{
    (void)state;
    static const struct {
        const char *method;
        bool worker, client, metric;
    } rows[] = {
        {"assay.v1.Work/Lease", true, false, false},
        {"assay.v1.Records/Put", true, false, false},
        {"assay.v1.Coordinator/SubmitJob", false, true, false},
        {"assay.v1.Coordinator/RegisterService", true, false, true},
        {"assay.v1.Cache/Prune", false, false, false},
        {"assay.v1.Cache/Stat", false, true, false},
        {"assay.v1.Quantizer/Quantize", false, false, false},
        {"assay.v1.Evaluator/Score", false, false, false},
        {"assay.v1.Shards/Release", false, false, false},
        {"assay.v1.Respond/Generate", false, true, false},
        {"assay.v1.Health/Check", true, true, true},
        {"assay.v1.Nothing/AtAll", false, false, false},
        {"assay.v1.Health", false, false, false},
    };
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
        assert_int_equal(assay_role_may_call(ASSAY_ROLE_WORKER, rows[i].method), rows[i].worker);
        assert_int_equal(assay_role_may_call(ASSAY_ROLE_CLIENT, rows[i].method), rows[i].client);
        assert_int_equal(assay_role_may_call(ASSAY_ROLE_METRIC, rows[i].method), rows[i].metric);
        assert_true(assay_role_may_call(ASSAY_ROLE_ADMIN, rows[i].method));
        assert_false(assay_role_may_call(ASSAY_ROLE_NONE, rows[i].method));
    }
}

static void endpoints_carry_keys_and_come_in_pairs(void **state)
{
    (void)state;
    struct assay_address found[ASSAY_ADDRESSES_MAX];
    size_t count = 0;
    char ret[ASSAY_ADDRESS_BYTES_MAX];
    assert_int_equal(assay_addresses_parse("ipc:///a,b/c.sock,tcp://10.0.0.1:7400#" SECRET, found, &count, NULL),
                     ASSAY_OK);
    assert_int_equal(count, 2);
    assert_string_equal(found[0].text, "ipc:///a,b/c.sock");
    assert_string_equal(found[1].text, "tcp://10.0.0.1:7400");
    assert_true(found[0].is_ipc && !found[0].has_key && found[1].has_key && !found[1].is_loopback);
    assert_ptr_equal(assay_address_choose(found, 2, true), &found[1]);
    assert_ptr_equal(assay_address_choose(found, 2, false), &found[0]);
    assert_null(assay_address_choose(found + 1, 1, false));
    static const char *const bad[] = {"tcp://10.0.0.1:7400#",
                                      "tcp://10.0.0.1:7400#12",
                                      "tcp://10.0.0.1#" SECRET,
                                      "tcp://10.0.0.1:7400#" SECRET "0",
                                      "ipc:///a,tcp://1.2.3.4:1,tcp://1.2.3.4:2",
                                      "ipc:///a,tcp://"};
    for (size_t i = 0; i < ASSAY_COUNT(bad); i++)
        assert_int_equal(assay_addresses_parse(bad[i], found, &count, NULL), ASSAY_INVALID_ARGUMENT);
    struct assay_public_key key;
    assert_true(assay_public_key_parse(SECRET, 64, &key));
    assert_int_equal(assay_address_add_key("tcp://host.example:1", &key, ret, NULL), ASSAY_OK);
    assert_string_equal(ret, "tcp://host.example:1#" SECRET);
    assert_int_equal(assay_address_add_key(ret, &key, ret, NULL), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_address_add_key("ipc:///a", &key, ret, NULL), ASSAY_INVALID_ARGUMENT);
}

static void loopback_addresses_are_known_in_both_families(void **state)
{
    static const struct {
        const char *text;
        bool is_loopback, is_ipv6;
    } rows[] = {{"tcp://127.0.0.1:1", true, false},
                {"tcp://127.255.0.9:*", true, false},
                {"tcp://128.0.0.1:1", false, false},
                {"tcp://[::1]:1", true, true},
                {"tcp://[0:0:0:0:0:0:0:1]:*", true, true},
                {"tcp://[::ffff:127.0.0.1]:1", true, true},
                {"tcp://[::ffff:128.0.0.1]:1", false, true},
                {"tcp://[::]:1", false, true},
                {"tcp://[::127.0.0.1]:1", false, true},
                {"tcp://[fe80::1]:1", false, true},
                {"tcp://[2001:db8::1]:1#" SECRET, false, true}};
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
        struct assay_address found[ASSAY_ADDRESSES_MAX];
        size_t count = 0;
        assert_int_equal(assay_addresses_parse(rows[i].text, found, &count, NULL), ASSAY_OK);
        if (found[0].is_loopback != rows[i].is_loopback || found[0].is_ipv6 != rows[i].is_ipv6 || !found[0].is_host)
            fail_msg("%s", rows[i].text);
    }
}

static void what_is_no_address_gets_a_sentence(void **state)
{
    static const char *const rows[][2] = {{"tcp://::1:7421", "brackets"},
                                          {"tcp://2001:db8::1:7421", "tcp://[::1]:7421"},
                                          {"tcp://[::1%lo]:7421", "zone"},
                                          {"tcp://[::1::]:7421", "IPv6"},
                                          {"tcp://[1.2.3.4]:7421", "IPv6"}};
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
        struct assay_address found[ASSAY_ADDRESSES_MAX];
        struct assay_err err = ASSAY_ERR_INIT;
        size_t count = 0;
        assert_int_equal(assay_addresses_parse(rows[i][0], found, &count, &err), ASSAY_INVALID_ARGUMENT);
        if (!strstr(err.text, rows[i][0]) || !strstr(err.text, rows[i][1]))
            fail_msg("%s: %s", rows[i][0], err.text);
    }
}

static void all_addresses_are_advertised_by_one(void **state)
{
    static const struct {
        const char *endpoints, *host, *want; /* NULL: refused */
    } rows[] = {{"tcp://0.0.0.0:1#K", "host.example", "tcp://host.example:1#K"},
                {"ipc:///a,tcp://[::]:1#K", "2001:db8::1", "ipc:///a,tcp://[2001:db8::1]:1#K"},
                {"tcp://[::]:1", "[::1]", "tcp://[::1]:1"},
                {"tcp://[::]:1", "10.0.0.1", "tcp://10.0.0.1:1"},
                {"tcp://[::1]:1", "", "tcp://[::1]:1"},
                {"tcp://[::]:1", "", NULL},
                {"tcp://0.0.0.0:1", NULL, NULL},
                {"tcp://[::]:1", "[::g]", NULL},
                {"tcp://[::]:1", "[]", NULL},
                {"tcp://[::]:1", "a b", NULL}};
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
        char ret[ASSAY_ADDRESSES_BYTES_MAX] = "";
        enum assay_status status = assay_address_advertise(rows[i].endpoints, rows[i].host, ret, sizeof ret, NULL);
        assert_int_equal(status, rows[i].want ? ASSAY_OK : ASSAY_INVALID_ARGUMENT);
        if (rows[i].want)
            assert_string_equal(ret, rows[i].want);
    }
}

#define KEYS_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEYS_TEST(keys_come_back_from_their_files),
        KEYS_TEST(a_secret_that_others_may_read_is_refused),
        cmocka_unit_test(a_key_in_the_place_of_its_file_is_not_repeated),
        cmocka_unit_test(what_is_no_key_file_is_refused_without_repeating_it),
        KEYS_TEST(allowed_keys_follow_their_directory),
        KEYS_TEST(zap_lets_in_allowed_keys_and_the_owner_alone),
        cmocka_unit_test(every_method_has_a_row_of_roles),
        cmocka_unit_test(roles_may_call_what_is_theirs),
        cmocka_unit_test(endpoints_carry_keys_and_come_in_pairs),
        cmocka_unit_test(loopback_addresses_are_known_in_both_families),
        cmocka_unit_test(what_is_no_address_gets_a_sentence),
        cmocka_unit_test(all_addresses_are_advertised_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The context: sentences, log, allocator; arenas; the map.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/context.h"

typedef struct memory {
    size_t live;
    uint64_t fail_after; /* the n-th allocation from now fails; 0: none does */
} memory;

static void *counting_realloc(void *user, void *p, size_t bytes)
{
    memory *m = user;
    if (bytes == 0) {
        m->live -= p != NULL;
        free(p);
        return NULL;
    }
    if (m->fail_after > 0 && --m->fail_after == 0)
        return NULL;
    if (bytes > (size_t)1 << 40)
        return NULL; /* AddressSanitizer stops at sizes that no machine has */
    void *q = realloc(p, bytes);
    if (p == NULL && q != NULL) {
        m->live++;
        memset(q, 0xa5, bytes); /* so that what is promised to be zero is not so by chance */
    }
    return q;
}

static hk_context *create(memory *m)
{
    *m = (memory){0};
    hk_context_params p = {.size = sizeof p, .allocator = {counting_realloc, m}};
    hk_context *ctx = NULL;
    assert_int_equal(hk_context_create(&p, &ctx), HK_OK);
    assert_int_equal(m->live, 1);
    return ctx;
}

static void end(hk_context *ctx, const memory *m)
{
    hk_context_destroy(&ctx);
    assert_null(ctx);
    assert_int_equal(m->live, 0);
}

static void test_create(void **state)
{
    (void)state;
    hk_context *ctx = NULL;
    assert_int_equal(hk_context_create(NULL, &ctx), HK_OK);
    assert_string_equal(hk_context_error(ctx), "");
    hk_context_destroy(&ctx);
    hk_context_destroy(&ctx);
    hk_context_destroy(NULL);
    assert_string_equal(hk_context_error(NULL), "");

    hk_context_params p = {.size = 0};
    assert_int_equal(hk_context_create(&p, &ctx), HK_STATUS_USAGE);
    p.size = sizeof p;
    p.log_level = (hk_log_level)99;
    assert_int_equal(hk_context_create(&p, &ctx), HK_STATUS_USAGE);
    assert_int_equal(hk_context_create(NULL, NULL), HK_STATUS_USAGE);
    /* Of an older caller's shorter struct nothing behind its end is read. */
    p.size = offsetof(hk_context_params, log_level);
    assert_int_equal(hk_context_create(&p, &ctx), HK_OK);
    hk_context_destroy(&ctx);
    memory m = {.fail_after = 1};
    hk_context_params none = {.size = sizeof none, .allocator = {counting_realloc, &m}};
    assert_int_equal(hk_context_create(&none, &ctx), HK_STATUS_OUT_OF_MEMORY);
    assert_null(ctx);
}

static void test_sentences(void **state)
{
    (void)state;
    memory m;
    hk_context *ctx = create(&m);
    assert_int_equal(hk_fail(ctx, HK_STATUS_INVALID, "node %d: %s", 7, "bad"), HK_STATUS_INVALID);
    assert_string_equal(hk_context_error(ctx), "node 7: bad");
    assert_int_equal(hk_fail_prefix(ctx, HK_STATUS_IO, "file '%s'", "x"), HK_STATUS_IO);
    assert_string_equal(hk_context_error(ctx), "file 'x': node 7: bad");
    /* The old sentence may be part of the new one. */
    hk_fail(ctx, HK_STATUS_IO, "again: %s", hk_context_error(ctx));
    assert_string_equal(hk_context_error(ctx), "again: file 'x': node 7: bad");
    assert_int_equal(hk_out_of_memory(ctx, "a test"), HK_STATUS_OUT_OF_MEMORY);
    assert_string_equal(hk_context_error(ctx), "out of host memory for a test");
    assert_int_equal(hk_fail(NULL, HK_STATUS_IO, "lost"), HK_STATUS_IO);

    char *large = malloc(100001);
    assert_non_null(large);
    memset(large, 'x', 100000);
    large[100000] = '\0';
    hk_fail(ctx, HK_STATUS_IO, "%s", large);
    size_t most = strlen(hk_context_error(ctx));
    assert_in_range(most, 500, 100000);
    hk_fail_prefix(ctx, HK_STATUS_IO, "p");
    assert_int_equal(strlen(hk_context_error(ctx)), most);
    assert_memory_equal(hk_context_error(ctx), "p: xxx", 6);
    hk_fail_prefix(ctx, HK_STATUS_IO, "%s", large); /* leaves no room: the sentence is worth more */
    assert_memory_equal(hk_context_error(ctx), "p: xxx", 6);
    free(large);
    end(ctx, &m);
}

typedef struct lines {
    unsigned count;
    hk_log_level level;
    char last[64];
} lines;

static void on_log(void *user, hk_log_level level, const char *line)
{
    lines *l = user;
    l->count++;
    l->level = level;
    snprintf(l->last, sizeof l->last, "%s", line);
}

static void test_log(void **state)
{
    (void)state;
    lines l = {0};
    hk_context_params p = {.size = sizeof p, .log = on_log, .log_user = &l};
    hk_context *ctx = NULL;
    assert_int_equal(hk_context_create(&p, &ctx), HK_OK);
    hk_log(ctx, HK_LOG_INFO, "not told");
    assert_int_equal(l.count, 0);
    hk_log(ctx, HK_LOG_WARN, "told %d", 1);
    assert_int_equal(l.count, 1);
    assert_int_equal(l.level, HK_LOG_WARN);
    assert_string_equal(l.last, "told 1");
    hk_log(ctx, HK_LOG_ERROR, "told");
    assert_int_equal(l.count, 2);
    hk_context_destroy(&ctx);
    p.log_level = HK_LOG_DEBUG;
    assert_int_equal(hk_context_create(&p, &ctx), HK_OK);
    hk_log(ctx, HK_LOG_DEBUG, "told");
    assert_int_equal(l.count, 3);
    hk_context_destroy(&ctx);
}

static bool all_zero(const unsigned char *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static void test_allocations(void **state)
{
    (void)state;
    memory m;
    hk_context *ctx = create(&m);
    unsigned char *p = hk_alloc(ctx, 1000);
    assert_true(p != NULL && all_zero(p, 1000));
    p[0] = 7;
    p = hk_realloc(ctx, p, 100000);
    assert_true(p != NULL && p[0] == 7 && all_zero(p + 1, 999));
    hk_free(ctx, p);
    hk_free(ctx, NULL);
    void *nothing = hk_alloc(ctx, 0); /* zero bytes are no failure */
    assert_non_null(nothing);
    hk_free(ctx, nothing);
    assert_null(hk_alloc_array(ctx, SIZE_MAX / 4, 8));
    assert_int_equal(m.live, 1);
    m.fail_after = 1;
    assert_null(hk_alloc(ctx, 10));
    end(ctx, &m);
}

static void test_arena(void **state)
{
    (void)state;
    memory m;
    hk_context *ctx = create(&m);
    hk_arena *arena = hk_arena_create(ctx);
    assert_non_null(arena);
    assert_ptr_equal(hk_arena_context(arena), ctx);
    unsigned char *list[500];
    for (size_t i = 0; i < HK_COUNT(list); i++) {
        size_t bytes = i % 50 == 49 ? 70000 : i; /* now and then one larger than a block */
        list[i] = hk_arena_alloc(arena, bytes);
        assert_non_null(list[i]);
        assert_int_equal((uintptr_t)list[i] % 16, 0);
        assert_true(all_zero(list[i], bytes));
        memset(list[i], (int)(i % 251), bytes);
    }
    for (size_t i = 0; i < HK_COUNT(list); i++)
        for (size_t k = 0; k < (i % 50 == 49 ? 70000 : i); k++)
            assert_int_equal(list[i][k], i % 251);
    assert_null(hk_arena_alloc(arena, SIZE_MAX));
    assert_null(hk_arena_alloc(arena, SIZE_MAX / 2));
    assert_null(hk_arena_array(arena, SIZE_MAX / 4, 8));
    assert_string_equal(hk_arena_string(arena, "text"), "text");
    assert_string_equal(hk_arena_format(arena, "%s %d", "n", 12), "n 12");

    int *numbers = NULL;
    size_t count = 0, capacity = 0;
    for (; count < 1000; count++) {
        assert_true(hk_arena_grow(arena, (void **)&numbers, count, &capacity, sizeof *numbers));
        assert_true(capacity > count);
        numbers[count] = (int)count;
    }
    for (size_t i = 0; i < count; i++)
        assert_int_equal(numbers[i], i);
    m.fail_after = 1;
    assert_null(hk_arena_alloc(arena, 1 << 20));
    assert_non_null(hk_arena_alloc(arena, 1 << 20)); /* a failure leaves the arena whole */
    hk_arena_destroy(&arena);
    assert_null(arena);
    hk_arena_destroy(&arena);
    m.fail_after = 1;
    assert_null(hk_arena_create(ctx));
    end(ctx, &m);
}

static void test_map(void **state)
{
    (void)state;
    enum { KEYS = 5000 };
    memory m;
    hk_context *ctx = create(&m);
    hk_arena *arena = hk_arena_create(ctx);
    assert_non_null(arena);
    hk_map map;
    hk_map_init(&map, arena);
    assert_null(hk_map_get(&map, "nothing yet"));
    static int values[KEYS];
    char key[32];
    for (size_t i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "node_%zu", i); /* the same memory again and again: keys are copied */
        assert_true(hk_map_set(&map, key, &values[i]));
    }
    assert_int_equal(map.count, KEYS);
    for (size_t i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "node_%zu", i);
        assert_ptr_equal(hk_map_get(&map, key), &values[i]);
    }
    assert_null(hk_map_get(&map, "node_5000"));
    assert_null(hk_map_get(&map, ""));
    assert_true(hk_map_set(&map, "", &values[1]));
    assert_ptr_equal(hk_map_get(&map, ""), &values[1]);
    assert_true(hk_map_set(&map, "node_3", &values[4]));
    assert_ptr_equal(hk_map_get(&map, "node_3"), &values[4]);
    assert_int_equal(map.count, KEYS + 1);
    hk_arena_destroy(&arena);
    end(ctx, &m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create),      cmocka_unit_test(test_sentences), cmocka_unit_test(test_log),
        cmocka_unit_test(test_allocations), cmocka_unit_test(test_arena),     cmocka_unit_test(test_map),
    };
    return cmocka_run_group_tests_name("context", tests, NULL, NULL);
}

/*
 * The context: allocator, log and error sentence; arenas; and the map from names to pointers.
 */
#include "core/context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A sentence lives in the context itself, so that running out of memory can still be reported. */
enum { SENTENCE_BYTES = 2048, LOG_LINE_BYTES = 2048 };

#if defined(__SANITIZE_ADDRESS__)
#define ALLOCATIONS_APART 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ALLOCATIONS_APART 1
#endif
#endif

/* Under AddressSanitizer every allocation is a block of its own, so that an overrun inside an arena is seen. */
#ifdef ALLOCATIONS_APART
enum { BLOCK_BYTES = 16 };
#else
enum { BLOCK_BYTES = 16 * 1024 };
#endif

enum { ARENA_ALIGNMENT = 16 };

struct hk_context {
    hk_allocator allocator;
    void (*log)(void *user, hk_log_level level, const char *line);
    void *log_user;
    hk_log_level log_level;
    size_t arena_block_bytes;
    char error[SENTENCE_BYTES];
};

/* ---------------------------------------------------------------- context */

static void *libc_realloc(void *user, void *pointer, size_t bytes)
{
    (void)user;
    if (bytes == 0) {
        free(pointer);
        return NULL;
    }
    return realloc(pointer, bytes);
}

hk_status hk_context_create(const hk_context_params *params, hk_context **out)
{
    if (out == NULL)
        return HK_STATUS_USAGE;
    hk_context_params p = {0};
    if (params != NULL) {
        if (params->size < sizeof params->size)
            return HK_STATUS_USAGE;
        memcpy(&p, params, HK_MIN(params->size, sizeof p));
    }
    if (p.log_level < HK_LOG_DEFAULT || p.log_level > HK_LOG_DEBUG)
        return HK_STATUS_USAGE;
    if (p.allocator.realloc == NULL)
        p.allocator.realloc = libc_realloc;

    hk_context *ctx = p.allocator.realloc(p.allocator.user, NULL, sizeof *ctx);
    if (ctx == NULL)
        return HK_STATUS_OUT_OF_MEMORY;
    *ctx = (hk_context){
        .allocator = p.allocator,
        .log = p.log,
        .log_user = p.log_user,
        .log_level = p.log_level == HK_LOG_DEFAULT ? HK_LOG_WARN : p.log_level,
        .arena_block_bytes = BLOCK_BYTES,
    };
    *out = ctx;
    return HK_OK;
}

void hk_context_destroy(hk_context **ctx)
{
    if (ctx == NULL || *ctx == NULL)
        return;
    hk_allocator allocator = (*ctx)->allocator;
    allocator.realloc(allocator.user, *ctx, 0);
    *ctx = NULL;
}

void hk_context_split_arenas(hk_context *ctx)
{
    ctx->arena_block_bytes = ARENA_ALIGNMENT;
}

const char *hk_context_error(const hk_context *ctx)
{
    return ctx == NULL ? "" : ctx->error;
}

hk_status hk_fail(hk_context *ctx, hk_status st, const char *format, ...)
{
    if (ctx == NULL)
        return st;
    /* Built aside, for an argument may be the sentence that is replaced. */
    char sentence[SENTENCE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    memcpy(ctx->error, sentence, sizeof sentence);
    return st;
}

hk_status hk_fail_prefix(hk_context *ctx, hk_status st, const char *format, ...)
{
    if (ctx == NULL)
        return st;
    char sentence[SENTENCE_BYTES];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= sizeof sentence)
        return st; /* a prefix that leaves no room for the sentence is worth less than the sentence */
    size_t room = sizeof sentence - (size_t)length;
    snprintf(sentence + length, room, ": %.*s", (int)room, ctx->error);
    memcpy(ctx->error, sentence, sizeof sentence);
    return st;
}

void hk_log(hk_context *ctx, hk_log_level level, const char *format, ...)
{
    if (ctx == NULL || ctx->log == NULL || level > ctx->log_level)
        return;
    char line[LOG_LINE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    ctx->log(ctx->log_user, level, line);
}

/* ---------------------------------------------------------------- memory */

void *hk_alloc(hk_context *ctx, size_t bytes)
{
    bytes = HK_MAX(bytes, 1u); /* the allocator's 0 means free */
    if (ctx->allocator.realloc == libc_realloc)
        return calloc(1, bytes); /* large blocks come zeroed from the system, without being touched */
    void *p = ctx->allocator.realloc(ctx->allocator.user, NULL, bytes);
    if (p != NULL)
        memset(p, 0, bytes);
    return p;
}

void *hk_alloc_array(hk_context *ctx, size_t count, size_t bytes)
{
    if (bytes != 0 && count > SIZE_MAX / bytes)
        return NULL;
    return hk_alloc(ctx, count * bytes);
}

void *hk_realloc(hk_context *ctx, void *p, size_t bytes)
{
    return ctx->allocator.realloc(ctx->allocator.user, p, HK_MAX(bytes, 1u));
}

void hk_free(hk_context *ctx, void *p)
{
    if (p != NULL)
        ctx->allocator.realloc(ctx->allocator.user, p, 0);
}

hk_status hk_out_of_memory(hk_context *ctx, const char *what)
{
    return hk_fail(ctx, HK_STATUS_OUT_OF_MEMORY, "out of host memory for %s", what);
}

/* ---------------------------------------------------------------- arena */

typedef struct arena_block {
    struct arena_block *next;
    size_t used, bytes; /* of what follows the header */
} arena_block;

struct hk_arena {
    hk_context *ctx;
    arena_block *blocks; /* the first one is being filled */
};

/* The header's size, rounded up so that what follows is aligned. */
#define BLOCK_HEADER ((sizeof(arena_block) + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT)

hk_arena *hk_arena_create(hk_context *ctx)
{
    hk_arena *arena = hk_alloc(ctx, sizeof *arena);
    if (arena != NULL)
        arena->ctx = ctx;
    return arena;
}

void hk_arena_destroy(hk_arena **arena)
{
    if (arena == NULL || *arena == NULL)
        return;
    hk_context *ctx = (*arena)->ctx;
    for (arena_block *b = (*arena)->blocks; b != NULL;) {
        arena_block *next = b->next;
        hk_free(ctx, b);
        b = next;
    }
    hk_free(ctx, *arena);
    *arena = NULL;
}

hk_context *hk_arena_context(const hk_arena *arena)
{
    return arena->ctx;
}

void *hk_arena_alloc(hk_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = HK_MAX((bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT, (size_t)ARENA_ALIGNMENT);

    arena_block *first = arena->blocks;
    if (first == NULL || first->bytes - first->used < bytes) {
        size_t block_bytes = HK_MAX(bytes, arena->ctx->arena_block_bytes);
        arena_block *b = hk_alloc(arena->ctx, BLOCK_HEADER + block_bytes);
        if (b == NULL)
            return NULL;
        b->bytes = block_bytes;
        if (first != NULL && block_bytes - bytes < first->bytes - first->used) {
            /* A block for one large allocation goes second: the first still has more room. */
            b->next = first->next;
            first->next = b;
        } else {
            b->next = first;
            arena->blocks = b;
        }
        first = b;
    }
    void *p = (char *)first + BLOCK_HEADER + first->used;
    first->used += bytes;
    return p;
}

void *hk_arena_array(hk_arena *arena, size_t count, size_t bytes)
{
    if (bytes != 0 && count > SIZE_MAX / bytes)
        return NULL;
    return hk_arena_alloc(arena, count * bytes);
}

char *hk_arena_string(hk_arena *arena, const char *s)
{
    size_t bytes = strlen(s) + 1;
    char *copy = hk_arena_alloc(arena, bytes);
    if (copy != NULL)
        memcpy(copy, s, bytes);
    return copy;
}

char *hk_arena_join(hk_arena *arena, const char *a, const char *b)
{
    size_t first = strlen(a), rest = strlen(b) + 1;
    char *s = hk_arena_alloc(arena, first + rest);
    if (s != NULL) {
        memcpy(s, a, first);
        memcpy(s + first, b, rest);
    }
    return s;
}

char *hk_arena_format(hk_arena *arena, const char *format, ...)
{
    char small[128];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (length < 0)
        return NULL;
    char *s = hk_arena_alloc(arena, (size_t)length + 1);
    if (s == NULL)
        return NULL;
    if ((size_t)length < sizeof small)
        return memcpy(s, small, (size_t)length + 1);
    va_start(args, format);
    vsnprintf(s, (size_t)length + 1, format, args);
    va_end(args);
    return s;
}

bool hk_arena_grow(hk_arena *arena, void **list, size_t count, size_t *capacity, size_t element_bytes)
{
    if (count < *capacity)
        return true;
    if (*capacity > SIZE_MAX / 2)
        return false;
    size_t larger = HK_MAX(*capacity * 2, 8u);
    void *copy = hk_arena_array(arena, larger, element_bytes);
    if (copy == NULL)
        return false;
    if (count > 0)
        memcpy(copy, *list, count * element_bytes);
    *list = copy;
    *capacity = larger;
    return true;
}

/* ---------------------------------------------------------------- map */

struct hk_map_slot {
    const char *key; /* NULL: free */
    uint64_t hash;
    void *value;
};

/* Eight bytes a step: a hostile file repeats names of hundreds of kilobytes. The multiplier is 2^64 over the golden
 * ratio; the shift brings its well mixed upper half down to where slots are chosen. */
static uint64_t hash_string(const char *s)
{
    size_t left = strlen(s);
    uint64_t h = left, word;
    do {
        size_t bytes = HK_MIN(left, sizeof word);
        word = 0;
        memcpy(&word, s, bytes);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
        s += bytes;
        left -= bytes;
    } while (left > 0);
    return h;
}

/* The slot that holds the key, or the free one where it belongs. The capacity is a power of two and never full. */
static struct hk_map_slot *find_slot(struct hk_map_slot *slots, size_t capacity, const char *key, uint64_t hash)
{
    for (size_t i = (size_t)hash & (capacity - 1);; i = (i + 1) & (capacity - 1)) {
        struct hk_map_slot *s = &slots[i];
        if (s->key == NULL || (s->hash == hash && strcmp(s->key, key) == 0))
            return s;
    }
}

static bool map_rehash(hk_map *m, size_t capacity)
{
    struct hk_map_slot *slots = hk_arena_array(m->arena, capacity, sizeof *slots);
    if (slots == NULL)
        return false;
    for (size_t i = 0; i < m->capacity; i++) {
        const struct hk_map_slot *old = &m->slots[i];
        if (old->key != NULL)
            *find_slot(slots, capacity, old->key, old->hash) = *old;
    }
    m->slots = slots;
    m->capacity = capacity;
    return true;
}

void hk_map_init(hk_map *m, hk_arena *arena)
{
    *m = (hk_map){.arena = arena};
}

bool hk_map_set(hk_map *m, const char *key, void *value)
{
    if (m->count + 1 > m->capacity / 4 * 3 && !map_rehash(m, HK_MAX(m->capacity * 2, 16u)))
        return false;
    uint64_t hash = hash_string(key);
    struct hk_map_slot *s = find_slot(m->slots, m->capacity, key, hash);
    if (s->key == NULL) {
        const char *copy = hk_arena_string(m->arena, key); /* callers may build names on their stack */
        if (copy == NULL)
            return false;
        s->key = copy;
        s->hash = hash;
        m->count++;
    }
    s->value = value;
    return true;
}

void *hk_map_get(const hk_map *m, const char *key)
{
    if (m->count == 0)
        return NULL;
    return find_slot(m->slots, m->capacity, key, hash_string(key))->value;
}

uint64_t hk_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

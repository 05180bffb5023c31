/*
 * Below everything: the context with its allocator, log and error sentence, and arenas.
 */
#ifndef HK_CONTEXT_H
#define HK_CONTEXT_H

#include <stdarg.h>

#include "hillock/hillock.h"

typedef struct hk_arena hk_arena;

/* ---- errors: `return hk_fail(ctx, HK_STATUS_INVALID, "node '%s' (Conv): ...", ...)` */

hk_status hk_fail(hk_context *ctx, hk_status st, const char *format, ...) HK_PRINTF(3, 4);
/* Puts "prefix: " before the sentence of the failure under way and returns st. */
hk_status hk_fail_prefix(hk_context *ctx, hk_status st, const char *format, ...) HK_PRINTF(3, 4);
void hk_log(hk_context *ctx, hk_log_level level, const char *format, ...) HK_PRINTF(3, 4);

/* Leaves the function with the status of a failed call; for functions with nothing to clean up. */
#define HK_TRY(call)                                                                                                   \
    do {                                                                                                               \
        hk_status st_ = (call);                                                                                        \
        if (st_ != HK_OK)                                                                                              \
            return st_;                                                                                                \
    } while (0)

#define HK_COUNT(array) (sizeof(array) / sizeof(array)[0])
#define HK_MIN(a, b) ((a) < (b) ? (a) : (b))
#define HK_MAX(a, b) ((a) > (b) ? (a) : (b))

/* ---- memory: every allocation of the library goes through the context's allocator */

void *hk_alloc(hk_context *ctx, size_t bytes);                     /* zeroed; NULL when out of memory */
void *hk_alloc_array(hk_context *ctx, size_t count, size_t bytes); /* the same, overflow checked */
void *hk_realloc(hk_context *ctx, void *p, size_t bytes);          /* the new part is not zeroed */
void hk_free(hk_context *ctx, void *p);
hk_status hk_out_of_memory(hk_context *ctx, const char *what); /* the status, with its sentence */

/* An arena: allocations that end together. Zeroed, 16-byte aligned. NULL when out of memory: callers end with
 * hk_out_of_memory. */
hk_arena *hk_arena_create(hk_context *ctx);
void hk_arena_destroy(hk_arena **arena);
hk_context *hk_arena_context(const hk_arena *arena);
void *hk_arena_alloc(hk_arena *arena, size_t bytes);
void *hk_arena_array(hk_arena *arena, size_t count, size_t bytes);
char *hk_arena_string(hk_arena *arena, const char *s);
/* a and b in one. */
char *hk_arena_join(hk_arena *arena, const char *a, const char *b);
char *hk_arena_format(hk_arena *arena, const char *format, ...) HK_PRINTF(2, 3);
/* For tests: from now on each allocation in an arena of the context is one of the context's allocator, which can fail.
 */
void hk_context_split_arenas(hk_context *ctx);
#define hk_arena_new(arena, type) ((type *)hk_arena_alloc((arena), sizeof(type)))

/* Makes room for one more element in an arena-held list: doubles it when full. False when out of memory. */
bool hk_arena_grow(hk_arena *arena, void **list, size_t count, size_t *capacity, size_t element_bytes);

uint64_t hk_now_ns(void); /* a monotonic clock */

/* ---- names → index, for values, nodes, attributes (FNV-1a, open addressing, arena-held) */

typedef struct hk_map {
    hk_arena *arena;
    struct hk_map_slot *slots;
    size_t capacity, count;
} hk_map;
void hk_map_init(hk_map *m, hk_arena *arena);
bool hk_map_set(hk_map *m, const char *key, void *value); /* replaces; false when out of memory */
void *hk_map_get(const hk_map *m, const char *key);       /* NULL when absent */

#endif

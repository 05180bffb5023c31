/*
 * protobuf-c's allocator: counted, in an arena on the context's allocator.
 */
#include "importer/scan.h"

static void *parse_alloc(void *user, size_t bytes)
{
    hk_parse_memory *m = user;
    if (m->failed || m->exceeded || bytes > m->limit - m->used) {
        m->exceeded = m->exceeded || !m->failed;
        return NULL;
    }
    m->used += bytes;
    void *p = hk_arena_alloc(m->arena, bytes);
    m->failed = p == NULL;
    return p;
}

static void parse_free(void *user, void *p)
{
    (void)user;
    (void)p; /* ends with the arena */
}

ProtobufCAllocator hk_parse_allocator(hk_parse_memory *m)
{
    return (ProtobufCAllocator){.alloc = parse_alloc, .free = parse_free, .allocator_data = m};
}

hk_status hk_scan_parse(hk_context *ctx, const ProtobufCMessageDescriptor *root, const hk_scan *s, hk_arena *arena,
                        ProtobufCMessage **out)
{
    /* The scan's bound holds unless this file is wrong about protobuf-c; then a refusal is better than a crash. */
    hk_parse_memory memory = {.arena = arena, .limit = s->parse_bytes};
    ProtobufCAllocator allocator = hk_parse_allocator(&memory);
    ProtobufCMessage *message = protobuf_c_message_unpack(root, &allocator, s->skeleton_bytes, s->skeleton);
    if (message == NULL) {
        if (memory.failed)
            return hk_out_of_memory(ctx, "a model's structure");
        if (memory.exceeded)
            return hk_fail(ctx, HK_STATUS_INTERNAL, "parsing takes more than the %zu bytes that the scan found",
                           memory.limit);
        return hk_fail(ctx, HK_STATUS_INVALID, "the bytes are not a %s", root->short_name);
    }
    *out = message;
    return HK_OK;
}

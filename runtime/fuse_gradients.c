/*
 * The store phase of a convolution's data gradient in HK_LAYOUT_NHWC8 takes what follows it: the sum with another
 * gradient of the same value, where a block's branches meet, and behind that the gradient of Relu. Both are read while
 * the result is written, so that no pass over memory is left: of an identity block of ResNet three in five of those
 * bytes go.
 */
#include "runtime/passes.h"

typedef struct gradients {
    hk_graph *g;
    hk_uses uses;
    size_t values; /* before any change */
} gradients;

static bool is_packed(const hk_value *v)
{
    return v && v->layout == HK_LAYOUT_NHWC8 && hk_value_storage(v) == HK_FLOAT16;
}

/* The one node that reads v, NULL if there are several or v is a graph output. */
static hk_node *only_user(const gradients *s, const hk_value *v)
{
    return v->id < s->values && s->uses.count[v->id] == 1 && !s->uses.is_output[v->id] ? s->uses.users[v->id][0] : NULL;
}

/* v is there anyway (new values are results of this pass). What one elementwise node makes for this user alone would be
 * computed in the user's chain: no pass over memory that could be saved, but one that reading it would cost. */
static bool exists(const gradients *s, const hk_value *v)
{
    const hk_node *n = v->producer;
    while (n && hk_node_is(n, HK_AFTER)) {
        v = n->in[0];
        n = v->producer;
    }
    return is_packed(v) && (v->id >= s->values || !n || !n->op || !(n->op->flags & HK_OP_POINTWISE) ||
                            s->uses.count[v->id] > 1 || s->uses.is_output[v->id]);
}

static hk_status fuse(gradients *s, hk_node *n)
{
    hk_attr_value attrs[32];
    hk_value *y = n->out[0], *in[4] = {n->in[0], n->in[1], hk_in(n, 2), hk_in(n, 3)}, *out = NULL;
    hk_node *add = in[2] || in[3] ? NULL : only_user(s, y);
    if (!is_packed(y) || !add || !hk_node_is(add, "Add") || add->in[0] == add->in[1] || !is_packed(add->out[0]))
        return HK_OK;
    hk_value *other = add->in[0] == y ? add->in[1] : add->in[0];
    if (!exists(s, other) || !hk_shape_equal(&other->shape, &y->shape))
        return HK_OK;
    in[2] = other;
    if (other->id < s->values)
        s->uses.count[other->id]++; /* it is not the sum alone that reads it now */
    y = add->out[0];
    hk_node *relu = only_user(s, y);
    if (relu && hk_node_is(relu, "hk.ReluGrad") && relu->in[0] == y && relu->in[1] != y && exists(s, relu->in[1]) &&
        is_packed(relu->out[0]) && hk_shape_equal(&relu->in[1]->shape, &y->shape)) {
        in[3] = relu->in[1];
        y = relu->out[0];
    }
    hk_copy_attrs(n, attrs, HK_COUNT(attrs));
    HK_TRY(hk_build(s->g, n->type, attrs, in, in[3] ? 4 : 3, &out, 1));
    out->layout = HK_LAYOUT_NHWC8;
    out->storage = HK_FLOAT16;
    out->producer->name = n->name;
    hk_graph_replace(s->g, y, out);
    return HK_OK;
}

static hk_status fuse_all(gradients *s, hk_arena *arena)
{
    size_t count = s->g->node_count;
    s->values = s->g->value_count;
    HK_TRY(hk_graph_uses(s->g, arena, &s->uses));
    for (size_t i = 0; i < count; i++)
        if (hk_node_is(s->g->nodes[i], "hk.ConvDataGrad"))
            HK_TRY(fuse(s, s->g->nodes[i]));
    HK_TRY(hk_graph_prune(s->g));
    return hk_graph_sort(s->g);
}

hk_status hk_fuse_gradients(hk_graph *g)
{
    gradients s = {.g = g};
    hk_arena *arena = hk_arena_create(g->ctx);
    hk_status st = arena ? fuse_all(&s, arena) : hk_out_of_memory(g->ctx, "fusing gradients");
    hk_arena_destroy(&arena);
    return st;
}

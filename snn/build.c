/* Nodes that a file of a given opset can hold, and shapes for a batch. */
#include <math.h>
#include <string.h>

#include "ops/infer.h"
#include "ops/op.h"
#include "snn/convert.h"

int32_t hk_snn_opset(const hk_graph *g)
{
    int32_t opset = 0;
    for (size_t i = 0; i < g->node_count; i++)
        if (!g->nodes[i]->domain && strncmp(g->nodes[i]->type, "hk.", 3) != 0 && g->nodes[i]->opset < INT16_MAX)
            opset = HK_MAX(opset, g->nodes[i]->opset);
    return opset ? opset : INT16_MAX; /* built here: nodes of the newest kind */
}

hk_status hk_snn_node_make(hk_graph *g, int32_t opset, const char *type, const char *name, const hk_attr_value *attrs,
                           hk_value *const *in, int32_t in_count, hk_value **out)
{
    const hk_op *op = hk_op_find(NULL, type, opset, NULL);
    size_t count = 0;
    void *decoded = NULL;
    if (!op)
        return hk_fail(g->ctx, HK_STATUS_INTERNAL, "opset %d has no operator '%s'", (int)opset, type);
    while (attrs && attrs[count].name)
        count++;
    for (int32_t i = 0; i < in_count; i++)
        if (!in[i])
            return hk_out_of_memory(g->ctx, "a spiking network");
    HK_TRY(hk_op_decode(g->ctx, g->arena, op, attrs, count, &decoded));
    hk_node *n = hk_graph_node(g, name, type, op, decoded, in, in_count, 1);
    if (!n)
        return HK_STATUS_OUT_OF_MEMORY;
    n->opset = opset;
    n->out[0]->dtype = in_count ? in[0]->dtype : HK_DTYPE_NONE;
    *out = n->out[0];
    return HK_OK;
}

static hk_value *make_constant(hk_graph *g, const char *name, hk_dtype dtype, int32_t rank, const int64_t *dims,
                               const void *data)
{
    hk_shape shape = {.rank = rank};
    if (rank > 0)
        memcpy(shape.dim, dims, (size_t)rank * sizeof *dims);
    hk_tensor *t = hk_tensor_new(g->arena, dtype, &shape);
    if (!t)
        return NULL;
    if (hk_tensor_bytes(t) > 0)
        memcpy(t->data, data, (size_t)hk_tensor_bytes(t));
    return hk_graph_constant(g, name, t);
}

hk_value *hk_snn_floats(hk_graph *g, const char *name, const float *x, int32_t rank, const int64_t *dims)
{
    return make_constant(g, name, HK_FLOAT32, rank, dims, x);
}

hk_value *hk_snn_integers(hk_graph *g, const char *name, const int64_t *x, int64_t count)
{
    return make_constant(g, name, HK_INT64, 1, &count, x);
}

hk_status hk_snn_reshape(hk_graph *g, int32_t opset, hk_value *x, const char *name, const int64_t *dims, int32_t rank,
                         hk_value **out)
{
    hk_value *in[] = {x, hk_snn_integers(g, name, dims, rank)};
    return hk_snn_node_make(g, opset, "Reshape", NULL, NULL, in, 2, out);
}

hk_status hk_snn_reduce(hk_graph *g, int32_t opset, const char *type, hk_value *x, const int64_t *axes, int32_t count,
                        hk_value **out)
{
    bool input = opset >= (strcmp(type, "ReduceSum") ? 18 : 13);
    hk_value *in[] = {x, input ? hk_snn_integers(g, "snn.axes", axes, count) : NULL};
    const hk_attr_value attrs[] = {
        HK_SET_INT("keepdims", 0), {.name = input ? NULL : "axes", .kind = HK_ATTR_INTS, .ints = {axes, count}}, {0}};
    return hk_snn_node_make(g, opset, type, NULL, attrs, in, input ? 2 : 1, out);
}

/* The first open dimension: of (T,N,...) the second. Where all are fixed, the first. */
static void bind_batch(hk_shape *s, int64_t batch)
{
    int32_t d = 0;
    while (d < s->rank && s->dim[d] >= 0)
        d++;
    if (s->rank > 0)
        s->dim[d < s->rank ? d : 0] = batch;
}

hk_status hk_snn_shapes(const hk_graph *g, int64_t batch, hk_arena *arena, hk_shape **shapes, const hk_tensor ***known)
{
    hk_graph *bound = NULL;
    HK_TRY(hk_graph_clone(g, &bound));
    size_t count = bound->value_count;
    hk_value **values = hk_arena_array(arena, count + 1, sizeof(hk_value *));
    hk_shape *s = hk_arena_array(arena, count + 1, sizeof *s);
    const hk_tensor **k = hk_arena_array(arena, count + 1, sizeof *k);
    hk_status st = values && s && k ? HK_OK : hk_out_of_memory(g->ctx, "shapes");
    if (st == HK_OK) {
        memcpy(values, bound->values, count * sizeof(hk_value *));
        for (size_t i = 0; i < bound->input_count; i++)
            bind_batch(&bound->inputs[i]->shape, batch);
        st = hk_infer_graph(bound);
    }
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        s[i] = values[i]->shape;
        const hk_tensor *t = values[i]->data;
        hk_shape shape = t ? hk_tensor_shape(t) : HK_SCALAR;
        hk_tensor *copy = t && hk_shape_count(&shape) <= 16 ? hk_tensor_new(arena, t->dtype, &shape) : NULL;
        if (copy)
            memcpy(copy->data, t->data, (size_t)hk_tensor_bytes(t));
        k[i] = copy;
    }
    hk_graph_destroy(&bound);
    *shapes = s;
    *known = k;
    return st;
}

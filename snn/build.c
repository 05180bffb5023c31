/* Nodes that a file of a given opset can hold, and shapes for a batch. */
#include <math.h>
#include <string.h>

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

hk_status hk_snn_refuse_unsupported(hk_graph *g, const hk_snn_node *nodes, size_t count)
{
    enum { ENOUGH = 2048 }; /* a context's sentence is no longer */
    const char *text = "";
    for (size_t i = 0; i < count && text && strlen(text) < ENOUGH; i++)
        if (nodes[i].verdict == HK_SNN_UNSUPPORTED)
            text = hk_arena_format(g->arena, "%s%snode '%s' (%s): %s", text, *text ? "; " : "", nodes[i].node,
                                   nodes[i].op, nodes[i].reason);
    if (!text)
        return hk_out_of_memory(g->ctx, "a spiking network");
    return *text ? hk_fail(g->ctx, HK_STATUS_UNSUPPORTED, "%s", text) : HK_OK;
}

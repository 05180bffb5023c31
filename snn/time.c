/* The time axis in a graph, for all who put one in, and shapes for a batch. A shape's first dimension is the batch. */
#include <string.h>

#include "ops/infer.h"
#include "ops/op.h"
#include "snn/convert.h"

/* The sample's extents behind `head` others. */
static hk_status set_dims(const hk_snn_time *t, const hk_value *x, const hk_shape *s, int32_t head, int64_t *dims)
{
    if (s->rank - 1 + head > HK_MAX_RANK)
        return hk_fail(t->g->ctx, HK_STATUS_UNSUPPORTED,
                       "'%s' has %d dimensions, and time needs one of the %d there can be: reshape it", x->name,
                       (int)s->rank, HK_MAX_RANK);
    memcpy(dims + head, s->dim + 1, (size_t)(s->rank - 1) * sizeof *dims);
    return HK_OK;
}

hk_status hk_snn_split_time(const hk_snn_time *t, hk_value *x, const hk_shape *s, hk_value **out)
{
    int64_t dims[HK_MAX_RANK] = {t->steps, -1};
    HK_TRY(set_dims(t, x, s, 2, dims));
    return hk_snn_reshape(t->g, t->opset, x, HK_SNN_STEPS_NAME, dims, s->rank + 1, out);
}

hk_status hk_snn_join_time(const hk_snn_time *t, hk_value *x, const hk_shape *s, hk_value **out)
{
    int64_t dims[HK_MAX_RANK] = {-1};
    HK_TRY(set_dims(t, x, s, 1, dims));
    return hk_snn_reshape(t->g, t->opset, x, NULL, dims, s->rank, out);
}

hk_value *hk_snn_times(const hk_snn_time *t, int32_t rank)
{
    int64_t times[HK_MAX_RANK] = {t->steps};
    for (int32_t d = 1; d < rank; d++)
        times[d] = 1;
    return hk_snn_integers(t->g, HK_SNN_STEPS_NAME, times, rank);
}

hk_status hk_snn_repeat(const hk_snn_time *t, hk_value *x, const hk_shape *s, hk_value **out)
{
    int64_t dims[HK_MAX_RANK] = {1, -1};
    hk_value *one = NULL;
    HK_TRY(set_dims(t, x, s, 2, dims));
    HK_TRY(hk_snn_reshape(t->g, t->opset, x, NULL, dims, s->rank + 1, &one));
    hk_value *in[] = {one, hk_snn_times(t, s->rank + 1)};
    return hk_snn_node_make(t->g, t->opset, "Expand", NULL, NULL, in, 2, out);
}

void hk_snn_redirect(hk_graph *g, const hk_value *from, hk_value *to, const hk_node *but)
{
    for (size_t k = 0; k < g->node_count; k++)
        for (int32_t i = 0; g->nodes[k] != but && i < g->nodes[k]->in_count; i++)
            if (g->nodes[k]->in[i] == from)
                g->nodes[k]->in[i] = to;
}

hk_status hk_snn_give_up_name(hk_graph *g, hk_value *y, hk_value **in_steps)
{
    const char *name = hk_arena_format(g->arena, "%s.steps", y->name);
    *in_steps = name ? hk_graph_value(g, name, HK_VALUE_ACTIVATION, y->dtype, NULL) : NULL;
    if (!*in_steps)
        return hk_out_of_memory(g->ctx, "a spiking network");
    hk_graph_take_over(y, *in_steps);
    hk_snn_redirect(g, y, *in_steps, NULL);
    return HK_OK;
}

/* ---- shapes */

/* The first open dimension: of (T,N,...) the second. Where all are fixed: the second of (T,N,...), else the first. */
static void bind_batch(hk_shape *s, int64_t batch, int64_t steps)
{
    int32_t d = 0;
    while (d < s->rank && s->dim[d] >= 0)
        d++;
    if (d == s->rank)
        d = steps > 0 && s->rank > 1 && s->dim[0] == steps;
    if (s->rank > 0)
        s->dim[d] = batch;
}

hk_status hk_snn_shapes(const hk_graph *g, int64_t batch, hk_arena *arena, hk_shape **shapes, const hk_tensor ***known)
{
    hk_graph *bound = NULL;
    int64_t steps = hk_snn_describe(g).steps;
    HK_TRY(hk_graph_clone(g, &bound));
    size_t count = bound->value_count;
    hk_value **values = hk_arena_array(arena, count + 1, sizeof(hk_value *));
    hk_shape *s = hk_arena_array(arena, count + 1, sizeof *s);
    const hk_tensor **k = hk_arena_array(arena, count + 1, sizeof *k);
    hk_status st = values && s && k ? HK_OK : hk_out_of_memory(g->ctx, "shapes");
    if (st == HK_OK) {
        memcpy(values, bound->values, count * sizeof(hk_value *));
        for (size_t i = 0; i < bound->input_count; i++)
            bind_batch(&bound->inputs[i]->shape, batch, steps);
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

hk_status hk_snn_bind(const hk_graph *g, int64_t *batch, hk_shape **shapes, const hk_tensor ***known)
{
    *batch = HK_SNN_PROBE_BATCH;
    hk_status st = hk_snn_shapes(g, *batch, g->arena, shapes, known);
    if (st == HK_OK || st == HK_STATUS_OUT_OF_MEMORY || !g->input_count || g->inputs[0]->shape.dim[0] < 0)
        return st;
    *batch = g->inputs[0]->shape.dim[0]; /* a batch that is written into the nodes */
    return hk_snn_shapes(g, *batch, g->arena, shapes, known);
}

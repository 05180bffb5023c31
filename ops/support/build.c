/* Building common nodes. */
#include "ops/support/build.h"

hk_status hk_build_unary(hk_graph *g, const char *type, hk_value *x, hk_value **out)
{
    return hk_build(g, type, NULL, &x, 1, out, 1);
}

hk_status hk_build_binary(hk_graph *g, const char *type, hk_value *a, hk_value *b, hk_value **out)
{
    return hk_build(g, type, NULL, (hk_value *[]){a, b}, 2, out, 1);
}

hk_status hk_build_scalar(hk_graph *g, const char *type, hk_value *x, double scalar, hk_value **out)
{
    hk_value *s = hk_graph_scalar(g, x->dtype, scalar);
    return s ? hk_build_binary(g, type, x, s, out) : HK_STATUS_OUT_OF_MEMORY;
}

hk_status hk_build_reshape(hk_graph *g, hk_value *x, const hk_shape *shape, hk_value **out)
{
    const hk_attr_value attrs[] = {HK_SET_INT("allowzero", 1), {0}};
    hk_value *dims = hk_graph_ints(g, shape->dim, shape->rank);
    return dims ? hk_build(g, "Reshape", attrs, (hk_value *[]){x, dims}, 2, out, 1) : HK_STATUS_OUT_OF_MEMORY;
}

hk_status hk_build_transpose(hk_graph *g, hk_value *x, const int64_t *perm, int32_t rank, hk_value **out)
{
    const hk_attr_value attrs[] = {HK_SET_INTS("perm", perm, rank), {0}};
    return hk_build(g, "Transpose", attrs, &x, 1, out, 1);
}

hk_status hk_build_reduce(hk_graph *g, const char *type, hk_value *x, const int64_t *axes, int32_t count,
                          hk_value **out)
{
    hk_value *list = hk_graph_ints(g, axes, count);
    return list ? hk_build_binary(g, type, x, list, out) : HK_STATUS_OUT_OF_MEMORY;
}

hk_status hk_build_pad(hk_graph *g, hk_value *x, const int64_t *pads, hk_value **out)
{
    hk_value *list = hk_graph_ints(g, pads, 2 * x->shape.rank);
    return list ? hk_build_binary(g, "Pad", x, list, out) : HK_STATUS_OUT_OF_MEMORY;
}

hk_status hk_build_cast(hk_graph *g, hk_value *x, hk_dtype to, hk_value **out)
{
    const hk_attr_value attrs[] = {HK_SET_INT("to", to), {0}};
    return hk_build(g, "Cast", attrs, &x, 1, out, 1);
}

hk_status hk_eval_part(hk_eval *e, const char *type, const hk_attr_value *list, const hk_tensor *const *in,
                       int32_t in_count, hk_tensor **out, int32_t out_count)
{
    hk_graph *g = NULL;
    hk_value *values[8] = {0}, *results[8] = {0};
    HK_TRY(hk_graph_create(e->ctx, "part", &g));
    hk_status st = HK_OK;
    for (int32_t i = 0; i < in_count && st == HK_OK; i++) {
        if (!in[i])
            continue;
        hk_shape shape = hk_tensor_shape(in[i]);
        values[i] = hk_graph_value(g, NULL, HK_VALUE_INPUT, in[i]->dtype, &shape);
        st = values[i] ? HK_OK : hk_out_of_memory(e->ctx, "a part of an operator");
    }
    if (st == HK_OK)
        st = hk_build(g, type, list, values, in_count, results, out_count);
    if (st == HK_OK)
        st = hk_node_eval(e->ctx, e->arena, results[0]->producer, in, out, e->step);
    hk_graph_destroy(&g);
    return st;
}

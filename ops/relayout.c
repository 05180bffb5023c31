/*
 * Layouts: the same logical tensor stored another way.
 *
 * hk.Relayout(X; layout, storage)    contiguous float32 <-> HK_LAYOUT_NHWC8 in float32 or float16
 * hk.PackConvWeight(W; storage)      OIHW to O,H,W,I with I padded to octets: what the NHWC8 convolution reads
 *
 * On the host both are the identity, rounded to half precision where that is the storage asked for. Passes insert them;
 * `layout` and `storage` become those of the output value.
 */
#include "ops/support/octets.h"

typedef struct relayout_attrs {
    int64_t layout;  /* hk_layout */
    int64_t storage; /* hk_dtype of the packed side; 0: as the value's dtype */
} relayout_attrs;

static const hk_attr relayout_table[] = {
    HK_INT_ATTR(relayout_attrs, layout, 0), HK_INT_ATTR(relayout_attrs, storage, 0), {0}};
static const hk_attr pack_table[] = {HK_INT_ATTR(relayout_attrs, storage, 0), {0}};

static bool packs_weight(const hk_node *n)
{
    return n->op->attrs == pack_table;
}

static hk_layout layout_of(const hk_node *n)
{
    const relayout_attrs *a = n->attrs;
    return packs_weight(n) ? HK_LAYOUT_NHWC8 : (hk_layout)a->layout;
}

static hk_status infer_relayout(hk_infer *in)
{
    const relayout_attrs *a = in->node->attrs;
    const hk_value *x = hk_in(in->node, 0);
    if (x->dtype != HK_FLOAT32 && x->dtype != HK_FLOAT64)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float32 or float64 input, found %s",
                             hk_dtype_name(x->dtype));
    if (a->layout < HK_LAYOUT_CONTIGUOUS || a->layout > HK_LAYOUT_NHWC8)
        return hk_infer_fail(in, HK_STATUS_INVALID, "layout %lld is not known", (long long)a->layout);
    if (a->storage != HK_DTYPE_NONE && a->storage != HK_FLOAT32 && a->storage != HK_FLOAT16)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a storage of 0, float32 (1) or float16 (10), found %lld",
                             (long long)a->storage);
    if (layout_of(in->node) == HK_LAYOUT_CONTIGUOUS && a->storage == HK_FLOAT16)
        return hk_infer_fail(in, HK_STATUS_INVALID, "a contiguous value is stored in float32");
    if (x->shape.rank >= 0 && x->shape.rank < 2)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "expected an input of rank 2 or more (batch, channels, ...), found rank %d",
                             (int)x->shape.rank);
    HK_TRY(hk_infer_output(in, 0, x->dtype, &x->shape));
    in->node->out[0]->layout = layout_of(in->node);
    in->node->out[0]->storage = (hk_dtype)a->storage;
    return HK_OK;
}

static hk_status eval_relayout(hk_eval *e)
{
    const relayout_attrs *a = e->node->attrs;
    hk_shape shape = hk_tensor_shape(e->in[0]);
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "evaluating a change of layout");
    int64_t count = hk_tensor_count(y);
    for (int64_t i = 0; i < count; i++) {
        double v = hk_get_double(e->in[0], i);
        hk_set_double(y, i, a->storage == HK_FLOAT16 ? (double)hk_half_to_float(hk_float_to_half((float)v)) : v);
    }
    return HK_OK;
}

static hk_status lower_relayout(hk_lower *l)
{
    hk_value *x = l->node->in[0], *y = l->node->out[0];
    int64_t count = hk_shape_count(&x->shape);
    if (count == 0)
        return HK_OK;
    if (x->layout == y->layout && hk_value_storage(x) == hk_value_storage(y)) {
        hk_emit_copy(l, x, 0, y, 0, hk_value_bytes(x));
        return HK_OK;
    }
    bool pack = y->layout == HK_LAYOUT_NHWC8;
    hk_value *plain = pack ? x : y, *packed = pack ? y : x;
    if (plain->layout != HK_LAYOUT_CONTIGUOUS || hk_value_storage(plain) != HK_FLOAT32 ||
        packed->layout != HK_LAYOUT_NHWC8 || packed->dtype != HK_FLOAT32)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): expected contiguous float32 on one side and NHWC8 on the other", l->node->name,
                       l->node->type);
    hk_emit_octets(l, &(hk_octets){.plain = plain,
                                   .packed = packed,
                                   .images = x->shape.dim[0],
                                   .channels = x->shape.dim[1],
                                   .plane = hk_shape_span(&x->shape, 2, x->shape.rank),
                                   .pack = pack});
    return HK_OK;
}

/* The gradient of a value is a value like any other, contiguous. */
static hk_status backward_relayout(hk_gradient *g, hk_node *n)
{
    return hk_gradient_add(g, n->in[0], hk_gradient_of(g, n->out[0]));
}

/* A case's results are read as contiguous: these shapes lie the same in both layouts. tests/test_conv.c has the others.
 */
static const char *const relayout_cases[] = {"f32[2,3,5,7]", "f32[3,16,1,1]; layout=1", "f32[5,8]; layout=1",
                                             "f32[0,3,5,7]; ; nograd", NULL};
static const char *const pack_cases[] = {"f32[4,16,1,1]; ; nograd", NULL};

const hk_op hk_ops_relayout[] = {
    {
        .type = "hk.Relayout",
        .since = 1,
        .in_min = 1,
        .in_max = 1,
        .out_min = 1,
        .out_max = 1,
        .attrs_bytes = sizeof(relayout_attrs),
        .attrs = relayout_table,
        .infer = infer_relayout,
        .eval = eval_relayout,
        .lower = lower_relayout,
        .backward = backward_relayout,
        .cases = relayout_cases,
    },
    {
        .type = "hk.PackConvWeight",
        .since = 1,
        .in_min = 1,
        .in_max = 1,
        .out_min = 1,
        .out_max = 1,
        .attrs_bytes = sizeof(relayout_attrs),
        .attrs = pack_table,
        .infer = infer_relayout,
        .eval = eval_relayout,
        .lower = lower_relayout,
        .cases = pack_cases,
    },
    {0},
};

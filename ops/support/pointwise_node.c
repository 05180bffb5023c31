/* Inference, evaluation and lowering of one pointwise node: a chain of its own steps. */
#include <string.h>

#include "ops/pointwise.h"

/* ---- inference */

static uint8_t kind_of(hk_dtype t)
{
    return t == HK_BOOL ? HK_TAKES_BOOLS : hk_dtype_is_float(t) ? HK_TAKES_FLOATS : HK_TAKES_INTS;
}

static const char *takes_text(uint8_t takes)
{
    switch (takes) {
    case HK_TAKES_FLOATS: return "floats";
    case HK_TAKES_INTS: return "integers";
    case HK_TAKES_NUMBERS: return "numbers";
    case HK_TAKES_BOOLS: return "bools";
    default: return "numbers or bools";
    }
}

static hk_status check_same(hk_infer *in, int32_t from)
{
    const hk_node *n = in->node;
    for (int32_t i = from + 1; i < n->in_count; i++)
        if (n->in[i] && n->in[i]->dtype != n->in[from]->dtype)
            return hk_infer_fail(in, HK_STATUS_INVALID, "expected inputs of one element type, found %s and %s",
                                 hk_dtype_name(n->in[from]->dtype), hk_dtype_name(n->in[i]->dtype));
    return HK_OK;
}

static hk_status infer_dtype(hk_infer *in, hk_dtype *out)
{
    const hk_node *n = in->node;
    hk_pointwise_types types = hk_pointwise_types_of(n);
    int32_t data = types.rule == HK_TYPES_WHERE ? 1 : 0;
    hk_dtype t = n->in[data]->dtype;
    if (!(kind_of(t) & types.takes))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected %s, found %s", takes_text(types.takes), hk_dtype_name(t));
    *out = t;
    switch (types.rule) {
    case HK_TYPES_SAME:
    case HK_TYPES_TEST: *out = types.rule == HK_TYPES_TEST ? HK_BOOL : t; return check_same(in, 0);
    case HK_TYPES_WHERE:
        if (n->in[0]->dtype != HK_BOOL)
            return hk_infer_fail(in, HK_STATUS_INVALID, "expected a condition of bools, found %s",
                                 hk_dtype_name(n->in[0]->dtype));
        return check_same(in, 1);
    case HK_TYPES_POW:
        if (n->in[1]->dtype == HK_BOOL)
            return hk_infer_fail(in, HK_STATUS_INVALID, "expected an exponent of numbers, found bools");
        return HK_OK;
    case HK_TYPES_CAST: *out = (hk_dtype)((const hk_pointwise_attrs *)n->attrs)->to; break;
    case HK_TYPES_LIKE: *out = n->in[1]->dtype; break;
    }
    if (hk_dtype_bytes(*out) == 0)
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "casting to ONNX element type %d is not supported", (int)*out);
    return HK_OK;
}

static hk_status check_mod(hk_infer *in)
{
    const hk_node *n = in->node;
    bool floats = hk_dtype_is_float(n->in[0]->dtype), like_c = ((const hk_pointwise_attrs *)n->attrs)->fmod != 0;
    if (floats && !like_c && !strcmp(n->op->type, "Mod"))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected fmod=1 for %s inputs, found fmod=0",
                             hk_dtype_name(n->in[0]->dtype));
    return HK_OK;
}

hk_status hk_pointwise_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    hk_dtype dtype = HK_DTYPE_NONE;
    HK_TRY(infer_dtype(in, &dtype));
    HK_TRY(check_mod(in));
    hk_shape shape = n->in[0]->shape;
    for (int32_t i = 1; i < hk_pointwise_inputs(n); i++) {
        if (!n->in[i])
            continue;
        hk_shape s = hk_pointwise_aligned(n, i, &n->in[i]->shape, &n->in[0]->shape), before = shape;
        hk_shape_text a, b;
        if (!hk_shape_broadcast(&before, &s, &shape))
            return hk_infer_fail(in, HK_STATUS_INVALID, "%s and %s do not broadcast", hk_shape_print(&before, &a),
                                 hk_shape_print(&s, &b));
    }
    return hk_infer_output(in, 0, dtype, &shape);
}

/* ---- the node as programs: one, or several where a variadic operator has more inputs than a chain takes */

typedef struct part {
    hk_chain_build b;
    hk_shape in_shape[CHAIN_INPUTS];
} part;

static uint8_t take(part *p, hk_value *v, const hk_shape *shape)
{
    uint8_t reg = hk_chain_input(&p->b, v);
    if (reg < CHAIN_FIRST_IMMEDIATE)
        p->in_shape[reg] = *shape;
    return reg;
}

/* shapes: of the inputs, aligned. */
static void whole_node(part *p, const hk_node *n, const hk_shape *shapes)
{
    uint8_t in[CHAIN_INPUTS] = {0};
    for (int32_t i = 0; i < hk_pointwise_inputs(n); i++)
        in[i] = n->in[i] ? take(p, n->in[i], &shapes[i]) : CHAIN_NONE;
    hk_chain_output(&p->b, hk_pointwise_encode(&p->b, n, in), n->out[0]->dtype);
}

/* From input `next` on, onto the sum so far (NULL at first); returns the first input that did not fit. */
static int32_t next_part(part *p, const hk_node *n, const hk_shape *shapes, hk_value *sum, const hk_shape *sum_shape,
                         int32_t next)
{
    uint8_t in[CHAIN_INPUTS];
    int32_t count = 0;
    if (sum)
        in[count++] = take(p, sum, sum_shape);
    while (count < CHAIN_INPUTS && next < n->in_count) {
        in[count++] = take(p, n->in[next], &shapes[next]);
        next++;
    }
    hk_chain_output(&p->b, hk_pointwise_fold(&p->b, n, in, count, next == n->in_count), n->out[0]->dtype);
    return next;
}

static hk_shape *aligned_shapes(hk_arena *arena, const hk_node *n, const hk_tensor *const *in)
{
    hk_shape *shapes = hk_arena_array(arena, (size_t)n->in_count + 1, sizeof *shapes), first;
    for (int32_t i = 0; shapes && i < n->in_count; i++) {
        if (!n->in[i])
            continue;
        hk_shape s = in ? hk_tensor_shape(in[i]) : n->in[i]->shape;
        first = i == 0 ? s : first;
        shapes[i] = hk_pointwise_aligned(n, i, &s, &first);
    }
    return shapes;
}

/* ---- evaluation */

/* The tensors of a part's inputs; sum stands for the value the parts before left. */
static void find_tensors(const part *p, const hk_eval *e, const hk_value *sum_value, const hk_tensor *sum,
                         const hk_tensor **out)
{
    for (int32_t i = 0; i < p->b.chain.input_count; i++) {
        out[i] = p->b.input[i] == sum_value ? sum : NULL;
        for (int32_t k = 0; k < e->node->in_count && !out[i]; k++)
            out[i] = e->node->in[k] == p->b.input[i] ? e->in[k] : NULL;
    }
}

static hk_status eval_parts(hk_eval *e, const hk_shape *shapes, const hk_shape *shape, hk_tensor *y)
{
    const hk_node *n = e->node;
    const hk_tensor *in[CHAIN_INPUTS];
    hk_value sum_value = {.dtype = n->out[0]->dtype};
    hk_tensor *sum = NULL;
    for (int32_t next = 0; next < n->in_count;) {
        part p = {0};
        next = next_part(&p, n, shapes, sum ? &sum_value : NULL, shape, next);
        find_tensors(&p, e, &sum_value, sum, in);
        sum = next == n->in_count ? y : hk_tensor_new(e->arena, y->dtype, shape);
        if (!sum)
            return hk_out_of_memory(e->ctx, "an elementwise result");
        hk_chain_eval(&p.b.chain, in, p.in_shape, shape, &sum);
    }
    return HK_OK;
}

/* Casts to types below 8 bits and small floats, which chains do not know. */
static bool casts_small(const hk_node *n)
{
    hk_type_rule rule = hk_pointwise_types_of(n).rule;
    hk_dtype to = n->out[0]->dtype;
    return (rule == HK_TYPES_CAST || rule == HK_TYPES_LIKE) && (hk_dtype_is_small(to) || hk_dtype_bits(to) < 8);
}

static hk_status eval_small_cast(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_pointwise_attrs *a = n->attrs;
    const hk_tensor *x = e->in[0];
    hk_shape shape = hk_tensor_shape(x);
    hk_dtype to = n->out[0]->dtype;
    hk_tensor *y = hk_eval_output(e, 0, to, &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "a cast");
    hk_e8m0_rounding rounding = !strcmp(a->round_mode, "down")      ? HK_E8M0_DOWN
                                : !strcmp(a->round_mode, "nearest") ? HK_E8M0_NEAREST
                                                                    : HK_E8M0_UP;
    for (int64_t i = 0, count = hk_shape_count(&shape); i < count; i++) {
        if (to == HK_FLOAT8E8M0)
            ((uint8_t *)y->data)[i] = hk_e8m0_from_float((float)hk_get_double(x, i), a->saturate != 0, rounding);
        else if (hk_dtype_is_small(to))
            ((uint8_t *)y->data)[i] = hk_small_from_double(to, hk_get_double(x, i), a->saturate != 0);
        else
            hk_set_int(y, i, hk_get_int(x, i)); /* truncated, then cut off at the type's bits */
    }
    return HK_OK;
}

hk_status hk_pointwise_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_tensor *in[CHAIN_INPUTS];
    if (casts_small(n))
        return eval_small_cast(e);
    hk_shape *shapes = aligned_shapes(e->arena, n, e->in), shape = HK_SCALAR;
    if (!shapes)
        return hk_out_of_memory(e->ctx, "an elementwise result");
    for (int32_t i = 0; i < hk_pointwise_inputs(n); i++)
        if (n->in[i] && !hk_shape_broadcast(&shape, &shapes[i], &shape))
            return hk_eval_fail(e, HK_STATUS_INVALID, "its inputs' shapes do not broadcast");
    bool parts = n->in_count > CHAIN_INPUTS, promoted = false;
    for (int32_t i = 0; i < hk_pointwise_inputs(n); i++)
        promoted |= n->in[i] && n->in[i]->dtype == HK_FLOAT32 && e->in[i]->dtype == HK_FLOAT64;
    hk_dtype dtype = n->out[0]->dtype == HK_FLOAT32 && promoted ? HK_FLOAT64 : n->out[0]->dtype;
    hk_tensor *y = hk_eval_output(e, 0, dtype, &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "an elementwise result");
    if (parts)
        return eval_parts(e, shapes, &shape, y);
    part p = {0};
    whole_node(&p, n, shapes);
    find_tensors(&p, e, NULL, NULL, in);
    hk_chain_eval(&p.b.chain, in, p.in_shape, &shape, &y);
    return HK_OK;
}

/* ---- layouts */

/* What completes the last octet stays zero. */
static bool keeps_zeros(const hk_node *n)
{
    static const char *const types[] = {"Add", "Sub", "Mul", "Relu", "hk.ReluGrad", "LeakyRelu"};
    for (size_t i = 0; i < HK_COUNT(types); i++)
        if (hk_node_is(n, types[i]))
            return true;
    return false;
}

/* v broadcasts to y alike when channels come last: it has one channel, or one pixel and all of them. */
static bool broadcasts_last(const hk_shape *v, const hk_shape *y)
{
    int32_t first = y->rank - v->rank; /* dimension d of y is d - first of v */
    int64_t channels = first <= 1 ? v->dim[1 - first] : 1, pixels = hk_shape_span(v, HK_MAX(2 - first, 0), v->rank);
    return channels == 1 || (pixels == 1 && channels % 8 == 0);
}

bool hk_pointwise_takes_octets(const hk_node *n)
{
    const hk_value *y = hk_out(n, 0);
    if (!y || y->dtype != HK_FLOAT32 || y->state || y->shape.rank < 3 || !hk_shape_known(&y->shape) ||
        hk_shape_count(&y->shape) == 0 || n->in_count > CHAIN_INPUTS || n->op->flags & HK_OP_RANDOM)
        return false;
    bool whole = false, padded = y->shape.dim[1] % 8 != 0;
    for (int32_t i = 0; i < hk_pointwise_inputs(n); i++) {
        const hk_value *v = n->in[i];
        if (!v)
            continue;
        hk_shape aligned = hk_pointwise_aligned(n, i, &v->shape, &n->in[0]->shape);
        bool equal = hk_shape_equal(&v->shape, &y->shape);
        if (v->dtype != HK_FLOAT32 || !hk_shape_equal(&aligned, &v->shape) ||
            (!equal && !broadcasts_last(&v->shape, &y->shape)))
            return false;
        whole |= equal;
    }
    return whole && (!padded || keeps_zeros(n));
}

/* ---- lowering */

static hk_status lower_part(hk_lower *l, const part *p, hk_value *y, const hk_shape *shape)
{
    if (p->b.full)
        return hk_fail(l->ctx, HK_STATUS_INTERNAL, "node '%s' (%s) does not fit a chain", l->node->name, l->node->type);
    hk_chain_job job = {.chain = &p->b.chain, .out = {y}, .shape = *shape};
    memcpy(job.in, p->b.input, sizeof job.in);
    memcpy(job.in_shape, p->in_shape, sizeof job.in_shape);
    return hk_chain_lower(l, &job);
}

hk_status hk_pointwise_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const hk_shape *shape = &n->out[0]->shape, *shapes = aligned_shapes(l->arena, n, NULL);
    if (!shapes)
        return hk_out_of_memory(l->ctx, "an elementwise operator");
    if (n->in_count <= CHAIN_INPUTS) {
        part p = {.b.immediates = true};
        whole_node(&p, n, shapes);
        return lower_part(l, &p, n->out[0], shape);
    }
    hk_value *sum = NULL;
    for (int32_t next = 0; next < n->in_count;) {
        part p = {.b.immediates = true};
        next = next_part(&p, n, shapes, sum, shape, next);
        sum = next == n->in_count ? n->out[0] : hk_scratch(l, n->out[0]->dtype, hk_shape_count(shape));
        if (!sum)
            return HK_STATUS_OUT_OF_MEMORY;
        HK_TRY(lower_part(l, &p, sum, shape));
    }
    return HK_OK;
}

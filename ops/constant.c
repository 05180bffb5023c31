/* Operators that make tensors from shapes and scalars: Shape, Size, Constant, ConstantOfShape, Range. */
#include <math.h>
#include <string.h>

#include "ops/support/move.h"
#include "ops/support/move_args.h"
#include "ops/support/sequence.h"

/* ---- Shape and Size: known as soon as the input's shape is, whatever its contents */

typedef struct shape_attrs {
    int64_t start, end;
} shape_attrs;
static const hk_attr shape_attr_list[] = {
    HK_INT_ATTR(shape_attrs, start, 0),
    {.name = "end", .kind = HK_ATTR_INT, .offset = offsetof(shape_attrs, end), .number = INT32_MAX},
    {0}};

static void shape_range(const hk_node *n, int32_t rank, int32_t *start, int32_t *end)
{
    int64_t from = 0, to = rank;
    if (n->op->since >= 15) {
        const shape_attrs *s = n->attrs;
        from = s->start < 0 ? s->start + rank : s->start;
        to = s->end < 0 ? s->end + rank : s->end;
    }
    *start = (int32_t)HK_MIN(HK_MAX(from, 0), (int64_t)rank);
    *end = (int32_t)HK_MIN(HK_MAX(to, (int64_t)*start), (int64_t)rank);
}

/* The dimensions [start, end) of x as int64, or NULL with *known false when one is unknown. */
static hk_tensor *shape_contents(hk_arena *arena, const hk_node *n, const hk_shape *x, bool *known)
{
    int32_t start, end;
    shape_range(n, x->rank, &start, &end);
    *known = true;
    for (int32_t d = start; d < end; d++)
        *known &= x->dim[d] >= 0;
    hk_tensor *t = *known ? hk_tensor_new(arena, HK_INT64, &(hk_shape){.rank = 1, .dim = {end - start}}) : NULL;
    for (int32_t d = start; t && d < end; d++)
        hk_set_int(t, d - start, x->dim[d]);
    return t;
}

static hk_status shape_infer(hk_infer *in)
{
    hk_shape x = in->node->in[0]->shape;
    hk_shape s = {.rank = 1, .dim = {-1}};
    hk_value *y = hk_out(in->node, 0);
    if (x.rank >= 0) {
        int32_t start, end;
        shape_range(in->node, x.rank, &start, &end);
        s.dim[0] = end - start;
    }
    HK_TRY(hk_infer_output(in, 0, HK_INT64, &s));
    bool known = false;
    if (x.rank >= 0 && y) {
        y->data = shape_contents(in->graph->arena, in->node, &x, &known);
        if (known && !y->data)
            return hk_out_of_memory(in->ctx, "a shape");
    }
    return HK_OK;
}

static hk_status shape_eval(hk_eval *e)
{
    hk_shape x = hk_tensor_shape(e->in[0]);
    bool known;
    e->out[0] = shape_contents(e->arena, e->node, &x, &known);
    return e->out[0] ? HK_OK : hk_out_of_memory(e->ctx, "a shape");
}

/* For the case that the planner does not fold it: what inference knew is written. */
static hk_status lower_known(hk_lower *l)
{
    hk_value *y = hk_out(l->node, 0);
    if (!y)
        return HK_OK;
    if (!y->data)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s): the shape it reads is not known when planning",
                       l->node->name, l->node->type);
    return hk_emit_literal(l, y->data, y);
}

static const char *const shape_cases[] = {
    "f32[2,3,4] ; ; nograd",
    "f32[2,3,4] ; start=1 ; nograd",
    "f32[2,3,4] ; start=-1 ; nograd",
    "f32[2,3,4] ; start=0 end=-1 ; nograd",
    "f32[2,3,4] ; start=-9 end=9 ; nograd",
    "f32[2,3] ; start=2 end=1 ; nograd",
    "f32[] ; ; nograd",
    "bool[0,7] ; ; nograd",
    NULL,
};
static const char *const shape_1_cases[] = {"f32[2,3,4] ; ; nograd", "f32[] ; ; nograd", NULL};

static hk_status size_infer(hk_infer *in)
{
    HK_TRY(hk_infer_output(in, 0, HK_INT64, &HK_SCALAR));
    hk_value *y = hk_out(in->node, 0);
    int64_t count = hk_shape_count(&in->node->in[0]->shape);
    if (count < 0 || !y)
        return HK_OK;
    hk_tensor *t = hk_tensor_new(in->graph->arena, HK_INT64, &HK_SCALAR);
    if (!t)
        return hk_out_of_memory(in->ctx, "a size");
    hk_set_int(t, 0, count);
    y->data = t;
    return HK_OK;
}

static hk_status size_eval(hk_eval *e)
{
    hk_tensor *y = hk_eval_output(e, 0, HK_INT64, &HK_SCALAR);
    if (!y)
        return hk_out_of_memory(e->ctx, "a size");
    hk_set_int(y, 0, hk_tensor_count(e->in[0]));
    return HK_OK;
}

static const char *const size_cases[] = {"f32[2,3,4] ; ; nograd", "f32[] ; ; nograd", "i64[0,3]<2 ; ; nograd", NULL};

/* ---- Constant: one of the attributes value, value_float(s), value_int(s) */

typedef struct constant_attrs {
    const hk_tensor *value;
    float value_float;
    hk_floats value_floats;
    int64_t value_int;
    hk_ints value_ints;
    const char *value_string;
} constant_attrs;
/* Defaults that stand for "absent" and that no model contains. */
#define ABSENT_FLOAT ((float)0x1.2468acp-100)
#define ABSENT_INT INT64_MIN
static const hk_attr constant_attr_list[] = {
    HK_TENSOR_ATTR(constant_attrs, value),
    HK_FLOAT_ATTR(constant_attrs, value_float, (double)ABSENT_FLOAT),
    HK_FLOATS_ATTR(constant_attrs, value_floats),
    HK_INT_ATTR(constant_attrs, value_int, ABSENT_INT),
    HK_INTS_ATTR(constant_attrs, value_ints),
    HK_STRING_ATTR(constant_attrs, value_string, NULL),
    {0},
};

/* The attribute as a tensor, new in arena or the attribute's own; NULL when there is none or memory ran out. */
static const hk_tensor *constant_contents(hk_arena *arena, const constant_attrs *c)
{
    uint32_t absent_bits, bits;
    float absent = ABSENT_FLOAT;
    memcpy(&absent_bits, &absent, sizeof bits);
    memcpy(&bits, &c->value_float, sizeof bits);
    hk_tensor *t = NULL;
    if (c->value)
        return c->value;
    if (c->value_floats.v) {
        t = hk_tensor_new(arena, HK_FLOAT32, &(hk_shape){.rank = 1, .dim = {c->value_floats.count}});
        for (int32_t i = 0; t && i < c->value_floats.count; i++)
            hk_set_double(t, i, (double)c->value_floats.v[i]);
    } else if (c->value_ints.v) {
        t = hk_tensor_new(arena, HK_INT64, &(hk_shape){.rank = 1, .dim = {c->value_ints.count}});
        for (int32_t i = 0; t && i < c->value_ints.count; i++)
            hk_set_int(t, i, c->value_ints.v[i]);
    } else if (bits != absent_bits) {
        t = hk_tensor_new(arena, HK_FLOAT32, &HK_SCALAR);
        if (t)
            memcpy(t->data, &c->value_float, sizeof(float));
    } else if (c->value_int != ABSENT_INT) {
        t = hk_tensor_new(arena, HK_INT64, &HK_SCALAR);
        if (t)
            hk_set_int(t, 0, c->value_int);
    }
    return t;
}

static hk_status constant_infer(hk_infer *in)
{
    const constant_attrs *c = in->node->attrs;
    const hk_tensor *t = constant_contents(in->graph->arena, c);
    if (!t)
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "expected value, value_float(s) or value_int(s), found %s",
                             c->value_string ? "a string, and string tensors are not supported" : "none of them");
    hk_shape s = hk_tensor_shape(t);
    HK_TRY(hk_infer_output(in, 0, t->dtype, &s));
    if (hk_out(in->node, 0))
        in->node->out[0]->data = t;
    return HK_OK;
}

static hk_status constant_eval(hk_eval *e)
{
    const hk_tensor *t = constant_contents(e->arena, e->node->attrs);
    if (!t)
        return hk_out_of_memory(e->ctx, "a constant");
    hk_shape s = hk_tensor_shape(t);
    hk_tensor *y = hk_eval_output(e, 0, t->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a constant");
    if (hk_tensor_bytes(t) > 0)
        memcpy(y->data, t->data, (size_t)hk_tensor_bytes(t));
    return HK_OK;
}

static const char *const constant_cases[] = {
    " ; value_float=1.5 ; nograd",     " ; value_floats=[0.5,-2.0,3.0] ; nograd",
    " ; value_int=-3 ; nograd",        " ; value_ints=[1,-2,3000000000] ; nograd",
    " ; value=f32={0.5,1.5} ; nograd", " ; value=bool={1,0,1} ; nograd",
    " ; value_ints=[] ; nograd",       NULL,
};

/* ---- ConstantOfShape */

typedef struct fill_attrs {
    const hk_tensor *value;
} fill_attrs;
static const hk_attr fill_attr_list[] = {HK_TENSOR_ATTR(fill_attrs, value), {0}};

/* One element; the default is a float 0. */
static const hk_tensor *fill_value(const hk_node *n)
{
    static const float zero[1];
    static const hk_tensor absent = {.data = (void *)(uintptr_t)zero, .dtype = HK_FLOAT32, .rank = 1, .shape = {1}};
    const fill_attrs *f = n->attrs;
    return f->value ? f->value : &absent;
}

static hk_status fill_shape(const hk_args *a, hk_shape *out)
{
    int64_t dims[HK_MAX_RANK];
    int32_t n;
    if (hk_tensor_count(fill_value(a->node)) != 1)
        return hk_args_fail(a, "attribute value has %lld elements, expected 1",
                            (long long)hk_tensor_count(fill_value(a->node)));
    HK_TRY(hk_args_ints(a, 0, "shape", dims, HK_MAX_RANK, &n));
    int64_t length = n < 0 ? hk_args_length(a, 0) : n;
    *out = (hk_shape){.rank = length >= 0 && length <= HK_MAX_RANK ? (int32_t)length : -1};
    for (int32_t i = 0; i < out->rank; i++) {
        out->dim[i] = n < 0 ? -1 : dims[i];
        if (n >= 0 && dims[i] < 0)
            return hk_args_fail(a, "dimension %d is %lld, expected 0 or more", (int)i, (long long)dims[i]);
    }
    return HK_OK;
}

static hk_status fill_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape s;
    HK_TRY(fill_shape(&a, &s));
    return hk_infer_output(in, 0, fill_value(in->node)->dtype, &s);
}

static hk_status fill_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    HK_TRY(fill_shape(&a, &s));
    const hk_tensor *value = fill_value(e->node);
    hk_tensor *y = hk_eval_output(e, 0, value->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a filled tensor");
    hk_move m = {0};
    hk_move_add(&m, hk_shape_count(&s), 0, 1);
    hk_host_move(&m, value, y);
    return HK_OK;
}

static hk_status fill_lower(hk_lower *l)
{
    return hk_emit_constant(l, fill_value(l->node), l->node->out[0]);
}

static const char *const fill_cases[] = {
    "i64={2,3} ; ; nograd",
    "i64={4} ; value=i64={7} ; nograd",
    "i64={} ; value=f32={2.5} ; nograd",
    "i64={3,0} ; ; nograd",
    "i64={65,1025} ; value=i64={-5000000000} ; nograd",
    "i64={300,300} ; value=bool={1} ; nograd",
    "i64={70000} ; value=f64={0.1} ; nograd",
    NULL,
};

/* ---- Range: start + i delta, below limit (above it if delta < 0) */

static int64_t range_count(const hk_args *a)
{
    const hk_tensor *start = hk_args_known(a, 0), *limit = hk_args_known(a, 1), *delta = hk_args_known(a, 2);
    if (!start || !limit || !delta)
        return -1;
    if (hk_dtype_is_float(start->dtype)) {
        double n = ceil((hk_get_double(limit, 0) - hk_get_double(start, 0)) / hk_get_double(delta, 0));
        return n > 0 ? (int64_t)HK_MIN(n, 0x1p40) : 0;
    }
    int64_t from = hk_get_int(start, 0), to = hk_get_int(limit, 0), by = hk_get_int(delta, 0);
    uint64_t span, step = by < 0 ? 0 - (uint64_t)by : (uint64_t)by;
    if (step == 0 || (by > 0 ? to <= from : to >= from))
        return 0;
    span = by > 0 ? (uint64_t)to - (uint64_t)from : (uint64_t)from - (uint64_t)to;
    return (int64_t)HK_MIN((span - 1) / step + 1, (uint64_t)1 << 40);
}

static hk_status range_shape(const hk_args *a, hk_shape *out)
{
    for (int32_t i = 0; i < 3; i++) {
        hk_shape s = hk_args_shape(a, i);
        if (s.rank > 1 || (hk_shape_known(&s) && hk_shape_count(&s) != 1) || hk_args_dtype(a, i) != hk_args_dtype(a, 0))
            return hk_args_fail(a, "expected start, limit and delta as scalars of one type");
    }
    const hk_tensor *delta = hk_args_known(a, 2);
    if (delta && hk_get_double(delta, 0) == 0.0)
        return hk_args_fail(a, "delta is 0");
    *out = (hk_shape){.rank = 1, .dim = {range_count(a)}};
    if (out->dim[0] > INT32_MAX)
        return hk_args_fail(a, "the range has more than 2^31 - 1 elements");
    return HK_OK;
}

static hk_status range_infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    hk_shape s;
    HK_TRY(range_shape(&a, &s));
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &s);
}

static void range_fill(hk_tensor *y, const hk_tensor *start, const hk_tensor *delta)
{
    int64_t count = hk_tensor_count(y);
    bool floating = hk_dtype_is_float(y->dtype);
    for (int64_t i = 0; i < count; i++) {
        if (floating)
            hk_set_double(y, i, hk_get_double(start, 0) + (double)i * hk_get_double(delta, 0));
        else
            hk_set_int(y, i, (int64_t)((uint64_t)hk_get_int(start, 0) + (uint64_t)i * (uint64_t)hk_get_int(delta, 0)));
    }
}

static hk_status range_eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    hk_shape s;
    HK_TRY(range_shape(&a, &s));
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a range");
    range_fill(y, e->in[0], e->in[2]);
    return HK_OK;
}

/* All three operands are known while planning, so the contents are too. */
static hk_status range_lower(hk_lower *l)
{
    hk_value *y = l->node->out[0];
    hk_tensor *t = hk_tensor_new(l->arena, y->dtype, &y->shape);
    if (!t)
        return hk_out_of_memory(l->ctx, "a range");
    range_fill(t, hk_known(l->node, 0), hk_known(l->node, 2));
    return hk_emit_literal(l, t, y);
}

static const char *const range_cases[] = {
    "i64=0 i64=7 i64=2 ; ; nograd",
    "i64=10 i64=-3 i64=-4 ; ; nograd",
    "f32=0.5 f32=3.0 f32=0.25 ; ; nograd",
    "i32=5 i32=5 i32=1 ; ; nograd",
    "i64=0 i64=70001 i64=1 ; ; nograd",
    "i64=3000000000 i64=3000000009 i64=3 ; ; nograd",
    NULL,
};

#define MAKER_OP(name, first, last, ins, hosts, attr_struct, list, fn, lower_fn, case_list)                            \
    {                                                                                                                  \
        .type = name, .since = first, .until = last, .in_min = ins, .in_max = ins, .out_min = 1, .out_max = 1,         \
        .flags = HK_OP_ANY_TYPE, .host_inputs = hosts, .attrs_bytes = sizeof(attr_struct), .attrs = list,              \
        .infer = fn##_infer, .eval = fn##_eval, .lower = lower_fn, .cases = case_list                                  \
    }

const hk_op hk_ops_constant[] = {
    MAKER_OP("Shape", 1, 14, 1, 0, shape_attrs, NULL, shape, lower_known, shape_1_cases),
    MAKER_OP("Shape", 15, 0, 1, 0, shape_attrs, shape_attr_list, shape, lower_known, shape_cases),
    MAKER_OP("Size", 1, 0, 1, 0, shape_attrs, NULL, size, lower_known, size_cases),
    MAKER_OP("Constant", 1, 0, 0, 0, constant_attrs, constant_attr_list, constant, lower_known, constant_cases),
    MAKER_OP("ConstantOfShape", 9, 0, 1, 1, fill_attrs, fill_attr_list, fill, fill_lower, fill_cases),
    MAKER_OP("Range", 11, 0, 3, 7, fill_attrs, NULL, range, range_lower, range_cases),
    {0},
};

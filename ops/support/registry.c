/* The table of operators, attributes, and what infer and eval share. */
#include <stdio.h>
#include <string.h>

#include "ops/op.h"

#define OP_FILE(file) extern const hk_op hk_ops_##file[];
#include "ops/op_list.h"
#undef OP_FILE

static const hk_op *const op_files[] = {
#define OP_FILE(file) hk_ops_##file,
#include "ops/op_list.h"
#undef OP_FILE
};

const hk_op *hk_op_at(size_t i)
{
    for (size_t f = 0; f < HK_COUNT(op_files); f++)
        for (const hk_op *op = op_files[f]; op->type; op++)
            if (i-- == 0)
                return op;
    return NULL;
}

const hk_op *hk_op_find(const char *domain, const char *type, int32_t opset, bool *known)
{
    bool default_domain = !domain || !*domain || !strcmp(domain, "ai.onnx");
    if (known)
        *known = false;
    for (size_t f = 0; f < HK_COUNT(op_files); f++)
        for (const hk_op *op = op_files[f]; op->type; op++) {
            bool same = op->domain ? domain && !strcmp(op->domain, domain) : default_domain;
            if (!same || *op->type != *type || strcmp(op->type, type) != 0) /* most end at the first letter */
                continue;
            if (known)
                *known = true;
            if (opset >= op->since && (!op->until || opset <= op->until))
                return op;
        }
    return NULL;
}

/* ---- attributes */

static void set_default(const hk_attr *a, void *field)
{
    switch (a->kind) {
    case HK_ATTR_INT: *(int64_t *)field = (int64_t)a->number; break;
    case HK_ATTR_FLOAT: *(float *)field = (float)a->number; break;
    case HK_ATTR_STRING: *(const char **)field = a->text; break;
    case HK_ATTR_INTS:
    case HK_ATTR_FLOATS:
    case HK_ATTR_TENSOR:
    case HK_ATTR_STRINGS:
    case HK_ATTR_GRAPH:
    case HK_ATTR_TYPE: break; /* zero is absent */
    }
}

/* Copies, because a builder's lists may lie on its stack. An empty list is kept apart from an absent one. */
static bool set_list(hk_arena *arena, const void *from, int32_t count, size_t bytes, const void **to)
{
    void *copy = hk_arena_array(arena, (size_t)HK_MAX(count, 1), bytes);
    if (copy && count)
        memcpy(copy, from, (size_t)count * bytes);
    *to = copy;
    return copy != NULL;
}

static bool set_strings(hk_arena *arena, hk_strings from, hk_strings *to)
{
    const char **copy = hk_arena_array(arena, (size_t)HK_MAX(from.count, 1), sizeof *copy);
    for (int32_t i = 0; copy && i < from.count; i++)
        if (!(copy[i] = hk_arena_string(arena, from.v[i])))
            return false;
    *to = (hk_strings){copy, from.count};
    return copy != NULL;
}

static bool set_attr(hk_arena *arena, const hk_attr_value *value, void *field)
{
    switch (value->kind) {
    case HK_ATTR_INT: *(int64_t *)field = value->i; return true;
    case HK_ATTR_FLOAT: *(float *)field = value->f; return true;
    case HK_ATTR_STRING: return (*(const char **)field = hk_arena_string(arena, value->s)) != NULL;
    case HK_ATTR_INTS:
        ((hk_ints *)field)->count = value->ints.count;
        return set_list(arena, value->ints.v, value->ints.count, sizeof(int64_t),
                        (const void **)&((hk_ints *)field)->v);
    case HK_ATTR_FLOATS:
        ((hk_floats *)field)->count = value->floats.count;
        return set_list(arena, value->floats.v, value->floats.count, sizeof(float),
                        (const void **)&((hk_floats *)field)->v);
    case HK_ATTR_STRINGS: return set_strings(arena, value->strings, field);
    case HK_ATTR_TENSOR: *(const hk_tensor **)field = value->tensor; return true;
    case HK_ATTR_GRAPH: *(hk_graph **)field = value->graph; return true;
    case HK_ATTR_TYPE: *(hk_type *)field = value->type; return true;
    }
    return false;
}

static const char *kind_name(hk_attr_kind k)
{
    static const char *const names[] = {"an int",   "a float", "a string", "ints",  "floats",
                                        "a tensor", "a graph", "strings",  "a type"};
    return names[k];
}

static const hk_attr *find_attr(const hk_op *op, const char *name)
{
    for (const hk_attr *a = op->attrs; a && a->name; a++)
        if (!strcmp(a->name, name))
            return a;
    return NULL;
}

hk_status hk_op_decode(hk_context *ctx, hk_arena *arena, const hk_op *op, const hk_attr_value *values, size_t count,
                       void **attrs)
{
    char *s = hk_arena_alloc(arena, HK_MAX(op->attrs_bytes, 1u));
    if (!s)
        return hk_out_of_memory(ctx, "a node's attributes");
    for (const hk_attr *a = op->attrs; a && a->name; a++)
        set_default(a, s + a->offset);
    for (size_t i = 0; i < count; i++) {
        const hk_attr *a = find_attr(op, values[i].name);
        if (!a)
            return hk_fail(ctx, HK_STATUS_UNSUPPORTED, "attribute '%s' is not one of %s's", values[i].name, op->type);
        if (a->kind != values[i].kind)
            return hk_fail(ctx, HK_STATUS_INVALID, "attribute '%s' of %s is %s, expected %s", a->name, op->type,
                           kind_name(values[i].kind), kind_name(a->kind));
        if (!set_attr(arena, &values[i], s + a->offset))
            return hk_out_of_memory(ctx, "a node's attributes");
    }
    for (const hk_attr *a = op->attrs; a && a->name; a++) {
        bool given = !a->required;
        for (size_t i = 0; i < count && !given; i++)
            given = !strcmp(values[i].name, a->name);
        if (!given)
            return hk_fail(ctx, HK_STATUS_INVALID, "attribute '%s' of %s is missing", a->name, op->type);
    }
    *attrs = s;
    return HK_OK;
}

void *hk_node_attr(const hk_node *n, const char *name)
{
    const hk_attr *a = n->op ? find_attr(n->op, name) : NULL;
    return a ? (char *)n->attrs + a->offset : NULL;
}

hk_status hk_node_own_attrs(hk_graph *g, hk_node *n)
{
    void *copy = hk_arena_alloc(g->arena, HK_MAX(n->op->attrs_bytes, 1u));
    if (!copy)
        return hk_out_of_memory(g->ctx, "a node's attributes");
    memcpy(copy, n->attrs, n->op->attrs_bytes);
    n->attrs = copy;
    return HK_OK;
}

/* ---- inference */

static hk_status fail_node(hk_context *ctx, const hk_node *n, hk_status st, const char *format, va_list args)
{
    char text[512];
    vsnprintf(text, sizeof text, format, args);
    return hk_fail(ctx, st, "node '%s' (%s): %s", n->name, n->type, text);
}

hk_status hk_infer_fail(const hk_infer *in, hk_status st, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    st = fail_node(in->ctx, in->node, st, format, args);
    va_end(args);
    return st;
}

hk_status hk_eval_fail(const hk_eval *e, hk_status st, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    st = fail_node(e->ctx, e->node, st, format, args);
    va_end(args);
    return st;
}

hk_value *hk_in(const hk_node *n, int32_t i)
{
    return i < n->in_count ? n->in[i] : NULL;
}

hk_value *hk_out(const hk_node *n, int32_t i)
{
    return i < n->out_count ? n->out[i] : NULL;
}

const hk_tensor *hk_known(const hk_node *n, int32_t i)
{
    hk_value *v = hk_in(n, i);
    return v ? v->data : NULL;
}

/* Where the file declares a shape and inference finds another, inference knows better about unknown dimensions, but two
 * different numbers are a contradiction. */
hk_status hk_infer_output(hk_infer *in, int32_t i, hk_dtype dtype, const hk_shape *shape)
{
    hk_value *v = hk_out(in->node, i);
    if (!v)
        return HK_OK;
    if (v->dtype != HK_DTYPE_NONE && v->dtype != dtype)
        return hk_infer_fail(in, HK_STATUS_INVALID, "output '%s' is declared %s but computes to %s", v->name,
                             hk_dtype_name(v->dtype), hk_dtype_name(dtype));
    hk_shape merged = *shape;
    if (shape->rank < 0)
        merged = v->shape;
    else if (v->shape.rank >= 0) {
        bool fits = v->shape.rank == shape->rank;
        for (int32_t d = 0; d < shape->rank && fits; d++) {
            if (shape->dim[d] < 0)
                merged.dim[d] = v->shape.dim[d];
            else
                fits = v->shape.dim[d] < 0 || v->shape.dim[d] == shape->dim[d];
        }
        if (!fits) {
            hk_shape_text a, b;
            return hk_infer_fail(in, HK_STATUS_INVALID, "output '%s' is declared %s but computes to %s", v->name,
                                 hk_shape_print(&v->shape, &a), hk_shape_print(shape, &b));
        }
    }
    int64_t count = hk_shape_known(&merged) ? hk_shape_count(&merged) : 0;
    if (count < 0 || count > INT32_MAX) {
        hk_shape_text a;
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED,
                             "output '%s' has shape %s: a tensor is limited to 2^31 - 1 elements", v->name,
                             hk_shape_print(&merged, &a));
    }
    v->dtype = dtype;
    v->shape = merged;
    return HK_OK;
}

/* Loops are inferred until their shapes settle, so loops inside each other could be inferred any number of times. */
static bool may_infer(hk_graph *g)
{
    enum { ALWAYS = 1 << 20, PER_VALUE = 64 };
    while (g->outer)
        g = g->outer;
    return ++g->inferred_nodes < ALWAYS + (uint64_t)PER_VALUE * g->value_count;
}

hk_status hk_node_infer(hk_graph *g, hk_node *n)
{
    hk_infer in = {.ctx = g->ctx, .graph = g, .node = n};
    const hk_op *op = n->op;
    if (!may_infer(g))
        return hk_infer_fail(
            &in, HK_STATUS_UNSUPPORTED,
            "finding shapes takes too long: loops inside each other change the shapes of what they carry");
    if (!op)
        return hk_infer_fail(&in, HK_STATUS_UNSUPPORTED, "operator is not supported");
    if (n->in_count < op->in_min || (op->in_max >= 0 && n->in_count > op->in_max))
        return hk_infer_fail(&in, HK_STATUS_INVALID, "has %d inputs, expected %d to %d", (int)n->in_count, op->in_min,
                             op->in_max < 0 ? 9999 : op->in_max);
    if (n->out_count < op->out_min || (op->out_max >= 0 && n->out_count > op->out_max))
        return hk_infer_fail(&in, HK_STATUS_INVALID, "has %d outputs, expected %d to %d", (int)n->out_count,
                             op->out_min, op->out_max < 0 ? 9999 : op->out_max);
    for (int32_t i = 0; i < op->in_min; i++)
        if (!n->in[i])
            return hk_infer_fail(&in, HK_STATUS_INVALID, "required input %d is absent", (int)i);
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && n->in[i]->dtype == HK_DTYPE_NONE)
            return hk_infer_fail(&in, HK_STATUS_INVALID, "the element type of input '%s' is unknown", n->in[i]->name);
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && hk_dtype_is_list(n->in[i]->dtype) && !(op->flags & HK_OP_LIST))
            return hk_infer_fail(&in, HK_STATUS_INVALID, "input '%s' is of type %s, expected a tensor", n->in[i]->name,
                                 hk_dtype_name(n->in[i]->dtype));
    HK_TRY(op->infer(&in));
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && n->out[i]->dtype == HK_DTYPE_NONE)
            return hk_infer_fail(&in, HK_STATUS_UNSUPPORTED, "output %d ('%s') was asked for and is not computed",
                                 (int)i, n->out[i]->name);
    return HK_OK;
}

/* ---- evaluation */

hk_tensor *hk_eval_output(hk_eval *e, int32_t i, hk_dtype dtype, const hk_shape *shape)
{
    if (!hk_out(e->node, i))
        return NULL;
    return e->out[i] = hk_tensor_new(e->arena, dtype, shape);
}

hk_status hk_node_eval(hk_context *ctx, hk_arena *arena, const hk_node *n, const hk_tensor *const *in, hk_tensor **out,
                       const struct hk_step *step)
{
    hk_eval e = {.ctx = ctx, .arena = arena, .node = n, .in = in, .out = out, .step = step};
    if (!n->op || !n->op->eval)
        return hk_eval_fail(&e, HK_STATUS_UNSUPPORTED, "has no host evaluator");
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && !in[i])
            return hk_eval_fail(&e, HK_STATUS_INTERNAL, "input %d has no contents", (int)i);
    HK_TRY(n->op->eval(&e));
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && !out[i])
            return hk_eval_fail(&e, HK_STATUS_INTERNAL, "output %d was not evaluated", (int)i);
    return HK_OK;
}

int64_t hk_node_view_offset(const hk_node *n)
{
    if (!n->op || !(n->op->flags & HK_OP_VIEW))
        return -1;
    return n->op->view_offset ? n->op->view_offset(n) : 0;
}

/* ---- building */

hk_status hk_build(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_value *const *in, int32_t in_count,
                   hk_value **outs, int32_t out_count)
{
    const hk_op *op = hk_op_find(NULL, type, INT16_MAX, NULL);
    if (!op)
        return hk_fail(g->ctx, HK_STATUS_INTERNAL, "there is no operator '%s' to build", type);
    size_t count = 0;
    while (attrs && attrs[count].name)
        count++;
    void *decoded = NULL;
    HK_TRY(hk_op_decode(g->ctx, g->arena, op, attrs, count, &decoded));
    hk_node *n = hk_graph_node(g, NULL, type, op, decoded, in, in_count, out_count);
    if (!n)
        return HK_STATUS_OUT_OF_MEMORY;
    n->opset = INT16_MAX;
    HK_TRY(hk_node_infer(g, n));
    for (int32_t i = 0; i < out_count; i++)
        outs[i] = n->out[i];
    return HK_OK;
}

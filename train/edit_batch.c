/*
 * A batch size that an exporter fixed becomes open again: in the inputs, in constants of Reshape, and where a constant
 * was expanded to it. What the new graph makes of two other batch sizes is the proof; without it the model is refused.
 */
#include <string.h>

#include "ops/infer.h"
#include "train/edit.h"

#define ADVICE "export it with a dynamic batch axis (dynamic_shapes, or dynamic_axes of the older exporter)"

typedef struct opening {
    hk_graph *g;
    int64_t batch;     /* as it was fixed */
    size_t count;      /* values before */
    hk_shape *was;     /* by value id */
    bool *depends;     /* by value id: on an input */
    hk_value *extents; /* int64 [1]: the batch of a run, made on demand */
} opening;

static hk_value *constant_like(hk_graph *g, const hk_value *v, const int64_t *x, int64_t count)
{
    hk_tensor *t = hk_tensor_new(g->arena, HK_INT64, &(hk_shape){.rank = 1, .dim = {count}});
    for (int64_t i = 0; t && i < count; i++)
        hk_set_int(t, i, x[i]);
    return t ? hk_graph_constant(g, v->name, t) : NULL;
}

/* A node of the model's opset before n in the list. */
static hk_status add_node(opening *o, const hk_node *n, const char *type, const hk_attr_value *attrs,
                          hk_value *const *in, int32_t count, hk_value **out)
{
    const hk_op *op = hk_op_find(NULL, type, n->opset, NULL);
    void *decoded = NULL;
    size_t given = 0;
    while (attrs && attrs[given].name)
        given++;
    if (!op)
        return hk_fail(o->g->ctx, HK_STATUS_UNSUPPORTED, "opset %d has no %s", (int)n->opset, type);
    HK_TRY(hk_op_decode(o->g->ctx, o->g->arena, op, attrs, given, &decoded));
    const char *name = hk_arena_format(o->g->arena, "%s.batch.%s", n->name, type);
    hk_node *made = name ? hk_graph_node(o->g, name, type, op, decoded, in, count, 1) : NULL;
    if (!made)
        return hk_out_of_memory(o->g->ctx, "an edit");
    made->opset = n->opset;
    *out = made->out[0];
    return hk_node_infer(o->g, made);
}

/* ---- Reshape */

/* Samples lie behind one another: then a first dimension that is a multiple of their number grows with it. */
static bool is_outermost(const hk_value *x)
{
    bool known = x->shape.rank > 0 && x->shape.dim[0] < 0;
    for (int32_t d = 1; known && d < x->shape.rank; d++)
        known = x->shape.dim[d] >= 0;
    return known;
}

static hk_status open_reshape(opening *o, hk_node *n)
{
    const hk_tensor *shape = hk_known(n, 1);
    const hk_value *x = n->in[0];
    int64_t to[HK_MAX_RANK] = {0};
    bool open = false;
    if (!shape || n->in[1]->kind == HK_VALUE_ACTIVATION || hk_tensor_count(shape) < 1 ||
        hk_tensor_count(shape) > HK_MAX_RANK)
        return HK_OK;
    const int64_t rank = hk_tensor_count(shape);
    for (int64_t i = 0; i < rank; i++) {
        to[i] = hk_get_int(shape, i);
        open |= to[i] == -1;
    }
    bool whole = to[0] > 0 && to[0] % o->batch == 0;
    if (!whole || !is_outermost(x))
        return HK_OK;
    if (open && !(o->was[x->id].rank > 0 && o->was[x->id].dim[0] == to[0]))
        return HK_OK;
    to[0] = open ? 0 : -1; /* 0: as in the input */
    hk_value *v = constant_like(o->g, n->in[1], to, rank);
    if (!v)
        return hk_out_of_memory(o->g->ctx, "an edit");
    n->in[1] = v;
    return HK_OK;
}

/* ---- constants as large as the batch beside values that depend on it */

static hk_status find_extent(opening *o, const hk_node *n)
{
    hk_value *shape = NULL, *first = NULL;
    if (o->extents)
        return HK_OK;
    HK_TRY(add_node(o, n, "Shape", NULL, &o->g->inputs[0], 1, &shape));
    const hk_tensor *zero = hk_tensor_new(o->g->arena, HK_INT64, &(hk_shape){.rank = 1, .dim = {1}});
    if (!zero || !(first = hk_graph_constant(o->g, "batch_axis", zero)))
        return hk_out_of_memory(o->g->ctx, "an edit");
    return add_node(o, n, "Gather", NULL, (hk_value *[]){shape, first}, 2, &o->extents);
}

/* The row of a constant all of whose rows are equal, which an exporter expanded; NULL: they are not. */
static hk_value *single_row(opening *o, const hk_value *v)
{
    hk_shape row = v->shape;
    row.dim[0] = 1;
    const int64_t bytes = v->data ? hk_tensor_bytes(v->data) / HK_MAX(v->shape.dim[0], 1) : 0;
    hk_tensor *t = bytes ? hk_tensor_new(o->g->arena, v->dtype, &row) : NULL;
    for (int64_t i = 0; t && i < v->shape.dim[0]; i++)
        if (memcmp((const char *)v->data->data + i * bytes, v->data->data, (size_t)bytes) != 0)
            t = NULL;
    if (!t)
        return NULL;
    memcpy(t->data, v->data->data, (size_t)bytes);
    hk_value *made = hk_graph_constant(o->g, v->name, t);
    if (made)
        made->kind = v->kind == HK_VALUE_PARAMETER ? HK_VALUE_PARAMETER : HK_VALUE_CONSTANT;
    return made;
}

static hk_status open_operand(opening *o, hk_node *n, int32_t k)
{
    const hk_attr_value axis[] = {HK_SET_INT("axis", 0), {0}};
    hk_value *v = n->in[k], *from = v, *rest = NULL, *to = NULL;
    if (v->producer && !strcmp(v->producer->type, "Expand") && !v->producer->domain)
        from = v->producer->in[0];
    if (from == v && v->shape.dim[0] > 1)
        from = single_row(o, v);
    if (!from || (from->shape.rank == v->shape.rank && from->shape.dim[0] != 1))
        return hk_fail(o->g->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): operand '%s' holds numbers for %lld samples each", n->name, n->type, v->name,
                       (long long)o->batch);
    HK_TRY(find_extent(o, n));
    if (!(rest = constant_like(o->g, v, v->shape.dim + 1, v->shape.rank - 1)))
        return hk_out_of_memory(o->g->ctx, "an edit");
    HK_TRY(add_node(o, n, "Concat", axis, (hk_value *[]){o->extents, rest}, 2, &to));
    HK_TRY(add_node(o, n, "Expand", NULL, (hk_value *[]){from, to}, 2, &n->in[k]));
    n->in[k]->shape = v->shape; /* inference alone does not see through the extents */
    n->in[k]->shape.dim[0] = -1;
    return HK_OK;
}

static hk_status open_operands(opening *o, hk_node *n)
{
    const int64_t *axis = hk_node_attr(n, "axis");
    const hk_value *x = NULL;
    bool concat = !strcmp(n->type, "Concat");
    if ((!concat && !(n->op->flags & HK_OP_POINTWISE)) || (concat && axis && *axis == 0))
        return HK_OK;
    for (int32_t k = 0; k < n->in_count && !x; k++)
        if (n->in[k] && n->in[k]->id < o->count && o->depends[n->in[k]->id] && n->in[k]->shape.dim[0] < 0)
            x = n->in[k];
    for (int32_t k = 0; x && k < n->in_count; k++) {
        const hk_value *v = n->in[k];
        if (v && v->id < o->count && !o->depends[v->id] && v->shape.rank == x->shape.rank && v->shape.rank > 1 &&
            v->shape.dim[0] == o->batch && (concat || o->batch > 1))
            HK_TRY(open_operand(o, n, k));
    }
    return HK_OK;
}

/* ---- the whole graph */

static hk_status open_node(opening *o, hk_node *n)
{
    bool depends = false;
    for (int32_t k = 0; k < n->in_count; k++)
        depends |= n->in[k] && n->in[k]->graph == o->g && (n->in[k]->id >= o->count || o->depends[n->in[k]->id]);
    depends |= n->body_count > 0;
    if (!depends)
        return HK_OK;
    if (!strcmp(n->type, "Reshape") && !n->domain)
        HK_TRY(open_reshape(o, n));
    HK_TRY(open_operands(o, n));
    for (int32_t i = 0; i < n->out_count; i++) {
        if (!n->out[i])
            continue;
        o->depends[n->out[i]->id] = true;
        n->out[i]->dtype = HK_DTYPE_NONE;
        n->out[i]->shape = HK_SHAPE_UNKNOWN;
        n->out[i]->data = NULL;
        n->out[i]->list = NULL;
    }
    return hk_node_infer(o->g, n);
}

/* With any batch, outputs must be what they were but for their first dimension, which follows it. */
static hk_status prove(const opening *o, int64_t times)
{
    hk_graph *g = NULL;
    HK_TRY(hk_graph_clone(o->g, &g));
    for (size_t i = 0; i < g->input_count; i++)
        if (g->inputs[i]->shape.rank > 0)
            g->inputs[i]->shape.dim[0] = o->batch * times;
    hk_status st = hk_infer_graph(g);
    for (size_t i = 0; st == HK_OK && i < g->output_count; i++) {
        hk_shape want = o->was[o->g->outputs[i]->id];
        hk_shape_text a, b;
        if (want.rank > 0)
            want.dim[0] *= times;
        if (!hk_shape_equal(&want, &g->outputs[i]->shape))
            st = hk_fail(g->ctx, HK_STATUS_UNSUPPORTED, "output '%s' would be %s with %lld samples, expected %s",
                         g->outputs[i]->name, hk_shape_print(&g->outputs[i]->shape, &a), (long long)(o->batch * times),
                         hk_shape_print(&want, &b));
    }
    hk_graph_destroy(&g);
    return st;
}

static hk_status open_all(opening *o)
{
    hk_graph *g = o->g;
    for (size_t i = 0; i < g->input_count; i++) {
        hk_value *v = g->inputs[i];
        o->depends[v->id] = v->shape.rank > 0;
        if (v->shape.rank <= 0)
            continue;
        v->shape.dim[0] = -1;
        v->dim_names[0] = "batch";
    }
    size_t nodes = g->node_count;
    for (size_t i = 0; i < nodes; i++)
        HK_TRY(open_node(o, g->nodes[i]));
    for (size_t i = 0; i < g->output_count; i++)
        if (g->outputs[i]->shape.rank > 0 && g->outputs[i]->shape.dim[0] < 0)
            g->outputs[i]->dim_names[0] = "batch";
    HK_TRY(hk_graph_prune(g));
    HK_TRY(prove(o, 2));
    return prove(o, 3);
}

hk_status hk_edit_open_batch(hk_graph *g, hk_arena *arena, bool *changed)
{
    opening o = {.g = g, .count = g->value_count};
    for (size_t i = 0; i < g->input_count; i++) {
        const hk_shape *s = &g->inputs[i]->shape;
        if (s->rank <= 0)
            continue;
        if (s->dim[0] <= 0)
            return HK_OK; /* open already */
        if (o.batch && o.batch != s->dim[0])
            return hk_fail(
                g->ctx, HK_STATUS_UNSUPPORTED,
                "inputs '%s' and '%s' have %lld and %lld samples: which dimension is the batch is not known; " ADVICE,
                g->inputs[0]->name, g->inputs[i]->name, (long long)o.batch, (long long)s->dim[0]);
        o.batch = s->dim[0];
    }
    o.was = hk_arena_array(arena, o.count + 1, sizeof *o.was);
    o.depends = hk_arena_array(arena, o.count + 1, sizeof *o.depends);
    if (!o.was || !o.depends)
        return hk_out_of_memory(g->ctx, "an edit");
    if (!o.batch)
        return HK_OK;
    for (size_t i = 0; i < o.count; i++)
        o.was[i] = g->values[i]->shape;
    *changed = true;
    hk_status st = open_all(&o);
    if (st != HK_OK && st != HK_STATUS_OUT_OF_MEMORY)
        return hk_fail_prefix(g->ctx, HK_STATUS_UNSUPPORTED,
                              "the file fixes a batch of %lld in a way that cannot be mended (" ADVICE ")",
                              (long long)o.batch);
    return st;
}

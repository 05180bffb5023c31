/* What edits share, and the unsharing of small parameters. */
#include "train/edit.h"

#include <string.h>

#include "ops/roles.h"
#include "train/layers.h"

/* ---- tensors */

const hk_tensor *hk_edit_uniform(hk_graph *g, hk_dtype dtype, const hk_shape *shape, double bound, uint64_t seed,
                                 const char *name)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    hk_tensor *values = hk_tensor_new(g->arena, HK_FLOAT32, shape);
    if (!values)
        return NULL;
    hk_initial_values(key, name, values->data, hk_tensor_count(values), HK_INITIAL_UNIFORM, bound);
    return hk_tensor_as(g->arena, values, dtype);
}

hk_value *hk_edit_parameter(hk_graph *g, const char *name, const hk_tensor *data)
{
    const hk_shape shape = hk_tensor_shape(data);
    hk_value *v = hk_graph_value(g, name, HK_VALUE_PARAMETER, data->dtype, &shape);
    if (v)
        v->data = data;
    return v;
}

hk_value *hk_edit_own(hk_graph *g, const hk_uses *uses, hk_node *n, int32_t k)
{
    hk_value *v = n->in[k];
    int operands = 0;
    for (int32_t i = 0; i < n->in_count; i++)
        operands += n->in[i] == v;
    if (uses->count[v->id] == 1 && operands == 1 && !uses->is_output[v->id])
        return v;
    hk_value *copy = hk_edit_parameter(g, v->name, v->data);
    if (copy) {
        copy->kind = v->kind;
        n->in[k] = copy;
    }
    return copy;
}

/* ---- inference of what changed */

static bool forget(hk_node *n, bool *changed)
{
    for (int32_t i = 0; i < n->out_count; i++) {
        hk_value *v = n->out[i];
        if (!v)
            continue;
        changed[v->id] = true;
        v->dtype = HK_DTYPE_NONE;
        v->shape = HK_SHAPE_UNKNOWN;
        v->data = NULL;
        v->list = NULL;
    }
    return true;
}

hk_status hk_edit_infer(hk_graph *g, bool *roots, hk_arena *arena)
{
    hk_uses uses;
    HK_TRY(hk_graph_sort(g));
    HK_TRY(hk_graph_uses(g, arena, &uses));
    bool *due = hk_arena_array(arena, g->node_count + 1, sizeof *due);
    if (!due)
        return hk_out_of_memory(g->ctx, "an edit");
    for (size_t i = 0; i < g->value_count; i++)
        for (uint32_t k = 0; roots[i] && k < uses.count[i]; k++)
            due[uses.users[i][k]->id] = true;
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        if (!due[i] || !forget(n, roots))
            continue;
        HK_TRY(hk_node_infer(g, n));
        for (int32_t o = 0; o < n->out_count; o++)
            for (uint32_t k = 0; n->out[o] && k < uses.count[n->out[o]->id]; k++)
                due[uses.users[n->out[o]->id][k]->id] = true;
    }
    return HK_OK;
}

hk_status hk_edit_behind(hk_graph *g, hk_value *v, hk_value **before)
{
    hk_value *b = hk_graph_value(g, v->name, HK_VALUE_ACTIVATION, v->dtype, &v->shape);
    hk_node *n = v->producer;
    if (!b)
        return HK_STATUS_OUT_OF_MEMORY;
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] == v)
            n->out[i] = b;
    b->producer = n;
    v->producer = NULL;
    *before = b;
    return HK_OK;
}

/* ---- sharing */

/* A vector, with extents of 1 around it where an operator broadcasts it over images; a matrix of one row is a matrix.
 */
static bool is_small(const hk_value *v)
{
    int32_t wide = 0;
    for (int32_t d = 0; d < v->shape.rank; d++)
        wide += v->shape.dim[d] != 1;
    return v->kind == HK_VALUE_PARAMETER && v->data && (v->shape.rank == 1 || (v->shape.rank > 2 && wide <= 1));
}

static bool takes_parameter(const hk_node *n, int32_t k)
{
    return hk_node_is_parametric(n, k) || hk_node_hands_on(n, k);
}

/* TorchScript's exporter hands a merged tensor on through Identity nodes: each becomes a parameter. */
static void end_identities(hk_uses *uses, hk_value *v, bool *changed)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < uses->count[v->id]; i++) {
        hk_node *n = uses->users[v->id][i];
        hk_value *out = n->out[0];
        if (strcmp(n->type, "Identity") != 0 || n->domain || !out || uses->is_output[out->id]) {
            uses->users[v->id][kept++] = n;
            continue;
        }
        out->kind = HK_VALUE_PARAMETER;
        out->data = v->data;
        out->producer = NULL;
        n->out[0] = NULL;
        n->out_count = n->in_count = 0;
        *changed = true;
    }
    uses->count[v->id] = kept;
}

/* Uses that are no parameter's keep the old value, which then is a constant. */
static hk_status separate(hk_graph *g, const hk_uses *uses, hk_value *v, bool *changed)
{
    size_t parametric = 0, other = uses->is_output[v->id];
    for (uint32_t i = 0; i < uses->count[v->id]; i++) {
        const hk_node *n = uses->users[v->id][i];
        bool direct = false;
        for (int32_t k = 0; k < n->in_count; k++)
            if (n->in[k] == v) {
                direct = true;
                *(takes_parameter(n, k) ? &parametric : &other) += 1;
            }
        other += !direct; /* inside a body */
    }
    if (parametric + (other > 0) < 2)
        return HK_OK;
    bool taken = other > 0;
    for (uint32_t i = 0; i < uses->count[v->id]; i++) {
        hk_node *n = uses->users[v->id][i];
        for (int32_t k = 0; k < n->in_count; k++) {
            if (n->in[k] != v || !takes_parameter(n, k))
                continue;
            hk_value *own = taken ? hk_edit_parameter(g, v->name, v->data) : v;
            if (!own)
                return HK_STATUS_OUT_OF_MEMORY;
            n->in[k] = own;
            taken = *changed = true;
        }
    }
    if (other)
        v->kind = HK_VALUE_CONSTANT;
    return HK_OK;
}

static void drop_emptied(hk_graph *g)
{
    size_t kept = 0;
    for (size_t i = 0; i < g->node_count; i++)
        if (g->nodes[i]->in_count || g->nodes[i]->out_count)
            g->nodes[kept++] = g->nodes[i];
    g->node_count = kept;
}

hk_status hk_edit_unshare(hk_graph *g, hk_arena *arena, bool *changed)
{
    hk_uses uses;
    size_t count = g->value_count;
    HK_TRY(hk_graph_uses(g, arena, &uses));
    for (size_t i = 0; i < count; i++)
        if (is_small(g->values[i]) && uses.count[i] > 1)
            end_identities(&uses, g->values[i], changed);
    for (size_t i = 0; i < count; i++)
        if (is_small(g->values[i]))
            HK_TRY(separate(g, &uses, g->values[i], changed));
    drop_emptied(g);
    return hk_graph_sort(g);
}

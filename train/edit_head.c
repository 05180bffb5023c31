/* The last layer of a classifier: found from an output backwards, and replaced. */
#include <math.h>
#include <string.h>

#include "ops/op.h"
#include "train/edit.h"

enum { STEPS = 16 }; /* between an output and the layer */

static bool is_one_of(const hk_node *n, const char *const *types)
{
    for (; !n->domain && *types; types++)
        if (!strcmp(n->type, *types))
            return true;
    return false;
}

bool hk_edit_find_stored(hk_node *n, int32_t k, hk_node **use, int32_t *operand, bool *flipped)
{
    static const char *const passing[] = {"Identity", "Cast", "Transpose", NULL};
    for (int i = 0; i < STEPS; i++) {
        hk_value *v = k < n->in_count ? n->in[k] : NULL;
        if (!v || v->shape.rank < 0)
            return false;
        if (v->kind == HK_VALUE_CONSTANT || v->kind == HK_VALUE_PARAMETER) {
            *use = n;
            *operand = k;
            return v->data && hk_dtype_is_float(v->dtype);
        }
        if (!v->producer || !is_one_of(v->producer, passing))
            return false;
        n = v->producer;
        k = 0;
        *flipped ^= v->shape.rank == 2 && !strcmp(n->type, "Transpose");
    }
    return false;
}

static bool is_pointwise_conv(const hk_node *n)
{
    const int64_t *group = hk_node_attr(n, "group");
    const hk_value *w = n->in_count > 1 ? n->in[1] : NULL;
    if (!w || w->shape.rank < 3 || (group && *group != 1))
        return false;
    for (int32_t d = 2; d < w->shape.rank; d++)
        if (w->shape.dim[d] != 1)
            return false;
    return true;
}

/* If n is a layer, describes it. */
static bool is_layer(hk_node *n, hk_head *h)
{
    const char *const types[] = {"Gemm", "MatMul", "Conv", NULL};
    bool flipped = false, ignored = false;
    if (!is_one_of(n, types) || (!strcmp(n->type, "Conv") && !is_pointwise_conv(n)) ||
        !hk_edit_find_stored(n, 1, &h->weight_use, &h->weight_operand, &flipped))
        return false;
    const int64_t *transposed = !strcmp(n->type, "Gemm") ? hk_node_attr(n, "transB") : NULL;
    if (strcmp(n->type, "Conv") != 0 && h->weight_use->in[h->weight_operand]->shape.rank != 2)
        return false;
    h->node = n;
    h->class_dim = !strcmp(n->type, "Conv") ? 0 : ((transposed && *transposed) != flipped) ? 0 : 1;
    if (n->in_count > 2 && n->in[2])
        hk_edit_find_stored(n, 2, &h->bias_use, &h->bias_operand, &ignored);
    return true;
}

/* The operand of a bias Add that is computed; the other is remembered as the bias. */
static hk_value *through_add(hk_node *n, hk_head *h)
{
    bool ignored = false;
    for (int32_t k = 0; k < 2; k++)
        if (!h->bias_use && hk_edit_find_stored(n, k, &h->bias_use, &h->bias_operand, &ignored))
            return n->in[1 - k];
    return NULL;
}

static hk_status find_output(const hk_graph *g, const char *name, hk_value **out)
{
    for (size_t i = 0; i < g->output_count; i++)
        if (!name || !strcmp(g->outputs[i]->name, name)) {
            *out = g->outputs[i];
            return HK_OK;
        }
    return hk_fail(g->ctx, HK_STATUS_USAGE, "the model has no output '%s'", name ? name : "");
}

hk_status hk_edit_find_head(const hk_graph *g, const char *output, hk_head *out)
{
    static const char *const passing[] = {"Softmax",     "LogSoftmax", "Sigmoid", "Identity",  "Cast",
                                          "Reshape",     "Flatten",    "Squeeze", "Unsqueeze", "GlobalAveragePool",
                                          "AveragePool", "ReduceMean", "Dropout", "Relu",      NULL};
    static const char *const sum[] = {"Add", NULL};
    hk_head h = {0};
    hk_value *v = NULL;
    HK_TRY(find_output(g, output, &v));
    const char *name = v->name;
    for (int i = 0; i < STEPS && v && v->producer && v->producer->in_count; i++) {
        hk_node *n = v->producer;
        if (is_layer(n, &h)) {
            *out = h;
            return HK_OK;
        }
        if (!is_one_of(n, passing) && !is_one_of(n, sum))
            return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (%s) stands before output '%s' where a linear layer (Gemm, MatMul or a 1x1 Conv "
                           "with constant weights) was expected",
                           n->name, n->type, name);
        v = is_one_of(n, sum) ? through_add(n, &h) : n->in[0];
    }
    return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                   "no linear layer (Gemm, MatMul or a 1x1 Conv with constant weights) makes output '%s'", name);
}

/* ---- replacing */

/* A tensor like the stored one but for one dimension, drawn anew. */
static hk_status renew(hk_graph *g, const hk_uses *uses, hk_node *n, int32_t k, int32_t dim, int64_t classes,
                       double bound, uint64_t seed, hk_value **out)
{
    hk_value *v = hk_edit_own(g, uses, n, k);
    if (!v)
        return HK_STATUS_OUT_OF_MEMORY;
    v->shape.dim[dim] = classes;
    v->data = hk_edit_uniform(g, v->dtype, &v->shape, bound, seed, v->name);
    if (!v->data)
        return hk_out_of_memory(g->ctx, "a new head");
    v->payload = NULL;
    v->kind = classes > 1 || hk_shape_count(&v->shape) > 1 ? HK_VALUE_PARAMETER : v->kind;
    *out = v;
    return HK_OK;
}

/* Reshapes between the layer and the output that name the old number of classes. */
static hk_status mend_reshapes(hk_graph *g, const char *output, const hk_node *layer, int64_t before, int64_t classes)
{
    hk_value *v = NULL;
    HK_TRY(find_output(g, output, &v));
    for (int i = 0; i < STEPS && v && v->producer && v->producer != layer && v->producer->in_count; i++) {
        hk_node *n = v->producer;
        const hk_tensor *shape = !strcmp(n->type, "Reshape") ? hk_known(n, 1) : NULL;
        const hk_shape dims = {.rank = 1, .dim = {shape ? hk_tensor_count(shape) : 0}};
        hk_tensor *to = NULL;
        for (int64_t k = 1; k < dims.dim[0]; k++) { /* the first is the batch */
            if (hk_get_int(shape, k) != before)
                continue;
            if (!to && !(to = hk_tensor_new(g->arena, HK_INT64, &dims)))
                return hk_out_of_memory(g->ctx, "a new head");
            for (int64_t d = 0; d < dims.dim[0]; d++)
                hk_set_int(to, d, d == k ? classes : hk_get_int(shape, d));
            break;
        }
        if (to && !(n->in[1] = hk_graph_constant(g, n->in[1]->name, to)))
            return hk_out_of_memory(g->ctx, "a new head");
        v = n->in[0];
        if (!strcmp(n->type, "Add") && (!v->producer || v->kind != HK_VALUE_ACTIVATION))
            v = n->in[1];
    }
    return HK_OK;
}

static hk_status check_output(const hk_graph *g, const char *output, int64_t classes)
{
    hk_value *v = NULL;
    hk_shape_text text;
    HK_TRY(find_output(g, output, &v));
    for (int32_t d = 0; d < v->shape.rank; d++)
        if (v->shape.dim[d] == classes || v->shape.dim[d] < 0)
            return HK_OK;
    return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                   "with %lld classes output '%s' still is %s: something behind the last layer fixes its size",
                   (long long)classes, v->name, hk_shape_print(&v->shape, &text));
}

hk_status hk_edit_new_head(hk_graph *g, const char *output, int64_t classes, uint64_t seed, hk_arena *arena,
                           hk_value **weight, hk_value **bias)
{
    hk_uses uses;
    hk_head h;
    hk_value *w = NULL, *b = NULL;
    HK_TRY(hk_edit_find_head(g, output, &h));
    HK_TRY(hk_graph_uses(g, arena, &uses));
    const hk_value *old = h.weight_use->in[h.weight_operand];
    const int64_t before = old->shape.dim[h.class_dim];
    const double bound = 1 / sqrt((double)HK_MAX(hk_shape_count(&old->shape) / HK_MAX(before, 1), 1));
    HK_TRY(renew(g, &uses, h.weight_use, h.weight_operand, h.class_dim, classes, bound, seed, &w));
    const hk_value *c = h.bias_use ? h.bias_use->in[h.bias_operand] : NULL;
    const int32_t last = c ? c->shape.rank - 1 : -1;
    if (last >= 0 && c->shape.dim[last] == before && hk_shape_count(&c->shape) == before)
        HK_TRY(renew(g, &uses, h.bias_use, h.bias_operand, last, classes, bound, seed, &b));
    HK_TRY(mend_reshapes(g, output, h.node, before, classes));
    bool *roots = hk_arena_array(arena, g->value_count + 1, sizeof *roots);
    if (!roots)
        return hk_out_of_memory(g->ctx, "a new head");
    roots[w->id] = true;
    if (b)
        roots[b->id] = true;
    hk_status st = hk_edit_infer(g, roots, arena);
    if (st != HK_OK)
        return hk_fail_prefix(g->ctx, st, "a head for %lld classes does not fit", (long long)classes);
    *weight = w;
    *bias = b;
    return check_output(g, output, classes);
}

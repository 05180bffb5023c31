/* Edits of what is trained alone: Dropout, low-rank adapters, BatchNormalization that an exporter folded. */
#include <math.h>
#include <string.h>

#include "ops/support/build.h"
#include "train/edit.h"

static hk_status add_derived(hk_graph *g, hk_derived_list *l, hk_derived d)
{
    if (!hk_arena_grow(g->arena, (void **)&l->v, l->count, &l->capacity, sizeof *l->v))
        return hk_out_of_memory(g->ctx, "an edit");
    l->v[l->count++] = d;
    return HK_OK;
}

/* ---- the way back */

static void add_product(const hk_derived *d, hk_tensor *t, const hk_tensor *a, const hk_tensor *b)
{
    const int64_t in = a->shape[0], rank = a->shape[1], out = b->shape[1];
    const float *x = a->data, *y = b->data;
    float *w = t->data;
    for (int64_t i = 0; i < in; i++)
        for (int64_t o = 0; o < out; o++) {
            double sum = 0;
            for (int64_t r = 0; r < rank; r++)
                sum += (double)x[i * rank + r] * (double)y[r * out + o];
            w[d->flipped ? o * in + i : i * out + o] += (float)(d->factor * sum);
        }
}

void hk_derive(const hk_derived *d, hk_tensor *t, const hk_tensor *const parts[4])
{
    if (!d->norm) {
        add_product(d, t, parts[0], parts[1]);
        return;
    }
    const int64_t channels = t->shape[0], inner = hk_tensor_count(t) / HK_MAX(channels, 1);
    float *w = t->data;
    for (int64_t c = 0; c < channels; c++) {
        double scale = hk_get_double(parts[0], c) / sqrt(hk_get_double(parts[3], c) + d->factor);
        if (d->shift)
            w[c] = (float)(((double)w[c] - hk_get_double(parts[2], c)) * scale + hk_get_double(parts[1], c));
        for (int64_t i = 0; !d->shift && i < inner; i++)
            w[c * inner + i] = (float)((double)w[c * inner + i] * scale);
    }
}

/* ---- Dropout */

hk_status hk_edit_dropout(hk_graph *g, const char *output, float ratio)
{
    hk_head h;
    hk_value *dropped = NULL;
    HK_TRY(hk_edit_find_head(g, output, &h));
    hk_value *in[] = {h.node->in[0], hk_graph_scalar(g, HK_FLOAT32, (double)ratio)};
    if (!in[1])
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_build(g, "Dropout", NULL, in, 2, &dropped, 1));
    h.node->in[0] = dropped;
    return hk_graph_sort(g);
}

/* ---- low-rank adapters */

/* The stored weight of n if n is a linear layer and nothing else uses it. */
static bool is_adaptable(const hk_uses *uses, hk_node *n, hk_value **weight, bool *flipped)
{
    bool gemm = !strcmp(n->type, "Gemm");
    hk_node *use = NULL;
    int32_t operand = 0;
    if (n->domain || (!gemm && strcmp(n->type, "MatMul") != 0) || !hk_edit_find_stored(n, 1, &use, &operand, flipped))
        return false;
    const int64_t *a = gemm ? hk_node_attr(n, "transA") : NULL, *b = gemm ? hk_node_attr(n, "transB") : NULL;
    hk_value *v = use->in[operand];
    *flipped ^= b && *b;
    *weight = v;
    for (const hk_value *at = n->in[1]; at != v; at = at->producer->in[0])
        if (uses->count[at->id] != 1)
            return false;
    return !(a && *a) && v->kind == HK_VALUE_PARAMETER && v->shape.rank == 2 && uses->count[v->id] == 1 &&
           n->in[0] != n->in[1] && n->in[0]->shape.rank != 1;
}

static hk_value *adapter(hk_graph *g, const hk_value *w, const char *what, int64_t rows, int64_t columns, double bound,
                         uint64_t seed)
{
    const hk_shape shape = {.rank = 2, .dim = {rows, columns}};
    const char *name = hk_arena_format(g->arena, "%s.%s", w->name, what);
    const hk_tensor *data = name ? hk_edit_uniform(g, w->dtype, &shape, bound, seed, name) : NULL;
    return data ? hk_edit_parameter(g, name, data) : NULL;
}

static hk_status adapt(hk_graph *g, hk_node *n, const hk_value *w, bool flipped, int64_t rank, double factor,
                       uint64_t seed, hk_derived *d)
{
    const int64_t in = w->shape.dim[flipped], out = w->shape.dim[!flipped];
    const float *alpha = !strcmp(n->type, "Gemm") ? hk_node_attr(n, "alpha") : NULL;
    hk_value *a = adapter(g, w, "lora_A", in, rank, 1 / sqrt((double)HK_MAX(in, 1)), seed);
    hk_value *b = adapter(g, w, "lora_B", rank, out, 0, seed);
    hk_value *result = n->out[0], *before = NULL, *y = NULL;
    if (!a || !b)
        return hk_out_of_memory(g->ctx, "adapters");
    HK_TRY(hk_build_binary(g, "MatMul", n->in[0], a, &y));
    HK_TRY(hk_build_binary(g, "MatMul", y, b, &y));
    HK_TRY(hk_build_scalar(g, "Mul", y, factor * (alpha ? (double)*alpha : 1), &y));
    HK_TRY(hk_edit_behind(g, result, &before));
    HK_TRY(hk_build_binary(g, "Add", before, y, &y));
    hk_graph_take_over(y, result);
    *d = (struct hk_derived){.parts = {a, b}, .factor = factor, .flipped = flipped};
    return HK_OK;
}

hk_status hk_edit_lora(hk_graph *g, const hk_graph *written, hk_value *const heads[2], int64_t rank, double alpha,
                       uint64_t seed, hk_arena *arena, hk_derived_list *out)
{
    hk_uses uses;
    size_t nodes = g->node_count, before = out->count, values = g->value_count;
    HK_TRY(hk_graph_uses(g, arena, &uses));
    for (size_t i = 0; i < nodes; i++) {
        hk_node *n = g->nodes[i];
        hk_value *w = NULL;
        bool flipped = false;
        hk_derived d;
        if (n->in_count < 2 || !is_adaptable(&uses, n, &w, &flipped) || (heads[0] && w->id == heads[0]->id))
            continue;
        HK_TRY(adapt(g, n, w, flipped, rank, alpha / (double)rank, seed, &d));
        d.target = written->values[w->id];
        HK_TRY(add_derived(g, out, d));
    }
    if (out->count == before)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "the model has no Gemm or MatMul with a weight of its own for adapters");
    for (size_t i = 0; i < values; i++)
        if (g->values[i]->kind == HK_VALUE_PARAMETER && !(heads[0] && i == heads[0]->id) &&
            !(heads[1] && i == heads[1]->id))
            g->values[i]->kind = HK_VALUE_CONSTANT;
    return hk_graph_sort(g);
}

/* ---- BatchNormalization */

static bool is_own_constant(const hk_uses *uses, const hk_node *n, int32_t k)
{
    const hk_value *v = k < n->in_count ? n->in[k] : NULL;
    return v && v->kind == HK_VALUE_PARAMETER && v->data && uses->count[v->id] == 1 && !uses->is_output[v->id];
}

hk_status hk_edit_find_folded(const hk_graph *g, hk_arena *arena, hk_folded **out, size_t *count)
{
    hk_uses uses;
    hk_folded *list = hk_arena_array(arena, g->node_count + 1, sizeof *list);
    *count = 0;
    if (!list)
        return hk_out_of_memory(g->ctx, "an edit");
    HK_TRY(hk_graph_uses(g, arena, &uses));
    for (size_t i = 0; i < g->node_count; i++) {
        hk_node *n = g->nodes[i];
        if (n->domain || strcmp(n->type, "Conv") != 0 || n->out[0]->shape.rank < 3 || !is_own_constant(&uses, n, 1) ||
            !is_own_constant(&uses, n, 2))
            continue;
        bool normalized = false;
        for (uint32_t k = 0; k < uses.count[n->out[0]->id]; k++)
            normalized |= strstr(uses.users[n->out[0]->id][k]->type, "Normalization") != NULL;
        if (!normalized)
            list[(*count)++] = (hk_folded){.conv = n};
    }
    *out = list;
    return *count ? HK_OK
                  : hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                            "the model has no convolution with weight and bias of its own behind which a "
                            "BatchNormalization could have been");
}

hk_status hk_edit_measure(hk_graph *g, const hk_folded *list, size_t count)
{
    g->output_count = 0;
    for (size_t i = 0; i < count; i++) {
        hk_value *y = g->nodes[list[i].conv->id]->out[0], *mean = NULL, *off = NULL, *square = NULL, *variance = NULL;
        int64_t axes[HK_MAX_RANK] = {0};
        for (int32_t d = 2; d < y->shape.rank; d++)
            axes[d - 1] = d;
        HK_TRY(hk_build_reduce(g, "ReduceMean", y, axes, y->shape.rank - 1, &mean));
        HK_TRY(hk_build_binary(g, "Sub", y, mean, &off));
        HK_TRY(hk_build_binary(g, "Mul", off, off, &square));
        HK_TRY(hk_build_reduce(g, "ReduceMean", square, axes, y->shape.rank - 1, &variance));
        if (!hk_graph_add_output(g, mean) || !hk_graph_add_output(g, variance))
            return HK_STATUS_OUT_OF_MEMORY;
    }
    return hk_graph_prune(g);
}

static hk_value *norm_tensor(hk_graph *g, const hk_value *w, const char *what, hk_value_kind kind, const hk_folded *f,
                             double (*value)(const hk_folded *f, int64_t c))
{
    const hk_shape shape = {.rank = 1, .dim = {w->shape.dim[0]}};
    hk_tensor *t = hk_tensor_new(g->arena, w->dtype, &shape);
    const char *name = hk_arena_format(g->arena, "%s.bn.%s", w->name, what);
    hk_value *v = t && name ? hk_edit_parameter(g, name, t) : NULL;
    for (int64_t c = 0; v && c < shape.dim[0]; c++)
        hk_set_double(t, c, value(f, c));
    if (v)
        v->kind = kind;
    return v;
}

#define EPSILON 1e-5 /* ONNX's and PyTorch's default */

static double mean_of(const hk_folded *f, int64_t c)
{
    return f->mean ? hk_get_double(f->mean, c) : 0;
}

static double variance_of(const hk_folded *f, int64_t c)
{
    return f->variance ? hk_get_double(f->variance, c) : 1;
}

static double deviation_of(const hk_folded *f, int64_t c)
{
    return sqrt(variance_of(f, c) + EPSILON);
}

static hk_status add_norm(hk_graph *g, const hk_folded *f, hk_value *parts[4])
{
    hk_node *conv = g->nodes[f->conv->id];
    hk_value *w = conv->in[1], *y = conv->out[0], *before = NULL;
    const hk_op *op = hk_op_find(NULL, "BatchNormalization", conv->opset, NULL);
    void *attrs = NULL;
    if (!op)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED, "opset %d has no BatchNormalization", (int)conv->opset);
    parts[0] = norm_tensor(g, w, "weight", HK_VALUE_PARAMETER, f, deviation_of);
    parts[1] = norm_tensor(g, w, "bias", HK_VALUE_PARAMETER, f, mean_of);
    parts[2] = norm_tensor(g, w, "running_mean", HK_VALUE_CONSTANT, f, mean_of);
    parts[3] = norm_tensor(g, w, "running_var", HK_VALUE_CONSTANT, f, variance_of);
    if (!parts[0] || !parts[1] || !parts[2] || !parts[3])
        return hk_out_of_memory(g->ctx, "an edit");
    HK_TRY(hk_op_decode(g->ctx, g->arena, op, NULL, 0, &attrs));
    HK_TRY(hk_edit_behind(g, y, &before));
    hk_value *in[] = {before, parts[0], parts[1], parts[2], parts[3]};
    const char *name = hk_arena_format(g->arena, "%s.bn", conv->name);
    hk_node *n = name ? hk_graph_node(g, name, "BatchNormalization", op, attrs, in, 5, 1) : NULL;
    if (!n)
        return hk_out_of_memory(g->ctx, "an edit");
    n->opset = conv->opset;
    HK_TRY(hk_node_infer(g, n));
    hk_graph_take_over(n->out[0], y);
    return HK_OK;
}

hk_status hk_edit_batchnorms(hk_graph *g, const hk_graph *written, const hk_folded *list, size_t count,
                             hk_derived_list *out)
{
    for (size_t i = 0; i < count; i++) {
        hk_node *conv = g->nodes[list[i].conv->id];
        hk_value *parts[4] = {0}, *weight = conv->in[1], *bias = conv->in[2];
        HK_TRY(add_norm(g, &list[i], parts));
        hk_derived d = {.parts = {parts[0], parts[1], parts[2], parts[3]}, .factor = EPSILON, .norm = true};
        if (!written)
            continue;
        bias->kind = HK_VALUE_CONSTANT; /* what the normalization subtracts again */
        d.target = written->values[weight->id];
        HK_TRY(add_derived(g, out, d));
        d.target = written->values[bias->id];
        d.shift = true;
        HK_TRY(add_derived(g, out, d));
    }
    return hk_graph_sort(g);
}

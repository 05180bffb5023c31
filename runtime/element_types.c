/* Element types without a kernel: 16-bit floats are computed in float32, everything else runs on the host. */
#include "runtime/element_types.h"

#include "ops/infer.h"
#include "ops/op.h"
#include "ops/support/gemm.h"

/* Inputs that kernels read, and outputs. */
static hk_value *kernel_value(const hk_node *n, int32_t i)
{
    if (i >= n->in_count)
        return n->out[i - n->in_count];
    return i < 32 && n->op->host_inputs >> i & 1u ? NULL : n->in[i];
}

static bool moves(const hk_node *n)
{
    return (n->op->flags & HK_OP_ANY_TYPE) || hk_node_view_offset(n) >= 0;
}

static bool takes(const hk_node *n, hk_dtype t, bool storage16)
{
    if (hk_dtype_is_half(t)) {
        bool views = hk_node_view_offset(n) >= 0 || ((n->op->flags & HK_OP_VIEW) && !n->op->lower);
        return views || (storage16 && (moves(n) || n->op->flags & HK_OP_HALF));
    }
    bool plain = t == HK_FLOAT32 || t == HK_BOOL || (hk_dtype_is_integer(t) && hk_dtype_bits(t) >= 8);
    return plain || moves(n);
}

hk_dtype hk_node_lacks(const hk_node *n, const hk_device_info *device)
{
    bool storage16 = device->caps >> HK_CAP_STORAGE16 & 1u;
    if (!n->op || n->op->flags & (HK_OP_CONTROL | HK_OP_HOST | HK_OP_LIST))
        return HK_DTYPE_NONE;
    for (int32_t i = 0; i < n->in_count + n->out_count; i++) {
        const hk_value *v = kernel_value(n, i);
        if (v && !takes(n, v->dtype, storage16))
            return v->dtype;
    }
    return n->op->lacks ? n->op->lacks(n) : HK_DTYPE_NONE;
}

/* ---- 16-bit floats in float32 */

typedef struct widening {
    hk_graph *g;
    hk_value **wide; /* by value id: the float32 copy of an input, made once */
} widening;

static hk_status cast(hk_graph *g, hk_value *from, hk_dtype to, hk_value **out)
{
    const hk_attr_value attrs[] = {HK_SET_INT("to", to), {0}};
    return hk_build(g, "Cast", attrs, &from, 1, out, 1);
}

static bool is_wanted(const hk_node *n)
{
    bool half = false;
    if (!n->op || !n->op->lower || n->op->flags & (HK_OP_CONTROL | HK_OP_HOST | HK_OP_HALF) || moves(n))
        return false;
    for (int32_t i = 0; i < n->in_count; i++) {
        const hk_value *v = kernel_value(n, i);
        half |= v && hk_dtype_is_half(v->dtype);
    }
    return half;
}

/* Products with weights of bfloat16 that matrix units multiply as they are. */
static bool multiplies_bfloats(const hk_graph *g, const hk_node *n)
{
    return g->matrix_types >> HK_MATRIX_BFLOAT16 & 1u && hk_is_product(n) && n->in[0]->dtype == HK_BFLOAT16 &&
           n->in[1]->data && !n->in[1]->producer && hk_product_is_large(n);
}

static hk_status widen_inputs(widening *w, hk_node *n)
{
    bool bfloats = multiplies_bfloats(w->g, n);
    for (int32_t i = 0; i < n->in_count; i++) {
        hk_value *v = kernel_value(n, i);
        if (!v || !hk_dtype_is_half(v->dtype))
            continue;
        if (bfloats && i < 2) {
            HK_TRY(hk_build(w->g, "hk.Widened", NULL, &v, 1, &n->in[i], 1));
            continue;
        }
        hk_value **wide = &w->wide[v->id];
        if (!*wide)
            HK_TRY(cast(w->g, v, HK_FLOAT32, wide));
        n->in[i] = *wide;
    }
    return HK_OK;
}

/* The node computes float32; a cast behind it defines what it defined. */
static hk_status narrow_outputs(widening *w, hk_node *n)
{
    hk_value **before = hk_arena_array(w->g->arena, (size_t)n->out_count + 1, sizeof *before);
    if (!before)
        return hk_out_of_memory(w->g->ctx, "a graph");
    for (int32_t i = 0; i < n->out_count; i++) {
        if (!n->out[i] || !hk_dtype_is_half(n->out[i]->dtype))
            continue;
        before[i] = n->out[i];
        n->out[i] = hk_graph_value(w->g, NULL, HK_VALUE_ACTIVATION, HK_DTYPE_NONE, NULL);
        if (!n->out[i])
            return HK_STATUS_OUT_OF_MEMORY;
        n->out[i]->producer = n;
    }
    HK_TRY(hk_node_infer(w->g, n));
    for (int32_t i = 0; i < n->out_count; i++) {
        hk_value *v = before[i], *rounded = NULL;
        if (!v)
            continue;
        if (n->out[i]->dtype == v->dtype) { /* an attribute says so */
            n->out[i]->producer = NULL;
            n->out[i] = v;
            continue;
        }
        HK_TRY(cast(w->g, n->out[i], v->dtype, &rounded));
        hk_node *caster = rounded->producer;
        rounded->producer = NULL;
        caster->out[0] = v;
        v->producer = caster;
    }
    return HK_OK;
}

static hk_status widen_halves(hk_graph *g)
{
    widening w = {.g = g};
    size_t count = g->node_count;
    bool any = false;
    for (size_t i = 0; i < count; i++)
        any |= is_wanted(g->nodes[i]);
    if (!any)
        return HK_OK;
    w.wide = hk_arena_array(g->arena, g->value_count + 1, sizeof(hk_value *));
    if (!w.wide)
        return hk_out_of_memory(g->ctx, "a graph");
    for (size_t i = 0; i < count; i++) {
        hk_node *n = g->nodes[i];
        if (!is_wanted(n))
            continue;
        HK_TRY(widen_inputs(&w, n));
        HK_TRY(narrow_outputs(&w, n));
    }
    return hk_graph_sort(g);
}

/* ---- weights of types without a kernel are converted when a plan is made, not in every run */

uint32_t hk_usable_matrix_types(const hk_gpu *gpu, hk_precision precision)
{
    /* Integer sums are exact; those of floats on matrix units are not strict. */
    uint32_t strict = 1u << HK_MATRIX_INT8;
    return hk_gpu_matrix_types(gpu) & (precision > HK_PRECISION_STRICT ? UINT32_MAX : strict);
}

hk_status hk_settle_element_types(hk_graph *g, const hk_device_info *device)
{
    bool any = false;
    HK_TRY(widen_halves(g));
    for (size_t i = 0; i < g->node_count; i++) {
        bool folded = false;
        if (hk_node_lacks(g->nodes[i], device) != HK_DTYPE_NONE)
            HK_TRY(hk_fold_large(g, g->nodes[i], &folded));
        any |= folded;
    }
    return any ? hk_graph_prune(g) : HK_OK;
}

/*
 * RNN, LSTM and GRU, and their gradients. Backpropagation through time is hk.RNNGrad and its like: from the gate sums
 * and states that the forward saved they find the gradient of every gate sum. All the rest is products and sums over
 * all steps at once, which the backward rule builds as nodes.
 */
#include <string.h>

#include "ops/support/recurrent.h"

/* ---- inference */

typedef struct expected {
    int32_t input, rank;
    int64_t dim[4];
    const char *what;
} expected;

static hk_status check_shape(hk_infer *in, const expected *want)
{
    const hk_value *v = hk_in(in->node, want->input);
    hk_shape_text found, wanted;
    if (!v || v->shape.rank < 0)
        return HK_OK;
    hk_shape s = {.rank = want->rank};
    bool fits = v->shape.rank == want->rank;
    for (int32_t d = 0; d < want->rank; d++) {
        s.dim[d] = want->dim[d];
        fits = fits && (v->shape.dim[d] < 0 || s.dim[d] < 0 || v->shape.dim[d] == s.dim[d]);
    }
    if (fits)
        return HK_OK;
    return hk_infer_fail(in, HK_STATUS_INVALID, "%s '%s' has shape %s, expected %s", want->what, v->name,
                         hk_shape_print(&v->shape, &found), hk_shape_print(&s, &wanted));
}

static int64_t times(int64_t a, int64_t b)
{
    return a < 0 || b < 0 ? -1 : a * b;
}

/* The states' shape: [D, B, H], or [B, D, H] with layout 1. */
static hk_shape state_shape(const hk_recurrent *p)
{
    hk_shape s = {.rank = 3, .dim = {p->directions, p->batch, p->hidden}};
    if (p->batch_first) {
        s.dim[0] = p->batch;
        s.dim[1] = p->directions;
    }
    return s;
}

static hk_status check_inputs(hk_infer *in, const hk_recurrent *p)
{
    const hk_node *n = in->node;
    const hk_recurrent_attrs *a = n->attrs;
    int64_t d = p->directions, h = p->hidden, gh = times(p->gates, h);
    hk_shape state = state_shape(p);
    const expected list[] = {
        {HK_RNN_W, 3, {d, gh, p->input}, "weight"},
        {HK_RNN_R, 3, {d, gh, h}, "recurrent weight"},
        {HK_RNN_B, 2, {d, times(2, gh)}, "bias"},
        {HK_RNN_LENGTHS, 1, {p->batch}, "list of lengths"},
        {HK_RNN_H0, 3, {state.dim[0], state.dim[1], state.dim[2]}, "initial state"},
        {HK_RNN_C0, 3, {state.dim[0], state.dim[1], state.dim[2]}, "initial cell"},
        {HK_RNN_P, 2, {d, times(3, h)}, "peephole weight"},
    };
    if (a->hidden_size && h >= 0 && a->hidden_size != h)
        return hk_infer_fail(in, HK_STATUS_INVALID, "hidden_size is %lld, but R has rows of %lld",
                             (long long)a->hidden_size, (long long)h);
    for (size_t i = 0; i < HK_COUNT(list); i++)
        HK_TRY(check_shape(in, &list[i]));
    const hk_value *x = n->in[HK_RNN_X], *lengths = hk_in(n, HK_RNN_LENGTHS);
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected a float type", x->name,
                             hk_dtype_name(x->dtype));
    if (lengths && lengths->dtype != HK_INT32)
        return hk_infer_fail(in, HK_STATUS_INVALID, "lengths '%s' are %s, expected int32", lengths->name,
                             hk_dtype_name(lengths->dtype));
    for (int32_t i = 1; i < n->in_count; i++)
        if (n->in[i] && i != HK_RNN_LENGTHS && n->in[i]->dtype != x->dtype)
            return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected %s like '%s'", n->in[i]->name,
                                 hk_dtype_name(n->in[i]->dtype), hk_dtype_name(x->dtype), x->name);
    return HK_OK;
}

static hk_status read_node(hk_infer *in, hk_recurrent *p)
{
    const hk_value *x = in->node->in[HK_RNN_X], *r = in->node->in[HK_RNN_R];
    hk_shape_text text;
    for (int32_t i = 0; i < 3; i++)
        if (in->node->in[i]->shape.rank >= 0 && in->node->in[i]->shape.rank != 3)
            return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' has shape %s, expected three dimensions",
                                 in->node->in[i]->name, hk_shape_print(&in->node->in[i]->shape, &text));
    const char *wrong = hk_recurrent_read(in->graph->arena, in->node, &x->shape, &r->shape, p);
    if (wrong)
        return hk_infer_fail(in, HK_STATUS_INVALID, "%s", wrong);
    return check_inputs(in, p);
}

/* [rows, D, each] */
static hk_shape row_shape(const hk_recurrent *p, int64_t each)
{
    return (hk_shape){.rank = 3, .dim = {times(p->steps, p->batch), p->directions, each}};
}

static hk_status infer(hk_infer *in)
{
    hk_recurrent p;
    HK_TRY(read_node(in, &p));
    hk_dtype t = in->node->in[HK_RNN_X]->dtype;
    hk_shape y = {.rank = 4, .dim = {p.steps, p.directions, p.batch, p.hidden}}, state = state_shape(&p);
    if (p.batch_first)
        y = (hk_shape){.rank = 4, .dim = {p.batch, p.steps, p.directions, p.hidden}};
    hk_shape sums = row_shape(&p, times(p.gates, p.hidden)), row = row_shape(&p, p.hidden);
    HK_TRY(hk_infer_output(in, HK_RNN_Y, t, &y));
    HK_TRY(hk_infer_output(in, HK_RNN_YH, t, &state));
    HK_TRY(hk_infer_output(in, HK_RNN_YC, t, &state));
    HK_TRY(hk_infer_output(in, HK_RNN_SUMS, t, &sums));
    HK_TRY(hk_infer_output(in, HK_RNN_ENTRY, t, &row));
    return hk_infer_output(in, HK_RNN_EXTRA, t, &row);
}

static hk_status infer_grad(hk_infer *in)
{
    hk_recurrent p;
    HK_TRY(read_node(in, &p));
    hk_dtype t = in->node->in[HK_RNN_X]->dtype;
    hk_shape state = state_shape(&p), sums = row_shape(&p, times(p.gates, p.hidden)), row = row_shape(&p, p.hidden);
    for (int32_t i = HK_RNN_G_SUMS; i <= HK_RNN_G_ENTRY; i++)
        if (!hk_in(in->node, i))
            return hk_infer_fail(in, HK_STATUS_INVALID, "input %d, which the forward saves, is absent", (int)i);
    HK_TRY(hk_infer_output(in, HK_RNN_D_SUMS, t, &sums));
    HK_TRY(hk_infer_output(in, HK_RNN_D_LINEAR, t, &sums));
    HK_TRY(hk_infer_output(in, HK_RNN_D_H0, t, &state));
    HK_TRY(hk_infer_output(in, HK_RNN_D_C0, t, &state));
    return hk_infer_output(in, HK_RNN_D_CELLS, t, &row);
}

/* ---- the backward rule */

typedef struct rule {
    hk_gradient *g;
    hk_graph *graph;
    hk_node *n;
    hk_recurrent p;
    hk_value *out[HK_RNN_D_OUTPUTS];
    int64_t rows;
} rule;

static hk_status reshape(const rule *r, hk_value *x, const hk_shape *s, hk_value **y)
{
    const hk_attr_value attrs[] = {HK_SET_INT("allowzero", 1), {0}};
    hk_value *shape = hk_graph_ints(r->graph, s->dim, s->rank);
    if (!shape)
        return hk_out_of_memory(r->graph->ctx, "a gradient");
    return hk_build(r->graph, "Reshape", attrs, (hk_value *[]){x, shape}, 2, y, 1);
}

static hk_status as_matrix(const rule *r, hk_value *x, int64_t rows, hk_value **y)
{
    int64_t count = hk_shape_count(&x->shape);
    return reshape(r, x, &(hk_shape){.rank = 2, .dim = {rows, rows ? count / rows : 0}}, y);
}

/* Columns from .. to - 1 of the last dimension. */
static hk_status columns(const rule *r, hk_value *x, int64_t from, int64_t to, hk_value **y)
{
    hk_value *start = hk_graph_ints(r->graph, &from, 1), *end = hk_graph_ints(r->graph, &to, 1),
             *axis = hk_graph_ints(r->graph, (const int64_t[]){-1}, 1);
    if (!start || !end || !axis)
        return hk_out_of_memory(r->graph->ctx, "a gradient");
    return hk_build(r->graph, "Slice", NULL, (hk_value *[]){x, start, end, axis}, 4, y, 1);
}

static hk_status concat(const rule *r, hk_value *const *list, int32_t count, hk_value **y)
{
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 1), {0}};
    return hk_build(r->graph, "Concat", attrs, list, count, y, 1);
}

static hk_status sum_rows(const rule *r, hk_value *x, hk_value **y)
{
    const hk_attr_value attrs[] = {HK_SET_INT("keepdims", 0), {0}};
    hk_value *axis = hk_graph_ints(r->graph, (const int64_t[]){0}, 1);
    if (!axis)
        return hk_out_of_memory(r->graph->ctx, "a gradient");
    return hk_build(r->graph, "ReduceSum", attrs, (hk_value *[]){x, axis}, 2, y, 1);
}

/* a' b of every direction: a [rows, D, M], b [rows, D, N] -> [D, M, N]. */
static hk_status over_rows(const rule *r, hk_value *a, hk_value *b, hk_value **y)
{
    const hk_attr_value transposed[] = {HK_SET_INT("transA", 1), {0}};
    const hk_attr_value swap[] = {HK_SET_INTS("perm", ((const int64_t[]){1, 0, 2}), 3), {0}};
    hk_value *both[] = {a, b};
    for (int32_t i = 0; i < 2; i++) {
        hk_shape s = both[i]->shape;
        s.dim[0] = 1;
        s.dim[1] = r->rows;
        if (r->p.directions == 1)
            HK_TRY(reshape(r, both[i], &s, &both[i]));
        else
            HK_TRY(hk_build(r->graph, "Transpose", swap, &both[i], 1, &both[i], 1));
    }
    return hk_build(r->graph, "hk.Gemm", transposed, both, 2, y, 1);
}

/* dX = dS W and dW = dS' X, all directions at once. */
static hk_status input_gradients(const rule *r)
{
    hk_value *x = r->n->in[HK_RNN_X], *w = r->n->in[HK_RNN_W], *sums = r->out[HK_RNN_D_SUMS], *flat, *y;
    int64_t width = r->p.directions * r->p.gates * r->p.hidden;
    HK_TRY(reshape(r, sums, &(hk_shape){.rank = 2, .dim = {r->rows, width}}, &sums));
    if (hk_gradient_wanted(r->g, x)) {
        HK_TRY(reshape(r, w, &(hk_shape){.rank = 2, .dim = {width, r->p.input}}, &flat));
        HK_TRY(hk_build(r->graph, "MatMul", NULL, (hk_value *[]){sums, flat}, 2, &y, 1));
        HK_TRY(reshape(r, y, &x->shape, &y));
        HK_TRY(hk_gradient_add(r->g, x, y));
    }
    if (!hk_gradient_wanted(r->g, w))
        return HK_OK;
    const hk_attr_value transposed[] = {HK_SET_INT("transA", 1), {0}};
    HK_TRY(as_matrix(r, x, r->rows, &flat));
    HK_TRY(hk_build(r->graph, "hk.Gemm", transposed, (hk_value *[]){sums, flat}, 2, &y, 1));
    HK_TRY(reshape(r, y, &w->shape, &y));
    return hk_gradient_add(r->g, w, y);
}

/* What the product with R got as its gradient. */
static hk_value *linear_gradient(const rule *r)
{
    return r->out[HK_RNN_D_LINEAR] ? r->out[HK_RNN_D_LINEAR] : r->out[HK_RNN_D_SUMS];
}

/* dR: what came in front of R is the state, and r h for the candidate of a GRU that resets first. */
static hk_status recurrent_gradient(const rule *r)
{
    hk_value *target = r->n->in[HK_RNN_R], *entry = r->n->out[HK_RNN_ENTRY], *d = linear_gradient(r), *y;
    int64_t h = r->p.hidden;
    if (!hk_gradient_wanted(r->g, target))
        return HK_OK;
    if (!r->p.reset_first) {
        HK_TRY(over_rows(r, d, entry, &y));
        return hk_gradient_add(r->g, target, y);
    }
    hk_value *part[2];
    HK_TRY(columns(r, d, 0, 2 * h, &part[0]));
    HK_TRY(columns(r, d, 2 * h, 3 * h, &part[1]));
    HK_TRY(over_rows(r, part[0], entry, &part[0]));
    HK_TRY(over_rows(r, part[1], r->n->out[HK_RNN_EXTRA], &part[1]));
    HK_TRY(concat(r, part, 2, &y));
    return hk_gradient_add(r->g, target, y);
}

static hk_status bias_gradient(const rule *r)
{
    hk_value *target = hk_in(r->n, HK_RNN_B), *part[2], *y;
    if (!hk_gradient_wanted(r->g, target))
        return HK_OK;
    HK_TRY(sum_rows(r, r->out[HK_RNN_D_SUMS], &part[0]));
    part[1] = part[0];
    if (r->out[HK_RNN_D_LINEAR])
        HK_TRY(sum_rows(r, r->out[HK_RNN_D_LINEAR], &part[1]));
    HK_TRY(concat(r, part, 2, &y));
    return hk_gradient_add(r->g, target, y);
}

/* Peepholes look at the cell that enters (input and forget gate) or leaves (output gate). */
static hk_status peephole_gradient(const rule *r)
{
    hk_value *target = hk_in(r->n, HK_RNN_P), *part[3], *y;
    hk_value *cell[3] = {r->n->out[HK_RNN_EXTRA], r->out[HK_RNN_D_CELLS], r->n->out[HK_RNN_EXTRA]};
    if (r->p.cell != HK_CELL_LSTM || !hk_gradient_wanted(r->g, target))
        return HK_OK;
    for (int64_t i = 0; i < 3; i++) {
        HK_TRY(columns(r, r->out[HK_RNN_D_SUMS], i * r->p.hidden, (i + 1) * r->p.hidden, &part[i]));
        HK_TRY(hk_build(r->graph, "Mul", NULL, (hk_value *[]){part[i], cell[i]}, 2, &part[i], 1));
        HK_TRY(sum_rows(r, part[i], &part[i]));
    }
    HK_TRY(concat(r, part, 3, &y));
    return hk_gradient_add(r->g, target, y);
}

static void drop_output(hk_node *n, int32_t i)
{
    n->out[i]->producer = NULL;
    n->out[i] = NULL;
}

/* An output of the gradient that nobody wants is not asked for. */
static hk_status build_grad(rule *r)
{
    static const char *const types[] = {"hk.RNNGrad", "hk.LSTMGrad", "hk.GRUGrad"};
    const hk_recurrent_attrs *a = r->n->attrs;
    hk_node *n = r->n;
    hk_value *in[HK_RNN_G_INPUTS] = {NULL};
    for (int32_t i = 0; i < HK_RNN_INPUTS; i++)
        in[i] = hk_in(n, i);
    in[HK_RNN_G_SUMS] = n->out[HK_RNN_SUMS];
    in[HK_RNN_G_ENTRY] = n->out[HK_RNN_ENTRY];
    in[HK_RNN_G_EXTRA] = n->out[HK_RNN_EXTRA];
    for (int32_t i = 0; i < 3; i++)
        in[HK_RNN_G_Y + i] = hk_gradient_of(r->g, hk_out(n, i));
    hk_attr_value attrs[12] = {HK_SET_FLOAT("clip", a->clip), HK_SET_STRING("direction", a->direction),
                               HK_SET_INT("input_forget", a->input_forget),
                               HK_SET_INT("linear_before_reset", a->linear_before_reset),
                               HK_SET_INT("layout", a->layout)};
    size_t count = 5;
    if (a->activations.v)
        attrs[count++] = (hk_attr_value){.name = "activations", .kind = HK_ATTR_STRINGS, .strings = a->activations};
    if (a->activation_alpha.v)
        attrs[count++] = (hk_attr_value){
            .name = "activation_alpha", .kind = HK_ATTR_FLOATS, .floats = a->activation_alpha};
    if (a->activation_beta.v)
        attrs[count++] = (hk_attr_value){
            .name = "activation_beta", .kind = HK_ATTR_FLOATS, .floats = a->activation_beta};
    HK_TRY(hk_build(r->graph, types[r->p.cell], attrs, in, HK_RNN_G_INPUTS, r->out, HK_RNN_D_OUTPUTS));
    hk_node *grad = r->out[0]->producer;
    const bool wanted[HK_RNN_D_OUTPUTS] = {true, r->p.cell == HK_CELL_GRU && !r->p.reset_first,
                                           hk_gradient_wanted(r->g, hk_in(n, HK_RNN_H0)),
                                           r->p.cell == HK_CELL_LSTM && hk_gradient_wanted(r->g, hk_in(n, HK_RNN_C0)),
                                           r->p.cell == HK_CELL_LSTM && hk_gradient_wanted(r->g, hk_in(n, HK_RNN_P))};
    for (int32_t i = 0; i < HK_RNN_D_OUTPUTS; i++)
        if (!wanted[i]) {
            drop_output(grad, i);
            r->out[i] = NULL;
        }
    return HK_OK;
}

/* What the gradient needs of the forward, and no output that nobody asked for before. */
static hk_status save_for_backward(const rule *r)
{
    hk_node *n = r->n;
    bool asked[HK_RNN_SUMS];
    for (int32_t i = 0; i < HK_RNN_SUMS; i++)
        asked[i] = hk_out(n, i) != NULL;
    if (!hk_node_want_outputs(n, HK_RNN_OUTPUTS))
        return HK_STATUS_OUT_OF_MEMORY;
    for (int32_t i = 0; i < HK_RNN_SUMS; i++)
        if (!asked[i])
            drop_output(n, i);
    if (r->p.cell == HK_CELL_RNN)
        drop_output(n, HK_RNN_EXTRA);
    return hk_node_infer(r->graph, n);
}

static hk_status backward(hk_gradient *g, hk_node *n)
{
    rule r = {.g = g, .graph = hk_gradient_graph(g), .n = n};
    const char *wrong = hk_recurrent_read(r.graph->arena, n, &n->in[HK_RNN_X]->shape, &n->in[HK_RNN_R]->shape, &r.p);
    if (wrong || r.p.steps < 0 || r.p.batch < 0 || r.p.hidden < 0)
        return hk_fail(r.graph->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s): the gradient needs known shapes", n->name,
                       n->type);
    for (int32_t i = HK_RNN_SUMS; i < n->out_count; i++)
        if (hk_gradient_of(g, n->out[i]))
            return hk_fail(r.graph->ctx, HK_STATUS_UNSUPPORTED,
                           "node '%s' (%s): the loss depends on '%s', which is saved for the gradient and has none",
                           n->name, n->type, n->out[i]->name);
    r.rows = r.p.steps * r.p.batch;
    HK_TRY(save_for_backward(&r));
    HK_TRY(build_grad(&r));
    HK_TRY(input_gradients(&r));
    HK_TRY(recurrent_gradient(&r));
    HK_TRY(bias_gradient(&r));
    HK_TRY(peephole_gradient(&r));
    if (r.out[HK_RNN_D_H0])
        HK_TRY(hk_gradient_add(g, hk_in(n, HK_RNN_H0), r.out[HK_RNN_D_H0]));
    if (r.out[HK_RNN_D_C0])
        HK_TRY(hk_gradient_add(g, hk_in(n, HK_RNN_C0), r.out[HK_RNN_D_C0]));
    return HK_OK;
}

/* ---- the table */

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}

CASES(
    rnn_cases, "f32[4,3,5] f32[1,6,5] f32[1,6,6]", "f32[4,3,5] f32[1,6,5] f32[1,6,6] f32[1,12] ;; out=2 gradall",
    "f32[3,2,5] f32[2,8,5] f32[2,8,8] f32[2,16] i32={3,1} f32[2,2,8] ; direction=\"bidirectional\" ; out=2 gradall",
    "f32[2,3,5] f32[1,7,5] f32[1,7,7] f32[1,14] i32={0,2} f32[2,1,7] ; direction=\"reverse\" layout=1 ; out=2 gradall",
    "f32[3,2,4] f32[2,4,4] f32[2,4,4] ; direction=\"bidirectional\" activations=[\"Affine\",\"ScaledTanh\"] "
    "activation_alpha=[0.5,1.5] activation_beta=[0.25,0.75]",
    "f32[3,2,4]+ f32[1,4,4]+ f32[1,4,4]+ ; activations=[\"softplus\"] clip=9.0",
    "f32[3,2,4] f32[1,4,4] f32[1,4,4] ; activations=[\"Softsign\"] clip=0.5",
    "f32[3,2,4] f32[1,4,4] f32[1,4,4] ; activations=[\"Relu\"]",
    "f32[3,2,4] f32[1,4,4] f32[1,4,4] ; activations=[\"LeakyRelu\"] activation_alpha=[-0.25]",
    "f32[3,2,4] f32[1,4,4] f32[1,4,4] ; activations=[\"ThresholdedRelu\"] activation_alpha=[0.25]",
    "f32[3,2,4] f32[1,4,4] f32[1,4,4] ; activations=[\"Elu\"]",
    "f32[3,2,4] f32[1,4,4] f32[1,4,4] ; activations=[\"HardSigmoid\"]",
    "f32[0,2,4] f32[1,4,4] f32[1,4,4] - - f32[1,2,4] ;; out=2 nograd",
    "f32[3,0,4] f32[1,4,4] f32[1,4,4] ;; out=2 nograd", "f32[1,9,33] f32[1,70,33] f32[1,70,70] ;; nograd");
CASES(lstm_cases, "f16[4,3,5] f16[1,24,5] f16[1,24,6] ;; out=3 nograd tol=1e-3",
      "f64[4,3,5] f64[1,24,5] f64[1,24,6] ;; out=3 nograd", "f32[4,3,5] f32[1,24,5] f32[1,24,6]",
      "f32[4,3,5] f32[1,24,5] f32[1,24,6] f32[1,48] - f32[1,3,6] f32[1,3,6] ;; out=3 gradall",
      "f32[3,2,5] f32[2,32,5] f32[2,32,8] f32[2,64] i32={3,1} f32[2,2,8] f32[2,2,8] f32[2,24] ; "
      "direction=\"bidirectional\" ; out=3 gradall",
      "f32[2,3,5] f32[1,16,5] f32[1,16,4] f32[1,32] i32={2,0} f32[2,1,4] f32[2,1,4] f32[1,12] ; direction=\"reverse\" "
      "layout=1 input_forget=1 ; out=3 gradall",
      "f32[3,2,5] f32[1,16,5] f32[1,16,4] f32[1,32] ; clip=0.5 activations=[\"HardSigmoid\",\"Softsign\",\"Affine\"] "
      "activation_alpha=[0.3,2.0] activation_beta=[0.4]; out=3 gradall",
      "f32[5,1,20] f32[1,256,20] f32[1,256,64] f32[1,512] ;; out=3 nograd",
      "f32[2,13,9] f32[2,320,9] f32[2,320,80] f32[2,640] ; direction=\"bidirectional\" ; out=3 nograd",
      "f32[2,6,7] f32[1,1600,7] f32[1,1600,400] ;; out=2 nograd",
      "f32[3,600,4] f32[1,16,4] f32[1,16,4] f32[1,32] ;; out=3 nograd",
      "f32[0,2,4] f32[1,16,4] f32[1,16,4] ;; out=3 nograd");
CASES(gru_cases, "f32[4,3,5] f32[1,18,5] f32[1,18,6]",
      "f32[4,3,5] f32[1,18,5] f32[1,18,6] f32[1,36] - f32[1,3,6] ; linear_before_reset=1 ; out=2 gradall",
      "f32[3,2,5] f32[2,24,5] f32[2,24,8] f32[2,48] i32={3,1} f32[2,2,8] ; direction=\"bidirectional\" ; out=2 gradall",
      "f32[3,2,5] f32[2,24,5] f32[2,24,8] f32[2,48] i32={1,3} f32[2,2,8] ; direction=\"bidirectional\" "
      "linear_before_reset=1 ; out=2 gradall",
      "f32[2,3,5] f32[1,12,5] f32[1,12,4] f32[1,24] i32={2,0} f32[2,1,4] ; direction=\"reverse\" layout=1 ; out=2 "
      "gradall",
      "f32[3,2,5] f32[1,12,5] f32[1,12,4] f32[1,24] ; clip=0.7 activations=[\"HardSigmoid\",\"ScaledTanh\"] "
      "linear_before_reset=1; out=2 gradall",
      "f32[5,1,20] f32[1,192,20] f32[1,192,64] f32[1,384] ; linear_before_reset=1 ; out=2 nograd",
      "f32[2,9,7] f32[1,900,7] f32[1,900,300] ;; nograd");

/* Gradients on the device, on inputs of any kind: what a forward would save is random here. */
CASES(rnn_grad_cases,
      "f32[3,2,5] f32[2,8,5] f32[2,8,8] f32[2,16] i32={3,1} f32[2,2,8] - - f32[6,2,8] f32[6,2,8] - f32[3,2,2,8] "
      "f32[2,2,8] ; direction=\"bidirectional\" ; out=3 nograd",
      "f32[1,9,5] f32[1,70,5] f32[1,70,70] - - - - - f32[9,1,70] f32[9,1,70] - f32[1,1,9,70] ;; nograd");
CASES(
    lstm_grad_cases,
    "f32[3,2,5] f32[2,32,5] f32[2,32,8] f32[2,64] i32={3,1} f32[2,2,8] f32[2,2,8] f32[2,24] f32[6,2,32] f32[6,2,8] "
    "f32[6,2,8] f32[3,2,2,8] f32[2,2,8] f32[2,2,8] ; direction=\"bidirectional\" ; out=5 nograd",
    "f32[3,9,5] f32[1,1600,5] f32[1,1600,400] - - - - - f32[27,1,1600] f32[27,1,400] f32[27,1,400] f32[3,1,9,400] ; "
    "layout=0 ; out=4 nograd",
    "f32[2,3,5] f32[1,24,5] f32[1,24,6] - - - - - f32[6,1,24] f32[6,1,6] f32[6,1,6] f32[2,3,1,6] ; layout=1 ; nograd");
CASES(gru_grad_cases,
      "f32[2,600,5] f32[1,12,5] f32[1,12,4] - - - - - f32[1200,1,12] f32[1200,1,4] f32[1200,1,4] f32[2,1,600,4] ; "
      "linear_before_reset=1 ; out=3 nograd",
      "f32[3,2,5] f32[2,24,5] f32[2,24,8] f32[2,48] i32={3,1} f32[2,2,8] - - f32[6,2,24] f32[6,2,8] f32[6,2,8] "
      "f32[3,2,2,8] f32[2,2,8] ; direction=\"bidirectional\" ; out=3 nograd",
      "f32[3,2,5] f32[1,24,5] f32[1,24,8] f32[1,48] - - - - f32[6,1,24] f32[6,1,8] f32[6,1,8] f32[3,1,2,8] ; "
      "linear_before_reset=1 ; out=3 nograd",
      "f32[3,9,5] f32[1,900,5] f32[1,900,300] - - - - - f32[27,1,900] f32[27,1,300] f32[27,1,300] f32[3,1,9,300] ; "
      "linear_before_reset=1 ; out=2 nograd");

#define FORWARD(name, first, inputs, cases_)                                                                           \
    {                                                                                                                  \
        .type = name, .since = first, .in_min = 3, .in_max = inputs, .out_min = 1, .out_max = HK_RNN_OUTPUTS,          \
        .parameters = 0x8e, .attrs_bytes = sizeof(hk_recurrent_attrs), .attrs = hk_recurrent_attr_list,                \
        .infer = infer, .eval = hk_recurrent_eval, .lower = hk_recurrent_lower, .backward = backward, .cases = cases_  \
    }
#define GRADIENT(name, cases_)                                                                                         \
    {                                                                                                                  \
        .type = name, .since = 1, .in_min = 3, .in_max = HK_RNN_G_INPUTS, .out_min = 1, .out_max = HK_RNN_D_OUTPUTS,   \
        .attrs_bytes = sizeof(hk_recurrent_attrs), .attrs = hk_recurrent_attr_list, .infer = infer_grad,               \
        .eval = hk_recurrent_grad_eval, .lower = hk_recurrent_grad_lower, .cases = cases_                              \
    }

const hk_op hk_ops_recurrent[] = {
    FORWARD("RNN", 1, 6, rnn_cases),
    FORWARD("LSTM", 1, 8, lstm_cases),
    FORWARD("GRU", 1, 6, gru_cases),
    GRADIENT("hk.RNNGrad", rnn_grad_cases),
    GRADIENT("hk.LSTMGrad", lstm_grad_cases),
    GRADIENT("hk.GRUGrad", gru_grad_cases),
    {0},
};

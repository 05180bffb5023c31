/*
 * Products of quantized tensors: MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv; the results are int32, or
 * rescaled and rounded half to even. Matrix units multiply the bytes where the device's take them and the product is
 * large. Everything else expands: operands less their zero points are whole numbers within +-255, which float32 kernels
 * multiply exactly (ops/support/quantize.h).
 */
#include <math.h>
#include <string.h>

#include "ops/op.h"
#include "ops/support/build.h"
#include "ops/support/choice.h"
#include "ops/support/conv_geometry.h"
#include "ops/support/gemm.h"
#include "ops/support/quantize.h"

static const hk_attr conv_list[] = {
    {.name = "auto_pad", .kind = HK_ATTR_STRING, .offset = offsetof(hk_conv_attrs, window.auto_pad), .text = "NOTSET"},
    {.name = "kernel_shape", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, window.kernel_shape)},
    {.name = "strides", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, window.strides)},
    {.name = "dilations", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, window.dilations)},
    {.name = "pads", .kind = HK_ATTR_INTS, .offset = offsetof(hk_conv_attrs, window.pads)},
    HK_INT_ATTR(hk_conv_attrs, group, 1),
    {0}};

/* Where a node has what; -1: it has none. */
typedef struct roles {
    int32_t a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero, bias;
    bool conv;
} roles;

static roles roles_of(const hk_node *n)
{
    bool conv = strstr(n->op->type, "Conv") != NULL;
    if (!strncmp(n->op->type, "QLinear", 7))
        return (roles){0, 1, 2, 3, 4, 5, 6, 7, conv ? 8 : -1, conv};
    return (roles){0, -1, 2, 1, -1, 3, -1, -1, -1, conv};
}

static hk_value *role(const hk_node *n, int32_t i)
{
    return i < 0 ? NULL : hk_in(n, i);
}

/* ---- shapes */

/* How the zero point or scale of an operand broadcasts with it: one for all, or one for each row of a matrix, column of
 * a matrix, or filter of a convolution. */
static bool spread_shape(const roles *r, bool second, const hk_shape *operand, const hk_shape *v, hk_shape *out)
{
    int32_t rank = operand->rank;
    *out = HK_SCALAR;
    if (hk_shape_count(v) == 1)
        return true;
    if (r->conv && second && v->rank == 1 && v->dim[0] == operand->dim[0]) {
        *out = (hk_shape){.rank = rank, .dim = {v->dim[0], 1, 1, 1, 1, 1, 1, 1}};
        return true;
    }
    if (r->conv || rank < 2)
        return false;
    if (v->rank == 1 && v->dim[0] == operand->dim[second ? rank - 1 : rank - 2]) {
        *out = second ? *v : (hk_shape){.rank = 2, .dim = {v->dim[0], 1}};
        return true;
    }
    *out = *v;
    hk_shape both;
    return v->rank == rank && hk_shape_broadcast(operand, v, &both) && hk_shape_equal(&both, operand);
}

static hk_status check_spread(hk_infer *in, const roles *r, bool second, int32_t i)
{
    const hk_value *operand = in->node->in[second ? r->b : r->a], *v = role(in->node, i);
    hk_shape shape;
    hk_shape_text a, b;
    if (!v || !hk_shape_known(&v->shape) || !hk_shape_known(&operand->shape) ||
        spread_shape(r, second, &operand->shape, &v->shape, &shape))
        return HK_OK;
    return hk_infer_fail(in, HK_STATUS_INVALID, "input %d of shape %s does not fit its operand of shape %s", (int)i,
                         hk_shape_print(&v->shape, &a), hk_shape_print(&operand->shape, &b));
}

static bool is_byte(const hk_value *v)
{
    return !v || v->dtype == HK_INT8 || v->dtype == HK_UINT8;
}

static hk_status product_shape(hk_infer *in, const roles *r, hk_shape *out)
{
    const hk_node *n = in->node;
    const hk_shape *a = &n->in[r->a]->shape, *b = &n->in[r->b]->shape;
    hk_problem_text problem;
    hk_conv p;
    *out = HK_SHAPE_UNKNOWN;
    if (!hk_shape_known(a) || !hk_shape_known(b))
        return HK_OK;
    if (r->conv) {
        if (!hk_conv_resolve(n->attrs, a, b, &p, &problem))
            return hk_infer_fail(in, HK_STATUS_INVALID, "%s", problem.text);
        *out = hk_window_shape(&p.w, p.n, p.k);
        return HK_OK;
    }
    hk_shape ab = *a, bb = *b;
    hk_shape_text ta, tb;
    bool fits = a->rank >= 2 && b->rank >= 2 && a->dim[a->rank - 1] == b->dim[b->rank - 2];
    ab.rank -= 2;
    bb.rank -= 2;
    if (!fits || !hk_shape_broadcast(&ab, &bb, out))
        return hk_infer_fail(in, HK_STATUS_INVALID, "matrices %s and %s do not multiply", hk_shape_print(a, &ta),
                             hk_shape_print(b, &tb));
    out->dim[out->rank++] = a->dim[a->rank - 2];
    out->dim[out->rank++] = b->dim[b->rank - 1];
    return HK_OK;
}

static hk_status infer(hk_infer *in)
{
    const hk_node *n = in->node;
    roles r = roles_of(n);
    hk_shape shape;
    if (!is_byte(n->in[r.a]) || !is_byte(n->in[r.b]) || !is_byte(role(n, r.a_zero)) || !is_byte(role(n, r.b_zero)) ||
        !is_byte(role(n, r.y_zero)))
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "expected operands of int8 or uint8, found %s and %s",
                             hk_dtype_name(n->in[r.a]->dtype), hk_dtype_name(n->in[r.b]->dtype));
    const int32_t of_a[] = {r.a_zero, r.a_scale}, of_b[] = {r.b_zero, r.b_scale};
    for (int i = 0; i < 2; i++) {
        HK_TRY(check_spread(in, &r, false, of_a[i]));
        HK_TRY(check_spread(in, &r, true, of_b[i]));
    }
    HK_TRY(product_shape(in, &r, &shape));
    return hk_infer_output(in, 0, r.y_zero < 0 ? HK_INT32 : n->in[r.y_zero]->dtype, &shape);
}

/* ---- the oracle */

/* An element of a zero point or scale that belongs to element i of the operand. */
static double spread_element(const roles *r, bool second, const hk_tensor *operand, const hk_tensor *v, int64_t i)
{
    hk_shape shape = hk_tensor_shape(operand), own = hk_tensor_shape(v), spread;
    int64_t strides[HK_MAX_RANK], at = 0;
    if (!spread_shape(r, second, &shape, &own, &spread))
        return NAN;
    hk_shape_strides(&spread, strides);
    for (int32_t d = shape.rank - 1; d >= 0; d--) {
        int32_t k = d - (shape.rank - spread.rank);
        if (k >= 0 && spread.dim[k] > 1)
            at += i % shape.dim[d] * strides[k];
        i /= shape.dim[d];
    }
    return hk_get_double(v, at);
}

static double *centered(hk_eval *e, const roles *r, bool second)
{
    const hk_tensor *t = e->in[second ? r->b : r->a];
    int32_t zero = second ? r->b_zero : r->a_zero;
    const hk_tensor *z = zero < e->node->in_count ? e->in[zero] : NULL;
    double *x = hk_tensor_doubles(e->arena, t);
    for (int64_t i = 0; x && z && i < hk_tensor_count(t); i++)
        x[i] -= spread_element(r, second, t, z, i);
    return x;
}

static void multiply(const hk_shape *as, const hk_shape *bs, const hk_shape *ys, const double *a, const double *b,
                     double *y)
{
    int64_t rows = ys->dim[ys->rank - 2], columns = ys->dim[ys->rank - 1], sum = as->dim[as->rank - 1];
    int64_t count = hk_shape_count(ys);
    for (int64_t i = 0; i < count; i++) {
        int64_t batch = i / columns / rows, at[2] = {0, 0}, step[2] = {1, 1};
        for (int32_t d = ys->rank - 3; d >= 0; d--) { /* the matrices of this batch index */
            int64_t c = batch % ys->dim[d];
            batch /= ys->dim[d];
            for (int k = 0; k < 2; k++) {
                const hk_shape *s = k ? bs : as;
                int32_t own = d - (ys->rank - s->rank);
                if (own < 0)
                    continue;
                at[k] += s->dim[own] == 1 ? 0 : c * step[k];
                step[k] *= s->dim[own];
            }
        }
        const double *row = a + (at[0] * rows + i / columns % rows) * sum, *matrix = b + at[1] * sum * columns;
        for (int64_t k = 0; k < sum; k++)
            y[i] += row[k] * matrix[k * columns + i % columns];
    }
}

/* The scale of an operand for output element i. */
static double operand_scale(hk_eval *e, const roles *r, bool second, const hk_shape *ys, int64_t i)
{
    const hk_tensor *s = e->in[second ? r->b_scale : r->a_scale];
    if (hk_tensor_count(s) == 1)
        return hk_get_double(s, 0);
    if (r->conv)
        return hk_get_double(s, i / hk_shape_span(ys, 2, ys->rank) % ys->dim[1]);
    int64_t columns = ys->dim[ys->rank - 1], rows = ys->dim[ys->rank - 2];
    return hk_get_double(s, second ? i % columns % hk_tensor_count(s) : i / columns % rows % hk_tensor_count(s));
}

static void requantize(hk_eval *e, const roles *r, const hk_shape *ys, const double *sums, hk_tensor *y)
{
    const hk_tensor *scale = e->in[r->y_scale], *zero = e->in[r->y_zero];
    const hk_tensor *bias = r->bias >= 0 && r->bias < e->node->in_count ? e->in[r->bias] : NULL;
    hk_dtype type = scale->dtype;
    double low, high;
    hk_quantized_range(y->dtype, &low, &high);
    for (int64_t i = 0, count = hk_shape_count(ys); i < count; i++) {
        double sum = sums[i] + (bias ? hk_get_double(bias, i / hk_shape_span(ys, 2, ys->rank) % ys->dim[1]) : 0.0);
        double factor = hk_rounded_to(type, operand_scale(e, r, false, ys, i) * operand_scale(e, r, true, ys, i));
        factor = hk_rounded_to(type, factor / hk_get_double(scale, 0));
        double q = nearbyint((double)((float)sum * (float)factor)) + hk_get_double(zero, 0);
        hk_set_double(y, i, q < low ? low : q > high ? high : q);
    }
}

static hk_status eval(hk_eval *e)
{
    const hk_node *n = e->node;
    roles r = roles_of(n);
    hk_shape as = hk_tensor_shape(e->in[r.a]), bs = hk_tensor_shape(e->in[r.b]), ys = n->out[0]->shape;
    hk_problem_text problem;
    hk_conv p;
    if (r.conv && !hk_conv_resolve(n->attrs, &as, &bs, &p, &problem))
        return hk_eval_fail(e, HK_STATUS_INVALID, "%s", problem.text);
    if (!hk_shape_known(&ys))
        return hk_eval_fail(e, HK_STATUS_INTERNAL, "its shape is not known");
    hk_tensor *y = hk_eval_output(e, 0, n->out[0]->dtype, &ys);
    double *a = centered(e, &r, false), *b = centered(e, &r, true);
    double *sums = hk_arena_array(e->arena, (size_t)hk_shape_count(&ys) + 1, sizeof *sums);
    if (!y || !a || !b || !sums)
        return hk_out_of_memory(e->ctx, "an integer product");
    if (r.conv)
        hk_conv_reference(&p, HK_CONV_FORWARD, a, b, sums);
    else
        multiply(&as, &bs, &ys, a, b, sums);
    if (r.y_scale >= 0) {
        requantize(e, &r, &ys, sums, y);
        return HK_OK;
    }
    for (int64_t i = 0, count = hk_shape_count(&ys); i < count; i++)
        hk_set_int(y, i, (int64_t)sums[i]);
    return HK_OK;
}

/* ---- matrix units */

/* One zero point for all, or one for each row of the first, each column or filter of the second operand. */
static bool zeros_suit(const hk_node *n, const roles *r, bool second)
{
    const hk_value *v = n->in[second ? r->b : r->a], *z = role(n, second ? r->b_zero : r->a_zero);
    return !z || (z->dtype == v->dtype && (hk_shape_count(&z->shape) == 1 || z->shape.rank == 1));
}

/* The problem without its operands: matrices with batch strides counted in whole matrices. False: not for matrix units.
 */
static bool conv_problem(const hk_node *n, hk_conv *c, hk_gemm *p)
{
    hk_problem_text problem;
    if (!hk_conv_resolve(n->attrs, &n->in[0]->shape, &n->in[1]->shape, c, &problem) || c->w.spatial > 2)
        return false;
    *p = (hk_gemm){.m = c->k / c->groups,
                   .n = hk_window_out_count(&c->w),
                   .k = c->c / c->groups * hk_window_taps(&c->w),
                   .batch_rank = 2,
                   .batch = {c->n, c->groups},
                   .batch_a = {0, 1},
                   .batch_b = {c->groups, 1},
                   .alpha = 1.0f};
    return p->m >= 16;
}

static bool matmul_problem(const hk_node *n, hk_gemm *p)
{
    hk_shape a = n->in[0]->shape, b = n->in[1]->shape, batch;
    *p = (hk_gemm){.m = a.dim[a.rank - 2], .n = b.dim[b.rank - 1], .k = a.dim[a.rank - 1], .alpha = 1.0f};
    a.rank -= 2;
    b.rank -= 2;
    if (!hk_shape_broadcast(&a, &b, &batch))
        return false;
    if (hk_shape_count(&b) == 1) { /* one tall matrix */
        p->m *= hk_shape_count(&a);
        return true;
    }
    p->batch_rank = batch.rank;
    memcpy(p->batch, batch.dim, sizeof p->batch);
    hk_gemm_batch_strides(&a, 1, &batch, p->batch_a);
    hk_gemm_batch_strides(&b, 1, &batch, p->batch_b);
    return true;
}

/* The copies that matrix units read are addressed by 32-bit numbers. */
static bool suits_units(const hk_node *n, const roles *r)
{
    const double most = (double)(1u << 30);
    hk_conv c;
    hk_gemm p;
    if (!zeros_suit(n, r, false) || !zeros_suit(n, r, true) ||
        !(r->conv ? conv_problem(n, &c, &p) : matmul_problem(n, &p)))
        return false;
    double batches = (double)hk_gemm_batches(&p), m = (double)p.m, columns = (double)p.n, k = (double)p.k + 16;
    return p.m > 0 && p.n >= 16 && p.k >= 32 && batches > 0 && batches * m * k < most && batches * columns * k < most &&
           batches * m * columns < most;
}

static bool takes_bytes(const hk_graph *g)
{
    while (g->outer)
        g = g->outer;
    return g->matrix_types >> HK_MATRIX_INT8 & 1u;
}

static bool expands_integer(const hk_graph *g, const hk_node *n)
{
    roles r = roles_of(n);
    return !takes_bytes(g) || !suits_units(n, &r);
}

/* From counted in matrices to what the copies have. */
static void scale_batches(hk_gemm *p)
{
    for (int32_t d = 0; d < p->batch_rank; d++) {
        p->batch_a[d] *= p->m * p->lda;
        p->batch_b[d] *= p->n * p->ldb;
    }
}

static hk_status lower_integer(hk_lower *l)
{
    const hk_node *n = l->node;
    roles r = roles_of(n);
    hk_conv c;
    hk_gemm p;
    if (!(r.conv ? conv_problem(n, &c, &p) : matmul_problem(n, &p)))
        return hk_fail(l->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): it should have been expanded", n->name, n->type);
    int64_t k = p.k, m = p.m;
    hk_int8_operand
        a = {.v = n->in[0], .zeros = role(n, 2), .along = true, .outer = m, .k = k, .ld = k, .matrix = m * k},
        b = {.v = n->in[1], .zeros = role(n, 3), .outer = p.n, .k = k, .ld = p.n, .matrix = k * p.n};
    a.matrices = hk_shape_count(&a.v->shape) / (m * k);
    b.matrices = hk_shape_count(&b.v->shape) / (k * p.n);
    if (r.conv) { /* the filters are the matrix on the left */
        int64_t plane = hk_window_in_count(&c.w);
        a.v = n->in[1];
        a.zeros = role(n, 3);
        a.matrices = c.groups;
        b.v = n->in[0];
        b.zeros = role(n, 2);
        b.matrices = c.n * c.groups;
        b.ld = plane;
        b.matrix = c.c / c.groups * plane;
        b.windows = &c;
    }
    b.second = true;
    p.c = n->out[0];
    if (!hk_gemm_pack_int8(l, &a, &p) || !hk_gemm_pack_int8(l, &b, &p))
        return hk_out_of_memory(l->ctx, "an integer product");
    scale_batches(&p);
    uint32_t splits;
    const hk_gemm_variant *v = hk_gemm_choose(l, &p, &splits);
    hk_gemm_emit(l, &p, v, splits);
    hk_choice_leave(l, HK_CHOICE_TILE);
    return HK_OK;
}

/* ---- expansion */

static hk_status build_spread(hk_graph *g, const hk_node *n, const roles *r, bool second, hk_value *v, hk_value **out)
{
    hk_shape shape;
    spread_shape(r, second, &n->in[second ? r->b : r->a]->shape, &v->shape, &shape);
    return hk_build_reshape(g, v, &shape, out);
}

/* The operand less its zero point, as float32. */
static hk_status build_centered(hk_graph *g, const hk_node *n, const roles *r, bool second, hk_value **out)
{
    hk_value *zero = role(n, second ? r->b_zero : r->a_zero);
    HK_TRY(hk_build_cast(g, n->in[second ? r->b : r->a], HK_FLOAT32, out));
    if (!zero)
        return HK_OK;
    HK_TRY(build_spread(g, n, r, second, zero, &zero));
    HK_TRY(hk_build_cast(g, zero, HK_FLOAT32, &zero));
    return hk_build_binary(g, "Sub", *out, zero, out);
}

/* A convolution's attributes, for a node that takes its place; none for other products. */
static void conv_attributes(const hk_node *n, const roles *r, bool exact, hk_attr_value list[8])
{
    const hk_conv_attrs *c = n->attrs;
    const hk_attr_value all[] = {HK_SET_INT("group", c->group),
                                 HK_SET_STRING("auto_pad", c->window.auto_pad),
                                 HK_SET_INTS("kernel_shape", c->window.kernel_shape.v, c->window.kernel_shape.count),
                                 HK_SET_INTS("strides", c->window.strides.v, c->window.strides.count),
                                 HK_SET_INTS("dilations", c->window.dilations.v, c->window.dilations.count),
                                 HK_SET_INTS("pads", c->window.pads.v, c->window.pads.count)};
    int32_t count = 0;
    for (size_t i = 0; r->conv && i < HK_COUNT(all); i++)
        if (all[i].kind != HK_ATTR_INTS || all[i].ints.v)
            list[count++] = all[i];
    if (r->conv && exact)
        list[count++] = (hk_attr_value)HK_SET_INT("hk.exact", 1);
    list[count] = (hk_attr_value){0};
}

static hk_status build_sums(hk_graph *g, const hk_node *n, const roles *r, hk_value **out)
{
    hk_value *a = NULL, *b = NULL;
    const hk_shape *as = &n->in[r->a]->shape, *bs = &n->in[r->b]->shape;
    if (!strncmp(n->op->type, "QLinear", 7) && takes_bytes(g) && suits_units(n, r)) {
        hk_value *in[] = {n->in[r->a], n->in[r->b], role(n, r->a_zero), role(n, r->b_zero)};
        hk_attr_value attrs[8];
        conv_attributes(n, r, false, attrs);
        return hk_build(g, r->conv ? "ConvInteger" : "MatMulInteger", attrs, in, 4, out, 1);
    }
    HK_TRY(build_centered(g, n, r, false, &a));
    HK_TRY(build_centered(g, n, r, true, &b));
    if (!r->conv)
        return hk_build_integer_product(g, "MatMul", NULL, a, b, as->dim[as->rank - 1], out);
    hk_attr_value attrs[8];
    conv_attributes(n, r, true, attrs);
    return hk_build_integer_product(g, "Conv", attrs, a, b, hk_shape_span(bs, 1, bs->rank), out);
}

static hk_status expand_integer(hk_graph *g, const hk_node *n, hk_value **out)
{
    roles r = roles_of(n);
    return build_sums(g, n, &r, out);
}

/* A scale of filters meets the output's channels, one of rows or columns broadcasts as its operand's did. */
static hk_status build_scale(hk_graph *g, const hk_node *n, const roles *r, bool second, hk_value **out)
{
    hk_value *s = n->in[second ? r->b_scale : r->a_scale];
    hk_shape channels = {.rank = n->in[r->a]->shape.rank - 1, .dim = {s->shape.dim[0], 1, 1, 1, 1, 1, 1, 1}};
    if (r->conv && second && hk_shape_count(&s->shape) > 1)
        return hk_build_reshape(g, s, &channels, out);
    return build_spread(g, n, r, second, s, out);
}

static hk_status expand_quantized(hk_graph *g, const hk_node *n, hk_value **out)
{
    roles r = roles_of(n);
    hk_value *y = NULL, *a = NULL, *b = NULL, *scale = NULL, *zero = NULL, *bias = role(n, r.bias);
    HK_TRY(build_sums(g, n, &r, &y));
    if (bias) {
        hk_shape channels = {.rank = y->shape.rank - 1, .dim = {bias->shape.dim[0], 1, 1, 1, 1, 1, 1, 1}};
        HK_TRY(hk_build_reshape(g, bias, &channels, &bias));
        HK_TRY(hk_build_binary(g, "Add", y, bias, &y));
    }
    HK_TRY(build_scale(g, n, &r, false, &a));
    HK_TRY(build_scale(g, n, &r, true, &b));
    HK_TRY(hk_build_binary(g, "Mul", a, b, &a));
    HK_TRY(hk_build_reshape(g, n->in[r.y_scale], &HK_SCALAR, &scale));
    HK_TRY(hk_build_binary(g, "Div", a, scale, &a));
    HK_TRY(hk_build_float(g, a, HK_FLOAT32, &a));
    HK_TRY(hk_build_cast(g, y, HK_FLOAT32, &y));
    HK_TRY(hk_build_binary(g, "Mul", y, a, &y));
    HK_TRY(hk_build_unary(g, "Round", y, &y));
    HK_TRY(hk_build_reshape(g, n->in[r.y_zero], &HK_SCALAR, &zero));
    return hk_build_saturated(g, y, zero, n->out[0]->dtype, out);
}

/* ---- the table */

static const char *const matmul_integer_cases[] = {
    "u8[4,3]<0:256 u8[3,2]<0:256 u8=12 u8=0",
    "i8[4,7]<-128:128 i8[7,5]<-128:128",
    "u8[2,4,300]<0:256 i8[300,5]<-128:128 u8[]<0:256 i8[5]<-9:9",
    "u8[4,3]<0:256 u8[3,2]<0:256 u8[4]<0:256",
    "i8[3,5000]<-128:128 i8[5000,2]<-128:128",
    "u8[3,1,4,3]<0:256 u8[2,3,6]<0:256 u8=128 u8=128",
    "u8[40,77]<0:256 i8[77,35]<-128:128 u8=131 i8[35]<-9:9",
    "i8[3,33,32]<-128:128 u8[32,36]<0:256 i8[33]<-9:9 u8[1]<0:256",
    "u8[2,1,16,48]<0:256 i8[3,48,16]<-128:128 u8=7",
    "i8[2,3,2,8,33]<-128:128 i8[3,1,33,17]<-128:128 i8=-128 i8=127",
    "u8[1,5000]<0:256 u8[5000,20]<0:256 u8=255",
    NULL,
};
static const char *const conv_integer_cases[] = {
    "u8[1,1,3,3]<0:256 u8[2,1,2,2]<0:256 u8=1 u8[2]<0:9 ; pads=[1,1,1,1]",
    "i8[2,4,6,5]<-128:128 i8[6,2,3,3]<-128:128 ; group=2 strides=[2,1]",
    "u8[1,40,6,6]<0:256 i8[3,40,3,3]<-128:128 u8=128 ; auto_pad=\"SAME_UPPER\"",
    "u8[2,5,7,6]<0:256 i8[18,5,3,3]<-128:128 u8=128 i8[18]<-9:9 ; pads=[1,1,1,1]",
    "i8[2,64,5,5]<-128:128 i8[32,32,1,1]<-128:128 ; group=2",
    "u8[1,12,11,9]<0:256 u8[16,12,3,2]<0:256 u8=3 u8=200 ; strides=[2,1] dilations=[1,2] pads=[0,1,2,1]",
    "i8[2,16,40]<-128:128 u8[20,16,3]<0:256 i8=-5 u8=9 ; pads=[1,1]",
    NULL,
};
static const char *const qlinear_matmul_cases[] = {
    "u8[2,4]<0:256 f32=0.0066 u8=113 u8[4,3]<0:256 f32=0.00705 u8=114 f32=0.0107 u8=118",
    "i8[2,2,4]<-128:128 f32=0.0066 i8=3 i8[2,4,3]<-128:128 f32[3]+ i8[3]<-9:9 f32=0.51 i8=-4",
    "i8[2,300]<-128:128 f16=0.0066 i8=3 i8[300,3]<-128:128 f16=0.02 i8=1 f16=0.5 i8=-4",
    "u8[20,64]<0:256 f32=0.0066 u8=113 i8[64,40]<-128:128 f32[40]+ i8[40]<-9:9 f32=90.7 u8=118",
    NULL,
};
static const char *const qlinear_conv_cases[] = {
    "u8[1,1,7,7]<0:256 f32=0.0037 u8=132 u8[1,1,1,1]<0:256 f32[1]+ u8[1]<0:256 f32=0.5 u8=123",
    "u8[2,4,6,5]<0:256 f32=0.0037 u8=132 i8[6,2,3,3]<-128:128 f32[6]+ i8[6]<-3:3 f32=0.9 u8=123 i32[6]<-900:900 ; "
    "group=2 "
    "pads=[1,1,1,1]",
    "u8[2,4,6,5]<0:256 f32=0.0037 u8=132 i8[16,4,3,3]<-128:128 f32[16]+ i8[16]<-3:3 f32=0.9 u8=123 i32[16]<-900:900 ; "
    "pads=[1,1,1,1]",
    NULL,
};

/* lowering: of products that do not expand. */
#define OP(name, first, least, most, attributes, expansion, when, lowering, case_list)                                 \
    {                                                                                                                  \
        .type = name, .since = first, .in_min = least, .in_max = most, .out_min = 1, .out_max = 1,                     \
        .attrs_bytes = sizeof(hk_conv_attrs), .attrs = attributes, .infer = infer, .eval = eval, .expand = expansion,  \
        .expands = when, .lower = lowering, .cases = case_list                                                         \
    }

const hk_op hk_ops_qlinear[] = {
    OP("MatMulInteger", 10, 2, 4, NULL, expand_integer, expands_integer, lower_integer, matmul_integer_cases),
    OP("ConvInteger", 10, 2, 4, conv_list, expand_integer, expands_integer, lower_integer, conv_integer_cases),
    OP("QLinearMatMul", 10, 8, 8, NULL, expand_quantized, NULL, NULL, qlinear_matmul_cases),
    OP("QLinearConv", 10, 8, 9, conv_list, expand_quantized, NULL, NULL, qlinear_conv_cases),
    {0},
};

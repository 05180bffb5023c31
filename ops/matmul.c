/*
 * Matrix products: MatMul, Gemm, hk.Gemm (what fusion and backward rules build), and hk.Convert (fp32 <-> fp16 storage,
 * which matrix units read). One description (hk_gemm), one evaluator, one lowering and one backward rule for the three.
 */
#include <string.h>

#include "ops/support/conv_geometry.h"
#include "ops/support/gemm.h"

typedef struct gemm_attrs {
    int64_t transA, transB, activation, broadcast;
    float alpha, beta, activation_a, activation_b;
} gemm_attrs;

static const hk_attr gemm_table[] = {
    HK_INT_ATTR(gemm_attrs, transA, 0),
    HK_INT_ATTR(gemm_attrs, transB, 0),
    HK_FLOAT_ATTR(gemm_attrs, alpha, 1.0f),
    HK_FLOAT_ATTR(gemm_attrs, beta, 1.0f),
    {0},
};

/* Before opset 7 an attribute allowed C to be smaller than the product. */
static const hk_attr gemm1_table[] = {
    HK_INT_ATTR(gemm_attrs, transA, 0),     HK_INT_ATTR(gemm_attrs, transB, 0),
    HK_FLOAT_ATTR(gemm_attrs, alpha, 1.0f), HK_FLOAT_ATTR(gemm_attrs, beta, 1.0f),
    HK_INT_ATTR(gemm_attrs, broadcast, 0),  {0},
};

static const hk_attr hk_gemm_table[] = {
    HK_INT_ATTR(gemm_attrs, transA, 0),
    HK_INT_ATTR(gemm_attrs, transB, 0),
    HK_FLOAT_ATTR(gemm_attrs, alpha, 1.0f),
    HK_FLOAT_ATTR(gemm_attrs, beta, 1.0f),
    HK_INT_ATTR(gemm_attrs, activation, HK_ACT_NONE),
    HK_FLOAT_ATTR(gemm_attrs, activation_a, 0.0f),
    HK_FLOAT_ATTR(gemm_attrs, activation_b, 0.0f),
    {0},
};

static bool is_matmul(const hk_node *n)
{
    return strcmp(n->type, "MatMul") == 0;
}

static gemm_attrs attrs_of(const hk_node *n)
{
    if (is_matmul(n))
        return (gemm_attrs){.alpha = 1.0f, .beta = 1.0f};
    return *(const gemm_attrs *)n->attrs;
}

/* ---- the problem of two shapes */

/* An operand as matrices: a vector is a row on the left and a column on the right of a product. */
typedef struct matrices {
    hk_shape batch;
    int64_t rows, columns; /* as stored */
} matrices;

static matrices matrices_of(const hk_shape *s, bool left)
{
    if (s->rank == 1)
        return left ? (matrices){HK_SCALAR, 1, s->dim[0]} : (matrices){HK_SCALAR, s->dim[0], 1};
    matrices x = {.batch = *s, .rows = s->dim[s->rank - 2], .columns = s->dim[s->rank - 1]};
    x.batch.rank = s->rank - 2;
    return x;
}

typedef enum fit { FITS, INNER_DIFFERS, BATCH_DIFFERS } fit;

/* Fills p's sizes and strides and y's shape; dimensions may be unknown (then the strides mean nothing). */
static fit resolve(const hk_node *n, const hk_shape *a, const hk_shape *b, hk_gemm *p, hk_shape *y)
{
    gemm_attrs at = attrs_of(n);
    matrices x = matrices_of(a, true), w = matrices_of(b, false);
    *p = (hk_gemm){.trans_a = at.transA != 0,
                   .trans_b = at.transB != 0,
                   .alpha = at.alpha,
                   .beta = at.beta,
                   .activation = at.activation,
                   .act_a = at.activation_a,
                   .act_b = at.activation_b,
                   .lda = x.columns,
                   .ldb = w.columns};
    p->m = p->trans_a ? x.columns : x.rows;
    p->n = p->trans_b ? w.rows : w.columns;
    int64_t ka = p->trans_a ? x.rows : x.columns, kb = p->trans_b ? w.columns : w.rows;
    if (ka >= 0 && kb >= 0 && ka != kb)
        return INNER_DIFFERS;
    p->k = HK_MAX(ka, kb);
    hk_shape batch;
    if (!hk_shape_broadcast(&x.batch, &w.batch, &batch))
        return BATCH_DIFFERS;
    *y = batch;
    if (a->rank > 1)
        y->dim[y->rank++] = p->m;
    if (b->rank > 1)
        y->dim[y->rank++] = p->n;
    if (!hk_shape_known(&batch))
        return FITS;
    p->batch_rank = batch.rank;
    memcpy(p->batch, batch.dim, sizeof p->batch);
    hk_gemm_batch_strides(&x.batch, x.rows * x.columns, &batch, p->batch_a);
    hk_gemm_batch_strides(&w.batch, w.rows * w.columns, &batch, p->batch_b);
    return FITS;
}

/* Strides of a bias of any shape that broadcasts to the result's, whose rank is at least 2. */
static void resolve_bias(const hk_shape *bias, hk_gemm *p)
{
    hk_shape matrix = *bias;
    int64_t rows = bias->rank > 1 ? bias->dim[bias->rank - 2] : 1,
            columns = bias->rank > 0 ? bias->dim[bias->rank - 1] : 1;
    matrix.rank = HK_MAX(bias->rank - 2, 0);
    p->bias_n = columns != 1;
    p->bias_m = rows != 1 ? columns : 0;
    hk_shape batch = {.rank = p->batch_rank};
    memcpy(batch.dim, p->batch, sizeof batch.dim);
    hk_gemm_batch_strides(&matrix, rows * columns, &batch, p->batch_bias);
}

/* ---- shapes */

static bool can_multiply(hk_dtype t)
{
    return hk_dtype_is_float(t) || t == HK_INT32 || t == HK_UINT32 || t == HK_INT64 || t == HK_UINT64;
}

static hk_status check_operands(hk_infer *in, const hk_value *a, const hk_value *b, int32_t rank_min, int32_t rank_max)
{
    if (a->dtype != b->dtype || !can_multiply(a->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "expected two float or 32- or 64-bit integer operands of one type, found %s and %s",
                             hk_dtype_name(a->dtype), hk_dtype_name(b->dtype));
    const hk_value *both[] = {a, b};
    for (int i = 0; i < 2; i++) {
        const hk_shape *s = &both[i]->shape;
        hk_shape_text text;
        if (s->rank >= 0 && (s->rank < rank_min || s->rank > rank_max))
            return hk_infer_fail(in, HK_STATUS_INVALID, "expected operand %c of rank %d%s, found '%s' of shape %s",
                                 'A' + i, rank_min, rank_min == rank_max ? "" : " or more", both[i]->name,
                                 hk_shape_print(s, &text));
    }
    return HK_OK;
}

/* A bias (or with whole: a residual) must broadcast to the result without changing it. */
static hk_status check_addend(hk_infer *in, const hk_value *c, const char *what, const hk_value *a, const hk_shape *y,
                              bool whole)
{
    hk_shape both;
    hk_shape_text found, wanted;
    if (!c)
        return HK_OK;
    if (c->dtype != a->dtype)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected %s '%s' of type %s, found %s", what, c->name,
                             hk_dtype_name(a->dtype), hk_dtype_name(c->dtype));
    if (c->shape.rank < 0)
        return HK_OK;
    bool fits = c->shape.rank <= y->rank && hk_shape_broadcast(&c->shape, y, &both);
    for (int32_t d = 0; fits && d < y->rank; d++)
        fits = y->dim[d] < 0 || both.dim[d] < 0 || both.dim[d] == y->dim[d];
    if (fits && whole)
        fits = c->shape.rank == y->rank;
    for (int32_t d = 0; fits && whole && d < y->rank; d++)
        fits = y->dim[d] < 0 || c->shape.dim[d] < 0 || c->shape.dim[d] == y->dim[d];
    if (!fits)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected %s '%s' %s %s, found shape %s", what, c->name,
                             whole ? "of shape" : "that broadcasts to", hk_shape_print(y, &wanted),
                             hk_shape_print(&c->shape, &found));
    return HK_OK;
}

static hk_status infer_gemm(hk_infer *in)
{
    const hk_value *a = hk_in(in->node, 0), *b = hk_in(in->node, 1);
    bool matmul = is_matmul(in->node), fused = strcmp(in->node->type, "hk.Gemm") == 0;
    HK_TRY(check_operands(in, a, b, matmul ? 1 : 2, matmul || fused ? HK_MAX_RANK : 2));
    gemm_attrs at = attrs_of(in->node);
    if (!hk_activation_valid(at.activation))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected an activation code below %d, found %lld", HK_ACT_COUNT,
                             (long long)at.activation);
    if (a->shape.rank < 0 || b->shape.rank < 0) {
        const hk_shape matrix = {.rank = 2, .dim = {-1, -1}};
        return hk_infer_output(in, 0, a->dtype, matmul || fused ? &HK_SHAPE_UNKNOWN : &matrix);
    }
    hk_gemm p;
    hk_shape y;
    hk_shape_text ta, tb;
    fit f = resolve(in->node, &a->shape, &b->shape, &p, &y);
    if (f != FITS)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected operands whose %s, found A '%s' %s%s and B '%s' %s%s",
                             f == INNER_DIFFERS ? "inner dimensions are equal" : "batch dimensions broadcast", a->name,
                             hk_shape_print(&a->shape, &ta), p.trans_a ? " transposed" : "", b->name,
                             hk_shape_print(&b->shape, &tb), p.trans_b ? " transposed" : "");
    if (!matmul)
        HK_TRY(
            check_addend(in, hk_in(in->node, 2), "bias", a, &y, in->node->op->attrs == gemm1_table && !at.broadcast));
    if (fused)
        HK_TRY(check_addend(in, hk_in(in->node, 3), "residual", a, &y, true));
    return hk_infer_output(in, 0, a->dtype, &y);
}

/* ---- host evaluation */

/* Where batch z of an operand begins. */
static int64_t batch_start(const hk_gemm *p, const int64_t *strides, int64_t z)
{
    int64_t at = 0;
    for (int32_t d = p->batch_rank - 1; d >= 0; d--) {
        at += z % p->batch[d] * strides[d];
        z /= p->batch[d];
    }
    return at;
}

/* One matrix of the result: y += op(a) op(b), row-major [m][n]. */
static void multiply(const hk_gemm *p, const double *a, const double *b, double *y)
{
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t k = 0; k < p->k; k++) {
            double x = p->trans_a ? a[k * p->lda + i] : a[i * p->lda + k];
            const double *row = p->trans_b ? b + k : b + k * p->ldb;
            int64_t step = p->trans_b ? p->ldb : 1;
            for (int64_t j = 0; j < p->n; j++)
                y[i * p->n + j] += x * row[j * step];
        }
}

/* Integers wrap modulo 2^64, and hk_set_int would saturate, so the sum is cut to the element's width first. */
static void evaluate_integers(const hk_gemm *p, const hk_tensor *a, const hk_tensor *b, hk_tensor *y)
{
    int64_t batches = hk_gemm_batches(p);
    for (int64_t z = 0; z < batches; z++) {
        int64_t at_a = batch_start(p, p->batch_a, z), at_b = batch_start(p, p->batch_b, z);
        for (int64_t i = 0; i < p->m * p->n; i++) {
            int64_t m = i / p->n, n = i % p->n;
            uint64_t sum = 0;
            for (int64_t k = 0; k < p->k; k++)
                sum += (uint64_t)hk_get_int(a, at_a + (p->trans_a ? k * p->lda + m : m * p->lda + k)) *
                       (uint64_t)hk_get_int(b, at_b + (p->trans_b ? n * p->ldb + k : k * p->ldb + n));
            int64_t x = y->dtype == HK_INT32    ? (int32_t)(uint32_t)sum
                        : y->dtype == HK_UINT32 ? (int64_t)(uint32_t)sum
                                                : (int64_t)sum;
            if (y->dtype == HK_UINT64)
                ((uint64_t *)y->data)[z * p->m * p->n + i] = sum;
            else
                hk_set_int(y, z * p->m * p->n + i, x);
        }
    }
}

static hk_status evaluate_floats(hk_eval *e, const hk_gemm *p, const hk_tensor *bias, const hk_tensor *residual,
                                 hk_tensor *y)
{
    double *a = hk_tensor_doubles(e->arena, e->in[0]), *b = hk_tensor_doubles(e->arena, e->in[1]);
    double *sums = hk_arena_array(e->arena, (size_t)HK_MAX(p->m * p->n, (int64_t)1), sizeof *sums);
    if (!a || !b || !sums)
        return hk_out_of_memory(e->ctx, "a matrix product");
    int64_t batches = hk_gemm_batches(p), size = p->m * p->n;
    for (int64_t z = 0; z < batches; z++) {
        memset(sums, 0, (size_t)size * sizeof *sums);
        multiply(p, a + batch_start(p, p->batch_a, z), b + batch_start(p, p->batch_b, z), sums);
        int64_t at_bias = batch_start(p, p->batch_bias, z);
        for (int64_t i = 0; i < size; i++) {
            double x = (double)p->alpha * sums[i];
            if (bias)
                x += (double)p->beta * hk_get_double(bias, at_bias + i / p->n * p->bias_m + i % p->n * p->bias_n);
            if (residual)
                x += hk_get_double(residual, z * size + i);
            hk_set_double(y, z * size + i, hk_activation_apply(p->activation, x, (double)p->act_a, (double)p->act_b));
        }
    }
    return HK_OK;
}

static const hk_tensor *input_tensor(const hk_eval *e, int32_t i)
{
    return i < e->node->in_count ? e->in[i] : NULL;
}

static hk_status eval_gemm(hk_eval *e)
{
    hk_gemm p;
    hk_shape y_shape, a = hk_tensor_shape(e->in[0]), b = hk_tensor_shape(e->in[1]);
    if (resolve(e->node, &a, &b, &p, &y_shape) != FITS)
        return hk_eval_fail(e, HK_STATUS_INVALID, "expected matrices that fit each other");
    const hk_tensor *bias = input_tensor(e, 2), *residual = input_tensor(e, 3);
    if (bias) {
        hk_shape s = hk_tensor_shape(bias);
        resolve_bias(&s, &p);
    }
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &y_shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "a matrix product");
    if (hk_dtype_is_float(y->dtype) || bias || residual || p.alpha != 1.0f)
        return evaluate_floats(e, &p, bias, residual, y);
    evaluate_integers(&p, e->in[0], e->in[1], y);
    return HK_OK;
}

/* ---- the device */

static hk_status lower_gemm(hk_lower *l)
{
    hk_gemm p;
    hk_shape y;
    hk_value *a = hk_in(l->node, 0), *b = hk_in(l->node, 1), *bias = hk_in(l->node, 2);
    if (resolve(l->node, &a->shape, &b->shape, &p, &y) != FITS)
        return hk_fail(l->ctx, HK_STATUS_INTERNAL, "node '%s' (%s): its shapes were not inferred", l->node->name,
                       l->node->type);
    p.a = a;
    p.b = b;
    p.c = hk_out(l->node, 0);
    p.bias = bias;
    p.residual = hk_in(l->node, 3);
    if (bias)
        resolve_bias(&bias->shape, &p);
    return hk_gemm_lower(l, &p);
}

bool hk_is_product(const hk_node *n)
{
    return hk_node_is(n, "MatMul") || hk_node_is(n, "Gemm") || hk_node_is(n, "hk.Gemm");
}

bool hk_product_suits_units(const hk_node *n)
{
    bool bfloat = hk_value_storage(n->in[0]) == HK_BFLOAT16 || hk_value_storage(n->in[1]) == HK_BFLOAT16;
    return n->in[0]->dtype == HK_FLOAT32 && !bfloat && hk_product_is_large(n);
}

bool hk_product_is_large(const hk_node *n)
{
    hk_gemm p;
    hk_shape y;
    if (!hk_shape_known(&n->in[0]->shape) || !hk_shape_known(&n->in[1]->shape) ||
        resolve(n, &n->in[0]->shape, &n->in[1]->shape, &p, &y) != FITS)
        return false;
    hk_gemm_simplify(&p);
    return hk_gemm_suits_units(&p);
}

#define LARGE ((int64_t)256 * 512 * 1024) /* multiplications */

bool hk_product_repays_high(const hk_node *n)
{
    hk_gemm p;
    hk_shape y;
    return hk_product_suits_units(n) && resolve(n, &n->in[0]->shape, &n->in[1]->shape, &p, &y) == FITS &&
           hk_gemm_batches(&p) * p.m * p.n * p.k >= LARGE;
}

/* Gemm of opsets 1 and 6 is today's, once C's shape is known to fit. */
static hk_status expand_gemm1(hk_graph *g, const hk_node *n, hk_value **out)
{
    const gemm_attrs at = attrs_of(n);
    const hk_attr_value attrs[] = {HK_SET_INT("transA", at.transA),
                                   HK_SET_INT("transB", at.transB),
                                   HK_SET_FLOAT("alpha", at.alpha),
                                   HK_SET_FLOAT("beta", at.beta),
                                   {0}};
    return hk_build(g, "Gemm", attrs, n->in, n->in_count, out, 1);
}

/* ---- differentiation */

/* op(a) op(b) alpha as a node. */
static hk_status product(hk_graph *g, hk_value *a, bool trans_a, hk_value *b, bool trans_b, float alpha, hk_value **y)
{
    hk_value *in[] = {a, b};
    if (!trans_a && !trans_b && alpha == 1.0f)
        return hk_build(g, "MatMul", NULL, in, 2, y, 1);
    const hk_attr_value attrs[] = {
        HK_SET_INT("transA", trans_a), HK_SET_INT("transB", trans_b), HK_SET_FLOAT("alpha", alpha), {0}};
    return hk_build(g, "hk.Gemm", attrs, in, 2, y, 1);
}

static hk_status reshape(hk_graph *g, hk_value *x, const hk_shape *s, hk_value **y)
{
    hk_value *shape = hk_graph_ints(g, s->dim, s->rank);
    if (!shape)
        return hk_out_of_memory(g->ctx, "a gradient");
    return hk_build(g, "Reshape", NULL, (hk_value *[]){x, shape}, 2, y, 1);
}

/* [..., m, n] as [rows, n]. */
static hk_status as_rows(hk_graph *g, hk_value *x, hk_value **y)
{
    int32_t last = x->shape.rank - 1;
    if (last == 1) {
        *y = x;
        return HK_OK;
    }
    hk_shape s = {.rank = 2, .dim = {hk_shape_span(&x->shape, 0, last), x->shape.dim[last]}};
    return reshape(g, x, &s, y);
}

/* What the rule works on: operands and output gradient with at least two dimensions each. */
typedef struct backward {
    hk_graph *graph;
    hk_value *a, *b, *dy;
    bool trans_a, trans_b;
    float alpha;
} backward;

static hk_status gradient_a(const backward *r, hk_value **da)
{
    if (r->trans_a)
        return product(r->graph, r->b, r->trans_b, r->dy, true, r->alpha, da);
    return product(r->graph, r->dy, false, r->b, !r->trans_b, r->alpha, da);
}

/* A weight shared by a batch of untransposed matrices gets one product over all their rows instead of a batch of
 * products and a sum. */
static hk_status gradient_b(const backward *r, hk_value **db)
{
    hk_value *a = r->a, *dy = r->dy;
    if (r->b->shape.rank == 2 && !r->trans_a && a->shape.rank == dy->shape.rank) {
        HK_TRY(as_rows(r->graph, a, &a));
        HK_TRY(as_rows(r->graph, dy, &dy));
    }
    if (r->trans_b)
        return product(r->graph, dy, true, a, r->trans_a, r->alpha, db);
    return product(r->graph, a, !r->trans_a, dy, false, r->alpha, db);
}

/* Vectors become matrices, and dy gets the dimensions that the product of vectors lacks. */
static hk_status raise_vectors(backward *r)
{
    hk_shape dy = r->dy->shape;
    if (r->b->shape.rank == 1) {
        HK_TRY(reshape(r->graph, r->b, &(hk_shape){.rank = 2, .dim = {r->b->shape.dim[0], 1}}, &r->b));
        dy.dim[dy.rank++] = 1;
    }
    if (r->a->shape.rank == 1) {
        HK_TRY(reshape(r->graph, r->a, &(hk_shape){.rank = 2, .dim = {1, r->a->shape.dim[0]}}, &r->a));
        dy.dim[dy.rank] = dy.rank > 0 ? dy.dim[dy.rank - 1] : 1;
        if (dy.rank > 0)
            dy.dim[dy.rank - 1] = 1;
        dy.rank++;
    }
    return dy.rank == r->dy->shape.rank ? HK_OK : reshape(r->graph, r->dy, &dy, &r->dy);
}

/* dZ of Y = activation(Z). */
static hk_status through_activation(const hk_node *n, const gemm_attrs *at, hk_graph *g, hk_value **dy)
{
    if (at->activation == HK_ACT_NONE)
        return HK_OK;
    if (at->activation != HK_ACT_RELU)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (hk.Gemm): no backward rule with activation %s; fuse after differentiation", n->name,
                       hk_activation_name(at->activation));
    hk_value *zero = hk_graph_scalar(g, (*dy)->dtype, 0.0), *positive;
    if (!zero)
        return hk_out_of_memory(g->ctx, "a gradient");
    HK_TRY(hk_build(g, "Greater", NULL, (hk_value *[]){n->out[0], zero}, 2, &positive, 1));
    return hk_build(g, "Where", NULL, (hk_value *[]){positive, *dy, zero}, 3, dy, 1);
}

/* With Z = alpha op(A) op(B) + beta C + R and dZ:
 * d op(A) = alpha dZ op(B)', d op(B) = alpha op(A)' dZ, dC = beta dZ and dR = dZ, summed over broadcast dimensions. */
static hk_status backward_gemm(hk_gradient *g, hk_node *n)
{
    gemm_attrs at = attrs_of(n);
    hk_value *dz = hk_gradient_of(g, n->out[0]), *bias = hk_in(n, 2), *dc = dz;
    backward r = {.graph = hk_gradient_graph(g),
                  .a = n->in[0],
                  .b = n->in[1],
                  .trans_a = at.transA != 0,
                  .trans_b = at.transB != 0,
                  .alpha = at.alpha};
    HK_TRY(through_activation(n, &at, r.graph, &dz));
    dc = dz;
    if (bias && at.beta != 1.0f && hk_gradient_wanted(g, bias)) {
        hk_value *beta = hk_graph_scalar(r.graph, dz->dtype, (double)at.beta);
        if (!beta)
            return hk_out_of_memory(r.graph->ctx, "a gradient");
        HK_TRY(hk_build(r.graph, "Mul", NULL, (hk_value *[]){dz, beta}, 2, &dc, 1));
    }
    if (bias)
        HK_TRY(hk_gradient_add(g, bias, dc));
    if (hk_in(n, 3))
        HK_TRY(hk_gradient_add(g, hk_in(n, 3), dz));
    r.dy = dz;
    HK_TRY(raise_vectors(&r));
    if (hk_gradient_wanted(g, n->in[0])) {
        hk_value *da;
        HK_TRY(gradient_a(&r, &da));
        HK_TRY(hk_gradient_add(g, n->in[0], da));
    }
    if (hk_gradient_wanted(g, n->in[1])) {
        hk_value *db;
        HK_TRY(gradient_b(&r, &db));
        if (n->in[1]->shape.rank == 1) { /* [..., k, 1] as [..., k] */
            hk_shape s = db->shape;
            s.rank--;
            HK_TRY(reshape(r.graph, db, &s, &db));
        }
        HK_TRY(hk_gradient_add(g, n->in[1], db));
    }
    return HK_OK;
}

/* ---- hk.Convert: the same elements in another storage */

typedef struct convert_attrs {
    int64_t to; /* HK_FLOAT32 or HK_FLOAT16 */
} convert_attrs;

static const hk_attr convert_table[] = {
    {.name = "to", .kind = HK_ATTR_INT, .offset = offsetof(convert_attrs, to), .required = true}, {0}};

static hk_status infer_convert(hk_infer *in)
{
    const hk_value *x = hk_in(in->node, 0);
    int64_t to = ((const convert_attrs *)in->node->attrs)->to;
    if ((x->dtype != HK_FLOAT32 && x->dtype != HK_FLOAT16) || (to != HK_FLOAT32 && to != HK_FLOAT16))
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "expected float32 or float16 and storage %d or %d, found %s and %lld", HK_FLOAT32,
                             HK_FLOAT16, hk_dtype_name(x->dtype), (long long)to);
    if (hk_out(in->node, 0))
        hk_out(in->node, 0)->storage = (hk_dtype)to;
    return hk_infer_output(in, 0, x->dtype, &x->shape);
}

static hk_status eval_convert(hk_eval *e)
{
    hk_shape s = hk_tensor_shape(e->in[0]);
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a conversion");
    bool halve = ((const convert_attrs *)e->node->attrs)->to == HK_FLOAT16;
    for (int64_t i = 0; i < hk_tensor_count(y); i++) {
        double x = hk_get_double(e->in[0], i);
        hk_set_double(y, i, halve ? (double)hk_half_to_float(hk_float_to_half((float)x)) : x);
    }
    return HK_OK;
}

static hk_status lower_convert(hk_lower *l)
{
    hk_value *x = hk_in(l->node, 0), *y = hk_out(l->node, 0);
    if (hk_value_storage(x) == hk_value_storage(y)) {
        if (hk_value_bytes(x))
            hk_emit_copy(l, x, 0, y, 0, hk_value_bytes(x));
        return HK_OK;
    }
    hk_emit_convert(l, x, y);
    return HK_OK;
}

static hk_status backward_convert(hk_gradient *g, hk_node *n)
{
    return hk_gradient_add(g, n->in[0], hk_gradient_of(g, n->out[0]));
}

/* ---- hk.Widened: float32 values that are stored as the bfloat16 they come from, for products on matrix units */

static hk_status infer_widened(hk_infer *in)
{
    const hk_value *x = hk_in(in->node, 0);
    if (x->dtype != HK_BFLOAT16)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected bfloat16, found %s", hk_dtype_name(x->dtype));
    if (hk_out(in->node, 0))
        hk_out(in->node, 0)->storage = HK_BFLOAT16;
    return hk_infer_output(in, 0, HK_FLOAT32, &x->shape);
}

static hk_status eval_widened(hk_eval *e)
{
    hk_shape s = hk_tensor_shape(e->in[0]);
    hk_tensor *y = hk_eval_output(e, 0, HK_FLOAT32, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "a conversion");
    for (int64_t i = 0; i < hk_tensor_count(y); i++)
        hk_set_double(y, i, hk_get_double(e->in[0], i));
    return HK_OK;
}

/* ---- cases */

static const char *const matmul_cases[] = {
    "f32[3,4] f32[4,5]",
    "f32[1,1] f32[1,1]",
    "f32[7] f32[7]",
    "f32[7] f32[7,3]",
    "f32[3,7] f32[7]",
    "f32[2,3,7] f32[7]",
    "f32[7] f32[2,7,3]",
    "f32[2,4,3,7] p.f32[7,6]",
    "f32[2,3,9,5] f32[2,3,5,7]",
    "f32[2,1,5,7] f32[3,7,4]",
    "f32[3,5] f32[2,2,5,4]",
    "f32[5,2,1,3,4] f32[1,2,3,4,6]",
    "f32[4,1] f32[1,6]",
    "f32[3,0] f32[0,4] ; ; nograd",
    "f32[0,4] f32[4,3] ; ; nograd",
    "f32[130,70] f32[70,131] ; ; nograd",
    "f32[128,256] f32[256,192] ; ; nograd",
    "f32[1,4096] f32[4096,24] ; ; nograd",
    "f32[5,515] f32[515,33] ; ; nograd",
    "f32[300,40] f32[40,1] ; ; nograd",
    "f32[257,64] f32[64,3] ; ; nograd",
    "f32[24,4096] f32[4096,20] ; ; nograd",
    "f32[1,40000] f32[40000,2] ; ; nograd",
    "f32[3,20,1000] f32[3,1000,24] ; ; nograd",
    "f32[70000,1,1] f32[70000,1,2] ; ; nograd",
    "i32[3,4]<-9:9 i32[4,5]<-9:9",
    "i64[2,3,4]<-9:9 i64[4,5]<-9:9",
    "u32[3]<100 u32[3,2]<100",
    NULL,
};

static const char *const gemm1_cases[] = {"f32[3,4] f32[4,5] f32[5] ; broadcast=1 ; opset=6",
                                          "f32[4,3] f32[5,4] f32[3,5] ; transA=1 transB=1 alpha=0.5 ; opset=1", NULL};

static const char *const gemm7_cases[] = {"f32[3,4] f32[4,5] f32[5]",
                                          "f32[4,3] f32[5,4] f32[1,5] ; transA=1 transB=1 alpha=0.5", NULL};

static const char *const gemm_cases[] = {
    "f32[3,4] f32[4,5] f32[5]",
    "f32[3,4] f32[4,5] f32[3,1] ; beta=0.5",
    "f32[3,4] f32[4,5] f32[1,1] ; alpha=0.25 beta=2.0",
    "f32[3,4] f32[4,5] f32[] ; alpha=0.5",
    "f32[3,4] f32[4,5] f32[3,5]",
    "f32[3,4] f32[4,5]",
    "f32[4,3] f32[4,5] f32[1,5] ; transA=1",
    "f32[3,4] p.f32[5,4] p.f32[5] ; transB=1",
    "f32[4,3] f32[5,4] f32[5] ; transA=1 transB=1 alpha=0.5 beta=0.25",
    "f32[1,256] f32[10,256] f32[10] ; transB=1 ; nograd",
    "f32[8,515] f32[37,515] f32[37] ; transB=1 ; nograd",
    "f32[70,66] f32[70,130] f32[130] ; transA=1 ; nograd",
    "f32[68,64] f32[132,68] f32[132] ; transA=1 transB=1 ; nograd",
    "f32[256,1024] f32[64,1024] f32[64] ; transB=1 ; nograd",
    "f32[33,2050] f32[40,2050] f32[40] ; transB=1 alpha=0.5 ; nograd",
    NULL,
};

static const char *const fused_cases[] = {
    "f32[3,4] f32[4,5]",
    "f32[3,4] f32[5,4] f32[5] ; transB=1",
    "f32[3,4] f32[4,5] - f32[3,5]",
    "f32[3,4] f32[4,5] f32[5] f32[3,5] ; activation=1 beta=0.5 alpha=2.0",
    "f32[2,3,4,6] f32[2,3,5,6] f32[3,1,5] f32[2,3,4,5] ; transB=1 alpha=0.5",
    "f32[2,6,4] f32[6,5] f32[4,1] ; transA=1",
    "f32[2,4,6] f32[5,6] f32[5] ; transB=1",
    "f32[2,4,6] f32[2,5,6] f32[2,1,1] ; transB=1",
    "f32[2,1,4,6] f32[1,3,5,6] f32[2,3,4,5] ; transB=1",
    "f32[2,64,36] f32[2,36,68] f32[68] f32[2,64,68] ; activation=2 activation_a=0.1 ; nograd",
    "f32[9,5] f32[5,12] f32[12] ; activation=3 ; nograd",
    "f32[9,5] f32[5,12] f32[12] ; activation=4 ; nograd",
    "f32[9,5] f32[5,12] f32[12] ; activation=5 ; nograd",
    "f32[9,5] f32[5,12] f32[12] ; activation=6 ; nograd",
    "f32[9,5] f32[5,12] f32[12] ; activation=7 ; nograd",
    "f32[9,5] f32[5,12] f32[12] ; activation=8 activation_a=-0.5 activation_b=1.5 ; nograd",
    "f32[9,5] f32[5,12] f32[12] ; activation=9 activation_a=0.2 activation_b=0.5 ; nograd",
    "f32[9,5] f32[5,12] f32[12] ; activation=10 ; nograd",
    "f32[24,3000] f32[20,3000] f32[24,1] f32[24,20] ; transB=1 activation=5 ; nograd",
    "f32[300,515] f32[3,515] f32[3] f32[300,3] ; transB=1 activation=1 ; nograd",
    "f32[1,33000] f32[2,33000] f32[2] ; transB=1 activation=4 ; nograd",
    NULL,
};

/* An output stored otherwise than its type cannot be read back, so what converts runs on the device in test_gemm.c. */
static const char *const convert_cases[] = {
    "f32[4,16] ; to=10 ; nograd nodevice",
    "f32[3,5] ; to=1",
    "f32[] ; to=10 ; nograd nodevice",
    "f32[0,3] ; to=1 ; nograd",
    "f16[3,7] ; to=10 ; nograd",
    "f16[3,7] ; to=1 ; nograd nodevice",
    NULL,
};

static const char *const widened_cases[] = {"bf16[3,5] ; ; nograd nodevice", NULL};

#define GEMM_OP(name, first, last, least, most, table, list)                                                           \
    {                                                                                                                  \
        .type = (name), .since = (first), .until = (last), .in_min = (least), .in_max = (most), .out_min = 1,          \
        .out_max = 1, .parameters = 7, .half_in = 11, .half_out = 1, .attrs_bytes = sizeof(gemm_attrs),                \
        .attrs = (table), .infer = infer_gemm, .eval = eval_gemm, .lower = lower_gemm, .backward = backward_gemm,      \
        .cases = (list)                                                                                                \
    }

const hk_op hk_ops_matmul[] = {
    GEMM_OP("MatMul", 1, 0, 2, 2, NULL, matmul_cases),
    {.type = "Gemm",
     .since = 1,
     .until = 6,
     .in_min = 3,
     .in_max = 3,
     .out_min = 1,
     .out_max = 1,
     .parameters = 7,
     .attrs_bytes = sizeof(gemm_attrs),
     .attrs = gemm1_table,
     .infer = infer_gemm,
     .eval = eval_gemm,
     .expand = expand_gemm1,
     .cases = gemm1_cases},
    GEMM_OP("Gemm", 7, 10, 3, 3, gemm_table, gemm7_cases),
    GEMM_OP("Gemm", 11, 0, 2, 3, gemm_table, gemm_cases),
    GEMM_OP("hk.Gemm", 1, 0, 2, 4, hk_gemm_table, fused_cases),
    {.type = "hk.Convert",
     .since = 1,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_ANY_TYPE, /* float16 is a storage it knows; others are refused at inference */
     .attrs_bytes = sizeof(convert_attrs),
     .attrs = convert_table,
     .infer = infer_convert,
     .eval = eval_convert,
     .lower = lower_convert,
     .backward = backward_convert,
     .cases = convert_cases},
    {.type = "hk.Widened",
     .since = 1,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_VIEW,
     .infer = infer_widened,
     .eval = eval_widened,
     .cases = widened_cases},
    {0},
};

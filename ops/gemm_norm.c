/*
 * hk.GemmNorm (A, B, scale, shift, bias, residual): a product and the LayerNormalization of its rows,
 *
 *     z = alpha A op(B) + beta bias + residual        y = (z - mean) / sqrt(variance + epsilon) scale + shift
 *
 * What runtime/fuse_norms.c makes in inference. A is [..., K], B a matrix, bias a row; y and (if wanted) z are [...,
 * N]. Where K is split, one dispatch adds up the partial sums and normalizes them; else two kernels follow each other.
 */
#include <math.h>

#include "kernels.h"
#include "ops/support/choice.h"
#include "ops/support/gemm.h"
#include "ops/support/norm.h"
#include "ops/support/reduce.h"
#include "shaders/gemm_norm.push.h"

enum { A, B, SCALE, SHIFT, BIAS, RESIDUAL };
enum { Y, Z };

typedef struct gemm_norm_attrs {
    int64_t transB;
    float alpha, beta, epsilon;
} gemm_norm_attrs;

static const hk_attr attr_list[] = {HK_INT_ATTR(gemm_norm_attrs, transB, 0),
                                    HK_FLOAT_ATTR(gemm_norm_attrs, alpha, 1.0),
                                    HK_FLOAT_ATTR(gemm_norm_attrs, beta, 1.0),
                                    HK_FLOAT_ATTR(gemm_norm_attrs, epsilon, 1e-5),
                                    {0}};

/* The result's shape, its rows and columns, and K; of shapes that may be unknown (-1). */
typedef struct problem {
    hk_shape y;
    int64_t rows, columns, k;
} problem;

static bool resolve(const hk_node *n, const hk_shape *a, const hk_shape *b, problem *p)
{
    const gemm_norm_attrs *at = n->attrs;
    if (a->rank < 1 || b->rank != 2)
        return false;
    *p = (problem){.y = *a, .rows = hk_shape_span(a, 0, a->rank - 1), .k = a->dim[a->rank - 1]};
    p->columns = p->y.dim[a->rank - 1] = b->dim[at->transB ? 0 : 1];
    int64_t k = b->dim[at->transB ? 1 : 0];
    return p->k < 0 || k < 0 || p->k == k;
}

static hk_status infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *a = n->in[A], *b = n->in[B];
    hk_shape_text ta, tb;
    problem p = {.y = HK_SHAPE_UNKNOWN, .columns = -1};
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] && (n->in[i]->dtype != a->dtype || !hk_dtype_is_float(a->dtype)))
            return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' is %s, expected float operands of one type",
                                 n->in[i]->name, hk_dtype_name(n->in[i]->dtype));
    if (a->shape.rank >= 0 && b->shape.rank >= 0 && !resolve(n, &a->shape, &b->shape, &p))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected rows and a matrix that fits them, found %s and %s",
                             hk_shape_print(&a->shape, &ta), hk_shape_print(&b->shape, &tb));
    for (int32_t i = SCALE; i < n->in_count; i++) {
        const hk_shape *s = n->in[i] ? &n->in[i]->shape : NULL;
        if (!s || s->rank < 0 || p.y.rank < 0 || !hk_shape_known(&p.y))
            continue;
        bool fits = i == RESIDUAL ? hk_shape_equal(s, &p.y)
                                  : hk_shape_count(s) == p.columns && s->dim[s->rank - 1] == p.columns;
        if (!fits)
            return hk_infer_fail(in, HK_STATUS_INVALID, "input '%s' has shape %s, expected %s of %s", n->in[i]->name,
                                 hk_shape_print(s, &ta), i == RESIDUAL ? "that" : "a row", hk_shape_print(&p.y, &tb));
    }
    HK_TRY(hk_infer_output(in, Y, a->dtype, &p.y));
    return hk_infer_output(in, Z, a->dtype, &p.y);
}

static double element(const hk_eval *e, int32_t i, int64_t at, double absent)
{
    return hk_in(e->node, i) ? hk_get_double(e->in[i], at) : absent;
}

static void eval_row(const hk_eval *e, const problem *p, int64_t row, double *z)
{
    const gemm_norm_attrs *at = e->node->attrs;
    for (int64_t j = 0; j < p->columns; j++) {
        double sum = 0.0;
        for (int64_t k = 0; k < p->k; k++)
            sum += hk_get_double(e->in[A], row * p->k + k) *
                   hk_get_double(e->in[B], at->transB ? j * p->k + k : k * p->columns + j);
        z[j] = (double)at->alpha * sum + (double)at->beta * element(e, BIAS, j, 0.0) +
               element(e, RESIDUAL, row * p->columns + j, 0.0);
    }
}

static hk_status eval(hk_eval *e)
{
    const gemm_norm_attrs *at = e->node->attrs;
    const hk_shape a = hk_tensor_shape(e->in[A]), b = hk_tensor_shape(e->in[B]);
    problem p;
    if (!resolve(e->node, &a, &b, &p))
        return hk_eval_fail(e, HK_STATUS_INVALID, "expected matrices that fit each other");
    hk_tensor *y = hk_eval_output(e, Y, e->in[A]->dtype, &p.y), *kept = hk_eval_output(e, Z, e->in[A]->dtype, &p.y);
    double *z = hk_arena_array(e->arena, (size_t)p.columns + 1, sizeof *z);
    if (!y || !z || (hk_out(e->node, Z) && !kept))
        return hk_out_of_memory(e->ctx, "a normalized product");
    for (int64_t row = 0; row < p.rows; row++) {
        double mean = 0.0, squares = 0.0;
        eval_row(e, &p, row, z);
        for (int64_t j = 0; j < p.columns; j++)
            mean += z[j] / (double)p.columns;
        for (int64_t j = 0; j < p.columns; j++)
            squares += (z[j] - mean) * (z[j] - mean);
        double deviation = 1.0 / sqrt(squares / (double)p.columns + (double)at->epsilon);
        for (int64_t j = 0; j < p.columns; j++) {
            hk_set_double(y, row * p.columns + j,
                          (z[j] - mean) * deviation * element(e, SCALE, j, 1.0) + element(e, SHIFT, j, 0.0));
            if (kept)
                hk_set_double(kept, row * p.columns + j, z[j]);
        }
    }
    return HK_OK;
}

/* ---- the device */

typedef struct job {
    hk_gemm product;
    hk_norm_rows norm; /* x: z */
    hk_team team;
    uint32_t held; /* 0: rows are no whole vectors or too long for the kernel that does both */
} job;

static void emit_both(hk_lower *l, const job *j, const hk_gemm_sums *sums)
{
    const hk_gemm *p = &j->product;
    const hk_norm_rows *v = &j->norm;
    hk_value *z = hk_out(l->node, Z);
    const struct gemm_norm_push push = {.rows = (uint32_t)v->rows,
                                        .extent = (uint32_t)v->extent,
                                        .alpha = p->alpha,
                                        .beta = p->beta,
                                        .epsilon = v->epsilon};
    hk_record *r = hk_team_emit(l, &j->team, (hk_team_kernel){&hk_kernel_gemm_norm, &hk_kernel_gemm_norm_subgroup},
                                "gemm sum of splits, norm", v->rows, &push, sizeof push);
    const uint32_t specs[] = {j->held,
                              true,
                              (uint32_t)sums->count,
                              p->bias != NULL,
                              p->residual != NULL,
                              z != NULL,
                              v->bias != NULL,
                              hk_stores_halves(p->residual),
                              hk_stores_halves(z),
                              hk_stores_halves(v->y)};
    for (uint32_t i = 0; i < HK_COUNT(specs); i++)
        hk_spec(r, HK_TEAM_SPEC + i, specs[i]);
    hk_use(r, sums->value, HK_READ, offsetof(struct gemm_norm_push, sums));
    hk_use(r, p->bias, HK_READ, offsetof(struct gemm_norm_push, addend));
    hk_use(r, p->residual, HK_READ, offsetof(struct gemm_norm_push, residual));
    hk_use(r, z, HK_WRITE, offsetof(struct gemm_norm_push, z));
    hk_use(r, v->scale, HK_READ, offsetof(struct gemm_norm_push, scale));
    hk_use(r, v->bias, HK_READ, offsetof(struct gemm_norm_push, bias));
    hk_use(r, v->y, HK_WRITE, offsetof(struct gemm_norm_push, y));
    r->flops = 8.0 * (double)(v->rows * v->extent);
}

/* Where the product goes: z, or scratch stored as the result is. */
static hk_value *target(hk_lower *l)
{
    hk_value *z = hk_out(l->node, Z), *y = l->node->out[Y];
    if (z)
        return z;
    z = hk_scratch(l, HK_FLOAT32, hk_shape_count(&y->shape));
    if (z)
        z->storage = y->storage;
    return z;
}

static hk_status lower(hk_lower *l)
{
    const hk_node *n = l->node;
    const gemm_norm_attrs *at = n->attrs;
    problem q;
    hk_gemm_sums sums = {0};
    uint32_t splits;
    for (int32_t i = SCALE; i <= SHIFT; i++)
        HK_TRY(hk_require_float32(l, hk_in(n, i)));
    if (!resolve(n, &n->in[A]->shape, &n->in[B]->shape, &q) || hk_shape_count(&q.y) == 0)
        return HK_OK; /* of nothing: shapes were inferred */
    hk_value *z = target(l);
    if (!z)
        return HK_OK; /* l->failed tells */
    job j = {.product = {.a = n->in[A],
                         .b = n->in[B],
                         .bias = hk_as_float32(l, hk_in(n, BIAS)),
                         .residual = hk_in(n, RESIDUAL),
                         .c = z,
                         .m = q.rows,
                         .n = q.columns,
                         .k = q.k,
                         .lda = q.k,
                         .ldb = at->transB ? q.k : q.columns,
                         .trans_b = at->transB != 0,
                         .bias_n = 1,
                         .alpha = at->alpha,
                         .beta = at->beta},
             .norm = {.x = z,
                      .y = n->out[Y],
                      .scale = n->in[SCALE],
                      .bias = hk_in(n, SHIFT),
                      .rows = q.rows,
                      .extent = q.columns,
                      .epsilon = at->epsilon,
                      .centered = true}};
    hk_value *const read[] = {j.product.bias, j.product.residual, z, j.norm.scale, j.norm.bias, j.norm.y};
    j.team = hk_team_rows(l, q.rows, q.columns / 4);
    if (q.columns % 4 == 0 && hk_aligned_all((const hk_value *const *)read, HK_COUNT(read)))
        j.held = hk_team_held(l, &j.team, q.columns / 4);
    hk_gemm_simplify(&j.product);
    j.product.sums = j.held ? &sums : NULL;
    const hk_gemm_variant *v = hk_gemm_choose(l, &j.product, &splits);
    hk_gemm_emit(l, &j.product, v, splits);
    if (sums.value)
        emit_both(l, &j, &sums);
    hk_status st = sums.value ? HK_OK : hk_emit_norm_rows(l, &j.norm);
    hk_choice_leave(l, HK_CHOICE_TILE);
    return st;
}

/* Those with long K are split on devices of many units. */
static const char *const cases[] = {
    "f32[3,4] f32[4,8] f32[8] ; ; nograd",
    "f32[2,5,7] f32[7,6] f32[6] f32[6] f32[6] f32[2,5,6] ; alpha=0.5 beta=2.0 epsilon=0.01 ; nograd",
    "f32[1,9,40] f32[12,40] f32[12] f32[12] f32[12] ; transB=1 ; nograd",
    "f32[33,3000] f32[3000,36] f32[36] f32[36] f32[36] f32[33,36] ; ; nograd",
    "f32[40,2050] f32[64,2050] f32[64] f32[64] f32[1,64] f32[40,64] ; transB=1 alpha=0.5 ; nograd",
    "f32[34,1600] f32[1600,260] f32[260] - - f32[34,260] ; ; nograd",
    "f32[0,4] f32[4,8] f32[8] ; ; nograd",
    NULL,
};

const hk_op hk_ops_gemm_norm[] = {
    {.type = "hk.GemmNorm",
     .since = 1,
     .in_min = 3,
     .in_max = 6,
     .out_min = 1,
     .out_max = 2,
     .half_in = 1u << A | 1u << B | 1u << RESIDUAL,
     .half_out = 1u << Y | 1u << Z,
     .attrs_bytes = sizeof(gemm_norm_attrs),
     .attrs = attr_list,
     .infer = infer,
     .eval = eval,
     .lower = lower,
     .cases = cases},
    {0},
};

/*
 * hk.Excite(X, W1, W2, B1, B2; activation_1, alpha_1, beta_1, activation_2, alpha_2, beta_2) -> Y
 *
 * What stands between the pooling and the scaling of squeeze-and-excitation (arXiv 1709.01507, equation 3), two
 * convolutions of single pixels: Y = act2(W2 act1(W1 X + B1) + B2). X is (n, c, 1, ...) with c a multiple of 8, W1
 * (s, c, 1, ...) with s at most 128, W2 (k, s, 1, ...), Y (n, k, 1, ...). Biases may be absent. With row_sums, X is
 * (n, rows, c): sums of an image's rows, which are added up and multiplied with the factor. A pass makes it
 * (runtime/fuse_excitation.c).
 */
#include "kernels.h"
#include "ops/activation.h"
#include "ops/support/excite.h"
#include "ops/support/gemm.h"
#include "ops/support/move.h"
#include "shaders/excite.push.h"

enum { X, W1, W2, B1, B2 };

typedef struct excite_attrs {
    int64_t activation_1, activation_2; /* codes of ops/activation.h with their parameters */
    float alpha_1, beta_1, alpha_2, beta_2;
    int64_t row_sums;
    float factor;
} excite_attrs;

static const hk_attr attr_list[] = {HK_INT_ATTR(excite_attrs, activation_1, 0),
                                    HK_INT_ATTR(excite_attrs, activation_2, 0),
                                    HK_FLOAT_ATTR(excite_attrs, alpha_1, 0.0),
                                    HK_FLOAT_ATTR(excite_attrs, beta_1, 0.0),
                                    HK_FLOAT_ATTR(excite_attrs, alpha_2, 0.0),
                                    HK_FLOAT_ATTR(excite_attrs, beta_2, 0.0),
                                    HK_INT_ATTR(excite_attrs, row_sums, 0),
                                    HK_FLOAT_ATTR(excite_attrs, factor, 1.0),
                                    {0}};

static bool is_pixel(const hk_shape *s)
{
    return s->rank >= 2 && hk_shape_span(s, 2, s->rank) == 1;
}

/* The pixels of X, (n, c, 1, ...) with as many dimensions as the weights have. */
static hk_shape pixels_of(const hk_node *n)
{
    const excite_attrs *a = n->attrs;
    hk_shape x = n->in[X]->shape;
    if (!a->row_sums || x.rank != 3)
        return x;
    hk_shape pixels = {.rank = n->in[W2]->shape.rank, .dim = {x.dim[0], x.dim[2]}};
    for (int32_t d = 2; d < pixels.rank; d++)
        pixels.dim[d] = 1;
    return pixels;
}

static hk_status infer_excite(hk_infer *in)
{
    const hk_node *n = in->node;
    const excite_attrs *a = n->attrs;
    const hk_value *x = n->in[X];
    const hk_shape *w1 = &n->in[W1]->shape, *w2 = &n->in[W2]->shape;
    hk_shape y = pixels_of(n);
    hk_shape_text tx, t1, t2;
    if (!hk_activation_valid(a->activation_1) || !hk_activation_valid(a->activation_2))
        return hk_infer_fail(in, HK_STATUS_INVALID, "activations %lld and %lld: expected codes below %d",
                             (long long)a->activation_1, (long long)a->activation_2, HK_ACT_COUNT);
    if (!hk_shape_known(&y) || !hk_shape_known(w1) || !hk_shape_known(w2) || !is_pixel(&y) || !is_pixel(w1) ||
        !is_pixel(w2) || y.dim[1] != w1->dim[1] || w1->dim[0] != w2->dim[1] || y.dim[1] % HK_EXCITE_OCTET ||
        w1->dim[0] > HK_EXCITE_SQUEEZED)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "expected X (n, c, 1, ...), W1 (s, c, 1, ...), W2 (k, s, 1, ...) with c a multiple of %d "
                             "and s at most %d, found %s, %s, %s",
                             HK_EXCITE_OCTET, HK_EXCITE_SQUEEZED, hk_shape_print(&y, &tx), hk_shape_print(w1, &t1),
                             hk_shape_print(w2, &t2));
    for (int32_t i = B1; i <= B2; i++) {
        const hk_value *b = hk_in(n, i);
        int64_t rows = i == B1 ? w1->dim[0] : w2->dim[0];
        if (b && hk_shape_known(&b->shape) && hk_shape_count(&b->shape) != rows)
            return hk_infer_fail(in, HK_STATUS_INVALID, "expected a bias of %lld elements, found %s", (long long)rows,
                                 hk_shape_print(&b->shape, &t1));
    }
    y.dim[1] = w2->dim[0];
    return hk_infer_output(in, 0, x->dtype, &y);
}

/* y = act(w x + b) for one image. */
static void multiply(const hk_tensor *w, const hk_tensor *b, const double *x, int64_t rows, int64_t columns,
                     const double activation[3], double *y)
{
    for (int64_t r = 0; r < rows; r++) {
        double sum = b ? hk_get_double(b, r) : 0.0;
        for (int64_t c = 0; c < columns; c++)
            sum += hk_get_double(w, r * columns + c) * x[c];
        y[r] = hk_activation_apply((int64_t)activation[0], sum, activation[1], activation[2]);
    }
}

static hk_status eval_excite(hk_eval *e)
{
    const excite_attrs *a = e->node->attrs;
    const hk_shape *w1 = &e->node->in[W1]->shape, *w2 = &e->node->in[W2]->shape, *shape = &e->node->out[0]->shape;
    const double first[3] = {(double)a->activation_1, (double)a->alpha_1, (double)a->beta_1};
    const double second[3] = {(double)a->activation_2, (double)a->alpha_2, (double)a->beta_2};
    const hk_tensor *b1 = hk_in(e->node, B1) ? e->in[B1] : NULL, *b2 = hk_in(e->node, B2) ? e->in[B2] : NULL;
    int64_t c = w1->dim[1], s = w1->dim[0], k = w2->dim[0], rows = a->row_sums ? e->node->in[X]->shape.dim[1] : 1;
    hk_tensor *y = hk_eval_output(e, 0, e->in[X]->dtype, shape);
    double *all = hk_arena_array(e->arena, (size_t)(c + s + k), sizeof *all);
    if (!y || !all)
        return hk_out_of_memory(e->ctx, "evaluating squeeze-and-excitation");
    for (int64_t image = 0; image < shape->dim[0]; image++) {
        for (int64_t i = 0; i < c; i++) {
            all[i] = 0.0;
            for (int64_t r = 0; r < rows; r++)
                all[i] += (double)a->factor * hk_get_double(e->in[X], (image * rows + r) * c + i);
        }
        multiply(e->in[W1], b1, all, s, c, first, all + c);
        multiply(e->in[W2], b2, all + c, k, s, second, all + c + s);
        for (int64_t i = 0; i < k; i++)
            hk_set_double(y, image * k + i, all[c + s + i]);
    }
    return HK_OK;
}

/* (k, s) to (s, k), once where the weights are constant. */
static hk_status turn(hk_lower *l, hk_value *w, int64_t k, int64_t s, hk_value **turned)
{
    hk_move m = {0};
    w = hk_as_float32(l, w);
    *turned = hk_scratch(l, HK_FLOAT32, k * s);
    if (!*turned)
        return hk_out_of_memory(l->ctx, "squeeze-and-excitation's weights");
    hk_move_add(&m, k, s, 1);
    hk_move_add(&m, s, 1, k);
    size_t first = l->record_count;
    HK_TRY(hk_emit_move(l, &m, w, *turned));
    for (size_t i = first; i < l->record_count; i++)
        l->records[i]->keep = true;
    return HK_OK;
}

/* A copy of what vectors cannot be read from. */
static hk_value *aligned(hk_lower *l, hk_value *v)
{
    if (hk_value_alignment(v) == 16)
        return v;
    hk_value *copy = hk_scratch(l, hk_value_storage(v), hk_shape_count(&v->shape));
    if (copy)
        hk_emit_copy(l, v, 0, copy, 0, hk_value_bytes(v));
    return copy ? copy : v; /* l->failed tells */
}

static hk_status lower_excite(hk_lower *l)
{
    const hk_node *n = l->node;
    const excite_attrs *a = n->attrs;
    const hk_shape *w1 = &n->in[W1]->shape, *y = &n->out[0]->shape;
    hk_value *x = aligned(l, n->in[X]), *w = aligned(l, n->in[W1]), *turned = NULL;
    if (hk_shape_count(y) == 0)
        return HK_OK;
    HK_TRY(turn(l, n->in[W2], y->dim[1], w1->dim[0], &turned));
    const struct excite_push push = {.images = (uint32_t)y->dim[0],
                                     .octets = (uint32_t)w1->dim[1] / HK_EXCITE_OCTET,
                                     .squeezed = (uint32_t)w1->dim[0],
                                     .outputs = (uint32_t)y->dim[1],
                                     .rows = a->row_sums ? (uint32_t)n->in[X]->shape.dim[1] : 1,
                                     .factor = a->factor,
                                     .alpha1 = a->alpha_1,
                                     .beta1 = a->beta_1,
                                     .alpha2 = a->alpha_2,
                                     .beta2 = a->beta_2};
    hk_record *r = hk_emit(l, &hk_kernel_excite, hk_stores_halves(w) ? "excite f16" : "excite f32");
    hk_push(r, &push, sizeof push);
    hk_use(r, x, HK_READ, offsetof(struct excite_push, x));
    hk_use(r, w, HK_READ, offsetof(struct excite_push, w1));
    hk_use(r, hk_in(n, B1), HK_READ, offsetof(struct excite_push, b1));
    hk_use(r, turned, HK_READ, offsetof(struct excite_push, w2));
    hk_use(r, hk_in(n, B2), HK_READ, offsetof(struct excite_push, b2));
    hk_use(r, n->out[0], HK_WRITE, offsetof(struct excite_push, y));
    uint32_t lanes = l->cpu ? 1 : 32, threads = l->cpu ? 8 : 128, channels = 256;
    while (!l->cpu && threads < 512 && threads * 2 <= l->device->max_invocations && threads < push.outputs)
        threads *= 2; /* more rows of W1 at a time */
    while (a->row_sums && channels < 8 * push.octets)
        channels *= 2;
    uint32_t most = push.squeezed <= 64 ? 64 : HK_EXCITE_SQUEEZED;
    while (lanes > 1 && 4 * (most * (lanes + 2) + (a->row_sums ? channels : 4)) > l->device->max_shared_bytes)
        lanes /= 2;
    hk_workgroup(r, threads, 1, 1);
    const uint32_t specs[] = {threads,
                              lanes,
                              most,
                              hk_stores_halves(w),
                              (hk_in(n, B1) ? 1u : 0u) | (hk_in(n, B2) ? 2u : 0u),
                              (uint32_t)a->activation_1,
                              (uint32_t)a->activation_2,
                              a->row_sums ? channels : 0};
    for (uint32_t i = 0; i < HK_COUNT(specs); i++)
        hk_spec(r, 3 + i, specs[i]);
    r->flops = 2.0 * push.images * push.squeezed * (8.0 * push.octets + push.outputs);
    hk_grid_1d(l, r, (uint64_t)push.images * ((push.outputs + threads - 1) / threads));
    return HK_OK;
}

static const char *const excite_cases[] = {
    "f32[1,32,1,1] f32[8,32,1,1] f32[32,8,1,1] f32[8] f32[32]; activation_1=7 activation_2=3; nograd",
    "f32[3,96,1,1] f32[4,96,1,1] f32[96,4,1,1] f32[4] f32[96]; activation_1=1 activation_2=9 alpha_2=0.2 beta_2=0.5; "
    "nograd",
    "f32[2,40,1,1] f32[10,40,1,1] f32[37,10,1,1]; activation_1=7 activation_2=3; nograd",
    "f32[2,1152,1,1] f32[48,1152,1,1] f32[1152,48,1,1] - f32[1152]; activation_1=7 activation_2=3; nograd",
    "f32[1,64,1] f32[128,64,1] f32[24,128,1] f32[128] f32[24]; ; nograd",
    "f32[0,16,1,1] f32[4,16,1,1] f32[16,4,1,1] f32[4] f32[16]; ; nograd",
    "f32[2,7,40] f32[10,40,1,1] f32[40,10,1,1] f32[10]; row_sums=1 factor=0.25 activation_1=7 activation_2=3; nograd",
    "f32[1,3,264] f32[12,264,1,1] f32[24,12,1,1] - f32[24]; row_sums=1 factor=0.1 activation_2=3; nograd",
    NULL,
};

const hk_op hk_ops_excite[] = {
    {
        .type = "hk.Excite",
        .since = 1,
        .in_min = 3,
        .in_max = 5,
        .out_min = 1,
        .out_max = 1,
        .parameters = 1u << W1 | 1u << B1 | 1u << W2 | 1u << B2,
        .half_in = 1u << W1,
        .attrs_bytes = sizeof(excite_attrs),
        .attrs = attr_list,
        .infer = infer_excite,
        .eval = eval_excite,
        .lower = lower_excite,
        .cases = excite_cases,
    },
    {0},
};

/* Operands of products of int8 or uint8, as matrix units take them (shaders/pack_int8.comp). */
#include "kernels.h"
#include "ops/support/conv_geometry.h"
#include "ops/support/gemm.h"
#include "shaders/pack_int8.push.h"

enum { ROW_BYTES = 16 }; /* rows of the copy are filled up to as many */

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static void push_windows(hk_record *r, const hk_conv *c, struct pack_int8_push *push)
{
    const hk_window *w = &c->w;
    push->image = (uint32_t)(c->c * hk_window_in_count(w));
    push->groups = (uint32_t)c->groups;
    push->in_h = (uint32_t)w->in[HK_AXIS_H];
    push->in_w = (uint32_t)w->in[HK_AXIS_W];
    push->out_w = (uint32_t)w->out[HK_AXIS_W];
    const int64_t spec[] = {hk_window_taps(w),      w->kernel[HK_AXIS_W],   w->stride[HK_AXIS_H], w->stride[HK_AXIS_W],
                            w->dilation[HK_AXIS_H], w->dilation[HK_AXIS_W], w->begin[HK_AXIS_H],  w->begin[HK_AXIS_W]};
    for (uint32_t i = 0; i < HK_COUNT(spec); i++)
        hk_spec(r, 9 + i, (uint32_t)spec[i]);
}

bool hk_gemm_pack_int8(hk_lower *l, const hk_int8_operand *x, hk_gemm *p)
{
    int64_t rows = x->matrices * x->outer, row = ceil_div(x->k, ROW_BYTES) * (ROW_BYTES / 4);
    hk_value *packed = hk_scratch(l, HK_INT32, rows * row), *edges = hk_scratch(l, HK_INT32, 2 * rows);
    if (!packed || !edges)
        return false;
    hk_record *r = hk_emit(l, &hk_kernel_pack_int8, x->second ? "int8 pack B" : "int8 pack A");
    r->keep = true; /* once, where the operand is constant */
    struct pack_int8_push push = {.outer = (uint32_t)x->outer,
                                  .k = (uint32_t)x->k,
                                  .row = (uint32_t)row,
                                  .ld = (uint32_t)x->ld,
                                  .matrix = (uint32_t)x->matrix,
                                  .matrices = (uint32_t)x->matrices};
    const uint32_t threads = 128, lanes = x->along && !x->windows ? 32 : 4;
    hk_workgroup(r, threads, 1, 1);
    hk_spec(r, 3, threads);
    hk_spec(r, 4, lanes);
    hk_spec(r, 5, x->along && !x->windows);
    hk_spec(r, 6, x->v->dtype == HK_UINT8);
    hk_spec(r, 7, x->zeros ? (uint32_t)hk_shape_count(&x->zeros->shape) : 0);
    hk_spec(r, 8, x->second);
    if (x->windows)
        push_windows(r, x->windows, &push);
    hk_push(r, &push, sizeof push);
    hk_use(r, x->v, HK_READ, offsetof(struct pack_int8_push, from));
    hk_use(r, x->zeros, HK_READ, offsetof(struct pack_int8_push, zeros));
    hk_use(r, packed, HK_WRITE, offsetof(struct pack_int8_push, to));
    hk_use(r, edges, HK_WRITE, offsetof(struct pack_int8_push, edges));
    hk_grid_1d(l, r, (uint64_t)ceil_div(rows, threads / lanes));
    *(x->second ? &p->b : &p->a) = packed;
    *(x->second ? &p->residual : &p->bias) = edges;
    *(x->second ? &p->ldb : &p->lda) = p->k = 2 * row;
    p->int8 = p->trans_b = true;
    return true;
}

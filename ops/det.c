/* Det: the determinants of a batch of square matrices. */
#include <math.h>

#include "kernels.h"
#include "ops/support/conv_geometry.h"
#include "ops/support/reduce.h"
#include "shaders/det.push.h"

enum { ALONE = 8, LANES = 64 }; /* matrices up to this size have an invocation each */

static hk_status det_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0];
    hk_shape y = x->shape;
    hk_shape_text text;
    if (!hk_dtype_is_float(x->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected a float input, found %s", hk_dtype_name(x->dtype));
    if (y.rank >= 0) {
        int64_t rows = y.rank > 1 ? y.dim[y.rank - 2] : 0, columns = y.rank > 1 ? y.dim[y.rank - 1] : 0;
        if (y.rank < 2 || (rows >= 0 && columns >= 0 && rows != columns))
            return hk_infer_fail(in, HK_STATUS_INVALID, "expected square matrices [..., M, M], found %s",
                                 hk_shape_print(&y, &text));
        y.rank -= 2;
    }
    return hk_infer_output(in, 0, x->dtype, &y);
}

static double determinant(double *a, int64_t n)
{
    double det = 1;
    for (int64_t k = 0; k < n; k++) {
        int64_t row = k;
        for (int64_t i = k + 1; i < n; i++)
            row = fabs(a[i * n + k]) > fabs(a[row * n + k]) ? i : row;
        double pivot = a[row * n + k];
        det *= row == k ? pivot : -pivot;
        if (pivot == 0)
            return 0;
        for (int64_t j = k; j < n; j++) {
            double v = a[row * n + j];
            a[row * n + j] = a[k * n + j];
            a[k * n + j] = v;
        }
        for (int64_t i = k + 1; i < n; i++)
            for (int64_t j = k + 1; j < n; j++)
                a[i * n + j] -= a[i * n + k] / pivot * a[k * n + j];
    }
    return det;
}

static hk_status det_eval(hk_eval *e)
{
    hk_shape s = hk_tensor_shape(e->in[0]);
    int64_t n = s.dim[s.rank - 1];
    s.rank -= 2;
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &s);
    double *a = hk_tensor_doubles(e->arena, e->in[0]);
    if (!y || !a)
        return hk_out_of_memory(e->ctx, "evaluating Det");
    for (int64_t i = 0; i < hk_tensor_count(y); i++)
        hk_set_double(y, i, determinant(a + i * n * n, n));
    return HK_OK;
}

static hk_status det_lower(hk_lower *l)
{
    hk_value *x = l->node->in[0], *y = l->node->out[0];
    HK_TRY(hk_require_float32(l, x));
    int64_t matrices = hk_shape_count(&y->shape), n = x->shape.dim[x->shape.rank - 1];
    if (matrices == 0)
        return HK_OK;
    if (n == 0) {
        hk_emit_fill(l, y, 0x3f800000u); /* the empty product */
        return HK_OK;
    }
    hk_value *work = hk_scratch(l, HK_FLOAT32, matrices * n * n);
    if (!work)
        return hk_out_of_memory(l->ctx, "matrices under elimination");
    bool alone = l->cpu || n <= ALONE;
    uint32_t lanes = alone ? 1 : LANES, items = alone ? (l->cpu ? 8 : LANES) : 1;
    hk_record *r = hk_emit(l, &hk_kernel_det, alone ? "det, one lane a matrix" : "det, one workgroup a matrix");
    struct det_push push = {.matrices = (uint32_t)matrices, .size = (uint32_t)n};
    hk_push(r, &push, sizeof push);
    hk_use(r, x, HK_READ, offsetof(struct det_push, x));
    hk_use(r, work, HK_READ_WRITE, offsetof(struct det_push, work));
    hk_use(r, y, HK_WRITE, offsetof(struct det_push, y));
    hk_workgroup(r, lanes * items, 1, 1);
    hk_spec(r, 3, lanes);
    hk_spec(r, 4, items);
    hk_grid_1d(l, r, (uint64_t)((matrices + items - 1) / items));
    r->flops = 2.0 / 3.0 * (double)matrices * (double)(n * n * n);
    return HK_OK;
}

static const char *const det_cases[] = {
    "f32[2,2] ; ; nograd",
    "f32[3,2,4,4] ; ; nograd",
    "f32[2,40,40] ; ; nograd tol=1e-4",
    "f32[3,3]={0,1,2,1,0,3,4,-3,8} ; ; nograd",
    "f32[2,2]={1,2,2,4} ; ; nograd",
    "f32[0,3,3] ; ; nograd",
    "f32[2,0,0] ; ; nograd",
    "f32[1,1] ; ; nograd",
    "f32[300,3,3] ; ; nograd",
    NULL,
};

const hk_op hk_ops_det[] = {
    {.type = "Det",
     .since = 11,
     .in_min = 1,
     .in_max = 1,
     .out_min = 1,
     .out_max = 1,
     .infer = det_infer,
     .eval = det_eval,
     .lower = det_lower,
     .cases = det_cases},
    {0},
};

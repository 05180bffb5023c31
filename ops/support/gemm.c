/* GEMM: simplifying a problem and emitting its records. What runs on the device is described in shaders/gemm*.comp. */
#include "ops/support/gemm.h"

#include "kernels.h"
#include "ops/divisor.h"
#include "ops/support/choice.h"
#include "ops/support/neuron_lower.h"
#include "shaders/convert.push.h"
#include "shaders/gemm.push.h"

/* Bits of the specialization constants 3, 4 and 5 of shaders/gemm_common.glsl. */
enum { TRANS_A = 1, TRANS_B = 2, TRANS_C = 4 };
enum { WIDE_A = 1, WIDE_B = 2, WIDE_C = 4 };
enum {
    EPILOGUE_BIAS = 1,
    EPILOGUE_RESIDUAL = 2,
    EPILOGUE_PARTIAL = 4,
    EPILOGUE_HALF_RESIDUAL = 8,
    EPILOGUE_HALF_C = 16
};
/* And of constant 18 of gemm_coopmat.comp. */
enum { FLOATS_A = 1, FLOATS_B = 2 };
enum { SPEC_SCAN = 20, SPEC_RATE, SPEC_REST, SPEC_THRESHOLD, SPEC_NEURON };

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static uint32_t power_of_two_up_to(int64_t x)
{
    uint32_t p = 1;
    while (2 * (int64_t)p <= x && p < 1u << 30)
        p *= 2;
    return p;
}

/* ---- the problem */

int64_t hk_gemm_batches(const hk_gemm *p)
{
    int64_t count = 1;
    for (int32_t d = 0; d < p->batch_rank; d++)
        count *= p->batch[d];
    return count;
}

void hk_gemm_batch_strides(const hk_shape *batch, int64_t matrix, const hk_shape *result, int64_t strides[HK_MAX_RANK])
{
    int64_t stride = matrix;
    for (int32_t d = result->rank - 1, i = batch->rank - 1; d >= 0; d--, i--) {
        strides[d] = i >= 0 && batch->dim[i] != 1 ? stride : 0;
        stride *= i >= 0 ? batch->dim[i] : 1;
    }
}

static void drop_batch_dim(hk_gemm *p, int32_t d)
{
    for (int32_t i = d; i + 1 < p->batch_rank; i++) {
        p->batch[i] = p->batch[i + 1];
        p->batch_a[i] = p->batch_a[i + 1];
        p->batch_b[i] = p->batch_b[i + 1];
        p->batch_bias[i] = p->batch_bias[i + 1];
    }
    p->batch_rank--;
}

static void merge_batch_dims(hk_gemm *p)
{
    for (int32_t d = p->batch_rank - 1; d >= 0; d--)
        if (p->batch[d] == 1)
            drop_batch_dim(p, d);
    for (int32_t d = p->batch_rank - 2; d >= 0; d--) {
        int64_t inner = p->batch[d + 1];
        if (p->batch_a[d] != p->batch_a[d + 1] * inner || p->batch_b[d] != p->batch_b[d + 1] * inner ||
            p->batch_bias[d] != p->batch_bias[d + 1] * inner)
            continue;
        p->batch[d + 1] *= p->batch[d];
        drop_batch_dim(p, d);
    }
}

void hk_gemm_simplify(hk_gemm *p)
{
    merge_batch_dims(p);
    if (p->m == 1) { /* a single row: any orientation, any distance to the next */
        p->trans_a = false;
        p->lda = p->batch_rank == 1 && p->batch_a[0] ? p->batch_a[0] : p->k;
        p->bias_m = p->batch_rank == 1 ? p->batch_bias[0] : 0;
    }
    bool shared_b = p->batch_rank == 1 && p->batch_b[0] == 0 && !p->trans_a && !p->trans_c;
    if (shared_b && p->batch_a[0] == p->m * p->lda && p->batch_bias[0] == p->m * p->bias_m) {
        p->m *= p->batch[0]; /* one tall matrix instead of a batch */
        p->batch_rank = 0;
    }
    if (p->n == 1) {
        p->trans_b = true;
        p->ldb = p->k;
    }
    if (p->k == 1 && !p->trans_a &&
        (p->lda == 1 || p->m == 1)) { /* an outer product: its operands run along rows and columns */
        p->trans_a = true;
        p->lda = p->m;
    }
    if (p->k == 1 && p->trans_b && (p->ldb == 1 || p->n == 1)) {
        p->trans_b = false;
        p->ldb = p->n;
    }
}

void hk_gemm_fold(hk_gemm *p)
{
    bool shared = p->batch_rank == 1 && p->batch_a[0] == 0 && p->batch_bias[0] == 0 && p->bias_n == 0;
    bool image = p->batch_rank == 0 && p->line; /* one, whose pixels are strided */
    if (!(shared || image) || p->plane_k || p->trans_b || p->trans_c || p->split_b || hk_stores_halves(p->b) ||
        (p->ldb != p->n && !p->line))
        return;
    p->plane = p->n;
    p->n *= shared ? p->batch[0] : 1;
    p->batch_rank = 0;
}

void hk_gemm_swap(hk_gemm *p)
{
    hk_gemm q = *p;
    p->a = q.b;
    p->b = q.a;
    p->m = q.n;
    p->n = q.m;
    p->lda = q.ldb;
    p->ldb = q.lda;
    p->trans_a = !q.trans_b;
    p->trans_b = !q.trans_a;
    p->trans_c = !q.trans_c;
    p->bias_m = q.bias_n;
    p->bias_n = q.bias_m;
    for (int32_t d = 0; d < HK_MAX_RANK; d++) {
        p->batch_a[d] = q.batch_b[d];
        p->batch_b[d] = q.batch_a[d];
    }
}

/* ---- records */

static void emit_convert(hk_lower *l, hk_value *x, hk_value *y, bool keep)
{
    int64_t count = hk_shape_count(&x->shape);
    if (count <= 0)
        return;
    bool halve = hk_stores_halves(y);
    const hk_kernel *widen = hk_value_storage(x) == HK_BFLOAT16 ? &hk_kernel_convert_bf16_f32
                                                                : &hk_kernel_convert_f16_f32;
    hk_record *r = hk_emit(l, halve ? &hk_kernel_convert_f32_f16 : widen, halve ? "convert f16" : "convert f32");
    r->keep = keep;
    struct convert_push push = {.count = (uint32_t)count};
    hk_push(r, &push, sizeof push);
    hk_use(r, x, HK_READ, offsetof(struct convert_push, x));
    hk_use(r, y, count % 2 && halve ? HK_READ_WRITE : HK_WRITE, offsetof(struct convert_push, y));
    uint32_t threads = l->cpu ? 64 : 128;
    hk_workgroup(r, threads, 1, 1);
    hk_spec(r, 3, hk_value_alignment(x) == 16 && hk_value_alignment(y) == 16);
    hk_grid_1d(l, r, (uint64_t)ceil_div(count, 8 * (int64_t)threads));
}

void hk_emit_convert(hk_lower *l, hk_value *x, hk_value *y)
{
    emit_convert(l, x, y, false);
}

hk_value *hk_as_float32(hk_lower *l, hk_value *x)
{
    if (!x || !hk_dtype_is_half(hk_value_storage(x)) || hk_shape_count(&x->shape) == 0)
        return x;
    hk_value *y = hk_scratch(l, HK_FLOAT32, hk_shape_count(&x->shape));
    if (!y)
        return x;
    emit_convert(l, x, y, true); /* once, where x is constant */
    return y;
}

hk_value *hk_float32_target(hk_lower *l, hk_value *y)
{
    return hk_stores_halves(y) ? hk_scratch(l, HK_FLOAT32, hk_shape_count(&y->shape)) : y;
}

/* Whether an operand can be read width elements at a time. */
static bool is_wide(const hk_gemm *p, const hk_value *v, const int64_t *batch, int64_t ld, int64_t extent,
                    int64_t width)
{
    if (hk_value_alignment(v) != 16 || ld % width || extent % width)
        return false;
    for (int32_t d = 0; d < p->batch_rank; d++)
        if (batch[d] % width)
            return false;
    return true;
}

static uint32_t wide_bits(const hk_gemm *p, int64_t width)
{
    bool a = is_wide(p, p->a, p->batch_a, p->lda, p->trans_a ? p->m : p->k, width);
    bool b = is_wide(p, p->b, p->batch_b, p->ldb, p->trans_b ? p->k : p->n, width);
    bool c = !p->trans_c && (p->plane ? p->plane : p->n) % 4 == 0 && hk_value_alignment(p->c) == 16 &&
             (!p->residual || hk_value_alignment(p->residual) == 16);
    return (a ? WIDE_A : 0u) | (b ? WIDE_B : 0u) | (c ? WIDE_C : 0u);
}

/* The table that replaces batch_inner for more than two batch dimensions: see batch_offsets() in gemm_common.glsl. */
static void set_batch(hk_lower *l, hk_record *r, const hk_gemm *p, struct gemm_push *push)
{
    int32_t rank = p->batch_rank;
    push->batch_inner = 1;
    if (rank > 2) {
        uint32_t *table = hk_arena_array(l->arena, 1 + 4 * (size_t)rank, sizeof *table);
        if (!table) {
            l->failed = true;
            return;
        }
        table[0] = (uint32_t)rank;
        for (int32_t d = 0; d < rank; d++) {
            uint32_t *row = table + 1 + 4 * (rank - 1 - d);
            row[0] = (uint32_t)p->batch[d];
            row[1] = (uint32_t)p->batch_a[d];
            row[2] = (uint32_t)p->batch_b[d];
            row[3] = (uint32_t)p->batch_bias[d];
        }
        push->batch_inner = 0;
        r->block = table;
        r->block_bytes = (uint32_t)((1 + 4 * (size_t)rank) * sizeof *table);
        r->block_offset = offsetof(struct gemm_push, batch);
    } else if (rank == 2) {
        push->batch_inner = (uint32_t)p->batch[1];
        push->a_inner = (uint32_t)p->batch_a[1];
        push->b_inner = (uint32_t)p->batch_b[1];
        push->bias_inner = (uint32_t)p->batch_bias[1];
    }
    if (rank > 0 && rank <= 2) {
        push->a_outer = (uint32_t)p->batch_a[0];
        push->b_outer = (uint32_t)p->batch_b[0];
        push->bias_outer = (uint32_t)p->batch_bias[0];
    }
}

static uint32_t epilogue_bits(const hk_gemm *p)
{
    return (p->bias ? EPILOGUE_BIAS : 0u) | (p->residual ? EPILOGUE_RESIDUAL : 0u) |
           (hk_stores_halves(p->residual) ? EPILOGUE_HALF_RESIDUAL : 0u) |
           (hk_stores_halves(p->c) ? EPILOGUE_HALF_C : 0u);
}

/* What all the kernels share. c: p->c, or the scratch for partial sums, which then skip the epilogue. */
static hk_record *emit(hk_lower *l, const hk_gemm *p, const hk_kernel *kernel, const char *name, hk_value *c,
                       uint32_t wide, int64_t k_split, int64_t work)
{
    bool partial = c != p->c;
    hk_record *r = hk_emit(l, kernel, name);
    struct gemm_push push = {
        .m = (uint32_t)p->m,
        .n = (uint32_t)p->n,
        .k = (uint32_t)p->k,
        .lda = (uint32_t)p->lda,
        .ldb = (uint32_t)p->ldb,
        .work = (uint32_t)work,
        .k_split = (uint32_t)k_split,
        .bias_m = (uint32_t)p->bias_m,
        .bias_n = (uint32_t)p->bias_n,
        .alpha = p->alpha,
        .beta = p->beta,
        .act_a = p->act_a,
        .act_b = p->act_b,
    };
    set_batch(l, r, p, &push);
    hk_push(r, &push, sizeof push);
    hk_use(r, p->a, HK_READ, offsetof(struct gemm_push, a));
    hk_use(r, p->b, HK_READ, offsetof(struct gemm_push, b));
    hk_use(r, c, HK_WRITE, offsetof(struct gemm_push, c));
    if (!partial) {
        hk_use(r, p->bias, HK_READ, offsetof(struct gemm_push, bias));
        hk_use(r, p->residual, HK_READ, offsetof(struct gemm_push, residual));
    }
    hk_spec(r, 3, (p->trans_a ? TRANS_A : 0u) | (p->trans_b ? TRANS_B : 0u) | (p->trans_c ? TRANS_C : 0u));
    hk_spec(r, 4, partial ? (wide & ~(uint32_t)WIDE_C) | (p->n % 4 == 0 && !p->trans_c ? WIDE_C : 0u) : wide);
    hk_spec(r, 5, partial ? EPILOGUE_PARTIAL : epilogue_bits(p));
    hk_spec(r, 6, partial ? HK_ACT_NONE : (uint32_t)p->activation);
    hk_spec(r, 7, (uint32_t)p->plane);
    return r;
}

/* The sum over splits and the epilogue: shaders/gemm_reduce.comp. */
static void emit_reduce(hk_lower *l, const hk_gemm *p, hk_value *sums, uint32_t wide, int64_t k_split)
{
    hk_gemm q = *p;
    q.a = sums;
    q.b = NULL;
    int64_t work = hk_gemm_batches(p) * p->m * p->n;
    const hk_kernel *kernel = p->int8 ? &hk_kernel_gemm_reduce_int8 : &hk_kernel_gemm_reduce;
    hk_record *r = emit(l, &q, kernel, "gemm sum of splits", p->c, wide & WIDE_C, k_split, work);
    uint32_t threads = l->cpu ? 64 : 128;
    hk_workgroup(r, threads, 1, 1);
    hk_grid_1d(l, r, (uint64_t)ceil_div(work, (wide & WIDE_C ? 4 : 1) * (int64_t)threads));
}

static hk_record *emit_tile(hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v, hk_value *c, uint32_t wide,
                            int64_t k_split, int64_t work)
{
    hk_record *r = emit(l, p, &hk_kernel_gemm, v->name, c, wide, k_split, work);
    hk_workgroup(r, (uint32_t)v->bm / v->tm * (v->bn / v->tn) * v->slices, 1, 1);
    const uint32_t spec[] = {v->bm, v->bn, v->bk, v->tm, v->tn, v->slices, v->stages};
    for (uint32_t i = 0; i < HK_COUNT(spec); i++)
        hk_spec(r, 8 + i, spec[i]);
    return r;
}

/* ---- operands of precision high */

hk_split hk_gemm_operand(const hk_gemm *p, bool a)
{
    bool trans = a ? p->trans_a : p->trans_b;
    int64_t outer = a ? p->m : p->n, step = a ? p->batch_a[0] : p->batch_b[0];
    hk_split s = {.from = a ? p->a : p->b,
                  .rows = trans == a ? p->k : outer,
                  .columns = trans == a ? outer : p->k,
                  .ld = a ? p->lda : p->ldb,
                  .matrices = p->batch_rank && step ? p->batch[0] : 1,
                  .step = step};
    if (p->plane_k || (!a && p->plane))
        s.plane = p->plane_k ? p->plane_k : p->plane;
    if (!a) {
        s.line = p->line;
        s.line_step = p->line_step;
        s.pixel_step = p->pixel_step;
    }
    /* A's neighbours along k and B's across it were measured most; what is split once costs nothing to turn. */
    s.turned = trans && hk_split_is_constant(&s);
    return s;
}

/* One operand before its product; afterwards p describes the halves. What is stored in halves is exact as it is. False:
 * out of memory. */
static bool split_operand(hk_lower *l, hk_gemm *p, bool a)
{
    hk_value **x = a ? &p->a : &p->b;
    bool *trans = a ? &p->trans_a : &p->trans_b;
    int64_t *ld = a ? &p->lda : &p->ldb, *batch = a ? &p->batch_a[0] : &p->batch_b[0];
    int64_t matrices = p->batch_rank && *batch ? p->batch[0] : 1, blocks = hk_split_blocks(a ? p->m : p->n, p->k);
    if (hk_stores_halves(*x))
        return true;
    if (!(a ? p->split_a : p->split_b)) {
        hk_split s = hk_gemm_operand(p, a);
        *x = hk_split_lower(l, &s);
        *trans = *trans && !s.turned;
    }
    *ld = matrices * blocks * HK_SPLIT_SIDE * HK_SPLIT_SIDE;
    *batch = *batch ? blocks : 0;
    return *x != NULL;
}

static void take_neurons(hk_record *r, const hk_neuron_job *j)
{
    const hk_neuron_rule rule = hk_neuron_rule_of(j->attrs, true);
    hk_spec(r, SPEC_SCAN, (uint32_t)j->steps);
    hk_spec_float(r, SPEC_RATE, (float)rule.rate);
    hk_spec_float(r, SPEC_REST, (float)rule.rest);
    hk_spec_float(r, SPEC_THRESHOLD, j->attrs->v_threshold);
    hk_neuron_specs(r, SPEC_NEURON, &rule, j, j->v0 != NULL);
    hk_use(r, j->v0, HK_READ, offsetof(struct gemm_push, residual));
    hk_use(r, j->theta, HK_READ, offsetof(struct gemm_push, batch));
}

static hk_record *emit_coopmat(hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v, hk_value *c, uint32_t wide,
                               int64_t k_split, int64_t work)
{
    hk_record *r = emit(l, p, hk_gemm_coopmat_kernel(l, p), hk_gemm_variant_name(p, v), c, wide, k_split, work);
    uint32_t threads = (uint32_t)v->wm * v->wn * hk_matrix_lanes(l);
    uint32_t floats = (hk_value_storage(p->a) == HK_FLOAT32 ? FLOATS_A : 0u) |
                      (hk_value_storage(p->b) == HK_FLOAT32 ? FLOATS_B : 0u);
    hk_workgroup(r, threads, 1, 1);
    r->subgroup_size = hk_lower_has(l, HK_CAP_SUBGROUP_SIZE) ? l->device->subgroup_size : 0;
    bool int8 = p->int8;
    const uint32_t spec[] = {v->bm,
                             v->bn,
                             v->bk,
                             int8 ? l->int8_m : l->coopmat_m,
                             int8 ? l->int8_n : l->coopmat_n,
                             int8 ? l->int8_k : l->coopmat_k,
                             v->wm,
                             v->wn,
                             threads,
                             v->stages,
                             floats,
                             v->halves};
    for (uint32_t i = 0; i < HK_COUNT(spec); i++)
        hk_spec(r, 8 + i, spec[i]);
    if (p->neurons)
        take_neurons(r, p->neurons);
    return r;
}

/* gemv.comp's shape for a problem with few rows. */
typedef struct rows_shape {
    uint32_t threads, rows, columns, lanes, unroll;
} rows_shape;

static rows_shape shape_rows(const hk_lower *l, const hk_gemm *p)
{
    int64_t units = HK_MAX((int64_t)l->compute_units_hint, (int64_t)1), batches = hk_gemm_batches(p);
    uint32_t most = HK_MIN(l->device->max_invocations, 256u);
    rows_shape s = {.rows = 1, .columns = 4, .lanes = 1, .unroll = 8};
    while (s.rows < p->m && s.rows < 8)
        s.rows *= 2;
    if (p->trans_b) { /* few columns per workgroup until there is one workgroup for each unit */
        while (s.columns > 1 && ceil_div(p->n, s.columns) * batches < 2 * units)
            s.columns /= 2;
        s.threads = HK_MIN(HK_MAX(power_of_two_up_to(p->k / 16), 32u), HK_MIN(most, 128u));
        s.unroll = 8 / s.columns;
    } else {
        while (s.lanes < 32 && ceil_div(p->n, 8 * (int64_t)s.lanes) * batches >= units)
            s.lanes *= 2;
        s.threads = HK_MIN(HK_MAX(power_of_two_up_to(p->k / 4) * s.lanes, 32u), most);
    }
    uint32_t floats = l->device->max_shared_bytes / 4;
    while (s.threads > 32 && s.rows * s.columns * s.threads > floats)
        s.threads /= 2;
    return s;
}

static hk_record *emit_rows(hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v, const rows_shape *s, hk_value *c,
                            uint32_t wide, int64_t k_split, int64_t work)
{
    hk_record *r = emit(l, p, &hk_kernel_gemv, v->name, c, wide, k_split, work);
    hk_workgroup(r, s->threads, 1, 1);
    const uint32_t spec[] = {s->threads, s->rows, s->columns, s->lanes, s->unroll};
    for (uint32_t i = 0; i < HK_COUNT(spec); i++)
        hk_spec(r, 8 + i, spec[i]);
    return r;
}

/* gemm_cpu.comp: lanes of a SIMD vector along columns, what is left of eight along rows; more rows where K is so short
 * that starting a workgroup would cost more than its sums. */
static void emit_cpu(hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v, uint32_t wide)
{
    uint32_t rows = p->m >= 6 ? 8 : p->m >= 3 ? 4 : p->m == 2 ? 2 : 1, x = 1;
    while (x < 8 && 4 * (int64_t)x < p->n)
        x *= 2;
    uint32_t y = 8 / x, columns = rows == 8 && p->n >= 64 ? 2 : 1;
    while (x * y < 64 && (int64_t)x * y * p->k < 1024 && (int64_t)y * rows < p->m)
        y *= 2;
    int64_t work = ceil_div(p->n, 4 * (int64_t)(x * columns)) * ceil_div(p->m, (int64_t)rows * y) * hk_gemm_batches(p);
    hk_record *r = emit(l, p, &hk_kernel_gemm_cpu, v->name, p->c, wide, p->k, work);
    r->flops = 2.0 * (double)p->m * (double)p->n * (double)p->k * (double)hk_gemm_batches(p);
    hk_workgroup(r, x, y, 1);
    hk_spec(r, 8, rows);
    hk_spec(r, 9, columns);
    hk_grid_1d(l, r, (uint64_t)work);
}

static void emit_integer(hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v)
{
    int64_t work = hk_gemm_batches(p) * p->m * p->n;
    hk_record *r = emit(l, p, &hk_kernel_gemm_int, v->name, p->c, 0, p->k, work);
    hk_workgroup(r, 64, 1, 1);
    hk_spec(r, 8, (uint32_t)hk_dtype_device_bytes(hk_value_storage(p->a)) / 4);
    hk_grid_1d(l, r, (uint64_t)ceil_div(work, 64));
}

/* The kernels that may split K: TILE, ROWS, COOPMAT. */
static void emit_split(hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v, uint32_t splits)
{
    rows_shape s = {0};
    int64_t bm = v->bm, bn = v->bn, batches = hk_gemm_batches(p);
    if (v->kind == HK_GEMM_ROWS) {
        s = shape_rows(l, p);
        bm = s.rows;
        bn = (int64_t)s.columns * s.lanes;
    }
    int64_t k_split = splits > 1 ? ceil_div(ceil_div(p->k, splits), v->bk) * v->bk : HK_MAX(p->k, (int64_t)1);
    int64_t count = p->k > 0 ? ceil_div(p->k, k_split) : 1;
    int64_t work = ceil_div(p->m, bm) * ceil_div(p->n, bn) * batches * count;
    hk_value *c = count > 1 ? hk_scratch(l, p->int8 ? HK_INT32 : HK_FLOAT32, count * batches * p->m * p->n) : p->c;
    if (!c)
        return;
    uint32_t wide = wide_bits(p, v->kind == HK_GEMM_COOPMAT ? 8 : 4);
    hk_record *r = v->kind == HK_GEMM_ROWS      ? emit_rows(l, p, v, &s, c, wide, k_split, work)
                   : v->kind == HK_GEMM_COOPMAT ? emit_coopmat(l, p, v, c, wide, k_split, work)
                                                : emit_tile(l, p, v, c, wide, k_split, work);
    r->flops = (p->int8 ? 4.0 : 2.0) * (double)p->m * (double)p->n * (double)p->k * (double)batches;
    hk_grid_1d(l, r, (uint64_t)work);
    if (count > 1 && p->sums && v->kind != HK_GEMM_ROWS)
        *p->sums = (hk_gemm_sums){c, count};
    else if (count > 1)
        emit_reduce(l, p, c, wide, k_split);
}

void hk_gemm_emit(hk_lower *l, const hk_gemm *problem, const hk_gemm_variant *v, uint32_t splits)
{
    hk_gemm p = *problem;
    bool matrix = v->kind == HK_GEMM_COOPMAT;
    if (v->kind == HK_GEMM_INTEGER) {
        emit_integer(l, &p, v);
        return;
    }
    if (!matrix || p.plane_k) {
        p.a = hk_as_float32(l, p.a);
        p.b = hk_as_float32(l, p.b);
    }
    if (v->halves == 2) {
        hk_gemm_fold(&p);
        if (!split_operand(l, &p, true) || !split_operand(l, &p, false))
            return;
    }
    p.bias = hk_as_float32(l, p.bias);
    bool narrow = v->kind == HK_GEMM_ROWS || (v->kind == HK_GEMM_CPU && p.n < 4);
    /* Results and residuals are read and stored as fp16 four at a time. */
    if (narrow || p.n % 4 || hk_value_alignment(p.c) != 16 || (p.residual && hk_value_alignment(p.residual) != 16)) {
        p.residual = hk_as_float32(l, p.residual);
        p.c = hk_float32_target(l, p.c);
        if (!p.c)
            return;
    }
    if (narrow && p.n < p.m)
        hk_gemm_swap(&p);
    if (v->kind == HK_GEMM_CPU)
        emit_cpu(l, &p, v, wide_bits(&p, 4));
    else
        emit_split(l, &p, v, splits);
    if (p.c != problem->c)
        hk_emit_convert(l, p.c, problem->c);
}

static bool is_device_float(const hk_value *v)
{
    return !v || hk_value_storage(v) == HK_FLOAT32 || hk_value_storage(v) == HK_FLOAT16;
}

static bool is_device_operand(const hk_value *v)
{
    return is_device_float(v) || hk_value_storage(v) == HK_BFLOAT16;
}

static bool is_device_integer(hk_dtype t)
{
    return t == HK_INT32 || t == HK_UINT32 || t == HK_INT64 || t == HK_UINT64;
}

hk_status hk_gemm_lower(hk_lower *l, const hk_gemm *problem)
{
    hk_gemm p = *problem;
    if (hk_shape_count(&p.c->shape) == 0)
        return HK_OK;
    bool integers = is_device_integer(hk_value_storage(p.a));
    bool plain = !p.bias && !p.residual && p.alpha == 1.0f && p.activation == HK_ACT_NONE;
    bool floats = is_device_operand(p.a) && is_device_operand(p.b) && is_device_float(p.c) && is_device_float(p.bias) &&
                  is_device_float(p.residual);
    if (!(integers && plain) && !floats)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                       "node '%s' (%s): expected float32, float16 or 32- or 64-bit integer matrices on the device, "
                       "found %s; cast them to float32",
                       l->node->name, l->node->type, hk_dtype_name(hk_value_storage(p.a)));
    hk_gemm_simplify(&p);
    uint32_t splits;
    const hk_gemm_variant *v = hk_gemm_choose(l, &p, &splits);
    hk_gemm_emit(l, &p, v, splits);
    hk_choice_leave(l, HK_CHOICE_TILE);
    return HK_OK;
}

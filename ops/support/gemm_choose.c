/*
 * Which GEMM kernel: the table of variants, what a device allows, and the cost model.
 *
 * The model counts cycles of one compute unit: rounds of workgroups over the units, times a tile's multiplications over
 * what a unit does at the variant's measured rate, plus what latency and split-K's second pass cost. Its constants are
 * those of an H200; only their ratios matter, and the choice is among few, so they serve other devices well enough.
 */
#include <math.h>

#include "kernels.h"
#include "ops/divisor.h"
#include "ops/support/choice.h"
#include "ops/support/gemm.h"
#include "ops/support/neuron_lower.h"

#define ROWS_MOST 8     /* gemv.comp: the most rows it keeps in registers */
#define DISPATCH 4500.0 /* cycles until a dispatch that waits for another is under way: 2.4 to 2.8 us */
#define BYTES 2450.0    /* of memory in a cycle */
#define CYCLES 1710.0   /* in a microsecond */

/* name, tile, tile of a thread, slices, stages, rate */
#define TILE(n, m_, n_, k_, tm_, tn_, slices_, stages_, rate_)                                                         \
    {                                                                                                                  \
        .name = (n), .kind = HK_GEMM_TILE, .bm = (m_), .bn = (n_), .bk = (k_), .tm = (tm_), .tn = (tn_),               \
        .slices = (slices_), .stages = (stages_), .rate = (rate_)                                                      \
    }
/* name, tile, subgroups along m and n, stages, halves, rate */
#define MATRIX(n, m_, n_, k_, wm_, wn_, stages_, halves_, rate_)                                                       \
    {                                                                                                                  \
        .name = (n), .kind = HK_GEMM_COOPMAT, .bm = (m_), .bn = (n_), .bk = (k_), .wm = (wm_), .wn = (wn_),            \
        .stages = (stages_), .halves = (halves_), .rate = (rate_)                                                      \
    }
/* For operands whose elements have 16 bits, and for pairs of bytes in their place. */
#define MATRIX16(n, m_, n_, k_, wm_, wn_, stages_, rate_)                                                              \
    {                                                                                                                  \
        .name = n " f16", .bf16_name = n " bf16", .int8_name = n " int8 pairs", .kind = HK_GEMM_COOPMAT, .bm = (m_),   \
        .bn = (n_), .bk = (k_), .wm = (wm_), .wn = (wn_), .stages = (stages_), .halves = 1, .rate = (rate_)            \
    }

static const hk_gemm_variant variants[] = {
    TILE("gemm 128x128x16 2-stage f32", 128, 128, 16, 8, 8, 1, 2, 0.75f),
    TILE("gemm 128x128x16 f32", 128, 128, 16, 8, 8, 1, 1, 0.70f),
    TILE("gemm 128x128x8 2-stage f32", 128, 128, 8, 8, 8, 1, 2, 0.68f),
    TILE("gemm 128x64x16 f32", 128, 64, 16, 8, 8, 1, 1, 0.65f),
    TILE("gemm 64x128x16 f32", 64, 128, 16, 8, 8, 1, 1, 0.65f),
    TILE("gemm 64x64x32/4 f32", 64, 64, 32, 8, 8, 4, 1, 0.62f),
    TILE("gemm 64x64x16 f32", 64, 64, 16, 8, 4, 1, 1, 0.55f),
    TILE("gemm 128x32x16 f32", 128, 32, 16, 8, 4, 1, 1, 0.50f),
    TILE("gemm 32x64x16 2-stage f32", 32, 64, 16, 4, 4, 1, 2, 0.40f),
    TILE("gemm 32x32x32/4 f32", 32, 32, 32, 4, 4, 4, 1, 0.38f),
    TILE("gemm 32x32x16/2 f32", 32, 32, 16, 4, 4, 2, 1, 0.35f),
    {.name = "gemv f32", .kind = HK_GEMM_ROWS, .bk = 4},
    {.name = "gemm registers f32", .kind = HK_GEMM_CPU, .bk = 4},
    MATRIX16("gemm 128x256x32", 128, 256, 32, 2, 4, 1, 0.29f),
    MATRIX16("gemm 256x128x32", 256, 128, 32, 4, 2, 1, 0.29f),
    MATRIX16("gemm 128x128x32 2-stage", 128, 128, 32, 2, 4, 2, 0.175f),
    MATRIX16("gemm 128x128x32", 128, 128, 32, 2, 4, 1, 0.175f),
    MATRIX16("gemm 128x128x64", 128, 128, 64, 2, 4, 1, 0.19f),
    MATRIX16("gemm 128x128x32 4 subgroups", 128, 128, 32, 2, 2, 1, 0.4f),
    MATRIX16("gemm 128x128x64 4 subgroups", 128, 128, 64, 2, 2, 1, 0.24f), /* not measured: only if asked for */
    MATRIX16("gemm 64x64x32", 64, 64, 32, 2, 2, 1, 0.15f),
    MATRIX16("gemm 32x32x32", 32, 32, 32, 2, 2, 1, 0.08f),
    MATRIX16("gemm 128x64x64", 128, 64, 64, 4, 1, 1, 0.33f),
    MATRIX16("gemm 64x64x64", 64, 64, 64, 2, 2, 1, 0.25f),
    MATRIX16("gemm 64x64x128", 64, 64, 128, 2, 2, 1, 0.25f),
    MATRIX16("gemm 64x32x64", 64, 32, 64, 2, 2, 1, 0.17f),
    MATRIX16("gemm 64x32x128", 64, 32, 128, 2, 2, 1, 0.17f),
    MATRIX16("gemm 32x32x64", 32, 32, 64, 2, 2, 1, 0.13f),
    MATRIX16("gemm 32x32x128", 32, 32, 128, 2, 2, 1, 0.13f),
    MATRIX("gemm 128x128x16 4 subgroups high", 128, 128, 16, 2, 2, 1, 2, 0.284f),
    MATRIX("gemm 128x256x16 high", 128, 256, 16, 2, 4, 1, 2, 0.262f),
    MATRIX("gemm 128x192x16 high", 128, 192, 16, 2, 4, 1, 2, 0.25f),
    MATRIX("gemm 128x96x16 4 subgroups high", 128, 96, 16, 2, 2, 1, 2, 0.26f),
    MATRIX("gemm 64x128x16 2 subgroups high", 64, 128, 16, 1, 2, 1, 2, 0.25f),
    MATRIX("gemm 128x64x32 high", 128, 64, 32, 2, 2, 1, 2, 0.20f),
    MATRIX("gemm 64x64x32 high", 64, 64, 32, 2, 2, 1, 2, 0.213f),
    MATRIX("gemm 32x32x32 high", 32, 32, 32, 2, 2, 1, 2, 0.139f),
    {.name = "gemm integer", .kind = HK_GEMM_INTEGER},
};

const hk_gemm_variant *hk_gemm_variants(size_t *count)
{
    *count = HK_COUNT(variants);
    return variants;
}

static const hk_gemm_variant *first_of(hk_gemm_kind kind)
{
    for (size_t i = 0; i < HK_COUNT(variants); i++)
        if (variants[i].kind == kind)
            return &variants[i];
    return variants;
}

static uint32_t tile_threads(const hk_gemm_variant *v)
{
    return (uint32_t)v->bm / v->tm * (v->bn / v->tn) * v->slices;
}

/* The shared memory that gemm.comp and gemm_coopmat.comp declare. */
static uint32_t tile_bytes(const hk_gemm_variant *v)
{
    uint32_t tiles = (uint32_t)v->stages * (v->bk * ((uint32_t)v->bm + v->bn) + 64);
    uint32_t sums = v->slices > 1 ? (uint32_t)v->bm * v->bn : 0;
    return 4 * HK_MAX(tiles, sums);
}

hk_matrix_type hk_gemm_operand_type(const hk_gemm *p)
{
    bool bfloat = hk_value_storage(p->a) == HK_BFLOAT16 || hk_value_storage(p->b) == HK_BFLOAT16;
    return p->int8 ? HK_MATRIX_INT8 : bfloat ? HK_MATRIX_BFLOAT16 : HK_MATRIX_FLOAT16;
}

const char *hk_gemm_variant_name(const hk_gemm *p, const hk_gemm_variant *v)
{
    hk_matrix_type type = hk_gemm_operand_type(p);
    const char *name = type == HK_MATRIX_INT8 ? v->int8_name : type == HK_MATRIX_BFLOAT16 ? v->bf16_name : NULL;
    return name ? name : v->name;
}

const hk_kernel *hk_gemm_coopmat_kernel(const hk_lower *l, const hk_gemm *p)
{
    static const hk_kernel *const kernels[HK_MATRIX_TYPES][2] = {
        [HK_MATRIX_FLOAT16] = {&hk_kernel_gemm_coopmat, &hk_kernel_gemm_coopmat_emulated},
        [HK_MATRIX_BFLOAT16] = {&hk_kernel_gemm_coopmat_bf16, &hk_kernel_gemm_coopmat_bf16_emulated},
        [HK_MATRIX_INT8] = {&hk_kernel_gemm_coopmat_int8, &hk_kernel_gemm_coopmat_int8_emulated},
    };
    return kernels[hk_gemm_operand_type(p)][l->coopmat_emulated];
}

/* In the tile's slots of 16 bits. */
typedef struct fragment {
    uint32_t m, n, k;
} fragment;

static fragment fragment_of(const hk_lower *l, const hk_gemm *p)
{
    if (p->int8)
        return (fragment){l->int8_m, l->int8_n, l->int8_k / 2};
    return (fragment){l->coopmat_m, l->coopmat_n, l->coopmat_k};
}

/* Halves that an operand has with v: what is stored in halves is exact in one. */
static uint32_t halves_of(const hk_value *x, const hk_gemm_variant *v)
{
    return hk_stores_halves(x) ? 1 : v->halves;
}

static uint32_t coopmat_bytes(const hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v, const fragment *f)
{
    uint32_t halves_a = halves_of(p->a, v), halves_b = halves_of(p->b, v);
    uint32_t a = p->trans_a ? v->bk * (v->bm / 8u + 1) : v->bm * (v->bk / 8u + 1);
    uint32_t b = p->trans_b ? v->bn * (v->bk / 8u + 1) : v->bk * (v->bn / 8u + 1);
    uint32_t sums = (uint32_t)v->wm * f->m * (v->bn / 4u + v->wn);
    uint32_t undos = v->halves == 2 ? ((uint32_t)v->bm + v->bn) / HK_SPLIT_SIDE * (v->bk / HK_SPLIT_SIDE) : 1;
    uint32_t emulated = 4u * ((uint32_t)v->bm * v->bn + (uint32_t)v->wm * v->wn * f->m * f->n);
    return 16 * HK_MAX(v->stages * (halves_a * a + halves_b * b), sums) + 4 * v->stages * undos +
           (l->coopmat_emulated ? emulated : 0);
}

/* Fragments lie within a block with one scale, and a batch is that of one stride. What is not split comes in whole
 * chunks for each thread. */
static bool split_fits(const hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v, uint32_t threads)
{
    uint32_t side = HK_SPLIT_SIDE;
    bool a = halves_of(p->a, v) == 2 || v->bm * v->bk / 8u % threads == 0,
         b = halves_of(p->b, v) == 2 || v->bn * v->bk / 8u % threads == 0;
    return a && b && side % l->coopmat_m == 0 && side % l->coopmat_n == 0 && side % l->coopmat_k == 0 &&
           threads % 32 == 0 && p->batch_rank <= 1;
}

/* The steps of a sample lie within a fragment, and A is read as it is stored. */
static bool neurons_fit(const hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v)
{
    const hk_neuron_job *j = p->neurons;
    return hk_gemm_operand_type(p) == HK_MATRIX_FLOAT16 && j->steps > 1 && l->coopmat_m % j->steps == 0 &&
           p->m % j->steps == 0 && p->batch_rank == 0 && !p->trans_a && !p->residual && halves_of(p->a, v) == 1 &&
           p->n % 4 == 0 && hk_value_alignment(p->c) == 16 && (!j->v0 || hk_value_alignment(j->v0) == 16);
}

static bool coopmat_fits(const hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v)
{
    const fragment f = fragment_of(l, p);
    uint32_t lanes = hk_matrix_lanes(l), threads = lanes * v->wm * v->wn;
    const hk_kernel *kernel = hk_gemm_coopmat_kernel(l, p);
    return f.m && (!p->neurons || neurons_fit(l, p, v)) && (kernel->needs & ~l->device->caps) == 0 && kernel->spirv &&
           lanes >= 8 && f.m % 8 == 0 && f.n % 8 == 0 && f.k % 8 == 0 &&
           f.m * ((uint32_t)v->bn / v->wn / 4) % lanes == 0 && v->bm / v->wm % f.m == 0 && v->bn / v->wn % f.n == 0 &&
           v->bk % f.k == 0 &&
           (v->halves == 2 ? split_fits(l, p, v, threads)
                           : v->bm * v->bk / 8u % threads == 0 && v->bn * v->bk / 8u % threads == 0) &&
           (v->halves == 1 || hk_gemm_operand_type(p) == HK_MATRIX_FLOAT16) && threads <= l->device->max_invocations &&
           coopmat_bytes(l, p, v, &f) <= l->device->max_shared_bytes;
}

static bool is_integer(const hk_gemm *p)
{
    return !p->int8 && hk_dtype_is_integer(hk_value_storage(p->a));
}

bool hk_gemm_fits(const hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v)
{
    bool split = p->line || p->plane_k || p->split;
    if ((v->kind == HK_GEMM_INTEGER) != is_integer(p) || (split && v->halves != 2) ||
        ((p->int8 || p->neurons) && v->kind != HK_GEMM_COOPMAT))
        return false;
    switch (v->kind) {
    case HK_GEMM_TILE:
        return tile_threads(v) <= l->device->max_invocations && tile_bytes(v) <= l->device->max_shared_bytes;
    case HK_GEMM_ROWS: return HK_MIN(p->m, p->n) <= ROWS_MOST;
    case HK_GEMM_COOPMAT: return coopmat_fits(l, p, v);
    case HK_GEMM_CPU:
    case HK_GEMM_INTEGER: break;
    }
    return true;
}

static double ceil_div(double a, double b)
{
    double q = a / b;
    int64_t whole = (int64_t)q;
    return (double)whole < q ? (double)whole + 1.0 : (double)whole;
}

/* Cycles of the dispatch, or two side by side, that split p's operands in each run. */
static double split_cycles(const hk_lower *l, const hk_gemm *p)
{
    hk_split a = hk_gemm_operand(p, true), b = hk_gemm_operand(p, false);
    double bytes = (p->split_a || hk_stores_halves(p->a) ? 0.0 : hk_split_bytes(l, &a)) +
                   (p->split_b || hk_stores_halves(p->b) ? 0.0 : hk_split_bytes(l, &b));
    return bytes > 0.0 ? DISPATCH + bytes / BYTES : 0.0;
}

/* What v reaches of the rate. 128x128x16 in high takes B along k at 77 TFLOP/s instead of 96 (H200, 8192^3),
 * 128x256x16 at 87. The first keeps four chunks a thread on their way besides a subgroup's 64x64 sums, so that full
 * registers are a guess at the cause; 64x128x16, which keeps more, is reckoned alike and was not measured. */
static double rate_of(const hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v)
{
    int subgroups = v->wm * v->wn, lanes = (int)hk_matrix_lanes(l);
    bool crowded = v->halves == 2 && v->bm * v->bn == 64 * 64 * subgroups &&
                   (v->bm + v->bn) * v->bk / 8 >= 4 * subgroups * lanes;
    bool along = p->trans_b && (p->split_b || !hk_gemm_operand(p, false).turned);
    return (double)v->rate * (crowded && along ? 0.81 : 1.0);
}

/* Cycles of p with v and so many splits. */
static double cost(const hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v, uint32_t splits)
{
    bool matrix = v->kind == HK_GEMM_COOPMAT;
    double units = HK_MAX(l->compute_units_hint, 1u), batches = (double)hk_gemm_batches(p);
    double warps = matrix ? (double)v->wm * v->wn : tile_threads(v) / 32.0, rate = rate_of(l, p, v);
    double products = (double)(halves_of(p->a, v) + halves_of(p->b, v)) - 1.0;
    double multiplies = matrix ? 2048.0 / products : 128.0; /* per unit and cycle */
    double groups = ceil_div((double)p->m, v->bm) * ceil_div((double)p->n, v->bn) * batches * splits;
    double k = ceil_div(ceil_div((double)p->k, splits), v->bk) * v->bk;
    double rounds = ceil_div(groups, units);
    /* Fewer warps do not hide latency; of the kernels with halves eight fill a unit's registers. */
    double busy = v->halves == 2 ? HK_MIN(1.0, rounds * warps / 8.0) : HK_MIN(1.0, HK_MIN(rounds, 2.0) * warps / 12.0);
    double tile = (double)v->bm * v->bn * k / (multiplies * rate * busy);
    if (matrix && v->halves == 1) { /* a workgroup alone waits for each step's operands; others hide that */
        double step = 800.0 + (double)v->bm * v->bn * v->bk / 700.0;
        double together = HK_MIN(rounds, 16.0 / warps);
        busy = HK_MIN(1.0, warps / 6.0);
        tile = HK_MAX((double)v->bm * v->bn * k / (multiplies * rate * busy), k / v->bk * step / together);
    }
    if (v->halves == 2) /* the first step's operands, and the way of sums through shared memory; residuals */
        tile += (p->residual && splits == 1 ? 0.55 : 0.3) * v->bm * v->bn;
    double result = (double)p->m * (double)p->n * batches * 4.0;
    double bytes = ((double)p->m * (double)p->k + (double)p->k * (double)p->n) * batches * 4.0 + result;
    double cycles = HK_MAX(rounds * tile + 2000.0, bytes / BYTES);
    if (splits > 1) /* the partial sums come from cache unless they are many */
        cycles += (p->sums ? 0.0 : DISPATCH) + 2.0 * splits * result / 3500.0;
    return cycles;
}

static uint32_t rows_splits(const hk_lower *l, const hk_gemm *p)
{
    /* A workgroup of gemv.comp that walks 16,384 of K alone takes longer than a second dispatch. */
    int64_t groups = HK_MAX(p->m, p->n) * hk_gemm_batches(p), most = p->k / 16384;
    int64_t wanted = (int64_t)l->compute_units_hint / HK_MAX(groups, (int64_t)1);
    return (uint32_t)HK_MAX(HK_MIN(HK_MIN(most, wanted), (int64_t)32), (int64_t)1);
}

bool hk_gemm_suits_units(const hk_gemm *p)
{
    return HK_MIN(p->m, p->n) >= 32 && p->k >= 32;
}

static void add_kind(hk_choice *c, hk_gemm_kind kind, uint32_t splits, double cycles)
{
    const hk_gemm_variant *v = first_of(kind);
    hk_choice_add(c, &(hk_candidate){.name = v->name, .variant = v, .splits = splits, .cost = cycles});
}

static void add_variant(const hk_lower *l, const hk_gemm *p, const hk_gemm_variant *v, double more, hk_choice *c)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128};
    for (size_t s = 0; s < HK_COUNT(counts); s++) {
        if (counts[s] > 1 && (p->neurons || p->k < 2 * (int64_t)counts[s] * v->bk ||
                              (int64_t)counts[s] * hk_gemm_batches(p) * p->m * p->n >= INT32_MAX))
            break;
        double cycles = more + cost(l, p, v, counts[s]);
        hk_choice_add(c, &(hk_candidate){.name = v->name, .variant = v, .splits = counts[s], .cost = cycles});
    }
}

/* As hk_matrix_halves, but int8 is exact in any precision, and elements of 16 bits are not split. */
static uint8_t halves_on_units(const hk_lower *l, const hk_gemm *p)
{
    bool whole = p->int8 || (hk_gemm_operand_type(p) == HK_MATRIX_BFLOAT16 && hk_matrix_halves(l));
    return whole ? 1 : hk_matrix_halves(l);
}

/* Those of matrix units, if p suits them. */
static void add_units(const hk_lower *l, const hk_gemm *p, double more, hk_choice *c)
{
    uint8_t halves = halves_on_units(l, p);
    hk_gemm q = *p;
    if (halves == 2) {
        hk_gemm_fold(&q);
        more += split_cycles(l, &q);
    }
    for (size_t i = 0; i < HK_COUNT(variants); i++)
        if (variants[i].kind == HK_GEMM_COOPMAT && variants[i].halves == halves && hk_gemm_fits(l, p, &variants[i]))
            add_variant(l, &q, &variants[i], more, c);
}

static bool takes_units(const hk_lower *l, const hk_gemm *p)
{
    return p->int8 || (hk_matrix_halves(l) && l->coopmat_m && !is_integer(p) && hk_gemm_suits_units(p));
}

/* A kernel that is taken wherever it suits is predicted to cost nothing; what a measurement may prefer to it follows.
 */
static void add_candidates(const hk_lower *l, const hk_gemm *p, hk_choice *c)
{
    bool matrix = takes_units(l, p);
    /* The reduced limits of HILLOCK_CAPS=min stand for a small GPU, so that a machine without one tests its kernels. */
    bool cpu = l->cpu && l->device->max_invocations > 128, registers = cpu && !matrix;
    bool rows = !p->int8 && HK_MIN(p->m, p->n) <= ROWS_MOST && p->k >= 32;
    if (registers)
        add_kind(c, HK_GEMM_CPU, 1, 0.0);
    if (rows)
        add_kind(c, HK_GEMM_ROWS, rows_splits(l, p), registers ? 1.0 : 0.0);
    if ((registers || rows) && !l->tuning)
        return;
    double more = registers || rows ? 2.0 : 0.0;
    for (size_t i = 0; i < HK_COUNT(variants) && (!cpu || registers); i++)
        if (variants[i].kind == HK_GEMM_TILE && hk_gemm_fits(l, p, &variants[i]))
            add_variant(l, p, &variants[i], more, c);
    if (matrix)
        add_units(l, p, more, c);
    if (!c->count)
        add_kind(c, HK_GEMM_CPU, 1, 0.0);
}

double hk_gemm_units_time(const hk_lower *l, const hk_gemm *p)
{
    hk_choice c = {.kind = HK_CHOICE_TILE};
    if (takes_units(l, p))
        add_units(l, p, 0.0, &c);
    return c.count ? c.best[0].cost / CYCLES : (double)INFINITY;
}

bool hk_gemm_prefers_neurons(const hk_lower *l, const hk_gemm *p)
{
    hk_choice with = {.kind = HK_CHOICE_TILE}, without = {.kind = HK_CHOICE_TILE};
    hk_gemm product = *p;
    product.neurons = NULL;
    if (takes_units(l, p))
        add_units(l, p, 0.0, &with);
    add_candidates(l, &product, &without);
    double saved = DISPATCH + 8.0 * (double)p->m * (double)p->n / BYTES; /* C written and read */
    return with.count && (l->coopmat_emulated || with.best[0].cost <= without.best[0].cost + saved);
}

const hk_gemm_variant *hk_gemm_choose(hk_lower *l, const hk_gemm *p, uint32_t *splits)
{
    hk_choice c;
    *splits = 1;
    if (is_integer(p))
        return first_of(HK_GEMM_INTEGER);
    hk_choice_begin(l, &c, HK_CHOICE_TILE, "%s %s %lld x %lldx%lldx%lld %c%c %s %s %s%s",
                    p->neurons ? "gemm+neuron" : "gemm", hk_choice_precision(l), (long long)hk_gemm_batches(p),
                    (long long)p->m, (long long)p->n, (long long)p->k, p->trans_a ? 'T' : 'N', p->trans_b ? 'T' : 'N',
                    p->int8 ? "int8" : hk_dtype_name(hk_value_storage(p->a)),
                    p->int8 ? "int8" : hk_dtype_name(hk_value_storage(p->b)), hk_dtype_name(hk_value_storage(p->c)),
                    p->sums ? " norm" : "");
    if (p->neurons)
        add_units(l, p, 0.0, &c);
    else
        add_candidates(l, p, &c);
    const hk_candidate *taken = hk_choice_end(l, &c);
    *splits = taken->splits;
    return taken->variant;
}

/* Forward convolution and data gradient of contiguous float32 on matrix units: shaders/conv_matrix.comp. */
#include "kernels.h"
#include "ops/support/conv_gather.h"
#include "ops/support/gemm.h"
#include "shaders/conv_gemm.push.h"

enum { H = HK_AXIS_H, W = HK_AXIS_W };
enum { EPILOGUE_PARTIAL = 4 };

typedef struct units_tile {
    uint32_t bm, bn, bk, wm, wn;
    double rate;             /* share of the best tile's rate that its inner loop reaches */
    const char *names[2][2]; /* data gradient and forward, fast and high */
} units_tile;

#define TILE(text, bm, bn, bk, wm, wn, rate)                                                                           \
    {                                                                                                                  \
        bm, bn, bk, wm, wn, rate,                                                                                      \
        {                                                                                                              \
            {"conv data matrix " text " f16", "conv data matrix " text " high"},                                       \
                {"conv matrix " text " f16", "conv matrix " text " high"},                                             \
        }                                                                                                              \
    }

static const units_tile tiles[] = {
    TILE("128x128x32", 128, 128, 32, 2, 4, 1.0), TILE("64x128x32", 64, 128, 32, 1, 4, 0.8),
    TILE("128x64x32", 128, 64, 32, 2, 2, 0.8),   TILE("64x64x32", 64, 64, 32, 2, 2, 0.65),
    TILE("32x32x32", 32, 32, 32, 2, 1, 0.25),
};

static const hk_kernel *kernel_of(const hk_lower *l)
{
    return l->coopmat_emulated ? &hk_kernel_conv_matrix_emulated : &hk_kernel_conv_matrix;
}

static uint32_t halves_of(const hk_lower *l)
{
    return l->precision == HK_PRECISION_HIGH ? 2 : l->precision == HK_PRECISION_FAST ? 1 : 0;
}

static uint32_t tile_threads(const hk_lower *l, const units_tile *t)
{
    return t->wm * t->wn * hk_matrix_lanes(l);
}

static bool tile_fits(const hk_lower *l, const units_tile *t, uint32_t halves)
{
    uint32_t m = l->coopmat_m, n = l->coopmat_n, threads = tile_threads(l, t), side = HK_SPLIT_SIDE;
    uint32_t words = halves * (t->bm + t->bn) * (t->bk / 8 + 1), sums = t->wm * m * (t->bn / 4 + t->wn);
    uint32_t undos = (t->bm + t->bn) / side * (t->bk / side) + threads;
    uint32_t emulated = l->coopmat_emulated ? 4 * (t->bm * t->bn + t->wm * t->wn * m * n) : 0;
    bool whole = t->bm * t->bk / 8 % threads == 0 && t->bn * t->bk / 8 % threads == 0 && t->bm / t->wm % m == 0 &&
                 t->bn / t->wn % n == 0 && t->bk % l->coopmat_k == 0 && threads % t->bm == 0 && threads % t->bn == 0;
    /* A block with one scale is 32 threads' and two chunks of each, and fragments lie within. */
    bool split = t->bm * t->bk / 8 / threads % 2 == 0 && t->bn * t->bk / 8 / threads % 2 == 0 && side % m == 0 &&
                 side % n == 0 && side % l->coopmat_k == 0;
    return whole && (halves == 1 || split) && threads <= l->device->max_invocations &&
           16 * HK_MAX(words, sums) + 4 * undos + emulated <= l->device->max_shared_bytes;
}

/* Multiplications of a round, in those of a unit: rounds of workgroups over the units with their padding, and for
 * splits a second pass. Only ratios count; they were measured on an H100. */
static void add_candidates(const hk_lower *l, const hk_gather *v, int64_t columns, int64_t k, hk_choice *choice)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 6, 8, 12, 16};
    double units = HK_MAX(l->compute_units_hint, 1u);
    for (size_t i = 0; i < HK_COUNT(tiles); i++) {
        const units_tile *t = &tiles[i];
        if (!tile_fits(l, t, halves_of(l)))
            continue;
        int64_t steps = (k + t->bk - 1) / t->bk;
        int64_t places = ((v->m + t->bm - 1) / t->bm) * ((columns + t->bn - 1) / t->bn) * v->p->groups;
        for (size_t c = 0; c < HK_COUNT(counts) && (c == 0 || steps >= 8 * (int64_t)counts[c]); c++) {
            int64_t split_steps = (steps + counts[c] - 1) / counts[c];
            int64_t splits = (steps + split_steps - 1) / split_steps, groups = places * splits;
            if (splits > 1 && v->m * columns * v->p->groups > INT32_MAX / splits)
                break;
            double rounds = (double)((groups + (int64_t)units - 1) / (int64_t)units);
            double cost = rounds * (((double)split_steps + 4) * t->bk * t->bm * t->bn / t->rate);
            if (splits > 1)
                cost += 3e6 + 30.0 * (double)(v->m * columns * v->p->groups * splits) / units;
            hk_choice_add(choice, &(hk_candidate){.name = t->names[v->forward][halves_of(l) - 1],
                                                  .variant = t,
                                                  .splits = (uint32_t)splits,
                                                  .cost = cost});
        }
    }
}

/* Below this the fp32 kernels are as fast (3x3, 64 channels, 56x56, on an H100: 463 us against 492). With 128 channels
 * 327 us stand against 422 of another run; other windows were not timed. */
enum { LEAST_CHANNELS = 96 };
/* Of float16 operands, measured by hillock tune on an H200: ResNet-50's first convolution, 64 channels, takes 463 us
 * against 499 of the best fp32 tile at batch 64, 17 against 22 at batch 1. */
enum { LEAST_CHANNELS_FAST = 64 };

bool hk_conv_may_units(const hk_lower *l, const hk_conv_job *job, const hk_gather *v)
{
    const hk_kernel *kernel = kernel_of(l);
    uint32_t n = l->coopmat_n, k = l->coopmat_k;
    bool may = halves_of(l) && !l->cpu && !job->tile && !job->exact && l->coopmat_m && kernel->spirv &&
               (kernel->needs & ~l->device->caps) == 0 && n % 8 == 0 && k % 8 == 0 && l->device->subgroup_size >= 8 &&
               v->channels * v->taps >= 32 && hk_gather_fits(v);
    bool fits = false;
    for (size_t i = 0; may && i < HK_COUNT(tiles) && !fits; i++)
        fits = tile_fits(l, &tiles[i], halves_of(l));
    return fits;
}

bool hk_conv_prefers_units(const hk_lower *l, const hk_conv_job *job, const hk_gather *v)
{
    int64_t least = l->precision == HK_PRECISION_FAST && v->forward ? LEAST_CHANNELS_FAST : LEAST_CHANNELS;
    return v->m >= least && hk_conv_may_units(l, job, v);
}

static void set_specs(hk_lower *l, hk_record *r, const hk_conv_job *job, const hk_gather *v, const units_tile *t,
                      bool classes)
{
    const hk_window *w = &v->p->w;
    bool wide = !classes && v->out_plane % 4 == 0 && hk_value_alignment(v->result) == 16 &&
                (!job->residual || hk_value_alignment(job->residual) == 16);
    bool w_wide = v->forward && v->w_row % 4 == 0 && hk_value_alignment(job->w) == 16;
    hk_spec(r, 3, t->bm);
    hk_spec(r, 4, t->bn);
    hk_spec(r, 5, t->bk);
    hk_spec(r, 6, t->wm);
    hk_spec(r, 7, t->wn);
    hk_conv_window_specs(r, w, 8);
    hk_spec(r, 14, v->forward);
    hk_spec(r, 15, classes);
    hk_spec(r, 16, tile_threads(l, t));
    hk_spec(r, 17, wide);
    hk_spec(r, 18, w_wide);
    hk_spec(r, 21, l->coopmat_m);
    hk_spec(r, 22, l->coopmat_n);
    hk_spec(r, 23, hk_gather_is_point(v));
    hk_spec(r, 24, job->scale != NULL);
    hk_spec(r, 25, l->coopmat_k);
    hk_spec(r, 27, halves_of(l));
}

hk_status hk_conv_lower_units(hk_lower *l, const hk_conv_job *job, const hk_gather *v)
{
    hk_gather_table table = hk_gather_table_size(v);
    int64_t columns = v->p->n * v->out_plane, count = hk_shape_count(&v->result->shape);
    char problem[HK_PROBLEM_BYTES];
    hk_choice c;
    hk_choice_begin(l, &c, HK_CHOICE_TILE, "conv matrix %s", hk_conv_problem(l, job, problem));
    add_candidates(l, v, columns, table.most_k, &c);
    const hk_candidate *taken = hk_choice_end(l, &c);
    const units_tile *t = taken->variant;
    int64_t steps = (table.most_k + t->bk - 1) / t->bk;
    bool point = hk_gather_is_point(v), split = taken->splits > 1;
    hk_value *result = split ? hk_scratch(l, HK_FLOAT32, count * taken->splits) : v->result;
    if ((!point && !hk_gather_table_fill(l, v, t->bn, t->bk, &table)) || !result)
        return hk_out_of_memory(l->ctx, "a convolution's table or partial sums");
    hk_record *r = hk_emit(l, kernel_of(l), t->names[v->forward][halves_of(l) - 1]);
    struct conv_gemm_push push = hk_gather_push(job, v);
    push.k = (uint32_t)table.most_k;
    push.tiles_m = (uint32_t)((v->m + t->bm - 1) / t->bm);
    push.tiles_n = (uint32_t)(point ? (columns + t->bn - 1) / t->bn : table.tiles_n);
    push.splits = taken->splits;
    push.k_split = (uint32_t)((steps + taken->splits - 1) / taken->splits * t->bk);
    hk_push(r, &push, sizeof push);
    hk_use(r, job->w, HK_READ, offsetof(struct conv_gemm_push, w));
    hk_use(r, v->source, HK_READ, offsetof(struct conv_gemm_push, source));
    hk_use(r, result, HK_WRITE, offsetof(struct conv_gemm_push, result));
    hk_workgroup(r, tile_threads(l, t), 1, 1);
    r->subgroup_size = hk_lower_has(l, HK_CAP_SUBGROUP_SIZE) ? l->device->subgroup_size : 0;
    set_specs(l, r, job, v, t, table.classes > 1);
    hk_spec(r, 19, split ? EPILOGUE_PARTIAL : hk_conv_epilogue(job));
    hk_spec(r, 20, split ? 0 : job->activation);
    hk_spec(r, 26, 1);
    if (!split) {
        hk_use(r, job->bias, HK_READ, offsetof(struct conv_gemm_push, bias));
        hk_use(r, job->residual, HK_READ, offsetof(struct conv_gemm_push, residual));
    }
    if (point) {
        hk_use(r, job->scale, HK_READ, offsetof(struct conv_gemm_push, table));
    } else {
        r->block = table.words;
        r->block_bytes = table.bytes;
        r->block_offset = offsetof(struct conv_gemm_push, table);
    }
    r->flops = hk_conv_flops(v->p);
    hk_grid_1d(l, r, (uint64_t)push.tiles_m * push.tiles_n * push.groups * push.splits);
    if (split)
        hk_conv_emit_sum(
            l, &(hk_conv_sum){
                   .partial = result, .splits = taken->splits, .count = count, .out = v->result, .epilogue = job});
    hk_choice_leave(l, HK_CHOICE_TILE);
    return HK_OK;
}

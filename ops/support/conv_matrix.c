/* Forward convolution and data gradient of contiguous float32 on matrix units: shaders/conv_matrix.comp. */
#include "kernels.h"
#include "ops/support/choice.h"
#include "ops/support/conv_gather.h"
#include "ops/support/conv_units.h"
#include "ops/support/gemm.h"
#include "shaders/conv_gemm.push.h"

enum { H = HK_AXIS_H, W = HK_AXIS_W };
enum { EPILOGUE_PARTIAL = 4 };

typedef struct units_tile {
    hk_units_tile t;
    const char *names[2][2]; /* data gradient and forward, fast and high */
} units_tile;

#define TILE(text, bm, bn, bk, wm, wn, rate)                                                                           \
    {                                                                                                                  \
        {bm, bn, bk, wm, wn, rate},                                                                                    \
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

/* A thread's row and column do not depend on its chunk. In precision high a block with one scale is 32 threads' and two
 * chunks of each, and fragments lie within. */
static bool tile_fits(const hk_lower *l, const units_tile *u)
{
    const hk_units_tile *t = &u->t;
    uint32_t threads = hk_units_threads(l, t), side = HK_SPLIT_SIDE;
    bool split = t->bm * t->bk / 8 / threads % 2 == 0 && t->bn * t->bk / 8 / threads % 2 == 0 &&
                 side % l->coopmat_m == 0 && side % l->coopmat_n == 0 && side % l->coopmat_k == 0;
    return hk_units_tile_fits(l, t) && threads % t->bm == 0 && threads % t->bn == 0 &&
           (hk_matrix_halves(l) == 1 || split);
}

static void add_candidates(const hk_lower *l, const hk_gather *v, int64_t columns, int64_t k, hk_choice *choice)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 6, 8, 12, 16};
    for (size_t i = 0; i < HK_COUNT(tiles); i++) {
        const units_tile *u = &tiles[i];
        const hk_units_tile *t = &u->t;
        if (!tile_fits(l, u))
            continue;
        int64_t steps = (k + t->bk - 1) / t->bk;
        int64_t places = ((v->m + t->bm - 1) / t->bm) * ((columns + t->bn - 1) / t->bn) * v->p->groups;
        for (size_t c = 0; c < HK_COUNT(counts) && (c == 0 || steps >= 8 * (int64_t)counts[c]); c++) {
            int64_t split_steps = (steps + counts[c] - 1) / counts[c];
            int64_t splits = (steps + split_steps - 1) / split_steps, groups = places * splits;
            if (splits > 1 && v->m * columns * v->p->groups > INT32_MAX / splits)
                break;
            hk_choice_add(choice, &(hk_candidate){.name = u->names[v->forward][hk_matrix_halves(l) - 1],
                                                  .variant = u,
                                                  .splits = (uint32_t)splits,
                                                  .cost = hk_units_cost(l, t, groups, split_steps, (uint32_t)splits,
                                                                        v->m * columns * v->p->groups)});
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
    bool may = hk_units_run(l, kernel_of(l)) && !l->cpu && !job->tile && !job->exact && v->channels * v->taps >= 32 &&
               hk_gather_fits(v);
    bool fits = false;
    for (size_t i = 0; may && i < HK_COUNT(tiles) && !fits; i++)
        fits = tile_fits(l, &tiles[i]);
    return fits;
}

/* Multiplications of a unit in a microsecond in precision high with the best tile: ResNet-50's 3x3 windows with stride
 * 2 take 353, 364 and 477 us on an H200 at batch 64, this gives 373, 399 and 459. */
static const double HIGH_RATE = 170e3, HIGH_DISPATCH = 3;

bool hk_conv_prefers_units(const hk_lower *l, const hk_conv_job *job, const hk_gather *v, double otherwise)
{
    int64_t least = l->precision == HK_PRECISION_FAST && v->forward ? LEAST_CHANNELS_FAST : LEAST_CHANNELS;
    if (v->m < least || !hk_conv_may_units(l, job, v))
        return false;
    if (l->precision == HK_PRECISION_FAST)
        return true;
    hk_choice c = {.kind = HK_CHOICE_TILE};
    add_candidates(l, v, v->p->n * v->out_plane, hk_gather_table_size(v).most_k, &c);
    return c.best[0].cost / HIGH_RATE + HIGH_DISPATCH < HK_UNITS_SURE * otherwise;
}

static void set_specs(hk_lower *l, hk_record *r, const hk_conv_job *job, const hk_gather *v, const hk_units_tile *t,
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
    hk_spec(r, 16, hk_units_threads(l, t));
    hk_spec(r, 17, wide);
    hk_spec(r, 18, w_wide);
    hk_spec(r, 21, l->coopmat_m);
    hk_spec(r, 22, l->coopmat_n);
    hk_spec(r, 23, hk_gather_is_point(v));
    hk_spec(r, 24, job->scale != NULL);
    hk_spec(r, 25, l->coopmat_k);
    hk_spec(r, 27, hk_matrix_halves(l));
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
    const units_tile *tile = taken->variant;
    const hk_units_tile *t = &tile->t;
    int64_t steps = (table.most_k + t->bk - 1) / t->bk;
    bool point = hk_gather_is_point(v), split = taken->splits > 1;
    hk_value *result = split ? hk_scratch(l, HK_FLOAT32, count * taken->splits) : v->result;
    if ((!point && !hk_gather_table_fill(l, v, t->bn, t->bk, &table)) || !result)
        return hk_out_of_memory(l->ctx, "a convolution's table or partial sums");
    hk_record *r = hk_emit(l, kernel_of(l), tile->names[v->forward][hk_matrix_halves(l) - 1]);
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
    hk_workgroup(r, hk_units_threads(l, t), 1, 1);
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

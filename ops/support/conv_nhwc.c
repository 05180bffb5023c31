/* Convolution in HK_LAYOUT_NHWC8. */
#include "kernels.h"
#include "ops/support/conv_lower.h"
#include "shaders/conv_nhwc.push.h"

enum { H = HK_AXIS_H, W = HK_AXIS_W };

/* What both kernels can do: two spatial axes, one group, taps that fit the packed masks. */
static bool geometry_fits(const hk_conv *p)
{
    const hk_window *w = &p->w;
    return w->spatial <= 2 && p->groups == 1 && w->kernel[H] <= 16 && w->kernel[W] <= 16 && w->begin[H] < 65536 &&
           w->begin[W] < 65536;
}

bool hk_conv_accepts_nhwc8(const hk_node *n)
{
    hk_conv p;
    hk_problem_text problem;
    const hk_value *x = hk_in(n, 0), *w = hk_in(n, 1);
    return x->dtype == HK_FLOAT32 && !hk_in(n, 4) && hk_conv_resolve(n->attrs, &x->shape, &w->shape, &p, &problem) &&
           geometry_fits(&p);
}

static bool is_half(const hk_value *v)
{
    return hk_value_storage(v) == HK_FLOAT16;
}

static hk_status check(const hk_lower *l, const hk_conv_job *job)
{
    const hk_value *x = job->x, *w = job->w, *y = job->y, *r = job->residual;
    bool layouts = x->layout == HK_LAYOUT_NHWC8 && w->layout == HK_LAYOUT_NHWC8 && y->layout == HK_LAYOUT_NHWC8 &&
                   (!r || r->layout == HK_LAYOUT_NHWC8);
    bool storages = x->dtype == HK_FLOAT32 && is_half(x) == is_half(y) && (!r || is_half(r) == is_half(x));
    if (layouts && storages && geometry_fits(&job->p))
        return HK_OK;
    return hk_fail(l->ctx, HK_STATUS_INTERNAL,
                   "node '%s' (%s): expected input, packed weight, residual and output all in NHWC8, in "
                   "one storage, with one group and at most two spatial axes; hk_conv_accepts_nhwc8 tells a pass so",
                   l->node->name, l->node->type);
}

static struct conv_nhwc_push push_of(const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    const hk_window *w = &p->w;
    return (struct conv_nhwc_push){.outputs = (uint32_t)p->k,
                                   .octets_in = (uint32_t)(p->c + 7) / 8,
                                   .octets_out = (uint32_t)(p->k + 7) / 8,
                                   .pixels = (uint32_t)(p->n * hk_window_out_count(w)),
                                   .images = (uint32_t)p->n,
                                   .x_h = (uint32_t)w->in[H],
                                   .x_w = (uint32_t)w->in[W],
                                   .y_h = (uint32_t)w->out[H],
                                   .y_w = (uint32_t)w->out[W],
                                   .pads = (uint32_t)w->begin[H] | (uint32_t)w->begin[W] << 16,
                                   .alpha = job->alpha,
                                   .beta = job->beta};
}

static void use_operands(hk_record *r, const hk_conv_job *job)
{
    hk_use(r, job->x, HK_READ, offsetof(struct conv_nhwc_push, x));
    hk_use(r, job->w, HK_READ, offsetof(struct conv_nhwc_push, w));
    hk_use(r, job->y, HK_WRITE, offsetof(struct conv_nhwc_push, y));
    hk_use(r, job->bias, HK_READ, offsetof(struct conv_nhwc_push, bias));
    hk_use(r, job->residual, HK_READ, offsetof(struct conv_nhwc_push, residual));
}

/* ---- float32 arithmetic */

static void lower_octets(hk_lower *l, const hk_conv_job *job)
{
    struct conv_nhwc_push push = push_of(job);
    hk_record *r = hk_emit(l, &hk_kernel_conv_nhwc, is_half(job->x) ? "conv nhwc8 f16" : "conv nhwc8 f32");
    uint32_t lanes = l->cpu ? 8 : HK_MIN(128u, l->device->max_invocations), each = l->cpu ? 2 : 4;
    hk_push(r, &push, sizeof push);
    use_operands(r, job);
    hk_workgroup(r, lanes, 1, 1);
    hk_spec(r, 3, each);
    hk_conv_window_specs(r, &job->p.w, 4);
    hk_spec(r, 10, is_half(job->x));
    hk_spec(r, 11, is_half(job->w));
    hk_spec(r, 12, hk_conv_epilogue(job));
    hk_spec(r, 13, job->activation);
    r->flops = hk_conv_flops(&job->p);
    uint64_t per_group = (uint64_t)lanes * each;
    hk_grid_1d(l, r, (push.pixels + per_group - 1) / per_group * push.octets_out);
}

/* ---- matrix units */

typedef struct matrix_tile {
    uint32_t bm, bn, bk, warps_m, warps_n, stages;
    double rate; /* share of the best tile's rate that its inner loop reaches */
    const char *name;
} matrix_tile;

static const matrix_tile tiles[] = {
    {128, 128, 32, 2, 4, 2, 1.00, "conv nhwc8 matrix 128x128x32"},
    {128, 64, 32, 4, 2, 2, 0.80, "conv nhwc8 matrix 128x64x32"},
    {64, 64, 32, 2, 2, 2, 0.65, "conv nhwc8 matrix 64x64x32"},
};

static bool tile_fits(const hk_lower *l, const matrix_tile *t, uint32_t subgroup)
{
    uint32_t warps = t->warps_m * t->warps_n, threads = warps * subgroup, octets = t->bk / 8;
    uint32_t bytes = t->stages * (t->bm + t->bn) * (octets + 1) * 16 + warps * l->coopmat_m * (l->coopmat_n + 4) * 4;
    return threads <= l->device->max_invocations && bytes <= l->device->max_shared_bytes && threads % octets == 0 &&
           t->bm * octets % threads == 0 && t->bn * octets % threads == 0 && t->bm / t->warps_m % l->coopmat_m == 0 &&
           t->bn / t->warps_n % l->coopmat_n == 0 && t->bk % l->coopmat_k == 0;
}

/* The tile with the least time: rounds of workgroups over the units, with their padding. */
static const matrix_tile *choose_tile(const hk_lower *l, const struct conv_nhwc_push *push, uint32_t subgroup)
{
    const matrix_tile *best = NULL;
    double least = 0;
    for (size_t i = 0; i < HK_COUNT(tiles); i++) {
        const matrix_tile *t = &tiles[i];
        if (!tile_fits(l, t, subgroup))
            continue;
        uint64_t groups = (uint64_t)((push->pixels + t->bm - 1) / t->bm) * ((push->outputs + t->bn - 1) / t->bn);
        double rounds = (double)((groups + l->compute_units_hint - 1) / l->compute_units_hint);
        double cost = rounds * t->bm * t->bn / t->rate;
        if (!best || cost < least) {
            best = t;
            least = cost;
        }
    }
    return best;
}

/* Octet k of the sum lies at this offset (in octets) from the window's corner, under this tap. */
static uint32_t *make_table(hk_lower *l, const hk_conv_job *job, uint32_t octets, uint32_t *bytes)
{
    const hk_window *w = &job->p.w;
    *bytes = (uint32_t)hk_window_taps(w) * octets * 8;
    uint32_t *table = hk_arena_alloc(l->arena, *bytes), *to = table;
    if (!table)
        return NULL;
    for (int64_t r = 0; r < w->kernel[H]; r++)
        for (int64_t s = 0; s < w->kernel[W]; s++)
            for (uint32_t o = 0; o < octets; o++) {
                *to++ = (uint32_t)(r * w->dilation[H] * w->in[W] + s * w->dilation[W]) * octets + o;
                *to++ = (uint32_t)(r << 5 | s);
            }
    return table;
}

static bool matrix_fits(const hk_lower *l, const hk_conv_job *job)
{
    return hk_kernel_conv_nhwc_matrix.spirv && (hk_kernel_conv_nhwc_matrix.needs & ~l->device->caps) == 0 &&
           l->coopmat_m && l->coopmat_n % 8 == 0 && l->coopmat_k % 8 == 0 && is_half(job->x) && is_half(job->w);
}

static hk_status lower_matrix(hk_lower *l, const hk_conv_job *job, const matrix_tile *t, uint32_t subgroup)
{
    struct conv_nhwc_push push = push_of(job);
    hk_record *r = hk_emit(l, &hk_kernel_conv_nhwc_matrix, t->name);
    r->block = make_table(l, job, push.octets_in, &r->block_bytes);
    if (!r->block)
        return hk_out_of_memory(l->ctx, "a convolution's table");
    r->block_offset = offsetof(struct conv_nhwc_push, table);
    hk_push(r, &push, sizeof push);
    use_operands(r, job);
    hk_workgroup(r, t->warps_m * t->warps_n * subgroup, 1, 1);
    r->subgroup_size = hk_lower_has(l, HK_CAP_SUBGROUP_SIZE) ? subgroup : 0;
    const uint32_t specs[] = {t->bm,    t->bn,        t->bk,        t->warps_m,  t->warps_n,
                              subgroup, l->coopmat_m, l->coopmat_n, l->coopmat_k};
    for (uint32_t i = 0; i < HK_COUNT(specs); i++)
        hk_spec(r, 3 + i, specs[i]);
    hk_conv_window_specs(r, &job->p.w, 12);
    hk_spec(r, 18, hk_conv_epilogue(job));
    hk_spec(r, 19, job->activation);
    hk_spec(r, 20, t->stages);
    r->flops = hk_conv_flops(&job->p);
    hk_grid_1d(l, r, (uint64_t)((push.pixels + t->bm - 1) / t->bm) * ((push.octets_out * 8 + t->bn - 1) / t->bn));
    return HK_OK;
}

hk_status hk_conv_lower_nhwc8(hk_lower *l, const hk_conv_job *job)
{
    HK_TRY(check(l, job));
    struct conv_nhwc_push push = push_of(job);
    uint32_t subgroup = l->device->subgroup_size;
    const matrix_tile *t = matrix_fits(l, job) ? choose_tile(l, &push, subgroup) : NULL;
    if (t)
        return lower_matrix(l, job, t, subgroup);
    lower_octets(l, job);
    return HK_OK;
}

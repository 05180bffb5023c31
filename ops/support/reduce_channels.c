/* Normalization of channels on the device: geometry, chunks, and the dispatches. */
#include "ops/support/reduce_channels.h"

#include <stddef.h>

#include "kernels.h"
#include "shaders/batchnorm.push.h"
#include "shaders/batchnorm_geometry.push.h"
#include "shaders/batchnorm_grad.push.h"
#include "shaders/batchnorm_stats.push.h"
#include "shaders/batchnorm_sums.push.h"

struct geometry {
#define WORD(name) uint32_t name;
#define REAL(name) float name;
    BATCHNORM_GEOMETRY(WORD, REAL)
#undef WORD
#undef REAL
};

enum {
    STAT_CHUNKS_MOST = 128, /* partial results that each team of the next pass adds up */
    CPU_UNITS_LEAST = 256,  /* of a chunk on a CPU */
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* How one pass runs: the constants and the geometry it pushes. */
typedef struct pass {
    hk_team team;
    uint32_t held;
    bool vector, pool;
    struct geometry g;
} pass;

/* most: units that an invocation loads at once, before it works on them. */
static void plan_chunks(const hk_lower *l, pass *p, int64_t chunks_most, uint32_t most)
{
    int64_t units = p->g.units, lanes = p->team.lanes, groups = ceil_div(p->g.channels, p->team.items);
    int64_t chunks, each = ceil_div(units, lanes);
    if (l->cpu)
        chunks = HK_MIN(ceil_div(64, p->g.channels), units / CPU_UNITS_LEAST);
    else
        chunks = HK_MIN(ceil_div(4 * (int64_t)l->compute_units_hint, groups), each);
    chunks = HK_MAX(HK_MIN(chunks, chunks_most), 1);
    int64_t chunk = ceil_div(ceil_div(units, chunks), lanes) * lanes;
    p->g.chunk = (uint32_t)chunk;
    p->g.chunks = (uint32_t)ceil_div(units, chunk);
    p->held = (uint32_t)HK_MIN((int64_t)most, HK_MAX(chunk / lanes, 1));
}

/* A pass over x (and values of its shape). stats: the pass knows neither scale nor activation, and its channels are the
 * groups. values: everything it reads or writes in whole vectors. */
static pass plan_pass(const hk_lower *l, const hk_channels *c, bool stats, const hk_value *const *values, size_t count)
{
    int64_t samples = c->samples, channels = c->channels, extent = c->extent, s_stride = 1;
    if (stats) {
        channels /= c->group;
        extent *= c->group;
    }
    pass p = {.pool = c->pool && !stats};
    int64_t n_stride = c->channels * c->extent, c_stride = extent;
    if (extent == 1) { /* a matrix [samples][channels]: walk down its columns */
        extent = samples;
        samples = 1;
        s_stride = channels;
        c_stride = 1;
    }
    int64_t row = p.pool ? c->width : extent;
    p.vector = s_stride == 1 && row % 4 == 0 && hk_aligned_all(values, count);
    int64_t rows = p.pool ? extent / c->width / 2 : 1, row_units = ceil_div(row, 4);
    p.g = (struct geometry){
        .channels = (uint32_t)channels,
        .units = (uint32_t)(samples * rows * row_units),
        .row_units = (uint32_t)row_units,
        .row_extent = (uint32_t)row,
        .rows = (uint32_t)rows,
        .n_stride = (uint32_t)n_stride,
        .c_stride = (uint32_t)c_stride,
        .s_stride = (uint32_t)s_stride,
        .y_n_stride = (uint32_t)(n_stride / 4),
        .y_c_stride = (uint32_t)(c_stride / 4),
        .group = stats ? 1u : (uint32_t)c->group,
        .stat_rows = (uint32_t)(c->channels / c->group),
        .stat_chunks = 1,
        .param_divide = (uint32_t)c->param_divide,
        .param_count = (uint32_t)c->param_count,
        .count = (float)(c->samples * c->extent * c->group),
        .epsilon = (float)c->epsilon,
        .variance_factor = 1.0f,
    };
    p.team = s_stride == 1 ? hk_team_rows(l, channels, p.g.units) : hk_team_columns(l, channels, p.g.units);
    return p;
}

/* Constants 8..11 of shaders/batchnorm.glsl and the geometry block. */
static hk_record *emit_pass(hk_lower *l, const hk_channels *c, const pass *p, hk_team_kernel kernel,
                            const char *variant, const void *push, size_t push_bytes, size_t geometry_offset)
{
    hk_record *r = hk_team_emit(l, &p->team, kernel, variant, (int64_t)p->g.channels * p->g.chunks, push, push_bytes);
    hk_spec(r, HK_TEAM_SPEC, p->held);
    hk_spec(r, HK_TEAM_SPEC + 1, p->vector);
    hk_spec(r, HK_TEAM_SPEC + 2, c->relu);
    hk_spec(r, HK_TEAM_SPEC + 3, p->pool);
    struct geometry *block = hk_arena_new(l->arena, struct geometry);
    if (!block) {
        l->failed = true;
        return r;
    }
    *block = p->g;
    r->block = block;
    r->block_bytes = sizeof *block;
    r->block_offset = (uint16_t)geometry_offset;
    r->flops = 4.0 * (double)(c->samples * c->channels * c->extent);
    return r;
}

/* Scratch [chunks][statistics] of four words, or NULL (l->failed tells). */
static hk_value *emit_stats(hk_lower *l, const hk_channels *c, hk_value *x, int64_t *chunks)
{
    pass p = plan_pass(l, c, true, (const hk_value *[]){x}, 1);
    plan_chunks(l, &p, STAT_CHUNKS_MOST, l->cpu ? 2 : 8);
    hk_value *partial = hk_scratch(l, HK_FLOAT32, 4 * (int64_t)p.g.channels * p.g.chunks);
    if (!partial)
        return NULL;
    const struct batchnorm_stats_push push = {0};
    hk_channels plain = *c;
    plain.relu = false;
    hk_record *r = emit_pass(
        l, &plain, &p, (hk_team_kernel){&hk_kernel_batchnorm_stats, &hk_kernel_batchnorm_stats_subgroup},
        "batchnorm statistics", &push, sizeof push, offsetof(struct batchnorm_stats_push, geometry));
    hk_use(r, x, HK_READ, offsetof(struct batchnorm_stats_push, x));
    hk_use(r, partial, HK_WRITE, offsetof(struct batchnorm_stats_push, partial));
    *chunks = p.g.chunks;
    return partial;
}

/* The kernel writes both or none. */
static bool complete_pair(hk_lower *l, hk_value **a, hk_value **b, int64_t count)
{
    if (*a && !*b)
        *b = hk_scratch(l, HK_FLOAT32, count);
    else if (*b && !*a)
        *a = hk_scratch(l, HK_FLOAT32, count);
    return *a && *b;
}

/* With the statistics in `chunks` partial results (training) or as given. */
static void emit_norm(hk_lower *l, const hk_channels *c, const hk_channel_norm *n, hk_value *partial, int64_t chunks)
{
    pass p = plan_pass(l, c, false, (const hk_value *[]){n->x, n->y}, 2);
    plan_chunks(l, &p, INT32_MAX, l->cpu ? 2 : 4);
    if (!n->y) { /* the statistics alone: a team for each channel, with no units to walk */
        p.g.chunks = 1;
        p.g.units = p.g.chunk = 0;
    }
    p.g.stat_chunks = (uint32_t)chunks;
    p.g.momentum = (float)n->momentum;
    double count = (double)(c->samples * c->extent * c->group);
    p.g.variance_factor = n->unbiased ? (float)(count / (count - 1.0)) : 1.0f;
    hk_value *mean_out = n->mean_out, *variance_out = n->variance_out, *mean = n->saved_mean,
             *deviation = n->saved_deviation;
    bool running = complete_pair(l, &mean_out, &variance_out, c->channels);
    bool save = complete_pair(l, &mean, &deviation, c->channels / c->group);
    const struct batchnorm_push push = {0};
    const char *variant = !n->y     ? "batchnorm of channels"
                          : c->pool ? "batchnorm+relu+pool"
                          : c->relu ? "batchnorm+relu"
                                    : "batchnorm";
    hk_record *r = emit_pass(l, c, &p, (hk_team_kernel){&hk_kernel_batchnorm, &hk_kernel_batchnorm_subgroup}, variant,
                             &push, sizeof push, offsetof(struct batchnorm_push, geometry));
    hk_spec(r, HK_TEAM_SPEC + 4, n->training);
    hk_spec(r, HK_TEAM_SPEC + 5, save);
    hk_spec(r, HK_TEAM_SPEC + 6, running);
    hk_spec(r, HK_TEAM_SPEC + 7, n->affine != NULL);
    hk_use(r, n->affine, HK_WRITE, offsetof(struct batchnorm_push, affine));
    hk_use(r, n->y ? n->x : NULL, HK_READ, offsetof(struct batchnorm_push, x));
    hk_use(r, n->y, HK_WRITE, offsetof(struct batchnorm_push, y));
    hk_use(r, n->scale, HK_READ, offsetof(struct batchnorm_push, scale));
    hk_use(r, n->bias, HK_READ, offsetof(struct batchnorm_push, bias));
    hk_use(r, partial, HK_READ, offsetof(struct batchnorm_push, partial));
    if (!n->training || running) {
        hk_use(r, n->mean, HK_READ, offsetof(struct batchnorm_push, mean));
        hk_use(r, n->variance, HK_READ, offsetof(struct batchnorm_push, variance));
    }
    if (running) {
        hk_use(r, mean_out, HK_WRITE, offsetof(struct batchnorm_push, mean_out));
        hk_use(r, variance_out, HK_WRITE, offsetof(struct batchnorm_push, variance_out));
    }
    if (save) {
        hk_use(r, mean, HK_WRITE, offsetof(struct batchnorm_push, saved_mean));
        hk_use(r, deviation, HK_WRITE, offsetof(struct batchnorm_push, saved_deviation));
    }
}

hk_status hk_emit_channel_norm(hk_lower *l, const hk_channels *c, const hk_channel_norm *n)
{
    if (c->samples * c->channels * c->extent == 0) {
        if (n->mean_out && c->channels)
            return hk_fail(l->ctx, HK_STATUS_INVALID,
                           "node '%s' (%s): a batch without elements has no statistics to train with", l->node->name,
                           l->node->type);
        return HK_OK;
    }
    hk_value *partial = NULL;
    int64_t chunks = 1;
    if (n->x->layout == HK_LAYOUT_NHWC8) {
        hk_channel_norm affine = *n; /* all but y, which a kernel of the layout makes with what happens to x */
        affine.y = NULL;
        affine.affine = n->affine ? n->affine : hk_scratch(l, HK_FLOAT32, 4 * c->channels);
        if ((n->training && !(partial = hk_emit_octet_stats(l, c, n->x, &chunks))) || !affine.affine)
            return HK_OK; /* l->failed tells */
        emit_norm(l, c, &affine, partial, chunks);
        hk_emit_octet_norm(l, c, n, affine.affine);
        return HK_OK;
    }
    HK_TRY(hk_require_float32(l, n->x));
    if (n->training && !(partial = emit_stats(l, c, n->x, &chunks)))
        return HK_OK;
    emit_norm(l, c, n, partial, chunks);
    return HK_OK;
}

/* ---- gradients */

static hk_value *emit_sums(hk_lower *l, const hk_channels *c, const hk_channel_grad *n, int64_t *chunks)
{
    pass p = plan_pass(l, c, false, (const hk_value *[]){n->x, n->dy}, 2);
    plan_chunks(l, &p, STAT_CHUNKS_MOST, l->cpu || c->pool ? 2 : 4);
    hk_value *sums = hk_scratch(l, HK_FLOAT32, 2 * (int64_t)p.g.channels * p.g.chunks);
    if (!sums)
        return NULL;
    const struct batchnorm_sums_push push = {0};
    hk_record *r = emit_pass(l, c, &p, (hk_team_kernel){&hk_kernel_batchnorm_sums, &hk_kernel_batchnorm_sums_subgroup},
                             "batchnorm_grad sums", &push, sizeof push, offsetof(struct batchnorm_sums_push, geometry));
    hk_spec(r, HK_TEAM_SPEC + 4, n->frozen);
    hk_use(r, n->dy, HK_READ, offsetof(struct batchnorm_sums_push, dy));
    hk_use(r, n->x, HK_READ, offsetof(struct batchnorm_sums_push, x));
    hk_use(r, n->scale, HK_READ, offsetof(struct batchnorm_sums_push, scale));
    hk_use(r, n->bias, HK_READ, offsetof(struct batchnorm_sums_push, bias));
    hk_use(r, n->mean, HK_READ, offsetof(struct batchnorm_sums_push, mean));
    hk_use(r, n->deviation, HK_READ, offsetof(struct batchnorm_sums_push, deviation));
    hk_use(r, sums, HK_WRITE, offsetof(struct batchnorm_sums_push, sums));
    *chunks = p.g.chunks;
    return sums;
}

/* Without a dx, the parameters' gradients alone. */
static void emit_dx(hk_lower *l, const hk_channels *c, const hk_channel_grad *n, hk_value *sums, int64_t chunks,
                    bool parameters)
{
    pass p = plan_pass(l, c, false, (const hk_value *[]){n->x, n->dy, n->dx}, 3);
    plan_chunks(l, &p, INT32_MAX, l->cpu || c->pool ? 2 : 4);
    if (!n->dx) { /* a team for each channel, with no units to walk */
        p.g.chunks = 1;
        p.g.units = p.g.chunk = 0;
    }
    p.g.stat_chunks = (uint32_t)chunks;
    const struct batchnorm_grad_push push = {0};
    hk_record *r = emit_pass(l, c, &p, (hk_team_kernel){&hk_kernel_batchnorm_grad, &hk_kernel_batchnorm_grad_subgroup},
                             n->dx ? "batchnorm_grad dx" : "batchnorm_grad of channels", &push, sizeof push,
                             offsetof(struct batchnorm_grad_push, geometry));
    hk_spec(r, HK_TEAM_SPEC + 4, n->frozen);
    hk_spec(r, HK_TEAM_SPEC + 5, parameters);
    hk_spec(r, HK_TEAM_SPEC + 6, c->group > 1);
    hk_use(r, n->dx ? n->dy : NULL, HK_READ, offsetof(struct batchnorm_grad_push, dy));
    hk_use(r, n->dx ? n->x : NULL, HK_READ, offsetof(struct batchnorm_grad_push, x));
    hk_use(r, n->scale, HK_READ, offsetof(struct batchnorm_grad_push, scale));
    hk_use(r, n->bias, HK_READ, offsetof(struct batchnorm_grad_push, bias));
    hk_use(r, n->mean, HK_READ, offsetof(struct batchnorm_grad_push, mean));
    hk_use(r, n->deviation, HK_READ, offsetof(struct batchnorm_grad_push, deviation));
    hk_use(r, n->frozen ? NULL : sums, HK_READ, offsetof(struct batchnorm_grad_push, sums));
    hk_use(r, n->dx, HK_WRITE, offsetof(struct batchnorm_grad_push, dx));
    if (parameters) {
        hk_use(r, n->dscale, HK_WRITE, offsetof(struct batchnorm_grad_push, dscale));
        hk_use(r, n->dbias, HK_WRITE, offsetof(struct batchnorm_grad_push, dbias));
    }
}

/* A plane of the sums → the gradient of bias (0) or scale (1). */
static hk_status emit_parameter(hk_lower *l, const hk_channels *c, hk_value *sums, int64_t chunks, int plane,
                                hk_value *out)
{
    if (!out)
        return HK_OK;
    hk_reduction r = {
        .x = sums,
        .x_first = plane * chunks * c->channels,
        .y = out,
        .rank = 3,
        .extent = {chunks * c->channels / (c->param_count * c->param_divide), c->param_count, c->param_divide},
        .axes = 5};
    return hk_emit_reduction(l, &r);
}

/* The second pass reads the totals of the first as the gradients of scale and bias, asked for or not. */
static hk_status emit_octet_grad(hk_lower *l, const hk_channels *c, const hk_channel_grad *n)
{
    hk_channel_grad totals = *n;
    totals.dx = NULL;
    if ((n->dx && !n->frozen) || n->dscale || n->dbias) {
        int64_t chunks = 1;
        hk_value *sums = hk_emit_octet_sums(l, c, n, &chunks);
        totals.dscale = n->dscale ? n->dscale : hk_scratch(l, HK_FLOAT32, c->channels);
        totals.dbias = n->dbias ? n->dbias : hk_scratch(l, HK_FLOAT32, c->channels);
        if (!sums || !totals.dscale || !totals.dbias)
            return HK_OK;      /* l->failed tells */
        totals.frozen = false; /* the sums are complete */
        emit_dx(l, c, &totals, sums, chunks, true);
    }
    if (n->dx)
        hk_emit_octet_dx(l, c, n, totals.dscale, totals.dbias);
    return HK_OK;
}

hk_status hk_emit_channel_grad(hk_lower *l, const hk_channels *c, const hk_channel_grad *n)
{
    if (c->samples * c->channels * c->extent == 0) {
        if (n->dscale && c->param_count)
            hk_emit_fill(l, n->dscale, 0);
        if (n->dbias && c->param_count)
            hk_emit_fill(l, n->dbias, 0);
        return HK_OK;
    }
    if (n->x->layout == HK_LAYOUT_NHWC8)
        return emit_octet_grad(l, c, n);
    HK_TRY(hk_require_float32(l, n->x));
    /* With batch statistics every dx team adds up the parameters' gradients anyway, so one of them writes them. */
    bool alone = c->group == 1 && c->param_divide == 1 && c->param_count == c->channels;
    bool parameters = n->dx && !n->frozen && alone && n->dscale && n->dbias;
    hk_value *sums = NULL;
    int64_t chunks = 1;
    if ((n->dx && !n->frozen) || n->dscale || n->dbias) {
        sums = emit_sums(l, c, n, &chunks);
        if (!sums)
            return HK_OK;
    }
    if (n->dx)
        emit_dx(l, c, n, sums, chunks, parameters);
    if (parameters)
        return HK_OK;
    HK_TRY(emit_parameter(l, c, sums, chunks, 0, n->dbias));
    return emit_parameter(l, c, sums, chunks, 1, n->dscale);
}

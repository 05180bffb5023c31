/* Normalization of channels in HK_LAYOUT_NHWC8: the passes over x, whose channels lie side by side in octets. */
#include "ops/support/reduce_channels.h"

#include <stddef.h>

#include "kernels.h"
#include "ops/divisor.h"
#include "shaders/batchnorm_nhwc.push.h"

enum { THREADS = 256, OCTETS_MOST = 8 /* of a workgroup: a line of 128 bytes */ };

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Constants 3 to 5 of shaders/batchnorm_nhwc.glsl, and what it pushes. */
typedef struct pass {
    uint32_t octets, lanes, held;
    bool relu, pool;
    int64_t groups; /* workgroups */
    struct batchnorm_nhwc_push push;
} pass;

/* activation: the pass knows it, else its units are pixels. fill: workgroups wanted for each compute unit. */
static pass plan_pass(const hk_lower *l, const hk_channels *c, bool activation, int64_t fill)
{
    int64_t octets = ceil_div(c->channels, 8), units = c->samples * c->extent;
    pass p = {.octets = 1, .relu = activation && c->relu, .pool = activation && c->pool};
    units /= p.pool ? 4 : 1;
    while (p.octets < OCTETS_MOST && p.octets < octets)
        p.octets *= 2;
    p.lanes = l->cpu ? 1 : HK_MIN((uint32_t)THREADS, l->device->max_invocations) / p.octets;
    while (p.lanes > 1 && p.lanes >= 2 * units)
        p.lanes /= 2;
    p.held = l->cpu || p.pool ? 1 : 4;
    int64_t blocks = ceil_div(octets, p.octets), least = (int64_t)p.lanes * p.held;
    int64_t want = l->cpu ? 16 : fill * (int64_t)HK_MAX(l->compute_units_hint, 1u);
    int64_t chunk = ceil_div(ceil_div(units, HK_MAX(want / blocks, 1)), least) * least;
    p.push = (struct batchnorm_nhwc_push){.units = (uint32_t)units,
                                          .chunk = (uint32_t)chunk,
                                          .chunks = (uint32_t)ceil_div(units, chunk),
                                          .octets = (uint32_t)octets,
                                          .channels = (uint32_t)c->channels,
                                          .count = (float)(c->samples * c->extent),
                                          .epsilon = (float)c->epsilon};
    if (p.pool) {
        hk_divisor d = hk_divisor_of(c->width / 2);
        p.push.width = (uint32_t)(c->width / 2);
        p.push.width_magic = d.multiplier;
        p.push.width_shift = d.shift;
    }
    p.groups = blocks * p.push.chunks;
    return p;
}

static hk_record *emit_pass(hk_lower *l, const hk_channels *c, const pass *p, const hk_kernel *kernel,
                            const char *variant, hk_value *x, bool given)
{
    hk_record *r = hk_emit(l, kernel, variant);
    hk_workgroup(r, p->octets * p->lanes, 1, 1);
    hk_spec(r, 3, p->octets);
    hk_spec(r, 4, p->lanes);
    hk_spec(r, 5, p->held);
    hk_spec(r, 6, hk_stores_halves(x));
    hk_spec(r, 7, p->relu);
    hk_spec(r, 8, p->pool);
    hk_spec(r, 9, given);
    hk_grid_1d(l, r, (uint64_t)p->groups);
    hk_push(r, &p->push, sizeof p->push);
    hk_use(r, x, HK_READ, offsetof(struct batchnorm_nhwc_push, x));
    r->flops = 4.0 * (double)(c->samples * c->channels * c->extent);
    return r;
}

hk_value *hk_emit_octet_stats(hk_lower *l, const hk_channels *c, hk_value *x, int64_t *chunks)
{
    pass p = plan_pass(l, c, false, 4);
    hk_value *partial = hk_scratch(l, HK_FLOAT32, 4 * c->channels * p.push.chunks);
    if (!partial)
        return NULL;
    hk_record *r = emit_pass(l, c, &p, &hk_kernel_batchnorm_nhwc_stats, "batchnorm statistics nhwc8", x, false);
    hk_use(r, partial, HK_WRITE, offsetof(struct batchnorm_nhwc_push, to));
    *chunks = p.push.chunks;
    return partial;
}

void hk_emit_octet_norm(hk_lower *l, const hk_channels *c, const hk_channel_norm *n, hk_value *affine)
{
    pass p = plan_pass(l, c, true, 8);
    const char *variant = c->pool ? "batchnorm+relu+pool nhwc8" : c->relu ? "batchnorm+relu nhwc8" : "batchnorm nhwc8";
    hk_record *r = emit_pass(l, c, &p, &hk_kernel_batchnorm_nhwc, variant, n->x, !n->training);
    hk_use(r, affine, HK_READ, offsetof(struct batchnorm_nhwc_push, affine));
    hk_use(r, n->y, HK_WRITE, offsetof(struct batchnorm_nhwc_push, y));
}

/* What both passes of the gradient read. */
static hk_record *emit_grad(hk_lower *l, const hk_channels *c, const pass *p, const hk_kernel *kernel,
                            const char *variant, const hk_channel_grad *n)
{
    hk_record *r = emit_pass(l, c, p, kernel, variant, n->x, n->frozen);
    hk_spec(r, 10, n->frozen);
    hk_use(r, n->dy, HK_READ, offsetof(struct batchnorm_nhwc_push, y));
    hk_use(r, n->scale, HK_READ, offsetof(struct batchnorm_nhwc_push, scale));
    hk_use(r, n->bias, HK_READ, offsetof(struct batchnorm_nhwc_push, bias));
    hk_use(r, n->mean, HK_READ, offsetof(struct batchnorm_nhwc_push, mean));
    hk_use(r, n->deviation, HK_READ, offsetof(struct batchnorm_nhwc_push, deviation));
    return r;
}

hk_value *hk_emit_octet_sums(hk_lower *l, const hk_channels *c, const hk_channel_grad *n, int64_t *chunks)
{
    pass p = plan_pass(l, c, true, 4);
    hk_value *sums = hk_scratch(l, HK_FLOAT32, 2 * c->channels * p.push.chunks);
    if (!sums)
        return NULL;
    hk_record *r = emit_grad(l, c, &p, &hk_kernel_batchnorm_nhwc_grad_sums, "batchnorm_grad sums nhwc8", n);
    hk_use(r, sums, HK_WRITE, offsetof(struct batchnorm_nhwc_push, to));
    *chunks = p.push.chunks;
    return sums;
}

void hk_emit_octet_dx(hk_lower *l, const hk_channels *c, const hk_channel_grad *n, hk_value *dscale, hk_value *dbias)
{
    pass p = plan_pass(l, c, true, 8);
    hk_record *r = emit_grad(l, c, &p, &hk_kernel_batchnorm_nhwc_grad, "batchnorm_grad dx nhwc8", n);
    hk_use(r, n->frozen ? NULL : dscale, HK_READ, offsetof(struct batchnorm_nhwc_push, dscale));
    hk_use(r, n->frozen ? NULL : dbias, HK_READ, offsetof(struct batchnorm_nhwc_push, dbias));
    hk_use(r, n->dx, HK_WRITE, offsetof(struct batchnorm_nhwc_push, to));
}

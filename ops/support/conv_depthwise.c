/* Forward depthwise convolution: shaders/conv_depthwise.comp. */
#include "kernels.h"
#include "ops/support/conv_lower.h"
#include "shaders/conv_depthwise.push.h"

enum { H = HK_AXIS_H, W = HK_AXIS_W };
enum { MOST_TAPS = 49, MOST_MULTIPLIER = 4 };

bool hk_conv_is_depthwise(const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    const hk_window *w = &p->w;
    return job->pass == HK_CONV_FORWARD && !job->tile && w->spatial < 3 && p->groups == p->c && p->groups > 1 &&
           p->k / p->groups <= MOST_MULTIPLIER && w->kernel[H] * w->kernel[W] <= MOST_TAPS && w->kernel[H] <= 16 &&
           w->kernel[W] <= 16 && w->stride[H] <= 4 && w->dilation[H] <= 4 && w->dilation[W] < 256 &&
           w->begin[H] < 65536 && w->begin[W] < 65536 &&
           p->n * HK_MAX(p->c * hk_window_in_count(w), p->k * hk_window_out_count(w)) <= INT32_MAX;
}

/* Rows of a strip: many, which share the rows of X under them, as long as few lie behind the end of the plane and there
 * are invocations enough to hide the latency of memory. */
static uint32_t strip_rows(const hk_lower *l, const hk_conv *p)
{
    static const uint32_t counts[] = {8, 7, 4, 2, 1};
    int64_t planes = p->n * p->k, height = p->w.out[H], enough = 512 * (int64_t)HK_MAX(l->compute_units_hint, 1u);
    uint32_t best = 1;
    double least = 0;
    for (size_t i = 0; i < HK_COUNT(counts); i++) {
        int64_t rows = counts[i], strips = (height + rows - 1) / rows;
        if (rows > 1 && planes * strips * p->w.out[W] < enough)
            continue;
        /* rows of X read, and the weights, per row of Y kept */
        double reads = (double)strips * (double)((rows - 1) * p->w.stride[H] + (p->w.kernel[H] - 1) * p->w.dilation[H] +
                                                 1 + p->w.kernel[H]);
        if (least == 0 || reads < least) {
            least = reads;
            best = counts[i];
        }
    }
    return best;
}

void hk_conv_lower_depthwise(hk_lower *l, const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    const hk_window *w = &p->w;
    uint32_t rows = strip_rows(l, p), strips = (uint32_t)((w->out[H] + rows - 1) / rows);
    uint32_t multiplier = (uint32_t)(p->k / p->groups);
    int64_t count = p->n * p->k * strips * w->out[W];
    hk_record *r = hk_emit(l, &hk_kernel_conv_depthwise, "conv depthwise nchw");
    hk_divisor width = hk_divisor_of(w->out[W]), strip = hk_divisor_of(strips), channels = hk_divisor_of(p->k),
               multiple = hk_divisor_of(multiplier);
    struct conv_depthwise_push push = {.count = (uint32_t)count,
                                       .channels = (uint32_t)p->k,
                                       .multiplier = multiplier,
                                       .strips = strips,
                                       .x_h = (uint32_t)w->in[H],
                                       .x_w = (uint32_t)w->in[W],
                                       .y_h = (uint32_t)w->out[H],
                                       .y_w = (uint32_t)w->out[W],
                                       .pads = (uint32_t)w->begin[H] | (uint32_t)w->begin[W] << 16,
                                       .width_magic = width.multiplier,
                                       .width_shift = width.shift,
                                       .strips_magic = strip.multiplier,
                                       .strips_shift = strip.shift,
                                       .channels_magic = channels.multiplier,
                                       .channels_shift = channels.shift,
                                       .multiplier_magic = multiple.multiplier,
                                       .multiplier_shift = multiple.shift,
                                       .alpha = job->alpha,
                                       .beta = job->beta};
    hk_push(r, &push, sizeof push);
    hk_use(r, job->w, HK_READ, offsetof(struct conv_depthwise_push, w));
    hk_use(r, job->x, HK_READ, offsetof(struct conv_depthwise_push, x));
    hk_use(r, job->y, HK_WRITE, offsetof(struct conv_depthwise_push, y));
    hk_use(r, job->bias, HK_READ, offsetof(struct conv_depthwise_push, bias));
    hk_use(r, job->residual, HK_READ, offsetof(struct conv_depthwise_push, residual));
    uint32_t lanes = HK_MIN(128u, l->device->max_invocations);
    hk_workgroup(r, lanes, 1, 1);
    hk_spec(r, 3, rows);
    hk_conv_window_specs(r, w, 4);
    hk_spec(r, 10, hk_conv_epilogue(job));
    hk_spec(r, 11, job->activation);
    r->flops = hk_conv_flops(p);
    hk_grid_1d(l, r, (uint64_t)((count + lanes - 1) / lanes));
}

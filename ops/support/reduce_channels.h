/*
 * Normalization of channels: BatchNormalization, its fused forms and their gradients, InstanceNormalization and
 * GroupNormalization are one computation over a tensor seen as x[sample][channel][element].
 *
 * Statistics cover all samples of `group` neighbouring channels. BatchNormalization has group 1; GroupNormalization
 * sees each channel of each sample as a channel of one sample, so that its groups are per sample.
 */
#ifndef HK_REDUCE_CHANNELS_H
#define HK_REDUCE_CHANNELS_H

#include "ops/support/reduce.h"

typedef struct hk_channels {
    int64_t samples, channels, extent;
    int64_t group;                     /* divides channels */
    int64_t param_divide, param_count; /* channel c has scale and bias number c / param_divide % param_count */
    bool relu;                         /* after the affine map */
    bool pool;                         /* then 2x2 windows of stride 2: extent is height * width, both even */
    int64_t width;
    double epsilon;
} hk_channels;

/* Device. y = act((x - m) / sqrt(v + epsilon) * scale + bias): in training with the statistics of x, else with mean and
 * variance as given (group 1). NULL outputs are not written; saved_* have one element per statistic, *_out per channel:
 * out = given * momentum + batch * (1 - momentum). affine receives (mean, slope, bias, 0) of each channel, with which
 * y = (x - mean) slope + bias, for kernels that do that themselves. Nothing is emitted for an empty x. */
typedef struct hk_channel_norm {
    hk_value *x, *scale, *bias, *mean, *variance;
    hk_value *y, *mean_out, *variance_out, *saved_mean, *saved_deviation, *affine;
    bool training, unbiased;
    double momentum;
} hk_channel_norm;
hk_status hk_emit_channel_norm(hk_lower *l, const hk_channels *c, const hk_channel_norm *n);

/* Its gradient. deviation is 1 / sqrt(v + epsilon), or the variance itself when frozen: then statistics are constants
 * (group 1). bias is needed with relu only. NULL outputs are not computed. */
typedef struct hk_channel_grad {
    hk_value *dy, *x, *scale, *bias, *mean, *deviation;
    hk_value *dx, *dscale, *dbias;
    bool frozen;
} hk_channel_grad;
hk_status hk_emit_channel_grad(hk_lower *l, const hk_channels *c, const hk_channel_grad *n);

/* The passes of both where x and its like lie in HK_LAYOUT_NHWC8, with group 1 and a scale for each channel
 * (reduce_channels_nhwc.c). Partial results are those of the other layout: scratch [chunks][channels], NULL when memory
 * has run out. y from affine; dx from the sums' totals, which are the gradients of scale and bias. */
hk_value *hk_emit_octet_stats(hk_lower *l, const hk_channels *c, hk_value *x, int64_t *chunks);
void hk_emit_octet_norm(hk_lower *l, const hk_channels *c, const hk_channel_norm *n, hk_value *affine);
hk_value *hk_emit_octet_sums(hk_lower *l, const hk_channels *c, const hk_channel_grad *n, int64_t *chunks);
void hk_emit_octet_dx(hk_lower *l, const hk_channels *c, const hk_channel_grad *n, hk_value *dscale, hk_value *dbias);

/* Host, the same in double. NULL tensors as above. HK_STATUS_OUT_OF_MEMORY is the only failure. */
typedef struct hk_host_norm {
    const hk_tensor *x, *scale, *bias, *mean, *variance;
    hk_tensor *y, *mean_out, *variance_out, *saved_mean, *saved_deviation;
    bool training, unbiased;
    double momentum;
} hk_host_norm;
hk_status hk_host_channel_norm(hk_eval *e, const hk_channels *c, const hk_host_norm *n);

typedef struct hk_host_grad {
    const hk_tensor *dy, *x, *scale, *bias, *mean, *deviation;
    hk_tensor *dx, *dscale, *dbias;
    bool frozen;
} hk_host_grad;
hk_status hk_host_channel_grad(hk_eval *e, const hk_channels *c, const hk_host_grad *n);

#endif

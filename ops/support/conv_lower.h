/*
 * How convolutions become dispatches: one function per pass chooses the kernel family, its tile and its splits.
 */
#ifndef HK_CONV_LOWER_H
#define HK_CONV_LOWER_H

#include "ops/support/choice.h"
#include "ops/support/conv_geometry.h"

/* The operands of one pass. bias, residual, activation belong to the result of the forward pass and of the data
 * gradient (ConvTranspose's); bias is also where the weight gradient's kernels put the sum over dY when it is asked
 * for.
 */
typedef struct hk_conv_job {
    hk_conv p;
    hk_conv_pass pass;
    hk_value *x, *w, *y;
    hk_value *bias;
    hk_value *residual;
    hk_value *scale;    /* forward, windows of one tap without padding, one group: [n or 1][c] factors of x */
    hk_value *row_sums; /* forward, NHWC8 with a group for each channel: [n][rows of y][k], y summed along its rows */
    hk_value *gate;     /* data gradient, NHWC8: where it is not above 0, x is 0 */
    bool exact;         /* as the attribute hk.exact */
    uint32_t activation;
    float alpha, beta;
    const struct hk_conv_tile *tile; /* for tests and tuning: matrix kernels use this tile and so many splits */
    const struct hk_nhwc_tile *nhwc_tile;
    uint32_t splits;
} hk_conv_job;

/* y from x and w, or x (the data gradient) from y and w. Device layouts: all contiguous float32. */
hk_status hk_conv_lower_gather(hk_lower *l, const hk_conv_job *job);
/* w (and bias, if not NULL) from x and y. */
hk_status hk_conv_lower_weight(hk_lower *l, const hk_conv_job *job);
/* y from x and w in HK_LAYOUT_NHWC8, w contiguous if each channel is a group; storages float32 or float16, the same for
 * x, y and residual; or x and w contiguous float32, where hk_conv_enters_nhwc8 says so. scale: contiguous float32. */
hk_status hk_conv_lower_nhwc8(hk_lower *l, const hk_conv_job *job);
/* The data gradient: x from y, residual and gate if they are there, all in HK_LAYOUT_NHWC8 and float16; w contiguous
 * float32. */
hk_status hk_conv_lower_data_nhwc8(hk_lower *l, const hk_conv_job *job);
/* The weight gradient: w, and bias if asked for, contiguous float32, from x and y, of which each is either float16 in
 * HK_LAYOUT_NHWC8 or contiguous float32. */
hk_status hk_conv_lower_weight_nhwc8(hk_lower *l, const hk_conv_job *job);

/* A tile of conv_nhwc_matrix.comp. */
typedef struct hk_nhwc_tile {
    uint16_t bm, bn, bk; /* pixels, outputs, elements of the sum */
    uint8_t wm, wn;      /* subgroups along both */
    float rate;          /* multiplications of a full unit in a microsecond, in millions, for the cost model */
    const char *name;    /* hk_record.variant */
} hk_nhwc_tile;
/* All of them, and whether this device can use one for a job in float16: forward or data gradient. */
const hk_nhwc_tile *hk_nhwc_tiles(size_t *count);
bool hk_nhwc_tile_fits(const hk_lower *l, const hk_conv_job *job, const hk_nhwc_tile *t);
/* The same of conv_nhwc_weight_matrix.comp: bm outputs, bn channels of taps, bk pixels. */
const hk_nhwc_tile *hk_nhwc_weight_tiles(size_t *count);
bool hk_nhwc_weight_tile_fits(const hk_lower *l, const hk_nhwc_tile *t);
/* The forward pass or data gradient by conv_nhwc_matrix.comp, weights packed: (result channels, taps, octets of source
 * channels). *done: whether the device can. */
hk_status hk_conv_lower_nhwc8_matrix(hk_lower *l, const hk_conv_job *job, bool *done);
/* The end of the job: its result from so many partial sums, each as the result lies but float32. */
void hk_conv_emit_nhwc8_sum(hk_lower *l, const hk_conv_job *job, hk_value *partial, uint32_t splits);

/* The general kernels, for windows and groups that the matrix kernels leave out, and for software devices. */
void hk_conv_lower_direct(hk_lower *l, const hk_conv_job *job);
void hk_conv_lower_weight_rows(hk_lower *l, const hk_conv_job *job);

/* Windows that see one channel: forward, few taps. */
bool hk_conv_is_depthwise(const hk_conv_job *job);
void hk_conv_lower_depthwise(hk_lower *l, const hk_conv_job *job);

/* 3x3 windows with stride 1 by Winograd's transforms, forward and data gradient: whether the kernels can, whether they
 * may (rounding, and what the job allows), and whether they are faster then. */
bool hk_conv_fits_winograd(const hk_conv_job *job);
bool hk_conv_may_winograd(const hk_lower *l, const hk_conv_job *job);
bool hk_conv_prefers_winograd(const hk_lower *l, const hk_conv_job *job);
hk_status hk_conv_lower_winograd(hk_lower *l, const hk_conv_job *job);
/* The weight gradient of such windows, without the bias's, in precision high on matrix units: whether it runs, whether
 * it is faster than what takes so many microseconds. */
bool hk_conv_weight_fits_winograd(const hk_lower *l, const hk_conv_job *job);
bool hk_conv_weight_prefers_winograd(const hk_lower *l, const hk_conv_job *job, double otherwise);
hk_status hk_conv_lower_weight_winograd(hk_lower *l, const hk_conv_job *job);

/* What a table of measurements calls the job: written to text, which comes back; "" without such a table. */
const char *hk_conv_problem(const hk_lower *l, const hk_conv_job *job, char text[HK_PROBLEM_BYTES]);

/* What the families share: multiply-adds counted twice, and the bits of the shaders' EPILOGUE (1 bias, 2 residual). */
double hk_conv_flops(const hk_conv *p);
uint32_t hk_conv_epilogue(const hk_conv_job *job);
/* Kernel, stride and dilation of rows and columns as the constants id to id + 5: what all these shaders have. */
void hk_conv_window_specs(hk_record *r, const hk_window *w, uint32_t id);

/* Three axes through the kernels for two, on GPUs (conv_depth.c): any pass. */
bool hk_conv_prefers_depth(const hk_lower *l, const hk_conv_job *job);
hk_status hk_conv_lower_depth(hk_lower *l, const hk_conv_job *job);

/* Sums partial results in a fixed order: out[i] (and bias_out[j]) = sum over splits of partial[s][i], then the epilogue
 * of the job. partial holds splits x (count + bias_count) floats. */
typedef struct hk_conv_sum {
    hk_value *partial;
    uint32_t splits;
    int64_t count, bias_count;
    hk_value *out, *bias_out;
    int64_t taps, channels; /* taps > 0: the sums of a split are (outputs, taps, octets of channels), then biases, and
                             * out is (outputs, channels, taps) */
    const hk_conv_job *epilogue; /* NULL: none; without taps */
} hk_conv_sum;
void hk_conv_emit_sum(hk_lower *l, const hk_conv_sum *s);

/* True if the node (Conv or hk.Conv) can run in HK_LAYOUT_NHWC8, with one group or one for each channel: what a layout
 * pass asks. */
bool hk_conv_accepts_nhwc8(const hk_node *n);
/* And if its few channels are read as they are, contiguous float32, and only the result is in the layout. */
bool hk_conv_enters_nhwc8(const hk_node *n);
/* hk.ConvDataGrad: dY, the residual and dX in HK_LAYOUT_NHWC8 and float16, W as it is, contiguous float32. */
bool hk_conv_data_grad_accepts_nhwc8(const hk_node *n);
/* hk.ConvWeightGrad: X and dY each either in HK_LAYOUT_NHWC8 and float16 or contiguous float32 (then a dispatch packs
 * it: for an image's few channels), dW and dB as they are, contiguous float32. */
bool hk_conv_weight_grad_accepts_nhwc8(const hk_node *n);

#endif

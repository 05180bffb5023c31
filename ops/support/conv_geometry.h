/*
 * The geometry that convolution and pooling share: windows sliding over up to three spatial axes, and the sizes of a
 * convolution. Every attribute form of ONNX ends here, so that evaluators and kernels see numbers only.
 */
#ifndef HK_CONV_GEOMETRY_H
#define HK_CONV_GEOMETRY_H

#include "ops/divisor.h"
#include "ops/op.h"

/* Room for a sentence that says what is wrong with a node's geometry. */
typedef struct hk_problem_text {
    char text[200];
} hk_problem_text;

/* Depth, height, width. A signal of one or two axes has leading axes of extent 1, so that 1-D and 2-D are special
 * shapes, never special code. */
enum { HK_AXIS_D, HK_AXIS_H, HK_AXIS_W, HK_AXES };

typedef struct hk_window {
    int32_t spatial;                   /* axes the operator has: 1 to 3, the last ones of the arrays */
    int64_t in[HK_AXES], out[HK_AXES]; /* extents; -1: unknown */
    int64_t kernel[HK_AXES], stride[HK_AXES], dilation[HK_AXES];
    int64_t begin[HK_AXES], end[HK_AXES]; /* padding; as auto_pad works out, 0 while the input's extent is unknown */
} hk_window;

typedef struct hk_window_attrs {
    const char *auto_pad; /* "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID" */
    hk_ints kernel_shape, strides, dilations, pads;
    int64_t ceil_mode;
} hk_window_attrs;

/* x: the input, rank 3 to 5 (batch, channels, spatial axes). kernel: extents of the window per spatial axis, -1 unknown
 * ones. Output extents follow ONNX: floor, or ceil with ceil_mode, where a window that would start behind the input and
 * its leading padding is dropped (as PyTorch does). False with a sentence in problem when attributes do not fit. */
bool hk_window_resolve(const hk_window_attrs *a, const hk_shape *x, const int64_t *kernel, hk_window *w,
                       hk_problem_text *problem);
int64_t hk_window_taps(const hk_window *w);
int64_t hk_window_in_count(const hk_window *w);  /* elements of one input plane */
bool hk_window_is_point(const hk_window *w);     /* one tap, which never meets padding */
int64_t hk_window_out_count(const hk_window *w); /* elements of one output plane */
/* (batch, channels, the spatial output extents). */
hk_shape hk_window_shape(const hk_window *w, int64_t batch, int64_t channels);

/* One convolution, forward or backward: X (n, c, in), W (k, c / groups, kernel), Y (n, k, out). */
typedef struct hk_conv {
    hk_window w;
    int64_t n, c, k, groups;
} hk_conv;

typedef struct hk_conv_attrs {
    hk_window_attrs window;
    int64_t group;
    hk_ints input_shape; /* hk.ConvDataGrad: the spatial extents of X */
    int64_t activation;  /* hk.Conv: a code of ops/activation.h with its two parameters */
    float alpha, beta;
    int64_t exact; /* products of whole numbers: no kernel that transforms or splits them (Winograd, matrix units) */
} hk_conv_attrs;

/* The problem of shapes X and W; unknown dimensions stay -1. */
bool hk_conv_resolve(const hk_conv_attrs *a, const hk_shape *x, const hk_shape *w, hk_conv *p,
                     hk_problem_text *problem);

typedef enum hk_conv_pass { HK_CONV_FORWARD, HK_CONV_DATA, HK_CONV_WEIGHT } hk_conv_pass;

/* The oracle in double: adds to y (forward), to x (data gradient) or to w (weight gradient) what the two others give.
 * Equations: y[n,k,o] = sum over c, taps of x[n,c,o*stride - begin + tap*dilation] w[k,c,tap], and its two adjoints. */
void hk_conv_reference(const hk_conv *p, hk_conv_pass pass, double *x, double *w, double *y);
/* Elements of t as doubles, NULL when out of memory. */
double *hk_tensor_doubles(hk_arena *arena, const hk_tensor *t);

#endif

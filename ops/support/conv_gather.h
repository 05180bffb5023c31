/*
 * What the convolution GEMMs see, forward and data gradient: they gather from X to make Y, or from dY to make dX. Their
 * shaders (conv_gather.glsl) read the table that is made here.
 */
#ifndef HK_CONV_GATHER_H
#define HK_CONV_GATHER_H

#include "ops/support/conv_lower.h"

struct conv_gemm_push;

typedef struct hk_gather {
    const hk_conv *p;
    bool forward;
    hk_value *source, *result;
    int64_t source_extent[HK_AXES], out_extent[HK_AXES];
    int64_t source_plane, out_plane;
    int64_t m, channels; /* of one group: destination and source channels */
    int64_t taps;
    uint32_t w_row, w_channel, w_group;
} hk_gather;

typedef struct hk_gather_table {
    uint32_t *words; /* class records (if any), then entries of two words */
    uint32_t bytes;
    uint32_t classes; /* 1: no class records */
    int64_t most_k;   /* the longest class */
    int64_t tiles_n;
} hk_gather_table;

hk_gather hk_gather_of(const hk_conv_job *job);
/* Classes and the longest of them; words, bytes and tiles_n are hk_gather_table_fill's. */
hk_gather_table hk_gather_table_size(const hk_gather *v);
/* For tiles of bn columns and K steps of bk. False: out of memory. */
bool hk_gather_table_fill(hk_lower *l, const hk_gather *v, uint32_t bn, uint32_t bk, hk_gather_table *t);
/* Whether the table and the kernels' masks can describe the problem. */
bool hk_gather_fits(const hk_gather *v);
/* One tap without padding, and no classes: a matrix product that needs no table. */
bool hk_gather_is_point(const hk_gather *v);

/* The push block, but for the tiles and splits: k, tiles_m, tiles_n, splits, k_split. */
struct conv_gemm_push hk_gather_push(const hk_conv_job *job, const hk_gather *v);

/* On matrix units (precision high and fast): whether device, job and problem allow it, and whether it is faster then,
 * in precision high than the tiles of float32, which take so many microseconds. */
bool hk_conv_may_units(const hk_lower *l, const hk_conv_job *job, const hk_gather *v);
bool hk_conv_prefers_units(const hk_lower *l, const hk_conv_job *job, const hk_gather *v, double otherwise);
hk_status hk_conv_lower_units(hk_lower *l, const hk_conv_job *job, const hk_gather *v);

#endif

/*
 * How a tensor is seen by the channel kernels (batchnorm*.comp), once for C and GLSL: a parameter block of words.
 *
 * Element s of sample n and channel c lies at n * n_stride + c * c_stride + s * s_stride. A unit is four elements along
 * s (the last ones of a row may be missing); with pooling it is four columns of two image rows, that is, two windows.
 * Units of a channel are numbered through its samples, and a chunk of them is a work item.
 */
#define BATCHNORM_GEOMETRY(UINT_FIELD, FLOAT_FIELD)                                                                    \
    UINT_FIELD(channels)                                                                                               \
    UINT_FIELD(chunks)      /* of a channel, in this dispatch */                                                       \
    UINT_FIELD(chunk)       /* units of each but perhaps the last */                                                   \
    UINT_FIELD(units)       /* of a channel */                                                                         \
    UINT_FIELD(row_units)   /* units of a row: of the spatial extent, with pooling of two image rows */                \
    UINT_FIELD(row_extent)  /* elements of a row */                                                                    \
    UINT_FIELD(rows)        /* pairs of image rows of a sample; 1 without pooling */                                   \
    UINT_FIELD(n_stride)                                                                                               \
    UINT_FIELD(c_stride)                                                                                               \
    UINT_FIELD(s_stride)                                                                                               \
    UINT_FIELD(y_n_stride)  /* of the pooled tensor */                                                                 \
    UINT_FIELD(y_c_stride)                                                                                             \
    UINT_FIELD(group)       /* channels that share their statistics */                                                 \
    UINT_FIELD(stat_rows)   /* channels / group */                                                                     \
    UINT_FIELD(stat_chunks) /* partial results of the pass before */                                                   \
    UINT_FIELD(param_divide) /* channel c has scale and bias number c / param_divide % param_count */                  \
    UINT_FIELD(param_count)                                                                                            \
    FLOAT_FIELD(count)      /* elements behind one statistic */                                                        \
    FLOAT_FIELD(epsilon)                                                                                               \
    FLOAT_FIELD(momentum)                                                                                              \
    FLOAT_FIELD(variance_factor) /* 1, or count / (count - 1) where the running variance is unbiased */

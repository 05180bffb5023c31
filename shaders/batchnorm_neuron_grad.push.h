/* Push block of batchnorm_neuron_grad.comp. Units are what an invocation walks: VEC neurons, with pooling a window. */
#include "push.h"
PUSH_BEGIN(batchnorm_neuron_grad_push)
ADDRESS(x)         /* steps x neurons: images of channels */
ADDRESS(norm)      /* channels: (mean, slope, bias, -) */
ADDRESS(deviation) /* channels: 1 / sqrt(variance + epsilon) */
ADDRESS(w)         /* 1: ParametricLIF's parameter */
ADDRESS(gs)        /* steps x neurons; pooled: a quarter of them */
ADDRESS(gx)        /* steps x neurons */
ADDRESS(sums)      /* planes [chunks][channels]: sums of d, of d n, of w's gradient */
ADDRESS(kept)      /* as in neuron_grad.push.h */
ADDRESS(gscale)    /* channels */
ADDRESS(gbias)     /* channels */
UINT(lanes)        /* units of a step */
UINT(steps)
UINT(inner)        /* units of a channel of an image */
UINT(channels)
UINT(width)        /* pooled: windows in a row */
UINT(units)        /* units of a channel */
UINT(chunks)       /* parts of a channel, a team for each */
UINT(chunk)        /* units of each but perhaps the last */
FLOAT(rate)
FLOAT(rest)
FLOAT(threshold)
PUSH_END

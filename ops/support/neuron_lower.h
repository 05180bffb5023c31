/*
 * The dispatches of spiking neurons: what hk.Neuron and the operators that contain neurons emit. Equations are in
 * ops/neuron.c.
 */
#ifndef HK_NEURON_LOWER_H
#define HK_NEURON_LOWER_H

#include "ops/op.h"
#include "ops/support/neuron.h"

/* The list of attributes of an operator whose struct begins with hk_neuron_attrs. */
#define HK_NEURON_ATTRS                                                                                                \
    HK_INT_ATTR(hk_neuron_attrs, steps, 0), HK_STRING_ATTR(hk_neuron_attrs, kind, "LIF"),                              \
        HK_FLOAT_ATTR(hk_neuron_attrs, tau, 2), HK_INT_ATTR(hk_neuron_attrs, decay_input, 0),                          \
        HK_STRING_ATTR(hk_neuron_attrs, reset, "hard"), HK_FLOAT_ATTR(hk_neuron_attrs, v_reset, 0),                    \
        HK_FLOAT_ATTR(hk_neuron_attrs, v_threshold, 1), HK_INT_ATTR(hk_neuron_attrs, detach_reset, 0),                 \
        HK_STRING_ATTR(hk_neuron_attrs, surrogate, "ATan"), HK_FLOAT_ATTR(hk_neuron_attrs, alpha, 0)

/* The same for a node to be built: HK_NEURON_LIST values and the end of the list, which may be overwritten by more. */
enum { HK_NEURON_LIST = 10 };
size_t hk_neuron_list(const hk_neuron_attrs *a, hk_attr_value *list);

/* Neurons, (steps) x (neurons) float32 values on the device; s may be stored as float16, which holds zeros and ones.
 * NULL operands are absent, NULL results not computed. */
typedef struct hk_neuron_job {
    const hk_neuron_attrs *attrs;
    int64_t steps, neurons;
    int64_t channels, inner; /* inner neurons side by side belong to one of the channels, which follow one another */
    int64_t thetas;          /* elements of theta: 0, 1 or channels */
    int64_t pool_width;      /* above 0: neurons are images of even height and that even width, and s (and gs) is the
                                maximum of each 2x2 window, the gradient of which goes to its first place */
    hk_value *norm;          /* [channels,4]: (mean, slope, bias, -), neurons take (x - mean) slope + bias */
    hk_value *x, *v0, *w, *theta;
    hk_value *s, *v, *v_seq;          /* of hk_emit_neuron; v is not pooled */
    hk_value *gs, *gv, *gv_seq;       /* of hk_emit_neuron_grad: given, */
    hk_value *gx, *gv0, *gw, *gtheta; /* and wanted */
} hk_neuron_job;

hk_status hk_emit_neuron(hk_lower *l, const hk_neuron_job *j);
/* Of neurons without norm and pooling. */
hk_status hk_emit_neuron_grad(hk_lower *l, const hk_neuron_job *j);

/* The arithmetic of a step: constants of shaders/neuron.glsl from `first` on; present is the kernel's own. */
void hk_neuron_specs(hk_record *r, uint32_t first, const hk_neuron_rule *rule, const hk_neuron_job *j,
                     uint32_t present);

/* Of neurons whose channels are normalized with the statistics of the batch: from gs to gx, through the normalization,
 * and to what it has of parameters. The job has x, norm, w, gs, gx and gw alone. */
typedef struct hk_neuron_norm_job {
    hk_neuron_job neurons;
    hk_value *deviation;      /* [channels]: 1 / sqrt(variance + epsilon) */
    hk_value *gscale, *gbias; /* [channels] or NULL */
} hk_neuron_norm_job;
hk_status hk_emit_neuron_norm_grad(hk_lower *l, const hk_neuron_norm_job *j);

#endif

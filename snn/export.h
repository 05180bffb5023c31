/*
 * A spiking network in forms that others read: ONNX of standard operators alone, and NIR.
 */
#ifndef HK_SNN_EXPORT_H
#define HK_SNN_EXPORT_H

#include "core/graph.h"

/* Every hk.Neuron becomes operators of the default domain that compute the same, in the same order of roundings:
 * unrolled, each step is nodes of its own; else a Scan walks the steps. Spikes, potentials and outputs keep their
 * names. HK_STATUS_UNSUPPORTED names every node that no standard form has. */
hk_status hk_snn_standard(hk_graph *g, bool unrolled);
/* Every hk.VoltageScaler becomes a Mul. */
hk_status hk_snn_standard_scalers(hk_graph *g);

#endif

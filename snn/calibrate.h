/*
 * Thresholds from activations: what a layer's activations are like, measured over any number of batches in a fixed
 * number of passes over the data, in memory that does not depend on their number.
 */
#ifndef HK_SNN_CALIBRATE_H
#define HK_SNN_CALIBRATE_H

#include "core/tensor.h"

typedef struct hk_snn_rule {
    hk_snn_mode mode;
    double level;
    bool per_channel;
    int64_t steps;
} hk_snn_rule;

typedef struct hk_snn_meter hk_snn_meter;

/* In arena. channels: axis 1 of what is added. Elements above ceiling count as it. */
hk_status hk_snn_meter_create(hk_arena *arena, const hk_snn_rule *rule, int64_t channels, double ceiling,
                              hk_snn_meter **out);
int hk_snn_meter_passes(const hk_snn_rule *rule);
/* Passes from 0. The same elements must be added in each, in any order. */
void hk_snn_meter_begin(hk_snn_meter *m, int pass);
/* y: float32 (N,channels,...), or anything with channels 1. Negative elements count as 0. */
void hk_snn_meter_add(hk_snn_meter *m, const hk_tensor *y);
void hk_snn_meter_end(hk_snn_meter *m);

typedef struct hk_snn_reading {
    int64_t count;   /* elements seen */
    double greatest; /* of all */
    int64_t not_finite;
    size_t dead; /* channels that were never above 0 */
} hk_snn_reading;
hk_snn_reading hk_snn_meter_read(const hk_snn_meter *m);
/* [channels]; a channel without one has the layer's largest. False if no channel has one above 0. */
bool hk_snn_meter_thresholds(const hk_snn_meter *m, float *thresholds);

#endif

/*
 * Scales and corrections of a conversion into constant weights.
 */
#ifndef HK_SNN_FOLD_H
#define HK_SNN_FOLD_H

#include "snn/convert.h"

/* Multiplies the weights behind a site's spikes by its thresholds if every one of them can be; sets s->folded. */
hk_status hk_snn_fold_amplitude(hk_snn_plan *p, const hk_uses *uses, hk_snn_site *s);
/* Adds a site's corrections to the bias before it, if it has one of its own. */
hk_status hk_snn_fold_correction(hk_snn_plan *p, const hk_uses *uses, hk_snn_site *s, bool *folded);

#endif

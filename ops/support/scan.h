/* Scan's part of the control protocol (ops/control.h): sequences are cut into elements, results stacked. */
#ifndef HK_SCAN_H
#define HK_SCAN_H

#include "ops/control.h"

typedef struct hk_scan_attrs {
    hk_graph *body; /* of the loaded model; run node->bodies[0] */
    int64_t num_scan_inputs;
    hk_ints scan_input_axes, scan_input_directions, scan_output_axes,
        scan_output_directions; /* axes default to 0, directions to forward */
} hk_scan_attrs;

bool hk_is_scan(const hk_node *n);
/* Opset 8: sequences of a batch, [batch][length][...], each run alone. Inputs: sequence lengths (may be absent), states
 * [batch][...], sequences; outputs: states, stacked outputs [batch][length][...], zero behind a sequence's end. The
 * attribute is `directions`, kept in scan_input_directions. */
bool hk_is_batched_scan(const hk_node *n);
bool hk_scan_begin(hk_control_run *c); /* false: out of memory */
bool hk_scan_next(hk_control_run *c);  /* while c->trip < c->trips */
hk_status hk_scan_step(hk_control_run *c, const hk_tensor *const *body_outputs);
hk_status hk_scan_end(hk_control_run *c);

/* The same for opset 8 (scan_batched.c), called by those above. */
bool hk_batched_scan_begin(hk_control_run *c);
bool hk_batched_scan_next(hk_control_run *c);
hk_status hk_batched_scan_step(hk_control_run *c, const hk_tensor *const *body_outputs);
hk_status hk_batched_scan_end(hk_control_run *c);

#endif

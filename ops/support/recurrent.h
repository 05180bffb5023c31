/*
 * RNN, LSTM and GRU: one description of all three, read from a node by inference, evaluation, lowering and backward
 * rules alike, and their equations on the host.
 *
 * A row is one step of one sequence, where X stores it: [T][B] or, with batch_first, [B][T]; row arrays (projections,
 * what forward saves for backward, gate gradients) are [rows][directions][...]. States (initial and last) are
 * [D][B][H], or [B][D][H] with batch_first. Step s of a sequence of length n works on time s, or n - 1 - s in the
 * reverse direction; steps from n on keep the state, write zeros to Y and stand at time s.
 */
#ifndef HK_RECURRENT_H
#define HK_RECURRENT_H

#include "ops/op.h"

typedef enum hk_cell { HK_CELL_RNN, HK_CELL_LSTM, HK_CELL_GRU } hk_cell;

/* Codes of shaders/recurrent.glsl. */
typedef enum hk_gate_function {
    HK_GATE_TANH,
    HK_GATE_SIGMOID,
    HK_GATE_RELU,
    HK_GATE_AFFINE,
    HK_GATE_LEAKY_RELU,
    HK_GATE_THRESHOLDED_RELU,
    HK_GATE_SCALED_TANH,
    HK_GATE_HARD_SIGMOID,
    HK_GATE_ELU,
    HK_GATE_SOFTSIGN,
    HK_GATE_SOFTPLUS,
    HK_GATE_COUNT
} hk_gate_function;

typedef struct hk_recurrent_attrs {
    hk_floats activation_alpha, activation_beta;
    hk_strings activations;
    float clip; /* negative: none */
    const char *direction;
    int64_t hidden_size, input_forget, linear_before_reset, layout, output_sequence;
} hk_recurrent_attrs;

typedef struct hk_gate {
    hk_gate_function function;
    float alpha, beta;
} hk_gate;

/* Inputs, the same for the forward operators and the first inputs of their gradients. */
enum { HK_RNN_X, HK_RNN_W, HK_RNN_R, HK_RNN_B, HK_RNN_LENGTHS, HK_RNN_H0, HK_RNN_C0, HK_RNN_P, HK_RNN_INPUTS };
/* Outputs: ONNX's, then what the forward saves for the backward: gate sums before activation [rows][D][G H], the state
 * that enters each step [rows][D][H], and one more array [rows][D][H]: LSTM the cell that enters, GRU h' = r h (reset
 * first) or the candidate's linear part R h + b (linear before reset). */
enum { HK_RNN_Y, HK_RNN_YH, HK_RNN_YC, HK_RNN_SUMS, HK_RNN_ENTRY, HK_RNN_EXTRA, HK_RNN_OUTPUTS };
/* Inputs of a gradient: those of the forward, its SUMS, ENTRY and EXTRA, and gradients of Y, YH, YC (absent: 0). */
enum {
    HK_RNN_G_SUMS = HK_RNN_INPUTS,
    HK_RNN_G_ENTRY,
    HK_RNN_G_EXTRA,
    HK_RNN_G_Y,
    HK_RNN_G_YH,
    HK_RNN_G_YC,
    HK_RNN_G_INPUTS
};
/* Outputs of a gradient: of the gate sums [rows][D][G H]; the same for the side of R h (only where it differs: GRU,
 * linear before reset); of the initial states; LSTM: the cell that leaves each step, which its peephole needs. */
enum { HK_RNN_D_SUMS, HK_RNN_D_LINEAR, HK_RNN_D_H0, HK_RNN_D_C0, HK_RNN_D_CELLS, HK_RNN_D_OUTPUTS };

typedef struct hk_recurrent {
    hk_cell cell;
    bool reset_first; /* GRU with linear_before_reset 0 */
    bool reverse;     /* direction 0 runs backwards; direction 1 always does */
    bool batch_first, input_forget;
    int32_t gates, directions;
    float clip;
    hk_gate gate[2][3];                  /* by direction: f, g, h */
    int64_t steps, batch, input, hidden; /* -1 while unknown */
} hk_recurrent;

extern const hk_attr hk_recurrent_attr_list[];

/* From the node's attributes and input shapes. NULL, or what is wrong, in arena. */
const char *hk_recurrent_read(hk_arena *arena, const hk_node *n, const hk_shape *x, const hk_shape *r,
                              hk_recurrent *out);
const char *hk_gate_name(hk_gate_function f);

static inline int64_t hk_recurrent_row(const hk_recurrent *p, int64_t t, int64_t b)
{
    return p->batch_first ? b * p->steps + t : t * p->batch + b;
}

hk_status hk_recurrent_eval(hk_eval *e);
hk_status hk_recurrent_grad_eval(hk_eval *e);
hk_status hk_recurrent_lower(hk_lower *l);
hk_status hk_recurrent_grad_lower(hk_lower *l);

#endif

/*
 * An evaluation of a spiking network over the number of its steps: eval_steps.c measures and prints, eval_report.c
 * writes the files.
 */
#ifndef SPIKING_H
#define SPIKING_H

#include "tools/command/train.h"

/* One run of the network, for as many steps as it takes. */
typedef struct step_run {
    int64_t steps;
    hk_model *model;
    double *counts; /* by probe, then by step: over all samples */
    double **each;  /* by probe: spikes of each neuron, NULL for synapses */
    double samples, seconds;
} step_run;

/* What the network says after so many steps. */
typedef struct step_row {
    int64_t steps;
    const step_run *run;
    metrics m;
    size_t same; /* samples on which it says the class that the other model says */
} step_row;

typedef struct step_table {
    training *r;
    step_row *rows;
    step_run *runs;
    size_t row_count, run_count;
    hk_model *other; /* --against; NULL: none */
    hk_session *other_session;
    bool watch_spikes, watch_potentials;
    const char *folder; /* --out; NULL: no files */
} step_table;

typedef struct step_totals {
    double spikes, neurons, synops, macs; /* per sample */
    double rate;
} step_totals;

typedef struct layer_row {
    const hk_snn_probe *probe;
    double rate, synops;
    size_t dead, saturated; /* neurons that never fired, and that fired at every step, of the whole run */
} layer_row;

step_totals totals_after(const step_run *run, int64_t steps);
layer_row layer_after(const step_run *run, size_t probe, int64_t steps);
void write_steps_json(const step_table *t, FILE *f);
/* report.json, curves.svg, and what is watched of the first batch: raster.svg of its first sample and .npy arrays. */
hk_status write_steps_report(const step_table *t);

#endif

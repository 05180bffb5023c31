/*
 * What the files of hillock demo share.
 */
#ifndef DEMO_H
#define DEMO_H

#include "tools/command/command.h"

/* Of scores (N,C), the share whose largest is the label's. */
double share_right(const hk_tensor *scores, const unsigned char *labels);

typedef struct tune_job {
    hk_context *ctx;
    hk_device *dev;
    const char *path;        /* of a model that knows fewer classes */
    const char *export_path; /* where the tuned one goes, or NULL */
    const unsigned char *images, *labels;
    size_t count, train; /* images; the first `train` are trained on, the others held out */
} tune_job;

typedef struct tune_result {
    double before, after; /* accuracy on the held-out images */
    double seconds;       /* of training */
} tune_result;

/* Gives the model a head for the ten digits, trains all of it, measures. */
hk_status tune_digits(const tune_job *job, tune_result *out);

typedef struct spike_job {
    hk_device *dev;
    const hk_model *model;
    const unsigned char *images, *labels;
    size_t count, train; /* as of tune_job */
} spike_job;

enum { SPIKE_ROWS = 7 };

/* The spiking network after so many steps. */
typedef struct spike_row {
    int64_t steps;
    double accuracy; /* on the held-out images */
    double synops;   /* per image; macs: of the original */
    double macs;
} spike_row;

typedef struct spike_result {
    spike_row rows[SPIKE_ROWS];
    double seconds;
} spike_result;

/* Converts the model, on some of the images that it was trained on, and runs the others. */
hk_status spike_digits(const spike_job *job, spike_result *out);

#endif

/*
 * What hillock demo's two files share.
 */
#ifndef DEMO_H
#define DEMO_H

#include "tools/command/command.h"

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

#endif

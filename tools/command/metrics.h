/*
 * What is measured of a model on data.
 */
#ifndef METRICS_H
#define METRICS_H

#include "tools/command/command.h"

typedef struct metrics {
    size_t samples; /* rows of class scores, or elements of numbers */
    size_t right, right5;
    int64_t classes;           /* 0: numbers */
    size_t *found, *said, *of; /* by class: right ones, predictions, labels */
    double entropy;            /* sum of -log p(label); scores that are probabilities already are taken as such */
    double absolute, squared;  /* sums of errors of numbers */
} metrics;

/* Adds a batch: scores (N,C,...) with int64 labels, or numbers with float32 targets of the same shape. Labels below 0
 * do not count. False after a message when they do not fit. */
bool metrics_add(metrics *m, const hk_tensor *output, const hk_tensor *target);
double metrics_accuracy(const metrics *m);
double metrics_top5(const metrics *m);
double metrics_f1(const metrics *m); /* macro: the mean over classes that occur */
double metrics_mae(const metrics *m);
double metrics_mse(const metrics *m);
double metrics_loss(const metrics *m); /* mean cross entropy, or mean squared error */
void metrics_finish(metrics *m);

#endif

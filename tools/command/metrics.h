/*
 * What is measured of a model on data.
 */
#ifndef METRICS_H
#define METRICS_H

#include "tools/command/command.h"

/* What the outputs are measured by. */
typedef struct measure {
    hk_loss loss;
    bool batchmean; /* the loss is divided by N, not by the number of elements */
    double beta;    /* of smooth L1 and Huber */
    int64_t ignore_index;
    const float *weights; /* of classes, in a loss of classes; NULL: none */
    size_t weight_count;
    double smoothing; /* of labels, in the cross entropy */
    int64_t top;      /* a label among so many of the largest scores is right for metrics_top */
    bool sigmoid;     /* of HK_LOSS_BCE_LOGITS: the output is a Sigmoid's, and training looks at what that takes */
} measure;

typedef struct metrics {
    measure by;
    size_t samples; /* rows of class scores, or elements of numbers */
    size_t batch;   /* sum of N */
    size_t right, right_top;
    double weight;             /* by what the sum of a loss of classes is divided: of the labels' classes */
    int64_t classes;           /* 2 of HK_LOSS_BCE_LOGITS, whose every element is a sample; 0: numbers */
    size_t *found, *said, *of; /* by class: right ones, predictions, labels */
    double loss;               /* sum; scores that are probabilities already are taken as such */
    double absolute, squared;  /* sums of errors of numbers */
} metrics;

/* Where scores of that shape, in which -1 is not known, have their classes, by the shape of one sample's labels. */
int32_t class_axis(int32_t rank, const int64_t *shape, int32_t label_rank, const int64_t *labels);
bool measures_classes(const measure *by); /* accuracy and F1, else errors */
/* Adds a batch: scores (N,C,...) with labels (N,...), or (N,...,C) where only that fits them, or probabilities of
 * classes; else outputs with targets, of as many elements. False after a message when they do not fit. */
bool metrics_add(metrics *m, const hk_tensor *output, const hk_tensor *target);
double metrics_accuracy(const metrics *m);
double metrics_top(const metrics *m); /* NaN of yes and no */
double metrics_f1(const metrics *m);  /* macro: the mean over classes that occur */
double metrics_mae(const metrics *m);
double metrics_mse(const metrics *m);
double metrics_loss(const metrics *m); /* the criterion of training over all samples together */
void metrics_finish(metrics *m);

#endif

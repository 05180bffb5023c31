/*
 * What a training run writes down: metrics.jsonl and metrics.csv with a line per epoch, curves.svg of all epochs. Each
 * is written anew after every epoch, so that none ends within a line whatever ends the run.
 */
#ifndef CURVES_H
#define CURVES_H

#include "tools/command/command.h"

typedef struct epoch_row {
    double epoch, step, lr, loss, val_loss, metric, f1, top, seconds, rate; /* NAN: not measured */
} epoch_row;

typedef struct curves {
    const options *o;
    const char *folder, *metric; /* name of the metric: "accuracy" */
    char top[24];                /* "top5" */
    epoch_row *rows;
    size_t count, capacity;
} curves;

/* Reads the epochs before `epochs` back from metrics.csv, and writes both files anew with those alone. */
hk_status curves_begin(curves *c, const options *o, const char *folder, const char *metric, int64_t top, size_t epochs);
hk_status curves_add(curves *c, const epoch_row *row); /* to all three files */
void curves_finish(curves *c);

#endif

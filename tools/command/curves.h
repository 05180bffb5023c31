/*
 * What a training run writes down: metrics.jsonl and metrics.csv with a line per epoch, curves.svg of all epochs.
 */
#ifndef CURVES_H
#define CURVES_H

#include "tools/command/command.h"

typedef struct epoch_row {
    double epoch, step, lr, loss, val_loss, metric, f1, seconds, rate; /* NAN: not measured */
} epoch_row;

typedef struct curves {
    const char *folder, *metric; /* name of the metric: "accuracy" */
    epoch_row *rows;
    size_t count, capacity;
} curves;

/* Reads the epochs before `epochs` back from metrics.csv, and writes both files anew with those alone. False after a
 * message. */
bool curves_begin(curves *c, const char *folder, const char *metric, size_t epochs);
bool curves_add(curves *c, const epoch_row *row); /* to all three files */
void curves_finish(curves *c);

#endif

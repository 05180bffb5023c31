/*
 * One training run: train_setup.c builds it from its settings, train.c runs it, checkpoints.c keeps it.
 */
#ifndef TRAIN_H
#define TRAIN_H

#include "tools/command/curves.h"
#include "tools/command/metrics.h"
#include "tools/command/settings.h"

/* What a run knows besides the trainer's states: kept in the checkpoint's notes. */
typedef struct run_state {
    double best;         /* of the monitored number, the larger the better; -INFINITY: none yet */
    uint64_t best_epoch; /* from 1 */
    uint64_t bad_epochs; /* since the best */
    double loss_sum;     /* of this epoch's micro-batches so far */
    uint64_t loss_count;
} run_state;

typedef struct training {
    options *o;
    settings s;
    hk_model *file, *model; /* as loaded, and as edited for this run; file NULL: they are one */
    hk_device *dev;
    hk_dataset *data, *val_data; /* val_data NULL: a part of data, or none */
    hk_loader *loader, *val;
    hk_trainer *trainer;
    hk_parameter_rule *rules;
    size_t rule_count;
    char *rule_text;
    const char *output_name; /* what the loss takes */
    measure by;
    hk_precision precision; /* of hillock eval's session */
    uint64_t total;         /* micro-batches of the whole run */
    uint64_t done;          /* of those */
    hk_plateau plateau;
    run_state state;
    curves curves;
    double begun, shown; /* seconds */
    uint64_t begun_at;   /* done when this process began */
    double last_loss;
} training;

/* The settings, the model among them, of a verb whose options were parsed. -1 to go on, else the exit code: what is
 * needed lacks, or --dump-config has printed them. */
int training_settings(training *r, const verb *v);
hk_status open_data(training *r, const char *path, const char *labels, hk_dataset **out);
hk_status training_open(training *r);
hk_status evaluation_open(training *r);
void training_close(training *r);

/* Evaluates the model on every batch of a loader. */
hk_status evaluate_loader(training *r, hk_loader *l, metrics *m);

/* Writes a batch to a session of m, which takes the inputs of the run's model in their order, and runs it. */
hk_status run_on_batch(const hk_model *m, hk_session *s, const hk_batch *b);
/* One batch through a session of the run's model, or of one with its inputs and output. */
hk_status evaluate_session(training *r, hk_session *s, const hk_batch *b, metrics *m);
typedef struct step_request {
    const char *steps;   /* "1,2,4" */
    const char *against; /* another model: on how many samples both say the same class */
    const char *monitor; /* "spikes,v" */
    const char *folder;  /* for files */
} step_request;
/* A spiking model with each number of time steps; prints. */
hk_status evaluate_steps(training *r, const step_request *q);
/* Refuses a spiking model with a membrane potential that is not finite after these samples, and names the neurons. */
hk_status check_potentials(training *r, const hk_batch *b);

/* DIR/ckpt-NUMBER.safetensors, the oldest beyond --keep removed. */
hk_status save_checkpoint(training *r);
/* The newest that can be read; those that cannot are named. done stays 0 when there is none. */
hk_status resume_checkpoint(training *r);

#endif

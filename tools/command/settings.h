/*
 * The settings of a training run: one table says flag, type, bounds and default of each; the command line and a JSON
 * file set them, config.json keeps them all.
 */
#ifndef SETTINGS_H
#define SETTINGS_H

#include "tools/command/command.h"

typedef struct text_list {
    const char **items;
    size_t count;
} text_list;

typedef struct settings {
    options *owner; /* of the texts */
    const char *model, *data, *labels, *column, *val, *out;
    const char *loss, *reduction, *optimizer, *schedule, *precision, *output, *monitor, *resume, *event_bins;
    text_list freeze, train, train_also, no_decay, lr_scale, shape, mean, std, class_weights, lora;
    double lr, beta1, beta2, eps, weight_decay, momentum, dampening, clip, ema, loss_scale, label_smoothing, beta;
    double gamma, least, ignore_index, scale;
    double batch, epochs, seed, warmup, every, accumulate, patience, keep, save_every, max_bad, resize, shift, threads;
    double steps, new_head, dropout, top_k;
    bool nesterov, accumulate_total, freeze_bn, allow_unreached, checkpointing, flip, targets, drop_last, no_shuffle,
        keep_state, tie, tie_matrices, rebuild_bn, keep_bn, safetensors;
} settings;

typedef enum setting_kind { SETTING_TEXT, SETTING_LIST, SETTING_NUMBER, SETTING_SWITCH } setting_kind;

typedef struct setting {
    const char *flag;
    setting_kind kind;
    size_t offset;
    double otherwise, least, most; /* of numbers */
    const char *text;              /* default of texts */
} setting;

extern const setting settings_table[];
const option_spec *settings_specs(void); /* the table's flags, and --config and --dump-config */

/* Defaults, then --config FILE, then the flags given. The texts live until finish_code(). -1 to go on, else the exit
 * code after a message. */
int settings_read(settings *s, options *o);
void settings_write(const settings *s, FILE *f); /* JSON */
/* The numbers of a list; false after a message. values has room for `most`. */
bool list_numbers(const char *flag, const text_list *list, float *values, size_t most, size_t *count);

#endif

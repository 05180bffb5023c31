/* Building a training run from its settings. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/command/train.h"

/* ---- words */

typedef struct word {
    const char *text;
    int value;
} word;

static bool choose(const char *flag, const char *text, const word *words, int *out)
{
    for (const word *w = words; w->text; w++)
        if (!strcmp(text, w->text)) {
            *out = w->value;
            return true;
        }
    fprintf(stderr, "hillock: '%s' is '%s'; it can be", flag, text);
    for (const word *w = words; w->text; w++)
        fprintf(stderr, "%s %s", w == words ? "" : ",", w->text);
    fputc('\n', stderr);
    return false;
}

static bool choose_words(const settings *s, hk_trainer_params *p)
{
    static const word losses[] = {{"ce", HK_LOSS_CROSS_ENTROPY},
                                  {"nll", HK_LOSS_NLL},
                                  {"mse", HK_LOSS_MSE},
                                  {"l1", HK_LOSS_L1},
                                  {"smooth-l1", HK_LOSS_SMOOTH_L1},
                                  {"huber", HK_LOSS_HUBER},
                                  {"bce", HK_LOSS_BCE_LOGITS},
                                  {"kl", HK_LOSS_KL},
                                  {0}};
    static const word reductions[] = {
        {"mean", HK_REDUCE_MEAN}, {"sum", HK_REDUCE_SUM}, {"batchmean", HK_REDUCE_BATCHMEAN}, {0}};
    static const word optimizers[] = {
        {"adamw", HK_OPTIMIZER_ADAMW}, {"adam", HK_OPTIMIZER_ADAM}, {"sgd", HK_OPTIMIZER_SGD}, {0}};
    static const word schedules[] = {{"constant", HK_SCHEDULE_CONSTANT},
                                     {"step", HK_SCHEDULE_STEP},
                                     {"cosine", HK_SCHEDULE_COSINE},
                                     {"linear", HK_SCHEDULE_LINEAR},
                                     {"one-cycle", HK_SCHEDULE_ONE_CYCLE},
                                     {"plateau", HK_SCHEDULE_CONSTANT},
                                     {0}};
    static const word precisions[] = {
        {"strict", HK_PRECISION_STRICT}, {"high", HK_PRECISION_HIGH}, {"fast", HK_PRECISION_FAST}, {0}};
    int v[5];
    if (!choose("--loss", s->loss, losses, &v[0]) || !choose("--reduction", s->reduction, reductions, &v[1]) ||
        !choose("--optimizer", s->optimizer, optimizers, &v[2]) ||
        !choose("--schedule", s->schedule, schedules, &v[3]) || !choose("--precision", s->precision, precisions, &v[4]))
        return false;
    p->loss = (hk_loss)v[0];
    p->reduction = (hk_reduce)v[1];
    p->optimizer = (hk_optimizer)v[2];
    p->schedule.kind = (hk_schedule_kind)v[3];
    p->precision = (hk_precision)v[4];
    return true;
}

/* ---- which parameters, and how */

/* "bias" means the role, "*.bias" a pattern. */
static const char *pattern_of(const char *item, char *room, size_t bytes)
{
    static const char *const roles[] = {"weight", "bias", "norm", "embedding", "other"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(item, roles[i])) {
            snprintf(room, bytes, "role:%s", item);
            return room;
        }
    return item;
}

#define ROLE_ROOM 24

/* What a later rule says holds, so freezing comes last. */
static bool make_rules(training *r)
{
    const settings *s = &r->s;
    size_t most = s->no_decay.count + s->lr_scale.count + s->freeze.count + s->train.count + s->train_also.count + 1;
    size_t n = 0;
    r->rules = calloc(most, sizeof *r->rules);
    r->rule_text = calloc(most, ROLE_ROOM + 256);
    if (!r->rules || !r->rule_text)
        return false;
#define ROOM (r->rule_text + n * (ROLE_ROOM + 256)), (ROLE_ROOM + 256)
    for (size_t i = 0; i < s->no_decay.count; i++, n++)
        r->rules[n] = (hk_parameter_rule){.pattern = pattern_of(s->no_decay.items[i], ROOM), .weight_decay = -1};
    for (size_t i = 0; i < s->lr_scale.count; i++, n++) {
        const char *item = s->lr_scale.items[i], *equals = strrchr(item, '=');
        char *end = NULL;
        float scale = equals ? strtof(equals + 1, &end) : 0;
        if (!equals || !end || *end || !(scale > 0) || equals - item > 255) {
            fprintf(stderr, "hillock: '--lr-scale' takes PATTERN=FACTOR, found '%s'\n", item);
            return false;
        }
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)(equals - item), item);
        char *room = r->rule_text + n * (ROLE_ROOM + 256);
        const char *pattern = pattern_of(name, room, ROLE_ROOM + 256);
        if (pattern == name)
            memcpy(room, name, sizeof name);
        r->rules[n] = (hk_parameter_rule){.pattern = room, .lr_scale = scale};
    }
    if (s->train.count)
        r->rules[n++] = (hk_parameter_rule){.pattern = "*", .freeze = true};
    for (size_t i = 0; i < s->train.count; i++, n++)
        r->rules[n] = (hk_parameter_rule){.pattern = pattern_of(s->train.items[i], ROOM)};
    for (size_t i = 0; i < s->train_also.count; i++, n++)
        r->rules[n] = (hk_parameter_rule){.pattern = s->train_also.items[i], .train = true};
    for (size_t i = 0; i < s->freeze.count; i++, n++)
        r->rules[n] = (hk_parameter_rule){.pattern = pattern_of(s->freeze.items[i], ROOM), .freeze = true};
#undef ROOM
    r->rule_count = n;
    return true;
}

/* ---- data */

static bool event_bins(const char *text, hk_dataset_params *p)
{
    char *end = NULL;
    p->event_bins = HK_EVENT_BINS_COUNT;
    if (!strcmp(text, "count"))
        return true;
    p->event_bins = HK_EVENT_BINS_TIME;
    p->frame_time = strcmp(text, "time") != 0 ? strtod(text, &end) : 0;
    if (!end || (end != text && !*end && p->frame_time > 0 && p->frame_time < 1e18))
        return true;
    fprintf(stderr, "hillock: '--event-bins' is count, time, or the microseconds of a frame, found '%s'\n", text);
    return false;
}

/* numbers: room for 128; ignore: for a label. */
static bool dataset_params(const training *r, float *numbers, int64_t *ignore, hk_dataset_params *p)
{
    const settings *s = &r->s;
    *ignore = (int64_t)s->ignore_index;
    size_t inputs = 0, channels = 0, stds = 0;
    const hk_value_info *in = hk_model_inputs(r->model, &inputs);
    float shape[HK_MAX_RANK];
    size_t rank = 0;
    *p = (hk_dataset_params){.size = sizeof *p,
                             .label_column = s->column,
                             .resize = (uint32_t)s->resize,
                             .targets = s->targets || (strcmp(s->loss, "ce") != 0 && strcmp(s->loss, "nll") != 0),
                             .scale = (float)s->scale,
                             .max_bad = (uint64_t)s->max_bad,
                             .ignore_index = ignore};
    if (!event_bins(s->event_bins, p) || !list_numbers("--shape", &s->shape, shape, HK_MAX_RANK, &rank) ||
        !list_numbers("--mean", &s->mean, numbers, 64, &channels) ||
        !list_numbers("--std", &s->std, numbers + 64, 64, &stds))
        return false;
    if ((channels && stds && channels != stds)) {
        fprintf(stderr, "hillock: --mean has %zu numbers, --std %zu\n", channels, stds);
        return false;
    }
    p->mean = channels ? numbers : NULL;
    p->std = stds ? numbers + 64 : NULL;
    p->channels = channels ? channels : stds;
    p->rank = (int32_t)rank;
    for (size_t i = 0; i < rank; i++)
        p->shape[i] = (int64_t)shape[i];
    bool known = !rank && inputs == 1 && in[0].rank > 1 && is_float(in[0].dtype);
    for (int32_t d = 1; known && d < in[0].rank; d++)
        known = in[0].shape[d] > 0;
    for (int32_t d = 1; known && d < in[0].rank; d++)
        p->shape[p->rank++] = in[0].shape[d];
    return true;
}

hk_status open_data(training *r, const char *path, const char *labels, hk_dataset **out)
{
    float numbers[128];
    int64_t ignore;
    hk_dataset_params p;
    if (!dataset_params(r, numbers, &ignore, &p))
        return HK_STATUS_USAGE;
    p.labels = labels;
    return hk_dataset_open(r->o->ctx, path, &p, out);
}

static hk_status check_labels(const training *r, const hk_dataset *d, const hk_value_info *out)
{
    hk_dataset_info info;
    hk_dataset_get_info(d, &info);
    int32_t axis = class_axis(out->rank, out->shape, info.target.rank, info.target.shape);
    if (!info.classes || out->rank < 2 || out->shape[axis] <= 0 || info.classes <= out->shape[axis])
        return HK_OK;
    fprintf(stderr,
            "hillock: the largest label is %lld, and output '%s' has %lld classes: labels must be below that, or be "
            "--ignore-index (%lld)\n",
            (long long)info.classes - 1, out->name, (long long)out->shape[axis], (long long)r->by.ignore_index);
    return HK_STATUS_INVALID;
}

enum { MOST_CLASS_WEIGHTS = 4096 };

static hk_status choose_measure(training *r)
{
    hk_trainer_params p = {0};
    size_t count = 0;
    const hk_node_info *nodes = NULL;
    if (!choose_words(&r->s, &p))
        return HK_STATUS_USAGE;
    hk_status st = hk_model_nodes(r->model, &nodes, &count);
    r->precision = p.precision;
    float *weights = options_allocate(r->o, MOST_CLASS_WEIGHTS * sizeof *weights);
    size_t weight_count = 0;
    if (!list_numbers("--class-weights", &r->s.class_weights, weights, MOST_CLASS_WEIGHTS, &weight_count))
        return HK_STATUS_USAGE;
    r->by = (measure){.loss = p.loss,
                      .batchmean = p.reduction == HK_REDUCE_BATCHMEAN,
                      .beta = r->s.beta,
                      .weights = weight_count ? weights : NULL,
                      .weight_count = weight_count,
                      .smoothing = r->s.label_smoothing,
                      .top = (int64_t)r->s.top_k,
                      .ignore_index = (int64_t)r->s.ignore_index};
    for (size_t i = 0; st == HK_OK && i < count && p.loss == HK_LOSS_BCE_LOGITS; i++)
        for (size_t k = 0; k < nodes[i].output_count; k++)
            r->by.sigmoid |= !strcmp(nodes[i].op, "Sigmoid") && !strcmp(nodes[i].outputs[k].name, r->output_name);
    return st;
}

static hk_status check_monitor(const training *r)
{
    const char *what = r->s.monitor;
    bool classes = measures_classes(&r->by), top = r->by.loss != HK_LOSS_BCE_LOGITS;
    if (!what || !strcmp(what, "loss") ||
        (r->val && (classes ? !strcmp(what, "accuracy") || !strcmp(what, "f1") || (top && !strcmp(what, "top-k"))
                            : !strcmp(what, "mae"))))
        return HK_OK;
    fprintf(stderr, "hillock: '--monitor' is '%s'; with this loss it can be loss or, with --val, %s\n", what,
            !classes ? "mae"
            : top    ? "accuracy, f1 or top-k"
                     : "accuracy or f1");
    return HK_STATUS_USAGE;
}

/* The output that the loss takes, and whether the labels are its classes: said before the first step. */
static hk_status check_output(training *r)
{
    size_t count = 0, i = 0;
    const hk_value_info *out = hk_model_outputs(r->model, &count);
    while (i < count && r->s.output && strcmp(r->s.output, out[i].name) != 0)
        i++;
    if (i == count) {
        fprintf(stderr, "hillock: the model has no output '%s'\n", r->s.output ? r->s.output : "");
        return HK_STATUS_USAGE;
    }
    r->output_name = out[i].name;
    hk_status st = choose_measure(r);
    if (st == HK_OK)
        st = check_labels(r, r->data, &out[i]);
    if (st == HK_OK && r->val_data)
        st = check_labels(r, r->val_data, &out[i]);
    return st == HK_OK ? check_monitor(r) : st;
}

static hk_status open_loaders(training *r)
{
    const settings *s = &r->s;
    char *end = NULL;
    double fraction = s->val ? strtod(s->val, &end) : 0;
    bool part = s->val && *s->val && !*end;
    if (part && !(fraction > 0 && fraction < 1)) {
        fprintf(stderr, "hillock: '--val' is a path or a share between 0 and 1, found '%s'\n", s->val);
        return HK_STATUS_USAGE;
    }
    hk_loader_params p = {.size = sizeof p,
                          .batch = (size_t)s->batch,
                          .seed = (uint64_t)s->seed,
                          .shuffle = !s->no_shuffle,
                          .drop_last = s->drop_last,
                          .holdout = part ? fraction : 0,
                          .flip = s->flip,
                          .shift = (uint32_t)s->shift,
                          .threads = (uint32_t)s->threads};
    const hk_value_info *in = p.inputs = hk_model_inputs(r->model, &p.input_count);
    hk_status st = hk_loader_create(r->data, &p, &r->loader);
    if (st != HK_OK || !s->val)
        return st;
    if (!part)
        st = open_data(r, s->val, NULL, &r->val_data);
    p.held_out = part;
    p.drop_last = s->drop_last && p.input_count && in->rank > 0 &&
                  in->shape[0] > 0; /* the model takes whole batches alone */
    p.shuffle = p.flip = false;
    p.shift = 0;
    return st == HK_OK ? hk_loader_create(part ? r->data : r->val_data, &p, &r->val) : st;
}

/* ---- the trainer */

static hk_status open_trainer(training *r)
{
    const settings *s = &r->s;
    int64_t ignore = (int64_t)s->ignore_index;
    hk_trainer_params p = {.size = sizeof p,
                           .output = s->output,
                           .ignore_index = &ignore,
                           .label_smoothing = (float)s->label_smoothing,
                           .beta = (float)s->beta,
                           .lr = (float)s->lr,
                           .beta1 = (float)s->beta1,
                           .beta2 = (float)s->beta2,
                           .eps = (float)s->eps,
                           .weight_decay = s->weight_decay < 0    ? 0
                                           : s->weight_decay == 0 ? -1
                                                                  : (float)s->weight_decay,
                           .momentum = (float)s->momentum,
                           .dampening = (float)s->dampening,
                           .nesterov = s->nesterov,
                           .clip_norm = (float)s->clip,
                           .ema_decay = (float)s->ema,
                           .loss_scale = (float)s->loss_scale,
                           .accumulate = (uint32_t)s->accumulate,
                           .accumulate_total = s->accumulate_total,
                           .seed = (uint64_t)s->seed,
                           .freeze_bn = s->freeze_bn,
                           .allow_unreached = s->allow_unreached,
                           .checkpointing = s->checkpointing,
                           .keep_states = s->keep_state};
    if (!choose_words(s, &p) || !make_rules(r))
        return HK_STATUS_USAGE;
    const hk_tensor class_weights = {.data = (void *)(uintptr_t)r->by.weights,
                                     .dtype = HK_FLOAT32,
                                     .rank = 1,
                                     .shape = {(int64_t)r->by.weight_count}};
    p.class_weights = r->by.weights ? &class_weights : NULL;
    p.rules = r->rules;
    p.rule_count = r->rule_count;
    p.schedule.warmup = (uint64_t)s->warmup;
    p.schedule.total = r->total / p.accumulate;
    p.schedule.every = (uint64_t)(s->every > 0 ? s->every : (double)hk_loader_batches(r->loader));
    p.schedule.gamma = (float)s->gamma;
    p.schedule.least = (float)s->least;
    r->plateau = (hk_plateau){.gamma = (float)s->gamma};
    return hk_trainer_create(r->dev, r->model, &p, &r->trainer);
}

static hk_status make_folder(const training *r)
{
    struct stat s;
    if (mkdir(r->s.out, 0777) == 0 || (errno == EEXIST && stat(r->s.out, &s) == 0 && S_ISDIR(s.st_mode)))
        return HK_OK;
    fprintf(stderr, "hillock: folder '%s' cannot be created: %s\n", r->s.out, strerror(errno));
    return HK_STATUS_CANNOT_CREATE;
}

/* The last batch of an epoch has a size of its own. */
static bool opens_batch(const training *r)
{
    size_t inputs = 0;
    const hk_value_info *in = hk_model_inputs(r->file, &inputs);
    return inputs && in->rank > 0 && in->shape[0] > 0 && (!r->s.drop_last || (double)in->shape[0] != r->s.batch);
}

/* Where the file's batch is what stands in the way: before the sentence of the edit that failed, which stays. */
static void advise_whole_batches(const training *r, hk_model_edit_params p)
{
    size_t inputs = 0;
    const hk_value_info *in = hk_model_inputs(r->file, &inputs);
    hk_model *kept = NULL;
    p.open_batch = false;
    if (hk_model_edit(r->file, &p, &kept) == HK_OK)
        fprintf(stderr,
                "hillock: --batch %lld --drop-last trains the file's batch as it is; without --drop-last an "
                "epoch's last batch may be smaller\n",
                (long long)in->shape[0]);
    hk_model_destroy(&kept);
}

/* The model as the settings want it trained. batch: for calibration, or NULL. */
static hk_status edit_model(training *r, const hk_batch *batch)
{
    const settings *s = &r->s;
    float lora[2] = {0};
    size_t count = 0;
    if (!list_numbers("--lora", &s->lora, lora, 2, &count))
        return HK_STATUS_USAGE;
    if (count && !(lora[0] >= 1 && lora[0] < 32768 && lora[0] == floorf(lora[0]))) {
        fprintf(stderr, "hillock: '--lora' takes RANK or RANK,ALPHA, found '%s'\n", s->lora.items[0]);
        return HK_STATUS_USAGE;
    }
    hk_model_edit_params p = {.size = sizeof p,
                              .output = s->output,
                              .new_head = (int64_t)s->new_head,
                              .seed = (uint64_t)s->seed,
                              .tie = s->tie,
                              .tie_matrices = s->tie_matrices,
                              .open_batch = opens_batch(r),
                              .lora_rank = (uint32_t)lora[0],
                              .lora_alpha = lora[1],
                              .dropout = (float)s->dropout,
                              .rebuild_bn = batch && s->rebuild_bn,
                              .keep_bn = batch && s->keep_bn,
                              .device = r->dev,
                              .calibration = batch ? batch->inputs : NULL,
                              .calibration_count = batch ? batch->input_count : 0};
    hk_model_destroy(&r->model);
    hk_status st = hk_model_edit(r->file, &p, &r->model);
    if (st == HK_STATUS_UNSUPPORTED && p.open_batch)
        advise_whole_batches(r, p);
    return st;
}

/* Statistics need data, and what data must be like the model says: so they come second. */
static hk_status rebuild_norms(training *r)
{
    hk_batch batch;
    if (!r->s.rebuild_bn && !r->s.keep_bn)
        return HK_OK;
    hk_status st = hk_loader_next(r->loader, &batch);
    if (st == HK_OK)
        st = edit_model(r, &batch);
    if (st == HK_OK)
        st = check_output(r); /* whose name is the new model's */
    return st;
}

/* Data for a model, and a device: what an evaluation needs too. */
static hk_status open_rest(training *r)
{
    hk_status st = open_data(r, r->s.data, r->s.labels, &r->data);
    if (st == HK_OK)
        st = open_loaders(r);
    if (st == HK_OK)
        st = check_output(r);
    return st == HK_OK ? open_device(r->o, &r->dev) : st;
}

int training_settings(training *r, const verb *v)
{
    options *o = r->o;
    int code = settings_read(&r->s, o);
    if (code >= 0)
        return code;
    if (o->argument_count == 1)
        r->s.model = o->arguments[0];
    if (option_given(o, "--dump-config")) {
        settings_write(&r->s, stdout);
        return 0;
    }
    if (o->argument_count <= 1 && r->s.model && r->s.data)
        return -1;
    fprintf(stderr, "hillock %s: one model file and --data are needed; see hillock %s --help\n", v->name, v->name);
    return EXIT_USAGE;
}

hk_status evaluation_open(training *r)
{
    hk_status st = hk_model_load(r->o->ctx, r->s.model, NULL, &r->model);
    return st == HK_OK ? open_rest(r) : st;
}

hk_status training_open(training *r)
{
    hk_status st = hk_model_load(r->o->ctx, r->s.model, NULL, &r->file);
    if (st == HK_OK)
        st = edit_model(r, NULL);
    if (st == HK_OK)
        st = open_rest(r);
    if (st == HK_OK)
        st = rebuild_norms(r);
    if (st == HK_OK)
        st = make_folder(r);
    if (st != HK_OK)
        return st;
    r->total = (uint64_t)r->s.epochs * hk_loader_batches(r->loader);
    if (r->s.steps > 0 && (uint64_t)r->s.steps < r->total)
        r->total = (uint64_t)r->s.steps;
    return open_trainer(r);
}

void training_close(training *r)
{
    hk_trainer_destroy(&r->trainer);
    hk_loader_destroy(&r->val);
    hk_loader_destroy(&r->loader);
    hk_dataset_close(&r->val_data);
    hk_dataset_close(&r->data);
    hk_model_destroy(&r->model);
    hk_model_destroy(&r->file);
    hk_device_close(&r->dev);
    curves_finish(&r->curves);
    free(r->rules);
    free(r->rule_text);
}

/* hillock demo, second half: a model that knows five digits learns ten. */
#include <stdlib.h>
#include <string.h>

#include "tools/command/demo.h"

enum { PIXELS = 64, SIDE = 8, CLASSES = 10, BATCH = 48, EPOCHS = 20 };

typedef struct tuning {
    const tune_job *job;
    hk_model *file, *model;
    hk_trainer *trainer;
    size_t *order;
    float *x; /* a batch */
    uint32_t random;
} tuning;

static uint32_t draw(tuning *t, uint32_t below)
{
    t->random = t->random * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)t->random * below) >> 32);
}

/* An image, moved by (dx, dy) with zeros behind. */
static void copy_image(const unsigned char *from, int dx, int dy, float *to)
{
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            int sx = x - dx, sy = y - dy;
            bool inside = sx >= 0 && sx < SIDE && sy >= 0 && sy < SIDE;
            to[y * SIDE + x] = inside ? (float)from[sy * SIDE + sx] / 16.0f : 0;
        }
}

/* Of the held-out images; a model of fewer classes has no score for the others. */
static hk_status measure(tuning *t, const char *output, const hk_tensor *images, hk_session *s, double *accuracy)
{
    hk_tensor scores = {0};
    hk_status st = HK_OK;
    if (s) {
        size_t count = 0;
        st = hk_session_write(s, hk_model_inputs(t->file, &count)[0].name, images);
        if (st == HK_OK)
            st = hk_session_run(s);
        if (st == HK_OK)
            st = hk_session_read(s, output, &scores);
    } else {
        st = hk_trainer_evaluate(t->trainer, images, 1, false);
        if (st == HK_OK)
            st = hk_trainer_read_output(t->trainer, output, &scores);
    }
    if (st == HK_OK)
        *accuracy = share_right(&scores, t->job->labels + t->job->train);
    hk_tensor_release(&scores);
    return st;
}

static hk_status train_epoch(tuning *t)
{
    const tune_job *j = t->job;
    int64_t labels[BATCH];
    hk_status st = HK_OK;
    for (size_t i = j->train; i-- > 1;) {
        size_t k = draw(t, (uint32_t)i + 1), other = t->order[i];
        t->order[i] = t->order[k];
        t->order[k] = other;
    }
    for (size_t at = 0; st == HK_OK && at + BATCH <= j->train; at += BATCH) {
        for (size_t i = 0; i < BATCH; i++) {
            size_t sample = t->order[at + i];
            int dx = (int)draw(t, 3) - 1, dy = (int)draw(t, 3) - 1;
            copy_image(j->images + sample * PIXELS, dx, dy, t->x + i * PIXELS);
            labels[i] = j->labels[sample];
        }
        const hk_tensor x = {.data = t->x, .dtype = HK_FLOAT32, .rank = 4, .shape = {BATCH, 1, SIDE, SIDE}};
        const hk_tensor y = {.data = labels, .dtype = HK_INT64, .rank = 1, .shape = {BATCH}};
        uint64_t ticket = 0;
        st = hk_trainer_submit(t->trainer, &x, 1, &y, &ticket);
    }
    return st;
}

static hk_status open_models(tuning *t)
{
    const tune_job *j = t->job;
    const hk_model_edit_params edit = {.size = sizeof edit, .new_head = CLASSES, .seed = 1};
    const hk_trainer_params p = {
        .size = sizeof p,
        .lr = 3e-3f,
        .label_smoothing = 0.1f,
        .schedule = {.kind = HK_SCHEDULE_COSINE, .warmup = 20, .total = EPOCHS * (j->train / BATCH)}};
    hk_status st = hk_model_load(j->ctx, j->path, NULL, &t->file);
    if (st == HK_OK)
        st = hk_model_edit(t->file, &edit, &t->model);
    return st == HK_OK ? hk_trainer_create(j->dev, t->model, &p, &t->trainer) : st;
}

static hk_status tune(tuning *t, tune_result *out)
{
    const tune_job *j = t->job;
    size_t held = j->count - j->train, outputs = 0;
    hk_session *s = NULL;
    hk_tensor images = {.dtype = HK_FLOAT32, .rank = 4, .shape = {(int64_t)held, 1, SIDE, SIDE}};
    float *x = malloc(held * PIXELS * sizeof *x);
    t->x = malloc(BATCH * PIXELS * sizeof *t->x);
    t->order = malloc(j->train * sizeof *t->order);
    hk_status st = x && t->x && t->order ? open_models(t) : HK_STATUS_OUT_OF_MEMORY;
    for (size_t i = 0; st == HK_OK && i < j->train; i++)
        t->order[i] = i;
    for (size_t i = 0; st == HK_OK && i < held; i++)
        copy_image(j->images + (j->train + i) * PIXELS, 0, 0, x + i * PIXELS);
    images.data = x;
    const char *output = st == HK_OK ? hk_model_outputs(t->file, &outputs)[0].name : "";
    if (st == HK_OK)
        st = hk_session_create(j->dev, t->file, NULL, &s);
    if (st == HK_OK)
        st = measure(t, output, &images, s, &out->before);
    double start = now_seconds();
    for (int epoch = 0; st == HK_OK && epoch < EPOCHS; epoch++)
        st = train_epoch(t);
    if (st == HK_OK)
        st = measure(t, output, &images, NULL, &out->after);
    out->seconds = now_seconds() - start;
    hk_session_destroy(&s);
    free(x);
    return st;
}

hk_status tune_digits(const tune_job *job, tune_result *out)
{
    tuning t = {.job = job, .random = 7};
    hk_status st = tune(&t, out);
    if (st == HK_OK && job->export_path)
        st = hk_trainer_export(t.trainer, job->export_path);
    hk_trainer_destroy(&t.trainer);
    hk_model_destroy(&t.model);
    hk_model_destroy(&t.file);
    free(t.x);
    free(t.order);
    return st;
}

/*
 * Times training steps of a model on given data.
 *
 *     train_step MODEL INPUT.npy LABELS.npy [--seconds S] [--precision strict|high|fast] [--profile] [--gradients DIR]
 *         [--checkpointing]
 *
 * Prints a line each: device; loss (three times, of steps from the model's weights on); device_ms, the median between
 * timestamps around the recording; pipelined_ms, wall time of a step with uploads; memory_mib, taken from the device at
 * most; plan; with --profile a dispatch line for each, and update, the optimizer's time and rate.
 * --gradients writes those of the first step. --seconds 0 times nothing.
 */
#include <hillock/hillock.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

#define SAMPLES_MOST 1000

typedef struct bench {
    const char *path[3]; /* model, input, labels */
    const char *gradients;
    double seconds;
    hk_precision precision;
    bool profile, checkpointing;
    hk_context *ctx;
    hk_device *dev;
    hk_model *model;
    hk_trainer *trainer;
    hk_tensor input, labels;
} bench;

static hk_status write_gradients(const bench *b)
{
    size_t count = 0;
    const hk_value_info *infos = hk_model_parameters(b->model, &count);
    for (size_t i = 0; i < count; i++) {
        char path[1024];
        hk_tensor g = {0};
        snprintf(path, sizeof path, "%s/%s.npy", b->gradients, infos[i].name);
        hk_status st = hk_trainer_read_gradient(b->trainer, infos[i].name, &g);
        if (st == HK_OK)
            st = hk_tensor_save(b->ctx, &g, path);
        hk_tensor_release(&g);
        if (st != HK_OK)
            return st;
    }
    return HK_OK;
}

static hk_status create_trainer(bench *b, hk_profile profile)
{
    hk_trainer_params params = {
        .size = sizeof params, .precision = b->precision, .profile = profile, .checkpointing = b->checkpointing};
    return hk_trainer_create(b->dev, b->model, &params, &b->trainer);
}

static hk_status first_steps(bench *b)
{
    hk_status st = HK_OK;
    for (int i = 0; i < 3 && st == HK_OK; i++) {
        float loss = 0;
        st = hk_trainer_step(b->trainer, &b->input, 1, &b->labels, &loss);
        if (st == HK_OK)
            printf("loss %.9g\n", (double)loss);
        if (st == HK_OK && i == 0 && b->gradients)
            st = write_gradients(b);
    }
    return st;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Steps one after the other: the median of their device times in milliseconds. */
static hk_status time_device(bench *b, double *median)
{
    static double samples[SAMPLES_MOST];
    size_t count = 0;
    hk_status st = HK_OK;
    for (double start = now(); st == HK_OK && count < SAMPLES_MOST && (now() - start < b->seconds || count < 3);) {
        hk_plan_info plan = {0};
        uint64_t ticket = 0;
        st = hk_trainer_submit(b->trainer, &b->input, 1, &b->labels, &ticket);
        if (st == HK_OK)
            st = hk_trainer_wait(b->trainer, ticket, NULL);
        if (st == HK_OK)
            st = hk_trainer_get_plan(b->trainer, &plan);
        samples[count++] = (double)plan.device_ns * 1e-6;
    }
    qsort(samples, count, sizeof *samples, by_value);
    *median = samples[count / 2];
    return st;
}

/* Mean wall milliseconds of steps that follow one another without waiting. */
static hk_status time_pipelined(bench *b, double seconds, double *mean)
{
    size_t steps = 0;
    uint64_t ticket = 0;
    hk_status st = HK_OK;
    double start = now();
    for (; st == HK_OK && (now() - start < seconds || steps < 3); steps++)
        st = hk_trainer_submit(b->trainer, &b->input, 1, &b->labels, &ticket);
    if (st == HK_OK)
        st = hk_trainer_wait(b->trainer, ticket, NULL);
    *mean = (now() - start) * 1e3 / (double)steps;
    return st;
}

static hk_status time_steps(bench *b)
{
    double device = 0, pipelined = 0;
    hk_status st = time_pipelined(b, 0.6, &pipelined); /* the clock ramps up */
    if (st == HK_OK)
        st = time_device(b, &device);
    if (st == HK_OK)
        st = time_pipelined(b, b->seconds / 2, &pipelined);
    if (st == HK_OK)
        printf("device_ms %.4f\npipelined_ms %.4f\n", device, pipelined);
    return st;
}

static hk_status print_plan(bench *b)
{
    hk_plan_info p;
    hk_device_stats stats;
    hk_status st = hk_trainer_get_plan(b->trainer, &p);
    if (st != HK_OK)
        return st;
    hk_device_get_stats(b->dev, &stats);
    printf("memory_mib %.1f\n", (double)stats.peak_memory_bytes / 0x1p20);
    printf("plan %zu dispatches, %zu groups, activations %.1f MiB, of which live at most %.1f MiB\n", p.dispatches,
           p.groups, (double)p.activation_bytes / 0x1p20, (double)p.live_bytes / 0x1p20);
    return HK_OK;
}

static void print_dispatches(const hk_plan_info *p)
{
    double bytes = 0, ns = 0;
    for (size_t i = 0; i < p->row_count; i++) {
        const hk_plan_row *r = &p->rows[i];
        if (strcmp(r->where, "device") != 0)
            continue;
        double per = r->ns ? 1.0 / (double)r->ns : 0;
        printf("dispatch %3u %9.2f us %8.1f GB/s %8.1f GFLOP/s  %-20s %-28s %s\n", r->group, (double)r->ns * 1e-3,
               (double)r->bytes * per, r->flops * per, r->op, r->kernel, r->node);
        if (!strcmp(r->op, "hk.Update")) {
            bytes += (double)r->bytes;
            ns += (double)r->ns;
        }
    }
    printf("update %.1f us, %.0f GB/s\n", ns * 1e-3, ns > 0 ? bytes / ns : 0);
}

/* A trainer of its own, because the barriers between dispatches make steps slower. */
static hk_status profile_steps(bench *b)
{
    hk_plan_info p;
    double mean = 0;
    hk_trainer_destroy(&b->trainer);
    hk_status st = create_trainer(b, HK_PROFILE_DISPATCHES);
    if (st == HK_OK)
        st = time_pipelined(b, b->seconds, &mean);
    if (st == HK_OK)
        st = hk_trainer_get_plan(b->trainer, &p);
    if (st == HK_OK)
        print_dispatches(&p);
    return st;
}

static hk_status run(bench *b)
{
    hk_status st = hk_device_open(b->ctx, NULL, &b->dev);
    if (st == HK_OK)
        st = hk_model_load(b->ctx, b->path[0], NULL, &b->model);
    if (st == HK_OK)
        st = hk_tensor_load(b->ctx, b->path[1], &b->input);
    if (st == HK_OK)
        st = hk_tensor_load(b->ctx, b->path[2], &b->labels);
    if (st == HK_OK)
        st = create_trainer(b, HK_PROFILE_RUNS);
    if (st != HK_OK)
        return st;
    printf("device %s\n", hk_device_get_info(b->dev)->name);
    st = first_steps(b);
    if (st == HK_OK && b->seconds > 0)
        st = time_steps(b);
    if (st == HK_OK)
        st = print_plan(b);
    return st == HK_OK && b->profile ? profile_steps(b) : st;
}

/* HK_PRECISION_DEFAULT: there is none of that name. */
static hk_precision precision_of(const char *text)
{
    static const char *const names[] = {
        [HK_PRECISION_STRICT] = "strict", [HK_PRECISION_HIGH] = "high", [HK_PRECISION_FAST] = "fast"};
    for (size_t i = HK_PRECISION_STRICT; i <= HK_PRECISION_FAST; i++)
        if (!strcmp(text, names[i]))
            return (hk_precision)i;
    return HK_PRECISION_DEFAULT;
}

static bool take_options(bench *b, int argc, char **argv)
{
    int paths = 0;
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--profile"))
            b->profile = true;
        else if (!strcmp(argv[i], "--checkpointing"))
            b->checkpointing = true;
        else if (!strcmp(argv[i], "--seconds") && next)
            b->seconds = atof(argv[++i]);
        else if (!strcmp(argv[i], "--gradients") && next)
            b->gradients = argv[++i];
        else if (!strcmp(argv[i], "--precision") && next) {
            b->precision = precision_of(argv[++i]);
            if (!b->precision)
                return false;
        } else if (argv[i][0] != '-' && paths < 3)
            b->path[paths++] = argv[i];
        else
            return false;
    }
    return paths == 3;
}

int main(int argc, char **argv)
{
    bench b = {.seconds = 3};
    if (!take_options(&b, argc, argv)) {
        fprintf(stderr, "usage: train_step MODEL INPUT.npy LABELS.npy [--seconds S] [--precision strict|high|fast] "
                        "[--profile] [--gradients DIR] [--checkpointing]\n");
        return 64;
    }
    if (hk_context_create(NULL, &b.ctx) != HK_OK)
        return 71;
    hk_status st = run(&b);
    if (st != HK_OK)
        fprintf(stderr, "train_step: %s\n", hk_context_error(b.ctx));
    hk_trainer_destroy(&b.trainer);
    hk_tensor_release(&b.input);
    hk_tensor_release(&b.labels);
    hk_model_destroy(&b.model);
    hk_device_close(&b.dev);
    hk_context_destroy(&b.ctx);
    return hk_status_exit_code(st);
}

/*
 * Times training steps of a model on given data, and writes the first step's loss and gradients for a comparison.
 *
 *     train_step MODEL INPUT.npy LABELS.npy OUT_DIR [SECONDS [PRECISION [profile]]]
 *
 * Prints: the loss before training, wall milliseconds per pipelined step, and with "profile" every dispatch.
 */
#include <hillock/hillock.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct bench {
    hk_context *ctx;
    hk_device *dev;
    hk_model *model;
    hk_trainer *trainer;
    hk_tensor input, labels;
} bench;

static hk_status write_gradients(const bench *b, const char *folder)
{
    size_t count = 0;
    const hk_value_info *infos = hk_model_parameters(b->model, &count);
    for (size_t i = 0; i < count; i++) {
        char path[1024];
        hk_tensor g = {0};
        snprintf(path, sizeof path, "%s/%s.npy", folder, infos[i].name);
        hk_status st = hk_trainer_read_gradient(b->trainer, infos[i].name, &g);
        if (st == HK_OK)
            st = hk_tensor_save(b->ctx, &g, path);
        hk_tensor_release(&g);
        if (st != HK_OK)
            return st;
    }
    return HK_OK;
}

static void print_profile(bench *b)
{
    hk_plan_info p;
    if (hk_trainer_get_plan(b->trainer, &p) != HK_OK)
        return;
    for (size_t i = 0; i < p.row_count; i++)
        if (!strcmp(p.rows[i].where, "device"))
            printf("%3u %9.2f us %8.1f GB/s %8.1f GFLOP/s  %-20s %-28s %s\n", p.rows[i].group,
                   (double)p.rows[i].ns * 1e-3, p.rows[i].ns ? (double)p.rows[i].bytes / (double)p.rows[i].ns : 0,
                   p.rows[i].ns ? p.rows[i].flops / (double)p.rows[i].ns : 0, p.rows[i].op, p.rows[i].kernel,
                   p.rows[i].node);
    printf("device %.2f us, %zu dispatches, %zu groups, activations %.1f MiB\n", (double)p.device_ns * 1e-3,
           p.dispatches, p.groups, (double)p.activation_bytes / 0x1p20);
}

static hk_status time_steps(bench *b, double seconds)
{
    hk_status st = HK_OK;
    uint64_t ticket = 0;
    for (double start = now(); st == HK_OK && now() - start < 0.6;) /* the clock ramps up */
        st = hk_trainer_submit(b->trainer, &b->input, 1, &b->labels, &ticket);
    for (int round = 0; round < 3 && st == HK_OK; round++) {
        size_t steps = 0;
        st = hk_trainer_wait(b->trainer, ticket, NULL);
        double start = now();
        for (; st == HK_OK && now() - start < seconds / 3; steps++)
            st = hk_trainer_submit(b->trainer, &b->input, 1, &b->labels, &ticket);
        if (st == HK_OK)
            st = hk_trainer_wait(b->trainer, ticket, NULL);
        printf("step %.4f ms\n", (now() - start) * 1e3 / (double)steps);
    }
    return st;
}

static hk_status run(bench *b, int argc, char **argv)
{
    hk_precision precision = argc > 6 && !strcmp(argv[6], "fast")   ? HK_PRECISION_FAST
                             : argc > 6 && !strcmp(argv[6], "high") ? HK_PRECISION_HIGH
                                                                    : HK_PRECISION_STRICT;
    bool profile = argc > 7 && !strcmp(argv[7], "profile");
    hk_trainer_params params = {
        .size = sizeof params, .precision = precision, .profile = profile ? HK_PROFILE_DISPATCHES : HK_PROFILE_OFF};
    float loss = 0;
    hk_status st = hk_device_open(b->ctx, NULL, &b->dev);
    if (st == HK_OK)
        st = hk_model_load(b->ctx, argv[1], NULL, &b->model);
    if (st == HK_OK)
        st = hk_tensor_load(b->ctx, argv[2], &b->input);
    if (st == HK_OK)
        st = hk_tensor_load(b->ctx, argv[3], &b->labels);
    if (st == HK_OK)
        st = hk_trainer_create(b->dev, b->model, &params, &b->trainer);
    if (st == HK_OK)
        st = hk_trainer_step(b->trainer, &b->input, 1, &b->labels, &loss);
    if (st == HK_OK)
        st = write_gradients(b, argv[4]);
    printf("device %s\nloss %.9g\n", b->dev ? hk_device_get_info(b->dev)->name : "none", (double)loss);
    if (st == HK_OK)
        st = time_steps(b, argc > 5 ? atof(argv[5]) : 3);
    if (st == HK_OK && profile)
        print_profile(b);
    hk_device_stats stats;
    if (b->dev) {
        hk_device_get_stats(b->dev, &stats);
        printf("memory %.1f MiB\n", (double)stats.peak_memory_bytes / 0x1p20);
    }
    return st;
}

int main(int argc, char **argv)
{
    bench b = {0};
    if (argc < 5) {
        fprintf(stderr, "usage: train_step MODEL INPUT.npy LABELS.npy OUT_DIR [SECONDS [PRECISION [profile]]]\n");
        return 64;
    }
    if (hk_context_create(NULL, &b.ctx) != HK_OK)
        return 71;
    hk_status st = run(&b, argc, argv);
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

/*
 * Losses, optimizers and schedules against PyTorch in float64 (tools/fixtures/losses.py): on the host in double and on
 * the device.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/step.h"
#include "runtime/host.h"
#include "runtime/objects.h"
#include "runtime/once.h"
#include "tests/support/program.h"
#include "train/gradient.h"
#include "train/safetensors.h"
#include "train/training.h"

static hk_safetensors losses, optimizers;

static void must(hk_status st)
{
    if (st != HK_OK)
        fail_msg("%s", hk_context_error(ctx));
}

static const hk_tensor *find(const hk_safetensors *s, const char *name, const char *member)
{
    char full[64];
    snprintf(full, sizeof full, "%s%s%s", name, *member ? "." : "", member);
    return hk_safetensors_find(s, full);
}

static void compare(const char *what, const hk_tensor *got, const hk_tensor *want, double tolerance)
{
    double difference = 0, norm = 0;
    assert_int_equal(hk_tensor_count(got), hk_tensor_count(want));
    for (int64_t i = 0; i < hk_tensor_count(want); i++) {
        difference += pow(hk_get_double(got, i) - hk_get_double(want, i), 2);
        norm += pow(hk_get_double(want, i), 2);
    }
    if (!(sqrt(difference) <= tolerance * sqrt(norm)))
        fail_msg("%s: relative error %.3g, allowed %.3g", what, sqrt(difference / norm), tolerance);
}

/* ---- losses */

typedef struct loss_case {
    const char *name;
    hk_loss_options o;
} loss_case;

#define CE .loss = HK_LOSS_CROSS_ENTROPY, .ignore_index = -100
#define OF(kind) .loss = HK_LOSS_##kind, .beta = 0.5f
static const loss_case cases[] = {
    {"ce", {CE, .reduction = HK_REDUCE_MEAN}},
    {"ce_sum", {CE, .reduction = HK_REDUCE_SUM}},
    {"ce_none", {CE, .reduction = HK_REDUCE_NONE}},
    {"ce_weights", {CE, .reduction = HK_REDUCE_MEAN}},
    {"ce_ignore", {.loss = HK_LOSS_CROSS_ENTROPY, .ignore_index = 2, .reduction = HK_REDUCE_MEAN}},
    {"ce_smooth", {CE, .reduction = HK_REDUCE_MEAN, .label_smoothing = 0.1f}},
    {"ce_smooth_weights", {CE, .reduction = HK_REDUCE_MEAN, .label_smoothing = 0.2f}},
    {"ce_smooth_sum", {CE, .reduction = HK_REDUCE_SUM, .label_smoothing = 0.1f}},
    {"ce_image", {CE, .reduction = HK_REDUCE_MEAN}},
    {"ce_image_smooth", {CE, .reduction = HK_REDUCE_MEAN, .label_smoothing = 0.1f}},
    {"ce_soft", {CE, .reduction = HK_REDUCE_MEAN}},
    {"ce_soft_weights", {CE, .reduction = HK_REDUCE_MEAN, .label_smoothing = 0.1f}},
    {"nll", {.loss = HK_LOSS_NLL, .ignore_index = -100, .reduction = HK_REDUCE_MEAN}},
    {"mse", {OF(MSE), .reduction = HK_REDUCE_MEAN}},
    {"mse_sum", {OF(MSE), .reduction = HK_REDUCE_SUM}},
    {"l1", {OF(L1), .reduction = HK_REDUCE_MEAN}},
    {"smooth_l1", {OF(SMOOTH_L1), .reduction = HK_REDUCE_MEAN}},
    {"huber", {OF(HUBER), .reduction = HK_REDUCE_MEAN}},
    {"bce", {OF(BCE_LOGITS), .reduction = HK_REDUCE_MEAN}},
    {"bce_none", {OF(BCE_LOGITS), .reduction = HK_REDUCE_NONE}},
    {"kl", {OF(KL), .reduction = HK_REDUCE_MEAN}},
    {"kl_batchmean", {OF(KL), .reduction = HK_REDUCE_BATCHMEAN}},
};

static hk_value *add_input(hk_graph *g, const hk_tensor *t)
{
    hk_shape shape = hk_tensor_shape(t);
    hk_value *v = hk_graph_value(g, NULL, HK_VALUE_INPUT, t->dtype, &shape);
    assert_true(v && hk_graph_add_input(g, v));
    return v;
}

static const hk_tensor *widened(hk_arena *arena, const hk_tensor *t)
{
    if (t->dtype != HK_FLOAT32)
        return t;
    hk_shape shape = hk_tensor_shape(t);
    hk_tensor *wide = hk_tensor_new(arena, HK_FLOAT64, &shape);
    assert_non_null(wide);
    for (int64_t i = 0; i < hk_tensor_count(t); i++)
        hk_set_double(wide, i, hk_get_double(t, i));
    return wide;
}

static void one_loss(const loss_case *c)
{
    char what[80];
    hk_graph *g = NULL;
    hk_arena *arena = hk_arena_create(ctx);
    must(hk_graph_create(ctx, c->name, &g));
    const hk_tensor *x = find(&losses, c->name, "x"), *t = find(&losses, c->name, "t");
    assert_true(arena && x && t);
    hk_loss_options o = c->o;
    o.class_weights = find(&losses, c->name, "w");
    hk_value *prediction = add_input(g, x), *loss = NULL, *grad = NULL;
    hk_value *target = add_input(g, t);
    must(hk_append_loss(g, &o, prediction, target, &loss, NULL));
    hk_value *root = loss;
    if (o.reduction == HK_REDUCE_NONE)
        must(hk_build(g, "ReduceSum", (hk_attr_value[]){HK_SET_INT("keepdims", 0), {0}}, &loss, 1, &root, 1));
    must(hk_differentiate(g, root, &prediction, 1, &grad));
    assert_true(grad && hk_graph_add_output(g, loss) && hk_graph_add_output(g, grad));
    must(hk_graph_sort(g));
    const hk_step step = {.grad_scale = 1};
    const hk_tensor *feeds[] = {x, t}, *wide[] = {widened(arena, x), t->dtype == HK_FLOAT32 ? widened(arena, t) : t};
    hk_tensor *out[2];
    must(hk_host_run(g, arena, wide, out, &step));
    snprintf(what, sizeof what, "%s on the host", c->name);
    compare(what, out[0], find(&losses, c->name, "loss"), 1e-7);
    compare(what, out[1], find(&losses, c->name, "dx"), 1e-7);
    if (dev) {
        must(hk_run_once(dev->gpu, g, feeds, &step, out, arena));
        snprintf(what, sizeof what, "%s on the device", c->name);
        compare(what, out[0], find(&losses, c->name, "loss"), 1e-6);
        compare(what, out[1], find(&losses, c->name, "dx"), 2e-6);
    }
    hk_graph_destroy(&g);
    hk_arena_destroy(&arena);
}

static void test_losses(void **state)
{
    (void)state;
    for (size_t i = 0; i < HK_COUNT(cases); i++)
        one_loss(&cases[i]);
}

/* ---- optimizers: 50 updates each, two groups, as the trainer builds them */

static void one_optimizer(const char *name, hk_training t, bool on_device)
{
    hk_arena *arena = hk_arena_create(ctx);
    hk_graph *g = NULL;
    must(hk_graph_create(ctx, name, &g));
    const hk_tensor *start = find(&optimizers, "start", ""), *gradients = find(&optimizers, "gradients", "");
    const int64_t count = start->shape[0];
    hk_parameters parameters = {.groups = {{.lr_scale = 1, .weight_decay = 0.1f, .end = 64},
                                           {.lr_scale = 0.1f, .weight_decay = 0, .end = count}},
                                .group_count = 2,
                                .total = count,
                                .initial = start};
    t.parameters = &parameters;
    hk_shape flat = {.rank = 1, .dim = {count}};
    hk_state *p = hk_graph_state(g, HK_STATE_PARAMETERS, HK_FLOAT32, &flat, start);
    hk_value *gradient = hk_graph_value(g, "gradient", HK_VALUE_INPUT, HK_FLOAT32, &flat);
    assert_true(arena && p && gradient && hk_graph_add_input(g, gradient));
    must(hk_append_update(g, &t, p, gradient, NULL));
    /* States as inputs and outputs, fed back by hand. */
    hk_tensor *values[8], *out[8];
    for (size_t i = 0; i < g->state_count; i++) {
        hk_state *s = g->states[i];
        values[i] = hk_tensor_new(arena, on_device ? HK_FLOAT32 : HK_FLOAT64, &s->first->shape);
        assert_non_null(values[i]);
        for (int64_t k = 0; s->initial && k < hk_tensor_count(values[i]); k++)
            hk_set_double(values[i], k, hk_get_double(s->initial, k));
        s->first->kind = HK_VALUE_INPUT;
        assert_true(hk_graph_add_input(g, s->first) && hk_graph_add_output(g, s->last));
        s->first->state = s->last->state = NULL;
    }
    size_t states = g->state_count;
    g->state_count = 0;
    must(hk_graph_sort(g));
    const hk_step step = {.lr = 0.01f, .grad_scale = 1};
    for (int64_t i = 0; i < gradients->shape[0]; i++) {
        const hk_tensor *feeds[9];
        hk_tensor one = {
            .data = (float *)gradients->data + i * count, .dtype = HK_FLOAT32, .rank = 1, .shape = {count}};
        feeds[0] = on_device ? &one : widened(arena, &one);
        for (size_t k = 0; k < states; k++)
            feeds[1 + k] = values[k];
        if (on_device)
            must(hk_run_once(dev->gpu, g, feeds, &step, out, arena));
        else
            must(hk_host_run(g, arena, feeds, out, &step));
        memcpy(values, out, states * sizeof *values);
    }
    compare(name, values[0], find(&optimizers, name, ""), 1e-6);
    hk_graph_destroy(&g);
    hk_arena_destroy(&arena);
}

static void test_optimizers(void **state)
{
    (void)state;
    const hk_training adam = {.optimizer = HK_UPDATE_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8f};
    const hk_training sgd = {.optimizer = HK_UPDATE_MOMENTUM, .beta1 = 0.9};
    for (int on_device = 0; on_device <= (dev != NULL); on_device++) {
        hk_training t = adam;
        one_optimizer("adamw", t, on_device);
        t.clip_norm = 2;
        one_optimizer("adamw_clip", t, on_device);
        t = adam;
        t.optimizer = HK_UPDATE_ADAM;
        one_optimizer("adam", t, on_device);
        t = sgd;
        t.dampening = 0.1;
        one_optimizer("momentum", t, on_device);
        t = sgd;
        t.nesterov = true;
        one_optimizer("nesterov", t, on_device);
        t = sgd;
        t.optimizer = HK_UPDATE_SGD;
        one_optimizer("sgd", t, on_device);
    }
}

/* ---- schedules: torch.optim.lr_scheduler over 20 updates */

static void test_schedules(void **state)
{
    (void)state;
    static const double one_cycle[] = {0.04,        0.131671843, 0.371671843, 0.668328157,  0.908328157,
                                       1,           0.987464006, 0.950484632, 0.890916178,  0.811745654,
                                       0.716943002, 0.611262022, 0.500002,    0.388741978,  0.283060998,
                                       0.188258346, 0.109087822, 0.049519368, 0.0125399938, 4e-06};
    static const double cosine[] = {1,           0.994459753, 0.977975432, 0.950952936, 0.914057647,
                                    0.868198052, 0.814503364, 0.754295725, 0.689057647, 0.620395509,
                                    0.55,        0.479604491, 0.410942353, 0.345704275, 0.285496636,
                                    0.231801948, 0.185942353, 0.149047064, 0.122024568, 0.105540247};
    const hk_schedule cycle = {.kind = HK_SCHEDULE_ONE_CYCLE, .total = 20};
    const hk_schedule half = {.kind = HK_SCHEDULE_COSINE, .total = 20, .least = 0.1f};
    const hk_schedule steps = {.kind = HK_SCHEDULE_STEP, .every = 6, .gamma = 0.5f};
    const hk_schedule line = {.kind = HK_SCHEDULE_LINEAR, .warmup = 3, .total = 13};
    for (uint64_t u = 0; u < 20; u++) {
        assert_true(fabs(hk_schedule_factor(&cycle, u) - one_cycle[u]) < 1e-8);
        assert_true(fabs(hk_schedule_factor(&half, u) - cosine[u]) < 1e-8);
        assert_true(hk_schedule_factor(&steps, u) == pow(0.5, (double)(u / 6)));
    }
    static const double lines[] = {0.25, 0.5, 0.75, 1, 0.9, 0.8};
    for (uint64_t u = 0; u < HK_COUNT(lines); u++)
        assert_true(fabs(hk_schedule_factor(&line, u) - lines[u]) < 1e-12);
    assert_true(hk_schedule_factor(&line, 100) == 0 && hk_schedule_factor(&(hk_schedule){0}, 5) == 1);
    hk_plateau p = {.patience = 1, .gamma = 0.5f};
    assert_true(hk_plateau_step(&p, 1.0) == 1 && hk_plateau_step(&p, 1.0) == 1 && hk_plateau_step(&p, 1.1) == 0.5 &&
                hk_plateau_step(&p, 0.9) == 0.5);
}

static int open_fixtures(void **state)
{
    (void)state;
    return hk_safetensors_read(ctx, HK_TEST_DATA "/training/losses.safetensors", &losses) == HK_OK &&
                   hk_safetensors_read(ctx, HK_TEST_DATA "/training/optimizers.safetensors", &optimizers) == HK_OK
               ? 0
               : -1;
}

static int close_fixtures(void **state)
{
    (void)state;
    hk_safetensors_finish(&losses);
    hk_safetensors_finish(&optimizers);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_optimizers),
        cmocka_unit_test(test_schedules),
    };
    return test_main(argc, argv,
                     &(test_program){.name = "losses",
                                     TESTS(tests),
                                     .setup = open_fixtures,
                                     .teardown = close_fixtures,
                                     .device = TEST_USES_DEVICE});
}

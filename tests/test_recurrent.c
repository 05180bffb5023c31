/*
 * RNN, LSTM and GRU with all their gradients against PyTorch in float64 (tools/fixtures/recurrent.py): on the host in
 * double and on the device.
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

enum { INPUTS = 7, OUTPUTS = 3, HIDDEN = 6 };
static const char *const input_names[INPUTS] = {"X", "W", "R", "B", "lengths", "h0", "c0"};
static const char *const output_names[OUTPUTS] = {"y", "yh", "yc"};

static hk_safetensors data;

typedef struct recurrent_case {
    const char *name, *type, *direction, *activation; /* activation NULL: the standard's */
} recurrent_case;

static const recurrent_case cases[] = {
    {"rnn", "RNN", "forward", NULL},   {"rnn_relu", "RNN", "forward", "Relu"},
    {"lstm", "LSTM", "forward", NULL}, {"lstm_lengths", "LSTM", "bidirectional", NULL},
    {"gru", "GRU", "forward", NULL},   {"gru_lengths", "GRU", "bidirectional", NULL},
};

static void must(hk_status st)
{
    if (st != HK_OK)
        fail_msg("%s", hk_context_error(ctx));
}

static const hk_tensor *find(const char *name, const char *prefix, const char *member)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s%s", name, prefix, member);
    return hk_safetensors_find(&data, full);
}

static hk_value *add_input(hk_graph *g, const hk_tensor *t)
{
    hk_shape shape = hk_tensor_shape(t);
    hk_value *v = hk_graph_value(g, NULL, HK_VALUE_INPUT, t->dtype, &shape);
    assert_true(v && hk_graph_add_input(g, v));
    return v;
}

static const hk_tensor *converted(hk_arena *arena, const hk_tensor *t, hk_dtype dtype)
{
    hk_shape shape = hk_tensor_shape(t);
    hk_tensor *y = hk_tensor_new(arena, dtype, &shape);
    assert_non_null(y);
    for (int64_t i = 0; i < hk_tensor_count(t); i++)
        hk_set_double(y, i, hk_get_double(t, i));
    return y;
}

/* The node, and the sum of its outputs times the gradients that come in; feeds in graph order. */
typedef struct network {
    hk_graph *g;
    hk_value *in[INPUTS], *out[OUTPUTS], *loss;
    const hk_tensor *feeds[INPUTS + OUTPUTS];
} network;

static void build_network(network *n, const recurrent_case *c, hk_arena *arena)
{
    must(hk_graph_create(ctx, c->name, &n->g));
    for (int32_t i = 0; i < INPUTS; i++) {
        const hk_tensor *t = find(c->name, "", input_names[i]);
        if (!t)
            continue;
        n->feeds[n->g->input_count] = converted(arena, t, i == 4 ? HK_INT32 : HK_FLOAT32);
        n->in[i] = add_input(n->g, n->feeds[n->g->input_count]);
    }
    hk_attr_value attrs[5] = {HK_SET_STRING("direction", c->direction), HK_SET_INT("hidden_size", HIDDEN)};
    const char *activations[] = {c->activation};
    size_t count = 2;
    if (c->activation)
        attrs[count++] = (hk_attr_value){.name = "activations", .kind = HK_ATTR_STRINGS, .strings = {activations, 1}};
    if (!strcmp(c->type, "GRU")) /* PyTorch's kind */
        attrs[count++] = (hk_attr_value)HK_SET_INT("linear_before_reset", 1);
    bool lstm = !strcmp(c->type, "LSTM");
    must(hk_build(n->g, c->type, attrs, n->in, lstm ? INPUTS : INPUTS - 1, n->out, lstm ? 3 : 2));
    for (int32_t i = 0; i < (lstm ? 3 : 2); i++) {
        const hk_attr_value whole[] = {HK_SET_INT("keepdims", 0), {0}};
        n->feeds[n->g->input_count] = find(c->name, "g", output_names[i]);
        hk_value *weight = add_input(n->g, n->feeds[n->g->input_count]), *product, *sum;
        must(hk_build(n->g, "Mul", NULL, (hk_value *[]){n->out[i], weight}, 2, &product, 1));
        must(hk_build(n->g, "ReduceSum", whole, &product, 1, &sum, 1));
        if (n->loss)
            must(hk_build(n->g, "Add", NULL, (hk_value *[]){n->loss, sum}, 2, &sum, 1));
        n->loss = sum;
    }
}

static void compare(const char *what, const char *where, const hk_tensor *got, const hk_tensor *want, double tolerance)
{
    double difference = 0, norm = 0;
    assert_non_null(want);
    assert_int_equal(hk_tensor_count(got), hk_tensor_count(want));
    for (int64_t i = 0; i < hk_tensor_count(want); i++) {
        difference += pow(hk_get_double(got, i) - hk_get_double(want, i), 2);
        norm += pow(hk_get_double(want, i), 2);
    }
    if (!(norm > 0 && sqrt(difference) <= tolerance * sqrt(norm)))
        fail_msg("%s on the %s: relative error %.3g, allowed %.3g", what, where, sqrt(difference / norm), tolerance);
}

static void check(const recurrent_case *c, const char *where, hk_tensor *const *out, double tolerance)
{
    size_t at = 0;
    for (int32_t i = 0; i < OUTPUTS; i++) {
        const hk_tensor *want = find(c->name, "", output_names[i]);
        if (want)
            compare(c->name, where, out[at++], want, tolerance);
    }
    for (int32_t i = 0; i < INPUTS; i++) {
        const hk_tensor *want = find(c->name, "d", input_names[i]);
        if (want)
            compare(input_names[i], where, out[at++], want, tolerance);
    }
}

static void one_case(const recurrent_case *c)
{
    hk_arena *arena = hk_arena_create(ctx);
    network n = {0};
    assert_non_null(arena);
    build_network(&n, c, arena);
    hk_value *wrt[INPUTS], *grads[INPUTS];
    size_t count = 0;
    for (int32_t i = 0; i < INPUTS; i++)
        if (n.in[i] && i != 4)
            wrt[count++] = n.in[i];
    for (int32_t i = 0; i < OUTPUTS; i++)
        if (n.out[i])
            assert_true(hk_graph_add_output(n.g, n.out[i]));
    must(hk_differentiate(n.g, n.loss, wrt, count, grads));
    for (size_t i = 0; i < count; i++)
        assert_true(grads[i] && hk_graph_add_output(n.g, grads[i]));
    must(hk_graph_sort(n.g));
    const hk_step step = {.grad_scale = 1};
    const hk_tensor *wide[INPUTS + OUTPUTS];
    hk_tensor *out[OUTPUTS + INPUTS];
    for (size_t i = 0; i < n.g->input_count; i++)
        wide[i] = n.feeds[i]->dtype == HK_FLOAT32 ? converted(arena, n.feeds[i], HK_FLOAT64) : n.feeds[i];
    must(hk_host_run(n.g, arena, wide, out, &step));
    check(c, "host", out, 1e-12);
    if (dev) {
        must(hk_run_once(dev->gpu, n.g, n.feeds, &step, out, arena));
        check(c, "device", out, 2e-6);
    }
    hk_graph_destroy(&n.g);
    hk_arena_destroy(&arena);
}

static void test_against_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < HK_COUNT(cases); i++)
        one_case(&cases[i]);
}

static int open_fixtures(void **state)
{
    (void)state;
    return hk_safetensors_read(ctx, HK_TEST_DATA "/training/recurrent.safetensors", &data) == HK_OK ? 0 : -1;
}

static int close_fixtures(void **state)
{
    (void)state;
    hk_safetensors_finish(&data);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_pytorch)};
    return test_main(argc, argv,
                     &(test_program){.name = "recurrent",
                                     TESTS(tests),
                                     .setup = open_fixtures,
                                     .teardown = close_fixtures,
                                     .device = TEST_USES_DEVICE});
}

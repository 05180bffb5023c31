/*
 * BatchNormalization, spiking neurons and pooling as one node (train/fuse_batchnorm.c, ops/batchnorm_neuron.c): the
 * graph with it computes on the device the bits that the graph without it computes, but for gradients, whose sums have
 * another order; on the host the same within rounding; and only graphs that mean the same are fused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ops/support/build.h"
#include "tests/support/neuron_problem.h"
#include "train/gradient.h"
#include "train/training.h"

typedef struct layer {
    const char *kind, *reset;
    int64_t steps, samples, channels, height, width;
    bool pool, join; /* join: the result has the batch's shape again */
} layer;

static const layer layers[] = {
    {"LIF", "hard", 4, 2, 3, 4, 6, true, true},
    {"LIF", "hard", 4, 2, 3, 5, 7, false, true},
    {"IF", "soft", 3, 2, 5, 4, 4, true, true},
    {"LIF", "soft", 33, 1, 2, 2, 4, false, false},
    {"ParametricLIF", "hard", 8, 2, 3, 6, 2, true, true},
    {"ParametricLIF", "soft", 2, 3, 4, 3, 3, false, true},
};

enum { STATISTICS = 3 }; /* outputs before the gradients: loss, running statistics */

static hk_value *random_feed(neuron_bench *b, const hk_shape *shape, double low, double high)
{
    const neuron_problem p = {.dtype = HK_FLOAT32, .steps = 1, .neurons = *shape};
    return neuron_feed(b, neuron_tensor(b, HK_FLOAT32, shape, neuron_random_input(b, &p, GV, low, high)));
}

static size_t count_of(const hk_graph *g, const char *type)
{
    size_t count = 0;
    for (size_t i = 0; i < g->node_count; i++)
        count += !strcmp(g->nodes[i]->type, type);
    return count;
}

/* The layer, apart with a detour before its neurons that keeps it from being fused; outputs: loss, running statistics,
 * gradients.
 */
static void build(neuron_bench *b, const layer *a, bool apart)
{
    const hk_shape x = {.rank = 4, .dim = {a->steps * a->samples, a->channels, a->height, a->width}};
    const hk_shape split = {.rank = 5, .dim = {a->steps, a->samples, a->channels, a->height, a->width}};
    const hk_shape channels = {.rank = 1, .dim = {a->channels}};
    const hk_attr_value norm[] = {HK_SET_INT("training_mode", 1), HK_SET_INT("hk.unbiased", 1), {0}};
    const hk_attr_value neuron[] = {HK_SET_INT("steps", a->steps),    HK_SET_STRING("kind", a->kind),
                                    HK_SET_STRING("reset", a->reset), HK_SET_INT("decay_input", a->steps == 2),
                                    HK_SET_FLOAT("v_reset", -.25f),   {0}};
    static const int64_t two[] = {2, 2};
    const hk_attr_value pool[] = {HK_SET_INTS("kernel_shape", two, 2), HK_SET_INTS("strides", two, 2), {0}};
    const hk_attr_value all[] = {HK_SET_INT("keepdims", 0), {0}};
    hk_graph *g = b->graph;
    hk_value *in[] = {random_feed(b, &x, -2, 3), random_feed(b, &channels, .5, 2), random_feed(b, &channels, 0, 1),
                      random_feed(b, &channels, -1, 1), random_feed(b, &channels, .5, 2)};
    bool parametric = !strcmp(a->kind, "ParametricLIF");
    hk_value *w = parametric ? random_feed(b, &(hk_shape){.rank = 1, .dim = {1}}, -1, 1) : NULL;
    hk_value *out[3], *y, *r, *loss, *wanted[] = {in[0], in[1], in[2], w}, *grads[4] = {0};
    neuron_need(b, hk_build(g, "BatchNormalization", norm, in, 5, out, 3));
    y = out[0];
    if (apart)
        neuron_need(b, hk_build(g, "Neg", NULL, &y, 1, &y, 1));
    if (apart)
        neuron_need(b, hk_build(g, "Neg", NULL, &y, 1, &y, 1));
    neuron_need(b, hk_build_reshape(g, y, &split, &y));
    neuron_need(b, hk_build(g, "hk.Neuron", neuron, (hk_value *[]){y, NULL, w}, w ? 3 : 1, &y, 1));
    if (a->join)
        neuron_need(b, hk_build_reshape(g, y, &x, &y));
    if (a->pool)
        neuron_need(b, hk_build(g, "MaxPool", pool, &y, 1, &y, 1));
    r = random_feed(b, &y->shape, -1, 1);
    neuron_need(b, hk_build(g, "Mul", NULL, (hk_value *[]){y, r}, 2, &y, 1));
    neuron_need(b, hk_build(g, "ReduceSum", all, &y, 1, &loss, 1));
    assert_true(hk_graph_add_output(g, loss) && hk_graph_add_output(g, out[1]) && hk_graph_add_output(g, out[2]));
    neuron_need(b, hk_graph_sort(g));
    neuron_need(b, hk_fuse_batchnorm(g));
    assert_int_equal(count_of(g, "hk.BatchNormNeuron"), !apart);
    assert_int_equal(count_of(g, "MaxPool"), apart && a->pool);
    neuron_need(b, hk_differentiate(g, g->outputs[0], wanted, parametric ? 4 : 3, grads));
    for (int i = 0; i < (parametric ? 4 : 3); i++)
        assert_true(grads[i] && hk_graph_add_output(g, grads[i]));
    neuron_need(b, hk_graph_sort(g));
}

static hk_tensor **results(neuron_bench *b, const layer *a, bool apart, bool device, size_t *count)
{
    hk_graph_destroy(&b->graph);
    neuron_need(b, hk_graph_create(b->ctx, "layer", &b->graph));
    b->random = 88172645463325252u;
    build(b, a, apart);
    *count = b->graph->output_count;
    return neuron_run(b, device);
}

static void compare(neuron_bench *b, bool device)
{
    for (size_t i = 0; i < HK_COUNT(layers); i++) {
        size_t count = 0;
        hk_tensor **apart = results(b, &layers[i], true, device, &count);
        hk_tensor **fused = results(b, &layers[i], false, device, &count);
        assert_true(hk_get_double(fused[0], 0) != 0);
        for (size_t k = 0; k < count; k++) {
            bool differs = device && k < STATISTICS && !neuron_same_bits(fused[k], apart[k]);
            if (differs)
                print_error("layer %zu: output %zu differs\n", i, k);
            assert_false(differs);
            for (int64_t e = 0; e < hk_tensor_count(fused[k]); e++)
                neuron_near(&(neuron_problem){.attrs = neuron_defaults}, "a result of a layer",
                            hk_get_double(fused[k], e), hk_get_double(apart[k], e), 1e-5);
        }
    }
}

static void test_results_on_the_host(void **state)
{
    compare(*state, false);
}

static void test_bits_on_the_device(void **state)
{
    neuron_bench *b = *state;
    if (!b->dev)
        skip();
    compare(b, true);
}

/* The spikes of a layer, stored as halves on their way. */
static hk_tensor *spikes_of(neuron_bench *b, const hk_shape *x, bool pool, bool halves)
{
    const hk_shape channels = {.rank = 1, .dim = {x->dim[1]}};
    const hk_attr_value attrs[] = {HK_SET_INT("steps", 4), HK_SET_INT("pool", pool), {0}};
    const hk_attr_value wide[] = {HK_SET_INT("to", HK_FLOAT32), {0}};
    hk_graph_destroy(&b->graph);
    neuron_need(b, hk_graph_create(b->ctx, "layer", &b->graph));
    b->random = 88172645463325252u;
    hk_value *in[5] = {random_feed(b, x, -2, 3)}, *s, *y;
    for (int i = 1; i < 5; i++)
        in[i] = random_feed(b, &channels, .5, 2);
    neuron_need(b, hk_build(b->graph, "hk.BatchNormNeuron", attrs, in, 5, &s, 1));
    if (halves)
        s->storage = HK_FLOAT16;
    neuron_need(b, hk_build(b->graph, "hk.Convert", wide, &s, 1, &y, 1));
    assert_true(hk_graph_add_output(b->graph, y));
    return neuron_run(b, true)[0];
}

static void test_spikes_are_exact_in_halves(void **state)
{
    neuron_bench *b = *state;
    const hk_shape shapes[] = {{.rank = 4, .dim = {8, 3, 5, 7}},
                               {.rank = 4, .dim = {8, 3, 4, 6}},
                               {.rank = 4, .dim = {8, 16, 48, 48}}}; /* enough for four neurons each */
    if (!b->dev || !(hk_device_get_info(b->dev)->caps >> HK_CAP_STORAGE16 & 1u))
        skip();
    for (size_t i = 0; i < HK_COUNT(shapes); i++)
        for (int pool = 0; pool < (shapes[i].dim[2] % 2 ? 1 : 2); pool++) {
            const hk_tensor *whole = spikes_of(b, &shapes[i], pool, false),
                            *half = spikes_of(b, &shapes[i], pool, true);
            int64_t ones = 0;
            for (int64_t k = 0; k < hk_tensor_count(whole); k++)
                ones += hk_get_double(whole, k) == 1;
            assert_true(ones > 0 && ones < hk_tensor_count(whole));
            assert_true(neuron_same_bits(whole, half));
        }
}

/* A potential that somebody reads, an initial one, a threshold per channel: these stay nodes of their own. */
static void test_other_neurons_are_left_alone(void **state)
{
    neuron_bench *b = *state;
    const hk_shape x = {.rank = 3, .dim = {8, 3, 5}}, split = {.rank = 4, .dim = {4, 2, 3, 5}};
    const hk_shape v = {.rank = 3, .dim = {2, 3, 5}}, channels = {.rank = 1, .dim = {3}};
    const hk_attr_value norm[] = {HK_SET_INT("training_mode", 1), {0}}, neuron[] = {HK_SET_INT("steps", 4), {0}};
    for (int k = 0; k < 4; k++) {
        hk_graph_destroy(&b->graph);
        neuron_need(b, hk_graph_create(b->ctx, "layer", &b->graph));
        hk_graph *g = b->graph;
        hk_value *in[5] = {random_feed(b, &x, -2, 3)}, *out[3], *y[2];
        for (int i = 1; i < 5; i++)
            in[i] = random_feed(b, &channels, .5, 2);
        hk_value *v0 = k == 1 ? random_feed(b, &v, 0, 1) : NULL,
                 *theta = k == 2 ? random_feed(b, &channels, 1, 2) : NULL;
        neuron_need(b, hk_build(g, "BatchNormalization", norm, in, 5, out, 3));
        neuron_need(b, hk_build_reshape(g, out[0], &split, &y[0]));
        neuron_need(b, hk_build(g, "hk.Neuron", neuron, (hk_value *[]){y[0], v0, NULL, theta}, 4, y, k == 0 ? 2 : 1));
        for (int i = 0; i < (k == 0 ? 2 : 1); i++)
            assert_true(hk_graph_add_output(g, y[i]));
        if (k == 3)
            assert_true(hk_graph_add_output(g, out[0]));
        neuron_need(b, hk_fuse_batchnorm(g));
        assert_int_equal(count_of(g, "hk.Neuron"), 1);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
#define TEST(name) cmocka_unit_test_setup_teardown(name, neuron_bench_begin, neuron_bench_end)
    const struct CMUnitTest tests[] = {
        TEST(test_results_on_the_host),
        TEST(test_bits_on_the_device),
        TEST(test_spikes_are_exact_in_halves),
        TEST(test_other_neurons_are_left_alone),
    };
    return cmocka_run_group_tests(tests, neuron_bench_open, neuron_bench_close);
}

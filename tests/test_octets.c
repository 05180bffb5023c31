/*
 * Operators whose images lie in HK_LAYOUT_NHWC8 and float16: every case of theirs that can, between changes of layout,
 * with a GPU's tuning and with this device's, at minimal limits, and maxima with the gradient that reads their places.
 * The host's evaluation is the reference; it rounds where the layout begins.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/cases.h"
#include "runtime/islands.h"
#include "tests/support/gpu.h"
#include "tests/support/records.h"

#define BOUND 1e-3 /* results are stored in half precision */

/* Of its first operand; a software device takes long to run a GPU's kernels. */
static bool small(const char *text)
{
    return strcspn(text, "]") <= strlen("f32[2,3,11,13");
}

/* Moves what can be moved; how many values then lie in the layout. */
static size_t move(fixture *f, hk_graph *g)
{
    const hk_pass_options options = {
        .device = hk_gpu_info(f->gpu), .precision = HK_PRECISION_FAST, .islands_everywhere = true};
    size_t packed = 0;
    if (hk_choose_layouts(g, &options) != HK_OK || hk_graph_sort(g) != HK_OK)
        fail_msg("%s", hk_context_error(f->ctx));
    for (size_t i = 0; i < g->node_count; i++)
        packed += hk_out(g->nodes[i], 0)->layout == HK_LAYOUT_NHWC8;
    return packed;
}

static void run_moved(fixture *f, hk_graph *g, const char *what, hk_records_run run)
{
    if (hk_test_records(f->gpu, g, &run) != HK_OK)
        fail_msg("%s: %s", what, hk_context_error(f->ctx));
    if (!(run.error <= BOUND))
        fail_msg("%s, %u invocations, %s: output '%s' differs by %g", what, run.max_invocations,
                 run.gpu_tuning ? "as on a GPU" : "as here", run.worst, run.error);
}

/* False: the case is not one that the layout takes. */
static bool run_case(fixture *f, const hk_op *op, const char *text, hk_records_run run)
{
    hk_arena *arena = hk_arena_create(f->ctx);
    op_case c = {0};
    case_graph g = {0};
    const hk_tensor *tensors[CASE_MAX_INPUTS] = {0}, *feeds[CASE_MAX_INPUTS] = {0};
    assert_non_null(arena);
    hk_status st = case_parse(f->ctx, arena, op, text, &c);
    if (st == HK_OK)
        st = case_contents(f->ctx, arena, &c, false, tensors);
    if (st == HK_OK)
        st = case_build(f->ctx, &c, tensors, true, &g);
    if (st != HK_OK)
        fail_msg("%s \"%s\": %s", op->type, text, hk_context_error(f->ctx));
    bool moved = case_on_device(&c, &g, hk_gpu_info(f->gpu)) && move(f, g.graph) > 0;
    if (moved) {
        case_feeds(&g, &c, tensors, feeds);
        run.feeds = feeds;
        run_moved(f, g.graph, text, run);
    }
    hk_graph_destroy(&g.graph);
    hk_arena_destroy(&arena);
    return moved;
}

static const hk_records_run runs[] = {
    {.gpu_tuning = true}, {.gpu_tuning = true, .max_invocations = 128, .max_shared_bytes = 16384, .units = 4}, {0}};

/* Normalizations, pools and their gradients. */
static void test_operators(void **state)
{
    size_t all = 0;
    const hk_op *op;
    for (size_t i = 0; (op = hk_op_at(i)) != NULL; i++) {
        size_t cases = 0;
        bool convolves = !strcmp(op->type, "hk.ConvDataGrad") || !strcmp(op->type, "hk.ConvWeightGrad");
        for (size_t k = 0; (op->octets_in || op->octets_out) && !convolves && op->cases[k]; k++)
            for (size_t r = 0; r < HK_COUNT(runs); r++)
                if (thorough() || (r == k % 3 && small(op->cases[k])))
                    cases += run_case(*state, op, op->cases[k], runs[r]);
        if (cases)
            print_message("%s: %zu runs\n", op->type, cases);
        all += cases;
    }
    assert_true(all >= 20);
}

/* Elementwise operators: broadcast operands, odd channels, one operand or several. */
static void test_elementwise(void **state)
{
    static const struct {
        const char *type, *text;
        bool moves;
    } list[] = {
        {"Add", "f32[2,16,5,3] f32[2,16,5,3]", true},
        {"Add", "f32[2,13,5,3] f32[2,13,5,3]", true},
        {"Mul", "f32[2,16,5,3] f32[2,16,1,1]", true},
        {"Mul", "f32[16,1,1] f32[2,16,5,3]", true},
        {"Mul", "f32[2,12,5,3] f32[12,1,1]", false}, /* the last octet is not full */
        {"Sub", "f32[2,8,5,3] f32[5,3]", true},
        {"Sub", "f32[2,8,5,3] f32[1,8,5,1]", false},
        {"Mul", "f32[2,24,7] f32=0.5", true},
        {"Sigmoid", "f32[2,24,7]", true},
        {"Sigmoid", "f32[2,20,7]", false}, /* of the padding it is not zero */
        {"hk.ReluGrad", "f32[3,11,4,5] f32[3,11,4,5]", true},
        {"Add", "f32[2,16,5] f32[16,1]", true},
        {"Add", "f32[24,7] f32[24,7]", false},
    };
    for (size_t i = 0; i < HK_COUNT(list); i++)
        for (size_t r = 0; r < HK_COUNT(runs); r++)
            if (thorough() || r == (i % 2 ? 0 : 2)) {
                const hk_op *op = hk_op_find(NULL, list[i].type, INT16_MAX, NULL);
                assert_non_null(op);
                if (run_case(*state, op, list[i].text, runs[r]) != list[i].moves)
                    fail_msg("%s \"%s\" %s", list[i].type, list[i].text, list[i].moves ? "stayed" : "was moved");
            }
}

/* Places of maxima go from the pooling to its gradient as numbers of taps. */
static void run_pool(fixture *f, const int64_t *x, const int64_t *window, hk_records_run run)
{
    hk_graph *g = NULL;
    const int64_t kernel[] = {window[0], window[1]}, strides[] = {window[2], window[3]},
                  pads[] = {window[4], window[5], window[6], window[7]}, dilations[] = {window[8], window[8]};
    const hk_attr_value attrs[] = {HK_SET_INTS("kernel_shape", kernel, 2), HK_SET_INTS("strides", strides, 2),
                                   HK_SET_INTS("pads", pads, 4),           HK_SET_INTS("dilations", dilations, 2),
                                   HK_SET_INTS("input_shape", x + 2, 2),   {0}};
    hk_attr_value forward[5];
    memcpy(forward, attrs, 4 * sizeof *attrs);
    forward[4] = (hk_attr_value){0};
    assert_int_equal(hk_graph_create(f->ctx, "pool", &g), HK_OK);
    const hk_shape shape = {.rank = 4, .dim = {x[0], x[1], x[2], x[3]}};
    hk_value *in = hk_graph_value(g, "x", HK_VALUE_INPUT, HK_FLOAT32, &shape), *y[2], *dx, *dy;
    assert_true(in && hk_graph_add_input(g, in));
    if (hk_build(g, "MaxPool", forward, &in, 1, y, 2) != HK_OK)
        fail_msg("%s", hk_context_error(f->ctx));
    y[1]->storage = HK_INT32;
    dy = hk_graph_value(g, "dy", HK_VALUE_INPUT, HK_FLOAT32, &y[0]->shape);
    assert_true(dy && hk_graph_add_input(g, dy));
    if (hk_build(g, "hk.MaxPoolGrad", attrs, (hk_value *[]){dy, y[1]}, 2, &dx, 1) != HK_OK)
        fail_msg("%s", hk_context_error(f->ctx));
    assert_true(hk_graph_add_output(g, y[0]) && hk_graph_add_output(g, dx));
    assert_true(move(f, g) >= 4); /* both results and what they are made of */
    assert_int_equal(hk_value_bytes(y[1]),
                     (y[1]->shape.dim[1] + 7) / 8 * 8 * y[1]->shape.dim[0] * hk_shape_span(&y[1]->shape, 2, 4));
    run_moved(f, g, "MaxPool and its gradient", run);
    hk_graph_destroy(&g);
}

static void test_max_pool_gradient(void **state)
{
    static const int64_t shapes[][4] = {{2, 16, 8, 8}, {2, 13, 11, 9}, {1, 3, 10, 7}};
    static const int64_t windows[][9] = {{2, 2, 2, 2, 0, 0, 0, 0, 1},
                                         {3, 3, 2, 2, 1, 1, 1, 1, 1},
                                         {3, 2, 1, 2, 2, 1, 1, 0, 2},
                                         {2, 3, 3, 1, 0, 1, 0, 1, 1}};
    for (size_t i = 0; i < HK_COUNT(shapes); i++)
        for (size_t w = 0; w < HK_COUNT(windows); w++)
            for (size_t r = 0; r < HK_COUNT(runs); r++)
                if (thorough() || (i == w % 3 && r == w % 3))
                    run_pool(*state, shapes[i], windows[w], runs[r]);
}

/* A convolution, its normalization and the gradients of both, as a training step has them. */
static size_t changes_of_layout(fixture *f, int64_t images, int64_t channels, int64_t side, hk_device_type type)
{
    hk_graph *g = NULL;
    hk_device_info info = *hk_gpu_info(f->gpu);
    const hk_pass_options options = {.device = &info, .precision = HK_PRECISION_FAST, .matrices = true};
    const hk_shape image = {.rank = 4, .dim = {images, channels, side, side}}, one = {.rank = 1, .dim = {channels}},
                   weight = {.rank = 4, .dim = {channels, channels, 3, 3}};
    const int64_t pads[] = {1, 1, 1, 1}, extents[] = {side, side}, kernel[] = {3, 3};
    const hk_attr_value conv[] = {HK_SET_INTS("pads", pads, 4), {0}},
                        data[] = {HK_SET_INTS("pads", pads, 4), HK_SET_INTS("input_shape", extents, 2), {0}},
                        weights[] = {HK_SET_INTS("pads", pads, 4), HK_SET_INTS("kernel_shape", kernel, 2), {0}},
                        norm[] = {HK_SET_INT("training_mode", 1), HK_SET_INT("relu", 1), {0}};
    hk_value *in[7], *y, *n[5], *d[3], *dx, *dw;
    const hk_shape *shapes[] = {&image, &weight, &one, &one, &one, &one, &image};
    size_t changes = 0;
    info.type = type;
    assert_int_equal(hk_graph_create(f->ctx, "step", &g), HK_OK);
    for (size_t i = 0; i < HK_COUNT(in); i++) {
        in[i] = hk_graph_value(g, NULL, HK_VALUE_INPUT, HK_FLOAT32, shapes[i]);
        assert_true(in[i] && hk_graph_add_input(g, in[i]));
    }
    assert_int_equal(hk_build(g, "Conv", conv, in, 2, &y, 1), HK_OK);
    assert_int_equal(
        hk_build(g, "hk.BatchNormAct", norm, (hk_value *[]){y, in[2], in[3], in[4], in[5]}, 5, n, HK_COUNT(n)), HK_OK);
    assert_int_equal(
        hk_build(g, "hk.BatchNormActGrad", norm + 1, (hk_value *[]){in[6], y, in[2], in[3], n[3], n[4]}, 6, d, 3),
        HK_OK);
    assert_int_equal(hk_build(g, "hk.ConvDataGrad", data, (hk_value *[]){d[0], in[1]}, 2, &dx, 1), HK_OK);
    assert_int_equal(hk_build(g, "hk.ConvWeightGrad", weights, (hk_value *[]){in[0], d[0]}, 2, &dw, 1), HK_OK);
    assert_true(hk_graph_add_output(g, n[0]) && hk_graph_add_output(g, dx) && hk_graph_add_output(g, dw));
    assert_int_equal(hk_choose_layouts(g, &options), HK_OK);
    for (size_t i = 0; i < g->node_count; i++)
        changes += hk_node_is(g->nodes[i], "hk.Relayout");
    hk_graph_destroy(&g);
    return changes;
}

/* On a GPU where they save more than their shores cost: those of x, the result and both gradients. */
static void test_islands_pay(void **state)
{
    if (!(hk_gpu_info(((fixture *)*state)->gpu)->caps >> HK_CAP_STORAGE16 & 1u))
        skip();
    assert_int_equal(changes_of_layout(*state, 64, 256, 56, HK_DEVICE_DISCRETE), 4);
    assert_int_equal(changes_of_layout(*state, 1, 8, 4, HK_DEVICE_DISCRETE), 0);
    assert_int_equal(changes_of_layout(*state, 1, 8, 4, HK_DEVICE_SOFTWARE), 4);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_operators), cmocka_unit_test(test_elementwise),
                                       cmocka_unit_test(test_max_pool_gradient), cmocka_unit_test(test_islands_pay)};
    int failed = cmocka_run_group_tests(tests, open_device, close_device);
    return failed == (int)HK_COUNT(tests) ? 77 : failed;
}

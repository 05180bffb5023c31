/*
 * Loops that become copies of their body: the same results as the loop on the host, one recording on the device, and a
 * gradient; loops that must stay loops; and Scan of opset 8, over a batch of sequences.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/infer.h"
#include "runtime/host.h"
#include "tests/support/device.h"
#include "tests/support/program.h"
#include "train/gradient.h"

#define SHAPE(...) (&(hk_shape){.rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dim = {__VA_ARGS__}})

static hk_value *input(hk_graph *g, const char *name, hk_dtype dtype, const hk_shape *s)
{
    hk_value *v = hk_graph_value(g, name, HK_VALUE_INPUT, dtype, s);
    assert_non_null(v);
    assert_true(hk_graph_add_input(g, v));
    return v;
}

/* A node that is inferred later, as an importer makes it. */
static hk_value *node(hk_graph *g, const char *type, hk_value *a, hk_value *b)
{
    hk_value *in[] = {a, b};
    const hk_op *op = hk_op_find(NULL, type, 17, NULL);
    void *attrs;
    OK(hk_op_decode(ctx, g->arena, op, NULL, 0, &attrs));
    hk_node *n = hk_graph_node(g, NULL, type, op, attrs, in, b ? 2 : 1, 1);
    assert_non_null(n);
    n->opset = 17;
    return n->out[0];
}

static hk_node *loop_node(hk_graph *g, const char *type, int32_t opset, hk_attr_value *attrs, size_t count,
                          hk_graph *body, hk_value *const *in, int32_t in_count, int32_t out_count)
{
    const hk_op *op = hk_op_find(NULL, type, opset, NULL);
    void *decoded;
    attrs[count++] = (hk_attr_value){.name = "body", .kind = HK_ATTR_GRAPH, .graph = body};
    OK(hk_op_decode(ctx, g->arena, op, attrs, count, &decoded));
    hk_node *n = hk_graph_node(g, "control", type, op, decoded, in, in_count, out_count);
    assert_non_null(n);
    n->opset = opset;
    n->bodies = hk_arena_array(g->arena, 1, sizeof *n->bodies);
    n->bodies[0] = body;
    n->body_count = 1;
    for (int32_t i = 0; i < out_count; i++)
        assert_true(hk_graph_add_output(g, n->out[i]));
    OK(hk_node_infer(g, n));
    return n;
}

static size_t count_type(const hk_graph *g, const char *type)
{
    size_t found = 0;
    for (size_t i = 0; i < g->node_count; i++)
        found += !strcmp(g->nodes[i]->type, type);
    return found;
}

static void fill_inputs(hk_arena *arena, const hk_graph *g, hk_dtype floats, const hk_tensor **feeds)
{
    for (size_t i = 0; i < g->input_count; i++) {
        const hk_value *v = g->inputs[i];
        bool is_float = hk_dtype_is_float(v->dtype);
        hk_tensor *t = hk_tensor_new(arena, is_float ? floats : v->dtype, &v->shape);
        assert_non_null(t);
        for (int64_t k = 0; k < hk_tensor_count(t); k++)
            hk_set_double(t, k, is_float ? sin((double)(k + 1) * (double)(i + 2)) : 1.0);
        feeds[i] = t;
    }
}

/* Host loop, host copies and device copies agree. */
static void compare(hk_graph *g)
{
    hk_arena *arena = hk_arena_create(ctx);
    const hk_tensor *feeds[8];
    hk_tensor *want[4], *got[4];
    hk_graph *clone = NULL;
    fill_inputs(arena, g, HK_FLOAT32, feeds);
    OK(hk_host_run(g, arena, feeds, want, NULL));
    OK(hk_graph_clone(g, &clone));
    OK(hk_infer_graph(clone));
    assert_int_equal(count_type(clone, "Scan") + count_type(clone, "Loop"), 0);
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 0)
            OK(hk_host_run(clone, arena, feeds, got, NULL));
        else if (dev)
            OK(hk_test_run_graph(dev, g, feeds, got, arena)); /* one plan: no loop is left */
        for (size_t i = 0; i < g->output_count; i++) {
            assert_int_equal(hk_tensor_count(got[i]), hk_tensor_count(want[i]));
            for (int64_t k = 0; k < hk_tensor_count(want[i]); k++)
                assert_float_equal(hk_get_double(got[i], k), hk_get_double(want[i], k), 2e-6);
        }
    }
    hk_graph_destroy(&clone);
    hk_arena_destroy(&arena);
}

/* h' = tanh(x w + h), w captured from the graph around; outputs h and the stack of h'. */
static hk_graph *cell_scan(int64_t axis, int64_t backward)
{
    hk_graph *g = NULL;
    OK(hk_graph_create(ctx, "test", &g));
    hk_graph *body = hk_graph_body(g, "body");
    bool rows = axis == 0;
    hk_value *h0 = input(g, "h0", HK_FLOAT32, SHAPE(2, 4)),
             *x = input(g, "x", HK_FLOAT32, rows ? SHAPE(5, 2, 3) : SHAPE(2, 5, 3)),
             *w = input(g, "w", HK_FLOAT32, SHAPE(3, 4));
    hk_value *h = input(body, "h", HK_FLOAT32, &HK_SHAPE_UNKNOWN),
             *step = input(body, "step", HK_FLOAT32, &HK_SHAPE_UNKNOWN);
    hk_value *next = node(body, "Tanh", node(body, "Add", node(body, "MatMul", step, w), h), NULL);
    assert_true(hk_graph_add_output(body, next));
    assert_true(hk_graph_add_output(body, node(body, "Identity", next, NULL)));
    hk_attr_value attrs[8] = {HK_SET_INT("num_scan_inputs", 1), HK_SET_INTS("scan_input_axes", &axis, 1),
                              HK_SET_INTS("scan_input_directions", &backward, 1),
                              HK_SET_INTS("scan_output_axes", &axis, 1)};
    loop_node(g, "Scan", 17, attrs, 4, body, (hk_value *[]){h0, x}, 2, 2);
    return g;
}

static void test_scan(void **state)
{
    (void)state;
    for (int64_t axis = 0; axis < 2; axis++) {
        hk_graph *g = cell_scan(axis, axis);
        compare(g);
        hk_graph_destroy(&g);
    }
}

/* d(sum of the last state)/dw against central differences of the loop itself. */
static void test_gradient(void **state)
{
    (void)state;
    hk_graph *g = cell_scan(0, 0), *clone = NULL;
    hk_arena *arena = hk_arena_create(ctx);
    const hk_tensor *feeds[8];
    hk_tensor *out[4];
    const hk_attr_value sum[] = {HK_SET_INT("keepdims", 0), {0}};
    fill_inputs(arena, g, HK_FLOAT64, feeds);
    OK(hk_graph_clone(g, &clone));
    OK(hk_infer_graph(clone));
    hk_value *loss, *w = clone->inputs[2], *dw;
    OK(hk_build(clone, "ReduceSum", sum, &clone->outputs[0], 1, &loss, 1));
    OK(hk_differentiate(clone, loss, &w, 1, &dw));
    assert_non_null(dw);
    clone->output_count = 0;
    assert_true(hk_graph_add_output(clone, dw));
    OK(hk_host_run(clone, arena, feeds, out, NULL));
    double *value = (double *)feeds[2]->data;
    for (int64_t i = 0; i < 12; i++) {
        double slope = 0, was = value[i];
        for (int side = -1; side <= 1; side += 2) {
            hk_tensor *at[4];
            value[i] = was + side * 1e-5;
            OK(hk_host_run(g, arena, feeds, at, NULL));
            for (int64_t k = 0; k < 8; k++)
                slope += side * hk_get_double(at[0], k) / 2e-5;
        }
        value[i] = was;
        assert_float_equal(hk_get_double(out[0], i), slope, 1e-6);
    }
    hk_graph_destroy(&clone);
    hk_graph_destroy(&g);
    hk_arena_destroy(&arena);
}

/* x' = x + iteration while iteration < limit, at most 9 times; limit -1: the carried value itself decides. */
static hk_graph *counting_loop(int64_t limit)
{
    hk_graph *g = NULL;
    OK(hk_graph_create(ctx, "test", &g));
    hk_graph *body = hk_graph_body(g, "body");
    hk_value *x = input(g, "x", HK_FLOAT32, SHAPE(3)), *trips = hk_graph_scalar(g, HK_INT64, 9),
             *again = hk_graph_scalar(g, HK_BOOL, 1);
    hk_value *i = input(body, "i", HK_INT64, &HK_SCALAR);
    input(body, "condition", HK_BOOL, &HK_SCALAR);
    hk_value *sum = input(body, "sum", HK_FLOAT32, &HK_SHAPE_UNKNOWN);
    hk_value *ten = hk_graph_scalar(body, HK_FLOAT32, 10), *most = hk_graph_scalar(body, HK_INT64, (double)limit);
    hk_attr_value to = HK_SET_INT("to", HK_FLOAT32);
    const hk_op *op = hk_op_find(NULL, "Cast", 17, NULL);
    void *attrs;
    OK(hk_op_decode(ctx, body->arena, op, &to, 1, &attrs));
    hk_node *cast = hk_graph_node(body, NULL, "Cast", op, attrs, &i, 1, 1);
    hk_value *next = node(body, "Add", sum, cast->out[0]);
    hk_value *goes_on = limit < 0 ? node(body, "Less", node(body, "ReduceMax", next, NULL), ten)
                                  : node(body, "Less", i, most);
    if (limit < 0)
        goes_on = node(body, "Squeeze", goes_on, NULL);
    assert_true(hk_graph_add_output(body, goes_on));
    assert_true(hk_graph_add_output(body, next));
    assert_true(hk_graph_add_output(body, next));
    hk_attr_value list[2];
    loop_node(g, "Loop", 17, list, 0, body, (hk_value *[]){trips, again, x}, 3, 2);
    return g;
}

static void test_loop(void **state)
{
    (void)state;
    for (int64_t limit = 0; limit < 12; limit += 4) { /* 1, 5 and all 9 iterations */
        hk_graph *g = counting_loop(limit);
        compare(g);
        hk_graph_destroy(&g);
    }
}

static void test_stays_loop(void **state)
{
    (void)state;
    hk_graph *g = counting_loop(-1);
    OK(hk_infer_graph(g));
    assert_int_equal(count_type(g, "Loop"), 1);
    hk_graph_destroy(&g);
}

/* Running sums of two sequences of 1 and 3 steps, the second input backwards. */
static void test_batched_scan(void **state)
{
    (void)state;
    hk_graph *g = NULL;
    OK(hk_graph_create(ctx, "test", &g));
    hk_graph *body = hk_graph_body(g, "body");
    hk_value *lengths = input(g, "lengths", HK_INT64, SHAPE(2)), *start = input(g, "start", HK_FLOAT32, SHAPE(2, 1)),
             *x = input(g, "x", HK_FLOAT32, SHAPE(2, 3, 1)), *z = input(g, "z", HK_FLOAT32, SHAPE(2, 3, 1));
    hk_value *sum = input(body, "sum", HK_FLOAT32, &HK_SHAPE_UNKNOWN),
             *a = input(body, "a", HK_FLOAT32, &HK_SHAPE_UNKNOWN), *b = input(body, "b", HK_FLOAT32, &HK_SHAPE_UNKNOWN);
    hk_value *next = node(body, "Add", sum, a);
    assert_true(hk_graph_add_output(body, next));
    assert_true(hk_graph_add_output(body, node(body, "Add", next, b)));
    const int64_t directions[] = {0, 1};
    hk_attr_value attrs[4] = {HK_SET_INT("num_scan_inputs", 2), HK_SET_INTS("directions", directions, 2)};
    hk_node *n = loop_node(g, "Scan", 8, attrs, 2, body, (hk_value *[]){lengths, start, x, z}, 4, 2);
    assert_true(hk_shape_equal(&n->out[0]->shape, SHAPE(2, 1)));
    assert_true(hk_shape_equal(&n->out[1]->shape, SHAPE(2, 3, 1)));
    hk_arena *arena = hk_arena_create(ctx);
    int64_t counts[] = {1, 3};
    float from[] = {10, 20}, first[] = {1, 2, 3, 4, 5, 6}, second[] = {100, 200, 300, 400, 500, 600};
    const hk_tensor *feeds[] = {&(hk_tensor){.data = counts, .dtype = HK_INT64, .rank = 1, .shape = {2}},
                                &(hk_tensor){.data = from, .dtype = HK_FLOAT32, .rank = 2, .shape = {2, 1}},
                                &(hk_tensor){.data = first, .dtype = HK_FLOAT32, .rank = 3, .shape = {2, 3, 1}},
                                &(hk_tensor){.data = second, .dtype = HK_FLOAT32, .rank = 3, .shape = {2, 3, 1}}};
    hk_tensor *out[2];
    OK(hk_host_run(g, arena, feeds, out, NULL));
    assert_memory_equal(out[0]->data, ((const float[]){11, 35}), 2 * sizeof(float));
    assert_memory_equal(out[1]->data, ((const float[]){111, 0, 0, 624, 529, 435}), 6 * sizeof(float));
    hk_arena_destroy(&arena);
    hk_graph_destroy(&g);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scan),       cmocka_unit_test(test_gradient),     cmocka_unit_test(test_loop),
        cmocka_unit_test(test_stays_loop), cmocka_unit_test(test_batched_scan),
    };
    return test_main(
        argc, argv,
        &(test_program){
            .name = "unrolled loops", TESTS(tests), .debug = "check-plan,poison", .device = TEST_USES_DEVICE});
}

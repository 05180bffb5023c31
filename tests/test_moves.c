/*
 * What the generic operator test cannot see of the movers, because it runs one node at a time: views of views, parts
 * computed in place inside a Concat or a Pack, shape arithmetic that folds away, and the shapes of If, Loop and Scan.
 */
#include <stdlib.h>
#include <string.h>

#include "ops/infer.h"
#include "runtime/exec.h"
#include "runtime/host.h"
#include "runtime/objects.h"
#include "tests/support/program.h"

enum { MAX_VALUES = 8 };

/* ---- building */

static hk_graph *new_graph(void)
{
    hk_graph *g = NULL;
    OK(hk_graph_create(ctx, "test", &g));
    return g;
}

#define SHAPE(...) (&(hk_shape){.rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dim = {__VA_ARGS__}})

static hk_value *input(hk_graph *g, const hk_shape *s)
{
    hk_value *v = hk_graph_value(g, "x", HK_VALUE_INPUT, HK_FLOAT32, s);
    assert_non_null(v);
    assert_true(hk_graph_add_input(g, v));
    return v;
}

static hk_value *ints(hk_graph *g, int64_t a)
{
    return hk_graph_ints(g, &a, 1);
}

static hk_value *build(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_value *a, hk_value *b, hk_value *c)
{
    hk_value *in[3] = {a, b, c}, *out;
    OK(hk_build(g, type, attrs, in, c ? 3 : b ? 2 : 1, &out, 1));
    return out;
}

static hk_value *transpose(hk_graph *g, hk_value *x)
{
    return build(g, "Transpose", NULL, x, NULL, NULL);
}

static void output(hk_graph *g, hk_value *v)
{
    assert_true(hk_graph_add_output(g, v));
}

/* ---- running: host and device agree bit for bit, for nothing is computed; *records is how many the plan has */

static void run_both(hk_graph *g, size_t *records)
{
    hk_arena *arena = hk_arena_create(ctx);
    const hk_tensor *in[MAX_VALUES];
    hk_feed feeds[MAX_VALUES] = {0};
    hk_tensor *want[MAX_VALUES];
    for (size_t i = 0; i < g->input_count; i++) {
        hk_tensor *t = hk_tensor_new(arena, g->inputs[i]->dtype, &g->inputs[i]->shape);
        for (int64_t k = 0; k < hk_tensor_count(t); k++)
            hk_set_double(t, k, (double)(100 * i) + (double)k + 0.5);
        in[i] = feeds[i].host = t;
    }
    OK(hk_host_run(g, arena, in, want, NULL));

    hk_env *env = NULL;
    hk_exec *e = NULL;
    hk_graph *clone = NULL;
    OK(hk_env_create(dev->gpu, g, &env));
    OK(hk_graph_clone(g, &clone));
    OK(hk_infer_graph(clone));
    OK(hk_exec_create(env, clone, &e));
    uint64_t ticket = 0;
    OK(hk_exec_submit(e, feeds, &(hk_step){0}, &ticket));
    OK(hk_exec_wait(e, ticket));
    *records = hk_exec_plan(e)->record_count;
    for (size_t i = 0; i < g->output_count; i++) {
        hk_shape s = hk_tensor_shape(want[i]);
        hk_tensor *got = hk_tensor_new(arena, want[i]->dtype, &s);
        OK(hk_exec_read(e, ticket, i, got->data));
        assert_memory_equal(got->data, want[i]->data, (size_t)hk_tensor_bytes(got));
    }
    hk_exec_destroy(&e);
    hk_env_destroy(&env);
    hk_arena_destroy(&arena);
}

static void need_device(void)
{
    if (!dev)
        skip();
}

/* Both parts are written where the Concat wants them: two transposes, no copy. */
static void test_concat_in_place(void **state)
{
    (void)state;
    need_device();
    hk_graph *g = new_graph();
    hk_value *a = transpose(g, input(g, SHAPE(16, 20))), *b = transpose(g, input(g, SHAPE(16, 36)));
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 0), {0}};
    output(g, build(g, "Concat", attrs, a, b, NULL));
    size_t records;
    run_both(g, &records);
    assert_int_equal(records, 2);
    hk_graph_destroy(&g);
}

/* A part that would begin off a 16-byte boundary is copied, for kernels count on aligned outputs. */
static void test_concat_unaligned(void **state)
{
    (void)state;
    need_device();
    hk_graph *g = new_graph();
    hk_value *a = transpose(g, input(g, SHAPE(3, 5))), *b = transpose(g, input(g, SHAPE(3, 7)));
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 0), {0}};
    output(g, build(g, "Concat", attrs, a, b, NULL)); /* b begins at element 15 */
    size_t records;
    run_both(g, &records);
    assert_int_equal(records, 3);
    hk_graph_destroy(&g);
}

/* A value can lie at one place only. */
static void test_concat_twice(void **state)
{
    (void)state;
    need_device();
    hk_graph *g = new_graph();
    hk_value *a = transpose(g, input(g, SHAPE(4, 8)));
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 0), {0}};
    output(g, build(g, "Concat", attrs, a, a, NULL));
    size_t records;
    run_both(g, &records);
    assert_int_equal(records, 2);
    hk_graph_destroy(&g);
}

/* Producers write into the flat value; its gaps are zero though device memory is full of NaN. */
static void test_pack_in_place(void **state)
{
    (void)state;
    need_device();
    hk_graph *g = new_graph();
    hk_value *a = transpose(g, input(g, SHAPE(3, 5))), *b = transpose(g, input(g, SHAPE(10, 13)));
    const hk_attr_value attrs[] = {
        HK_SET_INTS("offsets", ((const int64_t[]){0, 64}), 2), HK_SET_INT("total", 256), {0}};
    hk_value *flat = build(g, "hk.Pack", attrs, a, b, NULL);
    const hk_attr_value view[] = {HK_SET_INT("offset", 64), HK_SET_INTS("shape", ((const int64_t[]){13, 10}), 2), {0}};
    output(g, flat);
    output(g, build(g, "hk.View", view, flat, NULL, NULL));
    size_t records;
    run_both(g, &records);
    assert_int_equal(records, 3); /* two transposes, the gaps */
    hk_graph_destroy(&g);
}

/* Views of views cost nothing, and what reads the last one finds the right elements at an odd address. */
static void test_views_of_views(void **state)
{
    (void)state;
    need_device();
    hk_graph *g = new_graph();
    hk_value *x = input(g, SHAPE(4, 6, 5));
    hk_value *part = build(g, "Gather", NULL, x, hk_graph_scalar(g, HK_INT64, -1), NULL); /* [6,5] at 90 */
    hk_value *rows = build(g, "Slice", NULL, part, ints(g, 1), ints(g, 5));               /* [4,5] at 95 */
    hk_value *flat = build(g, "Reshape", NULL, rows, ints(g, -1), NULL);                  /* [20] */
    hk_value *tail = build(g, "Slice", NULL, flat, ints(g, 2), ints(g, INT64_MAX));       /* [18] at 97 */
    hk_value *square = build(g, "Reshape", NULL, tail, hk_graph_ints(g, (const int64_t[]){6, 3}, 2), NULL);
    output(g, transpose(g, square));
    size_t records;
    run_both(g, &records);
    assert_int_equal(records, 1);
    hk_graph_destroy(&g);
}

/* Reshape(x, Concat(Shape(x)[0], -1)), as exporters write Flatten: after inference nothing is left but the Reshape. */
static void test_shape_arithmetic_folds(void **state)
{
    (void)state;
    hk_graph *g = new_graph();
    hk_value *x = input(g, SHAPE(2, 3, 4));
    hk_value *batch = build(g, "Gather", NULL, build(g, "Shape", NULL, x, NULL, NULL), hk_graph_scalar(g, HK_INT64, 0),
                            NULL);
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 0), {0}};
    hk_value *shape = build(g, "Concat", attrs, build(g, "Unsqueeze", NULL, batch, ints(g, 0), NULL), ints(g, -1),
                            NULL);
    output(g, build(g, "Reshape", NULL, x, shape, NULL));
    OK(hk_infer_graph(g));
    assert_int_equal(g->node_count, 1);
    assert_true(hk_shape_equal(&g->outputs[0]->shape, SHAPE(2, 12)));
    hk_graph_destroy(&g);
}

/* The same with an unknown batch: the known dimensions come through. */
static void test_unknown_dimensions(void **state)
{
    (void)state;
    hk_graph *g = new_graph();
    hk_value *x = input(g, SHAPE(-1, 3, 4));
    hk_value *rest = hk_graph_ints(g, (const int64_t[]){0, -1}, 2);
    assert_true(hk_shape_equal(&build(g, "Reshape", NULL, x, rest, NULL)->shape, SHAPE(-1, 12)));
    assert_true(hk_shape_equal(&transpose(g, x)->shape, SHAPE(4, 3, -1)));
    const hk_attr_value axis[] = {HK_SET_INT("axis", 1), {0}};
    assert_true(hk_shape_equal(&build(g, "Concat", axis, x, input(g, SHAPE(5, 2, 4)), NULL)->shape, SHAPE(5, 5, 4)));
    assert_true(
        hk_shape_equal(&build(g, "Gather", axis, x, hk_graph_scalar(g, HK_INT64, 0), NULL)->shape, SHAPE(-1, 4)));
    assert_true(hk_shape_equal(&build(g, "Flatten", axis, x, NULL, NULL)->shape, SHAPE(-1, 12)));
    hk_value *pads = hk_graph_ints(g, (const int64_t[]){0, 1, 0, 0, 0, 2}, 6);
    assert_true(hk_shape_equal(&build(g, "Pad", NULL, x, pads, NULL)->shape, SHAPE(-1, 4, 6)));
    const hk_attr_value start[] = {HK_SET_INT("start", 1), {0}};
    hk_value *known = build(g, "Shape", start, x, NULL, NULL);
    assert_non_null(known->data);
    assert_int_equal(hk_get_int(known->data, 1), 4);
    assert_null(build(g, "Shape", NULL, x, NULL, NULL)->data);
    hk_graph_destroy(&g);
}

/* ---- control flow */

static hk_node *control_node(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_graph **bodies,
                             int32_t body_count, hk_value *const *in, int32_t in_count, int32_t out_count)
{
    hk_attr_value list[8];
    size_t count = 0;
    for (; attrs && attrs[count].name; count++)
        list[count] = attrs[count];
    static const char *const if_names[] = {"then_branch", "else_branch"};
    for (int32_t i = 0; i < body_count; i++)
        list[count++] = (hk_attr_value){
            .name = body_count == 2 ? if_names[i] : "body", .kind = HK_ATTR_GRAPH, .graph = bodies[i]};
    const hk_op *op = hk_op_find(NULL, type, INT16_MAX, NULL);
    void *decoded;
    OK(hk_op_decode(ctx, g->arena, op, list, count, &decoded));
    hk_node *n = hk_graph_node(g, "control", type, op, decoded, in, in_count, out_count);
    assert_non_null(n);
    n->bodies = hk_arena_array(g->arena, (size_t)body_count, sizeof *n->bodies);
    memcpy(n->bodies, bodies, (size_t)body_count * sizeof *bodies);
    n->body_count = body_count;
    return n;
}

static hk_value *body_input(hk_graph *body, hk_dtype dtype)
{
    hk_value *v = hk_graph_value(body, "in", HK_VALUE_INPUT, dtype, &HK_SHAPE_UNKNOWN);
    assert_true(v && hk_graph_add_input(body, v));
    return v;
}

/* A node of a body, whose types are only known once the control node is inferred. */
static hk_value *body_node(hk_graph *body, const char *type, const hk_attr_value *attrs, hk_value *a, hk_value *b)
{
    const hk_op *op = hk_op_find(NULL, type, INT16_MAX, NULL);
    void *decoded;
    size_t count = 0;
    while (attrs && attrs[count].name)
        count++;
    OK(hk_op_decode(ctx, body->arena, op, attrs, count, &decoded));
    hk_node *n = hk_graph_node(body, NULL, type, op, decoded, (hk_value *[]){a, b}, b ? 2 : 1, 1);
    assert_non_null(n);
    return n->out[0];
}

/* Carried values: one keeps its shape, one grows along axis 0; one scan output, whose length is the trip count. */
static void test_loop_shapes(void **state)
{
    (void)state;
    hk_graph *g = new_graph(), *body = hk_graph_body(g, "body");
    body_input(body, HK_INT64);
    hk_value *again = body_input(body, HK_BOOL), *same = body_input(body, HK_FLOAT32),
             *grows = body_input(body, HK_FLOAT32);
    const hk_attr_value axis[] = {HK_SET_INT("axis", 0), {0}};
    const hk_attr_value swap[] = {HK_SET_INTS("perm", ((const int64_t[]){0, 1}), 2), {0}};
    hk_value *next = body_node(body, "Transpose", swap, same, NULL);
    output(body, again);
    output(body, next);
    output(body, body_node(body, "Concat", axis, grows, same));
    output(body, next);
    hk_value *in[] = {ints(g, 4), NULL, input(g, SHAPE(2, 3)), input(g, SHAPE(5, 3))};
    hk_node *n = control_node(g, "Loop", NULL, &body, 1, in, 4, 3);
    OK(hk_node_infer(g, n));
    assert_true(hk_shape_equal(&n->out[0]->shape, SHAPE(2, 3)));
    assert_true(hk_shape_equal(&n->out[1]->shape, SHAPE(-1, 3)));
    assert_true(hk_shape_equal(&n->out[2]->shape, SHAPE(4, 2, 3)));
    OK(hk_node_infer(g, n)); /* once more finds the same */
    assert_true(hk_shape_equal(&n->out[1]->shape, SHAPE(-1, 3)));
    hk_graph_destroy(&g);
}

static void test_loop_refuses(void **state)
{
    (void)state;
    hk_graph *g = new_graph(), *body = hk_graph_body(g, "body");
    body_input(body, HK_INT64);
    hk_value *again = body_input(body, HK_BOOL);
    output(body, again);
    hk_value *in[] = {ints(g, 4), NULL, input(g, SHAPE(2, 3))};
    hk_node *n = control_node(g, "Loop", NULL, &body, 1, in, 3, 1);
    assert_int_equal(hk_node_infer(g, n), HK_STATUS_INVALID);
    assert_non_null(strstr(hk_context_error(ctx), "2 inputs and 1 outputs, expected 3 and 2"));
    hk_graph_destroy(&g);
}

static void test_if_shapes(void **state)
{
    (void)state;
    hk_graph *g = new_graph(), *branches[2] = {hk_graph_body(g, "then"), hk_graph_body(g, "else")};
    hk_value *x = input(g, SHAPE(4, 3)), *y = input(g, SHAPE(7, 3));
    output(branches[0], body_node(branches[0], "Identity", NULL, x, NULL));
    output(branches[1], body_node(branches[1], "Identity", NULL, y, NULL));
    hk_value *condition = hk_graph_value(g, "c", HK_VALUE_INPUT, HK_BOOL, &HK_SCALAR);
    hk_node *n = control_node(g, "If", NULL, branches, 2, &condition, 1, 1);
    OK(hk_node_infer(g, n));
    assert_int_equal(n->out[0]->dtype, HK_FLOAT32);
    assert_true(hk_shape_equal(&n->out[0]->shape, SHAPE(-1, 3)));
    hk_graph_destroy(&g);
}

/* Scan over columns, backwards, stacking along the last axis: each result is the element before the present one. */
static void test_scan(void **state)
{
    (void)state;
    hk_graph *g = new_graph(), *body = hk_graph_body(g, "body");
    hk_value *last = body_input(body, HK_FLOAT32), *now = body_input(body, HK_FLOAT32);
    output(body, body_node(body, "Identity", NULL, now, NULL));
    output(body, body_node(body, "Identity", NULL, last, NULL));
    hk_value *in[] = {input(g, SHAPE(2)), input(g, SHAPE(2, 3))};
    static const int64_t one = 1, back = 1, minus = -1;
    const hk_attr_value attrs[] = {HK_SET_INT("num_scan_inputs", 1),
                                   HK_SET_INTS("scan_input_axes", &one, 1),
                                   HK_SET_INTS("scan_input_directions", &back, 1),
                                   HK_SET_INTS("scan_output_axes", &minus, 1),
                                   {0}};
    hk_node *n = control_node(g, "Scan", attrs, &body, 1, in, 2, 2);
    OK(hk_node_infer(g, n));
    assert_true(hk_shape_equal(&n->out[0]->shape, SHAPE(2)));
    assert_true(hk_shape_equal(&n->out[1]->shape, SHAPE(2, 3)));
    output(g, n->out[0]);
    output(g, n->out[1]);
    hk_arena *arena = hk_arena_create(ctx);
    float first[] = {-1, -2}, x[] = {1, 2, 3, 4, 5, 6};
    const hk_tensor *feeds[] = {&(hk_tensor){.data = first, .dtype = HK_FLOAT32, .rank = 1, .shape = {2}},
                                &(hk_tensor){.data = x, .dtype = HK_FLOAT32, .rank = 2, .shape = {2, 3}}};
    hk_tensor *out[2];
    OK(hk_host_run(g, arena, feeds, out, NULL));
    assert_memory_equal(out[0]->data, ((const float[]){1, 4}), 2 * sizeof(float));
    assert_memory_equal(out[1]->data, ((const float[]){-1, 3, 2, -2, 6, 5}), 6 * sizeof(float));
    hk_arena_destroy(&arena);
    hk_graph_destroy(&g);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_concat_in_place),
        cmocka_unit_test(test_concat_unaligned),
        cmocka_unit_test(test_concat_twice),
        cmocka_unit_test(test_pack_in_place),
        cmocka_unit_test(test_views_of_views),
        cmocka_unit_test(test_shape_arithmetic_folds),
        cmocka_unit_test(test_unknown_dimensions),
        cmocka_unit_test(test_loop_shapes),
        cmocka_unit_test(test_loop_refuses),
        cmocka_unit_test(test_if_shapes),
        cmocka_unit_test(test_scan),
    };
    return test_main(
        argc, argv,
        &(test_program){.name = "moves", TESTS(tests), .debug = "check-plan,poison", .device = TEST_USES_DEVICE});
}

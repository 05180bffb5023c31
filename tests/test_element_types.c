/*
 * What becomes of element types that kernels do not take (runtime/element_types.h): 16-bit floats stay on the device,
 * other types are host steps that stand in the stage's list, constants of theirs are converted once, and float32 never
 * leaves the device. Conversions of small floats are checked against their definition.
 */
#include <math.h>

#include "ops/op.h"
#include "ops/step.h"
#include "runtime/host.h"
#include "runtime/objects.h"
#include "runtime/program.h"
#include "tests/support/program.h"

/* ---- graphs */

static hk_graph *new_graph(void)
{
    hk_graph *g = NULL;
    OK(hk_graph_create(ctx, "test", &g));
    return g;
}

static hk_value *input(hk_graph *g, hk_dtype t, int64_t rows, int64_t columns)
{
    hk_shape s = {.rank = 2, .dim = {rows, columns}};
    hk_value *v = hk_graph_value(g, NULL, HK_VALUE_INPUT, t, &s);
    assert_true(v && hk_graph_add_input(g, v));
    return v;
}

static hk_value *constant(hk_graph *g, hk_dtype t, int64_t rows, int64_t columns)
{
    hk_shape s = {.rank = 2, .dim = {rows, columns}};
    hk_tensor *data = hk_tensor_new(g->arena, t, &s);
    assert_non_null(data);
    for (int64_t i = 0; i < rows * columns; i++)
        hk_set_double(data, i, (double)(i * 7 % 13 - 6) / (hk_dtype_is_float(t) ? 16 : 1));
    hk_value *v = hk_graph_constant(g, NULL, data);
    assert_non_null(v);
    return v;
}

static hk_value *build(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_value *a, hk_value *b)
{
    hk_value *in[2] = {a, b}, *out = NULL;
    OK(hk_build(g, type, attrs, in, b ? 2 : 1, &out, 1));
    return out;
}

static hk_value *cast(hk_graph *g, hk_value *x, hk_dtype to)
{
    const hk_attr_value attrs[] = {HK_SET_INT("to", to), {0}};
    return build(g, "Cast", attrs, x, NULL);
}

/* Runs g on the host and as a program, twice; returns the stages and the number of host nodes of the second run. */
static void check(hk_graph *g, hk_value *out, double bound, size_t *stages, size_t *host_nodes)
{
    hk_arena *arena = hk_arena_create(ctx);
    hk_env *env = NULL;
    hk_program *p = NULL;
    const hk_tensor *in[4];
    hk_tensor *want[1];
    const hk_step step = {0};
    assert_true(hk_graph_add_output(g, out));
    for (size_t i = 0; i < g->input_count; i++) {
        hk_tensor *t = hk_tensor_new(arena, g->inputs[i]->dtype, &g->inputs[i]->shape);
        for (int64_t k = 0; k < hk_tensor_count(t); k++)
            hk_set_double(t, k, (double)(k * 11 % 17 - 8) / 8);
        in[i] = t;
    }
    OK(hk_host_run(g, arena, in, want, &step));
    OK(hk_env_create(dev->gpu, g, &env));
    OK(hk_program_create(env, g, 0, NULL, NULL, &p));
    for (int round = 0; round < 2; round++) {
        hk_run run = {0};
        OK(hk_program_submit(p, in, &step, &run));
        OK(hk_program_wait(p, &run));
        hk_shape s = hk_tensor_shape(want[0]);
        hk_tensor *got = hk_tensor_new(arena, want[0]->dtype, &s);
        OK(hk_exec_read(run.exec, run.ticket, 0, got->data));
        for (int64_t i = 0; i < hk_tensor_count(got); i++)
            if (!(fabs(hk_get_double(got, i) - hk_get_double(want[0], i)) <= bound))
                fail_msg("element %lld is %g, expected %g", (long long)i, hk_get_double(got, i),
                         hk_get_double(want[0], i));
        *stages = *host_nodes = 0;
        for (const hk_stage *stage = run.first; stage; stage = hk_stage_next(stage)) {
            size_t count = 0;
            hk_stage_host_nodes(stage, &count);
            *host_nodes += count;
            ++*stages;
        }
    }
    hk_program_destroy(&p);
    hk_env_destroy(&env);
    hk_arena_destroy(&arena);
    hk_graph_destroy(&g);
}

/* ---- programs */

/* A layer and what stands around one; every node has 16-bit floats. */
static void halves_stay_on_the_device(void **state)
{
    (void)state;
    bool storage16 = hk_device_get_info(dev)->caps >> HK_CAP_STORAGE16 & 1u;
    const hk_dtype types[] = {HK_FLOAT16, HK_BFLOAT16};
    for (size_t i = 0; i < HK_COUNT(types); i++) {
        size_t stages, host_nodes;
        hk_graph *g = new_graph();
        hk_value *x = input(g, types[i], 6, 32), *y = build(g, "MatMul", NULL, x, constant(g, types[i], 32, 10));
        y = build(g, "Add", NULL, y, constant(g, types[i], 1, 10));
        y = build(g, "Relu", NULL, y, NULL);
        y = build(g, "Transpose", NULL, y, NULL);
        y = build(g, "Softmax", NULL, y, NULL);
        y = build(g, "ReduceSum", NULL, y, hk_graph_ints(g, (int64_t[]){1}, 1));
        check(g, y, types[i] == HK_FLOAT16 ? 4e-3 : 3e-2, &stages, &host_nodes);
        if (storage16) {
            assert_int_equal(stages, 1);
            assert_int_equal(host_nodes, 0);
        }
    }
}

/* Three nodes in one host step, between two recordings. */
static void doubles_run_on_the_host(void **state)
{
    (void)state;
    size_t stages, host_nodes;
    hk_graph *g = new_graph();
    hk_value *x = input(g, HK_FLOAT32, 3, 5), *y = cast(g, build(g, "Neg", NULL, x, NULL), HK_FLOAT64);
    y = build(g, "Mul", NULL, y, constant(g, HK_FLOAT64, 1, 5));
    y = build(g, "Relu", NULL, cast(g, y, HK_FLOAT32), NULL);
    check(g, y, 0, &stages, &host_nodes);
    assert_int_equal(stages, 2);
    assert_int_equal(host_nodes, 3);
}

static void doubles_move_on_the_device(void **state)
{
    (void)state;
    size_t stages, host_nodes;
    hk_graph *g = new_graph();
    check(g, build(g, "Transpose", NULL, input(g, HK_FLOAT64, 3, 5), NULL), 0, &stages, &host_nodes);
    assert_int_equal(stages, 1);
    assert_int_equal(host_nodes, 0);
}

/* More elements than folding takes: what the host makes of weights alone is made once. */
static void weights_are_converted_once(void **state)
{
    (void)state;
    size_t stages, host_nodes;
    hk_graph *g = new_graph();
    hk_value *x = input(g, HK_FLOAT32, 2, 300), *scale = hk_graph_scalar(g, HK_FLOAT32, 0.125);
    hk_value *w = build(g, "DequantizeLinear", NULL, constant(g, HK_INT4, 300, 300), scale);
    check(g, build(g, "MatMul", NULL, x, w), 1e-4, &stages, &host_nodes);
    assert_int_equal(stages, 1);
    assert_int_equal(host_nodes, 0);
}

static void float32_never_leaves(void **state)
{
    (void)state;
    size_t stages, host_nodes;
    hk_graph *g = new_graph();
    hk_value *x = input(g, HK_FLOAT32, 4, 8);
    check(g, build(g, "Softmax", NULL, build(g, "MatMul", NULL, x, constant(g, HK_FLOAT32, 8, 3)), NULL), 1e-5, &stages,
          &host_nodes);
    assert_int_equal(stages, 1);
    assert_int_equal(host_nodes, 0);
}

/* ---- small floats */

/* Every number converts to itself; between two neighbours the nearer one is taken, half way the even one. */
static void small_floats(void **state)
{
    (void)state;
    const hk_dtype types[] = {HK_FLOAT8E4M3FN, HK_FLOAT8E4M3FNUZ, HK_FLOAT8E5M2, HK_FLOAT8E5M2FNUZ, HK_FLOAT4E2M1};
    const double most[] = {448, 240, 57344, 57344, 6};
    for (size_t t = 0; t < HK_COUNT(types); t++) {
        unsigned values = types[t] == HK_FLOAT4E2M1 ? 8 : 128;
        double before = 0, largest = 0;
        for (unsigned bits = 0; bits < values; bits++) {
            double x = hk_small_to_double(types[t], (uint8_t)bits);
            if (!isfinite(x))
                continue;
            assert_int_equal(hk_small_from_double(types[t], x, true), bits);
            assert_true(bits == 0 || hk_small_to_double(types[t], (uint8_t)(bits | values)) == -x);
            if (bits > 0) {
                assert_true(x > before);
                double middle = (before + x) / 2;
                assert_int_equal(hk_small_from_double(types[t], middle, true), bits & 1u ? bits - 1 : bits);
                assert_int_equal(hk_small_from_double(types[t], nextafter(middle, x), true), bits);
            }
            before = largest = x;
        }
        assert_true(largest == most[t]);
        assert_true(hk_small_to_double(types[t], hk_small_from_double(types[t], 1e9, true)) == most[t]);
        assert_true(hk_small_to_double(types[t], hk_small_from_double(types[t], -INFINITY, true)) == -most[t]);
    }
    assert_true(isnan(hk_small_to_double(HK_FLOAT8E4M3FN, hk_small_from_double(HK_FLOAT8E4M3FN, 1e9, false))));
    assert_true(isinf(hk_small_to_double(HK_FLOAT8E5M2, hk_small_from_double(HK_FLOAT8E5M2, 1e9, false))));
    assert_int_equal(hk_e8m0_from_float(1.5f, true, HK_E8M0_UP), 128);
    assert_int_equal(hk_e8m0_from_float(1.5f, true, HK_E8M0_DOWN), 127);
    assert_int_equal(hk_e8m0_from_float(1.25f, true, HK_E8M0_NEAREST), 127);
    assert_true(hk_small_to_double(HK_FLOAT8E8M0, 128) == 2);
}

/* Once from double: through float32 first, these would come out differently. */
static void halves_round_once(void **state)
{
    (void)state;
    assert_int_equal(hk_double_to_half(1 + 0x1p-11 + 0x1p-40), 0x3c01);
    assert_int_equal(hk_double_to_half(1 + 0x1p-11), 0x3c00);
    assert_int_equal(hk_double_to_half(-(1 + 0x1p-11 + 0x1p-40)), 0xbc01);
    assert_int_equal(hk_double_to_bfloat(1 + 0x1p-8 + 0x1p-40), 0x3f81);
    assert_int_equal(hk_double_to_bfloat(1e300), 0x7f80);
    assert_int_equal(hk_double_to_half(1e300), 0x7c00);
    assert_int_equal(hk_double_to_half(-INFINITY), 0xfc00);
    assert_int_equal(hk_double_to_half(1e-300), 0);
    for (uint32_t h = 0; h < 0x7c00; h++)
        assert_int_equal(hk_double_to_half((double)hk_half_to_float((uint16_t)h)), h);
}

/* An argument is a pattern of test names to run. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_stay_on_the_device),  cmocka_unit_test(doubles_run_on_the_host),
        cmocka_unit_test(doubles_move_on_the_device), cmocka_unit_test(weights_are_converted_once),
        cmocka_unit_test(float32_never_leaves),       cmocka_unit_test(small_floats),
        cmocka_unit_test(halves_round_once),
    };
    return test_main(argc, argv, &(test_program){.name = "element types", TESTS(tests)});
}

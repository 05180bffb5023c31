/*
 * Training operators against PyTorch: forward and gradient graphs are evaluated on the host and compared with the
 * constants below; tests/test_ops.c compares the device with the host. The constants came from torch 2.13 in float64:
 *
 *     wave = lambda n, a, b: torch.tensor(np.sin(a * np.arange(n) + b).astype(np.float32)).double()
 *     bn:    x = wave(32, .7, .3) as (2,2,2,4), weight (1.5,-.5), bias (.25,.1), running mean (.5,-1), variance
 * (2,.75), y = max_pool2d(relu(batch_norm(x, ..., training=True, momentum=.1)), 2), loss (y * wave(8, 1.1, .2)).sum()
 *     ln:    layer_norm of wave(12, .9, .1) as (3,4), weight (1,2,-1,.5), bias (0,.1,.2,.3), loss with wave(12, 1.3,
 * .4) gn:    group_norm of wave(24, .8, .5) as (2,4,3) in 2 groups, the same weight and bias, loss with wave(24, 1.3,
 * .4) ce:    cross_entropy of 3 * wave(20, .6, .2) as (4,5), labels (1, 4, -100, 0) adamw: wave(6, .5, .3), lr=.01,
 * weight_decay=.1, gradients of step t in 1..4: wave(6, .37 t, .1 t), tenfold at t = 2 amax:
 * ((1,3,3),(2,-1,0)).amax(1), loss with (2,5)
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/step.h"
#include "runtime/host.h"
#include "train/gradient.h"

static const double bn_y[] = {1.88087862, 2.20395421, 0.437056833, 0.875265277,
                              2.19342933, 1.91893262, 0.87752379,  0.414393479};
static const double bn_mean[] = {0.458329552, -0.890694459};
static const double bn_var[] = {1.85186787, 0.726175349};
static const double bn_dx[] = {
    0.0689285127, 0.541430292,  2.19917163,   0.100351602,   0.0479265056, -0.00611596603, -0.0363587962, -0.0285783104,
    -0.365798805, 0.0633956829, 0.017486693,  0.00565183111, 0.0334572148, 0.0878255387,   0.143186529,   0.426717365,
    -0.027916464, 0.0148603247, 0.0715712792, -1.06901163,   -2.01138777,  0.0982694823,   0.0451461805,  -0.0082868675,
    -0.182908164, 0.163813939,  -0.601977502, 0.0606888632,  0.0160207748, 0.00611625458,  0.0356335543,  0.0906902314};
static const double bn_dscale[] = {-0.428980781, -1.30792994};
static const double bn_dbias[] = {-0.382149026, 1.81773469};
static const double ln_y[] = {-1.30126398, 1.73193898, -0.915236633, -0.0149710741, -0.00418897248, -2.18556535,
                              0.635478305, 1.09122498, 0.777654929,  1.96135159,    0.322802403,    -0.492764161};
static const double ln_dx[] = {1.00012406,  3.67249738, -2.65784371,   -2.01477773, -1.27422062,  2.43782741,
                               -2.29035666, 1.12674987, -0.0132343212, 0.266411735, -0.436976772, 0.183799358};
static const double ln_dscale[] = {-1.26692158, -0.27033871, -0.343205496, -0.882746875};
static const double ln_dbias[] = {-1.22278455, 1.12045714, 1.82222645, -0.145570256};
static const double gn_y[] = {0.432080906,  1.11476923,   0.973264673,  0.286804074,  -1.88221162,  -3.14482206,
                              1.9310457,    0.887228106,  -0.334005542, 0.895935647,  0.743658325,  0.202540162,
                              -0.666333066, -1.16481004,  -0.85060489,  0.271379403,  2.25226013,   3.13985646,
                              -1.49098794,  -0.271684386, 0.95585733,   -0.323513535, -0.051943814, 0.572049849};
static const double gn_dx[] = {0.584464654,  1.33514458,    0.156198575, -2.4995873,  -1.53952215,   1.96330164,
                               -0.730455204, 0.320015668,   1.09502294,  -1.20691217, -0.0821389317, 0.604467697,
                               -0.269196657, -1.02997019,   -0.14115956, 2.15611563,  1.3427971,     -2.05858632,
                               0.811928983,  -0.0859133586, -1.06079298, 1.31352437,  -0.0291596283, -0.949587382};
static const double gn_dscale[] = {2.97754859, -0.299206971, -4.48067059, -0.742957194};
static const double gn_dbias[] = {-0.0124482661, 0.122637928, -0.165605493, 0.117798775};
static const double ce_loss[] = {1.37630656};
static const double ce_dx[] = {0.0121866195,
                               -0.275567428,
                               0.129111932,
                               0.10274218,
                               0.0315266974,
                               0.221478671,
                               0.0420927308,
                               0.0151900758,
                               0.0148600418,
                               -0.29362152,
                               0,
                               0,
                               0,
                               0,
                               0,
                               -0.0733904669,
                               0.0443607357,
                               0.0111151922,
                               0.00663143637,
                               0.0112831027};
static const double adamw_p[] = {0.263107938, 0.68379816, 0.930171155, 0.941772789, 0.730270436, 0.339062726};
static const double adamw_m[] = {0.233738663, 0.871234149, 0.890201767, 0.46186047, -0.0282972554, -0.427293824};
static const double adamw_v[] = {0.00418788851, 0.0671699376, 0.0995532231, 0.0456260217, 0.00203032326, 0.0492411611};
static const double amax_dx[] = {0, 1, 1, 5, 0, 0};

/* ---- a graph of float64 inputs under construction */

enum { INPUTS = 8, OUTPUTS = 8 };

typedef struct fixture {
    hk_context *ctx;
    hk_graph *g;
    const hk_tensor *feeds[INPUTS];
    hk_tensor *out[OUTPUTS];
    hk_arena *arena;
    hk_step step;
} fixture;

static void must(fixture *f, hk_status st)
{
    if (st != HK_OK)
        fail_msg("%s", hk_context_error(f->ctx));
}

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    must(f, hk_context_create(NULL, &f->ctx));
    must(f, hk_graph_create(f->ctx, "test", &f->g));
    assert_non_null(f->arena = hk_arena_create(f->ctx));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    hk_arena_destroy(&f->arena);
    hk_graph_destroy(&f->g);
    hk_context_destroy(&f->ctx);
    free(f);
    return 0;
}

static hk_value *input(fixture *f, hk_dtype dtype, hk_shape shape, const double *contents)
{
    hk_value *v = hk_graph_value(f->g, NULL, HK_VALUE_INPUT, dtype, &shape);
    hk_tensor *t = hk_tensor_new(f->arena, dtype, &shape);
    assert_true(v && t && f->g->input_count < INPUTS);
    for (int64_t i = 0; i < hk_shape_count(&shape); i++)
        hk_set_double(t, i, contents[i]);
    f->feeds[f->g->input_count] = t;
    assert_true(hk_graph_add_input(f->g, v));
    return v;
}

/* scale * sin(a i + b), rounded to float32 as in the Python code. */
static hk_value *wave(fixture *f, hk_shape shape, double scale, double a, double b)
{
    double x[64];
    assert_true(hk_shape_count(&shape) <= 64);
    for (int64_t i = 0; i < hk_shape_count(&shape); i++)
        x[i] = (double)(float)sin(a * (double)i + b) * scale;
    return input(f, HK_FLOAT64, shape, x);
}

static hk_value *vector(fixture *f, int64_t count, const double *x)
{
    return input(f, HK_FLOAT64, (hk_shape){.rank = 1, .dim = {count}}, x);
}

/* sum(y * weights) */
static hk_value *weighted_sum(fixture *f, hk_value *y, hk_value *weights)
{
    hk_value *product, *sum;
    must(f, hk_build(f->g, "Mul", NULL, (hk_value *[]){y, weights}, 2, &product, 1));
    must(f, hk_build(f->g, "ReduceSum", (hk_attr_value[]){HK_SET_INT("keepdims", 0), {0}}, &product, 1, &sum, 1));
    return sum;
}

static void add_outputs(fixture *f, hk_value *const *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_non_null(values[i]);
        assert_true(hk_graph_add_output(f->g, values[i]));
    }
}

/* Adds the gradients of loss as outputs. */
static void differentiate(fixture *f, hk_value *loss, hk_value *const *wrt, size_t count)
{
    hk_value *grads[4];
    must(f, hk_differentiate(f->g, loss, wrt, count, grads));
    add_outputs(f, grads, count);
}

static void evaluate(fixture *f)
{
    assert_true(f->g->output_count <= OUTPUTS);
    must(f, hk_graph_sort(f->g));
    must(f, hk_host_run(f->g, f->arena, f->feeds, f->out, &f->step));
}

static void expect(const fixture *f, int i, const double *want, int64_t count, double tolerance)
{
    const hk_tensor *t = f->out[i];
    assert_int_equal(hk_tensor_count(t), count);
    double difference = 0, norm = 0;
    for (int64_t k = 0; k < count; k++) {
        difference += pow(hk_get_double(t, k) - want[k], 2);
        norm += want[k] * want[k];
    }
    if (!(sqrt(difference) <= tolerance * sqrt(norm)))
        fail_msg("output %d: relative error %.3g, allowed %.3g", i, sqrt(difference / norm), tolerance);
}
#define EXPECT(f, i, want) expect((f), (i), (want), HK_COUNT(want), 1e-7)

/* ---- the tests */

static void test_batchnorm(void **state)
{
    fixture *f = *state;
    hk_value *in[5], *out[3];
    in[0] = wave(f, (hk_shape){.rank = 4, .dim = {2, 2, 2, 4}}, 1, 0.7, 0.3);
    in[1] = vector(f, 2, (double[]){1.5, -0.5});
    in[2] = vector(f, 2, (double[]){0.25, 0.1});
    in[3] = vector(f, 2, (double[]){0.5, -1.0});
    in[4] = vector(f, 2, (double[]){2.0, 0.75});
    hk_value *weights = wave(f, (hk_shape){.rank = 4, .dim = {2, 2, 1, 2}}, 1, 1.1, 0.2);
    const hk_attr_value attrs[] = {HK_SET_FLOAT("momentum", 0.9f), HK_SET_INT("training_mode", 1),
                                   HK_SET_INT("hk.unbiased", 1),   HK_SET_INT("relu", 1),
                                   HK_SET_INT("pool", 1),          {0}};
    must(f, hk_build(f->g, "hk.BatchNormAct", attrs, in, 5, out, 3));
    add_outputs(f, out, 3);
    differentiate(f, weighted_sum(f, out[0], weights), in, 3);
    evaluate(f);
    EXPECT(f, 0, bn_y);
    EXPECT(f, 1, bn_mean);
    EXPECT(f, 2, bn_var);
    EXPECT(f, 3, bn_dx);
    EXPECT(f, 4, bn_dscale);
    EXPECT(f, 5, bn_dbias);
}

static void norm_case(fixture *f, const char *type, const hk_attr_value *attrs, hk_shape shape, double frequency,
                      double phase)
{
    hk_value *in[3], *y;
    in[0] = wave(f, shape, 1, frequency, phase);
    in[1] = vector(f, 4, (double[]){1, 2, -1, 0.5});
    in[2] = vector(f, 4, (double[]){0, 0.1, 0.2, 0.3});
    hk_value *weights = wave(f, shape, 1, 1.3, 0.4);
    must(f, hk_build(f->g, type, attrs, in, 3, &y, 1));
    add_outputs(f, &y, 1);
    differentiate(f, weighted_sum(f, y, weights), in, 3);
    evaluate(f);
}

static void test_layer_norm(void **state)
{
    fixture *f = *state;
    norm_case(f, "LayerNormalization", NULL, (hk_shape){.rank = 2, .dim = {3, 4}}, 0.9, 0.1);
    EXPECT(f, 0, ln_y);
    EXPECT(f, 1, ln_dx);
    EXPECT(f, 2, ln_dscale);
    EXPECT(f, 3, ln_dbias);
}

static void test_group_norm(void **state)
{
    fixture *f = *state;
    const hk_attr_value attrs[] = {HK_SET_INT("num_groups", 2), {0}};
    norm_case(f, "GroupNormalization", attrs, (hk_shape){.rank = 3, .dim = {2, 4, 3}}, 0.8, 0.5);
    EXPECT(f, 0, gn_y);
    EXPECT(f, 1, gn_dx);
    EXPECT(f, 2, gn_dscale);
    EXPECT(f, 3, gn_dbias);
}

static void test_cross_entropy(void **state)
{
    fixture *f = *state;
    hk_value *in[2], *loss;
    in[0] = wave(f, (hk_shape){.rank = 2, .dim = {4, 5}}, 3, 0.6, 0.2);
    in[1] = input(f, HK_INT64, (hk_shape){.rank = 1, .dim = {4}}, (double[]){1, 4, -100, 0});
    must(f, hk_build(f->g, "hk.CrossEntropy", NULL, in, 2, &loss, 1));
    add_outputs(f, &loss, 1);
    differentiate(f, loss, in, 1);
    evaluate(f);
    EXPECT(f, 0, ce_loss);
    EXPECT(f, 1, ce_dx);
}

/* Four updates in a row; the last state of each is compared. Gradients of step 2 are ten times as large. */
static void test_adamw(void **state)
{
    fixture *f = *state;
    const hk_shape shape = {.rank = 1, .dim = {6}}, words = {.rank = 1, .dim = {HK_CONTROL_WORDS}};
    const double zeros[HK_CONTROL_WORDS] = {0};
    const float decay = 0.1f;
    hk_value *control, *step = hk_graph_step(f->g), *in[6], *out[4];
    in[0] = wave(f, shape, 1, 0.5, 0.3);
    in[1] = input(f, HK_FLOAT64, shape, zeros);
    in[4] = input(f, HK_FLOAT64, shape, zeros);
    in[5] = input(f, HK_FLOAT64, shape, zeros);
    hk_value *before = input(f, HK_FLOAT32, words, zeros);
    assert_non_null(step);
    must(f, hk_build(f->g, "hk.UpdateControl", NULL, (hk_value *[]){before, step}, 2, &control, 1));
    in[2] = control;
    in[3] = step;
    const hk_attr_value attrs[] = {
        {.name = "weight_decay", .kind = HK_ATTR_FLOATS, .floats = {.v = &decay, .count = 1}}, {0}};
    must(f, hk_build(f->g, "hk.Update", attrs, in, 6, out, 3));
    out[3] = control;
    add_outputs(f, out, 4);
    for (int t = 1; t <= 4; t++) {
        hk_tensor *gradients = hk_tensor_new(f->arena, HK_FLOAT64, &shape);
        assert_non_null(gradients);
        for (int64_t i = 0; i < 6; i++) /* twice too large, which grad_scale makes good */
            hk_set_double(gradients, i, (double)(float)sin(0.37 * t * (double)i + 0.1 * t) * (t == 2 ? 20 : 2));
        f->feeds[1] = gradients;
        f->step = (hk_step){.lr = 0.01f, .grad_scale = 0.5f};
        evaluate(f);
        f->feeds[0] = f->out[0];
        f->feeds[2] = f->out[1];
        f->feeds[3] = f->out[2];
        f->feeds[4] = f->out[3];
    }
    expect(f, 0, adamw_p, HK_COUNT(adamw_p), 1e-6);
    expect(f, 1, adamw_m, HK_COUNT(adamw_m), 1e-6);
    expect(f, 2, adamw_v, HK_COUNT(adamw_v), 1e-6);
}

static void test_accumulation(void **state)
{
    fixture *f = *state;
    hk_value *in[3], *out;
    in[0] = vector(f, 2, (double[]){NAN, 3});
    in[1] = vector(f, 2, (double[]){1, 2});
    assert_non_null(in[2] = hk_graph_step(f->g));
    must(f, hk_build(f->g, "hk.AccumulateGradient", NULL, in, 3, &out, 1));
    add_outputs(f, &out, 1);
    f->step.accumulate = 0;
    evaluate(f);
    EXPECT(f, 0, ((double[]){1, 2})); /* nothing of the old sum survives the first micro-batch */
    hk_set_double(f->out[0], 0, 5);
    f->feeds[0] = f->out[0];
    f->step.accumulate = 1;
    evaluate(f);
    EXPECT(f, 0, ((double[]){6, 4}));
}

/* torch.amax: equal elements share the gradient. */
static void test_max_ties(void **state)
{
    fixture *f = *state;
    hk_value *in[2], *y;
    in[0] = input(f, HK_FLOAT64, (hk_shape){.rank = 2, .dim = {2, 3}}, (double[]){1, 3, 3, 2, -1, 0});
    assert_non_null(in[1] = hk_graph_ints(f->g, (int64_t[]){1}, 1));
    hk_value *weights = vector(f, 2, (double[]){2, 5});
    must(f, hk_build(f->g, "ReduceMax", (hk_attr_value[]){HK_SET_INT("keepdims", 0), {0}}, in, 2, &y, 1));
    differentiate(f, weighted_sum(f, y, weights), in, 1);
    evaluate(f);
    EXPECT(f, 0, amax_dx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_batchnorm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_layer_norm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_group_norm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cross_entropy, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_adamw, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_accumulation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_max_ties, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

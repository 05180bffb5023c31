/*
 * The graph passes one by one: what each takes away, what it must leave, and that the host evaluator computes the same
 * from the graph before and after. test_exports runs whole models with each of them off.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/infer.h"
#include "runtime/host.h"
#include "runtime/passes.h"
#include "tests/support/data.h"
#include "tests/support/program.h"

/* ---- building */

static hk_graph *new_graph(void)
{
    hk_graph *g = NULL;
    OK(hk_graph_create(ctx, "g", &g));
    return g;
}

static hk_value *input(hk_graph *g, const char *name, hk_shape shape)
{
    hk_value *v = hk_graph_value(g, name, HK_VALUE_INPUT, HK_FLOAT32, &shape);
    assert_true(v && hk_graph_add_input(g, v));
    return v;
}

#define SHAPE(...)                                                                                                     \
    (hk_shape)                                                                                                         \
    {                                                                                                                  \
        .rank = (int32_t)(sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t)), .dim = { __VA_ARGS__ }                    \
    }

static hk_value *node(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_value *a, hk_value *b)
{
    hk_value *in[] = {a, b}, *out = NULL;
    OK(hk_build(g, type, attrs, in, b ? 2 : 1, &out, 1));
    return out;
}

static hk_value *reshape(hk_graph *g, hk_value *x, hk_shape to)
{
    return node(g, "Reshape", NULL, x, hk_graph_ints(g, to.dim, to.rank));
}

static hk_value *transpose(hk_graph *g, hk_value *x, const int64_t *perm)
{
    const hk_attr_value attrs[] = {HK_SET_INTS("perm", perm, x->shape.rank), {0}};
    return node(g, "Transpose", attrs, x, NULL);
}

static void output(hk_graph *g, hk_value *v)
{
    assert_true(hk_graph_add_output(g, v));
}

static hk_value *filled(hk_graph *g, hk_shape shape, double base)
{
    hk_tensor *t = hk_tensor_new(g->arena, HK_FLOAT32, &shape);
    assert_non_null(t);
    for (int64_t i = 0; i < hk_shape_count(&shape); i++)
        hk_set_double(t, i, base + 0.01 * (double)(i * 37 % 101));
    return hk_graph_constant(g, "c", t);
}

/* ---- running a pass on a copy, and comparing */

typedef hk_status pass_function(hk_graph *g);

static void evaluate(hk_graph *g, hk_arena *arena, hk_tensor **out)
{
    const hk_tensor *in[8] = {0};
    for (size_t i = 0; i < g->input_count; i++) {
        hk_tensor *t = hk_tensor_new(arena, HK_FLOAT32, &g->inputs[i]->shape);
        for (int64_t k = 0; k < hk_shape_count(&g->inputs[i]->shape); k++)
            hk_set_double(t, k, sin((double)(k + 3 * (int64_t)i)));
        in[i] = t;
    }
    OK(hk_host_run(g, arena, in, out, NULL));
}

/* Nodes of that type after the pass; NULL: all. Ends g. */
static size_t left(hk_graph *g, pass_function *pass, const char *type)
{
    hk_graph *copy = NULL;
    hk_arena *arena = hk_arena_create(ctx);
    hk_tensor *want[8] = {0}, *got[8] = {0};
    size_t count = 0;
    OK(hk_graph_clone(g, &copy));
    OK(hk_infer_graph(copy));
    OK(pass(copy));
    for (size_t i = 0; i < copy->node_count; i++)
        count += !type || !strcmp(copy->nodes[i]->type, type);
    evaluate(g, arena, want);
    evaluate(copy, arena, got);
    for (size_t i = 0; i < g->output_count; i++)
        assert_true(data_error(got[i], want[i]) <= 1e-6);
    hk_graph_destroy(&copy);
    hk_graph_destroy(&g);
    hk_arena_destroy(&arena);
    return count;
}

/* ---- views */

static void views(void **state)
{
    (void)state;
    hk_graph *g = new_graph();
    hk_value *x = input(g, "x", SHAPE(2, 3, 4));
    output(g, reshape(g, reshape(g, reshape(g, x, SHAPE(6, 4)), SHAPE(24)), SHAPE(4, 6)));
    assert_int_equal(left(g, hk_drop_views, NULL), 1); /* one Reshape from x */

    g = new_graph();
    x = input(g, "x", SHAPE(2, 3, 4));
    output(g, node(g, "Relu", NULL, reshape(g, reshape(g, x, SHAPE(6, 4)), SHAPE(2, 3, 4)), NULL));
    assert_int_equal(left(g, hk_drop_views, NULL), 1); /* there and back: Relu alone */

    g = new_graph();
    x = input(g, "x", SHAPE(2, 3, 4));
    output(g, transpose(g, transpose(g, x, (int64_t[]){1, 2, 0}), (int64_t[]){2, 0, 1}));
    assert_int_equal(left(g, hk_drop_views, "Transpose"), 0); /* inverse of each other */

    g = new_graph();
    x = input(g, "x", SHAPE(2, 3, 4));
    output(g, transpose(g, transpose(g, x, (int64_t[]){1, 2, 0}), (int64_t[]){0, 2, 1}));
    assert_int_equal(left(g, hk_drop_views, "Transpose"), 1);

    g = new_graph(); /* only dimensions of 1 move */
    x = input(g, "x", SHAPE(2, 1, 4));
    hk_value *y = transpose(g, x, (int64_t[]){1, 0, 2});
    output(g, node(g, "Relu", NULL, reshape(g, y, SHAPE(2, 1, 4)), NULL));
    assert_int_equal(left(g, hk_drop_views, NULL), 1);
}

static void copies(void **state)
{
    (void)state;
    const hk_attr_value axis[] = {HK_SET_INT("axis", 0), {0}}, to[] = {HK_SET_INT("to", HK_FLOAT32), {0}};
    hk_graph *g = new_graph();
    hk_value *x = input(g, "x", SHAPE(2, 3));
    hk_value *y = node(g, "Concat", axis, x, NULL);
    y = node(g, "Cast", to, y, NULL);
    y = node(g, "Identity", NULL, y, NULL);
    y = node(g, "Pad", NULL, y, hk_graph_ints(g, (int64_t[]){0, 0, 0, 0}, 4));
    y = node(g, "Sum", NULL, y, NULL);
    y = node(g, "Expand", NULL, y, hk_graph_ints(g, (int64_t[]){2, 3}, 2));
    output(g, node(g, "Relu", NULL, y, NULL));
    assert_int_equal(left(g, hk_drop_views, NULL), 1);

    g = new_graph(); /* of equal shape, and no copy: moved by one, and reversed */
    x = input(g, "x", SHAPE(2, 3));
    output(g, node(g, "Pad", NULL, x, hk_graph_ints(g, (int64_t[]){0, 1, 0, -1}, 4)));
    hk_value *in[] = {x, hk_graph_ints(g, (int64_t[]){-1}, 1), hk_graph_ints(g, (int64_t[]){-9}, 1),
                      hk_graph_ints(g, (int64_t[]){1}, 1), hk_graph_ints(g, (int64_t[]){-1}, 1)};
    hk_value *reversed = NULL;
    OK(hk_build(g, "Slice", NULL, in, 5, &reversed, 1));
    output(g, reversed);
    assert_int_equal(left(g, hk_drop_views, NULL), 2);
}

/* ---- common subexpressions */

static void common(void **state)
{
    (void)state;
    const hk_attr_value last[] = {HK_SET_INT("axis", 1), {0}}, first[] = {HK_SET_INT("axis", 0), {0}};
    hk_graph *g = new_graph();
    hk_value *x = input(g, "x", SHAPE(3, 4));
    hk_value *a = node(g, "Add", NULL, node(g, "Softmax", last, x, NULL), filled(g, SHAPE(4), 1));
    hk_value *b = node(g, "Add", NULL, node(g, "Softmax", last, x, NULL), filled(g, SHAPE(4), 1));
    output(g, node(g, "Mul", NULL, a, b));
    assert_int_equal(left(g, hk_merge_common, NULL), 3); /* through equal constants too */

    g = new_graph(); /* another attribute, another constant, other operands */
    x = input(g, "x", SHAPE(4, 4));
    a = node(g, "Add", NULL, node(g, "Softmax", last, x, NULL), filled(g, SHAPE(4), 1));
    b = node(g, "Add", NULL, node(g, "Softmax", first, x, NULL), filled(g, SHAPE(4), 1));
    output(g, node(g, "Sub", NULL, a, b));
    output(g, node(g, "Sub", NULL, b, a));
    output(g, node(g, "Mul", NULL, x, filled(g, SHAPE(4), 2)));
    output(g, node(g, "Mul", NULL, x, filled(g, SHAPE(4), 3)));
    assert_int_equal(left(g, hk_merge_common, NULL), 8);
}

static void random_nodes_stay(void **state)
{
    (void)state;
    hk_graph *g = new_graph();
    hk_value *x = input(g, "x", SHAPE(64)), *out[2];
    hk_value *ratio = hk_graph_scalar(g, HK_FLOAT32, 0.5);
    bool yes = true;
    hk_shape scalar = HK_SCALAR;
    hk_tensor *t = hk_tensor_new(g->arena, HK_BOOL, &scalar);
    memcpy(t->data, &yes, 1);
    for (int i = 0; i < 2; i++) {
        hk_value *in[] = {x, ratio, hk_graph_constant(g, "training", t)};
        OK(hk_build(g, "Dropout", NULL, in, 3, &out[i], 1));
    }
    output(g, node(g, "Add", NULL, out[0], out[1]));
    OK(hk_infer_graph(g));
    OK(hk_merge_common(g));
    assert_int_equal(g->node_count, 3);
    hk_graph_destroy(&g);
}

/* ---- pads */

static hk_graph *padded(const char *type, double value, const int64_t *pads, bool counted)
{
    hk_graph *g = new_graph();
    hk_value *x = input(g, "x", SHAPE(1, 2, 6, 7));
    hk_value *in[] = {x, hk_graph_ints(g, pads, 8), hk_graph_scalar(g, HK_FLOAT32, value)}, *y = NULL;
    const int64_t kernel[] = {3, 3}, own[] = {1, 0, 1, 0};
    hk_attr_value attrs[4] = {HK_SET_INTS("kernel_shape", kernel, 2), {0}};
    OK(hk_build(g, "Pad", NULL, in, 3, &y, 1));
    if (!strcmp(type, "Conv"))
        attrs[1] = (hk_attr_value)HK_SET_INTS("pads", own, 4);
    if (counted)
        attrs[1] = (hk_attr_value)HK_SET_INT("count_include_pad", 1);
    output(g, node(g, type, attrs, y, strcmp(type, "Conv") ? NULL : filled(g, SHAPE(3, 2, 3, 3), -0.5)));
    return g;
}

static void pads(void **state)
{
    (void)state;
    static const int64_t sides[] = {0, 0, 0, 1, 0, 0, 1, 1}, channels[] = {0, 1, 0, 0, 0, 0, 0, 0},
                         crop[] = {0, 0, -1, 1, 0, 0, 1, 1}, wide[] = {0, 0, 3, 0, 0, 0, 0, 0};
    assert_int_equal(left(padded("Conv", 0, sides, false), hk_fold_pads, "Pad"), 0);
    assert_int_equal(left(padded("Conv", 0, wide, false), hk_fold_pads, "Pad"), 0);
    assert_int_equal(left(padded("Conv", 1, sides, false), hk_fold_pads, "Pad"), 1);
    assert_int_equal(left(padded("Conv", 0, crop, false), hk_fold_pads, "Pad"), 1);
    assert_int_equal(left(padded("AveragePool", 0, sides, false), hk_fold_pads, "Pad"), 0);
    assert_int_equal(left(padded("AveragePool", 0, sides, true), hk_fold_pads, "Pad"), 0);
    assert_int_equal(left(padded("AveragePool", 0, wide, true), hk_fold_pads, "Pad"), 1);
    assert_int_equal(left(padded("AveragePool", 0, channels, false), hk_fold_pads, "Pad"), 1);
    assert_int_equal(left(padded("MaxPool", -INFINITY, sides, false), hk_fold_pads, "Pad"), 0);
    assert_int_equal(left(padded("MaxPool", 0, sides, false), hk_fold_pads, "Pad"), 1);
}

/* ---- transposes */

/* x times the transpose by perm of a weight, and a bias. */
static hk_graph *transposed(hk_shape x, hk_shape weight, const int64_t *perm, bool left_operand)
{
    hk_graph *g = new_graph();
    const hk_attr_value attrs[] = {HK_SET_INTS("perm", perm, weight.rank), {0}};
    hk_value *a = input(g, "x", x), *w = node(g, "Transpose", attrs, input(g, "w", weight), NULL);
    output(g, left_operand ? node(g, "MatMul", NULL, w, a) : node(g, "MatMul", NULL, a, w));
    return g;
}

static void transposes(void **state)
{
    (void)state;
    static const int64_t turn[] = {1, 0}, same[] = {0, 1}, batches[] = {0, 2, 1};
    assert_int_equal(left(transposed(SHAPE(3, 4), SHAPE(5, 4), turn, false), hk_fold_transposes, "Transpose"), 0);
    assert_int_equal(left(transposed(SHAPE(2, 3, 4), SHAPE(5, 4), turn, false), hk_fold_transposes, "Transpose"), 0);
    assert_int_equal(left(transposed(SHAPE(3, 4), SHAPE(4, 5), same, false), hk_fold_transposes, "Transpose"), 1);
    assert_int_equal(left(transposed(SHAPE(4), SHAPE(5, 4), turn, false), hk_fold_transposes, "Transpose"), 1);
    assert_int_equal(left(transposed(SHAPE(3, 4), SHAPE(3, 5), turn, true), hk_fold_transposes, "Transpose"), 1);
    assert_int_equal(left(transposed(SHAPE(2, 3, 4), SHAPE(2, 5, 4), batches, false), hk_fold_transposes, "Transpose"),
                     1);
}

/* ---- BatchNormalization */

static hk_graph *before_batchnorm(const char *type, hk_shape image, hk_shape weight, int64_t channels,
                                  hk_attr_value attr, bool bias)
{
    hk_graph *g = new_graph();
    hk_value *in[] = {input(g, "x", image), filled(g, weight, -0.4), NULL}, *y = NULL;
    const hk_attr_value attrs[] = {attr, {0}};
    in[2] = bias ? filled(g, SHAPE(channels), 0.2) : NULL;
    OK(hk_build(g, type, attrs, in, bias ? 3 : 2, &y, 1));
    hk_value *bn[] = {y, filled(g, SHAPE(channels), 0.5), filled(g, SHAPE(channels), -1),
                      filled(g, SHAPE(channels), 0.1), filled(g, SHAPE(channels), 0.7)};
    OK(hk_build(g, "BatchNormalization", NULL, bn, 5, &y, 1));
    output(g, y);
    return g;
}

static void batchnorm(void **state)
{
    (void)state;
    const hk_attr_value none = {0}, two = HK_SET_INT("group", 2), turned = HK_SET_INT("transB", 1),
                        half = HK_SET_FLOAT("beta", 0.5f);
    const char *bn = "BatchNormalization";
    hk_shape image = SHAPE(2, 4, 5, 6), row = SHAPE(3, 4);
    for (int bias = 0; bias < 2; bias++) {
        assert_int_equal(left(before_batchnorm("Conv", image, SHAPE(6, 4, 3, 3), 6, none, bias), hk_fold_batchnorm, bn),
                         0);
        assert_int_equal(left(before_batchnorm("Conv", image, SHAPE(6, 2, 3, 3), 6, two, bias), hk_fold_batchnorm, bn),
                         0);
        assert_int_equal(
            left(before_batchnorm("ConvTranspose", image, SHAPE(4, 6, 3, 3), 6, none, bias), hk_fold_batchnorm, bn), 0);
        assert_int_equal(
            left(before_batchnorm("ConvTranspose", image, SHAPE(4, 3, 2, 2), 6, two, bias), hk_fold_batchnorm, bn), 0);
        assert_int_equal(left(before_batchnorm("Gemm", row, SHAPE(4, 5), 5, none, bias), hk_fold_batchnorm, bn), 0);
        assert_int_equal(left(before_batchnorm("Gemm", row, SHAPE(5, 4), 5, turned, bias), hk_fold_batchnorm, bn), 0);
        assert_int_equal(left(before_batchnorm("Gemm", row, SHAPE(4, 5), 5, half, bias), hk_fold_batchnorm, bn), 1);
    }
}

static hk_value *scalar(hk_graph *g, double x)
{
    return hk_graph_scalar(g, HK_FLOAT32, x);
}

/* ---- epilogues: what follows a product behind views of it */

static void epilogues_through_views(void **state)
{
    (void)state;
    hk_graph *g = new_graph(); /* bias before the view, residual behind it */
    hk_value *y = node(g, "MatMul", NULL, input(g, "x", SHAPE(6, 8)), filled(g, SHAPE(8, 4), -0.5));
    y = reshape(g, node(g, "Add", NULL, y, filled(g, SHAPE(4), 0.1)), SHAPE(2, 3, 4));
    output(g, node(g, "Add", NULL, input(g, "r", SHAPE(2, 3, 4)), y));
    assert_int_equal(left(g, hk_fuse_epilogues, NULL), 3); /* hk.Gemm, and views of residual and result */

    g = new_graph(); /* an activation behind a view; the view behind that stays */
    y = node(g, "MatMul", NULL, input(g, "x", SHAPE(6, 8)), filled(g, SHAPE(8, 4), -0.5));
    y = node(g, "Relu", NULL, reshape(g, y, SHAPE(3, 8)), NULL);
    output(g, reshape(g, y, SHAPE(24)));
    assert_int_equal(left(g, hk_fuse_epilogues, "Relu"), 0);

    g = new_graph(); /* what is a row's bias of the view is none of the product */
    y = node(g, "MatMul", NULL, input(g, "x", SHAPE(6, 8)), filled(g, SHAPE(8, 4), -0.5));
    output(g, node(g, "Add", NULL, reshape(g, y, SHAPE(3, 8)), filled(g, SHAPE(8), 0.1)));
    assert_int_equal(left(g, hk_fuse_epilogues, "Add"), 1);

    g = new_graph(); /* the view is wanted itself */
    y = node(g, "MatMul", NULL, input(g, "x", SHAPE(6, 8)), filled(g, SHAPE(8, 4), -0.5));
    hk_value *view = reshape(g, y, SHAPE(3, 8));
    output(g, node(g, "Relu", NULL, view, NULL));
    output(g, view);
    assert_int_equal(left(g, hk_fuse_epilogues, "Relu"), 1);
}

/* ---- formulas */

static hk_value *mean(hk_graph *g, hk_value *x)
{
    return node(g, "ReduceMean", NULL, x, hk_graph_ints(g, (int64_t[]){-1}, 1));
}

/* x / sqrt(mean(square) + epsilon), with a division or a reciprocal. */
static hk_value *normalized(hk_graph *g, hk_value *x, hk_value *square, bool reciprocal)
{
    hk_value *d = node(g, "Add", NULL, mean(g, square), scalar(g, 1e-5));
    d = node(g, "Sqrt", NULL, d, NULL);
    return reciprocal ? node(g, "Mul", NULL, x, node(g, "Reciprocal", NULL, d, NULL)) : node(g, "Div", NULL, x, d);
}

static hk_graph *layer_norm(bool by_power, bool reciprocal, hk_shape scale, hk_shape bias)
{
    hk_graph *g = new_graph();
    hk_value *x = input(g, "x", SHAPE(3, 4, 5)), *d = node(g, "Sub", NULL, x, mean(g, x));
    hk_value *square = by_power ? node(g, "Pow", NULL, d, scalar(g, 2.0)) : node(g, "Mul", NULL, d, d);
    hk_value *y = normalized(g, d, square, reciprocal);
    if (scale.rank)
        y = node(g, "Mul", NULL, filled(g, scale, 0.5), y);
    if (bias.rank)
        y = node(g, "Add", NULL, y, filled(g, bias, -0.5));
    output(g, y);
    return g;
}

static void formulas(void **state)
{
    (void)state;
    assert_int_equal(left(layer_norm(true, false, SHAPE(5), SHAPE(5)), hk_fuse_formulas, NULL), 1);
    assert_int_equal(left(layer_norm(false, true, SHAPE(5), (hk_shape){0}), hk_fuse_formulas, NULL), 1);
    assert_int_equal(left(layer_norm(true, true, (hk_shape){0}, (hk_shape){0}), hk_fuse_formulas, NULL), 1);
    /* what is added is no bias of the rows: the addition stays */
    assert_int_equal(left(layer_norm(true, false, SHAPE(5), SHAPE(4, 5)), hk_fuse_formulas, NULL), 2);

    hk_graph *g = new_graph();
    hk_value *x = input(g, "x", SHAPE(3, 4, 5));
    hk_value *y = normalized(g, x, node(g, "Pow", NULL, x, scalar(g, 2.0)), true);
    output(g, node(g, "Mul", NULL, filled(g, SHAPE(5), 0.5), y));
    assert_int_equal(left(g, hk_fuse_formulas, NULL), 1);

    g = new_graph(); /* the mean of other squares */
    x = input(g, "x", SHAPE(3, 4, 5));
    y = input(g, "y", SHAPE(3, 4, 5));
    output(g, normalized(g, x, node(g, "Mul", NULL, y, y), false));
    assert_int_equal(left(g, hk_fuse_formulas, "RMSNormalization"), 0);

    g = new_graph(); /* x/2 (1 + erf(x / sqrt 2)) */
    x = input(g, "x", SHAPE(3, 5));
    y = node(g, "Erf", NULL, node(g, "Div", NULL, x, scalar(g, sqrt(2.0))), NULL);
    y = node(g, "Mul", NULL, node(g, "Add", NULL, y, scalar(g, 1.0)), x);
    output(g, node(g, "Mul", NULL, y, scalar(g, 0.5)));
    assert_int_equal(left(g, hk_fuse_formulas, NULL), 1);

    for (int power = 0; power < 2; power++) { /* the same with tanh; 0.044 is another function */
        for (int other = 0; other < 2; other++) {
            g = new_graph();
            x = input(g, "x", SHAPE(3, 5));
            y = power ? node(g, "Pow", NULL, x, scalar(g, 3.0)) : node(g, "Mul", NULL, node(g, "Mul", NULL, x, x), x);
            y = node(g, "Add", NULL, x, node(g, "Mul", NULL, y, scalar(g, other ? 0.044 : 0.044715)));
            y = node(g, "Tanh", NULL, node(g, "Mul", NULL, y, scalar(g, 0.7978845608)), NULL);
            y = node(g, "Add", NULL, y, scalar(g, 1.0));
            output(g, node(g, "Mul", NULL, node(g, "Mul", NULL, x, scalar(g, 0.5)), y));
            assert_int_equal(left(g, hk_fuse_formulas, "Gelu"), !other);
        }
    }
}

/* ---- attention */

static hk_value *softmax(hk_graph *g, hk_value *x)
{
    const hk_attr_value attrs[] = {HK_SET_INT("axis", -1), {0}};
    return node(g, "Softmax", attrs, x, NULL);
}

static hk_value *gather(hk_graph *g, hk_value *x, int64_t i)
{
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 0), {0}};
    return node(g, "Gather", attrs, x, hk_graph_scalar(g, HK_INT64, (double)i));
}

static const int64_t swap[] = {0, 2, 1, 3}, swap_last[] = {0, 1, 3, 2};

/* [2, 5, 12] as [2, 3, 5, 4] */
static hk_value *heads(hk_graph *g, const char *name)
{
    return transpose(g, reshape(g, input(g, name, SHAPE(2, 5, 12)), SHAPE(2, 5, 3, 4)), swap);
}

/* Scores of two inputs of three heads, scaled on both sides as the exporters do. */
static hk_value *scores(hk_graph *g)
{
    hk_value *q = node(g, "Mul", NULL, heads(g, "q"), scalar(g, 0.7));
    hk_value *k = node(g, "Mul", NULL, transpose(g, heads(g, "k"), swap_last), scalar(g, 0.7));
    return node(g, "MatMul", NULL, q, k);
}

/* The rest, with the transpose of the result. */
static hk_value *weighed(hk_graph *g, hk_value *p)
{
    return reshape(g, transpose(g, node(g, "MatMul", NULL, p, heads(g, "v")), swap), SHAPE(2, 5, 12));
}

/* What is left of a graph in which attention was found: the node, and views. */
static void assert_found(hk_graph *g, size_t nodes)
{
    hk_graph *copy = NULL;
    OK(hk_graph_clone(g, &copy));
    assert_int_equal(left(copy, hk_fuse_attention, "hk.Attention"), 1);
    assert_int_equal(left(g, hk_fuse_attention, NULL), nodes);
}

static void attention(void **state)
{
    (void)state;
    hk_graph *g = new_graph(); /* no mask: operands are read where they lie, and so is the result */
    output(g, weighed(g, softmax(g, scores(g))));
    assert_found(g, 3); /* it and two reshapes of the result */

    g = new_graph(); /* a mask, and zero where nothing is seen */
    hk_value *p = softmax(g, node(g, "Add", NULL, scores(g), filled(g, SHAPE(2, 1, 5, 5), -0.3))), *in[3];
    in[0] = node(g, "IsNaN", NULL, p, NULL);
    in[1] = scalar(g, 0.0);
    in[2] = p;
    OK(hk_build(g, "Where", NULL, in, 3, &p, 1));
    output(g, weighed(g, p));
    assert_found(g, 3);

    g = new_graph(); /* a mask by choice */
    in[0] = node(g, "Greater", NULL, filled(g, SHAPE(5, 5), 0.0), scalar(g, 0.5));
    in[1] = scores(g);
    in[2] = scalar(g, -1e30);
    OK(hk_build(g, "Where", NULL, in, 3, &p, 1));
    output(g, weighed(g, softmax(g, p)));
    assert_found(g, 3); /* the mask is constant */

    g = new_graph(); /* scale on the scores, then a mask that another node computes */
    p = node(g, "Div", NULL, scores(g), scalar(g, 3.0));
    p = node(g, "Add", NULL, node(g, "Sin", NULL, input(g, "mask", SHAPE(1, 3, 5, 1)), NULL), p);
    output(g, weighed(g, softmax(g, p)));
    assert_found(g, 4);
}

static void attention_in_windows(void **state)
{
    (void)state;
    static const int64_t split[] = {2, 0, 3, 1, 4};
    hk_graph *g = new_graph(); /* one projection for q, k, v; a bias for heads and a mask for windows */
    hk_value *qkv = transpose(g, reshape(g, input(g, "x", SHAPE(4, 5, 18)), SHAPE(4, 5, 3, 2, 3)), split);
    hk_value *q = node(g, "Mul", NULL, gather(g, qkv, 0), scalar(g, 0.5));
    hk_value *s = node(g, "MatMul", NULL, q, transpose(g, gather(g, qkv, 1), swap_last));
    s = reshape(g, node(g, "Add", NULL, s, filled(g, SHAPE(1, 2, 5, 5), -0.5)), SHAPE(2, 2, 2, 5, 5));
    s = reshape(g, node(g, "Add", NULL, s, filled(g, SHAPE(1, 2, 1, 5, 5), -0.2)), SHAPE(4, 2, 5, 5));
    hk_value *y = node(g, "MatMul", NULL, softmax(g, s), gather(g, qkv, 2));
    output(g, reshape(g, transpose(g, y, swap), SHAPE(4, 5, 6)));
    assert_found(g, 3);

    static const int64_t batch_second[] = {2, 0, 1, 3};
    g = new_graph(); /* two heads of keys and values for four of queries; the result's rows first */
    hk_value *kv[2];
    for (int i = 0; i < 2; i++) {
        hk_value *x = reshape(g, input(g, i ? "v" : "k", SHAPE(2, 2, 5, 4)), SHAPE(2, 2, 1, 5, 4));
        x = node(g, "Expand", NULL, x, hk_graph_ints(g, (int64_t[]){2, 2, 2, 5, 4}, 5));
        kv[i] = reshape(g, x, SHAPE(2, 4, 5, 4));
    }
    s = node(g, "MatMul", NULL, input(g, "q", SHAPE(2, 4, 3, 4)), transpose(g, kv[0], swap_last));
    y = node(g, "MatMul", NULL, softmax(g, s), kv[1]);
    output(g, reshape(g, transpose(g, y, batch_second), SHAPE(6, 16)));
    assert_found(g, 3);
}

/* What looks like attention and is none, or is wanted for something else too. */
static void no_attention(void **state)
{
    (void)state;
    hk_graph *g = new_graph();
    hk_value *p = softmax(g, scores(g));
    output(g, weighed(g, p));
    output(g, p);
    assert_int_equal(left(g, hk_fuse_attention, "hk.Attention"), 0);

    g = new_graph(); /* the mask would be scaled */
    p = node(g, "Mul", NULL, node(g, "Add", NULL, scores(g), filled(g, SHAPE(5, 5), -0.3)), scalar(g, 0.5));
    output(g, weighed(g, softmax(g, p)));
    assert_int_equal(left(g, hk_fuse_attention, "hk.Attention"), 0);

    const hk_attr_value rows[] = {HK_SET_INT("axis", 2), {0}};
    g = new_graph();
    output(g, weighed(g, node(g, "Softmax", rows, scores(g), NULL)));
    assert_int_equal(left(g, hk_fuse_attention, "hk.Attention"), 0);

    g = new_graph(); /* a factor for each key is no scale */
    p = node(g, "Mul", NULL, scores(g), filled(g, SHAPE(5), 0.5));
    output(g, weighed(g, softmax(g, p)));
    assert_int_equal(left(g, hk_fuse_attention, "hk.Attention"), 0);
}

/* ---- operators that are others */

static hk_status nothing(hk_graph *g)
{
    (void)g;
    return HK_OK;
}

static hk_value *deepened(hk_graph *g, hk_value *x)
{
    const hk_attr_value attrs[] = {HK_SET_INT("blocksize", 2), {0}};
    return node(g, "DepthToSpace", attrs, x, NULL);
}

static void expansions(void **state)
{
    (void)state;
    hk_graph *g = new_graph();
    hk_value *y = deepened(g, input(g, "x", SHAPE(1, 8, 2, 3)));
    output(g, node(g, "Relu", NULL, y, NULL));
    output(g, y); /* what the expansion makes is the value itself, output and operand */
    assert_int_equal(left(g, nothing, NULL), 4);

    g = new_graph(); /* an expansion whose parts are expanded: two reshapes and a transpose each */
    output(g, deepened(g, deepened(g, input(g, "x", SHAPE(1, 16, 2, 3)))));
    assert_int_equal(left(g, nothing, "Transpose"), 2);

    g = new_graph(); /* into nothing: the input again, as a value of its own */
    hk_value *in[] = {input(g, "x", SHAPE(0, 3)), hk_graph_ints(g, (int64_t[]){0, 0, 0}, 3)};
    OK(hk_build(g, "ReverseSequence", NULL, in, 2, &y, 1));
    output(g, y);
    assert_int_equal(left(g, nothing, "Identity"), 1);

    g = new_graph(); /* not before its shape is known */
    y = deepened(g, input(g, "x", SHAPE(-1, 8, 2, 3)));
    output(g, y);
    OK(hk_infer_graph(g));
    assert_int_equal(g->node_count, 1);
    assert_string_equal(g->nodes[0]->type, "DepthToSpace");
    g->inputs[0]->shape.dim[0] = 5;
    const char *name = g->outputs[0]->name;
    OK(hk_infer_graph(g));
    assert_int_equal(g->node_count, 3);
    assert_string_equal(g->outputs[0]->name, name);
    assert_ptr_equal(g->outputs[0], y);
    hk_graph_destroy(&g);
}

/* ConvTranspose in two groups, with statistics behind it. */
static hk_graph *transposed_convolution(bool bias, hk_value **y)
{
    hk_graph *g = new_graph();
    const hk_attr_value attrs[] = {HK_SET_INTS("strides", ((int64_t[]){2, 2}), 2), HK_SET_INT("group", 2), {0}};
    hk_value *in[] = {input(g, "x", SHAPE(1, 4, 3, 2)), filled(g, SHAPE(4, 3, 2, 2), -0.4), filled(g, SHAPE(6), 0.1)};
    OK(hk_build(g, "ConvTranspose", attrs, in, bias ? 3 : 2, y, 1));
    return g;
}

static void transposed_convolutions(void **state)
{
    (void)state;
    for (int bias = 0; bias < 2; bias++) {
        hk_value *y, *out;
        hk_graph *g = transposed_convolution(bias, &y);
        hk_value *in[] = {y, filled(g, SHAPE(6), 0.5), filled(g, SHAPE(6), -0.2), filled(g, SHAPE(6), 0.3),
                          filled(g, SHAPE(6), 0.7)};
        OK(hk_build(g, "BatchNormalization", NULL, in, 5, &out, 1));
        output(g, out);
        assert_int_equal(left(g, hk_fold_batchnorm, NULL), 1);

        g = transposed_convolution(bias, &y);
        output(g, node(g, "Relu", NULL, node(g, "Add", NULL, y, filled(g, y->shape, -0.5)), NULL));
        assert_int_equal(left(g, hk_fuse_epilogues, NULL), 1);
    }
}

/* ---- squeeze-and-excitation */

static hk_graph *excitation(int64_t channels, int64_t squeezed, hk_value **between)
{
    hk_graph *g = new_graph();
    hk_value *x = node(g, "GlobalAveragePool", NULL, input(g, "x", SHAPE(2, channels, 5, 3)), NULL), *y = NULL;
    hk_value *first[] = {x, filled(g, SHAPE(squeezed, channels, 1, 1), -0.5), filled(g, SHAPE(squeezed), 0.1)};
    OK(hk_build(g, "Conv", NULL, first, 3, between, 1));
    *between = node(g, "Relu", NULL, *between, NULL);
    hk_value *second[] = {*between, filled(g, SHAPE(channels, squeezed, 1, 1), -0.4)};
    OK(hk_build(g, "Conv", NULL, second, 2, &y, 1));
    output(g, node(g, "Sigmoid", NULL, y, NULL));
    return g;
}

static hk_status fuse_excitation(hk_graph *g)
{
    OK(hk_fuse_epilogues(g));
    return hk_fuse_excitation(g);
}

static void excitations(void **state)
{
    (void)state;
    hk_value *between;
    assert_int_equal(left(excitation(16, 4, &between), fuse_excitation, "hk.Excite"), 1);
    assert_int_equal(left(excitation(12, 4, &between), fuse_excitation, "hk.Excite"), 0); /* no whole octets */
    assert_int_equal(left(excitation(16, 129, &between), fuse_excitation, "hk.Excite"), 0);
    hk_graph *g = excitation(16, 4, &between);
    output(g, between); /* somebody else wants it */
    assert_int_equal(left(g, fuse_excitation, "hk.Excite"), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(views),
        cmocka_unit_test(epilogues_through_views),
        cmocka_unit_test(formulas),
        cmocka_unit_test(attention),
        cmocka_unit_test(attention_in_windows),
        cmocka_unit_test(no_attention),
        cmocka_unit_test(copies),
        cmocka_unit_test(common),
        cmocka_unit_test(random_nodes_stay),
        cmocka_unit_test(pads),
        cmocka_unit_test(transposes),
        cmocka_unit_test(batchnorm),
        cmocka_unit_test(expansions),
        cmocka_unit_test(transposed_convolutions),
        cmocka_unit_test(excitations),
    };
    return test_main(argc, argv, &(test_program){.name = "passes", TESTS(tests), .device = TEST_HOST});
}

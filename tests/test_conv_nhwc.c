/*
 * Convolutions and their gradients in HK_LAYOUT_NHWC8, alone and in chains: each tile, whatever the device would
 * choose, and what a pass joins to a data gradient. The host's evaluation is the reference.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ops/support/conv_gather.h"
#include "ops/support/conv_lower.h"
#include "ops/support/conv_tile.h"
#include "runtime/cases.h"
#include "runtime/passes.h"
#include "tests/support/gpu.h"
#include "tests/support/records.h"

/* ---- chains in NHWC8 */

typedef struct layout_case {
    int64_t x[4], w[4];
    int64_t stride, dilation, pad_before, pad_after, activation;
    bool bias, residual, halves;
    const hk_nhwc_tile *tile; /* NULL: as the operator chooses */
    uint32_t splits;
    bool scale, sums; /* factors of x's channels; a second result, y summed along its rows */
} layout_case;

static hk_status lower_layout(hk_lower *l, void *user)
{
    const layout_case *c = user;
    const hk_node *n = l->node;
    const hk_conv_attrs *a = n->attrs;
    hk_problem_text problem;
    hk_conv_job job = {.x = n->in[0], .w = hk_in(n, 1), .y = n->out[0], .nhwc_tile = c->tile, .splits = c->splits};
    if (!hk_node_is(n, "hk.Conv") || !c->tile || !hk_nhwc_tile_fits(l, &job, c->tile))
        return n->op->lower(l);
    if (!hk_conv_resolve(a, &job.x->shape, &job.w->shape, &job.p, &problem))
        return HK_STATUS_INTERNAL;
    job.bias = hk_in(n, 2);
    job.residual = hk_in(n, 3);
    job.scale = hk_in(n, 4);
    job.activation = (uint32_t)a->activation;
    return hk_conv_lower_nhwc8(l, &job);
}

/* x -> NHWC8 -> conv -> contiguous, everything in between in the layout. */
static void run_layout_case(fixture *f, layout_case *c, bool gpu_tuning)
{
    hk_graph *g = NULL;
    assert_int_equal(hk_graph_create(f->ctx, "layout", &g), HK_OK);
    int64_t storage = c->halves ? HK_FLOAT16 : HK_DTYPE_NONE;
    const hk_attr_value to[] = {HK_SET_INT("layout", HK_LAYOUT_NHWC8), HK_SET_INT("storage", storage), {0}};
    const hk_attr_value pack[] = {HK_SET_INT("storage", storage), {0}};
    const int64_t pads[] = {c->pad_before, c->pad_before, c->pad_after, c->pad_after},
                  strides[] = {c->stride, c->stride}, dilations[] = {c->dilation, c->dilation};
    const hk_attr_value conv[] = {HK_SET_INTS("pads", pads, 4),           HK_SET_INTS("strides", strides, 2),
                                  HK_SET_INTS("dilations", dilations, 2), HK_SET_INT("activation", c->activation),
                                  HK_SET_INT("group", c->x[1] / c->w[1]), {0}};
    hk_value *x = test_node(g, "hk.Relayout", to, (hk_value *[]){test_input(g, "x", 4, c->x)}, 1);
    hk_value *in[5] = {x, test_input(g, "w", 4, c->w)}, *out[2] = {NULL, NULL};
    if (c->w[1] == c->x[1])
        in[1] = test_node(g, "hk.PackConvWeight", pack, &in[1], 1);
    if (c->bias)
        in[2] = test_input(g, "b", 1, c->w);
    if (c->scale)
        in[4] = test_input(g, "s", 4, (const int64_t[]){c->x[0], c->x[1], 1, 1});
    if (hk_build(g, "hk.Conv", conv, in, c->scale ? 5 : 3, out, c->sums ? 2 : 1) != HK_OK)
        fail_msg("%s", hk_context_error(g->ctx));
    hk_value *y = out[0];
    if (c->residual) {
        hk_value *first = y;
        in[3] = test_node(g, "hk.Relayout", to, (hk_value *[]){test_input(g, "r", 4, first->shape.dim)}, 1);
        y = test_node(g, "hk.Conv", conv, in, 4);
        first->layout = HK_LAYOUT_NHWC8;
        first->storage = (hk_dtype)storage;
    }
    y->layout = HK_LAYOUT_NHWC8;
    y->storage = (hk_dtype)storage;
    y = test_node(g, "hk.Relayout", NULL, &y, 1);
    assert_true(hk_graph_add_output(g, y) && (!c->sums || hk_graph_add_output(g, out[1])));
    hk_precision precision = c->tile ? HK_PRECISION_FAST : HK_PRECISION_STRICT;
    hk_records_run run = {.gpu_tuning = gpu_tuning, .precision = precision, .lower = lower_layout, .user = c};
    if (hk_test_records(f->gpu, g, &run) != HK_OK)
        fail_msg("%s", hk_context_error(f->ctx));
    /* the result is stored in half precision: 11 bits, 2^-12 at most, 1.4e-4 in the mean */
    if (!(run.error <= (c->halves ? 3e-4 : 5e-6)))
        fail_msg("x [%d,%d,%d,%d] w [%d,%d,%d,%d] %s, %s, %u splits: relative error %g", (int)c->x[0], (int)c->x[1],
                 (int)c->x[2], (int)c->x[3], (int)c->w[0], (int)c->w[1], (int)c->w[2], (int)c->w[3],
                 c->halves ? "f16" : "f32", c->tile ? c->tile->name : "-", (unsigned)c->splits, run.error);
    hk_graph_destroy(&g);
}

static void test_nhwc8(void **state)
{
    static const layout_case cases[] = {
        {{1, 8, 6, 6}, {8, 8, 3, 3}, 1, 1, 1, 1, 0, false, false, false, NULL, 1, false, false},
        {{2, 3, 9, 7}, {5, 3, 3, 3}, 1, 1, 1, 1, 1, true, false, false, NULL, 1, false, false},
        {{2, 13, 9, 8}, {17, 13, 1, 1}, 2, 1, 0, 0, 0, true, false, false, NULL, 1, false, false},
        {{1, 3, 17, 19}, {12, 3, 7, 7}, 2, 1, 3, 3, 1, true, true, false, NULL, 1, false, false},
        {{1, 20, 12, 11}, {9, 20, 3, 3}, 1, 2, 2, 1, 7, true, true, false, NULL, 1, false, false},
        {{3, 40, 14, 14}, {136, 40, 3, 3}, 1, 1, 1, 1, 1, true, true, false, NULL, 1, false, false},
        {{2, 19, 9, 11}, {19, 1, 3, 3}, 1, 1, 1, 1, 8, true, true, false, NULL, 1, false, false},
        {{1, 16, 13, 10}, {16, 1, 5, 5}, 2, 1, 1, 2, 0, false, false, false, NULL, 1, false, false},
        {{3, 12, 8, 17}, {12, 1, 3, 2}, 1, 2, 2, 1, 1, true, false, false, NULL, 1, false, false},
        {{2, 40, 9, 6}, {24, 40, 1, 1}, 1, 1, 0, 0, 7, true, false, false, NULL, 1, true, false},
        {{2, 24, 9, 11}, {24, 1, 3, 3}, 1, 1, 1, 1, 7, true, false, false, NULL, 1, false, true},
        {{1, 48, 5, 150}, {48, 1, 5, 5}, 2, 1, 2, 2, 1, true, false, false, NULL, 1, false, true},
    };
    for (size_t i = 0; i < HK_COUNT(cases); i++)
        for (int halves = 0; halves < 2; halves++)
            for (int gpu = 0; gpu < 2; gpu++) {
                layout_case c = cases[i];
                c.halves = halves;
                if (thorough() || !gpu || i % 4 == 1)
                    run_layout_case(*state, &c, gpu);
            }
}

/* Matrix units, emulated where the device has none: every tile (most are too large to be emulated), ragged and split.
 */
static void test_nhwc8_tiles(void **state)
{
    static const layout_case cases[] = {
        {{2, 40, 9, 7}, {75, 40, 3, 3}, 1, 1, 1, 1, 1, true, true, true, NULL, 3, false, false},
        {{2, 24, 9, 11}, {72, 24, 1, 1}, 2, 1, 0, 0, 7, true, false, true, NULL, 1, false, false},
        {{2, 104, 6, 7}, {40, 104, 1, 1}, 1, 1, 0, 0, 0, true, false, true, NULL, 2, true, false},
    };
    const fixture *f = *state;
    bool software = hk_gpu_info(f->gpu)->type == HK_DEVICE_SOFTWARE;
    size_t count;
    const hk_nhwc_tile *tiles = hk_nhwc_tiles(&count);
    for (size_t i = 0; i < HK_COUNT(cases); i++)
        for (size_t t = 0; t < count; t++) {
            layout_case c = cases[i];
            c.tile = &tiles[t];
            if (!software || tiles[t].bm * tiles[t].bn <= 64 * 32)
                run_layout_case(*state, &c, true);
        }
}

/* ---- gradients in the layout */

typedef struct gradient_case {
    int64_t x[4], w[4];
    int64_t stride_h, stride_w, dilation, pad_before, pad_after;
    bool more;  /* a residual and a gate, or the bias's gradient */
    bool plain; /* weight gradient: x contiguous */
    uint32_t splits;
    const hk_nhwc_tile *tile; /* NULL: as the operator chooses */
} gradient_case;

static hk_status lower_gradient(hk_lower *l, void *user)
{
    const gradient_case *c = user;
    const hk_node *n = l->node;
    bool data = hk_node_is(n, "hk.ConvDataGrad");
    hk_problem_text problem;
    const hk_shape xs = {.rank = 4, .dim = {c->x[0], c->x[1], c->x[2], c->x[3]}};
    const hk_shape ws = {.rank = 4, .dim = {c->w[0], c->w[1], c->w[2], c->w[3]}};
    if (!c->tile || !(data || hk_node_is(n, "hk.ConvWeightGrad")))
        return n->op->lower(l);
    hk_conv_job job = {.pass = data ? HK_CONV_DATA : HK_CONV_WEIGHT,
                       .x = data ? n->out[0] : n->in[0],
                       .w = data ? n->in[1] : n->out[0],
                       .y = data ? n->in[0] : n->in[1],
                       .bias = data ? NULL : hk_out(n, 1),
                       .residual = data ? hk_in(n, 2) : NULL,
                       .gate = data ? hk_in(n, 3) : NULL,
                       .nhwc_tile = c->tile,
                       .splits = c->splits};
    assert_true(hk_conv_resolve(n->attrs, &xs, &ws, &job.p, &problem));
    if (!(data ? hk_nhwc_tile_fits(l, &job, c->tile) : hk_nhwc_weight_tile_fits(l, c->tile)))
        return n->op->lower(l);
    return data ? hk_conv_lower_data_nhwc8(l, &job) : hk_conv_lower_weight_nhwc8(l, &job);
}

static hk_value *enter(hk_graph *g, const char *name, const int64_t *dims)
{
    const hk_attr_value to[] = {HK_SET_INT("layout", HK_LAYOUT_NHWC8), HK_SET_INT("storage", HK_FLOAT16), {0}};
    return test_node(g, "hk.Relayout", to, (hk_value *[]){test_input(g, name, 4, dims)}, 1);
}

static void build_gradient(hk_graph *g, const gradient_case *c, hk_conv_pass pass)
{
    const int64_t pads[] = {c->pad_before, c->pad_before, c->pad_after, c->pad_after},
                  strides[] = {c->stride_h, c->stride_w}, dilations[] = {c->dilation, c->dilation};
    const hk_attr_value attrs[] = {HK_SET_INTS("pads", pads, 4),
                                   HK_SET_INTS("strides", strides, 2),
                                   HK_SET_INTS("dilations", dilations, 2),
                                   pass == HK_CONV_DATA ? (hk_attr_value)HK_SET_INTS("input_shape", c->x + 2, 2)
                                                        : (hk_attr_value)HK_SET_INTS("kernel_shape", c->w + 2, 2),
                                   {0}};
    const hk_shape xs = {.rank = 4, .dim = {c->x[0], c->x[1], c->x[2], c->x[3]}};
    const hk_shape ws = {.rank = 4, .dim = {c->w[0], c->w[1], c->w[2], c->w[3]}};
    const hk_conv_attrs geometry = {.window = {.pads = {pads, 4}, .strides = {strides, 2}, .dilations = {dilations, 2}},
                                    .group = 1};
    hk_conv p;
    hk_problem_text problem;
    hk_value *out[2] = {NULL, NULL}, *in[4] = {NULL, NULL, NULL, NULL};
    assert_true(hk_conv_resolve(&geometry, &xs, &ws, &p, &problem));
    hk_shape ys = hk_window_shape(&p.w, p.n, p.k);
    hk_value *dy = enter(g, "dy", ys.dim);
    bool data = pass == HK_CONV_DATA;
    in[0] = data ? dy : c->plain ? test_input(g, "x", 4, c->x) : enter(g, "x", c->x);
    in[1] = data ? test_input(g, "w", 4, c->w) : dy;
    in[2] = data && c->more ? enter(g, "r", c->x) : NULL;
    in[3] = data && c->more ? enter(g, "gate", c->x) : NULL;
    if (hk_build(g, data ? "hk.ConvDataGrad" : "hk.ConvWeightGrad", attrs, in, in[2] ? 4 : 2, out,
                 !data && c->more ? 2 : 1) != HK_OK)
        fail_msg("%s", hk_context_error(g->ctx));
    const hk_node *node = out[0]->producer;
    assert_true(data ? hk_conv_data_grad_accepts_nhwc8(node) : hk_conv_weight_grad_accepts_nhwc8(node));
    if (data) {
        out[0]->layout = HK_LAYOUT_NHWC8;
        out[0]->storage = HK_FLOAT16;
        out[0] = test_node(g, "hk.Relayout", NULL, out, 1);
    }
    assert_true(hk_graph_add_output(g, out[0]) && (!out[1] || hk_graph_add_output(g, out[1])));
}

/* The host's operands are rounded to halves where the layout is entered, but for weights and a contiguous x; of the
 * results dX alone is. */
static void run_gradient_case(fixture *f, gradient_case *c, hk_conv_pass pass, hk_precision precision)
{
    hk_graph *g = NULL;
    assert_int_equal(hk_graph_create(f->ctx, "gradient", &g), HK_OK);
    build_gradient(g, c, pass);
    hk_records_run run = {.gpu_tuning = true, .precision = precision, .lower = lower_gradient, .user = c};
    if (hk_test_records(f->gpu, g, &run) != HK_OK)
        fail_msg("%s", hk_context_error(f->ctx));
    bool named = !c->tile;
    for (uint32_t i = 0; i < run.record_count && c->tile; i++)
        named |= !strcmp(run.variant[i], c->tile->name);
    if (!named && c->tile->bm * c->tile->bn <= 64 * 32 && hk_gpu_info(f->gpu)->max_shared_bytes >= 32768)
        fail_msg("%s was not taken", c->tile->name);
    if (!(run.error <= (pass == HK_CONV_DATA || c->plain ? 4e-4 : 3e-6)))
        fail_msg("pass %d, x [%d,%d,%d,%d] w [%d,%d,%d,%d] stride %d, %s, %u splits: '%s' has a relative error of %g",
                 (int)pass, (int)c->x[0], (int)c->x[1], (int)c->x[2], (int)c->x[3], (int)c->w[0], (int)c->w[1],
                 (int)c->w[2], (int)c->w[3], (int)c->stride_h, c->tile ? c->tile->name : "-", (unsigned)c->splits,
                 run.worst, run.error);
    hk_graph_destroy(&g);
}

/* Ragged channels and planes, strides (classes of dX's pixels, some without a tap), dilation, padding of one side and
 * more than the window's, single and several images. */
static const gradient_case gradient_cases[] = {
    {{2, 40, 9, 7}, {75, 40, 3, 3}, 1, 1, 1, 1, 1, true, false, 3, NULL},
    {{3, 24, 9, 11}, {72, 24, 1, 1}, 2, 2, 1, 0, 0, true, false, 2, NULL},
    {{1, 19, 13, 12}, {36, 19, 3, 3}, 2, 2, 1, 1, 1, false, false, 1, NULL},
    {{2, 16, 11, 10}, {24, 16, 3, 3}, 1, 1, 2, 2, 1, false, false, 2, NULL},
    {{2, 64, 6, 7}, {40, 64, 1, 1}, 1, 1, 1, 0, 0, false, false, 2, NULL},
    {{2, 64, 6, 7}, {40, 64, 1, 1}, 1, 1, 1, 0, 0, true, false, 1, NULL},
    {{1, 8, 9, 8}, {13, 8, 2, 3}, 3, 1, 1, 0, 2, true, false, 2, NULL},
    {{1, 9, 5, 6}, {10, 9, 1, 1}, 1, 1, 1, 1, 1, true, false, 1, NULL},
    {{2, 3, 17, 19}, {12, 3, 7, 7}, 2, 2, 1, 3, 3, true, true, 3, NULL},
    {{3, 10, 12, 11}, {20, 10, 3, 3}, 2, 3, 2, 2, 2, false, false, 2, NULL},
};

/* As the operators choose: on matrix units, which are emulated, and by the contiguous kernels where there are none. */
static void test_nhwc8_gradients(void **state)
{
    for (size_t i = 0; i < HK_COUNT(gradient_cases); i++)
        for (int pass = HK_CONV_DATA; pass <= HK_CONV_WEIGHT; pass++) {
            gradient_case c = gradient_cases[i];
            if (!thorough() && i % 3 != 1)
                continue;
            run_gradient_case(*state, &c, (hk_conv_pass)pass, HK_PRECISION_FAST);
            if (thorough() || i == 1)
                run_gradient_case(*state, &c, (hk_conv_pass)pass, HK_PRECISION_STRICT);
        }
}

/* Every tile that can be emulated, and two that have all subgroups along one side, as the large ones have. */
static void test_nhwc8_gradient_tiles(void **state)
{
    static const hk_nhwc_tile narrow[] = {{64, 32, 32, 4, 1, 1, "narrow 64x32x32"},
                                          {32, 64, 32, 1, 4, 1, "narrow 32x64x32"}};
    const fixture *f = *state;
    bool software = hk_gpu_info(f->gpu)->type == HK_DEVICE_SOFTWARE;
    for (int pass = HK_CONV_DATA; pass <= HK_CONV_WEIGHT; pass++) {
        size_t count;
        const hk_nhwc_tile *tiles = pass == HK_CONV_DATA ? hk_nhwc_tiles(&count) : hk_nhwc_weight_tiles(&count);
        for (size_t t = 0; t < count + HK_COUNT(narrow); t++) {
            const hk_nhwc_tile *tile = t < count ? &tiles[t] : &narrow[t - count];
            if (software && tile->bm * tile->bn > 64 * 32)
                continue;
            for (size_t i = 0; i < HK_COUNT(gradient_cases); i++) {
                gradient_case c = gradient_cases[i];
                c.tile = tile;
                if (thorough() || (t < count ? i == t % HK_COUNT(gradient_cases) : i % 2 == t % 2))
                    run_gradient_case(*state, &c, (hk_conv_pass)pass, HK_PRECISION_FAST);
            }
        }
    }
}

static hk_value *pack_result(hk_value *v)
{
    v->layout = HK_LAYOUT_NHWC8;
    v->storage = HK_FLOAT16;
    return v;
}

/* Three data gradients of a value: two meet in a sum behind which lies the gradient of Relu, and the third is added.
 * The pass leaves the three alone, with results as if it had not run. */
static void test_gradient_epilogues(void **state)
{
    fixture *f = *state;
    const int64_t dy[] = {2, 40, 5, 6}, x[] = {2, 12, 5, 6}, w[] = {40, 12, 3, 3}, pads[] = {1, 1, 1, 1};
    const hk_attr_value attrs[] = {HK_SET_INTS("pads", pads, 4), HK_SET_INTS("input_shape", x + 2, 2), {0}};
    for (int fused = 0; fused < 2; fused++) {
        hk_graph *g = NULL;
        hk_value *dx[3];
        assert_int_equal(hk_graph_create(f->ctx, "branches", &g), HK_OK);
        for (int i = 0; i < 3; i++) {
            hk_value *in[] = {enter(g, "dy", dy), test_input(g, "w", 4, w)};
            dx[i] = pack_result(test_node(g, "hk.ConvDataGrad", attrs, in, 2));
        }
        hk_value *sum = pack_result(test_node(g, "Add", NULL, (hk_value *[]){dx[0], dx[1]}, 2));
        sum = pack_result(test_node(g, "hk.ReluGrad", NULL, (hk_value *[]){sum, enter(g, "gate", x)}, 2));
        sum = pack_result(test_node(g, "Add", NULL, (hk_value *[]){sum, dx[2]}, 2));
        assert_true(hk_graph_add_output(g, test_node(g, "hk.Relayout", NULL, &sum, 1)));
        if (fused)
            assert_int_equal(hk_fuse_gradients(g), HK_OK);
        int32_t inputs = 0, elementwise = 0;
        for (size_t i = 0; i < g->node_count; i++) {
            inputs += hk_node_is(g->nodes[i], "hk.ConvDataGrad") ? g->nodes[i]->in_count : 0;
            elementwise += (g->nodes[i]->op->flags & HK_OP_POINTWISE) != 0;
        }
        assert_int_equal(inputs, fused ? 2 + 3 + 4 : 6);
        assert_int_equal(elementwise, fused ? 0 : 3);
        hk_records_run run = {.gpu_tuning = true, .precision = HK_PRECISION_FAST};
        if (fused && hk_test_records(f->gpu, g, &run) != HK_OK)
            fail_msg("%s", hk_context_error(f->ctx));
        assert_true(run.error <= 6e-4); /* three values and the weights are rounded to halves */
        hk_graph_destroy(&g);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nhwc8),
        cmocka_unit_test(test_nhwc8_tiles),
        cmocka_unit_test(test_nhwc8_gradients),
        cmocka_unit_test(test_nhwc8_gradient_tiles),
        cmocka_unit_test(test_gradient_epilogues),
    };
    int failed = cmocka_run_group_tests(tests, open_device, close_device);
    return failed == (int)HK_COUNT(tests) ? 77 : failed;
}

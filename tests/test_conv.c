/*
 * Convolution and pooling kernels that the device at hand would not choose by itself: every case of their operators
 * runs with a GPU's tuning, at full and at minimal limits, with few and with many compute units (splits), and whole
 * chains of operators run in HK_LAYOUT_NHWC8. The host's evaluation is the reference.
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

/* ---- all cases with another device's tuning */

enum { CONVOLUTIONS = 4 }; /* the first types */
static const char *const types[] = {
    "Conv",
    "hk.Conv",
    "hk.ConvDataGrad",
    "hk.ConvWeightGrad",
    "hk.SumChannels",
    "MaxPool",
    "AveragePool",
    "hk.MaxPoolGrad",
    "hk.AveragePoolGrad",
    "GlobalAveragePool",
    "hk.GlobalAveragePoolGrad",
    "GlobalMaxPool",
    "hk.GlobalMaxPoolGrad",
};

static void run_case(fixture *f, const hk_op *op, const char *text, hk_records_run run)
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
    if (st == HK_OK) {
        case_feeds(&g, &c, tensors, feeds);
        run.feeds = feeds;
        st = hk_test_records(f->gpu, g.graph, &run);
    }
    if (st != HK_OK)
        fail_msg("%s \"%s\": %s", op->type, text, hk_context_error(f->ctx));
    if (!(run.error <= c.tolerance))
        fail_msg("%s \"%s\", %u units, %u invocations, %s: output '%s' differs by %g", op->type, text, run.units,
                 run.max_invocations, run.record_count ? run.variant[0] : "no record", run.worst, run.error);
    hk_graph_destroy(&g.graph);
    hk_arena_destroy(&arena);
}

static void run_all_cases(fixture *f, size_t count, hk_records_run run)
{
    for (size_t i = 0; i < count; i++) {
        const hk_op *op = hk_op_find(NULL, types[i], 22, NULL);
        assert_non_null(op);
        for (size_t k = 0; op->cases[k]; k++)
            if (thorough() || k % 4 == 1)
                run_case(f, op, op->cases[k], run);
    }
}

/* What a GPU with few units and the specification's limits would run, and, convolutions only, what a large one would:
 * there the small problems are split. */
static void test_gpu_tuning_at_minimal_limits(void **state)
{
    const hk_records_run run = {.gpu_tuning = true, .units = 4, .max_invocations = 128, .max_shared_bytes = 16384};
    run_all_cases(*state, HK_COUNT(types), run);
}

static void test_gpu_tuning_with_many_units(void **state)
{
    if (thorough())
        run_all_cases(*state, CONVOLUTIONS, (hk_records_run){.gpu_tuning = true, .units = 4000});
}

/* ---- every tile of the matrix kernels, in every pass */

typedef struct tile_case {
    hk_conv p;
    hk_conv_pass pass;
    const hk_conv_tile *tile;
    uint32_t splits;
    bool units; /* matrix units instead, in precision high */
} tile_case;

static hk_status lower_tile(hk_lower *l, void *user)
{
    const tile_case *c = user;
    const hk_node *n = l->node;
    hk_conv_job job = {.p = c->p, .pass = c->pass, .tile = c->tile, .splits = c->splits};
    if (c->pass == HK_CONV_WEIGHT) {
        job.x = n->in[0];
        job.y = n->in[1];
        job.w = n->out[0];
        job.bias = n->out[1];
        return hk_conv_lower_weight(l, &job);
    }
    bool forward = c->pass == HK_CONV_FORWARD;
    job.x = forward ? n->in[0] : n->out[0];
    job.y = forward ? n->out[0] : n->in[0];
    job.w = n->in[1];
    job.bias = hk_in(n, 2);
    job.residual = hk_in(n, 3);
    job.activation = forward;
    hk_gather v = hk_gather_of(&job);
    return c->units && hk_conv_may_units(l, &job, &v) ? hk_conv_lower_units(l, &job, &v)
                                                      : hk_conv_lower_gather(l, &job);
}

typedef struct tile_shape {
    int64_t x[4], w[4], stride, pad;
} tile_shape;

static void run_tile(fixture *f, const tile_shape *s, tile_case c)
{
    hk_graph *g = NULL;
    hk_value *out[2] = {NULL, NULL};
    assert_int_equal(hk_graph_create(f->ctx, "tile", &g), HK_OK);
    const int64_t pads[] = {s->pad, s->pad, s->pad, s->pad}, strides[] = {s->stride, s->stride};
    const hk_attr_value window[] = {HK_SET_INTS("pads", pads, 4), HK_SET_INTS("strides", strides, 2)};
    const hk_attr_value forward[] = {window[0], window[1], HK_SET_INT("activation", 1), {0}};
    const hk_attr_value data[] = {window[0], window[1], HK_SET_INTS("input_shape", s->x + 2, 2), {0}};
    const hk_attr_value weight[] = {window[0], window[1], HK_SET_INTS("kernel_shape", s->w + 2, 2), {0}};
    const hk_shape xs = {.rank = 4, .dim = {s->x[0], s->x[1], s->x[2], s->x[3]}};
    const hk_shape ws = {.rank = 4, .dim = {s->w[0], s->w[1], s->w[2], s->w[3]}};
    const hk_conv_attrs attrs = {.window = {.pads = {pads, 4}, .strides = {strides, 2}}, .group = 1};
    hk_problem_text problem;
    assert_true(hk_conv_resolve(&attrs, &xs, &ws, &c.p, &problem));
    hk_shape ys = hk_window_shape(&c.p.w, c.p.n, c.p.k);
    hk_value *first = test_input(g, "first", 4, c.pass == HK_CONV_DATA ? ys.dim : xs.dim);
    hk_value *second = test_input(g, "second", 4, c.pass == HK_CONV_WEIGHT ? ys.dim : ws.dim);
    hk_value *in[4] = {first, second, NULL, NULL};
    if (c.pass == HK_CONV_FORWARD) {
        in[2] = test_input(g, "bias", 1, ws.dim);
        in[3] = test_input(g, "residual", 4, ys.dim);
    }
    static const char *const ops[] = {"hk.Conv", "hk.ConvDataGrad", "hk.ConvWeightGrad"};
    const hk_attr_value *values[] = {forward, data, weight};
    if (hk_build(g, ops[c.pass], values[c.pass], in, c.pass == HK_CONV_FORWARD ? 4 : 2, out,
                 c.pass == HK_CONV_WEIGHT ? 2 : 1) != HK_OK)
        fail_msg("%s", hk_context_error(f->ctx));
    for (int i = 0; i < 2 && out[i]; i++)
        assert_true(hk_graph_add_output(g, out[i]));
    hk_records_run run = {.gpu_tuning = true, .lower = lower_tile, .user = &c};
    if (c.units) {
        run.precision = HK_PRECISION_HIGH;
        run.repeats = run.warm_ms = 1;
    }
    if (hk_test_records(f->gpu, g, &run) != HK_OK)
        fail_msg("%s", hk_context_error(f->ctx));
    if (!(run.error <= 3e-6))
        fail_msg("%s, %u splits, %dx%d images, stride %d: relative error %g", run.variant[0], c.splits, (int)s->x[2],
                 (int)s->x[3], (int)s->stride, run.error);
    if (c.units && run.record_count && hk_gpu_info(f->gpu)->max_shared_bytes >= 32768)
        assert_non_null(strstr(run.variant[0], " high"));
    hk_graph_destroy(&g);
}

/* All tiles with a ragged problem and splits, forward with bias and residual; two of them with the other ways to read
 * and to store, unsplit. */
static void test_every_tile(void **state)
{
    static const tile_shape shapes[] = {
        {{3, 21, 9, 10}, {150, 21, 3, 3}, 1, 1},  /* ragged in every direction */
        {{2, 40, 12, 12}, {136, 40, 1, 1}, 1, 0}, /* read and stored by vectors */
        {{2, 19, 13, 12}, {140, 19, 3, 3}, 2, 1}, /* classes of pixels in the data gradient */
    };
    size_t count;
    const fixture *f = *state;
    const hk_lower limits = {.device = hk_gpu_info(f->gpu)};
    const hk_conv_tile *tiles = hk_conv_tiles(&count);
    for (int pass = HK_CONV_FORWARD; pass <= HK_CONV_WEIGHT; pass++) {
        tile_case c = {.pass = (hk_conv_pass)pass};
        for (size_t t = 0; t < count; t++) {
            if ((!thorough() && t > 0 && t + 2 < count) || !hk_conv_tile_fits(&limits, &tiles[t]) ||
                (pass == HK_CONV_WEIGHT && tiles[t].weight_rate <= 0))
                continue;
            c.tile = &tiles[t];
            c.splits = 3;
            run_tile(*state, &shapes[0], c);
            c.splits = 1;
            for (size_t i = 1; i < HK_COUNT(shapes) && (thorough() || t + 1 == count); i++)
                run_tile(*state, &shapes[i], c);
        }
    }
}

/* ---- Winograd's transforms, which small problems would not choose */

typedef struct winograd_case {
    hk_conv p;
    hk_conv_pass pass;
} winograd_case;

static hk_status lower_winograd(hk_lower *l, void *user)
{
    const hk_node *n = l->node;
    const winograd_case *c = user;
    hk_conv_job job = {.p = c->p, .pass = c->pass, .w = n->in[1]};
    bool forward = c->pass == HK_CONV_FORWARD;
    job.x = forward ? n->in[0] : n->out[0];
    job.y = forward ? n->out[0] : n->in[0];
    job.bias = hk_in(n, 2);
    job.residual = hk_in(n, 3);
    job.scale = hk_in(n, 4);
    job.activation = forward;
    return hk_conv_fits_winograd(&job) ? hk_conv_lower_winograd(l, &job) : HK_STATUS_INTERNAL;
}

/* s: n, c, h, w, k, pads */
static void run_winograd(fixture *f, const int64_t *s, hk_conv_pass pass, bool epilogue, hk_precision precision)
{
    const hk_shape xs = {.rank = 4, .dim = {s[0], s[1], s[2], s[3]}}, ws = {.rank = 4, .dim = {s[4], s[1], 3, 3}};
    const hk_conv_attrs geometry = {.window = {.pads = {s + 5, 4}}, .group = 1};
    const hk_attr_value pads = HK_SET_INTS("pads", s + 5, 4);
    const hk_attr_value forward[] = {pads, HK_SET_INT("activation", 1), {0}};
    const hk_attr_value data[] = {pads, HK_SET_INTS("input_shape", s + 2, 2), {0}};
    winograd_case c = {.pass = pass};
    hk_problem_text problem;
    hk_graph *g = NULL;
    assert_int_equal(hk_graph_create(f->ctx, "winograd", &g), HK_OK);
    assert_true(hk_conv_resolve(&geometry, &xs, &ws, &c.p, &problem));
    hk_shape ys = hk_window_shape(&c.p.w, c.p.n, c.p.k);
    hk_value *in[] = {test_input(g, "source", 4, pass == HK_CONV_DATA ? ys.dim : xs.dim), test_input(g, "w", 4, ws.dim),
                      NULL, NULL};
    if (epilogue) {
        in[2] = test_input(g, "bias", 1, &s[4]);
        in[3] = test_input(g, "residual", 4, ys.dim);
    }
    hk_value *y = pass == HK_CONV_DATA ? test_node(g, "hk.ConvDataGrad", data, in, 2)
                                       : test_node(g, "hk.Conv", forward, in, epilogue ? 4 : 2);
    assert_true(hk_graph_add_output(g, y));
    hk_records_run run = {.gpu_tuning = true, .lower = lower_winograd, .user = &c, .precision = precision};
    if (hk_test_records(f->gpu, g, &run) != HK_OK)
        fail_msg("%s", hk_context_error(f->ctx));
    if (!(run.error <= 2e-6))
        fail_msg("%s, %dx%d images, %d channels: relative error %g", run.variant[0], (int)s[2], (int)s[3], (int)s[1],
                 run.error);
    bool high = precision == HK_PRECISION_HIGH && hk_gpu_info(f->gpu)->max_shared_bytes >= 32768;
    assert_int_equal(run.record_count, 4);
    assert_true(!high || strstr(run.variant[2], " high"));
    hk_graph_destroy(&g);
}

static void test_winograd(void **state)
{
    static const int64_t shapes[][9] = {
        {2, 5, 9, 7, 11, 1, 1, 1, 1}, {1, 20, 8, 12, 16, 1, 1, 1, 1}, {3, 3, 6, 5, 4, 0, 2, 1, 0},
        {1, 33, 3, 3, 8, 0, 0, 0, 0}, {1, 4, 10, 8, 6, 1, 1, 1, 1}, /* whole rows of tiles, with bias and residual */
    };
    for (size_t i = 0; i < HK_COUNT(shapes); i++) {
        run_winograd(*state, shapes[i], HK_CONV_FORWARD, i % 2 == 0, HK_PRECISION_STRICT);
        run_winograd(*state, shapes[i], HK_CONV_DATA, false, HK_PRECISION_STRICT);
    }
    static const int64_t wide[] = {2, 36, 15, 17, 40, 1, 1, 1, 1}; /* matrix units take products from 32 on */
    run_winograd(*state, wide, HK_CONV_FORWARD, true, HK_PRECISION_HIGH);
    run_winograd(*state, wide, HK_CONV_DATA, false, HK_PRECISION_HIGH);
}

/* The maximum's gradient against indices that really are maxima, and the global one against real rows. */
static void test_pool_gradients_in_chains(void **state)
{
    fixture *f = *state;
    static const int64_t dims[] = {2, 3, 12, 8}, ones[] = {2, 3, 1, 1};
    static const int64_t kernels[][2] = {{2, 2}, {3, 3}}, strides[] = {2, 2}, extents[] = {12, 8};
    for (int words = 1; words <= 2; words++)
        for (size_t k = 0; k < HK_COUNT(kernels); k++) {
            hk_graph *g = NULL;
            assert_int_equal(hk_graph_create(f->ctx, "pool", &g), HK_OK);
            const hk_attr_value pool[] = {
                HK_SET_INTS("kernel_shape", kernels[k], 2), HK_SET_INTS("strides", strides, 2), {0}};
            const hk_attr_value gradient[] = {pool[0], pool[1], HK_SET_INTS("input_shape", extents, 2), {0}};
            hk_value *x = test_input(g, "x", 4, dims), *y[2], *pooled, *row;
            assert_int_equal(hk_build(g, "MaxPool", pool, &x, 1, y, 2), HK_OK);
            if (words == 1)
                y[1]->storage = HK_INT32;
            hk_value *dy = test_input(g, "dy", 4, y[0]->shape.dim);
            pooled = test_node(g, "hk.MaxPoolGrad", gradient, (hk_value *[]){dy, y[1]}, 2);
            row = test_node(g, "GlobalMaxPool", NULL, &x, 1);
            row = test_node(g, "hk.GlobalMaxPoolGrad", NULL, (hk_value *[]){x, row, test_input(g, "dz", 4, ones)}, 3);
            assert_true(hk_graph_add_output(g, y[0]) && hk_graph_add_output(g, pooled) && hk_graph_add_output(g, row));
            hk_records_run run = {.gpu_tuning = k == 1};
            if (hk_test_records(f->gpu, g, &run) != HK_OK)
                fail_msg("%s", hk_context_error(f->ctx));
            assert_true(run.error <= 1e-7);
            hk_graph_destroy(&g);
        }
}

/* Matrix units, emulated where the device has none: strides, edges, an odd plane, splits of K; the data gradient's
 * classes. */
static void test_units(void **state)
{
    const tile_shape shape = {{2, 36, 13, 11}, {100, 36, 3, 3}, 2, 1};
    const hk_conv_pass passes[] = {HK_CONV_FORWARD, HK_CONV_DATA};
    for (size_t i = 0; i < HK_COUNT(passes); i++)
        run_tile(*state, &shape, (tile_case){.pass = passes[i], .units = true});
}

/* Single taps in precision high: images side by side as the columns of one product, whole vectors and odd planes, and
 * the data gradient. */
static void test_points_on_units(void **state)
{
    fixture *f = *state;
    static const int64_t shapes[][6] = {
        {8, 256, 6, 6, 32, 1}, {8, 256, 5, 7, 32, 1}, {8, 256, 13, 11, 32, 2}, {1, 256, 33, 31, 32, 2}};
    for (size_t i = 0; i < HK_COUNT(shapes); i++)
        for (int transposed = 0; transposed < (shapes[i][5] == 1 ? 2 : 1); transposed++) {
            const int64_t *s = shapes[i], x[] = {s[0], s[1], s[2], s[3]}, strides[] = {s[5], s[5]};
            const hk_attr_value attrs[] = {HK_SET_INTS("strides", strides, 2), {0}};
            const int64_t w[] = {transposed ? s[1] : s[4], transposed ? s[4] : s[1], 1, 1};
            hk_graph *g = NULL;
            assert_int_equal(hk_graph_create(f->ctx, "points", &g), HK_OK);
            hk_value *in[] = {test_input(g, "x", 4, x), test_input(g, "w", 4, w), test_input(g, "bias", 1, &s[4])};
            hk_value *y = test_node(g, transposed ? "ConvTranspose" : "Conv", attrs, in, 3);
            assert_true(hk_graph_add_output(g, y));
            /* On few units a product this small is worth its operands' splitting. */
            hk_records_run run = {.gpu_tuning = true, .precision = HK_PRECISION_HIGH, .units = 1};
            if (hk_test_records(f->gpu, g, &run) != HK_OK)
                fail_msg("%s", hk_context_error(f->ctx));
            if (!(run.error <= 2e-6))
                fail_msg("shape %zu, transposed %d: relative error %g", i, transposed, run.error);
            if (hk_gpu_info(f->gpu)->max_shared_bytes >= 32768)
                assert_non_null(strstr(run.variant[2], " high")); /* both operands are split before */
            hk_graph_destroy(&g);
        }
}

/* Weight gradients on matrix units, with and without the bias's: strides, edges, groups, single taps read four pixels
 * at once, splits of the pixels. Operands are rounded to halves, 2^-12 each. */
static void test_weight_units(void **state)
{
    static const struct {
        int64_t x[4], y[4], kernel, stride, pad, group;
    } cases[] = {
        {{2, 36, 7, 6}, {2, 40, 4, 3}, 3, 2, 1, 1},    {{3, 40, 8, 6}, {3, 70, 8, 6}, 1, 1, 0, 1},
        {{2, 64, 5, 5}, {2, 72, 5, 5}, 3, 1, 1, 2},    {{5, 33, 2, 2}, {5, 34, 2, 2}, 1, 1, 0, 1},
        {{1, 8, 40, 37}, {1, 32, 20, 19}, 3, 2, 1, 1},
    };
    fixture *f = *state;
    for (size_t i = 0; i < HK_COUNT(cases); i++) {
        const int64_t *x = cases[i].x, *y = cases[i].y, kernel = cases[i].kernel, stride = cases[i].stride,
                      pad = cases[i].pad;
        const int64_t pads[] = {pad, pad, pad, pad}, strides[] = {stride, stride}, window[] = {kernel, kernel};
        const hk_attr_value attrs[] = {HK_SET_INTS("pads", pads, 4),
                                       HK_SET_INTS("strides", strides, 2),
                                       HK_SET_INTS("kernel_shape", window, 2),
                                       HK_SET_INT("group", cases[i].group),
                                       {0}};
        bool alone = i == 1;
        hk_graph *g = NULL;
        hk_value *out[2];
        assert_int_equal(hk_graph_create(f->ctx, "units", &g), HK_OK);
        hk_value *in[] = {test_input(g, "x", 4, x), test_input(g, "dy", 4, y)};
        assert_int_equal(hk_build(g, "hk.ConvWeightGrad", attrs, in, 2, out, alone ? 1 : 2), HK_OK);
        assert_true(hk_graph_add_output(g, out[0]) && (alone || hk_graph_add_output(g, out[1])));
        hk_records_run run = {.gpu_tuning = true, .precision = HK_PRECISION_FAST, .repeats = 1, .warm_ms = 1};
        if (hk_test_records(f->gpu, g, &run) != HK_OK)
            fail_msg("%s", hk_context_error(f->ctx));
        print_message("%s: relative error %.1e\n", run.record_count ? run.variant[0] : "-", run.error);
        if (!(run.error <= 1e-3))
            fail_msg("case %zu: relative error %g", i, run.error);
        if (run.record_count && hk_gpu_info(f->gpu)->max_shared_bytes >= 32768)
            assert_non_null(strstr(run.variant[0], "conv weight matrix"));
        hk_graph_destroy(&g);
    }
}

/* The weight gradient of single taps in precision high: a product over the pixels of all images, odd planes and strided
 * ones, whose operands lie in halves. */
static void test_weight_points_on_units(void **state)
{
    static const int64_t shapes[][6] = {{3, 40, 8, 6, 70, 1}, {3, 64, 7, 5, 34, 1}, {3, 40, 9, 11, 64, 2}};
    fixture *f = *state;
    for (size_t i = 0; i < HK_COUNT(shapes); i++) {
        const int64_t *s = shapes[i], step = s[5], strides[] = {step, step}, window[] = {1, 1};
        const int64_t x[] = {s[0], s[1], s[2], s[3]},
                      y[] = {s[0], s[4], (s[2] + step - 1) / step, (s[3] + step - 1) / step};
        const hk_attr_value attrs[] = {HK_SET_INTS("strides", strides, 2), HK_SET_INTS("kernel_shape", window, 2), {0}};
        hk_graph *g = NULL;
        assert_int_equal(hk_graph_create(f->ctx, "points", &g), HK_OK);
        hk_value *in[] = {test_input(g, "x", 4, x), test_input(g, "dy", 4, y)};
        assert_true(hk_graph_add_output(g, test_node(g, "hk.ConvWeightGrad", attrs, in, 2)));
        hk_records_run run = {
            .gpu_tuning = true, .precision = HK_PRECISION_HIGH, .units = 1, .repeats = 1, .warm_ms = 1};
        if (hk_test_records(f->gpu, g, &run) != HK_OK)
            fail_msg("%s", hk_context_error(f->ctx));
        if (!(run.error <= 2e-6))
            fail_msg("shape %zu: relative error %g", i, run.error);
        if (run.record_count && hk_gpu_info(f->gpu)->max_shared_bytes >= 32768)
            assert_non_null(strstr(run.variant[2], " high"));
        hk_graph_destroy(&g);
    }
}

static hk_status lower_weight_winograd(hk_lower *l, void *user)
{
    const hk_node *n = l->node;
    hk_conv_job job = {
        .p = *(const hk_conv *)user, .pass = HK_CONV_WEIGHT, .x = n->in[0], .y = n->in[1], .w = n->out[0]};
    return hk_conv_weight_fits_winograd(l, &job) ? hk_conv_lower_weight_winograd(l, &job)
                                                 : hk_conv_lower_weight(l, &job);
}

/* The weight gradient by Winograd's transforms: channels and tiles that fill no block, edges, padding. */
static void test_weight_winograd(void **state)
{
    static const int64_t shapes[][9] = {{7, 34, 9, 6, 45, 1, 1, 1, 1}, {2, 32, 21, 19, 33, 0, 2, 1, 0}};
    fixture *f = *state;
    for (size_t i = 0; i < HK_COUNT(shapes); i++) {
        const int64_t *s = shapes[i], window[] = {3, 3};
        const hk_shape xs = {.rank = 4, .dim = {s[0], s[1], s[2], s[3]}}, ws = {.rank = 4, .dim = {s[4], s[1], 3, 3}};
        const hk_conv_attrs geometry = {.window = {.pads = {s + 5, 4}}, .group = 1};
        const hk_attr_value attrs[] = {HK_SET_INTS("pads", s + 5, 4), HK_SET_INTS("kernel_shape", window, 2), {0}};
        hk_conv p;
        hk_problem_text problem;
        hk_graph *g = NULL;
        assert_int_equal(hk_graph_create(f->ctx, "winograd", &g), HK_OK);
        assert_true(hk_conv_resolve(&geometry, &xs, &ws, &p, &problem));
        hk_shape ys = hk_window_shape(&p.w, p.n, p.k);
        hk_value *in[] = {test_input(g, "x", 4, xs.dim), test_input(g, "dy", 4, ys.dim)};
        assert_true(hk_graph_add_output(g, test_node(g, "hk.ConvWeightGrad", attrs, in, 2)));
        hk_records_run run = {.gpu_tuning = true,
                              .precision = HK_PRECISION_HIGH,
                              .lower = lower_weight_winograd,
                              .user = &p,
                              .repeats = 1,
                              .warm_ms = 1};
        if (hk_test_records(f->gpu, g, &run) != HK_OK)
            fail_msg("%s", hk_context_error(f->ctx));
        print_message("%s: relative error %.1e\n", run.record_count ? run.variant[0] : "-", run.error);
        if (!(run.error <= 3e-6))
            fail_msg("shape %zu: relative error %g", i, run.error);
        if (run.record_count && hk_gpu_info(f->gpu)->max_shared_bytes >= 32768)
            assert_non_null(strstr(run.variant[2], " high"));
        hk_graph_destroy(&g);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpu_tuning_at_minimal_limits),
        cmocka_unit_test(test_gpu_tuning_with_many_units),
        cmocka_unit_test(test_every_tile),
        cmocka_unit_test(test_winograd),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_points_on_units),
        cmocka_unit_test(test_weight_units),
        cmocka_unit_test(test_weight_points_on_units),
        cmocka_unit_test(test_weight_winograd),
        cmocka_unit_test(test_pool_gradients_in_chains),
    };
    int failed = cmocka_run_group_tests(tests, open_device, close_device);
    return failed == (int)HK_COUNT(tests) ? 77 : failed;
}

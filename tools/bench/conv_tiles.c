/*
 * Times every tile of the convolution matrix kernel, with several numbers of splits, for forward convolutions given as
 * lines "n c h w k r s stride pad" on standard input; last Winograd's transforms and what the library would choose. The
 * figures behind the rates in ops/support/conv_tile.c:
 *
 *     conv_tiles [MOST_SPLITS] < LAYERS
 *     conv_tiles MOST_SPLITS fast < LAYERS
 *
 *     conv_tiles MOST_SPLITS fast data < LAYERS
 *     conv_tiles MOST_SPLITS fast weight < LAYERS
 *
 * The second form does so for 16-bit operands in HK_LAYOUT_NHWC8 and the rates in ops/support/conv_nhwc.c; the others
 * for the gradients in that layout, of the data with the dispatch that turns the weights left out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/support/conv_lower.h"
#include "ops/support/conv_tile.h"
#include "tests/support/records.h"

typedef struct layer {
    int n, c, h, w, k, r, s, stride, pad;
} layer;

typedef struct trial {
    uint32_t splits; /* 0: the library's choice */
    size_t first;    /* record */
} trial;

enum { TRIALS = 96 };

typedef struct bench {
    hk_conv p;
    hk_conv_pass pass;
    uint32_t most_splits;
    bool fast;
    trial trials[TRIALS];
    size_t count;
} bench;

/* Tiles worth a measurement that the library does not choose among (yet). */
static const hk_conv_tile more_tiles[] = {
    {64, 128, 24, 8, 8, 1, 1, 1, 0, "more 64x128x24", "", ""},
    {64, 128, 32, 8, 8, 1, 1, 1, 0, "more 64x128x32", "", ""},
    {64, 128, 16, 8, 4, 1, 1, 1, 0, "more 64x128x16 8x4", "", ""},
    {64, 256, 16, 8, 8, 1, 1, 1, 0, "more 64x256x16", "", ""},
    {128, 64, 16, 8, 8, 1, 1, 1, 0, "more 128x64x16", "", ""},
    {128, 128, 16, 8, 8, 1, 1, 1, 0, "more 128x128x16", "", ""},
    {32, 128, 16, 8, 4, 2, 1, 1, 0, "more 32x128x16 2-stage", "", ""},
    {64, 64, 16, 8, 4, 2, 1, 1, 0, "more 64x64x16 2-stage", "", ""},
};

static hk_status lower_trial(hk_lower *l, bench *b, const hk_conv_tile *tile, uint32_t splits)
{
    const hk_node *n = l->node;
    hk_conv_job job = {.p = b->p, .pass = HK_CONV_FORWARD, .tile = tile, .splits = splits};
    if (b->count == TRIALS)
        return HK_OK;
    b->trials[b->count++] = (trial){splits, l->record_count - 1};
    job.x = n->in[0];
    job.w = n->in[1];
    job.y = n->out[0];
    return hk_conv_lower_gather(l, &job);
}

static hk_status lower_tile(hk_lower *l, bench *b, const hk_conv_tile *tile)
{
    if (!hk_conv_tile_fits(l, tile))
        return HK_OK;
    for (uint32_t splits = 1; splits <= b->most_splits; splits *= 2)
        HK_TRY(lower_trial(l, b, tile, splits));
    return HK_OK;
}

static hk_status lower_winograd(hk_lower *l, bench *b)
{
    const hk_node *n = l->node;
    hk_conv_job job = {.p = b->p, .pass = HK_CONV_FORWARD, .x = n->in[0], .w = n->in[1], .y = n->out[0]};
    if (b->count == TRIALS || !hk_conv_fits_winograd(&job))
        return HK_OK;
    b->trials[b->count++] = (trial){1, l->record_count - 1};
    return hk_conv_lower_winograd(l, &job);
}

/* The job of a pass, whose node's inputs and output these are. */
static hk_conv_job job_of(const bench *b, const hk_node *n)
{
    hk_conv_job job = {.p = b->p, .pass = b->pass};
    job.x = b->pass == HK_CONV_DATA ? n->out[0] : n->in[0];
    job.w = b->pass == HK_CONV_WEIGHT ? n->out[0] : n->in[1];
    job.y = b->pass == HK_CONV_FORWARD ? n->out[0] : b->pass == HK_CONV_DATA ? n->in[0] : n->in[1];
    return job;
}

static hk_status lower_pass(hk_lower *l, const hk_conv_job *job)
{
    return job->pass == HK_CONV_FORWARD ? hk_conv_lower_nhwc8(l, job)
           : job->pass == HK_CONV_DATA  ? hk_conv_lower_data_nhwc8(l, job)
                                        : hk_conv_lower_weight_nhwc8(l, job);
}

static hk_status lower_fast(hk_lower *l, bench *b)
{
    bool weight = b->pass == HK_CONV_WEIGHT;
    size_t count, before = b->pass == HK_CONV_DATA ? 1 : 2; /* records of the operands' relayouts */
    const hk_nhwc_tile *tiles = weight ? hk_nhwc_weight_tiles(&count) : hk_nhwc_tiles(&count);
    hk_conv_job job = job_of(b, l->node);
    for (size_t i = 0; i <= count; i++) {
        const hk_nhwc_tile *t = job.nhwc_tile = i < count ? &tiles[i] : NULL;
        if (t && !(weight ? hk_nhwc_weight_tile_fits(l, t) : hk_nhwc_tile_fits(l, &job, t)))
            continue;
        for (job.splits = 1; b->count < TRIALS && job.splits <= b->most_splits; job.splits *= 2) {
            b->trials[b->count++] = (trial){i < count ? job.splits : 0, before + l->record_count - 1};
            HK_TRY(lower_pass(l, &job));
            if (i == count)
                break;
        }
    }
    return HK_OK;
}

static hk_status lower_all(hk_lower *l, void *user)
{
    const bench *b = user;
    bool moves = hk_node_is(l->node, "hk.Relayout") || hk_node_is(l->node, "hk.PackConvWeight");
    if (b->fast)
        return moves ? l->node->op->lower(l) : lower_fast(l, user);
    size_t count;
    const hk_conv_tile *tiles = hk_conv_tiles(&count);
    for (size_t i = 0; i < count; i++)
        HK_TRY(lower_tile(l, user, &tiles[i]));
    for (size_t i = 0; i < HK_COUNT(more_tiles); i++)
        HK_TRY(lower_tile(l, user, &more_tiles[i]));
    HK_TRY(lower_winograd(l, user));
    return lower_trial(l, user, NULL, 0);
}

static hk_value *input(hk_graph *g, const char *name, const hk_shape *shape)
{
    hk_value *v = hk_graph_value(g, name, HK_VALUE_INPUT, HK_FLOAT32, shape);
    return v && hk_graph_add_input(g, v) ? v : NULL;
}

static hk_status relayout(hk_graph *g, const hk_attr_value *attrs, hk_value **v)
{
    return hk_build(g, "hk.Relayout", attrs, v, 1, v, 1);
}

/* in: the operands of the pass. */
static hk_status build_layer(hk_graph *g, const bench *b, const hk_attr_value *attrs, hk_value **in, hk_value **out)
{
    static const char *const ops[] = {"hk.Conv", "hk.ConvDataGrad", "hk.ConvWeightGrad"};
    const hk_attr_value to[] = {HK_SET_INT("layout", HK_LAYOUT_NHWC8), HK_SET_INT("storage", HK_FLOAT16), {0}};
    if (!b->fast)
        return hk_build(g, "Conv", attrs, in, 2, out, 1);
    HK_TRY(relayout(g, to, &in[0]));
    if (b->pass == HK_CONV_WEIGHT)
        HK_TRY(relayout(g, to, &in[1]));
    else if (b->pass == HK_CONV_FORWARD)
        HK_TRY(hk_build(g, "hk.PackConvWeight", to + 1, &in[1], 1, &in[1], 1));
    HK_TRY(hk_build(g, ops[b->pass], attrs, in, 2, out, 1));
    if (b->pass == HK_CONV_WEIGHT)
        return HK_OK;
    (*out)->layout = HK_LAYOUT_NHWC8;
    (*out)->storage = HK_FLOAT16;
    return relayout(g, NULL, out);
}

/* What the trial's records take but for changes of layout, and the first of the others. */
static double time_trial(const hk_records_run *run, size_t from, size_t to, size_t *first)
{
    double ns = 0;
    *first = to;
    for (size_t k = from; k < to; k++) {
        if (!strcmp(run->variant[k], "to NHWC8"))
            continue;
        *first = HK_MIN(*first, k);
        ns += run->ns[k];
    }
    return ns;
}

static void print_trials(const bench *b, const layer *a, const hk_records_run *run)
{
    size_t last = run->record_count - (b->fast && b->pass != HK_CONV_WEIGHT ? 1 : 0);
    for (size_t i = 0; i < b->count; i++) {
        size_t to = i + 1 < b->count ? b->trials[i + 1].first : last, first;
        double ns = time_trial(run, b->trials[i].first, to, &first);
        printf("%d,%d,%d,%d,%d,%d,%d,%d,%d %-32s splits %2u %9.2f us (second %6.2f) %7.2f TFLOP/s%s\n", a->n, a->c,
               a->h, a->w, a->k, a->r, a->s, a->stride, a->pad, run->variant[first], b->trials[i].splits, ns * 1e-3,
               to > first + 1 ? run->ns[first + 1] * 1e-3 : 0.0, hk_conv_flops(&b->p) / ns * 1e-3,
               i + 1 < b->count ? "" : " CHOSEN");
    }
}

static hk_status time_layer(hk_context *ctx, hk_gpu *gpu, const layer *a, bench b, float *numbers)
{
    const int64_t pads[] = {a->pad, a->pad, a->pad, a->pad}, strides[] = {a->stride, a->stride};
    const int64_t extents[] = {a->h, a->w}, kernel[] = {a->r, a->s};
    const hk_attr_value attrs[] = {HK_SET_INTS("pads", pads, 4),
                                   HK_SET_INTS("strides", strides, 2),
                                   b.pass == HK_CONV_DATA ? (hk_attr_value)HK_SET_INTS("input_shape", extents, 2)
                                                          : (hk_attr_value)HK_SET_INTS("kernel_shape", kernel, 2),
                                   {0}};
    const hk_conv_attrs geometry = {.window = {.pads = {pads, 4}, .strides = {strides, 2}}, .group = 1};
    const hk_shape xs = {.rank = 4, .dim = {a->n, a->c, a->h, a->w}}, ws = {.rank = 4, .dim = {a->k, a->c, a->r, a->s}};
    hk_problem_text problem;
    hk_graph *g = NULL;
    hk_value *out = NULL;
    if (!hk_conv_resolve(&geometry, &xs, &ws, &b.p, &problem))
        return hk_fail(ctx, HK_STATUS_INVALID, "%s", problem.text);
    hk_shape ys = hk_window_shape(&b.p.w, b.p.n, b.p.k), first = b.pass == HK_CONV_DATA ? ys : xs,
             second = b.pass == HK_CONV_WEIGHT ? ys : ws;
    HK_TRY(hk_graph_create(ctx, "layer", &g));
    hk_value *in[2] = {input(g, "first", &first), input(g, "second", &second)};
    hk_tensor tensors[2] = {{.dtype = HK_FLOAT32, .rank = 4, .data = numbers},
                            {.dtype = HK_FLOAT32, .rank = 4, .data = numbers}};
    memcpy(tensors[0].shape, first.dim, 4 * sizeof *first.dim);
    memcpy(tensors[1].shape, second.dim, 4 * sizeof *second.dim);
    const hk_tensor *feeds[] = {&tensors[0], &tensors[1]};
    hk_records_run run = {.gpu_tuning = true, .repeats = 10, .warm_ms = 3, .no_host = true, .lower = lower_all};
    run.feeds = feeds;
    run.user = &b;
    run.precision = b.fast ? HK_PRECISION_FAST : HK_PRECISION_STRICT;
    hk_status st = build_layer(g, &b, attrs, in, &out);
    if (st == HK_OK)
        st = hk_graph_add_output(g, out) ? hk_test_records(gpu, g, &run) : hk_out_of_memory(ctx, "a layer");
    if (st == HK_OK)
        print_trials(&b, a, &run);
    hk_graph_destroy(&g);
    return st;
}

enum { NUMBERS = 1 << 28 }; /* the most elements of an operand */

int main(int argc, char **argv)
{
    hk_context *ctx = NULL;
    hk_gpu *gpu = NULL;
    layer a;
    float *numbers = malloc(NUMBERS * sizeof *numbers);
    bench b = {.most_splits = argc > 1 ? (uint32_t)atoi(argv[1]) : 1, .fast = argc > 2 && !strcmp(argv[2], "fast")};
    if (b.fast && argc > 3)
        b.pass = !strcmp(argv[3], "data")     ? HK_CONV_DATA
                 : !strcmp(argv[3], "weight") ? HK_CONV_WEIGHT
                                              : HK_CONV_FORWARD;
    if (!numbers || hk_context_create(NULL, &ctx) != HK_OK)
        return 71;
    uint32_t state = 1;
    for (size_t i = 0; i < NUMBERS; i++) {
        state = state * 1664525u + 1013904223u;
        numbers[i] = (float)(int32_t)state * 0x1p-31f;
    }
    hk_status st = hk_gpu_open(ctx, NULL, &gpu);
    while (st == HK_OK &&
           scanf("%d %d %d %d %d %d %d %d %d", &a.n, &a.c, &a.h, &a.w, &a.k, &a.r, &a.s, &a.stride, &a.pad) == 9) {
        st = time_layer(ctx, gpu, &a, b, numbers);
        fflush(stdout);
    }
    if (st != HK_OK)
        fprintf(stderr, "conv_tiles: %s\n", hk_context_error(ctx));
    hk_gpu_close(&gpu);
    hk_context_destroy(&ctx);
    free(numbers);
    return hk_status_exit_code(st);
}

/* NonMaxSuppression: of boxes that overlap, the one with the best score. How many stay depends on data, so it runs on
 * the host, like the standard in the order of batch, class and falling score. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>

#include "ops/support/move_args.h"

typedef struct nms_attrs {
    int64_t center_point_box;
} nms_attrs;
static const hk_attr attr_list[] = {HK_INT_ATTR(nms_attrs, center_point_box, 0), {0}};

enum { BOXES, SCORES, MOST, IOU, SCORE };

static hk_status check_scalar(hk_infer *in, int32_t i, hk_dtype dtype, const char *what)
{
    const hk_value *v = hk_in(in->node, i);
    if (v && (v->dtype != dtype || (hk_shape_known(&v->shape) && hk_shape_count(&v->shape) != 1)))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected the %s '%s' as one %s", what, v->name,
                             hk_dtype_name(dtype));
    return HK_OK;
}

static hk_status infer(hk_infer *in)
{
    const hk_value *boxes = in->node->in[BOXES], *scores = in->node->in[SCORES];
    const hk_shape *b = &boxes->shape, *s = &scores->shape;
    const hk_shape y = {.rank = 2, .dim = {-1, 3}};
    hk_shape_text found, other;
    bool fits = boxes->dtype == HK_FLOAT32 && scores->dtype == HK_FLOAT32;
    fits = fits && (b->rank < 0 || (b->rank == 3 && (b->dim[2] < 0 || b->dim[2] == 4)));
    fits = fits && (s->rank < 0 || s->rank == 3);
    for (int32_t d = 0; fits && d < 2 && b->rank >= 0 && s->rank >= 0; d++) {
        int64_t x = b->dim[d], other_extent = s->dim[2 * d]; /* batch, then boxes */
        fits = x < 0 || other_extent < 0 || x == other_extent;
    }
    if (!fits)
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "expected float32 boxes (batch, boxes, 4) and scores (batch, classes, boxes), found %s "
                             "and %s",
                             hk_shape_print(b, &found), hk_shape_print(s, &other));
    HK_TRY(check_scalar(in, MOST, HK_INT64, "number of boxes"));
    HK_TRY(check_scalar(in, IOU, HK_FLOAT32, "overlap threshold"));
    HK_TRY(check_scalar(in, SCORE, HK_FLOAT32, "score threshold"));
    return hk_infer_output(in, 0, HK_INT64, &y);
}

typedef struct box {
    double low[2], high[2], area, score;
    int64_t index;
} box;

static box read_box(const hk_tensor *boxes, int64_t at, bool center)
{
    box b = {0};
    double v[4];
    for (int i = 0; i < 4; i++)
        v[i] = hk_get_double(boxes, at + i);
    for (int i = 0; i < 2; i++) { /* corners in any order, or center and size */
        double from = center ? v[i] - v[2 + i] / 2 : v[i], to = center ? v[i] + v[2 + i] / 2 : v[2 + i];
        b.low[i] = fmin(from, to);
        b.high[i] = fmax(from, to);
    }
    b.area = (b.high[0] - b.low[0]) * (b.high[1] - b.low[1]);
    return b;
}

static double overlap(const box *a, const box *b)
{
    double common = 1.0;
    for (int i = 0; i < 2; i++)
        common *= fmax(fmin(a->high[i], b->high[i]) - fmax(a->low[i], b->low[i]), 0.0);
    double both = a->area + b->area - common;
    return both > 0.0 ? common / both : 0.0;
}

static int by_score(const void *a, const void *b)
{
    const box *x = a, *y = b;
    if (x->score > y->score || x->score < y->score)
        return x->score > y->score ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Sorts the boxes and moves those that stay to the front; returns how many. */
static int64_t suppress(box *list, int64_t count, int64_t most, double threshold)
{
    int64_t kept = 0;
    qsort(list, (size_t)count, sizeof *list, by_score);
    for (int64_t i = 0; i < count && kept < most; i++) {
        bool stays = true;
        for (int64_t k = 0; k < kept && stays; k++)
            stays = !(overlap(&list[k], &list[i]) > threshold);
        if (stays)
            list[kept++] = list[i];
    }
    return kept;
}

static double scalar(const hk_eval *e, int32_t i, double otherwise)
{
    return hk_in(e->node, i) ? hk_get_double(e->in[i], 0) : otherwise;
}

static hk_status eval(hk_eval *e)
{
    const hk_tensor *boxes = e->in[BOXES], *scores = e->in[SCORES];
    int64_t batches = scores->shape[0], classes = scores->shape[1], count = scores->shape[2], found = 0;
    int64_t most = hk_in(e->node, MOST) ? hk_get_int(e->in[MOST], 0) : 0;
    double threshold = scalar(e, IOU, 0.0), least = scalar(e, SCORE, -INFINITY);
    bool center = ((const nms_attrs *)e->node->attrs)->center_point_box != 0;
    most = HK_MIN(HK_MAX(most, 0), count);
    int64_t *rows = hk_arena_array(e->arena, (size_t)(batches * classes * most) + 1, 3 * sizeof *rows);
    box *all = hk_arena_array(e->arena, (size_t)count + 1, sizeof *all);
    box *list = hk_arena_array(e->arena, (size_t)count + 1, sizeof *list);
    if (!rows || !all || !list)
        return hk_out_of_memory(e->ctx, "boxes");
    for (int64_t b = 0; b < batches; b++) {
        for (int64_t i = 0; i < count; i++)
            all[i] = read_box(boxes, (b * count + i) * 4, center);
        for (int64_t c = 0; c < classes; c++) {
            int64_t candidates = 0;
            for (int64_t i = 0; i < count; i++) {
                all[i].score = hk_get_double(scores, (b * classes + c) * count + i);
                all[i].index = i;
                if (all[i].score > least)
                    list[candidates++] = all[i];
            }
            int64_t kept = suppress(list, candidates, most, threshold);
            for (int64_t k = 0; k < kept; k++, found++) {
                rows[3 * found] = b;
                rows[3 * found + 1] = c;
                rows[3 * found + 2] = list[k].index;
            }
        }
    }
    hk_tensor *y = hk_eval_output(e, 0, HK_INT64, &(hk_shape){.rank = 2, .dim = {found, 3}});
    if (!y)
        return hk_out_of_memory(e->ctx, "boxes");
    for (int64_t i = 0; i < 3 * found; i++)
        hk_set_int(y, i, rows[i]);
    return HK_OK;
}

static const char *const cases[] = {
    "f32[1,6,4]+ f32[1,2,6]+ i64={3} f32={0.5} f32={0.2} ; ; nograd nodevice",
    "f32[2,6,4]+ f32[2,1,6]+ i64=3 f32=0.5 ; center_point_box=1 ; nograd nodevice",
    "f32[1,6,4]+ f32[1,1,6]+ ; ; nograd nodevice",
    "f32[1,0,4] f32[1,2,0] i64={3} ; ; nograd nodevice",
    NULL,
};

const hk_op hk_ops_nms[] = {
    {.type = "NonMaxSuppression",
     .since = 10,
     .in_min = 2,
     .in_max = 5,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_HOST,
     .attrs_bytes = sizeof(nms_attrs),
     .attrs = attr_list,
     .infer = infer,
     .eval = eval,
     .cases = cases},
    {0},
};

/* Tables of separable resampling, and the nodes that use them. */
#include "ops/support/resample.h"

#include <string.h>

enum { AXES = 3, MOST_TAPS = 16 /* products of taps up to which several axes share a node */ };

bool hk_taps_new(hk_arena *arena, int64_t in, int64_t out, int64_t count, hk_taps *t)
{
    size_t entries = (size_t)HK_MAX(out * count, 1);
    *t = (hk_taps){.in = in, .out = out, .count = (int32_t)count};
    t->index = hk_arena_array(arena, entries, sizeof *t->index);
    t->weight = hk_arena_array(arena, entries, sizeof *t->weight);
    return t->index && t->weight;
}

/* Calls that add output o's taps to the lists of its inputs; an input that several taps name has one entry. */
static void transpose_output(const hk_taps *t, int64_t o, int32_t *used, hk_taps *back)
{
    for (int32_t k = 0; k < t->count; k++) {
        int64_t i = t->index[o * t->count + k];
        if (i < 0)
            continue;
        bool again = false;
        for (int32_t j = 0; j < k; j++)
            again |= t->index[o * t->count + j] == i;
        if (!again)
            used[i]++;
        if (back) {
            int64_t at = i * back->count + used[i] - 1;
            back->index[at] = (int32_t)o;
            back->weight[at] += t->weight[o * t->count + k];
        }
    }
}

bool hk_taps_transpose(hk_arena *arena, const hk_taps *t, hk_taps *back)
{
    int32_t *used = hk_arena_array(arena, (size_t)t->in + 1, sizeof *used), most = 1;
    if (!used)
        return false;
    for (int64_t o = 0; o < t->out; o++)
        transpose_output(t, o, used, NULL);
    for (int64_t i = 0; i < t->in; i++)
        most = HK_MAX(most, used[i]);
    if (!hk_taps_new(arena, t->out, t->in, most, back))
        return false;
    memset(used, 0, (size_t)t->in * sizeof *used);
    for (int64_t o = 0; o < t->out; o++)
        transpose_output(t, o, used, back);
    for (int64_t i = 0; i < t->in; i++) /* the rest weighs nothing: it repeats a tap, so that no infinity sneaks in */
        for (int32_t k = HK_MAX(used[i], 1); k < most; k++)
            back->index[i * most + k] = back->index[i * most];
    return true;
}

double *hk_taps_apply(hk_arena *arena, const hk_taps *t, const double *x, hk_shape *shape, int32_t axis, double outside)
{
    int64_t outer = hk_shape_span(shape, 0, axis), inner = hk_shape_span(shape, axis + 1, shape->rank);
    double *y = hk_arena_array(arena, (size_t)HK_MAX(outer * t->out * inner, 1), sizeof *y);
    for (int64_t i = 0; y && i < outer * t->out * inner; i++) {
        int64_t c = i % inner, o = i / inner % t->out, a = i / inner / t->out;
        const int32_t *index = t->index + o * t->count;
        if (index[0] < 0) {
            y[i] = outside;
            continue;
        }
        for (int32_t k = 0; k < t->count; k++)
            y[i] += t->weight[o * t->count + k] * x[(a * t->in + index[k]) * inner + c];
    }
    shape->dim[axis] = t->out;
    return y;
}

/* ---- nodes */

static hk_status table_tensors(hk_graph *g, const hk_taps *t, hk_attr_value *index, hk_attr_value *weight)
{
    const hk_shape s = {2, {t->out, t->count}};
    hk_tensor *i = hk_tensor_new(g->arena, HK_INT32, &s), *w = hk_tensor_new(g->arena, HK_FLOAT64, &s);
    if (!i || !w)
        return hk_out_of_memory(g->ctx, "a table of taps");
    memcpy(i->data, t->index, (size_t)hk_tensor_bytes(i));
    memcpy(w->data, t->weight, (size_t)hk_tensor_bytes(w));
    index->tensor = i;
    weight->tensor = w;
    return HK_OK;
}

/* One node for `count` axes from `first` on; NULL entries of taps stay as they are. */
static hk_status build_node(hk_graph *g, hk_value *x, const hk_taps *const *taps, int32_t first, int32_t count,
                            double outside, hk_value **out)
{
    static const char *const names[2][AXES] = {{"index0", "index1", "index2"}, {"weight0", "weight1", "weight2"}};
    hk_attr_value attrs[2 * AXES + 3] = {HK_SET_INT("axis", first), HK_SET_FLOAT("outside", (float)outside)};
    int32_t k = 2;
    for (int32_t i = 0; i < count; i++) {
        if (!taps[first + i])
            continue;
        attrs[k] = (hk_attr_value){.name = names[0][i], .kind = HK_ATTR_TENSOR};
        attrs[k + 1] = (hk_attr_value){.name = names[1][i], .kind = HK_ATTR_TENSOR};
        HK_TRY(table_tensors(g, taps[first + i], &attrs[k], &attrs[k + 1]));
        k += 2;
    }
    return hk_build(g, "hk.Resample", attrs, &x, 1, out, 1);
}

hk_status hk_build_resample(hk_graph *g, hk_value *x, const hk_taps *const taps[HK_MAX_RANK], double outside,
                            hk_value **out)
{
    int32_t first = -1, last = -1, left = 0;
    int64_t product = 1;
    for (int32_t d = 0; d < x->shape.rank; d++) {
        if (!taps[d])
            continue;
        first = first < 0 ? d : first;
        last = d;
        left++;
        product = HK_MIN(product * taps[d]->count, INT32_MAX);
    }
    if (left == 0)
        return hk_build(g, "Identity", NULL, &x, 1, out, 1);
    if (left == 1 || (last - first < AXES && product <= MOST_TAPS))
        return build_node(g, x, taps, first, last - first + 1, outside, out);
    bool done[HK_MAX_RANK] = {false};
    for (*out = x; left > 0; left--) {
        int32_t best = -1;
        for (int32_t d = first; d <= last; d++)
            if (taps[d] && !done[d] &&
                (best < 0 ||
                 (double)taps[d]->out * (double)taps[best]->in < (double)taps[best]->out * (double)taps[d]->in))
                best = d;
        done[best] = true;
        HK_TRY(build_node(g, *out, taps, best, 1, outside, out));
    }
    return HK_OK;
}

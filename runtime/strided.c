/* Strided views through nodes that only rearrange. */
#include "runtime/strided.h"

#include <string.h>

/* How the coordinates of a node's output walk its input: elements of the input for each step along a dimension. */
typedef struct walk {
    int64_t offset, step[HK_MAX_RANK];
} walk;

static bool walk_transpose(const hk_node *n, const int64_t *strides, walk *w)
{
    const hk_ints *perm = hk_node_attr(n, "perm");
    int32_t rank = n->in[0]->shape.rank;
    for (int32_t d = 0; d < rank; d++) {
        int32_t from = perm && perm->v ? hk_axis(perm->v[d], rank) : rank - 1 - d;
        w->step[d] = strides[from];
    }
    return true;
}

/* One slice along an axis, by an index known now. */
static bool walk_gather(const hk_node *n, const int64_t *strides, walk *w)
{
    const int64_t *axis = hk_node_attr(n, "axis");
    const hk_tensor *index = hk_known(n, 1);
    const hk_shape *x = &n->in[0]->shape;
    if (!axis || !index || n->in[1]->shape.rank != 0)
        return false;
    int32_t a = hk_axis(*axis, x->rank);
    int64_t i = hk_get_int(index, 0);
    i = i < 0 ? i + x->dim[a] : i;
    if (i < 0 || i >= x->dim[a])
        return false;
    w->offset = i * strides[a];
    for (int32_t d = 0; d + 1 < x->rank; d++)
        w->step[d] = strides[d < a ? d : d + 1];
    return true;
}

static bool walk_slice(const hk_node *n, const int64_t *strides, walk *w)
{
    const hk_tensor *starts = hk_known(n, 1), *axes = hk_known(n, 3), *steps = hk_known(n, 4);
    const hk_shape *x = &n->in[0]->shape;
    if (n->op->since < 10 || !starts || (hk_in(n, 3) && !axes) || (hk_in(n, 4) && !steps))
        return false;
    memcpy(w->step, strides, sizeof w->step);
    for (int64_t i = 0; i < hk_tensor_count(starts); i++) {
        int32_t a = hk_axis(axes ? hk_get_int(axes, i) : i, x->rank);
        int64_t start = hk_get_int(starts, i), step = steps ? hk_get_int(steps, i) : 1;
        if (step < 1)
            return false;
        start = start < 0 ? start + x->dim[a] : start;
        w->offset += HK_MAX(HK_MIN(start, x->dim[a]), (int64_t)0) * strides[a];
        w->step[a] = strides[a] * step;
    }
    return true;
}

static bool walk_split(const hk_node *n, const hk_value *out, const int64_t *strides, walk *w)
{
    const int64_t *axis = hk_node_attr(n, "axis");
    int32_t a = axis ? hk_axis(*axis, out->shape.rank) : 0;
    memcpy(w->step, strides, sizeof w->step);
    for (int32_t i = 0; i < n->out_count; i++) {
        if (n->out[i] == out)
            return true;
        if (!n->out[i])
            return false; /* its extent is not known here */
        w->offset += n->out[i]->shape.dim[a] * strides[a];
    }
    return false;
}

static bool walk_expand(const hk_node *n, const hk_value *out, const int64_t *strides, walk *w)
{
    const hk_shape *x = &n->in[0]->shape;
    for (int32_t d = 0; d < out->shape.rank; d++) {
        int32_t own = d - out->shape.rank + x->rank;
        w->step[d] = own < 0 || x->dim[own] != out->shape.dim[d] ? 0 : strides[own];
    }
    return true;
}

static bool walk_of(const hk_node *n, const hk_value *out, walk *w)
{
    int64_t strides[HK_MAX_RANK];
    hk_shape_strides(&n->in[0]->shape, strides);
    *w = (walk){0};
    if (hk_node_is(n, "Transpose"))
        return walk_transpose(n, strides, w);
    if (hk_node_is(n, "Gather"))
        return walk_gather(n, strides, w);
    if (hk_node_is(n, "Slice"))
        return walk_slice(n, strides, w);
    if (hk_node_is(n, "Split"))
        return walk_split(n, out, strides, w);
    return hk_node_is(n, "Expand") && walk_expand(n, out, strides, w);
}

/* Puts a part of s, which walks the output, into `to` as one that walks the input. It may need several: those that run
 * along inner dimensions of the output are split off. reach: how far along each dimension the parts get. */
static bool map_part(hk_strided_part p, const hk_shape *out, const int64_t *strides, const walk *w, int64_t *reach,
                     hk_strided *to)
{
    hk_strided_part split[HK_MAX_RANK + 1];
    int32_t count = 0;
    while (p.extent > 1 && p.stride > 0) {
        int32_t d = 0;
        while (d < out->rank && (out->dim[d] == 1 || strides[d] > p.stride))
            d++;
        if (d == out->rank || p.stride % strides[d] || count == HK_MAX_RANK)
            return false;
        int64_t step = p.stride / strides[d], room = out->dim[d], here = p.extent;
        if ((p.extent - 1) * step >= room) {
            here = room / step;
            if (room % step || p.extent % here)
                return false;
        }
        reach[d] += (here - 1) * step;
        split[count++] = (hk_strided_part){p.axis, here, step * w->step[d]};
        p = (hk_strided_part){p.axis, p.extent / here, strides[d] * room};
    }
    if (p.extent > 1) /* repeats */
        split[count++] = (hk_strided_part){p.axis, p.extent, 0};
    while (count > 0) {
        if (to->count == STRIDED_PARTS)
            return false;
        to->part[to->count++] = split[--count];
    }
    return true;
}

bool hk_strided_of(hk_value *v, hk_strided *s)
{
    int64_t strides[HK_MAX_RANK];
    if (!hk_shape_known(&v->shape) || v->layout != HK_LAYOUT_CONTIGUOUS)
        return false;
    hk_shape_strides(&v->shape, strides);
    *s = (hk_strided){.base = v, .count = v->shape.rank};
    for (int32_t d = 0; d < s->count; d++)
        s->part[d] = (hk_strided_part){d, v->shape.dim[d], strides[d]};
    return true;
}

bool hk_strided_up(hk_strided *s)
{
    const hk_value *out = s->base;
    const hk_node *n = out->producer;
    hk_value *in = n ? hk_in(n, 0) : NULL;
    if (!in || !n->op || in->state || in->layout != HK_LAYOUT_CONTIGUOUS || in->dtype != out->dtype ||
        hk_value_storage(in) != hk_value_storage(out) || in->graph != out->graph || !hk_shape_known(&in->shape) ||
        hk_shape_count(&in->shape) == 0)
        return false;
    int64_t view = n->out[0] == out ? hk_node_view_offset(n) : -1;
    if (view >= 0) {
        s->base = in;
        s->offset += view;
        return true;
    }
    walk w;
    if (!walk_of(n, out, &w))
        return false;
    int64_t strides[HK_MAX_RANK], reach[HK_MAX_RANK] = {0}, rest = s->offset;
    hk_shape_strides(&out->shape, strides);
    hk_strided up = {.base = in, .offset = w.offset};
    for (int32_t d = 0; d < out->shape.rank; d++) {
        int64_t at = rest / strides[d];
        rest %= strides[d];
        reach[d] = at;
        up.offset += at * w.step[d];
    }
    for (int32_t i = 0; i < s->count; i++)
        if (!map_part(s->part[i], &out->shape, strides, &w, reach, &up))
            return false;
    for (int32_t d = 0; d < out->shape.rank; d++)
        if (reach[d] >= out->shape.dim[d])
            return false; /* parts together would carry into the next dimension */
    *s = up;
    return true;
}

bool hk_strided_axis(const hk_strided *s, int32_t axis, int64_t extent[2], int64_t stride[2])
{
    int32_t count = 0;
    int64_t e[STRIDED_PARTS], t[STRIDED_PARTS];
    for (int32_t i = 0; i < s->count; i++) {
        const hk_strided_part *p = &s->part[i];
        if (p->axis != axis || p->extent == 1)
            continue;
        if (count && t[count - 1] == p->stride * p->extent) {
            e[count - 1] *= p->extent;
            t[count - 1] = p->stride;
        } else {
            e[count] = p->extent;
            t[count++] = p->stride;
        }
    }
    extent[0] = extent[1] = 1;
    stride[0] = stride[1] = 0;
    for (int32_t i = 0; i < HK_MIN(count, 2); i++) {
        extent[i] = e[i];
        stride[i] = t[i];
    }
    return count < 2 || (count == 2 && stride[1] == 0);
}

/* Strided moves: their normal form and the host's. */
#include "ops/support/move.h"

#include <string.h>

void hk_move_add(hk_move *m, int64_t extent, int64_t from_stride, int64_t to_stride)
{
    if (extent != 1 && m->rank < HK_MOVE_RANK)
        m->dim[m->rank++] = (hk_move_dim){extent, from_stride, to_stride};
}

int64_t hk_move_count(const hk_move *m)
{
    int64_t n = 1;
    for (int32_t d = 0; d < m->rank; d++)
        n *= m->dim[d].extent;
    return n;
}

static int64_t distance(int64_t stride)
{
    return stride < 0 ? -stride : stride;
}

void hk_move_collapse(hk_move *m)
{
    for (int32_t i = 1; i < m->rank; i++) { /* insertion sort: stable, and these lists are short */
        hk_move_dim d = m->dim[i];
        int32_t k = i;
        for (; k > 0 && distance(m->dim[k - 1].to_stride) < distance(d.to_stride); k--)
            m->dim[k] = m->dim[k - 1];
        m->dim[k] = d;
    }
    int32_t kept = 0;
    for (int32_t i = 0; i < m->rank; i++) {
        hk_move_dim d = m->dim[i];
        hk_move_dim *outer = kept ? &m->dim[kept - 1] : NULL;
        if (outer && outer->from_stride == d.extent * d.from_stride && outer->to_stride == d.extent * d.to_stride)
            *outer = (hk_move_dim){outer->extent * d.extent, d.from_stride, d.to_stride};
        else
            m->dim[kept++] = d;
    }
    m->rank = kept;
}

void hk_set_element(hk_tensor *to, int64_t i, const hk_tensor *value)
{
    if (hk_dtype_is_float(to->dtype))
        hk_set_double(to, i, hk_get_double(value, 0));
    else
        hk_set_int(to, i, hk_get_int(value, 0));
}

void hk_constant_words(const hk_tensor *t, hk_dtype storage, uint32_t words[2])
{
    uint64_t element = 0;
    hk_tensor one = {.data = &element, .dtype = storage};
    hk_set_element(&one, 0, t);
    words[0] = words[1] = 0;
    hk_widen(storage, &element, words, 1);
    size_t bytes = hk_dtype_device_bytes(storage);
    if (bytes == 2)
        words[0] |= words[0] << 16;
    if (bytes < 8)
        words[1] = words[0];
}

/* Walks all dimensions but the innermost like an odometer; the innermost is a loop, or one memcpy. */
void hk_host_move(const hk_move *move, const hk_tensor *from, hk_tensor *to)
{
    hk_move m = *move;
    hk_move_collapse(&m);
    if (hk_move_count(&m) == 0)
        return;
    size_t bytes = hk_dtype_bytes(from->dtype);
    hk_move_dim inner = m.rank ? m.dim[m.rank - 1] : (hk_move_dim){1, 1, 1};
    int32_t outer = HK_MAX(m.rank - 1, 0);
    bool run = inner.from_stride == 1 && inner.to_stride == 1;
    const char *x = from->data;
    char *y = to->data;
    int64_t index[HK_MOVE_RANK] = {0};
    int64_t f = m.from_offset, t = m.to_offset;
    for (;;) {
        if (run) {
            memcpy(y + (size_t)t * bytes, x + (size_t)f * bytes, (size_t)inner.extent * bytes);
        } else {
            for (int64_t k = 0; k < inner.extent; k++)
                memcpy(y + (size_t)(t + k * inner.to_stride) * bytes, x + (size_t)(f + k * inner.from_stride) * bytes,
                       bytes);
        }
        int32_t d = outer - 1;
        for (; d >= 0; d--) {
            f += m.dim[d].from_stride;
            t += m.dim[d].to_stride;
            if (++index[d] < m.dim[d].extent)
                break;
            f -= m.dim[d].extent * m.dim[d].from_stride;
            t -= m.dim[d].extent * m.dim[d].to_stride;
            index[d] = 0;
        }
        if (d < 0)
            return;
    }
}

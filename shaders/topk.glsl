// Candidates of TopK: an element becomes an unsigned key whose order is that of the elements asked for, so that the
// largest key wins, and of equal keys the lower index. NaN counts as the largest number.
#ifndef TOPK_GLSL
#define TOPK_GLSL

#ifdef WIDE
#define E uvec4
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Candidates { uvec4 v[]; };
const E NOTHING = uvec4(0u, 0u, 0xffffffffu, 0u);
uint index_of(E e) { return e.z; }
bool better(E a, E b)
{
    if (a.x != b.x)
        return a.x > b.x;
    return a.y != b.y ? a.y > b.y : a.z < b.z;
}
#else
#define E uvec2
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Candidates { uvec2 v[]; };
const E NOTHING = uvec2(0u, 0xffffffffu);
uint index_of(E e) { return e.y; }
bool better(E a, E b) { return a.x != b.x ? a.x > b.x : a.y < b.y; }
#endif

const uint TYPE_FLOAT = 0, TYPE_SIGNED = 1, TYPE_UNSIGNED = 2; // topk_type() in ops/topk.c

uint row_base(uint row) { return row / push.inner * push.extent * push.inner + row % push.inner; }

E candidate(uint row, uint i, uint type, bool least)
{
    uint at = row_base(row) + i * push.inner;
#ifdef WIDE
    uvec2 x = U32x2(push.x).v[at].yx;
    x.x ^= type == TYPE_SIGNED ? 0x80000000u : 0u;
    return uvec4(least ? ~x : x, i, 0u);
#else
    uint x = U32(push.x).v[at];
    if (type == TYPE_FLOAT) {
        bool nan = (x & 0x7fffffffu) > 0x7f800000u;
        x = x == 0x80000000u ? 0u : x; // -0 equals 0
        x ^= (x & 0x80000000u) != 0u ? 0xffffffffu : 0x80000000u;
        x = nan ? 0xffffffffu : x;
    } else if (type == TYPE_SIGNED)
        x ^= 0x80000000u;
    return uvec2(least ? ~x : x, i);
#endif
}

// Place p of a row's result.
void put(uint row, uint p, E e)
{
    uint from = row_base(row) + index_of(e) * push.inner;
    uint to = row / push.inner * push.k * push.inner + p * push.inner + row % push.inner;
    if (push.values.x != 0u || push.values.y != 0u) {
#ifdef WIDE
        U32x2(push.values).v[to] = U32x2(push.x).v[from];
#else
        U32(push.values).v[to] = U32(push.x).v[from];
#endif
    }
    if (push.indices.x != 0u || push.indices.y != 0u)
        U32x2(push.indices).v[to] = uvec2(index_of(e), 0u);
}

#endif

// kernel: gather_scatter_2 -DUNIT=2 needs=storage16
// kernel: gather_scatter_4 -DUNIT=4
// kernel: gather_scatter_8 -DUNIT=8
// kernel: gather_scatter_f32 -DUNIT=4 -DREDUCE=float -DVALUES=F32 -DBITS=floatBitsToUint
// kernel: gather_scatter_i32 -DUNIT=4 -DREDUCE=int -DVALUES=I32 -DBITS=uint
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_unit.glsl"
#include "gather_scatter.push.h"
#include "gather_index.glsl"

// ScatterElements seen from the output: element c looks through the indices of its line along the axis, in order, for
// those that name it; the last one wins, or all are reduced into it. Deterministic, and needs no atomics.

layout(constant_id = 4) const uint REDUCTION = 0u; // none, add, mul, max, min
layout(constant_id = 5) const bool FROM_ZERO = false; // x is all zeros and not read
// The axis is the innermost dimension: four neighbours search one line together. The class scores whose gradient a
// cross-entropy scatters are such lines. Only with 4-byte units.
layout(constant_id = 6) const bool LINES = false;

#ifdef REDUCE
#define Value REDUCE
#define Values VALUES
#else
#define Value Unit
#define Values Units
#define BITS uint
#endif

Value combine(Value a, Value b)
{
#ifdef REDUCE
    switch (REDUCTION) {
    case 1u: return a + b;
    case 2u: return a * b;
    case 3u: return max(a, b);
    case 4u: return min(a, b);
    }
#endif
    return b;
}

uint first;  // of the element's line in the index tensor
uint wanted; // its coordinate along the axis
uint column; // its coordinate in the innermost dimension
bool inside; // does the index tensor reach its line?

void locate(uint i)
{
    U32 table = U32(push.table);
    first = 0u;
    wanted = 0u;
    inside = true;
    uint n = i;
    for (uint d = 0u; d < push.rank; d++) {
        uint q = divide(n, table.v[5u * d + 1u], table.v[5u * d + 2u]);
        uint c = n - q * table.v[5u * d];
        first += c * table.v[5u * d + 3u];
        inside = inside && c < table.v[5u * d + 4u];
        if (d == push.axis)
            wanted = c;
        if (d == 0u)
            column = c;
        n = q;
    }
}

void one(uint i)
{
    locate(i);
    Value y = Value(0);
    if (!FROM_ZERO)
        y = Values(push.x).v[i];
    if (inside) {
        for (uint m = 0u; m < push.entries; m++) {
            uint at = first + m * push.stride;
            if (read_index(push.indices, at, push.extent) == wanted)
                y = combine(y, Values(push.updates).v[at]);
        }
    }
    Values(push.y).v[i] = y;
}

#if UNIT == 4
void four(uint i)
{
    Value y0 = Value(0);
    Value y1 = Value(0);
    Value y2 = Value(0);
    Value y3 = Value(0);
    if (!FROM_ZERO) {
        y0 = Values(push.x).v[i];
        y1 = Values(push.x).v[i + 1u];
        y2 = Values(push.x).v[i + 2u];
        y3 = Values(push.x).v[i + 3u];
    }
    for (uint m = 0u; inside && m < push.entries; m++) {
        uint at = first + m * push.stride;
        uint k = read_index(push.indices, at, push.extent) - wanted; // large when it is before this invocation's
        if (k < 4u) {
            Value update = Values(push.updates).v[at];
            y0 = k == 0u ? combine(y0, update) : y0;
            y1 = k == 1u ? combine(y1, update) : y1;
            y2 = k == 2u ? combine(y2, update) : y2;
            y3 = k == 3u ? combine(y3, update) : y3;
        }
    }
    U32x4(push.y).v[i >> 2] = uvec4(BITS(y0), BITS(y1), BITS(y2), BITS(y3));
}

void main()
{
    if (!LINES) {
        if (linear_invocation() < push.count)
            one(linear_invocation());
        return;
    }
    uint i = linear_invocation() * 4u;
    if (i >= push.count)
        return;
    locate(i);
    if (i + 4u <= push.count && column + 4u <= push.extent) {
        four(i);
    } else {
        for (uint k = 0u; k < 4u && i + k < push.count; k++)
            one(i + k);
    }
}
#else
void main()
{
    if (linear_invocation() < push.count)
        one(linear_invocation());
}
#endif

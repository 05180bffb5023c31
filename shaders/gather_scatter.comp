// kernel: gather_scatter_2 -DUNIT=2 needs=storage16
// kernel: gather_scatter_4 -DUNIT=4
// kernel: gather_scatter_8 -DUNIT=8
// kernel: gather_scatter_f32 -DUNIT=4 -DREDUCE=float -DVALUES=F32
// kernel: gather_scatter_i32 -DUNIT=4 -DREDUCE=int -DVALUES=I32
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

#ifdef REDUCE
#define Value REDUCE
#define Values VALUES
#else
#define Value Unit
#define Values Units
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

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    U32 table = U32(push.table);
    uint first = 0u;
    uint wanted = 0u;
    bool inside = true;
    uint n = i;
    for (uint d = 0u; d < push.rank; d++) {
        uint q = divide(n, table.v[5u * d + 1u], table.v[5u * d + 2u]);
        uint c = n - q * table.v[5u * d];
        first += c * table.v[5u * d + 3u];
        inside = inside && c < table.v[5u * d + 4u];
        if (d == push.axis)
            wanted = c;
        n = q;
    }
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

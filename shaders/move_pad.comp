// kernel: move_pad_2 -DUNIT=2 needs=storage16
// kernel: move_pad_4 -DUNIT=4
// kernel: move_pad_8 -DUNIT=8
// kernel: move_pad_16 -DUNIT=16
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_unit.glsl"
#include "move_pad.push.h"

layout(constant_id = 3) const uint MODE = 0u;  // hk_pad_mode: constant, reflect, edge, wrap
layout(constant_id = 4) const bool STEPS = false; // constant mode with gaps between the source's elements

// Every element of the destination looks for its source in each dimension; where there is none, the value is written.
// With 4-byte units an invocation makes four neighbours and stores them at once.

uint source; // position in `from` that the dimensions outside the innermost add up to
bool inside;

// Adds dimension d's part for coordinate c.
void look(uint d, uint c, inout uint at, inout bool found)
{
    U32 table = U32(push.table);
    uint lead = table.v[d * 9u + 3u];
    uint count = table.v[d * 9u + 4u];
    uint stride = table.v[d * 9u + 5u];
    uint t = c + lead;
    if (MODE == 0u) {
        if (STEPS) {
            bool before = int(t) < 0;
            uint q = divide(before ? 0u : t, table.v[d * 9u + 7u], table.v[d * 9u + 8u]);
            found = found && !before && q < count && q * table.v[d * 9u + 6u] == t;
            t = q;
        } else {
            found = found && t < count; // a negative t is a large one
        }
    } else if (MODE == 2u) {
        t = uint(clamp(int(t), 0, int(count) - 1));
    } else {
        uint period = table.v[d * 9u + 6u];
        t -= divide(t, table.v[d * 9u + 7u], table.v[d * 9u + 8u]) * period;
        if (MODE == 1u && t >= count)
            t = period - t;
    }
    at += t * stride;
}

// Splits the number of an innermost row into the other coordinates.
void locate(uint row)
{
    U32 table = U32(push.table);
    source = push.from_base;
    inside = true;
    for (uint d = 1u; d < push.rank; d++) {
        uint q = divide(row, table.v[d * 9u + 1u], table.v[d * 9u + 2u]);
        look(d, row - q * table.v[d * 9u], source, inside);
        row = q;
    }
}

Unit padding()
{
#if UNIT == 16
    return uvec4(push.value_low, push.value_high, push.value_low, push.value_high);
#elif UNIT == 8
    return uvec2(push.value_low, push.value_high);
#else
    return Unit(push.value_low);
#endif
}

Unit fetch(uint c)
{
    uint at = source;
    bool found = inside;
    look(0u, c, at, found);
    Unit x = padding();
    if (found)
        x = Units(push.from).v[at];
    return x;
}

void main()
{
    U32 table = U32(push.table);
    uint extent = table.v[0];
#if UNIT == 4
    uint first = linear_invocation() * 4u;
#else
    uint first = linear_invocation();
#endif
    if (first >= push.count)
        return;
    uint row = divide(first, table.v[1], table.v[2]);
    uint c = first - row * extent;
    locate(row);
#if UNIT == 4
    uvec4 word = uvec4(0u);
    [[unroll]] for (uint k = 0u; k < 4u; k++) {
        if (c == extent && first + k < push.count) {
            c = 0u;
            row++;
            locate(row);
        }
        if (first + k < push.count)
            word[k] = fetch(c);
        c++;
    }
    if (first + 4u <= push.count) {
        U32x4(push.to).v[first >> 2] = word;
    } else {
        for (uint k = 0u; first + k < push.count; k++)
            U32(push.to).v[first + k] = word[k];
    }
#else
    Units(push.to).v[first] = fetch(c);
#endif
}

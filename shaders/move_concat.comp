// kernel: move_concat_2 -DUNIT=2 needs=storage16
// kernel: move_concat_4 -DUNIT=4
// kernel: move_concat_8 -DUNIT=8
// kernel: move_concat_16 -DUNIT=16
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "move_unit.glsl"
#include "move_concat.push.h"

layout(constant_id = 3) const bool SPLIT = false; // from the whole to the parts instead

uvec2 part;
uint begin;
uint end;

void candidate(uvec2 address, uint its_end, uint column)
{
    if (column >= end) {
        part = address;
        begin = end;
        end = its_end;
    }
}

void main()
{
    uint n = linear_invocation();
    if (n >= push.count)
        return;
    uint r = divide(n, push.multiplier, push.shift);
    uint column = n - r * push.width;
    part = push.part_0;
    begin = 0u;
    end = push.end_0;
    candidate(push.part_1, push.end_1, column);
    candidate(push.part_2, push.end_2, column);
    candidate(push.part_3, push.end_3, column);
    candidate(push.part_4, push.end_4, column);
    candidate(push.part_5, push.end_5, column);
    candidate(push.part_6, push.end_6, column);
    candidate(push.part_7, push.end_7, column);
    uint whole_at = r * push.row + column;
    uint part_at = r * (end - begin) + column - begin;
    if (SPLIT)
        Units(part).v[part_at] = Units(push.whole).v[whole_at];
    else
        Units(push.whole).v[whole_at] = Units(part).v[part_at];
}

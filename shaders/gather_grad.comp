// kernel: gather_grad_f32 -DValue=float -DValues=F32 -DSHARED
// kernel: gather_grad_f32x4 -DValue=vec4 -DValues=F32x4 -DSHARED
// kernel: gather_grad_plain_f32 -DValue=float -DValues=F32
// kernel: gather_grad_plain_f32x4 -DValue=vec4 -DValues=F32x4
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#define UNIT 4
#include "move_unit.glsl"
#include "gather_grad.push.h"
#include "gather_index.glsl"

// The gradient of Gather without atomics, and ScatterND with a reduction: every row adds up, in the order of the
// indices, the gradients of those that named it. An invocation owns its columns of a block of rows, so that the rows it
// did not keep in registers it reads back itself. SHARED: of 2,048 indices at a time the workgroup marks those that
// fall into its block in a bit mask, makes an ordered list of the marked ones, and walks the list, four at a time so
// that their loads overlap. The sums' order is the indices' order whatever the invocations do.

layout(constant_id = 4) const uint REDUCTION = 1u;    // 1 add, 2 mul, 3 max, 4 min
layout(constant_id = 5) const bool FROM_ZERO = true;  // x is all zeros and not read

uint base; // of this invocation's column of row 0 of dx (and x)
uint from; // of this invocation's column of dy's row 0

Value combine(Value a, Value b)
{
    if (REDUCTION == 2u)
        return a * b;
    if (REDUCTION == 3u)
        return max(a, b);
    if (REDUCTION == 4u)
        return min(a, b);
    return a + b;
}

void start_rows(uint first, uint end)
{
    for (uint a = first; a < end; a++)
        Values(push.dx).v[base + a * push.columns] = FROM_ZERO ? Value(0.0) : Values(push.x).v[base + a * push.columns];
}

#ifdef SHARED
const uint WORDS = 64u; // of the mask: 2,048 indices
shared uint mask[WORDS];
shared uint marked;               // how many
shared uint list[WORDS * 32u];    // of the marked indices: number in this round, and row in the block above bit 16

uint row; // whose sum is in y
Value y;

// The indices [begin, begin + count) of this round that name rows [first, end).
void mark(uint begin, uint count, uint first, uint end)
{
    if (gl_LocalInvocationID.x == 0u)
        marked = 0u;
    for (uint w = gl_LocalInvocationID.x; w < WORDS; w += gl_WorkGroupSize.x)
        mask[w] = 0u;
    barrier();
    uint found = 0u;
    for (uint m = gl_LocalInvocationID.x; m < count; m += gl_WorkGroupSize.x) {
        uint a = read_index(push.indices, begin + m, push.rows);
        if (a >= first && a < end) {
            atomicOr(mask[m >> 5], 1u << (m & 31u));
            found++;
        }
    }
    if (found > 0u)
        atomicAdd(marked, found);
    barrier();
}

// Every invocation lists the marks of its words of the mask, behind those of the words before.
void make_list(uint begin, uint first)
{
    for (uint w = gl_LocalInvocationID.x; w < WORDS; w += gl_WorkGroupSize.x) {
        uint bits = mask[w];
        uint at = 0u;
        for (uint before = 0u; bits != 0u && before < w; before++)
            at += uint(bitCount(mask[before]));
        for (; bits != 0u; bits &= bits - 1u) {
            uint m = w * 32u + uint(findLSB(bits));
            list[at] = m | (read_index(push.indices, begin + m, push.rows) - first) << 16;
            at++;
        }
    }
    barrier();
}

void add(uint a, Value x)
{
    if (a != row) {
        Values(push.dx).v[base + row * push.columns] = y;
        y = Values(push.dx).v[base + a * push.columns];
        row = a;
    }
    y = combine(y, x);
}

Value row_of_dy(uint m)
{
    return Values(push.dy).v[from + m * push.columns];
}

void walk(uint begin, uint first)
{
    uint n = marked;
    uint i = 0u;
    for (; i + 4u <= n; i += 4u) {
        uvec4 e = uvec4(list[i], list[i + 1u], list[i + 2u], list[i + 3u]);
        uvec4 m = begin + (e & 0xffffu);
        uvec4 a = first + (e >> 16);
        Value x0 = row_of_dy(m.x);
        Value x1 = row_of_dy(m.y);
        Value x2 = row_of_dy(m.z);
        Value x3 = row_of_dy(m.w);
        add(a.x, x0);
        add(a.y, x1);
        add(a.z, x2);
        add(a.w, x3);
    }
    for (; i < n; i++)
        add(first + (list[i] >> 16), row_of_dy(begin + (list[i] & 0xffffu)));
}

void main()
{
    uint g = linear_group();
    if (g >= push.count)
        return;
    uint q = divide(g, push.chunks_multiplier, push.chunks_shift);
    uint column = (g - q * push.chunks) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    uint o = divide(q, push.blocks_multiplier, push.blocks_shift);
    uint first = (q - o * push.blocks) * push.block;
    uint end = min(first + push.block, push.rows);
    bool mine = column < push.columns;
    base = o * push.rows * push.columns + column;
    from = o * push.entries * push.columns + column;
    row = first;
    y = Value(0.0);
    if (mine) {
        start_rows(first, end);
        y = Values(push.dx).v[base + row * push.columns];
    }
    for (uint begin = 0u; begin < push.entries; begin += WORDS * 32u) {
        mark(begin, min(WORDS * 32u, push.entries - begin), first, end);
        if (marked == 0u) {
            barrier(); // before the next round counts anew
            continue;
        }
        make_list(begin, first);
        if (mine)
            walk(begin, first);
        barrier();
    }
    if (mine)
        Values(push.dx).v[base + row * push.columns] = y;
}
#else
void main()
{
    uint n = linear_invocation();
    if (n >= push.count)
        return;
    uint q = divide(n, push.chunks_multiplier, push.chunks_shift);
    uint column = n - q * push.chunks;
    uint o = divide(q, push.blocks_multiplier, push.blocks_shift);
    uint first = (q - o * push.blocks) * push.block;
    uint end = min(first + push.block, push.rows);
    base = o * push.rows * push.columns + column;
    from = o * push.entries * push.columns + column;
    start_rows(first, end);
    for (uint m = 0u; m < push.entries; m++) {
        uint a = read_index(push.indices, m, push.rows);
        if (a >= first && a < end) {
            uint at = base + a * push.columns;
            Values(push.dx).v[at] = combine(Values(push.dx).v[at], Values(push.dy).v[from + m * push.columns]);
        }
    }
}
#endif

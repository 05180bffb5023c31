// kernel: topk_sort
// kernel: topk_sort_wide -DWIDE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "topk.push.h"
#include "topk.glsl"

// Sorts groups of SORT elements in shared memory (bitonic), ITEMS groups to a workgroup, and keeps the first push.kept
// of each: elements of x the first time, candidates of earlier dispatches after. Groups of a row lie side by side; the
// row's push.count elements are cut into push.runs groups.

layout(constant_id = 3) const uint SORT = 2; // a power of two
layout(constant_id = 4) const uint ITEMS = 1;
layout(constant_id = 5) const uint TYPE = 0;
layout(constant_id = 6) const bool LEAST = false;
layout(constant_id = 7) const bool FIRST = true;
layout(constant_id = 8) const bool LAST = true;
const uint TOTAL = SORT * ITEMS;

shared E sorted[TOTAL];

void main()
{
    uint threads = gl_WorkGroupSize.x, groups = push.rows * push.runs;
    for (uint t = gl_LocalInvocationIndex; t < TOTAL; t += threads) {
        uint group = linear_group() * ITEMS + t / SORT, row = group / push.runs;
        uint i = group % push.runs * push.span + t % SORT;
        E e = NOTHING;
        if (group < groups && t % SORT < push.span && i < push.count) {
            if (FIRST)
                e = candidate(row, i, TYPE, LEAST);
            else
                e = Candidates(push.from).v[row * push.count + i];
        }
        sorted[t] = e;
    }
    for (uint size = 2u; size <= SORT; size *= 2u)
        for (uint step = size / 2u; step > 0u; step /= 2u) {
            barrier();
            for (uint t = gl_LocalInvocationIndex; t < TOTAL / 2u; t += threads) {
                uint a = t / step * step * 2u + t % step, b = a + step;
                bool falling = (a % SORT & size) == 0u; // the best first; in the last round everywhere
                E x = sorted[a], y = sorted[b];
                if (better(y, x) == falling) {
                    sorted[a] = y;
                    sorted[b] = x;
                }
            }
        }
    barrier();
    for (uint t = gl_LocalInvocationIndex; t < ITEMS * push.kept; t += threads) {
        uint group = linear_group() * ITEMS + t / push.kept, p = t % push.kept;
        if (group >= groups)
            continue;
        if (LAST)
            put(group, p, sorted[t / push.kept * SORT + p]);
        else
            Candidates(push.to).v[group * push.kept + p] = sorted[t / push.kept * SORT + p];
    }
}

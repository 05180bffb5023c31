// kernel: topk_insert
// kernel: topk_insert_wide -DWIDE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "topk.push.h"
#include "topk.glsl"

// What topk_sort.comp does, for devices whose barriers are slow: an invocation walks a group alone and keeps its best in
// order in its place of `to`. Most elements of a long group are worse than the last one kept and cost one comparison.

layout(constant_id = 3) const uint TYPE = 0;
layout(constant_id = 4) const bool LEAST = false;
layout(constant_id = 5) const bool FIRST = true;
layout(constant_id = 6) const bool LAST = true;

void main()
{
    uint group = linear_invocation();
    if (group >= push.rows * push.runs)
        return;
    uint row = group / push.runs, first = group % push.runs * push.span, base = group * push.kept, held = 0u;
    uint end = min(first + push.span, push.count);
    E worst = NOTHING;
    for (uint i = first; i < end; i++) {
        E e;
        if (FIRST)
            e = candidate(row, i, TYPE, LEAST);
        else
            e = Candidates(push.from).v[row * push.count + i];
        if (held == push.kept && !better(e, worst))
            continue;
        uint p = held < push.kept ? held++ : held - 1u;
        while (p > 0u) {
            E before = Candidates(push.to).v[base + p - 1u];
            if (better(before, e))
                break;
            Candidates(push.to).v[base + p] = before;
            p--;
        }
        Candidates(push.to).v[base + p] = e;
        worst = Candidates(push.to).v[base + held - 1u];
    }
    for (uint p = held; p < push.kept; p++)
        Candidates(push.to).v[base + p] = NOTHING;
    for (uint p = 0u; LAST && p < push.kept; p++)
        put(row, p, Candidates(push.to).v[base + p]);
}

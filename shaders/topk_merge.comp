// kernel: topk_merge
// kernel: topk_merge_wide -DWIDE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "topk.push.h"
#include "topk.glsl"

// Merges sorted runs of push.span candidates in pairs and keeps the first push.kept of each pair: an element's place
// is its own in its run plus the number of better ones in the other, found by bisection.

layout(constant_id = 3) const bool LAST = false;

void main()
{
    uint per_row = push.runs * push.span, i = linear_invocation();
    if (i >= push.rows * per_row)
        return;
    uint row = i / per_row, run = i % per_row / push.span, p = i % push.span;
    uint other = run ^ 1u, place = p;
    E e = Candidates(push.from).v[i];
    if (other < push.runs) {
        uint base = row * per_row + other * push.span, low = 0u, high = push.span;
        while (low < high) {
            uint middle = (low + high) / 2u;
            // Two fillers are equal: those of the left run come first, so that places stay distinct.
            E o = Candidates(push.from).v[base + middle];
            if (better(o, e) || (o == e && (run & 1u) != 0u))
                low = middle + 1u;
            else
                high = middle;
        }
        place += low;
    }
    if (!LAST && other >= push.runs && p + push.span < push.kept) // a run without a partner is filled up
        Candidates(push.to).v[(row * ((push.runs + 1u) / 2u) + run / 2u) * push.kept + p + push.span] = NOTHING;
    if (place >= push.kept)
        return;
    if (LAST)
        put(row, place, e);
    else
        Candidates(push.to).v[(row * ((push.runs + 1u) / 2u) + run / 2u) * push.kept + place] = e;
}

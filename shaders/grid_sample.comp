// kernel: grid_sample
// kernel: grid_sample_grad -DGRADIENT
// kernel: grid_taps -DTAP_LIST
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "conv_index.glsl"
#include "grid_sample.push.h"
#include "grid_line.glsl"

// GridSample: an invocation reads one grid position and makes a chunk of channels there, neighbours in the grid being
// neighbouring lanes. Floor: the bytes of the grid and of y, and those of x that are used.
// GRADIENT: dgrid, a sum over all channels. TAP_LIST: the elements that a position reads and their weights, for the
// gradient in x, which is scattered.
layout(constant_id = 7) const uint CHUNK = 1;

const uint TAPS_Y = AXES > 1u ? TAPS : 1u;
const uint TAPS_Z = AXES > 2u ? TAPS : 1u;

Line unit_line()
{
    Line l;
    l.index[0] = 0u;
    l.weight[0] = 1.0;
    l.slope[0] = 0.0;
    return l;
}

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    uint q = divide_by(i, push.magic_places, push.shift_places), place = i - q * push.places;
    uint n = divide_by(q, push.magic_chunks, push.shift_chunks), chunk = q - n * push.chunks;
    uint at = (n * push.places + place) * AXES;
    Line x = line_at(F32(push.grid).v[at], push.in_w), y = unit_line(), z = unit_line();
    if (AXES > 1u)
        y = line_at(F32(push.grid).v[at + 1u], push.in_h);
    if (AXES > 2u)
        z = line_at(F32(push.grid).v[at + 2u], push.in_d);
    uint plane = push.in_d * push.in_h * push.in_w;
#ifdef TAP_LIST
    uint to = (n * push.places + place) * TAPS * TAPS_Y * TAPS_Z;
    [[unroll]] for (uint a = 0u; a < TAPS_Z; ++a)
        [[unroll]] for (uint b = 0u; b < TAPS_Y; ++b)
            [[unroll]] for (uint c = 0u; c < TAPS; ++c) {
                U32(push.y).v[to] = (z.index[a] * push.in_h + y.index[b]) * push.in_w + x.index[c];
                F32(push.weight).v[to] = z.weight[a] * y.weight[b] * x.weight[c];
                to++;
            }
#else
    vec3 slope = vec3(0.0);
    uint first = chunk * CHUNK, end = min(first + CHUNK, push.channels);
    for (uint c = first; c < end; ++c) {
        uint from = n * push.channels + c;
        float sum = 0.0;
        vec3 change = vec3(0.0);
        [[unroll]] for (uint a = 0u; a < TAPS_Z; ++a)
            [[unroll]] for (uint b = 0u; b < TAPS_Y; ++b) {
                uint row = from * plane + (z.index[a] * push.in_h + y.index[b]) * push.in_w;
                float part = 0.0, part_slope = 0.0;
                [[unroll]] for (uint k = 0u; k < TAPS; ++k) {
                    bool read = x.weight[k] != 0.0 && y.weight[b] != 0.0 && z.weight[a] != 0.0;
#ifdef GRADIENT
                    read = read || x.slope[k] != 0.0 || y.slope[b] != 0.0 || z.slope[a] != 0.0;
#endif
                    float v = read ? F32(push.x).v[row + x.index[k]] : 0.0;
                    part += x.weight[k] * v;
                    part_slope += x.slope[k] * v;
                }
                sum += z.weight[a] * y.weight[b] * part;
                change += vec3(z.weight[a] * y.weight[b] * part_slope, z.weight[a] * y.slope[b] * part,
                               z.slope[a] * y.weight[b] * part);
            }
#ifdef GRADIENT
        slope += F32(push.dy).v[from * push.places + place] * change;
#else
        F32(push.y).v[from * push.places + place] = sum;
#endif
    }
#ifdef GRADIENT
    [[unroll]] for (uint d = 0u; d < AXES; ++d)
        F32(push.y).v[at + d] = slope[d];
#endif
#endif
}

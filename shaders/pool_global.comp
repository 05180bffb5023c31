// kernel: pool_global
// kernel: pool_global_max -DMAXIMUM
// kernel: pool_global_max_grad -DMAXIMUM -DGRADIENT
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "pool_global.push.h"

// Global pooling: a row reduction. LANES lanes share a row, a workgroup has ROWS rows; with one lane (software devices)
// there is no barrier. Floor: the bytes of x once (the gradient of the maximum: x, y, dy once, dx once).
layout(constant_id = 3) const uint LANES = 1;
layout(constant_id = 4) const uint ROWS = 1;

#ifdef GRADIENT
#define Sum uint // the first position of the maximum
#define START 0xffffffffu
#elif defined(MAXIMUM)
#define Sum float
#define START uintBitsToFloat(0xff800000u)
#else
#define Sum float
#define START 0.0
#endif

shared Sum sums[LANES * ROWS];

Sum join(Sum a, Sum b)
{
#ifdef GRADIENT
    return min(a, b);
#elif defined(MAXIMUM)
    return b > a || b != b ? b : a; // NaN wins
#else
    return a + b;
#endif
}

void main()
{
    uint lane = gl_LocalInvocationIndex % LANES, slot = gl_LocalInvocationIndex - lane;
    uint row = linear_group() * ROWS + gl_LocalInvocationIndex / LANES, first = row * push.plane;
    bool inside = row < push.rows;
    Sum sum = START;
    uint end = inside ? push.plane : 0u;
#ifdef GRADIENT
    float y = inside ? F32(push.y).v[row] : 0.0;
    for (uint i = lane; i < end; i += LANES) {
        float x = F32(push.x).v[first + i];
        if (x == y || (x != x && y != y))
            sum = min(sum, i);
    }
#else
    for (uint i = lane; i < end; i += LANES)
        sum = join(sum, F32(push.x).v[first + i]);
#endif
    if (LANES > 1) {
        sums[slot + lane] = sum;
        for (uint half_count = LANES / 2u; half_count > 0u; half_count /= 2u) {
            barrier();
            if (lane < half_count)
                sums[slot + lane] = join(sums[slot + lane], sums[slot + lane + half_count]);
        }
        barrier();
        sum = sums[slot];
    }
#ifdef GRADIENT
    float dy = inside ? F32(push.dy).v[row] : 0.0;
    for (uint i = lane; i < end; i += LANES)
        F32(push.dx).v[first + i] = i == sum ? dy : 0.0;
#else
    if (inside && lane == 0u)
#ifdef MAXIMUM
        F32(push.y).v[row] = sum;
#else
        F32(push.y).v[row] = sum / float(push.plane);
#endif
#endif
}

// kernel: det
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "det.push.h"

// Determinants by elimination with partial pivoting, in scratch memory. LANES invocations share a matrix; small ones, and
// those of software devices, have one each and need no barrier.
layout(constant_id = 3) const uint LANES = 1;
layout(constant_id = 4) const uint ITEMS = 1; // matrices of a workgroup

layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer Work { float v[]; };

shared float largest[LANES * ITEMS];
shared uint where[LANES * ITEMS];

void meet()
{
    if (LANES > 1u) {
        memoryBarrierBuffer();
        barrier();
    }
}

void main()
{
    uint lane = gl_LocalInvocationIndex % LANES, slot = gl_LocalInvocationIndex - lane, n = push.size;
    uint m = linear_group() * ITEMS + gl_LocalInvocationIndex / LANES;
    if (m >= push.matrices) // whole matrices only: with several lanes there is one a workgroup
        return;
    uint base = m * n * n;
    Work work = Work(push.work);
    float det = 1.0;
    for (uint i = lane; i < n * n; i += LANES)
        work.v[base + i] = F32(push.x).v[base + i];
    meet();
    for (uint k = 0u; k < n; ++k) {
        float best = -1.0;
        uint row = k;
        for (uint i = k + lane; i < n; i += LANES) {
            float v = abs(work.v[base + i * n + k]);
            row = v > best ? i : row;
            best = v > best ? v : best;
        }
        if (LANES > 1u) {
            largest[slot + lane] = best;
            where[slot + lane] = row;
            barrier();
            for (uint i = 0u; i < LANES; ++i) {
                bool better = largest[slot + i] > best || (largest[slot + i] == best && where[slot + i] < row);
                best = better ? largest[slot + i] : best;
                row = better ? where[slot + i] : row;
            }
        }
        float pivot = work.v[base + row * n + k];
        det *= row == k ? pivot : -pivot;
        meet(); // everyone has read the pivot
        for (uint j = k + lane; row != k && j < n; j += LANES) {
            float v = work.v[base + row * n + j];
            work.v[base + row * n + j] = work.v[base + k * n + j];
            work.v[base + k * n + j] = v;
        }
        meet();
        uint rest = n - k - 1u;
        for (uint e = lane; pivot != 0.0 && e < rest * rest; e += LANES) {
            uint i = k + 1u + e / rest, j = k + 1u + e % rest;
            work.v[base + i * n + j] -= work.v[base + i * n + k] / pivot * work.v[base + k * n + j];
        }
        meet();
    }
    if (lane == 0u)
        F32(push.y).v[m] = det;
}

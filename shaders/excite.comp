// kernel: excite
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "activation.glsl"
#include "octet.glsl"
#include "excite.push.h"

// The two small products of squeeze-and-excitation: y = act2(w2 act1(w1 x + b1) + b2) for every image. A workgroup makes
// THREADS outputs of an image and for that the few squeezed channels again, which costs less than a dispatch between the
// products. LANES threads share a row of w1; w2 lies transposed, so that neighbours read neighbours. x may come as the sums
// of an image's rows, which are added up first: the rest of the pooling.
//
// Floor: two rounds of latency, the bytes of w1 for every workgroup.
layout(constant_id = 3) const uint THREADS = 64;
layout(constant_id = 4) const uint LANES = 1;
layout(constant_id = 5) const uint MOST = 64;      // squeezed channels
layout(constant_id = 6) const bool HALVES = false; // w1 is float16, else float32 as all others
layout(constant_id = 7) const uint BIASES = 0;     // bit 0: b1, bit 1: b2
layout(constant_id = 8) const uint ACTIVATION_1 = 0;
layout(constant_id = 9) const uint ACTIVATION_2 = 0;
layout(constant_id = 10) const uint CHANNELS = 0; // at least those of x, if it comes in rows, else 0

const uint ROW = LANES + 1u; // a float of padding against bank conflicts
shared float parts[MOST * ROW];
shared float squeezed[MOST];
shared vec4 pooled[CHANNELS > 0 ? CHANNELS / 4 : 1];

void add_rows(uint image)
{
    uint width = push.octets * 2u;
    for (uint v = gl_LocalInvocationIndex; v < width; v += THREADS) {
        vec4 sum = vec4(0.0);
        for (uint r = 0u; r < push.rows; ++r)
            sum += F32x4(push.x).v[(image * push.rows + r) * width + v];
        pooled[v] = sum * push.factor;
    }
    barrier();
}

Octet pixel(uint image, uint octet)
{
    if (CHANNELS > 0)
        return Octet(pooled[octet * 2u], pooled[octet * 2u + 1u]);
    return load_octet(push.x, image * push.octets + octet, false);
}

void main()
{
    uint blocks = (push.outputs + THREADS - 1u) / THREADS, g = linear_group(), image = g / blocks;
    uint thread = gl_LocalInvocationIndex, lane = thread % LANES;
    if (image >= push.images)
        return;
    if (CHANNELS > 0)
        add_rows(image);
    for (uint row = thread / LANES; row < push.squeezed; row += THREADS / LANES) {
        float sum = 0.0;
        for (uint o = lane; o < push.octets; o += LANES) {
            Octet w = load_octet(push.w1, row * push.octets + o, HALVES), x = pixel(image, o);
            sum += dot(w.low, x.low) + dot(w.high, x.high);
        }
        parts[row * ROW + lane] = sum;
    }
    barrier();
    for (uint row = thread; row < push.squeezed; row += THREADS) {
        float sum = (BIASES & 1u) != 0u ? F32(push.b1).v[row] : 0.0;
        for (uint i = 0u; i < LANES; ++i)
            sum += parts[row * ROW + i];
        squeezed[row] = activate(ACTIVATION_1, sum, push.alpha1, push.beta1);
    }
    barrier();
    uint output_at = (g - image * blocks) * THREADS + thread;
    if (output_at >= push.outputs)
        return;
    float y = (BIASES & 2u) != 0u ? F32(push.b2).v[output_at] : 0.0;
    for (uint s = 0u; s < push.squeezed; ++s)
        y += F32(push.w2).v[s * push.outputs + output_at] * squeezed[s];
    F32(push.y).v[image * push.outputs + output_at] = activate(ACTIVATION_2, y, push.alpha2, push.beta2);
}

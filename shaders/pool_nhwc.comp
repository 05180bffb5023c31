// kernel: pool_nhwc
#version 450
#extension GL_GOOGLE_include_directive : require
#include "pool_window.glsl"
#include "octet.glsl"

// Maximum and average pooling in HK_LAYOUT_NHWC8, one octet of channels of one output a lane, lanes along the channels.
// Decisions as in pool.comp; indices are numbers of taps, a byte each. Floor: the bytes of X, Y and the indices.
layout(constant_id = 20) const uint OCTETS = 1;
layout(constant_id = 21) const bool HALVES = false;

struct Best {
    vec4 value;
    uvec4 tap;
};

void consider(vec4 v, uint tap, bool first, inout Best b)
{
    bvec4 is_nan = greaterThan(floatBitsToUint(v) & 0x7fffffffu, uvec4(0x7f800000u));
    bvec4 wins = bvec4(uvec4(greaterThan(v, b.value)) | uvec4(is_nan) | uvec4(first));
    b.value = mix(b.value, v, wins);
    b.tap = mix(b.tap, uvec4(tap), wins);
}

uint bytes_of(uvec4 t) { return t.x | t.y << 8 | t.z << 16 | t.w << 24; }

void main()
{
    uint i = linear_invocation();
    if (i >= push.count)
        return;
    Place p = find_place(i, push.out_h, push.out_w, OCTETS); // plane: image, z: row, y: column, x: octet
    const vec4 least = uintBitsToFloat(uvec4(0xff800000u)); // of a window that lies in the padding alone
    Best low = Best(least, uvec4(0xffu)), high = low;
    Octet sum = Octet(vec4(0.0), vec4(0.0));
    bool first = true;
    for (uint r = 0u; r < KH; ++r) {
        int y = tap_source(true, int(p.z), r, STRIDE_H, DILATION_H, push.pad_h);
        if (!within(y, push.in_h))
            continue;
        for (uint s = 0u; s < KW; ++s) {
            int x = tap_source(true, int(p.y), s, STRIDE_W, DILATION_W, push.pad_w);
            if (!within(x, push.in_w))
                continue;
            Octet v = load_octet(push.from, ((p.plane * push.in_h + uint(y)) * push.in_w + uint(x)) * OCTETS + p.x, HALVES);
            if (AVERAGE) {
                sum.low += v.low;
                sum.high += v.high;
            } else {
                consider(v.low, r * KW + s, first, low);
                consider(v.high, r * KW + s, first, high);
            }
            first = false;
        }
    }
    float scale = AVERAGE ? average_scale(0u, p.z, p.y) : 0.0;
    store_octet(push.to, i, HALVES,
                AVERAGE ? Octet(sum.low * scale, sum.high * scale) : Octet(low.value, high.value));
    if (INDICES != 0u)
        U32x2(push.indices).v[i] = uvec2(bytes_of(low.tap), bytes_of(high.tap));
}

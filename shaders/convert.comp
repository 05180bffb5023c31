// kernel: convert_f32_f16 -DTO_F16
// kernel: convert_f16_f32
// kernel: convert_bf16_f32 -DBF16
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "convert.push.h"

// fp32 <-> fp16 storage, and bf16 to fp32, eight elements an invocation, in 32-bit words: needs no 16-bit capability. WIDE: both
// addresses are multiples of 16.
layout(constant_id = 3) const uint WIDE = 0;

#ifdef TO_F16
void main()
{
    uint i = linear_invocation() * 8u;
    F32 x = F32(push.x);
    U32 y = U32(push.y);
    if (i + 8u <= push.count && WIDE != 0) {
        vec4 a = F32x4(push.x).v[i >> 2], b = F32x4(push.x).v[(i >> 2) + 1u];
        U32x4(push.y).v[i >> 3] = uvec4(packHalf2x16(a.xy), packHalf2x16(a.zw), packHalf2x16(b.xy), packHalf2x16(b.zw));
        return;
    }
    uint end = min(i + 8u, push.count);
    for (; i + 2u <= end; i += 2u)
        y.v[i >> 1] = packHalf2x16(vec2(x.v[i], x.v[i + 1u]));
    if (i < end) // the other half of the last word is not ours
        y.v[i >> 1] = (y.v[i >> 1] & 0xffff0000u) | (packHalf2x16(vec2(x.v[i], 0.0)) & 0xffffu);
}
#else
#ifdef BF16
vec2 unpack(uint w) { return uintBitsToFloat(uvec2(w << 16u, w & 0xffff0000u)); }
#else
vec2 unpack(uint w) { return unpackHalf2x16(w); }
#endif

void main()
{
    uint i = linear_invocation() * 8u;
    U32 x = U32(push.x);
    F32 y = F32(push.y);
    if (i + 8u <= push.count && WIDE != 0) {
        uvec4 h = U32x4(push.x).v[i >> 3];
        F32x4(push.y).v[i >> 2] = vec4(unpack(h.x), unpack(h.y));
        F32x4(push.y).v[(i >> 2) + 1u] = vec4(unpack(h.z), unpack(h.w));
        return;
    }
    for (uint end = min(i + 8u, push.count); i < end; ++i) {
        vec2 pair = unpack(x.v[i >> 1]);
        y.v[i] = (i & 1u) == 0u ? pair.x : pair.y;
    }
}
#endif

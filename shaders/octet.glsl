// Eight neighbouring channels of HK_LAYOUT_NHWC8, stored as float32 (two vectors) or float16 (one). The halves are packed
// by hand, so that no 16-bit storage is needed.
#ifndef OCTET_GLSL
#define OCTET_GLSL

struct Octet {
    vec4 low;
    vec4 high;
};

Octet load_octet(uvec2 base, uint i, bool halves)
{
    if (!halves)
        return Octet(F32x4(base).v[2u * i], F32x4(base).v[2u * i + 1u]);
    uvec4 w = U32x4(base).v[i];
    return Octet(vec4(unpackHalf2x16(w.x), unpackHalf2x16(w.y)), vec4(unpackHalf2x16(w.z), unpackHalf2x16(w.w)));
}

vec4 load_half_octet(uvec2 base, uint i, bool halves)
{
    if (!halves)
        return F32x4(base).v[i];
    uvec2 w = U32x2(base).v[i];
    return vec4(unpackHalf2x16(w.x), unpackHalf2x16(w.y));
}

uvec2 pack_half_octet(vec4 x) { return uvec2(packHalf2x16(x.xy), packHalf2x16(x.zw)); }

void store_octet(uvec2 base, uint i, bool halves, Octet o)
{
    if (halves) {
        U32x4(base).v[i] = uvec4(packHalf2x16(o.low.xy), packHalf2x16(o.low.zw), packHalf2x16(o.high.xy), packHalf2x16(o.high.zw));
    } else {
        F32x4(base).v[2u * i] = o.low;
        F32x4(base).v[2u * i + 1u] = o.high;
    }
}

#endif

// Rows in units of four elements: whole vectors where the host knows them aligned, else single elements with the
// missing ones of the last unit left out. Element j of a row lies at base + j * inner.
#ifndef REDUCE_ROWS_GLSL
#define REDUCE_ROWS_GLSL

layout(constant_id = 8) const uint HELD = 0; // units each invocation keeps in registers; 0: rows are read again
layout(constant_id = 9) const bool VECTOR = false; // rows are whole, aligned vectors and inner is 1

const uint HELD_SPACE = HELD > 0u ? HELD : 1u;

vec4 row_load(uvec2 address, uint base, uint inner, uint extent, uint unit, float missing)
{
    if (VECTOR)
        return F32x4(address).v[base / 4u + unit];
    vec4 x = vec4(missing);
    for (uint k = 0u; k < 4u; k++)
        if (4u * unit + k < extent)
            x[k] = F32(address).v[base + (4u * unit + k) * inner];
    return x;
}

void row_store(uvec2 address, uint base, uint inner, uint extent, uint unit, vec4 x)
{
    if (VECTOR) {
        F32x4(address).v[base / 4u + unit] = x;
        return;
    }
    for (uint k = 0u; k < 4u; k++)
        if (4u * unit + k < extent)
            F32(address).v[base + (4u * unit + k) * inner] = x[k];
}

// 1 for elements of the row, 0 for those that complete its last unit.
vec4 row_mask(uint extent, uint unit)
{
    if (VECTOR)
        return vec4(1.0);
    return mix(vec4(0.0), vec4(1.0), lessThan(4u * unit + uvec4(0u, 1u, 2u, 3u), uvec4(extent)));
}

float sum4(vec4 x) { return (x.x + x.y) + (x.z + x.w); }
float max4(vec4 x) { return max(max(x.x, x.y), max(x.z, x.w)); }

#endif

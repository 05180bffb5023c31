// What the channel kernels share: the walk over a channel's units, loads and stores, and the arithmetic that decides.
#ifndef BATCHNORM_GLSL
#define BATCHNORM_GLSL

#include "batchnorm_geometry.push.h"

layout(constant_id = 8) const uint HELD = 1; // units that an invocation loads before it works on them
layout(constant_id = 9) const bool VECTOR = false; // every unit is whole, contiguous and aligned
layout(constant_id = 10) const bool RELU = false;
layout(constant_id = 11) const bool POOL = false; // 2x2 windows of stride 2, after ReLU

#define UINT_FIELD(name) uint name;
#define FLOAT_FIELD(name) float name;
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Geometry {
    BATCHNORM_GEOMETRY(UINT_FIELD, FLOAT_FIELD)
};

// A work item: chunk `chunk` of channel `channel`, units [first, end), empty beyond the last item.
struct Item {
    uint channel, chunk, first, end;
    bool live;
};

Item item_of(Geometry g)
{
    uint i = team_item();
    Item it;
    it.live = i < g.channels * g.chunks;
    it.chunk = it.live ? i / g.channels : 0u;
    it.channel = it.live ? i - it.chunk * g.channels : 0u;
    it.first = it.chunk * g.chunk;
    it.end = it.live ? min(g.units, it.first + g.chunk) : it.first;
    return it;
}

// Unit number → (unit in its row, pair of image rows, sample), and the same LANES units further without a division.
uvec3 place_of(Geometry g, uint unit)
{
    uint row = unit / g.row_units;
    uint sample_number = POOL ? row / g.rows : row;
    return uvec3(unit - row * g.row_units, POOL ? row - sample_number * g.rows : 0u, sample_number);
}

uvec3 place_next(Geometry g, uvec3 place, uvec3 stride)
{
    place += stride;
    if (place.x >= g.row_units) {
        place.x -= g.row_units;
        place.y += POOL ? 1u : 0u;
        place.z += POOL ? 0u : 1u;
    }
    if (POOL && place.y >= g.rows) {
        place.y -= g.rows;
        place.z++;
    }
    return place;
}

uint x_offset(Geometry g, uint channel, uvec3 place)
{
    uint rows = POOL ? place.y * 2u * g.row_extent : 0u;
    return place.z * g.n_stride + channel * g.c_stride + rows + place.x * 4u * g.s_stride;
}

// Of the tensor behind the activation: pooled, or x's own.
uint y_offset(Geometry g, uint channel, uvec3 place)
{
    if (!POOL)
        return x_offset(g, channel, place);
    return place.z * g.y_n_stride + channel * g.y_c_stride + place.y * (g.row_extent / 2u) + place.x * 2u;
}

// Elements of the unit that exist.
uint filled(Geometry g, uvec3 place) { return VECTOR ? 4u : min(4u, g.row_extent - 4u * place.x); }

vec4 load4(Geometry g, uvec2 address, uint at, uint count)
{
    if (VECTOR)
        return F32x4(address).v[at / 4u];
    vec4 x = vec4(0.0);
    for (uint k = 0u; k < 4u; k++)
        if (k < count)
            x[k] = F32(address).v[at + k * g.s_stride];
    return x;
}

void store4(Geometry g, uvec2 address, uint at, uint count, vec4 x)
{
    if (VECTOR) {
        F32x4(address).v[at / 4u] = x;
        return;
    }
    for (uint k = 0u; k < 4u; k++)
        if (k < count)
            F32(address).v[at + k * g.s_stride] = x[k];
}

// The two windows of a unit.
vec2 load2(uvec2 address, uint at, uint count)
{
    if (VECTOR)
        return F32x2(address).v[at / 2u];
    return vec2(F32(address).v[at], count > 1u ? F32(address).v[at + 1u] : 0.0);
}

void store2(uvec2 address, uint at, uint count, vec2 x)
{
    if (VECTOR) {
        F32x2(address).v[at / 2u] = x;
        return;
    }
    F32(address).v[at] = x.x;
    if (count > 1u)
        F32(address).v[at + 1u] = x.y;
}

float sum4(vec4 x) { return (x.x + x.y) + (x.z + x.w); }

// 1 / sqrt(variance + epsilon), from whichever kernel.
float deviation_of(float variance, float epsilon) { return 1.0 / sqrt(variance + epsilon); }

// What a channel does to x: (x - mean) * slope + bias. Forward and recomputation in backward passes must give the same
// bits, because ReLU's sign and the window's maximum are decided on them.
struct Affine {
    float mean, slope, bias;
};

vec4 normalize(Affine a, vec4 x)
{
    precise vec4 centered = x - a.mean;
    precise vec4 scaled = centered * a.slope;
    precise vec4 z = scaled + a.bias;
    return z;
}

vec4 relu(vec4 z) { return mix(z, vec4(0.0), lessThan(z, vec4(0.0))); } // NaN stays NaN

bool is_nan(float x) { return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u; }

// A 2x2 window: its maximum and the place of the first one in row-major order; NaN wins. With statistics of the batch a
// channel has no NaN or is all NaN, and then the first one is never replaced: includers say by SINGLE_NAN whether to look.
struct Window {
    float best;
    uint place;
};

void consider(float z, uint place, inout Window w)
{
    bool wins = z > w.best || (SINGLE_NAN && is_nan(z));
    w.best = wins ? z : w.best;
    w.place = wins ? place : w.place;
}

Window window_max(vec2 upper, vec2 lower)
{
    Window w = Window(upper.x, 0u);
    consider(upper.y, 1u, w);
    consider(lower.x, 2u, w);
    consider(lower.y, 3u, w);
    return w;
}

// The gradient of a window's maximum, at the window's four elements: upper row, lower row.
vec4 route(Window w, float dy)
{
    float d = RELU && w.best <= 0.0 ? 0.0 : dy;
    return mix(vec4(0.0), vec4(d), equal(uvec4(w.place), uvec4(0u, 1u, 2u, 3u)));
}

// The gradient dy of a unit's activation brought back to its upper and lower row of normalized values z (without
// pooling: to the upper one alone). ReLU passes it where z > 0, the window to its first maximum.
void gate(vec4 upper, vec4 lower, vec4 dy, out vec4 d_upper, out vec4 d_lower)
{
    if (POOL) {
        vec4 left = route(window_max(upper.xy, lower.xy), dy.x);
        vec4 right = route(window_max(upper.zw, lower.zw), dy.y);
        d_upper = vec4(left.xy, right.xy);
        d_lower = vec4(left.zw, right.zw);
    } else {
        d_upper = RELU ? mix(dy, vec4(0.0), lessThanEqual(upper, vec4(0.0))) : dy;
        d_lower = vec4(0.0);
    }
}

#endif

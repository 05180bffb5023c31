// What GridSample reads along one axis for one grid coordinate: up to four neighbours, their weights, and how the weights
// change with the grid.
#ifndef GRID_LINE_GLSL
#define GRID_LINE_GLSL

layout(constant_id = 3) const uint AXES = 2;
layout(constant_id = 4) const uint METHOD = 1;  // 0 nearest, 1 linear, 2 cubic
layout(constant_id = 5) const uint PADDING = 0; // 0 zeros, 1 border, 2 reflection
// -1 and 1 are the edges (0) or centres (1) of the outermost elements; 2: the grid counts elements
layout(constant_id = 6) const uint SCALE = 0;
const bool CORNERS = SCALE == 1u;
const bool PIXELS = SCALE == 2u;

const uint TAPS = METHOD == 0u ? 1u : METHOD == 1u ? 2u : 4u;

struct Line {
    uint index[4];
    float weight[4]; // 0 where there is no element
    float slope[4];  // of weight, by the grid's coordinate
};

float mirrored(float x, float low, float high, inout float slope)
{
    float range = high - low, over = x < low ? low - x : x - high;
    if (over <= 0.0)
        return x;
    if (range <= 0.0) {
        slope = 0.0;
        return low;
    }
    float turns = floor(over / range), rest = over - turns * range;
    bool from_low = (x < low) == (mod(turns, 2.0) == 0.0);
    slope = from_low == (x < low) ? -slope : slope; // the rest grows with x above high, shrinks with it below low
    return from_low ? low + rest : high - rest;
}

const float A = -0.75;

vec2 filter_at(float distance, float side) // value, derivative by x
{
    if (METHOD == 0u)
        return vec2(1.0, 0.0);
    if (METHOD == 1u)
        return vec2(1.0 - distance, -side);
    if (distance <= 1.0)
        return vec2(((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0,
                    side * (3.0 * (A + 2.0) * distance - 2.0 * (A + 3.0)) * distance);
    return vec2(((A * distance - 5.0 * A) * distance + 8.0 * A) * distance - 4.0 * A,
                side * ((3.0 * A * distance - 10.0 * A) * distance + 8.0 * A));
}

Line line_at(float g, uint extent)
{
    float n = float(extent), low = CORNERS ? 0.0 : -0.5, high = CORNERS ? n - 1.0 : n - 0.5;
    precise float x = PIXELS ? g : CORNERS ? (g + 1.0) * 0.5 * (n - 1.0) : ((g + 1.0) * n - 1.0) * 0.5;
    float slope = PIXELS ? 1.0 : CORNERS ? (n - 1.0) * 0.5 : n * 0.5, ignored;
    if (!(abs(x) < 1.0e9))
        x = -1.0e6; // far outside; NaN too
    x = METHOD == 0u ? roundEven(x) : x;
    // Cubic taps are bounded one by one, as in PyTorch; two elements beyond the border all are the border's.
    float beyond = METHOD == 2u ? 2.0 : 0.0;
    if (PADDING == 1u && (x < low - beyond || x > high + beyond)) {
        x = clamp(x, -beyond, n - 1.0 + beyond);
        slope = 0.0;
    }
    if (PADDING == 2u)
        x = mirrored(x, low, high, slope);
    x = METHOD == 0u ? roundEven(x) : x;
    float whole = floor(x);
    Line l;
    [[unroll]] for (uint k = 0u; k < TAPS; ++k) {
        float at = whole + float(k) - (METHOD == 2u ? 1.0 : 0.0);
        vec2 f = filter_at(abs(x - at), x < at ? -1.0 : 1.0);
        bool inside = at >= 0.0 && at <= n - 1.0;
        ignored = 0.0;
        if (PADDING == 2u && !inside)
            at = trunc(mirrored(at, low, high, ignored));
        l.index[k] = uint(clamp(at, 0.0, n - 1.0));
        l.weight[k] = PADDING == 0u && !inside ? 0.0 : f.x;
        l.slope[k] = PADDING == 0u && !inside ? 0.0 : f.y * slope;
    }
    return l;
}

#endif

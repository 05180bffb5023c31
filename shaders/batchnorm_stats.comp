// kernel: batchnorm_stats
// kernel: batchnorm_stats_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#define SINGLE_NAN false
#include "batchnorm.glsl"
#include "batchnorm_stats.push.h"

// Mean and squared differences of each chunk of each channel, reading x once. An invocation takes a block of units,
// sums them and their squares around the block's own first elements, which keeps the digits that sums around 0 would
// lose when the mean is large; blocks, then invocations, are merged by the formula of Chan, Golub and LeVeque (1983).

const uint BLOCK = 32; // units; bounds both the number of terms and how bad a choice of first elements can be

// (mean, sum of squared differences from it, elements, what rounding the mean lost): a ReLU behind the normalization
// decides by x > mean, so every lost digit of the mean turns decisions over.
vec4 merge(vec4 a, vec4 b)
{
    float count = a.z + b.z;
    if (count == 0.0)
        return a;
    precise float share = b.z / count, apart = (b.x - a.x) + (b.w - a.w), step = apart * share;
    precise float mean = a.x + step, back = mean - a.x, lost = (a.x - (mean - back)) + (step - back); // Knuth's TwoSum
    return vec4(mean, a.y + b.y + apart * apart * a.z * share, count, a.w + lost);
}
TEAM_REDUCE(team_merge, vec4, merge)

void main()
{
    Geometry g = Geometry(push.geometry);
    Item it = item_of(g);
    uvec3 stride = place_of(g, LANES);
    uvec3 place = place_of(g, it.first + team_lane());
    vec4 total = vec4(0.0);
    float around = 0.0, sum = 0.0, squares = 0.0, count = 0.0;
    uint left = 0u;
    for (uint unit = it.first + team_lane(); unit < it.end; unit += HELD * LANES) {
        vec4 x[HELD];
        uint n[HELD];
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            x[q] = vec4(0.0);
            n[q] = unit + q * LANES < it.end ? filled(g, place) : 0u;
            if (n[q] > 0u)
                x[q] = load4(g, push.x, x_offset(g, it.channel, place), n[q]);
            place = place_next(g, place, stride);
        }
        if (left == 0u) {
            around = sum4(x[0]) / float(n[0]);
            left = BLOCK;
        }
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            vec4 d = mix(vec4(0.0), x[q] - around, lessThan(uvec4(0u, 1u, 2u, 3u), uvec4(n[q])));
            sum += sum4(d);
            squares += dot(d, d);
            count += float(n[q]);
        }
        left -= min(left, HELD);
        if (left == 0u || unit + HELD * LANES >= it.end) {
            precise float mean = sum / count, whole = around + mean, back = whole - around;
            precise float lost = (around - (whole - back)) + (mean - back);
            total = merge(total, vec4(whole, max(squares - sum * mean, 0.0), count, lost));
            sum = squares = count = 0.0;
        }
    }
    total = team_merge(total);
    if (it.live && team_lane() == 0u)
        F32x4(push.partial).v[it.chunk * g.channels + it.channel] = total;
}

// kernel: batchnorm_stats
// kernel: batchnorm_stats_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "batchnorm.glsl"
#include "batchnorm_stats.push.h"

// Mean and squared differences of each chunk of each channel, reading x once: a block of the chunk is held in registers
// (or, with HELD = 0, in the cache), its mean is found, then the squares of what differs from it, and blocks are merged by
// the formula of Chan, Golub and LeVeque (1983). No digits are lost however far the mean is from 0.

const uint CACHED = 256; // units per invocation and block with HELD = 0

TEAM_REDUCE(team_sum, float, team_add)
TEAM_REDUCE(team_sum2, vec2, team_add)

vec4 squared_difference(vec4 x, float mean, uint count)
{
    vec4 d = mix(vec4(0.0), x - mean, lessThan(vec4(0.0, 1.0, 2.0, 3.0), vec4(float(count))));
    return d * d;
}

// (mean, squared differences, elements) of units [first, end).
vec3 block_statistics(Geometry g, Item it, uint first, uint end)
{
    uvec3 stride = place_of(g, LANES);
    uvec3 start = place_of(g, first + team_lane());
    uvec3 place = start;
    vec2 sums = vec2(0.0); // and number of elements
    float squares = 0.0;
    if (HELD > 0u) {
        const uint space = HELD > 0u ? HELD : 1u;
        vec4 x[space];
        uint count[space];
        [[unroll]] for (uint q = 0u; q < HELD; q++) {
            bool inside = first + team_lane() + q * LANES < end;
            count[q] = inside ? filled(g, place) : 0u;
            x[q] = vec4(0.0);
            if (inside)
                x[q] = load4(g, push.x, x_offset(g, it.channel, place), count[q]);
            sums += vec2(sum4(x[q]), float(count[q]));
            place = place_next(g, place, stride);
        }
        sums = team_sum2(sums);
        float mean = sums.y > 0.0 ? sums.x / sums.y : 0.0;
        [[unroll]] for (uint q = 0u; q < HELD; q++)
            squares += sum4(squared_difference(x[q], mean, count[q]));
        return vec3(mean, team_sum(squares), sums.y);
    }
    for (uint unit = first + team_lane(); unit < end; unit += LANES) {
        uint count = filled(g, place);
        sums += vec2(sum4(load4(g, push.x, x_offset(g, it.channel, place), count)), float(count));
        place = place_next(g, place, stride);
    }
    sums = team_sum2(sums);
    float mean = sums.y > 0.0 ? sums.x / sums.y : 0.0;
    place = start;
    for (uint unit = first + team_lane(); unit < end; unit += LANES) {
        uint count = filled(g, place);
        squares += sum4(squared_difference(load4(g, push.x, x_offset(g, it.channel, place), count), mean, count));
        place = place_next(g, place, stride);
    }
    return vec3(mean, team_sum(squares), sums.y);
}

void main()
{
    Geometry g = Geometry(push.geometry);
    Item it = item_of(g);
    uint block = LANES * (HELD > 0u ? HELD : CACHED);
    vec3 total = vec3(0.0);
    for (uint done = 0u; done < g.chunk; done += block) { // as often in every team: there are barriers inside
        vec3 b = block_statistics(g, it, it.first + done, min(it.end, it.first + done + block));
        if (b.z > 0.0) {
            float share = b.z / (total.z + b.z), apart = b.x - total.x;
            total.y += b.y + apart * apart * total.z * share;
            total.x += apart * share;
            total.z += b.z;
        }
    }
    if (it.live && team_lane() == 0u)
        F32x4(push.partial).v[it.chunk * g.channels + it.channel] = vec4(total, 0.0);
}

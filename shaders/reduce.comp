// kernel: reduce_f32 -DREAL=1
// kernel: reduce_f32_subgroup -DREAL=1 -DSUBGROUP=1 needs=subgroup,subgroup-size
// kernel: reduce_i32 -DELEMENT=int -DELEMENT4=ivec4
// kernel: reduce_u32 -DELEMENT=uint -DELEMENT4=uvec4
// kernel: reduce_i64 -DWIDE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "reduce.glsl"
#include "reduce.push.h"

// One reduction of any set of axes. A work item is one output (or four neighbouring ones) of one chunk of what is
// reduced; with several chunks, a second dispatch combines their results. The walk over the reduced dimensions is an
// odometer: a lane's step has a digit in each dimension, so the loop adds and carries but never divides.

layout(constant_id = 8) const uint COMBINE = 0;
layout(constant_id = 9) const uint BEFORE = 0; // what is done to each element
layout(constant_id = 10) const uint AFTER = 0; // what is done to the result
layout(constant_id = 11) const uint FORM = 0;
layout(constant_id = 12) const uint KEPT = 1; // dimensions of each kind
layout(constant_id = 13) const uint REDUCED = 1;
layout(constant_id = 14) const bool UNSIGNED = false; // of 64-bit integers

// The numbers are those of hk_combine, hk_before, hk_after and hk_reduce_form in ops/support/reduce.h.
const uint COMBINE_SUM = 0, COMBINE_PROD = 1, COMBINE_MAX = 2, COMBINE_MIN = 3;
const uint BEFORE_NOTHING = 0, BEFORE_ABS = 1, BEFORE_SQUARE = 2, BEFORE_EXP_SHIFTED = 3;
const uint AFTER_NOTHING = 0, AFTER_MEAN = 1, AFTER_SQRT = 2, AFTER_LOG = 3, AFTER_LOG_SHIFTED = 4;
const uint FORM_SINGLE = 0, FORM_ALONG = 1, FORM_ACROSS = 2; // one element; four along the reduction; four outputs

// Partial sums start anew after this many terms, so that rounding errors grow with the square root of few terms only.
const uint BLOCK = 128;

#ifdef REAL
#define ELEMENT float
#define ELEMENT4 vec4
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Elements { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Elements4 { vec4 v[]; };
bool is_nan(float x) { return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u; }

float identity()
{
    return COMBINE == COMBINE_SUM    ? 0.0
           : COMBINE == COMBINE_PROD ? 1.0
           : COMBINE == COMBINE_MAX  ? uintBitsToFloat(0xff800000u)
                                     : uintBitsToFloat(0x7f800000u);
}
float combine(float a, float b)
{
    if (COMBINE == COMBINE_SUM)
        return a + b;
    if (COMBINE == COMBINE_PROD)
        return a * b;
    bool second = COMBINE == COMBINE_MAX ? b > a : b < a;
    return !is_nan(a) && (second || is_nan(b)) ? b : a;
}
// An infinite maximum is no shift: it would make inf - inf of the elements that decide the result.
float finite(float shift) { return (floatBitsToUint(shift) & 0x7fffffffu) >= 0x7f800000u ? 0.0 : shift; }
float before(float x, float shift)
{
    return BEFORE == BEFORE_ABS           ? abs(x)
           : BEFORE == BEFORE_SQUARE      ? x * x
           : BEFORE == BEFORE_EXP_SHIFTED ? exp(x - shift)
                                          : x;
}
float after(float x, float shift)
{
    return AFTER == AFTER_MEAN          ? x / float(push.count)
           : AFTER == AFTER_SQRT        ? sqrt(x)
           : AFTER == AFTER_LOG         ? log(x)
           : AFTER == AFTER_LOG_SHIFTED ? log(x) + shift
                                        : x;
}
#elif defined(WIDE)
// 64-bit integers as (low, high) words: shaderInt64 is optional.
#define ELEMENT uvec2
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Elements { uvec2 v[]; };

uvec2 plus(uvec2 a, uvec2 b)
{
    uint carry;
    uint low = uaddCarry(a.x, b.x, carry);
    return uvec2(low, a.y + b.y + carry);
}
uvec2 negative(uvec2 a) { return plus(~a, uvec2(1u, 0u)); }
uvec2 times(uvec2 a, uvec2 b)
{
    uint high, low;
    umulExtended(a.x, b.x, high, low);
    return uvec2(low, high + a.x * b.y + a.y * b.x);
}
bool below(uvec2 a, uvec2 b)
{
    bool high = UNSIGNED ? a.y < b.y : int(a.y) < int(b.y);
    return a.y == b.y ? a.x < b.x : high;
}
// Schoolbook division, once per output: a / d for unsigned a.
uvec2 over(uvec2 a, uint d)
{
    uint rest = 0u;
    uvec2 q = uvec2(0u);
    for (int i = 63; i >= 0; i--) {
        bool overflow = (rest & 0x80000000u) != 0u;
        rest = rest << 1 | ((i >= 32 ? a.y >> (i - 32) : a.x >> i) & 1u);
        if (overflow || rest >= d) {
            rest -= d;
            if (i >= 32)
                q.y |= 1u << (i - 32);
            else
                q.x |= 1u << i;
        }
    }
    return q;
}
uvec2 identity()
{
    uvec2 least = UNSIGNED ? uvec2(0u) : uvec2(0u, 0x80000000u);
    return COMBINE == COMBINE_SUM    ? uvec2(0u)
           : COMBINE == COMBINE_PROD ? uvec2(1u, 0u)
           : COMBINE == COMBINE_MAX  ? least
                                     : ~least;
}
uvec2 combine(uvec2 a, uvec2 b)
{
    return COMBINE == COMBINE_SUM    ? plus(a, b)
           : COMBINE == COMBINE_PROD ? times(a, b)
           : COMBINE == COMBINE_MAX  ? (below(a, b) ? b : a)
                                     : (below(b, a) ? b : a);
}
uvec2 finite(uvec2 shift) { return shift; }
uvec2 before(uvec2 x, uvec2 shift)
{
    bool flip = BEFORE == BEFORE_ABS && !UNSIGNED && int(x.y) < 0;
    return BEFORE == BEFORE_SQUARE ? times(x, x) : flip ? negative(x) : x;
}
uvec2 after(uvec2 x, uvec2 shift)
{
    if (AFTER != AFTER_MEAN)
        return x;
    bool flip = !UNSIGNED && int(x.y) < 0;
    uvec2 q = over(flip ? negative(x) : x, push.count);
    return flip ? negative(q) : q;
}
#else
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Elements { ELEMENT v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Elements4 { ELEMENT4 v[]; };

ELEMENT identity()
{
    ELEMENT least = ELEMENT(-1) < ELEMENT(0) ? ELEMENT(0x80000000u) : ELEMENT(0);
    return COMBINE == COMBINE_SUM    ? ELEMENT(0)
           : COMBINE == COMBINE_PROD ? ELEMENT(1)
           : COMBINE == COMBINE_MAX  ? least
                                     : ~least;
}
ELEMENT combine(ELEMENT a, ELEMENT b)
{
    return COMBINE == COMBINE_SUM    ? a + b
           : COMBINE == COMBINE_PROD ? a * b
           : COMBINE == COMBINE_MAX  ? max(a, b)
                                     : min(a, b);
}
ELEMENT finite(ELEMENT shift) { return shift; }
ELEMENT before(ELEMENT x, ELEMENT shift)
{
    return BEFORE == BEFORE_SQUARE ? x * x : BEFORE == BEFORE_ABS && x < ELEMENT(0) ? -x : x;
}
ELEMENT after(ELEMENT x, ELEMENT shift)
{
    if (AFTER != AFTER_MEAN)
        return x;
    bool flip = x < ELEMENT(0); // dividing negative numbers is not defined everywhere
    ELEMENT q = ELEMENT(uint(flip ? -x : x) / push.count);
    return flip ? -q : q;
}
#endif

TEAM_REDUCE(team_combine, ELEMENT, combine)

// Where the walk stands: the offset and its digits.
uint at;
uvec3 digit;
uvec4 step_digit; // of LANES units; [3] is the outermost dimension, which never carries

uvec3 r_extent() { return uvec3(push.r_extent0, push.r_extent1, push.r_extent2); }

uvec4 split(uint n)
{
    uvec4 d = uvec4(n, 0u, 0u, 0u);
    if (REDUCED > 1u) {
        d.y = n / push.r_extent0;
        d.x = n - d.y * push.r_extent0;
    }
    if (REDUCED > 2u) {
        d.z = d.y / push.r_extent1;
        d.y -= d.z * push.r_extent1;
    }
    if (REDUCED > 3u) {
        d.w = d.z / push.r_extent2;
        d.z -= d.w * push.r_extent2;
    }
    return d;
}

uint offset_of(uvec4 d)
{
    return d.x * push.r_stride0 + d.y * push.r_stride1 + d.z * push.r_stride2 + d.w * push.r_stride3;
}

// One digit overflowed: it goes back by its extent and the next one forward.
void carry(uint extent, uint stride, uint next_stride, inout uint d, inout uint next)
{
    bool over_end = d >= extent;
    d -= over_end ? extent : 0u;
    next += over_end ? 1u : 0u;
    at += over_end ? next_stride - extent * stride : 0u; // wraps and is right modulo 2^32
}

void advance(uint step_offset)
{
    at += step_offset;
    uint outermost = 0u;
    if (REDUCED > 1u) {
        digit += step_digit.xyz;
        carry(push.r_extent0, push.r_stride0, push.r_stride1, digit.x, digit.y);
    }
    if (REDUCED > 2u)
        carry(push.r_extent1, push.r_stride1, push.r_stride2, digit.y, digit.z);
    if (REDUCED > 3u)
        carry(push.r_extent2, push.r_stride2, push.r_stride3, digit.z, outermost);
}

// REDUCE_WALK(name, T, LOAD): combines `count` units from where the walk stands, four at a time in four accumulators.
#define REDUCE_WALK(name, T, LOAD, COMBINE_T, BEFORE_T)                                                                \
    T name(uint count, T shift)                                                                                        \
    {                                                                                                                  \
        T total = T(identity());                                                                                       \
        uint step_offset = offset_of(step_digit);                                                                      \
        while (count > 0u) {                                                                                           \
            uint block = min(count, 4u * BLOCK);                                                                       \
            count -= block;                                                                                            \
            T a = T(identity()), b = a, c = a, d = a;                                                                  \
            for (; block >= 4u; block -= 4u) {                                                                         \
                uint at0 = at;                                                                                         \
                advance(step_offset);                                                                                  \
                uint at1 = at;                                                                                         \
                advance(step_offset);                                                                                  \
                uint at2 = at;                                                                                         \
                advance(step_offset);                                                                                  \
                T x0 = LOAD(at0), x1 = LOAD(at1), x2 = LOAD(at2), x3 = LOAD(at);                                       \
                advance(step_offset);                                                                                  \
                a = COMBINE_T(a, BEFORE_T(x0, shift));                                                                 \
                b = COMBINE_T(b, BEFORE_T(x1, shift));                                                                 \
                c = COMBINE_T(c, BEFORE_T(x2, shift));                                                                 \
                d = COMBINE_T(d, BEFORE_T(x3, shift));                                                                 \
            }                                                                                                          \
            for (; block > 0u; block--) {                                                                              \
                a = COMBINE_T(a, BEFORE_T(LOAD(at), shift));                                                           \
                advance(step_offset);                                                                                  \
            }                                                                                                          \
            total = COMBINE_T(total, COMBINE_T(COMBINE_T(a, b), COMBINE_T(c, d)));                                     \
        }                                                                                                              \
        return total;                                                                                                  \
    }

ELEMENT load(uint i) { return Elements(push.x).v[i]; }
REDUCE_WALK(walk, ELEMENT, load, combine, before)

#ifdef ELEMENT4
ELEMENT4 load4(uint i) { return Elements4(push.x).v[i]; }
ELEMENT4 combine4(ELEMENT4 a, ELEMENT4 b)
{
    return ELEMENT4(combine(a.x, b.x), combine(a.y, b.y), combine(a.z, b.z), combine(a.w, b.w));
}
ELEMENT4 before4(ELEMENT4 a, ELEMENT4 shift)
{
    return ELEMENT4(before(a.x, shift.x), before(a.y, shift.y), before(a.z, shift.z), before(a.w, shift.w));
}
REDUCE_WALK(walk4, ELEMENT4, load4, combine4, before4)
#endif

uint kept_offset(uint output_index)
{
    uint rest = output_index;
    uint offset = 0u;
    if (KEPT > 1u) {
        uint q = rest / push.k_extent0;
        offset += (rest - q * push.k_extent0) * push.k_stride0;
        rest = q;
    }
    if (KEPT > 2u) {
        uint q = rest / push.k_extent1;
        offset += (rest - q * push.k_extent1) * push.k_stride1;
        rest = q;
    }
    if (KEPT > 3u) {
        uint q = rest / push.k_extent2;
        offset += (rest - q * push.k_extent2) * push.k_stride2;
        rest = q;
    }
    uint outermost = KEPT > 3u   ? push.k_stride3
                     : KEPT > 2u ? push.k_stride2
                     : KEPT > 1u ? push.k_stride1
                                 : push.k_stride0;
    return offset + rest * outermost;
}

void main()
{
    uint item = team_item();
    bool live = item < push.outputs * push.chunks;
    uint chunk = live ? item / push.outputs : 0u;
    uint output_index = live ? item - chunk * push.outputs : 0u;

    uint first = chunk * push.chunk + team_lane();
    uint end = live ? min(push.total, (chunk + 1u) * push.chunk) : 0u;
    uint count = first < end ? (end - first + LANES - 1u) / LANES : 0u;
    uvec4 start = split(first);
    step_digit = split(LANES);
    digit = start.xyz;
    at = kept_offset(output_index) + offset_of(start);

    bool shifted = BEFORE == BEFORE_EXP_SHIFTED || AFTER == AFTER_LOG_SHIFTED;
#ifdef ELEMENT4
    if (FORM == FORM_ACROSS) {
        ELEMENT4 shift = ELEMENT4(0);
        if (shifted && live) {
            shift = Elements4(push.shift).v[output_index];
            shift = ELEMENT4(finite(shift.x), finite(shift.y), finite(shift.z), finite(shift.w));
        }
        ELEMENT4 r = walk4(count, shift);
        for (uint i = 0u; i < 4u; i++)
            r[i] = after(team_combine(r[i]), shift[i]);
        if (live && team_lane() == 0u)
            Elements4(push.y).v[item] = r;
        return;
    }
#endif
    ELEMENT shift = ELEMENT(0);
    if (shifted && live)
        shift = finite(Elements(push.shift).v[output_index]);
    ELEMENT r;
#ifdef ELEMENT4
    if (FORM == FORM_ALONG) {
        ELEMENT4 four = walk4(count, ELEMENT4(shift));
        r = combine(combine(four.x, four.y), combine(four.z, four.w));
    } else
#endif
        r = walk(count, shift);
    r = after(team_combine(r), shift);
    if (live && team_lane() == 0u)
        Elements(push.y).v[item] = r;
}

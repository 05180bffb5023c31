// kernel: batchnorm_nhwc_grad
// kernel: batchnorm_nhwc_grad_sums -DSUMS
#version 450
#extension GL_GOOGLE_include_directive : require
#include "batchnorm_nhwc.glsl"

// Backward of batchnorm_nhwc.comp, which recomputes the activation from x: the sums of the gradient d behind the
// activation and of d * n, where n = (x - mean) * deviation, and, with their totals in dbias and dscale,
// dx = deviation * scale * (d - mean(d) - n mean(d n)). Floor: the bytes of x and dy, in the second pass of dx too.

layout(constant_id = 10) const bool FROZEN = false; // `deviation` holds a variance, and statistics are constants

struct Channels {
    vec4 mean, slope, bias, deviation;
};

Channels channels_of(uint channel)
{
    Channels c;
    c.mean = load_channels(push.mean, channel);
    c.deviation = load_channels(push.deviation, channel);
    if (FROZEN)
        c.deviation = 1.0 / sqrt(c.deviation + push.epsilon);
    c.slope = load_channels(push.scale, channel) * c.deviation;
    c.bias = RELU ? load_channels(push.bias, channel) : vec4(0.0); // a maximum is at the same place without it
    return c;
}

// As loaded.
struct Unit {
    vec4 low[4], high[4];
    Octet dy;
};

Unit load_unit(Walk w, uint unit)
{
    Unit u;
    uint from = unit_offset(w, unit);
    [[unroll]] for (uint k = 0u; k < POSITIONS; ++k) {
        Octet x = load_octet(push.x, from + position_offset(k), HALVES);
        u.low[k] = x.low;
        u.high[k] = x.high;
    }
    u.dy = load_octet(push.y, unit * push.octets + w.octet, HALVES);
    return u;
}

// The gradient dy brought back to the normalized values of a unit's pixels. ReLU passes it where z > 0, a window to its
// first maximum.
void gate(Channels c, vec4 x[4], vec4 dy, out vec4 d[4])
{
    vec4 z[4];
    [[unroll]] for (uint k = 0u; k < POSITIONS; ++k)
        z[k] = normalize(c.mean, c.slope, c.bias, x[k]);
    Windows w = windows_max(z);
    if (RELU)
        dy = mix(dy, vec4(0.0), lessThanEqual(w.best, vec4(0.0)));
    [[unroll]] for (uint k = 0u; k < POSITIONS; ++k)
        d[k] = POOL ? mix(vec4(0.0), dy, equal(w.place, uvec4(k))) : dy;
}

#ifdef SUMS
void add_unit(Channels c, vec4 x[4], vec4 dy, inout vec4 sum, inout vec4 product)
{
    vec4 d[4];
    gate(c, x, dy, d);
    [[unroll]] for (uint k = 0u; k < POSITIONS; ++k) {
        sum += d[k];
        product += d[k] * (x[k] - c.mean);
    }
}

void store_sums(Walk w, uint c, float sum, float product)
{
    uint channel = w.octet * 8u + c, at = w.chunk * push.channels + channel;
    if (channel >= push.channels)
        return;
    F32(push.to).v[at] = sum;
    F32(push.to).v[push.chunks * push.channels + at] = product;
}

void main()
{
    Walk w = walk_of();
    Channels low = channels_of(w.octet * 8u), high = channels_of(w.octet * 8u + 4u);
    vec4 v[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0)); // sums low and high, products low and high
    for (uint unit = w.first + walk_lane(); unit < w.end; unit += HELD * LANES) {
        Unit u[HELD];
        [[unroll]] for (uint q = 0u; q < HELD; ++q)
            if (unit + q * LANES < w.end)
                u[q] = load_unit(w, unit + q * LANES);
        vec4 block[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0)); // short sums keep their digits
        [[unroll]] for (uint q = 0u; q < HELD; ++q) {
            if (unit + q * LANES >= w.end)
                break;
            add_unit(low, u[q].low, u[q].dy.low, block[0], block[2]);
            add_unit(high, u[q].high, u[q].dy.high, block[1], block[3]);
        }
        [[unroll]] for (uint k = 0u; k < 4u; ++k)
            v[k] += block[k];
    }
    sum_lanes(v);
    if (w.live && walk_lane() == 0u) {
        v[2] *= low.deviation;
        v[3] *= high.deviation;
        [[unroll]] for (uint c = 0u; c < 4u; ++c) {
            store_sums(w, c, v[0][c], v[2][c]);
            store_sums(w, c + 4u, v[1][c], v[3][c]);
        }
    }
}
#else
struct Means { // times slope, as dx needs them; the second once more times deviation, for n
    vec4 of_d, of_product;
};

Means means_of(Channels c, uint channel)
{
    if (FROZEN)
        return Means(vec4(0.0), vec4(0.0));
    vec4 each = c.slope / push.count;
    return Means(load_channels(push.dbias, channel) * each, load_channels(push.dscale, channel) * each * c.deviation);
}

void slopes(Channels c, Means m, vec4 x[4], vec4 dy, out vec4 dx[4])
{
    vec4 d[4];
    gate(c, x, dy, d);
    [[unroll]] for (uint k = 0u; k < POSITIONS; ++k)
        dx[k] = d[k] * c.slope - m.of_d - (x[k] - c.mean) * m.of_product;
}

void main()
{
    Walk w = walk_of();
    Channels low = channels_of(w.octet * 8u), high = channels_of(w.octet * 8u + 4u);
    Means low_means = means_of(low, w.octet * 8u), high_means = means_of(high, w.octet * 8u + 4u);
    for (uint unit = w.first + walk_lane(); unit < w.end; unit += HELD * LANES) {
        Unit u[HELD];
        [[unroll]] for (uint q = 0u; q < HELD; ++q)
            if (unit + q * LANES < w.end)
                u[q] = load_unit(w, unit + q * LANES);
        [[unroll]] for (uint q = 0u; q < HELD; ++q) {
            if (unit + q * LANES >= w.end)
                break;
            uint to = unit_offset(w, unit + q * LANES);
            vec4 dx_low[4], dx_high[4];
            slopes(low, low_means, u[q].low, u[q].dy.low, dx_low);
            slopes(high, high_means, u[q].high, u[q].dy.high, dx_high);
            [[unroll]] for (uint k = 0u; k < POSITIONS; ++k)
                store_octet(push.to, to + position_offset(k), HALVES, Octet(dx_low[k], dx_high[k]));
        }
    }
}
#endif

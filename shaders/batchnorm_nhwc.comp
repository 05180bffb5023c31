// kernel: batchnorm_nhwc
// kernel: batchnorm_nhwc_stats -DSTATISTICS
#version 450
#extension GL_GOOGLE_include_directive : require
#include "batchnorm_nhwc.glsl"

#ifdef STATISTICS
// What batchnorm_stats.comp finds: mean, sum of squared differences from it, elements, and what rounding the mean lost,
// of each chunk of each channel. Sums are taken around the chunk's first pixel, the same for all lanes, so that they can
// be added up. Floor: the bytes of x.

void store_partial(Walk w, uint c, float around, float sum, float squares)
{
    uint channel = w.octet * 8u + c;
    if (channel >= push.channels)
        return;
    float count = float(w.end - w.first);
    precise float mean = sum / count, whole = around + mean, back = whole - around;
    precise float lost = (around - (whole - back)) + (mean - back); // Knuth's TwoSum
    F32x4(push.to).v[w.chunk * push.channels + channel] =
        vec4(whole, max(squares - sum * mean, 0.0), count, lost);
}

void main()
{
    Walk w = walk_of();
    Octet around = Octet(vec4(0.0), vec4(0.0));
    if (w.live)
        around = load_octet(push.x, unit_offset(w, w.first), HALVES);
    vec4 v[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0)); // sums low and high, squares low and high
    for (uint unit = w.first + walk_lane(); unit < w.end; unit += HELD * LANES) {
        Octet x[HELD];
        [[unroll]] for (uint q = 0u; q < HELD; ++q) {
            x[q] = around;
            if (unit + q * LANES < w.end)
                x[q] = load_octet(push.x, unit_offset(w, unit + q * LANES), HALVES);
        }
        [[unroll]] for (uint q = 0u; q < HELD; ++q) {
            vec4 low = x[q].low - around.low, high = x[q].high - around.high;
            v[0] += low;
            v[1] += high;
            v[2] += low * low;
            v[3] += high * high;
        }
    }
    sum_lanes(v);
    if (w.live && walk_lane() == 0u)
        [[unroll]] for (uint c = 0u; c < 4u; ++c) {
            store_partial(w, c, around.low[c], v[0][c], v[2][c]);
            store_partial(w, c + 4u, around.high[c], v[1][c], v[3][c]);
        }
}
#else
// y = pool(relu((x - mean) * slope + bias)). Floor: the bytes of x and y.

struct Channels {
    vec4 mean, slope, bias;
};

Channels channels_of(uint channel)
{
    mat4 rows = mat4(0.0); // of channels that are padding: zeros, and so is y
    [[unroll]] for (uint k = 0u; k < 4u; ++k)
        if (channel + k < push.channels)
            rows[k] = F32x4(push.affine).v[channel + k];
    mat4 t = transpose(rows);
    return Channels(t[0], t[1], t[2]);
}

vec4 activate(Channels c, vec4 x[4])
{
    vec4 z[4];
    [[unroll]] for (uint k = 0u; k < POSITIONS; ++k)
        z[k] = normalize(c.mean, c.slope, c.bias, x[k]);
    vec4 y = windows_max(z).best;
    return RELU ? relu(y) : y;
}

void main()
{
    Walk w = walk_of();
    Channels low = channels_of(w.octet * 8u), high = channels_of(w.octet * 8u + 4u);
    for (uint unit = w.first + walk_lane(); unit < w.end; unit += HELD * LANES) {
        vec4 x_low[HELD][4], x_high[HELD][4];
        [[unroll]] for (uint q = 0u; q < HELD; ++q) {
            if (unit + q * LANES >= w.end)
                break;
            uint from = unit_offset(w, unit + q * LANES);
            [[unroll]] for (uint k = 0u; k < POSITIONS; ++k) {
                Octet x = load_octet(push.x, from + position_offset(k), HALVES);
                x_low[q][k] = x.low;
                x_high[q][k] = x.high;
            }
        }
        [[unroll]] for (uint q = 0u; q < HELD; ++q) {
            if (unit + q * LANES >= w.end)
                break;
            Octet y = Octet(activate(low, x_low[q]), activate(high, x_high[q]));
            store_octet(push.y, (unit + q * LANES) * push.octets + w.octet, HALVES, y);
        }
    }
}
#endif

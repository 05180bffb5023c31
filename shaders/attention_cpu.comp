// kernel: attention_cpu
#version 450
#extension GL_GOOGLE_include_directive : require
#include "attention_common.glsl"

// Attention in registers alone, for devices that are processors and for head sizes whose tiles do not fit elsewhere: an
// invocation takes one query and COLUMNS vectors of v's columns, and walks the keys four at a time.
layout(constant_id = 10) const uint COLUMNS = 16;

vec4 sums[COLUMNS];

vec4 products(Head h, uint q, uvec4 k)
{
    vec4 s = vec4(0.0);
    for (uint d = 0u; d < push.size; d += 4u) {
        vec4 x = load4(push.q, WIDE_Q, q, d, push.size);
        [[unroll]] for (uint j = 0u; j < 4u; ++j)
            s[j] += dot(x, load4(push.k, WIDE_K, k[j], d, push.size));
    }
    return s * push.scale;
}

void main()
{
    uint blocks = (push.v_size + 4u * COLUMNS - 1u) / (4u * COLUMNS);
    uint item = linear_invocation();
    if (item >= push.batches * push.heads * blocks * push.rows)
        return;
    uint row = item % push.rows, block = item / push.rows % blocks, first = block * 4u * COLUMNS;
    Head h = find_head(item / push.rows / blocks);
    uint limit = row_limit(h, row), q = h.q + row * push.q_row;
    float largest = MINUS_INFINITY, total = 0.0;
    [[unroll]] for (uint c = 0u; c < COLUMNS; ++c)
        sums[c] = vec4(0.0);
    for (uint key = 0u; key < limit; key += 4u) {
        uvec4 keys = min(key + uvec4(0u, 1u, 2u, 3u), uvec4(push.keys - 1u));
        vec4 s = products(h, q, h.k + keys * push.k_row);
        [[unroll]] for (uint j = 0u; j < 4u; ++j)
            s[j] = score(h, s[j], row, key + j, limit);
        float larger = max(max(max(s.x, s.y), max(s.z, s.w)), largest);
        float base = larger == MINUS_INFINITY ? 0.0 : larger;
        float keep = exp(largest - base);
        vec4 p = exp(s - base);
        largest = larger;
        total = total * keep + ((p.x + p.y) + (p.z + p.w));
        uvec4 v = h.v + keys * push.v_row;
        [[unroll]] for (uint c = 0u; c < COLUMNS; ++c) {
            vec4 sum = sums[c] * keep;
            [[unroll]] for (uint j = 0u; j < 4u; ++j)
                sum += p[j] * load4(push.v, WIDE_V, v[j], first + 4u * c, push.v_size);
            sums[c] = sum;
        }
    }
    [[unroll]] for (uint c = 0u; c < COLUMNS; ++c)
        store4(h, row, first + 4u * c, quotient(sums[c], total));
}

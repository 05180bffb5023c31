// kernel: attention_scores
#version 450
#extension GL_GOOGLE_include_directive : require
#include "attention_common.glsl"

// Scaled products [batch][head][row][key] become scores in place, for those who ask to see them.
void main()
{
    uint at = linear_invocation();
    if (at >= push.batches * push.heads * push.rows * push.keys)
        return;
    uint key = at % push.keys, row = at / push.keys % push.rows;
    Head h = find_head(at / push.keys / push.rows);
    F32(push.y).v[at] = score(h, F32(push.y).v[at], row, key, row_limit(h, row));
}

// What the loss kernels share: rows of class scores [samples][classes][inner], and their labels.
#ifndef LOSS_GLSL
#define LOSS_GLSL

layout(constant_id = 10) const bool LABEL64 = true; // int64 labels, else int32
layout(constant_id = 11) const bool LIKELIHOOD = false; // scores are log-probabilities already
layout(constant_id = 12) const bool WEIGHTED = false; // a weight per class
layout(constant_id = 13) const uint REDUCTION = 2;

// The numbers are those of hk_loss_reduction in ops/loss.c.
const uint REDUCTION_NONE = 0, REDUCTION_SUM = 1, REDUCTION_MEAN = 2;

// valid: the row counts. class_index is always safe to read at; outside: the label names no class, and the row's loss
// and gradient are NaN.
struct Label {
    uint class_index;
    bool valid, outside;
};

Label label_at(uvec2 labels, uint row, uint classes, uvec2 ignored)
{
    uvec2 x;
    if (LABEL64)
        x = U32x2(labels).v[row];
    else {
        x.x = U32(labels).v[row];
        x.y = int(x.x) < 0 ? 0xffffffffu : 0u;
    }
    Label l;
    l.valid = x != ignored;
    l.outside = l.valid && (x.y != 0u || x.x >= classes);
    l.class_index = x.y != 0u ? 0u : min(x.x, classes - 1u);
    return l;
}

// Weight of a row in the loss: NaN where the label names no class, 0 where it is ignored.
float row_weight(Label l, uvec2 weights)
{
    if (!l.valid)
        return 0.0;
    if (l.outside)
        return uintBitsToFloat(0x7fc00000u);
    return WEIGHTED ? F32(weights).v[l.class_index] : 1.0;
}

#endif

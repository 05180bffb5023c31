// The gradient of a unit behind its activation, recomputed from x, for the two backward kernels.
layout(constant_id = 12) const bool FROZEN = false; // `deviation` holds a variance, and statistics are constants

struct Gated {
    vec4 x_upper, x_lower; // less the mean
    vec4 d_upper, d_lower; // gradient of the normalized value
};

Affine affine_of(Geometry g, Item it, out float deviation)
{
    uint param = it.channel / g.param_divide % g.param_count;
    uint row = it.channel / g.group;
    deviation = F32(push.deviation).v[row];
    if (FROZEN)
        deviation = deviation_of(deviation, g.epsilon);
    float bias = RELU ? F32(push.bias).v[param] : 0.0; // a maximum is at the same place without it
    return Affine(F32(push.mean).v[row], F32(push.scale).v[param] * deviation, bias);
}

Gated load_gated(Geometry g, Item it, Affine a, uvec3 place)
{
    uint from = x_offset(g, it.channel, place), at = y_offset(g, it.channel, place), count = filled(g, place);
    Gated r;
    vec4 upper = load4(g, push.x, from, count), lower = vec4(0.0);
    vec4 dy;
    if (POOL) {
        lower = load4(g, push.x, from + g.row_extent, count);
        dy = vec4(load2(push.dy, at, count / 2u), 0.0, 0.0);
    } else
        dy = load4(g, push.dy, at, count);
    gate(RELU || POOL ? normalize(a, upper) : upper, POOL ? normalize(a, lower) : lower, dy, r.d_upper, r.d_lower);
    r.x_upper = upper - a.mean;
    r.x_lower = lower - a.mean;
    return r;
}

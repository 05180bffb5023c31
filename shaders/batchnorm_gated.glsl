// The gradient of a unit behind its activation, recomputed from x, for the two backward kernels.

struct Raw { // as loaded
    vec4 upper, lower, dy;
};

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

Raw load_raw(Geometry g, Item it, uvec3 place)
{
    uint from = x_offset(g, it.channel, place), at = y_offset(g, it.channel, place), count = filled(g, place);
    Raw r;
    r.upper = load4(g, push.x, from, count);
    r.lower = vec4(0.0);
    if (POOL) {
        r.lower = load4(g, push.x, from + g.row_extent, count);
        r.dy = vec4(load2(push.dy, at, count / 2u), 0.0, 0.0);
    } else
        r.dy = load4(g, push.dy, at, count);
    return r;
}

Gated gated(Affine a, Raw r)
{
    Gated o;
    vec4 upper = RELU || POOL ? normalize(a, r.upper) : r.upper;
    vec4 lower = POOL ? normalize(a, r.lower) : r.lower;
    gate(upper, lower, r.dy, o.d_upper, o.d_lower);
    o.x_upper = r.upper - a.mean;
    o.x_lower = r.lower - a.mean;
    return o;
}
